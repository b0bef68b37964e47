//! Text for people: lines that fit, figures that can be read, one line of JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Result;
use serde_json::{Value, json};

/// Columns of text.
pub(crate) const WIDTH: usize = 80;

/// One line of JSON on standard output.
pub(crate) fn json_line(value: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// An error as one line of JSON on standard output: `{"error":{code,message,hint}}`, code and hint null where it has none.
pub(crate) fn json_error(error: &anyhow::Error) -> Result<()> {
    json_line(&json!({ "error": told(error) }))
}

/// The result; an error is a line of JSON too, where `json` is asked for.
pub(crate) fn and_json<T>(json: bool, result: Result<T>) -> Result<T> {
    if json && let Err(error) = &result {
        json_error(error)?;
    }
    result
}

/// An error as JSON: `{code,message,hint}`.
pub(crate) fn told(error: &anyhow::Error) -> Value {
    let whole = format!("{error:#}");
    match error.downcast_ref::<hubferry::Error>() {
        Some(error) => {
            let message = whole.trim_start_matches(&format!("{}: ", error.code()));
            json!({ "code": error.code().as_str(), "message": message, "hint": error.hint() })
        }
        None => json!({ "code": null, "message": whole, "hint": null }),
    }
}

/// Whether standard output takes colour.
pub(crate) fn has_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text on standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Text in lines of at most `width`, the first after `first`, the others after as many spaces.
pub(crate) fn wrap(first: &str, text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::replace(&mut line, " ".repeat(first.chars().count())));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

/// At most so many characters, on one line.
pub(crate) fn clip(text: &str, most: usize) -> String {
    let line = text.replace('\n', " ");
    if line.chars().count() <= most { line } else { line.chars().take(most - 1).chain(['…']).collect() }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_keep_their_words() {
        let lines = wrap("  -> ", "one two three four", 12);
        assert_eq!(lines, ["  -> one two", "     three", "     four"]);
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(clip("abcdef", 4), "abc…");
    }
}
