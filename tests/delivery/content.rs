//! Content of one portal, delivered into another, one thing at a time.

use std::collections::BTreeMap;

use hubferry::{clock::Clock as _, objects::Location, report::Outcome};
use hubferry_simulator::hubspot::{Faults, Portal, PortalSettings};
use serde_json::{Value, json};

use super::{capture, capture_config, captured, config, deliver, later, rejects, settings};
use crate::support::{BUCKET, World};

/// Conduit's seven.
const CONTENT: [&str; 7] = [
    "cms.blogs.authors",
    "cms.blogs.posts",
    "cms.blogs.tags",
    "cms.pages.landing",
    "cms.pages.site",
    "cms.hubdb.tables",
    "cms.urlRedirects",
];

/// What is recognised by its slug, its name or its route.
fn thing(resource: &str, n: usize) -> Value {
    match resource {
        "cms.urlRedirects" => {
            json!({ "routePrefix": format!("/old/{n}"), "destination": format!("/new/{n}"), "redirectStyle": 301, "isPattern": false })
        }
        "cms.hubdb.tables" => {
            json!({ "name": format!("table_{n}"), "label": format!("Table {n}"), "columns": [{ "name": "a", "type": "TEXT" }] })
        }
        // Every third is without a slug, and its name is not its own.
        _ if n.is_multiple_of(3) => json!({ "name": format!("Same {}", n % 2), "language": "en" }),
        _ => json!({ "name": format!("Name {n}"), "slug": format!("s/{n}"), "language": "en" }),
    }
}

/// What is there, without ids and times, in an order of its own.
fn contents(portal: &Portal, resource: &str) -> Vec<String> {
    let own = ["id", "created", "updated", "createdAt", "updatedAt", "deletedAt", "archivedAt"];
    let plain = |thing: Value| {
        let Value::Object(members) = thing else { panic!("{thing}") };
        let members: BTreeMap<String, Value> =
            members.into_iter().filter(|(name, value)| !own.contains(&name.as_str()) && !value.is_null()).collect();
        json!(members).to_string()
    };
    let mut all: Vec<String> = portal.live_content(resource).into_iter().map(plain).collect();
    all.sort();
    all
}

fn both(source: &World, world: &World, resource: &str) -> (Vec<String>, Vec<String>) {
    (contents(&source.portal.borrow(), resource), contents(&world.portal.borrow(), resource))
}

/// A portal whose content has a history, captured.
async fn lived(resource: &str, count: usize, seed: u64) -> World {
    let world = World::with(&capture_config(resource), settings(false));
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut made = 0;
    for round in 0..3 {
        {
            let now = world.clock.now();
            let mut portal = world.portal.borrow_mut();
            let actions = if round == 0 { count } else { count / 3 };
            for _ in 0..actions {
                let live = portal.live_content(resource);
                let any = live.get(rng.usize(0..live.len().max(1))).and_then(|thing| thing["id"].as_str());
                match (rng.u8(0..4), any) {
                    (0, Some(id)) if round > 0 => {
                        portal.delete_content(now, resource, id);
                    }
                    (1 | 2, Some(id)) if round > 0 => {
                        let text = format!("Changed {}", rng.u32(..));
                        let member = if resource == "cms.urlRedirects" { "destination" } else { "name" };
                        portal.edit_content(now, resource, id, &json!({ member: text }));
                    }
                    _ => {
                        made += 1;
                        portal.create_content(now, resource, &thing(resource, made)).unwrap();
                    }
                }
            }
        }
        later(&world, 90).await;
        capture(&world).await;
        later(&world, 90).await;
    }
    world
}

fn second(seed: u64) -> PortalSettings {
    let mut settings = settings(true);
    settings.seed = seed;
    settings.unsettled.cms_keeps_unknown_members = false;
    settings
}

#[tokio::test(start_paused = true)]
async fn every_content_resource_is_delivered_as_it_was_captured_and_twice_is_once() {
    for (at, resource) in CONTENT.into_iter().enumerate() {
        let source = lived(resource, 40, at as u64).await;
        let files = captured(&source).await;
        assert!(files.len() >= 3, "{resource}");
        let world = World::with(&config(resource, ""), second(1));
        let reports = deliver(&world, "once", &files).await;
        let (ours, theirs) = both(&source, &world, resource);
        assert_eq!(ours, theirs, "{resource}");
        let rejected: u64 = reports.iter().map(|report| report.rows.rejected + report.rows.deferred).sum();
        assert_eq!(rejected, 0, "{resource}: {reports:?}");
        assert_eq!(reports[0].dropped_properties["id"], reports[0].rows.read, "{resource}");
        assert!(reports.iter().filter_map(|report| report.archived).sum::<u64>() > 0, "{resource}");
        deliver(&world, "twice", &files).await;
        let (ours, theirs) = both(&source, &world, resource);
        assert_eq!(ours, theirs, "{resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn content_is_not_made_twice_by_kills_and_faults() {
    for seed in 0..28 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let resource = CONTENT[seed as usize % CONTENT.len()];
        let source = lived(resource, 30, seed).await;
        let mut settings = second(seed);
        if seed % 2 == 0 {
            settings.faults = Faults::five_percent(seed);
        }
        let world = World::with(&config(resource, ""), settings);
        for (key, bytes) in captured(&source).await {
            super::portals::deliver_killed(&world, &format!("incoming/{key}"), bytes, &mut rng).await;
        }
        let (ours, theirs) = both(&source, &world, resource);
        assert_eq!(ours, theirs, "seed {seed}, {resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn content_goes_out_at_the_accounts_pace_with_several_calls_in_flight() {
    let mut settings = second(1);
    settings.latency.fixed_ms = 1_000;
    let world = World::with(&config("cms.urlRedirects", ""), settings);
    let lines: Vec<String> = (0..400)
        .map(|n| {
            json!({ "operation": "create", "key": { "id": n }, "payload": { "after": thing("cms.urlRedirects", n) } })
                .to_string()
        })
        .collect();
    let report = world.import("incoming/a.jsonl", super::file(&lines)).await;
    assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 400), "{report:?}");
    // One after the other they would take 400 seconds.
    assert!(report.duration_ms < 40_000, "{}", report.duration_ms);
    assert!(report.limit_use_percent.unwrap() > 90.0, "{report:?}");
}

fn post(operation: &str, id: &str, metadata: &Value, after: Value) -> String {
    json!({ "operation": operation, "metadata": metadata, "key": { "id": id }, "payload": { "before": null, "after": after } })
        .to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_there_under_the_same_slug_is_adopted_and_a_foreign_id_is_nobodys() {
    let world = World::with(&config("cms.blogs.posts", ""), second(1));
    let now = world.clock.now();
    let (ours, bystander) = {
        let mut portal = world.portal.borrow_mut();
        let ours =
            portal.create_content(now, "cms.blogs.posts", &json!({ "name": "Old", "slug": "a", "htmlTitle": "T" }));
        let bystander = portal.create_content(now, "cms.blogs.posts", &json!({ "name": "Theirs", "slug": "z" }));
        (ours.unwrap(), bystander.unwrap())
    };
    let captured = json!({ "hubferry.version": "0.1.0" });
    // The bystander's id, in the other account.
    let delete = super::file(&[post("delete", &bystander, &captured, Value::Null)]);
    let report = world.import("incoming/0.jsonl", delete.clone()).await;
    assert_eq!(rejects(&world, &report), [(1, "RECORD_UNNAMED".to_owned())]);
    let lines = [
        post("snapshot", "9001", &captured, json!({ "id": "9001", "name": "New", "slug": "a" })),
        post("update", &bystander, &captured, json!({ "name": "Another", "slug": "b" })),
        post("update", "9002", &captured, json!({ "htmlTitle": "no name" })),
    ];
    let report = world.import("incoming/a.jsonl", super::file(&lines)).await;
    assert_eq!((report.rows.updated, report.rows.created, report.rows.rejected), (1, 1, 1), "{report:?}");
    assert_eq!(rejects(&world, &report), [(3, "RECORD_UNNAMED".to_owned())]);
    let live = world.portal.borrow().live_content("cms.blogs.posts");
    let by_id = |id: &str| live.iter().find(|thing| thing["id"] == id).unwrap().clone();
    assert_eq!((&by_id(&ours)["name"], &by_id(&ours)["htmlTitle"]), (&json!("New"), &json!("T")));
    assert_eq!(by_id(&bystander)["name"], "Theirs");
    assert_eq!(live.len(), 3);

    // The id is known from now on, in other files too.
    let report = world.import("incoming/b.jsonl", super::file(&[post("delete", "9001", &captured, Value::Null)])).await;
    assert_eq!((report.rows.updated, report.archived), (1, Some(1)), "{report:?}");
    assert!(world.portal.borrow().live_content("cms.blogs.posts").iter().all(|thing| thing["id"] != ours.as_str()));
    let again = world.import("incoming/c.jsonl", super::file(&[post("delete", "9001", &captured, Value::Null)])).await;
    assert_eq!((again.rows.unchanged, again.rows.rejected), (1, 0), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn ids_that_nobody_captured_are_the_accounts_own_as_in_conduit() {
    let world = World::with(&config("cms.pages.site", ""), second(1));
    let now = world.clock.now();
    let make = |name: &str| {
        world.portal.borrow_mut().create_content(now, "cms.pages.site", &json!({ "name": name, "slug": name })).unwrap()
    };
    let (kept, gone) = (make("kept"), make("gone"));
    let nothing = json!({});
    let lines = [
        post("update", &kept, &nothing, json!({ "name": "Renamed" })),
        post("delete", &gone, &nothing, Value::Null),
        post("update", "123", &nothing, json!({ "name": "nobody" })),
        json!({ "operation": "create", "payload": { "after": { "name": "Made", "slug": "made" } } }).to_string(),
        json!({ "operation": "create", "payload": { "after": { "slug": "nameless" } } }).to_string(),
    ];
    let report = world.import("incoming/a.jsonl", super::file(&lines)).await;
    let codes: Vec<(u64, String)> = rejects(&world, &report);
    assert_eq!(codes, [(3, "KEY_NOT_FOUND".to_owned()), (5, "VALIDATION_ERROR".to_owned())]);
    let names: Vec<Value> =
        world.portal.borrow().live_content("cms.pages.site").iter().map(|thing| thing["name"].clone()).collect();
    assert_eq!(names, [json!("Renamed"), json!("Made")]);
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_is_lost_is_looked_for_and_not_repeated() {
    use hubferry_simulator::hubspot::{Fault, What};
    for what in [What::ResetAfter, What::ResetBefore, What::TimeoutAfterCommit, What::TruncatedBody, What::Html(502)] {
        let world = World::with(&config("cms.blogs.tags", ""), second(1));
        let mut fault = Fault::nth("/cms/v3/blogs/tags", 1, what.clone());
        fault.when.method = Some("POST".to_owned());
        world.portal.borrow_mut().add_fault(fault);
        let line = post("create", "1", &json!({}), json!({ "name": "Tag" }));
        let report = world.import("incoming/a.jsonl", super::file(&[line])).await;
        assert_eq!(
            (report.outcome, report.rows.rejected + report.rows.deferred),
            (Outcome::Done, 0),
            "{what:?}: {report:?}"
        );
        assert_eq!(world.portal.borrow().live_content("cms.blogs.tags").len(), 1, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thing_that_somebody_deleted_is_made_anew() {
    let world = World::with(&config("cms.blogs.tags", ""), second(1));
    let line =
        |name: &str| super::file(&[post("update", "1", &json!({"hubferry.version": "1"}), json!({ "name": name }))]);
    world.import("incoming/a.jsonl", line("One")).await;
    let made = world.portal.borrow().live_content("cms.blogs.tags")[0]["id"].as_str().unwrap().to_owned();
    let now = world.clock.now();
    world.portal.borrow_mut().delete_content(now, "cms.blogs.tags", &made);
    later(&world, 1).await;
    let report = world.import("incoming/b.jsonl", line("Two")).await;
    assert_eq!(report.rows.created, 1, "{report:?}");
    assert_eq!(world.portal.borrow().live_content("cms.blogs.tags")[0]["name"], "Two");
    // And is known under its new id.
    let folder = Location::new(BUCKET, "state/ids/cdc/");
    let pairs = hubferry::objects::Objects::list(&world.objects, &folder).await.unwrap();
    assert_eq!(pairs.len(), 1, "{pairs:?}");
}
