//! Reading the file: every problem at once.
//!
//! Three steps: YAML into a tree with lines, its shape against the JSON Schema, its meaning by the rules of `rules`.
//! What is wrong in shape is left out before the meaning is checked, so that one reading of the message is enough to mend the file.

use std::sync::LazyLock;

use serde_json::Value;

use super::{
    Config,
    check::{self, Place, Problem},
    rules,
    tree::{Node, Yaml},
};
use crate::{Error, Result, codes};

/// The JSON Schema of the file, as committed under `schema/`.
pub const SCHEMA: &str = include_str!("../../schema/hubferry.schema.json");

/// Larger than any configuration; an S3 object of this size is something else.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Problems that one message lists; a file with more is wrong as a whole.
const PROBLEMS_MAX: usize = 100;
/// Characters of a line that an excerpt shows.
const EXCERPT_CHARS_MAX: usize = 160;

static SCHEMA_VALUE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(SCHEMA).unwrap_or(Value::Null));

/// The settings in `text`, which is the content of the file `name`.
///
/// `CONFIG_INVALID` lists every problem on a line of its own, with its line, its path in the file
/// (`imports[0].columns.Stage.blank`), what is wrong and, where one can tell, what was meant.
pub fn parse(text: &str, name: &str) -> Result<Config> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > FILE_BYTES_MAX {
        return Err(invalid(format!("{name} is larger than {} MB; this is not a hubferry.yaml", FILE_BYTES_MAX >> 20)));
    }
    if text.contains('\0') {
        return Err(invalid(format!("{name} is not text; this is not a hubferry.yaml")));
    }
    let root = Node::read(text).map_err(|error| syntax_error(&error, text, name))?;
    match root.value {
        Yaml::Map(_) => {}
        Yaml::Null => return Err(invalid(format!("{name} is empty; it needs at least `version: 1`"))),
        Yaml::List(_) => {
            return Err(invalid(format!(
                "{name} is a list at the top; it must be keys and values, the first of them `version: 1`"
            )));
        }
        _ => {
            return Err(invalid(format!(
                "{name} is not a hubferry.yaml: it holds a single text or number, and must be keys and values"
            )));
        }
    }
    let (value, mut problems) = check::shape(&SCHEMA_VALUE, &root);
    problems.extend(rules::problems(&value, &root, &problems));
    if problems.is_empty() {
        match serde_json::from_value(value) {
            Ok(config) => return Ok(config),
            Err(error) => problems.push(Problem { place: Place::root(), line: 0, text: error.to_string() }),
        }
    }
    Err(listed(problems, name))
}

/// Says what `bytes` lack to be a file for [`parse`], or gives its text.
pub fn text(bytes: &[u8], name: &str) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
            Err(invalid(format!("{name} is not UTF-8 text (line {line})")))
        }
    }
}

fn listed(mut problems: Vec<Problem>, name: &str) -> Error {
    problems.sort_by_key(|problem| problem.line);
    let count = problems.len();
    let mut message = match count {
        1 => format!("{name} has a problem:"),
        _ => format!("{name} has {count} problems:"),
    };
    for problem in problems.iter().take(PROBLEMS_MAX) {
        message.push_str("\n  ");
        message.push_str(&problem.to_string());
    }
    if count > PROBLEMS_MAX {
        message.push_str(&format!("\n  and {} more", count - PROBLEMS_MAX));
    }
    invalid(message)
}

/// File, line and column of what is not YAML, with the line itself and a caret under the place.
fn syntax_error(error: &serde_saphyr::Error, text: &str, name: &str) -> Error {
    let full = error.without_snippet().to_string();
    // The library ends its message with the place, which stands in front here.
    let what = full.lines().next().unwrap_or_default();
    let what = what.rsplit_once(" at line ").map_or(what, |(what, _)| what).trim_start_matches("error: ");
    let Some(location) = error.location() else { return invalid(format!("{name} is not YAML: {what}")) };
    let (line, column) = (location.line(), location.column());
    let mut message = format!("{name}:{line}:{column}: not YAML: {what}");
    let excerpt = usize::try_from(line).ok().and_then(|line| text.lines().nth(line.checked_sub(1)?));
    let before = usize::try_from(column).unwrap_or(1).saturating_sub(1);
    // No secret belongs into the file; if a token stands there all the same, it is not repeated.
    if let Some(excerpt) = excerpt.filter(|line| before <= EXCERPT_CHARS_MAX && !line.contains("pat-")) {
        let shown: String =
            excerpt.chars().take(EXCERPT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        message.push_str(&format!(
            "\n  {line} | {shown}\n  {:width$} | {:before$}^",
            "",
            "",
            width = line.to_string().len()
        ));
    }
    invalid(message)
}

fn invalid(message: String) -> Error {
    Error::invalid(codes::CONFIG_INVALID, message)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
