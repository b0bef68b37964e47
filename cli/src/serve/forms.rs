//! What forms bring: pairs, or parts with a file among them.

use bytes::Bytes;
use hyper::header;

use super::http::{Answer, Asked, pairs};

/// Fields of a form with a file; the page's has three.
const PARTS_MAX: usize = 16;
/// Bytes of a part's head.
const HEAD_BYTES_MAX: usize = 4_096;
/// Characters of a file's name that are kept.
const NAME_MAX: usize = 120;

/// One part of a form with a file.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) name: String,
    /// Of a file.
    pub(super) file_name: Option<String>,
    pub(super) bytes: Bytes,
}

/// The fields of a form without a file, if it brings the token.
pub(super) fn fields(asked: &Asked, token: &str) -> Result<Vec<(String, String)>, Answer> {
    let text = std::str::from_utf8(&asked.body).map_err(|_| malformed())?;
    let fields = pairs(text);
    let own = fields.iter().find(|(name, _)| name == "token").map(|(_, value)| value.as_str());
    check(own, token).map(|()| fields)
}

/// A field of them; empty if it is not there.
pub(super) fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// The parts of a form with a file, if it brings the token.
pub(super) fn parts(asked: &Asked, token: &str) -> Result<Vec<Part>, Answer> {
    let kind = asked.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary =
        kind.strip_prefix("multipart/form-data").and_then(|rest| rest.split_once("boundary=")).map(|(_, b)| b);
    let boundary = boundary.map(|text| text.split(';').next().unwrap_or(text).trim().trim_matches('"'));
    let boundary = boundary.filter(|text| (1..=70).contains(&text.len())).ok_or_else(malformed)?;
    let parts = split(&asked.body, boundary).ok_or_else(malformed)?;
    let own = parts.iter().find(|part| part.name == "token").and_then(|part| std::str::from_utf8(&part.bytes).ok());
    check(own, token).map(|()| parts)
}

fn check(own: Option<&str>, token: &str) -> Result<(), Answer> {
    match own {
        Some(own) if own == token => Ok(()),
        _ => Err(Answer::text(403, "The form is of an earlier start of this cloud: reload the page and try again.\n")),
    }
}

fn malformed() -> Answer {
    Answer::text(400, "The form cannot be read.\n")
}

/// The parts of a body; `None` where it is not what it says.
fn split(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let first = format!("--{boundary}");
    let between = format!("\r\n--{boundary}");
    let mut at = find(body, first.as_bytes(), 0)? + first.len();
    let mut parts = Vec::new();
    loop {
        let rest = body.get(at..)?;
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        if !rest.starts_with(b"\r\n") || parts.len() == PARTS_MAX {
            return None;
        }
        let head_end = find(body, b"\r\n\r\n", at)?;
        let head = body.get(at + 2..head_end).unwrap_or_default();
        if head.len() > HEAD_BYTES_MAX {
            return None;
        }
        let end = find(body, between.as_bytes(), head_end + 4)
            // An empty part: its end begins with the line break of its head.
            .or_else(|| find(body, between.as_bytes(), head_end + 2))?;
        let bytes = body.slice((head_end + 4).min(end)..end);
        at = end + between.len();
        let head = String::from_utf8_lossy(head);
        let disposition = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
        let parameter = |name: &str| {
            let (_, value) = disposition.split_once(&format!("; {name}=\""))?;
            Some(value.split('"').next().unwrap_or_default().to_owned())
        };
        parts.push(Part { name: parameter("name")?, file_name: parameter("filename"), bytes });
    }
}

fn find(body: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let rest = body.get(from..)?;
    // A file may hold anything: look for the first byte with `position`, which is fast, then compare.
    let first = *what.first()?;
    let mut at = 0;
    while let Some(next) = rest.get(at..)?.iter().position(|byte| *byte == first) {
        at += next;
        if rest.get(at..)?.starts_with(what) {
            return Some(from + at);
        }
        at += 1;
    }
    None
}

/// A file's name as the last part of a key: no folders, nothing that is not printed. `None` if nothing is left.
pub(super) fn file_name(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe: String = last.chars().filter(|c| !c.is_control() && !"<>:\"|?*".contains(*c)).collect();
    let safe = safe.trim().trim_start_matches('.');
    let start = safe.chars().count().saturating_sub(NAME_MAX);
    // The end tells what it is.
    let kept: String = safe.chars().skip(start).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, Method};

    use super::*;

    fn asked(kind: &str, body: &[u8]) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let body = Bytes::copy_from_slice(body);
        Asked { method: Method::POST, path: Vec::new(), query: Vec::new(), headers, body }
    }

    const FORM: &str = "--B\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nt\r\n--B\r\nContent-Disposition: form-data; \
                        name=\"file\"; filename=\"a.csv\"\r\nContent-Type: text/csv\r\n\r\nEmail\r\n--b\r\n-B--B\r\n--B--\r\n";

    #[test]
    fn the_parts_of_a_form_come_out_as_they_went_in() {
        let parts = parts(&asked("multipart/form-data; boundary=B", FORM.as_bytes()), "t").unwrap();
        assert_eq!((parts[1].name.as_str(), parts[1].file_name.as_deref()), ("file", Some("a.csv")));
        assert_eq!(parts[1].bytes, "Email\r\n--b\r\n-B--B", "what only looks like the boundary is part of the file");
        let empty = "--B\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nt\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; \
                     filename=\"\"\r\n\r\n\r\n--B--\r\n";
        let parts = super::parts(&asked("multipart/form-data; boundary=\"B\"", empty.as_bytes()), "t").unwrap();
        assert!(parts[1].bytes.is_empty());
    }

    #[test]
    fn a_form_that_is_cut_anywhere_is_refused_and_nothing_panics() {
        // After the last line break the form is complete.
        for end in 0..FORM.len() - 4 {
            let cut = asked("multipart/form-data; boundary=B", &FORM.as_bytes()[..end]);
            assert!(parts(&cut, "t").is_err(), "cut at {end}");
        }
        for kind in ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary="] {
            assert_eq!(parts(&asked(kind, FORM.as_bytes()), "t").unwrap_err().status, 400, "{kind}");
        }
    }

    #[test]
    fn a_form_without_this_start_s_token_is_refused() {
        let multipart = asked("multipart/form-data; boundary=B", FORM.as_bytes());
        assert_eq!(parts(&multipart, "other").unwrap_err().status, 403);
        for (body, status) in [("token=other&a=1", 403), ("a=1", 403), ("\u{1}", 403)] {
            assert_eq!(fields(&asked("", body.as_bytes()), "t").unwrap_err().status, status, "{body}");
        }
        assert_eq!(fields(&asked("", b"\xff"), "t").unwrap_err().status, 400);
        let fields = fields(&asked("", b"token=t&a=1+2"), "t").unwrap();
        assert_eq!((field(&fields, "a"), field(&fields, "b")), ("1 2", ""));
    }

    #[test]
    fn a_file_s_name_cannot_leave_its_folder() {
        for (name, kept) in [
            ("a.csv", Some("a.csv")),
            ("../../etc/passwd", Some("passwd")),
            ("C:\\Temp\\ä b.csv", Some("ä b.csv")),
            ("..", None),
            ("dir/", None),
            ("\u{0}\n.csv", Some("csv")),
        ] {
            assert_eq!(file_name(name).as_deref(), kept, "{name:?}");
        }
        assert!(file_name(&("x".repeat(500) + ".csv")).unwrap().ends_with("x.csv"));
    }
}
