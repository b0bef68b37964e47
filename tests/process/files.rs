//! One file from the upload to report, rejects, state and HubSpot.

use std::io::Write;

use serde_json::{Value, json};

use super::harness::{BUCKET, Harness};

/// A row of each kind.
const FILE: &str = "\u{feff}Email,First Name,Lifecycle Stage\r\n\
    ada@example.com,Ada,Lead\r\n\
    ADA@example.com,,Customer\r\n\
    bea@example.com,Bea\r\n\
    broken,Cleo,Lead\r\n\
    dan@example.com,Dan,Leed\r\n\
    eve@example.com,Eve,\r\n";

#[tokio::test]
async fn an_upload_becomes_records_a_report_rejects_a_run_and_a_context() {
    let harness = Harness::boot().await;
    let process = harness.process();
    let event = harness.upload("incoming/contacts/a file.csv", FILE);
    let report = harness.answer(&process, &event).await;

    let run_id = report["run_id"].as_str().unwrap().to_owned();
    assert_eq!(run_id.len(), 26, "a ULID");
    for (field, expected) in [
        ("job", json!("import")),
        ("name", json!("contacts")),
        ("outcome", json!("done")),
        ("account", json!("default")),
        (
            "rows",
            json!({ "read": 6, "created": 2, "updated": 0, "unchanged": 0, "merged": 1, "rejected": 3, "deferred": 0 }),
        ),
        ("rejected_by_code", json!({ "INVALID_EMAIL": 1, "INVALID_OPTION": 1, "RAGGED_ROW": 1 })),
        ("rejects", json!(format!("s3://{BUCKET}/rejects/contacts/{run_id}.csv"))),
        ("position", json!({ "byte": FILE.len(), "line": 7 })),
        ("invocations", json!(1)),
        ("error", Value::Null),
    ] {
        assert_eq!(report[field], expected, "{field}");
    }
    let source = &report["source"];
    assert_eq!(source["uri"], format!("s3://{BUCKET}/incoming/contacts/a file.csv"));
    assert_eq!(source["bytes"], FILE.len());
    assert_eq!(source["version_id"], event["Records"][0]["s3"]["object"]["versionId"]);
    assert_eq!(source["etag"], event["Records"][0]["s3"]["object"]["eTag"]);
    for (object, numbers) in [
        ("calls", &["total", "retried", "throttled", "search"][..]),
        ("cost", &["hubspot_calls", "dynamodb_writes", "s3_requests", "lambda_gb_seconds"][..]),
    ] {
        for number in numbers {
            assert!(report[object][*number].is_number(), "{object}.{number}: {}", report[object]);
        }
    }
    assert_eq!(report["calls"]["total"], harness.portal().counts().requests, "what HubSpot saw is what is told");
    assert!(report["cost"]["lambda_gb_seconds"].as_f64().unwrap() > 0.0, "the memory is known from the runtime");
    assert!(report["limit_use_percent"].is_number() || report["limit_use_percent"].is_null());
    let time = |field: &str| report[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took = time("finished_at").duration_since(time("started_at"));
    assert_eq!(report["duration_ms"].as_u64().unwrap(), u64::try_from(took.as_millis()).unwrap());

    // The same object is in S3.
    assert_eq!(harness.json(&format!("s3://{BUCKET}/reports/import/contacts/{run_id}.json")), report);
    let rejects = harness.text(report["rejects"].as_str().unwrap());
    let lines: Vec<&str> = rejects.lines().collect();
    assert_eq!(lines[0], "Email,First Name,Lifecycle Stage,_line,_code,_reason,_hint");
    assert!(lines[1].starts_with("bea@example.com,Bea,,4,RAGGED_ROW,"), "{rejects}");
    assert!(lines[2].starts_with("broken,Cleo,Lead,5,INVALID_EMAIL,"), "{rejects}");
    assert!(
        lines[3].starts_with("dan@example.com,Dan,Leed,6,INVALID_OPTION,") && lines[3].contains("Lead"),
        "{rejects}"
    );
    assert_eq!(lines.len(), 4);

    {
        let portal = harness.portal();
        assert_eq!(portal.record_count("contacts"), 2);
        let ada = portal.find_by("contacts", "email", "ada@example.com").unwrap();
        assert_eq!((ada["firstname"].as_str(), ada["lifecyclestage"].as_str()), ("Ada", "customer"));
    }
    let items = harness.items().await;
    let item = |pk: &str, sk: &str| &items[&(pk.to_owned(), sk.to_owned())];
    let run = item(&format!("run#{run_id}"), "run");
    assert_eq!(run["outcome"], "done");
    assert_eq!(serde_json::from_str::<Value>(&run["report"]).unwrap(), report);
    let context = item("context#import#contacts", "context");
    assert!(context.values().any(|value| value.contains(&run_id)), "{context:?}");
    assert!(items.keys().all(|(pk, _)| pk != "open"), "the run is still open");

    // Again: the earlier report, and nothing written.
    let calls = harness.portal().counts().requests;
    let again = harness.answer(&process, &event).await;
    assert_eq!(
        (&again["outcome"], &again["run_id"], &again["rows"]),
        (&json!("duplicate"), &report["run_id"], &report["rows"])
    );
    assert_eq!(harness.portal().counts().requests, calls);
}

#[tokio::test]
async fn gzip_and_zstd_are_recognised_by_content_whatever_the_name() {
    let harness = Harness::boot().await;
    let process = harness.process();
    let text = "email,firstname\nada@example.com,Ada\nbroken,B\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let files = [
        ("a.csv", gzip.finish().unwrap(), "gzip"),
        ("b.csv.gz", zstd::encode_all(text.as_bytes(), 3).unwrap(), "zstd"),
        ("c.zst", text.as_bytes().to_vec(), "none"),
    ];
    for (name, bytes, compression) in files {
        let event = harness.upload(&format!("incoming/contacts/{name}"), bytes);
        let report = harness.answer(&process, &event).await;
        assert_eq!(
            (&report["outcome"], &report["source"]["compression"]),
            (&json!("done"), &json!(compression)),
            "{report}"
        );
        assert_eq!((&report["rows"]["read"], &report["rows"]["rejected"]), (&json!(2), &json!(1)));
        assert_eq!(report["position"], json!({ "byte": text.len(), "line": 3 }), "the position is one of the text");
    }
    assert_eq!(harness.portal().record_count("contacts"), 1);
}

#[tokio::test]
async fn an_upload_reaches_the_function_as_deployed_and_its_message_is_deleted() {
    let mut settings = hubferry_simulator::hubspot::PortalSettings::default();
    settings.limits.burst = Some(2_000);
    let mut harness = Harness::boot_with(settings, true).await;
    let mut process = harness.process();
    for name in ["one", "two"] {
        harness.upload(&format!("incoming/contacts/{name} (100%) + ü.csv"), format!("email\n{name}@example.com\n"));
    }
    let reports = super::harness::until(&process, "two reports", || {
        let keys = harness.cloud.s3().keys(BUCKET, "reports/import/contacts/");
        (keys.len() == 2).then_some(keys)
    })
    .await;
    for key in reports {
        let report = harness.json(&format!("s3://{BUCKET}/{key}"));
        assert_eq!((&report["outcome"], &report["rows"]["created"]), (&json!("done"), &json!(1)));
    }
    super::harness::until(&process, "an empty queue", || {
        (harness.cloud.sqs().depth(super::harness::QUEUE) == (0, 0, 0)).then_some(())
    })
    .await;
    assert_eq!(harness.portal().record_count("contacts"), 2);
    assert!(harness.is_healthy() && process.is_running());
}

#[tokio::test]
async fn hubspot_down_yields_with_a_continuation_in_the_queue() {
    let harness = Harness::boot().await;
    let process = harness.process();
    let down = hubferry_simulator::hubspot::Fault::always(hubferry_simulator::hubspot::What::Status(503));
    harness.portal().add_fault(down);
    let event = harness.upload("incoming/contacts/a.csv", "email\nada@example.com\n");
    let report = harness.invoke_within(&event, 5).await.unwrap();
    assert_eq!(
        (&report["outcome"], &report["error"]["code"]),
        (&json!("yielded"), &json!("HUBSPOT_UNAVAILABLE")),
        "{report}"
    );
    assert_eq!(report["rows"]["read"], 0);
    assert_eq!(harness.cloud.sqs().depth(super::harness::QUEUE), (0, 0, 1), "one message, delayed");
    harness.portal().clear_faults();
    harness.cloud.clock().advance(std::time::Duration::from_secs(61));
    let message = harness.cloud.sqs().receive(super::harness::QUEUE, 1, None).remove(0);
    let body: Value = serde_json::from_str(&message.body).unwrap();
    assert_eq!(body, json!({ "job": "resume", "run_id": report["run_id"] }));
    let event = hubferry_simulator::aws::events::sqs_event(super::harness::QUEUE, std::slice::from_ref(&message));
    let answer = harness.answer(&process, &event).await;
    assert_eq!(answer["batchItemFailures"], json!([]));
    assert_eq!(
        (&answer["answers"][0]["outcome"], &answer["answers"][0]["run_id"]),
        (&json!("done"), &report["run_id"])
    );
    assert_eq!(answer["answers"][0]["invocations"], 2);
    assert_eq!(harness.portal().record_count("contacts"), 1);
}
