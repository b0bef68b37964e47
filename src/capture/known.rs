//! What a capture remembers between its runs, so that it emits only what was not emitted.
//!
//! HubSpot's modified date says neither that a record was restored, nor that its associations changed, nor which records a merge took
//! away; and its search index shows some changes late. So a capture keeps, in S3, beside its position:
//!
//! | what | for |
//! |---|---|
//! | `recent`: id → modified date last emitted | the trailing pass emits only what was not emitted; a record is created once |
//! | `archived`: id → when it was archived | a delete is emitted once; who is no longer in the recycle bin was restored, or is gone for good |
//! | `merged`: ids of records that were merged into others | their delete is emitted once |
//! | `links`: id → associations | an association change is found by comparing |
//! | `present`: ids | resources whose deletes can only be seen by absence |
//!
//! `recent` is bounded by the trailing pass: what was modified before [`Known::horizon`] is never looked at again. The others are as large
//! as the recycle bin, the merges, and (where associations are captured) the object itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    codes,
    error::{Error, ErrorKind, Result},
};

/// First bytes of the stored form, with its version.
const MAGIC: &[u8; 8] = b"hfknown1";

/// Compression of the stored form: quick; it is mostly numbers.
const ZSTD_LEVEL: i32 = 3;

/// A stored form larger than this is not ours: 100 million ids and more.
const STORED_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;

/// Stands for the time at which a record was archived that was found gone, and has not been seen in the recycle bin yet.
pub const GONE: i64 = 0;

/// An archived record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// Whether consumers have known the record: a restore of one that they have not is a create.
    pub told: bool,
}

/// One association of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Which of the configured objects, by its place in the configuration.
    pub to: u8,
    /// The far record.
    pub id: u64,
    /// HubSpot's number of the association's type.
    pub type_id: u64,
}

/// One thing learned. Written to the run's log with each checkpoint, and replayed by who continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// This version of the record was emitted (milliseconds since the epoch).
    Emitted(u64, i64),
    /// The record is in the recycle bin.
    Archived(u64, Archived),
    /// It is not any more.
    Unarchived(u64),
    /// It was merged into another.
    Merged(u64),
    /// Its associations, in order.
    Links(u64, Vec<Link>),
    /// Its associations are of no interest any more.
    Unlinked(u64),
    /// It exists.
    Present(String),
    /// It does not.
    Absent(String),
    /// An object was written: key, records, bytes. Not part of what is known; the manifest is made from it.
    Object(String, u64, u64),
}

/// Everything that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Records emitted, with the modified date of the version emitted.
    pub recent: HashMap<u64, i64>,
    /// The recycle bin.
    pub archived: BTreeMap<u64, Archived>,
    /// Records merged away.
    pub merged: BTreeSet<u64>,
    /// Associations.
    pub links: BTreeMap<u64, Vec<Link>>,
    /// Ids, where only their absence tells a delete.
    pub present: BTreeSet<String>,
    /// Everything emitted with a modified date from here on is in `recent`; milliseconds since the epoch.
    pub horizon: i64,
}

/// A record's number. HubSpot's ids of CRM records are numbers; any other id is hashed, in a range that HubSpot does not reach.
pub fn number(id: &str) -> u64 {
    const HASHED: u64 = 1 << 63;
    match id.parse::<u64>() {
        Ok(number) if number < HASHED && !id.starts_with('+') => number,
        _ => xxhash_rust::xxh3::xxh3_64(id.as_bytes()) | HASHED,
    }
}

impl Known {
    /// Takes note.
    pub fn apply(&mut self, delta: &Delta) {
        match delta {
            Delta::Emitted(id, at) => {
                self.recent.insert(*id, *at);
            }
            Delta::Archived(id, archived) => {
                self.archived.insert(*id, *archived);
                self.links.remove(id);
            }
            Delta::Unarchived(id) => {
                self.archived.remove(id);
            }
            Delta::Merged(id) => {
                self.merged.insert(*id);
                self.links.remove(id);
            }
            Delta::Links(id, links) => {
                self.links.insert(*id, links.clone());
            }
            Delta::Unlinked(id) => {
                self.links.remove(id);
            }
            Delta::Present(id) => {
                self.present.insert(id.clone());
            }
            Delta::Absent(id) => {
                self.present.remove(id);
            }
            Delta::Object(..) => {}
        }
    }

    /// Forgets what the trailing pass will not look at again.
    pub fn forget_before(&mut self, horizon: i64) {
        self.horizon = self.horizon.max(horizon);
        let horizon = self.horizon;
        self.recent.retain(|_, at| *at >= horizon);
    }

    /// The stored form.
    pub fn store(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(16 + self.recent.len() * 8);
        signed(&mut out, self.horizon);
        let mut recent: Vec<(u64, i64)> = self.recent.iter().map(|(id, at)| (*id, *at)).collect();
        recent.sort_unstable();
        unsigned(&mut out, recent.len() as u64);
        let mut last = 0;
        for (id, at) in recent {
            unsigned(&mut out, id.wrapping_sub(last));
            signed(&mut out, at.wrapping_sub(self.horizon));
            last = id;
        }
        unsigned(&mut out, self.archived.len() as u64);
        last = 0;
        for (id, archived) in &self.archived {
            unsigned(&mut out, id.wrapping_sub(last));
            signed(&mut out, archived.at);
            out.push(archived.told.into());
            last = *id;
        }
        unsigned(&mut out, self.merged.len() as u64);
        last = 0;
        for id in &self.merged {
            unsigned(&mut out, id.wrapping_sub(last));
            last = *id;
        }
        unsigned(&mut out, self.links.len() as u64);
        last = 0;
        for (id, links) in &self.links {
            unsigned(&mut out, id.wrapping_sub(last));
            put_links(&mut out, links);
            last = *id;
        }
        unsigned(&mut out, self.present.len() as u64);
        for id in &self.present {
            text(&mut out, id);
        }
        let mut body = out;
        body.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&body).to_le_bytes());
        let packed = zstd::bulk::compress(&body, ZSTD_LEVEL).map_err(|error| {
            Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "what the capture knows cannot be packed")
                .with_source(error)
        })?;
        let mut stored = MAGIC.to_vec();
        stored.extend_from_slice(&(body.len() as u64).to_le_bytes());
        stored.extend_from_slice(&packed);
        Ok(stored)
    }

    /// Reads the stored form. `STATE_CORRUPT` names `what` if it is not one.
    pub fn load(stored: &[u8], what: &str) -> Result<Self> {
        Self::read(stored).ok_or_else(|| {
            let message = format!("{what} cannot be read: it was cut short, changed, or written by another version");
            Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message)
        })
    }

    fn read(stored: &[u8]) -> Option<Self> {
        let rest = stored.strip_prefix(MAGIC)?;
        let (size, packed) = rest.split_first_chunk::<8>()?;
        let size = usize::try_from(u64::from_le_bytes(*size)).ok().filter(|size| *size <= STORED_BYTES_MAX)?;
        let whole = zstd::bulk::decompress(packed, size).ok()?;
        let (body, sum) = whole.split_last_chunk::<8>()?;
        if xxhash_rust::xxh3::xxh3_64(body) != u64::from_le_bytes(*sum) {
            return None;
        }
        let mut input = Input(body);
        let mut known = Self { horizon: input.signed()?, ..Self::default() };
        let mut last = 0u64;
        let count = input.count()?;
        known.recent.reserve(count);
        for _ in 0..count {
            last = last.wrapping_add(input.unsigned()?);
            known.recent.insert(last, known.horizon.wrapping_add(input.signed()?));
        }
        last = 0;
        for _ in 0..input.count()? {
            last = last.wrapping_add(input.unsigned()?);
            let archived = Archived { at: input.signed()?, told: input.byte()? != 0 };
            known.archived.insert(last, archived);
        }
        last = 0;
        for _ in 0..input.count()? {
            last = last.wrapping_add(input.unsigned()?);
            known.merged.insert(last);
        }
        last = 0;
        for _ in 0..input.count()? {
            last = last.wrapping_add(input.unsigned()?);
            known.links.insert(last, input.links()?);
        }
        for _ in 0..input.count()? {
            known.present.insert(input.text()?);
        }
        input.0.is_empty().then_some(known)
    }
}

impl Delta {
    /// Appends the log's form.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Emitted(id, at) => {
                out.push(1);
                unsigned(out, *id);
                signed(out, *at);
            }
            Self::Archived(id, archived) => {
                out.push(2);
                unsigned(out, *id);
                signed(out, archived.at);
                out.push(archived.told.into());
            }
            Self::Unarchived(id) => {
                out.push(3);
                unsigned(out, *id);
            }
            Self::Merged(id) => {
                out.push(4);
                unsigned(out, *id);
            }
            Self::Links(id, links) => {
                out.push(5);
                unsigned(out, *id);
                put_links(out, links);
            }
            Self::Unlinked(id) => {
                out.push(6);
                unsigned(out, *id);
            }
            Self::Present(id) => {
                out.push(7);
                text(out, id);
            }
            Self::Absent(id) => {
                out.push(8);
                text(out, id);
            }
            Self::Object(key, records, bytes) => {
                out.push(9);
                text(out, key);
                unsigned(out, *records);
                unsigned(out, *bytes);
            }
        }
    }

    /// Reads a chunk of the log: whole deltas, as they are written with each checkpoint.
    pub fn read_all(chunk: &[u8], mut each: impl FnMut(Self)) -> Result<()> {
        let mut input = Input(chunk);
        while !input.0.is_empty() {
            let Some(delta) = input.delta() else {
                let message = "the capture's log of this run cannot be read";
                return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message));
            };
            each(delta);
        }
        Ok(())
    }
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn signed(out: &mut Vec<u8>, value: i64) {
    unsigned(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn text(out: &mut Vec<u8>, text: &str) {
    unsigned(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_links(out: &mut Vec<u8>, links: &[Link]) {
    unsigned(out, links.len() as u64);
    for link in links {
        out.push(link.to);
        unsigned(out, link.id);
        unsigned(out, link.type_id);
    }
}

/// What is left to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// How many entries follow; each takes a byte at least.
    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.unsigned()?).ok().filter(|count| *count <= self.0.len())
    }

    fn text(&mut self) -> Option<String> {
        let length = self.count()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn links(&mut self) -> Option<Vec<Link>> {
        (0..self.count()?)
            .map(|_| Some(Link { to: self.byte()?, id: self.unsigned()?, type_id: self.unsigned()? }))
            .collect()
    }

    fn delta(&mut self) -> Option<Delta> {
        Some(match self.byte()? {
            1 => Delta::Emitted(self.unsigned()?, self.signed()?),
            2 => Delta::Archived(self.unsigned()?, Archived { at: self.signed()?, told: self.byte()? != 0 }),
            3 => Delta::Unarchived(self.unsigned()?),
            4 => Delta::Merged(self.unsigned()?),
            5 => Delta::Links(self.unsigned()?, self.links()?),
            6 => Delta::Unlinked(self.unsigned()?),
            7 => Delta::Present(self.text()?),
            8 => Delta::Absent(self.text()?),
            9 => Delta::Object(self.text()?, self.unsigned()?, self.unsigned()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deltas() -> impl Strategy<Value = Vec<Delta>> {
        let link = (0..3u8, any::<u64>(), 0..500u64).prop_map(|(to, id, type_id)| Link { to, id, type_id });
        let id = prop_oneof![0..20u64, any::<u64>()];
        let delta = prop_oneof![
            (id.clone(), any::<i64>()).prop_map(|(id, at)| Delta::Emitted(id, at)),
            (id.clone(), any::<i64>(), any::<bool>())
                .prop_map(|(id, at, told)| Delta::Archived(id, Archived { at, told })),
            id.clone().prop_map(Delta::Unarchived),
            id.clone().prop_map(Delta::Merged),
            (id.clone(), proptest::collection::vec(link, 0..4)).prop_map(|(id, links)| Delta::Links(id, links)),
            id.prop_map(Delta::Unlinked),
            "[0-9a-z]{0,6}".prop_map(Delta::Present),
            "[0-9a-z]{0,6}".prop_map(Delta::Absent),
            ("[a-z/]{0,9}", any::<u64>(), any::<u64>())
                .prop_map(|(key, records, bytes)| Delta::Object(key, records, bytes)),
        ];
        proptest::collection::vec(delta, 0..60)
    }

    proptest! {
        #[test]
        fn what_is_stored_and_logged_reads_back(deltas in deltas(), horizon in any::<i32>(), cut in 0..400usize) {
            let mut known = Known { horizon: horizon.into(), ..Known::default() };
            let mut log = Vec::new();
            for delta in &deltas {
                known.apply(delta);
                delta.write(&mut log);
            }
            let stored = known.store().unwrap();
            prop_assert_eq!(&Known::load(&stored, "it").unwrap(), &known);
            let mut read = Vec::new();
            Delta::read_all(&log, |delta| read.push(delta)).unwrap();
            prop_assert_eq!(read, deltas);
            // Cut short it is refused, and nothing panics.
            let cut = cut.min(stored.len().saturating_sub(1));
            prop_assert!(Known::load(&stored[..cut], "it").is_err());
        }

        #[test]
        fn nothing_outside_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Known::load(&bytes, "it");
            let mut framed = MAGIC.to_vec();
            framed.extend_from_slice(&bytes);
            let _ = Known::load(&framed, "it");
            let _ = Delta::read_all(&bytes, drop);
        }
    }

    #[test]
    fn ids_that_are_no_numbers_do_not_meet_those_that_are() {
        assert_eq!(number("17100000001"), 17_100_000_001);
        for odd in ["", "abc", "+5", "-5", "18446744073709551615", "005x"] {
            assert!(number(odd) >= 1 << 63, "{odd}");
        }
    }

    #[test]
    fn what_the_trailing_pass_will_not_see_again_is_forgotten() {
        let mut known = Known::default();
        for (id, at) in [(1, 10), (2, 20), (3, 30)] {
            known.apply(&Delta::Emitted(id, at));
        }
        known.forget_before(20);
        assert_eq!(known.recent, HashMap::from([(2, 20), (3, 30)]));
        known.forget_before(5);
        assert_eq!(known.horizon, 20, "the horizon never goes back");
    }
}
