//! Search over an index that trails behind. SOURCES.md "Search".

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Handled, parse};
use super::objects::{Id, write_seen};
use super::store::{Kind, Record, Seen};
use super::{Call, Portal};

const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 200;
/// Results that paging can reach.
const REACH_MAX: usize = 10_000;
const GROUPS_MAX: usize = 5;
const FILTERS_PER_GROUP_MAX: usize = 6;
const FILTERS_MAX: usize = 18;
const QUERY_CHARS_MAX: usize = 3_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Search {
    filter_groups: Option<Vec<Group>>,
    filters: Option<Vec<Filter>>,
    sorts: Option<Vec<Sort>>,
    properties: Option<Vec<String>>,
    limit: Option<Id>,
    after: Option<Id>,
    query: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    filters: Vec<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    property_name: String,
    operator: String,
    value: Option<Id>,
    high_value: Option<Id>,
    values: Option<Vec<Id>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Sort {
    Name(String),
    #[serde(rename_all = "camelCase")]
    Full {
        property_name: String,
        #[serde(default)]
        direction: Option<String>,
    },
}

/// A value ready to be compared.
#[derive(Debug, Clone, PartialEq)]
enum Key {
    Number(f64),
    Text(String),
}

/// A filter whose property has been looked up.
struct Ready {
    target: Target,
    operator: String,
    values: Vec<Key>,
}

enum Target {
    Id,
    Modified,
    Created,
    Stored(u16, bool),
    /// Associated with a record of that type.
    End(usize),
}

fn problem() -> Box<ApiError> {
    ApiError::validation("There was a problem with the request.")
}

/// Numbers and times as numbers, text in lower case.
fn key(text: &str, numeric: bool) -> Option<Key> {
    if !numeric {
        return Some(Key::Text(text.to_lowercase()));
    }
    if let Ok(number) = text.parse::<f64>() {
        return Some(Key::Number(number));
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Key::Number(at.as_millisecond() as f64));
    }
    let date = text.parse::<jiff::civil::Date>().ok()?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Key::Number(at.timestamp().as_millisecond() as f64))
}

fn compare(left: &Key, right: &Key) -> Ordering {
    match (left, right) {
        (Key::Number(left), Key::Number(right)) => left.total_cmp(right),
        (Key::Text(left), Key::Text(right)) => left.cmp(right),
        (Key::Number(_), Key::Text(_)) => Ordering::Less,
        (Key::Text(_), Key::Number(_)) => Ordering::Greater,
    }
}

impl Portal {
    pub(super) fn search(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        let search: Search = parse(call.body)?;
        let limit = search.limit.as_ref().map_or(Ok(LIMIT_DEFAULT), |limit| limit.0.parse::<usize>());
        let Some(limit) = limit.ok().filter(|limit| *limit <= LIMIT_MAX && *limit > 0) else {
            return Err(ApiError::validation(format!("limit must be between 1 and {LIMIT_MAX}")));
        };
        let after = match search.after.as_ref().map(|after| after.0.as_str()).filter(|after| !after.is_empty()) {
            None => 0,
            Some(text) => text.parse::<usize>().map_err(|_| problem())?,
        };
        if after >= REACH_MAX {
            return Err(problem());
        }
        let mut groups = search.filter_groups.unwrap_or_default();
        if let Some(filters) = search.filters.filter(|filters| !filters.is_empty()) {
            groups.push(Group { filters });
        }
        if groups.len() > GROUPS_MAX {
            let text = format!("too many filterGroups (count: {}, max allowed: {GROUPS_MAX})", groups.len());
            return Err(ApiError::validation(text));
        }
        let total: usize = groups.iter().map(|group| group.filters.len()).sum();
        if total > FILTERS_MAX || groups.iter().any(|group| group.filters.len() > FILTERS_PER_GROUP_MAX) {
            return Err(ApiError::validation(format!(
                "too many filters (count: {total}, max allowed: {FILTERS_MAX}, {FILTERS_PER_GROUP_MAX} per group)"
            )));
        }
        let words = search.query.unwrap_or_default();
        if words.chars().count() > QUERY_CHARS_MAX {
            return Err(problem());
        }
        let sorts = search.sorts.unwrap_or_default();
        if sorts.len() > 1 {
            return Err(ApiError::validation("Only one sort is allowed"));
        }
        let groups: Vec<Vec<Ready>> = groups
            .iter()
            .map(|group| group.filters.iter().map(|filter| self.ready(kind, filter, call.now)).collect())
            .collect::<Handled<_>>()?;
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let own = self.at(kind);
        let mut hits: Vec<(&Record, Seen)> = own
            .records
            .values()
            .filter_map(|record| Some((record, record.indexed(call.now)?)))
            .filter(|(record, seen)| {
                groups.is_empty()
                    || groups.iter().any(|group| group.iter().all(|one| self.fits(kind, record, *seen, one)))
            })
            .filter(|(record, seen)| {
                words.iter().all(|word| {
                    record.cells.iter().any(|cell| {
                        let text = record.text(cell.property, seen.version).unwrap_or_default();
                        text.to_lowercase().contains(word.as_str())
                    })
                })
            })
            .collect();
        if let Some(sort) = sorts.first() {
            let (name, descending) = match sort {
                Sort::Name(name) => match name.strip_prefix('-') {
                    Some(name) => (name, true),
                    None => (name.as_str(), false),
                },
                Sort::Full { property_name, direction } => {
                    (property_name.as_str(), direction.as_deref().is_some_and(|one| one.starts_with("DESC")))
                }
            };
            let (target, numeric) = self.target(kind, name, call.now)?;
            if !matches!(target, Target::Id) || descending {
                hits.sort_by_cached_key(|(record, seen)| {
                    let key = field(own, record, *seen, &target, numeric);
                    Sorted(key, descending)
                });
            }
        }
        let total = hits.len();
        let end = (after + limit).min(total).min(REACH_MAX);
        let show = self.selection(kind, &search.properties.unwrap_or_default(), call.now);
        let mut body = format!(r#"{{"total":{total},"results":["#).into_bytes();
        for (at, (record, seen)) in hits.get(after..end).unwrap_or_default().iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&write_seen(own, record, *seen, &show, self.settings.portal_id));
        }
        body.push(b']');
        if end < total && end > after {
            let paging: Value = json!({"next": {"after": end.to_string()}});
            body.extend_from_slice(format!(r#","paging":{paging}"#).as_bytes());
        }
        body.push(b'}');
        Ok(Answer::bytes(200, body))
    }

    fn target(&self, kind: usize, name: &str, now: i64) -> Handled<(Target, bool)> {
        let own = self.at(kind);
        if name == "hs_object_id" {
            return Ok((Target::Id, true));
        }
        if name == own.modified_property {
            return Ok((Target::Modified, true));
        }
        if name == own.created_property {
            return Ok((Target::Created, true));
        }
        if let Some(to) = name.strip_prefix("associations.") {
            return Ok((Target::End(self.kind(to)?), false));
        }
        let Some((at, property)) = own.property(name, now) else { return Err(problem()) };
        let numeric = matches!(property.definition.kind.as_str(), "number" | "date" | "datetime");
        Ok((Target::Stored(at, numeric), numeric))
    }

    fn ready(&self, kind: usize, filter: &Filter, now: i64) -> Handled<Ready> {
        let (target, numeric) = self.target(kind, &filter.property_name, now)?;
        let known = [
            "LT",
            "LTE",
            "GT",
            "GTE",
            "EQ",
            "NEQ",
            "BETWEEN",
            "IN",
            "NOT_IN",
            "HAS_PROPERTY",
            "NOT_HAS_PROPERTY",
            "CONTAINS_TOKEN",
            "NOT_CONTAINS_TOKEN",
        ];
        let operator = filter.operator.as_str();
        if !known.contains(&operator) {
            return Err(problem());
        }
        let wanted: Vec<&Id> = match operator {
            "IN" | "NOT_IN" => filter.values.iter().flatten().collect(),
            "BETWEEN" => filter.value.iter().chain(&filter.high_value).collect(),
            "HAS_PROPERTY" | "NOT_HAS_PROPERTY" => Vec::new(),
            _ => filter.value.iter().collect(),
        };
        let enough = match operator {
            "HAS_PROPERTY" | "NOT_HAS_PROPERTY" => true,
            "BETWEEN" => wanted.len() == 2,
            _ => !wanted.is_empty(),
        };
        let values: Option<Vec<Key>> = wanted.iter().map(|one| key(&one.0, numeric)).collect();
        match values {
            Some(values) if enough => Ok(Ready { target, operator: operator.to_owned(), values }),
            _ => Err(problem()),
        }
    }

    fn fits(&self, kind: usize, record: &Record, seen: Seen, filter: &Ready) -> bool {
        let own = self.at(kind);
        if let Target::End(to) = filter.target {
            let wanted = |one: &Key| matches!(one, Key::Text(text) if text.parse::<u64>().is_ok_and(|id| self.associations.of(kind, record.id, to).any(|end| end.0 == id)));
            return match filter.operator.as_str() {
                "EQ" | "IN" => filter.values.iter().any(wanted),
                "NEQ" | "NOT_IN" => !filter.values.iter().any(wanted),
                "HAS_PROPERTY" => self.associations.of(kind, record.id, to).next().is_some(),
                _ => false,
            };
        }
        let numeric = !matches!(filter.target, Target::Stored(_, false));
        let value = field(own, record, seen, &filter.target, numeric);
        let order = |at: usize| {
            let value = value.as_ref()?;
            filter.values.get(at).map(|wanted| compare(value, wanted))
        };
        let token = || {
            let (Some(Key::Text(text)), Some(Key::Text(wanted))) = (&value, filter.values.first()) else {
                return false;
            };
            let mut words = text.split(|one: char| !one.is_alphanumeric());
            match (wanted.strip_prefix('*'), wanted.strip_suffix('*')) {
                (Some(_), _) | (_, Some(_)) => text.contains(wanted.trim_matches('*')),
                _ => text == wanted || words.any(|word| word == wanted),
            }
        };
        match filter.operator.as_str() {
            "LT" => order(0) == Some(Ordering::Less),
            "LTE" => order(0).is_some_and(Ordering::is_le),
            "GT" => order(0) == Some(Ordering::Greater),
            "GTE" => order(0).is_some_and(Ordering::is_ge),
            "EQ" => order(0) == Some(Ordering::Equal),
            "NEQ" => order(0) != Some(Ordering::Equal),
            "BETWEEN" => order(0).is_some_and(Ordering::is_ge) && order(1).is_some_and(Ordering::is_le),
            "IN" => value.as_ref().is_some_and(|value| filter.values.contains(value)),
            "NOT_IN" => value.as_ref().is_none_or(|value| !filter.values.contains(value)),
            "HAS_PROPERTY" => value.is_some(),
            "NOT_HAS_PROPERTY" => value.is_none(),
            "CONTAINS_TOKEN" => token(),
            _ => !token(),
        }
    }
}

fn field(own: &Kind, record: &Record, seen: Seen, target: &Target, numeric: bool) -> Option<Key> {
    match target {
        Target::Id => Some(Key::Number(record.id as f64)),
        Target::Modified => Some(Key::Number(seen.updated as f64)),
        Target::Created => Some(Key::Number(record.created as f64)),
        Target::Stored(property, _) => {
            let text = own.value(record, *property, seen).filter(|text| !text.is_empty())?;
            key(&text, numeric)
        }
        Target::End(_) => None,
    }
}

/// Sorts either way; what has no value comes last.
#[derive(Debug, PartialEq)]
struct Sorted(Option<Key>, bool);

impl Eq for Sorted {}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Some(left), Some(right)) if self.1 => compare(right, left),
            (Some(left), Some(right)) => compare(left, right),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}
