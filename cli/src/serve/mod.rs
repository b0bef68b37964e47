//! `hubferry serve`: the local cloud, kept running. The function is the real one, as in `demo`; around it are simulated accounts, the embedded AWS, a
//! watched folder and a page.

mod board;
mod forms;
mod http;
mod inbox;
mod page;
mod review;
mod settings;
mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use hubferry::{
    app::{self, Update, Watcher},
    clock::Rng,
    config::Environment,
    logging,
};
use hubferry_simulator::aws::{Bodies, Service, Tables};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use self::stage::{INSTANCES, Ports, Services, Stage, Wishes};
use crate::{DONE, local, text};

/// The bucket for uploads.
const BUCKET: &str = "hubferry-local";
/// Where hubferry.yaml is.
const CONFIG_KEY: &str = "config/hubferry.yaml";
/// The queue that feeds the function.
const QUEUE: &str = "hubferry-import";
const TABLE: &str = "hubferry";
const LOG_FILE: &str = "function.log";

/// What the user asks for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Settings; read again when they change. Their accounts are simulated, whatever addresses they name [default: settings that show imports, a
    /// capture and a sync].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The page's port; 0 is any free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Keep everything in this folder, and go on with it at the next start [default: begin afresh].
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// The watched folder; a file's path below it is its key [default: `drop` in the folder of --state, else a temporary one].
    #[arg(long = "drop", value_name = "FOLDER")]
    inbox: Option<PathBuf>,
    /// Seconds between two captures, and between two syncs; 0: only on request.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    every: u64,
    /// Milliseconds that the simulated HubSpot takes for an answer, and as many more by chance.
    #[arg(long, value_name = "MS", default_value_t = 150, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    latency: u64,
    /// Begin without any record in the simulated accounts.
    #[arg(long)]
    empty: bool,
    /// The same seed makes the same records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one line of JSON when it is up: the page's address, endpoints and environment.
    #[arg(long)]
    json: bool,
    /// Show the function's log on standard error, instead of writing it to a file.
    #[arg(long)]
    verbose: bool,
}

/// Runs it until Ctrl-C; returns the exit code. Call it while the process has one thread: it sets the environment.
pub(crate) fn run(options: &Options) -> Result<u8> {
    text::and_json(options.json, work(options))
}

fn work(options: &Options) -> Result<u8> {
    let (accounts, orgs) = settings::names(options.config.as_deref())?;
    let ports = Ports::bind(options.port, &accounts, &orgs)?;
    let home = Home::open(options.state.as_deref())?;
    let variables = ports.environment();
    local::enter(&home.folder, &variables, &ports.addresses, "serve")?;
    // From here on there may be threads.
    let environment = Environment::read();
    let filter = environment.log_filter.as_deref();
    if options.verbose {
        logging::start(logging::Format::Plain, filter);
    } else {
        let log = fs::OpenOptions::new().create(true).append(true).open(home.folder.join(LOG_FILE))?;
        logging::start_in(log, filter);
    }
    let settings = settings::settings(options.config.as_deref(), &ports.places)?;
    let inbox = options.inbox.clone().unwrap_or_else(|| home.folder.join("drop"));
    inbox::prepare(&inbox, &settings).with_context(|| format!("{} cannot be made", inbox.display()))?;
    let inbox = inbox.canonicalize().with_context(|| format!("{} cannot be found", inbox.display()))?;
    let wishes = Wishes {
        seed: options.seed,
        latency_ms: (options.latency, options.latency),
        every: Some(Duration::from_secs(options.every)).filter(|every| !every.is_zero()),
        furnished: options.config.is_none() && !options.empty,
        bodies: home.bodies(),
        tables: home.tables(),
        state: home.is_kept().then(|| home.folder.clone()),
    };
    let (services, listener) = Services::start(ports, settings, wishes, token(), shown(&inbox))?;
    let stage = Arc::clone(&services.stage);
    fs::write(home.folder.join("environment.sh"), local::exports(&variables))?;

    let (stop_page, stopped) = oneshot::channel();
    let served = Arc::clone(&stage);
    let page =
        std::thread::Builder::new().name("page".to_owned()).spawn(move || http::serve(listener, served, stopped))?;
    let (stop_inbox, inbox_stopped) = mpsc::channel();
    let (watched, config, folder) = (Arc::clone(&stage), options.config.clone(), inbox.clone());
    let inbox_thread = std::thread::Builder::new()
        .name("inbox".to_owned())
        .spawn(move || inbox::watch(&watched, &folder, config.as_deref(), &inbox_stopped))?;

    let result = serve(&environment, &stage, || tell(options, &stage, &home, &inbox, &variables));
    // Nobody listens only where it ended by itself.
    let _ = stop_page.send(());
    let _ = stop_inbox.send(());
    let page = page.join().map_err(|_| anyhow!("the page's thread died"));
    let _ = inbox_thread.join();
    let kept = stage.keep(true);
    drop(stage);
    drop(services);
    home.close();
    result.and(page?).and(kept).map(|()| DONE)
}

/// The function, in as many instances as work at once, and the clerk beside it, until somebody asks to stop. `tell` says that everything is up.
fn serve(environment: &Environment, stage: &Arc<Stage>, tell: impl FnOnce() -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Whoever is told may ask to stop at once.
        let mut stops = Stops::listen()?;
        tell()?;
        let function = || {
            let stage = Arc::clone(stage);
            let watcher: Watcher = Rc::new(move |update: &Update| stage.update(update));
            Box::pin(app::serve_lambda(environment.clone(), Some(watcher)))
        };
        let mut functions: Vec<_> = (0..INSTANCES).map(|_| function()).collect();
        let mut clerk = stage.take_tasks().map(|tasks| {
            let clerk = review::clerk(environment.clone(), Arc::clone(stage), tasks);
            Box::pin(clerk) as std::pin::Pin<Box<dyn Future<Output = ()>>>
        });
        let mut ended = std::pin::pin!(std::future::poll_fn(move |context| {
            // He goes when nobody can decide anything any more.
            if clerk.as_mut().is_some_and(|clerk| clerk.as_mut().poll(context).is_ready()) {
                clerk = None;
            }
            for function in &mut functions {
                if let std::task::Poll::Ready(served) = function.as_mut().poll(context) {
                    return std::task::Poll::Ready(served);
                }
            }
            std::task::Poll::Pending
        }));
        tokio::select! {
            served = &mut ended => match served {
                Ok(()) => Err(anyhow!("the function stopped")),
                Err(error) => Err(anyhow!("the function stopped: {error}")),
            },
            () = stops.asked() => Ok(()),
        }
    })
}

/// Ctrl-C, or a polite request to end.
#[cfg(unix)]
struct Stops(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Stops {
    /// Heard from now on.
    fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Stops;

#[cfg(not(unix))]
impl Stops {
    fn listen() -> Result<Self> {
        Ok(Self)
    }

    async fn asked(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // It cannot be heard: whoever wants to stop it ends the process.
            std::future::pending::<()>().await;
        }
    }
}

/// Says where everything is.
fn tell(options: &Options, stage: &Stage, home: &Home, inbox: &Path, variables: &[(String, String)]) -> Result<()> {
    let page = format!("http://{}/", stage.page_at);
    let addresses = stage.cloud.addresses();
    if options.json {
        let of = |service| addresses.url(service);
        return text::json_line(&json!({
            "ready": true,
            "page": page,
            "drop": inbox.display().to_string(),
            "state": home.is_kept().then(|| home.folder.display().to_string()),
            "endpoints": {
                "hubspot": stage.places.hubspot, "salesforce": stage.places.salesforce,
                "s3": of(Service::S3), "dynamodb": of(Service::DynamoDb), "secretsmanager": of(Service::SecretsManager),
                "sqs": of(Service::Sqs), "invoke": local::invoke_url(&addresses),
            },
            "bucket": BUCKET,
            "environment": variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect::<serde_json::Map<_, _>>(),
        }));
    }
    let mut lines = vec![
        "hubferry serve: a local cloud, until Ctrl-C. HubSpot, Salesforce and AWS are".to_owned(),
        "simulated here, on 127.0.0.1; the function is the real one.".to_owned(),
        String::new(),
        format!("  Page        {page}"),
    ];
    let settings = stage.settings();
    let first = settings.config.imports.first().map(|import| settings::folder(&import.pattern)).unwrap_or_default();
    lines.push(format!("  Folder      {}", inbox.join(first).display()));
    lines.push("              a file that is put there is imported".to_owned());
    for (name, url) in &stage.places.hubspot {
        lines.push(format!("  HubSpot     {url}  ({name})"));
    }
    for (name, url) in &stage.places.salesforce {
        lines.push(format!("  Salesforce  {url}  ({name})"));
    }
    lines.push(format!("  AWS         . {}", home.folder.join("environment.sh").display()));
    lines.push(format!("              aws s3 cp FILE.csv s3://{BUCKET}/{first}"));
    if !options.verbose {
        lines.push(format!("  Log         {}", home.folder.join(LOG_FILE).display()));
    }
    lines.push(match home.is_kept() {
        true => format!("  State       {}, kept", home.folder.display()),
        false => "  State       gone at the end; --state FOLDER keeps it".to_owned(),
    });
    lines.push(String::new());
    text::print(&lines.join("\n"))
}

/// What a form of the page has to bring: nobody can guess it.
fn token() -> String {
    let rng = Rng::from_system();
    format!("{:016x}{:016x}", rng.u64(), rng.u64())
}

/// A folder for people, with its `/`.
fn shown(folder: &Path) -> String {
    format!("{}/", folder.display())
}

/// Where a local cloud keeps its things.
struct Home {
    folder: PathBuf,
    /// Held as long as the folder is used; none where it is a temporary one.
    lock: Option<fs::File>,
}

impl Home {
    /// The folder of `--state`, which nobody else may use meanwhile, or a temporary one.
    fn open(state: Option<&Path>) -> Result<Self> {
        let Some(folder) = state else { return Ok(Self { folder: local::folder("serve")?, lock: None }) };
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let lock = fs::File::create(folder.join("lock"))?;
        lock.try_lock().with_context(|| format!("{} is used by another local cloud", folder.display()))?;
        Ok(Self { folder: folder.canonicalize()?, lock: Some(lock) })
    }

    fn is_kept(&self) -> bool {
        self.lock.is_some()
    }

    fn bodies(&self) -> Bodies {
        let folder = self.folder.join("s3");
        if self.is_kept() { Bodies::Kept(folder) } else { Bodies::Folder(folder) }
    }

    fn tables(&self) -> Tables {
        if self.is_kept() { Tables::File(self.folder.join("dynamodb.sqlite")) } else { Tables::Memory }
    }

    /// A temporary folder goes.
    fn close(self) {
        if !self.is_kept() {
            // What cannot be removed is in the temporary folder, which the system clears.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
