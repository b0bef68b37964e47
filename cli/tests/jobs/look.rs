//! `hubferry status` and `hubferry report`.

use std::fs;

use serde_json::{Value, json};

use crate::world::{BUCKET, World, text};

#[test]
fn status_says_what_never_ran_what_ran_and_where_captures_stand_and_makes_nothing() {
    let world = World::new();
    let looked = world.command(&["status", "--local"]).env_remove("HUBSPOT_ACCESS_TOKEN").output().unwrap();
    let out = text(&looked.stdout);
    assert_eq!((looked.status.code(), out.matches("never ran").count()), (Some(0), 3), "{looked:?}");
    assert!(!world.path(".hubferry").exists(), "looking makes nothing");

    world.write("incoming/contacts/a.csv", &(World::contacts(20) + "x,y\n"));
    let (report, _) = world.json(&["import", "incoming/contacts/a.csv", "--local"]);
    world.write("bad.csv", "Nothing\n1\n");
    let (bad, _) = world.json(&["import", "bad.csv", "--as", "contacts", "--local"]);
    let (captured, _) = world.json(&["capture", "people", "--local"]);
    let calls = world.portal().counts();
    let (status, code) = world.json(&["status", "--local"]);
    assert_eq!(code, 0);
    let members: Vec<&str> = status.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["at", "state", "imports", "captures", "syncs", "open_runs"], "the shape is stable");
    let contacts = &status["imports"][0];
    assert_eq!((&contacts["name"], &contacts["account"]), (&"contacts".into(), &"default".into()), "{status}");
    assert_eq!(
        (&contacts["last_run"]["run_id"], &contacts["last_run"]["outcome"]),
        (&bad["run_id"], &"invalid".into())
    );
    let good = &contacts["last_successful_run"];
    assert_eq!(
        (&good["run_id"], &good["rows"], &good["position"]),
        (&report["run_id"], &report["rows"], &report["position"])
    );
    assert_eq!(status["imports"][1]["last_run"], Value::Null);
    let people = &status["captures"][0];
    assert_eq!((&people["position"], &people["resource"]), (&captured["position"], &"crm.contacts".into()), "{people}");
    assert_eq!(status["open_runs"], json!([]));
    assert_eq!(world.portal().counts(), calls, "HubSpot is not asked");

    let out = text(&world.run(&["status", "--local"]).stdout);
    for part in ["import contacts\n", "  last run    ", "invalid, ", "  last good   ", "  never ran", "changes before "]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.lines().filter(|line| !line.contains('/')).all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn a_report_is_one_page_that_needs_nothing_else_and_holds_every_count() {
    let world = World::new();
    world.write("<script>alert('x')&.csv", &(World::contacts(40) + "x,y\n,z\n"));
    let (report, _) = world.json(&["import", "<script>alert('x')&.csv", "--as", "contacts", "--local"]);
    let id = report["run_id"].as_str().unwrap();
    let output = world.run(&["report", id, "--local"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), format!("{id}.html\n")), "{output:?}");
    let page = fs::read_to_string(world.path(&format!("{id}.html"))).unwrap();
    for part in [
        "<!DOCTYPE html>",
        "42 rows were read; every row is accounted for.",
        "aria-label=\"40 created, 2 rejected\"",
        "INVALID_EMAIL",
        "Correct the address.",
        "## What to do",
        "&lt;script&gt;alert(&#39;x&#39;)&amp;.csv",
        "prefers-color-scheme:dark",
        "@media print",
        "Calls to HubSpot",
        "of the account&#39;s limit",
        "utf-8",
    ] {
        assert!(page.contains(part) || page.contains(&part.replace("&#39;s limit", "'s limit")), "{part}: {page}");
    }
    for outside in ["<script", "http://", "https://", "<link", "url(", "@import", "<img"] {
        assert!(!page.contains(outside), "{outside} needs something else, or runs");
    }
    for (open, close) in [("<table", "</table>"), ("<svg", "</svg>"), ("<details", "</details>"), ("<td", "</td>")] {
        assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
    }

    let (stored, code) = world.json(&["report", id, "--local"]);
    assert_eq!((&stored, code), (&report, 0), "as it was answered");
    let file = format!(".hubferry/reports/import/contacts/{id}.json");
    let output = world.run(&["report", &file, "--out", "-", "--local"]);
    assert_eq!(text(&output.stdout), page, "the stored file makes the same page");
    let (error, code) = world.json(&["report", "01M81X8WAQPWTZFPPZ0WHP7FWS", "--local"]);
    assert_eq!((&error["error"]["code"], code), (&"NAME_UNKNOWN".into(), 1), "{error}");

    let (capture, _) = world.json(&["capture", "people", "--local"]);
    let page = text(&world.run(&["report", capture["run_id"].as_str().unwrap(), "--out", "-", "--local"]).stdout);
    assert!(page.contains("In the snapshot</th><td>40</td>"), "{page}");
}

#[test]
fn status_and_report_of_runs_in_the_table_are_the_same() {
    let world = World::new().with_cloud();
    let cloud = world.cloud.clone().unwrap();
    cloud.s3().put(BUCKET, "incoming/contacts/a.csv", World::contacts(3));
    let (report, _) = world.json(&["import", "s3://crm/incoming/contacts/a.csv"]);
    let (status, _) = world.json(&["status"]);
    assert_eq!(status["imports"][0]["last_run"]["run_id"], report["run_id"], "{status}");
    assert_eq!(status["state"], "the DynamoDB table hubferry");
    let uri = format!("s3://crm/reports/import/contacts/{}.json", report["run_id"].as_str().unwrap());
    let (stored, code) = world.json(&["report", &uri]);
    assert_eq!((&stored, code), (&report, 0));
}
