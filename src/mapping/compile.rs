//! Settings, header and account to a mapping, or to the list of everything that is wrong.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
};

use jiff::tz::TimeZone;

use super::{
    Column, Detected, IgnoredColumn, Mapping, MappingSpec, Problem, RECORD_ID, REJECT_COLUMNS, Role, WhyIgnored, clip,
    coerce::{Converter, holds_pipelines},
    dates, suggest,
};
use crate::{
    codes::{self, Code},
    config::{Blank, ColumnDetails, ColumnRule, Fill, Mode},
    hubspot::model::{ObjectSchema, PropertyDefinition},
    mutate::{self, Bug},
};

/// Columns listed in a message.
const COLUMNS_SHOWN: usize = 20;

/// A column with its property, before the property's type matters.
pub(super) struct Resolved<'a> {
    index: usize,
    header: &'a str,
    details: ColumnDetails,
    pub(super) definition: &'a PropertyDefinition,
}

fn problem(code: Code, column: Option<&str>, message: String, hint: Option<String>) -> Problem {
    Problem { code, column: column.map(str::to_owned), message, hint: hint.unwrap_or_else(|| code.hint().to_owned()) }
}

pub(super) fn compile(
    spec: &MappingSpec<'_>,
    header: &[String],
    schema: &ObjectSchema,
    detected: Detected,
) -> Result<Mapping, Vec<Problem>> {
    let mut problems = Vec::new();
    let zone = TimeZone::get(spec.time_zone).unwrap_or_else(|_| {
        let message = format!("the account's time zone `{}` is not known", clip(spec.time_zone));
        problems.push(problem(codes::MAPPING_INVALID, None, message, Some("Correct the account's time zone.".into())));
        TimeZone::UTC
    });
    let (mut resolved, ignored) = resolve(spec, header, schema, &mut problems);
    check_duplicates(&resolved, &mut problems);
    check_key(spec, header, schema, &resolved, &mut problems);
    // A stage is looked up in its row's pipeline, which must be known by then.
    resolved.sort_by_key(|column| (!holds_pipelines(&schema.object, column.definition), column.index));

    let mut columns = Vec::with_capacity(resolved.len());
    let mut used = Detected::default();
    let mut fill_if_empty = Vec::new();
    for column in &resolved {
        let name = column.header.trim();
        let style = detected.columns.get(name).copied().unwrap_or_default();
        let format = column.details.date.as_deref();
        let converter = Converter::new(schema, column.definition, format, style, &zone);
        match &converter {
            Converter::Number(Some(_)) => {
                used.columns.insert(name.to_owned(), super::DetectedColumn { date: None, ..style });
            }
            Converter::Date { format: None, order: Some(_) }
            | Converter::DateTime { format: None, order: Some(_), .. } => {
                used.columns.insert(name.to_owned(), super::DetectedColumn { number: None, ..style });
            }
            _ => {}
        }
        if let Some(format) = format {
            check_format(column, &converter, format, &mut problems);
        }
        let values = values(column, &converter, &mut problems);
        let property: Rc<str> = column.definition.name.as_str().into();
        if column.details.fill == Fill::IfEmpty {
            fill_if_empty.push(property.clone());
        }
        let role = match spec.key {
            Some(key) if *key == *property && key == RECORD_ID => Role::RecordId,
            Some(key) if *key == *property => Role::Key,
            _ if holds_pipelines(&schema.object, column.definition) => Role::Pipeline,
            _ => Role::Plain,
        };
        let clear = column.details.blank.unwrap_or(spec.blank) == Blank::Clear || mutate::on(Bug::BlankCellClears);
        columns.push(Column { index: column.index, header: name.into(), property, converter, values, clear, role });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Mapping { columns, ignored, detected: used, fill_if_empty, mode: spec.mode })
}

/// Which column goes to which property. What cannot be said goes to `problems`.
pub(super) fn resolve<'a>(
    spec: &MappingSpec<'_>,
    header: &'a [String],
    schema: &'a ObjectSchema,
    problems: &mut Vec<Problem>,
) -> (Vec<Resolved<'a>>, Vec<IgnoredColumn>) {
    match spec.columns {
        Some(columns) => configured(spec, columns, header, schema, problems),
        None => matched(spec, header, schema, problems),
    }
}

fn is_reject_column(name: &str) -> bool {
    REJECT_COLUMNS.contains(&name.trim())
}

fn configured<'a>(
    spec: &MappingSpec<'_>,
    columns: &BTreeMap<String, ColumnRule>,
    header: &'a [String],
    schema: &'a ObjectSchema,
    problems: &mut Vec<Problem>,
) -> (Vec<Resolved<'a>>, Vec<IgnoredColumn>) {
    let mut exact: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut folded: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, name) in header.iter().enumerate() {
        exact.entry(name.trim()).or_default().push(index);
        folded.entry(name.trim().to_lowercase()).or_default().push(index);
    }
    let mut resolved = Vec::new();
    let mut mapped = HashSet::new();
    for (name, rule) in columns {
        let details = rule.details();
        let found = exact.get(name.trim()).or_else(|| folded.get(&name.trim().to_lowercase()));
        let index = match found.map(Vec::as_slice) {
            Some([index]) => Some(*index),
            Some(indices) => {
                mapped.extend(indices.iter().copied());
                let message = format!("the file has {} columns named `{}`", indices.len(), clip(name));
                problems.push(problem(codes::HEADER_INVALID, Some(name), message, None));
                None
            }
            None => {
                let is_key = spec.key == Some(details.property.as_str());
                let code = if is_key { codes::KEY_COLUMN_MISSING } else { codes::COLUMN_MISSING };
                let what = if is_key { format!(", which holds the key `{}`", details.property) } else { String::new() };
                let message = format!("the file has no column `{}`{what}; it has {}", clip(name), list(header));
                let near = suggest::closest(name, header.iter().map(String::as_str));
                let hint = near.map(|near| format!("Is it `{}`? {}", clip(near.trim()), code.hint()));
                problems.push(problem(code, Some(name), message, hint));
                None
            }
        };
        let definition = find_property(name, &details.property, schema, spec.key, problems);
        if let Some(index) = index {
            mapped.insert(index);
            if let (Some(definition), Some(header)) = (definition, header.get(index)) {
                resolved.push(Resolved { index, header, details, definition });
            }
        }
    }
    resolved.sort_by_key(|column| column.index);
    let ignored = header.iter().enumerate().filter(|(index, name)| !mapped.contains(index) && !is_reject_column(name));
    let ignored = ignored.map(|(_, name)| IgnoredColumn { column: name.trim().to_owned(), why: WhyIgnored::NotMapped });
    (resolved, ignored.collect())
}

fn find_property<'a>(
    column: &str,
    property: &str,
    schema: &'a ObjectSchema,
    key: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Option<&'a PropertyDefinition> {
    let Some(definition) = schema.properties.get(property) else {
        let message = format!("column `{}`: {} has no property `{}`", clip(column), schema.object, clip(property));
        let hint = nearest_property(property, schema)
            .map(|near| format!("Is it {near}? {}", codes::PROPERTY_DOESNT_EXIST.hint()));
        problems.push(problem(codes::PROPERTY_DOESNT_EXIST, Some(column), message, hint));
        return None;
    };
    if definition.archived {
        let message = format!("column `{}`: the property `{property}` is archived", clip(column));
        let hint = Some("Restore the property in HubSpot, or map the column to another one.".to_owned());
        problems.push(problem(codes::PROPERTY_DOESNT_EXIST, Some(column), message, hint));
        return None;
    }
    let identifies = key == Some(RECORD_ID) && property == RECORD_ID;
    if definition.read_only() && !identifies {
        let message = format!("column `{}`: the property `{property}` cannot be written", clip(column));
        problems.push(problem(codes::READ_ONLY_VALUE, Some(column), message, None));
        return None;
    }
    Some(definition)
}

/// By name or by label, whichever is nearer to what was written.
fn nearest_property(property: &str, schema: &ObjectSchema) -> Option<String> {
    let writable = || schema.properties.values().filter(|definition| !definition.read_only() && !definition.archived);
    let by_name = suggest::closest(property, writable().map(|definition| definition.name.as_str()));
    let squeezed = suggest::squeeze(property);
    let by_label = writable().find(|definition| suggest::squeeze(&definition.label) == squeezed).or_else(|| {
        let label = suggest::closest(property, writable().map(|definition| definition.label.as_str()))?;
        writable().find(|definition| definition.label == label)
    });
    match (by_label, by_name) {
        (Some(definition), _) if suggest::squeeze(&definition.label) == squeezed => {
            Some(format!("`{}` ({})", definition.name, clip(&definition.label)))
        }
        (_, Some(name)) => Some(format!("`{name}`")),
        (Some(definition), None) => Some(format!("`{}` ({})", definition.name, clip(&definition.label))),
        (None, None) => None,
    }
}

fn matched<'a>(
    spec: &MappingSpec<'_>,
    header: &'a [String],
    schema: &'a ObjectSchema,
    problems: &mut Vec<Problem>,
) -> (Vec<Resolved<'a>>, Vec<IgnoredColumn>) {
    let mut names: HashMap<String, &PropertyDefinition> = HashMap::new();
    let mut labels: HashMap<String, Vec<&PropertyDefinition>> = HashMap::new();
    for definition in schema.properties.values().filter(|definition| !definition.archived) {
        names.insert(definition.name.to_lowercase(), definition);
        labels.entry(squeezed_label(&definition.label)).or_default().push(definition);
    }
    let mut resolved: Vec<Resolved<'a>> = Vec::new();
    let mut ignored = Vec::new();
    let mut repeated = HashSet::new();
    for (index, column) in header.iter().enumerate() {
        let name = column.trim();
        if name.is_empty() || is_reject_column(name) {
            continue;
        }
        let candidates: Vec<&PropertyDefinition> = match names.get(&name.to_lowercase()) {
            Some(definition) => vec![definition],
            None => narrowed(name, labels.get(&squeezed_label(name)).map(Vec::as_slice).unwrap_or_default()),
        };
        let ignore = |why| IgnoredColumn { column: name.to_owned(), why };
        match candidates.as_slice() {
            [] => ignored.push(ignore(WhyIgnored::NoSuchProperty)),
            [definition]
                if definition.read_only() && !(spec.key == Some(RECORD_ID) && definition.name == RECORD_ID) =>
            {
                ignored.push(ignore(WhyIgnored::ReadOnly));
            }
            [definition] if resolved.iter().any(|other| other.header.trim() == name) => {
                if repeated.insert(definition.name.as_str()) {
                    let message = format!("the file has several columns named `{}`", clip(name));
                    problems.push(problem(codes::HEADER_INVALID, Some(name), message, None));
                }
            }
            [definition] => {
                let details = ColumnDetails { property: definition.name.clone(), ..ColumnDetails::default() };
                resolved.push(Resolved { index, header: column, details, definition });
            }
            several => {
                let names: Vec<_> =
                    several.iter().take(COLUMNS_SHOWN).map(|definition| format!("`{}`", definition.name)).collect();
                let message =
                    format!("column `{}`: several properties have this label: {}", clip(name), names.join(", "));
                let hint =
                    Some("Name the column as the property's internal name, or map it under `columns`.".to_owned());
                problems.push(problem(codes::MAPPING_INVALID, Some(name), message, hint));
            }
        }
    }
    (resolved, ignored)
}

/// A label without case, spaces and underscores.
fn squeezed_label(label: &str) -> String {
    label.chars().filter(|c| !c.is_whitespace() && *c != '_').flat_map(char::to_lowercase).collect()
}

/// Of properties with one label: those spelled exactly so, those that can be written.
fn narrowed<'a>(name: &str, candidates: &[&'a PropertyDefinition]) -> Vec<&'a PropertyDefinition> {
    let mut left = candidates.to_vec();
    let spelled = |definition: &&PropertyDefinition| definition.label.trim().to_lowercase() == name.to_lowercase();
    let writable = |definition: &&PropertyDefinition| !definition.read_only();
    if left.len() > 1 && left.iter().any(spelled) {
        left.retain(spelled);
    }
    if left.len() > 1 && left.iter().any(writable) {
        left.retain(writable);
    }
    // All of them computed: whichever it is, the column is read over.
    if left.iter().all(|definition| definition.read_only()) {
        left.truncate(1);
    }
    left
}

fn check_duplicates(resolved: &[Resolved<'_>], problems: &mut Vec<Problem>) {
    let mut by_property: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for column in resolved {
        by_property.entry(&column.definition.name).or_default().push(column.header.trim());
    }
    for (property, columns) in by_property.into_iter().filter(|(_, columns)| columns.len() > 1) {
        let names: Vec<_> = columns.iter().take(COLUMNS_SHOWN).map(|name| format!("`{}`", clip(name))).collect();
        let message = format!("the columns {} are all mapped to the property `{property}`", names.join(", "));
        problems.push(problem(codes::DUPLICATE_PROPERTY, columns.last().copied(), message, None));
    }
}

fn check_key(
    spec: &MappingSpec<'_>,
    header: &[String],
    schema: &ObjectSchema,
    resolved: &[Resolved<'_>],
    problems: &mut Vec<Problem>,
) {
    let Some(key) = spec.key else {
        if spec.mode != Mode::Create {
            let message = format!("no key is named for {}", spec.object);
            let hint = Some("Name the property that identifies a record: key: email.".to_owned());
            problems.push(problem(codes::KEY_COLUMN_MISSING, None, message, hint));
        }
        return;
    };
    let by_email = schema.object.is_contacts() && key == "email";
    match schema.properties.get(key) {
        None if !problems.iter().any(|problem| problem.message.ends_with(&format!("no property `{key}`"))) => {
            let message = format!("{} has no property `{}`, which is the key", schema.object, clip(key));
            let hint = nearest_property(key, schema)
                .map(|near| format!("Is it {near}? {}", codes::PROPERTY_DOESNT_EXIST.hint()));
            problems.push(problem(codes::PROPERTY_DOESNT_EXIST, None, message, hint));
        }
        Some(definition) if !definition.has_unique_value && !by_email && key != RECORD_ID && !spec.own_key => {
            let message = format!("the key `{key}` does not have unique values in {}", schema.object);
            problems.push(problem(codes::KEY_NOT_UNIQUE, None, message, None));
        }
        _ => {}
    }
    // A column that was meant for the key and is wrong in some way has been told already.
    let told = spec.columns.is_some_and(|columns| columns.values().any(|rule| rule.details().property == key))
        || problems
            .iter()
            .any(|problem| problem.code == codes::MAPPING_INVALID && problem.message.contains(&format!("`{key}`")));
    if !told && !resolved.iter().any(|column| column.definition.name == key) {
        let message = format!("no column is mapped to the key `{}`; the file has {}", clip(key), list(header));
        let label = schema.properties.get(key).map_or("", |definition| definition.label.as_str());
        let near = suggest::closest(key, header.iter().map(String::as_str))
            .or_else(|| suggest::closest(label, header.iter().map(String::as_str)));
        let hint = near.map(|near| format!("Is it `{}`? {}", clip(near.trim()), codes::KEY_COLUMN_MISSING.hint()));
        problems.push(problem(codes::KEY_COLUMN_MISSING, None, message, hint));
    }
}

fn list(header: &[String]) -> String {
    if header.is_empty() {
        return "no columns".to_owned();
    }
    let shown = header.iter().filter(|name| !is_reject_column(name)).take(COLUMNS_SHOWN);
    let shown: Vec<_> = shown.map(|name| format!("`{}`", clip(name.trim()))).collect();
    let more = header.len().saturating_sub(COLUMNS_SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn check_format(column: &Resolved<'_>, converter: &Converter, format: &str, problems: &mut Vec<Problem>) {
    let name = column.header.trim();
    if !converter.takes_format() {
        let message = format!(
            "column `{}`: a date format is stated, but `{}` is of type {}",
            clip(name),
            column.definition.name,
            column.definition.kind
        );
        let hint = Some("Take the date format out, or map the column to a date property.".to_owned());
        problems.push(problem(codes::MAPPING_INVALID, Some(name), message, hint));
    } else if let Err(why) = dates::check_format(format) {
        let message = format!("column `{}`: the date format `{}` cannot be used: {why}", clip(name), clip(format));
        let hint = Some("Write it in strftime's notation, with day, month and year: %d/%m/%Y.".to_owned());
        problems.push(problem(codes::MAPPING_INVALID, Some(name), message, hint));
    }
}

/// The column's value map, its targets checked.
fn values(column: &Resolved<'_>, converter: &Converter, problems: &mut Vec<Problem>) -> HashMap<Box<str>, Box<str>> {
    let name = column.header.trim();
    let mut values: HashMap<Box<str>, Box<str>> = HashMap::new();
    for (cell, target) in &column.details.values {
        let target = target.trim();
        if !target.is_empty()
            && let Err(fault) = converter.convert(target, None)
        {
            // The target stands in the settings and may be shown; it is no cell.
            let message = format!(
                "column `{}`: values: `{}` cannot be a value of `{}`: {}",
                clip(name),
                clip(target),
                column.definition.name,
                fault.what
            );
            problems.push(problem(fault.code, Some(name), message, fault.hint));
        }
        let folded = cell.trim().to_lowercase().into_boxed_str();
        if values.get(&folded).is_some_and(|other| **other != *target) {
            let message = format!("column `{}`: values: `{}` is given twice", clip(name), clip(cell));
            let hint = Some("Cells are compared without regard to case: keep one of the two.".to_owned());
            problems.push(problem(codes::MAPPING_INVALID, Some(name), message, hint));
        }
        values.insert(folded, target.into());
    }
    values
}
