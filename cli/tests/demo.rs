//! The binary as a user runs it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn hubferry(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hubferry")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_demo_accounts_for_every_row_and_writes_nothing_the_second_time() {
    let temporary = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hubferry"))
        .args(["demo", "--rows", "300", "--json"])
        // A machine with an AWS set-up of its own must not be asked.
        .env("AWS_PROFILE", "nobody")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{error}\n{out}");
    assert_eq!(out.lines().count(), 1, "one line of JSON: {out}");
    let result: Value = serde_json::from_str(&out).unwrap();

    let rows = &result["report"]["rows"];
    let count = |name: &str| rows[name].as_u64().unwrap();
    let parts = ["created", "updated", "unchanged", "merged", "rejected", "deferred"];
    assert_eq!(result["report"]["outcome"], "done");
    assert_eq!(count("read"), 300);
    assert_eq!(count("read"), parts.iter().map(|part| count(part)).sum::<u64>(), "{rows}");
    for part in ["created", "updated", "merged", "rejected"] {
        assert!(count(part) > 0, "{part}: {rows}");
    }
    assert_eq!(count("deferred"), 0, "{rows}");
    for code in [
        "INVALID_EMAIL",
        "KEY_BLANK",
        "INVALID_OPTION",
        "INVALID_DATE",
        "INVALID_LONG",
        "INVALID_BOOLEAN",
        "INVALID_OWNER",
        "RAGGED_ROW",
        "UNTERMINATED_QUOTE",
    ] {
        assert!(result["report"]["rejected_by_code"][code].as_u64() > Some(0), "{code}: {}", result["report"]);
    }
    assert_eq!(result["rejects"].as_u64(), Some(count("rejected")), "a line for each reject");
    assert_eq!(result["hubspot"]["throttled"], 0);

    assert_eq!(result["again"]["outcome"], "duplicate");
    assert_eq!(result["again"]["run_id"], result["report"]["run_id"]);
    assert_eq!((&result["hubspot"]["calls_again"], &result["hubspot"]["writes_again"]), (&0.into(), &0.into()));

    let folder = std::path::Path::new(result["folder"].as_str().unwrap());
    let rejects = std::fs::read_to_string(folder.join("rejects.csv")).unwrap();
    assert!(rejects.contains("GDPR"), "what only HubSpot knows is a reject too: {rejects}");
    assert!(rejects.contains("'=HYPERLINK"), "a formula is harmless in the rejects file: {rejects}");
    for name in ["contacts.csv", "rejects.csv", "report.json", "function.log"] {
        assert!(folder.join(name).metadata().unwrap().len() > 0, "{name}");
    }
}

#[test]
fn exit_codes_are_those_of_the_help() {
    let schema = hubferry(&["schema"]);
    assert_eq!(schema.status.code(), Some(0));
    assert!(serde_json::from_slice::<Value>(&schema.stdout).unwrap().is_object());

    let unknown = hubferry(&["explain", "INVALID_OPTIONS"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("INVALID_OPTION"), "{unknown:?}");

    let nonsense = hubferry(&["demo", "--rows", "7"]);
    assert_eq!(nonsense.status.code(), Some(2));

    let help = hubferry(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Exit codes:"), "{help:?}");
    let completions = hubferry(&["completions", "bash"]);
    assert!(text(&completions.stdout).contains("hubferry"), "{completions:?}");
}
