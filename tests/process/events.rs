//! Every sample event goes in and gets the answer that is documented for it.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use super::harness::{Harness, Variables};

/// The folder's files, and what is answered to them.
const SAMPLES: [(&str, Expected); 21] = [
    ("eventbridge-object-created", Expected::Done),
    ("eventbridge-object-deleted", Expected::Nothing),
    ("manual-import", Expected::Done),
    ("resume-run", Expected::Refused("NAME_UNKNOWN")),
    ("s3-object-created-unversioned", Expected::Done),
    ("s3-object-created", Expected::Done),
    ("s3-object-removed", Expected::Nothing),
    ("s3-several-records", Expected::Several),
    ("s3-test-event", Expected::Nothing),
    ("s3-url-encoded-key", Expected::Done),
    ("schedule-capture-all", Expected::Captured),
    ("schedule-capture", Expected::Captured),
    ("schedule-resume", Expected::Nothing),
    ("schedule-sync", Expected::Refused("NAME_UNKNOWN")),
    ("scheduled-event-capture", Expected::Captured),
    ("sqs-continuation", Expected::Failures(&["NAME_UNKNOWN"])),
    ("sqs-eventbridge", Expected::Batch("done")),
    ("sqs-one-bad-message", Expected::Failures(&["done", "EVENT_UNKNOWN"])),
    ("sqs-s3-test-event", Expected::Batch("nothing")),
    ("sqs-s3", Expected::Batch("done")),
    ("sqs-sns-s3", Expected::Batch("done")),
];

#[derive(Clone, Copy)]
enum Expected {
    /// A report.
    Done,
    /// The report of a capture.
    Captured,
    /// Two of them.
    Several,
    Nothing,
    Refused(&'static str),
    /// A message whose answer has this outcome.
    Batch(&'static str),
    /// Messages: an outcome in lower case, or the code of an error.
    Failures(&'static [&'static str]),
}

const KEYS: [&str; 4] = ["contacts.csv", "monday.csv", "tuesday.csv", "new leads + café (100%).csv"];

/// The sample, about objects as they are now.
fn sample(text: &str, harness: &Harness, number: usize) -> Value {
    let mut text = text.to_owned();
    for key in KEYS {
        let body = format!("email,firstname\nperson{number}@example.com,{key}\n");
        let created = harness.cloud.s3().put("hubferry-demo", &format!("incoming/contacts/{key}"), body).unwrap();
        // Its name is written in two ways, of which this is the common part.
        let name = if key.contains("caf") { "caf".to_owned() } else { format!("/{key}") };
        if text.contains(&name) {
            text = text.replace("IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", created.version_id.as_deref().unwrap());
            text = text.replace("d41d8cd98f00b204e9800998ecf8427e", &created.etag);
        }
    }
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn every_sample_event_gets_its_documented_answer() {
    let harness = Harness::boot().await;
    let captures = "captures:\n  - { name: contacts, resource: crm.contacts, output: s3://crm/captures/contacts/ }\n";
    let path = harness.config_file(&harness.config(captures));
    let process = harness.process_with(&Variables(vec![("HUBFERRY_CONFIG", Some(path))]));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
    let files: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().unwrap().strip_suffix(".json").map(str::to_owned))
        .collect();
    assert_eq!(files, SAMPLES.iter().map(|(name, _)| (*name).to_owned()).collect(), "events/ and this list differ");
    for (number, (name, expected)) in SAMPLES.into_iter().enumerate() {
        let text = fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let event = sample(&text, &harness, number);
        if let Expected::Refused(code) = expected {
            let (kind, message) = harness.refusal(&process, &event).await;
            assert_eq!(kind, code, "{name}: {message}");
            continue;
        }
        let answer = harness.answer(&process, &event).await;
        match expected {
            Expected::Done => assert_eq!(
                (&answer["outcome"], &answer["rows"]["read"]),
                (&json!("done"), &json!(1)),
                "{name}: {answer}"
            ),
            Expected::Captured => assert_eq!(
                (&answer["job"], &answer["name"], &answer["outcome"]),
                (&json!("capture"), &json!("contacts"), &json!("done")),
                "{name}: {answer}"
            ),
            Expected::Several => {
                let outcomes: Vec<&Value> =
                    answer.as_array().unwrap().iter().map(|answer| &answer["outcome"]).collect();
                assert_eq!(outcomes, ["done", "done"], "{name}: {answer}");
            }
            Expected::Nothing => {
                assert_eq!(answer["outcome"], "nothing", "{name}: {answer}");
                assert!(!answer["message"].as_str().unwrap().is_empty(), "{name}: says why");
            }
            Expected::Batch(outcome) => {
                assert_eq!(answer["batchItemFailures"], json!([]), "{name}: {answer}");
                assert_eq!(answer["answers"][0]["outcome"], outcome, "{name}: {answer}");
            }
            Expected::Failures(answers) => {
                let ids: Vec<&Value> =
                    event["Records"].as_array().unwrap().iter().map(|record| &record["messageId"]).collect();
                let mut failed = Vec::new();
                for (at, expected) in answers.iter().enumerate() {
                    if expected.starts_with(|c: char| c.is_ascii_uppercase()) {
                        assert_eq!(answer["answers"][at]["error"]["code"], *expected, "{name}: {answer}");
                        failed.push(json!({ "itemIdentifier": ids[at] }));
                    } else {
                        assert_eq!(answer["answers"][at]["outcome"], *expected, "{name}: {answer}");
                    }
                }
                assert_eq!(answer["batchItemFailures"], json!(failed), "{name}");
            }
            Expected::Refused(_) => unreachable!(),
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_an_error_that_names_it_and_an_object_of_no_import_is_nothing() {
    let harness = Harness::boot().await;
    let process = harness.process();
    let (kind, message) = harness.refusal(&process, &json!({ "hello": "secret-value" })).await;
    assert_eq!(kind, "EVENT_UNKNOWN");
    assert!(message.contains("`hello`") && !message.contains("secret-value"), "{message}");
    let event = harness.upload("elsewhere/a.csv", "email\na@example.com\n");
    let answer = harness.answer(&process, &event).await;
    assert_eq!(answer, json!({ "outcome": "nothing", "message": "no import matches s3://crm/elsewhere/a.csv" }));
    assert_eq!(harness.portal().counts().requests, 0);
    assert!(harness.items().await.is_empty());
}
