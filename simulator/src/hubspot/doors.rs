//! What tests and demonstrations do with an account beside calling it: settings, people at work in the browser, and a
//! look at what is really there.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::limits::Auditor;
use super::store::{Kind, Record};
use super::{Counts, Fault, LogEntry, Portal, PortalSettings, PropertyDefinition};

/// A record as it is, whatever search shows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveObject {
    /// Its id.
    pub id: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was modified last.
    pub updated_at: Timestamp,
    /// The properties asked for; `None` where one was never set.
    pub properties: BTreeMap<String, Option<String>>,
}

impl Portal {
    /// The settings it was made with.
    pub fn settings(&self) -> &PortalSettings {
        &self.settings
    }

    /// Changes the settings of a running account. Tokens and faults have calls of their own.
    pub fn configure(&mut self, change: impl FnOnce(&mut PortalSettings)) {
        change(&mut self.settings);
    }

    /// Adds a fault.
    pub fn add_fault(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    /// Ends all faults.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Makes a token work; no scopes means all.
    pub fn grant_token(&mut self, token: &str, app: &str, scopes: Vec<String>) {
        self.auth.grant(token, app, scopes);
    }

    /// Makes a token stop working.
    pub fn revoke_token(&mut self, token: &str) {
        self.auth.revoke(token);
    }

    /// Refuses the address from now on, as HubSpot does after a GDPR deletion. Nothing else changes.
    pub fn block_address(&mut self, address: &str) {
        self.blocklist.insert(address.trim().to_lowercase());
    }

    /// The calls so far (the most recent 100,000 at least).
    pub fn log(&self) -> &[LogEntry] {
        &self.log
    }

    /// How many calls and writes there were.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The most calls of one app that ever arrived within one burst interval, refused ones included; searches and
    /// association calls have buckets of their own and do not count. Measured apart from the limiter.
    pub fn max_calls_in_window(&self) -> usize {
        self.auditor.values().map(Auditor::most).max().unwrap_or(0)
    }

    /// Records that are not archived, oldest first, as maps of what is stored plus `hs_object_id`. Empty for an
    /// unknown object type.
    pub fn records(&self, object: &str) -> impl Iterator<Item = BTreeMap<String, String>> {
        let kind = self.kind(object).ok().map(|at| self.at(at));
        kind.into_iter().flat_map(|kind| {
            let live = kind.records.values().filter(|record| record.archived.is_none());
            live.map(move |record| plain(kind, record, true))
        })
    }

    /// How many records of a type are not archived.
    pub fn record_count(&self, object: &str) -> usize {
        let Ok(at) = self.kind(object) else { return 0 };
        self.at(at).records.values().filter(|record| record.archived.is_none()).count()
    }

    /// The first record whose property has a value.
    pub fn find_by(&self, object: &str, property: &str, value: &str) -> Option<BTreeMap<String, String>> {
        let kind = self.at(self.kind(object).ok()?);
        let number = kind.property_id(property)?;
        if kind.is_unique(number) {
            let record = kind.live(kind.holder(number, value)?)?;
            return Some(plain(kind, record, true));
        }
        let newest =
            |record: &Record| kind.value(record, number, Kind::newest(record)).is_some_and(|text| text == value);
        kind.records
            .values()
            .find(|record| record.archived.is_none() && newest(record))
            .map(|record| plain(kind, record, true))
    }

    /// Puts a record into the account without any check, indexed at once; unknown properties are left out. Returns its
    /// id, or `None` for an unknown object type.
    pub fn seed_record(&mut self, now: Timestamp, object: &str, properties: &[(&str, &str)]) -> Option<String> {
        let at = self.kind(object).ok()?;
        let now = now.as_millisecond();
        Some(self.put_in(at, properties, now, now).to_string())
    }

    /// Many records at once, as [`Portal::seed_record`] would put them there, all created in the same millisecond.
    /// Returns their ids, ascending; none for an unknown object type.
    pub fn seed_many<'a, R>(&mut self, now: Timestamp, object: &str, rows: R) -> Vec<String>
    where
        R: IntoIterator<Item = Vec<(&'a str, String)>>,
    {
        let Ok(at) = self.kind(object) else { return Vec::new() };
        let now = now.as_millisecond();
        rows.into_iter().map(|row| self.put_in(at, &row, now, now).to_string()).collect()
    }

    /// Creates a record as a person in the browser would: no checks, but search sees it only after its lag.
    pub fn create_record(&mut self, now: Timestamp, object: &str, properties: &[(&str, &str)]) -> Option<String> {
        let at = self.kind(object).ok()?;
        let now = now.as_millisecond();
        let visible_at = self.visible_at(now);
        Some(self.as_person(now, |portal| portal.put_in(at, properties, now, visible_at)).to_string())
    }

    fn put_in<V: AsRef<str>>(&mut self, at: usize, properties: &[(&str, V)], now: i64, visible_at: i64) -> u64 {
        let id = self.new_id();
        let kind = self.at(at);
        let changes: Vec<(u16, String)> = properties
            .iter()
            .filter_map(|(name, value)| Some((kind.property_id(name)?, value.as_ref().to_owned())))
            .collect();
        // What a test puts there was always there.
        if self.writer == super::Writer::Person {
            self.note(at, id, "create", &changes, now);
        }
        let kind = self.at_mut(at);
        kind.insert(id, changes, now, visible_at);
        let more = kind.records.get(&id).and_then(|record| record.text(kind.additional_emails?, u32::MAX));
        let more: Vec<String> =
            more.unwrap_or_default().split(';').map(str::to_owned).filter(|one| !one.is_empty()).collect();
        if !more.is_empty() {
            kind.add_emails(id, &more, now, visible_at);
        }
        id
    }

    /// Edits a record as a person in the browser would: no checks, modified date and index as for any write (also when
    /// nothing is named, as HubSpot does when it computes something). `false` if there is no such record.
    pub fn edit(&mut self, now: Timestamp, object: &str, id: &str, properties: &[(&str, &str)]) -> bool {
        self.edit_many(now, object, [id], properties) == 1
    }

    /// Edits many records in one millisecond, as a workflow or an import would. Returns how many there were.
    pub fn edit_many<I>(&mut self, now: Timestamp, object: &str, ids: I, properties: &[(&str, &str)]) -> usize
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let Ok(at) = self.kind(object) else { return 0 };
        let now = now.as_millisecond();
        let own = self.at(at);
        let changes: Vec<(u16, String)> =
            properties.iter().filter_map(|(name, value)| Some((own.property_id(name)?, (*value).to_owned()))).collect();
        self.as_person(now, |portal| {
            let mut edited = 0;
            for id in ids {
                let Ok(id) = id.as_ref().parse::<u64>() else { continue };
                let Some(id) = portal.at(at).live(id).map(|record| record.id) else { continue };
                let visible_at = portal.visible_at(now);
                portal.note(at, id, "update", &changes, now);
                portal.at_mut(at).update(id, changes.clone(), now, visible_at, true);
                edited += 1;
            }
            edited
        })
    }

    /// Archives or restores a record as a person in the browser would. Neither moves the modified date; what was
    /// archived has lost its associations, and can be restored for 90 days. `false` if there was nothing to do.
    pub fn set_archived(&mut self, now: Timestamp, object: &str, id: &str, archived: bool) -> bool {
        let (Ok(at), Ok(id)) = (self.kind(object), id.parse::<u64>()) else { return false };
        let now = now.as_millisecond();
        let visible_at = self.visible_at(now);
        let done = self.at_mut(at).archive(id, archived, now, visible_at);
        if done {
            self.as_person(now, |portal| {
                portal.note(at, id, if archived { "archive" } else { "restore" }, &[], now);
            });
        }
        if done && archived {
            self.associations.forget(at, id);
        }
        done
    }

    /// Merges two records as a person in the browser would. `false` where HubSpot would refuse.
    pub fn merge(&mut self, now: Timestamp, object: &str, winner: &str, loser: &str) -> bool {
        let (Ok(at), Ok(winner), Ok(loser)) = (self.kind(object), winner.parse(), loser.parse()) else { return false };
        let now = now.as_millisecond();
        self.as_person(now, |portal| portal.merge_records(at, winner, loser, now).is_ok())
    }

    /// The record that a merged id leads to; `None` if it was never merged.
    pub fn merged_into(&self, object: &str, id: &str) -> Option<String> {
        let own = self.at(self.kind(object).ok()?);
        let id = id.parse::<u64>().ok()?;
        Some(own.survivor(id)).filter(|into| *into != id).map(|into| into.to_string())
    }

    /// Removes a record, live or archived, for good, as a privacy deletion does: no list shows it any more, search until
    /// it has noticed. The address stays usable. `false` if there is no such record.
    pub fn purge(&mut self, now: Timestamp, object: &str, id: &str) -> bool {
        let (Ok(at), Ok(id)) = (self.kind(object), id.parse::<u64>()) else { return false };
        let now = now.as_millisecond();
        let visible_at = self.visible_at(now);
        let done = self.at_mut(at).purge(id, now, visible_at).is_some();
        if done {
            self.as_person(now, |portal| portal.note(at, id, "purge", &[], now));
            self.associations.forget(at, id);
        }
        done
    }

    /// Links two live records without a label; the modified date of neither moves. `false` if one is not there.
    pub fn associate(&mut self, object: &str, id: &str, to: &str, to_id: &str) -> bool {
        let (Ok(from), Ok(to)) = (self.kind(object), self.kind(to)) else { return false };
        let Ok((near, far)) = self.ends(from, to, id, to_id) else { return false };
        let (plain, _) = self.default_type(from, to);
        self.link(from, near, to, far, plain);
        true
    }

    /// Removes all links between two records; the modified date of neither moves. `false` if there was none.
    pub fn dissociate(&mut self, object: &str, id: &str, to: &str, to_id: &str) -> bool {
        let (Ok(from), Ok(to)) = (self.kind(object), self.kind(to)) else { return false };
        let (Ok(id), Ok(to_id)) = (id.parse::<u64>(), to_id.parse::<u64>()) else { return false };
        let linked = self.associations.of(from, id, to).any(|(far, _)| far == to_id);
        self.associations.cut((from, id), (to, to_id));
        linked
    }

    /// The record of type `to` that is a record's primary one, where the pair has such a thing.
    pub fn primary_of(&self, object: &str, id: &str, to: &str) -> Option<String> {
        let (from, to, id) = (self.kind(object).ok()?, self.kind(to).ok()?, id.parse().ok()?);
        let (primary, _) = self.primary_type(from, to)?;
        self.associations.of(from, id, to).find(|(_, types)| types.contains(&primary)).map(|(far, _)| far.to_string())
    }

    /// The ids of the records of type `to` that a record is linked to, ascending as numbers.
    pub fn associations_of(&self, object: &str, id: &str, to: &str) -> Vec<String> {
        let (Ok(from), Ok(to), Ok(id)) = (self.kind(object), self.kind(to), id.parse::<u64>()) else {
            return Vec::new();
        };
        self.associations.of(from, id, to).map(|(far, _)| far.to_string()).collect()
    }

    /// Records that are not archived, ascending by id as numbers, with the named properties as a read shows them (`None`
    /// where one was never set; unknown names left out). Nothing for an unknown object type.
    pub fn live_objects<'a>(&'a self, object: &str, properties: &[&str]) -> impl Iterator<Item = LiveObject> + use<'a> {
        let kind = self.kind(object).ok().map(|at| self.at(at));
        let named: Vec<(String, u16)> =
            properties.iter().filter_map(|name| Some(((*name).to_owned(), kind?.property_id(name)?))).collect();
        let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        kind.into_iter().flat_map(move |kind| {
            let named = named.clone();
            kind.records.values().filter(|record| record.archived.is_none()).map(move |record| LiveObject {
                id: record.id.to_string(),
                created_at: time(record.created),
                updated_at: time(record.updated),
                properties: named
                    .iter()
                    .map(|(name, property)| {
                        let value = kind.value(record, *property, Kind::newest(record));
                        (name.clone(), value.map(std::borrow::Cow::into_owned))
                    })
                    .collect(),
            })
        })
    }

    /// What is in the recycle bin at `now`: ids, ascending as numbers, and when each was archived.
    pub fn archived_objects(&self, now: Timestamp, object: &str) -> Vec<(String, Timestamp)> {
        let Ok(at) = self.kind(object) else { return Vec::new() };
        self.at(at)
            .bin(0, now.as_millisecond())
            .filter_map(|record| Some((record.id.to_string(), Timestamp::from_millisecond(record.archived?).ok()?)))
            .collect()
    }

    /// Adds or replaces a property, usable at once. An unknown object type changes nothing.
    pub fn define_property(&mut self, object: &str, mut definition: PropertyDefinition) {
        let Ok(at) = self.kind(object) else { return };
        let kind = self.at_mut(at);
        if definition.group_name.is_empty() {
            definition.group_name = kind.groups.first().map(|group| group.0.clone()).unwrap_or_default();
        }
        kind.define(definition, 0, 0);
    }

    /// Everything that is not archived, by object type, without ids, times and what HubSpot computes, in an order that
    /// does not depend on the order of the writes: two runs with the same end have equal states. Associations appear as
    /// `associations` (to type and the other record's name).
    pub fn state(&self) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
        let mut all = BTreeMap::new();
        for (at, kind) in self.kinds.iter().enumerate() {
            let mut records: Vec<BTreeMap<String, String>> = kind
                .records
                .values()
                .filter(|record| record.archived.is_none())
                .map(|record| {
                    let mut one = plain(kind, record, false);
                    let ends = self.association_names(at, record.id);
                    if !ends.is_empty() {
                        one.insert("associations".to_owned(), ends.join(", "));
                    }
                    one
                })
                .collect();
            if !records.is_empty() {
                records.sort();
                all.insert(kind.plural.clone(), records);
            }
        }
        all
    }
}

/// What is stored of a record; cleared values are left out.
fn plain(kind: &Kind, record: &Record, with_id: bool) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = record
        .cells
        .iter()
        .filter(|cell| !cell.text.is_empty())
        .map(|cell| (kind.name_of(cell.property).to_owned(), cell.text.to_string()))
        .collect();
    if with_id {
        all.insert("hs_object_id".to_owned(), record.id.to_string());
    } else {
        all.remove("hs_merged_object_ids");
    }
    all
}
