//! Jobs without an end, captures: one open run at a time, and what passes from one run to the next.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `capture#<name>` | `position` | the position as people read it, what the next run goes on from, the newest run |
//!
//! While a run is open, its own item is further than this one; it is written when the run ends, before the run is closed. A process
//! may die between any two writes: the newest run is then still open, and whoever comes next goes on with it.

use super::{
    Changed, Condition, Key, Update, Value,
    runs::{Lease, Run, RunSource, Runs, encode, lost, run_key},
};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
};

/// How often beginning is tried when other invocations cross it.
const EXCHANGES_MAX: usize = 8;

/// What passes from one run to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The position, as JSON.
    pub position: String,
    /// What the next run goes on from, as JSON; empty before the first run has ended.
    pub carry: String,
    /// What the position belongs to.
    pub identity: String,
    /// The newest run.
    pub run_id: String,
}

impl Runs {
    /// What is kept of a stream, if it has ever begun.
    pub async fn stream(&self, job: &str, name: &str) -> Result<Option<Stream>> {
        let Some(item) = self.table.get(&stream_key(job, name)).await? else { return Ok(None) };
        let text = |attribute: &str| match item.get(attribute) {
            Some(Value::S(text)) => text.clone(),
            _ => String::new(),
        };
        Ok(Some(Stream {
            position: text("position"),
            carry: text("carry"),
            identity: text("identity"),
            run_id: text("run_id"),
        }))
    }

    /// The stream's open run; a new one, under `new_run_id`, if none is open.
    ///
    /// `NAME_TAKEN` if a stream of this name has another `identity`: its position would mean nothing.
    pub async fn begin(
        &self,
        job: &str,
        name: &str,
        source: &RunSource,
        identity: &str,
        new_run_id: &str,
    ) -> Result<Run> {
        let key = stream_key(job, name);
        for _ in 0..EXCHANGES_MAX {
            let known = self.stream(job, name).await?;
            let mut claimed = new_run_id.to_owned();
            if let Some(stream) = &known {
                if stream.identity != identity {
                    let message = format!(
                        "the {job} `{name}` has a position in `{}`, and is now configured for `{identity}`",
                        stream.identity
                    );
                    return Err(Error::invalid(codes::NAME_TAKEN, message));
                }
                match self.get(&stream.run_id).await? {
                    Some(run) if run.outcome.is_none() => {
                        self.mark_open(&run.run_id).await?;
                        return Ok(run);
                    }
                    Some(_) => {}
                    // Its maker died before it made the run, or is about to: the run keeps its id, or there would be two. A run that is
                    // over is remembered for months; should it have been forgotten, its id serves once more.
                    None => claimed.clone_from(&stream.run_id),
                }
            }
            let claim = Update {
                set: vec![("run_id", claimed.as_str().into()), ("identity", identity.into()), ("fence", 0.into())],
                condition: Some(match &known {
                    None => Condition::Absent("pk"),
                    Some(stream) => Condition::Equals("run_id", stream.run_id.as_str().into()),
                }),
                ..Update::default()
            };
            let ours = match self.table.update(&key, claim).await? {
                Changed::Yes(_) => true,
                // Our own first attempt may have made it.
                Changed::No(Some(item)) => item.get("run_id") == Some(&claimed.as_str().into()),
                Changed::No(None) => false,
            };
            if !ours {
                continue;
            }
            self.mark_open(&claimed).await?;
            let create = Update {
                set: vec![
                    ("job", job.into()),
                    ("name", name.into()),
                    ("source", encode(source)?.into()),
                    ("outcome", "open".into()),
                    ("settings", identity.into()),
                    ("fence", 0.into()),
                    ("invocations", 0.into()),
                    ("started_at", self.clock.now().as_millisecond().into()),
                    ("expires_at", self.remembered_until().into()),
                ],
                condition: Some(Condition::Absent("pk")),
                ..Update::default()
            };
            let item = match self.table.update(&run_key(&claimed), create).await? {
                Changed::Yes(item) | Changed::No(Some(item)) => item,
                Changed::No(None) => continue,
            };
            // Again: a sweep that came between the entry and the run took the entry for a leftover.
            self.mark_open(&claimed).await?;
            let run = Run::from_item(&claimed, &item)?;
            if run.outcome.is_none() {
                return Ok(run);
            }
            self.close(&claimed).await?;
        }
        let message = format!("beginning a run of {job} `{name}`: other invocations keep crossing it");
        Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE, message))
    }

    /// Writes what passes to the next run. `Fenced` if another run, or another owner of this one, has been here.
    pub async fn pass_on(&self, job: &str, name: &str, lease: &Lease, position: &str, carry: &str) -> Result<()> {
        let update = Update {
            set: vec![("position", position.into()), ("carry", carry.into()), ("fence", lease.fence.into())],
            condition: Some(Condition::All(vec![
                Condition::Equals("run_id", lease.run_id.as_str().into()),
                Condition::AtMost("fence", lease.fence.into()),
            ])),
            ..Update::default()
        };
        match self.table.update(&stream_key(job, name), update).await? {
            Changed::Yes(_) => Ok(()),
            Changed::No(_) => Err(lost(lease)),
        }
    }

    /// Forgets a stream, so that it begins anew. Whether there was one that no run is at work on.
    pub async fn forget(&self, job: &str, name: &str) -> Result<bool> {
        let Some(stream) = self.stream(job, name).await? else { return Ok(false) };
        if let Some(run) = self.get(&stream.run_id).await?
            && run.outcome.is_none()
        {
            return Ok(false);
        }
        let condition = Condition::Equals("run_id", stream.run_id.as_str().into());
        self.table.delete(&stream_key(job, name), Some(condition)).await
    }
}

fn stream_key(job: &str, name: &str) -> Key {
    Key::new(format!("{job}#{name}"), "position")
}
