//! Objects that outlive the cloud: a journal of what became of them, beside their bodies, so that the next cloud finds what this one had.
//!
//! A line is written after each change, under the lock of the state, so that the order of lines is the order of changes. A line that was cut
//! off by a crash is the last one, and is dropped. Files that no line names are left over from uploads that were not completed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::{Blob, Bucket, Content, Version};
use crate::aws::lock;

/// The journal's name. Bodies are `<number>.body`.
const JOURNAL: &str = "index.jsonl";

/// A change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    /// A bucket is there, with versions or without.
    Bucket { name: String, versioned: bool },
    /// A bucket is gone.
    Gone { name: String },
    /// An object has a new version; no files: a delete marker.
    Version {
        bucket: String,
        key: String,
        id: String,
        files: Option<Vec<(String, u64)>>,
        size: u64,
        etag: String,
        modified: Timestamp,
        sequencer: String,
        crc32: Option<String>,
        headers: Vec<(String, String)>,
    },
    /// A version is gone.
    Removed { bucket: String, key: String, id: String },
}

/// The journal of a folder.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    file: Mutex<File>,
    /// Set when the cloud ends: from then on bodies stay although nobody holds them.
    ends: Arc<AtomicBool>,
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) buckets: BTreeMap<String, Bucket>,
    /// The greatest of the sequencers and of the file numbers.
    pub(super) sequence: u64,
    pub(super) files: u64,
}

impl Journal {
    /// Opens the journal of `folder`, says what it holds, writes it anew without what is over, and removes bodies that nobody needs.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Loaded)> {
        let ends = Arc::new(AtomicBool::new(false));
        let path = folder.join(JOURNAL);
        let mut loaded = Loaded::default();
        let mut blobs = BTreeMap::new();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        for entry in text.lines().map_while(|line| serde_json::from_str(line).ok()) {
            apply(&mut loaded, &mut blobs, folder, &ends, entry);
        }
        let anew = folder.join("index.new");
        let mut file = File::create(&anew)?;
        let mut needed = BTreeSet::new();
        for (name, bucket) in &loaded.buckets {
            line(&mut file, &Entry::Bucket { name: name.clone(), versioned: bucket.versioned })?;
            for (key, versions) in &bucket.objects {
                for version in versions {
                    let entry = of_version(name, key, version);
                    if let Entry::Version { files: Some(files), .. } = &entry {
                        needed.extend(files.iter().map(|(name, _)| name.clone()));
                    }
                    line(&mut file, &entry)?;
                }
            }
        }
        file.sync_all()?;
        fs::rename(&anew, &path)?;
        for found in fs::read_dir(folder)? {
            let name = found?.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(".body")) else { continue };
            loaded.files = loaded.files.max(name.trim_end_matches(".body").parse().unwrap_or(0));
            if !needed.contains(name) {
                fs::remove_file(folder.join(name))?;
            }
        }
        Ok((Self { folder: folder.to_owned(), file: Mutex::new(file), ends }, loaded))
    }

    /// Bodies stay from now on.
    pub(super) fn close(&self) {
        self.ends.store(true, Ordering::SeqCst);
    }

    /// What tells a body of this folder whether to stay.
    pub(super) fn ends(&self) -> &Arc<AtomicBool> {
        &self.ends
    }

    /// Gives a body that is in memory a file.
    pub(super) fn spill(&self, number: u64, content: Content, size: u64) -> io::Result<Content> {
        let Content::Memory(bytes) = content else { return Ok(content) };
        let path = self.folder.join(file_name(number));
        let written = fs::write(&path, &bytes[..bytes.len().min(usize::try_from(size).unwrap_or(usize::MAX))]);
        let blob = Blob { path, stays: Some(Arc::clone(&self.ends)) };
        written.map(|()| Content::File(Arc::new(blob)))
    }

    pub(super) fn bucket(&self, name: &str, versioned: bool) {
        self.write(&Entry::Bucket { name: name.to_owned(), versioned });
    }

    pub(super) fn gone(&self, name: &str) {
        self.write(&Entry::Gone { name: name.to_owned() });
    }

    pub(super) fn version(&self, bucket: &str, key: &str, version: &Version) {
        self.write(&of_version(bucket, key, version));
    }

    pub(super) fn removed(&self, bucket: &str, key: &str, id: &str) {
        self.write(&Entry::Removed { bucket: bucket.to_owned(), key: key.to_owned(), id: id.to_owned() });
    }

    fn write(&self, entry: &Entry) {
        if let Err(error) = line(&mut lock(&self.file), entry) {
            tracing::error!(%error, "the index of the objects cannot be written: the next start will not know of this change");
        }
    }
}

/// The name of a body's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.body")
}

fn line(file: &mut File, entry: &Entry) -> io::Result<()> {
    let mut text = serde_json::to_vec(entry)?;
    text.push(b'\n');
    file.write_all(&text)
}

fn of_version(bucket: &str, key: &str, version: &Version) -> Entry {
    let files = version.content.as_ref().map(|content| {
        let mut all = Vec::new();
        files(content, version.size, &mut all);
        all
    });
    Entry::Version {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        id: version.id.clone(),
        files,
        size: version.size,
        etag: version.etag.clone(),
        modified: version.modified,
        sequencer: version.sequencer.clone(),
        crc32: version.crc32.clone(),
        headers: version.headers.clone(),
    }
}

/// The files of a body with their sizes, in order. What is made when it is read has none.
fn files(content: &Content, size: u64, all: &mut Vec<(String, u64)>) {
    match content {
        Content::File(blob) => {
            let name = blob.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            all.push((name.to_owned(), size));
        }
        Content::Parts(parts) => parts.iter().for_each(|(content, size)| files(content, *size, all)),
        Content::Memory(_) | Content::Generated(_) => {}
    }
}

fn apply(
    loaded: &mut Loaded,
    blobs: &mut BTreeMap<String, Arc<Blob>>,
    folder: &Path,
    ends: &Arc<AtomicBool>,
    entry: Entry,
) {
    match entry {
        Entry::Bucket { name, versioned } => {
            loaded.buckets.entry(name).or_insert_with(|| Bucket::new(versioned)).versioned = versioned;
        }
        Entry::Gone { name } => {
            loaded.buckets.remove(&name);
        }
        Entry::Removed { bucket, key, id } => {
            if let Some(bucket) = loaded.buckets.get_mut(&bucket) {
                bucket.remove(&key, &id);
            }
        }
        Entry::Version { bucket, key, id, files, size, etag, modified, sequencer, crc32, headers } => {
            let digits = sequencer.get(3..).unwrap_or_default();
            loaded.sequence = loaded.sequence.max(u64::from_str_radix(digits, 16).unwrap_or(0));
            let content = files.map(|files| {
                let mut parts = files.into_iter().map(|(name, size)| {
                    let path = folder.join(&name);
                    let new = || Arc::new(Blob { path, stays: Some(Arc::clone(ends)) });
                    (Content::File(Arc::clone(blobs.entry(name).or_insert_with(new))), size)
                });
                match (parts.next(), parts.len()) {
                    (None, _) => Content::Memory(bytes::Bytes::new()),
                    (Some((one, _)), 0) => one,
                    (Some(first), _) => Content::Parts(Arc::new(std::iter::once(first).chain(parts).collect())),
                }
            });
            if let Some(bucket) = loaded.buckets.get_mut(&bucket) {
                bucket.push(&key, Version { id, content, size, etag, modified, sequencer, crc32, headers });
            }
        }
    }
}
