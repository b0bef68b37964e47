//! A place in a file, shown: the line, and a caret under what is meant.
//!
//! Only files of this machine are shown, to who has them before his eyes anyway; nothing of it goes into logs or reports.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use crate::text::WIDTH;

/// A line of a file is read up to here.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Characters that are shown before what is meant.
const BEFORE: usize = 24;

/// What is meant on a line: characters from the start, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) at: usize,
    pub(crate) length: usize,
}

/// Line `number` (from 1) of a text file, without its line break. `None` where there is none, or it is no UTF-8.
pub(crate) fn line_of(path: &Path, number: u64) -> Option<String> {
    let mut reader = BufReader::new(File::open(path).ok()?);
    let mut line = Vec::new();
    for _ in 0..number {
        line.clear();
        if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        // The rest of a line that is longer.
        while line.last() != Some(&b'\n') && line.len() as u64 >= LINE_BYTES_MAX {
            let mut rest = Vec::new();
            if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut rest).ok()? == 0
                || rest.last() == Some(&b'\n')
            {
                break;
            }
        }
    }
    let text = String::from_utf8(line).ok()?;
    Some(text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']).to_owned())
}

/// Where the cell number `index` (from 0) of a CSV line is.
pub(crate) fn cell(line: &str, index: usize, delimiter: char, quote: char) -> Option<Span> {
    let (mut at, mut start, mut cell, mut quoted) = (0, 0, 0, false);
    for c in line.chars() {
        if c == quote {
            quoted = !quoted;
        } else if c == delimiter && !quoted {
            if cell == index {
                return Some(Span { at: start, length: at - start });
            }
            cell += 1;
            start = at + 1;
        }
        at += 1;
    }
    (cell == index).then_some(Span { at: start, length: at - start })
}

/// Where a word is on a line of YAML: the last step of a place in the file.
pub(crate) fn word(line: &str, word: &str) -> Option<Span> {
    let byte = line.find(word)?;
    Some(Span { at: line.get(..byte)?.chars().count(), length: word.chars().count() })
}

/// The message of a settings file's problems, each with its line and a caret; as it is, where the file cannot be read.
pub(crate) fn of_settings(message: &str) -> String {
    let Some((name, _)) = message.split_once(" has ") else { return message.to_owned() };
    let path = Path::new(name);
    let mut told = Vec::new();
    for line in message.lines() {
        told.push(line.to_owned());
        let Some((number, rest)) = line.strip_prefix("  line ").and_then(|rest| rest.split_once(": ")) else {
            continue;
        };
        let Some(text) = number.parse().ok().and_then(|number| line_of(path, number)) else { continue };
        // No secret belongs into the file; if a token stands there all the same, it is not repeated.
        if text.contains("pat-") {
            continue;
        }
        let place = rest.split_once(": ").map_or("", |(place, _)| place);
        let step = place.rsplit('.').next().unwrap_or_default().split('[').next().unwrap_or_default().trim_matches('"');
        let meant = if step.is_empty() { None } else { word(&text, step) };
        let start = text.chars().take_while(|c| c.is_whitespace()).count();
        let whole = Span { at: start, length: text.chars().count().saturating_sub(start) };
        told.extend(shown(name, number.parse().unwrap_or_default(), &text, Some(meant.unwrap_or(whole))));
    }
    told.join("\n")
}

/// The place as a heading, the line with a caret, in 80 columns. Without a span the whole line is meant.
pub(crate) fn shown(path: &str, number: u64, line: &str, span: Option<Span>) -> Vec<String> {
    let chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let span = span.unwrap_or(Span { at: 0, length: chars.len() });
    let gutter = number.to_string().len();
    let room = WIDTH - gutter - 5;
    let from = if span.at + span.length.min(room) > room { span.at.saturating_sub(BEFORE) } else { 0 };
    let mut excerpt: String = chars.iter().skip(from).take(room).collect();
    let mut at = span.at - from;
    if from > 0 {
        excerpt = format!("…{}", excerpt.chars().skip(1).collect::<String>());
    }
    if chars.len() > from + room {
        excerpt = format!("{}…", excerpt.chars().take(room - 1).collect::<String>());
    }
    at = at.min(room.saturating_sub(1));
    let carets = span.length.max(1).min(room - at);
    vec![
        format!("  {path}:{number}:{}", span.at + 1),
        format!("  {number} | {excerpt}"),
        format!("  {:gutter$} | {:at$}{}", "", "", "^".repeat(carets)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_cell_whatever_is_quoted() {
        let line = "\"Ada, B\",x;y,\"say \"\"hi\"\"\",last";
        let at = |index| {
            cell(line, index, ',', '"').map(|span| line.chars().skip(span.at).take(span.length).collect::<String>())
        };
        assert_eq!(at(0).as_deref(), Some("\"Ada, B\""));
        assert_eq!(at(2).as_deref(), Some("\"say \"\"hi\"\"\""));
        assert_eq!((at(3).as_deref(), at(4)), (Some("last"), None));
        let shown = shown("a.csv", 7, line, cell(line, 1, ',', '"'));
        assert_eq!(shown, ["  a.csv:7:10", "  7 | \"Ada, B\",x;y,\"say \"\"hi\"\"\",last", "    |          ^^^"]);
    }

    #[test]
    fn long_lines_are_cut_around_what_is_meant() {
        let line = format!("{},bad,{}", "x".repeat(300), "y".repeat(300));
        let lines = shown("a.csv", 12, &line, cell(&line, 1, ',', '"'));
        assert!(lines[1..].iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[1].chars().skip(caret).take(3).collect::<String>(), "bad");
    }

    #[test]
    fn a_line_is_found_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "\u{feff}a,b\r\n1,2\r\nlast").unwrap();
        assert_eq!(line_of(&path, 1).as_deref(), Some("a,b"));
        assert_eq!(line_of(&path, 3).as_deref(), Some("last"));
        assert_eq!(line_of(&path, 4), None);
        let line = "    modee: upsert";
        assert_eq!(word(line, "modee"), Some(Span { at: 4, length: 5 }));
    }
}
