//! Whole captures in virtual time: what lies in S3 afterwards is what HubSpot has.

mod basics;
mod csv;
mod lists;
pub(crate) mod opencdc;
mod parquet;
mod trouble;
mod world;

use std::{collections::BTreeMap, io::Read as _};

use hubferry::{
    objects::{Location, Objects as _},
    report::{CaptureReport, Outcome, Report},
};
use hubferry_simulator::hubspot::PortalSettings;
use serde_json::{Value, json};

use crate::support::{BUCKET, World, report};

/// Where captures write.
pub(crate) const OUTPUT: &str = "captures/contacts/";

/// A configuration with the capture `contacts`; `more` is appended to it.
pub(crate) fn config(more: &str) -> String {
    let mut text = String::from(
        "version: 1\nhubspot:\n  default: { secret: hubferry/hubspot }\ncaptures:\n  - name: contacts\n    resource: crm.contacts\n    output: s3://crm/captures/contacts/\n",
    );
    for line in more.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

pub(crate) fn settings() -> PortalSettings {
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = 100;
    settings
}

/// One run, to its end.
pub(crate) async fn capture(world: &World) -> Report {
    let answer = world.handle(json!({ "job": "capture", "name": "contacts" })).await.unwrap();
    let report = report(answer);
    let report = world.finish(report, 900).await;
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    report
}

/// What a capture's report says of it.
pub(crate) fn told(report: &Report) -> &CaptureReport {
    report.capture.as_ref().unwrap()
}

/// The lines of all objects, in the order of keys.
pub(crate) async fn lines(world: &World, folder: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    for location in world.objects.list(&Location::new(BUCKET, folder)).await.unwrap() {
        lines.extend(lines_of(world, &location));
    }
    lines
}

/// The lines of one object.
pub(crate) fn lines_of(world: &World, location: &Location) -> Vec<Value> {
    let bytes = world.objects.contents(location).unwrap();
    assert!(location.key.ends_with(".jsonl.zst"), "{location}");
    let mut text = String::new();
    zstd::stream::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap();
    // Every line is one that a strict consumer accepts.
    opencdc::decode_all(&text).unwrap_or_else(|error| panic!("{location}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a consumer has that applied the lines one after the other: by id, the object as HubSpot answered it.
pub(crate) fn rebuilt(lines: &[Value]) -> BTreeMap<String, Value> {
    let mut records = BTreeMap::new();
    for line in lines {
        let id = line["key"]["id"].as_str().unwrap().to_owned();
        match line["operation"].as_str().unwrap() {
            "delete" => {
                assert!(line["payload"]["after"].is_null(), "{line}");
                records.remove(&id);
            }
            _ => {
                assert_eq!(line["payload"]["after"]["id"], id.as_str(), "{line}");
                records.insert(id, line["payload"]["after"].clone());
            }
        }
    }
    records
}

/// How often each id was told by this operation.
pub(crate) fn count(lines: &[Value], operation: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines.iter().filter(|line| line["operation"] == operation) {
        *counts.entry(line["key"]["id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

const COMPARED: [&str; 4] = ["email", "firstname", "lastname", "lastmodifieddate"];

/// What was rebuilt is what the portal has.
pub(crate) fn assert_equal(world: &World, lines: &[Value]) {
    let rebuilt = rebuilt(lines);
    let portal = world.portal.borrow();
    let live: BTreeMap<String, BTreeMap<String, Option<String>>> = portal
        .live_objects("contacts", &COMPARED)
        .map(|object| (object.id.to_string(), object.properties.into_iter().map(|(k, v)| (k.to_string(), v)).collect()))
        .collect();
    let missing: Vec<&String> = live.keys().filter(|id| !rebuilt.contains_key(*id)).collect();
    let spare: Vec<&String> = rebuilt.keys().filter(|id| !live.contains_key(*id)).collect();
    assert!(missing.is_empty() && spare.is_empty(), "missing in S3: {missing:?}; not in HubSpot: {spare:?}");
    for (id, properties) in live {
        for (name, value) in properties {
            let captured = rebuilt[&id]["properties"][&name].as_str();
            assert_eq!(captured, value.as_deref(), "{id} {name}");
        }
    }
}

/// The associations with companies that were rebuilt are those that the portal has.
pub(crate) fn assert_linked(world: &World, lines: &[Value]) {
    let portal = world.portal.borrow();
    for (id, object) in rebuilt(lines) {
        let results = object["associations"]["companies"]["results"].as_array().cloned().unwrap_or_default();
        let mut captured: Vec<&str> = results.iter().filter_map(|link| link["id"].as_str()).collect();
        captured.sort_unstable();
        captured.dedup();
        let mut there = portal.associations_of("contacts", &id, "companies");
        there.sort_unstable();
        assert_eq!(captured, there, "{id}");
    }
}
