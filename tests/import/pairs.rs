//! Undoing a run takes back the associations that it made, and no other.

use std::{collections::BTreeSet, time::Duration};

use hubferry::{
    clock::{Clock, Deadline},
    hubspot::account::Call,
    import::plan::{self, Line, Totals},
    record::ObjectType,
    report::{Outcome, Report},
};
use serde_json::json;

use crate::support::{World, report};

const PEOPLE: &str = "
version: 1
hubspot: { default: { secret: hubferry/hubspot } }
imports:
  - name: people
    match: incoming/people/*
    create_properties: true
    before_images: true
    records:
      - { object: contacts, key: email, columns: { email: email } }
      - { object: companies, key: domain, columns: { domain: domain } }
    associate: [ { from: contacts, to: companiesLABEL } ]
";

const FILE: &str = "email,domain\nada@x.io,one.io\nbob@x.io,one.io\nnew@x.io,two.io\n";

/// Ada belongs to two.io, which is her primary company because it was the first, and to one.io; Bob is there.
async fn world(label: &str) -> (World, [String; 2], [String; 2]) {
    let world = World::new(&PEOPLE.replace("LABEL", label));
    let now = world.clock.now();
    let seed = |object: &str, name: &str, value: &str| {
        world.portal.borrow_mut().seed_record(now, object, &[(name, value)]).unwrap()
    };
    let people = ["ada@x.io", "bob@x.io"].map(|email| seed("contacts", "email", email));
    let companies = ["one.io", "two.io"].map(|domain| seed("companies", "domain", domain));
    for company in [&companies[1], &companies[0]] {
        assert!(world.portal.borrow_mut().associate("contacts", &people[0], "companies", company));
    }
    world.clock.sleep(Duration::from_secs(60)).await;
    (world, people, companies)
}

fn contacts() -> ObjectType {
    ObjectType("contacts".to_owned())
}

fn companies() -> ObjectType {
    ObjectType("companies".to_owned())
}

/// Labels of the pairs of these contacts: contact, company, label or nothing.
async fn pairs(world: &World, people: &[String]) -> Vec<(String, String, String)> {
    let account = world.process().account("default").unwrap();
    let ids: BTreeSet<String> = people.iter().cloned().collect();
    let links = account.associations(&contacts(), &companies(), &ids, Deadline::NONE).await.unwrap();
    let mut all = Vec::new();
    for (near, far_ends) in links {
        for (far, types) in far_ends {
            let labels: BTreeSet<String> = types.iter().map(|one| one.label.clone().unwrap_or_default()).collect();
            all.extend(labels.into_iter().map(|label| (near.clone(), far.clone(), label)));
        }
    }
    all
}

async fn undo(world: &World, run: &Report, keep_created: bool) -> Report {
    let id = run.run_id.as_deref().unwrap();
    let answer = plan::undo(&world.process(), id, keep_created, world.deadline(900), "me").await;
    world.finish(report(answer.unwrap()), 900).await
}

async fn foretold(world: &World, run: &Report, keep_created: bool) -> (Totals, Vec<Line>) {
    let lines = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let taken = lines.clone();
    let sink: plan::Sink = Box::new(move |line| {
        taken.borrow_mut().push(line.clone());
        Ok(())
    });
    let id = run.run_id.as_deref().unwrap();
    let totals = plan::plan_undo(&world.process(), id, keep_created, sink).await.unwrap();
    (totals, lines.take())
}

#[tokio::test(start_paused = true)]
async fn an_undo_takes_the_runs_associations_apart_and_leaves_those_that_were_there() {
    let (world, people, _) = world("").await;
    let before = pairs(&world, &people).await;
    let state = world.portal.borrow().state();
    let run = world.import("incoming/people/a.csv", FILE).await;
    assert_eq!((run.outcome, run.rows.created + run.rows.updated), (Outcome::Done, 3), "{run:?}");
    assert!(pairs(&world, &people).await.len() > before.len());
    let (totals, lines) = foretold(&world, &run, false).await;
    assert_eq!(totals.parted, 2, "Bob's, and that of the new contact: {lines:?}");
    let text: String = lines.iter().map(|line| line.text().unwrap()).collect();
    assert_eq!(text.matches("\"do\":\"part\"").count(), 2, "{text}");

    let undone = undo(&world, &run, false).await;
    assert_eq!((undone.outcome, undone.rows.rejected), (Outcome::Done, 0), "{undone:?}");
    assert_eq!(pairs(&world, &people).await, before);
    let now = world.portal.borrow().state();
    assert_eq!(now["contacts"].len(), state["contacts"].len(), "the new contact is archived");
    let again = undo(&world, &run, false).await;
    assert_eq!(again.outcome, Outcome::Duplicate);

    // And the undo is undone: Bob belongs to one.io again.
    let back = undo(&world, &undone, false).await;
    assert_eq!(back.outcome, Outcome::Done, "{back:?}");
    assert!(pairs(&world, &people).await.iter().any(|(near, ..)| *near == people[1]), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn an_undo_takes_a_label_back_to_where_it_was_and_leaves_the_association_that_was_there() {
    let (world, people, companies) = world(", label: Primary").await;
    let before = pairs(&world, &people).await;
    let run = world.import("incoming/people/a.csv", FILE).await;
    assert_eq!(run.outcome, Outcome::Done, "{run:?}");
    let primary = |all: &[(String, String, String)], near: &String| {
        all.iter().any(|(one, far, label)| one == near && *far == companies[0] && label == "Primary")
    };
    let labelled = pairs(&world, &people).await;
    assert!(people.iter().all(|near| primary(&labelled, near)), "{labelled:?}");
    let undone = undo(&world, &run, false).await;
    assert_eq!((undone.outcome, undone.rows.rejected), (Outcome::Done, 0), "{undone:?}");
    assert_eq!(pairs(&world, &people).await, before, "two.io is Ada's primary company again");
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_got_a_label_since_is_kept_and_told() {
    let (world, people, to) = world("").await;
    let run = world.import("incoming/people/a.csv", FILE).await;
    let account = world.process().account("default").unwrap();
    let body = json!({ "label": "Adviser", "name": "adviser" }).to_string();
    let path = account.paths().associations(&contacts(), &companies(), "labels");
    account.call(Call::post(path, body.into()), Deadline::NONE).await.unwrap();
    let label = account.association_type(&contacts(), &companies(), "Adviser", Deadline::NONE).await.unwrap();
    let pair = [(people[1].clone(), to[0].clone())];
    account.associate(&contacts(), &companies(), Some(&label), &pair, Deadline::NONE).await.unwrap();
    let undone = undo(&world, &run, false).await;
    assert_eq!(undone.rejected_by_code.get("CHANGED_SINCE"), Some(&1), "{undone:?}");
    let rejects = world.text(undone.rejects.as_deref().unwrap()).unwrap();
    assert!(rejects.contains("were given another label since: `Adviser`"), "{rejects}");
    assert!(pairs(&world, &people).await.iter().any(|(near, _, label)| *near == people[1] && label == "Adviser"));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_stays_associated() {
    let (world, people, _) = world("").await;
    let run = world.import("incoming/people/a.csv", FILE).await;
    let with = pairs(&world, &people).await;
    let (totals, lines) = foretold(&world, &run, true).await;
    assert_eq!(totals.parted, 0);
    let Some(Line::Plan(header)) = lines.first() else { panic!("{lines:?}") };
    assert!(header.notes.iter().any(|note| note.contains("--keep-created")), "{header:?}");
    let undone = undo(&world, &run, true).await;
    assert_eq!(undone.outcome, Outcome::Done, "{undone:?}");
    assert_eq!(pairs(&world, &people).await, with);
}

#[tokio::test(start_paused = true)]
async fn an_import_and_an_undo_that_are_killed_leave_the_pairs_as_they_were() {
    let rows: String = (0..600).map(|row| format!("p{row}@x.io,d{}.io\n", row % 30)).collect();
    let file = format!("email,domain\n{rows}");
    for seed in 1..=4 {
        let world = World::new(&PEOPLE.replace("LABEL", ""));
        let now = world.clock.now();
        let mut people = Vec::new();
        for row in 0..600 {
            let email = format!("p{row}@x.io");
            people.push(world.portal.borrow_mut().seed_record(now, "contacts", &[("email", &email)]).unwrap());
        }
        for domain in 0..30 {
            let domain = format!("d{domain}.io");
            let id = world.portal.borrow_mut().seed_record(now, "companies", &[("domain", &domain)]).unwrap();
            for person in people.iter().skip(id.len() % 7).step_by(97) {
                world.portal.borrow_mut().associate("contacts", person, "companies", &id);
            }
        }
        world.clock.sleep(Duration::from_secs(60)).await;
        let before = pairs(&world, &people).await;
        let event = world.upload("incoming/people/a.csv", file.clone()).await;
        let mut run = None;
        for kill in 0..40_u64 {
            let time = Duration::from_millis(if kill < 3 { (seed * 977 + kill * 1_301) % 4_000 } else { 3_600_000 });
            match world.handle_until_killed(event.clone(), time).await.map(report) {
                Some(ended) if ended.outcome.is_final() => {
                    run = Some(ended);
                    break;
                }
                _ => world.clock.sleep(Duration::from_secs(31)).await,
            }
        }
        let run = run.unwrap();
        assert_eq!((run.outcome, run.rows.rejected), (Outcome::Done, 0), "seed {seed}: {run:?}");
        assert!(pairs(&world, &people).await.len() > before.len());
        let id = run.run_id.clone().unwrap();
        let mut undone = None;
        for kill in 0..40_u64 {
            let time = Duration::from_millis(if kill < 3 { (seed * 1_523 + kill * 811) % 3_000 } else { 3_600_000 });
            let process = world.process();
            let owner = format!("me/{kill}");
            let answer = tokio::select! {
                biased;
                () = world.clock.sleep(time) => None,
                answer = plan::undo(&process, &id, false, world.deadline(900), &owner) => Some(report(answer.unwrap())),
            };
            match answer {
                Some(ended) if ended.outcome.is_final() => {
                    undone = Some(ended);
                    break;
                }
                _ => world.clock.sleep(Duration::from_secs(31)).await,
            }
        }
        let undone = undone.unwrap();
        assert_eq!((undone.outcome, undone.rows.rejected), (Outcome::Done, 0), "seed {seed}: {undone:?}");
        assert_eq!(pairs(&world, &people).await, before, "seed {seed}");
    }
}
