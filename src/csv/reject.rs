//! The file of rows that were not delivered: written so that it can be fixed in a spreadsheet and dropped back.
//!
//! Layout: the original columns in their order, then `_line`, `_code`, `_reason`, `_hint`; UTF-8, commas, `\n`,
//! quotes only where needed. A row shorter than the header is filled with empty cells. A row longer than the header
//! has its surplus cells after `_hint`: nothing is lost, they show to the right in a spreadsheet, and dropped back as
//! it is the row is still too long, so it is rejected again rather than imported shifted.
//!
//! A cell that a spreadsheet would run as a formula gets a `'` in front. Only files that [`RejectColumns`] recognises
//! are read with that `'` taken off again, so a `'` of the user's own survives any number of rounds. The CSV files of a capture are
//! guarded in the same way and recognised by their columns too.

use super::Cells;
use crate::record::Reject;

/// The columns that are added, in their order.
pub const REJECT_COLUMNS: [&str; 4] = ["_line", "_code", "_reason", "_hint"];

/// The columns with which the rows of a capture begin, in their order.
pub const CAPTURE_LEADING: [&str; 8] =
    ["_operation", "_id", "_created_at", "_updated_at", "_archived", "_read_at", "_change", "_merged_into"];

/// The columns with which they end.
pub const CAPTURE_TRAILING: [&str; 2] = ["_associations", "_more"];

/// Put before a cell that a spreadsheet would run.
const GUARD: char = '\'';

/// The first line of a reject file, with its line end. `columns` are the original ones; none may be ours, see
/// [`RejectColumns::strip`].
pub fn header_line(columns: &[String]) -> Vec<u8> {
    let mut line = Line::default();
    for name in columns {
        line.original(name);
    }
    for name in REJECT_COLUMNS {
        line.plain(name);
    }
    line.end()
}

/// One row of a reject file, with its line end. `columns` as for [`header_line`].
pub fn reject_line(reject: &Reject, columns: &[String]) -> Vec<u8> {
    let mut line = Line::default();
    for index in 0..columns.len() {
        line.original(reject.cells.get(index).unwrap_or_default());
    }
    line.plain(&reject.line.to_string());
    line.plain(&reject.reason.code);
    // Reasons may hold HubSpot's words, which may quote the cell: these are never read back, only made harmless.
    line.original(&reject.reason.reason);
    line.original(&reject.reason.hint);
    for surplus in reject.cells.iter().skip(columns.len()) {
        line.original(surplus);
    }
    line.end()
}

/// One line of text with columns, being written. A capture writes its own with it.
#[derive(Default)]
pub(crate) struct Line {
    bytes: Vec<u8>,
    begun: bool,
}

impl Line {
    /// A line after others.
    pub(crate) fn after(lines: Vec<u8>) -> Self {
        Self { bytes: lines, begun: false }
    }

    /// A cell that comes from outside.
    pub(crate) fn original(&mut self, cell: &str) {
        if needs_guard(cell) {
            let mut guarded = String::with_capacity(cell.len() + GUARD.len_utf8());
            guarded.push(GUARD);
            guarded.push_str(cell);
            self.plain(&guarded);
        } else {
            self.plain(cell);
        }
    }

    /// A cell of ours, which no spreadsheet runs.
    pub(crate) fn plain(&mut self, cell: &str) {
        // A file must not begin with what looks like a byte order mark.
        let first = !self.begun;
        if self.begun {
            self.bytes.push(b',');
        }
        self.begun = true;
        if cell.contains(['"', ',', '\n', '\r']) || first && cell.starts_with('\u{feff}') {
            self.bytes.push(b'"');
            self.bytes.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
            self.bytes.push(b'"');
        } else {
            self.bytes.extend_from_slice(cell.as_bytes());
        }
    }

    /// The lines before, and this one with its line end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.push(b'\n');
        self.bytes
    }
}

/// Whether a `'` is written before the cell: it would run, or it has the look of a cell that was guarded.
fn needs_guard(cell: &str) -> bool {
    let unguarded = cell.trim_start_matches(GUARD);
    starts_formula(unguarded) && (unguarded.len() < cell.len() || !is_number(unguarded))
}

fn starts_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n'])
}

/// A signed number, or a telephone number without spaces: a spreadsheet takes it for a value.
fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix(['+', '-']).unwrap_or(cell);
    !digits.is_empty()
        && digits.split(['.', ',']).all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The cell as it was before it was written to a reject file.
fn unguard(cell: &str) -> &str {
    match cell.strip_prefix(GUARD) {
        Some(rest) if starts_formula(rest.trim_start_matches(GUARD)) => rest,
        _ => cell,
    }
}

/// Recognises a file of ours that was dropped back, a reject file or a capture's, and gives its rows as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectColumns {
    /// Index of `_line`; the other three follow it. Of a capture's file: the number of its columns.
    first: usize,
    /// How many columns are taken away: the four; none of a capture's file, where they are data.
    count: usize,
    /// Cells of the header, blank ones at its end included.
    header: usize,
}

impl RejectColumns {
    /// Whether this is the header of a reject file, which ends with our four columns, or of a capture's, which begins and ends
    /// with its own. Blank cells after them are what a spreadsheet makes of surplus cells.
    pub fn detect(header: &Cells) -> Option<Self> {
        let mut named = header.len();
        while named > 0 && header.get(named - 1).is_some_and(|cell| cell.trim().is_empty()) {
            named -= 1;
        }
        let stand_at = |first: usize, names: &[&str]| {
            names.iter().enumerate().all(|(at, name)| header.get(first + at).is_some_and(|cell| cell.trim() == *name))
        };
        if let Some(first) = named.checked_sub(REJECT_COLUMNS.len())
            && stand_at(first, &REJECT_COLUMNS)
        {
            return Some(Self { first, count: REJECT_COLUMNS.len(), header: header.len() });
        }
        let last = named.checked_sub(CAPTURE_TRAILING.len())?;
        let capture =
            last >= CAPTURE_LEADING.len() && stand_at(0, &CAPTURE_LEADING) && stand_at(last, &CAPTURE_TRAILING);
        capture.then_some(Self { first: named, count: 0, header: header.len() })
    }

    /// Whether rows that were rejected are in the file.
    pub fn are_rejects(&self) -> bool {
        self.count > 0
    }

    /// The indices of the columns that are not data.
    pub fn indices(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }

    /// How many columns the original file had.
    pub fn original_columns(&self) -> usize {
        self.first
    }

    /// A row, or the header, without our columns and with each cell as it was. Surplus cells follow the original ones,
    /// unless all of them are blank.
    pub fn strip(&self, cells: &Cells) -> Cells {
        let mut original = Cells::with_capacity(cells.bytes(), self.first);
        for (index, cell) in cells.iter().enumerate() {
            if !self.indices().contains(&index) {
                original.push(unguard(cell));
            }
        }
        // Only blank cells that the header has too, which a spreadsheet added, are taken away.
        let added = self.header.saturating_sub(self.indices().end);
        if added > 0 && original.iter().skip(self.first).all(str::is_empty) {
            original.truncate(self.first);
        }
        original
    }
}

#[cfg(test)]
#[path = "reject_tests.rs"]
mod tests;
