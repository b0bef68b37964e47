//! What a capture's checkpoint holds: enough to go on at any instant, and what its report counts.

use std::ops::AddAssign;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::position::{Mode, Position};
use crate::{hubspot::scan::ScanState, import::log::LogState, report::Calls};

/// What a run is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A new window is to be opened.
    #[default]
    Open,
    /// The recycle bin is being listed before the snapshot: who is in it is not in the snapshot.
    Bin(ScanState),
    /// Everything that exists is being listed.
    Snapshot(ScanState),
    /// What was modified in the window is being read, in the order of ids.
    Main {
        /// The last id that was looked at.
        after: Option<String>,
    },
    /// What was modified before is being read again, for what the index showed late.
    Trailing {
        /// Up to where.
        until: Timestamp,
        /// The last id that was looked at.
        after: Option<String>,
    },
    /// The recycle bin is being listed.
    Deletes(ScanState),
    /// Those who were in it, and were not listed, are being looked up.
    Returned {
        /// The last id that was looked up.
        after: u64,
    },
    /// Associations are being compared.
    Links {
        /// The last id that was looked at.
        after: u64,
    },
    /// Ids that exist are being listed, to begin with the comparison of associations.
    LinksBegin(ScanState),
    /// The window is complete.
    Complete,
}

/// Changes by what they were, of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeCounts {
    /// Records that HubSpot showed. All of them are emitted, repeated or gone; else the run says that it has lost count.
    pub seen: u64,
    /// Records as they existed at the start.
    pub snapshot: u64,
    /// Records not known before.
    pub create: u64,
    /// Changed records: restores and changed associations among them.
    pub update: u64,
    /// Archived and merged records.
    pub delete: u64,
    /// Of the updates (and creates): records that came back from the recycle bin.
    pub restored: u64,
    /// Of the deletes: records that were merged into others.
    pub merged: u64,
    /// Of the updates: records whose associations changed.
    pub associations: u64,
    /// Records that HubSpot showed again as they were emitted before; not emitted.
    pub repeated: u64,
    /// Records that the search index still showed, but that were gone; not emitted here (their delete is).
    pub gone: u64,
}

impl AddAssign for ChangeCounts {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.snapshot += other.snapshot;
        self.create += other.create;
        self.update += other.update;
        self.delete += other.delete;
        self.restored += other.restored;
        self.merged += other.merged;
        self.associations += other.associations;
        self.repeated += other.repeated;
        self.gone += other.gone;
    }
}

impl ChangeCounts {
    /// Whether each record that HubSpot showed is accounted for.
    pub fn add_up(&self) -> bool {
        self.seen == self.emitted() + self.repeated + self.gone
    }

    /// Records written.
    pub fn emitted(&self) -> u64 {
        self.snapshot + self.create + self.update + self.delete
    }
}

/// What one run has done and spent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Changes written.
    pub changes: ChangeCounts,
    /// Objects written.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What a reader of the report should know besides.
    pub notes: Vec<String>,
    /// Calls to HubSpot, by all invocations.
    pub calls: Calls,
    /// Share of time × limit: calls that could have been made while the run worked.
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
    }
}

/// Everything a continued run must know. Between runs it is kept, without [`Done`], beside the position.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// HubSpot's clock when the capture began; none before its first run.
    pub initial: Option<Timestamp>,
    /// What is being done.
    pub phase: Phase,
    /// Changes before this moment are captured.
    pub covered: Option<Timestamp>,
    /// The end of the open window.
    pub until: Option<Timestamp>,
    /// What the index showed late is captured up to this moment.
    pub trailing: Option<Timestamp>,
    /// Objects of the window so far.
    pub part: u64,
    /// The last record looked at.
    pub item_id: String,
    /// Where [`super::known::Known`] is kept as it was before the log (`s3://…`); none: nothing is known.
    pub base: Option<String>,
    /// The folder of the log (`s3://…/`); empty where there is none.
    pub log_in: String,
    /// What was learned since.
    pub log: LogState,
    /// How many of the log's objects manifests list already.
    pub listed: usize,
    /// The changes in those that none lists: of runs that failed before they could.
    pub unlisted: ChangeCounts,
    /// The recycle bin was listed once: what appears in it from now on was archived since.
    pub bin_known: bool,
    /// The recycle bin is not listed again before this moment.
    pub bin_due: Option<Timestamp>,
    /// The associations of all records are known.
    pub links_known: bool,
    /// They are not compared again before this moment.
    pub links_due: Option<Timestamp>,
    /// How long the sweep that is going on has worked.
    pub sweep_ms: u64,
    /// The objects whose associations are known, in the order in which links refer to them.
    pub link_objects: Vec<String>,
    /// They changed while the snapshot was taken: it knows only some of the associations.
    pub links_partial: bool,
    /// Properties in the order of the columns, so that a new one comes last; only where all are captured.
    pub columns: Vec<String>,
    /// Where the list of a content snapshot is to be read on.
    pub content_after: Option<String>,
    /// Of this run.
    pub done: Done,
}

impl Progress {
    /// The position as people read it.
    pub fn position(&self) -> Position {
        let snapshot = match &self.phase {
            Phase::Snapshot(scan) => Some(scan.covered_to().map_or_else(|| self.item_id.clone(), |id| id.to_string())),
            _ => None,
        };
        Position {
            // The recycle bin is listed first: nothing is captured before the snapshot is.
            mode: if snapshot.is_some() || self.covered.is_none() { Mode::Snapshot } else { Mode::Cdc },
            item_id: snapshot.unwrap_or_else(|| self.item_id.clone()),
            initial_timestamp: self.initial.unwrap_or_default(),
            timestamp: self.covered,
            until: self.until,
            trailing_timestamp: self.trailing,
        }
    }
}

/// How far a run has come, for who watches.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The run.
    pub run_id: String,
    /// What is being done, in a few words.
    pub doing: &'static str,
    /// Changes so far, those that are not saved yet among them.
    pub changes: ChangeCounts,
    /// Objects written.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Calls so far.
    pub calls: Calls,
    /// Calls that the account's limit would have allowed meanwhile.
    pub calls_possible: f64,
    /// Where the run is.
    pub position: Position,
}

impl Phase {
    /// What is being done, in a few words.
    pub fn doing(&self) -> &'static str {
        match self {
            Self::Open => "opening a window",
            Self::Snapshot(_) => "snapshot",
            Self::Main { .. } => "changes",
            Self::Trailing { .. } => "changes that the index showed late",
            Self::Bin(_) | Self::Deletes(_) | Self::Returned { .. } => "recycle bin",
            Self::Links { .. } => "associations",
            Self::LinksBegin(_) => "associations, for the first time",
            Self::Complete => "closing the window",
        }
    }
}

impl Update {
    /// Of this progress.
    pub fn of(run_id: &str, progress: &Progress) -> Self {
        let done = &progress.done;
        Self {
            run_id: run_id.to_owned(),
            doing: progress.phase.doing(),
            changes: done.changes,
            objects: done.objects,
            bytes: done.bytes,
            calls: done.calls,
            calls_possible: done.calls_possible,
            position: progress.position(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_never_goes_back_from_changes_to_the_snapshot() {
        let initial: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
        let at = |phase: Phase, covered: Option<Timestamp>| {
            Progress { initial: Some(initial), phase, covered, ..Progress::default() }.position().mode
        };
        assert_eq!(at(Phase::Bin(ScanState::default()), None), Mode::Snapshot, "the bin is listed before the snapshot");
        assert_eq!(at(Phase::Snapshot(ScanState::default()), None), Mode::Snapshot);
        assert_eq!(at(Phase::Deletes(ScanState::default()), Some(initial)), Mode::Cdc);
        assert_eq!(at(Phase::Open, Some(initial)), Mode::Cdc, "a capture that begins without a snapshot");
    }
}
