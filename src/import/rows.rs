//! Rows of either kind of file: CSV records and JSON lines, with the same positions and the same faults.

use std::collections::HashMap;

use crate::{
    codes,
    csv::{
        Cells,
        dialect::Dialect,
        lines::{JsonLines, JsonRecord},
        records::{Record, RecordReader, Start},
        reject::{RejectColumns, reject_line},
    },
    record::{Reason, Reject},
};

/// One row, ready to be mapped.
pub(super) struct Row {
    pub(super) line: u64,
    /// Position after it.
    pub(super) after: Start,
    /// Its cells in the header's order.
    pub(super) cells: Cells,
    pub(super) fault: Option<Reason>,
}

/// Reads rows from bytes.
#[expect(clippy::large_enum_variant, reason = "there is one of them")]
pub(super) enum Reader {
    /// Text with columns.
    Csv(RecordReader),
    /// One JSON object a line.
    Json(JsonLines),
}

/// A row as the reader gives it, before the columns are known.
pub(super) enum Raw {
    Csv(Record, Start),
    Json(JsonRecord, Start),
}

impl Reader {
    pub(super) fn csv(dialect: &Dialect, start: Start) -> Self {
        Self::Csv(RecordReader::new(dialect, start))
    }

    pub(super) fn json(start: Start) -> Self {
        Self::Json(JsonLines::new(start))
    }

    /// Lines as they stand.
    pub(super) fn lines(start: Start) -> Self {
        Self::Json(JsonLines::unread(start))
    }

    pub(super) fn expect_columns(&mut self, columns: usize) {
        if let Self::Csv(reader) = self {
            reader.expect_columns(columns);
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Csv(reader) => reader.feed(bytes),
            Self::Json(reader) => reader.feed(bytes),
        }
    }

    pub(super) fn finish(&mut self) {
        match self {
            Self::Csv(reader) => reader.finish(),
            Self::Json(reader) => reader.finish(),
        }
    }

    pub(super) fn next(&mut self) -> Option<Raw> {
        match self {
            Self::Csv(reader) => reader.next().map(|record| Raw::Csv(record, reader.position())),
            Self::Json(reader) => reader.next().map(|record| Raw::Json(record, reader.position())),
        }
    }
}

/// The columns of a file, and how a row's cells are put in their order.
pub(super) struct Columns {
    /// Names of the file's own columns.
    pub(super) header: Vec<String>,
    /// CSV: the columns of a rejects file that was dropped back.
    rejects: Option<RejectColumns>,
    /// JSON lines: member to column.
    members: HashMap<String, usize>,
    json: bool,
}

impl Columns {
    /// Of a CSV file whose first line holds these cells.
    pub(super) fn csv(columns: &[String]) -> Self {
        let cells: Cells = columns.iter().collect();
        let rejects = RejectColumns::detect(&cells);
        let header = match &rejects {
            Some(rejects) => crate::csv::records::header_names(&rejects.strip(&cells)),
            None => columns.to_vec(),
        };
        Self { header, rejects, members: HashMap::new(), json: false }
    }

    /// Of a file of JSON lines with these members.
    pub(super) fn json(columns: &[String]) -> Self {
        let members = columns.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        Self { header: columns.to_vec(), rejects: None, members, json: true }
    }

    /// The row's cells in the header's order.
    pub(super) fn row(&self, raw: Raw) -> Row {
        match raw {
            Raw::Csv(record, after) => {
                let cells = match &self.rejects {
                    Some(rejects) => rejects.strip(&record.cells),
                    None => record.cells,
                };
                Row { line: record.line, after, cells, fault: record.fault }
            }
            Raw::Json(record, after) => {
                let mut ordered = vec![""; self.header.len()];
                let mut unknown = None;
                for (name, value) in &record.fields {
                    match self.members.get(name).and_then(|index| ordered.get_mut(*index)) {
                        Some(cell) => *cell = value,
                        None if REJECT_MEMBERS.contains(&name.as_str()) => {}
                        None => unknown = unknown.or(Some(name)),
                    }
                }
                let fault = record.fault.or_else(|| {
                    unknown.map(|name| {
                        Reason::with_hint(
                            codes::INVALID_JSON,
                            format!("the member `{}` appears for the first time here", name.chars().take(100).collect::<String>()),
                            "Name the member under `columns` in hubferry.yaml, or let it appear in the file's first 2,000 lines too.",
                        )
                    })
                });
                let cells = if record.raw.is_empty() {
                    ordered.into_iter().collect()
                } else {
                    // One cell more than there are columns: the line as it was.
                    std::iter::once(record.raw.as_str()).chain(ordered).collect()
                };
                Row { line: record.line, after, cells, fault }
            }
        }
    }

    /// The rejects file's text for a row.
    pub(super) fn reject(&self, reject: &Reject) -> Vec<u8> {
        if !self.json {
            return reject_line(reject, &self.header);
        }
        let mut object = serde_json::Map::new();
        if reject.cells.len() > self.header.len() {
            let raw = reject.cells.get(0).unwrap_or_default();
            match serde_json::from_str(raw) {
                Ok(serde_json::Value::Object(original)) => object = original,
                _ => {
                    object.insert("_raw".to_owned(), raw.into());
                }
            }
        } else {
            for (name, cell) in self.header.iter().zip(reject.cells.iter()) {
                if !cell.is_empty() {
                    object.insert(name.clone(), cell.into());
                }
            }
        }
        object.insert("_line".to_owned(), reject.line.into());
        object.insert("_code".to_owned(), (*reject.reason.code).into());
        object.insert("_reason".to_owned(), reject.reason.reason.clone().into());
        object.insert("_hint".to_owned(), reject.reason.hint.clone().into());
        let mut line = serde_json::Value::Object(object).to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// What the rejects file begins with.
    pub(super) fn rejects_head(&self) -> Vec<u8> {
        if self.json { Vec::new() } else { crate::csv::reject::header_line(&self.header) }
    }

    /// Ending and media type of the rejects file.
    pub(super) fn rejects_kind(&self) -> (&'static str, &'static str) {
        if self.json { ("jsonl", "application/x-ndjson") } else { ("csv", "text/csv; charset=utf-8") }
    }
}

/// What the rejects file adds to a line; ignored when it is dropped back.
pub(super) const REJECT_MEMBERS: [&str; 5] = ["_line", "_code", "_reason", "_hint", "_raw"];
