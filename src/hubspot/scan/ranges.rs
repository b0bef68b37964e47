//! Which ids are still to be listed, and by whom. Pure.
//!
//! Two views of one thing. [`Ranges`] is what is saved: the spans that no durable page covers. A [`Plan`] is what the workers of one process
//! are about to list; it runs ahead, and is made anew from the ranges after a restart. Whatever the plan does, an id leaves the ranges
//! only when a page that covers it was taken.

use serde::{Deserialize, Serialize};

/// Ranges listed at once, at most: more than any account's limit can keep busy.
pub const RANGES_MAX: usize = 32;

/// Spans of a saved state: the ranges, and as many gaps between pages that were taken out of order. What is beyond is listed again.
pub const SPANS_MAX: usize = 64;

/// A range is halved only while it holds about this many pages: each half is then worth more than the call that finds its end.
const SPLIT_PAGES_MIN: u64 = 4;

/// An end that other pages contradict is believed after so many more times: what they showed may be gone.
const ENDS_MAX: u32 = 3;

/// Ids beyond `after`, up to and including `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Exclusive.
    pub after: u64,
    /// Inclusive; `None`: to the end.
    pub until: Option<u64>,
}

impl Span {
    /// Everything.
    pub const ALL: Self = Self { after: 0, until: None };

    fn end(self) -> u64 {
        self.until.unwrap_or(u64::MAX)
    }

    /// Ids from `after` (exclusive) to `end` (inclusive), if there can be any.
    fn between(after: u64, end: u64) -> Option<Self> {
        (after < end).then_some(Self { after, until: (end < u64::MAX).then_some(end) })
    }
}

/// The spans that are not covered: in order, apart from each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Span>", into = "Vec<Span>")]
pub struct Ranges {
    open: Vec<Span>,
}

impl From<Vec<Span>> for Ranges {
    /// Whatever was saved, in order; what overlaps becomes one, so that more may be listed and never less.
    fn from(mut spans: Vec<Span>) -> Self {
        spans.retain(|span| span.after < span.end());
        spans.sort_by_key(|span| (span.after, span.end()));
        let mut open: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match open.last_mut() {
                Some(last) if last.end() >= span.after => {
                    if last.end() < span.end() {
                        last.until = span.until;
                    }
                }
                _ => open.push(span),
            }
        }
        Self { open }
    }
}

impl From<Ranges> for Vec<Span> {
    fn from(ranges: Ranges) -> Self {
        ranges.open
    }
}

impl Default for Ranges {
    fn default() -> Self {
        Self { open: vec![Span::ALL] }
    }
}

impl Ranges {
    /// What is still to be covered.
    pub fn open(&self) -> &[Span] {
        &self.open
    }

    /// Nothing is left.
    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Every id up to this one is covered; `None` when all are.
    pub fn covered_to(&self) -> Option<u64> {
        self.open.first().map(|span| span.after)
    }

    /// Everything in `span` is durable.
    pub fn cover(&mut self, span: Span) {
        if span.after >= span.end() {
            return;
        }
        let mut open = Vec::with_capacity(self.open.len() + 1);
        for one in &self.open {
            let before = Span::between(one.after, one.end().min(span.after));
            let behind = Span::between(one.after.max(span.end()), one.end());
            open.extend(before.into_iter().chain(behind));
        }
        self.open = open;
    }

    /// With at most [`SPANS_MAX`] spans: those that are nearest to each other become one.
    pub fn compact(&self) -> Self {
        let mut open = self.open.clone();
        while open.len() > SPANS_MAX {
            let gaps = open.iter().zip(open.iter().skip(1)).map(|(one, next)| next.after - one.end().min(next.after));
            let Some((at, _)) = gaps.enumerate().min_by_key(|(_, gap)| *gap) else { break };
            let next = open.remove(at + 1);
            if let Some(one) = open.get_mut(at) {
                one.until = next.until;
            }
        }
        Self { open }
    }
}

/// A range that is being listed.
#[derive(Debug, Clone)]
struct Work {
    id: u64,
    /// Listed up to here.
    after: u64,
    until: Option<u64>,
    /// How far a page reached, here or where this was split from.
    step: Option<u64>,
    busy: bool,
    /// How often its end was told although there are ids beyond.
    ends: u32,
}

/// A page to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Which range it is of.
    pub(crate) range: u64,
    /// The cursor.
    pub(crate) after: u64,
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    /// So many of its ids are of the range; the others another range lists.
    pub(crate) keep: usize,
    /// What the page covers.
    pub(crate) covers: Span,
}

/// A page was not in the order of ids, or not beyond its cursor: nothing that was listed by ranges can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disorder;

/// The work of one process.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    work: Vec<Work>,
    next: u64,
    /// The largest id that any page showed.
    seen: u64,
}

impl Plan {
    /// All that is not covered.
    pub(crate) fn of(ranges: &Ranges) -> Self {
        let mut plan = Self::default();
        for span in ranges.open() {
            plan.push(span.after, span.until, None);
        }
        plan
    }

    fn push(&mut self, after: u64, until: Option<u64>, step: Option<u64>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.work.push(Work { id, after, until, step, busy: false, ends: 0 });
        id
    }

    /// Nothing is left to be listed.
    pub(crate) fn is_done(&self) -> bool {
        self.work.is_empty()
    }

    /// There is a range without an end, which cannot be halved.
    pub(crate) fn is_endless(&self) -> bool {
        self.work.iter().any(|work| work.until.is_none())
    }

    /// Ids are believed to end near `largest`: a range without an end gets one there, and another one takes what is beyond.
    pub(crate) fn divide(&mut self, largest: u64) {
        let endless = self.work.iter_mut().find(|work| work.until.is_none() && work.after < largest);
        if let Some(work) = endless.filter(|_| largest < u64::MAX) {
            work.until = Some(largest);
            self.push(largest, None, None);
        }
    }

    /// The next page to ask for: of a range that nobody lists, else of the second half of the range with the most pages left.
    pub(crate) fn take(&mut self) -> Option<Ask> {
        if let Some(work) = self.work.iter_mut().filter(|work| !work.busy).min_by_key(|work| work.after) {
            work.busy = true;
            return Some(Ask { range: work.id, after: work.after });
        }
        if self.work.len() >= RANGES_MAX {
            return None;
        }
        let (_, largest) =
            self.work.iter_mut().filter_map(|work| Some((work.pages()?, work))).max_by_key(|one| one.0)?;
        // The page that is under way reaches about a step.
        let step = largest.step.unwrap_or(1);
        let (from, until) = (largest.after.saturating_add(step), largest.until?);
        let middle = from + until.checked_sub(from)? / 2;
        largest.until = Some(middle);
        let range = self.push(middle, Some(until), Some(step));
        if let Some(work) = self.work.last_mut() {
            work.busy = true;
        }
        Some(Ask { range, after: middle })
    }

    /// Takes a page's ids; none: there are none beyond the cursor.
    pub(crate) fn listed(&mut self, range: u64, ids: &[u64]) -> Result<Listed, Disorder> {
        let Some(at) = self.work.iter().position(|work| work.id == range) else { return Err(Disorder) };
        let Some(work) = self.work.get_mut(at) else { return Err(Disorder) };
        let mut before = work.after;
        for id in ids {
            if *id <= before {
                return Err(Disorder);
            }
            before = *id;
        }
        let (after, until) = (work.after, work.until.unwrap_or(u64::MAX));
        if ids.is_empty() && after < self.seen && work.ends < ENDS_MAX {
            // There are ids beyond: other pages showed them. Unless they are gone since, the answer is wrong.
            work.ends += 1;
            work.busy = false;
            return Ok(Listed { keep: 0, covers: Span { after, until: Some(after) } });
        }
        self.seen = self.seen.max(before);
        // The range may have been halved while the page was under way.
        let keep = ids.iter().take_while(|id| **id <= until).count();
        match ids.last() {
            Some(last) if *last < until => {
                let first = ids.first().copied().filter(|first| first < last).unwrap_or(after);
                work.step = Some((*last - first).max(1));
                work.after = *last;
                work.busy = false;
                work.ends = 0;
                Ok(Listed { keep, covers: Span { after, until: Some(*last) } })
            }
            _ => {
                let covers = Span { after, until: work.until };
                self.work.remove(at);
                Ok(Listed { keep, covers })
            }
        }
    }
}

impl Work {
    /// About how many pages are left, if that can be told and the range is worth halving.
    fn pages(&self) -> Option<u64> {
        let pages = self.until?.saturating_sub(self.after) / self.step?.max(1);
        (pages >= SPLIT_PAGES_MIN).then_some(pages)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn span(after: u64, until: Option<u64>) -> Span {
        Span { after, until }
    }

    #[test]
    fn covering_leaves_what_no_page_covers() {
        let mut ranges = Ranges::default();
        ranges.cover(span(0, Some(10)));
        assert_eq!(ranges.covered_to(), Some(10));
        ranges.cover(span(20, Some(30)));
        ranges.cover(span(40, None));
        assert_eq!(ranges.open(), [span(10, Some(20)), span(30, Some(40))]);
        ranges.cover(span(15, Some(35)));
        ranges.cover(span(12, Some(13)));
        assert_eq!(ranges.open(), [span(10, Some(12)), span(13, Some(15)), span(35, Some(40))]);
        ranges.cover(span(5, Some(50)));
        assert!(ranges.is_done() && ranges.covered_to().is_none());
        let text = serde_json::to_string(&Ranges::default()).unwrap();
        assert_eq!(text, r#"[{"after":0,"until":null}]"#);
        let odd: Ranges = serde_json::from_str(
            r#"[{"after":9,"until":null},{"after":5,"until":3},{"after":1,"until":4},{"after":2,"until":6}]"#,
        )
        .unwrap();
        assert_eq!(odd.open(), [span(1, Some(6)), span(9, None)]);
    }

    #[test]
    fn a_state_of_many_gaps_is_saved_small_and_covers_no_more_than_it_should() {
        let mut ranges = Ranges::default();
        for at in 0..500 {
            ranges.cover(span(at * 10, Some(at * 10 + 5)));
        }
        let compact = ranges.compact();
        assert_eq!((ranges.open().len(), compact.open().len()), (500, SPANS_MAX));
        for one in ranges.open() {
            assert!(compact.open().iter().any(|wide| wide.after <= one.after && wide.end() >= one.end()), "{one:?}");
        }
        assert_eq!(compact.covered_to(), ranges.covered_to());
    }

    #[test]
    fn the_range_with_the_most_pages_is_halved_and_a_page_beyond_the_half_is_cut() {
        let mut plan = Plan::of(&Ranges::default());
        let first = plan.take().unwrap();
        assert_eq!((first.after, plan.take()), (0, None));
        let page: Vec<u64> = (1..=100).collect();
        assert_eq!(plan.listed(first.range, &page).unwrap(), Listed { keep: 100, covers: span(0, Some(100)) });
        plan.divide(10_100);
        let front = plan.take().unwrap();
        let tail = plan.take().unwrap();
        assert_eq!((front.after, tail.after), (100, 10_100));
        let half = plan.take().unwrap();
        assert_eq!(half.after, 199 + (10_100 - 199) / 2);
        // The front's page reaches into the half: what is beyond is the other's.
        let page: Vec<u64> = vec![101, half.after, half.after + 1];
        assert_eq!(plan.listed(front.range, &page).unwrap(), Listed { keep: 2, covers: span(100, Some(half.after)) });
        assert_eq!(plan.listed(tail.range, &[]).unwrap(), Listed { keep: 0, covers: span(10_100, None) });
        assert_eq!(plan.listed(half.range, &[10_101]).unwrap().covers, span(half.after, Some(10_100)));
        assert!(plan.is_done());
    }

    #[test]
    fn an_end_before_ids_that_were_seen_is_asked_for_again() {
        let mut plan = Plan::of(&Ranges::from(vec![span(0, Some(500)), span(600, Some(900))]));
        let (front, behind) = (plan.take().unwrap(), plan.take().unwrap());
        plan.listed(behind.range, &[601]).unwrap();
        let told = plan.listed(front.range, &[]).unwrap();
        let mut ranges = Ranges::default();
        ranges.cover(told.covers);
        assert_eq!(ranges, Ranges::default());
        assert_eq!(plan.take(), Some(front));
        assert_eq!(plan.listed(front.range, &[7]).unwrap().covers, span(0, Some(7)));
        // Believed in the end: the records may be gone since.
        for _ in 0..ENDS_MAX {
            assert_eq!(plan.listed(front.range, &[]).unwrap().covers, span(7, Some(7)));
        }
        assert_eq!(plan.listed(front.range, &[]).unwrap().covers, span(7, Some(500)));
    }

    #[test]
    fn a_page_out_of_order_or_before_its_cursor_is_noticed() {
        for ids in [&[5, 4][..], &[5, 5], &[0], &[7, 3, 9]] {
            let mut plan = Plan::of(&Ranges::default());
            let ask = plan.take().unwrap();
            assert_eq!(plan.listed(ask.range, ids), Err(Disorder), "{ids:?}");
        }
        assert_eq!(Plan::default().listed(0, &[1]), Err(Disorder));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn every_id_is_listed_whatever_happens_and_once_when_nothing_is_restarted(
            gaps in prop::collection::vec(prop_oneof![1u64..4, 1u64..2_000, 1u64..3_000_000_000], 0..600),
            page_size in 1usize..20,
            workers in 1usize..40,
            hint_percent in 0u64..130,
            restarts in any::<bool>(),
            choices in prop::collection::vec(any::<u32>(), 64),
        ) {
            let mut ids = BTreeSet::new();
            let mut at = 0;
            for gap in &gaps {
                at += gap;
                ids.insert(at);
            }
            let mut listed: BTreeMap<u64, u32> = BTreeMap::new();
            let mut ranges = Ranges::default();
            let mut plan = Plan::of(&ranges);
            let mut under_way: Vec<Ask> = Vec::new();
            let mut taken: Vec<Span> = Vec::new();
            let mut calls = 0usize;
            let mut restarted = 0usize;
            loop {
                calls += 1;
                prop_assert!(calls < 60_000, "no end: {plan:?}");
                let choice = choices[calls % choices.len()].rotate_left(u32::try_from(calls / choices.len() % 32).unwrap()) as usize;
                if calls == 4 || restarted > 0 && calls.is_multiple_of(50) {
                    plan.divide(at * hint_percent / 100);
                }
                if restarts && restarted < 6 && choice.is_multiple_of(97) {
                    restarted += 1;
                    let saved = serde_json::to_string(&ranges.compact()).unwrap();
                    ranges = serde_json::from_str(&saved).unwrap();
                    plan = Plan::of(&ranges);
                    under_way.clear();
                    taken.clear();
                }
                while under_way.len() < workers {
                    let Some(ask) = plan.take() else { break };
                    under_way.push(ask);
                }
                prop_assert!(plan.work.len() <= RANGES_MAX.max(SPANS_MAX + 1));
                // The caller saves what it took, in any order, when it likes.
                if choice.is_multiple_of(3) && !taken.is_empty() {
                    let span = taken.swap_remove(choice % taken.len());
                    ranges.cover(span);
                }
                if under_way.is_empty() {
                    prop_assert!(plan.is_done());
                    break;
                }
                let ask = under_way.swap_remove(choice / 7 % under_way.len());
                let page: Vec<u64> = ids.range(ask.after + 1..).take(page_size).copied().collect();
                let told = plan.listed(ask.range, &page).unwrap();
                for id in page.iter().take(told.keep) {
                    *listed.entry(*id).or_default() += 1;
                }
                taken.push(told.covers);
            }
            for span in taken {
                ranges.cover(span);
            }
            prop_assert!(ranges.is_done(), "{ranges:?}");
            prop_assert_eq!(listed.keys().copied().collect::<BTreeSet<_>>(), ids);
            if restarted == 0 {
                prop_assert!(listed.values().all(|times| *times == 1));
            }
        }
    }
}
