//! `hubferry simulate`: whole runs under many seeds, on every processor, and what to do with one that fails.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use hubferry::{
    clock::{Clock as _, SystemClock},
    mutate::{self, Bug},
};
use hubferry_simulation::{Failure, Job, Scale, live, shrink::shrink};
use serde_json::{Value, json};

use crate::{DONE, FAILED, SAVED, USAGE, text::grouped, watch::Watch};

/// Failing worlds that are made smaller: each takes some thirty lives or more, and the first few tell what is wrong.
const SHRUNK_MAX: usize = 5;

/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Seeds of each job, if nothing is said.
const SEEDS: u64 = 100;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this job: import, delivery, capture or sync.
    #[arg(long, value_name = "JOB", value_parser = job_named)]
    job: Option<Job>,
    /// How many worlds of each job.
    #[arg(long, default_value_t = SEEDS, value_name = "N")]
    seeds: u64,
    /// The first world.
    #[arg(long, default_value_t = 0, value_name = "S")]
    first_seed: u64,
    /// Rows and records, percent of what the seed asks for.
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    size: u8,
    /// Rounds, percent of what the seed asks for.
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// What is left out of the worlds: faults, kills, overlap, people, accounts, odd.
    #[arg(long, value_delimiter = ',', value_name = "PARTS", value_parser = Scale::PARTS)]
    without: Vec<String>,
    /// Print what happens in each world, line by line.
    #[arg(long)]
    trace: bool,
    /// Break hubferry on purpose: the worlds have to notice. Not in released binaries.
    #[arg(long, value_name = "NAME", value_parser = bug_named)]
    bug: Option<Bug>,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

fn job_named(name: &str) -> Result<Job, String> {
    let job = Job::ALL.iter().find(|job| job.name() == name).copied();
    job.ok_or_else(|| "the jobs are import, delivery, capture and sync".to_owned())
}

fn bug_named(name: &str) -> Result<Bug, String> {
    let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
    let bug = Bug::ALL.iter().find(|bug| bug.name() == name).copied();
    bug.ok_or_else(|| format!("there is {}", names.join(", ")))
}

/// A world that went wrong.
struct Failed {
    seed: u64,
    failure: Failure,
    smallest: Option<(Scale, Failure)>,
}

/// What a thread tells of a world.
struct Told {
    seed: u64,
    end: Result<(), Failure>,
    trace: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<u8> {
    if options.bug.is_some() && !mutate::switch(None) {
        writeln!(io::stderr(), "hubferry: this binary holds no deliberate faults: build it with debug assertions")?;
        return Ok(USAGE);
    }
    if options.first_seed.checked_add(options.seeds).is_none() {
        bail!("there are no so many seeds");
    }
    let mut scale = Scale { size: options.size, rounds: options.rounds, ..Scale::FULL };
    for part in &options.without {
        scale = scale.without(part).unwrap_or(scale);
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_ctrl_c(stop.clone())?;
    let jobs: Vec<Job> = options.job.map_or_else(|| Job::ALL.to_vec(), |job| vec![job]);
    // A world that panics is a failure like others; where a panic ends the process, this is all that is told of it.
    std::panic::set_hook(Box::new(|panic| {
        let world = thread::current().name().unwrap_or("a world").to_owned();
        let _ = writeln!(io::stderr(), "{world}: {panic}");
    }));
    let clock = SystemClock::new();
    let (mut told, mut any_failed) = (Vec::new(), false);
    for job in jobs {
        let since = clock.elapsed();
        let (lived, failed) = worlds(options, job, scale, &stop)?;
        let seconds = (clock.elapsed() - since).as_secs_f64();
        any_failed |= !failed.is_empty();
        told.push(summary(options, job, lived, seconds, &failed));
        if !options.json {
            print(job, lived, seconds, &failed)?;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    let _ = std::panic::take_hook();
    if options.json {
        writeln!(io::stdout(), "{}", serde_json::json!({ "jobs": told }))?;
    }
    Ok(match (any_failed, stop.load(Ordering::Relaxed)) {
        (true, _) => FAILED,
        (false, true) => SAVED,
        (false, false) => DONE,
    })
}

/// Ctrl-C ends the worlds that are being lived through, and no others are begun.
fn stop_at_ctrl_c(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            stop.store(true, Ordering::Relaxed);
            let second = runtime.block_on(tokio::signal::ctrl_c());
            if second.is_ok() {
                // Whoever asks twice does not wait for a world's end.
                std::process::exit(i32::from(FAILED));
            }
        }
    });
    Ok(())
}

/// Lives through the worlds of a job: how many there were, and which failed.
fn worlds(options: &Options, job: Job, scale: Scale, stop: &AtomicBool) -> Result<(u64, Vec<Failed>)> {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let end = options.first_seed + options.seeds;
    let next = AtomicU64::new(options.first_seed);
    let watch = Watch::new();
    let clock = SystemClock::new();
    let (mut lived, mut failed): (u64, Vec<Failed>) = (0, Vec::new());
    thread::scope(|scope| -> Result<()> {
        let (tell, hear) = mpsc::channel::<Told>();
        for number in 0..threads.min(usize::try_from(options.seeds).unwrap_or(usize::MAX)) {
            let (tell, next) = (tell.clone(), &next);
            let name = format!("a world of {}, on thread {number}", job.name());
            thread::Builder::new().name(name).spawn_scoped(scope, move || {
                mutate::switch(options.bug);
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let life = live(job, seed, &scale);
                    let trace = options.trace.then(|| life.trace.text().to_owned());
                    if tell.send(Told { seed, end: life.end, trace }).is_err() {
                        break;
                    }
                }
                mutate::switch(None);
            })?;
        }
        drop(tell);
        loop {
            match hear.recv_timeout(LOOK_EVERY) {
                Ok(told) => {
                    lived += 1;
                    if let Some(trace) = told.trace {
                        watch.clear();
                        let mut out = io::stdout().lock();
                        if options.json {
                            // Standard output holds the JSON alone.
                            writeln!(io::stderr(), "seed {}\n{trace}", told.seed)?;
                        } else {
                            writeln!(out, "seed {}\n{trace}", told.seed)?;
                        }
                    }
                    if let Err(failure) = told.end {
                        watch.say(&format!("{} seed {}: {}", job.name(), told.seed, failure.invariant));
                        failed.push(Failed { seed: told.seed, failure, smallest: None });
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            watch.count(&progress(job, lived, options.seeds, failed.len(), clock.elapsed()));
        }
        Ok(())
    })?;
    failed.sort_by_key(|failed| failed.seed);
    mutate::switch(options.bug);
    for failed in failed.iter_mut().take(SHRUNK_MAX) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        watch.count(&format!("{}: making the world of seed {} smaller", job.name(), failed.seed));
        let fails = |scale: &Scale| match stop.load(Ordering::Relaxed) {
            true => None,
            false => live(job, failed.seed, scale).end.err(),
        };
        let (smallest, seen) = shrink(failed.failure.invariant, scale, fails);
        failed.smallest = seen.map(|seen| (smallest, seen));
    }
    mutate::switch(None);
    watch.clear();
    Ok((lived, failed))
}

/// One line of progress.
fn progress(job: Job, lived: u64, seeds: u64, failed: usize, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = lived as f64 / elapsed.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let left = (seeds.saturating_sub(lived)) as f64 / rate.max(0.001);
    let wrong = if failed == 0 { String::new() } else { format!(", {failed} failed") };
    format!("{}: {} of {} worlds{wrong}, {rate:.1}/s, {left:.0} s left", job.name(), grouped(lived), grouped(seeds))
}

/// How a world is lived through again.
fn replay(job: Job, seed: u64, scale: &Scale) -> String {
    let flags = scale.flags();
    let space = if flags.is_empty() { "" } else { " " };
    format!("hubferry simulate --job {} --first-seed {seed} --seeds 1{space}{flags} --trace", job.name())
}

fn print(job: Job, lived: u64, seconds: f64, failed: &[Failed]) -> Result<()> {
    let mut out = io::stdout().lock();
    for one in failed {
        writeln!(out, "{} seed {}: {}\n  {}", job.name(), one.seed, one.failure.invariant, one.failure.seen)?;
        writeln!(out, "  again:    {}", replay(job, one.seed, &Scale::FULL))?;
        if let Some((scale, failure)) = &one.smallest {
            writeln!(out, "  smallest: {}\n  {}", replay(job, one.seed, scale), failure.seen)?;
        }
    }
    writeln!(out, "{}: {} worlds in {seconds:.1} s, {} failed", job.name(), grouped(lived), failed.len())?;
    Ok(())
}

fn summary(options: &Options, job: Job, lived: u64, seconds: f64, failed: &[Failed]) -> Value {
    let failures: Vec<Value> = failed
        .iter()
        .map(|one| {
            json!({
                "seed": one.seed, "invariant": one.failure.invariant, "seen": one.failure.seen,
                "replay": replay(job, one.seed, &Scale::FULL),
                "smallest": one.smallest.as_ref().map(|(scale, _)| replay(job, one.seed, scale)),
            })
        })
        .collect();
    json!({ "job": job.name(), "first_seed": options.first_seed, "seeds": lived, "seconds": seconds, "failures": failures })
}
