//! Syncs: people and automation at work in HubSpot and Salesforce while the sync runs, fails and is killed. An oracle that knows nothing
//! of the engine looks at what stands in the two systems.

pub mod both;
mod fields;
mod oracle;
mod people;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt::Arguments,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use hubferry::{
    app::Answer,
    clock::Clock as _,
    report::{Outcome, Report},
    state::{Item, Key},
    sync::model::Side,
};
use hubferry_simulator::{
    hubspot::{Faults, Reply, Workflow},
    salesforce::{Automation, Rewrite, five_percent},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Notify;

use self::{
    both::{
        BIO, Both, Config, EMAIL, FIRST, INTERESTS, LAST, OPT_OUT, PEOPLE, PHONE, SCORE, SEEN, SINCE, SOURCE, TITLE,
        WIDE, brief, event, org_settings, portal_settings,
    },
    fields::FIELDS,
    oracle::{Oracle, Place},
};
use crate::{
    Failure, Lived, Scale, Trace, lived_through,
    world::{Chance, Door, Upset},
};

const ENDS: &str = "a run with nothing in its way ends well";
const COUNTS: &str = "a run keeps count and state";
const QUIET: &str = "a quiet sync writes nothing";
const BRAKE: &str = "a run that would pass a limit stops before it does";

/// Who made the record; nobody edits it.
const MADE_BY: &str = "{ hubspot: origin, salesforce: Origin__c, rule: prefer_salesforce_unless_blank }";
/// Written by automation only.
const NICKNAME: &str = "{ hubspot: nickname, salesforce: Nickname__c, rule: two_way }";

/// How long people work, in seconds.
const SECONDS: usize = 1_000;

/// Records that are made, or deleted, at once where a limit of one stands.
const TOO_MANY: usize = 3;

/// One world.
struct World {
    both: Both,
    scale: Scale,
    rng: RefCell<fastrand::Rng>,
    /// For what came later: so that it changes nothing of what is drawn from the other.
    more: RefCell<fastrand::Rng>,
    oracle: RefCell<Oracle>,
    number: Cell<u32>,
    /// Invocations at work.
    active: Cell<usize>,
    epoch: Cell<u64>,
    deletes: &'static str,
    /// Salesforce writes last names in capitals.
    upper: bool,
    trace: Rc<RefCell<Trace>>,
    failure: RefCell<Option<Failure>>,
    steps: Rc<Steps>,
    /// What was edited last: record and field.
    edits: RefCell<VecDeque<(Place, usize)>>,
}

fn place(side: Side, id: &str) -> Place {
    (side, id.to_owned())
}

/// Counts what invocations do to the table and to the two systems, so that one can die right after any of it.
#[derive(Default)]
struct Steps {
    left: Cell<u64>,
    reached: Notify,
}

impl Steps {
    fn step(&self) {
        if self.left.get() == 1 {
            self.reached.notify_one();
        }
        self.left.set(self.left.get().saturating_sub(1));
    }
}

impl Chance for Steps {
    fn objects(&self, _: Door, _: &str) -> Upset {
        Upset::None
    }
    fn table(&self, _: Door) -> Upset {
        Upset::None
    }
    fn called(&self, _: u64, _: Timestamp, _: &Request<Bytes>, _: &Reply) {
        self.step();
    }
    fn stored(&self, _: u64, _: &Key, _: Option<&Item>, _: Option<&Item>) {
        self.step();
    }
}

/// When an invocation dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// After so long.
    After(Duration),
    /// After so many steps.
    At(u64),
}

/// The configuration of all worlds, with this about deletions and these limits.
fn config(deletes: &str, limits: &str) -> String {
    let fields =
        [EMAIL, FIRST, LAST, TITLE, PHONE, SCORE, SINCE, INTERESTS, SOURCE, OPT_OUT, SEEN, BIO, NICKNAME, MADE_BY];
    Config::people(&fields, &format!("deletes: {deletes}\n{limits}\n"))
}

/// Lives through the world that this seed makes, as far as `scale` goes.
pub fn live(seed: u64, scale: &Scale) -> Lived {
    let scale = *scale;
    lived_through(move |trace| async move { World::new(seed, scale, trace).live_through().await })
}

impl World {
    fn new(seed: u64, scale: Scale, trace: Rc<RefCell<Trace>>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1);
        let mut more = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x51AC);
        let deletes = ["review", "propagate", "ignore"][rng.usize(..3)];
        let (faults, automation, upper) = (rng.u8(..3) > 0, rng.bool(), rng.u8(..3) == 0);
        let (automation, upper) = (automation && scale.people, upper && scale.odd);
        let mut portal = portal_settings();
        portal.seed = seed + 1;
        portal.latency.fixed_ms = 150;
        portal.latency.jitter_ms = 500;
        portal.index_lag.jitter_ms = 8_000;
        portal.shuffle_results = rng.bool();
        if rng.u8(..4) == 0 {
            portal.index_lag.late_share = 0.05;
            portal.index_lag.late_ms = 20 * 60 * 1_000;
        }
        portal.unsettled.short_pages = if rng.bool() { 0.2 } else { 0.0 };
        let mut org = org_settings();
        org.seed = seed + 2;
        org.latency_ms = 150;
        org.latency_jitter_ms = 500;
        org.query_lag_ms = 3_000;
        org.short_pages = rng.bool();
        org.lock_share = if rng.u8(..4) == 0 { 0.02 } else { 0.0 };
        if faults && scale.faults {
            portal.faults = Faults::five_percent(seed);
            org.faults = five_percent(seed);
        }
        if automation {
            portal.workflows.push(Workflow {
                object: "contacts".to_owned(),
                when_changed: "firstname".to_owned(),
                writes: "nickname".to_owned(),
                value: Rewrite::Lower,
                after_ms: 20_000,
            });
        }
        if upper {
            org.automation.push(Automation {
                object: "Contact".to_owned(),
                when_changed: "LastName".to_owned(),
                writes: "LastName".to_owned(),
                value: Rewrite::Upper,
            });
        }
        let both = Both::with(&config(deletes, WIDE), portal, org);
        let ahead = [0, 0, 0, -600, 600][more.usize(..5)];
        both.world.org_ahead.set(SignedDuration::from_secs(ahead));
        let steps: Rc<Steps> = Rc::default();
        *both.world.chance.borrow_mut() = Some(steps.clone());
        Self {
            both,
            scale,
            rng: RefCell::new(rng),
            more: RefCell::new(more),
            oracle: RefCell::default(),
            number: Cell::new(0),
            active: Cell::new(0),
            epoch: Cell::new(0),
            deletes,
            upper,
            trace,
            failure: RefCell::default(),
            steps,
            edits: RefCell::default(),
        }
    }

    fn note(&self, line: Arguments<'_>) {
        self.trace.borrow_mut().note(self.both.world.clock.now(), line);
    }

    fn next(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    /// A number from 0 on, below this.
    fn below(&self, end: usize) -> usize {
        self.rng.borrow_mut().usize(..end)
    }

    /// A new value of a field.
    fn value(&self, at: usize, side: Side) -> String {
        let number = self.next();
        FIELDS[at].value(side, number, &mut self.rng.borrow_mut())
    }

    fn live(&self, side: Side) -> Vec<String> {
        match side {
            Side::Hubspot => self.both.world.portal.borrow().live_objects("contacts", &[]).map(|one| one.id).collect(),
            Side::Salesforce => {
                self.both.world.org.borrow().live_records("Contact").map(|one| one["Id"].clone()).collect()
            }
        }
    }

    fn any(&self, side: Side) -> Option<Place> {
        let live = self.live(side);
        let at = self.below(live.len().max(1));
        live.get(at).map(|id| place(side, id))
    }

    /// Syncs every few minutes, cut off or killed now and then, two at once now and then, until people stop.
    async fn syncs(&self, mut rng: fastrand::Rng, stop: Rc<Cell<bool>>) {
        let kills = rng.bool();
        while !stop.get() && self.failure.borrow().is_none() {
            let wait = rng.u64(1..150);
            let world = &self.both.world;
            world.clock.sleep(Duration::from_secs(wait)).await;
            let wake = match world.queue.take().pop() {
                Some((body, _)) => serde_json::from_str(&body).unwrap_or_default(),
                None if rng.u8(..4) == 0 => json!({ "job": "resume" }),
                None => event(PEOPLE),
            };
            let seconds = if rng.bool() { 900 } else { rng.i64(20..90) };
            let killed = (kills && rng.u8(..3) == 0).then(|| Duration::from_millis(rng.u64(1..20_000)));
            let (twice, later, sharp, step, just) = {
                let mut more = self.more.borrow_mut();
                (more.u8(..4) == 0, more.u64(..15_000), more.u8(..3) > 0, more.u64(1..150), more.bool())
            };
            let killed = killed.map(|after| if sharp { Death::At(step) } else { Death::After(after) });
            let killed = killed.filter(|_| self.scale.kills);
            if just && self.scale.people {
                // In the same moment: what a clock, or an index, shows of it is late.
                self.edit_any(Side::Salesforce);
                self.edit_any(Side::Hubspot);
            }
            let first = self.invoke(wake, seconds, killed);
            if twice && self.scale.overlap {
                // A person starts one in the middle of the schedule's, or a message comes twice.
                let second = async {
                    world.clock.sleep(Duration::from_millis(later)).await;
                    self.invoke(event(PEOPLE), 900, None).await;
                };
                futures_util::future::join(first, second).await;
            } else {
                first.await;
            }
        }
    }

    async fn invoke(&self, event: Value, seconds: i64, killed: Option<Death>) {
        let world = &self.both.world;
        self.epoch.set(self.epoch.get() + 1);
        self.active.set(self.active.get() + 1);
        self.oracle.borrow_mut().began.push(world.clock.now());
        self.note(format_args!("run: {event}"));
        let work = world.handle_within(event, seconds);
        let death = async {
            match killed {
                Some(Death::After(after)) => world.clock.sleep(after).await,
                Some(Death::At(step)) => {
                    self.steps.left.set(step);
                    self.steps.reached.notified().await;
                }
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            () = death => None,
            answer = work => Some(answer),
        };
        self.steps.left.set(0);
        self.active.set(self.active.get() - 1);
        match answer {
            Some(Ok(answer)) => self.ended(&answer),
            Some(Err(error)) => self.fail(COUNTS, error.to_string()),
            None => {
                self.note(format_args!("killed: {killed:?}"));
                self.oracle.borrow_mut().has_died();
                if self.scale.people {
                    self.edit_again();
                }
            }
        }
        self.epoch.set(self.epoch.get() + 1);
    }

    fn fail(&self, invariant: &'static str, seen: String) {
        self.failure.borrow_mut().get_or_insert(Failure { invariant, seen });
    }

    fn ended(&self, answer: &Answer) {
        match answer {
            Answer::Several(all) => all.iter().for_each(|answer| self.ended(answer)),
            Answer::Report(report) => {
                let ways = [Outcome::Done, Outcome::Yielded, Outcome::Busy, Outcome::Failed];
                // One that came when the run was over is told its report.
                let is_late = report.outcome == Outcome::Duplicate;
                match report.outcome {
                    Outcome::Done => self.oracle.borrow_mut().is_well(),
                    _ => self.oracle.borrow_mut().has_died(),
                }
                if !report.rows.add_up() || !(is_late || ways.contains(&report.outcome)) {
                    self.fail(COUNTS, brief(report));
                }
                self.note(format_args!("{:?} {:?} {:?}", report.outcome, report.rows, report.error));
                if report.outcome == Outcome::Done {
                    self.in_step();
                    if let Some(failure) = self.guessed() {
                        self.failure.borrow_mut().get_or_insert(failure);
                    }
                }
            }
            other => self.note(format_args!("{other:?}")),
        }
    }

    /// From the first record to three quiet runs, and one that has to stop.
    async fn live_through(mut self) -> Result<(), Failure> {
        self.note(format_args!("deletes: {}; names are written in capitals: {}", self.deletes, self.upper));
        for _ in 0..Scale::of(self.scale.size, 3 + self.below(13)) {
            let which = self.below(3);
            match which {
                0 => drop(self.create_with_address(Side::Hubspot)),
                1 => drop(self.create_with_address(Side::Salesforce)),
                _ => self.create_on_both(),
            }
        }
        if self.more.borrow_mut().bool() && self.scale.odd {
            self.create_three();
        }
        let stop = Rc::new(Cell::new(false));
        let ours = self.rng.borrow_mut().fork();
        let seconds = Scale::of(self.scale.rounds, SECONDS) as u64;
        futures_util::future::join(self.people(seconds, stop.clone()), self.syncs(ours, stop)).await;
        self.first_failure()?;
        self.note(format_args!("nobody edits any more"));
        self.both.world.portal.borrow_mut().clear_faults();
        self.both.world.org.borrow_mut().clear_faults();
        // An hour later nothing shows a second time what the overlap of two runs would have shown.
        let first = [60, 4_000][self.more.borrow_mut().usize(..2)];
        for wait in [first, 1_900, 1_900] {
            self.both.wait(wait).await;
            self.both.world.queue.take();
            self.both.world.resume().await;
            let report = self.run().await;
            if report.outcome != Outcome::Done {
                return Err(Failure { invariant: ENDS, seen: brief(&report) });
            }
        }
        if let Some(wrong) = self.wrong().into_iter().next() {
            for review in self.both.reviews() {
                self.note(format_args!("{review:?}"));
            }
            let stored = self.both.world.table.snapshot();
            for (key, item) in stored.iter().filter(|(key, _)| key.pk.contains("#h#")) {
                self.note(format_args!("{key:?} {item:?}"));
            }
            for side in [Side::Hubspot, Side::Salesforce] {
                for id in self.live(side) {
                    let one = place(side, &id);
                    self.note(format_args!("{side:?} {id} is {:?}", self.twin(&one)));
                }
            }
            return Err(wrong);
        }
        for run in 1..=3 {
            self.both.wait(900).await;
            self.both.mark();
            let report = self.run().await;
            let writes = self.both.writes();
            if !writes.0.is_empty() || !writes.1.is_empty() {
                let seen = format!("quiet run {run} writes: {writes:?} {}", brief(&report));
                return Err(Failure { invariant: QUIET, seen });
            }
        }
        self.try_the_brake().await?;
        let states = (self.both.world.portal.borrow().state(), self.both.world.org.borrow().state());
        let calls = (self.both.world.portal.borrow().counts(), self.both.world.org.borrow().counts());
        let next = self.both.world.rng.u64();
        self.note(format_args!("{states:?} {calls:?} {:?} {next}", self.both.reviews()));
        Ok(())
    }

    async fn run(&self) -> Report {
        let report = self.both.run(PEOPLE).await;
        self.note(format_args!("{:?} {:?} {:?}", report.outcome, report.rows, report.error));
        report
    }

    fn first_failure(&self) -> Result<(), Failure> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    /// Somebody makes, or deletes, more at once than a run may carry over.
    async fn try_the_brake(&mut self) -> Result<(), Failure> {
        let (wanted, deletes) = {
            let mut more = self.more.borrow_mut();
            (more.u8(..3) == 0, more.bool())
        };
        if !wanted {
            return Ok(());
        }
        let limits = "limits: { creates: 1, updates: 100000, blanks: 100000, deletes: 1 }";
        self.both.configure(&config(self.deletes, limits));
        let twins: Vec<(Place, Place)> = self
            .live(Side::Hubspot)
            .iter()
            .map(|id| place(Side::Hubspot, id))
            .filter_map(|h| Some((h.clone(), self.twin(&h)?)))
            .filter(|(h, s)| self.twin(s).as_ref() == Some(h))
            .take(TOO_MANY)
            .collect();
        if deletes && self.deletes == "propagate" && twins.len() == TOO_MANY {
            let now = self.both.world.clock.now();
            for (h, _) in &twins {
                self.both.world.portal.borrow_mut().set_archived(now, "contacts", &h.1, true);
            }
            self.note(format_args!("{twins:?}: deleted in HubSpot"));
            self.both.wait(60).await;
            let report = self.run().await;
            let gone: Vec<&String> = twins.iter().map(|(_, s)| &s.1).filter(|id| !self.both.s_lives(id)).collect();
            if gone.len() > 1 {
                let seen = format!("{gone:?} are deleted in Salesforce too: {}", brief(&report));
                return Err(Failure { invariant: BRAKE, seen });
            }
        } else {
            let before = self.both.s_count();
            // Without a last name Salesforce takes none.
            let mut creatable = 0;
            for _ in 0..TOO_MANY {
                let made = self.create_with_address(Side::Hubspot);
                creatable += usize::from(self.both.h(&made.1, "lastname").is_some());
            }
            // Until the index shows all of them.
            self.both.wait(1_900).await;
            let report = self.run().await;
            let made = self.both.s_count() - before;
            if made > 1 || (creatable > 1 && report.outcome != Outcome::Aborted) {
                return Err(Failure { invariant: BRAKE, seen: format!("{made} were made: {}", brief(&report)) });
            }
        }
        Ok(())
    }
}
