//! Captures: HubSpot, S3 and the table in virtual time; people at work; schedules, sweeps and continuations that overlap; processes that
//! die, stand still and run into their deadlines.

pub mod doors;
pub mod lines;
pub mod oracle;
pub mod people;
pub mod plan;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt::Arguments,
    io::Write,
    pin::pin,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use hubferry::{
    app::{Answer, App, Env},
    clock::{Clock as _, Deadline, Rng, VirtualClock},
    config::{Config, load},
    error::{Error, ErrorKind},
    objects::{Location, Objects as _, memory::MemoryObjects},
    queue::{MemoryQueue, Queue},
    report::{Outcome, Report},
    secrets::MemorySecrets,
    state::memory::MemoryTable,
};
use hubferry_simulator::hubspot::{Portal, PortalSettings};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::{
    doors::{Doors, Files, Http, Outside, State},
    people::MARK,
    plan::{Plan, account_name, secret},
};
use crate::{
    Failure, Lived, Scale, Trace, lived_through,
    world::{BUCKET, START},
};

const QUIET: &str = "a quiet capture writes nothing";
const ENDS: &str = "a run with nothing in its way ends well";
const COUNTS: &str = "a run keeps count and state";
const LOGS: &str = "no value and no token is logged";
const LIMITS: &str = "calls stay within the account's limit";
/// What HubSpot counts calls over.
const WINDOW: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);
/// How long a process that the table did not answer has turns of its own, at most: a block, and what it waits for it.
const ALONE_FOR: jiff::SignedDuration = jiff::SignedDuration::from_secs(3);
const OPEN: &str = "a run that is over is not listed as open";
const IN_TIME: &str = "an invocation that nothing hinders answers before its deadline";

/// What this test's secrets begin with.
const TOKEN: &str = "pat-na1-";

/// What no date tells, and nobody told.
#[derive(Default)]
struct Ledger {
    /// Records that were removed for good.
    purged: BTreeSet<(usize, String, String)>,
    /// Records that were archived, restored or merged.
    undated: BTreeSet<(usize, String, String)>,
    /// When those in the recycle bin were archived, and from when to when others were in it; by HubSpot's clock.
    archived: BTreeMap<(usize, String, String), Timestamp>,
    absent: BTreeMap<(usize, String, String), Vec<(Timestamp, Timestamp)>>,
}

/// One world.
struct World {
    plan: Plan,
    outside: Rc<Outside>,
    config: Rc<Config>,
    rng: Rc<Rng>,
    secrets: Rc<MemorySecrets>,
    queue: Rc<MemoryQueue>,
    trace: Rc<RefCell<Trace>>,
    logged: Logged,
    ledger: RefCell<Ledger>,
    cache: RefCell<oracle::Cache>,
    checked: RefCell<BTreeMap<String, Timestamp>>,
    number: Cell<u32>,
    invocations: Cell<u64>,
}

/// Log lines.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Ok(mut lines) = self.0.lock() {
            lines.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How one invocation goes.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// Seconds it has.
    seconds: i64,
    /// The step at which it dies; 0: none.
    dies_at: u64,
    /// The step at which it stands still, and for how many seconds.
    stops_at: u64,
    stops_for: u64,
}

impl Fate {
    /// Nothing befalls it.
    const EASY: Self = Self { seconds: 900, dies_at: 0, stops_at: 0, stops_for: 0 };

    fn draw(rng: &mut fastrand::Rng) -> Self {
        // Most runs are short, some snapshots are long.
        let far = [30, 80, 250][rng.usize(..3)];
        let (dies, stops) = (rng.u8(..3) == 0, rng.u8(..5) == 0);
        let (dies_at, stops_at, stops_for) = (rng.u64(1..far), rng.u64(1..far), rng.u64(5..400));
        let (tight, seconds) = (rng.bool(), rng.i64(12..90));
        Self {
            seconds: if tight { seconds } else { 900 },
            dies_at: if dies { dies_at } else { 0 },
            stops_at: if stops { stops_at } else { 0 },
            stops_for,
        }
    }
}

/// Lives through the world that this seed makes, as far as `scale` goes.
pub fn live(seed: u64, scale: &Scale) -> Lived {
    let scale = *scale;
    lived_through(move |trace| async move {
        let logged = Logged::default();
        let lines = logged.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .without_time()
            .with_writer(move || lines.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        World::new(seed, &scale, trace, logged).live_through(seed, &scale).await
    })
}

impl World {
    fn new(seed: u64, scale: &Scale, trace: Rc<RefCell<Trace>>, logged: Logged) -> Self {
        let plan = Plan::new(seed, scale);
        let secrets = MemorySecrets::new();
        for at in 0..plan.accounts.len() {
            secrets.insert(secret(at), &json!({ "access_token": PortalSettings::TOKEN }).to_string());
        }
        let outside = Outside {
            portals: plan.accounts.iter().map(|one| Rc::new(RefCell::new(Portal::new(one.clone())))).collect(),
            skew_ms: plan.skew_ms,
            objects: MemoryObjects::versioned(),
            table: Rc::new(MemoryTable::new()),
            clock: Rc::new(VirtualClock::starting_at(START.parse().unwrap())),
            chance: RefCell::new(fastrand::Rng::with_seed(seed ^ 0x5A5A)),
            trouble: Cell::new(plan.trouble),
            table_down_until: Cell::default(),
            failures: RefCell::default(),
            positions: RefCell::default(),
            looks: RefCell::default(),
        };
        Self {
            config: Rc::new(load::parse(&plan.config(), "hubferry.yaml").unwrap()),
            outside: Rc::new(outside),
            rng: Rc::new(Rng::seeded(seed)),
            secrets: Rc::new(secrets),
            queue: Rc::new(MemoryQueue::new()),
            trace,
            logged,
            ledger: RefCell::default(),
            cache: RefCell::default(),
            checked: RefCell::default(),
            number: Cell::new(0),
            invocations: Cell::new(0),
            plan,
        }
    }

    fn note(&self, line: Arguments<'_>) {
        self.trace.borrow_mut().note(self.outside.clock.now(), line);
    }

    fn next(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    async fn wait(&self, seconds: u64) {
        self.outside.clock.sleep(Duration::from_secs(seconds)).await;
    }

    /// From the first record to a quiet capture.
    async fn live_through(&self, seed: u64, scale: &Scale) -> Result<(), Failure> {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(31) + 3);
        let (mut first, theirs, ours) = (rng.fork(), rng.fork(), rng.fork());
        self.note(format_args!("{:?}", self.plan.captures));
        self.populate(&mut first);
        self.wait(60).await;
        let stop = Cell::new(false);
        if scale.people {
            futures_util::future::join(self.people(theirs, &stop), self.wakes(ours, scale, &stop)).await;
        } else {
            self.wakes(ours, scale, &stop).await;
        }
        self.first_failure()?;
        self.note(format_args!("nobody edits any more"));
        for portal in &self.outside.portals {
            portal.borrow_mut().clear_faults();
        }
        self.outside.trouble.set(0.0);
        self.outside.table_down_until.set(Duration::ZERO);
        for wait in [130, 4_000, 4_000] {
            self.wait(wait).await;
            for portal in &self.outside.portals {
                portal.borrow_mut().run_workflows(self.outside.hubspot_now());
            }
            self.queue.take();
            for capture in &self.plan.captures {
                self.to_its_end(&capture.name).await?;
            }
            self.check_durable().await;
        }
        self.check_all().await;
        self.first_failure()?;
        self.wait(4_000).await;
        for capture in &self.plan.captures {
            let report = self.to_its_end(&capture.name).await?;
            let emitted = report.capture.as_ref().map_or(0, |told| told.changes.emitted());
            if emitted > 0 {
                self.outside.fail(QUIET, format!("{}: {emitted} changes: {:?}", capture.name, report.capture));
            }
        }
        // Who dies between the end of a run and its entry leaves the entry to the sweep.
        self.invoke(Wake::Resume, Fate::EASY).await;
        self.check_rest();
        self.first_failure()?;
        self.sum_up().await;
        Ok(())
    }

    fn first_failure(&self) -> Result<(), Failure> {
        self.outside.failures.borrow().first().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Schedules, sweeps and continuations, for so many rounds.
    async fn wakes(&self, mut rng: fastrand::Rng, scale: &Scale, stop: &Cell<bool>) {
        for round in 0..self.plan.rounds {
            let (pause, down, rotate) = (rng.u64(1..240), rng.u8(..12) == 0, rng.u8(..20) == 0);
            let (first, second) = (self.event(&mut rng), self.event(&mut rng));
            let (one, other) = (Fate::draw(&mut rng), Fate::draw(&mut rng));
            let (twice, later) = (rng.u8(..3) == 0, rng.u64(..20_000));
            self.wait(pause).await;
            if down && scale.faults {
                let until = self.outside.clock.elapsed() + Duration::from_secs(45);
                self.outside.table_down_until.set(until);
                self.note(format_args!("the table is down"));
            }
            if rotate && scale.people {
                self.rotate(round);
            }
            let first = self.invoke(first, self.spared(one));
            if twice && scale.overlap {
                let second = async {
                    self.outside.clock.sleep(Duration::from_millis(later)).await;
                    self.invoke(second, self.spared(other)).await;
                };
                futures_util::future::join(first, second).await;
            } else {
                first.await;
            }
            self.check_durable().await;
            if !self.outside.failures.borrow().is_empty() {
                break;
            }
        }
        stop.set(true);
    }

    /// Processes do not die everywhere.
    fn spared(&self, fate: Fate) -> Fate {
        if self.plan.kills { fate } else { Fate { dies_at: 0, stops_at: 0, ..fate } }
    }

    /// What wakes the function.
    fn event(&self, rng: &mut fastrand::Rng) -> Wake {
        let (what, which) = (rng.u8(..8), rng.usize(..self.plan.captures.len()));
        match what {
            0..=2 => Wake::Continuation { keep: what == 0, otherwise: which },
            3..=5 => Wake::Schedule(which),
            6 => Wake::All,
            _ => Wake::Resume,
        }
    }

    /// A person makes a new token and takes the old one away.
    fn rotate(&self, round: usize) {
        for (at, portal) in self.outside.portals.iter().enumerate() {
            let token = format!("{TOKEN}00000000-0000-4000-8000-{:012}", round + 100);
            let mut portal = portal.borrow_mut();
            portal.grant_token(&token, "private-app", Vec::new());
            self.secrets.insert(secret(at), &json!({ "access_token": token }).to_string());
            portal.revoke_token(PortalSettings::TOKEN);
            self.note(format_args!("{} has another token", account_name(at)));
        }
    }

    fn body(&self, wake: Wake) -> Value {
        let scheduled = |which: usize| json!({ "job": "capture", "name": self.plan.captures[which].name });
        match wake {
            Wake::All => json!({ "job": "capture" }),
            Wake::Resume => json!({ "job": "resume" }),
            Wake::Schedule(which) => scheduled(which),
            Wake::Continuation { keep, otherwise } => {
                let mut waiting = self.queue.take();
                let Some((body, _)) = waiting.pop() else { return scheduled(otherwise) };
                if keep {
                    // It is delivered once more.
                    waiting.push((body.clone(), 0));
                }
                for (body, delay) in waiting {
                    // Nothing waits here: a queue in memory takes what it is given.
                    let _ = futures_util::FutureExt::now_or_never(self.queue.send(&body, delay));
                }
                serde_json::from_str(&body).unwrap_or_default()
            }
        }
    }

    /// One invocation in a process of its own.
    async fn invoke(&self, wake: Wake, fate: Fate) -> Vec<Report> {
        let event = self.body(wake);
        self.invocations.set(self.invocations.get() + 1);
        let owner = format!("invocation-{}", self.invocations.get());
        self.note(format_args!("{owner}: {event} {fate:?}"));
        let doors = Rc::new(Doors {
            outside: self.outside.clone(),
            owner: owner.clone(),
            steps: Cell::new(0),
            dies_at: fate.dies_at,
            stops_at: fate.stops_at,
            died: tokio::sync::Notify::new(),
            stopped: tokio::sync::Notify::new(),
        });
        let queue: Option<Rc<dyn Queue>> = if self.plan.queue { Some(self.queue.clone()) } else { None };
        let env = Env {
            clock: self.outside.clock.clone(),
            rng: self.rng.clone(),
            http: Rc::new(Http(doors.clone())),
            objects: Rc::new(Files(doors.clone())),
            table: Rc::new(State(doors.clone())),
            secrets: self.secrets.clone(),
            queue,
            memory_mb: Cell::new(512),
            watcher: None,
            stop: Cell::new(false),
        };
        let app = App::new(Rc::new(env), self.config.clone()).unwrap();
        let began = self.outside.clock.now();
        let deadline = Deadline { at: began + jiff::SignedDuration::from_secs(fate.seconds) };
        let mut work = pin!(app.handle(event, deadline, &owner));
        let mut is_over = pin!(self.outside.clock.sleep(Duration::from_secs(u64::try_from(fate.seconds).unwrap_or(0))));
        let mut stood_still = false;
        loop {
            tokio::select! {
                biased;
                () = doors.died.notified() => {
                    self.note(format_args!("{owner} died at step {}", doors.steps.get()));
                    return Vec::new();
                }
                () = doors.stopped.notified() => {
                    self.note(format_args!("{owner} stands still at step {}", doors.steps.get()));
                    self.wait(fate.stops_for).await;
                    stood_still = true;
                }
                answer = work.as_mut() => {
                    let reports = self.answered(&owner, answer);
                    return reports;
                }
                // One that stood still is a process that nobody has stopped: it goes on.
                () = is_over.as_mut(), if !stood_still => {
                    self.note(format_args!("{owner} ran into its deadline"));
                    if self.outside.trouble.get() == 0.0 && self.outside.table_down_until.get() == Duration::ZERO {
                        let seen = format!("{owner} had {} seconds, and made {} steps", fate.seconds, doors.steps.get());
                        self.outside.fail(IN_TIME, seen);
                    }
                    return Vec::new();
                }
            }
        }
    }

    fn answered(&self, owner: &str, answer: Result<Answer, Error>) -> Vec<Report> {
        match answer {
            Ok(answer) => {
                let mut reports = Vec::new();
                self.reports(answer, &mut reports);
                for report in &reports {
                    let (outcome, error) = (report.outcome, report.error.as_ref().map(|error| error.code.as_str()));
                    let changes = report.capture.as_ref().map(|told| told.changes);
                    self.note(format_args!("{owner}: {} {outcome:?} {error:?} {changes:?}", report.name));
                    let broken = ["ACCOUNTING", "STATE_CORRUPT"].iter().any(|code| error == Some(code));
                    if broken || !report.rows.add_up() || outcome == Outcome::Invalid {
                        self.outside.fail(COUNTS, format!("{owner}: {report:?}"));
                    }
                }
                reports
            }
            Err(error) => {
                self.note(format_args!("{owner}: {error}"));
                if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) {
                    self.outside.fail(COUNTS, format!("{owner}: {error}"));
                }
                Vec::new()
            }
        }
    }

    fn reports(&self, answer: Answer, reports: &mut Vec<Report>) {
        match answer {
            Answer::Report(report) => reports.push(*report),
            Answer::Several(answers) => answers.into_iter().for_each(|answer| self.reports(answer, reports)),
            other => self.note(format_args!("{other:?}")),
        }
    }

    /// One run with nothing in its way.
    async fn to_its_end(&self, name: &str) -> Result<Report, Failure> {
        let which = self.plan.captures.iter().position(|capture| capture.name == name).unwrap_or(0);
        let mut last = None;
        for _ in 0..30 {
            let mut reports = self.invoke(Wake::Schedule(which), Fate::EASY).await;
            self.queue.take();
            self.first_failure()?;
            last = reports.pop();
            match &last {
                Some(report) if report.outcome == Outcome::Done => return Ok(report.clone()),
                _ => self.wait(300).await,
            }
        }
        Err(Failure { invariant: ENDS, seen: format!("{name}: {last:?}") })
    }

    /// Logs, limits, leftovers.
    fn check_rest(&self) {
        let lines = self.logged.0.lock().map(|lines| lines.clone()).unwrap_or_default();
        let lines = String::from_utf8_lossy(&lines);
        if let Some(line) = lines.lines().find(|line| line.contains(MARK) || line.contains(TOKEN)) {
            self.outside.fail(LOGS, line.to_owned());
        }
        for at in 0..self.outside.portals.len() {
            self.check_limit(at);
        }
        for key in self.outside.table.snapshot().keys().filter(|key| key.pk == "open") {
            self.outside.fail(OPEN, format!("{} is", key.sk));
        }
    }

    /// The calls of each window. A process that the table does not answer goes on with turns that nobody has reserved, at half of the pace
    /// or less (`docs/decisions/0008-shared-limit.md`): near that moment so much more is allowed.
    fn check_limit(&self, account: usize) {
        let looks = self.outside.looks.borrow();
        let calls: Vec<_> = looks.calls.iter().filter(|call| call.account == account && call.counts).collect();
        let burst = self.plan.burst as usize;
        let mut first = 0;
        for (last, call) in calls.iter().enumerate() {
            while call.at.duration_since(calls[first].at) >= WINDOW {
                first += 1;
            }
            let most = last - first + 1;
            let near = calls[first].at - ALONE_FOR..=call.at;
            let alone = looks.alone.iter().any(|(of, when)| *of == account_name(account) && near.contains(when));
            let allowed = if alone { burst + burst / 2 } else { burst };
            if most > burst {
                for call in &calls[first..=last] {
                    self.note(format_args!("{}: {} {}", call.at, call.who, call.what));
                }
            }
            if most > allowed {
                let seen = format!("{}: {most} calls in 10 s, and {allowed} are allowed", account_name(account));
                return self.outside.fail(LIMITS, seen);
            }
        }
    }

    /// What two lives of one seed must have in common.
    async fn sum_up(&self) {
        let portals: Vec<_> = self.outside.portals.iter().map(|portal| portal.borrow().state()).collect();
        let states = xxhash_rust::xxh3::xxh3_64(format!("{portals:?}").as_bytes());
        let mut stored = String::new();
        for location in self.outside.objects.list(&Location::new(BUCKET, "")).await.unwrap() {
            let bytes = self.outside.objects.contents(&location).unwrap_or_default();
            stored.push_str(&format!("{location} {:x}\n", xxhash_rust::xxh3::xxh3_64(&bytes)));
        }
        let stored = xxhash_rust::xxh3::xxh3_64(stored.as_bytes());
        self.note(format_args!("HubSpot {states:x}, S3 {stored:x}, next number {}", self.rng.u64()));
    }
}

/// What wakes the function.
#[derive(Debug, Clone, Copy)]
enum Wake {
    /// A message that waits; where none does, the schedule of this capture.
    Continuation { keep: bool, otherwise: usize },
    /// One capture's schedule.
    Schedule(usize),
    /// A schedule without a name.
    All,
    /// The sweep.
    Resume,
}
