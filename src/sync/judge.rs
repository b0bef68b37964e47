//! What is to be written of a chunk's pairs: intents of a dead process settled, fields merged, dates asked for where they decide, and all of
//! it held against the run's limits, or told by a plan.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    decide::{self, Dates, Decision, Sighted},
    fields::Mapping,
    identity::hubspot_id_of,
    model::{Canon, Intent, Link, ReviewKind, Side},
    pair::{Creation, Source, Work},
    plan::{Operation, Planned, PlannedField},
    records::{sight_hubspot, sight_salesforce},
    run::Job,
    values::Seen,
};
use crate::{
    error::{Error, Result},
    hubspot::records::Wanted,
    mutate::{self, Bug},
    salesforce::model::SalesforceId,
};

impl Job {
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
    pub(super) fn stay_within_limits(&self, works: &[Work], creations: &[Creation]) -> Result<()> {
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

    pub(super) fn plan_works(&mut self, works: &[Work], creations: &[Creation]) {
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
