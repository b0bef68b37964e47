//! What a user sees of a plain import.

use hubferry::{
    objects::{Location, Objects},
    report::Outcome,
};
use serde_json::json;

use crate::support::{World, contacts, rejects, report};

#[tokio::test(start_paused = true)]
async fn rows_become_contacts_and_every_row_is_accounted_for() {
    // GIVEN a file with a duplicate in other case, a bad address, a wrong option and a ragged row
    let world = World::new(&contacts(
        "columns:\n  Email: email\n  First: firstname\n  Stage: { property: lifecyclestage, values: { Hot: opportunity } }",
    ));
    let file = "\u{feff}Email,First,Stage\n\
        ada@x.io,Ada,Hot\n\
        ADA@X.io, Eda ,\n\
        nobody,No,Lead\n\
        bob@x.io,Bob,Subscriber\n\
        cyd@x.io,Cyd,nonsense\n\
        dan@x.io,Dan\n";
    // WHEN it lands
    let report = world.import("incoming/contacts/a.csv", file).await;
    // THEN
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    let rows = report.rows;
    assert_eq!((rows.read, rows.created, rows.merged, rows.rejected), (6, 2, 1, 3), "{report:?}");
    assert_eq!(world.contact("ada@x.io", "firstname").as_deref(), Some("Eda"));
    assert_eq!(world.contact("ada@x.io", "lifecyclestage").as_deref(), Some("opportunity"));
    assert_eq!(world.contact("bob@x.io", "lifecyclestage").as_deref(), Some("subscriber"));
    let text = world.text(report.rejects.as_deref().unwrap()).unwrap();
    assert!(text.starts_with("Email,First,Stage,_line,_code,_reason,_hint\n"), "{text}");
    let expected = [(4, "INVALID_EMAIL"), (6, "INVALID_OPTION"), (7, "RAGGED_ROW")];
    assert_eq!(rejects(&text), expected.map(|(line, code)| (line, code.to_owned())));
    assert_eq!(report.rejected_by_code.values().sum::<u64>(), 3);
    assert_eq!(report.position.file().byte, file.len() as u64);
    assert_eq!(report.position.file().line, 7);
    let stored =
        world.text(&format!("s3://crm/reports/import/contacts/{}.json", report.run_id.clone().unwrap())).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stored).unwrap(), serde_json::to_value(&report).unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_same_event_again_answers_with_the_first_report_and_writes_nothing() {
    let world = World::new(&contacts(""));
    let event = world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,A\n").await;
    let first = report(world.handle(event.clone()).await.unwrap());
    let calls = world.portal.borrow().counts().requests;
    let again = report(world.handle(event).await.unwrap());
    assert_eq!(again.outcome, Outcome::Duplicate);
    assert_eq!(again.run_id, first.run_id);
    assert_eq!(again.rows, first.rows);
    assert_eq!(world.portal.borrow().counts().requests, calls);
}

#[tokio::test(start_paused = true)]
async fn an_older_event_of_the_same_key_is_superseded() {
    let world = World::new(&contacts(""));
    let older = world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,Old\n").await;
    let newer = world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,New\n").await;
    report(world.handle(newer).await.unwrap());
    let late = report(world.handle(older).await.unwrap());
    assert_eq!(late.outcome, Outcome::Superseded);
    assert_eq!(world.contact("a@x.io", "firstname").as_deref(), Some("New"));
}

#[tokio::test(start_paused = true)]
async fn empty_files_are_done_runs_of_no_rows() {
    let world = World::new(&contacts(""));
    for (name, bytes) in [("empty", ""), ("bom", "\u{feff}"), ("header", "email,firstname\n"), ("blank", "\n\n")] {
        let report = world.import(&format!("incoming/contacts/{name}.csv"), bytes).await;
        assert_eq!((report.outcome, report.rows.read), (Outcome::Done, 0), "{name}: {report:?}");
        assert!(!report.notes.is_empty(), "a run with nothing to do says so");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejects_file_that_was_fixed_and_dropped_back_imports() {
    let world = World::new(&contacts(""));
    let first = world.import("incoming/contacts/a.csv", "email,firstname\nbroken,\"=1+1\"\n").await;
    assert_eq!(first.rows.rejected, 1);
    let text = world.text(first.rejects.as_deref().unwrap()).unwrap();
    let fixed = text.replace("broken", "fixed@x.io");
    let second = world.import("incoming/contacts/fixed.csv", fixed).await;
    assert_eq!((second.outcome, second.rows.created), (Outcome::Done, 1), "{second:?}");
    assert_eq!(world.contact("fixed@x.io", "firstname").as_deref(), Some("=1+1"));
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_does_not_fit_is_invalid_and_names_every_problem() {
    let world = World::new(&contacts(
        "columns: { Email: email, A: firstname, B: firstname, C: no_such_property, D: createdate }",
    ));
    let report = world.import("incoming/contacts/a.csv", "Email,A,B,C,D\na@x.io,1,2,3,4\n").await;
    assert_eq!(report.outcome, Outcome::Invalid);
    let message = report.error.unwrap().message;
    for code in ["DUPLICATE_PROPERTY", "PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE"] {
        assert!(message.contains(code), "{code} is missing in: {message}");
    }
    assert_eq!(world.portal.borrow().record_count("contacts"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_no_import_matches_is_left_alone_and_the_answer_says_so() {
    let world = World::new(&contacts(""));
    let event = world.upload("elsewhere/a.csv", "email\na@x.io\n").await;
    let answer = serde_json::to_value(world.handle(event).await.unwrap()).unwrap();
    assert_eq!(answer, json!({ "outcome": "nothing", "message": "no import matches s3://crm/elsewhere/a.csv" }));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_was_deleted_before_the_run_fails_with_source_gone() {
    let world = World::new(&contacts(""));
    let event = world.upload("incoming/contacts/a.csv", "email\na@x.io\n").await;
    world.objects.delete(&Location::new("crm", "incoming/contacts/a.csv")).await.unwrap();
    let mut event = event;
    event["Records"][0]["s3"]["object"].as_object_mut().unwrap().remove("versionId");
    let report = report(world.handle(event).await.unwrap());
    assert_eq!((report.outcome, report.error.unwrap().code.as_str()), (Outcome::Failed, "SOURCE_GONE"));
}

#[tokio::test(start_paused = true)]
async fn a_large_file_keeps_the_limit_used_without_a_429() {
    let world = World::new(&contacts(""));
    let mut file = String::from("email,firstname,lastname\n");
    for number in 0..60_000 {
        file.push_str(&format!("person{number}@example.com,First{number},Last{number}\n"));
    }
    let report = world.import("incoming/contacts/large.csv", file).await;
    assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 60_000), "{report:?}");
    assert_eq!(report.calls.throttled, 0);
    assert!(report.limit_use_percent.unwrap() >= 97.0, "{:?}", report.limit_use_percent);
    assert!(world.portal.borrow().max_calls_in_window() <= 190);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_meets_its_deadline_yields_and_is_continued_to_the_end() {
    let world = World::new(&contacts(""));
    let mut file = String::from("email,firstname\n");
    for number in 0..30_000 {
        let name = if number % 100 == 7 { "bad,extra" } else { "ok" };
        file.push_str(&format!("person{number}@example.com,{name}\n"));
    }
    let event = world.upload("incoming/contacts/large.csv", file).await;
    let first = report(world.handle_within(event, 6).await.unwrap());
    assert_eq!(first.outcome, Outcome::Yielded, "{first:?}");
    assert!(first.rows.read > 0 && first.rows.read < 30_000);
    let last = world.finish(first, 6).await;
    assert_eq!((last.outcome, last.rows.read), (Outcome::Done, 30_000), "{last:?}");
    assert_eq!((last.rows.created, last.rows.rejected), (29_700, 300));
    assert!(last.invocations > 2);
    let text = world.text(last.rejects.as_deref().unwrap()).unwrap();
    let lines: Vec<u64> = rejects(&text).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, (0..300).map(|number| number * 100 + 9).collect::<Vec<_>>());
    let left = world.objects.list(&Location::new("crm", "state/")).await.unwrap();
    assert!(left.is_empty(), "working files are left: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn json_lines_import_as_rows_do_and_their_rejects_are_json_lines() {
    let world = World::new(&contacts("format: jsonl\ncolumns: { mail: email, name: firstname }"));
    let file = "{\"mail\":\"a@x.io\",\"name\":\"A\",\"extra\":1}\n\nnot json\n{\"mail\":\"bad\",\"name\":\"B\"}\n{\"name\":\"C\",\"mail\":\"c@x.io\"}";
    let report = world.import("incoming/contacts/a.jsonl", file).await;
    assert_eq!((report.outcome, report.rows.created, report.rows.rejected), (Outcome::Done, 2, 2), "{report:?}");
    assert_eq!(world.contact("c@x.io", "firstname").as_deref(), Some("C"));
    assert_eq!(report.ignored_columns, ["extra"]);
    let text = world.text(report.rejects.as_deref().unwrap()).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["_raw"], "not json");
    assert_eq!((&lines[0]["_line"], &lines[0]["_code"]), (&json!(3), &json!("INVALID_JSON")));
    assert_eq!((&lines[1]["mail"], &lines[1]["_code"]), (&json!("bad"), &json!("INVALID_EMAIL")));
    let fixed = text.replace("\"bad\"", "\"b@x.io\"").replace("\"_raw\":\"not json\"", "\"mail\":\"d@x.io\"");
    let again = world.import("incoming/contacts/fixed.jsonl", fixed).await;
    assert_eq!((again.rows.created, again.rows.rejected), (2, 0), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_overwritten_during_its_run_ends_as_the_newer_one() {
    // GIVEN a run that is under way
    let world = World::new(&contacts(""));
    let file = |name: &str| {
        let mut file = String::from("email,firstname\n");
        for number in 0..8_000 {
            file.push_str(&format!("person{number}@example.com,{name}\n"));
        }
        file
    };
    let older = world.upload("incoming/contacts/a.csv", file("Old")).await;
    let newer = async {
        use hubferry::clock::Clock;
        world.clock.sleep(std::time::Duration::from_millis(1_500)).await;
        // WHEN the object is overwritten
        let event = world.upload("incoming/contacts/a.csv", file("New")).await;
        report(world.handle(event).await.unwrap())
    };
    let (older, newer) = futures_util::join!(world.handle(older), newer);
    // THEN the older run stops, and the newer one's rows are what is left
    assert_eq!(report(older.unwrap()).outcome, Outcome::Superseded);
    assert_eq!((newer.outcome, newer.rows.read), (Outcome::Done, 8_000), "{newer:?}");
    let portal = world.portal.borrow();
    assert!(portal.records("contacts").all(|contact| contact["firstname"] == "New"));
    assert_eq!(portal.record_count("contacts"), 8_000);
}
