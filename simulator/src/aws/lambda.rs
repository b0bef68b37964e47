//! Lambda: the Runtime API that a function's process polls, and the Invoke API that callers use.
//!
//! One function, any number of processes. What the service does to a function is here too: a process that dies leaves
//! its invocation to time out at the deadline.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use super::{
    ACCOUNT, Call, Fault, REGION, Service, Shared,
    http::{Answer, Body, Closed, Handler, empty, full, header, read_all, respond},
    lock,
};

/// Bytes of a payload and of an answer, as Lambda bounds synchronous ones.
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;
/// How long an invocation waits for a process to take it: a debug binary may have to be built first.
const PICKUP_MAX: Duration = Duration::from_secs(300);
/// Retries of an asynchronous invocation, and the pauses before them, as Lambda does it.
const ASYNC_PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// Why an invocation has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LambdaError {
    /// The function answered with an error.
    #[error("{kind}: {message}")]
    Function {
        /// `errorType`.
        kind: String,
        /// `errorMessage`.
        message: String,
    },
    /// The process reported that it could not start.
    #[error("the function did not start: {0}")]
    Init(String),
    /// The deadline passed; whoever answers later is not heard.
    #[error("the task timed out")]
    TimedOut,
    /// No process asked for work.
    #[error("no process polls for invocations")]
    NoProcess,
    /// The answer is not JSON.
    #[error("the function's answer is not JSON")]
    NotJson,
}

/// An invocation as a process gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The request id.
    pub id: String,
    /// JSON.
    pub payload: Bytes,
    /// Milliseconds since 1970.
    pub deadline_ms: i64,
}

#[derive(Debug)]
struct Waiting {
    id: String,
    payload: Bytes,
    timeout: Duration,
    /// Tells the caller the deadline, by the cloud's elapsed time.
    taken: oneshot::Sender<Duration>,
}

type Outcome = Result<Value, LambdaError>;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    open: BTreeMap<String, oneshot::Sender<Outcome>>,
}

/// The function, seen from both sides.
#[derive(Debug)]
pub struct Functions {
    shared: Arc<Shared>,
    name: String,
    timeout: Duration,
    state: Mutex<State>,
    changed: Notify,
}

/// Takes the invocation away when its caller stops waiting, for whatever reason.
struct Open<'a> {
    functions: &'a Functions,
    id: String,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.functions.state);
        state.waiting.retain(|waiting| waiting.id != self.id);
        state.open.remove(&self.id);
    }
}

impl Functions {
    pub(crate) fn new(shared: Arc<Shared>, name: String, timeout: Duration) -> Self {
        Self { shared, name, timeout, state: Mutex::default(), changed: Notify::new() }
    }

    /// The function's ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{}", self.name)
    }

    /// Invokes the function and waits: up to five minutes until a process takes it, then up to `timeout`.
    pub async fn invoke(&self, payload: &Value, timeout: Duration) -> Result<Value, LambdaError> {
        let id = self.shared.uuid();
        let (taken, took) = oneshot::channel();
        let (answer, mut answered) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            let payload = payload.to_string().into();
            state.waiting.push_back(Waiting { id: id.clone(), payload, timeout, taken });
            state.open.insert(id.clone(), answer);
        }
        let _open = Open { functions: self, id };
        self.changed.notify_waiters();
        let deadline = tokio::select! {
            biased;
            // `init/error` answers what nobody has taken.
            outcome = &mut answered => return outcome.unwrap_or(Err(LambdaError::NoProcess)),
            Ok(deadline) = took => deadline,
            () = self.shared.clock.sleep(PICKUP_MAX) => return Err(LambdaError::NoProcess),
        };
        tokio::select! {
            biased;
            outcome = answered => outcome.unwrap_or(Err(LambdaError::TimedOut)),
            () = self.shared.clock.sleep_until(deadline) => Err(LambdaError::TimedOut),
        }
    }

    /// Invokes as S3 and EventBridge do: two more attempts, a minute and then two later.
    pub async fn invoke_async(&self, payload: &Value) -> Result<Value, LambdaError> {
        let mut outcome = self.invoke(payload, self.timeout).await;
        for pause in ASYNC_PAUSES {
            if outcome.is_ok() {
                break;
            }
            self.shared.clock.sleep(pause).await;
            outcome = self.invoke(payload, self.timeout).await;
        }
        outcome
    }

    /// The function's time-out.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for the next invocation and takes it; what a process does, without HTTP.
    pub async fn next(&self) -> Invocation {
        loop {
            let changed = self.changed.notified();
            let next = lock(&self.state).waiting.pop_front();
            if let Some(Waiting { id, payload, timeout, taken }) = next {
                let left = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
                let deadline_ms = self.shared.clock.now().as_millisecond().saturating_add(left);
                // The caller may have gone; then nobody hears the answer.
                let _ = taken.send(self.shared.clock.elapsed().saturating_add(timeout));
                return Invocation { id, payload, deadline_ms };
            }
            changed.await;
        }
    }

    /// Answers an invocation; `false` if it is not open (unknown, answered, or past its deadline).
    pub fn respond(&self, id: &str, outcome: Result<Value, LambdaError>) -> bool {
        let mut state = lock(&self.state);
        // One that nobody has taken cannot be answered.
        if state.waiting.iter().any(|waiting| waiting.id == id) {
            return false;
        }
        state.open.remove(id).is_some_and(|answer| answer.send(outcome).is_ok())
    }

    fn init_failed(&self, error: &LambdaError) {
        let mut state = lock(&self.state);
        for waiting in std::mem::take(&mut state.waiting) {
            if let Some(answer) = state.open.remove(&waiting.id) {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }

    async fn runtime(&self, method: &Method, path: &str, body: Incoming) -> http::Response<Body> {
        let invalid = |status: u16, kind: &str| {
            let body = json!({ "errorType": kind, "errorMessage": kind }).to_string();
            respond(status, &[("content-type", "application/json")], full(body))
        };
        let accepted = || respond(202, &[("content-type", "application/json")], full(r#"{"status":"OK"}"#.as_bytes()));
        if method == Method::GET && path == "invocation/next" {
            let Invocation { id, payload, deadline_ms } = self.next().await;
            // As with active tracing, every invocation sampled.
            let (root, parent) = (self.shared.hex_letters(24), self.shared.hex_letters(16));
            let trace = format!("Root=1-{:08x}-{root};Parent={parent};Sampled=1", deadline_ms / 1000);
            return respond(
                200,
                &[
                    ("content-type", "application/json"),
                    ("lambda-runtime-aws-request-id", &id),
                    ("lambda-runtime-deadline-ms", &deadline_ms.to_string()),
                    ("lambda-runtime-invoked-function-arn", &self.arn()),
                    ("lambda-runtime-trace-id", &trace),
                ],
                full(payload),
            );
        }
        if method != Method::POST {
            return invalid(404, "NotFound");
        }
        let Some(body) = read_all(body, PAYLOAD_BYTES_MAX).await else {
            return invalid(413, "RequestEntityTooLarge");
        };
        if path == "init/error" {
            let (_, message) = function_error(&body);
            self.init_failed(&LambdaError::Init(message));
            return accepted();
        }
        let outcome = match path.strip_prefix("invocation/").and_then(|rest| rest.split_once('/')) {
            Some((id, "response")) => {
                // A function that returns nothing answers `null`, or an empty body.
                let value = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body) };
                Some((id, value.map_err(|_| LambdaError::NotJson)))
            }
            Some((id, "error")) => {
                let (kind, message) = function_error(&body);
                Some((id, Err(LambdaError::Function { kind, message })))
            }
            _ => None,
        };
        match outcome {
            None => invalid(404, "NotFound"),
            Some((id, outcome)) => {
                if self.respond(id, outcome) {
                    accepted()
                } else {
                    invalid(400, "InvalidRequestID")
                }
            }
        }
    }

    async fn invoke_api(self: &Arc<Self>, request: Request<Incoming>) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let body = read_all(body, PAYLOAD_BYTES_MAX).await;
        let payload = match &body {
            None => None,
            Some(body) if body.is_empty() => Some(json!({})),
            Some(body) => serde_json::from_slice(body).ok(),
        };
        let Some(payload) = payload else {
            let headers = [("x-amzn-errortype", "InvalidRequestContentException")];
            let message = json!({ "Type": "User", "message": "Could not parse request body into json" });
            return respond(400, &headers, full(message.to_string()));
        };
        match header(&parts.headers, "x-amz-invocation-type").unwrap_or("RequestResponse") {
            "DryRun" => respond(204, &[], empty()),
            "Event" => {
                let functions = Arc::clone(self);
                self.shared.background(async move {
                    let _ = functions.invoke_async(&payload).await;
                });
                respond(202, &[], empty())
            }
            _ => {
                let json = ("content-type", "application/json");
                let version = ("x-amz-executed-version", "$LATEST");
                match self.invoke(&payload, self.timeout).await {
                    Ok(value) => respond(200, &[json, version], full(value.to_string())),
                    Err(error) => {
                        let (kind, message) = match error {
                            LambdaError::Function { kind, message } => (kind, message),
                            LambdaError::Init(message) => ("Runtime.ExitError".to_owned(), message),
                            other => ("Sandbox.Timedout".to_owned(), other.to_string()),
                        };
                        let body = json!({ "errorType": kind, "errorMessage": message });
                        respond(200, &[json, version, ("x-amz-function-error", "Unhandled")], full(body.to_string()))
                    }
                }
            }
        }
    }
}

fn function_error(body: &[u8]) -> (String, String) {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str, default: &str| {
        error.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
    };
    (field("errorType", "Unknown"), field("errorMessage", ""))
}

/// The HTTP side of [`Functions`].
pub(crate) struct Lambda(pub(crate) Arc<Functions>);

impl Handler for Lambda {
    const SERVICE: Service = Service::Lambda;

    fn shared(&self) -> &Shared {
        &self.0.shared
    }

    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let is_invoke = path.starts_with("/2015-03-31/functions/") && path.ends_with("/invocations");
        let runtime = path.strip_prefix("/2018-06-01/runtime/");
        let action = match runtime {
            _ if is_invoke => "Invoke",
            Some("invocation/next") => "Next",
            Some("init/error") => "InitError",
            Some(path) if path.ends_with("/response") => "Response",
            Some(path) if path.ends_with("/error") => "Error",
            _ => "Unknown",
        };
        let mut call = Call {
            service: Service::Lambda,
            action: action.to_owned(),
            permission: if is_invoke { "lambda:InvokeFunction".to_owned() } else { String::new() },
            resource: self.0.arn(),
            status: 0,
        };
        let fault = match self.0.shared.admit(&call).await {
            Ok(fault) => fault,
            Err(closed) => {
                self.0.shared.recorder.record(call);
                return Err(closed);
            }
        };
        let response = match (&fault, runtime) {
            (Some(Fault::Error { status, code }), _) => {
                let body = json!({ "errorType": code, "errorMessage": "injected fault" }).to_string();
                respond(*status, &[("x-amzn-errortype", code)], full(body))
            }
            (_, Some(path)) => {
                let method = request.method().clone();
                self.0.runtime(&method, path, request.into_body()).await
            }
            _ if is_invoke && request.method() == Method::POST => self.0.invoke_api(request).await,
            _ => respond(404, &[], empty()),
        };
        let lost = matches!(fault, Some(Fault::LoseAnswer));
        call.status = if lost { 0 } else { response.status().as_u16() };
        self.0.shared.recorder.record(call);
        if lost { Err(Closed) } else { Ok(response) }
    }
}
