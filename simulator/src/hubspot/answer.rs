//! HubSpot's answers: plain ones, batch ones and the error envelope.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A finished answer, before headers, faults and latency.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string().into_bytes(), headers: Vec::new() }
    }

    pub(crate) fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self { status, body, headers: Vec::new() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, body: Vec::new(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An error, as a whole answer or as one item of a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) category: Option<&'static str>,
    pub(crate) sub_category: Option<&'static str>,
    pub(crate) context: Vec<(&'static str, Vec<String>)>,
    pub(crate) errors: Vec<Value>,
    pub(crate) more: Vec<(&'static str, Value)>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

pub(crate) type Handled<T = Answer> = Result<T, Box<ApiError>>;

impl ApiError {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { status, message: message.into(), ..Self::default() })
    }

    pub(crate) fn of(status: u16, category: &'static str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { status, message: message.into(), category: Some(category), ..Self::default() })
    }

    pub(crate) fn validation(message: impl Into<String>) -> Box<Self> {
        Self::of(400, "VALIDATION_ERROR", message)
    }

    pub(crate) fn sub(mut self: Box<Self>, sub_category: &'static str) -> Box<Self> {
        self.sub_category = Some(sub_category);
        self
    }

    pub(crate) fn context(mut self: Box<Self>, key: &'static str, values: Vec<String>) -> Box<Self> {
        self.context.push((key, values));
        self
    }

    fn members(&self, correlation_id: Option<&str>) -> Value {
        let mut all = Map::new();
        all.insert("status".into(), "error".into());
        if correlation_id.is_none()
            && let Some(category) = self.category
        {
            all.insert("category".into(), category.into());
        }
        if let Some(sub) = self.sub_category {
            all.insert("subCategory".into(), sub.into());
        }
        all.insert("message".into(), self.message.as_str().into());
        if let Some(id) = correlation_id {
            all.insert("correlationId".into(), id.into());
        }
        for (name, value) in &self.more {
            all.insert((*name).into(), value.clone());
        }
        if !self.context.is_empty() {
            let context: Map<String, Value> =
                self.context.iter().map(|(key, values)| ((*key).to_owned(), json!(values))).collect();
            all.insert("context".into(), Value::Object(context));
        }
        if !self.errors.is_empty() {
            all.insert("errors".into(), Value::Array(self.errors.clone()));
        }
        if correlation_id.is_some()
            && let Some(category) = self.category
        {
            all.insert("category".into(), category.into());
        }
        Value::Object(all)
    }

    /// The whole answer.
    pub(crate) fn answer(&self, correlation_id: &str) -> Answer {
        let mut answer = Answer::json(self.status, &self.members(Some(correlation_id)));
        answer.headers.clone_from(&self.headers);
        answer
    }

    /// One item of a batch's `errors`.
    pub(crate) fn item(mut self, trace_id: Option<&str>) -> Value {
        if let Some(trace_id) = trace_id {
            self.context.insert(0, ("objectWriteTraceId", vec![trace_id.to_owned()]));
        }
        self.members(None)
    }
}

/// Reads a body, or answers as HubSpot's JSON reader does.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Handled<T> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(
            400,
            format!(
                "Invalid input JSON on line {}, column {}: Cannot deserialize value of type `com.hubspot.Request$Json`",
                error.line(),
                error.column()
            ),
        )
    })
}

/// A batch answer around results that are already JSON text.
pub(crate) fn batch(status: u16, results: &[Vec<u8>], errors: Vec<Value>, started: &str, completed: &str) -> Answer {
    let size: usize = results.iter().map(|result| result.len() + 1).sum();
    let mut body = Vec::with_capacity(size + 256);
    body.extend_from_slice(br#"{"completedAt":""#);
    body.extend_from_slice(completed.as_bytes());
    body.extend_from_slice(br#"","status":"COMPLETE","startedAt":""#);
    body.extend_from_slice(started.as_bytes());
    body.extend_from_slice(br#"","results":["#);
    for (at, result) in results.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(result);
    }
    body.push(b']');
    if !errors.is_empty() {
        let count = errors.len();
        body.extend_from_slice(br#","errors":"#);
        body.extend_from_slice(Value::Array(errors).to_string().as_bytes());
        body.extend_from_slice(format!(r#","numErrors":{count}"#).as_bytes());
    }
    body.push(b'}');
    Answer::bytes(status, body)
}
