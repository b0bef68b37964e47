//! Mode `mirror` at the end of a file: what the last file had and this one lacks is archived.
//!
//! The index knows hashes of keys, not keys, so that what is missing has to be met in HubSpot's list of all records. The list is read a
//! page at a time, 100 records by the cursor of the page before: no other way to all records has neither a cap nor a lag. What is found
//! missing is gathered into full calls, and the position never passes a record that is still to be archived.

use bytes::Bytes;
use serde_json::json;

use super::{
    deliver::{archived_values, fold},
    index::{Index, MISSING_MAX, Missing},
    job::{Job, Lane},
    plan::PlanMirror,
};
use crate::{
    clock::Deadline,
    codes,
    error::{Error, ErrorKind, Result},
    hubspot::{
        batch::{BATCH_INPUTS_MAX, Write, WriteKind},
        properties::SchemaParts,
        verdict::Verdict,
    },
    objects::Location,
    record::{Input, PropertyName},
};

/// Pages of a list between two checkpoints.
const PAGES_PER_CHECKPOINT: u64 = 20;

/// Bound of a list: a billion records.
const PAGES_MAX: u64 = 10_000_000;

/// How the archiving of what is missing ended.
pub(super) enum Mirrored {
    /// What was missing is archived.
    Done,
    /// More is missing than the brake allows; nothing was archived.
    Braked(Missing),
    /// What is missing is not certain, or HubSpot would not archive all of it: it stays known, for the next run. Why.
    Uncertain(String),
    /// The deadline is near.
    Deadline,
}

impl Job {
    /// Archives what the last file had and this one lacks. Every row of this file is in the log.
    pub(super) async fn mirror(&mut self, lane: &Lane) -> Result<Mirrored> {
        let Some(delivered) = &mut self.delivered else {
            return Ok(Mirrored::Uncertain("there is no index".to_owned()));
        };
        let Some(claim) = &delivered.claim else { return Ok(Mirrored::Uncertain("there is no index".to_owned())) };
        delivered.index = Index::absent(None);
        if self.progress.mirror_ended {
            return Ok(self.mirrored());
        }
        let missing = delivered.keeper.missing(claim, &delivered.log, MISSING_MAX).await?;
        if missing.count == 0 {
            return Ok(Mirrored::Done);
        }
        // What an earlier invocation archived was allowed then.
        let begun = self.progress.archived > 0 || self.progress.mirror_after.is_some();
        let braked = missing.count > self.import.mirror_max_archived.of(missing.known) && !begun;
        if let Some(plan) = &self.plan {
            plan.mirror(PlanMirror { known: missing.known, missing: missing.count, braked });
        }
        if braked {
            return Ok(Mirrored::Braked(missing));
        }
        if !missing.is_certain() {
            let why = missing.note.clone().unwrap_or_else(|| {
                format!(
                    "{} rows have no key that can be read, and {} records are missing: any of those rows may be one of them; nothing was archived",
                    missing.unreadable, missing.count
                )
            });
            return Ok(Mirrored::Uncertain(why));
        }
        let hasher = delivered.hasher;
        let (margin, _) = super::flow::margins(self.deadline.remaining(self.env.clock.now()));
        let calls_until = self.calls_until();
        let key = lane.delivery.key.clone();
        let properties: [PropertyName; 1] = [key.clone()];
        let mut after = self.progress.mirror_after.clone();
        if after.is_none() {
            // From the first page on: those that were left are met again.
            self.progress.mirror_left = 0;
        }
        let began = (after.clone(), self.progress.archived);
        let mut gone: Vec<Input> = Vec::new();
        let mut keys: Vec<String> = Vec::new();
        for page in 1..=PAGES_MAX {
            if !self.deadline.allows(self.env.clock.now(), margin) {
                self.save_mirror(&began).await?;
                return Ok(Mirrored::Deadline);
            }
            let listed = self.account.list(&lane.object, &properties, after.as_deref(), calls_until).await?;
            let is_missing = |value: &str| missing.contains(hasher.key(0, &fold(&lane.delivery, value)));
            let (found, found_keys): (Vec<Input>, Vec<String>) = listed
                .records
                .iter()
                .filter_map(|record| Some((record, record.value(&key).filter(|key| is_missing(key))?)))
                .map(|(record, key)| (Input { key: record.id.clone(), properties: Vec::new() }, key.to_owned()))
                .unzip();
            if gone.len() + found.len() > BATCH_INPUTS_MAX {
                self.archive_missing(lane, &mut gone, &mut keys, page, calls_until).await?;
                // What this page holds is still to be archived.
                self.progress.mirror_after.clone_from(&after);
                self.save_mirror(&began).await?;
            }
            gone.extend(found);
            keys.extend(found_keys);
            after = listed.after;
            let saves = page % PAGES_PER_CHECKPOINT == 0;
            if saves || after.is_none() {
                self.archive_missing(lane, &mut gone, &mut keys, page, calls_until).await?;
            }
            if gone.is_empty() {
                self.progress.mirror_after.clone_from(&after);
            }
            if after.is_none() {
                // The list is long: it is not read again because the run's end took another invocation.
                self.progress.mirror_ended = true;
                self.save_mirror(&began).await?;
                return Ok(self.mirrored());
            }
            if saves {
                self.save_mirror(&began).await?;
            }
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            codes::HUBSPOT_ANSWER_UNREADABLE,
            format!("the list of {} does not end", lane.object),
        ))
    }

    /// How the list's end was reached.
    fn mirrored(&self) -> Mirrored {
        match self.progress.mirror_left {
            0 => Mirrored::Done,
            left => Mirrored::Uncertain(format!(
                "{left} records that the file lacks could not be archived; the next run tries again"
            )),
        }
    }

    /// Archives the records with these ids, and empties the lists; `keys` are theirs. `page` sets its before-images apart from others of this invocation.
    async fn archive_missing(
        &mut self,
        lane: &Lane,
        gone: &mut Vec<Input>,
        keys: &mut Vec<String>,
        page: u64,
        calls_until: Deadline,
    ) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        if let Some(plan) = self.plan.clone() {
            for (input, key) in gone.drain(..).zip(std::mem::take(keys)) {
                plan.archive(&lane.object, key, input.key);
            }
            return Ok(());
        }
        keys.clear();
        if self.import.before_images {
            self.keep_archived(lane, gone, page, calls_until).await?;
        }
        let write = Write { kind: WriteKind::Archive, object: &lane.object, id_property: None };
        let mut verdicts = vec![None; gone.len()];
        self.account.write(write, gone, &mut verdicts, None, calls_until).await?;
        let archived = verdicts.iter().flatten().filter(|verdict| matches!(verdict, Verdict::Written { .. })).count();
        self.progress.archived += archived as u64;
        self.progress.mirror_left += gone.len().saturating_sub(archived) as u64;
        gone.clear();
        Ok(())
    }

    /// Writes down the records that are about to be archived, with every value that could be written back, in the form of all
    /// before-images. Before the archiving, like all of them.
    async fn keep_archived(&self, lane: &Lane, gone: &[Input], page: u64, calls_until: Deadline) -> Result<()> {
        let schema = self.account.schema(&lane.object, SchemaParts::default(), calls_until).await?;
        let writable = schema.properties.values().filter(|property| !property.read_only());
        let mut names: Vec<PropertyName> = writable.map(|property| property.name.as_str().into()).collect();
        let key = &lane.delivery.key;
        if !names.contains(key) {
            names.push(key.clone());
        }
        let ids: Vec<String> = gone.iter().map(|input| input.key.clone()).collect();
        let found = self.account.read(&lane.object, None, &ids, &names, None, calls_until).await?;
        let mut body = Vec::new();
        for record in found.iter().flatten() {
            let line = json!({ "object": lane.object, "existed": true, "id": record.id, "key": record.value(key), "archives": true,
                               "updated_at": record.updated_at, "before": archived_values(record), "after": {} });
            body.extend_from_slice(line.to_string().as_bytes());
            body.push(b'\n');
        }
        let folder = self.state_folder();
        let name = format!("{}before-{:06}-archived-{page:08}.jsonl", folder.key, self.lease.fence);
        let at = Location::new(&folder.bucket, name);
        self.env.objects.put(&at, Bytes::from(body), "application/x-ndjson").await
    }

    /// Saves how far the list was read; `began` is where this invocation began, with what was archived by then.
    async fn save_mirror(&mut self, began: &(Option<String>, u64)) -> Result<()> {
        self.count_costs();
        let position = self.progress.position;
        let moved = (&self.progress.mirror_after, self.progress.archived) != (&began.0, began.1);
        self.runs.checkpoint(&self.lease, self.deadline, &position, &self.progress, moved).await
    }
}
