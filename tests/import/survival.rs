//! What a run survives: HubSpot's faults, lost answers, a token that ends, a day that is spent, a process that dies. After each: the
//! end state of one clean run, the accounting identity, nothing twice.

use std::{collections::BTreeMap, time::Duration};

use hubferry::{
    app::Answer,
    clock::Clock,
    codes,
    report::{Counts, Outcome, Report},
    state::runs::{LEASE, RunSource},
};
use hubferry_simulator::hubspot::{Fault, Faults, PortalSettings, PropertyDefinition, What};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde_json::{Value, json};

use crate::support::{World, contacts, rejects, report};

/// Data rows of [`file`].
const ROWS: u64 = 3_000;

/// Calls in flight fill this much time.
const LATENCY: Duration = Duration::from_millis(300);

/// Rows as people send them: some wrong, some refused by HubSpot, some for a key of another row, in other case.
fn file() -> String {
    let mut text = String::from("email,firstname,member_id\n");
    for number in 0..ROWS {
        let line = match number % 100 {
            13 => format!("broken{number},Ada,\n"),
            57 => format!("ragged{number}@x.io,Ada\n"),
            // Another record has this id.
            71 => format!("taken{number}@x.io,Ada,taken\n"),
            99 => format!("PERSON{}@X.IO,Later{number},\n", number - 50),
            _ => format!("person{number}@x.io,First{number},m{number}\n"),
        };
        text.push_str(&line);
    }
    text
}

fn settings(seed: u64) -> PortalSettings {
    let mut settings = PortalSettings { seed, ..PortalSettings::default() };
    settings.latency.fixed_ms = 300;
    let member = PropertyDefinition::new("member_id", "string").unique();
    settings.properties.insert("contacts".to_owned(), vec![member]);
    settings
}

/// Where the account's settings are in the configuration.
const SECRET: &str = "secret: hubferry/hubspot";

fn world(settings: PortalSettings) -> World {
    world_of(&contacts(""), settings)
}

fn world_of(config: &str, settings: PortalSettings) -> World {
    let world = World::with(config, settings);
    let seeded = [("email", "first@x.io"), ("member_id", "taken")];
    world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &seeded).unwrap();
    world
}

type State = BTreeMap<String, Vec<BTreeMap<String, String>>>;

/// What one undisturbed run leaves, and says.
async fn clean() -> (State, Report, Vec<(u64, String)>) {
    let world = world(settings(1));
    let report = world.import("incoming/contacts/a.csv", file()).await;
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    let rows = report.rows;
    assert_eq!((rows.read, rows.created, rows.merged, rows.rejected), (3_000, 2_880, 30, 90), "{rows:?}");
    let state = world.portal.borrow().state();
    let rejected = rejects(&world.text(report.rejects.as_deref().unwrap()).unwrap());
    (state, report, rejected)
}

/// The end is that of the clean run: records, counts, rejects.
#[track_caller]
fn same_end(name: &str, world: &World, report: &Report, clean: &(State, Report, Vec<(u64, String)>)) {
    assert_eq!(report.outcome, Outcome::Done, "{name}: {report:?}");
    assert!(report.rows.add_up(), "{name}");
    let (now, then) = (report.rows, clean.1.rows);
    assert_eq!((now.read, now.rejected, now.deferred), (then.read, then.rejected, then.deferred), "{name}");
    // A write whose answer was lost is seen as an update the second time, and so is a later row that did not meet the earlier one of
    // its key in a batch.
    let written = |rows: Counts| rows.created + rows.updated + rows.merged;
    assert_eq!(written(now), written(then), "{name}");
    assert_eq!(report.rejected_by_code, clean.1.rejected_by_code, "{name}");
    let rejected = rejects(&world.text(report.rejects.as_deref().unwrap()).unwrap());
    assert_eq!(rejected, clean.2, "{name}: rejects");
    assert!(world.portal.borrow().state() == clean.0, "{name}: HubSpot holds something else");
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_hubspot_at_five_percent_of_the_calls_ends_as_a_clean_run() {
    let clean = clean().await;
    let mut retried = 0;
    for seed in 1..=8 {
        let faults = Faults::five_percent(seed);
        let world = world(PortalSettings { faults, ..settings(seed) });
        let event = world.upload("incoming/contacts/a.csv", file()).await;
        let first = report(world.handle(event).await.unwrap());
        let last = world.finish(first, 900).await;
        same_end(&format!("seed {seed}"), &world, &last, &clean);
        retried += last.calls.retried;
    }
    assert!(retried > 8, "hardly a fault struck");
}

#[tokio::test(start_paused = true)]
async fn a_fifth_of_the_calls_failing_ends_as_a_clean_run() {
    let clean = clean().await;
    for seed in 1..=4 {
        let faults = Faults::five_percent(seed)
            .into_iter()
            .map(|mut fault| {
                fault.when.probability = fault.when.probability.map(|share| share * 4.0);
                fault
            })
            .collect();
        let world = world(PortalSettings { faults, ..settings(seed) });
        let event = world.upload("incoming/contacts/a.csv", file()).await;
        let first = report(world.handle(event).await.unwrap());
        let last = world.finish(first, 900).await;
        same_end(&format!("seed {seed}"), &world, &last, &clean);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_lost_after_the_commit_write_nothing_twice() {
    let clean = clean().await;
    for what in [What::ResetAfter, What::TimeoutAfterCommit, What::TruncatedBody] {
        let faults = vec![Fault::share(0.3, what.clone()).on("/batch/upsert")];
        let world = world(PortalSettings { faults, ..settings(7) });
        let report = world.import("incoming/contacts/a.csv", file()).await;
        same_end(&format!("{what:?}"), &world, &report, &clean);
        assert_eq!(world.portal.borrow().counts().created, clean.1.rows.created, "{what:?}: records made twice");
        assert!(report.calls.retried > 0, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn results_in_another_order_reach_their_own_rows() {
    let clean = clean().await;
    for seed in 1..=3 {
        let world = world(PortalSettings { shuffle_results: true, ..settings(seed) });
        let report = world.import("incoming/contacts/a.csv", file()).await;
        same_end(&format!("seed {seed}"), &world, &report, &clean);
        assert_eq!(report.rows, clean.1.rows);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_success_is_no_proof_and_the_rows_are_sent_again() {
    let clean = clean().await;
    let faults = vec![Fault::share(0.4, What::EmptyResults).on("/batch/upsert").times(12)];
    let world = world(PortalSettings { faults, ..settings(3) });
    let report = world.import("incoming/contacts/a.csv", file()).await;
    same_end("empty results", &world, &report, &clean);
}

#[tokio::test(start_paused = true)]
async fn rows_that_never_get_a_verdict_are_deferred_and_fail_the_run() {
    let faults = vec![Fault::always(What::EmptyResults).on("/batch/upsert")];
    let world = world(PortalSettings { faults, ..settings(3) });
    let report = world.import("incoming/contacts/a.csv", "email,firstname\na@x.io,Ada\nbroken,Bea\n").await;
    assert_eq!((report.outcome, report.rows.deferred, report.rows.rejected), (Outcome::Failed, 1, 1), "{report:?}");
    assert_eq!(report.error.as_ref().unwrap().code, "ROWS_DEFERRED");
    let rejected = rejects(&world.text(report.rejects.as_deref().unwrap()).unwrap());
    assert_eq!(rejected, [(2, "NO_VERDICT".to_owned()), (3, "INVALID_EMAIL".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_in_the_middle_is_replaced_by_the_rotated_secret() {
    let clean = clean().await;
    let faults = vec![Fault::nth("/batch/upsert", 9, What::RevokeToken)];
    let world = world(PortalSettings { faults, ..settings(1) });
    let event = world.upload("incoming/contacts/a.csv", file()).await;
    let process = world.process();
    world.portal.borrow_mut().grant_token("pat-rotated", "private-app", Vec::new());
    // Rotated after the run has begun: the process holds the old token.
    let rotate = async {
        world.clock.sleep(Duration::from_secs(1)).await;
        world.secrets.insert("hubferry/hubspot", &json!({ "access_token": "pat-rotated" }).to_string());
        std::future::pending().await
    };
    let answer = tokio::select! {
        answer = process.handle(event, world.deadline(900), "one") => answer.unwrap(),
        () = rotate => unreachable!(),
    };
    same_end("rotated", &world, &report(answer), &clean);
    let refused = world.portal.borrow().log().iter().filter(|entry| entry.status == 401).count();
    assert!((1..=20).contains(&refused), "{refused} calls were refused: each in flight may be, once");
    assert_eq!(world.secrets.reads(), 2, "one read for all that were refused");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_without_another_fails_the_run_and_a_new_event_finishes_the_work() {
    let clean = clean().await;
    let faults = vec![Fault::nth("/batch/upsert", 9, What::RevokeToken)];
    let world = world(PortalSettings { faults, ..settings(1) });
    let event = world.upload("incoming/contacts/a.csv", file()).await;
    let failed = report(world.handle(event.clone()).await.unwrap());
    assert_eq!((failed.outcome, failed.error.as_ref().unwrap().code.as_str()), (Outcome::Failed, "TOKEN_REFUSED"));
    assert!(failed.rows.read < ROWS);
    world.portal.borrow_mut().grant_token("pat-new", "private-app", Vec::new());
    world.secrets.insert("hubferry/hubspot", &json!({ "access_token": "pat-new" }).to_string());
    let again = report(world.handle(event).await.unwrap());
    same_end("a new token", &world, &again, &clean);
}

#[tokio::test(start_paused = true)]
async fn a_spent_day_yields_and_goes_on_after_the_accounts_midnight() {
    let clean = clean().await;
    let mut settings = settings(1);
    settings.limits.daily = Some(40);
    let world =
        world_of(&contacts("").replace(SECRET, &format!("{SECRET}, limits: {{ daily_reserve: 50% }}")), settings);
    let event = world.upload("incoming/contacts/a.csv", file()).await;
    let mut last = report(world.handle(event).await.unwrap());
    let mut days = 1;
    while last.outcome == Outcome::Yielded {
        let error = last.error.as_ref().unwrap();
        assert_eq!(error.code, "DAILY_LIMIT", "{error:?}");
        assert!(world.queue.take().is_empty(), "midnight is too far away for a message");
        assert!(days < 10, "the run does not get on: {last:?}");
        // Before midnight there is nothing to be had.
        let resumed = world.resume().await;
        let (now, before) = (resumed.last().map_or(last.rows, |report| report.rows), last.rows);
        assert_eq!(now, before, "written although the day is spent");
        let zone = TimeZone::get("America/New_York").unwrap();
        let midnight = world.clock.now().to_zoned(zone).tomorrow().unwrap().start_of_day().unwrap().timestamp();
        sleep_until(&world, midnight + 1.minute()).await;
        last = world.resume().await.remove(0);
        days += 1;
    }
    assert!(days >= 2, "the day's calls were enough");
    same_end("days", &world, &last, &clean);
    let mut by_day: BTreeMap<String, usize> = BTreeMap::new();
    for entry in world.portal.borrow().log() {
        let day = entry.at.to_zoned(TimeZone::get("America/New_York").unwrap()).date().to_string();
        *by_day.entry(day).or_default() += 1;
    }
    // What is in flight when the account's last answer shows the reserve is not called back.
    let in_flight = 8;
    assert!(by_day.values().all(|calls| *calls <= 20 + in_flight), "the reserve of a half was touched: {by_day:?}");
}

async fn sleep_until(world: &World, at: Timestamp) {
    let left = at.duration_since(world.clock.now());
    world.clock.sleep(left.try_into().unwrap()).await;
}

/// Handles the event until it is killed; whether it came to its end before.
async fn killed_after(world: &World, event: Value, time: Duration, owner: &str) -> bool {
    let process = world.process();
    tokio::select! {
        biased;
        () = world.clock.sleep(time) => false,
        answer = process.handle(event, world.deadline(900), owner) => { answer.unwrap(); true }
    }
}

/// Inputs of all upserts so far.
fn inputs_sent(world: &World) -> usize {
    let portal = world.portal.borrow();
    portal.log().iter().filter(|entry| entry.path.ends_with("/batch/upsert")).map(|entry| entry.inputs).sum()
}

/// Upserts that were on their way at this moment.
fn in_flight(world: &World, at: Timestamp) -> usize {
    let since = at - jiff::SignedDuration::try_from(LATENCY).unwrap();
    let portal = world.portal.borrow();
    portal.log().iter().filter(|entry| entry.path.ends_with("/batch/upsert") && entry.at >= since).count()
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_killed_again_and_again_ends_as_a_clean_run() {
    let clean_world = world(settings(1));
    let whole = clean_world.import("incoming/contacts/a.csv", file()).await;
    let undisturbed = inputs_sent(&clean_world);
    let clean = clean().await;
    let length = Duration::from_millis(whole.duration_ms);
    for seed in 1..=20 {
        let chance = hubferry::clock::Rng::seeded(seed);
        let world = world(settings(seed));
        let event = world.upload("incoming/contacts/a.csv", file()).await;
        let (mut kills, mut sent_again_max) = (Vec::new(), 0);
        let mut done = false;
        for kill in 0..1 + seed % 4 {
            let time = length.mul_f64(chance.fraction());
            let next = if kill == 0 { event.clone() } else { json!({ "job": "resume" }) };
            done |= killed_after(&world, next, time, &format!("killed-{kill}")).await;
            // One batch may be going out, and one that has landed may not be saved yet.
            sent_again_max += 100 * (in_flight(&world, world.clock.now()) + 2);
            kills.push(time);
            world.clock.sleep(LEASE + Duration::from_secs(1)).await;
        }
        let name = format!("seed {seed}, killed after {kills:?}");
        let resumed = world.resume().await;
        // Killed before the run was made, nothing is resumed: the event comes again, as S3 and SQS see to.
        let again = report(world.handle(event).await.unwrap());
        let last = match resumed.into_iter().next() {
            Some(resumed) => {
                assert_eq!((again.outcome, &again.run_id), (Outcome::Duplicate, &resumed.run_id), "{name}");
                assert_eq!(again.rows, resumed.rows, "{name}");
                resumed
            }
            None if done || again.outcome == Outcome::Duplicate => {
                assert_eq!(again.outcome, Outcome::Duplicate, "{name}");
                Report { outcome: Outcome::Done, ..again }
            }
            None => again,
        };
        same_end(&name, &world, &last, &clean);
        let sent_again = inputs_sent(&world) - undisturbed;
        assert!(
            sent_again <= sent_again_max,
            "{name}: {sent_again} inputs sent again, at most {sent_again_max} expected"
        );
        assert_eq!(world.portal.borrow().counts().created, clean.1.rows.created, "{name}: records made twice");
        use hubferry::objects::{Location, Objects};
        let left = world.objects.list(&Location::new("crm", "state/")).await.unwrap();
        assert!(left.is_empty(), "{name}: working files are left: {left:?}");
        assert!(world.resume().await.is_empty(), "{name}: something is still open");
    }
}

#[tokio::test(start_paused = true)]
async fn kills_and_faults_together_end_as_a_clean_run() {
    let clean = clean().await;
    for seed in 1..=5 {
        let chance = hubferry::clock::Rng::seeded(seed + 100);
        let world =
            world(PortalSettings { faults: Faults::five_percent(seed), shuffle_results: true, ..settings(seed) });
        let event = world.upload("incoming/contacts/a.csv", file()).await;
        for kill in 0..3 {
            let time = Duration::from_secs_f64(0.2 + 3.0 * chance.fraction());
            killed_after(&world, event.clone(), time, &format!("killed-{kill}")).await;
            world.clock.sleep(LEASE + Duration::from_secs(1)).await;
        }
        let mut last = report(world.handle(event.clone()).await.unwrap());
        while !last.outcome.is_final() {
            world.clock.sleep(Duration::from_secs(61)).await;
            last = world.resume().await.remove(0);
        }
        if last.outcome == Outcome::Duplicate {
            last.outcome = Outcome::Done;
        }
        same_end(&format!("seed {seed}"), &world, &last, &clean);
        assert_eq!(report(world.handle(event).await.unwrap()).outcome, Outcome::Duplicate);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_another_invocation_holds_is_busy_until_the_lease_runs_out() {
    let world = world(settings(1));
    let event = world.upload("incoming/contacts/a.csv", file()).await;
    assert!(!killed_after(&world, event.clone(), Duration::from_secs(1), "killed").await);
    let busy = report(world.handle(event.clone()).await.unwrap());
    let sent = inputs_sent(&world);
    assert_eq!(busy.outcome, Outcome::Busy);
    assert!(world.resume().await.is_empty(), "the sweep leaves a held run alone");
    assert_eq!(inputs_sent(&world), sent);
    world.clock.sleep(LEASE + Duration::from_secs(1)).await;
    assert_eq!(report(world.handle(event).await.unwrap()).outcome, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn hubspot_down_yields_and_ends_well_when_it_is_back() {
    let clean = clean().await;
    let world = world(settings(1));
    let event = world.upload("incoming/contacts/a.csv", file()).await;
    world.portal.borrow_mut().add_fault(Fault::always(What::Status(503)));
    let first = report(world.handle(event).await.unwrap());
    assert_eq!(first.outcome, Outcome::Yielded);
    assert_eq!(first.error.as_ref().unwrap().code, "HUBSPOT_UNAVAILABLE");
    assert_eq!(first.rows.read, 0);
    world.portal.borrow_mut().clear_faults();
    let last = world.finish(first, 900).await;
    same_end("back again", &world, &last, &clean);
    assert_eq!(last.error, None, "an old error is not kept");
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_one_event_at_any_distance_make_one_run() {
    let clean = clean().await;
    // A door takes 2 ms: this puts the second and the third between any two steps of the first.
    for apart in 0..16 {
        let world = world(settings(1));
        let event = world.upload("incoming/contacts/a.csv", file()).await;
        let deliver = async |number: u64| {
            world.clock.sleep(Duration::from_millis(number * apart)).await;
            report(world.handle(event.clone()).await.unwrap())
        };
        let (one, two, three) = tokio::join!(deliver(0), deliver(1), deliver(2));
        let reports = [one, two, three];
        let outcomes = reports.each_ref().map(|report| report.outcome);
        let done: Vec<&Report> = reports.iter().filter(|report| report.outcome == Outcome::Done).collect();
        assert_eq!(done.len(), 1, "{apart} ms apart: {outcomes:?}");
        assert!(reports.iter().all(|report| report.run_id == done[0].run_id), "{apart} ms apart: two runs");
        same_end(&format!("{apart} ms apart"), &world, done[0], &clean);
        assert_eq!(inputs_sent(&world), 2_910, "{apart} ms apart: rows were sent twice");
    }
}

#[tokio::test(start_paused = true)]
async fn two_files_with_overlapping_keys_at_once_leave_one_record_per_key() {
    // GIVEN two files that share half of their keys
    let world = World::new(&contacts(""));
    let file = |range: std::ops::Range<u32>, name: &str| {
        let mut file = String::from("email,firstname\n");
        for number in range {
            file.push_str(&format!("person{number}@example.com,{name}\n"));
        }
        file
    };
    let one = world.upload("incoming/contacts/one.csv", file(0..3_000, "One")).await;
    let two = world.upload("incoming/contacts/two.csv", file(1_500..4_500, "Two")).await;
    // WHEN both are imported at once
    let (one, two) = futures_util::join!(Box::pin(world.handle(one)), Box::pin(world.handle(two)));
    // THEN each row is accounted for in its own run, and no record is there twice
    for answer in [one, two] {
        let report = report(answer.unwrap());
        assert_eq!((report.outcome, report.rows.read), (Outcome::Done, 3_000), "{report:?}");
    }
    let portal = world.portal.borrow();
    assert_eq!(portal.record_count("contacts"), 4_500);
    for contact in portal.records("contacts") {
        let number: u32 = contact["email"].trim_start_matches("person").split('@').next().unwrap().parse().unwrap();
        let expected: &[&str] = match number {
            0..1_500 => &["One"],
            1_500..3_000 => &["One", "Two"],
            _ => &["Two"],
        };
        assert!(expected.contains(&contact["firstname"].as_str()), "{contact:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_overwritten_in_a_bucket_without_versions_is_left_to_its_own_event() {
    // GIVEN an event whose object was overwritten before it was read, in a bucket that keeps no versions
    let mut world = World::new(&contacts(""));
    world.objects = hubferry::objects::memory::MemoryObjects::new();
    let older = world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,Old\n").await;
    let newer = world.upload("incoming/contacts/a.csv", "email,firstname\na@x.io,New\n").await;
    // WHEN the events come in their order
    let first = report(world.handle(older).await.unwrap());
    let second = report(world.handle(newer.clone()).await.unwrap());
    let third = report(world.handle(newer).await.unwrap());
    // THEN the older one writes nothing
    assert_eq!((first.outcome, first.rows.read), (Outcome::Superseded, 0), "{first:?}");
    assert_eq!((second.outcome, second.rows.created), (Outcome::Done, 1), "{second:?}");
    assert_eq!(third.outcome, Outcome::Duplicate);
    assert_eq!(world.contact("a@x.io", "firstname").as_deref(), Some("New"));
}

fn plain(rows: u32) -> String {
    let mut file = String::from("email,firstname\n");
    for number in 0..rows {
        file.push_str(&format!("person{number}@example.com,P{number}\n"));
    }
    file
}

#[tokio::test(start_paused = true)]
async fn a_table_that_refuses_writes_for_ten_seconds_holds_the_run_up_and_nothing_else() {
    let world = World::new(&contacts(""));
    let event = world.upload("incoming/contacts/a.csv", plain(12_000)).await;
    let outage = async {
        world.clock.sleep(Duration::from_secs(2)).await;
        world.table_down_until.set(world.clock.elapsed() + Duration::from_secs(10));
    };
    let (answer, ()) = futures_util::join!(Box::pin(world.handle(event)), outage);
    let first = report(answer.unwrap());
    let last = world.finish(first, 900).await;
    assert_eq!((last.outcome, last.rows.read, last.rows.rejected), (Outcome::Done, 12_000, 0), "{last:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 12_000);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_used_whether_calls_take_50_ms_or_3_s() {
    for latency in [50, 3_000] {
        let mut settings = PortalSettings::default();
        settings.latency.fixed_ms = latency;
        let world = World::with(&contacts(""), settings);
        let report = world.import("incoming/contacts/a.csv", plain(60_000)).await;
        assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 60_000), "{report:?}");
        assert!(report.limit_use_percent.unwrap() >= 97.0, "{latency} ms: {:?}", report.limit_use_percent);
        assert_eq!(report.calls.throttled, 0, "{latency} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn an_oauth_token_is_refreshed_ahead_of_its_end_and_once_for_all_batches() {
    // GIVEN an app whose tokens live for ten minutes
    let settings = PortalSettings {
        oauth: Some(hubferry_simulator::hubspot::OAuthClient {
            client_id: "client".to_owned(),
            client_secret: "secret".to_owned(),
            refresh_tokens: vec!["refresh".to_owned()],
            scopes: Vec::new(),
            expires_in: 600,
        }),
        ..PortalSettings::default()
    };
    let world = World::with(&contacts(""), settings);
    world.portal.borrow_mut().configure(|settings| {
        settings.latency.fixed_ms = 300;
        settings.limits.burst = Some(20);
    });
    let secret = json!({ "client_id": "client", "client_secret": "secret", "refresh_token": "refresh" });
    world.secrets.insert("hubferry/hubspot", &secret.to_string());
    // WHEN a run takes longer than that
    let event = world.upload("incoming/contacts/a.csv", plain(140_000)).await;
    let first = report(world.handle_within(event, 3_000).await.unwrap());
    let last = world.finish(first, 3_000).await;
    // THEN no call was refused, and the token was asked for a few times, not once a batch
    assert_eq!((last.outcome, last.rows.created), (Outcome::Done, 140_000), "{last:?}");
    let portal = world.portal.borrow();
    assert!(portal.log().iter().all(|call| call.status != 401), "a call was refused");
    let refreshes = portal.log().iter().filter(|call| call.path.contains("/oauth/")).count();
    assert!((2..=4).contains(&refreshes), "{refreshes} refreshes in {} s", last.duration_ms / 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_merged_input_that_is_refused_row_by_row_does_not_stop_the_run() {
    // GIVEN keys of three rows each, of which the middle one is refused by HubSpot alone
    let world = World::new(&contacts(""));
    world.portal.borrow_mut().define_property("contacts", PropertyDefinition::new("code", "string").unique());
    world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &[("email", "taken@x.io"), ("code", "taken")]);
    let mut file = String::from("email,code\n");
    for number in 0..2_000 {
        let middle = if number % 40 == 3 { "taken".to_owned() } else { format!("m{number}") };
        file.push_str(&format!("p{number}@x.io,a{number}\np{number}@x.io,{middle}\np{number}@x.io,{middle}\n"));
    }
    // WHEN it is imported
    let report = world.import("incoming/contacts/a.csv", file).await;
    // THEN only those rows are rejects
    assert_eq!((report.outcome, report.rows.rejected, report.rows.read), (Outcome::Done, 100, 6_000), "{report:?}");
    assert_eq!(report.invocations, 1);
    assert_eq!(world.portal.borrow().record_count("contacts"), 2_001);
}

#[tokio::test(start_paused = true)]
async fn contents_that_come_back_in_a_bucket_without_versions_are_imported_again() {
    let mut world = World::new(&contacts(""));
    world.objects = hubferry::objects::memory::MemoryObjects::new();
    let (a, b) = ("email,firstname\na@x.io,A\n", "email,firstname\na@x.io,B\n");
    for (contents, outcome) in [(a, Outcome::Done), (b, Outcome::Done), (a, Outcome::Done), (a, Outcome::Duplicate)] {
        let report = world.import("incoming/contacts/a.csv", contents).await;
        assert_eq!(report.outcome, outcome, "{report:?}");
    }
    assert_eq!(world.contact("a@x.io", "firstname").as_deref(), Some("A"));
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_does_not_wait_for_one_that_waits_for_midnight() {
    let world = World::new(&contacts(""));
    world.portal.borrow_mut().configure(|settings| settings.limits.daily = Some(15));
    let event = world.upload("incoming/contacts/a.csv", plain(3_000)).await;
    assert_eq!(report(world.handle(event).await.unwrap()).outcome, Outcome::Yielded);
    world.portal.borrow_mut().configure(|settings| settings.limits.daily = Some(600_000));
    world.clock.sleep(Duration::from_secs(90_000)).await;
    let newer = world.import("incoming/contacts/a.csv", plain(500)).await;
    assert_eq!((newer.outcome, newer.rows.read), (Outcome::Done, 500), "{newer:?}");
    let swept = world.handle(json!({ "job": "resume" })).await.unwrap();
    assert!(matches!(swept, Answer::Nothing(_)), "the older run is over: {swept:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_a_machines_own_file_is_left_to_that_machine() {
    let world = World::new(&contacts(""));
    let app = world.process();
    let source = RunSource {
        bucket: "/home/.hubferry".to_owned(),
        key: "/home/a.csv".to_owned(),
        version_id: None,
        etag: "1".to_owned(),
        size: 1,
        sequencer: None,
    };
    app.runs().admit("import", "contacts", &source, "", "01M8", |_| false).await.unwrap();
    let swept = world.handle(json!({ "job": "resume" })).await.unwrap();
    assert!(matches!(swept, Answer::Nothing(_)), "{swept:?}");
    let told = world.handle(json!({ "job": "resume", "run_id": "01M8" })).await.unwrap_err();
    assert!(told.code() == codes::SOURCE_GONE && told.hint().contains("there"), "{told:?}");
    let run = app.runs().get("01M8").await.unwrap().unwrap();
    assert_eq!((run.outcome, run.invocations), (None, 0), "nobody touched it");
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_is_killed_again_and_again_rejects_nothing_that_it_archived() {
    let world = World::new(&contacts("mode: archive\ncolumns: { email: email }"));
    let mut file = String::from("email\n");
    for number in 0..4_000 {
        let email = format!("p{number}@x.io");
        world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &[("email", &email)]);
        file.push_str(&format!("{email}\n"));
    }
    let event = world.upload("incoming/contacts/a.csv", file).await;
    let mut next = event;
    let mut last = None;
    for kill in 0..8 {
        let dies = world.clock.sleep(Duration::from_millis(1_300 + kill * 137));
        let handled = Box::pin(world.handle(next));
        match futures_util::future::select(handled, Box::pin(dies)).await {
            futures_util::future::Either::Left((answer, _)) => {
                last = Some(report(answer.unwrap()));
                break;
            }
            futures_util::future::Either::Right(_) => {}
        }
        world.clock.sleep(LEASE).await;
        next = json!({ "job": "resume" });
    }
    let last = match last {
        Some(last) => last,
        None => report(world.handle(json!({ "job": "resume" })).await.unwrap()),
    };
    assert_eq!((last.outcome, last.rows.rejected, last.rows.updated), (Outcome::Done, 0, 4_000), "{last:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_invocation_whose_table_is_down_answers_before_its_deadline() {
    for down_after in [1, 4, 9, 14, 15] {
        // GIVEN a run that takes longer than its invocation, and a table that refuses writes from some moment on
        let mut settings = PortalSettings::default();
        settings.limits.burst = Some(20);
        let world = World::with(&contacts("skip_unchanged: true"), settings);
        let event = world.upload("incoming/contacts/a.csv", plain(8_000)).await;
        let began = world.clock.elapsed();
        let outage = async {
            world.clock.sleep(Duration::from_secs(down_after)).await;
            world.table_down_until.set(world.clock.elapsed() + Duration::from_secs(40));
        };
        // WHEN the invocation has 20 seconds
        let (answer, ()) = futures_util::join!(Box::pin(world.handle_within(event, 20)), outage);
        // THEN it is over by then: whatever could not be stored is for the next one
        let took = world.clock.elapsed() - began;
        assert!(took < Duration::from_secs(20), "down after {down_after} s: {took:?}, {:?}", answer.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_is_made_after_the_lease_has_run_out() {
    // GIVEN a table that takes nothing any more, so that the lease cannot be renewed, and calls that are repeated over and over
    let mut settings = settings(7);
    settings.latency.fixed_ms = 2_900;
    settings.faults.push(Fault::share(1.0, What::Locked).on("/batch/upsert"));
    let world = world(settings);
    let rows = (0..6_400).map(|row| format!("person{row}@x.io,First{row}\n"));
    let event = world.upload("incoming/contacts/a.csv", format!("email,firstname\n{}", rows.collect::<String>())).await;
    let down = async {
        world.clock.sleep(Duration::from_millis(500)).await;
        world.table_down_until.set(Duration::from_secs(300));
    };
    // WHEN the lease runs out
    let (answer, ()) = futures_util::future::join(world.handle(event), down).await;
    // THEN no call is made any more, not even by what is under way: another process may have taken the run over
    let _ = answer;
    let ends = world.table.snapshot().into_iter().find_map(|(key, item)| match item.get("lease_expires_at") {
        Some(hubferry::state::Value::N(ms)) if key.sk == "run" => Some(Timestamp::from_millisecond(*ms).unwrap()),
        _ => None,
    });
    let ends = ends.unwrap();
    let portal = world.portal.borrow();
    let calls = portal.log().iter().filter(|entry| entry.path.ends_with("/batch/upsert"));
    let calls: Vec<Timestamp> = calls.map(|entry| entry.at).collect();
    let second_before = ends - jiff::SignedDuration::from_secs(1);
    assert!(calls.iter().any(|at| (second_before..=ends).contains(at)), "{ends}: {calls:?}");
    assert!(calls.iter().all(|at| *at <= ends), "{ends}: {calls:?}");
}
