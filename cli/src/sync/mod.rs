//! `hubferry sync`: Salesforce and HubSpot in step, from here; what that would write; and what it needs.

mod plan;
mod setup;
pub(crate) mod show;

use std::{path::PathBuf, rc::Rc};

use anyhow::Result;
use hubferry::{
    Error,
    app::{App, Update},
    codes,
    config::Sync,
    report::{Outcome, Report},
    sync,
};
use serde_json::{Value, json};

use crate::{
    DONE, FAILED, SAVED,
    doors::{self, Doors, Use},
    text, turns,
    watch::Watch,
};

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The sync, as the settings name it [default: all of them, accounts and companies first].
    #[arg(required_if_eq_any([("plan", "true"), ("setup", "true")]))]
    name: Option<String>,
    #[command(flatten)]
    place: doors::Place,
    /// Show what a run would do and why; write nothing.
    #[arg(long, conflicts_with_all = ["setup", "create"])]
    plan: bool,
    /// With --plan: write the records to this file, one line of JSON each; only the totals are shown.
    #[arg(long, requires = "plan", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Say which fields the sync needs on both sides, and whether the mapping fits.
    #[arg(long)]
    setup: bool,
    /// With --setup: make the HubSpot property if it is missing.
    #[arg(long, requires = "setup")]
    create: bool,
    /// Print JSON: one line with the report (of all syncs `{"reports":[…],"failed":[…]}`), or with what --setup found; with --plan a line for each
    /// record, and one with the totals.
    #[arg(long)]
    json: bool,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

async fn work(options: &Options) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let wish = if options.plan || options.setup { Use::Check } else { Use::Work };
    let doors = doors::open(&options.place, wish, Some(watcher(&watch))).await?;
    let result = match &options.name {
        Some(name) => {
            let sync = named(&doors.app, name)?;
            if options.plan {
                plan::run(&doors, sync, options, &watch).await
            } else if options.setup {
                setup::run(&doors, sync, options, &watch).await
            } else {
                one(&doors, sync, options, &watch).await
            }
        }
        None => all(&doors, options, &watch).await,
    };
    watch.clear();
    result
}

fn watcher(watch: &Rc<Watch>) -> hubferry::app::Watcher {
    let watch = watch.clone();
    Rc::new(move |update: &Update| {
        if let Update::Sync(update) = update {
            watch.sync(update);
        }
    })
}

/// The sync of this name.
///
/// # Errors
/// `NAME_UNKNOWN`.
pub(crate) fn named<'a>(app: &'a App, name: &str) -> Result<&'a Sync> {
    let syncs = &app.config().syncs;
    let found = syncs.iter().find(|sync| sync.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = syncs.iter().map(|sync| sync.name.as_str()).collect();
        let message = match names.as_slice() {
            [] => format!("the settings have no sync `{name}`, nor any other"),
            names => format!("the settings have no sync `{name}`; they have {}", names.join(", ")),
        };
        Error::invalid(codes::NAME_UNKNOWN, message).into()
    })
}

/// Works on a sync's run to its end.
async fn to_the_end(doors: &Doors, sync: &Sync, watch: &Watch) -> Result<Report> {
    let turn = async |deadline, owner: String| {
        Box::pin(sync::on_schedule(&doors.app, Some(&sync.name), deadline, &owner)).await
    };
    let report = Box::pin(turns::to_the_end(&doors.app, watch, turn)).await;
    watch.clear();
    report
}

async fn one(doors: &Doors, sync: &Sync, options: &Options, watch: &Watch) -> Result<u8> {
    let report = to_the_end(doors, sync, watch).await?;
    if options.json {
        text::json_line(&serde_json::to_value(&report)?)?;
    } else {
        text::print(&show::report(&report, &doors.state, text::has_colour()))?;
    }
    Ok(turns::exit_code(report.outcome))
}

/// Every sync: one that cannot go on does not keep the others from it.
async fn all(doors: &Doors, options: &Options, watch: &Watch) -> Result<u8> {
    let mut syncs: Vec<&Sync> = doors.app.config().syncs.iter().collect();
    // Contacts find the companies of their accounts then.
    syncs.sort_by_key(|sync| !sync.salesforce_object.eq_ignore_ascii_case("Account"));
    if syncs.is_empty() {
        return Err(Error::invalid(codes::NAME_UNKNOWN, "the settings have no sync").into());
    }
    let (mut reports, mut failed, mut worst): (Vec<Value>, Vec<Value>, u8) = (Vec::new(), Vec::new(), DONE);
    for sync in syncs {
        let code = match to_the_end(doors, sync, watch).await {
            Ok(report) => {
                if options.json {
                    reports.push(serde_json::to_value(&report)?);
                } else {
                    text::print(&show::report(&report, &doors.state, text::has_colour()))?;
                }
                turns::exit_code(report.outcome)
            }
            Err(error) => {
                if options.json {
                    failed.push(json!({ "name": sync.name, "error": text::told(&error) }));
                } else {
                    let hint = error.downcast_ref::<Error>().map(|error| error.hint().to_owned());
                    watch.say(&show::failure(&sync.name, &format!("{error:#}"), hint.as_deref()));
                }
                FAILED
            }
        };
        worst = worse(worst, code);
        if doors.app.env().stop.get() {
            break;
        }
    }
    if options.json {
        text::json_line(&json!({ "reports": reports, "failed": failed }))?;
    }
    Ok(worst)
}

/// Failed is worse than saved, and that than done.
fn worse(one: u8, other: u8) -> u8 {
    let rank = |code| match code {
        DONE => 0,
        SAVED => 1,
        _ => 2,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// What a run's outcome means for a person; none where it needs no word.
pub(crate) fn outlook(report: &Report) -> Option<String> {
    match report.outcome {
        Outcome::Yielded => Some(format!("Saved. `hubferry sync {}` goes on from there.", report.name)),
        Outcome::Busy => Some("Another process holds the run; nothing was written by this one.".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_outcomes_is_the_exit_code() {
        assert_eq!([SAVED, DONE].into_iter().fold(DONE, worse), SAVED);
        assert_eq!([SAVED, FAILED, DONE].into_iter().fold(DONE, worse), FAILED);
    }
}
