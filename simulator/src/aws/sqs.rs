//! SQS, standard queues, JSON protocol: delay, visibility, receive counts, dead-letter queue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Request;
use hyper::body::Incoming;
use jiff::Timestamp;
use md5::{Digest, Md5};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::{
    ACCOUNT, Call, REGION, Service, Shared, hex,
    http::{Answer, Handler, JsonError, JsonResult, json_call, json_request, text},
    lock,
};

/// Messages in one answer, as SQS bounds it.
const RECEIVE_MAX: u64 = 10;
/// Longest wait for a message, as SQS bounds it.
const WAIT_SECONDS_MAX: u64 = 20;
/// Longest delay of a message, as SQS bounds it.
const DELAY_SECONDS_MAX: u64 = 900;
/// Longest invisibility, as SQS bounds it (12 hours).
const VISIBILITY_SECONDS_MAX: u64 = 43_200;
/// Bytes of a message, as SQS bounds it since 2025.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// One message, as a receiver gets it.
#[derive(Debug, Clone)]
pub struct Message {
    /// Stays the same over deliveries.
    pub id: String,
    /// Of this delivery; what deletes the message.
    pub receipt: String,
    /// The text.
    pub body: String,
    /// Deliveries so far, with this one.
    pub receive_count: u64,
    pub(crate) attributes: Value,
    pub(crate) sent: Timestamp,
    pub(crate) first_received: Option<Timestamp>,
}

#[derive(Debug)]
struct Held {
    message: Message,
    visible_at: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    attributes: BTreeMap<String, String>,
    messages: Vec<Held>,
}

impl Queue {
    fn seconds(&self, attribute: &str, default: u64) -> u64 {
        self.attributes.get(attribute).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// The dead-letter queue's name and the deliveries allowed before it.
    fn redrive(&self) -> Option<(String, u64)> {
        let policy: Value = serde_json::from_str(self.attributes.get("RedrivePolicy")?).ok()?;
        let name = text(&policy, "deadLetterTargetArn")?.rsplit(':').next()?.to_owned();
        let count = policy.get("maxReceiveCount")?;
        Some((name, count.as_u64().or_else(|| count.as_str()?.parse().ok())?))
    }
}

/// The queues; tests and the event source mapping use them without HTTP.
#[derive(Debug)]
pub struct Sqs {
    shared: Arc<Shared>,
    base: String,
    queues: Mutex<BTreeMap<String, Queue>>,
    changed: Notify,
}

impl Sqs {
    pub(crate) fn new(shared: Arc<Shared>, base: String) -> Self {
        Self { shared, base, queues: Mutex::default(), changed: Notify::new() }
    }

    /// The URL of the queue `name`, whether or not it is there.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{ACCOUNT}/{name}", self.base)
    }

    /// The ARN of the queue `name`.
    pub fn arn(name: &str) -> String {
        format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
    }

    /// Creates a queue, or changes its settings: seconds a received message stays invisible, and where messages go
    /// that came back too often.
    pub fn create(&self, name: &str, visibility: Duration, dead_letters: Option<(&str, u64)>) {
        let mut queues = lock(&self.queues);
        let queue = queues.entry(name.to_owned()).or_default();
        queue.attributes.insert("VisibilityTimeout".to_owned(), visibility.as_secs().to_string());
        if let Some((dead, count)) = dead_letters {
            let policy = json!({ "deadLetterTargetArn": Self::arn(dead), "maxReceiveCount": count });
            queue.attributes.insert("RedrivePolicy".to_owned(), policy.to_string());
            queues.entry(dead.to_owned()).or_default();
        }
    }

    /// Puts a message into the queue; `None` if there is no such queue.
    pub fn send(&self, name: &str, body: &str, delay: Duration) -> Option<String> {
        self.enqueue(name, body, Some(delay), Value::Null)
    }

    fn enqueue(&self, name: &str, body: &str, delay: Option<Duration>, attributes: Value) -> Option<String> {
        let id = self.shared.uuid();
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(name)?;
        let delay = delay.unwrap_or_else(|| Duration::from_secs(queue.seconds("DelaySeconds", 0)));
        queue.messages.push(Held {
            message: Message {
                id: id.clone(),
                receipt: String::new(),
                body: body.to_owned(),
                receive_count: 0,
                attributes,
                sent: self.shared.clock.now(),
                first_received: None,
            },
            visible_at: self.shared.clock.elapsed().saturating_add(delay),
        });
        drop(queues);
        self.changed.notify_waiters();
        Some(id)
    }

    /// Takes up to `count` visible messages; messages over the redrive count go to the dead-letter queue instead.
    pub fn receive(&self, name: &str, count: u64, visibility: Option<Duration>) -> Vec<Message> {
        let now = self.shared.clock.elapsed();
        let mut queues = lock(&self.queues);
        let Some(queue) = queues.get_mut(name) else { return Vec::new() };
        let visibility = visibility.unwrap_or_else(|| Duration::from_secs(queue.seconds("VisibilityTimeout", 30)));
        let redrive = queue.redrive();
        let mut taken = Vec::new();
        let mut dead = Vec::new();
        let mut index = 0;
        while let Some(held) = queue.messages.get_mut(index) {
            if held.visible_at > now || taken.len() as u64 >= count {
                index += 1;
                continue;
            }
            if redrive.as_ref().is_some_and(|(_, max)| held.message.receive_count >= *max) {
                dead.push(queue.messages.remove(index));
                continue;
            }
            held.message.receive_count += 1;
            held.message.receipt = self.shared.uuid();
            held.message.first_received.get_or_insert(self.shared.clock.now());
            held.visible_at = now.saturating_add(visibility);
            taken.push(held.message.clone());
            index += 1;
        }
        if let Some((name, _)) = redrive
            && let Some(queue) = queues.get_mut(&name)
            && !dead.is_empty()
        {
            // Without this, whoever waits on the dead-letter queue would sleep on.
            self.changed.notify_waiters();
            queue.messages.extend(dead);
        }
        taken
    }

    /// Waits up to `wait` for messages.
    pub async fn receive_within(
        &self,
        name: &str,
        count: u64,
        visibility: Option<Duration>,
        wait: Duration,
    ) -> Vec<Message> {
        let until = self.shared.clock.elapsed().saturating_add(wait);
        loop {
            let changed = self.changed.notified();
            let messages = self.receive(name, count, visibility);
            let now = self.shared.clock.elapsed();
            if !messages.is_empty() || now >= until {
                return messages;
            }
            let next = lock(&self.queues)
                .get(name)
                .and_then(|queue| queue.messages.iter().map(|held| held.visible_at).filter(|at| *at > now).min());
            tokio::select! {
                () = changed => {}
                () = self.shared.clock.sleep_until(next.map_or(until, |next| next.min(until))) => {}
            }
        }
    }

    /// Deletes the message of this delivery; a receipt of an earlier delivery deletes nothing.
    pub fn delete(&self, name: &str, receipt: &str) {
        if let Some(queue) = lock(&self.queues).get_mut(name) {
            queue.messages.retain(|held| held.message.receipt != receipt || receipt.is_empty());
        }
    }

    /// Makes a received message visible again after `after`; whether it was found and in flight.
    pub fn change_visibility(&self, name: &str, receipt: &str, after: Duration) -> bool {
        let now = self.shared.clock.elapsed();
        let mut queues = lock(&self.queues);
        let held = queues.get_mut(name).and_then(|queue| {
            queue.messages.iter_mut().find(|held| held.message.receipt == receipt && held.visible_at > now)
        });
        let found = held.map(|held| held.visible_at = now.saturating_add(after)).is_some();
        drop(queues);
        self.changed.notify_waiters();
        found
    }

    /// Messages waiting, in flight, and delayed.
    pub fn depth(&self, name: &str) -> (usize, usize, usize) {
        let now = self.shared.clock.elapsed();
        let queues = lock(&self.queues);
        let Some(queue) = queues.get(name) else { return (0, 0, 0) };
        let visible = queue.messages.iter().filter(|held| held.visible_at <= now).count();
        let hidden = |received: bool| {
            queue
                .messages
                .iter()
                .filter(|held| held.visible_at > now && (held.message.receive_count > 0) == received)
                .count()
        };
        (visible, hidden(true), hidden(false))
    }

    async fn act(&self, action: &str, name: &str, request: &Value) -> JsonResult {
        let known = lock(&self.queues).contains_key(name);
        if action == "CreateQueue" {
            return self.create_queue(name, request);
        }
        if !known {
            return Err(JsonError::new("com.amazonaws.sqs#QueueDoesNotExist", "The specified queue does not exist."));
        }
        match action {
            "GetQueueUrl" => Ok(json!({ "QueueUrl": self.url(name) })),
            "GetQueueAttributes" => Ok(self.attributes(name, request)),
            "SetQueueAttributes" => {
                if let Some(queue) = lock(&self.queues).get_mut(name) {
                    queue.attributes.extend(attributes_of(request));
                }
                Ok(json!({}))
            }
            "SendMessage" => {
                let body = text(request, "MessageBody").unwrap_or_default();
                if body.is_empty() {
                    return Err(JsonError::new(
                        "MissingParameter",
                        "The request must contain the parameter MessageBody.",
                    ));
                }
                if body.len() > MESSAGE_BYTES_MAX {
                    return Err(JsonError::new("InvalidParameterValue", "The message is longer than 1048576 bytes."));
                }
                let delay = seconds(request, "DelaySeconds", DELAY_SECONDS_MAX)?;
                let attributes = request.get("MessageAttributes").cloned().unwrap_or_default();
                let id = self.enqueue(name, body, delay, attributes);
                Ok(json!({ "MessageId": id, "MD5OfMessageBody": hex(&Md5::digest(body)) }))
            }
            "ReceiveMessage" => {
                let count = request.get("MaxNumberOfMessages").and_then(Value::as_u64).unwrap_or(1);
                if !(1..=RECEIVE_MAX).contains(&count) {
                    return Err(JsonError::new("InvalidParameterValue", "MaxNumberOfMessages must be 1 to 10."));
                }
                let visibility = seconds(request, "VisibilityTimeout", VISIBILITY_SECONDS_MAX)?;
                let wait =
                    match seconds(request, "WaitTimeSeconds", WAIT_SECONDS_MAX)? {
                        Some(wait) => wait,
                        None => Duration::from_secs(lock(&self.queues).get(name).map_or(0, |queue| {
                            queue.seconds("ReceiveMessageWaitTimeSeconds", 0).min(WAIT_SECONDS_MAX)
                        })),
                    };
                let messages = self.receive_within(name, count, visibility, wait).await;
                if messages.is_empty() {
                    return Ok(json!({}));
                }
                Ok(json!({ "Messages": messages.iter().map(as_received).collect::<Vec<_>>() }))
            }
            "DeleteMessage" => {
                self.delete(name, receipt(request)?);
                Ok(json!({}))
            }
            "ChangeMessageVisibility" => {
                let after = seconds(request, "VisibilityTimeout", VISIBILITY_SECONDS_MAX)?.unwrap_or_default();
                if self.change_visibility(name, receipt(request)?, after) {
                    Ok(json!({}))
                } else {
                    Err(JsonError::new("com.amazonaws.sqs#MessageNotInflight", "The message is not in flight."))
                }
            }
            "PurgeQueue" => {
                if let Some(queue) = lock(&self.queues).get_mut(name) {
                    queue.messages.clear();
                }
                Ok(json!({}))
            }
            _ => Err(JsonError::new("UnknownOperationException", format!("{action} is not simulated"))),
        }
    }

    fn create_queue(&self, name: &str, request: &Value) -> JsonResult {
        let valid = !name.is_empty()
            && name.len() <= 80
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !valid {
            return Err(JsonError::new(
                "InvalidParameterValue",
                "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
            ));
        }
        let wanted: BTreeMap<String, String> = attributes_of(request).collect();
        let mut queues = lock(&self.queues);
        let queue =
            queues.entry(name.to_owned()).or_insert_with(|| Queue { attributes: wanted.clone(), ..Queue::default() });
        if wanted.iter().any(|(name, value)| queue.attributes.get(name) != Some(value)) {
            return Err(JsonError::new(
                "com.amazonaws.sqs#QueueNameExists",
                "A queue already exists with the same name and a different value for an attribute",
            ));
        }
        Ok(json!({ "QueueUrl": self.url(name) }))
    }

    fn attributes(&self, name: &str, request: &Value) -> Value {
        let (waiting, in_flight, delayed) = self.depth(name);
        let mut all: Map<String, Value> = Map::new();
        for (attribute, default) in [
            ("VisibilityTimeout", "30"),
            ("DelaySeconds", "0"),
            ("ReceiveMessageWaitTimeSeconds", "0"),
            ("MessageRetentionPeriod", "345600"),
            ("MaximumMessageSize", "1048576"),
        ] {
            all.insert(attribute.to_owned(), default.into());
        }
        if let Some(queue) = lock(&self.queues).get(name) {
            all.extend(queue.attributes.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        }
        all.insert("QueueArn".to_owned(), Self::arn(name).into());
        all.insert("ApproximateNumberOfMessages".to_owned(), waiting.to_string().into());
        all.insert("ApproximateNumberOfMessagesNotVisible".to_owned(), in_flight.to_string().into());
        all.insert("ApproximateNumberOfMessagesDelayed".to_owned(), delayed.to_string().into());
        let wanted: Vec<&str> = request
            .get("AttributeNames")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        all.retain(|name, _| wanted.contains(&"All") || wanted.contains(&name.as_str()));
        json!({ "Attributes": all })
    }
}

fn attributes_of(request: &Value) -> impl Iterator<Item = (String, String)> {
    let attributes = request.get("Attributes").and_then(Value::as_object);
    attributes.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
}

fn receipt(request: &Value) -> Result<&str, JsonError> {
    text(request, "ReceiptHandle").filter(|receipt| !receipt.is_empty()).ok_or_else(|| {
        JsonError::new("com.amazonaws.sqs#ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
    })
}

fn seconds(request: &Value, field: &str, max: u64) -> Result<Option<Duration>, JsonError> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(seconds) if seconds <= max => Ok(Some(Duration::from_secs(seconds))),
            _ => Err(JsonError::new("InvalidParameterValue", format!("{field} must be 0 to {max}."))),
        },
    }
}

pub(crate) fn system_attributes(message: &Message) -> Value {
    let mut attributes = json!({
        "ApproximateReceiveCount": message.receive_count.to_string(),
        "SentTimestamp": message.sent.as_millisecond().to_string(),
        "SenderId": ACCOUNT,
    });
    if let Some(first) = message.first_received {
        attributes["ApproximateFirstReceiveTimestamp"] = first.as_millisecond().to_string().into();
    }
    attributes
}

fn as_received(message: &Message) -> Value {
    let mut answer = json!({
        "MessageId": message.id,
        "ReceiptHandle": message.receipt,
        "Body": message.body,
        "MD5OfBody": hex(&Md5::digest(&message.body)),
        "Attributes": system_attributes(message),
    });
    if !message.attributes.is_null() {
        answer["MessageAttributes"] = message.attributes.clone();
    }
    answer
}

impl Handler for Sqs {
    const SERVICE: Service = Service::Sqs;

    fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let (action, request) = json_request(request).await;
        let name = request
            .as_ref()
            .ok()
            .and_then(|request| text(request, "QueueName").or_else(|| text(request, "QueueUrl")?.rsplit('/').next()))
            .unwrap_or_default()
            .to_owned();
        let call = Call {
            service: Service::Sqs,
            permission: format!("sqs:{action}"),
            resource: Self::arn(&name),
            action: action.clone(),
            status: 0,
        };
        json_call(&self.shared, call, "1.0", async { self.act(&action, &name, &request?).await }).await
    }
}
