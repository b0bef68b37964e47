//! Outages, runs that fail, settings that change, records that never rest.

use std::{collections::BTreeSet, time::Duration};

use hubferry::{
    clock::Clock as _,
    objects::{Location, Objects as _},
    report::Outcome,
};
use hubferry_simulator::hubspot::{Fault, What};
use serde_json::json;

use super::{OUTPUT, assert_equal, capture, config, count, lines, rebuilt, settings, told};
use crate::support::{BUCKET, World, report};

async fn later(world: &World, seconds: u64) {
    world.clock.sleep(Duration::from_secs(seconds)).await;
}

fn seed(world: &World, count: usize) -> Vec<String> {
    let now = world.clock.now();
    let rows = (0..count).map(|at| vec![("email", format!("p{at}@example.com")), ("firstname", "First".to_owned())]);
    world.portal.borrow_mut().seed_many(now, "contacts", rows)
}

/// One tick of the schedule.
async fn tick(world: &World, seconds: i64) -> hubferry::report::Report {
    report(world.handle_within(json!({ "job": "capture", "name": "contacts" }), seconds).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_the_middle_of_a_snapshot_costs_no_progress_whatever_the_schedule_does() {
    let mut settings = settings();
    settings.latency.fixed_ms = 400;
    let world = World::with(&config(""), settings);
    let ids = seed(&world, 40_000);
    later(&world, 60).await;
    // A part of the snapshot, in an invocation of a few seconds.
    let first = tick(&world, 12).await;
    assert_eq!(first.outcome, Outcome::Yielded);
    let written = told(&first).changes.snapshot;
    assert!(written > 0 && written < 40_000, "{written}");
    assert!(world.portal.borrow_mut().set_archived(world.clock.now(), "contacts", &ids[0], true));

    world.portal.borrow_mut().add_fault(Fault::always(What::Status(502)));
    let mut failed = 0;
    for _ in 0..180 {
        world.queue.take();
        let tick = tick(&world, 900).await;
        failed += usize::from(tick.outcome == Outcome::Failed);
        later(&world, 60).await;
    }
    assert!(failed > 0, "hours without progress have to be told");
    assert!(failed < 20, "{failed} runs failed in three hours: the back-off is not heeded");
    world.portal.borrow_mut().clear_faults();
    later(&world, 1_000).await;
    for _ in 0..6 {
        world.queue.take();
        tick(&world, 900).await;
        later(&world, 120).await;
    }
    let all = lines(&world, OUTPUT).await;
    assert_equal(&world, &all);
    let twice = count(&all, "snapshot").values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "records of the snapshot were written again");
    assert_eq!(count(&all, "delete").len(), 1);

    // Each object is in one manifest, that of the run that failed or of one after it, and the changes that it tells are the rows that it lists.
    let mut listed = BTreeSet::new();
    for location in world.objects.list(&Location::new(BUCKET, "manifests/")).await.unwrap() {
        let manifest: serde_json::Value = serde_json::from_slice(&world.objects.contents(&location).unwrap()).unwrap();
        let objects = manifest["objects"].as_array().unwrap();
        for object in objects {
            assert!(listed.insert(object["key"].as_str().unwrap().to_owned()), "{object} is in two manifests");
        }
        let rows: u64 = objects.iter().map(|object| object["records"].as_u64().unwrap()).sum();
        let changes =
            ["snapshot", "create", "update", "delete"].map(|kind| manifest["changes"][kind].as_u64().unwrap());
        assert_eq!(changes.iter().sum::<u64>(), rows, "{location}: {manifest}");
    }
    for location in world.objects.list(&Location::new(BUCKET, OUTPUT)).await.unwrap() {
        assert!(listed.contains(&location.key), "{location} is in no manifest");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_never_rests_is_captured_in_every_run() {
    let world = World::with(&config("deletes: false\n"), settings());
    let ids = seed(&world, 3);
    later(&world, 60).await;
    capture(&world).await;
    for at in 0..40 {
        // Every ten seconds, which is less than the lag.
        let name = format!("N{at}");
        let now = world.clock.now();
        assert!(world.portal.borrow_mut().edit(now, "contacts", &ids[1], &[("firstname", &name)]));
        if at % 10 == 9 {
            let report = capture(&world).await;
            assert_eq!(told(&report).changes.update, 1, "{report:?}");
            let captured = rebuilt(&lines(&world, OUTPUT).await);
            assert_eq!(captured[&ids[1]]["properties"]["firstname"], name.as_str());
        }
        later(&world, 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn other_associations_are_learned_without_telling_every_record_again() {
    let mut world = World::with(&config("associations: [companies]\n"), settings());
    let ids = seed(&world, 50);
    let now = world.clock.now();
    let company = world.portal.borrow_mut().seed_record(now, "companies", &[("name", "A")]).unwrap();
    let deal = world.portal.borrow_mut().seed_record(now, "deals", &[("dealname", "D")]).unwrap();
    for id in &ids {
        assert!(world.portal.borrow_mut().associate("contacts", id, "companies", &company));
        assert!(world.portal.borrow_mut().associate("contacts", id, "deals", &deal));
    }
    later(&world, 60).await;
    capture(&world).await;
    later(&world, 60).await;
    let text = config("associations: [deals, companies]\n");
    world.config = std::rc::Rc::new(hubferry::config::load::parse(&text, "hubferry.yaml").unwrap());
    let changed = capture(&world).await;
    assert_eq!(told(&changed).changes.emitted(), 0, "{changed:?}");
    assert!(changed.notes.iter().any(|note| note.contains("associations")), "{changed:?}");
    later(&world, 60).await;
    assert!(world.portal.borrow_mut().dissociate("contacts", &ids[4], "deals", &deal));
    later(&world, 60).await;
    assert_eq!(told(&capture(&world).await).changes.associations, 1);
}

#[tokio::test(start_paused = true)]
async fn another_resource_under_the_same_name_is_refused() {
    let mut world = World::with(&config(""), settings());
    seed(&world, 5);
    later(&world, 60).await;
    capture(&world).await;
    let text = config("").replace("crm.contacts", "crm.companies");
    world.config = std::rc::Rc::new(hubferry::config::load::parse(&text, "hubferry.yaml").unwrap());
    let error = world.handle(json!({ "job": "capture", "name": "contacts" })).await.unwrap_err();
    assert_eq!(error.code().as_str(), "NAME_TAKEN");
    assert!(error.message().contains("crm.contacts") && error.message().contains("crm.companies"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_property_that_does_not_exist_is_told_before_anything_is_written() {
    let world = World::with(&config("extra_properties: [favourite_colour, phon]\n"), settings());
    seed(&world, 5);
    later(&world, 60).await;
    let report = tick(&world, 900).await;
    assert_eq!(report.outcome, Outcome::Invalid);
    let error = report.error.unwrap();
    assert!(error.message.contains("`phon` (did you mean `phone`?)"), "{}", error.message);
    assert!(lines(&world, OUTPUT).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_restored_while_the_snapshot_is_taken_is_captured() {
    let mut settings = settings();
    settings.latency.fixed_ms = 400;
    let world = World::with(&config(""), settings);
    let ids = seed(&world, 40_000);
    assert!(world.portal.borrow_mut().set_archived(world.clock.now(), "contacts", &ids[0], true));
    later(&world, 60).await;
    let first = tick(&world, 12).await;
    assert_eq!(first.outcome, Outcome::Yielded);
    // Its page has been listed without it.
    assert!(world.portal.borrow_mut().set_archived(world.clock.now(), "contacts", &ids[0], false));
    world.finish(first, 900).await;
    assert_equal(&world, &lines(&world, OUTPUT).await);
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_all_invocations_are_counted_whatever_of_their_work_was_kept() {
    let mut settings = settings();
    settings.latency.fixed_ms = 700;
    let world = World::with(&config(""), settings);
    seed(&world, 3_000);
    later(&world, 60).await;
    let first = tick(&world, 12).await;
    assert_eq!(first.outcome, Outcome::Yielded);
    // In the middle, calls that lead to nothing.
    world.portal.borrow_mut().add_fault(Fault::always(What::Status(502)).times(9));
    let last = world.finish(first, 40).await;
    assert_eq!(last.outcome, Outcome::Done, "{last:?}");
    assert!(last.invocations > 2, "{}", last.invocations);
    let made = world.portal.borrow().counts().requests;
    assert_eq!(last.calls.total, made, "{last:?}");
}

/// What it held may not be there to be written again: the old row would stand for ever, and no manifest would tell of it.
#[tokio::test(start_paused = true)]
async fn the_last_object_of_a_process_that_died_before_its_position_was_stored_does_not_stay() {
    let mut orphans = 0;
    for step in 0..2_000 {
        let mut settings = settings();
        settings.latency.fixed_ms = 2;
        let world = World::with(&config(""), settings);
        let ids = seed(&world, 2);
        later(&world, 60).await;
        capture(&world).await;
        later(&world, 3_600).await;
        world.portal.borrow_mut().edit(world.clock.now(), "contacts", &ids[0], &[("firstname", "Second")]);
        later(&world, 120).await;
        let before = world.objects.list(&Location::new(BUCKET, OUTPUT)).await.unwrap().len();
        let event = json!({ "job": "capture", "name": "contacts" });
        if world.handle_until_killed(event, Duration::from_millis(step)).await.is_some() {
            assert!(orphans > 0, "no process died between the object and the position");
            return;
        }
        let written = world.objects.list(&Location::new(BUCKET, OUTPUT)).await.unwrap().len() > before;
        orphans += usize::from(written);
        // A privacy deletion.
        assert!(world.portal.borrow_mut().purge(world.clock.now(), "contacts", &ids[0]));
        later(&world, 3_600).await;
        world.resume().await;
        world.queue.take();
        capture(&world).await;
        let mut listed = BTreeSet::new();
        for location in world.objects.list(&Location::new(BUCKET, "manifests/")).await.unwrap() {
            let manifest: serde_json::Value =
                serde_json::from_slice(&world.objects.contents(&location).unwrap()).unwrap();
            let objects = manifest["objects"].as_array().unwrap();
            listed.extend(objects.iter().map(|object| object["key"].as_str().unwrap().to_owned()));
        }
        for location in world.objects.list(&Location::new(BUCKET, OUTPUT)).await.unwrap() {
            assert!(listed.contains(&location.key), "killed after {step} ms: {location} is in no manifest");
        }
    }
    panic!("the run does not end");
}

/// The comparison of associations reads the survivor before the index shows it: its new version is told there, and not looked at again.
#[tokio::test(start_paused = true)]
async fn who_was_merged_into_a_record_whose_associations_changed_is_told() {
    let mut settings = settings();
    (settings.index_lag.late_share, settings.index_lag.late_ms) = (1.0, 120_000);
    let world = World::with(&config("associations: [companies]"), settings);
    let ids = seed(&world, 3);
    let now = world.clock.now();
    let company = world.portal.borrow_mut().seed_record(now, "companies", &[("name", "A")]).unwrap();
    later(&world, 600).await;
    capture(&world).await;
    later(&world, 7_200).await;
    let now = world.clock.now();
    assert!(world.portal.borrow_mut().associate("contacts", &ids[0], "companies", &company));
    assert!(world.portal.borrow_mut().merge(now, "contacts", &ids[0], &ids[1]));
    let first = capture(&world).await;
    assert_eq!(told(&first).changes.associations, 1, "{first:?}");
    for _ in 0..3 {
        later(&world, 4_000).await;
        capture(&world).await;
    }
    let all = lines(&world, OUTPUT).await;
    assert_equal(&world, &all);
    assert_eq!(count(&all, "delete").get(&ids[1]), Some(&1));
}
