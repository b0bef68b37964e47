//! How runs end when the usual end is not to be had: a newer version comes, the bucket refuses, time runs out, a process dies at the end.

use std::time::Duration;

use hubferry::{
    clock::Clock,
    objects::{Location, Objects, memory::MemoryObjects},
    report::{Outcome, Report},
    state::{Key, Table, Update, Value as Stored, runs::LEASE},
};
use serde_json::Value;

use crate::support::{BUCKET, World, contacts, rejects, report};

/// Rows `from..to`, one in ten of which is a reject.
fn people(range: std::ops::Range<u32>, name: &str) -> String {
    let mut file = String::from("email,firstname\n");
    for number in range {
        let email = if number % 10 == 3 { format!("broken{number}") } else { format!("person{number}@x.io") };
        file.push_str(&format!("{email},{name}\n"));
    }
    file
}

/// The ids of the runs that are open, oldest first.
fn open_runs(world: &World) -> Vec<String> {
    world.table.snapshot().into_keys().filter(|key| key.pk == "open").map(|key| key.sk).collect()
}

async fn change_run(world: &World, run_id: &str, name: &'static str, value: i64) {
    let update = Update { set: vec![(name, Stored::N(value))], ..Update::default() };
    world.table.update(&Key::new(format!("run#{run_id}"), "run"), update).await.unwrap();
}

fn upserts(world: &World) -> usize {
    world.portal.borrow().log().iter().filter(|call| call.path.ends_with("/batch/upsert")).count()
}

fn code(report: &Report) -> &str {
    report.error.as_ref().map_or("", |error| error.code.as_str())
}

#[tokio::test(start_paused = true)]
async fn a_run_that_dies_and_is_superseded_ends_with_its_report_and_its_rejects() {
    let world = World::new(&contacts(""));
    let older = world.upload("incoming/contacts/a.csv", people(0..6_000, "Old")).await;
    assert!(world.handle_until_killed(older.clone(), Duration::from_secs(2)).await.is_none());
    let run_id = open_runs(&world).remove(0);
    world.clock.sleep(LEASE).await;
    let newer = world.import("incoming/contacts/a.csv", people(0..500, "New")).await;
    assert_eq!((newer.outcome, newer.rows.read), (Outcome::Done, 500), "{newer:?}");

    let ended = world.stored_report("contacts", &run_id).expect("the dead run has no report");
    assert_eq!((ended.outcome, code(&ended)), (Outcome::Superseded, "SOURCE_CHANGED"), "{ended:?}");
    assert!(ended.rows.add_up() && ended.rows.read > 500 && ended.rows.read < 6_000, "{ended:?}");
    let rejected = rejects(&world.text(ended.rejects.as_deref().unwrap()).unwrap());
    assert_eq!(rejected.len() as u64, ended.rows.rejected, "the rejects of what its last checkpoint covers");
    assert!(open_runs(&world).is_empty());
    assert!(world.resume().await.is_empty());
    let left = world.objects.list(&Location::new(BUCKET, "state/")).await.unwrap();
    assert!(left.is_empty(), "working files are left: {left:?}");
    // The context tells of the newer run, and the older event of the older one.
    let again = report(world.handle(older).await.unwrap());
    assert_eq!((again.outcome, again.rows), (Outcome::Duplicate, ended.rows));
    let context = world.process().runs().context("import", "contacts").await.unwrap().unwrap();
    assert_eq!(Some(context.last_run.run_id), newer.run_id);
    assert_eq!(world.contact("person499@x.io", "firstname").as_deref(), Some("New"));
}

#[tokio::test(start_paused = true)]
async fn versions_whose_runs_died_one_after_the_other_all_end_before_the_newest_writes() {
    // The second dies a little after it was admitted, in most cases while it waits for the first.
    for millis in [8, 16, 24, 200, 2_000] {
        let world = World::new(&contacts(""));
        let one = world.upload("incoming/contacts/a.csv", people(0..6_000, "One")).await;
        assert!(world.handle_until_killed(one, Duration::from_secs(2)).await.is_none());
        let two = world.upload("incoming/contacts/a.csv", people(0..6_000, "Two")).await;
        assert!(world.handle_until_killed(two, Duration::from_millis(millis)).await.is_none());
        let died = open_runs(&world);
        let three = world.import("incoming/contacts/a.csv", people(0..500, "Three")).await;
        assert_eq!((three.outcome, three.rows.read), (Outcome::Done, 500), "{millis}: {three:?}");
        assert!(world.portal.borrow().records("contacts").all(|record| {
            let number: u32 = record["email"].trim_start_matches("person").split('@').next().unwrap().parse().unwrap();
            number >= 500 || record["firstname"] == "Three"
        }));
        for run_id in &died {
            // One that was not even made leaves nothing but its entry.
            let is_made = world.table.snapshot().contains_key(&Key::new(format!("run#{run_id}"), "run"));
            let ended = world.stored_report("contacts", run_id).map(|report| report.outcome);
            assert_eq!(ended, is_made.then_some(Outcome::Superseded), "{millis}: {run_id}");
        }
        assert_eq!(world.contact("person499@x.io", "firstname").as_deref(), Some("Three"), "{millis}");
        assert!(world.resume().await.is_empty(), "{millis}: something goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn versions_whose_events_come_at_about_the_same_time_leave_the_newest() {
    // A door takes 2 ms: this puts the second and the third admission between any two steps of the one before.
    // Without S3's order of events the one that comes last is the newest.
    for (ordered, apart) in (0..12).map(|apart| (true, apart)).chain((1..8).map(|apart| (false, apart))) {
        let world = World::new(&contacts(""));
        let mut events = Vec::new();
        for name in ["One", "Two", "Three"] {
            let mut event = world.upload("incoming/contacts/a.csv", people(0..600, name)).await;
            if !ordered {
                event["Records"][0]["s3"]["object"].as_object_mut().unwrap().remove("sequencer");
            }
            events.push(event);
        }
        let deliver = async |number: u64, event: Value| {
            world.clock.sleep(Duration::from_millis(number * apart)).await;
            report(world.handle(event).await.unwrap())
        };
        let [one, two, three] = events.try_into().unwrap();
        let (one, two, three) = tokio::join!(deliver(0, one), deliver(1, two), deliver(2, three));
        assert_eq!((three.outcome, three.rows.read), (Outcome::Done, 600), "{apart} ms: {three:?}");
        for older in [one, two] {
            assert_eq!(older.outcome, Outcome::Superseded, "{apart} ms: {older:?}");
        }
        let portal = world.portal.borrow();
        assert!(portal.records("contacts").all(|record| record["firstname"] == "Three"), "{apart} ms");
        assert_eq!(portal.record_count("contacts"), 540);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waited_a_minute_for_an_older_one_that_lives_yields_and_goes_on_after_its_end() {
    // GIVEN a run whose lease goes on and on, as by a clock that is ten minutes fast
    let world = World::new(&contacts(""));
    let older = world.upload("incoming/contacts/a.csv", people(0..6_000, "Old")).await;
    assert!(world.handle_until_killed(older, Duration::from_secs(2)).await.is_none());
    let run_id = open_runs(&world).remove(0);
    let lease_ends = world.clock.now().as_millisecond() + 600_000;
    change_run(&world, &run_id, "lease_expires_at", lease_ends).await;
    let sent = upserts(&world);
    // WHEN a newer version comes
    let newer = world.upload("incoming/contacts/a.csv", people(0..500, "New")).await;
    let began = world.clock.elapsed();
    let first = report(world.handle(newer).await.unwrap());
    // THEN it waits a minute, writes nothing, and goes on by itself in another invocation
    let waited = (world.clock.elapsed() - began).as_secs();
    assert!((60..=65).contains(&waited), "{waited} s");
    assert_eq!((first.outcome, &first.error, first.rows.read), (Outcome::Yielded, &None, 0), "{first:?}");
    assert_eq!(upserts(&world), sent);
    let last = world.finish(first, 900).await;
    // Waiting is not standing still, however often it has to be gone on with.
    assert_eq!((last.outcome, last.rows.read), (Outcome::Done, 500), "{last:?}");
    assert!(last.invocations > 8, "{last:?}");
    assert!(world.clock.now().as_millisecond() >= lease_ends);
    assert_eq!(world.stored_report("contacts", &run_id).unwrap().outcome, Outcome::Superseded);
    assert_eq!(world.contact("person499@x.io", "firstname").as_deref(), Some("New"));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_reaches_the_ceiling_of_invocations_fails_loudly_although_it_gets_on() {
    let world = World::new(&contacts(""));
    let event = world.upload("incoming/contacts/a.csv", people(0..20_000, "P")).await;
    let first = report(world.handle_within(event.clone(), 8).await.unwrap());
    assert_eq!(first.outcome, Outcome::Yielded);
    change_run(&world, first.run_id.as_deref().unwrap(), "invocations", 9_999).await;
    let at_the_ceiling = world.finish_one(8).await;
    assert_eq!(at_the_ceiling.outcome, Outcome::Yielded, "the last one that may work: {at_the_ceiling:?}");
    assert!(at_the_ceiling.rows.read > first.rows.read);
    let sent = upserts(&world);
    let failed = world.finish_one(8).await;
    assert_eq!((failed.outcome, code(&failed)), (Outcome::Failed, "NO_PROGRESS"), "{failed:?}");
    assert!(failed.error.as_ref().unwrap().message.contains("10000 invocations"), "{failed:?}");
    assert_eq!((failed.rows, upserts(&world)), (at_the_ceiling.rows, sent), "nothing more was written");
    let rejected = rejects(&world.text(failed.rejects.as_deref().unwrap()).unwrap());
    assert_eq!(rejected.len() as u64, failed.rows.rejected);
    // A person who sends the event again gets another run.
    let again = report(world.handle(event).await.unwrap());
    assert_eq!((again.outcome, again.rows.read), (Outcome::Done, 20_000), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_refuses_reports_or_rejects_for_good_does_not_keep_the_run_from_its_end() {
    // The report: the run is done, and the answer says where it is missing.
    let world = World::new(&contacts(""));
    world.forbidden_writes.borrow_mut().push("reports/");
    let event = world.upload("incoming/contacts/a.csv", people(0..500, "P")).await;
    let done = report(world.handle(event.clone()).await.unwrap());
    assert_eq!((done.outcome, done.rows.read, done.rows.rejected), (Outcome::Done, 500, 50), "{done:?}");
    assert!(done.notes.iter().any(|note| note.contains("the report could not be stored")), "{:?}", done.notes);
    assert!(open_runs(&world).is_empty());
    assert_eq!(report(world.handle(event).await.unwrap()).outcome, Outcome::Duplicate);

    // The rejects: the run has failed, says so, and what it has of them stays where it is.
    let world = World::new(&contacts(""));
    world.forbidden_writes.borrow_mut().push("rejects/");
    let event = world.upload("incoming/contacts/a.csv", people(0..500, "P")).await;
    let failed = report(world.handle(event.clone()).await.unwrap());
    assert_eq!((failed.outcome, code(&failed), &failed.rejects), (Outcome::Failed, "OBJECTS_FORBIDDEN", &None));
    assert_eq!((failed.rows.read, failed.rows.rejected), (500, 50), "{failed:?}");
    let place = format!("s3://{BUCKET}/state/import/contacts/{}/rejects-", failed.run_id.as_deref().unwrap());
    assert!(failed.notes.iter().any(|note| note.contains(&place)), "{:?}", failed.notes);
    let kept = world.objects.list(&Location::parse(&place).unwrap()).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert!(world.text(&kept[0].to_string()).unwrap().contains("broken3,"));
    assert!(open_runs(&world).is_empty(), "it is not tried for ever");
    assert_eq!(world.stored_report("contacts", failed.run_id.as_deref().unwrap()).unwrap().outcome, Outcome::Failed);
    // Once the bucket allows it, the same event makes up for it.
    world.forbidden_writes.borrow_mut().clear();
    let again = report(world.handle(event).await.unwrap());
    assert_eq!((again.outcome, again.rows.rejected), (Outcome::Done, 50), "{again:?}");
    assert_eq!(rejects(&world.text(again.rejects.as_deref().unwrap()).unwrap()).len(), 50);
}

#[tokio::test(start_paused = true)]
async fn rejects_that_take_longer_to_join_than_is_left_are_joined_by_the_next_invocation() {
    // 25 s for the join: more than is left of 26, less than another invocation has.
    let world = World::new(&contacts(""));
    world.slow_writes.set(Some(("rejects/", Duration::from_secs(25))));
    let event = world.upload("incoming/contacts/a.csv", people(0..500, "P")).await;
    let first = report(world.handle_within(event, 26).await.unwrap());
    assert_eq!((first.outcome, &first.error, first.rows.read), (Outcome::Yielded, &None, 500), "{first:?}");
    let sent = upserts(&world);
    let last = world.finish_one(900).await;
    assert_eq!((last.outcome, last.rows, last.invocations), (Outcome::Done, first.rows, 2), "{last:?}");
    assert_eq!(upserts(&world), sent, "only the end was left to be done");
    assert_eq!(rejects(&world.text(last.rejects.as_deref().unwrap()).unwrap()).len(), 50);

    // Longer than any invocation lasts: it is tried a few times, then the run fails and leaves them in pieces.
    let world = World::new(&contacts(""));
    world.slow_writes.set(Some(("rejects/", Duration::from_secs(3_600))));
    let event = world.upload("incoming/contacts/a.csv", people(0..500, "P")).await;
    let first = report(world.handle_within(event, 60).await.unwrap());
    let last = world.finish(first, 60).await;
    assert_eq!((last.outcome, code(&last), &last.rejects), (Outcome::Failed, "NO_PROGRESS", &None), "{last:?}");
    assert!((4..=6).contains(&last.invocations), "{last:?}");
    assert!(last.notes.iter().any(|note| note.contains("rejects-*")), "{:?}", last.notes);
    assert!(open_runs(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_index_that_takes_longer_than_is_left_is_published_by_the_next_invocation_or_given_up() {
    let config = contacts("skip_unchanged: true");
    for (seconds, then, skips) in [(25, 900, true), (3_600, 26, false)] {
        let world = World::new(&config);
        world.slow_writes.set(Some(("state/import/contacts/index/", Duration::from_secs(seconds))));
        let event = world.upload("incoming/contacts/a.csv", people(0..500, "P")).await;
        let first = report(world.handle_within(event, 26).await.unwrap());
        assert_eq!((first.outcome, first.rows.read), (Outcome::Yielded, 500), "{seconds}: {first:?}");
        let last = world.finish(first, then).await;
        assert_eq!((last.outcome, last.rows.read), (Outcome::Done, 500), "{seconds}: {last:?}");
        assert!(last.invocations <= 3, "{seconds}: {last:?}");
        let told = last.notes.iter().any(|note| note.contains("the next run sends every row"));
        assert_eq!(told, !skips, "{seconds}: {:?}", last.notes);
        world.slow_writes.set(None);
        let second = world.import("incoming/contacts/b.csv", people(0..500, "P")).await;
        assert_eq!(second.rows.unchanged, if skips { 450 } else { 0 }, "{seconds}: {second:?}");
        assert_eq!(world.import("incoming/contacts/c.csv", people(0..500, "P")).await.rows.unchanged, 450);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_of_the_end_loses_neither_the_report_nor_the_index() {
    let config = contacts("skip_unchanged: true");
    let file = people(0..100, "P");
    let undisturbed = World::new(&config);
    let event = undisturbed.upload("incoming/contacts/a.csv", file.clone()).await;
    let done = report(undisturbed.handle(event).await.unwrap());
    let length = undisturbed.clock.elapsed().as_millis() as u64;
    let mut published_before = 0;
    // A door takes 2 ms: this dies between any two steps of the end, the publishing of the index among them.
    for before_end in (1..40).chain((40..80).step_by(5)) {
        let world = World::new(&config);
        let event = world.upload("incoming/contacts/a.csv", file.clone()).await;
        let killed = world.handle_until_killed(event.clone(), Duration::from_millis(length - before_end)).await;
        assert!(killed.is_none(), "{before_end}");
        published_before +=
            usize::from(index_of(&world).is_some_and(|state| state.contains("\"trusted\":\"anybody\"")));
        world.clock.sleep(LEASE).await;
        let resumed = world.resume().await;
        let again = report(world.handle(event).await.unwrap());
        assert_eq!(again.outcome, Outcome::Duplicate, "{before_end}");
        let last = world.stored_report("contacts", again.run_id.as_deref().unwrap()).unwrap();
        // What was in flight at the kill is sent again, and is an update then.
        let counts = |report: &Report| {
            let rows = report.rows;
            (rows.read, rows.created + rows.updated, rows.rejected)
        };
        assert_eq!((last.outcome, counts(&last)), (Outcome::Done, counts(&done)), "{before_end}: {last:?}");
        assert!(resumed.len() <= 1 && open_runs(&world).is_empty(), "{before_end}");
        let rejected = rejects(&world.text(last.rejects.as_deref().unwrap()).unwrap());
        assert_eq!(rejected.len() as u64, done.rows.rejected, "{before_end}");
        // The next file is compared with this one, whoever published it.
        let second = world.import("incoming/contacts/b.csv", file.clone()).await;
        assert_eq!((second.outcome, second.rows.unchanged), (Outcome::Done, 90), "{before_end}: {second:?}");
    }
    assert!(published_before > 3, "no kill came between the index and the end");
}

/// The state of the delivered index's item.
fn index_of(world: &World) -> Option<String> {
    match world.table.snapshot().get(&Key::new("index#contacts", "current"))?.get("state") {
        Some(Stored::S(state)) => Some(state.clone()),
        _ => None,
    }
}

/// The event as a sender writes it who knows neither version nor entity tag.
fn bare(mut event: Value) -> Value {
    let object = event["Records"][0]["s3"]["object"].as_object_mut().unwrap();
    object.remove("versionId");
    object.remove("eTag");
    event
}

#[tokio::test(start_paused = true)]
async fn an_event_with_neither_version_nor_entity_tag_imports_the_object_as_it_is_and_once() {
    for versioned in [true, false] {
        let mut world = World::new(&contacts(""));
        if !versioned {
            world.objects = MemoryObjects::new();
        }
        let full = world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,A\n").await;
        let event = bare(full.clone());
        let first = report(world.handle(event.clone()).await.unwrap());
        assert_eq!((first.outcome, first.rows.created), (Outcome::Done, 1), "{versioned}: {first:?}");
        for again in [event.clone(), full, event] {
            let again = report(world.handle(again).await.unwrap());
            assert_eq!((again.outcome, again.run_id), (Outcome::Duplicate, first.run_id.clone()), "{versioned}");
        }
        // Overwritten before either event is handled: the newer contents once, by whichever event comes first.
        let one = bare(world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,B\n").await);
        let two = bare(world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,C\n").await);
        let first = report(world.handle(one.clone()).await.unwrap());
        let second = report(world.handle(two).await.unwrap());
        let third = report(world.handle(one).await.unwrap());
        assert_eq!(first.outcome, Outcome::Done, "{versioned}: {first:?}");
        assert_eq!((second.outcome, third.outcome), (Outcome::Duplicate, Outcome::Duplicate), "{versioned}");
        assert_eq!(world.contact("a@x.io", "firstname").as_deref(), Some("C"));
        assert_eq!(upserts(&world), 2, "{versioned}");
    }
}
