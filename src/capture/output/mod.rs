//! What a capture writes: changes in, one object of S3 out.
//!
//! An [`Encoder`] takes changes one after the other and gives the whole object at the end. It does no I/O, and the same changes give
//! the same bytes, so that an object that is written again replaces itself. How much goes into one object is the caller's business:
//! [`Encoder::bytes`] says what has gathered.
//!
//! | module | what it writes |
//! |---|---|
//! | `opencdc` | Conduit's OpenCDC v1, one JSON record a line: everything that a change holds |
//! | `flat` | the record as one row: which value stands in which column, and what no column holds; JSON lines |
//! | `csv` | the same rows as text with columns |
//! | `parquet` | the same rows as typed columns |
//! | [`columns`] | the columns, and their types, by the property definitions |
//!
//! The flat formats show a record as it is, so `before` is not in them.

pub mod columns;
mod csv;
mod flat;
mod opencdc;
mod parquet;
mod thrift;

use std::{io::Write, rc::Rc};

use bytes::Bytes;
use flate2::write::GzEncoder;

pub use self::columns::Columns;
use super::change::Change;
use crate::{
    Error, ErrorKind, Result, codes,
    config::{CaptureFormat, Compression},
};

/// What zstd's own tool uses: its window is 2 MiB, so an encoder takes about 4 MB.
const ZSTD_LEVEL: i32 = 3;

/// Text is handed to the compressor in pieces of about this size: a call for each record would cost more than it compresses.
const PIECE_BYTES: usize = 64 << 10;

/// How the objects of a capture are written.
#[derive(Debug, Clone)]
pub struct Layout {
    /// What a record looks like.
    pub format: CaptureFormat,
    /// Of the whole object; of Parquet, of the pages in it.
    pub compression: Compression,
    /// What the records are, in Conduit's words: `crm.contacts`.
    pub collection: String,
    /// The columns of the flat formats.
    pub columns: Rc<Columns>,
}

impl Layout {
    /// The end of an object's name, without the dot: `jsonl.zst`, `csv.gz`, `parquet`.
    pub fn extension(&self) -> String {
        let format = match self.format {
            CaptureFormat::Opencdc | CaptureFormat::Jsonl => "jsonl",
            CaptureFormat::Csv => "csv",
            CaptureFormat::Parquet => return "parquet".to_owned(),
        };
        match self.compression {
            Compression::None => format.to_owned(),
            Compression::Gzip => format!("{format}.gz"),
            Compression::Zstd => format!("{format}.zst"),
        }
    }

    /// The object's media type. A compressed object has that of the compression: with the format's own, and `Content-Encoding`
    /// beside it, some clients would inflate it unasked and then not know it by its name.
    pub fn content_type(&self) -> &'static str {
        match (self.format, self.compression) {
            (CaptureFormat::Parquet, _) => "application/vnd.apache.parquet",
            (_, Compression::Gzip) => "application/gzip",
            (_, Compression::Zstd) => "application/zstd",
            (CaptureFormat::Opencdc | CaptureFormat::Jsonl, Compression::None) => "application/x-ndjson",
            (CaptureFormat::Csv, Compression::None) => "text/csv; charset=utf-8",
        }
    }

    /// An encoder of one object.
    ///
    /// # Errors
    ///
    /// `OUTPUT_FAILED` if the compressor cannot be set up, which takes a lack of memory.
    pub fn encoder(&self) -> Result<Encoder> {
        let columns = Rc::clone(&self.columns);
        let inner = match self.format {
            CaptureFormat::Opencdc => {
                Inner::Opencdc(opencdc::Writer::new(&self.collection), Text::new(self.compression)?)
            }
            CaptureFormat::Jsonl => Inner::Jsonl(columns, Text::new(self.compression)?),
            CaptureFormat::Csv => {
                let mut text = Text::new(self.compression)?;
                csv::write_header(&columns, &mut text.buffer);
                Inner::Csv(columns, text)
            }
            CaptureFormat::Parquet => {
                Inner::Parquet(Box::new(parquet::Writer::new(columns, &self.collection, self.compression)?))
            }
        };
        Ok(Encoder { inner, records: 0 })
    }
}

/// Writes one object.
pub struct Encoder {
    inner: Inner,
    records: u64,
}

enum Inner {
    Opencdc(opencdc::Writer, Text),
    Jsonl(Rc<Columns>, Text),
    Csv(Rc<Columns>, Text),
    Parquet(Box<parquet::Writer>),
}

impl Encoder {
    /// Appends a change. After an error the encoder is of no further use.
    ///
    /// # Errors
    ///
    /// `OUTPUT_FAILED` if the compressor fails, or a value is larger than the format allows (2 GB in Parquet).
    pub fn push(&mut self, change: &Change) -> Result<()> {
        match &mut self.inner {
            Inner::Opencdc(writer, text) => {
                writer.write(change, &mut text.buffer)?;
                text.shift()?;
            }
            Inner::Jsonl(columns, text) => {
                flat::write_json_line(columns, change, &mut text.buffer)?;
                text.shift()?;
            }
            Inner::Csv(columns, text) => {
                csv::write_row(columns, change, &mut text.buffer)?;
                text.shift()?;
            }
            Inner::Parquet(writer) => writer.push(change)?,
        }
        self.records += 1;
        Ok(())
    }

    /// Changes so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// About how many bytes they take before compression. What the encoder holds in memory is less, but for a few MB of the compressor's.
    pub fn bytes(&self) -> usize {
        match &self.inner {
            Inner::Opencdc(_, text) | Inner::Jsonl(_, text) | Inner::Csv(_, text) => text.bytes(),
            Inner::Parquet(writer) => writer.bytes(),
        }
    }

    /// The whole object. Of no changes it is a valid one too: an empty file, a header alone, a Parquet file of no rows.
    ///
    /// # Errors
    ///
    /// As for [`Self::push`].
    pub fn finish(self) -> Result<Bytes> {
        match self.inner {
            Inner::Opencdc(_, text) | Inner::Jsonl(_, text) | Inner::Csv(_, text) => text.finish(),
            Inner::Parquet(writer) => writer.finish(),
        }
    }
}

/// Text on its way into an object.
struct Text {
    /// Not compressed yet; without compression, the object.
    buffer: Vec<u8>,
    /// Bytes that the compressor has taken.
    shifted: usize,
    compressor: Compressor,
}

enum Compressor {
    None,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Text {
    fn new(compression: Compression) -> Result<Self> {
        let compressor = match compression {
            Compression::None => Compressor::None,
            Compression::Gzip => Compressor::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Compression::Zstd => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).and_then(|mut encoder| {
                    encoder.include_checksum(true)?;
                    Ok(encoder)
                });
                Compressor::Zstd(encoder.map_err(failed)?)
            }
        };
        Ok(Self { buffer: Vec::new(), shifted: 0, compressor })
    }

    fn bytes(&self) -> usize {
        self.shifted + self.buffer.len()
    }

    /// Hands the text to the compressor, once there is enough.
    fn shift(&mut self) -> Result<()> {
        if self.buffer.len() < PIECE_BYTES { Ok(()) } else { self.shift_all() }
    }

    fn shift_all(&mut self) -> Result<()> {
        match &mut self.compressor {
            Compressor::None => return Ok(()),
            Compressor::Gzip(encoder) => encoder.write_all(&self.buffer),
            Compressor::Zstd(encoder) => encoder.write_all(&self.buffer),
        }
        .map_err(failed)?;
        self.shifted += self.buffer.len();
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Bytes> {
        self.shift_all()?;
        let whole = match self.compressor {
            Compressor::None => self.buffer,
            Compressor::Gzip(encoder) => encoder.finish().map_err(failed)?,
            Compressor::Zstd(encoder) => encoder.finish().map_err(failed)?,
        };
        Ok(whole.into())
    }
}

/// The one error of this module. The cause is a compressor's or a serializer's and holds no value.
fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Invalid, codes::OUTPUT_FAILED, "the records cannot be written in the capture's format")
        .with_source(error)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
