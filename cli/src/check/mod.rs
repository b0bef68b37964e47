//! `hubferry check`: settings, credentials and mappings against the live accounts; with a file, the whole file before its first write.

mod sync;

use std::{collections::BTreeMap, path::Path, rc::Rc};

use anyhow::Result;
use hubferry::{
    clock::Deadline,
    codes,
    config::{Capture, Import},
    hubspot::{
        properties::SchemaParts,
        resources::Resource,
        scopes::{self, Access},
    },
    import::{
        check::check,
        plan::{
            self, Line, Totals,
            format::{Header, PlanReject},
        },
    },
    record::ObjectType,
};
use serde_json::{Value, json};

use crate::{
    DONE, FAILED, FOUND, caret,
    doors::{self, Doors, Use},
    import::{Named, find, watcher},
    plan::show::Summary,
    summary::wrapped,
    text::{self, grouped},
    turns,
    watch::Watch,
};

/// Codes of which a row is shown.
const CODES_MAX: usize = 10;

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// A file to check as a whole: a path of this machine, or s3://bucket/key.
    file: Option<String>,
    /// The import of the file [default: the one whose `match` takes the file's path].
    #[arg(long = "as", value_name = "NAME", requires = "file")]
    name: Option<String>,
    #[command(flatten)]
    place: doors::Place,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

async fn work(options: &Options) -> Result<u8> {
    let watch = Rc::new(Watch::new());
    let doors = doors::open(&options.place, Use::Check, Some(watcher(&watch))).await?;
    match &options.file {
        Some(file) => {
            let named = Named { file: file.clone(), name: options.name.clone() };
            Box::pin(the_file(&doors, &watch, &named, options.json)).await
        }
        None => the_settings(&doors, options.json).await,
    }
}

/// Code, message, hint.
type Problem = (String, String, String);

/// One thing that was looked at.
struct Checked {
    what: String,
    /// What there is to say where it is right.
    told: String,
    problems: Vec<Problem>,
}

async fn the_settings(doors: &Doors, as_json: bool) -> Result<u8> {
    let config = doors.app.config();
    let mut checked = Vec::new();
    for name in config.hubspot.keys() {
        checked.push(account(doors, name).await);
    }
    for name in config.salesforce.keys() {
        checked.push(sync::org(doors, name).await);
    }
    for import in &config.imports {
        checked.push(of_import(doors, import).await);
    }
    for capture in &config.captures {
        checked.push(of_capture(doors, capture).await);
    }
    for sync in &config.syncs {
        checked.push(Box::pin(sync::sync(doors, sync)).await);
    }
    let wrong = checked.iter().filter(|checked| !checked.problems.is_empty()).count();
    if as_json {
        let listed: Vec<Value> = checked
            .iter()
            .map(|checked| {
                let problems: Vec<Value> = (checked.problems.iter())
                    .map(|(code, message, hint)| json!({ "code": code, "message": message, "hint": hint }))
                    .collect();
                json!({ "what": checked.what, "ok": problems.is_empty(), "told": checked.told, "problems": problems })
            })
            .collect();
        text::json_line(&json!({ "ok": wrong == 0, "checked": listed }))?;
    } else {
        let colour = text::has_colour();
        let mut lines = Vec::new();
        for checked in &checked {
            let (mark, tint) = if checked.problems.is_empty() { ("ok   ", "\x1b[32m") } else { ("WRONG", "\x1b[31m") };
            let mark = if colour { format!("{tint}{mark}\x1b[0m") } else { mark.to_owned() };
            lines.push(format!("  {mark}  {}", text::clip(&checked.what, text::WIDTH - 9)));
            if checked.problems.is_empty() {
                lines.extend(wrapped("         ", &checked.told));
            }
            for (code, message, hint) in &checked.problems {
                lines.extend(wrapped("         ", &format!("{code}: {message}")));
                lines.extend(wrapped("      -> ", hint));
            }
        }
        lines.push(String::new());
        lines.push(match wrong {
            0 => "Everything fits. What the token of a private app may write is seen by writing\nonly. `hubferry check FILE` and `hubferry plan FILE` look at a file.".to_owned(),
            1 => "1 of these does not fit.".to_owned(),
            wrong => format!("{wrong} of these do not fit."),
        });
        lines.push(String::new());
        text::print(&lines.join("\n"))?;
    }
    Ok(if wrong == 0 { DONE } else { FAILED })
}

/// What a credential lacks, where HubSpot tells what it has.
fn scope(granted: Option<&[String]>, object: &ObjectType, access: Access) -> Option<Problem> {
    let missing = scopes::missing(granted, &scopes::needed(object, access))?;
    let message = format!("the credential lacks {missing}");
    Some((codes::SCOPES_MISSING.as_str().to_owned(), message, codes::SCOPES_MISSING.hint().to_owned()))
}

fn problem_of(error: &hubferry::Error) -> Problem {
    (error.code().as_str().to_owned(), error.message().to_owned(), error.hint().to_owned())
}

async fn account(doors: &Doors, name: &str) -> Checked {
    let what = format!("account {name}");
    let asked = async {
        let account = doors.app.account(name)?;
        let details = account.details(Deadline::NONE).await?;
        Ok::<_, hubferry::Error>((account, details))
    };
    match asked.await {
        Ok((account, details)) => {
            let told = format!(
                "portal {}, {}, time zone {}; {:.0} calls in 10 s",
                details.portal_id,
                details.account_type.to_lowercase(),
                details.time_zone,
                account.ceiling_per_second() * 10.0
            );
            Checked { what, told, problems: Vec::new() }
        }
        Err(error) => Checked { what, told: String::new(), problems: vec![problem_of(&error)] },
    }
}

async fn of_import(doors: &Doors, import: &Import) -> Checked {
    let what = format!("import {}  {}", import.name, import.pattern);
    let asked = async {
        let account = doors.app.account(&import.hubspot)?;
        Ok::<_, hubferry::Error>((check(&account, import, Deadline::NONE).await?, account.scopes()))
    };
    let problems = match asked.await {
        Ok((problems, granted)) => {
            let objects = import.object.iter().chain(import.records.iter().map(|record| &record.object));
            let lacking = objects.filter_map(|object| scope(granted.as_deref(), object, Access::Write));
            let of_mapping = problems.into_iter();
            let of_mapping =
                of_mapping.map(|problem| (problem.code.as_str().to_owned(), problem.message, problem.hint));
            of_mapping.chain(lacking).collect()
        }
        Err(error) => vec![problem_of(&error)],
    };
    let told = match (&import.columns, import.records.len(), &import.resource) {
        (_, _, Some(resource)) => format!("change records of {resource}"),
        (Some(columns), ..) => format!("{} columns, each to a property that can be written", columns.len()),
        (None, 0, _) => "columns are found by name or label when a file comes".to_owned(),
        (None, records, _) => format!("{records} records a row"),
    };
    Checked { what, told, problems }
}

async fn of_capture(doors: &Doors, wanted: &Capture) -> Checked {
    let what = format!("capture {}  {}", wanted.name, wanted.resource);
    let asked = async {
        let account = doors.app.account(&wanted.hubspot)?;
        let mut problems = Vec::new();
        let mut told = format!("to {}", wanted.output);
        if let Resource::Crm(resource) = Resource::parse(&wanted.resource)? {
            let schema = account.schema(&resource.object, SchemaParts::default(), Deadline::NONE).await?;
            told = format!("{} properties are known; {told}", schema.properties.len());
            if let hubferry::config::ExtraProperties::Names(names) = &wanted.extra_properties {
                for name in names.iter().filter(|name| !schema.properties.contains_key(*name)) {
                    let message = format!("{} has no property `{name}`", resource.object);
                    let near = hubferry::mapping::suggest::closest(name, schema.properties.keys().map(String::as_str));
                    let hint = near.map_or_else(
                        || codes::PROPERTY_DOESNT_EXIST.hint().to_owned(),
                        |near| format!("Is it `{near}`?"),
                    );
                    problems.push((codes::PROPERTY_DOESNT_EXIST.as_str().to_owned(), message, hint));
                }
            }
            account
                .list_records(&resource.object, &hubferry::hubspot::records::Wanted::ids(false), None, Deadline::NONE)
                .await?;
        }
        Ok::<_, hubferry::Error>((told, problems))
    };
    match asked.await {
        Ok((told, problems)) => Checked { what, told, problems },
        Err(error) => Checked { what, told: String::new(), problems: vec![problem_of(&error)] },
    }
}

/// What is kept of a plan that nobody wants to have.
#[derive(Default)]
struct Seen {
    header: Option<Header>,
    summary: Summary,
}

async fn the_file(doors: &Doors, watch: &Rc<Watch>, named: &Named, as_json: bool) -> Result<u8> {
    let (import, source) = find(doors, named)?;
    watch.set_account(doors.app.account(&import.hubspot)?);
    let seen: Rc<std::cell::RefCell<Seen>> = Rc::default();
    let kept = seen.clone();
    let sink: plan::Sink = Box::new(move |line: &Line| {
        let mut seen = kept.borrow_mut();
        if let Line::Plan(header) = line {
            seen.header = Some(Header::clone(header));
        }
        seen.summary.add(line);
        Ok(())
    });
    let checking = plan::plan(&doors.app, import, &source, sink);
    let totals = turns::stoppable(doors.app.env(), watch, checking).await;
    watch.clear();
    let totals = totals??;
    let seen = seen.take();
    let code = if totals.aborts {
        FAILED
    } else if totals.rejected > 0 || totals.mirror.as_ref().is_some_and(|mirror| mirror.braked) {
        FOUND
    } else {
        DONE
    };
    if as_json {
        let rejects: BTreeMap<&String, &PlanReject> = seen.summary.rejects.iter().collect();
        let source = seen.header.as_ref().map(|header| &header.source);
        text::json_line(
            &json!({ "ok": code == DONE, "import": import.name, "source": source, "totals": totals, "first_rejects": rejects }),
        )?;
        return Ok(code);
    }
    let mut lines = Vec::new();
    let heading = format!("check of {}, as import {}", named.file, import.name);
    lines.push(if text::has_colour() { format!("\x1b[1m{heading}\x1b[0m") } else { heading });
    lines.extend(facts(&seen, &totals));
    lines.extend(rejects(named, &seen, &totals));
    lines.push(String::new());
    lines.push(match code {
        DONE => "Every row can be delivered, as far as HubSpot's definitions tell.".to_owned(),
        FOUND if totals.rejected > 0 => format!(
            "{} of {} rows would be rejected; the others can be delivered.",
            grouped(totals.rejected),
            grouped(totals.rows)
        ),
        FOUND => "Every row can be delivered; nothing would be archived.".to_owned(),
        _ => format!(
            "{} of {} rows would be rejected: the import would stop (abort_if_rejected).",
            grouped(totals.rejected),
            grouped(totals.rows)
        ),
    });
    lines.push(String::new());
    text::print(&lines.join("\n"))?;
    Ok(code)
}

/// How the file is written, and what would become of it.
fn facts(seen: &Seen, totals: &Totals) -> Vec<String> {
    let mut lines = Vec::new();
    let source = seen.header.as_ref().map(|header| &header.source);
    if let Some(dialect) = source.and_then(|source| source.dialect.as_ref()) {
        let member = |name: &str| dialect.get(name).and_then(Value::as_str).unwrap_or_default();
        let delimiter = match member("delimiter") {
            "\t" => "tabs".to_owned(),
            other => format!("`{other}`"),
        };
        let bom = if dialect.get("bom").and_then(Value::as_bool).unwrap_or_default() {
            " with a byte order mark"
        } else {
            ""
        };
        let header =
            if dialect.get("header").and_then(Value::as_bool).unwrap_or_default() { "a header" } else { "no header" };
        let compression = source.and_then(|source| source.compression.as_deref()).filter(|name| *name != "none");
        let compression = compression.map(|name| format!(", {name}")).unwrap_or_default();
        let told = format!("{}{bom}, cells between {delimiter}, {header}{compression}", member("encoding"));
        lines.extend(wrapped("  written   ", &told));
    }
    let mut parts = vec![format!("{} create", grouped(totals.create)), format!("{} update", grouped(totals.update))];
    for (count, word) in [
        (totals.archive, "archive"),
        (totals.unchanged, "unchanged"),
        (totals.merged, "merged"),
        (totals.rejected, "rejected"),
    ] {
        if count > 0 {
            parts.push(format!("{} {word}", grouped(count)));
        }
    }
    lines.extend(wrapped("  rows      ", &format!("{}: {}", grouped(totals.rows), parts.join(", "))));
    let repeats = totals.merged + totals.repeated;
    if repeats > 0 {
        let count = totals.merged.max(totals.repeated);
        let rows = if count == 1 { "row" } else { "rows" };
        let told = format!("{} {rows} with the key of another row; the later one counts", grouped(count));
        lines.extend(wrapped("  keys      ", &told));
    }
    if let Some(mirror) = &totals.mirror {
        let braked = if mirror.braked { ", which is more than mirror_max_archived allows" } else { "" };
        let told = format!("the file lacks {} of {} records{braked}", grouped(mirror.missing), grouped(mirror.known));
        lines.extend(wrapped("  mirror    ", &told));
    }
    if !totals.ignored_columns.is_empty() {
        let names: Vec<String> = totals.ignored_columns.iter().map(|name| format!("`{name}`")).collect();
        lines.extend(wrapped("  ignored   ", &format!("columns {}", names.join(", "))));
    }
    for planned in seen.header.as_ref().map(|header| header.create_properties.as_slice()).unwrap_or_default() {
        let new = &planned.property;
        lines.extend(wrapped(
            "  property  ",
            &format!("`{}` ({}) of {} would be created", new.name, new.kind, planned.object),
        ));
    }
    for note in &totals.notes {
        lines.extend(wrapped("  note      ", note));
    }
    lines
}

/// The first reject of each code, with its place in the file.
fn rejects(named: &Named, seen: &Seen, totals: &Totals) -> Vec<String> {
    let mut lines = Vec::new();
    let dialect = seen.header.as_ref().and_then(|header| header.source.dialect.as_ref());
    let utf8 = dialect.and_then(|dialect| dialect.get("encoding")).and_then(Value::as_str) == Some("utf-8");
    let plain = seen.header.as_ref().is_some_and(|header| header.source.compression.as_deref() == Some("none"));
    let mark = |name: &str, otherwise: char| {
        dialect.and_then(|dialect| dialect.get(name)?.as_str()?.chars().next()).unwrap_or(otherwise)
    };
    let (delimiter, quote) = (mark("delimiter", ','), mark("quote", '"'));
    let path = Path::new(&named.file);
    let header = (utf8 && plain).then(|| caret::line_of(path, 1)).flatten();
    for (code, reject) in seen.summary.rejects.iter().take(CODES_MAX) {
        lines.push(String::new());
        let count = totals.rejected_by_code.get(code).copied().unwrap_or(1);
        lines.push(format!("  {code}  ({} in all)", grouped(count)));
        let line = header.as_ref().and_then(|_| caret::line_of(path, reject.line));
        if let Some(line) = line {
            let names = header.as_deref().map(|header| cells(header, delimiter, quote)).unwrap_or_default();
            let at = reject.column.as_ref().and_then(|column| names.iter().position(|name| name == column));
            let span = at.and_then(|at| caret::cell(&line, at, delimiter, quote));
            lines.extend(caret::shown(&named.file, reject.line, &line, span));
        } else {
            lines.push(format!("  {}:{}", text::clip(&named.file, text::WIDTH - 12), reject.line));
        }
        lines.extend(wrapped("    = ", &reject.reason));
        lines.extend(wrapped("   -> ", &reject.hint));
    }
    let more = seen.summary.rejects.len().saturating_sub(CODES_MAX);
    if more > 0 {
        lines.push(format!("  and {more} more codes"));
    }
    lines
}

/// The cells of a line, without quotes.
fn cells(line: &str, delimiter: char, quote: char) -> Vec<String> {
    let mut cells = Vec::new();
    let chars: Vec<char> = line.chars().collect();
    while let Some(span) = caret::cell(line, cells.len(), delimiter, quote) {
        let text: String = chars.iter().skip(span.at).take(span.length).collect();
        cells.push(text.trim().trim_matches(quote).trim().to_owned());
    }
    cells
}
