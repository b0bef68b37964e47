//! `hubferry report RUN`: a run's stored report as one page that needs nothing else: no script, no style sheet, no network.
//!
//! Every value goes through [`esc`]; the page holds what the report holds, and the text of the pages of its codes.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use hubferry::{
    Error, ErrorKind,
    codes::{self, Code},
    objects::{Location, Objects as _},
    report::{Counts, Outcome, Pace, Position, Report},
};

use crate::{
    DONE,
    doors::{self, Doors, Use},
    explain,
    html::{esc, url},
    text::{self, grouped},
    turns,
};

const STYLE: &str = include_str!("report.css");
/// A bar's width in its own units: a thousandth of the rows is a unit.
const BAR: f64 = 1_000.0;
/// What is there at all is seen: two units.
const BAR_MIN: f64 = 2.0;
/// The curve of the calls in its own units, and the room around it for its labels.
const CURVE: (f64, f64) = (720.0, 150.0);
const CURVE_LEFT: f64 = 44.0;
const CURVE_TOP: f64 = 16.0;
const CURVE_BOTTOM: f64 = 22.0;

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The run's id; or its stored report, a path or s3://bucket/reports/….json.
    run: String,
    #[command(flatten)]
    place: doors::Place,
    /// Where the page goes; `-` is standard output [default: RUN.html in this folder].
    #[arg(long, value_name = "FILE")]
    out: Option<String>,
    /// The stored report as one line of JSON, on standard output unless --out says otherwise.
    #[arg(long)]
    json: bool,
}

/// Runs it; returns the exit code.
pub(crate) fn run(options: &Options) -> Result<u8> {
    turns::command(options.json, work(options))
}

async fn work(options: &Options) -> Result<u8> {
    let doors = doors::open(&options.place, Use::Look, None).await?;
    let report = stored(&doors, &options.run).await?;
    let (body, default) = match options.json {
        true => (serde_json::to_string(&report)? + "\n", "-".to_owned()),
        false => {
            let id = report.run_id.as_deref().unwrap_or("report");
            // An id that comes from a file names no other place.
            let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
            let links = if options.place.local { Links::None } else { Links::Console };
            (page(&report, links), format!("{id}.html"))
        }
    };
    match options.out.as_deref().unwrap_or(&default) {
        "-" => text::print(&body)?,
        out => {
            fs::write(out, body).with_context(|| format!("{out} cannot be written"))?;
            if !options.json {
                text::print(&format!("{out}\n"))?;
            }
        }
    }
    Ok(DONE)
}

/// The report: from the run's item, or from where it is stored.
async fn stored(doors: &Doors, run: &str) -> Result<Report> {
    let none = |message: String, hint: &'static str| {
        Error::new(ErrorKind::NotFound, codes::NAME_UNKNOWN, message).with_hint(hint)
    };
    if run.contains('/') || run.ends_with(".json") {
        let bytes = match run.starts_with("s3://") {
            true => {
                let location = doors.files.shown_as(run).with_context(|| format!("{run} names no object"))?;
                let found = doors.files.get(&location).await?;
                found
                    .map(|(bytes, _)| bytes)
                    .ok_or_else(|| none(format!("{run}: there is no such object"), "Check the address."))?
            }
            false => fs::read(run).with_context(|| format!("{run} cannot be read"))?.into(),
        };
        return serde_json::from_slice(&bytes).with_context(|| format!("{run} is no report of a run"));
    }
    let known = if doors.no_state { None } else { doors.app.runs().get(run).await? };
    let known = known.ok_or_else(|| {
        none(
            format!("there is no run {run} in {}", doors.state),
            "Check the id; runs are remembered for 90 days. The report stays in reports/: name that object instead.",
        )
    })?;
    let open =
        || none(format!("run {run} is not at its end: it has no report yet"), "Look at it with `hubferry status`.");
    Ok(known.report.ok_or_else(open)?)
}

/// Where the page's links to objects lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// To AWS's console.
    Console,
    /// To the page of a local cloud.
    Page,
    /// Nowhere: nothing is in S3.
    None,
}

impl Links {
    /// An object's address as a link; as text where it is none of S3's.
    fn object(self, uri: &str) -> String {
        let shown = format!("<code>{}</code>", esc(uri));
        let location = Location::parse(uri).filter(|location| !location.is_local() && !location.key.is_empty());
        let Some(Location { bucket, key }) = location else { return shown };
        let to = match self {
            Self::None => return shown,
            Self::Console => format!("https://console.aws.amazon.com/s3/object/{}?prefix={}", url(&bucket), url(&key)),
            Self::Page => {
                let key: Vec<String> = key.split('/').map(url).collect();
                format!("/files/{}/{}", url(&bucket), key.join("/"))
            }
        };
        format!("<a href=\"{to}\" rel=\"noreferrer\">{shown}</a>")
    }
}

/// The page.
pub(crate) fn page(report: &Report, links: Links) -> String {
    let mut html = String::new();
    let title = format!("{} {}: {}", report.job, report.name, report.outcome.as_str());
    let class = match report.outcome {
        Outcome::Done | Outcome::Duplicate => "good",
        Outcome::Yielded | Outcome::Busy | Outcome::Superseded => "warn",
        Outcome::Failed | Outcome::Invalid | Outcome::Aborted => "bad",
    };
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{} {} <span class=\"outcome {class}\">{}</span></h1>\n\
         <p class=\"dim\">Run <code>{}</code>, account {}</p>\n<p>{}</p>\n{}</header>\n<main>\n",
        esc(&title),
        esc(&report.job),
        esc(&report.name),
        report.outcome.as_str(),
        esc(report.run_id.as_deref().unwrap_or("none")),
        esc(&report.account),
        links.object(&report.source.uri),
        contents(report),
    );
    if let Some(error) = &report.error {
        let _ = write!(
            html,
            "<div class=\"box\" role=\"alert\"><strong>{}</strong> {}\n{}</div>\n{}",
            esc(&error.code),
            esc(&error.message),
            esc(&error.hint),
            code_page(&error.code)
        );
    }
    match &report.capture {
        Some(capture) => {
            let changes = &capture.changes;
            let rows = [
                ("In the snapshot", changes.snapshot),
                ("Created", changes.create),
                ("Updated", changes.update),
                ("Deleted", changes.delete),
                ("among them restored", changes.restored),
                ("among them merged", changes.merged),
                ("among them associated otherwise", changes.associations),
            ];
            let mut facts: Vec<(&str, String)> = rows.into_iter().map(|(name, count)| (name, grouped(count))).collect();
            facts.push(("Objects", grouped(capture.objects)));
            facts.push(("Bytes", grouped(capture.bytes)));
            facts.push(("Output", capture.output.clone()));
            facts.extend(capture.manifest.clone().map(|manifest| ("Manifest", manifest)));
            facts.extend(capture.lag_seconds.map(|lag| ("Behind HubSpot's clock", format!("{} s", grouped(lag)))));
            section(&mut html, "rows", "Changes", &facts);
        }
        None => rows(&mut html, report),
    }
    sync(&mut html, report);
    rejects(&mut html, report, links);
    calls(&mut html, report);
    source(&mut html, report);
    if !report.notes.is_empty() {
        html.push_str("<h2 id=\"notes\">Notes</h2>\n<ul>\n");
        for note in &report.notes {
            let _ = writeln!(html, "<li>{}</li>", esc(note));
        }
        html.push_str("</ul>\n");
    }
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// Links to the parts of the page.
fn contents(report: &Report) -> String {
    let rows = if report.capture.is_some() { "Changes" } else { "Rows" };
    let parts = [
        ("rows", rows, true),
        ("rejects", "Rejects", !report.rejected_by_code.is_empty()),
        ("calls", "Calls and cost", true),
        ("source", "Source and run", true),
        ("notes", "Notes", !report.notes.is_empty()),
    ];
    let parts = parts.into_iter().filter(|(.., is_there)| *is_there);
    let parts: Vec<String> = parts.map(|(id, name, _)| format!("<a href=\"#{id}\">{name}</a>")).collect();
    format!("<nav aria-label=\"Contents\">{}</nav>\n", parts.join(" "))
}

fn outcomes(rows: &Counts) -> [(&'static str, u64, &'static str); 6] {
    [
        ("created", rows.created, "new records"),
        ("updated", rows.updated, "records that were there, or came up earlier in the file"),
        ("unchanged", rows.unchanged, "left out because nothing changed"),
        ("merged", rows.merged, "sent together with another row of the same key"),
        ("rejected", rows.rejected, "in the rejects file, with line and reason"),
        ("deferred", rows.deferred, "no verdict from HubSpot"),
    ]
}

/// One bar of all rows, and what its parts are.
fn rows(html: &mut String, report: &Report) {
    let verdict = match report.rows.add_up() {
        true => "every row is accounted for",
        false => "the counts do not add up",
    };
    let _ =
        write!(html, "<h2 id=\"rows\">Rows</h2>\n<p>{} rows were read; {verdict}.</p>\n", grouped(report.rows.read));
    bar(html, &report.rows);
    counts(html, &report.rows);
    for (object, rows) in &report.records {
        let _ = writeln!(html, "<h2>Records: {}</h2>", esc(object));
        bar(html, rows);
        counts(html, rows);
    }
    if let Some(archived) = report.archived {
        let _ = writeln!(html, "<p>{} records were archived because the file lacks them.</p>", grouped(archived));
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn bar(html: &mut String, rows: &Counts) {
    let parts: Vec<_> = outcomes(rows).into_iter().filter(|(_, count, _)| *count > 0).collect();
    let label: Vec<String> = parts.iter().map(|(name, count, _)| format!("{} {name}", grouped(*count))).collect();
    let label = if label.is_empty() { "no rows".to_owned() } else { label.join(", ") };
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 {BAR} 32\" height=\"32\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">\
         <rect class=\"track\" width=\"{BAR}\" height=\"32\"/>"
    );
    let total: u64 = parts.iter().map(|(_, count, _)| count).sum();
    let widths: Vec<f64> =
        parts.iter().map(|(_, count, _)| (*count as f64 / total.max(1) as f64 * BAR).max(BAR_MIN)).collect();
    let scale = BAR / widths.iter().sum::<f64>().max(1.0);
    let mut at = 0.0;
    for ((name, count, _), width) in parts.iter().zip(widths) {
        let width = width * scale;
        let _ = write!(
            html,
            "<rect class=\"{name}\" x=\"{at:.2}\" width=\"{width:.2}\" height=\"32\"><title>{} {name}</title></rect>",
            grouped(*count)
        );
        at += width;
    }
    html.push_str("</svg>\n");
}

fn counts(html: &mut String, rows: &Counts) {
    html.push_str("<table>\n<tbody>\n");
    for (name, count, means) in outcomes(rows) {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\"><span class=\"swatch {name}\"></span> {name}</th><td class=\"n\">{}</td><td class=\"dim\">{means}</td></tr>",
            grouped(count)
        );
    }
    html.push_str("</tbody>\n</table>\n");
}

/// Rejects by code, the most frequent first, with what to do.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn rejects(html: &mut String, report: &Report, links: Links) {
    if report.rejected_by_code.is_empty() {
        return;
    }
    html.push_str("<h2 id=\"rejects\">Rejects</h2>\n");
    if let Some(rejects) = &report.rejects {
        let _ = writeln!(html, "<p>The rows are in {}, each with its line and reason.</p>", links.object(rejects));
    }
    let mut codes: Vec<_> = report.rejected_by_code.iter().collect();
    codes.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let most = codes.first().map_or(1, |(_, count)| **count).max(1);
    html.push_str("<table>\n<thead><tr><th scope=\"col\">Code</th><th scope=\"col\" class=\"n\">Rows</th><th scope=\"col\">What to do</th></tr></thead>\n<tbody>\n");
    for (code, count) in codes {
        let hint = Code::named(code)
            .map(|code| code.hint())
            .unwrap_or("HubSpot's own code: the reason in the rejects file says more.");
        let width = (*count as f64 / most as f64 * BAR).max(BAR_MIN);
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\"><code>{}</code></th><td class=\"n\">{}</td><td>\
             <svg viewBox=\"0 0 {BAR} 8\" height=\"8\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"rejected\" width=\"{width:.2}\" height=\"8\"/></svg>\
             {}{}</td></tr>",
            esc(code),
            grouped(*count),
            esc(hint),
            code_page(code)
        );
    }
    html.push_str("</tbody>\n</table>\n");
}

/// The page of a code, folded up.
fn code_page(code: &str) -> String {
    match explain::page(code) {
        Some(page) => {
            let (_, text) = page.split_once('\n').unwrap_or_default();
            format!("<details><summary>More about {}</summary><pre>{}</pre></details>\n", esc(code), esc(text.trim()))
        }
        None => String::new(),
    }
}

/// What a sync wrote, side by side.
fn sync(html: &mut String, report: &Report) {
    let Some(sync) = &report.sync else { return };
    let _ = write!(
        html,
        "<h2>Sync</h2>\n<p>HubSpot {} {} and Salesforce {} {}.</p>\n<table>\n<thead><tr><th></th><th>HubSpot</th><th>Salesforce</th></tr></thead>\n<tbody>\n",
        esc(&report.account),
        esc(&sync.hubspot_object),
        esc(&sync.org),
        esc(&sync.salesforce_object)
    );
    let (ours, theirs) = (&sync.hubspot, &sync.salesforce);
    for (name, here, there) in [
        ("Records created", ours.created, theirs.created),
        ("Records updated", ours.updated, theirs.updated),
        ("Fields cleared", ours.blanked, theirs.blanked),
        ("Records deleted", ours.deleted, theirs.deleted),
        ("Calls", report.calls.total, sync.salesforce_calls),
    ] {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{name}</th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            grouped(here),
            grouped(there)
        );
    }
    html.push_str("</tbody>\n</table>\n");
    let mut facts = vec![
        ("Links made", grouped(sync.linked)),
        ("Reviews opened", grouped(sync.reviews_opened)),
        ("Reviews closed", grouped(sync.reviews_closed)),
        ("Waiting for a person", grouped(sync.review_open)),
        ("Primary companies set", grouped(sync.associations)),
        ("Bulk jobs", grouped(sync.bulk_jobs)),
    ];
    facts.extend(
        sync.salesforce_used_percent
            .map(|percent| ("Of the org's calls of a day, by everybody", format!("{percent} %"))),
    );
    facts.extend(sync.lag_seconds.map(|lag| ("Behind HubSpot's clock", format!("{} s", grouped(lag)))));
    table(html, &facts);
}

fn calls(html: &mut String, report: &Report) {
    let calls = &report.calls;
    let mut facts = vec![
        ("Calls to HubSpot", grouped(calls.total)),
        ("Repeated", grouped(calls.retried)),
        ("Refused by the rate limit", grouped(calls.throttled)),
        ("Searches", grouped(calls.search)),
    ];
    section(html, "calls", "Calls and cost", &[]);
    if let Some(percent) = report.limit_use_percent {
        let width = percent.clamp(0.0, 100.0) * BAR / 100.0;
        let _ = write!(
            html,
            "<p>{percent} % of the account's limit was used while there was something to send.</p>\n\
             <svg viewBox=\"0 0 {BAR} 16\" height=\"16\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{percent} % of the limit used\">\
             <rect class=\"track\" width=\"{BAR}\" height=\"16\"/><rect class=\"updated\" width=\"{width:.2}\" height=\"16\"/></svg>\n"
        );
    }
    if let Some(pace) = &report.pace {
        curve(html, pace);
    }
    let cost = &report.cost;
    facts.extend([
        ("Of the account's day", format!("{} calls", grouped(cost.hubspot_calls))),
        ("Lambda", format!("{} GB-seconds", cost.lambda_gb_seconds)),
        ("Writes to the table", grouped(cost.dynamodb_writes)),
        ("Requests to S3", grouped(cost.s3_requests)),
    ]);
    table(html, &facts);
}

/// Calls a second over the run, and what the limit allows. Between two looks the rate is even: more is not known.
#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn curve(html: &mut String, pace: &Pace) {
    let rates: Vec<(f64, f64, f64)> = pace
        .points
        .windows(2)
        .filter_map(|pair| match pair {
            [[from, _, before], [to, _, after]] if to > from => {
                let seconds = (to - from) as f64 / 1_000.0;
                Some((*from as f64 / 1_000.0, *to as f64 / 1_000.0, after.saturating_sub(*before) as f64 / seconds))
            }
            _ => None,
        })
        .collect();
    let (Some((start, ..)), Some((_, end, _))) = (rates.first(), rates.last()) else { return };
    let (start, end) = (*start, *end);
    let limit = pace.ceiling_per_second;
    let most = rates.iter().map(|(.., rate)| *rate).fold(limit, f64::max).max(1.0);
    let (width, height) = CURVE;
    let x = |second: f64| CURVE_LEFT + (second - start) / (end - start) * (width - CURVE_LEFT - 4.0);
    let y = |rate: f64| CURVE_TOP + (1.0 - rate / most) * (height - CURVE_TOP - CURVE_BOTTOM);
    let mut points = format!("{:.1},{:.1}", x(start), y(0.0));
    for (from, to, rate) in &rates {
        let _ = write!(points, " {:.1},{2:.1} {:.1},{2:.1}", x(*from), x(*to), y(*rate));
    }
    let _ = write!(points, " {:.1},{:.1}", x(end), y(0.0));
    let _ = write!(
        html,
        "<figure>\n<figcaption>Calls a second; the dashed line is the account's limit, {limit:.1} a second.</figcaption>\n\
         <svg class=\"curve\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Calls a second over {:.1} s, beside a limit of {limit:.1}\">\n\
         <polygon class=\"area\" points=\"{points}\"/>\n",
        end - start
    );
    let base = y(0.0);
    let right = width - 4.0;
    let _ =
        writeln!(html, "<line class=\"axis\" x1=\"{CURVE_LEFT}\" x2=\"{right}\" y1=\"{base:.1}\" y2=\"{base:.1}\"/>");
    if limit > 0.0 {
        let at = y(limit);
        let _ = writeln!(
            html,
            "<line class=\"limit\" x1=\"{CURVE_LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\n\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{limit:.1}</text>",
            CURVE_LEFT - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(html, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">0</text>", CURVE_LEFT - 6.0, base + 4.0);
    for (share, class) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        let second = start + (end - start) * share;
        let _ = writeln!(
            html,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(second),
            height - 5.0,
            duration(second)
        );
    }
    html.push_str("</svg>\n</figure>\n");
}

/// Seconds since the start, for an axis.
fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.1} s"),
        seconds if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

fn source(html: &mut String, report: &Report) {
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = report.duration_ms as f64 / 1_000.0;
    let mut facts = vec![
        ("Started", report.started_at.to_string()),
        ("Finished", report.finished_at.to_string()),
        ("Took", format!("{seconds:.1} s in {} invocations", grouped(report.invocations))),
    ];
    match &report.position {
        Position::File(position) => {
            facts.push(("Position", format!("line {}, byte {}", grouped(position.line), grouped(position.byte))));
        }
        Position::Sync(position) => {
            facts.push(("Position", serde_json::to_string(position).unwrap_or_default()));
        }
        Position::Capture(position) => {
            facts.push(("Position", serde_json::to_string(position).unwrap_or_default()));
        }
    }
    let source = &report.source;
    if report.capture.is_none() && report.sync.is_none() {
        facts.push(("Bytes", grouped(source.bytes)));
        facts.push(("Entity tag", source.etag.clone()));
        facts.extend(source.version_id.clone().map(|version| ("Version", version)));
        facts.extend(source.compression.clone().map(|name| ("Compression", name)));
        let dialect = source.dialect.as_ref().and_then(serde_json::Value::as_object);
        for (name, value) in dialect.into_iter().flatten() {
            let name = match name.as_str() {
                "encoding" => "Encoding",
                "bom" => "Byte order mark",
                "delimiter" => "Delimiter",
                "quote" => "Quote",
                "header" => "Header line",
                _ => continue,
            };
            facts.push((name, value.as_str().map_or_else(|| value.to_string(), |text| text.replace('\t', "tab"))));
        }
        if !report.ignored_columns.is_empty() {
            facts.push(("Columns not delivered", report.ignored_columns.join(", ")));
        }
    }
    section(html, "source", "Source and run", &facts);
}

fn section(html: &mut String, id: &str, heading: &str, facts: &[(&str, String)]) {
    let _ = writeln!(html, "<h2 id=\"{id}\">{heading}</h2>");
    table(html, facts);
}

fn table(html: &mut String, facts: &[(&str, String)]) {
    if facts.is_empty() {
        return;
    }
    html.push_str("<table>\n<tbody>\n");
    for (name, value) in facts {
        let _ = writeln!(html, "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", esc(value));
    }
    html.push_str("</tbody>\n</table>\n");
}
