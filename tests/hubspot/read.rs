use std::collections::BTreeSet;

use hubferry::{ErrorKind, clock::Deadline, codes};
use hubferry_simulator::hubspot::{Fault, What};

use super::*;

#[tokio::test(start_paused = true)]
async fn every_key_gets_its_record_whatever_its_case_and_missing_ones_get_none() {
    let world = portal(false, 1);
    let ada = seed(&world, "contacts", &[("email", "ada@x.io"), ("firstname", "Ada")]);
    let bob = seed(&world, "contacts", &[("email", "bob@x.io"), ("hs_additional_emails", "old-bob@x.io;bob2@x.io")]);
    let gone = seed(&world, "contacts", &[("email", "gone@x.io")]);
    world.portal.borrow_mut().set_archived(world.clock.now(), "contacts", &gone, true);
    let keys =
        texts(&["nobody@x.io", " ADA@x.io", "old-bob@x.io", "bob@x.io", "ada@x.io", "gone@x.io", "", "Bob2@x.io"]);
    let account = account(&world);
    let found = account
        .read(&object("contacts"), Some("email"), &keys, &names(&["firstname", "lastname"]), None, Deadline::NONE)
        .await
        .unwrap();
    let ids: Vec<_> = found.iter().map(|found| found.as_ref().map(|found| found.id.as_str())).collect();
    let (ada, bob) = (Some(ada.as_str()), Some(bob.as_str()));
    assert_eq!(ids, [None, ada, bob, bob, ada, None, None, bob]);
    let record = found[1].as_ref().unwrap();
    assert_eq!((record.value("firstname"), record.properties.get("lastname")), (Some("Ada"), Some(&None)));
    assert!(record.updated_at.is_some() && !record.properties.contains_key("hs_additional_emails"), "{record:?}");
    assert_eq!(calls(&world, "batch/read"), 1);
}

#[tokio::test(start_paused = true)]
async fn two_thousand_keys_are_read_in_order_through_every_fault() {
    for seed_of_world in 1..=3 {
        let world = portal(true, seed_of_world);
        let mut keys = Vec::new();
        for n in 0..2_000 {
            if n % 3 != 0 {
                let (primary, secondary) = (format!("p{n}@x.io"), format!("s{n}@x.io"));
                seed(
                    &world,
                    "contacts",
                    &[("email", &primary), ("hs_additional_emails", &secondary), ("firstname", &n.to_string())],
                );
            }
            keys.push(if n % 2 == 0 { format!("p{n}@x.io") } else { format!("S{n}@x.io") });
        }
        let account = account(&world);
        let found = account
            .read(&object("contacts"), Some("email"), &keys, &names(&["firstname"]), None, Deadline::NONE)
            .await
            .unwrap();
        for (n, found) in found.iter().enumerate() {
            let name = found.as_ref().and_then(|found| found.value("firstname"));
            assert_eq!(name, (n % 3 != 0).then(|| n.to_string()).as_deref(), "{n}");
        }
        assert_eq!(account.counts().total as usize, world.portal.borrow().counts().requests as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn a_merged_record_is_found_by_its_old_id_and_keys_in_two_spellings_are_two() {
    let world = portal(false, 4);
    let (winner, loser) = (seed(&world, "companies", &[("name", "A")]), seed(&world, "companies", &[("name", "B")]));
    let account = account(&world);
    let companies = object("companies");
    let body = serde_json::json!({ "primaryObjectId": winner, "objectIdToMerge": loser }).to_string();
    account.call(Call::post(account.paths().objects(&companies, "merge"), body.into()), Deadline::NONE).await.unwrap();
    let present = world.portal.borrow().records("companies").next().unwrap()["hs_object_id"].clone();
    let found = account.read(&companies, None, &[loser, winner], &[], None, Deadline::NONE).await.unwrap();
    assert!(found.iter().all(|found| found.as_ref().is_some_and(|found| found.id == present)), "{found:?}");
    // Whether a unique text property minds the case is HubSpot's business: each spelling gets its own answer.
    world
        .portal
        .borrow_mut()
        .define_property("companies", hubferry_simulator::hubspot::PropertyDefinition::new("code", "string").unique());
    let (upper, lower) =
        (seed(&world, "companies", &[("code", "AB-1")]), seed(&world, "companies", &[("code", "ab-1")]));
    let found =
        account.read(&companies, Some("code"), &texts(&["ab-1", "AB-1"]), &[], None, Deadline::NONE).await.unwrap();
    assert_eq!(found.iter().flatten().map(|found| found.id.clone()).collect::<Vec<_>>(), [lower, upper]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_never_taken_for_missing_and_a_key_that_is_not_unique_is_said_so() {
    let world = portal(false, 5);
    seed(&world, "contacts", &[("email", "a@x.io")]);
    world.portal.borrow_mut().add_fault(Fault::always(What::EmptyResults).on("batch/read"));
    let account = account(&world);
    let read = account.read(&object("contacts"), Some("email"), &texts(&["a@x.io"]), &[], None, Deadline::NONE).await;
    let error = read.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE));
    assert!(!error.message().contains("a@x.io"));
    world.portal.borrow_mut().clear_faults();
    let read = account.read(&object("companies"), Some("domain"), &texts(&["x.io"]), &[], None, Deadline::NONE).await;
    assert_eq!(read.unwrap_err().code(), codes::KEY_NOT_UNIQUE);
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_every_record_once_through_every_fault() {
    let world = portal(true, 6);
    let mut expected: BTreeSet<String> =
        (0..730).map(|n| seed(&world, "companies", &[("name", &n.to_string())])).collect();
    let archived = expected.pop_first().unwrap();
    world.portal.borrow_mut().set_archived(world.clock.now(), "companies", &archived, true);
    let account = account(&world);
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page =
            account.list(&object("companies"), &names(&["name"]), after.as_deref(), Deadline::NONE).await.unwrap();
        seen.extend(page.records.iter().map(|found| found.id.clone()));
        assert!(page.records.iter().all(|found| found.value("name").is_some()));
        pages += 1;
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (729, 8));
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
}
