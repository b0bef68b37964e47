//! How a capture, or its check, is coming along: a line that moves on a terminal, plain lines elsewhere. On standard error, so that standard output
//! holds the result alone.

use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use hubferry::{
    capture::{
        position::Mode,
        progress::{ChangeCounts, Update},
    },
    clock::{Clock as _, SystemClock},
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
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            clock: SystemClock::new(),
            line: RefCell::default(),
            is_terminal: io::stderr().is_terminal(),
            told: Cell::new(None),
            first: Cell::new(None),
        }
    }

    /// What a capture tells.
    pub(crate) fn update(&self, update: &Update) {
        if self.is_due() {
            self.show(&describe(update, self.rate(update.changes.emitted())));
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
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(operations(&ChangeCounts::default()), "no records");
    }
}
