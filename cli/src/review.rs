//! `hubferry review`: what a sync leaves to a person; listed, shown, resolved.

use std::rc::Rc;

use anyhow::Result;
use hubferry::{
    app::Update,
    report::Report,
    sync::{
        model::{Canon, Choice, Refused, Review, ReviewKind, Side},
        resolve::{self, Resolved},
    },
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    DONE, FAILED, SAVED,
    doors::{self, Doors, Use},
    status::age,
    sync,
    text::{self, WIDTH, clip, grouped, wrap},
    turns,
    watch::Watch,
};

/// Reviews, or refused records, that are listed for people; `--json` has all of them.
const SHOWN_MAX: usize = 200;
/// The longest part of a value in the list.
const LISTED_CHARS: usize = 30;
/// The longest part of a value where one review is shown.
const SHOWN_CHARS: usize = 2_000;

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// List what waits for a person, oldest first; or what one of the two systems refused.
    #[command(after_help = "Examples:\n  hubferry review list\n  hubferry review list --sync people --json\n  \
                            hubferry review list --refused")]
    List(List),
    /// Show one of them: both values, what they were when both were in step, and what can be chosen.
    #[command(after_help = "Example:\n  hubferry review show k3f9x2m7qa")]
    Show(Show),
    /// Decide. It is carried out at once, if both sides still hold what was shown; else the review stays open with the new values.
    #[command(
        after_help = "Examples:\n  hubferry review resolve k3f9x2m7qa --choose salesforce     Salesforce's value, or record, holds\n  \
                            hubferry review resolve k3f9x2m7qa --choose '+1 555 010 0199'\n  \
                            hubferry review resolve k3f9x2m7qa --choose 003Ws00000AbCdE  this record is the counterpart\n  \
                            hubferry review resolve k3f9x2m7qa --choose keep           leave both, for good\n  \
                            hubferry review resolve k3f9x2m7qa --value hubspot         a value that is one of the words\n  \
                            hubferry review resolve k3f9x2m7qa --value ''              blank"
    )]
    Resolve(Resolve),
}

#[derive(Debug, Clone, clap::Args)]
struct List {
    /// Of this sync only.
    #[arg(long, value_name = "NAME")]
    sync: Option<String>,
    /// Records and fields that one of the two systems will not take, instead: they wait for a correction, not for a decision.
    #[arg(long)]
    refused: bool,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON: a list; README.md has its shape, which is stable.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct Show {
    /// The review.
    id: String,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON: as in the list.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct Resolve {
    /// The review.
    id: String,
    /// salesforce or hubspot: as it is there. keep: leave both. Anything else: this value, or the id of the record that is the counterpart.
    #[arg(
        long,
        value_name = "salesforce|hubspot|keep|VALUE",
        required_unless_present = "value",
        allow_hyphen_values = true
    )]
    choose: Option<String>,
    /// This value, whatever it is; empty for blank.
    #[arg(long, value_name = "VALUE", conflicts_with = "choose", allow_hyphen_values = true)]
    value: Option<String>,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON: `{"id","state":"applied|open|waiting","review","why","run_id"}`.
    #[arg(long)]
    json: bool,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    match &options.command {
        Command::List(options) => turns::command(options.json, list(options)),
        Command::Show(options) => turns::command(options.json, show(options)),
        Command::Resolve(options) => turns::command(options.json, decide(options)),
    }
}

async fn list(options: &List) -> Result<u8> {
    let doors = doors::open(&options.place, Use::Look, None).await?;
    if let Some(name) = &options.sync {
        sync::named(&doors.app, name)?;
    }
    let name = options.sync.as_deref();
    if options.refused {
        let refused = if doors.no_state { Vec::new() } else { resolve::refused(&doors.app, name).await? };
        if options.json {
            let told: Vec<Value> = refused.iter().map(|(sync, refused)| refused_json(sync, refused)).collect();
            text::json_line(&Value::Array(told))?;
        } else {
            text::print(&refused_text(&refused))?;
        }
        return Ok(DONE);
    }
    let reviews = if doors.no_state { Vec::new() } else { resolve::list(&doors.app, name).await? };
    if options.json {
        text::json_line(&serde_json::to_value(reviews.iter().map(Told::from).collect::<Vec<_>>())?)?;
    } else {
        text::print(&list_text(&reviews, doors.app.env().clock.now()))?;
    }
    Ok(DONE)
}

async fn show(options: &Show) -> Result<u8> {
    let doors = doors::open(&options.place, Use::Look, None).await?;
    let review = resolve::show(&doors.app, &options.id).await?;
    if options.json {
        text::json_line(&serde_json::to_value(Told::from(&review))?)?;
    } else {
        text::print(&review_text(&review, &doors, text::has_colour()))?;
    }
    Ok(DONE)
}

async fn decide(options: &Resolve) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let watcher = watch.clone();
    let told = move |update: &Update| {
        if let Update::Sync(update) = update {
            watcher.sync(update);
        }
    };
    let doors = doors::open(&options.place, Use::Work, Some(Rc::new(told))).await?;
    let choice = choice(options.choose.as_deref(), options.value.as_deref());
    let env = doors.app.env();
    let (deadline, owner) = turns::begin(env)?;
    let resolved =
        turns::stoppable(env, &watch, Box::pin(resolve::resolve(&doors.app, &options.id, choice, deadline, &owner)))
            .await;
    watch.clear();
    let resolved = resolved??;
    if options.json {
        text::json_line(&resolved_json(&options.id, &resolved)?)?;
    } else {
        text::print(&resolved_text(&resolved, &doors, text::has_colour()))?;
    }
    Ok(match resolved {
        Resolved::Applied(_) => DONE,
        Resolved::Open(..) => FAILED,
        Resolved::Waits(_) => SAVED,
    })
}

fn resolved_json(id: &str, resolved: &Resolved) -> Result<Value> {
    let (state, review, why, run_id) = match resolved {
        Resolved::Applied(report) => ("applied", None, &[][..], report.run_id.as_deref()),
        Resolved::Open(review, why) => ("open", Some(serde_json::to_value(Told::from(&**review))?), &**why, None),
        Resolved::Waits(run_id) => ("waiting", None, &[][..], Some(run_id.as_str())),
    };
    Ok(json!({ "id": id, "state": state, "review": review, "why": why, "run_id": run_id }))
}

fn resolved_text(resolved: &Resolved, doors: &Doors, colour: bool) -> String {
    let mut lines = Vec::new();
    match resolved {
        Resolved::Applied(report) => {
            lines.extend(wrap("Done: ", &written(report), WIDTH));
            lines.extend(report.notes.iter().flat_map(|note| wrap("  ", note, WIDTH)));
        }
        Resolved::Open(review, why) => {
            lines.push("It was not carried out, and is open again:".to_owned());
            lines.extend(why.iter().flat_map(|why| wrap("  ", why, WIDTH)));
            lines.push(String::new());
            lines.push(review_text(review, doors, colour));
        }
        Resolved::Waits(run_id) => {
            let text =
                format!("The decision is stored. Run {run_id} is at work; the sync carries it out when that is over.");
            lines.extend(wrap("", &text, WIDTH));
        }
    }
    let text = lines.join("\n");
    if text.ends_with('\n') { text } else { format!("{text}\n") }
}

/// What a run has written, in a sentence.
pub(crate) fn written(report: &Report) -> String {
    let Some(sync) = &report.sync else { return "nothing was written".to_owned() };
    let mut parts = Vec::new();
    for (writes, name) in [(&sync.hubspot, "HubSpot"), (&sync.salesforce, "Salesforce")] {
        for (count, word) in [(writes.created, "created"), (writes.updated, "updated"), (writes.deleted, "deleted")] {
            if count > 0 {
                parts.push(format!("{} {word} in {name}", grouped(count)));
            }
        }
    }
    if parts.is_empty() { "nothing was written now".to_owned() } else { parts.join(", ") }
}

/// What was decided.
fn choice(choose: Option<&str>, value: Option<&str>) -> Choice {
    match (choose, value) {
        (_, Some(value)) => Choice::Value(value.to_owned()),
        (Some("salesforce"), _) => Choice::Side(Side::Salesforce),
        (Some("hubspot"), _) => Choice::Side(Side::Hubspot),
        (Some("keep"), _) => Choice::Keep,
        (value, None) => Choice::Value(value.unwrap_or_default().to_owned()),
    }
}

/// A review as `--json` shows it: members are added, and none is renamed or dropped.
#[derive(Debug, Serialize)]
struct Told<'r> {
    id: &'r str,
    sync: &'r str,
    kind: ReviewKind,
    hubspot_id: Option<&'r str>,
    salesforce_id: Option<&'r str>,
    /// Of a field, HubSpot's and Salesforce's name for it.
    hubspot: Option<&'r str>,
    salesforce: Option<&'r str>,
    hubspot_value: Option<&'r str>,
    salesforce_value: Option<&'r str>,
    hubspot_before: Option<&'r str>,
    salesforce_before: Option<&'r str>,
    candidates: &'r [String],
    candidates_of: Option<Side>,
    deleted_in: Option<Side>,
    why: &'r str,
    opened_at: Timestamp,
    /// What was decided and not carried out yet: `salesforce`, `hubspot`, `keep` or `{"value":…}`.
    choice: Option<Value>,
    /// What can be decided: `salesforce`, `hubspot`, `keep`, `value`.
    choices: &'static [&'static str],
}

impl<'r> From<&'r Review> for Told<'r> {
    fn from(review: &'r Review) -> Self {
        let field = review.field.as_ref();
        Self {
            id: &review.id,
            sync: &review.sync,
            kind: review.kind,
            hubspot_id: review.hubspot_id.as_deref(),
            salesforce_id: review.salesforce_id.as_ref().map(|id| id.as_str()),
            hubspot: field.map(|field| field.hubspot.as_str()),
            salesforce: field.map(|field| field.salesforce.as_str()),
            hubspot_value: field.and_then(|field| field.hubspot_value.as_deref()),
            salesforce_value: field.and_then(|field| field.salesforce_value.as_deref()),
            hubspot_before: field.and_then(|field| field.hubspot_before.as_deref()),
            salesforce_before: field.and_then(|field| field.salesforce_before.as_deref()),
            candidates: &review.candidates,
            candidates_of: review.candidates_of,
            deleted_in: review.deleted_in,
            why: &review.why,
            opened_at: review.opened_at,
            choice: review.choice.as_ref().map(|choice| match choice {
                Choice::Side(side) => serde_json::to_value(side).unwrap_or_default(),
                Choice::Keep => json!("keep"),
                Choice::Value(value) => json!({ "value": value }),
            }),
            choices: choices(review.kind),
        }
    }
}

/// What can be decided about it.
pub(crate) fn choices(kind: ReviewKind) -> &'static [&'static str] {
    match kind {
        ReviewKind::Conflict | ReviewKind::Flip | ReviewKind::Taken => &["salesforce", "hubspot", "value", "keep"],
        ReviewKind::Duplicate | ReviewKind::Identity => &["value", "keep"],
        // It closes by itself when the two are merged on the other side too.
        ReviewKind::Merge => &["keep"],
        ReviewKind::Delete => &["salesforce", "hubspot", "keep"],
    }
}

fn refused_json(sync: &str, refused: &Refused) -> Value {
    json!({
        "sync": sync,
        "hubspot_id": refused.hubspot_id,
        "salesforce_id": refused.salesforce_id,
        "by": refused.by,
        "field": refused.field,
        "code": refused.code,
        "reason": refused.reason,
        "hint": refused.hint,
        "at": refused.at,
    })
}

pub(crate) fn kind(kind: ReviewKind) -> &'static str {
    match kind {
        ReviewKind::Conflict => "conflict",
        ReviewKind::Flip => "flip",
        ReviewKind::Taken => "taken",
        ReviewKind::Duplicate => "duplicate",
        ReviewKind::Identity => "identity",
        ReviewKind::Merge => "merge",
        ReviewKind::Delete => "delete",
    }
}

/// Both ids, those that there are.
fn ids(hubspot: Option<&str>, salesforce: Option<&str>) -> String {
    let both = [("HubSpot", hubspot), ("Salesforce", salesforce)];
    let both: Vec<String> = both.into_iter().filter_map(|(name, id)| Some(format!("{name} {}", id?))).collect();
    both.join(", ")
}

/// A value in quotes, with what a terminal would take for a command made harmless.
fn shown(value: &Canon, most: usize) -> String {
    match value {
        Some(value) => format!("{:?}", clip(value, most)),
        None => "(blank)".to_owned(),
    }
}

fn list_text(reviews: &[Review], now: Timestamp) -> String {
    if reviews.is_empty() {
        return "Nothing waits for a person.\n".to_owned();
    }
    let mut lines = Vec::new();
    for review in reviews.iter().take(SHOWN_MAX) {
        let age = age(now.duration_since(review.opened_at).as_secs());
        let what = match &review.field {
            Some(field) => format!("{} / {}", field.hubspot, field.salesforce),
            None => String::new(),
        };
        let first = format!("{}  {}  {:<9}  {age} ago  ", review.id, review.sync, kind(review.kind));
        lines.extend(wrap(&first, &what, WIDTH).into_iter().map(|line| line.trim_end().to_owned()));
        lines.extend(wrap(
            "    ",
            &ids(review.hubspot_id.as_deref(), review.salesforce_id.as_ref().map(|id| id.as_str())),
            WIDTH,
        ));
        match &review.field {
            Some(field) => {
                let values = [("HubSpot", &field.hubspot_value), ("Salesforce", &field.salesforce_value)];
                let values = values.map(|(name, value)| format!("{} in {name}", shown(value, LISTED_CHARS)));
                lines.extend(wrap("    ", &values.join(", "), WIDTH));
            }
            None => lines.extend(wrap("    ", &review.why, WIDTH)),
        }
        if review.choice.is_some() {
            lines.push("    decided; the next run carries it out".to_owned());
        }
    }
    let more = reviews.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        lines.push(format!("and {} more; --json has all of them", grouped(more as u64)));
    }
    lines.push(String::new());
    lines.push("hubferry review show ID    says what happened and what can be chosen".to_owned());
    lines.push(String::new());
    lines.join("\n")
}

fn refused_text(refused: &[(String, Refused)]) -> String {
    if refused.is_empty() {
        return "Nothing is refused.\n".to_owned();
    }
    let mut lines = Vec::new();
    for (sync, refused) in refused.iter().take(SHOWN_MAX) {
        let field = refused.field.as_ref().map(|field| format!("  {field}")).unwrap_or_default();
        lines.extend(wrap("", &format!("{sync}  {} by {}{field}", refused.code, refused.by.name()), WIDTH));
        let salesforce = refused.salesforce_id.as_ref().map(|id| id.as_str());
        lines.extend(wrap("    ", &ids(refused.hubspot_id.as_deref(), salesforce), WIDTH));
        lines.extend(wrap("    ", &refused.reason, WIDTH));
        lines.extend(wrap(" -> ", &refused.hint, WIDTH));
    }
    let more = refused.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        lines.push(format!("and {} more; --json has all of them", grouped(more as u64)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn review_text(review: &Review, doors: &Doors, colour: bool) -> String {
    let heading = format!("{}: {} in sync {}", review.id, kind(review.kind), review.sync);
    let mut lines = vec![if colour { format!("\x1b[1m{heading}\x1b[0m") } else { heading }];
    let salesforce_id = review.salesforce_id.as_ref().map(|id| id.as_str());
    lines.extend(wrap("  ", &review.why, WIDTH));
    let sync = doors.app.config().syncs.iter().find(|sync| sync.name == review.sync);
    for (name, object, id, deleted) in [
        ("HubSpot", sync.map(|sync| sync.hubspot_object.as_str()), review.hubspot_id.as_deref(), Side::Hubspot),
        ("Salesforce", sync.map(|sync| sync.salesforce_object.as_str()), salesforce_id, Side::Salesforce),
    ] {
        let gone = if review.deleted_in == Some(deleted) { ", deleted" } else { "" };
        let Some(id) = id else { continue };
        lines.extend(wrap(&format!("  {name:<12}"), &format!("{} {id}{gone}", object.unwrap_or_default()), WIDTH));
    }
    if let Some(field) = &review.field {
        for (name, property, value, before) in [
            ("HubSpot", &field.hubspot, &field.hubspot_value, &field.hubspot_before),
            ("Salesforce", &field.salesforce, &field.salesforce_value, &field.salesforce_before),
        ] {
            lines.push(String::new());
            lines.push(format!("  {name} {property}"));
            lines.extend(wrap("    now       ", &shown(value, SHOWN_CHARS), WIDTH));
            lines.extend(wrap("    in step   ", &shown(before, SHOWN_CHARS), WIDTH));
        }
    }
    if !review.candidates.is_empty() {
        let of = review.candidates_of.map_or("", Side::name);
        lines.push(String::new());
        lines.extend(wrap("  candidates  ", &format!("{of} {}", review.candidates.join(", ")), WIDTH));
    }
    lines.push(String::new());
    lines.push(format!("  hubferry review resolve {} --choose …", review.id));
    for word in choices(review.kind) {
        let (word, means) = meaning(review, word);
        lines.extend(wrap(&format!("    {word:<12}"), &means, WIDTH));
    }
    if review.choice.is_some() {
        lines.push("  It is decided; the next run carries it out.".to_owned());
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What a choice does.
pub(crate) fn meaning(review: &Review, word: &'static str) -> (&'static str, String) {
    let side = if word == "hubspot" { Side::Hubspot } else { Side::Salesforce };
    let name = side.name();
    match (review.kind, word) {
        (ReviewKind::Conflict | ReviewKind::Flip | ReviewKind::Taken, "value") => {
            ("VALUE", "this value is written on both sides; --value '' for blank".to_owned())
        }
        (ReviewKind::Conflict | ReviewKind::Flip | ReviewKind::Taken, "keep") => {
            ("keep", "leave both as they are, until one of them is changed again".to_owned())
        }
        (ReviewKind::Conflict | ReviewKind::Flip | ReviewKind::Taken, _) => {
            (word, format!("{name}'s value is written in {}", side.other().name()))
        }
        (ReviewKind::Delete, "keep") => ("keep", "leave both as they are; they are no longer kept in step".to_owned()),
        (ReviewKind::Delete, _) if review.deleted_in == Some(side) => {
            (word, format!("as in {name}: delete the record in {} too", side.other().name()))
        }
        (ReviewKind::Delete, _) => (word, format!("as in {name}: create the record again in {}", side.other().name())),
        (ReviewKind::Merge, _) => (
            "keep",
            "leave them as they are; or merge the two on the other side, and the review closes by itself".to_owned(),
        ),
        (_, "keep") => ("keep", "leave them without a counterpart, for good".to_owned()),
        _ => ("ID", "the record of the other side that is the counterpart".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use hubferry::{salesforce::model::SalesforceId, sync::model::ReviewField};

    use super::*;

    fn conflict() -> Review {
        Review {
            id: "k3f9x2m7qa".to_owned(),
            sync: "people".to_owned(),
            kind: ReviewKind::Conflict,
            hubspot_id: Some("17100000551".to_owned()),
            salesforce_id: Some(SalesforceId::parse("003Ws000004bJKn").unwrap()),
            field: Some(ReviewField {
                key: "phone|Phone".to_owned(),
                hubspot: "phone".to_owned(),
                salesforce: "Phone".to_owned(),
                hubspot_value: Some("+1 555 010 0199".to_owned()),
                salesforce_value: Some("\u{1b}[2J+1 555 010 0100".to_owned()),
                hubspot_before: None,
                salesforce_before: None,
            }),
            candidates: Vec::new(),
            candidates_of: None,
            deleted_in: None,
            why: "changed on both sides since they were in step".to_owned(),
            opened_at: "2026-11-22T09:00:00Z".parse().unwrap(),
            choice: None,
            version: 1,
        }
    }

    #[test]
    fn a_list_fits_shows_both_values_and_lets_no_value_command_the_terminal() {
        let text = list_text(&[conflict()], "2026-11-22T10:00:00Z".parse().unwrap());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        for part in [
            "k3f9x2m7qa  people  conflict   60 min ago  phone / Phone",
            "HubSpot 17100000551, Salesforce 003Ws000004bJKn",
            "\"+1 555 010 0199\" in HubSpot",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(list_text(&[], Timestamp::UNIX_EPOCH), "Nothing waits for a person.\n");
    }

    #[test]
    fn a_words_value_can_be_given_as_a_value() {
        assert_eq!(choice(Some("hubspot"), None), Choice::Side(Side::Hubspot));
        assert_eq!(choice(Some("keep"), None), Choice::Keep);
        assert_eq!(choice(Some("Keep"), None), Choice::Value("Keep".to_owned()));
        assert_eq!(choice(None, Some("hubspot")), Choice::Value("hubspot".to_owned()));
        assert_eq!(choice(None, Some("")), Choice::Value(String::new()));
    }

    #[test]
    fn the_json_of_a_review_has_every_member_and_null_where_there_is_none() {
        let told = serde_json::to_value(Told::from(&conflict())).unwrap();
        let members: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "id",
            "sync",
            "kind",
            "hubspot_id",
            "salesforce_id",
            "hubspot",
            "salesforce",
            "hubspot_value",
            "salesforce_value",
            "hubspot_before",
            "salesforce_before",
            "candidates",
            "candidates_of",
            "deleted_in",
            "why",
            "opened_at",
            "choice",
            "choices",
        ];
        expected.sort_unstable();
        let mut members = members;
        members.sort_unstable();
        assert_eq!(members, expected);
        assert_eq!(told["kind"], "conflict");
        assert!(told["hubspot_before"].is_null());
        assert_eq!(told["choices"], json!(["salesforce", "hubspot", "value", "keep"]));
    }
}
