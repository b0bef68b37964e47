//! Syncs and their review queue: how each sync stands, what a person has to decide and the buttons to do it, what became of decisions, and what one of
//! the two systems will not take.

use std::fmt::Write as _;

use hubferry::{
    config::Sync,
    sync::model::{Canon, Refused, Review, ReviewField, Side},
};
use jiff::Timestamp;

use super::{
    super::{
        board::Board,
        review::{Decided, Decision, Desk, seal},
        stage::{Stage, now},
    },
    Answer, form, framed, overview, places, records, time,
};
use crate::{
    html::{Esc, url},
    review as words,
    status::{SyncJob, age},
    text::{clip, grouped},
};

/// Reviews, and refused records, that are shown; the command line lists all.
const SHOWN_MAX: usize = 50;
/// The longest part of a value that is shown.
const VALUE_CHARS: usize = 500;

/// The page.
pub(super) fn page(stage: &Stage) -> Answer {
    let parts = parts(stage);
    let part = |id: &str| parts.iter().find(|(own, _)| *own == id).map(|(_, html)| html.as_str()).unwrap_or_default();
    let mut html = String::from("<h1>Syncs and what they leave to you</h1>\n");
    let _ = write!(
        html,
        "<p id=\"said\" class=\"visually-hidden\" role=\"status\">{}</p>\n<div id=\"decisions\">{}</div>\n\
         <section aria-labelledby=\"queue-title\">\n<h2 id=\"queue-title\">To decide</h2>\n<div id=\"queue\">{}</div>\n</section>\n\
         <section aria-labelledby=\"syncs-title\">\n<h2 id=\"syncs-title\">Syncs</h2>\n<div id=\"syncs\">{}</div>\n",
        part("said"),
        part("decisions"),
        part("queue"),
        part("syncs")
    );
    if !stage.settings().config.syncs.is_empty() {
        let _ = writeln!(
            html,
            "{}<input type=\"hidden\" name=\"back\" value=\"/review\"><button name=\"job\" value=\"sync\">Sync now</button></form>",
            form(stage, "/jobs", "row")
        );
    }
    let _ = write!(
        html,
        "</section>\n<section aria-labelledby=\"refused-title\">\n<h2 id=\"refused-title\">Refused</h2>\n<div id=\"refused\">{}</div>\n</section>\n",
        part("refused")
    );
    framed(stage, "Review", "/review", Some("/events?view=review"), &html)
}

/// What changes by itself.
pub(super) fn parts(stage: &Stage) -> Vec<(&'static str, String)> {
    let desk = stage.desk();
    let decided = stage.decisions();
    vec![
        ("decisions", decisions(&decided)),
        ("queue", queue(stage, &desk)),
        ("syncs", syncs(stage, &desk)),
        ("refused", refused(stage, &desk)),
        ("said", said(&desk, &decided)),
        ("waiting", waiting(&desk)),
    ]
}

/// One sentence, which a screen reader says when it changes.
fn said(desk: &Desk, decisions: &[Decision]) -> String {
    let last = decisions.first().map(|last| format!("{} ", outcome(last).1)).unwrap_or_default();
    Esc(&format!("{last}{} to decide.", desk.undecided())).to_string()
}

/// How much there is to decide, beside the link that leads here; nothing if there is nothing.
pub(super) fn waiting(desk: &Desk) -> String {
    match desk.undecided() {
        0 => String::new(),
        count => format!("<span class=\"badge\">{count}<span class=\"visually-hidden\"> to decide</span></span>"),
    }
}

/// What the first page says of it.
pub(super) fn summary(desk: &Desk) -> String {
    if desk.syncs.is_empty() {
        return "<p class=\"dim\">No syncs are configured.</p>\n".to_owned();
    }
    let mut html = match desk.undecided() {
        0 => "<p class=\"dim\">There is nothing to decide.</p>\n".to_owned(),
        count => format!("<p><a id=\"review-link\" href=\"/review\">{count} to decide</a></p>\n"),
    };
    if !desk.refused.is_empty() {
        let _ = writeln!(html, "<p><a href=\"/review#refused-title\">{} refused</a></p>", desk.refused.len());
    }
    html
}

/// How each sync stands.
pub(super) fn syncs(stage: &Stage, desk: &Desk) -> String {
    if let Some(trouble) = &desk.trouble {
        return format!("<p class=\"box\" role=\"alert\">It cannot be looked at: {}</p>\n", Esc(trouble));
    }
    if desk.syncs.is_empty() {
        return "<p>No syncs are configured.</p>\n".to_owned();
    }
    let board = stage.board();
    let mut html = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Syncs\">\n<table>\n<thead><tr><th scope=\"col\">Sync</th>\
         <th scope=\"col\">Last run</th><th scope=\"col\">In step to</th><th scope=\"col\" class=\"n\">To decide</th><th scope=\"col\" class=\"n\">Refused</th>\
         </tr></thead>\n<tbody>\n",
    );
    for sync in &desk.syncs {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}<br><span class=\"dim\">HubSpot {} and Salesforce {}</span></th><td>{}</td><td>{}</td><td class=\"n\">{}</td>\
             <td class=\"n{}\">{}</td></tr>",
            Esc(&sync.job.name),
            Esc(&sync.hubspot_object),
            Esc(&sync.salesforce_object),
            last_run(&board, sync),
            lag(sync),
            grouped(sync.reviews as u64),
            if sync.refused > 0 { " some" } else { "" },
            grouped(sync.refused as u64),
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    html
}

fn last_run(board: &Board, sync: &SyncJob) -> String {
    if let Some(live) = board.live().find(|live| live.job == "sync" && live.name == sync.job.name) {
        return format!("<a href=\"/runs/{}\">{}</a>", url(&live.run_id), overview::progress(live));
    }
    match (board.last_sync(&sync.job.name), &sync.job.last_run) {
        (Some(report), _) => format!(
            "{} <a href=\"/runs/{}\">{}</a>",
            overview::outcome(report),
            url(report.run_id.as_deref().unwrap_or_default()),
            time(report.finished_at)
        ),
        (None, Some(last)) => format!("{} {}", last.outcome.as_str(), time(last.finished_at)),
        (None, None) => "<span class=\"dim\">never ran</span>".to_owned(),
    }
}

/// How far each side has come, and how long ago that was.
fn lag(sync: &SyncJob) -> String {
    let at = |name: &str| {
        let text = sync.job.position.as_ref()?.get(name)?.as_str()?;
        text.parse::<Timestamp>().ok()
    };
    let shown = |name: &str, at: Timestamp| {
        // In steps, so that a page which is followed is not written anew all the time.
        let seconds = now().duration_since(at).as_secs().max(0);
        let step = if seconds < 120 { 10 } else { 60 };
        format!("<div>{name} {} <span class=\"dim\">{} ago</span></div>", time(at), age(seconds - seconds % step))
    };
    match (at("hubspotTimestamp"), at("salesforceTimestamp")) {
        (Some(hubspot), Some(salesforce)) => {
            format!("{}{}", shown("HubSpot", hubspot), shown("Salesforce", salesforce))
        }
        _ => "<span class=\"dim\">not yet</span>".to_owned(),
    }
}

/// The queue, with what there is to press.
fn queue(stage: &Stage, desk: &Desk) -> String {
    if desk.syncs.is_empty() && desk.trouble.is_none() {
        return "<p>No syncs are configured.</p>\n".to_owned();
    }
    if desk.reviews.is_empty() {
        return "<p>There is nothing to decide. Change the same field of a record on both sides, to different values, and the next run of the sync \
                asks here.</p>\n"
            .to_owned();
    }
    let mut html = String::new();
    let settings = stage.settings();
    for review in desk.reviews.iter().take(SHOWN_MAX) {
        let sync = settings.config.syncs.iter().find(|sync| sync.name == review.sync);
        card(&mut html, stage, review, sync);
    }
    more(&mut html, desk.reviews.len(), "hubferry review list");
    html
}

fn more(html: &mut String, count: usize, command: &str) {
    if let Some(more @ 1..) = count.checked_sub(SHOWN_MAX) {
        let _ = writeln!(html, "<p>and {} more: <code>{command}</code> lists them all.</p>", grouped(more as u64));
    }
}

/// One thing to decide.
fn card(html: &mut String, stage: &Stage, review: &Review, sync: Option<&Sync>) {
    let id = url(&review.id);
    let what = match &review.field {
        Some(field) => format!("{} / {}", field.hubspot, field.salesforce),
        None => words::kind(review.kind).to_owned(),
    };
    let _ = write!(
        html,
        "<section class=\"card review\" aria-labelledby=\"item-{id}\">\n<h3 id=\"item-{id}\">{}</h3>\n<p class=\"dim\">{} in sync {}, {}, \
         <code>{}</code></p>\n<p>{}</p>\n",
        Esc(&what),
        words::kind(review.kind),
        Esc(&review.sync),
        time(review.opened_at),
        Esc(&review.id),
        Esc(&sentence(&review.why)),
    );
    match &review.field {
        Some(field) => values(html, review, field, sync),
        None => {
            let _ = writeln!(html, "<p>{}</p>", both(sync, review.hubspot_id.as_deref(), salesforce_id(review)));
        }
    }
    if review.choice.is_some() {
        html.push_str("<p><strong>It is decided;</strong> the next run of the sync carries it out.</p>\n</section>\n");
        return;
    }
    choices(html, stage, review, sync);
    html.push_str("</section>\n");
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

fn salesforce_id(review: &Review) -> Option<&str> {
    review.salesforce_id.as_ref().map(|id| id.as_str())
}

/// The values of both sides, now and when they were in step.
fn values(html: &mut String, review: &Review, field: &ReviewField, sync: Option<&Sync>) {
    html.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Both values\">\n<table>\n<thead><tr><th scope=\"col\">Where</th>\
         <th scope=\"col\">Now</th><th scope=\"col\">When in step</th></tr></thead>\n<tbody>\n",
    );
    for (side, id, name, now, before) in [
        (Side::Hubspot, review.hubspot_id.as_deref(), &field.hubspot, &field.hubspot_value, &field.hubspot_before),
        (Side::Salesforce, salesforce_id(review), &field.salesforce, &field.salesforce_value, &field.salesforce_before),
    ] {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{} <code>{}</code><br>{}</th><td>{}</td><td class=\"dim\">{}</td></tr>",
            side.name(),
            Esc(name),
            record(sync, side, id),
            value(now),
            value(before)
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
}

fn value(value: &Canon) -> String {
    match value {
        Some(value) => Esc(&clip(value, VALUE_CHARS)).to_string(),
        None => "<span class=\"dim\">(blank)</span>".to_owned(),
    }
}

/// A record as a link to it, where it is known where it is.
fn record(sync: Option<&Sync>, side: Side, id: Option<&str>) -> String {
    let Some(id) = id else { return "<span class=\"dim\">no record</span>".to_owned() };
    let Some(sync) = sync else { return Esc(id).to_string() };
    let (place, object) = match side {
        Side::Hubspot => (records::address(places::Kind::HubSpot, &sync.hubspot), sync.hubspot_object.as_str()),
        Side::Salesforce => {
            (records::address(places::Kind::Salesforce, &sync.salesforce), sync.salesforce_object.as_str())
        }
    };
    format!("<a href=\"{place}/{}/{}\">{} {}</a>", url(object), url(id), Esc(object), Esc(id))
}

fn both(sync: Option<&Sync>, hubspot: Option<&str>, salesforce: Option<&str>) -> String {
    let sides = [(Side::Hubspot, hubspot), (Side::Salesforce, salesforce)];
    let there = sides.into_iter().filter(|(_, id)| id.is_some());
    let all: Vec<String> = there.map(|(side, id)| format!("{} {}", side.name(), record(sync, side, id))).collect();
    all.join(", ")
}

/// The buttons: a side, a record, leaving it; and a value of one's own, which Enter sends.
fn choices(html: &mut String, stage: &Stage, review: &Review, sync: Option<&Sync>) {
    let (id, seal) = (url(&review.id), seal(review));
    let action = format!("/review/{id}");
    let begin = |class: &str| {
        format!("{}<input type=\"hidden\" name=\"shown\" value=\"{}\">", form(stage, &action, class), Esc(&seal))
    };
    let offered = words::choices(review.kind);
    let about = review.field.as_ref().map(|field| format!(" for {}", field.hubspot)).unwrap_or_default();
    html.push_str(&begin("row decide"));
    // As in the table above: HubSpot first.
    for word in ["hubspot", "salesforce", "keep"].into_iter().filter(|word| offered.contains(word)) {
        let (_, means) = words::meaning(review, word);
        let label = match (word, &review.field) {
            ("hubspot", Some(_)) => "Take HubSpot's value",
            ("salesforce", Some(_)) => "Take Salesforce's value",
            (_, Some(_)) => "Keep both",
            (_, None) => means.as_str(),
        };
        let _ = write!(
            html,
            "<button id=\"{word}-{id}\" name=\"choose\" value=\"{word}\" title=\"{}\">{}<span class=\"visually-hidden\">{}</span></button> ",
            Esc(&means),
            Esc(label),
            Esc(&about),
        );
    }
    if !review.candidates.is_empty() && offered.contains(&"value") && review.field.is_none() {
        let side = review.candidates_of.unwrap_or(Side::Salesforce);
        for candidate in review.candidates.iter().take(SHOWN_MAX) {
            let _ = write!(
                html,
                "<button name=\"choose\" value=\"value:{}\">It is {} {}</button> {} ",
                Esc(candidate),
                side.name(),
                Esc(candidate),
                record(sync, side, Some(candidate))
            );
        }
    }
    html.push_str("</form>\n");
    if offered.contains(&"value") {
        let (label, hint) = match review.field {
            Some(_) => ("Another value", "it is written on both sides; empty is blank"),
            None => ("Another record's id", "of the other side"),
        };
        let _ = writeln!(
            html,
            "{}<label for=\"value-{id}\">{label}</label> <input id=\"value-{id}\" name=\"value\" autocomplete=\"off\"> \
             <button id=\"own-{id}\" name=\"choose\" value=\"value\">Take it</button> <span class=\"dim\">{hint}</span></form>",
            begin("row decide")
        );
    }
}

/// What became of what was decided here.
fn decisions(decisions: &[Decision]) -> String {
    if decisions.is_empty() {
        return String::new();
    }
    let mut html = String::from("<ul class=\"notices\" role=\"log\" aria-label=\"What became of your decisions\">\n");
    for decision in decisions {
        let (class, text) = outcome(decision);
        let _ = writeln!(
            html,
            "<li>{} <span class=\"{class}\">{}</span> <span class=\"dim\">({})</span></li>",
            time(decision.at),
            Esc(&text),
            Esc(&decision.id)
        );
    }
    html.push_str("</ul>\n");
    html
}

/// How a decision ended: a class of the style, and a sentence.
fn outcome(decision: &Decision) -> (&'static str, String) {
    match &decision.state {
        Decided::Working => ("warn", "Your decision is being carried out.".to_owned()),
        Decided::Applied(written) => ("good", format!("Carried out: {written}.")),
        Decided::Open(why) => ("bad", format!("Not carried out, and open again: {}.", why.join("; "))),
        Decided::Waits(run) => ("warn", format!("Stored. Run {run} is at work; the sync carries it out after it.")),
        Decided::Failed(what, hint) => ("bad", format!("Not carried out: {what}. {hint}")),
    }
}

/// What one side will not take: it waits for a correction, not for a decision.
fn refused(stage: &Stage, desk: &Desk) -> String {
    if desk.refused.is_empty() {
        return "<p class=\"dim\">Nothing is refused.</p>\n".to_owned();
    }
    let settings = stage.settings();
    let mut html = String::from(
        "<p>These wait for a correction: they are sent again when they change.</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Refused\">\n<table>\n<thead><tr><th scope=\"col\">Record</th><th scope=\"col\">By</th><th scope=\"col\">Why</th>\
         <th scope=\"col\">Since</th></tr></thead>\n<tbody>\n",
    );
    for (name, refused) in desk.refused.iter().take(SHOWN_MAX) {
        let sync = settings.config.syncs.iter().find(|sync| sync.name == *name);
        let Refused { hubspot_id, salesforce_id, by, field, code, reason, hint, at, .. } = refused;
        let salesforce = salesforce_id.as_ref().map(|id| id.as_str());
        let field = field.as_ref().map(|field| format!(" <code>{}</code>", Esc(field))).unwrap_or_default();
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}<br><span class=\"dim\">sync {}</span></th><td>{}{field}</td><td class=\"why\"><code>{}</code> {}<br>\
             <span class=\"dim\">{}</span></td><td>{}</td></tr>",
            both(sync, hubspot_id.as_deref(), salesforce),
            Esc(name),
            by.name(),
            Esc(code),
            Esc(reason),
            Esc(hint),
            time(*at)
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    more(&mut html, desk.refused.len(), "hubferry review list --refused");
    html
}

/// The record on the other side that this one is kept in step with, as far as the record says.
pub(super) fn counterpart(
    stage: &Stage,
    side: Side,
    place: &str,
    object: &str,
    value: impl Fn(&str) -> String,
) -> String {
    let settings = stage.settings();
    let mut html = String::new();
    for sync in &settings.config.syncs {
        let Some(links) = hubferry::sync::fields::links_of(sync) else { continue };
        let (here, own, link) = match side {
            Side::Hubspot => (&sync.hubspot, sync.hubspot_object.as_str(), &links.hubspot_property),
            Side::Salesforce => (&sync.salesforce, sync.salesforce_object.as_str(), &links.salesforce_field),
        };
        let id = value(link);
        if here == place && own.eq_ignore_ascii_case(object) && !id.is_empty() {
            let _ = writeln!(
                html,
                "<p>Kept in step by sync {} with {} {}</p>",
                Esc(&sync.name),
                side.other().name(),
                record(Some(sync), side.other(), Some(&id))
            );
        }
    }
    html
}
