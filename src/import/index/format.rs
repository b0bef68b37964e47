//! The index as an object: 16 bytes that name the format, then blocks of up to 4,096 entries sorted by key, each block followed by
//! its checksum. How many entries there are is known to who points to it, so that a truncated object is told by its size.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{ENTRY_BYTES, decode, encode};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
    objects::{Location, ObjectVersion, Objects, Upload},
};

const FORMAT: [u8; 16] = *b"hubferry-index-1";

/// Entries of a block: 64 kB.
pub(super) const BLOCK_ENTRIES: usize = 4_096;

/// Bytes of a block's checksum.
const CHECKSUM_BYTES: usize = 8;

/// Blocks that are read at once: 1 MB.
const BLOCKS_PER_READ: u64 = 16;

const BLOCK_BYTES: usize = BLOCK_ENTRIES * ENTRY_BYTES + CHECKSUM_BYTES;

/// Bytes of an index of so many rows: 16.002 a row.
pub(super) fn object_bytes(rows: u64) -> u64 {
    let blocks = rows.div_ceil(BLOCK_ENTRIES as u64);
    (FORMAT.len() as u64)
        .saturating_add(rows.saturating_mul(ENTRY_BYTES as u64))
        .saturating_add(blocks.saturating_mul(CHECKSUM_BYTES as u64))
}

/// Writes an index.
pub(super) struct Writer {
    upload: Box<dyn Upload>,
    buffer: Vec<u8>,
    /// Where in `buffer` the block begins that is being filled.
    block: usize,
    blocks: u64,
    rows: u64,
}

impl Writer {
    pub(super) async fn create(objects: &dyn Objects, location: &Location) -> Result<Self> {
        let upload = objects.upload(location, "application/octet-stream").await?;
        let mut buffer = Vec::with_capacity(FORMAT.len() + 2 * BLOCK_BYTES);
        buffer.extend_from_slice(&FORMAT);
        Ok(Self { upload, block: buffer.len(), buffer, blocks: 0, rows: 0 })
    }

    /// Keys must come in ascending order.
    pub(super) fn push(&mut self, key: u64, row: u64) {
        self.buffer.extend_from_slice(&encode(key, row));
        self.rows += 1;
        if self.buffer.len() - self.block >= BLOCK_ENTRIES * ENTRY_BYTES {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        let checksum = self.buffer.get(self.block..).map(|block| xxh3_64_with_seed(block, self.blocks));
        self.buffer.extend_from_slice(&checksum.unwrap_or_default().to_le_bytes());
        self.block = self.buffer.len();
        self.blocks += 1;
    }

    /// Lets go of the blocks that are complete.
    pub(super) async fn flush(&mut self) -> Result<()> {
        let rest = self.buffer.split_off(self.block);
        let blocks = std::mem::replace(&mut self.buffer, rest);
        self.block = 0;
        if blocks.is_empty() { Ok(()) } else { self.upload.write(&blocks).await }
    }

    /// Makes the index visible; the number of its rows.
    pub(super) async fn finish(mut self) -> Result<u64> {
        if self.buffer.len() > self.block {
            self.close_block();
        }
        self.flush().await?;
        self.upload.finish().await?;
        Ok(self.rows)
    }
}

/// Reads an index from its beginning to its end, checking all of it.
pub(super) struct Reader<'a> {
    objects: &'a dyn Objects,
    version: ObjectVersion,
    rows: u64,
    blocks_read: u64,
    entries: Vec<(u64, u64)>,
    at: usize,
    last_key: Option<u64>,
}

impl<'a> Reader<'a> {
    /// `Corrupt` if it is not an index of `rows` rows; `NotFound` if it is not there.
    pub(super) async fn open(objects: &'a dyn Objects, location: &Location, rows: u64) -> Result<Self> {
        let version = objects.head(location, None).await?;
        if version.size != object_bytes(rows) {
            return Err(corrupt(location, "its size is wrong"));
        }
        let format = objects.read(&version, 0..FORMAT.len() as u64).await?;
        if *format != FORMAT {
            return Err(corrupt(location, "it is no index, or one of another version"));
        }
        Ok(Self { objects, version, rows, blocks_read: 0, entries: Vec::new(), at: 0, last_key: None })
    }

    /// The next entry, which stays the next until [`Self::advance`].
    pub(super) async fn peek(&mut self) -> Result<Option<(u64, u64)>> {
        if self.at >= self.entries.len() && self.blocks_read < self.rows.div_ceil(BLOCK_ENTRIES as u64) {
            self.fetch().await?;
        }
        Ok(self.entries.get(self.at).copied())
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    async fn fetch(&mut self) -> Result<()> {
        let start = FORMAT.len() as u64 + self.blocks_read * BLOCK_BYTES as u64;
        let end = (start + BLOCKS_PER_READ * BLOCK_BYTES as u64).min(self.version.size);
        let bytes = self.objects.read(&self.version, start..end).await?;
        if bytes.len() as u64 != end - start {
            return Err(corrupt(&self.version.location, "a read came back short"));
        }
        self.entries.clear();
        self.at = 0;
        for block in bytes.chunks(BLOCK_BYTES) {
            let Some((block, checksum)) = block.split_last_chunk::<CHECKSUM_BYTES>() else {
                return Err(corrupt(&self.version.location, "a block is incomplete"));
            };
            if xxh3_64_with_seed(block, self.blocks_read) != u64::from_le_bytes(*checksum) {
                return Err(corrupt(&self.version.location, "a block's checksum is wrong"));
            }
            self.blocks_read += 1;
            let (entries, _) = block.as_chunks::<ENTRY_BYTES>();
            for entry in entries {
                let (key, row) = decode(*entry);
                if self.last_key.is_some_and(|last| last >= key) {
                    return Err(corrupt(&self.version.location, "its keys are not in order"));
                }
                self.last_key = Some(key);
                self.entries.push((key, row));
            }
        }
        Ok(())
    }
}

/// Whether an error means that the index is of no use, rather than that it could not be fetched just now.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Conflict)
}

fn corrupt(location: &Location, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, format!("{location}: {what}"))
}
