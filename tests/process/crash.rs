//! Processes that die, and events that come several times at once.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use hubferry::clock::Rng;
use hubferry_simulator::hubspot::{PortalSettings, server::machine_clock};
use serde_json::{Value, json};

use super::harness::{BUCKET, Harness, pause, until, within};

/// How long an answer of HubSpot takes.
const LATENCY: Duration = Duration::from_millis(100);

fn slow() -> PortalSettings {
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(250);
    settings.latency.fixed_ms = 100;
    settings
}

/// Some rows wrong, some for a key of another row.
fn file(rows: usize) -> String {
    let mut text = String::from("email,firstname\n");
    for number in 0..rows {
        text.push_str(&match number % 50 {
            11 => format!("broken{number},Ada\n"),
            49 => format!("PERSON{}@example.com,Later\n", number - 20),
            _ => format!("person{number}@example.com,First{number}\n"),
        });
    }
    text
}

fn written(rows: &Value) -> u64 {
    ["created", "updated", "merged"].iter().map(|name| rows[*name].as_u64().unwrap()).sum()
}

/// The codes by line; each line at most once.
fn rejects(text: &str) -> BTreeMap<u64, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut lines = BTreeMap::new();
    for row in reader.records() {
        let row = row.unwrap();
        let line: u64 = row[2].parse().unwrap();
        assert!(lines.insert(line, row[3].to_owned()).is_none(), "line {line} is rejected twice");
    }
    lines
}

#[tokio::test]
async fn a_process_that_is_killed_twenty_times_leaves_what_one_clean_run_leaves() {
    const ROWS: usize = 24_000;
    const KILLS: usize = 20;
    /// Seconds that an invocation may take, and so the longest lease of a dead one. It sends for half of them.
    const SECONDS: u64 = 5;
    /// Upserts after which it is killed, at most; fewer than it can send in that time.
    const UPSERTS: f64 = 12.0;
    let harness = Harness::boot_with(slow(), false).await;
    let event = harness.upload("incoming/contacts/a.csv", file(ROWS));
    let seed = std::process::id().into();
    let chance = Rng::seeded(seed);
    let mut next = event.clone();
    let mut sent_again_max = 0;
    for kill in 0..KILLS {
        let process = harness.process();
        let upserts = harness.upserts() + (UPSERTS * chance.fraction()) as usize;
        let moment = Duration::from_secs_f64(0.2 * chance.fraction());
        let (answer, ()) = tokio::join!(harness.invoke_within(&next, SECONDS), async {
            until(&process, "an upsert", || (harness.upserts() > upserts).then_some(())).await;
            pause(moment).await;
            // Those on their way, and a batch that lands while the kill is under way.
            let since = machine_clock() - jiff::SignedDuration::try_from(LATENCY * 5 / 4).unwrap();
            process.kill().await;
            let portal = harness.portal();
            let upserts = portal.log().iter().filter(|entry| entry.path.ends_with("/batch/upsert"));
            sent_again_max += 100 * (upserts.filter(|entry| entry.at >= since).count() + 4);
        });
        assert!(answer.is_err(), "seed {seed}: kill {kill} came too late: {answer:?}");
        // The first kill may come before the run was made: then S3 and SQS deliver the event again.
        let made = harness.items().await.keys().any(|(pk, _)| pk == "open");
        next = if made { json!({ "job": "resume" }) } else { event.clone() };
    }
    let process = harness.process();
    let report = harness.answer(&process, &next).await;
    assert_eq!(report["outcome"], "done", "seed {seed}: {report}");
    assert!(report["invocations"].as_u64().unwrap() > 2, "{report}");
    let rows = &report["rows"];
    let wrong = (0..ROWS).filter(|number| number % 50 == 11);
    assert_eq!(rows["read"], ROWS);
    assert_eq!((rows["rejected"].as_u64().unwrap() as usize, &rows["deferred"]), (ROWS / 50, &json!(0)));
    assert_eq!(written(rows) as usize, ROWS - ROWS / 50);
    let rejected = rejects(&harness.text(report["rejects"].as_str().unwrap()));
    assert!(rejected.keys().copied().eq(wrong.map(|number| number as u64 + 2)), "rejects are missing");

    let records = ROWS - 2 * ROWS / 50;
    assert_eq!(harness.portal().record_count("contacts"), records);
    assert_eq!(harness.portal().counts().created as usize, records, "records were made twice");
    let last = harness.portal().find_by("contacts", "email", "person29@example.com").unwrap();
    assert_eq!(last["firstname"], "Later", "the later row wins");
    let least = records;
    let sent_again = harness.inputs_sent().saturating_sub(least + ROWS / 50);
    assert!(
        sent_again <= sent_again_max,
        "seed {seed}: {sent_again} inputs sent again, {sent_again_max} expected at most"
    );
    let left = harness.cloud.s3().keys(BUCKET, "state/");
    assert!(left.is_empty(), "working files are left: {left:?}");
    let again = harness.answer(&process, &event).await;
    assert_eq!((&again["outcome"], &again["run_id"]), (&json!("duplicate"), &report["run_id"]));
}

#[tokio::test]
async fn one_event_five_times_at_once_in_two_processes_is_done_once() {
    const ROWS: usize = 2_000;
    let harness = Harness::boot_with(slow(), false).await;
    let (one, two) = (harness.process(), harness.process());
    let event = harness.upload("incoming/contacts/a.csv", file(ROWS));
    let answers = within(&one, "five answers", join_all((0..5).map(|_| harness.invoke(&event)))).await;
    let reports: Vec<Value> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    let outcomes: Vec<&str> = reports.iter().map(|report| report["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "done").count(), 1, "{outcomes:?}\n{}", two.last_lines());
    assert!(outcomes.iter().all(|outcome| ["done", "busy", "duplicate"].contains(outcome)), "{outcomes:?}");
    assert!(reports.iter().all(|report| report["run_id"] == reports[0]["run_id"]), "one run");
    let records = ROWS - 2 * ROWS / 50;
    assert_eq!(harness.portal().counts().created as usize, records);
    assert_eq!(harness.portal().record_count("contacts"), records);
    assert!(harness.inputs_sent() <= records + ROWS / 50, "rows were sent twice");
    let stored = harness.cloud.s3().keys(BUCKET, "reports/");
    assert_eq!(stored.len(), 1, "{stored:?}");
}
