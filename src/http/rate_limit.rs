//! Spends an account's limits evenly, so that they are used fully and never passed.
//!
//! HubSpot counts calls in a *rolling* window. Against such a window a pacer at exactly the limit draws 429s and falls to two
//! thirds of the ceiling, while one that stays 1.6 % below it reaches 98 % with none. So calls are spaced evenly, idle time is
//! not saved up, and nothing is sent in bursts.
//!
//! Where the slots come from is a [`Budget`]: of this process alone ([`LocalBudget`]), or shared with others through the table.

use std::{cell::RefCell, rc::Rc, time::Duration};

use async_trait::async_trait;
use http::HeaderMap;
use jiff::{Timestamp, ToSpan, tz::TimeZone};

use crate::{
    Error, ErrorKind, Result,
    clock::Clock,
    codes,
    config::{Amount, Limits},
};

/// The share of a limit that is used: the rest absorbs what the network adds to the spacing.
pub const USED_SHARE: f64 = 0.984;

/// Until HubSpot's first answer tells the account's own: the limit of the smallest accounts.
const BURST_UNKNOWN: u32 = 100;
const INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// HubSpot allows 5 searches a second to all apps together.
const SEARCH_DEFAULT: u32 = 4;
/// Association batches have a limit of their own: 100 on the smallest accounts.
const ASSOCIATIONS_MAX: u32 = 100;
const DAILY_RESERVE_DEFAULT: Amount = Amount::Share(0.1);

/// A 429 that says nothing: a tenth of the rolling window is free again after this.
const PAUSE_DEFAULT: Duration = Duration::from_secs(1);
/// A longer pause is the business of the call that was told so (it stops), not of all others.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Each 429 takes this share of the speed, at most once in [`SLOWDOWN_EVERY`]: the answers of one moment tell one thing.
const SLOWDOWN: f64 = 0.85;
const SLOWDOWN_EVERY: Duration = Duration::from_secs(2);
const SPEED_MIN: f64 = 0.1;
/// Regained per second without a 429: what one 429 took is back after 15 s, longer than the window.
const RECOVERY_PER_SECOND: f64 = 0.01;
/// Where the account's time zone is not known, ask again after this.
const DAILY_RETRY: Duration = Duration::from_secs(60 * 60);

/// Which limit a call counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// The app's calls in ten seconds.
    Burst,
    /// Searches of the whole account in a second.
    Search,
    /// Association batches, exempt from the ten-second limit.
    Associations,
}

/// A speed: so many calls in so much time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Calls in `window`.
    pub calls: f64,
    /// The time they are spread over.
    pub window: Duration,
}

impl Pace {
    /// The time between two calls.
    pub fn gap(self) -> Duration {
        self.window.div_f64(self.calls.max(0.01))
    }
}

/// Slots that were granted: `calls` slots, `gap` apart, the first at `start`. What is not used in time is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How many calls.
    pub calls: u32,
    /// When the first may be sent, on [`Clock::elapsed`]'s scale.
    pub start: Duration,
    /// From one to the next.
    pub gap: Duration,
}

/// Where slots come from.
#[async_trait(?Send)]
pub trait Budget {
    /// The span of time worth reserving at once: nothing where a reservation costs nothing.
    fn block(&self) -> Duration;
    /// Reserves up to `want` (at least 1) slots at `pace`, after all that were granted before. `now` is [`Clock::elapsed`].
    async fn reserve(&self, bucket: Bucket, want: u32, pace: Pace, now: Duration) -> Result<Grant>;
}

/// How late a slot may be used: half a gap makes up for a busy moment and never puts one call too many into a window.
fn lateness(gap: Duration) -> Duration {
    gap / 2
}

/// The first slot at or after `next`, were it not for idle time, which is lost. Pure.
pub fn next_slot(next: Duration, now: Duration, gap: Duration) -> Duration {
    next.max(now.saturating_sub(lateness(gap)))
}

/// A budget of this process alone.
#[derive(Debug, Default)]
pub struct LocalBudget {
    next: RefCell<[Duration; 3]>,
}

#[async_trait(?Send)]
impl Budget for LocalBudget {
    fn block(&self) -> Duration {
        Duration::ZERO
    }

    async fn reserve(&self, bucket: Bucket, want: u32, pace: Pace, now: Duration) -> Result<Grant> {
        let gap = pace.gap();
        let mut next = self.next.borrow_mut();
        let slot = match (&mut *next, bucket) {
            ([slot, _, _], Bucket::Burst) | ([_, slot, _], Bucket::Search) | ([_, _, slot], Bucket::Associations) => {
                slot
            }
        };
        let start = next_slot(*slot, now, gap);
        *slot = start.saturating_add(gap.saturating_mul(want));
        Ok(Grant { calls: want, start, gap })
    }
}

/// How many calls were made, for the run's report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Everything that was sent, repeats included.
    pub total: u64,
    /// Repeats.
    pub retried: u64,
    /// Answers with status 429.
    pub throttled: u64,
    /// Searches among the total.
    pub search: u64,
}

/// What is known about the day's calls.
#[derive(Debug, Clone, Copy, Default)]
struct Daily {
    limit: Option<u64>,
    remaining: Option<u64>,
    /// What was known is forgotten at this moment.
    until: Option<Timestamp>,
    spent: bool,
}

struct Lane {
    /// FIFO: only the first of those who wait looks at the clock.
    turn: tokio::sync::Mutex<()>,
    state: RefCell<LaneState>,
}

struct LaneState {
    limit: u32,
    interval: Duration,
    /// Set in the configuration: not learned.
    fixed: bool,
    speed: f64,
    speed_at: Duration,
    slowed_at: Option<Duration>,
    paused_until: Duration,
    grants: Vec<Grant>,
    last: Option<Duration>,
    sent: u64,
    possible: f64,
}

impl Lane {
    fn new(limit: u32, interval: Duration, fixed: bool) -> Self {
        Self {
            turn: tokio::sync::Mutex::new(()),
            state: RefCell::new(LaneState {
                limit: limit.max(1),
                interval,
                fixed,
                speed: 1.0,
                speed_at: Duration::ZERO,
                slowed_at: None,
                paused_until: Duration::ZERO,
                grants: Vec::new(),
                last: None,
                sent: 0,
                possible: 0.0,
            }),
        }
    }
}

impl LaneState {
    fn pace(&mut self, now: Duration) -> Pace {
        let calm = now.saturating_sub(self.speed_at).as_secs_f64();
        self.speed = (self.speed + calm * RECOVERY_PER_SECOND).min(1.0);
        self.speed_at = now;
        Pace { calls: f64::from(self.limit) * USED_SHARE * self.speed, window: self.interval }
    }

    /// The next slot that is not too old; takes it if it is due.
    fn take(&mut self, now: Duration) -> Option<Result<(), Duration>> {
        if self.paused_until > now {
            return Some(Err(self.paused_until - now));
        }
        while let Some(grant) = self.grants.first_mut() {
            if grant.calls == 0 || grant.start.saturating_add(lateness(grant.gap)) < now {
                if grant.calls <= 1 {
                    self.grants.remove(0);
                } else {
                    grant.calls -= 1;
                    grant.start += grant.gap;
                }
                continue;
            }
            if grant.start > now {
                return Some(Err(grant.start - now));
            }
            grant.calls -= 1;
            grant.start += grant.gap;
            self.sent += 1;
            if let Some(last) = self.last {
                // Idle stretches are not time in which the limit could have been used.
                let active = now.saturating_sub(last).min(self.interval);
                self.possible += f64::from(self.limit) * active.as_secs_f64() / self.interval.as_secs_f64();
            }
            self.last = Some(now);
            return Some(Ok(()));
        }
        None
    }

    fn slots_left(&self) -> u32 {
        self.grants.iter().map(|grant| grant.calls).sum()
    }
}

/// The right to make one call now: the next call's turn, taken before it is decided what goes into it.
#[derive(Debug)]
pub struct Permit {
    _private: (),
}

/// Paces the calls of one account.
pub struct RateLimiter {
    clock: Rc<dyn Clock>,
    budget: Rc<dyn Budget>,
    burst: Lane,
    search: Lane,
    associations: Lane,
    daily: RefCell<Daily>,
    daily_limit_set: Option<u64>,
    daily_reserve: Amount,
    time_zone: RefCell<Option<TimeZone>>,
    counts: RefCell<CallCounts>,
}

impl RateLimiter {
    /// A limiter for an account with these settings.
    pub fn new(limits: &Limits, clock: Rc<dyn Clock>, budget: Rc<dyn Budget>) -> Self {
        let interval = limits.interval_seconds.filter(|seconds| *seconds > 0);
        let interval = interval.map_or(INTERVAL_DEFAULT, |seconds| Duration::from_secs(seconds.into()));
        let burst = limits.burst.unwrap_or(BURST_UNKNOWN);
        Self {
            clock,
            budget,
            burst: Lane::new(burst, interval, limits.burst.is_some()),
            search: Lane::new(limits.search_per_second.unwrap_or(SEARCH_DEFAULT), Duration::from_secs(1), true),
            associations: Lane::new(burst.min(ASSOCIATIONS_MAX), interval, true),
            daily: RefCell::new(Daily { limit: limits.daily, ..Daily::default() }),
            daily_limit_set: limits.daily,
            daily_reserve: limits.daily_reserve.unwrap_or(DAILY_RESERVE_DEFAULT),
            time_zone: RefCell::new(None),
            counts: RefCell::new(CallCounts::default()),
        }
    }

    fn lane(&self, bucket: Bucket) -> &Lane {
        match bucket {
            Bucket::Burst => &self.burst,
            Bucket::Search => &self.search,
            Bucket::Associations => &self.associations,
        }
    }

    /// Waits for the next slot, first come, first served. Dropping the future gives the place in the queue back.
    ///
    /// `DAILY_LIMIT` when the day's calls are spent but for the reserve.
    pub async fn acquire(&self, bucket: Bucket) -> Result<Permit> {
        let lane = self.lane(bucket);
        let _turn = lane.turn.lock().await;
        loop {
            self.check_daily()?;
            let now = self.clock.elapsed();
            let (next, pace, left) = {
                let mut state = lane.state.borrow_mut();
                let pace = state.pace(now);
                (state.take(now), pace, state.slots_left())
            };
            let block = (self.budget.block().as_secs_f64() / pace.gap().as_secs_f64()).floor().clamp(1.0, 1_000.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1,000")]
            let want = block as u32;
            match next {
                Some(Ok(())) => break,
                // Half of the block is left and there is time: fetch the next one while waiting.
                Some(Err(wait)) if want > 1 && left <= want / 2 => {
                    let (grant, ()) = futures_util::future::join(
                        self.budget.reserve(bucket, want, pace, now),
                        self.clock.sleep(wait),
                    )
                    .await;
                    lane.state.borrow_mut().grants.push(grant?);
                }
                Some(Err(wait)) => self.clock.sleep(wait).await,
                None => {
                    let grant = self.budget.reserve(bucket, want, pace, now).await?;
                    lane.state.borrow_mut().grants.push(grant);
                }
            }
        }
        let mut counts = self.counts.borrow_mut();
        counts.total += 1;
        counts.search += u64::from(bucket == Bucket::Search);
        let mut daily = self.daily.borrow_mut();
        daily.remaining = daily.remaining.map(|remaining| remaining.saturating_sub(1));
        Ok(Permit { _private: () })
    }

    /// Calls a second that the burst limit allows.
    pub fn ceiling_per_second(&self) -> f64 {
        let state = self.burst.state.borrow();
        f64::from(state.limit) / state.interval.as_secs_f64()
    }

    /// Learns from the headers of an answer. Absent or unreadable ones teach nothing.
    pub fn observe(&self, bucket: Bucket, headers: &HeaderMap) {
        let number = |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
        if bucket == Bucket::Burst {
            let max = number("x-hubspot-ratelimit-max").and_then(|max| u32::try_from(max).ok()).filter(|max| *max > 0);
            let interval =
                number("x-hubspot-ratelimit-interval-milliseconds").filter(|millis| (100..=600_000).contains(millis));
            let mut state = self.burst.state.borrow_mut();
            if !state.fixed
                && let Some(max) = max
            {
                state.limit = max;
                state.interval = interval.map_or(state.interval, Duration::from_millis);
            }
        }
        let mut daily = self.daily.borrow_mut();
        if self.daily_limit_set.is_none()
            && let Some(limit) = number("x-hubspot-ratelimit-daily")
        {
            daily.limit = Some(limit);
        }
        if let Some(remaining) = number("x-hubspot-ratelimit-daily-remaining") {
            daily.remaining = Some(remaining);
            daily.until = Some(self.day_ends());
        }
    }

    /// A 429 was answered: everybody waits what the server said, and goes on a little slower.
    pub fn throttled(&self, bucket: Bucket, retry_after: Option<Duration>) {
        self.counts.borrow_mut().throttled += 1;
        let now = self.clock.elapsed();
        let mut state = self.lane(bucket).state.borrow_mut();
        let pause = retry_after.unwrap_or(PAUSE_DEFAULT).min(PAUSE_MAX);
        state.paused_until = state.paused_until.max(now.saturating_add(pause));
        if state.slowed_at.is_none_or(|at| now.saturating_sub(at) >= SLOWDOWN_EVERY) {
            state.slowed_at = Some(now);
            state.speed = (state.speed * SLOWDOWN).max(SPEED_MIN);
            state.speed_at = now;
        }
    }

    /// HubSpot said that the day's calls are spent.
    pub fn daily_spent(&self) {
        self.counts.borrow_mut().throttled += 1;
        let mut daily = self.daily.borrow_mut();
        daily.spent = true;
        daily.until = Some(self.day_ends());
    }

    /// A call is sent again.
    pub fn retried(&self) {
        self.counts.borrow_mut().retried += 1;
    }

    /// The account's time zone: its days end at its midnight.
    pub fn set_time_zone(&self, time_zone: TimeZone) {
        *self.time_zone.borrow_mut() = Some(time_zone);
    }

    /// When the day's calls are there again: the account's next midnight, or, where its time zone is not known, an hour from now.
    pub fn day_ends(&self) -> Timestamp {
        let now = self.clock.now();
        let midnight = self.time_zone.borrow().as_ref().and_then(|zone| {
            let tomorrow = now.to_zoned(zone.clone()).date().checked_add(1.day()).ok()?;
            Some(tomorrow.to_zoned(zone.clone()).ok()?.timestamp())
        });
        midnight.unwrap_or_else(|| now.saturating_add(DAILY_RETRY).unwrap_or(Timestamp::MAX))
    }

    fn check_daily(&self) -> Result<()> {
        let mut daily = self.daily.borrow_mut();
        if daily.until.is_some_and(|until| self.clock.now() >= until) {
            *daily = Daily { limit: daily.limit, ..Daily::default() };
        }
        let reserve = match (self.daily_reserve, daily.limit) {
            (Amount::Count(count), _) => count,
            (share, Some(limit)) => share.of(limit),
            (Amount::Share(_), None) => 0,
        };
        let why = if daily.spent {
            "HubSpot says that the account's calls of the day are spent".to_owned()
        } else if let Some(remaining) = daily.remaining.filter(|remaining| *remaining <= reserve) {
            format!("{remaining} of the account's calls of the day are left, and {reserve} are kept for other apps")
        } else {
            return Ok(());
        };
        let until = daily.until.map_or_else(String::new, |until| format!("; next try at {until}"));
        Err(Error::new(ErrorKind::DailyLimit, codes::DAILY_LIMIT, why + &until))
    }

    /// What was sent so far.
    pub fn counts(&self) -> CallCounts {
        *self.counts.borrow()
    }

    /// How much of the ten-second limit was used while calls were made, in percent; 0 before there are two.
    #[expect(clippy::cast_precision_loss, reason = "a percentage of a count of calls")]
    pub fn limit_use_percent(&self) -> f64 {
        let state = self.burst.state.borrow();
        if state.possible <= 0.0 { 0.0 } else { state.sent.saturating_sub(1) as f64 / state.possible * 100.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Rng, VirtualClock};
    use futures_util::future::join_all;
    use std::collections::VecDeque;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn limiter(limits: &Limits) -> (Rc<RateLimiter>, Rc<VirtualClock>) {
        let clock = Rc::new(VirtualClock::starting_at(at("2026-11-22T22:00:00Z")));
        (Rc::new(RateLimiter::new(limits, clock.clone(), Rc::new(LocalBudget::default()))), clock)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// HubSpot's side: counts arrivals in a rolling window, refused ones included.
    struct Window {
        max: usize,
        arrivals: RefCell<VecDeque<Duration>>,
        refused: RefCell<u32>,
        accepted: RefCell<u32>,
    }

    impl Window {
        fn arrive(&self, now: Duration) -> bool {
            let mut arrivals = self.arrivals.borrow_mut();
            while arrivals.front().is_some_and(|first| now - *first >= Duration::from_secs(10)) {
                arrivals.pop_front();
            }
            arrivals.push_back(now);
            let fits = arrivals.len() <= self.max;
            *if fits { self.accepted.borrow_mut() } else { self.refused.borrow_mut() } += 1;
            fits
        }
    }

    /// Runs `workers` callers for `seconds`; returns accepted and refused calls.
    async fn run(max: u32, latency: Duration, workers: usize, seconds: u64) -> (u32, u32, f64) {
        let (limiter, clock) = limiter(&Limits { burst: Some(max), ..Limits::default() });
        let window = Window {
            max: max as usize,
            arrivals: RefCell::default(),
            refused: RefCell::default(),
            accepted: RefCell::default(),
        };
        let rng = Rng::seeded(7);
        let end = Duration::from_secs(seconds);
        join_all((0..workers).map(|_| async {
            loop {
                limiter.acquire(Bucket::Burst).await.unwrap();
                if clock.elapsed() >= end {
                    return;
                }
                // The way there takes 10 to 40 ms.
                clock.sleep(Duration::from_millis(10).mul_f64(1.0 + 3.0 * rng.fraction())).await;
                if !window.arrive(clock.elapsed()) {
                    limiter.throttled(Bucket::Burst, None);
                }
                clock.sleep(latency.mul_f64(0.7 + 0.6 * rng.fraction())).await;
            }
        }))
        .await;
        (window.accepted.take(), window.refused.take(), limiter.limit_use_percent())
    }

    #[tokio::test(start_paused = true)]
    async fn uses_97_percent_of_a_rolling_window_without_a_single_refusal() {
        for max in [190, 100] {
            for latency in [50, 300, 3_000] {
                let (accepted, refused, percent) = run(max, Duration::from_millis(latency), 128, 120).await;
                let ceiling = max * 12;
                assert_eq!(refused, 0, "{max} at {latency} ms");
                assert!(
                    f64::from(accepted) >= 0.97 * f64::from(ceiling),
                    "{max} at {latency} ms: {accepted} of {ceiling}"
                );
                assert!((97.0..100.0).contains(&percent), "{percent}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up() {
        let (limiter, clock) = limiter(&Limits { burst: Some(100), ..Limits::default() });
        limiter.acquire(Bucket::Burst).await.unwrap();
        clock.sleep(Duration::from_secs(60)).await;
        let start = clock.elapsed();
        for _ in 0..20 {
            limiter.acquire(Bucket::Burst).await.unwrap();
        }
        assert!(clock.elapsed() - start > Duration::from_millis(1_800), "{:?}", clock.elapsed() - start);
        assert!(limiter.limit_use_percent() < 100.0);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_given_in_the_order_of_asking() {
        let (limiter, _) = limiter(&Limits::default());
        let order = RefCell::new(Vec::new());
        join_all((0..20).map(|n| {
            let (limiter, order) = (&limiter, &order);
            async move {
                limiter.acquire(Bucket::Burst).await.unwrap();
                order.borrow_mut().push(n);
            }
        }))
        .await;
        assert_eq!(order.take(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_learned_from_the_answers_unless_it_is_set() {
        let told =
            headers(&[("x-hubspot-ratelimit-max", "190"), ("x-hubspot-ratelimit-interval-milliseconds", "10000")]);
        for (limits, expected) in [(Limits::default(), 190), (Limits { burst: Some(150), ..Limits::default() }, 150)] {
            let (limiter, _) = limiter(&limits);
            limiter.observe(Bucket::Burst, &told);
            limiter.observe(Bucket::Burst, &headers(&[("x-hubspot-ratelimit-max", "many")]));
            limiter.observe(Bucket::Associations, &headers(&[("x-hubspot-ratelimit-max", "5")]));
            assert_eq!(limiter.burst.state.borrow().limit, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_429_everybody_waits_slows_down_and_recovers() {
        let (limiter, clock) = limiter(&Limits { burst: Some(100), ..Limits::default() });
        limiter.acquire(Bucket::Burst).await.unwrap();
        limiter.throttled(Bucket::Burst, Some(Duration::from_secs(4)));
        limiter.throttled(Bucket::Burst, None);
        limiter.acquire(Bucket::Burst).await.unwrap();
        assert!(clock.elapsed() >= Duration::from_secs(4));
        let rate = async |calls: u32| {
            let start = clock.elapsed();
            for _ in 0..calls {
                limiter.acquire(Bucket::Burst).await.unwrap();
            }
            f64::from(calls) / (clock.elapsed() - start).as_secs_f64()
        };
        let slow = rate(10).await;
        assert!(slow < 9.4, "{slow}");
        rate(200).await;
        let recovered = rate(50).await;
        assert!(recovered > 9.7, "{recovered}");
        assert_eq!(limiter.counts().throttled, 2);
        // Searches have a limit of their own.
        limiter.throttled(Bucket::Search, Some(Duration::from_secs(30)));
        let start = clock.elapsed();
        limiter.acquire(Bucket::Burst).await.unwrap();
        assert!(clock.elapsed() - start < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_days_reserve_is_left_to_others_until_the_accounts_midnight() {
        let (limiter, clock) = limiter(&Limits::default());
        limiter.set_time_zone(TimeZone::get("America/New_York").unwrap());
        let told = [("x-hubspot-ratelimit-daily", "1000"), ("x-hubspot-ratelimit-daily-remaining", "101")];
        limiter.observe(Bucket::Burst, &headers(&told));
        limiter.acquire(Bucket::Burst).await.unwrap();
        let error = limiter.acquire(Bucket::Burst).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::DailyLimit, codes::DAILY_LIMIT));
        assert!(error.message().contains("2026-11-23T05:00:00Z"), "{error}");
        clock.sleep(Duration::from_secs(7 * 3_600 + 1)).await;
        limiter.acquire(Bucket::Burst).await.unwrap();
        limiter.daily_spent();
        assert!(limiter.acquire(Bucket::Search).await.is_err());
    }

    /// Grants blocks of half a second, after a round trip.
    struct Remote {
        inner: LocalBudget,
        clock: Rc<dyn Clock>,
        reservations: RefCell<u32>,
    }

    #[async_trait(?Send)]
    impl Budget for Remote {
        fn block(&self) -> Duration {
            Duration::from_millis(500)
        }
        async fn reserve(&self, bucket: Bucket, want: u32, pace: Pace, now: Duration) -> Result<Grant> {
            *self.reservations.borrow_mut() += 1;
            let grant = self.inner.reserve(bucket, want, pace, now).await;
            self.clock.sleep(Duration::from_millis(20)).await;
            grant
        }
    }

    #[tokio::test(start_paused = true)]
    async fn blocks_are_reserved_ahead_of_need() {
        let clock: Rc<dyn Clock> = Rc::new(VirtualClock::starting_at(at("2026-11-22T22:00:00Z")));
        let remote =
            Rc::new(Remote { inner: LocalBudget::default(), clock: clock.clone(), reservations: RefCell::new(0) });
        let limiter =
            RateLimiter::new(&Limits { burst: Some(190), ..Limits::default() }, clock.clone(), remote.clone());
        for _ in 0..1_870 {
            limiter.acquire(Bucket::Burst).await.unwrap();
        }
        let took = clock.elapsed().as_secs_f64();
        assert!((99.5..101.5).contains(&took), "{took}");
        assert!(*remote.reservations.borrow() < 220, "{}", remote.reservations.borrow());
    }
}
