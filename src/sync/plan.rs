//! What a run would do, as data: counted against the limits, or shown to a person.

use std::{collections::HashSet, rc::Rc};

use serde::{Deserialize, Serialize};

use super::model::{Canon, Side, hash_of};
use crate::{
    codes::{self, Code},
    config::SyncLimits,
    mutate::{self, Bug},
    report::SyncWrites,
};

/// What is planned for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// It is made, as the other side has it.
    Create,
    /// Fields of it are changed.
    Update,
    /// It is archived or put into the recycle bin.
    Delete,
    /// It gets a link; nothing else of it changes.
    Link,
    /// It waits for a person.
    Review,
    /// It cannot be written as it is.
    Refused,
    /// Its primary company is set or taken off.
    Associate,
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Planned {
    /// HubSpot's record; null where it is to be created.
    pub hubspot_id: Option<String>,
    /// Salesforce's record; null where it is to be created.
    pub salesforce_id: Option<String>,
    /// Where.
    pub side: Side,
    /// What.
    pub operation: Operation,
    /// The fields, with their old and their new values.
    pub fields: Vec<PlannedField>,
    /// Why.
    pub why: String,
}

/// A field of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedField {
    /// HubSpot property.
    pub hubspot: String,
    /// Salesforce field.
    pub salesforce: String,
    /// What is there; null where it is blank.
    pub old: Canon,
    /// What will be there.
    pub new: Canon,
}

/// What a whole plan comes to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanTotals {
    /// In HubSpot.
    pub hubspot: SyncWrites,
    /// In Salesforce.
    pub salesforce: SyncWrites,
    /// New links.
    pub links: u64,
    /// Things that will wait for a person, new ones.
    pub reviews: u64,
    /// Records and fields that cannot be written as they are.
    pub refused: u64,
    /// Pairs that are in step.
    pub unchanged: u64,
    /// Why a run would stop instead, in words; null where it would not.
    pub over: Option<String>,
    /// Calls that were made to HubSpot to find out.
    pub hubspot_calls: u64,
    /// Calls that were made to Salesforce to find out.
    pub salesforce_calls: u64,
}

/// Is told each step.
pub type Sink = Rc<dyn Fn(&Planned)>;

/// Takes the place of what writes.
pub(super) struct Planner {
    sink: Option<Sink>,
    seen: HashSet<u64>,
    pub(super) totals: PlanTotals,
}

impl Planner {
    /// Only counts.
    pub(super) fn silent() -> Self {
        Self { sink: None, seen: HashSet::new(), totals: PlanTotals::default() }
    }

    /// Tells each step.
    pub(super) fn telling(sink: Sink) -> Self {
        Self { sink: Some(sink), ..Self::silent() }
    }

    /// Goes on with what an earlier invocation has counted.
    pub(super) fn resumed(totals: PlanTotals, seen: &[u8]) -> Self {
        let hashes = seen.chunks_exact(8).filter_map(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        Self { sink: None, seen: hashes.collect(), totals }
    }

    /// Who was counted, for [`Planner::resumed`].
    pub(super) fn seen(&self) -> Vec<u8> {
        self.seen.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    /// Whether the record comes for the first time: what was planned is not in the table, so the other side's feed shows it again.
    pub(super) fn is_new(&mut self, side: Side, id: &str) -> bool {
        self.seen.insert(hash_of([side.name(), id]))
    }

    pub(super) fn writes(&mut self, side: Side) -> &mut SyncWrites {
        match side {
            Side::Hubspot => &mut self.totals.hubspot,
            Side::Salesforce => &mut self.totals.salesforce,
        }
    }

    pub(super) fn tell(&self, planned: &Planned) {
        if let Some(sink) = &self.sink {
            sink(planned);
        }
    }

    /// Whether a step is told to anybody: values need not be copied where it is not.
    pub(super) fn tells(&self) -> bool {
        self.sink.is_some()
    }

    /// The first limit that the plan would pass.
    pub(super) fn over(&self, limits: &SyncLimits) -> Option<(Code, String)> {
        over(&self.totals.hubspot, &self.totals.salesforce, limits)
    }
}

/// The first limit that these writes pass, both sides together.
pub(super) fn over(hubspot: &SyncWrites, salesforce: &SyncWrites, limits: &SyncLimits) -> Option<(Code, String)> {
    let all = [
        (codes::SYNC_DELETES, hubspot.deleted + salesforce.deleted, limits.deletes, "delete", "deletes"),
        (codes::SYNC_LIMIT, hubspot.created + salesforce.created, limits.creates, "create", "creates"),
        (codes::SYNC_LIMIT, hubspot.updated + salesforce.updated, limits.updates, "update", "updates"),
        (codes::SYNC_LIMIT, hubspot.blanked + salesforce.blanked, limits.blanks, "clear", "blanks"),
    ];
    if mutate::on(Bug::BrakeIgnored) {
        return None;
    }
    let (code, planned, limit, verb, name) = all.into_iter().find(|(_, planned, limit, ..)| planned > limit)?;
    let what = if name == "blanks" { "fields" } else { "records" };
    Some((code, format!("the run would {verb} {planned} {what}; limits.{name} is {limit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_passes_a_limit_says_which_and_deletes_come_first() {
        let limits = SyncLimits::default();
        let mut planner = Planner::silent();
        planner.writes(Side::Hubspot).created = 600;
        planner.writes(Side::Salesforce).created = 400;
        assert_eq!(planner.over(&limits), None, "exactly the limit is within it");
        planner.writes(Side::Salesforce).created = 401;
        let (code, message) = planner.over(&limits).unwrap();
        assert_eq!(code, codes::SYNC_LIMIT);
        assert_eq!(message, "the run would create 1001 records; limits.creates is 1000");
        planner.writes(Side::Hubspot).deleted = 21;
        assert_eq!(planner.over(&limits).unwrap().0, codes::SYNC_DELETES);
    }

    #[test]
    fn a_record_is_planned_once_and_ids_of_the_two_sides_are_not_mixed_up() {
        let mut planner = Planner::silent();
        assert!(planner.is_new(Side::Hubspot, "1"));
        assert!(!planner.is_new(Side::Hubspot, "1"));
        assert!(planner.is_new(Side::Salesforce, "1"));
    }
}
