//! Captures: how much of the account's limit they use, in virtual time; and what the function's own binary takes for them, as a process of
//! its own.
//!
//! `docs/benchmarks.md` holds the figures and says under what conditions they were taken. `cargo benches -- NAME…` runs some of them:
//! snapshot (with the changes that follow it), links, footprint.

#![expect(clippy::print_stdout, reason = "a benchmark tells its results")]

mod support;
#[path = "support/virtual_world.rs"]
mod virtual_world;
#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use hubferry::{
    clock::Clock as _,
    report::{CaptureReport, Outcome as RunOutcome, Report},
};
use hubferry_simulator::hubspot::{PortalSettings, server::machine_clock};
use serde_json::json;
use support::{
    Outcome,
    machine::{self, Watch},
    rows, tell, wanted,
};
use virtual_world::VirtualWorld;
use world::{UNFELT, World};

/// How long an answer of HubSpot takes.
const LATENCY_MS: u64 = 300;
/// Calls a second that the account allows: 190 in 10 s.
const CALLS_PER_SECOND: f64 = 19.0;
/// Records a second that this makes.
const RECORDS_PER_SECOND: f64 = 1_900.0;
const MILLION: u64 = 1_000_000;
/// One record in so many is changed.
const CHANGED_EVERY: u64 = 10;
/// Records that are changed at once, and the time from one lot to the next.
const CHANGED_AT_ONCE: usize = 1_000;
const CHANGED_AFTER: Duration = Duration::from_millis(100);
/// What the capture trails HubSpot's clock by, and a margin.
const QUIET: Duration = Duration::from_secs(60);
const LINKED: u64 = 200_000;
/// Contacts of one company.
const COLLEAGUES: u64 = 20;
const FOOTPRINT: u64 = 200_000;

fn main() -> Outcome {
    println!("captures; {}", machine::describe());
    let mut failed = Vec::new();
    let watch = Watch::start();
    run("snapshot", true, snapshot(), &mut failed)?;
    run("links", true, links(), &mut failed)?;
    run("footprint", false, footprint(), &mut failed)?;
    println!("{:.0} s in all", watch.elapsed().as_secs_f64());
    if failed.is_empty() { Ok(()) } else { Err(format!("could not be measured: {}", failed.join(", ")).into()) }
}

/// Runs one of them, in virtual time or in real time.
fn run(
    name: &'static str,
    is_virtual: bool,
    benchmark: impl Future<Output = Outcome>,
    failed: &mut Vec<&'static str>,
) -> Outcome {
    if !wanted(name) {
        return Ok(());
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if is_virtual {
        runtime.enable_time().start_paused(true);
    } else {
        runtime.enable_all();
    }
    if let Err(error) = runtime.build()?.block_on(benchmark) {
        println!("  FAILED: {error}");
        failed.push(name);
    }
    Ok(())
}

/// The capture's settings; `more` is added, each line with its indent.
fn config(output: &str, more: &str) -> String {
    let extra = rows::PROPERTIES.join(", ");
    format!(
        "captures:\n  - name: contacts\n    resource: crm.contacts\n    output: {output}\n    extra_properties: [{extra}]\n{more}"
    )
}

/// An account with HubSpot's limits and latency.
fn paced() -> PortalSettings {
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = LATENCY_MS;
    settings
}

fn told(report: &Report) -> Outcome<&CaptureReport> {
    match (&report.outcome, &report.capture) {
        (RunOutcome::Done, Some(told)) => Ok(told),
        _ => Err(format!("the capture is not done: {report:?}").into()),
    }
}

async fn snapshot() -> Outcome {
    println!("snapshot: {MILLION} contacts, 190 calls/10 s, {LATENCY_MS} ms a call, in virtual time");
    let world = VirtualWorld::new(paced(), &config("s3://crm/captures/contacts/", ""))?;
    let before = Watch::start();
    let ids = world.seed(0..MILLION);
    let cpu = machine::cpu_seconds("self")?;
    let report = world.capture().await?;
    let cpu = machine::cpu_seconds("self")? - cpu;
    let changes = told(&report)?.changes;
    if changes.snapshot != MILLION {
        return Err(format!("{} records were captured", changes.snapshot).into());
    }
    tell_limit_use(&world)?;
    let seconds = report.duration_ms as f64 / 1e3;
    let pace = MILLION as f64 / seconds;
    let whole = pace / RECORDS_PER_SECOND * 100.0;
    let figure = format!("{whole:.1} % ({seconds:.1} s, {pace:.0} records/s, {} calls)", report.calls.total);
    tell(
        "the whole run, with start, end and the first window of changes",
        &figure,
        Some(("at least 90 %", whole >= 90.0)),
    );
    tell("hubferry's own figure", &format!("{:.1} %", report.limit_use_percent.unwrap_or(f64::NAN)), None);
    tell_output(&world, &report)?;
    tell("CPU, hubferry's and the simulator's together", &format!("{cpu:.1} s"), None);
    tell("real time until here", &format!("{:.0} s", before.elapsed().as_secs_f64()), None);

    println!("changes: 1 in {CHANGED_EVERY} of them changed since, in lots of {CHANGED_AT_ONCE} in a millisecond");
    let changed: Vec<&String> = ids.iter().step_by(usize::try_from(CHANGED_EVERY)?).collect();
    for lot in changed.chunks(CHANGED_AT_ONCE) {
        let now = world.clock.now();
        world.portal.borrow_mut().edit_many(now, "contacts", lot, &[("lastname", "Changed")]);
        world.clock.sleep(CHANGED_AFTER).await;
    }
    world.clock.sleep(QUIET).await;
    let report = world.capture().await?;
    let update = told(&report)?.changes.update;
    if update != changed.len() as u64 {
        return Err(format!("{update} of {} changes were captured", changed.len()).into());
    }
    let seconds = report.duration_ms as f64 / 1e3;
    let pace = changed.len() as f64 / seconds;
    tell("took", &format!("{seconds:.1} s, {pace:.0} changes/s"), None);
    tell("calls, searches among them", &format!("{}, {}", report.calls.total, report.calls.search), None);
    tell_output(&world, &report)
}

async fn links() -> Outcome {
    println!(
        "links: a snapshot of {LINKED} contacts with their companies, 190 calls/10 s, {LATENCY_MS} ms a call, in virtual time"
    );
    let world = VirtualWorld::new(paced(), &config("s3://crm/captures/contacts/", "    associations: [companies]\n"))?;
    let ids = world.seed(0..LINKED);
    let companies = world.seed_companies(LINKED / COLLEAGUES);
    for (at, id) in ids.iter().enumerate() {
        let Some(company) = companies.get(at % companies.len()) else { continue };
        world.portal.borrow_mut().associate("contacts", id, "companies", company);
    }
    let report = world.capture().await?;
    if told(&report)?.changes.snapshot != LINKED {
        return Err(format!("{:?} were captured", told(&report)?.changes).into());
    }
    tell_limit_use(&world)?;
    let seconds = report.duration_ms as f64 / 1e3;
    let figure = format!("{:.1} % ({seconds:.1} s)", LINKED as f64 / seconds / RECORDS_PER_SECOND * 100.0);
    tell("the whole run, in which associations are read once more", &figure, None);
    tell_output(&world, &report)
}

/// What the simulator saw: pages of the list between the first and the last one with records, beside what the limit allows in that time.
fn tell_limit_use(world: &VirtualWorld) -> Outcome {
    let portal = world.portal.borrow();
    let is_page = |path: &str| path.ends_with("/contacts");
    let pages: Vec<_> = portal.log().iter().filter(|entry| entry.method == "GET" && is_page(&entry.path)).collect();
    // Of the list; the one look into the recycle bin comes after a pause.
    let pages = pages.split_last().map_or(&[][..], |(_, pages)| pages);
    let (Some(first), Some(last)) = (pages.first(), pages.last()) else { return Err("no pages".into()) };
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let percent = (pages.len() - 1) as f64 / seconds / CALLS_PER_SECOND * 100.0;
    let figure = format!("{percent:.1} % ({} calls in {seconds:.1} s)", pages.len());
    tell("limit used between the first and the last page", &figure, Some(("at least 90 %", percent >= 90.0)));
    let counts = portal.counts();
    tell("429s", &format!("{} of {} calls", counts.throttled, counts.requests), None);
    Ok(())
}

fn tell_output(world: &VirtualWorld, report: &Report) -> Outcome {
    let told = told(report)?;
    let figure = format!("{} with {:.1} MB; OpenCDC, zstd", told.objects, told.bytes as f64 / 1e6);
    tell("objects", &figure, None);
    let cost = report.cost;
    let figure = format!("{}, {}", cost.dynamodb_writes, cost.s3_requests);
    tell("table writes, requests to S3", &figure, None);
    let (objects, bytes) = world.written.take();
    if (objects, bytes) != (told.objects, told.bytes) {
        return Err(format!("{objects} objects with {bytes} bytes were written").into());
    }
    Ok(())
}

async fn footprint() -> Outcome {
    println!(
        "footprint: the function as a process, a snapshot of {FOOTPRINT} contacts over loopback, no limit, no latency"
    );
    let world =
        World::start_with(PortalSettings::unlimited(), UNFELT, &config("s3://crm/captures/contacts/", "")).await?;
    let long_ago = machine_clock() - jiff::SignedDuration::from_hours(1);
    world.portal().seed_many(long_ago, "contacts", (0..FOOTPRINT).map(rows::record));
    let process = world.process()?;
    let watch = Watch::start();
    let report = world.import(&json!({ "job": "capture", "name": "contacts" })).await?;
    let took = watch.elapsed().as_secs_f64();
    if report["capture"]["changes"]["snapshot"] != FOOTPRINT {
        return Err(format!("{} were captured", report["capture"]["changes"]).into());
    }
    let millions = FOOTPRINT as f64 / MILLION as f64;
    let cpu = process.cpu_seconds()? / millions;
    let (_, peak) = process.memory_mb()?;
    tell("CPU of the function, for a million records", &format!("{cpu:.1} s"), None);
    let pace = FOOTPRINT as f64 / took;
    tell(
        "pace",
        &format!("{pace:.0} records/s (the simulator's)"),
        Some(("above HubSpot's 1,900", pace > RECORDS_PER_SECOND)),
    );
    tell("resident memory, peak", &format!("{peak:.1} MB"), None);
    Ok(())
}
