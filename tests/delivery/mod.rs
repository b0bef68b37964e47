//! Delivery of change records in virtual time: what one simulated portal's capture says is what another one has afterwards.

mod basics;
mod content;
mod identity;
mod portals;
mod survival;

use std::{collections::BTreeMap, time::Duration};

use hubferry::{
    clock::Clock as _,
    objects::{Location, Objects as _},
    report::{Outcome, Report},
};
use hubferry_simulator::hubspot::{CustomObject, PortalSettings, PropertyDefinition};
use serde_json::{Value, json};

use crate::support::{BUCKET, World, report};

/// hubferry's own property.
const OWN: &str = "hubferry_hs_object_id_key";

/// A configuration with the import `cdc` of this resource (`incoming/**`); `more` is appended to it.
fn config(resource: &str, more: &str) -> String {
    let mut text = format!(
        "version: 1\nhubspot:\n  default: {{ secret: hubferry/hubspot }}\nimports:\n  - name: cdc\n    match: incoming/**\n    format: opencdc\n    resource: {resource}\n"
    );
    for line in more.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A capture of everything about a resource.
fn capture_config(resource: &str) -> String {
    let extra = if resource.starts_with("cms.") { "" } else { "    extra_properties: all\n" };
    format!(
        "version: 1\nhubspot:\n  default: {{ secret: hubferry/hubspot }}\ncaptures:\n  - name: all\n    resource: {resource}\n    output: s3://crm/captures/all/\n{extra}"
    )
}

/// The settings of both portals, but for their ids: those of the second are the first one's, a little later, so that a foreign id is often
/// somebody else's.
fn settings(second: bool) -> PortalSettings {
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = 100;
    settings.custom_objects = vec![CustomObject {
        object_type_id: if second { "2-77".to_owned() } else { "2-7".to_owned() },
        name: "car".to_owned(),
        properties: vec![PropertyDefinition::new("plate", "string"), PropertyDefinition::new("colour", "string")],
        required: Vec::new(),
        primary_display: "plate".to_owned(),
    }];
    if second {
        settings.portal_id += 1;
        settings.first_record_id += 7;
        settings.seed = 99;
    }
    settings
}

/// One line.
fn line(operation: &str, id: &str, properties: Value) -> String {
    let after = if operation == "delete" { Value::Null } else { json!({ "properties": properties }) };
    json!({ "operation": operation, "key": { "id": id }, "payload": { "before": null, "after": after } }).to_string()
}

/// A file of lines.
fn file(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

async fn later(world: &World, seconds: u64) {
    world.clock.sleep(Duration::from_secs(seconds)).await;
}

/// One run of the capture, to its end.
async fn capture(world: &World) {
    let answer = world.handle(json!({ "job": "capture", "name": "all" })).await.unwrap();
    let report = world.finish(report(answer), 900).await;
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
}

/// The files of a capture, in the order of their keys.
async fn captured(world: &World) -> Vec<(String, bytes::Bytes)> {
    let mut files = Vec::new();
    for at in world.objects.list(&Location::new(BUCKET, "captures/all/")).await.unwrap() {
        if at.key.ends_with(".jsonl.zst") {
            files.push((at.key.replace("captures/all/", ""), world.objects.contents(&at).unwrap()));
        }
    }
    files
}

/// Delivers files one after the other, below this folder.
async fn deliver(world: &World, folder: &str, files: &[(String, bytes::Bytes)]) -> Vec<Report> {
    let mut reports = Vec::new();
    for (key, bytes) in files {
        let report = world.import(&format!("incoming/{folder}/{key}"), bytes.clone()).await;
        let report = world.finish(report, 900).await;
        assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        reports.push(report);
    }
    reports
}

type State = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// What a portal holds, without what is hubferry's own.
fn state(world: &World) -> State {
    let mut state = world.portal.borrow().state();
    for records in state.values_mut() {
        for record in records.iter_mut() {
            record.remove(OWN);
            // The addresses of contacts that were merged into one: HubSpot's own.
            record.remove("hs_additional_emails");
        }
        records.sort();
    }
    state
}

/// Lines and codes of a rejects file of JSON lines.
fn rejects(world: &World, report: &Report) -> Vec<(u64, String)> {
    let Some(at) = &report.rejects else { return Vec::new() };
    let text = world.text(at).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["_line"].as_u64().unwrap(), line["_code"].as_str().unwrap().to_owned())).collect()
}
