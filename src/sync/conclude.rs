//! The end of an invocation's work on a sync: report, position, context; or the run is handed over to the next invocation.

use bytes::{Bytes, BytesMut};

use super::{
    End,
    bulk::POLL_AFTER,
    data_of,
    progress::{Done, Progress},
    run::Job,
};
use crate::{
    app::App,
    codes,
    config::Sync,
    error::{Error, ErrorKind, Result},
    import::{hand_over, is_passing, log_summary, patiently_until, store_report},
    objects::Location,
    report::{Cost, Outcome, Position, Report, ReportError, Source},
    state::runs::Run,
};

/// Writes that follow a run's report: the lease is looked at, then position, context, run and open entry.
const WRITES_AT_THE_END: u64 = 5;

pub(super) fn blank_report(sync: &Sync, run: &Run, now: jiff::Timestamp) -> Report {
    let uri = format!("salesforce://{}/{}", sync.salesforce, sync.salesforce_object);
    let source = Source { uri, ..Source::default() };
    let id = Some(run.run_id.clone());
    let mut report = crate::import::blank_report(&sync.name, &sync.hubspot, id, source, run.started_at, now);
    "sync".clone_into(&mut report.job);
    report
}

/// Turns the end of an invocation's work into a report, and into what happens next.
pub(super) async fn conclude(app: &App, mut job: Job, run: &Run, end: End) -> Result<Report> {
    let env = app.env();
    let Some(lease) = job.lease.clone() else {
        return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "a run without a lease"));
    };
    let waiting = matches!(end, End::Waiting);
    let complete = matches!(end, End::Complete);
    let (outcome, failure) = match end {
        End::Complete if !job.progress.done.rows.add_up() => {
            let message = "records that were looked at and records that were accounted for differ";
            (Outcome::Failed, Some(Error::new(ErrorKind::Corrupt, codes::ACCOUNTING, message)))
        }
        End::Complete => (Outcome::Done, None),
        End::Deadline | End::Waiting => (Outcome::Yielded, None),
        End::Invalid(error) => (Outcome::Invalid, Some(error)),
        End::Aborted(error) => (Outcome::Aborted, Some(error)),
        End::Failed(error) => match error.kind() {
            // Salesforce counts over a rolling day: a later run has calls again, and begins where this one stopped.
            ErrorKind::DailyLimit if error.code() == codes::SALESFORCE_QUOTA => (Outcome::Failed, Some(error)),
            ErrorKind::Throttled { .. }
            | ErrorKind::DailyLimit
            | ErrorKind::Unavailable { .. }
            | ErrorKind::Unknown => (Outcome::Yielded, Some(error)),
            _ => (Outcome::Failed, Some(error)),
        },
    };
    // What was refused is told whatever the end is: the records are not looked at again unless they change.
    if let Err(error) = job.store_refused_lines().await {
        tracing::warn!(run_id = run.run_id, error = %error, "the list of what was refused could not be stored");
    }
    job.count_costs();
    if !outcome.is_final() {
        match patiently_until(env, job.deadline, async || job.save_costs().await).await {
            Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
            Err(error) => {
                tracing::warn!(run_id = run.run_id, error = %error, "calls of this invocation are not counted")
            }
            Ok(()) => {}
        }
    }
    let loaded = job.saved.is_some();
    let rejects = if outcome.is_final() { join_refused(&job).await? } else { None };
    job.progress.done.sync.review_open =
        job.open.values().filter(|review| review.version > 0 && review.choice.is_none()).count() as u64;
    let report = report_of(&job, run, outcome, failure.as_ref(), rejects, env.clock.now());
    patiently_until(env, job.deadline, async || app.runs().still_ours(&lease).await).await?;
    let bucket = data_of(app.config())?.bucket;
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
        if loaded && outcome != Outcome::Invalid {
            let carry = carry_of(&job, complete);
            let text = serde_json::to_string(&carry).map_err(|error| {
                Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "the position cannot be written")
                    .with_source(error)
            })?;
            let position = serde_json::to_string(&carry.position()).unwrap_or_default();
            let name = &job.sync.name;
            patiently_until(env, job.deadline, async || {
                app.runs().pass_on("sync", name, &lease, &position, &text).await
            })
            .await?;
        }
        patiently_until(env, job.deadline, async || app.runs().finish(&lease, &report).await).await?;
        remove_pieces(&job).await?;
    } else if waiting {
        // A Bulk job takes its time; waiting for it is not standing still.
        let until = env.clock.now().saturating_add(POLL_AFTER).ok();
        app.runs().release(&lease, until, false).await?;
        if let Some(queue) = &env.queue {
            let body = serde_json::json!({ "job": "resume", "run_id": lease.run_id }).to_string();
            let delay = u16::try_from(POLL_AFTER.as_secs()).unwrap_or(u16::MAX);
            if let Err(error) = queue.send(&body, delay).await {
                tracing::warn!(run_id = lease.run_id, error = %error, "the continuation could not be sent; the sweep will find the run");
            }
        }
    } else {
        hand_over(app, &job.account, &lease, run, failure.as_ref(), false).await?;
    }
    log_summary(&report);
    Ok(report)
}

/// What the next run begins with: the new position if the window is complete, the old one otherwise.
fn carry_of(job: &Job, complete: bool) -> Progress {
    let now = &job.progress;
    let mut carry = Progress {
        done: Done::default(),
        bulk: None,
        window: None,
        counting: None,
        deletes: Vec::new(),
        ..now.clone()
    };
    carry.phase = super::progress::Phase::Open;
    carry.only_reviews = false;
    if !complete {
        // Records that were looked at are in step; the window is opened again from where the last complete one ended.
        carry.bin_due = None;
    }
    carry
}

/// The list of what was refused, as one object; its pieces go.
async fn join_refused(job: &Job) -> Result<Option<String>> {
    let pieces = job.progress.done.refused_pieces;
    if pieces == 0 {
        return Ok(None);
    }
    let mut all = BytesMut::new();
    for piece in 1..=pieces {
        let location = job.refused_piece(piece)?;
        if let Some((bytes, _)) =
            patiently_until(&job.env, job.deadline, async || job.env.objects.get(&location).await).await?
        {
            all.extend_from_slice(&bytes);
        }
    }
    let at =
        Location::new(data_of(&job.config)?.bucket, format!("rejects/sync-{}/{}.jsonl", job.sync.name, job.run_id));
    let body: Bytes = all.freeze();
    patiently_until(&job.env, job.deadline, async || {
        job.env.objects.put(&at, body.clone(), "application/x-ndjson").await
    })
    .await?;
    Ok(Some(at.to_string()))
}

/// The pieces are of no use once the run is over, and not before: whoever concludes it anew joins them again.
async fn remove_pieces(job: &Job) -> Result<()> {
    for piece in 1..=job.progress.done.refused_pieces {
        let location = job.refused_piece(piece)?;
        if let Err(error) = job.env.objects.delete(&location).await {
            tracing::warn!(run_id = job.run_id, error = %error, "a working file could not be removed");
        }
    }
    Ok(())
}

fn report_of(
    job: &Job,
    run: &Run,
    outcome: Outcome,
    failure: Option<&Error>,
    rejects: Option<String>,
    now: jiff::Timestamp,
) -> Report {
    let done = &job.progress.done;
    let mut report = blank_report(&job.sync, run, now);
    report.outcome = outcome;
    report.rows = done.rows;
    report.rejected_by_code.clone_from(&done.refused);
    report.rejects = rejects;
    report.calls = done.calls;
    report.limit_use_percent = (done.calls_possible > 0.0 && done.calls.total > 0).then(|| {
        let counted = done.calls.total.saturating_sub(done.calls.search + done.calls.throttled);
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let share = counted as f64 / done.calls_possible;
        (share * 1_000.0).round().min(1_000.0) / 10.0
    });
    report.position = Position::Sync(job.progress.position());
    report.invocations = job.lease.as_ref().map_or(0, |lease| u64::try_from(lease.invocations).unwrap_or_default());
    report.cost = Cost {
        hubspot_calls: done.calls.total,
        lambda_gb_seconds: (done.gb_seconds * 1_000.0).round() / 1_000.0,
        dynamodb_writes: done.table_writes + if outcome.is_final() { WRITES_AT_THE_END } else { 1 },
        s3_requests: done.object_requests + 1,
    };
    report.error = failure.map(ReportError::from);
    report.notes.clone_from(&done.notes);
    let mut sync = done.sync.clone();
    sync.lag_seconds = job
        .progress
        .hubspot
        .map(|covered| u64::try_from(job.account.server_time().duration_since(covered).as_secs()).unwrap_or_default());
    let writes = [sync.hubspot, sync.salesforce];
    let quiet = writes.iter().all(|one| one.created + one.updated + one.deleted == 0);
    if outcome == Outcome::Done && quiet && sync.reviews_opened + sync.linked + sync.associations == 0 {
        report.notes.push("both sides are in step: there was nothing to do".to_owned());
    }
    report.sync = Some(sync);
    report
}
