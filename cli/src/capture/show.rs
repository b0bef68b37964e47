//! What a capture, and its check, say at the end: text that fits 80 columns.

use std::fmt::Write as _;

use hubferry::report::{Outcome, Position, Report};

use super::compare::{Drift, NAMED_MAX};
use crate::{
    text::{WIDTH, clip, grouped, wrap},
    watch::operations,
};

/// Text in the making.
pub(crate) struct Page {
    text: String,
    colour: bool,
}

impl Page {
    pub(crate) fn new(colour: bool) -> Self {
        Self { text: String::new(), colour }
    }

    pub(crate) fn end(self) -> String {
        self.text
    }

    fn heading(&mut self, text: &str) {
        let _ = match self.colour {
            true => writeln!(self.text, "\x1b[1m{text}\x1b[0m"),
            false => writeln!(self.text, "{text}"),
        };
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{text}");
    }

    fn wrapped(&mut self, first: &str, text: &str) {
        for line in wrap(first, text, WIDTH) {
            self.line(&line);
        }
    }

    /// A capture's run.
    pub(crate) fn report(&mut self, report: &Report, state: &str) {
        #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
        let seconds = report.duration_ms as f64 / 1_000.0;
        self.heading(&format!("capture {}: {}, after {seconds:.1} s", report.name, report.outcome.as_str()));
        if let Some(error) = &report.error {
            self.wrapped("  ", &format!("{}: {}", error.code, error.message));
            self.wrapped("  -> ", &error.hint);
        }
        if let Some(capture) = &report.capture {
            let changes = &capture.changes;
            self.wrapped("  records   ", &operations(changes));
            let special = [
                (changes.restored, "restored"),
                (changes.merged, "merged"),
                (changes.associations, "associated otherwise"),
            ];
            let special: Vec<String> = special
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, word)| format!("{} {word}", grouped(count)))
                .collect();
            if !special.is_empty() {
                self.wrapped("            ", &format!("among them {}", special.join(", ")));
            }
            let objects = objects(capture.objects);
            self.wrapped("  written   ", &format!("{objects}, {}, under {}", size(capture.bytes), capture.output));
            if let Some(manifest) = &capture.manifest {
                self.wrapped("  manifest  ", manifest);
            }
        }
        let calls = &report.calls;
        let limit =
            report.limit_use_percent.map(|percent| format!("; {percent} % of the limit used")).unwrap_or_default();
        self.wrapped(
            "  calls     ",
            &format!(
                "{} to HubSpot, {} repeated, {} refused{limit}",
                grouped(calls.total),
                calls.retried,
                calls.throttled
            ),
        );
        if let Position::Capture(position) = &report.position
            && let Some(at) = position.timestamp
        {
            let lag = report.capture.as_ref().and_then(|capture| capture.lag_seconds);
            let lag = lag.map(|lag| format!(", {} s behind HubSpot's clock", grouped(lag))).unwrap_or_default();
            self.wrapped("  position  ", &format!("changes before {at} are captured{lag}"));
        }
        self.wrapped("  state     ", state);
        for note in &report.notes {
            self.wrapped("  note      ", note);
        }
        if report.outcome == Outcome::Yielded {
            self.wrapped("  -> ", &format!("Saved. `hubferry capture {}` goes on from there.", report.name));
        }
    }

    /// A check.
    pub(crate) fn drift(&mut self, drift: &Drift) {
        let verdict = match drift.verdict {
            "none" => "no drift",
            _ => "DRIFT",
        };
        self.heading(&format!("capture {}, compared with HubSpot: {verdict}", drift.name));
        let at = drift.position.get("timestamp").and_then(serde_json::Value::as_str).unwrap_or("its start");
        self.wrapped("  ", &format!("{} under {}, captured up to {at}", objects(drift.objects), drift.output));
        self.line("");
        let by = match drift.counted_by {
            "list" => "records, all of them listed",
            _ => "records as its search index counts, which trails",
        };
        let by_list = drift.counted_by == "list";
        let missing = match drift.missing.count {
            1.. if !by_list => "in HubSpot, not captured: at least so many",
            _ => "in HubSpot, not captured",
        };
        let (spare, differing) = match by_list {
            true => ("captured, not in HubSpot any more", "captured with other values, or older"),
            false => ("of the sample: captured, not in HubSpot any more", "of the sample: captured with other values"),
        };
        let mut rows = vec![
            ("captured", drift.captured, "records that consumers of the output have"),
            ("in HubSpot", drift.in_hubspot, by),
            ("missing", drift.missing.count, missing),
            ("spare", drift.spare.count, spare),
            ("differing", drift.differing.count, differing),
            ("changed since", drift.changed_since, "after the position; no drift: the next run's"),
        ];
        if drift.awaited > 0 {
            rows.push(("awaited", drift.awaited, "shortly before it; may come late: no drift yet"));
        }
        if drift.before_start > 0 {
            rows.push(("before start", drift.before_start, "older than the capture, which has no snapshot"));
        }
        if drift.computed > 0 {
            rows.push(("computed", drift.computed, "values that HubSpot computed anew; no drift"));
        }
        rows.push(("compared", drift.sampled, "records value by value, always the same sample"));
        for (name, count, means) in rows {
            self.line(&format!("  {name:<14}{:>12}  {means}", grouped(count)));
        }
        for (name, found) in [("missing", &drift.missing), ("spare", &drift.spare)] {
            if !found.ids.is_empty() {
                self.line("");
                self.wrapped(&format!("  {name:<11}"), &named(&found.ids, found.count));
            }
        }
        if !drift.differing.records.is_empty() {
            self.line("");
        }
        for (number, record) in drift.differing.records.iter().enumerate() {
            let first = if number == 0 { "differing" } else { "" };
            let what = match record.properties.as_slice() {
                [] => "an older version".to_owned(),
                names => names.join(", "),
            };
            self.wrapped(&format!("  {first:<11}{:<15}", record.id), &what);
            for (name, [captured, now]) in &record.values {
                let shown = |value: &Option<String>| format!("{:?}", clip(value.as_deref().unwrap_or_default(), 60));
                self.wrapped(
                    "               ",
                    &format!("{name}: {} captured, {} in HubSpot", shown(captured), shown(now)),
                );
            }
        }
        let more = drift.differing.count.saturating_sub(NAMED_MAX as u64);
        if more > 0 {
            self.line(&format!("  {:<11}and {} more", "", grouped(more)));
        }
        if !drift.advice.is_empty() {
            self.line("");
        }
        for advice in &drift.advice {
            self.wrapped("  -> ", advice);
        }
    }
}

fn named(ids: &[String], count: u64) -> String {
    let more = count.saturating_sub(ids.len() as u64);
    let ids = ids.join(", ");
    if more > 0 { format!("{ids} and {} more", grouped(more)) } else { ids }
}

fn objects(count: u64) -> String {
    if count == 1 { "1 object".to_owned() } else { format!("{} objects", grouped(count)) }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{} bytes", grouped(bytes)),
        10_000..10_000_000 => format!("{} kB", grouped(bytes / 1_000)),
        _ => format!("{} MB", grouped(bytes / 1_000_000)),
    }
}
