//! `hubferry apply`: a plan, exactly. `hubferry undo`: a run's before-images, put back as carefully.

use std::{fs, rc::Rc};

use anyhow::{Context as _, Result};
use hubferry::{
    Error, ErrorKind, app::Answer, clock::Deadline, codes, event::SourceObject, import::plan, objects::Location,
};

use crate::{
    doors::{self, Doors, Use},
    import::{show_with, watcher},
    plan::{Output, Written, tell},
    summary::Words,
    text, turns,
    watch::Watch,
};

/// Where the function keeps working files, and may read.
const WORKING_FOLDER: &str = "state/import/";
/// Of a ULID.
const RUN_ID_CHARS: usize = 26;
/// Bytes of a plan that are copied at once.
const PIECE_BYTES: u64 = 8 * 1024 * 1024;

/// What `hubferry apply` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The plan: a path of this machine, or s3://bucket/key.
    plan: String,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON: the report.
    #[arg(long)]
    json: bool,
}

/// What `hubferry undo` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UndoOptions {
    /// The run: of an import with `before_images: true`, of an apply, or of an undo.
    run: String,
    /// Keep the records that the run made.
    #[arg(long)]
    keep_created: bool,
    /// Show what would be done now; nothing is written.
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON: the report; with --plan `{"plan","header","totals"}`.
    #[arg(long)]
    json: bool,
}

/// Runs `hubferry apply`; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

/// Runs `hubferry undo`; returns the exit code.
pub(crate) fn undo(options: &UndoOptions) -> Result<u8> {
    turns::command(options.json, take_back(options))
}

async fn work(options: &Options) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let doors = doors::open(&options.place, Use::Work, Some(watcher(&watch))).await?;
    let given = source(&doors, &options.plan)?;
    let source = within_reach(&doors, given).await?;
    let turn = async |deadline: Deadline, owner: String| -> hubferry::Result<Answer> {
        Box::pin(plan::apply(&doors.app, &source, deadline, &owner)).await
    };
    let report = Box::pin(turns::to_the_end(&doors.app, &watch, turn)).await;
    watch.clear();
    let report = report?;
    if options.json {
        text::json_line(&serde_json::to_value(&report)?)?;
    } else {
        show_with(&doors, &report, "The same command goes on from there.", &Words::of_plan()).await?;
        undo_hint(report.run_id.as_deref(), report.rows.created + report.rows.updated)?;
    }
    Ok(turns::exit_code(report.outcome))
}

fn undo_hint(run_id: Option<&str>, written: u64) -> Result<()> {
    match run_id.filter(|_| written > 0) {
        Some(run_id) => text::print(&format!("  -> hubferry undo {run_id}    takes it back\n")),
        None => Ok(()),
    }
}

/// Where the plan is.
fn source(doors: &Doors, plan: &str) -> Result<SourceObject> {
    let (location, sequencer) = if plan.starts_with("s3://") {
        let location = Location::parse(plan).filter(|location| !location.key.is_empty());
        (location.with_context(|| format!("{plan} names no object: write s3://bucket/key"))?, None)
    } else {
        let file = fs::canonicalize(plan).map_err(|error| {
            let message = format!("{plan} cannot be read: {error}");
            Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, message).with_hint("Check the plan's path.")
        })?;
        let location =
            doors.files.file(&file).with_context(|| format!("{}: a name that is no text", file.display()))?;
        (location, None)
    };
    let (bucket, key) = (location.bucket, location.key);
    Ok(SourceObject { bucket, key, version_id: None, etag: None, size: None, sequencer, event_time: None })
}

/// A plan in S3, where the function can go on with it: its role reads the folder of working files and not any key. What lies elsewhere is copied there; the copy is
/// named by what is in it and stays, so that the same plan is the same run. A local file, or state of this machine, stays where it is.
async fn within_reach(doors: &Doors, given: SourceObject) -> Result<SourceObject> {
    let from = Location::new(&given.bucket, &given.key);
    if !doors.shared || from.is_local() || given.key.starts_with(WORKING_FOLDER) {
        return Ok(given);
    }
    let objects = &doors.app.env().objects;
    let plan = objects.head(&from, None).await?;
    // In the form of a run's id, where `hubferry erase` looks.
    let name: String =
        plan.etag.to_uppercase().chars().filter(char::is_ascii_alphanumeric).take(RUN_ID_CHARS).collect();
    let bucket = doors.settings_bucket.as_ref().unwrap_or(&given.bucket);
    let to = Location::new(bucket, format!("{WORKING_FOLDER}plans/{name:0>RUN_ID_CHARS$}/plan.jsonl"));
    if !objects.head(&to, None).await.is_ok_and(|copy| copy.size == plan.size) {
        let mut upload = objects.upload(&to, "application/x-ndjson").await?;
        let mut at = 0;
        while at < plan.size {
            let bytes = objects.read(&plan, at..plan.size.min(at + PIECE_BYTES)).await?;
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
            upload.write(&bytes).await?;
        }
        upload.finish().await?;
    }
    Ok(SourceObject { bucket: to.bucket, key: to.key, ..given })
}

async fn take_back(options: &UndoOptions) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let doors = doors::open(&options.place, Use::Work, Some(watcher(&watch))).await?;
    if doors.no_state {
        let message = format!("there is no run {} in {}", options.run, doors.state);
        return Err(Error::new(ErrorKind::NotFound, codes::NAME_UNKNOWN, message).into());
    }
    if options.plan {
        let written = Written::begin(&options.output, &format!("undo-{}", plain(&options.run)))?;
        let planning = Box::pin(plan::plan_undo(&doors.app, &options.run, options.keep_created, written.sink()));
        let totals = turns::stoppable(doors.app.env(), &watch, planning).await;
        watch.clear();
        let totals = totals??;
        let (path, summary) = written.finish(&totals)?;
        return tell(options.json, path.as_deref(), &options.output, &summary, &totals, "undo");
    }
    let turn = async |deadline: Deadline, owner: String| -> hubferry::Result<Answer> {
        Box::pin(plan::undo(&doors.app, &options.run, options.keep_created, deadline, &owner)).await
    };
    let report = Box::pin(turns::to_the_end(&doors.app, &watch, turn)).await;
    watch.clear();
    let report = report?;
    if options.json {
        text::json_line(&serde_json::to_value(&report)?)?;
    } else {
        show_with(&doors, &report, "The same command goes on from there.", &Words::of_undo()).await?;
    }
    Ok(turns::exit_code(report.outcome))
}

/// An id that names no other place.
fn plain(run: &str) -> String {
    run.chars().filter(char::is_ascii_alphanumeric).collect()
}
