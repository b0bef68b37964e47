//! Creates that nothing names: an answer that is lost, or a process that dies, makes no record twice.

use std::time::Duration;

use hubferry::{clock::Clock as _, report::Outcome};
use hubferry_simulator::hubspot::{Fault, PortalSettings, What};
use serde_json::json;

use super::{config, file, later, line, rejects, settings};
use crate::support::{World, report};

const LINES: u64 = 1_500;

fn lines() -> String {
    let note = |n: u64| {
        let properties = json!({ "hs_note_body": format!("note {n}"), "hs_timestamp": "2026-01-01T00:00:00Z" });
        line("create", &n.to_string(), properties)
    };
    file(&(0..LINES).map(note).collect::<Vec<_>>())
}

fn world(settings: PortalSettings) -> World {
    World::with(&config("crm.notes", ""), settings)
}

/// Each line at most once; what is there, and what is not known, is every line.
fn assert_once(name: &str, world: &World, created: u64, deferred: u64) {
    let portal = world.portal.borrow();
    let mut bodies: Vec<String> = portal.records("notes").map(|record| record["hs_note_body"].clone()).collect();
    let count = bodies.len() as u64;
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len() as u64, count, "{name}: a record is there twice");
    assert_eq!(created + deferred, LINES, "{name}");
    assert!(count >= created && count <= created + deferred, "{name}: {count} of {created} and {deferred}");
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_was_lost_is_told_and_not_repeated() {
    for (what, lost) in
        [(What::ResetAfter, 100), (What::TimeoutAfterCommit, 100), (What::Locked, 0), (What::BurstLimit, 0)]
    {
        let mut settings = settings(true);
        settings.faults.push(Fault::nth("batch/create", 3, what.clone()));
        let world = world(settings);
        let report = world.import("incoming/a.jsonl", lines()).await;
        assert_eq!(report.rows.deferred, lost, "{what:?}: {report:?}");
        let outcome = if lost > 0 { Outcome::Failed } else { Outcome::Done };
        assert_eq!(report.outcome, outcome, "{what:?}");
        assert_once(&format!("{what:?}"), &world, report.rows.created, report.rows.deferred);
        let told = rejects(&world, &report);
        assert_eq!(told.len() as u64, lost);
        assert!(told.iter().all(|(_, code)| code == "NO_VERDICT"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_being_created_when_the_process_died_is_told_and_not_repeated() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut settings = settings(true);
        settings.latency.fixed_ms = 300;
        let world = world(settings);
        let event = world.upload("incoming/a.jsonl", lines()).await;
        let mut last = None;
        for round in 0..40 {
            let time = Duration::from_millis(rng.u64(1..5_000) * (1 + round / 4));
            let event = if round % 2 == 0 { event.clone() } else { json!({ "job": "resume" }) };
            if let Some(answer) = world.handle_until_killed(event, time).await
                && let hubferry::app::Answer::Report(report) = answer
                && report.outcome.is_final()
            {
                last = Some(report);
                break;
            }
            world.queue.take();
            later(&world, 100).await;
        }
        let report = last.unwrap_or_else(|| panic!("seed {seed}: the run does not end"));
        assert!(report.rows.add_up() && report.rows.rejected == 0, "seed {seed}: {report:?}");
        assert_once(&format!("seed {seed}"), &world, report.rows.created, report.rows.deferred);
        // No more than what was in flight when it died, a few times.
        assert!(report.rows.deferred <= 100 * u64::from(20u32), "seed {seed}: {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_to_wait_for_another_day_doubts_nothing() {
    let mut settings = settings(true);
    settings.limits.daily = Some(12);
    let world = world(settings);
    let report = world.import("incoming/a.jsonl", lines()).await;
    assert_eq!(report.outcome, Outcome::Yielded, "{report:?}");
    world.portal.borrow_mut().configure(|settings| settings.limits.daily = None);
    later(&world, 26 * 3_600).await;
    let reports = world.resume().await;
    let report = reports.first().unwrap();
    assert_eq!((report.outcome, report.rows.created, report.rows.deferred), (Outcome::Done, LINES, 0), "{report:?}");
    assert_once("another day", &world, LINES, 0);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_again_after_creates_without_a_verdict_creates_nothing_twice() {
    // GIVEN creates that nothing names, whose answer got lost after HubSpot had made them
    let world = World::with(&config("crm.contacts", ""), settings(true));
    world.portal.borrow_mut().add_fault(Fault::nth("/batch/create", 1, What::ResetAfter));
    let lines: Vec<String> =
        (0..5).map(|n| line("create", &n.to_string(), json!({ "firstname": format!("P{n}") }))).collect();
    let event = world.upload("incoming/a.jsonl", file(&lines)).await;
    let failed = report(world.handle(event.clone()).await.unwrap());
    assert_eq!((failed.outcome, failed.rows.deferred), (Outcome::Failed, 5), "{failed:?}");
    // WHEN the event comes again, as events do
    let again = report(world.handle(event).await.unwrap());
    // THEN they are not made a second time
    assert_eq!((again.outcome, again.run_id), (Outcome::Duplicate, failed.run_id));
    assert_eq!(world.portal.borrow().record_count("contacts"), 5);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_again_after_a_run_that_died_with_its_creates_under_way_creates_nothing_twice() {
    // GIVEN a run that dies after HubSpot has made what nothing names, and then again and again before it gets anywhere
    let world = World::with(&config("crm.contacts", ""), settings(true));
    let lines: Vec<String> =
        (0..5).map(|n| line("create", &n.to_string(), json!({ "firstname": format!("P{n}") }))).collect();
    let event = world.upload("incoming/a.jsonl", file(&lines)).await;
    let made = async {
        while world.portal.borrow().record_count("contacts") < 5 {
            world.clock.sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        () = made => {}
        answer = world.handle(event.clone()) => panic!("it was to die: {answer:?}"),
    }
    for _ in 0..3 {
        later(&world, 31).await;
        let killed = world.handle_until_killed(event.clone(), Duration::from_millis(30)).await;
        assert!(killed.is_none(), "it was to die: {killed:?}");
    }
    later(&world, 31).await;
    // So that it ends without knowing of them.
    let failed = report(world.handle(event.clone()).await.unwrap());
    assert_eq!((failed.outcome, failed.rows.read), (Outcome::Failed, 0), "{failed:?}");
    // WHEN the event comes again, as events do
    let again = report(world.handle(event).await.unwrap());
    // THEN they are not made a second time
    assert_eq!((again.outcome, again.run_id), (Outcome::Duplicate, failed.run_id));
    assert_eq!(world.portal.borrow().record_count("contacts"), 5);
}
