//! What a local cloud is made of, and what its page looks at: simulated places, the embedded AWS, settings in force, and how runs are coming along.
//!
//! The services have a thread, the function has one (it is the process's first), the page has one, the folder has one. They share a [`Stage`].

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use hubferry::{app::Update, report::Report};
use hubferry_simulator::{
    aws::{Addresses, Bodies, Cloud, CloudListeners, CloudSettings, Mapping, Schedule, Tables},
    hubspot::{self, Portal, PortalSettings},
    salesforce::{self, Org, OrgSettings},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc as channel, oneshot},
    task::JoinSet,
};

use super::{
    BUCKET, CONFIG_KEY, QUEUE, TABLE,
    board::Board,
    review::{self, DECISIONS_KEPT, Decided, Decision, Desk, TASKS_MAX, Task},
    settings::{Places, Settings},
};
use crate::{
    demo::{file::File, world},
    local,
};

/// Where messages go that came back too often.
const DEAD_LETTERS: &str = "hubferry-dead-letters";
/// Longer than the function may take; a message whose invocation dies comes back after it.
const VISIBILITY: Duration = Duration::from_secs(960);
/// Imports at once; the schedules have an instance of the function of their own.
const IMPORTS_AT_ONCE: usize = 2;
/// Instances of the function.
pub(super) const INSTANCES: usize = IMPORTS_AT_ONCE + 1;
/// How often runs that were cut off are looked for.
const RESUME_EVERY: Duration = Duration::from_secs(30);
/// From the start to the first capture, and to the first sync: whoever opens the page at once sees them begin.
const CAPTURE_AFTER: Duration = Duration::from_secs(3);
const SYNC_AFTER: Duration = Duration::from_secs(5);
/// What the page asked the function to do and that has not begun.
const ASKED_MAX: usize = 8;
/// Messages that the page shows.
const NOTICES_MAX: usize = 20;
/// As an answer of Salesforce's.
const ORG_LATENCY_MS: (u64, u64) = (80, 80);
/// Uploads, the newest, of which the function is told once more after a start with what was kept.
const ANNOUNCED_MAX: usize = 200;
/// Rows of the sample file.
pub(super) const SAMPLE_ROWS: u32 = 1_000;
/// How old what is shown of the review queue may be.
const DESK_AGE_MS: i64 = 400;
/// Contacts that the simulated org has at the beginning.
const ORG_CONTACTS: usize = 12;

/// A lock whose holder panicked is still a lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time, as the simulated places have it.
pub(super) fn now() -> Timestamp {
    hubspot::server::machine_clock()
}

/// A simulated place: its name in the settings, its address and its state.
pub(super) struct Place<T> {
    pub(super) name: String,
    pub(super) url: String,
    state: Arc<Mutex<T>>,
}

impl<T> Place<T> {
    /// Its state. Not to be held for long: the place answers nobody meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.state)
    }
}

/// Something that whoever looks at the page should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) at: Timestamp,
    pub(super) text: String,
}

/// The ports, taken before anything runs.
pub(super) struct Ports {
    cloud: CloudListeners,
    hubspot: Vec<(String, TcpListener)>,
    salesforce: Vec<(String, TcpListener)>,
    /// The page's.
    pub(super) page: TcpListener,
    /// Where the page is.
    pub(super) page_at: SocketAddr,
    /// Where AWS is.
    pub(super) addresses: Addresses,
    /// Where the simulated places are.
    pub(super) places: Places,
}

impl Ports {
    /// The page on `port` (0: any free one), everything else on free ports, all on 127.0.0.1.
    pub(super) fn bind(port: u16, accounts: &[String], orgs: &[String]) -> Result<Self> {
        let page = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("127.0.0.1:{port} cannot be had; --port names another"))?;
        page.set_nonblocking(true)?;
        let page_at = page.local_addr()?;
        let cloud = CloudListeners::bind()?;
        let addresses = cloud.addresses()?;
        let mut places = Places::default();
        let listeners = |names: &[String], urls: &mut BTreeMap<String, String>| -> Result<Vec<(String, TcpListener)>> {
            let mut all = Vec::new();
            for name in names {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
                listener.set_nonblocking(true)?;
                urls.insert(name.clone(), format!("http://{}", listener.local_addr()?));
                all.push((name.clone(), listener));
            }
            Ok(all)
        };
        let hubspot = listeners(accounts, &mut places.hubspot)?;
        let salesforce = listeners(orgs, &mut places.salesforce)?;
        Ok(Self { cloud, hubspot, salesforce, page, page_at, addresses, places })
    }

    /// What the function's process needs in its environment, the Runtime API aside.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        local::environment(&self.addresses, &format!("s3://{BUCKET}/{CONFIG_KEY}"), TABLE, QUEUE)
    }
}

/// How a local cloud is to be.
pub(super) struct Wishes {
    /// The same seed makes the same records and the same chance.
    pub(super) seed: u64,
    /// The latency of the simulated HubSpot: always, and at most on top.
    pub(super) latency_ms: (u64, u64),
    /// Between two captures, and two syncs; none: only on request.
    pub(super) every: Option<Duration>,
    /// Records to begin with.
    pub(super) furnished: bool,
    /// Where bodies of objects and the table are kept.
    pub(super) bodies: Bodies,
    pub(super) tables: Tables,
    /// Where the simulated places are kept; none: they begin afresh.
    pub(super) state: Option<PathBuf>,
}

/// Everything that the threads share.
pub(super) struct Stage {
    pub(super) cloud: Arc<Cloud>,
    pub(super) accounts: Vec<Place<Portal>>,
    pub(super) orgs: Vec<Place<Org>>,
    pub(super) places: Places,
    /// Where the page is.
    pub(super) page_at: SocketAddr,
    /// What a form of the page has to bring: another site cannot know it.
    pub(super) token: String,
    /// Where files are dropped, for people.
    pub(super) drop_folder: String,
    settings: Mutex<Arc<Settings>>,
    board: Mutex<Board>,
    notices: Mutex<VecDeque<Notice>>,
    asked: channel::Sender<Value>,
    /// What was seen of the review queue last, and when.
    desk: Mutex<Option<(Timestamp, Arc<Desk>)>>,
    /// What people decided on the page, the newest first.
    decisions: Mutex<VecDeque<Decision>>,
    numbers: AtomicU64,
    clerk: channel::Sender<Task>,
    /// The clerk's end, until he takes it.
    tasks: Mutex<Option<channel::Receiver<Task>>>,
    state: Option<PathBuf>,
    /// Edits by people, which no place counts.
    edits: AtomicU64,
    /// By file: how the place was at the last look, and when it was kept.
    kept: Mutex<BTreeMap<PathBuf, (Mark, Mark)>>,
}

/// Tells one state of a place from another: calls, and edits by people.
type Mark = (u64, u64);

impl Stage {
    /// A person edited something.
    pub(super) fn edited(&self) {
        self.edits.fetch_add(1, Ordering::SeqCst);
    }

    /// Writes down what the simulated places hold, where that is wished: each as soon as it has been quiet since the last look, or `now`.
    ///
    /// # Errors
    /// A file cannot be written; the one before stays.
    pub(super) fn keep(&self, now: bool) -> Result<()> {
        let Some(folder) = &self.state else { return Ok(()) };
        let edits = self.edits.load(Ordering::SeqCst);
        for account in &self.accounts {
            let portal = account.lock();
            let mark = (portal.counts().requests, edits);
            self.keep_one(&kept_file(folder, "hubspot", &account.name), mark, now, move || portal.kept())?;
        }
        for org in &self.orgs {
            let state = org.lock();
            let mark = (state.counts().requests, edits);
            self.keep_one(&kept_file(folder, "salesforce", &org.name), mark, now, move || state.kept())?;
        }
        Ok(())
    }

    fn keep_one(&self, file: &Path, mark: Mark, now: bool, text: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let mut all = lock(&self.kept);
        // Before the first time no mark fits.
        let none = (u64::MAX, u64::MAX);
        let (seen, kept) = all.entry(file.to_owned()).or_insert((none, none));
        let is_quiet = std::mem::replace(seen, mark) == mark;
        if *kept == mark || !(is_quiet || now) {
            return Ok(());
        }
        *kept = mark;
        drop(all);
        let text = text();
        let new = file.with_extension("new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, file))
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    /// The settings in force.
    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&lock(&self.settings))
    }

    /// Puts settings into force: for the function, which reads them before its next invocation, and for uploads.
    pub(super) fn set_settings(&self, settings: Settings) {
        let s3 = self.cloud.s3();
        for bucket in settings.buckets() {
            s3.create_bucket(&bucket, true);
        }
        for (name, value) in settings.secrets(&self.places) {
            self.cloud.secrets().put(&name, &value);
        }
        for account in &self.accounts {
            settings.furnish(&account.name, &mut account.lock());
        }
        self.cloud.set_rules(settings.rules());
        if s3.read(BUCKET, CONFIG_KEY).as_deref() != Some(settings.text.as_bytes()) {
            s3.put(BUCKET, CONFIG_KEY, settings.text.clone());
        }
        *lock(&self.settings) = Arc::new(settings);
    }

    /// The account of this name.
    pub(super) fn account(&self, name: &str) -> Option<&Place<Portal>> {
        self.accounts.iter().find(|account| account.name == name)
    }

    /// The org of this name.
    pub(super) fn org(&self, name: &str) -> Option<&Place<Org>> {
        self.orgs.iter().find(|org| org.name == name)
    }

    /// Runs and samples, brought up to date.
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        let mut board = lock(&self.board);
        board.refresh(self, now());
        board
    }

    /// What a run tells, from the function's thread.
    pub(super) fn update(&self, update: &Update) {
        lock(&self.board).update(update, now());
    }

    /// Tells something to whoever looks at the page.
    pub(super) fn notice(&self, text: impl Into<String>) {
        let mut notices = lock(&self.notices);
        if notices.len() == NOTICES_MAX {
            notices.pop_front();
        }
        notices.push_back(Notice { at: now(), text: text.into() });
    }

    /// What was told, the newest first.
    pub(super) fn notices(&self) -> Vec<Notice> {
        lock(&self.notices).iter().rev().cloned().collect()
    }

    /// Invokes the function with an event, soon. `false`: too much was asked already.
    pub(super) fn ask(&self, event: Value) -> bool {
        self.asked.try_send(event).is_ok()
    }

    /// What there is to decide, and how the syncs are.
    pub(super) fn desk(&self) -> Arc<Desk> {
        let mut kept = lock(&self.desk);
        let now = now();
        if let Some((at, desk)) = &*kept
            && (0..DESK_AGE_MS).contains(&(now.as_millisecond() - at.as_millisecond()))
        {
            return Arc::clone(desk);
        }
        let desk = Arc::new(review::look(self));
        *kept = Some((now, Arc::clone(&desk)));
        desk
    }

    /// Tells one decision from another.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    /// Gives the clerk something to carry out. `false`: he has too much to do.
    pub(super) fn hand_over(&self, task: Task, decision: Decision) -> bool {
        let mut decisions = lock(&self.decisions);
        let taken = self.clerk.try_send(task).is_ok();
        if taken {
            decisions.push_front(decision);
            decisions.truncate(DECISIONS_KEPT);
        }
        taken
    }

    /// What became of a decision.
    pub(super) fn decided(&self, number: u64, state: Decided) {
        if let Some(decision) = lock(&self.decisions).iter_mut().find(|decision| decision.number == number) {
            decision.state = state;
        }
        // What was looked at before is old.
        *lock(&self.desk) = None;
    }

    /// What was decided on the page, the newest first.
    pub(super) fn decisions(&self) -> Vec<Decision> {
        lock(&self.decisions).iter().cloned().collect()
    }

    /// What the clerk works through. Once.
    pub(super) fn take_tasks(&self) -> Option<channel::Receiver<Task>> {
        lock(&self.tasks).take()
    }

    /// The report of a run, and its stored text.
    pub(super) fn report(&self, run_id: &str) -> Option<(Report, bytes::Bytes)> {
        let (bucket, key) = self.board().stored_at(run_id)?;
        let bytes = self.cloud.s3().read(&bucket, &key)?;
        Some((serde_json::from_slice(&bytes).ok()?, bytes))
    }
}

/// The running services; they stop when it is dropped.
pub(super) struct Services {
    pub(super) stage: Arc<Stage>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Services {
    /// Starts everything at `ports` but the page; returns the page's listener. `token` is the secret of the page's forms.
    pub(super) fn start(
        ports: Ports,
        settings: Settings,
        wishes: Wishes,
        token: String,
        drop_folder: String,
    ) -> Result<(Self, TcpListener)> {
        let Ports { cloud, hubspot, salesforce, page, page_at, addresses: _, places } = ports;
        let mut any_kept = false;
        let mut accounts = Vec::new();
        let mut serve_accounts = Vec::new();
        for (name, listener) in hubspot {
            let mut own = PortalSettings {
                seed: wishes.seed,
                custom_objects: settings.custom_objects(&name),
                ..PortalSettings::default()
            };
            (own.latency.fixed_ms, own.latency.jitter_ms) = wishes.latency_ms;
            own.properties.insert("contacts".to_owned(), world::properties());
            let kept = wishes.state.as_deref().and_then(|folder| fs::read(kept_file(folder, "hubspot", &name)).ok());
            let portal = match &kept {
                Some(text) => Portal::restored(own, text)
                    .with_context(|| format!("what was kept of HubSpot {name} cannot be read"))?,
                None => Portal::new(own),
            };
            any_kept |= kept.is_some();
            let state = Arc::new(Mutex::new(portal));
            serve_accounts.push((listener, Arc::clone(&state)));
            let url = places.hubspot.get(&name).cloned().unwrap_or_default();
            accounts.push(Place { name, url, state });
        }
        let mut orgs = Vec::new();
        let mut serve_orgs = Vec::new();
        for (name, listener) in salesforce {
            let (latency_ms, latency_jitter_ms) = ORG_LATENCY_MS;
            let own = OrgSettings { seed: wishes.seed, latency_ms, latency_jitter_ms, ..OrgSettings::default() };
            let kept = wishes.state.as_deref().and_then(|folder| fs::read(kept_file(folder, "salesforce", &name)).ok());
            let org = match &kept {
                Some(text) => Org::restored(own, text)
                    .with_context(|| format!("what was kept of Salesforce {name} cannot be read"))?,
                None => Org::new(own),
            };
            any_kept |= kept.is_some();
            let state = Arc::new(Mutex::new(org));
            serve_orgs.push((listener, Arc::clone(&state)));
            let url = places.salesforce.get(&name).cloned().unwrap_or_default();
            orgs.push(Place { name, url, state });
        }
        let cloud_settings = CloudSettings {
            listeners: Some(cloud),
            bodies: wishes.bodies,
            tables: wishes.tables,
            buckets: settings.buckets(),
            table: Some(TABLE.to_owned()),
            queues: vec![
                (DEAD_LETTERS.to_owned(), VISIBILITY, None),
                (QUEUE.to_owned(), VISIBILITY, Some((DEAD_LETTERS.to_owned(), 5))),
            ],
            mappings: vec![Mapping { queue: QUEUE.to_owned(), maximum_concurrency: IMPORTS_AT_ONCE }],
            schedules: schedules(&settings, wishes.every),
            function: local::FUNCTION.to_owned(),
            timeout: world::FUNCTION_TIMEOUT,
            seed: wishes.seed,
            ..CloudSettings::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, mut stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let (asked, mut asks) = channel::channel::<Value>(ASKED_MAX);
        let (clerk, tasks) = channel::channel(TASKS_MAX);
        let thread = std::thread::Builder::new().name("services".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                let started = (|| -> Result<Arc<Cloud>> {
                    for (listener, state) in serve_accounts {
                        let listener = tokio::net::TcpListener::from_std(listener)?;
                        tasks.spawn(async move {
                            let _ = hubspot::server::serve(listener, state, hubspot::server::machine_clock).await;
                        });
                    }
                    for (listener, state) in serve_orgs {
                        let listener = tokio::net::TcpListener::from_std(listener)?;
                        tasks.spawn(async move {
                            let _ = salesforce::server::serve(listener, state, hubspot::server::machine_clock).await;
                        });
                    }
                    Ok(Arc::new(Cloud::start(cloud_settings)?))
                })();
                let functions = started.as_ref().ok().map(|cloud| Arc::clone(cloud.functions()));
                // Nobody listens only if the command is over.
                let _ = ready.send(started);
                let Some(functions) = functions else { return };
                loop {
                    // One at a time: the schedules' instance of the function does it.
                    let event = tokio::select! {
                        Some(event) = asks.recv() => event,
                        _ = &mut stopped => return,
                    };
                    tokio::select! {
                        answer = functions.invoke(&event, functions.timeout()) => {
                            if let Err(error) = answer {
                                tracing::warn!(%error, "an invocation that the page asked for failed");
                            }
                        }
                        _ = &mut stopped => return,
                    }
                }
            });
        })?;
        let cloud = started.recv().map_err(|_| anyhow!("the services did not start"))??;
        let stage = Arc::new(Stage {
            cloud,
            accounts,
            orgs,
            places,
            page_at,
            token,
            drop_folder,
            settings: Mutex::new(Arc::new(settings.clone())),
            board: Mutex::default(),
            notices: Mutex::default(),
            asked,
            desk: Mutex::default(),
            decisions: Mutex::default(),
            numbers: AtomicU64::new(1),
            clerk,
            tasks: Mutex::new(Some(tasks)),
            state: wishes.state,
            edits: AtomicU64::new(0),
            kept: Mutex::default(),
        });
        if wishes.furnished && !any_kept {
            furnish(&stage, wishes.seed);
        }
        let rules = settings.rules();
        stage.set_settings(settings);
        if any_kept {
            // The queue is not kept: what was in it comes again, and what was imported already is a duplicate.
            for rule in rules {
                stage.cloud.s3().announce(&rule.bucket, &rule.prefix, ANNOUNCED_MAX);
            }
        }
        Ok((Self { stage, stop: Some(stop), thread: Some(thread) }, page))
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The file of a place.
fn kept_file(folder: &Path, kind: &str, name: &str) -> PathBuf {
    folder.join(format!("{kind}-{}.json", crate::html::url(name)))
}

/// What wakes the function besides uploads.
fn schedules(settings: &Settings, every: Option<Duration>) -> Vec<Schedule> {
    let mut all =
        vec![Schedule { first_after: Duration::from_secs(2), every: RESUME_EVERY, input: json!({ "job": "resume" }) }];
    for (job, first_after, is_there) in [
        ("capture", CAPTURE_AFTER, !settings.config.captures.is_empty()),
        ("sync", SYNC_AFTER, !settings.config.syncs.is_empty()),
    ] {
        if let Some(every) = every.filter(|_| is_there) {
            all.push(Schedule { first_after, every, input: json!({ "job": job }) });
        }
    }
    all
}

/// Contacts that are there before the first file, so that there is something to update, to search and to sync. The sample file knows them.
fn furnish(stage: &Stage, seed: u64) {
    let sample = File::generate(SAMPLE_ROWS, seed);
    let now = now();
    for account in &stage.accounts {
        let mut portal = account.lock();
        for email in &sample.known {
            portal.seed_record(now, "contacts", &[("email", email), ("lifecyclestage", "subscriber")]);
        }
        for email in &sample.blocked {
            portal.block_address(email);
        }
    }
    for org in &stage.orgs {
        let mut state = org.lock();
        let rows = sample.rows.iter().filter(|row| row.fault.is_none()).take(ORG_CONTACTS);
        for row in rows {
            let cell = |at: usize| row.cells.get(at).map(|cell| cell.trim().to_lowercase()).unwrap_or_default();
            let name = |at: usize| row.cells.get(at).map(String::as_str).unwrap_or_default();
            let values = [("Email", cell(0)), ("FirstName", name(1).to_owned()), ("LastName", name(2).to_owned())];
            let values: Vec<(&str, &str)> = values.iter().map(|(name, text)| (*name, text.as_str())).collect();
            if let Err(error) = state.create(now, "Contact", &values) {
                tracing::warn!(error, "a contact for the simulated org was refused");
            }
        }
    }
}
