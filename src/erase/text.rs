//! Objects of lines: read record by record in constant memory, and written again without some of them.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzEncoder;

use super::person::{Facts, facts_of_json};
use crate::{
    codes,
    config::Compression,
    csv::compression::{Decompressor, detect},
    error::{Error, ErrorKind, Result},
    objects::{Location, ObjectVersion, Objects, Upload},
};

/// Read at a time.
const RANGE_BYTES: u64 = 8 * 1024 * 1024;
/// Inflated at a time.
const STEP_BYTES: usize = 256 * 1024;
/// A longer record is none that hubferry wrote: a captured one may be as large as an answer of HubSpot's.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// As captures do it.
const ZSTD_LEVEL: i32 = 3;

/// How the records of an object are told apart, and what each of them tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON object a line.
    Json,
    /// Rows, the first of which names the columns.
    Csv,
    /// Rows without names, or JSON lines: a piece of a rejects file.
    Piece,
}

impl Shape {
    /// By the name of an object: `….csv.gz`, `….jsonl`. `None` for what is no text.
    pub(super) fn of(key: &str) -> Option<Self> {
        let name = key.strip_suffix(".gz").or_else(|| key.strip_suffix(".zst")).unwrap_or(key);
        if name.ends_with(".csv") {
            Some(Self::Csv)
        } else if name.ends_with(".jsonl") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

fn media_type(key: &str) -> &'static str {
    match key.rsplit('.').next() {
        Some("gz") => "application/gzip",
        Some("zst") => "application/zstd",
        Some("csv") => "text/csv; charset=utf-8",
        Some("jsonl") => "application/x-ndjson",
        _ => "application/octet-stream",
    }
}

/// A record of an object.
pub(super) struct Record<'a> {
    /// As it stands, with its end.
    pub(super) text: &'a str,
    columns: Option<Columns>,
}

impl Record<'_> {
    /// What its place in the format tells. Read when it is asked for: most records need not be.
    pub(super) fn facts(&self) -> Facts {
        match self.columns {
            Some(columns) => columns.facts(self.text),
            None => facts_of_json(self.text),
        }
    }
}

/// How many records there were, and how many of them were not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) dropped: u64,
    /// Bytes that were written.
    pub(super) bytes: u64,
}

/// Reads an object and asks `keep` about each record. With `write`, the object is replaced by one of the records that are kept.
///
/// # Errors
/// It changes meanwhile, is damaged, or is not text of this shape; those of the objects' door. Nothing is replaced then.
pub(super) async fn filter(
    objects: &dyn Objects,
    object: &ObjectVersion,
    shape: Shape,
    write: bool,
    mut keep: impl FnMut(&Record<'_>) -> bool,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut reading: Option<(Decompressor, Splitter)> = None;
    let mut out: Option<(Out, Box<dyn Upload>)> = None;
    let mut columns: Option<Columns> = None;
    let mut start = 0;
    while start < object.size {
        let end = start.saturating_add(RANGE_BYTES).min(object.size);
        let bytes = objects.read(object, start..end).await?;
        if bytes.is_empty() {
            return Err(damaged(&object.location, "it is shorter than it said"));
        }
        start = start.saturating_add(bytes.len() as u64);
        if reading.is_none() {
            let compression = detect(&bytes);
            reading = Some((Decompressor::new(compression)?, Splitter::new(shape)));
            if write {
                let upload = objects.upload(&object.location, media_type(&object.location.key)).await?;
                out = Some((Out::new(compression)?, upload));
            }
        }
        let Some((decompressor, splitter)) = &mut reading else { continue };
        let mut input: &[u8] = &bytes;
        loop {
            splitter.compact();
            let before = splitter.buffer.len();
            decompressor
                .step(&mut input, &mut splitter.buffer, STEP_BYTES)
                .map_err(|error| damaged(&object.location, error.message()))?;
            let full = splitter.buffer.len() - before >= STEP_BYTES;
            while let Some(record) = splitter.next(false) {
                let kept = judge(record, shape, &mut columns, &mut tally, &mut keep);
                if kept && let Some((out, _)) = &mut out {
                    out.push(record)?;
                }
            }
            if splitter.buffer.len() > RECORD_BYTES_MAX {
                return Err(damaged(&object.location, "it has a record that is larger than any"));
            }
            if input.is_empty() && !full {
                break;
            }
        }
        if let Some((out, upload)) = &mut out {
            let written = out.take();
            tally.bytes += written.len() as u64;
            upload.write(&written).await?;
        }
    }
    if let Some((mut decompressor, mut splitter)) = reading {
        decompressor.finish().map_err(|error| damaged(&object.location, error.message()))?;
        while let Some(record) = splitter.next(true) {
            let kept = judge(record, shape, &mut columns, &mut tally, &mut keep);
            if kept && let Some((out, _)) = &mut out {
                out.push(record)?;
            }
        }
    }
    if let Some((out, mut upload)) = out {
        let rest = out.finish()?;
        tally.bytes += rest.len() as u64;
        upload.write(&rest).await?;
        upload.finish().await?;
    }
    Ok(tally)
}

fn judge(
    record: &[u8],
    shape: Shape,
    columns: &mut Option<Columns>,
    tally: &mut Tally,
    keep: &mut impl FnMut(&Record<'_>) -> bool,
) -> bool {
    let text = String::from_utf8_lossy(record);
    if text.trim().is_empty() {
        return true;
    }
    if shape == Shape::Csv && columns.is_none() {
        // The header is nobody's.
        *columns = Some(Columns::of(&text));
        return true;
    }
    tally.records += 1;
    let kept = keep(&Record { text: &text, columns: *columns });
    tally.dropped += u64::from(!kept);
    kept
}

/// Where a row has its id and its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Columns {
    id: Option<usize>,
    email: Option<usize>,
}

impl Columns {
    fn of(header: &str) -> Self {
        let names: Vec<String> = cells(header)
            .iter()
            .map(|name| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase())
            .collect();
        let at = |wanted: &[&str]| names.iter().position(|name| wanted.contains(&name.as_str()));
        // A captured row's own id is `_id`; of a file, only a column that surely holds HubSpot's ids.
        let captured = cells(header).iter().position(|name| name == "_id");
        Self {
            id: captured.or_else(|| at(&["recordid", "hsobjectid", "contactid"])),
            email: at(&["email", "emailaddress"]),
        }
    }

    fn facts(self, row: &str) -> Facts {
        let cells = cells(row);
        let cell = |at: Option<usize>| {
            at.and_then(|at| cells.get(at)).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty())
        };
        Facts { id: cell(self.id), email: cell(self.email), ..Facts::default() }
    }
}

/// The cells of a row that hubferry wrote: commas, and quotes where needed.
fn cells(row: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = row.trim_end_matches(['\n', '\r']).chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

/// Tells records apart in bytes that come in pieces.
struct Splitter {
    shape: Shape,
    buffer: Vec<u8>,
    /// Where the next record begins.
    start: usize,
    /// Looked at so far, and whether that ends within quotes.
    at: usize,
    quoted: bool,
}

impl Splitter {
    fn new(shape: Shape) -> Self {
        Self { shape, buffer: Vec::new(), start: 0, at: 0, quoted: false }
    }

    /// Lets go of the records that were taken.
    fn compact(&mut self) {
        self.buffer.drain(..self.start);
        self.at -= self.start;
        self.start = 0;
    }

    /// The next whole record with its line end; the rest, where `ended`.
    fn next(&mut self, ended: bool) -> Option<&[u8]> {
        // A line of JSON has no line break within quotes, and may have quotes that are escaped.
        let quotes = match self.shape {
            Shape::Csv => true,
            Shape::Json => false,
            Shape::Piece => self.buffer.get(self.start) != Some(&b'{'),
        };
        let mut end = None;
        for (index, byte) in self.buffer.iter().enumerate().skip(self.at) {
            match byte {
                b'"' if quotes => self.quoted = !self.quoted,
                b'\n' if !self.quoted => {
                    end = Some(index + 1);
                    break;
                }
                _ => {}
            }
        }
        self.at = end.unwrap_or(self.buffer.len());
        if end.is_none() && !(ended && self.start < self.buffer.len()) {
            return None;
        }
        self.quoted = false;
        let record = self.buffer.get(self.start..self.at);
        self.start = self.at;
        record
    }
}

/// Bytes on their way into an object, compressed as it was.
enum Out {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Out {
    fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(Vec::new()),
            Compression::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Compression::Zstd => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).and_then(|mut encoder| {
                    encoder.include_checksum(true)?;
                    Ok(encoder)
                });
                Self::Zstd(encoder.map_err(failed)?)
            }
        })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Plain(out) => {
                out.extend_from_slice(bytes);
                Ok(())
            }
            Self::Gzip(encoder) => encoder.write_all(bytes).map_err(failed),
            Self::Zstd(encoder) => encoder.write_all(bytes).map_err(failed),
        }
    }

    /// What is ready to be written.
    fn take(&mut self) -> Bytes {
        let ready = match self {
            Self::Plain(out) => out,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        std::mem::take(ready).into()
    }

    fn finish(self) -> Result<Bytes> {
        Ok(match self {
            Self::Plain(out) => out.into(),
            Self::Gzip(encoder) => encoder.finish().map_err(failed)?.into(),
            Self::Zstd(encoder) => encoder.finish().map_err(failed)?.into(),
        })
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Invalid, codes::OUTPUT_FAILED, "the object cannot be compressed again").with_source(error)
}

fn damaged(location: &Location, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, codes::SOURCE_DAMAGED, format!("{location} cannot be read: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::objects::memory::MemoryObjects;

    async fn run(key: &str, bytes: Vec<u8>, write: bool) -> (Result<Tally>, Vec<u8>) {
        let objects = MemoryObjects::versioned();
        let location = Location::new("b", key);
        objects.insert(&location, bytes);
        let object = objects.head(&location, None).await.unwrap();
        let shape = Shape::of(key).unwrap_or(Shape::Piece);
        let tally = filter(&objects, &object, shape, write, |record| !record.text.contains("gone")).await;
        (tally, objects.contents(&location).unwrap().to_vec())
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    const ROWS: &str = "email,note\na,\"two\nlines, \"\"gone\"\"\"\nb,stays\n\"gone\",x\nc,\"y\nz\"\n";
    const KEPT: &str = "email,note\nb,stays\nc,\"y\nz\"\n";

    #[tokio::test]
    async fn rows_are_dropped_whole_whatever_breaks_lie_within_them() {
        let (tally, left) = run("a.csv", ROWS.into(), true).await;
        assert_eq!(tally.unwrap(), Tally { records: 4, dropped: 2, bytes: KEPT.len() as u64 });
        assert_eq!(String::from_utf8(left).unwrap(), KEPT);
    }

    #[tokio::test]
    async fn an_object_stays_compressed_as_it_was() {
        let (_, left) = run("a.csv.gz", gzip(ROWS), true).await;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&left[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, KEPT);
        let zst = zstd::stream::encode_all(ROWS.as_bytes(), 3).unwrap();
        let (_, left) = run("a.csv.zst", zst, true).await;
        assert_eq!(zstd::stream::decode_all(&left[..]).unwrap(), KEPT.as_bytes());
    }

    #[tokio::test]
    async fn lines_of_json_end_at_each_break_and_the_last_may_have_none() {
        let lines = "{\"a\":\"quote \\\"\"}\n{\"b\":\"gone\"}\n\n{\"c\":1}";
        let (tally, left) = run("a.jsonl", lines.into(), true).await;
        assert_eq!(
            (tally.unwrap().records, String::from_utf8(left).unwrap()),
            (3, lines.replace("{\"b\":\"gone\"}\n", ""))
        );
    }

    #[tokio::test]
    async fn looking_changes_nothing_and_a_damaged_object_is_left_alone() {
        let (tally, left) = run("a.csv", ROWS.into(), false).await;
        assert_eq!((tally.unwrap().dropped, left), (2, ROWS.as_bytes().to_vec()));
        let cut = gzip(&ROWS.repeat(100))[..60].to_vec();
        let (tally, left) = run("a.csv.gz", cut.clone(), true).await;
        assert_eq!((tally.unwrap_err().code(), left), (codes::SOURCE_DAMAGED, cut));
    }

    #[tokio::test]
    async fn more_than_one_range_and_more_than_one_step_are_one_stream() {
        let mut rows = String::from("email,note\n");
        for number in 0..400_000 {
            let word = if number % 1_000 == 0 { "gone" } else { "stays" };
            rows.push_str(&format!("person{number}@example.com,{word}\n"));
        }
        assert!(rows.len() as u64 > RANGE_BYTES);
        let (tally, left) = run("a.csv", rows.clone().into_bytes(), true).await;
        let tally = tally.unwrap();
        assert_eq!((tally.records, tally.dropped, tally.bytes), (400_000, 400, left.len() as u64));
        let expected: String = rows.split_inclusive('\n').filter(|line| !line.contains("gone")).collect();
        assert!(left == expected.into_bytes());
    }

    #[test]
    fn a_row_tells_its_id_and_address_by_the_names_of_its_columns() {
        let columns = Columns::of("_operation,_id,\"E-mail\",x\n");
        assert_eq!(
            columns.facts("create,101,\"Ada@x.io\",\"a,\"\"b\"\"\"\n"),
            Facts { id: Some("101".into()), email: Some("Ada@x.io".into()), ..Facts::default() }
        );
        assert_eq!(Columns::of("id,Email\n"), Columns { id: None, email: Some(1) }, "an id of whom knows");
        assert_eq!(Columns::of("Record ID,Email\n").id, Some(0));
    }
}
