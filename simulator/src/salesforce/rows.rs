//! One record at a time: by id, or by an external id.

use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError, Handled};
use super::metadata::http_date;
use super::store::MODIFIED;
use super::write::Writer;
use super::{Call, Org, ids};

impl Org {
    /// Who writes in a call.
    pub(super) fn writer(&self, call: &Call<'_>) -> Writer {
        let allow = call.header("sforce-duplicate-rule-header").is_some_and(|text| {
            text.split([';', ',']).any(|part| part.replace(' ', "").eq_ignore_ascii_case("allowSave=true"))
        });
        Writer { now: call.now, user: call.caller.user.clone(), person: false, allow_duplicates: allow }
    }

    pub(super) fn rows(&mut self, call: &Call<'_>) -> Handled {
        let Some(object) = call.path.get(1) else { return Err(ApiError::not_found()) };
        let table = self.object(object)?;
        match (call.method, call.path.get(2..).unwrap_or_default()) {
            ("GET", []) => Ok(Answer::json(200, &json!({"objectDescribe": {"name": object}, "recentItems": []}))),
            ("POST", []) => {
                let values = object_of(call.json()?)?;
                if values.keys().any(|name| name.eq_ignore_ascii_case("id")) {
                    return Err(ApiError::bad(
                        "INVALID_FIELD",
                        "The Id field should not be specified in the sobject data.",
                    )
                    .on(&["Id"]));
                }
                self.check_shape(table, &values)?;
                let id = self.save(table, None, &values, &self.writer(call), None)?;
                Ok(Answer::json(201, &json!({"id": id, "success": true, "errors": []})))
            }
            (method, [id]) => {
                let id = self.known(table, id)?;
                match method {
                    "GET" => self.read(call, table, &id),
                    "PATCH" => self.change(call, table, &id, &object_of(call.json()?)?).map(|()| Answer::empty(204)),
                    "DELETE" => {
                        let writer = self.writer(call);
                        self.remove(table, &id, None, &writer, None).map(|()| Answer::empty(204))
                    }
                    _ => Err(method_not_allowed(method)),
                }
            }
            (method, [field, value]) => self.by_key(call, method, table, field, value),
            (method, _) => Err(method_not_allowed(method)),
        }
    }

    /// The full id of a record that is or was there.
    fn known(&self, table: usize, id: &str) -> Handled<String> {
        let malformed = || {
            ApiError::new(
                404,
                "NOT_FOUND",
                "Provided external ID field does not exist or is not accessible: ".to_owned() + id,
            )
        };
        let id = ids::full(id).ok_or_else(malformed)?;
        if !self.tables[table].records.contains_key(&id) {
            return Err(ApiError::not_found());
        }
        Ok(id)
    }

    fn read(&self, call: &Call<'_>, table: usize, id: &str) -> Handled {
        let own = &self.tables[table];
        let record = own.records.get(id).ok_or_else(ApiError::not_found)?;
        if record.is_deleted() {
            return Err(ApiError::deleted());
        }
        if let Some(since) = call.header("if-modified-since").and_then(http_date)
            && record.time(MODIFIED) <= since
        {
            return Ok(Answer::empty(304));
        }
        let ats: Vec<usize> = match call.parameter("fields") {
            Some(names) => (names.split(','))
                .map(|name| {
                    let at = own.at(name.trim()).filter(|at| !self.is_hidden(table, *at));
                    at.ok_or_else(|| {
                        let message = format!("No such column '{name}' on sobject of type {}", own.kind.name);
                        ApiError::bad("INVALID_FIELD", message)
                    })
                })
                .collect::<Handled<_>>()?,
            None => (0..own.kind.fields.len()).filter(|at| !self.is_hidden(table, *at)).collect(),
        };
        let mut all = self.attributes(table, &record.cells, &call.base());
        for at in ats.into_iter().chain([super::store::ID]) {
            if let Some(field) = own.field(at) {
                all.insert(field.name.clone(), own.shown(&record.cells, at));
            }
        }
        Ok(Answer::json(200, &Value::Object(all)))
    }

    fn change(&mut self, call: &Call<'_>, table: usize, id: &str, values: &Map<String, Value>) -> Handled<()> {
        if values.keys().any(|name| name.eq_ignore_ascii_case("id")) {
            return Err(
                ApiError::bad("INVALID_FIELD", "The Id field should not be specified in the sobject data.").on(&["Id"])
            );
        }
        if let Some(text) = call.header("if-unmodified-since") {
            let since = http_date(text)
                .ok_or_else(|| ApiError::bad("INVALID_HEADER_VALUE", "If-Unmodified-Since is not an HTTP date"))?;
            if let Some(record) = self.tables[table].live(id)
                && record.time(MODIFIED) > since
            {
                return Err(ApiError::new(412, "PRECONDITION_FAILED", "The record was modified since the given date"));
            }
        }
        self.check_shape(table, values)?;
        self.save(table, Some(id), values, &self.writer(call), None).map(|_| ())
    }

    /// The field to upsert by, or what Salesforce answers about one that it cannot use.
    pub(super) fn external(&self, table: usize, name: &str) -> Handled<usize> {
        let own = &self.tables[table];
        let at = own.at(name).filter(|at| own.kind.fields[*at].external_id && !self.is_hidden(table, *at));
        at.ok_or_else(|| {
            ApiError::new(
                404,
                "NOT_FOUND",
                format!("Provided external ID field does not exist or is not accessible: {name}"),
            )
        })
    }

    fn by_key(&mut self, call: &Call<'_>, method: &str, table: usize, name: &str, value: &str) -> Handled {
        if name.eq_ignore_ascii_case("id") {
            let id = self.known(table, value)?;
            return match method {
                "PATCH" => {
                    self.change(call, table, &id, &object_of(call.json()?)?)?;
                    Ok(Answer::json(200, &json!({"id": id, "success": true, "errors": [], "created": false})))
                }
                _ => Err(method_not_allowed(method)),
            };
        }
        let at = self.external(table, name)?;
        let field = self.tables[table].kind.fields[at].name.clone();
        let matches = self.tables[table].find(at, value);
        if matches.len() > 1 {
            let object = &self.tables[table].kind.name;
            let paths: Vec<String> =
                matches.iter().map(|id| format!("{}/sobjects/{object}/{id}", call.base())).collect();
            return Ok(Answer::json(300, &json!(paths)));
        }
        match (method, matches.first()) {
            ("GET", Some(id)) => self.read(call, table, id),
            ("DELETE", Some(id)) => {
                let writer = self.writer(call);
                self.remove(table, id, None, &writer, None).map(|()| Answer::empty(204))
            }
            ("PATCH", found) => {
                let mut values = object_of(call.json()?)?;
                if values.keys().any(|name| name.eq_ignore_ascii_case(&field)) {
                    let message = format!("The {field} field should not be specified in the sobject data.");
                    return Err(ApiError::bad("INVALID_FIELD", message).on(&[&field]));
                }
                match found {
                    Some(id) => {
                        self.change(call, table, id, &values)?;
                        if call.version <= 45 {
                            return Ok(Answer::empty(204));
                        }
                        Ok(Answer::json(200, &json!({"id": id, "errors": [], "success": true, "created": false})))
                    }
                    None if call.parameter("updateOnly").is_some_and(|text| text.eq_ignore_ascii_case("true")) => {
                        Err(ApiError::not_found())
                    }
                    None => {
                        self.check_shape(table, &values)?;
                        values.insert(field, json!(value));
                        let id = self.save(table, None, &values, &self.writer(call), None)?;
                        Ok(Answer::json(201, &json!({"id": id, "errors": [], "success": true, "created": true})))
                    }
                }
            }
            ("GET" | "DELETE", None) => Err(ApiError::not_found()),
            (method, _) => Err(method_not_allowed(method)),
        }
    }
}

pub(super) fn object_of(value: Value) -> Handled<Map<String, Value>> {
    match value {
        Value::Object(values) => Ok(values),
        _ => Err(ApiError::bad("JSON_PARSER_ERROR", "Can not deserialize SObject out of START_ARRAY token")),
    }
}

fn method_not_allowed(method: &str) -> Box<ApiError> {
    ApiError::new(405, "METHOD_NOT_ALLOWED", format!("HTTP Method '{method}' not allowed."))
}
