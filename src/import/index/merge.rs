//! The last file's index and this run's log, side by side in the order of keys, in bounded memory.
//!
//! The index is sorted; the log is in file order and may be larger than memory. It is read once per range of keys: a pass holds as many keys
//! as fit, from the lowest that no earlier pass took. Keys are hashes, so each pass takes about as many.

use super::{ENTRY_BYTES, Logged, NEVER, decode, format::Reader, logged};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
    import::log::Log,
};

/// Most entries of the log that are held at once: 16 MB.
pub(super) const SORT_ENTRIES_MAX: usize = 1 << 20;

/// Most passes over the log. At half a million keys a pass at the least, files of 16 million keys; HubSpot's accounts hold 15 million contacts.
pub(super) const PASSES_MAX: usize = 32;

/// After so many keys the sink may write.
const KEYS_PER_DRAIN: usize = 4_096;

/// What is done with each key.
pub(super) trait Sink {
    /// A key with what the last index has of it and what this run's rows say together.
    fn take(&mut self, key: u64, old: Option<u64>, new: Option<u64>);
    /// Writes what has come together.
    async fn drain(&mut self) -> Result<()>;
}

/// What a merge has seen of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merged {
    /// Rows whose key is not known.
    pub(super) unreadable: u64,
}

/// Two rows of one key. Equal ones are as one; of different ones, nothing may be compared with later.
pub(super) fn combine(a: u64, b: u64) -> u64 {
    if a == b { a } else { NEVER }
}

/// Hands every key to `sink`, in order. `None` if the log has more keys than [`PASSES_MAX`] passes can take.
pub(super) async fn merge(
    mut old: Option<Reader<'_>>,
    log: &Log,
    entries_max: usize,
    sink: &mut impl Sink,
) -> Result<Option<Merged>> {
    let mut from = 0;
    let mut merged = None;
    for _ in 0..PASSES_MAX {
        let mut part = Part::new(from, entries_max);
        log.for_each_chunk(async |chunk| part.take(chunk)).await?;
        part.compact();
        let merged = *merged.get_or_insert(Merged { unreadable: part.unreadable });
        let mut rows = part.rows.iter().copied().peekable();
        let mut keys = 0;
        loop {
            let old_row = match &mut old {
                Some(reader) => reader.peek().await?.filter(|(key, _)| *key <= part.to),
                None => None,
            };
            let next = match (old_row, rows.peek().copied()) {
                (None, None) => break,
                (Some((key, row)), Some((new_key, _))) if key < new_key => (key, Some(row), None),
                (Some((key, row)), Some((new_key, new))) if key == new_key => (key, Some(row), Some(new)),
                (Some((key, row)), None) => (key, Some(row), None),
                (_, Some((key, new))) => (key, None, Some(new)),
            };
            if next.1.is_some()
                && let Some(reader) = &mut old
            {
                reader.advance();
            }
            if next.2.is_some() {
                rows.next();
            }
            sink.take(next.0, next.1, next.2);
            keys += 1;
            if keys % KEYS_PER_DRAIN == 0 {
                sink.drain().await?;
            }
        }
        sink.drain().await?;
        match part.to.checked_add(1) {
            Some(next) => from = next,
            None => return Ok(Some(merged)),
        }
    }
    Ok(None)
}

/// The log's rows of a range of keys.
struct Part {
    from: u64,
    /// Included.
    to: u64,
    rows: Vec<(u64, u64)>,
    entries_max: usize,
    unreadable: u64,
}

impl Part {
    fn new(from: u64, entries_max: usize) -> Self {
        Self { from, to: u64::MAX, rows: Vec::new(), entries_max, unreadable: 0 }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<()> {
        let (entries, rest) = chunk.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "the run's index log is cut in an entry"));
        }
        for entry in entries {
            let (key, row) = decode(*entry);
            match logged(key, row) {
                Logged::Unreadable => self.unreadable += 1,
                Logged::Row { key, value, .. } => {
                    if key >= self.from && key <= self.to {
                        if self.rows.len() >= self.entries_max {
                            self.make_room();
                        }
                        if key <= self.to {
                            self.rows.push((key, value));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sorts, and makes one of the rows of each key.
    fn compact(&mut self) {
        self.rows.sort_unstable();
        self.rows.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = combine(kept.1, later.1);
            }
            same
        });
    }

    /// Leaves the upper half of the keys to the next pass, where there are no repeated ones to be made one of.
    fn make_room(&mut self) {
        self.compact();
        let half = self.entries_max / 2;
        if self.rows.len() > half
            && let Some((key, _)) = self.rows.get(half.saturating_sub(1))
        {
            self.to = *key;
            self.rows.truncate(half.max(1));
        }
    }
}
