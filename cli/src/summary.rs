//! The report of an import as text: what the demo and `hubferry import` show. Lines fit 80 columns.

use std::collections::BTreeSet;

use hubferry::report::{Outcome, Report};
use serde_json::Value;

use crate::text::{WIDTH, grouped, wrap};

/// Kinds of rejects that are shown, one of each.
const KINDS_MAX: usize = 10;

/// Text in lines, the first after `first`, the others after as many spaces.
pub(crate) fn wrapped(first: &str, text: &str) -> Vec<String> {
    let mut first = first.to_owned();
    let mut lines = Vec::new();
    for part in text.lines() {
        lines.extend(wrap(&first, part, WIDTH));
        first = " ".repeat(first.chars().count());
    }
    lines
}

/// What the counts of a report mean.
pub(crate) struct Words {
    pub(crate) read: &'static str,
    pub(crate) created: String,
    pub(crate) updated: String,
    pub(crate) unchanged: &'static str,
}

impl Words {
    /// Of an import; `records` is what rows become.
    pub(crate) fn of_import(records: &str) -> Self {
        Self {
            read: "rows of the file",
            created: format!("new {records}"),
            updated: format!("{records} that were there, or came up earlier in the file"),
            unchanged: "left out because nothing changed (skip_unchanged)",
        }
    }

    /// Of a plan that is applied.
    pub(crate) fn of_plan() -> Self {
        Self {
            read: "records and associations of the plan",
            created: "made as planned".to_owned(),
            updated: "changed, archived or associated as planned".to_owned(),
            unchanged: "nothing was to be done",
        }
    }

    /// Of a run that is undone.
    pub(crate) fn of_undo() -> Self {
        Self {
            read: "before-images of the run, the last one first",
            created: "nothing is made".to_owned(),
            updated: "put back, or archived because the run made them".to_owned(),
            unchanged: "nothing was to be put back",
        }
    }
}

/// How it ended, what it took, and the rows by what became of them. `records` is what rows become.
pub(crate) fn report_lines(report: &Report, records: &str) -> Vec<String> {
    report_lines_with(report, &Words::of_import(records))
}

/// As [`report_lines`], in these words.
pub(crate) fn report_lines_with(report: &Report, words: &Words) -> Vec<String> {
    let rows = report.rows;
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = report.duration_ms as f64 / 1_000.0;
    let mut lines = vec![format!("  outcome {}, after {seconds:.1} s", report.outcome.as_str())];
    if let Some(error) = &report.error {
        lines.extend(wrapped("  ", &format!("{}: {}. {}", error.code, error.message, error.hint)));
    }
    lines.push(format!(
        "  {} calls to HubSpot, {} of them repeated, {} refused by the rate limit",
        grouped(report.calls.total),
        report.calls.retried,
        report.calls.throttled
    ));
    if let Some(percent) = report.limit_use_percent {
        lines.push(format!("  {percent} % of the rate limit used while there was something to send"));
    }
    lines.push(String::new());
    let mut counts = vec![
        (" ", "read", rows.read, words.read),
        ("=", "created", rows.created, &*words.created),
        ("+", "updated", rows.updated, &*words.updated),
        ("+", "unchanged", rows.unchanged, words.unchanged),
        ("+", "merged", rows.merged, "sent together with another row of the same key"),
        ("+", "rejected", rows.rejected, "in the rejects file, with line and reason"),
        ("+", "deferred", rows.deferred, "no verdict from HubSpot"),
    ];
    if let Some(archived) = report.archived {
        counts.push((" ", "archived", archived, "records that the file lacks (mirror)"));
    }
    for (sign, name, count, means) in counts {
        lines.push(format!("  {sign} {name:<10}{:>7}  {means}", grouped(count)));
    }
    lines.push(String::new());
    let numbers = [rows.created, rows.updated, rows.unchanged, rows.merged, rows.rejected, rows.deferred];
    let verdict = match report.outcome {
        _ if !rows.add_up() => "THIS DOES NOT ADD UP",
        Outcome::Yielded | Outcome::Busy => "every row so far is accounted for",
        _ => "every row is accounted for",
    };
    lines.extend(wrapped("  ", &format!("{} = {}: {verdict}", grouped(rows.read), numbers.map(grouped).join(" + "))));
    lines
}

/// The first reject of each code.
pub(crate) fn reject_lines(rejects: &[Reject], report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for reject in rejects {
        let count = report.rejected_by_code.get(&reject.code).copied().unwrap_or(1);
        lines.push(format!("  line {:<6} {}  ({} in all)", reject.line, reject.code, grouped(count)));
        lines.extend(wrapped("              ", &reject.reason));
        lines.extend(wrapped("           -> ", &reject.hint));
    }
    let more = report.rejected_by_code.len().saturating_sub(rejects.len());
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines
}

/// A row of the rejects file.
pub(crate) struct Reject {
    pub(crate) line: String,
    pub(crate) code: String,
    pub(crate) reason: String,
    pub(crate) hint: String,
}

/// The first reject of each code, in the file's order; of the first few codes. `text`: the rejects file, CSV or JSON lines.
pub(crate) fn first_of_each(text: &str) -> Vec<Reject> {
    let mut seen = BTreeSet::new();
    let new = |reject: &Reject| seen.insert(reject.code.clone());
    if text.starts_with('{') {
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).map(|row| {
            let member = |name: &str| match row.get(name) {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => String::new(),
            };
            Reject { line: member("_line"), code: member("_code"), reason: member("_reason"), hint: member("_hint") }
        });
        return rows.filter(new).take(KINDS_MAX).collect();
    }
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let at = reader.headers().ok().and_then(|header| header.iter().position(|name| name == "_line"));
    let Some(at) = at else { return Vec::new() };
    let rows = reader.records().filter_map(Result::ok).map(|row| {
        let cell = |offset: usize| row.get(at + offset).unwrap_or_default().to_owned();
        Reject { line: cell(0), code: cell(1), reason: cell(2), hint: cell(3) }
    });
    rows.filter(new).take(KINDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reject_of_each_code_is_found_whatever_the_columns() {
        let csv = "Email,_line,_code,_reason,_hint\nx,2,A,\"r, 1\",h\ny,3,A,r,h\nz,4,B,r,h,surplus\n";
        let json = "{\"email\":\"x\",\"_line\":2,\"_code\":\"A\",\"_reason\":\"r, 1\",\"_hint\":\"h\"}\n\
                    {\"_line\":3,\"_code\":\"A\"}\n{\"_line\":4,\"_code\":\"B\"}\n";
        for text in [csv, json] {
            let rejects = first_of_each(text);
            let shown: Vec<_> = rejects.iter().map(|reject| (reject.line.as_str(), reject.code.as_str())).collect();
            assert_eq!(shown, [("2", "A"), ("4", "B")]);
            assert_eq!(rejects[0].reason, "r, 1");
        }
    }
}
