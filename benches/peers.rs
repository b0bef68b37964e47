//! hubferry beside what people use today: the same file, the same simulated account over loopback, the same limits.
//!
//! `cargo benches peers` prints the tables, `cargo benches peers write` puts them into `docs/benchmarks.md` as well, `cargo benches peers
//! small` is a quick look, `cargo benches peers serve` only serves an account and tells how to import into it, for a profiler. The scripts are in `benches/peers/`. What they need is installed under `target/`; where it cannot be, the
//! contender is skipped, loudly.

#![expect(clippy::print_stdout, reason = "a benchmark tells its results")]

mod support;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hubferry_simulator::hubspot::{Faults, Portal, PortalSettings, server};
use jiff::SignedDuration;
use serde_json::Value;
use support::{
    Outcome,
    machine::{self, Watch},
    median, rows,
};
use tokio::{net::TcpListener, task::JoinSet};

/// What is installed, by exact version.
const PYTHON_CLIENT: &str = "hubspot-api-client==12.0.0";
const TAP: &str = "meltano-tap-hubspot==0.10.1";
/// The last major version of the client that takes Node 20.
const NODE_CLIENT: [&str; 2] = ["@hubspot/api-client@13.5.0", "csv-parse@7.0.3"];
const INSTALL_MAX_SECONDS: &str = "180";

const LATENCY_MS: u64 = 300;
const FAULTY_LATENCY_MS: u64 = 150;
/// One row in so many has an address that HubSpot does not take.
const BAD_EVERY: u64 = 250;
const ROUNDS: usize = 3;
/// A contender is given up after this.
const RUN_MAX: Duration = Duration::from_secs(180);
/// Between two looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the account's records have been there when they are read.
const AGE: SignedDuration = SignedDuration::from_hours(24);

const SERVED: Duration = Duration::from_secs(600);
const SERVED_ROWS: u64 = 200_000;

const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks.md");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/peers");
const BEGIN: &str = "<!-- cargo benches peers write: begin -->\n";
const END: &str = "<!-- cargo benches peers write: end -->\n";

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    // Asks package registries and takes minutes: only by its name.
    if !asked("peers") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if asked("serve") {
        return runtime.block_on(serve());
    }
    let watch = Watch::start();
    let tools = Tools::install()?;
    let size = if asked("small") { Size { rows: 10, rounds: 1 } } else { Size { rows: 1, rounds: ROUNDS } };
    let text = runtime.block_on(compare(&tools, &size))?;
    println!("{text}");
    println!("{:.0} s in all", watch.elapsed().as_secs_f64());
    if asked("write") {
        write(&text)?;
    }
    Ok(())
}

/// An account and a file for whoever wants to watch one import.
async fn serve() -> Outcome {
    let account = Account::open(PortalSettings::unlimited()).await?;
    let folder = account.folder.path();
    fs::write(folder.join("contacts.csv"), file(SERVED_ROWS, false))?;
    println!("For {} minutes, {SERVED_ROWS} rows:", SERVED.as_secs() / 60);
    println!(
        "HUBSPOT_ACCESS_TOKEN={} {} import {} --as contacts --local --json --config {}",
        PortalSettings::TOKEN,
        env!("CARGO_BIN_EXE_hubferry"),
        folder.join("contacts.csv").display(),
        folder.join("hubferry.yaml").display()
    );
    pause(SERVED).await;
    Ok(())
}

/// Puts the tables between their marks.
fn write(text: &str) -> Outcome {
    let doc = fs::read_to_string(DOC)?;
    let (Some((before, _)), Some((_, after))) = (doc.split_once(BEGIN), doc.split_once(END)) else {
        return Err("docs/benchmarks.md lacks the marks".into());
    };
    Ok(fs::write(DOC, format!("{before}{BEGIN}\n{text}\n{END}{after}"))?)
}

/// How much of it.
struct Size {
    /// Rows are divided by this.
    rows: u64,
    rounds: usize,
}

/// Where the contenders' programs are.
struct Tools {
    python: Option<PathBuf>,
    tap: Option<PathBuf>,
    /// A folder with `node_modules`.
    node: Option<PathBuf>,
    versions: String,
}

impl Tools {
    fn install() -> Outcome<Self> {
        let program = std::env::current_exe()?;
        // target/release/deps/peers-…
        let target = program.ancestors().nth(3).ok_or("no target folder")?.join("bench-peers");
        fs::create_dir_all(&target)?;
        let python = virtual_environment(&target.join("python"), PYTHON_CLIENT)?;
        let tap = virtual_environment(&target.join("tap"), TAP)?;
        let node = node_modules(&target.join("node"))?;
        let version = |program: &str| {
            let output = Command::new(program).arg("--version").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').replace("Python ", ""))
        };
        let versions = format!(
            "Python {} with {PYTHON_CLIENT} and {TAP}; Node {} with {}",
            version("python3").unwrap_or_default(),
            version("node").unwrap_or_default(),
            NODE_CLIENT.join(" and ")
        );
        Ok(Self { python, tap, node, versions })
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

/// What is there already is taken.
fn once(folder: &Path, what: &str, make: impl FnOnce() -> bool) -> Outcome<bool> {
    let complete = folder.join("complete");
    if fs::read_to_string(&complete).is_ok_and(|found| found == what) {
        return Ok(true);
    }
    if !make() {
        println!("!!!!!!!! SKIPPED: {what} is not here and could not be installed");
        return Ok(false);
    }
    fs::write(complete, what)?;
    Ok(true)
}

/// A Python that has this package.
fn virtual_environment(folder: &Path, package: &str) -> Outcome<Option<PathBuf>> {
    let python = folder.join("bin/python");
    let make = || {
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package];
        succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
            && succeeds(Command::new("timeout").arg(INSTALL_MAX_SECONDS).arg(&python).args(install))
    };
    Ok(once(folder, package, make)?.then_some(python))
}

fn node_modules(folder: &Path) -> Outcome<Option<PathBuf>> {
    fs::create_dir_all(folder)?;
    let make = || {
        let install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--prefix"];
        let mut command = Command::new("timeout");
        command.arg(INSTALL_MAX_SECONDS).args(install).arg(folder).args(NODE_CLIENT);
        succeeds(&mut command)
    };
    Ok(once(folder, &NODE_CLIENT.join(" "), make)?.then(|| folder.to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Hubferry,
    Python,
    Node,
    OneByOne,
    Tap,
}

impl Who {
    const WRITERS: [Self; 4] = [Self::Hubferry, Self::Python, Self::Node, Self::OneByOne];
    const READERS: [Self; 3] = [Self::Hubferry, Self::Python, Self::Tap];

    fn name(self, reads: bool) -> &'static str {
        match (self, reads) {
            (Self::Hubferry, false) => "`hubferry import`",
            (Self::Hubferry, true) => "`hubferry capture`",
            (Self::Python, false) => "Python client, batches of 100 (`batching.py`)",
            (Self::Python, true) => "Python client, page after page (`reading.py`)",
            (Self::Node, _) => "Node client, batches of 100 (`batching.mjs`)",
            (Self::OneByOne, _) => "Python client, look up, then create or update (`one_by_one.py`)",
            (Self::Tap, _) => "meltano-tap-hubspot, contacts only (`tap.py`)",
        }
    }

    fn is_here(self, tools: &Tools) -> bool {
        match self {
            Self::Hubferry => true,
            Self::Python | Self::OneByOne => tools.python.is_some(),
            Self::Node => tools.node.is_some(),
            Self::Tap => tools.tap.is_some(),
        }
    }

    /// Writes `folder/contacts.csv` into the account.
    fn writes(self, tools: &Tools, folder: &Path, address: &str) -> Outcome<Command> {
        let file = folder.join("contacts.csv");
        let script = |name: &str| Path::new(SCRIPTS).join(name);
        let python = || tools.python.as_ref().ok_or("no Python");
        let mut command = match self {
            Self::Hubferry => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry"));
                command.arg("import").arg(file).args(["--as", "contacts", "--local", "--json", "--config"]);
                command.arg(folder.join("hubferry.yaml")).env("HUBSPOT_ACCESS_TOKEN", PortalSettings::TOKEN);
                return Ok(command);
            }
            Self::Python => with(Command::new(python()?), &script("batching.py")),
            Self::OneByOne => with(Command::new(python()?), &script("one_by_one.py")),
            Self::Node => {
                let mut command = with(Command::new("node"), &script("batching.mjs"));
                command.current_dir(tools.node.as_ref().ok_or("no Node")?);
                command
            }
            Self::Tap => return Err("the tap only reads".into()),
        };
        command.arg(file).arg(address).arg(PortalSettings::TOKEN);
        Ok(command)
    }

    /// Reads the account's contacts into `folder`.
    fn reads(self, tools: &Tools, folder: &Path, address: &str) -> Outcome<Command> {
        let mut command = match self {
            Self::Hubferry => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry"));
                command
                    .args(["capture", "contacts", "--local", "--json", "--config"])
                    .arg(folder.join("hubferry.yaml"));
                command.env("HUBSPOT_ACCESS_TOKEN", PortalSettings::TOKEN);
                return Ok(command);
            }
            Self::Python => {
                let python = tools.python.as_ref().ok_or("no Python")?;
                let mut command = with(Command::new(python), &Path::new(SCRIPTS).join("reading.py"));
                command.arg(folder.join("contacts.jsonl"));
                command
            }
            Self::Tap => with(Command::new(tools.tap.as_ref().ok_or("no tap")?), &Path::new(SCRIPTS).join("tap.py")),
            Self::Node | Self::OneByOne => return Err("it only writes".into()),
        };
        command.arg(address).arg(PortalSettings::TOKEN);
        if self == Self::Python {
            command.args(rows::PROPERTIES);
        }
        Ok(command)
    }
}

fn with(mut command: Command, script: &Path) -> Command {
    command.arg(script);
    command
}

/// A simulated account, served over loopback until this ends, and a folder with the contender's files.
struct Account {
    portal: server::Shared,
    address: String,
    folder: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl Account {
    async fn open(mut settings: PortalSettings) -> Outcome<Self> {
        settings.properties.insert("contacts".to_owned(), rows::properties());
        // hubferry is told the account's limit, as it would be of a larger one than HubSpot's usual.
        let limits = if settings.limits.burst.is_some() { "{}" } else { "{ burst: 4000 }" };
        let portal: server::Shared = Arc::new(Mutex::new(Portal::new(settings)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let mut serving = JoinSet::new();
        let served = Arc::clone(&portal);
        serving.spawn(async move {
            let _ = server::serve(listener, served, server::machine_clock).await;
        });
        let folder = tempfile::tempdir()?;
        let columns = rows::COLUMNS.replace('\n', " ");
        let properties = rows::PROPERTIES.join(", ");
        let config = format!(
            "version: 1\nhubspot:\n  default: {{ secret: hubferry/hubspot, base_url: \"{address}\", limits: {limits} }}\n\
             imports:\n  - {{ name: contacts, match: \"*.csv\", object: contacts, key: email, columns: {columns} }}\n\
             captures:\n  - {{ name: contacts, resource: crm.contacts, output: s3://crm/captures/, extra_properties: [{properties}] }}\n"
        );
        fs::write(folder.path().join("hubferry.yaml"), config)?;
        Ok(Self { portal, address, folder, _serving: serving })
    }

    fn portal(&self) -> MutexGuard<'_, Portal> {
        self.portal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process took.
struct Usage {
    seconds: f64,
    cpu: f64,
    peak_mb: f64,
    /// It ended by itself, and well.
    is_well: bool,
    stdout: String,
    stderr: String,
}

/// Runs a process to its end.
async fn run(mut command: Command, folder: &Path) -> Outcome<Usage> {
    let (out, told) = (folder.join("stdout"), folder.join("stderr"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "HUBFERRY_CONFIG", "HUBFERRY_TABLE"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(fs::File::create(&out)?).stderr(fs::File::create(&told)?);
    let watch = Watch::start();
    let mut child = command.spawn()?;
    let id = child.id().to_string();
    let mut peak_mb: f64 = 0.0;
    // It is not waited for before its last figures were read: then they are gone.
    while !machine::has_ended(&id)? {
        if let Ok((_, peak)) = machine::memory_mb(&id) {
            peak_mb = peak_mb.max(peak);
        }
        if watch.elapsed() > RUN_MAX {
            child.kill()?;
        }
        pause(LOOK_EVERY).await;
    }
    let (seconds, cpu) = (watch.elapsed().as_secs_f64(), machine::cpu_seconds(&id)?);
    let is_well = child.wait()?.success();
    let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // The tap's messages are its output: long, and counted apart.
    Ok(Usage { seconds, cpu, peak_mb, is_well, stdout: read(&out)?, stderr: read(&told)? })
}

#[expect(clippy::disallowed_methods, reason = "processes live in real time")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// One contender's work once.
struct Figures {
    rows: u64,
    seconds: f64,
    cpu: f64,
    peak_mb: f64,
    calls: u64,
    throttled: u64,
    /// Good rows that HubSpot has.
    delivered: u64,
    /// Rows that the contender reports as failed.
    reported: u64,
    /// Rows that HubSpot has not and that nobody reports.
    lost: u64,
    /// Records beyond one for each address.
    doubles: u64,
    is_well: bool,
}

/// The properties that are compared with the file's cells as they stand.
const COMPARED: [(usize, &str); 4] = [(0, "email"), (1, "firstname"), (2, "lastname"), (3, "phone")];

async fn write_once(who: Who, tools: &Tools, settings: PortalSettings, file: &str) -> Outcome<Figures> {
    let account = Account::open(settings).await?;
    fs::write(account.folder.path().join("contacts.csv"), file)?;
    let usage = run(who.writes(tools, account.folder.path(), &account.address)?, account.folder.path()).await?;
    let told: Value = usage.stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    if !usage.is_well && who == Who::Hubferry && told.is_null() {
        return Err(format!("hubferry: {}", usage.stderr).into());
    }
    let portal = account.portal();
    let mut records = HashMap::new();
    let mut doubles = 0;
    for record in portal.records("contacts") {
        let email = record.get("email").cloned().unwrap_or_default();
        doubles += u64::from(records.insert(email, record).is_some());
    }
    let mut missing: HashSet<String> = HashSet::new();
    let (mut count, mut delivered) = (0, 0);
    for line in file.lines().skip(1) {
        count += 1;
        let cells: Vec<&str> = line.splitn(5, ',').collect();
        let email = cells.first().copied().unwrap_or_default();
        let is_there = records.get(email).is_some_and(|record| {
            COMPARED.iter().all(|(at, name)| record.get(*name).map(String::as_str) == cells.get(*at).copied())
        });
        if is_there {
            delivered += 1;
        } else {
            missing.insert(email.to_owned());
        }
    }
    let (reported, lost) = match who {
        Who::Hubferry => {
            let count = |name: &str| told["rows"][name].as_u64().unwrap_or_default();
            let reported = count("rejected") + count("deferred");
            (reported, (missing.len() as u64).saturating_sub(reported))
        }
        _ => {
            let failed: HashSet<&str> =
                told["failed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            (failed.len() as u64, missing.iter().filter(|email| !failed.contains(email.as_str())).count() as u64)
        }
    };
    let counts = portal.counts();
    Ok(Figures {
        rows: count,
        seconds: usage.seconds,
        cpu: usage.cpu,
        peak_mb: usage.peak_mb,
        calls: counts.requests,
        throttled: counts.throttled,
        delivered,
        reported,
        lost,
        doubles,
        is_well: usage.is_well || !told.is_null(),
    })
}

async fn read_once(who: Who, tools: &Tools, settings: PortalSettings, count: u64) -> Outcome<Figures> {
    let account = Account::open(settings).await?;
    let then = server::machine_clock() - AGE;
    account.portal().seed_many(then, "contacts", (0..count).map(rows::record));
    let usage = run(who.reads(tools, account.folder.path(), &account.address)?, account.folder.path()).await?;
    let delivered = match who {
        Who::Tap => usage.stdout.lines().filter(|line| line.contains("\"type\":\"RECORD\"")).count() as u64,
        _ => {
            let last = usage.stdout.lines().last().unwrap_or_default();
            let told: Value = serde_json::from_str(last).unwrap_or_default();
            told["written"].as_u64().or_else(|| told["capture"]["changes"]["snapshot"].as_u64()).unwrap_or_default()
        }
    };
    if !usage.is_well {
        println!("{}: {}", who.name(true), usage.stderr.lines().last().unwrap_or_default());
    }
    let counts = account.portal().counts();
    Ok(Figures {
        rows: count,
        seconds: usage.seconds,
        cpu: usage.cpu,
        peak_mb: usage.peak_mb,
        calls: counts.requests,
        throttled: counts.throttled,
        delivered,
        reported: 0,
        lost: count.saturating_sub(delivered),
        doubles: 0,
        is_well: usage.is_well,
    })
}

/// A contender with all its rounds.
type Results = Vec<(Who, Vec<Figures>)>;

/// The middle of the rounds.
fn middle(rounds: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    median(&rounds.iter().map(figure).collect::<Vec<_>>())
}

fn sum(rounds: &[Figures], figure: impl Fn(&Figures) -> u64) -> u64 {
    rounds.iter().map(figure).sum()
}

async fn compare(tools: &Tools, size: &Size) -> Outcome<String> {
    let mut text = String::new();
    let rounds = size.rounds;
    writeln!(
        text,
        "{}. {}. Medians of {rounds} rounds; × is the ratio to hubferry.\n",
        machine::describe(),
        tools.versions
    )?;

    let few = |who: Who, all: u64, few: u64| if who == Who::OneByOne { few / size.rows } else { all / size.rows };
    let writers: Vec<Who> = Who::WRITERS.into_iter().filter(|who| who.is_here(tools)).collect();
    let readers: Vec<Who> = Who::READERS.into_iter().filter(|who| who.is_here(tools)).collect();

    println!("writing, no limit, no latency");
    let mut results = none(&writers);
    for _ in 0..rounds {
        for (who, rounds) in &mut results {
            let file = file(few(*who, 20_000, 1_000), false);
            rounds.push(write_once(*who, tools, PortalSettings::unlimited(), &file).await?);
        }
    }
    text.push_str("**Writing, no limit and no latency**, one after the other.\n\n");
    speed(&mut text, &results, false)?;

    println!("writing, 190 calls in 10 s");
    let mut results = none(&writers);
    for round in 0..rounds {
        side_by_side(&mut results, async |who| {
            let file = file(few(who, 9_500, 100), false);
            write_once(who, tools, paced(LATENCY_MS, round), &file).await
        })
        .await?;
    }
    writeln!(
        text,
        "**Writing, 190 calls in 10 s, {LATENCY_MS} ms a call**, side by side, each in an account of its own.\n"
    )?;
    speed(&mut text, &results, false)?;

    println!("writing under faults");
    let mut results = none(&writers);
    for round in 0..rounds {
        side_by_side(&mut results, async |who| {
            let file = file(few(who, 10_000, 200), false);
            let mut settings = paced(FAULTY_LATENCY_MS, round);
            settings.faults = Faults::five_percent(round as u64);
            write_once(who, tools, settings, &file).await
        })
        .await?;
    }
    writeln!(
        text,
        "**Writing while 5 % of the calls fail**: 423, 429, 477, 5xx, pages of a gateway, answers lost or cut after HubSpot had committed, \
         connections cut before it had, empty answers. 190 calls in 10 s, {FAULTY_LATENCY_MS} ms a call, side by side; sums of the rounds.\n"
    )?;
    losses(&mut text, &results)?;

    println!("writing with bad rows");
    let mut results = none(&writers);
    for (who, rounds) in &mut results {
        let file = file(few(*who, 10_000, 1_000), true);
        rounds.push(write_once(*who, tools, PortalSettings::unlimited(), &file).await?);
    }
    writeln!(
        text,
        "**Writing a file of which one row in {BAD_EVERY} has an address that HubSpot does not take**, no faults; one round.\n"
    )?;
    losses(&mut text, &results)?;

    println!("reading, no limit, no latency");
    let mut results = none(&readers);
    for _ in 0..rounds {
        for (who, rounds) in &mut results {
            rounds.push(read_once(*who, tools, PortalSettings::unlimited(), 20_000 / size.rows).await?);
        }
    }
    text.push_str("**Reading all contacts, no limit and no latency**, one after the other.\n\n");
    speed(&mut text, &results, true)?;

    println!("reading, 190 calls in 10 s");
    let mut results = none(&readers);
    for round in 0..rounds {
        side_by_side(&mut results, async |who| {
            read_once(who, tools, paced(LATENCY_MS, round), 9_500 / size.rows).await
        })
        .await?;
    }
    writeln!(text, "**Reading, 190 calls in 10 s, {LATENCY_MS} ms a call**, side by side.\n")?;
    speed(&mut text, &results, true)?;
    Ok(text.trim_end().to_owned())
}

fn none(contenders: &[Who]) -> Results {
    contenders.iter().map(|who| (*who, Vec::new())).collect()
}

/// One round of all contenders at once: they mostly wait.
async fn side_by_side(results: &mut Results, once: impl AsyncFn(Who) -> Outcome<Figures>) -> Outcome {
    let contenders: Vec<Who> = results.iter().map(|(who, _)| *who).collect();
    let mut all = Vec::with_capacity(contenders.len());
    for who in contenders {
        all.push(once(who));
    }
    let all = futures_util::future::join_all(all).await;
    for ((_, rounds), result) in results.iter_mut().zip(all) {
        rounds.push(result?);
    }
    Ok(())
}

fn paced(latency_ms: u64, round: usize) -> PortalSettings {
    let mut settings = PortalSettings { seed: round as u64 + 1, ..PortalSettings::default() };
    settings.latency.fixed_ms = latency_ms;
    settings
}

/// So many rows; some of them with an address that HubSpot does not take.
fn file(count: u64, bad: bool) -> String {
    let file = String::from_utf8(rows::file(0..count, |_| false)).unwrap_or_default();
    if !bad {
        return file;
    }
    let mut out = String::with_capacity(file.len());
    for (at, line) in (0_u64..).zip(file.lines()) {
        match line.split_once("@example.com") {
            // No dot, no domain: nothing that only HubSpot's own list of endings would tell.
            Some((name, rest)) if at % BAD_EVERY == 17 => out.push_str(&format!("{name}@example{rest}\n")),
            _ => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

/// Time, calls, CPU and memory.
fn speed(text: &mut String, results: &Results, reads: bool) -> Outcome {
    let unit = if reads { "records" } else { "rows" };
    writeln!(
        text,
        "| | {unit} | {unit}/s | × | calls for 1,000 {unit} | 429s | CPU s for a million | × | peak MB | not delivered |"
    )?;
    text.push_str("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    let pace = |rounds: &[Figures]| middle(rounds, |one| one.rows as f64 / one.seconds);
    let cpu = |rounds: &[Figures]| middle(rounds, |one| one.cpu * 1e6 / one.rows as f64);
    let Some((_, first)) = results.first() else { return Ok(()) };
    let (our_pace, our_cpu) = (pace(first), cpu(first));
    for (who, rounds) in results {
        writeln!(
            text,
            "| {}{} | {} | {} | {} | {:.1} | {} | {:.1} | {} | {:.0} | {} |",
            who.name(reads),
            if rounds.iter().all(|one| one.is_well) { "" } else { ": failed" },
            thousands(middle(rounds, |one| one.rows as f64)),
            thousands(pace(rounds)),
            ratio(our_pace / pace(rounds)),
            middle(rounds, |one| one.calls as f64 * 1e3 / one.rows as f64),
            sum(rounds, |one| one.throttled),
            cpu(rounds),
            ratio(cpu(rounds) / our_cpu),
            middle(rounds, |one| one.peak_mb),
            sum(rounds, |one| one.rows - one.delivered.min(one.rows)),
        )?;
    }
    text.push('\n');
    Ok(())
}

/// What became of the rows.
fn losses(text: &mut String, results: &Results) -> Outcome {
    text.push_str("| | rows | in HubSpot | reported as failed | lost | twice | calls for 1,000 rows | rows/s |\n");
    text.push_str("|---|---:|---:|---:|---:|---:|---:|---:|\n");
    for (who, rounds) in results {
        writeln!(
            text,
            "| {}{} | {} | {} | {} | {} | {} | {:.1} | {} |",
            who.name(false),
            if rounds.iter().all(|one| one.is_well) { "" } else { ": failed" },
            thousands(sum(rounds, |one| one.rows) as f64),
            thousands(sum(rounds, |one| one.delivered) as f64),
            sum(rounds, |one| one.reported),
            sum(rounds, |one| one.lost),
            sum(rounds, |one| one.doubles),
            middle(rounds, |one| one.calls as f64 * 1e3 / one.rows as f64),
            thousands(middle(rounds, |one| one.rows as f64 / one.seconds)),
        )?;
    }
    text.push('\n');
    Ok(())
}

fn ratio(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// A count with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
