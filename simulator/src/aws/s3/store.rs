//! Buckets, versions and bodies, without HTTP.

use std::{
    collections::BTreeMap,
    fmt, io,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use jiff::Timestamp;

/// Bytes of a body read at once, so that an object of any size takes this much memory while it is served.
pub(crate) const FRAME_BYTES: u64 = 256 * 1024;

/// Makes the bytes of a range; must always answer the same for the same range, and exactly that many.
pub type Generator = Arc<dyn Fn(Range<u64>) -> Bytes + Send + Sync>;

/// A file of a body, deleted with its last user.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) path: PathBuf,
    /// Where objects outlive the cloud: set when it ends, and then the file stays.
    pub(crate) stays: Option<Arc<AtomicBool>>,
}

impl Drop for Blob {
    fn drop(&mut self) {
        if self.stays.as_ref().is_none_or(|stays| !stays.load(Ordering::SeqCst)) {
            // A file that cannot be removed is left to whoever owns the folder.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A body.
#[derive(Clone)]
pub(crate) enum Content {
    Memory(Bytes),
    File(Arc<Blob>),
    Generated(Generator),
    /// Parts of a multipart upload with their sizes, in order.
    Parts(Arc<Vec<(Content, u64)>>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "Memory",
            Self::File(_) => "File",
            Self::Generated(_) => "Generated",
            Self::Parts(_) => "Parts",
        })
    }
}

impl Content {
    /// Bytes from `range.start`, at most [`FRAME_BYTES`] and never past `range.end`; not empty unless `range` is.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let end = range.end.min(range.start.saturating_add(FRAME_BYTES));
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the body is shorter than its object");
        match self {
            Self::Memory(bytes) => {
                let (from, to) = (usize::try_from(range.start).ok(), usize::try_from(end).ok());
                let (Some(from), Some(to)) = (from, to) else { return Err(cut()) };
                if from > to || to > bytes.len() {
                    return Err(cut());
                }
                Ok(bytes.slice(from..to))
            }
            Self::File(blob) => {
                let mut file = std::fs::File::open(&blob.path)?;
                file.seek(SeekFrom::Start(range.start))?;
                let mut frame = vec![0; usize::try_from(end.saturating_sub(range.start)).map_err(|_| cut())?];
                file.read_exact(&mut frame)?;
                Ok(frame.into())
            }
            Self::Generated(generator) => {
                let wanted = end.saturating_sub(range.start);
                let bytes = generator(range.start..end);
                if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(cut()) }
            }
            Self::Parts(parts) => {
                let mut begin = 0;
                for (content, size) in parts.iter() {
                    if range.start < begin + size {
                        return content.read(range.start - begin..end.min(begin + size) - begin);
                    }
                    begin += size;
                }
                Err(cut())
            }
        }
    }
}

/// One version of an object, or a delete marker.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) id: String,
    /// `None` for a delete marker.
    pub(crate) content: Option<Content>,
    pub(crate) size: u64,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) modified: Timestamp,
    pub(crate) sequencer: String,
    /// CRC32 in base64, as S3 writes it.
    pub(crate) crc32: Option<String>,
    /// `content-type`, `content-encoding`, `x-amz-meta-*`, ….
    pub(crate) headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) versioned: bool,
    /// Oldest version first; never empty.
    pub(crate) objects: BTreeMap<String, Vec<Version>>,
    /// Settings that are kept as they were sent: `notification`, ….
    pub(crate) documents: BTreeMap<String, Bytes>,
}

impl Bucket {
    pub(crate) fn new(versioned: bool) -> Self {
        Self { versioned, objects: BTreeMap::new(), documents: BTreeMap::new() }
    }

    /// The object as it is now; `None` under a delete marker.
    pub(crate) fn current(&self, key: &str) -> Option<&Version> {
        self.objects.get(key)?.last().filter(|version| version.content.is_some())
    }

    /// Adds a version; on a bucket without versions it replaces what is there.
    pub(crate) fn push(&mut self, key: &str, version: Version) {
        let versions = self.objects.entry(key.to_owned()).or_default();
        if !self.versioned {
            versions.retain(|old| old.id != "null");
        }
        versions.push(version);
    }

    /// Removes one version; whether it was a delete marker, `None` if it was not there.
    pub(crate) fn remove(&mut self, key: &str, id: &str) -> Option<bool> {
        let versions = self.objects.get_mut(key)?;
        let index = versions.iter().position(|version| version.id == id)?;
        let removed = versions.remove(index);
        if versions.is_empty() {
            self.objects.remove(key);
        }
        Some(removed.content.is_none())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// An upload in parts.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) parts: BTreeMap<u32, Part>,
}

#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) content: Content,
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
}
