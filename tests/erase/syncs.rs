//! What syncs keep of a person is removed, wherever it is, and the syncs of everybody else go on.

use std::{collections::BTreeMap, time::Duration};

use hubferry::{
    clock::{Clock as _, Deadline},
    erase::{Erasure, Request, erase},
    objects::{Location, Objects as _},
    report::Outcome,
    state::{Item, Key, Table as _, Update, Value},
    sync::{
        model::{Link, ReviewKind, Side, Todo, TodoWhy},
        todo::Todos,
    },
};
use hubferry_simulator::salesforce::{Test, ValidationRule};

use crate::{
    support::{BUCKET, report},
    sync::{BIO, Both, Config, EMAIL, LAST, PEOPLE, PHONE, event, org_settings, portal_settings},
};

const ADA: &str = "ada@x.io";
/// In her values only.
const MARK: &str = "zanzibar";

/// The world, and her ids in HubSpot and in Salesforce.
struct Known {
    both: Both,
    h: String,
    s: String,
    /// Others: whose note mentions her, and who was given her address in Salesforce.
    eve: (String, String),
    bob: (String, String),
    nada: (String, String),
}

/// She is in a link, in a review, among what was refused and what was put off; others mention her.
async fn known() -> Known {
    let mut org = org_settings();
    org.validation.push(ValidationRule {
        object: "Contact".to_owned(),
        field: "Description".to_owned(),
        refuse_if: Test::Contains("forbidden".to_owned()),
        message: "Not that word.".to_owned(),
    });
    let both = Both::with(&Config::people(&[EMAIL, LAST, PHONE, BIO], ""), portal_settings(), org);
    let (h, s) = both.linked(&[("Email", ADA), ("LastName", MARK), ("Phone", "030 1"), ("Description", "old")]).await;
    let eve = both.linked(&[("Email", "eve@x.io"), ("LastName", "Eve"), ("Description", "mother of ada@x.io")]).await;
    let bob = both.linked(&[("Email", "bob@x.io"), ("LastName", "Bob")]).await;
    let nada = both.linked(&[("Email", "nada@x.io"), ("LastName", "Nada"), ("Phone", "030 2")]).await;
    both.wait(600).await;
    // A conflict, a refusal, and her address on somebody else's record.
    both.h_edit(&h, &[("lastname", "zanzibar here"), ("bio", "forbidden zanzibar")]);
    both.s_edit(&s, &[("LastName", "zanzibar there")]);
    both.s_edit(&bob.1, &[("Email", ADA)]);
    both.done(PEOPLE).await;
    assert_eq!(both.review_kinds(), [ReviewKind::Conflict, ReviewKind::Taken], "{:?}", both.reviews());
    assert_eq!(both.refused().len(), 1, "{:?}", both.refused());
    // A record of hers was being created when an invocation died.
    let todos = Todos::new(both.world.table.clone(), PEOPLE);
    let sent = [("email|Email".to_owned(), Some(ADA.to_owned()))].into();
    let todo = Todo { side: Side::Hubspot, id: "999000999".to_owned(), why: TodoWhy::Creating(sent), since: None };
    todos.put(&todo).await.unwrap();
    Known { both, h, s, eve, bob, nada }
}

/// What the table holds, but for the account's limit: that is what asking HubSpot costs.
fn table(both: &Both) -> BTreeMap<Key, Item> {
    let mut all = both.world.table.snapshot();
    all.retain(|key, _| !key.pk.starts_with("limit#"));
    all
}

/// Everything that is stored, as text.
async fn stored(both: &Both) -> Vec<(String, String)> {
    let table = table(both);
    let mut all: Vec<(String, String)> =
        table.iter().map(|(key, item)| (format!("{} / {}", key.pk, key.sk), format!("{item:?}"))).collect();
    for location in both.world.objects.list(&Location::new(BUCKET, "")).await.unwrap() {
        let bytes = both.world.objects.contents(&location).unwrap();
        all.push((location.to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    all
}

impl Known {
    /// Where she is found: by her address, her other values, or her ids.
    async fn found(&self) -> Vec<String> {
        let (h, s) = (self.h.as_str(), self.s.as_str());
        let is_there = |place: &str, text: &str| {
            let text = format!("{place} {text}").to_lowercase().replace("nada@x.io", "");
            let ids = [format!("#h#{h} "), format!("\"{h}\""), format!("\\\"{h}\\\"")];
            text.contains(ADA)
                || text.contains(MARK)
                || text.contains(&s.to_lowercase())
                || ids.iter().any(|id| text.contains(id.as_str()))
        };
        stored(&self.both)
            .await
            .into_iter()
            .filter(|(place, text)| is_there(place, text))
            .map(|(place, _)| place)
            .collect()
    }

    async fn erase(&self, request: Request) -> Erasure {
        erase(&self.both.world.process(), &request, None, &|_| {}, Deadline::NONE).await.unwrap()
    }

    fn links(&self) -> Vec<(String, String)> {
        self.both.links()
    }
}

fn ada() -> Request {
    Request { key: ADA.to_owned(), ..Request::default() }
}

fn counts(erasure: &Erasure) -> Vec<(&'static str, u64)> {
    erasure.removed.iter().map(|removed| (removed.what, removed.records)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_person_is_gone_from_links_reviews_refusals_what_was_put_off_and_what_was_listed() {
    let world = known().await;
    let before = world.found().await;
    for part in ["link#people#h", "review#people", "refused#people", "todo#people", "rejects/sync-people/"] {
        assert!(
            before.iter().any(|place| place.contains(part)),
            "{part}: nothing to remove proves nothing: {before:?}"
        );
    }
    let untouched = table(&world.both);
    let listed = world.erase(Request { dry_run: true, ..ada() }).await;
    assert!(table(&world.both) == untouched, "a dry run changes nothing");

    let erasure = world.erase(ada()).await;
    assert!(erasure.complete, "{:?}", erasure.left);
    assert_eq!(erasure.removed, listed.removed, "what was listed is what was removed");
    // Her link and its pointer, Eve's link, Bob's, and the pointer of his record in Salesforce, which has her address; her conflict, and Bob's.
    let expected = [("rejects", 1), ("reviews", 2), ("refused", 1), ("put_off", 1), ("links", 5)];
    assert_eq!(counts(&erasure), expected, "{erasure:?}");
    assert_eq!(world.found().await, [] as [String; 0]);
    assert_eq!(world.links(), vec![world.nada.clone()], "who has only a similar address stays linked");

    let again = world.erase(ada()).await;
    assert!(again.complete && again.removed.is_empty(), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn whose_values_mentioned_the_person_are_linked_anew_and_nothing_of_theirs_is_lost() {
    let world = known().await;
    let both = &world.both;
    // She is deleted in both systems: what others hold of her is theirs.
    let erasure = world.erase(Request { gdpr: true, ..ada() }).await;
    assert!(erasure.complete && erasure.hubspot["default"].deleted, "{erasure:?}");
    assert!(erasure.notes.iter().any(|note| note.contains("Salesforce were not touched")), "{:?}", erasure.notes);
    assert!(both.world.org.borrow_mut().delete(both.world.clock.now(), "Contact", &world.s));
    both.done(PEOPLE).await;
    let mut links = world.links();
    let mut expected = vec![world.eve.clone(), world.bob.clone(), world.nada.clone()];
    links.sort();
    expected.sort();
    assert_eq!(links, expected, "{:?}", both.reviews());
    // Edits of either side flow as before.
    both.h_edit(&world.eve.0, &[("phone", "030 7")]);
    both.s_edit(&world.bob.1, &[("LastName", "Robert")]);
    both.done(PEOPLE).await;
    assert_eq!(both.s(&world.eve.1, "Phone").as_deref(), Some("030 7"));
    assert_eq!(both.h(&world.bob.0, "lastname").as_deref(), Some("Robert"));
    assert_eq!(both.h_count(), 3, "she is not made again");
    both.assert_quiet(PEOPLE).await;
    let of_hers: Vec<String> = world.found().await.into_iter().filter(|place| place.contains(&world.h)).collect();
    assert_eq!(of_hers, [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_person_whom_neither_system_knows_any_more_is_found_in_the_links() {
    for offline in [false, true] {
        let world = known().await;
        let now = world.both.world.clock.now();
        assert!(world.both.world.portal.borrow_mut().set_archived(now, "contacts", &world.h, true));
        assert!(world.both.world.org.borrow_mut().delete(now, "Contact", &world.s));
        let erasure = world.erase(Request { offline, ..ada() }).await;
        assert!(erasure.complete, "{:?}", erasure.left);
        assert_eq!(erasure.hubspot["default"].contacts, 1, "her id is known from the link");
        assert_eq!(world.found().await, [] as [String; 0], "offline: {offline}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_there_is_not_found_and_nothing_changes() {
    let world = known().await;
    let before = stored(&world.both).await;
    for key in ["nobody@x.io", "da@x.io", "ada@x.i"] {
        let erasure = world.erase(Request { key: key.to_owned(), ..Request::default() }).await;
        assert!(erasure.complete && erasure.removed.is_empty(), "{key}: {erasure:?}");
        assert!(erasure.searched["synced"].records > 5, "{erasure:?}");
    }
    assert!(stored(&world.both).await == before);
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_is_killed_anywhere_is_completed_by_the_next() {
    let whole = known().await;
    let began = whole.both.world.clock.elapsed();
    whole.erase(ada()).await;
    let takes = whole.both.world.clock.elapsed() - began;
    let mut half = 0;
    for part in 1..=16 {
        let world = known().await;
        let clock = world.both.world.clock.clone();
        let done = tokio::select! {
            biased;
            () = clock.sleep(takes * part / 17) => None,
            erasure = world.erase(ada()) => Some(erasure),
        };
        assert!(done.is_none(), "the kill came too late");
        let left = world.found().await.len();
        half += usize::from(left > 0 && left < 9);
        // A link may not be left waiting for a review that is gone, whosever it is: it would wait for ever.
        let reviews: Vec<String> = world.both.reviews().into_iter().map(|review| review.id).collect();
        for (key, item) in world.both.world.table.snapshot() {
            let Some(Value::S(text)) = item.get("json").filter(|_| key.pk.starts_with("link#")) else { continue };
            let link: Link = serde_json::from_str(text).unwrap();
            let waits = link.fields.values().filter_map(|state| state.frozen.clone());
            assert!(
                link.hubspot_id == world.h || waits.clone().all(|id| reviews.contains(&id)),
                "{part}: {key:?} {reviews:?}"
            );
        }
        let again = world.erase(ada()).await;
        assert!(again.complete, "{part}: {:?}", again.left);
        assert_eq!(world.found().await, [] as [String; 0], "{part}");
    }
    assert!(half > 2, "no kill fell between two removals");
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_is_under_way_is_left_alone_and_told() {
    let world = known().await;
    let both = &world.both;
    both.world.portal.borrow_mut().configure(|settings| settings.latency.fixed_ms = 4_000);
    for at in 0..700 {
        both.s_create(&[("Email", &format!("m{at}@x.io")), ("LastName", "Many")]);
    }
    both.wait(60).await;
    let open = report(both.world.handle_within(event(PEOPLE), 60).await.unwrap());
    assert_eq!(open.outcome, Outcome::Yielded, "{open:?}");
    let before = both.world.table.snapshot();
    let erasure = world.erase(ada()).await;
    assert!(!erasure.complete);
    assert!(
        erasure.left.iter().any(|left| left.location == "sync people" && left.why.contains("is open")),
        "{erasure:?}"
    );
    let after = both.world.table.snapshot();
    let of_sync = |key: &Key| ["link#", "review#", "refused#", "todo#"].iter().any(|kind| key.pk.starts_with(kind));
    assert!(before.iter().filter(|(key, _)| of_sync(key)).eq(after.iter().filter(|(key, _)| of_sync(key))));
    assert_eq!(both.finish(open).await.outcome, Outcome::Done);
    let again = world.erase(ada()).await;
    assert!(again.complete, "{:?}", again.left);
    assert_eq!(world.found().await, [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_begins_while_a_person_is_removed_ends_well_and_the_erasure_says_if_anything_is_left() {
    for begins in [1_u64, 20, 60, 200, 600] {
        let world = known().await;
        let both = &world.both;
        both.h_edit(&world.nada.0, &[("phone", "030 9")]);
        let sync = async {
            both.world.clock.sleep(Duration::from_millis(begins)).await;
            report(both.world.handle_within(event(PEOPLE), 900).await.unwrap())
        };
        let (erasure, report) = futures_util::future::join(world.erase(ada()), sync).await;
        assert!(matches!(report.outcome, Outcome::Done | Outcome::Failed), "{begins}: {report:?}");
        // The two systems still have her: what the sync took up again is either told as left, or came after.
        let found = world.found().await;
        assert!(
            !erasure.complete || found.is_empty() || both.links().iter().any(|(h, _)| *h == world.h),
            "{begins}: {found:?}"
        );
        both.done(PEOPLE).await;
        assert_eq!(both.s(&world.nada.1, "Phone").as_deref(), Some("030 9"), "{begins}");
        let again = world.erase(ada()).await;
        assert!(again.complete, "{begins}: {:?}", again.left);
        assert_eq!(world.found().await, [] as [String; 0], "{begins}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_sync_of_another_name_left_behind_is_found_by_the_address() {
    let world = known().await;
    let mut both = world.both;
    let renamed = Config::people(&[EMAIL, LAST, PHONE, BIO], "").replace("name: people", "name: contacts");
    both.configure(&renamed);
    let world = Known { both, ..world };
    let erasure = world.erase(ada()).await;
    assert!(erasure.complete, "{:?}", erasure.left);
    let mentions: Vec<String> = stored(&world.both)
        .await
        .into_iter()
        .filter(|(_, text)| text.replace("nada@x.io", "").contains(ADA))
        .map(|(place, _)| place)
        .collect();
    assert_eq!(mentions, [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_read_or_that_names_a_file_after_the_person_is_told_as_left() {
    let world = known().await;
    let set = |text: &str| Update { set: vec![("json", text.into())], ..Default::default() };
    world.both.world.table.update(&Key::new("link#people#h#77", "link"), set("{ not json")).await.unwrap();
    world
        .both
        .world
        .table
        .update(&Key::new("context#import#x", "run"), set("s3://crm/incoming/ada@x.io.csv?"))
        .await
        .unwrap();
    let erasure = world.erase(ada()).await;
    assert!(!erasure.complete);
    let left: Vec<&str> = erasure.left.iter().map(|left| left.location.as_str()).collect();
    assert_eq!(left, ["link#people"], "the file's name goes on behind the address, so that it is another one");
    let named = Update { set: vec![("json", "s3://crm/of ada@x.io/a.csv".into())], ..Default::default() };
    world.both.world.table.update(&Key::new("context#import#x", "run"), named).await.unwrap();
    let erasure = world.erase(ada()).await;
    let left: Vec<&str> = erasure.left.iter().map(|left| left.location.as_str()).collect();
    assert_eq!(left, ["context in the table", "link#people"], "{erasure:?}");
}
