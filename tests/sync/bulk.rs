//! More than 2,000 records: Bulk jobs, which no invocation waits for.

use std::time::Duration;

use hubferry::{clock::Clock as _, report::Outcome};
use hubferry_simulator::salesforce::{Test, ValidationRule};
use serde_json::json;

use super::{BIO, Both, Config, EMAIL, LAST, PEOPLE, PHONE, WIDE, event, org_settings, portal_settings, told};
use crate::support::report;

const FIELDS: [&str; 4] = [EMAIL, LAST, PHONE, BIO];
const MANY: usize = 2_600;

fn both() -> Both {
    let mut org = org_settings();
    org.validation.push(ValidationRule {
        object: "Contact".to_owned(),
        field: "Description".to_owned(),
        refuse_if: Test::Contains("forbidden".to_owned()),
        message: "Not that word.".to_owned(),
    });
    org.bulk.queue_ms = 120_000;
    Both::with(&Config::people(&FIELDS, WIDE), portal_settings(), org)
}

fn many(both: &Both) {
    for at in 0..MANY {
        let email = format!("m{at}@example.com");
        match at % 1_000 {
            // Rows that fail inside the job.
            5 => both.h_create(&[("lastname", "Word"), ("email", &email), ("bio", "forbidden")]),
            _ => both.h_create(&[("lastname", "Many, \"quoted\"\n"), ("email", &email), ("phone", "030 1")]),
        };
    }
    both.h_create(&[("email", "nameless@example.com")]);
}

fn jobs(both: &Both) -> usize {
    let org = both.world.org.borrow();
    org.log().iter().filter(|call| call.method == "POST" && call.path.ends_with("/jobs/ingest")).count()
}

#[tokio::test(start_paused = true)]
async fn thousands_of_new_records_go_by_bulk_jobs_and_rows_that_fail_are_told() {
    let both = both();
    many(&both);
    let report = both.sync(PEOPLE).await;
    assert_eq!(report.outcome, Outcome::Done, "{report}", report = super::brief(&report));
    assert!(told(&report).bulk_jobs >= 1 && jobs(&both) >= 1, "{report}", report = super::brief(&report));
    assert!(
        report.invocations >= 2,
        "nobody waits for a job inside an invocation: {report}",
        report = super::brief(&report)
    );
    both.done(PEOPLE).await;
    assert_eq!(both.s_count(), MANY - 3);
    assert_eq!(both.refused().len(), 4, "{:?}", both.refused().iter().map(|one| &one.code).collect::<Vec<_>>());
    assert_eq!(both.links().len(), MANY - 3);
    let made = both.world.org.borrow().find_by("Contact", "Email", "m0@example.com").unwrap();
    assert_eq!(made["LastName"], "Many, \"quoted\"");
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn thousands_of_changes_go_by_bulk_jobs_with_blanks_as_blanks() {
    let both = both();
    many(&both);
    both.sync(PEOPLE).await;
    both.done(PEOPLE).await;
    both.wait(7_200).await;
    both.done(PEOPLE).await;
    let ids: Vec<String> =
        both.world.portal.borrow().records("contacts").map(|one| one["hs_object_id"].clone()).collect();
    let now = both.world.clock.now();
    both.world.portal.borrow_mut().edit_many(now, "contacts", &ids, &[("phone", "")]);
    let before = jobs(&both);
    let report = both.sync(PEOPLE).await;
    assert_eq!(report.outcome, Outcome::Done, "{report}", report = super::brief(&report));
    assert!(jobs(&both) > before, "{report}", report = super::brief(&report));
    both.done(PEOPLE).await;
    let phones = both.world.org.borrow().live_records("Contact").filter(|one| one.contains_key("Phone")).count();
    assert_eq!(phones, 0);
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_while_a_job_is_under_way_makes_nothing_twice() {
    for after in [3_u64, 8, 15, 40] {
        let both = both();
        many(&both);
        both.wait(60).await;
        both.sync_until_killed(PEOPLE, Duration::from_secs(after)).await;
        for _ in 0..6 {
            both.wait(400).await;
            both.world.queue.take();
            let _ =
                tokio::time::timeout(Duration::from_secs(after), both.world.handle(json!({ "job": "resume" }))).await;
        }
        both.wait(1_800).await;
        both.world.resume().await;
        both.sync(PEOPLE).await;
        both.done(PEOPLE).await;
        assert_eq!(both.s_count(), MANY - 3, "killed after {after} s");
        assert_eq!(both.h_count(), MANY + 1, "killed after {after} s");
        both.assert_quiet(PEOPLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_while_a_job_is_under_way_is_not_lost() {
    let both = both();
    many(&both);
    both.wait(60).await;
    let first = report(both.world.handle(event(PEOPLE)).await.unwrap());
    assert_eq!(first.outcome, Outcome::Yielded, "the job is under way: {first:#?}");
    let h = both.world.portal.borrow().find_by("contacts", "email", "m7@example.com").unwrap()["hs_object_id"].clone();
    both.h_edit(&h, &[("phone", "030 777")]);
    both.finish(first).await;
    both.done(PEOPLE).await;
    let s = both.s_twin(&h).unwrap();
    assert_eq!(both.s(&s, "Phone").as_deref(), Some("030 777"));
    both.assert_quiet(PEOPLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_salesforce_gives_up_half_way_leaves_nothing_undone_and_makes_nothing_twice() {
    for fail_after in [0, 600] {
        let both = both();
        many(&both);
        both.world.org.borrow_mut().change_settings(|settings| settings.bulk.fail_after = Some(fail_after));
        let report = both.sync(PEOPLE).await;
        let told_of_it = report.notes.iter().any(|note| note.contains("gave a Bulk job up"));
        assert!(told_of_it, "{report}", report = super::brief(&report));
        assert_eq!(report.outcome, Outcome::Done, "{report}", report = super::brief(&report));
        both.done(PEOPLE).await;
        assert_eq!(both.s_count(), MANY - 3, "given up after {fail_after} rows");
        assert_eq!((both.links().len(), both.refused().len()), (MANY - 3, 4), "given up after {fail_after} rows");
        both.assert_quiet(PEOPLE).await;
    }
}
