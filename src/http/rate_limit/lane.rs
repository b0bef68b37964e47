//! One bucket's slots within this process, spent in the order of asking.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use futures_util::future::LocalBoxFuture;

use super::{
    USED_SHARE,
    budget::{Grant, Pace, Slowdown, lateness},
};
use crate::Result;

/// The first reservation: two slots, so that a run of a few calls waits for little and wastes little.
const ASK_FIRST: u32 = 2;
/// Where slots are closer together than [`GAP_SHORT`], a reservation spans at least this: longer than it takes to get one. With a few
/// slots at a time all of them would have passed by the time they are granted.
const SPAN_MIN: Duration = Duration::from_millis(200);
/// See [`SPAN_MIN`]: less than a fifth of the gap at HubSpot's usual limits, where a call now and then is to waste no slots.
const GAP_SHORT: Duration = Duration::from_millis(10);
/// The most slots in one reservation, whatever the limit is.
const ASK_MAX: f64 = 1_000.0;

/// One bucket.
pub(super) struct Lane {
    /// FIFO: only the first of those who wait looks at the clock.
    pub(super) turn: tokio::sync::Mutex<Turn>,
    pub(super) state: RefCell<LaneState>,
}

/// A reservation under way: what is granted, and what was asked for.
pub(super) type Reservation = LocalBoxFuture<'static, Result<(Grant, u32)>>;

/// What the first of those who wait holds.
#[derive(Default)]
pub(super) struct Turn {
    /// A reservation under way. It is kept here, not in the future of who asked for it: dropping that one does not lose the slots.
    pub(super) pending: Option<Reservation>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// A slot was due and is taken.
    Taken,
    /// The next slot is due after this.
    Due(Duration),
    /// Nobody sends before this has passed.
    Paused(Duration),
    /// There is no slot.
    Empty,
}

pub(super) struct LaneState {
    pub(super) limit: u32,
    pub(super) interval: Duration,
    /// Set in the configuration: not learned.
    pub(super) fixed: bool,
    pub(super) slowdown: Slowdown,
    grants: VecDeque<Grant>,
    /// How many slots to ask for; grows while they are used, shrinks when they are not.
    ask: u32,
    /// Slots of the last grant, and slots lost since it came.
    granted: u32,
    lost: u32,
    /// Where the slots of the last grant end.
    end: Duration,
}

impl Lane {
    pub(super) fn new(limit: u32, interval: Duration, fixed: bool) -> Self {
        Self {
            turn: tokio::sync::Mutex::default(),
            state: RefCell::new(LaneState {
                limit: limit.max(1),
                interval,
                fixed,
                slowdown: Slowdown::NONE,
                grants: VecDeque::new(),
                ask: ASK_FIRST,
                granted: 0,
                lost: 0,
                end: Duration::ZERO,
            }),
        }
    }
}

impl LaneState {
    pub(super) fn pace(&self, now: Duration) -> Pace {
        Pace { calls: f64::from(self.limit) * USED_SHARE * self.slowdown.speed(now), window: self.interval }
    }

    /// The next slot that is not too old; takes it if it is due.
    pub(super) fn take(&mut self, now: Duration) -> Next {
        let paused = self.slowdown.paused_until.saturating_sub(now);
        if !paused.is_zero() {
            return Next::Paused(paused);
        }
        while let Some(grant) = self.grants.front_mut() {
            if grant.calls == 0 {
                self.grants.pop_front();
                continue;
            }
            if grant.start > now {
                return Next::Due(grant.start - now);
            }
            let late = grant.start.saturating_add(lateness(grant.gap)) < now;
            grant.calls -= 1;
            grant.start += grant.gap;
            if late {
                self.lost += 1;
                continue;
            }
            return Next::Taken;
        }
        Next::Empty
    }

    /// How many slots to reserve, where a reservation should span `block`.
    pub(super) fn want(&self, block: Duration, gap: Duration) -> u32 {
        let most = (block.as_secs_f64() / gap.as_secs_f64()).ceil().clamp(1.0, ASK_MAX);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1,000")]
        let most = most as u32;
        let span = if gap < GAP_SHORT { SPAN_MIN.as_secs_f64() / gap.as_secs_f64() } else { 1.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1,000")]
        let least = span.clamp(1.0, ASK_MAX) as u32;
        self.ask.max(least).min(most)
    }

    /// Whether it is time to reserve again, while slots are left: when half of the last ones are spent.
    pub(super) fn runs_low(&self) -> bool {
        let left: u32 = self.grants.iter().map(|grant| grant.calls).sum();
        left <= self.granted / 2
    }

    /// Adds slots.
    pub(super) fn receive(&mut self, grant: Grant, want: u32, now: Duration) {
        // A call that comes now and then needs no block, and others could use what it would waste. Where the slots follow on the last
        // ones, or begin at once, there are no others: what is wasted is nobody's, and a block saves a write for each call.
        let is_alone = grant.start <= self.end.max(now).saturating_add(grant.gap);
        self.ask = if self.lost > self.granted / 4 && !is_alone { want / 2 } else { want.saturating_mul(2) }.max(1);
        (self.granted, self.lost) = (grant.calls, 0);
        self.end = grant.start.saturating_add(grant.gap.saturating_mul(grant.calls));
        // Where new slots overlap with old ones (those of a time without the table), the new ones count.
        for old in &mut self.grants {
            while old.calls > 0 && old.start.saturating_add(old.gap.saturating_mul(old.calls - 1)) >= grant.start {
                old.calls -= 1;
            }
        }
        self.grants.push_back(grant);
    }
}
