//! `hubferry status`: what each import, capture and sync did last, where it stands, and which runs are open.

use anyhow::Result;
use hubferry::{
    app::App,
    report::Position,
    state::runs::{LastRun, RunContext},
    sync::resolve,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    DONE,
    doors::{self, Use},
    text::{self, WIDTH, grouped, wrap},
    turns,
};

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON; README.md has its shape, which is stable.
    #[arg(long)]
    json: bool,
}

/// All of it. What `--json` prints: members are added, and none is renamed or dropped.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// When it was looked at.
    at: Timestamp,
    /// Where state is.
    state: String,
    /// The settings' imports, in their order.
    imports: Vec<Job>,
    /// The settings' captures, in their order.
    captures: Vec<Job>,
    /// The settings' syncs, in their order.
    pub(crate) syncs: Vec<SyncJob>,
    /// Runs that are not over, oldest first.
    open_runs: Vec<OpenRun>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) account: String,
    /// An import's `match`, a capture's resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#match: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    /// Of a capture or sync: where the next run goes on; null before the first run has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<Value>,
    /// Null: it never ran to an end.
    pub(crate) last_run: Option<LastRun>,
    /// Null: no run was ever `done`.
    last_successful_run: Option<LastRun>,
}

/// A sync.
#[derive(Debug, Serialize)]
pub(crate) struct SyncJob {
    #[serde(flatten)]
    pub(crate) job: Job,
    /// The org, by its name in the settings.
    pub(crate) org: String,
    pub(crate) hubspot_object: String,
    pub(crate) salesforce_object: String,
    /// What waits for a person.
    pub(crate) reviews: usize,
    /// Records and fields that one of the two will not take.
    pub(crate) refused: usize,
}

#[derive(Debug, Serialize)]
struct OpenRun {
    run_id: String,
    job: String,
    name: String,
    source: String,
    started_at: Timestamp,
    age_seconds: i64,
    invocations: i64,
    /// As of the last checkpoint; null before the first.
    position: Value,
    lease: Lease,
    /// It is left alone until then; null where it may go on at once.
    not_before: Option<Timestamp>,
    /// Whether its source can be read from here: a file of another machine cannot.
    reachable: bool,
}

#[derive(Debug, Serialize)]
struct Lease {
    /// Whether somebody works on the run now.
    held: bool,
    /// Who took it last: an invocation's id, or a process of a command line; null if nobody did.
    owner: Option<String>,
    /// Null where it was given back.
    expires_at: Option<Timestamp>,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

async fn work(options: &Options) -> Result<u8> {
    let doors = doors::open(&options.place, Use::Look, None).await?;
    let status = Box::pin(look(&doors.app, &doors.state, doors.no_state)).await?;
    if options.json {
        text::json_line(&serde_json::to_value(&status)?)?;
    } else {
        text::print(&status.text(text::has_colour()))?;
    }
    Ok(DONE)
}

/// Everything there is to tell. `state` is where state is, for people; with `no_state` there is none to look at.
pub(crate) async fn look(app: &App, state: &str, no_state: bool) -> Result<Status> {
    let runs = app.runs();
    let now = app.env().clock.now();
    let context = async |job: &str, name: &str| -> Result<(Option<LastRun>, Option<LastRun>)> {
        // Without a file there is no state, and looking makes none.
        let context = if no_state { None } else { runs.context(job, name).await? };
        let parts = context.map(|RunContext { last_run, last_successful_run }| (Some(last_run), last_successful_run));
        Ok(parts.unwrap_or_default())
    };
    let (mut imports, mut captures, mut open_runs) = (Vec::new(), Vec::new(), Vec::new());
    for import in &app.config().imports {
        let (last_run, last_successful_run) = context("import", &import.name).await?;
        imports.push(Job {
            name: import.name.clone(),
            account: import.hubspot.clone(),
            r#match: Some(import.pattern.clone()),
            resource: None,
            position: None,
            last_run,
            last_successful_run,
        });
    }
    for capture in &app.config().captures {
        let (last_run, last_successful_run) = context("capture", &capture.name).await?;
        let stream = if no_state { None } else { runs.stream("capture", &capture.name).await? };
        let position = stream.and_then(|stream| serde_json::from_str(&stream.position).ok());
        captures.push(Job {
            name: capture.name.clone(),
            account: capture.hubspot.clone(),
            r#match: None,
            resource: Some(capture.resource.to_string()),
            position: Some(position.unwrap_or_default()),
            last_run,
            last_successful_run,
        });
    }
    let mut syncs = Vec::new();
    for sync in &app.config().syncs {
        let (last_run, last_successful_run) = context("sync", &sync.name).await?;
        let (position, reviews, refused) = match no_state {
            true => (None, 0, 0),
            false => (
                runs.stream("sync", &sync.name).await?,
                resolve::list(app, Some(&sync.name)).await?.len(),
                resolve::refused(app, Some(&sync.name)).await?.len(),
            ),
        };
        let position = position.and_then(|stream| serde_json::from_str(&stream.position).ok());
        syncs.push(SyncJob {
            job: Job {
                name: sync.name.clone(),
                account: sync.hubspot.clone(),
                r#match: None,
                resource: None,
                position: Some(position.unwrap_or_default()),
                last_run,
                last_successful_run,
            },
            org: sync.salesforce.clone(),
            hubspot_object: sync.hubspot_object.to_string(),
            salesforce_object: sync.salesforce_object.clone(),
            reviews,
            refused,
        });
    }
    let open = if no_state { Vec::new() } else { runs.open_runs().await? };
    for (run_id, _) in open {
        let Some(run) = runs.get(&run_id).await?.filter(|run| run.outcome.is_none()) else { continue };
        let source = hubferry::objects::Location::new(&run.source.bucket, &run.source.key);
        open_runs.push(OpenRun {
            reachable: app.reaches(&run),
            job: run.job,
            name: run.name,
            source: source.to_string(),
            started_at: run.started_at,
            age_seconds: now.duration_since(run.started_at).as_secs(),
            invocations: run.invocations,
            position: serde_json::from_str(&run.position).unwrap_or_default(),
            lease: Lease {
                held: run.lease_expires_at > now,
                owner: Some(run.owner).filter(|owner| !owner.is_empty()),
                expires_at: Some(run.lease_expires_at).filter(|end| *end > Timestamp::UNIX_EPOCH),
            },
            not_before: Some(run.not_before).filter(|until| *until > now),
            run_id,
        });
    }
    Ok(Status { at: now, state: state.to_owned(), imports, captures, syncs, open_runs })
}

impl Status {
    fn text(&self, colour: bool) -> String {
        let mut lines: Vec<String> = Vec::new();
        let heading = |lines: &mut Vec<String>, text: &str| {
            lines.push(if colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() });
        };
        for (kind, jobs) in [("import", &self.imports), ("capture", &self.captures)] {
            for job in jobs {
                heading(&mut lines, &format!("{kind} {}", job.name));
                self.job(&mut lines, job);
            }
        }
        for sync in &self.syncs {
            heading(&mut lines, &format!("sync {}", sync.job.name));
            self.job(&mut lines, &sync.job);
            for (count, name, option) in
                [(sync.reviews, "review      ", ""), (sync.refused, "refused     ", " --refused")]
            {
                if count > 0 {
                    let text =
                        format!("{}: hubferry review list{option} --sync {}", grouped(count as u64), sync.job.name);
                    lines.extend(wrap(&format!("  {name}"), &text, WIDTH));
                }
            }
        }
        if !self.open_runs.is_empty() {
            heading(&mut lines, "open runs");
        }
        for run in &self.open_runs {
            let age = age(run.age_seconds);
            lines.push(format!("  {}  {} {}, begun {age} ago", run.run_id, run.job, run.name));
            lines.extend(wrap("    source    ", &run.source, WIDTH));
            lines.extend(wrap("    position  ", &position(&run.position), WIDTH));
            let held = match (&run.lease.owner, run.lease.held, run.not_before) {
                (Some(owner), true, _) => format!("held by {owner}"),
                (_, _, Some(until)) => format!("waits until {until}"),
                _ if !run.reachable => "its file is on another machine, or gone".to_owned(),
                _ => "nobody works on it; `hubferry resume` goes on".to_owned(),
            };
            lines.extend(wrap("    lease     ", &held, WIDTH));
        }
        lines.extend(wrap("state         ", &self.state, WIDTH));
        lines.push(String::new());
        lines.join("\n")
    }

    fn job(&self, lines: &mut Vec<String>, job: &Job) {
        let Some(last) = &job.last_run else {
            lines.push("  never ran".to_owned());
            return;
        };
        let since = |run: &LastRun| age(self.at.duration_since(run.finished_at).as_secs());
        let error = last.error_code.as_ref().map(|code| format!(", {code}")).unwrap_or_default();
        lines.push(format!("  last run    {}  {}{error}, {} ago", last.run_id, last.outcome.as_str(), since(last)));
        if let Position::File(_) = last.position {
            lines.extend(wrap("  source      ", &last.source, WIDTH));
            let rows = &last.rows;
            let counts = [
                (rows.created, "created"),
                (rows.updated, "updated"),
                (rows.unchanged, "unchanged"),
                (rows.merged, "merged"),
                (rows.rejected, "rejected"),
                (rows.deferred, "deferred"),
            ];
            let counts = counts.into_iter().filter(|(count, _)| *count > 0);
            let counts: Vec<String> = counts.map(|(count, word)| format!("{} {word}", grouped(count))).collect();
            let of = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
            lines.extend(wrap("  rows        ", &format!("{}{of}", grouped(rows.read)), WIDTH));
        }
        match &job.last_successful_run {
            None => lines.push("  last good   none".to_owned()),
            Some(good) if good.run_id != last.run_id => {
                lines.push(format!("  last good   {}  {} ago", good.run_id, since(good)));
            }
            Some(_) => {}
        }
        if let Some(at) = &job.position {
            lines.extend(wrap("  position    ", &position(at), WIDTH));
        }
    }
}

/// A position for people.
fn position(position: &Value) -> String {
    let text = |name: &str| position.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| position.get(name).and_then(Value::as_u64).unwrap_or_default();
    if let (Some(salesforce), Some(hubspot)) = (
        position.get("salesforceTimestamp").and_then(Value::as_str),
        position.get("hubspotTimestamp").and_then(Value::as_str),
    ) {
        let [salesforce, hubspot] = [salesforce, hubspot].map(|at| match at.parse::<Timestamp>() {
            Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            Err(_) => at.to_owned(),
        });
        return format!("Salesforce's changes to {salesforce}, HubSpot's to {hubspot}");
    }
    match (text("mode"), position.get("byte")) {
        ("snapshot", _) => format!("snapshot, to id {}", text("itemId")),
        ("cdc", _) => format!("changes before {} are captured", text("timestamp")),
        (_, Some(_)) => format!("line {}, byte {}", grouped(number("line")), grouped(number("byte"))),
        _ => "at the start".to_owned(),
    }
}

pub(crate) fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_ages_read_well() {
        assert_eq!(age(-3), "0 s");
        assert_eq!(
            (age(119), age(120), age(7_300), age(200_000)),
            ("119 s".into(), "2 min".into(), "2 h".into(), "2 days".into())
        );
        let shown = |json: &str| position(&serde_json::from_str(json).unwrap());
        assert_eq!(shown(r#"{"byte":12345,"line":101}"#), "line 101, byte 12,345");
        assert_eq!(shown("null"), "at the start");
        assert_eq!(shown(r#"{"salesforceTimestamp":null,"hubspotTimestamp":null}"#), "at the start");
        assert_eq!(
            shown(r#"{"salesforceTimestamp":"2026-11-22T09:00:00Z","hubspotTimestamp":"2026-11-22T09:00:01Z"}"#),
            "Salesforce's changes to 2026-11-22T09:00:00Z, HubSpot's to 2026-11-22T09:00:01Z"
        );
        assert_eq!(shown(r#"{"mode":"snapshot","itemId":"7"}"#), "snapshot, to id 7");
    }
}
