//! Traces on request: what an invocation spent its time on, for AWS X-Ray.
//!
//! Lambda itself makes the trace of an invocation that it samples, says so in a header, and runs a daemon that takes segments as datagrams. So a
//! trace costs no connection, no permission at call time, no dependency and no wait: [`Tracer`] counts while the invocation runs, and sends a few
//! datagrams when a run ends or yields.
//!
//! A run is one subsegment. Its calls are not: a million rows are ten thousand calls. They are summed up by *kind*, method and path without
//! whatever names a record ([`kind_of`]), and each kind is one subsegment from its first call to its last, with how many there were, how long they
//! took, and how many failed. Kinds follow the phases of a job (definitions are read, records searched, written, associated), so the picture is
//! that of the phases. Bounded: [`KINDS_MAX`] kinds a run, [`DOCUMENTS_MAX`] documents an invocation.
//!
//! A datagram that is not taken is lost, which is all that may happen.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    clock::{Clock, Rng},
    http::{HttpError, HttpService},
    report::{Outcome, Report},
};

/// Kinds of calls that are told apart in a run; the others are summed up as one. A job makes about a dozen.
pub const KINDS_MAX: usize = 40;

/// Documents of one invocation: a sweep over a hundred runs, each with a few kinds of calls.
pub const DOCUMENTS_MAX: usize = 500;

/// What precedes each document in a datagram.
const HEADER: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";

/// The kind of those beyond [`KINDS_MAX`].
const OTHERS: &str = "other calls";

/// Takes datagrams.
pub trait Daemon {
    /// Sends one, or loses it. Must not wait.
    fn send(&self, datagram: &[u8]);
}

/// The X-Ray daemon.
#[derive(Debug)]
pub struct Udp {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Udp {
    /// The daemon at an address as `AWS_XRAY_DAEMON_ADDRESS` has it: `169.254.79.129:2000`, or `tcp:HOST:PORT udp:HOST:PORT`. `None` where that is
    /// no address of numbers, or no socket can be had: then there are no traces.
    pub fn new(address: &str) -> Option<Self> {
        let mut parts = address.split_whitespace();
        let udp = parts.clone().find_map(|part| part.strip_prefix("udp:")).or_else(|| parts.next());
        let to: SocketAddr = udp?.parse().ok()?;
        let from: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(from).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, to })
    }
}

impl Daemon for Udp {
    fn send(&self, datagram: &[u8]) {
        if let Err(error) = self.socket.send_to(datagram, self.to) {
            tracing::debug!(%error, "a trace segment was not taken");
        }
    }
}

/// Whose part the subsegments are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    trace: String,
    segment: String,
}

/// Reads the header that Lambda gives: `Root=1-…;Parent=…;Sampled=1`. `None` where the invocation is not sampled, or the header makes no sense.
fn parent_of(header: &str) -> Option<Parent> {
    let field = |name: &str| header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (trace, segment) = (field("Root")?, field("Parent")?);
    let mut parts = trace.splitn(3, '-');
    let well_formed = parts.next() == Some("1")
        && parts.next().is_some_and(|time| time.len() == 8 && hex(time))
        && parts.next().is_some_and(|unique| unique.len() == 24 && hex(unique))
        && segment.len() == 16
        && hex(segment);
    (well_formed && field("Sampled") == Some("1"))
        .then(|| Parent { trace: trace.to_owned(), segment: segment.to_owned() })
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// An answer with this status.
    Status(u16),
    /// No answer.
    Lost,
}

/// The calls of one kind.
#[derive(Debug, Clone, Copy)]
struct Tally {
    first: Timestamp,
    last: Timestamp,
    calls: u64,
    throttled: u64,
    refused: u64,
    failed: u64,
    lost: u64,
    took: Duration,
    longest: Duration,
}

/// Counts calls while an invocation is traced.
pub struct Tracer {
    daemon: Box<dyn Daemon>,
    clock: Rc<dyn Clock>,
    rng: Rc<Rng>,
    parent: RefCell<Option<Parent>>,
    /// Since the invocation began, or since the last run of it was told.
    since: Cell<Timestamp>,
    calls: RefCell<BTreeMap<String, Tally>>,
    sent: Cell<usize>,
}

impl Tracer {
    /// Nothing is traced before [`Tracer::begin`].
    pub fn new(daemon: Box<dyn Daemon>, clock: Rc<dyn Clock>, rng: Rc<Rng>) -> Self {
        Self {
            daemon,
            since: Cell::new(clock.now()),
            clock,
            rng,
            parent: RefCell::default(),
            calls: RefCell::default(),
            sent: Cell::new(0),
        }
    }

    /// An invocation begins, with this trace header. One that is not sampled is not traced.
    pub fn begin(&self, header: Option<&str>) {
        *self.parent.borrow_mut() = header.and_then(parent_of);
        self.calls.borrow_mut().clear();
        self.since.set(self.clock.now());
        self.sent.set(0);
    }

    /// The invocation ends. Calls that belong to no run (its settings were read, say) are told as the invocation's own.
    pub fn end(&self) {
        if let Some(parent) = self.parent.take() {
            self.send_calls(&parent.trace, &parent.segment);
        }
        self.calls.borrow_mut().clear();
    }

    /// Whether the invocation is traced.
    pub fn is_on(&self) -> bool {
        self.parent.borrow().is_some()
    }

    /// Runs that this invocation has ended, or leaves to another, since the last time. The calls since then are theirs.
    pub fn runs(&self, reports: &[&Report]) {
        let Some(parent) = self.parent.borrow().clone() else { return };
        let now = self.clock.now();
        let since = self.since.replace(now);
        let mut owner = None;
        for report in reports {
            let id = self.id();
            self.send(&run(report, &parent, &id, since, now));
            owner = if reports.len() == 1 { Some(id) } else { None };
        }
        // Calls of several runs at a time cannot be told apart.
        self.send_calls(&parent.trace, owner.as_deref().unwrap_or(&parent.segment));
    }

    fn send_calls(&self, trace: &str, parent: &str) {
        for (kind, tally) in self.calls.take() {
            self.send(&calls(&kind, &tally, trace, parent, &self.id()));
        }
    }

    fn send(&self, document: &Value) {
        let sent = self.sent.get();
        if sent >= DOCUMENTS_MAX {
            return;
        }
        self.sent.set(sent + 1);
        let mut datagram = HEADER.to_vec();
        datagram.extend_from_slice(document.to_string().as_bytes());
        self.daemon.send(&datagram);
    }

    fn id(&self) -> String {
        format!("{:016x}", self.rng.u64())
    }

    fn called(&self, kind: String, began: Timestamp, took: Duration, fate: Fate) {
        let ended = began.saturating_add(took).unwrap_or(began);
        let mut calls = self.calls.borrow_mut();
        let kind = if calls.len() >= KINDS_MAX && !calls.contains_key(&kind) { OTHERS.to_owned() } else { kind };
        let tally = calls.entry(kind).or_insert(Tally {
            first: began,
            last: ended,
            calls: 0,
            throttled: 0,
            refused: 0,
            failed: 0,
            lost: 0,
            took: Duration::ZERO,
            longest: Duration::ZERO,
        });
        tally.first = tally.first.min(began);
        tally.last = tally.last.max(ended);
        tally.calls += 1;
        tally.took = tally.took.saturating_add(took);
        tally.longest = tally.longest.max(took);
        match fate {
            Fate::Status(429) => tally.throttled += 1,
            Fate::Status(400..500) => tally.refused += 1,
            Fate::Status(500..) => tally.failed += 1,
            Fate::Status(_) => {}
            Fate::Lost => tally.lost += 1,
        }
    }
}

/// Seconds since 1970, with a fraction.
fn seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit a double")]
    let micros = at.as_microsecond() as f64;
    micros / 1e6
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A run's subsegment. `since`: when this invocation took it up, as far as is known.
fn run(report: &Report, parent: &Parent, id: &str, since: Timestamp, now: Timestamp) -> Value {
    let rows = &report.rows;
    let mut annotations = json!({
        "run_id": report.run_id,
        "job": report.job,
        "name": report.name,
        "outcome": report.outcome.as_str(),
        "account": report.account,
    });
    if let Some(error) = &report.error {
        annotations["error_code"] = error.code.as_str().into();
    }
    json!({
        "type": "subsegment",
        "trace_id": parent.trace,
        "parent_id": parent.segment,
        "id": id,
        "name": name_of(&format!("{} {}", report.job, report.name)),
        "start_time": seconds(since),
        "end_time": seconds(now.max(since)),
        "fault": report.outcome == Outcome::Failed,
        "error": matches!(report.outcome, Outcome::Invalid | Outcome::Aborted),
        "annotations": annotations,
        "metadata": { "hubferry": {
            "rows": rows,
            "calls": report.calls,
            "invocations": report.invocations,
            "duration_ms": report.duration_ms,
        } },
    })
}

/// The subsegment of all calls of a kind.
fn calls(kind: &str, tally: &Tally, trace: &str, parent: &str, id: &str) -> Value {
    json!({
        "type": "subsegment",
        "trace_id": trace,
        "parent_id": parent,
        "id": id,
        "name": name_of(kind),
        "start_time": seconds(tally.first),
        "end_time": seconds(tally.last),
        "throttle": tally.throttled > 0,
        "error": tally.refused > 0,
        "fault": tally.failed + tally.lost > 0,
        "metadata": { "hubferry": {
            "calls": tally.calls,
            "throttled": tally.throttled,
            "refused": tally.refused,
            "failed": tally.failed,
            "lost": tally.lost,
            "took_ms": millis(tally.took),
            "longest_ms": millis(tally.longest),
        } },
    })
}

/// X-Ray's longest name of a segment.
const NAME_MAX: usize = 200;

/// A name of what X-Ray takes: letters, digits, spaces and a few signs.
fn name_of(text: &str) -> String {
    let taken = |c: char| c.is_alphanumeric() || " _.:/%&#=+-@".contains(c);
    text.chars().map(|c| if taken(c) { c } else { '_' }).take(NAME_MAX).collect()
}

/// Parts of paths that name a thing to do and never a record. What is not here is left out of a kind: a path may hold a key's value.
const WORDS: &[&str] = &[
    "account-info",
    "archive",
    "associate",
    "associations",
    "batch",
    "blog-posts",
    "blogs",
    "calls",
    "cms",
    "commerce",
    "communications",
    "companies",
    "composite",
    "contacts",
    "contents",
    "create",
    "crm",
    "data",
    "deals",
    "default",
    "details",
    "domains",
    "emails",
    "feedback_submissions",
    "gdpr-delete",
    "goal_targets",
    "hubdb",
    "ingest",
    "jobs",
    "labels",
    "landing-pages",
    "leads",
    "limits",
    "line_items",
    "media-bridge",
    "meetings",
    "merge",
    "notes",
    "oauth",
    "oauth2",
    "objects",
    "owners",
    "pages",
    "partner_clients",
    "pipelines",
    "posts",
    "postal_mail",
    "products",
    "properties",
    "query",
    "queryAll",
    "quotes",
    "read",
    "results",
    "search",
    "services",
    "site-pages",
    "sobjects",
    "describe",
    "tables",
    "tags",
    "authors",
    "tasks",
    "taxes",
    "tickets",
    "token",
    "update",
    "updated",
    "deleted",
    "upsert",
    "url-mappings",
    "url-redirects",
    "v1",
    "v2",
    "v3",
    "v4",
];

/// The kind of a call: `POST crm/objects/contacts/batch/upsert`. Whatever is not known to be a word of the API, an id or a key above all, is `_`.
pub fn kind_of(method: &Method, path: &str) -> String {
    let mut kind = method.as_str().to_owned();
    let mut separator = ' ';
    for part in path.split('/').filter(|part| !part.is_empty()) {
        kind.push(separator);
        kind.push_str(if WORDS.contains(&part) { part } else { "_" });
        separator = '/';
        if kind.len() > NAME_MAX {
            break;
        }
    }
    kind
}

/// The door to the CRMs, counted.
pub struct Traced {
    inner: Rc<dyn HttpService>,
    tracer: Rc<Tracer>,
}

impl Traced {
    /// Calls go to `inner`; where the invocation is traced, `tracer` hears of them.
    pub fn new(inner: Rc<dyn HttpService>, tracer: Rc<Tracer>) -> Self {
        Self { inner, tracer }
    }
}

#[async_trait(?Send)]
impl HttpService for Traced {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if !self.tracer.is_on() {
            return self.inner.call(request).await;
        }
        let kind = kind_of(request.method(), request.uri().path());
        let (began, start) = (self.tracer.clock.now(), self.tracer.clock.elapsed());
        let answer = self.inner.call(request).await;
        let fate = match &answer {
            Ok(answer) => Fate::Status(answer.status().as_u16()),
            Err(_) => Fate::Lost,
        };
        self.tracer.called(kind, began, self.tracer.clock.elapsed().saturating_sub(start), fate);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::VirtualClock, http::Sent};

    const SAMPLED: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:0";

    #[derive(Clone, Default)]
    struct Sink(Rc<RefCell<Vec<Value>>>);

    impl Daemon for Sink {
        fn send(&self, datagram: &[u8]) {
            let document = datagram.strip_prefix(HEADER).expect("the daemon's header");
            assert!(datagram.len() < 64 * 1024, "a datagram");
            self.0.borrow_mut().push(serde_json::from_slice(document).unwrap());
        }
    }

    struct Answers(Rc<VirtualClock>, u16);

    #[async_trait(?Send)]
    impl HttpService for Answers {
        async fn call(&self, _request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            self.0.sleep(Duration::from_millis(300)).await;
            if self.1 == 0 {
                return Err(HttpError { sent: Sent::Maybe, message: "reset".to_owned() });
            }
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = http::StatusCode::from_u16(self.1).unwrap();
            Ok(response)
        }
    }

    struct World {
        sink: Sink,
        tracer: Rc<Tracer>,
        clock: Rc<VirtualClock>,
    }

    impl World {
        fn new() -> Self {
            let clock = Rc::new(VirtualClock::starting_at("2026-03-02T09:00:00Z".parse().unwrap()));
            let sink = Sink::default();
            let tracer = Tracer::new(Box::new(sink.clone()), clock.clone(), Rc::new(Rng::seeded(1)));
            Self { sink, tracer: Rc::new(tracer), clock }
        }

        async fn call(&self, path: &str, status: u16) {
            let traced = Traced::new(Rc::new(Answers(self.clock.clone(), status)), self.tracer.clone());
            let request = Request::post(format!("https://api.hubapi.com{path}")).body(Bytes::new()).unwrap();
            let _ = traced.call(request).await;
        }

        fn sent(&self) -> Vec<Value> {
            self.sink.0.take()
        }
    }

    fn report(run_id: &str) -> Report {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        crate::import::blank_report("contacts", "default", Some(run_id.to_owned()), Default::default(), now, now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_a_subsegment_and_its_calls_are_one_for_each_kind() {
        let world = World::new();
        world.tracer.begin(Some(SAMPLED));
        for _ in 0..1_000 {
            world.call("/crm/objects/2026-09/contacts/batch/upsert", 200).await;
        }
        world.call("/crm/objects/2026-09/contacts/batch/upsert", 429).await;
        world.call("/crm/properties/2026-09/contacts", 0).await;
        world.tracer.runs(&[&report("R1")]);
        world.tracer.end();
        let sent = world.sent();
        assert_eq!(sent.len(), 3, "{sent:?}");
        let [run, upserts, definitions] = &sent[..] else { panic!() };
        assert_eq!((&run["name"], &run["parent_id"]), (&json!("import contacts"), &json!("53995c3f42cd8ad8")));
        assert_eq!((&run["annotations"]["run_id"], &run["fault"]), (&json!("R1"), &json!(true)));
        assert_eq!(run["trace_id"], "1-5759e988-bd862e3fe1be46a994272793");
        assert_eq!(upserts["name"], "POST crm/objects/_/contacts/batch/upsert");
        assert_eq!((&upserts["parent_id"], &upserts["type"]), (&run["id"], &json!("subsegment")));
        let told = &upserts["metadata"]["hubferry"];
        assert_eq!((&told["calls"], &told["throttled"], &told["took_ms"]), (&json!(1001), &json!(1), &json!(300_300)));
        let length = upserts["end_time"].as_f64().unwrap() - upserts["start_time"].as_f64().unwrap();
        assert!((length - 300.3).abs() < 0.01, "{length}");
        assert_eq!((&upserts["throttle"], &upserts["fault"]), (&json!(true), &json!(false)));
        assert_eq!((&definitions["fault"], &definitions["metadata"]["hubferry"]["lost"]), (&json!(true), &json!(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_of_runs_side_by_side_are_the_invocations_and_those_of_the_next_run_are_its_own() {
        let world = World::new();
        world.tracer.begin(Some(SAMPLED));
        world.call("/crm/owners/2026-09", 200).await;
        world.tracer.runs(&[&report("R1"), &report("R2")]);
        world.call("/crm/owners/2026-09", 200).await;
        world.tracer.runs(&[&report("R3")]);
        world.call("/crm/owners/2026-09", 200).await;
        world.tracer.end();
        let sent = world.sent();
        let parents: Vec<&Value> = sent.iter().map(|document| &document["parent_id"]).collect();
        let lambda = &json!("53995c3f42cd8ad8");
        assert_eq!(parents, [lambda, lambda, lambda, lambda, &sent[3]["id"], lambda]);
        assert!(sent[3]["start_time"].as_f64().unwrap() > sent[0]["start_time"].as_f64().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_sampled_is_not_traced() {
        let world = World::new();
        for header in [
            None,
            Some("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"),
            Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"),
            Some("Root=1-5759e988-\"};Parent=53995c3f42cd8ad8;Sampled=1"),
        ] {
            world.tracer.begin(header);
            world.call("/crm/owners/2026-09", 200).await;
            world.tracer.runs(&[&report("R1")]);
            world.tracer.end();
            assert_eq!(world.sent(), [] as [Value; 0], "{header:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_sends_a_bounded_number_of_documents_whatever_it_does() {
        let world = World::new();
        world.tracer.begin(Some(SAMPLED));
        for one in WORDS.iter().take(10) {
            for other in WORDS.iter().take(10) {
                world.call(&format!("/{one}/{other}"), 200).await;
            }
        }
        world.tracer.runs(&[&report("R1")]);
        let sent = world.sent();
        assert!(sent.len() == KINDS_MAX + 2, "{}", sent.len());
        assert!(sent.iter().any(|document| document["name"] == OTHERS));
        for _ in 0..2 * DOCUMENTS_MAX {
            world.tracer.runs(&[&report("R1")]);
        }
        assert!(world.sent().len() < DOCUMENTS_MAX);
    }

    #[test]
    fn a_kind_holds_no_part_of_a_path_that_is_not_a_word_of_the_api() {
        let table = [
            ("/crm/v3/objects/contacts/zanzibar%40example.com", "GET crm/v3/objects/contacts/_"),
            ("/crm/objects/2026-09/p7_cars/31", "GET crm/objects/_/_/_"),
            ("/services/data/v67.0/sobjects/Contact/Key__c/zanzibar", "GET services/data/_/sobjects/_/_/_"),
            ("/services/T000/B000/zanzibar", "GET services/_/_/_"),
            ("", "GET"),
        ];
        for (path, kind) in table {
            assert_eq!(kind_of(&Method::GET, path), kind);
        }
    }

    #[test]
    fn the_daemons_address_comes_in_two_shapes() {
        let to = |address| Udp::new(address).map(|udp| udp.to.to_string());
        assert_eq!(to("169.254.79.129:2000").as_deref(), Some("169.254.79.129:2000"));
        assert_eq!(to("tcp:127.0.0.1:2000 udp:127.0.0.2:2001").as_deref(), Some("127.0.0.2:2001"));
        assert_eq!((to("localhost"), to("")), (None, None));
    }
}
