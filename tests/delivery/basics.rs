//! One file at a time.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hubferry::report::Outcome;
use serde_json::{Value, json};

use super::{config, file, line, rejects, settings};
use crate::support::World;

fn world(more: &str) -> World {
    World::with(&config("crm.contacts", more), settings(true))
}

fn by_email() -> World {
    world("key: email\n")
}

#[tokio::test(start_paused = true)]
async fn bad_lines_are_rejects_that_can_be_fixed_and_dropped_back() {
    let world = by_email();
    let good = |n: u32| json!({ "properties": { "email": format!("p{n}@x.io"), "city": "Bonn" } });
    let record = |operation: &str, n: u32| json!({ "operation": operation, "key": { "id": n }, "payload": { "after": good(n) } });
    let mut of_deals = record("create", 5);
    of_deals["metadata"] = json!({ "opencdc.collection": "crm.deals" });
    let mut raw = record("create", 6);
    raw["payload"] = json!({ "before": null, "after": STANDARD.encode(good(6).to_string()) });
    let lines = [
        record("create", 1).to_string(),
        record("merge", 2).to_string(),
        "{\"operation\":\"create\"".to_owned(),
        json!({ "operation": "create", "key": { "id": 4 }, "payload": { "after": null } }).to_string(),
        of_deals.to_string(),
        raw.to_string(),
        json!({ "operation": "update", "payload": { "after": { "email": "p7@x.io", "city": ["a"] } } }).to_string(),
        json!({ "operation": "create", "payload": { "after": { "email": "no address" } } }).to_string(),
    ];
    let report = world.import("incoming/a.jsonl", file(&lines)).await;
    assert_eq!((report.outcome, report.rows.created, report.rows.rejected), (Outcome::Done, 2, 6), "{report:?}");
    let expected = [
        (2, "OPERATION_UNKNOWN"),
        (3, "INVALID_JSON"),
        (4, "PAYLOAD_MISSING"),
        (5, "COLLECTION_FOREIGN"),
        (7, "RECORD_MALFORMED"),
        (8, "INVALID_EMAIL"),
    ];
    assert_eq!(rejects(&world, &report), expected.map(|(line, code)| (line, code.to_owned())));
    assert!(report.rejects.as_deref().unwrap().ends_with(".jsonl"));

    // As somebody mends them: the line that is no JSON stands in `_raw`.
    let text = world.text(report.rejects.as_deref().unwrap()).unwrap();
    let mended: Vec<String> = text
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            assert!(line["_hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{line}");
            match line["_code"].as_str().unwrap() {
                "OPERATION_UNKNOWN" => line["operation"] = "update".into(),
                "PAYLOAD_MISSING" => line["payload"]["after"] = good(4),
                "COLLECTION_FOREIGN" => line["metadata"] = json!({}),
                "RECORD_MALFORMED" => line["payload"]["after"]["city"] = "a".into(),
                "INVALID_EMAIL" => line["payload"]["after"]["email"] = "p8@x.io".into(),
                _ => {
                    assert_eq!(line["_raw"], "{\"operation\":\"create\"");
                    line["operation"] = "create".into();
                    line["payload"] = json!({ "after": good(3) });
                }
            }
            line.to_string()
        })
        .collect();
    let report = world.import("incoming/b.jsonl", file(&mended)).await;
    assert_eq!((report.rows.created, report.rows.rejected), (6, 0), "{report:?}");
    assert_eq!(world.contact("p3@x.io", "city").as_deref(), Some("Bonn"));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_about_one_record_happens_in_the_order_of_the_file() {
    for batch in [1, 40, 130] {
        let world = world("create_properties: true\n");
        let mut lines = Vec::new();
        for round in 0..4 {
            for n in 0..batch {
                lines.push(line("create", &n.to_string(), json!({ "firstname": format!("{round}"), "city": "Bonn" })));
                lines.push(line(
                    "update",
                    &n.to_string(),
                    json!({ "firstname": format!("{round} later"), "city": null }),
                ));
            }
            for n in 0..batch {
                lines.push(line("delete", &n.to_string(), Value::Null));
            }
        }
        for n in 0..batch / 2 {
            lines.push(line("create", &n.to_string(), json!({ "firstname": "last" })));
        }
        let report = world.import("incoming/a.jsonl", file(&lines)).await;
        assert_eq!((report.outcome, report.rows.rejected), (Outcome::Done, 0), "{report:?}");
        let rows = report.rows;
        assert_eq!(report.archived, Some(4 * batch), "{rows:?}");
        // A create and the update behind it are one call's input.
        assert_eq!((rows.created, rows.merged), (4 * batch + batch / 2, 4 * batch), "{rows:?}");
        let left: Vec<_> = world.portal.borrow().records("contacts").collect();
        assert_eq!(left.len() as u64, batch / 2, "{batch}");
        assert!(
            left.iter().all(|record| record["firstname"] == "last" && record.get("city").is_none_or(String::is_empty))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_records_of_a_kind_are_one_call() {
    let world = world("create_properties: true\n");
    let all = |operation: &str| -> Vec<String> {
        (0..1_000).map(|n| line(operation, &n.to_string(), json!({ "firstname": "A" }))).collect()
    };
    let mut writes = Vec::new();
    for (file_name, operation) in [("a", "snapshot"), ("b", "update"), ("c", "delete")] {
        world.requests.borrow_mut().clear();
        let report = world.import(&format!("incoming/{file_name}.jsonl"), file(&all(operation))).await;
        assert_eq!(report.rows.rejected, 0);
        let requests = world.requests.borrow();
        let count =
            |path: &str| requests.iter().filter(|request| request.split('\n').next().unwrap().ends_with(path)).count();
        writes.push((count("batch/upsert"), count("batch/read"), count("batch/archive")));
    }
    assert_eq!(writes, [(10, 0, 0), (10, 0, 0), (0, 10, 10)]);
}

#[tokio::test(start_paused = true)]
async fn compressed_files_blank_lines_and_files_of_nothing_are_read() {
    let world = by_email();
    let text = format!(
        "\n{}\r\n\n  \n{}",
        line("create", "1", json!({"email": "a@x.io"})),
        line("create", "2", json!({"email": "b@x.io"}))
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
    for (name, bytes) in [("a", text.clone().into_bytes()), ("b", gzip.finish().unwrap()), ("c", zstd)] {
        let report = world.import(&format!("incoming/{name}"), bytes).await;
        assert_eq!(
            (report.outcome, report.rows.read, report.rows.rejected),
            (Outcome::Done, 2, 0),
            "{name}: {report:?}"
        );
    }
    for (name, bytes) in [("d", ""), ("e", "\n \n")] {
        let report = world.import(&format!("incoming/{name}"), bytes).await;
        assert_eq!((report.outcome, report.rows.read), (Outcome::Done, 0), "{name}: {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_of_another_kind_is_stopped_early() {
    let world = by_email();
    let text: String = (0..5_000).map(|n| format!("a{n},b\n")).collect();
    let report = world.import("incoming/a.csv", text).await;
    assert_eq!(report.outcome, Outcome::Aborted, "{report:?}");
    assert_eq!(report.rejected_by_code.keys().collect::<Vec<_>>(), ["INVALID_JSON"]);
    assert!(world.requests.borrow().iter().all(|request| !request.contains("batch/")));
}

#[tokio::test(start_paused = true)]
async fn a_run_over_many_invocations_counts_what_one_counts() {
    let world = world("create_properties: true\n");
    let lines: Vec<String> = (0..4_000)
        .map(|n| {
            line(
                if n % 5 == 4 { "delete" } else { "snapshot" },
                &(n % 1_700).to_string(),
                json!({"firstname": "A", "createdate": 1}),
            )
        })
        .collect();
    let event = world.upload("incoming/a.jsonl", file(&lines)).await;
    let first = crate::support::report(world.handle_within(event, 4).await.unwrap());
    let report = world.finish(first, 4).await;
    assert_eq!((report.outcome, report.rows.read), (Outcome::Done, 4_000), "{report:?}");
    assert!(report.invocations > 1, "{}", report.invocations);
    assert_eq!(report.dropped_properties["createdate"], 3_200);
}

#[tokio::test(start_paused = true)]
async fn associations_and_old_kinds_of_values_do_not_hold_a_record_up() {
    let world = by_email();
    let whole = json!({
        "id": 7, "properties": { "email": "a@x.io", "hs_unheard_of": "1", "numemployees": "1-5" }, "archived": false,
        "createdAt": "2026-01-01T00:00:00Z", "associations": { "companies": { "results": [{ "id": "1" }] } },
    });
    let record = json!({ "operation": "update", "key": { "id": 7.0 }, "payload": { "before": null, "after": whole } });
    let report = world.import("incoming/a.jsonl", file(&[record.to_string()])).await;
    assert_eq!((report.rows.created, report.rows.rejected), (1, 0), "{report:?}");
    assert_eq!(report.notes, ["the associations in the records were not delivered"]);
    assert_eq!(report.dropped_properties["hs_unheard_of"], 1);
}
