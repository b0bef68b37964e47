//! Which HubSpot record and which Salesforce record are one, and what both held when they were last in step.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `link#<sync>#h#<HubSpot id>` | `link` | the link: `json`, `version`, `writer`, and whose it is (`hubspot`, `salesforce`) |
//! | `link#<sync>#s#<Salesforce id>` | `link` | `at`: the item in which the record's link is |
//!
//! There are no transactions here, so a record's link is what two items agree on: the record's pointer names an item, and the link in
//! that item names the record. A HubSpot record points at its own item where nothing else is said; after a merge `at` says that the link
//! stayed in the item of another id. So each change has one write that makes it real, the link's own, and a process may die before or
//! after any other: what is left is a pointer at an item that does not name its record, which counts as none.
//!
//! Two processes at once: pointers are written before the link that needs them. Who finds a pointer that counts as none and takes it
//! over first raises the version of the item that it points at, so that the write its owner may still be about to make fails. For this
//! versions never go back: a link that is removed leaves an item with nothing but its version.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use serde::Serialize;

use super::model::Link;
use crate::{
    clock::Rng,
    codes,
    error::{Error, ErrorKind, Result},
    salesforce::model::SalesforceId,
    state::{Changed, Condition, Item, Key, Table, Update, Value, runs::decode},
};

/// Items that are read at the same time. DynamoDB takes far more; at some 5 ms each this reads 6,000 items a second.
pub const READS_IN_FLIGHT: usize = 32;

/// Items that are written at the same time.
pub const WRITES_IN_FLIGHT: usize = 32;

/// The largest item of a sync, in bytes of JSON. DynamoDB's own limit is 400 KB with all names and keys.
pub const ITEM_BYTES_MAX: usize = 350 * 1024;

/// How often a change is tried when other processes cross it. One process has the lease, so once is rare.
pub(super) const EXCHANGES_MAX: usize = 8;

/// How often a change whose answer was lost is made. The SDK has repeated it several times before.
const LOST_ANSWERS_MAX: usize = 3;

/// The links of a sync.
pub struct Links {
    table: Rc<dyn Table>,
    marks: Marks,
    sync: String,
}

/// What came of making a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is stored as it was given; its version is set.
    Yes,
    /// The HubSpot record has this link. It may be with the very same Salesforce record: another process, or this one before it died, was
    /// quicker. Nothing was changed.
    Hubspot(Link),
    /// The Salesforce record has this link, with another HubSpot record. Nothing was changed.
    Salesforce(Link),
}

/// A record of one side, by whose id a link is found.
#[derive(Debug, Clone, Copy)]
enum Name<'a> {
    Hubspot(&'a str),
    Salesforce(&'a SalesforceId),
}

impl Name<'_> {
    fn is_of(self, link: &Link) -> bool {
        match self {
            Self::Hubspot(id) => link.hubspot_id == id,
            Self::Salesforce(id) => link.salesforce_id == *id,
        }
    }
}

/// Where a record's link is, where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pointer {
    slot: String,
    writer: String,
}

/// An item as it was read; nothing is there where it is not.
#[derive(Debug, Default)]
struct Stored {
    version: i64,
    writer: String,
    link: Option<Link>,
    pointer: Option<Pointer>,
}

/// What came of pointing a record at an item.
enum Claim {
    /// It points there, under a mark of this moment.
    Held,
    /// The record has this link.
    Taken(Box<Link>),
    /// Somebody else was quicker: look again.
    Crossed,
}

impl Links {
    /// The links of the sync of this name. Makes no request.
    pub fn new(table: Rc<dyn Table>, rng: Rc<Rng>, sync: &str) -> Self {
        Self { table, marks: Marks::new(rng), sync: sync.to_owned() }
    }

    /// The links of HubSpot records; who has none is left out. Reads each id once, [`READS_IN_FLIGHT`] at a time.
    pub async fn by_hubspot(&self, ids: &[String]) -> Result<BTreeMap<String, Link>> {
        let ids: BTreeSet<&String> = ids.iter().collect();
        let reads = ids.into_iter().map(async |id| Ok((id.clone(), self.resolve(Name::Hubspot(id)).await?)));
        found(reads).await
    }

    /// The links of Salesforce records; who has none is left out. Reads each id once, [`READS_IN_FLIGHT`] at a time.
    pub async fn by_salesforce(&self, ids: &[SalesforceId]) -> Result<BTreeMap<SalesforceId, Link>> {
        let ids: BTreeSet<&SalesforceId> = ids.iter().collect();
        let reads = ids.into_iter().map(async |id| Ok((id.clone(), self.resolve(Name::Salesforce(id)).await?)));
        found(reads).await
    }

    /// Stores a link that is new, under version 1 or, where there was one before, a later one.
    ///
    /// May be repeated after a crash or a lost answer. `SYNC_VALUE` where the link is too large ([`check`]); `STATE_UNAVAILABLE` where
    /// other processes keep crossing it.
    pub async fn create(&self, link: &mut Link) -> Result<Created> {
        let json = check(link)?;
        // As a rule there is nothing of either, and reading it would only cost time.
        let slot = link.hubspot_id.clone();
        let fresh = Stored::default();
        let salesforce = Name::Salesforce(&link.salesforce_id);
        let pointer = self.set_pointer(salesforce, &slot, &fresh).await?;
        if pointer.is_some()
            && let Some(version) = self.write(&slot, link, &json, &fresh, true).await?
        {
            link.version = version;
            return Ok(Created::Yes);
        }
        for _ in 0..EXCHANGES_MAX {
            let own = self.read(Name::Hubspot(&link.hubspot_id)).await?;
            let existing = self.follow(Name::Hubspot(&link.hubspot_id), &own).await?;
            if let Some((existing, writer)) = existing {
                let same = Link { version: existing.version, ..link.clone() } == existing;
                if same && self.marks.is_ours(&writer) {
                    link.version = existing.version;
                    return Ok(Created::Yes);
                }
                if let Some(pointer) = pointer.filter(|_| existing.salesforce_id != link.salesforce_id) {
                    // It is of no use to anybody.
                    self.drop_pointer(salesforce, &pointer).await?;
                }
                return Ok(Created::Hubspot(existing));
            }
            // The item may hold the link of a record into which this one was merged.
            let (slot, target) = match &own.link {
                None => (link.hubspot_id.clone(), own),
                Some(_) => (format!("{}~{}", link.hubspot_id, self.marks.next()), Stored::default()),
            };
            let names = [Name::Hubspot(&link.hubspot_id), Name::Salesforce(&link.salesforce_id)];
            match self.claim(&names, &slot, &target).await? {
                Claim::Held => {}
                Claim::Taken(existing) => {
                    return Ok(if existing.hubspot_id == link.hubspot_id {
                        Created::Hubspot(*existing)
                    } else {
                        Created::Salesforce(*existing)
                    });
                }
                Claim::Crossed => continue,
            }
            if let Some(version) = self.write(&slot, link, &json, &target, slot == link.hubspot_id).await? {
                link.version = version;
                return Ok(Created::Yes);
            }
        }
        Err(crossed(link))
    }

    /// Stores links that were read or made before, each if it is still as it was then: `false` where somebody else has changed it, in
    /// which case nothing of it is stored. Those that are stored have their version raised. Answers stand in the order of the links.
    ///
    /// Which records they link must be as it was: see [`Links::move_to`]. After an error each of them may or may not be stored: read
    /// them again. `SYNC_VALUE` before anything is written where one is too large ([`check`]).
    pub async fn store(&self, links: &mut [Link]) -> Result<Vec<bool>> {
        let texts: Vec<String> = links.iter().map(check).collect::<Result<_>>()?;
        let writes = links.iter_mut().zip(texts).map(async |(link, json)| {
            let version = self.store_one(link, &json).await?;
            if let Some(version) = version {
                link.version = version;
            }
            Ok(version.is_some())
        });
        stream::iter(writes).buffered(WRITES_IN_FLIGHT).try_collect().await
    }

    /// Gives the link another record on one side, or both, and stores it as it is given otherwise. `false` where somebody else has
    /// changed it, or the other record has a link of its own; nothing is changed then.
    ///
    /// May be repeated, with the link read again, after a crash: the link is moved or is not.
    pub async fn move_to(
        &self,
        link: &mut Link,
        hubspot: Option<String>,
        salesforce: Option<SalesforceId>,
    ) -> Result<bool> {
        let from = link.clone();
        let mut to = link.clone();
        to.hubspot_id = hubspot.unwrap_or(to.hubspot_id);
        to.salesforce_id = salesforce.unwrap_or(to.salesforce_id);
        let (moves_hubspot, moves_salesforce) =
            (to.hubspot_id != from.hubspot_id, to.salesforce_id != from.salesforce_id);
        if !moves_hubspot && !moves_salesforce {
            return Ok(true);
        }
        let json = check(&to)?;
        for _ in 0..EXCHANGES_MAX {
            let own = self.read(Name::Hubspot(&from.hubspot_id)).await?;
            let slot = own.pointer.as_ref().map_or(from.hubspot_id.clone(), |pointer| pointer.slot.clone());
            let target = self.read(Name::Hubspot(&slot)).await?;
            if !target.holds(&from) || target.version != from.version {
                return Ok(false);
            }
            // Read before the link is written: nobody can have need of the old pointers under these marks afterwards.
            let left = match moves_salesforce {
                true => self.read(Name::Salesforce(&from.salesforce_id)).await?.pointer,
                false => None,
            };
            let mut names = Vec::new();
            if moves_hubspot {
                names.push(Name::Hubspot(&to.hubspot_id));
            }
            if moves_salesforce {
                names.push(Name::Salesforce(&to.salesforce_id));
            }
            match self.claim(&names, &slot, &target).await? {
                Claim::Held => {}
                Claim::Taken(_) => return Ok(false),
                Claim::Crossed => continue,
            }
            let is_own = moves_hubspot && to.hubspot_id == slot;
            let Some(version) = self.write(&slot, &to, &json, &target, is_own).await? else { return Ok(false) };
            *link = Link { version, ..to };
            if let Some(pointer) = left {
                self.drop_pointer(Name::Salesforce(&from.salesforce_id), &pointer).await?;
            }
            if let (true, Some(pointer)) = (moves_hubspot, own.pointer) {
                self.drop_pointer(Name::Hubspot(&from.hubspot_id), &pointer).await?;
            }
            return Ok(true);
        }
        Err(crossed(&from))
    }

    /// Removes a link; it may be gone already. `Conflict` where somebody else has changed it.
    pub async fn remove(&self, link: &Link) -> Result<()> {
        let own = self.read(Name::Hubspot(&link.hubspot_id)).await?;
        let slot = own.pointer.as_ref().map_or(link.hubspot_id.clone(), |pointer| pointer.slot.clone());
        let named = self.read(Name::Salesforce(&link.salesforce_id)).await?.pointer;
        let target = self.read(Name::Hubspot(&slot)).await?;
        if target.holds(link) {
            let writer = self.marks.next();
            let update = Update {
                set: vec![("version", (link.version + 1).into()), ("writer", writer.as_str().into())],
                remove: vec!["json", "hubspot", "salesforce"],
                condition: Some(Condition::Equals("version", link.version.into())),
                ..Update::default()
            };
            let key = self.key(Name::Hubspot(&slot));
            let is_ours = |item: &Item| has(item, "writer", &writer) && !item.contains_key("json");
            if let Changed::No(_) = change(&*self.table, &key, update, is_ours).await? {
                let message = format!("the link of HubSpot record {}: another process has changed it", link.hubspot_id);
                return Err(Error::new(ErrorKind::Conflict, codes::STATE_UNAVAILABLE, message));
            }
        }
        let names = [(Name::Hubspot(&link.hubspot_id), own.pointer), (Name::Salesforce(&link.salesforce_id), named)];
        for (name, pointer) in names {
            let Some(pointer) = pointer else { continue };
            // The version of the item that was just emptied has been raised; that of another has not.
            let is_free = pointer.slot == slot && target.holds(link)
                || matches!(self.vacate(name, &pointer.slot).await?, Claim::Held);
            if is_free {
                self.drop_pointer(name, &pointer).await?;
            }
        }
        Ok(())
    }

    /// The item of a record.
    fn key(&self, name: Name<'_>) -> Key {
        let (side, id) = match name {
            Name::Hubspot(id) => ('h', id),
            Name::Salesforce(id) => ('s', id.as_str()),
        };
        Key::new(format!("link#{}#{side}#{id}", self.sync), "link")
    }

    async fn read(&self, name: Name<'_>) -> Result<Stored> {
        let key = self.key(name);
        self.table.get(&key).await?.map_or(Ok(Stored::default()), |item| Stored::of(&key, &item))
    }

    /// The link of a record.
    async fn resolve(&self, name: Name<'_>) -> Result<Option<Link>> {
        let own = self.read(name).await?;
        Ok(self.follow(name, &own).await?.map(|(link, _)| link))
    }

    /// The link of a record whose item was read, and who wrote it.
    async fn follow(&self, name: Name<'_>, own: &Stored) -> Result<Option<(Link, String)>> {
        let of = |stored: &Stored| {
            let link = stored.link.clone().filter(|link| name.is_of(link))?;
            Some((link, stored.writer.clone()))
        };
        Ok(match &own.pointer {
            Some(pointer) => of(&self.read(Name::Hubspot(&pointer.slot)).await?),
            None => of(own),
        })
    }

    /// Points records at an item, which was read before; the first that cannot be ends it. A HubSpot record points at its own item when
    /// that is written.
    async fn claim(&self, names: &[Name<'_>], slot: &str, target: &Stored) -> Result<Claim> {
        for &name in names {
            if matches!(name, Name::Hubspot(id) if id == slot) {
                if let Some(pointer) = target.pointer.as_ref().filter(|pointer| pointer.slot != slot) {
                    match self.vacate(name, &pointer.slot).await? {
                        Claim::Held => {}
                        other => return Ok(other),
                    }
                }
                continue;
            }
            let own = self.read(name).await?;
            match &own.pointer {
                Some(pointer) if pointer.slot == slot => {}
                Some(pointer) => match self.vacate(name, &pointer.slot).await? {
                    Claim::Held => {}
                    other => return Ok(other),
                },
                None => {
                    if let Some(link) = own.link.clone().filter(|link| name.is_of(link)) {
                        return Ok(Claim::Taken(Box::new(link)));
                    }
                }
            }
            // Even where it points there already: the new mark stops who is about to take it over.
            if self.set_pointer(name, slot, &own).await?.is_none() {
                return Ok(Claim::Crossed);
            }
        }
        Ok(Claim::Held)
    }

    /// Sees to it that the item `slot` has no link of the record, and that nobody who has looked at it before gives it one.
    async fn vacate(&self, name: Name<'_>, slot: &str) -> Result<Claim> {
        let key = self.key(Name::Hubspot(slot));
        let stored = self.table.get(&key).await?.map_or(Ok(Stored::default()), |item| Stored::of(&key, &item))?;
        if let Some(link) = stored.link.filter(|link| name.is_of(link)) {
            return Ok(Claim::Taken(Box::new(link)));
        }
        let writer = self.marks.next();
        let update = Update {
            set: vec![("version", (stored.version + 1).into()), ("writer", writer.as_str().into())],
            condition: Some(at_version(stored.version)),
            ..Update::default()
        };
        let changed = change(&*self.table, &key, update, |item| has(item, "writer", &writer)).await?;
        Ok(if matches!(changed, Changed::Yes(_)) { Claim::Held } else { Claim::Crossed })
    }

    /// Points a record at an item, if its own item is still as it was read.
    async fn set_pointer(&self, name: Name<'_>, slot: &str, seen: &Stored) -> Result<Option<Pointer>> {
        let writer = self.marks.next();
        let mut conditions = vec![seen.at_pointer()];
        if seen.pointer.is_none() && matches!(name, Name::Hubspot(_)) {
            // It points at its own item, in which a link must not have appeared.
            conditions.push(at_version(seen.version));
        }
        let update = Update {
            set: vec![("at", slot.into()), ("at_writer", writer.as_str().into())],
            condition: Some(Condition::All(conditions)),
            ..Update::default()
        };
        let is_ours = |item: &Item| has(item, "at_writer", &writer) && has(item, "at", slot);
        let changed = change(&*self.table, &self.key(name), update, is_ours).await?;
        Ok(matches!(changed, Changed::Yes(_)).then(|| Pointer { slot: slot.to_owned(), writer: writer.clone() }))
    }

    /// Removes a pointer that is still as it was read.
    async fn drop_pointer(&self, name: Name<'_>, pointer: &Pointer) -> Result<()> {
        let condition = Condition::Equals("at_writer", pointer.writer.as_str().into());
        let key = self.key(name);
        match name {
            Name::Salesforce(_) => {
                self.table.delete(&key, Some(condition)).await?;
            }
            // The item may hold a link.
            Name::Hubspot(_) => {
                let update =
                    Update { remove: vec!["at", "at_writer"], condition: Some(condition), ..Update::default() };
                self.table.update(&key, update).await?;
            }
        }
        Ok(())
    }

    /// Writes a link into an item that is still as it was read; the new version. `is_own`: the HubSpot record's own item, at which it
    /// points from then on.
    async fn write(&self, slot: &str, link: &Link, json: &str, seen: &Stored, is_own: bool) -> Result<Option<i64>> {
        let writer = self.marks.next();
        let version = seen.version + 1;
        let mut update = Update {
            set: vec![
                ("json", json.into()),
                ("version", version.into()),
                ("writer", writer.as_str().into()),
                ("hubspot", link.hubspot_id.as_str().into()),
                ("salesforce", link.salesforce_id.as_str().into()),
            ],
            ..Update::default()
        };
        let mut conditions = vec![at_version(seen.version)];
        if is_own {
            conditions.push(seen.at_pointer());
            update.remove = vec!["at", "at_writer"];
        }
        update.condition = Some(Condition::All(conditions));
        let key = self.key(Name::Hubspot(slot));
        let is_ours = |item: &Item| has(item, "writer", &writer) && has(item, "json", json);
        Ok(matches!(change(&*self.table, &key, update, is_ours).await?, Changed::Yes(_)).then_some(version))
    }

    /// Stores a link that was read before; its new version, if it was still as it was.
    async fn store_one(&self, link: &Link, json: &str) -> Result<Option<i64>> {
        let writer = self.marks.next();
        let version = link.version + 1;
        let update = Update {
            set: vec![("json", json.into()), ("version", version.into()), ("writer", writer.as_str().into())],
            condition: Some(Condition::All(vec![
                Condition::Equals("version", link.version.into()),
                Condition::Equals("hubspot", link.hubspot_id.as_str().into()),
                Condition::Equals("salesforce", link.salesforce_id.as_str().into()),
            ])),
            ..Update::default()
        };
        let is_ours = |item: &Item| has(item, "writer", &writer) && has(item, "json", json);
        let key = self.key(Name::Hubspot(&link.hubspot_id));
        let item = match change(&*self.table, &key, update.clone(), is_ours).await? {
            Changed::Yes(_) => return Ok(Some(version)),
            Changed::No(item) => item.unwrap_or_default(),
        };
        let Some(pointer) = Stored::of(&key, &item)?.pointer else { return Ok(None) };
        let key = self.key(Name::Hubspot(&pointer.slot));
        let changed = change(&*self.table, &key, update, is_ours).await?;
        Ok(matches!(changed, Changed::Yes(_)).then_some(version))
    }
}

impl Stored {
    fn of(key: &Key, item: &Item) -> Result<Self> {
        let version = number(item, "version");
        let link = match item.get("json") {
            Some(Value::S(json)) => {
                let mut link: Link = decode(json, &key.pk)?;
                link.version = version;
                Some(link)
            }
            _ => None,
        };
        let pointer = match (item.get("at"), item.get("at_writer")) {
            (Some(Value::S(slot)), Some(Value::S(writer))) => {
                Some(Pointer { slot: slot.clone(), writer: writer.clone() })
            }
            _ => None,
        };
        Ok(Self { version, writer: text(item, "writer"), link, pointer })
    }

    /// Whether the link of these two records is in it.
    fn holds(&self, link: &Link) -> bool {
        self.link
            .as_ref()
            .is_some_and(|own| (&own.hubspot_id, &own.salesforce_id) == (&link.hubspot_id, &link.salesforce_id))
    }

    /// The pointer is as it was read.
    fn at_pointer(&self) -> Condition {
        match &self.pointer {
            None => Condition::Absent("at"),
            Some(pointer) => Condition::Equals("at_writer", pointer.writer.as_str().into()),
        }
    }
}

/// The link as it is stored; `SYNC_VALUE` if that is more than [`ITEM_BYTES_MAX`], which only very long texts can make it.
pub fn check(link: &Link) -> Result<String> {
    let json = encode(link)?;
    check_size(&json, || {
        format!("the link of HubSpot record {} and Salesforce record {}", link.hubspot_id, link.salesforce_id)
    })?;
    Ok(json)
}

/// Refuses what DynamoDB would refuse.
pub(super) fn check_size(json: &str, what: impl FnOnce() -> String) -> Result<()> {
    if json.len() <= ITEM_BYTES_MAX {
        return Ok(());
    }
    let message = format!("{}: its values take {} bytes; {ITEM_BYTES_MAX} is the most", what(), json.len());
    Err(Error::invalid(codes::SYNC_VALUE, message)
        .with_hint("Shorten the longest texts of the record, or take their fields out of the sync."))
}

/// As it is stored.
pub(super) fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "state cannot be written as JSON").with_source(error)
    })
}

/// Makes a change that its writer can recognise, and makes it again where the answer was lost.
pub(super) async fn change(
    table: &dyn Table,
    key: &Key,
    update: Update,
    is_ours: impl Fn(&Item) -> bool,
) -> Result<Changed> {
    let mut tries = 1;
    loop {
        return match table.update(key, update.clone()).await {
            Err(error) if error.kind() == ErrorKind::Unknown && tries < LOST_ANSWERS_MAX => {
                tries += 1;
                continue;
            }
            Ok(Changed::No(Some(item))) if is_ours(&item) => Ok(Changed::Yes(item)),
            answer => answer,
        };
    }
}

/// Marks by which a writer recognises its own writes.
pub(super) struct Marks {
    rng: Rc<Rng>,
    own: String,
}

impl Marks {
    pub(super) fn new(rng: Rc<Rng>) -> Self {
        let own = format!("{:016x}", rng.u64());
        Self { rng, own }
    }

    /// One that nobody has used.
    pub(super) fn next(&self) -> String {
        format!("{}{:016x}", self.own, self.rng.u64())
    }

    fn is_ours(&self, mark: &str) -> bool {
        mark.starts_with(&self.own)
    }
}

/// The version is as it was read; 0: there was none, nor any before.
pub(super) fn at_version(version: i64) -> Condition {
    if version == 0 { Condition::Absent("version") } else { Condition::Equals("version", version.into()) }
}

pub(super) fn has(item: &Item, name: &str, value: &str) -> bool {
    matches!(item.get(name), Some(Value::S(text)) if text == value)
}

pub(super) fn text(item: &Item, name: &str) -> String {
    match item.get(name) {
        Some(Value::S(text)) => text.clone(),
        _ => String::new(),
    }
}

pub(super) fn number(item: &Item, name: &str) -> i64 {
    match item.get(name) {
        Some(Value::N(number)) => *number,
        _ => 0,
    }
}

async fn found<K: Ord, F: Future<Output = Result<(K, Option<Link>)>>>(
    reads: impl Iterator<Item = F>,
) -> Result<BTreeMap<K, Link>> {
    let reads = stream::iter(reads).buffer_unordered(READS_IN_FLIGHT);
    reads.try_filter_map(async |(id, link)| Ok(link.map(|link| (id, link)))).try_collect().await
}

fn crossed(link: &Link) -> Error {
    let message = format!("the link of HubSpot record {}: other processes keep crossing it", link.hubspot_id);
    Error::new(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE, message)
}
