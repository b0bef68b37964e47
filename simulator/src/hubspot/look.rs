//! What a page shows of an account: its object types, records by words, one record with its history, how full the limits are
//! and what goes wrong on purpose. Nothing here counts as a call.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::store::{Kind, Record};
use super::{Fault, Portal};

/// An object type, and how many records it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectType {
    /// As paths name it: `contacts`.
    pub name: String,
    /// `0-1`.
    pub id: String,
    /// Records that are not archived.
    pub live: usize,
    /// Records in the recycle bin.
    pub archived: usize,
}

/// Some records of those that were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// All that there are.
    pub total: usize,
    /// The properties of the rows, in their order.
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
    pub archived: bool,
    /// When it was modified last.
    pub updated_at: Timestamp,
    /// Values, as many as there are columns; empty where there is none.
    pub values: Vec<String>,
}

/// One record, with all that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portrait {
    /// Its id.
    pub id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was modified last.
    pub updated_at: Timestamp,
    /// When it went to the recycle bin.
    pub archived_at: Option<Timestamp>,
    /// Every property that has, or had, a value; then those that could be given one.
    pub properties: Vec<PortraitProperty>,
    /// Records it is linked to: object type and ids.
    pub associations: Vec<(String, Vec<String>)>,
}

/// A property of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortraitProperty {
    /// Internal name.
    pub name: String,
    /// What people see.
    pub label: String,
    /// What it has now; empty for none.
    pub value: String,
    /// People may change it.
    pub writable: bool,
    /// Of an enumeration: values and labels.
    pub options: Vec<(String, String)>,
    /// The values it had, the newest (the present one) first.
    pub history: Vec<(Timestamp, String)>,
}

/// How full a limit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    /// `burst`, `daily`, `search` or `associations`.
    pub name: &'static str,
    /// Whose it is, where each app has its own.
    pub app: Option<String>,
    /// Calls that count now.
    pub used: u64,
    /// The most that may; none where the limit is off.
    pub limit: Option<u64>,
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Portal {
    /// Whether the account has an object type of this name.
    pub fn has_object(&self, object: &str) -> bool {
        self.kind(object).is_ok()
    }

    /// Whether an object type has a property of this name.
    pub fn has_property(&self, object: &str, property: &str) -> bool {
        self.kind(object).is_ok_and(|at| self.at(at).property_id(property).is_some())
    }

    /// The object types, in the account's order.
    pub fn object_types(&self) -> Vec<ObjectType> {
        let all = self.kinds.iter().map(|kind| {
            let live = kind.records.values().filter(|record| record.archived.is_none()).count();
            ObjectType { name: kind.plural.clone(), id: kind.id.clone(), live, archived: kind.records.len() - live }
        });
        all.collect()
    }

    /// Records, archived ones too, in whose id and values every word of `words` occurs, whatever its case; the newest first, `limit` of them
    /// from the `offset`th on. `None` for an unknown object type. Reads every record: for people, not for programs.
    pub fn look_for(&self, object: &str, words: &str, offset: usize, limit: usize) -> Option<Found> {
        let kind = self.at(self.kind(object).ok()?);
        let wanted: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let mut text = String::new();
        let mut fits = |record: &Record| {
            if wanted.is_empty() {
                return true;
            }
            text.clear();
            let _ = write!(text, "{}", record.id);
            for cell in &record.cells {
                text.push('\n');
                text.push_str(&cell.text.to_lowercase());
            }
            wanted.iter().all(|word| text.contains(word.as_str()))
        };
        let columns: Vec<(String, u16)> = kind
            .shown
            .iter()
            .filter(|name| !name.contains("date") && *name != "hs_object_id")
            .filter_map(|name| Some((name.clone(), kind.property_id(name)?)))
            .collect();
        let mut found: Vec<&Record> = kind.records.values().filter(|record| fits(record)).collect();
        found.sort_unstable_by_key(|record| {
            std::cmp::Reverse((record.updated.max(record.archived.unwrap_or(0)), record.id))
        });
        let rows = found.iter().skip(offset).take(limit).map(|record| FoundRow {
            id: record.id.to_string(),
            archived: record.archived.is_some(),
            updated_at: time(record.updated),
            values: columns
                .iter()
                .map(|(_, property)| {
                    kind.value(record, *property, Kind::newest(record)).unwrap_or_default().into_owned()
                })
                .collect(),
        });
        Some(Found {
            total: found.len(),
            rows: rows.collect(),
            columns: columns.into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// One record, archived or not, following merges.
    pub fn portrait(&self, object: &str, id: &str) -> Option<Portrait> {
        let at = self.kind(object).ok()?;
        let kind = self.at(at);
        let record = kind.records.get(&kind.survivor(id.parse().ok()?))?;
        let mut properties = Vec::new();
        for (property, number) in kind.properties.iter().zip(0_u16..) {
            let definition = &property.definition;
            let value = kind.value(record, number, Kind::newest(record)).unwrap_or_default().into_owned();
            let history: Vec<(Timestamp, String)> =
                record.history(number).map(|(at, text)| (time(at), text.to_owned())).collect();
            let writable = !definition.read_only() && !definition.archived;
            if value.is_empty() && history.is_empty() && !writable {
                continue;
            }
            let options = definition.options.iter().map(|option| (option.value.clone(), option.label.clone()));
            properties.push(PortraitProperty {
                name: definition.name.clone(),
                label: definition.label.clone(),
                value,
                writable,
                options: options.collect(),
                history,
            });
        }
        properties.sort_by_key(|property| property.value.is_empty() && property.history.is_empty());
        let links = (self.kinds.iter().enumerate()).filter_map(|(to, far)| {
            let ids: Vec<String> = self.associations.of(at, record.id, to).map(|(id, _)| id.to_string()).collect();
            (!ids.is_empty()).then(|| (far.plural.clone(), ids))
        });
        Some(Portrait {
            id: record.id.to_string(),
            created_at: time(record.created),
            updated_at: time(record.updated),
            archived_at: record.archived.map(time),
            properties,
            associations: links.collect(),
        })
    }

    /// How full each limit is at `now`.
    pub fn limit_use(&mut self, now: Timestamp) -> Vec<LimitUse> {
        let now_ms = now.as_millisecond();
        let limits = self.settings.limits.clone();
        let mut all = Vec::new();
        let mut apps: Vec<String> = self.burst.keys().cloned().collect();
        apps.sort();
        if apps.is_empty() {
            all.push(LimitUse { name: "burst", app: None, used: 0, limit: limits.burst.map(u64::from) });
        }
        for app in apps {
            let used = self.burst.get_mut(&app).map_or(0, |window| window.used(now_ms, limits.interval_ms));
            all.push(LimitUse { name: "burst", app: Some(app), used: used.into(), limit: limits.burst.map(u64::from) });
        }
        let date = now.to_zoned(self.zone.clone()).date();
        all.push(LimitUse { name: "daily", app: None, used: self.day.used(date), limit: limits.daily });
        let used = self.searches.used(now_ms, 1_000);
        let limit = limits.search_per_second.map(u64::from);
        all.push(LimitUse { name: "search", app: None, used: used.into(), limit });
        all
    }

    /// The faults that may still strike, and how often at most; `None` without end.
    pub fn faults_left(&self) -> Vec<(Fault, Option<u64>)> {
        self.faults.left()
    }
}
