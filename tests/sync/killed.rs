//! Killed anywhere while people are asked and answer: what is asked, answered, refused and merged ends as in a clean run.

use std::{collections::BTreeMap, time::Duration};

use hubferry::{
    clock::Clock as _,
    objects::{Location, Objects as _},
    sync::{
        model::{Choice, Review, ReviewKind, Side},
        resolve::{self, Resolved},
        reviews::Reviews,
    },
};
use hubferry_simulator::salesforce::{Test, ValidationRule};

use super::{
    BIO, Both, Config, EMAIL, FIRST, LAST, PEOPLE, PHONE, TITLE, WIDE, org_settings, portal_settings,
    survival::{Shown, settle, shown},
};
use crate::support::BUCKET;

const FIELDS: [&str; 6] = [EMAIL, FIRST, LAST, PHONE, TITLE, BIO];

/// Quick doors, and an org that takes no description with the word `forbidden`.
fn quick() -> Both {
    let mut portal = portal_settings();
    portal.latency.fixed_ms = 2;
    let mut org = org_settings();
    org.latency_ms = 2;
    org.validation.push(ValidationRule {
        object: "Contact".to_owned(),
        field: "Description".to_owned(),
        refuse_if: Test::Contains("forbidden".to_owned()),
        message: "Not that word.".to_owned(),
    });
    Both::with(&Config::people(&FIELDS, &format!("deletes: review\n{WIDE}")), portal, org)
}

/// Pairs about which there is every kind of question: one that waits, one that was answered a moment ago, and those that the next run
/// comes upon; and a value that is refused.
async fn doubts() -> Both {
    let both = quick();
    let mut pairs = Vec::new();
    for at in 0..9 {
        let email = format!("p{at}@example.com");
        pairs.push(both.s_create(&[
            ("LastName", "Old"),
            ("Email", &email),
            ("Phone", "030 0"),
            ("Description", "old"),
        ]));
    }
    both.done(PEOPLE).await;
    both.wait(7_200).await;
    let s = |at: usize| pairs[at].clone();
    let twins: Vec<String> = pairs.iter().map(|s| both.h_twin(s).unwrap()).collect();
    let h = |at: usize| twins[at].clone();
    let conflict = |at: usize| {
        both.s_edit(&s(at), &[("Phone", "030 1")]);
        both.h_edit(&h(at), &[("phone", "030 2")]);
    };
    conflict(0);
    conflict(1);
    both.done(PEOPLE).await;
    // A person answers the second while no process is there to carry it out.
    let store = Reviews::new(both.world.table.clone(), both.world.rng.clone(), PEOPLE);
    let reviews = resolve::list(&both.world.process(), None).await.unwrap();
    let review = reviews.into_iter().find(|review| review.hubspot_id == Some(h(1))).unwrap();
    assert!(store.choose(&review.id, Choice::Side(Side::Hubspot), &review).await.unwrap());
    conflict(2);
    let now = both.world.clock.now();
    assert!(both.world.portal.borrow_mut().merge(now, "contacts", &h(3), &h(4)));
    assert!(both.world.org.borrow_mut().merge(now, "Contact", &s(5), &[&s(6)]));
    both.h_edit(&h(7), &[("bio", "forbidden")]);
    assert!(both.world.org.borrow_mut().delete(now, "Contact", &s(8)));
    both.wait(60).await;
    both
}

/// What people see in the end.
#[derive(Debug, PartialEq)]
struct End {
    shown: Shown,
    asked: Vec<(ReviewKind, Option<String>)>,
    refused: Vec<(Option<String>, String)>,
    links: usize,
    /// How often each refusal is listed in rejects files.
    listed: BTreeMap<String, usize>,
}

async fn end(both: &Both) -> End {
    let mut asked: Vec<_> =
        both.reviews().into_iter().map(|review| (review.kind, review.field.map(|field| field.key))).collect();
    asked.sort();
    let mut listed: BTreeMap<String, usize> = BTreeMap::new();
    for location in both.world.objects.list(&Location::new(BUCKET, "rejects/")).await.unwrap() {
        let text = both.world.text(&location.to_string()).unwrap();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            *listed.entry(format!("{} {} {}", line["hubspot_id"], line["field"], line["_code"])).or_default() += 1;
        }
    }
    let refused = both.refused().into_iter().map(|one| (one.hubspot_id, one.code)).collect();
    End { shown: shown(both), asked, refused, links: both.links().len(), listed }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_killed_anywhere_asks_what_a_clean_one_asks() {
    use ReviewKind::{Conflict, Delete, Merge};
    let clean = doubts().await;
    let started = clean.world.clock.elapsed();
    clean.run(PEOPLE).await;
    let took = clean.world.clock.elapsed() - started;
    settle(&clean).await;
    let expected = end(&clean).await;
    let kinds: Vec<ReviewKind> = expected.asked.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Conflict, Conflict, Merge, Merge, Delete], "{expected:#?} {:#?}", clean.reviews());
    assert_eq!((expected.refused.len(), expected.listed.len()), (1, 1), "{expected:#?}");
    clean.assert_quiet(PEOPLE).await;
    let steps = u64::try_from(took.as_millis()).unwrap() + 2;
    assert!(steps > 60, "a run of {steps} ms has too few steps to be killed between");
    // A door takes two milliseconds: every fifth one is before, inside or after each of them in turn.
    for step in (0..steps).step_by(5) {
        let both = doubts().await;
        both.sync_until_killed(PEOPLE, Duration::from_millis(step)).await;
        settle(&both).await;
        assert_eq!(end(&both).await, expected, "killed after {step} of {steps} ms");
        if step % 32 == 0 {
            both.assert_quiet(PEOPLE).await;
        }
    }
}

/// A pair with a conflict in this field, as HubSpot and Salesforce have it.
async fn conflict(hubspot: &str, salesforce: &str, field: (&str, &str)) -> (Both, String, String, Review) {
    let both = quick();
    let (h, s) = both
        .linked(&[("LastName", "Dyer"), ("Email", "d@example.com"), ("Phone", "030 0"), ("Description", "old")])
        .await;
    both.h_edit(&h, &[(field.0, hubspot)]);
    both.s_edit(&s, &[(field.1, salesforce)]);
    both.done(PEOPLE).await;
    let review = both.reviews().remove(0);
    both.wait(60).await;
    (both, h, s, review)
}

/// The choice, the field, and what both sides hold when it is carried out; `None` if Salesforce will not take it.
type Case = (Choice, (&'static str, &'static str), Option<&'static str>);

#[tokio::test(start_paused = true)]
async fn a_choice_whose_process_is_killed_anywhere_is_carried_out_or_still_asked_for() {
    let cases: [Case; 3] = [
        (Choice::Side(Side::Hubspot), ("phone", "Phone"), Some("here")),
        (Choice::Value("chosen".to_owned()), ("phone", "Phone"), Some("chosen")),
        (Choice::Value("forbidden".to_owned()), ("bio", "Description"), None),
    ];
    for (choice, field, chosen) in cases {
        let prepared = || conflict("here", "there", field);
        let (clean, _, _, review) = prepared().await;
        let started = clean.world.clock.elapsed();
        let app = clean.world.process();
        resolve::resolve(&app, &review.id, choice.clone(), clean.world.deadline(900), "a person").await.unwrap();
        let steps = u64::try_from((clean.world.clock.elapsed() - started).as_millis()).unwrap() + 2;
        let mut carried_out = 0;
        for step in (0..steps).step_by(5) {
            let (both, h, s, review) = prepared().await;
            let app = both.world.process();
            let work = resolve::resolve(&app, &review.id, choice.clone(), both.world.deadline(900), "a person");
            let ended = tokio::time::timeout(Duration::from_millis(step), work).await;
            drop(ended);
            settle(&both).await;
            let now = (both.h(&h, field.0), both.s(&s, field.1));
            let reviews = both.reviews();
            let place = format!("{choice:?}, killed after {step} of {steps} ms: {now:?} {reviews:?}");
            let text = |text: &str| Some(text.to_owned());
            let waits = now == (text("here"), text("there")) && reviews.len() == 1 && reviews[0].choice.is_none();
            let done = chosen.is_some_and(|chosen| now == (text(chosen), text(chosen))) && reviews.is_empty();
            carried_out += usize::from(done);
            assert!(waits || done, "{place}");
            if step % 32 == 0 {
                both.assert_quiet(PEOPLE).await;
            }
        }
        assert_eq!(carried_out > 0, chosen.is_some(), "{choice:?}: {carried_out} of {steps}");
    }
}

/// A person chooses what a side will not take: the question stays, with what both sides hold now and why.
#[tokio::test(start_paused = true)]
async fn a_choice_that_a_side_will_not_take_leaves_the_question_open_and_says_why() {
    let resolved = async |both: &Both, review: &Review, choice: Choice| {
        both.wait(60).await;
        let app = both.world.process();
        resolve::resolve(&app, &review.id, choice, both.world.deadline(900), "a person").await.unwrap()
    };
    let text = |text: &str| Some(text.to_owned());

    // Salesforce's rule: nothing is written anywhere.
    let (both, h, s, review) = conflict("here", "there", ("bio", "Description")).await;
    let Resolved::Open(now, why) = resolved(&both, &review, Choice::Value("forbidden".to_owned())).await else {
        panic!("it cannot have been carried out");
    };
    assert_eq!((now.kind, now.choice.clone()), (ReviewKind::Conflict, None));
    assert!(now.why.contains("Salesforce refused what was chosen"), "{now:?}");
    assert!(why.iter().any(|note| note.contains("FIELD_CUSTOM_VALIDATION_EXCEPTION")), "{why:?}");
    assert_eq!((both.h(&h, "bio"), both.s(&s, "Description")), (text("here"), text("there")));
    assert!(both.refused().is_empty(), "it is asked, not refused: {:?}", both.refused());
    both.assert_quiet(PEOPLE).await;
    assert_eq!(both.reviews().len(), 1);
    let applied = resolved(&both, &now, Choice::Side(Side::Salesforce)).await;
    assert!(matches!(applied, Resolved::Applied(_)), "{applied:?}");
    assert_eq!(both.h(&h, "bio"), text("there"));
    both.assert_quiet(PEOPLE).await;

    // HubSpot will not have the address: Salesforce has it already, and that is what is shown.
    let (both, h, s, review) = conflict("here@example.com", "there@example.com", ("email", "Email")).await;
    both.world.portal.borrow_mut().block_address("gone@example.com");
    let Resolved::Open(now, _) = resolved(&both, &review, Choice::Value("gone@example.com".to_owned())).await else {
        panic!("it cannot have been carried out");
    };
    assert_eq!((now.kind, now.choice.clone()), (ReviewKind::Conflict, None));
    let field = now.field.clone().unwrap();
    assert_eq!((field.hubspot_value, field.salesforce_value), (both.h(&h, "email"), both.s(&s, "Email")));
    assert_eq!(both.h(&h, "email"), text("here@example.com"));
    both.assert_quiet(PEOPLE).await;
    let applied = resolved(&both, &now, Choice::Side(Side::Hubspot)).await;
    assert!(matches!(applied, Resolved::Applied(_)), "{applied:?}");
    assert_eq!(both.s(&s, "Email"), text("here@example.com"));
    both.assert_quiet(PEOPLE).await;

    // Somebody else has the address.
    let (both, h, _, review) = conflict("here@example.com", "there@example.com", ("email", "Email")).await;
    both.h_create(&[("email", "taken@example.com"), ("lastname", "Other")]);
    let Resolved::Open(now, _) = resolved(&both, &review, Choice::Value("taken@example.com".to_owned())).await else {
        panic!("it cannot have been carried out");
    };
    assert_eq!((now.kind, now.choice.clone()), (ReviewKind::Conflict, None));
    assert!(now.why.contains("HubSpot refused what was chosen"), "{now:?}");
    assert_eq!(both.h(&h, "email"), text("here@example.com"));
}
