use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join;
use hubferry::{
    ErrorKind,
    clock::Deadline,
    codes,
    hubspot::{
        adopt::{Adoption, bare_domain, key_property_name},
        verdict::Verdict,
    },
    record::Input,
};
use hubferry_simulator::hubspot::PropertyDefinition;

use super::*;

const KEY: &str = "hubferry_domain_key";

async fn ready(world: &World) -> Rc<Account> {
    let account = account(world);
    let name = account.ensure_key_property(&object("companies"), "domain", true, Deadline::NONE).await.unwrap();
    assert_eq!(name, KEY);
    account
}

async fn adopt(account: &Account, keys: &[String]) -> Vec<Adoption> {
    account.adopt(&object("companies"), "domain", KEY, keys, &mut None, Deadline::NONE).await.unwrap()
}

/// What a job does with domains: adopts, then upserts by the key property all that may be written.
async fn import(account: &Account, domains: &[String]) -> Vec<Verdict> {
    let adoptions = adopt(account, domains).await;
    let mut inputs = Vec::new();
    for (domain, adoption) in domains.iter().zip(adoptions) {
        if adoption.reason(&object("companies"), "domain").is_none() {
            let key = bare_domain(domain);
            let properties =
                vec![(KEY.into(), key.clone()), ("domain".into(), key.clone()), ("city".into(), "Oslo".to_owned())];
            inputs.push(Input { key, properties });
        }
    }
    account.upsert(&object("companies"), KEY, &inputs, None, Deadline::NONE).await.unwrap()
}

/// How many companies each domain has.
fn census(world: &World) -> BTreeMap<String, usize> {
    let mut census = BTreeMap::new();
    for company in world.portal.borrow().records("companies") {
        *census.entry(company["domain"].clone()).or_default() += 1;
    }
    census
}

#[test]
fn domains_are_kept_bare() {
    for (given, bare) in [
        ("Example.com", "example.com"),
        (" https://www.Example.com:443/about?x#y ", "example.com"),
        ("http://user:pw@example.com/", "example.com"),
        ("//www.example.com", "example.com"),
        ("www.example.com.", "example.com"),
        ("eu.example.com", "eu.example.com"),
        ("www.com", "www.com"),
        ("example.com/a@b", "example.com"),
        ("localhost:8080", "localhost"),
        ("", ""),
    ] {
        assert_eq!(bare_domain(given), bare, "{given}");
        assert_eq!(bare_domain(bare), bare, "normalising twice is normalising once");
    }
}

#[test]
fn the_key_property_has_a_name_that_hubspot_takes() {
    assert_eq!(key_property_name("domain"), KEY);
    assert_eq!(key_property_name("Ext-Id"), "hubferry_ext_id_key");
    let (one, two) =
        (key_property_name(&format!("{}a", "x".repeat(99))), key_property_name(&format!("{}b", "x".repeat(99))));
    assert!(one.len() <= 100 && two.len() <= 100 && one != two, "{one} {two}");
}

#[tokio::test(start_paused = true)]
async fn without_consent_it_is_explained_and_nothing_is_made() {
    let world = portal(false, 1);
    let account = account(&world);
    let companies = object("companies");
    let error = account.ensure_key_property(&companies, "domain", false, Deadline::NONE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::KEY_NOT_UNIQUE));
    assert!(error.hint().contains("create_properties: true") && error.message().contains(KEY), "{error}");
    assert_eq!(world.portal.borrow().log().iter().filter(|call| call.method != "GET").count(), 0);
    // With it, it is made once, and then no consent is needed.
    ready(&world).await;
    assert_eq!(account.ensure_key_property(&companies, "domain", true, Deadline::NONE).await.unwrap(), KEY);
    let later = super::account(&world).ensure_key_property(&companies, "domain", false, Deadline::NONE).await;
    assert_eq!(later.unwrap(), KEY);
}

#[tokio::test(start_paused = true)]
async fn a_property_in_the_way_and_a_full_object_are_explained() {
    let world = portal(false, 2);
    world.portal.borrow_mut().define_property("companies", PropertyDefinition::new(KEY, "string"));
    let companies = object("companies");
    let error = account(&world).ensure_key_property(&companies, "domain", true, Deadline::NONE).await.unwrap_err();
    assert_eq!(error.code(), codes::KEY_NOT_UNIQUE);
    let world = portal(false, 2);
    for n in 0..10 {
        let property = PropertyDefinition::new(&format!("unique_{n}"), "string").unique();
        world.portal.borrow_mut().define_property("companies", property);
    }
    let error = account(&world).ensure_key_property(&companies, "domain", true, Deadline::NONE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::KEY_NOT_UNIQUE));
    assert!(error.message().contains("10 properties with unique values"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_exists_is_adopted_what_is_ambiguous_is_refused_and_the_rest_is_new() {
    let world = portal(false, 3);
    let account = ready(&world).await;
    let old = seed(&world, "companies", &[("domain", "old.io")]);
    let www = seed(&world, "companies", &[("domain", "www.web.io")]);
    seed(&world, "companies", &[("domain", "twice.io")]);
    seed(&world, "companies", &[("domain", "TWICE.io")]);
    let moved = seed(&world, "companies", &[("domain", "moved.io"), (KEY, "before.io")]);
    let keys = texts(&["https://www.old.io/", "web.io", "twice.io", "new.io", "moved.io", "OLD.io"]);
    let first = adopt(&account, &keys).await;
    let adopted = |id: &String| Adoption::Adopted { id: id.clone() };
    let expected = [
        adopted(&old),
        adopted(&www),
        Adoption::Ambiguous(2),
        Adoption::New,
        Adoption::Taken { id: moved },
        adopted(&old),
    ];
    assert_eq!(first, expected);
    assert_eq!(&*first[2].reason(&object("companies"), "domain").unwrap().code, "KEY_AMBIGUOUS");
    assert_eq!(adopt(&account, &keys[..1]).await, [Adoption::Known { id: old }]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_dies_after_creating_makes_no_duplicate_when_it_comes_again() {
    let world = portal(false, 4);
    let account = ready(&world).await;
    let domains: Vec<String> = (0..40).map(|n| format!("c{n}.io")).collect();
    for domain in domains.iter().step_by(4) {
        seed(&world, "companies", &[("domain", domain)]);
    }
    // Killed at every moment of its life, from which HubSpot has kept more or less.
    for tenths in 0..25 {
        let dies = world.clock.sleep(Duration::from_millis(tenths * 70));
        tokio::select! {
            biased;
            () = dies => {}
            _ = import(&account, &domains) => {}
        }
    }
    import(&account, &domains).await;
    let census = census(&world);
    assert_eq!(census.len(), 40);
    assert!(census.values().all(|count| *count == 1), "{census:?}");
}

#[tokio::test(start_paused = true)]
async fn several_runs_at_once_end_in_one_record_a_key_through_every_fault() {
    for seed_of_world in 1..=6 {
        let world = portal(true, seed_of_world);
        let here = ready(&world).await;
        let there = account(&world);
        let domains: Vec<String> = (0..150).map(|n| format!("c{n}.io")).collect();
        for domain in domains.iter().step_by(3) {
            seed(&world, "companies", &[("domain", domain)]);
        }
        let later: Vec<String> = domains.iter().rev().cloned().collect();
        let delayed = async {
            world.clock.sleep(Duration::from_millis(seed_of_world * 90)).await;
            import(&there, &later).await
        };
        let (first, second) = join(import(&here, &domains), delayed).await;
        for verdict in first.iter().chain(&second) {
            assert!(matches!(verdict, Verdict::Written { .. }), "{verdict:?}");
        }
        let census = census(&world);
        assert!(census.len() == 150 && census.values().all(|count| *count == 1), "{census:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_records_that_turn_up_late_one_keeps_the_key() {
    // GIVEN a company that somebody made a moment ago: the index does not show it, so the key is new
    let world = portal(false, 5);
    let account = ready(&world).await;
    let companies = object("companies");
    let theirs = create(&account, &companies, serde_json::json!({ "domain": "late.io" })).await;
    let domain = texts(&["late.io"]);
    assert_eq!(adopt(&account, &domain).await, [Adoption::New]);
    import(&account, &domain).await;
    // WHEN the index shows both
    world.clock.sleep(Duration::from_secs(60)).await;
    // THEN the one with the key stays it, however often the file comes
    for _ in 0..3 {
        import(&account, &domain).await;
    }
    let known = adopt(&account, &domain).await;
    assert!(matches!(known.as_slice(), [Adoption::Known { id }] if *id != theirs), "{known:?}");
    assert_eq!(census(&world)["late.io"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_value_the_index_shows_late_is_not_adopted() {
    let world = portal(false, 6);
    let account = ready(&world).await;
    let id = seed(&world, "companies", &[("domain", "was.io")]);
    world.portal.borrow_mut().edit(world.clock.now(), "companies", &id, &[("domain", "is.io")]);
    let found = account
        .search_by_values(&object("companies"), "domain", &texts(&["was.io"]), &[], Deadline::NONE)
        .await
        .unwrap();
    assert_eq!(found["was.io"][0].id, id, "the index is late");
    assert_eq!(adopt(&account, &texts(&["was.io"])).await, [Adoption::New]);
}

#[tokio::test(start_paused = true)]
async fn an_adopter_and_a_creator_of_one_key_end_with_one_record_that_carries_it() {
    let world = portal(false, 7);
    let account = ready(&world).await;
    let companies = object("companies");
    let (mut adopted, mut outrun) = (0, 0);
    // At every moment of the adoption somebody else creates a record with the key.
    for at in 0..24 {
        let domain = format!("c{at}.io");
        let theirs = seed(&world, "companies", &[("domain", &domain)]);
        let created = async {
            world.clock.sleep(Duration::from_millis(at * 25)).await;
            let properties = serde_json::json!({ "domain": domain, KEY: domain });
            let body = serde_json::json!({ "properties": properties }).to_string();
            account.ask(Call::post(account.paths().objects(&companies, ""), body.into()), Deadline::NONE).await.unwrap()
        };
        let (answer, adoption) = join(created, adopt(&account, std::slice::from_ref(&domain))).await;
        let carriers: Vec<String> = {
            let portal = world.portal.borrow();
            let with = portal.records("companies").filter(|one| one.get(KEY) == Some(&domain));
            with.map(|one| one["hs_object_id"].clone()).collect()
        };
        assert_eq!(carriers.len(), 1, "{at}");
        match adoption.as_slice() {
            [Adoption::Adopted { id }] => {
                adopted += 1;
                assert_eq!((id, answer.status.is_success()), (&theirs, false), "{at}");
            }
            [Adoption::Known { id }] => {
                outrun += 1;
                assert_eq!((id, answer.status.is_success()), (&carriers[0], true), "{at}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
    let conflicts = calls(&world, "companies/batch/update") - adopted;
    assert!(adopted > 0 && outrun > 0 && conflicts > 0, "{adopted} {outrun} {conflicts}");
}
