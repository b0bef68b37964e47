//! The end of an invocation's work on a capture: what is known is stored, manifest and report are written, the position is passed on and the
//! run closed; or the run is handed over to the next invocation.

use bytes::Bytes;
use serde::Serialize;

use super::{
    End,
    job::{Job, place},
    known::Delta,
    progress::{ChangeCounts, Done, Phase, Progress},
};
use crate::{
    app::App,
    codes,
    config::Capture,
    error::{Error, ErrorKind, Result},
    import::{hand_over, held, is_passing, log::LogState, log_summary, patiently_until, store_report},
    objects::Location,
    report::{CaptureReport, Cost, Counts, Outcome, Report, ReportError, Source},
    state::runs::Run,
};

/// Writes that follow a run's report: the lease is looked at, then position, context, run and open entry.
const WRITES_AT_THE_END: u64 = 5;

/// Without a trailing pass, what was emitted is remembered so long (milliseconds): a record is created once.
const MEMORY_MS: i64 = 10 * 60 * 1_000;

/// What a run wrote.
#[derive(Serialize)]
struct Manifest<'a> {
    run_id: &'a str,
    name: &'a str,
    account: &'a str,
    collection: &'a str,
    format: crate::config::CaptureFormat,
    compression: crate::config::Compression,
    /// Changes when the columns or their types do.
    columns: String,
    position: super::position::Position,
    changes: ChangeCounts,
    objects: Vec<ManifestObject>,
}

#[derive(Serialize)]
struct ManifestObject {
    key: String,
    records: u64,
    bytes: u64,
}

pub(super) fn blank_report(capture: &Capture, run: &Run, now: jiff::Timestamp) -> Report {
    let source = Source { uri: format!("hubspot://{}/{}", capture.hubspot, capture.resource), ..Source::default() };
    let id = Some(run.run_id.clone());
    let mut report = crate::import::blank_report(&capture.name, &capture.hubspot, id, source, run.started_at, now);
    "capture".clone_into(&mut report.job);
    report
}

/// Turns the end of an invocation's work into a report, and into what happens next.
pub(super) async fn conclude(app: &App, mut job: Job, run: &Run, end: End) -> Result<Report> {
    let env = app.env();
    let complete = matches!(end, End::Complete | End::TooSoon);
    let too_soon = matches!(end, End::TooSoon);
    let (outcome, failure) = match end {
        End::Complete | End::TooSoon if !job.progress.done.changes.add_up() => {
            let message = "records that HubSpot showed and records that were accounted for differ";
            (Outcome::Failed, Some(Error::new(ErrorKind::Corrupt, codes::ACCOUNTING, message)))
        }
        End::Complete | End::TooSoon => (Outcome::Done, None),
        End::Deadline => (Outcome::Yielded, None),
        End::Invalid(error) => (Outcome::Invalid, Some(error)),
        End::Failed(error) => match error.kind() {
            ErrorKind::Throttled { .. }
            | ErrorKind::DailyLimit
            | ErrorKind::Unavailable { .. }
            | ErrorKind::Unknown => (Outcome::Yielded, Some(error)),
            _ => (Outcome::Failed, Some(error)),
        },
    };
    // What an invocation that was cut short has in memory is ahead of what is durable.
    if (failure.is_some() || outcome == Outcome::Yielded)
        && let Some(saved) = &job.saved
    {
        let done = std::mem::take(&mut job.progress.done);
        job.progress = saved.clone();
        job.progress.done.notes = done.notes;
        job.forget_unsaved().await?;
    }
    job.count_costs();
    let loaded = job.saved.is_some();
    if !outcome.is_final() && loaded {
        // What was spent on work that could not be saved, and is done anew, was spent all the same.
        match patiently_until(env, job.deadline, async || job.save_costs().await).await {
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => {
                tracing::warn!(run_id = run.run_id, error = %error, "calls of this invocation are not counted");
            }
            Ok(()) => {}
        }
    }
    let old_base = job.progress.base.clone();
    let mut manifest = None;
    if outcome.is_final() && loaded {
        let (runs, lease) = (job.runs.clone(), job.lease.clone());
        let (clock, deadline) = (env.clock.clone(), job.deadline);
        let ending = Box::pin(end_run(&mut job, complete));
        manifest = held(&runs, &lease, &*clock, deadline, ending).await?;
    }
    let report = report_of(&job, run, outcome, failure.as_ref(), manifest, too_soon, env.clock.now());
    patiently_until(env, job.deadline, async || app.runs().still_ours(&job.lease).await).await?;
    let bucket = job.output.bucket.clone();
    let report = match patiently_until(env, job.deadline, async || store_report(app, &bucket, &report).await).await {
        Err(error) if is_passing(&error) => return Err(error),
        Err(error) => {
            tracing::error!(run_id = run.run_id, error_code = %error.code(), "the report cannot be stored: {error}");
            let mut report = report;
            report.notes.push(format!("the report could not be stored in the bucket: {error}"));
            report
        }
        Ok(()) => report,
    };
    if outcome.is_final() {
        if loaded {
            let carry = Progress { done: Done::default(), ..job.progress.clone() };
            let carry = serde_json::to_string(&carry).map_err(|error| {
                Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "the position cannot be written")
                    .with_source(error)
            })?;
            let position = job.progress.position().json();
            let name = &job.capture.name;
            patiently_until(env, job.deadline, async || {
                app.runs().pass_on("capture", name, &job.lease, &position, &carry).await
            })
            .await?;
        }
        patiently_until(env, job.deadline, async || app.runs().finish(&job.lease, &report).await).await?;
        if loaded && let Err(error) = tidy(&job, old_base.as_deref()).await {
            tracing::warn!(run_id = run.run_id, error = %error, "working files could not be removed");
        }
    } else {
        hand_over(app, &job.account, &job.lease, run, failure.as_ref(), false).await?;
    }
    log_summary(&report);
    Ok(report)
}

/// Writes the manifest, and what is known where the window is complete. A repeat after a crash writes the same again.
async fn end_run(job: &mut Job, complete: bool) -> Result<Option<String>> {
    let mut objects = Vec::new();
    if let Some(log) = &job.log {
        log.for_each_chunk(async |chunk| {
            Delta::read_all(chunk, |delta| {
                if let Delta::Object(key, records, bytes) = delta {
                    objects.push(ManifestObject { key, records, bytes });
                }
            })
        })
        .await?;
    }
    // What a run that failed had written stays in the log: the manifest of that run lists it, or, where it could not, this one.
    objects.drain(..objects.len().min(job.progress.listed));
    let mut changes = std::mem::take(&mut job.progress.unlisted);
    changes += job.progress.done.changes;
    let mut uri = None;
    if objects.is_empty() || job.layout.is_none() {
        job.progress.unlisted = if changes.emitted() > 0 { changes } else { ChangeCounts::default() };
    } else if let Some(layout) = &job.layout {
        job.progress.listed += objects.len();
        let at = Location::new(&job.output.bucket, format!("manifests/{}/{}.json", job.capture.name, job.run_id));
        let manifest = Manifest {
            run_id: &job.run_id,
            name: &job.capture.name,
            account: &job.capture.hubspot,
            collection: &layout.collection,
            format: layout.format,
            compression: layout.compression,
            columns: layout.columns.fingerprint(),
            position: job.progress.position(),
            changes,
            objects,
        };
        let body = serde_json::to_vec_pretty(&manifest).map_err(|error| {
            Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "the manifest cannot be written").with_source(error)
        })?;
        let body = Bytes::from(body);
        patiently_until(&job.env, job.deadline, async || {
            job.env.objects.put(&at, body.clone(), "application/json").await
        })
        .await?;
        uri = Some(at.to_string());
    }
    if complete && job.progress.phase == Phase::Open {
        let covered = job.progress.covered.or(job.progress.initial).unwrap_or_default().as_millisecond();
        let trailing = job.progress.trailing.map_or(covered, jiff::Timestamp::as_millisecond);
        job.known.forget_before(trailing.min(covered - MEMORY_MS));
        let learned = job.log.as_ref().is_some_and(|log| !log.is_empty());
        if learned {
            let at = Location::new(&job.output.bucket, format!("{}{}.known", job.state_folder(), job.run_id));
            let stored = Bytes::from(job.known.store()?);
            patiently_until(&job.env, job.deadline, async || {
                job.env.objects.put(&at, stored.clone(), "application/octet-stream").await
            })
            .await?;
            job.progress.base = Some(at.to_string());
            job.progress.log = LogState::default();
            job.progress.listed = 0;
            job.progress.log_in = String::new();
        }
    }
    Ok(uri)
}

/// Removes what this run has replaced: nothing else, as the next run may be at work already.
async fn tidy(job: &Job, old_base: Option<&str>) -> Result<()> {
    if let Some(old) = old_base
        && job.progress.base.as_deref() != Some(old)
    {
        job.env.objects.delete(&place(old)?).await?;
    }
    match &job.log {
        Some(log) if job.progress.log_in.is_empty() => log.remove().await,
        _ => Ok(()),
    }
}

fn report_of(
    job: &Job,
    run: &Run,
    outcome: Outcome,
    failure: Option<&Error>,
    manifest: Option<String>,
    too_soon: bool,
    now: jiff::Timestamp,
) -> Report {
    let progress = &job.progress;
    let done = &progress.done;
    let changes = done.changes;
    let mut report = blank_report(&job.capture, run, now);
    report.outcome = outcome;
    // The accounting of every job: what HubSpot showed, by what became of it.
    report.rows = Counts {
        read: changes.seen,
        created: changes.snapshot + changes.create,
        updated: changes.update + changes.delete,
        unchanged: changes.repeated + changes.gone,
        ..Counts::default()
    };
    report.calls = done.calls;
    report.limit_use_percent = (done.calls_possible > 0.0 && done.calls.total > 0).then(|| {
        let counted = done.calls.total.saturating_sub(done.calls.search + done.calls.throttled);
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let share = counted as f64 / done.calls_possible;
        (share * 1_000.0).round().min(1_000.0) / 10.0
    });
    report.position = crate::report::Position::Capture(progress.position());
    report.invocations = u64::try_from(job.lease.invocations).unwrap_or_default();
    report.cost = Cost {
        hubspot_calls: done.calls.total,
        lambda_gb_seconds: (done.gb_seconds * 1_000.0).round() / 1_000.0,
        dynamodb_writes: done.table_writes + if outcome.is_final() { WRITES_AT_THE_END } else { 1 },
        s3_requests: done.object_requests + 1,
    };
    report.error = failure.map(ReportError::from);
    report.notes.clone_from(&done.notes);
    let lag = progress
        .covered
        .filter(|_| !matches!(progress.phase, Phase::Snapshot(_)))
        .map(|covered| u64::try_from(job.account.server_time().duration_since(covered).as_secs()).unwrap_or_default());
    report.capture = Some(CaptureReport {
        collection: job.resource.collection().to_owned(),
        output: job.output.to_string(),
        changes,
        objects: done.objects,
        bytes: done.bytes,
        manifest,
        lag_seconds: lag,
    });
    if too_soon && changes.emitted() == 0 {
        report
            .notes
            .push("HubSpot's clock has not moved past the lag since the last run: there was nothing to do".to_owned());
    } else if outcome == Outcome::Done && changes.emitted() == 0 {
        report.notes.push("nothing has changed: there was nothing to write".to_owned());
    }
    report
}
