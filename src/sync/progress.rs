//! What a sync's checkpoint holds: enough to go on at any instant, and what its report counts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{bulk::Pending, plan::PlanTotals};
use crate::{
    hubspot::scan::ScanState,
    report::{Calls, Counts, SyncPosition, SyncReport},
    salesforce::{changes::Sweep, model::SalesforceId},
};

/// What a run is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A new window is to be opened.
    #[default]
    Open,
    /// Everything is being planned without being written, to know whether it stays within the limits.
    Counting,
    /// What people have decided is carried out, and records that wait for a person are looked at again.
    Reviews,
    /// Records that were put off are looked at again.
    Todo,
    /// What changed in Salesforce.
    Salesforce(Sweep),
    /// What changed in HubSpot, in the order of ids.
    Hubspot {
        /// The last id that was looked at.
        after: Option<String>,
    },
    /// What is in HubSpot's recycle bin.
    Bin(ScanState),
    /// Deletions are carried over.
    Deletes,
    /// The window is complete.
    Complete,
}

/// What a window covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Salesforce's changes up to this moment of its clock.
    pub salesforce_until: Timestamp,
    /// HubSpot's clock when the window was opened: the next one begins a little before it.
    pub hubspot_began: Timestamp,
    /// So much has changed that chunks are large, and Salesforce is written by Bulk jobs.
    #[serde(default)]
    pub is_large: bool,
}

/// How far a count has come that an invocation's time was too short for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counting {
    /// What is being counted.
    pub phase: Box<Phase>,
    /// What was counted.
    pub totals: PlanTotals,
}

/// Everything a continued run must know. Between runs it is kept, without [`Done`], beside the position.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Counts runs.
    pub tick: u64,
    /// The org that the links belong to.
    pub org_id: Option<SalesforceId>,
    /// The portal that the links belong to.
    pub portal_id: Option<u64>,
    /// Of the mapping with which the window before was complete.
    pub fingerprint: u64,
    /// Salesforce's changes are covered up to here.
    pub salesforce: Option<Timestamp>,
    /// HubSpot's changes are covered up to here.
    pub hubspot: Option<Timestamp>,
    /// The open window.
    pub window: Option<Window>,
    /// When the recycle bin is to be listed again; none: in the next run.
    pub bin_due: Option<Timestamp>,
    /// A run that only carries out what people have decided.
    pub only_reviews: bool,
    /// HubSpot's records of pairs whose deletion is to be carried over, at most as many as the limit allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deletes: Vec<String>,
    /// A count that goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counting: Option<Counting>,
    /// Bulk jobs under way, with what waits for them.
    pub bulk: Option<Pending>,
    /// What the run has done and spent.
    pub done: Done,
}

/// What one run has done and spent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Pairs of records by what became of them.
    pub rows: Counts,
    /// The rest of the report's own part.
    pub sync: SyncReport,
    /// Refused records and fields, by code.
    pub refused: BTreeMap<String, u64>,
    /// Pieces of the list of what was refused that are written.
    pub refused_pieces: u64,
    /// What a reader of the report should know besides.
    pub notes: Vec<String>,
    /// Calls to HubSpot, by all invocations.
    pub calls: Calls,
    /// Calls that could have been made while the run worked.
    pub calls_possible: f64,
    /// Memory × time on Lambda.
    pub gb_seconds: f64,
    /// Writes to the table.
    pub table_writes: u64,
    /// Requests for objects.
    pub object_requests: u64,
}

impl Done {
    /// What was spent, as `other` counted it.
    pub(super) fn take_costs(&mut self, other: &Self) {
        (self.calls, self.calls_possible, self.gb_seconds) = (other.calls, other.calls_possible, other.gb_seconds);
        (self.table_writes, self.object_requests) = (other.table_writes, other.object_requests);
        self.sync.salesforce_calls = other.sync.salesforce_calls;
        self.sync.salesforce_retried = other.sync.salesforce_retried;
    }
}

impl Progress {
    /// As people read it.
    pub fn position(&self) -> SyncPosition {
        SyncPosition { salesforce_timestamp: self.salesforce, hubspot_timestamp: self.hubspot }
    }
}

/// How a run is coming along.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The run.
    pub run_id: String,
    /// The sync.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Records looked at, and what became of them.
    pub rows: Counts,
    /// The report's own part so far.
    pub sync: SyncReport,
    /// Calls to HubSpot.
    pub calls: Calls,
    /// Seconds since this invocation began.
    pub seconds: f64,
}
