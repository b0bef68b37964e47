//! What a chunk works on: records to look at, pairs at work, records to be created.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    decide::{Decision, Sighted},
    model::{Canon, FieldState, Link, Review, Side, Status},
    records::HubspotRecord,
};
use crate::{
    report::RowOutcome,
    salesforce::model::{Row, SalesforceId},
};

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

    pub(super) fn outcome(&self) -> RowOutcome {
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
