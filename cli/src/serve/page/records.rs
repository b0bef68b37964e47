//! The records of the simulated places: which objects there are, records by words, one record with all that it was, and forms to edit it.

use std::fmt::Write as _;

use hubferry::sync::model::Side;
use jiff::Timestamp;

use super::{
    super::{
        http::{Answer, Asked},
        stage::Stage,
    },
    form, framed, missing, page_number, pager,
    places::Kind,
    review, time,
};
use crate::{
    html::{Esc, url},
    text::grouped,
};

/// Records on a page.
const PER_PAGE: usize = 25;
/// Writes of a record that are shown, the newest.
const WRITES_SHOWN: usize = 100;

/// The address of a place.
pub(super) fn address(kind: Kind, place: &str) -> String {
    format!("/{}/{}", kind.path(), url(place))
}

/// The objects of a place, with how many records each has.
pub(super) fn objects(stage: &Stage, kind: Kind, place: &str) -> Answer {
    let counts: Option<Vec<(String, usize, usize)>> = match kind {
        Kind::HubSpot => stage.account(place).map(|account| {
            let all = account.lock().object_types();
            all.into_iter().map(|one| (one.name, one.live, one.archived)).collect()
        }),
        _ => stage.org(place).map(|org| {
            let all = org.lock().object_types();
            all.into_iter().map(|one| (one.name, one.live, one.deleted)).collect()
        }),
    };
    let Some(mut counts) = counts else { return missing(stage, "There is no such account.") };
    counts.sort_by_key(|(_, live, bin)| *live + *bin == 0);
    let here = address(kind, place);
    let mut html = String::new();
    let _ = write!(
        html,
        "<h1>{} <code>{}</code></h1>\n<table>\n<thead><tr><th scope=\"col\">Object</th><th scope=\"col\" class=\"n\">Records</th>\
         <th scope=\"col\" class=\"n\">In the recycle bin</th></tr></thead>\n<tbody>\n",
        kind.name(),
        Esc(place)
    );
    for (name, live, bin) in counts {
        let _ = writeln!(
            html,
            "<tr{}><th scope=\"row\"><a href=\"{here}/{}\">{}</a></th><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            if live + bin == 0 { " class=\"dim\"" } else { "" },
            url(&name),
            Esc(&name),
            grouped(live as u64),
            grouped(bin as u64)
        );
    }
    html.push_str("</tbody>\n</table>\n");
    framed(stage, kind.name(), &here, None, &html)
}

/// A list of either place.
struct Rows {
    total: usize,
    columns: Vec<String>,
    rows: Vec<(String, bool, Timestamp, Vec<String>)>,
}

/// Records of one object, by words.
pub(super) fn list(stage: &Stage, kind: Kind, place: &str, object: &str, asked: &Asked) -> Answer {
    let words = asked.query("q").unwrap_or_default();
    let page = page_number(asked);
    let offset = (page - 1).saturating_mul(PER_PAGE);
    let found = match kind {
        Kind::HubSpot => stage.account(place).and_then(|account| {
            let found = account.lock().look_for(object, words, offset, PER_PAGE)?;
            let rows = found.rows.into_iter().map(|row| (row.id, row.archived, row.updated_at, row.values));
            Some(Rows { total: found.total, columns: found.columns, rows: rows.collect() })
        }),
        _ => stage.org(place).and_then(|org| {
            let found = org.lock().look_for(object, words, offset, PER_PAGE)?;
            let rows = found.rows.into_iter().map(|row| (row.id, row.deleted, row.modified_at, row.values));
            Some(Rows { total: found.total, columns: found.columns, rows: rows.collect() })
        }),
    };
    let Some(found) = found else { return missing(stage, "There is no such object.") };
    let place_at = address(kind, place);
    let here = format!("{place_at}/{}", url(object));
    let mut html = String::new();
    let _ = write!(
        html,
        "<p class=\"crumbs\"><a href=\"{place_at}\">{} {}</a></p>\n<h1>{}</h1>\n<form method=\"get\" action=\"{here}\" role=\"search\" class=\"row\">\
         <label for=\"q\">Search</label> <input id=\"q\" type=\"search\" name=\"q\" value=\"{}\" placeholder=\"words in any value\"> \
         <button>Search</button></form>\n<p id=\"found\">{} {}</p>\n",
        kind.name(),
        Esc(place),
        Esc(object),
        Esc(words),
        grouped(found.total as u64),
        if found.total == 1 { "record" } else { "records" },
    );
    html.push_str("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Records\">\n<table>\n<thead><tr><th scope=\"col\">Id</th>");
    for column in &found.columns {
        let _ = write!(html, "<th scope=\"col\">{}</th>", Esc(column));
    }
    html.push_str("<th scope=\"col\">Modified</th></tr></thead>\n<tbody>\n");
    for (id, gone, modified, values) in &found.rows {
        let bin = if *gone { " <span class=\"outcome warn\">in the bin</span>" } else { "" };
        let _ = write!(html, "<tr><th scope=\"row\"><a href=\"{here}/{}\">{}</a>{bin}</th>", url(id), Esc(id));
        for value in values {
            let _ = write!(html, "<td>{}</td>", Esc(value));
        }
        let _ = writeln!(html, "<td>{}</td></tr>", time(*modified));
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    html.push_str(&pager(found.total, page, PER_PAGE, &format!("{here}?q={}&page=", url(words)), ["Newer", "Older"]));
    framed(stage, object, &place_at, None, &html)
}

/// A property or field that a form offers.
struct Choice<'a> {
    name: &'a str,
    label: &'a str,
    value: &'a str,
    /// Values and labels, where only some are taken.
    options: Vec<(&'a str, &'a str)>,
}

/// The forms of a record: change one value; to the bin, or back.
fn forms(html: &mut String, stage: &Stage, here: &str, choices: &[Choice<'_>], asked: &Asked, gone: bool) {
    let _ = write!(
        html,
        "<section class=\"card\" aria-labelledby=\"change\">\n<h2 id=\"change\">Edit it, as a person in the browser would</h2>\n"
    );
    if gone {
        let _ = write!(
            html,
            "<p>The record is in the recycle bin.</p>\n{}<button name=\"archived\" value=\"false\">Restore</button></form>\n</section>\n",
            form(stage, &format!("{here}/bin"), "row")
        );
        return;
    }
    let wanted = asked.query("property").unwrap_or_default();
    let chosen = choices.iter().find(|choice| choice.name == wanted);
    let _ = write!(html, "{}", form(stage, &format!("{here}/edit"), "row edit"));
    match chosen {
        Some(choice) => {
            let _ = write!(
                html,
                "<input type=\"hidden\" name=\"name\" value=\"{}\"><label for=\"value\">{}</label> ",
                Esc(choice.name),
                Esc(choice.label)
            );
        }
        None => {
            html.push_str("<label for=\"name\">What</label> <select id=\"name\" name=\"name\">");
            for choice in choices {
                let _ = write!(html, "<option value=\"{}\">{}</option>", Esc(choice.name), Esc(choice.label));
            }
            html.push_str("</select> <label for=\"value\">becomes</label> ");
        }
    }
    match chosen.filter(|choice| !choice.options.is_empty()) {
        Some(choice) => {
            html.push_str("<select id=\"value\" name=\"value\"><option value=\"\"></option>");
            for (value, label) in &choice.options {
                let is = if *value == choice.value { " selected" } else { "" };
                let _ = write!(html, "<option value=\"{}\"{is}>{}</option>", Esc(value), Esc(label));
            }
            html.push_str("</select> ");
        }
        None => {
            let value = chosen.map(|choice| choice.value).unwrap_or_default();
            let _ = write!(html, "<input id=\"value\" name=\"value\" value=\"{}\" autocomplete=\"off\"> ", Esc(value));
        }
    }
    let _ = write!(
        html,
        "<button>Save</button></form>\n{}<button name=\"archived\" value=\"true\" class=\"quiet\">Move to the recycle bin</button></form>\n</section>\n",
        form(stage, &format!("{here}/bin"), "row")
    );
}

/// What was done to this record last.
fn notices(html: &mut String, stage: &Stage, object: &str, id: &str) {
    let about = format!("{object} {id}: ");
    if let Some(notice) = stage.notices().iter().find(|notice| notice.text.starts_with(&about)) {
        let _ = writeln!(
            html,
            "<ul class=\"notices\" role=\"log\" aria-label=\"Messages\"><li>{} {}</li></ul>",
            time(notice.at),
            Esc(&notice.text)
        );
    }
}

/// One record of an account.
pub(super) fn hubspot(stage: &Stage, account: &str, object: &str, id: &str, asked: &Asked) -> Answer {
    let portrait = stage.account(account).and_then(|account| account.lock().portrait(object, id));
    let Some(portrait) = portrait else { return missing(stage, "There is no such record.") };
    let place = address(Kind::HubSpot, account);
    let here = format!("{place}/{}/{}", url(object), url(&portrait.id));
    let mut html = String::new();
    head(&mut html, &place, account, Kind::HubSpot, object, &portrait.id);
    notices(&mut html, stage, object, &portrait.id);
    let value = |name: &str| {
        let found = portrait.properties.iter().find(|property| property.name == name);
        found.map(|property| property.value.clone()).unwrap_or_default()
    };
    html.push_str(&review::counterpart(stage, Side::Hubspot, account, object, value));
    let _ = write!(html, "<p>Created {}, modified {}", time(portrait.created_at), time(portrait.updated_at));
    if let Some(at) = portrait.archived_at {
        let _ = write!(html, ", <span class=\"outcome warn\">in the recycle bin</span> since {}", time(at));
    }
    html.push_str("</p>\n");
    let choices: Vec<Choice<'_>> = portrait
        .properties
        .iter()
        .filter(|property| property.writable)
        .map(|property| Choice {
            name: &property.name,
            label: &property.label,
            value: &property.value,
            options: property.options.iter().map(|(value, label)| (value.as_str(), label.as_str())).collect(),
        })
        .collect();
    forms(&mut html, stage, &here, &choices, asked, portrait.archived_at.is_some());
    html.push_str(
        "<h2>Properties and what they were</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Properties\">\n<table>\n<thead><tr>\
         <th scope=\"col\">Property</th><th scope=\"col\">Value</th><th scope=\"col\">Before</th></tr></thead>\n<tbody>\n",
    );
    for property in portrait.properties.iter().filter(|one| !one.value.is_empty() || !one.history.is_empty()) {
        let _ = write!(
            html,
            "<tr><th scope=\"row\">{}<br><code>{}</code></th><td>{}",
            Esc(&property.label),
            Esc(&property.name),
            Esc(&property.value)
        );
        if property.writable && portrait.archived_at.is_none() {
            let _ = write!(
                html,
                " <a class=\"quiet\" href=\"{here}?property={}#change\" aria-label=\"Change {}\">change</a>",
                url(&property.name),
                Esc(&property.label)
            );
        }
        html.push_str("</td><td>");
        for (at, value) in property.history.iter().skip(1) {
            let shown = if value.is_empty() { "(blank)" } else { value };
            let _ = write!(html, "<div>{} <span class=\"dim\">{}</span></div>", Esc(shown), time(*at));
        }
        html.push_str("</td></tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    if !portrait.associations.is_empty() {
        html.push_str("<h2>Associated with</h2>\n<ul>\n");
        for (far, ids) in &portrait.associations {
            for id in ids {
                let _ = writeln!(
                    html,
                    "<li>{0} <a href=\"{place}/{1}/{2}\">{3}</a></li>",
                    Esc(far),
                    url(far),
                    url(id),
                    Esc(id)
                );
            }
        }
        html.push_str("</ul>\n");
    }
    framed(stage, &format!("{object} {}", portrait.id), &place, None, &html)
}

/// One record of an org.
pub(super) fn salesforce(stage: &Stage, org: &str, object: &str, id: &str, asked: &Asked) -> Answer {
    let portrait = stage.org(org).and_then(|org| org.lock().portrait(object, id));
    let Some(mut portrait) = portrait else { return missing(stage, "There is no such record.") };
    // What people write comes first, what the org keeps itself last.
    portrait.fields.sort_by_key(|field| (field.value.is_empty(), !field.writable || field.name == "OwnerId"));
    let place = address(Kind::Salesforce, org);
    let here = format!("{place}/{}/{}", url(object), url(&portrait.id));
    let mut html = String::new();
    head(&mut html, &place, org, Kind::Salesforce, object, &portrait.id);
    notices(&mut html, stage, object, &portrait.id);
    let value = |name: &str| {
        let found = portrait.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| field.value.clone()).unwrap_or_default()
    };
    html.push_str(&review::counterpart(stage, Side::Salesforce, org, object, value));
    let _ = write!(html, "<p>Created {}, modified {}", time(portrait.created_at), time(portrait.modified_at));
    if portrait.deleted {
        html.push_str(", <span class=\"outcome warn\">in the recycle bin</span>");
    }
    html.push_str("</p>\n");
    let choices: Vec<Choice<'_>> = portrait
        .fields
        .iter()
        .filter(|field| field.writable)
        .map(|field| Choice {
            name: &field.name,
            label: &field.label,
            value: &field.value,
            options: field.options.iter().map(|value| (value.as_str(), value.as_str())).collect(),
        })
        .collect();
    forms(&mut html, stage, &here, &choices, asked, portrait.deleted);
    html.push_str(
        "<h2>Fields</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Fields\">\n<table>\n<thead><tr><th scope=\"col\">Field</th>\
         <th scope=\"col\">Value</th></tr></thead>\n<tbody>\n",
    );
    for field in portrait.fields.iter().filter(|field| !field.value.is_empty()) {
        let _ = write!(
            html,
            "<tr><th scope=\"row\">{}<br><code>{}</code></th><td>{}",
            Esc(&field.label),
            Esc(&field.name),
            Esc(&field.value)
        );
        if field.writable && !portrait.deleted {
            let _ = write!(
                html,
                " <a class=\"quiet\" href=\"{here}?property={}#change\" aria-label=\"Change {}\">change</a>",
                url(&field.name),
                Esc(&field.label)
            );
        }
        html.push_str("</td></tr>\n");
    }
    html.push_str(
        "</tbody>\n</table>\n</div>\n<h2>History</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"History\">\n<table>\n<thead><tr>\
         <th scope=\"col\">When</th><th scope=\"col\">What</th><th scope=\"col\">Changes</th></tr></thead>\n<tbody>\n",
    );
    for write in portrait.history.iter().take(WRITES_SHOWN) {
        let who = if write.by_person { "by a person" } else { "through the API" };
        let _ = write!(html, "<tr><td>{}</td><td>{} {who}</td><td>", time(write.at), Esc(write.what));
        for (field, old, new) in &write.changes {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "(blank)".to_owned());
            let _ = write!(html, "<div><code>{}</code> {} → {}</div>", Esc(field), Esc(&text(old)), Esc(&text(new)));
        }
        html.push_str("</td></tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    framed(stage, &format!("{object} {}", portrait.id), &place, None, &html)
}

fn head(html: &mut String, place: &str, name: &str, kind: Kind, object: &str, id: &str) {
    let _ = write!(
        html,
        "<p class=\"crumbs\"><a href=\"{place}\">{} {}</a> / <a href=\"{place}/{}\">{}</a></p>\n<h1>{} <code>{}</code></h1>\n",
        kind.name(),
        Esc(name),
        url(object),
        Esc(object),
        Esc(object),
        Esc(id)
    );
}
