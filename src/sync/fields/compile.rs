//! The settings' pairs against what both systems have: all problems at once, each with what to do.

mod types;

use std::{collections::BTreeSet, rc::Rc};

use self::types::{hubspot_form, salesforce_form};
use super::{
    Mapping,
    pair::{Kind, Pair, SalesforceForm},
};
use crate::{
    config::{Sync, SyncField, SyncLinks, SyncRule},
    hubspot::{self, model::PropertyDefinition},
    mapping::{RECORD_ID, suggest},
    record::PropertyName,
    salesforce::{self, describe::FieldSchema, soql::Name},
    sync::model::hash_of,
};

/// Names that are suggested for one that does not exist.
const SUGGESTED_MAX: usize = 3;

/// Salesforce fields that the engine looks at, where the object has them.
const SALESFORCE_OWN: [&str; 7] = [
    "SystemModstamp",
    "LastModifiedDate",
    "IsDeleted",
    "IsConverted",
    "ConvertedContactId",
    "IsPersonAccount",
    "AccountId",
];

/// The pairs, ready for use, or all problems: each names its place in the settings, the field, and what to do.
pub fn compile(
    sync: &Sync,
    links: &SyncLinks,
    hubspot: &hubspot::model::ObjectSchema,
    salesforce: &salesforce::describe::ObjectSchema,
) -> Result<Mapping, Vec<String>> {
    let mut compiler = Compiler { links, hubspot, salesforce, place: String::new(), problems: Vec::new() };
    let mut pairs = Vec::new();
    for (index, field) in sync.fields.iter().enumerate() {
        if field.rule != SyncRule::DontSync {
            compiler.place = format!("syncs: {}, fields[{index}]", sync.name);
            pairs.extend(compiler.pair(sync, field));
        }
    }
    compiler.place = format!("syncs: {}, match", sync.name);
    let matched_by = compiler.matched_by(sync, &pairs);
    if !compiler.problems.is_empty() {
        return Err(compiler.problems);
    }

    let own = |name: &str| salesforce.field(name).map(|field| field.name.clone());
    let salesforce_link = own(&links.salesforce_field).unwrap_or_else(|| links.salesforce_field.clone());
    let mut salesforce_fields: Vec<String> = pairs.iter().map(|pair| pair.salesforce.clone()).collect();
    salesforce_fields.push(salesforce_link.clone());
    salesforce_fields.extend(SALESFORCE_OWN.into_iter().filter_map(own));
    let mut hubspot_properties: Vec<PropertyName> = pairs.iter().map(|pair| Rc::clone(&pair.hubspot)).collect();
    let modified = if hubspot.object.is_contacts() { "lastmodifieddate" } else { "hs_lastmodifieddate" };
    hubspot_properties.extend([links.hubspot_property.as_str(), RECORD_ID, modified].map(PropertyName::from));
    keep_first(&mut salesforce_fields, |name| name.to_lowercase());
    keep_first(&mut hubspot_properties, |name| name.to_string());

    let is_paired = |field: &FieldSchema| pairs.iter().any(|pair| pair.salesforce == field.name);
    let required = salesforce.fields().filter(|field| field.is_required_on_create() && !is_paired(field));
    let required: Vec<String> =
        required.filter(|field| field.name != salesforce_link).map(|field| field.name.clone()).collect();
    Ok(Mapping {
        fingerprint: fingerprint(&pairs, sync),
        hubspot_object: sync.hubspot_object.clone(),
        salesforce_object: salesforce.name.clone(),
        hubspot_properties,
        salesforce_fields,
        hubspot_link: links.hubspot_property.clone(),
        salesforce_link,
        matched_by,
        is_person_aware: own("IsPersonAccount").is_some(),
        is_lead: salesforce.name == "Lead",
        has_account: own("AccountId").is_some(),
        required,
        pairs,
    })
}

fn keep_first<T>(names: &mut Vec<T>, key: impl Fn(&T) -> String) {
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(key(name)));
}

/// What the shadows depend on. Options are not in it: a new one in HubSpot must not cost a look at every record.
fn fingerprint(pairs: &[Pair], sync: &Sync) -> u64 {
    let mut parts = Vec::new();
    for pair in pairs {
        let scale = match pair.in_salesforce {
            SalesforceForm::Number { scale, .. } => scale.to_string(),
            _ => String::new(),
        };
        let cut = pair.cut_at().map(|length| length.to_string()).unwrap_or_default();
        let placeholder = pair.placeholder.as_ref().map(|(_, same)| same.clone()).unwrap_or_default();
        parts.extend([pair.key.clone(), pair.kind.name().to_owned(), scale, cut, placeholder]);
        let given = sync.fields.iter().find(|field| *field.hubspot == *pair.hubspot).map(|field| &field.values);
        parts.extend(given.into_iter().flatten().flat_map(|(from, to)| [from.clone(), to.clone()]));
    }
    hash_of(parts.iter().map(String::as_str))
}

struct Compiler<'a> {
    links: &'a SyncLinks,
    hubspot: &'a hubspot::model::ObjectSchema,
    salesforce: &'a salesforce::describe::ObjectSchema,
    place: String,
    problems: Vec<String>,
}

/// A Salesforce field, or a parent's, of which only the way to it is known.
enum Target<'a> {
    Own(&'a FieldSchema),
    Parent(String),
}

fn writes_hubspot(rule: SyncRule) -> bool {
    !matches!(rule, SyncRule::AlwaysHubspot | SyncRule::DontSync)
}

fn writes_salesforce(rule: SyncRule) -> bool {
    !matches!(rule, SyncRule::AlwaysSalesforce | SyncRule::DontSync)
}

/// ` Is it …?`, or nothing.
fn suggestion(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        names => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!(" Is it {}?", names.join(" or "))
        }
    }
}

impl<'a> Compiler<'a> {
    fn problem(&mut self, text: impl std::fmt::Display) {
        self.problems.push(format!("{}: {text}", self.place));
    }

    fn pair(&mut self, sync: &Sync, field: &SyncField) -> Option<Pair> {
        let property = self.property(field);
        let target = self.target(field);
        let (property, target) = (property?, target?);
        let before = self.problems.len();
        self.check_links(property, &target);
        if let Target::Own(own) = &target
            && own.is_compound()
        {
            self.problem(format_args!("Salesforce's `{}` is made of other fields. Map those one by one.", own.name));
            return None;
        }
        self.check_rule(field, property, &target);
        let (own, name) = match &target {
            Target::Own(own) => (Some(*own), own.name.clone()),
            Target::Parent(path) => (None, path.clone()),
        };
        let in_hubspot = hubspot_form(property);
        let in_salesforce = match own.map(salesforce_form) {
            None => SalesforceForm::Parent,
            Some(Some(form)) => form,
            Some(None) => {
                let kind = own.map(|own| own.kind.as_str()).unwrap_or_default();
                self.problem(format_args!(
                    "Salesforce's `{name}` is of type {kind}, which cannot be kept in step with anything. Take the pair out of hubferry.yaml."
                ));
                return None;
            }
        };
        let kind = self.kind(field, property, own, in_hubspot, in_salesforce)?;
        let takes = |may: fn(&FieldSchema) -> bool| own.is_some_and(|own| may(own) && !own.calculated);
        let mut pair = Pair {
            key: format!("{}|{name}", property.name),
            hubspot: property.name.as_str().into(),
            rule: field.rule,
            on_conflict: field.on_conflict.unwrap_or(sync.on_conflict),
            strict: field.strict,
            is_email: matches!(kind, Kind::Email) && self.hubspot.object.is_contacts() && property.name == "email",
            writable_in_hubspot: !property.read_only(),
            writable_in_salesforce: takes(|own| own.updateable),
            createable_in_salesforce: takes(|own| own.createable),
            required_in_salesforce: takes(FieldSchema::is_required_on_create)
                && in_salesforce != SalesforceForm::Boolean,
            kind,
            in_hubspot,
            in_salesforce,
            nillable: own.is_none_or(|own| own.nillable),
            truncate: field.truncate,
            placeholder: None,
            salesforce: name,
        };
        if let Some(placeholder) = &field.placeholder {
            self.placeholder(&mut pair, placeholder);
        }
        (self.problems.len() == before).then_some(pair)
    }

    fn property(&mut self, field: &SyncField) -> Option<&'a PropertyDefinition> {
        let hubspot = self.hubspot;
        let found = hubspot.properties.get(&field.hubspot);
        if found.is_none() {
            let near = nearest(
                &field.hubspot,
                hubspot.properties.values().map(|property| (property.name.as_str(), property.label.as_str())),
            );
            self.problem(format_args!(
                "HubSpot's {} have no property `{}`.{} Correct the name, or create the property in HubSpot.",
                hubspot.object,
                field.hubspot,
                suggestion(&near)
            ));
        }
        found
    }

    fn target(&mut self, field: &SyncField) -> Option<Target<'a>> {
        let salesforce = self.salesforce;
        let wanted = field.salesforce.as_str();
        if let Some((parent, rest)) = wanted.split_once('.') {
            let relations: Vec<&str> = salesforce.fields().filter_map(|own| own.relationship_name.as_deref()).collect();
            let relation = relations.iter().find(|relation| relation.eq_ignore_ascii_case(parent));
            if let (Some(relation), Ok(_)) = (relation, Name::new(wanted)) {
                return Some(Target::Parent(format!("{relation}.{rest}")));
            }
            let near = suggest::nearest(parent, relations, SUGGESTED_MAX);
            let near: Vec<String> = near.iter().map(|relation| format!("{relation}.{rest}")).collect();
            let near: Vec<&str> = near.iter().map(String::as_str).collect();
            self.problem(format_args!(
                "Salesforce's {} has no parent by which `{wanted}` could be read.{} Correct the name.",
                salesforce.name,
                suggestion(&near)
            ));
            return None;
        }
        let found = salesforce.field(wanted);
        if found.is_none() {
            let mut near = nearest(wanted, salesforce.fields().map(|own| (own.name.as_str(), own.label.as_str())));
            if near.is_empty() && wanted.eq_ignore_ascii_case("company") && salesforce.field("AccountId").is_some() {
                near.push("Account.Name");
            }
            self.problem(format_args!(
                "Salesforce's {} has no field `{wanted}`, or the integration user may not see it.{} Correct the name, or give the user access to the field.",
                salesforce.name,
                suggestion(&near)
            ));
        }
        found.map(Target::Own)
    }

    fn check_links(&mut self, property: &PropertyDefinition, target: &Target<'_>) {
        let (hubspot, salesforce) = (&self.links.hubspot_property, &self.links.salesforce_field);
        let is_link = |own: &FieldSchema| own.name.eq_ignore_ascii_case(salesforce);
        if property.name == *hubspot {
            self.problem(format_args!(
                "`{hubspot}` holds the Salesforce id of the sync's links. Take the pair out of hubferry.yaml."
            ));
        }
        if matches!(target, Target::Own(own) if is_link(own)) {
            self.problem(format_args!(
                "`{salesforce}` holds the HubSpot id of the sync's links. Take the pair out of hubferry.yaml."
            ));
        }
    }

    fn check_rule(&mut self, field: &SyncField, property: &PropertyDefinition, target: &Target<'_>) {
        let rule = rule_name(field.rule);
        if writes_hubspot(field.rule) && property.read_only() {
            let why = if property.calculated { "is calculated by HubSpot" } else { "may only be read" };
            self.problem(format_args!(
                "HubSpot's `{}` {why}, and the rule {rule} writes it. Use always_hubspot, or another property.",
                property.name
            ));
        }
        if !writes_salesforce(field.rule) {
            return;
        }
        let (name, why) = match target {
            Target::Parent(path) => (path.as_str(), "is a field of a parent record, which is only read".to_owned()),
            Target::Own(own) if own.calculated => (own.name.as_str(), "is a formula".to_owned()),
            Target::Own(own) if !own.updateable && own.createable => {
                (own.name.as_str(), "can be given when a record is created, but not changed".to_owned())
            }
            Target::Own(own) if !own.updateable => {
                (own.name.as_str(), "is read-only, or the integration user may not edit it".to_owned())
            }
            Target::Own(_) => return,
        };
        self.problem(format_args!(
            "Salesforce's `{name}` {why}, and the rule {rule} writes it. Use always_salesforce, or another field."
        ));
    }

    fn placeholder(&mut self, pair: &mut Pair, placeholder: &str) {
        let name = pair.salesforce.clone();
        if pair.in_salesforce == SalesforceForm::Boolean {
            self.problem(format_args!(
                "Salesforce's `{name}` is a checkbox, which is never blank. Take `placeholder` out."
            ));
            return;
        }
        let seen = pair.of_salesforce(&serde_json::Value::from(placeholder));
        let Some(canon) = seen.canon else {
            self.problem("`placeholder` is blank. Write what stands in Salesforce for no value.");
            return;
        };
        match pair.value_for_salesforce(&canon, &seen.raw) {
            Ok(value) => pair.placeholder = Some((value, canon)),
            Err(_) => self.problem(format_args!(
                "`placeholder` is no value that Salesforce's `{name}` takes. Write one that it takes."
            )),
        }
    }

    fn matched_by(&mut self, sync: &Sync, pairs: &[Pair]) -> Option<usize> {
        let Some(wanted) = &sync.matched_by else {
            let by = match &self.hubspot.object {
                object if object.is_contacts() => "email",
                object if object.is_companies() => "domain",
                _ => return None,
            };
            return pairs.iter().position(|pair| &*pair.hubspot == by && pair.is_searchable());
        };
        let is_meant = |hubspot: &str, salesforce: &str| {
            hubspot == wanted.hubspot && salesforce.eq_ignore_ascii_case(&wanted.salesforce)
        };
        let text = format!("`{}` and `{}`", wanted.hubspot, wanted.salesforce);
        let Some(field) = sync.fields.iter().find(|field| is_meant(&field.hubspot, &field.salesforce)) else {
            self.problem(format_args!(
                "{text} are no pair under `fields`. Name a pair that is there, or add this one."
            ));
            return None;
        };
        if field.rule == SyncRule::DontSync {
            self.problem(format_args!("the rule of {text} is dont_sync: records cannot be recognised by it. Give the pair another rule, or name another pair."));
            return None;
        }
        let at = pairs.iter().position(|pair| is_meant(&pair.hubspot, &pair.salesforce))?;
        let is_searchable = pairs.get(at).is_some_and(|pair| {
            let own = self.salesforce.field(&pair.salesforce);
            pair.is_searchable() && own.is_some_and(|own| own.kind != "textarea")
        });
        if !is_searchable {
            self.problem(format_args!("records cannot be recognised by {text}: the field must be one of the record's own, and both must hold short texts, whole numbers or ids. Name another pair."));
            return None;
        }
        Some(at)
    }
}

/// The nearest of names with labels: by name, else by label.
fn nearest<'n>(wanted: &str, names: impl Iterator<Item = (&'n str, &'n str)>) -> Vec<&'n str> {
    let names: Vec<(&str, &str)> = names.collect();
    let mut near = suggest::nearest(wanted, names.iter().map(|(name, _)| *name), SUGGESTED_MAX);
    let labels = suggest::nearest(wanted, names.iter().map(|(_, label)| *label), SUGGESTED_MAX);
    for (name, label) in names {
        if labels.contains(&label) && !near.contains(&name) {
            near.push(name);
        }
    }
    near.truncate(SUGGESTED_MAX);
    near
}

fn rule_name(rule: SyncRule) -> &'static str {
    match rule {
        SyncRule::TwoWay => "two_way",
        SyncRule::PreferSalesforceUnlessBlank => "prefer_salesforce_unless_blank",
        SyncRule::AlwaysSalesforce => "always_salesforce",
        SyncRule::PreferHubspotUnlessBlank => "prefer_hubspot_unless_blank",
        SyncRule::AlwaysHubspot => "always_hubspot",
        SyncRule::DontSync => "dont_sync",
    }
}
