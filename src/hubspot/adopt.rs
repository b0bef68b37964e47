//! Keys that HubSpot does not hold unique (companies by `domain`, deals by `dealname`): one record a key all the same.
//!
//! HubSpot upserts by properties with unique values only, and search shows a new record seconds late. Who searches and then creates makes
//! duplicates: after a crash, beside another run, or a moment after a first file. So hubferry keeps a property of its own with unique
//! values, which holds the key of each record it has written, and upserts by that. Records that are there before are adopted: found by
//! the key they have, and given the property.
//!
//! Why every key ends up with one record that carries it, whatever is killed and however many runs there are:
//!
//! - Creating is an upsert by the unique property. HubSpot holds its values unique, so two upserts of one key are one record, whether they
//!   come from two runs or from one that died in between and came again. No memory of ours is needed for that.
//! - Whether a key is taken is read by the unique property from the object store, which a write changes at once: no lag.
//! - Search is only asked for records without the property. What it shows is read again by id before anything is written, so a
//!   stale result adopts nothing; what it does not show yet was made by others within the last seconds, and no client can know it.
//! - Two adopters that choose the same record write the same value. Two that choose different ones, or an adopter beside a creator:
//!   HubSpot refuses the second with `CONFLICTING_UNIQUE_VALUE`, and whoever is refused reads again and finds the winner.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    account::Account,
    batch::{Write, WriteKind},
    model::{ObjectSchema, PropertyDefinition},
    properties::{NewProperty, SchemaParts},
    read::Found,
    verdict::Verdict,
};
use crate::{
    Error, ErrorKind, Result,
    clock::Deadline,
    codes,
    http::rate_limit::Permit,
    record::{Input, ObjectType, PropertyName, Reason, fold_key},
};

/// HubSpot's longest name of a property.
const NAME_MAX: usize = 100;

/// HubSpot's limit of properties with unique values, for each object type.
pub const UNIQUE_PROPERTIES_MAX: usize = 10;

/// How often keys whose adoption another run crossed are looked at again.
const ADOPTION_ROUNDS_MAX: u32 = 4;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// A record carries it: upsert by the key property.
    Known {
        /// The record's id.
        id: String,
    },
    /// A record that was there before was given it just now: upsert by the key property.
    Adopted {
        /// The record's id.
        id: String,
    },
    /// No record has it: upsert by the key property, with the key's own property among the values.
    New,
    /// So many records have it: nothing may be written. `KEY_AMBIGUOUS`.
    Ambiguous(usize),
    /// The one record that has it is kept under another key: its value was changed in HubSpot. Nothing may be written. `KEY_AMBIGUOUS`.
    Taken {
        /// The record's id.
        id: String,
    },
    /// HubSpot refused to mark the record. Nothing may be written: it would be a second one.
    Refused(Reason),
}

impl Adoption {
    /// Why the key's rows are rejected, if they are.
    pub fn reason(&self, object: &ObjectType, key: &str) -> Option<Reason> {
        let text = match self {
            Self::Known { .. } | Self::Adopted { .. } | Self::New => return None,
            Self::Refused(reason) => return Some(reason.clone()),
            Self::Ambiguous(count) => format!("{count} {object} have this {key}"),
            Self::Taken { id } => {
                format!("record {id} of {object} has this {key}, but was imported under another one before")
            }
        };
        Some(Reason::new(codes::KEY_AMBIGUOUS, text))
    }
}

/// The name of the property with unique values that stands for `key`: `hubferry_domain_key`.
///
/// The same for the same key always; at most 100 characters of `a-z0-9_`.
pub fn key_property_name(key: &str) -> String {
    let plain: String = key
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' })
        .collect();
    let name = format!("hubferry_{plain}_key");
    if name.len() <= NAME_MAX {
        return name;
    }
    // Two long keys that begin alike must not share one property.
    let hash = xxhash_rust::xxh3::xxh3_64(key.to_lowercase().as_bytes());
    let start: String = plain.chars().take(NAME_MAX - "hubferry__0123456789abcdef_key".len()).collect();
    format!("hubferry_{start}_{hash:016x}_key")
}

/// What a cell of the key's column is as a key: folded, and for `domain` of companies the bare domain ([`bare_domain`]).
pub fn normalize_key(object: &ObjectType, key: &str, value: &str) -> String {
    if object.is_companies() && key == "domain" { bare_domain(value) } else { fold_key(value) }
}

/// A domain as HubSpot keeps it: `https://www.Example.com:443/about?x` is `example.com`.
///
/// Lower case; without scheme, user, port, path, query, fragment, a leading `www.` (unless nothing with a dot would be left) and trailing dots.
/// Other subdomains are kept: `eu.example.com` is another company's. Letters outside ASCII are left as they are.
pub fn bare_domain(value: &str) -> String {
    let value = fold_key(value);
    let after_scheme = value.split_once("://").map(|(_, rest)| rest).or_else(|| value.strip_prefix("//"));
    let mut host = after_scheme.unwrap_or(&value);
    host = host.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if after_scheme.is_some() {
        host = host.rsplit('@').next().unwrap_or_default();
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        host = name;
    }
    host = host.trim().trim_end_matches('.');
    match host.strip_prefix("www.") {
        Some(rest) if rest.contains('.') => rest.to_owned(),
        _ => host.to_owned(),
    }
}

/// What to do about a key that no record carries, given the records that truly have its value now. Pure.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    Decided(Adoption),
    /// Give the key to this record.
    Mark(String),
}

fn choose(candidates: &[&Found], key_property: &str, key: &str) -> Choice {
    let carries = |found: &&&Found| found.value(key_property).is_some_and(|value| fold_key(value) == key);
    if let Some(found) = candidates.iter().find(carries) {
        return Choice::Decided(Adoption::Known { id: found.id.clone() });
    }
    match candidates {
        [] => Choice::Decided(Adoption::New),
        [found] if found.value(key_property).is_some() => Choice::Decided(Adoption::Taken { id: found.id.clone() }),
        [found] => Choice::Mark(found.id.clone()),
        several => Choice::Decided(Adoption::Ambiguous(several.len())),
    }
}

impl Account {
    /// The name of the property that stands for `key`, once it is there and fit for it.
    ///
    /// With `create` it is made where it is missing, in the group of the key's own property (of a property that HubSpot keeps itself: in one
    /// that people use). Errors: `KEY_NOT_UNIQUE` if it is
    /// missing and may not be made, if another property of its name is in the way, or if the object has no room for one more unique property.
    pub async fn ensure_key_property(
        &self,
        object: &ObjectType,
        key: &str,
        create: bool,
        deadline: Deadline,
    ) -> Result<String> {
        let name = key_property_name(key);
        let schema = self.schema(object, SchemaParts::default(), deadline).await?;
        if let Some(definition) = schema.properties.get(&name) {
            return fit(object, definition).map(|()| name);
        }
        if !create {
            let message = format!(
                "HubSpot does not hold `{key}` of {object} unique, so records cannot be identified by it alone; hubferry needs a property of its own, `{name}`, which is missing"
            );
            let hint = "Set create_properties: true to let hubferry add it (a text property with unique values), or use a key that is unique.";
            return Err(Error::invalid(codes::KEY_NOT_UNIQUE, message).with_hint(hint));
        }
        let Some(own) = schema.properties.get(key) else {
            let message = format!("{object} have no property `{key}`");
            return Err(Error::invalid(codes::MAPPING_INVALID, message));
        };
        let full = |told: &str| {
            let message = format!(
                "`{name}` cannot be added to {object}: HubSpot allows {UNIQUE_PROPERTIES_MAX} properties with unique values for each object{told}"
            );
            let hint =
                "Delete a property with unique values that is not needed any more, or use one of them as the key.";
            Error::invalid(codes::KEY_NOT_UNIQUE, message).with_hint(hint)
        };
        // HubSpot's own (email) do not count: leave it to HubSpot unless it is sure.
        let unique = schema.properties.values().filter(|property| property.has_unique_value).count();
        let property = NewProperty {
            name: name.clone(),
            label: format!("hubferry key: {key}"),
            kind: "string".to_owned(),
            field_type: "text".to_owned(),
            group_name: group_of(own, &schema).to_owned(),
            has_unique_value: true,
            options: Vec::new(),
        };
        // It may have been there, archived or made by somebody else a moment ago: with what definition?
        match self.create_property(object, &property, deadline).await {
            Ok(definition) => fit(object, &definition).map(|()| name),
            Err(error) if error.kind() == ErrorKind::Invalid && unique >= UNIQUE_PROPERTIES_MAX => {
                Err(full("").with_source(error))
            }
            Err(error) => Err(error),
        }
    }

    /// What is known of each of `keys` (see [`normalize_key`]; not blank), in their order; records that have the key and were never seen are adopted.
    ///
    /// `key_property` is the one of [`Account::ensure_key_property`]. Any number of keys. Costs a read for each 100, and for those unknown
    /// a search for each 50 to 100 and up to two more calls, the first of which has the turn `permit`. Errors: those of [`Account::call`].
    /// Doing it again is always safe.
    pub async fn adopt(
        &self,
        object: &ObjectType,
        key: &str,
        key_property: &str,
        keys: &[String],
        permit: &mut Option<Permit>,
        deadline: Deadline,
    ) -> Result<Vec<Adoption>> {
        let folded = keys.iter().map(|value| normalize_key(object, key, value));
        let pairs: Vec<(String, String)> = folded.map(|value| (value.clone(), value)).collect();
        self.adopt_as(object, key, false, key_property, &pairs, permit, deadline).await
    }

    /// As [`Account::adopt`], where `key_property` holds something else than the key: each pair is what it is to hold (not blank) and the
    /// value of `key` by which a record that was there before is found (blank: it is new). `unique` says that HubSpot holds `key` unique:
    /// then no search is needed.
    #[expect(clippy::too_many_arguments, reason = "what is to be found, and by what")]
    pub async fn adopt_as(
        &self,
        object: &ObjectType,
        key: &str,
        unique: bool,
        key_property: &str,
        pairs: &[(String, String)],
        permit: &mut Option<Permit>,
        deadline: Deadline,
    ) -> Result<Vec<Adoption>> {
        let folded: Vec<String> = pairs.iter().map(|(own, _)| fold_key(own)).collect();
        let values = pairs.iter().map(|(_, value)| normalize_key(object, key, value));
        let mut open: BTreeMap<String, String> = folded.iter().cloned().zip(values).collect();
        open.remove("");
        let mut known: BTreeMap<String, Adoption> = BTreeMap::new();
        let names: Vec<PropertyName> = vec![key_property.into(), key.into()];
        for _ in 0..ADOPTION_ROUNDS_MAX {
            if open.is_empty() {
                break;
            }
            let asked: Vec<String> = open.keys().cloned().collect();
            let carriers = self.read(object, Some(key_property), &asked, &names, permit.take(), deadline).await?;
            for (value, carrier) in asked.into_iter().zip(carriers) {
                if let Some(found) = carrier {
                    open.remove(&value);
                    known.insert(value, Adoption::Known { id: found.id });
                }
            }
            let values: BTreeSet<String> = open.values().filter(|value| !value.is_empty()).cloned().collect();
            let candidates = self.candidates(object, key, unique, &values, &names, deadline).await?;
            let mut inputs = Vec::new();
            let mut marked = BTreeSet::new();
            let mut asked = std::mem::take(&mut open);
            for (own, value) in &asked {
                let found: Vec<&Found> = candidates.get(value).into_iter().flatten().collect();
                match choose(&found, key_property, own) {
                    Choice::Decided(adoption) => {
                        known.insert(own.clone(), adoption);
                    }
                    Choice::Mark(id) if marked.insert(id.clone()) => {
                        inputs
                            .push(Input { key: id, properties: vec![(PropertyName::from(key_property), own.clone())] });
                    }
                    // Two claim one record: the next round finds it taken.
                    Choice::Mark(_) => {
                        open.insert(own.clone(), value.clone());
                    }
                }
            }
            let mut verdicts = vec![None; inputs.len()];
            let write = Write { kind: WriteKind::Update, object, id_property: None };
            self.write(write, &inputs, &mut verdicts, None, deadline).await?;
            for (input, verdict) in inputs.into_iter().zip(verdicts) {
                let Some((_, own)) = input.properties.into_iter().next() else { continue };
                match verdict {
                    Some(Verdict::Written { .. }) => {
                        known.insert(own, Adoption::Adopted { id: input.key });
                    }
                    // Another run was first, the record is gone, or it is not known: look again.
                    Some(Verdict::Refused(reason)) if !crossed(&reason) => {
                        known.insert(own, Adoption::Refused(reason));
                    }
                    _ => {
                        let value = asked.remove(&own).unwrap_or_default();
                        open.insert(own, value);
                    }
                }
            }
        }
        if !open.is_empty() {
            let message = format!(
                "{} {object} could not be given `{key_property}`: they kept changing, or HubSpot did not answer",
                open.len()
            );
            return Err(Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message));
        }
        Ok(folded.iter().map(|value| known.get(value).cloned().unwrap_or(Adoption::New)).collect())
    }

    /// What [`Account::adopt`] would find: nothing is marked, and what would be adopted is [`Adoption::Adopted`]. `key_property` is `None` where
    /// the property is not there yet, so that no record carries it.
    pub async fn would_adopt(
        &self,
        object: &ObjectType,
        key: &str,
        key_property: Option<&str>,
        keys: &[String],
        deadline: Deadline,
    ) -> Result<Vec<Adoption>> {
        let folded: Vec<String> = keys.iter().map(|value| normalize_key(object, key, value)).collect();
        let mut open: BTreeSet<String> = folded.iter().filter(|value| !value.is_empty()).cloned().collect();
        let mut known: BTreeMap<String, Adoption> = BTreeMap::new();
        let mut names: Vec<PropertyName> = vec![key.into()];
        names.extend(key_property.map(PropertyName::from));
        if let Some(property) = key_property {
            let asked: Vec<String> = open.iter().cloned().collect();
            let carriers = self.read(object, Some(property), &asked, &names, None, deadline).await?;
            for (value, carrier) in asked.into_iter().zip(carriers) {
                if let Some(found) = carrier {
                    open.remove(&value);
                    known.insert(value, Adoption::Known { id: found.id });
                }
            }
        }
        let candidates = self.candidates(object, key, false, &open, &names, deadline).await?;
        for value in open {
            let found: Vec<&Found> = candidates.get(&value).into_iter().flatten().collect();
            let adoption = match choose(&found, key_property.unwrap_or_default(), &value) {
                Choice::Decided(adoption) => adoption,
                Choice::Mark(id) => Adoption::Adopted { id },
            };
            known.insert(value, adoption);
        }
        Ok(folded.iter().map(|value| known.get(value).cloned().unwrap_or(Adoption::New)).collect())
    }

    /// The records that have each value now: found by search, then read by id, for what the index shows may be over. By a `unique` key they
    /// are read at once.
    async fn candidates(
        &self,
        object: &ObjectType,
        key: &str,
        unique: bool,
        values: &BTreeSet<String>,
        names: &[PropertyName],
        deadline: Deadline,
    ) -> Result<BTreeMap<String, Vec<Found>>> {
        if unique {
            let asked: Vec<String> = values.iter().cloned().collect();
            let found = self.read(object, Some(key), &asked, names, None, deadline).await?;
            let pairs = asked.into_iter().zip(found);
            return Ok(pairs.map(|(value, found)| (value, found.into_iter().collect())).collect());
        }
        let domain = object.is_companies() && key == "domain";
        // HubSpot keeps bare domains, but what an app wrote with `www.` is the same company.
        let spellings = |value: &String| {
            let www = domain.then(|| format!("www.{value}"));
            std::iter::once(value.clone()).chain(www)
        };
        let asked: Vec<String> = values.iter().flat_map(spellings).collect();
        let shown = self.search_by_values(object, key, &asked, names, deadline).await?;
        let ids: BTreeSet<String> = shown.into_values().flatten().map(|found| found.id).collect();
        let ids: Vec<String> = ids.into_iter().collect();
        let mut candidates: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for found in self.read(object, None, &ids, names, None, deadline).await?.into_iter().flatten() {
            let value = normalize_key(object, key, found.value(key).unwrap_or_default());
            // Two merged records are one.
            if values.contains(&value) && seen.insert(found.id.clone()) {
                candidates.entry(value).or_default().push(found);
            }
        }
        Ok(candidates)
    }
}

/// Whether a refusal means that somebody else was faster.
fn crossed(reason: &Reason) -> bool {
    [codes::CONFLICTING_UNIQUE_VALUE, codes::CONFLICT, codes::KEY_NOT_FOUND]
        .iter()
        .any(|code| *reason.code == *code.as_str())
        || reason.reason.contains("already has that value")
}

/// The group for a property that stands for this one. What HubSpot keeps itself can be in groups that take no others.
fn group_of<'a>(own: &'a PropertyDefinition, schema: &'a ObjectSchema) -> &'a str {
    let writable = |property: &&PropertyDefinition| !property.read_only() && !property.group_name.is_empty();
    let of_people =
        |property: &&PropertyDefinition| !property.name.starts_with("hs_") && !property.name.starts_with("hubspot_");
    let people = || schema.properties.values().filter(writable).find(of_people);
    let found = if own.read_only() { people().or_else(|| schema.properties.values().find(writable)) } else { None };
    &found.unwrap_or(own).group_name
}

fn fit(object: &ObjectType, definition: &PropertyDefinition) -> Result<()> {
    if definition.has_unique_value && definition.kind == "string" && !definition.read_only() {
        return Ok(());
    }
    let message = format!(
        "property `{}` of {object} is there, but is not a writable text property with unique values; HubSpot cannot change that later",
        definition.name
    );
    let hint = "Delete the property in HubSpot and run again: hubferry then adds it as it must be.";
    Err(Error::invalid(codes::KEY_NOT_UNIQUE, message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(id: &str, key: Option<&str>) -> Found {
        let properties = BTreeMap::from([("k".to_owned(), key.map(str::to_owned))]);
        Found { id: id.to_owned(), properties, ..Found::default() }
    }

    #[test]
    fn only_one_record_without_a_key_is_adopted() {
        let (free, ours, other) = (found("1", None), found("2", Some("A.io")), found("3", Some("b.io")));
        let decided = |adoption| Choice::Decided(adoption);
        assert_eq!(choose(&[], "k", "a.io"), decided(Adoption::New));
        assert_eq!(choose(&[&free], "k", "a.io"), Choice::Mark("1".to_owned()));
        assert_eq!(choose(&[&free, &ours], "k", "a.io"), decided(Adoption::Known { id: "2".to_owned() }));
        assert_eq!(choose(&[&other], "k", "a.io"), decided(Adoption::Taken { id: "3".to_owned() }));
        assert_eq!(choose(&[&free, &other], "k", "a.io"), decided(Adoption::Ambiguous(2)));
    }
}
