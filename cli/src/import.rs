//! `hubferry import`: a file of this machine, or an object, from here to its end. `hubferry resume`: the same for what was left open.

use std::{
    fs,
    path::{Component, Path},
    rc::Rc,
};

use anyhow::{Context as _, Result};
use hubferry::{
    Error, ErrorKind,
    app::{Answer, App, Update},
    clock::Deadline,
    codes,
    config::Import,
    event::SourceObject,
    import::as_import,
    objects::{Location, Objects as _},
    report::{Outcome, Report},
    state::runs::Run,
};
use serde_json::json;

use crate::{
    DONE, FAILED, SAVED, capture,
    doors::{self, Doors, Use},
    summary, sync, text, turns,
    watch::Watch,
};

/// How much of a rejects file is read to show the first reject of each code.
const REJECTS_SHOWN_BYTES: u64 = 4 * 1024 * 1024;

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON: the report.
    #[arg(long)]
    json: bool,
}

/// A file and its import.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Named {
    /// The file: a path of this machine, or s3://bucket/key.
    pub(crate) file: String,
    /// The import, as the settings name it [default: the one whose `match` takes the file's path].
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// What `hubferry resume` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ResumeOptions {
    /// The run; without one, every run that was cut off and that nobody holds.
    run: Option<String>,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON: the run's report; without RUN `{"reports":[…],"left":[{"run_id","why"}…]}`.
    #[arg(long)]
    json: bool,
}

/// Runs `hubferry import`; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

/// Runs `hubferry resume`; returns the exit code.
pub(crate) fn resume(options: &ResumeOptions) -> Result<u8> {
    turns::command(options.json, continue_runs(options))
}

async fn work(options: &Options) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let doors = doors::open(&options.place, Use::Work, Some(watcher(&watch))).await?;
    let (import, source) = find(&doors, &options.named)?;
    watch.set_account(doors.app.account(&import.hubspot)?);
    let turn = async |deadline: Deadline, owner: String| {
        Box::pin(as_import(&doors.app, import, &source, deadline, &owner)).await
    };
    let report = Box::pin(turns::to_the_end(&doors.app, &watch, turn)).await;
    watch.clear();
    let report = report?;
    if options.json {
        text::json_line(&serde_json::to_value(&report)?)?;
    } else {
        show(&doors, &report, "The same command goes on from there.").await?;
    }
    Ok(turns::exit_code(report.outcome))
}

/// Shows what any job's run tells.
pub(crate) fn watcher(watch: &Rc<Watch>) -> hubferry::app::Watcher {
    let watch = watch.clone();
    Rc::new(move |update: &Update| match update {
        Update::Import(update) => watch.import(update),
        Update::Capture(update) => watch.update(update),
        Update::Sync(update) => watch.sync(update),
    })
}

/// Which import, and what it is to read.
pub(crate) fn find<'a>(doors: &'a Doors, options: &Named) -> Result<(&'a Import, SourceObject)> {
    let object = |location: Location, sequencer| SourceObject {
        bucket: location.bucket,
        key: location.key,
        version_id: None,
        etag: None,
        size: None,
        sequencer,
        event_time: None,
    };
    let named = options.name.as_deref().map(|name| named(&doors.app, name)).transpose()?;
    if options.file.starts_with("s3://") {
        let location = Location::parse(&options.file).filter(|location| !location.key.is_empty());
        let location = location.with_context(|| format!("{} names no object: write s3://bucket/key", options.file))?;
        let import = match named {
            Some(import) => import,
            None => doors.app.import_for(&location.key)?.ok_or_else(|| unmatched(&doors.app, &options.file))?,
        };
        return Ok((import, object(location, None)));
    }
    let path = Path::new(&options.file);
    let file = fs::canonicalize(path).map_err(|error| {
        let message = format!("{} cannot be read: {error}", options.file);
        Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, message).with_hint("Check the file's path.")
    })?;
    let location = doors.files.file(&file).with_context(|| format!("{}: a name that is no text", file.display()))?;
    let import = match named {
        Some(import) => import,
        None => {
            by_path(&doors.app, &std::path::absolute(path)?)?.ok_or_else(|| unmatched(&doors.app, &options.file))?
        }
    };
    // Each command is later than the ones before: a file that has an earlier content again is imported again.
    let now = doors.app.env().clock.now().as_millisecond();
    Ok((import, object(location, Some(format!("{:016X}", now.max(0))))))
}

/// The import whose `match` takes the longest end of the path, as if the bucket began at one of the folders above the file.
fn by_path<'a>(app: &'a App, path: &Path) -> Result<Option<&'a Import>> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    for from in 0..parts.len() {
        if let Some(import) = app.import_for(&parts.get(from..).unwrap_or_default().join("/"))? {
            return Ok(Some(import));
        }
    }
    Ok(None)
}

fn named<'a>(app: &'a App, name: &str) -> Result<&'a Import> {
    let found = app.config().imports.iter().find(|import| import.name == name);
    found.ok_or_else(|| {
        let message = format!("the settings have no import `{name}`; they have {}", names(app));
        Error::invalid(codes::NAME_UNKNOWN, message).into()
    })
}

fn unmatched(app: &App, file: &str) -> Error {
    let message = format!("no import's `match` takes {file}; the settings have {}", names(app));
    Error::invalid(codes::NAME_UNKNOWN, message).with_hint("Name the import: --as NAME.")
}

fn names(app: &App) -> String {
    let names: Vec<&str> = app.config().imports.iter().map(|import| import.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The report for people. `next` is said of a run that is not at its end.
async fn show(doors: &Doors, report: &Report, next: &str) -> Result<()> {
    let words = match report.job.as_str() {
        "undo" => summary::Words::of_undo(),
        _ => summary::Words::of_import("records"),
    };
    show_with(doors, report, next, &words).await
}

/// As [`show`], in these words.
pub(crate) async fn show_with(doors: &Doors, report: &Report, next: &str, words: &summary::Words) -> Result<()> {
    if report.job == "capture" {
        let mut page = capture::show::Page::new(text::has_colour());
        page.report(report, &doors.state);
        return text::print(&page.end());
    }
    if report.job == "sync" {
        return text::print(&sync::show::report(report, &doors.state, text::has_colour()));
    }
    let heading = format!("{} {}: {}", report.job, report.name, report.source.uri);
    let mut lines = vec![match text::has_colour() {
        true => format!("\x1b[1m{heading}\x1b[0m"),
        false => heading,
    }];
    lines.extend(summary::report_lines_with(report, words));
    if let Some(rejects) = &report.rejects {
        let first = first_rejects(doors, rejects).await;
        lines.push(String::new());
        lines.push(format!("  rejects   {rejects}"));
        lines.extend(summary::reject_lines(&first, report));
    }
    lines.push(String::new());
    if let Some(run_id) = &report.run_id {
        lines.push(format!("  run       {run_id}"));
    }
    lines.extend(text::wrap("  state     ", &doors.state, text::WIDTH));
    for note in &report.notes {
        lines.extend(summary::wrapped("  note      ", note));
    }
    match report.outcome {
        Outcome::Duplicate => lines.extend(summary::wrapped(
            "  -> ",
            "This was done before, by the run above; nothing was written. What was counted then is shown.",
        )),
        Outcome::Yielded => lines.extend(summary::wrapped("  -> ", &format!("Saved. {next}"))),
        Outcome::Busy => lines.extend(summary::wrapped("  -> ", "Another process holds the run; nothing was written.")),
        _ => {}
    }
    lines.push(String::new());
    text::print(&lines.join("\n"))
}

/// The first reject of each code in the beginning of the rejects file. None where it cannot be read: it is named in any case.
async fn first_rejects(doors: &Doors, shown: &str) -> Vec<summary::Reject> {
    let Some(location) = doors.files.shown_as(shown) else { return Vec::new() };
    let Ok(object) = doors.files.head(&location, None).await else { return Vec::new() };
    let end = object.size.min(REJECTS_SHOWN_BYTES);
    let Ok(bytes) = doors.files.read(&object, 0..end).await else { return Vec::new() };
    let mut whole: &[u8] = &bytes;
    if end < object.size {
        let last = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or_default();
        whole = bytes.get(..last).unwrap_or_default();
    }
    summary::first_of_each(&String::from_utf8_lossy(whole))
}

async fn continue_runs(options: &ResumeOptions) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let doors = doors::open(&options.place, Use::Work, Some(watcher(&watch))).await?;
    if let Some(run_id) = &options.run {
        let Some(run) = doors.app.runs().get(run_id).await? else {
            let message = format!("there is no run {run_id} in {}", doors.state);
            return Err(Error::new(ErrorKind::NotFound, codes::NAME_UNKNOWN, message).into());
        };
        let report = continue_run(&doors, &watch, &run).await?;
        if options.json {
            text::json_line(&serde_json::to_value(&report)?)?;
        } else {
            show(&doors, &report, "`hubferry resume` goes on from there.").await?;
        }
        return Ok(turns::exit_code(report.outcome));
    }
    let (mut reports, mut left) = (Vec::new(), Vec::new());
    for (run_id, is_old) in doors.app.runs().open_runs().await? {
        let run = match doors.app.runs().get(&run_id).await? {
            Some(run) if run.outcome.is_none() => run,
            None if !is_old => continue,
            // What a process that died left behind.
            _ => {
                doors.app.runs().close(&run_id).await?;
                continue;
            }
        };
        let now = doors.app.env().clock.now();
        let why = if run.lease_expires_at > now {
            Some("another process holds it, or was killed a moment ago".to_owned())
        } else if run.not_before > now {
            Some(format!("it has to wait until {}", run.not_before))
        } else if !doors.app.reaches(&run) {
            Some("its file is on another machine, or gone".to_owned())
        } else if doors.app.env().stop.get() {
            Some("stopped by Ctrl-C".to_owned())
        } else {
            None
        };
        if let Some(why) = why {
            left.push((run_id, why));
            continue;
        }
        match continue_run(&doors, &watch, &run).await {
            Ok(report) => reports.push(report),
            // One run that cannot go on does not keep the others from it.
            Err(error) => left.push((run_id, format!("{error:#}"))),
        }
    }
    if options.json {
        let left: Vec<_> = left.iter().map(|(run_id, why)| json!({ "run_id": run_id, "why": why })).collect();
        text::json_line(&json!({ "reports": reports, "left": left }))?;
    } else {
        for report in &reports {
            show(&doors, report, "`hubferry resume` goes on from there.").await?;
        }
        for (run_id, why) in &left {
            text::print(&format!("{}\n", summary::wrapped(&format!("  {run_id} left: "), why).join("\n")))?;
        }
        if reports.is_empty() && left.is_empty() {
            text::print("No run waits to be continued.\n")?;
        }
    }
    let codes = reports.iter().map(|report| turns::exit_code(report.outcome));
    let worst = codes.chain((!left.is_empty()).then_some(SAVED));
    Ok(worst.reduce(|one, other| if one == FAILED || other == DONE { one } else { other }).unwrap_or(DONE))
}

async fn continue_run(doors: &Doors, watch: &Watch, run: &Run) -> Result<Report> {
    let turn = async |deadline: Deadline, owner: String| -> hubferry::Result<Answer> {
        let event = json!({ "job": "resume", "run_id": run.run_id });
        Box::pin(doors.app.handle(event, deadline, &owner)).await
    };
    let import = doors.app.config().imports.iter().find(|import| import.name == run.name);
    if let Some(import) = import.filter(|_| run.job == "import") {
        watch.set_account(doors.app.account(&import.hubspot)?);
    }
    let report = Box::pin(turns::to_the_end(&doors.app, watch, turn)).await;
    watch.clear();
    report
}
