use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hubferry::{
    ErrorKind, Result,
    clock::Deadline,
    codes,
    hubspot::{
        records::{Wanted, names_fit},
        resources::{CrmResource, Resource},
    },
};
use hubferry_simulator::hubspot::{Fault, What};
use jiff::{Timestamp, ToSpan};

use super::{
    fake::{Fake, Order, numbers, text},
    *,
};

fn crm(name: &str) -> CrmResource {
    match Resource::parse(name).unwrap() {
        Resource::Crm(resource) => resource,
        Resource::Cms(resource) => panic!("{resource:?}"),
    }
}

fn wanted(properties: &[&str]) -> Wanted {
    Wanted { properties: names(properties), history: false, archived: false }
}

/// All ids that a window shows, in the order they come, and the number of pages.
async fn all_changed(
    account: &Account,
    resource: &CrmResource,
    from: Timestamp,
    until: Timestamp,
) -> Result<(Vec<String>, usize)> {
    let (mut ids, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = account.changed(resource, from, Some(until), after.as_deref(), Deadline::NONE).await?;
        pages += 1;
        after = page.ids.last().map(|(id, _)| id.clone()).or(after);
        ids.extend(page.ids.into_iter().map(|(id, _)| id));
        if page.is_last {
            return Ok((ids, pages));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_five_thousand_records_of_one_millisecond_are_all_found_each_once() {
    let world = portal(true, 11);
    let at = world.clock.now();
    let mut expected = BTreeSet::new();
    for n in 0..25_000 {
        expected.insert(seed(&world, "companies", &[("name", &n.to_string())]));
    }
    assert_eq!(world.clock.now(), at);
    world.clock.sleep(Duration::from_secs(5)).await;
    seed(&world, "companies", &[("name", "later")]);
    let account = account(&world);
    let (from, until) = (at, at + 1.millisecond());
    let (ids, pages) = all_changed(&account, &crm("companies"), from, until).await.unwrap();
    assert_eq!(ids.len(), 25_000);
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(pages, 125);
    assert_eq!(account.counts().search, account.counts().total);
    // Half open: what changed at `until` belongs to the next window.
    let next = account
        .changed(&crm("companies"), until, Some(world.clock.now() + 1.millisecond()), None, Deadline::NONE)
        .await
        .unwrap();
    assert_eq!((next.ids.len(), next.total, next.is_last), (1, 1, true));
    assert!(next.ids[0].1.is_some_and(|changed| changed >= until), "{next:?}");
    let none = account.changed(&crm("companies"), until, Some(until), None, Deadline::NONE).await.unwrap();
    assert!(none.ids.is_empty() && none.is_last);
}

#[tokio::test(start_paused = true)]
async fn ids_are_followed_in_the_order_of_the_server_and_two_orders_at_once_are_refused() {
    let world = fake::world();
    // Of one to six digits, so that the orders differ.
    let ids: Vec<u64> = (0..2_000).map(|n| 7 + n * n / 5 + n).collect();
    let run = async |sort: Order, filter: Order| {
        let mut fake = Fake::new(&world, ids.clone());
        (fake.sort, fake.filter) = (sort, filter);
        let account = fake::account(&world, Rc::new(fake));
        all_changed(&account, &crm("contacts"), Timestamp::UNIX_EPOCH, Timestamp::MAX).await
    };
    for order in [numbers as Order, text] {
        let (found, pages) = run(order, order).await.unwrap();
        let mut expected = ids.clone();
        expected.sort_by(|left, right| order(*left, *right));
        assert_eq!(found, expected.iter().map(u64::to_string).collect::<Vec<_>>());
        assert_eq!(pages, 10);
    }
    for (sort, filter) in [(numbers as Order, text as Order), (text, numbers)] {
        let error = run(sort, filter).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::HUBSPOT_ANSWER_UNREADABLE));
    }
    // Each page is in both orders, and the pages behind the first would be missing.
    let mut fake = Fake::new(&world, (999_999_601..=1_000_000_000).chain(1_000_000_001..1_000_000_300).collect());
    fake.filter = text;
    let account = fake::account(&world, Rc::new(fake));
    let found = all_changed(&account, &crm("contacts"), Timestamp::UNIX_EPOCH, Timestamp::MAX).await;
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
    fn scrambled(left: u64, right: u64) -> std::cmp::Ordering {
        (left % 97).cmp(&(right % 97))
    }
    assert_eq!(run(scrambled, numbers).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test(start_paused = true)]
async fn a_search_that_counts_records_and_shows_none_is_asked_again_and_never_the_end() {
    let world = fake::world();
    let fake = Rc::new(Fake::new(&world, (1..=50).collect()));
    let account = fake::account(&world, fake.clone());
    let changed = async || account.changed(&crm("contacts"), Timestamp::UNIX_EPOCH, None, None, Deadline::NONE).await;
    fake.hides.set(2);
    let page = changed().await.unwrap();
    assert_eq!((page.ids.len(), page.is_last), (50, true));
    fake.hides.set(u32::MAX);
    let error = changed().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE));
    assert_eq!(account.largest_id(&object("contacts"), Deadline::NONE).await.unwrap(), None);
    fake.hides.set(0);
    assert_eq!(account.largest_id(&object("contacts"), Deadline::NONE).await.unwrap(), Some(50));
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_the_last_id_while_the_end_is_looked_at_is_shown_too() {
    let world = fake::world();
    let fake = Rc::new(Fake::new(&world, (1..=300).collect()));
    let account = fake::account(&world, fake.clone());
    let changed = async |after| {
        account.changed(&crm("contacts"), Timestamp::UNIX_EPOCH, None, Some(after), Deadline::NONE).await.unwrap()
    };
    let late = async {
        // During the search that looks for the end.
        world.clock.sleep(fake.latency * 3 / 2).await;
        fake.ids.borrow_mut().push(301);
    };
    let (page, ()) = tokio::join!(changed("200"), late);
    assert_eq!((page.ids.len(), page.is_last), (100, false));
    let page = changed("300").await;
    assert_eq!((page.ids.len(), page.is_last), (1, true));
    // The last one has left the window: the one before it is the end.
    fake.ids.borrow_mut().retain(|id| *id != 301);
    let page = changed("301").await;
    assert_eq!((page.ids.len(), page.is_last), (0, true));
}

#[tokio::test(start_paused = true)]
async fn records_are_read_by_id_whole_and_the_gone_and_archived_are_absent() {
    let world = portal(true, 12);
    let mut ids = Vec::new();
    for n in 0..350 {
        ids.push(seed(&world, "companies", &[("name", &n.to_string())]));
    }
    let gone = "99".to_owned();
    world.portal.borrow_mut().set_archived(world.clock.now(), "companies", &ids[5], true);
    let (winner, loser) = (ids[10].clone(), ids[11].clone());
    let account = account(&world);
    let companies = object("companies");
    let body = serde_json::json!({ "primaryObjectId": winner, "objectIdToMerge": loser }).to_string();
    account.call(Call::post(account.paths().objects(&companies, "merge"), body.into()), Deadline::NONE).await.unwrap();
    let mut asked = ids.clone();
    asked.extend([gone.clone(), ids[0].clone(), String::new()]);
    let found = account.read_records(&companies, &asked, &wanted(&["name"]), Deadline::NONE).await.unwrap();
    assert_eq!(found.len(), 349);
    assert!(!found.contains_key(&ids[5]) && !found.contains_key(&gone));
    assert_eq!(found[&loser].id, found[&winner].id);
    for (n, id) in ids.iter().enumerate().filter(|(n, _)| ![5, 10, 11].contains(n)) {
        let record = &found[id];
        assert_eq!((record.value("name"), record.archived_at), (Some(n.to_string().as_str()), None));
        assert_eq!(record.object["archived"], false);
        assert!(record.created_at.is_some() && record.updated_at.is_some());
        assert!(record.object["properties"].get("hs_merged_object_ids").is_none(), "{record:?}");
    }
    let archived = Wanted { archived: true, ..wanted(&["name"]) };
    let found = account.read_records(&companies, &asked, &archived, Deadline::NONE).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&ids[5]]);
    assert!(found[&ids[5]].archived_at.is_some());
    // HubSpot's default set, for which nothing may be named.
    let found = account.read_records(&companies, &ids[..3], &Wanted::default(), Deadline::NONE).await.unwrap();
    assert!(found[&ids[0]].object["properties"].get("domain").is_some());
}

#[tokio::test(start_paused = true)]
async fn silence_about_a_record_is_an_error_and_not_its_end() {
    let world = portal(false, 13);
    let id = seed(&world, "contacts", &[("email", "a@x.io")]);
    let account = account(&world);
    let read = async |wanted: Wanted| {
        account.read_records(&object("contacts"), std::slice::from_ref(&id), &wanted, Deadline::NONE).await
    };
    world.portal.borrow_mut().add_fault(Fault::always(What::EmptyResults).on("batch/read"));
    let error = read(wanted(&["email"])).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE));
    world.portal.borrow_mut().clear_faults();
    world.portal.borrow_mut().add_fault(Fault::always(What::Status(400)).on("batch/read"));
    let error = read(wanted(&["email"])).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, codes::HUBSPOT_REFUSED));
}

#[tokio::test(start_paused = true)]
async fn history_comes_newest_first_fifty_a_call_and_without_staying_in_the_record() {
    let world = portal(false, 14);
    let ids: Vec<String> =
        (0..120).map(|n| seed(&world, "contacts", &[("firstname", &format!("first {n}"))])).collect();
    world.clock.sleep(Duration::from_secs(60)).await;
    for (n, id) in ids.iter().enumerate() {
        world.portal.borrow_mut().edit(world.clock.now(), "contacts", id, &[("firstname", &format!("second {n}"))]);
    }
    let account = account(&world);
    let contacts = object("contacts");
    let wanted = Wanted { history: true, ..wanted(&["firstname"]) };
    let read = account.read_records(&contacts, &ids, &wanted, Deadline::NONE).await.unwrap();
    let mut listed = BTreeMap::new();
    let (mut after, mut pages) = (None, 0);
    loop {
        let page = account.list_records(&contacts, &wanted, after.as_deref(), Deadline::NONE).await.unwrap();
        pages += 1;
        assert!(page.records.len() <= 50);
        listed.extend(page.records.into_iter().map(|record| (record.id.clone(), record)));
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((pages, calls(&world, "batch/read"), listed.len()), (3, 3, 120));
    for (n, id) in ids.iter().enumerate() {
        for record in [&read[id], &listed[id]] {
            let past: Vec<_> = record.history["firstname"].iter().map(|past| past.value.as_deref().unwrap()).collect();
            assert_eq!(past, [format!("second {n}"), format!("first {n}")]);
            assert!(!record.object.contains_key("propertiesWithHistory"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_shows_the_bin_alone_and_refuses_more_names_than_fit_an_address() {
    let world = portal(true, 15);
    let ids: Vec<String> = (0..260).map(|n| seed(&world, "contacts", &[("firstname", &n.to_string())])).collect();
    for id in ids.iter().step_by(2) {
        world.portal.borrow_mut().set_archived(world.clock.now(), "contacts", id, true);
    }
    let account = account(&world);
    let contacts = object("contacts");
    let archived = Wanted { archived: true, ..wanted(&["firstname"]) };
    let first = account.list_records(&contacts, &archived, None, Deadline::NONE).await.unwrap();
    let second = account.list_records(&contacts, &archived, first.after.as_deref(), Deadline::NONE).await.unwrap();
    let bin: Vec<&String> = first.records.iter().chain(&second.records).map(|record| &record.id).collect();
    assert_eq!(bin, ids.iter().step_by(2).collect::<Vec<_>>());
    assert!(first.records.iter().all(|record| record.archived_at.is_some()) && second.after.is_none());
    let many: Vec<String> = (0..500).map(|n| format!("property_{n}")).collect();
    let many =
        Wanted { properties: many.iter().map(|name| PropertyName::from(name.as_str())).collect(), ..Wanted::default() };
    assert!(!names_fit(&many));
    let error = account.list_records(&contacts, &many, None, Deadline::NONE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::HUBSPOT_REFUSED));
}
