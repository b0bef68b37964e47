//! The HTTP door of an org: the same state machine behind a loopback listener, for clients of any kind and language.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::{Org, Outcome};

/// Bytes of one request: the largest upload of a Bulk job fits, a mistake does not fill the memory.
const REQUEST_BYTES_MAX: usize = 128 * 1024 * 1024;

/// An org that several connections, and the test beside them, look at.
pub type Shared = Arc<Mutex<Org>>;

/// The connection is to be cut.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("the connection is cut on purpose")
    }
}

impl std::error::Error for Cut {}

/// Serves the org until the future is dropped or the listener fails. Connections are kept alive; each runs as a
/// task of the runtime that polls this. Latency is slept.
pub async fn serve(
    listener: TcpListener,
    org: Shared,
    clock: impl Fn() -> Timestamp + Clone + Send + Sync + 'static,
) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (org, clock) = (Arc::clone(&org), clock.clone());
        let connection = async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&org), clock.clone()));
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "connection ended");
            }
        };
        #[expect(clippy::disallowed_methods, reason = "a server answers its connections side by side")]
        tokio::spawn(connection);
    }
}

async fn answer(
    request: Request<Incoming>,
    org: Shared,
    clock: impl Fn() -> Timestamp,
) -> Result<Response<BoxBody<Bytes, Cut>>, Cut> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| Cut)?.to_bytes();
    let request = Request::from_parts(head, body);
    let reply = org.lock().unwrap_or_else(PoisonError::into_inner).handle(clock(), &request);
    if !reply.latency.is_zero() {
        #[expect(clippy::disallowed_methods, reason = "the simulated server takes its time")]
        tokio::time::sleep(reply.latency).await;
    }
    match reply.response {
        Outcome::Response(response) => Ok(response.map(|body| Full::new(body).map_err(|never| match never {}).boxed())),
        // The head promises the whole length, then the stream fails: the client sees a connection cut in mid-body.
        Outcome::Truncated(response) => Ok(response.map(|body| {
            let first = stream::iter([Ok(Frame::data(body))]);
            // One pending poll lets the first part reach the socket before the cut.
            let pause = stream::once(async {
                tokio::task::yield_now().await;
                Err(Cut)
            });
            BoxBody::new(StreamBody::new(first.chain(pause)))
        })),
        Outcome::ResetBefore | Outcome::ResetAfter => Err(Cut),
    }
}
