//! What becomes of records besides being written: reviews opened and closed, records put off, refusals remembered and listed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::json;

use super::{
    decide::Change,
    fields::Pair,
    identity::Match,
    model::{Canon, Choice, FieldState, Link, Refused, Review, ReviewField, ReviewKind, Side, Todo, TodoWhy, hash_of},
    pair::{Candidate, Source, Work},
    records::HubspotRecord,
    reviews::Reviews,
    run::Job,
    store::why_of,
    values::Seen,
};
use crate::{
    codes,
    error::Result,
    mutate::{self, Bug},
    objects::Location,
    salesforce::model::{Row, SalesforceId},
};

impl Job {
    /// A review about a record of this side; what is known beyond that is filled in by the caller.
    pub(super) fn review_of(&self, side: Side, id: &str, kind: ReviewKind, why: String) -> Review {
        let salesforce_id = if side == Side::Salesforce { SalesforceId::parse(id).ok() } else { None };
        let hubspot_id = (side == Side::Hubspot).then(|| id.to_owned());
        Review {
            id: Reviews::id_of(
                &self.sync.name,
                kind,
                hubspot_id.as_deref(),
                salesforce_id.as_ref().map(SalesforceId::as_str),
                None,
            ),
            sync: self.sync.name.clone(),
            kind,
            hubspot_id,
            salesforce_id,
            field: None,
            candidates: Vec::new(),
            candidates_of: None,
            deleted_in: None,
            why,
            opened_at: self.env.clock.now(),
            choice: None,
            version: 0,
        }
    }

    /// Opens a review, or brings what it shows up to date. One that a person has settled for good stays so.
    pub(super) async fn open_review(&mut self, review: Review) -> Result<()> {
        if mutate::on(Bug::ReviewNotOpened) {
            return Ok(());
        }
        let known = self.open.get(&review.id).filter(|known| known.version > 0);
        if known.is_some_and(|known| !known.kind.is_of_field() && known.choice == Some(Choice::Keep)) {
            return Ok(());
        }
        let is_same = known.is_some_and(|known| {
            let mut new = review.clone();
            (new.opened_at, new.version) = (known.opened_at, known.version);
            *known == new
        });
        if is_same {
            return Ok(());
        }
        if let Some(planner) = &mut self.planner {
            planner.totals.reviews += u64::from(known.is_none());
            if known.is_none() && planner.tells() {
                planner.tell(&super::plan::Planned {
                    hubspot_id: review.hubspot_id.clone(),
                    salesforce_id: review.salesforce_id.as_ref().map(ToString::to_string),
                    side: if review.hubspot_id.is_some() { Side::Hubspot } else { Side::Salesforce },
                    operation: super::plan::Operation::Review,
                    fields: Vec::new(),
                    why: review.why.clone(),
                });
            }
            return Ok(());
        }
        let mut review = review;
        if let Some(known) = known {
            (review.opened_at, review.version) = (known.opened_at, known.version);
        }
        if self.reviews.put(&mut review).await? {
            self.progress.done.sync.reviews_opened += 1;
        }
        self.open.insert(review.id.clone(), review);
        Ok(())
    }

    /// Closes a review, if it is open.
    pub(super) async fn close_review(&mut self, id: &str) -> Result<()> {
        if self.planner.is_some() || !self.open.contains_key(id) {
            return Ok(());
        }
        if self.reviews.close(id).await? {
            self.progress.done.sync.reviews_closed += 1;
        }
        self.open.remove(id);
        Ok(())
    }

    /// The reviews about which record this one belongs to, where that is known now.
    pub(super) async fn identity_settled(&mut self, side: Side, id: &str, found: &Match) -> Result<()> {
        let still = match found {
            Match::Review { kind, .. } => Some(*kind),
            _ => None,
        };
        for kind in [ReviewKind::Duplicate, ReviewKind::Identity] {
            if still != Some(kind) {
                let review = self.review_of(side, id, kind, String::new()).id;
                self.close_review(&review).await?;
            }
        }
        Ok(())
    }

    pub(super) fn field_review_id(
        &self,
        kind: ReviewKind,
        hubspot: &str,
        salesforce: &SalesforceId,
        key: &str,
    ) -> String {
        Reviews::id_of(&self.sync.name, kind, Some(hubspot), Some(salesforce.as_str()), Some(key))
    }

    /// Why a field waits: as its review says, or, where a process died before it was opened, as its id does.
    pub(super) fn kind_of(&self, id: &str, link: &Link, key: &str) -> ReviewKind {
        let told = self.open.get(id).map(|review| review.kind);
        told.unwrap_or_else(|| {
            let is = |kind: &ReviewKind| self.field_review_id(*kind, &link.hubspot_id, &link.salesforce_id, key) == id;
            [ReviewKind::Flip, ReviewKind::Taken].into_iter().find(is).unwrap_or(ReviewKind::Conflict)
        })
    }

    pub(super) fn delete_review_id(&self, link: &Link) -> String {
        let salesforce = link.salesforce_id.as_str();
        Reviews::id_of(&self.sync.name, ReviewKind::Delete, Some(&link.hubspot_id), Some(salesforce), None)
    }

    pub(super) fn merge_review_id(&self, link: &Link) -> String {
        let salesforce = link.salesforce_id.as_str();
        Reviews::id_of(&self.sync.name, ReviewKind::Merge, Some(&link.hubspot_id), Some(salesforce), None)
    }

    /// The partner that a person has chosen for a record, if it can be had.
    pub(super) async fn chosen_partner(
        &mut self,
        side: Side,
        candidate: &Candidate,
        source: &Source,
    ) -> Result<Option<(HubspotRecord, Row)>> {
        let Some(review) = candidate.review.as_ref().and_then(|id| self.open.get(id)).cloned() else {
            return Ok(None);
        };
        let Some(Choice::Value(partner)) = &review.choice else { return Ok(None) };
        let free = match side {
            Side::Hubspot => match SalesforceId::parse(partner) {
                Ok(id) if self.links.by_salesforce(std::slice::from_ref(&id)).await?.is_empty() => {
                    self.read_salesforce(BTreeSet::from([id])).await?.into_values().next().map(Source::Salesforce)
                }
                _ => None,
            },
            Side::Salesforce => match self.links.by_hubspot(std::slice::from_ref(partner)).await?.is_empty() {
                true => self
                    .read_hubspot(BTreeSet::from([partner.clone()]))
                    .await?
                    .into_values()
                    .find(|record| record.id == *partner)
                    .map(Source::Hubspot),
                false => None,
            },
        };
        match (free, source) {
            (Some(Source::Salesforce(row)), Source::Hubspot(record)) => {
                self.close_review(&review.id).await?;
                Ok(Some((record.clone(), row)))
            }
            (Some(Source::Hubspot(record)), Source::Salesforce(row)) => {
                self.close_review(&review.id).await?;
                Ok(Some((record, row.clone())))
            }
            _ => {
                self.note(format!("review {}: the record {partner} is not there, or has a link already", review.id));
                let mut open = review;
                open.choice = None;
                self.reopen(open).await?;
                Ok(None)
            }
        }
    }

    /// Takes a choice back that could not be carried out.
    pub(super) async fn reopen(&mut self, mut review: Review) -> Result<()> {
        if self.planner.is_some() {
            return Ok(());
        }
        review.choice = None;
        self.reviews.reopen(&mut review).await?;
        self.open.insert(review.id.clone(), review);
        Ok(())
    }

    /// A side will not take what a person has chosen for a field: the field waits again, and its review says why. `pair`: the field that was
    /// refused, `None` for the record as a whole. `false`: nothing was chosen, or the refusal is about another field.
    pub(super) async fn choice_refused(
        &mut self,
        work: &mut Work,
        pair: Option<usize>,
        by: Side,
        code: &str,
        why: &str,
    ) -> Result<bool> {
        let Some((chosen, before)) =
            work.before_choice.clone().filter(|(chosen, _)| pair.is_none_or(|at| at == *chosen))
        else {
            return Ok(false);
        };
        let Some(mut review) = work.choice.take() else { return Ok(false) };
        (work.before_choice, work.resolved) = (None, None);
        if let Some(pair) = self.mapping.pairs.get(chosen) {
            work.link.fields.insert(pair.key.clone(), before);
        }
        work.decision.to_hubspot.retain(|change| change.pair != chosen);
        work.decision.to_salesforce.retain(|change| change.pair != chosen);
        // Before the review: a field that waits for nobody would not be asked about again, should this process die in between.
        work.link.intent = None;
        let mut link = vec![work.link.clone()];
        if self.links.store(&mut link).await?.contains(&false) {
            (work.deferred, work.settled) = (true, true);
        } else if let Some(link) = link.pop() {
            work.link = link;
            work.before = Some(work.link.clone());
        }
        self.note(format!("review {}: {} refused what was chosen ({code}); it is open again", review.id, by.name()));
        review.why = format!("{}; {} refused what was chosen: {why}", why_of(review.kind), by.name());
        self.reopen(review).await?;
        Ok(true)
    }

    /// Carries out what people have chosen for fields, if both sides still hold what was shown.
    pub(super) async fn apply_choices(&mut self, works: &mut [Work]) -> Result<()> {
        let mapping = self.mapping.clone();
        for work in works {
            let Some(review) = work.choice.clone() else { continue };
            let (Some(field), Some(choice)) = (&review.field, &review.choice) else {
                work.choice = None;
                continue;
            };
            let found = mapping.pairs.iter().enumerate().find(|(_, pair)| pair.key == field.key);
            let seen = found.and_then(|(at, pair)| {
                Some((at, pair, work.hubspot.fields.get(&pair.key)?, work.salesforce.fields.get(&pair.key)?))
            });
            let Some((at, pair, ours, theirs)) = seen else {
                work.choice = None;
                continue;
            };
            // A process may have died when it had written the choice on one side: that side holds what was chosen.
            let begun = work.link.intent.as_ref();
            let is_as_shown = |seen: &Seen, shown: &Option<String>, written: Option<&BTreeMap<String, Canon>>| {
                seen.shown() == *shown || written.and_then(|written| written.get(&pair.key)) == Some(&seen.canon)
            };
            if !is_as_shown(ours, &field.hubspot_value, begun.map(|intent| &intent.hubspot))
                || !is_as_shown(theirs, &field.salesforce_value, begun.map(|intent| &intent.salesforce))
            {
                // What is shown is brought up to date when the link is stored, and the choice is dropped with it.
                self.note(format!("review {}: a value has changed since it was shown; it is open again", review.id));
                work.choice = None;
                self.reopen(review).await?;
                continue;
            }
            let (to_hubspot, to_salesforce) = match choice {
                Choice::Side(Side::Hubspot) => (None, Some(ours.clone())),
                Choice::Side(Side::Salesforce) => (Some(theirs.clone()), None),
                Choice::Value(text) => (Some(pair.typed(text)), Some(pair.typed(text))),
                Choice::Keep => (None, None),
            };
            let changes = chosen(at, pair, ours, theirs, to_hubspot, to_salesforce);
            let (hubspot, salesforce) = match changes {
                Ok(changes) => changes,
                Err(why) => {
                    self.note(format!("review {}: the choice cannot be written: {why}; it is open again", review.id));
                    work.choice = None;
                    self.reopen(review).await?;
                    continue;
                }
            };
            let (ours, theirs) = (ours.canon.clone(), theirs.canon.clone());
            let state = work.link.fields.entry(pair.key.clone()).or_default();
            work.before_choice = Some((at, waiting(state, &review.id, field)));
            (state.frozen, state.new, state.refused) = (None, false, None);
            state.writes.clear();
            // As if both were in step: what is written from here becomes the shadow.
            (state.hubspot, state.salesforce) = (ours, theirs);
            work.decision.to_hubspot.extend(hubspot);
            work.decision.to_salesforce.extend(salesforce);
            work.resolved = Some(review.id);
        }
        Ok(())
    }

    /// The record is looked at again in the next run, whatever the feeds say.
    pub(super) async fn put_off(&mut self, side: Side, id: &str) -> Result<()> {
        if self.planner.is_some() {
            return Ok(());
        }
        self.todos.put(&Todo { side, id: id.to_owned(), why: TodoWhy::Deferred, since: None }).await
    }

    /// What was put off is dealt with.
    pub(super) async fn forget(&mut self, side: Side, candidate: &Candidate) -> Result<()> {
        if !candidate.todo || self.planner.is_some() {
            return Ok(());
        }
        self.todos.remove(side, &candidate.id).await
    }

    /// A pair that goes no further: merged into another one, which was told to a person.
    pub(super) async fn settle_todo(&mut self, candidate: &Candidate, side: Side, link: &Link) -> Result<()> {
        self.progress.done.rows.add(crate::report::RowOutcome::Unchanged);
        let id = if side == Side::Hubspot { link.hubspot_id.clone() } else { link.salesforce_id.to_string() };
        let own = Candidate { id, todo: candidate.todo, ..Candidate::default() };
        self.forget(Side::Hubspot, &Candidate { id: link.hubspot_id.clone(), ..own.clone() }).await?;
        self.forget(Side::Salesforce, &Candidate { id: link.salesforce_id.to_string(), ..own }).await
    }

    /// Takes from a decision what a side has refused as a whole, and would refuse again.
    pub(super) fn drop_refused(&self, work: &mut Work) {
        let Some((side, inputs)) = work.link.refused else { return };
        if self.inputs_of(work, side) == inputs {
            match side {
                Side::Hubspot => {
                    work.decision.to_hubspot.clear();
                    work.stamp_hubspot = false;
                }
                Side::Salesforce => {
                    work.decision.to_salesforce.clear();
                    work.stamp_salesforce = false;
                }
            }
        } else if !(work.decision.is_quiet()) {
            work.link.refused = None;
        }
    }

    /// A hash of all that would be written on a side.
    pub(super) fn inputs_of(&self, work: &Work, side: Side) -> u64 {
        let mut parts: Vec<(&str, &str)> = match side {
            Side::Hubspot => parts_of(&self.mapping.pairs, &work.decision.to_hubspot),
            Side::Salesforce => parts_of(&self.mapping.pairs, &work.decision.to_salesforce),
        };
        parts.sort_unstable();
        hash_of(parts.into_iter().flat_map(|(key, value)| [key, value]))
    }

    /// Remembers and lists a record or field that a side will not take. `false`: it is known already.
    pub(super) async fn refuse(&mut self, refused: Refused) -> Result<bool> {
        let key = (refused.hubspot_id.clone(), refused.salesforce_id.clone(), refused.field.clone());
        if self.refused_before.get(&key) == Some(&refused.inputs) {
            return Ok(false);
        }
        tracing::debug!(sync = self.sync.name, code = refused.code, hubspot_id = refused.hubspot_id, "refused");
        self.list_refused(&refused);
        self.refusals.put(&refused).await?;
        self.refused_before.insert(key, refused.inputs);
        Ok(true)
    }

    /// Counts a refusal, and adds it to the list of the run.
    pub(super) fn list_refused(&mut self, refused: &Refused) {
        *self.progress.done.refused.entry(refused.code.clone()).or_default() += 1;
        let line = json!({
            "hubspot_id": refused.hubspot_id, "salesforce_id": refused.salesforce_id, "refused_by": refused.by,
            "field": refused.field, "_code": refused.code, "_reason": refused.reason, "_hint": refused.hint,
        });
        self.refused_lines.extend_from_slice(line.to_string().as_bytes());
        self.refused_lines.push(b'\n');
    }

    /// What was refused so far goes into a piece of its own: pieces are joined when the run ends.
    pub(super) async fn store_refused_lines(&mut self) -> Result<()> {
        if self.refused_lines.is_empty() {
            return Ok(());
        }
        let piece = self.progress.done.refused_pieces + 1;
        let location = self.refused_piece(piece)?;
        let lines = Bytes::from(std::mem::take(&mut self.refused_lines));
        self.env.objects.put(&location, lines, "application/x-ndjson").await?;
        self.progress.done.refused_pieces = piece;
        Ok(())
    }

    pub(super) fn refused_piece(&self, piece: u64) -> Result<Location> {
        let mut location = super::data_of(&self.config)?;
        location.key.push_str(&format!("state/sync/{}/{}/refused-{piece:06}.jsonl", self.sync.name, self.run_id));
        Ok(location)
    }

    /// A record of this run that was refused.
    pub(super) fn refused(&self, link: (Option<String>, Option<SalesforceId>), by: Side, inputs: u64) -> Refused {
        Refused {
            hubspot_id: link.0,
            salesforce_id: link.1,
            by,
            field: None,
            code: codes::SYNC_VALUE.as_str().to_owned(),
            reason: String::new(),
            hint: codes::SYNC_VALUE.hint().to_owned(),
            inputs,
            at: self.env.clock.now(),
            run: self.run_id.clone(),
            piece: self.progress.done.refused_pieces + 1,
        }
    }
}

/// A field as it waited for a person. Where a process died with the choice begun, it does not any more; then its review tells.
fn waiting(state: &FieldState, review: &str, field: &ReviewField) -> FieldState {
    if state.frozen.is_some() {
        return state.clone();
    }
    let (hubspot, salesforce) = (field.hubspot_before.clone(), field.salesforce_before.clone());
    FieldState {
        new: hubspot.is_none() && salesforce.is_none(),
        hubspot,
        salesforce,
        frozen: Some(review.to_owned()),
        ..FieldState::default()
    }
}

fn parts_of<'p, V>(pairs: &'p [Pair], changes: &'p [Change<V>]) -> Vec<(&'p str, &'p str)> {
    let part = |change: &'p Change<V>| {
        let key = pairs.get(change.pair).map(|pair| pair.key.as_str())?;
        Some((key, change.canon.as_deref().unwrap_or_default()))
    };
    changes.iter().filter_map(part).collect()
}

type Chosen = (Option<Change<String>>, Option<Change<serde_json::Value>>);

/// The changes that carry a person's choice, where a side does not hold it already.
fn chosen(
    at: usize,
    pair: &Pair,
    ours: &Seen,
    theirs: &Seen,
    to_hubspot: Option<Seen>,
    to_salesforce: Option<Seen>,
) -> std::result::Result<Chosen, String> {
    const WHY: &str = "chosen by a person";
    let differs = |canon: &Canon, old: &Seen| *canon != old.canon;
    let hubspot = match to_hubspot {
        Some(seen) => {
            let (value, canon) = pair.to_hubspot(&seen).map_err(|fault| fault.reason)?;
            differs(&canon, ours).then(|| Change { pair: at, value, canon, old: ours.canon.clone(), why: WHY })
        }
        None => None,
    };
    let salesforce = match to_salesforce {
        Some(seen) => {
            let (value, canon) = pair.to_salesforce(&seen).map_err(|fault| fault.reason)?;
            differs(&canon, theirs).then(|| Change { pair: at, value, canon, old: theirs.canon.clone(), why: WHY })
        }
        None => None,
    };
    Ok((hubspot, salesforce))
}
