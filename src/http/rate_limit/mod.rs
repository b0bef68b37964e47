//! Spends an account's limits evenly, so that they are used fully and never passed.
//!
//! HubSpot counts calls in a *rolling* window. Against such a window a pacer at exactly the limit draws 429s and falls to two
//! thirds of the ceiling, while one that stays 1.6 % below it reaches 98 % with none. So calls are spaced evenly, idle time is
//! not saved up, and nothing is sent in bursts.
//!
//! Where the slots come from is a [`Budget`]: of this process alone ([`LocalBudget`]), or shared with others through the table
//! ([`crate::state::limits::SharedBudget`]).

mod budget;
mod lane;
#[cfg(test)]
mod tests;

use std::{cell::RefCell, pin::pin, rc::Rc, time::Duration};

use futures_util::future::{Either, select};
use http::HeaderMap;
use jiff::{Timestamp, ToSpan, tz::TimeZone};

pub(crate) use budget::PerBucket;
use budget::lateness;
pub use budget::{Bucket, Budget, DayLeft, Grant, LocalBudget, Pace, Slowdown, next_slot};
use lane::{Lane, Next, Reservation, Turn};

use crate::{
    Error, ErrorKind, Result,
    clock::Clock,
    codes,
    config::{Amount, Limits},
    mutate::{self, Bug},
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
/// How late a turn may be used where slots are close together: as long as what comes before a call, a note that is written to S3, may take.
/// When all are as late as that, none of them stands where another one does.
const PERMIT_LATE_MIN: Duration = Duration::from_millis(250);
const DAILY_RESERVE_DEFAULT: Amount = Amount::Share(0.1);

/// A 429 that says nothing: a tenth of the rolling window is free again after this.
const PAUSE_DEFAULT: Duration = Duration::from_secs(1);
/// A longer pause is the business of the call that was told so (it stops), not of all others.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Where the account's time zone is not known, ask again after this.
const DAILY_RETRY: Duration = Duration::from_secs(60 * 60);

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
    /// The others know that this day has no call for us any more.
    told: bool,
}

/// The right to make one call now: the next call's turn, taken before it is decided what goes into it.
#[derive(Debug)]
pub struct Permit {
    /// On [`Clock::elapsed`]'s scale.
    taken_at: Duration,
}

/// Paces the calls of one account.
pub struct RateLimiter {
    clock: Rc<dyn Clock>,
    budget: Rc<dyn Budget>,
    lanes: PerBucket<Lane>,
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
            lanes: PerBucket::new(
                Lane::new(burst, interval, limits.burst.is_some()),
                Lane::new(limits.search_per_second.unwrap_or(SEARCH_DEFAULT), Duration::from_secs(1), true),
                Lane::new(burst.min(ASSOCIATIONS_MAX), interval, true),
            ),
            daily: RefCell::new(Daily { limit: limits.daily, ..Daily::default() }),
            daily_limit_set: limits.daily,
            daily_reserve: limits.daily_reserve.unwrap_or(DAILY_RESERVE_DEFAULT),
            time_zone: RefCell::new(None),
            counts: RefCell::new(CallCounts::default()),
        }
    }

    /// Waits for the next slot, first come, first served. Dropping the future gives the place in the queue back.
    ///
    /// `DAILY_LIMIT` when the day's calls are spent but for the reserve.
    pub async fn acquire(&self, bucket: Bucket) -> Result<Permit> {
        let lane = self.lanes.of(bucket);
        let mut turn = lane.turn.lock().await;
        loop {
            self.check_day().await?;
            let now = self.clock.elapsed();
            let (next, low) = {
                let mut state = lane.state.borrow_mut();
                (state.take(now), state.runs_low())
            };
            match next {
                Next::Taken => break,
                // Slots reserved now would be lost during the pause.
                Next::Paused(wait) => self.clock.sleep(wait).await,
                Next::Due(wait) if low || turn.pending.is_some() => {
                    let reservation = self.reservation(bucket, &mut turn);
                    if let Either::Left((grant, _)) = select(reservation, pin!(self.clock.sleep(wait))).await {
                        self.receive(bucket, &mut turn, grant)?;
                    }
                }
                Next::Due(wait) => self.clock.sleep(wait).await,
                Next::Empty => {
                    let grant = self.reservation(bucket, &mut turn).await;
                    self.receive(bucket, &mut turn, grant)?;
                }
            }
        }
        let mut counts = self.counts.borrow_mut();
        counts.total += 1;
        counts.search += u64::from(bucket == Bucket::Search);
        let mut daily = self.daily.borrow_mut();
        daily.remaining = daily.remaining.map(|remaining| remaining.saturating_sub(1));
        Ok(Permit { taken_at: self.clock.elapsed() })
    }

    /// Whether a turn may still be used, which is over soon after it has come: the call would go out between the slots of others, one too
    /// many in a window. One that is over is lost, and counts as no call.
    pub fn is_current(&self, permit: &Permit) -> bool {
        let now = self.clock.elapsed();
        let gap = self.lanes.of(Bucket::Burst).state.borrow().pace(now).gap();
        let current = now.saturating_sub(permit.taken_at) <= lateness(gap).max(PERMIT_LATE_MIN);
        if !current {
            let mut counts = self.counts.borrow_mut();
            counts.total = counts.total.saturating_sub(1);
            let mut daily = self.daily.borrow_mut();
            daily.remaining = daily.remaining.map(|remaining| remaining.saturating_add(1));
        }
        current
    }

    /// The reservation under way; starts one if there is none.
    fn reservation<'a>(&self, bucket: Bucket, turn: &'a mut Turn) -> &'a mut Reservation {
        turn.pending.get_or_insert_with(|| {
            let now = self.clock.elapsed();
            let state = self.lanes.of(bucket).state.borrow();
            let pace = state.pace(now);
            let want = state.want(self.budget.block(bucket), pace.gap());
            let budget = Rc::clone(&self.budget);
            Box::pin(async move { Ok((budget.reserve(bucket, want, pace, now).await?, want)) })
        })
    }

    /// What a reservation brought: slots, and what the others have learned.
    fn receive(&self, bucket: Bucket, turn: &mut Turn, granted: Result<(Grant, u32)>) -> Result<()> {
        turn.pending = None;
        let (grant, want) = granted?;
        let mut state = self.lanes.of(bucket).state.borrow_mut();
        state.receive(grant, want, self.clock.elapsed());
        if let Some(slowed) = self.budget.slowed(bucket) {
            state.slowdown = state.slowdown.and(slowed, self.clock.elapsed());
        }
        if let Some(left) = self.budget.day_left().filter(|left| left.until > self.clock.now()) {
            let mut daily = self.daily.borrow_mut();
            let calls = daily.remaining.map_or(left.calls, |known| known.min(left.calls));
            *daily = Daily { remaining: Some(calls), until: Some(left.until), told: calls == left.calls, ..*daily };
        }
        Ok(())
    }

    /// Calls a second that the burst limit allows.
    pub fn ceiling_per_second(&self) -> f64 {
        let state = self.lanes.of(Bucket::Burst).state.borrow();
        f64::from(state.limit) / state.interval.as_secs_f64()
    }

    /// Learns from the headers of an answer. Absent or unreadable ones teach nothing.
    pub fn observe(&self, bucket: Bucket, headers: &HeaderMap) {
        let number = |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
        if bucket == Bucket::Burst {
            let max = number("x-hubspot-ratelimit-max").and_then(|max| u32::try_from(max).ok()).filter(|max| *max > 0);
            let interval =
                number("x-hubspot-ratelimit-interval-milliseconds").filter(|millis| (100..=600_000).contains(millis));
            let mut state = self.lanes.of(Bucket::Burst).state.borrow_mut();
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
            // An answer that was long under way tells of a moment that is past: within a day the number only falls.
            let fallen = daily.remaining.filter(|_| daily.until == Some(self.midnight()));
            daily.remaining = Some(fallen.map_or(remaining, |known| known.min(remaining)));
            daily.until = Some(self.midnight());
        }
    }

    /// A 429 was answered: everybody waits what the server said, and goes on a little slower.
    pub fn throttled(&self, bucket: Bucket, retry_after: Option<Duration>) {
        self.counts.borrow_mut().throttled += 1;
        let pause = retry_after.unwrap_or(PAUSE_DEFAULT).min(PAUSE_MAX);
        let mut state = self.lanes.of(bucket).state.borrow_mut();
        state.slowdown.throttled(self.clock.elapsed(), pause);
        self.budget.slow_down(bucket, state.slowdown);
    }

    /// HubSpot said that the day's calls are spent.
    pub fn daily_spent(&self) {
        self.counts.borrow_mut().throttled += 1;
        let mut daily = self.daily.borrow_mut();
        if daily.remaining != Some(0) {
            *daily = Daily { remaining: Some(0), told: false, until: Some(self.midnight()), ..*daily };
        }
    }

    /// A call is sent again.
    pub fn retried(&self) {
        self.counts.borrow_mut().retried += 1;
    }

    /// The account's time zone: its days end at its midnight.
    pub fn set_time_zone(&self, time_zone: TimeZone) {
        *self.time_zone.borrow_mut() = Some(time_zone);
        let midnight = self.midnight();
        let mut daily = self.daily.borrow_mut();
        daily.until = daily.until.map(|_| midnight);
    }

    /// When the day's calls are there again: the account's next midnight, or, where its time zone is not known, an hour from when it was
    /// noticed.
    pub fn day_ends(&self) -> Timestamp {
        let daily = self.daily.borrow();
        daily.until.filter(|until| *until > self.clock.now()).unwrap_or_else(|| self.midnight())
    }

    fn midnight(&self) -> Timestamp {
        let now = self.clock.now();
        let midnight = self.time_zone.borrow().as_ref().and_then(|zone| {
            let tomorrow = now.to_zoned(zone.clone()).date().checked_add(1.day()).ok()?;
            Some(tomorrow.to_zoned(zone.clone()).ok()?.timestamp())
        });
        midnight.unwrap_or_else(|| now.saturating_add(DAILY_RETRY).unwrap_or(Timestamp::MAX))
    }

    /// `DAILY_LIMIT` when the day's calls are spent; the first who notices tells the others.
    async fn check_day(&self) -> Result<()> {
        let checked = self.check_daily();
        if checked.is_err() {
            let tell = {
                let mut daily = self.daily.borrow_mut();
                let left = daily.remaining.zip(daily.until).filter(|_| !daily.told);
                daily.told = true;
                left
            };
            if let Some((calls, until)) = tell {
                self.budget.tell_day(DayLeft { calls, until }).await;
            }
        }
        checked
    }

    fn check_daily(&self) -> Result<()> {
        let mut daily = self.daily.borrow_mut();
        if daily.until.is_some_and(|until| self.clock.now() >= until) {
            *daily = Daily { limit: daily.limit, ..Daily::default() };
        }
        if mutate::on(Bug::DayIgnored) {
            return Ok(());
        }
        let reserve = match (self.daily_reserve, daily.limit) {
            (Amount::Count(count), _) => count,
            (share, Some(limit)) => share.of(limit),
            (Amount::Share(_), None) => 0,
        };
        let why = match daily.remaining {
            Some(0) => "HubSpot says that the account's calls of the day are spent".to_owned(),
            Some(left) if left <= reserve => {
                format!("{left} of the account's calls of the day are left, and {reserve} are kept for other apps")
            }
            _ => return Ok(()),
        };
        let until = daily.until.map_or_else(String::new, |until| format!("; next try at {until}"));
        Err(Error::new(ErrorKind::DailyLimit, codes::DAILY_LIMIT, why + &until))
    }

    /// Share of the day's calls that the account's apps have used together, in percent; none where HubSpot has not told it, or not today.
    pub fn daily_use_percent(&self) -> Option<f64> {
        let daily = self.daily.borrow();
        daily.until.filter(|until| *until > self.clock.now())?;
        if daily.remaining == Some(0) {
            return Some(100.0);
        }
        let limit = daily.limit.filter(|limit| *limit > 0)?;
        let used = limit.saturating_sub(daily.remaining?);
        #[expect(clippy::cast_precision_loss, reason = "a share of a count")]
        let share = used as f64 / limit as f64;
        Some((share * 1_000.0).round() / 10.0)
    }

    /// What was sent so far.
    pub fn counts(&self) -> CallCounts {
        *self.counts.borrow()
    }
}
