//! What each event means.

use std::{cmp::Ordering, collections::BTreeMap, fs, path::Path};

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// An event in one line.
fn summary(event: &Event) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "all".to_owned());
    match event {
        Event::Imports(objects) => {
            let objects = objects.iter().map(|object| {
                let version = object.version_id.as_deref().map_or_else(String::new, |version| format!("@{version}"));
                let sequencer =
                    object.sequencer.as_deref().map_or_else(String::new, |sequencer| format!("#{sequencer}"));
                format!("{}/{}{version}{sequencer}", object.bucket, object.key)
            });
            format!("import {}", objects.collect::<Vec<_>>().join(" | "))
        }
        Event::Sqs(messages) => {
            let messages = messages.iter().map(|message| match &message.body {
                Ok(event) => summary(event),
                Err(error) => error.to_string(),
            });
            format!("sqs [{}]", messages.collect::<Vec<_>>().join("; "))
        }
        Event::Capture { name: which } => format!("capture {}", name(which)),
        Event::Sync { name: which } => format!("sync {}", name(which)),
        Event::Resume { run_id } => format!("resume {}", name(run_id)),
        Event::TestEvent => "test".to_owned(),
        Event::Ignored { what } => format!("ignored: {what}"),
    }
}

fn message(value: Value) -> String {
    let error = parse(value).unwrap_err();
    assert_eq!(error.code(), codes::EVENT_UNKNOWN);
    error.message().to_owned()
}

#[test]
fn every_sample_event_is_understood() {
    let contacts = "hubferry-demo/incoming/contacts";
    let version = "@IYV3p45BT0ac8hjHg1houSdS1a.Mro8e#0066F2A1C3D4E5F607";
    let removed = "ignored: an S3 event `ObjectRemoved:Delete`, which creates nothing";
    let expected = BTreeMap::from([
        ("s3-object-created", format!("import {contacts}/contacts.csv{version}")),
        ("s3-object-created-unversioned", format!("import {contacts}/contacts.csv")),
        (
            "s3-several-records",
            format!("import {contacts}/monday.csv#0066F2A1C3D4E5F607 | {contacts}/tuesday.csv#0066F2A1C3D4E5F6A0"),
        ),
        ("s3-url-encoded-key", format!("import {contacts}/new leads + café (100%).csv#0066F2A1C3D4E5F607")),
        ("s3-object-removed", removed.to_owned()),
        ("s3-test-event", "test".to_owned()),
        ("eventbridge-object-created", format!("import {contacts}/new leads + café (100%).csv{version}")),
        ("eventbridge-object-deleted", "ignored: an S3 event `Object Deleted`, which creates nothing".to_owned()),
        ("sqs-eventbridge", format!("sqs [import {contacts}/contacts.csv{version}]")),
        ("sqs-s3", format!("sqs [import {contacts}/contacts.csv{version}]")),
        ("sqs-s3-test-event", "sqs [test]".to_owned()),
        ("sqs-sns-s3", format!("sqs [import {contacts}/contacts.csv#0066F2A1C3D4E5F607]")),
        ("sqs-continuation", "sqs [resume 01JD4Z9W6T3N5Q8R2V7X0Y1B4C]".to_owned()),
        (
            "sqs-one-bad-message",
            format!(
                "sqs [import {contacts}/contacts.csv#0066F2A1C3D4E5F607; EVENT_UNKNOWN: the message's body is not JSON]"
            ),
        ),
        ("schedule-capture", "capture contacts".to_owned()),
        ("schedule-capture-all", "capture all".to_owned()),
        ("schedule-sync", "sync people".to_owned()),
        ("schedule-resume", "resume all".to_owned()),
        ("scheduled-event-capture", "capture contacts".to_owned()),
        ("resume-run", "resume 01JD4Z9W6T3N5Q8R2V7X0Y1B4C".to_owned()),
        ("manual-import", format!("import {contacts}/contacts.csv")),
    ]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            found.insert(name, summary(&parse(value).unwrap()));
        }
    }
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, summary)| (name.to_owned(), summary)).collect();
    assert_eq!(found, expected);
}

#[test]
fn all_that_a_notification_says_of_an_object_is_kept() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("events/s3-object-created.json")).unwrap();
    let Event::Imports(objects) = parse(serde_json::from_str(&text).unwrap()).unwrap() else { panic!("no import") };
    assert_eq!(
        objects,
        [SourceObject {
            bucket: "hubferry-demo".to_owned(),
            key: "incoming/contacts/contacts.csv".to_owned(),
            version_id: Some("IYV3p45BT0ac8hjHg1houSdS1a.Mro8e".to_owned()),
            etag: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
            size: Some(1843),
            sequencer: Some("0066F2A1C3D4E5F607".to_owned()),
            event_time: Some("2026-11-20T08:15:30.123Z".parse().unwrap()),
        }]
    );
}

#[test]
fn a_notification_of_the_barest_kind_is_enough() {
    for bare in [
        json!({ "Records": [{ "eventSource": "aws:s3", "s3": { "bucket": { "name": "b" }, "object": { "key": "k" } } }] }),
        json!({ "Records": [{ "EventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put",
            "s3": { "bucket": { "name": "b" }, "object": { "key": "k", "versionId": "", "sequencer": null, "size": "9" } } }] }),
        json!({ "detail-type": "Object Created", "detail": { "bucket": { "name": "b" }, "object": { "key": "k" } } }),
        json!({ "Records": [{ "EventSource": "aws:sns", "Sns": { "Message":
            "{\"Records\":[{\"eventSource\":\"aws:s3\",\"s3\":{\"bucket\":{\"name\":\"b\"},\"object\":{\"key\":\"k\"}}}]}" } }] }),
    ] {
        assert_eq!(summary(&parse(bare).unwrap()), "import b/k");
    }
    let folder = json!({ "Records": [{ "eventSource": "aws:s3", "s3": { "bucket": { "name": "b" }, "object": { "key": "in/" } } }] });
    assert_eq!(summary(&parse(folder).unwrap()), "ignored: the marker of a folder, which holds nothing");
}

#[test]
fn keys_are_decoded_as_s3_encodes_them() {
    for (encoded, key) in [
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("%e2%82%ac", "€"),
        ("100%25", "100%"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ("%2525", "%25"),
    ] {
        assert_eq!(decoded(encoded).as_deref(), Some(key), "{encoded}");
    }
    assert_eq!(decoded("%ff"), None);
}

#[test]
fn what_is_not_understood_is_named_but_its_values_are_not() {
    for (value, expected) in [
        (json!({ "hello": "secret", "body": 1 }), "no event has these keys: `hello`, `body`"),
        (json!({ "job": "captrue" }), "there is no job `captrue`; did you mean `capture`?"),
        (json!({ "job": "dance" }), "there is no job `dance`; jobs are import, capture, sync, resume"),
        (json!({ "job": 5 }), "`job` is a number"),
        (json!({ "job": "capture", "names": "secret" }), "job `capture` has no `names`; it takes name"),
        (json!({ "job": "sync", "name": ["secret"] }), "`name` is a list, not a text"),
        (json!({ "job": "import", "bucket": "b" }), "job `import` needs `key`"),
        (json!([1]), "the event is a list, not a JSON object"),
        (json!({}), "the event is empty"),
        (json!({ "Records": "secret" }), "`Records` is a text, not a list"),
        (json!({ "Records": [{ "eventSource": "aws:kinesis" }] }), "`Records[].eventSource` is `aws:kinesis`"),
        (json!({ "Records": [{}] }), "`Records` have no `eventSource`"),
        (
            json!({ "Records": [{ "eventSource": "aws:s3" }, { "eventSource": "aws:sqs" }] }),
            "come from several sources",
        ),
        (
            json!({ "Records": [{ "eventSource": "aws:s3", "s3": { "bucket": { "name": "b" } } }] }),
            "has no `s3.object.key`",
        ),
        (
            json!({ "Records": [{ "eventSource": "aws:s3", "s3": { "object": { "key": "k" } } }] }),
            "has no `s3.bucket.name`",
        ),
        (json!({ "Records": [{ "eventSource": "aws:sqs", "body": "{}" }] }), "a message has no `messageId`"),
        (json!({ "detail-type": "Scheduled Event", "source": "aws.events", "detail": {} }), "names no job"),
        (
            json!({ "detail-type": "EC2 Instance State-change Notification", "detail": {} }),
            "`detail-type` is `EC2 Instance",
        ),
    ] {
        let message = message(value);
        assert!(message.contains(expected), "{message}\ndoes not say\n{expected}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn a_message_in_a_message_ends_somewhere() {
    let mut body = json!({ "job": "resume" }).to_string();
    for _ in 0..6 {
        body = json!({ "Type": "Notification", "Message": body }).to_string();
    }
    let event = json!({ "Records": [{ "eventSource": "aws:sqs", "messageId": "m", "body": body }] });
    assert!(summary(&parse(event).unwrap()).contains("nests deeper"));
}

#[test]
fn sequencers_of_differing_length_are_ordered_as_s3_says() {
    for (one, other, order) in [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E5", Ordering::Equal),
        ("0055AED6DCD90281E5", "0055AED6DCD90281E6", Ordering::Less),
        ("0055AE", "0055AE00", Ordering::Equal),
        ("0055AE", "0055AE01", Ordering::Less),
        ("0055AF", "0055AE99", Ordering::Greater),
        ("0055af", "0055AF", Ordering::Equal),
        ("", "1", Ordering::Less),
    ] {
        assert_eq!(sequencer_order(one, other), order, "{one} {other}");
        assert_eq!(normalised(one).cmp(&normalised(other)), order, "{one} {other}");
    }
}

fn json() -> impl Strategy<Value = Value> {
    let known = prop::sample::select(vec![
        "Records",
        "eventSource",
        "aws:s3",
        "aws:sqs",
        "s3",
        "bucket",
        "object",
        "key",
        "name",
        "body",
        "messageId",
        "job",
        "resume",
        "capture",
        "detail",
        "detail-type",
        "Object Created",
        "Type",
        "Notification",
        "Message",
        "Sns",
        "aws:sns",
        "%",
        "+%f",
    ]);
    let text = prop_oneof![known.prop_map(str::to_owned), ".{0,8}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner.clone()), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            inner.prop_map(|value| Value::from(value.to_string())),
        ]
    })
}

proptest! {
    #[test]
    fn no_event_makes_the_parser_panic(value in json()) {
        let _ = parse(value);
    }

    #[test]
    fn no_encoded_key_makes_the_decoder_panic(key in ".{0,20}", escaped in "[%+0-9a-fA-F]{0,20}") {
        let _ = (decoded(&key), decoded(&escaped));
    }

    #[test]
    fn the_fixed_width_keeps_the_order(one in "[0-9A-F]{0,20}", other in "[0-9A-F]{0,20}") {
        prop_assert_eq!(sequencer_order(&one, &other), normalised(&one).cmp(&normalised(&other)));
    }
}
