//! Records that are created on the other side: what they are sent with, the note that outlives a process that dies, and what became of them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{
    chunk::{adopt_sent, blank_link},
    decide::Sighted,
    identity::hubspot_id_of,
    model::{Canon, Refused, ReviewKind, Side, Todo, TodoWhy, hash_of},
    pair::{Creation, Source, Work},
    records::{HubspotRecord, sight_hubspot, sight_salesforce},
    run::Job,
    write::{HINT, existing_id, is_taken},
};
use crate::{
    codes,
    error::Result,
    hubspot::{
        batch::{Write as HubspotWrite, WriteKind},
        verdict::Verdict as HubspotVerdict,
    },
    record::{Input, PropertyName},
    report::RowOutcome,
    salesforce::{
        model::{Row, SalesforceId, Values},
        write::{Record, Refusal, Verdict, Write},
    },
};

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
}
