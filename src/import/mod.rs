//! The import job: from an object in S3 to records in HubSpot.
//!
//! ```text
//! event ─► which import? ─► head ─► admit (one run per object version) ─► lease ─► read · map · batch · upsert · settle
//!       ─► checkpoint ─► … ─► rejects joined ─► report ─► context and run, or: yielded, and continued in another invocation
//! ```

pub mod batcher;
mod create;
mod deliver;
mod delivered;
mod flow;
pub mod index;
mod job;
pub mod ledger;
pub mod log;
pub mod progress;
mod rows;
mod source;

use std::{rc::Rc, time::Duration};

use bytes::Bytes;

use self::{
    index::Ending,
    job::{Baseline, End, Job},
    log::Log,
    progress::Progress,
    rows::Columns,
};
use crate::{
    app::{Answer, App, Env},
    clock::{Deadline, run_id},
    codes,
    config::{Format, Import, Mode},
    error::{Error, ErrorKind, Result},
    event::{SourceObject, normalised},
    hubspot::account::Account,
    objects::{Location, ObjectVersion},
    report::{Cost, Counts, FilePosition, Outcome, Report, ReportError, Source},
    state::runs::{Admission, INVOCATIONS_MAX, Lease, Leased, Run, RunSource, STALLS_MAX, version_of},
};

/// How soon a continuation is delivered: at once.
const CONTINUE_AT_ONCE: u16 = 0;

/// How long a run waits for that of the object's older version: longer than a lease, so that one that has died is not waited for.
const OLDER_RUN_PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks.
const OLDER_RUN_LOOK: Duration = Duration::from_millis(500);

/// Writes that follow a run's report: the lease is looked at, then context, run and open entry.
const WRITES_AT_THE_END: u64 = 4;

/// The doors' counters when an event was taken up.
#[derive(Clone, Copy)]
struct Spent {
    elapsed: Duration,
    table_writes: u64,
    object_requests: u64,
}

impl Spent {
    fn so_far(app: &App) -> Self {
        let env = app.env();
        Self { elapsed: env.clock.elapsed(), table_writes: env.table.writes(), object_requests: env.objects.requests() }
    }
}

/// Imports the object of an event.
pub async fn on_object(app: &App, source: &SourceObject, deadline: Deadline, owner: &str) -> Result<Answer> {
    let spent = Spent::so_far(app);
    let Some(import) = app.import_for(&source.key)? else {
        let message = format!("no import matches s3://{}/{}", source.bucket, source.key);
        tracing::info!(bucket = source.bucket, key = source.key, "{message}");
        return Ok(Answer::Nothing(message));
    };
    let import = Rc::new(import.clone());
    if import.format == Format::Opencdc {
        return Err(Error::invalid(
            codes::JOB_UNAVAILABLE,
            format!("import `{}` has format opencdc, which is not built yet", import.name),
        ));
    }
    let location = Location::new(&source.bucket, &source.key);
    let sequencer = source.sequencer.as_deref().map(normalised);

    // Known already? Then nothing else matters, not even whether the object is still there.
    if let Some(etag_or_version) = known_version(source)
        && let Some(run) = app.runs().of_version(&source.bucket, &source.key, &etag_or_version).await?
        && run.outcome.is_some()
        && !runs_again(&run, &import)
        // A later upload of the same contents, where the bucket keeps no versions, is looked at more closely.
        && sequencer.as_ref().zip(run.source.sequencer.as_ref()).is_none_or(|(ours, theirs)| ours <= theirs)
    {
        return Ok(Answer::Report(Box::new(duplicate(run))));
    }

    let head = async || app.env().objects.head(&location, source.version_id.as_deref()).await;
    let object = match patiently(app.env(), head).await {
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
    let settings = settings_of(&import);
    let admit = async || {
        let again = |run: &Run| runs_again(run, &import);
        app.runs().admit("import", &import.name, &run_source, &settings, &new_id, again).await
    };
    let admission = patiently(app.env(), admit).await?;
    match admission {
        Admission::Duplicate(run) => Ok(Answer::Report(Box::new(duplicate(*run)))),
        Admission::Superseded => Ok(Answer::Report(Box::new(superseded(app, &import, source, &object)))),
        Admission::Run(run) => Box::pin(work(app, import, &run, deadline, owner, spent)).await,
    }
}

/// Goes on with a run that was cut off.
pub async fn resume(app: &App, run: &Run, deadline: Deadline, owner: &str) -> Result<Answer> {
    let Some(import) = app.config().imports.iter().find(|import| import.name == run.name) else {
        return Err(Error::invalid(
            codes::NAME_UNKNOWN,
            format!(
                "run {} belongs to the import `{}`, which hubferry.yaml does not have any more",
                run.run_id, run.name
            ),
        ));
    };
    let spent = Spent::so_far(app);
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

/// Whether an event for a version whose run is over starts another one: only where the first came to nothing and things may
/// have changed since.
fn runs_again(run: &Run, import: &Import) -> bool {
    match run.outcome {
        Some(Outcome::Failed | Outcome::Invalid) => true,
        Some(Outcome::Aborted) => run.settings != settings_of(import),
        _ => false,
    }
}

fn duplicate(run: Run) -> Report {
    let mut report = run.report.unwrap_or_else(|| {
        blank_report(&run.name, "", Some(run.run_id.clone()), source_of(&run.source), run.started_at, run.started_at)
    });
    report.outcome = Outcome::Duplicate;
    report
}

fn source_of(source: &RunSource) -> Source {
    Source {
        uri: Location::new(&source.bucket, &source.key).to_string(),
        version_id: source.version_id.clone(),
        etag: source.etag.clone(),
        bytes: source.size,
        ..Source::default()
    }
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
    log_summary(&report);
    Ok(Answer::Report(Box::new(report)))
}

fn blank_report(
    name: &str,
    account: &str,
    run_id: Option<String>,
    source: Source,
    started_at: jiff::Timestamp,
    now: jiff::Timestamp,
) -> Report {
    Report {
        run_id,
        job: "import".to_owned(),
        name: name.to_owned(),
        outcome: Outcome::Failed,
        account: account.to_owned(),
        source,
        rows: Counts::default(),
        archived: None,
        records: Default::default(),
        rejected_by_code: Default::default(),
        rejects: None,
        ignored_columns: Vec::new(),
        calls: Default::default(),
        limit_use_percent: None,
        position: FilePosition::default(),
        invocations: 0,
        started_at,
        finished_at: now,
        duration_ms: u64::try_from(now.duration_since(started_at).as_millis()).unwrap_or_default(),
        cost: Cost::default(),
        error: None,
        notes: Vec::new(),
    }
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
            report.error = Some(ReportError::from(&error));
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
    let location = Location::new(&run.source.bucket, &run.source.key);
    let object = ObjectVersion {
        location: location.clone(),
        version_id: run.source.version_id.clone(),
        etag: run.source.etag.clone(),
        size: run.source.size,
    };
    let state_folder = Location::new(&run.source.bucket, format!("state/import/{}/{}/", import.name, run.run_id));
    let rejects =
        Log::open(env.objects.clone(), state_folder, "rejects", lease.fence, progress.rejects.clone()).await?;
    let earlier = (progress.calls, progress.table_writes, progress.object_requests);
    let account = app.account(&import.hubspot)?;
    let baseline = Baseline {
        calls: job::calls_of(&account),
        table_writes: spent.table_writes,
        object_requests: spent.object_requests,
        earlier,
        earlier_gb_seconds: progress.gb_seconds,
        began: spent.elapsed,
    };
    let end = if run.stalls > STALLS_MAX || run.invocations > INVOCATIONS_MAX {
        End::Failed(Error::new(
            ErrorKind::Corrupt,
            codes::NO_PROGRESS,
            format!(
                "after {} invocations, {} of them in a row without progress, the run stands at byte {}",
                run.invocations - 1,
                run.stalls - 1,
                progress.position.byte
            ),
        ))
    } else {
        End::Complete
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
        baseline,
    };
    let end = match end {
        End::Complete => match older_stopped(&job, run.older.as_deref()).await {
            Ok(true) => job.work().await?,
            Ok(false) => End::OlderGoesOn,
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => End::Failed(error),
        },
        stalled => stalled,
    };
    job.count_costs();
    conclude(app, job, run, end).await
}

/// Waits until the run of the object's older version has stopped: what it has in flight must not land on top of ours.
/// Renews the lease meanwhile. Whether it has stopped before too much of the invocation's time was gone.
async fn older_stopped(job: &Job, older: Option<&str>) -> Result<bool> {
    let Some(older) = older else { return Ok(true) };
    let clock = &job.env.clock;
    let patience = job.deadline.remaining(clock.now()) / 3;
    let began = clock.elapsed();
    while job.runs.still_works(older).await? {
        if clock.elapsed().saturating_sub(began) > patience.min(OLDER_RUN_PATIENCE) {
            return Ok(false);
        }
        job.runs.renew(&job.lease, job.deadline).await?;
        clock.sleep(OLDER_RUN_LOOK).await;
    }
    Ok(true)
}

/// Turns the end of an invocation's work into a report, and into what happens next.
async fn conclude(app: &App, mut job: Job, run: &Run, end: End) -> Result<Report> {
    let env = app.env();
    let now = env.clock.now();
    let not_mirrored = matches!(end, End::NotMirrored(_));
    let waits = matches!(end, End::OlderGoesOn);
    let nothing_written = matches!(end, End::Invalid(_));
    let (mut outcome, mut failure) = match end {
        End::Complete | End::NotMirrored(_) if !job.progress.rows.add_up() => {
            let error = Error::new(ErrorKind::Corrupt, codes::ACCOUNTING, "read rows and accounted-for rows differ");
            (Outcome::Failed, Some(error))
        }
        End::Complete | End::NotMirrored(_) if job.progress.rows.deferred > 0 => {
            let message = format!("HubSpot gave no verdict on {} rows", job.progress.rows.deferred);
            (Outcome::Failed, Some(Error::new(ErrorKind::Unknown, codes::ROWS_DEFERRED, message)))
        }
        End::Complete | End::NotMirrored(None) => (Outcome::Done, None),
        End::NotMirrored(Some((missing, known))) => {
            let message = format!(
                "the file lacks {missing} of the {known} records that were delivered before; no record was archived"
            );
            (Outcome::Aborted, Some(Error::invalid(codes::MIRROR_BRAKE, message)))
        }
        End::Deadline | End::OlderGoesOn => (Outcome::Yielded, None),
        End::Aborted => {
            let rows = job.progress.rows;
            let message = format!("{} of {} rows were rejected", rows.rejected, rows.read);
            (Outcome::Aborted, Some(Error::invalid(codes::ABORT_IF_REJECTED, message)))
        }
        End::Invalid(error) => (Outcome::Invalid, Some(error)),
        End::Failed(error) => match error.kind() {
            ErrorKind::Conflict => (Outcome::Superseded, Some(error)),
            // The next invocation may find it mended; a run that never gets on fails after a few (`stalls`).
            ErrorKind::Throttled { .. }
            | ErrorKind::DailyLimit
            | ErrorKind::Unavailable { .. }
            | ErrorKind::Unknown => (Outcome::Yielded, Some(error)),
            _ => (Outcome::Failed, Some(error)),
        },
    };
    let source_bucket = run.source.bucket.clone();
    let columns = job.progress.file.as_ref().map(|file| match file.dialect {
        Some(_) => Columns::csv(&file.columns),
        None => Columns::json(&file.columns),
    });
    let (ending, media_type) = columns.as_ref().map_or(("csv", "text/csv"), Columns::rejects_kind);
    let rejects_at = Location::new(&source_bucket, format!("rejects/{}/{}.{ending}", job.import.name, run.run_id));
    let any_rejects = !job.rejects.is_empty();
    let mut rejects_lost = false;
    if outcome.is_final() && any_rejects {
        let head = columns.as_ref().map(Columns::rejects_head).unwrap_or_default();
        let joining = patiently(env, async || job.rejects.join(&rejects_at, &head, media_type).await);
        let joined = job::held(&job.runs, &job.lease, &*env.clock, job.deadline, joining).await;
        if let Err(error) = joined {
            if is_passing(&error) || error.kind() == ErrorKind::Fenced {
                return Err(error);
            }
            // Refused for good: the run must end all the same, and say so.
            rejects_lost = true;
            outcome = Outcome::Failed;
            failure = Some(error.context("writing the rejects"));
        }
    }
    if outcome.is_final() {
        let all_rows = job.progress.rows.add_up() && matches!(outcome, Outcome::Done | Outcome::Aborted);
        job.end_index(match outcome {
            _ if nothing_written => None,
            Outcome::Done if !not_mirrored => Some(Ending::Delivered),
            _ if not_mirrored && all_rows => Some(Ending::NotArchived),
            _ => Some(Ending::CutShort),
        })
        .await;
    }
    job.count_costs();
    let progress = &job.progress;
    let mut source = source_of(&run.source);
    if let Some(file) = &progress.file {
        source.dialect = file.dialect.as_ref().and_then(|dialect| serde_json::to_value(dialect).ok());
        source.compression =
            serde_json::to_value(file.compression).ok().and_then(|name| name.as_str().map(str::to_owned));
    }
    let mut report =
        blank_report(&job.import.name, &job.import.hubspot, Some(run.run_id.clone()), source, run.started_at, now);
    report.outcome = outcome;
    report.rows = progress.rows;
    report.records.clone_from(&progress.records);
    report.rejected_by_code.clone_from(&progress.rejected_by_code);
    report.rejects = (outcome.is_final() && any_rejects && !rejects_lost).then(|| rejects_at.to_string());
    report.ignored_columns.clone_from(&job.ignored_columns);
    report.calls = progress.calls;
    report.archived = (job.import.mode == Mode::Mirror).then_some(progress.archived);
    report.notes.clone_from(&progress.notes);
    report.limit_use_percent = progress.limit_use_percent();
    report.position = progress.position;
    report.invocations = u64::try_from(job.lease.invocations).unwrap_or_default();
    let gb_seconds = (progress.gb_seconds * 1_000.0).round() / 1_000.0;
    report.cost = Cost {
        hubspot_calls: progress.calls.total,
        lambda_gb_seconds: gb_seconds,
        dynamodb_writes: progress.table_writes + if outcome.is_final() { WRITES_AT_THE_END } else { 1 },
        // The report itself.
        s3_requests: progress.object_requests + 1,
    };
    report.error = failure.as_ref().map(ReportError::from);
    if outcome == Outcome::Done && report.rows.read == 0 {
        report.notes.push("the file holds no rows: there was nothing to do".to_owned());
    }

    // Still ours? The report's object has no fence of its own.
    patiently(env, async || app.runs().still_ours(&job.lease).await).await?;
    match patiently(env, async || store_report(app, &source_bucket, &report).await).await {
        Err(error) if is_passing(&error) => return Err(error),
        Err(error) => {
            tracing::error!(run_id = run.run_id, error_code = %error.code(), "the report cannot be stored: {error}");
            report.notes.push(format!("the report could not be stored in the bucket: {error}"));
        }
        Ok(()) => {}
    }
    if outcome.is_final() {
        patiently(env, async || app.runs().finish(&job.lease, &report).await).await?;
        // Nothing points to the chunks any more; should this fail, a lifecycle rule removes them.
        let removed = async {
            job.rejects.remove().await?;
            match &job.delivered {
                Some(delivered) => delivered.log.remove().await,
                None => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            tracing::warn!(run_id = run.run_id, error = %error, "working files could not be removed");
        }
    } else {
        if waits {
            // Not for ever: the other run's lease ends, or it does.
            app.runs().release(&job.lease, None, false).await?;
        }
        hand_over(app, &job.account, &job.lease, run, failure.as_ref()).await?;
    }
    log_summary(&report);
    Ok(report)
}

/// Repeats what failed for a passing reason, for about half a lease: what follows the work must not be lost to a hiccup of S3 or DynamoDB.
/// Everything it is used for is safe to repeat.
async fn patiently<T>(env: &Env, attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut wait = Duration::from_millis(500);
    loop {
        match attempt().await {
            Err(error) if is_passing(&error) && wait <= Duration::from_secs(8) => {
                tracing::warn!(error = %error, "repeating");
                env.clock.sleep(env.rng.jitter(wait)).await;
                wait *= 2;
            }
            result => return result,
        }
    }
}

/// Whether waiting may help.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Throttled { .. } | ErrorKind::Unavailable { .. } | ErrorKind::Unknown)
}

/// How long a run waits after each invocation in a row that failed for a passing reason; the last one for all further ones.
const BACK_OFF_SECONDS: [u16; 5] = [60, 120, 300, 900, 900];

/// What HubSpot asks to wait is waited without counting as standing still, from so much on.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// Gives the run to the next invocation: the lease back, and a message to ourselves.
async fn hand_over(app: &App, account: &Account, lease: &Lease, run: &Run, error: Option<&Error>) -> Result<()> {
    let now = app.env().clock.now();
    let after = |wait: Duration| now.saturating_add(wait).unwrap_or(jiff::Timestamp::MAX);
    let step = usize::try_from(run.stalls - 1).unwrap_or(0).min(BACK_OFF_SECONDS.len() - 1);
    let back_off = BACK_OFF_SECONDS.get(step).copied().unwrap_or(900);
    let (not_before, standing, delay) =
        match error.map(Error::kind) {
            None => (None, true, Some(CONTINUE_AT_ONCE)),
            // The account's midnight: the sweep finds the run then.
            Some(ErrorKind::DailyLimit) => (Some(account.day_ends()), false, None),
            Some(
                ErrorKind::Throttled { retry_after: Some(wait) } | ErrorKind::Unavailable { retry_after: Some(wait) },
            ) if wait > LONG_WAIT => (Some(after(wait)), false, None),
            Some(_) => (Some(after(Duration::from_secs(back_off.into()))), true, Some(back_off)),
        };
    app.runs().release(lease, not_before, standing).await?;
    let (Some(queue), Some(delay)) = (&app.env().queue, delay) else { return Ok(()) };
    let body = serde_json::json!({ "job": "resume", "run_id": lease.run_id }).to_string();
    if let Err(error) = queue.send(&body, delay).await {
        tracing::warn!(run_id = lease.run_id, error = %error, "the continuation could not be sent; the sweep will find the run");
    }
    Ok(())
}

async fn store_report(app: &App, bucket: &str, report: &Report) -> Result<()> {
    let id = report.run_id.as_deref().unwrap_or("none");
    let location = Location::new(bucket, format!("reports/{}/{}/{id}.json", report.job, report.name));
    let body = serde_json::to_vec_pretty(report).map_err(|error| {
        Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "the report cannot be written as JSON").with_source(error)
    })?;
    app.env().objects.put(&location, Bytes::from(body), "application/json").await
}

/// One line that says how the run ended: the same numbers as the report.
fn log_summary(report: &Report) {
    let rows = &report.rows;
    let error_code = report.error.as_ref().map(|error| error.code.as_str());
    let run_id = report.run_id.as_deref();
    let outcome = report.outcome.as_str();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                run_id,
                job = report.job,
                name = report.name,
                outcome,
                error_code,
                rows_read = rows.read,
                rows_created = rows.created,
                rows_updated = rows.updated,
                rows_unchanged = rows.unchanged,
                rows_merged = rows.merged,
                rows_rejected = rows.rejected,
                rows_deferred = rows.deferred,
                calls = report.calls.total,
                calls_throttled = report.calls.throttled,
                duration_ms = report.duration_ms,
                invocations = report.invocations,
                "run {outcome}"
            )
        };
    }
    match report.outcome {
        Outcome::Failed | Outcome::Invalid | Outcome::Aborted => line!(error),
        Outcome::Yielded if error_code.is_some() => line!(warn),
        _ => line!(info),
    }
}
