//! Settings that are absent, broken, mended, changed: told at each invocation, without a restart.

use serde_json::json;

use super::harness::{Harness, Process, Variables};

/// A broken file: five mistakes, each at a place of its own.
const FIVE_MISTAKES: &str = "\
version: 1
hubspot:
  default: { secrt: hubferry/hubspot, secret: hubferry/hubspot }
imports:
  - name: contacts
    match: incoming/contacts/*
    object: contacts
    key: email
    hubspot: nobody
    mode: upsertt
    abort_if_rejected: 200%
  - name: contacts
    match: incoming/people/*
    object: contacts
    key: email
";

/// What each of them is told by.
const TOLD: [&str; 5] = ["secrt", "nobody", "upsertt", "abort_if_rejected", "imports[1]"];

fn with_config(harness: &Harness, config: Option<&str>) -> Process {
    harness.process_with(&Variables(vec![("HUBFERRY_CONFIG", config.map(str::to_owned))]))
}

#[tokio::test]
async fn a_configuration_in_s3_is_read_again_when_it_changes_and_when_it_is_mended() {
    let harness = Harness::boot().await;
    let put = |text: &str| harness.cloud.s3().put("settings", "hubferry.yaml", text.to_owned()).unwrap();
    put(FIVE_MISTAKES);
    let process = with_config(&harness, Some("s3://settings/hubferry.yaml"));
    let event = harness.upload("incoming/contacts/a.csv", "email,nick\nada@example.com,Ada\n");
    for _ in 0..2 {
        let (kind, message) = harness.refusal(&process, &event).await;
        assert_eq!(kind, "CONFIG_INVALID");
        for told in TOLD {
            assert!(message.contains(told), "`{told}` is not told:\n{message}");
        }
        assert!(message.contains("settings/hubferry.yaml"), "{message}");
    }
    assert_eq!(harness.portal().counts().requests, 0);

    put(&harness.config(""));
    let report = harness.answer(&process, &event).await;
    assert_eq!((&report["outcome"], &report["ignored_columns"]), (&json!("done"), &json!(["nick"])));

    // A mapping changes without a deploy.
    put(&harness.config("    columns: { email: email, nick: firstname }\n"));
    let event = harness.upload("incoming/contacts/b.csv", "email,nick\nada@example.com,Ada\n");
    let report = harness.answer(&process, &event).await;
    assert_eq!((&report["outcome"], &report["rows"]["updated"]), (&json!("done"), &json!(1)));
    let ada = harness.portal().find_by("contacts", "email", "ada@example.com").unwrap();
    assert_eq!(ada["firstname"], "Ada");

    // Broken again, and not found: told again, and nothing is done by the old one.
    put("version: 1\nimports: 7\n");
    let event = harness.upload("incoming/contacts/c.csv", "email\nbea@example.com\n");
    assert_eq!(harness.refusal(&process, &event).await.0, "CONFIG_INVALID");
    assert_eq!(harness.portal().record_count("contacts"), 1);
}

#[tokio::test]
async fn without_a_configuration_each_invocation_says_what_is_missing_and_the_process_lives() {
    let harness = Harness::boot().await;
    for (config, told) in [
        (None, "HUBFERRY_CONFIG"),
        (Some(""), "HUBFERRY_CONFIG"),
        (Some("missing/hubferry.yaml"), "missing/hubferry.yaml"),
        (Some("s3://settings/none.yaml"), "s3://settings/none.yaml"),
        (Some("s3://settings"), "s3://settings"),
    ] {
        let mut process = with_config(&harness, config);
        for _ in 0..2 {
            let (kind, message) = harness.refusal(&process, &json!({ "job": "resume" })).await;
            assert_eq!(kind, "CONFIG_MISSING", "{config:?}: {message}");
            assert!(message.contains(told), "{config:?}: {message}");
        }
        assert!(process.is_running());
        process.kill().await;
    }
}

#[tokio::test]
async fn a_file_of_settings_that_was_broken_at_start_works_once_it_is_mended() {
    let harness = Harness::boot().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hubferry.yaml");
    std::fs::write(&path, FIVE_MISTAKES).unwrap();
    let process = with_config(&harness, path.to_str());
    assert_eq!(harness.refusal(&process, &json!({ "job": "resume" })).await.0, "CONFIG_INVALID");
    std::fs::write(&path, harness.config("")).unwrap();
    let answer = harness.answer(&process, &json!({ "job": "resume" })).await;
    assert_eq!(answer["outcome"], "nothing");
}

#[tokio::test]
async fn without_a_table_nothing_is_done_and_the_variable_is_named() {
    let harness = Harness::boot().await;
    let settings = ("HUBFERRY_CONFIG", Some("s3://settings/hubferry.yaml".to_owned()));
    harness.cloud.s3().put("settings", "hubferry.yaml", harness.config("")).unwrap();
    let event = harness.upload("incoming/contacts/a.csv", "email\nada@example.com\n");
    let process = harness.process_with(&Variables(vec![settings.clone(), ("HUBFERRY_TABLE", None)]));
    let (kind, message) = harness.refusal(&process, &event).await;
    assert_eq!(kind, "CONFIG_MISSING");
    assert!(message.contains("HUBFERRY_TABLE"), "{message}");
    process.kill().await;

    let elsewhere = Some("elsewhere".to_owned());
    let process = harness.process_with(&Variables(vec![settings, ("HUBFERRY_TABLE", elsewhere)]));
    let (kind, message) = harness.refusal(&process, &event).await;
    assert_eq!(kind, "STATE_UNAVAILABLE");
    assert!(message.contains("elsewhere"), "{message}");
    assert_eq!(harness.portal().counts().requests, 0);
}
