//! `hubferry demo`: the whole way of a file, in one process, with nothing but this binary. The function is the real one: the
//! same handler as on Lambda polls a Runtime API on loopback and talks to its services through the real SDK clients.

pub(crate) mod file;
mod show;
pub(crate) mod world;

use std::{collections::BTreeSet, convert::Infallible, fs, path::Path, rc::Rc, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use hubferry::{
    app,
    aws::{self, Clients},
    clock::{Clock as _, SystemClock},
    config::Environment,
    logging,
    objects::{Location, Objects as _, s3::S3},
    report::{Outcome, Report},
};
use hubferry_simulator::{aws::Service, hubspot::Counts};
use serde_json::{Value, json};

use self::{
    file::File,
    show::{Progress, Screen, Style},
    world::{BUCKET, BY_HAND_KEY, CONFIG_KEY, KEY, Ports, World},
};
use crate::{DONE, FAILED, local, text};

/// How often the bucket is asked whether the report is there.
const POLL: Duration = Duration::from_millis(50);
/// How often the bucket is asked for new reports while everything stays up.
const WATCH: Duration = Duration::from_millis(250);
/// A run of the demo takes seconds; longer than this, and for each row, something is wrong.
const RUN_MAX: Duration = Duration::from_secs(120);
/// Ten times what the limit allows, per row.
const ROW_MAX: Duration = Duration::from_millis(6);
/// The second file, for an event by hand.
const BY_HAND_ROWS: u32 = file::ROWS_MIN;
/// Names of the files in the demo's folder.
const LOG_FILE: &str = "function.log";

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Rows of the CSV.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(i64::from(file::ROWS_MIN)..=i64::from(file::ROWS_MAX)))]
    rows: u32,
    /// Leave everything up until Ctrl-C, and say how to use it.
    #[arg(long)]
    keep: bool,
    /// Print one line of JSON: the report, the second answer, counts and files; with --keep, endpoints and environment.
    #[arg(long)]
    json: bool,
    /// The same seed makes the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Show the function's log on standard error, instead of writing it to a file.
    #[arg(long)]
    verbose: bool,
}

/// Runs it; returns the exit code. Call it while the process has one thread: it sets the environment.
pub(crate) fn run(options: Options, terminal: bool) -> Result<u8> {
    let ports = Ports::bind()?;
    let folder = local::folder("demo")?;
    ports.enter(&folder)?;
    // From here on there may be threads.
    let variables = ports.environment();
    let environment = Environment::read();
    let filter = environment.log_filter.clone();
    if options.verbose {
        logging::start(logging::Format::Plain, filter.as_deref());
    } else {
        logging::start_in(fs::File::create(folder.join(LOG_FILE))?, filter.as_deref());
    }
    let hubspot_url = ports.hubspot_url.clone();
    let made = File::generate(options.rows, options.seed);
    let world = World::start(ports, options.seed)?;
    world.seed(&made.known, &made.blocked);
    let style = if options.json { Style::Silent } else { Style::detect(terminal) };
    let screen = Screen::new(style);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let demo = Demo { options, made, world, screen, folder, hubspot_url, variables };
    let code = runtime.block_on(async {
        let progress = Rc::new(Progress::new(u64::from(demo.options.rows), style, demo.options.verbose));
        let watcher = progress.clone();
        let function =
            Box::pin(app::serve_lambda(environment, Some(Rc::new(move |update: &_| watcher.update(update)))));
        tokio::select! {
            served = function => match served {
                Ok(()) => Err(anyhow!("the function stopped")),
                Err(error) => Err(anyhow!("the function stopped: {error}")),
            },
            code = Box::pin(demo.play(&progress)) => code,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                progress.clear();
                demo.screen.line("")?;
                Ok(if demo.options.keep { DONE } else { FAILED })
            }
        }
    });
    if code.is_err() && !demo.options.verbose {
        return code.with_context(|| format!("the function's log is {}", demo.folder.join(LOG_FILE).display()));
    }
    code
}

struct Demo {
    options: Options,
    made: File,
    world: World,
    screen: Screen,
    folder: std::path::PathBuf,
    hubspot_url: String,
    variables: Vec<(String, String)>,
}

/// Both deliveries of the file's event.
struct Played {
    report: Report,
    rejects: String,
    /// Calls and writes of the account, before, between and after.
    counts: [Counts; 3],
    again: Report,
}

impl Demo {
    async fn play(&self, progress: &Progress) -> Result<u8> {
        let clock = SystemClock::new();
        self.screen.opening(&self.hubspot_url, self.world.portal().record_count("contacts"))?;
        let files = S3::new(Clients::new(&aws::load().await).s3);
        put(&files, CONFIG_KEY, world::config(&self.hubspot_url).into(), "application/yaml").await?;
        self.save("contacts.csv", &self.made.bytes)?;

        let before = self.world.hubspot_counts();
        self.screen.uploading(&format!("s3://{BUCKET}/{KEY}"), self.options.rows, self.made.bytes.len())?;
        progress.start();
        put(&files, KEY, self.made.bytes.clone().into(), "text/csv").await?;
        let (report, text) = self.report(&clock).await?;
        progress.finish(&report);
        let between = self.world.hubspot_counts();
        self.save("report.json", text.as_bytes())?;
        self.screen.report(&report)?;

        let mut rejects = String::new();
        if let Some(location) = report.rejects.as_deref().and_then(Location::parse) {
            let bytes = self.world.cloud.s3().read(&location.bucket, &location.key).unwrap_or_default();
            rejects = String::from_utf8(bytes.to_vec()).context("the rejects file is not UTF-8")?;
            self.save("rejects.csv", rejects.as_bytes())?;
            self.screen.rejects(&rejects, &report)?;
        }
        self.screen.records(&self.made, |email| self.world.portal().find_by("contacts", "email", email))?;

        self.screen.delivering_again()?;
        let answer = self.world.deliver_again(self.world.archived_event()?).await?;
        let again = answer.pointer("/answers/0").cloned().context("the second delivery has no answer")?;
        let again: Report = serde_json::from_value(again).context("the second answer is no report")?;
        let after = self.world.hubspot_counts();
        self.screen.again(&again, after.requests - between.requests, writes(after) - writes(between))?;

        let played = Played { report, rejects, counts: [before, between, after], again };
        let good = played.is_good();
        if !good {
            self.screen.line("This is not as it should be.")?;
        }
        if self.options.keep {
            self.keep(&files, &played).await?;
            self.watch(&clock).await?;
        }
        if self.options.json {
            text::json_line(&self.result(&played))?;
        } else {
            self.screen.next(&self.folder, self.options.verbose)?;
        }
        Ok(if good { DONE } else { FAILED })
    }

    /// Waits for the report in the bucket.
    async fn report(&self, clock: &SystemClock) -> Result<(Report, String)> {
        let most = RUN_MAX + ROW_MAX * self.options.rows;
        let started = clock.elapsed();
        loop {
            let keys = self.world.cloud.s3().keys(BUCKET, "reports/import/contacts/");
            if let Some(bytes) = keys.first().and_then(|key| self.world.cloud.s3().read(BUCKET, key)) {
                let text = String::from_utf8(bytes.to_vec()).context("the report is not UTF-8")?;
                return Ok((serde_json::from_str(&text).context("the report cannot be read")?, text));
            }
            if clock.elapsed().saturating_sub(started) > most {
                bail!("no report after {} s", most.as_secs());
            }
            clock.sleep(POLL).await;
        }
    }

    /// Says how to use what is left up.
    async fn keep(&self, files: &S3, played: &Played) -> Result<()> {
        let by_hand = File::generate(BY_HAND_ROWS, self.options.seed.wrapping_add(1));
        put(files, BY_HAND_KEY, by_hand.bytes.into(), "text/csv").await?;
        let event = json!({ "job": "import", "bucket": BUCKET, "key": BY_HAND_KEY });
        self.save("event.json", format!("{event:#}\n").as_bytes())?;
        self.save("environment.sh", local::exports(&self.variables).as_bytes())?;
        let invoke = local::invoke_url(&self.world.cloud.addresses());
        if self.options.json {
            let mut result = self.result(played);
            let of = |service| self.world.cloud.addresses().url(service);
            result["ready"] = true.into();
            result["endpoints"] = json!({
                "hubspot": self.hubspot_url, "s3": of(Service::S3), "dynamodb": of(Service::DynamoDb),
                "secretsmanager": of(Service::SecretsManager), "sqs": of(Service::Sqs), "invoke": invoke,
            });
            result["environment"] =
                self.variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            result["event"] = self.folder.join("event.json").display().to_string().into();
            text::json_line(&result)?;
        } else {
            self.screen.kept(&self.folder, &self.hubspot_url, &invoke)?;
        }
        Ok(())
    }

    /// Tells of each run that ends, until Ctrl-C drops it.
    async fn watch(&self, clock: &SystemClock) -> Result<Infallible> {
        let mut told: BTreeSet<String> = self.world.cloud.s3().keys(BUCKET, "reports/").into_iter().collect();
        loop {
            clock.sleep(WATCH).await;
            for key in self.world.cloud.s3().keys(BUCKET, "reports/") {
                if told.contains(&key) {
                    continue;
                }
                if let Some(bytes) = self.world.cloud.s3().read(BUCKET, &key) {
                    self.screen.ended(&key, &serde_json::from_slice(&bytes).context("a report cannot be read")?)?;
                    told.insert(key);
                }
            }
        }
    }

    fn result(&self, played: &Played) -> Value {
        let [before, between, after] = played.counts;
        json!({
            "report": played.report,
            "again": played.again,
            "hubspot": {
                "contacts": self.world.portal().record_count("contacts"),
                "calls": between.requests - before.requests,
                "calls_again": after.requests - between.requests,
                "writes_again": writes(after) - writes(between),
                "throttled": after.throttled,
            },
            "rejects": played.rejects.lines().count().saturating_sub(1),
            "folder": self.folder.display().to_string(),
        })
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("{} cannot be written", path.display()))
    }
}

impl Played {
    /// Whether both deliveries ended as they must.
    fn is_good(&self) -> bool {
        let [_, between, after] = self.counts;
        self.report.outcome == Outcome::Done
            && self.report.rows.add_up()
            && self.again.outcome == Outcome::Duplicate
            && writes(after) == writes(between)
    }
}

fn writes(counts: Counts) -> u64 {
    counts.created + counts.updated + counts.archived
}

async fn put(files: &S3, key: &str, bytes: Bytes, content_type: &str) -> Result<()> {
    files.put(&Location::new(BUCKET, key), bytes, content_type).await.with_context(|| format!("uploading {key}"))
}

/// A path as it is typed in a shell.
fn typed(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains([' ', '\'', '"', '$', '\\']) { format!("'{}'", text.replace('\'', "'\\''")) } else { text }
}
