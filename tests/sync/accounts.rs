//! A contact's account in Salesforce is its primary company in HubSpot.

use super::{Both, Config, EMAIL, LAST, PEOPLE, PHONE, told};

fn both() -> Both {
    Both::new(&Config::new().companies("").sync(PEOPLE, ("contacts", "Contact"), &[EMAIL, LAST, PHONE], "").text())
}

impl Both {
    /// Name of the contact's primary company.
    fn primary(&self, contact: &str) -> Option<String> {
        let portal = self.world.portal.borrow();
        let id = portal.primary_of("contacts", contact, "companies")?;
        portal.find_by("companies", "hs_object_id", &id)?.get("name").cloned()
    }

    fn account(&self, name: &str) -> String {
        self.s_create_as("Account", &[("Name", name), ("Domain__c", &format!("{}.example", name.to_lowercase()))])
    }
}

#[tokio::test(start_paused = true)]
async fn the_contacts_account_is_its_primary_company_wherever_it_goes() {
    let both = both();
    let (lantern, works) = (both.account("Lantern"), both.account("Works"));
    both.done("companies").await;
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("AccountId", &lantern)]).await;
    assert_eq!(both.primary(&h).as_deref(), Some("Lantern"));
    both.assert_quiet(PEOPLE).await;
    both.s_edit(&s, &[("AccountId", &works)]);
    let report = both.done(PEOPLE).await;
    assert_eq!(both.primary(&h).as_deref(), Some("Works"), "{report}", report = super::brief(&report));
    assert!(told(&report).associations >= 1);
    both.assert_quiet(PEOPLE).await;
    both.s_edit(&s, &[("AccountId", "")]);
    both.done(PEOPLE).await;
    assert_ne!(both.primary(&h).as_deref(), Some("Works"), "cleared in Salesforce");
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_linked_later_becomes_the_primary_company_then() {
    let both = both();
    let lantern = both.account("Lantern");
    let (h, _) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("AccountId", &lantern)]).await;
    assert_eq!(both.primary(&h), None, "there is no such company yet");
    both.assert_quiet(PEOPLE).await;
    both.done("companies").await;
    both.done(PEOPLE).await;
    assert_eq!(both.primary(&h).as_deref(), Some("Lantern"));
    both.assert_quiet(PEOPLE).await;
    both.assert_quiet("companies").await;
}

#[tokio::test(start_paused = true)]
async fn companies_that_people_add_in_hubspot_stay() {
    let both = both();
    let lantern = both.account("Lantern");
    both.done("companies").await;
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com")]).await;
    let own = both.h_create_as("companies", &[("name", "Own"), ("domain", "own.example")]);
    both.world.portal.borrow_mut().associate("contacts", &h, "companies", &own);
    both.s_edit(&s, &[("AccountId", &lantern)]);
    both.done(PEOPLE).await;
    assert_eq!(both.primary(&h).as_deref(), Some("Lantern"));
    assert!(both.world.portal.borrow().associations_of("contacts", &h, "companies").contains(&own));
    both.s_edit(&s, &[("AccountId", "")]);
    both.done(PEOPLE).await;
    assert!(both.world.portal.borrow().associations_of("contacts", &h, "companies").contains(&own), "not ours to cut");
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_contacts_of_one_account_do_not_cost_a_call_each() {
    let both = both();
    let lantern = both.account("Lantern");
    both.done("companies").await;
    for at in 0..200 {
        both.s_create(&[("LastName", "Many"), ("Email", &format!("m{at}@example.com")), ("AccountId", &lantern)]);
    }
    both.mark();
    let report = both.done(PEOPLE).await;
    let (hubspot, salesforce) = both.calls();
    assert!(hubspot + salesforce < 60, "{hubspot} + {salesforce}: {report}", report = super::brief(&report));
    let portal = both.world.portal.borrow();
    let linked = portal
        .records("contacts")
        .filter(|one| portal.primary_of("contacts", &one["hs_object_id"], "companies").is_some());
    assert_eq!(linked.count(), 200);
}
