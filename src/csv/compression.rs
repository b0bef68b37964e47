//! gzip and zstd, recognised by content, inflated in steps of bounded output.
//!
//! A file of a few kilobytes can inflate to gigabytes. Output is bounded per step, so memory stays flat however the
//! file is made; how much is read in all is the caller's business.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::{
    stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer},
    zstd_safe::zstd_sys::ZSTD_ErrorCode,
};

use crate::{Error, Result, codes, config::Compression};

/// The largest zstd window that is taken, as a power of two: 8 MiB, what RFC 8878 asks every decoder for and
/// `zstd -19` uses. The whole process has to stay below 64 MB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes of the file that [`detect`] needs.
pub const DETECT_BYTES: usize = 4;

/// How the file that begins with `head` is compressed. Fewer than [`DETECT_BYTES`] bytes are judged as the whole file.
pub fn detect(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
        // A zstd frame, or a skippable one before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Inflates a file that is pushed through it in pieces.
pub struct Decompressor {
    inner: Inner,
    /// Compressed bytes taken so far.
    taken: u64,
}

enum Inner {
    None,
    Gzip(Box<Gzip>),
    Zstd {
        decoder: Decoder<'static>,
        within_frame: bool,
        /// Output that the decoder may still hold: the last step filled its room.
        held: bool,
    },
}

impl Decompressor {
    /// A decompressor at the beginning of a file.
    ///
    /// # Errors
    ///
    /// `SOURCE_DAMAGED` if the decoder cannot be set up, which takes a lack of memory.
    pub fn new(kind: Compression) -> Result<Self> {
        let inner = match kind {
            Compression::None => Inner::None,
            Compression::Gzip => Inner::Gzip(Box::default()),
            Compression::Zstd => {
                let decoder = Decoder::new().and_then(|mut decoder| {
                    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
                    Ok(decoder)
                });
                let decoder = decoder.map_err(|error| {
                    Error::invalid(codes::SOURCE_DAMAGED, "the zstd decoder cannot be set up").with_source(error)
                })?;
                Inner::Zstd { decoder, within_frame: false, held: false }
            }
        };
        Ok(Self { inner, taken: 0 })
    }

    /// Takes bytes from the front of `input` and appends at most `out_max` to `out`. Call again while `input` is not
    /// empty or a call appended `out_max` bytes. After an error the decompressor is of no further use.
    ///
    /// # Errors
    ///
    /// `SOURCE_DAMAGED`, telling the compressed offset.
    pub fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>, out_max: usize) -> Result<()> {
        let before = input.len();
        let stepped = match &mut self.inner {
            Inner::None => {
                let (now, later) = input.split_at(input.len().min(out_max));
                out.extend_from_slice(now);
                *input = later;
                Ok(())
            }
            Inner::Gzip(gzip) => gzip.step(input, out, out_max),
            Inner::Zstd { decoder, within_frame, held } => step_zstd(decoder, within_frame, held, input, out, out_max),
        };
        self.taken += (before - input.len()) as u64;
        stepped.map_err(|fault| self.error(&fault))
    }

    /// The file has ended, and all output was taken.
    ///
    /// # Errors
    ///
    /// `SOURCE_DAMAGED` if it ends within a gzip member or a zstd frame.
    pub fn finish(&mut self) -> Result<()> {
        let whole = match &self.inner {
            Inner::None => true,
            Inner::Gzip(gzip) => gzip.may_end(),
            Inner::Zstd { within_frame, .. } => !within_frame,
        };
        if whole { Ok(()) } else { Err(self.error(&Fault::Damaged("the data end too early".into()))) }
    }

    /// Compressed bytes taken so far.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    fn error(&self, fault: &Fault) -> Error {
        let kind = match self.inner {
            Inner::Gzip(_) => "gzip",
            Inner::Zstd { .. } => "zstd",
            Inner::None => "uncompressed",
        };
        let taken = self.taken;
        match fault {
            Fault::Damaged(what) => {
                let message = format!("the {kind} data are damaged near compressed byte {taken}: {what}");
                Error::invalid(codes::SOURCE_DAMAGED, message)
            }
            Fault::Window => {
                let window = (1_u64 << ZSTD_WINDOW_LOG_MAX) >> 20;
                let message = format!(
                    "the zstd frame near compressed byte {taken} needs a window of more than {window} MiB, which would \
                     not fit in 64 MB of memory"
                );
                Error::invalid(codes::SOURCE_DAMAGED, message)
                    .with_hint("Compress the file with zstd -19 or less and without --long, or with gzip.")
            }
        }
    }
}

enum Fault {
    Damaged(std::borrow::Cow<'static, str>),
    Window,
}

fn step_zstd(
    decoder: &mut Decoder<'static>,
    within_frame: &mut bool,
    held: &mut bool,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    out_max: usize,
) -> Result<(), Fault> {
    let begin = out.len();
    out.resize(begin + out_max, 0);
    let mut written = 0;
    let mut result = Ok(());
    while written < out_max && (!input.is_empty() || *held) {
        let room = out.get_mut(begin + written..).unwrap_or_default();
        let room_len = room.len();
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(room);
        let ran = decoder.run(&mut from, &mut to);
        let (read, wrote) = (from.pos(), to.pos());
        *input = input.get(read..).unwrap_or_default();
        written += wrote;
        match ran {
            Ok(hint) => {
                // An empty call between frames answers with a hint for the next one: no frame has begun.
                if read > 0 || wrote > 0 {
                    *within_frame = hint != 0;
                }
                *held = wrote == room_len && hint != 0;
            }
            Err(error) => {
                let window = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<zstd::Error>())
                    .is_some_and(|inner| inner.is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge));
                result = Err(if window { Fault::Window } else { Fault::Damaged(error.to_string().into()) });
                break;
            }
        }
        if read == 0 && wrote == 0 {
            break;
        }
    }
    out.truncate(begin + written);
    result
}

/// A gzip file: members one after the other (RFC 1952).
struct Gzip {
    part: Part,
    /// Bytes of the present part that were read.
    read: usize,
    flags: u8,
    /// A number of two or four bytes being read, low byte first.
    number: u32,
    inflate: Decompress,
    crc: Crc,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Magic, method, flags, time, extra flags, system: ten bytes.
    Head,
    ExtraLength,
    Extra(usize),
    Name,
    Comment,
    HeadChecksum,
    Body,
    Checksum,
    Length,
    /// After a member: another one, padding, or garbage, which gunzip ignores as well.
    Between,
    Garbage,
}

const FLAG_HEAD_CHECKSUM: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0xe0;

impl Default for Gzip {
    fn default() -> Self {
        Self { part: Part::Head, read: 0, flags: 0, number: 0, inflate: Decompress::new(false), crc: Crc::new() }
    }
}

impl Gzip {
    fn may_end(&self) -> bool {
        matches!(self.part, Part::Between | Part::Garbage)
    }

    fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>, out_max: usize) -> Result<(), Fault> {
        let begin = out.len();
        loop {
            match self.part {
                Part::Body => {
                    let room = out_max - (out.len() - begin);
                    if room == 0 || !self.inflate(input, out, room)? {
                        return Ok(());
                    }
                }
                Part::Garbage => {
                    *input = &[];
                    return Ok(());
                }
                _ => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(()) };
                    *input = rest;
                    self.byte(byte)?;
                }
            }
        }
    }

    /// Inflates up to `room` bytes; whether there is anything to go on with.
    fn inflate(&mut self, input: &mut &[u8], out: &mut Vec<u8>, room: usize) -> Result<bool, Fault> {
        let begin = out.len();
        out.resize(begin + room, 0);
        let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
        let target = out.get_mut(begin..).unwrap_or_default();
        let status = self.inflate.decompress(input, target, FlushDecompress::None);
        // Differences are at most the lengths of the two buffers.
        let taken = (self.inflate.total_in() - taken) as usize;
        let made = (self.inflate.total_out() - made) as usize;
        *input = input.get(taken..).unwrap_or_default();
        out.truncate(begin + made);
        self.crc.update(out.get(begin..).unwrap_or_default());
        match status {
            Ok(Status::StreamEnd) => {
                self.enter(Part::Checksum);
                Ok(true)
            }
            Ok(_) => Ok(taken > 0 || made > 0),
            Err(error) => Err(Fault::Damaged(error.to_string().into())),
        }
    }

    fn enter(&mut self, part: Part) {
        self.part = part;
        self.read = 0;
        self.number = 0;
    }

    fn byte(&mut self, byte: u8) -> Result<(), Fault> {
        let at = self.read;
        self.read += 1;
        // Only numbers of up to four bytes are read this way; other parts do not look at it.
        self.number |= u32::from(byte) << (8 * (at % 4));
        match self.part {
            Part::Head => match (at, byte) {
                (0, 0x1f) | (1, 0x8b) | (2, 0x08) => {}
                (0..=2, _) => return Err(Fault::Damaged("no gzip header".into())),
                (3, _) if byte & FLAGS_RESERVED != 0 => return Err(Fault::Damaged("unknown gzip flags".into())),
                (3, _) => self.flags = byte,
                (9, _) => self.after(Part::Head),
                _ => {}
            },
            Part::ExtraLength if at == 1 => match self.number as usize {
                0 => self.after(Part::Extra(0)),
                len => self.enter(Part::Extra(len)),
            },
            Part::Extra(len) if at + 1 == len => self.after(self.part),
            Part::Name | Part::Comment if byte == 0 => self.after(self.part),
            Part::HeadChecksum if at == 1 => self.after(self.part),
            Part::Checksum if at == 3 => {
                if self.number != self.crc.sum() {
                    return Err(Fault::Damaged("the checksum differs".into()));
                }
                self.enter(Part::Length);
            }
            Part::Length if at == 3 => {
                if self.number != self.crc.amount() {
                    return Err(Fault::Damaged("the length differs".into()));
                }
                self.enter(Part::Between);
            }
            // Zero padding may go on for long; the count starts over with each byte of it.
            Part::Between => match (at, byte) {
                (0, 0) => self.enter(Part::Between),
                (0, 0x1f) => {}
                (1, 0x8b) => {
                    *self = Self { read: 2, ..Self::default() };
                }
                _ => self.enter(Part::Garbage),
            },
            _ => {}
        }
        Ok(())
    }

    /// Goes on to the next part of the header that the flags announce.
    fn after(&mut self, part: Part) {
        let parts = [
            (Part::ExtraLength, FLAG_EXTRA),
            (Part::Name, FLAG_NAME),
            (Part::Comment, FLAG_COMMENT),
            (Part::HeadChecksum, FLAG_HEAD_CHECKSUM),
        ];
        let done = match part {
            Part::Head => 0,
            Part::ExtraLength | Part::Extra(_) => 1,
            Part::Name => 2,
            Part::Comment => 3,
            _ => 4,
        };
        let next = parts.iter().skip(done).find(|(_, flag)| self.flags & flag != 0);
        self.enter(next.map_or(Part::Body, |(part, _)| *part));
    }
}

#[cfg(test)]
#[path = "compression_tests.rs"]
mod tests;
