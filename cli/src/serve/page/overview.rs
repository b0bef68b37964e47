//! The first page: the upload box, runs as they come along, limits as they fill, and trouble on purpose.

use std::fmt::Write as _;

use hubferry::report::{Outcome, Report, SyncReport};

use super::{
    super::{
        board::{Board, Gauge, Live},
        settings,
        stage::Stage,
    },
    form, framed, places, time,
};
use crate::{
    html::{Esc, esc, url},
    text::grouped,
};

/// Runs that the first page shows.
const RUNS_SHOWN: usize = 15;
/// Messages that it shows.
const NOTICES_SHOWN: usize = 2;
/// The curve of a limit, in its own units.
const CURVE_WIDTH: usize = 300;
const CURVE_HEIGHT: u64 = 40;

/// The page.
pub(super) fn page(stage: &super::Stage) -> super::Answer {
    let mut html = String::from("<h1>Runs</h1>\n");
    let parts = parts(stage);
    let part = |id: &str| parts.iter().find(|(own, _)| *own == id).map(|(_, html)| html.as_str()).unwrap_or_default();
    let _ = write!(
        html,
        "<p id=\"said\" class=\"visually-hidden\" role=\"status\">{}</p>\n<div id=\"notices\">{}</div>\n<div class=\"columns\">\n<div>\n",
        part("said"),
        part("notices")
    );
    upload(&mut html, stage);
    let _ = write!(
        html,
        "<section aria-labelledby=\"runs-title\">\n<h2 id=\"runs-title\">What ran, and runs</h2>\n<div id=\"runs\">{}</div>\n",
        part("runs")
    );
    jobs(&mut html, stage);
    let _ = write!(
        html,
        "</section>\n</div>\n<div>\n<section aria-labelledby=\"limits-title\">\n<h2 id=\"limits-title\">Accounts and their limits</h2>\n\
         <div id=\"limits\">{}</div>\n</section>\n",
        part("limits")
    );
    trouble(&mut html, stage);
    let _ = write!(
        html,
        "<section aria-labelledby=\"review-title\">\n<h2 id=\"review-title\"><a href=\"/review\">Syncs and reviews</a></h2>\n<div id=\"review\">{}</div>\n</section>\n</div>\n</div>\n",
        part("review")
    );
    framed(stage, "Runs", "/", Some("/events"), &html)
}

/// What changes by itself.
pub(super) fn parts(stage: &Stage) -> Vec<(&'static str, String)> {
    let board = stage.board();
    let (runs, limits, said) = (runs(&board), limits(stage, &board), said(&board));
    drop(board);
    vec![
        ("runs", runs),
        ("limits", limits),
        ("said", said),
        ("notices", notices(stage)),
        ("review", super::review::summary(&stage.desk())),
        ("waiting", super::review::waiting(&stage.desk())),
    ]
}

/// One sentence about the run that ended last, which a screen reader says when it changes.
fn said(board: &Board) -> String {
    let last = board.past().find(|past| is_shown(&past.report, board));
    let Some(Report { job, name, outcome, rows, .. }) = last.map(|past| &past.report) else { return String::new() };
    Esc(&format!(
        "Last run: {job} {name} {}, {} rows, {} rejected.",
        outcome.as_str(),
        grouped(rows.read),
        grouped(rows.rejected)
    ))
    .to_string()
}

fn notices(stage: &Stage) -> String {
    let all = stage.notices();
    if all.is_empty() {
        return String::new();
    }
    let mut html = String::from("<ul class=\"notices\" role=\"log\" aria-label=\"Messages\">\n");
    for notice in all.iter().take(NOTICES_SHOWN) {
        let _ = writeln!(html, "<li>{} {}</li>", time(notice.at), Esc(&notice.text));
    }
    html.push_str("</ul>\n");
    html
}

fn upload(html: &mut String, stage: &Stage) {
    let settings = stage.settings();
    html.push_str(
        "<section class=\"card\" aria-labelledby=\"upload-title\">\n<h2 id=\"upload-title\">Import a file</h2>\n",
    );
    if settings.config.imports.is_empty() {
        html.push_str("<p>The settings have no imports.</p>\n</section>\n");
        return;
    }
    let form = form(stage, "/upload", "upload").replacen(" class=", " enctype=\"multipart/form-data\" class=", 1);
    let _ = write!(html, "{form}\n<p><label for=\"import\">Import</label>\n<select id=\"import\" name=\"import\">");
    for import in &settings.config.imports {
        let _ = write!(html, "<option value=\"{0}\">{0} ({1})</option>", Esc(&import.name), Esc(&import.pattern));
    }
    let _ = write!(
        html,
        "</select></p>\n<p><label for=\"file\">File</label>\n<input id=\"file\" type=\"file\" name=\"file\" required></p>\n\
         <p><button>Upload</button></p>\n</form>\n<p class=\"dim\">CSV, gzip and zstd are recognised. Or drop files into \
         <code>{}{}</code>, or upload them to S3 (<a href=\"/settings\">how</a>).</p>\n",
        Esc(&stage.drop_folder),
        Esc(settings.config.imports.first().map(|import| settings::folder(&import.pattern)).unwrap_or_default()),
    );
    if settings.config.imports.iter().any(|import| import.name == "contacts") {
        html.push_str(
            "<p class=\"dim\">No file at hand? <a href=\"/sample.csv\" download>A sample of 1,000 contacts</a> has the usual faults.</p>\n",
        );
    }
    html.push_str("</section>\n");
}

/// Whether a run is worth a line: a capture or a sync that found nothing to do is, if it is its last one.
fn is_shown(report: &Report, board: &Board) -> bool {
    let did = match (&report.capture, &report.sync) {
        (Some(capture), _) => capture.changes.emitted(),
        (None, Some(sync)) => written(sync) + sync.linked + sync.reviews_opened + sync.reviews_closed,
        (None, None) => return true,
    };
    let is_quiet = did == 0 && report.error.is_none();
    let newest = board.past().find(|other| other.report.job == report.job && other.report.name == report.name);
    !is_quiet || newest.is_some_and(|newest| newest.report.run_id == report.run_id)
}

/// Records that a sync has written, on both sides.
pub(super) fn written(sync: &SyncReport) -> u64 {
    [sync.hubspot, sync.salesforce].iter().map(|side| side.created + side.updated + side.deleted).sum()
}

/// What a sync is between.
fn between(sync: &SyncReport) -> String {
    format!("HubSpot {} and Salesforce {}", sync.hubspot_object, sync.salesforce_object)
}

fn runs(board: &Board) -> String {
    let mut html = String::new();
    let past: Vec<&Report> =
        board.past().map(|past| &past.report).filter(|report| is_shown(report, board)).take(RUNS_SHOWN).collect();
    let live: Vec<&Live> = board.live().collect();
    if past.is_empty() && live.is_empty() {
        return "<p>Nothing ran yet. Upload a file, and watch it here.</p>\n".to_owned();
    }
    html.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Runs\">\n<table class=\"runs\">\n<thead><tr><th scope=\"col\">Run</th>\
         <th scope=\"col\">What it reads</th><th scope=\"col\">How it stands</th><th scope=\"col\" class=\"n\">Rows</th><th scope=\"col\" class=\"n\">\
         Rejected</th></tr></thead>\n<tbody>\n",
    );
    for run in live {
        let rows = run.progress.as_ref().map(|progress| progress.rows).unwrap_or_default();
        let _ = writeln!(
            html,
            "<tr class=\"live\"><th scope=\"row\"><a id=\"run-{0}\" href=\"/runs/{0}\">{1} {2}</a><br>{3}</th><td>{4}</td><td>{5}</td>\
             <td class=\"n\">{6}</td><td class=\"n\">{7}</td></tr>",
            url(&run.run_id),
            Esc(&run.job),
            Esc(&run.name),
            time(run.started_at),
            if run.job == "sync" { "HubSpot and Salesforce".to_owned() } else { breakable(&run.source) },
            progress(run),
            if run.job != "capture" { grouped(rows.read) } else { String::new() },
            if run.job != "capture" { grouped(rows.rejected) } else { String::new() },
        );
    }
    for report in past {
        let Some(id) = &report.run_id else { continue };
        let (source, rows, rejected) = match (&report.capture, &report.sync) {
            (Some(capture), _) => (capture.collection.clone(), grouped(capture.changes.emitted()), String::new()),
            (None, Some(sync)) => (between(sync), grouped(report.rows.read), grouped(report.rows.rejected)),
            (None, None) => (
                hubferry::objects::Location::parse(&report.source.uri)
                    .map_or_else(|| report.source.uri.clone(), |at| at.key),
                grouped(report.rows.read),
                grouped(report.rows.rejected),
            ),
        };
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\"><a id=\"run-{0}\" href=\"/runs/{0}\">{1} {2}</a><br>{3}</th><td>{4}</td><td>{5}</td><td class=\"n\">{6}</td>\
             <td class=\"n{7}\">{8}</td></tr>",
            url(id),
            Esc(&report.job),
            Esc(&report.name),
            time(report.started_at),
            breakable(&source),
            outcome(report),
            rows,
            if report.rows.rejected > 0 { " some" } else { "" },
            rejected,
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    html
}

/// A key, which may be broken at its slashes.
fn breakable(key: &str) -> String {
    esc(key).replace('/', "/<wbr>")
}

/// How a run ended, as a badge.
pub(super) fn outcome(report: &Report) -> String {
    let class = match report.outcome {
        Outcome::Done | Outcome::Duplicate => "good",
        Outcome::Yielded | Outcome::Busy | Outcome::Superseded => "warn",
        Outcome::Failed | Outcome::Invalid | Outcome::Aborted => "bad",
    };
    let code = report.error.as_ref().map(|error| format!(" <code>{}</code>", Esc(&error.code))).unwrap_or_default();
    format!("<span class=\"outcome {class}\">{}</span>{code}", report.outcome.as_str())
}

/// How far a run is: a bar, and what it says.
pub(super) fn progress(run: &Live) -> String {
    let Some(progress) = &run.progress else {
        return if run.waits { "waits to be continued".to_owned() } else { "begins".to_owned() };
    };
    let mut html = String::new();
    if let Some(per_mille) = progress.per_mille {
        let percent = per_mille / 10;
        let _ = write!(
            html,
            "<progress max=\"1000\" value=\"{per_mille}\" aria-label=\"{} {}\">{percent} %</progress> {percent} %",
            Esc(&run.job),
            Esc(&run.name)
        );
    } else {
        let _ = write!(html, "{}", Esc(&progress.doing));
    }
    if run.waits {
        html.push_str(", waits to be continued");
    }
    if let Some(rate) = progress.per_second {
        let _ = write!(html, ", {} a second", grouped(rate));
    }
    if progress.calls.throttled + progress.calls.retried > 0 {
        let calls = &progress.calls;
        let _ = write!(html, "; {} of {} calls repeated", grouped(calls.retried), grouped(calls.total));
    }
    html
}

fn jobs(html: &mut String, stage: &Stage) {
    let settings = stage.settings();
    html.push_str(&form(stage, "/jobs", "row"));
    if !settings.config.captures.is_empty() {
        html.push_str("<button name=\"job\" value=\"capture\">Capture now</button> ");
    }
    if !settings.config.syncs.is_empty() {
        html.push_str("<button name=\"job\" value=\"sync\">Sync now</button> ");
    }
    html.push_str("<button name=\"job\" value=\"resume\">Go on with what was cut off</button></form>\n");
}

fn limits(stage: &Stage, board: &Board) -> String {
    let mut html = String::new();
    for account in &stage.accounts {
        let Some(gauge) = board.gauges.get(&account.name) else { continue };
        let _ = write!(
            html,
            "<div class=\"card\">\n<h3>HubSpot <code>{}</code></h3>\n<p class=\"dim\">{} calls, {} refused by a limit</p>\n",
            Esc(&account.name),
            grouped(gauge.calls),
            grouped(gauge.throttled)
        );
        gauges(&mut html, gauge);
        html.push_str("</div>\n");
    }
    for org in &stage.orgs {
        let Some((used, most)) = board.days.get(&org.name) else { continue };
        let _ = writeln!(html, "<div class=\"card\">\n<h3>Salesforce <code>{}</code></h3>", Esc(&org.name));
        bar(&mut html, "calls in 24 hours", *used, Some(*most));
        html.push_str("</div>\n");
    }
    html
}

fn gauges(html: &mut String, gauge: &Gauge) {
    for one in &gauge.used {
        let what = match one.name {
            "burst" => "calls in 10 seconds",
            "daily" => "calls today",
            _ => "searches in a second",
        };
        let what = match &one.app {
            Some(app) if gauge.used.iter().filter(|other| other.name == one.name).count() > 1 => {
                format!("{what}, {app}")
            }
            _ => what.to_owned(),
        };
        bar(html, &what, one.used, one.limit);
        if one.name == "burst" && gauge.burst.iter().any(|sample| *sample > 0) {
            curve(html, gauge);
        }
    }
}

/// How full a limit is.
fn bar(html: &mut String, what: &str, used: u64, limit: Option<u64>) {
    let Some(limit) = limit else {
        let _ = writeln!(html, "<p class=\"gauge\">{}: {}, no limit</p>", Esc(what), grouped(used));
        return;
    };
    let per_mille = (used.saturating_mul(1_000) / limit.max(1)).min(1_000);
    let class = if per_mille >= 1_000 { "full" } else { "part" };
    let _ = writeln!(
        html,
        "<p class=\"gauge\"><span>{} of {} {}</span><svg viewBox=\"0 0 1000 10\" height=\"10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"track\" width=\"1000\" height=\"10\"/><rect class=\"{class}\" width=\"{per_mille}\" height=\"10\"/></svg></p>",
        grouped(used),
        grouped(limit),
        Esc(what)
    );
}

/// The burst limit's use in the last minutes.
fn curve(html: &mut String, gauge: &Gauge) {
    let count = gauge.burst.len();
    let mut points = String::new();
    for (at, sample) in gauge.burst.iter().enumerate() {
        let x = CURVE_WIDTH - count.min(CURVE_WIDTH) + at;
        let y = CURVE_HEIGHT - sample * CURVE_HEIGHT / 1_000;
        let _ = write!(points, "{x},{y} ");
    }
    let start = CURVE_WIDTH - count.min(CURVE_WIDTH);
    let _ = writeln!(
        html,
        "<svg class=\"curve\" viewBox=\"0 0 {CURVE_WIDTH} {CURVE_HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"Use of the burst limit in the last five minutes\"><polygon points=\"{start},{CURVE_HEIGHT} {points}{},{CURVE_HEIGHT}\"/></svg>",
        CURVE_WIDTH - 1
    );
}

/// Buttons that make things go wrong.
fn trouble(html: &mut String, stage: &Stage) {
    html.push_str(
        "<section class=\"card\" aria-labelledby=\"trouble-title\">\n<h2 id=\"trouble-title\">Trouble on purpose</h2>\n\
         <p class=\"dim\">The next calls meet it. Every row has to be accounted for all the same.</p>\n",
    );
    for place in places::all(stage) {
        let _ = write!(
            html,
            "{}<input type=\"hidden\" name=\"place\" value=\"{}\">",
            form(stage, "/trouble", "trouble"),
            Esc(&place.id)
        );
        let _ = write!(html, "<fieldset><legend>{}</legend>", Esc(&place.name));
        for (what, label, explained) in places::troubles(place.kind) {
            let _ = write!(
                html,
                "<button name=\"what\" value=\"{what}\" title=\"{}\">{}</button> ",
                Esc(explained),
                Esc(label)
            );
        }
        html.push_str("<button name=\"what\" value=\"clear\" class=\"quiet\">Stop it</button></fieldset></form>\n");
    }
    html.push_str("</section>\n");
}
