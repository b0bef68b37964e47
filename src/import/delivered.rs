//! The delivered index at work in a run: which rows are left out, what is remembered, and what mode `mirror` archives at the end.

use super::{
    deliver::fold,
    index::{Claim, Ending, Fate, Fingerprint, Hasher, Index, Keeper, Mark, Missing, Verdict, entry, unreadable_entry},
    job::{Job, Lane},
    log::{Log, Unsaved},
};
use crate::{
    codes,
    config::{Import, Mode},
    csv::Cells,
    error::{Error, ErrorKind, Result},
    hubspot::batch::{Write, WriteKind},
    objects::Location,
    record::{Input, PropertyName},
    report::RowOutcome,
};

/// Pages of a list between two checkpoints while records are archived.
const PAGES_PER_CHECKPOINT: u64 = 20;

/// Bound of a list: a billion records.
const PAGES_MAX: u64 = 10_000_000;

/// An import's index for one invocation of a run.
pub(super) struct DeliveredIndex {
    keeper: Keeper,
    claim: Option<Claim>,
    hasher: Hasher,
    index: Index,
    pub(super) log: Log,
    /// Rows equal to the last file's are left out.
    skips: bool,
}

/// What is known of a row, for the index.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    /// One per record of the row whose key is known.
    pub(super) marks: Vec<Mark>,
    /// The row was left out.
    pub(super) skipped: bool,
}

/// How the archiving of what is missing ended.
pub(super) enum Mirrored {
    /// What was missing is archived.
    Done,
    /// More is missing than the brake allows; nothing was archived.
    Braked(Missing),
    /// What is missing is not certain; nothing was archived. Why.
    Uncertain(String),
    /// The deadline is near.
    Deadline,
}

/// Whether the import keeps an index.
pub(super) fn keeps_index(import: &Import) -> bool {
    import.skip_unchanged || import.mode == Mode::Mirror
}

impl Job {
    /// Enters the run among those that write, and loads what the last file delivered. `fresh`: nothing of the run was ever saved.
    pub(super) async fn begin_index(&mut self, lanes: &[Lane], fresh: bool) -> Result<()> {
        let portal = self.account.details(self.calls_until()).await?.portal_id;
        let targets: Vec<String> = lanes.iter().map(|lane| format!("{}:{}", lane.object, lane.delivery.key)).collect();
        let fingerprint = Fingerprint {
            target: format!("{portal}/{}", targets.join("+")),
            settings: super::settings_of(&self.import),
        };
        let hasher = Hasher::new(&fingerprint);
        let keeper = Keeper::new(
            self.env.objects.clone(),
            self.env.table.clone(),
            self.runs.clone(),
            &self.import.name,
            &self.object.location.bucket,
            fingerprint,
        );
        let log = Log::open(
            self.env.objects.clone(),
            self.state_folder(),
            "index",
            self.lease.fence,
            self.progress.index.clone(),
        )
        .await?;
        let (claim, index, skips) = if keeps_index(&self.import) {
            let claim = keeper.begin(&self.lease.run_id, self.lease.fence, fresh).await?;
            let index = if self.import.skip_unchanged { keeper.load(&claim, &log).await? } else { Index::absent(None) };
            (Some(claim), index, self.import.skip_unchanged)
        } else {
            (keeper.begin_untracked(&self.lease.run_id, self.lease.fence).await?, Index::absent(None), false)
        };
        if let Some(note) = index.note().map(str::to_owned) {
            self.note(note);
        }
        self.delivered = Some(DeliveredIndex { keeper, claim, hasher, index, log, skips });
        Ok(())
    }

    /// Where the run's working files are.
    pub(super) fn state_folder(&self) -> Location {
        let folder = format!("state/import/{}/{}/", self.import.name, self.lease.run_id);
        Location::new(&self.object.location.bucket, folder)
    }

    /// Archives what the last file had and this one lacks. Every row of this file is in the log.
    pub(super) async fn mirror(&mut self, lane: &Lane) -> Result<Mirrored> {
        let Some(delivered) = &mut self.delivered else {
            return Ok(Mirrored::Uncertain("there is no index".to_owned()));
        };
        let Some(claim) = &delivered.claim else { return Ok(Mirrored::Uncertain("there is no index".to_owned())) };
        delivered.index = Index::absent(None);
        let missing = delivered.keeper.missing(claim, &delivered.log, super::index::MISSING_MAX).await?;
        if missing.count == 0 {
            return Ok(Mirrored::Done);
        }
        // What an earlier invocation archived was allowed then.
        let begun = self.progress.archived > 0 || self.progress.mirror_after.is_some();
        if missing.count > self.import.mirror_max_archived.of(missing.known) && !begun {
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
        let begun_at = self.progress.mirror_after.clone();
        let mut left = 0;
        let key = lane.delivery.key.clone();
        let properties: [PropertyName; 1] = [key.clone()];
        for page in 1..=PAGES_MAX {
            let now = self.env.clock.now();
            if !self.deadline.allows(now, margin) {
                self.save_mirror(begun_at.as_ref()).await?;
                return Ok(Mirrored::Deadline);
            }
            let listed = self
                .account
                .list(&lane.object, &properties, self.progress.mirror_after.as_deref(), calls_until)
                .await?;
            let gone: Vec<Input> = listed
                .records
                .iter()
                .filter(|record| {
                    record
                        .value(&key)
                        .is_some_and(|value| missing.contains(hasher.key(0, &fold(&lane.delivery, value))))
                })
                .map(|record| Input { key: record.id.clone(), properties: Vec::new() })
                .collect();
            if !gone.is_empty() {
                let write = Write { kind: WriteKind::Archive, object: &lane.object, id_property: None };
                let mut verdicts = vec![None; gone.len()];
                self.account.write(write, &gone, &mut verdicts, None, calls_until).await?;
                let archived = verdicts
                    .iter()
                    .flatten()
                    .filter(|verdict| matches!(verdict, crate::hubspot::verdict::Verdict::Written { .. }));
                let archived = archived.count() as u64;
                self.progress.archived += archived;
                left += gone.len() as u64 - archived;
            }
            // A cursor stays behind what was archived: a page that is read again holds nothing more to archive.
            self.progress.mirror_after.clone_from(&listed.after);
            if listed.after.is_none() {
                return Ok(match left {
                    0 => Mirrored::Done,
                    _ => Mirrored::Uncertain(format!(
                        "{left} records that the file lacks could not be archived; the next run tries again"
                    )),
                });
            }
            if page % PAGES_PER_CHECKPOINT == 0 {
                self.save_mirror(begun_at.as_ref()).await?;
            }
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            codes::HUBSPOT_ANSWER_UNREADABLE,
            format!("the list of {} does not end", lane.object),
        ))
    }

    async fn save_mirror(&mut self, begun_at: Option<&String>) -> Result<()> {
        self.count_costs();
        let (position, moved) = (self.progress.position, self.progress.mirror_after.as_ref() != begun_at);
        self.runs.checkpoint(&self.lease, self.deadline, &position, &self.progress, moved).await
    }

    /// Makes what was delivered the new index, or takes the run off the list of those that write. To be called before the run is finished.
    /// Losing the index costs calls and nothing else, so that a failure here is a note.
    pub(super) async fn end_index(&mut self, ending: Option<Ending>) {
        let Some(delivered) = &mut self.delivered else { return };
        delivered.index = Index::absent(None);
        let Some(claim) = &delivered.claim else { return };
        let (keeper, log) = (&delivered.keeper, &delivered.log);
        let ended = match ending {
            // Keys without rows are of use to mode `mirror` only.
            Some(ending)
                if keeps_index(&self.import) && (ending != Ending::CutShort || self.import.mode == Mode::Mirror) =>
            {
                super::conclude::patiently(&self.env, async || keeper.publish(claim, log, ending).await)
                    .await
                    .map(|published| published.note)
            }
            None => {
                super::conclude::patiently(&self.env, async || keeper.release(claim, false).await).await.map(|()| None)
            }
            Some(_) => {
                super::conclude::patiently(&self.env, async || keeper.release(claim, true).await).await.map(|()| None)
            }
        };
        match ended {
            Ok(None) => {}
            Ok(Some(note)) => self.note(note),
            Err(error) => {
                tracing::warn!(run_id = self.lease.run_id, error = %error, "the delivered index was not brought up to date");
                self.note("the delivered index was not brought up to date: the next run sends every row".to_owned());
            }
        }
    }
}

impl DeliveredIndex {
    /// What is known of a row whose records could all be mapped, and whether it can be left out.
    pub(super) fn judge(&mut self, inputs: &[Option<Input>]) -> Marks {
        if self.claim.is_none() {
            return Marks::default();
        }
        let mut marks = Vec::with_capacity(inputs.len());
        for (lane, input) in inputs.iter().enumerate() {
            let Some(input) = input else { continue };
            if lane > 0 || inputs.len() == 1 {
                marks.push(self.hasher.mark(lane, input));
                continue;
            }
            // With the first record goes which others it is associated with.
            let mut whole = input.clone();
            for (other, input) in inputs.iter().enumerate().skip(1) {
                let key = input.as_ref().map(Input::folded_key).unwrap_or_default();
                whole.properties.push((format!("\u{0}record {other}").into(), key));
            }
            marks.push(self.hasher.mark(lane, &whole));
        }
        let mut skipped = self.skips;
        if self.skips {
            for mark in &marks {
                skipped &= self.index.verdict(*mark) == Verdict::Unchanged;
            }
            if !skipped {
                // The whole row is sent, the records that have not changed with it.
                for mark in &marks {
                    self.index.touch(*mark);
                }
            }
        }
        Marks { marks, skipped }
    }

    /// What is known of a row that could not be mapped: its key, if that can be told.
    pub(super) fn judge_rejected(&mut self, lane: &Lane, cells: &Cells) -> Marks {
        if self.claim.is_none() {
            return Marks::default();
        }
        let key = lane.mapping.key_of(cells).map(|key| self.hasher.key(0, &fold(&lane.delivery, &key)));
        Marks { marks: key.map(Mark::of_key).into_iter().collect(), skipped: false }
    }

    /// Logs what became of a row, in file order.
    pub(super) fn remember(&mut self, marks: &Marks, outcome: RowOutcome) {
        if self.claim.is_none() {
            return;
        }
        let fate = match outcome {
            RowOutcome::Rejected | RowOutcome::Deferred => Fate::Undelivered,
            _ if marks.skipped => Fate::Unchanged,
            _ => Fate::Delivered,
        };
        if marks.marks.is_empty() {
            self.log.append(&unreadable_entry());
        }
        for mark in &marks.marks {
            self.log.append(&entry(*mark, fate));
        }
    }

    /// What must be durable before a checkpoint may claim it.
    pub(super) fn unsaved(&self) -> Unsaved {
        self.log.unsaved()
    }
}
