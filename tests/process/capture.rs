//! Captures by the real process: killed at any moment, and what they tell of records beside the objects they write.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::Read as _,
    time::Duration,
};

use hubferry::clock::Rng;
use hubferry_simulator::hubspot::{Faults, PortalSettings, server::machine_clock};
use serde_json::{Value, json};

use super::harness::{BUCKET, Harness, Process, Variables, pause, until};
use crate::capture::rebuilt;

const OUTPUT: &str = "captures/contacts/";

/// The usual settings, and the capture `contacts`, whose lag is as short as it can be; `more` is added to it.
fn process(harness: &Harness, more: &str, log: Option<&str>) -> Process {
    let capture = format!(
        "captures:\n  - name: contacts\n    resource: crm.contacts\n    output: s3://{BUCKET}/{OUTPUT}\n    lag_seconds: 1\n{more}"
    );
    harness.cloud.s3().put("settings", "hubferry.yaml", harness.config("") + &capture).unwrap();
    harness.process_with(&Variables(vec![
        ("HUBFERRY_CONFIG", Some("s3://settings/hubferry.yaml".to_owned())),
        ("RUST_LOG", log.map(str::to_owned)),
    ]))
}

fn event() -> Value {
    json!({ "job": "capture", "name": "contacts" })
}

/// The lines of all objects, in the order of keys.
fn lines(harness: &Harness) -> Vec<Value> {
    let mut text = String::new();
    for key in harness.cloud.s3().keys(BUCKET, OUTPUT) {
        let bytes = harness.cloud.s3().read(BUCKET, &key).unwrap();
        zstd::stream::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap();
    }
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An hour ago: before any capture.
fn seed(harness: &Harness, count: usize, row: impl Fn(usize) -> Vec<(&'static str, String)>) {
    let long_ago = machine_clock() - jiff::SignedDuration::from_hours(1);
    harness.portal().seed_many(long_ago, "contacts", (0..count).map(row));
}

/// Runs the capture until a window is captured that began by now, past the lag and what the index trails behind.
async fn finish(harness: &Harness, process: &Process) -> Value {
    let mut done = 0;
    for _ in 0..20 {
        pause(Duration::from_millis(2_500)).await;
        let report = harness.answer(process, &event()).await;
        done += u32::from(report["outcome"] == "done");
        // The first may have gone on with a window that was open before.
        if done == 2 {
            return report;
        }
        assert!(["done", "yielded", "busy"].contains(&report["outcome"].as_str().unwrap()), "{report}");
    }
    panic!("the capture does not end\n{}", process.last_lines());
}

/// What people do between two invocations.
fn people(harness: &Harness, chance: &Rng, round: usize) {
    let now = machine_clock();
    let mut portal = harness.portal();
    let live: Vec<String> = portal.live_objects("contacts", &[]).map(|one| one.id).collect();
    let binned: Vec<String> = portal.archived_objects(now, "contacts").into_iter().map(|(id, _)| id).collect();
    let any = |ids: &[String]| ids.get((ids.len() as f64 * chance.fraction()) as usize).cloned();
    for number in 0..20 {
        let name = format!("Edited{round}-{number}");
        portal.edit(now, "contacts", &any(&live).unwrap(), &[("firstname", &name)]);
    }
    for number in 0..3 {
        let email = format!("new{round}-{number}@example.com");
        portal.create_record(now, "contacts", &[("email", &email), ("firstname", "New")]);
        portal.set_archived(now, "contacts", &any(&live).unwrap(), true);
    }
    if let Some(id) = any(&binned) {
        portal.set_archived(now, "contacts", &id, false);
    }
    portal.merge(now, "contacts", &any(&live).unwrap(), &any(&live).unwrap());
}

#[tokio::test]
async fn what_is_in_s3_equals_the_account_when_the_process_was_killed_in_snapshot_and_changes() {
    const RECORDS: usize = 4_000;
    const ROUNDS: usize = 8;
    /// Of an invocation, and so the longest lease of one that was killed. Half of it are calls.
    const SECONDS: u64 = 5;
    /// Calls after which it is killed, at most, in the snapshot and later: fewer than it makes.
    const CALLS: [f64; 2] = [40.0, 5.0];
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(250);
    settings.latency.fixed_ms = 50;
    settings.index_lag.jitter_ms = 500;
    let harness = Harness::boot_with(settings, false).await;
    // Long values, so that a snapshot is several objects.
    let long = "long ".repeat(1_000);
    seed(&harness, RECORDS, |at| vec![("email", format!("p{at}@example.com")), ("firstname", long.clone())]);
    let seed = std::process::id().into();
    let chance = Rng::seeded(seed);
    let requests = || harness.portal().counts().requests;
    let mut killed = 0;
    for round in 0..ROUNDS {
        let process = process(&harness, "", None);
        let is_later = !harness.cloud.s3().keys(BUCKET, "manifests/").is_empty();
        let calls = CALLS[usize::from(is_later)];
        let last = requests() + (calls * chance.fraction()) as u64;
        let moment = Duration::from_secs_f64(0.1 * chance.fraction());
        let over = Cell::new(false);
        let (answer, ()) = tokio::join!(
            async {
                let answer = harness.invoke_within(&event(), SECONDS).await;
                over.set(true);
                answer
            },
            async {
                // Every third one comes to its end: runs are given up that never do.
                let is_time = || over.get() || (round % 3 != 2 && requests() > last);
                until(&process, "a call", || is_time().then_some(())).await;
                pause(moment).await;
                process.kill().await;
            }
        );
        match answer {
            Err(_) => {
                killed += 1;
                // Its lease ends as its time does: at this very moment.
                pause(Duration::from_millis(100)).await;
            }
            Ok(report) => {
                let outcome = report["outcome"].as_str().unwrap();
                assert!(["done", "yielded", "busy"].contains(&outcome), "seed {seed}, round {round}: {report}");
            }
        }
        people(&harness, &chance, round);
    }
    assert!(killed >= 3, "seed {seed}: {killed} kills came in time");
    let process = process(&harness, "", None);
    finish(&harness, &process).await;

    let rebuilt = rebuilt(&lines(&harness));
    let named = ["email", "firstname", "lastmodifieddate"];
    let live: BTreeMap<String, _> =
        harness.portal().live_objects("contacts", &named).map(|one| (one.id, one.properties)).collect();
    let missing: Vec<&String> = live.keys().filter(|id| !rebuilt.contains_key(*id)).collect();
    let spare: Vec<&String> = rebuilt.keys().filter(|id| !live.contains_key(*id)).collect();
    assert!(missing.is_empty() && spare.is_empty(), "seed {seed}: missing in S3: {missing:?}; spare: {spare:?}");
    for (id, properties) in live {
        for (name, value) in properties {
            assert_eq!(rebuilt[&id]["properties"][&name].as_str(), value.as_deref(), "seed {seed}: {id} {name}");
        }
    }
}

/// The libraries below are quiet unless they are named.
const EVERYTHING: &str =
    "trace,aws=trace,h2=trace,hyper=trace,reqwest=trace,rustls=trace,lambda_runtime=trace,tower=trace";

/// In every value of every record, of any kind.
const MARK: &str = "zanzibar";

#[tokio::test]
async fn no_value_and_no_token_is_in_logs_reports_manifests_or_in_what_a_capture_keeps() {
    const RECORDS: usize = 1_000;
    let mut settings = PortalSettings { faults: Faults::five_percent(1), ..PortalSettings::default() };
    settings.limits.burst = Some(150);
    settings.latency.fixed_ms = 20;
    let harness = Harness::boot_with(settings, false).await;
    let row =
        |at| vec![("email", format!("{MARK}{at}@example.com")), ("firstname", format!("{MARK} {at}").repeat(1_000))];
    seed(&harness, RECORDS, row);
    let company = harness.portal().seed_record(machine_clock(), "companies", &[("name", MARK)]).unwrap();
    let ids: Vec<String> = harness.portal().live_objects("contacts", &[]).map(|one| one.id).collect();
    for id in ids.iter().take(50) {
        assert!(harness.portal().associate("contacts", id, "companies", &company));
    }
    let process = process(&harness, "    associations: [companies]\n    before: true\n", Some(EVERYTHING));

    // A run keeps more while it is under way than when it has ended: what it has learned so far.
    let kept = RefCell::new(BTreeMap::new());
    let keep = || {
        for folder in ["state/", "manifests/", "reports/"] {
            for key in harness.cloud.s3().keys(BUCKET, folder) {
                let bytes = harness.cloud.s3().read(BUCKET, &key).unwrap_or_default();
                kept.borrow_mut().insert(key, bytes);
            }
        }
    };
    let watched = async || {
        tokio::select! {
            report = finish(&harness, &process) => report,
            () = async { loop { keep(); pause(Duration::from_millis(20)).await } } => unreachable!(),
        }
    };
    let mut reports = vec![watched().await];
    let now = machine_clock();
    for id in ids.iter().take(40) {
        harness.portal().edit(now, "contacts", id, &[("firstname", &format!("{MARK} again"))]);
    }
    harness.portal().create_record(now, "contacts", &[("email", &format!("{MARK}-new@example.com"))]);
    harness.portal().set_archived(now, "contacts", &ids[50], true);
    harness.portal().merge(now, "contacts", &ids[51], &ids[52]);
    harness.portal().dissociate("contacts", &ids[0], "companies", &company);
    reports.push(watched().await);
    keep();

    let kept = kept.into_inner();
    let secrets = [MARK, PortalSettings::TOKEN];
    let log = process.log();
    assert!(log.lines().count() > 50, "the log is empty: what follows would prove nothing: {log}");
    for secret in secrets {
        if let Some(line) = log.lines().find(|line| line.to_lowercase().contains(secret)) {
            panic!("{secret} is in the log: {line}");
        }
        for report in &reports {
            assert!(!report.to_string().to_lowercase().contains(secret), "{secret} is in a report: {report}");
        }
        for (key, item) in harness.items().await {
            let shown = format!("{key:?} {item:?}").to_lowercase();
            assert!(!shown.contains(secret), "{secret} is in the table: {shown}");
        }
        for (key, bytes) in &kept {
            // What is known begins with a few bytes of its own.
            let frame = bytes.windows(4).take(64).position(|four| four == [0x28, 0xb5, 0x2f, 0xfd]);
            assert!(frame.is_some() || !key.ends_with(".known"), "{key}");
            let bytes = frame.map_or(bytes.to_vec(), |at| zstd::decode_all(&bytes[at..]).unwrap());
            assert!(!String::from_utf8_lossy(&bytes).to_lowercase().contains(secret), "{secret} is in {key}");
        }
    }
    for (folder, suffix) in [("state/", ".known"), ("state/", ""), ("manifests/", ".json"), ("reports/", ".json")] {
        let any = kept.keys().any(|key| key.starts_with(folder) && key.ends_with(suffix));
        assert!(any, "there is no {folder}…{suffix}: {:?}", kept.keys());
    }
    assert!(kept.keys().any(|key| key.starts_with("state/") && !key.ends_with(".known")), "no log: {:?}", kept.keys());
    // The objects hold the values: that is what they are for.
    let before =
        lines(&harness).into_iter().filter(|line| line["payload"]["before"].to_string().contains(MARK)).count();
    assert!(before >= 40, "{before}");
}
