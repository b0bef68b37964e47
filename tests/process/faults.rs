//! The real process where everything around it fails: HubSpot, DynamoDB, and uploads that cross each other.

use std::time::Duration;

use futures_util::future::join_all;
use hubferry_simulator::{
    aws::{Fault, Service, When, events},
    hubspot::{Fault as Broken, Faults, PortalSettings},
};
use serde_json::{Value, json};

use super::harness::{BUCKET, Harness, Process, QUEUE, until, within};

/// One in fifty rows is a reject.
fn file(rows: std::ops::Range<usize>, name: &str) -> String {
    let mut text = String::from("email,firstname\n");
    for number in rows {
        let at = if number % 50 == 11 { "" } else { "@example.com" };
        text.push_str(&format!("person{number}{at},{name}\n"));
    }
    text
}

/// Delivers continuations as SQS does, without their delays, until the run is over.
async fn finish(harness: &Harness, process: &Process, mut last: Value) -> Value {
    for _ in 0..40 {
        if last["outcome"] != "yielded" {
            return last;
        }
        // Past every delay and back-off of the run.
        harness.cloud.clock().advance(Duration::from_secs(901));
        let message = harness.cloud.sqs().receive(QUEUE, 1, None).remove(0);
        let event = events::sqs_event(QUEUE, std::slice::from_ref(&message));
        last = harness.answer(process, &event).await["answers"][0].clone();
    }
    panic!("the run does not end: {last}\n{}", process.last_lines());
}

fn written(report: &Value) -> u64 {
    ["created", "updated", "merged"].iter().map(|name| report["rows"][*name].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn every_fault_of_hubspot_at_five_percent_of_the_calls_is_survived() {
    const ROWS: usize = 28_000;
    // Each kind once, five of them in each hundred calls; together, so that their waits are.
    let kinds = Faults::five_percent(0).into_iter().map(|fault| fault.what);
    let nth = |at: u64| 90 * (at / 5) + at % 5 + 3;
    let faults: Vec<_> = (0..).zip(kinds).map(|(at, what)| Broken::nth("/batch/upsert", nth(at), what)).collect();
    let count = faults.len() as u64;
    let mut settings = PortalSettings { faults, shuffle_results: true, ..PortalSettings::default() };
    settings.limits.burst = Some(2_000);
    settings.latency.fixed_ms = 20;
    let harness = Harness::boot_with(settings, false).await;
    let process = harness.process();
    let event = harness.upload("incoming/contacts/a.csv", file(0..ROWS, "P"));
    let first = harness.answer(&process, &event).await;
    let last = finish(&harness, &process, first).await;
    assert_eq!((&last["outcome"], &last["rows"]["deferred"]), (&json!("done"), &json!(0)), "{last}");
    assert_eq!((&last["rows"]["read"], &last["rows"]["rejected"]), (&json!(ROWS), &json!(ROWS / 50)), "{last}");
    assert_eq!(written(&last) as usize, ROWS - ROWS / 50, "{last}");
    // All but the empty answer, whose rows go into a call of their own.
    assert_eq!(last["calls"]["retried"].as_u64(), Some(count - 1), "a kind of fault did not strike: {last}");
    let portal = harness.portal();
    assert_eq!(portal.record_count("contacts"), ROWS - ROWS / 50);
    assert_eq!(portal.counts().created as usize, ROWS - ROWS / 50, "records were made twice");
}

#[tokio::test]
async fn a_table_that_refuses_writes_for_ten_seconds_holds_the_run_up_and_nothing_else() {
    const ROWS: usize = 20_000;
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(400);
    settings.latency.fixed_ms = 50;
    let harness = Harness::boot_with(settings, false).await;
    let process = harness.process();
    let event = harness.upload("incoming/contacts/a.csv", file(0..ROWS, "P"));
    let (first, ()) = tokio::join!(harness.answer(&process, &event), async {
        until(&process, "an upsert", || (harness.upserts() > 5).then_some(())).await;
        for action in ["UpdateItem", "PutItem", "DeleteItem"] {
            let span = When::For(Duration::from_secs(10));
            harness.cloud.faults().inject_on(Service::DynamoDb, action, None, Fault::internal_server_error(), span);
        }
    });
    let last = finish(&harness, &process, first).await;
    assert_eq!((&last["outcome"], &last["rows"]["read"]), (&json!("done"), &json!(ROWS)), "{last}");
    assert_eq!(written(&last) as usize, ROWS - ROWS / 50, "{last}");
    assert!(last["duration_ms"].as_u64().unwrap() > 9_000, "the outage was not met: {last}");
    let portal = harness.portal();
    assert_eq!(portal.record_count("contacts"), ROWS - ROWS / 50);
    assert_eq!(portal.counts().created as usize, ROWS - ROWS / 50, "records were made twice");
}

#[tokio::test]
async fn an_object_that_is_overwritten_during_its_import_ends_as_the_newer_one_has_it() {
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(250);
    settings.latency.fixed_ms = 100;
    let harness = Harness::boot_with(settings, false).await;
    let (one, two) = (harness.process(), harness.process());
    let older = harness.upload("incoming/contacts/a.csv", file(0..10_000, "Old"));
    let (older, newer) = within(&one, "both answers", async {
        tokio::join!(harness.invoke(&older), async {
            until(&one, "an upsert", || (harness.upserts() > 8).then_some(())).await;
            let newer = harness.upload("incoming/contacts/a.csv", file(0..3_000, "New"));
            harness.invoke(&newer).await
        })
    })
    .await;
    let (older, newer) = (older.unwrap(), newer.unwrap());
    assert_eq!(
        (&older["outcome"], &older["error"]["code"]),
        (&json!("superseded"), &json!("SOURCE_CHANGED")),
        "{older}"
    );
    assert_eq!((&newer["outcome"], &newer["rows"]["read"]), (&json!("done"), &json!(3_000)), "{newer}");
    for report in [&older, &newer] {
        let uri = format!("s3://{BUCKET}/reports/import/contacts/{}.json", report["run_id"].as_str().unwrap());
        assert_eq!(harness.json(&uri)["outcome"], report["outcome"]);
    }
    assert!(harness.items().await.keys().all(|(pk, _)| pk != "open"), "{}", two.last_lines());
    let portal = harness.portal();
    for record in portal.records("contacts") {
        let number: usize = record["email"].trim_start_matches("person").split('@').next().unwrap().parse().unwrap();
        assert!(number >= 3_000 || record["firstname"] == "New", "an older row landed on a newer one: {record:?}");
    }
}

#[tokio::test]
async fn two_files_with_overlapping_keys_at_once_in_two_processes_leave_one_record_per_key() {
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(1_000);
    settings.latency.fixed_ms = 50;
    let harness = Harness::boot_with(settings, false).await;
    let (one, two) = (harness.process(), harness.process());
    let events = [
        harness.upload("incoming/contacts/one.csv", file(0..4_000, "One")),
        harness.upload("incoming/contacts/two.csv", file(2_000..6_000, "Two")),
    ];
    let answers = within(&one, "both answers", join_all(events.iter().map(|event| harness.invoke(event)))).await;
    for answer in answers {
        let report = answer.unwrap();
        assert_eq!((&report["outcome"], &report["rows"]["read"]), (&json!("done"), &json!(4_000)), "{report}");
        assert_eq!(written(&report), 3_920, "{report}\n{}", two.last_lines());
    }
    let portal = harness.portal();
    assert_eq!(portal.record_count("contacts"), 5_880);
    assert_eq!(portal.counts().created, 5_880, "records were made twice");
    for record in portal.records("contacts") {
        let number: usize = record["email"].trim_start_matches("person").split('@').next().unwrap().parse().unwrap();
        let expected: &[&str] = match number {
            0..2_000 => &["One"],
            2_000..4_000 => &["One", "Two"],
            _ => &["Two"],
        };
        assert!(expected.contains(&record["firstname"].as_str()), "{record:?}");
    }
}
