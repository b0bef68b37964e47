//! What a page shows of an org: its objects, records by words, one record with its history, how full the day is. Nothing here counts as
//! a call.

use jiff::Timestamp;

use super::store::{CREATED, MODIFIED, Record};
use super::{Fault, Field, Org, Write, ids};

/// An object, and how many records it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectType {
    /// API name.
    pub name: String,
    /// Records that are not deleted.
    pub live: usize,
    /// Records in the recycle bin.
    pub deleted: usize,
}

/// Some records of those that were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// All that there are.
    pub total: usize,
    /// The fields of the rows, in their order.
    pub columns: Vec<String>,
    /// Those asked for, the newest first.
    pub rows: Vec<FoundRow>,
}

/// One record of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRow {
    /// Its id.
    pub id: String,
    /// In the recycle bin.
    pub deleted: bool,
    /// When it was modified last.
    pub modified_at: Timestamp,
    /// Values, as many as there are columns; empty where there is none.
    pub values: Vec<String>,
}

/// One record, with all that was.
#[derive(Debug, Clone, PartialEq)]
pub struct Portrait {
    /// Its id.
    pub id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was modified last.
    pub modified_at: Timestamp,
    /// In the recycle bin.
    pub deleted: bool,
    /// Every field that has a value, then those that could be given one.
    pub fields: Vec<PortraitField>,
    /// The writes to it, the newest first.
    pub history: Vec<Write>,
}

/// A field of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortraitField {
    /// API name.
    pub name: String,
    /// What people see.
    pub label: String,
    /// What it has now; empty for none.
    pub value: String,
    /// People may change it.
    pub writable: bool,
    /// Of a picklist.
    pub options: Vec<String>,
}

/// Fields of a list, where the object has them.
const COLUMNS: [&str; 7] = ["Name", "Email", "Title", "Company", "StageName", "Phone", "HubSpot_Contact_Id__c"];

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Org {
    /// The objects, users left out.
    pub fn object_types(&self) -> Vec<ObjectType> {
        let all = self.tables.iter().filter(|table| table.kind.name != "User").map(|table| {
            let live = table.records.values().filter(|record| !record.is_deleted()).count();
            ObjectType { name: table.kind.name.clone(), live, deleted: table.records.len() - live }
        });
        all.collect()
    }

    /// Records, deleted ones too, in whose values every word of `words` occurs, whatever its case; the newest first, `limit` of them from
    /// the `offset`th on. `None` for an unknown object. Reads every record: for people, not for programs.
    pub fn look_for(&self, object: &str, words: &str, offset: usize, limit: usize) -> Option<Found> {
        let table = self.tables.get(self.table_at(object)?)?;
        let wanted: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let fits = |record: &Record| {
            wanted.is_empty() || {
                let cells = record.cells.iter().flatten().map(|cell| cell.plain().to_lowercase());
                let text = cells.collect::<Vec<_>>().join("\n");
                wanted.iter().all(|word| text.contains(word.as_str()))
            }
        };
        let columns: Vec<(&str, usize)> = COLUMNS.iter().filter_map(|name| Some((*name, table.at(name)?))).collect();
        let mut found: Vec<&Record> = table.records.values().filter(|record| fits(record)).collect();
        found.sort_by(|a, b| b.time(MODIFIED).cmp(&a.time(MODIFIED)).then_with(|| b.id.cmp(&a.id)));
        let rows = found.iter().skip(offset).take(limit).map(|record| FoundRow {
            id: record.id.clone(),
            deleted: record.is_deleted(),
            modified_at: time(record.time(MODIFIED)),
            values: columns
                .iter()
                .map(|(_, at)| table.value(&record.cells, *at).map(|cell| cell.plain()).unwrap_or_default())
                .collect(),
        });
        let columns = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Some(Found { total: found.len(), rows: rows.collect(), columns })
    }

    /// One record, deleted or not.
    pub fn portrait(&self, object: &str, id: &str) -> Option<Portrait> {
        let table = self.tables.get(self.table_at(object)?)?;
        let record = table.records.get(&ids::full(id)?)?;
        let writable = |field: &Field| field.updateable && field.kind != super::FieldType::Address;
        let mut fields: Vec<PortraitField> = (table.kind.fields.iter().enumerate())
            .map(|(at, field)| PortraitField {
                name: field.name.clone(),
                label: field.label.clone(),
                value: table.value(&record.cells, at).map(|cell| cell.plain()).unwrap_or_default(),
                writable: writable(field),
                options: field.picklist.clone(),
            })
            .filter(|field| field.writable || !field.value.is_empty())
            .collect();
        fields.sort_by_key(|field| field.value.is_empty());
        let history = self.history.iter().rev().filter(|write| write.id == record.id).cloned();
        Some(Portrait {
            id: record.id.clone(),
            created_at: time(record.time(CREATED)),
            modified_at: time(record.time(MODIFIED)),
            deleted: record.is_deleted(),
            fields,
            history: history.collect(),
        })
    }

    /// Calls of the last 24 hours, and how many there may be.
    pub fn day_use(&mut self, now: Timestamp) -> (u64, u64) {
        (self.used(now.as_millisecond()), self.settings.limits.daily)
    }

    /// The faults that may still strike, and how often at most; `None` without end.
    pub fn faults_left(&self) -> Vec<(Fault, Option<u64>)> {
        self.faults.left()
    }
}
