//! Where a run that was cut off asks to be continued.

use std::{cell::RefCell, collections::VecDeque};

use async_trait::async_trait;
use aws_sdk_sqs::Client;

use crate::{
    aws::Failure,
    codes::{self, Code},
    error::{Error, ErrorKind, Result},
};

/// Sends messages to ourselves.
#[async_trait(?Send)]
pub trait Queue {
    /// Sends `body`, to be delivered after `delay_seconds` (at most 900).
    async fn send(&self, body: &str, delay_seconds: u16) -> Result<()>;
}

/// SQS's longest delay of a message.
pub const DELAY_SECONDS_MAX: u16 = 900;

/// An SQS queue.
#[derive(Debug)]
pub struct Sqs {
    client: Client,
    url: String,
}

impl Sqs {
    /// The queue at `url`, reached through `client`. Makes no request.
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }
}

#[async_trait(?Send)]
impl Queue for Sqs {
    /// A longer delay than SQS knows becomes its longest: the run looks at the time again when it is woken.
    async fn send(&self, body: &str, delay_seconds: u16) -> Result<()> {
        let delay = i32::from(delay_seconds.min(DELAY_SECONDS_MAX));
        let request = self.client.send_message().queue_url(&self.url).message_body(body).delay_seconds(delay);
        let Err(error) = request.send().await else { return Ok(()) };
        let failure = Failure::from(&error);
        let message = format!("send a message to {}: {}", self.url, failure.text);
        Err(match failure.code.as_str() {
            "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" => {
                Error::invalid(codes::AWS_UNAVAILABLE, message)
                    .with_hint("There is no such queue: deploy the template, or correct the queue's URL.")
            }
            // A message that comes twice finds the run busy or over.
            _ => Error::new(failure.kind(true), codes::AWS_UNAVAILABLE, message),
        })
    }
}

/// Keeps messages in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryQueue {
    sent: RefCell<Vec<(String, u16)>>,
    faults: RefCell<VecDeque<(ErrorKind, Code)>>,
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out all messages: body and delay in seconds, in the order in which they were sent.
    pub fn take(&self) -> Vec<(String, u16)> {
        self.sent.take()
    }

    /// The next message that has no fault yet is refused like this. Messages line up faults in order.
    pub fn fail_next(&self, kind: ErrorKind, code: Code) {
        self.faults.borrow_mut().push_back((kind, code));
    }
}

#[async_trait(?Send)]
impl Queue for MemoryQueue {
    async fn send(&self, body: &str, delay_seconds: u16) -> Result<()> {
        let fault = self.faults.borrow_mut().pop_front();
        if let Some((kind, code)) = fault {
            return Err(Error::new(kind, code, "the queue was told to fail"));
        }
        self.sent.borrow_mut().push((body.to_owned(), delay_seconds.min(DELAY_SECONDS_MAX)));
        Ok(())
    }
}
