//! What is done with a row: modes, fill-if-empty, keys that are not unique, several records in a row, before-images.

use hubferry::{
    clock::Clock,
    objects::{Location, Objects},
    report::Outcome,
};
use hubferry_simulator::hubspot::{Fault, What};
use serde_json::{Value, json};

use crate::support::{World, contacts, rejects, report};

const TWO_OBJECTS: &str = "
version: 1
hubspot: { default: { secret: hubferry/hubspot } }
imports:
  - name: people
    match: incoming/people/*
    create_properties: true
    records:
      - { object: contacts, key: email, columns: { email: email, first: firstname } }
      - { object: companies, key: domain, columns: { company_domain: domain, company: name } }
    associate: [ { from: contacts, to: companies } ]
";

const COMPANIES: &str = "
version: 1
hubspot: { default: { secret: hubferry/hubspot } }
imports:
  - name: companies
    match: incoming/companies/*
    object: companies
    key: domain
    create_properties: CONSENT
    columns: { Domain: domain, Name: name, City: city }
";

#[tokio::test(start_paused = true)]
async fn mode_create_rejects_existing_keys_and_mode_update_missing_ones() {
    let world = World::new(&contacts("mode: create"));
    world.portal.borrow_mut().seed_record(
        world.clock.now(),
        "contacts",
        &[("email", "old@x.io"), ("firstname", "Old")],
    );
    let created = world.import("incoming/contacts/a.csv", "email,firstname\nold@x.io,Changed\nnew@x.io,New\n").await;
    assert_eq!((created.rows.created, created.rows.rejected), (1, 1), "{created:?}");
    assert_eq!(created.rejected_by_code["KEY_EXISTS"], 1);
    assert_eq!(world.contact("old@x.io", "firstname").as_deref(), Some("Old"));

    let world = World::new(&contacts("mode: update"));
    world.portal.borrow_mut().seed_record(
        world.clock.now(),
        "contacts",
        &[("email", "old@x.io"), ("firstname", "Old")],
    );
    let updated = world.import("incoming/contacts/a.csv", "email,firstname\nold@x.io,Changed\nnew@x.io,New\n").await;
    assert_eq!((updated.rows.updated, updated.rows.rejected), (1, 1), "{updated:?}");
    assert_eq!(updated.rejected_by_code["KEY_NOT_FOUND"], 1);
    assert_eq!(world.contact("old@x.io", "firstname").as_deref(), Some("Changed"));
    assert_eq!(world.contact("new@x.io", "firstname"), None);
}

#[tokio::test(start_paused = true)]
async fn mode_create_knows_its_own_records_after_a_lost_answer() {
    let world = World::new(&contacts("mode: create"));
    world.portal.borrow_mut().add_fault(Fault::nth("batch/upsert", 1, What::ResetAfter));
    let report = world.import("incoming/contacts/a.csv", "email,firstname\na@x.io,A\nb@x.io,B\n").await;
    assert_eq!((report.outcome, report.rows.rejected), (Outcome::Done, 0), "{report:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 2);
}

#[tokio::test(start_paused = true)]
async fn mode_archive_archives_what_the_file_names() {
    let world = World::new(&contacts("mode: archive\ncolumns: { email: email }"));
    for email in ["a@x.io", "b@x.io"] {
        world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &[("email", email)]);
    }
    let report = world.import("incoming/contacts/a.csv", "email\na@x.io\nmissing@x.io\n").await;
    assert_eq!((report.rows.updated, report.rows.rejected), (1, 1), "{report:?}");
    assert_eq!(world.contact("a@x.io", "email"), None);
    assert_eq!(world.contact("b@x.io", "email").as_deref(), Some("b@x.io"));
}

#[tokio::test(start_paused = true)]
async fn fill_if_empty_writes_only_where_hubspot_has_nothing() {
    let world = World::new(&contacts("columns: { Email: email, First: { property: firstname, fill: if_empty } }"));
    world.portal.borrow_mut().seed_record(
        world.clock.now(),
        "contacts",
        &[("email", "has@x.io"), ("firstname", "Mine")],
    );
    world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &[("email", "none@x.io")]);
    let report = world
        .import("incoming/contacts/a.csv", "Email,First\nhas@x.io,Theirs\nnone@x.io,Theirs\nnew@x.io,Theirs\n")
        .await;
    assert_eq!((report.rows.unchanged, report.rows.updated, report.rows.created), (1, 1, 1), "{report:?}");
    assert_eq!(world.contact("has@x.io", "firstname").as_deref(), Some("Mine"));
    assert_eq!(world.contact("none@x.io", "firstname").as_deref(), Some("Theirs"));
}

#[tokio::test(start_paused = true)]
async fn companies_by_domain_need_consent_and_then_never_double() {
    // GIVEN a company that exists, and no consent
    let world = World::new(&COMPANIES.replace("CONSENT", "false"));
    let file = "Domain,Name,City\nold.example,Old Ltd,Bonn\nnew.example,New Ltd,Kiel\nhttps://www.New.example/,New Ltd,Bremen\n";
    let refused = world.import("incoming/companies/a.csv", file).await;
    assert_eq!((refused.outcome, refused.error.unwrap().code.as_str()), (Outcome::Invalid, "KEY_NOT_UNIQUE"));
    assert_eq!(world.portal.borrow().record_count("companies"), 0);

    // WHEN there is consent, the search index lags by 20 s and answers get lost
    let world = World::new(&COMPANIES.replace("CONSENT", "true"));
    world.portal.borrow_mut().seed_record(
        world.clock.now(),
        "companies",
        &[("domain", "old.example"), ("name", "Older")],
    );
    world.clock.sleep(std::time::Duration::from_secs(60)).await;
    world.portal.borrow_mut().configure(|settings| settings.index_lag.fixed_ms = 20_000);
    world.portal.borrow_mut().add_fault(Fault::nth("companies/batch/upsert", 1, What::ResetAfter));
    let first = world.import("incoming/companies/a.csv", file).await;
    assert_eq!((first.outcome, first.rows.read, first.rows.rejected), (Outcome::Done, 3, 0), "{first:?}");
    let again = world.import("incoming/companies/b.csv", file).await;
    // THEN there is one record per domain, the existing one adopted
    assert_eq!((again.outcome, again.rows.created), (Outcome::Done, 0), "{again:?}");
    let portal = world.portal.borrow();
    let mut companies: Vec<_> =
        portal.records("companies").map(|company| (company["domain"].clone(), company["city"].clone())).collect();
    companies.sort();
    assert_eq!(
        companies,
        [("new.example".to_owned(), "Bremen".to_owned()), ("old.example".to_owned(), "Bonn".to_owned())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_row_of_two_records_makes_both_and_associates_them() {
    let world = World::new(TWO_OBJECTS);
    let file = "email,first,company_domain,company\n\
        ada@x.io,Ada,x.example,X Ltd\n\
        bob@x.io,Bob,x.example,X Ltd\n\
        cyd@x.io,Cyd,,\n\
        bad,Dan,y.example,Y Ltd\n\
        eve@x.io,Eve,z.example,Z Ltd\n";
    let first = world.import("incoming/people/a.csv", file).await;
    assert_eq!(
        (first.outcome, first.rows.read, first.rows.created, first.rows.rejected),
        (Outcome::Done, 5, 4, 1),
        "{first:?}"
    );
    assert_eq!(first.records["contacts"].created, 4);
    assert_eq!((first.records["companies"].created, first.records["companies"].merged), (2, 1));
    let state = world.portal.borrow().state();
    let calls = world.portal.borrow().log().iter().filter(|call| call.path.contains("associat")).count();
    assert_eq!(calls, 1, "three pairs in one call");
    // Again: nothing changes.
    let second = world.import("incoming/people/b.csv", file).await;
    assert_eq!((second.outcome, second.rows.created, second.rows.updated), (Outcome::Done, 0, 4), "{second:?}");
    assert_eq!(world.portal.borrow().state(), state);
}

#[tokio::test(start_paused = true)]
async fn before_images_are_durable_before_the_change_and_hold_the_old_values() {
    let world = World::new(&contacts("before_images: true"));
    world.portal.borrow_mut().seed_record(
        world.clock.now(),
        "contacts",
        &[("email", "old@x.io"), ("firstname", "Before")],
    );
    let report = world.import("incoming/contacts/a.csv", "email,firstname\nold@x.io,After\nnew@x.io,New\n").await;
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    let prefix = Location::new("crm", format!("state/import/contacts/{}/before-", report.run_id.unwrap()));
    let files = world.objects.list(&prefix).await.unwrap();
    assert_eq!(files.len(), 1);
    let lines: Vec<Value> =
        world.text(&files[0].to_string()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["existed"], &lines[0]["before"]["firstname"]), (&json!(true), &json!("Before")));
    assert_eq!((&lines[1]["existed"], &lines[1]["key"]), (&json!(false), &json!("new@x.io")));
}

#[tokio::test(start_paused = true)]
async fn the_daily_limit_makes_the_run_yield_until_the_accounts_midnight() {
    let world = World::new(&contacts(""));
    world.portal.borrow_mut().configure(|settings| settings.limits.daily = Some(20));
    let mut file = String::from("email,firstname\n");
    for number in 0..3_000 {
        file.push_str(&format!("person{number}@example.com,P\n"));
    }
    let event = world.upload("incoming/contacts/a.csv", file).await;
    let first = report(world.handle(event).await.unwrap());
    assert_eq!(first.outcome, Outcome::Yielded, "{first:?}");
    assert_eq!(first.error.unwrap().code, "DAILY_LIMIT");
    assert!(world.queue.take().is_empty(), "nothing is to be gained before midnight");
    // Before midnight the sweep leaves it alone, after it the run goes on.
    let answer = serde_json::to_value(world.handle(json!({ "job": "resume" })).await.unwrap()).unwrap();
    assert_eq!(answer["outcome"], "nothing");
    let mut last = None;
    for _ in 0..4 {
        world.clock.sleep(std::time::Duration::from_secs(86_400)).await;
        last = Some(report(world.handle(json!({ "job": "resume" })).await.unwrap()));
        if last.as_ref().unwrap().outcome == Outcome::Done {
            break;
        }
    }
    let last = last.unwrap();
    assert_eq!((last.outcome, last.rows.read, last.rows.created), (Outcome::Done, 3_000, 3_000), "{last:?}");
    assert!(
        rejects(&world.text(last.rejects.as_deref().unwrap_or("s3://crm/none")).unwrap_or("_line,_code\n".to_owned()))
            .is_empty()
    );
}
