//! How a file is written, told from its beginning; or what it is, if it is no text with columns.
//!
//! What is detected is kept in the run's state, so that a run that continues reads the same way, and is shown in the
//! report, so that a wrong guess can be seen and set right.

use serde::{Deserialize, Serialize};

use super::{
    Cells,
    records::{RecordReader, Start},
    reject::RejectColumns,
    windows_1252,
};
use crate::{
    Error, Result, codes,
    config::{CsvSettings, Encoding},
};

/// Columns a file may have: HubSpot's own import takes no more.
pub const COLUMNS_MAX: usize = 1_000;

/// Records of the sample that are looked at: enough to tell a delimiter from a comma in the text.
const SAMPLE_RECORDS_MAX: usize = 200;

/// Bytes that are looked at to tell the encoding and other kinds of file.
const SAMPLE_BYTES_MAX: usize = 256 * 1024;

/// Delimiters that are looked for, the likelier first.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// Control characters from which on, being also more than one byte in `CONTROL_SHARE`, a sample is no text; fewer are
/// single damaged cells.
const CONTROL_MIN: usize = 16;
const CONTROL_SHARE: usize = 20;

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialect {
    /// The text's encoding.
    pub encoding: Encoding,
    /// Whether the file begins with a byte order mark.
    #[serde(default)]
    pub bom: bool,
    /// Stands between cells; ASCII.
    pub delimiter: char,
    /// Stands around cells that hold a delimiter or a line end; ASCII.
    pub quote: char,
    /// Whether the first record names the columns.
    pub header: bool,
    /// Whether this is one of our own reject files, dropped back: see [`RejectColumns`].
    #[serde(default)]
    pub rejects: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { encoding: Encoding::Utf8, bom: false, delimiter: ',', quote: '"', header: true, rejects: false }
    }
}

/// What the caller knows about the file's columns.
pub struct Hints<'a> {
    /// Whether a trimmed cell is the name of a configured column, or the name or label of a property.
    pub is_known: &'a dyn Fn(&str) -> bool,
}

/// Tells from `sample`, the beginning of the decompressed file (64 KiB do well), how the file is written.
/// `whole_file` says that nothing follows the sample. `settings` win over what would be detected, with two exceptions
/// that leave no doubt: a byte order mark, and a file that is recognised as one of ours, see [`RejectColumns`].
///
/// # Errors
///
/// `SOURCE_NOT_TABULAR` for another kind of file, named in the message; `TOO_MANY_COLUMNS`; `CONFIG_INVALID` for a
/// delimiter or quote that is not an ASCII character.
pub fn detect(sample: &[u8], whole_file: bool, settings: &CsvSettings, hints: &Hints<'_>) -> Result<Dialect> {
    for (name, character) in [("delimiter", settings.delimiter), ("quote", settings.quote)] {
        if character.is_some_and(|character| !character.is_ascii() || matches!(character, '\n' | '\r')) {
            return Err(Error::invalid(codes::CONFIG_INVALID, format!("csv.{name} must be one ASCII character")));
        }
    }
    let whole_file = whole_file && sample.len() <= SAMPLE_BYTES_MAX;
    let sample = sample.get(..SAMPLE_BYTES_MAX).unwrap_or(sample);
    if let Some(kind) = kind_of_binary(sample) {
        return Err(not_tabular(kind));
    }
    let (encoding, bom) = detect_encoding(sample, settings.encoding);
    if matches!(encoding, Encoding::Utf8 | Encoding::Windows1252) {
        let controls = sample.iter().filter(|byte| **byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')).count();
        if controls >= CONTROL_MIN && controls * CONTROL_SHARE > sample.len() {
            return Err(not_tabular("binary data, not text"));
        }
    }
    let base = Dialect { encoding, bom, ..Dialect::default() };
    if let Some(kind) = kind_of_document(&beginning(sample, encoding)) {
        return Err(not_tabular(kind));
    }
    let looks: Vec<Look> =
        DELIMITERS.iter().map(|&delimiter| look(sample, whole_file, Dialect { delimiter, ..base.clone() })).collect();
    let ours = looks.iter().find_map(|look| Some((look, RejectColumns::detect(&look.first)?)));
    if let Some((look, columns)) = ours {
        let dialect = Dialect { header: true, rejects: columns.are_rejects(), ..look.dialect.clone() };
        return within_columns_max(dialect, look.first.len());
    }
    let looks = match settings.delimiter {
        Some(delimiter) => vec![look(sample, whole_file, Dialect { delimiter, ..base })],
        None => looks,
    };
    let mut best = best_of(looks);
    let quote = settings.quote.unwrap_or_else(|| detect_quote(sample, &best));
    if quote != best.dialect.quote {
        let candidates: Vec<char> = settings.delimiter.map_or(DELIMITERS.to_vec(), |delimiter| vec![delimiter]);
        best = best_of(
            candidates
                .into_iter()
                .map(|delimiter| look(sample, whole_file, Dialect { delimiter, quote, ..best.dialect.clone() }))
                .collect(),
        );
    }
    let header = settings.header.unwrap_or_else(|| detect_header(&best.first, hints));
    within_columns_max(Dialect { header, ..best.dialect }, best.first.len())
}

fn within_columns_max(dialect: Dialect, columns: usize) -> Result<Dialect> {
    if columns > COLUMNS_MAX {
        return Err(Error::invalid(
            codes::TOO_MANY_COLUMNS,
            format!("the file has {columns} columns; at most {COLUMNS_MAX} are read"),
        ));
    }
    Ok(dialect)
}

fn not_tabular(kind: &str) -> Error {
    let error = Error::invalid(codes::SOURCE_NOT_TABULAR, format!("the file is {kind}"));
    if kind.contains("workbook") || kind.contains("spreadsheet") {
        error.with_hint("Open it and save the sheet as CSV UTF-8, then upload that.")
    } else if kind == JSON_LINES {
        error.with_hint("Set format: jsonl for this import, one flat JSON object a line.")
    } else {
        error
    }
}

/// What the sample is under one dialect.
struct Look {
    dialect: Dialect,
    first: Cells,
    /// Twentieths of the records that have as many cells as the first one.
    agreeing: usize,
}

fn look(sample: &[u8], whole_file: bool, dialect: Dialect) -> Look {
    let mut reader = RecordReader::new(&dialect, Start::default());
    reader.feed(sample);
    if whole_file {
        reader.finish();
    }
    let mut first = reader.next();
    if first.is_none() {
        // Not one line end in the sample: judge by what there is.
        reader.finish();
        first = reader.next();
    }
    let first = first.map(|record| record.cells).unwrap_or_default();
    let (mut records, mut agreeing) = (1, 1);
    while records < SAMPLE_RECORDS_MAX
        && let Some(record) = reader.next()
    {
        records += 1;
        agreeing += usize::from(record.fault.is_none() && record.cells.len() == first.len());
    }
    Look { dialect, agreeing: agreeing * 20 / records, first }
}

/// The delimiter under which the records agree best; of several, the one that makes more cells, then the likelier.
fn best_of(looks: Vec<Look>) -> Look {
    let score = |look: &Look| match look.first.len() {
        // A delimiter that the first record lacks is none; with none at all, the file has one column.
        0 | 1 => (0, 0),
        cells => (look.agreeing, cells),
    };
    let mut looks = looks.into_iter();
    let first = looks.next().unwrap_or_else(|| look(&[], true, Dialect::default()));
    looks.fold(first, |best, look| if score(&look) > score(&best) { look } else { best })
}

/// `'` only where no `"` is to be seen and every cell that starts with `'` also ends with it.
fn detect_quote(sample: &[u8], best: &Look) -> char {
    if memchr::memchr(b'"', sample).is_some() {
        return '"';
    }
    let mut reader = RecordReader::new(&best.dialect, Start::default());
    reader.feed(sample);
    let (mut opened, mut closed) = (0, 0);
    // A quoted delimiter cuts a cell in two, of which one only opens and the other only closes.
    let mut records = 0;
    while records < SAMPLE_RECORDS_MAX
        && let Some(record) = reader.next()
    {
        records += 1;
        for cell in record.cells.iter() {
            opened += usize::from(cell.starts_with('\''));
            closed += usize::from(cell.len() > 1 && cell.ends_with('\''));
        }
    }
    if opened >= 2 && opened == closed { '\'' } else { '"' }
}

fn detect_header(first: &Cells, hints: &Hints<'_>) -> bool {
    let mut cells: Vec<&str> = first.iter().map(str::trim).collect();
    if cells.iter().any(|cell| (hints.is_known)(cell)) {
        return true;
    }
    // A delimiter at the end of each line makes an unnamed last column.
    while cells.last().is_some_and(|cell| cell.is_empty()) {
        cells.pop();
    }
    !cells.iter().any(|cell| looks_like_data(cell))
}

fn looks_like_data(cell: &str) -> bool {
    let digits = cell.bytes().filter(u8::is_ascii_digit).count();
    let numeric = digits > 0 && cell.chars().all(|c| c.is_ascii_digit() || " .,:/+-()%$€£TZ".contains(c));
    cell.is_empty() || cell.contains('@') || numeric
}

/// The encoding, and whether a byte order mark says so.
fn detect_encoding(sample: &[u8], set: Option<Encoding>) -> (Encoding, bool) {
    match sample {
        [0xef, 0xbb, 0xbf, ..] => return (Encoding::Utf8, true),
        [0xff, 0xfe, ..] => return (Encoding::Utf16Le, true),
        [0xfe, 0xff, ..] => return (Encoding::Utf16Be, true),
        _ => {}
    }
    if let Some(encoding) = set {
        return (encoding, false);
    }
    // The high bytes of Western text are NUL, the low bytes are not.
    let units = sample.len() / 2;
    let nuls = |offset: usize| sample.chunks_exact(2).filter(|pair| pair.get(offset) == Some(&0)).count();
    let (first, second) = (nuls(0), nuls(1));
    if units >= 2 && second * 5 >= units * 2 && first * 20 <= units {
        return (Encoding::Utf16Le, false);
    }
    if units >= 2 && first * 5 >= units * 2 && second * 20 <= units {
        return (Encoding::Utf16Be, false);
    }
    match std::str::from_utf8(sample) {
        Ok(_) => (Encoding::Utf8, false),
        // Cut within a character at the sample's end.
        Err(error) if error.error_len().is_none() => (Encoding::Utf8, false),
        // Mostly UTF-8 with a damaged spot is not Windows-1252: a text of that would be invalid at its first accent.
        Err(_) if mostly_utf8(sample) => (Encoding::Utf8, false),
        Err(_) => (Encoding::Windows1252, false),
    }
}

/// Whether characters of several bytes are at least ten times as many as places where UTF-8 is broken.
fn mostly_utf8(sample: &[u8]) -> bool {
    let (mut valid, mut broken) = (0, 0);
    for chunk in sample.utf8_chunks() {
        valid += chunk.valid().chars().filter(|character| !character.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    valid >= broken * 10
}

/// The first characters of the text, to recognise documents by.
fn beginning(sample: &[u8], encoding: Encoding) -> String {
    // Enough for a document's first tag.
    const BYTES: usize = 512;
    let bytes = sample.get(..BYTES).unwrap_or(sample);
    let units = |unit: fn([u8; 2]) -> u16| {
        let (pairs, _) = bytes.as_chunks::<2>();
        let units = pairs.iter().map(|pair| unit(*pair));
        char::decode_utf16(units).map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>()
    };
    let text = match encoding {
        Encoding::Utf8 => String::from_utf8_lossy(bytes),
        Encoding::Windows1252 => windows_1252::decode(bytes),
        Encoding::Utf16Le => units(u16::from_le_bytes).into(),
        Encoding::Utf16Be => units(u16::from_be_bytes).into(),
    };
    text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase()
}

const JSON_LINES: &str = "JSON, where CSV is expected";

fn kind_of_document(text: &str) -> Option<&'static str> {
    let starts = |any: &[&str]| any.iter().any(|start| text.starts_with(start));
    if starts(&["<!doctype html", "<html", "<head", "<body"]) {
        return Some("an HTML page");
    }
    if starts(&["<?xml", "<!doctype", "<svg", "<error>", "<rss", "<soap"]) {
        return Some("an XML document");
    }
    if starts(&["{\\rtf"]) {
        return Some("an RTF document");
    }
    let after = |open: char| text.strip_prefix(open).map(str::trim_start);
    let object = after('{').is_some_and(|rest| rest.starts_with('"') || rest.starts_with('}'));
    let list = after('[').is_some_and(|rest| rest.starts_with(['{', '[', '"', ']']));
    (object || list).then_some(JSON_LINES)
}

/// Kinds of file that have a signature.
const SIGNATURES: &[(&[u8], &str)] = &[
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office file (.xls workbook or the like)"),
    (b"PAR1", "a Parquet file"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC\x00", "an ORC file"),
    (b"ARROW1\x00", "an Arrow file"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"\x7fELF", "a program (ELF)"),
    (b"\xfd7zXZ\x00", "compressed by xz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b\x08", "compressed twice (gzip within the compression)"),
    (b"\x28\xb5\x2f\xfd", "compressed twice (zstd within the compression)"),
];

fn kind_of_binary(sample: &[u8]) -> Option<&'static str> {
    let holds = |needle: &[u8]| memchr::memmem::find(sample, needle).is_some();
    if sample.starts_with(b"PK\x03\x04") || sample.starts_with(b"PK\x05\x06") {
        return Some(if holds(b"xl/") || holds(b"application/vnd.openxmlformats-officedocument.spreadsheetml") {
            "an Excel workbook (.xlsx)"
        } else if holds(b"application/vnd.oasis.opendocument.spreadsheet") {
            "an OpenDocument spreadsheet (.ods)"
        } else {
            "a zip archive"
        });
    }
    if sample.starts_with(b"BZh") && sample.get(4..10) == Some(b"\x31\x41\x59\x26\x53\x59") {
        return Some("compressed by bzip2");
    }
    // A tar's first block ends at 512 and says so at 257.
    const TAR_MAGIC: std::ops::Range<usize> = 257..262;
    if sample.get(TAR_MAGIC) == Some(b"ustar") {
        return Some("a tar archive");
    }
    SIGNATURES.iter().find(|(magic, _)| sample.starts_with(magic)).map(|(_, kind)| *kind)
}

#[cfg(test)]
#[path = "dialect_tests.rs"]
mod tests;
