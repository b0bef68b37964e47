//! Account, org, files and table in the benchmark's own process and in virtual time: what a job waits for costs nothing, so that a run of nine
//! minutes takes one.
//!
//! What captures write is counted and dropped: it would be most of the memory. Whoever wants to look at it does so while it passes. What
//! stands behind the doors is marked as not the jobs' own memory, and what comes through them is copied, as a socket would.

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

use crate::support::{
    Outcome,
    memory::{behind, inside, outside},
    rows,
};

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

/// Takes key and contents of an object.
pub(crate) type Reader = Box<dyn FnMut(&str, &[u8])>;

/// Key of the very large file.
pub(crate) const VAST: &str = "incoming/contacts/vast.csv";

/// The bucket.
pub(crate) const BUCKET: &str = "crm";

/// Everything that a job touches.
pub(crate) struct VirtualWorld {
    pub(crate) portal: Rc<RefCell<Portal>>,
    pub(crate) org: Rc<RefCell<Org>>,
    pub(crate) clock: Rc<VirtualClock>,
    /// Objects and bytes that captures have written.
    pub(crate) written: Rc<Cell<(u64, u64)>>,
    /// Looks at what captures write.
    pub(crate) reader: Rc<RefCell<Option<Reader>>>,
    /// Files, and what jobs leave.
    pub(crate) objects: MemoryObjects,
    /// Bytes and records of [`VAST`], which is made while it is read.
    pub(crate) vast: Rc<Cell<(u64, u64)>>,
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
        let (reader, vast, objects) = (Rc::default(), Rc::default(), MemoryObjects::new());
        let env = Env {
            clock: clock.clone(),
            rng,
            http: Rc::new(InProcess { portal: portal.clone(), org: org.clone(), clock: clock.clone() }),
            objects: Rc::new(Files {
                inner: objects.clone(),
                clock: clock.clone(),
                written: written.clone(),
                reader: Rc::clone(&reader),
                vast: Rc::clone(&vast),
            }),
            table: Rc::new(Slow { inner: MemoryTable::new(), clock: clock.clone() }),
            secrets: Rc::new(secrets),
            queue: None,
            memory_mb: Cell::new(256),
            watcher: None,
            stop: Cell::new(false),
        };
        let config = Rc::new(load::parse(&config, "hubferry.yaml").map_err(|error| format!("{error:?}"))?);
        Ok(Self { portal, org, clock, written, reader, objects, vast, env: Rc::new(env), config })
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
        self.to_the_end(json!({ "job": "sync", "name": "people" })).await
    }

    /// The import of an object that is there, to its end.
    pub(crate) async fn import(&self, key: &str, bytes: u64) -> Outcome<Report> {
        let object =
            json!({ "key": key, "size": bytes, "sequencer": format!("{:016X}", self.clock.now().as_millisecond()) });
        let record = json!({ "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventVersion": "2.1",
            "s3": { "bucket": { "name": BUCKET }, "object": object } });
        self.to_the_end(json!({ "Records": [record] })).await
    }

    /// A run to its end, each invocation in a new process.
    async fn to_the_end(&self, event: serde_json::Value) -> Outcome<Report> {
        let mut report = self.invoke(event).await?;
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
        let at = self.clock.now().checked_add(jiff::SignedDuration::from_secs(INVOCATION_SECONDS))?;
        let handled = inside(async {
            let app = App::new(self.env.clone(), self.config.clone())?;
            Box::pin(app.handle(event, Deadline { at }, "benchmark")).await
        });
        match handled.await? {
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
        let reply = outside(|| match is_org {
            true => self.org.borrow_mut().handle(self.clock.now(), &request),
            false => self.portal.borrow_mut().handle(self.clock.now(), &request),
        });
        drop(request);
        self.clock.sleep(reply.latency).await;
        match reply.response {
            Became::Response(response) => Ok(response.map(|body| Bytes::copy_from_slice(&body))),
            _ => Err(HttpError { sent: Sent::Maybe, message: "the connection was cut".to_owned() }),
        }
    }
}

struct Files {
    inner: MemoryObjects,
    clock: Rc<VirtualClock>,
    written: Rc<Cell<(u64, u64)>>,
    reader: Rc<RefCell<Option<Reader>>>,
    vast: Rc<Cell<(u64, u64)>>,
}

impl Files {
    /// Counts what a capture writes.
    fn is_output(&self, location: &Location, body: &Bytes) -> bool {
        let is_output = location.key.starts_with("captures/");
        if is_output {
            let (objects, bytes) = self.written.get();
            self.written.set((objects + 1, bytes + body.len() as u64));
            if let Some(reader) = &mut *self.reader.borrow_mut() {
                outside(|| reader(&location.key, body));
            }
        }
        is_output
    }
}

/// What is kept is not the job's any more.
fn kept(body: &Bytes) -> Bytes {
    outside(|| Bytes::copy_from_slice(body))
}

#[async_trait(?Send)]
impl Objects for Files {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        self.clock.sleep(S3_LATENCY).await;
        if location.key == VAST {
            let (size, _) = self.vast.get();
            return Ok(ObjectVersion { location: location.clone(), version_id: None, etag: "vast".to_owned(), size });
        }
        behind(self.inner.head(location, version_id)).await
    }
    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        self.clock.sleep(S3_LATENCY).await;
        if object.location.key == VAST {
            let (size, records) = self.vast.get();
            return Ok(rows::vast_range(range.start..range.end.min(size), records).into());
        }
        let bytes = behind(self.inner.read(object, range)).await?;
        Ok(Bytes::copy_from_slice(&bytes))
    }
    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        self.clock.sleep(S3_LATENCY).await;
        let found = behind(self.inner.get(location)).await?;
        Ok(found.map(|(body, etag)| (Bytes::copy_from_slice(&body), etag)))
    }
    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()> {
        self.clock.sleep(S3_LATENCY).await;
        if self.is_output(location, &body) {
            return Ok(());
        }
        behind(self.inner.put(location, kept(&body), content_type)).await
    }
    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool> {
        self.clock.sleep(S3_LATENCY).await;
        // Nothing is written twice here.
        if self.is_output(location, &body) {
            return Ok(true);
        }
        behind(self.inner.put_new(location, kept(&body), content_type)).await
    }
    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>> {
        self.clock.sleep(S3_LATENCY).await;
        Ok(Box::new(Uploading(behind(self.inner.upload(location, content_type)).await?)))
    }
    async fn delete(&self, location: &Location) -> Result<()> {
        self.clock.sleep(S3_LATENCY).await;
        behind(self.inner.delete(location)).await
    }
    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        self.clock.sleep(S3_LATENCY).await;
        behind(self.inner.list(prefix)).await
    }
    fn requests(&self) -> u64 {
        self.inner.requests() + self.written.get().0
    }
}

struct Uploading(Box<dyn Upload>);

#[async_trait(?Send)]
impl Upload for Uploading {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        behind(self.0.write(bytes)).await
    }
    async fn finish(self: Box<Self>) -> Result<()> {
        behind(self.0.finish()).await
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
        behind(self.inner.get(key)).await
    }
    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        self.clock.sleep(TABLE_LATENCY).await;
        let update = outside(|| update.clone());
        behind(self.inner.update(key, update)).await
    }
    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.clock.sleep(TABLE_LATENCY).await;
        behind(self.inner.delete(key, condition)).await
    }
    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.clock.sleep(TABLE_LATENCY).await;
        behind(self.inner.query(pk, limit)).await
    }
    fn writes(&self) -> u64 {
        self.inner.writes()
    }
}
