//! How much of a world is lived through, and what is said of it afterwards.

use std::fmt::{self, Write as _};

/// A job that is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    /// Files into HubSpot, run by run.
    Import,
    /// S3's notifications: late, twice, out of order, for files that are replaced and deleted meanwhile.
    Delivery,
    /// HubSpot to S3: snapshots and captures.
    Capture,
    /// Salesforce and HubSpot in step.
    Sync,
}

impl Job {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Import, Self::Delivery, Self::Capture, Self::Sync];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Delivery => "delivery",
            Self::Capture => "capture",
            Self::Sync => "sync",
        }
    }
}

/// How much of what the seed asks for is in the world. A failing seed is shrunk by turning these down one after the other for as long
/// as the same invariant breaks.
///
/// A world draws every number whether it is used or not, so that what is turned down changes nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Rows or records, percent of what the seed asks for; at least one is left.
    pub size: u8,
    /// Rounds, percent of what the seed asks for; at least one is left.
    pub rounds: u8,
    /// Calls are refused, answers lost, slow or cut.
    pub faults: bool,
    /// Processes are killed.
    pub kills: bool,
    /// Several runs at once.
    pub overlap: bool,
    /// People and automation edit meanwhile.
    pub people: bool,
    /// A second account.
    pub accounts: bool,
    /// Odd files: quoting, byte order marks, duplicate keys, huge rows, bad values.
    pub odd: bool,
}

impl Scale {
    /// The world as the seed makes it.
    pub const FULL: Self = Self {
        size: 100,
        rounds: 100,
        faults: true,
        kills: true,
        overlap: true,
        people: true,
        accounts: true,
        odd: true,
    };

    /// The names of what can be left out altogether, as [`Scale::without`] takes them.
    pub const PARTS: [&str; 6] = ["faults", "kills", "overlap", "people", "accounts", "odd"];

    /// The same without this part; `None` for a name that is none of [`Scale::PARTS`].
    pub fn without(mut self, part: &str) -> Option<Self> {
        *match part {
            "faults" => &mut self.faults,
            "kills" => &mut self.kills,
            "overlap" => &mut self.overlap,
            "people" => &mut self.people,
            "accounts" => &mut self.accounts,
            "odd" => &mut self.odd,
            _ => return None,
        } = false;
        Some(self)
    }

    /// As the command line takes it: `--size 10 --rounds 20 --without kills,people`; empty for the whole world.
    pub fn flags(&self) -> String {
        let mut flags = Vec::new();
        if self.size != Self::FULL.size {
            flags.push(format!("--size {}", self.size));
        }
        if self.rounds != Self::FULL.rounds {
            flags.push(format!("--rounds {}", self.rounds));
        }
        let out: Vec<&str> = Self::PARTS.into_iter().filter(|part| self.without(part) == Some(*self)).collect();
        if !out.is_empty() {
            flags.push(format!("--without {}", out.join(",")));
        }
        flags.join(" ")
    }

    /// So many percent of a number, but one at least.
    pub fn of(percent: u8, number: usize) -> usize {
        (number * usize::from(percent)).div_ceil(100).max(1)
    }
}

/// What happened, line by line. Two lives of one seed have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    text: String,
}

impl Trace {
    /// Adds a line.
    pub fn note(&mut self, at: jiff::Timestamp, line: fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{at} {line}");
    }

    /// All lines.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A number that is another one when a line is.
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.text.as_bytes())
    }
}

/// Something that must always hold did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which, in a few words that stay the same from world to world: `a row is accounted for once`.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

/// A world that was lived through.
#[derive(Debug)]
pub struct Lived {
    /// What happened. It ends with the clock, the next random number and a summary of what stands in every system.
    pub trace: Trace,
    /// What went wrong, if anything did.
    pub end: Result<(), Failure>,
}
