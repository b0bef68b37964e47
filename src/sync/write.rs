//! What is written: records created on the other side, pairs brought in step and read back, primary companies.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{
    chunk::{Creation, ROUNDS_MAX, Source, Work, adopt_sent, blank_link},
    decide::{self, Sighted},
    identity::{CALLS_AT_ONCE, hubspot_id_of},
    model::{Canon, FieldState, Refused, ReviewKind, Side, Status, Todo, TodoWhy, hash_of},
    records::{HubspotRecord, last_modified, sight_hubspot, sight_salesforce},
    run::Job,
};
use crate::{
    codes,
    error::Result,
    hubspot::{
        associations::{AssociationType, PairVerdict},
        batch::{BATCH_INPUTS_MAX, Write as HubspotWrite, WriteKind},
        verdict::Verdict as HubspotVerdict,
    },
    mutate::{self, Bug},
    record::{Input, ObjectType, PropertyName, Reason},
    report::RowOutcome,
    salesforce::{
        model::{Row, SalesforceId, Values},
        write::{Record, Refusal, Verdict, Write},
    },
};

/// A pair's cross-id stands for a place of its own among the fields that are written.
const STAMP: usize = usize::MAX;

/// A new record before it is sent.
pub(super) struct Draft<V> {
    values: V,
    /// Canonical values as they will be held, by field key.
    sent: BTreeMap<String, Canon>,
    inputs: u64,
    /// Values that cannot be written; the record goes without them.
    faults: Vec<Refused>,
    /// What Salesforce wants and is not there.
    pub(super) missing: Vec<String>,
}

/// What is noted of a record that is being created: what it is sent with, and what was blank. Should somebody fill that in before the two are
/// linked, it is an edit, and not a value that the other side would not take.
pub(super) fn noted(sent: &BTreeMap<String, Canon>, sighted: &Sighted) -> BTreeMap<String, Canon> {
    let blank = sighted.fields.iter().filter(|(_, seen)| seen.canon.is_none());
    let mut noted: BTreeMap<String, Canon> = blank.map(|(key, _)| (key.clone(), None)).collect();
    noted.extend(sent.iter().map(|(key, value)| (key.clone(), value.clone())));
    noted
}

/// What a record is created with.
struct Made {
    creation: Creation,
    id: String,
    sighted: Sighted,
    /// Canonical values as the other side will hold them, by field key.
    sent: BTreeMap<String, Canon>,
    inputs: u64,
}

impl Made {
    fn hubspot(&self) -> Option<&HubspotRecord> {
        match &self.creation.source {
            Source::Hubspot(record) => Some(record),
            Source::Salesforce(_) => None,
        }
    }

    fn row(&self) -> Option<&Row> {
        match &self.creation.source {
            Source::Salesforce(row) => Some(row),
            Source::Hubspot(_) => None,
        }
    }
}

impl Job {
    /// Makes links for those that were found to belong together, and creates the records that are on one side only.
    pub(super) async fn create_all(&mut self, creations: Vec<Creation>, works: &mut Vec<Work>) -> Result<()> {
        self.make_links(works).await?;
        if self.wants_bulk(works, &creations) {
            return Box::pin(self.begin_bulk(creations, works)).await;
        }
        let old = works.len();
        let (salesforce, hubspot): (Vec<Creation>, Vec<Creation>) =
            creations.into_iter().partition(|creation| creation.on == Side::Salesforce);
        Box::pin(self.create_in_salesforce(salesforce, works)).await?;
        Box::pin(self.create_in_hubspot(hubspot, works)).await?;
        self.begin_pairs(works, old).await
    }

    /// The part of a chunk that goes by no job.
    pub(super) async fn create_all_in_hubspot(
        &mut self,
        creations: Vec<Creation>,
        works: &mut Vec<Work>,
    ) -> Result<()> {
        let old = works.len();
        Box::pin(self.create_in_hubspot(creations, works)).await?;
        self.begin_pairs(works, old).await?;
        Box::pin(self.write_rounds(works)).await
    }

    async fn begin_pairs(&mut self, works: &mut [Work], old: usize) -> Result<()> {
        let Some(new) = works.get_mut(old..).filter(|new| !new.is_empty()) else { return Ok(()) };
        self.make_links(new).await?;
        self.decide_all(new, true).await
    }

    /// The values of a new record in Salesforce.
    pub(super) fn draft_for_salesforce(&self, record: &HubspotRecord) -> Draft<Values> {
        let mapping = &self.mapping;
        let sighted = sight_hubspot(mapping, record);
        let (mut values, mut sent) = (Values::new(), BTreeMap::new());
        let mut faults: Vec<Refused> = Vec::new();
        let mut missing: Vec<String> = mapping.required.clone();
        for pair in mapping.pairs.iter().filter(|pair| pair.createable_in_salesforce) {
            let Some(seen) = sighted.fields.get(&pair.key) else { continue };
            match pair.to_salesforce(seen) {
                Ok((Value::Null, _)) if pair.required_in_salesforce => missing.push(pair.salesforce.clone()),
                Ok((Value::Null, _)) => {}
                Ok((value, canon)) => {
                    values.insert(pair.salesforce.clone(), value);
                    sent.insert(pair.key.clone(), canon);
                }
                Err(_) if seen.canon.is_none() && pair.required_in_salesforce => missing.push(pair.salesforce.clone()),
                Err(_) if seen.canon.is_none() => {}
                Err(fault) => {
                    let inputs = hash_of([seen.raw.as_str()]);
                    let mut refused = self.refused((Some(record.id.clone()), None), Side::Salesforce, inputs);
                    refused.field = Some(pair.salesforce.clone());
                    (refused.code, refused.reason, refused.hint) = (fault.code.to_string(), fault.reason, fault.hint);
                    if pair.required_in_salesforce {
                        missing.push(pair.salesforce.clone());
                    }
                    faults.push(refused);
                }
            }
        }
        let parts = values.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let inputs = hash_of(parts.iter().map(String::as_str));
        values.insert(mapping.salesforce_link.clone(), Value::String(record.id.clone()));
        Draft { values, sent, inputs, faults, missing }
    }

    /// The properties of a new record in HubSpot.
    fn draft_for_hubspot(&self, row: &Row, id: &SalesforceId) -> Draft<Vec<(PropertyName, String)>> {
        let mapping = &self.mapping;
        let sighted = sight_salesforce(mapping, row);
        let (mut values, mut sent) = (vec![(mapping.hubspot_link.as_str().into(), id.to_string())], BTreeMap::new());
        let mut faults = Vec::new();
        for pair in mapping.pairs.iter().filter(|pair| pair.writable_in_hubspot) {
            let Some(seen) = sighted.fields.get(&pair.key).filter(|seen| seen.canon.is_some()) else { continue };
            match pair.to_hubspot(seen) {
                Ok((value, canon)) => {
                    values.push((pair.hubspot.clone(), value));
                    sent.insert(pair.key.clone(), canon);
                }
                Err(fault) => {
                    let inputs = hash_of([seen.raw.as_str()]);
                    let mut refused = self.refused((None, Some(id.clone())), Side::Hubspot, inputs);
                    refused.field = Some(pair.hubspot.to_string());
                    (refused.code, refused.reason, refused.hint) = (fault.code.to_string(), fault.reason, fault.hint);
                    faults.push(refused);
                }
            }
        }
        let inputs = hash_of(values.iter().flat_map(|(name, value)| [&**name, value.as_str()]));
        Draft { values, sent, inputs, faults, missing: Vec::new() }
    }

    /// Whether the other side took this record for one that it has, and would again: nothing of it has changed, and those are still there.
    pub(super) async fn is_refused_duplicate(&self, side: Side, id: &str, source: &Source) -> Result<bool> {
        let review = self.review_of(side, id, ReviewKind::Duplicate, String::new()).id;
        let Some(review) = self.open.get(&review).filter(|review| review.candidates_of == Some(side.other())) else {
            return Ok(false);
        };
        let (key, inputs) = match source {
            Source::Hubspot(record) => {
                ((Some(record.id.clone()), None, None), self.draft_for_salesforce(record).inputs)
            }
            Source::Salesforce(row) => {
                let Some(id) = row.id() else { return Ok(false) };
                let inputs = self.draft_for_hubspot(row, &id).inputs;
                ((None, Some(id), None), inputs)
            }
        };
        if self.refused_before.get(&key) != Some(&inputs) {
            return Ok(false);
        }
        let there = match side {
            Side::Hubspot => {
                let ids = review.candidates.iter().filter_map(|id| SalesforceId::parse(id).ok()).collect();
                self.read_salesforce(ids).await?.len()
            }
            Side::Salesforce => self.read_hubspot(review.candidates.iter().cloned().collect()).await?.len(),
        };
        Ok(there >= review.candidates.len())
    }

    /// Remembers what the other side took for a record that it has, without telling it as a refusal: it is a review.
    async fn remember_duplicate(&mut self, side: Side, id: &str, inputs: u64) -> Result<()> {
        let ids = match side {
            Side::Hubspot => (Some(id.to_owned()), None),
            Side::Salesforce => (None, SalesforceId::parse(id).ok()),
        };
        let mut refused = self.refused(ids.clone(), side.other(), inputs);
        refused.code = "DUPLICATES_DETECTED".to_owned();
        "it is taken for a record that is there already".clone_into(&mut refused.reason);
        "Look at its review.".clone_into(&mut refused.hint);
        // It is in no rejects file.
        refused.piece = 0;
        self.refusals.put(&refused).await?;
        self.refused_before.insert((ids.0, ids.1, None), inputs);
        Ok(())
    }

    /// The values of a new record in Salesforce. `None`: it cannot be created so, which was told.
    pub(super) async fn values_for_salesforce(
        &mut self,
        record: &HubspotRecord,
    ) -> Result<Option<(Values, BTreeMap<String, Canon>, u64)>> {
        let Draft { values, sent, inputs, faults, missing } = self.draft_for_salesforce(record);
        for refused in faults {
            self.refuse(refused).await?;
        }
        if !missing.is_empty() {
            let mut refused = self.refused((Some(record.id.clone()), None), Side::Salesforce, inputs);
            let code = codes::REQUIRED_FIELD_MISSING;
            (refused.code, refused.hint) = (code.as_str().to_owned(), code.hint().to_owned());
            refused.reason = format!("Salesforce wants {} and HubSpot has no value for it", missing.join(", "));
            self.refuse(refused).await?;
            return Ok(None);
        }
        let was_refused = self.refused_before.get(&(Some(record.id.clone()), None, None)) == Some(&inputs)
            && !self.was_duplicate(Side::Hubspot, &record.id);
        Ok((!was_refused).then_some((values, sent, inputs)))
    }

    fn was_duplicate(&self, side: Side, id: &str) -> bool {
        self.open.contains_key(&self.review_of(side, id, ReviewKind::Duplicate, String::new()).id)
    }

    async fn create_in_salesforce(&mut self, creations: Vec<Creation>, works: &mut Vec<Work>) -> Result<()> {
        let (mut made, mut records) = (Vec::new(), Vec::new());
        for creation in creations {
            let Source::Hubspot(record) = &creation.source else { continue };
            let record = record.clone();
            match self.values_for_salesforce(&record).await? {
                Some((values, sent, inputs)) => {
                    let sighted = sight_hubspot(&self.mapping, &record);
                    records.push(Record { id: None, values });
                    made.push(Made { creation, id: record.id, sighted, sent, inputs });
                }
                None => {
                    self.forget(Side::Hubspot, &creation.candidate).await?;
                    self.progress.done.rows.add(RowOutcome::Rejected);
                }
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        self.note_creations(Side::Hubspot, &made).await?;
        self.still_ours()?;
        let mapping = self.mapping.clone();
        let mut verdicts: Vec<Option<Verdict>> = vec![None; records.len()];
        let write = Write::Upsert { key: &mapping.salesforce_link };
        self.org.write(&mapping.salesforce_object, write, &records, &mut verdicts, self.calls_until()).await?;
        let mut written = Vec::new();
        for (one, verdict) in made.into_iter().zip(verdicts) {
            match verdict.unwrap_or(Verdict::Unknown) {
                Verdict::Written { id, .. } => written.push((one, id)),
                Verdict::Duplicates { matches, refusal, .. } => {
                    let ids = matches.into_iter().map(|one| one.id).collect();
                    self.found_duplicates(one, ids, &refusal, works).await?;
                }
                Verdict::Taken { by, refusal } => {
                    self.found_duplicates(one, by.into_iter().collect(), &refusal, works).await?;
                }
                Verdict::Ambiguous(refusal) => self.found_duplicates(one, Vec::new(), &refusal, works).await?,
                Verdict::Refused(refusal) | Verdict::Forbidden(refusal) => {
                    let ids = (Some(one.id.clone()), None);
                    self.refuse_creation(ids, Side::Salesforce, one, refusal.code, refusal.text).await?;
                }
                Verdict::Later(_) | Verdict::Unknown | Verdict::LostRace | Verdict::Gone => {
                    // It stands among what is being created.
                    self.progress.done.rows.add(RowOutcome::Deferred);
                }
            }
        }
        let ids: BTreeSet<SalesforceId> = written.iter().map(|(_, id)| id.clone()).collect();
        let rows = self.read_salesforce(ids).await?;
        for (one, id) in written {
            let record = one.hubspot().cloned().unwrap_or_default();
            self.progress.done.sync.salesforce.created += 1;
            match rows.get(&id) {
                Some(row) => self.created(one, &record, row, id, works),
                None => self.progress.done.rows.add(RowOutcome::Deferred),
            }
        }
        Ok(())
    }

    async fn create_in_hubspot(&mut self, creations: Vec<Creation>, works: &mut Vec<Work>) -> Result<()> {
        let mapping = self.mapping.clone();
        let (mut made, mut inputs) = (Vec::new(), Vec::new());
        for creation in creations {
            let Some((id, row)) = (match &creation.source {
                Source::Salesforce(row) => row.id().map(|id| (id.to_string(), row.clone())),
                Source::Hubspot(_) => None,
            }) else {
                continue;
            };
            let Ok(salesforce_id) = SalesforceId::parse(&id) else { continue };
            let sighted = sight_salesforce(&mapping, &row);
            let Draft { values: properties, sent, inputs: hash, faults, .. } =
                self.draft_for_hubspot(&row, &salesforce_id);
            for refused in faults {
                self.refuse(refused).await?;
            }
            if self.refused_before.get(&(None, Some(salesforce_id), None)) == Some(&hash)
                && !self.was_duplicate(Side::Salesforce, &id)
            {
                self.forget(Side::Salesforce, &creation.candidate).await?;
                self.progress.done.rows.add(RowOutcome::Unchanged);
                continue;
            }
            inputs.push(Input { key: id.clone(), properties });
            made.push(Made { creation, id, sighted, sent, inputs: hash });
        }
        if inputs.is_empty() {
            return Ok(());
        }
        self.note_creations(Side::Salesforce, &made).await?;
        self.still_ours()?;
        let write = HubspotWrite {
            kind: WriteKind::Upsert,
            object: &self.resource.object,
            id_property: Some(&mapping.hubspot_link),
        };
        let verdicts = self.write_lots(write, &inputs).await?;
        let mut written = Vec::new();
        for (one, verdict) in made.into_iter().zip(verdicts) {
            match verdict {
                Some(HubspotVerdict::Written { id, .. }) if !id.is_empty() => written.push((one, id)),
                Some(HubspotVerdict::Refused(reason)) if is_taken(&reason) => {
                    let why = "HubSpot has another record with a value that only one may have".to_owned();
                    let mut review = self.review_of(Side::Salesforce, &one.id, ReviewKind::Duplicate, why);
                    review.candidates = existing_id(&reason).into_iter().collect();
                    review.candidates_of = Some(Side::Hubspot);
                    self.open_review(review).await?;
                    self.remember_duplicate(Side::Salesforce, &one.id, one.inputs).await?;
                    self.created_done(Side::Salesforce, &one.id).await?;
                    self.progress.done.rows.add(RowOutcome::Unchanged);
                }
                Some(HubspotVerdict::Refused(reason)) => {
                    let ids = (None, SalesforceId::parse(&one.id).ok());
                    self.refuse_creation(ids, Side::Hubspot, one, reason.code.to_string(), reason.reason).await?;
                }
                Some(HubspotVerdict::Written { .. } | HubspotVerdict::Unknown) | None => {
                    self.progress.done.rows.add(RowOutcome::Deferred);
                }
            }
        }
        let records = self.read_hubspot(written.iter().map(|(_, id)| id.clone()).collect()).await?;
        for (one, id) in written {
            self.progress.done.sync.hubspot.created += 1;
            let row = one.row().cloned().unwrap_or_default();
            let salesforce_id = SalesforceId::parse(&one.id).ok();
            match (records.get(&id).cloned(), salesforce_id) {
                (Some(record), Some(salesforce_id)) => self.created(one, &record, &row, salesforce_id, works),
                _ => self.progress.done.rows.add(RowOutcome::Deferred),
            }
        }
        Ok(())
    }

    /// Stands among what is being created before it is: a process that dies knows what it has sent.
    async fn note_creations(&self, side: Side, made: &[Made]) -> Result<()> {
        let now = match side.other() {
            Side::Hubspot => self.account.server_time(),
            Side::Salesforce => self.org.server_time(),
        };
        let todos = made.iter().filter_map(|one| {
            let candidate = &one.creation.candidate;
            let noted = noted(&one.sent, &one.sighted);
            (candidate.creating.as_ref() != Some(&noted)).then(|| Todo {
                side,
                id: one.id.clone(),
                why: TodoWhy::Creating(noted),
                since: candidate.since.or(Some(now)),
            })
        });
        self.put_todos(todos.collect()).await
    }

    pub(super) async fn put_todos(&self, todos: Vec<Todo>) -> Result<()> {
        let store = self.todos.clone();
        stream::iter(todos)
            .map(|todo| {
                let store = store.clone();
                async move { store.put(&todo).await }
            })
            .buffer_unordered(super::links::WRITES_IN_FLIGHT)
            .try_collect::<Vec<()>>()
            .await
            .map(drop)
    }

    /// A record was created: the two become a pair, and are brought in step as any other.
    fn created(&self, one: Made, record: &HubspotRecord, row: &Row, id: SalesforceId, works: &mut Vec<Work>) {
        let mut link = blank_link(record.id.clone(), id);
        let source = one.creation.on.other();
        let seen = (sight_hubspot(&self.mapping, record), sight_salesforce(&self.mapping, row));
        adopt_sent(&mut link, &self.mapping, &one.sent, source, &seen.0, &seen.1);
        // What it was created from may hold more than the other side can.
        for (key, state) in &mut link.fields {
            let Some(seen) = one.sighted.fields.get(key) else { continue };
            match one.creation.on {
                Side::Salesforce => state.hubspot.clone_from(&seen.canon),
                Side::Hubspot => state.salesforce.clone_from(&seen.canon),
            }
        }
        let mut work = self.pair_of(link, None, record, row, &one.creation.candidate);
        work.todo = true;
        work.created = true;
        work.choice = None;
        works.push(work);
    }

    async fn created_done(&mut self, side: Side, id: &str) -> Result<()> {
        self.todos.remove(side, id).await
    }

    async fn refuse_creation(
        &mut self,
        ids: (Option<String>, Option<SalesforceId>),
        by: Side,
        one: Made,
        code: String,
        reason: String,
    ) -> Result<()> {
        let mut refused = self.refused(ids, by, one.inputs);
        refused.hint = codes::Code::named(&code).map_or(HINT, codes::Code::hint).to_owned();
        (refused.code, refused.reason) = (code, reason);
        self.refuse(refused).await?;
        self.created_done(by.other(), &one.id).await?;
        self.progress.done.rows.add(RowOutcome::Rejected);
        Ok(())
    }

    /// Salesforce takes a new record for one that it has: the same person if there is exactly one and its address is the same.
    async fn found_duplicates(
        &mut self,
        one: Made,
        ids: Vec<SalesforceId>,
        refusal: &Refusal,
        works: &mut Vec<Work>,
    ) -> Result<()> {
        let record = one.hubspot().cloned().unwrap_or_default();
        let rows = self.read_salesforce(ids.iter().cloned().collect()).await?;
        let pair = self.mapping.matched_by.and_then(|at| self.mapping.pairs.get(at));
        let is_same = |row: &Row| {
            let (Some(pair), Some(ours)) = (pair, pair.and_then(|pair| one.sighted.fields.get(&pair.key))) else {
                return false;
            };
            let theirs = row.get(&pair.salesforce).map(|value| pair.of_salesforce(value).canon);
            ours.canon.is_some() && theirs.as_ref() == Some(&ours.canon)
        };
        let names_another = |row: &Row| {
            row.text(&self.mapping.salesforce_link).and_then(hubspot_id_of).is_some_and(|id| id != record.id)
        };
        if let ([id], Some(row)) = (ids.as_slice(), rows.values().next())
            && is_same(row)
            && !names_another(row)
            && self.links.by_salesforce(std::slice::from_ref(id)).await?.is_empty()
        {
            let mut work =
                self.pair_of(blank_link(record.id.clone(), id.clone()), None, &record, row, &one.creation.candidate);
            work.todo = true;
            work.choice = None;
            works.push(work);
            return Ok(());
        }
        let why = format!("Salesforce takes it for a record that it has ({})", refusal.code);
        let mut review = self.review_of(Side::Hubspot, &one.id, ReviewKind::Duplicate, why);
        review.candidates = ids.iter().map(ToString::to_string).collect();
        review.candidates_of = Some(Side::Salesforce);
        self.open_review(review).await?;
        self.remember_duplicate(Side::Hubspot, &one.id, one.inputs).await?;
        self.created_done(Side::Hubspot, &one.id).await?;
        self.progress.done.rows.add(RowOutcome::Unchanged);
        Ok(())
    }

    /// Intent, write, read back, decide again with what was read back: until nothing is to be written.
    pub(super) async fn write_rounds(&mut self, works: &mut [Work]) -> Result<()> {
        if self.progress.bulk.is_some() {
            return Ok(());
        }
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                self.decide_all(works, false).await?;
            }
            self.take_notes(works).await?;
            if !works.iter().any(Work::writes) {
                return Ok(());
            }
            for work in works.iter_mut().filter(|work| work.writes()) {
                let mut intent =
                    decide::intent_of(&work.decision, &self.mapping.pairs, &work.hubspot, &work.salesforce);
                intent.one_by_one = work.isolate;
                work.link.intent = Some(intent);
            }
            if mutate::on(Bug::ShadowBeforeEffect) {
                works.iter_mut().for_each(Work::take_for_written);
            }
            self.store_intents(works).await?;
            self.still_ours()?;
            let mut landed = Landed::default();
            self.write_salesforce(works, &mut landed).await?;
            self.write_hubspot(works, &mut landed).await?;
            self.read_back(works, &landed).await?;
        }
        // Something rewrites what is written each time: the next run sees it as a change, and the fight is found.
        Ok(())
    }

    /// Fields that wait for a person, that were settled, and that cannot be written.
    async fn take_notes(&mut self, works: &mut [Work]) -> Result<()> {
        for work in works.iter_mut().filter(|work| work.is_active()) {
            for freeze in std::mem::take(&mut work.decision.freeze) {
                self.freeze(work, freeze.pair, freeze.kind, Vec::new());
            }
            for id in std::mem::take(&mut work.decision.settled) {
                self.close_review(&id).await?;
            }
            for one in std::mem::take(&mut work.decision.unwritable) {
                let Some(pair) = self.mapping.pairs.get(one.pair) else { continue };
                let ids = (Some(work.link.hubspot_id.clone()), Some(work.link.salesforce_id.clone()));
                let mut refused = self.refused(ids, one.side, one.value);
                refused.field = Some(match one.side {
                    Side::Hubspot => pair.hubspot.to_string(),
                    Side::Salesforce => pair.salesforce.clone(),
                });
                (refused.code, refused.reason) = (one.fault.code.to_string(), one.fault.reason);
                refused.hint = one.fault.hint;
                if self.refuse(refused).await? {
                    work.rejected = true;
                }
            }
        }
        Ok(())
    }

    async fn write_salesforce(&mut self, works: &mut [Work], landed: &mut Landed) -> Result<()> {
        let mapping = self.mapping.clone();
        let (mut places, mut records) = (Vec::new(), Vec::new());
        let mut strict = Vec::new();
        for (at, work) in works.iter().enumerate().filter(|(_, work)| work.writes_salesforce()) {
            let mut values = Values::new();
            for change in &work.decision.to_salesforce {
                if let Some(pair) = mapping.pairs.get(change.pair) {
                    values.insert(pair.salesforce.clone(), change.value.clone());
                }
            }
            if work.stamp_salesforce {
                values.insert(mapping.salesforce_link.clone(), Value::String(work.link.hubspot_id.clone()));
            }
            let is_strict = work
                .decision
                .to_salesforce
                .iter()
                .any(|change| mapping.pairs.get(change.pair).is_some_and(|pair| pair.strict));
            if is_strict {
                strict.push((at, work.link.salesforce_id.clone(), values, work.salesforce_changed));
            } else {
                places.push(at);
                records.push(Record { id: Some(work.link.salesforce_id.clone()), values });
            }
        }
        let mut verdicts: Vec<Option<Verdict>> = vec![None; records.len()];
        let object = &mapping.salesforce_object;
        self.org.write(object, Write::Update, &records, &mut verdicts, self.calls_until()).await?;
        let mut all: Vec<(usize, Verdict)> =
            places.into_iter().zip(verdicts).map(|(at, verdict)| (at, verdict.unwrap_or(Verdict::Unknown))).collect();
        for (at, id, values, since) in strict {
            all.push((at, self.org.update(object, &id, &values, since, self.calls_until()).await?));
        }
        for (at, verdict) in all {
            let Some(work) = works.get_mut(at) else { continue };
            match verdict {
                Verdict::Written { .. } => {
                    landed.salesforce.insert(at);
                }
                // Changed, or gone, since it was read: the next run looks at it. Nothing was written, so nothing can have been taken back.
                Verdict::LostRace | Verdict::Gone | Verdict::Later(_) => {
                    (work.deferred, work.settled) = (true, true);
                    work.forget_intent(Side::Salesforce);
                }
                Verdict::Unknown => (work.deferred, work.settled, work.unsure_salesforce) = (true, true, true),
                Verdict::Taken { by, refusal } => {
                    let named = self.named_pairs(&refusal, work);
                    if named.is_empty() {
                        self.refuse_side(work, Side::Salesforce, refusal.code, refusal.text).await?;
                    }
                    for pair in named {
                        let candidates = by.iter().map(ToString::to_string).collect();
                        self.freeze_taken(work, pair, Side::Salesforce, candidates).await?;
                    }
                }
                Verdict::Duplicates { refusal, .. } | Verdict::Ambiguous(refusal) => {
                    self.refuse_side(work, Side::Salesforce, refusal.code, refusal.text).await?;
                }
                Verdict::Refused(refusal) | Verdict::Forbidden(refusal) => {
                    let named = self.named_pairs(&refusal, work);
                    // Named, and not all that was sent: the others can go without.
                    let others = work.decision.to_salesforce.len() > named.len() || work.stamp_salesforce;
                    if named.is_empty() || (!others && named.len() != 1) {
                        self.refuse_side(work, Side::Salesforce, refusal.code, refusal.text).await?;
                    } else {
                        for pair in named {
                            let (code, text) = (refusal.code.clone(), refusal.text.clone());
                            self.refuse_field(work, pair, Side::Salesforce, code, text).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn named_pairs(&self, refusal: &Refusal, work: &Work) -> Vec<usize> {
        let is_named = |pair: usize| {
            let name = self.mapping.pairs.get(pair).map(|pair| pair.salesforce.as_str()).unwrap_or_default();
            refusal.fields.iter().any(|field| field.eq_ignore_ascii_case(name))
        };
        work.decision.to_salesforce.iter().map(|change| change.pair).filter(|pair| is_named(*pair)).collect()
    }

    async fn write_hubspot(&mut self, works: &mut [Work], landed: &mut Landed) -> Result<()> {
        let mapping = self.mapping.clone();
        let (mut places, mut inputs) = (Vec::new(), Vec::new());
        for (at, work) in works.iter().enumerate().filter(|(_, work)| work.writes_hubspot()) {
            let mut values: Vec<(usize, (crate::record::PropertyName, String))> = work
                .decision
                .to_hubspot
                .iter()
                .filter_map(|change| {
                    let pair = mapping.pairs.get(change.pair)?;
                    Some((change.pair, (pair.hubspot.clone(), change.value.clone())))
                })
                .collect();
            if work.stamp_hubspot {
                let own = mapping.hubspot_link.as_str().into();
                values.push((STAMP, (own, work.link.salesforce_id.to_string())));
            }
            let lots: Vec<Vec<(usize, _)>> =
                if work.isolate { values.into_iter().map(|one| vec![one]).collect() } else { vec![values] };
            for lot in lots {
                let (pairs, properties) = lot.into_iter().unzip();
                places.push((at, pairs));
                inputs.push(Input { key: work.link.hubspot_id.clone(), properties });
            }
        }
        if inputs.is_empty() {
            return Ok(());
        }
        let write = HubspotWrite { kind: WriteKind::Update, object: &self.resource.object, id_property: None };
        let verdicts = self.write_lots(write, &inputs).await?;
        for ((at, pairs), verdict) in places.into_iter().zip(verdicts) {
            let pairs: Vec<usize> = pairs;
            let Some(work) = works.get_mut(at) else { continue };
            match verdict {
                Some(HubspotVerdict::Written { .. }) => landed.hubspot.entry(at).or_default().extend(pairs),
                Some(HubspotVerdict::Refused(reason)) if *reason.code == *codes::KEY_NOT_FOUND.as_str() => {
                    (work.deferred, work.settled) = (true, true);
                    // One by one, some may stand there.
                    if !landed.hubspot.contains_key(&at) {
                        work.forget_intent(Side::Hubspot);
                    }
                }
                Some(HubspotVerdict::Refused(reason)) => {
                    let named = named_property(&reason);
                    let is_named = |pair: &&usize| {
                        let name = match **pair {
                            STAMP => Some(mapping.hubspot_link.as_str()),
                            pair => mapping.pairs.get(pair).map(|pair| &*pair.hubspot),
                        };
                        name.is_some() && name == named.as_deref()
                    };
                    let blamed = match pairs.as_slice() {
                        [one] => Some(*one),
                        several => several.iter().find(is_named).copied(),
                    };
                    match blamed {
                        Some(STAMP) => {
                            self.refuse_side(work, Side::Hubspot, reason.code.to_string(), reason.reason).await?;
                        }
                        Some(pair) if is_taken(&reason) => {
                            let candidates = existing_id(&reason).into_iter().collect();
                            self.freeze_taken(work, pair, Side::Hubspot, candidates).await?;
                        }
                        Some(pair) => {
                            self.refuse_field(work, pair, Side::Hubspot, reason.code.to_string(), reason.reason)
                                .await?;
                        }
                        // It does not say which: one by one, in the next round.
                        None if !work.isolate => work.isolate = true,
                        None => {
                            self.refuse_side(work, Side::Hubspot, reason.code.to_string(), reason.reason).await?;
                        }
                    }
                }
                Some(HubspotVerdict::Unknown) | None => {
                    (work.deferred, work.settled, work.unsure_hubspot) = (true, true, true);
                }
            }
        }
        Ok(())
    }

    /// Writes to HubSpot in calls of 100, several at once; inputs of one record follow each other and are in one lot.
    async fn write_lots(&self, write: HubspotWrite<'_>, inputs: &[Input]) -> Result<Vec<Option<HubspotVerdict>>> {
        let deadline = self.calls_until();
        let mut lots: Vec<&[Input]> = Vec::new();
        let mut rest = inputs;
        while !rest.is_empty() {
            let mut end = rest.len().min(BATCH_INPUTS_MAX);
            while end < rest.len() && rest.get(end).map(|one| &one.key) == rest.get(end - 1).map(|one| &one.key) {
                end += 1;
            }
            let (lot, more) = rest.split_at(end);
            lots.push(lot);
            rest = more;
        }
        let writes = lots.into_iter().map(|lot| async move {
            let mut verdicts = vec![None; lot.len()];
            self.account.write(write, lot, &mut verdicts, None, deadline).await?;
            Ok::<_, crate::Error>(verdicts)
        });
        let verdicts: Vec<Vec<Option<HubspotVerdict>>> =
            stream::iter(writes).buffered(CALLS_AT_ONCE).try_collect().await?;
        Ok(verdicts.into_iter().flatten().collect())
    }

    /// A value that another record has.
    async fn freeze_taken(&mut self, work: &mut Work, pair: usize, by: Side, candidates: Vec<String>) -> Result<()> {
        if self.choice_refused(work, Some(pair), by, "VALUE_TAKEN", "another record has the value").await? {
            return Ok(());
        }
        self.freeze(work, pair, ReviewKind::Taken, candidates);
        let key = self.mapping.pairs.get(pair).map(|pair| pair.key.clone()).unwrap_or_default();
        if let Some(review) = work.link.fields.get(&key).and_then(|state| state.frozen.as_ref())
            && let Some(review) = self.open.get_mut(review)
        {
            review.candidates_of = Some(by);
        }
        Ok(())
    }

    /// One field that a side will not take: the others go without it, and it is tried again when its value changes.
    async fn refuse_field(
        &mut self,
        work: &mut Work,
        pair: usize,
        by: Side,
        code: String,
        reason: String,
    ) -> Result<()> {
        if self.choice_refused(work, Some(pair), by, &code, &reason).await? {
            return Ok(());
        }
        let Some(pair) = self.mapping.pairs.get(pair).cloned() else { return Ok(()) };
        let value =
            work.link.fields.get(&pair.key).and_then(|state| state.writes.last()).map_or(0, |write| write.value);
        let state = work
            .link
            .fields
            .entry(pair.key.clone())
            .or_insert_with(|| FieldState { new: true, ..FieldState::default() });
        state.refused = Some((by, value));
        state.writes.pop();
        let ids = (Some(work.link.hubspot_id.clone()), Some(work.link.salesforce_id.clone()));
        let mut refused = self.refused(ids, by, value);
        refused.field = Some(if by == Side::Hubspot { pair.hubspot.to_string() } else { pair.salesforce.clone() });
        refused.hint = codes::Code::named(&code).map_or(HINT, codes::Code::hint).to_owned();
        (refused.code, refused.reason) = (code, reason);
        self.refuse(refused).await?;
        work.rejected = true;
        Ok(())
    }

    /// All that would be written on a side: it is tried again when something of it changes.
    async fn refuse_side(&mut self, work: &mut Work, by: Side, code: String, reason: String) -> Result<()> {
        if self.choice_refused(work, None, by, &code, &reason).await? {
            return Ok(());
        }
        let inputs = self.inputs_of(work, by);
        work.link.refused = Some((by, inputs));
        let ids = (Some(work.link.hubspot_id.clone()), Some(work.link.salesforce_id.clone()));
        let mut refused = self.refused(ids, by, inputs);
        refused.hint = codes::Code::named(&code).map_or(HINT, codes::Code::hint).to_owned();
        (refused.code, refused.reason) = (code, reason);
        self.refuse(refused).await?;
        work.rejected = true;
        Ok(())
    }

    /// Reads what was written, and makes it the shadow.
    async fn read_back(&mut self, works: &mut [Work], landed: &Landed) -> Result<()> {
        let mapping = self.mapping.clone();
        let touched: BTreeSet<usize> = landed.salesforce.iter().chain(landed.hubspot.keys()).copied().collect();
        let ids = touched.iter().filter_map(|at| works.get(*at)).map(|work| &work.link);
        let (hubspot, salesforce): (BTreeSet<String>, BTreeSet<SalesforceId>) =
            ids.map(|link| (link.hubspot_id.clone(), link.salesforce_id.clone())).unzip();
        let (hubspot, salesforce) =
            futures_util::future::try_join(self.read_hubspot(hubspot), self.read_salesforce(salesforce)).await?;
        for at in touched {
            let Some(work) = works.get_mut(at) else { continue };
            work.wrote = true;
            if mutate::on(Bug::ShadowNotWritten) {
                (work.settled, work.link.intent) = (true, None);
                continue;
            }
            let record = hubspot.get(&work.link.hubspot_id).filter(|record| record.id == work.link.hubspot_id);
            let (Some(record), Some(row)) = (record, salesforce.get(&work.link.salesforce_id)) else {
                // Gone since.
                (work.deferred, work.settled) = (true, true);
                continue;
            };
            let (ours, theirs) = (sight_hubspot(&mapping, record), sight_salesforce(&mapping, row));
            let canon = |sighted: &Sighted, key: &str| sighted.fields.get(key).map(|seen| seen.canon.clone());
            if landed.salesforce.contains(&at) {
                let writes = &mut self.progress.done.sync.salesforce;
                let counts = !work.counted_salesforce && !work.decision.to_salesforce.is_empty();
                writes.updated += u64::from(counts);
                work.counted_salesforce |= counts;
                for change in &work.decision.to_salesforce {
                    let Some(pair) = mapping.pairs.get(change.pair) else { continue };
                    writes.blanked += u64::from(change.blanks());
                    let stored = canon(&theirs, &pair.key).unwrap_or_else(|| change.canon.clone());
                    let other = canon(&work.hubspot, &pair.key).unwrap_or_else(|| change.canon.clone());
                    // Written on both sides, as a person has chosen: what the other one will hold is known too.
                    let both = work.decision.to_hubspot.iter().find(|one| one.pair == change.pair);
                    let other = both.map_or(other, |both| both.canon.clone());
                    let state = work.link.fields.entry(pair.key.clone()).or_default();
                    let is_second = stored != change.canon && !work.rewritten.insert((Side::Salesforce, change.pair));
                    decide::landed(state, pair.rule, Side::Salesforce, &change.canon, &stored, &other, is_second);
                }
            }
            if let Some(pairs) = landed.hubspot.get(&at) {
                let writes = &mut self.progress.done.sync.hubspot;
                let counts = !work.counted_hubspot && !work.decision.to_hubspot.is_empty();
                writes.updated += u64::from(counts);
                work.counted_hubspot |= counts;
                for change in work.decision.to_hubspot.iter().filter(|change| pairs.contains(&change.pair)) {
                    let Some(pair) = mapping.pairs.get(change.pair) else { continue };
                    writes.blanked += u64::from(change.blanks());
                    let stored = canon(&ours, &pair.key).unwrap_or_else(|| change.canon.clone());
                    let other = canon(&work.salesforce, &pair.key).unwrap_or_else(|| change.canon.clone());
                    let both = work.decision.to_salesforce.iter().find(|one| one.pair == change.pair);
                    let other = both.map_or(other, |both| both.canon.clone());
                    let state = work.link.fields.entry(pair.key.clone()).or_default();
                    let is_second = stored != change.canon && !work.rewritten.insert((Side::Hubspot, change.pair));
                    decide::landed(state, pair.rule, Side::Hubspot, &change.canon, &stored, &other, is_second);
                }
            }
            // What became of a side's write, nobody knows: whoever looks next finds out by the intent.
            let intent = work.link.intent.take();
            work.link.intent = intent.and_then(|intent| intent.still_open(work.unsure_hubspot, work.unsure_salesforce));
            work.hubspot_cross = record.text(&mapping.hubspot_link).map(str::to_owned);
            work.salesforce_cross = row.text(&mapping.salesforce_link).map(|text| text.trim().to_owned());
            work.account = row.get("AccountId").map(|id| id.as_str().and_then(|id| SalesforceId::parse(id).ok()));
            work.salesforce_changed = last_modified(row);
            (work.hubspot, work.salesforce) = (ours, theirs);
            work.choice = None;
        }
        Ok(())
    }

    /// The primary company of each contact is that of its account.
    pub(super) async fn associate(&mut self, works: &mut [Work]) -> Result<()> {
        let Some(accounts) = self.accounts.clone().filter(|_| self.mapping.has_account) else { return Ok(()) };
        if self.progress.bulk.is_some() {
            return Ok(());
        }
        let differs = |work: &Work| {
            let now = work.account.as_ref()?;
            let is_pair = !work.settled && !work.deferred && work.link.status == Status::Active;
            (is_pair && *now != work.link.account).then(|| now.clone())
        };
        let mut wanted: BTreeSet<SalesforceId> = BTreeSet::new();
        for work in works.iter() {
            if let Some(now) = differs(work) {
                wanted.extend(now.or_else(|| work.link.account.clone()));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let companies = accounts.by_salesforce(&wanted.into_iter().collect::<Vec<_>>()).await?;
        let companies: BTreeMap<SalesforceId, String> = companies
            .into_iter()
            .filter(|(_, link)| link.status == Status::Active)
            .map(|(id, link)| (id, link.hubspot_id))
            .collect();
        let (mut set, mut take_off) = (Vec::new(), Vec::new());
        for (at, work) in works.iter_mut().enumerate() {
            let Some(now) = differs(work) else { continue };
            let account = now.clone().or_else(|| work.link.account.clone());
            let company = account.as_ref().and_then(|account| companies.get(account)).cloned();
            match (now, company) {
                (Some(_), Some(company)) => set.push((at, (work.link.hubspot_id.clone(), company))),
                (None, Some(company)) => take_off.push((at, (work.link.hubspot_id.clone(), company))),
                (None, None) => work.link.account = None,
                (Some(account), None) => {
                    // Until its account has a company.
                    let why = TodoWhy::Account(account);
                    work.todo = false;
                    let id = work.link.hubspot_id.clone();
                    self.todos.put(&Todo { side: Side::Hubspot, id, why, since: None }).await?;
                }
            }
        }
        let (from, to) = (self.resource.object.clone(), ObjectType("companies".to_owned()));
        let deadline = self.calls_until();
        let primary = AssociationType {
            category: "HUBSPOT_DEFINED".to_owned(),
            type_id: PRIMARY_COMPANY,
            label: Some("Primary".to_owned()),
        };
        self.still_ours()?;
        let pairs: Vec<(String, String)> = set.iter().map(|(_, pair)| pair.clone()).collect();
        let made = self.account.associate(&from, &to, Some(&primary), &pairs, deadline).await?;
        let pairs: Vec<(String, String)> = take_off.iter().map(|(_, pair)| pair.clone()).collect();
        self.account.take_labels_off(&from, &to, &primary, &pairs, deadline).await?;
        for ((at, _), verdict) in set.into_iter().zip(made) {
            let Some(work) = works.get_mut(at) else { continue };
            match verdict {
                PairVerdict::Made => {
                    work.link.account = work.account.clone().flatten();
                    work.wrote = true;
                    self.progress.done.sync.associations += 1;
                }
                PairVerdict::Refused(reason) => {
                    let ids = (Some(work.link.hubspot_id.clone()), Some(work.link.salesforce_id.clone()));
                    let mut refused = self.refused(ids, Side::Hubspot, 1);
                    refused.field = Some("AccountId".to_owned());
                    (refused.code, refused.reason, refused.hint) =
                        (reason.code.to_string(), reason.reason, reason.hint);
                    self.refuse(refused).await?;
                }
                PairVerdict::Unknown => work.deferred = true,
            }
        }
        for (at, _) in take_off {
            let Some(work) = works.get_mut(at) else { continue };
            work.link.account = None;
            work.wrote = true;
            self.progress.done.sync.associations += 1;
        }
        Ok(())
    }
}

/// HubSpot's association type of a contact's primary company.
const PRIMARY_COMPANY: u64 = 1;

/// What to do about a refusal that is not ours.
const HINT: &str = "Correct the value, or the rule that refuses it; it is sent again when a value changes.";

/// What landed in a round: places of pairs in Salesforce; of those in HubSpot also which fields.
#[derive(Default)]
struct Landed {
    salesforce: BTreeSet<usize>,
    hubspot: BTreeMap<usize, Vec<usize>>,
}

/// Whether HubSpot says that another record has the value.
fn is_taken(reason: &Reason) -> bool {
    reason.code.contains("CONFLICT") || reason.code.contains("EXISTS") || reason.code.contains("DUPLICATE")
}

/// The property that a reason begins with.
fn named_property(reason: &Reason) -> Option<String> {
    let (name, _) = reason.reason.split_once(':')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    is_name.then(|| name.to_owned())
}

/// The record that HubSpot names as the one that has the value.
fn existing_id(reason: &Reason) -> Option<String> {
    let (_, rest) = reason.reason.split_once("Existing ID: ").or_else(|| reason.reason.split_once("existing ID: "))?;
    let id: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!id.is_empty()).then_some(id)
}
