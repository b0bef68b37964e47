//! Planning at work: what a batch would change, and what is written down of it.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{
    super::deliver::{Delivered, Delivery, fold},
    format::{Act, Field, Line, PlanAssociation, PlanMirror, PlanProperty, PlanRecord, PlanReject, Tie, Totals},
    values::{same, written},
};
use crate::{
    clock::Deadline,
    codes,
    error::{Error, Result},
    http::rate_limit::Permit,
    hubspot::properties::NewProperty,
    hubspot::{
        adopt::Adoption,
        batch::{BATCH_INPUTS_MAX, WriteKind},
        model::{ObjectSchema, PropertyDefinition},
        read::Found,
    },
    mapping::RECORD_ID,
    record::{Input, ObjectType, PropertyName, Reason},
    report::RowOutcome,
};

/// Records whose planned values are remembered because their key comes up again: about 100 MB at the worst, nothing for most files.
const REMEMBERED_MAX: usize = 200_000;

/// Takes a plan's lines, in order. An error of it ends the planning.
pub type Sink = Box<dyn FnMut(&Line) -> Result<()>>;

/// A plan being made.
pub(in crate::import) struct Plan {
    sink: RefCell<Sink>,
    pub(super) totals: RefCell<Totals>,
    failed: RefCell<Option<Error>>,
    /// Hashes of keys that come up in more than one row.
    repeated: RefCell<HashSet<u64>>,
    /// What the plan leaves of records whose key is among these; `None`: archived.
    left: RefCell<HashMap<(usize, String), Option<Found>>>,
    /// Properties that would be created.
    pub(in crate::import) properties: RefCell<Vec<PlanProperty>>,
}

/// How a lane's batches are planned.
pub(in crate::import) struct Planned {
    pub(in crate::import) plan: Rc<Plan>,
    /// The lane's place among the row's records.
    pub(in crate::import) lane: usize,
    pub(in crate::import) schema: Rc<ObjectSchema>,
    /// The property that stands for the key is not there yet: no record carries it.
    pub(in crate::import) key_property_is_new: bool,
}

/// Of a folded key of a lane.
pub(super) fn repeat_hash(lane: usize, folded: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(folded.as_bytes(), lane as u64)
}

/// How hubferry's own properties are labelled.
const KEY_LABEL: &str = "hubferry key: ";

impl PlanProperty {
    /// Whether it is hubferry's own, which stands for a key.
    pub(in crate::import) fn is_key(&self) -> bool {
        self.key().is_some()
    }

    /// The key that it stands for.
    pub(super) fn key(&self) -> Option<&str> {
        self.property.label.strip_prefix(KEY_LABEL).filter(|_| self.property.name.starts_with("hubferry_"))
    }

    /// As the account would have it.
    pub(in crate::import) fn definition(&self) -> PropertyDefinition {
        let new = &self.property;
        PropertyDefinition {
            name: new.name.clone(),
            label: new.label.clone(),
            kind: new.kind.clone(),
            field_type: new.field_type.clone(),
            group_name: new.group_name.clone(),
            options: new.options.clone(),
            has_unique_value: new.has_unique_value,
            ..PropertyDefinition::default()
        }
    }
}

/// How a record is referred to that has no id yet.
const BY_KEY: &str = "key:";

impl Plan {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            sink: RefCell::new(sink),
            totals: RefCell::default(),
            failed: RefCell::default(),
            repeated: RefCell::default(),
            left: RefCell::default(),
            properties: RefCell::default(),
        }
    }

    /// Why the planning cannot go on.
    pub(in crate::import) fn take_failure(&self) -> Option<Error> {
        self.failed.borrow_mut().take()
    }

    fn fail(&self, error: Error) {
        self.failed.borrow_mut().get_or_insert(error);
    }

    pub(in crate::import) fn line(&self, line: &Line) {
        if self.failed.borrow().is_some() {
            return;
        }
        let result = (self.sink.borrow_mut())(line);
        if let Err(error) = result {
            self.fail(error);
        }
    }

    pub(super) fn set_repeated(&self, repeated: HashSet<u64>) {
        self.totals.borrow_mut().repeated = repeated.len() as u64;
        *self.repeated.borrow_mut() = repeated;
    }

    /// Writes down a record, and counts it.
    pub(in crate::import) fn record(&self, record: PlanRecord) {
        {
            let mut totals = self.totals.borrow_mut();
            match record.act {
                Act::Create => totals.create += 1,
                Act::Update => totals.update += 1,
                Act::Archive => totals.archive += 1,
                Act::Unchanged => totals.unchanged += 1,
                Act::Restore => totals.restore += 1,
            }
            if matches!(record.act, Act::Create | Act::Update) {
                totals.fields += record.fields.len() as u64;
            }
        }
        self.line(&Line::Record(Box::new(record)));
    }

    /// Writes down a row that would be rejected.
    pub(in crate::import) fn reject(&self, line: u64, reason: &Reason) {
        let column = reason.reason.strip_prefix("column `").and_then(|rest| rest.split_once('`'));
        self.line(&Line::Reject(Box::new(PlanReject {
            line,
            column: column.map(|(column, _)| column.to_owned()),
            code: reason.code.to_string(),
            reason: reason.reason.clone(),
            hint: reason.hint.clone(),
        })));
    }

    /// A row that is left out because the last file held the same.
    pub(in crate::import) fn left_out(&self, delivery: &Delivery, key: &str, line: u64) {
        self.record(PlanRecord {
            object: delivery.object.clone(),
            key: key.to_owned(),
            id: None,
            by: None,
            act: Act::Unchanged,
            fields: Vec::new(),
            why: Some("the last file delivered the same (skip_unchanged)".to_owned()),
            lines: vec![line],
        });
    }

    /// The property that stands for a key, where it is not there yet.
    pub(in crate::import) fn add_key_property(&self, object: &ObjectType, key: &str, name: &str) {
        let mut properties = self.properties.borrow_mut();
        if properties.iter().any(|planned| planned.object == *object && planned.property.name == name) {
            return;
        }
        let property = NewProperty {
            name: name.to_owned(),
            label: format!("{KEY_LABEL}{key}"),
            kind: "string".to_owned(),
            field_type: "text".to_owned(),
            group_name: String::new(),
            has_unique_value: true,
            options: Vec::new(),
        };
        properties.push(PlanProperty { object: object.clone(), property });
    }

    /// What mode `mirror` finds missing.
    pub(in crate::import) fn mirror(&self, mirror: PlanMirror) {
        self.totals.borrow_mut().mirror = Some(mirror);
    }

    /// A record that mode `mirror` would archive.
    pub(in crate::import) fn archive(&self, object: &ObjectType, key: String, id: String) {
        self.record(PlanRecord {
            object: object.clone(),
            key,
            id: Some(id),
            by: None,
            act: Act::Archive,
            fields: Vec::new(),
            why: Some("the file lacks it (mirror)".to_owned()),
            lines: Vec::new(),
        });
    }

    /// More rows are rejected than the import allows.
    pub(in crate::import) fn aborts(&self) {
        self.totals.borrow_mut().aborts = true;
    }

    /// An association of two records, named by [`reference`].
    pub(in crate::import) fn associate(&self, from: (&str, &str), to: (&str, &str), label: Option<&str>) {
        let parts = |reference: &str| match reference.strip_prefix(BY_KEY) {
            Some(key) => (None, Some(key.to_owned())),
            None => (Some(reference.to_owned()), None),
        };
        let ((from_id, from_key), (to_id, to_key)) = (parts(from.1), parts(to.1));
        self.tie(PlanAssociation {
            tie: Tie::Associate,
            from: from.0.to_owned(),
            to: to.0.to_owned(),
            label: label.map(str::to_owned),
            from_id,
            from_key,
            to_id,
            to_key,
            back_to: None,
        });
    }

    /// Writes down what is to be done with a pair, and counts it.
    pub(in crate::import) fn tie(&self, pair: PlanAssociation) {
        {
            let mut totals = self.totals.borrow_mut();
            match pair.tie {
                Tie::Associate => totals.associations += 1,
                Tie::Part | Tie::Unlabel => totals.parted += 1,
            }
        }
        self.line(&Line::Associate(Box::new(pair)));
    }

    /// What earlier rows of the plan leave of a record; `None` if they say nothing about it.
    fn left_of(&self, lane: usize, folded: &str) -> Option<Option<Found>> {
        self.left.borrow().get(&(lane, folded.to_owned())).cloned()
    }

    fn leave(&self, lane: usize, folded: &str, found: Option<Found>) {
        if !self.repeated.borrow().contains(&repeat_hash(lane, folded)) {
            return;
        }
        let mut left = self.left.borrow_mut();
        if left.len() >= REMEMBERED_MAX && !left.contains_key(&(lane, folded.to_owned())) {
            drop(left);
            self.fail(too_many_repeats());
            return;
        }
        left.insert((lane, folded.to_owned()), found);
    }
}

pub(super) fn too_many_repeats() -> Error {
    let message = format!(
        "more than {REMEMBERED_MAX} keys come up in several rows: a plan cannot hold what becomes of them one after the other"
    );
    Error::invalid(codes::PLAN_UNSUPPORTED, message)
        .with_hint("Sort the file by its key, so that equal keys stand together, or split it.")
}

/// What became of a planned record's rows.
pub(in crate::import) fn outcome_of(record: &PlanRecord) -> RowOutcome {
    match record.act {
        Act::Create => RowOutcome::Created,
        Act::Update | Act::Archive => RowOutcome::Updated,
        Act::Unchanged | Act::Restore => RowOutcome::Unchanged,
    }
}

/// What stands for the record's id.
pub(in crate::import) fn reference(record: &PlanRecord) -> String {
    record.id.clone().unwrap_or_else(|| format!("{BY_KEY}{}", record.key))
}

/// The fields that `properties` would change of what is there.
pub(super) fn fields_of(
    schema: &ObjectSchema,
    properties: &[(PropertyName, String)],
    found: Option<&Found>,
) -> Vec<Field> {
    let mut fields = Vec::new();
    for (name, value) in properties {
        if &**name == RECORD_ID {
            continue;
        }
        let definition: Option<&PropertyDefinition> = schema.properties.get(&**name);
        let old = found.and_then(|found| found.value(name));
        let new = written(definition, old, value);
        if !same(definition, old, new.as_deref()) {
            fields.push((name.clone(), old.map(str::to_owned), new));
        }
    }
    fields
}

impl Delivery {
    /// What delivering a batch would do; one verdict per input, in order. Nothing is written.
    pub(in crate::import) async fn plan(
        &self,
        planned: &Planned,
        inputs: &[Input],
        permit: Permit,
        deadline: Deadline,
    ) -> Result<Vec<Delivered>> {
        let mut inputs = inputs.to_vec();
        let mut permit = Some(permit);
        let mut verdicts: Vec<Option<Delivered>> = vec![None; inputs.len()];
        // Records that are there and would be marked: read by their ids.
        let mut ids: Vec<Option<String>> = vec![None; inputs.len()];
        if let Some(key_property) = &self.key_property {
            let keys: Vec<String> = inputs.iter().map(|input| input.key.clone()).collect();
            let known = (!planned.key_property_is_new).then_some(&**key_property);
            let adoptions = self.account.would_adopt(&self.object, &self.key, known, &keys, deadline).await?;
            for (((input, adoption), verdict), id) in inputs.iter_mut().zip(adoptions).zip(&mut verdicts).zip(&mut ids)
            {
                if let Some(reason) = adoption.reason(&self.object, &self.key) {
                    *verdict = Some(Delivered::Refused(reason));
                    continue;
                }
                if let Adoption::Known { id: found } | Adoption::Adopted { id: found } = adoption {
                    *id = Some(found);
                }
                input.properties.push((key_property.clone(), input.key.clone()));
            }
        }
        let found = self.look(&inputs, &verdicts, &ids, &mut permit, deadline).await?;
        for ((input, verdict), found) in inputs.iter().zip(&mut verdicts).zip(found) {
            if verdict.is_some() {
                continue;
            }
            let folded = crate::record::fold_key(&input.key);
            let found = planned.plan.left_of(planned.lane, &folded).unwrap_or(found);
            *verdict = Some(self.foresee(planned, input, &folded, found));
        }
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or(Delivered::Unknown)).collect())
    }

    /// The records as they are; one place per input.
    async fn look(
        &self,
        inputs: &[Input],
        decided: &[Option<Delivered>],
        ids: &[Option<String>],
        permit: &mut Option<Permit>,
        deadline: Deadline,
    ) -> Result<Vec<Option<Found>>> {
        let mut names: Vec<PropertyName> = Vec::new();
        for (name, _) in inputs.iter().flat_map(|input| &input.properties) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let mut found: Vec<Option<Found>> = vec![None; inputs.len()];
        let undecided = |at: &usize| decided.get(*at).is_some_and(Option::is_none);
        // Where there is a property for the key, it has told the ids already.
        let by_id: Vec<(usize, String)> = match (&self.key_property, self.by_record_id) {
            (Some(_), _) => (0..inputs.len())
                .filter(undecided)
                .filter_map(|at| Some((at, ids.get(at).cloned().flatten()?)))
                .collect(),
            (None, true) => inputs.iter().enumerate().map(|(at, input)| (at, input.key.clone())).collect(),
            (None, false) => Vec::new(),
        };
        let by_key: Vec<(usize, String)> = match (&self.key_property, self.by_record_id) {
            (None, false) => inputs.iter().enumerate().map(|(at, input)| (at, input.key.clone())).collect(),
            _ => Vec::new(),
        };
        for (property, places) in [(None, by_id), (Some(&*self.key), by_key)] {
            if places.is_empty() {
                continue;
            }
            let keys: Vec<String> = places.iter().map(|(_, key)| key.clone()).collect();
            let read = self.account.read(&self.object, property, &keys, &names, permit.take(), deadline).await?;
            for ((at, _), record) in places.into_iter().zip(read) {
                if let Some(place) = found.get_mut(at) {
                    *place = record;
                }
            }
        }
        Ok(found)
    }

    /// What delivering an input would do to what is there.
    fn foresee(&self, planned: &Planned, input: &Input, folded: &str, found: Option<Found>) -> Delivered {
        let record = |act, id: Option<&Found>, fields, why: Option<&str>| {
            Delivered::Planned(Box::new(PlanRecord {
                object: self.object.clone(),
                key: input.key.clone(),
                id: id.map(|found| found.id.clone()).filter(|id| !id.is_empty()),
                by: None,
                act,
                fields,
                why: why.map(str::to_owned),
                lines: Vec::new(),
            }))
        };
        let equal = "HubSpot has these values already";
        let (kind, decided) = match self.decide(input, found.as_ref()) {
            Ok(decided) => decided,
            Err(Delivered::Unchanged { .. }) => {
                let why = "HubSpot has values already (fill: if_empty)";
                return record(Act::Unchanged, found.as_ref(), Vec::new(), Some(why));
            }
            Err(verdict) => return verdict,
        };
        let found = match (kind, found) {
            (WriteKind::Archive, found) => {
                planned.plan.leave(planned.lane, folded, None);
                return record(Act::Archive, found.as_ref(), Vec::new(), None);
            }
            (_, None) if self.by_record_id => {
                return Delivered::Refused(Reason::new(codes::KEY_NOT_FOUND, "no record has this id"));
            }
            (_, found) => found,
        };
        let fields = fields_of(&planned.schema, &decided.properties, found.as_ref());
        let mut left =
            found.clone().unwrap_or_else(|| Found { created_at: Some(jiff::Timestamp::MAX), ..Found::default() });
        for (name, _, new) in &fields {
            left.properties.insert(name.to_string(), new.clone());
        }
        planned.plan.leave(planned.lane, folded, Some(left));
        match &found {
            None => record(Act::Create, None, fields, None),
            Some(found) if found.id.is_empty() && !fields.is_empty() => {
                record(Act::Update, None, fields, Some("after the row that creates it"))
            }
            Some(_) if fields.is_empty() => record(Act::Unchanged, found.as_ref(), fields, Some(equal)),
            Some(_) => record(Act::Update, found.as_ref(), fields, None),
        }
    }

    /// What two spellings of a key have in common, as the batcher folds them.
    pub(super) fn folded(&self, key: &str) -> String {
        crate::record::fold_key(&fold(self, key))
    }
}

/// Calls of applying so much: for each kind of write a read and a write per 100 records; associations.
pub(super) fn calls_of(totals: &Totals) -> u64 {
    let batches = |count: u64| count.div_ceil(BATCH_INPUTS_MAX as u64);
    2 * (batches(totals.create) + batches(totals.update) + batches(totals.archive))
        + batches(totals.associations)
        + 2 * batches(totals.parted)
}
