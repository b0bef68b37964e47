//! One invocation's work on a capture: what is known is loaded, then one phase after the other does its part, and all of them emit and
//! save here.

use std::{collections::HashSet, rc::Rc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    End,
    change::{Cause, Change, Operation},
    known::{Delta, Known},
    output::{Columns, Encoder, Layout},
    position::{Position, compact},
    progress::{self, Phase, Progress},
};
use crate::{
    app::{App, Env, Update},
    clock::Deadline,
    codes,
    config::{Capture, CaptureFormat, ExtraProperties},
    error::{Error, ErrorKind, Result},
    http::retry::ATTEMPT_RESERVE,
    hubspot::{
        account::Account, cms::CmsQuery, model::PropertyDefinition, properties::SchemaParts, records::Wanted,
        resources::Resource, scan::ScanState,
    },
    import::{Spent, calls_of, held, is_passing, log::Log},
    mutate::{self, Bug},
    objects::Location,
    record::{ObjectType, PropertyName},
    report::Calls,
    state::runs::{Lease, Run, Runs, decode, lost},
};

/// An object is closed when it holds so much, uncompressed: large enough for readers, small enough to hold in memory.
const OBJECT_BYTES: usize = 8 * 1024 * 1024;

/// … or so many records: what a kill costs at most.
const OBJECT_RECORDS: u64 = 20_000;

/// … or when nothing was saved for so long.
const OBJECT_AGE: Duration = Duration::from_secs(60);

/// Time that is kept for saving and the run's end.
const END_RESERVE: Duration = Duration::from_secs(20);

/// Of an invocation shorter than that, this share.
const END_RESERVE_SHARE: u32 = 4;

/// How long before calls are refused for want of time no new work is begun.
const CALLS_END: Duration = Duration::from_millis(500);

/// HubSpot's clock is known to the second, and ours may have moved by one since.
const CLOCK_GRAIN: SignedDuration = SignedDuration::from_secs(2);

/// How long an object may take to write: the lease must outlast it.
const PUT_RESERVE: Duration = Duration::from_secs(10);

/// How often an object is written where others write it too.
const PUTS_MAX: u32 = 4;

/// A sweep is repeated when this many times as long as it took has passed: it takes a tenth of the account's time at most.
const SWEEP_SHARE: u32 = 9;

/// … and within this, however long it takes: what comes and goes between two sweeps is not seen.
const SWEEP_GAP_MAX: Duration = Duration::from_secs(3_600);

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
    /// Who this invocation has seen in the recycle bin.
    pub(super) in_bin: HashSet<u64>,
    /// Saving was begun, and has not come to its end.
    is_saving: bool,
    /// When something was saved last.
    written: Duration,
    /// When this invocation's part of a sweep began.
    sweep_mark: Option<Duration>,
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
        progress: Option<Progress>,
        spent: Spent,
    ) -> Result<Self> {
        let account = app.account(&capture.hubspot)?;
        let resource = Rc::new(Resource::parse(&capture.resource)?);
        // Whatever happens to this invocation, the next run goes on from what earlier ones have saved.
        let saved = progress.clone();
        let progress = progress.unwrap_or_default();
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
            saved,
            progress,
            known: Known::default(),
            log: None,
            wanted: Rc::new(Wanted::default()),
            layout: None,
            encoder: None,
            in_bin: HashSet::new(),
            is_saving: false,
            written: app.env().clock.elapsed(),
            sweep_mark: None,
        })
    }

    /// Works on the run until the window is complete or the time is up. What is emitted is saved when this returns `Ok` with anything
    /// but [`End::Failed`].
    pub(super) async fn work(&mut self, run: &Run) -> Result<End> {
        let (runs, lease, clock, deadline) =
            (self.runs.clone(), self.lease.clone(), self.env.clock.clone(), self.deadline);
        let fresh = run.progress.is_empty();
        let what = format!("capture `{}`", self.capture.name);
        let mut end = held(&runs, &lease, &*clock, deadline, Box::pin(self.phases(run))).await;
        // Whatever call has failed for a passing reason: what was emitted before it is whole, and need not be read again.
        if end.as_ref().is_err_and(is_passing)
            && let Err(error) = held(&runs, &lease, &*clock, deadline, Box::pin(self.save_rest())).await
        {
            end = Err(error);
        }
        match end {
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
        self.remove_orphan().await?;
        self.adopt_links();
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
                Phase::Bin(scan) => self.bin(scan).await?,
                Phase::Snapshot(scan) => self.snapshot(scan).await?,
                Phase::Main { after } => self.main(after).await?,
                Phase::Trailing { until, after } => self.trailing(until, after).await?,
                Phase::Deletes(scan) => self.deletes(scan).await?,
                Phase::Returned { after } => self.returned(after).await?,
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
            let location = place(base)?;
            let Some((stored, _)) = self.env.objects.get(&location).await? else {
                let message = format!("{location}, which the capture's position refers to, is not there");
                let hint =
                    "Restore it from a version of the bucket, or begin anew with `hubferry capture NAME --restart`.";
                return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message).with_hint(hint));
            };
            self.known = Known::load(&stored, &location.to_string())?;
        }
        if self.progress.log_in.is_empty() {
            let folder = format!("{}{}/", self.state_folder(), self.run_id);
            self.progress.log_in = Location::new(&self.output.bucket, folder).to_string();
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
        Log::open(
            self.env.objects.clone(),
            place(&self.progress.log_in)?,
            "log",
            self.lease.fence,
            self.progress.log.clone(),
        )
        .await
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
        let resource = self.resource.clone();
        let columns = match &*resource {
            Resource::Crm(crm) => {
                let schema = self.account.schema(&crm.object, SchemaParts::default(), self.calls_until()).await?;
                let begun = self.progress.initial.is_some();
                let mut vanished = Vec::new();
                let mut names: Vec<PropertyName> = match &self.capture.extra_properties {
                    // A new property comes last, and one that is gone keeps its place: columns do not move between files.
                    ExtraProperties::All(_) => {
                        let earlier = self.progress.columns.iter().map(String::as_str);
                        let all = earlier.chain(schema.properties.keys().map(String::as_str));
                        all.map(PropertyName::from).collect()
                    }
                    ExtraProperties::Names(extra) => {
                        let unknown: Vec<&str> = extra
                            .iter()
                            .map(String::as_str)
                            .filter(|name| !schema.properties.contains_key(*name))
                            .collect();
                        if begun {
                            vanished.extend(unknown.iter().map(|name| (*name).to_owned()));
                        } else if !unknown.is_empty() {
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
                let extra = |name: &PropertyName| match &self.capture.extra_properties {
                    ExtraProperties::All(_) => true,
                    ExtraProperties::Names(extra) => extra.iter().any(|one| **one == **name),
                };
                names.retain(|name| schema.properties.contains_key(&**name) || extra(name));
                let gone = PropertyDefinition::default();
                let definitions: Vec<PropertyDefinition> = names
                    .iter()
                    .map(|name| match schema.properties.get(&**name) {
                        Some(definition) => definition.clone(),
                        None => PropertyDefinition { name: name.to_string(), ..gone.clone() },
                    })
                    .collect();
                let columns = Columns::new(&definitions);
                if matches!(self.capture.extra_properties, ExtraProperties::All(_)) {
                    self.progress.columns = names.iter().map(|name| name.to_string()).collect();
                }
                names.retain(|name| schema.properties.contains_key(&**name));
                for name in vanished {
                    self.note(format!("{} has no property `{name}` any more: its column stays empty", crm.object));
                }
                self.wanted = Rc::new(Wanted { properties: names, history: false, archived: false });
                columns
            }
            Resource::Cms(_) => Columns::cms(self.resource.collection()),
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
        self.ask_the_time().await?;
        let now = self.account.server_time();
        let Some(initial) = self.progress.initial else {
            let initial = whole_second(now - CLOCK_GRAIN);
            self.progress.initial = Some(initial);
            if self.capture.snapshot {
                self.progress.phase = match &*self.resource {
                    Resource::Crm(_) if self.capture.deletes => Phase::Bin(ScanState::default()),
                    _ => Phase::Snapshot(ScanState::default()),
                };
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
        let lag = if mutate::on(Bug::LagDropped) { SignedDuration::ZERO } else { lag };
        let until = whole_second(now - lag - CLOCK_GRAIN / 2);
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

    /// Makes a call, whose answer tells HubSpot's clock as it is now.
    async fn ask_the_time(&self) -> Result<()> {
        match &*self.resource {
            Resource::Crm(crm) => {
                let ids = Wanted::ids(false);
                self.account.list_records(&crm.object, &ids, None, self.calls_until()).await.map(drop)
            }
            Resource::Cms(cms) => {
                self.account.list_cms(cms, CmsQuery::default(), None, self.calls_until()).await.map(drop)
            }
        }
    }

    /// Removes the one object that a dead invocation may have written beyond the position. What it held is found again; were it not
    /// written again, because it has changed since, the old would stand beside the new.
    async fn remove_orphan(&mut self) -> Result<()> {
        if self.progress.initial.is_none() || self.progress.phase == Phase::Open {
            return Ok(());
        }
        let location = Location::new(&self.output.bucket, self.object_key());
        self.hold().await?;
        self.env.objects.delete(&location).await
    }

    /// Links are known by the place of their object in the settings: where that has changed, they are learned anew.
    fn adopt_links(&mut self) {
        let names: Vec<String> = self.capture.associations.iter().map(ToString::to_string).collect();
        if names == self.progress.link_objects {
            return;
        }
        if !self.progress.link_objects.is_empty() || self.progress.links_known {
            self.learn(&Delta::LinksReset);
            self.progress.links_partial = true;
            if self.progress.links_known {
                self.note(
                    "`associations` were changed: those of all records are learned anew, without changes".to_owned(),
                );
            }
        }
        self.progress.links_known = false;
        self.progress.links_due = None;
        self.progress.link_objects = names;
        if matches!(self.progress.phase, Phase::Links { .. } | Phase::LinksBegin(_)) {
            self.progress.phase = Phase::LinksBegin(ScanState::default());
        }
    }

    /// What comes after the pass over what was modified.
    pub(super) fn after_passes(&mut self) {
        let now = self.env.clock.now();
        self.progress.phase = match self.progress.bin_due.filter(|due| *due > now) {
            _ if !self.capture.deletes => self.after_deletes(),
            None => Phase::Deletes(ScanState::default()),
            Some(due) => {
                self.note(format!("the recycle bin is long: it is listed again at {due}"));
                self.after_deletes()
            }
        };
    }

    /// A sweep works from now on.
    pub(super) fn sweep_begins(&mut self) {
        if self.sweep_mark.is_none() {
            self.sweep_mark = Some(self.env.clock.elapsed());
        }
    }

    /// The sweep is over. When it is to be made again: so that it takes a tenth of the time, and within the hour.
    pub(super) fn sweep_ends(&mut self) -> Option<Timestamp> {
        self.count_sweep();
        self.sweep_mark = None;
        let took = Duration::from_millis(std::mem::take(&mut self.progress.sweep_ms));
        self.env.clock.now().checked_add((took * SWEEP_SHARE).min(SWEEP_GAP_MAX)).ok()
    }

    fn count_sweep(&mut self) {
        let Some(mark) = self.sweep_mark else { return };
        let now = self.env.clock.elapsed();
        let took = u64::try_from(now.saturating_sub(mark).as_millis()).unwrap_or(u64::MAX);
        self.progress.sweep_ms = self.progress.sweep_ms.saturating_add(took);
        self.sweep_mark = Some(now);
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
        // While the window is open: its last object has the window's name, and lies where one of a dead invocation is looked for.
        self.is_saving = true;
        self.put_open().await?;
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
        self.tell();
        let is_full = self
            .encoder
            .as_ref()
            .is_some_and(|encoder| encoder.bytes() >= OBJECT_BYTES || encoder.records() >= OBJECT_RECORDS);
        let is_long = self.log.as_ref().is_some_and(Log::has_full_chunk);
        let age = self.env.clock.elapsed().saturating_sub(self.written);
        if is_full || is_long || age >= OBJECT_AGE { self.save().await } else { Ok(()) }
    }

    /// Saves what was emitted before a call failed, unless it was saving that failed.
    async fn save_rest(&mut self) -> Result<()> {
        if self.is_saving || self.log.is_none() { Ok(()) } else { self.save().await }
    }

    /// Tells who watches.
    fn tell(&mut self) {
        if self.env.watcher.is_some() {
            self.count_costs();
            let update = progress::Update::of(&self.run_id, &self.progress);
            self.env.tell(&Update::Capture(Box::new(update)));
        }
    }

    /// The object, then what was learned, then the position.
    pub(super) async fn save(&mut self) -> Result<()> {
        // If this does not come to its end, what is in memory is ahead of what is durable, and must not be saved any more.
        self.is_saving = true;
        self.put_open().await?;
        self.save_position().await?;
        self.is_saving = false;
        Ok(())
    }

    /// Writes the open object, if there is one.
    async fn put_open(&mut self) -> Result<()> {
        if let Some(encoder) = self.encoder.take().filter(|encoder| encoder.records() > 0) {
            let records = encoder.records();
            let body = encoder.finish()?;
            let location = Location::new(&self.output.bucket, self.object_key());
            let bytes = body.len() as u64;
            if mutate::on(Bug::PositionBeforeObject) {
                let position = self.progress.position();
                self.runs.checkpoint(&self.lease, self.deadline, &position, &self.progress, true).await?;
            }
            self.put_object(&location, body).await?;
            self.progress.part += 1;
            self.progress.done.objects += 1;
            self.progress.done.bytes += bytes;
            self.learn(&Delta::Object(location.key, records, bytes));
        }
        Ok(())
    }

    async fn save_position(&mut self) -> Result<()> {
        self.written = self.env.clock.elapsed();
        self.count_costs();
        self.count_sweep();
        let learned = self.log.as_ref().is_some_and(Log::dirty);
        if !learned && self.saved.as_ref().is_some_and(|saved| is_same(saved, &self.progress)) {
            return Ok(());
        }
        let unsaved = self.log.as_ref().map(Log::unsaved);
        if let Some(unsaved) = unsaved.as_ref().filter(|_| !mutate::on(Bug::LogForgotten)) {
            unsaved.write(&*self.env.objects).await?;
            self.progress.log = unsaved.state.clone();
        }
        let position = self.progress.position();
        self.runs.checkpoint(&self.lease, self.deadline, &position, &self.progress, true).await?;
        if let (Some(log), Some(unsaved)) = (&mut self.log, unsaved) {
            log.saved(unsaved.state);
        }
        self.saved = Some(self.progress.clone());
        self.tell();
        Ok(())
    }

    /// Writes an object that is beyond the position. What is there already is an orphan, or the late write of an owner that lost its
    /// lease: it goes. A late write that comes after ours finds that there is one, and does nothing.
    async fn put_object(&mut self, location: &Location, body: bytes::Bytes) -> Result<()> {
        let content_type = self.layout.as_ref().map_or("application/octet-stream", Layout::content_type);
        for _ in 0..PUTS_MAX {
            self.hold().await?;
            if self.env.objects.put_new(location, body.clone(), content_type).await? {
                return Ok(());
            }
            self.runs.renew(&self.lease, self.deadline).await?;
            self.env.objects.delete(location).await?;
        }
        let message = format!("{location}: another writer keeps coming back");
        Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::OBJECTS_UNAVAILABLE, message))
    }

    /// Where the next object goes: computed from the position alone, so that writing it again replaces it.
    fn object_key(&self) -> String {
        let initial = self.progress.initial.unwrap_or_default();
        let from = self.progress.covered.unwrap_or(initial);
        let until = self.progress.until.unwrap_or(from);
        let day = until.strftime("%Y-%m-%d");
        let extension = self.layout.as_ref().map(Layout::extension).unwrap_or_default();
        let part = if mutate::on(Bug::PartForgotten) { 1 } else { self.progress.part + 1 };
        format!("{}dt={day}/{}-{}.{part:06}.{extension}", self.output.key, compact(from), compact(until))
    }

    /// Makes sure that the lease lasts for a write that has no fence of its own.
    async fn hold(&mut self) -> Result<()> {
        if mutate::on(Bug::LostFenceIgnored) {
            return Ok(());
        }
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
        // Before calls are refused for want of time: what ends here is saved, and goes on at once.
        let calls_need = self.reserve() / 2 + ATTEMPT_RESERVE + CALLS_END;
        self.env.stop.get() || !self.deadline.allows(self.env.clock.now(), self.reserve().max(calls_need))
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

    /// Saves what this invocation has spent on work that it could not save: the next one does the work anew, and what was spent, was spent.
    pub(super) async fn save_costs(&self) -> Result<()> {
        let count = |stored: Option<Progress>| {
            let mut progress = stored.unwrap_or_else(|| self.progress.clone());
            progress.done.take_costs(&self.progress.done);
            Some((progress.position(), progress))
        };
        self.runs.amend(&self.lease, self.deadline, count).await
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

/// Reads `s3://bucket/key` as it stands in the position.
pub(super) fn place(uri: &str) -> Result<Location> {
    Location::parse(uri).ok_or_else(|| {
        let message = format!("the capture's position names `{uri}`, which is no place in S3");
        Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message)
    })
}

fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
