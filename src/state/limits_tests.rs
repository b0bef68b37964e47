//! Several processes over one table, against a model of HubSpot's rolling window, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use futures_util::future::{LocalBoxFuture, join_all};

use super::*;
use crate::{
    clock::{Rng, VirtualClock},
    config::{Amount, Limits},
    http::rate_limit::RateLimiter,
    state::memory::MemoryTable,
};

const SECOND: Duration = Duration::from_secs(1);

/// A machine's clock that is off.
struct Skewed {
    inner: Rc<VirtualClock>,
    by_ms: i64,
}

#[async_trait(?Send)]
impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        self.inner.now().saturating_add(jiff::SignedDuration::from_millis(self.by_ms)).unwrap()
    }
    fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }
    async fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration).await;
    }
}

/// A table at a distance, out of order now and then.
struct Distant {
    inner: Rc<MemoryTable>,
    clock: Rc<VirtualClock>,
    rng: Rc<Rng>,
    latency: Duration,
    /// From, to; and whether it hangs instead of refusing.
    outage: Option<(Duration, Duration, bool)>,
    updates: Rc<Cell<u64>>,
}

#[async_trait(?Send)]
impl Table for Distant {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.inner.get(key).await
    }
    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        self.updates.set(self.updates.get() + 1);
        self.clock.sleep(self.latency.mul_f64(0.3 + 0.4 * self.rng.fraction())).await;
        let now = self.clock.elapsed();
        if let Some((from, to, hangs)) = self.outage
            && (from..to).contains(&now)
        {
            if hangs {
                self.clock.sleep(600 * SECOND).await;
            }
            return Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE, "down"));
        }
        let changed = self.inner.update(key, update).await;
        self.clock.sleep(self.latency.mul_f64(0.3 + 0.4 * self.rng.fraction())).await;
        changed
    }
    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.inner.delete(key, condition).await
    }
    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.inner.query(pk, limit).await
    }
    fn writes(&self) -> u64 {
        self.inner.writes()
    }
}

/// HubSpot's side: what was accepted within the last interval.
struct Window {
    max: usize,
    interval: Duration,
    accepted: RefCell<VecDeque<Duration>>,
}

impl Window {
    fn arrive(&self, now: Duration) -> bool {
        let mut accepted = self.accepted.borrow_mut();
        while accepted.front().is_some_and(|first| now - *first >= self.interval) {
            accepted.pop_front();
        }
        let fits = accepted.len() < self.max;
        if fits {
            accepted.push_back(now);
        }
        fits
    }
}

/// One process.
#[derive(Clone, Copy)]
struct Process {
    start: Duration,
    end: Duration,
    skew_ms: i64,
    latency: Duration,
    /// Between two calls of each worker.
    think: Duration,
    workers: usize,
}

const ALWAYS: Process = Process {
    start: Duration::ZERO,
    end: Duration::from_secs(1_000),
    skew_ms: 0,
    latency: Duration::from_millis(300),
    think: Duration::ZERO,
    workers: 64,
};

struct Case {
    processes: Vec<Process>,
    seconds: u64,
    bucket: Bucket,
    table_latency: Duration,
    outage: Option<(Duration, Duration, bool)>,
    /// Calls a second of an app that knows nothing of us.
    other: f64,
    /// Calls in ten seconds.
    burst: u32,
    seed: u64,
}

impl Case {
    fn of(processes: Vec<Process>) -> Self {
        Self {
            processes,
            seconds: 60,
            bucket: Bucket::Burst,
            table_latency: Duration::from_millis(10),
            outage: None,
            other: 0.0,
            burst: 190,
            seed: 7,
        }
    }
}

#[derive(Debug, Default)]
struct Outcome {
    /// Accepted calls of each process.
    accepted: Vec<u64>,
    refused: u64,
    /// Refused calls of each second.
    refusals: BTreeMap<u64, u64>,
    /// Accepted calls of each second.
    each_second: BTreeMap<u64, u64>,
    writes: Vec<u64>,
    /// From a process's start to its first slot.
    first: Vec<Duration>,
}

impl Outcome {
    fn total(&self) -> u64 {
        self.accepted.iter().sum()
    }
    fn between(&self, from: u64, to: u64) -> u64 {
        self.each_second.range(from..to).map(|(_, calls)| calls).sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls")]
fn share(part: u64, whole: f64) -> f64 {
    part as f64 / whole
}

async fn run(case: &Case) -> Outcome {
    let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
    let (rng, inner) = (Rc::new(Rng::seeded(case.seed)), Rc::new(MemoryTable::new()));
    let window = match case.bucket {
        Bucket::Search => Window { max: 4, interval: SECOND, accepted: RefCell::default() },
        _ => Window { max: case.burst as usize, interval: 10 * SECOND, accepted: RefCell::default() },
    };
    let end = Duration::from_secs(case.seconds);
    let outcome = RefCell::new(Outcome::default());
    let mut writes = Vec::new();
    let mut all: Vec<LocalBoxFuture<'_, ()>> = Vec::new();
    for (index, process) in case.processes.iter().copied().enumerate() {
        outcome.borrow_mut().accepted.push(0);
        outcome.borrow_mut().first.push(Duration::MAX);
        let updates = Rc::new(Cell::new(0));
        writes.push(Rc::clone(&updates));
        let table = Distant {
            inner: Rc::clone(&inner),
            clock: Rc::clone(&clock),
            rng: Rc::clone(&rng),
            latency: case.table_latency,
            outage: case.outage,
            updates,
        };
        let own: Rc<dyn Clock> = Rc::new(Skewed { inner: Rc::clone(&clock), by_ms: process.skew_ms });
        let limits = Limits { burst: Some(case.burst), ..Limits::default() };
        let budget = SharedBudget::new(Rc::new(table), Rc::clone(&own), "default");
        let limiter = Rc::new(RateLimiter::new(&limits, own, Rc::new(budget)));
        let workers = (0..process.workers).map(|_| {
            let (limiter, clock, rng, window, outcome, bucket) =
                (Rc::clone(&limiter), &clock, &rng, &window, &outcome, case.bucket);
            async move {
                clock.sleep(process.start).await;
                loop {
                    limiter.acquire(bucket).await.unwrap();
                    let now = clock.elapsed();
                    if now >= end {
                        return;
                    }
                    // The way there takes 5 to 20 ms.
                    let way = Duration::from_millis(5).mul_f64(1.0 + 3.0 * rng.fraction());
                    clock.sleep(way).await;
                    let fits = window.arrive(clock.elapsed());
                    {
                        let mut outcome = outcome.borrow_mut();
                        let first = &mut outcome.first[index];
                        *first = (*first).min(now.saturating_sub(process.start));
                        if fits {
                            outcome.accepted[index] += 1;
                            *outcome.each_second.entry(clock.elapsed().as_secs()).or_default() += 1;
                        } else {
                            outcome.refused += 1;
                            *outcome.refusals.entry(clock.elapsed().as_secs()).or_default() += 1;
                        }
                    }
                    clock.sleep(process.latency.mul_f64(0.7 + 0.6 * rng.fraction())).await;
                    if !fits {
                        limiter.throttled(bucket, None);
                    }
                    clock.sleep(process.think.mul_f64(0.5 + rng.fraction())).await;
                }
            }
        });
        let (workers, lives) = (join_all(workers), clock.sleep(process.end));
        all.push(Box::pin(async move {
            // Dropped in the middle of whatever it is doing.
            select(pin!(workers), pin!(lives)).await;
        }));
    }
    if case.other > 0.0 {
        all.push(Box::pin(async {
            while clock.elapsed() < end {
                window.arrive(clock.elapsed());
                clock.sleep(Duration::from_secs_f64(1.0 / case.other)).await;
            }
        }));
    }
    join_all(all).await;
    let mut outcome = outcome.take();
    outcome.writes = writes.iter().map(|writes| writes.get()).collect();
    outcome
}

#[tokio::test(start_paused = true)]
async fn any_number_of_processes_use_97_percent_together_without_a_429() {
    for count in [1, 2, 3, 8] {
        for latency in [50, 300, 3_000] {
            for table_latency in [4, 40] {
                let process = Process { latency: Duration::from_millis(latency), ..ALWAYS };
                let mut case = Case::of(vec![process; count]);
                case.table_latency = Duration::from_millis(table_latency);
                let outcome = run(&case).await;
                let context = format!("{count} processes at {latency} ms, table at {table_latency} ms: {outcome:?}");
                assert_eq!(outcome.refused, 0, "{context}");
                assert!(share(outcome.total(), 60.0 * 19.0) >= 0.97, "{} {context}", outcome.total());
                let most = outcome.writes.iter().max().unwrap();
                assert!(*most <= 2 * 60 + 5, "{most} writes: {context}");
                // Each gets its part.
                let least = outcome.accepted.iter().min().unwrap();
                assert!(least * 2 * count as u64 > outcome.total(), "{context}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_very_high_limit_is_shared_through_the_table_as_any_other() {
    for (count, table_latency) in [(1, 10), (1, 60), (3, 10)] {
        let process = Process { latency: Duration::from_millis(50), ..ALWAYS };
        let mut case = Case::of(vec![process; count]);
        (case.burst, case.seconds, case.table_latency) = (10_000, 20, Duration::from_millis(table_latency));
        let outcome = run(&case).await;
        let context = format!("{count} processes, table at {table_latency} ms: {} calls", outcome.total());
        assert_eq!(outcome.refused, 0, "{context}");
        assert!(share(outcome.total(), 20.0 * 1_000.0) >= 0.9, "{context}");
        assert!(outcome.writes.iter().all(|writes| *writes <= 2 * 20 + 10), "{context}, {:?} writes", outcome.writes);
    }
}

#[tokio::test(start_paused = true)]
async fn processes_that_come_and_go_and_die_cost_a_block_each() {
    let seconds = Duration::from_secs;
    let case = Case::of(vec![
        ALWAYS,
        Process { start: seconds(7), ..ALWAYS },
        Process { start: seconds(3), end: Duration::from_millis(20_130), ..ALWAYS },
        Process { start: seconds(30), end: Duration::from_millis(45_700), ..ALWAYS },
        // It has nothing to do but for a call now and then.
        Process { think: seconds(4), workers: 1, ..ALWAYS },
    ]);
    let outcome = run(&case).await;
    assert_eq!(outcome.refused, 0, "{outcome:?}");
    assert!(share(outcome.total(), 60.0 * 19.0) >= 0.95, "{} {outcome:?}", outcome.total());
    assert!(outcome.first.iter().all(|first| *first < 2 * SECOND), "{:?}", outcome.first);
}

#[tokio::test(start_paused = true)]
async fn the_first_call_waits_for_one_write_only() {
    let outcome = run(&Case::of(vec![Process { workers: 1, ..ALWAYS }])).await;
    assert!(outcome.first[0] <= Duration::from_millis(20), "{:?}", outcome.first);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_300_ms_off_draws_a_few_429s_once() {
    for seed in 0..24 {
        let skewed = |skew_ms| Process { skew_ms, start: 2 * SECOND, ..ALWAYS };
        let mut case = Case::of(match seed % 3 {
            0 => vec![ALWAYS, skewed(300), ALWAYS],
            1 => vec![ALWAYS, skewed(-300), ALWAYS],
            _ => vec![skewed(-300), skewed(300), ALWAYS],
        });
        case.seed = seed;
        let outcome = run(&case).await;
        // A process that follows a faster clock comes early once: more than the margin of three slots, but not again.
        assert!(outcome.refused <= 4, "{seed}: {outcome:?}");
        assert!(share(outcome.total(), 60.0 * 19.0) >= 0.93, "{seed}: {} {outcome:?}", outcome.total());
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_an_hour_ahead_stops_nobody() {
    let case = Case::of(vec![Process { skew_ms: 3_600_000, end: 20 * SECOND, ..ALWAYS }, ALWAYS]);
    let outcome = run(&case).await;
    assert_eq!(outcome.refused, 0, "{outcome:?}");
    assert!(outcome.between(30, 60) >= 30 * 18, "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_table_runs_go_on_at_a_conservative_pace_and_come_back() {
    for (count, hangs) in [(1, false), (1, true), (3, false), (3, true)] {
        let mut case = Case::of(vec![ALWAYS; count]);
        case.outage = Some((20 * SECOND, 30 * SECOND, hangs));
        let outcome = run(&case).await;
        let (during, after) = (outcome.between(22, 30), outcome.between(34, 60));
        assert!(outcome.refused <= 2, "{count} {hangs}: {outcome:?}");
        assert!(during >= 8 * 8, "{count} {hangs}: {during} {outcome:?}");
        assert!(share(after, 26.0 * 19.0) >= 0.93, "{count} {hangs}: {after} {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_app_with_30_percent_of_the_limit_draws_few_429s_and_nobody_starves() {
    for count in [1, 3] {
        let mut case = Case::of(vec![ALWAYS; count]);
        case.other = 5.7;
        case.seconds = 300;
        let outcome = run(&case).await;
        // Until the other one's share is found, within the first minute, there are some more.
        let settled: u64 = outcome.refusals.range(60..).map(|(_, refused)| refused).sum();
        assert!(share(settled, 240.0 * 13.3) < 0.005, "{count}: {outcome:?}");
        assert!(share(outcome.refused, 300.0 * 13.3) < 0.02, "{count}: {outcome:?}");
        assert!(share(outcome.total(), 300.0 * 13.3) > 0.85, "{count}: {} {outcome:?}", outcome.total());
        let least = outcome.accepted.iter().min().unwrap();
        assert!(least * 2 * count as u64 > outcome.total(), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn searches_are_shared_too() {
    for count in [1, 3] {
        let mut case = Case::of(vec![ALWAYS; count]);
        case.bucket = Bucket::Search;
        let outcome = run(&case).await;
        assert!(outcome.refused <= 1, "{count}: {outcome:?}");
        assert!(outcome.writes.iter().all(|writes| *writes <= 2 * 60 + 5), "{count}: {outcome:?}");
        assert!((228..=240).contains(&outcome.total()), "{count}: {outcome:?}");
    }
}

#[tokio::test]
async fn sixty_four_racers_get_slots_of_their_own() {
    let inner: Rc<dyn Table> = Rc::new(MemoryTable::new());
    let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
    let pace = Pace { calls: 10.0, window: SECOND };
    let budgets: Vec<_> = (0..64).map(|_| SharedBudget::new(Rc::clone(&inner), clock.clone(), "a")).collect();
    let grants = join_all(budgets.iter().map(|budget| budget.reserve(Bucket::Burst, 2, pace, Duration::ZERO))).await;
    let mut starts: Vec<_> = grants.into_iter().map(|grant| grant.unwrap().start.as_millis()).collect();
    starts.sort_unstable();
    assert!(budgets.iter().all(|budget| !budget.alone.get()));
    for pair in starts.windows(2) {
        assert!(pair[1] - pair[0] >= 195, "{starts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_spent_day_is_told_to_the_others_until_it_ends() {
    let table: Rc<dyn Table> = Rc::new(MemoryTable::new());
    let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
    let limiter = || {
        let budget = SharedBudget::new(Rc::clone(&table), clock.clone(), "default");
        RateLimiter::new(&Limits::default(), clock.clone(), Rc::new(budget))
    };
    let (one, other) = (limiter(), limiter());
    one.set_time_zone(jiff::tz::TimeZone::get("America/New_York").unwrap());
    other.acquire(Bucket::Burst).await.unwrap();
    one.acquire(Bucket::Burst).await.unwrap();
    one.daily_spent();
    assert_eq!(one.acquire(Bucket::Burst).await.unwrap_err().kind(), ErrorKind::DailyLimit);
    let midnight = "2026-11-23T05:00:00Z";
    for (limiter, bucket) in [(&other, Bucket::Search), (&limiter(), Bucket::Burst)] {
        let error = limiter.acquire(bucket).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::DailyLimit, codes::DAILY_LIMIT));
        assert!(error.message().contains(midnight), "{error}");
        assert_eq!(limiter.day_ends().to_string(), midnight, "though it does not know the time zone");
        assert_eq!(limiter.counts().total, u64::from(bucket == Bucket::Search));
    }
    clock.sleep(7 * 3_600 * SECOND).await;
    for limiter in [one, other, limiter()] {
        limiter.acquire(Bucket::Burst).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_day_is_told_and_each_keeps_its_own_reserve() {
    let table: Rc<dyn Table> = Rc::new(MemoryTable::new());
    let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
    let limiter = |reserve: u64| {
        let budget = SharedBudget::new(Rc::clone(&table), clock.clone(), "default");
        let limits = Limits { daily_reserve: Some(Amount::Count(reserve)), ..Limits::default() };
        RateLimiter::new(&limits, clock.clone(), Rc::new(budget))
    };
    let one = limiter(100);
    one.acquire(Bucket::Burst).await.unwrap();
    let mut told = http::HeaderMap::new();
    told.insert("x-hubspot-ratelimit-daily", 1_000.into());
    told.insert("x-hubspot-ratelimit-daily-remaining", 90.into());
    one.observe(Bucket::Burst, &told);
    // It did not know how long when it was told.
    one.set_time_zone(jiff::tz::TimeZone::get("America/New_York").unwrap());
    assert!(one.acquire(Bucket::Burst).await.is_err());
    let other = limiter(100);
    let error = other.acquire(Bucket::Burst).await.unwrap_err();
    assert_eq!((error.code(), other.counts().total), (codes::DAILY_LIMIT, 0));
    assert!(
        error.message().contains("90 of the account's calls") && error.message().contains("2026-11-23T05:00:00Z"),
        "{error}"
    );
    // Whose settings were changed since then may go on.
    limiter(50).acquire(Bucket::Burst).await.unwrap();
    clock.sleep(7 * 3_600 * SECOND).await;
    other.acquire(Bucket::Burst).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_429_of_one_slows_the_other_down() {
    let table: Rc<dyn Table> = Rc::new(MemoryTable::new());
    let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
    let (one, other) = (
        SharedBudget::new(Rc::clone(&table), clock.clone(), "a"),
        SharedBudget::new(Rc::clone(&table), clock.clone(), "a"),
    );
    let pace = Pace { calls: 19.0, window: SECOND };
    clock.sleep(100 * SECOND).await;
    let mut slowdown = Slowdown::NONE;
    slowdown.throttled(clock.elapsed(), 4 * SECOND);
    one.slow_down(Bucket::Burst, slowdown);
    one.reserve(Bucket::Burst, 1, pace, clock.elapsed()).await.unwrap();
    clock.sleep(SECOND).await;
    other.reserve(Bucket::Burst, 1, pace, clock.elapsed()).await.unwrap();
    let heard = other.slowed(Bucket::Burst).unwrap();
    assert_eq!((heard.speed, heard.at, heard.paused_until), (0.93, 100 * SECOND, 104 * SECOND));
    assert_eq!(other.slowed(Bucket::Search), None);
    // A process that starts later hears of it as it is then.
    let late = SharedBudget::new(
        Rc::clone(&table),
        Rc::new(VirtualClock::starting_at("2026-11-22T22:01:51Z".parse().unwrap())),
        "a",
    );
    late.reserve(Bucket::Burst, 1, pace, Duration::ZERO).await.unwrap();
    let speed = late.slowed(Bucket::Burst).unwrap().speed(Duration::ZERO);
    assert!((0.965..0.98).contains(&speed), "{speed}");
}

#[tokio::test(start_paused = true)]
async fn slots_years_ahead_are_nobodys() {
    let table: Rc<dyn Table> = Rc::new(MemoryTable::new());
    let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
    let budget = SharedBudget::new(Rc::clone(&table), clock.clone(), "a");
    let set = vec![("next", Value::N(9_000_000_000_000_000))];
    table.update(&budget.key(Bucket::Burst), Update { set, ..Update::default() }).await.unwrap();
    let pace = Pace { calls: 19.0, window: SECOND };
    for _ in 0..2 {
        let grant = budget.reserve(Bucket::Burst, 2, pace, clock.elapsed()).await.unwrap();
        assert!(grant.start < SECOND, "{grant:?}");
        assert!(!budget.alone.get());
    }
}
