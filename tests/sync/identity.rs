//! Which records belong together, and what becomes of that: addresses, ids on both sides, merges, leads, person accounts.

use std::rc::Rc;

use hubferry::{
    clock::Clock as _,
    report::Outcome,
    state::memory::MemoryTable,
    sync::model::{ReviewKind, Side},
};

use super::{Both, Config, EMAIL, FIRST, LAST, PEOPLE, PHONE, WIDE, org_settings, portal_settings, told};

const THREE: [&str; 4] = [EMAIL, FIRST, LAST, PHONE];

#[tokio::test(start_paused = true)]
async fn an_address_that_changes_moves_with_its_record_on_either_side() {
    let both = Both::people(&THREE, "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "one@example.com")]).await;
    both.s_edit(&s, &[("Email", "Two@Example.com")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "email").as_deref(), Some("two@example.com"));
    both.h_edit(&h, &[("email", "three@example.com")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "Email").as_deref(), Some("three@example.com"));
    both.s_edit(&s, &[("Email", "")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "email"), None);
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn addresses_that_change_places_between_two_records_arrive_in_the_end() {
    let both = Both::people(&THREE, "");
    let (h1, s1) = both.linked(&[("LastName", "One"), ("Email", "one@example.com")]).await;
    let (h2, s2) = both.linked(&[("LastName", "Two"), ("Email", "two@example.com")]).await;
    // HubSpot's addresses are unique: neither can be written while the other has it.
    both.s_edit(&s1, &[("Email", "two@example.com")]);
    both.s_edit(&s2, &[("Email", "one@example.com")]);
    for _ in 0..3 {
        both.done(PEOPLE).await;
    }
    let now = (both.h(&h1, "email"), both.h(&h2, "email"));
    let arrived = now == (Some("two@example.com".to_owned()), Some("one@example.com".to_owned()));
    let asked = both.review_kinds().contains(&ReviewKind::Taken);
    assert!(arrived || asked, "{now:?} {:?}", both.reviews());
    assert_eq!((both.h_count(), both.s_count()), (2, 2));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_another_contact_has_freezes_that_field_only() {
    let both = Both::people(&THREE, "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "one@example.com")]).await;
    let other = both.h_create(&[("email", "taken@example.com"), ("lastname", "Other")]);
    both.done(PEOPLE).await;
    both.s_edit(&s, &[("Email", "taken@example.com"), ("Phone", "030 1")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "email").as_deref(), Some("one@example.com"));
    assert_eq!(both.h(&h, "phone").as_deref(), Some("030 1"), "the other fields flow");
    let reviews = both.reviews();
    assert_eq!(both.review_kinds(), [ReviewKind::Taken], "{reviews:?}");
    assert_eq!(reviews[0].hubspot_id.as_deref(), Some(h.as_str()));
    assert!(reviews[0].candidates.contains(&other), "it names who has the address: {reviews:?}");
    both.assert_quiet(PEOPLE).await;
    // A person gives way.
    both.h_edit(&other, &[("email", "free@example.com")]);
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "email").as_deref(), Some("taken@example.com"));
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_two_contacts_of_the_org_share_is_a_review_and_never_the_first_row() {
    let both = Both::people(&THREE, "");
    let h = both.h_create(&[("email", "shared@example.com"), ("lastname", "A")]);
    let a = both.s_create(&[("Email", "shared@example.com"), ("LastName", "A")]);
    let b = both.s_create(&[("Email", "Shared@Example.com"), ("LastName", "B")]);
    let report = both.done(PEOPLE).await;
    assert_eq!((both.h_count(), both.s_count()), (1, 2), "{report}", report = super::brief(&report));
    assert!(both.links().is_empty());
    let reviews = both.reviews();
    assert!(!reviews.is_empty() && reviews.iter().all(|review| review.kind == ReviewKind::Duplicate), "{reviews:?}");
    let text = format!("{reviews:?}");
    assert!([&a, &b, &h].iter().all(|id| text.contains(id.as_str())), "all three are named: {text}");
    both.assert_quiet(PEOPLE).await;
    // A person gives one its own address: the other is the one that was meant.
    both.s_edit(&b, &[("Email", "own@example.com")]);
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!(both.h_twin(&a), Some(h));
    assert!(both.h_twin(&b).is_some(), "the other is created");
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    assert_eq!((both.h_count(), both.s_count()), (2, 2));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn two_contacts_of_the_org_with_one_address_and_none_in_hubspot_are_not_made_one() {
    let both = Both::people(&THREE, "");
    both.s_create(&[("Email", "shared@example.com"), ("LastName", "A")]);
    both.s_create(&[("Email", "shared@example.com"), ("LastName", "B")]);
    both.done(PEOPLE).await;
    // HubSpot takes an address once: at most one of the two can have been made there, and the other is asked about.
    assert!(both.h_count() <= 1);
    assert!(!both.reviews().is_empty());
    assert_eq!(both.s_count(), 2);
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_secondary_address_of_a_contact_is_not_a_free_address() {
    let both = Both::people(&THREE, "");
    let h = both.h_create(&[
        ("email", "main@example.com"),
        ("hs_additional_emails", "second@example.com"),
        ("lastname", "Both"),
    ]);
    let main = both.s_create(&[("Email", "main@example.com"), ("LastName", "Both")]);
    let second = both.s_create(&[("Email", "second@example.com"), ("LastName", "Second")]);
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!(both.h_count(), 1, "HubSpot has this person already");
    assert_eq!(both.h_twin(&main), Some(h));
    assert_eq!(both.h_twin(&second), None);
    assert_eq!(both.reviews().len(), 1, "{:?}", both.reviews());
    assert!(format!("{:?}", both.reviews()).contains(&second));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_sync_goes_by_the_ids_first_then_by_the_address() {
    let both = Both::people(&THREE, WIDE);
    let h_by_id = both.h_create(&[("email", "left@example.com"), ("lastname", "ById")]);
    let s_by_id =
        both.s_create(&[("Email", "right@example.com"), ("LastName", "ById"), ("HubSpot_Contact_Id__c", &h_by_id)]);
    // Somebody else has the address that the record with the id has on the other side.
    let h_other = both.h_create(&[("email", "right@example.com"), ("lastname", "Other")]);
    let h_by_mail = both.h_create(&[("email", "mail@example.com"), ("lastname", "ByMail")]);
    let s_by_mail = both.s_create(&[("Email", "MAIL@example.com"), ("LastName", "ByMail")]);
    both.done(PEOPLE).await;
    let links = both.links();
    assert!(links.contains(&(h_by_id.clone(), s_by_id.clone())), "{links:?} {:?}", both.reviews());
    assert!(links.contains(&(h_by_mail.clone(), s_by_mail.clone())), "{links:?}");
    assert_eq!(both.h(&h_by_id, "sf_contact_id_ext"), Some(s_by_id), "the id is written where it was missing");
    assert_eq!(both.s(&s_by_mail, "HubSpot_Contact_Id__c"), Some(h_by_mail));
    // Whose address it is, a person has to say.
    assert_eq!(both.s_twin(&h_other), None);
    assert!(
        both.reviews()
            .iter()
            .any(|review| { review.kind == ReviewKind::Duplicate && format!("{review:?}").contains(&h_other) })
    );
    both.done(PEOPLE).await;
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn ids_that_contradict_each_other_are_a_review_and_nothing_is_written_to_those_records() {
    let both = Both::people(&THREE, "");
    let h1 = both.h_create(&[("email", "h1@example.com"), ("lastname", "H1")]);
    let h2 = both.h_create(&[("email", "h2@example.com"), ("lastname", "H2")]);
    let s1 = both.s_create(&[("Email", "s1@example.com"), ("LastName", "S1"), ("HubSpot_Contact_Id__c", &h2)]);
    let s2 = both.s_create(&[("Email", "s2@example.com"), ("LastName", "S2")]);
    both.h_edit(&h1, &[("sf_contact_id_ext", &s1)]);
    both.h_edit(&h2, &[("sf_contact_id_ext", &s2)]);
    both.done(PEOPLE).await;
    let kinds = both.review_kinds();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == ReviewKind::Identity), "{:?}", both.reviews());
    let kept = [(&h1, "h1@example.com"), (&h2, "h2@example.com")];
    assert!(kept.iter().all(|(id, email)| both.h(id, "email").as_deref() == Some(*email)));
    let kept = [(&s1, "s1@example.com"), (&s2, "s2@example.com")];
    assert!(kept.iter().all(|(id, email)| both.s(id, "Email").as_deref() == Some(*email)));
    assert_eq!((both.h_count(), both.s_count()), (2, 2));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_id_that_leads_nowhere_does_not_keep_records_apart() {
    let both = Both::people(&THREE, "");
    let gone = both.s_create(&[("LastName", "Gone")]);
    both.world.org.borrow_mut().purge("Contact", &gone);
    let h = both.h_create(&[("email", "a@example.com"), ("lastname", "A"), ("sf_contact_id_ext", &gone)]);
    let s = both.s_create(&[("Email", "a@example.com"), ("LastName", "A"), ("HubSpot_Contact_Id__c", "999999999")]);
    both.done(PEOPLE).await;
    let linked = both.links() == [(h.clone(), s.clone())];
    let asked = both.review_kinds().iter().all(|kind| *kind == ReviewKind::Identity) && !both.reviews().is_empty();
    assert!(linked || asked, "{:?} {:?}", both.links(), both.reviews());
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn losing_the_table_costs_no_record_and_no_value() {
    let both = Both::people(&super::FIELDS, WIDE);
    for at in 0..40 {
        both.s_create(&[("LastName", "S"), ("Email", &format!("s{at}@example.com")), ("Phone", "030 1")]);
        both.h_create(&[("lastname", "H"), ("email", &format!("h{at}@example.com")), ("phone", "030 2")]);
    }
    both.done(PEOPLE).await;
    both.assert_quiet(PEOPLE).await;
    let before = (both.world.portal.borrow().state(), both.world.org.borrow().state());
    let mut both = both;
    both.world.table = Rc::new(MemoryTable::new());
    both.mark();
    let report = both.done(PEOPLE).await;
    assert_eq!(told(&report).linked, 80, "{report}", report = super::brief(&report));
    assert_eq!(both.writes(), (vec![], vec![]));
    assert_eq!((both.world.portal.borrow().state(), both.world.org.borrow().state()), before);
    assert!(both.reviews().is_empty());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_in_salesforce_takes_the_link_to_the_winner() {
    let both = Both::people(&THREE, "create: hubspot\n");
    let (h, loser) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "030 1")]).await;
    // The winner is new and never had a twin.
    let winner = both.s_create(&[("LastName", "Dyer-Ode"), ("Email", "d@example.com")]);
    assert!(both.world.org.borrow_mut().merge(both.world.clock.now(), "Contact", &winner, &[&loser]));
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!(both.links(), [(h.clone(), winner.clone())], "{:?}", both.reviews());
    assert_eq!(both.h(&h, "sf_contact_id_ext"), Some(winner.clone()));
    assert_eq!(both.s(&winner, "HubSpot_Contact_Id__c"), Some(h.clone()));
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    assert_eq!(both.h(&h, "phone"), both.s(&winner, "Phone"));
    both.h_edit(&h, &[("phone", "030 9")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&winner, "Phone").as_deref(), Some("030 9"));
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_of_two_linked_records_in_salesforce_asks_whether_to_merge_in_hubspot() {
    let both = Both::people(&THREE, "");
    let (h1, s1) = both.linked(&[("LastName", "One"), ("Email", "one@example.com")]).await;
    let (h2, s2) = both.linked(&[("LastName", "Two"), ("Email", "two@example.com")]).await;
    assert!(both.world.org.borrow_mut().merge(both.world.clock.now(), "Contact", &s1, &[&s2]));
    both.done(PEOPLE).await;
    let reviews = both.reviews();
    assert_eq!(both.review_kinds(), [ReviewKind::Merge], "{reviews:?}");
    assert!(format!("{reviews:?}").contains(&h2));
    assert_eq!(both.h_count(), 2, "nothing is merged or archived without being asked");
    both.assert_quiet(PEOPLE).await;
    // The survivor's link goes on.
    both.s_edit(&s1, &[("Phone", "030 1")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h1, "phone").as_deref(), Some("030 1"));
    // A person merges in HubSpot, too: that was the answer.
    assert!(both.world.portal.borrow_mut().merge(both.world.clock.now(), "contacts", &h1, &h2));
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_in_hubspot_takes_the_link_to_the_winner() {
    let both = Both::people(&THREE, "create: salesforce\n");
    let loser = both.h_create(&[("email", "d@example.com"), ("lastname", "Dyer")]);
    both.done(PEOPLE).await;
    let s = both.s_twin(&loser).unwrap();
    let winner = both.h_create(&[("email", "ode@example.com"), ("lastname", "Ode"), ("phone", "030 1")]);
    assert!(both.world.portal.borrow_mut().merge(both.world.clock.now(), "contacts", &winner, &loser));
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!(both.links(), [(winner.clone(), s.clone())], "{:?}", both.reviews());
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    both.s_edit(&s, &[("Phone", "030 9")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&winner, "phone").as_deref(), Some("030 9"));
    both.done(PEOPLE).await;
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_of_two_linked_records_in_hubspot_asks_what_becomes_of_the_other_in_salesforce() {
    let both = Both::people(&THREE, "");
    let (h1, s1) = both.linked(&[("LastName", "One"), ("Email", "one@example.com")]).await;
    let (h2, s2) = both.linked(&[("LastName", "Two"), ("Email", "two@example.com")]).await;
    assert!(both.world.portal.borrow_mut().merge(both.world.clock.now(), "contacts", &h1, &h2));
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert_eq!(both.review_kinds(), [ReviewKind::Merge], "{:?}", both.reviews());
    assert!(format!("{:?}", both.reviews()).contains(&s2));
    assert_eq!(both.s_count(), 2, "nothing is merged or deleted without being asked");
    both.assert_quiet(PEOPLE).await;
    both.h_edit(&h1, &[("phone", "030 1")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s1, "Phone").as_deref(), Some("030 1"), "the survivor's link goes on");
    assert_eq!(both.s(&s2, "Phone"), None);
    assert!(both.world.org.borrow_mut().merge(both.world.clock.now(), "Contact", &s1, &[&s2]));
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_merge_in_hubspot_is_noticed_by_the_survivor_alone() {
    let both = Both::people(&THREE, "");
    let (h1, s1) = both.linked(&[("LastName", "One"), ("Email", "one@example.com")]).await;
    let (h2, s2) = both.linked(&[("LastName", "Two"), ("Email", "two@example.com")]).await;
    // No feed shows the pairs for anything else any more.
    both.wait(7_200).await;
    both.done(PEOPLE).await;
    assert!(both.world.portal.borrow_mut().merge(both.world.clock.now(), "contacts", &h1, &h2));
    both.done(PEOPLE).await;
    assert_eq!(both.review_kinds(), [ReviewKind::Merge], "{:?}", both.reviews());
    let told = format!("{:?}", both.reviews());
    assert!(told.contains(&s1) && told.contains(&s2), "{told}");
    both.assert_quiet(PEOPLE).await;
    // An edit of the record whose counterpart is no more goes nowhere, and is not lost in silence.
    both.s_edit(&s2, &[("Phone", "030 2")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h1, "phone"), None);
    assert_eq!(both.review_kinds(), [ReviewKind::Merge], "{:?}", both.reviews());
}

#[tokio::test(start_paused = true)]
async fn the_same_merge_on_both_sides_before_a_run_is_nobodys_question() {
    let both = Both::people(&THREE, "");
    let (h1, s1) = both.linked(&[("LastName", "One"), ("Email", "one@example.com")]).await;
    let (h2, s2) = both.linked(&[("LastName", "Two"), ("Email", "two@example.com")]).await;
    let now = both.world.clock.now();
    assert!(both.world.org.borrow_mut().merge(now, "Contact", &s1, &[&s2]));
    assert!(both.world.portal.borrow_mut().merge(now, "contacts", &h1, &h2));
    both.done(PEOPLE).await;
    both.done(PEOPLE).await;
    assert!(both.reviews().is_empty(), "{:?}", both.reviews());
    assert_eq!(both.links().iter().filter(|(h, s)| *h == h1 && *s == s1).count(), 1, "{:?}", both.links());
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_person_account_is_left_alone() {
    let mut org = org_settings();
    org.person_accounts = true;
    let both = Both::with(&Config::people(&THREE, ""), portal_settings(), org);
    let person = both.s_create(&[("LastName", "Person"), ("Email", "person@example.com")]);
    let now = both.world.clock.now();
    assert!(both.world.org.borrow_mut().force(now, "Contact", &person, "IsPersonAccount", "true"));
    let plain = both.s_create(&[("LastName", "Plain"), ("Email", "plain@example.com")]);
    both.done(PEOPLE).await;
    assert!(both.h_twin(&plain).is_some());
    assert_eq!(both.h_twin(&person), None);
    assert!(both.s_written().iter().all(|(id, ..)| *id != person), "{:?}", both.s_written());
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn create_says_where_records_may_be_made() {
    for (create, here, there) in [("both", 2, 2), ("hubspot", 2, 1), ("salesforce", 1, 2), ("none", 1, 1)] {
        let both = Both::people(&THREE, &format!("create: {create}\n"));
        both.s_create(&[("LastName", "S"), ("Email", "s@example.com")]);
        both.h_create(&[("lastname", "H"), ("email", "h@example.com")]);
        both.done(PEOPLE).await;
        assert_eq!((both.h_count(), both.s_count()), (here, there), "create: {create}");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_contact_that_says_no_name_gets_a_placeholder_in_salesforce_and_never_gets_it_back() {
    let last = "{ hubspot: lastname, salesforce: LastName, rule: two_way, placeholder: \"[unknown]\" }";
    let both = Both::people(&[EMAIL, FIRST, last], "");
    let h = both.h_create(&[("email", "a@example.com")]);
    both.done(PEOPLE).await;
    let s = both.s_twin(&h).unwrap();
    assert_eq!(both.s(&s, "LastName").as_deref(), Some("[unknown]"));
    assert_eq!(both.h(&h, "lastname"), None);
    both.assert_quiet(PEOPLE).await;
    both.s_edit(&s, &[("FirstName", "Ada")]);
    both.done(PEOPLE).await;
    assert_eq!((both.h(&h, "firstname").as_deref(), both.h(&h, "lastname")), (Some("Ada"), None));
    both.h_edit(&h, &[("lastname", "Ode")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "LastName").as_deref(), Some("Ode"));
    both.h_edit(&h, &[("lastname", "")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&s, "LastName").as_deref(), Some("[unknown]"), "cleared in HubSpot: Salesforce wants something");
    both.s_edit(&s, &[("LastName", "Found")]);
    both.done(PEOPLE).await;
    assert_eq!(both.h(&h, "lastname").as_deref(), Some("Found"));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_lead_is_kept_in_step_until_it_is_converted() {
    let both = Both::new(&Config::new().leads("").text());
    let lead = both.s_create_as("Lead", &[("LastName", "Lead"), ("Company", "Lantern"), ("Email", "lead@example.com")]);
    let nameless = both.h_create(&[("email", "h@example.com"), ("lastname", "H"), ("company", "Works")]);
    both.done("leads").await;
    let h = both.world.portal.borrow().find_by("contacts", "sf_lead_id_ext", &lead).unwrap()["hs_object_id"].clone();
    assert_eq!(both.h(&h, "company").as_deref(), Some("Lantern"));
    assert!(both.world.org.borrow().find_by("Lead", "HubSpot_Contact_Id__c", &nameless).is_some());
    both.h_edit(&h, &[("phone", "030 1")]);
    both.done("leads").await;
    assert_eq!(both.s_of("Lead", &lead, "Phone").as_deref(), Some("030 1"));
    both.assert_quiet("leads").await;
    both.world.org.borrow_mut().convert_lead(both.world.clock.now(), &lead).unwrap();
    both.h_edit(&h, &[("phone", "030 2")]);
    let report = both.done("leads").await;
    assert_eq!(report.rows.rejected + report.rows.deferred, 0, "{report}", report = super::brief(&report));
    assert_eq!(both.s_of("Lead", &lead, "Phone").as_deref(), Some("030 1"), "a converted lead takes no writes");
    assert!(both.h_lives(&h));
    both.assert_quiet("leads").await;
}

#[tokio::test(start_paused = true)]
async fn the_contact_that_a_lead_became_takes_over_its_contact_in_hubspot() {
    let config = Config::new()
        .sync(PEOPLE, ("contacts", "Contact"), &THREE, "create: hubspot\n")
        .leads("create: hubspot\n")
        .text();
    let both = Both::new(&config);
    let lead = both.s_create_as("Lead", &[("LastName", "Lead"), ("Company", "Lantern"), ("Email", "lead@example.com")]);
    both.done("leads").await;
    let h = both.world.portal.borrow().find_by("contacts", "sf_lead_id_ext", &lead).unwrap()["hs_object_id"].clone();
    let (contact, _) = both.world.org.borrow_mut().convert_lead(both.world.clock.now(), &lead).unwrap();
    both.done("leads").await;
    both.done(PEOPLE).await;
    both.done("leads").await;
    assert_eq!(both.h_twin(&contact), Some(h.clone()), "{:?}", both.reviews());
    assert_eq!((both.h_count(), both.s_count()), (1, 1));
    both.h_edit(&h, &[("phone", "030 2")]);
    both.done("leads").await;
    both.done(PEOPLE).await;
    assert_eq!(both.s(&contact, "Phone").as_deref(), Some("030 2"));
    both.assert_quiet(PEOPLE).await;
    both.assert_quiet("leads").await;
}

#[tokio::test(start_paused = true)]
async fn companies_and_deals_go_both_ways_too() {
    let both = Both::new(&Config::new().companies("").deals("").text());
    let account = both.s_create_as("Account", &[("Name", "Lantern"), ("Domain__c", "lantern.example")]);
    let company = both.h_create_as("companies", &[("name", "Works"), ("domain", "works.example"), ("phone", "030 1")]);
    let same_s = both.s_create_as("Account", &[("Name", "Same"), ("Domain__c", "same.example")]);
    let same_h = both.h_create_as("companies", &[("name", "Same"), ("domain", "same.example")]);
    let opportunity = both.s_create_as(
        "Opportunity",
        &[("Name", "Lamp"), ("StageName", "Prospecting"), ("CloseDate", "2026-06-30"), ("Amount", "1200.50")],
    );
    let deal = both.h_create_as(
        "deals",
        &[("dealname", "Wick"), ("dealstage", "closedwon"), ("closedate", "2026-07-01T15:00:00Z"), ("amount", "99")],
    );
    for sync in ["companies", "deals"] {
        let report = both.done(sync).await;
        assert_eq!(report.rows.rejected, 0, "{report}", report = super::brief(&report));
    }
    let portal = |object: &str, property: &str, id: &str| both.world.portal.borrow().find_by(object, property, id);
    let org = |object: &str, field: &str, id: &str| both.world.org.borrow().find_by(object, field, id);
    assert_eq!(portal("companies", "sf_account_id_ext", &account).unwrap()["name"], "Lantern");
    assert_eq!(org("Account", "HubSpot_Company_Id__c", &company).unwrap()["Phone"], "030 1");
    assert_eq!(portal("companies", "sf_account_id_ext", &same_s).unwrap()["hs_object_id"], same_h);
    let made = portal("deals", "sf_opportunity_id_ext", &opportunity).unwrap();
    assert_eq!((made["dealstage"].as_str(), made["amount"].as_str()), ("appointmentscheduled", "1200.5"));
    assert!(made["closedate"].starts_with("2026-06-30"));
    let made = org("Opportunity", "HubSpot_Deal_Id__c", &deal).unwrap();
    assert_eq!((made["StageName"].as_str(), made["CloseDate"].as_str()), ("Closed Won", "2026-07-01"));
    let counts = |object: &str| both.world.portal.borrow().record_count(object);
    assert_eq!((counts("companies"), counts("deals")), (3, 2));
    both.assert_quiet("companies").await;
    both.assert_quiet("deals").await;
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_name_runs_every_sync_accounts_first() {
    let config = Config::new().sync(PEOPLE, ("contacts", "Contact"), &THREE, "").companies("").text();
    let both = Both::new(&config);
    let account = both.s_create_as("Account", &[("Name", "Lantern"), ("Domain__c", "lantern.example")]);
    let s = both.s_create(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("AccountId", &account)]);
    both.wait(60).await;
    let answer = both.world.handle(serde_json::json!({ "job": "sync" })).await.unwrap();
    let hubferry::app::Answer::Several(answers) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = answers
        .into_iter()
        .map(crate::support::report)
        .map(|report| {
            assert_eq!(report.outcome, Outcome::Done, "{report}", report = super::brief(&report));
            report.name
        })
        .collect();
    assert_eq!(names, ["companies", PEOPLE], "accounts before contacts");
    let h = both.h_twin(&s).unwrap();
    assert_eq!(both.world.portal.borrow().associations_of("contacts", &h, "companies").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_review_of_records_says_whose_ids_it_names() {
    let both = Both::people(&THREE, "");
    both.h_create(&[("email", "shared@example.com"), ("lastname", "Here")]);
    let a = both.s_create(&[("Email", "shared@example.com"), ("LastName", "A")]);
    let b = both.s_create(&[("Email", "shared@example.com"), ("LastName", "B")]);
    both.done(PEOPLE).await;
    for review in both.reviews() {
        if review.candidates.contains(&a) || review.candidates.contains(&b) {
            assert_eq!(review.candidates_of, Some(Side::Salesforce), "{review:?}");
        }
        assert!(!review.why.contains("shared@example.com"), "no values: {}", review.why);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lead_has_conflicts_deletions_and_required_fields_like_any_record() {
    let both = Both::new(&Config::new().leads("deletes: review\n").text());
    let lead = both.s_create_as("Lead", &[("LastName", "Lead"), ("Company", "Lantern"), ("Email", "lead@example.com")]);
    // A lead needs a company.
    let without = both.h_create(&[("email", "h@example.com"), ("lastname", "H")]);
    let report = both.done("leads").await;
    let h = both.world.portal.borrow().find_by("contacts", "sf_lead_id_ext", &lead).unwrap()["hs_object_id"].clone();
    assert_eq!(report.rejected_by_code.get("REQUIRED_FIELD_MISSING"), Some(&1), "{}", super::brief(&report));
    both.h_edit(&without, &[("company", "Works")]);
    both.done("leads").await;
    assert!(both.world.org.borrow().find_by("Lead", "HubSpot_Contact_Id__c", &without).is_some());
    assert!(both.refused().is_empty(), "{:?}", both.refused());
    both.h_edit(&h, &[("phone", "030 1")]);
    both.world.org.borrow_mut().edit(both.world.clock.now(), "Lead", &lead, &[("Phone", "030 2")]).unwrap();
    both.done("leads").await;
    assert_eq!(both.review_kinds(), [ReviewKind::Conflict]);
    // Converted while the question is open: there is nothing to decide any more.
    both.world.org.borrow_mut().convert_lead(both.world.clock.now(), &lead).unwrap();
    both.done("leads").await;
    both.assert_quiet("leads").await;
    assert_eq!(both.s_of("Lead", &lead, "Phone").as_deref(), Some("030 2"));
    let other = both.world.org.borrow().find_by("Lead", "HubSpot_Contact_Id__c", &without).unwrap()["Id"].clone();
    assert!(both.world.org.borrow_mut().delete(both.world.clock.now(), "Lead", &other));
    both.done("leads").await;
    assert!(both.review_kinds().contains(&ReviewKind::Delete), "{:?}", both.reviews());
    assert!(both.h_lives(&without));
    both.assert_quiet("leads").await;
}

#[tokio::test(start_paused = true)]
async fn a_deal_in_a_stage_that_the_file_does_not_map_keeps_its_stage_and_the_rest_flows() {
    let both = Both::new(&Config::new().deals("").text());
    let values = [("Name", "Lamp"), ("StageName", "Prospecting"), ("CloseDate", "2026-06-30"), ("Amount", "1200.50")];
    let s = both.s_create_as("Opportunity", &values);
    both.done("deals").await;
    let h = both.world.portal.borrow().find_by("deals", "sf_opportunity_id_ext", &s).unwrap()["hs_object_id"].clone();
    let edit = |values: &[(&str, &str)]| {
        assert!(both.world.portal.borrow_mut().edit(both.world.clock.now(), "deals", &h, values));
    };
    // A stage of Salesforce's that no stage of HubSpot's stands for.
    let edit_s = |values: &[(&str, &str)]| {
        both.world.org.borrow_mut().edit(both.world.clock.now(), "Opportunity", &s, values).unwrap();
    };
    edit_s(&[("StageName", "Perception Analysis"), ("Amount", "1500")]);
    let report = both.done("deals").await;
    let stage = both.h_of("deals", &h, "dealstage");
    assert_eq!(stage.as_deref(), Some("appointmentscheduled"), "{}", super::brief(&report));
    assert_eq!(both.h_of("deals", &h, "amount").as_deref(), Some("1500"), "{}", super::brief(&report));
    assert_eq!(both.refused().len(), 1, "{:?}", both.refused());
    assert_eq!(both.s_of("Opportunity", &s, "StageName").as_deref(), Some("Perception Analysis"));
    both.assert_quiet("deals").await;
    edit_s(&[("StageName", "Qualification")]);
    both.done("deals").await;
    assert_eq!(both.h_of("deals", &h, "dealstage").as_deref(), Some("qualifiedtobuy"));
    // Won on one side while the date is moved on the other: both flow.
    edit(&[("dealstage", "closedwon")]);
    both.world
        .org
        .borrow_mut()
        .edit(both.world.clock.now(), "Opportunity", &s, &[("CloseDate", "2026-07-15")])
        .unwrap();
    both.done("deals").await;
    assert_eq!(both.s_of("Opportunity", &s, "StageName").as_deref(), Some("Closed Won"));
    assert!(both.h_of("deals", &h, "closedate").unwrap().starts_with("2026-07-15"));
    assert!(both.refused().is_empty() && both.reviews().is_empty(), "{:?} {:?}", both.refused(), both.reviews());
    both.assert_quiet("deals").await;
}
