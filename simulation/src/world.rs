//! A world for whole jobs: the simulated portal in process, files, state and secrets in memory, virtual time, one seed.
//!
//! The doors take a little virtual time each, so that a job can be dropped (killed) between any two of their calls.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
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
    codes::{self, Code},
    config::{Config, load},
    http::{HttpError, HttpService, Sent},
    objects::{Location, ObjectVersion, Objects, Upload, memory::MemoryObjects},
    queue::MemoryQueue,
    report::Report,
    secrets::MemorySecrets,
    state::{Changed, Condition, Item, Key, Scanned, Table, Update, memory::MemoryTable},
};
use hubferry_simulator::{
    hubspot::{Outcome, Portal, PortalSettings, Reply},
    salesforce::{Org, OrgSettings},
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The bucket of all tests.
pub const BUCKET: &str = "crm";

/// Where time begins.
pub const START: &str = "2026-03-02T09:00:00Z";

/// A configuration with the import `contacts` (`incoming/contacts/*`), key `email`; `more` is appended to the import.
pub fn contacts(more: &str) -> String {
    let mut text = String::from(
        "version: 1\nhubspot:\n  default: { secret: hubferry/hubspot }\nimports:\n  - name: contacts\n    match: incoming/contacts/*\n    object: contacts\n    key: email\n",
    );
    for line in more.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Everything that a job touches.
pub struct World {
    /// The account `default`.
    pub portal: Rc<RefCell<Portal>>,
    /// Further accounts, by the host at which they answer.
    pub portals: Rc<RefCell<BTreeMap<String, Rc<RefCell<Portal>>>>>,
    /// At [`OrgSettings::LOGIN_URL`], with the secret `hubferry/salesforce`.
    pub org: Rc<RefCell<Org>>,
    /// S3, without delay.
    pub objects: MemoryObjects,
    /// DynamoDB, without delay.
    pub table: Rc<MemoryTable>,
    /// `hubferry/hubspot` and `hubferry/salesforce`.
    pub secrets: Rc<MemorySecrets>,
    /// Continuations that were sent and not delivered.
    pub queue: Rc<MemoryQueue>,
    /// Virtual time.
    pub clock: Rc<VirtualClock>,
    /// Chance, as the jobs see it.
    pub rng: Rc<Rng>,
    /// How far Salesforce's clock is ahead of ours.
    pub org_ahead: Rc<Cell<jiff::SignedDuration>>,
    /// The settings.
    pub config: Rc<Config>,
    /// Upsets the doors, and looks on.
    pub chance: Rc<RefCell<Option<Rc<dyn Chance>>>>,
    /// Virtual time that each call of a door takes.
    pub door_latency: Duration,
    /// Until then (virtual time since the start) the table refuses every write.
    pub table_down_until: Rc<Cell<Duration>>,
    /// Keys that begin so may not be written.
    pub forbidden_writes: Rc<RefCell<Vec<&'static str>>>,
    /// Writing a key that begins so takes so much longer.
    pub slow_writes: Rc<Cell<Option<(&'static str, Duration)>>>,
    /// Method, path and body of each request that HubSpot got.
    pub requests: Rc<RefCell<Vec<String>>>,
    /// The hosts that were called.
    pub hosts: Rc<RefCell<BTreeSet<String>>>,
    invocation: Cell<u64>,
    sequence: Cell<u64>,
}

impl World {
    /// A portal with 300 ms latency and default limits, and this configuration.
    pub fn new(config: &str) -> Self {
        let mut settings = PortalSettings::default();
        settings.latency.fixed_ms = 300;
        Self::with(config, settings)
    }

    /// The same with a portal that is like this.
    pub fn with(config: &str, settings: PortalSettings) -> Self {
        let org = OrgSettings { seed: settings.seed, ..OrgSettings::default() };
        Self::with_org(config, settings, org)
    }

    /// The same with an org that is like this.
    pub fn with_org(config: &str, settings: PortalSettings, org: OrgSettings) -> Self {
        let secrets = MemorySecrets::new();
        secrets.insert("hubferry/hubspot", &json!({ "access_token": PortalSettings::TOKEN }).to_string());
        let app = json!({ "flow": "client_credentials", "login_url": OrgSettings::LOGIN_URL,
            "client_id": OrgSettings::CLIENT_ID, "client_secret": OrgSettings::CLIENT_SECRET });
        secrets.insert("hubferry/salesforce", &app.to_string());
        let seed = settings.seed;
        Self {
            portal: Rc::new(RefCell::new(Portal::new(settings))),
            portals: Rc::default(),
            chance: Rc::default(),
            org: Rc::new(RefCell::new(Org::new(org))),
            objects: MemoryObjects::versioned(),
            table: Rc::new(MemoryTable::new()),
            secrets: Rc::new(secrets),
            queue: Rc::new(MemoryQueue::new()),
            clock: Rc::new(VirtualClock::starting_at(START.parse().unwrap())),
            rng: Rc::new(Rng::seeded(seed)),
            org_ahead: Rc::default(),
            config: Rc::new(load::parse(config, "hubferry.yaml").unwrap()),
            door_latency: Duration::from_millis(2),
            table_down_until: Rc::default(),
            forbidden_writes: Rc::default(),
            slow_writes: Rc::default(),
            requests: Rc::default(),
            hosts: Rc::default(),
            invocation: Cell::new(0),
            sequence: Cell::new(0),
        }
    }

    /// Salesforce's clock.
    pub fn org_now(&self) -> Timestamp {
        self.clock.now() + self.org_ahead.get()
    }

    /// A new process: nothing is remembered but what is behind the doors.
    pub fn process(&self) -> App {
        let who = Who { invocation: self.invocation.get(), chance: self.chance.clone() };
        let env = Env {
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            http: Rc::new(InProcess {
                who: who.clone(),
                portal: self.portal.clone(),
                portals: self.portals.clone(),
                org: self.org.clone(),
                org_ahead: self.org_ahead.clone(),
                clock: self.clock.clone(),
                requests: self.requests.clone(),
                hosts: self.hosts.clone(),
            }),
            objects: Rc::new(Delayed {
                who: who.clone(),
                inner: self.objects.clone(),
                clock: self.clock.clone(),
                by: self.door_latency,
                forbidden: self.forbidden_writes.clone(),
                slow: self.slow_writes.clone(),
            }),
            table: Rc::new(DelayedTable {
                who,
                inner: self.table.clone(),
                clock: self.clock.clone(),
                by: self.door_latency,
                down_until: self.table_down_until.clone(),
            }),
            secrets: self.secrets.clone(),
            queue: Some(self.queue.clone()),
            memory_mb: Cell::new(512),
            watcher: None,
            stop: Cell::new(false),
        };
        App::new(Rc::new(env), self.config.clone()).unwrap()
    }

    /// Puts a file and returns S3's event for it.
    pub async fn upload(&self, key: &str, bytes: impl Into<Bytes>) -> Value {
        let location = Location::new(BUCKET, key);
        self.objects.insert(&location, bytes);
        let object = self.objects.head(&location, None).await.unwrap();
        self.sequence.set(self.sequence.get() + 1);
        json!({ "Records": [{
            "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventVersion": "2.1",
            "s3": { "bucket": { "name": BUCKET }, "object": {
                "key": key.replace(' ', "+"), "size": object.size, "eTag": object.etag,
                "versionId": object.version_id, "sequencer": format!("{:016X}", self.sequence.get()),
            } },
        }] })
    }

    /// A deadline so far from now.
    pub fn deadline(&self, seconds: i64) -> Deadline {
        Deadline { at: self.clock.now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap() }
    }

    /// Handles one event in a new process with 15 minutes.
    pub async fn handle(&self, event: Value) -> Result<Answer> {
        self.handle_within(event, 900).await
    }

    /// Handles one event in a new process with so many seconds.
    pub async fn handle_within(&self, event: Value, seconds: i64) -> Result<Answer> {
        self.invocation.set(self.invocation.get() + 1);
        let owner = format!("invocation-{}", self.invocation.get());
        Box::pin(self.process().handle(event, self.deadline(seconds), &owner)).await
    }

    /// Uploads a file and imports it.
    pub async fn import(&self, key: &str, bytes: impl Into<Bytes>) -> Report {
        let event = self.upload(key, bytes).await;
        report(self.handle(event).await.unwrap())
    }

    /// Handles an event until the process is killed after so much time; the answer, if it came before.
    pub async fn handle_until_killed(&self, event: Value, time: Duration) -> Option<Answer> {
        tokio::select! {
            biased;
            () = self.clock.sleep(time) => None,
            answer = self.handle(event) => Some(answer.unwrap()),
        }
    }

    /// What the sweep says: the reports of the runs that it went on with.
    pub async fn resume(&self) -> Vec<Report> {
        fn reports(answer: Answer) -> Vec<Report> {
            match answer {
                Answer::Several(answers) => answers.into_iter().flat_map(reports).collect(),
                Answer::Nothing(_) => Vec::new(),
                answer => vec![report(answer)],
            }
        }
        reports(self.handle(json!({ "job": "resume" })).await.unwrap())
    }

    /// The stored report of an import's run.
    pub fn stored_report(&self, name: &str, run_id: &str) -> Option<Report> {
        let text = self.text(&format!("s3://{BUCKET}/reports/import/{name}/{run_id}.json"))?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Delivers the one continuation that waits.
    pub async fn finish_one(&self, seconds: i64) -> Report {
        let (body, delay) = self.queue.take().remove(0);
        self.clock.sleep(Duration::from_secs(delay.into())).await;
        report(self.handle_within(serde_json::from_str(&body).unwrap(), seconds).await.unwrap())
    }

    /// Delivers continuations until none is left or the run is over.
    pub async fn finish(&self, mut last: Report, seconds: i64) -> Report {
        for _ in 0..1_000 {
            if last.outcome.is_final() {
                return last;
            }
            let messages = self.queue.take();
            assert!(!messages.is_empty(), "a yielded run sent no continuation: {last:?}");
            for (body, delay) in messages {
                self.clock.sleep(Duration::from_secs(delay.into())).await;
                last = report(self.handle_within(serde_json::from_str(&body).unwrap(), seconds).await.unwrap());
            }
        }
        panic!("the run does not end: {last:?}");
    }

    /// The text of an object, if there is one.
    pub fn text(&self, uri: &str) -> Option<String> {
        let bytes = self.objects.contents(&Location::parse(uri).unwrap())?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// A property of the contact with this address.
    pub fn contact(&self, email: &str, property: &str) -> Option<String> {
        self.portal.borrow().find_by("contacts", "email", email)?.get(property).cloned()
    }
}

/// The one report of an answer.
pub fn report(answer: Answer) -> Report {
    match answer {
        Answer::Report(report) => {
            assert!(report.rows.add_up(), "the rows do not add up: {report:?}");
            *report
        }
        other => panic!("expected one report, got {other:?}"),
    }
}

/// The rows of a rejects file: line and code.
pub fn rejects(text: &str) -> Vec<(u64, String)> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (line, code) = (at("_line"), at("_code"));
    reader.records().map(|row| row.unwrap()).map(|row| (row[line].parse().unwrap(), row[code].to_owned())).collect()
}

/// A door's two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Nothing is changed.
    Read,
    /// Something is.
    Write,
}

/// What becomes of one call of a door to AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upset {
    /// Nothing happens to it.
    None,
    /// It fails, and nothing is done.
    Refused,
    /// It is done, and the answer gets lost.
    LostAnswer,
}

impl Upset {
    fn lost_answer(self, key: &str) -> Result<()> {
        match self {
            Self::LostAnswer => Err(unavailable(codes::OBJECTS_UNAVAILABLE, format!("write {key}: no answer"))),
            Self::None | Self::Refused => Ok(()),
        }
    }
}

/// Upsets the doors of a world, and sees what passes them. Whatever it draws must follow from the seed.
pub trait Chance {
    /// What becomes of a call of S3.
    fn objects(&self, door: Door, key: &str) -> Upset;
    /// What becomes of a call of DynamoDB.
    fn table(&self, door: Door) -> Upset;
    /// Invocation `invocation` made this call of a CRM, which was dealt with so.
    fn called(&self, invocation: u64, at: Timestamp, request: &Request<Bytes>, reply: &Reply);
    /// Invocation `invocation` tried to change this item.
    fn stored(&self, invocation: u64, key: &Key, before: Option<&Item>, after: Option<&Item>);
}

/// Whose call it is.
#[derive(Clone)]
struct Who {
    invocation: u64,
    chance: Rc<RefCell<Option<Rc<dyn Chance>>>>,
}

impl Who {
    fn chance(&self) -> Option<Rc<dyn Chance>> {
        self.chance.borrow().clone()
    }

    /// A call whose answer cannot get lost is refused instead.
    fn objects(&self, door: Door, key: &str, can_lose: bool) -> Result<Upset> {
        match self.chance().map_or(Upset::None, |chance| chance.objects(door, key)) {
            Upset::LostAnswer if can_lose => Ok(Upset::LostAnswer),
            Upset::None => Ok(Upset::None),
            _ => Err(unavailable(codes::OBJECTS_UNAVAILABLE, format!("{door:?} {key}: 503 Slow Down"))),
        }
    }

    fn table(&self, door: Door, can_lose: bool) -> Result<Upset> {
        match self.chance().map_or(Upset::None, |chance| chance.table(door)) {
            Upset::LostAnswer if can_lose => Ok(Upset::LostAnswer),
            Upset::None => Ok(Upset::None),
            _ => Err(unavailable(codes::STATE_UNAVAILABLE, format!("{door:?}: the table is down"))),
        }
    }
}

fn unavailable(code: Code, message: impl Into<String>) -> hubferry::Error {
    hubferry::Error::new(hubferry::ErrorKind::Unavailable { retry_after: None }, code, message.into())
}

/// The simulated portal and the simulated org, without a socket.
struct InProcess {
    who: Who,
    portals: Rc<RefCell<BTreeMap<String, Rc<RefCell<Portal>>>>>,
    portal: Rc<RefCell<Portal>>,
    org: Rc<RefCell<Org>>,
    org_ahead: Rc<Cell<jiff::SignedDuration>>,
    clock: Rc<VirtualClock>,
    requests: Rc<RefCell<Vec<String>>>,
    hosts: Rc<RefCell<BTreeSet<String>>>,
}

#[async_trait(?Send)]
impl HttpService for InProcess {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let told =
            format!("{} {}\n{}", request.method(), request.uri().path(), String::from_utf8_lossy(request.body()));
        let host = request.uri().host().unwrap_or_default().to_owned();
        let sent_at = self.clock.now();
        let other = self.portals.borrow().get(&host).cloned();
        let reply = if host.ends_with(".salesforce.com") {
            self.org.borrow_mut().handle(self.clock.now() + self.org_ahead.get(), &request)
        } else {
            self.requests.borrow_mut().push(told);
            other.as_ref().unwrap_or(&self.portal).borrow_mut().handle(self.clock.now(), &request)
        };
        if let Some(chance) = self.who.chance() {
            chance.called(self.who.invocation, sent_at, &request, &reply);
        }
        self.hosts.borrow_mut().insert(host);
        self.clock.sleep(reply.latency).await;
        let lost = |message: &str| HttpError { sent: Sent::Maybe, message: message.to_owned() };
        match reply.response {
            Outcome::Response(response) => Ok(response),
            Outcome::ResetBefore | Outcome::ResetAfter => Err(lost("connection reset")),
            Outcome::Truncated(_) => Err(lost("the body ended early")),
        }
    }
}

#[derive(Clone)]
struct Delayed {
    who: Who,
    inner: MemoryObjects,
    clock: Rc<VirtualClock>,
    by: Duration,
    forbidden: Rc<RefCell<Vec<&'static str>>>,
    slow: Rc<Cell<Option<(&'static str, Duration)>>>,
}

impl Delayed {
    /// What a write meets before it happens.
    async fn write(&self, location: &Location) -> Result<()> {
        if let Some((_, by)) = self.slow.get().filter(|(prefix, _)| location.key.starts_with(prefix)) {
            self.clock.sleep(by).await;
        }
        if self.forbidden.borrow().iter().any(|prefix| location.key.starts_with(prefix)) {
            let code = hubferry::codes::OBJECTS_FORBIDDEN;
            let message = format!("write {location}: AccessDenied");
            return Err(hubferry::Error::new(hubferry::ErrorKind::Forbidden, code, message));
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Objects for Delayed {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        self.clock.sleep(self.by).await;
        self.who.objects(Door::Read, &location.key, false)?;
        self.inner.head(location, version_id).await
    }
    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        self.clock.sleep(self.by).await;
        self.who.objects(Door::Read, &object.location.key, false)?;
        self.inner.read(object, range).await
    }
    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        self.clock.sleep(self.by).await;
        self.who.objects(Door::Read, &location.key, false)?;
        self.inner.get(location).await
    }
    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()> {
        self.clock.sleep(self.by / 2).await;
        self.write(location).await?;
        let upset = self.who.objects(Door::Write, &location.key, true)?;
        self.inner.put(location, body, content_type).await?;
        self.clock.sleep(self.by / 2).await;
        upset.lost_answer(&location.key)
    }
    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool> {
        self.clock.sleep(self.by / 2).await;
        let upset = self.who.objects(Door::Write, &location.key, true)?;
        let made = self.inner.put_new(location, body, content_type).await?;
        self.clock.sleep(self.by / 2).await;
        upset.lost_answer(&location.key)?;
        Ok(made)
    }
    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>> {
        self.clock.sleep(self.by).await;
        self.write(location).await?;
        self.who.objects(Door::Write, &location.key, false)?;
        self.inner.upload(location, content_type).await
    }
    async fn delete(&self, location: &Location) -> Result<()> {
        self.clock.sleep(self.by).await;
        self.who.objects(Door::Write, &location.key, false)?;
        self.inner.delete(location).await
    }
    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        self.clock.sleep(self.by).await;
        self.who.objects(Door::Read, &prefix.key, false)?;
        self.inner.list(prefix).await
    }
    fn requests(&self) -> u64 {
        self.inner.requests()
    }
}

struct DelayedTable {
    who: Who,
    inner: Rc<MemoryTable>,
    clock: Rc<VirtualClock>,
    by: Duration,
    down_until: Rc<Cell<Duration>>,
}

#[async_trait(?Send)]
impl Table for DelayedTable {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.clock.sleep(self.by).await;
        self.who.table(Door::Read, false)?;
        self.inner.get(key).await
    }
    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        // Before and after: a kill in between is a change whose answer nobody saw.
        self.clock.sleep(self.by / 2).await;
        if self.clock.elapsed() < self.down_until.get() {
            let down = hubferry::ErrorKind::Unavailable { retry_after: None };
            return Err(hubferry::Error::new(down, hubferry::codes::STATE_UNAVAILABLE, "the table is down"));
        }
        let upset = self.who.table(Door::Write, true)?;
        let changed = match self.who.chance() {
            Some(chance) => {
                // Read with the change itself: read by itself it would show what somebody else changed at the same moment.
                let (before, changed) = self.inner.update_seen(key, update).await;
                let after = match &changed {
                    Ok(Changed::Yes(after)) => Some(after),
                    _ => before.as_ref(),
                };
                chance.stored(self.who.invocation, key, before.as_ref(), after);
                changed
            }
            None => self.inner.update(key, update).await,
        };
        self.clock.sleep(self.by / 2).await;
        match upset {
            Upset::LostAnswer => Err(unavailable(codes::STATE_UNAVAILABLE, "the table's answer got lost")),
            _ => changed,
        }
    }
    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.clock.sleep(self.by).await;
        self.who.table(Door::Write, false)?;
        self.inner.delete(key, condition).await
    }
    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.clock.sleep(self.by).await;
        self.who.table(Door::Read, false)?;
        self.inner.query(pk, limit).await
    }
    async fn scan(&self, after: Option<&Key>) -> Result<Scanned> {
        self.clock.sleep(self.by).await;
        self.who.table(Door::Read, false)?;
        self.inner.scan(after).await
    }
    fn writes(&self) -> u64 {
        self.inner.writes()
    }
}

/// The time on the world's clock.
pub fn now(world: &World) -> Timestamp {
    world.clock.now()
}
