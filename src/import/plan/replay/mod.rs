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
//! | a pair that the run associated got a label since | | left alone, `CHANGED_SINCE` |

mod batch;
mod parting;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use jiff::{SignedDuration, Timestamp};

use self::{
    batch::{Batch, Item},
    parting::Parting,
};
use super::{
    super::{
        deliver::Delivered,
        ledger::RowId,
        pairs::{Ends, keep_images},
    },
    format::{Act, Header, Line, Of, PlanAssociation, PlanRecord, Tie},
};
use crate::{
    clock::Deadline,
    codes,
    error::Result,
    http::rate_limit::Permit,
    hubspot::{
        account::Account,
        associations::{AssociationType, PairVerdict},
        properties::SchemaParts,
    },
    objects::{Location, Objects},
    record::{Input, ObjectType, PropertyName, Reason},
};

/// How far HubSpot's clock may be off, as far as its answers tell: whole seconds, less what they took.
pub(super) const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(2);

/// Pairs that go in one call: what is done with them, from and to which object, and with which label.
type Kind = (Tie, String, String, String);

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

impl Replay {
    fn is_undo(&self) -> bool {
        self.header.of == Of::Undo
    }

    /// Whether the line is none that anything is to be done about: the first and the last one, rows that were rejected.
    pub(in crate::import) fn passes_over(text: &str) -> bool {
        // As hubferry writes them; what was edited by hand is looked at more closely.
        let is_order = text.starts_with("{\"record\"") || text.starts_with("{\"associate\"");
        !is_order && matches!(Line::parse(text), Ok(Line::Plan(_) | Line::Totals(_) | Line::Reject(_)))
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
        let mut pairs: BTreeMap<Kind, Vec<(usize, PlanAssociation)>> = BTreeMap::new();
        for (at, input) in inputs.iter().enumerate() {
            let row = input.properties.first().and_then(|(_, row)| row.parse::<u64>().ok()).unwrap_or(u64::MAX);
            match self.entries.borrow().get(&row) {
                Some(Entry::Record(record)) => {
                    records.entry(record.object.clone()).or_default().push(Item { at, record: record.clone() });
                }
                Some(Entry::Association(association)) => {
                    let label = association.label.clone().unwrap_or_default();
                    let kind = (association.tie, association.from.clone(), association.to.clone(), label);
                    pairs.entry(kind).or_default().push((at, association.clone()));
                }
                None => {}
            }
        }
        let mut permit = Some(permit);
        for (part, (object, items)) in records.into_iter().enumerate() {
            let schema = self.account.schema(&object, SchemaParts::default(), deadline).await?;
            let batch =
                Batch { replay: self, object: &object, schema: &schema, number: format!("{number}-{part}"), deadline };
            match lane {
                Lane::Make => batch.make(items, &mut permit, &mut delivered).await?,
                Lane::Change => batch.change(items, &mut permit, &mut delivered).await?,
                Lane::Remove if self.is_undo() => batch.take_back(items, &mut permit, &mut delivered).await?,
                Lane::Remove => batch.remove(items, &mut permit, &mut delivered).await?,
                Lane::Associate => {}
            }
        }
        for (part, (kind, pairs)) in pairs.into_iter().enumerate() {
            let images = format!("{}before-{number}-{part}-pairs.jsonl", self.folder.key);
            let images = Location::new(&self.folder.bucket, images);
            self.tie(&kind, pairs, &images, deadline, &mut delivered).await?;
        }
        Ok(delivered)
    }

    /// The property by which records of a type are found.
    fn key_of(&self, object: &str) -> Option<&str> {
        let found = self.header.records.iter().find(|record| record.object.as_str() == object)?;
        Some(found.key_property.as_deref().unwrap_or(&found.key))
    }

    async fn tie(
        &self,
        (tie, from, to, label): &Kind,
        pairs: Vec<(usize, PlanAssociation)>,
        images: &Location,
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
        let ends = Ends { from: &from_type, to: &to_type, label: label.as_ref() };
        match tie {
            Tie::Associate if self.dry => {
                for (at, pair) in pairs.into_iter().filter(|(at, _)| places.contains(at)) {
                    set(delivered, at, Delivered::PlannedPair(Box::new(pair)));
                }
                return Ok(());
            }
            Tie::Associate => {}
            Tie::Part | Tie::Unlabel => {
                let here: Vec<Parting> = pairs
                    .into_iter()
                    .filter(|(at, _)| places.contains(at))
                    .zip(ids)
                    .map(|((at, pair), ids)| Parting { at, pair, ids })
                    .collect();
                return self.part(*tie, ends, here, images, deadline, delivered).await;
            }
        }
        keep_images(&self.account, &*self.objects, images, ends, &ids, deadline).await?;
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

fn set(delivered: &mut [Delivered], at: usize, verdict: Delivered) {
    if let Some(place) = delivered.get_mut(at) {
        *place = verdict;
    }
}
