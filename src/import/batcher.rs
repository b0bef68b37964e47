//! Rows in, batches out: equal keys are merged, and a key is never in two calls at once.
//!
//! Each key has at most one input that is ready or in flight; what comes for it meanwhile waits its turn, merged where that
//! changes nothing. So the calls that HubSpot sees for one key are in file order, whatever the number of batches in flight.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use super::ledger::RowId;
pub use crate::hubspot::batch::{BATCH_BYTES_MAX, BATCH_INPUTS_MAX};
use crate::{
    mutate::{self, Bug},
    record::{Input, PropertyName, folded},
};

/// One record to be written, with the rows it stands for, in file order.
#[derive(Debug, Clone)]
pub struct Pending {
    folded: Rc<str>,
    /// What is sent.
    pub input: Input,
    /// The rows and, where there are several, what each of them said.
    pub rows: Vec<(RowId, Option<Input>)>,
    /// A row that was refused as part of a merged input stands alone from then on.
    alone: bool,
}

impl Pending {
    fn new(folded: Rc<str>, row: RowId, input: Input) -> Self {
        Self { folded, input, rows: vec![(row, None)], alone: false }
    }

    /// The key, as equal ones have it in common.
    pub(super) fn folded(&self) -> &Rc<str> {
        &self.folded
    }

    /// Whether applying `later` on top in one write is the same as writing one after the other.
    fn can_merge(&self, later: &Input) -> bool {
        // A leading `;` appends to a list of options: two appends are not one.
        !self.alone && !later.properties.iter().any(|(_, value)| value.starts_with(';'))
    }

    fn merge(&mut self, row: RowId, later: Input, first_wins: &[PropertyName]) {
        if let [(_, own @ None)] = self.rows.as_mut_slice() {
            *own = Some(self.input.clone());
        }
        for (name, value) in &later.properties {
            // Rows of one file share their names, so that comparing pointers nearly always suffices.
            let known = self.input.properties.iter_mut().find(|(known, _)| Rc::ptr_eq(known, name) || known == name);
            match known {
                Some((_, known)) if !known.is_empty() && first_wins.contains(name) => {}
                Some(_) if mutate::on(Bug::FirstRowWins) => {}
                Some((_, known)) => known.clone_from(value),
                None => self.input.properties.push((name.clone(), value.clone())),
            }
        }
        self.rows.push((row, Some(later)));
    }

    /// Splits a merged input into its rows.
    fn split(self) -> VecDeque<Self> {
        let Self { folded, input, rows, .. } = self;
        rows.into_iter()
            .map(|(row, own)| Self {
                folded: folded.clone(),
                input: own.unwrap_or_else(|| input.clone()),
                rows: vec![(row, None)],
                alone: true,
            })
            .collect()
    }
}

/// Inputs that are waiting to be sent, and the keys of those that are on their way.
pub struct Batcher {
    /// At most one per key, none of a key in flight.
    ready: VecDeque<Pending>,
    /// The place of the first one in `ready`, so that `places` stay valid.
    taken: usize,
    /// Where a key's input is in `ready`, counted from the first one ever; `None` while it is in flight.
    places: HashMap<Rc<str>, Option<usize>>,
    /// What waits for a key that is ready or in flight.
    waiting: HashMap<Rc<str>, VecDeque<Pending>>,
    waiting_len: usize,
    /// Properties that are written only where there is no value: of rows that are merged, the first one's counts.
    first_wins: Vec<PropertyName>,
    /// Inputs of one call.
    inputs_max: usize,
    /// Equal keys are sent one after the other, each as it is.
    merges: bool,
}

/// Where places begin: there is room for as many in front of it as there will ever be.
const FIRST_PLACE: usize = 1 << 40;

impl Default for Batcher {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Batcher {
    /// An empty one. `first_wins` are the properties that are written only where there is no value yet.
    pub fn new(first_wins: Vec<PropertyName>) -> Self {
        Self {
            ready: VecDeque::new(),
            taken: FIRST_PLACE,
            places: HashMap::new(),
            waiting: HashMap::new(),
            waiting_len: 0,
            first_wins,
            inputs_max: BATCH_INPUTS_MAX,
            merges: true,
        }
    }

    /// The same for what is sent as it is: equal keys go one after the other.
    pub(super) fn unmerged() -> Self {
        Self { merges: false, ..Self::default() }
    }

    /// The same for what is written one at a time.
    pub(super) fn one_by_one() -> Self {
        Self { inputs_max: 1, ..Self::default() }
    }

    /// Whether a call would be full.
    pub(super) fn has_full_batch(&self) -> bool {
        self.ready() >= self.inputs_max
    }

    /// Adds what a row says about a record.
    pub fn add(&mut self, row: RowId, input: Input) {
        let folded: Rc<str> = folded(&input.key).into();
        match self.places.get(&folded) {
            None => {
                self.push_ready(Pending::new(folded, row, input));
            }
            Some(place) => {
                let queue = self.waiting.get_mut(&folded).filter(|queue| !queue.is_empty());
                let last = match (queue, *place) {
                    (Some(queue), _) => queue.back_mut(),
                    (None, Some(place)) => self.ready.get_mut(place - self.taken),
                    (None, None) => None,
                };
                match last {
                    Some(pending) if self.merges && pending.can_merge(&input) => {
                        pending.merge(row, input, &self.first_wins)
                    }
                    _ => {
                        self.waiting_len += 1;
                        self.waiting.entry(folded.clone()).or_default().push_back(Pending::new(folded, row, input));
                    }
                }
            }
        }
    }

    fn push_ready(&mut self, pending: Pending) {
        self.places.insert(pending.folded.clone(), Some(self.taken + self.ready.len()));
        self.ready.push_back(pending);
    }

    /// What waited is older than what is ready: it goes first.
    fn push_ready_first(&mut self, pending: Pending) {
        self.taken -= 1;
        self.places.insert(pending.folded.clone(), Some(self.taken));
        self.ready.push_front(pending);
    }

    /// The first row of the input whose turn it is.
    pub fn front_row(&self) -> Option<u64> {
        self.ready.front()?.rows.first().map(|(row, _)| row.number())
    }

    /// Inputs that could be sent now.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Inputs that are ready or wait for their key.
    pub fn len(&self) -> usize {
        self.ready.len() + self.waiting_len
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next batch, in order; its keys are in flight until [`Self::landed`] or [`Self::refused`].
    pub fn take(&mut self) -> Vec<Pending> {
        let mut batch = Vec::with_capacity(self.inputs_max.min(self.ready.len()));
        let mut bytes = 0;
        while batch.len() < self.inputs_max {
            let Some(next) = self.ready.front() else { break };
            bytes += next.input.bytes();
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            let Some(pending) = self.ready.pop_front() else { break };
            self.taken += 1;
            if let Some(place) = self.places.get_mut(&pending.folded) {
                *place = None;
            }
            batch.push(pending);
        }
        batch
    }

    /// The input has its final verdict: what waits for its key may go.
    pub fn landed(&mut self, pending: &Pending) {
        self.release(&pending.folded);
    }

    /// The input, which is in flight, is to be sent again, before everything else.
    pub(super) fn again(&mut self, pending: Pending) {
        self.push_ready_first(pending);
    }

    /// The input was refused. If it stands for several rows, they are sent again one by one, in order, and `None` is
    /// returned; else the one row that is refused for good.
    pub fn refused(&mut self, pending: Pending) -> Option<RowId> {
        if let [(row, _)] = pending.rows.as_slice() {
            let row = *row;
            self.release(&pending.folded);
            return Some(row);
        }
        let folded = pending.folded.clone();
        let mut rows = pending.split();
        self.waiting_len += rows.len();
        let queue = self.waiting.entry(folded.clone()).or_default();
        rows.append(queue);
        *queue = rows;
        self.release(&folded);
        None
    }

    fn release(&mut self, folded: &Rc<str>) {
        self.places.remove(folded);
        let next = match self.waiting.get_mut(folded) {
            Some(queue) => {
                let next = queue.pop_front();
                if queue.is_empty() {
                    self.waiting.remove(folded);
                }
                next
            }
            None => None,
        };
        if let Some(pending) = next {
            self.waiting_len -= 1;
            self.push_ready_first(pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        csv::Cells,
        import::ledger::Ledger,
        report::{FilePosition, RowOutcome},
    };

    fn input(key: &str, properties: &[(&str, &str)]) -> Input {
        Input {
            key: key.to_owned(),
            properties: properties.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect(),
        }
    }

    fn row(ledger: &mut Ledger) -> RowId {
        ledger.open(0, FilePosition::default(), Cells::default(), 1, 1)
    }

    #[test]
    fn equal_keys_in_other_case_are_merged_in_file_order() {
        let (mut ledger, mut batcher) = (Ledger::default(), Batcher::default());
        batcher.add(row(&mut ledger), input("A@x.io", &[("email", "A@x.io"), ("firstname", "Ada"), ("city", "Bonn")]));
        batcher.add(row(&mut ledger), input(" a@X.io", &[("email", "a@x.io"), ("firstname", "Eda")]));
        let batch = batcher.take();
        assert_eq!(batch.len(), 1);
        let properties: BTreeMap<_, _> =
            batch[0].input.properties.iter().map(|(name, value)| (&**name, value.as_str())).collect();
        assert_eq!(properties, BTreeMap::from([("email", "a@x.io"), ("firstname", "Eda"), ("city", "Bonn")]));
    }

    #[test]
    fn a_key_in_flight_waits_and_merges_meanwhile() {
        let (mut ledger, mut batcher) = (Ledger::default(), Batcher::default());
        batcher.add(row(&mut ledger), input("k", &[("n", "1")]));
        let first = batcher.take();
        batcher.add(row(&mut ledger), input("K", &[("n", "2")]));
        batcher.add(row(&mut ledger), input("k", &[("n", "3")]));
        assert_eq!((batcher.ready(), batcher.len()), (0, 1));
        assert!(batcher.take().is_empty());
        batcher.landed(&first[0]);
        let second = batcher.take();
        assert_eq!(second[0].input.properties[0].1, "3");
        assert_eq!(second[0].rows.len(), 2);
    }

    #[test]
    fn a_refused_merged_input_is_sent_row_by_row_before_what_came_later() {
        let (mut ledger, mut batcher) = (Ledger::default(), Batcher::default());
        batcher.add(row(&mut ledger), input("k", &[("n", "1")]));
        batcher.add(row(&mut ledger), input("k", &[("n", "bad")]));
        let merged = batcher.take().remove(0);
        batcher.add(row(&mut ledger), input("k", &[("n", "3")]));
        assert_eq!(batcher.refused(merged), None);
        let mut sent = Vec::new();
        for _ in 0..3 {
            let one = batcher.take().remove(0);
            sent.push(one.input.properties[0].1.clone());
            if sent.len() == 2 {
                assert_eq!(batcher.refused(one).map(RowId::number), Some(1));
            } else {
                batcher.landed(&one);
            }
        }
        assert_eq!(sent, ["1", "bad", "3"]);
        assert!(batcher.is_empty());
    }

    #[test]
    fn appends_to_a_list_of_options_are_not_merged() {
        let (mut ledger, mut batcher) = (Ledger::default(), Batcher::default());
        batcher.add(row(&mut ledger), input("k", &[("tags", ";a")]));
        batcher.add(row(&mut ledger), input("k", &[("tags", ";b")]));
        assert_eq!(batcher.len(), 2);
        assert_eq!(batcher.ready(), 1);
    }

    #[test]
    fn a_batch_is_bounded_by_count_and_by_bytes() {
        let (mut ledger, mut batcher) = (Ledger::default(), Batcher::default());
        for number in 0..101 {
            batcher.add(row(&mut ledger), input(&number.to_string(), &[]));
        }
        assert_eq!(batcher.take().len(), 100);
        let large = "x".repeat(BATCH_BYTES_MAX * 2 / 3);
        for number in 0..2 {
            batcher.add(row(&mut ledger), input(&format!("large{number}"), &[("t", &large)]));
        }
        assert_eq!(batcher.take().len(), 2, "the small one left over and the first large one");
        assert_eq!(batcher.take().len(), 1);
    }

    proptest! {
        /// Whatever is merged, waits or is split: applying the calls in the order in which they land is the same as applying the rows
        /// one by one, each row is settled once, and no key is ever in two calls at once.
        #[test]
        fn batches_are_the_same_as_the_rows_one_by_one(
            rows in proptest::collection::vec((0u8..6, 0u8..3, prop_oneof![Just("bad".to_owned()), "[a-c]{0,2}", ";[a-c]"]), 0..120),
            order in proptest::collection::vec(any::<u16>(), 0..200),
        ) {
            type World = BTreeMap<(String, String), String>;
            fn apply(world: &mut World, input: &Input) -> bool {
                if input.properties.iter().any(|(_, value)| value == "bad") {
                    return false;
                }
                for (name, value) in &input.properties {
                    let cell = world.entry((input.folded_key(), name.to_string())).or_default();
                    match value.strip_prefix(';') {
                        Some(more) => { cell.push(';'); cell.push_str(more); }
                        None => cell.clone_from(value),
                    }
                }
                true
            }
            let (mut ledger, mut batcher, mut expected, mut world) = (Ledger::default(), Batcher::default(), World::new(), World::new());
            let mut in_flight: Vec<Vec<Pending>> = Vec::new();
            let mut settled = 0;
            let mut order = order.into_iter().cycle();
            let total = rows.len();
            let mut rows = rows.into_iter();
            loop {
                let step = order.next().unwrap_or(1);
                if (step % 3 != 0 || (batcher.ready() == 0 && in_flight.is_empty())) && let Some((key, name, value)) = rows.next() {
                    let key = if step % 2 == 0 { format!("K{key}") } else { format!("k{key}") };
                    let input = input(&key, &[(["a", "b", "c"][name as usize], &value)]);
                    apply(&mut expected, &input);
                    let row = row(&mut ledger);
                    batcher.add(row, input);
                } else if (step % 5 < 2 || batcher.ready() == 0) && !in_flight.is_empty() {
                    for pending in in_flight.remove(step as usize % in_flight.len()) {
                        if apply(&mut world, &pending.input) {
                            batcher.landed(&pending);
                            for (row, _) in &pending.rows {
                                ledger.settle(*row, RowOutcome::Updated, None);
                                settled += 1;
                            }
                        } else if let Some(row) = batcher.refused(pending) {
                            ledger.settle(row, RowOutcome::Rejected, None);
                            settled += 1;
                        }
                    }
                } else {
                    let batch = batcher.take();
                    if batch.is_empty() && in_flight.is_empty() && batcher.is_empty() && rows.len() == 0 {
                        break;
                    }
                    if batch.is_empty() { continue; }
                    in_flight.push(batch);
                    let mut keys: Vec<_> = in_flight.iter().flatten().map(|pending| pending.input.folded_key()).collect();
                    let count = keys.len();
                    keys.sort();
                    keys.dedup();
                    prop_assert_eq!(keys.len(), count);
                }
            }
            prop_assert_eq!(settled, total);
            prop_assert_eq!(world, expected);
        }
    }
}
