//! Runs, their leases and positions, and the last-run contexts.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `run#<run_id>` | `run` | lease, fence, position, progress and, at the end, the report: one item, so that "still mine" and "moved forward" are one conditional write |
//! | `source#<bucket>/<key>` | `version#<version id or etag>` | the run of this version of the object |
//! | `source#<bucket>/<key>` | `latest` | the newest sequencer that was admitted |
//! | `open` | `<run_id>` | a run that is not over, for the sweep |
//! | `context#<job>#<name>` | `context` | the last run, the last successful run |
//!
//! Captures have one item more: [`super::streams`].
//!
//! A process may die between any two writes here. The order is such that what is left behind is either complete or is taken up by the
//! next one who comes: pointer, run, open entry at the start; context, run, open entry at the end.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Changed, Condition, Item, Key, Table, Update, Value};
use crate::{
    clock::{Clock, Deadline},
    codes,
    error::{Error, ErrorKind, Result},
    mutate::{self, Bug},
    report::{Counts, Outcome, Position, Report},
};

/// How long a lease lasts unless it is renewed. Every checkpoint renews it; [`RENEW_AFTER`] bounds the time between two renewals.
pub const LEASE: Duration = Duration::from_secs(30);

/// When a lease is renewed even though there is no progress to save.
pub const RENEW_AFTER: Duration = Duration::from_secs(10);

/// How long finished runs are remembered, so that a late redelivery is still recognised: S3 and SQS redeliver within 14 days at most.
const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Invocations in a row without progress after which a run fails.
pub const STALLS_MAX: i64 = 4;

/// Invocations after which a run fails whatever its progress: at 15 minutes each more than three months. A ceiling of our own, because
/// Lambda's guard against loops has to be switched off for continuations.
pub const INVOCATIONS_MAX: i64 = 10_000;

/// How long an open entry may stand without its run before it is taken for a leftover.
const ENTRY_AGE_MAX: Duration = Duration::from_secs(3_600);

/// How many open runs one sweep looks at.
pub const SWEEP_MAX: usize = 100;

/// Reports of ended runs that are kept until they are taken: more than one event can end.
const ENDED_MAX: usize = 1_000;

/// Which object a run imports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSource {
    /// Bucket.
    pub bucket: String,
    /// Key, not encoded.
    pub key: String,
    /// Version id, where the bucket keeps versions.
    pub version_id: Option<String>,
    /// Entity tag.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// S3's order of events of one key, normalised so that text order is event order.
    pub sequencer: Option<String>,
}

/// What identifies one version of an object: its version id, else its entity tag.
pub fn version_of(version_id: Option<&str>, etag: &str) -> String {
    match version_id {
        Some(version) if version != "null" && !version.is_empty() => format!("version#{version}"),
        _ => format!("version#etag-{etag}"),
    }
}

/// A run as it is stored.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id.
    pub run_id: String,
    /// `import`, `capture`, `sync`.
    pub job: String,
    /// The import's name.
    pub name: String,
    /// The object.
    pub source: RunSource,
    /// Null while the run is open.
    pub outcome: Option<Outcome>,
    /// The last owner's number.
    pub fence: i64,
    /// When the lease runs out; nobody holds it after that.
    pub lease_expires_at: Timestamp,
    /// Who took the lease last; empty if nobody ever did.
    pub owner: String,
    /// The last position that was saved, as JSON; empty before the first checkpoint.
    pub position: String,
    /// The sweep leaves it alone until then.
    pub not_before: Timestamp,
    /// How many invocations have worked on it.
    pub invocations: i64,
    /// How many of them in a row made no progress.
    pub stalls: i64,
    /// When it was started.
    pub started_at: Timestamp,
    /// The job's own account of how far it has come, as JSON; empty before the first checkpoint.
    pub progress: String,
    /// The report, once there is one.
    pub report: Option<Report>,
    /// Fingerprint of the import's settings with which it ran.
    pub settings: String,
    /// The runs of older versions of the object that have to have stopped before this one writes; ids, separated by spaces.
    pub older: Option<String>,
    /// A newer version of the object has come: nothing more is written.
    pub superseded: bool,
}

impl Run {
    /// Why the run is not to go on, if it has been worked on too often to no purpose.
    pub fn stalled(&self) -> Option<String> {
        (self.stalls > STALLS_MAX || self.invocations > INVOCATIONS_MAX).then(|| {
            format!(
                "after {} invocations, {} of them in a row without progress, the run has not come to its end",
                self.invocations - 1,
                self.stalls - 1
            )
        })
    }

    pub(super) fn from_item(run_id: &str, item: &Item) -> Result<Self> {
        let corrupt = |what: &str| {
            Error::new(
                ErrorKind::Corrupt,
                codes::STATE_CORRUPT,
                format!("item run#{run_id}: attribute `{what}` cannot be read"),
            )
        };
        let text = |name: &str| match item.get(name) {
            Some(Value::S(text)) => Ok(text.clone()),
            _ => Err(corrupt(name)),
        };
        let number = |name: &str| match item.get(name) {
            Some(Value::N(number)) => *number,
            _ => 0,
        };
        let source = serde_json::from_str(&text("source")?).map_err(|error| corrupt("source").with_source(error))?;
        let report = match item.get("report") {
            Some(Value::S(report)) => {
                serde_json::from_str(report).map_err(|error| corrupt("report").with_source(error))?
            }
            _ => None,
        };
        let outcome = match text("outcome")?.as_str() {
            "open" => None,
            word => Some(
                serde_json::from_value(serde_json::Value::String(word.to_owned()))
                    .map_err(|error| corrupt("outcome").with_source(error))?,
            ),
        };
        Ok(Self {
            run_id: run_id.to_owned(),
            job: text("job")?,
            name: text("name")?,
            source,
            outcome,
            fence: number("fence"),
            lease_expires_at: millis(number("lease_expires_at")),
            owner: text("owner").unwrap_or_default(),
            position: text("position").unwrap_or_default(),
            not_before: millis(number("not_before")),
            invocations: number("invocations"),
            stalls: number("stalls"),
            started_at: millis(number("started_at")),
            progress: text("progress").unwrap_or_default(),
            report,
            settings: text("settings").unwrap_or_default(),
            older: text("older").ok().filter(|older| !older.is_empty()),
            superseded: item.contains_key("superseded_by"),
        })
    }
}

fn millis(epoch_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(epoch_ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The right to work on a run, until it expires or another owner takes over.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Until when it is known to be ours, as of the last renewal: from then on nothing may be sent. Shared by all clones.
    pub held_until: Rc<Cell<Timestamp>>,
    /// The run.
    pub run_id: String,
    /// Grows with each owner; every later write carries it.
    pub fence: i64,
    /// Which invocation of the run this is, from 1.
    pub invocations: i64,
}

/// What came of asking for a lease.
#[derive(Debug)]
pub enum Leased {
    /// It is ours; the run as it is now.
    Yes(Lease, Box<Run>),
    /// Another owner holds it.
    Busy(Box<Run>),
    /// The run is over.
    Over(Box<Run>),
}

/// The last-run context of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunContext {
    /// The last run.
    pub last_run: LastRun,
    /// The last one that was `done`.
    pub last_successful_run: Option<LastRun>,
}

/// A run in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its id.
    pub run_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// `s3://bucket/key`.
    pub source: String,
    /// The source's entity tag.
    pub etag: String,
    /// What became of the rows.
    pub rows: Counts,
    /// How far it came.
    pub position: Position,
    /// The error's code, where there was one.
    pub error_code: Option<String>,
}

impl From<&Report> for LastRun {
    fn from(report: &Report) -> Self {
        Self {
            run_id: report.run_id.clone().unwrap_or_default(),
            outcome: report.outcome,
            started_at: report.started_at,
            finished_at: report.finished_at,
            source: report.source.uri.clone(),
            etag: report.source.etag.clone(),
            rows: report.rows,
            position: report.position.clone(),
            error_code: report.error.as_ref().map(|error| error.code.clone()),
        }
    }
}

/// All of it, on top of a table.
pub struct Runs {
    pub(super) table: Rc<dyn Table>,
    pub(super) clock: Rc<dyn Clock>,
    /// See [`Runs::take_ended`].
    ended: RefCell<Vec<Report>>,
}

impl Runs {
    /// Runs kept in `table`.
    pub fn new(table: Rc<dyn Table>, clock: Rc<dyn Clock>) -> Self {
        Self { table, clock, ended: RefCell::default() }
    }

    /// The run, if there is one.
    pub async fn get(&self, run_id: &str) -> Result<Option<Run>> {
        self.table.get(&run_key(run_id)).await?.map(|item| Run::from_item(run_id, &item)).transpose()
    }

    /// The finished or open run of this version of an object, if there is one.
    pub async fn of_version(&self, bucket: &str, key: &str, version: &str) -> Result<Option<Run>> {
        let pointer = self.table.get(&Key::new(format!("source#{bucket}/{key}"), version)).await?;
        match pointer.as_ref().and_then(|item| item.get("run_id")) {
            Some(Value::S(run_id)) => self.get(run_id).await,
            _ => Ok(None),
        }
    }

    /// Takes the lease of an open run, if nobody holds it. `owner` is unique to this invocation.
    pub async fn lease(&self, run_id: &str, owner: &str, deadline: Deadline) -> Result<Leased> {
        let now = self.clock.now();
        let run = self
            .get(run_id)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, codes::NAME_UNKNOWN, format!("there is no run {run_id}")))?;
        if run.outcome.is_some() {
            return Ok(Leased::Over(Box::new(run)));
        }
        let lease_end = self.lease_end(now, deadline);
        let update = Update {
            set: vec![
                ("owner", owner.into()),
                ("lease_expires_at", lease_end.into()),
                // Progress since the last lease is told by the checkpoint, which sets this back to 0.
                ("stalls", (run.stalls + 1).into()),
            ],
            add: vec![("fence", 1), ("invocations", 1)],
            condition: Some(Condition::All(vec![
                Condition::Equals("outcome", "open".into()),
                Condition::Equals("fence", run.fence.into()),
                Condition::Any(vec![
                    Condition::Absent("lease_expires_at"),
                    Condition::AtMost(
                        "lease_expires_at",
                        if mutate::on(Bug::LeaseTaken) { i64::MAX } else { now.as_millisecond() }.into(),
                    ),
                ]),
            ])),
            ..Update::default()
        };
        let item = match self.table.update(&run_key(run_id), update).await? {
            Changed::Yes(item) => item,
            // Our own lost answer: the lease is ours all the same.
            Changed::No(Some(item)) if item.get("owner") == Some(&owner.into()) => item,
            Changed::No(item) => {
                let run = match item {
                    Some(item) => Run::from_item(run_id, &item)?,
                    None => run,
                };
                return Ok(if run.outcome.is_some() {
                    Leased::Over(Box::new(run))
                } else {
                    Leased::Busy(Box::new(run))
                });
            }
        };
        let run = Run::from_item(run_id, &item)?;
        let lease = Lease {
            held_until: Rc::new(Cell::new(millis(lease_end))),
            run_id: run_id.to_owned(),
            fence: run.fence,
            invocations: run.invocations,
        };
        Ok(Leased::Yes(lease, Box::new(run)))
    }

    /// Saves progress and renews the lease. `moved` says whether the position is further than the last saved one.
    pub async fn checkpoint(
        &self,
        lease: &Lease,
        deadline: Deadline,
        position: &impl Serialize,
        progress: &impl Serialize,
        moved: bool,
    ) -> Result<()> {
        let until = self.lease_end(self.clock.now(), deadline);
        let mut set = vec![("position", encode(position)?.into()), ("progress", encode(progress)?.into())];
        if !mutate::on(Bug::LeaseNotRenewed) {
            set.push(("lease_expires_at", until.into()));
        }
        if moved {
            set.push(("stalls", 0.into()));
        }
        self.going_on(lease, Update { set, ..Update::default() }, until).await
    }

    /// Changes what is stored of the progress: `change` gets it as it is in the table, which may be newer than what this process believes to
    /// have saved, because an answer was lost. It is `None` where nothing was saved yet; nothing is written where `change` returns `None`.
    pub async fn amend<P: Serialize + DeserializeOwned, S: Serialize>(
        &self,
        lease: &Lease,
        deadline: Deadline,
        change: impl FnOnce(Option<P>) -> Option<(S, P)>,
    ) -> Result<()> {
        let run = self.get(&lease.run_id).await?.ok_or_else(|| lost(lease))?;
        let stored = match run.progress.as_str() {
            "" => None,
            text => Some(decode(text, &format!("run#{}", lease.run_id))?),
        };
        match change(stored) {
            Some((position, progress)) => self.checkpoint(lease, deadline, &position, &progress, false).await,
            None => Ok(()),
        }
    }

    /// Renews the lease alone.
    pub async fn renew(&self, lease: &Lease, deadline: Deadline) -> Result<()> {
        let until = self.lease_end(self.clock.now(), deadline);
        if mutate::on(Bug::LeaseNotRenewed) {
            lease.held_until.set(millis(until));
            return Ok(());
        }
        self.going_on(lease, Update { set: vec![("lease_expires_at", until.into())], ..Update::default() }, until).await
    }

    /// `Fenced` if another has taken over, or the run is over.
    pub async fn still_ours(&self, lease: &Lease) -> Result<()> {
        let set = vec![("lease_expires_at", self.lease_end(self.clock.now(), Deadline::NONE).into())];
        self.fenced(lease, Update { set, ..Update::default() }).await
    }

    /// Gives the lease back, so that the next invocation can go on: at once, or, as far as the sweep is concerned, not before
    /// `not_before`. `standing` says whether waiting counts as standing still; waiting for a known moment does not.
    pub async fn release(&self, lease: &Lease, not_before: Option<Timestamp>, standing: bool) -> Result<()> {
        let mut set = vec![
            ("lease_expires_at", 0.into()),
            ("not_before", not_before.map_or(0, Timestamp::as_millisecond).into()),
        ];
        if !standing {
            set.push(("stalls", 0.into()));
        }
        self.fenced(lease, Update { set, ..Update::default() }).await
    }

    /// Ends the run: context, then run, then open entry. Repeating it after a crash in between changes nothing.
    pub async fn finish(&self, lease: &Lease, report: &Report) -> Result<()> {
        // The context has no fence of its own.
        self.still_ours(lease).await?;
        self.remember(report).await?;
        let update = Update {
            set: vec![
                ("outcome", report.outcome.as_str().into()),
                ("report", encode(report)?.into()),
                ("lease_expires_at", 0.into()),
                ("expires_at", self.remembered_until().into()),
            ],
            ..Update::default()
        };
        self.fenced(lease, update).await?;
        self.note_end(report);
        self.close(&lease.run_id).await
    }

    /// A run has ended here: by [`Runs::finish`], or without ever having been made.
    pub(crate) fn note_end(&self, report: &Report) {
        let mut ended = self.ended.borrow_mut();
        if ended.len() < ENDED_MAX {
            ended.push(report.clone());
        }
    }

    /// Takes the reports of the runs that this process has ended since the last time. Whoever made the one fenced write that ends a run has it
    /// here, and nobody else: what is told by this is told once a run, and never if the process dies first.
    pub fn take_ended(&self) -> Vec<Report> {
        self.ended.take()
    }

    /// Takes a run off the list of open ones.
    pub async fn close(&self, run_id: &str) -> Result<()> {
        self.table.delete(&Key::new("open", run_id), None).await?;
        Ok(())
    }

    /// Ids of runs that are not known to be over, oldest first, and whether an entry is so old that its run must have been made.
    pub async fn open_runs(&self) -> Result<Vec<(String, bool)>> {
        let now = self.clock.now();
        let entries = self.table.query("open", SWEEP_MAX).await?;
        Ok(entries
            .into_iter()
            .map(|(key, item)| {
                let since = match item.get("since") {
                    Some(Value::N(since)) => millis(*since),
                    _ => Timestamp::UNIX_EPOCH,
                };
                (key.sk, since.saturating_add(ENTRY_AGE_MAX).is_ok_and(|end| end < now))
            })
            .collect())
    }

    /// The last-run context of a job.
    pub async fn context(&self, job: &str, name: &str) -> Result<Option<RunContext>> {
        let Some(item) = self.table.get(&context_key(job, name)).await? else { return Ok(None) };
        let part = |attribute: &str| match item.get(attribute) {
            Some(Value::S(text)) => decode(text, &format!("context#{job}#{name}")).map(Some),
            _ => Ok(None),
        };
        let Some(last_run) = part("last_run")? else { return Ok(None) };
        Ok(Some(RunContext { last_run, last_successful_run: part("last_successful_run")? }))
    }

    /// Writes the last-run context from a report.
    pub async fn remember(&self, report: &Report) -> Result<()> {
        let last = encode(&LastRun::from(report))?;
        let mut set = vec![("last_run", Value::S(last.clone()))];
        if report.outcome == Outcome::Done {
            set.push(("last_successful_run", Value::S(last)));
        }
        self.table.update(&context_key(&report.job, &report.name), Update { set, ..Update::default() }).await?;
        Ok(())
    }

    pub(super) async fn mark_open(&self, run_id: &str) -> Result<()> {
        let update = Update { set: vec![("since", self.clock.now().as_millisecond().into())], ..Update::default() };
        self.table.update(&Key::new("open", run_id), update).await?;
        Ok(())
    }

    /// A change that is made only while the run is ours, open, and no newer version of its object has come.
    async fn going_on(&self, lease: &Lease, mut update: Update, until: i64) -> Result<()> {
        update.condition = Some(Condition::All(vec![
            Condition::Equals("fence", lease.fence.into()),
            Condition::Equals("outcome", "open".into()),
            Condition::Absent("superseded_by"),
        ]));
        match self.table.update(&run_key(&lease.run_id), update).await? {
            Changed::Yes(_) => {
                lease.held_until.set(millis(until));
                Ok(())
            }
            Changed::No(Some(item))
                if item.get("fence") == Some(&lease.fence.into()) && item.contains_key("superseded_by") =>
            {
                Err(Error::new(
                    ErrorKind::Conflict,
                    codes::SOURCE_CHANGED,
                    format!("run {}: a newer version of the object has come", lease.run_id),
                ))
            }
            Changed::No(_) => Err(lost(lease)),
        }
    }

    /// A change of the run that is made only while its fence is ours and it is open.
    async fn fenced(&self, lease: &Lease, mut update: Update) -> Result<()> {
        update.condition = Some(Condition::All(vec![
            Condition::Equals("fence", lease.fence.into()),
            Condition::Equals("outcome", "open".into()),
        ]));
        let ending = update.set.iter().find(|(name, _)| *name == "outcome").map(|(_, outcome)| outcome.clone());
        match self.table.update(&run_key(&lease.run_id), update).await? {
            Changed::Yes(_) => Ok(()),
            // The answer to our own first attempt at ending the run was lost.
            Changed::No(Some(item))
                if ending.is_some()
                    && item.get("fence") == Some(&lease.fence.into())
                    && item.get("outcome") == ending.as_ref() =>
            {
                Ok(())
            }
            Changed::No(_) => Err(lost(lease)),
        }
    }

    fn lease_end(&self, now: Timestamp, deadline: Deadline) -> i64 {
        let end = now.saturating_add(LEASE).unwrap_or(Timestamp::MAX).min(deadline.at);
        end.as_millisecond()
    }

    pub(super) fn remembered_until(&self) -> i64 {
        self.clock.now().saturating_add(REMEMBERED).unwrap_or(Timestamp::MAX).as_second()
    }
}

/// The lease is another's, or may be.
pub fn lost(lease: &Lease) -> Error {
    let message = format!("run {}: another invocation has taken over", lease.run_id);
    Error::new(ErrorKind::Fenced, codes::FENCED, message)
}

pub(super) fn run_key(run_id: &str) -> Key {
    Key::new(format!("run#{run_id}"), "run")
}

fn context_key(job: &str, name: &str) -> Key {
    Key::new(format!("context#{job}#{name}"), "context")
}

pub(super) fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "state cannot be written as JSON").with_source(error)
    })
}

/// Reads a stored JSON text; `item` names it in the error.
pub fn decode<T: DeserializeOwned>(text: &str, item: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, format!("item {item} cannot be read")).with_source(error)
    })
}
