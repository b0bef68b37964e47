//! Several processes, one account: whole imports that share its limit.

use std::{cell::Cell, time::Duration};

use futures_util::future::{join, join_all};
use hubferry::{
    clock::Clock,
    report::{Outcome, Report},
};
use hubferry_simulator::hubspot::PortalSettings;

use crate::support::{World, contacts, report};

fn people(file: usize, rows: usize) -> String {
    let mut text = String::from("email,firstname\n");
    for row in 0..rows {
        text.push_str(&format!("person{row}@file{file}.example.com,First{row}\n"));
    }
    text
}

/// Imports `count` files at once, each in a process of its own; the reports, and the calls between the seconds 5 and 25.
async fn import_at_once(world: &World, count: usize, rows: usize) -> (Vec<Report>, u64) {
    let mut events = Vec::new();
    for file in 0..count {
        events.push(world.upload(&format!("incoming/contacts/{file}.csv"), people(file, rows)).await);
    }
    let calls = Cell::new(0);
    let imports = join_all(events.into_iter().map(|event| world.handle(event)));
    let sampled = async {
        world.clock.sleep(Duration::from_secs(5)).await;
        let before = world.portal.borrow().counts().requests;
        world.clock.sleep(Duration::from_secs(20)).await;
        calls.set(world.portal.borrow().counts().requests - before);
    };
    let (answers, ()) = join(imports, sampled).await;
    (answers.into_iter().map(|answer| report(answer.unwrap())).collect(), calls.get())
}

#[tokio::test(start_paused = true)]
async fn three_imports_at_once_use_97_percent_of_the_limit_together_without_a_429() {
    // GIVEN three files for one account, which allows 190 calls in ten seconds
    let world = World::new(&contacts(""));
    // WHEN they are imported at once by three processes
    let (reports, calls) = import_at_once(&world, 3, 20_000).await;
    // THEN together they use the limit, and never pass it
    for report in &reports {
        assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 20_000), "{report:?}");
        assert_eq!(report.calls.throttled, 0, "{report:?}");
    }
    assert!(calls * 100 >= 97 * 20 * 19, "{calls} calls in 20 seconds");
    assert!(world.portal.borrow().max_calls_in_window() <= 190);
    // AND none waits for the others
    let shares: Vec<_> = reports.iter().map(|report| report.limit_use_percent.unwrap()).collect();
    assert!(shares.iter().all(|share| (28.0..45.0).contains(share)), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_small_file_beside_a_large_one_is_done_in_seconds() {
    let world = World::new(&contacts(""));
    let large = world.upload("incoming/contacts/large.csv", people(0, 16_000)).await;
    let small = world.upload("incoming/contacts/small.csv", people(1, 150)).await;
    let took = Cell::new(Duration::MAX);
    let beside = async {
        world.clock.sleep(Duration::from_secs(7)).await;
        let start = world.clock.elapsed();
        let report = report(world.handle(small).await.unwrap());
        took.set(world.clock.elapsed() - start);
        report
    };
    let (large, small) = join(world.handle(large), beside).await;
    for (report, rows) in [(report(large.unwrap()), 16_000), (small, 150)] {
        assert_eq!(
            (report.outcome, report.rows.created, report.calls.throttled),
            (Outcome::Done, rows, 0),
            "{report:?}"
        );
    }
    assert!(took.get() < Duration::from_secs(6), "{:?}", took.get());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_in_its_block_leaves_the_limit_to_the_others() {
    let world = World::new(&contacts(""));
    let dying = world.upload("incoming/contacts/dying.csv", people(0, 16_000)).await;
    let other = world.upload("incoming/contacts/other.csv", people(1, 30_000)).await;
    let calls = Cell::new(0);
    let killed = async {
        let _ = futures_util::future::select(
            Box::pin(world.handle(dying)),
            Box::pin(world.clock.sleep(Duration::from_millis(6_137))),
        )
        .await;
        world.clock.sleep(Duration::from_secs(2)).await;
        let before = world.portal.borrow().counts().requests;
        world.clock.sleep(Duration::from_secs(10)).await;
        calls.set(world.portal.borrow().counts().requests - before);
    };
    let (other, ()) = join(world.handle(other), killed).await;
    let other = report(other.unwrap());
    assert_eq!((other.outcome, other.rows.created, other.calls.throttled), (Outcome::Done, 30_000, 0), "{other:?}");
    assert!(calls.get() >= 184, "{} calls in the ten seconds after", calls.get());
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_several_calls_makes_none_of_them_out_of_turn() {
    // GIVEN an account that allows a call every two and a half seconds, with companies that are found and marked before they are written
    let config = contacts("").replace("object: contacts\n    key: email", "object: companies\n    key: domain");
    let config = config.replace("secret: hubferry/hubspot", "secret: hubferry/hubspot, limits: { burst: 4 }");
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = 300;
    settings.limits.burst = Some(4);
    let world = World::with(&format!("{config}    create_properties: true\n"), settings);
    let mut files = Vec::new();
    for file in 0..3 {
        let mut text = String::from("domain,name\n");
        for row in 0..5 {
            let domain = format!("firm{row}-{file}.example");
            let now = world.clock.now();
            world.portal.borrow_mut().seed_record(now, "companies", &[("domain", &domain)]).unwrap();
            text.push_str(&format!("{domain},Firm {row}\n"));
        }
        files.push(text);
    }
    world.clock.sleep(Duration::from_secs(60)).await;
    let mut events = Vec::new();
    for (file, text) in files.into_iter().enumerate() {
        events.push(world.upload(&format!("incoming/contacts/{file}.csv"), text).await);
    }
    // WHEN three files are imported at once
    let answers = join_all(events.into_iter().map(|event| world.handle(event))).await;
    // THEN no call takes the place of another one: a turn is that of a batch's first call, not of its last
    for answer in answers {
        let report = report(answer.unwrap());
        assert_eq!((report.outcome, report.rows.updated, report.calls.throttled), (Outcome::Done, 5, 0), "{report:?}");
    }
    let portal = world.portal.borrow();
    assert_eq!((portal.counts().throttled, portal.max_calls_in_window()), (0, 4));
}
