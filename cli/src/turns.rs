//! A run from here to its end: in turns of what a function has, so that a process that hangs is noticed, with waits in between where HubSpot or
//! another process asks for them, and with Ctrl-C.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use hubferry::{
    app::{Answer, App, Env},
    clock::Deadline,
    config::Environment,
    logging,
    report::{Outcome, Report},
    state::runs::{INVOCATIONS_MAX, LEASE},
};
use jiff::SignedDuration;

use crate::{DONE, FAILED, SAVED, text, watch::Watch};

/// One turn: what a function has.
pub(crate) const TURN: SignedDuration = SignedDuration::from_mins(15);
/// A run that has to wait longer is left to whoever comes next.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// How often a run that another process holds is looked at: the lease of one that was killed is over by then.
const BUSY_LOOKS: u32 = 8;
/// Time between two looks.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Drives a command to its exit code. With `json` an error is a line of JSON too.
pub(crate) fn command(json: bool, work: impl Future<Output = Result<u8>>) -> Result<u8> {
    let filter = Environment::read().log_filter;
    // What goes wrong is in the report.
    logging::start(logging::Format::Plain, Some(filter.as_deref().unwrap_or("off")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(Box::pin(work));
    if json && let Err(error) = &result {
        text::json_error(error)?;
    }
    result
}

/// When a turn that begins now ends, and who works in it.
pub(crate) fn begin(env: &Env) -> Result<(Deadline, String)> {
    let deadline = Deadline { at: env.clock.now().saturating_add(TURN)? };
    Ok((deadline, format!("{}/{:x}", std::process::id(), env.rng.u64())))
}

/// Takes turns until the run is over, has to wait for long, or Ctrl-C asks to stop. The last report.
pub(crate) async fn to_the_end(
    app: &App,
    watch: &Watch,
    turn: impl AsyncFn(Deadline, String) -> hubferry::Result<Answer>,
) -> Result<Report> {
    let env = app.env();
    let mut looks = 0;
    for _ in 0..INVOCATIONS_MAX {
        let (deadline, owner) = begin(env)?;
        let report = match stoppable(env, watch, turn(deadline, owner)).await?? {
            Answer::Report(report) => *report,
            _ => bail!("the job answers something that is no report"),
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
                let run = app.runs().get(report.run_id.as_deref().unwrap_or_default()).await?;
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
pub(crate) async fn stoppable<T>(env: &Env, watch: &Watch, work: impl Future<Output = T>) -> Result<T> {
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

/// The exit code of a run that ended so.
pub(crate) fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done | Outcome::Duplicate => DONE,
        Outcome::Yielded | Outcome::Busy => SAVED,
        _ => FAILED,
    }
}
