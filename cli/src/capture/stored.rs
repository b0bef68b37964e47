//! What consumers have: a capture's objects, read in the order of their keys and applied one record after the other.
//!
//! Of each live record its id and its version are kept, and the values of a sample: so the memory does not grow with what the records hold.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use hubferry::{
    csv::compression::{Decompressor, detect},
    objects::{Location, Objects},
};
use jiff::Timestamp;
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::Field,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Objects are read whole; a capture closes one at about 8 MB before compression.
const OBJECT_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Inflated in steps of so much.
const STEP_BYTES: usize = 256 * 1024;

/// A longer line is none that a capture wrote.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// While objects are read the sample may be so many times too large, since records that are in it may be deleted later.
const SAMPLE_SPARE: usize = 4;

/// A value as a file holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// HubSpot's text.
    Text(String),
    /// Of a CSV file: a `'` in front may be there for spreadsheets only.
    Guarded(String),
    /// A number, in a file that has numbers.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// Days since 1970.
    Days(i32),
    /// Milliseconds since 1970.
    Milliseconds(i64),
}

impl Cell {
    /// Whether this is what HubSpot has; nothing and empty text are the same.
    pub(crate) fn is(&self, now: Option<&str>) -> bool {
        let now = now.unwrap_or_default();
        match self {
            Self::Text(text) => text == now,
            Self::Guarded(text) => text == now || text.strip_prefix('\'').is_some_and(|text| text == now),
            #[expect(clippy::float_cmp, reason = "both are the nearest double of the same digits")]
            Self::Number(number) => now.parse::<f64>().is_ok_and(|now| now == *number),
            Self::Boolean(value) => now.parse() == Ok(*value),
            Self::Days(days) => {
                let midnight = i64::from(*days) * 86_400_000;
                milliseconds(now) == Some(midnight) || milliseconds(&format!("{now}T00:00:00Z")) == Some(midnight)
            }
            Self::Milliseconds(at) => milliseconds(now) == Some(*at),
        }
    }

    /// For people who asked for values.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Guarded(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::Days(days) => Timestamp::from_second(i64::from(*days) * 86_400)
                .map(|at| at.strftime("%Y-%m-%d").to_string())
                .unwrap_or_default(),
            Self::Milliseconds(at) => Timestamp::from_millisecond(*at).map(|at| format!("{at:.3}")).unwrap_or_default(),
        }
    }

    /// A JSON value; `None` for null.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Bool(value) => Some(Self::Boolean(*value)),
            Value::Number(number) => number.as_f64().map(Self::Number),
            other => Some(Self::Text(other.to_string())),
        }
    }
}

fn milliseconds(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| text.parse::<Timestamp>().ok().map(|at| at.as_millisecond()))
}

/// The captured values of a record, by property; those that have none are there too.
pub(crate) type Values = BTreeMap<String, Option<Cell>>;

/// A record's id: most are numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Id {
    Number(u64),
    Text(Box<str>),
}

impl Id {
    pub(crate) fn new(text: &str) -> Self {
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }

    /// A number that has nothing to do with the id, but is always the same.
    fn hash(&self) -> u64 {
        let mut hash = match self {
            Self::Number(number) => *number,
            Self::Text(text) => text
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)),
        };
        // SplitMix64.
        hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// When the captured version of a record was made, in milliseconds, and whether the record was met in HubSpot: in eight bytes, for there are
/// millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version(i64);

impl Version {
    /// Where it is not known when: long ago.
    pub(crate) fn new(at: Option<Timestamp>) -> Self {
        Self(at.map_or(i64::MIN, |at| at.as_millisecond() * 2))
    }

    pub(crate) fn at(self) -> i64 {
        self.0 >> 1
    }

    pub(crate) fn meet(&mut self) {
        self.0 |= 1;
    }

    pub(crate) fn is_met(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Records that a consumer has who applied everything.
#[derive(Debug)]
pub(crate) struct Stored {
    /// By id, the version that was captured last.
    pub(crate) live: BTreeMap<Id, Version>,
    /// Records that were captured and are deleted.
    pub(crate) deleted: BTreeSet<Id>,
    /// Records of the sample, with their values.
    pub(crate) sample: BTreeMap<Id, Values>,
    /// Objects read.
    pub(crate) objects: u64,
    /// Lines or rows in them.
    pub(crate) records: u64,
    wanted: usize,
    below: u64,
}

/// One record of an object.
struct Entry<'a> {
    operation: Cow<'a, str>,
    id: Id,
    updated_at: Option<Timestamp>,
}

impl Stored {
    /// Nothing yet; `sample` records are kept with their values.
    pub(crate) fn new(sample: usize) -> Self {
        Self {
            live: BTreeMap::new(),
            deleted: BTreeSet::new(),
            sample: BTreeMap::new(),
            objects: 0,
            records: 0,
            wanted: sample,
            below: u64::MAX,
        }
    }

    fn apply(&mut self, entry: Entry<'_>, values: impl FnOnce() -> Result<Values>) -> Result<()> {
        self.records += 1;
        if entry.operation == "delete" {
            self.live.remove(&entry.id);
            self.sample.remove(&entry.id);
            self.deleted.insert(entry.id);
            return Ok(());
        }
        self.deleted.remove(&entry.id);
        if self.wanted > 0 && entry.id.hash() <= self.below {
            self.sample.insert(entry.id.clone(), values()?);
            if self.sample.len() > self.wanted.saturating_mul(SAMPLE_SPARE) {
                self.below /= 2;
                let below = self.below;
                self.sample.retain(|id, _| id.hash() <= below);
            }
        }
        self.live.insert(entry.id, Version::new(entry.updated_at));
        Ok(())
    }

    /// Leaves as many records in the sample as were wanted: always the same ones.
    pub(crate) fn settle(&mut self) {
        let mut hashes: Vec<u64> = self.sample.keys().map(Id::hash).collect();
        hashes.sort_unstable();
        if let Some(above) = hashes.get(self.wanted) {
            let above = *above;
            self.sample.retain(|id, _| id.hash() < above);
        }
    }

    /// Applies a whole object.
    ///
    /// # Errors
    /// It is damaged, or not what a capture writes; the text names the line, and no value.
    pub(crate) fn take(&mut self, key: &str, bytes: &Bytes) -> Result<()> {
        self.objects += 1;
        if key.ends_with(".parquet") {
            return self.take_parquet(bytes);
        }
        if key.ends_with(".csv") || key.contains(".csv.") { self.take_csv(bytes) } else { self.take_lines(bytes) }
    }

    fn take_lines(&mut self, bytes: &Bytes) -> Result<()> {
        let mut number = 0;
        inflated(bytes, |line| {
            number += 1;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if line.is_empty() { Ok(()) } else { self.take_line(line).with_context(|| format!("line {number}")) }
        })
    }

    fn take_line(&mut self, line: &[u8]) -> Result<()> {
        // Its own error would quote the line.
        let head: Head<'_> = serde_json::from_slice(line).map_err(|_| anyhow!("not a record that a capture writes"))?;
        let whole = || {
            serde_json::from_slice::<Map<String, Value>>(line)
                .map_err(|_| anyhow!("not a record that a capture writes"))
        };
        match head {
            Head { operation: Some(operation), key: Some(key), metadata, .. } => {
                let updated_at = metadata.and_then(|metadata| metadata.updated_at);
                self.apply(Entry { operation, id: Id::new(&key.id), updated_at }, || {
                    let whole = whole()?;
                    let properties = whole.get("payload").and_then(|payload| payload.get("after")?.get("properties"));
                    Ok(cells(properties))
                })
            }
            Head { flat_operation: Some(operation), flat_id: Some(id), flat_updated_at: updated_at, .. } => {
                self.apply(Entry { operation, id: Id::new(&id), updated_at }, || {
                    let whole = whole()?;
                    let own = whole.iter().filter(|(name, _)| !name.starts_with('_'));
                    let mut values: Values = own.map(|(name, value)| (name.clone(), Cell::of(value))).collect();
                    values.extend(cells(whole.get("_more").and_then(|more| more.get("properties"))));
                    Ok(values)
                })
            }
            _ => bail!("not a record that a capture writes"),
        }
    }

    fn take_csv(&mut self, bytes: &Bytes) -> Result<()> {
        let mut text = Vec::new();
        inflated(bytes, |line| {
            text.extend_from_slice(line);
            Ok(())
        })?;
        let mut reader = csv::ReaderBuilder::new().from_reader(&*text);
        let names = reader.headers().map_err(|_| anyhow!("the header cannot be read"))?.clone();
        let at =
            |name: &str| names.iter().position(|header| header == name).with_context(|| format!("no column {name}"));
        let (operation_at, id_at, updated_at, more_at) =
            (at("_operation")?, at("_id")?, at("_updated_at")?, at("_more")?);
        for (number, row) in reader.records().enumerate() {
            let row = row.map_err(|_| anyhow!("row {}: cannot be read", number + 1))?;
            let cell = |at: usize| row.get(at).unwrap_or_default();
            let entry = Entry {
                operation: cell(operation_at).into(),
                id: Id::new(cell(id_at)),
                updated_at: cell(updated_at).parse().ok(),
            };
            self.apply(entry, || {
                let own = names.iter().zip(row.iter()).filter(|(name, _)| !name.starts_with('_'));
                let mut values: Values = own
                    .map(|(name, text)| (name.to_owned(), (!text.is_empty()).then(|| Cell::Guarded(text.to_owned()))))
                    .collect();
                values.extend(more(cell(more_at)));
                Ok(values)
            })?;
        }
        Ok(())
    }

    fn take_parquet(&mut self, bytes: &Bytes) -> Result<()> {
        let file = SerializedFileReader::new(bytes.clone()).map_err(|_| anyhow!("not a Parquet file"))?;
        let rows = file.get_row_iter(None).map_err(|_| anyhow!("the Parquet file cannot be read"))?;
        for (number, row) in rows.enumerate() {
            let row = row.map_err(|_| anyhow!("row {}: cannot be read", number + 1))?;
            let field = |name: &str| row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field);
            let text = |name: &str| match field(name) {
                Some(Field::Str(text)) => Ok(text.as_str()),
                _ => Err(anyhow!("row {}: no {name}", number + 1)),
            };
            let updated_at = match field("_updated_at") {
                Some(Field::TimestampMillis(at)) => Timestamp::from_millisecond(*at).ok(),
                _ => None,
            };
            let entry = Entry { operation: text("_operation")?.into(), id: Id::new(text("_id")?), updated_at };
            self.apply(entry, || {
                let own = row.get_column_iter().filter(|(name, _)| !name.starts_with('_'));
                let mut values: Values = own.map(|(name, field)| (name.clone(), of_field(field))).collect();
                // What its column could not hold.
                values.extend(more(text("_more").unwrap_or_default()));
                Ok(values)
            })?;
        }
        Ok(())
    }
}

fn of_field(field: &Field) -> Option<Cell> {
    Some(match field {
        Field::Str(text) => Cell::Text(text.clone()),
        Field::Bool(value) => Cell::Boolean(*value),
        Field::Double(number) => Cell::Number(*number),
        Field::Date(days) => Cell::Days(*days),
        Field::TimestampMillis(at) => Cell::Milliseconds(*at),
        _ => return None,
    })
}

fn cells(properties: Option<&Value>) -> Values {
    let members = properties.and_then(Value::as_object).into_iter().flatten();
    members.map(|(name, value)| (name.clone(), Cell::of(value))).collect()
}

/// What no column holds, from JSON text.
fn more(text: &str) -> Values {
    let more: Option<Value> = serde_json::from_str(text).ok();
    cells(more.as_ref().and_then(|more| more.get("properties")))
}

/// Of a line, what is needed of every record.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    operation: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Key<'a>>,
    metadata: Option<Metadata>,
    #[serde(borrow, rename = "_operation")]
    flat_operation: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "_id")]
    flat_id: Option<Cow<'a, str>>,
    #[serde(rename = "_updated_at")]
    flat_updated_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Key<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "hubferry.updatedAt")]
    updated_at: Option<Timestamp>,
}

/// Gives the lines of an object, whatever compresses it, each with its end.
fn inflated(bytes: &Bytes, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    // Its hint is for those who upload files.
    let damaged = |error: hubferry::Error| anyhow!("{}", error.message());
    let mut decompressor = Decompressor::new(detect(bytes))?;
    let (mut input, mut held) = (&bytes[..], Vec::new());
    loop {
        let before = held.len();
        decompressor.step(&mut input, &mut held, STEP_BYTES).map_err(damaged)?;
        let ended = input.is_empty() && held.len() < before + STEP_BYTES;
        let mut start = 0;
        while let Some(length) = held.get(start..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let end = start + length + 1;
            each(held.get(start..end).unwrap_or_default())?;
            start = end;
        }
        held.drain(..start);
        if held.len() > LINE_BYTES_MAX {
            bail!("a line of more than {LINE_BYTES_MAX} bytes");
        }
        if ended {
            decompressor.finish().map_err(damaged)?;
            return if held.is_empty() { Ok(()) } else { each(&held) };
        }
    }
}

/// Whether a key below the output is one of the capture's objects: `dt=2026-11-22/<from>-<until>.<part>.<format>`.
pub(crate) fn is_object(below: &str) -> bool {
    let known = ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst", "parquet"];
    let Some((day, name)) = below.split_once('/') else { return false };
    day.starts_with("dt=")
        && !name.contains('/')
        && known.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')))
}

/// Reads and applies all objects of a capture. `told` hears of each: how many are read, how many there are, records so far.
///
/// # Errors
/// Those of the objects' door; an object that no capture wrote.
pub(crate) async fn read(
    objects: &dyn Objects,
    output: &Location,
    sample: usize,
    mut told: impl FnMut(usize, usize, u64),
) -> Result<Stored> {
    let mut stored = Stored::new(sample);
    let mut all = objects.list(output).await?;
    all.retain(|location| location.key.strip_prefix(&output.key).is_some_and(is_object));
    for (number, location) in all.iter().enumerate() {
        let object = objects.head(location, None).await?;
        if object.size > OBJECT_BYTES_MAX {
            bail!("{location} has {} bytes: no capture writes such objects", object.size);
        }
        if object.size > 0 {
            let bytes = objects.read(&object, 0..object.size).await?;
            stored.take(&location.key, &bytes).with_context(|| location.to_string())?;
        }
        told(number + 1, all.len(), stored.records);
    }
    stored.settle();
    Ok(stored)
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
