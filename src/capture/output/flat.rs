//! A record as one row: which value stands in which column, and what no column holds.
//!
//! Nothing is changed on the way unless the row says so: a value that its column's type cannot hold exactly is in `_more` as HubSpot gave it.

use std::borrow::Cow;

use jiff::{Timestamp, civil::Date};
use serde_json::{Map, Number, Value};

use super::{
    super::change::{Cause, Change, Operation},
    columns::{Column, Columns, Kind, Shape, is_ours},
    failed,
    opencdc::write_string,
};
use crate::Result;

/// Every decimal number of so many digits comes back from a double as it was.
const DIGITS_EXACT: usize = 15;

/// Up to here doubles are exact whole numbers: 2^53.
const WHOLE_EXACT_MAX: u64 = 1 << 53;

/// The members of a CRM object that have columns of ours, or hold those that have.
const CRM_MEMBERS: [&str; 6] = ["id", "properties", "createdAt", "updatedAt", "archived", "associations"];

/// The members of a CMS object that have columns of ours.
const CMS_MEMBERS: [&str; 6] = ["id", "created", "updated", "createdAt", "updatedAt", "archived"];

/// HubSpot's way to write a moment, always with milliseconds: `2026-01-02T03:04:05.678Z`.
pub(super) fn timestamp(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// One record, by its columns.
pub(super) struct Row<'a> {
    change: &'a Change,
    columns: &'a Columns,
    /// Where the values are.
    values: Option<&'a Map<String, Value>>,
}

impl<'a> Row<'a> {
    pub(super) fn new(columns: &'a Columns, change: &'a Change) -> Self {
        let values = match columns.shape {
            Shape::Properties => change.after.as_ref().and_then(|object| object.get("properties")?.as_object()),
            Shape::Members => change.after.as_ref(),
        };
        Self { change, columns, values }
    }

    /// The value of a column; `None` for null too.
    pub(super) fn value(&self, column: &Column) -> Option<&'a Value> {
        self.values?.get(&column.source).filter(|value| !value.is_null())
    }

    /// Whether the record is in the recycle bin, or gone.
    pub(super) fn archived(&self) -> bool {
        self.change.operation == Operation::Delete
            || self.change.after.as_ref().and_then(|object| object.get("archived")?.as_bool()).unwrap_or(false)
    }

    pub(super) fn cause(&self) -> Option<&'static str> {
        self.change.cause.as_ref().map(Cause::as_str)
    }

    pub(super) fn merged_into(&self) -> Option<&'a str> {
        match &self.change.cause {
            Some(Cause::Merge { into }) => Some(into),
            _ => None,
        }
    }

    /// The associations, as HubSpot shows them. Of a CMS object they would be a member like any other.
    pub(super) fn associations(&self) -> Option<&'a Value> {
        match self.columns.shape {
            Shape::Properties => self.change.after.as_ref()?.get("associations").filter(|value| !value.is_null()),
            Shape::Members => None,
        }
    }

    /// What no column holds, in the object's own shape: values beyond the columns, those that `misfit`, other members of the object.
    pub(super) fn more(&self, misfit: impl Fn(&Column, &Value) -> bool) -> Option<Map<String, Value>> {
        let object = self.change.after.as_ref()?;
        let mut more = Map::new();
        let known = match self.columns.shape {
            Shape::Properties => CRM_MEMBERS,
            Shape::Members => CMS_MEMBERS,
        };
        for (name, value) in object {
            let has_column = self.columns.shape == Shape::Members && self.columns.has(name);
            if !value.is_null() && !has_column && (!known.contains(&name.as_str()) || self.unread(name, value)) {
                more.insert(name.clone(), value.clone());
            }
        }
        let mut beyond = Map::new();
        let mut found = 0;
        for column in &self.columns.columns {
            let Some(value) = self.values.and_then(|values| values.get(&column.source)) else { continue };
            found += 1;
            if !value.is_null() && misfit(column, value) {
                beyond.insert(column.source.clone(), value.clone());
            }
        }
        match (self.columns.shape, self.values) {
            (Shape::Members, _) => more.append(&mut beyond),
            (Shape::Properties, Some(values)) if values.len() > found => {
                let others = values.iter().filter(|(name, value)| !value.is_null() && !self.columns.has(name));
                beyond.extend(others.map(|(name, value)| (name.clone(), value.clone())));
            }
            (Shape::Properties, _) => {}
        }
        if !beyond.is_empty() {
            more.insert("properties".to_owned(), Value::Object(beyond));
        }
        (!more.is_empty()).then_some(more)
    }

    /// Whether a member that has a column of ours is not in it: what HubSpot wrote could not be read as a time, or is not what it should be.
    fn unread(&self, name: &str, value: &Value) -> bool {
        match name {
            "createdAt" | "created" => self.change.created_at.is_none(),
            // Of a delete the column tells when it was archived.
            "updatedAt" | "updated" => self.change.updated_at.is_none() || self.change.operation == Operation::Delete,
            "archived" => !value.is_boolean(),
            "properties" => !value.is_object(),
            _ => false,
        }
    }
}

/// Appends one JSON object: our columns, then the record's own. Null where a record has no value; `_associations` and `_more` only where there
/// is something in them. Of a CMS resource: all members as they are.
pub(super) fn write_json_line(columns: &Columns, change: &Change, out: &mut Vec<u8>) -> Result<()> {
    let row = Row::new(columns, change);
    out.extend_from_slice(br#"{"_operation":""#);
    out.extend_from_slice(change.operation.as_str().as_bytes());
    out.extend_from_slice(br#"","_id":"#);
    write_string(&change.id, out);
    write_time("_created_at", change.created_at, out);
    write_time("_updated_at", change.updated_at, out);
    out.extend_from_slice(if row.archived() { br#","_archived":true"# } else { br#","_archived":false"# });
    write_time("_read_at", Some(change.read_at), out);
    write_name("_change", out);
    write_text(row.cause(), out);
    write_name("_merged_into", out);
    write_text(row.merged_into(), out);
    if columns.shape == Shape::Members {
        for (name, value) in change.after.iter().flatten() {
            let name = free_name(name, change.after.as_ref());
            write_name(&name, out);
            serde_json::to_writer(&mut *out, value).map_err(failed)?;
        }
        out.extend_from_slice(b"}\n");
        return Ok(());
    }
    for column in &columns.columns {
        write_name(&column.name, out);
        match row.value(column) {
            Some(value) => write_typed(column.kind, value, out)?,
            None => out.extend_from_slice(b"null"),
        }
    }
    if let Some(associations) = row.associations() {
        write_name("_associations", out);
        serde_json::to_writer(&mut *out, associations).map_err(failed)?;
    }
    // JSON holds every value as it is, so none is a misfit.
    if let Some(more) = row.more(|_, _| false) {
        write_name("_more", out);
        serde_json::to_writer(&mut *out, &more).map_err(failed)?;
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// The member's name, out of the way of ours and of the others.
fn free_name<'a>(name: &'a str, object: Option<&Map<String, Value>>) -> Cow<'a, str> {
    let mut free = Cow::Borrowed(name);
    while is_ours(&free) || (free != name && object.is_some_and(|object| object.contains_key(&*free))) {
        free.to_mut().insert(0, '_');
    }
    free
}

fn write_name(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    write_string(name, out);
    out.push(b':');
}

fn write_text(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => write_string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_time(name: &str, at: Option<Timestamp>, out: &mut Vec<u8>) {
    write_name(name, out);
    write_text(at.map(timestamp).as_deref(), out);
}

/// A number or a boolean as what it is, where nothing is lost by it; everything else as HubSpot wrote it.
fn write_typed(kind: Kind, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match (kind, value) {
        (Kind::Number | Kind::Boolean | Kind::Date | Kind::DateTime, Value::String(text)) if text.is_empty() => {
            out.extend_from_slice(b"null");
        }
        (Kind::Number, Value::String(text)) if matches!(number(text), Some(Double { exact: true, .. })) => {
            out.extend_from_slice(text.as_bytes());
        }
        (Kind::Boolean, Value::String(text)) if text == "true" || text == "false" => {
            out.extend_from_slice(text.as_bytes());
        }
        _ => serde_json::to_writer(out, value).map_err(failed)?,
    }
    Ok(())
}

/// A value as a cell of text.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// A number as a double.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Double {
    /// The nearest one.
    pub(super) value: f64,
    /// Whether it is the number itself, in the sense that the number's digits can be had from it again.
    pub(super) exact: bool,
    /// Whether the number has no fraction.
    pub(super) whole: bool,
}

/// Reads a number as JSON writes it; `None` if the text is something else, or no finite double is near.
pub(super) fn number(text: &str) -> Option<Double> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_fits =
        exponent.is_none_or(|exponent| is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !is_digits(whole) || leading_zero || !fraction.is_none_or(is_digits) || !exponent_fits {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    let is_whole = exponent.is_none() && fraction.is_none_or(|fraction| fraction.bytes().all(|byte| byte == b'0'));
    let digits = || whole.bytes().chain(fraction.unwrap_or_default().bytes());
    let exact = if exponent.is_none() && digits().count() <= DIGITS_EXACT {
        true
    } else {
        let all: String = digits().map(char::from).collect();
        let significant = all.trim_matches('0');
        is_whole && whole.parse::<u64>().is_ok_and(|number| number <= WHOLE_EXACT_MAX)
            || significant.is_empty()
            // With more digits, where the shortest text of the double has the same ones: a computed 0.30000000000000004 does.
            || value.is_normal() && (significant.len() <= DIGITS_EXACT || shortest_digits(value) == significant)
    };
    Some(Double { value, exact, whole: is_whole })
}

fn shortest_digits(value: f64) -> String {
    let text = format!("{value:e}");
    let mantissa = text.split('e').next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').to_owned()
}

/// A number of any form as a double.
pub(super) fn double(value: &Value) -> Option<Double> {
    match value {
        Value::String(text) => number(text),
        Value::Number(given) => number(&Number::to_string(given)),
        _ => None,
    }
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(given) => Some(*given),
        Value::String(text) if text == "true" => Some(true),
        Value::String(text) if text == "false" => Some(false),
        _ => None,
    }
}

/// Days since 1970-01-01, of `2024-12-31` or of the milliseconds of a midnight in UTC, the two ways in which HubSpot writes a day.
pub(super) fn days(value: &Value) -> Option<i32> {
    const DAY_MS: i64 = 86_400_000;
    match value {
        Value::String(text) if text.len() == 10 && text.contains('-') => {
            let date: Date = text.parse().ok()?;
            date.since(Date::constant(1970, 1, 1)).ok().map(|span| span.get_days())
        }
        _ => {
            let milliseconds = epoch_milliseconds(value)?;
            (milliseconds % DAY_MS == 0).then(|| i32::try_from(milliseconds / DAY_MS).ok()).flatten()
        }
    }
}

/// Milliseconds since 1970, of an ISO 8601 moment without finer parts or of the number itself.
pub(super) fn milliseconds(value: &Value) -> Option<i64> {
    if let Value::String(text) = value
        && text.contains('T')
    {
        let at: Timestamp = text.parse().ok()?;
        return (at.as_nanosecond() % 1_000_000 == 0).then(|| at.as_millisecond());
    }
    epoch_milliseconds(value)
}

fn epoch_milliseconds(value: &Value) -> Option<i64> {
    match value {
        // Only as numbers are commonly written: no zeros in front, no sign of nothing.
        Value::String(text) => text.parse().ok().filter(|number: &i64| number.to_string() == *text),
        Value::Number(given) => given.as_i64(),
        _ => None,
    }
}
