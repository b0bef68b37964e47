//! The parts of HubSpot's answers that hubferry looks at. Unknown members are ignored: HubSpot adds some all the time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::ObjectType;

/// A property definition, as `GET /crm/properties/{version}/{type}` lists it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PropertyDefinition {
    /// Internal name.
    pub name: String,
    /// What people see.
    pub label: String,
    /// `string`, `number`, `bool`, `date`, `datetime`, `enumeration`, `phone_number`; others are treated as text.
    #[serde(rename = "type")]
    pub kind: String,
    /// `text`, `textarea`, `select`, `checkbox` (several values), `booleancheckbox`, …
    pub field_type: String,
    /// The group it is listed in.
    pub group_name: String,
    /// Of enumerations.
    pub options: Vec<PropertyOption>,
    /// Whether it can identify records.
    pub has_unique_value: bool,
    /// Computed by HubSpot.
    pub calculated: bool,
    /// The options are kept elsewhere (owners, for example).
    pub external_options: bool,
    /// `OWNER` on properties that hold owner ids.
    pub referenced_object_type: Option<String>,
    /// What may be changed.
    pub modification_metadata: ModificationMetadata,
    /// Deleted, but still known.
    pub archived: bool,
}

impl PropertyDefinition {
    /// Whether a write would be refused.
    pub fn read_only(&self) -> bool {
        self.calculated || self.modification_metadata.read_only_value
    }
}

/// What may be changed about a property.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModificationMetadata {
    /// Its values are HubSpot's.
    pub read_only_value: bool,
}

/// One option of an enumeration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PropertyOption {
    /// What people see.
    pub label: String,
    /// What is stored; case-sensitive.
    pub value: String,
    /// Not offered to people, but valid.
    pub hidden: bool,
}

/// A HubSpot user or queue that can own records.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// What `hubspot_owner_id` takes.
    pub id: String,
    /// Address, absent for queues.
    pub email: Option<String>,
    /// First name.
    pub first_name: Option<String>,
    /// Last name.
    pub last_name: Option<String>,
    /// Deactivated.
    pub archived: bool,
}

/// A pipeline of deals, tickets and the like.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pipeline {
    /// What the pipeline property takes.
    pub id: String,
    /// What people see.
    pub label: String,
    /// Deleted.
    pub archived: bool,
    /// Its stages, in order.
    pub stages: Vec<Stage>,
}

/// A stage of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stage {
    /// What the stage property takes.
    pub id: String,
    /// What people see.
    pub label: String,
    /// Deleted.
    pub archived: bool,
}

/// Everything about an object type that a mapping is checked against.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectSchema {
    /// The object type.
    pub object: ObjectType,
    /// By internal name; archived ones are left out.
    pub properties: BTreeMap<String, PropertyDefinition>,
    /// Fetched only where a mapped property holds owners.
    pub owners: Vec<Owner>,
    /// Fetched only where a mapped property holds pipelines or stages.
    pub pipelines: Vec<Pipeline>,
}

/// About the account itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountDetails {
    /// The portal's id.
    pub portal_id: u64,
    /// `STANDARD`, `DEVELOPER_TEST`, `SANDBOX`, `APP_DEVELOPER`.
    pub account_type: String,
    /// IANA name, for example `Europe/Dublin`.
    pub time_zone: String,
}
