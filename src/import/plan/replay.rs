//! A plan at work: `apply`, and `undo`, which is the application of a plan that was made of before-images.
//!
//! It is an import whose lines are records. What makes it exact: before each batch the records are read, and only what is still as the
//! plan says it was is written. Before-images are durable before the write, always.
//!
//! | | apply | undo |
//! |---|---|---|
//! | a field has neither the old nor the new value | the whole record is left alone, `PLAN_CHANGED` | the field is left alone, `CHANGED_SINCE`; the others are restored |
//! | every field has its new value | unchanged | unchanged |
//! | a record to make is there | `PLAN_CHANGED` | |
//! | a record to archive was edited | | left alone, `CHANGED_SINCE` |

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    super::{
        deliver::{Delivered, image},
        ledger::RowId,
    },
    format::{Act, Field, Header, Line, Of, PlanAssociation, PlanRecord},
    values::{same, written},
};
use crate::{
    clock::Deadline,
    codes,
    error::Result,
    http::rate_limit::Permit,
    hubspot::{
        account::Account,
        associations::{AssociationType, PairVerdict},
        batch::{Write, WriteKind},
        model::{ObjectSchema, PropertyDefinition},
        properties::SchemaParts,
        read::Found,
        records::{RawRecord, Wanted},
        verdict::Verdict,
    },
    objects::{Location, Objects},
    record::{Input, ObjectType, PropertyName, Reason},
};

/// The property that only moves forward: to set it back it is cleared first.
const LIFECYCLE_STAGE: &str = "lifecyclestage";

/// How far HubSpot's clock may be off, as far as its answers tell: whole seconds, less what they took.
pub(super) const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(2);

/// Names of fields in a reason.
const NAMES_SHOWN: usize = 10;

/// The kinds of calls, one lane each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::import) enum Lane {
    Make,
    Change,
    Remove,
    Associate,
}

impl Lane {
    pub(in crate::import) const ALL: [Self; 4] = [Self::Make, Self::Change, Self::Remove, Self::Associate];
}

/// What a plan's line asks for.
pub(in crate::import) enum Order {
    /// To be sent by this lane.
    Send(Lane, Input),
    /// Nothing.
    Unchanged,
    /// It cannot be done.
    Refused(Reason),
}

/// A line that waits for its verdict.
pub(super) enum Entry {
    Record(PlanRecord),
    Association(PlanAssociation),
}

/// A plan at work in one invocation.
pub(in crate::import) struct Replay {
    pub(super) account: Rc<Account>,
    pub(super) objects: Rc<dyn Objects>,
    pub(super) header: Rc<Header>,
    /// Where before-images go.
    pub(super) folder: Location,
    /// When the run was started: what was made since is its own.
    pub(super) started_at: Timestamp,
    /// An earlier invocation may have written already.
    pub(super) again: bool,
    /// Nothing is written: what would be done is told.
    pub(super) dry: bool,
    /// What was read, until it has its verdict; by the row's number.
    pub(super) entries: RefCell<HashMap<u64, Entry>>,
    pub(super) labels: RefCell<BTreeMap<(String, String, String), AssociationType>>,
}

/// What is known of one input of a batch.
struct Item {
    at: usize,
    record: PlanRecord,
}

impl Replay {
    fn is_undo(&self) -> bool {
        self.header.of == Of::Undo
    }

    /// Whether the line is none that anything is to be done about: the first and the last one, rows that were rejected.
    pub(in crate::import) fn passes_over(text: &str) -> bool {
        matches!(Line::parse(text), Ok(Line::Plan(_) | Line::Totals(_) | Line::Reject(_)))
    }

    /// Says what a line asks for.
    pub(in crate::import) fn read(&self, text: &str, row: RowId) -> Order {
        let refused = |message: String| Order::Refused(Reason::new(codes::PLAN_INVALID, message));
        let line = match Line::parse(text) {
            Ok(line) => line,
            Err(error) => return refused(error.message().to_owned()),
        };
        let number = row.number();
        match line {
            Line::Record(record) => {
                let lane = match record.act {
                    Act::Unchanged => return Order::Unchanged,
                    Act::Restore => {
                        let reason = "the run archived the record, and HubSpot's API cannot bring it back";
                        return Order::Refused(Reason::new(codes::ARCHIVED_BY_RUN, reason));
                    }
                    Act::Create => Lane::Make,
                    Act::Update => Lane::Change,
                    Act::Archive => Lane::Remove,
                };
                // A repeated key has an id in none of its lines, or in all of them; one that is made by an earlier line has none.
                let key = if record.key.trim().is_empty() {
                    record.id.clone().unwrap_or_default()
                } else {
                    record.key.clone()
                };
                if key.is_empty() {
                    return refused("the record has neither a key nor an id".to_owned());
                }
                let mut properties = vec![(PropertyName::from(""), number.to_string())];
                properties
                    .extend(record.fields.iter().map(|(name, _, new)| (name.clone(), new.clone().unwrap_or_default())));
                let input = Input { key: format!("{}\n{key}", record.object), properties };
                self.entries.borrow_mut().insert(number, Entry::Record(*record));
                Order::Send(lane, input)
            }
            Line::Associate(association) => {
                let input = Input {
                    key: format!("\n{number}"),
                    properties: vec![(PropertyName::from(""), number.to_string())],
                };
                self.entries.borrow_mut().insert(number, Entry::Association(*association));
                Order::Send(Lane::Associate, input)
            }
            // Passed over already.
            Line::Plan(_) | Line::Totals(_) | Line::Reject(_) => Order::Unchanged,
        }
    }

    /// The row has its verdict.
    pub(in crate::import) fn forget(&self, row: RowId) {
        self.entries.borrow_mut().remove(&row.number());
    }

    /// Delivers a batch of one lane; one verdict per input, in order. `number` names its before-images.
    pub(in crate::import) async fn deliver(
        &self,
        lane: Lane,
        number: &str,
        inputs: &[Input],
        permit: Permit,
        deadline: Deadline,
    ) -> Result<Vec<Delivered>> {
        let mut delivered: Vec<Delivered> = vec![Delivered::Unknown; inputs.len()];
        let mut records: BTreeMap<ObjectType, Vec<Item>> = BTreeMap::new();
        let mut pairs: BTreeMap<(String, String, String), Vec<(usize, PlanAssociation)>> = BTreeMap::new();
        for (at, input) in inputs.iter().enumerate() {
            let row = input.properties.first().and_then(|(_, row)| row.parse::<u64>().ok()).unwrap_or(u64::MAX);
            match self.entries.borrow().get(&row) {
                Some(Entry::Record(record)) => {
                    records.entry(record.object.clone()).or_default().push(Item { at, record: record.clone() });
                }
                Some(Entry::Association(association)) => {
                    let label = association.label.clone().unwrap_or_default();
                    let kind = (association.from.clone(), association.to.clone(), label);
                    pairs.entry(kind).or_default().push((at, association.clone()));
                }
                None => {}
            }
        }
        let mut permit = Some(permit);
        for (part, (object, items)) in records.into_iter().enumerate() {
            let schema = self.account.schema(&object, SchemaParts::default(), deadline).await?;
            let work =
                Work { replay: self, object: &object, schema: &schema, number: format!("{number}-{part}"), deadline };
            match lane {
                Lane::Make => work.make(items, &mut permit, &mut delivered).await?,
                Lane::Change => work.change(items, &mut permit, &mut delivered).await?,
                Lane::Remove if self.is_undo() => work.take_back(items, &mut permit, &mut delivered).await?,
                Lane::Remove => work.remove(items, &mut permit, &mut delivered).await?,
                Lane::Associate => {}
            }
        }
        for (kind, pairs) in pairs {
            self.associate(&kind, pairs, deadline, &mut delivered).await?;
        }
        Ok(delivered)
    }

    /// The property by which records of a type are found.
    fn key_of(&self, object: &str) -> Option<&str> {
        let found = self.header.records.iter().find(|record| record.object.as_str() == object)?;
        Some(found.key_property.as_deref().unwrap_or(&found.key))
    }

    async fn associate(
        &self,
        (from, to, label): &(String, String, String),
        pairs: Vec<(usize, PlanAssociation)>,
        deadline: Deadline,
        delivered: &mut [Delivered],
    ) -> Result<()> {
        let known = self.labels.borrow().get(&(from.clone(), to.clone(), label.clone())).cloned();
        let (from_type, to_type) = (ObjectType(from.clone()), ObjectType(to.clone()));
        let label = match (label.as_str(), known) {
            ("", _) => None,
            (_, Some(known)) => Some(known),
            (name, None) => {
                let found = self.account.association_type(&from_type, &to_type, name, deadline).await?;
                self.labels.borrow_mut().insert((from.clone(), to.clone(), name.to_owned()), found.clone());
                Some(found)
            }
        };
        let near: Vec<_> = pairs.iter().map(|(_, pair)| (pair.from_id.clone(), pair.from_key.clone())).collect();
        let far: Vec<_> = pairs.iter().map(|(_, pair)| (pair.to_id.clone(), pair.to_key.clone())).collect();
        let near = self.ids(&from_type, near, deadline).await?;
        let far = self.ids(&to_type, far, deadline).await?;
        let (mut places, mut ids) = (Vec::new(), Vec::new());
        for (((at, _), near), far) in pairs.iter().zip(near).zip(far) {
            match (near, far) {
                (Some(near), Some(far)) => {
                    places.push(*at);
                    ids.push((near, far));
                }
                _ => {
                    let reason = "one of the two records is not there: it was not made, or is gone";
                    set(delivered, *at, Delivered::Refused(Reason::new(codes::ASSOCIATION_FAILED, reason)));
                }
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        let verdicts = self.account.associate(&from_type, &to_type, label.as_ref(), &ids, deadline).await?;
        for (at, verdict) in places.into_iter().zip(verdicts) {
            let verdict = match verdict {
                PairVerdict::Made => Delivered::Written { id: String::new(), created: false },
                PairVerdict::Refused(reason) => Delivered::Refused(reason),
                PairVerdict::Unknown => Delivered::Unknown,
            };
            set(delivered, at, verdict);
        }
        Ok(())
    }

    /// The ids of records that are named by id or by key.
    async fn ids(
        &self,
        object: &ObjectType,
        names: Vec<(Option<String>, Option<String>)>,
        deadline: Deadline,
    ) -> Result<Vec<Option<String>>> {
        let keys: Vec<String> =
            names.iter().filter(|(id, _)| id.is_none()).filter_map(|(_, key)| key.clone()).collect();
        let mut by_key: HashMap<String, String> = HashMap::new();
        if let (Some(property), false) = (self.key_of(object.as_str()), keys.is_empty()) {
            let found = self.account.read(object, Some(property), &keys, &[], None, deadline).await?;
            by_key = keys.into_iter().zip(found).filter_map(|(key, found)| Some((key, found?.id))).collect();
        }
        Ok(names.into_iter().map(|(id, key)| id.or_else(|| by_key.get(&key?).cloned())).collect())
    }
}

/// One batch of records of one type.
struct Work<'a> {
    replay: &'a Replay,
    object: &'a ObjectType,
    schema: &'a ObjectSchema,
    number: String,
    deadline: Deadline,
}

/// What is to be written for an item.
struct Intent {
    at: usize,
    input: Input,
    image: serde_json::Value,
    /// The verdict once it is written; without one, HubSpot's.
    then: Option<Delivered>,
}

impl Work<'_> {
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

    async fn make(&self, items: Vec<Item>, permit: &mut Option<Permit>, delivered: &mut [Delivered]) -> Result<()> {
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

    async fn change(&self, items: Vec<Item>, permit: &mut Option<Permit>, delivered: &mut [Delivered]) -> Result<()> {
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
    async fn remove(&self, items: Vec<Item>, permit: &mut Option<Permit>, delivered: &mut [Delivered]) -> Result<()> {
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
    async fn take_back(
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
fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn set(delivered: &mut [Delivered], at: usize, verdict: Delivered) {
    if let Some(place) = delivered.get_mut(at) {
        *place = verdict;
    }
}
