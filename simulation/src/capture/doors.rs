//! The doors of one process: slow, lossy, counted, so that a process can be killed or stopped at any of them, and watched by what must
//! always hold.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::pending,
    ops::Range,
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use hubferry::{
    Error, ErrorKind, Result,
    capture::position::{Mode, Position},
    clock::{Clock as _, VirtualClock},
    codes,
    http::{HttpError, HttpService, Sent},
    objects::{Location, ObjectVersion, Objects, Upload, memory::MemoryObjects},
    state::{Changed, Condition, Item, Key, Table, Update, Value, memory::MemoryTable},
};
use hubferry_simulator::hubspot::{Outcome, Portal};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::plan::host;
use crate::Failure;

/// What all processes share, and what is seen of them.
pub struct Outside {
    /// HubSpot accounts.
    pub portals: Vec<Rc<RefCell<Portal>>>,
    /// How far their clocks are ahead, in milliseconds.
    pub skew_ms: i64,
    /// S3.
    pub objects: MemoryObjects,
    /// DynamoDB.
    pub table: Rc<MemoryTable>,
    /// Ours.
    pub clock: Rc<VirtualClock>,
    /// What goes wrong in S3 and in the table.
    pub chance: RefCell<fastrand::Rng>,
    /// Share of their answers that do.
    pub trouble: Cell<f64>,
    /// Until then (virtual time since the start) the table refuses every write.
    pub table_down_until: Cell<Duration>,
    /// What must not have happened.
    pub failures: RefCell<Vec<Failure>>,
    /// The furthest position of each capture.
    pub positions: RefCell<BTreeMap<String, Position>>,
    /// When HubSpot was looked at.
    pub looks: RefCell<Looks>,
}

/// A call of HubSpot.
pub struct Called {
    /// The account.
    pub account: usize,
    /// When, by HubSpot's clock.
    pub at: Timestamp,
    /// Method and path.
    pub what: String,
    /// Who made it.
    pub who: String,
    /// Whether it counts against the limit of ten seconds.
    pub counts: bool,
}

/// When HubSpot was looked at, by its own clock.
#[derive(Default)]
pub struct Looks {
    /// Calls, in their order.
    pub calls: Vec<Called>,
    /// When a turn could not be had from an account's line in the table: the account's name, the moment.
    pub alone: Vec<(String, Timestamp)>,
    /// Calls for a page of a recycle bin: account, path, when.
    pub bins: Vec<(usize, String, Timestamp)>,
    /// Captures that have a recycle bin to its end, and when that was stored.
    pub listed: Vec<(String, Timestamp)>,
    /// What each capture's stored progress says of the recycle bin.
    said: BTreeMap<String, String>,
}

impl Outside {
    /// HubSpot's clock.
    pub fn hubspot_now(&self) -> Timestamp {
        self.clock.now() + jiff::SignedDuration::from_millis(self.skew_ms)
    }

    /// Something that must always hold does not.
    pub fn fail(&self, invariant: &'static str, seen: String) {
        self.failures.borrow_mut().push(Failure { invariant, seen });
    }

    /// The newest run of a capture, as it is stored.
    pub fn newest_run(&self, name: &str) -> Option<Item> {
        let items = self.table.snapshot();
        let stream = items.get(&Key::new(format!("capture#{name}"), "position"))?;
        let Some(Value::S(run)) = stream.get("run_id") else { return None };
        items.get(&Key::new(format!("run#{run}"), "run")).cloned()
    }

    fn called(&self, account: usize, now: Timestamp, who: &str, request: &Request<Bytes>) {
        let mut looks = self.looks.borrow_mut();
        let path = request.uri().path();
        // The two kinds with limits of their own.
        let counts = !path.ends_with("/search") && !path.contains("/associations/");
        let what = format!("{} {path}", request.method());
        looks.calls.push(Called { account, at: now, what, who: who.to_owned(), counts });
        if request.method() == "GET" && request.uri().query().is_some_and(|query| query.contains("archived=true")) {
            looks.bins.push((account, request.uri().path().to_owned(), now));
        }
    }

    /// A capture's progress is stored: has it come to the end of the recycle bin?
    fn progressed(&self, name: &str, progress: &str) {
        let progress: serde_json::Value = serde_json::from_str(progress).unwrap_or_default();
        if progress["bin_known"] != true {
            return;
        }
        let said = progress["bin_due"].to_string();
        let now = self.hubspot_now();
        let mut looks = self.looks.borrow_mut();
        if looks.said.insert(name.to_owned(), said.clone()).as_ref() != Some(&said) {
            looks.listed.push((name.to_owned(), now));
        }
    }

    fn moved(&self, name: &str, text: &str) {
        let Ok(now) = serde_json::from_str::<Position>(text) else {
            return self.fail(POSITION, format!("{name}: a position that cannot be read: {text}"));
        };
        let mut positions = self.positions.borrow_mut();
        if let Some(before) = positions.get(name) {
            let back = before.mode == Mode::Cdc && now.mode == Mode::Snapshot
                || before.timestamp > now.timestamp
                || before.trailing_timestamp > now.trailing_timestamp
                || (before.initial_timestamp != Timestamp::default()
                    && before.initial_timestamp != now.initial_timestamp);
            if back {
                let seen = format!("{name}: from {} to {text}", before.json());
                drop(positions);
                return self.fail(POSITION, seen);
            }
        }
        positions.insert(name.to_owned(), now);
    }
}

const POSITION: &str = "a position never goes back";
const FENCE: &str = "who has lost the lease writes nothing";

/// One process's view of all that is outside.
pub struct Doors {
    /// What is there.
    pub outside: Rc<Outside>,
    /// Who this is, as leases name it.
    pub owner: String,
    /// Steps that were made.
    pub steps: Cell<u64>,
    /// The step at which the process dies; 0: none.
    pub dies_at: u64,
    /// The step at which it stands still for a while.
    pub stops_at: u64,
    /// Told when it dies.
    pub died: Notify,
    /// Told when it stands still.
    pub stopped: Notify,
}

impl Doors {
    /// One step further: the process may end here.
    async fn step(&self) {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() == self.dies_at {
            self.died.notify_one();
            pending::<()>().await;
        }
        if self.steps.get() == self.stops_at {
            self.stopped.notify_one();
            tokio::task::yield_now().await;
        }
    }

    fn draw(&self, below_ms: u64) -> Duration {
        Duration::from_millis(self.outside.chance.borrow_mut().u64(1..below_ms))
    }

    /// What befalls a request to S3 or the table.
    fn luck(&self) -> Luck {
        let mut chance = self.outside.chance.borrow_mut();
        let (fate, kind) = (chance.f64(), chance.u8(..4));
        match kind {
            _ if fate >= self.outside.trouble.get() => Luck::Fine,
            0 | 1 => Luck::Refused,
            2 => Luck::AnswerLost,
            _ => Luck::Slow,
        }
    }

    async fn objects<T>(&self, location: &Location, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let (luck, before, after) = (self.luck(), self.draw(60), self.draw(40));
        self.step().await;
        self.outside.clock.sleep(before).await;
        let unavailable = ErrorKind::Unavailable { retry_after: None };
        if luck == Luck::Refused {
            return Err(Error::new(unavailable, codes::OBJECTS_UNAVAILABLE, format!("{location}: S3 is busy")));
        }
        if luck == Luck::Slow {
            self.outside.clock.sleep(Duration::from_secs(8)).await;
        }
        let done = work().await;
        self.step().await;
        self.outside.clock.sleep(after).await;
        if luck == Luck::AnswerLost {
            let message = format!("{location}: the answer was lost");
            return Err(Error::new(ErrorKind::Unknown, codes::OBJECTS_UNAVAILABLE, message));
        }
        done
    }

    async fn table<T>(&self, is_write: bool, work: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let (luck, before, after) = (self.luck(), self.draw(20), self.draw(10));
        self.step().await;
        self.outside.clock.sleep(before).await;
        let unavailable = ErrorKind::Unavailable { retry_after: None };
        let down = is_write && self.outside.clock.elapsed() < self.outside.table_down_until.get();
        if luck == Luck::Refused || down {
            return Err(Error::new(unavailable, codes::STATE_UNAVAILABLE, "the table is busy"));
        }
        let done = work().await;
        self.step().await;
        self.outside.clock.sleep(after).await;
        if luck == Luck::AnswerLost && is_write {
            return Err(Error::new(ErrorKind::Unknown, codes::STATE_UNAVAILABLE, "the table's answer was lost"));
        }
        done
    }

    /// A write among what consumers read is sent: is the run still this process's?
    fn sends(&self, location: &Location) {
        let Some(name) = location.key.strip_prefix("out/").and_then(|rest| rest.split('/').next()) else { return };
        let now = self.outside.clock.now().as_millisecond();
        let Some(run) = self.outside.newest_run(name) else {
            return self.outside.fail(FENCE, format!("{location} is written, and {name} has no run"));
        };
        let owner = run.get("owner") == Some(&Value::S(self.owner.clone()));
        let held = matches!(run.get("lease_expires_at"), Some(Value::N(until)) if *until > now);
        if !owner || !held {
            let seen = format!(
                "{} writes {location}; the run is {:?}'s until {:?}, and it is {now}",
                self.owner,
                run.get("owner"),
                run.get("lease_expires_at")
            );
            self.outside.fail(FENCE, seen);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Fine,
    Refused,
    AnswerLost,
    Slow,
}

/// HubSpot, as this process sees it.
pub struct Http(pub Rc<Doors>);

#[async_trait(?Send)]
impl HttpService for Http {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let doors = &self.0;
        let lost = |message: &str| HttpError { sent: Sent::Maybe, message: message.to_owned() };
        let called = request.uri().host().unwrap_or_default().to_owned();
        doors.step().await;
        let Some(at) = (0..doors.outside.portals.len()).find(|at| host(*at) == called) else {
            return Err(lost("no such host"));
        };
        let now = doors.outside.hubspot_now();
        doors.outside.called(at, now, &doors.owner, &request);
        let reply = doors.outside.portals[at].borrow_mut().handle(now, &request);
        doors.outside.clock.sleep(reply.latency).await;
        doors.step().await;
        match reply.response {
            Outcome::Response(response) => Ok(response),
            Outcome::ResetBefore | Outcome::ResetAfter => Err(lost("connection reset")),
            Outcome::Truncated(_) => Err(lost("the body ended early")),
        }
    }
}

/// S3, as this process sees it.
pub struct Files(pub Rc<Doors>);

#[async_trait(?Send)]
impl Objects for Files {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        self.0.objects(location, async || self.0.outside.objects.head(location, version_id).await).await
    }
    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        self.0.objects(&object.location, async || self.0.outside.objects.read(object, range).await).await
    }
    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        self.0.objects(location, async || self.0.outside.objects.get(location).await).await
    }
    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()> {
        self.0.sends(location);
        self.0.objects(location, async || self.0.outside.objects.put(location, body, content_type).await).await
    }
    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool> {
        self.0.sends(location);
        self.0.objects(location, async || self.0.outside.objects.put_new(location, body, content_type).await).await
    }
    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>> {
        self.0.sends(location);
        self.0.objects(location, async || self.0.outside.objects.upload(location, content_type).await).await
    }
    async fn delete(&self, location: &Location) -> Result<()> {
        self.0.sends(location);
        self.0.objects(location, async || self.0.outside.objects.delete(location).await).await
    }
    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        self.0.objects(prefix, async || self.0.outside.objects.list(prefix).await).await
    }
    fn requests(&self) -> u64 {
        self.0.outside.objects.requests()
    }
}

/// The table, as this process sees it.
pub struct State(pub Rc<Doors>);

#[async_trait(?Send)]
impl Table for State {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.0.table(false, async || self.0.outside.table.get(key).await).await
    }
    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        let position = update.set.iter().find(|(name, _)| *name == "position").map(|(_, value)| value.clone());
        let watched = async || {
            let changed = self.0.outside.table.update(key, update).await?;
            if let (Changed::Yes(item), Some(Value::S(position))) = (&changed, position) {
                let text = |name: &str| match item.get(name) {
                    Some(Value::S(text)) => text.clone(),
                    _ => String::new(),
                };
                if key.pk.starts_with("run#") && text("job") == "capture" {
                    self.0.outside.moved(&text("name"), &position);
                    self.0.outside.progressed(&text("name"), &text("progress"));
                    if text("owner") != self.0.owner {
                        let seen = format!("{} saves the position of {}'s {}", self.0.owner, text("owner"), key.pk);
                        self.0.outside.fail(FENCE, seen);
                    }
                } else if let Some(name) = key.pk.strip_prefix("capture#") {
                    self.0.outside.moved(name, &position);
                }
            }
            Ok(changed)
        };
        let changed = self.0.table(true, watched).await;
        if changed.is_err()
            && key.sk == "burst"
            && let Some(account) = key.pk.strip_prefix("limit#")
        {
            let now = self.0.outside.hubspot_now();
            self.0.outside.looks.borrow_mut().alone.push((account.to_owned(), now));
        }
        changed
    }
    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.0.table(true, async || self.0.outside.table.delete(key, condition).await).await
    }
    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.0.table(false, async || self.0.outside.table.query(pk, limit).await).await
    }
    fn writes(&self) -> u64 {
        self.0.outside.table.writes()
    }
}
