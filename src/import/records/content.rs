//! Content: blogs, pages, HubDB tables and redirects, written one at a time and not created twice.
//!
//! HubSpot has neither batches nor unique properties for content. So what is there is found by what it is called (its *natural key*: a slug,
//! a name, a route), and which thing stands for which id of the stream is kept in S3, an empty object for each pair:
//! `state/ids/<import>/<portal>/<resource>/<id in the stream>/<id in the account>`, which no lifecycle rule removes. A pair is durable before its row is accounted for. What was
//! created and not noted, because the process died or the answer was lost, is found by its natural key.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    super::deliver::Delivered,
    intake::{Act, NAMELESS},
    record::text_of,
};
use crate::{
    clock::{Clock, Deadline},
    codes,
    error::{Error, ErrorKind, Result},
    http::{rate_limit::Permit, token::percent_encode},
    hubspot::{
        account::Account,
        cms::{CmsOrder, CmsQuery, CmsWritten},
        envelope::Refusal,
        records::RawRecord,
        resources::{CmsResource, Write},
    },
    objects::{Location, Objects},
    record::{Input, PropertyName, Reason},
};

/// Pages of a list; 100 things each. More content than this has no account, and memory is bounded.
const PAGES_MAX: u32 = 1_000;

/// Pairs of ids that are held.
const IDS_MAX: usize = 100_000;

/// How often a create whose answer was lost is sent, once it is certain that the thing is not there.
const CREATE_TRIES_MAX: u32 = 3;

/// A create whose answer was lost may still be at work: how long to wait before looking.
const LOOK_AFTER: Duration = Duration::from_secs(2);

/// Members that HubSpot keeps itself: sending them is of no use, or refused.
const READ_ONLY: [&str; 24] = [
    "id",
    "created",
    "updated",
    "createdAt",
    "updatedAt",
    "deletedAt",
    "archivedAt",
    "archived",
    "deleted",
    "archivedInDashboard",
    "createdById",
    "updatedById",
    "createdBy",
    "updatedBy",
    "portalId",
    "url",
    "published",
    "publishedAt",
    "currentState",
    "currentlyPublished",
    "rowCount",
    "columnCount",
    "authorName",
    "categoryId",
];

/// Whether HubSpot keeps a member of content itself.
pub(super) fn is_read_only(name: &str) -> bool {
    READ_ONLY.contains(&name)
}

/// By which members a thing can be recognised, the best first.
fn naturals(resource: &CmsResource) -> &'static [&'static str] {
    match resource.collection {
        "cms.urlRedirects" => &["routePrefix"],
        "cms.hubdb.tables" => &["name"],
        _ => &["slug", "name"],
    }
}

/// Whether a member is part of how things of this resource are recognised.
pub(super) fn is_natural(resource: &CmsResource, name: &str) -> bool {
    naturals(resource).contains(&name)
}

fn natural(resource: &CmsResource, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    naturals(resource).iter().find_map(|name| {
        let value = value(name)?;
        let value = value.trim().trim_start_matches('/');
        (!value.is_empty()).then(|| format!("{name}:{value}"))
    })
}

/// What something with these members (values as JSON) is called.
pub(super) fn natural_of(resource: &CmsResource, members: &[(PropertyName, String)]) -> Option<String> {
    natural(resource, |name| {
        let (_, json) = members.iter().find(|(member, _)| &**member == name)?;
        text_of(&serde_json::from_str(json).ok()?)
    })
}

/// What the account has.
#[derive(Default)]
struct Known {
    /// Id in the stream to id in the account.
    ids: HashMap<String, String>,
    /// Id in the account to id in the stream.
    sources: HashMap<String, String>,
    /// Natural key to ids in the account.
    naturals: HashMap<String, BTreeSet<String>>,
    /// What there is.
    live: HashSet<String>,
}

impl Known {
    fn pair(&mut self, source: &str, id: &str) {
        if self.ids.len() < IDS_MAX || self.ids.contains_key(source) {
            self.ids.insert(source.to_owned(), id.to_owned());
        }
        self.sources.insert(id.to_owned(), source.to_owned());
    }

    fn shows(&mut self, resource: &CmsResource, record: &RawRecord) {
        self.live.insert(record.id.clone());
        let called = natural(resource, |name| record.object.get(name).and_then(text_of));
        if let Some(called) = called {
            self.naturals.entry(called).or_default().insert(record.id.clone());
        }
    }

    /// Whether it was there, as far as is known.
    fn gone(&mut self, id: &str) -> bool {
        for ids in self.naturals.values_mut() {
            ids.remove(id);
        }
        self.live.remove(id)
    }

    /// What is called so and stands for nothing else.
    fn free(&self, called: &str, source: Option<&str>) -> Option<String> {
        let is_free = |id: &&String| match (source, self.sources.get(*id)) {
            (Some(source), Some(other)) => source == other,
            _ => true,
        };
        self.naturals.get(called)?.iter().find(is_free).cloned()
    }

    /// The same; it stands for `source` from now on.
    fn claim(&mut self, called: &str, source: Option<&str>) -> Option<String> {
        let id = self.free(called, source)?;
        if let Some(source) = source {
            self.pair(source, &id);
        }
        Some(id)
    }
}

/// One resource of an account, as an import delivers to it.
pub(super) struct Content {
    account: Rc<Account>,
    objects: Rc<dyn Objects>,
    clock: Rc<dyn Clock>,
    resource: CmsResource,
    /// Where the pairs of ids are.
    folder: Location,
    known: RefCell<Known>,
}

impl Content {
    /// Reads which ids are known, and what there is: before the first write, so that a write's turn is not spent on waiting for it.
    pub(super) async fn open(
        account: Rc<Account>,
        objects: Rc<dyn Objects>,
        clock: Rc<dyn Clock>,
        resource: CmsResource,
        folder: Location,
        deadline: Deadline,
    ) -> Result<Self> {
        let mut known = Known::default();
        for at in objects.list(&folder).await? {
            let Some((source, id)) = at.key.strip_prefix(&folder.key).and_then(|pair| pair.split_once('/')) else {
                continue;
            };
            let (source, id) = (decoded(source), decoded(id));
            if known.ids.len() >= IDS_MAX {
                let message = format!("{folder} holds more than {IDS_MAX} ids");
                return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message));
            }
            known.pair(&source, &id);
        }
        let content = Self { account, objects, clock, resource, folder, known: RefCell::new(known) };
        content.list(deadline).await?;
        Ok(content)
    }

    /// Delivers one thing.
    pub(super) async fn deliver(
        &self,
        act: Act,
        input: &Input,
        permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<Delivered> {
        let source = Some(input.key.as_str()).filter(|key| !key.starts_with(NAMELESS));
        match act {
            Act::Remove | Act::Discard => self.delete(act, input, permit, deadline).await,
            _ => self.put(act, source, input, permit, deadline).await,
        }
    }

    fn id_of(&self, source: Option<&str>) -> Option<String> {
        source.and_then(|source| self.known.borrow().ids.get(source).cloned())
    }

    async fn put(
        &self,
        act: Act,
        source: Option<&str>,
        input: &Input,
        mut permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<Delivered> {
        let members: Map<String, Value> = input
            .properties
            .iter()
            .filter_map(|(name, json)| Some((name.to_string(), serde_json::from_str(json).ok()?)))
            .collect();
        if let Some(id) = self.id_of(source) {
            match self.change(&id, &members, permit.take(), deadline).await? {
                Some(delivered) => return Ok(delivered),
                // Somebody deleted it: it is made anew.
                None => self.forget(source, &id).await?,
            }
        } else if act == Act::Change {
            let gone = || {
                let reason = format!("the account has nothing with this id among {}", self.resource.collection);
                Delivered::Refused(Reason::new(codes::KEY_NOT_FOUND, reason))
            };
            let id = source.unwrap_or_default();
            return Ok(self.change(id, &members, permit.take(), deadline).await?.unwrap_or_else(gone));
        }
        let Some(called) = natural_of(&self.resource, &input.properties) else {
            let names = naturals(&self.resource).join(" or ");
            let reason = format!("the id is not known here, and `payload.after` has no {names} to find it by");
            return Ok(Delivered::Refused(Reason::new(codes::RECORD_UNNAMED, reason)));
        };
        let mut tries = 0;
        loop {
            let claimed = self.known.borrow_mut().claim(&called, source);
            if let Some(id) = claimed {
                if let Some(source) = source {
                    self.remember(source, &id).await?;
                }
                match self.change(&id, &members, permit.take(), deadline).await? {
                    Some(delivered) => return Ok(delivered),
                    None => {
                        self.forget(source, &id).await?;
                        continue;
                    }
                }
            }
            tries += 1;
            let call = self.account.write_cms(&self.resource, Write::Create, "", &members, permit.take(), deadline);
            match call.await {
                Ok(CmsWritten::Done(Some(record))) => {
                    {
                        let mut known = self.known.borrow_mut();
                        known.shows(&self.resource, &record);
                        if let Some(source) = source {
                            known.pair(source, &record.id);
                        }
                    }
                    if let Some(source) = source {
                        self.remember(source, &record.id).await?;
                    }
                    self.publish(&record.id, deadline).await?;
                    return Ok(Delivered::Written { id: record.id, created: true });
                }
                Ok(CmsWritten::Refused(status, refusal)) => {
                    // Perhaps somebody made it a moment ago.
                    let conflict = status == StatusCode::CONFLICT || refusal.category == "CONFLICT";
                    if !conflict || tries >= CREATE_TRIES_MAX {
                        return Ok(refused(&refusal, members.values().filter_map(text_of)));
                    }
                }
                Ok(CmsWritten::Done(None)) => {}
                Err(error) if error.kind() == ErrorKind::Unknown => {}
                Err(error) => return Err(error),
            }
            self.clock.sleep(LOOK_AFTER).await;
            self.list(deadline).await?;
            if tries >= CREATE_TRIES_MAX && self.known.borrow().free(&called, source).is_none() {
                return Ok(Delivered::Unknown);
            }
        }
    }

    /// Changes what has this id; `None` if there is no such thing.
    async fn change(
        &self,
        id: &str,
        members: &Map<String, Value>,
        permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<Option<Delivered>> {
        match self.account.write_cms(&self.resource, Write::Update, id, members, permit, deadline).await? {
            CmsWritten::Done(_) => {
                self.publish(id, deadline).await?;
                Ok(Some(Delivered::Written { id: id.to_owned(), created: false }))
            }
            CmsWritten::Refused(StatusCode::NOT_FOUND, _) => Ok(None),
            CmsWritten::Refused(_, refusal) => Ok(Some(refused(&refusal, members.values().filter_map(text_of)))),
        }
    }

    /// Makes a draft that was written the thing itself, where there are drafts.
    async fn publish(&self, id: &str, deadline: Deadline) -> Result<()> {
        match self.account.publish_cms(&self.resource, id, deadline).await? {
            CmsWritten::Done(_) => Ok(()),
            // There is no draft, or nothing that would have to be published.
            CmsWritten::Refused(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => Ok(()),
            CmsWritten::Refused(status, _) => {
                let message = format!("publishing the draft of one of {}: {status}", self.resource.collection);
                Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message))
            }
        }
    }

    async fn delete(&self, act: Act, input: &Input, permit: Option<Permit>, deadline: Deadline) -> Result<Delivered> {
        let id = match self.id_of(Some(&input.key)) {
            Some(id) => id,
            None if act == Act::Discard => input.key.clone(),
            None => {
                let found = match natural_of(&self.resource, &input.properties) {
                    Some(called) => self.known.borrow_mut().claim(&called, Some(&input.key)),
                    None => None,
                };
                match found {
                    Some(id) => {
                        self.remember(&input.key, &id).await?;
                        id
                    }
                    // Everything of the stream that is here has a known id: this was gone before it was ever delivered.
                    None if !self.known.borrow().ids.is_empty() => {
                        return Ok(Delivered::Unchanged { id: String::new() });
                    }
                    None => {
                        let reason = "the record is a delete, and this import has delivered nothing of its source yet";
                        return Ok(Delivered::Refused(Reason::new(codes::RECORD_UNNAMED, reason)));
                    }
                }
            }
        };
        let nothing = Map::new();
        match self.account.write_cms(&self.resource, Write::Delete, &id, &nothing, permit, deadline).await? {
            CmsWritten::Done(_) => {
                // What was deleted before is deleted again without a word.
                let was_there = self.known.borrow_mut().gone(&id);
                Ok(if was_there { Delivered::Written { id, created: false } } else { Delivered::Unchanged { id } })
            }
            CmsWritten::Refused(StatusCode::NOT_FOUND, _) => {
                self.known.borrow_mut().gone(&id);
                Ok(Delivered::Unchanged { id })
            }
            CmsWritten::Refused(_, refusal) => Ok(refused(&refusal, std::iter::empty())),
        }
    }

    /// Everything that there is, by what it is called.
    async fn list(&self, deadline: Deadline) -> Result<()> {
        let query = CmsQuery { order: CmsOrder::Created, ..CmsQuery::default() };
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let page = self.account.list_cms(&self.resource, query, after.as_deref(), deadline).await?;
            let mut known = self.known.borrow_mut();
            for record in page.records.iter().filter(|record| record.archived_at.is_none()) {
                known.shows(&self.resource, record);
            }
            after = page.after;
            if after.is_none() {
                return Ok(());
            }
        }
        let message = format!("the list of {} does not end", self.resource.collection);
        Err(Error::new(ErrorKind::Corrupt, codes::HUBSPOT_ANSWER_UNREADABLE, message))
    }

    fn pair_at(&self, source: &str, id: &str) -> Location {
        let mut key = self.folder.key.clone();
        percent_encode(&mut key, source);
        key.push('/');
        percent_encode(&mut key, id);
        Location::new(&self.folder.bucket, key)
    }

    async fn remember(&self, source: &str, id: &str) -> Result<()> {
        self.objects.put(&self.pair_at(source, id), Bytes::new(), "application/octet-stream").await
    }

    /// The thing is gone.
    async fn forget(&self, source: Option<&str>, id: &str) -> Result<()> {
        {
            let mut known = self.known.borrow_mut();
            known.gone(id);
            known.sources.remove(id);
            if let Some(source) = source {
                known.ids.remove(source);
            }
        }
        match source {
            Some(source) => self.objects.delete(&self.pair_at(source, id)).await,
            None => Ok(()),
        }
    }
}

/// HubSpot's refusal, with the values that were sent masked.
fn refused(refusal: &Refusal, values: impl Iterator<Item = String>) -> Delivered {
    let values: Vec<String> = values.collect();
    let text = refusal.text(values.iter().map(String::as_str));
    Delivered::Refused(Reason::from_hubspot(refusal.code(), text))
}

/// The reverse of percent-encoding.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, hex) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
