//! What was modified in a window: the index tells ids, the object store tells records.
//!
//! The index shows some changes late, and shows what is gone; so it is asked for ids alone, and each record is read before it is emitted. What
//! is emitted is therefore never older than what was emitted of the record before.

use std::{collections::BTreeMap, future::pending, pin::Pin, rc::Rc};

use futures_util::{StreamExt, stream::FuturesOrdered};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    change::{Cause, Change, Operation},
    job::{Job, MERGED},
    known::{Archived, Delta, GONE, Link, number},
    progress::Phase,
};
use crate::{
    clock::Deadline,
    error::Result,
    hubspot::{
        account::Account,
        records::{ChangedPage, PastValue, RawRecord, Wanted},
        resources::{CrmResource, Resource},
    },
    mutate::{self, Bug},
    record::ObjectType,
};

/// Pages of ids whose records are being read at a time: a search tells 200 ids, of which reads take two calls.
const READS_AHEAD: usize = 6;

/// … and where each record comes with the history of its properties, which may be many times as long.
const READS_AHEAD_WITH_HISTORY: usize = 2;

/// The associations of one record as they are written, by object type.
pub(super) type Written = BTreeMap<String, Vec<Value>>;

/// A record's associations: as they are compared, and as they are written.
#[derive(Debug, Clone, Default)]
pub(super) struct Linked {
    pub(super) links: Vec<Link>,
    pub(super) written: Written,
}

/// A page of ids.
struct Page {
    /// The last id, in the order of the index.
    last: Option<String>,
    /// The ids that are read.
    asked: Vec<String>,
    /// How many are not, because this version of them was emitted.
    known: u64,
}

/// What was read of a page of ids.
pub(super) struct Read {
    page: Page,
    records: BTreeMap<String, RawRecord>,
    linked: BTreeMap<String, Linked>,
}

/// What a record is judged against.
struct Judged {
    operation: Operation,
    cause: Option<Cause>,
    before: Option<Map<String, Value>>,
}

impl Job {
    /// The pass over what was modified in the window.
    pub(super) async fn main(&mut self, after: Option<String>) -> Result<bool> {
        let initial = self.progress.initial.unwrap_or_default();
        let from = self.progress.covered.unwrap_or(initial);
        let until = self.progress.until.unwrap_or(from);
        // Without an end: what is being changed all the time would be younger than the lag whenever one looks.
        if !self.pass(from, None, after, |after| Phase::Main { after }).await? {
            return Ok(false);
        }
        let trailing = self.progress.trailing.unwrap_or(initial);
        let reach = until - SignedDuration::from_secs(self.capture.trailing_seconds.into());
        // What was older than that when this pass read it has been in the index for long enough.
        let read_young = reach.min(from);
        let by_search = matches!(&*self.resource, Resource::Crm(_));
        let is_wanted = self.capture.trailing_seconds > 0 && !mutate::on(Bug::TrailingSkipped);
        if is_wanted && by_search && read_young > trailing {
            self.progress.phase = Phase::Trailing { until: read_young, after: None };
        } else {
            self.trailed();
            self.after_passes();
        }
        Ok(true)
    }

    /// Nothing that is older than the trailing distance needs a second look.
    fn trailed(&mut self) {
        let until = self.progress.until.or(self.progress.covered).unwrap_or_default();
        let reach = until - SignedDuration::from_secs(self.capture.trailing_seconds.into());
        self.progress.trailing = self.progress.trailing.max(self.progress.initial).max(Some(reach));
    }

    /// The second pass, which finds what the index showed late.
    pub(super) async fn trailing(&mut self, until: Timestamp, after: Option<String>) -> Result<bool> {
        let from = self.progress.trailing.or(self.progress.initial).unwrap_or_default();
        if !self.pass(from, Some(until), after, |after| Phase::Trailing { until, after }).await? {
            return Ok(false);
        }
        self.trailed();
        self.after_passes();
        Ok(true)
    }

    /// Reads and emits what was modified from `from` on, and before `until` where it is given, from the id `after` on. `false`: the time
    /// was up.
    async fn pass(
        &mut self,
        from: Timestamp,
        until: Option<Timestamp>,
        after: Option<String>,
        phase: impl Fn(Option<String>) -> Phase,
    ) -> Result<bool> {
        let resource = self.resource.clone();
        let crm = match &*resource {
            Resource::Crm(crm) => Rc::new(crm.clone()),
            Resource::Cms(cms) => return self.cms_pass(cms, from).await,
        };
        let wanted = Rc::new(Wanted { history: self.capture.before, ..(*self.wanted).clone() });
        let ahead = if self.capture.before { READS_AHEAD_WITH_HISTORY } else { READS_AHEAD };
        let calls_until = self.calls_until();
        let mut next = after;
        let mut ended = false;
        let mut searching: Option<Pin<Box<dyn Future<Output = Result<ChangedPage>>>>> = None;
        let mut reads = FuturesOrdered::new();
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            if searching.is_none() && !ended && reads.len() < ahead {
                let (account, crm, after) = (self.account.clone(), crm.clone(), next.clone());
                searching =
                    Some(Box::pin(
                        async move { account.changed(&crm, from, until, after.as_deref(), calls_until).await },
                    ));
            }
            if searching.is_none() && reads.is_empty() {
                return Ok(true);
            }
            tokio::select! {
                biased;
                Some(read) = reads.next(), if !reads.is_empty() => {
                    let read: Read = read?;
                    let last = read.page.last.clone();
                    self.take(read, from, &crm)?;
                    if let Some(last) = last {
                        self.progress.item_id.clone_from(&last);
                        self.progress.phase = phase(Some(last));
                    }
                    self.save_if_full().await?;
                }
                page = or_never(searching.as_mut()) => {
                    searching = None;
                    let page = page?;
                    ended = page.is_last;
                    if let Some((last, _)) = page.ids.last() {
                        next = Some(last.clone());
                    }
                    let (asked, known) = self.unseen(&page);
                    let last = page.ids.last().map(|(last, _)| last.clone());
                    let links = self.link_objects().to_vec();
                    let page = Page { last, asked, known };
                    reads.push_back(read(self.account.clone(), crm.clone(), wanted.clone(), links, page, calls_until));
                }
            }
        }
    }

    /// The ids of a page that may have something new, and how many have not.
    fn unseen(&self, page: &ChangedPage) -> (Vec<String>, u64) {
        let mut known = 0;
        let mut asked = Vec::new();
        for (id, modified) in &page.ids {
            let emitted = self.known.recent.get(&number(id)).copied();
            let shown = modified.map(Timestamp::as_millisecond);
            if emitted.zip(shown).is_some_and(|(emitted, shown)| emitted >= shown) {
                known += 1;
            } else {
                asked.push(id.clone());
            }
        }
        (asked, known)
    }

    /// Emits what is new in a page.
    pub(super) fn take(&mut self, read: Read, from: Timestamp, crm: &CrmResource) -> Result<()> {
        let Read { page: Page { asked, known, .. }, mut records, mut linked } = read;
        self.progress.done.changes.seen += known + asked.len() as u64;
        self.progress.done.changes.repeated += known;
        for id in asked {
            let Some(record) = records.remove(&id) else {
                // Archived or purged since: the sweep of the recycle bin tells which, and whether it came back meanwhile.
                self.progress.done.changes.gone += 1;
                if self.capture.deletes && !self.known.archived.contains_key(&number(&id)) {
                    self.learn(&Delta::Archived(number(&id), Archived { at: GONE, told: true }));
                }
                continue;
            };
            let links = linked.remove(&record.id);
            if record.id != id {
                self.merged(&id, &record.id)?;
            }
            self.take_record(record, links, from, crm)?;
        }
        Ok(())
    }

    /// Emits a live record, unless this version of it was emitted.
    pub(super) fn take_record(
        &mut self,
        record: RawRecord,
        linked: Option<Linked>,
        from: Timestamp,
        crm: &CrmResource,
    ) -> Result<()> {
        self.merges(&record)?;
        let id = number(&record.id);
        if self.known.merged.contains(&id) {
            // Read before it was merged, and told to be merged by one that was read after.
            self.progress.done.changes.repeated += 1;
            return Ok(());
        }
        let modified = modified(&record, crm.modified_property());
        let restored = self.known.archived.get(&id).copied();
        let emitted = self.known.recent.get(&id).copied();
        if restored.is_none() && emitted.is_some_and(|emitted| emitted >= modified) {
            self.progress.done.changes.repeated += 1;
            return Ok(());
        }
        let judged = self.judge(&record, restored, emitted, from);
        self.emit_live(record, modified, linked, judged)
    }

    fn judge(&self, record: &RawRecord, restored: Option<Archived>, emitted: Option<i64>, from: Timestamp) -> Judged {
        let initial = self.progress.initial.unwrap_or_default().as_millisecond();
        let created = record.created_at.map_or(i64::MIN, Timestamp::as_millisecond);
        // Whatever was emitted from the horizon on is in `recent`; whatever is older was emitted, or was there before the capture began.
        let is_new = match restored {
            Some(archived) => !archived.told,
            None => emitted.is_none() && created >= initial && created >= self.known.horizon,
        };
        let operation = if is_new { Operation::Create } else { Operation::Update };
        let before = (self.capture.before && !is_new && restored.is_none()).then(|| {
            let at = emitted.and_then(|at| Timestamp::from_millisecond(at).ok());
            before(record, at.unwrap_or(from - SignedDuration::from_millis(1)))
        });
        Judged { operation, cause: restored.map(|_| Cause::Restore), before }
    }

    fn emit_live(&mut self, record: RawRecord, modified: i64, linked: Option<Linked>, judged: Judged) -> Result<()> {
        let id = number(&record.id);
        let read_at = self.env.clock.now();
        let mut at = Timestamp::from_millisecond(modified).ok().or(record.updated_at);
        if judged.cause.is_some() {
            at = self.version_now(at, read_at);
        }
        let mut learned = vec![Delta::Emitted(id, modified)];
        if matches!(judged.cause, Some(Cause::Restore)) {
            learned.push(Delta::Unarchived(id));
        }
        let mut after = record.object;
        if let Some(linked) = linked {
            let known = self.known.links.get(&id);
            if known != Some(&linked.links) {
                // The snapshot may have told this very version, with other associations: no date moves with those.
                let created = record.created_at.map_or(i64::MIN, Timestamp::as_millisecond);
                if known.is_some() && self.known.recent.get(&id).is_none_or(|emitted| *emitted < created) {
                    at = self.version_now(at, read_at);
                }
                learned.push(Delta::Links(id, linked.links));
            }
            write_links(&mut after, &linked.written);
        }
        let change = Change {
            operation: judged.operation,
            cause: judged.cause,
            position: self.position_of(&record.id, at),
            id: record.id,
            created_at: record.created_at,
            updated_at: at,
            read_at,
            before: judged.before,
            after: Some(after),
        };
        self.emit(&change, learned)
    }

    /// The version of a record of which no date has moved, as with a restore or an association: one of its own, or who drops repeats by id and
    /// date would drop it. By HubSpot's clock where that is ahead: else it would be the version that was told before.
    fn version_now(&self, at: Option<Timestamp>, read_at: Timestamp) -> Option<Timestamp> {
        at.max(Some(read_at)).max(Some(self.account.server_time()))
    }

    /// Emits a record whose associations have changed.
    pub(super) fn emit_linked(&mut self, record: RawRecord, linked: Linked, crm: &CrmResource) -> Result<()> {
        // This version of it is not looked at again: who was merged into it since the passes is told here or nowhere.
        self.merges(&record)?;
        if self.known.merged.contains(&number(&record.id)) {
            self.progress.done.changes.repeated += 1;
            return Ok(());
        }
        let modified = modified(&record, crm.modified_property());
        let judged = Judged { operation: Operation::Update, cause: Some(Cause::Association), before: None };
        self.emit_live(record, modified, Some(linked), judged)
    }

    /// Emits a record of the snapshot. What changes afterwards is emitted whatever the snapshot showed.
    pub(super) fn emit_snapshot(
        &mut self,
        record: RawRecord,
        linked: Option<Linked>,
        crm: Option<&CrmResource>,
    ) -> Result<()> {
        let id = number(&record.id);
        let initial = self.progress.initial.unwrap_or_default();
        let mut learned = Vec::new();
        let created = record.created_at.map_or(i64::MIN, Timestamp::as_millisecond);
        self.progress.done.changes.seen += 1;
        let changed = crm.map_or(0, |crm| modified(&record, crm.modified_property()));
        if changed < initial.as_millisecond() {
            // Merged before the capture began: consumers have never known those records.
            for loser in merged_ids(&record) {
                learned.push(Delta::Merged(number(&loser)));
            }
        }
        if created >= initial.as_millisecond() || crm.is_none() {
            // It came to be while the snapshot was taken, or its list is read again: known, but emitted again as a change.
            learned.push(Delta::Emitted(id, created.saturating_sub(1)));
        }
        let at = crm.map(|crm| modified(&record, crm.modified_property()));
        let at = at.and_then(|at| Timestamp::from_millisecond(at).ok()).or(record.updated_at);
        let mut after = record.object;
        if let Some(linked) = linked {
            learned.push(Delta::Links(id, linked.links));
            write_links(&mut after, &linked.written);
        }
        let change = Change {
            operation: Operation::Snapshot,
            cause: None,
            position: self.position_of(&record.id, None),
            id: record.id,
            created_at: record.created_at,
            updated_at: at,
            read_at: self.env.clock.now(),
            before: None,
            after: Some(after),
        };
        self.emit(&change, learned)
    }

    /// Emits the deletes of the records that were merged into this one.
    pub(super) fn merges(&mut self, winner: &RawRecord) -> Result<()> {
        for loser in merged_ids(winner) {
            self.merged(&loser, &winner.id)?;
        }
        Ok(())
    }

    /// Emits the delete of a record that was merged into another, once.
    fn merged(&mut self, loser: &str, winner: &str) -> Result<()> {
        let id = number(loser);
        if self.known.merged.contains(&id) || mutate::on(Bug::MergesSkipped) {
            return Ok(());
        }
        let now = self.env.clock.now();
        self.progress.done.changes.seen += 1;
        let change = Change {
            operation: Operation::Delete,
            cause: Some(Cause::Merge { into: winner.to_owned() }),
            position: self.position_of(loser, self.progress.until.or(Some(now))),
            id: loser.to_owned(),
            created_at: None,
            updated_at: Some(now),
            read_at: now,
            before: None,
            after: None,
        };
        self.emit(&change, [Delta::Merged(id)])
    }
}

/// The ids that a record has taken over.
fn merged_ids(winner: &RawRecord) -> Vec<String> {
    let all = winner.value(MERGED).unwrap_or_default().split(';').map(str::trim);
    all.filter(|id| !id.is_empty() && *id != winner.id).map(str::to_owned).collect()
}

/// Waits for the future there is; for ever if there is none.
async fn or_never<F: Future + Unpin>(future: Option<&mut F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Reads records and their associations.
async fn read(
    account: Rc<Account>,
    crm: Rc<CrmResource>,
    wanted: Rc<Wanted>,
    to: Vec<ObjectType>,
    page: Page,
    deadline: Deadline,
) -> Result<Read> {
    if page.asked.is_empty() {
        return Ok(Read { page, records: BTreeMap::new(), linked: BTreeMap::new() });
    }
    let records = account.read_records(&crm.object, &page.asked, &wanted, deadline).await?;
    let ids = records.values().map(|record| record.id.clone());
    let linked = linked(&account, &crm.object, &to, ids, deadline).await?;
    Ok(Read { page, records, linked })
}

/// The associations of records with each of the objects. Empty where none are captured.
pub(super) async fn linked(
    account: &Account,
    from: &ObjectType,
    to: &[ObjectType],
    ids: impl Iterator<Item = String>,
    deadline: Deadline,
) -> Result<BTreeMap<String, Linked>> {
    let ids: std::collections::BTreeSet<String> = if to.is_empty() { Default::default() } else { ids.collect() };
    let mut all: BTreeMap<String, Linked> = ids.iter().map(|id| (id.clone(), Linked::default())).collect();
    if ids.is_empty() {
        return Ok(all);
    }
    for (place, object) in to.iter().enumerate() {
        let place = u8::try_from(place).unwrap_or(u8::MAX);
        for (near, far_ends) in account.associations(from, object, &ids, deadline).await? {
            let Some(linked) = all.get_mut(&near) else { continue };
            for (far, types) in far_ends {
                for one in types {
                    linked.links.push(Link { to: place, id: number(&far), type_id: one.type_id });
                    let kind = one.label.unwrap_or_else(|| format!("{from}_to_{object}"));
                    linked.written.entry(object.to_string()).or_default().push(json!({
                        "id": far, "type": kind, "typeId": one.type_id, "category": one.category,
                    }));
                }
            }
        }
    }
    for linked in all.values_mut() {
        linked.links.sort_unstable();
    }
    Ok(all)
}

/// `"associations":{"companies":{"results":[…]}}`, as HubSpot's own answers have it.
fn write_links(object: &mut Map<String, Value>, written: &Written) {
    let all: Map<String, Value> =
        written.iter().map(|(name, results)| (name.clone(), json!({ "results": results }))).collect();
    object.insert("associations".to_owned(), Value::Object(all));
}

/// When a record was last modified, in milliseconds since the epoch: the later of the two places where HubSpot tells it.
pub(super) fn modified(record: &RawRecord, property: &str) -> i64 {
    let told = record.updated_at.map(Timestamp::as_millisecond);
    let stored = record.value(property).and_then(|text| {
        text.parse::<Timestamp>().map(Timestamp::as_millisecond).ok().or_else(|| text.parse::<i64>().ok())
    });
    told.max(stored).unwrap_or_default()
}

/// The record as it was at `at`, by its history. What has no history is left as it is.
fn before(record: &RawRecord, at: Timestamp) -> Map<String, Value> {
    let mut object = record.object.clone();
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, past) in &record.history {
            let value = past.iter().find(|value: &&PastValue| value.at <= at).and_then(|value| value.value.clone());
            properties.insert(name.clone(), value.map_or(Value::Null, Value::String));
        }
    }
    let last = record.history.values().flatten().map(|value| value.at).filter(|moment| *moment <= at).max();
    if let Some(last) = last {
        object.insert("updatedAt".to_owned(), Value::String(last.to_string()));
    }
    object
}
