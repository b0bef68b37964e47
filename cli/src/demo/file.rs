//! The demo's CSV: contacts as people export them, with the faults that such files have. The same seed gives the same bytes.

use std::collections::BTreeMap;

use hubferry::clock::Rng;

/// The first line.
pub(crate) const HEADER: [&str; 10] =
    ["Email", "First Name", "Last Name", "Stage", "Plan", "Signed up", "Annual spend", "Newsletter", "Owner", "Notes"];
/// Where in a row the key is.
const EMAIL: usize = 0;
/// A place for each kind of fault, and rows between them.
pub(crate) const ROWS_MIN: u32 = 200;
/// The file and what is known about its rows are held in memory.
pub(crate) const ROWS_MAX: u32 = 200_000;
/// One contact in so many is in HubSpot before the import.
const KNOWN_EVERY: usize = 20;

/// What is wrong, or odd, with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Not an e-mail address.
    BadEmail,
    /// No key at all.
    BlankKey,
    /// A stage that the account does not have.
    WrongOption,
    /// A day that no calendar has.
    ImpossibleDate,
    /// A word where a number belongs.
    BadNumber,
    /// Neither yes nor no.
    BadBoolean,
    /// Somebody who is no owner.
    UnknownOwner,
    /// A cell too few or too many.
    Ragged,
    /// A bad address, and notes that a spreadsheet would run.
    Formula,
    /// An address that HubSpot refuses, which only HubSpot knows.
    Blocked,
    /// The address of the row before, in capitals.
    RepeatNear,
    /// The address of a row far above, in capitals.
    RepeatFar,
    /// A line break inside a cell: not a fault, but it moves the line numbers.
    LineBreak,
    /// The file ends inside a quoted cell.
    Unterminated,
}

/// Each fault and its rows in 10,000; every file has at least one of each.
const FAULTS: [(Fault, u32); 14] = [
    (Fault::BadEmail, 60),
    (Fault::BlankKey, 20),
    (Fault::WrongOption, 40),
    (Fault::ImpossibleDate, 30),
    (Fault::BadNumber, 20),
    (Fault::BadBoolean, 10),
    (Fault::UnknownOwner, 15),
    (Fault::Ragged, 15),
    (Fault::Formula, 5),
    (Fault::Blocked, 1),
    (Fault::RepeatNear, 120),
    (Fault::RepeatFar, 60),
    (Fault::LineBreak, 10),
    (Fault::Unterminated, 1),
];

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The physical line on which it starts; the header is 1.
    pub(crate) line: u64,
    /// What is wrong with it.
    pub(crate) fault: Option<Fault>,
    /// Its cells, unquoted.
    pub(crate) cells: Vec<String>,
}

/// The file, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// As uploaded.
    pub(crate) bytes: Vec<u8>,
    /// All rows, in order.
    pub(crate) rows: Vec<Row>,
    /// Addresses that HubSpot has before the import.
    pub(crate) known: Vec<String>,
    /// Addresses that HubSpot refuses.
    pub(crate) blocked: Vec<String>,
}

impl File {
    /// `rows` rows ([`ROWS_MIN`] to [`ROWS_MAX`]).
    pub(crate) fn generate(rows: u32, seed: u64) -> Self {
        let rng = Rng::seeded(seed);
        let faults = place(rows, &rng);
        let mut made: Vec<Row> = Vec::new();
        let (mut known, mut blocked) = (Vec::new(), Vec::new());
        // A byte order mark, as spreadsheets write it.
        let mut bytes = b"\xef\xbb\xbf".to_vec();
        write_cells(&mut bytes, &HEADER.map(str::to_owned));
        bytes.extend_from_slice(b"\r\n");
        let mut line = 2;
        for index in 0..rows as usize {
            let fault = faults.get(&index).copied();
            let mut cells = contact(index, &rng);
            match fault {
                None if index % KNOWN_EVERY == 7 => known.push(cells[EMAIL].to_lowercase()),
                Some(Fault::Blocked) => blocked.push(cells[EMAIL].to_lowercase()),
                // The rows before a repeat may be faulty themselves; then the nearest sound one is repeated.
                Some(Fault::RepeatNear) => repeat(&mut cells, made.iter().rev()),
                Some(Fault::RepeatFar) => repeat(&mut cells, made.iter().skip(rng.index(index / 2 + 1))),
                _ => {}
            }
            if let Some(fault) = fault {
                spoil(&mut cells, fault, &rng);
            }
            let lines = cells.iter().map(|cell| cell.matches('\n').count() as u64).sum::<u64>() + 1;
            if fault == Some(Fault::Unterminated) {
                cells.truncate(HEADER.len() - 1);
                write_cells(&mut bytes, &cells);
                bytes.extend_from_slice(b",\"the file was cut off in the mid");
            } else {
                write_cells(&mut bytes, &cells);
                bytes.extend_from_slice(b"\r\n");
            }
            made.push(Row { line, fault, cells });
            line += lines;
        }
        Self { bytes, rows: made, known, blocked }
    }

    /// How many rows have each fault.
    #[cfg(test)]
    fn faults(&self) -> BTreeMap<Fault, usize> {
        let mut counts = BTreeMap::new();
        for fault in self.rows.iter().filter_map(|row| row.fault) {
            *counts.entry(fault).or_default() += 1;
        }
        counts
    }
}

trait Choose {
    fn index(&self, below: usize) -> usize;
    fn choose<'a>(&self, from: &[&'a str]) -> &'a str;
}

impl Choose for Rng {
    fn index(&self, below: usize) -> usize {
        usize::try_from(self.u64() % (below.max(1) as u64)).unwrap_or_default()
    }

    fn choose<'a>(&self, from: &[&'a str]) -> &'a str {
        from.get(self.index(from.len())).copied().unwrap_or_default()
    }
}

/// Which row has which fault. Repeats need rows before them, and a file can only be cut off at its end.
fn place(rows: u32, rng: &Rng) -> BTreeMap<usize, Fault> {
    let (first, last) = (10, rows as usize - 1);
    let mut places = BTreeMap::from([(last, Fault::Unterminated)]);
    for (fault, share) in FAULTS {
        if fault == Fault::Unterminated {
            continue;
        }
        let count = if fault == Fault::Blocked { 1 } else { (rows * share / 10_000).max(1) };
        for _ in 0..count {
            // At most a tenth of the rows is taken, so a free one is found soon.
            let free = std::iter::repeat_with(|| first + rng.index(last - first)).find(|at| !places.contains_key(at));
            places.extend(free.map(|at| (at, fault)));
        }
    }
    places
}

/// Names made of syllables: nobody is called so.
fn name(rng: &Rng) -> String {
    const SYLLABLES: [&str; 20] = [
        "ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "té", "vi", "wo", "zü", "ra", "lø", "mi",
        "na", "ño",
    ];
    let mut name: String = (0..2 + rng.index(2)).map(|_| rng.choose(&SYLLABLES)).collect();
    if let Some(first) = name.get(..1).map(str::to_uppercase) {
        name.replace_range(..1, &first);
    }
    name
}

fn ascii(name: &str) -> String {
    name.chars()
        .map(|c| match c.to_ascii_lowercase() {
            'é' => 'e',
            'ü' => 'u',
            'ø' => 'o',
            'ñ' => 'n',
            other => other,
        })
        .collect()
}

/// A contact as it should be, in the spellings that one file can have side by side.
fn contact(index: usize, rng: &Rng) -> Vec<String> {
    let (first, last) = (name(rng), name(rng));
    let mut email = format!("{}.{}.{}@example.com", ascii(&first), ascii(&last), index + 1);
    if index % 9 == 4 {
        email = email.to_uppercase();
    }
    let stage = rng.choose(&[
        "lead",
        "Lead",
        "Subscriber",
        "customer",
        "Sales Qualified Lead",
        "Marketing Qualified Lead",
        "opportunity",
        "",
    ]);
    let plan = rng.choose(&["Free", "Team", "plan_enterprise", "Enterprise", ""]);
    let (year, month, day) = (2021 + rng.index(5), 1 + rng.index(12), 1 + rng.index(28));
    let month_name = rng.choose(&["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]);
    let signed_up = match rng.index(5) {
        0 => format!("{year}-{month:02}-{day:02}"),
        1 => format!("{day:02}/{month:02}/{year}"),
        2 => format!("{day:02}.{month:02}.{year}"),
        3 => format!("{day} {month_name} {year}"),
        _ => String::new(),
    };
    let (thousands, rest, cents) = (1 + rng.index(48), rng.index(1_000), rng.index(100));
    let spend = match rng.index(4) {
        0 => format!("{thousands},{rest:03}.{cents:02}"),
        1 => format!("{thousands}{rest:03}.{cents:02}"),
        2 => rest.to_string(),
        _ => String::new(),
    };
    let newsletter = rng.choose(&["yes", "no", "Y", "N", "true", "FALSE", "1", "0", ""]);
    let owner = rng.choose(&["alex@example.com", "Sam@Example.com", "Alex Owner", "", ""]);
    let notes = rng.choose(&["", "", "met at a fair", "says \"call me\"", "likes tea, not coffee", "  wants a quote "]);
    [&email, &first, &last, stage, plan, &signed_up, &spend, newsletter, owner, notes].map(str::to_owned).to_vec()
}

/// Takes over the address of the first sound row, in the other case.
fn repeat<'a>(cells: &mut [String], rows: impl Iterator<Item = &'a Row>) {
    let mut sound = rows.filter(|row| row.fault.is_none());
    if let (Some(row), Some(email)) = (sound.next(), cells.get_mut(EMAIL)) {
        let other = row.cells.first().map(String::as_str).unwrap_or_default();
        let upper = other.to_uppercase();
        *email = if other == upper { other.to_lowercase() } else { upper };
    }
}

fn spoil(cells: &mut Vec<String>, fault: Fault, rng: &Rng) {
    let local = cells.first().and_then(|email| email.split('@').next()).unwrap_or_default().to_owned();
    let mut set = |at: usize, text: String| {
        if let Some(cell) = cells.get_mut(at) {
            *cell = text;
        }
    };
    match fault {
        Fault::BadEmail => set(
            EMAIL,
            match rng.index(4) {
                0 => format!("{local}.example.com"),
                1 => format!("{local}@@example.com"),
                2 => format!("{local}@example"),
                _ => format!("{local} at example.com"),
            },
        ),
        Fault::BlankKey => set(EMAIL, rng.choose(&["", "   "]).to_owned()),
        Fault::WrongOption => set(3, rng.choose(&["Prospekt", "Custmer", "Sales-Qualified", "hot"]).to_owned()),
        Fault::ImpossibleDate => {
            set(5, rng.choose(&["31/02/2024", "30.02.2023", "2023-02-29", "31/04/2025"]).to_owned())
        }
        Fault::BadNumber => set(6, rng.choose(&["n/a", "about 500", "1.2.3"]).to_owned()),
        Fault::BadBoolean => set(7, rng.choose(&["maybe", "2"]).to_owned()),
        Fault::UnknownOwner => set(8, "left@example.com".to_owned()),
        Fault::Formula => {
            set(EMAIL, format!("{local}@"));
            set(9, "=HYPERLINK(\"http://example.com\",\"open\")".to_owned());
        }
        Fault::LineBreak => set(9, "first line\nsecond line".to_owned()),
        Fault::Ragged if rng.index(2) == 0 => {
            cells.pop();
        }
        Fault::Ragged => cells.push("one cell too many".to_owned()),
        Fault::Blocked | Fault::RepeatNear | Fault::RepeatFar | Fault::Unterminated => {}
    }
}

fn write_cells(bytes: &mut Vec<u8>, cells: &[String]) {
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        if cell.contains(['"', ',', '\n']) {
            bytes.extend_from_slice(format!("\"{}\"", cell.replace('"', "\"\"")).as_bytes());
        } else {
            bytes.extend_from_slice(cell.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_file_and_another_seed_another() {
        assert_eq!(File::generate(400, 7), File::generate(400, 7));
        assert_ne!(File::generate(400, 7).bytes, File::generate(400, 8).bytes);
    }

    #[test]
    fn every_promised_fault_is_there_even_in_the_smallest_file() {
        for (rows, seed) in [(ROWS_MIN, 1), (300, 2), (10_000, 1)] {
            let file = File::generate(rows, seed);
            let faults = file.faults();
            for (fault, share) in FAULTS {
                let wanted = if fault == Fault::Blocked { 1 } else { (rows * share / 10_000).max(1) as usize };
                assert_eq!(faults.get(&fault), Some(&wanted), "{fault:?} in {rows} rows");
            }
            assert_eq!(file.rows.len(), rows as usize);
            assert!(!file.known.is_empty() && file.blocked.len() == 1);
        }
    }

    #[test]
    fn the_bytes_hold_what_the_rows_say() {
        let file = File::generate(2_000, 3);
        let text = std::str::from_utf8(&file.bytes).unwrap();
        assert!(text.starts_with("\u{feff}Email,First Name,"), "a byte order mark, then the header");
        assert!(text.ends_with("cut off in the mid"), "the last quote is never closed");
        // Another parser than ours agrees about lines and cells.
        let body = text.trim_start_matches('\u{feff}').as_bytes();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(body);
        let mut ragged = 0;
        for (row, record) in file.rows.iter().zip(reader.records()) {
            let record = record.unwrap();
            if row.fault == Some(Fault::Unterminated) {
                break;
            }
            assert_eq!(record.iter().collect::<Vec<_>>(), row.cells, "line {}", row.line);
            ragged += usize::from(record.len() != HEADER.len());
        }
        assert_eq!(Some(&ragged), file.faults().get(&Fault::Ragged));
        let line = |row: &Row| text.split('\n').nth(usize::try_from(row.line).unwrap() - 1).unwrap().to_owned();
        for row in file.rows.iter().filter(|row| row.fault == Some(Fault::BadEmail)) {
            assert!(line(row).contains(&row.cells[EMAIL]), "line {}", row.line);
        }
    }

    #[test]
    fn repeats_differ_from_an_earlier_address_in_case_only() {
        let file = File::generate(2_000, 5);
        for (at, row) in file.rows.iter().enumerate() {
            if matches!(row.fault, Some(Fault::RepeatNear | Fault::RepeatFar)) {
                let earlier = file.rows[..at].iter().map(|row| &row.cells[EMAIL]);
                let same: Vec<_> = earlier.filter(|email| email.eq_ignore_ascii_case(&row.cells[EMAIL])).collect();
                assert!(same.iter().any(|email| **email != row.cells[EMAIL]), "line {}", row.line);
            }
        }
    }

    #[test]
    fn spellings_of_all_kinds_are_in_the_file() {
        let file = File::generate(2_000, 1);
        let has = |column: usize, wanted: &str| {
            file.rows.iter().any(|row| row.cells.get(column).is_some_and(|cell| cell == wanted))
        };
        for (column, wanted) in [(3, "Sales Qualified Lead"), (4, "Enterprise"), (8, "Sam@Example.com"), (7, "yes")] {
            assert!(has(column, wanted), "{wanted}");
        }
        assert!(file.rows.iter().any(|row| row.cells.get(6).is_some_and(|cell| cell.contains(','))), "thousands");
        for mark in ['/', '.', '-', ' '] {
            assert!(file.rows.iter().any(|row| row.cells.get(5).is_some_and(|cell| cell.contains(mark))), "{mark}");
        }
        assert!(file.rows.iter().any(|row| row.cells.get(9).is_some_and(|cell| cell.starts_with("=HYPERLINK"))));
    }
}
