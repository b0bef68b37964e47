//! Cuts CSV text into records.
//!
//! A general CSV parser reads on whatever it meets: text after a closing quote is joined to the cell, and one stray
//! quote swallows the rest of the file. Here such a row is a fault with a line number, costs one physical line, and
//! the rest goes on. That takes knowledge of quotes *and* of physical lines in one scan, so the scan is our own; the
//! `csv` crate is the oracle of its tests.
//!
//! Rules, beyond RFC 4180:
//!
//! * `\n`, `\r\n` and a lone `\r` end a line; blank lines are skipped, but counted.
//! * A quote opens only as the first character of a cell; elsewhere in an unquoted cell it is text.
//! * A row that is longer than the header only by empty cells is cut to the header's length.
//! * A fault of quoting rejects the record's first physical line, its cells split leniently; reading resumes at the
//!   next physical line.

use memchr::memchr2;

use super::{Cells, dialect::Dialect, windows_1252};
use crate::{
    codes::{self, Code},
    config::Encoding,
    mutate::{self, Bug},
    record::Reason,
};

/// Bytes a row may take. HubSpot takes about 1 MB a call, so a larger row could not be sent anyway; and what is
/// buffered to find a row's end stays bounded.
pub const ROW_BYTES_MAX: usize = 1_000_000;

const PLAIN: u8 = 0;
const DELIMITER: u8 = 1;
const QUOTE: u8 = 2;
const RETURN: u8 = 3;
const NEWLINE: u8 = 4;
const CONTROL: u8 = 5;

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Stands in transcoded text for the one byte that an odd-sized UTF-16 file has too many: no text holds it.
const DANGLING: u8 = 0xff;

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Offset in the decompressed file: 0, or a record's `end`.
    pub byte: u64,
    /// The physical line that begins there, counted from 1.
    pub line: u64,
}

impl Default for Start {
    fn default() -> Self {
        Self { byte: 0, line: 1 }
    }
}

/// One row, or what is known of one that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The physical line on which it starts; the file's first line is 1.
    pub line: u64,
    /// Offset of its first byte in the decompressed, untranscoded file; a byte order mark and blank lines lie before it.
    pub start: u64,
    /// Offset of the byte after its terminator. Reading can start again here, with the next record's line or
    /// [`RecordReader::position`].
    pub end: u64,
    /// Its cells. With a fault of quoting: those of the first physical line. Empty where the row is too large.
    pub cells: Cells,
    /// Why the row cannot be delivered.
    pub fault: Option<Reason>,
}

/// A push parser: feed bytes, take records until there are none, feed more.
///
/// Memory: what was fed and not yet taken, and at most one row ([`ROW_BYTES_MAX`]).
pub struct RecordReader {
    encoding: Encoding,
    quote: u8,
    delimiter: u8,
    classes: [u8; 256],
    expected: Option<usize>,
    buffer: Vec<u8>,
    /// Index in `buffer` of the first byte that no record has taken; `offset` and `line` are its place in the file.
    begin: usize,
    offset: u64,
    line: u64,
    utf16: Option<Utf16>,
    bom_possible: bool,
    ended: bool,
    scan: Scan,
    pending: Option<Pending>,
    skip: Option<(u64, u64)>,
}

/// How far the record at `begin` has been scanned. All indexes count from `begin`.
#[derive(Default)]
struct Scan {
    state: State,
    at: usize,
    cell: usize,
    escaped: bool,
    lines: u64,
    control: Option<(usize, u8)>,
    spans: Vec<Span>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    CellStart,
    Unquoted,
    Quoted,
    /// After a quote within quotes: it closes the cell or is the first of two.
    Closing,
    /// The record's text ends at `at`.
    Ended,
}

struct Span {
    start: u32,
    end: u32,
    escaped: bool,
}

enum Scanned {
    Record,
    NeedMore,
    BadQuote,
    Unterminated,
    TooLarge,
}

/// A fault of quoting, waiting for the end of the first physical line.
struct Pending {
    code: Code,
    reason: String,
}

impl RecordReader {
    /// A reader of `dialect`'s files that starts at `start`.
    pub fn new(dialect: &Dialect, start: Start) -> Self {
        let delimiter = ascii(dialect.delimiter, b',');
        let quote = ascii(dialect.quote, b'"');
        let mut classes = [PLAIN; 256];
        for (byte, class) in (0_u8..0x20).zip(classes.iter_mut()) {
            *class = match byte {
                b'\t' => PLAIN,
                b'\n' => NEWLINE,
                b'\r' => RETURN,
                _ => CONTROL,
            };
        }
        classes[usize::from(quote)] = QUOTE;
        classes[usize::from(delimiter)] = DELIMITER;
        let utf16 = match dialect.encoding {
            Encoding::Utf16Le => Some(Utf16 { big_endian: false, byte: None, high: None }),
            Encoding::Utf16Be => Some(Utf16 { big_endian: true, byte: None, high: None }),
            Encoding::Utf8 | Encoding::Windows1252 => None,
        };
        Self {
            encoding: dialect.encoding,
            quote,
            delimiter,
            classes,
            expected: None,
            buffer: Vec::new(),
            begin: 0,
            offset: start.byte,
            line: start.line,
            utf16,
            bom_possible: start.byte == 0 && dialect.encoding != Encoding::Windows1252 && !mutate::on(Bug::MarkKept),
            ended: false,
            scan: Scan::default(),
            pending: None,
            skip: None,
        }
    }

    /// How many cells each further row must have: as many as the header.
    pub fn expect_columns(&mut self, columns: usize) {
        self.expected = Some(columns);
    }

    /// Takes the next bytes of the file. Call [`Self::next`] until it says `None` before feeding more, so that no
    /// more than one piece and one row are held.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.begin > 0 {
            self.buffer.drain(..self.begin);
            self.begin = 0;
        }
        match &mut self.utf16 {
            Some(utf16) => utf16.feed(bytes, &mut self.buffer),
            None => self.buffer.extend_from_slice(bytes),
        }
    }

    /// The file has ended: the last line needs no line end.
    pub fn finish(&mut self) {
        if let Some(utf16) = &mut self.utf16
            && !self.ended
        {
            utf16.finish(&mut self.buffer);
        }
        self.ended = true;
    }

    /// Where the next record will be looked for: right after the record that was taken last.
    pub fn position(&self) -> Start {
        Start { byte: self.offset, line: self.line }
    }

    /// The next record; `None` if more bytes are needed, or after [`Self::finish`] if there are no more.
    #[expect(clippy::should_implement_trait, reason = "an iterator would be over for good at the first None")]
    pub fn next(&mut self) -> Option<Record> {
        if self.skip.is_some() {
            return self.skip_line();
        }
        if self.pending.is_some() {
            return self.reject_first_line();
        }
        if self.scan.at == 0 && !self.seek_record() {
            return None;
        }
        match self.scan_record() {
            Scanned::NeedMore => None,
            Scanned::Record => self.take_record(),
            Scanned::BadQuote => self.suspend(codes::BAD_QUOTE, "a closed quote is followed by text".to_owned()),
            Scanned::Unterminated => {
                let reason = if self.ended && self.rest().len() <= ROW_BYTES_MAX {
                    "a quote is opened in this line and not closed before the end of the file".to_owned()
                } else {
                    format!("a quote is opened in this line and not closed within {ROW_BYTES_MAX} bytes")
                };
                self.suspend(codes::UNTERMINATED_QUOTE, reason)
            }
            Scanned::TooLarge => {
                let (at, lines) = (self.scan.at, self.scan.lines);
                self.start_skipping(at, lines)
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.begin..).unwrap_or_default()
    }

    /// Moves past a byte order mark and blank lines; whether a record begins here.
    fn seek_record(&mut self) -> bool {
        if self.bom_possible {
            let rest = self.rest();
            if rest.len() < UTF8_BOM.len() && !self.ended && UTF8_BOM.starts_with(rest) {
                return false;
            }
            let marked = rest.starts_with(UTF8_BOM);
            self.bom_possible = false;
            if marked {
                self.consume(UTF8_BOM.len(), 0);
            }
        }
        loop {
            match self.rest().first() {
                None => return false,
                Some(b'\n' | b'\r') => match self.after_line_end(0) {
                    Some(next) => self.consume(next, 1),
                    None => return false,
                },
                Some(_) => return true,
            }
        }
    }

    /// The index after the line end at `at`; `None` if it takes another byte to know.
    fn after_line_end(&self, at: usize) -> Option<usize> {
        let rest = self.rest();
        match (rest.get(at), rest.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => Some(at + 2),
            (Some(b'\r'), None) if !self.ended => None,
            (Some(_), _) => Some(at + 1),
            (None, _) => Some(at),
        }
    }

    /// Forgets `len` bytes, which hold `lines` line ends.
    fn consume(&mut self, len: usize, lines: u64) {
        let raw = match self.utf16 {
            Some(_) => utf16_bytes(self.rest().get(..len).unwrap_or_default()),
            None => len as u64,
        };
        self.offset += raw;
        self.begin += len;
        self.line += lines;
        let mut spans = std::mem::take(&mut self.scan.spans);
        spans.clear();
        self.scan = Scan { spans, ..Scan::default() };
    }

    fn scan_record(&mut self) -> Scanned {
        let bytes = self.buffer.get(self.begin..).unwrap_or_default();
        // One byte more than a row may have, so that a row of exactly the limit is seen to end.
        let bounded = bytes.get(..ROW_BYTES_MAX + 1).unwrap_or(bytes);
        let classes = &self.classes;
        let scan = &mut self.scan;
        let mut state = scan.state;
        let mut at = scan.at;
        let stopped = loop {
            let Some(&byte) = bounded.get(at) else { break None };
            let class = classes[usize::from(byte)];
            match state {
                State::CellStart => {
                    scan.escaped = false;
                    if class == QUOTE {
                        at += 1;
                        state = State::Quoted;
                    } else {
                        state = State::Unquoted;
                    }
                    scan.cell = at;
                }
                State::Unquoted => match class {
                    PLAIN | QUOTE => {
                        at += 1;
                        while bounded.get(at).is_some_and(|&byte| classes[usize::from(byte)] == PLAIN) {
                            at += 1;
                        }
                    }
                    DELIMITER => {
                        scan.end_cell(at);
                        at += 1;
                        state = State::CellStart;
                    }
                    CONTROL => {
                        scan.control.get_or_insert((scan.spans.len(), byte));
                        at += 1;
                    }
                    _ => {
                        scan.end_cell(at);
                        state = State::Ended;
                    }
                },
                State::Quoted => {
                    match class {
                        QUOTE => state = State::Closing,
                        RETURN => scan.lines += 1,
                        NEWLINE if !bounded.get(..at).is_some_and(|before| before.ends_with(b"\r")) => scan.lines += 1,
                        CONTROL => {
                            scan.control.get_or_insert((scan.spans.len(), byte));
                        }
                        _ => {}
                    }
                    at += 1;
                }
                State::Closing => match class {
                    QUOTE => {
                        scan.escaped = true;
                        state = State::Quoted;
                        at += 1;
                    }
                    DELIMITER => {
                        scan.end_cell(at - 1);
                        at += 1;
                        state = State::CellStart;
                    }
                    RETURN | NEWLINE => {
                        scan.end_cell(at - 1);
                        state = State::Ended;
                    }
                    _ => break Some(Scanned::BadQuote),
                },
                State::Ended => break Some(Scanned::Record),
            }
        };
        scan.state = state;
        scan.at = at;
        if let Some(stopped) = stopped {
            return stopped;
        }
        if at > ROW_BYTES_MAX {
            return if state == State::Quoted { Scanned::Unterminated } else { Scanned::TooLarge };
        }
        if !self.ended {
            return Scanned::NeedMore;
        }
        match state {
            State::Quoted => return Scanned::Unterminated,
            State::Closing => scan.end_cell(at - 1),
            State::CellStart => {
                scan.cell = at;
                scan.end_cell(at);
            }
            State::Unquoted => scan.end_cell(at),
            State::Ended => {}
        }
        scan.state = State::Ended;
        Scanned::Record
    }

    /// The record that was scanned, judged.
    fn take_record(&mut self) -> Option<Record> {
        let text_end = self.scan.at;
        let next = self.after_line_end(text_end)?;
        let (mut cells, invalid) = self.cells(text_end);
        let mut ragged = None;
        if let Some(expected) = self.expected
            && cells.len() != expected
        {
            if cells.len() > expected && cells.iter().skip(expected).all(str::is_empty) {
                cells.truncate(expected);
            } else if self.scan.lines > 0 {
                let reason = format!(
                    "a quote is opened in this line and closed {} lines later; the row would have {}, the header has {expected}",
                    self.scan.lines,
                    counted(cells.len())
                );
                return self.suspend(codes::UNTERMINATED_QUOTE, reason);
            } else {
                ragged = Some(Reason::new(
                    codes::RAGGED_ROW,
                    format!("the row has {}, the header has {expected}", counted(cells.len())),
                ));
            }
        }
        let fault = if let Some(cell) = invalid {
            let reason = format!("cell {} holds bytes that are not {}", cell + 1, encoding_name(self.encoding));
            Some(Reason::new(codes::INVALID_ENCODING, reason))
        } else if let Some((cell, byte)) = self.scan.control {
            let reason = format!("cell {} holds the control character U+{byte:04X}", cell + 1);
            Some(Reason::new(codes::CONTROL_CHARACTER, reason))
        } else {
            ragged
        };
        let (line, start, lines) = (self.line, self.offset, self.scan.lines);
        self.consume(next, lines + u64::from(next > text_end));
        Some(Record { line, start, end: self.offset, cells, fault })
    }

    /// The scanned cells as UTF-8, and the first that is no text in the file's encoding.
    fn cells(&self, text_end: usize) -> (Cells, Option<usize>) {
        let bytes = self.rest().get(..text_end).unwrap_or_default();
        let mut cells = Cells::with_capacity(bytes.len(), self.scan.spans.len());
        let mut invalid = None;
        // Quotes, delimiters and line ends are ASCII: where the whole is valid, so is each piece.
        let whole = match self.encoding {
            Encoding::Windows1252 if !bytes.is_ascii() => None,
            _ => std::str::from_utf8(bytes).ok(),
        };
        for (index, span) in self.scan.spans.iter().enumerate() {
            let range = span.start as usize..span.end as usize;
            if let Some(cell) = whole.and_then(|whole| whole.get(range.clone())) {
                self.push(&mut cells, cell, span.escaped);
                continue;
            }
            let cell = bytes.get(range).unwrap_or_default();
            if self.encoding != Encoding::Windows1252 && std::str::from_utf8(cell).is_err() {
                invalid.get_or_insert(index);
            }
            self.push(&mut cells, &decode(self.encoding, cell), span.escaped);
        }
        (cells, invalid)
    }

    fn push(&self, cells: &mut Cells, cell: &str, escaped: bool) {
        if escaped && !mutate::on(Bug::QuotesKept) {
            let quote = char::from(self.quote);
            cells.push(&cell.replace(&format!("{quote}{quote}"), &quote.to_string()));
        } else {
            cells.push(cell);
        }
    }

    /// Only the first physical line of what was scanned is at fault.
    fn suspend(&mut self, code: Code, reason: String) -> Option<Record> {
        self.pending = Some(Pending { code, reason });
        self.reject_first_line()
    }

    fn reject_first_line(&mut self) -> Option<Record> {
        let rest = self.rest();
        let bounded = rest.get(..ROW_BYTES_MAX + 1).unwrap_or(rest);
        let text_end = match memchr2(b'\r', b'\n', bounded) {
            Some(at) => at,
            None if bounded.len() > ROW_BYTES_MAX => {
                let len = bounded.len();
                self.pending = None;
                return self.start_skipping(len, 0);
            }
            None if self.ended => bounded.len(),
            None => return None,
        };
        let next = self.after_line_end(text_end)?;
        let cells = self.split_leniently(text_end);
        let fault = self.pending.take().map(|pending| Reason::new(pending.code, pending.reason));
        let (line, start) = (self.line, self.offset);
        self.consume(next, u64::from(next > text_end));
        Some(Record { line, start, end: self.offset, cells, fault })
    }

    /// The cells of one physical line: quoted where the quotes are right, else as they stand.
    fn split_leniently(&self, text_end: usize) -> Cells {
        let mut rest = self.rest().get(..text_end).unwrap_or_default();
        let mut cells = Cells::default();
        loop {
            let (cell, escaped, used) = match self.quoted_prefix(rest) {
                Some(len) => (rest.get(1..len - 1).unwrap_or_default(), true, len),
                None => {
                    let len = memchr::memchr(self.delimiter, rest).unwrap_or(rest.len());
                    (rest.get(..len).unwrap_or_default(), false, len)
                }
            };
            self.push(&mut cells, &decode(self.encoding, cell), escaped);
            match rest.get(used + 1..) {
                Some(after) => rest = after,
                None => return cells,
            }
        }
    }

    /// The length of the well-formed quoted cell at the start of `text`, both quotes included.
    fn quoted_prefix(&self, text: &[u8]) -> Option<usize> {
        if text.first() != Some(&self.quote) {
            return None;
        }
        let mut at = 1;
        loop {
            at += memchr::memchr(self.quote, text.get(at..)?)? + 1;
            match text.get(at) {
                None => return Some(at),
                Some(&byte) if byte == self.delimiter => return Some(at),
                Some(&byte) if byte == self.quote => at += 1,
                Some(_) => return None,
            }
        }
    }

    /// The row is too large: forget its first `len` bytes, then all up to the line's end.
    fn start_skipping(&mut self, len: usize, lines: u64) -> Option<Record> {
        self.skip = Some((self.line, self.offset));
        self.consume(len, lines);
        self.skip_line()
    }

    fn skip_line(&mut self) -> Option<Record> {
        let rest = self.rest();
        let len = rest.len();
        match memchr2(b'\r', b'\n', rest) {
            None => {
                self.consume(len, 0);
                if !self.ended {
                    return None;
                }
            }
            Some(at) => {
                let Some(next) = self.after_line_end(at) else {
                    self.consume(at, 0);
                    return None;
                };
                self.consume(next, 1);
            }
        }
        let (line, start) = self.skip.take()?;
        let reason = format!("the row is larger than {ROW_BYTES_MAX} bytes; its cells are not repeated here");
        let fault = Some(Reason::new(codes::ROW_TOO_LARGE, reason));
        Some(Record { line, start, end: self.offset, cells: Cells::default(), fault })
    }
}

impl Scan {
    fn end_cell(&mut self, end: usize) {
        // Both are at most ROW_BYTES_MAX.
        let (start, end) = (self.cell as u32, end as u32);
        self.spans.push(Span { start, end, escaped: self.escaped });
    }
}

/// Turns UTF-16 into UTF-8 from which each record's length in UTF-16 can be told again.
///
/// A surrogate without its other half is written as the three bytes it would have in UTF-8, which no valid text
/// holds: the row then is INVALID_ENCODING like any other.
struct Utf16 {
    big_endian: bool,
    byte: Option<u8>,
    high: Option<u16>,
}

impl Utf16 {
    fn feed(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        for &byte in bytes {
            let Some(first) = self.byte.take() else {
                self.byte = Some(byte);
                continue;
            };
            let pair = [first, byte];
            self.unit(if self.big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }, text);
        }
    }

    fn unit(&mut self, unit: u16, text: &mut Vec<u8>) {
        if let Some(high) = self.high.take() {
            if let Some(Ok(character)) = char::decode_utf16([high, unit]).next()
                && (0xdc00..=0xdfff).contains(&unit)
            {
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return;
            }
            push_surrogate(high, text);
        }
        match unit {
            0xd800..=0xdbff => self.high = Some(unit),
            0xdc00..=0xdfff => push_surrogate(unit, text),
            _ => {
                let character = char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }

    fn finish(&mut self, text: &mut Vec<u8>) {
        if let Some(high) = self.high.take() {
            push_surrogate(high, text);
        }
        if self.byte.take().is_some() {
            text.push(DANGLING);
        }
    }
}

fn push_surrogate(unit: u16, text: &mut Vec<u8>) {
    let continuation = |bits: u16| 0x80 | (bits & 0x3f) as u8;
    text.extend_from_slice(&[0xe0 | (unit >> 12) as u8, continuation(unit >> 6), continuation(unit)]);
}

/// How many bytes of UTF-16 became `text`.
fn utf16_bytes(text: &[u8]) -> u64 {
    text.iter()
        .map(|&byte| match byte {
            DANGLING => 1,
            0x80..=0xbf => 0,
            0xf0..=0xfe => 4,
            _ => 2,
        })
        .sum()
}

fn decode(encoding: Encoding, bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match encoding {
        Encoding::Windows1252 => windows_1252::decode(bytes),
        Encoding::Utf8 | Encoding::Utf16Le | Encoding::Utf16Be => String::from_utf8_lossy(bytes),
    }
}

fn ascii(character: char, fallback: u8) -> u8 {
    u8::try_from(character).ok().filter(u8::is_ascii).unwrap_or(fallback)
}

fn counted(cells: usize) -> String {
    if cells == 1 { "1 cell".to_owned() } else { format!("{cells} cells") }
}

fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Utf8 => "UTF-8",
        Encoding::Utf16Le | Encoding::Utf16Be => "UTF-16",
        Encoding::Windows1252 => "Windows-1252",
    }
}

/// The columns' names: the header's cells, trimmed. A blank name is a column that nothing can be mapped from.
pub fn header_names(header: &Cells) -> Vec<String> {
    header.iter().map(|cell| cell.trim().to_owned()).collect()
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
