//! Every row that was read, until it is accounted for.
//!
//! Rows settle in any order and leave in file order: the position after the last one that left is what a checkpoint may claim. So the
//! counts of a checkpoint are exactly those of the rows before its position, and a run that continues from it counts each row once.
//! A later row is never acknowledged before an earlier one: replaying everything after the position, in order, keeps
//! "the later row wins" true (`docs/decisions/0006`).

use std::collections::VecDeque;

use super::delivered::Marks;
use crate::{
    csv::Cells,
    record::Reason,
    report::{FilePosition, RowOutcome},
};

/// A row, by its number in this invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(u64);

impl RowId {
    /// Position in the invocation's order of rows.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What is known of one of a row's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordState {
    /// Its verdict; none yet, or the row does not hold the record.
    pub outcome: Option<RowOutcome>,
    /// HubSpot's id of it, once it is written.
    pub id: Option<String>,
}

struct Entry {
    line: u64,
    end: FilePosition,
    cells: Cells,
    /// Verdicts that the row still waits for: of its records, and of the associations between them.
    waiting: usize,
    outcome: Option<RowOutcome>,
    reason: Option<Reason>,
    /// One per record that a row can hold, where it can hold several; else empty.
    records: Vec<RecordState>,
    /// What the delivered index is to remember of the row.
    marks: Marks,
}

/// A row that is accounted for, and all rows before it.
#[derive(Debug)]
pub struct Settled {
    /// Physical line on which the row starts.
    pub line: u64,
    /// Position after the row.
    pub end: FilePosition,
    /// Its cells.
    pub cells: Cells,
    /// What became of it.
    pub outcome: RowOutcome,
    /// Why, if it was not delivered.
    pub reason: Option<Reason>,
    /// What became of its records, where it can hold several.
    pub records: Vec<RecordState>,
    /// What the delivered index is to remember of it.
    pub(super) marks: Marks,
}

/// The rows between the first one that is not accounted for and the last one read.
#[derive(Default)]
pub struct Ledger {
    first: u64,
    rows: VecDeque<Entry>,
    bytes: usize,
}

impl Ledger {
    /// Enters a row that waits for `waiting` verdicts. `lanes` is how many records a row can hold.
    pub fn open(&mut self, line: u64, end: FilePosition, cells: Cells, waiting: usize, lanes: usize) -> RowId {
        let id = RowId(self.first + self.rows.len() as u64);
        self.bytes += cells.bytes();
        let records = if lanes > 1 { vec![RecordState::default(); lanes] } else { Vec::new() };
        self.rows.push_back(Entry {
            line,
            end,
            cells,
            waiting,
            outcome: None,
            reason: None,
            records,
            marks: Marks::default(),
        });
        id
    }

    /// Sets what the delivered index is to remember of the row.
    pub(super) fn mark(&mut self, row: RowId, marks: Marks) {
        if let Some(entry) = self.entry(row) {
            entry.marks = marks;
        }
    }

    /// One of the row's verdicts has come. A reject among them makes the row a reject; else the first verdict counts.
    pub fn settle(&mut self, row: RowId, outcome: RowOutcome, reason: Option<Reason>) {
        let Some(entry) = self.entry(row) else {
            debug_assert!(false, "a row was settled twice");
            return;
        };
        debug_assert!(entry.waiting > 0, "a row was settled more often than it has verdicts to wait for");
        entry.waiting = entry.waiting.saturating_sub(1);
        let weight = |outcome: Option<RowOutcome>| match outcome {
            Some(RowOutcome::Rejected) => 2,
            Some(RowOutcome::Deferred) => 1,
            _ => 0,
        };
        if entry.outcome.is_none() || weight(Some(outcome)) > weight(entry.outcome) {
            entry.outcome = Some(outcome);
            entry.reason = reason;
        }
    }

    /// As [`Self::settle`], for the record in `lane`; `id` is HubSpot's.
    pub fn settle_record(
        &mut self,
        row: RowId,
        lane: usize,
        outcome: RowOutcome,
        reason: Option<Reason>,
        id: Option<&str>,
    ) {
        if let Some(record) = self.entry(row).and_then(|entry| entry.records.get_mut(lane)) {
            record.outcome = Some(outcome);
            record.id = id.filter(|id| !id.is_empty()).map(str::to_owned);
        }
        let failed = matches!(outcome, RowOutcome::Rejected | RowOutcome::Deferred);
        if lane == 0 || failed {
            self.settle(row, outcome, reason);
        } else {
            // The row counts as its first record does.
            self.release(row);
        }
    }

    /// The physical line on which the row starts; 0 of one that has left.
    pub fn line(&self, row: RowId) -> u64 {
        let index = row.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.rows.get(index)).map_or(0, |entry| entry.line)
    }

    /// What is known of the row's records.
    pub fn records(&self, row: RowId) -> &[RecordState] {
        let index = row.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.rows.get(index)).map_or(&[], |entry| &entry.records)
    }

    /// A verdict that the row waited for will not come, and says nothing about it.
    pub fn release(&mut self, row: RowId) {
        if let Some(entry) = self.entry(row) {
            entry.waiting = entry.waiting.saturating_sub(1);
        }
    }

    fn entry(&mut self, row: RowId) -> Option<&mut Entry> {
        let index = row.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok())?;
        self.rows.get_mut(index)
    }

    /// The next row in file order, if it is accounted for.
    pub fn pop(&mut self) -> Option<Settled> {
        let ready = self.rows.front().is_some_and(|entry| entry.waiting == 0 && entry.outcome.is_some());
        let entry = if ready { self.rows.pop_front()? } else { return None };
        self.first += 1;
        self.bytes -= entry.cells.bytes();
        Some(Settled {
            line: entry.line,
            end: entry.end,
            cells: entry.cells,
            outcome: entry.outcome?,
            reason: entry.reason,
            records: entry.records,
            marks: entry.marks,
        })
    }

    /// Number of the first row that is not accounted for.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Rows held.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether all rows are accounted for.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of cells held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes;

    fn at(byte: u64) -> FilePosition {
        FilePosition { byte, line: byte }
    }

    #[test]
    fn rows_leave_in_file_order_whatever_order_they_settle_in() {
        let mut ledger = Ledger::default();
        let a = ledger.open(2, at(10), Cells::default(), 1, 1);
        let b = ledger.open(3, at(20), Cells::default(), 1, 1);
        ledger.settle(b, RowOutcome::Updated, None);
        assert!(ledger.pop().is_none());
        ledger.settle(a, RowOutcome::Created, None);
        assert_eq!(ledger.pop().unwrap().end, at(10));
        assert_eq!(ledger.pop().unwrap().end, at(20));
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_reject_of_one_record_makes_the_row_a_reject() {
        let mut ledger = Ledger::default();
        let row = ledger.open(2, at(10), Cells::default(), 2, 2);
        ledger.settle(row, RowOutcome::Created, None);
        assert!(ledger.pop().is_none());
        ledger.settle(row, RowOutcome::Rejected, Some(Reason::new(codes::INVALID_EMAIL, "column `Email`")));
        let settled = ledger.pop().unwrap();
        assert_eq!(settled.outcome, RowOutcome::Rejected);
        assert_eq!(&*settled.reason.unwrap().code, "INVALID_EMAIL");
    }
}
