//! What an import's checkpoint holds besides the position, and what it tells while it runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{delivered::Marks, log::LogState, plan::Scan};
use crate::{
    config::Compression,
    csv::dialect::Dialect,
    mapping::Detected,
    report::{Calls, Counts, FilePosition, Pace, RowOutcome},
};

/// Everything a continued run must know, and everything its report counts. Covers exactly the rows before `position`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Everything before it is accounted for and durable.
    pub position: FilePosition,
    /// What was found out about the file at its start; a continued run reads it the same way.
    pub file: Option<File>,
    /// `preflight: full`: how far the pass before the first write has come.
    pub preflight: Scan,
    /// Rows before the position, by what became of them.
    pub rows: Counts,
    /// Records before the position, per object type.
    pub records: BTreeMap<String, Counts>,
    /// Rejects before the position, by code.
    pub rejected_by_code: BTreeMap<String, u64>,
    /// Their lines.
    pub rejects: LogState,
    /// What the delivered index is made from.
    pub index: LogState,
    /// Change records: properties that were not delivered because HubSpot keeps them itself, and of how many rows.
    pub dropped_properties: BTreeMap<String, u64>,
    /// Records that were archived: by mode `mirror` because the file lacks them, or by change records. And how far `mirror` has read the list
    /// of all records.
    pub archived: u64,
    /// See `archived`.
    pub mirror_after: Option<String>,
    /// Records that the file lacks and that HubSpot did not archive.
    pub mirror_left: u64,
    /// The list of all records was read to its end.
    pub mirror_ended: bool,
    /// What a reader of the report should know besides.
    pub notes: Vec<String>,
    /// Calls to HubSpot, by all invocations.
    pub calls: Calls,
    /// Calls that could have been made under the burst limit while there was something to send.
    pub calls_possible: f64,
    /// Of these, how many were made.
    pub calls_made: f64,
    /// How the run came along.
    pub pace: Pace,
    /// Memory × time on Lambda.
    pub gb_seconds: f64,
    /// Writes to the table.
    pub table_writes: u64,
    /// Requests for objects.
    pub object_requests: u64,
}

/// Names of dropped properties that are counted one by one: a run's state has to fit into DynamoDB's 400 KB.
const DROPPED_NAMES_MAX: usize = 500;

/// What counts those beyond them.
const DROPPED_OTHERS: &str = "…";

impl Progress {
    /// Counts what is known of a row besides its outcome.
    pub(super) fn add_marks(&mut self, marks: &Marks, outcome: RowOutcome) {
        if matches!(outcome, RowOutcome::Rejected | RowOutcome::Deferred) {
            return;
        }
        for name in &marks.dropped {
            if let Some(rows) = self.dropped_properties.get_mut(&**name) {
                *rows += 1;
            } else {
                let full = self.dropped_properties.len() >= DROPPED_NAMES_MAX;
                let name = if full { DROPPED_OTHERS } else { name };
                *self.dropped_properties.entry(name.to_owned()).or_default() += 1;
            }
        }
        // What was gone already is unchanged.
        self.archived += u64::from(marks.archives && outcome == RowOutcome::Updated);
    }

    /// Whether nothing of the run was ever saved, but for what a pass before the first write left.
    pub(super) fn has_nothing(&self) -> bool {
        let blank = Self { preflight: Scan::default(), file: None, position: FilePosition::default(), ..self.clone() };
        let counted = Self {
            calls: blank.calls,
            gb_seconds: blank.gb_seconds,
            table_writes: blank.table_writes,
            object_requests: blank.object_requests,
            notes: blank.notes.clone(),
            ..Self::default()
        };
        match self.preflight == Scan::default() {
            true => *self == Self::default(),
            false => blank == counted,
        }
    }

    /// Share of the burst limit that was used; none if nothing was sent.
    pub fn limit_use_percent(&self) -> Option<f64> {
        (self.calls_possible > 0.0)
            .then(|| (self.calls_made / self.calls_possible * 1_000.0).round().min(1_000.0) / 10.0)
    }
}

/// What was found out about a file at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// How it is compressed.
    pub compression: Compression,
    /// How it is written; none for JSON lines.
    pub dialect: Option<Dialect>,
    /// The first line's names, as they are (`1`, `2`, … where there is no header).
    pub columns: Vec<String>,
    /// Formats of dates and numbers.
    pub detected: Detected,
}

/// How far a run has come, for who watches.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The run.
    pub run_id: String,
    /// Rows so far.
    pub rows: Counts,
    /// Bytes of the object that have been read.
    pub bytes_read: u64,
    /// Bytes of the object.
    pub bytes_total: u64,
    /// Bytes of the object whose rows are accounted for; of a compressed one, those that have been read.
    pub bytes_done: u64,
    /// Calls so far.
    pub calls: Calls,
    /// Calls on their way.
    pub in_flight: usize,
}
