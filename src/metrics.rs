//! Metrics for CloudWatch: one line of its embedded metric format for each run that an invocation worked on.
//!
//! CloudWatch reads the line from the log, so that a metric costs no call, no permission and no time. What is sent is decided here and nowhere
//! else: [`embedded`] is a pure function of a run's report.
//!
//! *Counters are sent once, at the run's end*: rows, calls, cost. A report counts from the run's start, over any number of invocations, so its
//! numbers at the end are the run's; what each invocation added would have to be kept somewhere, and what an invocation that died had done would
//! be in none of them. A run that goes on sends `RunsYielded`, and *gauges* as they are now (`RejectPercent`, `LimitUsePercent`,
//! `DailyUsePercent`, `LagSeconds`, `ReviewOpen`), so that a wrong file or an account at its limit is seen before the run's end.
//!
//! | metric | unit | kind | what |
//! |---|---|---|---|
//! | `RunsDone`, `RunsFailed` | count | counter | 1 or 0. Failed are `failed`, `invalid` and `aborted`; a `superseded` run is neither |
//! | `RunsYielded` | count | counter | 1 for each invocation that leaves the run to another |
//! | `RowsRead`, `RowsCreated`, `RowsUpdated`, `RowsUnchanged` | count | counter | the report's `rows` |
//! | `RowsRejected`, `RowsDeferred` | count | counter | the same, of imports and syncs |
//! | `RowsMerged` | count | counter | the same, of imports |
//! | `Archived` | count | counter | the report's `archived`, of imports that archive |
//! | `Calls`, `CallsRetried`, `CallsThrottled`, `CallsSearch` | count | counter | the report's `calls` |
//! | `LambdaGbSeconds`, `DynamoDbWrites`, `S3Requests` | none, count | counter | the report's `cost` |
//! | `DurationMs` | milliseconds | at the end | from the run's start |
//! | `RejectPercent` | percent | gauge | rejected rows of those read so far, of imports and syncs; not before the first row |
//! | `LimitUsePercent` | percent | gauge | the report's `limit_use_percent` |
//! | `DailyUsePercent` | percent | gauge | the account's calls of the day, used by all its apps; where HubSpot tells them |
//! | `LagSeconds` | seconds | gauge | how far a capture is behind HubSpot's clock |
//! | `ReviewOpen` | count | gauge | what waits in a sync's review queue |
//!
//! A job tells only what it can have ([`names_of`]), and CloudWatch asks a price for each name: an import has 22 metrics, a capture 18, a
//! sync 21, and as many again stand for all runs of the job together.
//!
//! The dimensions are job and name, and job alone. `RunId`, `Outcome`, `Account` and `ErrorCode` stand in the line as members, for queries over
//! the log; they are no dimensions, each value of which would be a metric of its own.

use serde_json::{Map, Number, Value, json};

use crate::report::{Outcome, Report};

/// The namespace of all metrics.
pub const NAMESPACE: &str = "hubferry";

/// What runs of every job tell.
pub const OF_ALL: [&str; 17] = [
    "RunsDone",
    "RunsFailed",
    "RunsYielded",
    "RowsRead",
    "RowsCreated",
    "RowsUpdated",
    "RowsUnchanged",
    "Calls",
    "CallsRetried",
    "CallsThrottled",
    "CallsSearch",
    "LimitUsePercent",
    "DailyUsePercent",
    "DurationMs",
    "LambdaGbSeconds",
    "DynamoDbWrites",
    "S3Requests",
];

/// What runs that are no captures tell besides: a capture refuses and puts off nothing.
pub const OF_WRITERS: [&str; 3] = ["RowsRejected", "RowsDeferred", "RejectPercent"];

/// What runs of imports (`apply` and `undo` among them) tell besides, and nobody else.
pub const OF_IMPORTS: [&str; 2] = ["RowsMerged", "Archived"];

/// What runs of captures tell besides.
pub const OF_CAPTURES: [&str; 1] = ["LagSeconds"];

/// What runs of syncs tell besides.
pub const OF_SYNCS: [&str; 1] = ["ReviewOpen"];

/// The metrics that runs of a job may tell, for dashboards and alarms. Each name under each set of dimensions is a metric of its own, and has its
/// price every month: a job has only those that can be other than 0.
pub fn names_of(job: &str) -> Vec<&'static str> {
    let mut names = OF_ALL.to_vec();
    match job {
        "capture" => names.extend(OF_CAPTURES),
        "sync" => names.extend(OF_WRITERS.iter().chain(&OF_SYNCS)),
        _ => names.extend(OF_WRITERS.iter().chain(&OF_IMPORTS)),
    }
    names
}

/// The metrics of a run as one line without an end: of a run that ended, or that goes on in another invocation. `None` for what is no work on a
/// run (`duplicate`, `busy`, and an event that made none).
pub fn embedded(report: &Report, daily_use_percent: Option<f64>) -> Option<String> {
    let run_id = report.run_id.as_deref()?;
    let mut line = Line { told: names_of(&report.job), ..Line::default() };
    match report.outcome {
        Outcome::Duplicate | Outcome::Busy => return None,
        Outcome::Yielded => line.count("RunsYielded", 1),
        Outcome::Done | Outcome::Failed | Outcome::Invalid | Outcome::Aborted | Outcome::Superseded => {
            line.at_the_end(report);
        }
    }
    line.percent("RejectPercent", percent(report.rows.rejected, report.rows.read));
    line.percent("LimitUsePercent", report.limit_use_percent);
    line.percent("DailyUsePercent", daily_use_percent);
    if let Some(lag) = report.capture.as_ref().and_then(|capture| capture.lag_seconds) {
        line.put("LagSeconds", "Seconds", lag.into());
    }
    if let Some(open) = review_open(report) {
        line.count("ReviewOpen", open);
    }
    let mut text = Map::new();
    let directive = json!({
        "Namespace": NAMESPACE,
        "Dimensions": [["Job", "Name"], ["Job"]],
        "Metrics": line.definitions,
    });
    let timestamp = report.finished_at.as_millisecond();
    text.insert("_aws".to_owned(), json!({ "Timestamp": timestamp, "CloudWatchMetrics": [directive] }));
    for (name, value) in [
        ("Job", report.job.as_str()),
        ("Name", &report.name),
        ("RunId", run_id),
        ("Outcome", report.outcome.as_str()),
        ("Account", &report.account),
    ] {
        text.insert(name.to_owned(), value.into());
    }
    if let Some(error) = &report.error {
        text.insert("ErrorCode".to_owned(), error.code.as_str().into());
    }
    text.extend(line.values);
    Some(Value::Object(text).to_string())
}

/// What waits in a sync's review queue: `sync.review_open` of its report.
pub(crate) fn review_open(report: &Report) -> Option<u64> {
    // By the report's shape and not by its type: the two change at different times.
    serde_json::to_value(report).ok()?.get("sync")?.get("review_open")?.as_u64()
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a share of a count")]
    let share = (whole > 0).then(|| part as f64 / whole as f64)?;
    Some((share * 10_000.0).round() / 100.0)
}

#[derive(Default)]
struct Line {
    /// The metrics of the job: others are left out.
    told: Vec<&'static str>,
    definitions: Vec<Value>,
    values: Map<String, Value>,
}

impl Line {
    fn put(&mut self, name: &'static str, unit: &'static str, value: Value) {
        if !self.told.contains(&name) {
            return;
        }
        self.definitions.push(json!({ "Name": name, "Unit": unit }));
        self.values.insert(name.to_owned(), value);
    }

    fn count(&mut self, name: &'static str, value: u64) {
        self.put(name, "Count", value.into());
    }

    /// Nothing where there is no number: the format has no null.
    fn percent(&mut self, name: &'static str, value: Option<f64>) {
        if let Some(number) = value.and_then(Number::from_f64) {
            self.put(name, "Percent", number.into());
        }
    }

    /// What is the run's as a whole.
    fn at_the_end(&mut self, report: &Report) {
        let failed = matches!(report.outcome, Outcome::Failed | Outcome::Invalid | Outcome::Aborted);
        self.count("RunsDone", (report.outcome == Outcome::Done).into());
        self.count("RunsFailed", failed.into());
        let (rows, calls, cost) = (&report.rows, &report.calls, &report.cost);
        for (name, value) in [
            ("RowsRead", rows.read),
            ("RowsCreated", rows.created),
            ("RowsUpdated", rows.updated),
            ("RowsUnchanged", rows.unchanged),
            ("RowsMerged", rows.merged),
            ("RowsRejected", rows.rejected),
            ("RowsDeferred", rows.deferred),
            ("Calls", calls.total),
            ("CallsRetried", calls.retried),
            ("CallsThrottled", calls.throttled),
            ("CallsSearch", calls.search),
            ("DynamoDbWrites", cost.dynamodb_writes),
            ("S3Requests", cost.s3_requests),
        ] {
            self.count(name, value);
        }
        if let Some(archived) = report.archived {
            self.count("Archived", archived);
        }
        if let Some(gb_seconds) = Number::from_f64(cost.lambda_gb_seconds) {
            self.put("LambdaGbSeconds", "None", gb_seconds.into());
        }
        self.put("DurationMs", "Milliseconds", report.duration_ms.into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::{Calls, CaptureReport, Cost, Counts, ReportError, SyncReport};

    fn report(outcome: Outcome) -> Report {
        let now = jiff::Timestamp::from_second(1_790_000_000).unwrap();
        let mut report =
            crate::import::blank_report("contacts", "default", Some("R1".to_owned()), Default::default(), now, now);
        report.outcome = outcome;
        report.rows = Counts { read: 1_000, created: 600, updated: 380, rejected: 20, ..Counts::default() };
        report.calls = Calls { total: 12, retried: 2, throttled: 1, search: 3 };
        report.cost = Cost { hubspot_calls: 12, lambda_gb_seconds: 0.25, dynamodb_writes: 9, s3_requests: 4 };
        report.limit_use_percent = Some(97.5);
        report.duration_ms = 1_234;
        report
    }

    fn line(report: &Report, daily: Option<f64>) -> Value {
        let text = embedded(report, daily).unwrap();
        assert!(!text.contains('\n'));
        let line: Value = serde_json::from_str(&text).unwrap();
        // CloudWatch drops a line whose directive names a member that is not there, or is not a number.
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        for metric in directive["Metrics"].as_array().unwrap() {
            assert!(line[metric["Name"].as_str().unwrap()].is_number(), "{metric} {text}");
        }
        for name in directive["Dimensions"].as_array().unwrap().iter().flat_map(|set| set.as_array().unwrap()) {
            assert!(line[name.as_str().unwrap()].as_str().is_some_and(|value| !value.is_empty()), "{name} {text}");
        }
        line
    }

    fn names(line: &Value) -> BTreeSet<String> {
        let metrics = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().iter();
        metrics.map(|metric| metric["Name"].as_str().unwrap().to_owned()).collect()
    }

    /// A report in which everything is there that any job may tell.
    fn full(job: &str) -> Report {
        let mut report = report(Outcome::Done);
        report.job = job.to_owned();
        report.archived = Some(7);
        report.capture = Some(CaptureReport { lag_seconds: Some(31), ..CaptureReport::default() });
        report.sync = Some(SyncReport { review_open: 3, ..SyncReport::default() });
        report
    }

    #[test]
    fn each_job_tells_what_it_can_have_and_nothing_else() {
        for job in ["import", "apply", "undo", "capture", "sync"] {
            let ended = names(&line(&full(job), Some(41.5)));
            let mut yielded = full(job);
            yielded.outcome = Outcome::Yielded;
            let told = ended.into_iter().chain(names(&line(&yielded, Some(41.5))));
            let known: BTreeSet<String> = names_of(job).into_iter().map(str::to_owned).collect();
            assert_eq!(told.collect::<BTreeSet<_>>(), known, "{job}");
            assert_eq!(known.len(), names_of(job).len(), "{job}: one is named twice");
        }
        for (job, count) in [("import", 22), ("capture", 18), ("sync", 21)] {
            assert_eq!(
                names_of(job).len(),
                count,
                "{job}: each has its price; README and the module say how many there are"
            );
        }
    }

    #[test]
    fn the_end_of_a_run_tells_everything_that_it_did() {
        let line = line(&full("import"), Some(41.5));
        assert_eq!((&line["RunsDone"], &line["RunsFailed"]), (&json!(1), &json!(0)));
        assert_eq!(
            (&line["RowsRead"], &line["RowsCreated"], &line["RowsRejected"]),
            (&json!(1000), &json!(600), &json!(20))
        );
        assert_eq!((&line["RejectPercent"], &line["LimitUsePercent"]), (&json!(2.0), &json!(97.5)));
        assert_eq!((&line["DailyUsePercent"], &line["Archived"]), (&json!(41.5), &json!(7)));
        assert_eq!((&line["LambdaGbSeconds"], &line["DurationMs"]), (&json!(0.25), &json!(1234)));
        assert_eq!(line["_aws"]["Timestamp"], 1_790_000_000_000_i64);
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["Job", "Name"], ["Job"]]));
    }

    #[test]
    fn a_run_that_goes_on_sends_gauges_and_no_row_that_its_end_will_count_again() {
        let line = line(&report(Outcome::Yielded), None);
        assert_eq!(
            names(&line),
            BTreeSet::from(["LimitUsePercent", "RejectPercent", "RunsYielded"].map(str::to_owned))
        );
    }

    #[test]
    fn failed_are_the_outcomes_that_somebody_has_to_look_at() {
        for (outcome, done, failed) in [
            (Outcome::Failed, 0, 1),
            (Outcome::Invalid, 0, 1),
            (Outcome::Aborted, 0, 1),
            (Outcome::Superseded, 0, 0),
            (Outcome::Done, 1, 0),
        ] {
            let line = line(&report(outcome), None);
            assert_eq!((&line["RunsDone"], &line["RunsFailed"]), (&json!(done), &json!(failed)), "{outcome:?}");
        }
        for outcome in [Outcome::Duplicate, Outcome::Busy] {
            assert_eq!(embedded(&report(outcome), None), None, "{outcome:?}");
        }
    }

    #[test]
    fn what_has_no_number_is_left_out() {
        let mut report = report(Outcome::Done);
        report.rows = Counts::default();
        report.limit_use_percent = None;
        report.error = Some(ReportError { code: "C".into(), message: "row of zanzibar".into(), hint: String::new() });
        let line = line(&report, Some(f64::NAN));
        for name in ["RejectPercent", "LimitUsePercent", "DailyUsePercent", "Archived"] {
            assert!(line.get(name).is_none(), "{name}");
        }
        assert_eq!(line["ErrorCode"], "C");
        assert!(!line.to_string().contains("zanzibar"), "no message stands in a metric");
    }
}
