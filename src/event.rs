//! What woke us, and which job that means. Parsing only.
//!
//! Samples of every kind are in `events/`. Emulators and hand-written tests leave out much of what AWS sends, so only
//! what a job needs is asked for: bucket and key of an object, the id of a message, the name of a job.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    Error, Result, codes,
    config::{nearest, quoted},
    mutate::{self, Bug},
};

/// A notification in a topic's envelope in a message is the deepest that AWS builds.
const NESTING_MAX: usize = 4;
/// Digits that every sequencer is brought to; S3 sends 16 to 20.
const SEQUENCER_DIGITS: usize = 64;
/// Keys of an unknown event that the error names.
const NAMED_KEYS_MAX: usize = 10;

/// The jobs that an event can name.
const JOBS: [&str; 4] = ["import", "capture", "sync", "resume"];

/// What woke us.
#[derive(Debug)]
pub enum Event {
    /// Objects that were created; at least one. Records of the same notification that tell of anything else are left out.
    Imports(Vec<SourceObject>),
    /// Messages of a queue, each with the event that it carries. The answer names those that are to come again.
    Sqs(Vec<SqsMessage>),
    /// Capture this, or everything.
    Capture {
        /// The capture's name.
        name: Option<String>,
    },
    /// Sync this, or everything.
    Sync {
        /// The sync's name.
        name: Option<String>,
    },
    /// Continue this run, or every run that was cut off.
    Resume {
        /// The run's id.
        run_id: Option<String>,
    },
    /// S3 tries whether notifications arrive.
    TestEvent,
    /// Understood, and nothing to do.
    Ignored {
        /// What it was, in words.
        what: String,
    },
}

/// An object that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceObject {
    /// The bucket.
    pub bucket: String,
    /// The key, decoded.
    pub key: String,
    /// The version, on a bucket that keeps versions.
    pub version_id: Option<String>,
    /// The entity tag, without quotes.
    pub etag: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// Orders the events of one key: hexadecimal digits; compare with [`sequencer_order`].
    pub sequencer: Option<String>,
    /// When S3 took the object.
    pub event_time: Option<Timestamp>,
}

/// One message of a queue.
#[derive(Debug)]
pub struct SqsMessage {
    /// What `batchItemFailures` names.
    pub message_id: String,
    /// The event in it. One that is not understood fails alone.
    pub body: Result<Box<Event>>,
}

/// Reads the event that woke us.
///
/// `EVENT_UNKNOWN` names what was not understood: keys and job names, never other values.
pub fn parse(value: Value) -> Result<Event> {
    event(&value, NESTING_MAX)
}

/// Which of two sequencers of the same object is the later one.
///
/// They are hexadecimal numbers of differing length: the shorter is padded with zeros on the right.
pub fn sequencer_order(one: &str, other: &str) -> std::cmp::Ordering {
    let width = one.len().max(other.len());
    let digits = |text: &str| {
        text.bytes()
            .map(|byte| byte.to_ascii_uppercase())
            .chain(std::iter::repeat(b'0'))
            .take(width)
            .collect::<Vec<_>>()
    };
    digits(one).cmp(&digits(other))
}

/// A sequencer at a fixed width, so that the order of texts is the order of events. Digits beyond the 64th are dropped.
pub fn normalised(sequencer: &str) -> String {
    if mutate::on(Bug::SequencersReversed) {
        let reversed = |c: char| c.to_digit(16).and_then(|digit| char::from_digit(15 - digit, 16)).unwrap_or('0');
        return sequencer.chars().map(reversed).chain(std::iter::repeat('f')).take(SEQUENCER_DIGITS).collect();
    }
    sequencer.chars().map(|c| c.to_ascii_uppercase()).chain(std::iter::repeat('0')).take(SEQUENCER_DIGITS).collect()
}

fn event(value: &Value, depth: usize) -> Result<Event> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(unknown("the event nests deeper than any that AWS sends"));
    };
    let Value::Object(event) = value else {
        return Err(unknown(format!("the event is {}, not a JSON object", kind(value))));
    };
    if let Some(records) = event.get("Records") {
        return records_event(records, depth);
    }
    if event.contains_key("job") {
        return job(event);
    }
    if text(event, "Event") == Some("s3:TestEvent") {
        return Ok(Event::TestEvent);
    }
    if let Some(detail_type) = text(event, "detail-type") {
        return bridge_event(event, detail_type);
    }
    // A topic's envelope around a notification, as it stands in a message.
    if text(event, "Type") == Some("Notification")
        && let Some(message) = text(event, "Message")
    {
        return nested(message, depth, "the topic's message");
    }
    if event.is_empty() {
        return Err(unknown("the event is empty"));
    }
    Err(unknown(format!("no event has these keys: {}", names(event))))
}

/// JSON inside a text.
fn nested(body: &str, depth: usize, what: &str) -> Result<Event> {
    let value: Value = serde_json::from_str(body).map_err(|_| unknown(format!("{what} is not JSON")))?;
    event(&value, depth).map_err(|error| error.context(what))
}

fn records_event(records: &Value, depth: usize) -> Result<Event> {
    let Value::Array(records) = records else {
        return Err(unknown(format!("`Records` is {}, not a list", kind(records))));
    };
    let mut sources = records.iter().map(|record| {
        let record = record.as_object();
        record.and_then(|record| text(record, "eventSource").or_else(|| text(record, "EventSource"))).unwrap_or("")
    });
    let Some(source) = sources.next() else {
        return Ok(Event::Ignored { what: "a notification without records".to_owned() });
    };
    if sources.any(|other| other != source) {
        return Err(unknown("`Records` come from several sources"));
    }
    let records = records.iter().filter_map(Value::as_object);
    match source {
        "aws:s3" | "minio:s3" => imports(records.map(s3_record)),
        "aws:sqs" => records.map(|record| sqs_message(record, depth)).collect::<Result<_>>().map(Event::Sqs),
        "aws:sns" => {
            let mut objects = Vec::new();
            for record in records {
                let message = record.get("Sns").and_then(Value::as_object).and_then(|sns| text(sns, "Message"));
                match nested(
                    message.ok_or_else(|| unknown("a record has no `Sns.Message`"))?,
                    depth,
                    "the topic's message",
                )? {
                    Event::Imports(more) => objects.extend(more),
                    Event::TestEvent | Event::Ignored { .. } => {}
                    _ => return Err(unknown("a topic can carry S3 notifications only")),
                }
            }
            imports(objects.into_iter().map(|object| Ok(Ok(object))))
        }
        "" => Err(unknown("`Records` have no `eventSource`")),
        other => Err(unknown(format!(
            "`Records[].eventSource` is {}; understood are aws:s3, aws:sqs and aws:sns",
            quoted(other)
        ))),
    }
}

/// The created objects among `found`; the inner error says what another record was.
fn imports(found: impl Iterator<Item = Result<Result<SourceObject, String>>>) -> Result<Event> {
    let (mut objects, mut note) = (Vec::new(), None);
    for found in found {
        match found? {
            Ok(object) => objects.push(object),
            Err(what) => note = Some(what),
        }
    }
    match note {
        _ if !objects.is_empty() => Ok(Event::Imports(objects)),
        what => {
            Ok(Event::Ignored { what: what.unwrap_or_else(|| "a notification without created objects".to_owned()) })
        }
    }
}

fn s3_record(record: &Map<String, Value>) -> Result<Result<SourceObject, String>> {
    // Some servers write `s3:ObjectCreated:Put`; a record without a name comes from a test.
    let name = text(record, "eventName").unwrap_or("ObjectCreated:");
    let name = name.strip_prefix("s3:").unwrap_or(name);
    if !name.starts_with("ObjectCreated:") {
        return Ok(Err(format!("an S3 event {}, which creates nothing", quoted(name))));
    }
    let s3 = record.get("s3").and_then(Value::as_object).ok_or_else(|| unknown("an S3 record has no `s3`"))?;
    let key = object_member(s3)
        .and_then(|object| text(object, "key"))
        .ok_or_else(|| unknown("an S3 record has no `s3.object.key`"))?;
    let key = decoded(key).ok_or_else(|| unknown("`s3.object.key` is not the encoding of a UTF-8 text"))?;
    source(s3, key, record.get("eventTime"), "eTag", "versionId", "s3")
}

/// EventBridge: S3's own events, whose keys are not encoded, and schedules.
fn bridge_event(event: &Map<String, Value>, detail_type: &str) -> Result<Event> {
    let detail = event.get("detail").and_then(Value::as_object);
    if let Some(detail) = detail.filter(|detail| detail.contains_key("job")) {
        return job(detail);
    }
    let from_s3 = text(event, "source").is_none_or(|source| source == "aws.s3");
    match detail_type {
        "Object Created" if from_s3 => {
            let detail = detail.ok_or_else(|| unknown("`Object Created` has no `detail`"))?;
            let key = object_member(detail).and_then(|object| text(object, "key"));
            let key = key.ok_or_else(|| unknown("`Object Created` has no `detail.object.key`"))?.to_owned();
            imports(std::iter::once(source(detail, key, event.get("time"), "etag", "version-id", "detail")))
        }
        other if other.starts_with("Object ") && text(event, "source") == Some("aws.s3") => {
            Ok(Event::Ignored { what: format!("an S3 event {}, which creates nothing", quoted(other)) })
        }
        "Scheduled Event" => Err(unknown(
            "the scheduled event names no job: give its rule the input {\"job\":\"resume\"}, or another job",
        )),
        other => Err(unknown(format!(
            "`detail-type` is {}; understood are `Object Created`, and any with a `job` in `detail`",
            quoted(other)
        ))),
    }
}

fn object_member(parent: &Map<String, Value>) -> Option<&Map<String, Value>> {
    parent.get("object").and_then(Value::as_object)
}

/// The object in a notification; `etag` and `version_id` are what this kind of notification calls them.
fn source(
    parent: &Map<String, Value>,
    key: String,
    time: Option<&Value>,
    etag: &str,
    version_id: &str,
    name: &str,
) -> Result<Result<SourceObject, String>> {
    let bucket = parent.get("bucket").and_then(Value::as_object).and_then(|bucket| text(bucket, "name"));
    let bucket = bucket.ok_or_else(|| unknown(format!("the event has no `{name}.bucket.name`")))?.to_owned();
    if key.is_empty() {
        return Err(unknown(format!("`{name}.object.key` is empty")));
    }
    if key.ends_with('/') {
        return Ok(Err("the marker of a folder, which holds nothing".to_owned()));
    }
    let object = object_member(parent);
    let member = |name| object.and_then(|object| text(object, name)).map(str::to_owned);
    Ok(Ok(SourceObject {
        bucket,
        key,
        version_id: member(version_id),
        etag: member(etag).map(|etag| etag.trim_matches('"').to_owned()),
        size: object.and_then(|object| object.get("size")).and_then(Value::as_u64),
        // One that is no number orders nothing.
        sequencer: member("sequencer").filter(|sequencer| sequencer.bytes().all(|byte| byte.is_ascii_hexdigit())),
        event_time: time.and_then(Value::as_str).and_then(|time| time.parse().ok()),
    }))
}

fn sqs_message(record: &Map<String, Value>, depth: usize) -> Result<SqsMessage> {
    // Without the id a failure could not be reported, and the whole batch has to come again.
    let message_id = text(record, "messageId").ok_or_else(|| unknown("a message has no `messageId`"))?.to_owned();
    let body = match text(record, "body") {
        Some(body) => nested(body, depth, "the message's body"),
        None => Err(unknown("the message has no `body`")),
    };
    let body = body.and_then(|event| match event {
        Event::Sqs(_) => Err(unknown("a message holds messages of a queue")),
        event => Ok(Box::new(event)),
    });
    Ok(SqsMessage { message_id, body })
}

fn job(event: &Map<String, Value>) -> Result<Event> {
    let Some(job) = event.get("job").and_then(Value::as_str) else {
        return Err(unknown(format!("`job` is {}, not the name of a job", event.get("job").map_or("missing", kind))));
    };
    match job {
        "capture" => Ok(Event::Capture { name: only(event, job, "name")? }),
        "sync" => Ok(Event::Sync { name: only(event, job, "name")? }),
        // A continuation may carry more than this version knows.
        "resume" => Ok(Event::Resume { run_id: optional(event, "run_id")? }),
        "import" => {
            known_keys(event, job, &["bucket", "key", "version_id"])?;
            let required = |key| optional(event, key)?.ok_or_else(|| unknown(format!("job `import` needs `{key}`")));
            Ok(Event::Imports(vec![SourceObject {
                bucket: required("bucket")?,
                key: required("key")?,
                version_id: optional(event, "version_id")?,
                etag: None,
                size: None,
                sequencer: None,
                event_time: None,
            }]))
        }
        other => {
            let near = nearest(other, JOBS.into_iter());
            let near =
                near.map_or_else(|| format!("jobs are {}", JOBS.join(", ")), |near| format!("did you mean `{near}`?"));
            Err(unknown(format!("there is no job {}; {near}", quoted(other))))
        }
    }
}

/// The one thing that a job can be told. A slip in its name must not turn one capture into all of them.
fn only(event: &Map<String, Value>, job: &str, key: &'static str) -> Result<Option<String>> {
    known_keys(event, job, &[key])?;
    optional(event, key)
}

fn known_keys(event: &Map<String, Value>, job: &str, known: &[&str]) -> Result<()> {
    match event.keys().find(|key| *key != "job" && !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(unknown(format!("job `{job}` has no {}; it takes {}", quoted(key), known.join(", ")))),
    }
}

fn optional(event: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    match event.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(unknown(format!("`{key}` is blank; leave it out"))),
        Some(other) => Err(unknown(format!("`{key}` is {}, not a text", kind(other)))),
    }
}

/// A text member; an empty one counts as absent.
fn text<'e>(event: &'e Map<String, Value>, key: &str) -> Option<&'e str> {
    event.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// What S3 does to a key in a notification, undone: `+` for a space, `%C3%A9` for bytes. A `%` that encodes nothing stays.
fn decoded(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                let digit =
                    |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        bytes.push(high << 4 | low);
                        rest = ahead;
                    }
                    _ => bytes.push(byte),
                }
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The keys of what was not understood: names only, few and short.
fn names(event: &Map<String, Value>) -> String {
    let mut names = event.keys().take(NAMED_KEYS_MAX).map(|key| quoted(key)).collect::<Vec<_>>().join(", ");
    if event.len() > NAMED_KEYS_MAX {
        names.push_str(", …");
    }
    names
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn unknown(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid(codes::EVENT_UNKNOWN, message)
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
