//! Time and chance, behind doors.
//!
//! Nothing else in the library reads a clock, sleeps or draws a random number (`clippy.toml` sees to it), so that a
//! whole run can be repeated from a seed.

use std::{cell::RefCell, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

/// The time of day, the time that has passed, and waiting.
#[async_trait(?Send)]
pub trait Clock {
    /// The time of day.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment; never goes back. For pacing and measuring, not for storing.
    fn elapsed(&self) -> Duration;
    /// Returns after `duration`.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock.
///
/// `now` asks the system each time: a Lambda is frozen between invocations, and a clock that counted up from its start would
/// be late ever after.
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose `elapsed` starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait(?Send)]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock that starts at a given moment and follows tokio's time: pausing tokio pauses it.
pub struct VirtualClock {
    origin: Timestamp,
    start: tokio::time::Instant,
}

impl VirtualClock {
    /// A clock that shows `origin` now.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn starting_at(origin: Timestamp) -> Self {
        Self { origin, start: tokio::time::Instant::now() }
    }
}

#[async_trait(?Send)]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.origin.saturating_add(self.elapsed()).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The one source of chance: seeded by the system in production, by the test elsewhere.
pub struct Rng(RefCell<fastrand::Rng>);

impl Rng {
    /// Seeded by the system.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn from_system() -> Self {
        Self(RefCell::new(fastrand::Rng::new()))
    }

    /// The same seed gives the same numbers.
    pub fn seeded(seed: u64) -> Self {
        Self(RefCell::new(fastrand::Rng::with_seed(seed)))
    }

    /// Any 64 bits.
    pub fn u64(&self) -> u64 {
        self.0.borrow_mut().u64(..)
    }

    /// At least 0, less than 1.
    pub fn fraction(&self) -> f64 {
        self.0.borrow_mut().f64()
    }

    /// A duration between half of `duration` and all of it: spreads retries that would otherwise come together.
    pub fn jitter(&self, duration: Duration) -> Duration {
        duration.mul_f64(0.5 + self.fraction() / 2.0)
    }
}

/// A new run id: a ULID, so that ids sort by the time at which the runs started.
pub fn run_id(now: Timestamp, rng: &Rng) -> String {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
    let random = (u128::from(rng.u64()) << 64) | u128::from(rng.u64());
    ulid::Ulid::from_parts(millis, random).to_string()
}

/// The moment at which this invocation must have stopped, and the reserve it keeps before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When the process is stopped from outside.
    pub at: Timestamp,
}

impl Deadline {
    /// No limit to speak of: the command line.
    pub const NONE: Self = Self { at: Timestamp::MAX };

    /// Time left; zero when it has passed.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.at.duration_since(now)).unwrap_or(Duration::ZERO)
    }

    /// Whether a step that takes up to `cost` may be started.
    pub fn allows(&self, now: Timestamp, cost: Duration) -> bool {
        self.remaining(now) > cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_ulids_that_sort_by_time() {
        let rng = Rng::seeded(1);
        let early = run_id(Timestamp::from_second(1_790_000_000).unwrap(), &rng);
        let late = run_id(Timestamp::from_second(1_790_000_001).unwrap(), &rng);
        assert_eq!(early.len(), 26);
        assert!(early < late, "{early} {late}");
    }

    #[test]
    fn a_deadline_that_has_passed_leaves_nothing() {
        let at = Timestamp::from_second(100).unwrap();
        let deadline = Deadline { at };
        assert_eq!(deadline.remaining(at), Duration::ZERO);
        assert!(!deadline.allows(at, Duration::ZERO));
        assert!(deadline.allows(Timestamp::from_second(90).unwrap(), Duration::from_secs(9)));
    }
}
