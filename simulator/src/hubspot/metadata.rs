//! Definitions: properties and their groups, owners, pipelines, schemas, the account. SOURCES.md "Properties".

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Handled, parse};
use super::catalog::{self, PropertyDefinition};
use super::objects::scopes;
use super::store::{Kind, Property, iso};
use super::{Call, Portal};

/// Properties that can identify records, per object type.
const UNIQUE_PER_OBJECT_MAX: usize = 10;
/// The shortest delay until a new property can be used.
const PROPERTY_DELAY_MIN_MS: u64 = 250;
const NAME_CHARS_MAX: usize = 100;
const OWNERS_PAGE_MAX: usize = 500;

impl Portal {
    pub(super) fn properties(&mut self, call: &Call<'_>, name: &str) -> Handled {
        let kind = self.kind(name)?;
        let access =
            if call.method == "GET" || call.route.rest.ends_with(&["read".to_owned()]) { "read" } else { "write" };
        let mut any = vec![format!("crm.schemas.{}.{access}", self.at(kind).plural)];
        if self.at(kind).id.starts_with("2-") {
            any.push(format!("crm.schemas.custom.{access}"));
        }
        if access == "read" {
            any.extend(scopes(self.at(kind), "read"));
        }
        call.caller.need(&any)?;
        let rest: Vec<&str> = call.route.rest.iter().map(String::as_str).collect();
        match (call.method, rest.as_slice()) {
            ("GET", []) => {
                let archived = call.route.get("archived") == Some("true");
                let mut body = br#"{"results":["#.to_vec();
                let listed = self
                    .at(kind)
                    .properties
                    .iter()
                    .filter(|one| one.visible_at <= call.now && one.definition.archived == archived);
                for (at, property) in listed.enumerate() {
                    if at > 0 {
                        body.push(b',');
                    }
                    write_property(property, &mut body);
                }
                body.extend_from_slice(b"]}");
                Ok(Answer::bytes(200, body))
            }
            ("POST", []) => {
                let definition: PropertyDefinition = parse(call.body)?;
                Ok(Answer::json(201, &self.create_property(call, kind, definition)?))
            }
            ("POST", ["batch", "create"]) => {
                #[derive(Deserialize)]
                struct Inputs {
                    inputs: Vec<PropertyDefinition>,
                }
                let (mut results, mut errors) = (Vec::new(), Vec::new());
                for definition in parse::<Inputs>(call.body)?.inputs {
                    let name = definition.name.clone();
                    match self.create_property(call, kind, definition) {
                        Ok(made) => results.push(made),
                        Err(error) => errors.push(error.context("name", vec![name]).item(None)),
                    }
                }
                let status = if !errors.is_empty() {
                    207
                } else if call.route.version.since_2026_09() {
                    200
                } else {
                    201
                };
                Ok(batch(call, status, results, errors))
            }
            ("POST", ["batch", "read"]) => {
                #[derive(Deserialize)]
                struct Name {
                    name: String,
                }
                #[derive(Deserialize)]
                struct Inputs {
                    inputs: Vec<Name>,
                }
                let (mut results, mut errors) = (Vec::new(), Vec::new());
                for Name { name } in parse::<Inputs>(call.body)?.inputs {
                    match self.at(kind).property(&name, call.now) {
                        Some((_, property)) => results.push(shape(property)),
                        None => errors.push(no_property(&name).item(None)),
                    }
                }
                let status = if errors.is_empty() { 200 } else { 207 };
                Ok(batch(call, status, results, errors))
            }
            ("GET", ["groups"]) => {
                let groups = self.at(kind).groups.iter().enumerate();
                let all: Vec<Value> = groups.map(|(at, (name, label))| group(name, label, at)).collect();
                Ok(Answer::json(200, &json!({"results": all})))
            }
            ("POST", ["groups"]) => {
                #[derive(Deserialize)]
                struct Group {
                    name: String,
                    label: String,
                }
                let input: Group = parse(call.body)?;
                let own = self.at_mut(kind);
                if own.groups.iter().any(|(name, _)| *name == input.name) {
                    let text = format!("A property group named '{}' already exists.", input.name);
                    return Err(ApiError::of(409, "OBJECT_ALREADY_EXISTS", text));
                }
                own.groups.push((input.name.clone(), input.label.clone()));
                let at = own.groups.len();
                Ok(Answer::json(201, &group(&input.name, &input.label, at)))
            }
            ("GET", ["groups", wanted]) => {
                let found = self.at(kind).groups.iter().enumerate().find(|(_, (name, _))| name == wanted);
                match found {
                    Some((at, (name, label))) => Ok(Answer::json(200, &group(name, label, at))),
                    None => {
                        Err(ApiError::of(404, "OBJECT_NOT_FOUND", format!("Property group {wanted} does not exist")))
                    }
                }
            }
            ("GET", [name]) => match self.at(kind).property(name, call.now) {
                Some((_, property)) => Ok(Answer::json(200, &shape(property))),
                None => Err(no_property(name)),
            },
            ("PATCH", [name]) => {
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Change {
                    label: Option<String>,
                    description: Option<String>,
                    group_name: Option<String>,
                    options: Option<Vec<catalog::PropertyOption>>,
                }
                let change: Change = parse(call.body)?;
                if self.at(kind).property(name, call.now).is_none() {
                    return Err(no_property(name));
                }
                let Some(property) = self.at_mut(kind).any_property(name) else { return Err(no_property(name)) };
                let definition = &mut property.definition;
                if let Some(label) = change.label {
                    definition.label = label;
                }
                if let Some(description) = change.description {
                    definition.description = description;
                }
                if let Some(group) = change.group_name {
                    definition.group_name = group;
                }
                if let Some(options) = change.options {
                    definition.options = options;
                }
                Ok(Answer::json(200, &shape(property)))
            }
            ("DELETE", [name]) => {
                if self.at(kind).property(name, call.now).is_none() {
                    return Err(no_property(name));
                }
                if let Some(property) = self.at_mut(kind).any_property(name) {
                    if property.definition.hubspot_defined {
                        let text = format!("Property {name} is defined by HubSpot and cannot be deleted");
                        return Err(ApiError::validation(text));
                    }
                    property.definition.archived = true;
                }
                Ok(Answer::empty(204))
            }
            _ => Err(ApiError::new(404, "resource not found")),
        }
    }

    fn create_property(&mut self, call: &Call<'_>, kind: usize, mut definition: PropertyDefinition) -> Handled<Value> {
        let name = definition.name.clone();
        let good = name.len() <= NAME_CHARS_MAX
            && name.starts_with(|one: char| one.is_ascii_lowercase())
            && name.bytes().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == b'_');
        if !good {
            let text = format!("Property name {name} is not valid: lower-case letters, digits and underscores");
            return Err(ApiError::validation(text));
        }
        let types = ["bool", "date", "datetime", "enumeration", "number", "string", "phone_number"];
        if !types.contains(&definition.kind.as_str()) || definition.field_type.is_empty() || definition.label.is_empty()
        {
            return Err(ApiError::validation("Invalid property: label, type, fieldType and groupName are required"));
        }
        let own = self.at_mut(kind);
        if !own.groups.iter().any(|(group, _)| *group == definition.group_name) {
            let text = format!("Property group {} does not exist", definition.group_name);
            return Err(ApiError::validation(text));
        }
        if let Some(known) = own.any_property(&name) {
            if !known.definition.archived {
                let text = format!("A property named '{name}' already exists.");
                return Err(
                    ApiError::of(409, "OBJECT_ALREADY_EXISTS", text).sub("Properties.PROPERTY_WITH_NAME_EXISTS")
                );
            }
            known.definition.archived = false;
            return Ok(shape(known));
        }
        let unique = own.properties.iter().filter(|one| one.definition.has_unique_value).count();
        if definition.has_unique_value && unique >= UNIQUE_PER_OBJECT_MAX {
            let text = format!("No more than {UNIQUE_PER_OBJECT_MAX} properties with unique values are allowed");
            return Err(ApiError::validation(text));
        }
        definition.hubspot_defined = false;
        definition.calculated = false;
        definition.archived = false;
        definition.modification_metadata =
            catalog::ModificationMetadata { archivable: true, ..catalog::ModificationMetadata::default() };
        let most = self.settings.unsettled.property_delay_ms;
        let delay = if most <= PROPERTY_DELAY_MIN_MS { most } else { self.rng.u64(PROPERTY_DELAY_MIN_MS..=most) };
        let visible_at = call.now.saturating_add(i64::try_from(delay).unwrap_or(0));
        let own = self.at_mut(kind);
        own.define(definition, call.now, visible_at);
        match own.any_property(&name) {
            Some(property) => Ok(shape(property)),
            None => Err(no_property(&name)),
        }
    }

    pub(super) fn owners(&mut self, call: &Call<'_>) -> Handled {
        call.caller.need(&["crm.objects.owners.read".to_owned()])?;
        let shape = |owner: &super::Owner| {
            json!({"id": owner.id, "email": owner.email, "type": "PERSON", "firstName": owner.first_name,
                "lastName": owner.last_name, "userId": owner.user_id, "userIdIncludingInactive": owner.user_id,
                "createdAt": iso(0), "updatedAt": iso(0), "archived": owner.archived, "teams": []})
        };
        if let Some(id) = call.route.rest.first() {
            return match self.settings.owners.iter().find(|owner| owner.id == *id) {
                Some(owner) => Ok(Answer::json(200, &shape(owner))),
                None => Err(ApiError::new(404, "resource not found")),
            };
        }
        let archived = call.route.get("archived") == Some("true");
        let email = call.route.get("email").filter(|email| !email.is_empty());
        let limit = call.route.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100).min(OWNERS_PAGE_MAX);
        let after = call.route.get("after").and_then(|after| after.parse::<usize>().ok()).unwrap_or(0);
        let all: Vec<&super::Owner> = self
            .settings
            .owners
            .iter()
            .filter(|owner| owner.archived == archived)
            .filter(|owner| email.is_none_or(|email| owner.email.eq_ignore_ascii_case(email)))
            .collect();
        let page: Vec<Value> = all.iter().skip(after).take(limit).map(|owner| shape(owner)).collect();
        let end = after + page.len();
        let mut body = json!({"results": page});
        if end < all.len()
            && let Some(members) = body.as_object_mut()
        {
            members.insert("paging".into(), json!({"next": {"after": end.to_string()}}));
        }
        Ok(Answer::json(200, &body))
    }

    pub(super) fn pipelines(&mut self, call: &Call<'_>, name: &str) -> Handled {
        let kind = self.kind(name)?;
        let all = catalog::pipelines(&self.at(kind).id);
        let rest: Vec<&str> = call.route.rest.iter().map(String::as_str).collect();
        let find = |id: &str| {
            let found = all.iter().enumerate().find(|(_, one)| one.id == id).map(|(at, one)| one.json(at));
            found.ok_or_else(|| ApiError::new(404, "resource not found"))
        };
        match (call.method, rest.as_slice()) {
            ("GET", []) => {
                let results: Vec<Value> = all.iter().enumerate().map(|(at, one)| one.json(at)).collect();
                Ok(Answer::json(200, &json!({"results": results})))
            }
            ("GET", [id]) => Ok(Answer::json(200, &find(id)?)),
            ("GET", [id, "stages"]) => Ok(Answer::json(200, &json!({"results": find(id)?["stages"]}))),
            _ => Err(ApiError::new(404, "resource not found")),
        }
    }

    pub(super) fn schemas(&mut self, call: &Call<'_>) -> Handled {
        if call.method != "GET" {
            return Err(ApiError::new(405, "HTTP 405 Method Not Allowed"));
        }
        let shape = |kind: &Kind| {
            let custom = kind.id.starts_with("2-");
            let properties: Vec<Value> =
                kind.properties.iter().filter(|one| one.visible_at <= call.now).map(shape).collect();
            json!({"labels": {"singular": kind.singular, "plural": kind.plural}, "requiredProperties": kind.required,
                "searchableProperties": [], "primaryDisplayProperty": kind.display, "archived": false,
                "metaType": if custom { "PORTAL_SPECIFIC" } else { "HUBSPOT" }, "id": kind.id,
                "fullyQualifiedName": kind.fully_qualified, "objectTypeId": kind.id, "name": kind.singular,
                "properties": properties, "associations": []})
        };
        match call.route.rest.as_slice() {
            [] => {
                let all: Vec<Value> = self.kinds.iter().filter(|kind| kind.id.starts_with("2-")).map(shape).collect();
                Ok(Answer::json(200, &json!({"results": all})))
            }
            [name, ..] => Ok(Answer::json(200, &shape(self.at(self.kind(name)?)))),
        }
    }

    pub(super) fn account(&mut self, call: &Call<'_>) -> Handled {
        let now = jiff::Timestamp::from_millisecond(call.now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let local = now.to_zoned(self.zone.clone());
        let rest: Vec<&str> = call.route.rest.iter().map(String::as_str).collect();
        match (call.method, rest.as_slice()) {
            ("GET", ["details"] | ["me"]) => {
                let seconds = local.offset().seconds();
                let sign = if seconds < 0 { '-' } else { '+' };
                let minutes = seconds.abs() / 60;
                Ok(Answer::json(
                    200,
                    &json!({"portalId": self.settings.portal_id, "accountType": "STANDARD",
                        "timeZone": self.settings.time_zone, "companyCurrency": "USD", "additionalCurrencies": [],
                        "utcOffset": format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
                        "utcOffsetMilliseconds": i64::from(seconds) * 1000, "uiDomain": "app.hubspot.com",
                        "dataHostingLocation": "na1"}),
                ))
            }
            ("GET", ["api-usage", "daily", "private-apps"]) => {
                let used = self.day.used(local.date());
                let midnight =
                    local.tomorrow().and_then(|at| at.start_of_day()).map(|at| at.timestamp().as_millisecond());
                Ok(Answer::json(
                    200,
                    &json!({"results": [{"name": "private-apps-api-calls-daily", "usageLimit": self.settings.limits.daily,
                        "currentUsage": used, "collectedAt": iso(call.now), "fetchStatus": "SUCCESS",
                        "resetsAt": iso(midnight.unwrap_or(call.now))}]}),
                ))
            }
            _ => Err(ApiError::new(404, "resource not found")),
        }
    }
}

fn shape(property: &Property) -> Value {
    let mut all = serde_json::to_value(&property.definition).unwrap_or_default();
    if let Some(members) = all.as_object_mut() {
        members.insert("createdAt".into(), iso(property.created).into());
        members.insert("updatedAt".into(), iso(property.created).into());
        members.insert("dataSensitivity".into(), "non_sensitive".into());
    }
    all
}

/// As text, without the detour: every process of a client begins with a list of hundreds. The members are those of [`shape`].
fn write_property(property: &Property, out: &mut Vec<u8>) {
    let from = out.len();
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(&mut *out, &property.definition);
    debug_assert!(out.get(from) == Some(&b'{') && out.last() == Some(&b'}'), "a definition is an object");
    out.pop();
    let at = iso(property.created);
    let more = format!(r#","createdAt":"{at}","updatedAt":"{at}","dataSensitivity":"non_sensitive"}}"#);
    out.extend_from_slice(more.as_bytes());
}

fn no_property(name: &str) -> Box<ApiError> {
    ApiError::of(404, "OBJECT_NOT_FOUND", format!("Property {name} does not exist"))
}

fn group(name: &str, label: &str, at: usize) -> Value {
    json!({"name": name, "label": label, "displayOrder": at, "archived": false})
}

fn batch(call: &Call<'_>, status: u16, results: Vec<Value>, errors: Vec<Value>) -> Answer {
    let at = iso(call.now);
    let results: Vec<Vec<u8>> = results.iter().map(|one| one.to_string().into_bytes()).collect();
    super::answer::batch(status, &results, errors, &at, &at)
}
