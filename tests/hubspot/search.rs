use std::time::Duration;

use hubferry::{clock::Deadline, hubspot::search::SEARCH_PAGE};

use super::*;

#[tokio::test(start_paused = true)]
async fn records_are_found_by_value_in_any_case_page_after_page_and_within_the_limit_of_searches() {
    let world = portal(true, 1);
    let account = account(&world);
    let mut values = Vec::new();
    for n in 0..350 {
        seed(&world, "companies", &[("domain", &format!("c{n}.io")), ("name", &n.to_string())]);
        values.push(format!("C{n}.io "));
    }
    for _ in 0..SEARCH_PAGE + 30 {
        seed(&world, "companies", &[("domain", "many.io")]);
    }
    values.extend(texts(&["many.io", "none.io", ""]));
    let found = account
        .search_by_values(&object("companies"), "domain", &values, &names(&["name"]), Deadline::NONE)
        .await
        .unwrap();
    assert_eq!((found.len(), found["many.io"].len()), (351, SEARCH_PAGE + 30));
    for n in 0..350 {
        let records = &found[&format!("c{n}.io")];
        assert_eq!((records.len(), records[0].value("name")), (1, Some(n.to_string().as_str())));
    }
    assert!(account.counts().search >= 5 && !found.contains_key("none.io"));
}

#[tokio::test(start_paused = true)]
async fn values_that_more_records_share_than_paging_reaches_are_searched_apart() {
    let world = portal(false, 2);
    let (many, few) = (9_000, 3_000);
    for n in 0..many + few {
        seed(&world, "companies", &[("domain", if n < many { "many.io" } else { "few.io" })]);
    }
    let values = texts(&["few.io", "many.io"]);
    let found =
        account(&world).search_by_values(&object("companies"), "domain", &values, &[], Deadline::NONE).await.unwrap();
    assert_eq!((found["many.io"].len(), found["few.io"].len()), (many, few));
    assert!(calls(&world, "/search") <= 1 + many / SEARCH_PAGE + few / SEARCH_PAGE);
}

#[tokio::test(start_paused = true)]
async fn what_was_just_written_is_read_at_once_and_found_only_after_the_lag() {
    let world = portal(false, 3);
    let (account, companies) = (account(&world), object("companies"));
    let id = create(&account, &companies, serde_json::json!({ "domain": "new.io" })).await;
    let values = texts(&["new.io"]);
    let found = account.search_by_values(&companies, "domain", &values, &[], Deadline::NONE).await.unwrap();
    assert!(found.is_empty());
    let read = account.read(&companies, None, std::slice::from_ref(&id), &[], None, Deadline::NONE).await.unwrap();
    assert!(read[0].is_some());
    world.clock.sleep(Duration::from_secs(31)).await;
    let found = account.search_by_values(&companies, "domain", &values, &[], Deadline::NONE).await.unwrap();
    assert_eq!(found["new.io"][0].id, id);
}
