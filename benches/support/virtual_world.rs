//! Account, org, files and table in the benchmark's own process and in virtual time: what a job waits for costs nothing, so that a run of nine
//! minutes takes one.
//!
//! What captures write is counted and dropped: it would be most of the memory.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use hubferry::{
    Result,
    app::{Answer, App, Env},
    clock::{Clock, Deadline, Rng, VirtualClock},
    config::load,
    http::{HttpError, HttpService, Sent},
    objects::{Location, ObjectVersion, Objects, Upload, memory::MemoryObjects},
    report::{Outcome as RunOutcome, Report},
    secrets::MemorySecrets,
    state::{Changed, Condition, Item, Key, Table, Update, memory::MemoryTable},
};
use hubferry_simulator::{
    hubspot::{Outcome as Became, Portal, PortalSettings},
    salesforce::{Org, OrgSettings},
};
use jiff::Timestamp;
use serde_json::json;

use crate::support::{Outcome, rows};

/// Where time begins.
const START: &str = "2026-03-02T09:00:00Z";
/// What a request to S3, and one to the table, takes.
const S3_LATENCY: Duration = Duration::from_millis(100);
const TABLE_LATENCY: Duration = Duration::from_millis(10);
/// Lambda's longest time-out.
const INVOCATION_SECONDS: i64 = 900;
/// Invocations of one run.
const INVOCATIONS_MAX: usize = 1_000;
/// Age of the records when the capture begins.
const AGE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Everything that a job touches.
pub(crate) struct VirtualWorld {
    pub(crate) portal: Rc<RefCell<Portal>>,
    pub(crate) org: Rc<RefCell<Org>>,
    pub(crate) clock: Rc<VirtualClock>,
    /// Objects and bytes that captures have written.
    pub(crate) written: Rc<Cell<(u64, u64)>>,
    env: Rc<Env>,
    config: Rc<hubferry::config::Config>,
}

impl VirtualWorld {
    /// `jobs` is the configuration but for the account.
    pub(crate) fn new(settings: PortalSettings, jobs: &str) -> Outcome<Self> {
        Self::with_org(settings, OrgSettings::default(), jobs)
    }

    /// The same with an org.
    pub(crate) fn with_org(mut settings: PortalSettings, org: OrgSettings, jobs: &str) -> Outcome<Self> {
        settings.properties.entry("contacts".to_owned()).or_insert_with(rows::properties);
        let secrets = MemorySecrets::new();
        secrets.insert("hubferry/hubspot", &json!({ "access_token": PortalSettings::TOKEN }).to_string());
        let credential = json!({
            "flow": "client_credentials", "login_url": OrgSettings::LOGIN_URL,
            "client_id": OrgSettings::CLIENT_ID, "client_secret": OrgSettings::CLIENT_SECRET,
        });
        secrets.insert("hubferry/salesforce", &credential.to_string());
        let config = format!(
            "version: 1\nhubspot:\n  default: {{ secret: hubferry/hubspot }}\nsalesforce:\n  default: {{ secret: hubferry/salesforce }}\n{jobs}"
        );
        let rng = Rc::new(Rng::seeded(settings.seed));
        let portal = Rc::new(RefCell::new(Portal::new(settings)));
        let org = Rc::new(RefCell::new(Org::new(org)));
        let clock = Rc::new(VirtualClock::starting_at(START.parse()?));
        let written = Rc::new(Cell::default());
        let env = Env {
            clock: clock.clone(),
            rng,
            http: Rc::new(InProcess { portal: portal.clone(), org: org.clone(), clock: clock.clone() }),
            objects: Rc::new(Files { inner: MemoryObjects::new(), clock: clock.clone(), written: written.clone() }),
            table: Rc::new(Slow { inner: MemoryTable::new(), clock: clock.clone() }),
            secrets: Rc::new(secrets),
            queue: None,
            memory_mb: Cell::new(256),
            watcher: None,
            stop: Cell::new(false),
        };
        let config = Rc::new(load::parse(&config, "hubferry.yaml").map_err(|error| format!("{error:?}"))?);
        Ok(Self { portal, org, clock, written, env: Rc::new(env), config })
    }

    pub(crate) fn long_ago(&self) -> Timestamp {
        self.clock.now() - AGE
    }

    /// Contacts that have been there for a day; their ids.
    pub(crate) fn seed(&self, numbers: Range<u64>) -> Vec<String> {
        self.portal.borrow_mut().seed_many(self.long_ago(), "contacts", numbers.map(rows::record))
    }

    /// So many companies; their ids.
    pub(crate) fn seed_companies(&self, count: u64) -> Vec<String> {
        let row = |number| vec![("name", format!("Company {number}"))];
        self.portal.borrow_mut().seed_many(self.long_ago(), "companies", (0..count).map(row))
    }

    /// One invocation of the capture `contacts`, in a new process.
    pub(crate) async fn capture(&self) -> Outcome<Report> {
        self.invoke(json!({ "job": "capture", "name": "contacts" })).await
    }

    /// A run of the sync `people` to its end, each invocation in a new process.
    pub(crate) async fn sync(&self) -> Outcome<Report> {
        let mut report = self.invoke(json!({ "job": "sync", "name": "people" })).await?;
        for _ in 0..INVOCATIONS_MAX {
            if report.outcome != RunOutcome::Yielded {
                return Ok(report);
            }
            let run_id = report.run_id.clone().ok_or("a run without an id")?;
            let run = App::new(self.env.clone(), self.config.clone())?.runs().get(&run_id).await?;
            let wait = run.map(|run| run.not_before.duration_since(self.clock.now())).unwrap_or_default();
            self.clock.sleep(Duration::try_from(wait).unwrap_or_default()).await;
            report = self.invoke(json!({ "job": "resume", "run_id": run_id })).await?;
        }
        Err(format!("the run does not end: {report:?}").into())
    }

    async fn invoke(&self, event: serde_json::Value) -> Outcome<Report> {
        let app = App::new(self.env.clone(), self.config.clone())?;
        let at = self.clock.now().checked_add(jiff::SignedDuration::from_secs(INVOCATION_SECONDS))?;
        match Box::pin(app.handle(event, Deadline { at }, "benchmark")).await? {
            Answer::Report(report) => Ok(*report),
            other => Err(format!("expected one report, got {other:?}").into()),
        }
    }
}

struct InProcess {
    portal: Rc<RefCell<Portal>>,
    org: Rc<RefCell<Org>>,
    clock: Rc<VirtualClock>,
}

#[async_trait(?Send)]
impl HttpService for InProcess {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let is_org = request.uri().host().is_some_and(|host| host.ends_with(".salesforce.com"));
        let reply = match is_org {
            true => self.org.borrow_mut().handle(self.clock.now(), &request),
            false => self.portal.borrow_mut().handle(self.clock.now(), &request),
        };
        self.clock.sleep(reply.latency).await;
        match reply.response {
            Became::Response(response) => Ok(response),
            _ => Err(HttpError { sent: Sent::Maybe, message: "the connection was cut".to_owned() }),
        }
    }
}

struct Files {
    inner: MemoryObjects,
    clock: Rc<VirtualClock>,
    written: Rc<Cell<(u64, u64)>>,
}

impl Files {
    /// Counts what a capture writes.
    fn is_output(&self, location: &Location, body: &Bytes) -> bool {
        let is_output = location.key.starts_with("captures/");
        if is_output {
            let (objects, bytes) = self.written.get();
            self.written.set((objects + 1, bytes + body.len() as u64));
        }
        is_output
    }
}

#[async_trait(?Send)]
impl Objects for Files {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        self.clock.sleep(S3_LATENCY).await;
        self.inner.head(location, version_id).await
    }
    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        self.clock.sleep(S3_LATENCY).await;
        self.inner.read(object, range).await
    }
    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        self.clock.sleep(S3_LATENCY).await;
        self.inner.get(location).await
    }
    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()> {
        self.clock.sleep(S3_LATENCY).await;
        if self.is_output(location, &body) { Ok(()) } else { self.inner.put(location, body, content_type).await }
    }
    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool> {
        self.clock.sleep(S3_LATENCY).await;
        // Nothing is written twice here.
        if self.is_output(location, &body) { Ok(true) } else { self.inner.put_new(location, body, content_type).await }
    }
    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>> {
        self.clock.sleep(S3_LATENCY).await;
        self.inner.upload(location, content_type).await
    }
    async fn delete(&self, location: &Location) -> Result<()> {
        self.clock.sleep(S3_LATENCY).await;
        self.inner.delete(location).await
    }
    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        self.clock.sleep(S3_LATENCY).await;
        self.inner.list(prefix).await
    }
    fn requests(&self) -> u64 {
        self.inner.requests() + self.written.get().0
    }
}

struct Slow {
    inner: MemoryTable,
    clock: Rc<VirtualClock>,
}

#[async_trait(?Send)]
impl Table for Slow {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.clock.sleep(TABLE_LATENCY).await;
        self.inner.get(key).await
    }
    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        self.clock.sleep(TABLE_LATENCY).await;
        self.inner.update(key, update).await
    }
    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.clock.sleep(TABLE_LATENCY).await;
        self.inner.delete(key, condition).await
    }
    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.clock.sleep(TABLE_LATENCY).await;
        self.inner.query(pk, limit).await
    }
    fn writes(&self) -> u64 {
        self.inner.writes()
    }
}
