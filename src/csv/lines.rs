//! JSON lines: one flat JSON object a line, by the same contract as CSV records.
//!
//! Values become the text that a CSV cell would hold: strings as they are, numbers as they are written (a long id
//! must not lose digits on its way through a float), `true`, `false`, and blank for `null`.

use memchr::memchr;

use super::records::{ROW_BYTES_MAX, Start};
use crate::{
    codes::{self, Code},
    record::Reason,
};

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonRecord {
    /// The physical line, counted from 1.
    pub line: u64,
    /// Offset of the line's first byte in the decompressed file.
    pub start: u64,
    /// Offset of the byte after its line end; reading can start again here.
    pub end: u64,
    /// Name and cell, in the order of the line, each name once. Empty with a fault.
    pub fields: Vec<(String, String)>,
    /// The line as it stands, where it has a fault, for the reject file, or of a reader of [`JsonLines::unread`] lines. Empty where it is too large.
    pub raw: String,
    /// Why the line cannot be delivered.
    pub fault: Option<Reason>,
}

impl JsonRecord {
    /// The cell of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, cell)| cell.as_str())
    }
}

/// A push parser: feed bytes, take records until there are none, feed more. Memory: what was fed and not yet taken,
/// and at most one line ([`ROW_BYTES_MAX`]).
pub struct JsonLines {
    buffer: Vec<u8>,
    /// Index in `buffer` of the first byte that no record has taken; `offset` and `line` are its place in the file.
    begin: usize,
    offset: u64,
    line: u64,
    /// Bytes after `begin` that hold no line end.
    searched: usize,
    ended: bool,
    /// Start of a line that is too large and being skipped.
    skip: Option<u64>,
    /// Lines are given as they stand.
    unread: bool,
}

impl JsonLines {
    /// A reader that starts at `start`: the file's beginning, or a record's `end`.
    pub fn new(start: Start) -> Self {
        Self {
            buffer: Vec::new(),
            begin: 0,
            offset: start.byte,
            line: start.line,
            searched: 0,
            ended: false,
            skip: None,
            unread: false,
        }
    }

    /// As [`Self::new`], for lines that somebody else reads: each is given as it stands in `raw`, whatever it holds.
    pub fn unread(start: Start) -> Self {
        Self { unread: true, ..Self::new(start) }
    }

    /// Takes the next bytes of the file. Call [`Self::next`] until it says `None` before feeding more.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.begin > 0 {
            self.buffer.drain(..self.begin);
            self.begin = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The file has ended: the last line needs no line end.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// Where the next record will be looked for.
    pub fn position(&self) -> Start {
        Start { byte: self.offset, line: self.line }
    }

    /// The next record; `None` if more bytes are needed, or after [`Self::finish`] if there are no more.
    #[expect(clippy::should_implement_trait, reason = "an iterator would be over for good at the first None")]
    pub fn next(&mut self) -> Option<JsonRecord> {
        loop {
            let rest = self.buffer.get(self.begin..).unwrap_or_default();
            let found = memchr(b'\n', rest.get(self.searched..).unwrap_or_default()).map(|at| at + self.searched);
            let (len, next) = match found {
                Some(at) => (at, at + 1),
                None if self.ended => (rest.len(), rest.len()),
                None => {
                    self.searched = rest.len();
                    if self.searched > ROW_BYTES_MAX {
                        let start = self.skip.unwrap_or(self.offset);
                        self.skip = Some(start);
                        self.consume(rest.len(), false);
                    }
                    return None;
                }
            };
            if let Some(start) = self.skip.take() {
                return Some(self.too_large(start, next, found.is_some()));
            }
            if next == 0 {
                return None;
            }
            if len > ROW_BYTES_MAX {
                return Some(self.too_large(self.offset, next, found.is_some()));
            }
            let mut text = rest.get(..len).unwrap_or_default();
            if self.offset == 0 {
                text = text.strip_prefix(UTF8_BOM).unwrap_or(text);
            }
            if text.iter().all(u8::is_ascii_whitespace) {
                self.consume(next, found.is_some());
                continue;
            }
            let read = match std::str::from_utf8(text) {
                Ok(text) if self.unread => {
                    let raw = text.trim_end_matches('\r').to_owned();
                    let (line, start) = (self.line, self.offset);
                    self.consume(next, found.is_some());
                    return Some(JsonRecord { line, start, end: self.offset, fields: Vec::new(), raw, fault: None });
                }
                Ok(text) => read_object(text).map_err(|why| (codes::INVALID_JSON, why)),
                Err(_) => Err((codes::INVALID_ENCODING, "the line holds bytes that are not UTF-8".to_owned())),
            };
            let (fields, raw, fault) = match read {
                Ok(fields) => (fields, String::new(), None),
                Err((code, why)) => {
                    let raw = String::from_utf8_lossy(text).trim_end_matches('\r').to_owned();
                    (Vec::new(), raw, Some(fault(code, why)))
                }
            };
            let (line, start) = (self.line, self.offset);
            self.consume(next, found.is_some());
            return Some(JsonRecord { line, start, end: self.offset, fields, raw, fault });
        }
    }

    fn too_large(&mut self, start: u64, next: usize, ended: bool) -> JsonRecord {
        let line = self.line;
        self.consume(next, ended);
        let why = format!("the line is larger than {ROW_BYTES_MAX} bytes; it is not repeated here");
        let fault = Some(fault(codes::ROW_TOO_LARGE, why));
        JsonRecord { line, start, end: self.offset, fields: Vec::new(), raw: String::new(), fault }
    }

    fn consume(&mut self, len: usize, line_end: bool) {
        self.begin += len;
        self.offset += len as u64;
        self.line += u64::from(line_end);
        self.searched = 0;
    }
}

fn fault(code: Code, why: String) -> Reason {
    Reason::new(code, why)
}

/// The members of a flat object, or what is wrong with it (never with a value in the text).
fn read_object(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut cursor = Cursor { text, at: 0 };
    let mut fields: Vec<(String, String)> = Vec::new();
    if !cursor.take('{') {
        return Err("the line is not a JSON object".to_owned());
    }
    let mut more = !cursor.take('}');
    while more {
        let name = cursor.string().ok_or_else(|| cursor.wrong("a name in quotes is expected"))?;
        if !cursor.take(':') {
            return Err(cursor.wrong("a colon is expected"));
        }
        let cell = cursor.value(&name)?;
        if fields.iter().any(|(field, _)| *field == name) {
            return Err(format!("the member {name:?} stands twice in the object"));
        }
        fields.push((name, cell));
        more = cursor.take(',');
        if !more && !cursor.take('}') {
            return Err(cursor.wrong("a comma or a closing brace is expected"));
        }
    }
    cursor.space();
    if cursor.rest().is_empty() { Ok(fields) } else { Err(cursor.wrong("there is text after the object")) }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at += self.rest().bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    }

    fn take(&mut self, character: char) -> bool {
        self.space();
        let there = self.rest().starts_with(character);
        self.at += usize::from(there);
        there
    }

    fn wrong(&self, what: &str) -> String {
        format!("the line is not a JSON object: {what} at byte {}", self.at + 1)
    }

    fn string(&mut self) -> Option<String> {
        self.space();
        let rest = self.rest();
        let mut bytes = rest.bytes().enumerate();
        if bytes.next()?.1 != b'"' {
            return None;
        }
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' => {
                    bytes.next();
                }
                b'"' => {
                    let string = serde_json::from_str(rest.get(..=at)?).ok()?;
                    self.at += at + 1;
                    return Some(string);
                }
                _ => {}
            }
        }
        None
    }

    fn value(&mut self, name: &str) -> Result<String, String> {
        self.space();
        let rest = self.rest();
        match rest.bytes().next() {
            Some(b'"') => self.string().ok_or_else(|| self.wrong("a string is not right")),
            Some(b'{' | b'[') => Err(format!("the member {name:?} is an object or a list; only flat objects are read")),
            _ => {
                let len = rest.find([',', '}', ' ', '\t', '\r']).unwrap_or(rest.len());
                let token = rest.get(..len).unwrap_or_default();
                let cell = match token {
                    "null" => "",
                    "true" | "false" => token,
                    _ if is_json_number(token) => token,
                    _ => return Err(self.wrong("a value is expected")),
                };
                self.at += len;
                Ok(cell.to_owned())
            }
        }
    }
}

/// The grammar of RFC 8259: `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
fn is_json_number(token: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
