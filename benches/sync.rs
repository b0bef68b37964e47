//! Syncs: the calls that two large systems cost on either side, in virtual time, beside those of the usual script.
//!
//! `docs/benchmarks.md` holds the figures and says under what conditions they were taken. `cargo benches -- sync` runs it;
//! `cargo benches -- sync small` a tenth of it.

#![expect(clippy::print_stdout, reason = "a benchmark tells its results")]

mod support;
#[path = "support/virtual_world.rs"]
mod virtual_world;

use std::time::Duration;

use hubferry::{
    clock::Clock as _,
    report::{Outcome as RunOutcome, Report, SyncReport},
};
use hubferry_simulator::{
    hubspot::{PortalSettings, PropertyDefinition},
    salesforce::OrgSettings,
};
use support::{
    Outcome,
    machine::{self, Watch},
    tell, wanted,
};
use virtual_world::VirtualWorld;

/// Records on each side.
const EACH: u64 = 100_000;
/// … of a small run.
const SMALL: u64 = 10_000;
/// Of ten records on each side, so many are on both.
const SHARED_OF_TEN: u64 = 7;
/// How long an answer of either system takes.
const LATENCY_MS: u64 = 300;
/// Calls of the usual script for each record on one side: it looks the record up on the other, and writes it.
const NAIVE: f64 = 2.0;
/// Of the shared records, one in so many has another job title in HubSpot.
const DIFFERING_EVERY: u64 = 10;
/// Of the pairs, one in so many is changed later; half of them on each side.
const CHANGED_EVERY: u64 = 100;
/// Between two runs.
const PAUSE: Duration = Duration::from_secs(15 * 60);

const CONFIG: &str = "syncs:
  - name: people
    hubspot_object: contacts
    salesforce_object: Contact
    fields:
      - { hubspot: email, salesforce: Email, rule: two_way }
      - { hubspot: firstname, salesforce: FirstName, rule: prefer_salesforce_unless_blank }
      - { hubspot: lastname, salesforce: LastName, rule: two_way }
      - { hubspot: phone, salesforce: Phone, rule: two_way }
      - { hubspot: jobtitle, salesforce: Title, rule: always_salesforce }
    limits: { creates: 1000000, updates: 1000000, blanks: 100, deletes: 20 }
data: s3://crm/
";

fn main() -> Outcome {
    if !wanted("sync") {
        return Ok(());
    }
    let is_small = std::env::args().any(|argument| argument == "small");
    println!("syncs; {}", machine::describe());
    let watch = Watch::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(sync(if is_small { SMALL } else { EACH }))?;
    println!("{:.0} s in all", watch.elapsed().as_secs_f64());
    Ok(())
}

/// A person, by number.
fn person(number: u64) -> [(&'static str, &'static str, String); 5] {
    [
        ("email", "Email", format!("person{number}@example.com")),
        ("firstname", "FirstName", format!("Given{}", number % 997)),
        ("lastname", "LastName", format!("Family{}", number % 9_973)),
        ("phone", "Phone", format!("+1 555 01{:02} {:04}", number % 100, number % 10_000)),
        ("jobtitle", "Title", format!("Title {}", number % 50)),
    ]
}

async fn sync(each: u64) -> Outcome {
    let shared = each * SHARED_OF_TEN / 10;
    println!(
        "sync: {each} contacts on each side, {shared} of them on both; 190 calls/10 s to HubSpot, {LATENCY_MS} ms a call, in virtual time"
    );
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = LATENCY_MS;
    let link = PropertyDefinition::new("sf_contact_id_ext", "string").unique();
    settings.properties.insert("contacts".to_owned(), vec![link]);
    let org = OrgSettings { latency_ms: LATENCY_MS, ..OrgSettings::default() };
    let world = VirtualWorld::with_org(settings, org, CONFIG)?;
    let (ours, theirs) = seed(&world, each, shared)?;
    let pairs = each + each - shared;

    let (cpu, watch) = (machine::cpu_seconds("self")?, Watch::start());
    let first = run(&world).await?;
    let told = told(&first)?;
    let linked = told.linked;
    if linked != pairs || first.rows.rejected + first.rows.deferred + told.reviews_opened > 0 {
        return Err(format!("{linked} of {pairs} pairs were linked: {:?}, {told:?}", first.rows).into());
    }
    println!("first run: {pairs} pairs");
    calls(&first, told, each);
    writes(told);
    tell("took", &format!("{:.0} s in {} invocations", first.duration_ms as f64 / 1e3, first.invocations), None);
    let cost = first.cost;
    tell("table writes, requests to S3", &format!("{}, {}", cost.dynamodb_writes, cost.s3_requests), None);
    let counts = world.portal.borrow().counts();
    tell("429s of HubSpot", &format!("{} of {} calls", counts.throttled, counts.requests), None);
    let cpu = machine::cpu_seconds("self")? - cpu;
    let (_, peak) = machine::memory_mb("self")?;
    tell("CPU and peak memory, both simulators and the table among them", &format!("{cpu:.0} s, {peak:.0} MB"), None);
    tell("real time", &format!("{:.0} s", watch.elapsed().as_secs_f64()), None);

    // What the first run wrote is in the feeds once more, and skipped by its links.
    world.clock.sleep(PAUSE).await;
    tell_quiet("the run after it", &run(&world).await?)?;
    world.clock.sleep(Duration::from_secs(2 * 3_600)).await;
    run(&world).await?;
    world.clock.sleep(PAUSE).await;
    tell_quiet("a quiet run", &run(&world).await?)?;

    let changed = pairs / CHANGED_EVERY;
    let now = world.clock.now();
    for number in 0..changed / 2 {
        let at = usize::try_from(number * CHANGED_EVERY / 2)?;
        let (Some(contact), Some(row)) = (ours.get(at), theirs.get(at + 1)) else { return Err("too few".into()) };
        let edit = format!("+1 555 09{:02} {:04}", number % 100, number % 10_000);
        world.portal.borrow_mut().edit(now, "contacts", contact, &[("phone", &edit)]);
        world.org.borrow_mut().edit(now, "Contact", row, &[("Title", "Changed")])?;
    }
    world.clock.sleep(PAUSE).await;
    let report = run(&world).await?;
    let told = self::told(&report)?;
    let changed = changed / 2 * 2;
    if told.hubspot.updated + told.salesforce.updated != changed {
        return Err(format!("{changed} edits, and {told:?}").into());
    }
    println!("1 % changed: {changed} edits, half of them on each side");
    calls(&report, told, changed);
    tell("took", &format!("{:.0} s", report.duration_ms as f64 / 1e3), None);
    tell("table writes", &report.cost.dynamodb_writes.to_string(), None);
    world.clock.sleep(PAUSE).await;
    tell_quiet("the run after it", &run(&world).await?)
}

/// HubSpot's records and Salesforce's; the shared ones come first in both.
fn seed(world: &VirtualWorld, each: u64, shared: u64) -> Outcome<(Vec<String>, Vec<String>)> {
    let now = world.long_ago();
    let record = |number: u64| {
        person(number).map(|(name, _, value)| {
            let differs = name == "jobtitle" && number < shared && number.is_multiple_of(DIFFERING_EVERY);
            (name, if differs { "Another title".to_owned() } else { value })
        })
    };
    let ours = world.portal.borrow_mut().seed_many(now, "contacts", (0..each).map(|number| record(number).to_vec()));
    let mut theirs = Vec::with_capacity(usize::try_from(each)?);
    let mut org = world.org.borrow_mut();
    for number in (0..shared).chain(each..each + each - shared) {
        let values = person(number).map(|(_, name, value)| (name, value));
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        theirs.push(org.create(now, "Contact", &values)?);
    }
    Ok((ours, theirs))
}

async fn run(world: &VirtualWorld) -> Outcome<Report> {
    let report = world.sync().await?;
    match report.outcome {
        RunOutcome::Done => Ok(report),
        _ => Err(format!("the sync is not done: {report:?}").into()),
    }
}

fn told(report: &Report) -> Outcome<&SyncReport> {
    report.sync.as_ref().ok_or_else(|| "a report without its sync".into())
}

/// Calls for each of so many records on a side.
fn calls(report: &Report, told: &SyncReport, records: u64) {
    for (name, calls) in [("HubSpot", report.calls.total), ("Salesforce", told.salesforce_calls)] {
        let share = calls as f64 / records as f64;
        let figure =
            format!("{calls}, {share:.4} a record; the usual script {NAIVE}, {:.0} times as many", NAIVE / share);
        tell(&format!("calls to {name}"), &figure, Some(("less than a tenth", share < NAIVE / 10.0)));
    }
    tell("searches among them", &report.calls.search.to_string(), None);
    tell("Bulk jobs", &told.bulk_jobs.to_string(), None);
}

fn writes(told: &SyncReport) {
    for (name, writes) in [("HubSpot", told.hubspot), ("Salesforce", told.salesforce)] {
        let figure = format!("{} created, {} updated", writes.created, writes.updated);
        tell(&format!("written in {name}"), &figure, None);
    }
}

/// A run in which nothing is to be done.
fn tell_quiet(name: &str, report: &Report) -> Outcome {
    let told = told(report)?;
    let written = [told.hubspot, told.salesforce].map(|side| side.created + side.updated + side.deleted);
    println!("{name}");
    tell(
        "written in HubSpot, in Salesforce",
        &format!("{}, {}", written[0], written[1]),
        Some(("0, 0", written == [0, 0])),
    );
    tell("calls to HubSpot, to Salesforce", &format!("{}, {}", report.calls.total, told.salesforce_calls), None);
    let seconds = report.duration_ms as f64 / 1e3;
    tell("took, table writes", &format!("{seconds:.0} s, {}", report.cost.dynamodb_writes), None);
    Ok(())
}
