//! A pass over the whole file before the first write: every row is read and mapped, and nothing is sent.
//!
//! It exists for two things. A plan has to know which keys come up again, far apart, so that the second row's old values are the first
//! one's new ones. And `preflight: full` refuses a file as a whole before any of it is written.

use std::{collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        conclude::is_passing,
        flow::margins,
        job::{End, Job, Lane, Loaded},
        log::{Log, LogState},
        rows::Row,
        source::{Source, Step},
    },
    planner::{Plan, repeat_hash, too_many_repeats},
};
use crate::{
    app, codes,
    config::Amount,
    error::{Error, ErrorKind, Result},
    import::progress::Update,
    record::{Input, Reason, Reject},
    report::{Counts, FilePosition},
    state::runs::lost,
};

/// Rows between two looks at the clock.
const ROWS_PER_TURN: usize = 2_000;

/// Shortest time between two checkpoints of a pass: what is read again after a kill.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// From this row on a share of rejects is judged, as when rows are sent.
pub(in crate::import) const ABORT_JUDGED_FROM: u64 = 1_000;

/// Bits of the filter that remembers which keys were seen: 16 MB. Of a million keys one in 4,000 seems to be there twice, of ten million one
/// in 50, which costs memory and nothing else.
const SEEN_BITS: u64 = 1 << 27;

/// Keys that may come up again, at about 16 bytes.
const REPEATED_MAX: usize = 1_000_000;

/// How far a pass has come, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scan {
    /// The pass is over, and the file may be written.
    pub done: bool,
    /// Everything before it was looked at; `None` before the pass.
    pub position: Option<FilePosition>,
    /// Rows read.
    pub rows: u64,
    /// Rows that would be rejected before any call.
    pub rejected: u64,
    /// These, by code.
    pub rejected_by_code: std::collections::BTreeMap<String, u64>,
    /// Rows whose key came up before, as far as this invocation knows.
    pub repeated: u64,
    /// The import would stop.
    pub aborts: bool,
    /// Lines of the rejects.
    pub log: LogState,
}

/// A row's records, as they would be sent.
pub(in crate::import) fn map_row(lanes: &[Lane], row: &Row) -> std::result::Result<Vec<Option<Input>>, Reason> {
    let mut inputs = Vec::with_capacity(lanes.len());
    for (index, lane) in lanes.iter().enumerate() {
        match lane.mapping.apply(&row.cells) {
            Ok(input) => inputs.push(Some(lane.delivery.with_own_key(input))),
            // A row need not hold all of its records, but it must hold the first.
            Err(_) if index > 0 && lane.mapping.is_blank(&row.cells) => inputs.push(None),
            Err(reason) => return Err(reason),
        }
    }
    Ok(inputs)
}

/// Whether so many rejects of so many rows stop an import.
pub(in crate::import) fn too_many(allowed: Amount, read: u64, rejected: u64) -> bool {
    match allowed {
        Amount::Share(_) => read >= ABORT_JUDGED_FROM && rejected > allowed.of(read),
        Amount::Count(count) => rejected > count,
    }
}

/// Remembers hashes, in fixed memory; now and then one that is new seems to be known.
struct Seen(Vec<u64>);

impl Seen {
    fn new() -> Self {
        Self(vec![0; (SEEN_BITS / 64) as usize])
    }

    /// Whether the hash was there already.
    fn insert(&mut self, hash: u64) -> bool {
        let mut known = true;
        for part in [hash, hash.rotate_left(32).wrapping_mul(0x9E37_79B9_7F4A_7C15)] {
            let bit = part % SEEN_BITS;
            if let Some(word) = self.0.get_mut((bit / 64) as usize) {
                known &= *word & (1 << (bit % 64)) != 0;
                *word |= 1 << (bit % 64);
            }
        }
        known
    }
}

/// Up to so many rows; whether there are more.
async fn some_rows(
    source: &mut Source,
    loaded: &mut Loaded,
    each: &mut dyn FnMut(&Loaded, Row) -> Result<()>,
) -> Result<bool> {
    let mut bytes = Vec::new();
    for _ in 0..ROWS_PER_TURN {
        if let Some(row) = loaded.next() {
            each(loaded, row)?;
            continue;
        }
        if loaded.ended {
            return Ok(false);
        }
        bytes.clear();
        match source.step(&mut bytes)? {
            Step::Bytes => loaded.reader.feed(&bytes),
            Step::Wait => source.fetched().await?,
            Step::End => {
                loaded.reader.finish();
                loaded.ended = true;
            }
        }
    }
    Ok(true)
}

impl Job {
    /// The file from `position` on (where it was looked at before), else from its start. `None` if there is nothing in it.
    async fn load_at(&mut self, position: Option<FilePosition>) -> Result<Option<(Source, Loaded)>> {
        let kept = self.progress.position;
        if let Some(position) = position.filter(|_| self.progress.file.is_some()) {
            self.progress.position = position;
        }
        let at = self.progress.position.byte;
        let mut source = Source::new(self.env.objects.clone(), self.object.clone(), self.file_compression(), at);
        let loaded = self.load(&mut source).await;
        if position.is_some() && self.progress.file.is_some() {
            self.progress.position = kept;
        }
        Ok(loaded?.map(|loaded| (source, loaded)))
    }

    /// Finds the keys that come up in several rows. For a plan.
    pub(in crate::import) async fn find_repeated(&mut self, plan: &Plan) -> Result<()> {
        let Some((mut source, mut loaded)) = self.load_at(None).await? else { return Ok(()) };
        let (mut seen, mut repeated) = (Seen::new(), HashSet::new());
        let mut each = |loaded: &Loaded, row: Row| {
            if row.fault.is_some() {
                return Ok(());
            }
            let Ok(inputs) = map_row(&loaded.lanes, &row) else { return Ok(()) };
            for (lane, input) in inputs.iter().enumerate() {
                let Some((input, delivery)) = input.as_ref().zip(loaded.lanes.get(lane).map(|lane| &lane.delivery))
                else {
                    continue;
                };
                let hash = repeat_hash(lane, &delivery.folded(&input.key));
                if seen.insert(hash) {
                    repeated.insert(hash);
                }
            }
            if repeated.len() > REPEATED_MAX { Err(too_many_repeats()) } else { Ok(()) }
        };
        while some_rows(&mut source, &mut loaded, &mut each).await? {
            if self.env.stop.get() {
                break;
            }
            tokio::task::yield_now().await;
        }
        plan.set_repeated(repeated);
        // The flow begins at the start, and asks for nothing twice that is known by now.
        Ok(())
    }

    /// Reads and maps the whole file, resumably. `None` if the file may be written.
    pub(in crate::import) async fn preflight(&mut self) -> Result<Option<End>> {
        if self.progress.preflight.done {
            return Ok(None);
        }
        let folder = self.state_folder();
        let mut log = Log::open(
            self.env.objects.clone(),
            folder,
            "preflight",
            self.lease.fence,
            self.progress.preflight.log.clone(),
        )
        .await?;
        let Some((mut source, mut loaded)) = self.load_at(self.progress.preflight.position).await? else {
            return Ok(None);
        };
        let (margin, _) = margins(self.deadline.remaining(self.env.clock.now()));
        let mut seen = Seen::new();
        let mut last_save = self.env.clock.elapsed();
        let allowed = self.import.abort_if_rejected;
        loop {
            let scan = &mut self.progress.preflight;
            let mut each = |loaded: &Loaded, row: Row| {
                scan.rows += 1;
                scan.position = Some(FilePosition { byte: row.after.byte, line: row.after.line - 1 });
                let mapped = match row.fault.clone() {
                    Some(fault) => Err(fault),
                    None => map_row(&loaded.lanes, &row),
                };
                match mapped {
                    Ok(inputs) => {
                        let first = inputs.first().and_then(Option::as_ref).zip(loaded.lanes.first());
                        if let Some((input, lane)) = first {
                            scan.repeated += u64::from(seen.insert(repeat_hash(0, &lane.delivery.folded(&input.key))));
                        }
                    }
                    Err(reason) => {
                        scan.rejected += 1;
                        *scan.rejected_by_code.entry(reason.code.to_string()).or_default() += 1;
                        log.append(&loaded.columns.reject(&Reject { line: row.line, cells: row.cells, reason }));
                    }
                }
                scan.aborts |= too_many(allowed, scan.rows, scan.rejected);
                Ok(())
            };
            let more = some_rows(&mut source, &mut loaded, &mut each).await?;
            let clock = &self.env.clock;
            let stops = self.env.stop.get() || !self.deadline.allows(clock.now(), margin);
            if clock.now() >= self.lease.held_until.get() {
                return Err(lost(&self.lease));
            }
            let due = clock.elapsed().saturating_sub(last_save) >= SAVE_EVERY || log.has_full_chunk();
            if !more {
                break;
            }
            if stops || due {
                self.save_preflight(&mut log).await?;
                last_save = self.env.clock.elapsed();
            }
            if stops {
                return Ok(Some(End::Deadline));
            }
            self.tell_preflight(&source);
            tokio::task::yield_now().await;
        }
        let scan = self.progress.preflight.clone();
        if scan.aborts {
            self.note(format!(
                "preflight: {} of {} rows would be rejected, which is more than abort_if_rejected allows; nothing was written",
                scan.rejected, scan.rows
            ));
            self.progress.rejected_by_code = scan.rejected_by_code;
            let message = format!("{} of {} rows would be rejected; nothing was written", scan.rejected, scan.rows);
            // They are joined as the rejects of the run.
            self.rejects = log;
            return Ok(Some(End::Invalid(Error::invalid(codes::ABORT_IF_REJECTED, message))));
        }
        let again =
            if scan.repeated > 0 { format!(", {} with a key that came before", scan.repeated) } else { String::new() };
        self.note(format!("preflight: {} rows, {} of them rejects{again}", scan.rows, scan.rejected));
        log.remove().await?;
        self.progress.preflight = Scan { done: true, ..Scan::default() };
        let position = self.progress.position;
        self.runs.checkpoint(&self.lease, self.deadline, &position, &self.progress, true).await?;
        Ok(None)
    }

    async fn save_preflight(&mut self, log: &mut Log) -> Result<()> {
        let unsaved = log.unsaved();
        unsaved.write(&*self.env.objects).await?;
        self.progress.preflight.log = unsaved.state.clone();
        self.count_costs();
        let position = self.progress.position;
        match self.runs.checkpoint(&self.lease, self.deadline, &position, &self.progress, true).await {
            Ok(()) => log.saved(unsaved.state),
            // What is not saved now is saved next time, or read again.
            Err(error) if is_passing(&error) && error.kind() != ErrorKind::Fenced => {
                tracing::warn!(error = %error, "progress cannot be saved; trying again");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn tell_preflight(&self, source: &Source) {
        let scan = &self.progress.preflight;
        self.env.tell(&app::Update::Import(Update {
            run_id: self.lease.run_id.clone(),
            rows: Counts { read: scan.rows, rejected: scan.rejected, ..Counts::default() },
            bytes_read: source.fetched_bytes(),
            bytes_total: self.object.size,
            bytes_done: 0,
            calls: self.progress.calls,
            in_flight: 0,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_is_known_and_little_else_is() {
        let mut seen = Seen::new();
        let hash = |number: u64| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
        let wrong = (0..200_000).filter(|number| seen.insert(hash(*number))).count();
        assert!(wrong < 20, "{wrong}");
        assert!((0..200_000).all(|number| seen.insert(hash(number))));
    }
}
