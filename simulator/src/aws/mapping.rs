//! What AWS does between an upload and the function: the EventBridge rule that fills the queue, and the event source
//! mapping that empties it, with batches of one.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Functions, Sqs,
    events::{ObjectCreated, Shape, shaped, sqs_event},
    lock,
    runtime::CloudClock,
};

/// How long one look into the queue waits, as the mapping's pollers do.
const POLL: Duration = Duration::from_secs(20);

/// Where the event of an upload goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Into a queue, as deployed.
    Queue(String),
    /// Straight to the function, asynchronously.
    Function,
}

/// Uploads under a prefix wake a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Exactly this bucket.
    pub bucket: String,
    /// Keys that start with this; empty for all.
    pub prefix: String,
    /// How the event is written.
    pub shape: Shape,
    /// Who gets it.
    pub target: Target,
}

/// Feeds the function from a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The queue's name.
    pub queue: String,
    /// Invocations at once; AWS allows 2 to 1,000.
    pub maximum_concurrency: usize,
}

/// Invokes the function again and again, as EventBridge's schedules do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Before the first time.
    pub first_after: Duration,
    /// Between the end of one invocation and the beginning of the next: one that takes long is not overtaken.
    pub every: Duration,
    /// The event.
    pub input: Value,
}

/// Keeps a schedule; ends when it is dropped. An invocation that fails is not repeated: the next one comes anyway.
pub(crate) async fn keep(schedule: Schedule, functions: Arc<Functions>, clock: Arc<CloudClock>) {
    clock.sleep(schedule.first_after).await;
    loop {
        if let Err(error) = functions.invoke(&schedule.input, functions.timeout()).await {
            tracing::warn!(%error, "a scheduled invocation failed");
        }
        // A schedule without a pause would be a loop that never rests.
        clock.sleep(schedule.every.max(Duration::from_secs(1))).await;
    }
}

/// Sends each object's event where the rules say; ends with the sender.
pub(crate) async fn route(
    mut created: mpsc::UnboundedReceiver<ObjectCreated>,
    rules: Arc<Mutex<Vec<Rule>>>,
    sqs: Arc<Sqs>,
    functions: Arc<Functions>,
) {
    let mut invocations = JoinSet::new();
    loop {
        let created = tokio::select! {
            created = created.recv() => created,
            Some(_) = invocations.join_next(), if !invocations.is_empty() => continue,
        };
        let Some(created) = created else { return };
        let mut rules = lock(&rules).clone();
        rules.retain(|rule| rule.bucket == created.bucket && created.key.starts_with(&rule.prefix));
        for rule in rules {
            let event = shaped(&created, rule.shape);
            match &rule.target {
                Target::Queue(queue) => {
                    if sqs.send(queue, &event.to_string(), Duration::ZERO).is_none() {
                        tracing::warn!(queue, "a rule names a queue that does not exist");
                    }
                }
                Target::Function => {
                    let functions = Arc::clone(&functions);
                    invocations.spawn(async move {
                        if let Err(error) = functions.invoke_async(&event).await {
                            tracing::warn!(%error, "an asynchronous invocation failed for good");
                        }
                    });
                }
            }
        }
    }
}

/// Takes messages one by one, invokes the function, deletes what it did not report as failed.
pub(crate) async fn poll(mapping: Mapping, sqs: Arc<Sqs>, functions: Arc<Functions>) {
    let mut pollers = JoinSet::new();
    for _ in 0..mapping.maximum_concurrency.max(1) {
        let (queue, sqs, functions) = (mapping.queue.clone(), Arc::clone(&sqs), Arc::clone(&functions));
        pollers.spawn(async move {
            loop {
                for message in sqs.receive_within(&queue, 1, None, POLL).await {
                    let event = sqs_event(&queue, std::slice::from_ref(&message));
                    match functions.invoke(&event, functions.timeout()).await {
                        Ok(answer) if !has_failed(&answer) => sqs.delete(&queue, &message.receipt),
                        Ok(_) => tracing::debug!(queue, "the function reported its message as failed"),
                        Err(error) => tracing::warn!(queue, %error, "the function failed; its message comes back"),
                    }
                }
            }
        });
    }
    while pollers.join_next().await.is_some() {}
}

/// Whether the message has to come back, by the rules of `ReportBatchItemFailures`: an answer without failures is a
/// success, one that is malformed or names a message that is not in the batch fails the whole batch.
fn has_failed(answer: &Value) -> bool {
    let failures = match answer.get("batchItemFailures") {
        None | Some(Value::Null) => return false,
        Some(Value::Array(failures)) => failures,
        Some(_) => return true,
    };
    // A batch of one: whatever is named, it is either this message or nonsense.
    !failures.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_decides_whether_a_message_comes_back() {
        for (answer, failed) in [
            (Value::Null, false),
            (json!({}), false),
            (json!({ "batchItemFailures": [] }), false),
            (json!({ "batchItemFailures": null }), false),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "a" }] }), true),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "other" }] }), true),
            (json!({ "batchItemFailures": [{ "itemIdentifier": "" }] }), true),
            (json!({ "batchItemFailures": "a" }), true),
        ] {
            assert_eq!(has_failed(&answer), failed, "{answer}");
        }
    }
}
