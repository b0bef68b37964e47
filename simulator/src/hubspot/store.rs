//! Records of one object type: values with their history, unique indexes, and what the search index has seen so far.
//! Kept small: only what was written is stored; what HubSpot computes is computed when it is shown.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;

use jiff::Timestamp;

use super::catalog::PropertyDefinition;
use super::index::SearchIndex;

/// Superseded values kept per record: enough for a test to look at, bounded so that long runs stay small.
const PAST_MAX: usize = 64;
/// How long an archived record can be restored and listed: 90 days, in milliseconds.
const BIN_MS: i64 = 90 * 86_400_000;

/// A value, who superseded whom, and when.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) property: u16,
    pub(crate) version: u32,
    pub(crate) at: i64,
    pub(crate) text: Box<str>,
}

/// A record. Versions count its writes; the search index shows the newest version whose time has come.
#[derive(Debug, Clone)]
pub struct Record {
    pub(crate) id: u64,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) version: u32,
    pub(crate) cells: Vec<Cell>,
    pub(crate) past: Vec<Cell>,
    /// When, in milliseconds.
    pub(crate) archived: Option<i64>,
    /// What search shows; up to date after [`Kind::catch_up`].
    pub(crate) seen: Seen,
    pub(crate) pending: Vec<Seen>,
}

/// A version as the search index has it, or will have it from `visible_at`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) version: u32,
    pub(crate) updated: i64,
    pub(crate) visible_at: i64,
    /// Not in the index: not yet, archived, merged or deleted.
    pub(crate) gone: bool,
}

impl Record {
    /// A record that was kept: (id, version), (created, updated, archived), values and superseded values. Search has not seen it.
    pub(crate) fn whole(
        (id, version): (u64, u32),
        (created, updated, archived): (i64, i64, Option<i64>),
        cells: Vec<Cell>,
        past: Vec<Cell>,
    ) -> Self {
        let seen = Seen { version: 0, updated, visible_at: updated, gone: true };
        Self { id, created, updated, version, cells, past, archived, seen, pending: Vec::new() }
    }

    /// The newest version, as search will have it.
    fn next(&self, visible_at: i64) -> Seen {
        Seen { version: self.version, updated: self.updated, visible_at, gone: self.archived.is_some() }
    }

    /// The text of a stored property at a version.
    pub(crate) fn text(&self, property: u16, version: u32) -> Option<&str> {
        if let Some(cell) = self.cells.iter().find(|cell| cell.property == property)
            && cell.version <= version
        {
            return Some(&cell.text);
        }
        let past = self.past.iter().rev().find(|cell| cell.property == property && cell.version <= version);
        past.map(|cell| &*cell.text)
    }

    /// All values a property has had, newest first: (milliseconds, value).
    pub(crate) fn history(&self, property: u16) -> impl Iterator<Item = (i64, &str)> {
        let now = self.cells.iter().filter(move |cell| cell.property == property);
        let past = self.past.iter().rev().filter(move |cell| cell.property == property);
        now.chain(past).map(|cell| (cell.at, &*cell.text))
    }
}

/// What HubSpot computes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum System {
    Created,
    Modified,
    Id,
    Fixed(&'static str),
    EmailDomain,
    FullName,
}

/// A property and when it begins to exist.
#[derive(Debug, Clone)]
pub(crate) struct Property {
    pub(crate) definition: PropertyDefinition,
    pub(crate) visible_at: i64,
    pub(crate) created: i64,
    system: Option<System>,
}

/// An object type and its records.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) id: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) fully_qualified: String,
    pub(crate) created_property: String,
    pub(crate) modified_property: String,
    pub(crate) required: Vec<String>,
    pub(crate) any_of: Vec<String>,
    pub(crate) shown: Vec<String>,
    pub(crate) display: String,
    pub(crate) properties: Vec<Property>,
    by_name: HashMap<String, u16>,
    pub(crate) groups: Vec<(String, String)>,
    pub(crate) records: BTreeMap<u64, Record>,
    unique: Vec<(u16, HashMap<Box<str>, u64>)>,
    /// Archived records by id.
    bin: BTreeSet<u64>,
    pub(crate) index: SearchIndex,
    /// Merged and deleted records that the index still shows.
    ghosts: BTreeMap<u64, Record>,
    pub(crate) merged: HashMap<u64, u64>,
    pub(crate) email: Option<u16>,
    pub(crate) additional_emails: Option<u16>,
}

/// Which properties an answer shows.
pub(crate) enum Show<'a> {
    /// Everything that has a value, as write answers do.
    All,
    /// These, `null` where empty.
    Named(&'a [u16]),
}

impl Kind {
    pub(crate) fn new(id: &str, plural: &str, singular: &str, created: &str, modified: &str) -> Self {
        Self {
            id: id.to_owned(),
            plural: plural.to_owned(),
            singular: singular.to_owned(),
            fully_qualified: singular.to_uppercase(),
            created_property: created.to_owned(),
            modified_property: modified.to_owned(),
            required: Vec::new(),
            any_of: Vec::new(),
            shown: Vec::new(),
            display: String::new(),
            properties: Vec::new(),
            by_name: HashMap::new(),
            groups: Vec::new(),
            records: BTreeMap::new(),
            unique: Vec::new(),
            bin: BTreeSet::new(),
            index: SearchIndex::default(),
            ghosts: BTreeMap::new(),
            merged: HashMap::new(),
            email: None,
            additional_emails: None,
        }
    }

    /// Adds a property, or replaces the definition of the same name.
    pub(crate) fn define(&mut self, definition: PropertyDefinition, now: i64, visible_at: i64) -> u16 {
        if let Some(at) = self.by_name.get(&definition.name).copied() {
            if let Some(property) = self.properties.get_mut(usize::from(at)) {
                property.definition = definition;
            }
            return at;
        }
        let at = u16::try_from(self.properties.len()).unwrap_or(u16::MAX);
        let contact = self.id == "0-1";
        let name = definition.name.as_str();
        let system = match name {
            _ if name == self.created_property => Some(System::Created),
            _ if name == self.modified_property => Some(System::Modified),
            "hs_object_id" => Some(System::Id),
            "hs_object_source" | "hs_object_source_label" => Some(System::Fixed("INTEGRATION")),
            "hs_object_source_id" => Some(System::Fixed("19083857")),
            "hs_all_contact_vids" if contact => Some(System::Id),
            "hs_is_contact" | "hs_is_unworked" if contact => Some(System::Fixed("true")),
            "hs_pipeline" if contact => Some(System::Fixed("contacts-lifecycle-pipeline")),
            "num_notes" if contact => Some(System::Fixed("0")),
            "hs_email_domain" if contact => Some(System::EmailDomain),
            "hs_full_name_or_email" if contact => Some(System::FullName),
            _ => None,
        };
        if contact && name == "email" {
            self.email = Some(at);
            self.unique.push((at, HashMap::new()));
        } else if contact && name == "hs_additional_emails" {
            self.additional_emails = Some(at);
        } else if definition.has_unique_value {
            self.unique.push((at, HashMap::new()));
        }
        self.by_name.insert(definition.name.clone(), at);
        self.properties.push(Property { definition, visible_at, created: now, system });
        at
    }

    /// A property that exists at `now`.
    pub(crate) fn property(&self, name: &str, now: i64) -> Option<(u16, &Property)> {
        let at = *self.by_name.get(name)?;
        let property = self.properties.get(usize::from(at))?;
        (property.visible_at <= now && !property.definition.archived).then_some((at, property))
    }

    /// A property whether or not it can be seen yet.
    pub(crate) fn any_property(&mut self, name: &str) -> Option<&mut Property> {
        let at = *self.by_name.get(name)?;
        self.properties.get_mut(usize::from(at))
    }

    pub(crate) fn property_id(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name_of(&self, property: u16) -> &str {
        self.properties.get(usize::from(property)).map_or("", |property| property.definition.name.as_str())
    }

    /// Whether a property may identify records in an upsert.
    pub(crate) fn is_unique(&self, property: u16) -> bool {
        self.unique.iter().any(|(unique, _)| *unique == property)
    }

    /// The record that holds a unique value; for emails the secondary ones count.
    pub(crate) fn holder(&self, property: u16, key: &str) -> Option<u64> {
        let index = &self.unique.iter().find(|(unique, _)| *unique == property)?.1;
        if Some(property) == self.email {
            let key = key.trim();
            if key.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
                return index.get(key.to_lowercase().as_str()).copied();
            }
            return index.get(key).copied();
        }
        index.get(key).copied()
    }

    /// A live record, following merges.
    pub(crate) fn live(&self, id: u64) -> Option<&Record> {
        self.records.get(&self.survivor(id)).filter(|record| record.archived.is_none())
    }

    /// The id under which a record lives after merges.
    pub(crate) fn survivor(&self, id: u64) -> u64 {
        let mut at = id;
        // Each merge removes one record, so the chain is no longer than the map.
        for _ in 0..self.merged.len() {
            match self.merged.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        at
    }

    fn index(&mut self, property: u16, old: Option<&str>, new: &str, id: u64) {
        let Some((_, index)) = self.unique.iter_mut().find(|(unique, _)| *unique == property) else { return };
        if let Some(old) = old
            && index.get(old) == Some(&id)
        {
            index.remove(old);
        }
        if !new.is_empty() {
            index.insert(new.into(), id);
        }
    }

    pub(crate) fn insert(&mut self, id: u64, changes: Vec<(u16, String)>, now: i64, visible_at: i64) {
        let mut cells: Vec<Cell> = Vec::with_capacity(changes.len());
        for (property, text) in changes {
            if self.is_unique(property) {
                self.index(property, None, &text, id);
            }
            let text = text.trim_start_matches(if self.several(property) { ";" } else { "" }).into();
            match cells.iter_mut().find(|cell| cell.property == property) {
                Some(cell) => cell.text = text,
                None => cells.push(Cell { property, version: 1, at: now, text }),
            }
        }
        let unseen = Seen { version: 0, updated: now, visible_at: now, gone: true };
        let mut record = Record {
            id,
            created: now,
            updated: now,
            version: 1,
            cells,
            past: Vec::new(),
            archived: None,
            seen: unseen,
            pending: Vec::new(),
        };
        let next = record.next(visible_at);
        self.index.note(&mut record, next, now);
        self.records.insert(id, record);
    }

    /// Puts a record back as it was, with its keys; search sees it at once.
    pub(crate) fn take_back(&mut self, mut record: Record) {
        let (id, at) = (record.id, record.updated.max(record.archived.unwrap_or(0)));
        if record.archived.is_none() {
            for (property, key) in self.keys(&record) {
                self.index(property, None, &key, id);
            }
        } else {
            self.bin.insert(id);
        }
        let next = record.next(at);
        self.index.note(&mut record, next, at);
        self.records.insert(id, record);
    }

    fn several(&self, property: u16) -> bool {
        self.properties.get(usize::from(property)).is_some_and(|property| property.definition.field_type == "checkbox")
    }

    /// Writes values; `false` if all of them were there already.
    pub(crate) fn update(
        &mut self,
        id: u64,
        changes: Vec<(u16, String)>,
        now: i64,
        visible_at: i64,
        touch: bool,
    ) -> bool {
        let Some(record) = self.records.get(&id) else { return false };
        let mut real: Vec<(u16, String)> = Vec::with_capacity(changes.len());
        for (property, mut text) in changes {
            let old = record.text(property, u32::MAX);
            if text.starts_with(';') && self.several(property) {
                let mut all: Vec<&str> = old.unwrap_or_default().split(';').filter(|one| !one.is_empty()).collect();
                for one in text.split(';').filter(|one| !one.is_empty()) {
                    if !all.contains(&one) {
                        all.push(one);
                    }
                }
                text = all.join(";");
            }
            if old.unwrap_or_default() != text {
                real.push((property, text));
            }
        }
        if real.is_empty() && !touch {
            return false;
        }
        for (property, text) in &real {
            if self.is_unique(*property) {
                let old = self.records.get(&id).and_then(|record| record.text(*property, u32::MAX)).map(str::to_owned);
                self.index(*property, old.as_deref(), text, id);
            }
        }
        let changed = !real.is_empty();
        let Some(record) = self.records.get_mut(&id) else { return false };
        record.version += 1;
        record.updated = now.max(record.updated);
        for (property, text) in real {
            let cell = Cell { property, version: record.version, at: now, text: text.into() };
            match record.cells.iter_mut().find(|cell| cell.property == property) {
                Some(current) => {
                    let old = std::mem::replace(current, cell);
                    if record.past.len() >= PAST_MAX {
                        record.past.remove(0);
                    }
                    record.past.push(old);
                }
                None => record.cells.push(cell),
            }
        }
        let next = record.next(visible_at);
        self.index.note(record, next, now);
        changed
    }

    /// The keys under which a record is found.
    fn keys(&self, record: &Record) -> Vec<(u16, String)> {
        let own = self.unique.iter().filter_map(|(property, _)| {
            let text = record.text(*property, u32::MAX).filter(|text| !text.is_empty())?;
            Some((*property, text.to_owned()))
        });
        let mut keys: Vec<(u16, String)> = own.collect();
        if let (Some(email), Some(additional)) = (self.email, self.additional_emails) {
            let more = record.text(additional, u32::MAX).unwrap_or_default();
            keys.extend(more.split(';').filter(|one| !one.is_empty()).map(|one| (email, one.to_owned())));
        }
        keys
    }

    /// Archives or restores; neither moves the modified date. `false` if there is nothing to do, and for a record that
    /// has left the recycle bin.
    pub(crate) fn archive(&mut self, id: u64, archived: bool, now: i64, visible_at: i64) -> bool {
        if self.get(id, !archived, now).is_none() {
            return false;
        }
        let Some(record) = self.records.get_mut(&id) else { return false };
        record.version += 1;
        record.archived = archived.then_some(now);
        let next = record.next(visible_at);
        self.index.note(record, next, now);
        if archived {
            self.bin.insert(id);
        } else {
            self.bin.remove(&id);
        }
        let Some(record) = self.records.get(&id) else { return false };
        for (property, key) in self.keys(record) {
            if archived {
                self.index(property, Some(&key), "", id);
            } else if self.holder(property, &key).is_none() {
                self.index(property, None, &key, id);
            }
        }
        true
    }

    /// A live record, or one in the recycle bin.
    pub(crate) fn get(&self, id: u64, archived: bool, now: i64) -> Option<&Record> {
        self.records.get(&id).filter(|record| match record.archived {
            None => !archived,
            Some(at) => archived && now.saturating_sub(at) < BIN_MS,
        })
    }

    /// What is in the recycle bin, by id, from `from` on.
    pub(crate) fn bin(&self, from: u64, now: i64) -> impl Iterator<Item = &Record> {
        self.bin.range(from..).filter_map(move |id| self.get(*id, true, now))
    }

    /// Lets secondary addresses resolve to a record.
    pub(crate) fn add_emails(&mut self, id: u64, emails: &[String], now: i64, visible_at: i64) {
        let (Some(email), Some(additional)) = (self.email, self.additional_emails) else { return };
        let Some(record) = self.records.get(&id) else { return };
        let mut all: Vec<String> =
            record.text(additional, u32::MAX).unwrap_or_default().split(';').map(str::to_owned).collect();
        all.retain(|one| !one.is_empty());
        for one in emails {
            self.index(email, None, one, id);
            if !all.contains(one) {
                all.push(one.clone());
            }
        }
        self.update(id, vec![(additional, all.join(";"))], now, visible_at, false);
    }

    /// Removes a record for good, with its keys; search shows it until `visible_at`.
    pub(crate) fn purge(&mut self, id: u64, now: i64, visible_at: i64) -> Option<Record> {
        let mut record = self.records.remove(&id)?;
        self.bin.remove(&id);
        for (property, key) in self.keys(&record) {
            self.index(property, Some(&key), "", id);
        }
        record.version += 1;
        let next = Seen { gone: true, ..record.next(visible_at) };
        self.index.note(&mut record, next, now);
        if !(record.seen.gone && record.pending.is_empty()) {
            self.ghosts.insert(id, record.clone());
        }
        Some(record)
    }

    /// Takes into the search index what its lag lets through at `now`. Time does not run back here.
    pub(crate) fn catch_up(&mut self, now: i64, as_text: bool) {
        while let Some(id) = self.index.pop_due(now) {
            if let Some(record) = self.records.get_mut(&id) {
                self.index.settle(record, now);
            } else if let Some(ghost) = self.ghosts.get_mut(&id) {
                self.index.settle(ghost, now);
                if ghost.seen.gone && ghost.pending.is_empty() {
                    self.ghosts.remove(&id);
                }
            }
        }
        if self.index.as_text() != as_text {
            self.index.reorder(as_text);
            for record in self.records.values().chain(self.ghosts.values()).filter(|record| !record.seen.gone) {
                self.index.put(record.id, record.seen.updated, true);
            }
        }
    }

    /// A record that search shows.
    pub(crate) fn found(&self, id: u64) -> Option<&Record> {
        self.records.get(&id).or_else(|| self.ghosts.get(&id)).filter(|record| !record.seen.gone)
    }

    /// Everything that search shows, oldest first.
    pub(crate) fn searchable(&self) -> Vec<&Record> {
        let mut all: Vec<&Record> =
            self.records.values().chain(self.ghosts.values()).filter(|record| !record.seen.gone).collect();
        if !self.ghosts.is_empty() {
            all.sort_unstable_by_key(|record| record.id);
        }
        all
    }

    /// A value as it reads at a version; `None` if it was never set.
    pub(crate) fn value<'a>(&'a self, record: &'a Record, property: u16, seen: Seen) -> Option<Cow<'a, str>> {
        if let Some(text) = record.text(property, seen.version) {
            return Some(Cow::Borrowed(text));
        }
        let stored = |name: &str| {
            let text = self.property_id(name).and_then(|property| record.text(property, seen.version));
            text.unwrap_or_default()
        };
        match self.properties.get(usize::from(property))?.system? {
            System::Created => Some(Cow::Owned(iso(record.created))),
            System::Modified => Some(Cow::Owned(iso(seen.updated))),
            System::Id => Some(Cow::Owned(record.id.to_string())),
            System::Fixed(text) => Some(Cow::Borrowed(text)),
            System::EmailDomain => {
                let email = record.text(self.email?, seen.version)?;
                email.split_once('@').map(|(_, domain)| Cow::Borrowed(domain))
            }
            System::FullName => {
                let name = format!("{} {}", stored("firstname"), stored("lastname"));
                let name = name.trim();
                let text = if name.is_empty() { stored("email").to_owned() } else { name.to_owned() };
                (!text.is_empty()).then_some(Cow::Owned(text))
            }
        }
    }

    /// The newest version, whether or not search has it.
    pub(crate) fn newest(record: &Record) -> Seen {
        record.next(0)
    }

    /// Writes a record as JSON text. `more` is text between the properties and the end, with its leading comma.
    pub(crate) fn write(&self, record: &Record, seen: Seen, show: &Show<'_>, portal_id: u64, more: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(640);
        let created = iso(record.created);
        let updated = if seen.updated == record.created { created.clone() } else { iso(seen.updated) };
        let _ = write!(out, r#"{{"id":"{}","properties":{{"#, record.id);
        let mut first = true;
        let mut put = |out: &mut Vec<u8>, name: &str, value: Option<&str>| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            string(out, name);
            out.push(b':');
            match value {
                Some(value) => string(out, value),
                None => out.extend_from_slice(b"null"),
            }
        };
        match show {
            Show::All => {
                for cell in &record.cells {
                    put(&mut out, self.name_of(cell.property), record.text(cell.property, seen.version));
                }
                for (property, at) in self.properties.iter().zip(0_u16..) {
                    match property.system {
                        None => {}
                        Some(System::Created) => put(&mut out, &property.definition.name, Some(&created)),
                        Some(System::Modified) => put(&mut out, &property.definition.name, Some(&updated)),
                        Some(_) => {
                            if let Some(value) = self.value(record, at, seen) {
                                put(&mut out, &property.definition.name, Some(&value));
                            }
                        }
                    }
                }
            }
            Show::Named(names) => {
                for number in *names {
                    let Some(property) = self.properties.get(usize::from(*number)) else { continue };
                    let name = &property.definition.name;
                    match property.system {
                        // Written out once already: most of the work of a short answer.
                        Some(System::Created) => put(&mut out, name, Some(&created)),
                        Some(System::Modified) => put(&mut out, name, Some(&updated)),
                        _ => put(&mut out, name, self.value(record, *number, seen).as_deref()),
                    }
                }
            }
        }
        let _ = write!(out, r#"}},"createdAt":"{created}","updatedAt":"{updated}","archived":{}"#, seen.gone);
        if let Some(at) = record.archived.filter(|_| seen.gone) {
            let _ = write!(out, r#","archivedAt":"{}""#, iso(at));
        }
        let _ = write!(
            out,
            r#","url":"https://app.hubspot.com/contacts/{portal_id}/record/{}/{}"{more}}}"#,
            self.id, record.id
        );
        out
    }

    /// Names to property numbers, unknown ones left out, each once.
    pub(crate) fn show(&self, names: &[String], now: i64) -> Vec<u16> {
        let mut all: Vec<u16> =
            names.iter().filter_map(|name| self.property(name, now)).map(|(property, _)| property).collect();
        let system = ["hs_object_id", &self.created_property, &self.modified_property];
        all.extend(system.iter().filter_map(|name| self.property_id(name)));
        let mut seen = BTreeSet::new();
        all.retain(|property| seen.insert(*property));
        all
    }
}

/// A JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// Milliseconds since the epoch as HubSpot writes times.
pub(crate) fn iso(ms: i64) -> String {
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}
