use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hubferry::{
    Result,
    clock::Deadline,
    hubspot::{
        records::Wanted,
        scan::{RANGES_MAX, Scan, ScanState, ScannedPage},
    },
};
use hubferry_simulator::hubspot::{Fault, What};

use super::{
    fake::{Cursors, Fake},
    *,
};

fn scan(account: &Rc<Account>, object_type: &str, wanted: &Wanted, state: ScanState) -> Scan {
    Scan::new(account.clone(), object(object_type), wanted.clone(), state, Deadline::NONE)
}

/// Takes every page and counts how often each id came. Saves after each page.
async fn take_all(scan: &mut Scan, seen: &mut BTreeMap<String, u32>) -> Result<usize> {
    let mut pages = 0;
    while let Some(page) = scan.next().await? {
        pages += 1;
        take(scan, page, seen);
    }
    assert!(scan.state().is_done(), "{:?}", scan.state());
    Ok(pages)
}

fn take(scan: &mut Scan, page: ScannedPage, seen: &mut BTreeMap<String, u32>) {
    assert!(!page.records.is_empty());
    for record in &page.records {
        *seen.entry(record.id.clone()).or_default() += 1;
    }
    scan.covered(page.token);
}

fn once(seen: &BTreeMap<String, u32>) -> BTreeSet<u64> {
    assert!(seen.values().all(|times| *times == 1), "listed twice");
    seen.keys().map(|id| id.parse().unwrap()).collect()
}

/// Ids as old accounts have them: dense and sparse stretches, wide gaps, up to twelve digits.
fn old_account() -> Vec<u64> {
    let dense = (1..=40).map(|n| n * 50 + 1);
    let imported = (0..6_000).map(|n| 30_000_000 + n);
    let sparse = (0..400).map(|n| 9_000_000_000 + n * 7_777_777);
    let recent = (0..8_000).map(|n| 171_000_000_000 + n * n / 3 + n);
    dense.chain(imported).chain(sparse).chain(recent).collect()
}

#[tokio::test(start_paused = true)]
async fn ids_with_wide_gaps_are_listed_side_by_side_each_once_and_near_the_limit() {
    let world = fake::world();
    let ids = old_account();
    let fake = Rc::new(Fake::new(&world, ids.clone()));
    let account = fake::account(&world, fake.clone());
    let started = world.clock.elapsed();
    let mut seen = BTreeMap::new();
    let mut scan = scan(&account, "contacts", &Wanted::default(), ScanState::New);
    take_all(&mut scan, &mut seen).await.unwrap();
    assert_eq!(once(&seen), ids.iter().copied().collect());
    // 145 full pages. What is beyond is the price of not knowing where the ids are.
    let took = (world.clock.elapsed() - started).as_secs_f64();
    let calls = fake.calls.get();
    assert!(calls < 145 + 145, "{calls} calls in {took} s");
    let a_second = calls as f64 / took;
    assert!(a_second > 12.0, "{calls} calls in {took} s");
    assert!((4..=32).contains(&fake.most_under_way.get()), "{}", fake.most_under_way.get());
}

#[tokio::test(start_paused = true)]
async fn a_portal_is_listed_through_every_fault_each_record_once() {
    for seed_of_world in 1..=3 {
        let world = portal(true, seed_of_world);
        let mut expected = BTreeSet::new();
        for n in 0..3_000 {
            let id = seed(&world, "contacts", &[("firstname", &n.to_string())]);
            if n % 3 == 0 {
                world.portal.borrow_mut().set_archived(world.clock.now(), "contacts", &id, true);
            } else {
                expected.insert(id.parse().unwrap());
            }
        }
        let account = account(&world);
        let wanted = Wanted { properties: names(&["firstname"]), ..Wanted::default() };
        let mut seen = BTreeMap::new();
        take_all(&mut scan(&account, "contacts", &wanted, ScanState::New), &mut seen).await.unwrap();
        assert_eq!(once(&seen), expected);
        let archived = Wanted { archived: true, ..wanted };
        let mut seen = BTreeMap::new();
        take_all(&mut scan(&account, "contacts", &archived, ScanState::New), &mut seen).await.unwrap();
        assert_eq!(seen.len(), 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_is_killed_again_and_again_loses_nothing_and_repeats_only_what_was_not_saved() {
    let world = fake::world();
    let ids = old_account();
    let fake = Rc::new(Fake::new(&world, ids.clone()));
    let account = fake::account(&world, fake.clone());
    let (mut saved, mut durable) = (String::from(r#"{"by":"new"}"#), BTreeMap::new());
    for kill in 0.. {
        assert!(kill < 200, "no end: {saved}");
        let state: ScanState = serde_json::from_str(&saved).unwrap();
        if state.is_done() {
            break;
        }
        let mut scan = scan(&account, "contacts", &Wanted::default(), state);
        let mut late = Vec::new();
        for turn in 0..12 {
            let Some(page) = scan.next().await.unwrap() else { break };
            // Some pages are never made durable, others later than those behind them.
            match turn % 4 {
                0 => late.push(page),
                3 if kill % 3 == 0 && turn > 8 => drop(page),
                _ => take(&mut scan, page, &mut durable),
            }
        }
        for page in late {
            take(&mut scan, page, &mut durable);
        }
        saved = serde_json::to_string(&scan.state()).unwrap();
        assert!(saved.len() < 4_000, "{saved}");
    }
    assert_eq!(once(&durable), ids.into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_page_can_be_given_up_at_any_moment_without_losing_or_repeating_one() {
    for patience in [7, 70, 310] {
        let world = fake::world();
        let ids = old_account();
        let account = fake::account(&world, Rc::new(Fake::new(&world, ids.clone())));
        let mut seen = BTreeMap::new();
        let mut scan = scan(&account, "contacts", &Wanted::default(), ScanState::New);
        let (mut covers, mut given_up) = (Vec::new(), 0);
        loop {
            let page = tokio::select! {
                biased;
                page = scan.next() => page.unwrap(),
                () = world.clock.sleep(std::time::Duration::from_millis(patience)) => {
                    given_up += 1;
                    continue;
                }
            };
            let Some(page) = page else { break };
            covers.push((page.covers.after, page.covers.until));
            take(&mut scan, page, &mut seen);
        }
        assert!(given_up > 0 || patience > 300, "{patience}");
        assert!(scan.state().is_done());
        assert_eq!(once(&seen), ids.into_iter().collect());
        // What pages stand for is their name in S3: no two may share it.
        covers.sort_unstable();
        assert!(covers.windows(2).all(|pair| pair[0].1.is_some_and(|until| until <= pair[1].0)), "{covers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_opaque_cursor_is_followed_page_by_page_and_resumed() {
    let world = fake::world();
    let ids: Vec<u64> = (0..950).map(|n| 5 + n * 13).collect();
    let mut fake = Fake::new(&world, ids.clone());
    fake.cursors = Cursors::Opaque;
    let account = fake::account(&world, Rc::new(fake));
    let mut seen = BTreeMap::new();
    let mut first = scan(&account, "contacts", &Wanted::default(), ScanState::New);
    for _ in 0..3 {
        let page = first.next().await.unwrap().unwrap();
        take(&mut first, page, &mut seen);
    }
    let unsaved = first.next().await.unwrap().unwrap();
    let behind = first.next().await.unwrap().unwrap();
    assert_eq!((unsaved.covers.after, behind.covers.after, behind.covers.until), (300, 400, Some(500)));
    // Saved before the one in front of it: it does not count until that one is durable.
    first.covered(behind.token);
    let state = first.state();
    assert_eq!(state, ScanState::Cursor { after: Some("at-300".to_owned()), listed: 300 });
    drop((first, unsaved));
    take_all(&mut scan(&account, "contacts", &Wanted::default(), state), &mut seen).await.unwrap();
    assert_eq!(once(&seen), ids.into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_leaves_the_order_of_ids_is_read_again_from_the_start() {
    let world = fake::world();
    let ids: Vec<u64> = (1..=4_000).collect();
    let mut fake = Fake::new(&world, ids.clone());
    fake.cursors = Cursors::LastIdUntil(20);
    let account = fake::account(&world, Rc::new(fake));
    let mut seen = BTreeMap::new();
    let mut scan = scan(&account, "contacts", &Wanted::default(), ScanState::New);
    take_all(&mut scan, &mut seen).await.unwrap();
    assert_eq!(seen.keys().map(|id| id.parse::<u64>().unwrap()).collect::<BTreeSet<_>>(), ids.into_iter().collect());
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_properties_are_read_by_batch_while_ids_are_listed() {
    let world = portal(true, 21);
    let mut ids: Vec<String> = (0..1_500).map(|n| seed(&world, "contacts", &[("firstname", &n.to_string())])).collect();
    let mut properties = names(&["firstname"]);
    properties.extend((0..600).map(|n| PropertyName::from(format!("some_property_{n}"))));
    let account = account(&world);
    let wanted = Wanted { properties, ..Wanted::default() };
    let mut scan = scan(&account, "contacts", &wanted, ScanState::New);
    let (mut seen, mut archived) = (BTreeMap::new(), false);
    while let Some(page) = scan.next().await.unwrap() {
        assert!(page.records.iter().all(|record| record.value("firstname").is_some()));
        if !archived {
            // Between the list and the read a record may go.
            let last = ids.pop().unwrap();
            archived = world.portal.borrow_mut().set_archived(world.clock.now(), "contacts", &last, true);
        }
        take(&mut scan, page, &mut seen);
    }
    assert!(scan.state().is_done());
    assert_eq!(once(&seen), ids.iter().map(|id| id.parse().unwrap()).collect());
    assert!(calls(&world, "batch/read") >= 15);
    assert!(world.portal.borrow().log().iter().all(|call| call.status != 414));
}

#[tokio::test(start_paused = true)]
async fn few_records_and_none_cost_a_few_calls_and_an_error_ends_the_scan() {
    let world = portal(false, 22);
    let account = account(&world);
    for (count, pages, calls) in [(0, 0, 3), (1, 1, 2), (99, 1, 2)] {
        while world.portal.borrow().record_count("deals") < count {
            seed(&world, "deals", &[("dealname", "d")]);
        }
        let before = account.counts().total;
        let mut seen = BTreeMap::new();
        let mut scan = scan(&account, "deals", &Wanted::default(), ScanState::New);
        assert_eq!(take_all(&mut scan, &mut seen).await.unwrap(), pages);
        assert_eq!((seen.len(), account.counts().total - before), (count, calls));
    }
    world.portal.borrow_mut().add_fault(Fault::always(What::Status(400)));
    let mut scan = scan(&account, "deals", &Wanted::default(), ScanState::New);
    assert!(scan.next().await.is_err());
    assert!(scan.next().await.is_err());
    assert_eq!(scan.state(), ScanState::New);
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_beside_a_scan_does_not_hold_it_up_and_gathers_no_more_than_fits() {
    let list = async |work: Duration, wanted: Wanted| {
        let world = fake::world();
        let account = fake::account(&world, Rc::new(Fake::new(&world, old_account())));
        let started = world.clock.elapsed();
        let mut scan = scan(&account, "contacts", &wanted, ScanState::New);
        let (mut seen, mut most) = (BTreeMap::new(), 0);
        loop {
            let pages = scan.next_all().await.unwrap();
            if pages.is_empty() {
                break;
            }
            most = most.max(pages.len());
            for page in pages {
                take(&mut scan, page, &mut seen);
            }
            assert_eq!(
                scan.beside(async {
                    world.clock.sleep(work).await;
                    7
                })
                .await,
                7
            );
        }
        assert!(scan.state().is_done(), "{:?}", scan.state());
        assert_eq!(once(&seen), old_account().into_iter().collect());
        ((world.clock.elapsed() - started).as_secs_f64(), most)
    };
    let (alone, _) = list(Duration::ZERO, Wanted::default()).await;
    let (beside, _) = list(Duration::from_secs(2), Wanted::default()).await;
    assert!(beside < alone + 5.0, "{beside} s beside work, {alone} s alone");

    // Eighty properties: 8,000 values a page, so that twelve pages fit; as many again may be under way.
    let many: Vec<String> = (0..80).map(|number| format!("p{number}")).collect();
    let wanted = Wanted { properties: many.iter().map(|name| name.as_str().into()).collect(), ..Wanted::default() };
    let (_, most) = list(Duration::from_secs(600), wanted).await;
    assert!((12..=12 + RANGES_MAX).contains(&most), "{most} pages while ten minutes of work were waited for");
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_while_something_else_is_waited_for_is_told_by_the_next_page() {
    let world = portal(false, 1);
    for n in 0..500 {
        seed(&world, "contacts", &[("firstname", &n.to_string())]);
    }
    let account = account(&world);
    let mut scan = scan(&account, "contacts", &Wanted::default(), ScanState::New);
    assert!(scan.next().await.unwrap().is_some());
    world.portal.borrow_mut().add_fault(Fault::share(1.0, What::Status(400)));
    scan.beside(world.clock.sleep(Duration::from_secs(60))).await;
    let mut pages = 0;
    let error = loop {
        match scan.next().await {
            Ok(Some(_)) => pages += 1,
            Ok(None) => panic!("the scan has ended as if it were complete"),
            Err(error) => break error,
        }
        assert!(pages < 5);
    };
    assert_eq!(error.kind(), hubferry::ErrorKind::Refused, "{error}");
    assert!(scan.next().await.is_err() && !scan.state().is_done());
}
