//! Lists that change while their pages are turned, and lists that are answered with nothing.

use std::{collections::BTreeSet, time::Duration};

use hubferry::{clock::Clock as _, report::Outcome};
use hubferry_simulator::hubspot::{Fault, What};
use serde_json::{Value, json};

use super::{OUTPUT, assert_equal, assert_linked, capture, config, lines, rebuilt, settings, told};
use crate::support::{World, report};

const REDIRECTS: &str = "cms.urlRedirects";

async fn later(world: &World, seconds: u64) {
    world.clock.sleep(Duration::from_secs(seconds)).await;
}

/// Redirects, listed by offset, a page in this many milliseconds.
fn redirects(count: usize, latency_ms: u64, short_pages: f64, more: &str) -> (World, Vec<String>) {
    let mut settings = settings();
    settings.latency.fixed_ms = latency_ms;
    settings.unsettled.cms_after_is_offset = true;
    settings.unsettled.short_pages = short_pages;
    let world = World::with(&config(more).replace("crm.contacts", REDIRECTS), settings);
    let now = world.clock.now();
    let make = |at: usize| json!({ "routePrefix": format!("/r{at}"), "destination": "/x", "redirectStyle": 301 });
    let ids = (0..count).map(|at| world.portal.borrow_mut().create_content(now, REDIRECTS, &make(at)).unwrap());
    let ids = ids.collect();
    (world, ids)
}

async fn assert_captured(world: &World, place: &str) {
    let captured: BTreeSet<String> = rebuilt(&lines(world, OUTPUT).await).into_keys().collect();
    let live = world.portal.borrow().live_content(REDIRECTS);
    let live: BTreeSet<String> = live.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect();
    assert_eq!(captured, live, "{place}");
}

/// The second page begins one further on: the item at the border is on neither.
#[tokio::test(start_paused = true)]
async fn what_a_deletion_hides_between_two_pages_of_a_snapshot_is_captured() {
    // Of pages that are full, and of short ones: fewer than a page holds may be on several.
    for (count, short_pages) in [(101, 0.0), (90, 1.0), (250, 0.3)] {
        let mut is_short = false;
        for at in (0..2_000).step_by(50) {
            let (world, ids) = redirects(count, 100, short_pages, "");
            later(&world, 60).await;
            let delete = async {
                world.clock.sleep(Duration::from_millis(at)).await;
                assert!(world.portal.borrow_mut().delete_content(world.clock.now(), REDIRECTS, &ids[0]));
            };
            let (first, ()) = futures_util::future::join(capture(&world), delete).await;
            is_short |= told(&first).changes.snapshot < count as u64;
            later(&world, 60).await;
            capture(&world).await;
            assert_captured(&world, &format!("{count}, deleted after {at} ms")).await;
        }
        assert!(is_short, "{count}: the deletion came too late each time");
    }
}

/// What the first invocation's pages hid is on no page that the second one asks for.
#[tokio::test(start_paused = true)]
async fn what_a_deletion_hides_between_two_invocations_of_a_snapshot_is_captured() {
    let mut cut = 0;
    for seconds in 5..40 {
        let (world, ids) = redirects(450, 1_500, 0.0, "");
        later(&world, 60).await;
        let event = json!({ "job": "capture", "name": "contacts" });
        let first = report(world.handle_within(event, seconds).await.unwrap());
        let written = told(&first).changes.snapshot;
        if first.outcome != Outcome::Yielded || written == 0 || written == 450 {
            continue;
        }
        cut += 1;
        assert!(world.portal.borrow_mut().delete_content(world.clock.now(), REDIRECTS, &ids[0]));
        let report = world.finish(first, 900).await;
        assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        // Each once: the one that is gone now, and those that are there.
        assert_eq!(told(&report).changes.snapshot, 450, "cut off after {seconds} s");
        later(&world, 60).await;
        capture(&world).await;
        assert_captured(&world, &format!("cut off after {seconds} s")).await;
    }
    assert!(cut > 3, "no invocation ended between two pages");
}

/// Who changes moves to the end of the list, and those behind it one place to the front.
#[tokio::test(start_paused = true)]
async fn what_an_edit_hides_between_two_pages_is_captured_also_without_a_second_pass() {
    for at in (0..2_000).step_by(50) {
        let (world, ids) = redirects(230, 100, 0.0, "trailing_seconds: 0\n");
        later(&world, 60).await;
        capture(&world).await;
        later(&world, 60).await;
        let edit = |id: &str, to: &str| {
            world.portal.borrow_mut().edit_content(world.clock.now(), REDIRECTS, id, &json!({ "destination": to }));
        };
        for id in &ids {
            edit(id, "/second");
            world.clock.sleep(Duration::from_millis(2)).await;
        }
        later(&world, 60).await;
        let again = async {
            world.clock.sleep(Duration::from_millis(at)).await;
            edit(&ids[0], "/third");
        };
        futures_util::future::join(capture(&world), again).await;
        later(&world, 60).await;
        capture(&world).await;
        let captured = rebuilt(&lines(&world, OUTPUT).await);
        for id in &ids[1..] {
            assert_eq!(captured[id]["destination"], "/second", "{id}, edited after {at} ms");
        }
        assert_eq!(captured[&ids[0]]["destination"], "/third", "edited after {at} ms");
    }
}

/// A list is answered with nothing twice, which is no reason to believe that there is nothing.
#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_list_is_answered_with_nothing_twice_is_whole() {
    for nth in 1..12 {
        let world = World::with(&config(""), settings());
        let now = world.clock.now();
        let rows = (0..250).map(|at| vec![("email", format!("p{at}@example.com"))]);
        world.portal.borrow_mut().seed_many(now, "contacts", rows);
        later(&world, 60).await;
        for nth in [nth, nth + 1] {
            world.portal.borrow_mut().add_fault(Fault::nth("objects/2026-09/contacts", nth, What::EmptyResults));
        }
        capture(&world).await;
        world.portal.borrow_mut().clear_faults();
        later(&world, 60).await;
        capture(&world).await;
        assert_equal(&world, &lines(&world, OUTPUT).await);

        let (world, _) = redirects(250, 100, 0.0, "");
        later(&world, 60).await;
        for nth in [nth, nth + 1] {
            world.portal.borrow_mut().add_fault(Fault::nth("url-redirects", nth, What::EmptyResults));
        }
        capture(&world).await;
        world.portal.borrow_mut().clear_faults();
        later(&world, 60).await;
        capture(&world).await;
        assert_captured(&world, &format!("the calls {nth} and {} were answered with nothing", nth + 1)).await;
    }
}

/// Each row whose id and version were not there before.
fn once(lines: Vec<Value>) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let version = |line: &Value| (line["key"].to_string(), line["metadata"]["hubferry.updatedAt"].to_string());
    lines.into_iter().filter(|line| seen.insert(version(line))).collect()
}

/// It is told by the snapshot, and as a change once more: with other associations it is another version, although no date has moved.
#[tokio::test(start_paused = true)]
async fn who_drops_repeats_has_the_associations_of_a_record_that_the_snapshot_told_too() {
    for is_new in [false, true] {
        let world = World::with(&config("associations: [companies]\n"), settings());
        let now = world.clock.now();
        let old = world.portal.borrow_mut().seed_record(now, "contacts", &[("email", "p@example.com")]).unwrap();
        let company = world.portal.borrow_mut().seed_record(now, "companies", &[("name", "A")]).unwrap();
        later(&world, 60).await;
        // A moment before the capture begins: what it began with is not known more closely.
        let now = world.clock.now();
        let id = if is_new {
            world.portal.borrow_mut().create_record(now, "contacts", &[("email", "q@example.com")]).unwrap()
        } else {
            assert!(world.portal.borrow_mut().edit(now, "contacts", &old, &[("firstname", "Second")]));
            old
        };
        assert!(told(&capture(&world).await).changes.snapshot > 0);
        assert!(world.portal.borrow_mut().associate("contacts", &id, "companies", &company));
        for _ in 0..3 {
            later(&world, 4_000).await;
            capture(&world).await;
        }
        let all = lines(&world, OUTPUT).await;
        let told = all.iter().filter(|line| line["key"]["id"] == id.as_str()).count();
        assert_eq!(told, 2, "is new: {is_new}: the snapshot's, and the change's");
        assert_linked(&world, &all);
        assert_linked(&world, &once(all));
    }
}
