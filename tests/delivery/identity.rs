//! Which record is meant: by the account's own ids, by another account's, by a property.

use hubferry::{clock::Clock as _, report::Outcome};
use hubferry_simulator::hubspot::{Fault, What};
use serde_json::{Value, json};

use super::{OWN, config, file, line, rejects, settings};
use crate::support::World;

fn world(resource: &str, more: &str) -> World {
    World::with(&config(resource, more), settings(true))
}

fn seed(world: &World, object: &str, properties: &[(&str, &str)]) -> String {
    let now = world.clock.now();
    world.portal.borrow_mut().seed_record(now, object, properties).unwrap()
}

/// A property of a live record.
fn value(world: &World, object: &str, id: &str, property: &str) -> Option<String> {
    let portal = world.portal.borrow();
    let found = portal.live_objects(object, &[property]).find(|one| one.id == id)?;
    found.properties[property].clone()
}

fn is_live(world: &World, object: &str, id: &str) -> bool {
    world.portal.borrow().live_objects(object, &[]).any(|one| one.id == id)
}

#[tokio::test(start_paused = true)]
async fn without_a_key_the_ids_are_the_accounts_own() {
    let world = world("crm.deals", "");
    let deal = |name: &str| seed(&world, "deals", &[("dealname", name), ("dealstage", "appointmentscheduled")]);
    let (kept, gone, merged, winner) = (deal("kept"), deal("gone"), deal("merged"), deal("winner"));
    let now = world.clock.now();
    assert!(world.portal.borrow_mut().merge(now, "deals", &winner, &merged));
    let new = json!({ "dealname": "new", "dealstage": "appointmentscheduled", "hs_is_closed": "false" });
    let lines = [
        line("update", &kept, json!({ "dealname": "changed", "hs_projected_amount": "7" })),
        line("delete", &gone, Value::Null),
        line("create", "elsewhere", new.clone()),
        // The merged one's id now leads to the winner: it was not the winner that was deleted.
        line("delete", &merged, Value::Null),
        line("delete", "4711", Value::Null),
        line("update", "4711", json!({ "dealname": "nobody" })),
        json!({ "operation": "snapshot", "payload": { "after": new } }).to_string(),
        line("update", &kept, json!({ "hs_object_id": "1" })),
    ];
    let report = world.import("incoming/a.jsonl", file(&lines)).await;
    let rows = report.rows;
    assert_eq!((rows.created, rows.updated, rows.unchanged, rows.rejected), (2, 2, 3, 1), "{report:?}");
    assert_eq!(rejects(&world, &report), [(6, "KEY_NOT_FOUND".to_owned())]);
    assert_eq!(value(&world, "deals", &kept, "dealname").as_deref(), Some("changed"));
    assert!(!is_live(&world, "deals", &gone) && is_live(&world, "deals", &winner));
    assert_eq!(world.portal.borrow().record_count("deals"), 4);
    let dropped: Vec<_> = report.dropped_properties.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    assert_eq!(dropped, [("hs_is_closed", 2), ("hs_object_id", 1), ("hs_projected_amount", 1)]);
    assert_eq!(report.archived, Some(1));
}

#[tokio::test(start_paused = true)]
async fn by_a_key_records_are_upserted_and_deletes_need_to_be_named() {
    let world = world("crm.contacts", "key: email\n");
    let contact = |email: &str| seed(&world, "contacts", &[("email", email), ("city", "Rome")]);
    let (a, b, c) = (contact("a@x.io"), contact("b@x.io"), contact("c@x.io"));
    let (d, second) = (contact("d@x.io"), contact("second@x.io"));
    let now = world.clock.now();
    assert!(world.portal.borrow_mut().merge(now, "contacts", &d, &second));
    let delete = |key: Value, before: Value| {
        json!({ "operation": "delete", "key": key, "payload": { "before": before, "after": null } }).to_string()
    };
    let lines = [
        line("snapshot", "1", json!({ "email": "A@x.io", "city": null, "firstname": "Ada" })),
        line("update", "2", json!({ "email": "new@x.io", "city": "" })),
        line("update", "3", json!({ "city": "Bonn" })),
        delete(json!({ "id": b }), Value::Null),
        delete(json!({ "email": "b@x.io" }), Value::Null),
        delete(json!({ "id": "9" }), json!({ "properties": { "email": "C@x.io" } })),
        // Somebody's second address.
        delete(json!({ "email": "second@x.io" }), Value::Null),
        delete(json!({ "email": "nobody@x.io" }), Value::Null),
    ];
    let report = world.import("incoming/a.jsonl", file(&lines)).await;
    let rows = report.rows;
    assert_eq!((rows.created, rows.updated, rows.unchanged, rows.rejected), (1, 3, 1, 3), "{report:?}");
    let expected = [(3, "KEY_BLANK"), (4, "RECORD_UNNAMED"), (7, "RECORD_UNNAMED")];
    assert_eq!(rejects(&world, &report), expected.map(|(line, code)| (line, code.to_owned())));
    assert_eq!(value(&world, "contacts", &a, "city").as_deref(), Some("Rome"), "a snapshot leaves alone what it lacks");
    assert!(!is_live(&world, "contacts", &b) && !is_live(&world, "contacts", &c) && is_live(&world, "contacts", &d));
}

#[tokio::test(start_paused = true)]
async fn contacts_of_another_account_adopt_those_with_their_address() {
    let world = world("crm.contacts", "key: email\ncreate_properties: true\n");
    let known = seed(&world, "contacts", &[("email", "a@x.io"), ("city", "Rome")]);
    // Has the id that the other account's contact has, and is somebody else.
    let bystander = seed(&world, "contacts", &[("email", "bystander@x.io")]);
    let lines = [
        line("snapshot", &bystander, json!({ "email": "a@x.io", "firstname": "Ada" })),
        line("snapshot", "9002", json!({ "email": "new@x.io", "associatedcompanyid": "5" })),
        // Another one with an address that is taken already.
        line("snapshot", "9003", json!({ "email": "A@X.io" })),
        line("snapshot", "9004", json!({ "firstname": "No address" })),
    ];
    let report = world.import("incoming/a.jsonl", file(&lines)).await;
    let rows = report.rows;
    assert_eq!((rows.created, rows.updated, rows.rejected), (2, 1, 1), "{report:?}");
    assert_eq!(rejects(&world, &report), [(3, "KEY_AMBIGUOUS".to_owned())]);
    assert_eq!(value(&world, "contacts", &known, "firstname").as_deref(), Some("Ada"));
    assert_eq!(value(&world, "contacts", &known, OWN).as_deref(), Some(bystander.as_str()));
    assert_eq!(report.dropped_properties["associatedcompanyid"], 1);

    // From now on the id is enough, and it is never taken for the account's own.
    let lines = [
        line("update", &bystander, json!({ "email": "moved@x.io" })),
        line("delete", "9004", Value::Null),
        line("delete", "9999", Value::Null),
    ];
    let report = world.import("incoming/b.jsonl", file(&lines)).await;
    assert_eq!((report.rows.updated, report.rows.unchanged), (2, 1), "{report:?}");
    assert_eq!(value(&world, "contacts", &known, "email").as_deref(), Some("moved@x.io"));
    let delete = file(&[line("delete", &bystander, Value::Null)]);
    let report = world.import("incoming/c.jsonl", delete.clone()).await;
    assert_eq!(report.archived, Some(1));
    assert!(is_live(&world, "contacts", &bystander) && !is_live(&world, "contacts", &known));
    // A delete that comes again has nothing to do.
    let again = world.import("incoming/d.jsonl", delete).await;
    assert_eq!((again.rows.unchanged, again.archived), (1, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn companies_of_another_account_adopt_those_with_their_domain() {
    let world = world("crm.companies", "key: domain\ncreate_properties: true\n");
    let one = seed(&world, "companies", &[("domain", "one.example.com")]);
    for _ in 0..2 {
        seed(&world, "companies", &[("domain", "two.example.com")]);
    }
    let lines = [
        line("snapshot", "1", json!({ "domain": "https://www.One.example.com/", "name": "One" })),
        line("snapshot", "2", json!({ "domain": "two.example.com", "name": "Two" })),
        line("snapshot", "3", json!({ "domain": "three.example.com", "name": "Three" })),
    ];
    let report = world.import("incoming/a.jsonl", file(&lines)).await;
    assert_eq!((report.rows.created, report.rows.updated, report.rows.rejected), (1, 1, 1), "{report:?}");
    assert_eq!(rejects(&world, &report), [(2, "KEY_AMBIGUOUS".to_owned())]);
    assert_eq!(value(&world, "companies", &one, "name").as_deref(), Some("One"));
}

#[tokio::test(start_paused = true)]
async fn a_unique_value_passes_from_record_to_record_in_the_order_of_the_file() {
    let world = world("crm.contacts", "create_properties: true\n");
    let count = 400;
    let first: Vec<String> =
        (0..count).map(|n| line("snapshot", &n.to_string(), json!({ "email": format!("p{n}@x.io") }))).collect();
    world.import("incoming/a.jsonl", file(&first)).await;
    // Each takes the address of the one before it, which has just left it, or is about to: the first call is held up, and others pass it.
    world.portal.borrow_mut().add_fault(Fault::nth("batch/upsert", 1, What::Locked));
    let moved: Vec<String> = (0..count)
        .map(|n| {
            let email = if n == 0 { "free@x.io".to_owned() } else { format!("p{}@x.io", n - 1) };
            line("update", &n.to_string(), json!({ "email": email }))
        })
        .collect();
    let report = world.import("incoming/b.jsonl", file(&moved)).await;
    assert_eq!((report.rows.updated, report.rows.rejected), (count, 0), "{:?}", report.rejected_by_code);
    let by_source = |n: u64| world.portal.borrow().find_by("contacts", OWN, &n.to_string()).unwrap()["email"].clone();
    assert_eq!(
        (by_source(0), by_source(7), by_source(399)),
        ("free@x.io".into(), "p6@x.io".into(), "p398@x.io".into())
    );
    // One that nobody leaves is refused after all.
    let taken = [line("update", "1", json!({ "email": "p6@x.io" })), line("update", "2", json!({ "city": "Bonn" }))];
    let report = world.import("incoming/c.jsonl", file(&taken)).await;
    assert_eq!((report.rows.updated, report.rows.rejected), (1, 1), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_delivered_is_told_before_the_first_write() {
    let cases = [
        ("crm.feedbackSubmissions", "", "RESOURCE_READ_ONLY"),
        ("crm.companies", "key: domain\n", "KEY_NOT_UNIQUE"),
        ("crm.companies", "key: domian\n", "MAPPING_INVALID"),
        ("crm.contacts", "key: hs_object_id\n", "MAPPING_INVALID"),
        ("cms.blogs.posts", "key: slug\n", "MAPPING_INVALID"),
    ];
    for (resource, more, code) in cases {
        let world = world(resource, more);
        let report = world.import("incoming/a.jsonl", file(&[line("create", "1", json!({ "name": "x" }))])).await;
        assert_eq!(report.outcome, Outcome::Invalid, "{resource} {more}: {report:?}");
        assert_eq!(report.error.as_ref().map(|error| error.code.as_str()), Some(code), "{resource} {more}");
        let writes = world.requests.borrow().iter().filter(|request| !request.starts_with("GET")).count();
        assert_eq!(writes, 0, "{resource} {more}");
    }
}
