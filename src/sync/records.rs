//! Records of both systems as a sync reads them, and the reading.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::{chunk::MERGED, decide::Sighted, fields::Mapping, run::Job};
use crate::{
    error::Result,
    hubspot::{
        read::Found,
        records::{RawRecord, Wanted},
    },
    salesforce::{
        model::{Row, SalesforceId, datetime},
        soql::{Condition, Literal, Select},
    },
};

/// Ids of one statement: with room for the rest of an address of Salesforce's longest length.
const IDS_OF_A_STATEMENT: usize = 400;

/// Merges of a merge of a merge …
const MERGES_MAX: usize = 8;

/// HubSpot's record as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HubspotRecord {
    pub(super) id: String,
    /// What was asked for; `None` is blank. A property that HubSpot does not show is absent.
    pub(super) values: BTreeMap<String, Option<String>>,
    pub(super) modified: i64,
}

impl HubspotRecord {
    /// A property's value where it is not blank.
    pub(super) fn text(&self, property: &str) -> Option<&str> {
        self.values.get(property)?.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }
}

impl From<Found> for HubspotRecord {
    fn from(found: Found) -> Self {
        let modified = found.updated_at.map_or(0, Timestamp::as_millisecond);
        Self { id: found.id, values: found.properties, modified }
    }
}

impl From<RawRecord> for HubspotRecord {
    fn from(record: RawRecord) -> Self {
        let modified = record.updated_at.map_or(0, Timestamp::as_millisecond);
        let properties = match record.object.get("properties") {
            Some(Value::Object(properties)) => properties.clone(),
            _ => serde_json::Map::new(),
        };
        let values = properties.into_iter().map(|(name, value)| {
            let text = match value {
                Value::String(text) => Some(text),
                Value::Null => None,
                other => Some(other.to_string()),
            };
            (name, text)
        });
        Self { id: record.id, values: values.collect(), modified }
    }
}

/// What the mapping sees of a HubSpot record.
pub(super) fn sight_hubspot(mapping: &Mapping, record: &HubspotRecord) -> Sighted {
    let fields = mapping.pairs.iter().filter_map(|pair| {
        let value = record.values.get(&*pair.hubspot)?;
        Some((pair.key.clone(), pair.of_hubspot(value.as_deref())))
    });
    Sighted { fields: fields.collect(), modified: record.modified, edited: record.modified }
}

/// What the mapping sees of a Salesforce record.
pub(super) fn sight_salesforce(mapping: &Mapping, row: &Row) -> Sighted {
    let fields = mapping.pairs.iter().filter_map(|pair| {
        let value = row.get(&pair.salesforce)?;
        Some((pair.key.clone(), pair.of_salesforce(value)))
    });
    let modified = row.system_modstamp().map_or(0, Timestamp::as_millisecond);
    let edited = last_modified(row).map_or(modified, Timestamp::as_millisecond);
    Sighted { fields: fields.collect(), modified, edited }
}

/// When anybody changed a Salesforce record last, in milliseconds.
pub(super) fn last_modified(row: &Row) -> Option<Timestamp> {
    datetime(row.get("LastModifiedDate")?)
}

/// What became of a Salesforce record that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GoneRow {
    /// It was merged into this one, which is there.
    Merged(SalesforceId),
    /// It is in the recycle bin, or gone for good.
    Deleted,
    /// It is there, though it could not be read a moment ago.
    There,
}

impl Job {
    /// HubSpot's records by id, by the id that was asked for: a merged one stands there under its present id. What is absent is archived or gone.
    pub(super) async fn read_hubspot(&self, ids: BTreeSet<String>) -> Result<BTreeMap<String, HubspotRecord>> {
        let ids: Vec<String> = ids.into_iter().collect();
        let mut properties = self.mapping.hubspot_properties.clone();
        // A record that was merged into one of these is shown by nothing else.
        properties.push(MERGED.into());
        let wanted = Wanted { properties, history: false, archived: false };
        let found = self.account.read_records(&self.resource.object, &ids, &wanted, self.calls_until()).await?;
        Ok(found.into_iter().map(|(id, record)| (id, record.into())).collect())
    }

    /// Salesforce's records by id. What is absent is deleted, merged, or may not be seen.
    pub(super) async fn read_salesforce(&self, ids: BTreeSet<SalesforceId>) -> Result<BTreeMap<SalesforceId, Row>> {
        let ids: Vec<SalesforceId> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        // A retrieve shows what was written a moment ago, which a query may not; it does not reach fields of a parent.
        let (parents, own): (Vec<&str>, Vec<&str>) =
            self.mapping.salesforce_fields.iter().map(String::as_str).partition(|field| field.contains('.'));
        let object = &self.mapping.salesforce_object;
        let rows = self.org.retrieve(object, &ids, &own, self.calls_until()).await?;
        let mut found: BTreeMap<SalesforceId, Row> =
            ids.iter().cloned().zip(rows).filter_map(|(id, row)| Some((id, row?))).collect();
        if !parents.is_empty() {
            let select = Select::from(object)?.fields(["Id"])?.fields(parents.iter().copied())?;
            let wanted: Vec<Literal> = found.keys().map(Literal::from).collect();
            for row in self.org.query_one_of(&select, "Id", &wanted, self.calls_until()).await? {
                let Some(own) = row.id().and_then(|id| found.get_mut(&id)) else { continue };
                for (name, value) in row.values {
                    own.values.entry(name).or_insert(value);
                }
            }
        }
        found.retain(|_, row| !row.is_deleted());
        Ok(found)
    }

    /// What became of records that cannot be read.
    pub(super) async fn gone_in_salesforce(
        &self,
        ids: &BTreeSet<SalesforceId>,
    ) -> Result<BTreeMap<SalesforceId, GoneRow>> {
        let mut all: BTreeMap<SalesforceId, GoneRow> = ids.iter().map(|id| (id.clone(), GoneRow::Deleted)).collect();
        // From a record to the one that has to be asked for it.
        let mut open: BTreeMap<SalesforceId, SalesforceId> = ids.iter().map(|id| (id.clone(), id.clone())).collect();
        for _ in 0..MERGES_MAX {
            if open.is_empty() {
                break;
            }
            let asked: BTreeSet<SalesforceId> = open.values().cloned().collect();
            let rows = self.deleted_rows(&asked.into_iter().collect::<Vec<_>>()).await?;
            let mut next = BTreeMap::new();
            for (id, asked) in open {
                let Some(row) = rows.get(&asked) else { continue };
                if !row.is_deleted() {
                    let gone = if asked == id { GoneRow::There } else { GoneRow::Merged(asked) };
                    all.insert(id, gone);
                } else if let Some(master) = row.master_record_id() {
                    next.insert(id, master);
                }
            }
            open = next;
        }
        Ok(all)
    }

    async fn deleted_rows(&self, ids: &[SalesforceId]) -> Result<BTreeMap<SalesforceId, Row>> {
        let mut fields = vec!["Id", "IsDeleted"];
        let schema = self.org.describe(&self.mapping.salesforce_object, self.calls_until()).await?;
        fields.extend(schema.field("MasterRecordId").map(|_| "MasterRecordId"));
        let mut rows = BTreeMap::new();
        for lot in ids.chunks(IDS_OF_A_STATEMENT) {
            let literals: Vec<Literal> = lot.iter().map(Literal::from).collect();
            let select = Select::from(&self.mapping.salesforce_object)?
                .fields(fields.iter().copied())?
                .and(Condition::one_of("Id", literals)?);
            for row in self.org.query_to_end(&select, true, self.calls_until()).await? {
                if let Some(id) = row.id() {
                    rows.insert(id, row);
                }
            }
        }
        Ok(rows)
    }
}
