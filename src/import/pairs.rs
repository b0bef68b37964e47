//! Associations between the records of a row: made once both records are written, in calls of their own.
//!
//! A row waits for its associations as it waits for its records, so that a checkpoint never covers a row whose associations are not made.
//! One that fails makes the row a reject and leaves the records.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    flow::{Flow, Landed},
    ledger::RowId,
};
use crate::{
    clock::Deadline,
    codes,
    error::Result,
    hubspot::{
        account::Account,
        associations::{AssociationType, PairVerdict},
    },
    objects::{Location, Objects},
    record::{ObjectType, Reason},
    report::RowOutcome,
};

/// Associations of one call at most. HubSpot takes 2,000; half of it keeps what is sent again after a kill small.
const PAIRS_PER_CALL: usize = 1_000;

/// Associations that are sent without waiting for more: at five such calls a second they keep up with what the burst limit allows.
const PAIRS_WORTH_A_CALL: usize = 200;

/// Association calls at once: they have a limit of their own, and a thousand pairs each.
const PAIR_CALLS_MAX: usize = 2;

/// Labels that HubSpot defines: of a record's companies only one is the primary one.
const OF_HUBSPOT: &str = "HUBSPOT_DEFINED";

/// What pairs are of.
#[derive(Clone, Copy)]
pub(super) struct Ends<'a> {
    pub(super) from: &'a ObjectType,
    pub(super) to: &'a ObjectType,
    pub(super) label: Option<&'a AssociationType>,
}

/// Writes down which of these pairs will be associated, or labelled, by the call that follows: those that are already are not the run's. Before the call, like
/// all before-images.
pub(super) async fn keep_images(
    account: &Account,
    objects: &dyn Objects,
    at: &Location,
    ends: Ends<'_>,
    pairs: &[(String, String)],
    deadline: Deadline,
) -> Result<()> {
    let Ends { from, to, label } = ends;
    // What is no id is refused by the call.
    let is_id = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let near: BTreeSet<String> = pairs.iter().map(|(near, _)| near.clone()).filter(|near| is_id(near)).collect();
    let known = account.associations(from, to, &near, deadline).await?;
    let mut body = String::new();
    for (near, far) in pairs.iter().collect::<BTreeSet<_>>() {
        let types = known.get(near).and_then(|far_ends| far_ends.get(far));
        let was = match (types, label) {
            (None, _) => "apart",
            (Some(types), Some(label)) if types.iter().all(|one| one.type_id != label.type_id) => "unlabelled",
            _ => continue,
        };
        let name = label.and_then(|label| label.label.as_deref());
        let mut image = pair_image(from, to, name, (near, far), was);
        // HubSpot takes the label of the primary company from the one that had it.
        let had_it = known.get(near).into_iter().flatten().find(|(other, types)| {
            label.is_some_and(|label| {
                label.category == OF_HUBSPOT && types.iter().any(|one| one.type_id == label.type_id)
            }) && *other != far
        });
        if let (Some((other, _)), Some(pair)) = (had_it, image.get_mut("pair").and_then(Value::as_object_mut)) {
            pair.insert("moved_from".to_owned(), other.as_str().into());
        }
        body.push_str(&image.to_string());
        body.push('\n');
    }
    if body.is_empty() { Ok(()) } else { objects.put(at, Bytes::from(body), "application/x-ndjson").await }
}

/// A before-image of a pair: `was` is `apart`, `unlabelled`, or `associated` where it is about to be taken apart, `labelled` where its label is about to be taken
/// off.
pub(super) fn pair_image(
    from: &ObjectType,
    to: &ObjectType,
    label: Option<&str>,
    (near, far): (&str, &str),
    was: &str,
) -> Value {
    json!({ "pair": { "from": from, "to": to, "label": label, "from_id": near, "to_id": far }, "was": was })
}

impl Flow<'_> {
    pub(super) fn settle_pairs(&mut self, rows: Vec<RowId>, verdicts: Vec<PairVerdict>) {
        for (row, verdict) in rows.into_iter().zip(verdicts) {
            match verdict {
                PairVerdict::Made => self.ledger.release(row),
                PairVerdict::Refused(reason) => self.ledger.settle(row, RowOutcome::Rejected, Some(reason)),
                PairVerdict::Unknown => {
                    let reason = Reason::new(codes::NO_VERDICT, "HubSpot gave no verdict on the association");
                    self.ledger.settle(row, RowOutcome::Deferred, Some(reason));
                }
            }
        }
    }

    /// A record of the row has its verdict: associations that waited for it can be made, or never will.
    pub(super) fn associate(&mut self, row: RowId, lane: usize) {
        let (ledger, links) = (&mut self.ledger, &mut self.loaded.links);
        for link in links.iter_mut().filter(|link| link.from == lane || link.to == lane) {
            let records = ledger.records(row);
            let (Some(from), Some(to)) = (records.get(link.from), records.get(link.to)) else { continue };
            let (Some(from_outcome), Some(to_outcome)) = (from.outcome, to.outcome) else { continue };
            let failed = |outcome| matches!(outcome, RowOutcome::Rejected | RowOutcome::Deferred);
            match (&from.id, &to.id) {
                (Some(from), Some(to)) => link.pairs.push_back((row, from.clone(), to.clone())),
                // The row is a reject already.
                _ if failed(from_outcome) || failed(to_outcome) => ledger.release(row),
                _ => {
                    let reason =
                        Reason::new(codes::ASSOCIATION_FAILED, "HubSpot did not tell the ids of the row's records");
                    ledger.settle(row, RowOutcome::Rejected, Some(reason));
                }
            }
        }
    }

    /// Sends associations: a large batch, or what there is when nothing more can come before it.
    pub(super) fn send_pairs(&mut self) {
        if self.end.is_some() {
            return;
        }
        let drained = self.loaded.exhausted() && self.loaded.lanes.iter().all(|lane| lane.batcher.is_empty());
        let waited_for =
            self.is_full() || self.is_window_full() || (drained && self.pairs_in_flight == self.in_flight.len());
        // Calls that write labels read them first: two at once could lose one of two labels of a pair.
        let labelled = self.loaded.links.iter().any(|link| link.label.is_some());
        let calls_max = if labelled { 1 } else { PAIR_CALLS_MAX };
        let deadline = self.calls_until();
        for link in &mut self.loaded.links {
            while self.pairs_in_flight < calls_max
                && (link.pairs.len() >= PAIRS_WORTH_A_CALL || (waited_for && !link.pairs.is_empty()))
            {
                let (mut rows, mut pairs): (Vec<RowId>, Vec<(String, String)>) = (Vec::new(), Vec::new());
                // Each pair is in one call at a time, and once in a call.
                for _ in 0..link.pairs.len().min(PAIRS_PER_CALL) {
                    let Some((row, from, to)) = link.pairs.pop_front() else { break };
                    rows.push(row);
                    pairs.push((from, to));
                }
                if let Some(plan) = &self.job.plan {
                    let label = link.label.as_ref().and_then(|label| label.label.as_deref());
                    for (from, to) in &pairs {
                        plan.associate((link.from_object.as_str(), from), (link.to_object.as_str(), to), label);
                    }
                    let verdicts = Ok(vec![PairVerdict::Made; rows.len()]);
                    self.pairs_in_flight += 1;
                    self.in_flight.push(Box::pin(async move { Landed::Pairs { rows, verdicts } }));
                    continue;
                }
                let (account, from, to, label) =
                    (self.job.account.clone(), link.from_object.clone(), link.to_object.clone(), link.label.clone());
                self.pairs_in_flight += 1;
                self.pair_calls += 1;
                let (folder, objects) = (self.job.state_folder(), self.job.env.objects.clone());
                let name =
                    format!("{}before-{:06}-{:08}-pairs.jsonl", folder.key, self.job.lease.fence, self.pair_calls);
                let images = self.job.import.before_images.then(|| Location::new(&folder.bucket, name));
                self.in_flight.push(Box::pin(async move {
                    if let Some(at) = images {
                        let ends = Ends { from: &from, to: &to, label: label.as_ref() };
                        if let Err(error) = keep_images(&account, &*objects, &at, ends, &pairs, deadline).await {
                            return Landed::Pairs { rows, verdicts: Err(error) };
                        }
                    }
                    let verdicts = account.associate(&from, &to, label.as_ref(), &pairs, deadline).await;
                    Landed::Pairs { rows, verdicts }
                }));
            }
        }
    }
}
