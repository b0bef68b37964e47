//! The review queue: what a person has to decide, and the buttons to do it.

use std::fmt::Write as _;

use super::{
    super::{
        review::{Item, Queue, queue},
        stage::Stage,
    },
    Answer, form, framed,
};
use crate::html::{Esc, url};

/// The page.
pub(super) fn page(stage: &Stage) -> Answer {
    framed(stage, "Review queue", "/review", None, &shown(stage, &queue(stage)))
}

/// The queue, with what there is to press.
pub(super) fn shown(stage: &Stage, queue: &Queue) -> String {
    let mut html = String::from("<h1>Review queue</h1>\n");
    match queue {
        Queue::NoSyncs => html.push_str("<p>No syncs are configured.</p>\n"),
        Queue::Items(items) if items.is_empty() => html.push_str("<p>There is nothing to decide.</p>\n"),
        Queue::Items(items) => {
            html.push_str("<p>The field stays as it is on both sides until you decide; the other fields go on.</p>\n");
            items.iter().for_each(|item| decide(&mut html, stage, item));
        }
    }
    html
}

/// What the first page says of it.
pub(super) fn summary(queue: &Queue) -> String {
    match queue {
        Queue::NoSyncs => "<p class=\"dim\">No syncs are configured.</p>\n".to_owned(),
        Queue::Items(items) if items.is_empty() => "<p class=\"dim\">There is nothing to decide.</p>\n".to_owned(),
        Queue::Items(items) => {
            format!("<p><a id=\"review-link\" href=\"/review\">{} to decide</a></p>\n", items.len())
        }
    }
}

fn decide(html: &mut String, stage: &Stage, item: &Item) {
    let id = url(&item.id);
    let _ = write!(
        html,
        "<section class=\"card\" aria-labelledby=\"item-{id}\">\n<h2 id=\"item-{id}\">{}: {}</h2>\n{}\n\
         <table><tbody><tr><th scope=\"row\">HubSpot</th><td>{}</td><td><button name=\"choose\" value=\"hubspot\">Take this</button></td></tr>\n\
         <tr><th scope=\"row\">Salesforce</th><td>{}</td><td><button name=\"choose\" value=\"salesforce\">Take this</button></td></tr></tbody></table>\n\
         </form>\n</section>\n",
        Esc(&item.sync),
        Esc(&item.about),
        form(stage, &format!("/review/{id}"), "decide"),
        Esc(&item.hubspot),
        Esc(&item.salesforce),
    );
}
