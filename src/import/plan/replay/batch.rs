//! One batch of a plan's records: what is read first, what is compared, what is written.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    super::{
        super::deliver::{Delivered, image},
        format::{Act, Field, PlanRecord},
        values::{same, written},
    },
    CLOCK_SLACK, Replay, set,
};
use crate::{
    clock::Deadline,
    codes,
    error::Result,
    http::rate_limit::Permit,
    hubspot::{
        batch::{Write, WriteKind},
        model::{ObjectSchema, PropertyDefinition},
        read::Found,
        records::{RawRecord, Wanted},
        verdict::Verdict,
    },
    objects::Location,
    record::{Input, ObjectType, PropertyName, Reason},
};

/// The property that only moves forward: to set it back it is cleared first.
const LIFECYCLE_STAGE: &str = "lifecyclestage";

/// Names of fields in a reason.
const NAMES_SHOWN: usize = 10;

/// What is known of one input of a batch.
pub(super) struct Item {
    pub(super) at: usize,
    pub(super) record: PlanRecord,
}

/// One batch of records of one type.
pub(super) struct Batch<'a> {
    pub(super) replay: &'a Replay,
    pub(super) object: &'a ObjectType,
    pub(super) schema: &'a ObjectSchema,
    pub(super) number: String,
    pub(super) deadline: Deadline,
}

/// What is to be written for an item.
struct Intent {
    at: usize,
    input: Input,
    image: serde_json::Value,
    /// The verdict once it is written; without one, HubSpot's.
    then: Option<Delivered>,
}

impl Batch<'_> {
    fn definition(&self, name: &str) -> Option<&PropertyDefinition> {
        self.schema.properties.get(name)
    }

    fn same(&self, name: &str, a: Option<&str>, b: Option<&str>) -> bool {
        same(self.definition(name), a, b)
    }

    /// Fields that hold neither value of the plan, and those that are still to be written.
    fn compare<'f>(&self, fields: &'f [Field], found: &Found) -> (Vec<&'f str>, Vec<&'f Field>) {
        let (mut others, mut open) = (Vec::new(), Vec::new());
        for field in fields {
            let (name, old, new) = field;
            let now = found.value(name);
            if self.same(name, now, new.as_deref()) {
                continue;
            }
            // A run that added an option left the options that were there with it.
            let old = match old {
                Some(old) if self.replay.is_undo() => written(self.definition(name), new.as_deref(), old),
                old => old.clone(),
            };
            // On its way back it is nothing for a moment.
            let between = self.replay.again && self.replay.is_undo() && &**name == LIFECYCLE_STAGE && now.is_none();
            if self.same(name, now, old.as_deref()) || between {
                open.push(field);
            } else {
                others.push(&**name);
            }
        }
        (others, open)
    }

    fn names(items: &[Item]) -> Vec<PropertyName> {
        let names: BTreeSet<&PropertyName> =
            items.iter().flat_map(|item| item.record.fields.iter().map(|(name, ..)| name)).collect();
        names.into_iter().cloned().collect()
    }

    async fn read(
        &self,
        property: Option<&str>,
        keys: &[String],
        names: &[PropertyName],
        permit: &mut Option<Permit>,
    ) -> Result<Vec<Option<Found>>> {
        self.replay.account.read(self.object, property, keys, names, permit.take(), self.deadline).await
    }

    /// Says what would be done, or makes the images durable and writes.
    async fn carry_out(
        &self,
        kind: WriteKind,
        id_property: Option<&str>,
        intents: Vec<Intent>,
        delivered: &mut [Delivered],
    ) -> Result<()> {
        if intents.is_empty() {
            return Ok(());
        }
        let replay = self.replay;
        let mut body = String::new();
        for intent in &intents {
            body.push_str(&intent.image.to_string());
            body.push('\n');
        }
        let name = format!("{}before-{}.jsonl", replay.folder.key, self.number);
        let at = Location::new(&replay.folder.bucket, name);
        replay.objects.put(&at, Bytes::from(body), "application/x-ndjson").await?;
        let inputs: Vec<Input> = intents.iter().map(|intent| intent.input.clone()).collect();
        let write = Write { kind, object: self.object, id_property };
        let mut verdicts = vec![None; inputs.len()];
        if kind == WriteKind::Update && replay.is_undo() {
            self.clear_stages(&inputs, &mut verdicts).await?;
        }
        replay.account.write(write, &inputs, &mut verdicts, None, self.deadline).await?;
        for (intent, verdict) in intents.into_iter().zip(verdicts) {
            let verdict = match (verdict.map_or(Delivered::Unknown, Delivered::from), intent.then) {
                (Delivered::Written { .. }, Some(then)) => then,
                (verdict, _) => verdict,
            };
            set(delivered, intent.at, verdict);
        }
        Ok(())
    }

    /// HubSpot moves a lifecycle stage backward only after it was cleared. Who is refused gets its verdict here.
    async fn clear_stages(&self, inputs: &[Input], verdicts: &mut [Option<Verdict>]) -> Result<()> {
        let stage = |input: &Input| {
            input.properties.iter().any(|(name, value)| &**name == LIFECYCLE_STAGE && !value.is_empty())
        };
        let places: Vec<usize> = (0..inputs.len()).filter(|at| inputs.get(*at).is_some_and(stage)).collect();
        if places.is_empty() {
            return Ok(());
        }
        let clears: Vec<Input> = places
            .iter()
            .filter_map(|at| inputs.get(*at))
            .map(|input| Input { key: input.key.clone(), properties: vec![(LIFECYCLE_STAGE.into(), String::new())] })
            .collect();
        let mut cleared = vec![None; clears.len()];
        let write = Write { kind: WriteKind::Update, object: self.object, id_property: None };
        self.replay.account.write(write, &clears, &mut cleared, None, self.deadline).await?;
        for (at, verdict) in places.into_iter().zip(cleared) {
            if let (Some(slot), Some(Verdict::Refused(reason))) = (verdicts.get_mut(at), verdict) {
                *slot = Some(Verdict::Refused(reason));
            }
        }
        Ok(())
    }

    /// Tells what would be done.
    fn foretell(item: &Item, act: Act, fields: Vec<Field>, id: Option<&str>, why: Option<&str>) -> Delivered {
        Delivered::Planned(Box::new(PlanRecord {
            act,
            fields,
            id: id.map(str::to_owned).or_else(|| item.record.id.clone()),
            why: why.map(str::to_owned),
            lines: Vec::new(),
            ..item.record.clone()
        }))
    }

    pub(super) async fn make(
        &self,
        items: Vec<Item>,
        permit: &mut Option<Permit>,
        delivered: &mut [Delivered],
    ) -> Result<()> {
        let object = self.object.as_str();
        let property = self.replay.header.records.iter().find(|record| record.object.as_str() == object);
        let Some(property) = property.map(|record| record.key_property.clone().unwrap_or_else(|| record.key.clone()))
        else {
            let reason = Reason::new(
                codes::PLAN_INVALID,
                format!("the plan's first line does not say what identifies {object}"),
            );
            for item in items {
                set(delivered, item.at, Delivered::Refused(reason.clone()));
            }
            return Ok(());
        };
        let keys: Vec<String> = items.iter().map(|item| item.record.key.clone()).collect();
        let found = self.read(Some(&property), &keys, &Self::names(&items), permit).await?;
        let began = self.replay.account.at_hubspot(self.replay.started_at);
        let began = began.checked_sub(CLOCK_SLACK).unwrap_or(began);
        let mut intents = Vec::new();
        for (item, found) in items.into_iter().zip(found) {
            match found {
                // Ours: the answer was lost, or the checkpoint was not reached.
                Some(found)
                    if found.created_at.is_some_and(|created| created >= began)
                        && self.compare(&item.record.fields, &found) == (Vec::new(), Vec::new()) =>
                {
                    set(delivered, item.at, Delivered::Written { id: found.id, created: true });
                }
                Some(found) => {
                    let reason = format!("record {} has this `{property}` by now", found.id);
                    set(delivered, item.at, Delivered::Refused(Reason::new(codes::PLAN_CHANGED, reason)));
                }
                None => {
                    let values = |field: &Field| Some((field.0.clone(), field.2.clone()?));
                    let input = Input {
                        key: item.record.key.clone(),
                        properties: item.record.fields.iter().filter_map(values).collect(),
                    };
                    let image = image(
                        self.object,
                        None,
                        &item.record.key,
                        Some(&property),
                        WriteKind::Upsert,
                        &input.properties,
                    );
                    intents.push(Intent { at: item.at, input, image, then: None });
                }
            }
        }
        self.carry_out(WriteKind::Upsert, Some(&property), intents, delivered).await
    }

    pub(super) async fn change(
        &self,
        items: Vec<Item>,
        permit: &mut Option<Permit>,
        delivered: &mut [Delivered],
    ) -> Result<()> {
        let undo = self.replay.is_undo();
        let code = if undo { codes::CHANGED_SINCE } else { codes::PLAN_CHANGED };
        let mut names = Self::names(&items);
        let key_name = self
            .replay
            .header
            .records
            .iter()
            .find(|record| record.object == *self.object)
            .map(|record| record.key.as_str());
        let key_name: Option<PropertyName> =
            key_name.filter(|name| !undo && self.schema.properties.contains_key(*name)).map(Into::into);
        names.extend(key_name.clone().filter(|name| !names.contains(name)));
        // A record that an earlier line made has no id in the plan.
        let (with, without): (Vec<Item>, Vec<Item>) = items.into_iter().partition(|item| item.record.id.is_some());
        let ids: Vec<String> = with.iter().filter_map(|item| item.record.id.clone()).collect();
        let mut both: Vec<(Item, Option<Found>)> = Vec::new();
        if !ids.is_empty() {
            let found = self.read(None, &ids, &names, permit).await?;
            both.extend(with.into_iter().zip(found));
        }
        if !without.is_empty() {
            let keys: Vec<String> = without.iter().map(|item| item.record.key.clone()).collect();
            let property = self.replay.key_of(self.object.as_str()).map(str::to_owned);
            let found = self.read(property.as_deref(), &keys, &names, permit).await?;
            both.extend(without.into_iter().zip(found));
        }
        let untouched = if undo { self.untouched(&both).await? } else { BTreeSet::new() };
        let mut intents = Vec::new();
        for (item, found) in both {
            let found = found.filter(|found| item.record.id.as_ref().is_none_or(|id| *id == found.id));
            let Some(found) = found else {
                let reason = "the record is archived, merged or deleted by now";
                set(delivered, item.at, Delivered::Refused(Reason::new(code, reason)));
                continue;
            };
            let (mut others, mut open) = self.compare(&item.record.fields, &found);
            others.retain(|name| {
                let ours = untouched.contains(&(found.id.clone(), (*name).to_owned()));
                open.extend(item.record.fields.iter().filter(|(field, ..)| ours && **field == **name));
                !ours
            });
            let planned = |name: &str| item.record.fields.iter().any(|(field, ..)| &**field == name);
            if let Some(name) = key_name.as_deref().filter(|name| !planned(name))
                && !self.same(name, found.value(name), Some(&item.record.key))
            {
                others.push("the key");
            }
            let kept = |others: &[&str], what: &str| Reason::new(code, format!("{what}: {}", listed(others)));
            if !others.is_empty() && (!undo || open.is_empty()) {
                let what =
                    if undo { "kept, because they were changed since" } else { "changed since the plan was made" };
                set(delivered, item.at, Delivered::Refused(kept(&others, what)));
                continue;
            }
            if open.is_empty() {
                let own = self.replay.again && !self.replay.dry;
                let verdict = match own {
                    true => Delivered::Written { id: found.id, created: false },
                    false if self.replay.dry => Self::foretell(
                        &item,
                        Act::Unchanged,
                        Vec::new(),
                        Some(&found.id),
                        Some("the old values are there already"),
                    ),
                    false => Delivered::Unchanged { id: found.id },
                };
                set(delivered, item.at, verdict);
                continue;
            }
            let fields: Vec<Field> = open.into_iter().cloned().collect();
            if self.replay.dry {
                let why =
                    (!others.is_empty()).then(|| format!("kept, because they were changed since: {}", listed(&others)));
                set(delivered, item.at, Self::foretell(&item, Act::Update, fields, None, why.as_deref()));
                continue;
            }
            let properties: Vec<(PropertyName, String)> =
                fields.iter().map(|(name, _, new)| (name.clone(), new.clone().unwrap_or_default())).collect();
            let image = image(self.object, Some(&found), &item.record.key, None, WriteKind::Update, &properties);
            let then = (!others.is_empty()).then(|| {
                Delivered::Refused(kept(
                    &others,
                    "the other fields were restored; kept, because they were changed since",
                ))
            });
            intents.push(Intent { at: item.at, input: Input { key: found.id, properties }, image, then });
        }
        self.carry_out(WriteKind::Update, None, intents, delivered).await
    }

    /// Fields that hold another value than the run wrote, and that nobody has written since: HubSpot keeps some values in a form of its own.
    async fn untouched(&self, items: &[(Item, Option<Found>)]) -> Result<BTreeSet<(String, String)>> {
        let mut names: BTreeSet<PropertyName> = BTreeSet::new();
        let mut ids = Vec::new();
        for (item, found) in items {
            let Some(found) = found else { continue };
            let (others, _) = self.compare(&item.record.fields, found);
            if !others.is_empty() {
                ids.push(found.id.clone());
                names.extend(others.into_iter().map(PropertyName::from));
            }
        }
        if ids.is_empty() {
            return Ok(BTreeSet::new());
        }
        let wanted = Wanted { properties: names.into_iter().collect(), history: true, archived: false };
        let records = self.replay.account.read_records(self.object, &ids, &wanted, self.deadline).await?;
        let until = self.until();
        let mut untouched = BTreeSet::new();
        for (id, record) in &records {
            for (name, values) in &record.history {
                if !values.is_empty() && values.iter().all(|value| value.at <= until) {
                    untouched.insert((id.clone(), name.clone()));
                }
            }
        }
        Ok(untouched)
    }

    /// Archives what the plan says.
    pub(super) async fn remove(
        &self,
        items: Vec<Item>,
        permit: &mut Option<Permit>,
        delivered: &mut [Delivered],
    ) -> Result<()> {
        let ids: Vec<String> = items.iter().map(|item| item.record.id.clone().unwrap_or_default()).collect();
        let writable = self.schema.properties.values().filter(|property| !property.read_only());
        let mut names: Vec<PropertyName> = writable.map(|property| property.name.as_str().into()).collect();
        let header = self.replay.header.records.iter().find(|record| record.object == *self.object);
        let key_name =
            header.map(|record| record.key.as_str()).filter(|name| self.schema.properties.contains_key(*name));
        names.extend(key_name.map(PropertyName::from).filter(|name| !names.contains(name)));
        let found = self.read(None, &ids, &names, permit).await?;
        let mut intents = Vec::new();
        for (item, found) in items.into_iter().zip(found) {
            let Some(found) = found.filter(|found| item.record.id.as_ref() == Some(&found.id)) else {
                let id = item.record.id.clone().unwrap_or_default();
                let verdict = match self.replay.again {
                    true => Delivered::Written { id, created: false },
                    false => Delivered::Unchanged { id },
                };
                set(delivered, item.at, verdict);
                continue;
            };
            if let Some(name) = key_name
                && !item.record.key.is_empty()
                && !self.same(name, found.value(name), Some(&item.record.key))
            {
                let reason = "changed since the plan was made: the key";
                set(delivered, item.at, Delivered::Refused(Reason::new(codes::PLAN_CHANGED, reason)));
                continue;
            }
            let image = image(self.object, Some(&found), &item.record.key, None, WriteKind::Archive, &[]);
            let input = Input { key: found.id, properties: Vec::new() };
            intents.push(Intent { at: item.at, input, image, then: None });
        }
        self.carry_out(WriteKind::Archive, None, intents, delivered).await
    }

    /// Archives records that the run made, unless they were edited since.
    pub(super) async fn take_back(
        &self,
        items: Vec<Item>,
        permit: &mut Option<Permit>,
        delivered: &mut [Delivered],
    ) -> Result<()> {
        let names = Self::names(&items);
        let mut found: Vec<(Item, Option<Found>)> = Vec::new();
        let mut by_property: BTreeMap<Option<String>, Vec<Item>> = BTreeMap::new();
        for item in items {
            let property = if item.record.id.is_some() { None } else { item.record.by.clone() };
            by_property.entry(property).or_default().push(item);
        }
        for (property, items) in by_property {
            let key = |item: &Item| item.record.id.clone().unwrap_or_else(|| item.record.key.clone());
            let keys: Vec<String> = items.iter().map(key).collect();
            let read = self.read(property.as_deref(), &keys, &names, permit).await?;
            found.extend(items.into_iter().zip(read));
        }
        let until = self.until();
        let ids: Vec<String> =
            found.iter().filter_map(|(_, found)| found.as_ref().map(|found| found.id.clone())).collect();
        let others: Vec<PropertyName> = self.edited_by_people();
        let histories = if ids.is_empty() || others.is_empty() {
            BTreeMap::new()
        } else {
            let wanted = Wanted { properties: others, history: true, archived: false };
            self.replay.account.read_records(self.object, &ids, &wanted, self.deadline).await?
        };
        let mut intents = Vec::new();
        for (item, found) in found {
            let Some(found) = found else {
                let verdict = match self.replay.dry {
                    true => Self::foretell(&item, Act::Unchanged, Vec::new(), None, Some("the record is gone already")),
                    false if self.replay.again => Delivered::Written { id: String::new(), created: false },
                    false => Delivered::Unchanged { id: String::new() },
                };
                set(delivered, item.at, verdict);
                continue;
            };
            if found.created_at.is_some_and(|created| created > until) {
                // The run did not make it after all; somebody else did, later.
                let why = "the record with this key was made after the run";
                let verdict = match self.replay.dry {
                    true => Self::foretell(&item, Act::Unchanged, Vec::new(), None, Some(why)),
                    false => Delivered::Unchanged { id: found.id },
                };
                set(delivered, item.at, verdict);
                continue;
            }
            let mut edited: Vec<&str> = Vec::new();
            for (name, _, new) in &item.record.fields {
                if !self.same(name, found.value(name), new.as_deref()) {
                    edited.push(name);
                }
            }
            let written = |name: &str| item.record.fields.iter().any(|(field, ..)| &**field == name);
            let history = histories.get(&found.id);
            // What this undo set back of later rows is no edit.
            let began = self.replay.account.at_hubspot(self.replay.started_at);
            edited.extend(later(history, until, began).filter(|name| !written(name)));
            if !edited.is_empty() {
                let reason = format!("the run made the record; kept, because it was edited since: {}", listed(&edited));
                set(delivered, item.at, Delivered::Refused(Reason::new(codes::CHANGED_SINCE, reason)));
                continue;
            }
            if self.replay.dry {
                let why = "the run made the record";
                set(delivered, item.at, Self::foretell(&item, Act::Archive, Vec::new(), Some(&found.id), Some(why)));
                continue;
            }
            let image = image(self.object, Some(&found), &item.record.key, None, WriteKind::Archive, &[]);
            let input = Input { key: found.id, properties: Vec::new() };
            intents.push(Intent { at: item.at, input, image, then: None });
        }
        self.carry_out(WriteKind::Archive, None, intents, delivered).await
    }

    /// The end of the run that is undone, by HubSpot's clock.
    fn until(&self) -> Timestamp {
        self.replay.header.until.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Properties in which an edit by people or other apps shows. HubSpot writes others all the time.
    fn edited_by_people(&self) -> Vec<PropertyName> {
        let by_people = |property: &&PropertyDefinition| {
            !property.read_only() && !property.name.starts_with("hs_") && !property.name.starts_with("hubferry_")
        };
        self.schema.properties.values().filter(by_people).map(|property| property.name.as_str().into()).collect()
    }
}

/// Properties that got a value after `until` and before `began`.
fn later(record: Option<&RawRecord>, until: Timestamp, began: Timestamp) -> impl Iterator<Item = &str> {
    let histories = record.into_iter().flat_map(|record| &record.history);
    histories
        .filter(move |(_, values)| values.iter().any(|value| value.at > until && value.at < began))
        .map(|(name, _)| name.as_str())
}

/// Names, in backquotes.
pub(super) fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
