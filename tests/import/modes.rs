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
async fn an_archive_that_is_answered_with_an_empty_list_is_asked_for_again() {
    // GIVEN a HubSpot that answers the first call with a success that says nothing of any record, and does nothing
    let world = World::new(&contacts("mode: archive\ncolumns: { email: email }"));
    for email in ["a@x.io", "b@x.io"] {
        world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &[("email", email)]);
    }
    world.portal.borrow_mut().add_fault(Fault::nth("batch/archive", 1, What::EmptyResults));
    // WHEN records are archived
    let report = world.import("incoming/contacts/a.csv", "email\na@x.io\nb@x.io\n").await;
    // THEN what is said to be done is done
    assert_eq!((report.outcome, report.rows.updated), (Outcome::Done, 2), "{report:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 0);
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

fn people(range: std::ops::Range<u32>, name: impl Fn(u32) -> String) -> String {
    let mut file = String::from("email,firstname\n");
    for number in range {
        file.push_str(&format!("person{number}@example.com,{}\n", name(number)));
    }
    file
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_delivered_again_with_one_percent_changed_costs_one_percent_of_the_calls() {
    let world = World::new(&contacts("skip_unchanged: true"));
    let first = world.import("incoming/contacts/monday.csv", people(0..10_000, |_| "Same".to_owned())).await;
    assert_eq!((first.outcome, first.rows.created), (Outcome::Done, 10_000), "{first:?}");
    let changed = |number: u32| if number.is_multiple_of(100) { "Changed".to_owned() } else { "Same".to_owned() };
    let before = world.portal.borrow().log().iter().filter(|call| call.path.contains("batch/upsert")).count();
    let second = world.import("incoming/contacts/tuesday.csv", people(0..10_000, changed)).await;
    // Keys share bits of memory, so that a few unchanged rows may be sent with the changed ones.
    assert!((100..=112).contains(&second.rows.updated), "{second:?}");
    assert_eq!(second.rows.unchanged + second.rows.updated, 10_000);
    let after = world.portal.borrow().log().iter().filter(|call| call.path.contains("batch/upsert")).count();
    assert!(after - before <= 2, "{} calls", after - before);
    assert_eq!(world.contact("person100@example.com", "firstname").as_deref(), Some("Changed"));
    // A third time, all the same.
    let third = world.import("incoming/contacts/wednesday.csv", people(0..10_000, changed)).await;
    assert_eq!((third.outcome, third.rows.unchanged), (Outcome::Done, 10_000), "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_answers_do_not_make_small_batches_of_the_few_rows_that_changed() {
    let world = World::new(&contacts("skip_unchanged: true"));
    world.import("incoming/contacts/monday.csv", people(0..30_000, |_| "Same".to_owned())).await;
    world.portal.borrow_mut().configure(|settings| settings.latency.fixed_ms = 4_000);
    // 150 of the first 20,000, which is as many rows as are held at a time, and 150 of the rest.
    let changed = |number: u32| {
        let every = if number < 20_000 { 133 } else { 66 };
        if number.is_multiple_of(every) { "Changed".to_owned() } else { "Same".to_owned() }
    };
    let calls = || world.portal.borrow().log().iter().filter(|call| call.path.contains("batch/upsert")).count();
    let before = calls();
    let second = world.import("incoming/contacts/tuesday.csv", people(0..30_000, changed)).await;
    assert!((300..=330).contains(&second.rows.updated), "{second:?}");
    assert!(calls() - before <= 4, "{} calls for {} rows", calls() - before, second.rows.updated);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_rejected_is_sent_again_although_nothing_changed() {
    let world = World::new(&contacts("skip_unchanged: true"));
    let file = "email,firstname\na@x.io,A\nb@blocked.io,B\n";
    world.portal.borrow_mut().configure(|settings| settings.required_properties = Default::default());
    world.portal.borrow_mut().add_fault(Fault::nth("batch/upsert", 1, What::EmptyResults));
    let first = world.import("incoming/contacts/a.csv", file).await;
    assert_eq!((first.outcome, first.rows.created), (Outcome::Done, 2), "{first:?}");
    let rejected = world.import("incoming/contacts/b.csv", "email,firstname\na@x.io,A\nbroken,B\n").await;
    assert_eq!((rejected.rows.unchanged, rejected.rows.rejected), (1, 1), "{rejected:?}");
    // `b` was not in the last file, so that it is not known to be delivered.
    let third = world.import("incoming/contacts/c.csv", file).await;
    assert_eq!((third.rows.unchanged, third.rows.updated), (1, 1), "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn mirror_archives_what_the_file_lacks_and_stops_at_the_brake() {
    let world = World::new(&contacts("mode: mirror"));
    world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &[("email", "not-ours@x.io")]);
    let first = world.import("incoming/contacts/1.csv", people(0..200, |_| "P".to_owned())).await;
    assert_eq!((first.outcome, first.archived), (Outcome::Done, Some(0)), "{first:?}");
    // 5 of 200 are missing: within the brake of 5 %.
    let second = world.import("incoming/contacts/2.csv", people(5..200, |_| "P".to_owned())).await;
    assert_eq!((second.outcome, second.archived), (Outcome::Done, Some(5)), "{second:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 196);
    assert_eq!(world.contact("person3@example.com", "email"), None);
    assert!(world.contact("not-ours@x.io", "email").is_some(), "what the import did not write is left alone");
    // A file that lost its second half is stopped, and nothing is archived.
    let third = world.import("incoming/contacts/3.csv", people(5..100, |_| "P".to_owned())).await;
    assert_eq!((third.outcome, third.error.as_ref().unwrap().code.as_str()), (Outcome::Aborted, "MIRROR_BRAKE"));
    assert_eq!(third.rows.read, 95);
    assert_eq!(world.portal.borrow().record_count("contacts"), 196);
}

#[tokio::test(start_paused = true)]
async fn missing_properties_are_created_on_request_with_types_of_the_whole_column() {
    let world = World::new(&contacts("create_properties: true"));
    let mut file = String::from("email,Shoe Size,Joined On,Nickname\n");
    for number in 0..5_000 {
        file.push_str(&format!("p{number}@x.io,{},2024-01-{:02},nick{number}\n", number % 50, number % 28 + 1));
    }
    let report = world.import("incoming/contacts/a.csv", file).await;
    assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 5_000), "{report:?}");
    assert_eq!(report.notes.len(), 3, "{:?}", report.notes);
    assert_eq!(world.contact("p7@x.io", "shoe_size").as_deref(), Some("7"));
    assert_eq!(world.contact("p7@x.io", "joined_on").as_deref(), Some("2024-01-08"));
    assert_eq!(world.contact("p7@x.io", "nickname").as_deref(), Some("nick7"));
}

#[tokio::test(start_paused = true)]
async fn associations_carry_their_label_and_a_wrong_label_is_refused_before_anything_is_written() {
    let labelled =
        |label: &str| TWO_OBJECTS.replace("to: companies }", &format!("to: companies, label: \"{label}\" }}"));
    let file = "email,first,company_domain,company\nada@x.io,Ada,x.example,X Ltd\n";
    let world = World::new(&labelled("no such label"));
    let refused = world.import("incoming/people/a.csv", file).await;
    assert_eq!(refused.outcome, Outcome::Invalid, "{refused:?}");
    assert_eq!(world.portal.borrow().record_count("contacts"), 0);

    let world = World::new(&labelled("Primary"));
    let report = world.import("incoming/people/a.csv", file).await;
    assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 1), "{report:?}");
    assert!(world.portal.borrow().log().iter().any(|call| call.path.ends_with("contacts/companies/batch/create")));
}

#[tokio::test(start_paused = true)]
async fn an_association_that_fails_is_a_reject_of_its_own_and_leaves_the_records() {
    let world = World::new(TWO_OBJECTS);
    world.portal.borrow_mut().add_fault(Fault::always(What::Status(400)).on("associate/default"));
    let file = "email,first,company_domain,company\nada@x.io,Ada,x.example,X Ltd\nbob@x.io,Bob,,\n";
    let report = world.import("incoming/people/a.csv", file).await;
    assert_eq!((report.rows.read, report.rows.rejected, report.rows.created), (2, 1, 1), "{report:?}");
    assert_eq!(report.rejected_by_code["ASSOCIATION_FAILED"], 1);
    assert_eq!(world.portal.borrow().record_count("contacts"), 2);
    assert_eq!(world.portal.borrow().record_count("companies"), 1);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_associated_rows_flow_whatever_the_number_of_companies() {
    for companies in [5_000, 40] {
        let world = World::new(TWO_OBJECTS);
        let mut file = String::from("email,first,company_domain,company\n");
        for number in 0..5_000 {
            let company = number % companies;
            file.push_str(&format!("p{number}@x.io,P{number},c{company}.example,C{company}\n"));
        }
        let report = world.import("incoming/people/a.csv", file).await;
        assert_eq!(
            (report.outcome, report.rows.created, report.invocations),
            (Outcome::Done, 5_000, 1),
            "{companies}: {report:?}"
        );
        assert_eq!(world.portal.borrow().record_count("companies"), companies);
        assert!(report.duration_ms < 60_000, "{companies} companies took {} ms", report.duration_ms);
    }
}

#[tokio::test(start_paused = true)]
async fn three_records_in_a_row_are_each_associated_once() {
    let config = TWO_OBJECTS
        .replace("    associate:", "      - { object: tickets, key: ref, columns: { ticket: ref, subject: subject, stage: hs_pipeline_stage } }\n    associate:")
        .replace("[ { from: contacts, to: companies } ]", "[ { from: contacts, to: companies }, { from: contacts, to: tickets } ]");
    let world = World::new(&config);
    world
        .portal
        .borrow_mut()
        .define_property("tickets", hubferry_simulator::hubspot::PropertyDefinition::new("ref", "string").unique());
    let mut file = String::from("email,first,company_domain,company,ticket,subject,stage\n");
    for number in 0..600 {
        file.push_str(&format!("p{number}@x.io,P,c{number}.example,C,T{number},Help,1\n"));
    }
    let report = world.import("incoming/people/a.csv", file).await;
    assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 600), "{report:?}");
    let portal = world.portal.borrow();
    let pairs: usize = portal.log().iter().filter(|call| call.path.contains("associate")).map(|call| call.inputs).sum();
    assert_eq!(pairs, 1_200);
}

#[tokio::test(start_paused = true)]
async fn a_bad_row_among_many_with_its_key_costs_itself_and_the_run_goes_on() {
    let world = World::new(&contacts("columns: { Email: email, First: firstname, Score: hs_lead_status }"));
    world.portal.borrow_mut().configure(|settings| settings.unsettled.case_variants_are_duplicates = true);
    let mut file = String::from("Email,First,Score\n");
    for number in 0..3_000 {
        for copy in 0..4 {
            file.push_str(&format!("p{number}@x.io,{copy},\n"));
        }
    }
    let report = world.import("incoming/contacts/a.csv", file).await;
    assert_eq!((report.outcome, report.rows.created, report.rows.merged), (Outcome::Done, 3_000, 9_000), "{report:?}");
    assert_eq!(world.contact("p2999@x.io", "firstname").as_deref(), Some("3"));
}
