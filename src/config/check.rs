//! The shape of a file against the committed JSON Schema: every mistake, in words.
//!
//! serde would stop at the first one, and for a value of several possible shapes it could only say that none fits.
//! This understands the part of JSON Schema that the settings types generate and no more; a test walks the whole
//! schema and fails on a keyword that is not understood here.

use std::fmt;

use serde_json::{Map, Value};

use super::{
    Amount, AmountText,
    tree::{Entry, Node, Yaml},
};

/// How far a chain of `$ref`s is followed; the generated ones have one link.
const REFERENCES_MAX: usize = 8;
/// Longer texts are cut when a message quotes them.
const QUOTED_CHARS_MAX: usize = 40;

/// A place in the file: `imports[0].columns.Stage`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Place {
    pub(super) fn root() -> Self {
        Self::default()
    }
    pub(super) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }
    pub(super) fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }
    /// Whether this is `other` or a place in it.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
    /// The line of the place, or of the nearest thing around it that is there.
    pub(super) fn line_in(&self, root: &Node) -> u64 {
        self.find(root).0
    }
    /// Whether the file has this place.
    pub(super) fn is_in(&self, root: &Node) -> bool {
        self.find(root).1
    }
    fn find(&self, root: &Node) -> (u64, bool) {
        let (mut node, mut line) = (root, root.line);
        for step in &self.0 {
            match (step, &node.value) {
                (Step::Key(key), Yaml::Map(_)) => match node.get(key) {
                    Some(entry) => (node, line) = (&entry.value, entry.line),
                    None => return (line, false),
                },
                (Step::Index(index), Yaml::List(items)) => match items.get(*index) {
                    Some(item) => (node, line) = (item, item.line),
                    None => return (line, false),
                },
                _ => return (line, false),
            }
        }
        (line, true)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if number > 0 {
                        f.write_str(".")?;
                    }
                    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
                    if plain { f.write_str(key)? } else { write!(f, "{key:?}")? }
                }
            }
        }
        Ok(())
    }
}

/// One mistake.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) place: Place,
    /// 0 where it is not known.
    pub(super) line: u64,
    pub(super) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.place.0.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.text)
    }
}

/// The mistakes in the shape of `root`, and what is left of it without them, for the checks of meaning that follow.
pub(super) fn shape(schema: &Value, root: &Node) -> (Value, Vec<Problem>) {
    let mut checker = Checker { definitions: schema.get("$defs").unwrap_or(&Value::Null), problems: Vec::new() };
    let value = checker.value(schema, root, &Place::root()).unwrap_or(Value::Null);
    (value, checker.problems)
}

struct Checker<'s> {
    definitions: &'s Value,
    problems: Vec<Problem>,
}

impl<'s> Checker<'s> {
    fn problem(&mut self, place: &Place, line: u64, text: impl Into<String>) {
        self.problems.push(Problem { place: place.clone(), line, text: text.into() });
    }

    /// The schema itself, or what it refers to, with the name of the definition.
    fn resolve(&self, mut schema: &'s Value) -> (&'s Value, &'s str) {
        let mut name = "";
        for _ in 0..REFERENCES_MAX {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            name = reference.rsplit('/').next().unwrap_or_default();
            schema = self.definitions.get(name).unwrap_or(&Value::Null);
        }
        (schema, name)
    }

    /// What is right in `node`, or nothing if it is wrong as a whole.
    fn value(&mut self, schema: &'s Value, node: &Node, place: &Place) -> Option<Value> {
        let (schema, name) = self.resolve(schema);
        if !self.takes(schema, name, &node.value) {
            let expected = self.expected(schema, name);
            let hint = match &node.value {
                Yaml::Bool(_) | Yaml::Number(_) if self.takes(schema, name, &Yaml::Text("x".to_owned())) => {
                    "; put it in quotes"
                }
                Yaml::Null => "; fill it in, or leave the key out",
                _ => "",
            };
            self.problem(place, node.line, format!("expected {expected}, found {}{hint}", found(&node.value)));
            return None;
        }
        if name == "Amount" {
            return self.amount(node, place);
        }
        let words = constants(schema);
        if !words.is_empty() {
            return self.word(&words, node, place);
        }
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            // Each shape has a type of its own, so the value's type says which one was meant.
            let branch = branches.iter().find(|branch| {
                let (branch, name) = self.resolve(branch);
                self.takes(branch, name, &node.value)
            })?;
            return self.value(branch, node, place);
        }
        match &node.value {
            Yaml::Map(entries) => Some(self.map(schema, entries, node.line, place)),
            Yaml::List(items) => Some(self.list(schema, items, place)),
            Yaml::Number(number) => self.number(schema, number, node.line, place),
            Yaml::Text(text) => self.text(schema, text, node.line, place),
            Yaml::Bool(_) | Yaml::Null => Some(node.clone().into_json()),
        }
    }

    fn map(&mut self, schema: &'s Value, entries: &[Entry], line: u64, place: &Place) -> Value {
        let mut result = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        for (number, entry) in entries.iter().enumerate() {
            let place = place.key(&entry.key);
            if let Some(first) = entries.iter().take(number).find(|first| first.key == entry.key) {
                self.problem(&place, entry.line, format!("the key stands twice; it is first on line {}", first.line));
                continue;
            }
            if let Some(schema) = properties.and_then(|properties| properties.get(&entry.key)) {
                if let Some(value) = self.value(schema, &entry.value, &place) {
                    result.insert(entry.key.clone(), value);
                }
            } else if let Some(others) = schema.get("additionalProperties").filter(|others| others.is_object()) {
                if let Some(value) = self.value(others, &entry.value, &place) {
                    result.insert(entry.key.clone(), value);
                }
            } else if let Some(properties) = properties {
                let known = properties.keys().map(String::as_str);
                match nearest(&entry.key, known.clone()) {
                    Some(near) => {
                        self.problem(&place, entry.line, format!("unknown key; did you mean `{near}`?"));
                        // Go on as if it had been written right, so that no other message follows from this one.
                        let free = !entries.iter().any(|entry| entry.key == near);
                        if let (true, Some(schema)) = (free, properties.get(near))
                            && let Some(value) = self.value(schema, &entry.value, &place)
                        {
                            result.insert(near.to_owned(), value);
                        }
                    }
                    None => {
                        let known = known.collect::<Vec<_>>().join(", ");
                        self.problem(&place, entry.line, format!("unknown key; known here are {known}"));
                    }
                }
            }
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !result.contains_key(required) && !entries.iter().any(|entry| entry.key == required) {
                let expected =
                    properties.and_then(|properties| properties.get(required)).map_or_else(String::new, |schema| {
                        let (schema, name) = self.resolve(schema);
                        format!(" ({})", self.expected(schema, name))
                    });
                self.problem(&place.key(required), line, format!("missing; it is required{expected}"));
            }
        }
        Value::Object(result)
    }

    fn list(&mut self, schema: &'s Value, items: &[Node], place: &Place) -> Value {
        let Some(schema) = schema.get("items") else {
            return items.iter().cloned().map(Node::into_json).collect();
        };
        // What is wrong stays as a null, so that the places of the others do not move.
        items
            .iter()
            .enumerate()
            .map(|(index, item)| self.value(schema, item, &place.index(index)).unwrap_or(Value::Null))
            .collect()
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, line: u64, place: &Place) -> Option<Value> {
        let max = match schema.get("format").and_then(Value::as_str) {
            Some("uint32") => u64::from(u32::MAX),
            _ => u64::MAX,
        };
        if number.as_u64().is_some_and(|value| value <= max) {
            return Some(Value::Number(number.clone()));
        }
        self.problem(place, line, format!("{number} is out of range; use a whole number from 0 to {max}"));
        None
    }

    fn text(&mut self, schema: &Value, text: &str, line: u64, place: &Place) -> Option<Value> {
        if schema.get("maxLength").and_then(Value::as_u64) == Some(1) && text.chars().count() != 1 {
            let hint = if text == "\\t" { " (a tab is \"\\t\" in double quotes)" } else { "" };
            self.problem(place, line, format!("expected one character, found {} of them{hint}", text.chars().count()));
            return None;
        }
        Some(text.into())
    }

    fn amount(&mut self, node: &Node, place: &Place) -> Option<Value> {
        let value = node.clone().into_json();
        let amount = serde_json::from_value::<AmountText>(value.clone()).map_err(|_| "not an amount".to_owned());
        match amount.and_then(Amount::try_from) {
            Ok(_) => Some(value),
            Err(text) => {
                self.problem(place, node.line, text);
                None
            }
        }
    }

    fn word(&mut self, words: &[&str], node: &Node, place: &Place) -> Option<Value> {
        let Yaml::Text(text) = &node.value else { return Some(Value::Null) };
        if words.contains(&text.as_str()) {
            return Some(text.as_str().into());
        }
        let near =
            nearest(text, words.iter().copied()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.problem(place, node.line, format!("{} is not one of {}{near}", quoted(text), words.join(", ")));
        None
    }

    /// Whether a value of this type is taken at all.
    fn takes(&self, schema: &'s Value, name: &str, value: &Yaml) -> bool {
        let word = match value {
            Yaml::Null => "null",
            Yaml::Bool(_) => "boolean",
            Yaml::Number(number) if number.is_f64() => "number",
            Yaml::Number(_) => "integer",
            Yaml::Text(_) => "string",
            Yaml::List(_) => "array",
            Yaml::Map(_) => "object",
        };
        if name == "Amount" {
            return matches!(word, "integer" | "string");
        }
        if !constants(schema).is_empty() {
            return word == "string";
        }
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            return branches.iter().any(|branch| {
                let (branch, name) = self.resolve(branch);
                self.takes(branch, name, value)
            });
        }
        match schema.get("type") {
            Some(Value::String(one)) => one == word,
            Some(Value::Array(several)) => several.iter().any(|one| one == word),
            _ => true,
        }
    }

    /// What is taken, in words.
    fn expected(&self, schema: &'s Value, name: &str) -> String {
        if name == "Amount" {
            return "a share (`10%`) or a whole number".to_owned();
        }
        let words = constants(schema);
        if !words.is_empty() {
            return match words.as_slice() {
                [word] => format!("the word `{word}`"),
                _ => format!("one of {}", words.join(", ")),
            };
        }
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            let shapes = branches.iter().filter_map(|branch| {
                let (branch, name) = self.resolve(branch);
                (branch.get("type").and_then(Value::as_str) != Some("null")).then(|| self.expected(branch, name))
            });
            return shapes.collect::<Vec<_>>().join(" or ");
        }
        let word = match schema.get("type") {
            Some(Value::String(one)) => one.as_str(),
            Some(Value::Array(several)) => {
                several.iter().filter_map(Value::as_str).find(|one| *one != "null").unwrap_or_default()
            }
            _ => "",
        };
        match word {
            "string" if schema.get("maxLength").and_then(Value::as_u64) == Some(1) => "one character".to_owned(),
            "string" => "text".to_owned(),
            "integer" => "a whole number".to_owned(),
            "boolean" => "true or false".to_owned(),
            "array" => match schema.get("items") {
                Some(items) => {
                    let (items, name) = self.resolve(items);
                    match self.expected(items, name).as_str() {
                        "text" => "a list of texts".to_owned(),
                        _ => "a list".to_owned(),
                    }
                }
                None => "a list".to_owned(),
            },
            "object" => match schema.get("required").and_then(Value::as_array) {
                Some(required) if !required.is_empty() => {
                    let required = required.iter().filter_map(Value::as_str).map(|key| format!("`{key}`"));
                    format!("keys and values (with {})", required.collect::<Vec<_>>().join(", "))
                }
                _ => "keys and values".to_owned(),
            },
            _ => "a value".to_owned(),
        }
    }
}

/// The words of an enumeration, however the schema writes it.
fn constants(schema: &Value) -> Vec<&str> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(Value::as_str).collect();
    }
    let one_of = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    one_of
        .filter_map(|branch| branch.get("const").and_then(Value::as_str))
        .chain(schema.get("const").and_then(Value::as_str))
        .collect()
}

/// The candidate that was probably meant.
pub(crate) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let folded = word.to_lowercase().replace(['-', ' '], "_");
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase()), candidate))
        // Two slips in a word of some length; one in a short one.
        .filter(|(distance, candidate)| {
            *distance <= (candidate.chars().count().min(folded.chars().count()) / 3).clamp(1, 3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A text in a message: bounded, on one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

fn found(value: &Yaml) -> String {
    match value {
        Yaml::Null => "nothing".to_owned(),
        Yaml::Bool(value) => format!("`{value}`"),
        Yaml::Number(value) => format!("the number {value}"),
        Yaml::Text(text) => format!("the text {}", quoted(text)),
        Yaml::List(_) => "a list".to_owned(),
        Yaml::Map(_) => "keys and values".to_owned(),
    }
}
