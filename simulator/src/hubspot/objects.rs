//! Records one at a time: list, create, read, update, archive, merge, privacy delete. SOURCES.md "Objects".

use std::collections::HashSet;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError, Handled, parse};
use super::route::Version;
use super::search::shortened;
use super::store::{Kind, Record, Seen, iso};
use super::validate::{self, Fit, Invalid, Rules};
use super::{Call, Portal, shown};

/// Records on one page of a list, and with history.
const PAGE_MAX: usize = 100;
const PAGE_WITH_HISTORY_MAX: usize = 50;
/// Merges that one record can take.
const MERGES_MAX: usize = 250;

/// The values of one write: strings, `null`, and the numbers and booleans that clients send anyway.
#[derive(Debug, Default)]
pub(crate) struct Values(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Values;
            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("an object of property values")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut all = Vec::with_capacity(16);
                while let Some((name, value)) = map.next_entry::<String, Scalar>()? {
                    all.push((name, value.0));
                }
                Ok(Values(all))
            }
        }
        from.deserialize_map(Members)
    }
}

struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct One;
        impl serde::de::Visitor<'_> for One {
            type Value = Scalar;
            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Scalar, E> {
                Ok(Scalar(text))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar(String::new()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        from.deserialize_any(One)
    }
}

/// An id that may come as a string or a number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Id(pub(crate) String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Scalar::deserialize(from).map(|scalar| Self(scalar.0))
    }
}

/// An association that is made with a record.
#[derive(Debug, Deserialize)]
pub(crate) struct AssociationInput {
    pub(crate) to: ToInput,
    #[serde(default)]
    pub(crate) types: Vec<TypeInput>,
}

/// The other end.
#[derive(Debug, Deserialize)]
pub(crate) struct ToInput {
    pub(crate) id: Id,
}

/// A type of association.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TypeInput {
    #[serde(default)]
    pub(crate) association_category: String,
    pub(crate) association_type_id: u32,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CreateInput {
    #[serde(default)]
    pub(crate) properties: Values,
    #[serde(default)]
    pub(crate) associations: Option<Vec<AssociationInput>>,
}

/// A row that passed all checks.
pub(crate) struct Row {
    pub(crate) changes: Vec<(u16, String)>,
    pub(crate) warnings: Vec<Value>,
}

/// Why a row was refused.
pub(crate) enum Refusal {
    Invalid(Vec<Invalid>),
    /// The id of the record in the way, if it may be told.
    Conflict(Option<u64>),
    /// Required to create the record at all.
    Unset(Vec<String>),
    /// Required by the account's administrators.
    Required(Vec<String>),
    Association,
    NotFound(String),
}

/// Unique values that earlier rows of the same all-or-nothing batch will take.
pub(crate) type Claims = HashSet<(u16, String)>;

impl Portal {
    pub(super) fn objects(&mut self, call: &Call<'_>, name: &str) -> Handled {
        let kind = self.kind(name)?;
        let rest: Vec<&str> = call.route.rest.iter().map(String::as_str).collect();
        if let [from, "associations", more @ ..] = rest.as_slice() {
            return self.record_associations(call, kind, from, more);
        }
        let read = call.method == "GET" || matches!(rest.as_slice(), ["batch", "read"] | ["search"]);
        call.caller.need(&scopes(self.at(kind), if read { "read" } else { "write" }))?;
        if !read && self.at(kind).id == "0-19" && self.settings.unsettled.feedback_is_read_only {
            return Err(ApiError::new(405, "HTTP 405 Method Not Allowed"));
        }
        match (call.method, rest.as_slice()) {
            ("GET", []) => self.list(call, kind),
            ("POST", []) => self.create(call, kind),
            ("POST", ["search"]) => self.search(call, kind),
            ("POST", ["merge"]) => self.merge_call(call, kind),
            ("POST", ["gdpr-delete"]) => self.privacy_delete(call, kind),
            ("POST", ["batch", "create"]) => self.batch_create(call, kind),
            ("POST", ["batch", "read"]) => self.batch_read(call, kind),
            ("POST", ["batch", "update"]) => self.batch_update(call, kind),
            ("POST", ["batch", "upsert"]) => self.batch_upsert(call, kind),
            ("POST", ["batch", "archive"]) => self.batch_archive(call, kind),
            ("GET", [id]) => self.read(call, kind, id),
            ("PATCH", [id]) => self.patch(call, kind, id),
            ("DELETE", [id]) => {
                if let Ok(id) = id.parse::<u64>() {
                    self.archive_record(kind, id, call.now);
                }
                Ok(Answer::empty(204))
            }
            _ => Err(ApiError::new(405, "HTTP 405 Method Not Allowed")),
        }
    }

    /// What a read is to show: the named properties, or the default set.
    pub(super) fn selection(&self, kind: usize, names: &[String], now: i64) -> Vec<u16> {
        let kind = self.at(kind);
        if names.is_empty() { kind.show(&kind.shown, now) } else { kind.show(names, now) }
    }

    fn list(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        let archived = call.route.get("archived") == Some("true");
        let history = call.route.list("propertiesWithHistory");
        let most = if history.is_empty() { PAGE_MAX } else { PAGE_WITH_HISTORY_MAX };
        let limit = call.route.get("limit").map_or(Ok(10), str::parse::<usize>);
        let Some(limit) = limit.ok().filter(|limit| (1..=most).contains(limit)) else {
            return Err(ApiError::validation(format!("limit must be between 1 and {most}")));
        };
        let after = match call.route.get("after").filter(|after| !after.is_empty()) {
            None => 0,
            Some(text) => text.parse::<u64>().map_err(|_| {
                ApiError::validation("Cannot deserialize value of type `long` from String: not a valid `long` value")
            })?,
        };
        let inclusive = self.settings.unsettled.list_after_is_inclusive;
        let short = self.short_page();
        let show = self.selection(kind, &call.route.list("properties"), call.now);
        let ends = call.route.list("associations");
        let kind_ref = self.at(kind);
        let from = if inclusive { after } else { after.saturating_add(1) };
        let mut page: Vec<&Record> = if archived {
            kind_ref.bin(from, call.now).take(limit + 1).collect()
        } else {
            let live = kind_ref.records.range(from..).map(|(_, record)| record);
            live.filter(|record| record.archived.is_none()).take(limit + 1).collect()
        };
        let full = page.len().min(limit);
        let size = shortened(full, short);
        let more = page.len() > size;
        page.truncate(size);
        let mut body = br#"{"results":["#.to_vec();
        for (at, record) in page.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            let text = self.extras(kind, record, &history, &ends)?;
            let seen = Kind::newest(record);
            body.extend_from_slice(&kind_ref.write(record, seen, &shown(&show), self.settings.portal_id, &text));
        }
        body.push(b']');
        if let Some(last) = page.last().filter(|_| more) {
            let after = if inclusive { last.id.saturating_add(1) } else { last.id };
            let link = format!(
                "https://api.hubapi.com/crm/v3/objects/{}?limit={limit}&after={after}{}",
                kind_ref.plural,
                if archived { "&archived=true" } else { "" }
            );
            let paging = json!({"next": {"after": after.to_string(), "link": link}});
            body.extend_from_slice(format!(r#","paging":{paging}"#).as_bytes());
        }
        body.push(b'}');
        Ok(Answer::bytes(200, body))
    }

    /// History and associations of a record, as members with a leading comma.
    pub(super) fn extras(&self, kind: usize, record: &Record, history: &[String], ends: &[String]) -> Handled<String> {
        let mut text = String::new();
        let own = self.at(kind);
        if !history.is_empty() {
            let mut all = Map::new();
            for name in history {
                let Some(property) = own.property_id(name) else { continue };
                let versions: Vec<Value> = record
                    .history(property)
                    .map(|(at, value)| json!({"value": value, "timestamp": iso(at), "sourceType": "INTEGRATION"}))
                    .collect();
                all.insert(name.clone(), Value::Array(versions));
            }
            text.push_str(&format!(r#","propertiesWithHistory":{}"#, Value::Object(all)));
        }
        if !ends.is_empty() {
            let mut all = Map::new();
            for name in ends {
                let to = self.kind(name)?;
                let results: Vec<Value> = self
                    .associations
                    .of(kind, record.id, to)
                    .map(|(id, _)| {
                        let label = format!("{}_to_{}", own.singular, self.at(to).singular);
                        json!({"id": id.to_string(), "type": label})
                    })
                    .collect();
                if !results.is_empty() {
                    all.insert(self.at(to).plural.clone(), json!({"results": results}));
                }
            }
            if !all.is_empty() {
                text.push_str(&format!(r#","associations":{}"#, Value::Object(all)));
            }
        }
        Ok(text)
    }

    fn create(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        let input: CreateInput = parse(call.body)?;
        let row = match self.check(kind, None, &input.properties, &call.route.version, call.now, None) {
            Ok(row) => row,
            Err(refusal) => return Err(self.refuse(kind, refusal, true)),
        };
        let associations = input.associations.unwrap_or_default();
        if !self.ends_exist(kind, &associations) {
            return Err(self.refuse(kind, Refusal::Association, true));
        }
        let warnings = row.warnings.clone();
        let id = self.insert(kind, row, &associations, call.now);
        let path = format!("https://api.hubapi.com/crm/v3/objects/{}/{id}", self.at(kind).plural);
        Ok(self.one(201, kind, id, &warnings)?.with("location", path))
    }

    /// A write's answer.
    fn one(&self, status: u16, kind: usize, id: u64, warnings: &[Value]) -> Handled {
        let own = self.at(kind);
        let Some(record) = own.records.get(&id) else { return Err(ApiError::new(404, "resource not found")) };
        let more = if warnings.is_empty() { String::new() } else { format!(r#","warnings":{}"#, json!(warnings)) };
        let body = own.write(record, Kind::newest(record), &super::Show::All, self.settings.portal_id, &more);
        Ok(Answer::bytes(status, body))
    }

    /// The record a path names, live or archived.
    fn find(&self, call: &Call<'_>, kind: usize, key: &str, archived: bool) -> Handled<u64> {
        let own = self.at(kind);
        let id = match call.route.get("idProperty").filter(|name| !name.is_empty() && *name != "hs_object_id") {
            None => match key.parse::<u64>() {
                Ok(id) => id,
                Err(_) => {
                    let text = format!("Object not found.  objectId are usually numeric.  {key}");
                    let message = text.split("  ").take(2).collect::<Vec<_>>().join("  ");
                    return Err(ApiError::of(404, "OBJECT_NOT_FOUND", message).context("id", vec![key.to_owned()]));
                }
            },
            Some(name) => {
                let property = own.property_id(name).filter(|property| own.is_unique(*property));
                let Some(property) = property else { return Err(self.not_unique(kind, name)) };
                own.holder(property, key).ok_or_else(|| ApiError::new(404, "resource not found"))?
            }
        };
        let id = own.survivor(id);
        match own.get(id, archived, call.now) {
            Some(_) => Ok(id),
            None => Err(ApiError::new(404, "resource not found")),
        }
    }

    pub(super) fn not_unique(&self, kind: usize, property: &str) -> Box<ApiError> {
        let id = &self.at(kind).id;
        ApiError::validation(format!("Unable to perform update/upsert by non-unique {id} property {property}"))
    }

    fn read(&mut self, call: &Call<'_>, kind: usize, key: &str) -> Handled {
        let id = self.find(call, kind, key, call.route.get("archived") == Some("true"))?;
        let show = self.selection(kind, &call.route.list("properties"), call.now);
        let own = self.at(kind);
        let Some(record) = own.records.get(&id) else { return Err(ApiError::new(404, "resource not found")) };
        let history = call.route.list("propertiesWithHistory");
        let more = self.extras(kind, record, &history, &call.route.list("associations"))?;
        let body = own.write(record, Kind::newest(record), &shown(&show), self.settings.portal_id, &more);
        Ok(Answer::bytes(200, body))
    }

    fn patch(&mut self, call: &Call<'_>, kind: usize, key: &str) -> Handled {
        let id = self.find(call, kind, key, false)?;
        let input: CreateInput = parse(call.body)?;
        let row = match self.check(kind, Some(id), &input.properties, &call.route.version, call.now, None) {
            Ok(row) => row,
            Err(refusal) => return Err(self.refuse(kind, refusal, true)),
        };
        let warnings = row.warnings.clone();
        self.write(kind, id, row, call.now);
        self.one(200, kind, id, &warnings)
    }

    fn merge_call(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Merge {
            primary_object_id: Id,
            object_id_to_merge: Id,
        }
        let input: Merge = parse(call.body)?;
        let id = |id: &Id| id.0.parse::<u64>().unwrap_or_default();
        let winner = self.merge_records(kind, id(&input.primary_object_id), id(&input.object_id_to_merge), call.now)?;
        self.one(200, kind, winner, &[])
    }

    /// The loser's values fill the winner's gaps, its associations become the winner's, its id leads to the winner.
    pub(super) fn merge_records(&mut self, kind: usize, winner: u64, loser: u64, now: i64) -> Handled<u64> {
        let own = self.at(kind);
        if !matches!(own.id.as_str(), "0-1" | "0-2" | "0-3" | "0-5") && !own.id.starts_with("2-") {
            return Err(ApiError::validation(format!("Objects of type {} cannot be merged", own.id)));
        }
        let live = |id: u64| own.live(id).map(|record| record.id);
        let (Some(winner), Some(loser)) = (live(winner), live(loser)) else {
            return Err(ApiError::new(404, "resource not found"));
        };
        if winner == loser {
            return Err(ApiError::validation("Cannot merge an object with itself"));
        }
        let merged_ids = own.property_id("hs_merged_object_ids");
        let taken = |id: u64| {
            let text = own.records.get(&id).and_then(|record| record.text(merged_ids?, u32::MAX));
            text.unwrap_or_default().split(';').filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut losers = taken(winner);
        losers.extend(taken(loser));
        losers.push(loser.to_string());
        if losers.len() > MERGES_MAX {
            return Err(ApiError::new(414, "Cannot have more than 250 identities on a profile"));
        }
        let (seen_at, gone_at) = (self.visible_at(now), self.visible_at(now));
        self.note(kind, loser, "merge", &[], now);
        let own = self.at_mut(kind);
        let Some(lost) = own.purge(loser, now, gone_at) else {
            return Err(ApiError::new(404, "resource not found"));
        };
        let (email, additional) = (own.email, own.additional_emails);
        let Some(kept) = own.records.get(&winner) else { return Err(ApiError::new(404, "resource not found")) };
        let mut changes: Vec<(u16, String)> = lost
            .cells
            .iter()
            .filter(|cell| Some(cell.property) != additional && Some(cell.property) != merged_ids)
            .filter(|cell| kept.text(cell.property, u32::MAX).unwrap_or_default().is_empty() && !cell.text.is_empty())
            .map(|cell| (cell.property, cell.text.to_string()))
            .collect();
        if let Some(property) = merged_ids {
            changes.push((property, losers.join(";")));
        }
        let mut emails: Vec<String> = Vec::new();
        if let (Some(email), Some(additional)) = (email, additional) {
            if kept.text(email, u32::MAX).is_some_and(|text| !text.is_empty()) {
                emails.extend(lost.text(email, u32::MAX).map(str::to_owned));
            }
            emails.extend(lost.text(additional, u32::MAX).unwrap_or_default().split(';').map(str::to_owned));
            emails.retain(|one| !one.is_empty());
        }
        self.note(kind, winner, "update", &changes, now);
        let own = self.at_mut(kind);
        own.update(winner, changes, now, seen_at, true);
        own.add_emails(winner, &emails, now, seen_at);
        own.merged.insert(loser, winner);
        self.associations.rename(kind, loser, winner);
        Ok(winner)
    }

    fn privacy_delete(&mut self, call: &Call<'_>, kind: usize) -> Handled {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Input {
            object_id: Id,
            #[serde(default)]
            id_property: Option<String>,
        }
        let input: Input = parse(call.body)?;
        let own = self.at(kind);
        let Some(email) = own.email else { return Err(ApiError::new(404, "resource not found")) };
        let id = if input.id_property.as_deref() == Some("email") {
            own.holder(email, &input.object_id.0)
        } else {
            input.object_id.0.parse().ok().map(|id| own.survivor(id))
        };
        let visible_at = self.visible_at(call.now);
        if let Some(record) = id.and_then(|id| self.at_mut(kind).purge(id, call.now, visible_at)) {
            if let Some(address) = record.text(email, u32::MAX) {
                self.blocklist.insert(address.to_owned());
            }
            self.associations.forget(kind, record.id);
        } else if input.id_property.is_some() {
            self.blocklist.insert(input.object_id.0.trim().to_lowercase());
        }
        Ok(Answer::empty(204))
    }

    pub(super) fn archive_record(&mut self, kind: usize, id: u64, now: i64) {
        let visible_at = self.visible_at(now);
        if self.at_mut(kind).archive(id, true, now, visible_at) {
            self.note(kind, id, "archive", &[], now);
            self.counts.archived += 1;
            self.associations.forget(kind, id);
        }
    }

    /// Everything HubSpot checks about one row. `existing` is the record it would change.
    pub(super) fn check(
        &self,
        kind: usize,
        existing: Option<u64>,
        values: &Values,
        version: &Version,
        now: i64,
        mut claims: Option<&mut Claims>,
    ) -> Result<Row, Refusal> {
        let own = self.at(kind);
        let rules =
            Rules { lenient_dates: version.since_2026_09(), owners: &self.settings.owners, object_type_id: &own.id };
        let record = existing.and_then(|id| own.records.get(&id));
        let mut changes = Vec::with_capacity(values.0.len());
        let mut warnings = Vec::new();
        let mut invalid = Vec::new();
        for (name, value) in &values.0 {
            let Some((number, property)) = own.property(name, now) else {
                invalid.push(Invalid {
                    name: name.clone(),
                    code: "PROPERTY_DOESNT_EXIST",
                    message: format!("Property \"{name}\" does not exist"),
                    value: None,
                });
                continue;
            };
            let stored = match validate::check(&property.definition, value, &rules) {
                Ok(Fit::AsIs) => value.clone(),
                Ok(Fit::Stored(stored)) => stored,
                Ok(Fit::Normalized { stored, shown }) => {
                    warnings.push(json!({"category": "PROPERTY_VALUE_NORMALIZED",
                        "message": format!("{name} was normalized"),
                        "context": {"propertyName": name, "rawValue": value, "normalizedValue": shown}}));
                    stored
                }
                Err(refused) => {
                    invalid.push(refused);
                    continue;
                }
            };
            if own.is_unique(number) && !stored.is_empty() {
                let is_email = own.email == Some(number);
                if is_email && self.blocklist.contains(&stored) {
                    invalid.push(Invalid {
                        name: name.clone(),
                        code: "INVALID_EMAIL",
                        message: "email has been GDPR blacklisted".to_owned(),
                        value: None,
                    });
                    continue;
                }
                let holder = own.holder(number, &stored);
                if holder.is_some() && holder == existing && is_email {
                    // Its own secondary address: the primary one stays.
                    continue;
                }
                let claimed = match claims.as_deref_mut() {
                    Some(claims) => !claims.insert((number, stored.clone())),
                    None => false,
                };
                if claimed || holder.is_some_and(|holder| Some(holder) != existing) {
                    if is_email {
                        return Err(Refusal::Conflict(holder));
                    }
                    invalid.push(Invalid {
                        name: name.clone(),
                        code: "CONFLICTING_UNIQUE_VALUE",
                        message: format!(
                            "{stored} is already used by another record. propertyValue: already has that value"
                        ),
                        value: Some(stored),
                    });
                    continue;
                }
            }
            if name == "lifecyclestage" && !stored.is_empty() {
                let place = |stage: &str| property.definition.options.iter().position(|option| option.value == stage);
                let old = record.and_then(|record| record.text(number, u32::MAX)).filter(|old| !old.is_empty());
                if old.is_some_and(|old| place(&stored) < place(old)) {
                    continue;
                }
            }
            changes.push((number, stored));
        }
        if !invalid.is_empty() {
            return Err(Refusal::Invalid(invalid));
        }
        self.complete(kind, existing, &mut changes, version)?;
        Ok(Row { changes, warnings })
    }

    /// Pipelines that follow from stages, defaults of new records, and what must not be missing.
    fn complete(
        &self,
        kind: usize,
        existing: Option<u64>,
        changes: &mut Vec<(u16, String)>,
        version: &Version,
    ) -> Result<(), Refusal> {
        let own = self.at(kind);
        let id_of = |name: &str| own.property_id(name).unwrap_or(u16::MAX);
        let set = |changes: &[(u16, String)], name: &str| {
            let number = id_of(name);
            changes
                .iter()
                .rev()
                .find(|(property, _)| *property == number)
                .is_some_and(|(_, text)| !text.trim().is_empty())
        };
        let pair = match own.id.as_str() {
            "0-3" => Some(("pipeline", "dealstage")),
            "0-5" => Some(("hs_pipeline", "hs_pipeline_stage")),
            _ => None,
        };
        if let Some((pipeline, stage)) = pair {
            let (pipeline_id, stage_id) = (id_of(pipeline), id_of(stage));
            let of = |id: u16| changes.iter().find(|(property, _)| *property == id).map(|(_, text)| text.as_str());
            let record = existing.and_then(|id| own.records.get(&id));
            if let Some(wanted) = of(stage_id).filter(|text| !text.is_empty()) {
                let pipelines = super::catalog::pipelines(&own.id);
                let home = pipelines.iter().find(|one| one.stages.iter().any(|stage| stage.0 == wanted));
                let named = of(pipeline_id).map(str::to_owned);
                match (home, named) {
                    (Some(home), Some(named)) if home.id != named => {
                        let message = format!("{wanted} is not a stage of pipeline {named}");
                        let value = Some(wanted.to_owned());
                        let one = Invalid { name: stage.to_owned(), code: "INVALID_OPTION", message, value };
                        return Err(Refusal::Invalid(vec![one]));
                    }
                    (Some(home), None) if record.is_none_or(|one| one.text(pipeline_id, u32::MAX) != Some(home.id)) => {
                        changes.push((pipeline_id, home.id.to_owned()));
                    }
                    _ => {}
                }
            }
        }
        if existing.is_some() {
            return Ok(());
        }
        let unset: Vec<String> = own.required.iter().filter(|name| !set(changes, name)).cloned().collect();
        if !unset.is_empty() {
            return Err(Refusal::Unset(unset));
        }
        if !own.any_of.is_empty() && !own.any_of.iter().any(|name| set(changes, name)) {
            return Err(Refusal::Unset(own.any_of.clone()));
        }
        if version.since_2026_09()
            && let Some(required) = self.settings.required_properties.get(&own.plural)
        {
            let missing: Vec<String> = required.iter().filter(|name| !set(changes, name)).cloned().collect();
            if !missing.is_empty() {
                return Err(Refusal::Required(missing));
            }
        }
        if own.id == "0-1" && !set(changes, "lifecyclestage") {
            changes.push((id_of("lifecyclestage"), "lead".to_owned()));
        }
        Ok(())
    }

    /// A refusal in HubSpot's words. `tell` is whether a conflict names the record in the way.
    pub(super) fn refuse(&self, kind: usize, refusal: Refusal, tell: bool) -> Box<ApiError> {
        let own = self.at(kind);
        let upper = own.singular.to_uppercase();
        match refusal {
            Refusal::Invalid(all) => invalid_values(&all, self.settings.portal_id),
            Refusal::Conflict(existing) => {
                let mut singular = own.singular.clone();
                if let Some(first) = singular.get_mut(0..1) {
                    first.make_ascii_uppercase();
                }
                match existing.filter(|_| tell) {
                    Some(id) => ApiError::of(409, "CONFLICT", format!("{singular} already exists. Existing ID: {id}")),
                    None => ApiError::of(409, "CONFLICT", format!("{singular} already exists")),
                }
            }
            Refusal::Unset(names) => {
                ApiError::validation(format!("Error creating {upper}. Some required properties were not set."))
                    .context("properties", names)
            }
            Refusal::Required(names) => {
                let mut error = ApiError::validation("The property values provided are invalid");
                error.errors = names
                    .iter()
                    .map(|name| {
                        json!({"message": format!("A value for {name} must be provided"),
                            "code": "MISSING_REQUIRED_PROPERTY", "context": {"propertyName": [name]}})
                    })
                    .collect();
                error
            }
            Refusal::Association => {
                ApiError::validation("One or more associations are invalid").sub("INVALID_OBJECT_IDS")
            }
            Refusal::NotFound(id) => self.could_not_get(kind, vec![id]),
        }
    }

    pub(super) fn could_not_get(&self, kind: usize, ids: Vec<String>) -> Box<ApiError> {
        let upper = self.at(kind).singular.to_uppercase();
        let text =
            format!("Could not get some {upper} objects, they may be deleted or not exist. Check that ids are valid.");
        ApiError::of(404, "OBJECT_NOT_FOUND", text).context("ids", ids)
    }

    pub(super) fn ends_exist(&self, kind: usize, associations: &[AssociationInput]) -> bool {
        associations.iter().all(|one| {
            let id = one.to.id.0.parse::<u64>();
            !one.types.is_empty()
                && one.types.iter().all(|wanted| {
                    let to = self.associations.target(self, kind, wanted.association_type_id);
                    to.is_some_and(|to| id.as_ref().is_ok_and(|id| self.at(to).live(*id).is_some()))
                })
        })
    }

    pub(super) fn insert(&mut self, kind: usize, row: Row, associations: &[AssociationInput], now: i64) -> u64 {
        let id = self.new_id();
        let visible_at = self.visible_at(now);
        self.note(kind, id, "create", &row.changes, now);
        self.at_mut(kind).insert(id, row.changes, now, visible_at);
        self.counts.created += 1;
        for one in associations {
            let Ok(to_id) = one.to.id.0.parse::<u64>() else { continue };
            for wanted in &one.types {
                if let Some(to) = self.associations.target(self, kind, wanted.association_type_id) {
                    self.link(kind, id, to, to_id, wanted.association_type_id);
                }
            }
        }
        id
    }

    pub(super) fn write(&mut self, kind: usize, id: u64, row: Row, now: i64) {
        let visible_at = self.visible_at(now);
        let touch = self.settings.unsettled.unchanged_write_moves_modified;
        self.note(kind, id, "update", &row.changes, now);
        self.at_mut(kind).update(id, row.changes, now, visible_at, touch);
        self.counts.updated += 1;
    }
}

/// JSON inside the message, and the same as data beside it.
pub(crate) fn invalid_values(all: &[Invalid], portal_id: u64) -> Box<ApiError> {
    let inner: Vec<Value> = all.iter().map(|one| one.inner(portal_id)).collect();
    let mut error = ApiError::validation(format!("Property values were not valid: {}", Value::Array(inner)));
    error.errors = all.iter().map(Invalid::detail).collect();
    error
}

/// The scopes of which one is needed to touch records of a type.
pub(crate) fn scopes(kind: &Kind, access: &str) -> Vec<String> {
    match kind.id.as_str() {
        "0-5" => vec!["tickets".to_owned()],
        "0-7" | "0-8" => vec![format!("crm.objects.{}.{access}", kind.plural), "e-commerce".to_owned()],
        // People who may see contacts may see what was said to them.
        "0-18" | "0-27" | "0-46" | "0-47" | "0-48" | "0-49" => {
            vec![format!("crm.objects.{}.{access}", kind.plural), format!("crm.objects.contacts.{access}")]
        }
        id if id.starts_with("2-") => vec![format!("crm.objects.custom.{access}")],
        _ => vec![format!("crm.objects.{}.{access}", kind.plural)],
    }
}

/// Used by search, which shows a version of its own.
pub(crate) fn write_seen(own: &Kind, record: &Record, seen: Seen, show: &[u16], portal_id: u64) -> Vec<u8> {
    own.write(record, seen, &shown(show), portal_id, "")
}
