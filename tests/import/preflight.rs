//! `preflight: full`: what would be made and changed is known before the first write, whatever it takes to find out.

use std::{collections::BTreeMap, time::Duration};

use hubferry::{
    clock::Clock,
    report::{Expected, Outcome, PreflightReport, Report},
};
use hubferry_simulator::hubspot::{Fault, PortalSettings, What};

use crate::support::{World, contacts, report};

fn calls(world: &World, word: &str) -> usize {
    world.portal.borrow().log().iter().filter(|call| call.path.contains(word)).count()
}

fn written(world: &World) -> usize {
    ["batch/upsert", "batch/update", "batch/archive", "batch/create"].iter().map(|word| calls(world, word)).sum()
}

fn seed(world: &World, object: &str, records: &[&[(&str, &str)]]) {
    let now = world.clock.now();
    for record in records {
        world.portal.borrow_mut().seed_record(now, object, record).unwrap();
    }
}

fn expected(object: &str, create: u64, update: u64, archive: u64) -> BTreeMap<String, Expected> {
    BTreeMap::from([(object.to_owned(), Expected { create, update, archive })])
}

fn rows(count: usize) -> String {
    let rows: String = (0..count).map(|row| format!("p{row}@x.io,P{row}\n")).collect();
    format!("email,firstname\n{rows}")
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_is_what_the_run_then_does_and_costs_a_counted_call_for_each_hundred_keys() {
    let world = World::new(&contacts("preflight: full"));
    seed(&world, "contacts", &[&[("email", "p1@x.io")], &[("email", "p2@x.io")], &[("email", "other@x.io")]]);
    let file = rows(250) + "P1@x.io,Again\nbroken,X\n";
    let run = world.import("incoming/contacts/a.csv", file).await;
    assert_eq!(run.outcome, Outcome::Done, "{run:?}");
    let found = PreflightReport { rows: 252, rejected: 1, repeated: 1, records: expected("contacts", 248, 2, 0) };
    assert_eq!(run.preflight, Some(found));
    // The key that comes up again is in a later call: its record is written twice.
    assert_eq!((run.rows.created, run.rows.updated, run.rows.merged, run.rows.rejected), (248, 3, 0, 1));
    assert_eq!(calls(&world, "batch/read"), 3, "250 keys");
    assert_eq!(run.calls.total, world.portal.borrow().counts().requests, "they are counted");
    let note = "preflight: 252 rows, 1 of them rejects, 1 with a key that came before; expected: contacts: 248 created, 2 updated";
    assert!(run.notes.iter().any(|told| told == note), "{:?}", run.notes);
    // Without it nothing is looked up.
    let world = World::new(&contacts(""));
    let run = world.import("incoming/contacts/a.csv", rows(250)).await;
    assert_eq!((run.preflight, calls(&world, "batch/read")), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn keys_that_the_mode_does_not_take_are_rejects_before_anything_is_written() {
    for (mode, code, records, rejected) in [
        ("create", "KEY_EXISTS", expected("contacts", 98, 0, 0), 2),
        ("update", "KEY_NOT_FOUND", expected("contacts", 0, 2, 0), 98),
        ("archive", "KEY_NOT_FOUND", expected("contacts", 0, 0, 2), 98),
    ] {
        let settings = contacts(&format!("preflight: full\nmode: {mode}\nabort_if_rejected: 1"));
        let world = World::new(&settings);
        seed(&world, "contacts", &[&[("email", "p1@x.io")], &[("email", "p2@x.io")]]);
        let run = world.import("incoming/contacts/a.csv", rows(100)).await;
        assert_eq!(
            (run.outcome, run.error.as_ref().map(|error| error.code.as_str())),
            (Outcome::Invalid, Some("ABORT_IF_REJECTED")),
            "{mode}: {run:?}"
        );
        assert_eq!(written(&world), 0, "{mode}");
        let found = run.preflight.unwrap();
        assert_eq!((found.records, found.rejected), (records, rejected), "{mode}");
        let rejects = world.text(run.rejects.as_deref().unwrap()).unwrap();
        let lines: Vec<&str> = rejects.lines().filter(|line| line.contains(code)).collect();
        assert_eq!(lines.len() as u64, rejected, "{mode}: {rejects}");
        let first = if mode == "create" { "p1@x.io,P1,3," } else { "p0@x.io,P0,2," };
        assert!(lines[0].starts_with(first), "{mode}: in the file's order, with its cells: {rejects}");
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_a_unique_key_are_found_by_what_they_hold() {
    let settings = "
version: 1
hubspot: { default: { secret: hubferry/hubspot } }
imports:
  - name: people
    match: incoming/people/*
    create_properties: true
    preflight: full
    records:
      - { object: contacts, key: email, columns: { email: email } }
      - { object: companies, key: domain, columns: { domain: domain } }
";
    let world = World::new(settings);
    seed(&world, "companies", &[&[("domain", "one.io")], &[("domain", "two.io")], &[("domain", "two.io")]]);
    // What was seeded is in the search index by then.
    world.clock.sleep(Duration::from_secs(60)).await;
    let file = "email,domain\na@x.io,one.io\nb@x.io,https://www.one.io/\nc@x.io,new.io\nd@x.io,two.io\ne@x.io,\n";
    let run = world.import("incoming/people/a.csv", file).await;
    let found = run.preflight.clone().unwrap();
    assert_eq!((found.rejected, found.records["contacts"].create), (1, 5), "two companies have two.io: {run:?}");
    assert_eq!(found.records["companies"], Expected { create: 1, update: 1, archive: 0 });
    assert_eq!((run.outcome, run.rows.rejected), (Outcome::Done, 1), "{run:?}");
    assert_eq!((run.records["companies"].created, run.records["companies"].updated), (1, 1), "{run:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_is_longer_than_an_invocation_goes_on_and_counts_each_key_once() {
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = 300;
    let world = World::with(&contacts("preflight: full"), settings);
    let count = 20_000;
    let event = world.upload("incoming/contacts/a.csv", rows(count)).await;
    let mut last: Report = report(world.handle_within(event.clone(), 10).await.unwrap());
    let mut invocations = 1;
    while written(&world) == 0 {
        assert_eq!((last.outcome, last.preflight.is_some()), (Outcome::Yielded, false), "{last:?}");
        invocations += 1;
        assert!(invocations < 20, "{last:?}");
        last = report(world.handle_within(event.clone(), 10).await.unwrap());
    }
    assert!(invocations > 1, "200 lookups do not fit into ten seconds");
    assert!(calls(&world, "batch/read") < 200 + invocations * 25, "at most a turn is looked up again");
    while last.outcome == Outcome::Yielded {
        last = report(world.handle(event.clone()).await.unwrap());
    }
    let found = last.preflight.clone().unwrap();
    assert_eq!(found, PreflightReport { rows: 20_000, records: expected("contacts", 20_000, 0, 0), ..found.clone() });
    assert_eq!((last.outcome, last.rows.created), (Outcome::Done, 20_000));
    assert_eq!(world.portal.borrow().counts().throttled, 0, "lookups keep to the account's limit");
}

#[tokio::test(start_paused = true)]
async fn lookups_that_fail_are_made_again_and_nothing_is_written_meanwhile() {
    let world = World::new(&contacts("preflight: full"));
    let event = world.upload("incoming/contacts/a.csv", rows(3_000)).await;
    world.portal.borrow_mut().add_fault(Fault::always(What::Status(503)).on("batch/read"));
    let mut last = report(world.handle(event.clone()).await.unwrap());
    assert_eq!((last.outcome, written(&world)), (Outcome::Yielded, 0), "{last:?}");
    world.portal.borrow_mut().clear_faults();
    for _ in 0..20 {
        if last.outcome != Outcome::Yielded {
            break;
        }
        world.clock.sleep(Duration::from_secs(600)).await;
        last = report(world.handle(event.clone()).await.unwrap());
    }
    assert_eq!((last.outcome, last.rows.created), (Outcome::Done, 3_000), "{last:?}");
    assert_eq!(last.preflight.unwrap().records, expected("contacts", 3_000, 0, 0));
}
