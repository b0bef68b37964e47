//! Many records for Salesforce at once: Bulk jobs, which take their time and are never waited for.
//!
//! ```text
//! intents and creations noted ─► jobs made, saved ─► uploaded, saved ─► the run yields ─► polled, in later invocations
//!   ─► over: the same records are looked at as any others
//! ```
//!
//! Nothing is believed of what a job says about its rows: whatever it wrote shows in the records, and what it did not write is written, or
//! refused with its reason, by the ordinary way.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    create::noted,
    decide,
    model::{Canon, Side, Todo, TodoWhy},
    pair::{Candidate, Creation, Source, Work},
    progress::Phase,
    records::sight_hubspot,
    run::{CHUNK, Job},
};
use crate::{
    error::Result,
    report::RowOutcome,
    salesforce::{
        bulk::{Job as BulkJob, JobState, Operation, Upload},
        model::Values,
    },
};

/// From so many records on, Salesforce is written by a job: Salesforce's own line.
pub(super) const BULK_FROM: usize = 2_000;

/// A job that is not over after so long is given up; Salesforce ends one that waits for its upload after a day.
const JOB_AGE_MAX: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// How long a run waits before it asks how its jobs are.
pub(super) const POLL_AFTER: Duration = Duration::from_secs(20);

/// Jobs under way, and the records that wait for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    jobs: Vec<BulkJob>,
    /// Ids of HubSpot's records, at most [`super::run::CHUNK_LARGE`].
    records: Vec<String>,
    /// The rows are with Salesforce.
    uploaded: bool,
    since: Timestamp,
}

impl Job {
    /// Whether there is so much to write that it goes by a job. Only where the feeds are read: what was put off is little.
    pub(super) fn wants_bulk(&self, works: &[Work], creations: &[Creation]) -> bool {
        let updates = works.iter().filter(|work| work.writes_salesforce()).count();
        let creates = creations.iter().filter(|creation| creation.on == Side::Salesforce).count();
        matches!(self.progress.phase, Phase::Salesforce(_) | Phase::Hubspot { .. })
            && self.lease.is_some()
            && updates + creates > BULK_FROM
    }

    /// Hands what is to be written in Salesforce to jobs. What is to be written in HubSpot follows when they are over.
    pub(super) async fn begin_bulk(&mut self, creations: Vec<Creation>, works: &mut Vec<Work>) -> Result<()> {
        let mapping = self.mapping.clone();
        let mut fields: Vec<&str> = mapping
            .pairs
            .iter()
            .filter(|pair| pair.writable_in_salesforce || pair.createable_in_salesforce)
            .map(|pair| pair.salesforce.as_str())
            .collect();
        fields.push(&mapping.salesforce_link);
        let mut updates = Upload::new(std::iter::once("Id").chain(fields.iter().copied()))?;
        let mut upserts = Upload::new(fields.iter().copied())?;
        let mut records = Vec::new();
        for work in works.iter_mut().filter(|work| work.is_active()) {
            records.push(work.link.hubspot_id.clone());
            if !work.writes_salesforce() {
                continue;
            }
            let mut values = Values::new();
            values.insert("Id".to_owned(), work.link.salesforce_id.to_string().into());
            for change in &work.decision.to_salesforce {
                if let Some(pair) = mapping.pairs.get(change.pair) {
                    values.insert(pair.salesforce.clone(), change.value.clone());
                }
            }
            if work.stamp_salesforce {
                values.insert(mapping.salesforce_link.clone(), work.link.hubspot_id.clone().into());
            }
            if updates.push(&values) {
                let mut intent = decide::intent_of(&work.decision, &mapping.pairs, &work.hubspot, &work.salesforce);
                intent.hubspot.clear();
                work.link.intent = Some(intent);
            }
        }
        self.store_intents(works).await?;
        let mut todos = Vec::new();
        let mut in_hubspot = Vec::new();
        for creation in creations {
            let Source::Hubspot(record) = &creation.source else {
                in_hubspot.push(creation);
                continue;
            };
            let record = record.clone();
            match self.values_for_salesforce(&record).await? {
                Some((values, sent, _)) => {
                    records.push(record.id.clone());
                    if upserts.push(&values) {
                        let noted = noted(&sent, &sight_hubspot(&mapping, &record));
                        let since = creation.candidate.since.or_else(|| Some(self.org.server_time()));
                        todos.push(Todo { side: Side::Hubspot, id: record.id, why: TodoWhy::Creating(noted), since });
                    }
                }
                None => self.progress.done.rows.add(RowOutcome::Rejected),
            }
        }
        self.put_todos(todos).await?;
        self.still_ours()?;
        let deadline = self.calls_until();
        let object = &mapping.salesforce_object;
        let mut jobs = Vec::new();
        let mut uploads = Vec::new();
        let kinds = [(Operation::Update, updates), (Operation::Upsert { key: &mapping.salesforce_link }, upserts)];
        for (operation, upload) in kinds {
            if upload.rows() > 0 {
                jobs.push(self.org.start_ingest(object, operation, deadline).await?);
                uploads.push((matches!(operation, Operation::Upsert { .. }), upload));
            }
        }
        let since = self.env.clock.now();
        self.progress.done.sync.bulk_jobs += u64::try_from(jobs.len()).unwrap_or_default();
        self.progress.bulk = Some(Pending { jobs: jobs.clone(), records, uploaded: false, since });
        // Whoever finds jobs without their rows makes an end of them.
        self.save().await?;
        for (job, (creates, upload)) in jobs.iter().zip(uploads) {
            let rows = u64::try_from(upload.rows()).unwrap_or_default();
            self.org.upload(job, upload, deadline).await?;
            let writes = &mut self.progress.done.sync.salesforce;
            match creates {
                true => writes.created += rows,
                false => writes.updated += rows,
            }
        }
        if let Some(pending) = &mut self.progress.bulk {
            pending.uploaded = true;
        }
        // They are looked at when the jobs are over, and counted then.
        works.clear();
        let mut made = Vec::new();
        let pending = self.progress.bulk.take();
        let result = Box::pin(self.create_all_in_hubspot(in_hubspot, &mut made)).await;
        self.progress.bulk = pending;
        result?;
        works.append(&mut made);
        Ok(())
    }

    /// Looks after jobs under way. `false`: they are not over yet.
    pub(super) async fn bulk_step(&mut self) -> Result<bool> {
        let Some(pending) = self.progress.bulk.clone() else { return Ok(true) };
        let deadline = self.calls_until();
        if !pending.uploaded {
            for job in &pending.jobs {
                self.org.abort(job, deadline).await?;
            }
            // The position has not moved: the same records come again.
            self.progress.bulk = None;
            self.save().await?;
            return Ok(true);
        }
        let mut failed = 0;
        for job in &pending.jobs {
            let status = self.org.poll(job, deadline).await?;
            let too_old = self.env.clock.now().duration_since(pending.since) > JOB_AGE_MAX;
            if !status.state.is_over() {
                if !too_old {
                    return Ok(false);
                }
                self.org.abort(job, deadline).await?;
                self.note(format!("a Bulk job was given up after {JOB_AGE_MAX:#}"));
            }
            if status.state == JobState::Failed {
                let why = status.error_message.unwrap_or_default();
                self.note(format!("Salesforce gave a Bulk job up ({why}); its records are written without one"));
            }
            failed += status.number_records_failed;
        }
        if failed > 0 {
            self.note(format!("{failed} records failed in Bulk jobs; each was tried again by itself"));
        }
        for lot in pending.records.chunks(CHUNK) {
            if self.must_stop() {
                return Ok(false);
            }
            let todos = self.creating(lot).await?;
            let candidates = lot.iter().map(|id| {
                let (creating, since) = todos.get(id).cloned().unzip();
                Candidate {
                    force: true,
                    todo: creating.is_some(),
                    creating,
                    since: since.flatten(),
                    ..Candidate::new(id.clone())
                }
            });
            let candidates = candidates.collect();
            // Not by a job again.
            let phase = std::mem::replace(&mut self.progress.phase, Phase::Todo);
            let waiting = self.progress.bulk.take();
            let result = Box::pin(self.chunk(Side::Hubspot, candidates)).await;
            self.progress.phase = phase;
            self.progress.bulk = waiting;
            result?;
            if let Some(pending) = &mut self.progress.bulk {
                pending.records.retain(|id| !lot.contains(id));
            }
            self.save().await?;
        }
        for job in &pending.jobs {
            self.org.delete_job(job, deadline).await?;
        }
        self.progress.bulk = None;
        self.save().await?;
        Ok(true)
    }

    /// What records are being created with, and since when.
    async fn creating(&self, ids: &[String]) -> Result<BTreeMap<String, (BTreeMap<String, Canon>, Option<Timestamp>)>> {
        let wanted: BTreeSet<&String> = ids.iter().collect();
        let todos = self.todos.list(super::run::CHUNK_LARGE * 4).await?;
        let own = todos.into_iter().filter(|todo| todo.side == Side::Hubspot && wanted.contains(&todo.id));
        Ok(own
            .filter_map(|todo| match todo.why {
                TodoWhy::Creating(sent) => Some((todo.id, (sent, todo.since))),
                _ => None,
            })
            .collect())
    }
}
