//! A plan as a table: CSV for a spreadsheet, a page for people.

use std::fmt::Write as _;

use hubferry::import::plan::{
    Line, PlanRecord, Totals,
    format::{Act, PlanReject},
};

use super::{heading, show::Summary};
use crate::{html::esc, text::grouped};

/// Records and rejects on a page: more is for programs.
const ROWS_MAX: usize = 2_000;

const HEAD: [&str; 9] = ["object", "key", "id", "do", "field", "old", "new", "lines", "why"];

/// A line of a plan as rows of a table: one for each field.
pub(super) fn csv(line: &Line) -> String {
    let mut rows: Vec<[String; 9]> = Vec::new();
    let own = |text: &str| text.to_owned();
    match line {
        Line::Plan(_) => rows.push(HEAD.map(own)),
        Line::Record(record) => {
            let lines: Vec<String> = record.lines.iter().map(ToString::to_string).collect();
            let row = |field: &str, old: &str, new: &str| {
                let id = record.id.clone().unwrap_or_default();
                let why = record.why.clone().unwrap_or_default();
                let (object, key) = (record.object.to_string(), record.key.clone());
                [object, key, id, own(record.act.as_str()), own(field), own(old), own(new), lines.join(" "), why]
            };
            for (name, old, new) in &record.fields {
                rows.push(row(name, old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default()));
            }
            if record.fields.is_empty() {
                rows.push(row("", "", ""));
            }
        }
        Line::Reject(reject) => {
            let why = format!("{}: {}", reject.code, reject.reason);
            let field = reject.column.clone().unwrap_or_default();
            let (none, line) = (String::new(), reject.line.to_string());
            rows.push([none.clone(), none.clone(), none.clone(), own("reject"), field, none.clone(), none, line, why]);
        }
        Line::Associate(pair) => {
            let end =
                |id: &Option<String>, key: &Option<String>| id.clone().or_else(|| key.clone()).unwrap_or_default();
            let (near, far) = (end(&pair.from_id, &pair.from_key), end(&pair.to_id, &pair.to_key));
            let (none, label) = (String::new(), pair.label.clone().unwrap_or_default());
            rows.push([
                pair.from.clone(),
                near,
                none.clone(),
                own(pair.tie.as_str()),
                pair.to.clone(),
                none.clone(),
                far,
                none,
                label,
            ]);
        }
        Line::Totals(_) => {}
    }
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    for row in rows {
        // A spreadsheet runs what looks like a formula.
        let row =
            row.map(|cell| if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell });
        if writer.write_record(&row).is_err() {
            break;
        }
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// What is shown on a page.
#[derive(Debug, Default)]
pub(super) struct Table {
    records: Vec<PlanRecord>,
    rejects: Vec<PlanReject>,
    left_out: u64,
}

impl Table {
    pub(super) fn add(&mut self, line: &Line) {
        match line {
            Line::Record(record) if record.act != Act::Unchanged && self.records.len() < ROWS_MAX => {
                self.records.push(PlanRecord::clone(record));
            }
            Line::Reject(reject) if self.rejects.len() < ROWS_MAX => self.rejects.push(PlanReject::clone(reject)),
            Line::Record(record) if record.act == Act::Unchanged => {}
            Line::Record(_) | Line::Reject(_) => self.left_out += 1,
            _ => {}
        }
    }

    /// One page that needs nothing else.
    pub(super) fn page(&self, summary: &Summary, totals: &Totals) -> String {
        let mut html = String::new();
        let title = summary.header.as_ref().map(heading).unwrap_or_default();
        let _ = write!(
            html,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{0}</title>\n<style>\n{1}del{{color:var(--bad)}}ins{{color:var(--good);text-decoration:none}}</style>\n</head>\n<body>\n<header>\n<h1>{0}</h1>\n",
            esc(&title),
            include_str!("../report.css")
        );
        if let Some(header) = &summary.header {
            let made =
                header.made_at.map(|at| format!(", made {}", at.strftime("%Y-%m-%d %H:%M:%SZ"))).unwrap_or_default();
            let _ = writeln!(
                html,
                "<p class=\"dim\">Account {}, portal {}{made}. Nothing was written.</p>",
                esc(&header.account),
                header.portal_id
            );
        }
        html.push_str("</header>\n<main>\n<table>\n<tbody>\n");
        let counts = [
            ("Rows", totals.rows),
            ("Create", totals.create),
            ("Update", totals.update),
            ("Archive", totals.archive),
            ("Unchanged", totals.unchanged),
            ("Merged", totals.merged),
            ("Associate", totals.associations),
            ("Take apart", totals.parted),
            ("Rejected", totals.rejected),
            ("Calls to apply", totals.calls),
            ("Seconds at the limit", totals.seconds),
        ];
        for (name, count) in counts {
            let _ = writeln!(html, "<tr><th scope=\"row\">{name}</th><td class=\"n\">{}</td></tr>", grouped(count));
        }
        html.push_str("</tbody>\n</table>\n");
        for act in [Act::Create, Act::Update, Act::Archive, Act::Restore] {
            self.section(&mut html, act);
        }
        if !self.rejects.is_empty() {
            html.push_str("<h2>Rejected</h2>\n<table>\n<thead><tr><th>Line</th><th>Code</th><th>Reason</th></tr></thead>\n<tbody>\n");
            for reject in &self.rejects {
                let _ = writeln!(
                    html,
                    "<tr><td class=\"n\">{}</td><td><code>{}</code></td><td>{}<br><span class=\"dim\">{}</span></td></tr>",
                    reject.line,
                    esc(&reject.code),
                    esc(&reject.reason),
                    esc(&reject.hint)
                );
            }
            html.push_str("</tbody>\n</table>\n");
        }
        if self.left_out > 0 {
            let _ = writeln!(
                html,
                "<p>{} more are not on this page: <code>--format jsonl</code> has all of them.</p>",
                grouped(self.left_out)
            );
        }
        html.push_str("</main>\n</body>\n</html>\n");
        html
    }

    fn section(&self, html: &mut String, act: Act) {
        let records: Vec<_> = self.records.iter().filter(|record| record.act == act).collect();
        if records.is_empty() {
            return;
        }
        let title = match act {
            Act::Create => "Create",
            Act::Update => "Update",
            Act::Archive => "Archive",
            _ => "Cannot be restored",
        };
        let _ = writeln!(
            html,
            "<h2>{title}</h2>\n<table>\n<thead><tr><th>Record</th><th>Field</th><th>Old</th><th>New</th></tr></thead>\n<tbody>"
        );
        for record in records {
            let id = record
                .id
                .as_deref()
                .map(|id| format!("<br><span class=\"dim\">{} {}</span>", esc(record.object.as_str()), esc(id)));
            let rows = record.fields.len().max(1);
            let _ = write!(
                html,
                "<tr><th scope=\"row\" rowspan=\"{rows}\">{}{}</th>",
                esc(&record.key),
                id.unwrap_or_default()
            );
            if record.fields.is_empty() {
                let _ = writeln!(
                    html,
                    "<td colspan=\"3\" class=\"dim\">{}</td></tr>",
                    esc(record.why.as_deref().unwrap_or_default())
                );
            }
            for (at, (name, old, new)) in record.fields.iter().enumerate() {
                let open = if at > 0 { "<tr>" } else { "" };
                let old = old.as_deref().map(|old| format!("<del>{}</del>", esc(old))).unwrap_or_default();
                let new = new.as_deref().map(|new| format!("<ins>{}</ins>", esc(new))).unwrap_or_default();
                let _ = writeln!(html, "{open}<td><code>{}</code></td><td>{old}</td><td>{new}</td></tr>", esc(name));
            }
        }
        html.push_str("</tbody>\n</table>\n");
    }
}

#[cfg(test)]
mod tests {
    use hubferry::record::ObjectType;

    use super::*;

    fn record() -> Line {
        Line::Record(Box::new(PlanRecord {
            object: ObjectType("contacts".to_owned()),
            key: "<b>@x.io".to_owned(),
            id: Some("1".to_owned()),
            by: None,
            act: Act::Update,
            fields: vec![("a".into(), None, Some("=1+1".to_owned())), ("b".into(), Some("x,\"y".to_owned()), None)],
            why: None,
            lines: vec![2, 7],
        }))
    }

    #[test]
    fn a_record_is_a_row_per_field_and_harmless_in_a_spreadsheet() {
        assert_eq!(
            csv(&record()),
            "contacts,<b>@x.io,1,update,a,,'=1+1,2 7,\ncontacts,<b>@x.io,1,update,b,\"x,\"\"y\",,2 7,\n"
        );
    }

    #[test]
    fn a_page_holds_text_and_no_markup_of_the_file() {
        let mut table = Table::default();
        table.add(&record());
        let page = table.page(&Summary::default(), &Totals::default());
        assert!(page.contains("&lt;b&gt;@x.io") && !page.contains("<b>@"), "{page}");
        assert!(page.contains("<del>x,&quot;y</del>") && page.contains("<ins>=1+1</ins>"));
    }
}
