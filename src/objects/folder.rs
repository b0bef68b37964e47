//! Files in a folder: `s3://bucket/key` is the file `root/bucket/key`.
//!
//! A file has no versions; its entity tag is made of its content if it is small, and of its size, its time of change and its
//! place on the disk otherwise. Content types are not kept. A key that a folder cannot hold as it is (`a//b`, `..`) is refused,
//! so that no key leads out of the folder.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, ErrorKind as IoKind, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Location, ObjectVersion, Objects, Upload};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
};

/// Up to here the content itself makes the entity tag: reading it takes less than a millisecond.
const CONTENT_TAG_BYTES_MAX: u64 = 1024 * 1024;
/// More files than this want another way than a list in memory.
const LIST_MAX: usize = 100_000;
/// How a file that is being written ends; such files are no objects.
const UNFINISHED: &str = ".hubferry-unfinished";

/// Files in a folder.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    buckets: BTreeMap<String, PathBuf>,
    requests: Rc<Cell<u64>>,
}

impl Folder {
    /// Buckets are the folders in `root`; they are made when they are written to.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), buckets: BTreeMap::new(), requests: Rc::default() }
    }

    /// The bucket `name` is the folder `path` instead.
    #[must_use]
    pub fn with_bucket(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.buckets.insert(name.into(), path.into());
        self
    }

    fn count(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    fn bucket(&self, location: &Location) -> Result<PathBuf> {
        match self.buckets.get(&location.bucket) {
            Some(path) => Ok(path.clone()),
            None if is_plain(&location.bucket) => Ok(self.root.join(&location.bucket)),
            None => Err(unusable(location)),
        }
    }

    fn path(&self, location: &Location) -> Result<PathBuf> {
        let mut path = self.bucket(location)?;
        for part in location.key.split('/') {
            if !is_plain(part) {
                return Err(unusable(location));
            }
            path.push(part);
        }
        Ok(path)
    }

    /// A new file beside `path`, to be renamed to it.
    fn unfinished(&self, location: &Location) -> Result<Unfinished> {
        /// Tells the files of uploads apart that are written at the same time.
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        self.count();
        let path = self.path(location)?;
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.{number}{UNFINISHED}", std::process::id()));
        let part = PathBuf::from(name);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&part));
        let file = made.map_err(|error| failed("write", location, error))?;
        Ok(Unfinished { location: location.clone(), path, part, file })
    }
}

/// Whether `part` names something inside a folder, on every system.
fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part != "."
        && part != ".."
        && !part.contains(['/', '\\', '\0', ':'])
        && !part.ends_with(UNFINISHED)
}

fn unusable(location: &Location) -> Error {
    Error::invalid(codes::OBJECTS_UNAVAILABLE, format!("{location}: a folder cannot hold this name"))
        .with_hint("Use a name without empty parts, `.`, `..`, `\\` and `:`.")
}

fn failed(what: &str, location: &Location, error: io::Error) -> Error {
    let message = format!("{what} {location}: {error}");
    let error_of = |kind, code| Error::new(kind, code, message);
    let made = match error.kind() {
        IoKind::NotFound | IoKind::NotADirectory | IoKind::IsADirectory if what != "write" => {
            error_of(ErrorKind::NotFound, codes::SOURCE_GONE)
        }
        IoKind::PermissionDenied if what == "read" => {
            error_of(ErrorKind::Forbidden, codes::SOURCE_FORBIDDEN).with_hint("Allow this user to read the file.")
        }
        IoKind::PermissionDenied => error_of(ErrorKind::Forbidden, codes::OBJECTS_FORBIDDEN)
            .with_hint("Allow this user to write to the folder."),
        _ => error_of(ErrorKind::Invalid, codes::OBJECTS_UNAVAILABLE)
            .with_hint("Check the folder and the room on the disk."),
    };
    made.with_source(error)
}

/// The entity tag of an open file. Leaves the file's position anywhere.
fn etag(file: &mut File, metadata: &Metadata) -> io::Result<String> {
    if metadata.len() <= CONTENT_TAG_BYTES_MAX {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(CONTENT_TAG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        return Ok(format!("{:016x}", xxh3_64(&bytes)));
    }
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    #[cfg(unix)]
    let place = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let place = 0_u64;
    Ok(format!("{:016x}", xxh3_64(format!("{} {changed} {place}", metadata.len()).as_bytes())))
}

fn open(location: &Location, path: &Path) -> Result<(File, Metadata)> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.map_err(|error| failed("read", location, error))?;
    if !metadata.is_file() {
        return Err(failed("read", location, IoKind::IsADirectory.into()));
    }
    Ok((file, metadata))
}

#[async_trait(?Send)]
impl Objects for Folder {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        self.count();
        if version_id.is_some() {
            let message = format!("{location}: a folder keeps no versions");
            return Err(Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, message));
        }
        let (mut file, metadata) = open(location, &self.path(location)?)?;
        let etag = etag(&mut file, &metadata).map_err(|error| failed("read", location, error))?;
        Ok(ObjectVersion { location: location.clone(), version_id: None, etag, size: metadata.len() })
    }

    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        self.count();
        let location = &object.location;
        let path = self.path(location)?;
        let (mut file, metadata) = open(location, &path)?;
        let before = etag(&mut file, &metadata).map_err(|error| failed("read", location, error))?;
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(range.start)).and_then(|_| {
            let wanted = range.end.saturating_sub(range.start);
            Read::by_ref(&mut file).take(wanted).read_to_end(&mut bytes)?;
            // A file that is written in place changes under the reader: look again.
            let metadata = file.metadata()?;
            etag(&mut file, &metadata)
        });
        let after = read.map_err(|error| failed("read", location, error))?;
        if before != object.etag || after != object.etag {
            let message = format!("{location}: it was changed while it was read");
            return Err(Error::new(ErrorKind::Conflict, codes::SOURCE_CHANGED, message));
        }
        Ok(bytes.into())
    }

    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        let object = match self.head(location, None).await {
            Ok(object) => object,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some((self.read(&object, 0..object.size).await?, object.etag)))
    }

    async fn put(&self, location: &Location, body: Bytes, _content_type: &str) -> Result<()> {
        let mut upload = self.unfinished(location)?;
        upload.append(&body)?;
        upload.publish()
    }

    async fn put_new(&self, location: &Location, body: Bytes, _content_type: &str) -> Result<bool> {
        let mut upload = self.unfinished(location)?;
        upload.append(&body)?;
        upload.publish_new()
    }

    async fn upload(&self, location: &Location, _content_type: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.unfinished(location)?))
    }

    async fn delete(&self, location: &Location) -> Result<()> {
        self.count();
        match fs::remove_file(self.path(location)?) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(()),
            Err(error) => Err(failed("delete", location, error)),
        }
    }

    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        self.count();
        let mut found = Vec::new();
        // Folders still to be looked into, each with the keys' beginning it stands for.
        let mut folders = vec![(self.bucket(prefix)?, String::new())];
        while let Some((folder, beginning)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == IoKind::NotFound => continue,
                Err(error) => return Err(failed("list", prefix, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| failed("list", prefix, error))?;
                // Names that are not text cannot be keys.
                let Ok(name) = entry.file_name().into_string() else { continue };
                let kind = entry.file_type().map_err(|error| failed("list", prefix, error))?;
                let key = format!("{beginning}{name}");
                if kind.is_dir() {
                    let key = format!("{key}/");
                    if key.starts_with(&prefix.key) || prefix.key.starts_with(&key) {
                        folders.push((entry.path(), key));
                    }
                } else if key.starts_with(&prefix.key) && !name.ends_with(UNFINISHED) && entry.path().is_file() {
                    found.push(Location::new(&prefix.bucket, key));
                }
            }
            if found.len() > LIST_MAX {
                let message = format!("list {prefix}: more than {LIST_MAX} files");
                return Err(Error::invalid(codes::OBJECTS_UNAVAILABLE, message).with_hint("Name a narrower prefix."));
            }
        }
        found.sort();
        Ok(found)
    }

    fn requests(&self) -> u64 {
        self.requests.get()
    }
}

/// A file that is being written beside its place.
struct Unfinished {
    location: Location,
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl Unfinished {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| failed("write", &self.location, error))
    }

    /// As [`Self::publish`], unless the object is there: a link, unlike a rename, replaces nothing.
    fn publish_new(self) -> Result<bool> {
        match self.file.sync_all().and_then(|()| fs::hard_link(&self.part, &self.path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == IoKind::AlreadyExists => Ok(false),
            Err(error) => Err(failed("write", &self.location, error)),
        }
    }

    fn publish(self) -> Result<()> {
        let done = self.file.sync_all().and_then(|()| fs::rename(&self.part, &self.path));
        done.map_err(|error| failed("write", &self.location, error))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `publish` there is nothing left to remove.
        let _ = fs::remove_file(&self.part);
    }
}

#[async_trait(?Send)]
impl Upload for Unfinished {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.publish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_key_leads_out_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("outside"), "secret").unwrap();
        let folder = Folder::new(root.path().join("root"));
        for (bucket, key) in [
            ("b", "../../outside"),
            ("..", "outside"),
            ("b", "/etc/passwd"),
            ("b", "a/../../../outside"),
            ("b", "a\\..\\b"),
        ] {
            let location = Location::new(bucket, key);
            assert_eq!(folder.get(&location).await.unwrap_err().kind(), ErrorKind::Invalid, "{location}");
            assert_eq!(
                folder.put(&location, Bytes::new(), "").await.unwrap_err().kind(),
                ErrorKind::Invalid,
                "{location}"
            );
        }
    }

    #[tokio::test]
    async fn a_large_file_that_grew_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new("nowhere").with_bucket("local", root.path());
        let path = root.path().join("large.csv");
        fs::write(&path, vec![b'x'; 2 * 1024 * 1024]).unwrap();
        let object = folder.head(&Location::new("local", "large.csv"), None).await.unwrap();
        assert_eq!(folder.read(&object, 2_097_150..2_097_160).await.unwrap().len(), 2);
        File::options().append(true).open(&path).unwrap().write_all(b"y").unwrap();
        assert_eq!(folder.read(&object, 0..10).await.unwrap_err().code(), codes::SOURCE_CHANGED);
    }

    #[tokio::test]
    async fn an_upload_that_is_dropped_leaves_no_file() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        let mut upload = folder.upload(&Location::new("b", "x"), "").await.unwrap();
        upload.write(b"half").await.unwrap();
        assert_eq!(folder.list(&Location::new("b", "")).await.unwrap(), [], "nor is it seen before it is finished");
        drop(upload);
        assert_eq!(fs::read_dir(root.path().join("b")).unwrap().count(), 0);
    }
}
