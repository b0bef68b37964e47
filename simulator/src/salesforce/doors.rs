//! What happens to an org beside the API: people in a browser, administrators, and tests that look.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::store::{Cell, IS_DELETED, MODSTAMP};
use super::write::Writer;
use super::{Counts, Fault, Field, LogEntry, Org, OrgSettings, ids};

/// A record's values as text, blank ones left out, `Id` among them.
pub type Fields = BTreeMap<String, String>;

/// One write to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// When.
    pub at: Timestamp,
    /// Id of the user.
    pub user: String,
    /// Through the doors for people, not through the API.
    pub by_person: bool,
    /// The object.
    pub object: String,
    /// The record.
    pub id: String,
    /// `create`, `update`, `delete`, `undelete`, `merge`.
    pub what: &'static str,
    /// Fields whose values became others: name, old, new.
    pub changes: Vec<(String, Option<String>, Option<String>)>,
}

impl Org {
    /// The org's id, as in the identity address of a session.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The settings, which may be changed at any time; not the objects, fields and faults, which have doors of their own.
    pub fn settings(&self) -> &OrgSettings {
        &self.settings
    }

    /// Changes settings.
    pub fn change_settings(&mut self, change: impl FnOnce(&mut OrgSettings)) {
        change(&mut self.settings);
        self.index_for_rules();
    }

    /// Adds a user and returns the id.
    pub fn add_user(&mut self, name: &str) -> String {
        let Some(table) = self.table_at("User") else { return String::new() };
        let own = &mut self.tables[table];
        let id = ids::make("005", own.next);
        own.next += 1;
        let mut cells = vec![None; own.kind.fields.len()];
        for (field, text) in [
            ("Id", id.as_str()),
            ("Username", name),
            ("Email", name),
            ("LastName", name.split('@').next().unwrap_or(name)),
        ] {
            if let Some(at) = own.at(field) {
                cells[at] = Some(Cell::Text(text.to_owned()));
            }
        }
        for (field, value) in [("IsActive", true), ("IsDeleted", false)] {
            if let Some(at) = own.at(field) {
                cells[at] = Some(Cell::Bool(value));
            }
        }
        own.put(&id, cells, 0, 0);
        id
    }

    /// Ids of users by user name, in small letters.
    pub(crate) fn users(&self) -> HashMap<String, String> {
        let Some(table) = self.table_at("User") else { return HashMap::new() };
        let own = &self.tables[table];
        let Some(at) = own.at("Username") else { return HashMap::new() };
        let name = |record: &super::store::Record| record.cell(at).and_then(Cell::text).map(str::to_lowercase);
        own.records.values().filter_map(|record| Some((name(record)?, record.id.clone()))).collect()
    }

    /// Adds or replaces a field. An unknown object changes nothing.
    pub fn define_field(&mut self, object: &str, field: Field) {
        if let Some(table) = self.table_at(object) {
            self.tables[table].define(field);
        }
    }

    /// The user of the API may (not) see a field.
    pub fn hide_field(&mut self, object: &str, field: &str, hidden: bool) {
        if let Some(key) = self.table_at(object).and_then(|table| Some((table, self.tables[table].at(field)?))) {
            if hidden {
                self.hidden.insert(key)
            } else {
                self.hidden.remove(&key)
            };
        }
    }

    /// The user of the API may (not) write a field.
    pub fn protect_field(&mut self, object: &str, field: &str, read_only: bool) {
        if let Some(key) = self.table_at(object).and_then(|table| Some((table, self.tables[table].at(field)?))) {
            if read_only {
                self.read_only.insert(key)
            } else {
                self.read_only.remove(&key)
            };
        }
    }

    pub(crate) fn person(&self, now: Timestamp) -> Writer {
        let user = self.users().get("admin@example.com").cloned().unwrap_or_default();
        Writer { now: now.as_millisecond(), user, person: true, allow_duplicates: true }
    }

    fn values(values: &[(&str, &str)]) -> Map<String, Value> {
        let value = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        values.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect()
    }

    /// A person creates a record. Rules and automation apply; duplicate rules and permissions do not. The error is the org's.
    pub fn create(&mut self, now: Timestamp, object: &str, values: &[(&str, &str)]) -> Result<String, String> {
        self.run_automation(now);
        let table = self.table_at(object).ok_or_else(|| format!("no object {object}"))?;
        let writer = self.person(now);
        let values = Self::values(values);
        self.save(table, None, &values, &writer, None).map_err(|error| format!("{}: {}", error.code, error.message))
    }

    /// A person changes a record; an empty text clears a field.
    pub fn edit(&mut self, now: Timestamp, object: &str, id: &str, values: &[(&str, &str)]) -> Result<(), String> {
        self.run_automation(now);
        let table = self.table_at(object).ok_or_else(|| format!("no object {object}"))?;
        let writer = self.person(now);
        let values = Self::values(values);
        let saved = self.save(table, Some(id), &values, &writer, None);
        saved.map(|_| ()).map_err(|error| format!("{}: {}", error.code, error.message))
    }

    /// A person deletes a record: it goes to the recycle bin. `false` if it is not there.
    pub fn delete(&mut self, now: Timestamp, object: &str, id: &str) -> bool {
        let Some(table) = self.table_at(object) else { return false };
        let writer = self.person(now);
        self.remove(table, id, None, &writer, None).is_ok()
    }

    /// A person takes a record out of the recycle bin. `false` if it is not in it, or a unique value was taken meanwhile.
    pub fn undelete(&mut self, now: Timestamp, object: &str, id: &str) -> bool {
        let (Some(table), Some(id)) = (self.table_at(object), ids::full(id)) else { return false };
        let Some(record) = self.tables[table].records.get(&id).filter(|record| record.is_deleted()) else {
            return false;
        };
        let old = record.cells.clone();
        let mut cells = old.clone();
        let master = self.tables[table].at("MasterRecordId");
        // What was merged does not come back.
        if master.is_some_and(|at| cells.get(at).is_some_and(Option::is_some))
            || self.unique(table, Some(&id), &cells).is_err()
        {
            return false;
        }
        let writer = self.person(now);
        let second = Cell::Time(writer.now.div_euclid(1_000) * 1_000);
        cells[IS_DELETED] = Some(Cell::Bool(false));
        cells[MODSTAMP] = Some(second.clone());
        cells[super::store::MODIFIED] = Some(second);
        self.remember(table, &id, Some(&old), &cells, &writer, "undelete");
        let lag_until = self.lag_until(writer.now);
        self.tables[table].put(&id, cells, writer.now, lag_until);
        true
    }

    /// Removes a record from the recycle bin, or from the org, for good.
    pub fn purge(&mut self, object: &str, id: &str) -> bool {
        let (Some(table), Some(id)) = (self.table_at(object), ids::full(id)) else { return false };
        self.tables[table].purge(&id)
    }

    /// A person merges records: `losers` go to the recycle bin with `MasterRecordId`, what belongs to them moves. The master
    /// keeps its values and takes those that it lacks, external ids not. `false` where the org would refuse (more than two losers, other
    /// objects than contacts, accounts and leads, records that are not there).
    pub fn merge(&mut self, now: Timestamp, object: &str, master: &str, losers: &[&str]) -> bool {
        let (Some(table), Some(master)) = (self.table_at(object), ids::full(master)) else { return false };
        let losers: Option<Vec<String>> = losers.iter().map(|id| ids::full(id)).collect();
        let Some(losers) = losers.filter(|losers| (1..=2).contains(&losers.len()) && !losers.contains(&master)) else {
            return false;
        };
        let own = &self.tables[table];
        if own.at("MasterRecordId").is_none()
            || own.live(&master).is_none()
            || losers.iter().any(|id| own.live(id).is_none())
        {
            return false;
        }
        let writer = self.person(now);
        let mut taken = Map::new();
        for (at, field) in own.kind.fields.iter().enumerate() {
            let mine = own.live(&master).and_then(|record| record.cell(at));
            if mine.is_none() && field.updateable && !field.external_id && !field.unique {
                let theirs = losers.iter().find_map(|id| own.live(id)?.cell(at));
                if let Some(cell) = theirs {
                    taken.insert(field.name.clone(), cell.json(field));
                }
            }
        }
        for loser in &losers {
            if object.eq_ignore_ascii_case("Account") {
                for (child, id) in self.children(loser) {
                    let values = Map::from_iter([("AccountId".to_owned(), json!(master))]);
                    let _ = self.save(child, Some(&id), &values, &writer, None);
                }
            }
            if self.remove(table, loser, Some(&master), &writer, None).is_err() {
                return false;
            }
        }
        self.save(table, Some(&master), &taken, &writer, None).is_ok()
    }

    /// A person converts a lead: a contact and an account come out of it, whose ids are returned.
    pub fn convert_lead(&mut self, now: Timestamp, lead: &str) -> Option<(String, String)> {
        let fields = self.look("Lead", lead)?;
        let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let account = self.create(now, "Account", &[("Name", &get("Company"))]).ok()?;
        let values = ["FirstName", "LastName", "Email", "Phone", "Title"].map(|name| (name, get(name)));
        let mut values: Vec<(&str, &str)> = values.iter().map(|(name, text)| (*name, text.as_str())).collect();
        values.push(("AccountId", &account));
        let contact = self.create(now, "Contact", &values).ok()?;
        let (table, id) = (self.table_at("Lead")?, ids::full(lead)?);
        let mut cells = self.tables[table].live(&id)?.cells.clone();
        let second = Some(Cell::Time(now.as_millisecond().div_euclid(1_000) * 1_000));
        for (name, cell) in [
            ("IsConverted", Some(Cell::Bool(true))),
            ("ConvertedContactId", Some(Cell::Text(contact.clone()))),
            ("ConvertedAccountId", Some(Cell::Text(account.clone()))),
            ("LastModifiedDate", second.clone()),
            ("SystemModstamp", second),
        ] {
            let at = self.tables[table].at(name)?;
            cells.resize(cells.len().max(at + 1), None);
            cells[at] = cell;
        }
        self.tables[table].put(&id, cells, now.as_millisecond(), now.as_millisecond());
        Some((contact, account))
    }

    /// Puts a value into a field whatever the rules, and moves no date: what a formula does, and what only Salesforce itself writes
    /// (`IsPersonAccount`, `LastActivityDate`). An empty text clears. `false` if there is no such record or field, or the text does not fit.
    pub fn force(&mut self, now: Timestamp, object: &str, id: &str, field: &str, text: &str) -> bool {
        let (Some(table), Some(id)) = (self.table_at(object), ids::full(id)) else { return false };
        let own = &self.tables[table];
        let (Some(record), Some(at)) = (own.records.get(&id), own.at(field)) else { return false };
        let value = if text.is_empty() { Value::Null } else { json!(text) };
        let Some(Ok(cell)) = own.field(at).map(|field| self.convert(field, &value)) else { return false };
        let mut cells = record.cells.clone();
        cells.resize(cells.len().max(at + 1), None);
        cells[at] = cell;
        let now = now.as_millisecond();
        self.tables[table].put(&id, cells, now, now);
        true
    }

    /// A system process touches a record: `SystemModstamp` moves, `LastModifiedDate` does not.
    pub fn touch(&mut self, now: Timestamp, object: &str, id: &str) -> bool {
        let (Some(table), Some(id)) = (self.table_at(object), ids::full(id)) else { return false };
        let Some(record) = self.tables[table].records.get(&id) else { return false };
        let mut cells = record.cells.clone();
        let now = now.as_millisecond();
        cells[MODSTAMP] = Some(Cell::Time(now.div_euclid(1_000) * 1_000));
        self.tables[table].put(&id, cells, now, now);
        true
    }

    /// Somebody else's transaction holds a record (or an account and what belongs to it) until then.
    pub fn lock_until(&mut self, id: &str, until: Timestamp) {
        if let Some(id) = ids::full(id) {
            self.locked.insert(id, until.as_millisecond());
        }
    }

    /// Ends every session.
    pub fn end_sessions(&mut self) {
        self.auth.end_all();
    }

    /// The refresh tokens that work now.
    pub fn refresh_tokens(&self) -> Vec<String> {
        self.auth.refresh_tokens()
    }

    /// Adds a fault.
    pub fn add_fault(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
        self.settings.lock_share = 0.0;
    }

    /// Forgets the oldest entries of the delete log, as the org does when it grows too long.
    pub fn purge_delete_log(&mut self, before: Timestamp) {
        self.deleted_log.retain(|(_, _, at)| *at >= before.as_millisecond());
    }

    /// A record as it is now, also one in the recycle bin; `None` if there is none.
    pub fn look(&self, object: &str, id: &str) -> Option<Fields> {
        let table = self.table_at(object)?;
        let record = self.tables[table].records.get(&ids::full(id)?)?;
        Some(self.fields_of(table, record))
    }

    fn fields_of(&self, table: usize, record: &super::store::Record) -> Fields {
        let own = &self.tables[table];
        (own.kind.fields.iter().enumerate())
            .filter_map(|(at, field)| Some((field.name.clone(), own.value(&record.cells, at)?.plain())))
            .collect()
    }

    /// The records of an object that are not deleted, by id.
    pub fn live_records(&self, object: &str) -> impl Iterator<Item = Fields> {
        let table = self.table_at(object);
        let records = table
            .into_iter()
            .flat_map(move |table| self.tables[table].records.values().map(move |record| (table, record)));
        records.filter(|(_, record)| !record.is_deleted()).map(|(table, record)| self.fields_of(table, record))
    }

    /// The live record with this text in a field; the first by id where there are several.
    pub fn find_by(&self, object: &str, field: &str, text: &str) -> Option<Fields> {
        self.live_records(object).find(|fields| fields.get(field).is_some_and(|value| value.eq_ignore_ascii_case(text)))
    }

    /// Everything that is not deleted, by object, without ids, dates and users: two runs with the same end have equal states.
    pub fn state(&self) -> BTreeMap<String, Vec<Fields>> {
        let system =
            ["Id", "CreatedDate", "CreatedById", "LastModifiedDate", "LastModifiedById", "SystemModstamp", "OwnerId"];
        let mut all = BTreeMap::new();
        for table in self.tables.iter().filter(|table| table.kind.name != "User") {
            let mut records: Vec<Fields> = (self.live_records(&table.kind.name))
                .map(|mut fields| {
                    fields.retain(|name, _| !system.contains(&name.as_str()));
                    fields
                })
                .collect();
            records.sort();
            if !records.is_empty() {
                all.insert(table.kind.name.clone(), records);
            }
        }
        all
    }

    /// Every write so far, oldest first.
    pub fn history(&self) -> &[Write] {
        &self.history
    }

    /// Every call so far, oldest first.
    pub fn log(&self) -> &[LogEntry] {
        &self.log
    }

    /// How many calls and writes there were.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}
