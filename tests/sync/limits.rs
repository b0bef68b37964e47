//! What stops a run before it writes: limits of a run, the org's calls, the wrong org, a setup that is not complete.

use hubferry::{clock::Clock as _, report::Outcome};
use hubferry_simulator::{hubspot::PropertyDefinition, salesforce::OrgSettings};
use serde_json::json;

use super::{Both, Config, EMAIL, LAST, PEOPLE, PHONE, WIDE, event, org_settings, portal_settings, told};
use crate::support::report;

const THREE: [&str; 3] = [EMAIL, LAST, PHONE];

#[tokio::test(start_paused = true)]
async fn a_run_that_would_pass_a_limit_writes_nothing_and_says_which() {
    let limit = |creates: u64, updates: u64, blanks: u64| {
        format!("limits: {{ creates: {creates}, updates: {updates}, blanks: {blanks}, deletes: 20 }}\n")
    };
    for (name, more) in [("creates", limit(9, 99, 99)), ("updates", limit(99, 9, 99)), ("blanks", limit(99, 99, 9))] {
        let mut both = Both::people(&THREE, WIDE);
        let mut pairs = Vec::new();
        for at in 0..12 {
            let email = format!("p{at}@example.com");
            let values = [("LastName", "Same"), ("Email", email.as_str()), ("Phone", "030 1")];
            let s = both.s_create(&values);
            if name != "creates" {
                let h = both.h_create(&[("lastname", "Same"), ("email", &email), ("phone", "030 1")]);
                pairs.push((h, s));
            }
        }
        if name != "creates" {
            both.done(PEOPLE).await;
        }
        // The limits of every day are narrower than those of the first run.
        both.configure(&Config::people(&THREE, &more));
        for (h, s) in &pairs {
            match name {
                "updates" => both.s_edit(s, &[("LastName", "Other")]),
                _ => both.h_edit(h, &[("phone", "")]),
            }
        }
        both.mark();
        for _ in 0..2 {
            let report = both.sync(PEOPLE).await;
            assert_eq!(report.outcome, Outcome::Aborted, "{name}: {report}", report = super::brief(&report));
            let error = report.error.unwrap();
            assert_eq!(error.code, "SYNC_LIMIT");
            assert!(error.message.contains(name), "{}", error.message);
            assert_eq!(both.writes(), (vec![], vec![]), "{name}");
        }
        // Just below the limit it runs, to the end.
        for (h, s) in pairs.iter().take(4) {
            match name {
                "updates" => both.s_edit(s, &[("LastName", "Same")]),
                _ => both.h_edit(h, &[("phone", "030 1")]),
            }
        }
        if name == "creates" {
            let ids: Vec<String> =
                both.world.org.borrow().live_records("Contact").take(4).map(|one| one["Id"].clone()).collect();
            for id in ids {
                assert!(both.world.org.borrow_mut().delete(both.world.clock.now(), "Contact", &id));
            }
        }
        both.done(PEOPLE).await;
        assert_eq!(both.h_count(), if name == "creates" { 8 } else { 12 });
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_over_all_invocations_of_a_run() {
    let both = Both::people(&THREE, "limits: { creates: 350, updates: 99, blanks: 99, deletes: 20 }\n");
    for at in 0..360 {
        both.s_create(&[("LastName", "Many"), ("Email", &format!("m{at}@example.com"))]);
    }
    both.seconds.set(180);
    both.world.portal.borrow_mut().configure(|settings| settings.latency.fixed_ms = 4_000);
    let report = both.sync(PEOPLE).await;
    assert_eq!(report.outcome, Outcome::Aborted, "{report}", report = super::brief(&report));
    assert_eq!(both.h_count(), 0, "nothing is written where the limit would be passed");
}

#[tokio::test(start_paused = true)]
async fn the_run_stops_where_the_orgs_calls_are_used_up_and_goes_on_when_there_are_some() {
    let mut org = org_settings();
    org.limits.daily = 1_000;
    org.limits.used_by_others = 798;
    let both = Both::with(&Config::people(&THREE, WIDE), portal_settings(), org);
    for at in 0..450 {
        both.h_create(&[("lastname", "Many"), ("email", &format!("m{at}@example.com"))]);
    }
    both.wait(60).await;
    let first = report(both.world.handle(event(PEOPLE)).await.unwrap());
    assert!(!matches!(first.outcome, Outcome::Done), "{first:#?}");
    assert!(both.world.org.borrow().counts().counted <= 12, "it stops at 80 %: {:?}", both.world.org.borrow().counts());
    let said = serde_json::to_string(&first).unwrap();
    assert!(said.contains("SALESFORCE_QUOTA"), "it says why: {said}");
    both.world.org.borrow_mut().change_settings(|settings| settings.limits.used_by_others = 100);
    both.wait(7_200).await;
    both.world.resume().await;
    both.done(PEOPLE).await;
    assert_eq!(both.s_count(), 450);
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn one_run_uses_no_more_than_its_share_of_the_orgs_calls() {
    let mut org = org_settings();
    org.limits.daily = 100;
    org.page_most = 200;
    let both = Both::with(&Config::people(&THREE, WIDE), portal_settings(), org);
    for at in 0..4_000 {
        both.s_create(&[("LastName", "Many"), ("Email", &format!("m{at}@example.com"))]);
    }
    both.wait(60).await;
    let first = report(both.world.handle(event(PEOPLE)).await.unwrap());
    let counted = both.world.org.borrow().counts().counted;
    assert!(counted <= 28, "{counted} of 100 calls, a quarter is the run's: {first:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_credential_of_another_org_is_refused_before_anything_is_written() {
    let both = Both::people(&THREE, "");
    both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    // The secret is exchanged for that of a sandbox.
    let other = hubferry_simulator::salesforce::Org::with_number(org_settings(), 2);
    let mut both = both;
    both.world.org = std::rc::Rc::new(std::cell::RefCell::new(other));
    both.s_create(&[("LastName", "Sandbox"), ("Email", "sandbox@example.com")]);
    let report = both.sync(PEOPLE).await;
    assert!(matches!(report.outcome, Outcome::Invalid | Outcome::Failed), "{report}", report = super::brief(&report));
    assert_eq!(report.error.unwrap().code, "SYNC_WRONG_ORG");
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    assert!(both.s_written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_setup_without_the_fields_for_the_ids_is_told_and_nothing_is_written() {
    let without_here = |settings: &mut hubferry_simulator::hubspot::PortalSettings| {
        settings.properties.get_mut("contacts").unwrap().retain(|one| one.name != "sf_contact_id_ext");
    };
    let not_unique = |settings: &mut hubferry_simulator::hubspot::PortalSettings| {
        without_here(settings);
        settings.properties.get_mut("contacts").unwrap().push(PropertyDefinition::new("sf_contact_id_ext", "string"));
    };
    let without_there =
        |settings: &mut OrgSettings| settings.fields.retain(|(_, field)| field.name != "HubSpot_Contact_Id__c");
    for case in 0..3 {
        let (mut portal, mut org) = (portal_settings(), org_settings());
        let name = match case {
            0 => {
                without_here(&mut portal);
                "sf_contact_id_ext"
            }
            1 => {
                not_unique(&mut portal);
                "sf_contact_id_ext"
            }
            _ => {
                without_there(&mut org);
                "HubSpot_Contact_Id__c"
            }
        };
        let both = Both::with(&Config::people(&THREE, ""), portal, org);
        both.s_create(&[("LastName", "S"), ("Email", "s@example.com")]);
        both.h_create(&[("lastname", "H"), ("email", "h@example.com")]);
        let report = both.sync(PEOPLE).await;
        assert_eq!(report.outcome, Outcome::Invalid, "{case}: {report}", report = super::brief(&report));
        let error = report.error.unwrap();
        assert_eq!(error.code, "SYNC_SETUP", "{case}");
        assert!(format!("{} {}", error.message, error.hint).contains(name), "{case}: {}", error.message);
        assert_eq!(both.writes(), (vec![], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_no_sync_has_is_an_error_that_says_which_there_are() {
    let both = Both::people(&THREE, "");
    let error = both.world.handle(json!({ "job": "sync", "name": "poeple" })).await.unwrap_err();
    assert_eq!(error.code().as_str(), "NAME_UNKNOWN");
    assert!(error.message().contains("people"), "{}", error.message());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_found_nothing_to_do_says_so_and_its_report_is_where_reports_are() {
    let both = Both::people(&THREE, "");
    let report = both.done(PEOPLE).await;
    let id = report.run_id.clone().unwrap();
    let stored = both.world.text(&format!("s3://crm/reports/sync/people/{id}.json")).expect("a report");
    let stored: hubferry::report::Report = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored, report);
    assert_eq!(report.rows.read, 0);
    assert_eq!(report.job, "sync");
    assert_eq!(told(&report).hubspot_object, "contacts");
    assert_eq!(told(&report).salesforce_object, "Contact");
}
