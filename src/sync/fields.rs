//! The field pairs of a sync, checked against what both systems have. Pure.
//!
//! A pair that cannot be kept in step is found here, before a record is read, with all others: a sync that learns from refusals writes half
//! of a record first.

mod choices;
mod compile;
mod needs;
mod pair;

#[cfg(test)]
mod tests;

pub use self::{
    compile::compile,
    needs::{Need, hubspot_need, links_of, salesforce_need, schema_parts},
    pair::Pair,
};
pub use super::values::{FieldFault, Seen};
use crate::record::{ObjectType, PropertyName};

/// Everything about the pair of objects that a run needs.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    /// The pairs that are kept in step, in the order of the settings.
    pub pairs: Vec<Pair>,
    /// HubSpot's side, as the settings name it.
    pub hubspot_object: ObjectType,
    /// Salesforce's side, as the org spells it.
    pub salesforce_object: String,
    /// What to read of a HubSpot record, each once: the pairs' properties, the cross-id, `hs_object_id` and when it was modified
    /// (`lastmodifieddate` of contacts, `hs_lastmodifieddate` elsewhere).
    pub hubspot_properties: Vec<PropertyName>,
    /// What to read of a Salesforce record, each once: the pairs' fields, the cross-id, and those of `SystemModstamp`, `LastModifiedDate`,
    /// `IsDeleted`, `IsConverted`, `ConvertedContactId`, `IsPersonAccount` and `AccountId` that the object has.
    pub salesforce_fields: Vec<String>,
    /// HubSpot property that holds the Salesforce id.
    pub hubspot_link: String,
    /// Salesforce field that holds the HubSpot id, as the org spells it, where it has the field.
    pub salesforce_link: String,
    /// The pair by which records without a link are recognised: index into `pairs`.
    pub matched_by: Option<usize>,
    /// The org has person accounts: contacts may be shadows of accounts.
    pub is_person_aware: bool,
    /// The Salesforce object is `Lead`, whose records are converted.
    pub is_lead: bool,
    /// The Salesforce records may belong to an account.
    pub has_account: bool,
    /// Fields that Salesforce wants when a record is created and that no pair is about.
    pub required: Vec<String>,
    /// Hash of what the shadows depend on: fields, types, `values`, `truncate`, `placeholder`; not the rules. A change means that every
    /// record is looked at again.
    pub fingerprint: u64,
}

impl Mapping {
    /// The pair of this [key](Pair::key).
    pub fn pair(&self, key: &str) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.key == key)
    }
}
