//! The page's server: HTTP/1.1 on loopback, one thread, everything bounded.
//!
//! Any site that a browser of this machine shows can send requests here, so each one has to prove where it comes from: see [`refusal`].

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{page, stage::Stage};
use crate::html::unurl;

/// Connections at once; a browser opens six.
const CONNECTIONS_MAX: usize = 64;
/// Streams of events at once, each a tab: below the connections, so that pages are served too.
const STREAMS_MAX: usize = 24;
/// Bytes of an uploaded file. It is in memory while it comes in; larger files go into the folder, or to S3.
pub(super) const UPLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of any other form: a page of corrected rejects.
const FORM_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For the head of a request, and for its body: nobody waits here for long.
const HEAD_MAX: Duration = Duration::from_secs(30);
const BODY_MAX: Duration = Duration::from_secs(120);
/// For what a form asked for, before the page that shows it: a decision takes a handful of calls.
const AFTER_MAX: Duration = Duration::from_secs(10);
/// How often an event stream looks for news.
const TICK: Duration = Duration::from_millis(400);
/// Ticks without news after which a stream says that it is alive.
const QUIET_TICKS: u32 = 25;
/// Ticks after which a stream ends; the browser opens another: an hour.
const TICKS_MAX: u32 = 9_000;
/// How often limits are sampled although nobody looks.
const SAMPLE: Duration = Duration::from_secs(1);

/// A request, whole.
pub(super) struct Asked {
    pub(super) method: Method,
    /// Segments of the path, decoded.
    pub(super) path: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    /// A value of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Bytes,
    /// What the answer waits for, for a while, so that the page that it leads to shows it.
    pub(super) after: Option<oneshot::Receiver<()>>,
}

impl Answer {
    /// Of this type.
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into(), after: None }
    }

    /// Plain text.
    pub(super) fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into())
    }

    /// After a form: go there.
    pub(super) fn see(location: &str) -> Self {
        let mut answer = Self::text(303, "");
        answer.headers.push((header::LOCATION, location.to_owned()));
        answer
    }

    /// To be given once this is done, or has taken [`AFTER_MAX`].
    pub(super) fn after(mut self, done: oneshot::Receiver<()>) -> Self {
        self.after = Some(done);
        self
    }

    /// With one more header.
    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Why a request is not answered: it may come from another site.
///
/// - The host has to be this machine's: a name that was made to lead here (DNS rebinding) is not.
/// - What changes something has to be a POST whose `Origin` is this page. Browsers send it with every POST and let no page change it.
/// - It also has to bring the token that stands in the page's forms, which is looked at where the form is read.
pub(super) fn refusal(method: &Method, headers: &HeaderMap, page_at: SocketAddr) -> Option<Answer> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let port = page_at.port();
    let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let host = text(header::HOST).unwrap_or_default();
    if !hosts.iter().any(|own| own == host) {
        return Some(Answer::text(
            421,
            format!("This is the page of a local cloud; it is at http://127.0.0.1:{port}/\n"),
        ));
    }
    match *method {
        Method::GET | Method::HEAD => None,
        Method::POST if text(header::ORIGIN) == Some(format!("http://{host}").as_str()) => None,
        Method::POST => Some(Answer::text(403, "Forms of this page are taken from this page only.\n")),
        _ => Some(Answer::text(405, "GET and POST only.\n").with(header::ALLOW, "GET, HEAD, POST")),
    }
}

/// An answer's body, or a stream of events.
struct Feed(mpsc::Receiver<Bytes>, Arc<Streams>);

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// How many streams there are.
#[derive(Default)]
struct Streams(AtomicUsize);

impl Drop for Feed {
    fn drop(&mut self) {
        self.1.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the tasks of the server share.
struct Server {
    stage: Arc<Stage>,
    streams: Arc<Streams>,
    /// Hands a stream's writer to the accept loop, which holds all tasks.
    feeds: mpsc::Sender<(mpsc::Sender<Bytes>, page::View)>,
}

/// Serves until `stop` is told or dropped; every connection ends with it.
pub(super) fn serve(listener: TcpListener, stage: Arc<Stage>, mut stop: oneshot::Receiver<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (feeds, mut new_feeds) = mpsc::channel(STREAMS_MAX);
        let server = Arc::new(Server { stage: Arc::clone(&stage), streams: Arc::default(), feeds });
        let mut tasks = JoinSet::new();
        let mut sample = tokio::time::interval(SAMPLE);
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = &mut stop => return Ok(()),
                _ = sample.tick() => drop(stage.board()),
                Some((to, view)) = new_feeds.recv() => {
                    tasks.spawn(feed(Arc::clone(&stage), to, view));
                }
                accepted = listener.accept(), if tasks.len() < CONNECTIONS_MAX + STREAMS_MAX => {
                    // A browser that went away is no reason to stop.
                    let Ok((stream, _)) = accepted else { continue };
                    let _ = stream.set_nodelay(true);
                    let server = Arc::clone(&server);
                    tasks.spawn(async move {
                        let service = service_fn(move |request| answer(Arc::clone(&server), request));
                        let _ = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEAD_MAX)
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
    })
}

type Out = Response<Either<Full<Bytes>, Feed>>;

async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Result<Out, Infallible> {
    let (parts, body) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let answer = match refusal(&parts.method, &parts.headers, server.stage.page_at) {
        Some(refusal) => refusal,
        None => {
            let most = if parts.uri.path() == "/upload" { UPLOAD_BYTES_MAX } else { FORM_BYTES_MAX };
            let stated = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            if stated.is_some_and(|bytes: usize| bytes > most) {
                too_large(most)
            } else {
                match timeout(BODY_MAX, Limited::new(body, most).collect()).await {
                    Ok(Ok(body)) => {
                        let asked = Asked {
                            method: if is_head { Method::GET } else { parts.method },
                            path: segments(parts.uri.path()),
                            query: pairs(parts.uri.query().unwrap_or_default()),
                            headers: parts.headers,
                            body: body.to_bytes(),
                        };
                        if let Some(view) = page::view(&asked) {
                            return Ok(stream(&server, view));
                        }
                        let mut answer = page::answer(&server.stage, &asked);
                        if let Some(done) = answer.after.take() {
                            // Whatever became of it is told by the page.
                            let _ = timeout(AFTER_MAX, done).await;
                        }
                        answer
                    }
                    Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => too_large(most),
                    _ => Answer::text(400, "The request ended too early.\n"),
                }
            }
        }
    };
    Ok(respond(answer, is_head))
}

fn too_large(most: usize) -> Answer {
    let most = most / (1024 * 1024);
    Answer::text(
        413,
        format!("More than {most} MB are not taken here: put the file into the watched folder, or upload it to S3.\n"),
    )
    // What was not read cannot be skipped.
    .with(header::CONNECTION, "close")
}

/// What every answer says. No page of this server loads anything from elsewhere, is shown inside another one, or is kept.
fn respond(answer: Answer, is_head: bool) -> Out {
    let body = if is_head { Bytes::new() } else { answer.body };
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
                  base-uri 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // `no-referrer` would take the origin out of the page's own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// Begins a stream of events.
fn stream(server: &Server, view: page::View) -> Out {
    let count = server.streams.0.fetch_add(1, Ordering::SeqCst);
    // From here on the feed counts itself out.
    let (to, from) = mpsc::channel(4);
    let feed = Feed(from, Arc::clone(&server.streams));
    if count >= STREAMS_MAX || server.feeds.try_send((to, view)).is_err() {
        return respond(
            Answer::text(503, "Too many tabs look at this already.\n").with(header::RETRY_AFTER, "10"),
            false,
        );
    }
    let mut response = respond(Answer::new(200, "text/event-stream", Bytes::new()), false).map(|_| Either::Right(feed));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    response
}

/// Writes what is new, as long as somebody reads.
async fn feed(stage: Arc<Stage>, to: mpsc::Sender<Bytes>, view: page::View) {
    let mut told: Vec<(&'static str, String)> = Vec::new();
    let mut quiet = 0;
    for _ in 0..TICKS_MAX {
        let parts = page::parts(&stage, &view);
        let mut news = String::new();
        for part in &parts {
            if !told.contains(part) {
                let data = serde_json::json!({ "id": part.0, "html": part.1 });
                news.push_str(&format!("data: {data}\n\n"));
            }
        }
        told = parts;
        quiet = if news.is_empty() { quiet + 1 } else { 0 };
        if quiet >= QUIET_TICKS {
            news.push_str(": still here\n\n");
            quiet = 0;
        }
        if !news.is_empty() && to.send(news.into()).await.is_err() {
            return;
        }
        // A pause that ends with the reader.
        if timeout(TICK, to.closed()).await.is_ok() {
            return;
        }
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(|part| unurl(part).unwrap_or_default()).collect()
}

/// Names and values of a query, or of a form.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |part: &str| unurl(&part.replace('+', " ")).unwrap_or_default();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &Method, pairs: &[(&'static str, &'static str)]) -> Option<u16> {
        let headers =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        refusal(method, &headers.collect(), "127.0.0.1:8080".parse().unwrap()).map(|answer| answer.status)
    }

    #[test]
    fn only_this_machine_s_names_are_answered() {
        for host in ["127.0.0.1:8080", "localhost:8080"] {
            assert_eq!(status(&Method::GET, &[("host", host)]), None, "{host}");
        }
        for host in ["rebound.example:8080", "127.0.0.1:8081", "127.0.0.1", "127.0.0.1:8080.example", ""] {
            assert_eq!(status(&Method::GET, &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(status(&Method::GET, &[]), Some(421));
    }

    #[test]
    fn a_form_of_another_site_is_refused() {
        let host = ("host", "127.0.0.1:8080");
        assert_eq!(status(&Method::POST, &[host, ("origin", "http://127.0.0.1:8080")]), None);
        assert_eq!(status(&Method::POST, &[("host", "localhost:8080"), ("origin", "http://localhost:8080")]), None);
        for origin in ["https://example.com", "null", "http://127.0.0.1:9090", "http://localhost:8080"] {
            assert_eq!(status(&Method::POST, &[host, ("origin", origin)]), Some(403), "{origin}");
        }
        assert_eq!(status(&Method::POST, &[host]), Some(403), "a browser always says where a form comes from");
        assert_eq!(status(&Method::DELETE, &[host, ("origin", "http://127.0.0.1:8080")]), Some(405));
    }

    #[test]
    fn a_query_is_read_as_browsers_write_it() {
        let pairs = pairs("q=a+b%2Bc%26&page=2&&empty=&alone");
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("q", "a b+c&"), ("page", "2"), ("empty", ""), ("alone", "")]);
        assert_eq!(segments("/runs/a%2Fb/"), ["runs", "a/b"]);
    }
}
