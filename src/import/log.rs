//! A log that grows over many invocations and is durable at every checkpoint, on a store that cannot append.
//!
//! Rejects (and whatever else a run collects) are kept in chunks of about a megabyte. Full chunks never change; the tail is written again
//! at each checkpoint, under a name that carries the writer's fence. The checkpoint lists the chunks and how many bytes of the
//! tail are valid: what a dead or fenced-off writer added later is never looked at.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    error::Result,
    mutate::{self, Bug},
    objects::{Location, Objects},
};

/// A chunk is closed when it has reached this size: large enough that a list of chunks stays short, small enough to rewrite.
pub const CHUNK_BYTES: usize = 1024 * 1024;

/// Chunks that are fetched at once where a log is read: a gigabyte in ten seconds at S3's usual latency, in four megabytes of memory.
const READ_AHEAD: usize = 4;

/// The durable part of a log, as the checkpoint keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogState {
    /// Fences under which the full chunks were written, by chunk number.
    pub chunks: Vec<i64>,
    /// Fence under which the tail was written.
    pub tail_fence: i64,
    /// Valid bytes of the tail; 0 if there is none.
    pub tail_bytes: usize,
}

impl LogState {
    /// Whether nothing was ever logged.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail_bytes == 0
    }
}

/// What has to be written before a checkpoint may claim it.
pub struct Unsaved {
    writes: Vec<(Location, Bytes)>,
    /// The state that holds once the writes are done.
    pub state: LogState,
}

impl Unsaved {
    /// Makes it durable.
    pub async fn write(&self, objects: &dyn Objects) -> Result<()> {
        for (location, bytes) in &self.writes {
            objects.put(location, bytes.clone(), "application/octet-stream").await?;
        }
        Ok(())
    }
}

/// The log of one run.
pub struct Log {
    objects: Rc<dyn Objects>,
    prefix: Location,
    name: &'static str,
    fence: i64,
    /// What is durable.
    saved: LogState,
    /// Chunks that are full but not durable yet.
    full: Vec<Bytes>,
    tail: Vec<u8>,
}

impl Log {
    /// Continues a log from its durable part. `prefix` is the run's own folder.
    pub async fn open(
        objects: Rc<dyn Objects>,
        prefix: Location,
        name: &'static str,
        fence: i64,
        saved: LogState,
    ) -> Result<Self> {
        let saved = if mutate::on(Bug::RejectsDroppedOnResume) { LogState::default() } else { saved };
        let mut log = Self { objects, prefix, name, fence, tail: Vec::new(), full: Vec::new(), saved };
        if log.saved.tail_bytes > 0 {
            let location = log.chunk(log.saved.chunks.len(), log.saved.tail_fence);
            log.tail = log.read(&location).await?;
            if log.tail.len() < log.saved.tail_bytes {
                return Err(crate::Error::new(
                    crate::ErrorKind::Corrupt,
                    crate::codes::STATE_CORRUPT,
                    format!("{location} is shorter than a checkpoint says"),
                ));
            }
            log.tail.truncate(log.saved.tail_bytes);
        }
        Ok(log)
    }

    /// Appends.
    pub fn append(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() >= CHUNK_BYTES {
            self.full.push(std::mem::take(&mut self.tail).into());
        }
    }

    /// Whether nothing was ever logged.
    pub fn is_empty(&self) -> bool {
        self.saved.is_empty() && self.full.is_empty() && self.tail.is_empty()
    }

    /// Whether something was logged that is not durable.
    pub fn dirty(&self) -> bool {
        !self.full.is_empty() || self.tail.len() != self.saved.tail_bytes
    }

    /// Whether a chunk is held in memory that could be written and let go.
    pub fn has_full_chunk(&self) -> bool {
        !self.full.is_empty()
    }

    /// What must be written to make everything logged so far durable.
    pub fn unsaved(&self) -> Unsaved {
        let mut state = self.saved.clone();
        let mut writes = Vec::new();
        for bytes in &self.full {
            writes.push((self.chunk(state.chunks.len(), self.fence), bytes.clone()));
            state.chunks.push(self.fence);
        }
        if !self.tail.is_empty() && self.dirty() {
            writes.push((self.chunk(state.chunks.len(), self.fence), Bytes::copy_from_slice(&self.tail)));
            state.tail_fence = self.fence;
        }
        state.tail_bytes = self.tail.len();
        Unsaved { writes, state }
    }

    /// Takes note that `state` is durable and claimed by a checkpoint.
    pub fn saved(&mut self, state: LogState) {
        let newly_full = state.chunks.len().saturating_sub(self.saved.chunks.len());
        self.full.drain(..newly_full.min(self.full.len()));
        self.saved = state;
    }

    /// Everything logged, chunk by chunk, in order.
    pub async fn for_each_chunk<F>(&self, mut each: F) -> Result<()>
    where
        F: AsyncFnMut(&[u8]) -> Result<()>,
    {
        let reads = self.saved.chunks.iter().enumerate().map(|(number, fence)| async move {
            let location = self.chunk(number, *fence);
            self.read(&location).await
        });
        let mut reads = std::pin::pin!(stream::iter(reads).buffered(READ_AHEAD));
        while let Some(bytes) = reads.next().await {
            each(&bytes?).await?;
        }
        for bytes in &self.full {
            each(bytes).await?;
        }
        if self.tail.is_empty() { Ok(()) } else { each(&self.tail).await }
    }

    /// Writes everything logged, after `head`, into one object.
    pub async fn join(&self, into: &Location, head: &[u8], content_type: &str) -> Result<()> {
        if self.saved.chunks.is_empty() && self.full.is_empty() {
            let mut body = head.to_vec();
            body.extend_from_slice(&self.tail);
            return self.objects.put(into, body.into(), content_type).await;
        }
        let mut upload = self.objects.upload(into, content_type).await?;
        upload.write(head).await?;
        self.for_each_chunk(async |bytes| upload.write(bytes).await).await?;
        upload.finish().await
    }

    /// Removes the chunks. What a dead writer left under another fence goes with them.
    pub async fn remove(&self) -> Result<()> {
        if self.saved.is_empty() {
            return Ok(());
        }
        let prefix = Location::new(&self.prefix.bucket, format!("{}{}-", self.prefix.key, self.name));
        for location in self.objects.list(&prefix).await? {
            self.objects.delete(&location).await?;
        }
        Ok(())
    }

    async fn read(&self, location: &Location) -> Result<Vec<u8>> {
        let Some((bytes, _)) = self.objects.get(location).await? else {
            return Err(crate::Error::new(
                crate::ErrorKind::Corrupt,
                crate::codes::STATE_CORRUPT,
                format!("{location}, which a checkpoint lists, is not there"),
            ));
        };
        Ok(bytes.to_vec())
    }

    fn chunk(&self, number: usize, fence: i64) -> Location {
        Location::new(&self.prefix.bucket, format!("{}{}-{number:06}-{fence}", self.prefix.key, self.name))
    }
}
