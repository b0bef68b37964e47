//! `query`, `queryAll` and the pages that follow.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError, Handled};
use super::catalog::FieldType;
use super::eval::{Bound, Path};
use super::store::Cells;
use super::{Call, Org, ids};

/// Cursors kept; the oldest goes when there are more.
const CURSORS_MAX: usize = 2_000;
const PAGE_LEAST: usize = 200;

/// What is left of a query.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    bound: Arc<Bound>,
    ids: Arc<[String]>,
    page: usize,
    made_at: i64,
}

impl Org {
    pub(super) fn query(&mut self, call: &Call<'_>, all: bool) -> Handled {
        let text = call.parameter("q").ok_or_else(|| ApiError::bad("MALFORMED_QUERY", "unexpected token: '<EOF>'"))?;
        let bound = self.bind(text)?;
        let found = self.run(&bound, all, call.now);
        if bound.columns.is_empty() {
            return Ok(Answer::json(200, &json!({"totalSize": found.len(), "done": true, "records": []})));
        }
        let asked = call.header("sforce-query-options").and_then(|options| {
            let (name, size) = options.split_once('=')?;
            size.trim().parse::<usize>().ok().filter(|_| name.trim().eq_ignore_ascii_case("batchSize"))
        });
        let page = asked.unwrap_or(2_000).clamp(PAGE_LEAST, 2_000).min(self.settings.page_most.max(1));
        let cursor = Cursor { bound: Arc::new(bound), ids: found.into(), page, made_at: call.now };
        self.page(call, cursor, 0, None)
    }

    pub(super) fn more(&mut self, call: &Call<'_>, locator: &str) -> Handled {
        let gone = || {
            let status = self.settings.locator_status;
            ApiError::new(status, "INVALID_QUERY_LOCATOR", "invalid query locator")
        };
        let (key, from) = locator.rsplit_once('-').ok_or_else(gone)?;
        let from: usize = from.parse().map_err(|_| gone())?;
        let life = i64::try_from(self.settings.locator_seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        let cursor = self.cursors.get(key).filter(|cursor| call.now - cursor.made_at < life && from < cursor.ids.len());
        let cursor = cursor.cloned().ok_or_else(gone)?;
        self.page(call, cursor, from, Some(key.to_owned()))
    }

    fn page(&mut self, call: &Call<'_>, cursor: Cursor, from: usize, key: Option<String>) -> Handled {
        let left = cursor.ids.len().saturating_sub(from);
        let mut size = cursor.page.min(left);
        if self.settings.short_pages && size > 1 && left > size / 2 {
            size = self.rng.usize(size / 2 + 1..=size);
        }
        let base = call.base();
        let records: Vec<Value> = (cursor.ids.iter().skip(from).take(size))
            .filter_map(|id| {
                let record = self.tables[cursor.bound.table].records.get(id)?;
                let cells = record.seen_by_query(call.now).unwrap_or(&record.cells);
                Some(self.row(&cursor.bound, cells, &base, call.now))
            })
            .collect();
        let done = from + size >= cursor.ids.len();
        let mut answer = json!({"totalSize": cursor.ids.len(), "done": done});
        if !done {
            let key = key.unwrap_or_else(|| {
                self.next_cursor += 1;
                let key = ids::make("01g", self.next_cursor);
                if self.cursors.len() >= CURSORS_MAX
                    && let Some(oldest) = self
                        .cursors
                        .iter()
                        .min_by_key(|(key, cursor)| (cursor.made_at, (*key).clone()))
                        .map(|(key, _)| key.clone())
                {
                    self.cursors.remove(&oldest);
                }
                self.cursors.insert(key.clone(), cursor);
                key
            });
            answer["nextRecordsUrl"] = json!(format!("{base}/query/{key}-{}", from + size));
        }
        answer["records"] = Value::Array(records);
        Ok(Answer::json(200, &answer))
    }

    /// A record as a query shows it: what was selected, parents as objects.
    pub(super) fn row(&self, bound: &Bound, cells: &Cells, base: &str, now: i64) -> Value {
        let mut all = self.attributes(bound.table, cells, base);
        for path in &bound.columns {
            self.place(&mut all, path, cells, base, now);
        }
        Value::Object(all)
    }

    pub(super) fn attributes(&self, table: usize, cells: &Cells, base: &str) -> Map<String, Value> {
        let name = &self.tables[table].kind.name;
        let id = cells.first().and_then(Option::as_ref).map(super::store::Cell::plain).unwrap_or_default();
        let mut all = Map::new();
        all.insert("attributes".to_owned(), json!({"type": name, "url": format!("{base}/sobjects/{name}/{id}")}));
        all
    }

    fn place(&self, into: &mut Map<String, Value>, path: &Path, cells: &Cells, base: &str, now: i64) {
        let mut into = into;
        let mut cells = cells;
        for (at, (table, field)) in path.steps.iter().enumerate() {
            let definition = &self.tables[*table].kind.fields[*field];
            let Some((to, _)) = path.steps.get(at + 1) else {
                into.insert(definition.name.clone(), self.tables[*table].shown(cells, *field));
                return;
            };
            let name = definition.relationship.clone().unwrap_or_default();
            let id = cells.get(*field).and_then(Option::as_ref).and_then(super::store::Cell::text);
            let parent = id.and_then(|id| self.tables[*to].live(id)).and_then(|record| record.seen_by_query(now));
            let Some(parent) = parent else {
                into.insert(name, Value::Null);
                return;
            };
            let entry = into.entry(name).or_insert_with(|| Value::Object(self.attributes(*to, parent, base)));
            let Value::Object(inner) = entry else { return };
            into = inner;
            cells = parent;
        }
    }

    /// Whether a statement selects what Bulk queries refuse.
    pub(super) fn selects_compound(bound: &Bound) -> bool {
        bound.columns.iter().any(|path| path.kind == FieldType::Address)
    }
}
