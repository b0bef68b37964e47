//! One line of OpenCDC, read: what happened to which record. Pure.
//!
//! Lenient where Conduit's connectors differ from each other (raw or structured data, ids as numbers or texts, floats for whole numbers),
//! strict where a guess could write to the wrong record.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use crate::{capture::change::Operation, codes, hubspot::resources::Resource, record::Reason};

/// Raw data with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Floats beyond this are not exact: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// One record of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) operation: Operation,
    /// Its fields; a bare value stands under `id`. `None` where the record has no key.
    pub(super) key: Option<Map<String, Value>>,
    pub(super) before: Option<Map<String, Value>>,
    pub(super) after: Option<Map<String, Value>>,
    /// hubferry captured it: its ids are those of the account that it was captured from.
    pub(super) captured: bool,
}

/// Reads a line for an import of `resource`. The reason never quotes a value.
pub(super) fn decode(line: &str, resource: &Resource) -> Result<Record, Reason> {
    // Only the place is told: the parser's own words can quote the line.
    let mut line: Map<String, Value> = match serde_json::from_str(line) {
        Ok(Value::Object(line)) => line,
        Ok(_) => return Err(Reason::new(codes::INVALID_JSON, "the line is not a JSON object")),
        Err(error) => {
            let message = format!("the line is not a JSON object: it cannot be read from byte {} on", error.column());
            return Err(Reason::new(codes::INVALID_JSON, message));
        }
    };
    let operation = match line.get("operation").and_then(Value::as_str).map(str::trim) {
        Some(name) => Operation::ALL.into_iter().find(|operation| operation.as_str().eq_ignore_ascii_case(name)),
        None => None,
    };
    let Some(operation) = operation else {
        let message = match line.get("operation") {
            None => "the record has no `operation`",
            Some(_) => "the record's `operation` is none of create, update, delete and snapshot",
        };
        return Err(Reason::new(codes::OPERATION_UNKNOWN, message));
    };
    let metadata = line.get("metadata").and_then(Value::as_object);
    let told = |name: &str| metadata.and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
    if let Some(collection) = told("opencdc.collection").filter(|name| !name.trim().is_empty())
        && !is_of(collection, resource)
    {
        let message = format!(
            "the record's `opencdc.collection` is another resource's; this import delivers {}",
            resource.collection()
        );
        return Err(Reason::new(codes::COLLECTION_FOREIGN, message));
    }
    let captured = metadata.is_some_and(|metadata| metadata.keys().any(|name| name.starts_with("hubferry.")));
    let key = key_of(line.remove("key"))?;
    let mut payload = match line.remove("payload") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(payload)) => payload,
        Some(_) => return Err(malformed("`payload` is not an object")),
    };
    let before = data("payload.before", payload.remove("before"))?;
    let after = data("payload.after", payload.remove("after"))?;
    if after.is_none() && operation != Operation::Delete {
        let article = if operation == Operation::Update { "an" } else { "a" };
        let message = format!("the record is {article} {} and has no `payload.after`", operation.as_str());
        return Err(Reason::new(codes::PAYLOAD_MISSING, message));
    }
    Ok(Record { operation, key, before, after, captured })
}

/// Whether records of this collection are the import's. Custom objects are called by ids that differ from account to account: any two may
/// be the same.
fn is_of(collection: &str, resource: &Resource) -> bool {
    let Ok(theirs) = Resource::parse(collection) else { return false };
    match (&theirs, resource) {
        (Resource::Crm(theirs), Resource::Crm(ours)) => {
            theirs.object == ours.object || (is_custom(theirs.object.as_str()) && is_custom(ours.object.as_str()))
        }
        (theirs, ours) => theirs == ours,
    }
}

/// `2-123`, or `p1_car`.
fn is_custom(object: &str) -> bool {
    let numbered = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    object.strip_prefix("2-").is_some_and(numbered)
        || object.strip_prefix('p').and_then(|rest| rest.split_once('_')).is_some_and(|(number, _)| numbered(number))
}

fn malformed(what: impl Into<String>) -> Reason {
    Reason::new(codes::RECORD_MALFORMED, what)
}

fn raw(name: &str, text: &str) -> Result<Vec<u8>, Reason> {
    BASE64.decode(text.trim()).map_err(|_| malformed(format!("`{name}` is text, and no base64")))
}

fn key_of(key: Option<Value>) -> Result<Option<Map<String, Value>>, Reason> {
    let bare = |value: Value| Map::from_iter([("id".to_owned(), value)]);
    match key {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(key)) => Ok((!key.is_empty()).then_some(key)),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => {
            let bytes = raw("key", &text)?;
            // Bytes may be JSON themselves, or an id as it is.
            match serde_json::from_slice::<Value>(&bytes) {
                Ok(Value::Object(key)) => Ok((!key.is_empty()).then_some(key)),
                Ok(value @ (Value::String(_) | Value::Number(_))) => Ok(Some(bare(value))),
                Ok(Value::Null) => Ok(None),
                Ok(_) => Err(malformed("`key` is neither fields nor an id")),
                Err(_) => match String::from_utf8(bytes) {
                    Ok(text) => Ok(Some(bare(text.into()))),
                    Err(_) => Err(malformed("`key` holds bytes that are no text")),
                },
            }
        }
        Some(_) => Err(malformed("`key` is neither text nor an object")),
    }
}

fn data(name: &str, value: Option<Value>) -> Result<Option<Map<String, Value>>, Reason> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(members)) => Ok(Some(members)),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => match serde_json::from_slice(&raw(name, &text)?) {
            Ok(Value::Object(members)) => Ok(Some(members)),
            Ok(Value::Null) => Ok(None),
            _ => Err(malformed(format!("`{name}` holds bytes that are no JSON object"))),
        },
        Some(_) => Err(malformed(format!("`{name}` is neither text nor an object"))),
    }
}

impl Record {
    /// The value of the key's single field, with its name. Of several fields only an id can be told.
    pub(super) fn key_field(&self) -> Result<Option<(&str, String)>, Reason> {
        let Some(key) = &self.key else { return Ok(None) };
        let mut fields = key.iter();
        let field = match (fields.next(), fields.next()) {
            (Some(field), None) => Some((field.0.as_str(), field.1)),
            _ => ["id", "hs_object_id"].into_iter().find_map(|name| Some((name, key.get(name)?))),
        };
        let Some((name, value)) = field else {
            return Err(malformed("`key` has several fields, and none of them is `id`"));
        };
        if !matches!(value, Value::String(_) | Value::Number(_) | Value::Null) {
            return Err(malformed("the field of `key` is neither text nor a number"));
        }
        Ok(text_of(value).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).map(|text| (name, text)))
    }
}

/// A value as HubSpot's properties have it: text as it is, whole numbers without a fraction, `true` and `false`. `None` for the rest.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_MAX => format!("{float:.0}"),
            _ => number.to_string(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn contacts() -> Resource {
        Resource::parse("crm.contacts").unwrap()
    }

    fn code(line: &Value) -> String {
        decode(&line.to_string(), &contacts()).unwrap_err().code.into()
    }

    fn id(key: Value) -> Option<String> {
        let line = json!({"operation": "delete", "key": key, "payload": null});
        let record = decode(&line.to_string(), &contacts()).unwrap();
        record.key_field().unwrap().map(|(_, id)| id)
    }

    #[test]
    fn keys_are_read_however_they_are_written() {
        for key in [
            json!({"id": "256"}),
            json!({"id": 256}),
            json!({"id": 256.0}),
            json!({"vid": " 256 "}),
            json!({"id": "256", "portal": 1}),
            json!("MjU2"),
            json!("eyJpZCI6IjI1NiJ9"),
            json!("eyJpZCI6MjU2LjB9"),
            json!("IjI1NiI"),
        ] {
            assert_eq!(id(key.clone()).as_deref(), Some("256"), "{key}");
        }
        for key in [json!(null), json!({}), json!({"id": null}), json!({"id": ""}), json!("")] {
            assert_eq!(id(key.clone()), None, "{key}");
        }
    }

    #[test]
    fn raw_and_structured_payloads_are_the_same() {
        let raw = BASE64.encode(json!({"properties": {"city": "Bonn"}}).to_string());
        let one = json!({"operation": "create", "key": null, "payload": {"before": null, "after": raw}});
        let two = json!({"operation": "create", "payload": {"after": {"properties": {"city": "Bonn"}}}});
        let decode = |line: &Value| decode(&line.to_string(), &contacts()).unwrap();
        assert_eq!(decode(&one), decode(&two));
        assert_eq!(decode(&two).after.unwrap()["properties"]["city"], "Bonn");
    }

    #[test]
    fn what_is_wrong_with_a_record_is_told_by_its_code() {
        let after = json!({"after": {"properties": {}}});
        assert_eq!(code(&json!([])), "INVALID_JSON");
        assert_eq!(code(&json!({"payload": after})), "OPERATION_UNKNOWN");
        assert_eq!(code(&json!({"operation": "merge", "payload": after})), "OPERATION_UNKNOWN");
        assert_eq!(code(&json!({"operation": "update", "key": {"id": 1}})), "PAYLOAD_MISSING");
        assert_eq!(code(&json!({"operation": "update", "key": 7, "payload": after})), "RECORD_MALFORMED");
        assert_eq!(code(&json!({"operation": "update", "key": "§", "payload": after})), "RECORD_MALFORMED");
        assert_eq!(code(&json!({"operation": "update", "payload": {"after": "MjU2"}})), "RECORD_MALFORMED");
        let of =
            |name: &str| json!({"operation": "create", "metadata": {"opencdc.collection": name}, "payload": after});
        assert_eq!(code(&of("crm.deals")), "COLLECTION_FOREIGN");
        assert_eq!(code(&of("cms.nothing")), "COLLECTION_FOREIGN");
        for same in ["crm.contacts", "contacts", "0-1", ""] {
            assert!(decode(&of(same).to_string(), &contacts()).is_ok(), "{same}");
        }
        let cars = Resource::parse("crm.2-7").unwrap();
        assert!(decode(&of("crm.2-9").to_string(), &cars).is_ok(), "a custom object is another number elsewhere");
        assert!(decode(&of("crm.deals").to_string(), &cars).is_err());
    }

    #[test]
    fn a_key_of_several_fields_without_an_id_is_refused() {
        let line = json!({"operation": "delete", "key": {"a": 1, "b": 2}}).to_string();
        assert_eq!(&*decode(&line, &contacts()).unwrap().key_field().unwrap_err().code, "RECORD_MALFORMED");
    }

    #[test]
    fn values_are_texts_as_hubspot_takes_them() {
        let text = |value: Value| text_of(&value);
        assert_eq!(text(json!(1.0)).as_deref(), Some("1"));
        assert_eq!(text(json!(1.25)).as_deref(), Some("1.25"));
        assert_eq!(text(json!(171_591_000_198_u64)).as_deref(), Some("171591000198"));
        assert_eq!(text(json!(true)).as_deref(), Some("true"));
        assert_eq!((text(json!(null)), text(json!([1]))), (None, None));
    }

    proptest! {
        /// Whatever a line holds: a record or a reason, and the reason does not quote the line.
        #[test]
        fn no_line_is_too_strange(line in ".{0,60}", secret in "[a-z]{12}") {
            let _ = decode(&line, &contacts());
            let told = json!({"operation": secret, "key": secret, "payload": {"after": secret}}).to_string();
            let reason = decode(&told, &contacts()).unwrap_err();
            prop_assert!(!reason.reason.contains(&secret));
        }
    }
}
