//! A sync's report as text that fits 80 columns.

use std::fmt::Write as _;

use hubferry::report::{Position, Report, SyncReport};

use super::outlook;
use crate::text::{WIDTH, grouped, wrap};

/// Text in the making.
pub(super) struct Page {
    text: String,
    colour: bool,
}

impl Page {
    pub(super) fn new(colour: bool) -> Self {
        Self { text: String::new(), colour }
    }

    pub(super) fn end(self) -> String {
        self.text
    }

    pub(super) fn heading(&mut self, text: &str) {
        for line in wrap("", text, WIDTH) {
            let _ = match self.colour {
                true => writeln!(self.text, "\x1b[1m{line}\x1b[0m"),
                false => writeln!(self.text, "{line}"),
            };
        }
    }

    pub(super) fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }

    pub(super) fn wrapped(&mut self, first: &str, text: &str) {
        for line in wrap(first, text, WIDTH) {
            self.line(&line);
        }
    }
}

/// A run's report.
pub(crate) fn report(report: &Report, state: &str, colour: bool) -> String {
    let mut page = Page::new(colour);
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = report.duration_ms as f64 / 1_000.0;
    page.heading(&format!("sync {}: {}, after {seconds:.1} s", report.name, report.outcome.as_str()));
    if let Some(error) = &report.error {
        page.wrapped("  ", &format!("{}: {}", error.code, error.message));
        page.wrapped("  -> ", &error.hint);
    }
    if let Some(sync) = &report.sync {
        numbers(&mut page, report, sync);
    }
    if let Position::Sync(position) = &report.position
        && let (Some(salesforce), Some(hubspot)) = (position.salesforce_timestamp, position.hubspot_timestamp)
    {
        let lag = report.sync.as_ref().and_then(|sync| sync.lag_seconds);
        let lag = lag.map(|lag| format!(", {} s behind its clock", grouped(lag))).unwrap_or_default();
        let [salesforce, hubspot] = [salesforce, hubspot].map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ"));
        page.wrapped("  position  ", &format!("Salesforce's changes to {salesforce}, HubSpot's to {hubspot}{lag}"));
    }
    if let Some(run_id) = &report.run_id {
        page.line(&format!("  run       {run_id}"));
    }
    page.wrapped("  state     ", state);
    for note in &report.notes {
        page.wrapped("  note      ", note);
    }
    if let Some(outlook) = outlook(report) {
        page.wrapped("  -> ", &outlook);
    }
    page.end()
}

fn numbers(page: &mut Page, report: &Report, sync: &SyncReport) {
    let ours = format!("{} {}", report.account, sync.hubspot_object);
    let theirs = format!("{} {}", sync.org, sync.salesforce_object);
    page.wrapped("  ", &format!("HubSpot {ours} and Salesforce {theirs}"));
    page.line("");
    let (hubspot, salesforce) = (&sync.hubspot, &sync.salesforce);
    page.line(&format!("  {:<24}{:>12}{:>12}", "", "HubSpot", "Salesforce"));
    for (name, here, there) in [
        ("records created", hubspot.created, salesforce.created),
        ("records updated", hubspot.updated, salesforce.updated),
        ("fields cleared", hubspot.blanked, salesforce.blanked),
        ("records deleted", hubspot.deleted, salesforce.deleted),
        ("calls", report.calls.total, sync.salesforce_calls),
        ("  repeated", report.calls.retried, sync.salesforce_retried),
    ] {
        page.line(&format!("  {name:<24}{:>12}{:>12}", grouped(here), grouped(there)));
    }
    page.line("");
    let rows = &report.rows;
    let parts = [
        (rows.created, "created"),
        (rows.updated, "updated"),
        (rows.unchanged, "in step"),
        (rows.merged, "merged"),
        (rows.rejected, "refused"),
        (rows.deferred, "put off to the next run"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", grouped(count)))
        .collect();
    let of = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    page.wrapped("  records   ", &format!("{} looked at{of}", grouped(rows.read)));
    if sync.linked > 0 {
        page.wrapped("  links     ", &format!("{} new", grouped(sync.linked)));
    }
    if sync.associations > 0 {
        page.wrapped("  companies ", &format!("{} primary companies set or taken off", grouped(sync.associations)));
    }
    if sync.reviews_opened + sync.reviews_closed + sync.review_open > 0 {
        let counts =
            [(sync.reviews_opened, "opened"), (sync.reviews_closed, "closed"), (sync.review_open, "wait for a person")]
                .map(|(count, word)| format!("{} {word}", grouped(count)));
        let more = match sync.review_open {
            0 => String::new(),
            _ => format!(": hubferry review list --sync {}", report.name),
        };
        page.wrapped("  review    ", &format!("{}{more}", counts.join(", ")));
    }
    if !report.rejected_by_code.is_empty() {
        let codes: Vec<String> =
            report.rejected_by_code.iter().map(|(code, count)| format!("{code} {}", grouped(*count))).collect();
        page.wrapped("  refused   ", &codes.join(", "));
        page.wrapped("         -> ", &format!("hubferry review list --refused --sync {}", report.name));
    }
    if let Some(rejects) = &report.rejects {
        page.wrapped("            ", rejects);
    }
    if sync.bulk_jobs > 0 {
        page.wrapped("  bulk      ", &format!("{} jobs", grouped(sync.bulk_jobs)));
    }
    if let Some(percent) = sync.salesforce_used_percent {
        page.wrapped("  quota     ", &format!("{percent} % of the org's calls of a day are used, by everybody"));
    }
}

/// A sync that ended in an error, among others.
pub(super) fn failure(name: &str, error: &str, hint: Option<&str>) -> String {
    let mut lines = vec![format!("sync {name}: failed")];
    lines.extend(wrap("  ", error, WIDTH));
    lines.extend(hint.into_iter().flat_map(|hint| wrap("  -> ", hint, WIDTH)));
    lines.join("\n")
}
