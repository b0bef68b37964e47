//! What the demo says: text that fits 80 columns, a bar on a terminal and plain lines elsewhere.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use hubferry::{
    app::Update,
    clock::{Clock as _, SystemClock},
    import::progress,
    report::Report,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    LOG_FILE,
    file::{Fault, File, HEADER, Row},
    typed, world,
};
use crate::{
    summary,
    text::{clip, grouped},
};

/// How often a plain progress line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// The account's limit: 190 calls in 10 seconds.
const CALLS_PER_SECOND: f64 = 19.0;

/// How things are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A terminal: a bar that moves; colour unless `NO_COLOR` is set.
    Terminal { colour: bool },
    /// A file or a pipe: plain lines.
    Plain,
    /// Nothing on standard output; progress on standard error.
    Silent,
}

impl Style {
    /// As the place allows and `NO_COLOR` wishes.
    pub(crate) fn detect(terminal: bool) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if terminal { Self::Terminal { colour } } else { Self::Plain }
    }
}

/// The text.
pub(crate) struct Screen {
    style: Style,
}

impl Screen {
    pub(crate) fn new(style: Style) -> Self {
        Self { style }
    }

    /// One line.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        if self.style == Style::Silent {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{text}")?;
        Ok(out.flush()?)
    }

    fn heading(&self, text: &str) -> Result<()> {
        self.line("")?;
        if self.style == (Style::Terminal { colour: true }) {
            self.line(&format!("\x1b[1m{text}\x1b[0m"))
        } else {
            self.line(text)
        }
    }

    fn lines(&self, lines: Vec<String>) -> Result<()> {
        lines.iter().try_for_each(|line| self.line(line))
    }

    pub(crate) fn opening(&self, hubspot_url: &str, contacts: usize) -> Result<()> {
        self.line("hubferry demo: a CSV lands in S3 and is found in HubSpot.")?;
        self.line("HubSpot and AWS are simulated here, on 127.0.0.1; the function is the real one.")?;
        self.line("")?;
        self.line(&format!(
            "  HubSpot   {hubspot_url}, {} contacts; it allows 190 calls in 10 s",
            grouped(contacts as u64)
        ))?;
        self.line("            and takes 150 to 300 ms for each")?;
        self.line("  AWS       S3, EventBridge, SQS, DynamoDB, Secrets Manager, Lambda Runtime API")
    }

    pub(crate) fn uploading(&self, uri: &str, rows: u32, bytes: usize) -> Result<()> {
        self.heading("1. The upload")?;
        self.line(&format!("  {uri}"))?;
        self.line(&format!(
            "  {} rows, {} kB, with the usual faults; its event wakes the function",
            grouped(rows.into()),
            grouped(bytes as u64 / 1_000)
        ))?;
        self.line("")
    }

    pub(crate) fn report(&self, report: &Report) -> Result<()> {
        self.heading("2. The report")?;
        self.lines(summary::report_lines(report, "contacts"))
    }

    pub(crate) fn rejects(&self, text: &str, report: &Report) -> Result<()> {
        let kinds = report.rejected_by_code.len();
        self.heading(&format!("3. The rejects: {} rows, {kinds} codes; the first of each", report.rows.rejected))?;
        self.lines(summary::reject_lines(&summary::first_of_each(text), report))
    }

    /// Some rows, and what HubSpot holds for them.
    pub(crate) fn records(&self, file: &File, find: impl Fn(&str) -> Option<BTreeMap<String, String>>) -> Result<()> {
        self.heading("4. The records: what the file says, and what HubSpot holds now")?;
        for (row, note) in samples(file) {
            let email = row.cells.first().map(|email| email.trim().to_lowercase()).unwrap_or_default();
            let Some(record) = find(&email) else { continue };
            let id = record.get("hs_object_id").map(String::as_str).unwrap_or_default();
            self.line(&format!("  line {}: contact {id}{note}", row.line))?;
            for (name, property) in SHOWN {
                let at = HEADER.iter().position(|header| *header == name);
                let cell = at.and_then(|at| row.cells.get(at)).map(String::as_str).unwrap_or_default();
                let value = record.get(property).map(String::as_str).unwrap_or_default();
                if !cell.trim().is_empty() {
                    self.line(&format!("    {name:<13}{:<33}{}", clip(cell, 32), clip(value, 32)))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn delivering_again(&self) -> Result<()> {
        self.heading("5. The same event once more, as AWS may deliver it twice")
    }

    pub(crate) fn again(&self, report: &Report, calls: u64, writes: u64) -> Result<()> {
        self.line(&format!("  outcome {}: {calls} calls to HubSpot, {writes} records written", report.outcome.as_str()))
    }

    pub(crate) fn next(&self, folder: &Path, verbose: bool) -> Result<()> {
        self.heading("What to look at next")?;
        self.line(&format!("  {}/", folder.display()))?;
        let log = if verbose { "" } else { LOG_FILE };
        self.line(&format!("      contacts.csv  rejects.csv  report.json  {log}"))?;
        self.line("  cargo demo --keep      leaves everything up, for your own files")?;
        self.line("  cargo run -qp hubferry-cli explain INVALID_OPTION      any code of a reject")?;
        self.line("  README.md, \"Deploy\"    the same function, in your account")
    }

    /// A run that somebody woke while everything stays up.
    pub(crate) fn ended(&self, key: &str, report: &Report) -> Result<()> {
        let rows = report.rows;
        self.line("")?;
        self.line(&format!("  {key}"))?;
        self.line(&format!(
            "    {}: {} rows, {} created, {} updated, {} merged, {} rejected",
            report.outcome.as_str(),
            grouped(rows.read),
            grouped(rows.created),
            grouped(rows.updated),
            grouped(rows.merged),
            grouped(rows.rejected)
        ))?;
        if let Some(error) = &report.error {
            self.lines(summary::wrapped("    ", &format!("{}: {}. {}", error.code, error.message, error.hint)))?;
        }
        Ok(())
    }

    pub(crate) fn kept(&self, folder: &Path, hubspot_url: &str, invoke: &str) -> Result<()> {
        let environment = typed(&folder.join("environment.sh"));
        let event = typed(&folder.join("event.json"));
        let log = typed(&folder.join(LOG_FILE));
        let bucket = world::BUCKET;
        self.heading("Everything stays up until Ctrl-C")?;
        for line in [
            format!("  HubSpot is {hubspot_url}; the function's log is"),
            format!("  {log}"),
            String::new(),
            "  In another terminal, first:".to_owned(),
            format!("    . {environment}"),
            String::new(),
            "  Import a file of your own; the upload wakes the function:".to_owned(),
            format!("    aws s3 cp FILE.csv s3://{bucket}/{}", world::WAKING_PREFIX),
            format!("    curl -T FILE.csv $AWS_ENDPOINT_URL_S3/{bucket}/{}FILE.csv", world::WAKING_PREFIX),
            format!("    curl \"$AWS_ENDPOINT_URL_S3/{bucket}?list-type=2&prefix=reports/\""),
            String::new(),
            "  Send the function an event by hand:".to_owned(),
            format!("    curl -d @{event} \\"),
            format!("      {invoke}"),
            String::new(),
            "  Run your own build of the function against these services:".to_owned(),
            "    cargo lambda watch --invoke-address 127.0.0.1 --invoke-port 9100".to_owned(),
            "    cargo lambda invoke --invoke-port 9100 hubferry-lambda \\".to_owned(),
            format!("      --data-file {event}"),
            "  and with samples of every kind of event: --data-file events/….json".to_owned(),
        ] {
            self.line(&line)?;
        }
        Ok(())
    }
}

/// Columns that are converted on the way, and the properties they go to.
const SHOWN: [(&str, &str); 7] = [
    ("Email", "email"),
    ("Stage", "lifecyclestage"),
    ("Plan", "plan"),
    ("Signed up", "signup_date"),
    ("Annual spend", "annual_spend"),
    ("Newsletter", "newsletter"),
    ("Owner", "hubspot_owner_id"),
];

/// A row with much to convert, one that was there already, and one that repeats another.
fn samples(file: &File) -> Vec<(&Row, &'static str)> {
    let once: BTreeSet<String> = {
        let mut seen = BTreeMap::<String, u32>::new();
        for email in file.rows.iter().filter_map(|row| row.cells.first()) {
            *seen.entry(email.to_lowercase()).or_default() += 1;
        }
        seen.into_iter().filter(|(_, count)| *count == 1).map(|(email, _)| email).collect()
    };
    let alone =
        |row: &&Row| row.fault.is_none() && row.cells.first().is_some_and(|email| once.contains(&email.to_lowercase()));
    let known = |row: &Row| row.cells.first().is_some_and(|email| file.known.contains(&email.to_lowercase()));
    let full = |row: &&Row| row.cells.iter().take(9).filter(|cell| !cell.is_empty()).count() >= 8;
    let converted = |row: &&Row| {
        let has = |at: usize, mark: char| row.cells.get(at).is_some_and(|cell| cell.contains(mark));
        has(3, ' ') && has(5, '/') && has(6, ',')
    };
    let created = file.rows.iter().filter(alone).filter(|row| !known(row));
    let created = created.clone().find(|row| full(row) && converted(row)).or_else(|| created.clone().next());
    let updated = file.rows.iter().filter(alone).find(|row| known(row));
    let repeated = file.rows.iter().find(|row| row.fault == Some(Fault::RepeatNear));
    [
        (created, ", created"),
        (updated, ", was there before"),
        (repeated, ", merged with an earlier row of this address"),
    ]
    .into_iter()
    .filter_map(|(row, note)| Some((row?, note)))
    .collect()
}

/// How the run is coming along.
pub(crate) struct Progress {
    clock: SystemClock,
    rows: u64,
    plain: bool,
    started: Cell<Option<Duration>>,
    /// When the first rows were accounted for, rows and calls then: before, the function only woke up and looked round.
    first: Cell<Option<(Duration, u64, u64)>>,
    told: Cell<Duration>,
    bar: RefCell<Option<ProgressBar>>,
    silent: bool,
}

impl Progress {
    /// Of a run of so many rows. `log` says that log lines come in between: then there is no bar.
    pub(crate) fn new(rows: u64, style: Style, log: bool) -> Self {
        let plain = log || !matches!(style, Style::Terminal { .. });
        Self {
            clock: SystemClock::new(),
            rows,
            plain,
            started: Cell::new(None),
            first: Cell::new(None),
            told: Cell::new(Duration::ZERO),
            bar: RefCell::new(None),
            silent: style == Style::Silent,
        }
    }

    /// The file is on its way.
    pub(crate) fn start(&self) {
        let now = self.clock.elapsed();
        self.started.set(Some(now));
        self.told.set(now);
        if !self.plain {
            let bar = ProgressBar::with_draw_target(Some(self.rows), ProgressDrawTarget::stdout());
            if let Ok(style) = ProgressStyle::with_template("  [{bar:12}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message("the function wakes up");
            *self.bar.borrow_mut() = Some(bar);
        }
    }

    /// What the run tells.
    pub(crate) fn update(&self, update: &Update) {
        let Update::Import(update) = update else { return };
        if self.started.get().is_none() {
            return;
        }
        let now = self.clock.elapsed();
        let text = self.text(update, now);
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_position(update.rows.read.min(self.rows));
            bar.set_message(text);
        } else if now.saturating_sub(self.told.get()) >= LINE_EVERY {
            self.told.set(now);
            self.print(&format!("  {text}"));
        }
    }

    fn text(&self, update: &progress::Update, now: Duration) -> String {
        let rows = update.rows.read;
        let mut text = format!("{} of {} rows", grouped(rows), grouped(self.rows));
        let Some((since, rows_then, calls_then)) = self.first.get() else {
            self.first.set(Some((now, rows, update.calls.total)));
            return text;
        };
        let seconds = now.saturating_sub(since).as_secs_f64();
        if seconds <= 0.0 || rows <= rows_then {
            return text;
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = (rows - rows_then) as f64 / seconds;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let used = update.calls.total.saturating_sub(calls_then) as f64 / seconds / CALLS_PER_SECOND;
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let left = self.rows.saturating_sub(rows) as f64 / rate;
        let _ = write!(text, ", {rate:.0} a second, limit {:.0} %, {left:.0} s left", used.min(1.0) * 100.0);
        text
    }

    /// The run is over.
    pub(crate) fn finish(&self, report: &Report) {
        self.clear();
        if let Some(started) = self.started.take() {
            let seconds = self.clock.elapsed().saturating_sub(started).as_secs_f64();
            self.print(&format!("  {} rows after {seconds:.1} s", grouped(report.rows.read)));
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    /// Progress is no result: a place that does not take it is no reason to stop.
    fn print(&self, line: &str) {
        let _ = if self.silent { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_says_rows_rate_limit_and_time_left() {
        let shown = Progress::new(10_000, Style::Plain, false);
        let update = |read, total| progress::Update {
            run_id: "r".to_owned(),
            rows: hubferry::report::Counts { read, ..Default::default() },
            bytes_read: 1,
            bytes_total: 2,
            bytes_done: 1,
            calls: hubferry::report::Calls { total, ..Default::default() },
            in_flight: 3,
        };
        let text = |read, total, seconds| shown.text(&update(read, total), Duration::from_secs(seconds));
        assert_eq!(text(1_000, 14, 3), "1,000 of 10,000 rows", "a rate needs two looks");
        assert_eq!(text(1_000, 14, 3), "1,000 of 10,000 rows", "no division by nothing");
        assert_eq!(text(5_000, 52, 5), "5,000 of 10,000 rows, 2000 a second, limit 100 %, 2 s left");
    }
}
