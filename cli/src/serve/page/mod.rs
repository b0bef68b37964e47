//! The page: what is asked for, and the frame around it. Rendered here, with a little script that puts in what is new; without the script everything
//! works by reloading.

mod actions;
mod files;
mod overview;
mod places;
mod records;
mod rejects;
mod review;
mod run;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use hyper::{Method, header};
use jiff::Timestamp;

use super::{
    http::{Answer, Asked},
    stage::Stage,
};
use crate::html::{Esc, url};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const ICON: &str = include_str!("icon.svg");

const HTML: &str = "text/html; charset=utf-8";

/// What a stream of events follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// The first page.
    Overview,
    /// A run.
    Run(String),
    /// Syncs and the review queue.
    Review,
}

/// What is to be followed, if the request asks for a stream.
pub(super) fn view(asked: &Asked) -> Option<View> {
    if asked.method != Method::GET || asked.path != ["events"] {
        return None;
    }
    Some(match (asked.query("run"), asked.query("view")) {
        (Some(run), _) => View::Run(run.to_owned()),
        (None, Some("review")) => View::Review,
        (None, _) => View::Overview,
    })
}

/// The parts of a page that change by themselves: the id of the element, and what is in it.
pub(super) fn parts(stage: &Stage, view: &View) -> Vec<(&'static str, String)> {
    match view {
        View::Overview => overview::parts(stage),
        View::Run(run) => run::parts(stage, run),
        View::Review => review::parts(stage),
    }
}

/// The answer to anything but a stream.
pub(super) fn answer(stage: &Stage, asked: &Asked) -> Answer {
    let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
    if asked.method == Method::POST {
        return actions::post(stage, asked, &path);
    }
    match path.as_slice() {
        [] => overview::page(stage),
        ["style.css"] => Answer::new(200, "text/css; charset=utf-8", STYLE),
        ["script.js"] => Answer::new(200, "text/javascript; charset=utf-8", SCRIPT),
        ["icon.svg"] => Answer::new(200, "image/svg+xml", ICON),
        ["sample.csv"] => files::sample(stage),
        ["runs", run] => run::page(stage, run, asked),
        ["runs", run, "report"] => run::report(stage, run),
        ["runs", run, "report.json"] => run::report_json(stage, run),
        ["runs", run, "rejects"] => run::rejects(stage, run),
        ["hubspot", account] => records::objects(stage, places::Kind::HubSpot, account),
        ["salesforce", org] => records::objects(stage, places::Kind::Salesforce, org),
        ["hubspot", account, object] => records::list(stage, places::Kind::HubSpot, account, object, asked),
        ["salesforce", org, object] => records::list(stage, places::Kind::Salesforce, org, object, asked),
        ["hubspot", account, object, id] => records::hubspot(stage, account, object, id, asked),
        ["salesforce", org, object, id] => records::salesforce(stage, org, object, id, asked),
        ["review"] => review::page(stage),
        ["files"] => files::list(stage, asked),
        ["files", bucket, key @ ..] => files::download(stage, bucket, &key.join("/")),
        ["settings"] => files::settings(stage),
        _ => missing(stage, "There is no such page."),
    }
}

/// What is not there.
fn missing(stage: &Stage, what: &str) -> Answer {
    let mut html = String::new();
    let _ = write!(html, "<h1>Not found</h1>\n<p>{}</p>\n<p><a href=\"/\">To the runs</a></p>\n", Esc(what));
    let mut answer = framed(stage, "Not found", "", None, &html);
    answer.status = 404;
    answer
}

/// A page with its frame. `at` is the address of the navigation's link that stands for it, `live` what the script follows.
fn framed(stage: &Stage, title: &str, at: &str, live: Option<&str>, main: &str) -> Answer {
    let mut links = vec![("/".to_owned(), "Runs".to_owned())];
    let several = stage.accounts.len() > 1;
    for account in &stage.accounts {
        let name = if several { format!("HubSpot {}", account.name) } else { "HubSpot".to_owned() };
        links.push((format!("/hubspot/{}", url(&account.name)), name));
    }
    let several = stage.orgs.len() > 1;
    for org in &stage.orgs {
        let name = if several { format!("Salesforce {}", org.name) } else { "Salesforce".to_owned() };
        links.push((format!("/salesforce/{}", url(&org.name)), name));
    }
    for (address, name) in [("/review", "Review"), ("/files", "Files"), ("/settings", "Settings")] {
        links.push((address.to_owned(), name.to_owned()));
    }
    let waiting = review::waiting(&stage.desk());
    let mut html = String::with_capacity(main.len() + 2_048);
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} - hubferry</title>\n<link rel=\"icon\" href=\"/icon.svg\">\n\
         <link rel=\"stylesheet\" href=\"/style.css\">\n<script src=\"/script.js\" defer></script>\n</head>\n<body",
        Esc(title)
    );
    if let Some(live) = live {
        let _ = write!(html, " data-live=\"{}\"", Esc(live));
    }
    html.push_str(
        ">\n<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<header class=\"top\">\n<a class=\"brand\" href=\"/\"><img src=\"/icon.svg\" \
         alt=\"\" width=\"24\" height=\"24\"> hubferry <span>local cloud</span></a>\n<nav aria-label=\"Main\">\n<ul>\n",
    );
    for (address, name) in links {
        let here = if address == at { " aria-current=\"page\"" } else { "" };
        let badge = match address.as_str() {
            "/review" => format!(" <span id=\"waiting\">{waiting}</span>"),
            _ => String::new(),
        };
        let _ = writeln!(html, "<li><a href=\"{}\"{here}>{}{badge}</a></li>", Esc(&address), Esc(&name));
    }
    html.push_str("</ul>\n</nav>\n</header>\n<p id=\"lost\" role=\"alert\" hidden>The local cloud does not answer: it was stopped, or is being started again.</p>\n");
    let _ = write!(html, "<main id=\"main\" tabindex=\"-1\">\n{main}</main>\n</body>\n</html>\n");
    Answer::new(200, HTML, html)
}

/// A form that changes something: its beginning, with the token.
fn form(stage: &Stage, action: &str, class: &str) -> String {
    format!(
        "<form method=\"post\" action=\"{}\" class=\"{class}\"><input type=\"hidden\" name=\"token\" value=\"{}\">",
        Esc(action),
        Esc(&stage.token)
    )
}

/// A moment. The script shows it in the reader's own time zone.
fn time(at: Timestamp) -> String {
    format!("<time datetime=\"{at:.0}\">{}</time>", at.strftime("%Y-%m-%d %H:%M:%SZ"))
}

/// A file to be kept, under this name.
fn attachment(answer: Answer, name: &str) -> Answer {
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    answer.with(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))
}

/// How many pages of `per_page` there are, and links to those beside this one. `address` ends where the page's number follows; `words` are said
/// of the page before and the one after.
fn pager(total: usize, page: usize, per_page: usize, address: &str, words: [&str; 2]) -> String {
    let pages = total.div_ceil(per_page).max(1);
    if pages < 2 {
        return String::new();
    }
    let mut html = String::from("<nav class=\"pager\" aria-label=\"Pages\">");
    if page > 1 {
        let _ = write!(html, "<a rel=\"prev\" href=\"{}{}\">{}</a> ", Esc(address), page - 1, words[0]);
    }
    let _ = write!(html, "<span>Page {page} of {pages}</span>");
    if page < pages {
        let _ = write!(html, " <a rel=\"next\" href=\"{}{}\">{}</a>", Esc(address), page + 1, words[1]);
    }
    html.push_str("</nav>\n");
    html
}

/// The page that a query asks for, from 1 on.
fn page_number(asked: &Asked) -> usize {
    asked.query("page").and_then(|page| page.parse().ok()).unwrap_or(1).clamp(1, 1_000_000)
}
