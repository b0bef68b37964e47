//! Files as people send them, written by a writer of our own: it knows which row stands on which line, and what must become of it.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, rc::Rc};

use serde_json::{Value, json};

use crate::dice::{happens, one_of};

/// In every text that a file says: whatever holds it outside HubSpot, the files and the rejects has leaked a value. No id and no number holds it.
pub const MARK: &str = "uloq";

/// What a row says of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Blank,
    /// This, once it is trimmed.
    Text(String),
}

/// What must become of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Written, whatever happens.
    Accepted,
    /// In the rejects, whatever happens.
    Rejected,
    /// It depends on what stands in HubSpot at the time.
    Open,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Writes its cells.
    Write,
    /// Archives the record.
    Archive,
}

/// One row, and the line on which it starts.
#[derive(Debug, Clone)]
pub struct Row {
    /// Physical line, the header's being 1.
    pub line: u64,
    /// The key as equal ones have it in common.
    pub key: String,
    /// Name of a property, and what the row says of it.
    pub cells: Vec<(&'static str, Cell)>,
    /// What must become of it.
    pub fate: Fate,
    /// What it does.
    pub act: Act,
    /// The second record of the row, where it has one: its key and its cells.
    pub second: Option<(String, Vec<(&'static str, Cell)>)>,
    /// The cells as they stand in the file, where the row can be cut into cells.
    pub raw: Option<Vec<String>>,
}

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its rows, in order.
    pub rows: Vec<Row>,
    /// What is uploaded.
    pub bytes: Vec<u8>,
    /// How it is written, in words.
    pub how: String,
}

/// What a row is to say, before it is written.
pub struct Draft {
    /// The key's cell as it stands there.
    pub key_text: String,
    /// See [`Row::key`].
    pub key: String,
    /// See [`Row::cells`]; those of the second record follow.
    pub cells: Vec<(&'static str, Cell)>,
    /// See [`Row::fate`].
    pub fate: Fate,
    /// See [`Row::act`].
    pub act: Act,
    /// See [`Row::second`].
    pub second: Option<(String, Vec<(&'static str, Cell)>)>,
    /// How it is spoilt on the way into the file.
    pub spoilt: Spoilt,
}

/// How a row is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoilt {
    /// It is not.
    No,
    /// Its last cell is missing.
    Ragged,
    /// Text after a closing quote.
    Quote,
}

/// How text becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf8Bom,
    Utf16Le,
    Utf16Be,
    Windows1252,
}

/// Writes a CSV file with these columns; the first one is the key's. `odd` files are written as people's programs write them.
pub fn csv(header: &[&str], drafts: Vec<Draft>, rng: &mut fastrand::Rng, odd: bool) -> File {
    let mut style = rng.fork();
    let mut delimiter = one_of(&mut style, &[',', ',', ';', '\t', '|']);
    let mut encoding = one_of(
        &mut style,
        &[
            Encoding::Utf8,
            Encoding::Utf8,
            Encoding::Utf8Bom,
            Encoding::Utf8Bom,
            Encoding::Utf16Le,
            Encoding::Utf16Be,
            Encoding::Windows1252,
        ],
    );
    let mut end = one_of(&mut style, &["\n", "\n", "\r\n"]);
    let (mut quoted, mut last_end, mut zipped) =
        (style.f64() * 0.5, happens(&mut style, 0.8), happens(&mut style, 0.15));
    if !odd {
        (delimiter, encoding, end, quoted, last_end, zipped) = (',', Encoding::Utf8, "\n", 0.0, true, false);
    }
    let mut text = String::new();
    let mut line = 1;
    for (at, name) in header.iter().enumerate() {
        if at > 0 {
            text.push(delimiter);
        }
        text.push_str(name);
    }
    text.push_str(end);
    line += 1;
    let count = drafts.len();
    let mut rows = Vec::with_capacity(count);
    for (at, draft) in drafts.into_iter().enumerate() {
        let mut style = rng.fork();
        let second = draft.second.iter().flat_map(|(key, cells)| {
            let cells = cells.iter().map(|(_, cell)| cell.clone());
            std::iter::once(Cell::Text(key.clone())).chain(cells)
        });
        let cells = draft.cells.iter().map(|(_, cell)| cell.clone()).chain(second);
        let mut raw = vec![draft.key_text.clone()];
        for cell in cells {
            let mut cell = match cell {
                Cell::Blank => String::new(),
                Cell::Text(text) => text,
            };
            if happens(&mut style, 0.05) && odd {
                cell = format!(" {cell} ");
            }
            raw.push(cell);
        }
        let mut fields: Vec<String> = raw
            .iter()
            .map(|cell| {
                let needed = cell.contains([delimiter, '"', '\n', '\r']);
                if needed || style.f64() < quoted { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
            })
            .collect();
        match draft.spoilt {
            Spoilt::No => {}
            Spoilt::Ragged => drop(fields.pop()),
            Spoilt::Quote => fields[0] = format!("\"{}\"x", draft.key_text),
        }
        let physical = fields.join(&delimiter.to_string());
        rows.push(Row {
            line,
            key: draft.key,
            cells: draft.cells,
            fate: if draft.spoilt == Spoilt::No { draft.fate } else { Fate::Rejected },
            act: draft.act,
            second: draft.second,
            raw: (draft.spoilt == Spoilt::No).then_some(raw),
        });
        line += physical.matches('\n').count() as u64 + 1;
        text.push_str(&physical);
        if at + 1 < count || last_end {
            text.push_str(end);
        }
        if odd && happens(&mut style, 0.01) && at + 1 < count {
            text.push_str(end);
            line += 1;
        }
    }
    let mut bytes = encode(&text, encoding);
    if zipped {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(&bytes).unwrap();
        bytes = zip.finish().unwrap();
    }
    File { rows, bytes, how: format!("{delimiter:?} {encoding:?} {end:?} gzip {zipped}") }
}

fn encode(text: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        Encoding::Utf8Bom => format!("\u{feff}{text}").into_bytes(),
        Encoding::Utf16Le => format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Encoding::Utf16Be => format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect(),
        // All that is written here beyond ASCII is Latin 1.
        Encoding::Windows1252 => text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect(),
    }
}

/// Writes a file of OpenCDC records. `draft.key` is the id in the stream; without a key of the account's the first cell is what makes the
/// record recognisable.
pub fn opencdc(drafts: Vec<Draft>, operations: &[&'static str]) -> File {
    let mut text = String::new();
    let mut rows = Vec::with_capacity(drafts.len());
    for (at, (draft, operation)) in drafts.into_iter().zip(operations).enumerate() {
        let properties: serde_json::Map<String, Value> = draft
            .cells
            .iter()
            .map(|(name, cell)| {
                let value = match cell {
                    Cell::Blank => Value::Null,
                    Cell::Text(text) => Value::String(text.clone()),
                };
                ((*name).to_owned(), value)
            })
            .collect();
        let after = if *operation == "delete" { Value::Null } else { json!({ "properties": properties }) };
        let line = if draft.spoilt == Spoilt::No {
            json!({ "operation": operation, "key": { "id": draft.key_text }, "payload": { "before": null, "after": after } })
                .to_string()
        } else {
            format!("{{\"operation\":\"{operation}\",")
        };
        let _ = writeln!(text, "{line}");
        rows.push(Row {
            line: at as u64 + 1,
            key: draft.key,
            cells: draft.cells,
            fate: if draft.spoilt == Spoilt::No { draft.fate } else { Fate::Rejected },
            act: if *operation == "delete" { Act::Archive } else { Act::Write },
            second: None,
            raw: None,
        });
    }
    File { rows, bytes: text.into_bytes(), how: "opencdc".to_owned() }
}

/// What a file leaves of each record: the last word on each property, for the rows that `accepted` lets through.
pub fn last_words(
    rows: &[Row],
    clears: bool,
    accepted: impl Fn(&Row) -> bool,
) -> BTreeMap<String, (Act, BTreeMap<&'static str, Option<String>>)> {
    let mut words: BTreeMap<String, (Act, BTreeMap<&'static str, Option<String>>)> = BTreeMap::new();
    for row in rows.iter().filter(|row| accepted(row)) {
        let of = words.entry(row.key.clone()).or_insert((row.act, BTreeMap::new()));
        of.0 = row.act;
        if row.act == Act::Archive {
            of.1.clear();
        }
        for (name, cell) in &row.cells {
            match cell {
                Cell::Text(text) => drop(of.1.insert(name, Some(text.trim().to_owned()))),
                Cell::Blank if clears => drop(of.1.insert(name, None)),
                Cell::Blank => {}
            }
        }
    }
    words
}

/// A file that several uploads have in common.
pub type Shared = Rc<File>;
