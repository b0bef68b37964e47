//! One invocation's work on a capture: what is known is loaded, then one phase after the other does its part, and all of them emit and
//! save here.

use std::{rc::Rc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    End,
    change::{Cause, Change, Operation},
    known::{Delta, Known},
    output::{Columns, Encoder, Layout},
    position::{Position, compact},
    progress::{Phase, Progress},
    scan::ScanState,
};
use crate::{
    app::{App, Env},
    clock::Deadline,
    codes,
    config::{Capture, CaptureFormat, ExtraProperties},
    error::{Error, ErrorKind, Result},
    hubspot::{account::Account, properties::SchemaParts, records::Wanted, resources::Resource},
    import::{Spent, calls_of, held, is_passing, log::Log},
    objects::Location,
    record::{ObjectType, PropertyName},
    report::Calls,
    state::runs::{Lease, Run, Runs, decode, lost},
};

/// An object is closed when it holds so much, uncompressed: large enough for readers, small enough to hold in memory.
const OBJECT_BYTES: usize = 8 * 1024 * 1024;

/// … or so many records: what a kill costs at most.
const OBJECT_RECORDS: u64 = 20_000;

/// … or when it has been open so long.
const OBJECT_AGE: Duration = Duration::from_secs(60);

/// Time that is kept for saving and the run's end.
const END_RESERVE: Duration = Duration::from_secs(20);

/// Of an invocation shorter than that, this share.
const END_RESERVE_SHARE: u32 = 4;

/// HubSpot's clock is known to the second, and ours may have moved by one since.
const CLOCK_GRAIN: SignedDuration = SignedDuration::from_secs(2);

/// How long an object may take to write: the lease must outlast it.
const PUT_RESERVE: Duration = Duration::from_secs(10);

/// Notes of a report.
const NOTES_MAX: usize = 100;

/// A capture at work.
pub(super) struct Job {
    pub(super) env: Rc<Env>,
    pub(super) runs: Rc<Runs>,
    pub(super) account: Rc<Account>,
    pub(super) capture: Rc<Capture>,
    pub(super) resource: Rc<Resource>,
    pub(super) lease: Lease,
    pub(super) run_id: String,
    pub(super) deadline: Deadline,
    pub(super) output: Location,
    /// What is done; what of it is saved lags behind.
    pub(super) progress: Progress,
    /// What is durable; none until it was loaded.
    pub(super) saved: Option<Progress>,
    pub(super) known: Known,
    pub(super) log: Option<Log>,
    /// What is asked for of each record.
    pub(super) wanted: Rc<Wanted>,
    pub(super) layout: Option<Layout>,
    encoder: Option<Encoder>,
    opened: Duration,
    baseline: Baseline,
}

/// The doors' counters when the invocation began, and what earlier ones had counted.
struct Baseline {
    spent: Spent,
    calls: Calls,
    earlier: (Calls, u64, u64, f64, f64),
}

impl Job {
    pub(super) fn new(
        app: &App,
        capture: &Rc<Capture>,
        lease: &Lease,
        run: &Run,
        deadline: Deadline,
        progress: Progress,
        spent: Spent,
    ) -> Result<Self> {
        let account = app.account(&capture.hubspot)?;
        let resource = Rc::new(Resource::parse(&capture.resource)?);
        let done = &progress.done;
        let earlier = (done.calls, done.table_writes, done.object_requests, done.gb_seconds, done.calls_possible);
        Ok(Self {
            env: app.env().clone(),
            runs: app.runs().clone(),
            resource,
            baseline: Baseline { spent, calls: calls_of(&account), earlier },
            account,
            capture: capture.clone(),
            lease: lease.clone(),
            run_id: run.run_id.clone(),
            deadline,
            output: super::output_of(capture)?,
            saved: None,
            progress,
            known: Known::default(),
            log: None,
            wanted: Rc::new(Wanted::default()),
            layout: None,
            encoder: None,
            opened: Duration::ZERO,
        })
    }

    /// Works on the run until the window is complete or the time is up. What is emitted is saved when this returns `Ok` with anything
    /// but [`End::Failed`].
    pub(super) async fn work(&mut self, run: &Run) -> Result<End> {
        let (runs, lease, clock, deadline) =
            (self.runs.clone(), self.lease.clone(), self.env.clock.clone(), self.deadline);
        let fresh = run.progress.is_empty();
        let what = format!("capture `{}`", self.capture.name);
        match held(&runs, &lease, &*clock, deadline, Box::pin(self.phases(run))).await {
            Ok(end) => Ok(end),
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) if error.kind() == ErrorKind::Invalid && fresh && self.progress.done.objects == 0 => {
                Ok(End::Invalid(error.context(what)))
            }
            // The time ran out inside a call: what was saved stays.
            Err(error) if is_passing(&error) && self.must_stop() => Ok(End::Deadline),
            Err(error) => Ok(End::Failed(error.context(what))),
        }
    }

    async fn phases(&mut self, run: &Run) -> Result<End> {
        self.load(run).await?;
        self.prepare().await?;
        let mut worked = false;
        loop {
            if self.must_stop() {
                self.save().await?;
                return Ok(End::Deadline);
            }
            let finished = match self.progress.phase.clone() {
                Phase::Open => match self.open().await? {
                    true => true,
                    false if worked => return Ok(End::Complete),
                    false => return Ok(End::TooSoon),
                },
                Phase::Snapshot(scan) => self.snapshot(scan).await?,
                Phase::Main { after } => self.main(after).await?,
                Phase::Trailing { until, after } => self.trailing(until, after).await?,
                Phase::Deletes(scan) => self.deletes(scan).await?,
                Phase::LinksBegin(scan) => self.links_begin(scan).await?,
                Phase::Links { after } => self.links(after).await?,
                Phase::Complete => {
                    self.complete().await?;
                    return Ok(End::Complete);
                }
            };
            worked = true;
            if !finished {
                self.save().await?;
                return Ok(End::Deadline);
            }
        }
    }

    /// What earlier invocations, or earlier runs, have left.
    async fn load(&mut self, run: &Run) -> Result<()> {
        if run.progress.is_empty()
            && let Some(stream) = self.runs.stream("capture", &self.capture.name).await?
            && !stream.carry.is_empty()
        {
            self.progress = decode(&stream.carry, &format!("capture#{}", self.capture.name))?;
        }
        if let Some(base) = &self.progress.base {
            let location = Location::new(&self.output.bucket, base);
            let Some((stored, _)) = self.env.objects.get(&location).await? else {
                let message = format!("{location}, which the capture's position refers to, is not there");
                let hint =
                    "Restore it from a version of the bucket, or begin anew with `hubferry capture NAME --restart`.";
                return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message).with_hint(hint));
            };
            self.known = Known::load(&stored, &location.to_string())?;
        }
        if self.progress.log_of.is_empty() {
            self.progress.log_of.clone_from(&self.run_id);
        }
        let log = self.open_log().await?;
        let known = &mut self.known;
        log.for_each_chunk(async |chunk| Delta::read_all(chunk, |delta| known.apply(&delta))).await?;
        self.log = Some(log);
        self.saved = Some(self.progress.clone());
        Ok(())
    }

    /// The log as it is durable.
    async fn open_log(&self) -> Result<Log> {
        let folder = Location::new(&self.output.bucket, format!("{}{}/", self.state_folder(), self.progress.log_of));
        Log::open(self.env.objects.clone(), folder, "log", self.lease.fence, self.progress.log.clone()).await
    }

    /// Drops what is ahead of what is durable: the open object, and what was learned with it.
    pub(super) async fn forget_unsaved(&mut self) -> Result<()> {
        self.encoder = None;
        if self.log.is_some() {
            self.log = Some(self.open_log().await?);
        }
        Ok(())
    }

    /// Where the capture keeps what it knows.
    pub(super) fn state_folder(&self) -> String {
        format!("state/capture/{}/", self.capture.name)
    }

    /// What to ask HubSpot for, and how it is written. Any call tells HubSpot's clock.
    async fn prepare(&mut self) -> Result<()> {
        let columns = match &*self.resource {
            Resource::Crm(crm) => {
                let schema = self.account.schema(&crm.object, SchemaParts::default(), self.calls_until()).await?;
                let mut names: Vec<PropertyName> = match &self.capture.extra_properties {
                    ExtraProperties::All(_) => schema.properties.keys().map(|name| name.as_str().into()).collect(),
                    ExtraProperties::Names(extra) => {
                        let unknown: Vec<&str> = extra
                            .iter()
                            .map(String::as_str)
                            .filter(|name| !schema.properties.contains_key(*name))
                            .collect();
                        if !unknown.is_empty() {
                            let told = unknown.iter().map(|name| {
                                match crate::config::nearest(name, schema.properties.keys().map(String::as_str)) {
                                    Some(near) => format!("`{name}` (did you mean `{near}`?)"),
                                    None => format!("`{name}`"),
                                }
                            });
                            let told = told.collect::<Vec<_>>().join(", ");
                            let message = format!("{} has no such properties: {told}", crm.object);
                            return Err(Error::invalid(codes::PROPERTY_DOESNT_EXIST, message));
                        }
                        let defaults = crm.default_properties();
                        defaults.into_iter().chain(extra.iter().map(String::as_str)).map(PropertyName::from).collect()
                    }
                };
                // Who was merged into a record is known by this alone.
                if schema.properties.contains_key(MERGED) {
                    names.push(MERGED.into());
                }
                let mut seen = std::collections::BTreeSet::new();
                names.retain(|name| seen.insert(name.clone()));
                names.retain(|name| schema.properties.contains_key(&**name));
                let columns = Columns::new(names.iter().filter_map(|name| schema.properties.get(&**name)));
                self.wanted = Rc::new(Wanted { properties: names, history: false, archived: false });
                columns
            }
            Resource::Cms(_) => {
                self.account.details(self.calls_until()).await?;
                Columns::cms(self.resource.collection())
            }
        };
        if self.capture.before && self.capture.format != CaptureFormat::Opencdc {
            self.note("`before` is written by format opencdc only".to_owned());
        }
        self.layout = Some(Layout {
            format: self.capture.format,
            compression: self.capture.compression,
            collection: self.resource.collection().to_owned(),
            columns: Rc::new(columns),
        });
        Ok(())
    }

    /// Opens a window; `false` if there is nothing in it yet. The plan is saved before anything is written under it.
    async fn open(&mut self) -> Result<bool> {
        let now = self.account.server_time();
        let Some(initial) = self.progress.initial else {
            let initial = whole_second(now - CLOCK_GRAIN);
            self.progress.initial = Some(initial);
            if self.capture.snapshot {
                self.progress.phase = Phase::Snapshot(ScanState::default());
            } else {
                self.progress.covered = Some(initial);
                self.progress.trailing = Some(initial);
            }
            self.progress.part = 0;
            self.known.horizon = initial.as_millisecond();
            self.save().await?;
            return Ok(true);
        };
        let covered = self.progress.covered.unwrap_or(initial);
        let lag = SignedDuration::from_secs(self.capture.lag_seconds.into());
        let until = whole_second(now - lag);
        if until <= covered {
            return Ok(false);
        }
        self.progress.covered = Some(covered);
        self.progress.until = Some(until);
        self.progress.part = 0;
        self.progress.item_id.clear();
        self.progress.phase = Phase::Main { after: None };
        self.save().await?;
        Ok(true)
    }

    /// What comes after the pass over what was modified.
    pub(super) fn after_passes(&mut self) {
        let now = self.env.clock.now();
        let is_due = |due: Option<Timestamp>| due.is_none_or(|due| due <= now);
        self.progress.phase = if self.capture.deletes && is_due(self.progress.bin_due) {
            Phase::Deletes(ScanState::default())
        } else {
            self.after_deletes()
        };
    }

    /// What comes after the recycle bin.
    pub(super) fn after_deletes(&self) -> Phase {
        let now = self.env.clock.now();
        let crm = matches!(&*self.resource, Resource::Crm(_));
        if !crm || self.capture.associations.is_empty() || self.progress.links_due.is_some_and(|due| due > now) {
            Phase::Complete
        } else if self.progress.links_known {
            Phase::Links { after: 0 }
        } else {
            Phase::LinksBegin(ScanState::default())
        }
    }

    /// Closes the window.
    async fn complete(&mut self) -> Result<()> {
        let until = self.progress.until.or(self.progress.covered);
        self.progress.covered = until;
        self.progress.until = None;
        if self.capture.trailing_seconds == 0 {
            self.progress.trailing = until;
        }
        self.progress.phase = Phase::Open;
        self.save().await
    }

    /// Emits one change, with what is learned from it.
    pub(super) fn emit(&mut self, change: &Change, learned: impl IntoIterator<Item = Delta>) -> Result<()> {
        if self.encoder.is_none() {
            let layout = self.layout.as_ref().ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "nothing is known about the output yet")
            })?;
            self.encoder = Some(layout.encoder()?);
            self.opened = self.env.clock.elapsed();
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.push(change)?;
        }
        let counts = &mut self.progress.done.changes;
        match change.operation {
            Operation::Snapshot => counts.snapshot += 1,
            Operation::Create => counts.create += 1,
            Operation::Update => counts.update += 1,
            Operation::Delete => counts.delete += 1,
        }
        match change.cause {
            Some(Cause::Restore) => counts.restored += 1,
            Some(Cause::Merge { .. }) => counts.merged += 1,
            Some(Cause::Association) => counts.associations += 1,
            None => {}
        }
        for delta in learned {
            self.learn(&delta);
        }
        Ok(())
    }

    /// Takes note of something, so that whoever continues knows it too.
    pub(super) fn learn(&mut self, delta: &Delta) {
        let mut bytes = Vec::new();
        delta.write(&mut bytes);
        if let Some(log) = &mut self.log {
            log.append(&bytes);
        }
        self.known.apply(delta);
    }

    /// Saves if the open object is large, or old, enough.
    pub(super) async fn save_if_full(&mut self) -> Result<()> {
        let Some(encoder) = &self.encoder else { return Ok(()) };
        let age = self.env.clock.elapsed().saturating_sub(self.opened);
        if encoder.bytes() >= OBJECT_BYTES || encoder.records() >= OBJECT_RECORDS || age >= OBJECT_AGE {
            self.save().await?;
        }
        Ok(())
    }

    /// The object, then what was learned, then the position.
    pub(super) async fn save(&mut self) -> Result<()> {
        if let Some(encoder) = self.encoder.take().filter(|encoder| encoder.records() > 0) {
            let records = encoder.records();
            let body = encoder.finish()?;
            let location = Location::new(&self.output.bucket, self.object_key());
            let bytes = body.len() as u64;
            self.hold().await?;
            let content_type = self.layout.as_ref().map_or("application/octet-stream", Layout::content_type);
            self.env.objects.put(&location, body, content_type).await?;
            self.progress.part += 1;
            self.progress.done.objects += 1;
            self.progress.done.bytes += bytes;
            self.learn(&Delta::Object(location.key, records, bytes));
        }
        self.count_costs();
        let learned = self.log.as_ref().is_some_and(Log::dirty);
        if !learned && self.saved.as_ref().is_some_and(|saved| is_same(saved, &self.progress)) {
            return Ok(());
        }
        let unsaved = self.log.as_ref().map(Log::unsaved);
        if let Some(unsaved) = &unsaved {
            unsaved.write(&*self.env.objects).await?;
            self.progress.log = unsaved.state.clone();
        }
        let position = self.progress.position();
        self.runs.checkpoint(&self.lease, self.deadline, &position, &self.progress, true).await?;
        if let (Some(log), Some(unsaved)) = (&mut self.log, unsaved) {
            log.saved(unsaved.state);
        }
        self.saved = Some(self.progress.clone());
        Ok(())
    }

    /// Where the next object goes: computed from the position alone, so that writing it again replaces it.
    fn object_key(&self) -> String {
        let initial = self.progress.initial.unwrap_or_default();
        let from = self.progress.covered.unwrap_or(initial);
        let until = self.progress.until.unwrap_or(from);
        let day = until.strftime("%Y-%m-%d");
        let extension = self.layout.as_ref().map(Layout::extension).unwrap_or_default();
        let part = self.progress.part + 1;
        format!("{}dt={day}/{}-{}.{part:06}.{extension}", self.output.key, compact(from), compact(until))
    }

    /// Makes sure that the lease lasts for a write that has no fence of its own.
    async fn hold(&mut self) -> Result<()> {
        let lasts = |until: Timestamp, now: Timestamp| {
            Duration::try_from(until.duration_since(now)).is_ok_and(|left| left > PUT_RESERVE)
        };
        if !lasts(self.lease.held_until.get(), self.env.clock.now()) {
            self.runs.renew(&self.lease, self.deadline).await?;
        }
        // Near the deadline the lease is short; past it nothing is sent.
        if self.env.clock.now() >= self.lease.held_until.get() {
            return Err(lost(&self.lease));
        }
        Ok(())
    }

    /// Calls are not begun, and not waited for, beyond this.
    pub(super) fn calls_until(&self) -> Deadline {
        let reserve = self.reserve() / 2;
        Deadline { at: self.deadline.at.checked_sub(reserve).unwrap_or(self.deadline.at) }
    }

    /// Whether the time left is needed for the end.
    pub(super) fn must_stop(&self) -> bool {
        !self.deadline.allows(self.env.clock.now(), self.reserve())
    }

    fn reserve(&self) -> Duration {
        let began = self.env.clock.elapsed().saturating_sub(self.baseline.spent.elapsed);
        let whole = self.deadline.remaining(self.env.clock.now()).saturating_add(began);
        END_RESERVE.min(whole / END_RESERVE_SHARE)
    }

    /// The position of a change of this record.
    pub(super) fn position_of(&self, id: &str, at: Option<Timestamp>) -> String {
        let initial = self.progress.initial.unwrap_or_default();
        match at {
            Some(at) => Position::of_change(id, initial, at).json(),
            None => Position::of_snapshot(id, initial).json(),
        }
    }

    /// Objects whose associations are captured.
    pub(super) fn link_objects(&self) -> &[ObjectType] {
        &self.capture.associations
    }

    pub(super) fn note(&mut self, note: String) {
        let notes = &mut self.progress.done.notes;
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Brings calls and costs up to date.
    pub(super) fn count_costs(&mut self) {
        let (calls, writes, requests, gb_seconds, possible) = self.baseline.earlier;
        let spent = &self.baseline.spent;
        let mut total = calls;
        total += calls_of(&self.account) - self.baseline.calls;
        let seconds = self.env.clock.elapsed().saturating_sub(spent.elapsed).as_secs_f64();
        let done = &mut self.progress.done;
        done.calls = total;
        done.gb_seconds = gb_seconds + seconds * f64::from(self.env.memory_mb.get()) / 1024.0;
        done.calls_possible = possible + seconds * self.account.ceiling_per_second();
        done.table_writes = writes + self.env.table.writes().saturating_sub(spent.table_writes);
        done.object_requests = requests + self.env.objects.requests().saturating_sub(spent.object_requests);
    }
}

/// Lists the records that were merged into a record, on those that can be merged.
pub(super) const MERGED: &str = "hs_merged_object_ids";

/// Whether there is anything new to save: what the work has cost is not.
fn is_same(saved: &Progress, now: &Progress) -> bool {
    let without_costs = |progress: &Progress| {
        let mut progress = progress.clone();
        let done = &mut progress.done;
        (done.calls, done.calls_possible, done.gb_seconds) = Default::default();
        (done.table_writes, done.object_requests) = (0, 0);
        progress
    };
    without_costs(saved) == without_costs(now)
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
