//! What one record's write does, in the order in which an org does it: fields, conversion, automation, required fields, unique
//! values, validation rules, duplicate rules, commit.

use serde_json::{Map, Value, json};

use super::Org;
use super::answer::{ApiError, Handled};
use super::catalog::Field;
use super::doors::Write;
use super::ids;
use super::settings::Test;
use super::store::{CREATED, CREATED_BY, Cell, Cells, ID, IS_DELETED, MODIFIED, MODIFIED_BY, MODSTAMP, OWNER, fold};

/// What is said of a locked record.
pub(crate) const LOCKED: &str = "unable to obtain exclusive access to this record or 1 records";
/// Writes remembered; the oldest half goes when there are more.
const HISTORY_MAX: usize = 500_000;

/// Who writes, when, and under which rules.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) now: i64,
    /// User id.
    pub(crate) user: String,
    /// A person in the browser: neither field permissions nor locks stand in the way, nor duplicate rules.
    pub(crate) person: bool,
    /// Duplicates may be saved where the rule only alerts.
    pub(crate) allow_duplicates: bool,
}

/// What was there before the writes of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Undo {
    old: Vec<(usize, String, Option<Cells>)>,
    history: usize,
    counts: super::Counts,
}

impl Org {
    pub(crate) fn begin(&self) -> Undo {
        Undo { old: Vec::new(), history: self.history.len(), counts: self.counts }
    }

    /// Takes everything back.
    pub(crate) fn roll_back(&mut self, undo: Undo, now: i64) {
        for (table, id, old) in undo.old.into_iter().rev() {
            match old {
                Some(cells) => self.tables[table].put(&id, cells, now, now),
                None => {
                    self.tables[table].purge(&id);
                }
            }
        }
        self.history.truncate(undo.history);
        self.counts = super::Counts {
            requests: self.counts.requests,
            counted: self.counts.counted,
            limited: self.counts.limited,
            ..undo.counts
        };
    }

    /// Creates (`id` is `None`) or changes a record and returns its id.
    pub(crate) fn save(
        &mut self,
        table: usize,
        id: Option<&str>,
        values: &Map<String, Value>,
        writer: &Writer,
        undo: Option<&mut Undo>,
    ) -> Handled<String> {
        let id = id.map(|id| ids::full(id).ok_or_else(|| ApiError::bad("MALFORMED_ID", format!("malformed id {id}"))));
        let id = id.transpose()?;
        let old = match &id {
            None => None,
            Some(id) => match self.tables[table].records.get(id) {
                None => return Err(ApiError::not_found()),
                Some(record) if record.is_deleted() => return Err(ApiError::deleted()),
                Some(record) => Some(record.cells.clone()),
            },
        };
        if let Some(cells) = &old
            && let Some(at) = self.tables[table].at("IsConverted")
            && cells.get(at) == Some(&Some(Cell::Bool(true)))
            && !writer.person
        {
            return Err(ApiError::bad("CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead"));
        }
        let sent = self.convert_all(table, old.is_none(), values, writer)?;
        let mut cells = old.clone().unwrap_or_default();
        cells.resize(self.tables[table].kind.fields.len(), None);
        if old.is_none() {
            self.fill_in(table, &mut cells, writer);
        }
        for (at, cell) in sent {
            cells[at] = cell;
        }
        self.lock(table, id.as_deref(), old.as_ref(), &cells, writer)?;
        self.automate(table, old.as_ref(), &mut cells);
        self.required(table, &cells)?;
        self.unique(table, id.as_deref(), &cells)?;
        self.validate(table, &cells)?;
        self.find_duplicates(table, id.as_deref(), old.as_ref(), &cells, writer)?;

        let changed: Vec<usize> =
            (0..cells.len()).filter(|at| cells.get(*at) != old.as_ref().and_then(|old| old.get(*at))).collect();
        if let Some(id) = &id
            && changed.is_empty()
            && !self.settings.same_value_is_a_write
        {
            return Ok(id.clone());
        }
        let second = Cell::Time(writer.now.div_euclid(1_000) * 1_000);
        let user = Some(Cell::Text(writer.user.clone()));
        let is_new = old.is_none();
        let id = id.unwrap_or_else(|| {
            let own = &mut self.tables[table];
            let id = ids::make(&own.kind.prefix, own.next);
            own.next += 1;
            id
        });
        if is_new {
            cells[ID] = Some(Cell::Text(id.clone()));
            cells[CREATED] = Some(second.clone());
            cells[CREATED_BY].clone_from(&user);
        }
        cells[MODIFIED] = Some(second.clone());
        cells[MODIFIED_BY] = user;
        cells[MODSTAMP] = Some(second);
        if let Some(undo) = undo {
            undo.old.push((table, id.clone(), old.clone()));
        }
        self.remember(table, &id, old.as_ref(), &cells, writer, if is_new { "create" } else { "update" });
        let lag_until = self.lag_until(writer.now);
        self.schedule(table, &id, old.as_ref(), &cells, writer.now);
        self.tables[table].put(&id, cells, writer.now, lag_until);
        match (is_new, writer.person) {
            (_, true) => {}
            (true, _) => self.counts.created += 1,
            (false, _) => self.counts.updated += 1,
        }
        Ok(id)
    }

    /// Until when queries show the old values of what is written now.
    pub(crate) fn lag_until(&mut self, now: i64) -> i64 {
        match self.settings.query_lag_ms {
            0 => now,
            most => now + i64::try_from(self.rng.u64(..=most)).unwrap_or(0),
        }
    }

    pub(crate) fn remember(
        &mut self,
        table: usize,
        id: &str,
        old: Option<&Cells>,
        new: &Cells,
        writer: &Writer,
        what: &'static str,
    ) {
        let cell = |cells: Option<&Cells>, at: usize| cells?.get(at)?.as_ref().map(Cell::plain);
        let system = [CREATED, CREATED_BY, MODIFIED, MODIFIED_BY, MODSTAMP];
        let old_cell = |at: usize| old.and_then(|old| old.get(at)).and_then(Option::as_ref);
        let changes = (self.tables[table].kind.fields.iter().enumerate())
            .filter(|(at, _)| !system.contains(at) && old_cell(*at) != new.get(*at).and_then(Option::as_ref))
            .map(|(at, field)| (field.name.clone(), cell(old, at), cell(Some(new), at)))
            .collect();
        if self.history.len() >= HISTORY_MAX {
            self.history.drain(..HISTORY_MAX / 2);
        }
        self.history.push(Write {
            at: jiff::Timestamp::from_millisecond(writer.now).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
            user: writer.user.clone(),
            by_person: writer.person,
            object: self.tables[table].kind.name.clone(),
            id: id.to_owned(),
            what,
            changes,
        });
    }

    /// The values of a body by field. `attributes` and `Id` are looked at by the caller.
    fn convert_all(
        &self,
        table: usize,
        is_new: bool,
        values: &Map<String, Value>,
        writer: &Writer,
    ) -> Handled<Vec<(usize, Option<Cell>)>> {
        let own = &self.tables[table];
        let mut all = Vec::new();
        let mut refused = Vec::new();
        for (name, value) in values {
            if name == "attributes" || name.eq_ignore_ascii_case("id") {
                continue;
            }
            if let Value::Object(parent) = value
                && let Some((at, id)) = self.parent_by_key(table, name, parent)?
            {
                all.push((at, Some(Cell::Text(id))));
                continue;
            }
            let at = own.at(name).filter(|at| writer.person || !self.is_hidden(table, *at));
            let Some((at, field)) = at.and_then(|at| Some((at, own.field(at)?))) else {
                let message = format!("No such column '{name}' on sobject of type {}", own.kind.name);
                return Err(ApiError::bad("INVALID_FIELD", message));
            };
            let may = if is_new { field.createable } else { field.updateable };
            if !may || (!writer.person && self.read_only.contains(&(table, at))) {
                refused.push(field.name.as_str());
                continue;
            }
            all.push((at, self.convert(field, value)?));
        }
        if !refused.is_empty() {
            let message = format!(
                "Unable to create/update fields: {}. Please check the security settings of this field and verify that it is read/write for your profile or permission set.",
                refused.join(", ")
            );
            return Err(ApiError::bad("INVALID_FIELD_FOR_INSERT_UPDATE", message).on(&refused));
        }
        Ok(all)
    }

    /// A parent named by its external id: `"Account": {"Ext__c": "123"}`.
    fn parent_by_key(
        &self,
        table: usize,
        relationship: &str,
        parent: &Map<String, Value>,
    ) -> Handled<Option<(usize, String)>> {
        let fields = &self.tables[table].kind.fields;
        let found = fields.iter().position(|field| {
            field.relationship.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(relationship))
        });
        let Some(at) = found else { return Ok(None) };
        let to = fields[at].reference_to.first().and_then(|name| self.table_at(name));
        let key = parent.iter().find(|(name, _)| *name != "attributes");
        let (Some(to), Some((name, value))) = (to, key) else { return Ok(None) };
        let field = self.tables[to].at(name).filter(|at| self.tables[to].kind.fields[*at].external_id);
        let value = value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
        let matches = field.map(|field| self.tables[to].find(field, &value)).unwrap_or_default();
        match matches.as_slice() {
            [id] => Ok(Some((at, id.clone()))),
            [] => Err(ApiError::bad(
                "INVALID_FIELD",
                format!(
                    "Foreign key external ID: {value} not found for field {name} in entity {}",
                    self.tables[to].kind.name
                ),
            )),
            _ => Err(ApiError::bad(
                "DUPLICATE_EXTERNAL_ID",
                format!("{name}: more than one record found for external id"),
            )),
        }
    }

    fn fill_in(&self, table: usize, cells: &mut Cells, writer: &Writer) {
        for (at, field) in self.tables[table].kind.fields.iter().enumerate() {
            if let Some(default) = &field.default {
                cells[at] = self.convert(field, &json!(default)).ok().flatten();
            } else if field.kind == super::FieldType::Boolean {
                cells[at] = Some(Cell::Bool(false));
            }
        }
        cells[OWNER] = Some(Cell::Text(writer.user.clone()));
    }

    /// Refuses if somebody else holds the record or its account, or chance says so.
    fn lock(
        &mut self,
        table: usize,
        id: Option<&str>,
        old: Option<&Cells>,
        cells: &Cells,
        writer: &Writer,
    ) -> Handled<()> {
        if writer.person {
            return Ok(());
        }
        let account = self.tables[table].at("AccountId");
        let of = |cells: &Cells| account.and_then(|at| cells.get(at)?.as_ref()?.text().map(str::to_owned));
        let held = [id.map(str::to_owned), old.and_then(of), of(cells)];
        let held = held.iter().flatten().any(|id| self.locked.get(id).is_some_and(|until| writer.now < *until));
        let share = self.settings.lock_share;
        if held || (share > 0.0 && self.rng.f64() < share) {
            return Err(if self.settings.locks_wrapped {
                let message = format!("flow: execution of BeforeUpdate caused by: UNABLE_TO_LOCK_ROW, {LOCKED}");
                ApiError::bad("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message)
            } else {
                ApiError::bad("UNABLE_TO_LOCK_ROW", LOCKED)
            });
        }
        Ok(())
    }

    fn automate(&self, table: usize, old: Option<&Cells>, cells: &mut Cells) {
        let own = &self.tables[table];
        for rule in &self.settings.automation {
            if !rule.object.eq_ignore_ascii_case(&own.kind.name) {
                continue;
            }
            let (Some(from), Some(to)) = (own.at(&rule.when_changed), own.at(&rule.writes)) else { continue };
            if cells.get(from) == old.and_then(|old| old.get(from)) {
                continue;
            }
            let text = cells.get(from).and_then(Option::as_ref).map(Cell::plain);
            let new = rule.value.of(text);
            if let Some(field) = own.field(to) {
                let value = new.map_or(Value::Null, Value::String);
                cells[to] = self.convert(field, &value).ok().flatten();
            }
        }
    }

    /// Starts the automation that writes later.
    fn schedule(&mut self, table: usize, id: &str, old: Option<&Cells>, new: &Cells, now: i64) {
        if self.in_automation {
            return;
        }
        for (rule, scheduled) in self.settings.scheduled.iter().enumerate() {
            let own = &self.tables[table];
            let automation = &scheduled.automation;
            let Some(at) = own.at(&automation.when_changed) else { continue };
            if automation.object.eq_ignore_ascii_case(&own.kind.name) && new.get(at) != old.and_then(|old| old.get(at))
            {
                let wait = i64::try_from(scheduled.after_ms).unwrap_or(i64::MAX);
                self.started.push((now.saturating_add(wait), rule, table, id.to_owned()));
            }
        }
    }

    /// Lets automation write what is due at `now`.
    pub fn run_automation(&mut self, now: jiff::Timestamp) {
        if self.started.is_empty() {
            return;
        }
        let ms = now.as_millisecond();
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.started).into_iter().partition(|(due, ..)| *due <= ms);
        self.started = later;
        due.sort();
        self.in_automation = true;
        for (_, rule, table, id) in due {
            let Some(rule) = self.settings.scheduled.get(rule).map(|scheduled| scheduled.automation.clone()) else {
                continue;
            };
            let own = &self.tables[table];
            let (Some(from), Some(to)) = (own.at(&rule.when_changed), own.at(&rule.writes)) else { continue };
            let Some(record) = own.live(&id) else { continue };
            let new = rule.value.of(record.cell(from).map(Cell::plain));
            if record.cell(to).map(Cell::plain) == new {
                continue;
            }
            let values = Map::from_iter([(rule.writes.clone(), new.map_or(Value::Null, Value::String))]);
            let writer = self.person(now);
            // What a rule refuses is not written; nobody is told.
            let _ = self.save(table, Some(&id), &values, &writer, None);
        }
        self.in_automation = false;
    }

    fn required(&self, table: usize, cells: &Cells) -> Handled<()> {
        let needs = |(at, field): &(usize, &Field)| {
            !field.nillable && field.createable && cells.get(*at).is_none_or(Option::is_none)
        };
        let fields = self.tables[table].kind.fields.iter().enumerate();
        let missing: Vec<&str> = fields.filter(needs).map(|(_, field)| field.name.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("Required fields are missing: [{}]", missing.join(", "));
        Err(ApiError::bad("REQUIRED_FIELD_MISSING", message).on(&missing))
    }

    pub(crate) fn unique(&self, table: usize, id: Option<&str>, cells: &Cells) -> Handled<()> {
        for (at, field) in self.tables[table].kind.fields.iter().enumerate().filter(|(_, field)| field.unique) {
            let Some(cell) = cells.get(at).and_then(Option::as_ref) else { continue };
            let others = self.tables[table].find(at, &cell.plain());
            if let Some(other) = others.iter().find(|other| Some(other.as_str()) != id) {
                return Err(ApiError::bad(
                    "DUPLICATE_VALUE",
                    format!(
                        "duplicate value found: {} duplicates value on record with id: {}",
                        field.name,
                        &other[..15]
                    ),
                ));
            }
        }
        Ok(())
    }

    fn validate(&self, table: usize, cells: &Cells) -> Handled<()> {
        let own = &self.tables[table];
        for rule in self.settings.validation.iter().filter(|rule| rule.object.eq_ignore_ascii_case(&own.kind.name)) {
            let Some(at) = own.at(&rule.field) else { continue };
            let text = own.value(cells, at).map(|cell| cell.plain());
            let holds = match (&rule.refuse_if, &text) {
                (Test::Blank, text) => text.is_none(),
                (_, None) => false,
                (Test::Equals(other), Some(text)) => fold(text, false) == fold(other, false),
                (Test::Contains(part), Some(text)) => fold(text, false).contains(&fold(part, false)),
                (Test::LongerThan(most), Some(text)) => text.chars().count() > *most,
            };
            if holds {
                return Err(ApiError::bad("FIELD_CUSTOM_VALIDATION_EXCEPTION", &rule.message).on(&[&rule.field]));
            }
        }
        Ok(())
    }

    fn find_duplicates(
        &self,
        table: usize,
        id: Option<&str>,
        old: Option<&Cells>,
        cells: &Cells,
        writer: &Writer,
    ) -> Handled<()> {
        if writer.person {
            return Ok(());
        }
        let own = &self.tables[table];
        for rule in self.settings.duplicates.iter().filter(|rule| rule.object.eq_ignore_ascii_case(&own.kind.name)) {
            if !rule.block && writer.allow_duplicates {
                continue;
            }
            let Some(ats) = rule.fields.iter().map(|field| own.at(field)).collect::<Option<Vec<_>>>() else { continue };
            let values: Option<Vec<String>> =
                ats.iter().map(|at| own.value(cells, *at).map(|cell| cell.plain())).collect();
            let Some(values) = values else { continue };
            if old.is_some_and(|old| ats.iter().all(|at| old.get(*at) == cells.get(*at))) {
                continue;
            }
            let mut found = Vec::new();
            for other in rule.against.iter().filter_map(|name| self.table_at(name)) {
                found.extend(
                    self.matches(other, rule, &values)
                        .into_iter()
                        .filter(|other| Some(other.as_str()) != id)
                        .map(|id| (other, id)),
                );
            }
            if !found.is_empty() {
                return Err(self.duplicate(rule, &own.kind.name, &found));
            }
        }
        Ok(())
    }

    fn matches(&self, table: usize, rule: &super::DuplicateRule, values: &[String]) -> Vec<String> {
        let own = &self.tables[table];
        let Some(ats) = rule.fields.iter().map(|field| own.at(field)).collect::<Option<Vec<_>>>() else {
            return Vec::new();
        };
        let (Some(first), Some(value)) = (ats.first(), values.first()) else { return Vec::new() };
        let same = |id: &String| {
            let Some(record) = own.live(id) else { return false };
            ats.iter().zip(values).all(|(at, value)| {
                own.value(&record.cells, *at).is_some_and(|cell| fold(&cell.plain(), false) == fold(value, false))
            })
        };
        own.find(*first, value).into_iter().filter(same).collect()
    }

    fn duplicate(&self, rule: &super::DuplicateRule, object: &str, found: &[(usize, String)]) -> Box<ApiError> {
        let text = if rule.block {
            "You're creating a duplicate record. Use one of these records instead."
        } else {
            "You're creating a duplicate record. We recommend you use an existing record instead."
        };
        let version = self.settings.newest_version;
        let mut tables: Vec<usize> = found.iter().map(|(table, _)| *table).collect();
        tables.dedup();
        let results: Vec<Value> = tables
            .iter()
            .map(|table| {
                let name = &self.tables[*table].kind.name;
                let records: Vec<Value> = (found.iter().filter(|(other, _)| other == table))
                    .map(|(_, id)| {
                        json!({"additionalInformation": [], "fieldDiffs": [], "matchConfidence": 100, "record":
                            {"attributes": {"type": name, "url": format!("/services/data/v{version}.0/sobjects/{name}/{id}")}, "Id": id}})
                    })
                    .collect();
                json!({"entityType": name, "errors": [], "matchEngine": "ExactMatchEngine", "size": records.len(),
                    "matchRecords": records, "rule": format!("{name}_MR"), "success": true})
            })
            .collect();
        let body = json!({"allowSave": !rule.block, "duplicateRule": rule.name, "duplicateRuleEntityType": object,
            "errorMessage": text, "matchResults": results});
        let mut error = ApiError::bad("DUPLICATES_DETECTED", text);
        let key = if self.settings.misspelt_duplicates { "duplicateResut" } else { "duplicateResult" };
        error.more = Some((key.to_owned(), body));
        error
    }

    /// Puts a record into the recycle bin, and with an account its contacts and opportunities. `master`: it was merged into that.
    pub(crate) fn remove(
        &mut self,
        table: usize,
        id: &str,
        master: Option<&str>,
        writer: &Writer,
        mut undo: Option<&mut Undo>,
    ) -> Handled<()> {
        let id = ids::full(id).ok_or_else(|| ApiError::bad("MALFORMED_ID", format!("malformed id {id}")))?;
        let Some(record) = self.tables[table].records.get(&id) else { return Err(ApiError::not_found()) };
        if record.is_deleted() {
            return Err(ApiError::deleted());
        }
        let old = record.cells.clone();
        self.lock(table, Some(&id), Some(&old), &old, writer)?;
        let mut cells = old.clone();
        cells.resize(self.tables[table].kind.fields.len(), None);
        let second = Cell::Time(writer.now.div_euclid(1_000) * 1_000);
        cells[IS_DELETED] = Some(Cell::Bool(true));
        cells[MODIFIED] = Some(second.clone());
        cells[MODIFIED_BY] = Some(Cell::Text(writer.user.clone()));
        cells[MODSTAMP] = Some(second);
        if let Some(master) = master
            && let Some(at) = self.tables[table].at("MasterRecordId")
        {
            cells[at] = Some(Cell::Text(master.to_owned()));
        }
        if let Some(undo) = undo.as_deref_mut() {
            undo.old.push((table, id.clone(), Some(old.clone())));
        }
        self.remember(table, &id, Some(&old), &cells, writer, if master.is_some() { "merge" } else { "delete" });
        let lag_until = self.lag_until(writer.now);
        self.tables[table].put(&id, cells, writer.now, lag_until);
        self.deleted_log.push((table, id.clone(), writer.now));
        if !writer.person {
            self.counts.deleted += 1;
        }
        if self.tables[table].kind.name == "Account" && master.is_none() {
            let person = Writer { person: true, ..writer.clone() };
            for (child, child_id) in self.children(&id) {
                self.remove(child, &child_id, None, &person, undo.as_deref_mut())?;
            }
        }
        Ok(())
    }

    /// Live contacts and opportunities of an account.
    pub(crate) fn children(&self, account: &str) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        for (at, table) in self.tables.iter().enumerate() {
            let Some(field) = table.at("AccountId") else { continue };
            let own = table
                .records
                .values()
                .filter(|record| !record.is_deleted() && record.cell(field).and_then(Cell::text) == Some(account));
            all.extend(own.map(|record| (at, record.id.clone())));
        }
        all
    }

    /// Keeps indexes of what duplicate rules look for.
    pub(crate) fn index_for_rules(&mut self) {
        for rule in self.settings.duplicates.clone() {
            for name in &rule.against {
                if let Some(table) = self.table_at(name)
                    && let Some(at) = rule.fields.first().and_then(|field| self.tables[table].at(field))
                {
                    self.tables[table].index(at);
                }
            }
        }
    }
}
