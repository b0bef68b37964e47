//! A strict reader of OpenCDC v1 as JSON, and what it says about what a capture writes.
//!
//! It is written from the format's definition, not from the writer: whatever a consumer may rely on is an error here where it is missing.

use std::{collections::BTreeMap, fmt, rc::Rc};

use base64::{Engine, engine::general_purpose::STANDARD};
use hubferry::{
    capture::{
        change::{Cause, Change, Operation},
        output::{Columns, Layout},
    },
    config::{CaptureFormat, Compression},
};
use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

/// The members of a record, in their order.
const MEMBERS: [&str; 5] = ["position", "operation", "metadata", "key", "payload"];

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Identifies the record; opaque to a consumer.
    pub(crate) position: Vec<u8>,
    /// What happened.
    pub(crate) operation: Operation,
    /// By name.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Identifies the entity.
    pub(crate) key: Option<Data>,
    /// The entity before it happened.
    pub(crate) before: Option<Data>,
    /// The entity after it.
    pub(crate) after: Option<Data>,
}

/// A key or a payload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    /// Bytes.
    Raw(Vec<u8>),
    /// Members.
    Structured(Map<String, Value>),
}

impl Record {
    /// The id, of a record whose key is `{"id": …}`.
    pub(crate) fn id(&self) -> Option<&str> {
        match self.key.as_ref()? {
            Data::Structured(key) if key.len() == 1 => key.get("id")?.as_str(),
            _ => None,
        }
    }

    /// The members after it happened.
    pub(crate) fn after(&self) -> Option<&Map<String, Value>> {
        match self.after.as_ref()? {
            Data::Structured(after) => Some(after),
            Data::Raw(_) => None,
        }
    }

    /// A metadata value.
    pub(crate) fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    /// The position as JSON.
    pub(crate) fn position(&self) -> Option<Value> {
        serde_json::from_slice(&self.position).ok()
    }
}

/// All records of an object, inflated: one a line, each line ended.
pub(crate) fn decode_all(text: &str) -> Result<Vec<Record>, String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line is not ended".to_owned());
    }
    let lines = text.split_terminator('\n').enumerate();
    lines.map(|(at, line)| decode(line).map_err(|error| format!("line {}: {error}", at + 1))).collect()
}

/// One record.
pub(crate) fn decode(line: &str) -> Result<Record, String> {
    let Strict(Value::Object(mut record)) = serde_json::from_str(line).map_err(|error| error.to_string())? else {
        return Err("a record is an object".to_owned());
    };
    let names: Vec<&str> = record.keys().map(String::as_str).collect();
    if names != MEMBERS {
        return Err(format!("the members are {names:?}"));
    }
    let mut take = |name: &str| record.remove(name).unwrap_or_default();

    let position = match take("position") {
        Value::String(text) => bytes("position", &text)?,
        _ => return Err("position is no text".to_owned()),
    };
    if position.is_empty() {
        return Err("position is empty".to_owned());
    }
    let operation = match take("operation").as_str() {
        Some("create") => Operation::Create,
        Some("update") => Operation::Update,
        Some("delete") => Operation::Delete,
        Some("snapshot") => Operation::Snapshot,
        other => return Err(format!("unknown operation {other:?}")),
    };
    let metadata = metadata(take("metadata"))?;
    let key = data("key", take("key"))?;
    let Value::Object(mut payload) = take("payload") else {
        return Err("payload is no object".to_owned());
    };
    let names: Vec<&str> = payload.keys().map(String::as_str).collect();
    if names != ["before", "after"] {
        return Err(format!("the members of payload are {names:?}"));
    }
    let before = data("payload.before", payload.remove("before").unwrap_or_default())?;
    let after = data("payload.after", payload.remove("after").unwrap_or_default())?;
    if (operation == Operation::Delete) != after.is_none() {
        return Err(format!("payload.after does not go with {}", operation.as_str()));
    }
    if before.is_some() && matches!(operation, Operation::Create | Operation::Snapshot) {
        return Err(format!("payload.before does not go with {}", operation.as_str()));
    }
    Ok(Record { position, operation, metadata, key, before, after })
}

fn metadata(value: Value) -> Result<BTreeMap<String, String>, String> {
    let Value::Object(members) = value else { return Err("metadata is no object".to_owned()) };
    let mut metadata = BTreeMap::new();
    for (name, value) in members {
        let Value::String(text) = value else { return Err(format!("metadata {name} is no text")) };
        let nanoseconds = matches!(name.as_str(), "opencdc.createdAt" | "opencdc.readAt");
        if nanoseconds && text.parse::<i64>().map(|number| number.to_string()).as_ref() != Ok(&text) {
            return Err(format!("metadata {name} is no decimal number of nanoseconds"));
        }
        if name == "opencdc.version" && text != "v1" {
            return Err(format!("version {text}"));
        }
        if name.starts_with("conduit.") {
            return Err(format!("metadata {name} belongs to Conduit"));
        }
        metadata.insert(name, text);
    }
    match metadata.get("opencdc.version") {
        Some(_) => Ok(metadata),
        None => Err("metadata opencdc.version is missing".to_owned()),
    }
}

/// Text is bytes, an object is structured, null is nothing: what the first byte says.
fn data(name: &str, value: Value) -> Result<Option<Data>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => bytes(name, &text).map(|bytes| Some(Data::Raw(bytes))),
        Value::Object(members) => Ok(Some(Data::Structured(members))),
        _ => Err(format!("{name} is neither text nor an object nor null")),
    }
}

fn bytes(name: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("{name} is no base64: {error}"))
}

/// JSON in which no object has a member twice: readers differ in which one they take.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Strict(value))) = access.next_entry::<String, Strict>()? {
            if members.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("the member {name} appears twice")));
            }
        }
        Ok(members.into())
    }
}

fn contact(id: &str, properties: Value) -> Map<String, Value> {
    let contact = json!({
        "id": id, "properties": properties,
        "createdAt": "2026-01-02T03:04:05.678Z", "updatedAt": "2026-01-02T03:04:06.001Z", "archived": false,
    });
    contact.as_object().unwrap().clone()
}

fn change(operation: Operation) -> Change {
    Change {
        operation,
        cause: None,
        id: "256".to_owned(),
        created_at: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
        updated_at: Some("2026-01-02T03:04:06.001Z".parse().unwrap()),
        read_at: "2026-01-02T03:05:00.123456789Z".parse().unwrap(),
        before: None,
        after: (operation != Operation::Delete)
            .then(|| contact("256", json!({"email": "ada@example.com", "note": null}))),
        position: r#"{"mode":"snapshot","itemId":"256","initialTimestamp":"2026-01-02T03:04:50Z"}"#.to_owned(),
    }
}

fn encode(changes: &[Change]) -> String {
    let layout = Layout {
        format: CaptureFormat::Opencdc,
        compression: Compression::None,
        collection: "crm.contacts".to_owned(),
        columns: Rc::new(Columns::new([])),
    };
    let mut encoder = layout.encoder().unwrap();
    for change in changes {
        encoder.push(change).unwrap();
    }
    String::from_utf8(encoder.finish().unwrap().to_vec()).unwrap()
}

fn reads_back(change: &Change) -> Record {
    let text = encode(std::slice::from_ref(change));
    let mut records = decode_all(&text).unwrap();
    assert_eq!(records.len(), 1);
    records.remove(0)
}

#[test]
fn a_line_is_what_conduit_would_write() {
    let expected = concat!(
        r#"{"position":"eyJtb2RlIjoic25hcHNob3QiLCJpdGVtSWQiOiIyNTYiLCJpbml0aWFsVGltZXN0YW1wIjoiMjAyNi0wMS0wMlQwMzowNDo1MFoifQ==","#,
        r#""operation":"snapshot","metadata":{"hubferry.updatedAt":"2026-01-02T03:04:06.001Z","hubferry.version":""#,
        env!("CARGO_PKG_VERSION"),
        r#"","#,
        r#""opencdc.collection":"crm.contacts","opencdc.createdAt":"1767323045678000000","opencdc.readAt":"1767323100123456789","#,
        r#""opencdc.version":"v1"},"key":{"id":"256"},"payload":{"before":null,"after":{"id":"256","#,
        r#""properties":{"email":"ada@example.com","note":null},"createdAt":"2026-01-02T03:04:05.678Z","#,
        r#""updatedAt":"2026-01-02T03:04:06.001Z","archived":false}}}"#,
        "\n"
    );
    assert_eq!(encode(&[change(Operation::Snapshot)]), expected);
}

#[test]
fn every_operation_and_cause_is_told_in_its_record() {
    let merge = Cause::Merge { into: "9\"\n".to_owned() };
    for (operation, cause, told, into) in [
        (Operation::Snapshot, None, None, None),
        (Operation::Create, None, None, None),
        (Operation::Update, None, None, None),
        (Operation::Update, Some(Cause::Restore), Some("restore"), None),
        (Operation::Update, Some(Cause::Association), Some("association"), None),
        (Operation::Delete, None, None, None),
        (Operation::Delete, Some(merge), Some("merge"), Some("9\"\n")),
    ] {
        let change = Change { cause, ..change(operation) };
        let record = reads_back(&change);
        assert_eq!((record.operation, record.id()), (operation, Some("256")));
        assert_eq!((record.metadata("hubferry.change"), record.metadata("hubferry.mergedInto")), (told, into));
        assert_eq!(record.after(), change.after.as_ref());
        assert_eq!(record.before, None);
        assert_eq!(record.position().unwrap()["itemId"], "256");
        assert_eq!(record.metadata("opencdc.collection"), Some("crm.contacts"));
    }
}

#[test]
fn before_is_written_where_it_is_known_and_times_only_where_they_are() {
    let before = contact("256", json!({"email": "old@example.com"}));
    let record = reads_back(&Change { before: Some(before.clone()), ..change(Operation::Update) });
    assert_eq!(record.before, Some(Data::Structured(before)));

    let unknown = Change { created_at: None, updated_at: None, ..change(Operation::Delete) };
    let record = reads_back(&unknown);
    assert_eq!((record.metadata("opencdc.createdAt"), record.metadata("hubferry.updatedAt")), (None, None));
    assert_eq!(record.metadata("opencdc.readAt"), Some("1767323100123456789"));

    let early = Change { created_at: Some("1969-12-31T23:59:59.999Z".parse().unwrap()), ..change(Operation::Create) };
    assert_eq!(reads_back(&early).metadata("opencdc.createdAt"), Some("-1000000"));
}

#[test]
fn ten_thousand_records_are_ten_thousand_lines_in_order() {
    let changes: Vec<_> = (0..10_000).map(|n| Change { id: n.to_string(), ..change(Operation::Update) }).collect();
    let records = decode_all(&encode(&changes)).unwrap();
    assert!(records.iter().map(|record| record.id().unwrap().parse::<u32>().unwrap()).eq(0..10_000));
}

#[test]
fn the_reader_refuses_what_is_not_open_cdc() {
    let good = encode(&[change(Operation::Update)]);
    let good = good.trim_end();
    decode(good).unwrap();
    for (from, to, fault) in [
        (r#","key":{"id":"256"}"#, "", "the members are"),
        (r#""before":null,"#, "", "the members of payload are"),
        (r#""operation":"update","#, "", "the members are"),
        (r#""operation":"update""#, r#""operation":"upsert""#, "unknown operation"),
        (r#""operation":"update""#, r#""operation":"delete""#, "payload.after does not go with delete"),
        (r#""operation":"update""#, r#""operation":2"#, "unknown operation"),
        (r#""position":"ey"#, r#""position":"e!"#, "position is no base64"),
        (r#"fQ==""#, r#"fQ=""#, "position is no base64"),
        (r#""position":"#, r#""position":null,"was":"#, "the members are"),
        (r#""opencdc.createdAt":"1"#, r#""opencdc.createdAt":"2026-1"#, "opencdc.createdAt is no decimal"),
        (r#""opencdc.createdAt":"1"#, r#""opencdc.createdAt":"+1"#, "opencdc.createdAt is no decimal"),
        (
            r#""opencdc.readAt":"1767323100123456789""#,
            r#""opencdc.readAt":1767323100123456789"#,
            "opencdc.readAt is no text",
        ),
        (r#""opencdc.version":"v1""#, r#""opencdc.version":"v2""#, "version v2"),
        (r#","opencdc.version":"v1""#, "", "opencdc.version is missing"),
        (r#""key":{"id":"256"}"#, r#""key":256"#, "key is neither"),
        (r#""key":{"id":"256"}"#, r#""key":"abc""#, "key is no base64"),
        (r#""key":{"id":"256"}"#, r#""key":{"id":"256","id":"257"}"#, "appears twice"),
        (r#""before":null"#, r#""before":[]"#, "payload.before is neither"),
        (r#""before":null,"after""#, r#""after":null,"before""#, "the members of payload are"),
        (r#"{"position""#, r#"{"key":null,"position""#, "appears twice"),
        (r#""metadata":{"#, r#""metadata":{"conduit.source.connector.id":"x","#, "belongs to Conduit"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let error = decode(&bad).unwrap_err();
        assert!(error.contains(fault), "{error}, not {fault}");
    }
    assert!(decode(&good[..good.len() - 1]).is_err());
    assert!(decode_all(good).is_err(), "a line that is not ended");
    assert!(decode_all(&format!("{good}\n\n")).is_err(), "an empty line");
    let raw = good.replacen(r#""key":{"id":"256"}"#, r#""key":"MjU2""#, 1);
    assert_eq!(decode(&raw).unwrap().key, Some(Data::Raw(b"256".to_vec())));
}

proptest! {
    #[test]
    fn any_text_comes_back(id in any::<String>(), name in any::<String>(), value in any::<String>(), position in ".+") {
        let given = Change {
            id: id.clone(),
            after: Some(contact(&id, json!({name: value}))),
            position: position.clone(),
            ..change(Operation::Update)
        };
        let text = encode(std::slice::from_ref(&given));
        prop_assert_eq!(text.matches('\n').count(), 1, "one line, whatever the values hold");
        let records = decode_all(&text).map_err(TestCaseError::fail)?;
        prop_assert_eq!(records[0].id(), Some(id.as_str()));
        prop_assert_eq!(records[0].after(), given.after.as_ref());
        prop_assert_eq!(&records[0].position, position.as_bytes());
    }
}
