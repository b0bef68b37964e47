//! A pass over the whole file before the first write: every row is read and mapped, and nothing is sent.
//!
//! It exists for two things. A plan has to know which keys come up again, far apart, so that the second row's old values are the first
//! one's new ones. And `preflight: full` ([`super::preflight`]) refuses a file as a whole before any of it is written.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        job::{Job, Lane, Loaded},
        log::LogState,
        rows::Row,
        source::{Source, Step},
    },
    planner::{Plan, repeat_hash, too_many_repeats},
};
use crate::{
    config::Amount,
    error::Result,
    record::{Input, Reason},
    report::{Expected, FilePosition, PreflightReport},
};

/// Rows between two looks at the clock.
const ROWS_PER_TURN: usize = 2_000;

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
    /// Rows that would be rejected.
    pub rejected: u64,
    /// These, by code.
    pub rejected_by_code: BTreeMap<String, u64>,
    /// Rows whose key came up before, as far as this invocation knows.
    pub repeated: u64,
    /// What would become of the records, by object type.
    pub records: BTreeMap<String, Expected>,
    /// The import would stop.
    pub aborts: bool,
    /// Lines of the rejects.
    pub log: LogState,
    /// What the whole pass found, once it is over.
    pub found: Option<PreflightReport>,
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
pub(super) struct Seen(Vec<u64>);

impl Seen {
    pub(super) fn new() -> Self {
        Self(vec![0; (SEEN_BITS / 64) as usize])
    }

    /// Whether the hash was there already.
    pub(super) fn insert(&mut self, hash: u64) -> bool {
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

/// Up to so many rows, fewer where `each` says that it has enough; whether there are more.
pub(super) async fn some_rows(
    source: &mut Source,
    loaded: &mut Loaded,
    each: &mut dyn FnMut(&Loaded, Row) -> Result<bool>,
) -> Result<bool> {
    let mut bytes = Vec::new();
    for _ in 0..ROWS_PER_TURN {
        if let Some(row) = loaded.next() {
            if each(loaded, row)? {
                continue;
            }
            break;
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
    pub(super) async fn load_at(&mut self, position: Option<FilePosition>) -> Result<Option<(Source, Loaded)>> {
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
                return Ok(true);
            }
            let Ok(inputs) = map_row(&loaded.lanes, &row) else { return Ok(true) };
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
            if repeated.len() > REPEATED_MAX { Err(too_many_repeats()) } else { Ok(true) }
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
