//! What people are shown before a run, and what they decide after it: plans, setups, reviews.

use std::{cell::RefCell, rc::Rc, time::Duration};

use hubferry::{
    clock::Clock as _,
    sync::{
        self,
        fields::Need,
        model::{Choice, Review, ReviewKind, Side},
        plan::{Operation, PlanTotals, Planned},
        resolve::{self, Resolved},
    },
};

use super::{
    BIO, Both, Config, EMAIL, LAST, PEOPLE, PHONE, WIDE, event, org_settings, portal_settings, survival, told,
};
use crate::support::report;

const FIELDS: [&str; 4] = [EMAIL, LAST, PHONE, BIO];

impl Both {
    async fn resolve(&self, id: &str, choice: Choice) -> Resolved {
        self.wait(60).await;
        let app = self.world.process();
        resolve::resolve(&app, id, choice, self.world.deadline(900), "a person").await.unwrap()
    }

    async fn plan(&self, name: &str) -> (Vec<Planned>, PlanTotals) {
        let steps: Rc<RefCell<Vec<Planned>>> = Rc::default();
        let sink = {
            let steps = steps.clone();
            Rc::new(move |step: &Planned| steps.borrow_mut().push(step.clone()))
        };
        let totals = sync::plan(&self.world.process(), name, self.world.deadline(900), sink).await.unwrap();
        (steps.take(), totals)
    }

    async fn listed(&self) -> Vec<Review> {
        resolve::list(&self.world.process(), None).await.unwrap()
    }
}

/// A pair whose telephone number is in conflict: Salesforce says `030 1`, HubSpot `030 2`.
async fn conflict() -> (Both, String, String, Review) {
    let both = Both::people(&FIELDS, "");
    let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "030 0")]).await;
    both.s_edit(&s, &[("Phone", "030 1")]);
    both.h_edit(&h, &[("phone", "030 2")]);
    both.done(PEOPLE).await;
    let mut listed = both.listed().await;
    assert_eq!(listed.len(), 1);
    (both, h, s, listed.remove(0))
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_settled_as_a_person_says_on_both_sides_at_once() {
    for (choice, expected) in [
        (Choice::Side(Side::Salesforce), Some("030 1")),
        (Choice::Side(Side::Hubspot), Some("030 2")),
        (Choice::Value("030 3".to_owned()), Some("030 3")),
        (Choice::Value(String::new()), None),
    ] {
        let (both, h, s, review) = conflict().await;
        both.s_edit(&s, &[("LastName", "Not yet")]);
        let resolved = both.resolve(&review.id, choice.clone()).await;
        assert!(matches!(resolved, Resolved::Applied(_)), "{choice:?}: {resolved:?}");
        let now = (both.h(&h, "phone"), both.s(&s, "Phone"));
        assert_eq!((now.0.as_deref(), now.1.as_deref()), (expected, expected), "{choice:?}");
        assert!(both.listed().await.is_empty());
        assert_eq!(both.h(&h, "lastname").as_deref(), Some("Dyer"), "a resolution does nothing else");
        both.done(PEOPLE).await;
        assert_eq!(both.h(&h, "lastname").as_deref(), Some("Not yet"), "and loses nothing");
        both.h_edit(&h, &[("phone", "030 9")]);
        both.done(PEOPLE).await;
        assert_eq!(both.s(&s, "Phone").as_deref(), Some("030 9"), "the field flows again");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_choice_is_carried_out_only_while_both_sides_hold_what_was_shown() {
    for side in [Side::Hubspot, Side::Salesforce] {
        let (both, h, s, review) = conflict().await;
        match side {
            Side::Hubspot => both.h_edit(&h, &[("phone", "030 77")]),
            Side::Salesforce => both.s_edit(&s, &[("Phone", "030 77")]),
        }
        let before = (both.h(&h, "phone"), both.s(&s, "Phone"));
        let resolved = both.resolve(&review.id, Choice::Side(side.other())).await;
        let Resolved::Open(now, why) = resolved else { panic!("{side:?}: {resolved:?}") };
        assert!(!why.is_empty());
        assert_eq!((both.h(&h, "phone"), both.s(&s, "Phone")), before, "nothing is written");
        let field = now.field.clone().unwrap();
        assert_eq!((field.hubspot_value, field.salesforce_value), before, "it shows what is there now");
        assert_eq!(now.choice, None);
        both.assert_quiet(PEOPLE).await;
        let resolved = both.resolve(&now.id, Choice::Side(side)).await;
        assert!(matches!(resolved, Resolved::Applied(_)), "{resolved:?}");
        let both_have = Some("030 77".to_owned());
        assert_eq!((both.h(&h, "phone"), both.s(&s, "Phone")), (both_have.clone(), both_have));
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolution_that_dies_is_carried_out_by_the_next_run() {
    for ms in (0..260).step_by(13) {
        let (both, h, s, review) = conflict().await;
        both.wait(60).await;
        let app = both.world.process();
        let work =
            resolve::resolve(&app, &review.id, Choice::Side(Side::Hubspot), both.world.deadline(900), "a person");
        let ended = tokio::time::timeout(Duration::from_millis(ms), work).await;
        drop(ended);
        both.wait(1_800).await;
        both.world.queue.take();
        both.world.resume().await;
        both.done(PEOPLE).await;
        let now = (both.h(&h, "phone"), both.s(&s, "Phone"));
        let chosen = (Some("030 2".to_owned()), Some("030 2".to_owned()));
        let untouched = (Some("030 2".to_owned()), Some("030 1".to_owned()));
        // Died before the choice was stored: the question is still there.
        let waits = now == untouched && both.listed().await.len() == 1;
        assert!((now == chosen && both.listed().await.is_empty()) || waits, "{ms} ms: {now:?} {:?}", both.reviews());
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_choice_while_a_run_is_at_work_waits_for_the_next() {
    let (both, h, s, review) = conflict().await;
    both.world.org.borrow_mut().change_settings(|settings| settings.latency_ms = 5_000);
    let run = both.world.handle(event(PEOPLE));
    let choice = async {
        both.world.clock.sleep(Duration::from_secs(2)).await;
        let app = both.world.process();
        resolve::resolve(&app, &review.id, Choice::Side(Side::Hubspot), both.world.deadline(900), "a person")
            .await
            .unwrap()
    };
    let (run, resolved) = futures_util::future::join(run, choice).await;
    report(run.unwrap());
    assert!(matches!(resolved, Resolved::Waits(_)), "{resolved:?}");
    both.done(PEOPLE).await;
    let chosen = Some("030 2".to_owned());
    assert_eq!((both.h(&h, "phone"), both.s(&s, "Phone")), (chosen.clone(), chosen));
    assert!(both.listed().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_settled_as_a_person_says() {
    for deleted_in in [Side::Hubspot, Side::Salesforce] {
        for choice in [Choice::Side(deleted_in), Choice::Side(deleted_in.other()), Choice::Keep] {
            let both = Both::people(&FIELDS, "");
            let (h, s) = both.linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "030 1")]).await;
            let now = both.world.clock.now();
            match deleted_in {
                Side::Hubspot => assert!(both.world.portal.borrow_mut().set_archived(now, "contacts", &h, true)),
                Side::Salesforce => assert!(both.world.org.borrow_mut().delete(now, "Contact", &s)),
            }
            both.done(PEOPLE).await;
            let review = both.listed().await.remove(0);
            assert_eq!(review.kind, ReviewKind::Delete);
            let resolved = both.resolve(&review.id, choice.clone()).await;
            let case = format!("deleted in {deleted_in:?}, {choice:?}: {resolved:?}");
            assert!(matches!(resolved, Resolved::Applied(_)), "{case}");
            let counts = (both.h_count(), both.s_count());
            let one_is_left = if deleted_in == Side::Hubspot { (0, 1) } else { (1, 0) };
            match choice {
                Choice::Side(side) if side == deleted_in => assert_eq!(counts, (0, 0), "{case}"),
                Choice::Side(_) => {
                    assert_eq!(counts, (1, 1), "{case}");
                    assert_eq!(both.links().len(), 1, "{case}");
                }
                _ => assert_eq!(counts, one_is_left, "{case}"),
            }
            assert!(both.listed().await.is_empty(), "{case}");
            both.assert_quiet(PEOPLE).await;
            assert!(both.listed().await.is_empty(), "{case}: it does not come back");
            if choice == Choice::Side(deleted_in.other()) {
                let (h, s) = both.links().remove(0);
                both.h_edit(&h, &[("phone", "030 5")]);
                both.done(PEOPLE).await;
                assert_eq!(both.s(&s, "Phone").as_deref(), Some("030 5"), "{case}: they are in step again");
                both.assert_quiet(PEOPLE).await;
            }
        }
    }
}

/// One contact in HubSpot, two in Salesforce with its address.
async fn doubtful() -> (Both, String, [String; 2]) {
    let both = Both::people(&FIELDS, "");
    let h = both.h_create(&[("email", "shared@example.com"), ("lastname", "Same")]);
    let a = both.s_create(&[("Email", "shared@example.com"), ("LastName", "Same"), ("Phone", "030 1")]);
    let b = both.s_create(&[("Email", "shared@example.com"), ("LastName", "Same"), ("Phone", "030 2")]);
    both.done(PEOPLE).await;
    (both, h, [a, b])
}

#[tokio::test(start_paused = true)]
async fn of_several_records_with_one_address_the_one_that_a_person_names_is_linked() {
    let (both, h, [_, b]) = doubtful().await;
    let listed = both.listed().await;
    let review = listed.iter().find(|review| review.hubspot_id.as_ref() == Some(&h) || review.candidates.contains(&h));
    let review = review.unwrap_or_else(|| panic!("{listed:?}")).clone();
    // Whichever way the review looks at it: the id of the record on the other side.
    let (id, value) = match review.candidates_of {
        Some(Side::Salesforce) => (review.id.clone(), b.clone()),
        _ => {
            let of_b = listed.iter().find(|review| review.salesforce_id.as_ref().is_some_and(|id| id.as_str() == b));
            (of_b.unwrap_or_else(|| panic!("{listed:?}")).id.clone(), h.clone())
        }
    };
    let resolved = both.resolve(&id, Choice::Value(value)).await;
    assert!(matches!(resolved, Resolved::Applied(_)), "{resolved:?}");
    assert_eq!(both.links(), [(h.clone(), b.clone())]);
    assert_eq!(both.h(&h, "phone").as_deref(), Some("030 2"));
    assert_eq!((both.h_count(), both.s_count()), (1, 2));
    both.done(PEOPLE).await;
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_a_person_wants_left_alone_is_left_alone_for_good() {
    let (both, ..) = doubtful().await;
    for _ in 0..5 {
        let Some(review) = both.listed().await.first().cloned() else { break };
        let resolved = both.resolve(&review.id, Choice::Keep).await;
        assert!(matches!(resolved, Resolved::Applied(_)), "{resolved:?}");
    }
    assert!(both.listed().await.is_empty(), "{:?}", both.listed().await);
    both.assert_quiet(PEOPLE).await;
    assert!(both.listed().await.is_empty());
    assert!(both.links().is_empty());
    assert_eq!((both.h_count(), both.s_count()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_as_an_answer_is_refused_with_what_would() {
    let (both, ..) = doubtful().await;
    let review = both.listed().await.remove(0);
    let app = both.world.process();
    let error = resolve::resolve(&app, &review.id, Choice::Side(Side::Hubspot), both.world.deadline(900), "a person")
        .await
        .unwrap_err();
    assert_eq!(error.code().as_str(), "REVIEW_INVALID");
    let error = resolve::show(&app, "nosuchid").await.unwrap_err();
    assert_eq!(error.code().as_str(), "REVIEW_INVALID");
    // An id that is none of the other side's.
    let resolved =
        resolve::resolve(&app, &review.id, Choice::Value("nonsense".to_owned()), both.world.deadline(900), "a person")
            .await;
    assert!(!matches!(resolved, Ok(Resolved::Applied(_))), "{resolved:?}");
    assert!(both.links().is_empty());
    assert!(!both.listed().await.is_empty(), "the question is still there");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_listed_with_who_refused_what_and_why() {
    let both = Both::people(&FIELDS, "");
    let h = both.h_create(&[("email", "nameless@example.com")]);
    both.done(PEOPLE).await;
    let refused = resolve::refused(&both.world.process(), Some(PEOPLE)).await.unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let (name, one) = &refused[0];
    assert_eq!((name.as_str(), one.hubspot_id.as_ref(), one.by), (PEOPLE, Some(&h), Side::Salesforce));
    assert_eq!(one.code, "REQUIRED_FIELD_MISSING");
    assert!(!one.reason.is_empty() && !one.hint.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_plan_writes_nothing_anywhere_and_the_next_run_does_what_it_says() {
    let both = survival::work().await;
    both.mark();
    // How much of the account's limit is used is kept there, whoever uses it.
    let kept = || {
        let mut table = both.world.table.snapshot();
        table.retain(|key, _| !key.pk.starts_with("limit#"));
        table
    };
    let (table, files) = (kept(), both.world.objects.clone());
    let requests = {
        use hubferry::objects::Objects as _;
        files.requests()
    };
    let (steps, totals) = both.plan(PEOPLE).await;
    assert_eq!(both.writes(), (vec![], vec![]), "a plan wrote to a system");
    assert_eq!(kept(), table, "a plan wrote to the table");
    {
        use hubferry::objects::Objects as _;
        assert_eq!(files.requests(), requests, "a plan wrote a file");
    }
    let (again, totals_again) = both.plan(PEOPLE).await;
    assert_eq!((&steps, totals.hubspot, totals.salesforce), (&again, totals_again.hubspot, totals_again.salesforce));
    assert_eq!(totals.over, None);
    let of = |side: Side, operation: Operation| {
        steps.iter().filter(|step| step.side == side && step.operation == operation).count() as u64
    };
    let report = both.run(PEOPLE).await;
    let done = told(&report);
    for (side, planned, done) in
        [(Side::Hubspot, totals.hubspot, done.hubspot), (Side::Salesforce, totals.salesforce, done.salesforce)]
    {
        assert_eq!(planned.created, done.created, "{side:?} created {steps:#?}");
        assert_eq!(planned.deleted, done.deleted, "{side:?} deleted {steps:#?}");
        assert_eq!(planned.blanked, done.blanked, "{side:?} blanked {steps:#?}");
        assert_eq!(planned.updated, done.updated, "{side:?} updated {steps:#?}");
        assert_eq!(of(side, Operation::Create), done.created, "{side:?}");
        assert_eq!(of(side, Operation::Delete), done.deleted, "{side:?}");
    }
    // Field by field: old and new, and why.
    let edited =
        steps.iter().flat_map(|step| &step.fields).find(|field| field.new.as_deref() == Some("FromSalesforce"));
    let edited = edited.unwrap();
    assert_eq!((edited.hubspot.as_str(), edited.salesforce.as_str()), ("lastname", "LastName"));
    assert_eq!(edited.old.as_deref(), Some("Old"));
    assert!(steps.iter().all(|step| !step.why.is_empty()));
    // And then there is nothing to plan.
    both.done(PEOPLE).await;
    both.wait(60).await;
    let (steps, totals) = both.plan(PEOPLE).await;
    let nothing = steps.iter().all(|step| step.operation == Operation::Review);
    assert!(nothing && totals.hubspot.created + totals.salesforce.created == 0, "{steps:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_where_a_run_would_stop_and_what_waits_or_is_refused() {
    let both = Both::people(&FIELDS, "limits: { creates: 2, updates: 10, blanks: 10, deletes: 1 }\n");
    for at in 0..3 {
        both.s_create(&[("LastName", "Many"), ("Email", &format!("m{at}@example.com"))]);
    }
    both.h_create(&[("email", "shared@example.com"), ("lastname", "Here")]);
    both.s_create(&[("Email", "shared@example.com"), ("LastName", "A")]);
    both.s_create(&[("Email", "shared@example.com"), ("LastName", "B")]);
    both.wait(60).await;
    let (steps, totals) = both.plan(PEOPLE).await;
    assert!(totals.over.as_ref().is_some_and(|over| over.contains("creates")), "{totals:?}");
    assert_eq!(totals.hubspot.created, 3, "{steps:#?}");
    assert!(totals.reviews >= 1 && steps.iter().any(|step| step.operation == Operation::Review), "{steps:#?}");
    let report = both.sync(PEOPLE).await;
    assert_eq!(report.outcome, hubferry::report::Outcome::Aborted, "{}", super::brief(&report));
    assert_eq!((both.h_count(), both.s_count()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn setup_says_what_is_missing_and_makes_the_property_in_hubspot_when_asked() {
    let (mut portal, org) = (portal_settings(), org_settings());
    portal.properties.get_mut("contacts").unwrap().retain(|one| one.name != "sf_contact_id_ext");
    let both = Both::with(&Config::people(&FIELDS, WIDE), portal, org);
    let setup = sync::setup::setup(&both.world.process(), PEOPLE, false, both.world.deadline(900)).await.unwrap();
    assert_eq!((&setup.hubspot, &setup.salesforce, setup.created), (&Need::Missing, &Need::Fine, false));
    assert_eq!(
        (setup.hubspot_property.as_str(), setup.salesforce_field.as_str()),
        ("sf_contact_id_ext", "HubSpot_Contact_Id__c")
    );
    let setup = sync::setup::setup(&both.world.process(), PEOPLE, true, both.world.deadline(900)).await.unwrap();
    assert!(setup.created, "{setup:?}");
    both.wait(5).await;
    let setup = sync::setup::setup(&both.world.process(), PEOPLE, true, both.world.deadline(900)).await.unwrap();
    assert_eq!((&setup.hubspot, setup.created), (&Need::Fine, false), "{setup:?}");
    let s = both.s_create(&[("LastName", "Dyer"), ("Email", "d@example.com")]);
    both.done(PEOPLE).await;
    assert!(both.h_twin(&s).is_some());
    both.assert_quiet(PEOPLE).await;
}
