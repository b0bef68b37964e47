//! HTTP/1.1 on loopback: one accept loop per service, and the small pieces every service answers with.

use std::{future::Future, io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{Call, Fault, Service, Shared};

/// Bytes of a request that is read whole; DynamoDB takes 16 MB, nothing else takes more.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub(crate) struct Closed;

pub(crate) type Answer = Result<Response<Body>, Closed>;

pub(crate) trait Handler: Send + Sync + 'static {
    const SERVICE: Service;
    fn shared(&self) -> &Shared;
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Serves until dropped; its connections end with it.
pub(crate) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of file handles, most likely: let some connections end first.
                    handler.shared().clock.sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                };
                if handler.shared().faults.refuses(H::SERVICE) {
                    continue;
                }
                let _ = stream.set_nodelay(true);
                let handler = Arc::clone(&handler);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let handler = Arc::clone(&handler);
                        async move {
                            if is_foreign(request.headers()) {
                                return Ok(respond(403, &[("content-type", "text/plain")], full("not for web pages\n")));
                            }
                            handler.handle(request).await
                        }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Whether a web page asks, of any site: what is on loopback can be reached by every page that a browser of this machine shows. Its requests
/// say where they come from; a page whose name was made to lead here (DNS rebinding) names itself as the host.
fn is_foreign(headers: &HeaderMap) -> bool {
    // `none`: somebody typed the address.
    if headers.contains_key(header::ORIGIN) || header(headers, "sec-fetch-site").is_some_and(|site| site != "none") {
        return true;
    }
    let host = header(headers, "host").unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let is_here = name == "localhost" || name.ends_with(".localhost") || name.parse::<std::net::IpAddr>().is_ok();
    !name.is_empty() && !is_here
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer; `headers` that are not valid are left out.
pub(crate) fn respond(status: u16, headers: &[(&str, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (http::HeaderName::from_bytes(name.as_bytes()), http::HeaderValue::from_bytes(value.as_bytes()))
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The whole body, if it is not longer than `limit`.
pub(crate) async fn read_all(body: Incoming, limit: usize) -> Option<Bytes> {
    Limited::new(body, limit).collect().await.ok().map(http_body_util::Collected::to_bytes)
}

/// An error of a JSON service.
#[derive(Debug, Clone)]
pub(crate) struct JsonError {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl JsonError {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.to_owned(), message: message.into() }
    }
}

pub(crate) type JsonResult = Result<Value, JsonError>;

/// Answers one call of an AWS JSON service: fault first, then `act`, recorded either way.
pub(crate) async fn json_call<F>(shared: &Shared, mut call: Call, version: &str, act: F) -> Answer
where
    F: Future<Output = JsonResult> + Send,
{
    let fault = match shared.admit(&call).await {
        Ok(fault) => fault,
        Err(closed) => {
            shared.recorder.record(call);
            return Err(closed);
        }
    };
    let result = match &fault {
        Some(Fault::Error { status, code }) => {
            Err(JsonError { status: *status, code: code.clone(), message: "injected fault".to_owned() })
        }
        _ => act.await,
    };
    let lost = matches!(fault, Some(Fault::LoseAnswer));
    let response = json_answer(version, result);
    call.status = if lost { 0 } else { response.status().as_u16() };
    shared.recorder.record(call);
    if lost { Err(Closed) } else { Ok(response) }
}

pub(crate) fn json_answer(version: &str, result: JsonResult) -> Response<Body> {
    let content_type = format!("application/x-amz-json-{version}");
    let mut headers = vec![(header::CONTENT_TYPE.as_str(), content_type.as_str())];
    let query_error;
    let (status, body) = match result {
        Ok(Value::Null) => (200, Bytes::new()),
        Ok(value) => (200, value.to_string().into()),
        Err(error) => {
            // SQS's clients still tell errors apart by the codes of the older Query protocol.
            if let Some(name) = error.code.strip_prefix("com.amazonaws.sqs#") {
                let code = match name {
                    "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue",
                    "MessageNotInflight" => "AWS.SimpleQueueService.MessageNotInflight",
                    "QueueNameExists" => "QueueAlreadyExists",
                    other => other,
                };
                query_error = format!("{code};Sender");
                headers.push(("x-amzn-query-error", &query_error));
            }
            (error.status, json!({ "__type": error.code, "message": error.message }).to_string().into())
        }
    };
    respond(status, &headers, full(body))
}

/// The action in `X-Amz-Target: Prefix.Action`, and the request as JSON.
pub(crate) async fn json_request(request: Request<Incoming>) -> (String, Result<Value, JsonError>) {
    let action = header(request.headers(), "x-amz-target")
        .and_then(|target| target.rsplit_once('.'))
        .map(|(_, action)| action.to_owned())
        .unwrap_or_default();
    let body = match read_all(request.into_body(), REQUEST_BYTES_MAX).await {
        Some(bytes) if bytes.is_empty() => Ok(json!({})),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|_| JsonError::new("SerializationException", "the request is not JSON")),
        None => Err(JsonError::new("SerializationException", "the request is too large or was cut")),
    };
    (action, body)
}

/// A string field of a JSON request.
pub(crate) fn text<'a>(request: &'a Value, field: &str) -> Option<&'a str> {
    request.get(field).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_are_turned_away_and_clients_are_not() {
        let foreign = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            is_foreign(&headers.collect())
        };
        for host in ["127.0.0.1:9000", "localhost:9000", "bucket.localhost:9000", "[::1]:9000", "127.0.0.1"] {
            assert!(!foreign(&[("host", host)]), "{host}");
            assert!(foreign(&[("host", host), ("origin", "https://example.com")]), "{host}");
            assert!(foreign(&[("host", host), ("sec-fetch-site", "cross-site")]), "{host}");
        }
        assert!(foreign(&[("host", "rebound.example:9000")]));
        assert!(!foreign(&[]), "an HTTP/1.0 client names no host");
    }
}
