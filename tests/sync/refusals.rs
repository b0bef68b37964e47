//! What one side will not take, or makes something else of.

use hubferry::{
    clock::Clock as _,
    report::Outcome,
    sync::model::{ReviewKind, Side},
};
use hubferry_simulator::{
    hubspot::Workflow,
    salesforce::{Automation, DuplicateRule, OrgSettings, Rewrite, Scheduled, Test, ValidationRule},
};

use super::{
    BIO, Both, Config, EMAIL, FIRST, INTERESTS, LAST, PEOPLE, PHONE, SOURCE, TITLE, org_settings, portal_settings,
};

const FIELDS: [&str; 6] = [EMAIL, FIRST, LAST, PHONE, BIO, INTERESTS];

fn with(change: impl FnOnce(&mut OrgSettings)) -> Both {
    let mut org = org_settings();
    change(&mut org);
    Both::with(&Config::people(&FIELDS, ""), portal_settings(), org)
}

fn duplicates(block: bool) -> DuplicateRule {
    DuplicateRule {
        name: "Phones".to_owned(),
        object: "Contact".to_owned(),
        against: vec!["Contact".to_owned()],
        fields: vec!["Phone".to_owned()],
        block,
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_duplicate_rule_finds_is_asked_about_and_not_made() {
    for block in [true, false] {
        let both = with(|org| org.duplicates.push(duplicates(block)));
        let there = both.s_create(&[("LastName", "There"), ("Email", "there@example.com"), ("Phone", "030 1")]);
        both.done(PEOPLE).await;
        let h = both.h_create(&[("email", "else@example.com"), ("lastname", "Else"), ("phone", "030 1")]);
        let other = both.h_create(&[("email", "fine@example.com"), ("lastname", "Fine"), ("phone", "030 2")]);
        both.done(PEOPLE).await;
        assert_eq!(both.s_twin(&h), None);
        assert!(both.s_twin(&other).is_some(), "the others are made");
        let reviews = both.reviews();
        assert_eq!(both.review_kinds(), [ReviewKind::Duplicate], "block: {block}: {reviews:?} {:?}", both.refused());
        assert_eq!(reviews[0].candidates, [there], "the record that it is like");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_validation_rule_keeps_its_record_back_and_nothing_else() {
    let both = with(|org| {
        org.validation.push(ValidationRule {
            object: "Contact".to_owned(),
            field: "Description".to_owned(),
            refuse_if: Test::Contains("forbidden".to_owned()),
            message: "Not that word.".to_owned(),
        });
    });
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Description", "old")]).await;
    let (h2, s2) = both.linked(&[("LastName", "Two"), ("Email", "two@example.com")]).await;
    both.h_edit(&h, &[("bio", "forbidden")]);
    both.h_edit(&h2, &[("bio", "fine")]);
    both.s_edit(&s, &[("Phone", "030 1")]);
    let report = both.done(PEOPLE).await;
    assert_eq!(both.s(&s2, "Description").as_deref(), Some("fine"));
    assert_eq!(both.s(&s, "Description").as_deref(), Some("old"));
    assert_eq!(both.h(&h, "bio").as_deref(), Some("forbidden"), "nobody's words are taken back");
    assert_eq!(both.h(&h, "phone").as_deref(), Some("030 1"), "the other direction flows");
    assert_eq!(
        report.rejected_by_code.get("FIELD_CUSTOM_VALIDATION_EXCEPTION"),
        Some(&1),
        "{report}",
        report = super::brief(&report)
    );
    assert!(
        both.refused().iter().any(|refused| refused.by == Side::Salesforce
            && refused.salesforce_id.as_ref().is_some_and(|id| id.as_str() == s))
    );
    both.assert_quiet(PEOPLE).await;
    both.h_edit(&h, &[("bio", "kind")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "Description").as_deref(), Some("kind"));
    assert!(both.refused().is_empty(), "{:?}", both.refused());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_a_restricted_picklist_lacks_keeps_its_field_back_and_nothing_else() {
    let mut portal = portal_settings();
    let own = portal.properties.get_mut("contacts").unwrap();
    let interests = own.iter_mut().find(|one| one.name == "interests").unwrap();
    *interests = interests.clone().options(&["cycling", "music", "chess", "tea", "yoga"]).several();
    let both = Both::with(&Config::people(&FIELDS, ""), portal, org_settings());
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Interests__c", "tea")]).await;
    let fresh = both.h_create(&[("email", "new@example.com"), ("lastname", "New"), ("interests", "yoga")]);
    both.h_edit(&h, &[("interests", "tea;yoga"), ("phone", "030 1")]);
    let report = both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "Phone").as_deref(), Some("030 1"));
    assert_eq!(both.s(&s, "Interests__c").as_deref(), Some("tea"));
    assert_eq!(both.h(&h, "interests").as_deref(), Some("tea;yoga"));
    let made = both.s_twin(&fresh).expect("a field does not keep a record back");
    assert_eq!(both.s(&made, "Interests__c"), None);
    assert_eq!(both.refused().len(), 2, "{:?}\n{}", both.refused(), super::brief(&report));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_hubspot_has_no_option_for_keeps_its_field_back_and_nothing_else() {
    let both = Both::people(&[EMAIL, LAST, PHONE, SOURCE], "");
    // Salesforce's picklist is not restricted: anything may stand there.
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("LeadSource", "Web")]).await;
    let fresh = both.s_create(&[("LastName", "New"), ("Email", "new@example.com"), ("LeadSource", "Trade Show")]);
    both.s_edit(&s, &[("LeadSource", "Trade Show"), ("Phone", "030 1")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "phone").as_deref(), Some("030 1"));
    assert_eq!(both.h(&h, "source").as_deref(), Some("web"));
    assert_eq!(both.s(&s, "LeadSource").as_deref(), Some("Trade Show"));
    assert!(both.h_twin(&fresh).is_some(), "a field does not keep a record back");
    assert_eq!(both.refused().len(), 2, "{:?}", both.refused());
    both.assert_quiet(PEOPLE).await;
    both.s_edit(&s, &[("LeadSource", "Other")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "source").as_deref(), Some("other"));
    assert_eq!(both.refused().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_too_long_is_refused_or_cut_as_the_file_says() {
    let long = "long ".repeat(40).trim().to_owned();
    for truncate in [false, true] {
        let title = format!("{{ hubspot: jobtitle, salesforce: Title, rule: two_way, truncate: {truncate} }}");
        let both = Both::people(&[EMAIL, LAST, &title], "");
        let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Title", "short")]).await;
        both.h_edit(&h, &[("jobtitle", &long)]);
        both.done(PEOPLE).await;
        assert_eq!(both.h(&h, "jobtitle").as_deref(), Some(long.as_str()), "the longer one stays in HubSpot");
        if truncate {
            let cut = both.s(&s, "Title").unwrap();
            assert!(long.starts_with(&cut) && (120..=128).contains(&cut.len()), "{cut}");
            assert!(both.refused().is_empty());
        } else {
            assert_eq!(both.s(&s, "Title").as_deref(), Some("short"));
            assert_eq!(both.refused().len(), 1, "{:?}", both.refused());
        }
        both.assert_quiet(PEOPLE).await;
        both.h_edit(&h, &[("jobtitle", "short again")]);
        both.done(PEOPLE).await;
        assert_eq!(both.s(&s, "Title").as_deref(), Some("short again"));
        both.s_edit(&s, &[("Title", "of salesforce")]);
        both.done(PEOPLE).await;
        assert_eq!(both.h(&h, "jobtitle").as_deref(), Some("of salesforce"));
        both.assert_quiet(PEOPLE).await;
    }
}

fn flow(field: &str, value: Rewrite) -> Automation {
    Automation { object: "Contact".to_owned(), when_changed: field.to_owned(), writes: field.to_owned(), value }
}

#[tokio::test(start_paused = true)]
async fn what_a_flow_makes_of_a_write_flows_back_once_and_then_there_is_quiet() {
    let both = with(|org| org.automation.push(flow("LastName", Rewrite::Upper)));
    let h = both.h_create(&[("email", "a@example.com"), ("lastname", "ode")]);
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    let s = both.s_twin(&h).unwrap();
    assert_eq!(both.s(&s, "LastName").as_deref(), Some("ODE"));
    assert_eq!(both.h(&h, "lastname").as_deref(), Some("ODE"));
    both.assert_quiet(PEOPLE).await;
    both.h_edit(&h, &[("lastname", "dyer"), ("bio", "a")]);
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!((both.s(&s, "LastName").as_deref(), both.h(&h, "lastname").as_deref()), (Some("DYER"), Some("DYER")));
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_only_dresses_a_telephone_number_causes_no_write_at_all() {
    let both = with(|org| org.automation.push(flow("Phone", Rewrite::UsPhone)));
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    both.h_edit(&h, &[("phone", "5550100199")]);
    both.mark();
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "Phone").as_deref(), Some("(555) 010-0199"));
    assert_eq!(both.h(&h, "phone").as_deref(), Some("5550100199"), "the format is left as it is");
    assert_eq!(both.writes().0, Vec::<String>::new());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_flow_makes_of_a_one_way_field_is_accepted_and_not_fought() {
    let title = "{ hubspot: jobtitle, salesforce: Title, rule: always_hubspot }";
    let mut org = org_settings();
    org.automation.push(flow("Title", Rewrite::Upper));
    let both = Both::with(&Config::people(&[EMAIL, LAST, title], ""), portal_settings(), org);
    let h = both.h_create(&[("email", "a@example.com"), ("lastname", "ode"), ("jobtitle", "chair")]);
    both.done(PEOPLE).await;
    let s = both.s_twin(&h).unwrap();
    assert_eq!(both.s(&s, "Title").as_deref(), Some("CHAIR"));
    both.assert_quiet(PEOPLE).await;
    assert_eq!(both.h(&h, "jobtitle").as_deref(), Some("chair"));
    both.h_edit(&h, &[("jobtitle", "head")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "Title").as_deref(), Some("HEAD"));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_sets_another_field_in_our_own_transaction_is_not_taken_for_our_write() {
    // The user of the API is the one who "changed" it: a filter by user would lose it.
    let both = with(|org| {
        org.automation.push(Automation {
            object: "Contact".to_owned(),
            when_changed: "Phone".to_owned(),
            writes: "Description".to_owned(),
            value: Rewrite::Fixed("called".to_owned()),
        });
    });
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    both.h_edit(&h, &[("phone", "030 1")]);
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "Description").as_deref(), Some("called"));
    assert_eq!(both.h(&h, "bio").as_deref(), Some("called"));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn automation_that_comes_later_on_either_side_is_an_edit_like_any_other() {
    let mut portal = portal_settings();
    portal.workflows.push(Workflow {
        object: "contacts".to_owned(),
        when_changed: "phone".to_owned(),
        writes: "bio".to_owned(),
        value: Rewrite::Fixed("called in HubSpot".to_owned()),
        after_ms: 30_000,
    });
    let mut org = org_settings();
    let automation = Automation {
        object: "Contact".to_owned(),
        when_changed: "FirstName".to_owned(),
        writes: "Interests__c".to_owned(),
        value: Rewrite::Fixed("tea".to_owned()),
    };
    org.scheduled.push(Scheduled { automation, after_ms: 45_000 });
    let both = Both::with(&Config::people(&FIELDS, ""), portal, org);
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    both.s_edit(&s, &[("Phone", "030 1"), ("FirstName", "Ada")]);
    both.run(PEOPLE).await;
    for _ in 0..3 {
        both.done(PEOPLE).await;
    }
    assert_eq!(both.h(&h, "bio").as_deref(), Some("called in HubSpot"), "the workflow has run");
    assert_eq!(both.s(&s, "Description").as_deref(), Some("called in HubSpot"));
    assert_eq!(both.h(&h, "interests").as_deref(), Some("tea"));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn two_automations_that_fight_over_a_field_are_parted_and_a_person_is_asked() {
    let mut portal = portal_settings();
    portal.workflows.push(Workflow {
        object: "contacts".to_owned(),
        when_changed: "lastname".to_owned(),
        writes: "lastname".to_owned(),
        value: Rewrite::Lower,
        after_ms: 5_000,
    });
    let mut org = org_settings();
    org.automation.push(flow("LastName", Rewrite::Upper));
    let both = Both::with(&Config::people(&FIELDS, ""), portal, org);
    let h = both.h_create(&[("email", "a@example.com"), ("lastname", "Ode")]);
    for _ in 0..12 {
        both.done(PEOPLE).await;
    }
    assert_eq!(both.review_kinds(), [ReviewKind::Flip], "{:?}", both.reviews());
    both.assert_quiet(PEOPLE).await;
    let s = both.s_twin(&h).unwrap();
    both.s_edit(&s, &[("Phone", "030 1")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "phone").as_deref(), Some("030 1"), "the other fields flow");
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_field_that_may_not_be_seen_any_more_is_not_blank() {
    let both = Both::people(&FIELDS, "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "030 1")]).await;
    both.world.org.borrow_mut().hide_field("Contact", "Phone", true);
    both.s_edit(&s, &[("FirstName", "Ada")]);
    let report = both.sync(PEOPLE).await;
    assert_eq!(report.outcome, Outcome::Invalid, "{report}", report = super::brief(&report));
    assert!(report.error.unwrap().message.contains("Phone"));
    assert_eq!(both.h(&h, "phone").as_deref(), Some("030 1"));
    both.world.org.borrow_mut().hide_field("Contact", "Phone", false);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "firstname").as_deref(), Some("Ada"));
    assert_eq!(both.h(&h, "phone").as_deref(), Some("030 1"));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_holds_locked_waits_and_the_others_do_not() {
    let both = Both::people(&FIELDS, "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    let (h2, s2) = both.linked(&[("LastName", "Two"), ("Email", "two@example.com")]).await;
    let now = both.world.clock.now();
    both.world.org.borrow_mut().lock_until(&s, now.checked_add(jiff::SignedDuration::from_secs(1_800)).unwrap());
    both.h_edit(&h, &[("phone", "030 1")]);
    both.h_edit(&h2, &[("phone", "030 2")]);
    let report = both.sync(PEOPLE).await;
    assert_eq!(both.s(&s2, "Phone").as_deref(), Some("030 2"), "{report}", report = super::brief(&report));
    assert_eq!(both.s(&s, "Phone"), None);
    both.wait(1_900).await;
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "Phone").as_deref(), Some("030 1"));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_hubspot_will_not_have_is_refused_and_told() {
    let both = Both::people(&FIELDS, "");
    both.world.portal.borrow_mut().block_address("gone@example.com");
    let s = both.s_create(&[("LastName", "Forgotten"), ("Email", "gone@example.com")]);
    let fine = both.s_create(&[("LastName", "Fine"), ("Email", "fine@example.com")]);
    let report = both.done(PEOPLE).await;
    assert!(both.h_twin(&fine).is_some());
    assert_eq!(both.h_twin(&s), None, "{report}", report = super::brief(&report));
    assert_eq!(report.rows.rejected, 1, "{report}", report = super::brief(&report));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_field_that_people_may_not_clear_is_not_cleared_and_told() {
    // LastName is required in Salesforce; HubSpot's may be cleared.
    let both = Both::people(&[EMAIL, LAST, TITLE, PHONE], "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    both.h_edit(&h, &[("lastname", ""), ("phone", "030 1")]);
    let report = both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "LastName").as_deref(), Some("Dyer"));
    assert_eq!(both.s(&s, "Phone").as_deref(), Some("030 1"), "{report}", report = super::brief(&report));
    assert_eq!(both.h(&h, "lastname"), None);
    assert_eq!(both.refused().len(), 1);
    both.assert_quiet(PEOPLE).await;
    both.s_edit(&s, &[("LastName", "Back")]);
    both.done(PEOPLE).await;
    let now = both.h(&h, "lastname");
    // Changed on both sides since they were in step: Salesforce's value, or a question.
    assert!(now.as_deref() == Some("Back") || both.review_kinds() == [ReviewKind::Conflict], "{now:?}");
    both.assert_quiet(PEOPLE).await;
}
