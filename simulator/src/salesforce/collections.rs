//! sObject Collections: up to 200 records a call, one result each, in the order of the request.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError, Handled};
use super::write::{Undo, Writer};
use super::{Call, Org, ids};

/// Records of one call.
const RECORDS_MAX: usize = 200;
/// Runs of records of one type in a call.
const CHUNKS_MAX: usize = 10;
/// Ids of one retrieval.
const RETRIEVE_MAX: usize = 2_000;

/// Id and whether it is new, or why not.
type Done = Handled<(String, Option<bool>)>;

/// A record's table and values.
type Sent = (usize, Map<String, Value>);

impl Org {
    pub(super) fn collections(&mut self, call: &Call<'_>) -> Handled {
        match (call.method, call.path.get(2..).unwrap_or_default()) {
            ("POST", []) => {
                let (records, all_or_none) = self.records(call)?;
                let writer = self.writer(call);
                self.each(call, &records, all_or_none, |org, (table, values), undo| {
                    if values.keys().any(|name| name.eq_ignore_ascii_case("id")) {
                        let message = "cannot specify Id in an insert call";
                        return Err(ApiError::bad("INVALID_FIELD_FOR_INSERT_UPDATE", message).on(&["Id"]));
                    }
                    Ok((org.save(*table, None, values, &writer, Some(undo))?, None))
                })
            }
            ("PATCH", []) => {
                let (records, all_or_none) = self.records(call)?;
                let writer = self.writer(call);
                let id_of = |values: &Map<String, Value>| {
                    let id = values.iter().find(|(name, _)| name.eq_ignore_ascii_case("id"));
                    id.and_then(|(_, id)| id.as_str()).filter(|id| !id.is_empty()).map(str::to_owned)
                };
                let twice = twice(records.iter().map(|(_, values)| id_of(values).and_then(|id| ids::full(&id))));
                self.each(call, &records, all_or_none, |org, (table, values), undo| {
                    let Some(id) = id_of(values) else {
                        return Err(ApiError::bad("MISSING_ARGUMENT", "Id not specified in an update call"));
                    };
                    let id =
                        ids::full(&id).ok_or_else(|| ApiError::bad("MALFORMED_ID", format!("malformed id {id}")))?;
                    if twice.contains_key(&id) {
                        return Err(ApiError::bad("DUPLICATE_VALUE", format!("duplicate id specified: {id}")));
                    }
                    match org.save(*table, Some(&id), values, &writer, Some(undo)) {
                        Ok(id) => Ok((id, None)),
                        Err(error) if error.code == "NOT_FOUND" => {
                            Err(ApiError::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"))
                        }
                        Err(error) => Err(error),
                    }
                })
            }
            ("PATCH", [object, field]) => self.upserts(call, object, field),
            ("DELETE", []) => {
                let list: Vec<String> =
                    call.parameter("ids").unwrap_or_default().split(',').map(str::to_owned).collect();
                let list: Vec<String> = list.into_iter().filter(|id| !id.is_empty()).collect();
                bounded(list.len())?;
                let all_or_none = call.parameter("allOrNone").is_some_and(|text| text.eq_ignore_ascii_case("true"));
                let writer = self.writer(call);
                self.each(call, &list, all_or_none, |org, id, undo| {
                    let full =
                        ids::full(id).ok_or_else(|| ApiError::bad("MALFORMED_ID", format!("malformed id {id}")))?;
                    let table = org.tables.iter().position(|table| table.kind.prefix == full[..3]);
                    let wrong = || ApiError::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id");
                    match org.remove(table.ok_or_else(wrong)?, &full, None, &writer, Some(undo)) {
                        Ok(()) => Ok((full, None)),
                        Err(error) if error.code == "NOT_FOUND" => Err(wrong()),
                        Err(error) => Err(error),
                    }
                })
            }
            ("POST" | "GET", [object]) => self.retrieve(call, object),
            _ => Err(ApiError::not_found()),
        }
    }

    fn upserts(&mut self, call: &Call<'_>, object: &str, name: &str) -> Handled {
        if call.version < 46 {
            return Err(ApiError::not_found());
        }
        let only = self.object(object)?;
        let at = self.external(only, name)?;
        let field = self.tables[only].kind.fields[at].name.clone();
        let (records, all_or_none) = self.records(call)?;
        let writer = self.writer(call);
        let key_of = |values: &Map<String, Value>| {
            let value = values.iter().find(|(name, _)| name.eq_ignore_ascii_case(&field))?.1;
            let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim().to_owned());
            (!value.is_null() && !text.is_empty()).then_some(text)
        };
        let twice = twice(records.iter().map(|(_, values)| key_of(values).map(|key| key.to_lowercase())));
        self.each(call, &records, all_or_none, |org, (table, values), undo| {
            if *table != only {
                return Err(ApiError::bad("INVALID_TYPE", "all records have to be of the type in the address"));
            }
            if values.keys().any(|name| name.eq_ignore_ascii_case("id")) {
                return Err(
                    ApiError::bad("INVALID_FIELD", "Id may not be given together with an external id").on(&["Id"])
                );
            }
            let Some(key) = key_of(values) else {
                return Err(ApiError::bad("MISSING_ARGUMENT", format!("{field} not specified")));
            };
            if twice.contains_key(&key.to_lowercase()) {
                return Err(ApiError::bad("DUPLICATE_VALUE", format!("Duplicate external id specified: {key}")));
            }
            let matches = org.tables[only].find(at, &key);
            match matches.as_slice() {
                [] => Ok((org.save(only, None, values, &writer, Some(undo))?, Some(true))),
                [id] => {
                    let mut rest = values.clone();
                    rest.retain(|name, _| !name.eq_ignore_ascii_case(&field));
                    Ok((org.save(only, Some(id), &rest, &writer, Some(undo))?, Some(false)))
                }
                _ => {
                    let message = format!("{field}: more than one record found for external id field");
                    Err(ApiError::bad("DUPLICATE_EXTERNAL_ID", message))
                }
            }
        })
    }

    /// The records of a body with their tables, and `allOrNone`.
    fn records(&self, call: &Call<'_>) -> Handled<(Vec<Sent>, bool)> {
        let body = call.json()?;
        let list = body.get("records").and_then(Value::as_array);
        let list = list.ok_or_else(|| ApiError::bad("JSON_PARSER_ERROR", "records is missing"))?;
        bounded(list.len())?;
        let mut all = Vec::with_capacity(list.len());
        let mut chunks = 0;
        let mut last = None;
        for record in list {
            let values = super::rows::object_of(record.clone())?;
            let name = values.get("attributes").and_then(|one| one.get("type")).and_then(Value::as_str);
            let name = name.ok_or_else(|| {
                ApiError::bad("INVALID_INPUT", "Include an entity type in the attributes of each record")
            })?;
            let table = self
                .table_at(name)
                .ok_or_else(|| ApiError::bad("INVALID_TYPE", format!("sObject type '{name}' is not supported.")))?;
            if last != Some(table) {
                chunks += 1;
                last = Some(table);
            }
            self.check_shape(table, &values)?;
            all.push((table, values));
        }
        if chunks > CHUNKS_MAX {
            return Err(ApiError::bad("INVALID_INPUT", "more than 10 chunks of records of one type"));
        }
        let all_or_none = body.get("allOrNone").and_then(Value::as_bool).unwrap_or(false);
        Ok((all, all_or_none))
    }

    /// Does one thing after the other and answers with a result each.
    fn each<T>(
        &mut self,
        call: &Call<'_>,
        items: &[T],
        all_or_none: bool,
        mut act: impl FnMut(&mut Self, &T, &mut Undo) -> Done,
    ) -> Handled {
        let mut undo = self.begin();
        let done: Vec<Done> = items.iter().map(|item| act(self, item, &mut undo)).collect();
        let rolled_back = all_or_none && done.iter().any(Result::is_err);
        if rolled_back {
            self.roll_back(undo, call.now);
        }
        let results: Vec<Value> = (done.into_iter())
            .map(|done| match done {
                Ok((id, _)) if rolled_back => json!({"id": id, "success": false, "errors": [{
                    "statusCode": "ALL_OR_NONE_OPERATION_ROLLED_BACK", "fields": [],
                    "message": "Record rolled back because not all records were valid and the request was using AllOrNone header"}]}),
                Ok((id, None)) => json!({"id": id, "success": true, "errors": []}),
                Ok((id, Some(created))) => json!({"id": id, "success": true, "errors": [], "created": created}),
                Err(error) => json!({"success": false, "errors": [error.item()]}),
            })
            .collect();
        Ok(Answer::json(200, &Value::Array(results)))
    }

    fn retrieve(&self, call: &Call<'_>, object: &str) -> Handled {
        let table = self.object(object)?;
        let texts = |value: Option<&Value>| -> Vec<String> {
            value
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|one| Some(one.as_str()?.to_owned()))
                .collect()
        };
        let (list, fields) = if call.method == "GET" {
            let split = |name: &str| -> Vec<String> {
                call.parameter(name)
                    .unwrap_or_default()
                    .split(',')
                    .filter(|one| !one.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            (split("ids"), split("fields"))
        } else {
            let body = call.json()?;
            (texts(body.get("ids")), texts(body.get("fields")))
        };
        if list.is_empty() || list.len() > RETRIEVE_MAX {
            return Err(ApiError::bad("INVALID_INPUT", "between 1 and 2000 ids are needed"));
        }
        let own = &self.tables[table];
        let mut ats = vec![super::store::ID];
        for name in &fields {
            let at = own.at(name).filter(|at| !self.is_hidden(table, *at));
            let unknown = || {
                ApiError::bad("INVALID_FIELD", format!("No such column '{name}' on sobject of type {}", own.kind.name))
            };
            ats.push(at.ok_or_else(unknown)?);
        }
        let records: Vec<Value> = (list.iter())
            .map(|id| {
                let record = ids::full(id).and_then(|id| own.live(&id));
                let Some(record) = record else { return Value::Null };
                let mut all = self.attributes(table, &record.cells, &call.base());
                for at in &ats {
                    if let Some(field) = own.field(*at) {
                        all.insert(field.name.clone(), own.shown(&record.cells, *at));
                    }
                }
                Value::Object(all)
            })
            .collect();
        Ok(Answer::json(200, &Value::Array(records)))
    }

    /// Changes rows of a Bulk job as a collection would be.
    pub(super) fn save_row(
        &mut self,
        table: usize,
        key: Option<usize>,
        operation: &str,
        values: &Map<String, Value>,
        writer: &Writer,
    ) -> Done {
        let id = values
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("id"))
            .and_then(|(_, id)| id.as_str())
            .map(str::to_owned);
        let missing = || ApiError::bad("MISSING_ARGUMENT", "Id not specified in an update call");
        self.check_shape(table, values)?;
        match (operation, key) {
            ("insert", _) => Ok((self.save(table, None, values, writer, None)?, Some(true))),
            ("update", _) => Ok((self.save(table, Some(&id.ok_or_else(missing)?), values, writer, None)?, Some(false))),
            ("delete" | "hardDelete", _) => {
                let id = id.ok_or_else(missing)?;
                self.remove(table, &id, None, writer, None)?;
                let full = ids::full(&id).unwrap_or(id);
                if operation == "hardDelete" {
                    self.tables[table].purge(&full);
                }
                Ok((full, Some(false)))
            }
            (_, Some(at)) => {
                let field = self.tables[table].kind.fields[at].name.clone();
                let text = values
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(&field))
                    .and_then(|(_, value)| value.as_str());
                let text = text.filter(|text| !text.is_empty()).map(str::to_owned);
                let text = text.ok_or_else(|| ApiError::bad("MISSING_ARGUMENT", format!("{field} not specified")))?;
                let mut rest = values.clone();
                match self.tables[table].find(at, &text).as_slice() {
                    [] => Ok((self.save(table, None, &rest, writer, None)?, Some(true))),
                    [id] => {
                        rest.retain(|name, _| !name.eq_ignore_ascii_case(&field));
                        Ok((self.save(table, Some(id), &rest, writer, None)?, Some(false)))
                    }
                    _ => Err(ApiError::bad("DUPLICATE_EXTERNAL_ID", format!("{field}: more than one record found"))),
                }
            }
            _ => Err(ApiError::bad("INVALID_OPERATION", "operation is not supported")),
        }
    }
}

fn bounded(count: usize) -> Handled<()> {
    match count {
        0 => Err(ApiError::bad("REQUIRED_FIELD_MISSING", "At least 1 record is required")),
        1..=RECORDS_MAX => Ok(()),
        _ => Err(ApiError::bad(
            "EXCEEDED_MAX_COLLECTION_SIZE",
            "record limit reached. cannot submit more than 200 records in this request",
        )),
    }
}

/// Those that occur more than once.
fn twice(keys: impl Iterator<Item = Option<String>>) -> HashMap<String, usize> {
    let mut all: HashMap<String, usize> = HashMap::new();
    for key in keys.flatten() {
        *all.entry(key).or_default() += 1;
    }
    all.retain(|_, count| *count > 1);
    all
}
