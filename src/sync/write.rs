//! What is written: pairs brought in step and read back, primary companies.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::{
    decide::{self, Sighted},
    identity::CALLS_AT_ONCE,
    model::{FieldState, ReviewKind, Side, Status, Todo, TodoWhy},
    pair::Work,
    records::{last_modified, sight_hubspot, sight_salesforce},
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
    record::{Input, ObjectType, Reason},
    salesforce::{
        model::{SalesforceId, Values},
        write::{Record, Refusal, Verdict, Write},
    },
};

/// A pair's cross-id stands for a place of its own among the fields that are written.
const STAMP: usize = usize::MAX;

/// How often a pair is decided, written and read back: once, again for what automations made of it or a side refused, and once more.
const ROUNDS_MAX: usize = 4;

impl Job {
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
                    // Nor is anything sent to HubSpot of what is settled.
                    (work.deferred, work.settled) = (true, true);
                    work.link.intent = None;
                }
                Verdict::Unknown => {
                    (work.deferred, work.settled, work.unsure_salesforce) = (true, true, true);
                    // What is settled is not sent there any more.
                    work.forget_intent(Side::Hubspot);
                }
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
                    if !landed.hubspot.contains_key(&at) && !work.unsure_hubspot {
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
    pub(super) async fn write_lots(
        &self,
        write: HubspotWrite<'_>,
        inputs: &[Input],
    ) -> Result<Vec<Option<HubspotVerdict>>> {
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
pub(super) const HINT: &str = "Correct the value, or the rule that refuses it; it is sent again when a value changes.";

/// What landed in a round: places of pairs in Salesforce; of those in HubSpot also which fields.
#[derive(Default)]
struct Landed {
    salesforce: BTreeSet<usize>,
    hubspot: BTreeMap<usize, Vec<usize>>,
}

/// Whether HubSpot says that another record has the value.
pub(super) fn is_taken(reason: &Reason) -> bool {
    reason.code.contains("CONFLICT") || reason.code.contains("EXISTS") || reason.code.contains("DUPLICATE")
}

/// The property that a reason begins with.
fn named_property(reason: &Reason) -> Option<String> {
    let (name, _) = reason.reason.split_once(':')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    is_name.then(|| name.to_owned())
}

/// The record that HubSpot names as the one that has the value.
pub(super) fn existing_id(reason: &Reason) -> Option<String> {
    let (_, rest) = reason.reason.split_once("Existing ID: ").or_else(|| reason.reason.split_once("existing ID: "))?;
    let id: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!id.is_empty()).then_some(id)
}
