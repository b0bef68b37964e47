//! The two fields that a sync needs: each side's record holds the other's id.

use crate::{
    config::{Sync, SyncLinks, SyncRule},
    hubspot::{self, properties::SchemaParts},
    mapping::{holds_owners, holds_pipelines, holds_stages},
    record::ObjectType,
    salesforce,
};

/// Digits of the longest HubSpot id: they are 64-bit numbers.
const HUBSPOT_ID_DIGITS_MAX: usize = 19;

/// Whether a field that a sync needs is there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// It is, as it must be.
    Fine,
    /// It is not; in Salesforce it may also be that the integration user may not see it.
    Missing,
    /// It is not as it must be: what is wrong with it, each thing.
    Wrong(String),
}

/// The cross-id fields: as configured, or `sf_contact_id_ext` and `HubSpot_Contact_Id__c` for contacts, and others by the same scheme.
/// `None` where there is no such name: HubSpot objects of the account's own.
pub fn links_of(sync: &Sync) -> Option<SyncLinks> {
    if let Some(links) = &sync.links {
        return Some(links.clone());
    }
    let one = one_of(&sync.hubspot_object)?;
    let object = sync.salesforce_object.trim().to_lowercase();
    let object = object.strip_suffix("__c").unwrap_or(&object);
    Some(SyncLinks {
        hubspot_property: format!("sf_{object}_id_ext"),
        salesforce_field: format!("HubSpot_{one}_Id__c"),
    })
}

fn one_of(object: &ObjectType) -> Option<&'static str> {
    Some(match object.as_str() {
        "contacts" | "contact" | "0-1" => "Contact",
        "companies" | "company" | "0-2" => "Company",
        "deals" | "deal" | "0-3" => "Deal",
        "tickets" | "ticket" | "0-5" => "Ticket",
        "leads" | "lead" | "0-136" => "Lead",
        _ => return None,
    })
}

fn wrong(faults: &[(bool, String)]) -> Need {
    let found: Vec<&str> = faults.iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text.as_str()).collect();
    if found.is_empty() { Need::Fine } else { Need::Wrong(found.join("; ")) }
}

/// HubSpot's cross-id must be a single-line text with unique values.
pub fn hubspot_need(links: &SyncLinks, hubspot: &hubspot::model::ObjectSchema) -> Need {
    let Some(property) = hubspot.properties.get(&links.hubspot_property) else { return Need::Missing };
    wrong(&[
        (
            property.kind != "string" || property.field_type != "text",
            format!("it is of type {}, and must be single-line text", property.kind),
        ),
        (!property.has_unique_value, "it does not require unique values".to_owned()),
        (property.read_only(), "it may only be read".to_owned()),
    ])
}

/// Salesforce's cross-id must be a text that is an external id, unique, and open to the integration user.
pub fn salesforce_need(links: &SyncLinks, salesforce: &salesforce::describe::ObjectSchema) -> Need {
    let Some(field) = salesforce.field(&links.salesforce_field) else { return Need::Missing };
    wrong(&[
        (field.kind != "string", format!("it is of type {}, and must be Text", field.kind)),
        (
            field.kind == "string" && field.length < HUBSPOT_ID_DIGITS_MAX,
            format!("it takes {} characters, and must take {HUBSPOT_ID_DIGITS_MAX}", field.length),
        ),
        (!field.external_id, "it is not an External ID".to_owned()),
        (!field.unique, "it is not Unique".to_owned()),
        (
            !field.createable || !field.updateable,
            "the integration user may not write it: give its profile or permission set edit access".to_owned(),
        ),
    ])
}

/// What [`compile`](super::compile) needs beside the property definitions, given a schema without them: pipelines where a pair holds them or
/// their stages, owners where a pair holds owners.
pub fn schema_parts(sync: &Sync, hubspot: &hubspot::model::ObjectSchema) -> SchemaParts {
    let mut parts = SchemaParts::default();
    for field in sync.fields.iter().filter(|field| field.rule != SyncRule::DontSync) {
        let Some(property) = hubspot.properties.get(&field.hubspot) else { continue };
        parts.owners |= holds_owners(property);
        parts.pipelines |= holds_pipelines(&hubspot.object, property) || holds_stages(&hubspot.object, property);
    }
    parts
}
