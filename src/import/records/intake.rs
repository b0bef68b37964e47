//! From a record of a stream to what is to be written: which record is meant, which properties are delivered, and by which kind of call.
//!
//! Pure. What can be told from the line and the account's definitions is told here, before any call.

use std::{collections::HashMap, rc::Rc};

use serde_json::{Map, Value};

use super::{
    content,
    creates::Earlier,
    record::{Record, decode, text_of},
};
use crate::{
    capture::change::Operation,
    codes,
    config::Blank,
    hubspot::{model::ObjectSchema, resources::Resource},
    record::{Input, PropertyName, Reason},
    report::RowOutcome,
};

/// Names whose use is remembered; HubSpot has at most about 1,500 properties for an object.
const NAMES_MAX: usize = 4_000;

/// Members of a record as HubSpot answers it that are no properties.
const ENVELOPE: [&str; 10] = [
    "id",
    "createdAt",
    "updatedAt",
    "archived",
    "archivedAt",
    "associations",
    "propertiesWithHistory",
    "objectWriteTraceId",
    "url",
    "new",
];

/// Dates that HubSpot keeps and that have no prefix of their own.
const SYSTEM: [&str; 3] = ["createdate", "lastmodifieddate", "notes_last_updated"];

/// Properties that hold ids of other records: in another account they would point at strangers.
const REFERENCES: [&str; 2] = ["associatedcompanyid", "hs_product_id"];

/// Begins the key of a record that has none, so that it is nobody else's.
pub(super) const NAMELESS: char = '\u{1}';

/// Which record of the account a record of the stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// The id in `key` is the account's own: Conduit's meaning.
    Own,
    /// The id in `key` is another account's; this property of hubferry's own holds it.
    Source(PropertyName),
    /// The record is the one with the same value of this property.
    Property(PropertyName),
    /// Content. Whether ids are another account's unless they are known.
    Content { source_ids: bool },
}

/// How something is written. Each act has a lane of its own, so that a call does one kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Creates or updates, by a property with unique values.
    Upsert,
    /// Creates; not safe to repeat.
    Create,
    /// Updates, by the account's own id.
    Update,
    /// Archives.
    Archive,
    /// Content: changes what is known by the id, or found by its natural key; else creates.
    Put,
    /// Content: changes what has this id in the account.
    Change,
    /// Content: deletes what is known by the id, or found by its natural key.
    Remove,
    /// Content: deletes what has this id in the account.
    Discard,
}

impl Act {
    pub(super) const CRM: [Self; 4] = [Self::Upsert, Self::Create, Self::Update, Self::Archive];
    pub(super) const CONTENT: [Self; 4] = [Self::Put, Self::Change, Self::Remove, Self::Discard];

    /// Its lane among those of its kind.
    pub(super) fn lane(self) -> usize {
        match self {
            Self::Upsert | Self::Put => 0,
            Self::Create | Self::Change => 1,
            Self::Update | Self::Remove => 2,
            Self::Archive | Self::Discard => 3,
        }
    }

    pub(super) fn archives(self) -> bool {
        matches!(self, Self::Archive | Self::Remove | Self::Discard)
    }
}

/// What is to be done about a line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) what: What,
    /// Properties that are not delivered because HubSpot keeps them itself.
    pub(super) dropped: Vec<PropertyName>,
    /// What a reader of the report should know.
    pub(super) note: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Send(Act, Input),
    /// It is known already what became of it.
    Settled(RowOutcome, Option<Reason>),
}

impl Order {
    fn send(act: Act, key: String, members: Members) -> Self {
        let Members { properties, dropped, note } = members;
        Self { what: What::Send(act, Input { key, properties }), dropped, note }
    }
}

/// What of a record is delivered.
#[derive(Default)]
struct Members {
    properties: Vec<(PropertyName, String)>,
    dropped: Vec<PropertyName>,
    note: Option<&'static str>,
}

impl Members {
    fn value(&self, property: &str) -> Option<&str> {
        let (_, value) = self.properties.iter().find(|(name, _)| &**name == property)?;
        Some(value.as_str()).filter(|value| !value.trim().is_empty())
    }
}

#[derive(Clone)]
enum Use {
    Write(PropertyName),
    Drop(PropertyName),
}

/// Reads the lines of a stream for one import.
pub(super) struct Intake {
    pub(super) resource: Resource,
    pub(super) identity: Identity,
    /// Of CRM records.
    pub(super) schema: Option<Rc<ObjectSchema>>,
    /// What an absent value means in a record that is new to the stream.
    pub(super) blank: Blank,
    /// What earlier invocations of the run were creating.
    pub(super) earlier: HashMap<String, Earlier>,
    uses: HashMap<String, Use>,
}

impl Intake {
    pub(super) fn new(
        resource: Resource,
        identity: Identity,
        schema: Option<Rc<ObjectSchema>>,
        blank: Blank,
        earlier: HashMap<String, Earlier>,
    ) -> Self {
        Self { resource, identity, schema, blank, earlier, uses: HashMap::new() }
    }

    /// What to do about a line; `number` is its physical line. The reason never quotes a value.
    pub(super) fn read(&mut self, line: &str, number: u64) -> Result<Order, Reason> {
        let record = decode(line, &self.resource)?;
        let field = record.key_field()?.map(|(name, value)| (name.to_owned(), value));
        let nameless = || format!("{NAMELESS}{number}");
        let is_delete = record.operation == Operation::Delete;
        match self.identity.clone() {
            Identity::Content { source_ids } => self.content(&record, field, source_ids, number),
            Identity::Own => {
                let id = field.map(|(_, id)| id);
                match (record.operation, id) {
                    (Operation::Delete, Some(id)) => Ok(Order::send(Act::Archive, id, Members::default())),
                    (Operation::Update, Some(id)) => {
                        let members = self.members(&record)?;
                        Ok(if members.properties.is_empty() {
                            let what = What::Settled(RowOutcome::Unchanged, None);
                            Order { what, dropped: members.dropped, note: members.note }
                        } else {
                            Order::send(Act::Update, id, members)
                        })
                    }
                    (Operation::Delete | Operation::Update, None) => Err(keyless(record.operation)),
                    (Operation::Create | Operation::Snapshot, id) => {
                        let members = self.members(&record)?;
                        let order = Order::send(Act::Create, id.unwrap_or_else(nameless), members);
                        Ok(self.unless_created(order))
                    }
                }
            }
            Identity::Source(property) => {
                let id =
                    field.map(|(_, id)| id).or_else(|| own_id(&record)).ok_or_else(|| keyless(record.operation))?;
                if is_delete {
                    return Ok(Order::send(Act::Archive, id, Members::default()));
                }
                let mut members = self.members(&record)?;
                members.properties.push((property, id.clone()));
                Ok(Order::send(Act::Upsert, id, members))
            }
            Identity::Property(property) => {
                if is_delete {
                    let named = field.filter(|(name, _)| *name == *property).map(|(_, value)| value);
                    let before = || text_of(properties(record.before.as_ref()?).0.get(&*property)?);
                    return match named.or_else(before).filter(|value| !value.trim().is_empty()) {
                        Some(value) => Ok(Order::send(Act::Archive, value, Members::default())),
                        None => Err(Reason::new(
                            codes::RECORD_UNNAMED,
                            format!(
                                "the record is a delete, and neither `key` nor `payload.before` has the import's key `{property}`"
                            ),
                        )),
                    };
                }
                let members = self.members(&record)?;
                match members.value(&property).map(str::to_owned) {
                    Some(value) => Ok(Order::send(Act::Upsert, value, members)),
                    None => {
                        let reason = format!("`payload.after` has no value of the import's key `{property}`");
                        Err(Reason::new(codes::KEY_BLANK, reason))
                    }
                }
            }
        }
    }

    /// A create that an earlier invocation began is not done again.
    fn unless_created(&self, order: Order) -> Order {
        let What::Send(Act::Create, input) = &order.what else { return order };
        let what = match self.earlier.get(&input.key) {
            None => return order,
            Some(Earlier::Created) => What::Settled(RowOutcome::Created, None),
            Some(Earlier::Doubtful) => {
                let reason = "the process ended while the record was being created: it may be there, or not";
                What::Settled(RowOutcome::Deferred, Some(Reason::new(codes::NO_VERDICT, reason)))
            }
        };
        Order { what, ..order }
    }

    /// The properties of `payload.after` that can be written.
    fn members(&mut self, record: &Record) -> Result<Members, Reason> {
        let Some(after) = &record.after else { return Ok(Members::default()) };
        let (properties, is_flat) = properties(after);
        let mut members = Members { properties: Vec::with_capacity(properties.len()), ..Members::default() };
        if after.get("associations").is_some_and(|value| !value.is_null()) {
            members.note = Some("the associations in the records were not delivered");
        }
        let clears = record.operation == Operation::Update || self.blank == Blank::Clear;
        for (name, value) in properties {
            if is_flat && ENVELOPE.contains(&name.as_str()) && !self.is_defined(name) {
                continue;
            }
            match self.use_of(name) {
                Use::Drop(name) => members.dropped.push(name),
                Use::Write(name) => match value {
                    Value::Null => {
                        if clears {
                            members.properties.push((name, String::new()));
                        }
                    }
                    value => match text_of(value) {
                        Some(text) if text.is_empty() && !clears => {}
                        Some(text) => members.properties.push((name, text)),
                        None => {
                            let what = format!("the property `{name}` is a list or an object, and no text");
                            return Err(Reason::new(codes::RECORD_MALFORMED, what));
                        }
                    },
                },
            }
        }
        Ok(members)
    }

    fn is_defined(&self, name: &str) -> bool {
        self.schema.as_ref().is_some_and(|schema| schema.properties.contains_key(name))
    }

    fn use_of(&mut self, name: &str) -> Use {
        if let Some(known) = self.uses.get(name) {
            return known.clone();
        }
        let shared: PropertyName = name.into();
        let of_other_accounts = matches!(self.identity, Identity::Source(_));
        let is_key = matches!(&self.identity, Identity::Property(property) if **property == *name);
        // What hubferry keeps for its own keys belongs to the account that it was captured from.
        let is_ours = name.starts_with("hubferry_") && name.ends_with("_key");
        let dropped = match self.schema.as_ref().and_then(|schema| schema.properties.get(name)) {
            _ if is_key => false,
            _ if is_ours || (of_other_accounts && REFERENCES.contains(&name)) => true,
            Some(property) => property.read_only(),
            // What HubSpot has elsewhere and not here. Anything else that is unknown is HubSpot's verdict.
            None => name.starts_with("hs_") || SYSTEM.contains(&name),
        };
        let told = if dropped { Use::Drop(shared) } else { Use::Write(shared) };
        if self.uses.len() < NAMES_MAX {
            self.uses.insert(name.to_owned(), told.clone());
        }
        told
    }

    fn content(
        &mut self,
        record: &Record,
        field: Option<(String, String)>,
        source_ids: bool,
        number: u64,
    ) -> Result<Order, Reason> {
        let Resource::Cms(resource) = &self.resource else {
            return Err(Reason::new(codes::RECORD_MALFORMED, "the import's resource is no content"));
        };
        let is_source = source_ids || record.captured;
        let id = field.map(|(_, id)| id);
        if record.operation == Operation::Delete {
            let id = id.ok_or_else(|| keyless(record.operation))?;
            let mut members = Members::default();
            for (name, value) in record.before.iter().flatten() {
                if content::is_natural(resource, name) {
                    members.properties.push((name.as_str().into(), value.to_string()));
                }
            }
            return Ok(Order::send(if is_source { Act::Remove } else { Act::Discard }, id, members));
        }
        let mut members = Members::default();
        for (name, value) in record.after.iter().flatten() {
            if content::is_read_only(name) {
                members.dropped.push(name.as_str().into());
            } else if !value.is_null() || record.operation == Operation::Update {
                members.properties.push((name.as_str().into(), value.to_string()));
            }
        }
        let id = id.or_else(|| own_id(record));
        let is_new = record.operation != Operation::Update;
        match id {
            Some(id) => {
                let act = if is_new || is_source { Act::Put } else { Act::Change };
                Ok(Order::send(act, id, members))
            }
            None if is_new => {
                // Two without an id that are called the same are one.
                let key = content::natural_of(resource, &members.properties)
                    .map_or_else(|| format!("{NAMELESS}{number}"), |natural| format!("{NAMELESS}{natural}"));
                Ok(Order::send(Act::Put, key, members))
            }
            None => Err(keyless(record.operation)),
        }
    }
}

/// The properties of a record in any of its three shapes, and whether it is the flat one.
fn properties(after: &Map<String, Value>) -> (&Map<String, Value>, bool) {
    match after.get("properties") {
        Some(Value::Object(properties)) => (properties, false),
        _ => (after, true),
    }
}

/// The id that stands in the record itself.
fn own_id(record: &Record) -> Option<String> {
    let after = record.after.as_ref()?;
    let of_property = || properties(after).0.get("hs_object_id").and_then(text_of);
    let id = after.get("id").and_then(text_of).or_else(of_property)?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

fn keyless(operation: Operation) -> Reason {
    let article = if operation == Operation::Update { "an" } else { "a" };
    let message = format!("the record is {article} {} and its `key` has no id", operation.as_str());
    Reason::new(codes::RECORD_KEY_MISSING, message)
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
