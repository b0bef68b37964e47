//! Salesforce's answers: JSON, CSV, and errors as an array (the OAuth endpoints answer with an object).

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

    pub(crate) fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), headers: vec![("content-type", content_type.to_owned())] }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, body: Vec::new(), headers: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An error, as a whole answer or as what became of one record.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) fields: Vec<String>,
    /// Members beside code and message: the matches of a duplicate rule.
    pub(crate) more: Option<(String, Value)>,
}

pub(crate) type Handled<T = Answer> = Result<T, Box<ApiError>>;

impl ApiError {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Box<Self> {
        Box::new(Self { status, code: code.to_owned(), message: message.into(), fields: Vec::new(), more: None })
    }

    pub(crate) fn bad(code: &str, message: impl Into<String>) -> Box<Self> {
        Self::new(400, code, message)
    }

    pub(crate) fn not_found() -> Box<Self> {
        Self::new(404, "NOT_FOUND", "The requested resource does not exist")
    }

    pub(crate) fn deleted() -> Box<Self> {
        Self::new(404, "ENTITY_IS_DELETED", "entity is deleted")
    }

    pub(crate) fn on(mut self: Box<Self>, fields: &[&str]) -> Box<Self> {
        self.fields = fields.iter().map(|field| (*field).to_owned()).collect();
        self
    }

    /// The whole answer: one error in an array.
    pub(crate) fn answer(&self) -> Answer {
        let mut all = Map::new();
        if let Some((name, value)) = &self.more {
            all.insert(name.clone(), value.clone());
        }
        all.insert("message".into(), self.message.as_str().into());
        all.insert("errorCode".into(), self.code.as_str().into());
        if !self.fields.is_empty() || self.code == "ENTITY_IS_DELETED" {
            all.insert("fields".into(), json!(self.fields));
        }
        Answer::json(self.status, &Value::Array(vec![Value::Object(all)]))
    }

    /// One member of `errors` in a collection's result, where the code is called `statusCode`.
    pub(crate) fn item(&self) -> Value {
        let mut all = Map::new();
        all.insert("statusCode".into(), self.code.as_str().into());
        all.insert("message".into(), self.message.as_str().into());
        all.insert("fields".into(), json!(self.fields));
        if let Some((name, value)) = &self.more {
            all.insert(name.clone(), value.clone());
        }
        Value::Object(all)
    }

    /// As a Bulk result says it: `CODE:message:fields --`.
    pub(crate) fn row(&self) -> String {
        format!("{}:{}:{} --", self.code, self.message, self.fields.join(","))
    }
}

/// Salesforce's form of a datetime: no colon in the offset.
pub(crate) fn datetime(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S.000+0000").to_string()
}

/// Reads a datetime in any of the forms that Salesforce takes.
pub(crate) fn parse_datetime(text: &str) -> Option<i64> {
    let colon = match text.len().checked_sub(5).and_then(|at| text.split_at_checked(at)) {
        Some((head, offset)) if offset.starts_with(['+', '-']) && offset[1..].bytes().all(|b| b.is_ascii_digit()) => {
            format!("{head}{}:{}", &offset[..3], &offset[3..])
        }
        _ => text.to_owned(),
    };
    if !colon.contains('T') {
        return None;
    }
    colon.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datetimes_are_written_as_salesforce_does_and_read_in_every_form() {
        let ms = parse_datetime("2024-09-09T19:25:27.000+0000").unwrap();
        assert_eq!(datetime(ms), "2024-09-09T19:25:27.000+0000");
        for text in ["2024-09-09T19:25:27Z", "2024-09-09T21:25:27+02:00", "2024-09-09T19:25:27.000Z"] {
            assert_eq!(parse_datetime(text), Some(ms), "{text}");
        }
        assert_eq!(parse_datetime("2024-09-09"), None);
    }
}
