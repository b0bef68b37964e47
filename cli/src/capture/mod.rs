//! `hubferry capture NAME`: the capture job from here, and the check of what it wrote.

mod compare;
mod show;
mod stored;
mod verify;
mod watch;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    rc::Rc,
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use hubferry::{
    Error,
    app::{Answer, Update},
    capture,
    clock::Deadline,
    codes,
    config::{Capture, Environment},
    logging,
    report::{Outcome, Report},
    state::runs::{INVOCATIONS_MAX, LEASE},
};
use jiff::SignedDuration;
use serde_json::json;

use self::{show::Page, verify::Wish, watch::Watch};
use crate::{DONE, DRIFT, FAILED, SAVED, USAGE, doors, text};

/// The run is worked on in turns of what a function has: the same way, and a process that hangs is noticed.
const TURN: SignedDuration = SignedDuration::from_mins(15);
/// A run that has to wait longer is left to whoever comes next.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// How often a run that another process holds is looked at: the lease of one that was killed is over by then.
const BUSY_LOOKS: u32 = 8;
/// Time between two looks.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// The state of a capture does not fit a smaller question.
const SAMPLE_MAX: u64 = 100_000;

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The capture, as the settings name it.
    name: String,
    #[command(flatten)]
    place: doors::Place,
    /// Compare what was captured with HubSpot, and write nothing.
    #[arg(long, conflicts_with_all = ["restart", "yes"])]
    verify: bool,
    /// With --verify: list every id, and name what is missing or spare (a call for 100 records).
    #[arg(long, requires = "verify")]
    full: bool,
    /// With --verify: records whose values are compared.
    #[arg(long, requires = "verify", default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(0..=SAMPLE_MAX))]
    sample: u64,
    /// With --verify: show the values that differ, not only the names of their properties.
    #[arg(long, requires = "verify")]
    values: bool,
    /// Forget the position: begin anew, with a snapshot where the settings want one.
    #[arg(long)]
    restart: bool,
    /// With --restart: do not ask.
    #[arg(long, requires = "restart")]
    yes: bool,
    /// Print one line of JSON: the report; with --verify what was found.
    #[arg(long)]
    json: bool,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let filter = Environment::read().log_filter;
    // What goes wrong is in the report.
    logging::start(logging::Format::Plain, Some(filter.as_deref().unwrap_or("off")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(Box::pin(work(options)));
    if options.json
        && let Err(error) = &result
    {
        let whole = format!("{error:#}");
        let told = match error.downcast_ref::<Error>() {
            Some(error) => {
                json!({ "code": error.code().as_str(), "message": whole.trim_start_matches(&format!("{}: ", error.code())), "hint": error.hint() })
            }
            None => json!({ "code": null, "message": whole, "hint": null }),
        };
        text::json_line(&json!({ "error": told }))?;
    }
    result
}

async fn work(options: &Options) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let watcher = watch.clone();
    let told = move |update: &Update| {
        if let Update::Capture(update) = update {
            watcher.update(update);
        }
    };
    let doors = doors::open(&options.place, !options.verify, Some(Rc::new(told))).await?;
    let capture = named(&doors, &options.name)?;
    let result = if options.verify {
        check(&doors, capture, options, &watch).await
    } else if options.restart && !forget(&doors, capture, options.yes).await? {
        return Ok(USAGE);
    } else {
        Box::pin(job(&doors, capture, options, &watch)).await
    };
    watch.clear();
    result
}

fn named<'a>(doors: &'a doors::Doors, name: &str) -> Result<&'a Capture> {
    let captures = &doors.app.config().captures;
    let found = captures.iter().find(|capture| capture.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = captures.iter().map(|capture| capture.name.as_str()).collect();
        let message = match names.as_slice() {
            [] => format!("the settings have no capture `{name}`, nor any other"),
            names => format!("the settings have no capture `{name}`; they have {}", names.join(", ")),
        };
        Error::invalid(codes::NAME_UNKNOWN, message).into()
    })
}

/// Works on the run to its end, and shows the report.
async fn job(doors: &doors::Doors, capture: &Capture, options: &Options, watch: &Watch) -> Result<u8> {
    let report = Box::pin(to_the_end(doors, capture, watch)).await?;
    watch.clear();
    if options.json {
        text::json_line(&serde_json::to_value(&report)?)?;
    } else {
        let mut page = Page::new(has_colour());
        page.report(&report, &doors.state);
        print(&page.end())?;
    }
    Ok(match report.outcome {
        Outcome::Done | Outcome::Duplicate => DONE,
        Outcome::Yielded | Outcome::Busy => SAVED,
        _ => FAILED,
    })
}

async fn to_the_end(doors: &doors::Doors, capture: &Capture, watch: &Watch) -> Result<Report> {
    let env = doors.app.env();
    let mut looks = 0;
    for _ in 0..INVOCATIONS_MAX {
        let deadline = Deadline { at: env.clock.now().saturating_add(TURN)? };
        let owner = format!("{}/{:x}", std::process::id(), env.rng.u64());
        let turn = Box::pin(capture::on_schedule(&doors.app, Some(&capture.name), deadline, &owner));
        let report = match stoppable(env, watch, turn).await?? {
            Answer::Report(report) => *report,
            _ => bail!("the capture answers something that is no report"),
        };
        let wait = match report.outcome {
            Outcome::Busy if looks < BUSY_LOOKS => {
                if looks == 0 {
                    let seconds = LEASE.as_secs();
                    watch.say(&format!(
                        "Another process holds the run, or was killed within the last {seconds} s: looking again."
                    ));
                }
                looks += 1;
                BUSY_WAIT
            }
            Outcome::Yielded if !env.stop.get() => {
                looks = 0;
                let run = doors.app.runs().get(report.run_id.as_deref().unwrap_or_default()).await?;
                let until = run.map(|run| run.not_before).unwrap_or_default();
                let wait = Duration::try_from(until.duration_since(env.clock.now())).unwrap_or_default();
                if wait > WAIT_MAX {
                    watch.say(&format!("The run has to wait until {until}."));
                    return Ok(report);
                }
                if let Some(error) = report.error.as_ref().filter(|_| !wait.is_zero()) {
                    watch.say(&format!("{}: {}; going on in {} s.", error.code, error.message, wait.as_secs() + 1));
                }
                wait
            }
            _ => return Ok(report),
        };
        stoppable(env, watch, env.clock.sleep(wait)).await?;
        if env.stop.get() {
            return Ok(report);
        }
    }
    bail!("the run does not come to its end in {INVOCATIONS_MAX} turns")
}

/// Awaits the work; Ctrl-C asks it to stop after its next checkpoint, and once more gives it up.
async fn stoppable<T>(env: &hubferry::app::Env, watch: &Watch, work: impl Future<Output = T>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return Ok(result),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                if env.stop.replace(true) {
                    return Err(anyhow!("stopped at once; what was saved stays, and the next run goes on from there"));
                }
                watch.say("Stopping after a checkpoint; Ctrl-C once more stops at once.");
            }
        }
    }
}

/// Forgets the position, once that was confirmed. `false`: it was not.
async fn forget(doors: &doors::Doors, capture: &Capture, yes: bool) -> Result<bool> {
    let name = &capture.name;
    let stderr = io::stderr();
    if !yes {
        if !io::stdin().is_terminal() {
            writeln!(
                &stderr,
                "hubferry: --restart forgets the position of capture `{name}`; add --yes where nobody can be asked"
            )?;
            return Ok(false);
        }
        write!(&stderr, "Forget the position of capture `{name}` and begin anew? [y/N] ")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            writeln!(&stderr, "Nothing was done.")?;
            return Ok(false);
        }
    }
    if doors.app.runs().stream("capture", name).await?.is_some() && !doors.app.runs().forget("capture", name).await? {
        bail!(
            "a run of capture `{name}` is open: `hubferry capture {name}` brings it to its end, then --restart can follow"
        );
    }
    writeln!(
        &stderr,
        "The position is forgotten. What was written stays under {}:\nempty it where consumers apply all of it, since deletes of the time between are not told.",
        capture.output
    )?;
    Ok(true)
}

/// Compares, and shows what was found.
async fn check(doors: &doors::Doors, capture: &Capture, options: &Options, watch: &Watch) -> Result<u8> {
    if doors.no_state {
        let message = format!("capture `{}` has no position here: there is no {}", capture.name, doors.state);
        let hint = "Run `hubferry capture NAME` first, or name its table in HUBFERRY_TABLE.";
        return Err(Error::invalid(codes::NAME_UNKNOWN, message).with_hint(hint).into());
    }
    let wish = Wish {
        sample: usize::try_from(options.sample).unwrap_or_default(),
        full: options.full,
        values: options.values,
    };
    let drift = Box::pin(verify::run(&doors.app, capture, wish, watch)).await?;
    if options.json {
        text::json_line(&serde_json::to_value(&drift)?)?;
    } else {
        let mut page = Page::new(has_colour());
        page.drift(&drift);
        print(&page.end())?;
    }
    Ok(if drift.verdict == "none" { DONE } else { DRIFT })
}

fn has_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
