//! A person is removed from what whole jobs have written, and nobody else is.

mod syncs;

use std::{io::Read as _, time::Duration};

use hubferry::{
    ErrorKind,
    capture::known::Known,
    clock::{Clock, Deadline},
    codes,
    erase::{Erasure, Request, erase},
    objects::{Location, Objects},
    report::Outcome,
};
use serde_json::json;

use crate::support::{BUCKET, World, report};

const ADA: &str = "ada@x.io";

const CONFIG: &str = "
version: 1
hubspot: { default: { secret: hubferry/hubspot } }
imports:
  - name: contacts
    match: incoming/contacts/*
    object: contacts
    key: email
    skip_unchanged: true
    before_images: true
    abort_if_rejected: 90%
captures:
  - { name: records, resource: crm.contacts, output: s3://crm/out/records/, associations: [companies] }
  - { name: lines, resource: crm.contacts, output: s3://crm/out/lines/, format: jsonl, compression: none }
  - { name: rows, resource: crm.contacts, output: s3://crm/out/rows/, format: csv, compression: gzip, extra_properties: all }
  - { name: firms, resource: crm.companies, output: s3://crm/out/firms/, associations: [contacts], extra_properties: all }
";

/// People whose addresses are easily mistaken for hers, and her own in several spellings.
const FILE: &str = "email,firstname,date_of_birth
Ada@x.io,Ada,1990-01-02
nada@x.io,Nada,1990-01-02
ada@x.io.uk,Adam,1990-01-02
eve@x.io,Eve,1990-01-02
ada@x.io,\"Ada, once more\",not a day
eve@x.io,mother of ada@x.io,not a day
nada@x.io,Nada,not a day
";

/// Jobs have run: an import with rejects, before-images and an index, and captures in every format that is text.
async fn world() -> World {
    let world = World::new(CONFIG);
    let now = world.clock.now();
    world.portal.borrow_mut().seed_record(now, "contacts", &[("email", "first@x.io")]);
    let firm =
        world.portal.borrow_mut().seed_record(now, "companies", &[("name", "Firm"), ("description", "asks Ada@X.io.")]);
    assert!(firm.is_some());
    assert_eq!(world.import("incoming/contacts/a.csv", FILE).await.outcome, Outcome::Done);
    // Once more with other names: now there are old values to keep.
    let changed = FILE.replace(",Ada,", ",Augusta,").replace(",Nada,1", ",Nadja,1");
    let second = world.import("incoming/contacts/b.csv", changed).await;
    assert_eq!((second.outcome, second.rows.rejected), (Outcome::Done, 3), "{second:?}");
    for _ in 0..3 {
        world.clock.sleep(Duration::from_secs(600)).await;
        world.handle(json!({ "job": "capture" })).await.unwrap();
    }
    world
}

/// Everything that is stored but for the files that were imported, as text.
async fn stored(world: &World) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for location in world.objects.list(&Location::new(BUCKET, "")).await.unwrap() {
        if location.key.starts_with("incoming/") {
            continue;
        }
        let bytes = world.objects.contents(&location).unwrap();
        let bytes = if location.key.ends_with(".zst") {
            zstd::stream::decode_all(&bytes[..]).unwrap()
        } else if location.key.ends_with(".gz") {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut out).unwrap();
            out
        } else {
            bytes.to_vec()
        };
        all.push((location.key, String::from_utf8_lossy(&bytes).to_lowercase()));
    }
    all
}

/// Lines in which she is mentioned, by key. Her neighbours' addresses are taken out of them first.
fn mentions(stored: &[(String, String)]) -> Vec<(String, usize)> {
    let of = |text: &str| {
        let text = text.replace("nada@x.io", "").replace("ada@x.io.uk", "");
        text.lines().filter(|line| line.contains(ADA)).count()
    };
    stored.iter().map(|(key, text)| (key.clone(), of(text))).filter(|(_, count)| *count > 0).collect()
}

async fn run(world: &World, request: Request) -> Erasure {
    erase(&world.process(), &request, None, &|_| {}, Deadline::NONE).await.unwrap()
}

fn ada() -> Request {
    Request { key: ADA.to_owned(), ..Request::default() }
}

fn kinds(erasure: &Erasure) -> Vec<&'static str> {
    let mut kinds: Vec<&'static str> = erasure.removed.iter().map(|removed| removed.what).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[tokio::test(start_paused = true)]
async fn a_person_is_gone_from_everything_that_is_kept_and_nobody_else_is() {
    let world = world().await;
    let id = world.portal.borrow().find_by("contacts", "email", ADA).unwrap()["hs_object_id"].clone();
    let before = stored(&world).await;
    let kept_in = |prefix: &str| mentions(&before).iter().any(|(key, _)| key.starts_with(prefix));
    for prefix in ["rejects/", "state/import/", "out/records/", "out/lines/", "out/rows/", "out/firms/"] {
        assert!(kept_in(prefix), "{prefix}: nothing to remove proves nothing: {:?}", mentions(&before));
    }

    let listed = run(&world, Request { dry_run: true, ..ada() }).await;
    assert!(!listed.complete && listed.dry_run);
    assert_eq!(stored(&world).await, before, "a dry run changes nothing");

    let erasure = run(&world, ada()).await;
    assert!(erasure.complete, "{:?}", erasure.left);
    assert_eq!(erasure.removed, listed.removed, "what was listed is what was removed");
    assert_eq!(kinds(&erasure), ["before_images", "captured", "indexes", "rejects", "remembered"]);
    assert_eq!(erasure.hubspot["default"].contacts, 1);

    let after = stored(&world).await;
    assert_eq!(mentions(&after), [] as [(String, usize); 0]);
    let captured = after.iter().filter(|(key, _)| key.starts_with("out/records/") || key.starts_with("out/lines/"));
    for (key, text) in captured {
        assert!(!text.lines().any(|line| line.contains(&format!("\"id\":\"{id}\""))), "{key}");
    }
    for other in ["nada@x.io", "ada@x.io.uk", "eve@x.io"] {
        let lines = |stored: &[(String, String)], prefix: &str| -> usize {
            let of_prefix = stored.iter().filter(|(key, _)| key.starts_with(prefix));
            of_prefix
                .map(|(_, text)| text.lines().filter(|line| line.contains(other) && !line.contains("mother")).count())
                .sum()
        };
        for prefix in ["rejects/", "state/import/", "out/records/", "out/lines/", "out/rows/"] {
            assert_eq!(lines(&after, prefix), lines(&before, prefix), "{other} in {prefix}");
        }
    }
    for (key, text) in after.iter().filter(|(key, _)| key.ends_with(".known")) {
        assert!(!text.is_empty(), "{key}");
        let bytes = world.objects.contents(&Location::new(BUCKET, key.as_str())).unwrap();
        let known = Known::load(&bytes, key).unwrap();
        assert!(!known.recent.contains_key(&id.parse().unwrap()) || key.contains("/firms/"), "{key}");
    }

    let again = run(&world, ada()).await;
    assert!(again.complete && again.removed.is_empty(), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn manifests_tell_the_objects_as_they_are_now() {
    let world = world().await;
    run(&world, ada()).await;
    let mut checked = 0;
    for (key, text) in stored(&world).await.iter().filter(|(key, _)| key.starts_with("manifests/lines/")) {
        let manifest: serde_json::Value = serde_json::from_str(text).unwrap();
        for object in manifest["objects"].as_array().unwrap() {
            let stored = world.objects.list(&Location::new(BUCKET, "out/lines/")).await.unwrap();
            let at = stored.iter().find(|one| one.key.to_lowercase() == object["key"].as_str().unwrap()).unwrap();
            let bytes = world.objects.contents(at).unwrap();
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!((&object["bytes"], &object["records"]), (&json!(bytes.len()), &json!(lines)), "{key}");
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[tokio::test(start_paused = true)]
async fn after_an_erasure_the_next_run_sends_only_what_was_forgotten() {
    let world = world().await;
    let people = "email,firstname\nada@x.io,Ada\neve@x.io,Eve\nbob@x.io,Bob\n";
    world.import("incoming/contacts/c.csv", people).await;
    let same = world.import("incoming/contacts/d.csv", format!("{people}\n")).await;
    assert_eq!(same.rows.unchanged, 3, "{same:?}");
    let erasure = run(&world, ada()).await;
    assert!(erasure.removed.iter().any(|removed| (removed.what, removed.records) == ("indexes", 1)), "{erasure:?}");
    let next = world.import("incoming/contacts/e.csv", people).await;
    assert_eq!((next.outcome, next.rows.unchanged, next.rows.updated), (Outcome::Done, 2, 1), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn with_gdpr_hubspot_forgets_the_contact_for_good() {
    let world = world().await;
    let erasure = run(&world, Request { gdpr: true, ..ada() }).await;
    assert!(erasure.complete && erasure.hubspot["default"].deleted, "{erasure:?}");
    assert!(world.portal.borrow().find_by("contacts", "email", ADA).is_none());
    assert!(world.portal.borrow().find_by("contacts", "email", "nada@x.io").is_some());
    let refused = world.import("incoming/contacts/d.csv", "email\nada@x.io\n").await;
    assert_eq!(refused.rejected_by_code.get("GDPR_BLACKLISTED_EMAIL"), Some(&1), "{refused:?}");
    // That file's rejects mention her again, and so does what was looked up before the write.
    let again = run(&world, ada()).await;
    assert!(again.complete, "{again:?}");
    assert_eq!(kinds(&again), ["before_images", "rejects"], "HubSpot does not know her any more: {again:?}");
}

#[tokio::test(start_paused = true)]
async fn ids_that_only_captured_records_know_are_found_without_hubspot() {
    let world = world().await;
    let erasure = run(&world, Request { offline: true, ..ada() }).await;
    assert!(erasure.complete, "{:?}", erasure.left);
    assert_eq!(erasure.hubspot["default"].contacts, 1, "{erasure:?}");
    assert_eq!(mentions(&stored(&world).await), [] as [(String, usize); 0]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_open_and_an_object_that_cannot_be_read_are_told_as_left() {
    let world = world().await;
    let damaged = Location::new(BUCKET, "rejects/contacts/01M81X8WAQPWTZFPPZ0WHP7FWS.csv.gz");
    world.objects.insert(&damaged, "not looked at: no rejects file ends so");
    let damaged = Location::new(BUCKET, "out/records/dt=2026-03-02/a-b.000009.jsonl.zst");
    world.objects.insert(&damaged, &b"\x28\xb5\x2f\xfd broken"[..]);
    let rows: String = (0..30_000).map(|number| format!("person{number}@x.io,A,\n")).collect();
    let event = world.upload("incoming/contacts/large.csv", format!("email,firstname,date_of_birth\n{rows}")).await;
    let open = report(world.handle_within(event, 6).await.unwrap());
    assert_eq!(open.outcome, Outcome::Yielded);
    let erasure = run(&world, ada()).await;
    assert!(!erasure.complete);
    let left: Vec<&str> = erasure.left.iter().map(|left| left.location.as_str()).collect();
    assert!(left.contains(&"import contacts"), "{left:?}");
    assert!(left.iter().any(|location| location.ends_with("a-b.000009.jsonl.zst")), "{left:?}");
    assert!(!left.iter().any(|location| location.ends_with(".csv.gz")), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_address_is_not_searched_for() {
    let world = World::new(CONFIG);
    for key in ["a", "", "@x.io", "ada"] {
        let request = Request { key: key.to_owned(), ..Request::default() };
        let error = erase(&world.process(), &request, None, &|_| {}, Deadline::NONE).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::INVALID_EMAIL), "{key}");
    }
}
