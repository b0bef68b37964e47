//! `hubferry capture NAME`: the capture job from here, and the check of what it wrote.

mod compare;
pub(crate) mod show;
mod stored;
mod verify;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    rc::Rc,
};

use anyhow::{Result, bail};
use hubferry::{Error, app::Update, capture, codes, config::Capture};

use self::{show::Page, verify::Wish};
use crate::{
    DONE, DRIFT, USAGE,
    doors::{self, Use},
    text, turns,
    watch::Watch,
};

/// The state of a capture does not fit a smaller question.
const SAMPLE_MAX: u64 = 100_000;

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The capture, as the settings name it.
    name: String,
    #[command(flatten)]
    place: doors::Place,
    /// Compare what was captured with HubSpot, and write nothing.
    #[arg(long, conflicts_with_all = ["restart", "yes"])]
    verify: bool,
    /// With --verify: list every id, and name what is missing or spare (a call for 100 records).
    #[arg(long, requires = "verify")]
    full: bool,
    /// With --verify: records whose values are compared.
    #[arg(long, requires = "verify", default_value_t = 1_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(0..=SAMPLE_MAX))]
    sample: u64,
    /// With --verify: show the values that differ, not only the names of their properties.
    #[arg(long, requires = "verify")]
    values: bool,
    /// Forget the position: begin anew, with a snapshot where the settings want one.
    #[arg(long)]
    restart: bool,
    /// With --restart: do not ask.
    #[arg(long, requires = "restart")]
    yes: bool,
    /// Print one line of JSON: the report; with --verify what was found.
    #[arg(long)]
    json: bool,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

async fn work(options: &Options) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let watcher = watch.clone();
    let told = move |update: &Update| {
        if let Update::Capture(update) = update {
            watcher.update(update);
        }
    };
    let wish = if options.verify { Use::Check } else { Use::Work };
    let doors = doors::open(&options.place, wish, Some(Rc::new(told))).await?;
    let capture = named(&doors, &options.name)?;
    let result = if options.verify {
        check(&doors, capture, options, &watch).await
    } else if options.restart && !forget(&doors, capture, options.yes).await? {
        return Ok(USAGE);
    } else {
        Box::pin(job(&doors, capture, options, &watch)).await
    };
    watch.clear();
    result
}

fn named<'a>(doors: &'a doors::Doors, name: &str) -> Result<&'a Capture> {
    let captures = &doors.app.config().captures;
    let found = captures.iter().find(|capture| capture.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = captures.iter().map(|capture| capture.name.as_str()).collect();
        let message = match names.as_slice() {
            [] => format!("the settings have no capture `{name}`, nor any other"),
            names => format!("the settings have no capture `{name}`; they have {}", names.join(", ")),
        };
        Error::invalid(codes::NAME_UNKNOWN, message).into()
    })
}

/// Works on the run to its end, and shows the report.
async fn job(doors: &doors::Doors, capture: &Capture, options: &Options, watch: &Watch) -> Result<u8> {
    let turn = async |deadline, owner: String| {
        Box::pin(capture::on_schedule(&doors.app, Some(&capture.name), deadline, &owner)).await
    };
    let report = Box::pin(turns::to_the_end(&doors.app, watch, turn)).await?;
    watch.clear();
    if options.json {
        text::json_line(&serde_json::to_value(&report)?)?;
    } else {
        let mut page = Page::new(text::has_colour());
        page.report(&report, &doors.state);
        text::print(&page.end())?;
    }
    Ok(turns::exit_code(report.outcome))
}

/// Forgets the position, once that was confirmed. `false`: it was not.
async fn forget(doors: &doors::Doors, capture: &Capture, yes: bool) -> Result<bool> {
    let name = &capture.name;
    let stderr = io::stderr();
    if !yes {
        if !io::stdin().is_terminal() {
            writeln!(
                &stderr,
                "hubferry: --restart forgets the position of capture `{name}`; add --yes where nobody can be asked"
            )?;
            return Ok(false);
        }
        write!(&stderr, "Forget the position of capture `{name}` and begin anew? [y/N] ")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            writeln!(&stderr, "Nothing was done.")?;
            return Ok(false);
        }
    }
    if doors.app.runs().stream("capture", name).await?.is_some() && !doors.app.runs().forget("capture", name).await? {
        bail!(
            "a run of capture `{name}` is open: `hubferry capture {name}` brings it to its end, then --restart can follow"
        );
    }
    writeln!(
        &stderr,
        "The position is forgotten. What was written stays under {}:\nempty it where consumers apply all of it, since deletes of the time between are not told.",
        capture.output
    )?;
    Ok(true)
}

/// Compares, and shows what was found.
async fn check(doors: &doors::Doors, capture: &Capture, options: &Options, watch: &Watch) -> Result<u8> {
    if doors.no_state {
        let message = format!("capture `{}` has no position here: there is no {}", capture.name, doors.state);
        let hint = "Run `hubferry capture NAME` first, or name its table in HUBFERRY_TABLE.";
        return Err(Error::invalid(codes::NAME_UNKNOWN, message).with_hint(hint).into());
    }
    let wish = Wish {
        sample: usize::try_from(options.sample).unwrap_or_default(),
        full: options.full,
        values: options.values,
    };
    let drift = Box::pin(verify::run(&doors.app, capture, wish, watch)).await?;
    if options.json {
        text::json_line(&serde_json::to_value(&drift)?)?;
    } else {
        let mut page = Page::new(text::has_colour());
        page.drift(&drift);
        text::print(&page.end())?;
    }
    Ok(if drift.verdict == "none" { DONE } else { DRIFT })
}
