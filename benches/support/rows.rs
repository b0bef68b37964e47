//! The file: eight typed columns, each of which has to be checked or converted. The same number gives the same row.

use std::{io::Write as _, ops::Range};

use hubferry_simulator::hubspot::{PropertyDefinition, PropertyOption};

/// The columns' names.
pub(crate) const HEADER: &str = "Email,First Name,Last Name,Phone,Annual spend,Signed up,Plan,Newsletter";

/// How the columns are mapped, as in hubferry.yaml.
pub(crate) const COLUMNS: &str = r#"{"Email":"email","First Name":"firstname","Last Name":"lastname","Phone":"phone",
"Annual spend":"annual_spend","Signed up":{"property":"signed_up","date":"%d/%m/%Y"},"Plan":"plan","Newsletter":"newsletter"}"#;

/// Value and label of the property `plan`.
const PLANS: [(&str, &str); 4] =
    [("free", "Free plan"), ("starter", "Starter"), ("pro", "Professional"), ("enterprise", "Enterprise (annual)")];

/// Bytes of a row of the large file.
const WIDE_ROW_BYTES: usize = 512;

/// Bytes of a row of the very large file: the eight columns and their remarks in the first part, then columns that nobody maps.
pub(crate) const VAST_ROW_BYTES: usize = VAST_FIRST_BYTES + VAST_COLUMNS * VAST_CELL_BYTES;
const VAST_FIRST_BYTES: usize = 256;
const VAST_CELL_BYTES: usize = 64;
/// So many of them.
pub(crate) const VAST_COLUMNS: usize = 156;

/// Records that the rows of the large file are about, over and over: what the simulator holds must fit into memory.
const WIDE_RECORDS: u64 = 50_000;

/// The account's own properties that the file needs.
pub(crate) fn properties() -> Vec<PropertyDefinition> {
    let mut plan = PropertyDefinition::new("plan", "enumeration");
    let option = |(value, label): (&str, &str)| PropertyOption {
        value: value.to_owned(),
        label: label.to_owned(),
        ..PropertyOption::default()
    };
    plan.options = PLANS.map(option).to_vec();
    vec![
        PropertyDefinition::new("annual_spend", "number"),
        PropertyDefinition::new("signed_up", "date"),
        plan,
        PropertyDefinition::new("newsletter", "bool"),
        PropertyDefinition::new("remarks", "string"),
    ]
}

/// A file of these rows. Rows for which `changed` is true say something else than otherwise.
pub(crate) fn file(numbers: Range<u64>, changed: impl Fn(u64) -> bool) -> Vec<u8> {
    let mut out = format!("{HEADER}\n").into_bytes();
    for number in numbers {
        row(&mut out, number, u64::from(changed(number)));
        out.push(b'\n');
    }
    out
}

/// The names of the properties of [`record`].
pub(crate) const PROPERTIES: [&str; 8] =
    ["email", "firstname", "lastname", "phone", "annual_spend", "signed_up", "plan", "newsletter"];

/// The row as HubSpot has it: names and values of properties.
pub(crate) fn record(number: u64) -> Vec<(&'static str, String)> {
    let chance = mix(number);
    let part = |shift: u32, below: u64| (chance >> shift) % below;
    let plan = PLANS.get(usize::try_from(part(24, 4)).unwrap_or(0)).map_or("", |(value, _)| value);
    let values = [
        format!("person{number}@example.com"),
        format!("Given{}", part(5, 997)),
        format!("Family{}", part(11, 9973)),
        format!("+1 555 01{:02} {:04}", part(17, 100), part(29, 10_000)),
        format!("{}.{:02}", 1_000 + part(33, 900_000), part(43, 100)),
        format!("{}-{:02}-{:02}", 2000 + part(57, 25), 1 + part(53, 12), 1 + part(47, 28)),
        plan.to_owned(),
        (part(9, 2) == 0).to_string(),
    ];
    PROPERTIES.into_iter().zip(values).collect()
}

/// A file of these rows as they stand in this revision.
pub(crate) fn revised(numbers: Range<u64>, revision: u64) -> Vec<u8> {
    let mut out = format!("{HEADER}\n").into_bytes();
    for number in numbers {
        row(&mut out, number, revision);
        out.push(b'\n');
    }
    out
}

/// First name and phone of a row, as they stand in this revision.
pub(crate) fn told(number: u64, revision: u64) -> (String, String) {
    let mut line = Vec::new();
    row(&mut line, number, revision);
    let line = String::from_utf8(line).unwrap_or_default();
    let mut cells = line.split(',').map(str::to_owned);
    (cells.nth(1).unwrap_or_default(), cells.nth(1).unwrap_or_default())
}

/// One row without its line end. `revision` changes everything but the key.
fn row(out: &mut Vec<u8>, number: u64, revision: u64) {
    let chance = mix(number ^ revision.rotate_left(40));
    let part = |shift: u32, below: u64| (chance >> shift) % below;
    // One name in eight is not ASCII.
    let family = if part(3, 8) == 0 { "Família" } else { "Family" };
    let plan = PLANS.get(usize::try_from(part(24, 4)).unwrap_or(0)).map_or("", |(_, label)| label);
    let newsletter = if part(9, 2) == 0 { "yes" } else { "no" };
    let _ = write!(
        out,
        "person{number}@example.com,Given{},{family}{},+1 555 01{:02} {:04},\"{},{:03}.{:02}\",{:02}/{:02}/{},{plan},{newsletter}",
        part(5, 997),
        part(11, 9973),
        part(17, 100),
        part(29, 10_000),
        1 + part(33, 900),
        part(37, 1_000),
        part(43, 100),
        1 + part(47, 28),
        1 + part(53, 12),
        2000 + part(57, 25),
    );
}

/// Bytes and rows of the large file, and its bytes by range: each line has the same length, so that none has to be kept.
pub(crate) fn wide(bytes: u64) -> (u64, u64) {
    let rows = bytes / WIDE_ROW_BYTES as u64 - 1;
    ((rows + 1) * WIDE_ROW_BYTES as u64, rows)
}

/// These bytes of the large file.
pub(crate) fn wide_range(range: Range<u64>) -> Vec<u8> {
    lines(range, WIDE_ROW_BYTES, |line, at| {
        match at {
            // The header's cells are padded with blanks, which are no part of a name.
            0 => line.extend_from_slice(format!("{HEADER},Remarks").as_bytes()),
            _ => {
                row(line, (at - 1) % WIDE_RECORDS, (at - 1) / WIDE_RECORDS);
                line.extend_from_slice(b",Remarks of some length");
            }
        }
        line.resize(WIDE_ROW_BYTES - 1, if at == 0 { b' ' } else { b'.' });
    })
}

/// Bytes and rows of the very large file, whose rows are about `records` records, over and over.
pub(crate) fn vast(bytes: u64) -> (u64, u64) {
    let rows = bytes / VAST_ROW_BYTES as u64 - 1;
    ((rows + 1) * VAST_ROW_BYTES as u64, rows)
}

/// These bytes of the very large file.
pub(crate) fn vast_range(range: Range<u64>, records: u64) -> Vec<u8> {
    let mut cells = Vec::with_capacity(VAST_ROW_BYTES);
    for _ in 0..VAST_COLUMNS {
        cells.push(b',');
        cells.resize(cells.len() + VAST_CELL_BYTES - 1, b'-');
    }
    lines(range, VAST_ROW_BYTES, |line, at| {
        if at == 0 {
            line.extend_from_slice(format!("{HEADER},Remarks").as_bytes());
            line.resize(VAST_FIRST_BYTES - 1, b' ');
            for column in 0..VAST_COLUMNS {
                line.extend_from_slice(format!(",Column {column}").as_bytes());
                line.resize(VAST_FIRST_BYTES - 1 + (column + 1) * VAST_CELL_BYTES, b' ');
            }
        } else {
            row(line, (at - 1) % records, (at - 1) / records);
            line.extend_from_slice(b",");
            line.resize(VAST_FIRST_BYTES - 1, b'.');
            line.extend_from_slice(&cells);
        }
    })
}

/// Bytes of a file whose lines all have the same length, so that none has to be kept. `write` appends a line without its end.
fn lines(range: Range<u64>, bytes: usize, write: impl Fn(&mut Vec<u8>, u64)) -> Vec<u8> {
    let each = bytes as u64;
    let mut out = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
    let mut line = Vec::with_capacity(bytes);
    for at in range.start / each..range.end.div_ceil(each) {
        line.clear();
        write(&mut line, at);
        line.push(b'\n');
        let (begin, end) = (range.start.saturating_sub(at * each), (range.end - at * each).min(each));
        let bounds = usize::try_from(begin).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
        out.extend_from_slice(line.get(bounds).unwrap_or_default());
    }
    out
}

/// SplitMix64: well-spread bits from a counter.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
