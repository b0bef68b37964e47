//! Bytes in, rows out. Nothing here does I/O: bytes are fed, rows are taken, positions are exact.
//!
//! The modules stand in the order in which a file passes through them:
//!
//! | module | what it does |
//! |---|---|
//! | [`compression`] | recognises gzip and zstd by content and inflates them in bounded steps |
//! | [`dialect`] | says from a sample how the file is written, or what it is if it is no table |
//! | [`records`] | cuts CSV text into records, with exact lines and offsets; bad rows are faults, the rest goes on |
//! | [`lines`] | the same contract for JSON lines |
//! | [`reject`] | writes rows that were not delivered, and recognises such a file when it comes back |
//!
//! Offsets everywhere count bytes of the decompressed file before any transcoding, so that a run that continues
//! can inflate up to its position and go on there.

pub mod compression;
pub mod dialect;
pub mod lines;
pub mod records;
pub mod reject;
mod windows_1252;

pub use dialect::{COLUMNS_MAX, Dialect, Hints, detect};
pub use lines::{JsonLines, JsonRecord};
pub use records::{ROW_BYTES_MAX, Record, RecordReader, Start};
pub use reject::{RejectColumns, header_line, reject_line};

/// The cells of one row, decoded to UTF-8, in one allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cells {
    text: String,
    ends: Vec<u32>,
}

impl Cells {
    /// No cells yet, with room for `cells` of `bytes` in all.
    pub fn with_capacity(bytes: usize, cells: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(cells) }
    }

    /// Appends a cell.
    pub fn push(&mut self, cell: &str) {
        self.text.push_str(cell);
        self.ends.push(u32::try_from(self.text.len()).expect("a row is bounded to about 1 MB"));
    }

    /// Drops the cells from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.text.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The cell at `index`, counted from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Some(&self.text[start..end])
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// Bytes of text.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl<T: AsRef<str>> FromIterator<T> for Cells {
    fn from_iter<I: IntoIterator<Item = T>>(cells: I) -> Self {
        let mut row = Self::default();
        for cell in cells {
            row.push(cell.as_ref());
        }
        row
    }
}
