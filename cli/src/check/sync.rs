//! Whether a sync fits both systems, and what its two credentials may do there.

use hubferry::{
    clock::Deadline,
    codes,
    config::{Sync, SyncCreate, SyncDeletes, SyncRule},
    hubspot::scopes::Access,
    salesforce::describe::ObjectSchema,
    sync::{
        fields::Need,
        setup::{self, Setup},
    },
};

use super::{Checked, Problem, problem_of};
use crate::doors::Doors;

/// An org: whether its credential opens it, and which one it is.
pub(super) async fn org(doors: &Doors, name: &str) -> Checked {
    let what = format!("org {name}");
    let asked = async {
        let org = doors.app.org(name)?;
        org.check_version(Deadline::NONE).await?;
        let (id, _) = org.identity(Deadline::NONE).await?;
        Ok::<_, hubferry::Error>((org, id))
    };
    match asked.await {
        Ok((org, id)) => {
            let version = &org.settings().api_version;
            let told = id.map_or_else(|| format!("API v{version}"), |id| format!("organization {id}, API v{version}"));
            Checked { what, told, problems: Vec::new() }
        }
        Err(error) => Checked { what, told: String::new(), problems: vec![problem_of(&error)] },
    }
}

/// A sync: the fields that hold the ids, the mapping against both schemas, and what both credentials may do, as far as the two systems tell.
pub(super) async fn sync(doors: &Doors, sync: &Sync) -> Checked {
    let what = format!("sync {}  {} and {}", sync.name, sync.hubspot_object, sync.salesforce_object);
    let asked = async {
        let found = setup::setup(&doors.app, &sync.name, false, Deadline::NONE).await?;
        let account = doors.app.account(&sync.hubspot)?;
        // Known by now: nothing is asked again.
        let salesforce = doors.app.org(&sync.salesforce)?.describe(&sync.salesforce_object, Deadline::NONE).await?;
        let mut problems = needs(sync, &found);
        problems.extend(granted(sync, account.scopes().as_deref()));
        problems.extend(allowed(sync, &salesforce));
        Ok::<_, hubferry::Error>(problems)
    };
    match asked.await {
        Ok(problems) => {
            let count = sync.fields.iter().filter(|field| field.rule != SyncRule::DontSync).count();
            let told = format!("{count} pairs of fields, the ids' fields and the credentials fit both sides");
            Checked { what, told, problems }
        }
        Err(error) => Checked { what, told: String::new(), problems: vec![problem_of(&error)] },
    }
}

/// What is wrong with the fields.
fn needs(sync: &Sync, found: &Setup) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut need = |object: &str, field: &str, need: &Need, missing: String| {
        let (text, hint) = match need {
            Need::Fine => return,
            Need::Missing => (format!("{object} has no field `{field}`, which holds the other side's id"), missing),
            Need::Wrong(what) => (
                format!("{object}.{field} cannot hold the other side's id: {what}"),
                format!("`hubferry sync {} --setup` says what it must be.", sync.name),
            ),
        };
        problems.push((codes::SYNC_SETUP.as_str().to_owned(), text, hint));
    };
    need(
        sync.hubspot_object.as_str(),
        &found.hubspot_property,
        &found.hubspot,
        format!("`hubferry sync {} --setup --create` makes it.", sync.name),
    );
    need(
        &sync.salesforce_object,
        &found.salesforce_field,
        &found.salesforce,
        format!("`hubferry sync {} --setup` says how it is made; or the integration user may not see it.", sync.name),
    );
    let hint = codes::MAPPING_INVALID.hint();
    let of_fields = found.problems.iter().map(|problem| {
        let text = problem.trim_start_matches(&format!("syncs: {}, ", sync.name)).to_owned();
        (codes::MAPPING_INVALID.as_str().to_owned(), text, hint.to_owned())
    });
    problems.extend(of_fields);
    problems
}

/// Whether a rule writes in HubSpot.
fn writes_hubspot(sync: &Sync) -> bool {
    let writes = |rule| !matches!(rule, SyncRule::AlwaysHubspot | SyncRule::DontSync);
    // The Salesforce id goes into HubSpot's record in any case where one is made in Salesforce.
    creates(sync, SyncCreate::Salesforce)
        || creates(sync, SyncCreate::Hubspot)
        || sync.fields.iter().any(|field| writes(field.rule))
}

fn creates(sync: &Sync, side: SyncCreate) -> bool {
    sync.create == SyncCreate::Both || sync.create == side
}

/// What HubSpot's credential lacks.
fn granted(sync: &Sync, granted: Option<&[String]>) -> Vec<Problem> {
    let wanted = [(Access::Read, true), (Access::Write, writes_hubspot(sync))];
    let wanted = wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
    wanted.filter_map(|(access, _)| super::scope(granted, &sync.hubspot_object, access)).collect()
}

/// What Salesforce's user may not do with the object.
fn allowed(sync: &Sync, salesforce: &ObjectSchema) -> Vec<Problem> {
    let writes = |rule| !matches!(rule, SyncRule::AlwaysSalesforce | SyncRule::DontSync);
    let updates = sync.fields.iter().any(|field| writes(field.rule)) || sync.create != SyncCreate::None;
    let wanted = [
        (creates(sync, SyncCreate::Salesforce), salesforce.createable, "create", "Create"),
        (updates, salesforce.updateable, "change", "Edit"),
        (sync.deletes == SyncDeletes::Propagate, salesforce.deletable, "delete", "Delete"),
    ];
    let lacking = wanted.into_iter().filter(|(is_wanted, may, ..)| *is_wanted && !*may);
    lacking
        .map(|(_, _, word, right)| {
            let text = format!("the integration user may not {word} records of {}", salesforce.name);
            let hint = format!("Give its permission set the right `{right}` on {}.", salesforce.name);
            (codes::SALESFORCE_FORBIDDEN.as_str().to_owned(), text, hint)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(more: &str) -> Sync {
        let settings = format!(
            "version: 1\nhubspot: {{ default: {{ secret: a }} }}\nsalesforce: {{ default: {{ secret: b }} }}\ndata: s3://b/\nsyncs:\n  \
             - {{ name: people, hubspot_object: contacts, salesforce_object: Contact, {more} }}\n"
        );
        hubferry::config::load::parse(&settings, "x").unwrap().syncs.remove(0)
    }

    const TO_HUBSPOT: &str =
        "create: hubspot, fields: [{ hubspot: email, salesforce: Email, rule: always_salesforce }]";
    const BOTH: &str = "deletes: propagate, fields: [{ hubspot: email, salesforce: Email, rule: two_way }]";

    #[test]
    fn what_the_credentials_lack_is_told_where_the_sync_needs_it() {
        let mut schema = ObjectSchema::new("Contact", None, Vec::new());
        assert_eq!(allowed(&one(BOTH), &schema), Vec::new());
        (schema.createable, schema.updateable, schema.deletable) = (false, false, false);
        let words =
            |sync: &Sync| -> Vec<String> { allowed(sync, &schema).into_iter().map(|(_, text, _)| text).collect() };
        assert_eq!(words(&one(BOTH)).len(), 3);
        assert_eq!(words(&one(TO_HUBSPOT)), ["the integration user may not change records of Contact"]);

        let read = ["crm.objects.contacts.read".to_owned()];
        assert_eq!(granted(&one(BOTH), None), Vec::new(), "of a private app nobody knows");
        let lacking = granted(&one(BOTH), Some(&read));
        assert_eq!((lacking.len(), lacking[0].0.as_str()), (1, "SCOPES_MISSING"));
        assert!(lacking[0].1.contains("crm.objects.contacts.write"), "{lacking:?}");
    }
}
