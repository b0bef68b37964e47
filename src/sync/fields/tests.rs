//! A portal and an org with a field of every kind, and pairs between them.

mod problems;
mod round_trips;
mod tables;

use serde_json::Value;

use super::*;
use crate::{
    config::{OnConflict, Sync, SyncCreate, SyncDeletes, SyncField, SyncLimits, SyncLinks, SyncRule},
    hubspot::{
        self,
        model::{Owner, Pipeline, PropertyDefinition, PropertyOption, Stage},
    },
    salesforce::{
        self,
        describe::{FieldSchema, PicklistValue},
    },
};

pub(super) fn option(value: &str, label: &str) -> PropertyOption {
    PropertyOption { value: value.into(), label: label.into(), hidden: false }
}

pub(super) fn property(name: &str, kind: &str, field_type: &str) -> PropertyDefinition {
    PropertyDefinition {
        name: name.into(),
        label: name.replace('_', " "),
        kind: kind.into(),
        field_type: field_type.into(),
        ..PropertyDefinition::default()
    }
}

/// The properties of the account, beside the object's own.
pub(super) fn properties() -> Vec<PropertyDefinition> {
    let mut size = property("size", "enumeration", "select");
    size.options = vec![option("s", "Small"), option("m", "Medium"), option("l", "Large"), option("Other", "Other")];
    let colours = PropertyDefinition { name: "colours".into(), field_type: "checkbox".into(), ..size.clone() };
    let mut score = property("score", "number", "calculation_equation");
    score.calculated = true;
    let mut link = property("sf_contact_id_ext", "string", "text");
    link.has_unique_value = true;
    let mut owner = property("hubspot_owner_id", "enumeration", "select");
    owner.referenced_object_type = Some("OWNER".into());
    owner.external_options = true;
    let mut modified = property("lastmodifieddate", "datetime", "date");
    modified.modification_metadata.read_only_value = true;
    vec![
        property("email", "string", "text"),
        property("domain", "string", "text"),
        property("words", "string", "textarea"),
        property("mobile", "phone_number", "phonenumber"),
        property("amount", "number", "number"),
        property("agreed", "bool", "booleancheckbox"),
        property("birthday", "date", "date"),
        property("met_at", "datetime", "date"),
        property("dealstage", "enumeration", "select"),
        size,
        colours,
        score,
        link,
        owner,
        modified,
    ]
}

pub(super) fn account(object: &str) -> hubspot::model::ObjectSchema {
    let stage = |id: &str, label: &str| Stage { id: id.into(), label: label.into(), archived: false };
    let pipeline = |id: &str, stages| Pipeline { id: id.into(), label: id.into(), archived: false, stages };
    hubspot::model::ObjectSchema {
        object: ObjectType(object.into()),
        properties: properties().into_iter().map(|property| (property.name.clone(), property)).collect(),
        owners: vec![Owner { id: "77".into(), email: Some("ada@x.com".into()), ..Owner::default() }],
        pipelines: vec![
            pipeline("new", vec![stage("11", "Qualification"), stage("12", "Closed Won")]),
            pipeline("renewal", vec![stage("21", "Closed Won")]),
        ],
    }
}

pub(super) fn field(name: &str, kind: &str) -> FieldSchema {
    FieldSchema {
        name: name.into(),
        label: name.trim_end_matches("__c").replace('_', " "),
        kind: kind.into(),
        nillable: true,
        createable: true,
        updateable: true,
        ..FieldSchema::default()
    }
}

fn text_field(name: &str, kind: &str, length: usize) -> FieldSchema {
    FieldSchema { length, ..field(name, kind) }
}

fn list(name: &str, kind: &str, restricted: bool) -> FieldSchema {
    let value = |value: &str, label: &str, active| PicklistValue { active, value: value.into(), label: label.into() };
    FieldSchema {
        picklist_values: vec![
            value("Small", "Small", true),
            value("MEDIUM", "Medium", true),
            value("Huge", "Huge", true),
            value("Large", "Large", false),
        ],
        restricted_picklist: restricted,
        length: 255,
        ..field(name, kind)
    }
}

pub(super) fn org() -> salesforce::describe::ObjectSchema {
    let fields = vec![
        FieldSchema { createable: false, updateable: false, nillable: false, ..field("Id", "id") },
        FieldSchema { createable: false, updateable: false, nillable: false, ..field("SystemModstamp", "datetime") },
        FieldSchema { createable: false, updateable: false, nillable: false, ..field("IsDeleted", "boolean") },
        FieldSchema { nillable: false, ..text_field("LastName", "string", 80) },
        FieldSchema { createable: false, updateable: false, ..text_field("Name", "string", 121) },
        text_field("Email", "email", 80),
        text_field("Phone", "phone", 40),
        text_field("Website", "url", 255),
        text_field("Title", "string", 10),
        text_field("Notes__c", "textarea", 32_000),
        FieldSchema { nillable: false, defaulted_on_create: true, ..field("Agreed__c", "boolean") },
        FieldSchema { precision: 6, scale: 2, ..field("Amount__c", "currency") },
        field("Count__c", "int"),
        field("Birthdate", "date"),
        field("Met_At__c", "datetime"),
        list("Size__c", "picklist", true),
        list("Open_Size__c", "picklist", false),
        list("Colours__c", "multipicklist", true),
        FieldSchema {
            relationship_name: Some("Account".into()),
            reference_to: vec!["Account".into()],
            ..field("AccountId", "reference")
        },
        FieldSchema {
            nillable: false,
            defaulted_on_create: true,
            relationship_name: Some("Owner".into()),
            ..field("OwnerId", "reference")
        },
        FieldSchema { calculated: true, createable: false, updateable: false, ..field("Formula__c", "double") },
        FieldSchema { updateable: false, ..text_field("Once__c", "string", 20) },
        FieldSchema { createable: false, updateable: false, ..field("MailingAddress", "address") },
        field("Opens_At__c", "time"),
        FieldSchema { external_id: true, unique: true, ..text_field("HubSpot_Contact_Id__c", "string", 20) },
    ];
    salesforce::describe::ObjectSchema::new("Contact", Some("003".into()), fields)
}

pub(super) fn named(hubspot: &str, salesforce: &str, rule: SyncRule) -> SyncField {
    SyncField {
        hubspot: hubspot.into(),
        salesforce: salesforce.into(),
        rule,
        on_conflict: None,
        values: std::collections::BTreeMap::new(),
        truncate: false,
        placeholder: None,
        strict: false,
    }
}

pub(super) fn settings(object: &str, fields: Vec<SyncField>) -> Sync {
    Sync {
        name: "people".into(),
        hubspot: "default".into(),
        salesforce: "default".into(),
        hubspot_object: ObjectType(object.into()),
        salesforce_object: "Contact".into(),
        fields,
        links: None,
        on_conflict: OnConflict::Review,
        create: SyncCreate::Both,
        deletes: SyncDeletes::Review,
        limits: SyncLimits::default(),
        matched_by: None,
        accounts: None,
    }
}

pub(super) fn compiled(sync: &Sync) -> Result<Mapping, Vec<String>> {
    let links =
        SyncLinks { hubspot_property: "sf_contact_id_ext".into(), salesforce_field: "hubspot_contact_id__C".into() };
    compile(sync, &links, &account(sync.hubspot_object.as_str()), &org())
}

/// One pair of contacts, by `two_way` or, for what is only read, `always_salesforce`.
#[track_caller]
pub(super) fn pair_of(field: SyncField) -> Pair {
    pair_in("contacts", field)
}

#[track_caller]
pub(super) fn pair_in(object: &str, field: SyncField) -> Pair {
    let mut mapping = compiled(&settings(object, vec![field])).unwrap_or_else(|problems| panic!("{problems:?}"));
    mapping.pairs.pop().unwrap()
}

#[track_caller]
pub(super) fn pair(hubspot: &str, salesforce: &str) -> Pair {
    let rule = if salesforce.contains('.') { SyncRule::AlwaysSalesforce } else { SyncRule::TwoWay };
    pair_of(named(hubspot, salesforce, rule))
}

pub(super) fn with_values(hubspot: &str, salesforce: &str, values: &[(&str, &str)]) -> SyncField {
    let values = values.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    SyncField { values, ..named(hubspot, salesforce, SyncRule::TwoWay) }
}

/// What HubSpot's text and Salesforce's JSON are, canonically.
pub(super) fn canons(
    pair: &Pair,
    hubspot: &str,
    salesforce: &Value,
) -> (super::super::model::Canon, super::super::model::Canon) {
    (pair.of_hubspot(Some(hubspot)).canon, pair.of_salesforce(salesforce).canon)
}
