//! The embedded AWS, seen by the real SDK clients over loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig};
use aws_sdk_dynamodb::{
    config::{Credentials, SharedCredentialsProvider},
    types::AttributeValue,
};
use aws_sdk_s3::{
    error::ProvideErrorMetadata,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use hubferry_simulator::aws::{
    Bodies, Cloud, CloudSettings, Fault, LambdaError, Mapping, Rule, Service, Target, When,
    events::{self, Shape},
};
use serde_json::{Value, json};

fn settings() -> CloudSettings {
    CloudSettings {
        buckets: vec!["files".to_owned()],
        table: Some("state".to_owned()),
        queues: vec![("work".to_owned(), Duration::from_secs(60), Some(("dead".to_owned(), 2)))],
        timeout: Duration::from_secs(60),
        ..CloudSettings::default()
    }
}

fn sdk(cloud: &Cloud, service: Service) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .endpoint_url(cloud.addresses().url(service))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test")))
        .retry_config(RetryConfig::disabled())
        .build()
}

fn s3(cloud: &Cloud) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::new(&sdk(cloud, Service::S3))
}

fn code<T, E: ProvideErrorMetadata>(result: Result<T, E>) -> String {
    result.err().and_then(|error| error.code().map(str::to_owned)).unwrap_or_default()
}

#[tokio::test]
async fn a_small_object_comes_back_with_its_version_and_ranges_of_it() {
    let cloud = Cloud::start(settings()).unwrap();
    let s3 = s3(&cloud);
    let key = "in/a b+é/contacts.csv";
    let put = s3
        .put_object()
        .bucket("files")
        .key(key)
        .content_type("text/csv")
        .metadata("run", "7")
        .body(ByteStream::from_static(b"0123456789"))
        .send()
        .await
        .unwrap();
    assert_eq!(put.e_tag(), Some("\"781e5e245d69b566979b86e28d23f2c7\""));
    let version = put.version_id().unwrap().to_owned();

    let get = s3.get_object().bucket("files").key(key).version_id(&version).send().await.unwrap();
    assert_eq!(get.content_type(), Some("text/csv"));
    assert_eq!(get.metadata().unwrap()["run"], "7");
    assert_eq!(get.body.collect().await.unwrap().to_vec(), b"0123456789");
    for (range, expected, shown) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let get =
            s3.get_object().bucket("files").key(key).range(range).if_match(put.e_tag().unwrap()).send().await.unwrap();
        assert_eq!(get.content_range(), Some(shown));
        assert_eq!(get.body.collect().await.unwrap().to_vec(), expected.as_bytes(), "{range}");
    }
    let beyond = s3.get_object().bucket("files").key(key).range("bytes=10-").send().await;
    assert_eq!(code(beyond), "InvalidRange");
    let head = s3.head_object().bucket("files").key(key).send().await.unwrap();
    assert_eq!((head.content_length(), head.version_id()), (Some(10), Some(version.as_str())));
    assert!(s3.head_object().bucket("files").key("none").send().await.unwrap_err().into_service_error().is_not_found());
}

#[tokio::test]
async fn conditions_hold_on_reads_and_writes() {
    let cloud = Cloud::start(settings()).unwrap();
    let s3 = s3(&cloud);
    let put = |body: &'static [u8]| s3.put_object().bucket("files").key("k").body(ByteStream::from_static(body));
    let first = put(b"one").if_none_match("*").send().await.unwrap();
    assert_eq!(code(put(b"two").if_none_match("*").send().await), "PreconditionFailed");
    let second = put(b"two").if_match(first.e_tag().unwrap()).send().await.unwrap();
    assert_eq!(code(put(b"three").if_match(first.e_tag().unwrap()).send().await), "PreconditionFailed");

    let get = || s3.get_object().bucket("files").key("k");
    assert_eq!(code(get().if_match(first.e_tag().unwrap()).send().await), "PreconditionFailed");
    let unchanged = get().if_none_match(second.e_tag().unwrap()).send().await.unwrap_err();
    assert_eq!(unchanged.raw_response().unwrap().status().as_u16(), 304);
    assert_eq!(code(s3.get_object().bucket("files").key("none").send().await), "NoSuchKey");
    assert_eq!(code(s3.get_object().bucket("none").key("k").send().await), "NoSuchBucket");

    // A deleted object is gone, its old version is not.
    s3.delete_object().bucket("files").key("k").send().await.unwrap();
    assert_eq!(code(get().send().await), "NoSuchKey");
    let old = get().version_id(first.version_id().unwrap()).send().await.unwrap();
    assert_eq!(old.body.collect().await.unwrap().to_vec(), b"one");
}

#[tokio::test]
async fn a_streamed_upload_is_stored_without_its_framing() {
    let folder = std::env::temp_dir().join(format!("hubferry-aws-test-{}", std::process::id()));
    let cloud = Cloud::start(CloudSettings { bodies: Bodies::Folder(folder.clone()), ..settings() }).unwrap();
    let s3 = s3(&cloud);
    let content: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
    let file = folder.join("upload.csv");
    std::fs::write(&file, &content).unwrap();
    let body = ByteStream::from_path(&file).await.unwrap();
    s3.put_object().bucket("files").key("in/big.csv").body(body).send().await.unwrap();
    let get = s3.get_object().bucket("files").key("in/big.csv").send().await.unwrap();
    assert!(get.body.collect().await.unwrap().to_vec() == content);
    drop((s3, cloud));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_wrong_checksum_is_refused_and_nothing_is_stored() {
    let cloud = Cloud::start(settings()).unwrap();
    let s3 = s3(&cloud);
    let put = s3.put_object().bucket("files").key("k").body(ByteStream::from_static(b"abc"));
    assert_eq!(code(put.checksum_crc32("AAAAAA==").send().await), "BadDigest");
    assert!(cloud.s3().keys("files", "").is_empty());
}

#[tokio::test]
async fn an_upload_in_parts_has_an_etag_of_parts() {
    let cloud = Cloud::start(CloudSettings { minimum_part_bytes: 4, ..settings() }).unwrap();
    let s3 = s3(&cloud);
    let upload = s3.create_multipart_upload().bucket("files").key("p").send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let mut parts = Vec::new();
    for (number, body) in [(1, b"part one, ".as_slice()), (2, b"two")] {
        let part = s3
            .upload_part()
            .bucket("files")
            .key("p")
            .upload_id(id)
            .part_number(number)
            .body(ByteStream::from_static(body))
            .send()
            .await
            .unwrap();
        parts.push(CompletedPart::builder().part_number(number).e_tag(part.e_tag().unwrap()).build());
    }
    assert_eq!(code(s3.get_object().bucket("files").key("p").send().await), "NoSuchKey");
    let complete = |id: &str, parts: Vec<CompletedPart>| {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        s3.complete_multipart_upload().bucket("files").key("p").upload_id(id).multipart_upload(parts).send()
    };
    let swapped = parts.iter().rev().cloned().collect();
    assert_eq!(code(complete(id, swapped).await), "InvalidPartOrder");
    let done = complete(id, parts.clone()).await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""), "{done:?}");
    let get = s3.get_object().bucket("files").key("p").range("bytes=8-11").send().await.unwrap();
    assert_eq!(get.body.collect().await.unwrap().to_vec(), b", tw", "a range over the border of two parts");
    assert_eq!(cloud.s3().read("files", "p").unwrap(), "part one, two");
    assert_eq!(code(complete(id, parts).await), "NoSuchUpload");
}

#[tokio::test]
async fn a_listing_comes_in_pages_and_in_groups() {
    let cloud = Cloud::start(settings()).unwrap();
    for key in ["a/1", "a/2", "a/é & <3>", "b/1", "c"] {
        cloud.s3().put("files", key, key.as_bytes()).unwrap();
    }
    let s3 = s3(&cloud);
    let mut seen = Vec::new();
    let mut pages = s3.list_objects_v2().bucket("files").max_keys(2).into_paginator().send();
    while let Some(page) = pages.next().await {
        seen.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(seen, ["a/1", "a/2", "a/é & <3>", "b/1", "c"]);
    let mut seen = Vec::new();
    let mut pages = s3.list_objects_v2().bucket("files").delimiter("/").max_keys(1).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        seen.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
        seen.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(seen, ["a/", "b/", "c"]);
}

#[tokio::test]
async fn a_file_of_fifty_gigabytes_is_read_in_ranges_without_being_anywhere() {
    let cloud = Cloud::start(settings()).unwrap();
    let size = 50_000_000_000;
    let generator = Arc::new(|range: std::ops::Range<u64>| range.map(|at| (at % 251) as u8).collect());
    cloud.s3().put_generated("files", "huge", size, generator).unwrap();
    let s3 = s3(&cloud);
    let get = s3.get_object().bucket("files").key("huge").range("bytes=49999000000-49999599999").send().await.unwrap();
    let bytes = get.body.collect().await.unwrap().to_vec();
    assert!(bytes.iter().zip(49_999_000_000u64..).all(|(byte, at)| *byte == (at % 251) as u8));
    assert_eq!(bytes.len(), 600_000);
}

#[tokio::test]
async fn faults_come_as_they_were_armed_and_only_so_often() {
    let cloud = Cloud::start(settings()).unwrap();
    cloud.s3().put("files", "k", vec![7; 600_000]).unwrap();
    let s3 = s3(&cloud);
    let get = || s3.get_object().bucket("files").key("k").send();
    cloud.faults().inject(Service::S3, Fault::slow_down(), When::Next(2));
    assert_eq!(code(get().await), "SlowDown");
    assert_eq!(code(get().await), "SlowDown");
    cloud.faults().inject(Service::S3, Fault::CutBody { after: 300_000 }, When::Next(1));
    assert!(get().await.unwrap().body.collect().await.is_err(), "the body was cut");
    assert_eq!(get().await.unwrap().body.collect().await.unwrap().to_vec().len(), 600_000);

    cloud.faults().inject_on(Service::S3, "PutObject", Some("files/lost"), Fault::LoseAnswer, When::Next(1));
    assert!(s3.put_object().bucket("files").key("lost").body(ByteStream::from_static(b"x")).send().await.is_err());
    assert_eq!(cloud.s3().read("files", "lost").unwrap(), "x");

    cloud.faults().inject(Service::DynamoDb, Fault::Refuse, When::For(Duration::from_secs(10)));
    let dynamodb = aws_sdk_dynamodb::Client::new(&sdk(&cloud, Service::DynamoDb));
    assert!(dynamodb.list_tables().send().await.is_err());
    cloud.clock().advance(Duration::from_secs(10));
    assert_eq!(dynamodb.list_tables().send().await.unwrap().table_names(), ["state"]);
    cloud.faults().inject(Service::DynamoDb, Fault::throughput_exceeded(), When::Next(1));
    let error = dynamodb.describe_table().table_name("state").send().await.unwrap_err();
    assert_eq!(error.code(), Some("ProvisionedThroughputExceededException"));
}

#[tokio::test]
async fn one_of_sixty_four_racers_gets_the_lease() {
    let cloud = Cloud::start(settings()).unwrap();
    let client = aws_sdk_dynamodb::Client::new(&sdk(&cloud, Service::DynamoDb));
    let racers = (0..64).map(|racer| {
        client
            .update_item()
            .table_name("state")
            .key("pk", AttributeValue::S("lease".into()))
            .key("sk", AttributeValue::S("import".into()))
            .update_expression("SET #o = :me, expires = :exp ADD fence :one")
            .condition_expression("attribute_not_exists(expires) OR expires < :now")
            .expression_attribute_names("#o", "owner")
            .expression_attribute_values(":me", AttributeValue::S(racer.to_string()))
            .expression_attribute_values(":exp", AttributeValue::N("200".into()))
            .expression_attribute_values(":now", AttributeValue::N("100".into()))
            .expression_attribute_values(":one", AttributeValue::N("1".into()))
            .send()
    });
    let results = futures_util::future::join_all(racers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .all(|error| error.code() == Some("ConditionalCheckFailedException"))
    );
    assert_eq!(cloud.recorder().count(Service::DynamoDb, "UpdateItem"), 64);
    assert_eq!(cloud.recorder().writes(), 1);
    let permissions = cloud.recorder().permissions();
    assert_eq!(permissions.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["dynamodb:UpdateItem"]);
}

#[tokio::test]
async fn a_token_names_a_version_and_stages_move_as_they_should() {
    let cloud = Cloud::start(settings()).unwrap();
    let client = aws_sdk_secretsmanager::Client::new(&sdk(&cloud, Service::SecretsManager));
    let token = |digit: &str| digit.repeat(32);
    let missing = client.get_secret_value().secret_id("none").send().await.unwrap_err();
    assert!(missing.into_service_error().is_resource_not_found_exception());
    let create =
        |value: &str| client.create_secret().name("s").client_request_token(token("1")).secret_string(value).send();
    create("one").await.unwrap();
    create("one").await.expect("the same again is the same answer");
    assert!(create("other").await.unwrap_err().into_service_error().is_resource_exists_exception());

    let put = |digit: &str, value: &str| {
        client.put_secret_value().secret_id("s").client_request_token(token(digit)).secret_string(value)
    };
    put("2", "two").send().await.unwrap();
    put("2", "two").send().await.expect("the same again changes nothing");
    assert!(put("2", "other").send().await.unwrap_err().into_service_error().is_resource_exists_exception());
    let read = |stage: &str| client.get_secret_value().secret_id("s").version_stage(stage).send();
    assert_eq!(read("AWSCURRENT").await.unwrap().secret_string(), Some("two"));
    assert_eq!(read("AWSPREVIOUS").await.unwrap().secret_string(), Some("one"));

    put("3", "three").version_stages("AWSPENDING").send().await.unwrap();
    assert_eq!(read("AWSCURRENT").await.unwrap().secret_string(), Some("two"));
    let promote = || {
        client.update_secret_version_stage().secret_id("s").version_stage("AWSCURRENT").move_to_version_id(token("3"))
    };
    let refused = promote().send().await.unwrap_err();
    assert!(refused.into_service_error().is_invalid_parameter_exception(), "the holder must be named");
    promote().remove_from_version_id(token("2")).send().await.unwrap();
    assert_eq!(read("AWSCURRENT").await.unwrap().secret_string(), Some("three"));
    assert_eq!(read("AWSPREVIOUS").await.unwrap().secret_string(), Some("two"));
    let described = client.describe_secret().secret_id("s").send().await.unwrap();
    assert_eq!(described.version_ids_to_stages().unwrap().len(), 2, "the first has no label any more");
    client.delete_secret().secret_id("s").send().await.unwrap();
    assert!(read("AWSCURRENT").await.unwrap_err().into_service_error().is_invalid_request_exception());
}

#[tokio::test]
async fn a_message_comes_back_and_ends_in_the_dead_letter_queue() {
    let cloud = Cloud::start(settings()).unwrap();
    let client = aws_sdk_sqs::Client::new(&sdk(&cloud, Service::Sqs));
    let url = client.get_queue_url().queue_name("work").send().await.unwrap().queue_url().unwrap().to_owned();
    client.send_message().queue_url(&url).message_body("hello").delay_seconds(30).send().await.unwrap();
    let receive = |url: &str| client.receive_message().queue_url(url).max_number_of_messages(10).send();
    assert!(receive(&url).await.unwrap().messages().is_empty(), "it is delayed");
    cloud.clock().advance(Duration::from_secs(30));
    let first = receive(&url).await.unwrap().messages().first().unwrap().clone();
    assert_eq!(first.body(), Some("hello"));
    assert!(receive(&url).await.unwrap().messages().is_empty(), "it is in flight");
    client
        .change_message_visibility()
        .queue_url(&url)
        .receipt_handle(first.receipt_handle().unwrap())
        .visibility_timeout(0)
        .send()
        .await
        .unwrap();
    let second = receive(&url).await.unwrap().messages().first().unwrap().clone();
    assert_eq!(second.message_id(), first.message_id());
    cloud.clock().advance(Duration::from_secs(60));
    assert!(receive(&url).await.unwrap().messages().is_empty(), "it came back too often");
    let dead = client.get_queue_url().queue_name("dead").send().await.unwrap().queue_url().unwrap().to_owned();
    let message = receive(&dead).await.unwrap().messages().first().unwrap().clone();
    client.delete_message().queue_url(&dead).receipt_handle(message.receipt_handle().unwrap()).send().await.unwrap();
    assert_eq!(cloud.sqs().depth("dead"), (0, 0, 0));
    let missing = client.get_queue_url().queue_name("none").send().await.unwrap_err();
    assert!(missing.into_service_error().is_queue_does_not_exist());
}

/// One request over a bare socket, as a function's process makes it.
async fn call(cloud: &Cloud, head: &str, body: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(cloud.addresses().of(Service::Lambda)).await.unwrap();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn header(head: &str, name: &str) -> String {
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap().to_owned()
}

const RUNTIME: &str = "/2018-06-01/runtime";

#[tokio::test]
async fn a_process_takes_an_invocation_and_its_caller_gets_the_answer() {
    let cloud = Cloud::start(settings()).unwrap();
    let process = async {
        let (head, body) = call(&cloud, &format!("GET {RUNTIME}/invocation/next"), "").await;
        assert_eq!(body, r#"{"n":1}"#);
        let id = header(&head, "lambda-runtime-aws-request-id");
        assert!(header(&head, "lambda-runtime-deadline-ms").parse::<i64>().unwrap() > 1_700_000_000_000);
        assert!(header(&head, "lambda-runtime-invoked-function-arn").ends_with(":function:hubferry"));
        let (head, _) = call(&cloud, &format!("POST {RUNTIME}/invocation/{id}/response"), r#"{"n":2}"#).await;
        assert!(head.starts_with("HTTP/1.1 202"));
        let (again, _) = call(&cloud, &format!("POST {RUNTIME}/invocation/{id}/response"), "{}").await;
        assert!(again.starts_with("HTTP/1.1 400"), "answered twice");
        let (head, _) = call(&cloud, &format!("GET {RUNTIME}/invocation/next"), "").await;
        let id = header(&head, "lambda-runtime-aws-request-id");
        let error = r#"{"errorType":"Oops","errorMessage":"bad"}"#;
        call(&cloud, &format!("POST {RUNTIME}/invocation/{id}/error"), error).await;
    };
    let caller = async {
        let (_, body) = call(&cloud, "POST /2015-03-31/functions/hubferry/invocations", r#"{"n":1}"#).await;
        assert_eq!(body, r#"{"n":2}"#);
        let (head, body) = call(&cloud, "POST /2015-03-31/functions/hubferry/invocations", "{}").await;
        assert_eq!(header(&head, "x-amz-function-error"), "Unhandled");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["errorType"], "Oops");
    };
    tokio::join!(process, caller);
}

#[tokio::test]
async fn a_process_that_dies_leaves_a_time_out() {
    let cloud = Cloud::start(settings()).unwrap();
    let payload = json!({});
    let caller = cloud.functions().invoke(&payload, Duration::from_secs(60));
    let process = async {
        let taken = cloud.functions().next().await;
        cloud.clock().advance(Duration::from_secs(61));
        taken
    };
    let (outcome, taken) = tokio::join!(caller, process);
    assert_eq!(outcome, Err(LambdaError::TimedOut));
    assert!(!cloud.functions().respond(&taken.id, Ok(Value::Null)), "too late");
}

#[tokio::test]
async fn an_upload_wakes_the_function_until_it_takes_the_message() {
    let rule = Rule {
        bucket: "files".to_owned(),
        prefix: "in/".to_owned(),
        shape: Shape::EventBridge,
        target: Target::Queue("work".to_owned()),
    };
    let mapping = Mapping { queue: "work".to_owned(), maximum_concurrency: 2 };
    let cloud = Cloud::start(CloudSettings { rules: vec![rule], mappings: vec![mapping], ..settings() }).unwrap();
    let s3 = s3(&cloud);
    s3.put_object().bucket("files").key("out/x").body(ByteStream::from_static(b"x")).send().await.unwrap();
    s3.put_object().bucket("files").key("in/a b.csv").body(ByteStream::from_static(b"x")).send().await.unwrap();

    let first = cloud.functions().next().await;
    let event: Value = serde_json::from_slice(&first.payload).unwrap();
    let message = &event["Records"][0];
    let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["detail-type"], "Object Created");
    assert_eq!(body["detail"]["object"]["key"], "in/a b.csv");
    let failed = json!({ "batchItemFailures": [{ "itemIdentifier": message["messageId"] }] });
    assert!(cloud.functions().respond(&first.id, Ok(failed)));
    // Until the mapping has seen the answer, the message is simply in flight: moving the clock is safe either way.
    cloud.clock().advance(Duration::from_secs(30));
    assert_eq!(cloud.sqs().depth("work"), (0, 1, 0));
    cloud.clock().advance(Duration::from_secs(30));
    let second = cloud.functions().next().await;
    let event: Value = serde_json::from_slice(&second.payload).unwrap();
    assert_eq!(event["Records"][0]["attributes"]["ApproximateReceiveCount"], "2");
    cloud.functions().respond(&second.id, Ok(json!({ "batchItemFailures": [] })));
    for _ in 0..1000 {
        if cloud.sqs().depth("work") == (0, 0, 0) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the message is still there: {:?}", cloud.sqs().depth("work"));
}

#[tokio::test]
async fn each_shape_of_an_event_names_the_object_its_own_way() {
    let cloud = Cloud::start(settings()).unwrap();
    let first = cloud.s3().put("files", "in/a b+é.csv", "x").unwrap();
    let second = cloud.s3().put("files", "in/a b+é.csv", "y").unwrap();
    assert!(second.sequencer > first.sequencer && second.sequencer.len() == first.sequencer.len());
    let record = &events::s3_notification(&first)["Records"][0];
    assert_eq!(record["s3"]["object"]["key"], "in/a+b%2B%C3%A9.csv");
    assert_eq!(record["s3"]["object"]["eTag"], first.etag);
    assert_eq!(record["s3"]["object"]["versionId"], first.version_id.clone().unwrap());
    let object = &events::eventbridge(&first)["detail"]["object"];
    assert_eq!(object["key"], "in/a b+é.csv");
    assert_eq!((&object["etag"], &object["version-id"]), (&json!(first.etag), &json!(first.version_id)));
    let wrapped = events::in_sqs("work", &[events::eventbridge(&first)]);
    let body: Value = serde_json::from_str(wrapped["Records"][0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(&body["detail"]["object"], object);
}

#[tokio::test]
async fn a_dropped_cloud_answers_nothing() {
    let cloud = Cloud::start(settings()).unwrap();
    let addresses = cloud.addresses();
    let client = s3(&cloud);
    client.list_buckets().send().await.unwrap();
    drop(cloud);
    tokio::task::yield_now().await;
    assert!(client.list_buckets().send().await.is_err());
    assert!(tokio::net::TcpStream::connect(addresses.of(Service::S3)).await.is_err());
}

#[tokio::test]
async fn objects_that_are_kept_are_there_in_the_next_cloud_and_what_was_removed_is_not() {
    let folder = std::env::temp_dir().join(format!("hubferry-aws-kept-{}", std::process::id()));
    let kept = || CloudSettings { bodies: Bodies::Kept(folder.clone()), minimum_part_bytes: 4, ..settings() };
    let cloud = Cloud::start(kept()).unwrap();
    let client = s3(&cloud);
    let put = async |key: &str, text: &'static [u8]| {
        client.put_object().bucket("files").key(key).body(ByteStream::from_static(text)).send().await.unwrap()
    };
    let first = put("in/a", b"one").await;
    put("in/a", b"two").await;
    put("in/gone", b"x").await;
    client.delete_object().bucket("files").key("in/gone").send().await.unwrap();
    let doomed = put("in/doomed", b"y").await;
    client
        .delete_object()
        .bucket("files")
        .key("in/doomed")
        .version_id(doomed.version_id().unwrap())
        .send()
        .await
        .unwrap();
    let id = client.create_multipart_upload().bucket("files").key("in/p").send().await.unwrap();
    let id = id.upload_id().unwrap();
    let part = async |number: i32, text: &'static [u8]| {
        let part = client.upload_part().bucket("files").key("in/p").upload_id(id).part_number(number);
        let part = part.body(ByteStream::from_static(text)).send().await.unwrap();
        CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).build()
    };
    let parts =
        CompletedMultipartUpload::builder().parts(part(1, b"part one, ").await).parts(part(2, b"two").await).build();
    client
        .complete_multipart_upload()
        .bucket("files")
        .key("in/p")
        .upload_id(id)
        .multipart_upload(parts)
        .send()
        .await
        .unwrap();
    // Without HTTP too, from memory and from a file; and an upload that is never completed.
    cloud.s3().put("files", "in/memory", "bytes").unwrap();
    let file = folder.join("source.csv");
    std::fs::write(&file, "from a file").unwrap();
    let created = cloud.s3().put_file("files", "in/file", &file).unwrap().unwrap();
    let open = client.create_multipart_upload().bucket("files").key("in/open").send().await.unwrap();
    let open = client.upload_part().bucket("files").key("in/open").upload_id(open.upload_id().unwrap()).part_number(1);
    open.body(ByteStream::from_static(b"left over")).send().await.unwrap();
    let before = cloud.s3().list_objects("files", "in/");
    drop((client, cloud));
    // A line that a crash cut off.
    let journal = folder.join("index.jsonl");
    let mut text = std::fs::read_to_string(&journal).unwrap();
    text.push_str("{\"version\":{\"bucket\":\"files\",\"key\":\"in/half");
    std::fs::write(&journal, text).unwrap();

    let cloud = Cloud::start(kept()).unwrap();
    assert_eq!(cloud.s3().list_objects("files", "in/"), before);
    let keys: Vec<String> = before.iter().map(|object| object.key.clone()).collect();
    assert_eq!(keys, ["in/a", "in/file", "in/memory", "in/p"]);
    assert_eq!(cloud.s3().read("files", "in/p").as_deref(), Some(&b"part one, two"[..]));
    assert_eq!(cloud.s3().read("files", "in/file").as_deref(), Some(&b"from a file"[..]));
    let client = s3(&cloud);
    let old =
        client.get_object().bucket("files").key("in/a").version_id(first.version_id().unwrap()).send().await.unwrap();
    assert_eq!(old.body.collect().await.unwrap().to_vec(), b"one", "older versions too");
    let later = cloud.s3().put("files", "in/later", "z").unwrap();
    assert!(later.sequencer > created.sequencer, "events stay in order over the start");
    let bodies = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "body"));
    assert_eq!(
        bodies.count(),
        8,
        "in/a twice, one below a delete marker, both parts, a file, two from memory; nothing is left over"
    );
    drop((client, cloud));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_schedule_invokes_the_function_again_after_each_answer() {
    let schedule = hubferry_simulator::aws::Schedule {
        first_after: Duration::ZERO,
        every: Duration::from_secs(60),
        input: json!({ "job": "resume" }),
    };
    let cloud = Cloud::start(CloudSettings { schedules: vec![schedule], ..settings() }).unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    for _ in 0..3 {
        let invocation = loop {
            tokio::select! {
                invocation = cloud.functions().next() => break invocation,
                // The schedule sleeps, sooner or later.
                _ = tick.tick() => cloud.clock().advance(Duration::from_secs(61)),
            }
        };
        assert_eq!(invocation.payload.as_ref(), br#"{"job":"resume"}"#);
        assert!(cloud.functions().respond(&invocation.id, Ok(Value::Null)));
    }
}
