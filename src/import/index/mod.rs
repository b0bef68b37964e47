//! The delivered index: what the last delivered file of an import held, so that the next one need not send it again, and so that
//! mode `mirror` knows what is missing.
//!
//! It exists because a file that comes every night changes by a few rows. Per key it holds 16 bytes, `(key hash, row hash)`, in one
//! sorted object in the source's bucket; an item of the table points to it and says who may rely on it. All of it may be lost at any
//! time: that costs calls, never a row. Why each rule is as it is: `docs/decisions/0009-delivered-index.md`.
//!
//! How a run uses it:
//!
//! ```text
//! Keeper::begin ─► Keeper::load ─► per input: Hasher::mark, Index::verdict ─► per accounted row: entry() into the log "index"
//!   ─► (mirror) Keeper::missing, brake, archive ─► Keeper::publish, or Keeper::release where the run came to nothing
//! ```
//!
//! Every end of a run (not a yield) must publish or release, before the run itself is finished. A run of an import that does not use
//! the index calls [`Keeper::begin_untracked`]: it writes too, and an index that was made earlier must learn of it.

mod format;
mod merge;
mod pointer;
#[cfg(test)]
mod tests;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

pub use self::pointer::{Claim, Ending, Keeper, MISSING_MAX, Missing, Published};
use crate::record::Input;

/// Most rows of the last file that are held in memory to compare with, at 8 bytes each: 20 MB. Of a larger file those with the
/// lowest key hashes are held; the others are sent, and the report says so.
pub const HELD_ROWS_MAX: usize = 2_500_000;

/// Most bits that remember which keys were sent in this run: 4 MB. Two keys that share a bit cost a call, no more.
pub const SENT_BITS_MAX: usize = 1 << 25;

/// Bits per row of the last file: at 1 % changed rows, one unchanged row in 1,600 is sent for nothing.
const SENT_BITS_PER_ROW: usize = 16;

/// Fewest bits: 8 kB.
const SENT_BITS_MIN: usize = 1 << 16;

/// Bytes of an entry, in the log and in the index.
pub const ENTRY_BYTES: usize = 16;

/// Of a row hash the lowest two bits are left to say what became of the row.
const FATE_BITS: u64 = 0b11;

/// As a row hash: equals no row. For a key that several rows wrote, or of which it is not known what HubSpot has.
const NEVER: u64 = 1;

/// As a row hash while entries are merged: rows of the key were seen, none was delivered.
const SEEN: u64 = 0;

/// What an index must agree with to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Which records the keys stand for: the account (its portal id, not only its name), object types and key properties. An index with
    /// another one is as good as none.
    pub target: String,
    /// Everything else that decides what is written: mode, columns, blank policy. An index with another one still knows
    /// the keys, but no row counts as unchanged.
    pub settings: String,
}

/// Makes the hashes of one import. Equal targets make equal hashes.
#[derive(Debug, Clone, Copy)]
pub struct Hasher {
    seed: u64,
}

/// The hashes of one input: 16 bytes, to be kept until the row is accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark {
    key: u64,
    row: u64,
}

impl Mark {
    /// Of a row whose key is known but which could not be mapped (a reject before any call): it counts as present, and as nothing else.
    pub fn of_key(key: u64) -> Self {
        Self { key, row: 0 }
    }

    /// Hash of the folded key.
    pub fn key(self) -> u64 {
        self.key
    }
}

impl Hasher {
    /// The hasher for this target.
    pub fn new(fingerprint: &Fingerprint) -> Self {
        Self { seed: xxh3_64_with_seed(fingerprint.target.as_bytes(), 0) }
    }

    /// Hash of a key as [`crate::record::fold_key`] folds it. `lane` is the place of the record among the row's records, so that
    /// the same text may be a contact's key and a company's.
    pub fn key(&self, lane: usize, folded_key: &str) -> u64 {
        xxh3_64_with_seed(folded_key.as_bytes(), self.seed.wrapping_add(lane as u64))
    }

    /// Hash of what would be written: the key as it is sent, and every property with its value. The order of the properties does not
    /// matter (the file's columns may change places); a property that is cleared (`""`) differs from one that is left alone.
    pub fn row(&self, input: &Input) -> u64 {
        let mut sum = xxh3_128_with_seed(input.key.as_bytes(), self.seed);
        for (name, value) in &input.properties {
            let name = xxh3_64_with_seed(name.as_bytes(), self.seed);
            // Each property comes once, so that a sum of independent hashes is as good as a hash of a sorted list.
            sum = sum.wrapping_add(xxh3_128_with_seed(value.as_bytes(), name));
        }
        let row = xxh3_64_with_seed(&sum.to_le_bytes(), self.seed) & !FATE_BITS;
        // Values below 4 have a meaning of their own.
        if row == 0 { !FATE_BITS } else { row }
    }

    /// Both hashes of an input.
    pub fn mark(&self, lane: usize, input: &Input) -> Mark {
        Mark { key: self.key(lane, &input.folded_key()), row: self.row(input) }
    }
}

/// What became of a row, or of one of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Rejected, deferred or refused: seen in the file, but HubSpot does not have it, or may not.
    Undelivered,
    /// Sent, and HubSpot said that it was written (merged rows too).
    Delivered,
    /// Equal to what was delivered last time; not sent.
    Unchanged,
}

/// What the log `index` holds of an input. To be appended when its row is accounted for, in file order.
///
/// Where a row holds several records and one of them failed, all of them are `Undelivered`: that costs a call next time.
pub fn entry(mark: Mark, fate: Fate) -> [u8; ENTRY_BYTES] {
    let fate = match fate {
        Fate::Undelivered => 0,
        Fate::Delivered => 1,
        Fate::Unchanged => 2,
    };
    encode(mark.key, (mark.row & !FATE_BITS) | fate)
}

/// What the log holds of a row whose key cannot be told (ragged, blank): it may be any record of the last file, so nothing counts as
/// missing with certainty ([`Missing::is_certain`]).
pub fn unreadable_entry() -> [u8; ENTRY_BYTES] {
    encode(0, 3)
}

/// An entry of the log, read back.
enum Logged {
    /// Key, and the row hash that is known to be delivered, or [`SEEN`].
    Row {
        key: u64,
        value: u64,
        sent: bool,
    },
    Unreadable,
}

fn logged(key: u64, row: u64) -> Logged {
    match (row & FATE_BITS, row & !FATE_BITS) {
        (3, _) => Logged::Unreadable,
        (0, _) => Logged::Row { key, value: SEEN, sent: true },
        // Delivered without a row hash cannot be compared with anything.
        (fate, 0) => Logged::Row { key, value: NEVER, sent: fate == 1 },
        (fate, row) => Logged::Row { key, value: row, sent: fate == 1 },
    }
}

fn encode(key: u64, row: u64) -> [u8; ENTRY_BYTES] {
    ((u128::from(row) << 64) | u128::from(key)).to_le_bytes()
}

fn decode(entry: [u8; ENTRY_BYTES]) -> (u64, u64) {
    let both = u128::from_le_bytes(entry);
    (both as u64, (both >> 64) as u64)
}

/// Whether an input has to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// HubSpot has it from the last run: leave it out.
    Unchanged,
    /// Send it.
    Changed,
}

/// The last delivered file in memory, and the keys that were sent since. At most [`HELD_ROWS_MAX`] × 8 + [`SENT_BITS_MAX`] / 8 bytes.
#[derive(Debug, Default)]
pub struct Index {
    /// One hash of key and row together, sorted.
    rows: Vec<u64>,
    /// A bit per key that was sent; keys may share one.
    sent: Vec<u64>,
    note: Option<String>,
}

impl Index {
    /// No index: everything is sent. The note goes into the report.
    pub fn absent(note: Option<String>) -> Self {
        Self { note, ..Self::default() }
    }

    fn new(mut rows: Vec<u64>, note: Option<String>) -> Self {
        rows.sort_unstable();
        let bits = rows.len().saturating_mul(SENT_BITS_PER_ROW).clamp(SENT_BITS_MIN, SENT_BITS_MAX).next_power_of_two();
        Self { rows, sent: vec![0; bits / 64], note }
    }

    /// Decides about an input, in file order. One that is `Changed` must be sent: all later rows of its key will be, because what the
    /// last run delivered is then no longer what HubSpot has.
    pub fn verdict(&mut self, mark: Mark) -> Verdict {
        if self.rows.is_empty() {
            return Verdict::Changed;
        }
        if !self.is_sent(mark.key) && self.rows.binary_search(&pair(mark.key, mark.row)).is_ok() {
            return Verdict::Unchanged;
        }
        self.note_sent(mark.key);
        Verdict::Changed
    }

    /// The input is sent although it is unchanged, along with others of its row: all later rows of its key will be, too.
    pub fn touch(&mut self, mark: Mark) {
        if !self.rows.is_empty() {
            self.note_sent(mark.key);
        }
    }

    /// Rows that can be told unchanged.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// What a reader of the report should know: that the index could not be used, or not for all rows.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        (self.rows.capacity() + self.sent.capacity()) * size_of::<u64>()
    }

    fn is_sent(&self, key: u64) -> bool {
        let (word, bit) = self.place(key);
        self.sent.get(word).is_some_and(|word| word & bit != 0)
    }

    fn note_sent(&mut self, key: u64) {
        let (word, bit) = self.place(key);
        if let Some(word) = self.sent.get_mut(word) {
            *word |= bit;
        }
    }

    fn place(&self, key: u64) -> (usize, u64) {
        let words = (self.sent.len() as u64).max(1);
        (((key >> 6) % words) as usize, 1 << (key & 63))
    }
}

/// One hash for key and row: that a changed row of `n` held ones meets one by chance has odds of `n` in 2^64.
fn pair(key: u64, row: u64) -> u64 {
    xxh3_64_with_seed(&encode(key, row & !FATE_BITS), 0)
}
