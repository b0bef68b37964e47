//! Load: all jobs on one account for an hour of virtual time, people editing meanwhile; and one file of 50 GB. Then nothing may be missing.
//!
//! `cargo benches load` runs both, `cargo benches hour` and `cargo benches vast` one of them; with `small` five minutes and 100 MB, which
//! is also what `cargo test` runs. `docs/benchmarks.md` holds the figures. Everything is in this process: the simulators, S3 and the table
//! behind the doors, in virtual time. Memory is counted by an allocator that tells what the jobs hold from what the simulators hold.

#![expect(clippy::print_stdout, reason = "a benchmark tells its results")]

mod support;
#[path = "support/virtual_world.rs"]
mod virtual_world;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::Duration,
};

use hubferry::{
    clock::Clock as _,
    objects::Location,
    report::{Outcome as RunOutcome, Report},
};
use hubferry_simulator::{
    hubspot::{CustomObject, IndexLag, PortalSettings, PropertyDefinition},
    salesforce::OrgSettings,
};
use serde_json::Value;
use support::{
    Outcome,
    machine::{self, Watch},
    median,
    memory::{self, Counting},
    rows, tell, wanted,
};
use virtual_world::{BUCKET, VAST, VirtualWorld};

#[global_allocator]
static COUNTING: Counting = Counting;

const LATENCY_MS: u64 = 300;
/// Calls in 10 s that HubSpot allows an account.
const BURST: u32 = 190;
/// Jobs that want the limit at once: each may take so many times as long as alone.
const JOBS: f64 = 3.0;
/// After the last edit: search has caught up, and a run's own trailing is over.
const QUIET: Duration = Duration::from_secs(180);
/// Runs after the last edit, at most, until the sync has nothing to write.
const QUIET_RUNS_MAX: usize = 6;
/// Records that the rows of the very large file are about.
const VAST_RECORDS: u64 = 50_000;
const MB: f64 = 1e6;
/// A peak may be so much above an earlier one: a heap is not flat to the byte.
const FLAT: f64 = 1.15;

/// Contacts are imported, captured and synced; cars only imported, as fast as the account allows.
const CONFIG: &str = r#"data: s3://crm/
imports:
  - name: cars
    match: incoming/cars/*
    object: "2-1"
    key: email
    columns: COLUMNS
  - name: contacts
    match: incoming/contacts/*
    object: contacts
    key: email
    columns: {"Email":"email","First Name":"nickname","Annual spend":"annual_spend","Signed up":{"property":"signed_up","date":"%d/%m/%Y"},"Plan":"plan","Newsletter":"newsletter"}
captures:
  - name: contacts
    resource: crm.contacts
    output: s3://crm/captures/contacts/
    compression: none
    extra_properties: [email, phone, jobtitle, nickname, plan]
syncs:
  - name: people
    hubspot_object: contacts
    salesforce_object: Contact
    fields:
      - { hubspot: email, salesforce: Email, rule: two_way }
      - { hubspot: firstname, salesforce: FirstName, rule: prefer_salesforce_unless_blank }
      - { hubspot: lastname, salesforce: LastName, rule: two_way }
      - { hubspot: phone, salesforce: Phone, rule: two_way }
      - { hubspot: jobtitle, salesforce: Title, rule: always_salesforce }
    limits: { creates: 1000000, updates: 1000000, blanks: 100, deletes: 20 }
"#;

/// How long, and how much of everything.
#[derive(Clone, Copy)]
struct Shape {
    minutes: u64,
    /// Calls in 10 s; the small one has fewer, so that its jobs are in each other's way too.
    burst: u32,
    people: u64,
    /// Rows of a file of cars; none: no cars at all.
    cars: u64,
    /// Between two files of cars.
    cars_pause: Duration,
    contacts_every: Duration,
    capture_every: Duration,
    sync_every: Duration,
    edit_every: Duration,
    vast_bytes: u64,
}

const WHOLE: Shape = Shape {
    minutes: 60,
    burst: BURST,
    people: 20_000,
    cars: 100_000,
    cars_pause: Duration::from_secs(1),
    contacts_every: Duration::from_secs(600),
    capture_every: Duration::from_secs(300),
    sync_every: Duration::from_secs(900),
    edit_every: Duration::from_secs(2),
    vast_bytes: 50_000_000_000,
};

const SMALL: Shape = Shape {
    minutes: 5,
    burst: 38,
    people: 400,
    cars: 2_000,
    cars_pause: Duration::from_secs(5),
    contacts_every: Duration::from_secs(100),
    capture_every: Duration::from_secs(60),
    sync_every: Duration::from_secs(75),
    edit_every: Duration::from_secs(2),
    vast_bytes: 100_000_000,
};

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    // `cargo bench` says so; without it this is a test.
    let is_test = !asked("--bench");
    let shape = if is_test || asked("small") { SMALL } else { WHOLE };
    println!("load; {}", machine::describe());
    let watch = Watch::start();
    let mut missed = Vec::new();
    if wanted("load") || wanted("hour") {
        run(async { hour(shape, &mut missed).await })?;
    }
    if wanted("load") || wanted("vast") {
        run(async { vast(shape, &mut missed).await })?;
    }
    println!("{:.0} s in all", watch.elapsed().as_secs_f64());
    match is_test && !missed.is_empty() {
        true => Err(format!("missed: {}", missed.join("; ")).into()),
        false => Ok(()),
    }
}

fn run(benchmark: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(Box::pin(benchmark))
}

/// Prints a figure with what it must be, and keeps what is missed.
fn must(missed: &mut Vec<String>, what: &str, figure: &str, target: &str, is_met: bool) {
    tell(what, figure, Some((target, is_met)));
    if !is_met {
        missed.push(format!("{what}: {figure}"));
    }
}

/// An account with HubSpot's limits and latency, whose index trails a little, with cars.
fn account(burst: u32) -> PortalSettings {
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(burst);
    settings.latency.fixed_ms = LATENCY_MS;
    settings.index_lag = IndexLag { fixed_ms: 500, jitter_ms: 3_000, ..IndexLag::default() };
    let mut cars = vec![PropertyDefinition::new("email", "string").unique()];
    cars.extend(["firstname", "lastname", "phone"].map(|name| PropertyDefinition::new(name, "string")));
    cars.extend(rows::properties());
    settings.custom_objects = vec![CustomObject {
        object_type_id: "2-1".to_owned(),
        name: "cars".to_owned(),
        properties: cars,
        required: Vec::new(),
        primary_display: "email".to_owned(),
    }];
    let mut contacts = rows::properties();
    contacts.push(PropertyDefinition::new("sf_contact_id_ext", "string").unique());
    contacts.push(PropertyDefinition::new("nickname", "string"));
    settings.properties.insert("contacts".to_owned(), contacts);
    settings
}

/// A contact as the captured changes tell it.
struct Seen {
    /// Object and line of the newest change: they are applied in this order.
    at: (String, usize),
    values: BTreeMap<String, String>,
}

/// What the checks look at.
const LOOKED_AT: [&str; 5] = ["email", "phone", "jobtitle", "nickname", "plan"];

/// Everything that happened in an hour.
struct Hour {
    world: VirtualWorld,
    shape: Shape,
    /// HubSpot's ids and Salesforce's, by number of the person.
    ours: Vec<String>,
    theirs: Vec<String>,
    /// Edits by people: number of the person and the new value.
    phones: RefCell<HashMap<u64, String>>,
    titles: RefCell<HashMap<u64, String>>,
    captured: Rc<RefCell<HashMap<String, Seen>>>,
    cars_revision: Cell<u64>,
    contacts_revision: Cell<u64>,
    reports: RefCell<Vec<(&'static str, Report)>>,
}

impl Hour {
    fn new(shape: Shape) -> Outcome<Self> {
        let config = CONFIG.replace("COLUMNS", &rows::COLUMNS.replace('\n', " "));
        let org = OrgSettings { latency_ms: LATENCY_MS, ..OrgSettings::default() };
        let world = VirtualWorld::with_org(account(shape.burst), org, &config)?;
        let then = world.long_ago();
        let person = |number: u64| {
            let (name, phone) = rows::told(number, 0);
            let email = format!("person{number}@example.com");
            [
                ("email", "Email", email),
                ("firstname", "FirstName", name),
                ("lastname", "LastName", format!("Family{number}")),
                ("phone", "Phone", phone),
                ("jobtitle", "Title", format!("Title {}", number % 50)),
            ]
        };
        let record = |number| person(number).map(|(name, _, value)| (name, value)).to_vec();
        let ours = world.portal.borrow_mut().seed_many(then, "contacts", (0..shape.people).map(record));
        let mut theirs = Vec::new();
        for number in 0..shape.people {
            let values = person(number);
            let values: Vec<(&str, &str)> = values.iter().map(|(_, name, value)| (*name, value.as_str())).collect();
            theirs.push(world.org.borrow_mut().create(then, "Contact", &values)?);
        }
        let captured = Rc::new(RefCell::new(HashMap::new()));
        let seen = Rc::clone(&captured);
        *world.reader.borrow_mut() = Some(Box::new(move |key, body| see(&mut seen.borrow_mut(), key, body)));
        Ok(Self {
            world,
            shape,
            ours,
            theirs,
            phones: RefCell::default(),
            titles: RefCell::default(),
            captured,
            cars_revision: Cell::new(0),
            contacts_revision: Cell::new(0),
            reports: RefCell::default(),
        })
    }

    fn is_over(&self) -> bool {
        self.world.clock.elapsed() >= Duration::from_secs(self.shape.minutes * 60)
    }

    /// Waits until the next time that a schedule names.
    async fn next(&self, every: Duration) {
        let passed = self.world.clock.elapsed().as_millis() % every.as_millis();
        let left = every.as_millis() - passed;
        self.world.clock.sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
    }

    fn keep(&self, job: &'static str, report: Report) -> Outcome {
        let rows = &report.rows;
        if report.outcome != RunOutcome::Done || rows.rejected + rows.deferred > 0 || !rows.add_up() {
            return Err(format!("{job}: {report:?}").into());
        }
        self.reports.borrow_mut().push((job, report));
        Ok(())
    }

    /// Puts a file, imports it and takes it away: what S3 holds is not what is looked at.
    async fn import(&self, job: &'static str, key: &str, file: Vec<u8>, rows: u64) -> Outcome {
        let (at, bytes) = (Location::new(BUCKET, key), file.len() as u64);
        self.world.objects.insert(&at, file);
        let report = self.world.import(key, bytes).await?;
        self.world.objects.insert(&at, Vec::new());
        if report.rows.read != rows {
            return Err(format!("{rows} rows, and {report:?}").into());
        }
        self.keep(job, report)
    }

    async fn cars(&self) -> Outcome {
        while !self.is_over() && self.shape.cars > 0 {
            let revision = self.cars_revision.get() + 1;
            let file = rows::revised(0..self.shape.cars, revision);
            self.import("cars", &format!("incoming/cars/{revision:06}.csv"), file, self.shape.cars).await?;
            self.cars_revision.set(revision);
            self.world.clock.sleep(self.shape.cars_pause).await;
        }
        Ok(())
    }

    async fn contacts(&self) -> Outcome {
        while !self.is_over() {
            let revision = self.contacts_revision.get() + 1;
            let file = rows::revised(0..self.shape.people, revision);
            self.import("contacts", &format!("incoming/contacts/{revision:06}.csv"), file, self.shape.people).await?;
            self.contacts_revision.set(revision);
            self.next(self.shape.contacts_every).await;
        }
        Ok(())
    }

    async fn captures(&self) -> Outcome {
        while !self.is_over() {
            self.keep("capture", self.world.capture().await?)?;
            self.next(self.shape.capture_every).await;
        }
        Ok(())
    }

    async fn syncs(&self) -> Outcome {
        while !self.is_over() {
            self.keep("sync", self.world.sync().await?)?;
            self.next(self.shape.sync_every).await;
        }
        Ok(())
    }

    /// People: a phone number in HubSpot, a title in Salesforce, each of another person. They begin when the two systems are linked: what differs
    /// before is not an edit but a question, and becomes a review.
    async fn people(&self) -> Outcome {
        while self.runs("sync") == 0 && !self.is_over() {
            self.world.clock.sleep(self.shape.edit_every).await;
        }
        for number in 0.. {
            self.world.clock.sleep(self.shape.edit_every).await;
            if self.is_over() {
                break;
            }
            let now = self.world.clock.now();
            let (phone, title) = ((number * 7) % self.shape.people, (number * 7 + 3) % self.shape.people);
            let (Some(contact), Some(row)) =
                (self.ours.get(usize::try_from(phone)?), self.theirs.get(usize::try_from(title)?))
            else {
                return Err("nobody".into());
            };
            let text = format!("+1 555 77{:02} {:04}", number / 10_000 % 100, number % 10_000);
            self.world.portal.borrow_mut().edit(now, "contacts", contact, &[("phone", &text)]);
            self.phones.borrow_mut().insert(phone, text);
            let text = format!("Title by hand {number}");
            self.world.org.borrow_mut().edit(now, "Contact", row, &[("Title", &text)])?;
            self.titles.borrow_mut().insert(title, text);
        }
        Ok(())
    }

    /// The most that the jobs held in each quarter of the time.
    async fn quarters(&self) -> Outcome<Vec<f64>> {
        let mut peaks = Vec::new();
        for _ in 0..4 {
            memory::forget_peak();
            self.world.clock.sleep(Duration::from_secs(self.shape.minutes * 15)).await;
            peaks.push(memory::peak() as f64 / MB);
        }
        Ok(peaks)
    }

    /// Until nothing is left to do.
    async fn settle(&self) -> Outcome {
        for _ in 0..QUIET_RUNS_MAX {
            self.world.clock.sleep(QUIET).await;
            self.keep("capture", self.world.capture().await?)?;
            let report = self.world.sync().await?;
            let told = report.sync.clone().ok_or("a report without its sync")?;
            self.keep("sync", report)?;
            if [told.hubspot, told.salesforce].iter().all(|side| side.created + side.updated + side.deleted == 0) {
                return Ok(());
            }
        }
        Err("the sync does not come to rest".into())
    }

    /// What is not as it must be.
    fn problems(&self) -> Outcome<Vec<String>> {
        let mut problems = Vec::new();
        let portal = self.world.portal.borrow();
        let org = self.world.org.borrow();
        let revision = self.cars_revision.get();
        let mut cars = 0;
        for car in portal.live_objects("2-1", &["email", "firstname", "phone"]) {
            let value = |name: &str| car.properties.get(name).cloned().flatten().unwrap_or_default();
            let number = value("email").trim_start_matches("person").split('@').next().unwrap_or_default().parse()?;
            if (value("firstname"), value("phone")) != rows::told(number, revision) {
                problems.push(format!("car {number} is not as its last row says"));
            }
            cars += 1;
        }
        if cars != self.shape.cars {
            problems.push(format!("{cars} cars"));
        }
        let captured = self.captured.borrow();
        let mut contacts = 0;
        for contact in portal.live_objects("contacts", &LOOKED_AT) {
            contacts += 1;
            let held: BTreeMap<String, String> = (contact.properties.iter())
                .filter_map(|(name, value)| Some((name.clone(), value.clone().filter(|value| !value.is_empty())?)))
                .collect();
            if captured.get(&contact.id).is_none_or(|seen| seen.values != held) {
                problems.push(format!("contact {} is captured otherwise than it is", contact.id));
            }
            let number: u64 = (held.get("email").map(String::as_str).unwrap_or_default())
                .trim_start_matches("person")
                .split('@')
                .next()
                .unwrap_or_default()
                .parse()?;
            if held.get("nickname") != Some(&rows::told(number, self.contacts_revision.get()).0) {
                problems.push(format!("contact {number} is not as its last row says"));
            }
            let (phone, title) = (self.phones.borrow(), self.titles.borrow());
            let expected = [
                ("phone", "Phone", phone.get(&number).cloned().unwrap_or_else(|| rows::told(number, 0).1)),
                ("jobtitle", "Title", title.get(&number).cloned().unwrap_or_else(|| format!("Title {}", number % 50))),
            ];
            let row =
                self.theirs.get(usize::try_from(number)?).and_then(|id| org.look("Contact", id)).unwrap_or_default();
            for (ours, theirs, value) in expected {
                if held.get(ours) != Some(&value) || row.get(theirs) != Some(&value) {
                    problems.push(format!("{ours} of contact {number} is not on both sides what a person wrote"));
                }
            }
        }
        if contacts != self.shape.people || org.live_records("Contact").count() as u64 != self.shape.people {
            problems.push(format!("{contacts} contacts, or as many in Salesforce"));
        }
        Ok(problems)
    }

    /// Seconds that the runs of a job took, but for the first, which begins from nothing.
    fn seconds(&self, job: &str) -> Vec<f64> {
        let reports = self.reports.borrow();
        let runs = reports.iter().filter(|(name, _)| *name == job).skip(1);
        runs.map(|(_, report)| report.duration_ms as f64 / 1e3).collect()
    }

    fn calls(&self, job: &str) -> u64 {
        let reports = self.reports.borrow();
        reports.iter().filter(|(name, _)| *name == job).map(|(_, report)| report.calls.total).sum()
    }

    fn reviews(&self) -> u64 {
        let reports = self.reports.borrow();
        reports.iter().filter_map(|(_, report)| Some(report.sync.as_ref()?.reviews_opened)).sum()
    }

    fn runs(&self, job: &str) -> usize {
        self.reports.borrow().iter().filter(|(name, _)| *name == job).count()
    }

    /// All jobs and people at once, for the time; what the jobs held in each quarter.
    async fn live(&self) -> Outcome<Vec<f64>> {
        let (cars, contacts, captures, syncs, people, peaks) = tokio::join!(
            Box::pin(self.cars()),
            Box::pin(self.contacts()),
            Box::pin(self.captures()),
            Box::pin(self.syncs()),
            Box::pin(self.people()),
            Box::pin(self.quarters())
        );
        cars?;
        contacts?;
        captures?;
        syncs?;
        people?;
        peaks
    }
}

/// Takes the changes of an object: OpenCDC, one a line.
fn see(seen: &mut HashMap<String, Seen>, key: &str, body: &[u8]) {
    if !key.contains(".jsonl") {
        return;
    }
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let change: Value = serde_json::from_slice(line).unwrap_or_default();
        let after = &change["payload"]["after"];
        let Some(id) = after["id"].as_str() else { continue };
        let at = (key.to_owned(), number);
        if seen.get(id).is_some_and(|seen| seen.at > at) {
            continue;
        }
        let value = |name: &&str| {
            let value = after["properties"][*name].as_str().filter(|value| !value.is_empty())?;
            Some(((*name).to_owned(), value.to_owned()))
        };
        seen.insert(id.to_owned(), Seen { at, values: LOOKED_AT.iter().filter_map(value).collect() });
    }
}

async fn hour(shape: Shape, missed: &mut Vec<String>) -> Outcome {
    println!(
        "hour: {} minutes of virtual time; {} contacts imported, captured and synced, files of {} cars imported one after the other; {} calls/10 s, {LATENCY_MS} ms a call",
        shape.minutes, shape.people, shape.cars, shape.burst
    );
    let watch = Watch::start();
    let hour = Hour::new(shape)?;
    let peaks = hour.live().await?;
    let (counts, seconds) = (hour.world.portal.borrow().counts(), hour.world.clock.elapsed().as_secs_f64());
    let edits = hour.phones.borrow().len() + hour.titles.borrow().len();
    let jobs: Vec<String> = ["cars", "contacts", "capture", "sync"]
        .map(|job| format!("{job} {} in {} runs", hour.calls(job), hour.runs(job)))
        .into();
    let use_percent = counts.requests as f64 / (seconds * f64::from(shape.burst) / 10.0) * 100.0;
    tell("calls", &format!("{} in {seconds:.0} s, {use_percent:.1} % of the limit", counts.requests), None);
    tell("calls by job, as they report them", &jobs.join(", "), None);
    let rows = hour.cars_revision.get() * shape.cars + hour.contacts_revision.get() * shape.people;
    tell("rows imported, edits by people", &format!("{rows}, {edits}"), None);
    let share = counts.throttled as f64 / counts.requests as f64 * 100.0;
    must(missed, "429s", &format!("{share:.3} % ({})", counts.throttled), "at most 0.1 %", share <= 0.1);
    hour.settle().await?;
    let problems = hour.problems()?;
    must(
        missed,
        "lost or wrong, at rest",
        &format!("{} {:?}", problems.len(), problems.iter().take(5).collect::<Vec<_>>()),
        "0",
        problems.is_empty(),
    );
    let reviews = hour.reviews();
    must(missed, "reviews opened", &reviews.to_string(), "0", reviews == 0);
    tell_flat(missed, &peaks);
    // The same without the cars: what the others take when nobody else wants the limit.
    let alone = Hour::new(Shape { cars: 0, ..shape })?;
    alone.live().await?;
    for job in ["contacts", "capture", "sync"] {
        let (together, alone) = (median(&hour.seconds(job)), median(&alone.seconds(job)));
        let figure = format!("{together:.1} s, {alone:.1} s alone: {:.1} times", together / alone);
        must(missed, &format!("a run of {job}, median"), &figure, "at most 3 times", together <= JOBS * alone + 1.0);
    }
    tell("real time", &format!("{:.0} s", watch.elapsed().as_secs_f64()), None);
    Ok(())
}

fn tell_flat(missed: &mut Vec<String>, peaks: &[f64]) {
    let told: Vec<String> = peaks.iter().map(|peak| format!("{peak:.1}")).collect();
    let before = peaks.iter().take(3).copied().fold(0.0, f64::max);
    let last = peaks.last().copied().unwrap_or_default();
    let figure = format!("{} MB", told.join(", "));
    must(missed, "most held by the jobs, in each quarter", &figure, "flat", last > 0.0 && last <= before * FLAT);
}

async fn vast(shape: Shape, missed: &mut Vec<String>) -> Outcome {
    let (bytes, rows) = rows::vast(shape.vast_bytes);
    println!(
        "vast: one file of {:.2} GB, {rows} rows of {} bytes with 9 columns mapped or named and {} that nobody maps; 190 calls/10 s, {LATENCY_MS} ms a call, in virtual time",
        bytes as f64 / 1e9,
        rows::VAST_ROW_BYTES,
        rows::VAST_COLUMNS
    );
    let columns = rows::COLUMNS.replace('\n', " ");
    let config = format!(
        "imports:\n  - {{ name: contacts, match: incoming/contacts/*, object: contacts, key: email, columns: {columns} }}\n"
    );
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = LATENCY_MS;
    settings.limits.daily = None;
    let world = VirtualWorld::new(settings, &config)?;
    let records = VAST_RECORDS.min(rows / 4).max(1);
    world.vast.set((bytes, records));
    let (watch, cpu) = (Watch::start(), machine::cpu_seconds("self")?);
    let calls_per_second = f64::from(BURST) / 10.0;
    // How long it takes is known: as many calls as the limit allows.
    let expected = Duration::from_secs_f64(rows as f64 / 100.0 / calls_per_second);
    let quarters = async {
        let mut peaks = Vec::new();
        for _ in 0..4 {
            memory::forget_peak();
            world.clock.sleep(expected / 4).await;
            peaks.push(memory::peak() as f64 / MB);
        }
        peaks
    };
    let (report, peaks) = tokio::join!(Box::pin(world.import(VAST, bytes)), quarters);
    let report = report?;
    if report.outcome != RunOutcome::Done {
        return Err(format!("the import is not done: {report:?}").into());
    }
    let counts = report.rows;
    let told = format!(
        "{} read = {} created + {} updated + {} merged + {} rejected + {} deferred",
        counts.read, counts.created, counts.updated, counts.merged, counts.rejected, counts.deferred
    );
    must(
        missed,
        "rows",
        &told,
        "all accounted for",
        counts.read == rows && counts.add_up() && counts.rejected + counts.deferred == 0,
    );
    let portal = world.portal.borrow();
    let mut wrong = 0;
    let mut found = 0;
    for contact in portal.live_objects("contacts", &["email", "firstname", "phone"]) {
        let value = |name: &str| contact.properties.get(name).cloned().flatten().unwrap_or_default();
        let number: u64 = value("email").trim_start_matches("person").split('@').next().unwrap_or_default().parse()?;
        let revision = (rows - 1 - number) / records;
        wrong += u64::from((value("firstname"), value("phone")) != rows::told(number, revision));
        found += 1;
    }
    let figure = format!("{found} records, {wrong} of them not as their last row says");
    must(missed, "in HubSpot", &figure, "one for each key, none wrong", found == records && wrong == 0);
    let seconds = report.duration_ms as f64 / 1e3;
    let percent = rows as f64 / 100.0 / calls_per_second / seconds * 100.0;
    tell(
        "took, in virtual time",
        &format!("{seconds:.0} s in {} invocations: {percent:.1} % of the limit", report.invocations),
        None,
    );
    let all = portal.counts();
    let share = all.throttled as f64 / all.requests as f64 * 100.0;
    must(
        missed,
        "429s",
        &format!("{share:.3} % ({} of {})", all.throttled, all.requests),
        "at most 0.1 %",
        share <= 0.1,
    );
    tell_flat(missed, &peaks);
    let cpu = machine::cpu_seconds("self")? - cpu;
    let figure = format!(
        "{:.0} s, {cpu:.0} s of CPU with the simulator and the making of the file",
        watch.elapsed().as_secs_f64()
    );
    tell("real time", &figure, None);
    Ok(())
}
