//! The delivered index at work in a run: which rows are left out, and what is remembered.

use std::rc::Rc;

use super::{
    conclude::{in_time, patiently_until},
    deliver::fold,
    index::{Claim, Ending, Fate, Fingerprint, Hasher, Index, Keeper, Mark, Verdict, entry, unreadable_entry},
    job::{Job, Lane},
    log::{Log, Unsaved},
};
use crate::{
    config::{Import, Mode},
    csv::Cells,
    error::{ErrorKind, Result},
    mutate::{self, Bug},
    objects::{Location, Objects, memory::MemoryObjects},
    record::{Input, PropertyName},
    report::RowOutcome,
};

/// An import's index for one invocation of a run.
pub(super) struct DeliveredIndex {
    pub(super) keeper: Keeper,
    pub(super) claim: Option<Claim>,
    pub(super) hasher: Hasher,
    pub(super) index: Index,
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
    /// Properties of the record that were not delivered because HubSpot keeps them itself.
    pub(super) dropped: Vec<PropertyName>,
    /// The row archives its record.
    pub(super) archives: bool,
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
        // A plan leaves nothing behind: 16 bytes a row, in memory.
        let objects: Rc<dyn Objects> = match &self.plan {
            Some(_) => Rc::new(MemoryObjects::new()),
            None => self.env.objects.clone(),
        };
        let log =
            Log::open(objects, self.state_folder(), "index", self.lease.fence, self.progress.index.clone()).await?;
        let (claim, index, skips) = if self.replay.is_some() {
            // What it writes is no file that was delivered.
            if self.plan.is_none() {
                keeper.distrust(&self.lease.run_id).await?;
            }
            (None, Index::absent(None), false)
        } else if self.plan.is_some() {
            let claim = if keeps_index(&self.import) { Some(keeper.look().await?) } else { None };
            let index = match &claim {
                Some(claim) if self.import.skip_unchanged => keeper.load(claim, &log).await?,
                _ => Index::absent(None),
            };
            (claim, index, self.import.skip_unchanged)
        } else if keeps_index(&self.import) {
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

    /// Makes what was delivered the new index, or takes the run off the list of those that write. To be called before the run is finished.
    /// Losing the index costs calls and nothing else, so that a failure here is a note; only a lost lease is an error.
    ///
    /// False if there was no time left and another invocation should do it; where `may_yield` is not set, the index is given up then.
    pub(super) async fn end_index(&mut self, ending: Option<Ending>, may_yield: bool) -> Result<bool> {
        let Some(delivered) = &mut self.delivered else { return Ok(true) };
        delivered.index = Index::absent(None);
        let Some(delivered) = &self.delivered else { return Ok(true) };
        if self.replay.is_some() {
            let distrust = async || delivered.keeper.distrust(&self.lease.run_id).await;
            if let Err(error) = patiently_until(&self.env, self.deadline, distrust).await {
                tracing::warn!(run_id = self.lease.run_id, error = %error, "the delivered index could not be told");
            }
            return Ok(true);
        }
        let Some(claim) = &delivered.claim else { return Ok(true) };
        let (keeper, log) = (&delivered.keeper, &delivered.log);
        let release = async |wrote: bool| {
            patiently_until(&self.env, self.deadline, async || keeper.release(claim, wrote).await).await.map(|()| None)
        };
        let ended = match ending {
            Some(_) if mutate::on(Bug::IndexNotWritten) => release(false).await,
            // Keys without rows are of use to mode `mirror` only.
            Some(ending)
                if keeps_index(&self.import) && (ending != Ending::CutShort || self.import.mode == Mode::Mirror) =>
            {
                let publishing =
                    patiently_until(&self.env, self.deadline, async || keeper.publish(claim, log, ending).await);
                match in_time(self, publishing).await {
                    Ok(Some(published)) => Ok(published.note),
                    Ok(None) if may_yield => return Ok(false),
                    Ok(None) => {
                        let note =
                            "the delivered index does not fit into an invocation's time: the next run sends every row";
                        release(true).await.map(|_: Option<String>| Some(note.to_owned()))
                    }
                    Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
                    Err(error) => Err(error),
                }
            }
            None => release(false).await,
            Some(_) => release(true).await,
        };
        match ended {
            Ok(None) => {}
            Ok(Some(note)) => self.note(note),
            Err(error) => {
                tracing::warn!(run_id = self.lease.run_id, error = %error, "the delivered index was not brought up to date");
                self.note("the delivered index was not brought up to date: the next run sends every row".to_owned());
            }
        }
        Ok(true)
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
        Marks { marks, skipped, ..Marks::default() }
    }

    /// What is known of a row that could not be mapped: its key, if that can be told.
    pub(super) fn judge_rejected(&mut self, lane: &Lane, cells: &Cells) -> Marks {
        if self.claim.is_none() {
            return Marks::default();
        }
        let key = lane.mapping.key_of(cells).map(|key| self.hasher.key(0, &fold(&lane.delivery, &key)));
        Marks { marks: key.map(Mark::of_key).into_iter().collect(), ..Marks::default() }
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
