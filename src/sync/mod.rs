//! The sync job: Salesforce and HubSpot in step, both ways.
//!
//! ```text
//! schedule ─► which syncs? ─► begin (one open run per sync) ─► lease ─► mapping checked ─► counted, where much has changed
//!   ─► what changed on either side (ids) ─► links ─► both records read ─► merged field by field over two shadows
//!   ─► intent ─► written ─► read back ─► shadows ─► position
//! ```
//!
//! Why it is done so: `docs/decisions/0016-sync.md`.

mod bulk;
mod chunk;
mod conclude;
mod create;
pub mod decide;
pub mod fields;
mod gone;
mod identity;
mod judge;
pub mod links;
pub mod model;
mod outcome;
mod pair;
pub mod plan;
pub mod progress;
mod records;
pub mod resolve;
pub mod reviews;
mod run;
pub mod setup;
mod store;
pub mod todo;
pub mod values;
mod write;

use std::rc::Rc;

use self::{
    plan::{PlanTotals, Planner, Sink},
    progress::{Phase, Progress},
    run::Job,
};
use crate::{
    app::{Answer, App},
    clock::{Deadline, run_id},
    codes,
    config::{Config, Sync},
    error::{Error, ErrorKind, Result},
    import::{Spent, calls_of, patiently_until},
    objects::Location,
    report::{Outcome, Report},
    state::runs::{Leased, Run, RunSource, decode},
};

/// How an invocation's work on a run ended.
pub(crate) enum End {
    /// The window is complete.
    Complete,
    /// The deadline is near.
    Deadline,
    /// A Bulk job is under way.
    Waiting,
    /// A run-level error; what was saved before it stays.
    Failed(Error),
    /// The sync cannot run as it is configured; nothing was written.
    Invalid(Error),
    /// It would do more than its limits allow.
    Aborted(Error),
}

/// Runs a sync, or all of them: those of accounts first, since contacts refer to them.
pub async fn on_schedule(app: &App, name: Option<&str>, deadline: Deadline, owner: &str) -> Result<Answer> {
    let mut syncs: Vec<Rc<Sync>> = match name {
        None => app.config().syncs.iter().cloned().map(Rc::new).collect(),
        Some(name) => vec![find(app, name)?],
    };
    if syncs.is_empty() {
        return Ok(Answer::Nothing("hubferry.yaml has no syncs".to_owned()));
    }
    syncs.sort_by_key(|sync| !sync.salesforce_object.eq_ignore_ascii_case("Account"));
    let alone = syncs.len() == 1;
    let (mut answers, mut failed) = (Vec::with_capacity(syncs.len()), None);
    for sync in syncs {
        match Box::pin(sync_once(app, &sync, false, deadline, owner)).await {
            Ok(report) => answers.push(Answer::Report(Box::new(report))),
            Err(error) if alone => return Err(error),
            // One that cannot run does not keep the others from it.
            Err(error) => {
                tracing::error!(sync = sync.name, error_code = %error.code(), "{error:?}");
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if answers.len() == 1 => Ok(answers.remove(0)),
        None => Ok(Answer::Several(answers)),
    }
}

/// A run that does nothing but what people have decided. A run that is under way is gone on with instead, and does that too.
pub(crate) async fn only_reviews(app: &App, name: &str, deadline: Deadline, owner: &str) -> Result<Report> {
    let sync = find(app, name)?;
    Box::pin(sync_once(app, &sync, true, deadline, owner)).await
}

/// Goes on with a run that was cut off.
pub async fn resume(app: &App, run: &Run, deadline: Deadline, owner: &str) -> Result<Answer> {
    let Some(sync) = app.config().syncs.iter().find(|sync| sync.name == run.name) else {
        let message = format!(
            "run {} belongs to the sync `{}`, which hubferry.yaml does not have any more",
            run.run_id, run.name
        );
        return Err(Error::invalid(codes::NAME_UNKNOWN, message));
    };
    let spent = Spent::so_far(app);
    let report = Box::pin(work(app, Rc::new(sync.clone()), run, false, deadline, owner, spent)).await?;
    Ok(Answer::Report(Box::new(report)))
}

/// What a run would do now, and why. Writes nothing anywhere; `each` is told every step.
///
/// `Unavailable` if the deadline comes before the plan is whole. What a run under way has done is seen, what it will do is in the plan.
pub async fn plan(app: &App, name: &str, deadline: Deadline, each: Sink) -> Result<PlanTotals> {
    let sync = find(app, name)?;
    let spent = Spent::so_far(app);
    let mut job = Job::new(app, &sync, None, "", deadline, None, spent)?;
    let calls = calls_of(&job.account);
    let salesforce = job.org.counts().calls;
    job.load_position().await?;
    job.prepare().await?;
    job.load_reviews().await?;
    job.planner = Some(Planner::telling(each));
    job.open_window().await?;
    job.progress.phase = Phase::Reviews;
    if !Box::pin(job.plan_all()).await? {
        let message = format!("sync `{name}`: the plan did not become whole in time");
        return Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::NO_PROGRESS, message));
    }
    let planner = job.planner.take().unwrap_or_else(Planner::silent);
    let over = planner.over(&sync.limits).map(|(code, message)| format!("[{code}] {message}"));
    let hubspot_calls = (calls_of(&job.account) - calls).total;
    let salesforce_calls = job.org.counts().calls.saturating_sub(salesforce);
    Ok(PlanTotals { over, hubspot_calls, salesforce_calls, ..planner.totals })
}

/// The sync of this name.
pub(crate) fn find(app: &App, name: &str) -> Result<Rc<Sync>> {
    let found = app.config().syncs.iter().find(|sync| sync.name == name);
    found.cloned().map(Rc::new).ok_or_else(|| {
        let known = app.config().syncs.iter().map(|sync| sync.name.as_str()).collect::<Vec<_>>();
        let message = match known.as_slice() {
            [] => format!("hubferry.yaml has no sync `{name}`, nor any other"),
            known => format!("hubferry.yaml has no sync `{name}`; it has {}", known.join(", ")),
        };
        Error::invalid(codes::NAME_UNKNOWN, message)
    })
}

/// Where reports and working files of syncs go; the key ends with `/` or is empty.
pub(crate) fn data_of(config: &Config) -> Result<Location> {
    let data = config.data.as_deref().and_then(Location::parse);
    let mut data = data.ok_or_else(|| {
        Error::invalid(codes::CONFIG_INVALID, "`data` is not of the form s3://bucket/: reports of syncs have no place")
    })?;
    if !data.key.is_empty() && !data.key.ends_with('/') {
        data.key.push('/');
    }
    Ok(data)
}

async fn sync_once(app: &App, sync: &Rc<Sync>, only_reviews: bool, deadline: Deadline, owner: &str) -> Result<Report> {
    let spent = Spent::so_far(app);
    let data = data_of(app.config())?;
    let source = RunSource {
        bucket: data.bucket,
        key: data.key,
        version_id: None,
        etag: String::new(),
        size: 0,
        sequencer: None,
    };
    let new_id = run_id(app.env().clock.now(), &app.env().rng);
    // Links of other objects or another org under the same name would mean nothing.
    let identity = format!("{} {} {} {}", sync.hubspot, sync.hubspot_object, sync.salesforce, sync.salesforce_object);
    let begin = async || app.runs().begin("sync", &sync.name, &source, &identity, &new_id).await;
    let run = patiently_until(app.env(), deadline, begin).await?;
    let now = app.env().clock.now();
    if run.not_before > now && run.lease_expires_at <= now {
        // A Bulk job is at work, or a system is down: the schedule is not to beat the back-off.
        let mut report = busy(app, sync, &run);
        report.notes.push(format!("the run {} waits until {}", run.run_id, run.not_before));
        return Ok(report);
    }
    Box::pin(work(app, sync.clone(), &run, only_reviews, deadline, owner, spent)).await
}

/// Takes the run's lease and works on it as far as this invocation goes.
async fn work(
    app: &App,
    sync: Rc<Sync>,
    run: &Run,
    only_reviews: bool,
    deadline: Deadline,
    owner: &str,
    spent: Spent,
) -> Result<Report> {
    let id = run.run_id.as_str();
    let (lease, run) = match app.runs().lease(id, owner, deadline).await? {
        Leased::Yes(lease, run) => (lease, run),
        Leased::Over(run) => {
            app.runs().close(id).await?;
            let blank = || conclude::blank_report(&sync, &run, app.env().clock.now());
            let mut report = run.report.clone().unwrap_or_else(blank);
            report.outcome = Outcome::Duplicate;
            return Ok(report);
        }
        Leased::Busy(run) => return Ok(busy(app, &sync, &run)),
    };
    let on_lease = async {
        let progress: Option<Progress> = match run.progress.as_str() {
            "" => None,
            text => Some(decode(text, &format!("run#{}", run.run_id))?),
        };
        let mut job = Job::new(app, &sync, Some(&lease), &run.run_id, deadline, progress, spent)?;
        if run.progress.is_empty() {
            job.progress.only_reviews = only_reviews;
        }
        let end = match run.stalled() {
            Some(message) => End::Failed(Error::new(ErrorKind::Corrupt, codes::NO_PROGRESS, message)),
            None => Box::pin(job.work(&run)).await?,
        };
        Box::pin(conclude::conclude(app, job, &run, end)).await
    };
    match Box::pin(on_lease).await {
        Err(error) if error.kind() == ErrorKind::Fenced => {
            tracing::warn!(run_id = id, "another invocation has taken the run over; this one stops");
            Ok(busy(app, &sync, &run))
        }
        result => result,
    }
}

fn busy(app: &App, sync: &Sync, run: &Run) -> Report {
    let mut report = conclude::blank_report(sync, run, app.env().clock.now());
    report.outcome = Outcome::Busy;
    report
}
