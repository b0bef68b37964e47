//! The capture job: HubSpot's snapshot and changes, to S3.
//!
//! ```text
//! schedule ─► which captures? ─► begin (one open run per capture) ─► lease
//!   ─► snapshot, once ─► window [covered, HubSpot's clock - lag): search for ids · read · emit
//!   ─► the same again for what the index showed late ─► recycle bin ─► associations ─► manifest, report, position
//! ```
//!
//! At each checkpoint the order is: object, log of what was learned, position. Why it is done so: `docs/decisions/0013-capture.md`.

pub mod change;
mod changes;
mod cms;
mod conclude;
mod job;
pub mod known;
pub mod output;
pub mod position;
pub mod progress;
mod sweep;

use std::rc::Rc;

use self::{job::Job, progress::Progress};
use crate::{
    app::{Answer, App},
    clock::{Deadline, run_id},
    codes,
    config::Capture,
    error::{Error, ErrorKind, Result},
    import::{Spent, patiently_until},
    objects::Location,
    report::{Outcome, Report},
    state::runs::{Leased, Run, RunSource, decode},
};

/// Captures that one invocation works on at a time: they share the account's limit, and each holds an object in memory.
const AT_ONCE: usize = 2;

/// How an invocation's work on a run ended.
pub(crate) enum End {
    /// The window is complete.
    Complete,
    /// There is nothing to capture yet: HubSpot's clock has not moved past the lag.
    TooSoon,
    /// The deadline is near.
    Deadline,
    /// A run-level error; what was saved before it stays.
    Failed(Error),
    /// The capture cannot run as it is configured; nothing was written.
    Invalid(Error),
}

/// Runs a capture, or all of them.
pub async fn on_schedule(app: &App, name: Option<&str>, deadline: Deadline, owner: &str) -> Result<Answer> {
    let captures: Vec<Rc<Capture>> = match name {
        None => app.config().captures.iter().cloned().map(Rc::new).collect(),
        Some(name) => {
            let found = app.config().captures.iter().find(|capture| capture.name == name).ok_or_else(|| {
                let known = app.config().captures.iter().map(|capture| capture.name.as_str()).collect::<Vec<_>>();
                let message = match known.as_slice() {
                    [] => format!("hubferry.yaml has no capture `{name}`, nor any other"),
                    known => format!("hubferry.yaml has no capture `{name}`; it has {}", known.join(", ")),
                };
                Error::invalid(codes::NAME_UNKNOWN, message)
            })?;
            vec![Rc::new(found.clone())]
        }
    };
    if captures.is_empty() {
        return Ok(Answer::Nothing("hubferry.yaml has no captures".to_owned()));
    }
    let alone = captures.len() == 1;
    let mut answers = Vec::with_capacity(captures.len());
    let mut failed = None;
    for lot in captures.chunks(AT_ONCE) {
        let works = lot.iter().map(|capture| Box::pin(capture_once(app, capture.clone(), deadline, owner)));
        for (capture, result) in lot.iter().zip(futures_util::future::join_all(works).await) {
            match result {
                Ok(report) => answers.push(Answer::Report(Box::new(report))),
                Err(error) if alone => return Err(error),
                // One that cannot run does not keep the others from it.
                Err(error) => {
                    tracing::error!(capture = capture.name, error_code = %error.code(), "{error:?}");
                    failed.get_or_insert(error);
                }
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if answers.len() == 1 => Ok(answers.remove(0)),
        None => Ok(Answer::Several(answers)),
    }
}

/// Goes on with a run that was cut off.
pub async fn resume(app: &App, run: &Run, deadline: Deadline, owner: &str) -> Result<Answer> {
    let Some(capture) = app.config().captures.iter().find(|capture| capture.name == run.name) else {
        return Err(Error::invalid(
            codes::NAME_UNKNOWN,
            format!(
                "run {} belongs to the capture `{}`, which hubferry.yaml does not have any more",
                run.run_id, run.name
            ),
        ));
    };
    let spent = Spent::so_far(app);
    let report = Box::pin(work(app, Rc::new(capture.clone()), run, deadline, owner, spent)).await?;
    Ok(Answer::Report(Box::new(report)))
}

async fn capture_once(app: &App, capture: Rc<Capture>, deadline: Deadline, owner: &str) -> Result<Report> {
    let spent = Spent::so_far(app);
    let output = output_of(&capture)?;
    let source = RunSource {
        bucket: output.bucket,
        key: output.key,
        version_id: None,
        etag: String::new(),
        size: 0,
        sequencer: None,
    };
    let new_id = run_id(app.env().clock.now(), &app.env().rng);
    let identity = identity(&capture);
    let begin = async || app.runs().begin("capture", &capture.name, &source, &identity, &new_id).await;
    let run = patiently_until(app.env(), deadline, begin).await?;
    let now = app.env().clock.now();
    if run.not_before > now && run.lease_expires_at <= now {
        // HubSpot is down, or the day's calls are spent: the schedule is not to beat the back-off.
        let mut report = busy(app, &capture, &run);
        report.notes.push(format!("the run {} waits until {}", run.run_id, run.not_before));
        return Ok(report);
    }
    Box::pin(work(app, capture, &run, deadline, owner, spent)).await
}

/// Where a capture writes; the key ends with `/` or is empty.
pub fn output_of(capture: &Capture) -> Result<Location> {
    let mut output = Location::parse(&capture.output).ok_or_else(|| {
        let message = format!("capture `{}`: the output is not of the form s3://bucket/prefix/", capture.name);
        Error::invalid(codes::CONFIG_INVALID, message)
    })?;
    if !output.key.is_empty() && !output.key.ends_with('/') {
        output.key.push('/');
    }
    Ok(output)
}

/// What a position belongs to: another account or resource under the same name is another capture.
fn identity(capture: &Capture) -> String {
    format!("{} {}", capture.hubspot, capture.resource)
}

/// Takes the run's lease and works on it as far as this invocation goes.
async fn work(
    app: &App,
    capture: Rc<Capture>,
    run: &Run,
    deadline: Deadline,
    owner: &str,
    spent: Spent,
) -> Result<Report> {
    let id = run.run_id.as_str();
    let (lease, run) = match app.runs().lease(id, owner, deadline).await? {
        Leased::Yes(lease, run) => (lease, run),
        Leased::Over(run) => {
            app.runs().close(id).await?;
            let blank = || conclude::blank_report(&capture, &run, app.env().clock.now());
            let mut report = run.report.clone().unwrap_or_else(blank);
            report.outcome = Outcome::Duplicate;
            return Ok(report);
        }
        Leased::Busy(run) => return Ok(busy(app, &capture, &run)),
    };
    match Box::pin(on_lease(app, &capture, &lease, &run, deadline, spent)).await {
        Err(error) if error.kind() == ErrorKind::Fenced => {
            tracing::warn!(run_id = id, "another invocation has taken the run over; this one stops");
            Ok(busy(app, &capture, &run))
        }
        result => result,
    }
}

fn busy(app: &App, capture: &Capture, run: &Run) -> Report {
    let mut report = conclude::blank_report(capture, run, app.env().clock.now());
    report.outcome = Outcome::Busy;
    report
}

async fn on_lease(
    app: &App,
    capture: &Rc<Capture>,
    lease: &crate::state::runs::Lease,
    run: &Run,
    deadline: Deadline,
    spent: Spent,
) -> Result<Report> {
    let progress: Option<Progress> = match run.progress.as_str() {
        "" => None,
        text => Some(decode(text, &format!("run#{}", run.run_id))?),
    };
    let mut job = Job::new(app, capture, lease, run, deadline, progress, spent)?;
    let end = match run.stalled() {
        Some(message) => End::Failed(Error::new(ErrorKind::Corrupt, codes::NO_PROGRESS, message)),
        None => job.work(run).await?,
    };
    conclude::conclude(app, job, run, end).await
}
