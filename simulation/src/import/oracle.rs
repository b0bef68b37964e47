//! The plain model: who said what of which record, when at the earliest and when at the latest. It knows nothing of batches,
//! checkpoints, leases or retries. What stands in HubSpot must be what somebody said, unless somebody else certainly spoke later.

use std::collections::{BTreeMap, BTreeSet};

use hubferry::{
    objects::Location,
    report::{Outcome, Report},
};
use hubferry_simulator::hubspot::Portal;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    file::{Act, Cell, Fate, Row, last_words},
    plan::{Import, Mode, Rows},
};
use crate::world::World;

/// Whether the record is there at all.
pub const THERE: &str = "(there)";

/// What the oracle asks of a contact.
pub const CONTACT: [&str; 7] = ["firstname", "lastname", "city", "score", "level", "badge", "bio"];

/// What the oracle asks of a company.
pub const COMPANY: [&str; 2] = ["name", "city"];

/// A record: account, object type, key.
pub type Place = (usize, &'static str, String);

/// Somebody said that a property has a value.
#[derive(Debug, Clone)]
pub struct Claim {
    value: Option<String>,
    from: Timestamp,
    to: Timestamp,
    /// It certainly happened.
    certain: bool,
    /// Of a run: the object's key and the number of the upload; a newer one is later, whenever it came.
    version: Option<(String, usize)>,
    /// Of a run: its id.
    run: Option<String>,
}

/// A run that is over.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its id.
    pub run_id: String,
    /// Which upload it is of.
    pub upload: usize,
    /// Its report, if there is one.
    pub report: Option<Report>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// When it was made.
    pub from: Timestamp,
    /// When it had ended.
    pub to: Timestamp,
}

/// A line of a rejects file.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The physical line in the source.
    pub line: u64,
    /// Why.
    pub code: String,
    /// In words, of a CSV.
    pub reason: String,
    /// The cells, of a CSV.
    pub cells: Vec<String>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    claims: BTreeMap<(Place, &'static str), Vec<Claim>>,
}

fn properties(object: &str) -> &'static [&'static str] {
    if object == "companies" { &COMPANY } else { &CONTACT }
}

impl Oracle {
    fn say(&mut self, place: &Place, property: &'static str, claim: Claim) {
        self.claims.entry((place.clone(), property)).or_default().push(claim);
    }

    /// Somebody who is no run said so, and it is so: at this moment. `None` for the whole record.
    pub fn person(&mut self, at: Timestamp, place: &Place, property: Option<&'static str>, value: Option<String>) {
        let claim = Claim { value, from: at, to: at, certain: true, version: None, run: None };
        match property {
            Some(property) => self.say(place, property, claim),
            None => {
                for property in properties(place.1) {
                    self.say(place, property, Claim { value: None, ..claim.clone() });
                }
                self.say(place, THERE, claim);
            }
        }
    }

    /// A record stands there from the start.
    pub fn seeded(&mut self, at: Timestamp, place: &Place, record: &[(&'static str, String)]) {
        self.person(at, place, None, Some("yes".to_owned()));
        for (name, value) in record {
            if let Some(property) = properties(place.1).iter().find(|property| *property == name) {
                self.claims.insert(
                    (place.clone(), property),
                    vec![Claim {
                        value: Some(value.clone()),
                        from: at,
                        to: at,
                        certain: true,
                        version: None,
                        run: None,
                    }],
                );
            }
        }
    }

    /// Whether the record certainly stood there, or certainly not, all the time before and during this run, as far as all others know: also
    /// runs of the same object, which may have failed after they had created it. `None` where that is not certain.
    pub fn stood(&self, place: &Place, ran: &Ran) -> Option<bool> {
        let (from, to) = (ran.from, ran.to);
        let claims = self.claims.get(&(place.clone(), THERE)).map(Vec::as_slice).unwrap_or_default();
        let own = |claim: &&Claim| claim.run.as_ref() == Some(&ran.run_id);
        let others = || claims.iter().filter(|claim| !own(claim));
        if others().any(|claim| claim.to >= from && claim.from <= to && claim.from != claim.to)
            || others().any(|claim| claim.from >= from && claim.from <= to)
        {
            return None;
        }
        let before: Vec<&Claim> = others().filter(|claim| claim.to < from).collect();
        let values: BTreeSet<bool> = before.iter().map(|claim| claim.value.is_some()).collect();
        match (values.len(), before.iter().all(|claim| claim.certain)) {
            (0, _) => Some(false),
            (1, true) => values.first().copied(),
            _ => None,
        }
    }

    /// What a run said. `rejects` are the lines that it rejected; `earlier`: the rows that equal what the import delivered before, which a
    /// run may leave out.
    #[expect(clippy::too_many_arguments, reason = "what a run is known by")]
    pub fn run(
        &mut self,
        ran: &Ran,
        import: &Import,
        key: &str,
        rows: &[Row],
        rejects: &BTreeSet<u64>,
        left_out: impl Fn(&str) -> bool,
        gone: &BTreeSet<String>,
    ) {
        let version = Some((key.to_owned(), ran.upload));
        let done = ran.outcome == Some(Outcome::Done);
        let claim = |value: Option<String>, certain: bool| Claim {
            value,
            from: ran.from,
            to: ran.to,
            certain,
            version: version.clone(),
            run: Some(ran.run_id.clone()),
        };
        let place = |key: &str| (import.account, import.object(), key.to_owned());
        let clears = import.clears || import.rows == Rows::Foreign;
        if done {
            let words = last_words(rows, clears, |row| !rejects.contains(&row.line));
            for (key, (act, cells)) in words {
                let place = place(&key);
                let certain = !left_out(&key);
                if act == Act::Archive || import.rows == Rows::Foreign {
                    // Archived in between, perhaps, and made again: what is not said afterwards may be gone.
                    for property in properties(place.1) {
                        self.say(&place, property, claim(None, act == Act::Archive && certain));
                    }
                }
                self.say(&place, THERE, claim((act == Act::Write).then(|| "yes".to_owned()), certain));
                for (property, value) in cells {
                    self.say(&place, property, claim(value, certain));
                }
            }
            let mut seconds: BTreeMap<String, Option<String>> = BTreeMap::new();
            for row in rows.iter().filter(|row| !rejects.contains(&row.line)) {
                let Some((code, cells)) = &row.second else { continue };
                let name = seconds.entry(code.clone()).or_default();
                if let Some((_, Cell::Text(text))) = cells.first() {
                    *name = Some(text.trim().to_owned());
                }
            }
            for (code, name) in seconds {
                let place = (import.account, "companies", code);
                self.say(&place, THERE, claim(Some("yes".to_owned()), true));
                if name.is_some() {
                    self.say(&place, "name", claim(name, true));
                }
            }
        } else {
            for row in rows.iter().filter(|row| row.fate != Fate::Rejected) {
                let place = place(&row.key);
                self.say(&place, THERE, claim((row.act == Act::Write).then(|| "yes".to_owned()), false));
                for (property, cell) in &row.cells {
                    match cell {
                        Cell::Text(text) => self.say(&place, property, claim(Some(text.trim().to_owned()), false)),
                        Cell::Blank if clears => self.say(&place, property, claim(None, false)),
                        Cell::Blank => {}
                    }
                }
                if let Some((code, cells)) = &row.second {
                    let place = (import.account, "companies", code.clone());
                    self.say(&place, THERE, claim(Some("yes".to_owned()), false));
                    if let Some((_, Cell::Text(text))) = cells.first() {
                        self.say(&place, "name", claim(Some(text.trim().to_owned()), false));
                    }
                }
                if row.act == Act::Archive {
                    for property in properties(place.1) {
                        self.say(&place, property, claim(None, false));
                    }
                }
            }
        }
        // What `mirror` may have archived.
        for key in gone {
            let place = place(key);
            self.say(&place, THERE, claim(None, false));
            for property in properties(place.1) {
                self.say(&place, property, claim(None, false));
            }
        }
    }

    /// Everything in HubSpot that nobody said, or that somebody certainly said otherwise later.
    pub fn compare(&self, portals: &[std::cell::Ref<'_, Portal>], muddled: &BTreeSet<(usize, String)>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut records: BTreeMap<&Place, Option<BTreeMap<String, String>>> = BTreeMap::new();
        for ((place, property), claims) in &self.claims {
            if muddled.contains(&(place.0, place.2.clone())) {
                continue;
            }
            let record = records.entry(place).or_insert_with(|| {
                let portal = &portals[place.0];
                ["email", "domain", "code", "hubferry_hs_object_id_key", "badge"]
                    .iter()
                    .find_map(|name| portal.find_by(place.1, name, &place.2))
            });
            let stands = match *property {
                THERE => record.as_ref().map(|_| "yes".to_owned()),
                name => record.as_ref().and_then(|record| record.get(name).cloned()).filter(|text| !text.is_empty()),
            };
            let later = |claim: &Claim| {
                claims.iter().any(|other| {
                    let newer = match (&other.version, &claim.version) {
                        (Some((ours, one)), Some((theirs, two))) => ours == theirs && one > two,
                        _ => false,
                    };
                    other.certain && (other.from > claim.to || newer)
                })
            };
            // Nobody said anything: as it was.
            let never = claims.iter().all(|claim| !claim.certain) && stands.is_none();
            let allowed: Vec<&Claim> = claims.iter().filter(|claim| !later(claim)).collect();
            if !never && !allowed.iter().any(|claim| claim.value == stands) {
                let said: Vec<&Option<String>> = allowed.iter().map(|claim| &claim.value).collect();
                wrong.push(format!("{place:?} {property}: HubSpot has {stands:?}, said was {said:?}"));
            }
        }
        wrong
    }

    /// Values that others than this run gave a property: also an earlier run of the same object, which may have written before it gave up.
    pub fn said_by_others(&self, place: &Place, property: &str, but: &str) -> BTreeSet<Option<String>> {
        let name = properties(place.1).iter().find(|name| **name == property);
        let claims = name.and_then(|name| self.claims.get(&(place.clone(), name)));
        let others = claims.into_iter().flatten().filter(|claim| claim.run.as_deref() != Some(but));
        others.map(|claim| claim.value.clone()).chain([None]).collect()
    }
}

/// The lines of a run's rejects file.
pub fn rejects_of(world: &World, report: &Report) -> Result<Vec<Rejected>, String> {
    let Some(uri) = &report.rejects else { return Ok(Vec::new()) };
    let bytes = Location::parse(uri).and_then(|at| world.objects.contents(&at));
    let Some(bytes) = bytes else { return Err(format!("{uri} is not there")) };
    if uri.ends_with(".jsonl") {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        return lines
            .map(|line| {
                let json: Value = serde_json::from_slice(line).map_err(|error| format!("{uri}: {error}"))?;
                let line = json["_line"].as_u64().ok_or_else(|| format!("{uri}: a line without _line"))?;
                let code = json["_code"].as_str().unwrap_or_default().to_owned();
                Ok(Rejected { line, code, reason: String::new(), cells: Vec::new() })
            })
            .collect();
    }
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(&bytes[..]);
    let headers = reader.headers().map_err(|error| format!("{uri}: {error}"))?.clone();
    let at = |name: &str| headers.iter().position(|header| header == name).ok_or_else(|| format!("{uri}: no {name}"));
    let (line, code) = (at("_line")?, at("_code")?);
    let mut all = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| format!("{uri}: {error}"))?;
        let number = row.get(line).and_then(|line| line.parse().ok()).ok_or_else(|| format!("{uri}: {row:?}"))?;
        let cells = row.iter().take(line).map(str::to_owned).collect();
        let reason = row.get(code + 1).unwrap_or_default().to_owned();
        all.push(Rejected { line: number, code: row.get(code).unwrap_or_default().to_owned(), reason, cells });
    }
    Ok(all)
}

/// What a report and its rejects must say of a file, whatever happened: every row is accounted for once.
pub fn account_for(
    world: &World,
    ran: &Ran,
    import: &Import,
    rows: &[Row],
    open: impl Fn(&Row) -> bool,
) -> Result<BTreeSet<u64>, (&'static str, String)> {
    let once = "every row is accounted for once";
    let Some(report) = &ran.report else { return Err((once, format!("run {} has no report", ran.run_id))) };
    let run = &ran.run_id;
    let told = rejects_of(world, report).map_err(|wrong| (once, format!("run {run}: {wrong}")))?;
    let lines: BTreeSet<u64> = told.iter().map(|reject| reject.line).collect();
    if lines.len() != told.len() {
        return Err((once, format!("run {run}: {} rejects are of {} lines", told.len(), lines.len())));
    }
    if let Some(stranger) = told.iter().find(|reject| rows.iter().all(|row| row.line != reject.line)) {
        return Err((once, format!("run {run}: a reject where no row begins: {stranger:?}")));
    }
    let counts = report.rows;
    if !counts.add_up() || counts.read != rows.len() as u64 {
        return Err((once, format!("run {run}: the file has {} rows: {counts:?}", rows.len())));
    }
    if counts.rejected + counts.deferred != lines.len() as u64 {
        return Err((once, format!("run {run}: {} rejects: {counts:?}", lines.len())));
    }
    let by_code: u64 = report.rejected_by_code.values().sum();
    if by_code != counts.rejected {
        return Err((once, format!("run {run}: {by_code} rejects by code: {counts:?}")));
    }
    for row in rows {
        let reject = told.iter().find(|reject| reject.line == row.line);
        let wrong = match (row.fate, reject) {
            (Fate::Accepted, Some(reject)) if !open(row) => {
                format!("line {} is good, and {}: {row:?}, {reject:?}", row.line, reject.code)
            }
            (Fate::Rejected, None) => format!("line {} is wrong, and no reject: {row:?}", row.line),
            (_, Some(reject)) => match &row.raw {
                Some(raw) if !same_cells(raw, &reject.cells) => {
                    format!("line {}: the reject holds {:?}, the file {raw:?}", row.line, reject.cells)
                }
                _ => continue,
            },
            _ => continue,
        };
        return Err((once, format!("run {run} of {}: {wrong}", import.name)));
    }
    Ok(lines)
}

/// A formula stands in the rejects with an apostrophe before it, which is harmless.
fn same_cells(raw: &[String], told: &[String]) -> bool {
    raw.len() == told.len()
        && raw.iter().zip(told).all(|(raw, told)| {
            let (raw, told) = (raw.trim(), told.trim());
            raw == told || told.strip_prefix('\'').is_some_and(|told| told.trim() == raw)
        })
}

/// Whether a mode leaves rows alone that do not fit what is there.
pub fn depends(mode: Mode) -> bool {
    matches!(mode, Mode::Create | Mode::Update | Mode::Archive)
}
