//! What HubSpot and its accounts do besides failing: addresses that were forgotten, tokens that were replaced, other hosts, refused
//! archives, and mode `mirror` when its process dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hubferry::{
    app::Answer,
    clock::{Clock, Rng},
    objects::{Location, Objects},
    report::{Outcome, Report},
    state::runs::LEASE,
};
use hubferry_simulator::hubspot::{Fault, OAuthClient, PortalSettings, What};
use serde_json::{Value, json};

use crate::support::{BUCKET, World, contacts, rejects, report};

fn people(range: std::ops::Range<u32>) -> String {
    let mut file = String::from("email,firstname\n");
    for number in range {
        file.push_str(&format!("person{number}@x.io,P{number}\n"));
    }
    file
}

fn code(report: &Report) -> &str {
    report.error.as_ref().map_or("", |error| error.code.as_str())
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_deleted_for_privacy_is_told_apart_from_a_wrong_one() {
    let world = World::new(&contacts(""));
    world.portal.borrow_mut().block_address("gone@x.io");
    let file = "email,firstname\na@x.io,A\nGone@x.io,B\nwrong@@x.io,C\nd@x.io,D\n";
    let report = world.import("incoming/contacts/a.csv", file).await;
    assert_eq!((report.outcome, report.rows.created, report.rows.rejected), (Outcome::Done, 2, 2), "{report:?}");
    let text = world.text(report.rejects.as_deref().unwrap()).unwrap();
    assert_eq!(rejects(&text), [(3, "GDPR_BLACKLISTED_EMAIL".to_owned()), (4, "INVALID_EMAIL".to_owned())]);
    assert!(text.contains("leave the row out"), "{text}");
    assert_eq!(report.rejected_by_code["GDPR_BLACKLISTED_EMAIL"], 1);
}

/// Imports a company into an account that answers these two with success and nothing, once each.
async fn two_are_answered_with_nothing(faults: [Fault; 2]) {
    let config = contacts("")
        .replace("object: contacts\n    key: email", "object: companies\n    key: domain\n    create_properties: true");
    let world = World::new(&config);
    for fault in faults {
        world.portal.borrow_mut().add_fault(fault);
    }
    let report = world.import("incoming/contacts/a.csv", "domain,name\na.example,A\n").await;
    assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 1), "neither was believed: {report:?}");
    let portal = world.portal.borrow();
    let empty = portal.log().iter().filter(|entry| entry.fault == Some(What::EmptyResults)).count();
    assert_eq!(empty, 2, "both were met");
}

#[tokio::test(start_paused = true)]
async fn an_answer_about_the_account_or_a_property_that_says_nothing_is_asked_for_again() {
    let account = Fault::nth("/account-info", 1, What::EmptyResults);
    let property = Fault::nth("/companies/hubferry_domain_key", 1, What::EmptyResults);
    two_are_answered_with_nothing([account, property]).await;
}

#[tokio::test(start_paused = true)]
async fn a_property_that_a_success_without_a_word_has_not_made_is_made() {
    let mut unmade = Fault::nth("/crm/properties", 1, What::EmptyResults);
    unmade.when.method = Some("POST".to_owned());
    let looked_for = Fault::nth("/companies/hubferry_domain_key", 1, What::EmptyResults);
    two_are_answered_with_nothing([unmade, looked_for]).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_replaced_by_one_that_may_do_more_is_found_by_a_warm_process() {
    let world = World::new(&contacts(""));
    let grant = |token: &str, scopes: &[&str]| {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        world.portal.borrow_mut().grant_token(token, token, scopes);
        world.secrets.insert("hubferry/hubspot", &json!({ "access_token": token }).to_string());
    };
    grant("pat-weak", &["crm.objects.contacts.read", "crm.schemas.contacts.read"]);
    let process = world.process();
    let handle =
        async |event: Value, owner: &str| report(process.handle(event, world.deadline(900), owner).await.unwrap());
    let event = world.upload("incoming/contacts/a.csv", people(0..3_000)).await;
    let failed = handle(event.clone(), "one").await;
    assert_eq!((failed.outcome, code(&failed)), (Outcome::Failed, "SCOPES_MISSING"), "{failed:?}");
    assert!(failed.error.as_ref().unwrap().message.contains("crm."), "the scopes are named: {failed:?}");
    assert_eq!(world.secrets.reads(), 2, "once for all calls that were told so at the same time");
    // A minute later there is another token, and the person drops the file again.
    world.clock.sleep(Duration::from_secs(60)).await;
    grant("pat-strong", &[]);
    let done = handle(event, "two").await;
    assert_eq!((done.outcome, done.rows.created), (Outcome::Done, 3_000), "{done:?}");
    assert_eq!(world.secrets.reads(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_account_on_another_host_is_called_there_for_tokens_too() {
    for base_url in ["https://api-eu1.hubapi.com", "https://api-eu1.hubapi.com/"] {
        let settings = PortalSettings {
            oauth: Some(OAuthClient {
                client_id: "client".to_owned(),
                client_secret: "secret".to_owned(),
                refresh_tokens: vec!["refresh".to_owned()],
                scopes: Vec::new(),
                expires_in: 1_800,
            }),
            ..PortalSettings::default()
        };
        let config = contacts("create_properties: true")
            .replace("secret: hubferry/hubspot", &format!("secret: hubferry/hubspot, base_url: \"{base_url}\""));
        let world = World::with(&config, settings);
        let secret = json!({ "client_id": "client", "client_secret": "secret", "refresh_token": "refresh" });
        world.secrets.insert("hubferry/hubspot", &secret.to_string());
        let report = world.import("incoming/contacts/a.csv", "email,shoe size\na@x.io,42\nb@x.io,43\n").await;
        assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 2), "{base_url}: {report:?}");
        let hosts = world.hosts.borrow().clone();
        assert_eq!(hosts, BTreeSet::from(["api-eu1.hubapi.com".to_owned()]), "{base_url}");
        let requests = world.requests.borrow();
        assert!(requests.iter().any(|request| request.starts_with("POST /oauth/")), "{base_url}");
        assert!(requests.iter().all(|request| !request.contains(" //")), "{base_url}");
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_hubspot_does_not_archive_stay_known_to_the_mirror() {
    let start = async || {
        let world = World::new(&contacts("mode: mirror"));
        world.import("incoming/contacts/1.csv", people(0..400)).await;
        world
    };
    // Some of them: the run is done, says how many, and the next one archives these.
    let world = start().await;
    // Twelve are halved until one of them stands alone.
    for nth in 1..=5 {
        world.portal.borrow_mut().add_fault(Fault::nth("/batch/archive", nth, What::Status(400)));
    }
    let second = world.import("incoming/contacts/2.csv", people(12..400)).await;
    assert_eq!((second.outcome, second.archived), (Outcome::Done, Some(11)), "{second:?}");
    let told = "1 records that the file lacks could not be archived";
    assert!(second.notes.iter().any(|note| note.contains(told)), "{:?}", second.notes);
    world.portal.borrow_mut().clear_faults();
    let third = world.import("incoming/contacts/3.csv", people(12..400)).await;
    assert_eq!((third.outcome, third.archived), (Outcome::Done, Some(1)), "{third:?}");
    assert!(third.notes.is_empty(), "{:?}", third.notes);
    assert_eq!(world.portal.borrow().record_count("contacts"), 388);

    // All of them, whatever is asked: that is no matter of records. The run fails and forgets nothing.
    let world = start().await;
    world.portal.borrow_mut().add_fault(Fault::always(What::Status(400)).on("/batch/archive"));
    let second = world.import("incoming/contacts/2.csv", people(12..400)).await;
    assert_eq!((second.outcome, code(&second)), (Outcome::Failed, "HUBSPOT_REFUSED"), "{second:?}");
    assert_eq!((second.rows.updated, second.archived), (388, Some(0)), "the rows were delivered: {second:?}");
    world.portal.borrow_mut().clear_faults();
    let third = world.import("incoming/contacts/3.csv", people(12..400)).await;
    assert_eq!((third.outcome, third.archived), (Outcome::Done, Some(12)), "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn the_list_of_all_records_is_not_read_again_where_only_the_end_is_left() {
    let world = World::new(&contacts("mode: mirror"));
    world.import("incoming/contacts/1.csv", people(0..400)).await;
    world.portal.borrow_mut().block_address("gone@x.io");
    world.slow_writes.set(Some(("rejects/", Duration::from_secs(25))));
    let event = world.upload("incoming/contacts/2.csv", format!("{}gone@x.io,B\n", people(12..400))).await;
    let first = report(world.handle_within(event, 26).await.unwrap());
    assert_eq!((first.outcome, first.archived), (Outcome::Yielded, Some(12)), "{first:?}");
    let is_list = |path: &str| path.contains("/objects/") && path.ends_with("/contacts");
    let lists = || world.portal.borrow().log().iter().filter(|call| is_list(&call.path)).count();
    let before = lists();
    assert!(before >= 4, "{before}");
    let last = world.finish_one(900).await;
    assert_eq!((last.outcome, last.archived, last.rows.rejected), (Outcome::Done, Some(12), 1), "{last:?}");
    assert_eq!(lists(), before);
    world.slow_writes.set(None);
    let third = world.import("incoming/contacts/3.csv", people(12..400)).await;
    assert_eq!((third.outcome, third.archived), (Outcome::Done, Some(0)), "{third:?}");
}

/// The before-images below a run's folder: key and old first name, by record id.
async fn images(world: &World, run_id: &str) -> BTreeMap<String, (String, Value)> {
    let prefix = Location::new(BUCKET, format!("state/import/contacts/{run_id}/before-"));
    let mut images = BTreeMap::new();
    for at in world.objects.list(&prefix).await.unwrap() {
        for line in world.text(&at.to_string()).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["archives"] == true {
                let text = |name: &str| line[name].as_str().unwrap().to_owned();
                images.entry(text("id")).or_insert((text("key"), line["before"].clone()));
            }
        }
    }
    images
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_killed_archives_all_that_is_missing_and_nothing_else_and_keeps_its_images() {
    const ROWS: u32 = 1_500;
    const MISSING: u32 = 210;
    let config = contacts("mode: mirror\nskip_unchanged: true\nbefore_images: true\nmirror_max_archived: 20%");
    // Every seventh record is missing, so that each page of the list holds some.
    let lacks = |number: &u32| number % 7 == 1 && *number < MISSING * 7;
    let shorter = || {
        let mut file = String::from("email,firstname\n");
        for number in (0..ROWS).filter(|number| !lacks(number)) {
            file.push_str(&format!("person{number}@x.io,P{number}\n"));
        }
        file
    };
    let start = async || {
        let world = World::new(&config);
        world.portal.borrow_mut().seed_record(
            world.clock.now(),
            "contacts",
            &[("email", "not-ours@x.io"), ("firstname", "N")],
        );
        let mut first = world.import("incoming/contacts/1.csv", people(0..ROWS)).await;
        first = world.finish(first, 900).await;
        assert_eq!(first.outcome, Outcome::Done, "{first:?}");
        // A value of another's hand, which only the record has.
        let id = world.contact("person1@x.io", "hs_object_id").unwrap();
        world.portal.borrow_mut().edit(world.clock.now(), "contacts", &id, &[("city", "Bonn")]);
        let event = world.upload("incoming/contacts/2.csv", shorter()).await;
        (world, event)
    };
    let (clean, event) = start().await;
    let began = clean.clock.elapsed();
    let done = report(clean.handle(event).await.unwrap());
    assert_eq!((done.outcome, done.archived), (Outcome::Done, Some(u64::from(MISSING))), "{done:?}");
    let length = clean.clock.elapsed() - began;
    let archives = clean.portal.borrow().log().iter().filter(|call| call.path.ends_with("/batch/archive")).count();
    assert!(archives <= 4, "{archives} calls for {MISSING} records");
    for seed in 1..=6 {
        let chance = Rng::seeded(seed);
        let (world, event) = start().await;
        let mut kills = Vec::new();
        let mut next = event;
        for _ in 0..1 + seed % 3 {
            let time = length.mul_f64(chance.fraction());
            kills.push(time);
            if world.handle_until_killed(next.clone(), time).await.is_some() {
                break;
            }
            world.clock.sleep(LEASE).await;
            if world.table.snapshot().keys().any(|key| key.pk == "open") {
                next = json!({ "job": "resume" });
            }
        }
        let last = match world.handle(next).await.unwrap() {
            Answer::Report(report) => *report,
            // The last kill came too late.
            _ => continue,
        };
        assert!(matches!(last.outcome, Outcome::Done | Outcome::Duplicate), "seed {seed}, {kills:?}: {last:?}");
        {
            let portal = world.portal.borrow();
            assert_eq!(portal.record_count("contacts"), (ROWS - MISSING + 1) as usize, "seed {seed}, {kills:?}");
            let left = portal.records("contacts").filter(|record| {
                let number = record["email"].trim_start_matches("person").split('@').next().unwrap().parse();
                number.is_ok_and(|number: u32| lacks(&number))
            });
            assert_eq!(left.count(), 0, "seed {seed}, {kills:?}");
        }
        let images = images(&world, last.run_id.as_deref().unwrap()).await;
        assert_eq!(images.len() as u32, MISSING, "seed {seed}, {kills:?}: an archived record has no image");
        for (key, before) in images.values() {
            let number = key.trim_start_matches("person").split('@').next().unwrap();
            assert_eq!(before["firstname"], format!("P{number}"), "seed {seed}");
            assert_eq!(before.get("city").is_some(), number == "1", "seed {seed}: {before}");
        }
        // The next run finds nothing missing.
        let third = world.import("incoming/contacts/3.csv", shorter()).await;
        assert_eq!((third.outcome, third.archived), (Outcome::Done, Some(0)), "seed {seed}: {third:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_mode_archive_archives_keeps_the_old_values_of_the_files_columns() {
    let world = World::new(&contacts("mode: archive\nbefore_images: true"));
    let old = [("email", "a@x.io"), ("firstname", "Ada")];
    world.portal.borrow_mut().seed_record(world.clock.now(), "contacts", &old);
    let report = world.import("incoming/contacts/a.csv", "email,firstname\na@x.io,\n").await;
    assert_eq!((report.outcome, report.rows.updated), (Outcome::Done, 1), "{report:?}");
    let images = images(&world, report.run_id.as_deref().unwrap()).await;
    assert_eq!(images.len(), 1);
    assert!(images.values().all(|(key, before)| key == "a@x.io" && before["email"] == "a@x.io"), "{images:?}");
}
