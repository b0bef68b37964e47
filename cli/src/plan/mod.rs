//! `hubferry plan`: what importing a file would do, record by record and field by field. Nothing is written but the plan.

pub(crate) mod show;
mod table;

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result};
use hubferry::{
    Error, codes,
    import::plan::{self, Line, Sink, Totals, format::Header},
};
use serde_json::json;

use self::show::Summary;
use crate::{
    DONE,
    doors::{self, Use},
    import::{Named, find, watcher},
    text, turns,
    watch::Watch,
};

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// JSON lines: what `hubferry apply` takes.
    Jsonl,
    /// One page for people.
    Html,
    /// One row per field, for a spreadsheet.
    Csv,
}

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    place: doors::Place,
    #[command(flatten)]
    output: Output,
    /// Print one line of JSON: `{"plan","header","totals"}`.
    #[arg(long)]
    json: bool,
}

/// Where a plan goes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Output {
    /// Where the plan goes; `-` is standard output [default: NAME.plan.jsonl in this folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<String>,
    /// How it is written; only jsonl can be applied.
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(crate) format: Format,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

async fn work(options: &Options) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let doors = doors::open(&options.place, Use::Check, Some(watcher(&watch))).await?;
    let (import, source) = find(&doors, &options.named)?;
    watch.set_account(doors.app.account(&import.hubspot)?);
    let stem = Path::new(&options.named.file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("import").to_owned();
    let written = Written::begin(&options.output, &stem)?;
    let planning = plan::plan(&doors.app, import, &source, written.sink());
    let totals = turns::stoppable(doors.app.env(), &watch, planning).await;
    watch.clear();
    let totals = totals??;
    let (path, summary) = written.finish(&totals)?;
    tell(options.json, path.as_deref(), &options.output, &summary, &totals, "apply")
}

/// Says what was planned.
pub(crate) fn tell(
    as_json: bool,
    path: Option<&str>,
    output: &Output,
    summary: &Summary,
    totals: &Totals,
    next: &str,
) -> Result<u8> {
    if as_json {
        text::json_line(&json!({ "plan": path, "header": summary.header, "totals": totals }))?;
    } else if let Some(path) = path {
        let mut lines = summary.lines(totals, text::has_colour());
        lines.push(String::new());
        lines.extend(text::wrap("  plan      ", path, text::WIDTH));
        if output.format == Format::Jsonl && totals.changes() + totals.associations > 0 && next == "apply" {
            lines.push(format!("  -> hubferry apply {path}"));
        }
        lines.push(String::new());
        text::print(&lines.join("\n"))?;
    }
    Ok(DONE)
}

/// A plan on its way to a file.
pub(crate) struct Written {
    state: Rc<RefCell<State>>,
    /// `None`: standard output.
    path: Option<PathBuf>,
}

struct State {
    out: Box<dyn Write>,
    format: Format,
    summary: Summary,
    table: table::Table,
}

impl Written {
    /// Begins a file beside the one that is meant, which appears when it is whole.
    pub(crate) fn begin(output: &Output, stem: &str) -> Result<Self> {
        let ending = match output.format {
            Format::Jsonl => "jsonl",
            Format::Html => "html",
            Format::Csv => "csv",
        };
        let path = match output.out.as_deref() {
            Some("-") => None,
            Some(path) => Some(PathBuf::from(path)),
            None => Some(PathBuf::from(format!("{stem}.plan.{ending}"))),
        };
        let out: Box<dyn Write> = match &path {
            Some(path) => {
                let part = part_of(path);
                let file = File::create(&part).with_context(|| format!("{} cannot be written", part.display()))?;
                Box::new(BufWriter::new(file))
            }
            None => Box::new(std::io::stdout()),
        };
        let state = State { out, format: output.format, summary: Summary::default(), table: table::Table::default() };
        Ok(Self { state: Rc::new(RefCell::new(state)), path })
    }

    /// What takes the lines.
    pub(crate) fn sink(&self) -> Sink {
        let state = self.state.clone();
        Box::new(move |line: &Line| {
            let state = &mut *state.borrow_mut();
            let written = match state.format {
                Format::Jsonl => line.text()?,
                Format::Csv => table::csv(line),
                Format::Html => {
                    state.table.add(line);
                    String::new()
                }
            };
            state.summary.add(line);
            state.out.write_all(written.as_bytes()).map_err(|error| {
                Error::invalid(codes::PLAN_INVALID, format!("the plan cannot be written: {error}"))
                    .with_hint("Make room on the disk, or write it elsewhere: --out FILE.")
            })
        })
    }

    /// Ends the file; where it is, and what people are told.
    pub(crate) fn finish(self, totals: &Totals) -> Result<(Option<String>, Summary)> {
        let mut state = self.state.borrow_mut();
        if state.format == Format::Html {
            let page = state.table.page(&state.summary, totals);
            state.out.write_all(page.as_bytes())?;
        }
        state.out.flush()?;
        let summary = std::mem::take(&mut state.summary);
        drop(state);
        let Some(path) = &self.path else { return Ok((None, summary)) };
        fs::rename(part_of(path), path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok((Some(path.display().to_string()), summary))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Of a plan that was not finished nothing is left; of one that was, it is gone already.
            let _ = fs::remove_file(part_of(path));
        }
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// The heading of a plan.
pub(crate) fn heading(header: &Header) -> String {
    match &header.source.run_id {
        Some(run_id) => format!("undo of run {run_id}, import {}", header.import),
        None => format!("plan of import {}: {}", header.import, header.source.uri),
    }
}
