//! Versions, limits, describe, and the replication endpoints (`updated`, `deleted`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Handled, datetime, parse_datetime};
use super::store::{Cell, IS_DELETED, MODSTAMP};
use super::{Call, Org};

const MINUTE_MS: i64 = 60_000;
const DAYS_MS: i64 = 24 * 60 * MINUTE_MS;
/// How far back `deleted` and `updated` go.
const DELETED_DAYS: i64 = 15;
const UPDATED_DAYS: i64 = 30;
/// More ids are refused.
const UPDATED_MAX: usize = 600_000;

impl Org {
    pub(super) fn versions(&self) -> Answer {
        let season = |version: u32| match version % 3 {
            2 => "Winter",
            0 => "Spring",
            _ => "Summer",
        };
        // v65 is Winter '26, and three versions make a year.
        let year = |version: u32| 26 + i64::from(version) / 3 - 21 - i64::from(version % 3 < 2);
        let all: Vec<Value> = (20..=self.settings.newest_version)
            .map(|version| {
                json!({"label": format!("{} '{:02}", season(version), year(version).rem_euclid(100)),
                    "url": format!("/services/data/v{version}.0"), "version": format!("{version}.0")})
            })
            .collect();
        Answer::json(200, &Value::Array(all))
    }

    pub(super) fn limits(&mut self, now: i64) -> Answer {
        let most = self.settings.limits.daily;
        let left = most.saturating_sub(self.used(now));
        Answer::json(
            200,
            &json!({"DailyApiRequests": {"Max": most, "Remaining": left},
                "DailyBulkV2QueryJobs": {"Max": 10_000, "Remaining": 10_000},
                "DailyBulkApiBatches": {"Max": 15_000, "Remaining": 15_000}}),
        )
    }

    fn head(&self, table: usize, base: &str) -> Value {
        let kind = &self.tables[table].kind;
        let name = &kind.name;
        json!({"name": name, "label": name, "labelPlural": format!("{name}s"), "keyPrefix": kind.prefix,
            "custom": name.ends_with("__c"), "createable": true, "updateable": true, "deletable": true,
            "undeletable": true, "queryable": true, "retrieveable": true, "replicateable": true,
            "mergeable": matches!(name.as_str(), "Contact" | "Account" | "Lead"),
            "urls": {"sobject": format!("{base}/sobjects/{name}"), "describe": format!("{base}/sobjects/{name}/describe"),
                "rowTemplate": format!("{base}/sobjects/{name}/{{ID}}")}})
    }

    pub(super) fn global(&self, call: &Call<'_>) -> Answer {
        let all: Vec<Value> = (0..self.tables.len()).map(|table| self.head(table, &call.base())).collect();
        Answer::json(200, &json!({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": all}))
    }

    pub(super) fn describe(&self, call: &Call<'_>, object: &str) -> Handled {
        let table = self.object(object)?;
        if call.header("if-modified-since").is_some_and(|text| http_date(text).is_some()) {
            // Definitions of a simulated org do not change on their own.
            return Ok(Answer::empty(304));
        }
        let fields: Vec<Value> = (self.tables[table].kind.fields.iter().enumerate())
            .filter(|(at, _)| !self.is_hidden(table, *at))
            .map(|(at, field)| field.describe(!self.read_only.contains(&(table, at))))
            .collect();
        let mut all = self.head(table, &call.base());
        all["fields"] = Value::Array(fields);
        all["childRelationships"] = json!([]);
        all["recordTypeInfos"] = json!([]);
        Ok(Answer::json(200, &all).with("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"))
    }

    /// Start and end, to the minute.
    fn window(&self, call: &Call<'_>, days: i64) -> Handled<(i64, i64)> {
        let get = |name: &str| {
            let text = call.parameter(name).unwrap_or_default();
            // A plus that was not encoded arrives as a space.
            let ms = parse_datetime(&text.replace(' ', "+"));
            let bad = || ApiError::bad("INVALID_REPLICATION_DATE", format!("{name}Date is not a valid date"));
            ms.map(|ms| ms.div_euclid(MINUTE_MS) * MINUTE_MS).ok_or_else(bad)
        };
        let (start, end) = (get("start")?, get("end")?);
        if start >= end {
            return Err(ApiError::bad("INVALID_REPLICATION_DATE", "startDate before endDate"));
        }
        if start < call.now - days * DAYS_MS {
            return Err(ApiError::bad(
                "INVALID_REPLICATION_DATE",
                format!("startDate cannot be more than {days} days ago"),
            ));
        }
        Ok((start, end))
    }

    pub(super) fn updated(&self, call: &Call<'_>, object: &str) -> Handled {
        let table = self.object(object)?;
        let (start, end) = self.window(call, UPDATED_DAYS)?;
        let ids: Vec<&str> = (self.tables[table].records.values())
            .filter_map(|record| Some((record, record.seen_by_query(call.now)?)))
            .filter(|(_, cells)| {
                let at = match cells.get(MODSTAMP) {
                    Some(Some(Cell::Time(ms))) => *ms,
                    _ => 0,
                };
                cells.get(IS_DELETED) != Some(&Some(Cell::Bool(true))) && (start..end).contains(&at)
            })
            .map(|(record, _)| record.id.as_str())
            .collect();
        if ids.len() > UPDATED_MAX {
            return Err(ApiError::bad("EXCEEDED_ID_LIMIT", "too many ids"));
        }
        let covered = end.min(call.now.div_euclid(MINUTE_MS) * MINUTE_MS);
        Ok(Answer::json(200, &json!({"ids": ids, "latestDateCovered": datetime(covered)})))
    }

    pub(super) fn deleted(&self, call: &Call<'_>, object: &str) -> Handled {
        let table = self.object(object)?;
        let (start, end) = self.window(call, DELETED_DAYS)?;
        let own = self.deleted_log.iter().filter(|(own, _, _)| *own == table);
        let earliest = own.clone().map(|(_, _, at)| *at).min().unwrap_or(call.now - DELETED_DAYS * DAYS_MS);
        let records: Vec<Value> = own
            .filter(|(_, id, at)| {
                (start..end).contains(at)
                    && self.tables[table].records.get(id).is_some_and(|record| record.is_deleted())
            })
            .map(|(_, id, at)| json!({"id": id, "deletedDate": datetime(*at)}))
            .collect();
        let covered = end.min(call.now.div_euclid(MINUTE_MS) * MINUTE_MS);
        Ok(Answer::json(
            200,
            &json!({"deletedRecords": records, "earliestDateAvailable": datetime(earliest),
                "latestDateCovered": datetime(covered)}),
        ))
    }
}

/// A date as HTTP writes it.
pub(super) fn http_date(text: &str) -> Option<i64> {
    let at: Timestamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(at.as_millisecond())
}
