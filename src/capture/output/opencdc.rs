//! OpenCDC v1 as JSON, one record a line.
//!
//! `opencdc.createdAt` is when HubSpot created the *record*, as OpenCDC defines it and as Conduit's HubSpot connector writes it; it is absent where that is
//! not known. When this version was made is `hubferry.updatedAt`: with the key it says whether a record was seen before. Metadata stand in the
//! order in which Conduit writes them, that of their names.

use std::io::Write;

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    super::change::{Cause, Change},
    failed,
    flat::timestamp,
};
use crate::Result;

/// Writes records of one collection.
pub(super) struct Writer {
    /// The collection as JSON.
    collection: Vec<u8>,
}

impl Writer {
    pub(super) fn new(collection: &str) -> Self {
        let mut json = Vec::new();
        write_string(collection, &mut json);
        Self { collection: json }
    }

    /// Appends one line. The members that Conduit's decoder cannot miss are always there.
    pub(super) fn write(&self, change: &Change, out: &mut Vec<u8>) -> Result<()> {
        write!(out, r#"{{"position":"{}""#, Base64Display::new(change.position.as_bytes(), &STANDARD))
            .map_err(failed)?;
        write!(out, r#","operation":"{}","metadata":{{"#, change.operation.as_str()).map_err(failed)?;
        if let Some(cause) = &change.cause {
            write!(out, r#""hubferry.change":"{}","#, cause.as_str()).map_err(failed)?;
            if let Cause::Merge { into } = cause {
                out.extend_from_slice(br#""hubferry.mergedInto":"#);
                write_string(into, out);
                out.push(b',');
            }
        }
        if let Some(updated_at) = change.updated_at {
            write!(out, r#""hubferry.updatedAt":"{}","#, timestamp(updated_at)).map_err(failed)?;
        }
        write!(out, r#""hubferry.version":"{}","opencdc.collection":"#, env!("CARGO_PKG_VERSION")).map_err(failed)?;
        out.extend_from_slice(&self.collection);
        if let Some(created_at) = change.created_at {
            write_nanoseconds("opencdc.createdAt", created_at, out)?;
        }
        write_nanoseconds("opencdc.readAt", change.read_at, out)?;
        out.extend_from_slice(br#","opencdc.version":"v1"},"key":{"id":"#);
        write_string(&change.id, out);
        out.extend_from_slice(br#"},"payload":{"before":"#);
        write_object(change.before.as_ref(), out)?;
        out.extend_from_slice(br#","after":"#);
        write_object(change.after.as_ref(), out)?;
        out.extend_from_slice(b"}}\n");
        Ok(())
    }
}

fn write_nanoseconds(name: &str, at: Timestamp, out: &mut Vec<u8>) -> Result<()> {
    write!(out, r#","{name}":"{}""#, at.as_nanosecond()).map_err(failed)
}

fn write_object(object: Option<&Map<String, Value>>, out: &mut Vec<u8>) -> Result<()> {
    match object {
        Some(object) => serde_json::to_writer(out, object).map_err(failed),
        None => {
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}

/// Text as JSON.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    // A vector takes everything, and text has nothing that JSON cannot hold.
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok(), "text is always JSON");
}
