//! Time for the cloud: the machine's clock plus what a test has added to it.
//!
//! The only file of this module that reads a clock or waits. Time-outs of hours (SQS visibility, retries of an
//! asynchronous invocation) are then a matter of [`CloudClock::advance`], not of waiting.

use std::{sync::Mutex, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use super::lock;

/// The cloud's clock; it can be moved forward by hand.
#[derive(Debug)]
pub struct CloudClock {
    began_at: Timestamp,
    began: tokio::time::Instant,
    ahead: Mutex<Duration>,
    moved: Notify,
}

impl CloudClock {
    #[expect(clippy::disallowed_methods, reason = "a server on loopback lives in real time")]
    pub(crate) fn start() -> Self {
        Self {
            began_at: Timestamp::now(),
            began: tokio::time::Instant::now(),
            ahead: Mutex::default(),
            moved: Notify::new(),
        }
    }

    /// Time since the cloud started.
    #[expect(clippy::disallowed_methods, reason = "a server on loopback lives in real time")]
    pub fn elapsed(&self) -> Duration {
        tokio::time::Instant::now().duration_since(self.began).saturating_add(*lock(&self.ahead))
    }

    /// The instant it is in the cloud.
    pub fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap_or(SignedDuration::MAX);
        self.began_at.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }

    /// Moves the clock forward; whoever waits for an instant before the new time wakes.
    pub fn advance(&self, by: Duration) {
        let mut ahead = lock(&self.ahead);
        *ahead = ahead.saturating_add(by);
        drop(ahead);
        self.moved.notify_waiters();
    }

    /// Waits until [`CloudClock::elapsed`] is at least `at`.
    #[expect(clippy::disallowed_methods, reason = "a server on loopback lives in real time")]
    pub(crate) async fn sleep_until(&self, at: Duration) {
        loop {
            // Taken before the clock is read, so that an `advance` in between is not missed.
            let moved = self.moved.notified();
            let left = at.saturating_sub(self.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = moved => {}
            }
        }
    }

    pub(crate) async fn sleep(&self, for_: Duration) {
        self.sleep_until(self.elapsed().saturating_add(for_)).await;
    }
}
