//! Rows as text with columns: UTF-8, commas, `\n`, quotes where needed (RFC 4180).
//!
//! Values are HubSpot's text, whatever their type; null and empty text are both an empty cell. A cell that a spreadsheet would run gets a `'` in
//! front, as in a rejects file.

use std::mem;

use jiff::Timestamp;

use super::{
    super::change::Change,
    columns::Columns,
    failed,
    flat::{Row, text, timestamp},
};
use crate::{Result, csv::reject::Line};

/// Appends the header.
pub(super) fn write_header(columns: &Columns, out: &mut Vec<u8>) {
    let mut line = Line::after(mem::take(out));
    for name in columns.names() {
        line.original(name);
    }
    *out = line.end();
}

/// Appends one row.
pub(super) fn write_row(columns: &Columns, change: &Change, out: &mut Vec<u8>) -> Result<()> {
    let row = Row::new(columns, change);
    let associations = row.associations().map(serde_json::to_string).transpose().map_err(failed)?;
    let more = row.more(|_, _| false).as_ref().map(serde_json::to_string).transpose().map_err(failed)?;
    let time = |at: Option<Timestamp>| at.map(timestamp).unwrap_or_default();
    let mut line = Line::after(mem::take(out));
    line.plain(change.operation.as_str());
    line.original(&change.id);
    line.plain(&time(change.created_at));
    line.plain(&time(change.updated_at));
    line.plain(if row.archived() { "true" } else { "false" });
    line.plain(&time(Some(change.read_at)));
    line.plain(row.cause().unwrap_or_default());
    line.original(row.merged_into().unwrap_or_default());
    for column in &columns.columns {
        line.original(&row.value(column).map(text).unwrap_or_default());
    }
    line.original(associations.as_deref().unwrap_or_default());
    line.original(more.as_deref().unwrap_or_default());
    *out = line.end();
    Ok(())
}
