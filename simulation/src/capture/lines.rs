//! What a consumer reads: the objects' rows, whatever their format.

use std::{collections::BTreeMap, io::Read as _};

use hubferry::objects::Location;
use serde_json::Value;

use super::plan::{Capture, Format};

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// `snapshot`, `create`, `update`, `delete`.
    pub operation: String,
    /// Whose.
    pub id: String,
    /// This version's date: with the id it says whether a row was seen before.
    pub version: String,
    /// `restore`, `merge`, `association`.
    pub cause: String,
    /// Values by name; none of a delete.
    pub values: Option<BTreeMap<String, String>>,
    /// What was there before, where that was asked for.
    pub before: Option<BTreeMap<String, String>>,
    /// Ids of associated companies, where that can be read.
    pub linked: Option<Vec<String>>,
}

/// Reads an object. What is wrong with it, if it cannot be read.
pub fn read(capture: &Capture, location: &Location, bytes: &[u8]) -> Result<Vec<Line>, String> {
    let ending = match capture.compression {
        _ if capture.format == Format::Parquet => "",
        "zstd" => ".zst",
        "gzip" => ".gz",
        _ => "",
    };
    if !location.key.ends_with(ending) {
        return Err(format!("{location} does not end with {ending}"));
    }
    let mut text = Vec::new();
    let read = match ending {
        ".zst" => zstd::stream::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut text)),
        ".gz" => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text),
        _ => (&mut &*bytes).read_to_end(&mut text),
    };
    read.map_err(|error| format!("{location}: {error}"))?;
    if capture.format == Format::Parquet {
        return match text.starts_with(b"PAR1") && text.ends_with(b"PAR1") {
            true => Ok(Vec::new()),
            false => Err(format!("{location} is no Parquet file")),
        };
    }
    if capture.format == Format::Csv {
        return csv_lines(&text).map_err(|error| format!("{location}: {error}"));
    }
    let text = std::str::from_utf8(&text).map_err(|error| format!("{location}: {error}"))?;
    let parse = |line: &str| serde_json::from_str::<Value>(line).map_err(|error| format!("{location}: {error}"));
    let values = text.lines().map(parse).collect::<Result<Vec<_>, _>>()?;
    let lines = values.iter().map(|line| if capture.format == Format::Opencdc { opencdc(line) } else { flat(line) });
    lines.collect::<Option<Vec<_>>>().ok_or_else(|| format!("{location}: a line without what every line has"))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn members(value: &Value) -> BTreeMap<String, String> {
    let members = value.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.clone(), text_of(value))).filter(|(_, text)| !text.is_empty()).collect()
}

/// The values of a record as HubSpot answers it.
fn record(value: &Value) -> Option<BTreeMap<String, String>> {
    if value.is_null() {
        return None;
    }
    Some(members(value.get("properties").unwrap_or(value)))
}

fn opencdc(line: &Value) -> Option<Line> {
    let payload = line.get("payload")?;
    let metadata = line.get("metadata")?;
    let linked = payload["after"]["associations"]["companies"]["results"].as_array().map(|links| {
        let mut ids: Vec<String> = links.iter().map(|link| text_of(&link["id"])).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    });
    Some(Line {
        operation: line.get("operation")?.as_str()?.to_owned(),
        id: line.get("key")?.get("id")?.as_str()?.to_owned(),
        version: text_of(&metadata["hubferry.updatedAt"]),
        cause: text_of(&metadata["hubferry.change"]),
        values: record(payload.get("after")?),
        before: record(payload.get("before")?),
        linked,
    })
}

fn flat(line: &Value) -> Option<Line> {
    let operation = line.get("_operation")?.as_str()?.to_owned();
    Some(Line {
        values: (operation != "delete").then(|| members(line)),
        operation,
        id: line.get("_id")?.as_str()?.to_owned(),
        version: text_of(&line["_updated_at"]),
        cause: text_of(&line["_change"]),
        before: None,
        linked: None,
    })
}

fn csv_lines(text: &[u8]) -> Result<Vec<Line>, String> {
    let mut reader = csv::Reader::from_reader(text);
    let names = reader.headers().map_err(|error| error.to_string())?.clone();
    let mut lines = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| error.to_string())?;
        let mut values: BTreeMap<String, String> =
            names.iter().zip(row.iter()).map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
        values.retain(|_, text| !text.is_empty());
        let take = |name: &str| values.get(name).cloned().unwrap_or_default();
        let (operation, id, version, cause) = (take("_operation"), take("_id"), take("_updated_at"), take("_change"));
        lines.push(Line {
            values: (operation != "delete").then_some(values),
            operation,
            id,
            version,
            cause,
            before: None,
            linked: None,
        });
    }
    Ok(lines)
}
