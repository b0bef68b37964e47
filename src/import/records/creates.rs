//! Creates that cannot be repeated: written down before they are sent, and their verdicts after.
//!
//! Where nothing but the account's own id names a record, a create whose answer is lost may not be sent again. What an invocation was
//! creating when it died is known to the next one from here: what has a verdict keeps it, what has none is told as not known.

use std::{collections::HashMap, rc::Rc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    codes,
    error::{Error, ErrorKind, Result},
    hubspot::verdict::Verdict,
    objects::{Location, Objects},
    record::Input,
};

/// What an earlier invocation left behind of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earlier {
    /// HubSpot has it.
    Created,
    /// It was sent, and nobody knows.
    Doubtful,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Batch {
    keys: Vec<String>,
    /// Those that were made.
    created: Vec<String>,
    /// Those that HubSpot refused, or that were not sent: they may be sent again.
    refused: Vec<String>,
}

/// Where a run's creates are written down.
#[derive(Clone)]
pub(super) struct Creates {
    objects: Rc<dyn Objects>,
    /// The run's working files.
    folder: Location,
}

impl Creates {
    pub(super) fn new(objects: Rc<dyn Objects>, folder: Location) -> Self {
        Self { objects, folder }
    }

    fn prefix(&self) -> Location {
        Location::new(&self.folder.bucket, format!("{}creates-", self.folder.key))
    }

    /// What earlier invocations were creating.
    pub(super) async fn earlier(&self) -> Result<HashMap<String, Earlier>> {
        let mut earlier = HashMap::new();
        for at in self.objects.list(&self.prefix()).await? {
            let Some((bytes, _)) = self.objects.get(&at).await? else { continue };
            let batch: Batch = serde_json::from_slice(&bytes).map_err(|error| {
                let message = format!("{at} cannot be read: what was being created is not known");
                Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message).with_source(error)
            })?;
            for key in batch.keys {
                let created = batch.created.contains(&key);
                if !batch.refused.contains(&key) {
                    earlier.insert(key, if created { Earlier::Created } else { Earlier::Doubtful });
                }
            }
        }
        Ok(earlier)
    }

    /// Notes what is about to be sent. `number` is unique to the batch.
    pub(super) async fn intend(&self, number: &str, inputs: &[Input]) -> Result<()> {
        self.put(number, Batch { keys: keys_of(inputs), ..Batch::default() }).await
    }

    /// Notes what became of it; what has no verdict was not sent.
    pub(super) async fn note(&self, number: &str, inputs: &[Input], verdicts: &[Option<Verdict>]) -> Result<()> {
        let mut batch = Batch { keys: keys_of(inputs), ..Batch::default() };
        for (input, verdict) in inputs.iter().zip(verdicts) {
            match verdict {
                Some(Verdict::Written { .. }) => batch.created.push(input.key.clone()),
                Some(Verdict::Refused(_)) | None => batch.refused.push(input.key.clone()),
                Some(Verdict::Unknown) => {}
            }
        }
        self.put(number, batch).await
    }

    async fn put(&self, number: &str, batch: Batch) -> Result<()> {
        let at = Location::new(&self.folder.bucket, format!("{}{number}.json", self.prefix().key));
        let body = serde_json::to_vec(&batch).unwrap_or_default();
        self.objects.put(&at, Bytes::from(body), "application/json").await
    }

    /// Takes the notes away: every row is accounted for.
    pub(super) async fn remove(&self) -> Result<()> {
        for at in self.objects.list(&self.prefix()).await? {
            self.objects.delete(&at).await?;
        }
        Ok(())
    }
}

fn keys_of(inputs: &[Input]) -> Vec<String> {
    inputs.iter().map(|input| input.key.clone()).collect()
}
