//! Some hundred records at a time: links, both records, decisions, intents, writes, read back, shadows.
//!
//! What dies where: before the intent is stored nothing has happened. After it, whoever comes next finds the intent, reads the records and
//! sees whether the write took place ([`super::decide::settle_intent`]). The position moves when everything here is stored.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    decide::{Decision, Sighted},
    fields::Mapping,
    identity::Match,
    model::{Canon, FieldState, Link, Side, Status, Todo, TodoWhy, hash_of},
    pair::{Candidate, Creation, Source, Work},
    records::{GoneRow, HubspotRecord, last_modified, sight_hubspot, sight_salesforce},
    run::Job,
};
use crate::{
    error::{Error, Result},
    report::RowOutcome,
    salesforce::model::{Row, SalesforceId},
};

/// Names the records that were merged into a contact, company, …
pub(super) const MERGED: &str = "hs_merged_object_ids";

/// Items of the table that are read at a time.
const ITEMS_AT_ONCE: usize = 32;

/// Clocks are known to the second, and an index shows a change with the time of its commit's start.
pub(super) const READ_MARGIN_MS: i64 = 5_000;

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
