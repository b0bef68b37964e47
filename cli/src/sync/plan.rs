//! `hubferry sync NAME --plan`: record by record what a run would do, on both sides, and why.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    rc::Rc,
};

use anyhow::{Context as _, Result};
use hubferry::{
    clock::Deadline,
    config::{Sync, SyncLimits},
    sync::{
        self,
        model::{Canon, Side},
        plan::{Operation, PlanTotals, Planned},
    },
};
use jiff::SignedDuration;
use serde_json::json;

use super::{Options, show::Page};
use crate::{
    DONE,
    doors::Doors,
    text::{self, WIDTH, clip, grouped, wrap},
    turns,
    watch::Watch,
};

/// A plan that takes longer is given up.
const PLAN_MAX: SignedDuration = SignedDuration::from_hours(12);
/// Columns of a field's name before its values.
const NAME_COLUMNS: usize = 20;
/// The longest part of a value that is shown.
const VALUE_CHARS: usize = 50;

/// Plans, and shows each record as soon as it is planned.
pub(super) async fn run(doors: &Doors, sync: &Sync, options: &Options, watch: &Rc<Watch>) -> Result<u8> {
    let env = doors.app.env();
    // A plan holds no lease, so that it need not be done in turns.
    let deadline = Deadline { at: env.clock.now().saturating_add(PLAN_MAX)? };
    let out: Box<dyn Write> = match &options.out {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let as_json = options.json || options.out.is_some();
    let out = Rc::new(RefCell::new(out));
    let broken = Rc::new(RefCell::new(None));
    let (to, failed, doors_of) = (out.clone(), broken.clone(), env.clone());
    let (told, to_file, steps) = (watch.clone(), options.out.is_some(), Cell::new(0_u64));
    let each = move |planned: &Planned| {
        if failed.borrow().is_some() {
            return;
        }
        if to_file {
            steps.set(steps.get() + 1);
            told.count(&format!("{} steps planned", grouped(steps.get())));
        }
        let line = if as_json { serde_json::to_string(planned).map_err(io::Error::from) } else { Ok(block(planned)) };
        if let Err(error) = line.and_then(|line| writeln!(to.borrow_mut(), "{line}")) {
            *failed.borrow_mut() = Some(error);
            // Nobody reads on.
            doors_of.stop.set(true);
        }
    };
    let planning = Box::pin(sync::plan(&doors.app, &sync.name, deadline, Rc::new(each)));
    let totals = turns::stoppable(env, watch, planning).await?;
    watch.clear();
    if let Some(error) = broken.take() {
        return Err(error.into());
    }
    out.borrow_mut().flush()?;
    let totals = totals?;
    if options.json {
        text::json_line(&json!({ "totals": totals }))?;
    } else {
        text::print(&sum(sync, &totals, options.out.as_deref(), text::has_colour()))?;
    }
    Ok(DONE)
}

/// One record for people.
fn block(planned: &Planned) -> String {
    let (here, id, other) = match planned.side {
        Side::Hubspot => {
            ("HubSpot", &planned.hubspot_id, planned.salesforce_id.as_deref().map(|id| ("Salesforce", id)))
        }
        Side::Salesforce => {
            ("Salesforce", &planned.salesforce_id, planned.hubspot_id.as_deref().map(|id| ("HubSpot", id)))
        }
    };
    let id = id.as_deref().map(|id| format!(" {id}")).unwrap_or_default();
    let other = other.map(|(name, id)| format!(", {name} {id}")).unwrap_or_default();
    let what = match planned.operation {
        Operation::Create => "create in",
        Operation::Update => "update in",
        Operation::Delete => "delete in",
        Operation::Link => "link",
        Operation::Review => "review",
        Operation::Refused => "refused by",
        Operation::Associate => "associate in",
    };
    let mut lines = wrap("", &format!("{what} {here}{id}{other}: {}", planned.why), WIDTH);
    for field in &planned.fields {
        let name = match planned.side {
            Side::Hubspot => &field.hubspot,
            Side::Salesforce => &field.salesforce,
        };
        let first = format!("    {name:<NAME_COLUMNS$} ");
        if planned.operation == Operation::Review {
            let text = format!("{} in Salesforce, {} in HubSpot", shown(&field.old), shown(&field.new));
            lines.extend(wrap(&first, &text, WIDTH));
            continue;
        }
        let values = [shown(&field.old), "->".to_owned(), shown(&field.new)];
        let line = format!("{first}{}", values.join(" "));
        if line.chars().count() <= WIDTH {
            lines.push(line);
        } else {
            lines.push(format!("    {name}"));
            lines.push(format!("        {}", shown(&field.old)));
            lines.push(format!("     -> {}", shown(&field.new)));
        }
    }
    lines.join("\n")
}

/// A value in quotes, with what a terminal would take for a command made harmless; blank is said.
pub(crate) fn shown(value: &Canon) -> String {
    match value {
        Some(value) => format!("{:?}", clip(value, VALUE_CHARS)),
        None => "(blank)".to_owned(),
    }
}

fn sum(sync: &Sync, totals: &PlanTotals, out: Option<&Path>, colour: bool) -> String {
    let mut page = Page::new(colour);
    if out.is_none() {
        page.line("");
    }
    page.heading(&format!("plan of sync {}: nothing was written", sync.name));
    let SyncLimits { creates, updates, blanks, deletes } = sync.limits;
    let (ours, theirs) = (&totals.hubspot, &totals.salesforce);
    page.line(&format!("  {:<24}{:>12}{:>12}{:>12}{:>12}", "", "HubSpot", "Salesforce", "together", "limit"));
    for (name, here, there, limit) in [
        ("records created", ours.created, theirs.created, creates),
        ("records updated", ours.updated, theirs.updated, updates),
        ("fields cleared", ours.blanked, theirs.blanked, blanks),
        ("records deleted", ours.deleted, theirs.deleted, deletes),
    ] {
        let both = here.saturating_add(there);
        let [here, there, both, limit] = [here, there, both, limit].map(grouped);
        page.line(&format!("  {name:<24}{here:>12}{there:>12}{both:>12}{limit:>12}"));
    }
    let (here, there) = (grouped(totals.hubspot_calls), grouped(totals.salesforce_calls));
    page.line(&format!("  {:<24}{here:>12}{there:>12}", "calls for this plan"));
    page.line("");
    page.wrapped(
        "  ",
        &format!(
            "{} records would get a link, {} wait for a person, {} are refused; {} are in step.",
            grouped(totals.links),
            grouped(totals.reviews),
            grouped(totals.refused),
            grouped(totals.unchanged)
        ),
    );
    if let Some(over) = &totals.over {
        page.wrapped("  -> ", &format!("A run would stop before its first write: {over}"));
    }
    if let Some(path) = out {
        page.wrapped("  records   ", &path.display().to_string());
    }
    page.end()
}

#[cfg(test)]
mod tests {
    use hubferry::sync::plan::PlannedField;

    use super::*;

    fn step(side: Side, operation: Operation) -> Planned {
        let field = |new: Option<&str>| PlannedField {
            hubspot: "jobtitle".to_owned(),
            salesforce: "Title".to_owned(),
            old: Some("Head of\u{1b}[31m sales".to_owned()),
            new: new.map(str::to_owned),
        };
        Planned {
            hubspot_id: Some("17100000551".to_owned()),
            salesforce_id: Some("003Ws000004bJKnIAM".to_owned()),
            side,
            operation,
            fields: vec![field(None), field(Some(&"long ".repeat(40)))],
            why: "changed in Salesforce".to_owned(),
        }
    }

    #[test]
    fn a_step_says_where_what_and_why_and_fits() {
        let text = block(&step(Side::Hubspot, Operation::Update));
        assert!(
            text.starts_with("update in HubSpot 17100000551, Salesforce 003Ws000004bJKnIAM: changed in\nSalesforce"),
            "{text}"
        );
        assert!(text.contains("    jobtitle             \"Head of\\u{1b}[31m sales\" -> (blank)"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let text = block(&step(Side::Salesforce, Operation::Review));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("    Title ") && words.contains("(blank) in HubSpot"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn the_totals_stand_beside_the_limits() {
        let settings = "version: 1\nhubspot: { default: { secret: a } }\nsalesforce: { default: { secret: b } }\ndata: s3://b/\nsyncs:\n  \
                        - { name: people, hubspot_object: contacts, salesforce_object: Contact, fields: [{ hubspot: email, salesforce: Email, rule: two_way }] }\n";
        let config = hubferry::config::load::parse(settings, "x").unwrap();
        let mut totals = PlanTotals::default();
        (totals.hubspot.created, totals.salesforce.created) = (600, 401);
        totals.over = Some("[SYNC_LIMIT] the run would create 1001 records; limits.creates is 1000".to_owned());
        let text = sum(&config.syncs[0], &totals, None, false);
        assert!(text.contains("records created                  600         401       1,001       1,000"), "{text}");
        assert!(text.contains("A run would stop before its first write"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
