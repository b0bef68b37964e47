//! The door to files: S3 on AWS, a folder on a laptop, memory in tests. What a command line imports of its own disk comes through [`local`].
//!
//! Contract of every implementation: reads are pinned to one version of an object (`If-Match`, or the version id);
//! a `put` replaces the object whole or not at all; an upload is visible only once it is finished.

pub mod folder;
pub mod local;
pub mod memory;
pub mod s3;

use std::{fmt, ops::Range, path::Path};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

/// Where an object is: `s3://bucket/key`, or a path of this machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The bucket.
    pub bucket: String,
    /// The key, not encoded.
    pub key: String,
}

impl Location {
    /// `bucket` and `key` as they are.
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), key: key.into() }
    }

    /// Reads `s3://bucket/key`; the key may be empty or end with `/`.
    pub fn parse(uri: &str) -> Option<Self> {
        let (bucket, key) = uri.strip_prefix("s3://")?.split_once('/').unwrap_or((uri.strip_prefix("s3://")?, ""));
        (!bucket.is_empty()).then(|| Self::new(bucket, key))
    }

    /// Whether it is on the disk of the machine that wrote it down, and not in S3: its bucket is a folder's path (see [`local`]).
    pub fn is_local(&self) -> bool {
        Path::new(&self.bucket).is_absolute()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_local() {
            true if Path::new(&self.key).is_absolute() => f.write_str(&self.key),
            true => write!(f, "{}/{}", self.bucket, self.key),
            false => write!(f, "s3://{}/{}", self.bucket, self.key),
        }
    }
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Where it is.
    pub location: Location,
    /// The version id, on a bucket that keeps versions.
    pub version_id: Option<String>,
    /// The entity tag, without quotes.
    pub etag: String,
    /// Bytes.
    pub size: u64,
}

/// Files.
#[async_trait(?Send)]
pub trait Objects {
    /// The object as it is now, or the given version of it. `NotFound` if there is none.
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion>;

    /// Bytes `range` of exactly this version; fewer only at the end of the object. `range` is not empty and starts inside the object.
    ///
    /// `NotFound` (code `SOURCE_GONE`) if it was deleted, `Conflict` (code `SOURCE_CHANGED`) if it was overwritten.
    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes>;

    /// The whole of a small object with its entity tag, or `None` if there is none.
    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>>;

    /// Writes a whole object.
    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()>;

    /// Writes a whole object where there is none; `false` if there is one, which stays as it is. After an answer that was lost, `false` may
    /// mean our own first attempt.
    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool>;

    /// Starts an object that is written in parts, for what is too large to hold. Dropping the upload leaves nothing visible.
    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>>;

    /// Removes an object; one that is not there is fine.
    async fn delete(&self, location: &Location) -> Result<()>;

    /// Keys below a prefix, in order.
    async fn list(&self, prefix: &Location) -> Result<Vec<Location>>;

    /// How many requests this door has made, for the report's cost line.
    fn requests(&self) -> u64;

    /// Whether this door leads to where `location` is at all: a file of a machine is read on that machine only.
    fn reaches(&self, location: &Location) -> bool {
        !location.is_local()
    }
}

/// An object that is being written in parts.
#[async_trait(?Send)]
pub trait Upload {
    /// Appends; holds back what is less than a part.
    async fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes the object visible.
    async fn finish(self: Box<Self>) -> Result<()>;
}
