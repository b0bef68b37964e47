use std::collections::BTreeSet;

use hubferry::{
    ErrorKind,
    clock::Deadline,
    codes,
    hubspot::associations::{AssociationType, Links, PairVerdict},
};
use hubferry_simulator::hubspot::{Fault, What};

use super::*;

/// The labels of a pair, sorted.
async fn labels(account: &Account, near: &str, far: &str) -> Vec<String> {
    let ids = BTreeSet::from([near.to_owned()]);
    let links = account.associations(&object("contacts"), &object("companies"), &ids, Deadline::NONE).await.unwrap();
    let types = links.get(near).and_then(|ends| ends.get(far)).cloned().unwrap_or_default();
    let mut labels: Vec<String> = types.into_iter().filter_map(|one| one.label).collect();
    labels.sort();
    labels
}

async fn label(account: &Account, name: &str) -> AssociationType {
    let (from, to) = (object("contacts"), object("companies"));
    let body = serde_json::json!({ "label": name, "name": name.to_lowercase() }).to_string();
    account
        .call(Call::post(account.paths().associations(&from, &to, "labels"), body.into()), Deadline::NONE)
        .await
        .unwrap();
    account.association_type(&from, &to, &name.to_uppercase(), Deadline::NONE).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pairs_are_associated_through_every_fault_and_the_bad_ones_are_told() {
    for seed_of_world in 1..=3 {
        let world = portal(true, seed_of_world);
        let account = account(&world);
        let company = seed(&world, "companies", &[("domain", "c.io")]);
        let mut pairs: Vec<(String, String)> = (0..1_300)
            .map(|n| (seed(&world, "contacts", &[("email", &format!("p{n}@x.io"))]), company.clone()))
            .collect();
        let good = pairs.clone();
        pairs.insert(700, ("no-id".to_owned(), company.clone()));
        pairs.insert(13, (pairs[0].0.clone(), "999999999".to_owned()));
        pairs.push(pairs[0].clone());
        let (from, to) = (object("contacts"), object("companies"));
        let verdicts = account.associate(&from, &to, None, &pairs, Deadline::NONE).await.unwrap();
        for (pair, verdict) in pairs.iter().zip(&verdicts) {
            match verdict {
                PairVerdict::Made => assert!(good.contains(pair)),
                PairVerdict::Refused(reason) => {
                    assert!(pair.0 == "no-id" || pair.1 == "999999999", "{pair:?} {reason:?}");
                    assert_eq!(&*reason.code, "ASSOCIATION_FAILED");
                    assert!(!reason.reason.contains("999999999") && !reason.reason.contains("no-id"), "{reason:?}");
                }
                PairVerdict::Unknown => panic!("{pair:?}"),
            }
        }
        assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, PairVerdict::Refused(_))).count(), 2);
        assert!(calls(&world, "associate/default") <= 15, "{}", calls(&world, "associate/default"));
        let state = world.portal.borrow().state();
        assert!(state["contacts"].iter().all(|contact| contact.contains_key("associations")));
        // Once more: nothing changes.
        account.associate(&from, &to, None, &pairs, Deadline::NONE).await.unwrap();
        assert_eq!(world.portal.borrow().state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_labelled_write_keeps_the_other_labels_and_what_is_there_already_costs_no_write() {
    let world = portal(false, 4);
    let account = account(&world);
    let (near, far) =
        (seed(&world, "contacts", &[("email", "a@x.io")]), seed(&world, "companies", &[("domain", "c.io")]));
    let other = seed(&world, "contacts", &[("email", "b@x.io")]);
    let (billing, decider) = (label(&account, "Billing contact").await, label(&account, "Decision maker").await);
    let (from, to) = (object("contacts"), object("companies"));
    let pair = [(near.clone(), far.clone())];
    assert_eq!(
        account.associate(&from, &to, Some(&billing), &pair, Deadline::NONE).await.unwrap(),
        [PairVerdict::Made]
    );
    let both = [(near.clone(), far.clone()), (other.clone(), far.clone())];
    let made = account.associate(&from, &to, Some(&decider), &both, Deadline::NONE).await.unwrap();
    assert_eq!(made, [PairVerdict::Made, PairVerdict::Made]);
    assert_eq!(labels(&account, &near, &far).await, ["Billing contact", "Decision maker", "Primary"]);
    assert_eq!(labels(&account, &other, &far).await, ["Decision maker", "Primary"]);
    let writes = calls(&world, "associations/2026-09/contacts/companies/batch/create");
    assert_eq!(
        account.associate(&from, &to, Some(&billing), &pair, Deadline::NONE).await.unwrap(),
        [PairVerdict::Made]
    );
    assert_eq!(calls(&world, "associations/2026-09/contacts/companies/batch/create"), writes);
}

#[tokio::test(start_paused = true)]
async fn labels_survive_faults_in_reads_and_writes() {
    let world = portal(true, 5);
    let account = account(&world);
    let (first, second) = (label(&account, "First").await, label(&account, "Second").await);
    let (from, to) = (object("contacts"), object("companies"));
    let company = seed(&world, "companies", &[("domain", "c.io")]);
    let pairs: Vec<_> =
        (0..60).map(|n| (seed(&world, "contacts", &[("email", &format!("p{n}@x.io"))]), company.clone())).collect();
    for lot in pairs.chunks(3) {
        for one in [&first, &second, &first] {
            let verdicts = account.associate(&from, &to, Some(one), lot, Deadline::NONE).await.unwrap();
            assert!(verdicts.iter().all(|verdict| *verdict == PairVerdict::Made), "{verdicts:?}");
        }
    }
    world.portal.borrow_mut().clear_faults();
    for (near, far) in &pairs {
        let labels = labels(&account, near, far).await;
        assert!(labels.contains(&"First".to_owned()) && labels.contains(&"Second".to_owned()), "{labels:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_label_names_the_nearest_and_an_unknown_type_ends_the_run() {
    let world = portal(false, 6);
    let account = account(&world);
    label(&account, "Billing contact").await;
    let (from, to) = (object("contacts"), object("companies"));
    let error = account.association_type(&from, &to, "Biling contact", Deadline::NONE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::MAPPING_INVALID));
    assert!(error.message().contains("there are: Billing contact"), "{error}");
    let near = seed(&world, "contacts", &[("email", "a@x.io")]);
    let far = seed(&world, "companies", &[("domain", "c.io")]);
    let bogus = AssociationType { category: "USER_DEFINED".to_owned(), type_id: 4, label: None };
    let error = account.associate(&from, &to, Some(&bogus), &[(near, far)], Deadline::NONE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::MAPPING_INVALID));
}

#[tokio::test(start_paused = true)]
async fn a_pair_and_its_mirror_between_two_types_are_two_pairs() {
    let world = portal(false, 7);
    let account = account(&world);
    // Ids of one portal are never equal here, so the mirror of a good pair is one that cannot be made.
    let (near, far) =
        (seed(&world, "contacts", &[("email", "a@x.io")]), seed(&world, "companies", &[("domain", "c.io")]));
    let pairs = [(near.clone(), far.clone()), (far, near)];
    let verdicts =
        account.associate(&object("contacts"), &object("companies"), None, &pairs, Deadline::NONE).await.unwrap();
    assert!(matches!(verdicts.as_slice(), [PairVerdict::Made, PairVerdict::Refused(_)]), "{verdicts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_over_many_records_tells_all_associations_through_every_fault_and_keeps_calls_under_way() {
    let world = portal(true, 9);
    let account = account(&world);
    let company = seed(&world, "companies", &[("domain", "c.io")]);
    let ids: BTreeSet<String> = (0..6_000).map(|n| seed(&world, "contacts", &[("lastname", &n.to_string())])).collect();
    let (from, to) = (object("contacts"), object("companies"));
    let pairs: Vec<(String, String)> = ids.iter().step_by(2).map(|id| (id.clone(), company.clone())).collect();
    account.associate(&from, &to, None, &pairs, Deadline::NONE).await.unwrap();
    let linked = |links: Links| {
        assert!(links.values().all(|ends| ends.len() == 1 && ends.contains_key(&company)));
        links.into_keys().collect::<BTreeSet<String>>()
    };
    let expected: BTreeSet<String> = pairs.into_iter().map(|(near, _)| near).collect();
    assert_eq!(linked(account.associations(&from, &to, &ids, Deadline::NONE).await.unwrap()), expected);
    world.portal.borrow_mut().clear_faults();
    world.portal.borrow_mut().configure(|settings| settings.latency.fixed_ms = 1_000);
    let (before, started) = (calls(&world, "companies/batch/read"), world.clock.elapsed());
    assert_eq!(linked(account.associations(&from, &to, &ids, Deadline::NONE).await.unwrap()), expected);
    // One after the other they would take six seconds.
    let took = world.clock.elapsed() - started;
    assert!(calls(&world, "companies/batch/read") - before == 6 && took.as_secs() < 4, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_not_an_association() {
    let world = portal(false, 8);
    world.portal.borrow_mut().add_fault(Fault::always(What::EmptyResults).on("associate/default"));
    let account = account(&world);
    let pair = [(seed(&world, "contacts", &[("email", "a@x.io")]), seed(&world, "companies", &[("domain", "c.io")]))];
    let verdicts =
        account.associate(&object("contacts"), &object("companies"), None, &pair, Deadline::NONE).await.unwrap();
    assert_eq!(verdicts, [PairVerdict::Unknown]);
}
