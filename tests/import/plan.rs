//! See it before, undo it after: plan, apply, undo, whole, against the simulated portal.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use bytes::Bytes;
use hubferry::{
    app::Answer,
    clock::Clock,
    codes,
    event::SourceObject,
    import::plan::{
        self, Line, PlanRecord, Totals,
        format::{Act, Header},
    },
    objects::{Location, Objects as _},
    report::{Outcome, Report},
};
use hubferry_simulator::hubspot::{Fault, Faults, PortalSettings, PropertyDefinition, What};
use serde_json::Value;

use crate::support::{BUCKET, World, contacts, report};

type State = BTreeMap<String, Vec<BTreeMap<String, String>>>;

fn source(key: &str) -> SourceObject {
    SourceObject {
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        version_id: None,
        etag: None,
        size: None,
        sequencer: None,
        event_time: None,
    }
}

/// A plan's lines, and its text.
pub(super) struct Planned {
    pub(super) lines: Vec<Line>,
    pub(super) text: String,
    pub(super) totals: Totals,
}

impl Planned {
    fn header(&self) -> &Header {
        match self.lines.first() {
            Some(Line::Plan(header)) => header,
            other => panic!("{other:?}"),
        }
    }

    fn records(&self) -> Vec<&PlanRecord> {
        self.lines
            .iter()
            .filter_map(|line| if let Line::Record(record) = line { Some(&**record) } else { None })
            .collect()
    }

    /// Key, what is done, and fields as `name old new`.
    fn told(&self) -> Vec<(String, Act, Vec<String>)> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let mut told: Vec<_> = self
            .records()
            .into_iter()
            .map(|record| {
                let fields = record.fields.iter().map(|(name, old, new)| format!("{name} {} {}", text(old), text(new)));
                (record.key.clone(), record.act, fields.collect::<Vec<_>>())
            })
            .collect();
        told.sort();
        told
    }
}

fn sink() -> (plan::Sink, Rc<RefCell<Vec<Line>>>) {
    let lines: Rc<RefCell<Vec<Line>>> = Rc::default();
    let taken = lines.clone();
    let sink: plan::Sink = Box::new(move |line| {
        taken.borrow_mut().push(line.clone());
        Ok(())
    });
    (sink, lines)
}

fn planned(lines: &Rc<RefCell<Vec<Line>>>, totals: Totals) -> Planned {
    let lines = lines.take();
    let text = lines.iter().map(|line| line.text().unwrap()).collect();
    Planned { lines, text, totals }
}

async fn plan_of(world: &World, import: &str, file: impl Into<Bytes>) -> Planned {
    let key = "elsewhere/file.csv";
    world.objects.insert(&Location::new(BUCKET, key), file);
    let app = world.process();
    let import = app.config().imports.iter().find(|known| known.name == import).unwrap();
    let (sink, lines) = sink();
    let totals = plan::plan(&app, import, &source(key), sink).await.unwrap();
    planned(&lines, totals)
}

async fn undo_plan(world: &World, run_id: &str) -> Planned {
    let (sink, lines) = sink();
    let totals = plan::plan_undo(&world.process(), run_id, false, sink).await.unwrap();
    planned(&lines, totals)
}

async fn apply(world: &World, key: &str, text: &str) -> Report {
    let location = Location::new(BUCKET, key);
    if world.objects.contents(&location).is_none_or(|known| known != text) {
        world.objects.insert(&location, text.to_owned());
    }
    let first = report(plan::apply(&world.process(), &source(key), world.deadline(900), &owner(world)).await.unwrap());
    world.finish(first, 900).await
}

async fn undo(world: &World, run_id: &str, keep_created: bool) -> Report {
    let answer = plan::undo(&world.process(), run_id, keep_created, world.deadline(900), &owner(world)).await;
    world.finish(report(answer.unwrap()), 900).await
}

fn owner(world: &World) -> String {
    format!("cli/{:x}", world.rng.u64())
}

fn state(world: &World) -> State {
    world.portal.borrow().state()
}

fn seed(world: &World, records: &[&[(&str, &str)]]) -> Vec<String> {
    let now = world.clock.now();
    records.iter().map(|record| world.portal.borrow_mut().seed_record(now, "contacts", record).unwrap()).collect()
}

fn writes(world: &World) -> usize {
    let written =
        |path: &str| ["upsert", "update", "archive", "create", "associate"].iter().any(|word| path.contains(word));
    world.portal.borrow().log().iter().filter(|call| call.method == "POST" && written(&call.path)).count()
}

const FILE: &str = "email,firstname,city\nA@x.io,Ada,Bonn\nb@x.io,Bob,\nnew@x.io,New,Bern\nb@x.io,,Basel\nbroken,X,Y\nsame@x.io,Same,\n";

fn small() -> World {
    let world = World::new(&contacts(""));
    seed(
        &world,
        &[
            &[("email", "a@x.io"), ("firstname", "Old"), ("phone", "1")],
            &[("email", "b@x.io"), ("firstname", "Bob")],
            &[("email", "same@x.io"), ("firstname", "Same"), ("city", "Kept")],
        ],
    );
    world
}

#[tokio::test(start_paused = true)]
async fn a_plan_shows_each_record_and_field_and_writes_nothing() {
    let world = small();
    let (before, objects) = (state(&world), world.objects.list(&Location::new(BUCKET, "")).await.unwrap().len());
    let plan = plan_of(&world, "contacts", FILE).await;
    let own = |text: &str| text.to_owned();
    assert_eq!(
        plan.told(),
        [
            (own("a@x.io"), Act::Update, vec![own("firstname Old Ada"), own("city - Bonn")]),
            (own("b@x.io"), Act::Update, vec![own("city - Basel")]),
            (own("new@x.io"), Act::Create, vec![own("email - new@x.io"), own("firstname - New"), own("city - Bern")]),
            (own("same@x.io"), Act::Unchanged, vec![]),
        ]
    );
    let merged = plan.records().into_iter().find(|record| record.key == "b@x.io").unwrap();
    assert_eq!(merged.lines, [3, 5], "the rows that it merges, by their lines");
    let rejects: Vec<_> = plan
        .lines
        .iter()
        .filter_map(|line| if let Line::Reject(reject) = line { Some(reject) } else { None })
        .collect();
    assert_eq!(
        (rejects[0].line, rejects[0].code.as_str(), rejects[0].column.as_deref()),
        (6, "INVALID_EMAIL", Some("email"))
    );
    let totals = &plan.totals;
    assert_eq!(
        (totals.rows, totals.create, totals.update, totals.unchanged, totals.merged, totals.rejected),
        (6, 1, 2, 1, 1, 1)
    );
    assert!(totals.calls >= 4 && totals.planning_calls > 0, "{totals:?}");
    assert_eq!(plan.lines.last(), Some(&Line::Totals(Box::new(totals.clone()))));
    let header = plan.header();
    assert_eq!(
        (header.import.as_str(), header.records[0].key.as_str(), header.source.bytes),
        ("contacts", "email", FILE.len() as u64)
    );

    assert_eq!(state(&world), before);
    assert_eq!(writes(&world), 0);
    assert_eq!(world.objects.list(&Location::new(BUCKET, "")).await.unwrap().len(), objects + 1, "the file itself");
    assert!(world.process().runs().open_runs().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn apply_does_what_an_import_of_the_file_would_and_undo_takes_it_back() {
    let world = small();
    let before = state(&world);
    let plan = plan_of(&world, "contacts", FILE).await;
    let applied = apply(&world, "plans/a.jsonl", &plan.text).await;
    assert_eq!(
        (applied.outcome, applied.job.as_str(), applied.name.as_str()),
        (Outcome::Done, "import", "contacts"),
        "{applied:?}"
    );
    let rows = applied.rows;
    assert_eq!((rows.read, rows.created, rows.updated, rows.unchanged, rows.rejected), (4, 1, 2, 1, 0));

    let direct = small();
    direct.import("incoming/contacts/a.csv", FILE).await;
    assert_eq!(state(&world), state(&direct));

    // Again: nothing.
    let calls = writes(&world);
    let again = apply(&world, "plans/a.jsonl", &plan.text).await;
    assert_eq!((again.outcome, again.run_id.clone()), (Outcome::Duplicate, applied.run_id.clone()));
    assert_eq!(writes(&world), calls);

    let run_id = applied.run_id.unwrap();
    let shown = undo_plan(&world, &run_id).await;
    let totals = &shown.totals;
    assert_eq!((totals.update, totals.archive, totals.rejected), (2, 1, 0), "{:?}", shown.told());
    assert_eq!(writes(&world), calls, "a plan of an undo writes nothing");
    let undone = undo(&world, &run_id, false).await;
    assert_eq!((undone.outcome, undone.job.as_str(), undone.rows.rejected), (Outcome::Done, "undo", 0), "{undone:?}");
    assert_eq!(state(&world), before);
    assert!(world.stored_report("contacts", &run_id).is_some());
    assert!(
        world
            .text(&format!("s3://{BUCKET}/reports/undo/contacts/{}.json", undone.run_id.as_deref().unwrap()))
            .is_some()
    );

    // Undoing twice does nothing; undoing the undo brings the fields back.
    let calls = writes(&world);
    let twice = undo(&world, &run_id, false).await;
    assert_eq!((twice.outcome, writes(&world)), (Outcome::Duplicate, calls));
    let redone = undo(&world, undone.run_id.as_deref().unwrap(), false).await;
    assert_eq!((redone.rows.updated, redone.rejected_by_code.get("ARCHIVED_BY_RUN")), (2, Some(&1)), "{redone:?}");
    assert_eq!(world.contact("a@x.io", "firstname").as_deref(), Some("Ada"));
}

#[tokio::test(start_paused = true)]
async fn what_changed_since_the_plan_is_left_alone_and_reported() {
    let world = World::new(&contacts(""));
    let ids = seed(
        &world,
        &[
            &[("email", "field@x.io"), ("firstname", "Old")],
            &[("email", "other@x.io"), ("firstname", "Old")],
            &[("email", "moved@x.io"), ("firstname", "Old")],
            &[("email", "gone@x.io"), ("firstname", "Old")],
            &[("email", "there@x.io"), ("firstname", "Old")],
        ],
    );
    let file = "email,firstname\nfield@x.io,New\nother@x.io,New\nmoved@x.io,New\ngone@x.io,New\nthere@x.io,New\nmade@x.io,New\nfresh@x.io,New\n";
    let plan = plan_of(&world, "contacts", file).await;
    world.clock.sleep(Duration::from_secs(60)).await;
    {
        let (now, mut portal) = (world.clock.now(), world.portal.borrow_mut());
        assert!(portal.edit(now, "contacts", &ids[0], &[("firstname", "Theirs")]));
        assert!(portal.edit(now, "contacts", &ids[1], &[("city", "Elsewhere")]));
        assert!(portal.edit(now, "contacts", &ids[2], &[("email", "moved2@x.io")]));
        assert!(portal.set_archived(now, "contacts", &ids[3], true));
        assert!(portal.edit(now, "contacts", &ids[4], &[("firstname", "New")]));
        portal.create_record(now, "contacts", &[("email", "made@x.io"), ("firstname", "Theirs")]).unwrap();
    }
    world.clock.sleep(Duration::from_secs(60)).await;
    let applied = apply(&world, "plans/a.jsonl", &plan.text).await;
    assert_eq!(applied.outcome, Outcome::Done, "{applied:?}");
    assert_eq!(applied.rejected_by_code, BTreeMap::from([("PLAN_CHANGED".to_owned(), 4)]));
    assert_eq!((applied.rows.created, applied.rows.updated, applied.rows.unchanged), (1, 1, 1));
    let value = |email: &str| world.contact(email, "firstname");
    assert_eq!(value("field@x.io").as_deref(), Some("Theirs"));
    assert_eq!(value("other@x.io").as_deref(), Some("New"), "another field is nobody's business");
    assert_eq!(value("moved2@x.io").as_deref(), Some("Old"));
    assert_eq!(value("gone@x.io"), None);
    assert_eq!(value("made@x.io").as_deref(), Some("Theirs"));
    assert_eq!(value("fresh@x.io").as_deref(), Some("New"));
    let rejects = world.text(applied.rejects.as_deref().unwrap()).unwrap();
    let reasons: Vec<String> = rejects
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["_reason"].as_str().unwrap().to_owned())
        .collect();
    assert!(reasons.iter().any(|reason| reason.ends_with("`firstname`")), "{reasons:?}");
    assert!(!reasons.iter().any(|reason| reason.contains("Theirs")), "names, not values: {reasons:?}");

    // THEN undo leaves alone what was edited after it: a field; and a record that it made.
    let made = world.portal.borrow().find_by("contacts", "email", "fresh@x.io").unwrap();
    world.clock.sleep(Duration::from_secs(60)).await;
    {
        let (now, mut portal) = (world.clock.now(), world.portal.borrow_mut());
        assert!(portal.edit(now, "contacts", &made["hs_object_id"], &[("city", "Later")]));
    }
    world.clock.sleep(Duration::from_secs(60)).await;
    let undone = undo(&world, applied.run_id.as_deref().unwrap(), false).await;
    assert_eq!(undone.rejected_by_code, BTreeMap::from([("CHANGED_SINCE".to_owned(), 1)]), "{undone:?}");
    assert_eq!(value("other@x.io").as_deref(), Some("Old"));
    assert_eq!(value("fresh@x.io").as_deref(), Some("New"), "edited since: kept");
    assert_eq!(value("there@x.io").as_deref(), Some("New"), "the run did not change it");
}

#[tokio::test(start_paused = true)]
async fn undo_restores_the_fields_that_nobody_else_changed_and_keeps_the_others() {
    let world = World::new(&contacts("before_images: true"));
    let ids = seed(&world, &[&[("email", "a@x.io"), ("firstname", "F"), ("city", "C"), ("lifecyclestage", "lead")]]);
    let file = "email,firstname,city,lifecyclestage\na@x.io,F2,C2,customer\nkept@x.io,K,,\n";
    let run = world.import("incoming/contacts/a.csv", file).await;
    assert_eq!(world.contact("a@x.io", "lifecyclestage").as_deref(), Some("customer"));
    world.clock.sleep(Duration::from_secs(60)).await;
    assert!(world.portal.borrow_mut().edit(world.clock.now(), "contacts", &ids[0], &[("city", "Theirs")]));
    let undone = undo(&world, run.run_id.as_deref().unwrap(), true).await;
    assert_eq!((undone.outcome, undone.rows.rejected, undone.rows.unchanged), (Outcome::Done, 1, 1), "{undone:?}");
    let rejects = world.text(undone.rejects.as_deref().unwrap()).unwrap();
    assert!(rejects.contains("CHANGED_SINCE") && rejects.contains("`city`"), "{rejects}");
    let value = |name: &str| world.contact("a@x.io", name);
    assert_eq!((value("firstname").as_deref(), value("city").as_deref()), (Some("F"), Some("Theirs")));
    assert_eq!(value("lifecyclestage").as_deref(), Some("lead"), "a stage goes back only after it was cleared");
    assert!(world.contact("kept@x.io", "firstname").is_some(), "--keep-created");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_comes_up_again_far_below_is_planned_on_top_of_its_first_row() {
    let world = World::new(&contacts(""));
    seed(&world, &[&[("email", "p0@x.io"), ("firstname", "Old")]]);
    let mut file = String::from("email,firstname,city\n");
    for number in 0..3_000 {
        file.push_str(&format!("p{number}@x.io,First{number},Bonn\n"));
    }
    file.push_str("P0@x.io,Last0,\np1@x.io,,Bern\np2@x.io,First2,Bonn\n");
    let before = state(&world);
    let plan = plan_of(&world, "contacts", file.clone()).await;
    let of = |key: &str| {
        plan.told()
            .into_iter()
            .filter(|(known, ..)| known.to_lowercase() == key)
            .map(|(_, act, fields)| (act, fields))
            .collect::<Vec<_>>()
    };
    let own = |text: &str| text.to_owned();
    assert_eq!(of("p1@x.io")[1], (Act::Update, vec![own("city Bonn Bern")]));
    assert!(of("p0@x.io").contains(&(Act::Update, vec![own("firstname First0 Last0")])), "{:?}", of("p0@x.io"));
    assert_eq!(of("p2@x.io")[1], (Act::Unchanged, vec![]));
    assert!((3..20).contains(&plan.totals.repeated), "{}", plan.totals.repeated);
    let applied = apply(&world, "plans/a.jsonl", &plan.text).await;
    assert_eq!((applied.outcome, applied.rows.rejected), (Outcome::Done, 0), "{applied:?}");
    let direct = World::new(&contacts(""));
    seed(&direct, &[&[("email", "p0@x.io"), ("firstname", "Old")]]);
    direct.import("incoming/contacts/a.csv", file).await;
    assert_eq!(state(&world), state(&direct));
    let undone = undo(&world, applied.run_id.as_deref().unwrap(), false).await;
    assert_eq!((undone.outcome, undone.rows.rejected), (Outcome::Done, 0), "{undone:?}");
    assert_eq!(state(&world), before);
}

/// Says only what differs.
#[track_caller]
fn same_state(left: &State, right: &State, name: &str) {
    let missing = |a: &State, b: &State| -> Vec<String> {
        let all = a.iter().flat_map(|(object, records)| records.iter().map(move |record| (object, record)));
        let others = all.filter(|(object, record)| b.get(*object).is_none_or(|records| !records.contains(record)));
        others.map(|(object, record)| format!("{object} {record:?}")).take(5).collect()
    };
    let (spare, lacking) = (missing(left, right), missing(right, left));
    assert!(spare.is_empty() && lacking.is_empty(), "{name}: spare {spare:?}, lacking {lacking:?}");
}

/// Rows for records that are there and that are not, one key twice, one that HubSpot refuses.
fn long_file(rows: usize) -> String {
    let mut text = String::from("email,firstname,city,member_id\n");
    for number in 0..rows {
        text.push_str(&match number % 50 {
            49 => format!("P{}@x.io,Again{number},,\n", number - 40),
            48 => format!("refused{number}@x.io,X,,taken\n"),
            _ => format!("p{number}@x.io,First{number},Bonn,\n"),
        });
    }
    text
}

fn long_world(config: &str, faults: Vec<Fault>, seed_number: u64) -> World {
    let mut settings = PortalSettings { seed: seed_number, faults, ..PortalSettings::default() };
    settings.latency.fixed_ms = 300;
    settings.properties.insert("contacts".to_owned(), vec![PropertyDefinition::new("member_id", "string").unique()]);
    let world = World::with(config, settings);
    let mut records: Vec<Vec<(String, String)>> =
        vec![vec![("email".into(), "holder@x.io".into()), ("member_id".into(), "taken".into())]];
    for number in (0..1_200).step_by(2) {
        records.push(vec![("email".into(), format!("p{number}@x.io")), ("firstname".into(), format!("Old{number}"))]);
    }
    for record in &records {
        let record: Vec<(&str, &str)> = record.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &record).unwrap();
    }
    world
}

/// Works on something until its end, killing it again and again at random instants.
async fn killed_again_and_again(
    world: &World,
    work: impl AsyncFn(&str) -> hubferry::Result<Answer>,
    kills: usize,
) -> Report {
    let mut killed = 0;
    for _ in 0..500 {
        let name = owner(world);
        let time =
            if killed < kills { Duration::from_millis(world.rng.u64() % 3_500) } else { Duration::from_secs(3_600) };
        let answer = tokio::select! {
            biased;
            () = world.clock.sleep(time) => { killed += 1; None }
            answer = work(&name) => Some(answer.unwrap()),
        };
        match answer.map(report) {
            Some(report) if report.outcome == Outcome::Busy => world.clock.sleep(Duration::from_secs(31)).await,
            Some(report) if report.outcome.is_final() => return report,
            Some(_) | None => world.clock.sleep(Duration::from_secs(31)).await,
        }
    }
    panic!("it does not end");
}

#[tokio::test(start_paused = true)]
async fn an_apply_and_an_undo_that_are_killed_at_any_instant_end_as_clean_ones() {
    let file = long_file(1_500);
    let clean = long_world(&contacts(""), Vec::new(), 1);
    let plan = plan_of(&clean, "contacts", file.clone()).await;
    let applied = apply(&clean, "plans/a.jsonl", &plan.text).await;
    assert_eq!((applied.outcome, applied.rejected_by_code.len()), (Outcome::Done, 1), "{applied:?}");
    let end = state(&clean);
    for number in 2..=9 {
        let faults = if number % 2 == 0 { Faults::five_percent(number) } else { Vec::new() };
        let world = long_world(&contacts(""), faults, number);
        let before = state(&world);
        let plan = plan_of(&world, "contacts", file.clone()).await;
        world.objects.insert(&Location::new(BUCKET, "plans/a.jsonl"), plan.text.clone());
        let work = async |owner: &str| {
            plan::apply(&world.process(), &source("plans/a.jsonl"), world.deadline(900), owner).await
        };
        let applied = killed_again_and_again(&world, work, 3).await;
        assert_eq!((applied.outcome, applied.rows.rejected), (Outcome::Done, 30), "seed {number}: {applied:?}");
        same_state(&state(&world), &end, &format!("seed {number}"));
        let run_id = applied.run_id.unwrap();
        let work = async |owner: &str| plan::undo(&world.process(), &run_id, false, world.deadline(900), owner).await;
        let undone = killed_again_and_again(&world, work, 3).await;
        assert_eq!((undone.outcome, undone.rows.rejected), (Outcome::Done, 0), "seed {number}: {undone:?}");
        same_state(&state(&world), &before, &format!("seed {number}: not as it was"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_import_with_before_images_that_is_killed_again_and_again_can_be_undone() {
    for number in 1..=4 {
        let world = long_world(&contacts("before_images: true"), Vec::new(), number);
        let before = state(&world);
        let event = world.upload("incoming/contacts/a.csv", long_file(1_500)).await;
        let work = async |_: &str| world.handle(event.clone()).await;
        let run = killed_again_and_again(&world, work, 3).await;
        assert_eq!(run.outcome, Outcome::Done, "{run:?}");
        let undone = undo(&world, run.run_id.as_deref().unwrap(), false).await;
        assert_eq!((undone.outcome, undone.rows.rejected), (Outcome::Done, 0), "seed {number}: {undone:?}");
        same_state(&state(&world), &before, &format!("seed {number}"));
    }
}

const TWO_OBJECTS: &str = "version: 1\nhubspot:\n  default: { secret: hubferry/hubspot }\nimports:\n  - name: people\n    match: incoming/people/*\n    create_properties: true\n    records:\n      - { object: contacts, key: email, columns: { email: email, first: firstname } }\n      - { object: companies, key: domain, columns: { company_domain: domain, company: name } }\n    associate: [ { from: contacts, to: companies } ]\n";

#[tokio::test(start_paused = true)]
async fn rows_of_two_records_are_planned_with_their_associations_and_properties() {
    let world = || {
        let world = World::new(TWO_OBJECTS);
        let now = world.clock.now();
        world.portal.borrow_mut().seed_record(now, "companies", &[("domain", "old.example"), ("name", "Old")]).unwrap();
        world.portal.borrow_mut().seed_record(now, "contacts", &[("email", "ada@x.io"), ("firstname", "Ada")]).unwrap();
        world
    };
    let file = "email,first,company_domain,company\nada@x.io,Ada,www.Old.example,Old Ltd\nbob@x.io,Bob,new.example,New Ltd\ncyd@x.io,Cyd,,\n";
    let planning = world();
    planning.clock.sleep(Duration::from_secs(60)).await;
    let plan = plan_of(&planning, "people", file).await;
    assert_eq!(writes(&planning), 0);
    let header = plan.header();
    let made: Vec<&str> = header.create_properties.iter().map(|planned| planned.property.name.as_str()).collect();
    assert_eq!(made, ["hubferry_domain_key"]);
    assert_eq!(
        (plan.totals.create, plan.totals.update, plan.totals.unchanged, plan.totals.associations),
        (3, 1, 1, 2),
        "{:?}",
        plan.told()
    );
    let adopted = plan.records().into_iter().find(|record| record.key == "old.example").unwrap();
    assert!(
        adopted.id.is_some() && adopted.fields.iter().any(|(name, ..)| &**name == "hubferry_domain_key"),
        "{adopted:?}"
    );
    let applied = apply(&planning, "plans/a.jsonl", &plan.text).await;
    assert_eq!((applied.outcome, applied.rows.rejected), (Outcome::Done, 0), "{applied:?}");
    let direct = world();
    direct.clock.sleep(Duration::from_secs(60)).await;
    direct.import("incoming/people/a.csv", file).await;
    assert_eq!(state(&planning), state(&direct));
}

#[tokio::test(start_paused = true)]
async fn mirror_and_unchanged_rows_are_planned_by_the_last_file() {
    let world = World::new(&contacts("mode: mirror\nskip_unchanged: true\nmirror_max_archived: 2"));
    let first = "email,firstname\na@x.io,A\nb@x.io,B\nc@x.io,C\nd@x.io,D\n";
    world.import("incoming/contacts/a.csv", first).await;
    let plan = plan_of(&world, "contacts", "email,firstname\na@x.io,A\nb@x.io,B2\ne@x.io,E\n").await;
    let own = |text: &str| text.to_owned();
    let acts: Vec<_> = plan.told().into_iter().map(|(key, act, _)| (key, act)).collect();
    assert_eq!(
        acts,
        [
            (own("a@x.io"), Act::Unchanged),
            (own("b@x.io"), Act::Update),
            (own("c@x.io"), Act::Archive),
            (own("d@x.io"), Act::Archive),
            (own("e@x.io"), Act::Create),
        ]
    );
    let why = plan.records()[0].why.clone().unwrap_or_default();
    assert!(why.contains("skip_unchanged"), "{why}");
    let applied = apply(&world, "plans/a.jsonl", &plan.text).await;
    assert_eq!((applied.outcome, applied.rows.rejected), (Outcome::Done, 0), "{applied:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 3);
    // What the plan wrote is no file that was delivered: nothing is left out by the old index.
    let plan = plan_of(&world, "contacts", "email,firstname\na@x.io,A\nb@x.io,B\n").await;
    assert!(plan.told().contains(&(own("b@x.io"), Act::Update, vec![own("firstname B2 B")])), "{:?}", plan.told());
    // Braked: nothing of it is in the plan.
    let plan = plan_of(&world, "contacts", "email,firstname\na@x.io,A\n").await;
    let mirror = plan.totals.mirror.clone().unwrap();
    assert_eq!((mirror.missing, mirror.known, mirror.braked, plan.totals.archive), (3, 4, true, 0));
}

#[tokio::test(start_paused = true)]
async fn every_mode_is_planned_as_it_would_run() {
    for (mode, expect) in [
        ("create", (1, 0, 0, 1, "KEY_EXISTS")),
        ("update", (0, 1, 0, 1, "KEY_NOT_FOUND")),
        ("archive", (0, 0, 1, 1, "KEY_NOT_FOUND")),
    ] {
        let setup = || {
            let world = World::new(&contacts(&format!("mode: {mode}")));
            seed(&world, &[&[("email", "old@x.io"), ("firstname", "Old")]]);
            world
        };
        let file = "email,firstname\nold@x.io,New\nnew@x.io,New\n";
        let world = setup();
        world.clock.sleep(Duration::from_secs(60)).await;
        let plan = plan_of(&world, "contacts", file).await;
        let totals = &plan.totals;
        let code = totals.rejected_by_code.keys().next().map(String::as_str).unwrap_or_default();
        assert_eq!((totals.create, totals.update, totals.archive, totals.rejected, code), expect, "{mode}");
        let applied = apply(&world, "plans/a.jsonl", &plan.text).await;
        assert_eq!((applied.outcome, applied.rows.rejected), (Outcome::Done, 0), "{mode}: {applied:?}");
        let direct = setup();
        direct.clock.sleep(Duration::from_secs(60)).await;
        direct.import("incoming/contacts/a.csv", file).await;
        assert_eq!(state(&world), state(&direct), "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_plan_or_of_another_portal_is_refused_before_anything_is_written() {
    let world = small();
    let plan = plan_of(&world, "contacts", FILE).await;
    for (name, text) in
        [("csv", FILE.to_owned()), ("empty", String::new()), ("headless", plan.text.lines().skip(1).collect())]
    {
        world.objects.insert(&Location::new(BUCKET, name), text);
        let error = plan::apply(&world.process(), &source(name), world.deadline(900), "x").await.unwrap_err();
        assert_eq!(error.code(), codes::PLAN_INVALID, "{name}: {error}");
    }
    let cut: String = plan.text.lines().take(3).map(|line| format!("{line}\n")).collect();
    let other = plan.text.replace(&format!("\"portal_id\":{}", plan.header().portal_id), "\"portal_id\":1");
    for (name, text) in [("cut", cut), ("other", other)] {
        let report = apply(&world, name, &text).await;
        assert_eq!((report.outcome, report.error.unwrap().code.as_str()), (Outcome::Invalid, "PLAN_INVALID"), "{name}");
    }
    assert_eq!(writes(&world), 0);
    // A line that was spoilt by hand is a reject, and the others are carried out.
    let spoilt = plan.text.replacen("\"do\":\"create\"", "\"do\":\"crate\"", 1);
    let report = apply(&world, "spoilt", &spoilt).await;
    assert_eq!(
        (report.outcome, report.rejected_by_code.get("PLAN_INVALID"), report.rows.updated),
        (Outcome::Done, Some(&1), 2)
    );
    for (run_id, code) in [("01M81X8WAQPWTZFPPZ0WHP7FWS".to_owned(), codes::NAME_UNKNOWN)] {
        let error = plan::undo(&world.process(), &run_id, false, world.deadline(900), "x").await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    let without = world.import("incoming/contacts/b.csv", "email\na@x.io\n").await.run_id.unwrap();
    let error = plan::undo(&world.process(), &without, false, world.deadline(900), "x").await.unwrap_err();
    assert_eq!(error.code(), codes::NO_BEFORE_IMAGES);
}

#[tokio::test(start_paused = true)]
async fn a_whole_file_is_checked_before_the_first_write_where_that_is_asked_for() {
    let mut file = String::from("email,firstname\n");
    for number in 0..2_500 {
        file.push_str(&if number > 1_500 { format!("broken{number},X\n") } else { format!("p{number}@x.io,P\n") });
    }
    let world = World::new(&contacts("preflight: full\nabort_if_rejected: 20%"));
    let report = world.import("incoming/contacts/a.csv", file.clone()).await;
    assert_eq!(
        (report.outcome, report.error.as_ref().unwrap().code.as_str()),
        (Outcome::Invalid, "ABORT_IF_REJECTED"),
        "{report:?}"
    );
    assert_eq!((report.rows.read, writes(&world)), (0, 0), "nothing was written");
    let rejects = world.text(report.rejects.as_deref().unwrap()).unwrap();
    assert_eq!((rejects.lines().count(), report.rejected_by_code.get("INVALID_EMAIL")), (1_000, Some(&999)));
    assert!(rejects.contains("broken2499,X,2501,INVALID_EMAIL,"));
    // Without it the first rows are written.
    let world = World::new(&contacts("abort_if_rejected: 20%"));
    let report = world.import("incoming/contacts/a.csv", file.clone()).await;
    assert_eq!(report.outcome, Outcome::Aborted);
    assert!(writes(&world) > 0);
    // And what is right goes through, whatever kills it.
    let good =
        file.replace("broken1501,X\n", "").lines().take(1_502).map(|line| format!("{line}\n")).collect::<String>()
            + "bad,X\np1@x.io,Again\n";
    for kills in [0, 3] {
        let world = World::new(&contacts("preflight: full\nskip_unchanged: true"));
        let event = world.upload("incoming/contacts/a.csv", good.clone()).await;
        let run = killed_again_and_again(&world, async |_: &str| world.handle(event.clone()).await, kills).await;
        assert_eq!((run.outcome, run.rows.read, run.rows.rejected), (Outcome::Done, 1_503, 1), "{run:?}");
        assert_eq!(world.portal.borrow().record_count("contacts"), 1_501);
        assert!(run.notes.iter().any(|note| note.starts_with("preflight: 1503 rows")), "{:?}", run.notes);
        let left = world
            .objects
            .list(&Location::new(BUCKET, format!("state/import/contacts/{}/preflight", run.run_id.unwrap())))
            .await
            .unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_an_apply_writes_nothing_twice() {
    let world = small();
    let plan = plan_of(&world, "contacts", FILE).await;
    world.portal.borrow_mut().add_fault(Fault::nth("batch/upsert", 1, What::ResetAfter));
    world.portal.borrow_mut().add_fault(Fault::nth("batch/update", 1, What::ResetAfter));
    let applied = apply(&world, "plans/a.jsonl", &plan.text).await;
    assert_eq!((applied.outcome, applied.rows.rejected), (Outcome::Done, 0), "{applied:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 4);
}

#[tokio::test(start_paused = true)]
async fn options_that_are_added_are_planned_and_undone_as_the_whole_list() {
    for way in ["plan", "import"] {
        let mut settings = PortalSettings::default();
        let tags = PropertyDefinition::new("tags", "enumeration").options(&["a", "b", "c"]).several();
        settings.properties.insert("contacts".to_owned(), vec![tags]);
        let world = World::with(&contacts("before_images: true"), settings);
        seed(&world, &[&[("email", "a@x.io"), ("tags", "a")], &[("email", "b@x.io"), ("tags", "c;a")]]);
        let before = state(&world);
        let file = "email,tags\na@x.io,;c\nb@x.io,a;c\n";
        let run = match way {
            "plan" => {
                let plan = plan_of(&world, "contacts", file).await;
                let told = plan.told();
                assert_eq!(told[0].2, ["tags a a;c"]);
                assert_eq!(told[1].1, Act::Unchanged, "the order of options means nothing");
                apply(&world, "plans/a.jsonl", &plan.text).await
            }
            _ => world.import("incoming/contacts/a.csv", file).await,
        };
        assert_eq!(
            (run.outcome, world.contact("a@x.io", "tags").as_deref()),
            (Outcome::Done, Some("a;c")),
            "{way}: {run:?}"
        );
        let undone = undo(&world, run.run_id.as_deref().unwrap(), false).await;
        assert_eq!((undone.outcome, undone.rows.rejected), (Outcome::Done, 0), "{way}: {undone:?}");
        assert_eq!(world.contact("a@x.io", "tags").as_deref(), Some("a"), "{way}");
        if way == "plan" {
            same_state(&state(&world), &before, way);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn change_records_are_not_planned_and_too_many_rejects_are_told() {
    let config =
        contacts("abort_if_rejected: 1") + "  - { name: cdc, match: cdc/*, format: opencdc, resource: crm.contacts }\n";
    let world = World::new(&config);
    let app = world.process();
    let import = app.config().imports.iter().find(|import| import.name == "cdc").unwrap();
    world.objects.insert(&Location::new(BUCKET, "cdc/a"), "{}\n");
    let error = plan::plan(&app, import, &source("cdc/a"), sink().0).await.unwrap_err();
    assert_eq!(error.code(), codes::PLAN_UNSUPPORTED);
    let plan = plan_of(&world, "contacts", "email\nx\ny\na@x.io\n").await;
    assert!(plan.totals.aborts && plan.totals.create == 1, "the whole file is shown: {:?}", plan.totals);
    let empty = plan_of(&world, "contacts", "").await;
    assert_eq!((empty.lines.len(), empty.totals.rows), (2, 0), "{:?}", empty.lines);
    let report = apply(&world, "plans/empty", &empty.text).await;
    assert_eq!((report.outcome, report.rows.read), (Outcome::Done, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_not_at_its_end_is_not_undone() {
    let world = World::new(&contacts("before_images: true"));
    let event = world.upload("incoming/contacts/a.csv", long_file(3_000)).await;
    assert!(world.handle_until_killed(event, Duration::from_secs(3)).await.is_none());
    let (run_id, _) = world.process().runs().open_runs().await.unwrap().remove(0);
    let error = plan::undo(&world.process(), &run_id, false, world.deadline(900), "x").await.unwrap_err();
    assert_eq!(error.code(), codes::RUN_OPEN);
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_off_is_picked_up_by_the_sweep() {
    let file = long_file(1_500);
    let world = long_world(&contacts(""), Vec::new(), 5);
    let before = state(&world);
    let plan = plan_of(&world, "contacts", file.clone()).await;
    world.objects.insert(&Location::new(BUCKET, "plans/a.jsonl"), plan.text.clone());
    let app = world.process();
    let from = source("plans/a.jsonl");
    let cut_off = tokio::select! {
        biased;
        () = world.clock.sleep(Duration::from_secs(3)) => true,
        _ = plan::apply(&app, &from, world.deadline(900), "cli") => false,
    };
    assert!(cut_off);
    world.clock.sleep(Duration::from_secs(31)).await;
    let applied = world.resume().await.remove(0);
    assert_eq!((applied.outcome, applied.rows.rejected, applied.invocations), (Outcome::Done, 30, 2), "{applied:?}");
    let direct = long_world(&contacts(""), Vec::new(), 5);
    direct.import("incoming/contacts/a.csv", file).await;
    same_state(&state(&world), &state(&direct), "applied");
    let run_id = applied.run_id.unwrap();
    let app = world.process();
    let cut_off = tokio::select! {
        biased;
        () = world.clock.sleep(Duration::from_secs(3)) => true,
        _ = plan::undo(&app, &run_id, false, world.deadline(900), "cli") => false,
    };
    assert!(cut_off);
    world.clock.sleep(Duration::from_secs(31)).await;
    let undone = world.resume().await.remove(0);
    assert_eq!((undone.job.as_str(), undone.outcome, undone.rows.rejected), ("undo", Outcome::Done, 0), "{undone:?}");
    same_state(&state(&world), &before, "undone");
}

#[tokio::test(start_paused = true)]
async fn an_apply_with_associations_that_is_killed_again_and_again_ends_as_the_import() {
    let mut file = String::from("email,first,company_domain,company\n");
    for number in 0..600 {
        file.push_str(&format!("p{number}@x.io,P{number},c{}.example,C{}\n", number % 70, number % 70));
    }
    let direct = World::new(TWO_OBJECTS);
    direct.import("incoming/people/a.csv", file.clone()).await;
    for seed in [3, 4] {
        let mut settings = PortalSettings { seed, ..PortalSettings::default() };
        settings.latency.fixed_ms = 300;
        let world = World::with(TWO_OBJECTS, settings);
        let plan = plan_of(&world, "people", file.clone()).await;
        world.objects.insert(&Location::new(BUCKET, "plans/a.jsonl"), plan.text.clone());
        let from = source("plans/a.jsonl");
        let work = async |owner: &str| plan::apply(&world.process(), &from, world.deadline(900), owner).await;
        let applied = killed_again_and_again(&world, work, 3).await;
        assert_eq!((applied.outcome, applied.rows.rejected), (Outcome::Done, 0), "seed {seed}: {applied:?}");
        same_state(&state(&world), &state(&direct), &format!("seed {seed}"));
    }
}

#[tokio::test(start_paused = true)]
async fn properties_that_are_missing_are_planned_and_made_by_the_apply() {
    let world = World::new(&contacts("create_properties: true"));
    let file = "email,Shoe size,Member since\na@x.io,44,2024-03-01\nb@x.io,45.5,2024-03-02\n";
    let plan = plan_of(&world, "contacts", file).await;
    let made: Vec<_> = plan
        .header()
        .create_properties
        .iter()
        .map(|planned| (&*planned.property.name, &*planned.property.kind))
        .collect();
    assert_eq!(made, [("shoe_size", "number"), ("member_since", "date")]);
    assert_eq!(writes(&world), 0);
    let applied = apply(&world, "plans/a.jsonl", &plan.text).await;
    assert_eq!((applied.outcome, applied.rows.created), (Outcome::Done, 2), "{applied:?}");
    assert_eq!(world.contact("b@x.io", "shoe_size").as_deref(), Some("45.5"));
}
