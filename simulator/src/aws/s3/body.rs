//! Receiving a body: the `aws-chunked` framing that the SDKs put around streamed uploads, checksums, and where the
//! bytes go. A server that keeps the framing stores 3,605 bytes for a file of 3,310.

use std::{
    io::{Read as _, Write},
    path::Path,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use md5::{Digest, Md5};

use super::{
    S3Error,
    store::{Blob, Content, FRAME_BYTES},
};
use crate::aws::http::header;

/// Bytes of one line of the framing: a size in hex and a signature.
const LINE_BYTES_MAX: usize = 1024;
/// Lines after the last chunk; S3 takes one checksum and one signature.
const TRAILERS_MAX: usize = 8;
/// Bytes of one PUT, as S3 bounds it.
const PUT_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// A body that has arrived whole and unharmed.
pub(super) struct Received {
    pub(super) content: Content,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) crc32: String,
}

#[derive(Debug, PartialEq)]
enum State {
    Size,
    Data(u64),
    AfterData,
    Trailer,
    Done,
}

/// Takes the `aws-chunked` framing off.
#[derive(Debug)]
pub(super) struct Dechunker {
    state: State,
    line: Vec<u8>,
    trailers: Vec<(String, String)>,
}

impl Dechunker {
    pub(super) fn new() -> Self {
        Self { state: State::Size, line: Vec::new(), trailers: Vec::new() }
    }

    /// Hands the data in `input` to `sink`; pieces may be cut anywhere.
    pub(super) fn feed(
        &mut self,
        mut input: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), S3Error>,
    ) -> Result<(), S3Error> {
        let malformed = || S3Error::new(400, "IncompleteBody", "The aws-chunked framing is malformed.");
        while !input.is_empty() {
            if let State::Data(left) = &mut self.state {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(take);
                sink(data)?;
                input = rest;
                *left -= take as u64;
                if *left == 0 {
                    self.state = State::AfterData;
                }
                continue;
            }
            let end = input.iter().position(|byte| *byte == b'\n');
            let (piece, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
            input = rest;
            if self.state == State::Done || self.line.len() + piece.len() > LINE_BYTES_MAX {
                return Err(malformed());
            }
            self.line.extend_from_slice(piece);
            if end.is_none() {
                return Ok(());
            }
            let line = std::mem::take(&mut self.line);
            let line = std::str::from_utf8(&line).map_err(|_| malformed())?.trim_end();
            self.state = match self.state {
                State::Size => {
                    let size = line.split(';').next().unwrap_or_default();
                    match u64::from_str_radix(size, 16).map_err(|_| malformed())? {
                        0 => State::Trailer,
                        size => State::Data(size),
                    }
                }
                State::AfterData if line.is_empty() => State::Size,
                State::Trailer if line.is_empty() => State::Done,
                State::Trailer if self.trailers.len() < TRAILERS_MAX => {
                    let (name, value) = line.split_once(':').ok_or_else(malformed)?;
                    self.trailers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
                    State::Trailer
                }
                _ => return Err(malformed()),
            };
        }
        Ok(())
    }

    /// The trailers, once the framing has ended; senders may leave the last empty line out.
    pub(super) fn finish(self) -> Result<Vec<(String, String)>, S3Error> {
        match self.state {
            State::Done | State::Trailer if self.line.is_empty() => Ok(self.trailers),
            _ => Err(S3Error::new(400, "IncompleteBody", "The aws-chunked body ended too early.")),
        }
    }
}

enum Sink {
    Memory(BytesMut),
    File(std::fs::File, Blob),
}

/// Whether the body is framed.
fn is_chunked(headers: &HeaderMap) -> bool {
    header(headers, "x-amz-content-sha256").is_some_and(|value| value.starts_with("STREAMING-"))
        || header(headers, "content-encoding").is_some_and(|value| value.contains("aws-chunked"))
}

/// Receives a body into memory, or into `file`, and checks it against what the headers and trailers say.
pub(super) async fn receive(headers: &HeaderMap, mut body: Incoming, file: Option<Blob>) -> Result<Received, S3Error> {
    let io = |error: std::io::Error| S3Error::new(500, "InternalError", &error.to_string());
    let mut sink = match file {
        None => Sink::Memory(BytesMut::new()),
        Some(blob) => Sink::File(std::fs::File::create(&blob.path).map_err(io)?, blob),
    };
    let mut md5 = Md5::new();
    let mut crc = crc32fast::Hasher::new();
    let mut size = 0u64;
    let mut take = |data: &[u8]| {
        size += data.len() as u64;
        if size > PUT_BYTES_MAX {
            return Err(S3Error::new(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size"));
        }
        md5.update(data);
        crc.update(data);
        match &mut sink {
            Sink::Memory(bytes) => bytes.extend_from_slice(data),
            Sink::File(file, _) => file.write_all(data).map_err(io)?,
        }
        Ok(())
    };
    let mut dechunker = is_chunked(headers).then(Dechunker::new);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(S3Error::new(400, "IncompleteBody", "The body ended before its Content-Length."));
        };
        let Some(data) = frame.data_ref() else { continue };
        match &mut dechunker {
            Some(dechunker) => dechunker.feed(data, &mut take)?,
            None => take(data)?,
        }
    }
    let trailers = dechunker.map(Dechunker::finish).transpose()?.unwrap_or_default();
    let md5: [u8; 16] = md5.finalize().into();
    let crc32 = STANDARD.encode(crc.finalize().to_be_bytes());
    let stated = |name: &str| {
        let trailer = trailers.iter().find(|(trailer, _)| trailer == name).map(|(_, value)| value.as_str());
        trailer.or_else(|| header(headers, name))
    };
    if stated("x-amz-checksum-crc32").is_some_and(|stated| stated != crc32) {
        return Err(S3Error::new(400, "BadDigest", "The CRC32 you specified did not match the calculated checksum."));
    }
    if stated("content-md5").is_some_and(|stated| stated != STANDARD.encode(md5)) {
        return Err(S3Error::new(400, "BadDigest", "The Content-MD5 you specified did not match what we received."));
    }
    if header(headers, "x-amz-decoded-content-length").is_some_and(|stated| stated.parse() != Ok(size)) {
        return Err(S3Error::new(
            400,
            "IncompleteBody",
            "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header",
        ));
    }
    let content = match sink {
        Sink::Memory(bytes) => Content::Memory(bytes.freeze()),
        Sink::File(file, blob) => {
            drop(file);
            Content::File(Arc::new(blob))
        }
    };
    Ok(Received { content, size, md5, crc32 })
}

/// The same for a file of this machine, which is copied.
pub(super) fn copied(from: &Path, to: Blob) -> std::io::Result<Received> {
    let (mut source, mut target) = (std::fs::File::open(from)?, std::fs::File::create(&to.path)?);
    let (mut md5, mut crc, mut size) = (Md5::new(), crc32fast::Hasher::new(), 0_u64);
    let mut frame = vec![0_u8; usize::try_from(FRAME_BYTES).unwrap_or(65_536)];
    loop {
        let count = source.read(&mut frame)?;
        let Some(data) = frame.get(..count).filter(|data| !data.is_empty()) else { break };
        size += data.len() as u64;
        if size > PUT_BYTES_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "S3 takes 5 GiB at once"));
        }
        md5.update(data);
        crc.update(data);
        target.write_all(data)?;
    }
    drop(target);
    let crc32 = STANDARD.encode(crc.finalize().to_be_bytes());
    Ok(Received { content: Content::File(Arc::new(to)), size, md5: md5.finalize().into(), crc32 })
}

/// The same for bytes at hand.
pub(super) fn whole(bytes: Bytes) -> Received {
    Received {
        size: bytes.len() as u64,
        md5: Md5::digest(&bytes).into(),
        crc32: STANDARD.encode(crc32fast::hash(&bytes).to_be_bytes()),
        content: Content::Memory(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMED: &[u8] = b"5;chunk-signature=abc\r\nhe\nlo\r\n3\r\n, w\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";

    #[test]
    fn framing_comes_off_wherever_the_pieces_are_cut() {
        for cut in 0..FRAMED.len() {
            let (head, tail) = FRAMED.split_at(cut);
            let mut out = Vec::new();
            let mut sink = |data: &[u8]| {
                out.extend_from_slice(data);
                Ok(())
            };
            let mut dechunker = Dechunker::new();
            dechunker.feed(head, &mut sink).unwrap();
            dechunker.feed(tail, &mut sink).unwrap();
            let trailers = dechunker.finish().unwrap();
            assert_eq!(out, b"he\nlo, w", "cut at {cut}");
            assert_eq!(trailers, [("x-amz-checksum-crc32".to_owned(), "AAAA".to_owned())]);
        }
    }

    #[test]
    fn a_framed_body_that_ends_early_is_refused() {
        for cut in 0..FRAMED.iter().position(|byte| *byte == b'0').unwrap() {
            let mut dechunker = Dechunker::new();
            dechunker.feed(FRAMED.split_at(cut).0, &mut |_| Ok(())).unwrap();
            assert!(dechunker.finish().is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_size_that_is_no_number_and_an_endless_line_are_refused() {
        assert!(Dechunker::new().feed(b"zz\r\n", &mut |_| Ok(())).is_err());
        assert!(Dechunker::new().feed(&[b'1'; LINE_BYTES_MAX + 1], &mut |_| Ok(())).is_err());
    }
}
