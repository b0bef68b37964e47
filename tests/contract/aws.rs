//! The doors of AWS keep their contracts against the embedded services, and survive what those do on a bad day.

use std::time::Duration;

use bytes::Bytes;
use hubferry::{
    ErrorKind,
    aws::{Clients, stand_in},
    codes,
    objects::{Location, Objects, s3::S3},
    queue::{Queue, Sqs},
    secrets::SecretsManager,
    state::{Changed, Condition, Key, Table, Update, dynamo::DynamoTable},
};
use hubferry_simulator::aws::{Cloud, CloudSettings, Fault, Service, When};

use super::{objects::objects_contract, secrets::secrets_contract, table::table_contract};

fn cloud() -> Cloud {
    let cloud = Cloud::start(CloudSettings {
        buckets: vec!["versioned".to_owned()],
        table: Some("state".to_owned()),
        queues: vec![("runs".to_owned(), Duration::from_secs(30), None)],
        ..CloudSettings::default()
    })
    .unwrap();
    cloud.s3().create_bucket("plain", false);
    cloud
}

fn clients(cloud: &Cloud, service: Service) -> Clients {
    Clients::new(&stand_in(&cloud.addresses().url(service)))
}

fn s3(cloud: &Cloud) -> S3 {
    S3::new(clients(cloud, Service::S3).s3)
}

/// Bytes that differ everywhere.
fn content(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251) as u8 ^ (at >> 16) as u8).collect()
}

#[tokio::test]
async fn s3_keeps_the_contract_of_objects() {
    let cloud = cloud();
    objects_contract(&s3(&cloud), "plain").await;
    // The contract's uploads of 8 and of 17 MiB went in parts, the small ones did not.
    assert_eq!(cloud.recorder().count(Service::S3, "UploadPart"), 1 + 3);
    assert_eq!(cloud.recorder().count(Service::S3, "CompleteMultipartUpload"), 2);
}

#[tokio::test]
async fn a_version_in_s3_is_read_after_it_was_overwritten_and_deleted() {
    let cloud = cloud();
    let objects = s3(&cloud);
    let at = Location::new("versioned", "in/ü + 1%.csv");
    objects.put(&at, Bytes::from_static(b"first"), "text/csv").await.unwrap();
    let first = objects.head(&at, None).await.unwrap();
    assert!(first.version_id.is_some());
    objects.put(&at, Bytes::from_static(b"second"), "text/csv").await.unwrap();
    assert_eq!(objects.read(&first, 0..99).await.unwrap(), "first");
    objects.delete(&at).await.unwrap();
    assert_eq!(objects.read(&first, 1..3).await.unwrap(), "ir");
    assert_eq!(objects.head(&at, first.version_id.as_deref()).await.unwrap(), first);
    assert_eq!(objects.head(&at, None).await.unwrap_err().code(), codes::SOURCE_GONE);
    let error = objects.head(&at, Some("none")).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, codes::SOURCE_GONE));
}

#[tokio::test]
async fn a_body_that_is_cut_again_and_again_is_read_whole() {
    let cloud = cloud();
    let objects = s3(&cloud);
    let (at, body) = (Location::new("versioned", "large"), content(3 << 20));
    objects.put(&at, body.clone(), "text/csv").await.unwrap();
    let object = objects.head(&at, None).await.unwrap();
    for after in [0, 1, 70_000] {
        let before = cloud.recorder().count(Service::S3, "GetObject");
        cloud.faults().inject_on(Service::S3, "GetObject", None, Fault::CutBody { after }, When::Next(2));
        let read = objects.read(&object, 5..(2 << 20)).await.unwrap();
        assert!(read == body.slice(5..(2 << 20)), "cut after {after}: other bytes");
        assert!(cloud.recorder().count(Service::S3, "GetObject") > before + 2, "cut after {after}: nothing was cut");
    }
}

#[tokio::test]
async fn an_object_that_is_overwritten_between_a_cut_and_its_resumption_is_not_mixed() {
    let cloud = cloud();
    let objects = s3(&cloud);
    let at = Location::new("plain", "large");
    objects.put(&at, content(200_000), "text/csv").await.unwrap();
    let object = objects.head(&at, None).await.unwrap();
    cloud.faults().inject_on(Service::S3, "GetObject", None, Fault::CutBody { after: 70_000 }, When::Next(1));
    let read = objects.read(&object, 0..200_000);
    let overwrite = async {
        // As soon as the first part has been asked for.
        while cloud.recorder().count(Service::S3, "GetObject") == 0 {
            tokio::task::yield_now().await;
        }
        cloud.s3().put("plain", "large", vec![b'x'; 200_000]).unwrap();
    };
    let (read, ()) = tokio::join!(read, overwrite);
    match read {
        Err(error) => assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::SOURCE_CHANGED)),
        // The rest was asked for before the new object was there.
        Ok(bytes) => assert!(bytes == content(200_000), "two versions in one read"),
    }
}

#[tokio::test]
async fn s3_that_is_busy_or_refuses_connections_for_a_moment_is_asked_again() {
    let cloud = cloud();
    let objects = s3(&cloud);
    let at = Location::new("versioned", "a");
    for fault in [Fault::slow_down(), Fault::internal_error(), Fault::Refuse, Fault::LoseAnswer] {
        cloud.faults().inject(Service::S3, fault.clone(), When::Next(1));
        objects.put(&at, Bytes::from_static(b"abc"), "text/csv").await.unwrap();
        cloud.faults().inject(Service::S3, fault.clone(), When::Next(1));
        let object = objects.head(&at, None).await.unwrap();
        cloud.faults().inject(Service::S3, fault.clone(), When::Next(1));
        assert_eq!(objects.read(&object, 0..3).await.unwrap(), "abc", "{fault:?}");
    }
}

#[tokio::test]
async fn a_bucket_that_may_not_be_read_says_which_permission_is_missing() {
    let cloud = cloud();
    let objects = s3(&cloud);
    let at = Location::new("versioned", "a");
    objects.put(&at, Bytes::from_static(b"abc"), "text/csv").await.unwrap();
    let object = objects.head(&at, None).await.unwrap();
    cloud.faults().inject(Service::S3, Fault::error(403, "AccessDenied"), When::Next(1));
    let error = objects.read(&object, 0..3).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Forbidden, codes::SOURCE_FORBIDDEN));
    assert!(error.hint().contains("s3:GetObject"), "{}", error.hint());
    cloud.faults().inject(Service::S3, Fault::error(403, "AccessDenied"), When::Next(1));
    let error = objects.put(&at, Bytes::new(), "text/csv").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Forbidden, codes::OBJECTS_FORBIDDEN));
}

#[tokio::test]
async fn the_embedded_dynamodb_keeps_the_contract_of_a_table() {
    let cloud = cloud();
    table_contract(&DynamoTable::new(clients(&cloud, Service::DynamoDb).dynamodb, "state")).await;
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_made_once_and_shows_the_item() {
    let cloud = cloud();
    let table = DynamoTable::new(clients(&cloud, Service::DynamoDb).dynamodb, "state");
    let key = Key::new("lost", "one");
    let change = || Update {
        set: vec![("owner", "me".into())],
        add: vec![("fence", 1)],
        condition: Some(Condition::Absent("owner")),
        ..Update::default()
    };
    cloud.faults().inject_on(Service::DynamoDb, "UpdateItem", None, Fault::LoseAnswer, When::Next(1));
    // The second attempt meets what the first one wrote: whoever asks has to look whose it is.
    match table.update(&key, change()).await.unwrap() {
        Changed::No(Some(item)) => assert_eq!(item.get("owner"), Some(&"me".into())),
        other => panic!("the first attempt was carried out: {other:?}"),
    }
    assert_eq!(table.get(&key).await.unwrap().unwrap().get("fence"), Some(&1.into()));
    let key = Key::new("lost", "two");
    cloud.faults().inject_on(Service::DynamoDb, "UpdateItem", None, Fault::throughput_exceeded(), When::Next(2));
    assert!(matches!(table.update(&key, change()).await.unwrap(), Changed::Yes(_)));
}

#[tokio::test]
async fn secrets_manager_keeps_the_contract_of_secrets() {
    let cloud = cloud();
    let secrets = SecretsManager::new(clients(&cloud, Service::SecretsManager).secrets);
    cloud.secrets().put("hubferry/crm", "first");
    secrets_contract(&secrets, "hubferry/crm").await;
    cloud.faults().inject(Service::SecretsManager, Fault::internal_service_error(), When::Next(2));
    let value = hubferry::secrets::Secrets::get(&secrets, "hubferry/crm").await.unwrap();
    assert_eq!(Some(value.expose()), cloud.secrets().current("hubferry/crm").as_deref());
}

#[tokio::test]
async fn messages_reach_the_queue_whole_and_after_their_delay() {
    let cloud = cloud();
    let client = clients(&cloud, Service::Sqs).sqs;
    let queue = Sqs::new(client.clone(), cloud.sqs().url("runs"));
    let bodies = [r#"{"job":"resume","run_id":"01J"}"#, "ü\n\"<&>\"", "late", "very late"];
    for (body, delay) in bodies.iter().zip([0, 0, 900, u16::MAX]) {
        queue.send(body, delay).await.unwrap();
    }
    assert_eq!(cloud.sqs().depth("runs"), (2, 0, 2));
    let mut received: Vec<String> =
        cloud.sqs().receive("runs", 10, None).into_iter().map(|message| message.body).collect();
    cloud.clock().advance(Duration::from_secs(901));
    received.extend(
        cloud.sqs().receive("runs", 10, Some(Duration::from_secs(900))).into_iter().map(|message| message.body),
    );
    for body in bodies {
        assert!(received.iter().any(|received| received == body), "{body}: {received:?}");
    }

    let error = Sqs::new(client, cloud.sqs().url("none")).send("x", 0).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::AWS_UNAVAILABLE));
    assert!(error.message().contains("none"), "{}", error.message());
    cloud.faults().inject(Service::Sqs, Fault::Refuse, When::Next(1));
    queue.send("again", 0).await.unwrap();
}
