//! An account's limits, shared by all processes that draw from them: one line of slots in the table, reserved in blocks.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `limit#<account>` | `burst`, `search`, `associations` | `next`: the first slot that nobody has, in µs since 1970 by the processes' common time; `time`: that of the last reservation; `speed_permille`, `knee_permille`, `slowed_at`, `paused_until`: the last 429, told to all; `daily_left`: calls of the day that were left when somebody stopped because of it, `daily_left_until`: when that is over, epoch seconds |
//!
//! A reservation of n slots adds n gaps to `next` and has the slots that it stepped over. That is one write, needs no reading first, and
//! cannot be lost in a race. Where `next` lies in the past the line was idle: whoever comes first sets it to now. See
//! `docs/decisions/0008-shared-limit.md`.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::{Either, select};
use jiff::Timestamp;

use super::{Changed, Condition, Item, Key, Table, Update, Value};
use crate::{
    clock::Clock,
    codes,
    error::{Error, ErrorKind, Result},
    http::rate_limit::{Bucket, Budget, DayLeft, Grant, PAUSE_MAX, Pace, PerBucket, Slowdown, next_slot},
    mutate::{self, Bug},
};

/// What one process alone reserves at once: two writes a second.
const BLOCK: Duration = Duration::from_millis(500);
/// The same for searches, of which there are four a second.
const BLOCK_SEARCH: Duration = Duration::from_secs(1);
/// How far clocks may differ before it is noticed: less than a slot at HubSpot's usual limits, more than two writes overtake each other by.
const SKEW_TOLERATED_US: i64 = 20_000;
/// Slots left out when a clock turns out to be behind, at most: one that is further off finds the line idle anyway.
const SKIP_MAX_US: i64 = 500_000;
/// Slots further ahead than this are nobody's: something that is not us wrote the item, and the line starts afresh.
const REACH_MAX_US: i64 = 10 * 60 * 1_000_000;
/// A reservation meets an idle line, a fast clock or somebody who was first; each costs one try and none comes back at once.
const TRIES: u32 = 8;
/// After this a reservation counts as failed: blocks are fetched a quarter of a second ahead, so that calls stand still for less than this.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same while the table does not answer: no more than half of [`BLOCK_ALONE`], so that calls do not stand still at all.
const PATIENCE_ALONE: Duration = Duration::from_millis(500);
/// How much is spent without the table before it is asked again. The line that is taken up afterwards starts so much later: by then all
/// have asked.
const BLOCK_ALONE: Duration = Duration::from_secs(1);
/// The share of the limit that is used without the table, at most: there may be others that are not known yet.
const SHARE_ALONE_MAX: f64 = 0.5;
/// What the last reservation counts for in the share that this process has.
const SHARE_WEIGHT: f64 = 0.2;
/// Items are removed when nobody has drawn for so long; the next one starts them afresh.
const FORGOTTEN_AFTER_SECONDS: i64 = 2 * 24 * 60 * 60;

/// The account's budget, shared through the table.
pub struct SharedBudget {
    table: Rc<dyn Table>,
    clock: Rc<dyn Clock>,
    account: String,
    lines: PerBucket<RefCell<Line>>,
    /// The common time, that of the fastest clock, against this machine's; in µs.
    ahead: Cell<i64>,
    /// The table did not answer the last reservation.
    alone: Cell<bool>,
    day_left: Cell<Option<DayLeft>>,
}

/// What is known of one bucket's line.
struct Line {
    /// `next` as of the last answer.
    next: i64,
    /// `next` right after this process's last reservation.
    mine: Option<i64>,
    /// How much of the line this process gets.
    share: f64,
    /// How long the last slots had to be waited for: the others' blocks.
    queue: Duration,
    slowed: Option<Slowdown>,
    /// Not told yet.
    untold: Option<Slowdown>,
    /// The end of the last grant, on [`Clock::elapsed`]'s scale.
    end: Duration,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            next: 0,
            mine: None,
            share: SHARE_ALONE_MAX,
            queue: Duration::ZERO,
            slowed: None,
            untold: None,
            end: Duration::ZERO,
        }
    }
}

impl Line {
    fn share_alone(&self) -> f64 {
        self.share.clamp(0.01, SHARE_ALONE_MAX)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn number(item: &Item, name: &str) -> Option<i64> {
    match item.get(name) {
        Some(Value::N(number)) => Some(*number),
        _ => None,
    }
}

fn permille(share: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "a share is at most 1")]
    let permille = (share * 1_000.0).round() as i64;
    permille
}

#[expect(clippy::cast_precision_loss, reason = "a share of a span of time")]
fn ratio(part: i64, whole: i64) -> f64 {
    if whole <= 0 { 1.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
}

impl SharedBudget {
    /// The budget of the account of this name in the configuration. Nothing is read yet.
    pub fn new(table: Rc<dyn Table>, clock: Rc<dyn Clock>, account: impl Into<String>) -> Self {
        Self {
            table,
            clock,
            account: account.into(),
            lines: PerBucket::default(),
            ahead: Cell::new(0),
            alone: Cell::new(false),
            day_left: Cell::new(None),
        }
    }

    fn key(&self, bucket: Bucket) -> Key {
        Key::new(format!("limit#{}", self.account), bucket.as_str())
    }

    /// The common time, in µs.
    fn time(&self) -> i64 {
        self.clock.now().as_microsecond().saturating_add(self.ahead.get())
    }

    /// A moment of the common time on [`Clock::elapsed`]'s scale; moments before its start become its start.
    fn elapsed_at(&self, time: i64) -> Duration {
        let elapsed = self.clock.elapsed();
        let from_now = time.saturating_sub(self.time());
        let distance = Duration::from_micros(from_now.unsigned_abs());
        if from_now < 0 { elapsed.saturating_sub(distance) } else { elapsed.saturating_add(distance) }
    }

    /// The reverse of [`Self::elapsed_at`].
    fn time_at(&self, elapsed: Duration) -> i64 {
        let now = self.clock.elapsed();
        self.time().saturating_add(micros(elapsed)).saturating_sub(micros(now))
    }

    /// Slots of the shared line.
    async fn draw(&self, bucket: Bucket, want: u32, pace: Pace) -> Result<Grant> {
        let gap = pace.gap();
        let (gap_us, line) = (micros(gap).max(1), self.lines.of(bucket));
        let slots = gap_us.saturating_mul(i64::from(want)) / if mutate::on(Bug::SlotsTwice) { 2 } else { 1 };
        let mut afresh = None;
        let mut skip: i64 = 0;
        for _ in 0..TRIES {
            let now = self.time();
            let idle = line.borrow().next <= now;
            let in_step = Condition::Any(vec![
                Condition::Absent("time"),
                Condition::AtMost("time", now.saturating_add(SKEW_TOLERATED_US).into()),
            ]);
            let mut update = Update {
                set: vec![
                    ("time", now.into()),
                    ("expires_at", (self.clock.now().as_second() + FORGOTTEN_AFTER_SECONDS).into()),
                ],
                condition: Some(in_step.clone()),
                ..Update::default()
            };
            let step = slots.saturating_add(skip);
            if afresh.is_some() || idle {
                let rest = if self.alone.get() { micros(BLOCK_ALONE) } else { 0 };
                let before = match afresh.take() {
                    Some(next) => Condition::Equals("next", Value::N(next)),
                    None => Condition::Any(vec![Condition::Absent("next"), Condition::AtMost("next", now.into())]),
                };
                update.set.push(("next", now.saturating_add(rest).saturating_add(step).into()));
                update.condition = Some(Condition::All(vec![in_step, before]));
            } else {
                update.add.push(("next", step));
            }
            let untold = line.borrow().untold;
            if let Some(slowdown) = untold {
                update.set.extend([
                    ("speed_permille", permille(slowdown.speed).into()),
                    ("knee_permille", permille(slowdown.knee).into()),
                    ("slowed_at", self.time_at(slowdown.at).into()),
                    ("paused_until", self.time_at(slowdown.paused_until).into()),
                ]);
            }
            let changed = self.table.update(&self.key(bucket), update).await?;
            let now = self.time();
            match changed {
                Changed::Yes(item) => {
                    let next = number(&item, "next").unwrap_or_default();
                    let start = next.saturating_sub(slots);
                    let mut line = line.borrow_mut();
                    line.next = next;
                    if line.untold == untold {
                        line.untold = None;
                    }
                    line.slowed = self.slowdown_of(&item);
                    self.learn_day(&item);
                    if start > now.saturating_add(REACH_MAX_US) {
                        afresh = Some(next);
                        continue;
                    }
                    if next <= now.saturating_sub(gap_us / 2) {
                        continue;
                    }
                    if let Some(mine) = line.mine.replace(next).filter(|_| !idle) {
                        let share = ratio(step, next.saturating_sub(mine));
                        line.share += (share - line.share) * SHARE_WEIGHT;
                    }
                    let start = self.elapsed_at(start);
                    line.queue = start.saturating_sub(self.clock.elapsed());
                    line.end = start.saturating_add(gap.saturating_mul(want));
                    let gap = if mutate::on(Bug::SlotsTwice) { gap / 2 } else { gap };
                    return Ok(Grant { calls: want, start, gap });
                }
                Changed::No(item) => {
                    let item = item.unwrap_or_default();
                    // The fastest clock is everybody's: whoever is behind follows.
                    let behind = number(&item, "time").map_or(0, |time| time.saturating_sub(now));
                    self.ahead.set(self.ahead.get().saturating_add(behind.max(0)));
                    // To follow is to come early, once: as many slots are left out.
                    skip = skip.saturating_add(behind).clamp(0, SKIP_MAX_US);
                    line.borrow_mut().next = number(&item, "next").unwrap_or_default();
                }
            }
        }
        let message = format!("the shared {} limit of account `{}` is contended", bucket.as_str(), self.account);
        Err(Error::new(ErrorKind::Conflict, codes::STATE_UNAVAILABLE, message))
    }

    fn slowdown_of(&self, item: &Item) -> Option<Slowdown> {
        let share = |name| number(item, name).map(|permille| ratio(permille, 1_000));
        let slowdown = Slowdown {
            speed: share("speed_permille")?,
            knee: share("knee_permille")?,
            at: self.elapsed_at(number(item, "slowed_at")?),
            // A pause that no limiter makes is not obeyed.
            paused_until: Some(self.elapsed_at(number(item, "paused_until")?))
                .filter(|until| until.saturating_sub(self.clock.elapsed()) <= PAUSE_MAX)
                .unwrap_or_default(),
        };
        // What was before this process began is told as of now: its own scale does not reach back.
        let age =
            Duration::from_micros(u64::try_from(self.time().saturating_sub(number(item, "slowed_at")?)).unwrap_or(0));
        let now = self.clock.elapsed();
        let speed = Slowdown { at: Duration::ZERO, ..slowdown }.speed(age);
        Some(if age > now { Slowdown { speed, at: now, ..slowdown } } else { slowdown })
    }

    fn learn_day(&self, item: &Item) {
        let until = number(item, "daily_left_until").and_then(|until| Timestamp::from_second(until).ok());
        let calls = number(item, "daily_left").and_then(|calls| u64::try_from(calls).ok());
        if let (Some(calls), Some(until)) = (calls, until) {
            self.day_left.set(Some(DayLeft { calls, until }));
        }
    }

    /// Slots without the table: of the share of the line that this process had, half of the limit at most.
    fn alone(&self, bucket: Bucket, pace: Pace) -> Grant {
        let mut line = self.lines.of(bucket).borrow_mut();
        let gap = pace.gap().div_f64(line.share_alone());
        // The others' blocks, which come after ours, are spent first.
        let end = if line.mine.take().is_some() { line.end.saturating_add(line.queue) } else { line.end };
        let start = next_slot(end, self.clock.elapsed(), gap);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1,000")]
        let calls = (BLOCK_ALONE.as_secs_f64() / gap.as_secs_f64()).ceil().clamp(1.0, 1_000.0) as u32;
        line.end = start.saturating_add(gap.saturating_mul(calls));
        Grant { calls, start, gap }
    }
}

#[async_trait(?Send)]
impl Budget for SharedBudget {
    /// Shorter where there is a queue: with n processes the blocks, and the wait for the next one, grow with the square root of n, and
    /// so do the writes of all together.
    fn block(&self, bucket: Bucket) -> Duration {
        let block = if bucket == Bucket::Search { BLOCK_SEARCH } else { BLOCK };
        let queue = self.lines.of(bucket).borrow().queue.max(block);
        block.mul_f64(block.as_secs_f64() / queue.as_secs_f64())
    }

    /// Never fails: without the table, slots are granted at a conservative pace.
    async fn reserve(&self, bucket: Bucket, want: u32, pace: Pace, _now: Duration) -> Result<Grant> {
        let patience = if self.alone.get() { PATIENCE_ALONE } else { PATIENCE };
        let drawn = match select(pin!(self.draw(bucket, want, pace)), pin!(self.clock.sleep(patience))).await {
            Either::Left((drawn, _)) => drawn,
            Either::Right(_) => {
                let message = format!("no answer within {} ms", patience.as_millis());
                Err(Error::new(ErrorKind::Unknown, codes::STATE_UNAVAILABLE, message))
            }
        };
        match drawn {
            Ok(grant) => {
                if self.alone.replace(false) {
                    tracing::info!(account = self.account, "the table answers again; the account's limit is shared");
                }
                Ok(grant)
            }
            Err(error) => {
                // Once for all reservations that fail in a row.
                if !self.alone.replace(true) {
                    tracing::warn!(
                        account = self.account, error_code = %error.code(), error = %error,
                        "the account's limit cannot be shared through the table; going on at half of it or less"
                    );
                }
                Ok(self.alone(bucket, pace))
            }
        }
    }

    fn slowed(&self, bucket: Bucket) -> Option<Slowdown> {
        self.lines.of(bucket).borrow().slowed
    }

    fn slow_down(&self, bucket: Bucket, slowdown: Slowdown) {
        self.lines.of(bucket).borrow_mut().untold = Some(slowdown);
    }

    fn day_left(&self) -> Option<DayLeft> {
        self.day_left.get()
    }

    async fn tell_day(&self, left: DayLeft) {
        self.day_left.set(Some(left));
        let tell = async {
            for bucket in Bucket::ALL {
                let set = vec![
                    ("daily_left", i64::try_from(left.calls).unwrap_or(i64::MAX).into()),
                    ("daily_left_until", left.until.as_second().into()),
                    ("expires_at", (self.clock.now().as_second() + FORGOTTEN_AFTER_SECONDS).into()),
                ];
                // Whoever does not hear of it is told by HubSpot.
                if self.table.update(&self.key(bucket), Update { set, ..Update::default() }).await.is_err() {
                    return;
                }
            }
        };
        select(pin!(tell), pin!(self.clock.sleep(PATIENCE))).await;
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
