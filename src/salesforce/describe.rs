//! What fields an object has, and what may be done with them: what a mapping is checked against.
//!
//! Describe shows what this user may see: a field that is missing may be one without permission.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use serde::Deserialize;

use super::{
    org::{Call, Org},
    soql::Name,
};
use crate::{Result, clock::Deadline};

/// How long definitions are believed.
pub const SCHEMA_AGE_MAX: Duration = Duration::from_secs(10 * 60);

pub(super) struct Cached {
    at: Duration,
    schema: Rc<ObjectSchema>,
}

/// An object's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectSchema {
    /// API name, as the org writes it.
    pub name: String,
    /// What its records' ids begin with.
    pub key_prefix: Option<String>,
    /// This user may make records.
    pub createable: bool,
    /// This user may change records.
    pub updateable: bool,
    /// This user may delete records.
    pub deletable: bool,
    fields: BTreeMap<String, FieldSchema>,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldSchema {
    /// API name, as the org writes it.
    pub name: String,
    /// What people see.
    pub label: String,
    /// `string`, `email`, `phone`, `picklist`, `multipicklist`, `boolean`, `double`, `currency`, `date`, `datetime`, `reference`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Characters, for texts; 0 elsewhere.
    pub length: usize,
    /// Digits, for numbers.
    pub precision: u32,
    /// Digits after the point, for numbers.
    pub scale: u32,
    /// May be blank.
    pub nillable: bool,
    /// Has a value when a record is created without one.
    pub defaulted_on_create: bool,
    /// May be given when a record is created.
    pub createable: bool,
    /// May be changed.
    pub updateable: bool,
    /// A formula.
    pub calculated: bool,
    /// Can be upserted by.
    pub external_id: bool,
    /// No two records have the same value.
    pub unique: bool,
    /// Unique values differ by case.
    pub case_sensitive: bool,
    /// The compound field it is a part of.
    pub compound_field_name: Option<String>,
    /// Objects that a reference may point to.
    pub reference_to: Vec<String>,
    /// Name under which the referenced record is reached in statements.
    pub relationship_name: Option<String>,
    /// Values of a picklist.
    pub picklist_values: Vec<PicklistValue>,
    /// Other values than those of the picklist are refused.
    pub restricted_picklist: bool,
}

/// A value of a picklist.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PicklistValue {
    /// May be chosen. Records may have others.
    pub active: bool,
    /// As it is stored.
    pub value: String,
    /// What people see.
    pub label: String,
}

impl FieldSchema {
    /// Read-only whatever the permissions: an address or a location, of which the parts are written.
    pub fn is_compound(&self) -> bool {
        matches!(self.kind.as_str(), "address" | "location")
    }

    /// Has to be given when a record is created.
    pub fn is_required_on_create(&self) -> bool {
        self.createable && !self.nillable && !self.defaulted_on_create
    }
}

impl ObjectSchema {
    /// An object with these fields.
    pub fn new(name: impl Into<String>, key_prefix: Option<String>, fields: Vec<FieldSchema>) -> Self {
        let fields = fields.into_iter().map(|field| (field.name.to_lowercase(), field)).collect();
        Self { name: name.into(), key_prefix, fields, createable: true, updateable: true, deletable: true }
    }

    /// A field, whatever the case of its name.
    pub fn field(&self, name: &str) -> Option<&FieldSchema> {
        self.fields.get(&name.to_lowercase())
    }

    /// All fields, by name.
    pub fn fields(&self) -> impl Iterator<Item = &FieldSchema> {
        self.fields.values()
    }
}

impl Org {
    /// The definition of an object, at most [`SCHEMA_AGE_MAX`] old. `NotFound` if there is none, or this user may not see it.
    pub async fn describe(&self, object: &str, deadline: Deadline) -> Result<Rc<ObjectSchema>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Described {
            name: String,
            key_prefix: Option<String>,
            createable: Option<bool>,
            updateable: Option<bool>,
            deletable: Option<bool>,
            fields: Vec<FieldSchema>,
        }
        let object = Name::new(object)?;
        let key = object.as_str().to_lowercase();
        let now = self.parts.clock.elapsed();
        if let Some(cached) = self.schemas.borrow().get(&key)
            && now.saturating_sub(cached.at) < SCHEMA_AGE_MAX
        {
            return Ok(Rc::clone(&cached.schema));
        }
        let answer = self.call(Call::get(format!("sobjects/{object}/describe")), deadline).await?;
        let described: Described = answer.json(&format!("describe {object}"))?;
        let mut schema = ObjectSchema::new(described.name, described.key_prefix, described.fields);
        schema.createable = described.createable.unwrap_or(true);
        schema.updateable = described.updateable.unwrap_or(true);
        schema.deletable = described.deletable.unwrap_or(true);
        let schema = Rc::new(schema);
        self.schemas.borrow_mut().insert(key, Cached { at: now, schema: Rc::clone(&schema) });
        Ok(schema)
    }

    /// Forgets definitions, so that the next [`Org::describe`] asks.
    pub fn forget_schemas(&self) {
        self.schemas.borrow_mut().clear();
    }
}
