//! What the page tells of runs and limits: which runs there are, how far those are that go on, and how full the limits were lately.

use std::collections::{BTreeMap, HashMap, VecDeque};

use hubferry::{
    app::Update,
    report::{Calls, Counts, Report},
    state::runs::RunSource,
};
use hubferry_simulator::hubspot::LimitUse;
use jiff::Timestamp;
use serde_json::Value;

use super::{TABLE, stage::Stage};
use crate::{text::grouped, watch::phase};

/// Runs whose reports are at hand, the newest; older ones are in the bucket.
pub(super) const RUNS_KEPT: usize = 300;
/// Runs that are going on; more than the function can work on.
const LIVE_MAX: usize = 50;
/// Between two looks at the bucket, the table and the limits.
const LOOK_EVERY_MS: i64 = 250;
/// Points of the curve of a limit, one a second: five minutes.
const SAMPLES_MAX: usize = 300;
/// Between two points.
const SAMPLE_EVERY_MS: i64 = 1_000;

/// How a run is coming along.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Live {
    pub(super) run_id: String,
    pub(super) job: String,
    pub(super) name: String,
    /// What it reads, for people.
    pub(super) source: String,
    pub(super) started_at: Timestamp,
    /// Nobody has worked on it for a while: it waits to be continued.
    pub(super) waits: bool,
    pub(super) progress: Option<Progress>,
}

/// What a run told last.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Progress {
    /// Per mille of the source; none where nobody knows.
    pub(super) per_mille: Option<u64>,
    pub(super) rows: Counts,
    pub(super) calls: Calls,
    pub(super) in_flight: usize,
    /// What it is doing, of a capture or a sync.
    pub(super) doing: String,
    /// Rows, or records, a second since the first look.
    pub(super) per_second: Option<u64>,
    first: (Timestamp, u64),
}

/// A run that is over, or was yielded.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) report: Report,
    bucket: String,
    key: String,
    etag: String,
}

/// How full a limit is, and was.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge {
    pub(super) used: Vec<LimitUse>,
    pub(super) calls: u64,
    pub(super) throttled: u64,
    /// The burst's use, per mille, oldest first.
    pub(super) burst: VecDeque<u64>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Board {
    looked_at: Option<Timestamp>,
    sampled_at: Option<Timestamp>,
    past: BTreeMap<String, Past>,
    live: BTreeMap<String, Live>,
    told: BTreeMap<String, Progress>,
    /// By the account's name.
    pub(super) gauges: BTreeMap<String, Gauge>,
    /// By the org's name: calls of the last day, and how many there may be.
    pub(super) days: BTreeMap<String, (u64, u64)>,
}

impl Board {
    /// What a run tells.
    pub(super) fn update(&mut self, update: &Update, now: Timestamp) {
        let (run_id, done, mut progress) = match update {
            Update::Import(update) => {
                let whole = update.bytes_total.max(1);
                let progress = Progress {
                    per_mille: Some((update.bytes_done.saturating_mul(1_000) / whole).min(1_000)),
                    rows: update.rows,
                    calls: update.calls,
                    in_flight: update.in_flight,
                    doing: String::new(),
                    per_second: None,
                    first: (now, update.rows.read),
                };
                (&update.run_id, update.rows.read, progress)
            }
            Update::Capture(update) => {
                let emitted = update.changes.emitted();
                let progress = Progress {
                    per_mille: None,
                    rows: Counts::default(),
                    calls: update.calls,
                    in_flight: 0,
                    doing: format!("{}: {emitted} records", update.doing),
                    per_second: None,
                    first: (now, emitted),
                };
                (&update.run_id, emitted, progress)
            }
            Update::Sync(update) => {
                let progress = Progress {
                    per_mille: None,
                    rows: update.rows,
                    calls: update.calls,
                    in_flight: 0,
                    doing: format!("{}: {} looked at", phase(&update.phase), grouped(update.rows.read)),
                    per_second: None,
                    first: (now, update.rows.read),
                };
                (&update.run_id, update.rows.read, progress)
            }
        };
        if let Some(before) = self.told.get(run_id) {
            progress.first = before.first;
            let ms = now.duration_since(before.first.0).as_millis();
            let done = done.saturating_sub(before.first.1);
            progress.per_second =
                u64::try_from(ms).ok().filter(|ms| *ms >= 500).map(|ms| done.saturating_mul(1_000) / ms);
        }
        if self.told.len() >= LIVE_MAX && !self.told.contains_key(run_id) {
            self.told.pop_first();
        }
        self.told.insert(run_id.clone(), progress);
    }

    /// Looks at the bucket, the table and the limits, unless that was just done.
    pub(super) fn refresh(&mut self, stage: &Stage, now: Timestamp) {
        let since = |at: Option<Timestamp>| at.map_or(i64::MAX, |at| now.as_millisecond() - at.as_millisecond());
        if (0..LOOK_EVERY_MS).contains(&since(self.looked_at)) {
            return;
        }
        self.looked_at = Some(now);
        let is_sample = since(self.sampled_at) >= SAMPLE_EVERY_MS;
        if is_sample {
            self.sampled_at = Some(now);
        }
        self.look_at_limits(stage, now, is_sample);
        self.look_at_reports(stage);
        self.look_at_open_runs(stage, now);
    }

    fn look_at_limits(&mut self, stage: &Stage, now: Timestamp, is_sample: bool) {
        for account in &stage.accounts {
            let mut portal = account.lock();
            let (used, counts) = (portal.limit_use(now), portal.counts());
            drop(portal);
            let gauge = self.gauges.entry(account.name.clone()).or_default();
            (gauge.calls, gauge.throttled) = (counts.requests, counts.throttled);
            if is_sample {
                if gauge.burst.len() == SAMPLES_MAX {
                    gauge.burst.pop_front();
                }
                let bursts = used.iter().filter(|one| one.name == "burst");
                let fullest = bursts.filter_map(|one| Some(one.used.saturating_mul(1_000) / one.limit?.max(1))).max();
                gauge.burst.push_back(fullest.unwrap_or(0).min(1_000));
            }
            gauge.used = used;
        }
        for org in &stage.orgs {
            self.days.insert(org.name.clone(), org.lock().day_use(now));
        }
    }

    fn look_at_reports(&mut self, stage: &Stage) {
        let s3 = stage.cloud.s3();
        let mut found: Vec<(String, String, String, String)> = Vec::new();
        for bucket in s3.bucket_names() {
            for listed in s3.list_objects(&bucket, "reports/") {
                let id = listed.key.rsplit('/').next().and_then(|name| name.strip_suffix(".json")).map(str::to_owned);
                if let Some(id) = id {
                    found.push((id, bucket.clone(), listed.key, listed.etag));
                }
            }
        }
        // Ids sort by time.
        found.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        found.truncate(RUNS_KEPT);
        let kept: HashMap<&str, &str> = found.iter().map(|(id, _, _, etag)| (id.as_str(), etag.as_str())).collect();
        self.past.retain(|id, past| kept.get(id.as_str()) == Some(&past.etag.as_str()));
        for (id, bucket, key, etag) in found {
            if self.past.contains_key(&id) {
                continue;
            }
            let report = s3.read(&bucket, &key).and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if let Some(report) = report {
                self.past.insert(id, Past { report, bucket, key, etag });
            }
        }
    }

    fn look_at_open_runs(&mut self, stage: &Stage, now: Timestamp) {
        let mut live = BTreeMap::new();
        for id in stage.cloud.sort_keys(TABLE, "open", LIVE_MAX) {
            let Some(item) = stage.cloud.item(TABLE, &format!("run#{id}"), "run") else { continue };
            let text = |name: &str| item.pointer(&format!("/{name}/S")).and_then(Value::as_str).unwrap_or_default();
            let millis = |name: &str| {
                let number = item.pointer(&format!("/{name}/N")).and_then(Value::as_str);
                number.and_then(|number| number.parse().ok()).and_then(|ms| Timestamp::from_millisecond(ms).ok())
            };
            let source: Option<RunSource> = serde_json::from_str(text("source")).ok();
            let one = Live {
                job: text("job").to_owned(),
                name: text("name").to_owned(),
                source: source.map(|source| source.key).unwrap_or_default(),
                started_at: millis("started_at").unwrap_or(now),
                waits: millis("lease_expires_at").is_none_or(|end| end < now),
                progress: self.told.get(&id).cloned(),
                run_id: id.clone(),
            };
            live.insert(id, one);
        }
        self.told.retain(|id, _| live.contains_key(id) || !self.past.contains_key(id));
        self.live = live;
    }

    /// The runs that go on, the newest first.
    pub(super) fn live(&self) -> impl Iterator<Item = &Live> {
        self.live.values().rev()
    }

    /// A run that goes on.
    pub(super) fn live_run(&self, id: &str) -> Option<&Live> {
        self.live.get(id)
    }

    /// The runs with a report, the newest first, without those that go on.
    pub(super) fn past(&self) -> impl Iterator<Item = &Past> {
        self.past.iter().rev().filter(|(id, _)| !self.live.contains_key(*id)).map(|(_, past)| past)
    }

    /// The last run of a sync that has a report, the one that goes on aside.
    pub(super) fn last_sync(&self, name: &str) -> Option<&Report> {
        self.past().map(|past| &past.report).find(|report| report.job == "sync" && report.name == name)
    }

    /// Where a run's report is: bucket and key.
    pub(super) fn stored_at(&self, id: &str) -> Option<(String, String)> {
        self.past.get(id).map(|past| (past.bucket.clone(), past.key.clone()))
    }
}
