//! The production side of the HTTP door: reqwest on rustls.
//!
//! One pool of kept-alive connections for the whole process. Nothing is retried and no redirect is followed here: a repeated or
//! redirected write must be somebody's decision, and a redirect would carry the token to another place.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

use super::{HttpError, HttpService, Sent};
use crate::{Error, Result, codes, trust};

/// A host that does not answer the first packets within this time is down; HubSpot's usually answers in a tenth of a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// HubSpot's gateway gives up after 100 s (status 524), which tells more than a time-out of ours: stay above it.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(110);

/// Connections kept for the next call; more calls than this are never in flight to one host.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// Gateways drop idle connections after about a minute; a frozen Lambda must not wake up with a pool of dead ones.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// No answer that hubferry asks for is larger: 100 records of a thousand properties stay well below.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Room made for an answer ahead of its bytes: that of 100 records with some dozens of properties.
const BODY_ROOM_MAX: usize = 1024 * 1024;

/// Carries requests with reqwest.
pub struct ReqwestService {
    client: reqwest::Client,
}

impl ReqwestService {
    /// A client with a pool of its own. Fails where the machine's TLS set-up cannot be read.
    pub fn new() -> Result<Self> {
        let mut tls = trust::tls();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("hubferry/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
            .map_err(|error| {
                Error::invalid(codes::HUBSPOT_UNAVAILABLE, "the HTTP client cannot be set up")
                    .with_source(error.without_url())
            })?;
        Ok(Self { client })
    }
}

#[async_trait(?Send)]
impl HttpService for ReqwestService {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request).map_err(|error| lost(&error.without_url(), Sent::Never))?;
        let mut response = self.client.execute(request).await.map_err(|error| {
            let sent = if error.is_connect() || error.is_builder() { Sent::Never } else { Sent::Maybe };
            lost(&error.without_url(), sent)
        })?;
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        // Answers come in one piece where they fit; the room that is announced is not believed beyond reason.
        let announced = response.content_length().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
        let mut body = Vec::with_capacity(announced.min(BODY_ROOM_MAX));
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error.without_url(), Sent::Maybe))? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                let message = format!("the answer is larger than {BODY_BYTES_MAX} bytes");
                return Err(HttpError { sent: Sent::Maybe, message });
            }
            body.extend_from_slice(&chunk);
        }
        *answer.body_mut() = body.into();
        Ok(answer)
    }
}

/// The chain of causes as text; the address was taken out before.
fn lost(error: &reqwest::Error, sent: Sent) -> HttpError {
    let mut message = if error.is_timeout() { "timed out".to_owned() } else { error.to_string() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // hyper repeats its cause's text in its own.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    HttpError { sent, message: trust::explained(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    async fn answer_once(listener: &TcpListener, answer: &[u8]) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let mut seen = Vec::new();
        while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).await.unwrap();
            seen.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer).await.unwrap();
    }

    async fn call(port: u16) -> Result<Response<Bytes>, HttpError> {
        let request =
            Request::get(format!("http://127.0.0.1:{port}/x?email=someone@example.com")).body(Bytes::new()).unwrap();
        ReqwestService::new().unwrap().call(request).await
    }

    #[tokio::test]
    async fn a_status_outside_2xx_is_an_answer_and_a_redirect_is_not_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer =
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 2\r\n\r\nhi";
        let (answer, ()) = tokio::join!(call(port), answer_once(&listener, answer));
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (307, b"hi".as_slice()));
    }

    #[tokio::test]
    async fn a_refused_connection_never_left_and_a_cut_answer_may_have_been_carried_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, ()) =
            tokio::join!(call(port), answer_once(&listener, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"));
        let cut = cut.unwrap_err();
        assert_eq!(cut.sent, Sent::Maybe);
        drop(listener);
        let refused = call(port).await.unwrap_err();
        assert_eq!(refused.sent, Sent::Never);
        for error in [cut, refused] {
            assert!(!error.message.contains("someone") && !error.message.contains("email"), "{error}");
        }
    }
}
