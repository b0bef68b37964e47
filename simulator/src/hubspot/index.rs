//! What the search index holds: ids in the order in which search compares them, all of them and by modified date. A
//! page then costs about as much as the page, in an account of a million records too, and `total` stays exact.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;

use super::store::{Record, Seen};

/// Ids per chunk: short enough that an insertion moves little, long enough that few chunks have to be counted.
const CHUNK_MAX: usize = 512;
/// Decimal digits of the largest id.
const DIGITS_MAX: u32 = 20;
/// Room for the number of digits below an aligned id.
const DIGITS_ROOM: u128 = 32;

/// Where an id stands in search's order. Comparing places is comparing ids, as numbers or as text.
pub(crate) type Place = u128;

/// The place of an id. As text `9` comes after `10`, and `1` before `10`.
pub(crate) fn place(id: u64, as_text: bool) -> Place {
    if !as_text {
        return Place::from(id);
    }
    let digits = id.checked_ilog10().unwrap_or(0) + 1;
    Place::from(id) * 10_u128.pow(DIGITS_MAX - digits) * DIGITS_ROOM + Place::from(digits)
}

fn id_at(place: Place, as_text: bool) -> u64 {
    if !as_text {
        return u64::try_from(place).unwrap_or(u64::MAX);
    }
    let digits = u32::try_from(place % DIGITS_ROOM).unwrap_or(1);
    let id = place / DIGITS_ROOM / 10_u128.pow(DIGITS_MAX.saturating_sub(digits));
    u64::try_from(id).unwrap_or(u64::MAX)
}

/// Places in ascending order, in chunks, so that one can be inserted, and those in a range counted, in little time.
#[derive(Debug, Clone, Default)]
struct Places {
    chunks: Vec<Vec<Place>>,
}

impl Places {
    /// The chunk in which a place is or would be.
    fn home(&self, place: Place) -> usize {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|first| *first <= place));
        after.saturating_sub(1)
    }

    fn insert(&mut self, place: Place) {
        let home = self.home(place);
        let Some(chunk) = self.chunks.get_mut(home) else {
            self.chunks.push(vec![place]);
            return;
        };
        if let Err(at) = chunk.binary_search(&place) {
            chunk.insert(at, place);
        }
        if chunk.len() > CHUNK_MAX {
            let rest = chunk.split_off(CHUNK_MAX / 2);
            self.chunks.insert(home + 1, rest);
        }
    }

    fn remove(&mut self, place: Place) {
        let home = self.home(place);
        let Some(chunk) = self.chunks.get_mut(home) else { return };
        if let Ok(at) = chunk.binary_search(&place) {
            chunk.remove(at);
        }
        if chunk.is_empty() {
            self.chunks.remove(home);
        }
    }

    /// How many come before a place.
    fn rank(&self, place: Place) -> usize {
        let home = self.home(place);
        let before: usize = self.chunks.iter().take(home).map(Vec::len).sum();
        before + self.chunks.get(home).map_or(0, |chunk| chunk.partition_point(|one| *one < place))
    }

    fn count(&self, range: &Range<Place>) -> usize {
        self.rank(range.end).saturating_sub(self.rank(range.start))
    }

    fn range<'a>(&'a self, range: &Range<Place>) -> impl Iterator<Item = Place> + use<'a> {
        let Range { start, end } = *range;
        let chunks = self.chunks.iter().skip(self.home(start)).flatten().copied();
        chunks.skip_while(move |one| *one < start).take_while(move |one| *one < end)
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// The records of one millisecond: usually one.
#[derive(Debug, Clone)]
enum Bucket {
    One(Place),
    Many(Box<Places>),
}

/// Which part of the index a search is about.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Modified dates in milliseconds; `None` for all.
    pub(crate) modified: Option<Range<i64>>,
    /// Places of ids.
    pub(crate) ids: Range<Place>,
}

impl Part {
    pub(crate) fn all() -> Self {
        Self { modified: None, ids: 0..Place::MAX }
    }

    pub(crate) fn is_all(&self) -> bool {
        self.modified.is_none() && self.ids == (0..Place::MAX)
    }
}

/// The index of one object type.
#[derive(Debug, Clone, Default)]
pub(crate) struct SearchIndex {
    as_text: bool,
    all: Places,
    modified: BTreeMap<i64, Bucket>,
    /// When something will have to be taken in, and of which record.
    due: BTreeSet<(i64, u64)>,
}

impl SearchIndex {
    pub(crate) fn as_text(&self) -> bool {
        self.as_text
    }

    /// An empty index with another order of ids; what is due stays due.
    pub(crate) fn reorder(&mut self, as_text: bool) {
        let due = std::mem::take(&mut self.due);
        *self = Self { as_text, due, ..Self::default() };
    }

    /// The next record whose time has come.
    pub(crate) fn pop_due(&mut self, now: i64) -> Option<u64> {
        let (_, id) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.pop_first();
        Some(id)
    }

    /// A record has a new version, which search sees from `next.visible_at`.
    pub(crate) fn note(&mut self, record: &mut Record, next: Seen, now: i64) {
        if next.visible_at <= now {
            self.show(record, next);
            record.pending.clear();
            return;
        }
        self.settle(record, now);
        self.due.insert((next.visible_at, record.id));
        record.pending.push(next);
    }

    /// Takes in the newest version whose time has come.
    pub(crate) fn settle(&mut self, record: &mut Record, now: i64) {
        let ready = |pending: &&Seen| pending.visible_at <= now && pending.version > record.seen.version;
        let newest = record.pending.iter().filter(ready).max_by_key(|pending| pending.version).copied();
        let Some(next) = newest else { return };
        self.show(record, next);
        record.pending.retain(|pending| pending.version > next.version);
    }

    fn show(&mut self, record: &mut Record, next: Seen) {
        let old = std::mem::replace(&mut record.seen, next);
        if !old.gone && !next.gone && old.updated == next.updated {
            return;
        }
        if !old.gone {
            self.take(record.id, old.updated, next.gone);
        }
        if !next.gone {
            self.put(record.id, next.updated, old.gone);
        }
    }

    /// Adds an id under a modified date; `new` if it was not there under another.
    pub(crate) fn put(&mut self, id: u64, updated: i64, new: bool) {
        let place = place(id, self.as_text);
        if new {
            self.all.insert(place);
        }
        match self.modified.entry(updated) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Bucket::One(place));
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => match entry.get_mut() {
                Bucket::Many(places) => places.insert(place),
                Bucket::One(only) => {
                    let mut places = Box::<Places>::default();
                    places.insert(*only);
                    places.insert(place);
                    entry.insert(Bucket::Many(places));
                }
            },
        }
    }

    fn take(&mut self, id: u64, updated: i64, gone: bool) {
        let place = place(id, self.as_text);
        if gone {
            self.all.remove(place);
        }
        let std::collections::btree_map::Entry::Occupied(mut entry) = self.modified.entry(updated) else { return };
        let empty = match entry.get_mut() {
            Bucket::One(only) => *only == place,
            Bucket::Many(places) => {
                places.remove(place);
                places.is_empty()
            }
        };
        if empty {
            entry.remove();
        }
    }

    /// How many records are in a part, and the first `most` of their ids, in search's order.
    pub(crate) fn first(&self, part: &Part, most: usize) -> (usize, Vec<u64>) {
        let id = |place: Place| id_at(place, self.as_text);
        let Some(window) = &part.modified else {
            let ids = self.all.range(&part.ids).take(most).map(id).collect();
            return (self.all.count(&part.ids), ids);
        };
        if window.is_empty() {
            return (0, Vec::new());
        }
        let mut total = 0;
        let mut first: BinaryHeap<Place> = BinaryHeap::new();
        let mut offer = |place: Place| {
            if first.len() < most {
                first.push(place);
                return true;
            }
            match first.peek_mut() {
                Some(mut last) if place < *last => {
                    *last = place;
                    true
                }
                _ => false,
            }
        };
        for bucket in self.modified.range(window.clone()).map(|(_, bucket)| bucket) {
            match bucket {
                Bucket::One(place) => {
                    if part.ids.contains(place) {
                        total += 1;
                        offer(*place);
                    }
                }
                Bucket::Many(places) => {
                    total += places.count(&part.ids);
                    // Ascending: the first that comes too late ends it.
                    for place in places.range(&part.ids) {
                        if !offer(place) {
                            break;
                        }
                    }
                }
            }
        }
        (total, first.into_sorted_vec().into_iter().map(id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_order_is_the_order_of_the_decimal_digits() {
        let ids = [0, 1, 9, 10, 11, 99, 100, 101, 999, 1_000, 17_100_000_001, 171_000_000_010, u64::MAX];
        let mut by_text = ids.to_vec();
        by_text.sort_by_key(ToString::to_string);
        let mut by_place = ids.to_vec();
        by_place.sort_by_key(|id| place(*id, true));
        assert_eq!(by_place, by_text);
        for id in ids {
            assert_eq!((id_at(place(id, true), true), id_at(place(id, false), false)), (id, id));
        }
    }

    #[test]
    fn places_answer_as_a_sorted_set_does() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut places = Places::default();
        let mut model = BTreeSet::new();
        for _ in 0..20_000 {
            let one = Place::from(rng.u64(..3_000));
            if rng.u8(..3) == 0 {
                places.remove(one);
                model.remove(&one);
            } else {
                places.insert(one);
                model.insert(one);
            }
        }
        assert!(places.chunks.len() > 2, "the test must see a split");
        for _ in 0..200 {
            let (from, to) = (Place::from(rng.u64(..3_100)), Place::from(rng.u64(..3_100)));
            let range = from.min(to)..from.max(to);
            let wanted: Vec<Place> = model.range(range.clone()).copied().collect();
            assert_eq!(places.range(&range).collect::<Vec<_>>(), wanted);
            assert_eq!(places.count(&range), wanted.len());
        }
    }
}
