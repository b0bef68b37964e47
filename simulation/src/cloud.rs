//! What stands around the function on AWS: messages that come at least once, processes that die, deadlines, continuations, the sweep.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::LocalBoxFuture, select_biased, stream::FuturesUnordered};
use hubferry::clock::Clock as _;
use serde_json::{Value, json};

use crate::{
    Scale, Trace,
    dice::{dice, happens, one_of},
    import::file::MARK,
    watch::Watch,
    world::World,
};

/// How many invocations are at work at once.
const AT_ONCE_MAX: usize = 4;

/// After which a message that failed comes again.
const VISIBILITY: Duration = Duration::from_secs(45);

/// Between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(75);

/// Time that Lambda gives an invocation at the end of a world.
const LONG: i64 = 900;

/// Sweeps at the end of a world after which every run must be over: two days and some.
const SWEEPS_MAX: u32 = 90;

/// How processes fare.
#[derive(Debug, Clone)]
pub struct Fortune {
    /// The share of invocations that are killed.
    pub kills: f64,
    /// How many are, at most.
    pub kills_max: u64,
    /// Seconds that invocations get.
    pub deadlines: Vec<i64>,
    /// The share of messages that come twice.
    pub twice: f64,
}

#[derive(Clone)]
struct Letter {
    event: Value,
    what: String,
    is_sweep: bool,
}

enum Ended {
    Killed,
    OutOfTime(i64),
    Answered(Result<Value, hubferry::Error>),
}

/// See the module.
pub struct Cloud {
    /// What the function touches.
    pub world: Rc<World>,
    /// Who looks on.
    pub watch: Rc<Watch>,
    seed: u64,
    scale: Scale,
    fortune: Fortune,
    trace: Rc<RefCell<Trace>>,
    letters: RefCell<BTreeMap<(Duration, u64), Letter>>,
    number: Cell<u64>,
    begun: Cell<u64>,
    /// Invocations that were killed.
    pub killed: Cell<u64>,
    /// Invocations that failed.
    pub failed: Cell<u64>,
    /// Invocations that were no sweeps.
    pub worked: Cell<usize>,
    quiet: Cell<bool>,
}

impl Cloud {
    /// Nothing is under way.
    pub fn new(
        seed: u64,
        scale: &Scale,
        world: Rc<World>,
        watch: Rc<Watch>,
        fortune: Fortune,
        trace: Rc<RefCell<Trace>>,
    ) -> Self {
        Self {
            world,
            watch,
            seed,
            scale: *scale,
            fortune,
            trace,
            letters: RefCell::default(),
            number: Cell::new(0),
            begun: Cell::new(0),
            killed: Cell::new(0),
            failed: Cell::new(0),
            worked: Cell::new(0),
            quiet: Cell::new(false),
        }
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: std::fmt::Arguments<'_>) {
        self.trace.borrow_mut().note(self.world.clock.now(), line);
    }

    /// An event arrives after this time.
    pub fn send(&self, after: Duration, event: Value, what: String) {
        self.post(self.world.clock.elapsed() + after, Letter { event, what, is_sweep: false });
    }

    fn post(&self, due: Duration, letter: Letter) {
        self.number.set(self.number.get() + 1);
        self.letters.borrow_mut().insert((due, self.number.get()), letter);
    }

    /// Works until this time since the start.
    pub async fn run_until(&self, end: Duration) {
        let mut at_work: FuturesUnordered<LocalBoxFuture<'_, ()>> = FuturesUnordered::new();
        let at_once = if self.scale.overlap { AT_ONCE_MAX } else { 1 };
        loop {
            let now = self.world.clock.elapsed();
            if self.watch.failure().is_some() || (now >= end && at_work.is_empty()) {
                return;
            }
            let due = self.letters.borrow().first_key_value().map(|(key, _)| *key);
            if let Some(key) = due.filter(|(due, _)| *due <= now && now < end)
                && at_work.len() < at_once
            {
                let letter = self.letters.borrow_mut().remove(&key).unwrap();
                at_work.push(self.invocation(letter).boxed_local());
                continue;
            }
            let wake = match due {
                Some((due, _)) if due > now && due < end => due,
                _ => end.max(now + Duration::from_secs(1)),
            };
            let mut sleep = self.world.clock.sleep(wake - now).fuse();
            select_biased! {
                _ = at_work.select_next_some() => {}
                () = sleep => {}
            }
        }
    }

    /// From the first to the last moment of one process.
    async fn invocation(&self, letter: Letter) {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        self.worked.set(self.worked.get() + usize::from(!letter.is_sweep));
        let mut rng = dice(self.seed, "invocation", number);
        let (struck, early) = (happens(&mut rng, self.fortune.kills), happens(&mut rng, 0.4));
        let time = rng.f64() * if early { 0.4 } else { 12.0 };
        let seconds = one_of(&mut rng, &self.fortune.deadlines);
        let twice = happens(&mut rng, self.fortune.twice);
        let seconds = if self.quiet.get() { LONG } else { seconds };
        let dies = struck && self.scale.kills && !self.quiet.get() && self.killed.get() < self.fortune.kills_max;
        self.note(format_args!("{number} begins, {seconds} s: {}", letter.what));
        let handled = self.world.handle_within(letter.event.clone(), seconds);
        let clock = &self.world.clock;
        let ended = {
            let mut handled = std::pin::pin!(handled.fuse());
            let mut killer = clock.sleep(if dies { Duration::from_secs_f64(time) } else { Duration::MAX / 4 }).fuse();
            let mut deadline = clock.sleep(Duration::from_secs(u64::try_from(seconds).unwrap())).fuse();
            select_biased! {
                () = killer => Ended::Killed,
                // An answer at the very moment comes too late.
                () = deadline => Ended::OutOfTime(seconds),
                answer = handled => Ended::Answered(answer.map(|answer| serde_json::to_value(&answer).unwrap())),
            }
        };
        let mut again = twice && !letter.is_sweep && !self.quiet.get();
        match ended {
            Ended::Killed => {
                self.killed.set(self.killed.get() + 1);
                self.note(format_args!("{number} is killed"));
                again = true;
            }
            Ended::OutOfTime(seconds) => {
                self.note(format_args!("{number} is out of time"));
                let seen = format!("invocation {number} ({}) was still at work after its {seconds} s", letter.what);
                self.watch.fail("an invocation ends before its deadline", seen);
            }
            Ended::Answered(Err(error)) => {
                self.failed.set(self.failed.get() + 1);
                let text = format!("{error:?} {}", error.hint());
                self.note(format_args!("{number} fails: {}", error.code()));
                self.look_for_values("an error", &text);
                let passing = matches!(
                    error.kind(),
                    hubferry::ErrorKind::Unavailable { .. }
                        | hubferry::ErrorKind::Unknown
                        | hubferry::ErrorKind::Throttled { .. }
                        | hubferry::ErrorKind::Conflict
                );
                if !passing {
                    self.watch.fail("an invocation fails only for a passing reason", text);
                }
                again = true;
            }
            Ended::Answered(Ok(answer)) => again |= self.answered(number, &answer),
        }
        let sent = self.world.queue.take();
        for (body, delay) in sent {
            let event: Value = serde_json::from_str(&body).unwrap();
            let message =
                json!({ "Records": [{ "eventSource": "aws:sqs", "messageId": format!("c{number}"), "body": body }] });
            let what = format!("continuation of {}", event["run_id"].as_str().unwrap_or_default());
            let due = self.world.clock.elapsed() + Duration::from_secs(delay.into());
            self.post(due, Letter { event: message, what, is_sweep: false });
        }
        if letter.is_sweep {
            if !self.quiet.get() {
                self.sweep_in(SWEEP_EVERY);
            }
        } else if again {
            self.post(self.world.clock.elapsed() + VISIBILITY, letter);
        }
    }

    /// Looks at an answer; whether the message is to come again.
    fn answered(&self, number: u64, answer: &Value) -> bool {
        let mut again = false;
        let mut reports = Vec::new();
        match answer {
            Value::Array(all) => reports.extend(all),
            Value::Object(batch) if batch.contains_key("batchItemFailures") => {
                again = batch["batchItemFailures"].as_array().is_some_and(|failures| !failures.is_empty());
                for answer in batch["answers"].as_array().into_iter().flatten() {
                    match answer {
                        Value::Array(all) => reports.extend(all),
                        one => reports.push(one),
                    }
                }
            }
            one => reports.push(one),
        }
        self.look_for_values("an answer", &answer.to_string());
        for report in reports {
            let outcome = report["outcome"].as_str().unwrap_or("error");
            let run_id = report["run_id"].as_str().unwrap_or_default();
            self.note(format_args!(
                "{number} answers {outcome} {run_id} {} {}",
                report["rows"], report["error"]["code"]
            ));
            if report["error"]["code"] == "STATE_CORRUPT" || report["error"]["code"] == "ACCOUNTING" {
                self.watch.fail("state is never corrupt", report.to_string());
            }
            let yielded = outcome == "yielded" && report["error"].is_null();
            if yielded && !self.continues(run_id) {
                self.watch.fail("a run that yields sends its continuation", format!("invocation {number}: {report}"));
            }
        }
        again
    }

    /// Whether a continuation of this run was sent, and has not been worked on.
    fn continues(&self, run_id: &str) -> bool {
        // Taken and put back: what waits in the queue cannot be looked at.
        let sent = self.world.queue.take();
        let mut found = self.letters.borrow().values().any(|letter| letter.what.ends_with(run_id));
        for (body, delay) in sent {
            found |= body.contains(run_id);
            let message = json!({ "Records": [{ "eventSource": "aws:sqs", "messageId": "c", "body": body }] });
            let event: Value = serde_json::from_str(&body).unwrap();
            let what = format!("continuation of {}", event["run_id"].as_str().unwrap_or_default());
            let due = self.world.clock.elapsed() + Duration::from_secs(delay.into());
            self.post(due, Letter { event: message, what, is_sweep: false });
        }
        found
    }

    /// The sweep comes after this time.
    pub fn sweep_in(&self, after: Duration) {
        let event = json!({ "job": "resume" });
        self.post(self.world.clock.elapsed() + after, Letter { event, what: "the sweep".to_owned(), is_sweep: true });
    }

    /// Nothing goes wrong any more: works until every run is over. Whether that was so within bounds.
    pub async fn settle(&self) -> bool {
        self.quiet.set(true);
        self.watch.upset.set(false);
        self.letters.borrow_mut().retain(|_, letter| !letter.is_sweep);
        let clock = self.world.clock.clone();
        for sweep in 0..SWEEPS_MAX {
            self.sweep_in(Duration::ZERO);
            let last = self.letters.borrow().keys().next_back().map_or(Duration::ZERO, |(due, _)| *due);
            self.run_until(last.max(clock.elapsed()) + Duration::from_secs(1)).await;
            if self.watch.failure().is_some() {
                return true;
            }
            let open = self.world.table.snapshot().keys().any(|key| key.pk == "open");
            if !open && self.letters.borrow().is_empty() {
                return true;
            }
            // Runs that wait for the account's midnight wait for hours.
            clock.sleep(Duration::from_secs(if sweep < 20 { 70 } else { 3_600 })).await;
        }
        false
    }

    /// No value of a row and no secret may be here.
    pub fn look_for_values(&self, place: &str, text: &str) {
        let folded = text.to_lowercase();
        if let Some(at) = folded.find(MARK) {
            let around: String =
                folded.chars().skip(folded[..at].chars().count().saturating_sub(80)).take(160).collect();
            self.watch.fail("no value of a row leaks", format!("{place}: {around}"));
        }
        for secret in &*self.watch.secrets.borrow() {
            if let Some(at) = text.find(secret.as_str()) {
                let before: String = text[..at].chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
                self.watch.fail("no secret leaks", format!("{place}: {before}…"));
            }
        }
    }
}
