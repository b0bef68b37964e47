//! Removes a person from everything that hubferry keeps, and looks again to see that nothing is left.
//!
//! | what | where | what goes |
//! |---|---|---|
//! | rejects | `rejects/<import>/<run>.csv`, and pieces of those that were never joined | rows that mention the person |
//! | before-images | `before/<import>/<run>.jsonl`, `state/import/<import>/<run>/before-*` | lines of the person's record, or that mention the person |
//! | captured records | a capture's output, in every format and compression | records of the person, of any object, that carry the id or mention the address |
//! | what captures remember | `state/capture/<name>/*.known` | the person's ids |
//! | delivered indexes | `state/import/<import>/index/` | the hash of the person's key |
//! | what syncs keep | the table: `link#…`, `review#…`, `refused#…`, `todo#…` | items of the person's records, or that mention the person |
//! | what syncs list as refused | `rejects/sync-<sync>/<run>.jsonl`, and pieces of those that were never joined | lines of the person's records |
//!
//! A person is known by an e-mail address. HubSpot tells the ids and further addresses that belong to it, Salesforce the ids of its records;
//! captured records and links tell ids under which neither knows it any more. The whole table is looked through, so that what syncs left behind that
//! have another name by now is found. Reports, contexts and the table's other items hold neither rows nor keys; one that mentions the person all
//! the same (in the name of a file, for instance) is told as left.
//!
//! What it does not reach: the files that were imported, which are their owner's; older versions of objects on a bucket that keeps them; copies that
//! consumers made. The outcome says so.
//!
//! An object is replaced whole or not at all, and what is already gone is not found again: it can be stopped and repeated at any time.

mod links;
mod person;
mod places;
mod state;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use self::{
    person::{Facts, Person, is_address},
    places::{captures_contacts, contact_keys, imports_contacts, is_captured, place_of},
    text::{Shape, Tally},
};
use crate::{
    app::App,
    capture::output_of,
    clock::Deadline,
    codes,
    config::Capture,
    error::{Error, ErrorKind, Result},
    hubspot::account::Call,
    objects::{Location, ObjectVersion},
    record::{ObjectType, PropertyName, fold_key},
};

/// Parquet and what captures remember are read whole; a capture closes an object at a hundredth of this.
const WHOLE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Places that are named one by one in the outcome.
const NAMED_MAX: usize = 10_000;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The person's e-mail address.
    pub key: String,
    /// Buckets to look through, besides those that the settings and the last runs name.
    pub buckets: Vec<String>,
    /// Neither HubSpot nor Salesforce is asked: ids are those of captured records and links alone.
    pub offline: bool,
    /// HubSpot is to delete the contact for good, too.
    pub gdpr: bool,
    /// Nothing is changed: what would be is listed.
    pub dry_run: bool,
}

/// Asked about a row, as the names and texts of its cells; whether it stays.
pub type Keep<'k> = dyn FnMut(&[(String, String)]) -> bool + 'k;

/// Reads and rewrites Parquet, for who can: the function carries no reader.
pub trait Tables {
    /// Asks `keep` about each row, as the names and texts of its cells; cells that are no text are left out. How many rows there are, how many are not
    /// kept, and, with `write` and where there are such, the file without them.
    fn filter(&self, file: &Bytes, write: bool, keep: &mut Keep<'_>) -> Result<Filtered>;
}

/// What came of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filtered {
    /// Rows.
    pub rows: u64,
    /// Rows that are not kept.
    pub dropped: u64,
    /// The file without them.
    pub file: Option<Bytes>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Erasure {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Nothing of the person is left in what was looked through. Of a dry run: nothing was found.
    pub complete: bool,
    /// By account.
    pub hubspot: BTreeMap<String, InHubSpot>,
    /// What was looked through.
    pub searched: BTreeMap<&'static str, Searched>,
    /// What was removed, or of a dry run would be.
    pub removed: Vec<Removed>,
    /// What could not be removed, and why.
    pub left: Vec<Left>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
}

/// A person in an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InHubSpot {
    /// Ids of contacts, those merged into them included, that HubSpot or captured records know.
    pub contacts: u64,
    /// HubSpot was told to delete the contact for good.
    pub deleted: bool,
}

/// What was looked through of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Searched {
    /// Objects.
    pub objects: u64,
    /// Records in them.
    pub records: u64,
}

/// A place from which something was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// `rejects`, `before_images`, `captured`, `remembered`, `indexes`, `links`, `reviews`, `refused`, `put_off`.
    pub what: &'static str,
    /// Where.
    pub location: String,
    /// How many records.
    pub records: u64,
}

/// A place where something is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Where.
    pub location: String,
    /// Why.
    pub why: String,
}

/// Removes the person. `told` hears what is being looked through.
///
/// # Errors
/// The key is no address; HubSpot cannot be asked; a bucket cannot be listed. What single objects fail at stands in [`Erasure::left`].
pub async fn erase(
    app: &App,
    request: &Request,
    tables: Option<&dyn Tables>,
    told: &dyn Fn(&str),
    deadline: Deadline,
) -> Result<Erasure> {
    if !is_address(request.key.trim()) {
        let message = "the key is not an e-mail address, which is what a person is looked for by";
        return Err(Error::invalid(codes::INVALID_EMAIL, message)
            .with_hint("Give the person's whole address, for example --key ada@example.com."));
    }
    let mut work = Work {
        app,
        tables,
        told,
        person: Person::default(),
        buckets: BTreeSet::new(),
        open: BTreeSet::new(),
        erasure: Erasure { dry_run: request.dry_run, ..Erasure::default() },
    };
    work.person.addresses.insert(fold_key(&request.key));
    if !request.offline {
        work.ask_hubspot(deadline).await?;
        work.ask_salesforce(deadline).await?;
    }
    work.find_buckets(&request.buckets).await?;
    work.find_open_runs().await?;
    work.learn_ids().await?;
    work.learn_from_links().await?;
    let removed = work.pass(!request.dry_run).await?;
    if request.dry_run {
        work.erasure.complete = removed.is_empty() && work.erasure.left.is_empty();
    } else {
        // A run that has begun meanwhile may have read what was here before.
        work.find_open_runs().await?;
        // A table in a file keeps what was removed until it is written anew.
        app.env().table.drop_history().await?;
        // The proof: everything once more, from what is stored now.
        let found = work.pass(false).await?;
        work.erasure.left.extend(
            found.into_iter().map(|found| Left {
                why: format!("{} records are still there", found.records),
                location: found.location,
            }),
        );
        if request.gdpr {
            work.delete_in_hubspot(deadline).await?;
        }
        work.erasure.complete = work.erasure.left.is_empty();
    }
    work.erasure.removed = removed;
    for (account, ids) in &work.person.ids {
        work.erasure.hubspot.entry(account.clone()).or_default().contacts = ids.len() as u64;
    }
    work.note();
    Ok(work.erasure)
}

/// An erasure at work.
struct Work<'a> {
    app: &'a App,
    tables: Option<&'a dyn Tables>,
    told: &'a dyn Fn(&str),
    person: Person,
    buckets: BTreeSet<String>,
    /// Jobs of which a run is open, with the run.
    open: BTreeSet<(String, String, String)>,
    erasure: Erasure,
}

impl Work<'_> {
    /// Ids, further addresses, and the keys of imports that know contacts by something else.
    async fn ask_hubspot(&mut self, deadline: Deadline) -> Result<()> {
        let contacts = ObjectType("contacts".to_owned());
        let keys: BTreeSet<String> = contact_keys(&self.app.config().imports);
        let mut properties: Vec<PropertyName> =
            ["email", "hs_additional_emails", "hs_merged_object_ids"].map(PropertyName::from).into();
        properties.extend(keys.iter().map(|key| PropertyName::from(key.as_str())));
        let addresses: Vec<String> = self.person.addresses.iter().cloned().collect();
        for account in self.app.config().hubspot.keys().cloned().collect::<Vec<_>>() {
            (self.told)(&format!("asking HubSpot, account {account}"));
            let found = self
                .app
                .account(&account)?
                .read(&contacts, Some("email"), &addresses, &properties, None, deadline)
                .await
                .map_err(|error| error.context(format!("account {account}")))?;
            self.erasure.hubspot.entry(account.clone()).or_default();
            for record in found.into_iter().flatten() {
                let ids = self.person.ids.entry(account.clone()).or_default();
                ids.insert(record.id.clone());
                let list = |name: &str| -> Vec<String> {
                    record.value(name).unwrap_or_default().split(';').map(|part| part.trim().to_owned()).collect()
                };
                ids.extend(list("hs_merged_object_ids").into_iter().filter(|id| !id.is_empty()));
                let more = list("hs_additional_emails").into_iter().chain(list("email"));
                self.person.addresses.extend(more.map(|one| fold_key(&one)).filter(|one| is_address(one)));
                for key in &keys {
                    if let Some(value) = record.value(key) {
                        self.person.keys.entry(key.clone()).or_default().insert(fold_key(value));
                    }
                }
            }
        }
        Ok(())
    }

    /// Where hubferry may have written: where captures go, where the last files came from, and what was named.
    async fn find_buckets(&mut self, named: &[String]) -> Result<()> {
        self.buckets.extend(named.iter().cloned());
        let config = self.app.config();
        for capture in &config.captures {
            self.buckets.insert(output_of(capture)?.bucket);
        }
        self.buckets.extend(config.data.as_deref().and_then(Location::parse).map(|place| place.bucket));
        for import in &config.imports {
            if let Some(context) = self.app.runs().context("import", &import.name).await? {
                let runs = [Some(context.last_run), context.last_successful_run];
                let sources = runs.into_iter().flatten().filter_map(|run| Location::parse(&run.source));
                self.buckets.extend(sources.map(|place| place.bucket));
            }
        }
        Ok(())
    }

    async fn find_open_runs(&mut self) -> Result<()> {
        for (run_id, _) in self.app.runs().open_runs().await? {
            if let Some(run) = self.app.runs().get(&run_id).await?.filter(|run| run.outcome.is_none()) {
                self.open.insert((run.job, run.name, run_id));
            }
        }
        for (job, name, run_id) in self.open.clone() {
            self.leave(
                &format!("{job} {name}"),
                format!("run {run_id} is open: let it end (`hubferry resume`), and repeat this"),
            );
        }
        Ok(())
    }

    fn leave(&mut self, location: &str, why: String) {
        let left = Left { location: location.to_owned(), why };
        // It is come across by each pass.
        if self.erasure.left.len() < NAMED_MAX && !self.erasure.left.contains(&left) {
            self.erasure.left.push(left);
        }
    }

    /// Ids under which captured contacts carry one of the addresses: HubSpot may not know them any more.
    async fn learn_ids(&mut self) -> Result<()> {
        for capture in self.app.config().captures.clone() {
            if !captures_contacts(&capture) {
                continue;
            }
            let (mut learned, person) = (BTreeSet::new(), self.person.clone());
            for location in self.captured(&capture).await? {
                (self.told)(&format!("reading {location}"));
                let outcome = self
                    .each(&location, false, |text, facts| {
                        if person.is_mentioned(text) {
                            let facts = facts();
                            if person.owns(&facts) {
                                learned.extend(facts.id);
                            }
                        }
                        true
                    })
                    .await;
                // What cannot be read is told by the pass that follows.
                drop(outcome);
            }
            self.person.ids.entry(capture.hubspot.clone()).or_default().extend(learned);
        }
        self.person.ids.retain(|_, ids| !ids.is_empty());
        Ok(())
    }

    /// Looks through everything; with `write`, removes what it finds. What was found, and how much of it.
    async fn pass(&mut self, write: bool) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        self.erasure.searched.clear();
        for bucket in self.buckets.clone() {
            // Working files of syncs lie below `data`; all else at the top.
            let below =
                self.app.config().data.as_deref().and_then(Location::parse).filter(|data| data.bucket == bucket);
            let below = below.map(|data| data.key).unwrap_or_default();
            let below = if below.is_empty() || below.ends_with('/') { below } else { below + "/" };
            for (what, below, prefix) in [
                ("rejects", "", "rejects/"),
                ("before_images", "", "before/"),
                ("working_files", "", "state/import/"),
                ("working_files", below.as_str(), "state/sync/"),
            ] {
                let folder = Location::new(&bucket, format!("{below}{prefix}"));
                let listed = match self.app.env().objects.list(&folder).await {
                    Ok(listed) => listed,
                    Err(error) => {
                        self.leave(&folder.to_string(), error.message().to_owned());
                        continue;
                    }
                };
                for location in listed {
                    let place = location.key.strip_prefix(below).and_then(|key| place_of(what, key));
                    let Some((what, name, run_id)) = place else { continue };
                    if self.open.iter().any(|(job, _, run)| *run == run_id && job != "capture") {
                        continue;
                    }
                    let contacts = self.contacts_of(&name);
                    let person = self.person.clone();
                    self.filter(what, &location, write, &mut removed, |text, facts| {
                        !person.is_of(text, facts, contacts.as_deref())
                    })
                    .await;
                }
            }
        }
        for capture in self.app.config().captures.clone() {
            let contacts = captures_contacts(&capture).then(|| capture.hubspot.clone());
            let before = removed.len();
            for location in self.captured(&capture).await? {
                let person = self.person.clone();
                self.filter("captured", &location, write, &mut removed, |text, facts| {
                    !person.is_of(text, facts, contacts.as_deref())
                })
                .await;
            }
            if write && removed.len() > before {
                let changed: Vec<Removed> = removed.iter().skip(before).cloned().collect();
                if let Err(error) = self.correct_manifests(&capture, &changed).await {
                    self.erasure
                        .notes
                        .push(format!("the manifests of capture `{}` keep the old counts: {error}", capture.name));
                }
            }
            self.remembered(&capture, write, &mut removed).await?;
        }
        self.indexes(write, &mut removed).await?;
        self.synced(write, &mut removed).await?;
        Ok(removed)
    }

    /// The account whose contacts' ids stand in the files of this import, or, as `sync-<name>`, of this sync.
    fn contacts_of(&self, name: &str) -> Option<String> {
        let config = self.app.config();
        let import = config.imports.iter().find(|import| import.name == name && imports_contacts(import));
        let of_sync = || {
            let name = name.strip_prefix("sync-")?;
            config.syncs.iter().find(|sync| sync.name == name && sync.hubspot_object.is_contacts())
        };
        import.map(|import| import.hubspot.clone()).or_else(|| of_sync().map(|sync| sync.hubspot.clone()))
    }

    /// A capture's objects.
    async fn captured(&self, capture: &Capture) -> Result<Vec<Location>> {
        let output = output_of(capture)?;
        let mut all = self.app.env().objects.list(&output).await?;
        all.retain(|location| location.key.strip_prefix(&output.key).is_some_and(is_captured));
        Ok(all)
    }

    /// Filters one object, and notes what came of it.
    async fn filter(
        &mut self,
        what: &'static str,
        location: &Location,
        write: bool,
        removed: &mut Vec<Removed>,
        mut keep: impl FnMut(&str, &mut dyn FnMut() -> Facts) -> bool,
    ) {
        (self.told)(&format!("reading {location}"));
        let mut judged = |text: &str, facts: &mut dyn FnMut() -> Facts| keep(text, facts);
        let mut outcome = self.each(location, false, &mut judged).await;
        if write && outcome.as_ref().is_ok_and(|tally| tally.dropped > 0) {
            outcome = self.each(location, true, &mut judged).await;
        }
        match outcome {
            Ok(tally) => {
                let searched = self.erasure.searched.entry(what).or_default();
                searched.objects += 1;
                searched.records += tally.records;
                if tally.dropped > 0 && removed.len() < NAMED_MAX {
                    removed.push(Removed { what, location: location.to_string(), records: tally.dropped });
                }
            }
            // Nothing is there, so that nothing is left.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.leave(&location.to_string(), error.message().to_owned()),
        }
    }

    /// Asks about each record of an object; with `write`, replaces it by one of those that are kept.
    async fn each(
        &self,
        location: &Location,
        write: bool,
        mut keep: impl FnMut(&str, &mut dyn FnMut() -> Facts) -> bool,
    ) -> Result<Tally> {
        let objects = &self.app.env().objects;
        let object = objects.head(location, None).await?;
        if !location.key.ends_with(".parquet") {
            let images = if location.key.starts_with("before/") { Shape::Json } else { Shape::Piece };
            let shape = Shape::of(&location.key).unwrap_or(images);
            return text::filter(&**objects, &object, shape, write, |record| keep(record.text, &mut || record.facts()))
                .await;
        }
        let Some(tables) = self.tables else {
            let message = "it is Parquet, which is read on the command line only";
            return Err(Error::new(ErrorKind::Invalid, codes::OUTPUT_FAILED, message));
        };
        let file = self.whole(&object).await?;
        let filtered = tables.filter(&file, write, &mut |cells| {
            let text: Vec<&str> = cells.iter().map(|(_, text)| text.as_str()).collect();
            keep(&text.join("\n"), &mut || {
                let cell = |name: &str| cells.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone());
                Facts { id: cell("_id"), email: cell("email"), ..Facts::default() }
            })
        })?;
        let bytes = filtered.file.as_ref().map_or(0, Bytes::len) as u64;
        if let Some(file) = filtered.file {
            objects.put(location, file, "application/vnd.apache.parquet").await?;
        }
        Ok(Tally { records: filtered.rows, dropped: filtered.dropped, bytes })
    }

    async fn whole(&self, object: &ObjectVersion) -> Result<Bytes> {
        if object.size > WHOLE_BYTES_MAX {
            let message = format!("it has {} bytes, more than are read at once", object.size);
            return Err(Error::new(ErrorKind::Invalid, codes::OUTPUT_FAILED, message));
        }
        if object.size == 0 {
            return Ok(Bytes::new());
        }
        self.app.env().objects.read(object, 0..object.size).await
    }

    /// HubSpot's own deletion for privacy: it cannot be undone, and the address is refused from then on.
    async fn delete_in_hubspot(&mut self, deadline: Deadline) -> Result<()> {
        let contacts = ObjectType("contacts".to_owned());
        for name in self.app.config().hubspot.keys().cloned().collect::<Vec<_>>() {
            (self.told)(&format!("deleting in HubSpot, account {name}"));
            let account = self.app.account(&name)?;
            let by_id = self.person.ids_in(&name).map(|id| json!({ "objectId": id }));
            let by_address =
                self.person.addresses.iter().map(|address| json!({ "objectId": address, "idProperty": "email" }));
            for body in by_id.chain(by_address) {
                let path = account.paths().objects(&contacts, "gdpr-delete");
                let call = Call::post(path, Bytes::from(body.to_string()));
                match account.call(call, deadline).await {
                    Ok(_) => {}
                    // Deleted before.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error.context(format!("account {name}"))),
                }
            }
            self.erasure.hubspot.entry(name).or_default().deleted = true;
        }
        Ok(())
    }

    fn note(&mut self) {
        let buckets: Vec<&str> = self.buckets.iter().map(String::as_str).collect();
        let notes = [
            format!("looked through: {}; name others with --bucket", buckets.join(", ")),
            "files that were imported are their owner's and were not changed: take the person out of them, too, or the next one brings them back".to_owned(),
            "a bucket that keeps versions still has the objects as they were: remove the older versions of those that are named here, or let a lifecycle rule do it".to_owned(),
        ];
        self.erasure.notes.extend(notes);
        if !self.app.config().syncs.is_empty() {
            let note = "records in Salesforce were not touched: while a record is there, or in HubSpot, a sync takes up what it holds again";
            self.erasure.notes.push(note.to_owned());
        }
    }
}
