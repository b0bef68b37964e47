//! Records of the org's objects, with what queries still show of them and the indexes that writes need.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::datetime;
use super::catalog::{Field, FieldType, Kind};

/// A value that is not null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Cell {
    /// Text, ids, days.
    Text(String),
    Number(f64),
    Bool(bool),
    /// Milliseconds since 1970.
    Time(i64),
}

impl Cell {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn json(&self, field: &Field) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Bool(value) => json!(value),
            Self::Time(ms) => json!(datetime(*ms)),
            Self::Number(number) if field.kind == FieldType::Int => json!(*number as i64),
            Self::Number(number) => json!(number),
        }
    }

    /// As a Bulk result or a state dump shows it.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bool(value) => value.to_string(),
            Self::Time(ms) => datetime(*ms).replace("+0000", "Z"),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Values by field, in the order of the object's definition.
pub(crate) type Cells = Vec<Option<Cell>>;

pub(crate) const ID: usize = 0;
pub(crate) const IS_DELETED: usize = 1;
pub(crate) const OWNER: usize = 2;
pub(crate) const CREATED: usize = 3;
pub(crate) const CREATED_BY: usize = 4;
pub(crate) const MODIFIED: usize = 5;
pub(crate) const MODIFIED_BY: usize = 6;
pub(crate) const MODSTAMP: usize = 7;

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) cells: Cells,
    /// What queries show until the given moment, oldest first; `None`: nothing.
    behind: Vec<(i64, Option<Cells>)>,
}

impl Record {
    pub(crate) fn cell(&self, at: usize) -> Option<&Cell> {
        self.cells.get(at)?.as_ref()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.cell(IS_DELETED) == Some(&Cell::Bool(true))
    }

    pub(crate) fn time(&self, at: usize) -> i64 {
        match self.cell(at) {
            Some(Cell::Time(ms)) => *ms,
            _ => 0,
        }
    }

    /// What a query at this moment finds.
    pub(crate) fn seen_by_query(&self, now: i64) -> Option<&Cells> {
        match self.behind.iter().find(|(until, _)| now < *until) {
            Some((_, cells)) => cells.as_ref(),
            None => Some(&self.cells),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) kind: Kind,
    names: HashMap<String, usize>,
    pub(crate) records: BTreeMap<String, Record>,
    pub(crate) next: u64,
    /// Live records by folded value.
    indexes: HashMap<usize, HashMap<String, BTreeSet<String>>>,
}

/// What makes two texts the same to Salesforce.
pub(crate) fn fold(text: &str, case_sensitive: bool) -> String {
    if case_sensitive { text.to_owned() } else { text.to_lowercase() }
}

impl Table {
    pub(crate) fn new(kind: Kind) -> Self {
        let mut table =
            Self { names: HashMap::new(), records: BTreeMap::new(), next: 1, indexes: HashMap::new(), kind };
        table.rename();
        table
    }

    fn rename(&mut self) {
        self.names = self.kind.fields.iter().enumerate().map(|(at, field)| (field.name.to_lowercase(), at)).collect();
        let keys: Vec<usize> = (self.kind.fields.iter().enumerate())
            .filter(|(_, field)| field.external_id || field.unique)
            .map(|(at, _)| at)
            .collect();
        for at in keys {
            self.index(at);
        }
    }

    /// Adds or replaces a field.
    pub(crate) fn define(&mut self, field: Field) {
        match self.at(&field.name) {
            Some(at) => self.kind.fields[at] = field,
            None => self.kind.fields.push(field),
        }
        self.rename();
    }

    /// Keeps an index of a field from now on.
    pub(crate) fn index(&mut self, at: usize) {
        if self.indexes.contains_key(&at) {
            return;
        }
        let mut index: HashMap<String, BTreeSet<String>> = HashMap::new();
        for record in self.records.values().filter(|record| !record.is_deleted()) {
            if let Some(cell) = record.cell(at) {
                index.entry(self.key(at, cell)).or_default().insert(record.id.clone());
            }
        }
        self.indexes.insert(at, index);
    }

    fn key(&self, at: usize, cell: &Cell) -> String {
        let case_sensitive = self.kind.fields.get(at).is_some_and(|field| field.case_sensitive);
        fold(&cell.plain(), case_sensitive)
    }

    /// The field of this name, whatever its case.
    pub(crate) fn at(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_lowercase()).copied()
    }

    pub(crate) fn field(&self, at: usize) -> Option<&Field> {
        self.kind.fields.get(at)
    }

    /// Live records with this value; an index must be kept.
    pub(crate) fn find(&self, at: usize, text: &str) -> Vec<String> {
        let key = self.key(at, &Cell::Text(text.to_owned()));
        self.indexes.get(&at).and_then(|index| index.get(&key)).into_iter().flatten().cloned().collect()
    }

    pub(crate) fn live(&self, id: &str) -> Option<&Record> {
        self.records.get(id).filter(|record| !record.is_deleted())
    }

    /// Stores a record's new values. `lag_until`: until when queries show what was there before.
    pub(crate) fn put(&mut self, id: &str, cells: Cells, now: i64, lag_until: i64) {
        let old = self.records.get(id).map(|record| record.cells.clone());
        let deleted = |cells: &Cells| cells.get(IS_DELETED) == Some(&Some(Cell::Bool(true)));
        let keys: Vec<usize> = self.indexes.keys().copied().collect();
        for at in keys {
            let of = |cells: &Cells| cells.get(at)?.as_ref().filter(|_| !deleted(cells)).map(|cell| self.key(at, cell));
            let (before, after) = (old.as_ref().and_then(of), of(&cells));
            if before == after {
                continue;
            }
            let Some(index) = self.indexes.get_mut(&at) else { continue };
            if let Some(before) = before
                && let Some(ids) = index.get_mut(&before)
            {
                ids.remove(id);
                if ids.is_empty() {
                    index.remove(&before);
                }
            }
            if let Some(after) = after {
                index.entry(after).or_default().insert(id.to_owned());
            }
        }
        let record = self.records.entry(id.to_owned()).or_insert_with(|| Record {
            id: id.to_owned(),
            cells: Vec::new(),
            behind: Vec::new(),
        });
        record.behind.retain(|(until, _)| now < *until);
        if lag_until > now {
            let until = record.behind.last().map_or(lag_until, |(until, _)| lag_until.max(*until));
            record.behind.push((until, old));
        }
        record.cells = cells;
    }

    /// Forgets a record for good.
    pub(crate) fn purge(&mut self, id: &str) -> bool {
        let Some(record) = self.records.remove(id) else { return false };
        for index in self.indexes.values_mut() {
            for ids in index.values_mut() {
                ids.remove(&record.id);
            }
            index.retain(|_, ids| !ids.is_empty());
        }
        true
    }

    /// A field's value, derived ones included.
    pub(crate) fn value(&self, cells: &Cells, at: usize) -> Option<Cell> {
        let field = self.kind.fields.get(at)?;
        if field.name == "Name"
            && let (Some(first), Some(last)) = (self.at("FirstName"), self.at("LastName"))
        {
            let part = |at: usize| cells.get(at).and_then(Option::as_ref).and_then(Cell::text);
            let parts: Vec<&str> = [part(first), part(last)].into_iter().flatten().collect();
            return (!parts.is_empty()).then(|| Cell::Text(parts.join(" ")));
        }
        cells.get(at)?.clone()
    }

    /// A field as an answer shows it: null where there is nothing, compound fields as objects.
    pub(crate) fn shown(&self, cells: &Cells, at: usize) -> Value {
        let Some(field) = self.kind.fields.get(at) else { return Value::Null };
        if field.kind == FieldType::Address {
            let mut all = Map::new();
            let prefix = field.name.trim_end_matches("Address");
            let mut any = false;
            for (member, part) in [
                ("city", "City"),
                ("country", "Country"),
                ("geocodeAccuracy", ""),
                ("latitude", ""),
                ("longitude", ""),
                ("postalCode", "PostalCode"),
                ("state", "State"),
                ("street", "Street"),
            ] {
                let value = (!part.is_empty())
                    .then(|| self.at(&format!("{prefix}{part}")))
                    .flatten()
                    .and_then(|at| self.value(cells, at));
                any |= value.is_some();
                all.insert(member.to_owned(), value.map_or(Value::Null, |cell| json!(cell.plain())));
            }
            return if any { Value::Object(all) } else { Value::Null };
        }
        self.value(cells, at).map_or(Value::Null, |cell| cell.json(field))
    }
}
