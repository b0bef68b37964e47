//! A capture of one portal, delivered into another: the same records, for every resource.

use std::time::Duration;

use hubferry::{clock::Clock as _, report::Outcome};
use hubferry_simulator::hubspot::{Faults, PortalSettings};
use serde_json::json;

use super::{State, capture, capture_config, captured, config, deliver, later, settings, state};
use crate::support::{BUCKET, World, report};

/// A resource, the object type, and what a record of it holds: its name comes first.
type Kind = (&'static str, &'static str, fn(usize) -> Vec<(&'static str, String)>);

const TIME: &str = "2026-02-03T04:05:06.789Z";

/// The 12 of Conduit's that can be written, one of no connector, and a custom object.
const KINDS: [Kind; 14] = [
    ("crm.contacts", "contacts", |n| {
        vec![
            ("firstname", format!("First{n}")),
            ("email", format!("p{n}@example.com")),
            // What HubSpot sets itself where nothing is said.
            ("lifecyclestage", "lead".to_owned()),
            ("hs_pipeline", "contacts-lifecycle-pipeline".to_owned()),
            ("city", "Bonn".to_owned()),
        ]
    }),
    ("crm.companies", "companies", |n| {
        vec![
            ("name", format!("Company {n}")),
            ("domain", format!("c{n}.example.com")),
            ("industry", "BANKING".to_owned()),
        ]
    }),
    ("crm.deals", "deals", |n| {
        vec![
            ("dealname", format!("Deal {n}")),
            ("amount", format!("{n}.5")),
            ("pipeline", "default".to_owned()),
            ("dealstage", "appointmentscheduled".to_owned()),
            ("closedate", TIME.to_owned()),
        ]
    }),
    ("crm.lineItems", "line_items", |n| {
        vec![("name", format!("Item {n}")), ("quantity", n.to_string()), ("price", "1.25".to_owned())]
    }),
    ("crm.products", "products", |n| vec![("name", format!("Product {n}")), ("price", n.to_string())]),
    ("crm.tickets", "tickets", |n| {
        vec![
            ("subject", format!("Ticket {n}")),
            ("hs_pipeline", "0".to_owned()),
            ("hs_pipeline_stage", "1".to_owned()),
            ("hs_ticket_category", "PRODUCT_ISSUE;BILLING_ISSUE".to_owned()),
        ]
    }),
    ("crm.quotes", "quotes", |n| {
        vec![("hs_title", format!("Quote {n}")), ("hs_expiration_date", "2026-12-31".to_owned())]
    }),
    ("crm.calls", "calls", |n| vec![("hs_call_title", format!("Call {n}")), ("hs_timestamp", TIME.to_owned())]),
    ("crm.emails", "emails", |n| vec![("hs_email_subject", format!("Mail {n}")), ("hs_timestamp", TIME.to_owned())]),
    ("crm.meetings", "meetings", |n| {
        vec![("hs_meeting_title", format!("Meeting {n}")), ("hs_timestamp", TIME.to_owned())]
    }),
    ("crm.notes", "notes", |n| vec![("hs_note_body", format!("<p>Note {n}</p>")), ("hs_timestamp", TIME.to_owned())]),
    ("crm.tasks", "tasks", |n| {
        vec![
            ("hs_task_subject", format!("Task {n}")),
            ("hs_task_status", "WAITING".to_owned()),
            ("hs_timestamp", TIME.to_owned()),
        ]
    }),
    ("leads", "leads", |n| vec![("hs_lead_name", format!("Lead {n}"))]),
    ("car", "car", |n| vec![("plate", format!("BN {n}")), ("colour", "red".to_owned())]),
];

fn first() -> PortalSettings {
    settings(false)
}

fn second() -> PortalSettings {
    settings(true)
}

/// What people do to the records of a portal between two captures.
fn people(world: &World, kind: &Kind, rng: &mut fastrand::Rng, made: &mut usize, actions: usize) {
    let (_, object, record) = kind;
    let now = world.clock.now();
    let mut portal = world.portal.borrow_mut();
    let mut make = |portal: &mut hubferry_simulator::hubspot::Portal| {
        *made += 1;
        let properties = record(*made);
        let properties: Vec<(&str, &str)> = properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
        portal.seed_record(now, object, &properties).unwrap()
    };
    for _ in 0..actions {
        let live: Vec<String> = portal.live_objects(object, &[]).map(|one| one.id).collect();
        let binned: Vec<String> = portal.archived_objects(now, object).into_iter().map(|(id, _)| id).collect();
        let any = |rng: &mut fastrand::Rng, ids: &[String]| ids.get(rng.usize(0..ids.len().max(1))).cloned();
        let (name, _) = &record(0)[0];
        let (last, _) = record(0).pop().unwrap();
        match rng.u8(0..10) {
            0..3 => {
                make(&mut portal);
            }
            3..6 => {
                if let Some(id) = any(rng, &live) {
                    portal.edit(now, object, &id, &[(name, &format!("Changed {}", rng.u32(..)))]);
                }
            }
            6 => {
                let required = ["hs_timestamp", "closedate", "hs_pipeline_stage"];
                if let Some(id) = any(rng, &live).filter(|_| !required.contains(&last)) {
                    portal.edit(now, object, &id, &[(last, "")]);
                }
            }
            7 => {
                if let Some(id) = any(rng, &live) {
                    portal.set_archived(now, object, &id, true);
                }
            }
            8 => {
                if let Some(id) = any(rng, &binned) {
                    portal.set_archived(now, object, &id, false);
                }
            }
            _ => {
                if let (Some(winner), Some(loser), "contacts" | "companies") =
                    (any(rng, &live), any(rng, &live), *object)
                {
                    portal.merge(now, object, &winner, &loser);
                }
            }
        }
    }
}

/// A portal with a history, captured: its snapshot and two runs of changes.
async fn lived(kind: &Kind, count: usize, seed: u64) -> World {
    let world = World::with(&capture_config(kind.0), first());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut made = 0;
    {
        let now = world.clock.now();
        let mut portal = world.portal.borrow_mut();
        for _ in 0..count {
            made += 1;
            let properties = kind.2(made);
            let properties: Vec<(&str, &str)> =
                properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
            portal.seed_record(now, kind.1, &properties).unwrap();
        }
    }
    for _ in 0..3 {
        later(&world, 90).await;
        capture(&world).await;
        later(&world, 90).await;
        people(&world, kind, &mut rng, &mut made, count / 4);
    }
    later(&world, 90).await;
    capture(&world).await;
    world
}

fn import(kind: &Kind) -> String {
    config(kind.0, "create_properties: true\n")
}

/// The states are equal, and the second has no record that the first has not.
fn assert_same(name: &str, ours: &State, theirs: &State) {
    for (object, records) in ours {
        let others = theirs.get(object).cloned().unwrap_or_default();
        let spare: Vec<_> = others.iter().filter(|record| !records.contains(record)).take(3).collect();
        let missing: Vec<_> = records.iter().filter(|record| !others.contains(record)).take(3).collect();
        assert_eq!((records.len(), &missing, &spare), (others.len(), &Vec::new(), &Vec::new()), "{name}");
    }
    assert_eq!(ours, theirs, "{name}");
}

#[tokio::test(start_paused = true)]
async fn every_crm_resource_is_delivered_as_it_was_captured_and_twice_is_once() {
    for (at, kind) in KINDS.iter().enumerate() {
        let source = lived(kind, 130, at as u64).await;
        let files = captured(&source).await;
        assert!(files.len() >= 3, "{}: {}", kind.0, files.len());
        let world = World::with(&import(kind), second());
        let reports = deliver(&world, "once", &files).await;
        assert_same(kind.0, &state(&source), &state(&world));
        let rejected: u64 = reports.iter().map(|report| report.rows.rejected + report.rows.deferred).sum();
        assert_eq!(rejected, 0, "{}: {reports:?}", kind.0);
        let dropped = &reports[0].dropped_properties;
        assert_eq!(dropped["hs_object_id"], 130, "{}: {dropped:?}", kind.0);
        assert!(reports.iter().filter_map(|report| report.archived).sum::<u64>() > 0, "{}", kind.0);
        deliver(&world, "twice", &files).await;
        assert_same(kind.0, &state(&source), &state(&world));
    }
}

/// Delivers a file whose process is killed now and then.
pub(super) async fn deliver_killed(world: &World, key: &str, bytes: bytes::Bytes, rng: &mut fastrand::Rng) {
    use hubferry::objects::{Location, Objects as _};
    let before = world.objects.list(&Location::new(BUCKET, "reports/import/cdc/")).await.unwrap().len();
    let event = world.upload(key, bytes).await;
    for round in 0..60 {
        // Later rounds get on.
        let time = Duration::from_millis(rng.u64(1..3_000) * (1 + round / 10));
        // The event comes again, as long as nobody has answered it; or the sweep.
        let event = if round % 2 == 0 { event.clone() } else { json!({ "job": "resume" }) };
        world.handle_until_killed(event, time).await;
        world.queue.take();
        later(world, 100).await;
        let reports = world.objects.list(&Location::new(BUCKET, "reports/import/cdc/")).await.unwrap();
        if reports.len() > before {
            let newest = reports.iter().max_by_key(|at| at.key.clone()).unwrap();
            let text = world.text(&newest.to_string()).unwrap();
            let report: hubferry::report::Report = serde_json::from_str(&text).unwrap();
            assert!(report.rows.add_up(), "{report:?}");
            if report.outcome.is_final() {
                assert_eq!(report.outcome, Outcome::Done, "{report:?}");
                assert_eq!((report.rows.rejected, report.rows.deferred), (0, 0), "{report:?}");
                return;
            }
        }
    }
    panic!("{key} does not end");
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_instant_and_gone_on_with_the_end_is_the_same() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kind = &KINDS[seed as usize % KINDS.len()];
        let source = lived(kind, 60 + rng.usize(0..300), seed).await;
        let world = World::with(&import(kind), second());
        for (key, bytes) in captured(&source).await {
            deliver_killed(&world, &format!("incoming/{key}"), bytes, &mut rng).await;
        }
        assert_same(&format!("seed {seed}, {}", kind.0), &state(&source), &state(&world));
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_failures_write_nothing_twice() {
    for seed in 0..12 {
        let kind = &KINDS[seed as usize % KINDS.len()];
        let source = lived(kind, 400, seed).await;
        let mut settings = second();
        settings.faults = Faults::five_percent(seed);
        settings.seed = seed;
        let world = World::with(&import(kind), settings);
        for (key, bytes) in captured(&source).await {
            let event = world.upload(&format!("incoming/{key}"), bytes).await;
            let last = report(world.handle(event).await.unwrap());
            let report = world.finish(last, 900).await;
            assert_eq!((report.outcome, report.rows.rejected), (Outcome::Done, 0), "seed {seed}: {report:?}");
        }
        assert_same(&format!("seed {seed}, {}", kind.0), &state(&source), &state(&world));
    }
}
