//! Some hundred records at a time: links, both records, decisions, intents, writes, read back, shadows.
//!
//! What dies where: before the intent is stored nothing has happened. After it, whoever comes next finds the intent, reads the records and
//! sees whether the write took place ([`decide::settle_intent`]). The position moves when everything here is stored.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::{
    decide::{self, Dates, Decision, Sighted},
    fields::Mapping,
    identity::{Match, hubspot_id_of},
    model::{Canon, FieldState, Intent, Link, Review, ReviewField, ReviewKind, Side, Status, Todo, TodoWhy, hash_of},
    plan::{Operation, Planned, PlannedField},
    records::{GoneRow, HubspotRecord, last_modified, sight_hubspot, sight_salesforce},
    reviews::Reviews,
    run::Job,
    values::Seen,
};
use crate::{
    error::{Error, Result},
    hubspot::records::Wanted,
    mutate::{self, Bug},
    report::RowOutcome,
    salesforce::model::{Row, SalesforceId},
};

/// How often a pair is decided, written and read back: once, again for what automations made of it or a side refused, and once more.
pub(super) const ROUNDS_MAX: usize = 4;

/// Names the records that were merged into a contact, company, …
pub(super) const MERGED: &str = "hs_merged_object_ids";

/// Items of the table that are changed at a time.
const ITEMS_AT_ONCE: usize = 32;

/// Clocks are known to the second, and an index shows a change with the time of its commit's start.
const READ_MARGIN_MS: i64 = 5_000;

/// A record to look at.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidate {
    /// Its id on the side that showed it.
    pub(super) id: String,
    /// When it was changed, as shown.
    pub(super) modified: Option<i64>,
    /// Its place in Salesforce's feed.
    pub(super) place: Option<(Timestamp, SalesforceId)>,
    /// Whatever its link says about when it was read.
    pub(super) force: bool,
    /// Its deletion is carried over now.
    pub(super) deletes: bool,
    /// It stands among what was put off.
    pub(super) todo: bool,
    /// It was being created on the other side, with these values.
    pub(super) creating: Option<BTreeMap<String, Canon>>,
    /// Since when, by the other side's clock.
    pub(super) since: Option<Timestamp>,
    /// A person has decided about this review of it.
    pub(super) review: Option<String>,
}

impl Candidate {
    pub(super) fn new(id: String) -> Self {
        Self { id, ..Self::default() }
    }
}

/// A pair of records at work.
pub(super) struct Work {
    pub(super) link: Link,
    /// As it is stored; what differs is stored at the end.
    pub(super) before: Option<Link>,
    pub(super) hubspot: Sighted,
    pub(super) salesforce: Sighted,
    /// What HubSpot's cross-id property holds; `None` where it is blank.
    pub(super) hubspot_cross: Option<String>,
    pub(super) salesforce_cross: Option<String>,
    /// The contact's account; the outer `None`: not known.
    pub(super) account: Option<Option<SalesforceId>>,
    pub(super) salesforce_changed: Option<Timestamp>,
    pub(super) decision: Decision,
    /// The cross-ids that are to be written.
    pub(super) stamp_hubspot: bool,
    pub(super) stamp_salesforce: bool,
    pub(super) todo: bool,
    /// What a person has decided.
    pub(super) choice: Option<Review>,
    /// The chosen field's pair, and its state before: it waits again if the choice is refused.
    pub(super) before_choice: Option<(usize, FieldState)>,
    /// Nothing but this field is written: a person has decided about it, and about nothing else.
    pub(super) only: Option<String>,
    /// The review that is closed when what was decided is stored.
    pub(super) resolved: Option<String>,
    /// HubSpot refused the record and did not say which property: they are sent one by one.
    pub(super) isolate: bool,
    /// Fields of which something else came back than was written.
    pub(super) rewritten: BTreeSet<(Side, usize)>,
    pub(super) is_new: bool,
    pub(super) created: bool,
    pub(super) wrote: bool,
    pub(super) counted_hubspot: bool,
    pub(super) counted_salesforce: bool,
    pub(super) rejected: bool,
    pub(super) deferred: bool,
    /// The answer of a write was lost.
    pub(super) unsure_hubspot: bool,
    pub(super) unsure_salesforce: bool,
    /// Nothing more is done about it here.
    pub(super) settled: bool,
}

impl Work {
    pub(super) fn is_active(&self) -> bool {
        !self.settled && self.link.status == Status::Active
    }

    pub(super) fn writes_hubspot(&self) -> bool {
        self.is_active() && (!self.decision.to_hubspot.is_empty() || self.stamp_hubspot)
    }

    pub(super) fn writes_salesforce(&self) -> bool {
        self.is_active() && (!self.decision.to_salesforce.is_empty() || self.stamp_salesforce)
    }

    pub(super) fn writes(&self) -> bool {
        self.writes_hubspot() || self.writes_salesforce()
    }

    /// A deliberate fault: what is about to be written is what the two agreed on.
    pub(super) fn take_for_written(&mut self) {
        let intent = self.link.intent.take().unwrap_or_default();
        for (key, value) in intent.hubspot.into_iter().chain(intent.salesforce) {
            let state = FieldState { hubspot: value.clone(), salesforce: value, ..FieldState::default() };
            self.link.fields.insert(key, state);
        }
    }

    /// What was to be written on a side was certainly not.
    pub(super) fn forget_intent(&mut self, side: Side) {
        let intent = self.link.intent.take();
        self.link.intent = intent.and_then(|intent| intent.still_open(side != Side::Hubspot, side != Side::Salesforce));
    }

    fn outcome(&self) -> RowOutcome {
        match () {
            () if self.deferred => RowOutcome::Deferred,
            () if self.rejected => RowOutcome::Rejected,
            () if self.created => RowOutcome::Created,
            () if self.wrote => RowOutcome::Updated,
            () => RowOutcome::Unchanged,
        }
    }
}

/// A record to be created on the other side.
pub(super) struct Creation {
    pub(super) on: Side,
    pub(super) source: Source,
    pub(super) candidate: Candidate,
}

/// What it is created from.
pub(super) enum Source {
    Hubspot(HubspotRecord),
    Salesforce(Row),
}

impl Job {
    /// Looks at some records of one side, and does what is to be done about them.
    pub(super) async fn chunk(&mut self, side: Side, candidates: Vec<Candidate>) -> Result<()> {
        let began = self.env.clock.elapsed();
        Box::pin(self.look_at(side, candidates)).await?;
        self.longest_chunk = self.longest_chunk.max(self.env.clock.elapsed().saturating_sub(began));
        Ok(())
    }

    async fn look_at(&mut self, side: Side, candidates: Vec<Candidate>) -> Result<()> {
        let mut once = BTreeSet::new();
        let mut candidates: Vec<Candidate> = candidates;
        candidates.retain(|candidate| once.insert(candidate.id.clone()));
        if let Some(planner) = &mut self.planner {
            candidates.retain(|candidate| planner.is_new(side, &candidate.id));
        }
        if candidates.is_empty() {
            return Ok(());
        }
        self.just_linked.clear();
        let links = self.links_of(side, &candidates).await?;
        let (mut linked, mut unlinked) = (Vec::new(), Vec::new());
        for candidate in candidates {
            match links.get(&candidate.id) {
                None => unlinked.push(candidate),
                Some(link) if is_fresh(side, link, &candidate) => {}
                Some(link) => {
                    if let Some(planner) = &mut self.planner {
                        let other = match side {
                            Side::Hubspot => link.salesforce_id.as_str(),
                            Side::Salesforce => link.hubspot_id.as_str(),
                        };
                        planner.is_new(side.other(), other);
                    }
                    linked.push((candidate, link.clone()));
                }
            }
        }
        if linked.is_empty() && unlinked.is_empty() {
            return Ok(());
        }
        // Read after this moment of either clock.
        let read_at = (self.account.server_time().as_millisecond(), self.org.server_time().as_millisecond());
        let mut hubspot_ids: BTreeSet<String> = linked.iter().map(|(_, link)| link.hubspot_id.clone()).collect();
        let mut salesforce_ids: BTreeSet<SalesforceId> =
            linked.iter().map(|(_, link)| link.salesforce_id.clone()).collect();
        for candidate in &unlinked {
            match side {
                Side::Hubspot => {
                    hubspot_ids.insert(candidate.id.clone());
                }
                Side::Salesforce => salesforce_ids.extend(SalesforceId::parse(&candidate.id).ok()),
            }
        }
        let (mut hubspot, mut salesforce) =
            futures_util::future::try_join(self.read_hubspot(hubspot_ids), self.read_salesforce(salesforce_ids))
                .await?;

        let mut works = Box::pin(self.linked_works(linked, &mut hubspot, &mut salesforce)).await?;
        let creations = Box::pin(self.unlinked_works(side, unlinked, hubspot, salesforce, &mut works)).await?;
        self.apply_choices(&mut works).await?;
        Box::pin(self.decide_all(&mut works, true)).await?;
        self.stay_within_limits(&works, &creations)?;
        if self.planner.is_some() {
            self.plan_works(&works, &creations);
            return Ok(());
        }
        Box::pin(self.create_all(creations, &mut works)).await?;
        Box::pin(self.write_rounds(&mut works)).await?;
        Box::pin(self.associate(&mut works)).await?;
        self.store(works, read_at).await
    }

    async fn links_of(&self, side: Side, candidates: &[Candidate]) -> Result<BTreeMap<String, Link>> {
        match side {
            Side::Hubspot => {
                let ids: Vec<String> = candidates.iter().map(|candidate| candidate.id.clone()).collect();
                self.links.by_hubspot(&ids).await
            }
            Side::Salesforce => {
                let ids: Vec<SalesforceId> =
                    candidates.iter().filter_map(|candidate| SalesforceId::parse(&candidate.id).ok()).collect();
                let links = self.links.by_salesforce(&ids).await?;
                Ok(links.into_iter().map(|(id, link)| (id.to_string(), link)).collect())
            }
        }
    }

    /// Pairs with a link: those of which both records are there go on; what became of the others is dealt with.
    async fn linked_works(
        &mut self,
        linked: Vec<(Candidate, Link)>,
        hubspot: &mut BTreeMap<String, HubspotRecord>,
        salesforce: &mut BTreeMap<SalesforceId, Row>,
    ) -> Result<Vec<Work>> {
        let missing: BTreeSet<SalesforceId> = linked
            .iter()
            .filter(|(_, link)| !salesforce.contains_key(&link.salesforce_id))
            .map(|(_, link)| link.salesforce_id.clone())
            .collect();
        let gone = if missing.is_empty() { BTreeMap::new() } else { self.gone_in_salesforce(&missing).await? };
        self.notice_merges(hubspot.values()).await?;
        let mut works = Vec::with_capacity(linked.len());
        for (candidate, mut link) in linked {
            let before = link.clone();
            if link.status == Status::Ignored {
                continue;
            }
            // Merged in HubSpot: the record stands under the id of the one that it was merged into.
            if let Some(survivor) = hubspot.get(&link.hubspot_id).filter(|record| record.id != link.hubspot_id).cloned()
                && !self.follow_hubspot_merge(&mut link, &survivor).await?
            {
                self.settle_todo(&candidate, Side::Hubspot, &before).await?;
                continue;
            }
            if let Some(GoneRow::Merged(winner)) = gone.get(&link.salesforce_id).cloned() {
                if !self.follow_salesforce_merge(&mut link, &winner).await? {
                    self.settle_todo(&candidate, Side::Salesforce, &before).await?;
                    continue;
                }
                salesforce.extend(self.read_salesforce(BTreeSet::from([winner])).await?);
            }
            self.rename_reviews(&mut link).await?;
            let record = hubspot.get(&link.hubspot_id).cloned();
            let record = match record {
                None if link.hubspot_id != before.hubspot_id => {
                    self.read_hubspot(BTreeSet::from([link.hubspot_id.clone()])).await?.into_values().next()
                }
                record => record,
            };
            let row = salesforce.get(&link.salesforce_id).cloned();
            match (record, row) {
                (Some(record), Some(row)) => {
                    let mut work = self.pair_of(link, Some(before), &record, &row, &candidate);
                    if row.get("IsConverted") == Some(&serde_json::Value::Bool(true)) {
                        work.link.status = Status::Converted;
                    } else if work.link.status != Status::Merged {
                        if work.link.status != Status::Active {
                            let id = self.delete_review_id(&work.link);
                            self.close_review(&id).await?;
                        }
                        work.link.status = Status::Active;
                    }
                    works.push(work);
                }
                (record, row) => {
                    if row.is_none() && gone.get(&link.salesforce_id) == Some(&GoneRow::There) {
                        // It may not be seen, or was not for a moment: not the same as gone.
                        self.put_off(Side::Hubspot, &link.hubspot_id).await?;
                        self.progress.done.rows.add(RowOutcome::Deferred);
                        continue;
                    }
                    let outcome = self.one_is_gone(link, before, record, row, &candidate).await?;
                    self.progress.done.rows.add(outcome);
                }
            }
        }
        Ok(works)
    }

    /// Links of records that were merged into these: nothing else shows them any more.
    async fn notice_merges(&mut self, records: impl Iterator<Item = &HubspotRecord>) -> Result<()> {
        let merged: Vec<String> = records
            .filter_map(|record| record.text(MERGED))
            .flat_map(|ids| ids.split(';').map(|id| id.trim().to_owned()))
            .filter(|id| !id.is_empty())
            .collect();
        if merged.is_empty() {
            return Ok(());
        }
        let links = self.links.by_hubspot(&merged).await?;
        let open = links.into_values().filter(|link| !matches!(link.status, Status::Merged | Status::Ignored));
        let ids: Vec<String> = open.map(|link| link.salesforce_id.to_string()).collect();
        for id in ids {
            // No feed shows them again, should this process die.
            self.put_off(Side::Salesforce, &id).await?;
            self.again.insert(id);
        }
        Ok(())
    }

    pub(super) fn pair_of(
        &self,
        link: Link,
        before: Option<Link>,
        record: &HubspotRecord,
        row: &Row,
        candidate: &Candidate,
    ) -> Work {
        let mapping = &self.mapping;
        let before_is_none = before.is_none();
        Work {
            is_new: before_is_none,
            before,
            hubspot: sight_hubspot(mapping, record),
            salesforce: sight_salesforce(mapping, row),
            hubspot_cross: record.text(&mapping.hubspot_link).map(str::to_owned),
            salesforce_cross: row.text(&mapping.salesforce_link).map(|text| text.trim().to_owned()),
            account: row.get("AccountId").map(|id| id.as_str().and_then(|id| SalesforceId::parse(id).ok())),
            salesforce_changed: last_modified(row),
            decision: Decision::default(),
            stamp_hubspot: false,
            stamp_salesforce: false,
            todo: candidate.todo,
            only: self
                .open
                .get(candidate.review.as_deref().unwrap_or_default())
                .filter(|_| self.progress.only_reviews)
                .and_then(|review| Some(review.field.as_ref()?.key.clone())),
            choice: candidate.review.as_ref().and_then(|id| self.open.get(id)).cloned(),
            resolved: None,
            before_choice: None,
            isolate: false,
            rewritten: BTreeSet::new(),
            created: candidate.creating.is_some() && before_is_none,
            wrote: false,
            counted_hubspot: false,
            counted_salesforce: false,
            rejected: false,
            deferred: false,
            unsure_hubspot: false,
            unsure_salesforce: false,
            settled: false,
            link,
        }
    }

    /// Records without a link: what they belong to becomes a link; the rest is to be created, or waits for a person.
    async fn unlinked_works(
        &mut self,
        side: Side,
        unlinked: Vec<Candidate>,
        mut hubspot: BTreeMap<String, HubspotRecord>,
        mut salesforce: BTreeMap<SalesforceId, Row>,
        works: &mut Vec<Work>,
    ) -> Result<Vec<Creation>> {
        let mut creations = Vec::new();
        let mut unlinked = unlinked;
        unlinked.retain(|candidate| !self.just_linked.contains(&candidate.id));
        if unlinked.is_empty() {
            return Ok(creations);
        }
        self.note_creating(side, &mut unlinked).await?;
        let mut by_id: BTreeMap<String, Candidate> = BTreeMap::new();
        let (mut gone, mut sources): (Vec<Candidate>, Vec<Candidate>) = (Vec::new(), Vec::new());
        let mut matched: Vec<(String, Source, Match)> = Vec::new();
        match side {
            Side::Hubspot => {
                let mut records = Vec::new();
                for candidate in unlinked {
                    match hubspot.remove(&candidate.id) {
                        Some(record) if record.id == candidate.id => {
                            records.push(record);
                            by_id.insert(candidate.id.clone(), candidate);
                        }
                        _ if candidate.creating.is_some() => gone.push(candidate),
                        // Gone before there was a link, or merged into one that is looked at in its own place.
                        _ => self.forget(side, &candidate).await?,
                    }
                }
                self.notice_merges(records.iter()).await?;
                for (record, found) in Box::pin(self.match_hubspot(records)).await? {
                    matched.push((record.id.clone(), Source::Hubspot(record), found));
                }
            }
            Side::Salesforce => {
                let mut rows = Vec::new();
                for candidate in unlinked {
                    let id = SalesforceId::parse(&candidate.id).ok();
                    match id.and_then(|id| salesforce.remove(&id)) {
                        Some(row) => {
                            rows.push(row);
                            by_id.insert(candidate.id.clone(), candidate);
                        }
                        None if candidate.creating.is_some() => gone.push(candidate),
                        None => self.forget(side, &candidate).await?,
                    }
                }
                for (row, found) in Box::pin(self.match_salesforce(rows)).await? {
                    let id = row.id().map(|id| id.to_string()).unwrap_or_default();
                    matched.push((id, Source::Salesforce(row), found));
                }
            }
        }
        works.extend(Box::pin(self.works_of_gone(side, gone)).await?);
        let creating = matched.iter().filter(|(.., found)| matches!(found, Match::Create));
        let creating: Vec<&Candidate> = creating.filter_map(|(id, ..)| by_id.get(id)).collect();
        let made = Box::pin(self.made_and_deleted(side, &creating)).await?;
        let mut undone: Vec<Candidate> = Vec::new();
        for (id, source, found) in matched {
            let Some(candidate) = by_id.remove(&id) else { continue };
            if made.contains_key(&id) {
                undone.push(candidate);
                continue;
            }
            if matches!(found, Match::Create)
                && let Some(gone) = self.made_of(side, &source).await?
            {
                self.forget(side, &candidate).await?;
                sources.push(gone);
                continue;
            }
            if matches!(found, Match::Create) && self.is_refused_duplicate(side, &id, &source).await? {
                self.forget(side, &candidate).await?;
                self.progress.done.rows.add(RowOutcome::Unchanged);
                continue;
            }
            self.identity_settled(side, &id, &found).await?;
            match found {
                Match::Link(record, row) => {
                    let Some(salesforce_id) = row.id() else { continue };
                    if let Some(planner) = &mut self.planner {
                        // Somebody else of this plan has it already: as in a run, that is for a person to decide.
                        let other = if side == Side::Hubspot { salesforce_id.as_str() } else { record.id.as_str() };
                        if !planner.is_new(side.other(), other) {
                            continue;
                        }
                    }
                    let mut link = blank_link(record.id.clone(), salesforce_id);
                    if let Some(sent) = &candidate.creating {
                        let seen = (sight_hubspot(&self.mapping, &record), sight_salesforce(&self.mapping, &row));
                        adopt_sent(&mut link, &self.mapping, sent, side, &seen.0, &seen.1);
                    }
                    works.push(self.pair_of(link, None, &record, &row, &candidate));
                }
                Match::Create if self.may_create(side.other()) => {
                    creations.push(Creation { on: side.other(), source, candidate });
                }
                Match::Create | Match::Skip => {
                    self.forget(side, &candidate).await?;
                    self.progress.done.rows.add(RowOutcome::Unchanged);
                }
                Match::Review { kind, candidates, candidates_of, why } => {
                    let chosen = self.chosen_partner(side, &candidate, &source).await?;
                    if let Some((record, row)) = chosen {
                        let Some(salesforce_id) = row.id() else { continue };
                        let link = blank_link(record.id.clone(), salesforce_id);
                        let mut work = self.pair_of(link, None, &record, &row, &candidate);
                        work.choice = None;
                        works.push(work);
                        continue;
                    }
                    let mut review = self.review_of(side, &id, kind, why);
                    (review.candidates, review.candidates_of) = (candidates, Some(candidates_of));
                    self.open_review(review).await?;
                    self.forget(side, &candidate).await?;
                    self.progress.done.rows.add(RowOutcome::Unchanged);
                }
            }
        }
        works.extend(Box::pin(self.works_of_gone(side.other(), sources)).await?);
        let linked = self.link_made(side, undone, &made).await?;
        works.extend(Box::pin(self.works_of_links(linked)).await?);
        Ok(creations)
    }

    /// A run that goes on after its process died is beyond the list of what was put off: a feed shows the records, and does not tell that they
    /// were being created.
    async fn note_creating(&self, side: Side, unlinked: &mut [Candidate]) -> Result<()> {
        if self.lease.as_ref().is_none_or(|lease| lease.invocations < 2) {
            return Ok(());
        }
        let store = &self.todos;
        let asked = unlinked.iter().enumerate().filter(|(_, one)| one.creating.is_none() && !one.todo);
        let found: Vec<(usize, Option<Todo>)> = stream::iter(asked.map(|(at, one)| (at, one.id.clone())))
            .map(|(at, id)| async move { Ok::<_, Error>((at, store.get(side, &id).await?)) })
            .buffer_unordered(ITEMS_AT_ONCE)
            .try_collect()
            .await?;
        for (at, todo) in found {
            if let (Some(one), Some(Todo { why: TodoWhy::Creating(sent), since, .. })) = (unlinked.get_mut(at), todo) {
                (one.todo, one.creating, one.since) = (true, Some(sent), since);
            }
        }
        Ok(())
    }

    /// Records that were being created on the other side when a process died, and are gone since.
    async fn works_of_gone(&mut self, side: Side, gone: Vec<Candidate>) -> Result<Vec<Work>> {
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        let linked = self.links_of_gone(side, gone).await?;
        self.works_of_links(linked).await
    }

    async fn works_of_links(&mut self, linked: Vec<(Candidate, Link)>) -> Result<Vec<Work>> {
        let hubspot = linked.iter().map(|(_, link)| link.hubspot_id.clone()).collect();
        let salesforce = linked.iter().map(|(_, link)| link.salesforce_id.clone()).collect();
        let (mut hubspot, mut salesforce) =
            futures_util::future::try_join(self.read_hubspot(hubspot), self.read_salesforce(salesforce)).await?;
        self.linked_works(linked, &mut hubspot, &mut salesforce).await
    }

    fn may_create(&self, side: Side) -> bool {
        use crate::config::SyncCreate;
        match self.sync.create {
            SyncCreate::Both => true,
            SyncCreate::Hubspot => side == Side::Hubspot,
            SyncCreate::Salesforce => side == Side::Salesforce,
            SyncCreate::None => false,
        }
    }

    /// Decides about all pairs that go on. `first`: intents that were found are settled before.
    pub(super) async fn decide_all(&mut self, works: &mut [Work], first: bool) -> Result<()> {
        let mapping = self.mapping.clone();
        let tick = self.progress.tick;
        let mut undated: Vec<usize> = Vec::new();
        if first {
            let mut in_history = self.written_and_taken_back(works).await?;
            for (at, work) in works.iter_mut().enumerate().filter(|(_, work)| work.is_active()) {
                let stood = in_history.remove(&at).unwrap_or_default();
                decide::settle_intent(&mut work.link, &mapping.pairs, &work.hubspot, &work.salesforce, &stood);
                self.thaw(work).await?;
            }
        }
        let open = &self.open;
        let kind_of = |id: &str| open.get(id).map_or(ReviewKind::Conflict, |review| review.kind);
        for (at, work) in works.iter_mut().enumerate() {
            if !work.is_active() {
                continue;
            }
            let mut trial = work.link.clone();
            let none = Dates::new();
            let decision =
                decide::decide(&mut trial, &mapping.pairs, &work.hubspot, &work.salesforce, &none, kind_of, tick);
            if decision.undated.is_empty() {
                self.take_decision(work, trial, decision);
            } else {
                work.decision = decision;
                undated.push(at);
            }
        }
        if undated.is_empty() {
            return Ok(());
        }
        let dates = self.dates(works, &undated).await?;
        for at in undated {
            let Some(work) = works.get_mut(at) else { continue };
            let mut link = work.link.clone();
            let none = Dates::new();
            let dates = dates.get(&at).unwrap_or(&none);
            let mut decision =
                decide::decide(&mut link, &mapping.pairs, &work.hubspot, &work.salesforce, dates, kind_of, tick);
            // What still has no date has no order.
            for pair in std::mem::take(&mut decision.undated) {
                decision.freeze.push(decide::Freeze { pair, kind: ReviewKind::Conflict });
            }
            self.take_decision(work, link, decision);
        }
        Ok(())
    }

    /// Of which fields of which pairs HubSpot's history says that what an intent was to write stood there, although it does not any more.
    async fn written_and_taken_back(&self, works: &[Work]) -> Result<BTreeMap<usize, BTreeSet<String>>> {
        let open: Vec<(usize, &Work)> = works
            .iter()
            .enumerate()
            .filter(|(_, work)| {
                let intent = work.link.intent.as_ref().filter(|intent| !intent.hubspot.is_empty());
                let shows = |one: &Intent| match one.one_by_one {
                    true => one.hubspot.iter().all(|(key, value)| work.hubspot.canon(key) == Some(value)),
                    false => decide::shows_any(&work.link, Side::Hubspot, &one.hubspot, &work.hubspot),
                };
                intent.is_some_and(|one| !shows(one)) && work.is_active()
            })
            .collect();
        let mut properties = BTreeSet::new();
        for intent in open.iter().filter_map(|(_, work)| work.link.intent.as_ref()) {
            properties.extend(intent.hubspot.keys().filter_map(|key| Some(self.mapping.pair(key)?.hubspot.clone())));
        }
        if properties.is_empty() {
            return Ok(BTreeMap::new());
        }
        let wanted = Wanted { properties: properties.into_iter().collect(), history: true, archived: false };
        let ids: Vec<String> = open.iter().map(|(_, work)| work.link.hubspot_id.clone()).collect();
        let found = self.account.read_records(&self.resource.object, &ids, &wanted, self.calls_until()).await?;
        let stood = |work: &Work| {
            let (Some(intent), Some(record)) = (&work.link.intent, found.get(&work.link.hubspot_id)) else {
                return BTreeSet::new();
            };
            let stood = intent.hubspot.iter().filter(|(key, written)| {
                let Some(pair) = self.mapping.pair(key) else { return false };
                let past = record.history.get(&*pair.hubspot).into_iter().flatten();
                let mut since = past.filter(|past| past.at.as_millisecond() > intent.hubspot_modified);
                since.any(|past| pair.of_hubspot(past.value.as_deref()).canon == **written)
            });
            stood.map(|(key, _)| key.clone()).collect()
        };
        Ok(open.iter().map(|(at, work)| (*at, stood(work))).collect())
    }

    /// A value that another record had is tried again when it is another value, or free.
    async fn thaw(&mut self, work: &mut Work) -> Result<()> {
        let mut closed = Vec::new();
        for (key, state) in &mut work.link.fields {
            let Some(review) = state.frozen.as_ref().and_then(|id| self.open.get(id)) else { continue };
            let (ReviewKind::Taken, Some(field)) = (review.kind, &review.field) else { continue };
            let now = |sighted: &Sighted| sighted.fields.get(key).map(Seen::shown);
            let changed = now(&work.hubspot).is_some_and(|shown| shown != field.hubspot_value)
                || now(&work.salesforce).is_some_and(|shown| shown != field.salesforce_value);
            if changed || self.freed.contains(&review.id) {
                closed.extend(state.frozen.take());
            }
        }
        for id in closed {
            self.close_review(&id).await?;
        }
        Ok(())
    }

    fn take_decision(&self, work: &mut Work, link: Link, mut decision: Decision) {
        work.link = link;
        // What a person has chosen goes first; the rest as it was decided.
        if let Some(choice) = work.choice.as_ref().and_then(|review| review.field.as_ref()) {
            let chosen = |pair: usize| self.mapping.pairs.get(pair).is_some_and(|pair| pair.key == choice.key);
            decision.freeze.retain(|freeze| !chosen(freeze.pair));
            decision.to_hubspot.retain(|change| !chosen(change.pair));
            decision.to_salesforce.retain(|change| !chosen(change.pair));
            decision.to_hubspot.extend(work.decision.to_hubspot.iter().filter(|one| chosen(one.pair)).cloned());
            decision.to_salesforce.extend(work.decision.to_salesforce.iter().filter(|one| chosen(one.pair)).cloned());
        }
        work.decision = decision;
        let hubspot_right = work.hubspot_cross.as_deref().and_then(|id| SalesforceId::parse(id).ok());
        work.stamp_hubspot = hubspot_right.as_ref() != Some(&work.link.salesforce_id);
        let salesforce_right = work.salesforce_cross.as_deref().and_then(hubspot_id_of);
        work.stamp_salesforce = salesforce_right.as_deref() != Some(work.link.hubspot_id.as_str());
        if let Some(only) = &work.only {
            let is_it = |pair: usize| self.mapping.pairs.get(pair).is_some_and(|pair| pair.key == *only);
            work.decision.to_hubspot.retain(|change| is_it(change.pair));
            work.decision.to_salesforce.retain(|change| is_it(change.pair));
            (work.stamp_hubspot, work.stamp_salesforce) = (false, false);
        }
        self.drop_refused(work);
    }

    /// When the fields were changed, for those pairs that are decided by it.
    async fn dates(&self, works: &[Work], undated: &[usize]) -> Result<BTreeMap<usize, Dates>> {
        let mut ids = BTreeSet::new();
        let mut properties = BTreeSet::new();
        for work in undated.iter().filter_map(|at| works.get(*at)) {
            ids.insert(work.link.hubspot_id.clone());
            let pairs = work.decision.undated.iter().filter_map(|pair| self.mapping.pairs.get(*pair));
            properties.extend(pairs.map(|pair| pair.hubspot.clone()));
        }
        let wanted = Wanted { properties: properties.into_iter().collect(), history: true, archived: false };
        let ids: Vec<String> = ids.into_iter().collect();
        let found = self.account.read_records(&self.resource.object, &ids, &wanted, self.calls_until()).await?;
        let mut all = BTreeMap::new();
        for at in undated {
            let Some(work) = works.get(*at) else { continue };
            let Some(record) = found.get(&work.link.hubspot_id) else { continue };
            // Salesforce tells when the record was changed, not the field: at the latest then.
            let salesforce = work.salesforce_changed.map_or(work.salesforce.modified, Timestamp::as_millisecond);
            let dates = work.decision.undated.iter().filter_map(|pair| {
                let name = &self.mapping.pairs.get(*pair)?.hubspot;
                let newest = record.history.get(&**name)?.first()?;
                Some((*pair, (newest.at.as_millisecond(), salesforce)))
            });
            all.insert(*at, dates.collect());
        }
        Ok(all)
    }

    /// The limits hold for what is done as well as for what was planned.
    fn stay_within_limits(&self, works: &[Work], creations: &[Creation]) -> Result<()> {
        if self.planner.is_some() || mutate::on(Bug::BrakeIgnored) {
            return Ok(());
        }
        let (mut hubspot, mut salesforce) = (self.progress.done.sync.hubspot, self.progress.done.sync.salesforce);
        for work in works {
            let blanks = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
            // An id that is noted on a record changes nothing of what people see: it counts with the links.
            hubspot.updated += u64::from(work.is_active() && !work.decision.to_hubspot.is_empty());
            salesforce.updated += u64::from(work.is_active() && !work.decision.to_salesforce.is_empty());
            hubspot.blanked += blanks(work.decision.to_hubspot.iter().filter(|change| change.blanks()).count());
            salesforce.blanked += blanks(work.decision.to_salesforce.iter().filter(|change| change.blanks()).count());
        }
        for creation in creations {
            // The other side's record gets the new one's id.
            match creation.on {
                Side::Hubspot => (hubspot.created, salesforce.updated) = (hubspot.created + 1, salesforce.updated + 1),
                Side::Salesforce => {
                    (salesforce.created, hubspot.updated) = (salesforce.created + 1, hubspot.updated + 1)
                }
            }
        }
        match super::plan::over(&hubspot, &salesforce, &self.sync.limits) {
            Some((code, message)) => {
                Err(Error::invalid(code, format!("{message}; what was done before stands, nothing more was written")))
            }
            None => Ok(()),
        }
    }

    fn plan_works(&mut self, works: &[Work], creations: &[Creation]) {
        let mapping = self.mapping.clone();
        let missing: Vec<Vec<String>> = creations
            .iter()
            .map(|creation| match &creation.source {
                Source::Hubspot(record) => self.draft_for_salesforce(record).missing,
                Source::Salesforce(_) => Vec::new(),
            })
            .collect();
        let Some(planner) = &mut self.planner else { return };
        for work in works {
            planner.totals.links += u64::from(work.is_new);
            planner.totals.refused +=
                work.decision.unwritable.iter().filter(|one| !one.known).count().try_into().unwrap_or(0_u64);
            let new = work.decision.freeze.iter().filter(|freeze| {
                let key = mapping.pairs.get(freeze.pair).map(|pair| &pair.key);
                key.and_then(|key| work.link.fields.get(key)).is_none_or(|state| state.frozen.is_none())
            });
            let new: Vec<usize> = new.map(|freeze| freeze.pair).collect();
            planner.totals.reviews += u64::try_from(new.len()).unwrap_or_default();
            if !work.writes() {
                planner.totals.unchanged += 1;
            }
            for (side, is_written) in
                [(Side::Hubspot, work.writes_hubspot()), (Side::Salesforce, work.writes_salesforce())]
            {
                if !is_written {
                    continue;
                }
                let changes: Vec<(usize, &Canon, &Canon, &'static str)> = match side {
                    Side::Hubspot => {
                        work.decision.to_hubspot.iter().map(|c| (c.pair, &c.old, &c.canon, c.why)).collect()
                    }
                    Side::Salesforce => {
                        work.decision.to_salesforce.iter().map(|c| (c.pair, &c.old, &c.canon, c.why)).collect()
                    }
                };
                let blanked = changes.iter().filter(|(_, old, new, _)| new.is_none() && old.is_some()).count();
                let writes = planner.writes(side);
                writes.updated += u64::from(!changes.is_empty());
                writes.blanked += u64::try_from(blanked).unwrap_or_default();
                if planner.tells() {
                    let why = changes.first().map_or("its link is noted on the record", |(.., why)| *why);
                    planner.tell(&Planned {
                        hubspot_id: Some(work.link.hubspot_id.clone()),
                        salesforce_id: Some(work.link.salesforce_id.to_string()),
                        side,
                        operation: if changes.is_empty() { Operation::Link } else { Operation::Update },
                        fields: planned_fields(&mapping, changes.iter().map(|(pair, old, new, _)| (*pair, *old, *new))),
                        why: why.to_owned(),
                    });
                }
            }
            if planner.tells() {
                for pair in new {
                    let blank = None;
                    let key = mapping.pairs.get(pair).map(|pair| pair.key.clone()).unwrap_or_default();
                    let old = work.salesforce.fields.get(&key).map_or(&blank, |seen| &seen.canon);
                    let new = work.hubspot.fields.get(&key).map_or(&blank, |seen| &seen.canon);
                    planner.tell(&Planned {
                        hubspot_id: Some(work.link.hubspot_id.clone()),
                        salesforce_id: Some(work.link.salesforce_id.to_string()),
                        side: Side::Salesforce,
                        operation: Operation::Review,
                        fields: planned_fields(&mapping, std::iter::once((pair, old, new))),
                        why: "changed on both sides".to_owned(),
                    });
                }
                for one in work.decision.unwritable.iter().filter(|one| !one.known) {
                    planner.tell(&Planned {
                        hubspot_id: Some(work.link.hubspot_id.clone()),
                        salesforce_id: Some(work.link.salesforce_id.to_string()),
                        side: one.side,
                        operation: Operation::Refused,
                        fields: Vec::new(),
                        why: one.fault.reason.clone(),
                    });
                }
            }
        }
        for (creation, missing) in creations.iter().zip(missing) {
            if !missing.is_empty() {
                planner.totals.refused += 1;
                if let Source::Hubspot(record) = &creation.source {
                    planner.tell(&Planned {
                        hubspot_id: Some(record.id.clone()),
                        salesforce_id: None,
                        side: Side::Salesforce,
                        operation: Operation::Refused,
                        fields: Vec::new(),
                        why: format!("Salesforce wants {} and HubSpot has no value for it", missing.join(", ")),
                    });
                }
                continue;
            }
            planner.writes(creation.on).created += 1;
            planner.totals.links += 1;
            if planner.tells() {
                let (sighted, hubspot_id, salesforce_id) = match &creation.source {
                    Source::Hubspot(record) => (sight_hubspot(&mapping, record), Some(record.id.clone()), None),
                    Source::Salesforce(row) => {
                        (sight_salesforce(&mapping, row), None, row.id().map(|id| id.to_string()))
                    }
                };
                let blank = None;
                let values = mapping.pairs.iter().enumerate().filter_map(|(at, pair)| {
                    let canon = &sighted.fields.get(&pair.key)?.canon;
                    canon.is_some().then_some((at, &blank, canon))
                });
                planner.tell(&Planned {
                    hubspot_id,
                    salesforce_id,
                    side: creation.on,
                    operation: Operation::Create,
                    fields: planned_fields(&mapping, values),
                    why: "it is on one side only".to_owned(),
                });
            }
        }
    }

    /// Stores what has changed of the links, and counts what became of the pairs.
    async fn store(&mut self, works: Vec<Work>, read_at: (i64, i64)) -> Result<()> {
        let mut changed: Vec<Link> = Vec::new();
        for work in &works {
            let mut link = work.link.clone();
            if !work.deferred {
                link.intent = None;
                // A record that was put off is looked at again whatever the feeds say.
                (link.hubspot_read, link.salesforce_read) = read_at;
            }
            let differs = work.before.as_ref().is_none_or(|before| {
                let mut before = before.clone();
                (before.hubspot_read, before.salesforce_read) = (link.hubspot_read, link.salesforce_read);
                before != link
            });
            let was_read_long_ago = work.before.as_ref().is_none_or(|before| {
                before.hubspot_read < work.hubspot.modified + READ_MARGIN_MS
                    || before.salesforce_read < work.salesforce.modified + READ_MARGIN_MS
            });
            if (differs || was_read_long_ago) && super::links::check(&link).is_ok() && work.before.is_some() {
                changed.push(link);
            }
        }
        // Before the links: a frozen field whose review nobody has opened would wait for nobody.
        let reviews: Vec<Review> =
            works.iter().filter(|work| work.is_active()).flat_map(|work| self.field_reviews(work)).collect();
        for review in reviews {
            self.open_review(review).await?;
        }
        let stored = self.links.store(&mut changed).await?;
        for (link, stored) in changed.iter().zip(stored) {
            if !stored {
                // Somebody else is at work on it.
                self.put_off(Side::Hubspot, &link.hubspot_id).await?;
            }
        }
        for work in &works {
            self.progress.done.rows.add(work.outcome());
            if work.todo && !work.deferred {
                self.todos.remove(Side::Hubspot, &work.link.hubspot_id).await?;
                self.todos.remove(Side::Salesforce, work.link.salesforce_id.as_str()).await?;
            }
            if work.deferred {
                self.put_off(Side::Hubspot, &work.link.hubspot_id).await?;
            } else {
                // What a person has decided is carried out, and stored.
                if let Some(review) = &work.resolved {
                    self.close_review(review).await?;
                }
                self.settle_pair(work).await?;
            }
        }
        self.tell();
        Ok(())
    }

    /// What was in doubt, or refused, and is not any more.
    async fn settle_pair(&mut self, work: &Work) -> Result<()> {
        // A process may have died between a review and the link that it is of.
        if work.is_active() && !self.open.is_empty() {
            let (hubspot, salesforce) = (&work.link.hubspot_id, &work.link.salesforce_id);
            let keys: Vec<String> = self.mapping.pairs.iter().map(|pair| pair.key.clone()).collect();
            for key in keys {
                let frozen = work.link.fields.get(&key).and_then(|state| state.frozen.as_ref());
                for kind in [ReviewKind::Conflict, ReviewKind::Flip, ReviewKind::Taken] {
                    let id = self.field_review_id(kind, hubspot, salesforce, &key);
                    if frozen != Some(&id) {
                        self.close_review(&id).await?;
                    }
                }
            }
        }
        let ids =
            [(Side::Hubspot, work.link.hubspot_id.as_str()), (Side::Salesforce, work.link.salesforce_id.as_str())];
        for (side, id) in ids {
            for kind in [ReviewKind::Duplicate, ReviewKind::Identity] {
                let review = self.review_of(side, id, kind, String::new()).id;
                self.close_review(&review).await?;
            }
        }
        let is_fine = !work.rejected
            && work.link.refused.is_none()
            && work.link.fields.values().all(|state| state.refused.is_none());
        let hubspot = Some(work.link.hubspot_id.clone());
        let salesforce = Some(work.link.salesforce_id.clone());
        let of_pair = |key: &(Option<String>, Option<SalesforceId>, Option<String>)| {
            key.0.is_some() && key.0 == hubspot || key.1.is_some() && key.1 == salesforce
        };
        let was_refused = self.refused_ids.contains(&work.link.hubspot_id)
            || self.refused_ids.contains(work.link.salesforce_id.as_str());
        if is_fine && was_refused {
            self.refusals.remove(hubspot.as_deref(), salesforce.as_ref()).await?;
            self.refused_before.retain(|key, _| !of_pair(key));
        }
        Ok(())
    }

    /// The reviews of a pair's frozen fields, as they are now.
    fn field_reviews(&self, work: &Work) -> Vec<Review> {
        let mut reviews = Vec::new();
        for pair in &self.mapping.pairs {
            let Some(state) = work.link.fields.get(&pair.key) else { continue };
            let Some(id) = &state.frozen else { continue };
            let (Some(ours), Some(theirs)) =
                (work.hubspot.fields.get(&pair.key), work.salesforce.fields.get(&pair.key))
            else {
                continue;
            };
            let known = self.open.get(id);
            let kind = self.kind_of(id, &work.link, &pair.key);
            let why = known.map_or_else(|| why_of(kind).to_owned(), |known| known.why.clone());
            let shown = |of: &Canon| of.clone().filter(|_| !state.new);
            reviews.push(Review {
                id: id.clone(),
                sync: self.sync.name.clone(),
                kind,
                hubspot_id: Some(work.link.hubspot_id.clone()),
                salesforce_id: Some(work.link.salesforce_id.clone()),
                field: Some(ReviewField {
                    key: pair.key.clone(),
                    hubspot: pair.hubspot.to_string(),
                    salesforce: pair.salesforce.clone(),
                    hubspot_value: ours.shown(),
                    salesforce_value: theirs.shown(),
                    hubspot_before: shown(&state.hubspot),
                    salesforce_before: shown(&state.salesforce),
                }),
                candidates: known.map(|known| known.candidates.clone()).unwrap_or_default(),
                candidates_of: known.and_then(|known| known.candidates_of),
                deleted_in: None,
                why,
                opened_at: known.map_or_else(|| self.env.clock.now(), |known| known.opened_at),
                choice: None,
                version: known.map_or(0, |known| known.version),
            });
        }
        reviews
    }

    /// Freezes a field. Its review is opened when the link is stored.
    pub(super) fn freeze(&mut self, work: &mut Work, pair: usize, kind: ReviewKind, candidates: Vec<String>) {
        let Some(pair) = self.mapping.pairs.get(pair) else { return };
        let state = work
            .link
            .fields
            .entry(pair.key.clone())
            .or_insert_with(|| FieldState { new: true, ..FieldState::default() });
        if state.frozen.is_some() {
            return;
        }
        let id = Reviews::id_of(
            &self.sync.name,
            kind,
            Some(&work.link.hubspot_id),
            Some(work.link.salesforce_id.as_str()),
            Some(&pair.key),
        );
        state.frozen = Some(id.clone());
        let mut review = self.review_of(Side::Hubspot, &work.link.hubspot_id, kind, why_of(kind).to_owned());
        review.id.clone_from(&id);
        (review.candidates, review.candidates_of) = (candidates, Some(Side::Hubspot));
        // Only so that its kind is known; it is stored with its values.
        review.version = 0;
        self.open.entry(id).or_insert(review);
    }

    /// A link that no item of the table can hold: one record with very long texts does not keep the others from being stored.
    async fn settle_too_large(&mut self, works: &mut [Work]) -> Result<()> {
        for work in works.iter_mut().filter(|work| !work.settled) {
            let Err(error) = super::links::check(&work.link) else { continue };
            (work.settled, work.rejected) = (true, true);
            let ids = (Some(work.link.hubspot_id.clone()), Some(work.link.salesforce_id.clone()));
            let mut refused = self.refused(ids, Side::Hubspot, 1);
            refused.reason = error.message().to_owned();
            self.refuse(refused).await?;
        }
        Ok(())
    }

    /// Stores links under their versions; those that somebody else has changed are put off.
    pub(super) async fn store_intents(&mut self, works: &mut [Work]) -> Result<()> {
        self.settle_too_large(works).await?;
        let mut places = Vec::new();
        let mut links = Vec::new();
        for (at, work) in works.iter().enumerate() {
            if work.writes() {
                places.push(at);
                links.push(work.link.clone());
            }
        }
        let stored = self.links.store(&mut links).await?;
        for ((at, link), stored) in places.into_iter().zip(links).zip(stored) {
            let Some(work) = works.get_mut(at) else { continue };
            if stored {
                work.link = link;
                work.before = Some(work.link.clone());
            } else {
                (work.deferred, work.settled) = (true, true);
            }
        }
        Ok(())
    }

    /// Makes the links of pairs that were found to belong together; who is faster than us wins.
    pub(super) async fn make_links(&mut self, works: &mut [Work]) -> Result<()> {
        self.settle_too_large(works).await?;
        let links = self.links.clone();
        let places: Vec<usize> = works
            .iter()
            .enumerate()
            .filter(|(_, work)| work.before.is_none() && !work.settled)
            .map(|(at, _)| at)
            .collect();
        let made: Vec<(usize, Link, super::links::Created)> = stream::iter(places)
            .map(|at| {
                let links = links.clone();
                let link = works.get(at).map(|work| work.link.clone());
                async move {
                    let Some(mut link) = link else { return Ok(None) };
                    let created = links.create(&mut link).await?;
                    Ok::<_, Error>(Some((at, link, created)))
                }
            })
            .buffer_unordered(ITEMS_AT_ONCE)
            .try_filter_map(|made| async move { Ok(made) })
            .try_collect()
            .await?;
        for (at, link, created) in made {
            let Some(work) = works.get_mut(at) else { continue };
            match created {
                super::links::Created::Yes => {
                    work.link = link;
                    work.before = Some(work.link.clone());
                    self.progress.done.sync.linked += 1;
                }
                super::links::Created::Hubspot(other) | super::links::Created::Salesforce(other) => {
                    work.settled = true;
                    if other.hubspot_id == link.hubspot_id && other.salesforce_id == link.salesforce_id {
                        // Ours, from a moment ago.
                        work.deferred = true;
                        continue;
                    }
                    let (side, id, taken) = if other.hubspot_id == link.hubspot_id {
                        (Side::Salesforce, link.salesforce_id.to_string(), link.hubspot_id.clone())
                    } else {
                        (Side::Hubspot, link.hubspot_id.clone(), link.salesforce_id.to_string())
                    };
                    let why = "what it belongs to was linked with another record a moment ago".to_owned();
                    let mut review = self.review_of(side, &id, ReviewKind::Identity, why);
                    (review.candidates, review.candidates_of) = (vec![taken], Some(side.other()));
                    self.open_review(review).await?;
                }
            }
        }
        Ok(())
    }
}

fn planned_fields<'c>(
    mapping: &Mapping,
    changes: impl Iterator<Item = (usize, &'c Canon, &'c Canon)>,
) -> Vec<PlannedField> {
    let planned = changes.filter_map(|(pair, old, new)| {
        let pair = mapping.pairs.get(pair)?;
        Some(PlannedField {
            hubspot: pair.hubspot.to_string(),
            salesforce: pair.salesforce.clone(),
            old: old.clone(),
            new: new.clone(),
        })
    });
    planned.collect()
}

/// Whether the link says that this version of the record was read.
fn is_fresh(side: Side, link: &Link, candidate: &Candidate) -> bool {
    // One that was deleted and is shown again may have been brought back, which moves no date in HubSpot.
    if candidate.force || link.intent.is_some() || !link.status.is_alive_in(side) {
        return false;
    }
    let read = match side {
        Side::Hubspot => link.hubspot_read,
        Side::Salesforce => link.salesforce_read,
    };
    candidate.modified.is_some_and(|modified| modified + READ_MARGIN_MS <= read)
}

pub(super) fn blank_link(hubspot_id: String, salesforce_id: SalesforceId) -> Link {
    Link {
        hubspot_id,
        salesforce_id,
        status: Status::Active,
        fields: BTreeMap::new(),
        hubspot_read: 0,
        salesforce_read: 0,
        intent: None,
        account: None,
        refused: None,
        version: 0,
    }
}

/// What a record was created with, from the one of `source`, is what the two agreed on. What could not be carried over stays where it is:
/// a record that we have made ourselves takes nothing away from the one that it was made from.
pub(super) fn adopt_sent(
    link: &mut Link,
    mapping: &Mapping,
    sent: &BTreeMap<String, Canon>,
    source: Side,
    hubspot: &Sighted,
    salesforce: &Sighted,
) {
    let blank = None;
    let canon = |of: &Sighted, key: &str| of.fields.get(key).map_or(&blank, |seen| &seen.canon).clone();
    for (key, written) in sent {
        // The record it was made from may hold more than the other one can, and may have been edited since: then it holds something else.
        let state = FieldState { hubspot: written.clone(), salesforce: written.clone(), ..FieldState::default() };
        link.fields.insert(key.clone(), state);
    }
    let (from, made) = match source {
        Side::Hubspot => (hubspot, salesforce),
        Side::Salesforce => (salesforce, hubspot),
    };
    for (key, seen) in &from.fields {
        if seen.canon.is_some() && !sent.contains_key(key) && canon(made, key).is_none() {
            let (hubspot, salesforce) = (canon(hubspot, key), canon(salesforce, key));
            let could = mapping.pair(key).is_some_and(|pair| match source {
                Side::Hubspot => pair.createable_in_salesforce,
                Side::Salesforce => pair.writable_in_hubspot,
            });
            // It was refused, and is tried again when it changes.
            let value = hash_of([seen.canon.as_deref().unwrap_or_default(), seen.raw.as_str()]);
            let refused = could.then_some((source.other(), value));
            link.fields.insert(key.clone(), FieldState { hubspot, salesforce, refused, ..FieldState::default() });
        }
    }
}

/// Why a field waits, for people.
pub(super) fn why_of(kind: ReviewKind) -> &'static str {
    match kind {
        ReviewKind::Conflict => "changed on both sides, to different values",
        ReviewKind::Flip => "written to and fro: something on each side rewrites what is written",
        ReviewKind::Taken => "another record has the value, and only one may",
        ReviewKind::Duplicate => "several records share what they are recognised by",
        ReviewKind::Identity => "it is not certain which records belong together",
        ReviewKind::Merge => "two linked records were merged on one side",
        ReviewKind::Delete => "deleted on one side",
    }
}
