//! One run: how far it is, or how it ended, and its rejects, which can be corrected where they stand.

use std::fmt::Write as _;

use hubferry::report::{Report, SyncReport};
use hyper::header;

use super::{
    super::{
        http::{Answer, Asked},
        stage::Stage,
    },
    HTML, attachment, form, framed, missing,
    overview::{outcome, progress},
    page_number, pager,
    rejects::{PER_PAGE, Rejects, corrected_key},
    time,
};
use crate::{
    html::{Esc, url},
    report as whole,
    text::grouped,
};

/// Characters of a cell beyond which its field becomes an area.
const LONG_CELL: usize = 60;

/// The page.
pub(super) fn page(stage: &Stage, run: &str, asked: &Asked) -> Answer {
    let live = format!("/events?run={}", url(run));
    let board = stage.board();
    let is_live = board.live_run(run).is_some();
    drop(board);
    let report = stage.report(run).map(|(report, _)| report);
    if !is_live && report.is_none() {
        return missing(stage, &format!("There is no run {run}, or its report is not there yet."));
    }
    let mut html = String::from("<p class=\"crumbs\"><a href=\"/\">Runs</a></p>\n");
    let title = match &report {
        Some(report) => format!("{} {}", report.job, report.name),
        None => "Run".to_owned(),
    };
    let _ = write!(html, "<h1>{}</h1>\n<p class=\"dim\">Run <code>{}</code></p>\n", Esc(&title), Esc(run));
    let _ = writeln!(
        html,
        "<p id=\"said\" class=\"visually-hidden\" role=\"status\"></p>\n<div id=\"run\">{}</div>",
        state(stage, run)
    );
    if !is_live && let Some(report) = &report {
        rejects_table(&mut html, stage, run, report, page_number(asked));
    } else {
        html.push_str("<div id=\"after\"></div>\n");
    }
    framed(stage, &title, "/", is_live.then_some(live.as_str()), &html)
}

/// What changes by itself. When the run is over the rejects appear.
pub(super) fn parts(stage: &Stage, run: &str) -> Vec<(&'static str, String)> {
    let is_live = stage.board().live_run(run).is_some();
    let mut all = vec![("run", state(stage, run))];
    if let Some((report, _)) = stage.report(run).filter(|_| !is_live) {
        let mut after = String::new();
        rejects_table(&mut after, stage, run, &report, 1);
        all.push(("after", after));
        all.push(("said", format!("The run ended: {}.", report.outcome.as_str())));
    }
    all
}

/// How far it is, or how it ended.
fn state(stage: &Stage, run: &str) -> String {
    let board = stage.board();
    if let Some(live) = board.live_run(run) {
        let mut html = String::new();
        let _ = write!(
            html,
            "<p>{} {} {} <code>{}</code>, since {}</p>\n<p class=\"big\">{}</p>\n",
            Esc(&live.job),
            Esc(&live.name),
            if live.job == "sync" { "works, with reports in" } else { "reads" },
            Esc(&live.source),
            time(live.started_at),
            progress(live)
        );
        if let Some(progress) = live.progress.as_ref().filter(|_| live.job == "import") {
            counts(&mut html, &progress.rows);
            let _ = writeln!(
                html,
                "<p class=\"dim\">{} calls, {} on their way</p>",
                grouped(progress.calls.total),
                progress.in_flight
            );
        }
        return html;
    }
    drop(board);
    let Some((report, _)) = stage.report(run) else { return "<p>Its report is on its way.</p>\n".to_owned() };
    let mut html = String::new();
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = report.duration_ms as f64 / 1_000.0;
    let _ = writeln!(html, "<p class=\"big\">{} after {seconds:.1} s</p>", outcome(&report));
    if let Some(error) = &report.error {
        let _ = writeln!(
            html,
            "<p class=\"box\" role=\"alert\"><strong>{}</strong> {}<br>{}</p>",
            Esc(&error.code),
            Esc(&error.message),
            Esc(&error.hint)
        );
    }
    let _ = writeln!(html, "<p><code>{}</code>, {}</p>", Esc(&report.source.uri), time(report.started_at));
    match (&report.capture, &report.sync) {
        (None, Some(sync)) => sync_counts(&mut html, &report, sync),
        (Some(capture), _) => {
            let changes = &capture.changes;
            let _ = writeln!(
                html,
                "<p>{} in the snapshot, {} created, {} updated, {} deleted; {} objects in <code>{}</code></p>",
                grouped(changes.snapshot),
                grouped(changes.create),
                grouped(changes.update),
                grouped(changes.delete),
                grouped(capture.objects),
                Esc(&capture.output)
            );
        }
        (None, None) => counts(&mut html, &report.rows),
    }
    let _ = write!(
        html,
        "<ul class=\"links\"><li><a id=\"report-link\" href=\"/runs/{0}/report\">The whole report</a></li><li><a id=\"json-link\" \
         href=\"/runs/{0}/report.json\">as JSON</a></li>",
        url(run)
    );
    if report.rejects.is_some() {
        let _ = write!(
            html,
            "<li><a id=\"rejects-link\" href=\"/runs/{}/rejects\">Download the rejects</a></li>",
            url(run)
        );
    }
    html.push_str("</ul>\n");
    html
}

/// What a sync wrote where, and what it left.
fn sync_counts(html: &mut String, report: &Report, sync: &SyncReport) {
    let _ = write!(
        html,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"What was written\">\n<table class=\"narrow\">\n<thead><tr><th scope=\"col\">\
         Records</th><th scope=\"col\" class=\"n\">HubSpot {}</th><th scope=\"col\" class=\"n\">Salesforce {}</th></tr></thead>\n<tbody>\n",
        Esc(&sync.hubspot_object),
        Esc(&sync.salesforce_object)
    );
    let (hubspot, salesforce) = (&sync.hubspot, &sync.salesforce);
    for (what, here, there) in [
        ("created", hubspot.created, salesforce.created),
        ("updated", hubspot.updated, salesforce.updated),
        ("fields cleared", hubspot.blanked, salesforce.blanked),
        ("deleted", hubspot.deleted, salesforce.deleted),
        ("calls", report.calls.total, sync.salesforce_calls),
    ] {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{what}</th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            grouped(here),
            grouped(there)
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    counts(html, &report.rows);
    let _ = writeln!(
        html,
        "<p>{} new links; reviews: {} opened, {} closed, <a href=\"/review\">{} wait for you</a></p>",
        grouped(sync.linked),
        grouped(sync.reviews_opened),
        grouped(sync.reviews_closed),
        grouped(sync.review_open)
    );
    for note in &report.notes {
        let _ = writeln!(html, "<p class=\"dim\">{}</p>", Esc(note));
    }
}

fn counts(html: &mut String, rows: &hubferry::report::Counts) {
    let all = [
        ("read", rows.read),
        ("created", rows.created),
        ("updated", rows.updated),
        ("unchanged", rows.unchanged),
        ("merged", rows.merged),
        ("rejected", rows.rejected),
        ("deferred", rows.deferred),
    ];
    html.push_str("<dl class=\"counts\">\n");
    for (name, count) in all {
        let _ = writeln!(
            html,
            "<div class=\"{name}\"><dt>{name}</dt><dd id=\"count-{name}\">{}</dd></div>",
            grouped(count)
        );
    }
    html.push_str("</dl>\n");
}

/// The rejects as fields that can be corrected.
fn rejects_table(html: &mut String, stage: &Stage, run: &str, report: &Report, page: usize) {
    if report.rejects.is_none() {
        return;
    }
    let Some(rejects) = Rejects::of(stage, report) else {
        html.push_str("<h2>Rejects</h2>\n<p>They are not shown here: download them.</p>\n");
        return;
    };
    let source = hubferry::objects::Location::parse(&report.source.uri).map(|at| at.key).unwrap_or_default();
    let _ = write!(
        html,
        "<section aria-labelledby=\"rejects-title\">\n<h2 id=\"rejects-title\">Rejects</h2>\n<p>{} rows were not delivered. Correct them here and \
         send them again, or in a spreadsheet.</p>\n{}<input type=\"hidden\" name=\"page\" value=\"{page}\">\n<div class=\"scroll\" tabindex=\"0\" \
         role=\"region\" aria-label=\"Rejects\">\n<table class=\"rejects\">\n<thead><tr><th scope=\"col\" class=\"n\">Line</th><th scope=\"col\">Why</th>",
        grouped(rejects.len() as u64),
        form(stage, &format!("/runs/{}/corrected", url(run)), "corrections"),
    );
    for column in rejects.columns() {
        let _ = write!(html, "<th scope=\"col\">{}</th>", Esc(column));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (number, reject) in rejects.page(page) {
        let _ = write!(
            html,
            "<tr><th scope=\"row\" class=\"n\">{}</th><td class=\"why\"><code>{}</code> {}<br><span class=\"dim\">{}</span></td>",
            Esc(reject.line),
            Esc(reject.code),
            Esc(reject.reason),
            Esc(reject.hint)
        );
        for (at, column) in rejects.columns().iter().enumerate() {
            let cell = reject.cells.get(at).map(String::as_str).unwrap_or_default();
            let name = format!("r{number}c{at}");
            // The reason names the column it is about.
            let class = if reject.reason.contains(&format!("`{column}`")) { " class=\"wrong\"" } else { "" };
            let label = format!("{column}, line {}", reject.line);
            let _ = if cell.contains('\n') || cell.chars().count() > LONG_CELL {
                write!(
                    html,
                    "<td{class}><textarea name=\"{name}\" aria-label=\"{}\" rows=\"2\">\n{}</textarea></td>",
                    Esc(&label),
                    Esc(cell)
                )
            } else {
                write!(
                    html,
                    "<td{class}><input name=\"{name}\" aria-label=\"{}\" value=\"{}\" autocomplete=\"off\"></td>",
                    Esc(&label),
                    Esc(cell)
                )
            };
        }
        html.push_str("</tr>\n");
    }
    let shown = rejects.page(page).count();
    let _ = write!(
        html,
        "</tbody>\n</table>\n</div>\n<p><button>Import {} again</button> <span class=\"dim\">as <code>{}</code></span></p>\n</form>\n{}</section>\n",
        if shown == 1 { "this row".to_owned() } else { format!("these {shown} rows") },
        Esc(&corrected_key(&source)),
        pager(rejects.len(), page, PER_PAGE, &format!("/runs/{}?page=", url(run)), ["Before", "After"])
    );
}

/// The report as a page of its own.
pub(super) fn report(stage: &Stage, run: &str) -> Answer {
    match stage.report(run) {
        // The page is one file: its style is in it, and it has no script.
        Some((report, _)) => Answer::new(200, HTML, whole::page(&report, whole::Links::Page)).with(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        None => missing(stage, &format!("There is no report of the run {run}.")),
    }
}

/// The report as it is stored.
pub(super) fn report_json(stage: &Stage, run: &str) -> Answer {
    match stage.report(run) {
        Some((_, bytes)) => Answer::new(200, "application/json", bytes),
        None => missing(stage, &format!("There is no report of the run {run}.")),
    }
}

/// The rejects as they are stored.
pub(super) fn rejects(stage: &Stage, run: &str) -> Answer {
    let at = stage.report(run).and_then(|(report, _)| hubferry::objects::Location::parse(report.rejects.as_deref()?));
    let bytes = at.as_ref().and_then(|at| stage.cloud.s3().read(&at.bucket, &at.key));
    match (at, bytes) {
        (Some(at), Some(bytes)) => {
            let name = at.key.rsplit('/').next().unwrap_or("rejects.csv").to_owned();
            attachment(Answer::new(200, "text/csv; charset=utf-8", bytes), &name)
        }
        _ => missing(stage, &format!("The run {run} has no rejects.")),
    }
}
