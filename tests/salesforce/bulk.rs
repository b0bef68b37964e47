//! Bulk jobs, step by step, each step in a process of its own.

use std::{collections::BTreeMap, time::Duration};

use hubferry::salesforce::{
    bulk::{Job, JobState, Operation, Upload},
    soql::Select,
    write::Verdict,
};
use hubferry_simulator::salesforce::{Fault, OrgSettings, What};

use super::*;

const KEY: &str = "HubSpot_Contact_Id__c";

fn upload(rows: &[Value]) -> Upload {
    let mut upload = Upload::new([KEY, "LastName", "Title", "HasOptedOutOfEmail"]).unwrap();
    for row in rows {
        assert!(upload.push(&values(row.clone())), "{row}");
    }
    upload
}

/// As it is stored between invocations.
fn stored(job: &Job) -> Job {
    serde_json::from_str(&serde_json::to_string(job).unwrap()).unwrap()
}

async fn finish(world: &World, job: &Job) -> JobState {
    for _ in 0..200 {
        let status = world.client().poll(job, NONE).await.unwrap();
        if status.state.is_over() {
            return status.state;
        }
        world.clock.sleep(Duration::from_secs(1)).await;
    }
    panic!("the job does not end");
}

#[tokio::test(start_paused = true)]
async fn an_ingest_job_goes_on_over_several_processes_and_tells_of_every_row() {
    let world = World::new(OrgSettings { seed: 2, ..OrgSettings::default() });
    world.contact("Old", &[(KEY, "3"), ("Title", "kept"), ("Department", "d")]);
    world.contact("Older", &[(KEY, "4"), ("Title", "cleared")]);
    let rows = [
        json!({KEY: "1", "LastName": "Comma, \"quote\"\nand line"}),
        json!({KEY: "2", "Title": "no last name"}),
        json!({KEY: "3", "LastName": " New ", "HasOptedOutOfEmail": true}),
        json!({KEY: "4", "LastName": "Newer", "Title": null}),
    ];
    let job = world.client().start_ingest("Contact", Operation::Upsert { key: KEY }, NONE).await.unwrap();
    let job = stored(&job);
    world.client().upload(&job, upload(&rows), NONE).await.unwrap();
    assert!(!world.client().poll(&job, NONE).await.unwrap().state.is_over(), "it takes its time");
    assert_eq!(finish(&world, &job).await, JobState::JobComplete);
    let status = world.client().poll(&job, NONE).await.unwrap();
    assert_eq!((status.number_records_processed, status.number_records_failed), (4, 1));
    let results = world.client().ingest_results(&job, KEY, NONE).await.unwrap();
    let by_key: BTreeMap<_, _> = results.iter().map(|row| (row.key.as_str(), &row.verdict)).collect();
    assert_eq!(by_key.len(), 4);
    assert!(matches!(by_key["1"], Verdict::Written { created: true, .. }));
    assert!(matches!(by_key["3"], Verdict::Written { created: false, .. }));
    let Verdict::Refused(refusal) = by_key["2"] else { panic!("{:?}", by_key["2"]) };
    assert_eq!(
        (refusal.code.as_str(), refusal.fields.as_slice()),
        ("REQUIRED_FIELD_MISSING", &["LastName".to_owned()][..])
    );
    let of = |key: &str| world.org.borrow().find_by("Contact", KEY, key).unwrap();
    assert_eq!(of("1")["LastName"], "Comma, \"quote\"\nand line");
    assert_eq!(
        (of("3")["Title"].as_str(), of("3")["HasOptedOutOfEmail"].as_str()),
        ("kept", "true"),
        "an absent field stays"
    );
    assert_eq!(of("4").get("Title"), None, "null clears");
    world.client().delete_job(&job, NONE).await.unwrap();
    world.client().delete_job(&job, NONE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lost_answers_at_every_step_leave_one_upload_and_one_record_each() {
    for (step, (path, method)) in
        [("/jobs/ingest", "POST"), ("/batches", "PUT"), ("/jobs/ingest/", "PATCH")].into_iter().enumerate()
    {
        for what in [What::ResetAfter, What::ResetBefore, What::TimeoutAfterCommit] {
            let faults = vec![Fault::always(what.clone()).on(path).method(method).times(1)];
            let world = World::new(OrgSettings { faults, ..OrgSettings::default() });
            let rows: Vec<_> = (0..450).map(|number| json!({KEY: number.to_string(), "LastName": "X"})).collect();
            let client = world.client();
            let job = client.start_ingest("Contact", Operation::Upsert { key: KEY }, NONE).await.unwrap();
            client.upload(&job, upload(&rows), NONE).await.unwrap();
            // The process died before it could note that the upload was done: it does it again.
            world.client().upload(&job, upload(&rows), NONE).await.unwrap();
            assert_eq!(finish(&world, &job).await, JobState::JobComplete, "step {step} {what:?}");
            assert_eq!(world.contacts(), 450);
            assert_eq!(world.client().ingest_results(&job, KEY, NONE).await.unwrap().len(), 450);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_says_why_and_an_aborted_one_leaves_its_rows_for_later() {
    let world = World::new(OrgSettings::default());
    let client = world.client();
    let job = client.start_ingest("Contact", Operation::Update, NONE).await.unwrap();
    let mut bad = Upload::new(["Id", "Nonsense__c"]).unwrap();
    assert!(bad.push(&values(json!({"Id": "003ak0000000001", "Nonsense__c": "x"}))));
    client.upload(&job, bad, NONE).await.unwrap();
    assert_eq!(finish(&world, &job).await, JobState::Failed);
    let status = client.poll(&job, NONE).await.unwrap();
    assert!(status.error_message.unwrap().contains("Nonsense__c"));

    let rows: Vec<_> = (0..1_000).map(|number| json!({KEY: number.to_string(), "LastName": "X"})).collect();
    let job = client.start_ingest("Contact", Operation::Upsert { key: KEY }, NONE).await.unwrap();
    client.upload(&job, upload(&rows), NONE).await.unwrap();
    while client.poll(&job, NONE).await.unwrap().number_records_processed < 400 {
        world.clock.sleep(Duration::from_millis(100)).await;
    }
    assert!(client.abort(&job, NONE).await.unwrap());
    assert!(!client.abort(&job, NONE).await.unwrap(), "it is over already");
    let results = client.ingest_results(&job, KEY, NONE).await.unwrap();
    let later = results.iter().filter(|row| matches!(row.verdict, Verdict::Later(_))).count();
    assert_eq!((results.len(), later + world.contacts()), (1_000, 1_000));
    assert!(later > 0);
}

#[tokio::test(start_paused = true)]
async fn an_unclosed_job_ends_by_itself() {
    let world = World::new(OrgSettings::default());
    let job = world.client().start_ingest("Contact", Operation::Delete, NONE).await.unwrap();
    world.clock.sleep(Duration::from_secs(25 * 3_600)).await;
    assert_eq!(world.client().poll(&job, NONE).await.unwrap().state, JobState::Aborted);
}

#[tokio::test(start_paused = true)]
async fn a_query_job_gives_all_rows_page_by_page_and_again() {
    let world = World::new(OrgSettings::default());
    let account = world.org.borrow_mut().create(world.clock.now(), "Account", &[("Name", "Acme, Inc.")]).unwrap();
    for number in 0..250 {
        world.contact(&format!("Line\nbreak {number}"), &[("AccountId", &account)]);
    }
    let client = world.client();
    let select = Select::from("Contact").unwrap().fields(["LastName", "Account.Name", "Title"]).unwrap();
    let job = stored(&client.start_query(&select, false, NONE).await.unwrap());
    assert!(client.query_results(&job, None, NONE).await.is_err(), "not before it is complete");
    assert_eq!(finish(&world, &job).await, JobState::JobComplete);
    let page = client.query_results(&job, None, NONE).await.unwrap();
    assert_eq!(page.columns, ["Id", "LastName", "Account.Name", "Title"]);
    assert_eq!((page.rows.len(), page.next.as_deref()), (250, None));
    assert_eq!(page.rows[7][1..], ["Line\nbreak 7", "Acme, Inc.", ""]);
    assert_eq!(client.query_results(&job, None, NONE).await.unwrap(), page);
}

#[test]
fn what_csv_cannot_say_goes_another_way() {
    let mut upload = Upload::new(["LastName", "Title"]).unwrap();
    assert!(upload.push(&values(json!({"LastName": "fine", "Title": ""}))));
    for odd in [json!({"LastName": "#N/A"}), json!({"LastName": {"a": 1}}), json!({"Phone": "no column"})] {
        assert!(!upload.push(&values(odd)));
    }
    assert_eq!(upload.rows(), 1);
    assert!(Upload::new(["Last Name"]).is_err());
}
