//! Files in memory: for tests and simulations. Deterministic; fails only where it is told to.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    ops::Range,
    rc::Rc,
};

use async_trait::async_trait;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Location, ObjectVersion, Objects, Upload};
use crate::{
    codes::{self, Code},
    error::{Error, ErrorKind, Result},
};

/// Files in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryObjects(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_versioned: bool,
    objects: RefCell<BTreeMap<Location, Vec<Stored>>>,
    faults: RefCell<VecDeque<(ErrorKind, Code)>>,
    read_faults: RefCell<BTreeMap<Location, VecDeque<(ErrorKind, Code)>>>,
    requests: Cell<u64>,
    versions: Cell<u64>,
}

/// One version of an object; without bytes, a delete marker.
#[derive(Debug, Clone)]
struct Stored {
    version_id: Option<String>,
    bytes: Option<Bytes>,
    content_type: String,
}

impl MemoryObjects {
    /// Buckets that keep the last version only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Buckets that keep all versions.
    pub fn versioned() -> Self {
        Self(Rc::new(Inner { is_versioned: true, ..Inner::default() }))
    }

    /// Places an object, not counted as a request.
    pub fn insert(&self, location: &Location, bytes: impl Into<Bytes>) {
        self.store(location, Some(bytes.into()), "application/octet-stream");
    }

    /// What is at `location` now, not counted as a request.
    pub fn contents(&self, location: &Location) -> Option<Bytes> {
        self.0.objects.borrow().get(location)?.last()?.bytes.clone()
    }

    /// The content type of what is at `location` now.
    pub fn content_type(&self, location: &Location) -> Option<String> {
        Some(self.0.objects.borrow().get(location)?.last()?.content_type.clone())
    }

    /// The next request that has no fault yet fails like this and does nothing. Requests line up faults in order.
    pub fn fail_next(&self, kind: ErrorKind, code: Code) {
        self.0.faults.borrow_mut().push_back((kind, code));
    }

    /// The next `times` reads of `location` fail like this.
    pub fn fail_reads_for(&self, location: &Location, times: usize, kind: ErrorKind, code: Code) {
        let mut faults = self.0.read_faults.borrow_mut();
        faults.entry(location.clone()).or_default().extend(std::iter::repeat_n((kind, code), times));
    }

    fn store(&self, location: &Location, bytes: Option<Bytes>, content_type: &str) {
        let number = self.0.versions.get() + 1;
        self.0.versions.set(number);
        let version_id = self.0.is_versioned.then(|| format!("v{number}"));
        let mut objects = self.0.objects.borrow_mut();
        let versions = objects.entry(location.clone()).or_default();
        if !self.0.is_versioned {
            versions.clear();
        }
        versions.push(Stored { version_id, bytes, content_type: content_type.to_owned() });
    }

    /// Counts a request, lets other futures have a turn, and fails if the request was told to.
    async fn request(&self, location: &Location) -> Result<()> {
        self.0.requests.set(self.0.requests.get() + 1);
        tokio::task::yield_now().await;
        let fault = self.0.faults.borrow_mut().pop_front();
        told(fault, location)
    }

    fn find(&self, location: &Location, version_id: Option<&str>) -> Result<(Bytes, Option<String>)> {
        let objects = self.0.objects.borrow();
        let versions = objects.get(location).map(Vec::as_slice).unwrap_or_default();
        let stored = match version_id {
            Some(id) => versions.iter().find(|stored| stored.version_id.as_deref() == Some(id)),
            None => versions.last(),
        };
        let found = stored.and_then(|stored| Some((stored.bytes.clone()?, stored.version_id.clone())));
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, format!("{location}: there is no such object"))
        })
    }
}

fn told(fault: Option<(ErrorKind, Code)>, location: &Location) -> Result<()> {
    match fault {
        Some((kind, code)) => Err(Error::new(kind, code, format!("{location}: the objects were told to fail"))),
        None => Ok(()),
    }
}

fn etag(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

#[async_trait(?Send)]
impl Objects for MemoryObjects {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        self.request(location).await?;
        let (bytes, version_id) = self.find(location, version_id)?;
        Ok(ObjectVersion { location: location.clone(), version_id, etag: etag(&bytes), size: bytes.len() as u64 })
    }

    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        self.request(&object.location).await?;
        let fault = self.0.read_faults.borrow_mut().get_mut(&object.location).and_then(VecDeque::pop_front);
        told(fault, &object.location)?;
        let (bytes, _) = self.find(&object.location, object.version_id.as_deref())?;
        if etag(&bytes) != object.etag {
            let message = format!("{}: it was overwritten while it was read", object.location);
            return Err(Error::new(ErrorKind::Conflict, codes::SOURCE_CHANGED, message));
        }
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes.slice(at(range.start)..at(range.end).max(at(range.start))))
    }

    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        self.request(location).await?;
        Ok(self.find(location, None).ok().map(|(bytes, _)| (bytes.clone(), etag(&bytes))))
    }

    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()> {
        self.request(location).await?;
        self.store(location, Some(body), content_type);
        Ok(())
    }

    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool> {
        self.request(location).await?;
        if self.contents(location).is_some() {
            return Ok(false);
        }
        self.store(location, Some(body), content_type);
        Ok(true)
    }

    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>> {
        let content_type = content_type.to_owned();
        Ok(Box::new(MemoryUpload { objects: self.clone(), location: location.clone(), content_type, held: Vec::new() }))
    }

    async fn delete(&self, location: &Location) -> Result<()> {
        self.request(location).await?;
        if self.0.is_versioned {
            self.store(location, None, "");
        } else {
            self.0.objects.borrow_mut().remove(location);
        }
        Ok(())
    }

    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        self.request(prefix).await?;
        let objects = self.0.objects.borrow();
        let below = objects.range(prefix.clone()..);
        let below = below.take_while(|(at, _)| at.bucket == prefix.bucket && at.key.starts_with(&prefix.key));
        let seen = below.filter(|(_, versions)| versions.last().is_some_and(|stored| stored.bytes.is_some()));
        Ok(seen.map(|(at, _)| at.clone()).collect())
    }

    fn requests(&self) -> u64 {
        self.0.requests.get()
    }
}

struct MemoryUpload {
    objects: MemoryObjects,
    location: Location,
    content_type: String,
    held: Vec<u8>,
}

#[async_trait(?Send)]
impl Upload for MemoryUpload {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.objects.request(&self.location).await?;
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.objects.request(&self.location).await?;
        self.objects.store(&self.location, Some(self.held.into()), &self.content_type);
        Ok(())
    }
}
