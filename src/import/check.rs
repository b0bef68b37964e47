//! Whether an import fits its account, before there is a file: object types, properties, keys, formats, labels.
//!
//! A run asks the same again, with the file's own header. This is for who writes the settings.

use std::collections::BTreeMap;

use super::job::record_specs;
use crate::{
    clock::Deadline,
    codes::{self, Code},
    config::{ColumnRule, Format, Import},
    error::{Error, ErrorKind, Result},
    hubspot::{account::Account, adopt::key_property_name, properties::SchemaParts, resources::Resource},
    mapping::{Detected, Mapping, MappingSpec, Problem, RECORD_ID},
};

/// What is wrong with an import, as far as it can be told without a file; nothing if it fits. Nothing is written or made.
///
/// Errors: those of [`Account::call`] that say nothing about the import.
pub async fn check(account: &Account, import: &Import, deadline: Deadline) -> Result<Vec<Problem>> {
    match problems(account, import, deadline).await {
        Ok(problems) => Ok(problems),
        // What the account refuses is what is to be known.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Invalid | ErrorKind::Forbidden | ErrorKind::Refused | ErrorKind::NotFound
            ) =>
        {
            Ok(vec![problem_of(&error)])
        }
        Err(error) => Err(error),
    }
}

fn problem_of(error: &Error) -> Problem {
    Problem { code: error.code(), column: None, message: error.message().to_owned(), hint: error.hint().to_owned() }
}

fn problem(code: Code, message: String) -> Problem {
    Problem { code, column: None, message, hint: code.hint().to_owned() }
}

async fn problems(account: &Account, import: &Import, deadline: Deadline) -> Result<Vec<Problem>> {
    if import.format == Format::Opencdc {
        return records(account, import, deadline).await;
    }
    let zone = account.details(deadline).await?.time_zone;
    let mut problems = Vec::new();
    for record in record_specs(import)? {
        let schema = account.schema(&record.object, SchemaParts { owners: false, pipelines: false }, deadline).await?;
        let is_there = |name: &str| schema.properties.contains_key(name);
        // What is to be created cannot be wrong yet.
        let known = |rule: &ColumnRule| is_there(&rule.details().property) || !import.create_properties;
        let columns: Option<BTreeMap<String, ColumnRule>> = (record.columns).map(|columns| {
            columns.iter().filter(|(_, rule)| known(rule)).map(|(name, rule)| (name.clone(), rule.clone())).collect()
        });
        let key = record.key.as_deref().filter(|key| is_there(key) || !import.create_properties);
        // Without `columns` the header decides; the key's column is the one that has to be there.
        let header: Vec<String> = match (&columns, key) {
            (Some(columns), _) => columns.keys().cloned().collect(),
            (None, Some(key)) => vec![key.to_owned()],
            (None, None) => Vec::new(),
        };
        let unique = key.is_none_or(|key| {
            key == RECORD_ID
                || (record.object.is_contacts() && key == "email")
                || schema.properties.get(key).is_none_or(|property| property.has_unique_value)
        });
        let has_own = key.is_some_and(|key| is_there(&key_property_name(key)));
        let spec = MappingSpec {
            object: &record.object,
            key,
            own_key: !unique && (import.create_properties || has_own),
            columns: columns.as_ref(),
            blank: import.blank,
            mode: import.mode,
            time_zone: &zone,
        };
        let needs = Mapping::needs(&spec, &header, &schema);
        let parts = SchemaParts { owners: needs.owners, pipelines: needs.pipelines };
        let schema = account.schema(&record.object, parts, deadline).await?;
        if key.is_some() || record.key.is_none() {
            problems.extend(Mapping::compile(&spec, &header, &schema, Detected::default()).err().unwrap_or_default());
        }
    }
    for rule in &import.associate {
        if let Some(label) = &rule.label {
            match account.association_type(&rule.from, &rule.to, label, deadline).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Invalid => problems.push(problem_of(&error)),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(problems)
}

/// Of change records.
async fn records(account: &Account, import: &Import, deadline: Deadline) -> Result<Vec<Problem>> {
    let name = import.resource.as_deref().unwrap_or_default();
    let Resource::Crm(resource) = Resource::parse(name)? else { return Ok(Vec::new()) };
    let schema = account.schema(&resource.object, SchemaParts::default(), deadline).await?;
    let Some(key) = import.key.as_deref().map(str::trim) else { return Ok(Vec::new()) };
    let Some(property) = schema.properties.get(key) else {
        let message = format!("the key `{key}` is no property of {}", resource.object);
        return Ok(vec![problem(codes::MAPPING_INVALID, message)]);
    };
    let unique = property.has_unique_value || (resource.object.is_contacts() && key == "email");
    if unique || import.create_properties {
        return Ok(Vec::new());
    }
    Ok(vec![problem(codes::KEY_NOT_UNIQUE, format!("HubSpot does not hold `{key}` of {} unique", resource.object))])
}
