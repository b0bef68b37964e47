//! People at work while a capture runs and is killed.

use std::{cell::Cell, ops::Range, rc::Rc, thread, time::Duration};

use hubferry::{clock::Clock as _, report::Outcome};
use hubferry_simulator::hubspot::{Fault, Portal, PortalSettings, What};
use serde_json::json;

use super::{OUTPUT, assert_equal, assert_linked, capture, config, count, lines, settings, told};
use crate::support::World;

/// What people do, for so long.
async fn people(world: &World, rng: &mut fastrand::Rng, seconds: u64, stop: Rc<Cell<bool>>) {
    let end = world.clock.elapsed() + Duration::from_secs(seconds);
    let mut made = 0;
    while world.clock.elapsed() < end {
        world.clock.sleep(Duration::from_millis(rng.u64(1..20_000))).await;
        let now = world.clock.now();
        let mut portal = world.portal.borrow_mut();
        let live = |portal: &Portal| portal.live_objects("contacts", &[]).map(|one| one.id).collect::<Vec<_>>();
        let any = |rng: &mut fastrand::Rng, ids: &[String]| ids.get(rng.usize(0..ids.len().max(1))).cloned();
        match rng.u8(0..15) {
            0..=2 => {
                made += 1;
                let email = format!("n{made}@example.com");
                portal.create_record(now, "contacts", &[("email", &email), ("firstname", "New")]);
            }
            3..=6 => {
                let name = format!("N{}", rng.u32(..));
                let live = live(&portal);
                for _ in 0..rng.usize(1..4) {
                    if let Some(id) = any(rng, &live) {
                        portal.edit(now, "contacts", &id, &[("firstname", &name)]);
                    }
                }
            }
            7 | 8 => {
                if let Some(id) = any(rng, &live(&portal)) {
                    portal.set_archived(now, "contacts", &id, true);
                }
            }
            9 => {
                let binned: Vec<String> =
                    portal.archived_objects(now, "contacts").into_iter().map(|(id, _)| id).collect();
                if let Some(id) = any(rng, &binned) {
                    portal.set_archived(now, "contacts", &id, false);
                }
            }
            10 => {
                let live = live(&portal);
                if let (Some(winner), Some(loser)) = (any(rng, &live), any(rng, &live)) {
                    portal.merge(now, "contacts", &winner, &loser);
                }
            }
            11..=13 => {
                // No date moves with these.
                let companies: Vec<String> = portal.live_objects("companies", &[]).map(|one| one.id).collect();
                if let (Some(id), Some(company)) = (any(rng, &live(&portal)), any(rng, &companies)) {
                    if rng.bool() {
                        portal.associate("contacts", &id, "companies", &company);
                    } else {
                        portal.dissociate("contacts", &id, "companies", &company);
                    }
                }
            }
            _ => {
                let name = format!("Bulk{}", rng.u32(..));
                let first = portal.live_objects("contacts", &[]).take(40).map(|one| one.id).collect::<Vec<_>>();
                portal.edit_many(now, "contacts", first, &[("lastname", &name)]);
            }
        }
    }
    stop.set(true);
}

/// Captures every few minutes, killed now and then, until people stop.
async fn captures(world: &World, rng: &mut fastrand::Rng, kills: bool, stop: Rc<Cell<bool>>) {
    while !stop.get() {
        let seconds = rng.i64(20..900);
        let event = match world.queue.take().pop() {
            Some((body, _)) => serde_json::from_str(&body).unwrap(),
            None => json!({ "job": "capture", "name": "contacts" }),
        };
        let work = world.handle_within(event, seconds);
        if kills && rng.u8(0..3) == 0 {
            let after = Duration::from_millis(rng.u64(1..4_000));
            let _ = tokio::time::timeout(after, work).await;
        } else {
            work.await.unwrap();
        }
        world.clock.sleep(Duration::from_secs(rng.u64(1..300))).await;
    }
}

/// One world, to its end.
async fn run(seed: u64, more: &str, kills: bool, adjust: impl FnOnce(&mut PortalSettings)) {
    let mut settings = settings();
    settings.seed = seed + 1;
    adjust(&mut settings);
    let world = World::with(&config(more), settings);
    let mut rng = fastrand::Rng::with_seed(seed);
    let now = world.clock.now();
    for at in 0..rng.usize(1..150) {
        let email = format!("p{at}@example.com");
        world.portal.borrow_mut().seed_record(now, "contacts", &[("email", &email), ("firstname", "First")]).unwrap();
    }
    for _ in 0..3 {
        world.portal.borrow_mut().seed_record(now, "companies", &[("name", "A")]).unwrap();
    }
    world.clock.sleep(Duration::from_secs(60)).await;
    let stop = Rc::new(Cell::new(false));
    let (mut theirs, mut ours) = (rng.fork(), rng.fork());
    futures_util::future::join(
        people(&world, &mut theirs, 2_400, stop.clone()),
        captures(&world, &mut ours, kills, stop.clone()),
    )
    .await;
    // Quiet: the lag passes, then the trailing pass's distance.
    for wait in [120, 4_000, 4_000] {
        world.clock.sleep(Duration::from_secs(wait)).await;
        world.queue.take();
        let report = capture(&world).await;
        assert_eq!(report.outcome, Outcome::Done);
    }
    let all = lines(&world, OUTPUT).await;
    assert_equal(&world, &all);
    if more.contains("companies") {
        assert_linked(&world, &all);
    }
    // A consumer that drops repeats, as the README tells it to, ends the same.
    let mut told_before = std::collections::HashSet::new();
    let once: Vec<_> = all
        .iter()
        .filter(|line| told_before.insert((line["key"].clone(), line["metadata"]["hubferry.updatedAt"].clone())))
        .cloned()
        .collect();
    assert_equal(&world, &once);
    if !kills {
        for (id, times) in count(&all, "create") {
            assert_eq!(times, 1, "seed {seed}: {id} was created {times} times");
        }
    }
    world.clock.sleep(Duration::from_secs(4_000)).await;
    let quiet = capture(&world).await;
    assert_eq!(told(&quiet).changes.emitted(), 0, "seed {seed}: {quiet:?}");
}

/// Each seed's world: in virtual time, so that a second thread halves what a processor takes.
#[expect(clippy::print_stdout, reason = "a failing test shows which seed it was")]
fn worlds(
    seeds: Range<u64>,
    more: &str,
    kills: impl Fn(u64) -> bool + Sync,
    adjust: impl Fn(u64, &mut PortalSettings) + Sync,
) {
    let half = |remainder| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        for seed in seeds.clone().filter(|seed| seed % 2 == remainder) {
            println!("seed {seed}");
            runtime.block_on(run(seed, more, kills(seed), |settings| adjust(seed, settings)));
        }
    };
    thread::scope(|threads| {
        let other = threads.spawn(|| half(1));
        half(0);
        if let Err(panic) = other.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn what_is_in_s3_equals_the_portal_while_people_work_and_the_capture_is_killed() {
    let more = "trailing_seconds: 600\nassociations: [companies]\n";
    worlds(0..100, more, |_| true, |_, settings| settings.index_lag.jitter_ms = 8_000);
}

#[test]
fn what_the_index_shows_forty_minutes_late_is_captured_too() {
    worlds(
        0..10,
        "",
        |seed| seed % 4 < 2,
        |_, settings| {
            settings.index_lag.jitter_ms = 8_000;
            settings.index_lag.late_share = 0.05;
            settings.index_lag.late_ms = 40 * 60 * 1_000;
        },
    );
}

#[test]
fn ids_in_the_order_of_texts_and_short_pages_lose_nothing() {
    worlds(
        0..10,
        "",
        |_| true,
        |seed, settings| {
            settings.first_record_id = 85;
            settings.unsettled.ids_are_text = seed % 2 == 0;
            settings.unsettled.short_pages = 0.3;
        },
    );
}

#[test]
fn every_fault_at_three_percent_of_the_calls_loses_nothing() {
    let more = "trailing_seconds: 600\nassociations: [companies]\nbefore: true\n";
    worlds(
        0..10,
        more,
        |_| true,
        |_, settings| {
            settings.index_lag.jitter_ms = 8_000;
            for what in [
                What::Locked,
                What::BurstLimit,
                What::SecondlyLimit,
                What::Status(502),
                What::Html(503),
                What::ResetBefore,
                What::ResetAfter,
                What::EmptyResults,
                What::TruncatedBody,
                What::TimeoutAfterCommit,
            ] {
                settings.faults.push(Fault::share(0.003, what));
            }
        },
    );
}
