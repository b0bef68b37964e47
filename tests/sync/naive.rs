//! What the usual script gets wrong, one test a fault.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use hubferry::{clock::Clock as _, report::Outcome, state::memory::MemoryTable};
use hubferry_simulator::{
    hubspot::{self, Fault},
    salesforce,
};

use super::{BIO, Both, EMAIL, FIELDS, FIRST, LAST, PEOPLE, PHONE, TITLE, WIDE, org_settings, portal_settings, told};

#[tokio::test(start_paused = true)]
async fn the_company_field_of_contact_which_there_is_not_is_named_before_anything_is_written() {
    let company = "{ hubspot: company, salesforce: Company, rule: two_way }";
    let both = Both::people(&[EMAIL, LAST, company], "");
    both.s_create(&[("LastName", "Dyer"), ("Email", "d@example.com")]);
    both.h_create(&[("lastname", "Ode"), ("email", "o@example.com")]);
    let report = both.sync(PEOPLE).await;
    assert_eq!(report.outcome, Outcome::Invalid, "{report}", report = super::brief(&report));
    let error = report.error.unwrap();
    assert_eq!(error.code, "MAPPING_INVALID");
    let text = format!("{} {}", error.message, error.hint);
    assert!(text.contains("fields[2]") && text.contains("Company"), "{text}");
    assert_eq!(both.writes(), (vec![], vec![]));
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_name_of_a_contacts_account_is_mapped_from_salesforce_only() {
    let name = "{ hubspot: company, salesforce: Account.Name, rule: always_salesforce }";
    let both = Both::people(&[EMAIL, LAST, name], "");
    let account = both.s_create_as("Account", &[("Name", "Lantern Works")]);
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("AccountId", &account)]).await;
    assert_eq!(both.h(&h, "company").as_deref(), Some("Lantern Works"));
    both.h_edit(&h, &[("company", "Something else")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "company").as_deref(), Some("Lantern Works"), "the rule says Salesforce");
    assert_eq!(both.s(&s, "AccountId").as_deref(), Some(account.as_str()));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_apostrophe_in_an_address_breaks_no_statement() {
    let both = Both::people(&[EMAIL, LAST, BIO], WIDE);
    let addresses = ["o'brien@example.com", "d''arc@example.com", "x'or'1'='1@example.com"];
    let mut pairs = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let bio = format!("it's \\ \"number\" {at} \u{2028} % _");
        let h = both.h_create(&[("email", address), ("lastname", "O'Brien"), ("bio", &bio)]);
        let s = both.s_create(&[("Email", address), ("LastName", "O'Brien")]);
        pairs.push((h, s, bio));
    }
    let report = both.done(PEOPLE).await;
    assert_eq!(report.rows.created, 0, "{report}", report = super::brief(&report));
    assert_eq!(told(&report).linked, addresses.len() as u64);
    for (h, s, bio) in pairs {
        assert_eq!(both.h_twin(&s), Some(h.clone()));
        assert_eq!(both.s(&s, "Description"), Some(bio), "the text arrives as it is");
    }
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn more_records_than_a_page_are_all_seen() {
    let mut org = org_settings();
    org.page_most = 200;
    org.short_pages = true;
    let mut portal = portal_settings();
    portal.unsettled.short_pages = 0.3;
    let both = Both::with(&super::Config::people(&[EMAIL, LAST], WIDE), portal, org);
    // All in the same second: no cursor may jump over a tie.
    for at in 0..750 {
        both.s_create(&[("LastName", "Page"), ("Email", &format!("s{at}@example.com"))]);
        both.h_create(&[("lastname", "Page"), ("email", &format!("h{at}@example.com"))]);
    }
    let report = both.done(PEOPLE).await;
    assert_eq!((both.h_count(), both.s_count()), (1_500, 1_500), "{report}", report = super::brief(&report));
    assert_eq!(told(&report).linked, 1_500);
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_rewritten_when_nothing_changed() {
    let both = Both::people(&FIELDS, WIDE);
    for at in 0..50 {
        let email = format!("s{at}@example.com");
        both.s_create(&[
            ("LastName", " Spaced  out "),
            ("Email", &email),
            ("Phone", "(030) 1234-5678"),
            ("Score__c", "12.5"),
            ("Member_Since__c", "2020-02-29"),
            ("Interests__c", "tea;chess"),
            ("LeadSource", "Web"),
            ("HasOptedOutOfEmail", "true"),
            ("Last_Seen__c", "2026-01-01T12:00:00Z"),
            ("Description", "one\r\ntwo"),
        ]);
        both.h_create(&[
            ("email", &format!("h{at}@example.com")),
            ("lastname", " Padded "),
            ("firstname", "A\u{301}da"),
            ("phone", "+49 30 12345678"),
            ("score", "7"),
            ("interests", "music;tea"),
            ("source", "partner"),
            ("last_seen", "2026-01-01T12:00:00.789Z"),
            ("bio", "one\ntwo "),
        ]);
    }
    both.done(PEOPLE).await;
    assert_eq!((both.h_count(), both.s_count()), (100, 100));
    // HubSpot's and Salesforce's dates have moved through our own writes: that must not be work.
    both.assert_quiet(PEOPLE).await;
    // Nor a date that moves for no reason.
    let now = both.world.clock.now();
    let id = both.world.org.borrow().live_records("Contact").next().unwrap()["Id"].clone();
    both.world.org.borrow_mut().touch(now, "Contact", &id);
    let h = both.h_twin(&id).unwrap();
    both.h_edit(&h, &[]);
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_without_changes_reads_hardly_anything() {
    let both = Both::people(&[EMAIL, LAST], WIDE);
    for at in 0..600 {
        both.s_create(&[("LastName", "Still"), ("Email", &format!("s{at}@example.com"))]);
    }
    both.done(PEOPLE).await;
    both.wait(7_200).await;
    both.done(PEOPLE).await;
    both.wait(7_200).await;
    both.mark();
    let report = both.done(PEOPLE).await;
    let (hubspot, salesforce) = both.calls();
    assert!(
        hubspot <= 10 && salesforce <= 6,
        "{hubspot} and {salesforce} calls for nothing: {report}",
        report = super::brief(&report)
    );
}

#[tokio::test(start_paused = true)]
async fn both_directions_in_one_run_do_not_overwrite_each_other() {
    let both = Both::people(&[EMAIL, FIRST, LAST, TITLE, PHONE, BIO], "");
    let (h, s) =
        both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "1"), ("Title", "Head")]).await;
    both.assert_quiet(PEOPLE).await;
    both.s_edit(&s, &[("LastName", "Dyer-Ode"), ("Title", "Chair")]);
    both.h_edit(&h, &[("phone", "+49 30 555"), ("bio", "likes tea")]);
    both.mark();
    let (before_h, before_s) = (both.h_written().len(), both.s_written().len());
    let report = both.done(PEOPLE).await;
    for (property, value) in
        [("lastname", "Dyer-Ode"), ("jobtitle", "Chair"), ("phone", "+49 30 555"), ("bio", "likes tea")]
    {
        assert_eq!(
            both.h(&h, property).as_deref(),
            Some(value),
            "HubSpot {property}: {report}",
            report = super::brief(&report)
        );
    }
    for (field, value) in
        [("LastName", "Dyer-Ode"), ("Title", "Chair"), ("Phone", "+49 30 555"), ("Description", "likes tea")]
    {
        assert_eq!(
            both.s(&s, field).as_deref(),
            Some(value),
            "Salesforce {field}: {report}",
            report = super::brief(&report)
        );
    }
    let (hubspot, salesforce) = both.writes();
    assert_eq!((hubspot.len(), salesforce.len()), (1, 1), "one write a side: {hubspot:?} {salesforce:?}");
    assert_eq!(both.h_written().len() - before_h, 2, "only what changed is sent");
    assert_eq!(both.s_written().len() - before_s, 2, "only what changed is sent");
    assert!(both.reviews().is_empty());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_records_do_not_cost_two_calls_each() {
    let both = Both::people(&[EMAIL, FIRST, LAST, PHONE], WIDE);
    let n = 1_000;
    for at in 0..n {
        let email = format!("p{at}@example.com");
        // 70 % on both sides, the rest half and half.
        if at % 20 < 17 {
            both.s_create(&[("LastName", "Load"), ("Email", &email)]);
        }
        if at % 20 < 14 || at % 20 >= 17 {
            both.h_create(&[("lastname", "Load"), ("email", &email), ("phone", "030 123")]);
        }
    }
    both.mark();
    let report = both.done(PEOPLE).await;
    assert_eq!((both.h_count(), both.s_count()), (n, n), "{report}", report = super::brief(&report));
    let (hubspot, salesforce) = both.calls();
    let each = (hubspot + salesforce) as f64 / n as f64;
    assert!(each < 0.15, "{hubspot} + {salesforce} calls for {n} pairs; two each would be {}", 2 * n);
    assert_eq!(report.calls.total as usize, hubspot, "the report counts what HubSpot counted");
    assert_eq!(told(&report).salesforce_calls as usize, salesforce, "the report counts what Salesforce counted");
    // One edit costs one write.
    let id = both.world.org.borrow().live_records("Contact").next().unwrap()["Id"].clone();
    both.wait(7_200).await;
    both.done(PEOPLE).await;
    both.s_edit(&id, &[("Phone", "030 777")]);
    both.mark();
    both.done(PEOPLE).await;
    let (hubspot, salesforce) = both.calls();
    assert!(hubspot + salesforce <= 20, "{hubspot} + {salesforce} calls for one edit");
    assert_eq!(both.writes().0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_null_email_is_a_blank_and_no_fault() {
    let both = Both::people(&[EMAIL, FIRST, LAST], WIDE);
    let mut made = Vec::new();
    for at in 0..3 {
        made.push(both.s_create(&[("LastName", &format!("Nomail{at}"))]));
    }
    let h = both.h_create(&[("lastname", "Nomail-H")]);
    let report = both.done(PEOPLE).await;
    assert_eq!(report.rows.created, 4, "{report}", report = super::brief(&report));
    for s in &made {
        let twin = both.h_twin(s).unwrap();
        assert_eq!(both.h(&twin, "email"), None);
        assert_eq!(both.h(&twin, "lastname"), both.s(s, "LastName"));
    }
    assert_eq!(both.s(&both.s_twin(&h).unwrap(), "Email"), None);
    // Two without an address are not each other.
    assert_eq!((both.h_count(), both.s_count()), (4, 4));
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_lookup_never_creates_a_duplicate() {
    use hubspot::What as H;
    use salesforce::What as S;
    let hubspot = [H::Status(500), H::Html(502), H::ResetBefore, H::TruncatedBody, H::EmptyResults, H::BurstLimit];
    let salesforce =
        [S::UnknownException, S::Html(503), S::ResetBefore, S::TruncatedBody, S::ServerUnavailable, S::RequestLimit];
    for at in 0..hubspot.len() {
        for (h_path, s_path) in [("/search", ""), ("/batch/read", ""), ("", "/query"), ("", "/composite/sobjects")] {
            let both = Both::people(&[EMAIL, LAST], WIDE);
            for n in 0..5 {
                let email = format!("same{n}@example.com");
                both.h_create(&[("email", &email), ("lastname", "Same")]);
                both.s_create(&[("Email", &email), ("LastName", "Same")]);
            }
            if !h_path.is_empty() {
                let fault = Fault::share(0.8, hubspot[at].clone()).on(h_path);
                both.world.portal.borrow_mut().add_fault(fault);
            }
            if !s_path.is_empty() {
                let fault = salesforce::Fault::share(0.8, salesforce[at].clone()).on(s_path);
                both.world.org.borrow_mut().add_fault(fault);
            }
            for _ in 0..2 {
                both.wait(60).await;
                let killed = both.sync_until_killed(PEOPLE, Duration::from_secs(600)).await;
                let place = format!("{:?} {:?} {h_path}{s_path}: {killed:#?}", hubspot[at], salesforce[at]);
                assert_eq!((both.h_count(), both.s_count()), (5, 5), "{place}");
            }
            both.world.portal.borrow_mut().clear_faults();
            both.world.org.borrow_mut().clear_faults();
            both.wait(7_200).await;
            both.world.resume().await;
            both.done(PEOPLE).await;
            assert_eq!((both.h_count(), both.s_count()), (5, 5));
            assert_eq!(both.links().len(), 5, "{:?} {:?} {h_path}{s_path}", hubspot[at], salesforce[at]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_ids_that_were_written_are_what_records_are_known_by_not_the_address() {
    let both = Both::people(&[EMAIL, LAST], WIDE);
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "old@example.com")]).await;
    // The address changes: the record stays the record.
    both.s_edit(&s, &[("Email", "new@example.com")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "email").as_deref(), Some("new@example.com"));
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    // The table is lost: the ids on the records bring the links back, whatever the addresses.
    both.s_edit(&s, &[("Email", "third@example.com")]);
    let mut both = both;
    both.world.table = Rc::new(MemoryTable::new());
    let report = both.done(PEOPLE).await;
    assert_eq!(both.links(), [(h.clone(), s.clone())], "{report}", report = super::brief(&report));
    assert_eq!((both.h_count(), both.s_count()), (1, 1), "{report}", report = super::brief(&report));
}

#[tokio::test(start_paused = true)]
async fn a_blank_on_one_side_does_not_take_the_other_sides_value() {
    let both = Both::people(&[EMAIL, FIRST, LAST, PHONE, BIO, super::INTERESTS, super::SEEN], "");
    let h = both.h_create(&[("email", "a@example.com"), ("lastname", "Ode"), ("phone", "030 1"), ("interests", "tea")]);
    let s = both.s_create(&[
        ("Email", "A@example.com"),
        ("LastName", "Ode"),
        ("FirstName", "Ada"),
        ("Description", "old hand"),
        ("Last_Seen__c", "2026-01-02T03:04:05Z"),
    ]);
    let report = both.done(PEOPLE).await;
    assert_eq!(both.h_twin(&s), Some(h.clone()), "{report}", report = super::brief(&report));
    assert_eq!(both.s(&s, "Phone").as_deref(), Some("030 1"));
    assert_eq!(both.s(&s, "Interests__c").as_deref(), Some("tea"));
    assert_eq!(both.h(&h, "firstname").as_deref(), Some("Ada"));
    assert_eq!(both.h(&h, "bio").as_deref(), Some("old hand"));
    assert!(both.h(&h, "last_seen").unwrap().starts_with("2026-01-02T03:04:05"));
    let sync = told(&report);
    assert_eq!(sync.hubspot.blanked + sync.salesforce.blanked, 0);
    let cleared = both.h_written().into_iter().chain(both.s_written()).find(|(_, _, new)| new.is_none());
    assert_eq!(cleared, None, "nothing was cleared");
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_contact_without_a_last_name_is_refused_by_name_and_the_rest_goes_on() {
    let both = Both::people(&[EMAIL, FIRST, LAST], "");
    let nameless = both.h_create(&[("email", "nameless@example.com"), ("firstname", "Only")]);
    let named = both.h_create(&[("email", "named@example.com"), ("lastname", "Named")]);
    let report = both.done(PEOPLE).await;
    assert!(both.s_twin(&named).is_some());
    assert_eq!(both.s_twin(&nameless), None);
    assert_eq!(report.rows.rejected, 1, "{report}", report = super::brief(&report));
    let codes: Vec<&str> = report.rejected_by_code.keys().map(String::as_str).collect();
    assert_eq!(codes, ["REQUIRED_FIELD_MISSING"], "{report}", report = super::brief(&report));
    // It is not sent again and again.
    both.assert_quiet(PEOPLE).await;
    // It goes as soon as there is a name.
    both.h_edit(&nameless, &[("lastname", "Found")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&both.s_twin(&nameless).unwrap(), "LastName").as_deref(), Some("Found"));
    assert!(both.refused().is_empty(), "{:?}", both.refused());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_is_renewed_and_nobody_signs_in_with_a_password_at_the_generic_host() {
    let mut org = org_settings();
    org.session_seconds = 7;
    org.latency_ms = 900;
    let both = Both::with(&super::Config::people(&[EMAIL, LAST], WIDE), portal_settings(), org);
    for at in 0..30 {
        both.s_create(&[("LastName", "Short"), ("Email", &format!("s{at}@example.com"))]);
        both.h_create(&[("lastname", "Short"), ("email", &format!("h{at}@example.com"))]);
    }
    let report = both.done(PEOPLE).await;
    assert_eq!((both.h_count(), both.s_count()), (60, 60), "{report}", report = super::brief(&report));
    // A run longer than the session has signed in more than once, and not with every call.
    let org = both.world.org.borrow();
    let sign_ins = org.log().iter().filter(|call| call.path.contains("/oauth2/token")).count();
    assert!(sign_ins > 1 && sign_ins * 2 < org.log().len(), "{sign_ins} of {}", org.log().len());
    let hosts = both.world.hosts.borrow();
    let salesforce: BTreeSet<&str> = hosts.iter().map(String::as_str).filter(|host| host.contains("force")).collect();
    assert_eq!(salesforce, BTreeSet::from(["example.my.salesforce.com"]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_record_is_told_with_its_code_and_its_ids_and_without_its_values() {
    let mut org = org_settings();
    org.validation.push(salesforce::ValidationRule {
        object: "Contact".to_owned(),
        field: "Description".to_owned(),
        refuse_if: salesforce::Test::Contains("forbidden".to_owned()),
        message: "Not that word.".to_owned(),
    });
    let both = Both::with(&super::Config::people(&[EMAIL, LAST, BIO], ""), portal_settings(), org);
    let bad = both.h_create(&[("email", "secretive@example.com"), ("lastname", "Quiet"), ("bio", "a forbidden word")]);
    let good = both.h_create(&[("email", "open@example.com"), ("lastname", "Open"), ("bio", "fine")]);
    let report = both.done(PEOPLE).await;
    assert!(both.s_twin(&good).is_some());
    assert_eq!(both.s_twin(&bad), None);
    assert_eq!(report.rows.rejected, 1, "{report}", report = super::brief(&report));
    assert_eq!(
        report.rejected_by_code.get("FIELD_CUSTOM_VALIDATION_EXCEPTION"),
        Some(&1),
        "{report}",
        report = super::brief(&report)
    );
    let rejects = report.rejects.clone().expect("a file of rejects");
    assert!(rejects.contains("rejects/sync-people/"), "{rejects}");
    let text = both.world.text(&rejects).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1);
    assert!(text.contains(&bad) && text.contains("FIELD_CUSTOM_VALIDATION_EXCEPTION"), "{text}");
    for value in ["secretive", "Quiet", "forbidden"] {
        assert!(!text.contains(value), "a value stands in the rejects: {text}");
        assert!(!serde_json::to_string(&report).unwrap().contains(value), "a value stands in the report");
    }
    both.assert_quiet(PEOPLE).await;
    both.h_edit(&bad, &[("bio", "a kind word")]);
    both.done(PEOPLE).await;
    assert!(both.s_twin(&bad).is_some());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_calls_is_kept_by_one_process_without_any_server_beside_it() {
    let mut portal = portal_settings();
    portal.limits.burst = Some(100);
    let limits = "hubspot:\n  default: { secret: hubferry/hubspot, limits: { burst: 100, interval_seconds: 10 } }\n";
    let config = super::Config::people(&[EMAIL, LAST], WIDE)
        .replace("hubspot:\n  default: { secret: hubferry/hubspot }\n", limits);
    let both = Both::with(&config, portal, org_settings());
    for at in 0..2_500 {
        both.s_create(&[("LastName", "Many"), ("Email", &format!("s{at}@example.com"))]);
    }
    let report = both.done(PEOPLE).await;
    assert_eq!(both.h_count(), 2_500, "{report}", report = super::brief(&report));
    let portal = both.world.portal.borrow();
    assert!(portal.max_calls_in_window() <= 100, "{}", portal.max_calls_in_window());
    assert_eq!(portal.counts().throttled, 0);
}
