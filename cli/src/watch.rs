//! How an import, a capture or its check, or a sync is coming along: a line that moves on a terminal, plain lines elsewhere. On standard error, so that standard output
//! holds the result alone.

use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    rc::Rc,
    time::Duration,
};

use hubferry::{
    capture::{
        position::Mode,
        progress::{ChangeCounts, Update},
    },
    clock::{Clock as _, SystemClock},
    hubspot::account::Account,
    import::progress::Update as ImportUpdate,
    sync::progress::{Phase, Update as SyncUpdate},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text::{WIDTH, clip, grouped};

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// How often the moving line may change.
const MOVE_EVERY: Duration = Duration::from_millis(100);

/// Tells of progress.
pub(crate) struct Watch {
    clock: SystemClock,
    line: RefCell<Option<ProgressBar>>,
    is_terminal: bool,
    told: Cell<Option<Duration>>,
    /// When records were told of first, and how many there were.
    first: Cell<Option<(Duration, u64)>>,
    /// The same of an import: when, bytes done, calls.
    import_first: Cell<Option<(Duration, u64, u64)>>,
    /// The import's account, which knows its limit.
    account: RefCell<Option<Rc<Account>>>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            clock: SystemClock::new(),
            line: RefCell::default(),
            is_terminal: io::stderr().is_terminal(),
            told: Cell::new(None),
            first: Cell::new(None),
            import_first: Cell::new(None),
            account: RefCell::default(),
        }
    }

    /// Whose limit an import uses.
    pub(crate) fn set_account(&self, account: Rc<Account>) {
        *self.account.borrow_mut() = Some(account);
    }

    /// What an import tells.
    pub(crate) fn import(&self, update: &ImportUpdate) {
        if !self.is_due() {
            return;
        }
        let now = self.clock.elapsed();
        let rate = self.rate(update.rows.read);
        let (since, bytes, calls) = self.import_first.get().unwrap_or((now, update.bytes_done, update.calls.total));
        self.import_first.set(Some((since, bytes, calls)));
        let seconds = now.saturating_sub(since).as_secs_f64();
        let ceiling = self.account.borrow().as_ref().map(|account| account.ceiling_per_second());
        let pace = Pace { rate, seconds, bytes, calls, ceiling };
        self.show(&describe_import(update, &pace));
    }

    /// What a capture tells.
    pub(crate) fn update(&self, update: &Update) {
        if self.is_due() {
            self.show(&describe(update, self.rate(update.changes.emitted())));
        }
    }

    /// What a sync tells.
    pub(crate) fn sync(&self, update: &SyncUpdate) {
        if self.is_due() {
            self.show(&describe_sync(update, self.rate(update.rows.read)));
        }
    }

    /// What is being done.
    pub(crate) fn count(&self, text: &str) {
        if self.is_due() {
            self.show(text);
        }
    }

    /// A sentence that stays.
    pub(crate) fn say(&self, text: &str) {
        let print = || {
            // Progress is no result: a place that does not take it is no reason to stop.
            let _ = writeln!(io::stderr(), "{text}");
        };
        match &*self.line.borrow() {
            Some(line) => line.suspend(print),
            None => print(),
        }
    }

    /// Takes the moving line away.
    pub(crate) fn clear(&self) {
        if let Some(line) = self.line.borrow_mut().take() {
            line.finish_and_clear();
        }
        self.told.set(None);
    }

    fn is_due(&self) -> bool {
        let now = self.clock.elapsed();
        let every = if self.is_terminal { MOVE_EVERY } else { LINE_EVERY };
        let is_due = self.told.get().is_none_or(|told| now.saturating_sub(told) >= every);
        if is_due {
            self.told.set(Some(now));
        }
        is_due
    }

    fn show(&self, text: &str) {
        let text = clip(text, WIDTH - 4);
        if !self.is_terminal {
            let _ = writeln!(io::stderr(), "  {text}");
            return;
        }
        let mut line = self.line.borrow_mut();
        let line = line.get_or_insert_with(|| {
            let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("  {msg}") {
                line.set_style(style);
            }
            line
        });
        line.set_message(text);
        line.tick();
    }

    fn rate(&self, records: u64) -> Option<f64> {
        let now = self.clock.elapsed();
        let Some((since, then)) = self.first.get() else {
            if records > 0 {
                self.first.set(Some((now, records)));
            }
            return None;
        };
        let seconds = now.saturating_sub(since).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = records.saturating_sub(then) as f64 / seconds;
        (seconds >= 1.0 && records > then).then_some(rate)
    }
}

/// How fast an import goes.
struct Pace {
    /// Rows a second, where that can be told.
    rate: Option<f64>,
    /// Since the first look; what was done then.
    seconds: f64,
    bytes: u64,
    calls: u64,
    /// Calls a second that the account allows.
    ceiling: Option<f64>,
}

/// One line: rows, rate, limit, time left.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn describe_import(update: &ImportUpdate, pace: &Pace) -> String {
    let mut text = format!("{} rows", grouped(update.rows.read));
    if update.rows.rejected > 0 {
        let _ = write!(text, ", {} rejected", grouped(update.rows.rejected));
    }
    let Some(rate) = pace.rate else { return text };
    let _ = write!(text, ", {rate:.0} a second");
    if let Some(ceiling) = pace.ceiling.filter(|ceiling| *ceiling > 0.0) {
        let used = update.calls.total.saturating_sub(pace.calls) as f64 / pace.seconds / ceiling;
        let _ = write!(text, ", limit {:.0} %", used.min(1.0) * 100.0);
    }
    let done = update.bytes_done.saturating_sub(pace.bytes);
    let left = update.bytes_total.saturating_sub(update.bytes_done);
    if done > 0 && left > 0 {
        let _ = write!(text, ", {} left", duration(left as f64 / (done as f64 / pace.seconds)));
    }
    text
}

/// Seconds as people say them: `5 s`, `12 min`, `3 h 20 min`.
fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures for people")]
    let seconds = seconds.round().clamp(0.0, 1e9) as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// One line, what matters first: it may be cut at the end.
fn describe(update: &Update, rate: Option<f64>) -> String {
    let changes = &update.changes;
    let position = &update.position;
    let mut text = match position.mode {
        Mode::Snapshot => format!("snapshot: {} records", grouped(changes.snapshot)),
        Mode::Cdc => format!("{}: {}", update.doing, operations(changes)),
    };
    if let Some(rate) = rate {
        let _ = write!(text, ", {rate:.0} a second");
    }
    let counted = update.calls.total.saturating_sub(update.calls.search + update.calls.throttled);
    if update.calls_possible >= 1.0 {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let share = (counted as f64 / update.calls_possible).min(1.0) * 100.0;
        let _ = write!(text, ", limit {share:.0} %");
    }
    let _ = write!(text, ", {} calls", grouped(update.calls.total));
    match (position.mode, position.item_id.as_str(), position.until.or(position.timestamp)) {
        (Mode::Cdc, _, Some(until)) => {
            let _ = write!(text, ", to {}", until.strftime("%H:%M:%SZ"));
        }
        (Mode::Cdc, _, None) | (Mode::Snapshot, "" | "0", _) => {}
        (Mode::Snapshot, id, _) => {
            let _ = write!(text, ", to id {id}");
        }
    }
    text
}

/// One line, what matters first: it may be cut at the end.
/// What a sync is doing.
pub(crate) fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Open => "begins",
        Phase::Counting => "counting",
        Phase::Reviews => "what was decided",
        Phase::Todo => "what was put off",
        Phase::Salesforce(_) => "Salesforce's changes",
        Phase::Hubspot { .. } => "HubSpot's changes",
        Phase::Bin(_) => "HubSpot's deletes",
        Phase::Deletes => "deletions",
        Phase::Complete => "ends",
    }
}

fn describe_sync(update: &SyncUpdate, rate: Option<f64>) -> String {
    let phase = phase(&update.phase);
    let mut text = format!("{}: {phase}, {} looked at", update.name, grouped(update.rows.read));
    let (hubspot, salesforce) = (&update.sync.hubspot, &update.sync.salesforce);
    for (writes, name) in [(hubspot, "HubSpot"), (salesforce, "Salesforce")] {
        let written = writes.created + writes.updated + writes.deleted;
        if written > 0 {
            let _ = write!(text, ", {} to {name}", grouped(written));
        }
    }
    if let Some(rate) = rate {
        let _ = write!(text, ", {rate:.0} a second");
    }
    if update.sync.reviews_opened > 0 {
        let _ = write!(text, ", {} for review", grouped(update.sync.reviews_opened));
    }
    let _ = write!(text, ", {} + {} calls", grouped(update.calls.total), grouped(update.sync.salesforce_calls));
    text
}

/// Records by operation; those that are none are left out.
pub(crate) fn operations(changes: &ChangeCounts) -> String {
    let kinds = [
        (changes.snapshot, "in the snapshot"),
        (changes.create, "created"),
        (changes.update, "updated"),
        (changes.delete, "deleted"),
    ];
    let told: Vec<String> = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", grouped(count)))
        .collect();
    if told.is_empty() { "no records".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use hubferry::{capture::position::Position, report::Calls};

    use super::*;

    #[test]
    fn a_line_says_records_by_operation_rate_calls_limit_and_position_and_fits() {
        let at = |text: &str| text.parse().unwrap();
        let mut update = Update {
            run_id: "r".to_owned(),
            doing: "snapshot",
            changes: ChangeCounts { snapshot: 123_456, ..ChangeCounts::default() },
            objects: 7,
            bytes: 1,
            calls: Calls { total: 1_300, search: 10, ..Calls::default() },
            calls_possible: 1_330.0,
            position: Position::of_snapshot("17100123456", at("2026-11-22T09:00:00Z")),
        };
        let text = describe(&update, Some(1_842.4));
        assert_eq!(text, "snapshot: 123,456 records, 1842 a second, limit 97 %, 1,300 calls, to id 17100123456");
        assert_eq!(clip(&text, WIDTH - 4).chars().count(), 76, "and the last of it is cut");
        update.position = Position::of_change("5", at("2026-11-22T09:00:00Z"), at("2026-11-22T09:30:00Z"));
        update.doing = "changes";
        update.changes = ChangeCounts { create: 2, delete: 1, ..ChangeCounts::default() };
        assert_eq!(describe(&update, None), "changes: 2 created, 1 deleted, limit 97 %, 1,300 calls, to 09:30:00Z");
    }

    #[test]
    fn a_line_of_an_import_says_rows_rate_limit_and_time_left() {
        let mut update = ImportUpdate {
            run_id: "r".to_owned(),
            rows: hubferry::report::Counts { read: 5_000, rejected: 12, ..Default::default() },
            bytes_read: 900_000,
            bytes_total: 1_000_000,
            bytes_done: 500_000,
            calls: Calls { total: 52, ..Calls::default() },
            in_flight: 3,
        };
        let mut pace = Pace { rate: None, seconds: 0.0, bytes: 0, calls: 14, ceiling: Some(19.0) };
        assert_eq!(describe_import(&update, &pace), "5,000 rows, 12 rejected", "a rate needs two looks");
        (pace.rate, pace.seconds, pace.bytes) = (Some(1_842.4), 4.0, 100_000);
        let text = describe_import(&update, &pace);
        assert_eq!(text, "5,000 rows, 12 rejected, 1842 a second, limit 50 %, 5 s left");
        update.bytes_total = 2_000_000_000;
        assert!(describe_import(&update, &pace).ends_with(", 5 h 33 min left"));
    }

    #[test]
    fn a_line_of_a_sync_says_what_it_does_what_it_wrote_and_fits() {
        let mut update = SyncUpdate {
            run_id: "r".to_owned(),
            name: "people".to_owned(),
            phase: Phase::Hubspot { after: None },
            rows: hubferry::report::Counts::default(),
            sync: hubferry::report::SyncReport::default(),
            calls: Calls::default(),
            seconds: 1.0,
        };
        assert_eq!(describe_sync(&update, None), "people: HubSpot's changes, 0 looked at, 0 + 0 calls");
        update.rows.read = 12_345;
        update.sync.hubspot.updated = 1_200;
        update.sync.salesforce.created = 7;
        update.sync.reviews_opened = 3;
        let text = describe_sync(&update, Some(431.3));
        assert_eq!(
            text,
            "people: HubSpot's changes, 12,345 looked at, 1,200 to HubSpot, 7 to Salesforce, 431 a second, 3 for review, 0 + 0 calls"
        );
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(operations(&ChangeCounts::default()), "no records");
    }
}
