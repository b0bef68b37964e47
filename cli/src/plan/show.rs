//! A plan for people, on a terminal: the first records with their fields, rejects by code, totals. Lines fit 80 columns.

use std::collections::BTreeMap;

use hubferry::import::plan::{
    Line, PlanRecord, Totals,
    format::{Act, Header, Of, PlanReject},
};

use super::heading;
use crate::{
    summary::wrapped,
    text::{WIDTH, clip, grouped},
};

/// Records that are shown, of each kind.
const SHOWN_MAX: usize = 5;
/// Fields of a record that are shown.
const FIELDS_MAX: usize = 6;
/// Codes of which a reject is shown.
const CODES_MAX: usize = 10;

/// What is kept of a plan to be told at its end.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) header: Option<Header>,
    records: BTreeMap<Act, Vec<PlanRecord>>,
    /// The first reject of each code.
    pub(crate) rejects: BTreeMap<String, PlanReject>,
}

impl Summary {
    pub(crate) fn add(&mut self, line: &Line) {
        match line {
            Line::Plan(header) => self.header = Some(Header::clone(header)),
            Line::Record(record) => {
                let shown = self.records.entry(record.act).or_default();
                if shown.len() < SHOWN_MAX {
                    shown.push(PlanRecord::clone(record));
                }
            }
            Line::Reject(reject) => {
                let earlier = self.rejects.entry(reject.code.clone()).or_insert_with(|| PlanReject::clone(reject));
                if reject.line < earlier.line {
                    *earlier = PlanReject::clone(reject);
                }
            }
            Line::Associate(_) | Line::Totals(_) => {}
        }
    }

    /// All of it.
    pub(crate) fn lines(&self, totals: &Totals, colour: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let undo = self.header.as_ref().is_some_and(|header| header.of == Of::Undo);
        if let Some(header) = &self.header {
            let text = heading(header);
            lines.push(if colour { format!("\x1b[1m{text}\x1b[0m") } else { text });
            let account = format!("account {} (portal {})", header.account, header.portal_id);
            let mode = header.mode.as_ref().map(|mode| format!(", mode {mode}")).unwrap_or_default();
            lines.push(format!("  {account}{mode}; nothing was written"));
        }
        lines.push(String::new());
        let counts = [
            ("rows", totals.rows, if undo { "before-images of the run" } else { "of the file" }),
            ("create", totals.create, "records that are not there"),
            ("update", totals.update, "records with other values"),
            ("archive", totals.archive, if undo { "records that the run made" } else { "records" }),
            ("unchanged", totals.unchanged, "records of which nothing is to be done"),
            ("merged", totals.merged, "rows sent together with another row of the same key"),
            ("associate", totals.associations, "pairs of records"),
            ("take apart", totals.parted, "pairs of records that the run associated"),
            (
                "rejected",
                totals.rejected,
                if undo { "left alone, for the reasons below" } else { "rows, for the reasons below" },
            ),
        ];
        for (name, count, means) in counts.into_iter().filter(|(name, count, _)| *count > 0 || *name == "rows") {
            lines.push(format!("  {name:<10}{:>9}  {means}", grouped(count)));
        }
        for act in [Act::Create, Act::Update, Act::Archive] {
            self.section(&mut lines, act, totals, colour);
        }
        if !self.rejects.is_empty() {
            lines.push(String::new());
        }
        for (code, reject) in self.rejects.iter().take(CODES_MAX) {
            let count = totals.rejected_by_code.get(code).copied().unwrap_or(1);
            lines.push(format!("  line {:<6} {code}  ({} in all)", reject.line, grouped(count)));
            lines.extend(wrapped("              ", &reject.reason));
            lines.extend(wrapped("           -> ", &reject.hint));
        }
        lines.push(String::new());
        self.notes(&mut lines, totals);
        let calls = format!(
            "{} calls, about {} at the account's limit; planning took {}",
            grouped(totals.calls),
            duration(totals.seconds),
            grouped(totals.planning_calls)
        );
        lines.extend(wrapped("  to apply  ", &calls));
        lines
    }

    fn notes(&self, lines: &mut Vec<String>, totals: &Totals) {
        let header = self.header.as_ref();
        for planned in header.map(|header| header.create_properties.as_slice()).unwrap_or_default() {
            let new = &planned.property;
            lines.extend(wrapped(
                "  property  ",
                &format!("`{}` ({}) of {} is created", new.name, new.kind, planned.object),
            ));
        }
        if let Some(mirror) = &totals.mirror {
            let told = format!(
                "the file lacks {} of the {} records known from earlier files",
                grouped(mirror.missing),
                grouped(mirror.known)
            );
            let told = if mirror.braked {
                format!("{told}: more than mirror_max_archived allows, none is archived")
            } else {
                told
            };
            lines.extend(wrapped("  mirror    ", &told));
        }
        if totals.aborts {
            lines.extend(wrapped(
                "  note      ",
                "an import of this file would stop: more rows are rejected than abort_if_rejected allows",
            ));
        }
        if !totals.ignored_columns.is_empty() {
            let columns: Vec<String> = totals.ignored_columns.iter().map(|name| format!("`{name}`")).collect();
            lines.extend(wrapped("  ignored   ", &format!("columns {}", columns.join(", "))));
        }
        let notes = header.map(|header| header.notes.as_slice()).unwrap_or_default();
        for note in notes.iter().chain(&totals.notes) {
            lines.extend(wrapped("  note      ", note));
        }
    }

    fn section(&self, lines: &mut Vec<String>, act: Act, totals: &Totals, colour: bool) {
        let Some(records) = self.records.get(&act) else { return };
        let all = match act {
            Act::Create => totals.create,
            Act::Update => totals.update,
            _ => totals.archive,
        };
        lines.push(String::new());
        for record in records {
            let id = record.id.as_ref().map(|id| format!("  ({id})")).unwrap_or_default();
            let several = self.header.as_ref().is_some_and(|header| header.records.len() > 1);
            let object = if several { format!("{} ", record.object) } else { String::new() };
            let text = clip(&format!("{object}{}{id}", shown(&record.key)), WIDTH - 12);
            let word = format!("{:<9}", act.as_str());
            lines.push(format!("  {} {text}", if colour { format!("{}{word}\x1b[0m", tint(act)) } else { word }));
            for (name, old, new) in record.fields.iter().take(FIELDS_MAX) {
                lines.push(field(name, old.as_deref(), new.as_deref(), act));
            }
            if record.fields.len() > FIELDS_MAX {
                lines.push(format!("              and {} more fields", record.fields.len() - FIELDS_MAX));
            }
            if let Some(why) = &record.why {
                lines.extend(wrapped("              ", why));
            }
        }
        let more = all.saturating_sub(records.len() as u64);
        if more > 0 {
            lines.push(format!("            and {} more to {}", grouped(more), act.as_str()));
        }
    }
}

/// `name  old -> new`, in 80 columns.
fn field(name: &str, old: Option<&str>, new: Option<&str>, act: Act) -> String {
    const NAME: usize = 22;
    const VALUE: usize = 19;
    let value = |value: Option<&str>| value.map_or_else(|| "(none)".to_owned(), |value| clip(&shown(value), VALUE));
    let name = clip(&shown(name), NAME);
    match act {
        Act::Create => {
            format!("              {name:<NAME$} {}", new.map_or_else(String::new, |new| clip(&shown(new), 2 * VALUE)))
        }
        _ => format!("              {name:<NAME$} {:<VALUE$} -> {}", value(old), value(new)),
    }
}

/// A value without what moves a terminal's cursor.
pub(crate) fn shown(value: &str) -> String {
    value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn tint(act: Act) -> &'static str {
    match act {
        Act::Create => "\x1b[32m",
        Act::Update => "\x1b[34m",
        Act::Archive => "\x1b[31m",
        _ => "\x1b[2m",
    }
}

/// Seconds as people say them.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use hubferry::{import::plan::format::Field, record::ObjectType};

    use super::*;

    #[test]
    fn every_line_fits_and_values_move_no_cursor() {
        let long = "x\x1b[2Jy".repeat(40);
        let field: Field = (long.as_str().into(), Some(long.clone()), Some("a\nb".to_owned()));
        let record = |act| PlanRecord {
            object: ObjectType("contacts".to_owned()),
            key: long.clone(),
            id: Some("1".to_owned()),
            by: None,
            act,
            fields: vec![field.clone(); 9],
            why: Some("because ".repeat(30)),
            lines: vec![2],
        };
        let mut summary = Summary::default();
        for act in [Act::Create, Act::Update, Act::Archive] {
            for _ in 0..9 {
                summary.add(&Line::Record(Box::new(record(act))));
            }
        }
        let totals = Totals { create: 9, update: 9, archive: 9, rows: 27, ..Totals::default() };
        let lines = summary.lines(&totals, false);
        assert!(
            lines.iter().all(|line| line.chars().count() <= WIDTH && !line.contains(char::is_control)),
            "{lines:#?}"
        );
        assert!(lines.iter().any(|line| line.ends_with("and 4 more to update")));
        assert!(lines.iter().any(|line| line.ends_with("and 3 more fields")));
    }
}
