//! `preflight: full`: the whole file, before the first write.
//!
//! Every row is read and mapped, and the keys are looked up, 100 a call and under the account's limit like every call: what would be made, changed or archived is known
//! before anything is, and a file that `abort_if_rejected` would stop is refused as a whole. It is resumable: a checkpoint covers rows whose keys were looked up and
//! whose reject lines are durable. What it costs is a call for each 100 keys, as much again as a plain import.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    super::{
        conclude::is_passing,
        deliver::{Delivered, Delivery},
        flow::margins,
        job::{End, Job, Lane},
        log::Log,
        rows::Row,
        source::Source,
    },
    planner::repeat_hash,
    scan::{Scan, Seen, map_row, some_rows, too_many},
};
use crate::{
    app,
    clock::Deadline,
    codes,
    csv::Cells,
    error::{Error, ErrorKind, Result},
    hubspot::{
        adopt::Adoption,
        batch::{BATCH_INPUTS_MAX, WriteKind},
        read::Found,
    },
    import::progress::Update,
    record::{Input, Reason, Reject},
    report::{Counts, Expected, FilePosition, PreflightReport},
    state::runs::lost,
};

/// Shortest time between two checkpoints of a pass: what is read and looked up again after a kill.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Lookups under way at once: at up to 400 ms an answer they use the burst limit of 19 calls a second.
const LOOKUPS_IN_FLIGHT: usize = 8;

/// Bytes of cells that are kept until it is known whether their row is a reject.
const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What would become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Create,
    Update,
    Archive,
}

impl Delivery {
    /// Whether a row can be refused for what HubSpot holds.
    fn may_refuse(&self) -> bool {
        use crate::config::Mode::{Mirror, Upsert};
        !matches!(self.mode, Upsert | Mirror) || self.key_property.is_some() || self.by_record_id
    }

    /// What delivering inputs with these keys would do, or why they would be refused; one answer per key, in order. Nothing is written.
    async fn expect(&self, keys: &[String], deadline: Deadline) -> Result<Vec<std::result::Result<Fate, Reason>>> {
        if self.key.is_empty() && !self.by_record_id {
            // Nothing identifies a record: each row makes one.
            return Ok(vec![Ok(Fate::Create); keys.len()]);
        }
        let found: Vec<std::result::Result<Option<Found>, Reason>> = match &self.key_property {
            Some(property) => {
                let known = Some(&**property);
                let adoptions = self.account.would_adopt(&self.object, &self.key, known, keys, deadline).await?;
                let found = |adoption: Adoption| match (adoption.reason(&self.object, &self.key), adoption) {
                    (Some(reason), _) => Err(reason),
                    (None, Adoption::Known { id } | Adoption::Adopted { id }) => {
                        Ok(Some(Found { id, ..Found::default() }))
                    }
                    (None, _) => Ok(None),
                };
                adoptions.into_iter().map(found).collect()
            }
            None => {
                let property = (!self.by_record_id).then_some(&*self.key);
                let read = self.account.read(&self.object, property, keys, &[], None, deadline).await?;
                read.into_iter().map(Ok).collect()
            }
        };
        if found.len() != keys.len() {
            let message = "a lookup answered with another number of records";
            return Err(Error::new(ErrorKind::Corrupt, codes::ACCOUNTING, message));
        }
        Ok(keys.iter().zip(found).map(|(key, found)| self.fate(key, found?.as_ref())).collect())
    }

    fn fate(&self, key: &str, found: Option<&Found>) -> std::result::Result<Fate, Reason> {
        match (self.decide(&Input { key: key.to_owned(), properties: Vec::new() }, found), found) {
            (Err(Delivered::Refused(reason)), _) => Err(reason),
            (Ok((WriteKind::Archive, _)), _) => Ok(Fate::Archive),
            (_, Some(_)) => Ok(Fate::Update),
            (_, None) if self.by_record_id => Err(Reason::new(codes::KEY_NOT_FOUND, "no record has this id")),
            (_, None) => Ok(Fate::Create),
        }
    }
}

/// A key that is to be looked up, and the place of its row in the turn.
struct Asked {
    row: usize,
    key: String,
}

/// A row of the turn.
struct Seat {
    line: u64,
    /// Where it may become a reject, or is one.
    cells: Option<Cells>,
    fault: Option<Reason>,
}

/// Some rows, mapped, with what is to be looked up of them.
struct Turn {
    scan: Scan,
    rows: Vec<Seat>,
    /// By lane.
    asked: Vec<Vec<Asked>>,
    held_bytes: usize,
}

impl Turn {
    fn new(scan: Scan, lanes: usize) -> Self {
        Self { scan, rows: Vec::new(), asked: (0..lanes).map(|_| Vec::new()).collect(), held_bytes: 0 }
    }

    /// Takes a row; whether there is room for another.
    fn take(&mut self, lanes: &[Lane], row: Row, seen: &mut Seen) -> bool {
        self.scan.position = Some(FilePosition { byte: row.after.byte, line: row.after.line - 1 });
        let mapped = match row.fault.clone() {
            Some(fault) => Err(fault),
            None => map_row(lanes, &row),
        };
        let place = self.rows.len();
        let mut seat = Seat { line: row.line, cells: None, fault: None };
        let mut keeps = false;
        match mapped {
            Ok(inputs) => {
                for (number, (lane, input)) in lanes.iter().zip(inputs).enumerate() {
                    let Some(input) = input else { continue };
                    keeps |= lane.delivery.may_refuse();
                    if seen.insert(repeat_hash(number, &lane.delivery.folded(&input.key))) {
                        self.scan.repeated += u64::from(number == 0);
                    } else if let Some(asked) = self.asked.get_mut(number) {
                        asked.push(Asked { row: place, key: input.key });
                    }
                }
            }
            Err(fault) => {
                keeps = true;
                seat.fault = Some(fault);
            }
        }
        if keeps {
            self.held_bytes += row.cells.bytes();
            seat.cells = Some(row.cells);
        }
        self.rows.push(seat);
        self.held_bytes < HELD_BYTES_MAX
    }

    /// Looks the keys up.
    async fn look_up(&mut self, lanes: &[Lane], deadline: Deadline) -> Result<()> {
        for (lane, asked) in lanes.iter().zip(&self.asked) {
            let lots = asked.chunks(BATCH_INPUTS_MAX).map(|lot| async move {
                let keys: Vec<String> = lot.iter().map(|asked| asked.key.clone()).collect();
                lane.delivery.expect(&keys, deadline).await
            });
            let fates: Vec<Vec<_>> = stream::iter(lots).buffered(LOOKUPS_IN_FLIGHT).try_collect().await?;
            let records = self.scan.records.entry(lane.object.as_str().to_owned()).or_default();
            for (asked, fate) in asked.iter().zip(fates.into_iter().flatten()) {
                match fate {
                    Ok(Fate::Create) => records.create += 1,
                    Ok(Fate::Update) => records.update += 1,
                    Ok(Fate::Archive) => records.archive += 1,
                    Err(reason) => {
                        if let Some(seat) = self.rows.get_mut(asked.row) {
                            seat.fault.get_or_insert(reason);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Job {
    /// Reads, maps and looks up the whole file, resumably. `None` if the file may be written.
    pub(in crate::import) async fn preflight(&mut self) -> Result<Option<End>> {
        if self.progress.preflight.done {
            return Ok(None);
        }
        let folder = self.state_folder();
        let known = self.progress.preflight.log.clone();
        let mut log = Log::open(self.env.objects.clone(), folder, "preflight", self.lease.fence, known).await?;
        let Some((mut source, mut loaded)) = self.load_at(self.progress.preflight.position).await? else {
            return Ok(None);
        };
        let (margin, _) = margins(self.deadline.remaining(self.env.clock.now()));
        let mut seen = Seen::new();
        let mut last_save = self.env.clock.elapsed();
        let allowed = self.import.abort_if_rejected;
        loop {
            let mut turn = Turn::new(self.progress.preflight.clone(), loaded.lanes.len());
            let more =
                some_rows(&mut source, &mut loaded, &mut |loaded, row| Ok(turn.take(&loaded.lanes, row, &mut seen)))
                    .await?;
            if let Err(error) = turn.look_up(&loaded.lanes, self.calls_until()).await {
                // What was found before these rows is kept; they are looked at again.
                self.save_preflight(&mut log).await?;
                return Err(error);
            }
            let Turn { mut scan, rows, .. } = turn;
            for Seat { line, cells, fault } in rows {
                scan.rows += 1;
                if let Some(reason) = fault {
                    scan.rejected += 1;
                    *scan.rejected_by_code.entry(reason.code.to_string()).or_default() += 1;
                    let cells = cells.unwrap_or_default();
                    log.append(&loaded.columns.reject(&Reject { line, cells, reason }));
                }
                scan.aborts |= too_many(allowed, scan.rows, scan.rejected);
            }
            self.progress.preflight = scan;
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
        let found = PreflightReport {
            rows: scan.rows,
            rejected: scan.rejected,
            repeated: scan.repeated,
            records: scan.records,
        };
        if scan.aborts {
            self.note(format!(
                "preflight: {} of {} rows would be rejected, which is more than abort_if_rejected allows; nothing was written",
                scan.rejected, scan.rows
            ));
            self.progress.rejected_by_code = scan.rejected_by_code;
            let message = format!("{} of {} rows would be rejected; nothing was written", scan.rejected, scan.rows);
            // They are joined as the rejects of the run.
            self.rejects = log;
            self.progress.preflight.found = Some(found);
            return Ok(Some(End::Invalid(Error::invalid(codes::ABORT_IF_REJECTED, message))));
        }
        self.note(told(&found));
        log.remove().await?;
        self.progress.preflight = Scan { done: true, found: Some(found), ..Scan::default() };
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

/// What the pass found, in a sentence.
fn told(found: &PreflightReport) -> String {
    let again = match found.repeated {
        0 => String::new(),
        repeated => format!(", {repeated} with a key that came before"),
    };
    let records: Vec<String> = found.records.iter().map(|(object, expected)| told_of(object, expected)).collect();
    format!(
        "preflight: {} rows, {} of them rejects{again}; expected: {}",
        found.rows,
        found.rejected,
        records.join("; ")
    )
}

fn told_of(object: &str, expected: &Expected) -> String {
    let archived = match expected.archive {
        0 => String::new(),
        archive => format!(", {archive} archived"),
    };
    format!("{object}: {} created, {} updated{archived}", expected.create, expected.update)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_expected_is_told_by_object_type() {
        let mut found = PreflightReport { rows: 5, rejected: 1, repeated: 1, records: BTreeMap::new() };
        found.records.insert("companies".to_owned(), Expected { create: 1, update: 0, archive: 0 });
        found.records.insert("contacts".to_owned(), Expected { create: 0, update: 2, archive: 3 });
        assert_eq!(
            told(&found),
            "preflight: 5 rows, 1 of them rejects, 1 with a key that came before; expected: companies: 1 created, 0 updated; \
             contacts: 0 created, 2 updated, 3 archived"
        );
    }
}
