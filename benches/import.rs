//! Whole imports in real time: the function's own binary as a process, against the embedded AWS and the HubSpot simulator over loopback.
//!
//! `docs/benchmarks.md` holds the figures and says under what conditions they were taken. `cargo benches -- NAME…` runs some of them:
//! limit, three, million (`small` for a fifth of it), memory, redelivered, kill. The environment variable `FUNCTION` names another build to be
//! measured.

#![expect(clippy::print_stdout, reason = "a benchmark tells its results")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use hubferry::clock::Rng;
use hubferry_simulator::hubspot::{LogEntry, PortalSettings, server::machine_clock};
use serde_json::json;
use support::{
    Outcome,
    machine::{self, Watch},
    median, range, rows, tell, wanted,
};
use world::{UNFELT, World, pause};

/// How long an answer takes where the account's limit counts.
const LATENCY_MS: u64 = 300;
/// Calls a second that the account allows: 190 in 10 s.
const CALLS_PER_SECOND: f64 = 19.0;
/// Rows a second that this makes.
const ROWS_PER_SECOND: f64 = 1_900.0;

const LIMIT_ROWS: u64 = 76_000;
const THREE_ROWS: u64 = 30_000;
const MILLION: u64 = 1_000_000;
const LARGE_BYTES: u64 = 1_000_000_000;
/// The large file is given up after this; what was imported by then is told.
const LARGE_MAX: Duration = Duration::from_secs(180);
const REDELIVERED_ROWS: u64 = 100_000;
/// One row in so many has changed.
const CHANGED_EVERY: u64 = 100;
const KILL_ROWS: u64 = 40_000;
const KILLS: u32 = 5;
/// A batch is in flight until its checkpoint is saved: for so long at most after its answer has left the simulator.
const CHECKPOINT_MS: i64 = 30;
/// Of an invocation that is going to be killed; its lease lasts as long.
const KILL_INVOCATION: Duration = Duration::from_secs(6);

fn main() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("whole imports; {}", machine::describe());
    let mut failed = Vec::new();
    let watch = Watch::start();
    runtime.block_on(async {
        run("limit", limit(), &mut failed).await;
        run("three", three(), &mut failed).await;
        run("million", million(), &mut failed).await;
        run("memory", memory(), &mut failed).await;
        run("redelivered", redelivered(), &mut failed).await;
        run("kill", kill(), &mut failed).await;
    });
    println!("{:.0} s in all", watch.elapsed().as_secs_f64());
    if failed.is_empty() { Ok(()) } else { Err(format!("could not be measured: {}", failed.join(", ")).into()) }
}

async fn run(name: &'static str, benchmark: impl Future<Output = Outcome>, failed: &mut Vec<&'static str>) {
    if !wanted(name) {
        return;
    }
    if let Err(error) = benchmark.await {
        println!("  FAILED: {error}");
        failed.push(name);
    }
}

/// An account with HubSpot's limits and latency.
fn paced() -> PortalSettings {
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = LATENCY_MS;
    settings
}

async fn limit() -> Outcome {
    println!("limit: {LIMIT_ROWS} rows, 190 calls/10 s, {LATENCY_MS} ms a call");
    let world = World::start(paced(), "{}", "").await?;
    let process = world.process()?;
    let event = world.upload("a.csv", rows::file(0..LIMIT_ROWS, |_| false))?;
    let watch = Watch::start();
    let report = world.import(&event).await?;
    let took = watch.elapsed().as_secs_f64();
    tell_limit_use(&world)?;
    let whole = LIMIT_ROWS as f64 / took / ROWS_PER_SECOND * 100.0;
    tell("the same with start, file and report", &format!("{whole:.1} % ({took:.1} s)"), None);
    tell("hubferry's own figure", &format!("{} %", report["limit_use_percent"]), None);
    let cpu = process.cpu_seconds()? * MILLION as f64 / LIMIT_ROWS as f64;
    let (_, peak) = process.memory_mb()?;
    tell("CPU at this pace, for a million rows", &format!("{cpu:.1} s"), Some(("under 4 s", cpu < 4.0)));
    tell("resident memory, peak", &format!("{peak:.1} MB"), None);
    tell("table writes", &report["cost"]["dynamodb_writes"].to_string(), None);
    Ok(())
}

async fn three() -> Outcome {
    println!(
        "three: 3 processes, 3 files of {THREE_ROWS} rows, one account with 190 calls/10 s, {LATENCY_MS} ms a call"
    );
    let world = World::start(paced(), "{}", "").await?;
    let _processes = [world.process()?, world.process()?, world.process()?];
    let mut files = Vec::new();
    for (number, name) in (0..).zip(["a.csv", "b.csv", "c.csv"]) {
        let first = number * THREE_ROWS;
        files.push(world.upload(name, rows::file(first..first + THREE_ROWS, |_| false))?);
    }
    let [a, b, c] = files.as_slice() else { return Err("three files".into()) };
    let watch = Watch::start();
    let (a, b, c) = tokio::join!(world.import(a), world.import(b), world.import(c));
    let took = watch.elapsed().as_secs_f64();
    let seconds = [a?, b?, c?].map(|report| report["duration_ms"].as_f64().unwrap_or(f64::NAN) / 1e3);
    tell_limit_use(&world)?;
    let whole = 3.0 * THREE_ROWS as f64 / took / ROWS_PER_SECOND * 100.0;
    tell("the same with starts, files and reports", &format!("{whole:.1} % ({took:.1} s)"), None);
    let (low, high) = range(&seconds);
    tell("the first and the last of them took", &format!("{low:.1} s and {high:.1} s"), None);
    Ok(())
}

/// What the simulator saw: calls between the first upsert and the last, beside what the limit allows in that time.
fn tell_limit_use(world: &World) -> Outcome {
    let upserts = world.upserts();
    let (Some(first), Some(last)) = (upserts.first(), upserts.last()) else { return Err("no upserts".into()) };
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let accepted = upserts.iter().filter(|entry| entry.status != 429);
    let full = upserts.iter().filter(|entry| entry.inputs == 100).count() as f64 / upserts.len() as f64 * 100.0;
    let percent = (accepted.count() - 1) as f64 / seconds / CALLS_PER_SECOND * 100.0;
    let counts = world.portal().counts();
    let throttled = counts.throttled as f64 / counts.requests as f64 * 100.0;
    let figure =
        format!("{percent:.1} % ({} calls in {seconds:.1} s, {full:.1} % of them with 100 rows)", upserts.len());
    tell("limit used between first and last upsert", &figure, Some(("at least 97 %", percent >= 97.0)));
    let figure = format!("{throttled:.2} % ({} of {} calls)", counts.throttled, counts.requests);
    tell("429s", &figure, Some(("under 0.1 %", throttled < 0.1)));
    tell("most calls in any 10 s", &world.portal().max_calls_in_window().to_string(), None);
    Ok(())
}

async fn million() -> Outcome {
    let count = if std::env::args().any(|argument| argument == "small") { MILLION / 5 } else { MILLION };
    println!("million: {count} rows, no limit, no latency");
    let world = World::start(PortalSettings::unlimited(), UNFELT, "").await?;
    let process = world.process()?;
    let file = rows::file(0..count, |_| false);
    let bytes = file.len() as f64;
    let event = world.upload("a.csv", file)?;
    let watch = Watch::start();
    let report = world.import(&event).await?;
    let took = watch.elapsed().as_secs_f64();
    let cpu = process.cpu_seconds()? * MILLION as f64 / count as f64;
    let (_, peak) = process.memory_mb()?;
    tell("CPU of the function for a million rows", &format!("{cpu:.2} s"), Some(("under 4 s", cpu < 4.0)));
    let figure = format!(
        "{took:.1} s, {:.0} rows/s, {:.1} MB/s (the simulator's pace)",
        count as f64 / took,
        bytes / took / 1e6
    );
    tell("took", &figure, None);
    tell("resident memory, peak", &format!("{peak:.1} MB"), Some(("under 64 MB", peak < 64.0)));
    tell("calls, table writes", &format!("{}, {}", report["calls"]["total"], report["cost"]["dynamodb_writes"]), None);
    Ok(())
}

async fn memory() -> Outcome {
    let (bytes, rows) = rows::wide(LARGE_BYTES);
    println!("memory: one file of {:.2} GB, {rows} rows, no limit, no latency", bytes as f64 / 1e9);
    let world = World::start(PortalSettings::unlimited(), UNFELT, "").await?;
    let process = world.process()?;
    let event = world.upload_generated("large.csv", bytes)?;
    let watch = Watch::start();
    let mut samples = Vec::new();
    let sampling = async {
        while watch.elapsed() < LARGE_MAX {
            pause(Duration::from_millis(250)).await;
            if let Ok((now, _)) = process.memory_mb() {
                samples.push(now);
            }
        }
    };
    let finished = tokio::select! {
        report = world.import(&event) => { report?; true }
        () = sampling => false,
    };
    let (took, (_, peak)) = (watch.elapsed().as_secs_f64(), process.memory_mb()?);
    if finished {
        tell("imported", &format!("all of it in {took:.0} s"), None);
    } else {
        let share = world.inputs_sent() as f64 / rows as f64;
        let figure = format!("{:.2} GB in {took:.0} s, then given up", bytes as f64 * share / 1e9);
        tell("imported", &figure, None);
    }
    tell("resident memory, peak", &format!("{peak:.1} MB"), Some(("under 64 MB", finished && peak < 64.0)));
    // Flat: the last quarter of the time looks like the second.
    let quarter = samples.len() / 4;
    if let (Some(second), Some(last)) = (samples.get(quarter..2 * quarter), samples.get(3 * quarter..)) {
        let figure =
            format!("{:.1} MB in the second quarter of the time, {:.1} MB in the last", median(second), median(last));
        tell("resident memory, median", &figure, None);
    }
    Ok(())
}

async fn redelivered() -> Outcome {
    println!("redelivered: {REDELIVERED_ROWS} rows, then again with 1 % of them changed; skip_unchanged");
    let world = World::start(PortalSettings::unlimited(), UNFELT, "    skip_unchanged: true\n").await?;
    let _process = world.process()?;
    let requests = || world.portal().counts().requests;
    let event = world.upload("a.csv", rows::file(0..REDELIVERED_ROWS, |_| false))?;
    let watch = Watch::start();
    world.import(&event).await?;
    let took = watch.elapsed().as_secs_f64();
    let first = requests();
    let event = world.upload("a.csv", rows::file(0..REDELIVERED_ROWS, |number| number % CHANGED_EVERY == 17))?;
    let report = world.import(&event).await?;
    let second = requests() - first;
    let share = second as f64 / first as f64 * 100.0;
    let figure = format!("{share:.2} % ({second} and {first}, as the simulator counts)");
    tell("calls of the second delivery", &figure, Some(("at most 1.2 %", share <= 1.2)));
    tell("rows unchanged, updated", &format!("{}, {}", report["rows"]["unchanged"], report["rows"]["updated"]), None);
    let pace = REDELIVERED_ROWS as f64 / took;
    tell(
        "pace of the first, whose index has to be kept too",
        &format!("{pace:.0} rows/s"),
        Some(("above HubSpot's 1,900", pace > ROWS_PER_SECOND)),
    );
    Ok(())
}

async fn kill() -> Outcome {
    println!("kill: {KILL_ROWS} rows, 190 calls/10 s, {LATENCY_MS} ms a call; kill -9 {KILLS} times at random");
    let world = World::start(paced(), "{}", "").await?;
    let event = world.upload("a.csv", rows::file(0..KILL_ROWS, |_| false))?;
    let chance = Rng::seeded(7);
    let mut next = event;
    let (mut in_flight, mut unanswered) = (Vec::new(), 0);
    for _ in 0..KILLS {
        let process = world.process()?;
        let upserts = world.upserts().len();
        let until_killed = async {
            while world.upserts().len() == upserts {
                pause(Duration::from_millis(5)).await;
            }
            pause(Duration::from_secs_f64(0.5 + 2.5 * chance.fraction())).await;
            let answered = machine_clock() - jiff::SignedDuration::from_millis(LATENCY_MS.cast_signed());
            process.kill().await?;
            // What was on the wire arrives.
            pause(Duration::from_millis(50)).await;
            let since = |moment| {
                let is_later = |entry: &&LogEntry| entry.at >= moment;
                world.upserts().iter().filter(is_later).map(|entry| entry.inputs).sum::<usize>()
            };
            Outcome::Ok((since(answered - jiff::SignedDuration::from_millis(CHECKPOINT_MS)), since(answered)))
        };
        let (answer, counted) = tokio::join!(world.invoke(&next, KILL_INVOCATION), until_killed);
        if let Ok(answer) = answer {
            return Err(format!("a kill came too late: {answer}").into());
        }
        let counted = counted?;
        in_flight.push(counted.0);
        unanswered += counted.1;
        next = json!({ "job": "resume" });
    }
    let _process = world.process()?;
    world.import(&next).await?;
    let again = world.inputs_sent() - usize::try_from(KILL_ROWS)?;
    let flying: usize = in_flight.iter().sum();
    let figure = format!("{flying} ({in_flight:?}), {unanswered} of them not yet answered");
    tell(&format!("inputs in flight at the kills, {CHECKPOINT_MS} ms for a checkpoint included"), &figure, None);
    tell("inputs sent again", &again.to_string(), Some(("no more than those in flight", again <= flying)));
    let records = world.portal().record_count("contacts");
    tell("records in the end", &records.to_string(), Some(("one for each row", records as u64 == KILL_ROWS)));
    Ok(())
}
