//! One thing at a time.

use std::time::Duration;

use hubferry::{clock::Clock as _, report::Position, state::Key, state::Table as _};
use serde_json::json;

use super::{OUTPUT, assert_equal, capture, config, count, lines, settings, told};
use crate::support::World;

fn contact(at: usize) -> [(&'static str, String); 3] {
    [("email", format!("p{at}@example.com")), ("firstname", format!("First{at}")), ("lastname", format!("Last{at}"))]
}

/// Puts so many contacts into the portal; their ids.
fn seed(world: &World, count: usize) -> Vec<String> {
    let now = world.clock.now();
    let mut portal = world.portal.borrow_mut();
    (0..count)
        .map(|at| {
            let row = contact(at);
            let row: Vec<(&str, &str)> = row.iter().map(|(name, value)| (*name, value.as_str())).collect();
            portal.seed_record(now, "contacts", &row).unwrap()
        })
        .collect()
}

async fn later(world: &World, seconds: u64) {
    world.clock.sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_holds_everything_and_changes_follow_it() {
    let world = World::with(&config(""), settings());
    let ids = seed(&world, 250);
    later(&world, 60).await;
    let first = capture(&world).await;
    assert_eq!(told(&first).changes.snapshot, 250);
    assert!(told(&first).manifest.is_some());
    let Position::Capture(position) = &first.position else { panic!("{:?}", first.position) };
    assert!(position.timestamp.is_some());
    let after_snapshot = lines(&world, OUTPUT).await;
    assert_equal(&world, &after_snapshot);
    assert!(after_snapshot.iter().all(|line| line["operation"] == "snapshot"));

    later(&world, 120).await;
    let (edited, created) = {
        let now = world.clock.now();
        let mut portal = world.portal.borrow_mut();
        assert!(portal.edit(now, "contacts", &ids[7], &[("firstname", "Changed")]));
        let created = portal.create_record(now, "contacts", &[("email", "new@example.com")]).unwrap();
        assert!(portal.set_archived(now, "contacts", &ids[9], true));
        (ids[7].clone(), created)
    };
    later(&world, 120).await;
    let second = capture(&world).await;
    let changes = told(&second).changes;
    assert_eq!((changes.snapshot, changes.create, changes.update, changes.delete), (0, 1, 1, 1), "{changes:?}");
    assert!(told(&second).lag_seconds.unwrap() < 60);
    let all = lines(&world, OUTPUT).await;
    assert_equal(&world, &all);
    assert_eq!(count(&all, "create"), [(created, 1)].into());
    assert_eq!(count(&all, "update"), [(edited, 1)].into());
    assert_eq!(count(&all, "delete"), [(ids[9].clone(), 1)].into());

    // When nothing changes nothing is written, and the report says so.
    later(&world, 300).await;
    let third = capture(&world).await;
    assert_eq!(told(&third).objects, 0);
    assert!(third.notes.iter().any(|note| note.contains("nothing")), "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn the_position_reads_as_conduits() {
    let world = World::with(&config(""), settings());
    seed(&world, 3);
    later(&world, 60).await;
    capture(&world).await;
    later(&world, 60).await;
    capture(&world).await;
    let item = world.table.get(&Key::new("capture#contacts", "position")).await.unwrap().unwrap();
    let hubferry::state::Value::S(position) = &item["position"] else { panic!("{item:?}") };
    let position: serde_json::Value = serde_json::from_str(position).unwrap();
    assert_eq!(position["mode"], "cdc");
    for name in ["itemId", "initialTimestamp", "timestamp"] {
        assert!(position[name].is_string(), "{name} in {position}");
    }
    let context = world.table.get(&Key::new("context#capture#contacts", "context")).await.unwrap().unwrap();
    let hubferry::state::Value::S(last) = &context["last_successful_run"] else { panic!("{context:?}") };
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["position"]["mode"], "cdc");
}

#[tokio::test(start_paused = true)]
async fn a_restore_and_a_merge_are_changes_although_no_date_moves() {
    let world = World::with(&config(""), settings());
    let ids = seed(&world, 20);
    later(&world, 60).await;
    capture(&world).await;
    later(&world, 60).await;
    let now = world.clock.now();
    assert!(world.portal.borrow_mut().set_archived(now, "contacts", &ids[3], true));
    assert!(world.portal.borrow_mut().merge(now, "contacts", &ids[5], &ids[6]));
    later(&world, 60).await;
    let report = capture(&world).await;
    assert_eq!((told(&report).changes.delete, told(&report).changes.merged), (2, 1), "{report:?}");
    assert_equal(&world, &lines(&world, OUTPUT).await);

    let now = world.clock.now();
    assert!(world.portal.borrow_mut().set_archived(now, "contacts", &ids[3], false));
    later(&world, 60).await;
    let report = capture(&world).await;
    assert_eq!(told(&report).changes.restored, 1, "{report:?}");
    let all = lines(&world, OUTPUT).await;
    assert_equal(&world, &all);
    let merge = all.iter().find(|line| line["metadata"]["hubferry.change"] == "merge").unwrap();
    assert_eq!(merge["metadata"]["hubferry.mergedInto"], ids[5].as_str());
    assert_eq!(merge["key"]["id"], ids[6].as_str());
    // Nothing is told twice.
    later(&world, 8_000).await;
    let report = capture(&world).await;
    assert_eq!(told(&report).changes.emitted(), 0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn more_than_ten_thousand_changes_in_one_millisecond_are_all_captured() {
    let mut settings = settings();
    settings.latency.fixed_ms = 20;
    let world = World::with(&config("snapshot: false\ndeletes: false\n"), settings);
    later(&world, 60).await;
    let first = capture(&world).await;
    assert_eq!(told(&first).objects, 0);
    later(&world, 60).await;
    let now = world.clock.now();
    let rows = (0..25_000).map(|at| vec![("email", format!("p{at}@example.com"))]);
    let ids = world.portal.borrow_mut().seed_many(now, "contacts", rows);
    assert_eq!(ids.len(), 25_000);
    later(&world, 60).await;
    let report = capture(&world).await;
    assert_eq!(told(&report).changes.create, 25_000);
    let all = lines(&world, OUTPUT).await;
    assert_eq!(count(&all, "create").len(), 25_000);
}

#[tokio::test(start_paused = true)]
async fn an_association_change_is_an_update_with_the_associations_in_it() {
    let world = World::with(&config("associations: [companies]\n"), settings());
    let ids = seed(&world, 30);
    let now = world.clock.now();
    let company = world.portal.borrow_mut().seed_record(now, "companies", &[("name", "A")]).unwrap();
    assert!(world.portal.borrow_mut().associate("contacts", &ids[1], "companies", &company));
    later(&world, 60).await;
    capture(&world).await;
    let first = super::rebuilt(&lines(&world, OUTPUT).await);
    assert_eq!(first[&ids[1]]["associations"]["companies"]["results"][0]["id"], company.as_str());
    assert_eq!(first[&ids[2]]["associations"], json!({}));

    assert!(world.portal.borrow_mut().associate("contacts", &ids[2], "companies", &company));
    assert!(world.portal.borrow_mut().dissociate("contacts", &ids[1], "companies", &company));
    later(&world, 300).await;
    let report = capture(&world).await;
    assert_eq!(told(&report).changes.associations, 2, "{report:?}");
    let now_linked = super::rebuilt(&lines(&world, OUTPUT).await);
    assert_eq!(now_linked[&ids[1]]["associations"], json!({}));
    assert_eq!(now_linked[&ids[2]]["associations"]["companies"]["results"][0]["id"], company.as_str());
    later(&world, 300).await;
    assert_eq!(told(&capture(&world).await).changes.emitted(), 0);
}

#[tokio::test(start_paused = true)]
async fn before_is_what_was_emitted_last() {
    let world = World::with(&config("before: true\n"), settings());
    let ids = seed(&world, 5);
    later(&world, 60).await;
    capture(&world).await;
    for name in ["One", "Two"] {
        later(&world, 60).await;
        let now = world.clock.now();
        assert!(world.portal.borrow_mut().edit(now, "contacts", &ids[0], &[("firstname", name)]));
        later(&world, 60).await;
        capture(&world).await;
    }
    let all = lines(&world, OUTPUT).await;
    let updates: Vec<_> = all.iter().filter(|line| line["operation"] == "update").collect();
    let names = |line: &serde_json::Value, side: &str| line["payload"][side]["properties"]["firstname"].clone();
    let pairs: Vec<_> = updates.iter().map(|line| (names(line, "before"), names(line, "after"))).collect();
    assert_eq!(pairs, [(json!("First0"), json!("One")), (json!("One"), json!("Two"))]);
}

/// Conduit's CMS resources.
const CONTENT: [&str; 7] = [
    "cms.blogs.authors",
    "cms.blogs.posts",
    "cms.blogs.tags",
    "cms.pages.landing",
    "cms.pages.site",
    "cms.hubdb.tables",
    "cms.urlRedirects",
];

#[tokio::test(start_paused = true)]
async fn every_content_resource_is_captured_with_its_deletes() {
    for resource in CONTENT {
        let config = config("").replace("crm.contacts", resource);
        let mut settings = settings();
        settings.unsettled.cms_after_is_offset = true;
        let world = World::with(&config, settings);
        let make = |at: usize| {
            json!({ "name": format!("n{at}"), "label": "L", "slug": format!("s{at}"), "routePrefix": format!("/r{at}"),
                "destination": "/x", "redirectStyle": 301, "email": "a@example.com", "fullName": format!("F{at}") })
        };
        let now = world.clock.now();
        let ids: Vec<String> =
            (0..230).map(|at| world.portal.borrow_mut().create_content(now, resource, &make(at)).unwrap()).collect();
        later(&world, 60).await;
        let first = capture(&world).await;
        assert_eq!(told(&first).changes.snapshot, 230, "{resource}");
        later(&world, 60).await;
        let now = world.clock.now();
        {
            let mut portal = world.portal.borrow_mut();
            portal.edit_content(now, resource, &ids[3], &json!({ "name": "changed", "routePrefix": "/changed" }));
            portal.delete_content(now, resource, &ids[4]);
            portal.create_content(now, resource, &make(900)).unwrap();
        }
        later(&world, 60).await;
        let second = capture(&world).await;
        let changes = told(&second).changes;
        assert_eq!((changes.create, changes.update, changes.delete), (1, 1, 1), "{resource}: {changes:?}");
        let rebuilt = super::rebuilt(&lines(&world, OUTPUT).await);
        let live = world.portal.borrow().live_content(resource);
        assert_eq!(rebuilt.len(), live.len(), "{resource}");
        for item in live {
            let id = item["id"].as_str().unwrap();
            assert_eq!(rebuilt[id]["name"], item["name"], "{resource} {id}");
        }
        later(&world, 8_000).await;
        assert_eq!(told(&capture(&world).await).changes.emitted(), 0, "{resource}");
    }
}

/// Conduit's CRM resources that are not contacts, and some of no connector.
const RECORDS: [(&str, &str); 13] = [
    ("crm.companies", "companies"),
    ("crm.deals", "deals"),
    ("crm.feedbackSubmissions", "feedback_submissions"),
    ("crm.lineItems", "line_items"),
    ("crm.products", "products"),
    ("crm.tickets", "tickets"),
    ("crm.quotes", "quotes"),
    ("crm.calls", "calls"),
    ("crm.emails", "emails"),
    ("crm.meetings", "meetings"),
    ("crm.notes", "notes"),
    ("crm.tasks", "tasks"),
    ("leads", "leads"),
];

#[tokio::test(start_paused = true)]
async fn every_crm_resource_is_captured_by_its_own_dates() {
    for (resource, object) in RECORDS {
        let world = World::with(&config("extra_properties: all\n").replace("crm.contacts", resource), settings());
        let now = world.clock.now();
        let ids: Vec<String> =
            (0..120).map(|_| world.portal.borrow_mut().seed_record(now, object, &[]).unwrap()).collect();
        later(&world, 60).await;
        assert_eq!(told(&capture(&world).await).changes.snapshot, 120, "{resource}");
        later(&world, 60).await;
        let now = world.clock.now();
        {
            let mut portal = world.portal.borrow_mut();
            assert!(portal.edit(now, object, &ids[3], &[]));
            assert!(portal.set_archived(now, object, &ids[4], true));
            portal.create_record(now, object, &[]).unwrap();
        }
        later(&world, 60).await;
        let changes = told(&capture(&world).await).changes;
        assert_eq!((changes.create, changes.update, changes.delete), (1, 1, 1), "{resource}: {changes:?}");
        let all = lines(&world, OUTPUT).await;
        let collection = if resource == "leads" { "crm.leads" } else { resource };
        assert!(all.iter().all(|line| line["metadata"]["opencdc.collection"] == collection), "{resource}");
        assert_eq!(super::rebuilt(&all).len(), 120, "{resource}");
    }
}
