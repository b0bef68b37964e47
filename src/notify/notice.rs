//! Whether a run is worth a message, and what the message says. Pure.
//!
//! A message holds no value of a row and no token: run, job, name, outcome, counts, the error's code and hint, and where the report is. The
//! error's own text stays out, because it may name a file.

use jiff::Timestamp;

use crate::{
    codes,
    config::Amount,
    metrics::review_open,
    objects::Location,
    report::{Outcome, Report},
    state::{Item, Value},
};

/// Rejects are unusual from this share on, where the settings say nothing.
pub(super) const UNUSUAL_REJECTS: Amount = Amount::Share(0.1);
/// Or from so many times the share that the last good run rejected.
const TIMES_THE_LAST: u64 = 3;
/// But not for fewer rejects than these: two instead of one say nothing.
const UNUSUAL_MIN: u64 = 10;
/// And not for fewer permille of the rows than these more than the last time.
const UNUSUAL_MORE_PERMILLE: u64 = 10;

/// What a message is about. At most one an hour of each, for each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A run failed, was aborted, or could not begin.
    Failed,
    /// A run would have deleted more than it may, and stopped.
    Braked,
    /// A run rejected more than is usual.
    Rejects,
    /// More waits in a review queue than before.
    Review,
    /// The first good run after one of the first two.
    Recovered,
}

impl Kind {
    /// Attributes of the notice's item: when it was told last, by which run, and how many were held back since.
    pub(super) fn attributes(self) -> [&'static str; 3] {
        match self {
            Self::Failed => ["failed_at", "failed_run", "failed_held"],
            Self::Braked => ["braked_at", "braked_run", "braked_held"],
            Self::Rejects => ["rejects_at", "rejects_run", "rejects_held"],
            Self::Review => ["review_at", "review_run", "review_held"],
            Self::Recovered => ["recovered_at", "recovered_run", "recovered_held"],
        }
    }

    /// Its word in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Braked => "braked",
            Self::Rejects => "rejects",
            Self::Review => "review",
            Self::Recovered => "recovered",
        }
    }
}

/// Whether a run with this error was stopped because it would have deleted too much.
fn is_brake(code: &str) -> bool {
    [codes::MIRROR_BRAKE, codes::SYNC_DELETES].iter().any(|brake| brake.as_str() == code)
}

/// What is remembered of a job between its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The last run failed: its id.
    pub(super) failing: Option<String>,
    /// What was told last: that it fails.
    pub(super) told_failing: bool,
    /// The share that the last good run rejected.
    pub(super) rejected_permille: Option<u64>,
    /// What waited for review when it was told last, or less.
    pub(super) review_open: u64,
    /// When the item is forgotten, in seconds since 1970.
    pub(super) expires_at: i64,
}

impl From<&Item> for Remembered {
    fn from(item: &Item) -> Self {
        let number = |name: &str| match item.get(name) {
            Some(Value::N(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let text = |name: &str| match item.get(name) {
            Some(Value::S(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        };
        Self {
            failing: text("failing"),
            told_failing: text("told").as_deref() == Some(TOLD_FAILING),
            rejected_permille: number("rejected_permille"),
            review_open: number("review_open").unwrap_or(0),
            expires_at: number("expires_at").and_then(|at| i64::try_from(at).ok()).unwrap_or(0),
        }
    }
}

/// As `told`: the last message said that the job fails.
pub(super) const TOLD_FAILING: &str = "failing";
/// As `told`: the last message said that it works again.
pub(super) const TOLD_RECOVERED: &str = "recovered";

/// What follows from a run's report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// What to tell.
    pub(super) notices: Vec<Kind>,
    /// What to remember from now on, besides what is told.
    pub(super) next: Remembered,
}

/// Decides about the report of a run that has ended. Of others nothing follows.
pub(super) fn decide(report: &Report, known: &Remembered, unusual: Option<Amount>) -> Decision {
    let mut decision = Decision { notices: Vec::new(), next: known.clone() };
    match report.outcome {
        Outcome::Failed | Outcome::Invalid | Outcome::Aborted => {
            let code = report.error.as_ref().map_or("", |error| error.code.as_str());
            decision.notices.push(if is_brake(code) { Kind::Braked } else { Kind::Failed });
            decision.next.failing = Some(report.run_id.clone().unwrap_or_default());
        }
        Outcome::Done => {
            decision.next.failing = None;
            if known.told_failing {
                decision.notices.push(Kind::Recovered);
            }
            if is_unusual(report.rows.rejected, report.rows.read, known.rejected_permille, unusual) {
                decision.notices.push(Kind::Rejects);
            }
            if report.rows.read > 0 {
                decision.next.rejected_permille = Some(permille(report.rows.rejected, report.rows.read));
            }
        }
        // Nothing came to an end.
        Outcome::Yielded | Outcome::Busy | Outcome::Duplicate | Outcome::Superseded => return decision,
    }
    if let Some(open) = review_open(report) {
        if open > known.review_open {
            // Raised when it is told.
            decision.notices.push(Kind::Review);
        } else {
            decision.next.review_open = open;
        }
    }
    decision
}

fn permille(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1_000).checked_div(whole).unwrap_or(0)
}

fn is_unusual(rejected: u64, read: u64, last_permille: Option<u64>, setting: Option<Amount>) -> bool {
    if rejected == 0 {
        return false;
    }
    let unusual = setting.unwrap_or(UNUSUAL_REJECTS);
    if rejected >= unusual.of(read).max(1) {
        return true;
    }
    last_permille.is_some_and(|last| {
        let now = permille(rejected, read);
        rejected >= UNUSUAL_MIN && now >= last.saturating_mul(TIMES_THE_LAST) && now >= last + UNUSUAL_MORE_PERMILLE
    })
}

/// A message: the same words for every way it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// One line of plain ASCII of at most [`SUBJECT_MAX`] characters, as SNS wants it.
    pub subject: String,
    /// Several lines of text.
    pub text: String,
    /// The same for the same run and kind: whoever gets it twice may drop one.
    pub id: String,
}

/// SNS's longest subject.
pub const SUBJECT_MAX: usize = 100;
/// Codes of rejects that a message names.
const CODES_MAX: usize = 5;

/// The message about a run. `held` says how many messages of this kind were held back since the last one.
pub(super) fn message(kind: Kind, report: &Report, held: u64) -> Message {
    let (job, name, outcome) = (&report.job, &report.name, report.outcome.as_str());
    let run_id = report.run_id.as_deref().unwrap_or("none");
    let subject = match kind {
        Kind::Failed => format!("hubferry: {job} {name} {outcome}{}", code(report)),
        Kind::Braked => format!("hubferry: {job} {name} stopped before deleting{}", code(report)),
        Kind::Rejects => {
            format!("hubferry: {job} {name} rejected {} of {} rows", report.rows.rejected, report.rows.read)
        }
        Kind::Review => {
            format!("hubferry: {job} {name} has {} conflicts to review", review_open(report).unwrap_or_default())
        }
        Kind::Recovered => format!("hubferry: {job} {name} works again"),
    };
    let subject: String = subject.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(SUBJECT_MAX).collect();
    let mut lines = vec![subject.clone()];
    lines.push(format!(
        "run {run_id}: {outcome}, account {}, {} to {}",
        report.account,
        second(report.started_at),
        second(report.finished_at)
    ));
    if report.rows.read > 0 {
        lines.push(rows(report));
    }
    let mut rejected: Vec<(&String, &u64)> = report.rejected_by_code.iter().collect();
    rejected.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    if !rejected.is_empty() && kind != Kind::Recovered {
        let shown: Vec<String> =
            rejected.iter().take(CODES_MAX).map(|(code, count)| format!("{code} {count}")).collect();
        let more = if rejected.len() > CODES_MAX { ", …" } else { "" };
        lines.push(format!("rejects: {}{more}", shown.join(", ")));
    }
    if let Some(error) = report.error.as_ref().filter(|_| kind != Kind::Recovered) {
        lines.push(format!("{}: {}", error.code, error.hint));
    }
    if kind == Kind::Review {
        lines.push("look at them with: hubferry review list".to_owned());
    }
    lines.push(match report_at(report) {
        Some(at) => format!("report: {at}"),
        None => format!("report: hubferry report {run_id}"),
    });
    match held {
        0 => {}
        1 => lines.push("1 more message like this was held back in the last hour".to_owned()),
        _ => lines.push(format!("{held} more messages like this were held back in the last hour")),
    }
    Message { subject, text: lines.join("\n"), id: format!("{run_id}-{}", kind.as_str()) }
}

fn code(report: &Report) -> String {
    report.error.as_ref().map(|error| format!(" ({})", error.code)).unwrap_or_default()
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn rows(report: &Report) -> String {
    let rows = &report.rows;
    let parts = [
        (rows.created, "created"),
        (rows.updated, "updated"),
        (rows.unchanged, "unchanged"),
        (rows.merged, "merged"),
        (rows.rejected, "rejected"),
        (rows.deferred, "deferred"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    format!("rows: {} read, {}", rows.read, parts.collect::<Vec<_>>().join(", "))
}

/// Where the report is, if that follows from itself: in the bucket of an import's file, of a capture's output, or of the rejects.
fn report_at(report: &Report) -> Option<Location> {
    let beside = report.capture.as_ref().map(|capture| capture.output.as_str()).or(report.rejects.as_deref());
    let place = beside.and_then(Location::parse).or_else(|| Location::parse(&report.source.uri))?;
    let run_id = report.run_id.as_deref()?;
    Some(Location::new(place.bucket, format!("reports/{}/{}/{run_id}.json", report.job, report.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Counts, ReportError};

    fn report(outcome: Outcome, read: u64, rejected: u64) -> Report {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let source = crate::report::Source { uri: "s3://crm/incoming/a.csv".to_owned(), ..Default::default() };
        let mut report = crate::import::blank_report("contacts", "default", Some("R1".to_owned()), source, now, now);
        report.outcome = outcome;
        report.rows = Counts { read, rejected, created: read - rejected, ..Counts::default() };
        report
    }

    fn failed(code: &str) -> Report {
        let mut report = report(Outcome::Aborted, 0, 0);
        report.error = Some(ReportError {
            code: code.to_owned(),
            message: "line 7 of zanzibar.csv".to_owned(),
            hint: "Mend it.".to_owned(),
        });
        report
    }

    fn kinds(report: &Report, known: &Remembered) -> Vec<Kind> {
        decide(report, known, None).notices
    }

    #[test]
    fn a_failure_is_told_and_the_first_good_run_after_it() {
        let mut known = Remembered::default();
        for outcome in [Outcome::Failed, Outcome::Invalid, Outcome::Aborted] {
            assert_eq!(kinds(&report(outcome, 0, 0), &known), [Kind::Failed], "{outcome:?}");
        }
        known.failing = Some("R0".to_owned());
        let good = decide(&report(Outcome::Done, 5, 0), &known, None);
        assert_eq!((good.notices, good.next.failing), (vec![], None), "nobody was told that it failed");
        known.told_failing = true;
        assert_eq!(kinds(&report(Outcome::Done, 5, 0), &known), [Kind::Recovered]);
        for outcome in [Outcome::Yielded, Outcome::Busy, Outcome::Duplicate, Outcome::Superseded] {
            let decision = decide(&report(outcome, 5, 5), &known, None);
            assert_eq!((decision.notices, &decision.next), (vec![], &known), "{outcome:?}");
        }
    }

    #[test]
    fn deletes_that_were_stopped_are_told_as_what_they_are() {
        assert_eq!(kinds(&failed("MIRROR_BRAKE"), &Remembered::default()), [Kind::Braked]);
        assert_eq!(kinds(&failed("ABORT_IF_REJECTED"), &Remembered::default()), [Kind::Failed]);
    }

    #[test]
    fn rejects_are_unusual_by_their_share_or_beside_the_last_good_run() {
        let last = |permille| Remembered { rejected_permille: Some(permille), ..Remembered::default() };
        let table = [
            (1_000, 99, Remembered::default(), false),
            (1_000, 100, Remembered::default(), true),
            (3, 1, Remembered::default(), true),
            (1_000, 30, last(10), true),
            (1_000, 29, last(10), false),
            (1_000, 10, last(0), true),
            (1_000, 9, last(0), false),
            (100_000, 100, last(0), false),
            (1_000, 99, last(90), false),
            (0, 0, last(0), false),
        ];
        for (read, rejected, known, unusual) in table {
            let told = kinds(&report(Outcome::Done, read, rejected), &known).contains(&Kind::Rejects);
            assert_eq!(told, unusual, "{rejected} of {read} after {known:?}");
        }
        let set = |amount| decide(&report(Outcome::Done, 1_000, 40), &Remembered::default(), Some(amount)).notices;
        assert_eq!((set(Amount::Count(41)), set(Amount::Count(40))), (vec![], vec![Kind::Rejects]));
        assert_eq!(set(Amount::Share(0.0)), [Kind::Rejects], "any reject at all");
    }

    #[test]
    fn what_a_good_run_rejected_is_the_measure_of_the_next() {
        let next = |outcome, read| decide(&report(outcome, read, read / 50), &Remembered::default(), None).next;
        assert_eq!(next(Outcome::Done, 1_000).rejected_permille, Some(20));
        assert_eq!(next(Outcome::Done, 0).rejected_permille, None, "an empty file says nothing");
        assert_eq!(next(Outcome::Failed, 1_000).rejected_permille, None);
    }

    #[test]
    fn a_message_holds_counts_code_hint_and_place_and_not_the_errors_own_text() {
        let mut report = failed("MAPPING_INVALID");
        report.rows = Counts { read: 10, created: 7, rejected: 3, ..Counts::default() };
        report.rejected_by_code = [("INVALID_EMAIL".to_owned(), 1), ("INVALID_DATE".to_owned(), 2)].into();
        let message = message(Kind::Failed, &report, 2);
        assert_eq!(message.subject, "hubferry: import contacts aborted (MAPPING_INVALID)");
        assert_eq!(
            message.text,
            "hubferry: import contacts aborted (MAPPING_INVALID)\n\
             run R1: aborted, account default, 2026-09-21T14:13:20Z to 2026-09-21T14:13:20Z\n\
             rows: 10 read, 7 created, 3 rejected\n\
             rejects: INVALID_DATE 2, INVALID_EMAIL 1\n\
             MAPPING_INVALID: Mend it.\n\
             report: s3://crm/reports/import/contacts/R1.json\n\
             2 more messages like this were held back in the last hour"
        );
        assert!(!message.text.contains("zanzibar"));
    }

    #[test]
    fn a_subject_is_what_sns_takes_however_long_the_name_is() {
        let mut report = failed("MIRROR_BRAKE");
        report.name = format!("é{}", "x".repeat(200));
        let subject = message(Kind::Braked, &report, 0).subject;
        assert!(subject.len() <= SUBJECT_MAX && subject.is_ascii(), "{subject}");
    }

    #[test]
    fn a_report_that_is_on_no_bucket_is_named_by_its_run() {
        let mut report = failed("SOURCE_GONE");
        report.source.uri = "/data/a.csv".to_owned();
        assert!(message(Kind::Failed, &report, 0).text.contains("report: hubferry report R1"));
    }
}
