//! Pairs of which a record was deleted or merged.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    chunk::blank_link,
    identity::hubspot_id_of,
    links::Created,
    model::{Choice, FieldState, Intent, Link, Review, ReviewKind, Side, Status, Todo, TodoWhy},
    pair::{Candidate, Source},
    plan::{Operation, Planned},
    records::HubspotRecord,
    run::Job,
};
use crate::{
    codes,
    config::SyncDeletes,
    error::{Error, ErrorKind, Result},
    hubspot::{
        batch::{Write, WriteKind},
        records::Wanted,
        scan::{Scan, ScanState},
        verdict,
    },
    mutate::{self, Bug},
    record::{Input, PropertyName},
    report::RowOutcome,
    salesforce::{
        model::{Row, SalesforceId, datetime},
        soql::{Condition, Literal, Select},
        write::Verdict,
    },
};

/// Ids of one statement about who names them: with room for the rest of an address of Salesforce's longest length.
const NAMED_AT_ONCE: usize = 400;

/// Records of HubSpot's recycle bin that are looked through for what a dead process has made: a hundred calls, in a run after a kill. Who is
/// not among them is taken not to have been made.
const BIN_MAX: usize = 10_000;

/// The other side's clock is known to the second; and Salesforce tells the second in which a record was made.
const MADE_MARGIN: SignedDuration = SignedDuration::from_secs(5);

impl Job {
    /// Of records that are gone, and were being created on the other side when a process died: where that has taken place, the two are a
    /// pair, of which one was deleted or merged. Else what was made would be taken for a record of its own, and created where a person has
    /// deleted it.
    pub(super) async fn links_of_gone(&mut self, side: Side, gone: Vec<Candidate>) -> Result<Vec<(Candidate, Link)>> {
        let ids: Vec<String> = gone.iter().map(|one| one.id.clone()).collect();
        let made: BTreeMap<String, String> = match side {
            Side::Salesforce => {
                let found = self.read_by(&self.mapping.hubspot_link, &ids, &[]).await?;
                ids.into_iter().zip(found).filter_map(|(id, found)| Some((id, found?.id))).collect()
            }
            Side::Hubspot => {
                let naming = self.salesforce_naming(&ids).await?;
                naming.into_iter().filter_map(|(id, by)| Some((id, by.first()?.to_string()))).collect()
            }
        };
        self.link_made(side, gone, &made).await
    }

    /// Of records that were being created on the other side when a process died, and whom nobody there names: what was made of them, and a
    /// person has deleted since. It is a pair of which one was deleted; else it would be made again.
    ///
    /// A privacy deletion, or who has left Salesforce's recycle bin, leaves nothing that could be found.
    pub(super) async fn made_and_deleted(
        &self,
        side: Side,
        candidates: &[&Candidate],
    ) -> Result<BTreeMap<String, String>> {
        // What was made before, and deleted, is what a person has had made anew.
        let since: BTreeMap<&str, Timestamp> = candidates
            .iter()
            .filter(|one| one.creating.is_some())
            .filter_map(|one| Some((one.id.as_str(), one.since?.saturating_sub(MADE_MARGIN).ok()?)))
            .collect();
        let mut made = BTreeMap::new();
        if since.is_empty() {
            return Ok(made);
        }
        let is_ours = |of: &str, at: Option<Timestamp>| at.zip(since.get(of)).is_some_and(|(at, since)| at >= *since);
        match side {
            Side::Hubspot => {
                let field = self.mapping.salesforce_link.as_str();
                let ids: Vec<&str> = since.keys().copied().collect();
                for lot in ids.chunks(NAMED_AT_ONCE) {
                    let literals = lot.iter().map(|id| Literal::Text((*id).to_owned())).collect();
                    let select = Select::from(&self.mapping.salesforce_object)?
                        .fields(["Id", "IsDeleted", "CreatedDate", field])?
                        .and(Condition::one_of(field, literals)?);
                    for row in self.org.query_to_end(&select, true, self.calls_until()).await? {
                        let Some((id, of)) = row.id().zip(row.text(field).and_then(hubspot_id_of)) else { continue };
                        if row.is_deleted() && is_ours(&of, row.get("CreatedDate").and_then(datetime)) {
                            made.insert(of, id.to_string());
                        }
                    }
                }
            }
            Side::Salesforce => {
                let link = &self.mapping.hubspot_link;
                let properties = vec![PropertyName::from(link.as_str())];
                let wanted = Wanted { properties, history: false, archived: true };
                let (account, object) = (self.account.clone(), self.resource.object.clone());
                let mut scan = Scan::new(account, object, wanted, ScanState::default(), self.calls_until());
                // It has no index: who is in it is read through.
                let mut looked = 0;
                while looked < BIN_MAX
                    && let Some(page) = scan.next().await?
                {
                    looked += page.records.len();
                    for record in page.records {
                        let of = record.value(link).and_then(|id| SalesforceId::parse(id).ok());
                        let Some(of) = of.map(|id| id.to_string()) else { continue };
                        if is_ours(&of, record.created_at) {
                            made.insert(of, record.id);
                        }
                    }
                }
            }
        }
        Ok(made)
    }

    /// Makes pairs of records that were being created on the other side, and what was made of each.
    pub(super) async fn link_made(
        &mut self,
        side: Side,
        candidates: Vec<Candidate>,
        made: &BTreeMap<String, String>,
    ) -> Result<Vec<(Candidate, Link)>> {
        let mut linked = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let ids = made.get(&candidate.id).map(|made| match side {
                Side::Hubspot => (candidate.id.clone(), SalesforceId::parse(made)),
                Side::Salesforce => (made.clone(), SalesforceId::parse(&candidate.id)),
            });
            let (Some((hubspot_id, Ok(salesforce_id))), Some(sent)) = (ids, &candidate.creating) else {
                self.forget(side, &candidate).await?;
                continue;
            };
            let mut link = blank_link(hubspot_id, salesforce_id);
            for (key, sent) in sent {
                let state = FieldState { hubspot: sent.clone(), salesforce: sent.clone(), ..FieldState::default() };
                link.fields.insert(key.clone(), state);
            }
            if self.planner.is_none() {
                match self.links.create(&mut link).await? {
                    Created::Yes => self.progress.done.sync.linked += 1,
                    Created::Hubspot(other) if other.salesforce_id == link.salesforce_id => link = other,
                    // It is somebody else's by now.
                    Created::Hubspot(_) | Created::Salesforce(_) => {
                        self.forget(side, &candidate).await?;
                        continue;
                    }
                }
            }
            linked.push((candidate, link));
        }
        Ok(linked)
    }

    /// The record of the other side that this one, for which there is nobody there, was being made of when a process died: it is gone.
    pub(super) async fn made_of(&self, side: Side, source: &Source) -> Result<Option<Candidate>> {
        let named = match source {
            Source::Hubspot(record) => {
                let id = record.text(&self.mapping.hubspot_link).and_then(|id| SalesforceId::parse(id).ok());
                id.map(|id| id.to_string())
            }
            Source::Salesforce(row) => row.text(&self.mapping.salesforce_link).and_then(hubspot_id_of),
        };
        let Some(id) = named else { return Ok(None) };
        let Some(Todo { why: TodoWhy::Creating(sent), since, .. }) = self.todos.get(side.other(), &id).await? else {
            return Ok(None);
        };
        Ok(Some(Candidate { force: true, todo: true, creating: Some(sent), since, ..Candidate::new(id) }))
    }

    /// One record of a pair, or both, is gone.
    pub(super) async fn one_is_gone(
        &mut self,
        mut link: Link,
        before: Link,
        record: Option<HubspotRecord>,
        row: Option<Row>,
        candidate: &Candidate,
    ) -> Result<RowOutcome> {
        if link.status == Status::Merged {
            // Merged away on one side, and gone on the other: all of it is in the pair that it was merged into.
            if record.is_none() && row.is_none() {
                self.drop_link(&link, candidate).await?;
                return Ok(RowOutcome::Unchanged);
            }
            // Whom it was merged into was deleted: that is a deletion of this one too. Without its link it would be created again.
            let review = self.merge_review_id(&link);
            self.close_review(&review).await?;
        }
        if record.is_none() && row.is_none() {
            self.both_are_gone(link, &before, candidate).await?;
            return Ok(RowOutcome::Unchanged);
        }
        let deleted_in = if row.is_none() { Side::Salesforce } else { Side::Hubspot };
        let gone = match deleted_in {
            Side::Hubspot => Status::HubspotDeleted,
            Side::Salesforce => Status::SalesforceDeleted,
        };
        let id = self.delete_review_id(&link);
        let review =
            candidate.review.as_ref().and_then(|review| self.open.get(review)).filter(|one| one.id == id).cloned();
        match review.as_ref().and_then(|review| review.choice.clone()) {
            Some(Choice::Side(side)) if side == deleted_in => {
                return self.delete_other(link, deleted_in, candidate).await;
            }
            Some(Choice::Side(survives)) => {
                // It is created again: as a record without a link, which it then is.
                if self.planner.is_some() {
                    return Ok(RowOutcome::Unchanged);
                }
                let id = match survives {
                    Side::Hubspot => link.hubspot_id.clone(),
                    Side::Salesforce => link.salesforce_id.to_string(),
                };
                // Should this process die, the next run finds it.
                self.put_off(survives, &id).await?;
                self.drop_link(&link, candidate).await?;
                self.recreate.insert((survives, id));
                return Ok(RowOutcome::Updated);
            }
            Some(Choice::Keep | Choice::Value(_)) => {
                if self.planner.is_none() {
                    link.status = Status::Ignored;
                    self.keep(&mut link, &before).await?;
                    self.close_review(&id).await?;
                }
                return Ok(RowOutcome::Unchanged);
            }
            None => {}
        }
        if link.status == gone && (self.sync.deletes != SyncDeletes::Propagate || self.open.contains_key(&id)) {
            // Dealt with, or waiting for a person.
            self.forget_both(&link, candidate).await?;
            return Ok(RowOutcome::Unchanged);
        }
        let edited = self.was_edited(&link, record.as_ref(), row.as_ref());
        let is_back = link.status == Status::Gone;
        match self.sync.deletes {
            SyncDeletes::Propagate if is_back => {
                // It is not deleted again, and not made twice: HubSpot's API cannot bring a record back, nor can Salesforce's.
                let why = format!(
                    "brought back in {}; in {} it is still deleted: bring it back there too, and the two go on as one",
                    deleted_in.other().name(),
                    deleted_in.name()
                );
                let review = Review {
                    id,
                    salesforce_id: Some(link.salesforce_id.clone()),
                    deleted_in: Some(deleted_in),
                    ..self.review_of(Side::Hubspot, &link.hubspot_id, ReviewKind::Delete, why)
                };
                self.open_review(review).await?;
            }
            SyncDeletes::Propagate if !edited && (candidate.deletes || self.planner.is_some()) => {
                return self.delete_other(link, deleted_in, candidate).await;
            }
            SyncDeletes::Propagate if !edited => {
                self.delete_later(&link)?;
                self.forget_both(&link, candidate).await?;
                return Ok(RowOutcome::Unchanged);
            }
            SyncDeletes::Ignore => {}
            SyncDeletes::Review | SyncDeletes::Propagate => {
                let why = match edited {
                    true => {
                        format!("deleted in {}, and edited in {} since", deleted_in.name(), deleted_in.other().name())
                    }
                    false => format!("deleted in {}", deleted_in.name()),
                };
                let review = Review {
                    id,
                    salesforce_id: Some(link.salesforce_id.clone()),
                    deleted_in: Some(deleted_in),
                    ..self.review_of(Side::Hubspot, &link.hubspot_id, ReviewKind::Delete, why)
                };
                self.open_review(review).await?;
            }
        }
        if self.planner.is_none() {
            link.status = gone;
            self.keep(&mut link, &before).await?;
            self.forget_both(&link, candidate).await?;
        }
        Ok(RowOutcome::Unchanged)
    }

    /// Notes a deletion for when all are known. `SYNC_DELETES` if they are too many: then none is carried over.
    fn delete_later(&mut self, link: &Link) -> Result<()> {
        let deletes = &mut self.progress.deletes;
        if !deletes.contains(&link.hubspot_id) {
            deletes.push(link.hubspot_id.clone());
        }
        let done = &self.progress.done.sync;
        let all = u64::try_from(deletes.len()).unwrap_or(u64::MAX) + done.hubspot.deleted + done.salesforce.deleted;
        if all <= self.sync.limits.deletes || mutate::on(Bug::BrakeIgnored) {
            return Ok(());
        }
        let message = format!(
            "the run would delete more than {} records; limits.deletes is {}; nothing was deleted",
            all - 1,
            self.sync.limits.deletes
        );
        Err(Error::invalid(codes::SYNC_DELETES, message))
    }

    /// Whether the record that is left was changed since the two were in step.
    fn was_edited(&self, link: &Link, record: Option<&HubspotRecord>, row: Option<&Row>) -> bool {
        let hubspot = record.map(|record| super::records::sight_hubspot(&self.mapping, record));
        let salesforce = row.map(|row| super::records::sight_salesforce(&self.mapping, row));
        link.fields.iter().any(|(key, state)| {
            let ours = hubspot.as_ref().and_then(|seen| seen.fields.get(key));
            let theirs = salesforce.as_ref().and_then(|seen| seen.fields.get(key));
            ours.is_some_and(|seen| seen.canon != state.hubspot)
                || theirs.is_some_and(|seen| seen.canon != state.salesforce)
        })
    }

    /// Deletes the record that is left.
    async fn delete_other(&mut self, mut link: Link, deleted_in: Side, candidate: &Candidate) -> Result<RowOutcome> {
        let on = deleted_in.other();
        if let Some(planner) = &mut self.planner {
            planner.writes(on).deleted += 1;
            planner.tell(&Planned {
                hubspot_id: Some(link.hubspot_id.clone()),
                salesforce_id: Some(link.salesforce_id.to_string()),
                side: on,
                operation: Operation::Delete,
                fields: Vec::new(),
                why: format!("deleted in {}", deleted_in.name()),
            });
            return Ok(RowOutcome::Unchanged);
        }
        let done = &self.progress.done.sync;
        let deleted = done.hubspot.deleted + done.salesforce.deleted;
        if deleted >= self.sync.limits.deletes && !mutate::on(Bug::BrakeIgnored) {
            let message = format!(
                "the run would delete more records than limits.deletes allows, {}; {deleted} were deleted before, nothing more",
                self.sync.limits.deletes
            );
            return Err(Error::invalid(codes::SYNC_DELETES, message));
        }
        let before = link.clone();
        link.intent = Some(Intent { deletes: Some(on), ..Intent::default() });
        if !self.keep(&mut link, &before).await? {
            self.put_off(Side::Hubspot, &link.hubspot_id).await?;
            return Ok(RowOutcome::Deferred);
        }
        self.still_ours()?;
        let deadline = self.calls_until();
        let deleted = match on {
            Side::Hubspot => {
                let write = Write { kind: WriteKind::Archive, object: &self.resource.object, id_property: None };
                let input = Input { key: link.hubspot_id.clone(), properties: Vec::new() };
                let mut verdicts = [None];
                self.account.write(write, std::slice::from_ref(&input), &mut verdicts, None, deadline).await?;
                match verdicts.into_iter().next().flatten() {
                    Some(verdict::Verdict::Written { .. }) => Ok(()),
                    Some(verdict::Verdict::Refused(reason)) if *reason.code == *codes::KEY_NOT_FOUND.as_str() => Ok(()),
                    Some(verdict::Verdict::Refused(reason)) => Err(Some((reason.code.to_string(), reason.reason))),
                    _ => Err(None),
                }
            }
            Side::Salesforce => {
                match self.org.delete(&self.mapping.salesforce_object, &link.salesforce_id, deadline).await? {
                    Verdict::Written { .. } | Verdict::Gone => Ok(()),
                    Verdict::Refused(refusal) | Verdict::Forbidden(refusal) => Err(Some((refusal.code, refusal.text))),
                    _ => Err(None),
                }
            }
        };
        match deleted {
            Ok(()) => {
                match on {
                    Side::Hubspot => self.progress.done.sync.hubspot.deleted += 1,
                    Side::Salesforce => self.progress.done.sync.salesforce.deleted += 1,
                }
                let before = link.clone();
                self.both_are_gone(link, &before, candidate).await?;
                Ok(RowOutcome::Updated)
            }
            Err(Some((code, reason))) => {
                let ids = (Some(link.hubspot_id.clone()), Some(link.salesforce_id.clone()));
                let mut refused = self.refused(ids, on, 1);
                (refused.code, refused.reason) = (code, reason);
                self.refuse(refused).await?;
                Ok(RowOutcome::Rejected)
            }
            Err(None) => {
                self.put_off(Side::Hubspot, &link.hubspot_id).await?;
                Ok(RowOutcome::Deferred)
            }
        }
    }

    /// The pair is remembered with its shadows: should both be brought back, they go on from there.
    async fn both_are_gone(&mut self, mut link: Link, before: &Link, candidate: &Candidate) -> Result<()> {
        if self.planner.is_some() {
            return Ok(());
        }
        let mut reviews = vec![self.delete_review_id(&link), self.merge_review_id(&link)];
        for state in link.fields.values_mut() {
            reviews.extend(state.frozen.take());
        }
        for id in reviews {
            self.close_review(&id).await?;
        }
        self.refusals.remove(Some(&link.hubspot_id), Some(&link.salesforce_id)).await?;
        (link.status, link.intent) = (Status::Gone, None);
        if !self.keep(&mut link, before).await? {
            return self.put_off(Side::Hubspot, &link.hubspot_id).await;
        }
        self.forget_both(&link, candidate).await
    }

    /// Stores one link; whether nobody else has.
    async fn keep(&self, link: &mut Link, before: &Link) -> Result<bool> {
        if link == before {
            return Ok(true);
        }
        Ok(self.links.store(std::slice::from_mut(link)).await?.into_iter().all(|stored| stored))
    }

    async fn drop_link(&mut self, link: &Link, candidate: &Candidate) -> Result<()> {
        if self.planner.is_some() {
            return Ok(());
        }
        let frozen: Vec<String> = link.fields.values().filter_map(|state| state.frozen.clone()).collect();
        for id in frozen.into_iter().chain([self.delete_review_id(link), self.merge_review_id(link)]) {
            self.close_review(&id).await?;
        }
        self.refusals.remove(Some(&link.hubspot_id), Some(&link.salesforce_id)).await?;
        self.links.remove(link).await?;
        self.forget_both(link, candidate).await
    }

    async fn forget_both(&mut self, link: &Link, candidate: &Candidate) -> Result<()> {
        let of = |id: String| Candidate { id, todo: candidate.todo, ..Candidate::default() };
        if candidate.todo && candidate.id == link.hubspot_id {
            self.forget(Side::Hubspot, &of(link.hubspot_id.clone())).await
        } else if candidate.todo {
            self.forget(Side::Salesforce, &of(link.salesforce_id.to_string())).await
        } else {
            Ok(())
        }
    }

    /// The link of a record of `side` that has none, and that a process made before it died: who it was made of goes before whoever was
    /// merged into it since.
    async fn link_of_made(&mut self, side: Side, id: &str, record: Source, merged: &Link) -> Result<Option<Link>> {
        let own = if side == Side::Hubspot { merged.salesforce_id.as_str() } else { &merged.hubspot_id };
        let Some(candidate) = self.made_of(side, &record).await?.filter(|one| one.id != own) else { return Ok(None) };
        // What became of the source is found in its own place.
        let lives = match side {
            Side::Salesforce => {
                let found = self.read_hubspot(BTreeSet::from([candidate.id.clone()])).await?;
                found.values().any(|record| record.id == candidate.id)
            }
            Side::Hubspot => match SalesforceId::parse(&candidate.id) {
                Ok(id) => self.read_salesforce(BTreeSet::from([id.clone()])).await?.contains_key(&id),
                Err(_) => false,
            },
        };
        if !lives {
            return Ok(None);
        }
        let made = BTreeMap::from([(candidate.id.clone(), id.to_owned())]);
        let linked = self.link_made(side.other(), vec![candidate], &made).await?;
        let Some((candidate, link)) = linked.into_iter().next() else { return Ok(None) };
        self.just_linked.extend([candidate.id, id.to_owned()]);
        Ok(Some(link))
    }

    /// HubSpot's record was merged into another. `true`: the link follows; `false`: the other one has a link of its own.
    pub(super) async fn follow_hubspot_merge(&mut self, link: &mut Link, survivor: &HubspotRecord) -> Result<bool> {
        let mut theirs = self.links.by_hubspot(std::slice::from_ref(&survivor.id)).await?.into_values().next();
        if theirs.is_none() && self.planner.is_none() {
            theirs = self.link_of_made(Side::Hubspot, &survivor.id, Source::Hubspot(survivor.clone()), link).await?;
        }
        match theirs {
            Some(other) => self.merged_into(link, other, Side::Hubspot).await.map(|()| false),
            None if self.planner.is_some() => {
                link.hubspot_id.clone_from(&survivor.id);
                Ok(true)
            }
            None => self.follow(link, Some(survivor.id.clone()), None).await,
        }
    }

    /// Salesforce's record was merged into another.
    pub(super) async fn follow_salesforce_merge(&mut self, link: &mut Link, winner: &SalesforceId) -> Result<bool> {
        let mut theirs = self.links.by_salesforce(std::slice::from_ref(winner)).await?.into_values().next();
        if theirs.is_none()
            && self.planner.is_none()
            && let Some(row) = self.read_salesforce(BTreeSet::from([winner.clone()])).await?.remove(winner)
        {
            theirs = self.link_of_made(Side::Salesforce, winner.as_str(), Source::Salesforce(row), link).await?;
        }
        match theirs {
            Some(other) => self.merged_into(link, other, Side::Salesforce).await.map(|()| false),
            None if self.planner.is_some() => {
                link.salesforce_id = winner.clone();
                Ok(true)
            }
            None => self.follow(link, None, Some(winner.clone())).await,
        }
    }

    async fn follow(
        &mut self,
        link: &mut Link,
        hubspot: Option<String>,
        salesforce: Option<SalesforceId>,
    ) -> Result<bool> {
        let old = link.clone();
        self.just_linked.extend(hubspot.clone());
        self.just_linked.extend(salesforce.as_ref().map(ToString::to_string));
        if self.links.move_to(link, hubspot, salesforce).await? {
            for id in [self.delete_review_id(&old), self.merge_review_id(&old)] {
                self.close_review(&id).await?;
            }
            return Ok(true);
        }
        self.put_off(Side::Hubspot, &old.hubspot_id).await?;
        Ok(false)
    }

    /// Fields that wait go on waiting under the ids that the pair has now: one of its records may have been merged into another.
    pub(super) async fn rename_reviews(&mut self, link: &mut Link) -> Result<()> {
        let (hubspot, salesforce) = (link.hubspot_id.clone(), link.salesforce_id.clone());
        for (key, state) in &mut link.fields {
            let Some(id) = state.frozen.clone() else { continue };
            let now = |kind| self.field_review_id(kind, &hubspot, &salesforce, key);
            if [ReviewKind::Conflict, ReviewKind::Flip, ReviewKind::Taken].into_iter().any(|kind| now(kind) == id) {
                continue;
            }
            let kind = self.open.get(&id).map_or(ReviewKind::Conflict, |review| review.kind);
            let new = now(kind);
            if let Some(mut review) = self.open.get(&id).cloned() {
                review.id.clone_from(&new);
                review.hubspot_id = Some(hubspot.clone());
                review.salesforce_id = Some(salesforce.clone());
                (review.version, review.choice) = (0, None);
                self.open.entry(new.clone()).or_insert(review);
            }
            state.frozen = Some(new);
            self.close_review(&id).await?;
        }
        Ok(())
    }

    /// The record of `side` was merged into that of another pair: merged on the other side too, or a person has to.
    async fn merged_into(&mut self, link: &mut Link, other: Link, side: Side) -> Result<()> {
        let is_gone_too = match side {
            // The same happened in Salesforce, or the record was deleted there.
            Side::Hubspot => {
                let own = BTreeSet::from([link.salesforce_id.clone()]);
                self.read_salesforce(own).await?.is_empty()
            }
            Side::Salesforce => {
                let own = BTreeSet::from([link.hubspot_id.clone()]);
                self.read_hubspot(own).await?.values().all(|record| record.id != link.hubspot_id)
            }
        };
        if self.planner.is_some() && is_gone_too {
            return Ok(());
        }
        if is_gone_too {
            return self.drop_link(link, &Candidate::default()).await;
        }
        let before = link.clone();
        let (stays, merged) = match side {
            Side::Hubspot => (link.salesforce_id.to_string(), other.salesforce_id.to_string()),
            Side::Salesforce => (link.hubspot_id.clone(), other.hubspot_id.clone()),
        };
        let why = format!(
            "merged in {}; in {} there are still two records, {stays} and {merged}: merge them there",
            side.name(),
            side.other().name()
        );
        let review = Review {
            id: self.merge_review_id(link),
            salesforce_id: Some(link.salesforce_id.clone()),
            candidates: vec![merged],
            candidates_of: Some(side.other()),
            ..self.review_of(Side::Hubspot, &link.hubspot_id, ReviewKind::Merge, why)
        };
        let choice = self.open.get(&review.id).and_then(|review| review.choice.clone());
        if choice.is_some() && self.planner.is_none() {
            // Left as it is, for good.
            link.status = Status::Ignored;
            let id = review.id.clone();
            if !self.keep(link, &before).await? {
                return Err(Error::new(
                    ErrorKind::Unavailable { retry_after: None },
                    codes::STATE_UNAVAILABLE,
                    "a link was changed by another invocation",
                ));
            }
            return self.close_review(&id).await;
        }
        self.open_review(review).await?;
        let deletion = self.delete_review_id(link);
        self.close_review(&deletion).await?;
        if self.planner.is_none() && link.status != Status::Merged {
            link.status = Status::Merged;
            self.keep(link, &before).await?;
        }
        Ok(())
    }
}
