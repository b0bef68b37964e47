//! What a run says when it ends: the same object is the Lambda's answer, the file under `reports/`, and (in short) the
//! last-run context.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    capture::{position::Position as CapturePosition, progress::ChangeCounts},
    error::Error,
};

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// To the end of the source, every row accounted for.
    Done,
    /// Progress is saved; the run goes on in another invocation.
    Yielded,
    /// Ended by an error; what was done is counted.
    Failed,
    /// The mapping or the file cannot be used; nothing was written.
    Invalid,
    /// This version of the object was imported before; nothing was written.
    Duplicate,
    /// A newer version of the object was imported before, or came meanwhile.
    Superseded,
    /// Too many rejects (or too much to archive): stopped early.
    Aborted,
    /// Another invocation holds the run; nothing was written by this one.
    Busy,
}

impl Outcome {
    /// Whether the run is over: no other invocation goes on with it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Yielded | Self::Busy)
    }

    /// The word in reports and state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Yielded => "yielded",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Duplicate => "duplicate",
            Self::Superseded => "superseded",
            Self::Aborted => "aborted",
            Self::Busy => "busy",
        }
    }
}

/// What became of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowOutcome {
    /// A record was made.
    Created,
    /// A record was changed (or found as it should be, where HubSpot does not tell the two apart).
    Updated,
    /// Not sent, because nothing has changed.
    Unchanged,
    /// Sent as part of another row with the same key.
    Merged,
    /// In the rejects file.
    Rejected,
    /// No verdict from HubSpot; in the rejects file.
    Deferred,
}

/// Rows by what became of them: `read` is the sum of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Rows of the source, the header not counted.
    pub read: u64,
    /// See [`RowOutcome::Created`].
    pub created: u64,
    /// See [`RowOutcome::Updated`].
    pub updated: u64,
    /// See [`RowOutcome::Unchanged`].
    pub unchanged: u64,
    /// See [`RowOutcome::Merged`].
    pub merged: u64,
    /// See [`RowOutcome::Rejected`].
    pub rejected: u64,
    /// See [`RowOutcome::Deferred`].
    pub deferred: u64,
}

impl Counts {
    /// Counts one row that has been read and has this outcome.
    pub fn add(&mut self, outcome: RowOutcome) {
        self.read += 1;
        *match outcome {
            RowOutcome::Created => &mut self.created,
            RowOutcome::Updated => &mut self.updated,
            RowOutcome::Unchanged => &mut self.unchanged,
            RowOutcome::Merged => &mut self.merged,
            RowOutcome::Rejected => &mut self.rejected,
            RowOutcome::Deferred => &mut self.deferred,
        } += 1;
    }

    /// The first promise: every row is accounted for.
    pub fn add_up(&self) -> bool {
        self.read == self.created + self.updated + self.unchanged + self.merged + self.rejected + self.deferred
    }
}

/// Calls to HubSpot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Calls {
    /// Attempts of every kind, searches included.
    pub total: u64,
    /// Attempts that repeat an earlier one.
    pub retried: u64,
    /// Attempts that were answered 429.
    pub throttled: u64,
    /// Searches.
    pub search: u64,
}

impl std::ops::AddAssign for Calls {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.retried += other.retried;
        self.throttled += other.throttled;
        self.search += other.search;
    }
}

impl std::ops::Sub for Calls {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_sub(other.total),
            retried: self.retried.saturating_sub(other.retried),
            throttled: self.throttled.saturating_sub(other.throttled),
            search: self.search.saturating_sub(other.search),
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `s3://bucket/key`.
    pub uri: String,
    /// On a bucket that keeps versions.
    pub version_id: Option<String>,
    /// Entity tag, without quotes.
    pub etag: String,
    /// Bytes as stored.
    pub bytes: u64,
    /// How the file is written, as detected or set; null until it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<serde_json::Value>,
    /// `none`, `gzip` or `zstd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
}

/// How far an import has come: everything before is durable, its effects and its rejects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FilePosition {
    /// Offset of the next record, in the decompressed file.
    pub byte: u64,
    /// Physical lines before it.
    pub line: u64,
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Position {
    /// An import: `{"byte":…,"line":…}`. Tried first when one is read: a capture's lacks nothing that has no default.
    File(FilePosition),
    /// A sync: how far each side has come, by its own clock.
    Sync(SyncPosition),
    /// A capture: `{"mode":…,"itemId":…,"initialTimestamp":…}`.
    Capture(CapturePosition),
}

impl Default for Position {
    fn default() -> Self {
        Self::File(FilePosition::default())
    }
}

impl From<FilePosition> for Position {
    fn from(position: FilePosition) -> Self {
        Self::File(position)
    }
}

impl Position {
    /// Where in a file; its start for what has no file.
    pub fn file(&self) -> FilePosition {
        match self {
            Self::File(position) => *position,
            Self::Sync(_) | Self::Capture(_) => FilePosition::default(),
        }
    }
}

/// How far a sync has come: what changed before, on each side and by its clock, is in step, in review, refused, or looked at again by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncPosition {
    /// Salesforce's changes up to here; null before the first complete run.
    pub salesforce_timestamp: Option<Timestamp>,
    /// HubSpot's.
    pub hubspot_timestamp: Option<Timestamp>,
}

/// What a sync's run did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncReport {
    /// The org, by its name in the settings.
    pub org: String,
    /// `contacts`, for example.
    pub hubspot_object: String,
    /// `Contact`, for example.
    pub salesforce_object: String,
    /// Written in HubSpot.
    pub hubspot: SyncWrites,
    /// Written in Salesforce.
    pub salesforce: SyncWrites,
    /// Records that got a link, created ones among them.
    pub linked: u64,
    /// Reviews that were opened.
    pub reviews_opened: u64,
    /// Reviews that were closed: resolved, or settled by people on both sides.
    pub reviews_closed: u64,
    /// Reviews that wait; of very many at least so many.
    pub review_open: u64,
    /// Primary companies that were set or taken off.
    pub associations: u64,
    /// Calls to Salesforce; those to HubSpot are the report's `calls`.
    pub salesforce_calls: u64,
    /// Those of them that repeated another.
    pub salesforce_retried: u64,
    /// Of the org's calls of a day, how many are used by everybody, as last told.
    pub salesforce_used_percent: Option<f64>,
    /// Bulk jobs.
    pub bulk_jobs: u64,
    /// How far HubSpot's part of the position is behind HubSpot's clock, in seconds; null before the first complete run.
    pub lag_seconds: Option<u64>,
}

/// Writes on one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncWrites {
    /// Records created.
    pub created: u64,
    /// Records changed.
    pub updated: u64,
    /// Fields cleared, in the changed records.
    pub blanked: u64,
    /// Records archived or deleted.
    pub deleted: u64,
}

/// What a capture's run wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureReport {
    /// The resource, as `opencdc.collection` has it.
    pub collection: String,
    /// Where it writes.
    pub output: String,
    /// Changes by what they were.
    pub changes: ChangeCounts,
    /// Objects written.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The list of the objects written; null where there are none, or the run goes on.
    pub manifest: Option<String>,
    /// How far the position is behind HubSpot's clock; null in a snapshot.
    pub lag_seconds: Option<u64>,
}

/// What the pass over a whole file found before its first write. Counts are as if every row were sent; keys that come up again are counted once, as far
/// as one invocation remembers them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreflightReport {
    /// Rows of the file.
    pub rows: u64,
    /// Those that would be rejected: for what they hold, or for what HubSpot holds (a key that exists or does not, by the import's mode).
    pub rejected: u64,
    /// Rows whose key came up in an earlier row.
    pub repeated: u64,
    /// What would become of the records, by object type.
    pub records: BTreeMap<String, Expected>,
}

/// Records of one object type, by what would become of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expected {
    /// Made: no record has the key.
    pub create: u64,
    /// Changed, or found as they should be.
    pub update: u64,
    /// Archived.
    pub archive: u64,
}

/// What the run cost, for the bill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Calls to HubSpot, of the daily limit.
    pub hubspot_calls: u64,
    /// Memory configured × time, over all invocations; 0 off Lambda.
    pub lambda_gb_seconds: f64,
    /// Writes to the table.
    pub dynamodb_writes: u64,
    /// Requests to S3.
    pub s3_requests: u64,
}

/// Points of a [`Pace`]. Each is at most 26 bytes of a run's state, which is written with every checkpoint.
const PACE_POINTS_MAX: usize = 32;
/// Time between two points at first, in milliseconds.
const PACE_EVERY_MS: u64 = 250;

/// A run that was over sooner has no curve.
const PACE_LEAST_MS: u64 = 1_000;

/// How a run came along, for the curve in its report: few points, however long it takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pace {
    /// Calls a second that the account's limit allows, reserve and other runs left aside.
    pub ceiling_per_second: f64,
    /// Least milliseconds between two points; doubles when there would be too many.
    every_ms: u64,
    /// Milliseconds since the start, rows and calls until then. The last one is the end so far.
    pub points: Vec<[u64; 3]>,
}

impl Pace {
    /// Whether it shows anything: a curve of less than a second does not.
    pub fn is_curve(&self) -> bool {
        match self.points.as_slice() {
            [[first, ..], .., [last, ..]] => last.saturating_sub(*first) >= PACE_LEAST_MS,
            _ => false,
        }
    }

    /// A look at the run.
    pub fn add(&mut self, ms: u64, rows: u64, calls: u64) {
        self.every_ms = self.every_ms.max(PACE_EVERY_MS);
        match self.points.as_mut_slice() {
            // The last point moves on until it is far enough from the one before.
            [.., [before, ..], last] if ms.saturating_sub(*before) < self.every_ms => *last = [ms, rows, calls],
            _ => self.points.push([ms, rows, calls]),
        }
        if self.points.len() > PACE_POINTS_MAX {
            let last = self.points.len() - 1;
            let mut at = 0..;
            // The first and the last stay.
            self.points.retain(|_| at.next().is_some_and(|at: usize| at.is_multiple_of(2) || at == last));
            self.every_ms = self.every_ms.saturating_mul(2);
        }
    }
}

/// Why a run did not end well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportError {
    /// The stable code, explained in `docs/errors/<CODE>.md`.
    pub code: String,
    /// What was being done, to what, and why it failed.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl From<&Error> for ReportError {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().as_str().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint().to_owned(),
        }
    }
}

/// The report of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run; null where no run was made.
    pub run_id: Option<String>,
    /// `import`, `undo`, `capture`, `sync`.
    pub job: String,
    /// The import's, capture's or sync's name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The HubSpot account's name.
    pub account: String,
    /// What was read.
    pub source: Source,
    /// File rows by what became of them.
    pub rows: Counts,
    /// Records per object type, where a row holds several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub records: BTreeMap<String, Counts>,
    /// Records that were archived: by mode `mirror` because the file lacks them, or by change records that say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<u64>,
    /// How many rejects there are of each code.
    pub rejected_by_code: BTreeMap<String, u64>,
    /// Where the rejects are; null where there are none.
    pub rejects: Option<String>,
    /// Columns of the file that are not delivered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_columns: Vec<String>,
    /// Properties of change records that are not delivered because HubSpot keeps them itself, and in how many rows they stood.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped_properties: BTreeMap<String, u64>,
    /// Calls to HubSpot.
    pub calls: Calls,
    /// Share of the account's burst limit that was used while there was something to send; null where nothing was sent.
    pub limit_use_percent: Option<f64>,
    /// How far the run has come.
    pub position: Position,
    /// Of a capture: what it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureReport>,
    /// Of a sync: what it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncReport>,
    /// `preflight: full`: what was found before the first write; absent without it, and as long as the pass goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<PreflightReport>,
    /// How the run came along; null where that was not looked at, or the run took less than a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// How many invocations worked on the run.
    pub invocations: u64,
    /// When the run was started.
    pub started_at: Timestamp,
    /// When this report was made.
    pub finished_at: Timestamp,
    /// From start to finish.
    pub duration_ms: u64,
    /// What it cost.
    pub cost: Cost,
    /// What went wrong; null where nothing did.
    pub error: Option<ReportError>,
    /// What a reader should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_position_is_read_back_as_what_it_was() {
        for text in [
            r#"{"byte":999,"line":43}"#,
            r#"{"salesforceTimestamp":"2026-11-22T09:00:00Z","hubspotTimestamp":null}"#,
            r#"{"mode":"cdc","itemId":"256","initialTimestamp":"2026-11-22T09:00:00Z","timestamp":"2026-11-22T09:30:00Z"}"#,
        ] {
            let position: Position = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&position).unwrap(), text);
        }
    }

    #[test]
    fn a_pace_has_few_points_from_beginning_to_end_however_long_the_run() {
        let mut pace = Pace::default();
        for step in 0..10_000_u64 {
            pace.add(step * 70, step * 100, step);
        }
        assert!((PACE_POINTS_MAX / 2..=PACE_POINTS_MAX).contains(&pace.points.len()), "{}", pace.points.len());
        assert_eq!(pace.points.first(), Some(&[0, 0, 0]));
        assert!(pace.is_curve() && !Pace::default().is_curve());
        assert_eq!(pace.points.last(), Some(&[9_999 * 70, 999_900, 9_999]));
        assert!(pace.points.is_sorted(), "{pace:?}");
        let gaps: Vec<u64> = pace.points.windows(2).map(|pair| pair[1][0] - pair[0][0]).collect();
        let (_, even) = gaps.split_last().unwrap();
        assert!(even.iter().max() < even.iter().min().map(|least| least * 2).as_ref(), "{gaps:?}");
    }

    #[test]
    fn counts_add_up_by_construction() {
        let mut counts = Counts::default();
        for outcome in [RowOutcome::Created, RowOutcome::Merged, RowOutcome::Deferred, RowOutcome::Rejected] {
            counts.add(outcome);
        }
        assert!(counts.add_up());
        assert_eq!((counts.read, counts.merged), (4, 1));
        counts.read += 1;
        assert!(!counts.add_up());
    }
}
