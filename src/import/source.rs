//! The bytes of one version of an object: ranged reads, decompressed in bounded steps.
//!
//! HubSpot paces an import to well under a megabyte a second, so one long GET would sit idle and be cut. Ranges pinned to the
//! version are asked for as they are needed instead; a run that continues starts at its position.

use std::rc::Rc;

use bytes::{Buf, Bytes};
use futures_util::future::LocalBoxFuture;

use crate::{
    config::Compression,
    csv::compression::{self, Decompressor},
    error::Result,
    objects::{ObjectVersion, Objects},
};

/// Bytes of one ranged read.
const RANGE_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of the first read: what kind of file it is shows in the first few, and most files are smaller than a range.
pub(super) const FIRST_BYTES: u64 = 1024 * 1024;

/// Decompressed bytes of one step.
pub(super) const STEP_BYTES: usize = 128 * 1024;

/// What a step brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes were appended.
    Bytes,
    /// Nothing until [`Source::fetched`] returns.
    Wait,
    /// The file has ended.
    End,
}

/// Reads an object from a position on.
pub(super) struct Source {
    objects: Rc<dyn Objects>,
    object: ObjectVersion,
    compression: Option<Compression>,
    decompressor: Option<Decompressor>,
    /// Decompressed bytes to pass over before the position.
    skip: u64,
    /// Next byte of the object to fetch.
    next: u64,
    fetch: Option<LocalBoxFuture<'static, Result<Bytes>>>,
    raw: Bytes,
    ended: bool,
}

impl Source {
    /// Reads `object` from decompressed byte `position` on. `compression` is known where a run continues.
    pub(super) fn new(
        objects: Rc<dyn Objects>,
        object: ObjectVersion,
        compression: Option<Compression>,
        position: u64,
    ) -> Self {
        let (next, skip) = match compression {
            Some(Compression::None) => (position, 0),
            _ => (0, position),
        };
        Self {
            objects,
            object,
            compression,
            decompressor: None,
            skip,
            next,
            fetch: None,
            raw: Bytes::new(),
            ended: false,
        }
    }

    /// How the object is compressed; known after the first [`Step::Bytes`].
    pub(super) fn compression(&self) -> Compression {
        self.compression.unwrap_or(Compression::None)
    }

    /// Bytes of the object that have been fetched, for progress.
    pub(super) fn fetched_bytes(&self) -> u64 {
        self.next.min(self.object.size)
    }

    /// Waits for bytes to be fetched. May be dropped and called again.
    pub(super) async fn fetched(&mut self) -> Result<()> {
        if self.raw.has_remaining() || self.next >= self.object.size && self.fetch.is_none() {
            return Ok(());
        }
        self.start_fetch();
        if let Some(fetch) = &mut self.fetch {
            let result = fetch.await;
            self.fetch = None;
            self.raw = result?;
            self.next += self.raw.len() as u64;
        }
        Ok(())
    }

    fn start_fetch(&mut self) {
        if self.fetch.is_none() && self.next < self.object.size {
            let (objects, object) = (self.objects.clone(), self.object.clone());
            let length = if self.next == 0 { FIRST_BYTES } else { RANGE_BYTES };
            let range = self.next..object.size.min(self.next + length);
            self.fetch = Some(Box::pin(async move { objects.read(&object, range).await }));
        }
    }

    /// Appends some bytes to `out`, at most about [`STEP_BYTES`].
    pub(super) fn step(&mut self, out: &mut Vec<u8>) -> Result<Step> {
        if self.ended {
            return Ok(Step::End);
        }
        if !self.raw.has_remaining() && self.next < self.object.size {
            return Ok(Step::Wait);
        }
        let compression = *self.compression.get_or_insert_with(|| compression::detect(&self.raw));
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new(compression)?),
        };
        let before = out.len();
        let mut input: &[u8] = &self.raw;
        decompressor.step(&mut input, out, STEP_BYTES)?;
        let consumed = self.raw.len() - input.len();
        self.raw.advance(consumed);
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(out.len() - before);
        if skipped > 0 {
            out.drain(before..before + skipped);
            self.skip -= skipped as u64;
        }
        if out.len() > before || consumed > 0 || skipped > 0 {
            return Ok(Step::Bytes);
        }
        if self.next < self.object.size {
            return Ok(Step::Wait);
        }
        decompressor.finish()?;
        self.ended = true;
        Ok(Step::End)
    }
}
