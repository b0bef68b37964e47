//! Search over an index that trails behind. SOURCES.md "Search".

use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Handled, parse};
use super::index::{self, Part, Place};
use super::objects::{Id, write_seen};
use super::store::{Kind, Record};
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
        let as_text = self.settings.unsettled.ids_are_text;
        let short = self.short_page();
        self.at_mut(kind).catch_up(call.now, as_text);
        let groups: Vec<Vec<Ready>> = groups
            .iter()
            .map(|group| group.filters.iter().map(|filter| self.ready(kind, filter, call.now)).collect())
            .collect::<Handled<_>>()?;
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        let sort = match sorts.first() {
            None => None,
            Some(Sort::Name(name)) => Some(match name.strip_prefix('-') {
                Some(name) => (self.target(kind, name, call.now)?, true),
                None => (self.target(kind, name, call.now)?, false),
            }),
            Some(Sort::Full { property_name, direction }) => {
                let descending = direction.as_deref().is_some_and(|one| one.starts_with("DESC"));
                Some((self.target(kind, property_name, call.now)?, descending))
            }
        };
        let own = self.at(kind);
        // One group can be narrowed by what the index is ordered by; of several, each would have to be.
        let (part, exact) = match groups.as_slice() {
            [] => (Part::all(), true),
            [group] => narrow(group, as_text),
            _ => (Part::all(), false),
        };
        let by_id = match &sort {
            None => !as_text,
            Some(((Target::Id, _), descending)) => !descending,
            Some(_) => false,
        };
        let (total, page): (usize, Vec<&Record>) = if exact && by_id && words.is_empty() {
            let (total, ids) = own.index.first(&part, after + limit);
            (total, ids.iter().skip(after).filter_map(|id| own.found(*id)).collect())
        } else {
            let mut hits: Vec<&Record> = if part.is_all() {
                own.searchable()
            } else {
                let (_, ids) = own.index.first(&part, usize::MAX);
                let mut all: Vec<&Record> = ids.iter().filter_map(|id| own.found(*id)).collect();
                all.sort_unstable_by_key(|record| record.id);
                all
            };
            hits.retain(|record| {
                groups.is_empty() || groups.iter().any(|group| group.iter().all(|one| self.fits(kind, record, one)))
            });
            hits.retain(|record| {
                words.iter().all(|word| {
                    record.cells.iter().any(|cell| {
                        let text = record.text(cell.property, record.seen.version).unwrap_or_default();
                        text.to_lowercase().contains(word.as_str())
                    })
                })
            });
            if let Some(((target, numeric), descending)) = &sort {
                hits.sort_by_cached_key(|record| Sorted(field(own, record, target, *numeric), *descending));
            }
            let total = hits.len();
            (total, hits.into_iter().skip(after).take(limit).collect())
        };
        let size = shortened(page.len().min(REACH_MAX - after), short);
        let end = after + size;
        let show = self.selection(kind, &search.properties.unwrap_or_default(), call.now);
        let mut body = format!(r#"{{"total":{total},"results":["#).into_bytes();
        for (at, record) in page.iter().take(size).enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&write_seen(own, record, record.seen, &show, self.settings.portal_id));
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
            return Ok((Target::Id, !self.settings.unsettled.ids_are_text));
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
        if matches!(target, Target::Modified | Target::Created) && wanted.iter().any(|one| one.0 == "0") {
            return Err(ApiError::new(500, "internal error"));
        }
        let values: Option<Vec<Key>> = wanted.iter().map(|one| key(&one.0, numeric)).collect();
        match values {
            Some(values) if enough => Ok(Ready { target, operator: operator.to_owned(), values }),
            _ => Err(problem()),
        }
    }

    fn fits(&self, kind: usize, record: &Record, filter: &Ready) -> bool {
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
        let numeric = match filter.target {
            Target::Stored(_, numeric) => numeric,
            Target::Id => !self.settings.unsettled.ids_are_text,
            _ => true,
        };
        let value = field(own, record, &filter.target, numeric);
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

fn field(own: &Kind, record: &Record, target: &Target, numeric: bool) -> Option<Key> {
    match target {
        Target::Id if numeric => Some(Key::Number(record.id as f64)),
        Target::Id => Some(Key::Text(record.id.to_string())),
        Target::Modified => Some(Key::Number(record.seen.updated as f64)),
        Target::Created => Some(Key::Number(record.created as f64)),
        Target::Stored(property, _) => {
            let text = own.value(record, *property, record.seen).filter(|text| !text.is_empty())?;
            key(&text, numeric)
        }
        Target::End(_) => None,
    }
}

/// The part of the index that a group of filters is about, and whether that part is the whole answer.
fn narrow(group: &[Ready], as_text: bool) -> (Part, bool) {
    let mut part = Part::all();
    let mut exact = true;
    for filter in group {
        let known = match filter.target {
            Target::Modified => times(filter).map(|window| {
                let old = part.modified.take().unwrap_or(i64::MIN..i64::MAX);
                part.modified = Some(old.start.max(window.start)..old.end.min(window.end));
            }),
            Target::Id => places(filter, as_text).map(|ids| {
                part.ids = part.ids.start.max(ids.start)..part.ids.end.min(ids.end);
            }),
            _ => None,
        };
        exact &= known.is_some();
    }
    (part, exact)
}

/// The milliseconds a filter lets through, where they are one range.
fn times(filter: &Ready) -> Option<std::ops::Range<i64>> {
    let value = |at: usize| match filter.values.get(at) {
        Some(Key::Number(number)) if number.is_finite() => Some(*number),
        _ => None,
    };
    let first = value(0)?;
    // `as` saturates, which is what a bound should do.
    let (at, over) = (first.ceil() as i64, (first.floor() as i64).saturating_add(1));
    Some(match filter.operator.as_str() {
        "GT" => over..i64::MAX,
        "GTE" => at..i64::MAX,
        "LT" => i64::MIN..at,
        "LTE" => i64::MIN..over,
        "EQ" => at..over,
        "BETWEEN" => at..(value(1)?.floor() as i64).saturating_add(1),
        _ => return None,
    })
}

/// The places of ids a filter lets through, where they are one range.
fn places(filter: &Ready, as_text: bool) -> Option<std::ops::Range<Place>> {
    let value = |at: usize| match filter.values.get(at)? {
        Key::Number(number) => (number.fract() == 0.0 && *number >= 0.0).then_some(*number as u64),
        Key::Text(text) => text.parse::<u64>().ok().filter(|id| id.to_string() == *text),
    };
    let first = index::place(value(0)?, as_text);
    Some(match filter.operator.as_str() {
        "GT" => first + 1..Place::MAX,
        "GTE" => first..Place::MAX,
        "LT" => 0..first,
        "LTE" => 0..first + 1,
        "EQ" => first..first + 1,
        "BETWEEN" => first..index::place(value(1)?, as_text) + 1,
        _ => return None,
    })
}

/// How many of a page's records come, when it is to be short.
pub(super) fn shortened(size: usize, short: Option<f64>) -> usize {
    match short {
        // Rounded down: always less than the whole page.
        Some(part) if size > 1 => 1 + ((size - 1) as f64 * part) as usize,
        _ => size,
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
