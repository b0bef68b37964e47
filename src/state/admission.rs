//! Which events lead to a run: one run per version of an object, the newest version last.
//!
//! S3 delivers events more than once and in any order. What decides is kept beside the runs: a pointer from each version to its run,
//! and the newest run of each object with the one that it replaced.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Changed, Condition, Item, Key, Update, Value,
    runs::{LEASE, Run, RunSource, Runs, encode, run_key, version_of},
};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
    report::Outcome,
};

/// How often the exchange of an object's newest run is tried when other events cross it.
const EXCHANGES_MAX: usize = 8;

/// How many open runs of older versions are ended before a newer one writes; an object that is overwritten oftener than its runs end leaves
/// one or two.
const OLDER_RUNS_MAX: usize = 32;

/// How many runs of older versions are looked at to find them: one for each second of [`TOLD_BEFORE`], and as many again.
const OLDER_LOOKS_MAX: usize = 128;

/// A run that was told to stop so long ago has lost its lease, which cannot be renewed any more: twice as long, for clocks that differ.
const TOLD_BEFORE: Duration = Duration::from_secs(2 * LEASE.as_secs());

/// Whether an event leads to a run.
#[derive(Debug)]
pub enum Admission {
    /// To this one: new, or one that was left open.
    Run(Box<Run>),
    /// This version was imported before.
    Duplicate(Box<Run>),
    /// Something newer was admitted before.
    Superseded,
}

impl Runs {
    /// Decides what an event for `source` leads to, and makes the run if it is a new one, under the id `new_run_id`.
    ///
    /// `again` says whether a run of this version that is over may be followed by another.
    pub async fn admit(
        &self,
        job: &str,
        name: &str,
        source: &RunSource,
        settings: &str,
        new_run_id: &str,
        again: impl Fn(&Run) -> bool,
    ) -> Result<Admission> {
        let pk = format!("source#{}/{}", source.bucket, source.key);
        let pointer = Key::new(&pk, version_of(source.version_id.as_deref(), &source.etag));
        let expires_at = self.remembered_until();

        // Known already? Asked first: a redelivered event is a duplicate even if something newer has come since.
        let known = match self.table.get(&pointer).await? {
            Some(item) => match item.get("run_id") {
                Some(Value::S(run_id)) => Some(run_id.clone()),
                _ => None,
            },
            None => None,
        };
        let mut unmade = false;
        if let Some(run_id) = &known {
            match self.get(run_id).await? {
                Some(run) if run.outcome.is_none() => {
                    self.mark_open(&run.run_id).await?;
                    return Ok(Admission::Run(Box::new(run)));
                }
                Some(run) if !again(&run) && !self.came_back(&pk, &run, source).await? => {
                    return Ok(Admission::Duplicate(Box::new(run)));
                }
                // Over, and may be done again.
                Some(_) => {}
                // Its maker died before it made the run, or is about to: the run keeps its id, or there would be two.
                None => unmade = true,
            }
        }

        let latest = Key::new(&pk, "latest");
        if let Some(sequencer) = &source.sequencer {
            let newest = Update {
                set: vec![("sequencer", sequencer.as_str().into()), ("expires_at", expires_at.into())],
                condition: Some(Condition::Any(vec![
                    Condition::Absent("sequencer"),
                    Condition::AtMost("sequencer", sequencer.as_str().into()),
                ])),
                ..Update::default()
            };
            if let Changed::No(_) = self.table.update(&latest, newest).await? {
                return Ok(Admission::Superseded);
            }
        }

        let claimed_id = known.as_deref().filter(|_| unmade).unwrap_or(new_run_id);
        let claim = Update {
            set: vec![("run_id", claimed_id.into()), ("expires_at", expires_at.into())],
            condition: Some(match &known {
                None => Condition::Absent("pk"),
                Some(run_id) => Condition::Equals("run_id", run_id.as_str().into()),
            }),
            ..Update::default()
        };
        let run_id = match self.table.update(&pointer, claim).await? {
            Changed::Yes(_) => claimed_id.to_owned(),
            // Another invocation was faster, or our own first attempt was.
            Changed::No(Some(item)) => match item.get("run_id") {
                Some(Value::S(run_id)) => run_id.clone(),
                _ => new_run_id.to_owned(),
            },
            Changed::No(None) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    codes::STATE_UNAVAILABLE,
                    "admitting the object: the pointer vanished",
                ));
            }
        };
        self.mark_open(&run_id).await?;
        let Some(older) = self.replace_older(&latest, source, &run_id, expires_at).await? else {
            self.close(&run_id).await?;
            return Ok(Admission::Superseded);
        };
        let now = self.clock.now().as_millisecond();
        let create = Update {
            set: vec![
                ("older", older.into()),
                ("job", job.into()),
                ("name", name.into()),
                ("source", encode(source)?.into()),
                ("outcome", "open".into()),
                ("settings", settings.into()),
                ("fence", 0.into()),
                ("invocations", 0.into()),
                ("started_at", now.into()),
                ("expires_at", expires_at.into()),
            ],
            condition: Some(Condition::Absent("pk")),
            ..Update::default()
        };
        let item = match self.table.update(&run_key(&run_id), create).await? {
            Changed::Yes(item) | Changed::No(Some(item)) => item,
            Changed::No(None) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    codes::STATE_UNAVAILABLE,
                    "admitting the object: the run vanished",
                ));
            }
        };
        let item = self.unless_replaced(&latest, &run_id, item).await?;
        // Again: a sweep that came between the entry and the run took the entry for a leftover.
        self.mark_open(&run_id).await?;
        Ok(Admission::Run(Box::new(Run::from_item(&run_id, &item)?)))
    }

    /// The run's item. A newer event that came before the run was made could not tell it to stop: then it is told so here.
    async fn unless_replaced(&self, latest: &Key, run_id: &str, item: Item) -> Result<Item> {
        let newest = self.table.get(latest).await?;
        match newest.as_ref().and_then(|item| item.get("run_id")) {
            Some(Value::S(newest)) if newest != run_id && !item.contains_key("superseded_by") => {
                self.tell_to_stop(run_id, newest).await?;
                Ok(self.table.get(&run_key(run_id)).await?.unwrap_or(item))
            }
            _ => Ok(item),
        }
    }

    /// Whether the object has the contents of a finished run again after it had others: in a bucket without versions, where the entity
    /// tag alone would take the event for a duplicate.
    async fn came_back(&self, pk: &str, run: &Run, source: &RunSource) -> Result<bool> {
        let (Some(now), Some(then)) = (&source.sequencer, &run.source.sequencer) else { return Ok(false) };
        if now <= then {
            return Ok(false);
        }
        let latest = self.table.get(&Key::new(pk, "latest")).await?;
        Ok(latest
            .and_then(|item| item.get("run_id").cloned())
            .is_some_and(|newest| newest != run.run_id.as_str().into()))
    }

    /// Makes `run_id` the newest run of the object, and tells those that it replaces to stop. Their ids, separated by spaces; `None` if a
    /// newer event has come meanwhile.
    ///
    /// Who replaces whom is written down with the exchange itself: a second delivery, or a repeat after a crash, learns the same.
    async fn replace_older(
        &self,
        latest: &Key,
        source: &RunSource,
        run_id: &str,
        expires_at: i64,
    ) -> Result<Option<String>> {
        for _ in 0..EXCHANGES_MAX {
            let known = self.table.get(latest).await?;
            let text = |name: &str| match known.as_ref().and_then(|item| item.get(name)) {
                Some(Value::S(text)) => Some(text.clone()),
                _ => None,
            };
            let newest = text("run_id");
            if newest.as_deref() == Some(run_id) {
                let older = text("older_run_id").unwrap_or_default();
                self.tell_to_stop(&older, run_id).await?;
                return Ok(Some(older));
            }
            let mut older = newest.clone().unwrap_or_default();
            // One whose run is not made (yet) cannot say whom it replaces itself.
            if let Some(newest) = &newest
                && self.table.get(&run_key(newest)).await?.is_none()
                && let Some(still_older) = text("older_run_id")
            {
                for id in still_older.split_whitespace().take(OLDER_RUNS_MAX) {
                    older.push(' ');
                    older.push_str(id);
                }
            }
            let mut conditions = vec![match &newest {
                Some(newest) => Condition::Equals("run_id", newest.as_str().into()),
                None => Condition::Absent("run_id"),
            }];
            if let Some(sequencer) = &source.sequencer {
                conditions.push(Condition::Equals("sequencer", sequencer.as_str().into()));
            }
            let exchange = Update {
                set: vec![
                    ("run_id", run_id.into()),
                    ("older_run_id", older.as_str().into()),
                    ("expires_at", expires_at.into()),
                ],
                condition: Some(Condition::All(conditions)),
                ..Update::default()
            };
            match self.table.update(latest, exchange).await? {
                Changed::Yes(_) => {
                    self.tell_to_stop(&older, run_id).await?;
                    return Ok(Some(older));
                }
                Changed::No(item) => {
                    let newer = item.as_ref().and_then(|item| item.get("sequencer"));
                    if let (Some(Value::S(newer)), Some(ours)) = (newer, &source.sequencer)
                        && newer > ours
                    {
                        return Ok(None);
                    }
                }
            }
        }
        let message = "admitting the object: other events keep changing its newest run";
        Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE, message))
    }

    async fn tell_to_stop(&self, older: &str, run_id: &str) -> Result<()> {
        for older in older.split_whitespace() {
            let stop = Update {
                set: vec![("superseded_by", run_id.into())],
                condition: Some(Condition::Equals("outcome", "open".into())),
                ..Update::default()
            };
            self.table.update(&run_key(older), stop).await?;
        }
        Ok(())
    }

    /// The open runs of older versions of an object, the oldest first. They end before a newer one writes, each after those that are
    /// older still. `newest`: ids of the youngest of them, separated by spaces.
    ///
    /// A run that was itself replaced before it wrote has ended without waiting for anybody: whom it should have waited for is looked at in its
    /// place.
    pub async fn older_open(&self, newest: &str) -> Result<Vec<Run>> {
        let mut open: Vec<Run> = Vec::new();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut left: Vec<String> = newest.split_whitespace().map(str::to_owned).collect();
        while let Some(run_id) = left.pop().filter(|_| open.len() < OLDER_RUNS_MAX && seen.len() < OLDER_LOOKS_MAX) {
            if !seen.insert(run_id.clone()) {
                continue;
            }
            let Some(run) = self.get(&run_id).await?.filter(|run| !self.leaves_nobody_before_it(run)) else { continue };
            left.extend(run.older.iter().flat_map(|older| older.split_whitespace()).map(str::to_owned));
            if run.outcome.is_none() {
                open.push(run);
            }
        }
        // Ids begin with the moment at which they were made.
        open.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        Ok(open)
    }

    /// Whether no run of a version older than this run's can still be at work: it has waited for them, or they were told so long ago.
    fn leaves_nobody_before_it(&self, run: &Run) -> bool {
        match run.outcome {
            None => false,
            Some(Outcome::Done | Outcome::Aborted | Outcome::Invalid) => true,
            // They are told before a run is made.
            Some(_) => run.started_at.saturating_add(TOLD_BEFORE).is_ok_and(|end| end < self.clock.now()),
        }
    }

    /// Ends a run of an older version without a report, if nobody has taken it up meanwhile: where not even that can be done.
    pub async fn end_superseded(&self, run: &Run) -> Result<()> {
        let end = Update {
            set: vec![("outcome", Outcome::Superseded.as_str().into()), ("lease_expires_at", 0.into())],
            condition: Some(Condition::All(vec![
                Condition::Equals("outcome", "open".into()),
                Condition::Equals("fence", run.fence.into()),
            ])),
            ..Update::default()
        };
        match self.table.update(&run_key(&run.run_id), end).await? {
            Changed::Yes(_) => self.close(&run.run_id).await,
            Changed::No(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use async_trait::async_trait;

    use super::{
        super::{Table, memory::MemoryTable},
        *,
    };
    use crate::clock::{Clock as _, VirtualClock};

    /// A table before which the third event is admitted at the moment when the second one's run is made.
    struct Crossed {
        inner: Rc<MemoryTable>,
        clock: Rc<VirtualClock>,
        is_crossed: Cell<bool>,
    }

    #[async_trait(?Send)]
    impl Table for Crossed {
        async fn get(&self, key: &Key) -> Result<Option<Item>> {
            self.inner.get(key).await
        }
        async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
            let makes_two = *key == run_key("two") && update.set.iter().any(|(name, _)| *name == "job");
            if makes_two && !self.is_crossed.replace(true) {
                let three = admit(&Runs::new(self.inner.clone(), self.clock.clone()), "three").await;
                assert!(!three.superseded);
            }
            self.inner.update(key, update).await
        }
        async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
            self.inner.delete(key, condition).await
        }
        async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
            self.inner.query(pk, limit).await
        }
        fn writes(&self) -> u64 {
            self.inner.writes()
        }
    }

    async fn admit(runs: &Runs, id: &str) -> Run {
        let source = RunSource {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            version_id: Some(id.to_owned()),
            etag: id.to_owned(),
            size: 1,
            sequencer: None,
        };
        match runs.admit("import", "contacts", &source, "", id, |_| false).await.unwrap() {
            Admission::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_run_that_is_made_after_it_was_replaced_knows_it_and_the_newer_one_waits_for_all_before() {
        let inner = Rc::new(MemoryTable::new());
        let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
        let runs = Runs::new(inner.clone(), clock.clone());
        admit(&runs, "one").await;
        let crossed = Crossed { inner, clock: clock.clone(), is_crossed: Cell::new(false) };
        let two = admit(&Runs::new(Rc::new(crossed), clock), "two").await;
        assert!(two.superseded, "it would write on top of the newer one");
        assert!(runs.get("one").await.unwrap().unwrap().superseded);
        let three = runs.get("three").await.unwrap().unwrap();
        let waits_for = runs.older_open(three.older.as_deref().unwrap()).await.unwrap();
        let ids: Vec<_> = waits_for.iter().map(|run| run.run_id.as_str()).collect();
        assert_eq!(ids, ["one", "two"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_ended_because_it_was_replaced_hands_on_whom_it_has_not_waited_for() {
        // GIVEN a run at work, and two of newer versions that were replaced before they had waited for it
        let clock = Rc::new(VirtualClock::starting_at("2026-11-22T22:00:00Z".parse().unwrap()));
        let runs = Runs::new(Rc::new(MemoryTable::new()), clock.clone());
        admit(&runs, "one").await;
        for id in ["two", "three"] {
            let run = admit(&runs, id).await;
            runs.end_superseded(&run).await.unwrap();
        }
        // WHEN the newest one asks whom it has to wait for
        let four = admit(&runs, "four").await;
        let ids = async || -> Vec<String> {
            let open = runs.older_open(four.older.as_deref().unwrap()).await.unwrap();
            open.into_iter().map(|run| run.run_id).collect()
        };
        // THEN it is the run at work: it would else write after the newest one
        assert_eq!(ids().await, ["one"]);
        // AND not for ever: who was told to stop has lost its lease by then
        clock.sleep(TOLD_BEFORE + Duration::from_secs(1)).await;
        assert_eq!(ids().await, Vec::<String>::new());
    }
}
