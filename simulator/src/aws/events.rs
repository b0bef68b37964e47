//! The events that wake the function, in each shape in which AWS delivers them.

use jiff::Timestamp;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::{
    ACCOUNT, REGION, hex,
    s3::encode_key,
    sqs::{Message, Sqs, system_attributes},
};

/// An object that has been created, as S3 knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectCreated {
    /// The bucket.
    pub bucket: String,
    /// The key, not encoded.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// On buckets that keep versions.
    pub version_id: Option<String>,
    /// Hex; grows with each event of a key.
    pub sequencer: String,
    /// The API that made it: `PutObject`, `CopyObject`, `CompleteMultipartUpload`.
    pub reason: String,
    /// When.
    pub time: Timestamp,
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// EventBridge's `Object Created`, as the template deploys it.
    #[default]
    EventBridge,
    /// S3's own notification record.
    S3Notification,
}

/// Any shape of it.
pub fn shaped(created: &ObjectCreated, shape: Shape) -> Value {
    match shape {
        Shape::EventBridge => eventbridge(created),
        Shape::S3Notification => s3_notification(created),
    }
}

/// S3's notification: the key is URL-encoded with `+` for a space, and the tag is `eTag`.
pub fn s3_notification(created: &ObjectCreated) -> Value {
    let name = match created.reason.as_str() {
        "CompleteMultipartUpload" => "ObjectCreated:CompleteMultipartUpload",
        "CopyObject" => "ObjectCreated:Copy",
        _ => "ObjectCreated:Put",
    };
    let mut object = json!({
        "key": encode_key(&created.key),
        "size": created.size,
        "eTag": created.etag,
        "sequencer": created.sequencer,
    });
    if let Some(id) = &created.version_id {
        object["versionId"] = id.as_str().into();
    }
    json!({ "Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": created.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        "eventName": name,
        "userIdentity": { "principalId": "EXAMPLE" },
        "requestParameters": { "sourceIPAddress": "127.0.0.1" },
        "responseElements": { "x-amz-request-id": request_id(created), "x-amz-id-2": "EXAMPLE" },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "hubferry",
            "bucket": {
                "name": created.bucket,
                "ownerIdentity": { "principalId": "EXAMPLE" },
                "arn": format!("arn:aws:s3:::{}", created.bucket),
            },
            "object": object,
        },
    }] })
}

/// EventBridge's `Object Created`: the key is as it is, and the names have hyphens.
pub fn eventbridge(created: &ObjectCreated) -> Value {
    let mut object = json!({
        "key": created.key,
        "size": created.size,
        "etag": created.etag,
        "sequencer": created.sequencer,
    });
    if let Some(id) = &created.version_id {
        object["version-id"] = id.as_str().into();
    }
    json!({
        "version": "0",
        "id": event_id(created),
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": ACCOUNT,
        "time": created.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "region": REGION,
        "resources": [format!("arn:aws:s3:::{}", created.bucket)],
        "detail": {
            "version": "0",
            "bucket": { "name": created.bucket },
            "object": object,
            "request-id": request_id(created),
            "requester": ACCOUNT,
            "source-ip-address": "127.0.0.1",
            "reason": created.reason,
        },
    })
}

/// What S3 sends when a notification is set up: no `Records`, to be acknowledged.
pub fn s3_test_event(bucket: &str) -> Value {
    json!({
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2026-01-01T00:00:00.000Z",
        "Bucket": bucket,
        "RequestId": "EXAMPLE",
        "HostId": "EXAMPLE",
    })
}

/// The SQS event a function gets for these bodies; the message ids are `message-0`, `message-1`, ….
pub fn in_sqs(queue: &str, bodies: &[Value]) -> Value {
    let messages: Vec<Message> = bodies
        .iter()
        .enumerate()
        .map(|(index, body)| Message {
            id: format!("message-{index}"),
            receipt: format!("receipt-{index}"),
            body: body.to_string(),
            receive_count: 1,
            attributes: Value::Null,
            sent: Timestamp::UNIX_EPOCH,
            first_received: Some(Timestamp::UNIX_EPOCH),
        })
        .collect();
    sqs_event(queue, &messages)
}

/// The SQS event a function gets for these messages.
pub fn sqs_event(queue: &str, messages: &[Message]) -> Value {
    let records: Vec<Value> = messages
        .iter()
        .map(|message| {
            json!({
                "messageId": message.id,
                "receiptHandle": message.receipt,
                "body": message.body,
                "attributes": system_attributes(message),
                "messageAttributes": {},
                "md5OfBody": hex(&Md5::digest(&message.body)),
                "eventSource": "aws:sqs",
                "eventSourceARN": Sqs::arn(queue),
                "awsRegion": REGION,
            })
        })
        .collect();
    json!({ "Records": records })
}

fn digest(created: &ObjectCreated) -> String {
    hex(&Md5::digest(format!("{}/{}/{}", created.bucket, created.key, created.sequencer)))
}

fn request_id(created: &ObjectCreated) -> String {
    digest(created).chars().take(16).collect::<String>().to_uppercase()
}

/// The same event has the same id, as a redelivered one has on AWS.
fn event_id(created: &ObjectCreated) -> String {
    let digest = digest(created);
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
