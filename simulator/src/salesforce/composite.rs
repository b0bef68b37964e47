//! `composite`: up to 25 requests in one call, later ones with results of earlier ones in them.

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError, Handled};
use super::{Call, Org, pairs};

/// Requests in one call.
const REQUESTS_MAX: usize = 25;

impl Org {
    pub(super) fn composite(&mut self, call: &Call<'_>) -> Handled {
        let body = call.json()?;
        let all_or_none = body.get("allOrNone").and_then(Value::as_bool).unwrap_or(false);
        let parts = body.get("compositeRequest").and_then(Value::as_array).cloned().unwrap_or_default();
        if parts.is_empty() || parts.len() > REQUESTS_MAX {
            return Err(ApiError::bad(
                "LIMIT_EXCEEDED",
                "The limit of 25 for the number of subrequests has been exceeded.",
            ));
        }
        // Single requests keep no account of what they undo, so a copy is kept. Such calls are rare.
        let before = all_or_none.then(|| (self.tables.clone(), self.begin()));
        let mut results: Vec<(String, Answer)> = Vec::new();
        for part in &parts {
            let text = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let answer = self.one_of(call, part, &text("method"), &text("url"), &results);
            let failed = answer.status >= 400;
            results.push((text("referenceId"), answer));
            if failed && all_or_none {
                break;
            }
        }
        if let Some((tables, undo)) = before
            && results.last().is_some_and(|(_, answer)| answer.status >= 400)
        {
            self.tables = tables;
            self.roll_back(undo, call.now);
            let failed = results.len() - 1;
            let halted = || {
                let message = "The transaction was rolled back since another operation in the same transaction failed.";
                ApiError::bad("PROCESSING_HALTED", message).answer()
            };
            let answer_of = results.pop();
            results = (parts.iter().enumerate())
                .map(|(at, part)| {
                    let name = part.get("referenceId").and_then(Value::as_str).unwrap_or_default().to_owned();
                    match &answer_of {
                        Some((_, answer)) if at == failed => (name, answer.clone()),
                        _ => (name, halted()),
                    }
                })
                .collect();
        }
        let list: Vec<Value> = (results.into_iter())
            .map(|(name, answer)| {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
                json!({"body": body, "httpHeaders": {}, "httpStatusCode": answer.status, "referenceId": name})
            })
            .collect();
        Ok(Answer::json(200, &json!({"compositeResponse": list})))
    }

    fn one_of(&mut self, call: &Call<'_>, part: &Value, method: &str, url: &str, done: &[(String, Answer)]) -> Answer {
        let url = resolve(url, done);
        let body = part.get("body").map(|body| resolve(&body.to_string(), done)).unwrap_or_default();
        let mut headers = HeaderMap::new();
        for (name, value) in part.get("httpHeaders").and_then(Value::as_object).unwrap_or(&Map::new()) {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            let value = value.as_str().and_then(|value| http::HeaderValue::from_str(value).ok());
            if let (Ok(name), Some(value)) = (name, value) {
                headers.insert(name, value);
            }
        }
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let segments: Vec<String> = (path.trim_matches('/').split('/'))
            .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let query = pairs(query.as_bytes());
        let path = segments.iter().skip(3).map(String::as_str).collect::<Vec<_>>();
        if segments.len() < 4 || path.first() == Some(&"composite") && path.get(1).is_none() {
            return ApiError::not_found().answer();
        }
        let inner = Call {
            now: call.now,
            method,
            path,
            version: call.version,
            query: &query,
            headers: &headers,
            body: body.as_bytes(),
            caller: call.caller.clone(),
        };
        self.dispatch(&inner).unwrap_or_else(|error| error.answer())
    }
}

/// Puts results in place of `@{reference.path}`.
fn resolve(text: &str, done: &[(String, Answer)]) -> String {
    let mut all = text.to_owned();
    for (name, answer) in done {
        let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(&answer.body) else { continue };
        for (member, value) in &body {
            if let Some(value) = value.as_str() {
                all = all.replace(&format!("@{{{name}.{member}}}"), value);
            }
        }
    }
    all
}
