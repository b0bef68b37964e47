//! How the SDK's calls travel: hyper on rustls.
//!
//! The SDK's own HTTP client takes certificates as text alone, and reads them again for each of its services, which took most of the time between
//! the start of a process and its first invocation. This one has what both clients trust ready-made ([`trust`]), and one pool of
//! connections for all services. reqwest, which carries the CRMs' calls, is no way for these: it takes `.` and `..` out of addresses, which keys of
//! objects may have.

use std::{
    error::Error as StdError,
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::retries::ErrorKind as RetryKind;
use aws_smithy_runtime_api::client::{
    connection::{CaptureSmithyConnection, ConnectionMetadata},
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{CaptureConnection, HttpConnector as Tcp, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};

use crate::trust;

type Pool = legacy::Client<HttpsConnector<Tcp>, SdkBody>;

/// The client for all services.
pub(super) fn client() -> SharedHttpClient {
    SharedHttpClient::new(Pools::default())
}

/// A pool for each connect time-out that is asked for: hubferry's own, and those of the places where credentials come from.
#[derive(Debug, Default)]
struct Pools(Mutex<Vec<(Option<Duration>, Pool)>>);

impl Pools {
    fn of(&self, connect_timeout: Option<Duration>) -> Pool {
        // Nothing here panics half-way.
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pool)) = pools.iter().find(|(of, _)| *of == connect_timeout) {
            return pool.clone();
        }
        let pool = pool(connect_timeout);
        pools.push((connect_timeout, pool.clone()));
        pool
    }
}

impl HttpClient for Pools {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let pool = self.of(settings.connect_timeout());
        SharedHttpConnector::new(Connector { pool, read_timeout: settings.read_timeout() })
    }
}

/// The time-out is that of TCP; TLS is in the time that an answer has.
fn pool(connect_timeout: Option<Duration>) -> Pool {
    let mut tcp = Tcp::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(connect_timeout);
    // Stand-ins on the same machine speak without TLS.
    let https = HttpsConnectorBuilder::new().with_tls_config(trust::tls()).https_or_http().enable_http1();
    legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https.wrap_connector(tcp))
}

#[derive(Debug)]
struct Connector {
    pool: Pool,
    /// From the call to the answer's head, TLS included.
    read_timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let connection = capture_connection(&mut request);
        if let Some(capture) = request.extensions().get::<CaptureSmithyConnection>() {
            // The SDK gives a connection up after an answer that says the other side is in trouble.
            capture.set_connection_retriever(move || known(&connection));
        }
        let call = self.pool.request(request);
        let limit = self.read_timeout;
        HttpConnectorFuture::new(async move {
            let answer = match limit {
                None => call.await,
                Some(limit) => tokio::time::timeout(limit, call)
                    .await
                    .map_err(|_| ConnectorError::timeout(Silence(limit).into()))?,
            };
            HttpResponse::try_from(answer.map_err(failed)?.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn known(connection: &CaptureConnection) -> Option<ConnectionMetadata> {
    connection.connection_metadata().as_ref()?;
    let connection = connection.clone();
    let poison = move || {
        if let Some(connected) = connection.connection_metadata().as_ref() {
            connected.poison();
        }
    };
    Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
}

/// No answer's head came within this time.
#[derive(Debug)]
struct Silence(Duration);

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl StdError for Silence {}

/// What the SDK's retries go by: time-outs and lost connections are tried again.
fn failed(error: legacy::Error) -> ConnectorError {
    let broken = cause::<io::Error>(&error).map(io::Error::kind);
    let (user, closed, cut) = cause::<hyper::Error>(&error).map_or((false, false, false), |error| {
        (error.is_user(), error.is_closed() || error.is_canceled(), error.is_incomplete_message())
    });
    if user {
        ConnectorError::user(error.into())
    } else if broken == Some(io::ErrorKind::TimedOut) {
        ConnectorError::timeout(error.into())
    } else if error.is_connect() || broken.is_some() || closed {
        ConnectorError::io(error.into())
    } else {
        // An answer that ends in its head is S3's way to close a connection; anything else is no answer in HTTP.
        ConnectorError::other(error.into(), cut.then_some(RetryKind::TransientError))
    }
}

/// The first cause of this kind.
fn cause<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    async fn call(address: &str, limit: Option<Duration>) -> Result<HttpResponse, ConnectorError> {
        let connector = Connector { pool: pool(Some(Duration::from_secs(3))), read_timeout: limit };
        connector.call(HttpRequest::get(address).unwrap()).await
    }

    /// Takes one connection, reads its request's head, and answers; the head's first line.
    async fn answer(listener: &TcpListener, answer: &[u8]) -> String {
        answer_on(&mut listener.accept().await.unwrap().0, answer).await
    }

    async fn answer_on(stream: &mut TcpStream, answer: &[u8]) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer).await.unwrap();
        String::from_utf8(seen).unwrap().lines().next().unwrap().to_owned()
    }

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        (listener, address)
    }

    #[tokio::test]
    async fn a_key_with_dots_between_slashes_stays_as_it_is() {
        let (listener, address) = listener().await;
        let path = "/files/a/../b/./c%2520d.csv?x-id=GetObject";
        let address = address + path;
        let (answered, asked) =
            tokio::join!(call(&address, None), answer(&listener, b"HTTP/1.1 204 No Content\r\n\r\n"));
        assert_eq!(asked, format!("GET {path} HTTP/1.1"));
        assert_eq!(answered.unwrap().status().as_u16(), 204);
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_its_answer_is_tried_again_and_a_refused_one_too() {
        let (listener, address) = listener().await;
        let (cut, _) = tokio::join!(call(&address, None), answer(&listener, b"HTTP/1.1 200 "));
        let cut = cut.unwrap_err();
        assert_eq!(cut.as_other(), Some(RetryKind::TransientError), "{cut:?}");
        let (nonsense, _) = tokio::join!(call(&address, None), answer(&listener, b"no HTTP at all\r\n\r\n"));
        let nonsense = nonsense.unwrap_err();
        assert!(nonsense.is_other() && nonsense.as_other().is_none(), "{nonsense:?}");
        drop(listener);
        let refused = call(&address, None).await.unwrap_err();
        assert!(refused.is_io(), "{refused:?}");
    }

    #[tokio::test]
    async fn a_connection_is_used_again_unless_the_sdk_has_given_it_up() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        for given_up in [false, true] {
            let (listener, address) = listener().await;
            let connector = Connector { pool: pool(None), read_timeout: None };
            let capture = CaptureSmithyConnection::new();
            let mut request = HttpRequest::get(&address).unwrap();
            request.add_extension(capture.clone());
            let accepted = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                answer_on(&mut stream, ANSWER).await;
                stream
            };
            let (answered, mut first) = tokio::join!(connector.call(request), accepted);
            drop(answered.unwrap());
            let connection = capture.get().unwrap();
            if given_up {
                connection.poison();
            }
            let second = async {
                let on_first = async {
                    if first.peek(&mut [0]).await.unwrap_or_default() == 0 {
                        std::future::pending::<()>().await; // It was closed.
                    }
                    answer_on(&mut first, ANSWER).await
                };
                tokio::select! {
                    _ = answer(&listener, ANSWER) => true,
                    _ = on_first => false,
                }
            };
            let (answered, is_new) = tokio::join!(connector.call(HttpRequest::get(&address).unwrap()), second);
            assert_eq!((answered.unwrap().status().as_u16(), is_new), (200, given_up));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_with_its_time_out() {
        let (_listener, address) = listener().await;
        let silent = call(&address, Some(Duration::from_secs(5))).await.unwrap_err();
        assert!(silent.is_timeout(), "{silent:?}");
        assert_eq!(silent.source().unwrap().to_string(), "no answer within 5s");
    }

    #[test]
    fn one_pool_serves_all_who_wait_alike_for_a_connection() {
        let pools = Pools::default();
        for seconds in [3, 1, 3, 3] {
            drop(pools.of(Some(Duration::from_secs(seconds))));
        }
        assert_eq!(pools.0.lock().unwrap().len(), 2);
    }
}
