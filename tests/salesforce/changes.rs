//! What changed: nothing is missed, whatever the ties, lags, short pages, ended cursors and kills.

use std::{collections::BTreeMap, time::Duration};

use hubferry::salesforce::changes::{ChangesPage, Feed, Sweep};
use hubferry_simulator::salesforce::{OrgSettings, five_percent};

use super::*;

const FIELDS: &[&str] = &["LastName", "Email"];

async fn feed(client: &Org) -> Feed {
    Feed::new(client, "Contact", FIELDS, None, NONE).await.unwrap()
}

/// A whole sweep; the process is replaced by another after every page.
async fn sweep(world: &World, last_until: Option<jiff::Timestamp>) -> (Vec<ChangesPage>, jiff::Timestamp) {
    let client = world.client();
    client.check_version(NONE).await.unwrap();
    let mut sweep = Sweep::new(last_until, client.server_time());
    let mut pages = Vec::new();
    loop {
        // What is stored between invocations is text.
        sweep = serde_json::from_str(&serde_json::to_string(&sweep).unwrap()).unwrap();
        let client = world.client();
        let page = client.changes(&feed(&client).await, &sweep, NONE).await.unwrap();
        sweep = page.sweep.clone();
        let more = page.more;
        pages.push(page);
        assert!(pages.len() < 1_000);
        if !more {
            return (pages, sweep.until);
        }
    }
}

fn ids(pages: &[ChangesPage]) -> Vec<String> {
    pages.iter().flat_map(|page| &page.rows).map(|row| row.id().unwrap().as_str().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_records_of_one_second_come_once_each_although_every_cursor_ends() {
    let world =
        World::new(OrgSettings { page_most: 70, short_pages: true, locator_seconds: 0, ..OrgSettings::default() });
    for number in 0..1_000 {
        world.contact(&format!("{number}"), &[]);
    }
    let (pages, _) = sweep(&world, None).await;
    let mut all = ids(&pages);
    assert_eq!(all.len(), 1_000, "none twice");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 1_000, "none missed");
    assert!(pages.len() >= 15);
}

#[tokio::test(start_paused = true)]
async fn the_cursor_is_used_where_it_lives() {
    let world = World::new(OrgSettings { page_most: 100, ..OrgSettings::default() });
    for number in 0..450 {
        world.contact(&format!("{number}"), &[]);
    }
    let (pages, _) = sweep(&world, None).await;
    assert_eq!(ids(&pages).len(), 450);
    assert_eq!((world.calls("/queryAll"), world.calls("/query/")), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn what_becomes_visible_behind_the_position_is_found_by_the_next_sweep() {
    let world = World::new(OrgSettings { query_lag_ms: 3_000, seed: 7, ..OrgSettings::default() });
    let mut seen = BTreeMap::new();
    let mut until = None;
    let mut written = Vec::new();
    for number in 0..40 {
        written.push(world.contact(&format!("{number}"), &[]).as_str().to_owned());
        world.clock.sleep(Duration::from_millis(700)).await;
        let (pages, end) = sweep(&world, until).await;
        for id in ids(&pages) {
            *seen.entry(id).or_insert(0) += 1;
        }
        until = Some(end);
    }
    world.clock.sleep(Duration::from_secs(10)).await;
    let (pages, _) = sweep(&world, until).await;
    ids(&pages).into_iter().for_each(|id| *seen.entry(id).or_insert(0) += 1);
    assert!(written.iter().all(|id| seen.contains_key(id)), "{} of {}", seen.len(), written.len());
}

#[tokio::test(start_paused = true)]
async fn the_next_sweep_brings_what_changed_and_the_overlap_and_no_more() {
    let world = World::new(OrgSettings::default());
    let old = world.contact("Old", &[]);
    world.clock.sleep(Duration::from_secs(3_600)).await;
    let recent = world.contact("Recent", &[]);
    let (pages, until) = sweep(&world, None).await;
    assert_eq!(ids(&pages).len(), 2);
    world.clock.sleep(Duration::from_secs(60)).await;
    let (pages, until) = sweep(&world, Some(until)).await;
    assert_eq!(ids(&pages), [recent.as_str()], "the overlap");
    world.clock.sleep(Duration::from_secs(600)).await;
    let (pages, until) = sweep(&world, Some(until)).await;
    assert_eq!(ids(&pages), [recent.as_str()], "again: the last sweep ended within five minutes of it");
    let (pages, until) = sweep(&world, Some(until)).await;
    assert!(ids(&pages).is_empty());
    // A system process touches a record: no edit, but SystemModstamp moves.
    world.org.borrow_mut().touch(world.clock.now(), "Contact", old.as_str());
    let (pages, _) = sweep(&world, Some(until)).await;
    assert_eq!(ids(&pages), [old.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn deletions_and_merges_come_in_the_same_feed() {
    let world = World::new(OrgSettings::default());
    let (kept, merged, deleted, back) = (
        world.contact("A", &[]),
        world.contact("B", &[("Email", "b@example.com")]),
        world.contact("C", &[]),
        world.contact("D", &[]),
    );
    let (_, until) = sweep(&world, None).await;
    world.clock.sleep(Duration::from_secs(900)).await;
    {
        let mut org = world.org.borrow_mut();
        let now = world.clock.now();
        assert!(org.merge(now, "Contact", kept.as_str(), &[merged.as_str()]));
        assert!(org.delete(now, "Contact", deleted.as_str()));
        assert!(org.delete(now, "Contact", back.as_str()) && org.undelete(now, "Contact", back.as_str()));
    }
    let (pages, _) = sweep(&world, Some(until)).await;
    let told: BTreeMap<_, _> = (pages.iter().flat_map(|page| &page.rows))
        .map(|row| (row.id().unwrap(), (row.is_deleted(), row.master_record_id())))
        .collect();
    assert_eq!(told[&kept], (false, None));
    assert_eq!(told[&merged], (true, Some(kept.clone())));
    assert_eq!(told[&deleted], (true, None));
    assert_eq!(told[&back], (false, None));
    assert_eq!(world.look(&kept, "Email").as_deref(), Some("b@example.com"));
}

#[tokio::test(start_paused = true)]
async fn salesforces_clock_ends_a_sweep_not_ours() {
    let world = World::new(OrgSettings::default());
    let client = world.client();
    client.check_version(NONE).await.unwrap();
    let lag = world.clock.now().duration_since(client.server_time()).as_secs().abs();
    assert!(lag <= 1, "{lag}");
    let sweep = Sweep::new(Some("2026-03-02T09:00:00.9Z".parse().unwrap()), "2026-03-02T10:00:00.9Z".parse().unwrap());
    assert_eq!(sweep.since.unwrap().to_string(), "2026-03-02T08:55:00Z");
    assert_eq!(sweep.until.to_string(), "2026-03-02T10:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn opportunities_have_no_master_record_and_are_read_all_the_same() {
    let world = World::new(OrgSettings::default());
    let values = [("Name", "Deal"), ("StageName", "Prospecting"), ("CloseDate", "2026-04-01")];
    let id = world.org.borrow_mut().create(world.clock.now(), "Opportunity", &values).unwrap();
    let client = world.client();
    let feed = Feed::new(&client, "Opportunity", &["Name", "Amount"], None, NONE).await.unwrap();
    world.clock.sleep(Duration::from_secs(1)).await;
    let page = client.changes(&feed, &Sweep::new(None, world.clock.now()), NONE).await.unwrap();
    assert_eq!(page.rows[0].text("Id"), Some(id.as_str()));
    assert!(!page.more);
}

#[tokio::test(start_paused = true)]
async fn sweeps_under_faults_see_every_record() {
    for seed in 0..10 {
        let settings = OrgSettings {
            seed,
            page_most: 30,
            short_pages: true,
            query_lag_ms: 2_000,
            faults: five_percent(seed),
            ..OrgSettings::default()
        };
        let world = World::new(settings);
        let mut wanted: Vec<_> =
            (0..200).map(|number| world.contact(&format!("{number}"), &[]).as_str().to_owned()).collect();
        world.clock.sleep(Duration::from_secs(5)).await;
        let (pages, _) = sweep(&world, None).await;
        let mut all = ids(&pages);
        all.sort();
        all.dedup();
        wanted.sort();
        assert_eq!(all, wanted, "seed {seed}");
    }
}
