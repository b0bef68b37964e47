//! The import's loop: read rows, map them, send batches, settle verdicts, save progress.
//!
//! One future does all of it: batches in flight, the next range of the file and a checkpoint being saved are polled side by
//! side, nothing is spawned, and dropping the future at any await leaves only what a killed process leaves. Order of effects:
//! records written → rejects durable → position saved.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, select_biased, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};

use super::{
    batcher::{Batcher, Pending},
    conclude::is_passing,
    deliver::Delivered,
    delivered::{DeliveredIndex, Marks, keeps_index},
    job::{End, Job, Loaded},
    ledger::{Ledger, RowId, Settled},
    log::LogState,
    plan::{PlanRecord, map_row, outcome_of, reference, too_many},
    progress::{Progress, Update},
    rows::Row,
    source::{Source, Step},
};
use crate::{
    app,
    clock::Deadline,
    codes,
    config::Compression,
    error::{Error, ErrorKind, Result},
    http::{rate_limit::Permit, retry::ATTEMPT_RESERVE},
    hubspot::associations::PairVerdict,
    mutate::{self, Bug},
    record::{Input, Reason, Reject},
    report::{FilePosition, RowOutcome},
    state::runs::{RENEW_AFTER, lost},
};

/// Most calls in flight. At 19 calls a second this covers 3.3 s per call; HubSpot's usual latency needs a tenth of it.
const IN_FLIGHT_MAX: usize = 64;

/// How many batches may have landed without a saved checkpoint, beyond those in flight, before no more are sent: what is
/// sent again after a kill stays within a few batches of what was in flight, even behind a slow one.
const UNSAVED_BATCHES_MAX: usize = 8;

/// As [`UNSAVED_BATCHES_MAX`], on top where rows wait for associations after their records, or checkpoints are fewer.
const UNSAVED_BATCHES_MORE: usize = 24;

/// A row this close to the first one that is not accounted for is not kept waiting for a full batch once the window fills.
const ROWS_HELD_UP: u64 = 200;

/// What must be left of the lease for a call to be begun.
const LEASE_LEFT_MIN: SignedDuration = SignedDuration::from_secs(8);

/// Rows that are held at once, waiting ones included: bounds memory when one key blocks many rows.
const ROWS_HELD_MAX: usize = 20_000;

/// Bytes of cells that are held at once.
const BYTES_HELD_MAX: usize = 12 * 1024 * 1024;

/// Rows that are parsed and mapped between two looks at the network.
const ROWS_PER_TURN: usize = 500;

/// How often the deadline and the lease are looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(500);

/// What is kept free before the deadline, so that calls in flight can land and progress can be saved: a fifth of the
/// invocation's time, within these bounds. A call that has not landed by half of it is given up; its rows are sent again.
const MARGIN_MIN: Duration = Duration::from_secs(1);
pub(super) const MARGIN_MAX: Duration = Duration::from_secs(20);

/// Shortest time between two checkpoints where batches come faster than this. At HubSpot's usual limits they do not: there each batch
/// has a checkpoint of its own as soon as its answer is here, so that a kill costs no more than what was in flight.
const SAVE_EVERY: Duration = Duration::from_millis(50);

/// The same for an import that keeps an index.
const SAVE_EVERY_WITH_INDEX: Duration = Duration::from_millis(250);

/// Time between two tries to save what could not be saved.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

pub(super) enum Landed {
    Batch { lane: usize, batch: Vec<Pending>, verdicts: Result<Vec<Delivered>> },
    Pairs { rows: Vec<RowId>, verdicts: Result<Vec<PairVerdict>> },
}

struct Saved {
    position: FilePosition,
    rejects: LogState,
    index: Option<LogState>,
    first_row: u64,
}

enum Event {
    Landed(Landed),
    Saved(Result<Saved>),
    Fetched(Result<()>),
    Permitted(Result<Permit>),
    Tick,
}

/// Works until the run is complete or has to stop. What is accounted for is saved when this returns, unless the lease is lost.
pub(super) async fn run(job: &mut Job, source: &mut Source, loaded: &mut Loaded) -> Result<End> {
    let now = job.env.clock.now();
    let (margin, calls_margin) = margins(job.deadline.remaining(now));
    // A lease that ends with the invocation is not renewed beyond it: what is left of the invocation counts then.
    let lease_left_min = LEASE_LEFT_MIN.min(SignedDuration::try_from(margin / 2).unwrap_or(LEASE_LEFT_MIN));
    let rows_before = job.progress.rows.read;
    let mut flow = Flow {
        saved_position: job.progress.position,
        last_save: job.env.clock.elapsed(),
        save_not_before: Duration::ZERO,
        job,
        loaded,
        ledger: Ledger::default(),
        in_flight: FuturesUnordered::new(),
        unsaved: Vec::new(),
        saving: None,
        permit: None,
        turn: None,
        margin,
        calls_margin,
        lease_left_min,
        taken: 0,
        rows_before,
        end: None,
        first_permit: None,
        last_permit: Duration::ZERO,
        permits: 0,
        pairs_in_flight: 0,
        pair_calls: 0,
    };
    let end = flow.run(source).await?;
    flow.count_limit_use();
    match flow.finish_saving().await {
        Ok(()) => Ok(end),
        Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
        Err(error) => Ok(match end {
            End::Failed(earlier) => End::Failed(earlier),
            _ => End::Failed(error),
        }),
    }
}

/// What is kept free before the deadline: from the first on nothing new is begun, by the second calls must have landed.
pub(super) fn margins(remaining: Duration) -> (Duration, Duration) {
    let margin = (remaining / 5).clamp(MARGIN_MIN, MARGIN_MAX);
    // A call that would be refused for lack of time is not begun.
    (margin.max(margin / 2 + ATTEMPT_RESERVE * 5 / 4), margin / 2)
}

pub(super) struct Flow<'a> {
    pub(super) job: &'a mut Job,
    pub(super) loaded: &'a mut Loaded,
    pub(super) ledger: Ledger,
    pub(super) in_flight: FuturesUnordered<LocalBoxFuture<'static, Landed>>,
    /// The last row of each batch that was sent and that no saved checkpoint covers.
    pub(super) unsaved: Vec<u64>,
    saving: Option<LocalBoxFuture<'static, Result<Saved>>>,
    /// The next call's turn under the account's limit.
    pub(super) permit: Option<LocalBoxFuture<'static, Result<Permit>>>,
    /// A turn that has come and was not used yet.
    turn: Option<Permit>,
    pub(super) saved_position: FilePosition,
    /// When a save was last begun.
    pub(super) last_save: Duration,
    pub(super) save_not_before: Duration,
    pub(super) margin: Duration,
    pub(super) calls_margin: Duration,
    pub(super) lease_left_min: SignedDuration,
    /// Rows read in this invocation, and accounted for before it.
    pub(super) taken: u64,
    pub(super) rows_before: u64,
    /// Set when nothing more is to be read or sent.
    pub(super) end: Option<End>,
    pub(super) first_permit: Option<Duration>,
    pub(super) last_permit: Duration,
    pub(super) permits: u64,
    pub(super) pairs_in_flight: usize,
    /// Calls for associations that were begun: names their before-images.
    pub(super) pair_calls: u64,
}

impl Flow<'_> {
    async fn run(&mut self, source: &mut Source) -> Result<End> {
        let clock = self.job.env.clock.clone();
        loop {
            while let Some(settled) = self.ledger.pop() {
                self.account_for(settled);
            }
            self.loaded.unpark(self.ledger.first());
            if self.end.is_none() && self.too_many_rejects() {
                match &self.job.plan {
                    // A plan shows the whole file.
                    Some(plan) => plan.aborts(),
                    None => self.end = Some(End::Aborted),
                }
            }
            if let Some(error) = self.job.plan.as_ref().and_then(|plan| plan.take_failure()) {
                self.stop(End::Failed(error));
            }
            if self.end.is_none()
                && (self.job.env.stop.get() || !self.job.deadline.allows(clock.now(), self.margin))
                && !mutate::on(Bug::DeadlineIgnored)
            {
                self.end = Some(End::Deadline);
            }
            if clock.now() >= self.job.lease.held_until.get() {
                // Nothing that is under way may be repeated any more: dropping it drops the calls.
                return Err(lost(&self.job.lease));
            }
            let reading = self.read(source);
            if self.in_flight.is_empty() && self.saving.is_none() {
                if self.end.is_none() && self.is_complete() {
                    let accounted = self.job.progress.rows.read - self.rows_before;
                    self.end = Some(if accounted == self.taken {
                        End::Complete
                    } else {
                        let message = format!("{} rows were read and {accounted} are accounted for", self.taken);
                        End::Failed(Error::new(ErrorKind::Corrupt, codes::ACCOUNTING, message))
                    });
                }
                if let Some(end) = self.end.take() {
                    return Ok(end);
                }
            }
            self.send_pairs();
            self.take_turn();
            self.ask_for_permit();
            self.start_saving();
            let event = if reading == Reading::More && self.permit.is_none() {
                // More to parse than one turn: only look at what has happened meanwhile.
                tokio::task::yield_now().await;
                match self.next_event(source, false).now_or_never() {
                    Some(event) => event,
                    None => continue,
                }
            } else {
                self.next_event(source, reading == Reading::Starved).await
            };
            self.handle(event, source)?;
        }
    }

    async fn next_event(&mut self, source: &mut Source, starved: bool) -> Event {
        let clock = self.job.env.clock.clone();
        // Not a moment after the lease, and looked at first: what is in flight would go on with its next call.
        let lease_left = self.job.lease.held_until.get().duration_since(clock.now());
        let mut tick = clock.sleep(TICK.min(Duration::try_from(lease_left).unwrap_or_default())).fuse();
        let in_flight = &mut self.in_flight;
        let mut landed = std::pin::pin!(
            async move {
                match in_flight.next().await {
                    Some(landed) => landed,
                    None => std::future::pending().await,
                }
            }
            .fuse()
        );
        let mut saved = std::pin::pin!(or_never(&mut self.saving).fuse());
        let mut permitted = std::pin::pin!(or_never(&mut self.permit).fuse());
        let mut fetched = std::pin::pin!(
            async move { if starved { source.fetched().await } else { std::future::pending().await } }.fuse()
        );
        select_biased! {
            () = tick => Event::Tick,
            landed = landed => Event::Landed(landed),
            saved = saved => Event::Saved(saved),
            permit = permitted => Event::Permitted(permit),
            fetched = fetched => Event::Fetched(fetched),
        }
    }

    fn handle(&mut self, event: Event, source: &Source) -> Result<()> {
        match event {
            Event::Landed(landed) => self.settle(landed),
            Event::Saved(saved) => {
                self.saving = None;
                match saved {
                    Ok(saved) => {
                        let first_row = saved.first_row;
                        self.claim(saved);
                        self.unsaved.retain(|row| *row >= first_row);
                        self.tell(source);
                    }
                    Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
                    // The lease lasts a while yet: what could not be saved now may be saved in a moment.
                    Err(error) if is_passing(&error) && self.patience_left() => {
                        tracing::warn!(error = %error, "progress cannot be saved; trying again");
                        self.save_not_before = self.job.env.clock.elapsed() + SAVE_AGAIN;
                    }
                    Err(error) => self.stop(End::Failed(error)),
                }
            }
            Event::Permitted(permit) => {
                self.permit = None;
                match permit {
                    Ok(permit) => self.turn = Some(permit),
                    Err(error) => self.stop(End::Failed(error)),
                }
            }
            Event::Fetched(Ok(())) | Event::Tick => {}
            Event::Fetched(Err(error)) => self.stop(End::Failed(error)),
        }
        Ok(())
    }

    /// Whether the lease still has time for another try.
    fn patience_left(&self) -> bool {
        let now = self.job.env.clock.now();
        self.job.lease.held_until.get().duration_since(now) > self.lease_left_min / 2
            && self.job.deadline.allows(now, self.calls_margin)
    }

    fn stop(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Whether so much has landed behind a row that is not accounted for that no more is sent, lest it be sent twice after a kill.
    pub(super) fn is_window_full(&self) -> bool {
        let slower = !self.loaded.links.is_empty() || keeps_index(&self.job.import);
        let more = if slower { UNSAVED_BATCHES_MORE } else { 0 };
        self.unsaved.len() >= self.in_flight.len() + UNSAVED_BATCHES_MAX + more
    }

    fn is_complete(&self) -> bool {
        self.loaded.exhausted() && self.ledger.is_empty() && self.loaded.batchers().all(Batcher::is_empty)
    }

    /// Reads as far ahead as two batches, so that a batch is full when its turn comes.
    fn read(&mut self, source: &mut Source) -> Reading {
        if self.end.is_some() {
            return Reading::Enough;
        }
        let mut bytes = Vec::new();
        for _ in 0..ROWS_PER_TURN {
            if self.is_full() || !self.loaded.wants_rows() {
                return Reading::Enough;
            }
            if let Some(row) = self.loaded.next() {
                self.take(row);
                continue;
            }
            if self.loaded.ended {
                return Reading::Enough;
            }
            bytes.clear();
            match source.step(&mut bytes) {
                Ok(Step::Bytes) => self.loaded.reader.feed(&bytes),
                Ok(Step::Wait) => return Reading::Starved,
                Ok(Step::End) => {
                    self.loaded.reader.finish();
                    self.loaded.ended = true;
                }
                Err(error) => {
                    self.stop(End::Failed(error.context(&self.job.object.location)));
                    return Reading::Enough;
                }
            }
        }
        Reading::More
    }

    pub(super) fn is_full(&self) -> bool {
        self.ledger.len() >= ROWS_HELD_MAX || self.ledger.bytes() >= BYTES_HELD_MAX
    }

    /// Enters a row into the ledger and hands its records to the batchers.
    fn take(&mut self, row: Row) {
        self.taken += 1;
        let end = FilePosition { byte: row.after.byte, line: row.after.line - 1 };
        if mutate::on(Bug::CheckpointBeforeEffect) {
            self.job.progress.position = end;
        }
        if self.loaded.records.is_some() {
            return self.take_record(row, end);
        }
        let lanes = self.loaded.lanes.len();
        let reject = |ledger: &mut Ledger, cells, marks, reason| {
            let id = ledger.open(row.line, end, cells, 1, lanes);
            ledger.mark(id, marks);
            ledger.settle(id, RowOutcome::Rejected, Some(reason));
        };
        let delivered = &mut self.job.delivered;
        if let Some(reason) = row.fault {
            return reject(&mut self.ledger, row.cells, Marks::default(), reason);
        }
        let inputs = match map_row(&self.loaded.lanes, &row) {
            Ok(inputs) => inputs,
            Err(reason) => {
                let first = self.loaded.lanes.first();
                let marks =
                    delivered.as_mut().zip(first).map(|(delivered, lane)| delivered.judge_rejected(lane, &row.cells));
                return reject(&mut self.ledger, row.cells, marks.unwrap_or_default(), reason);
            }
        };
        let marks = delivered.as_mut().map(|delivered| delivered.judge(&inputs)).unwrap_or_default();
        if marks.skipped {
            if let (Some(plan), Some(lane), Some(Some(input))) =
                (&self.job.plan, self.loaded.lanes.first(), inputs.first())
            {
                plan.left_out(&lane.delivery, &input.key, row.line);
            }
            let id = self.ledger.open(row.line, end, row.cells, 1, lanes);
            self.ledger.mark(id, marks);
            return self.ledger.settle(id, RowOutcome::Unchanged, None);
        }
        let present = |lane: usize| inputs.get(lane).is_some_and(Option::is_some);
        let links = self.loaded.links.iter().filter(|link| present(link.from) && present(link.to)).count();
        let waiting = inputs.iter().flatten().count() + links;
        let id = self.ledger.open(row.line, end, row.cells, waiting, lanes);
        self.ledger.mark(id, marks);
        for (lane, input) in self.loaded.lanes.iter_mut().zip(inputs) {
            if let Some(input) = input {
                lane.batcher.add(id, input);
            }
        }
    }

    /// The lane whose turn it is to send: that with the oldest row among those with a full batch; or with any batch, when nothing
    /// more can come before something lands, or when its oldest row holds the others up.
    fn sendable(&self) -> Option<usize> {
        let now = self.job.env.clock.now();
        let lease_left = self.job.lease.held_until.get().duration_since(now);
        let window_full = self.is_window_full();
        if self.end.is_some()
            || self.in_flight.len() >= IN_FLIGHT_MAX
            || lease_left < self.lease_left_min
            // What is in flight will open the window; where nothing is, what has not been sent is what it waits for.
            || (window_full && !self.in_flight.is_empty())
        {
            return None;
        }
        // What is in flight makes room in the ledger, unless the oldest row waits here: a small batch is then a call that is saved.
        let is_full = self.is_full();
        let rest = self.loaded.exhausted() || window_full || (is_full && self.in_flight.is_empty());
        let late = is_full || self.unsaved.len() >= self.in_flight.len() + UNSAVED_BATCHES_MAX / 2;
        let holds_up = |front: u64| late && front < self.ledger.first() + ROWS_HELD_UP;
        let batchers = self.loaded.batchers().enumerate();
        batchers
            .filter_map(|(index, batcher)| Some((index, batcher.has_full_batch(), batcher.front_row()?)))
            .filter(|(_, is_full, front)| *is_full || rest || holds_up(*front))
            .min_by_key(|(_, _, front)| *front)
            .map(|(index, ..)| index)
    }

    fn ask_for_permit(&mut self) {
        if self.permit.is_none() && self.turn.is_none() && self.sendable().is_some() {
            let account = self.job.account.clone();
            let deadline = self.calls_until();
            self.permit = Some(Box::pin(async move { account.permit(deadline).await }));
        }
    }

    /// Calls must have landed while there is still time to save what they did.
    pub(super) fn calls_until(&self) -> Deadline {
        if mutate::on(Bug::DeadlineIgnored) {
            return Deadline::NONE;
        }
        Deadline { at: self.job.deadline.at.checked_sub(self.calls_margin).unwrap_or(Timestamp::MIN) }
    }

    /// Uses the turn that has come, once there is something to send: a turn that was waited for is counted, so it is not given away.
    fn take_turn(&mut self) {
        if let Some(index) = self.sendable()
            && let Some(permit) = self.turn.take()
        {
            self.send(index, permit);
        }
    }

    /// Sends the next batch; what goes into it is decided only now that it is its turn.
    fn send(&mut self, index: usize, permit: Permit) {
        let deadline = self.calls_until();
        let Some((batcher, sender)) = self.loaded.sender(index) else { return };
        let mut batch = batcher.take();
        let elapsed = self.job.env.clock.elapsed();
        self.first_permit.get_or_insert(elapsed);
        self.last_permit = elapsed;
        self.permits += 1;
        let last_row = batch.iter().flat_map(|pending| &pending.rows).map(|(row, _)| row.number()).max().unwrap_or(0);
        self.unsaved.push(last_row);
        let number = format!("{:06}-{:08}", self.job.lease.fence, self.permits);
        self.in_flight.push(Box::pin(async move {
            // Lent, not copied: nobody else looks at them while they are on their way.
            let inputs: Vec<Input> = batch.iter_mut().map(|pending| std::mem::take(&mut pending.input)).collect();
            let verdicts = sender.deliver(&number, &inputs, permit, deadline).await;
            for (pending, input) in batch.iter_mut().zip(inputs) {
                pending.input = input;
            }
            Landed::Batch { lane: index, batch, verdicts }
        }));
    }

    fn settle(&mut self, landed: Landed) {
        match landed {
            // After an error the rows stay open: they are not covered by the checkpoint and will be sent again.
            Landed::Batch { verdicts: Err(error), .. } | Landed::Pairs { verdicts: Err(error), .. } => {
                self.stop(End::Failed(error));
            }
            Landed::Batch { lane, batch, verdicts: Ok(verdicts) } if verdicts.len() == batch.len() => {
                self.settle_batch(lane, batch, verdicts);
            }
            Landed::Pairs { rows, verdicts: Ok(verdicts) } if verdicts.len() == rows.len() => {
                self.pairs_in_flight -= 1;
                self.settle_pairs(rows, verdicts);
            }
            Landed::Batch { .. } | Landed::Pairs { .. } => {
                let error = Error::new(ErrorKind::Corrupt, codes::ACCOUNTING, "inputs and verdicts differ in number");
                self.stop(End::Failed(error));
            }
        }
    }

    fn settle_batch(&mut self, index: usize, batch: Vec<Pending>, verdicts: Vec<Delivered>) {
        let mut settled = Vec::new();
        let associates = !self.loaded.links.is_empty();
        // A record of a stream is a row of its own, whichever lane it takes.
        let lane = if self.loaded.records.is_some() { 0 } else { index };
        for (pending, verdict) in batch.into_iter().zip(verdicts) {
            let (first, id, reason) = match verdict {
                Delivered::Written { id, created: true } => (RowOutcome::Created, Some(id), None),
                Delivered::Written { id, created: false } => (RowOutcome::Updated, Some(id), None),
                Delivered::Unchanged { id } => (RowOutcome::Unchanged, Some(id), None),
                Delivered::Refused(reason) => {
                    let Some(pending) = self.loaded.park(index, pending, &reason, self.ledger.first()) else {
                        continue;
                    };
                    let folded = pending.folded().clone();
                    if let [(row, _)] = pending.rows.as_slice() {
                        self.loaded.closed(*row);
                    }
                    if let Some(row) = self.loaded.batcher_mut(index).and_then(|batcher| batcher.refused(pending)) {
                        self.ledger.settle_record(row, lane, RowOutcome::Rejected, Some(reason), None);
                        self.loaded.settled(&folded, 1);
                        if associates {
                            settled.push(row);
                        }
                    }
                    continue;
                }
                Delivered::Planned(record) => {
                    let (outcome, reference) = (outcome_of(&record), reference(&record));
                    if let Some(plan) = &self.job.plan {
                        let lines = pending.rows.iter().map(|(row, _)| self.ledger.line(*row)).collect();
                        plan.record(PlanRecord { lines, ..*record });
                    }
                    (outcome, Some(reference), None)
                }
                Delivered::PlannedPair(pair) => {
                    if let Some(plan) = &self.job.plan {
                        plan.tie(*pair);
                    }
                    (RowOutcome::Updated, Some(String::new()), None)
                }
                Delivered::Unknown => {
                    let reason = Reason::new(
                        codes::NO_VERDICT,
                        "HubSpot gave no verdict on the row, however often it was asked",
                    );
                    (RowOutcome::Deferred, None, Some(reason))
                }
            };
            if let Some(batcher) = self.loaded.batcher_mut(index) {
                batcher.landed(&pending);
            }
            for (number, (row, _)) in pending.rows.iter().enumerate() {
                let outcome = if number == 0 || first == RowOutcome::Deferred { first } else { RowOutcome::Merged };
                self.ledger.settle_record(*row, lane, outcome, reason.clone(), id.as_deref());
                if associates {
                    settled.push(*row);
                }
                self.loaded.closed(*row);
            }
            self.loaded.settled(pending.folded(), pending.rows.len());
        }
        for row in settled {
            self.associate(row, index);
        }
    }

    /// Moves a row from the ledger into what the next checkpoint claims.
    fn account_for(&mut self, settled: Settled) {
        let progress = &mut self.job.progress;
        progress.position = match mutate::on(Bug::CheckpointBeforeEffect) {
            true => progress.position.max(settled.end),
            false => settled.end,
        };
        progress.rows.add(settled.outcome);
        for (lane, record) in self.loaded.lanes.iter().zip(&settled.records) {
            if let Some(outcome) = record.outcome {
                progress.records.entry(lane.object.as_str().to_owned()).or_default().add(outcome);
            }
        }
        if let Some(delivered) = &mut self.job.delivered {
            delivered.remember(&settled.marks, settled.outcome);
        }
        progress.add_marks(&settled.marks, settled.outcome);
        if let Some(reason) = settled.reason {
            if settled.outcome == RowOutcome::Rejected {
                *progress.rejected_by_code.entry(reason.code.to_string()).or_default() += 1;
            }
            if let Some(plan) = &self.job.plan {
                return plan.reject(settled.line, &reason);
            }
            let reject = Reject { line: settled.line, cells: settled.cells, reason };
            self.job.rejects.append(&self.loaded.columns.reject(&reject));
        }
    }

    fn too_many_rejects(&self) -> bool {
        let rows = &self.job.progress.rows;
        too_many(self.job.import.abort_if_rejected, rows.read, rows.rejected)
    }

    fn start_saving(&mut self) {
        if self.saving.is_some() {
            return;
        }
        let now = self.job.env.clock.elapsed();
        if now < self.save_not_before {
            return;
        }
        let due = now.saturating_sub(self.last_save) >= RENEW_AFTER;
        // A file that nothing was sent of has nothing to lose: its rejects are found again.
        let moved = self.job.progress.position > self.saved_position && self.permits > 0;
        // The index's tail is written anew at each checkpoint: not for every batch.
        let every = match Duration::try_from_secs_f64(1.0 / self.job.account.ceiling_per_second()) {
            _ if keeps_index(&self.job.import) => SAVE_EVERY_WITH_INDEX,
            Ok(gap) if gap >= SAVE_EVERY => Duration::ZERO,
            _ => SAVE_EVERY,
        };
        if !due && now.saturating_sub(self.last_save) < every {
            return;
        }
        if moved || due || self.job.rejects.has_full_chunk() {
            self.last_save = now;
            self.saving = Some(self.save());
        }
    }

    fn save(&mut self) -> LocalBoxFuture<'static, Result<Saved>> {
        self.job.count_costs();
        let (runs, lease, deadline, objects) =
            (self.job.runs.clone(), self.job.lease.clone(), self.job.deadline, self.job.env.objects.clone());
        let rejects = self.job.rejects.unsaved();
        let index = self.job.delivered.as_ref().map(DeliveredIndex::unsaved);
        let mut progress = Progress { rejects: rejects.state.clone(), ..self.job.progress.clone() };
        if let Some(index) = &index {
            progress.index = index.state.clone();
        }
        let moved = progress.position > self.saved_position;
        let first_row = self.ledger.first();
        Box::pin(async move {
            rejects.write(&*objects).await?;
            if let Some(index) = &index {
                index.write(&*objects).await?;
            }
            runs.checkpoint(&lease, deadline, &progress.position, &progress, moved).await?;
            Ok(Saved {
                position: progress.position,
                rejects: rejects.state,
                index: index.map(|index| index.state),
                first_row,
            })
        })
    }

    /// Takes note of what a checkpoint claims.
    fn claim(&mut self, saved: Saved) {
        self.saved_position = saved.position;
        self.job.rejects.saved(saved.rejects.clone());
        self.job.progress.rejects = saved.rejects;
        if let (Some(delivered), Some(state)) = (&mut self.job.delivered, saved.index) {
            delivered.log.saved(state.clone());
            self.job.progress.index = state;
        }
    }

    /// Saves what is accounted for and not saved yet.
    async fn finish_saving(&mut self) -> Result<()> {
        let clock = self.job.env.clock.clone();
        if self.job.progress.position > self.saved_position || self.job.rejects.dirty() {
            let saved = loop {
                match self.save().await {
                    Err(error) if is_passing(&error) && self.patience_left() => clock.sleep(SAVE_AGAIN).await,
                    result => break result?,
                }
            };
            self.claim(saved);
        }
        Ok(())
    }

    /// How much of what the limit allowed was used, between the first call and the last.
    fn count_limit_use(&mut self) {
        let Some(first) = self.first_permit else { return };
        let rate = self.job.account.ceiling_per_second();
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        {
            // The last call takes its share of the time too, so that a single one counts as full use.
            self.job.progress.calls_possible += (self.last_permit - first).as_secs_f64() * rate + 1.0;
            self.job.progress.calls_made += self.permits as f64;
        }
    }

    fn tell(&self, source: &Source) {
        self.job.env.tell(&app::Update::Import(Update {
            run_id: self.job.lease.run_id.clone(),
            rows: self.job.progress.rows,
            bytes_read: source.fetched_bytes(),
            bytes_total: self.job.object.size,
            bytes_done: match source.compression() {
                Compression::None => self.job.progress.position.byte,
                _ => source.fetched_bytes(),
            },
            calls: self.job.progress.calls,
            in_flight: self.in_flight.len(),
        }));
    }
}

/// Whether there is more to read right now.
#[derive(PartialEq, Eq)]
enum Reading {
    /// The turn is over, rows are not.
    More,
    /// Enough is read ahead, or all.
    Enough,
    /// Bytes have to be fetched first.
    Starved,
}

/// The future's value, or never where there is none.
async fn or_never<T>(future: &mut Option<LocalBoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
