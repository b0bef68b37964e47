//! Files of this machine beside another door: what a command line imports without a bucket.
//!
//! Everything that a run of such a file writes (rejects, report, working files) goes into one folder, which stands in for the bucket: the
//! bucket's name is the folder's path. A key that is itself a path is a file of the user's, read in place and never written. All
//! other locations are the other door's.
//!
//! A file's entity tag is the hash of its content, whatever its size: the same content at the same path is the same version. The hash is
//! taken once for each state of the file; a state is told by size, time of change and place on the disk.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::{Location, ObjectVersion, Objects, Upload, folder::Folder};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
};

/// Bytes that are hashed at a time.
const HASH_BYTES: usize = 256 * 1024;

/// Files of this machine, and another door for everything else.
pub struct LocalFiles {
    bucket: String,
    folder: Folder,
    elsewhere: Rc<dyn Objects>,
    tags: RefCell<BTreeMap<PathBuf, (Stamp, String)>>,
}

/// A state of a file: length, nanoseconds since 1970 of its last change, place on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u128, u64);

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        #[cfg(unix)]
        let place = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let place = 0_u64;
        Ok(Self(metadata.len(), changed, place))
    }
}

impl LocalFiles {
    /// What runs of local files write goes into `folder`, an absolute path; it is made when it is written to.
    pub fn new(folder: &Path, elsewhere: Rc<dyn Objects>) -> Self {
        let bucket = folder.display().to_string();
        let files = Folder::new(folder).with_bucket(bucket.clone(), folder);
        Self { bucket, folder: files, elsewhere, tags: RefCell::default() }
    }

    /// Where the file at the absolute `path` is, for a job. `None` if its name is no text.
    pub fn file(&self, path: &Path) -> Option<Location> {
        Some(Location::new(&self.bucket, path.to_str()?))
    }

    /// The location that is shown as `text`, in a report or elsewhere. `None` if `text` is neither in S3 nor in the folder.
    pub fn shown_as(&self, text: &str) -> Option<Location> {
        let local = || Some(Location::new(&self.bucket, text.strip_prefix(self.bucket.as_str())?.strip_prefix('/')?));
        Location::parse(text).or_else(local)
    }

    fn is_here(&self, location: &Location) -> bool {
        location.bucket == self.bucket
    }

    /// The open file, if `location` is one of the user's own.
    fn open(&self, location: &Location) -> Option<Result<(File, PathBuf)>> {
        let path = Path::new(&location.key);
        if !self.is_here(location) || !path.is_absolute() {
            return None;
        }
        let opened = File::open(path).and_then(|file| match file.metadata()?.is_file() {
            true => Ok((file, path.to_owned())),
            false => Err(io::ErrorKind::IsADirectory.into()),
        });
        Some(opened.map_err(|error| failed(location, error)))
    }

    /// The door for what is not a file of the user's own.
    fn door(&self, location: &Location) -> &dyn Objects {
        if self.is_here(location) { &self.folder } else { &*self.elsewhere }
    }

    /// The entity tag of an open file and its length. Leaves the file's position anywhere.
    fn tag(&self, file: &mut File, path: &Path) -> io::Result<(String, u64)> {
        let stamp = Stamp::of(&file.metadata()?)?;
        if let Some((known, tag)) = self.tags.borrow().get(path)
            && *known == stamp
        {
            return Ok((tag.clone(), stamp.0));
        }
        let mut hasher = Xxh3::new();
        let mut part = vec![0; HASH_BYTES];
        file.seek(SeekFrom::Start(0))?;
        loop {
            let length = file.read(&mut part)?;
            if length == 0 {
                break;
            }
            hasher.update(part.get(..length).unwrap_or_default());
        }
        let tag = format!("{:032x}", hasher.digest128());
        // One that is being written has no tag yet; whoever reads it finds that it has changed.
        if Stamp::of(&file.metadata()?)? == stamp {
            self.tags.borrow_mut().insert(path.to_owned(), (stamp, tag.clone()));
        }
        Ok((tag, stamp.0))
    }
}

fn failed(location: &Location, error: io::Error) -> Error {
    let message = format!("read {location}: {error}");
    let made = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, message).with_hint("Check the file's path.")
        }
        io::ErrorKind::IsADirectory => {
            Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, format!("{location} is no plain file"))
                .with_hint("Name a file; what comes through a pipe cannot be continued.")
        }
        io::ErrorKind::PermissionDenied => Error::new(ErrorKind::Forbidden, codes::SOURCE_FORBIDDEN, message)
            .with_hint("Allow this user to read the file."),
        _ => Error::invalid(codes::OBJECTS_UNAVAILABLE, message).with_hint("Check the disk."),
    };
    made.with_source(error)
}

#[async_trait(?Send)]
impl Objects for LocalFiles {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        let Some(opened) = self.open(location) else { return self.door(location).head(location, version_id).await };
        let (mut file, path) = opened?;
        let (etag, size) = self.tag(&mut file, &path).map_err(|error| failed(location, error))?;
        Ok(ObjectVersion { location: location.clone(), version_id: None, etag, size })
    }

    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        let location = &object.location;
        let Some(opened) = self.open(location) else { return self.door(location).read(object, range).await };
        let (mut file, path) = opened?;
        let mut bytes = Vec::new();
        let mut read = || {
            let (before, _) = self.tag(&mut file, &path)?;
            file.seek(SeekFrom::Start(range.start))?;
            let wanted = range.end.saturating_sub(range.start);
            Read::by_ref(&mut file).take(wanted).read_to_end(&mut bytes)?;
            // A file that is written in place changes under the reader: look again.
            let (after, _) = self.tag(&mut file, &path)?;
            Ok(before == object.etag && after == object.etag)
        };
        match read() {
            Ok(true) => Ok(bytes.into()),
            Ok(false) => {
                let message = format!("{location}: it was changed while it was imported");
                Err(Error::new(ErrorKind::Conflict, codes::SOURCE_CHANGED, message)
                    .with_hint("Import the file again: what it says now is a new version."))
            }
            Err(error) => Err(failed(location, error)),
        }
    }

    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        self.door(location).get(location).await
    }

    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()> {
        self.door(location).put(location, body, content_type).await
    }

    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool> {
        self.door(location).put_new(location, body, content_type).await
    }

    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>> {
        self.door(location).upload(location, content_type).await
    }

    async fn delete(&self, location: &Location) -> Result<()> {
        self.door(location).delete(location).await
    }

    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        self.door(prefix).list(prefix).await
    }

    fn requests(&self) -> u64 {
        self.elsewhere.requests()
    }

    fn reaches(&self, location: &Location) -> bool {
        let own = Path::new(&location.key);
        match self.is_here(location) {
            true => !own.is_absolute() || own.is_file(),
            false => self.elsewhere.reaches(location),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::{super::memory::MemoryObjects, *};

    fn local(folder: &tempfile::TempDir) -> (LocalFiles, PathBuf) {
        let path = folder.path().join("contacts.csv");
        fs::write(&path, "email\na@example.com\n").unwrap();
        (LocalFiles::new(&folder.path().join(".hubferry"), Rc::new(MemoryObjects::new())), path)
    }

    #[tokio::test]
    async fn a_file_is_read_in_place_under_a_tag_of_its_content_and_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let (files, path) = local(&folder);
        let location = files.file(&path).unwrap();
        assert_eq!(location.to_string(), path.display().to_string(), "people see the path");
        let object = files.head(&location, None).await.unwrap();
        assert_eq!(&files.read(&object, 6..9).await.unwrap()[..], b"a@e");

        // Written anew with the same content: the same version.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "email\na@example.com\n").unwrap();
        assert_eq!(files.head(&location, None).await.unwrap(), object);
        assert!(files.put(&location, Bytes::new(), "").await.is_err());
        assert!(files.put(&Location::new(&location.bucket, "../x"), Bytes::new(), "").await.is_err());
        File::options().append(true).open(&path).unwrap().write_all(b"b@example.com\n").unwrap();
        assert_eq!(files.read(&object, 0..5).await.unwrap_err().code(), codes::SOURCE_CHANGED);

        fs::remove_file(&path).unwrap();
        assert_eq!(files.head(&location, None).await.unwrap_err().code(), codes::SOURCE_GONE);
        assert!(!files.reaches(&location));
    }

    #[tokio::test]
    async fn what_a_run_writes_goes_into_the_folder_and_buckets_stay_the_other_doors() {
        let folder = tempfile::tempdir().unwrap();
        let (files, path) = local(&folder);
        let bucket = files.file(&path).unwrap().bucket;
        let rejects = Location::new(&bucket, "rejects/contacts/1.csv");
        files.put(&rejects, "x".into(), "text/csv").await.unwrap();
        assert_eq!(fs::read(folder.path().join(".hubferry/rejects/contacts/1.csv")).unwrap(), b"x");
        assert_eq!(files.shown_as(&rejects.to_string()), Some(rejects));
        let elsewhere = Location::new("crm", "a");
        files.put(&elsewhere, "y".into(), "").await.unwrap();
        assert_eq!(&files.elsewhere.get(&elsewhere).await.unwrap().unwrap().0[..], b"y");
        assert!(!files.reaches(&Location::new("/another/.hubferry", "/another/a.csv")));
    }
}
