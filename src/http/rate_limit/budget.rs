//! Where slots come from, and what those who draw from one source tell each other.

use std::{cell::RefCell, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::Result;

/// A 429 takes so much of the speed, at most once in [`SLOWDOWN_EVERY`]: the answers of one moment tell one thing.
const SLOWDOWN: f64 = 0.8;
/// The first one in a while takes less: it may have been chance.
const SLOWDOWN_FIRST: f64 = 0.93;
/// See [`SLOWDOWN`].
const SLOWDOWN_EVERY: Duration = Duration::from_secs(2);
/// See [`SLOWDOWN_FIRST`]: as long as it takes until the speed is what it was.
const A_WHILE: Duration = Duration::from_secs(60);
/// However many 429s there are: a call a second at HubSpot's usual limits, so that it is noticed when they end.
const SPEED_MIN: f64 = 0.05;
/// Regained per second without a 429, halfway back to the speed that drew it.
const RECOVERY_PER_SECOND: f64 = 0.01;
/// Beyond that, per second squared: hesitant where the 429 was, bolder the longer there is none. A limit that others use too is probed
/// about once a minute, and what a single 429 took is back after forty seconds.
const PROBE_PER_SECOND_SQUARED: f64 = 0.000_03;

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

impl Bucket {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Burst, Self::Search, Self::Associations];

    /// Its name in state and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::Search => "search",
            Self::Associations => "associations",
        }
    }
}

/// One `T` for each bucket.
#[derive(Debug, Default)]
pub(crate) struct PerBucket<T>([T; 3]);

impl<T> PerBucket<T> {
    /// The bucket's own.
    pub(crate) fn of(&self, bucket: Bucket) -> &T {
        let [burst, search, associations] = &self.0;
        match bucket {
            Bucket::Burst => burst,
            Bucket::Search => search,
            Bucket::Associations => associations,
        }
    }

    /// One of each.
    pub(crate) fn new(burst: T, search: T, associations: T) -> Self {
        Self([burst, search, associations])
    }
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
    /// When the first may be sent, on [`crate::clock::Clock::elapsed`]'s scale.
    pub start: Duration,
    /// From one to the next.
    pub gap: Duration,
}

/// How far 429s have slowed a bucket down. Durations are on [`crate::clock::Clock::elapsed`]'s scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slowdown {
    /// The share of the pace that was left at `at`, at most 1.
    pub speed: f64,
    /// Halfway from there to the speed that drew the 429.
    pub knee: f64,
    /// When it was drawn.
    pub at: Duration,
    /// Nobody sends before this.
    pub paused_until: Duration,
}

impl Slowdown {
    /// Full speed.
    pub const NONE: Self = Self { speed: 1.0, knee: 1.0, at: Duration::ZERO, paused_until: Duration::ZERO };

    /// The share of the pace at `now`: quickly back to the knee, then hesitantly, so that a limit that others use too is probed, not
    /// stormed. Pure.
    pub fn speed(&self, now: Duration) -> f64 {
        let calm = now.saturating_sub(self.at).as_secs_f64();
        let quick = (self.knee - self.speed).max(0.0) / RECOVERY_PER_SECOND;
        let speed = if calm <= quick {
            self.speed + calm * RECOVERY_PER_SECOND
        } else {
            self.knee.max(self.speed) + (calm - quick).powi(2) * PROBE_PER_SECOND_SQUARED
        };
        speed.min(1.0)
    }

    /// After a 429 at `now` that asks for `pause`; whether the speed has changed. Pure.
    pub fn throttled(&mut self, now: Duration, pause: Duration) -> bool {
        self.paused_until = self.paused_until.max(now.saturating_add(pause));
        let speed = self.speed(now);
        // At full speed nothing was drawn yet, whatever `at` says.
        if speed < 1.0 && now.saturating_sub(self.at) < SLOWDOWN_EVERY {
            return false;
        }
        let often = self.speed < 1.0 && now.saturating_sub(self.at) < A_WHILE;
        let slowed = (speed * if often { SLOWDOWN } else { SLOWDOWN_FIRST }).max(SPEED_MIN);
        *self = Self { speed: slowed, knee: f64::midpoint(slowed, speed), at: now, ..*self };
        true
    }

    /// What both know together: the slower one is right, it knows of a 429 that the other has not seen. Pure.
    pub fn and(self, other: Self, now: Duration) -> Self {
        let slower = if other.speed(now) < self.speed(now) { other } else { self };
        Self { paused_until: self.paused_until.max(other.paused_until), ..slower }
    }
}

/// What is left of a day's calls to all apps of an account. Not whether that is too little: each process has settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayLeft {
    /// Calls.
    pub calls: u64,
    /// When the day ends, or when to ask again where that is not known.
    pub until: Timestamp,
}

/// Where slots come from.
#[async_trait(?Send)]
pub trait Budget {
    /// The span of time worth reserving at once: nothing where a reservation costs nothing.
    fn block(&self, bucket: Bucket) -> Duration;
    /// Reserves about `want` (at least 1) slots at `pace`, after all that were granted before. `now` is
    /// [`crate::clock::Clock::elapsed`].
    async fn reserve(&self, bucket: Bucket, want: u32, pace: Pace, now: Duration) -> Result<Grant>;
    /// What the others told of 429s, as of the last reservation.
    fn slowed(&self, _bucket: Bucket) -> Option<Slowdown> {
        None
    }
    /// Tells the others of a 429, with the next reservation.
    fn slow_down(&self, _bucket: Bucket, _slowdown: Slowdown) {}
    /// What is left of a day's calls, as the others told it.
    fn day_left(&self) -> Option<DayLeft> {
        None
    }
    /// Tells the others that this day has no call for us any more.
    async fn tell_day(&self, _left: DayLeft) {}
}

/// How late a slot may be used in any case: timers are no finer than a millisecond or two, so that a slot of a limit of thousands of calls
/// would always be missed. What it puts into a window too much is far less than the share of the limit that is left unused.
const LATENESS_MIN: Duration = Duration::from_millis(5);

/// How late a slot may be used: half a gap makes up for a busy moment and never puts one call too many into a window.
pub(crate) fn lateness(gap: Duration) -> Duration {
    (gap / 2).max(LATENESS_MIN)
}

/// The first slot at or after `next`, were it not for idle time, which is lost. Pure.
pub fn next_slot(next: Duration, now: Duration, gap: Duration) -> Duration {
    next.max(now.saturating_sub(lateness(gap)))
}

/// A budget of this process alone.
#[derive(Debug, Default)]
pub struct LocalBudget {
    next: PerBucket<RefCell<Duration>>,
}

#[async_trait(?Send)]
impl Budget for LocalBudget {
    fn block(&self, _bucket: Bucket) -> Duration {
        Duration::ZERO
    }

    async fn reserve(&self, bucket: Bucket, want: u32, pace: Pace, now: Duration) -> Result<Grant> {
        let gap = pace.gap();
        let mut next = self.next.of(bucket).borrow_mut();
        let start = next_slot(*next, now, gap);
        *next = start.saturating_add(gap.saturating_mul(want));
        Ok(Grant { calls: want, start, gap })
    }
}
