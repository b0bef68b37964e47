//! The end of an invocation's work on an import: rejects joined, report stored, context and run closed; or the run handed over to the next
//! invocation.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::{
    index::Ending,
    job::{self, End, Job},
    rows::Columns,
};
use crate::{
    app::{App, Env},
    clock::Deadline,
    codes,
    config::{Format, Mode},
    error::{Error, ErrorKind, Result},
    hubspot::account::Account,
    mutate::{self, Bug},
    objects::Location,
    report::{Cost, Counts, FilePosition, Outcome, Pace, Report, ReportError, Source},
    state::runs::{Lease, Run, RunSource, STALLS_MAX},
};

/// How soon a continuation is delivered: at once.
const CONTINUE_AT_ONCE: u16 = 0;

/// Writes that follow a run's report: the lease is looked at, then context, run and open entry.
const WRITES_AT_THE_END: u64 = 4;

pub(crate) fn blank_report(
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
        dropped_properties: Default::default(),
        calls: Default::default(),
        limit_use_percent: None,
        position: FilePosition::default().into(),
        capture: None,
        sync: None,
        preflight: None,
        pace: None,
        invocations: 0,
        started_at,
        // As precise as the start, which is stored in milliseconds.
        finished_at: jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now),
        duration_ms: u64::try_from(now.duration_since(started_at).as_millis()).unwrap_or_default(),
        cost: Cost::default(),
        error: None,
        notes: Vec::new(),
    }
}

pub(super) fn source_of(source: &RunSource) -> Source {
    Source {
        uri: Location::new(&source.bucket, &source.key).to_string(),
        version_id: source.version_id.clone(),
        etag: source.etag.clone(),
        bytes: source.size,
        ..Source::default()
    }
}

/// Turns the end of an invocation's work into a report, and into what happens next.
pub(super) async fn conclude(app: &App, mut job: Job, run: &Run, end: End) -> Result<Report> {
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
        let joining =
            patiently_until(env, job.deadline, async || job.rejects.join(&rejects_at, &head, media_type).await);
        match in_time(&job, joining).await {
            Ok(Some(())) => {}
            // Another invocation has more time for it. What did not fit into several whole ones never will.
            Ok(None) if run.stalls <= STALLS_MAX => (outcome, failure) = (Outcome::Yielded, None),
            Ok(None) => {
                rejects_lost = true;
                outcome = Outcome::Failed;
                let message = "the rejects are too many to be joined in one invocation's time";
                failure.get_or_insert_with(|| Error::new(ErrorKind::Corrupt, codes::NO_PROGRESS, message));
            }
            Err(error) if is_passing(&error) || error.kind() == ErrorKind::Fenced => return Err(error),
            // Refused for good: the run must end all the same, and say so.
            Err(error) => {
                rejects_lost = true;
                outcome = Outcome::Failed;
                failure = Some(error.context("writing the rejects"));
            }
        }
        if rejects_lost {
            job.note(format!("the rejects are left in pieces: {}rejects-*", job.state_folder()));
        }
    }
    if outcome.is_final() {
        let all_rows = job.progress.rows.add_up() && matches!(outcome, Outcome::Done | Outcome::Aborted);
        let ending = match outcome {
            _ if nothing_written => None,
            Outcome::Done if !not_mirrored => Some(Ending::Delivered),
            _ if not_mirrored && all_rows => Some(Ending::NotArchived),
            _ => Some(Ending::CutShort),
        };
        // One more invocation is worth the index, no more.
        if !job.end_index(ending, run.stalls <= 1).await? {
            (outcome, failure) = (Outcome::Yielded, None);
        }
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
    report.job.clone_from(&run.job);
    report.outcome = outcome;
    report.rows = progress.rows;
    report.records.clone_from(&progress.records);
    report.rejected_by_code.clone_from(&progress.rejected_by_code);
    report.rejects = (outcome.is_final() && any_rejects && !rejects_lost).then(|| rejects_at.to_string());
    report.ignored_columns.clone_from(&job.ignored_columns);
    report.calls = progress.calls;
    let counts_archived = job.import.mode == Mode::Mirror || job.import.format == Format::Opencdc;
    report.archived = counts_archived.then_some(progress.archived);
    report.dropped_properties.clone_from(&progress.dropped_properties);
    report.notes.clone_from(&progress.notes);
    report.limit_use_percent = progress.limit_use_percent();
    report.preflight.clone_from(&progress.preflight.found);
    report.pace = Some(progress.pace.clone()).filter(Pace::is_curve);
    report.position = progress.position.into();
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
    patiently_until(env, job.deadline, async || app.runs().still_ours(&job.lease).await).await?;
    match patiently_until(env, job.deadline, async || store_report(app, &source_bucket, &report).await).await {
        Err(error) if is_passing(&error) => return Err(error),
        Err(error) => {
            tracing::error!(run_id = run.run_id, error_code = %error.code(), "the report cannot be stored: {error}");
            report.notes.push(format!("the report could not be stored in the bucket: {error}"));
        }
        Ok(()) => {}
    }
    if outcome.is_final() {
        patiently_until(env, job.deadline, async || app.runs().finish(&job.lease, &report).await).await?;
        // Nothing points to the chunks any more; should this fail, a lifecycle rule removes them.
        let removed = async {
            if !rejects_lost {
                job.rejects.remove().await?;
            }
            match &job.delivered {
                Some(delivered) => delivered.log.remove().await,
                None => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            tracing::warn!(run_id = run.run_id, error = %error, "working files could not be removed");
        }
    } else {
        hand_over(app, &job.account, &job.lease, run, failure.as_ref(), waits).await?;
    }
    log_summary(&report);
    Ok(report)
}

/// What is left of an invocation for the report and the run's last writes, at most.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// Renews the lease while something goes on whose length depends on the file, and gives it up before the invocation ends. `None` where it
/// was given up.
pub(super) async fn in_time<T>(job: &Job, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let clock = &job.env.clock;
    let left = job.deadline.remaining(clock.now());
    let time_out = clock.sleep(left.saturating_sub(LAST_WRITES).max(left / 2));
    let work = pin!(job::held(&job.runs, &job.lease, &**clock, job.deadline, work));
    match select(work, time_out).await {
        Either::Left((done, _)) => done.map(Some),
        Either::Right(((), _)) => Ok(None),
    }
}

/// Repeats what failed for a passing reason, for about half a lease: what follows the work must not be lost to a hiccup of S3 or DynamoDB. But
/// no longer than there is time for another try: several of these in a row would else outlast an invocation, which would then end without
/// an answer. Everything it is used for is safe to repeat.
pub(crate) async fn patiently_until<T>(
    env: &Env,
    deadline: Deadline,
    attempt: impl AsyncFn() -> Result<T>,
) -> Result<T> {
    let mut wait = Duration::from_millis(500);
    loop {
        match attempt().await {
            Err(error)
                if is_passing(&error)
                    && wait <= Duration::from_secs(8)
                    && deadline.allows(env.clock.now(), wait + LAST_TRY) =>
            {
                tracing::warn!(error = %error, "repeating");
                env.clock.sleep(env.rng.jitter(wait)).await;
                wait *= 2;
            }
            result => return result,
        }
    }
}

/// What must be left of an invocation for a try after a wait.
const LAST_TRY: Duration = Duration::from_secs(1);

/// Whether waiting may help.
pub(crate) fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Throttled { .. } | ErrorKind::Unavailable { .. } | ErrorKind::Unknown)
}

/// How long a run waits after each invocation in a row that failed for a passing reason; the last one for all further ones.
const BACK_OFF_SECONDS: [u16; 5] = [60, 120, 300, 900, 900];

/// What HubSpot asks to wait is waited without counting as standing still, from so much on.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// Gives the run to the next invocation: the lease back, and a message to ourselves. `waits` says that it waited for the run of an older
/// version, which is not standing still: that run ends, or its lease does.
pub(crate) async fn hand_over(
    app: &App,
    account: &Account,
    lease: &Lease,
    run: &Run,
    error: Option<&Error>,
    waits: bool,
) -> Result<()> {
    let now = app.env().clock.now();
    let after = |wait: Duration| now.saturating_add(wait).unwrap_or(jiff::Timestamp::MAX);
    let step = usize::try_from(run.stalls - 1).unwrap_or(0).min(BACK_OFF_SECONDS.len() - 1);
    let back_off = BACK_OFF_SECONDS.get(step).copied().unwrap_or(900);
    let (not_before, standing, delay) =
        match error.map(Error::kind) {
            None => (None, !waits, Some(CONTINUE_AT_ONCE)),
            // The account's midnight: the sweep finds the run then.
            Some(ErrorKind::DailyLimit) => (Some(account.day_ends()), false, None),
            Some(
                ErrorKind::Throttled { retry_after: Some(wait) } | ErrorKind::Unavailable { retry_after: Some(wait) },
            ) if wait > LONG_WAIT => (Some(after(wait)), false, None),
            Some(_) => (Some(after(Duration::from_secs(back_off.into()))), true, Some(back_off)),
        };
    app.runs().release(lease, not_before, standing).await?;
    if mutate::on(Bug::ContinuationNotSent) {
        return Ok(());
    }
    let (Some(queue), Some(delay)) = (&app.env().queue, delay) else { return Ok(()) };
    let body = serde_json::json!({ "job": "resume", "run_id": lease.run_id }).to_string();
    if let Err(error) = queue.send(&body, delay).await {
        tracing::warn!(run_id = lease.run_id, error = %error, "the continuation could not be sent; the sweep will find the run");
    }
    Ok(())
}

pub(crate) async fn store_report(app: &App, bucket: &str, report: &Report) -> Result<()> {
    let id = report.run_id.as_deref().unwrap_or("none");
    let location = Location::new(bucket, format!("reports/{}/{}/{id}.json", report.job, report.name));
    let body = serde_json::to_vec_pretty(report).map_err(|error| {
        Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "the report cannot be written as JSON").with_source(error)
    })?;
    app.env().objects.put(&location, Bytes::from(body), "application/json").await
}

/// One line that says how the run ended: the same numbers as the report.
pub(crate) fn log_summary(report: &Report) {
    let rows = &report.rows;
    let error_code = report.error.as_ref().map(|error| error.code.as_str());
    // A run that yields stores no report: the log is where its trouble is read.
    let error = report.error.as_ref().map(|error| error.message.as_str());
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
                error,
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
