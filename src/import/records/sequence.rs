//! Order between the lanes: what is said about one record goes out in the order of the file, whatever kind of call it takes.
//!
//! A batcher keeps the order of one key within its lane. Here a key belongs to one lane at a time: what wants another lane waits until
//! everything before it has its verdict.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use super::super::ledger::RowId;
use crate::record::Input;

/// A row's input and the lane it goes to.
pub(super) type Queued = (RowId, usize, Input);

/// The keys that are in a lane, and what waits for them.
#[derive(Default)]
pub(super) struct Sequence {
    keys: HashMap<Rc<str>, Turn>,
}

struct Turn {
    lane: usize,
    /// Rows in the lane without a verdict.
    open: usize,
    waiting: VecDeque<Queued>,
}

impl Sequence {
    /// A row's input, in the order of the file; it is given back if it may go to its lane now.
    pub(super) fn offer(&mut self, row: RowId, lane: usize, input: Input) -> Option<Queued> {
        let folded: Rc<str> = input.folded_key().into();
        match self.keys.get_mut(&folded) {
            None => {
                self.keys.insert(folded, Turn { lane, open: 1, waiting: VecDeque::new() });
                Some((row, lane, input))
            }
            Some(turn) if turn.lane == lane && turn.waiting.is_empty() => {
                turn.open += 1;
                Some((row, lane, input))
            }
            Some(turn) => {
                turn.waiting.push_back((row, lane, input));
                None
            }
        }
    }

    /// So many rows of the key have their verdicts; returns what may go to its lane now, in order.
    pub(super) fn settled(&mut self, key: &str, rows: usize) -> Vec<Queued> {
        let Some(turn) = self.keys.get_mut(key) else { return Vec::new() };
        turn.open = turn.open.saturating_sub(rows);
        if turn.open > 0 {
            return Vec::new();
        }
        let Some((_, next, _)) = turn.waiting.front() else {
            self.keys.remove(key);
            return Vec::new();
        };
        turn.lane = *next;
        let mut released = Vec::new();
        while let Some(queued) = turn.waiting.pop_front_if(|(_, lane, _)| *lane == turn.lane) {
            released.push(queued);
        }
        turn.open = released.len();
        released
    }

    /// Whether everything has its verdict.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{csv::Cells, import::ledger::Ledger, report::FilePosition};

    proptest! {
        /// Whatever lands when: each row is released once, per key in the order of the file, and never beside one of another lane.
        #[test]
        fn rows_of_a_key_pass_in_order_one_lane_at_a_time(
            rows in proptest::collection::vec((0u8..4, 0usize..3), 1..80),
            choices in proptest::collection::vec(any::<u16>(), 1..200),
        ) {
            let (mut ledger, mut sequence) = (Ledger::default(), Sequence::default());
            let mut open: Vec<Queued> = Vec::new();
            let mut passed: Vec<(String, u64)> = Vec::new();
            let mut choices = choices.into_iter().cycle();
            let total = rows.len();
            let mut rows = rows.into_iter();
            let pass = |queued: Queued, open: &mut Vec<Queued>, passed: &mut Vec<(String, u64)>| {
                let (row, lane, input) = &queued;
                prop_assert!(open.iter().all(|(_, other, theirs)| theirs.key != input.key || other == lane));
                passed.push((input.key.clone(), row.number()));
                open.push(queued);
                Ok(())
            };
            loop {
                let choice = usize::from(choices.next().unwrap_or_default());
                if (choice % 2 == 0 || open.is_empty()) && let Some((key, lane)) = rows.next() {
                    let row = ledger.open(0, FilePosition::default(), Cells::default(), 1, 1);
                    let input = Input { key: format!("k{key}"), properties: Vec::new() };
                    if let Some(queued) = sequence.offer(row, lane, input) {
                        pass(queued, &mut open, &mut passed)?;
                    }
                } else if !open.is_empty() {
                    let (_, _, input) = open.remove(choice % open.len());
                    for queued in sequence.settled(&input.key, 1) {
                        pass(queued, &mut open, &mut passed)?;
                    }
                } else {
                    break;
                }
            }
            prop_assert_eq!(passed.len(), total);
            prop_assert!(sequence.is_empty());
            for key in 0..4 {
                let numbers: Vec<u64> =
                    passed.iter().filter(|(other, _)| *other == format!("k{key}")).map(|(_, number)| *number).collect();
                prop_assert!(numbers.is_sorted());
            }
        }
    }
}
