//! An org's records as text and back, so that a local cloud can be started again. Sessions, cursors, Bulk jobs and calls counted are not kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::Cell;
use super::{Field, Org, OrgSettings, Write};

/// What a write can have been.
const KINDS: [&str; 5] = ["create", "update", "delete", "undelete", "merge"];

#[derive(Serialize, Deserialize)]
struct Kept {
    tables: Vec<KeptTable>,
    history: Vec<KeptWrite>,
    /// Object, record, moment.
    deleted: Vec<(String, String, i64)>,
}

#[derive(Serialize, Deserialize)]
struct KeptTable {
    name: String,
    next: u64,
    fields: Vec<Field>,
    /// Values by field, in the order of the fields.
    records: Vec<(String, Vec<Option<Cell>>)>,
}

#[derive(Serialize, Deserialize)]
struct KeptWrite {
    at: Timestamp,
    user: String,
    by_person: bool,
    object: String,
    id: String,
    what: String,
    changes: Vec<(String, Option<String>, Option<String>)>,
}

impl Org {
    /// Everything that is to outlive the process, as JSON.
    pub fn kept(&self) -> Vec<u8> {
        let tables = self.tables.iter().map(|table| KeptTable {
            name: table.kind.name.clone(),
            next: table.next,
            fields: table.kind.fields.clone(),
            records: table.records.values().map(|record| (record.id.clone(), record.cells.clone())).collect(),
        });
        let history = self.history.iter().cloned().map(|write| KeptWrite {
            at: write.at,
            user: write.user,
            by_person: write.by_person,
            object: write.object,
            id: write.id,
            what: write.what.to_owned(),
            changes: write.changes,
        });
        let deleted = self
            .deleted_log
            .iter()
            .filter_map(|(table, id, at)| Some((self.tables.get(*table)?.kind.name.clone(), id.clone(), *at)));
        let kept = Kept { tables: tables.collect(), history: history.collect(), deleted: deleted.collect() };
        // Plain values in memory: this does not fail.
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// An org with these settings and what was kept of another one.
    ///
    /// # Errors
    /// The text is not what [`Org::kept`] wrote.
    pub fn restored(settings: OrgSettings, text: &[u8]) -> serde_json::Result<Self> {
        let kept: Kept = serde_json::from_slice(text)?;
        let mut org = Self::new(settings);
        for own in kept.tables {
            let Some(table) = org.table_at(&own.name).and_then(|at| org.tables.get_mut(at)) else { continue };
            for field in &own.fields {
                if table.at(&field.name).is_none() {
                    table.define(field.clone());
                }
            }
            let places: Vec<Option<usize>> = own.fields.iter().map(|field| table.at(&field.name)).collect();
            table.next = table.next.max(own.next);
            for (id, cells) in own.records {
                let mut now = vec![None; table.kind.fields.len()];
                for (cell, place) in cells.into_iter().zip(&places) {
                    if let Some(slot) = place.and_then(|place| now.get_mut(place)) {
                        *slot = cell;
                    }
                }
                table.put(&id, now, 0, 0);
            }
        }
        org.history = kept
            .history
            .into_iter()
            .filter_map(|write| {
                let what = KINDS.into_iter().find(|kind| *kind == write.what)?;
                let KeptWrite { at, user, by_person, object, id, changes, .. } = write;
                Some(Write { at, user, by_person, object, id, what, changes })
            })
            .collect();
        org.deleted_log =
            kept.deleted.into_iter().filter_map(|(table, id, at)| Some((org.table_at(&table)?, id, at))).collect();
        Ok(org)
    }
}
