//! People at work while a capture runs and is killed.

use std::{cell::Cell, rc::Rc, time::Duration};

use hubferry::{clock::Clock as _, report::Outcome};
use serde_json::json;

use super::{OUTPUT, assert_equal, capture, config, count, lines, settings, told};
use crate::support::World;

/// What people do, for so long.
async fn people(world: &World, rng: &mut fastrand::Rng, seconds: u64, stop: Rc<Cell<bool>>) {
    let end = world.clock.elapsed() + Duration::from_secs(seconds);
    let mut made = 0;
    while world.clock.elapsed() < end {
        world.clock.sleep(Duration::from_millis(rng.u64(1..20_000))).await;
        let now = world.clock.now();
        let mut portal = world.portal.borrow_mut();
        let live: Vec<String> = portal.live_objects("contacts", &[]).map(|one| one.id.to_string()).collect();
        let binned: Vec<String> = portal.archived_objects(now, "contacts").into_iter().map(|(id, _)| id).collect();
        let any = |rng: &mut fastrand::Rng, ids: &[String]| ids.get(rng.usize(0..ids.len().max(1))).cloned();
        match rng.u8(0..12) {
            0..=2 => {
                made += 1;
                let email = format!("n{made}@example.com");
                portal.create_record(now, "contacts", &[("email", &email), ("firstname", "New")]);
            }
            3..=6 => {
                let name = format!("N{}", rng.u32(..));
                for _ in 0..rng.usize(1..4) {
                    if let Some(id) = any(rng, &live) {
                        portal.edit(now, "contacts", &id, &[("firstname", &name)]);
                    }
                }
            }
            7 | 8 => {
                if let Some(id) = any(rng, &live) {
                    portal.set_archived(now, "contacts", &id, true);
                }
            }
            9 => {
                if let Some(id) = any(rng, &binned) {
                    portal.set_archived(now, "contacts", &id, false);
                }
            }
            10 => {
                if let (Some(winner), Some(loser)) = (any(rng, &live), any(rng, &live)) {
                    portal.merge(now, "contacts", &winner, &loser);
                }
            }
            _ => {
                let name = format!("Bulk{}", rng.u32(..));
                portal.edit_many(now, "contacts", live.iter().take(40).map(String::as_str), &[("lastname", &name)]);
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
async fn run(
    seed: u64,
    more: &str,
    kills: bool,
    adjust: impl FnOnce(&mut hubferry_simulator::hubspot::PortalSettings),
) {
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
    if !kills {
        for (id, times) in count(&all, "create") {
            assert_eq!(times, 1, "seed {seed}: {id} was created {times} times");
        }
    }
    world.clock.sleep(Duration::from_secs(4_000)).await;
    let quiet = capture(&world).await;
    assert_eq!(told(&quiet).changes.emitted(), 0, "seed {seed}: {quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_s3_equals_the_portal_while_people_work_and_the_capture_is_killed() {
    for seed in 0..100 {
        run(seed, "trailing_seconds: 600\n", true, |settings| settings.index_lag.jitter_ms = 8_000).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_index_shows_forty_minutes_late_is_captured_too() {
    for seed in 0..10 {
        run(seed, "", seed % 2 == 0, |settings| {
            settings.index_lag.jitter_ms = 8_000;
            settings.index_lag.late_share = 0.05;
            settings.index_lag.late_ms = 40 * 60 * 1_000;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn ids_in_the_order_of_texts_and_short_pages_lose_nothing() {
    for seed in 0..10 {
        run(seed, "", true, |settings| {
            settings.first_record_id = 85;
            settings.unsettled.ids_are_text = seed % 2 == 0;
            settings.unsettled.short_pages = 0.3;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_fault_at_three_percent_of_the_calls_loses_nothing() {
    use hubferry_simulator::hubspot::{Fault, What};
    for seed in 0..10 {
        run(seed, "trailing_seconds: 600\nassociations: [companies]\nbefore: true\n", true, |settings| {
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
        })
        .await;
    }
}
