//! Rows as typed columns: Apache Parquet, written by ourselves.
//!
//! The files are plain ones that every reader takes: flat optional columns, one data page of version 1 in each column chunk, values
//! uncoded (PLAIN), nulls by definition levels, counts and bounds as statistics. Decision 14 says why there is no library behind it.
//!
//! Row groups are bounded, so memory does not grow with what is not compressed yet.

use std::{io::Write, rc::Rc};

use flate2::write::GzEncoder;
use serde_json::Value;

use super::{
    super::change::Change,
    ZSTD_LEVEL,
    columns::{Column, Columns, Kind},
    failed,
    flat::{Row, boolean, days, double, milliseconds, text},
    thrift::{Struct, write_struct, write_unsigned},
};
use crate::{Result, config::Compression};

/// A row group is closed when its values take this much: large enough for columns to be read at once, and a small share of a function's memory.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// What a row is taken to need beside its values, so that rows of nothing are bounded too.
const ROW_BYTES: usize = 64;

const MAGIC: &[u8; 4] = b"PAR1";

/// In the form that readers look for.
const CREATED_BY: &str = concat!("hubferry version ", env!("CARGO_PKG_VERSION"));

// Numbers of the format's definition (parquet.thrift).
const FORMAT_VERSION: i32 = 1;
const REPETITION_REQUIRED: i32 = 0;
const REPETITION_OPTIONAL: i32 = 1;
const ENCODING_PLAIN: i32 = 0;
const ENCODING_RLE: i32 = 3;
const PAGE_DATA: i32 = 0;

/// How values are stored, and what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Double,
    Boolean,
    Date,
    Milliseconds,
}

impl Type {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Number => Self::Double,
            Kind::Boolean => Self::Boolean,
            Kind::Date => Self::Date,
            Kind::DateTime => Self::Milliseconds,
        }
    }

    const fn physical(self) -> i32 {
        match self {
            Self::Boolean => 0,
            Self::Date => 1,
            Self::Milliseconds => 2,
            Self::Double => 5,
            Self::Text => 6,
        }
    }

    /// The older annotation, for readers that know no other.
    const fn converted(self) -> Option<i32> {
        match self {
            Self::Text => Some(0),
            Self::Date => Some(6),
            Self::Milliseconds => Some(9),
            Self::Double | Self::Boolean => None,
        }
    }

    fn write_logical(self, element: &mut Struct<'_>) {
        const LOGICAL: u8 = 10;
        match self {
            Self::Text => element.inner(LOGICAL, |union| union.inner(1, |_| {})),
            Self::Date => element.inner(LOGICAL, |union| union.inner(6, |_| {})),
            Self::Milliseconds => element.inner(LOGICAL, |union| {
                union.inner(8, |timestamp| {
                    timestamp.boolean(1, true); // in UTC
                    timestamp.inner(2, |unit| unit.inner(1, |_| {}));
                });
            }),
            Self::Double | Self::Boolean => {}
        }
    }
}

/// Writes one file.
pub(super) struct Writer {
    columns: Rc<Columns>,
    collection: String,
    codec: Codec,
    /// In the order of the file's columns.
    chunks: Vec<Chunk>,
    /// Rows of the open group.
    rows: usize,
    /// Bytes of the open group.
    open_bytes: usize,
    /// Bytes of the closed ones, before compression.
    closed_bytes: usize,
    groups: Vec<Group>,
    out: Vec<u8>,
}

/// A column of the open row group.
struct Chunk {
    kind: Type,
    present: Bits,
    values: Vec<u8>,
    /// Of booleans, in place of `values`.
    flags: Bits,
    nulls: i64,
    bounds: Option<Bounds>,
}

/// The least and the greatest value.
#[derive(Clone, Copy)]
enum Bounds {
    Whole(i64, i64),
    Double(f64, f64),
}

/// What the end of the file says about a row group.
struct Group {
    columns: Vec<Stored>,
    rows: i64,
    uncompressed: i64,
    compressed: i64,
    offset: i64,
}

/// What it says about a column in it.
struct Stored {
    offset: i64,
    values: i64,
    uncompressed: i64,
    compressed: i64,
    nulls: i64,
    bounds: Option<(Vec<u8>, Vec<u8>)>,
}

impl Writer {
    pub(super) fn new(columns: Rc<Columns>, collection: &str, compression: Compression) -> Result<Self> {
        let codec = Codec::new(compression)?;
        let chunks = types(&columns).map(Chunk::new).collect();
        Ok(Self {
            columns,
            collection: collection.to_owned(),
            codec,
            chunks,
            rows: 0,
            open_bytes: 0,
            closed_bytes: 0,
            groups: Vec::new(),
            out: MAGIC.to_vec(),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.closed_bytes + self.open_bytes
    }

    /// Appends a row. A value that its column cannot hold is null there, and in `_more` as it was. The one exception is a fraction of more digits than a
    /// double has: the column holds the nearest double, which is what a reader of doubles expects, and `_more` the digits.
    pub(super) fn push(&mut self, change: &Change) -> Result<()> {
        let columns = Rc::clone(&self.columns);
        let row = Row::new(&columns, change);
        let associations = row.associations().map(serde_json::to_string).transpose().map_err(failed)?;
        let more = row.more(|column, value| !holds(column, value));
        let more = more.as_ref().map(serde_json::to_string).transpose().map_err(failed)?;
        let created_at = change.created_at.map(|at| at.as_millisecond());
        let updated_at = change.updated_at.map(|at| at.as_millisecond());

        let mut chunks = self.chunks.iter_mut();
        let mut bytes = ROW_BYTES;
        let mut next = |value: Option<Cell<'_>>| -> Result<()> {
            if let Some(chunk) = chunks.next() {
                bytes += chunk.push(value)?;
            }
            Ok(())
        };
        // As in `columns::LEADING`.
        next(Some(Cell::Text(change.operation.as_str())))?;
        next(Some(Cell::Text(&change.id)))?;
        next(created_at.map(Cell::Milliseconds))?;
        next(updated_at.map(Cell::Milliseconds))?;
        next(Some(Cell::Boolean(row.archived())))?;
        next(Some(Cell::Milliseconds(change.read_at.as_millisecond())))?;
        next(row.cause().map(Cell::Text))?;
        next(row.merged_into().map(Cell::Text))?;
        for column in &columns.columns {
            let value = row.value(column);
            match column.kind {
                Kind::Text => match value {
                    Some(value) => next(Some(Cell::Text(&text(value))))?,
                    None => next(None)?,
                },
                kind => next(value.and_then(|value| cell(kind, value)))?,
            }
        }
        next(associations.as_deref().map(Cell::Text))?;
        next(more.as_deref().map(Cell::Text))?;

        self.rows += 1;
        self.open_bytes += bytes;
        if self.open_bytes >= ROW_GROUP_BYTES { self.close_group() } else { Ok(()) }
    }

    fn close_group(&mut self) -> Result<()> {
        let offset = signed(self.out.len())?;
        let (mut uncompressed, mut compressed) = (0, 0);
        let mut columns = Vec::with_capacity(self.chunks.len());
        for chunk in &mut self.chunks {
            let stored = chunk.store(self.rows, &mut self.codec, &mut self.out)?;
            uncompressed += stored.uncompressed;
            compressed += stored.compressed;
            columns.push(stored);
        }
        self.groups.push(Group { columns, rows: signed(self.rows)?, uncompressed, compressed, offset });
        self.closed_bytes += self.open_bytes;
        self.open_bytes = 0;
        self.rows = 0;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<bytes::Bytes> {
        if self.rows > 0 {
            self.close_group()?;
        }
        let begin = self.out.len();
        let mut out = std::mem::take(&mut self.out);
        write_struct(&mut out, |file| self.write_metadata(file));
        let length = u32::try_from(out.len() - begin).map_err(failed)?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(MAGIC);
        Ok(out.into())
    }

    /// `FileMetaData`.
    fn write_metadata(&self, file: &mut Struct<'_>) {
        let columns: Vec<(&str, Type)> = self.columns.names().zip(types(&self.columns)).collect();
        file.i32(1, FORMAT_VERSION);
        let schema = std::iter::once(None).chain(columns.iter().map(Some)).collect::<Vec<_>>();
        file.structs(2, schema.into_iter(), |element, column| match column {
            None => {
                element.i32(3, REPETITION_REQUIRED);
                element.binary(4, b"schema");
                element.i32(5, i32::try_from(columns.len()).unwrap_or(i32::MAX));
            }
            Some((name, kind)) => {
                element.i32(1, kind.physical());
                element.i32(3, REPETITION_OPTIONAL);
                element.binary(4, name.as_bytes());
                if let Some(converted) = kind.converted() {
                    element.i32(6, converted);
                }
                kind.write_logical(element);
            }
        });
        file.i64(3, self.groups.iter().map(|group| group.rows).sum());
        file.structs(4, self.groups.iter(), |row_group, group| {
            row_group.structs(1, columns.iter().zip(&group.columns), |chunk, ((name, kind), stored)| {
                chunk.i64(2, stored.offset);
                chunk.inner(3, |metadata| self.write_chunk(metadata, name, *kind, stored));
            });
            row_group.i64(2, group.uncompressed);
            row_group.i64(3, group.rows);
            row_group.i64(5, group.offset);
            row_group.i64(6, group.compressed);
        });
        let fingerprint = self.columns.fingerprint();
        let notes = [("hubferry.collection", self.collection.as_str()), ("hubferry.columns", fingerprint.as_str())];
        file.structs(5, notes.into_iter(), |note, (key, value)| {
            note.binary(1, key.as_bytes());
            note.binary(2, value.as_bytes());
        });
        file.binary(6, CREATED_BY.as_bytes());
        // Without the order of each column, readers leave the bounds alone.
        file.structs(7, columns.iter(), |order, _| order.inner(1, |_| {}));
    }

    /// `ColumnMetaData`.
    fn write_chunk(&self, metadata: &mut Struct<'_>, name: &str, kind: Type, stored: &Stored) {
        metadata.i32(1, kind.physical());
        metadata.i32s(2, &[ENCODING_PLAIN, ENCODING_RLE]);
        metadata.binaries(3, &[name.as_bytes()]);
        metadata.i32(4, self.codec.number());
        metadata.i64(5, stored.values);
        metadata.i64(6, stored.uncompressed);
        metadata.i64(7, stored.compressed);
        metadata.i64(9, stored.offset);
        metadata.inner(12, |statistics| {
            statistics.i64(3, stored.nulls);
            if let Some((least, greatest)) = &stored.bounds {
                statistics.binary(5, greatest);
                statistics.binary(6, least);
            }
        });
    }
}

/// The types of a file's columns, in their order.
fn types(columns: &Columns) -> impl Iterator<Item = Type> {
    use Type::{Boolean, Milliseconds, Text};
    // As in `columns::LEADING` and `columns::TRAILING`.
    let leading = [Text, Text, Milliseconds, Milliseconds, Boolean, Milliseconds, Text, Text];
    let trailing = [Text, Text];
    leading.into_iter().chain(columns.columns.iter().map(|column| Type::of(column.kind))).chain(trailing)
}

/// A value as it is stored.
enum Cell<'a> {
    Text(&'a str),
    Double(f64),
    Boolean(bool),
    Days(i32),
    Milliseconds(i64),
}

/// What a column that is not text holds of a value.
fn cell(kind: Kind, value: &Value) -> Option<Cell<'static>> {
    match kind {
        Kind::Text => None,
        // A whole number that no double equals is an identifier: the nearest one would be another's.
        Kind::Number => {
            double(value).filter(|double| double.exact || !double.whole).map(|double| Cell::Double(double.value))
        }
        Kind::Boolean => boolean(value).map(Cell::Boolean),
        Kind::Date => days(value).map(Cell::Days),
        Kind::DateTime => milliseconds(value).map(Cell::Milliseconds),
    }
}

/// Whether the column says everything about the value. Empty text is HubSpot's way to have none.
fn holds(column: &Column, value: &Value) -> bool {
    match column.kind {
        Kind::Text => true,
        _ if value.as_str() == Some("") => true,
        Kind::Number => double(value).is_some_and(|double| double.exact),
        kind => cell(kind, value).is_some(),
    }
}

impl Chunk {
    fn new(kind: Type) -> Self {
        Self { kind, present: Bits::default(), values: Vec::new(), flags: Bits::default(), nulls: 0, bounds: None }
    }

    /// Appends a value; about how many bytes it takes.
    fn push(&mut self, value: Option<Cell<'_>>) -> Result<usize> {
        self.present.push(value.is_some());
        let before = self.values.len();
        match value {
            None => self.nulls += 1,
            Some(Cell::Text(text)) => {
                let length = u32::try_from(text.len()).map_err(failed)?;
                self.values.extend_from_slice(&length.to_le_bytes());
                self.values.extend_from_slice(text.as_bytes());
            }
            Some(Cell::Double(number)) => {
                self.values.extend_from_slice(&number.to_le_bytes());
                self.bounds = Some(match self.bounds {
                    Some(Bounds::Double(least, greatest)) => Bounds::Double(least.min(number), greatest.max(number)),
                    _ => Bounds::Double(number, number),
                });
            }
            Some(Cell::Boolean(flag)) => self.flags.push(flag),
            Some(Cell::Days(days)) => {
                self.values.extend_from_slice(&days.to_le_bytes());
                self.extend_bounds(days.into());
            }
            Some(Cell::Milliseconds(milliseconds)) => {
                self.values.extend_from_slice(&milliseconds.to_le_bytes());
                self.extend_bounds(milliseconds);
            }
        }
        Ok(self.values.len() - before)
    }

    fn extend_bounds(&mut self, value: i64) {
        self.bounds = Some(match self.bounds {
            Some(Bounds::Whole(least, greatest)) => Bounds::Whole(least.min(value), greatest.max(value)),
            _ => Bounds::Whole(value, value),
        });
    }

    /// Writes the column's page, and makes the chunk empty.
    fn store(&mut self, rows: usize, codec: &mut Codec, out: &mut Vec<u8>) -> Result<Stored> {
        let mut page = Vec::with_capacity(4 + rows / 8 + self.values.len() + self.flags.bytes.len() + 16);
        let levels = self.present.levels();
        page.extend_from_slice(&u32::try_from(levels.len()).map_err(failed)?.to_le_bytes());
        page.extend_from_slice(&levels);
        page.extend_from_slice(&self.values);
        page.extend_from_slice(&self.flags.bytes);
        let compressed = codec.compress(&page)?;
        let body = compressed.as_deref().unwrap_or(&page);
        let (page_length, body_length) = (i32::try_from(page.len()), i32::try_from(body.len()));
        let (page_length, body_length) = (page_length.map_err(failed)?, body_length.map_err(failed)?);
        let count = i32::try_from(rows).map_err(failed)?;

        let offset = out.len();
        write_struct(out, |header| {
            header.i32(1, PAGE_DATA);
            header.i32(2, page_length);
            header.i32(3, body_length);
            header.inner(5, |data| {
                data.i32(1, count);
                data.i32(2, ENCODING_PLAIN);
                data.i32(3, ENCODING_RLE);
                data.i32(4, ENCODING_RLE);
            });
        });
        let header_length = out.len() - offset;
        out.extend_from_slice(body);
        let stored = Stored {
            offset: signed(offset)?,
            values: count.into(),
            uncompressed: signed(header_length + page.len())?,
            compressed: signed(header_length + body.len())?,
            nulls: self.nulls,
            bounds: self.bounds.map(|bounds| bounds.bytes(self.kind)),
        };
        *self = Self::new(self.kind);
        Ok(stored)
    }
}

impl Bounds {
    /// Least and greatest, stored like values.
    fn bytes(self, kind: Type) -> (Vec<u8>, Vec<u8>) {
        match self {
            // The two zeros are equal, so the bounds have to take in both.
            Self::Double(least, greatest) => {
                let least = if least == 0.0 { -0.0 } else { least };
                let greatest = if greatest == 0.0 { 0.0 } else { greatest };
                (least.to_le_bytes().to_vec(), greatest.to_le_bytes().to_vec())
            }
            Self::Whole(least, greatest) => {
                let width = if kind == Type::Date { size_of::<i32>() } else { size_of::<i64>() };
                let bytes = |value: i64| value.to_le_bytes().into_iter().take(width).collect();
                (bytes(least), bytes(greatest))
            }
        }
    }
}

/// Bits, eight in a byte, the lowest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    len: usize,
    ones: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        let place = self.len % 8;
        if place == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << place;
        }
        self.len += 1;
        self.ones += usize::from(bit);
    }

    /// As definition levels of one bit: one run where all are equal, else the bits themselves.
    fn levels(&self) -> Vec<u8> {
        let mut levels = Vec::new();
        if self.ones == 0 || self.ones == self.len {
            write_unsigned(&mut levels, (self.len as u64) << 1);
            levels.push(u8::from(self.ones > 0));
        } else {
            write_unsigned(&mut levels, (self.bytes.len() as u64) << 1 | 1);
            levels.extend_from_slice(&self.bytes);
        }
        levels
    }
}

/// How pages are compressed.
enum Codec {
    None,
    Gzip,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Codec {
    fn new(compression: Compression) -> Result<Self> {
        Ok(match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd(Box::new(zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?)),
        })
    }

    const fn number(&self) -> i32 {
        match self {
            Self::None => 0,
            Self::Gzip => 2,
            Self::Zstd(_) => 6,
        }
    }

    /// `None` if pages are not compressed.
    fn compress(&mut self, page: &[u8]) -> Result<Option<Vec<u8>>> {
        match self {
            Self::None => Ok(None),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(page).map_err(failed)?;
                encoder.finish().map_err(failed).map(Some)
            }
            Self::Zstd(compressor) => compressor.compress(page).map_err(failed).map(Some),
        }
    }
}

/// A length or an offset as Parquet has them.
fn signed(number: usize) -> Result<i64> {
    i64::try_from(number).map_err(failed)
}
