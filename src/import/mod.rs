//! The import job: from an object in S3 to records in HubSpot.
//!
//! ```text
//! event ─► which import? ─► head ─► admit (one run per object version) ─► lease ─► read · map · batch · upsert · settle
//!       ─► checkpoint ─► … ─► rejects joined ─► report ─► context and run, or: yielded, and continued in another invocation
//! ```

pub mod batcher;
pub mod check;
mod conclude;
mod create;
mod deliver;
mod delivered;
mod flow;
pub mod index;
mod job;
pub mod ledger;
pub mod log;
mod mirror;
mod pairs;
pub mod plan;
pub mod progress;
mod records;
mod rows;
mod source;

use std::{rc::Rc, time::Duration};

pub(crate) use self::{
    conclude::{blank_report, hand_over, is_passing, log_summary, patiently_until, store_report},
    job::{calls_of, held},
};
use self::{
    conclude::{conclude, source_of},
    job::{Baseline, End, Job},
    log::Log,
    progress::Progress,
    records::{has_created, is_nameless},
};
use crate::{
    app::{Answer, App},
    clock::{Deadline, run_id},
    codes,
    config::Import,
    error::{Error, ErrorKind, Result},
    event::{SourceObject, normalised},
    mutate::{self, Bug},
    objects::{Location, ObjectVersion},
    report::{Outcome, Report, ReportError, Source},
    state::admission::Admission,
    state::runs::{INVOCATIONS_MAX, Lease, Leased, Run, RunSource, STALLS_MAX, version_of},
};

/// How long a run waits for that of the object's older version: longer than a lease, so that one that has died is not waited for.
const OLDER_RUN_PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks.
const OLDER_RUN_LOOK: Duration = Duration::from_millis(500);

/// The doors' counters when an event was taken up.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    pub(crate) table_writes: u64,
    pub(crate) object_requests: u64,
}

impl Spent {
    pub(crate) fn so_far(app: &App) -> Self {
        let env = app.env();
        Self { elapsed: env.clock.elapsed(), table_writes: env.table.writes(), object_requests: env.objects.requests() }
    }
}

/// Imports the object of an event.
pub async fn on_object(app: &App, source: &SourceObject, deadline: Deadline, owner: &str) -> Result<Answer> {
    let Some(import) = app.import_for(&source.key)? else {
        let message = format!("no import matches s3://{}/{}", source.bucket, source.key);
        tracing::info!(bucket = source.bucket, key = source.key, "{message}");
        return Ok(Answer::Nothing(message));
    };
    Box::pin(as_import(app, import, source, deadline, owner)).await
}

/// Imports an object as `import`, whatever its name is.
pub async fn as_import(
    app: &App,
    import: &Import,
    source: &SourceObject,
    deadline: Deadline,
    owner: &str,
) -> Result<Answer> {
    let import = Rc::new(import.clone());
    let settings = settings_of(&import);
    admitted(app, import, source, "import", &settings, deadline, owner).await
}

/// The run that an object leads to, made if it is new, and worked on. `settings` is what it is told by whether they have changed.
pub(super) async fn admitted(
    app: &App,
    import: Rc<Import>,
    source: &SourceObject,
    job: &str,
    settings: &str,
    deadline: Deadline,
    owner: &str,
) -> Result<Answer> {
    let spent = Spent::so_far(app);
    let location = Location::new(&source.bucket, &source.key);
    let sequencer = source.sequencer.as_deref().map(normalised);

    // Known already? Then nothing else matters, not even whether the object is still there.
    if let Some(etag_or_version) = known_version(source)
        && let Some(run) = app.runs().of_version(&source.bucket, &source.key, &etag_or_version).await?
        && run.outcome.is_some()
        && !may_run_again(app, &run, &import, settings, deadline).await?
        // A later upload of the same contents, where the bucket keeps no versions, is looked at more closely.
        && sequencer.as_ref().zip(run.source.sequencer.as_ref()).is_none_or(|(ours, theirs)| ours <= theirs)
    {
        return Ok(Answer::Report(Box::new(duplicate(run))));
    }

    let head = async || app.env().objects.head(&location, source.version_id.as_deref()).await;
    let object = match patiently_until(app.env(), deadline, head).await {
        Ok(object) => object,
        Err(error) if error.kind() == ErrorKind::NotFound => return gone(app, &import, source, error).await,
        Err(error) => return Err(error.context(format!("reading {location}"))),
    };
    if let Some(etag) = source.etag.as_deref().map(unquoted)
        && source.version_id.is_none()
        && object.version_id.is_none()
        && etag != object.etag
    {
        // Overwritten since: the newer object has an event of its own.
        return Ok(Answer::Report(Box::new(superseded(app, &import, source, &object))));
    }
    let run_source = RunSource {
        bucket: source.bucket.clone(),
        key: source.key.clone(),
        version_id: object.version_id.clone(),
        etag: object.etag.clone(),
        size: object.size,
        sequencer,
    };
    let new_id = run_id(app.env().clock.now(), &app.env().rng);
    // What nothing names is created again only where it was looked at whether the run has sent any, and it was over by then.
    let nameless = is_nameless(&import);
    let mut untouched = None;
    if nameless {
        let version = version_of(run_source.version_id.as_deref(), &run_source.etag);
        let run = app.runs().of_version(&source.bucket, &source.key, &version).await?;
        if let Some(run) = run.filter(|run| run.outcome.is_some())
            && may_run_again(app, &run, &import, settings, deadline).await?
        {
            untouched = Some(run.run_id);
        }
    }
    let admit = async || {
        let again = |run: &Run| {
            runs_again(run, &import, settings) && (!nameless || untouched.as_deref() == Some(run.run_id.as_str()))
        };
        app.runs().admit(job, &import.name, &run_source, settings, &new_id, again).await
    };
    let admission = patiently_until(app.env(), deadline, admit).await?;
    match admission {
        Admission::Duplicate(run) => Ok(Answer::Report(Box::new(duplicate(*run)))),
        Admission::Superseded => Ok(Answer::Report(Box::new(superseded(app, &import, source, &object)))),
        Admission::Run(run) => Box::pin(work(app, import, &run, deadline, owner, spent)).await,
    }
}

/// Goes on with a run that was cut off.
pub async fn resume(app: &App, run: &Run, deadline: Deadline, owner: &str) -> Result<Answer> {
    let spent = Spent::so_far(app);
    if plan::replays(run) {
        let object = ObjectVersion {
            location: Location::new(&run.source.bucket, &run.source.key),
            version_id: run.source.version_id.clone(),
            etag: run.source.etag.clone(),
            size: run.source.size,
        };
        let header = plan::header(&*app.env().objects, &object).await?;
        let import = Rc::new(plan::stand_in(&header.import, &header.account)?);
        return Box::pin(work(app, import, run, deadline, owner, spent)).await;
    }
    let Some(import) = app.config().imports.iter().find(|import| import.name == run.name) else {
        return Err(Error::invalid(
            codes::NAME_UNKNOWN,
            format!(
                "run {} belongs to the import `{}`, which hubferry.yaml does not have any more",
                run.run_id, run.name
            ),
        ));
    };
    Box::pin(work(app, Rc::new(import.clone()), run, deadline, owner, spent)).await
}

/// The version that an event names, without asking S3.
fn known_version(source: &SourceObject) -> Option<String> {
    let etag = source.etag.as_deref().map(unquoted);
    match (&source.version_id, etag) {
        (Some(version), etag) => Some(version_of(Some(version), etag.unwrap_or_default())),
        (None, Some(etag)) => Some(version_of(None, etag)),
        (None, None) => None,
    }
}

fn unquoted(etag: &str) -> &str {
    etag.trim_matches('"')
}

/// The import's settings, as text that changes when they do.
fn settings_of(import: &Import) -> String {
    let text = serde_json::to_string(import).unwrap_or_default();
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// Whether an event for a version whose run is over starts another one, as [`runs_again`] has it. A run that died, or could not save what
/// it did, says nothing of creates that it has sent: they are in its notes.
async fn may_run_again(app: &App, run: &Run, import: &Import, settings: &str, deadline: Deadline) -> Result<bool> {
    if !runs_again(run, import, settings) || !is_nameless(import) {
        return Ok(runs_again(run, import, settings));
    }
    let folder = state_folder(&run.source.bucket, &run.name, &run.run_id);
    let look = async || has_created(app.env().objects.clone(), folder.clone()).await;
    Ok(!patiently_until(app.env(), deadline, look).await?)
}

/// A run's working files.
fn state_folder(bucket: &str, name: &str, run_id: &str) -> Location {
    Location::new(bucket, format!("state/import/{name}/{run_id}/"))
}

/// Whether an event for a version whose run is over starts another one: only where the first came to nothing and things may
/// have changed since. Creates that nothing names are never repeated: those of a run that failed on the way may all be there.
fn runs_again(run: &Run, import: &Import, settings: &str) -> bool {
    if is_nameless(import) && run.report.as_ref().is_some_and(|report| report.rows.created + report.rows.deferred > 0) {
        return false;
    }
    match run.outcome {
        Some(Outcome::Failed | Outcome::Invalid) => true,
        Some(Outcome::Aborted) => run.settings != settings,
        _ => false,
    }
}

fn duplicate(run: Run) -> Report {
    let mut report = run.report.unwrap_or_else(|| {
        let source = source_of(&run.source);
        let mut report = blank_report(&run.name, "", Some(run.run_id.clone()), source, run.started_at, run.started_at);
        report.job.clone_from(&run.job);
        report
    });
    report.outcome = Outcome::Duplicate;
    report
}

fn superseded(app: &App, import: &Import, source: &SourceObject, object: &ObjectVersion) -> Report {
    let now = app.env().clock.now();
    let source = Source {
        uri: object.location.to_string(),
        version_id: source.version_id.clone(),
        etag: source.etag.as_deref().map_or_else(|| object.etag.clone(), |etag| unquoted(etag).to_owned()),
        bytes: source.size.unwrap_or(object.size),
        ..Source::default()
    };
    let mut report = blank_report(&import.name, &import.hubspot, None, source, now, now);
    report.outcome = Outcome::Superseded;
    report.notes.push(
        "a newer version of this object was imported before, or has an event of its own; nothing was written"
            .to_owned(),
    );
    report
}

/// The object was deleted before it could be read.
async fn gone(app: &App, import: &Import, source: &SourceObject, error: Error) -> Result<Answer> {
    let now = app.env().clock.now();
    let id = run_id(now, &app.env().rng);
    let reported = Source {
        uri: Location::new(&source.bucket, &source.key).to_string(),
        version_id: source.version_id.clone(),
        etag: source.etag.as_deref().map(unquoted).unwrap_or_default().to_owned(),
        bytes: source.size.unwrap_or_default(),
        ..Source::default()
    };
    let mut report = blank_report(&import.name, &import.hubspot, Some(id.clone()), reported, now, now);
    report.outcome = Outcome::Failed;
    report.error = Some(ReportError::from(&error));
    store_report(app, &source.bucket, &report).await?;
    app.runs().remember(&report).await?;
    app.runs().note_end(&report);
    log_summary(&report);
    Ok(Answer::Report(Box::new(report)))
}

/// Takes the run's lease and works on it as far as this invocation goes.
async fn work(
    app: &App,
    import: Rc<Import>,
    run: &Run,
    deadline: Deadline,
    owner: &str,
    spent: Spent,
) -> Result<Answer> {
    let id = run.run_id.as_str();
    let (lease, run) = match app.runs().lease(id, owner, deadline).await? {
        Leased::Yes(lease, run) => (lease, run),
        Leased::Over(run) => {
            app.runs().close(id).await?;
            return Ok(Answer::Report(Box::new(duplicate(*run))));
        }
        Leased::Busy(run) => {
            let mut report = duplicate(*run);
            report.outcome = Outcome::Busy;
            report.account.clone_from(&import.hubspot);
            return Ok(Answer::Report(Box::new(report)));
        }
    };
    let account = import.hubspot.clone();
    let result = Box::pin(on_lease(app, &import, &lease, &run, deadline, spent)).await;
    match result {
        Ok(report) => Ok(Answer::Report(Box::new(report))),
        Err(error) if error.kind() == ErrorKind::Fenced => {
            tracing::warn!(run_id = id, "another invocation has taken the run over; this one stops");
            let mut report = duplicate(*run);
            report.outcome = Outcome::Busy;
            report.account = account;
            Ok(Answer::Report(Box::new(report)))
        }
        // What cannot even be taken up (its state is damaged, its account is gone) is not tried for ever.
        Err(error) if !is_passing(&error) && run.stalls > STALLS_MAX => {
            let now = app.env().clock.now();
            let mut report = blank_report(
                &run.name,
                &account,
                Some(run.run_id.clone()),
                source_of(&run.source),
                run.started_at,
                now,
            );
            report.job.clone_from(&run.job);
            report.error = Some(ReportError::from(&error));
            if let Err(error) = store_report(app, &run.source.bucket, &report).await {
                report.notes.push(format!("the report could not be stored in the bucket: {error}"));
            }
            app.runs().finish(&lease, &report).await?;
            log_summary(&report);
            Ok(Answer::Report(Box::new(report)))
        }
        Err(error) => Err(error),
    }
}

async fn on_lease(
    app: &App,
    import: &Rc<Import>,
    lease: &Lease,
    run: &Run,
    deadline: Deadline,
    spent: Spent,
) -> Result<Report> {
    let env = app.env().clone();
    let mut progress: Progress = if run.progress.is_empty() {
        Progress::default()
    } else {
        crate::state::runs::decode(&run.progress, &format!("run#{}", run.run_id))?
    };
    if mutate::on(Bug::CountsTwice) {
        let rows = progress.rows;
        progress.rows.read += rows.updated;
        progress.rows.updated += rows.updated;
    }
    let location = Location::new(&run.source.bucket, &run.source.key);
    let object = ObjectVersion {
        location: location.clone(),
        version_id: run.source.version_id.clone(),
        etag: run.source.etag.clone(),
        size: run.source.size,
    };
    let folder = state_folder(&run.source.bucket, &import.name, &run.run_id);
    let rejects = Log::open(env.objects.clone(), folder, "rejects", lease.fence, progress.rejects.clone()).await?;
    let earlier = (progress.calls, progress.table_writes, progress.object_requests);
    let account = app.account(&import.hubspot)?;
    let replay = match plan::replays(run) {
        true => Some(Rc::new(plan::header(&*env.objects, &object).await?)),
        false => None,
    };
    let baseline = Baseline {
        calls: job::calls_of(&account),
        table_writes: spent.table_writes,
        object_requests: spent.object_requests,
        earlier,
        earlier_gb_seconds: progress.gb_seconds,
        began: spent.elapsed,
    };
    let mut job = Job {
        env: env.clone(),
        runs: app.runs().clone(),
        account,
        import: import.clone(),
        lease: lease.clone(),
        object,
        started_at: run.started_at,
        deadline,
        progress: std::mem::take(&mut progress),
        rejects,
        ignored_columns: Vec::new(),
        delivered: None,
        plan: None,
        replay,
        baseline,
    };
    let end = match over(run, &job) {
        Some(end) => end,
        None => match older_stopped(app, &job, run.older.as_deref()).await {
            Ok(true) => Box::pin(job.work()).await?,
            Ok(false) => End::OlderGoesOn,
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => End::Failed(error),
        },
    };
    job.count_costs();
    conclude(app, job, run, end).await
}

/// Why nothing more is to be done for the run, where that is so.
fn over(run: &Run, job: &Job) -> Option<End> {
    let byte = job.progress.position.byte;
    let no_progress = |message| End::Failed(Error::new(ErrorKind::Corrupt, codes::NO_PROGRESS, message));
    if run.superseded {
        let message = format!("run {}: a newer version of the object has come", run.run_id);
        Some(End::Failed(Error::new(ErrorKind::Conflict, codes::SOURCE_CHANGED, message)))
    } else if run.stalls > STALLS_MAX {
        Some(no_progress(format!(
            "after {} invocations, {} of them in a row without progress, the run stands at byte {byte}",
            run.invocations - 1,
            run.stalls - 1,
        )))
    } else if run.invocations > INVOCATIONS_MAX {
        Some(no_progress(format!(
            "after {INVOCATIONS_MAX} invocations, more than any run needs, the run stands at byte {byte}"
        )))
    } else {
        None
    }
}

/// Waits until the runs of the object's older versions have stopped: what they have in flight must not land on top of ours. One whose
/// owner has died is ended here, with its report. Renews the lease meanwhile. Whether all have stopped before too much of the invocation's
/// time was gone.
async fn older_stopped(app: &App, job: &Job, older: Option<&str>) -> Result<bool> {
    let Some(older) = older.filter(|_| !mutate::on(Bug::OlderNotWaitedFor)) else { return Ok(true) };
    let clock = &job.env.clock;
    let patience = job.deadline.remaining(clock.now()) / 3;
    let began = clock.elapsed();
    loop {
        let open = job.runs.older_open(older).await?;
        let Some(oldest) = open.first() else { return Ok(true) };
        if clock.elapsed().saturating_sub(began) > patience.min(OLDER_RUN_PATIENCE) {
            return Ok(false);
        }
        if oldest.lease_expires_at > clock.now() {
            job.runs.renew(&job.lease, job.deadline).await?;
            clock.sleep(OLDER_RUN_LOOK).await;
        } else {
            let ending = end_older(app, job, oldest);
            job::held(&job.runs, &job.lease, &**clock, job.deadline, ending).await?;
        }
    }
}

/// Ends the run of an older version that nobody works on: its rejects are joined and its report is written, as of its last checkpoint.
async fn end_older(app: &App, newer: &Job, older: &Run) -> Result<()> {
    let owner = format!("{}/{}", newer.lease.run_id, newer.lease.fence);
    let (lease, run) = match app.runs().lease(&older.run_id, &owner, newer.deadline).await? {
        Leased::Yes(lease, run) => (lease, run),
        // Somebody else has taken it up.
        Leased::Busy(_) => return Ok(()),
        Leased::Over(_) => return app.runs().close(&older.run_id).await,
    };
    let import = app.config().imports.iter().find(|import| import.name == run.name).cloned();
    let import = import.unwrap_or_else(|| Import { name: run.name.clone(), ..Import::clone(&newer.import) });
    match Box::pin(on_lease(app, &Rc::new(import), &lease, &run, newer.deadline, Spent::so_far(app))).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Fenced => Ok(()),
        Err(error) if is_passing(&error) => Err(error),
        Err(error) => {
            tracing::warn!(run_id = run.run_id, error_code = %error.code(), "a superseded run ends without a report: {error}");
            app.runs().end_superseded(&run).await
        }
    }
}
