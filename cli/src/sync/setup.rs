//! `hubferry sync NAME --setup`: the two fields that a sync needs, and whether its mapping fits.

use anyhow::Result;
use hubferry::{
    config::Sync,
    sync::{fields::Need, setup},
};
use serde::Serialize;

use super::{Options, show::Page};
use crate::{DONE, FAILED, doors::Doors, text, turns, watch::Watch};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Told {
    name: String,
    /// Nothing is needed any more: the sync can run.
    ready: bool,
    /// The HubSpot property was made just now.
    created: bool,
    hubspot: Field,
    salesforce: Field,
    /// Of the mapping.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Field {
    object: String,
    field: String,
    /// `fine`, `missing` or `wrong`.
    state: &'static str,
    /// What is wrong with it.
    what: Option<String>,
}

impl Field {
    fn new(object: &str, field: String, need: Need) -> Self {
        let (state, what) = match need {
            Need::Fine => ("fine", None),
            Need::Missing => ("missing", None),
            Need::Wrong(what) => ("wrong", Some(what)),
        };
        Self { object: object.to_owned(), field, state, what }
    }

    fn is_fine(&self) -> bool {
        self.state == "fine"
    }

    fn said(&self) -> String {
        let what = self.what.as_ref().map(|what| format!(": {what}")).unwrap_or_default();
        format!("{}.{}: {}{what}", self.object, self.field, self.state)
    }
}

/// Asks both systems, and says what is needed; makes the HubSpot property where that is wanted.
pub(super) async fn run(doors: &Doors, sync: &Sync, options: &Options, watch: &Watch) -> Result<u8> {
    let env = doors.app.env();
    let (deadline, _) = turns::begin(env)?;
    let found = turns::stoppable(env, watch, Box::pin(setup::setup(&doors.app, &sync.name, options.create, deadline)))
        .await??;
    let told = Told {
        name: sync.name.clone(),
        ready: matches!((&found.hubspot, &found.salesforce), (Need::Fine, Need::Fine)) && found.problems.is_empty(),
        created: found.created,
        hubspot: Field::new(sync.hubspot_object.as_str(), found.hubspot_property, found.hubspot),
        salesforce: Field::new(&sync.salesforce_object, found.salesforce_field, found.salesforce),
        problems: found.problems,
    };
    if options.json {
        text::json_line(&serde_json::to_value(&told)?)?;
    } else {
        text::print(&page(&told, text::has_colour()))?;
    }
    Ok(if told.ready { DONE } else { FAILED })
}

fn page(told: &Told, colour: bool) -> String {
    let mut page = Page::new(colour);
    let name = &told.name;
    page.heading(&format!("sync {name}: {}", if told.ready { "ready" } else { "not ready" }));
    page.wrapped("  HubSpot     ", &told.hubspot.said());
    match told.hubspot.state {
        "fine" if told.created => page.wrapped("              ", "made just now"),
        "fine" => {}
        "missing" => page.wrapped(
            "           -> ",
            &format!("`hubferry sync {name} --setup --create` makes it: single-line text with unique values. It needs the scope crm.schemas.{}.write.", told.hubspot.object),
        ),
        _ => page.wrapped(
            "           -> ",
            "Make another property, of single-line text with unique values (that cannot be changed afterwards), and name it in `links`.",
        ),
    }
    page.wrapped("  Salesforce  ", &told.salesforce.said());
    if !told.salesforce.is_fine() {
        let object = &told.salesforce.object;
        let field = told.salesforce.field.trim_end_matches("__c");
        page.wrapped(
            "           -> ",
            &format!("In Setup, Object Manager, {object}, Fields & Relationships: a field of type Text, length 20, named {field}, with `Unique` and `External ID` ticked."),
        );
        page.wrapped(
            "           -> ",
            "Then give the integration user read and edit access to it, in a permission set: without it Salesforce shows the field as if it did not exist.",
        );
    }
    match told.problems.as_slice() {
        [] => page.wrapped("  mapping     ", "fits both sides"),
        problems => {
            for problem in problems {
                page.wrapped("  mapping     ", problem);
            }
        }
    }
    if told.ready {
        page.wrapped("  -> ", &format!("`hubferry sync {name} --plan` shows what a run would write."));
    }
    page.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_is_said_with_the_way_to_it_and_fits() {
        let told = Told {
            name: "people".to_owned(),
            ready: false,
            created: false,
            hubspot: Field::new("contacts", "sf_contact_id_ext".to_owned(), Need::Missing),
            salesforce: Field::new(
                "Contact",
                "HubSpot_Contact_Id__c".to_owned(),
                Need::Wrong("it is not marked as unique".to_owned()),
            ),
            problems: vec!["fields[1]: Salesforce has no field Titel; did you mean Title?".to_owned()],
        };
        let text = page(&told, false);
        assert!(text.lines().all(|line| line.chars().count() <= text::WIDTH), "{text}");
        for part in [
            "not ready",
            "contacts.sf_contact_id_ext: missing",
            "--setup --create",
            "wrong: it is not marked",
            "permission set",
            "fields[1]",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
