//! What the demo runs in: a simulated HubSpot account and the embedded AWS, on 127.0.0.1, in a thread of their own, so that
//! they do not take the function's time.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hubferry::config::environment::{HUBFERRY_CONFIG, HUBFERRY_QUEUE_URL, HUBFERRY_TABLE};
use hubferry_simulator::{
    aws::{Addresses, Cloud, CloudListeners, CloudSettings, Mapping, Rule, Service, Target, events::Shape},
    hubspot::{Counts, Portal, PortalSettings, PropertyDefinition, PropertyOption, server},
};
use tokio::sync::oneshot;

/// The bucket, as the sample events in `events/` name it.
pub(crate) const BUCKET: &str = "hubferry-demo";
/// Where the file goes, as the sample events name it. Uploads below this folder wake the function.
pub(crate) const KEY: &str = "incoming/contacts/contacts.csv";
/// Uploads under this prefix wake the function.
pub(crate) const WAKING_PREFIX: &str = "incoming/contacts/";
/// Where hubferry.yaml is.
pub(crate) const CONFIG_KEY: &str = "config/hubferry.yaml";
/// Wakes nobody: for an event that is sent by hand.
pub(crate) const BY_HAND_KEY: &str = "by-hand/contacts.csv";
/// The queue that feeds the function.
const QUEUE: &str = "hubferry-import";
/// Keeps a copy of each event, so that one can be delivered again.
const ARCHIVE: &str = "hubferry-archive";
const DEAD_LETTERS: &str = "hubferry-dead-letters";
const TABLE: &str = "hubferry";
const SECRET: &str = "hubferry/hubspot";
const FUNCTION: &str = "hubferry-lambda";
/// Longer than any demo run; a message whose invocation dies comes back after it.
const VISIBILITY: Duration = Duration::from_secs(300);
/// As the template gives.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(900);
const FUNCTION_MEMORY_MB: &str = "512";
/// As an answer over the Atlantic: 150 to 300 ms.
const LATENCY_MS: (u64, u64) = (150, 150);
/// As many temporary folders of one process as anybody needs.
const FOLDERS_MAX: u32 = 100;

/// Variables of the machine's own AWS and proxy set-up that would lead the demo's calls elsewhere.
const REMOVED: [&str; 10] = [
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "HTTP_PROXY",
    "http_proxy",
];

/// The ports, taken before anything runs, and what follows from them.
pub(crate) struct Ports {
    cloud: CloudListeners,
    hubspot: TcpListener,
    /// Where AWS is.
    pub(crate) addresses: Addresses,
    /// Where HubSpot is.
    pub(crate) hubspot_url: String,
}

impl Ports {
    /// Free ports on 127.0.0.1.
    pub(crate) fn bind() -> Result<Self> {
        let cloud = CloudListeners::bind()?;
        let addresses = cloud.addresses()?;
        let hubspot = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
        hubspot.set_nonblocking(true)?;
        let hubspot_url = format!("http://{}", hubspot.local_addr()?);
        Ok(Self { cloud, hubspot, addresses, hubspot_url })
    }

    /// What the function's process needs in its environment, the Runtime API aside.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut all = self.addresses.environment();
        all.retain(|(name, _)| name != "AWS_LAMBDA_RUNTIME_API");
        for (name, value) in [
            (HUBFERRY_CONFIG, format!("s3://{BUCKET}/{CONFIG_KEY}")),
            (HUBFERRY_TABLE, TABLE.to_owned()),
            (
                HUBFERRY_QUEUE_URL,
                format!("{}/{}/{QUEUE}", self.addresses.url(Service::Sqs), hubferry_simulator::aws::ACCOUNT),
            ),
        ] {
            all.push((name.to_owned(), value));
        }
        all
    }

    /// Makes this process the function's: what Lambda puts into the environment, and nothing of the machine's own AWS set-up.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn enter(&self, folder: &Path) -> Result<()> {
        let mut all = self.environment();
        let empty = folder.join("no-aws-settings");
        fs::write(&empty, "").with_context(|| format!("{} cannot be written", empty.display()))?;
        let empty = empty.display().to_string();
        for (name, value) in [
            ("AWS_LAMBDA_RUNTIME_API", self.addresses.of(Service::Lambda).to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", FUNCTION.to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", FUNCTION_MEMORY_MB.to_owned()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{FUNCTION}")),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "demo".to_owned()),
            ("AWS_CONFIG_FILE", empty.clone()),
            ("AWS_SHARED_CREDENTIALS_FILE", empty),
            ("NO_PROXY", "127.0.0.1".to_owned()),
            ("no_proxy", "127.0.0.1".to_owned()),
        ] {
            all.push((name.to_owned(), value));
        }
        set_environment(&all);
        Ok(())
    }
}

/// Call it before any thread or runtime exists, as `demo::run` does: it is the first thing after the arguments.
#[expect(
    unsafe_code,
    reason = "lambda_runtime and the AWS SDK take their settings from the environment and nowhere else"
)]
fn set_environment(variables: &[(String, String)]) {
    // SAFETY: the process has one thread, so nobody reads or writes the environment meanwhile.
    unsafe {
        for name in REMOVED {
            std::env::remove_var(name);
        }
        for (name, value) in variables {
            std::env::set_var(name, value);
        }
    }
}

/// A folder of the demo's own for the log, the file, the rejects and the report. It stays, to be looked at.
pub(crate) fn folder() -> Result<PathBuf> {
    let base = std::env::temp_dir();
    for attempt in 0..FOLDERS_MAX {
        let folder = base.join(format!("hubferry-demo-{}-{attempt}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("{} cannot be made", folder.display())),
        }
    }
    anyhow::bail!("{} holds {FOLDERS_MAX} demo folders of this process already", base.display())
}

/// The running services; they stop when it is dropped.
pub(crate) struct World {
    /// AWS.
    pub(crate) cloud: Arc<Cloud>,
    portal: Arc<Mutex<Portal>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    /// Starts everything at `ports`.
    pub(crate) fn start(ports: Ports, seed: u64) -> Result<Self> {
        let Ports { cloud, hubspot, addresses: _, hubspot_url: _ } = ports;
        let mut settings = PortalSettings { seed, ..PortalSettings::default() };
        (settings.latency.fixed_ms, settings.latency.jitter_ms) = LATENCY_MS;
        settings.properties.insert("contacts".to_owned(), properties());
        let portal = Arc::new(Mutex::new(Portal::new(settings)));
        let uploads = |queue: &str| Rule {
            bucket: BUCKET.to_owned(),
            prefix: WAKING_PREFIX.to_owned(),
            shape: Shape::EventBridge,
            target: Target::Queue(queue.to_owned()),
        };
        let settings = CloudSettings {
            listeners: Some(cloud),
            buckets: vec![BUCKET.to_owned()],
            table: Some(TABLE.to_owned()),
            queues: vec![
                (DEAD_LETTERS.to_owned(), VISIBILITY, None),
                (QUEUE.to_owned(), VISIBILITY, Some((DEAD_LETTERS.to_owned(), 5))),
                (ARCHIVE.to_owned(), VISIBILITY, None),
            ],
            rules: vec![uploads(QUEUE), uploads(ARCHIVE)],
            mappings: vec![Mapping { queue: QUEUE.to_owned(), maximum_concurrency: 2 }],
            function: FUNCTION.to_owned(),
            timeout: FUNCTION_TIMEOUT,
            seed,
            ..CloudSettings::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let served = Arc::clone(&portal);
        let thread = std::thread::Builder::new().name("services".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(hubspot);
                let cloud = Cloud::start(settings).map(Arc::new);
                let up = cloud.is_ok() && listener.is_ok();
                // Nobody listens only if the demo is over.
                let _ = ready.send(cloud.map_err(anyhow::Error::from));
                if let (true, Ok(listener)) = (up, listener) {
                    tokio::select! {
                        _ = server::serve(listener, served, server::machine_clock) => {}
                        _ = stopped => {}
                    }
                }
            });
        })?;
        let cloud = started.recv().context("the services did not start")??;
        cloud.secrets().put(SECRET, &serde_json::json!({ "access_token": PortalSettings::TOKEN }).to_string());
        Ok(Self { cloud, portal, stop: Some(stop), thread: Some(thread) })
    }

    /// The account.
    pub(crate) fn portal(&self) -> MutexGuard<'_, Portal> {
        self.portal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the contacts into the account that it has before the import, and blocks the addresses that it refuses.
    pub(crate) fn seed(&self, known: &[String], blocked: &[String]) {
        let now = server::machine_clock();
        let mut portal = self.portal();
        for email in known {
            portal.seed_record(now, "contacts", &[("email", email), ("lifecyclestage", "subscriber")]);
        }
        for email in blocked {
            portal.block_address(email);
        }
    }

    /// Calls and writes that the account has seen.
    pub(crate) fn hubspot_counts(&self) -> Counts {
        self.portal().counts()
    }

    /// The first upload's event, as it went into the queue.
    pub(crate) fn archived_event(&self) -> Result<serde_json::Value> {
        let messages = self.cloud.sqs().receive(ARCHIVE, 1, None);
        let message = messages.first().context("the upload's event is not in the archive queue")?;
        Ok(serde_json::from_str(&message.body)?)
    }

    /// Delivers an event a second time, as SQS may do, and returns the function's answer.
    pub(crate) async fn deliver_again(&self, event: serde_json::Value) -> Result<serde_json::Value> {
        let message = hubferry_simulator::aws::events::in_sqs(QUEUE, &[event]);
        Ok(self.cloud.functions().invoke(&message, FUNCTION_TIMEOUT).await?)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What this account has beside HubSpot's own properties.
fn properties() -> Vec<PropertyDefinition> {
    let property = |name: &str, label: &str, kind: &str| {
        let mut property = PropertyDefinition::new(name, kind);
        label.clone_into(&mut property.label);
        property
    };
    let mut plan = property("plan", "Plan", "enumeration");
    plan.options = [("plan_free", "Free"), ("plan_team", "Team"), ("plan_enterprise", "Enterprise")]
        .map(|(value, label)| PropertyOption {
            value: value.to_owned(),
            label: label.to_owned(),
            ..PropertyOption::default()
        })
        .to_vec();
    vec![
        plan,
        property("signup_date", "Signed up", "date"),
        property("annual_spend", "Annual spend", "number"),
        property("newsletter", "Newsletter", "bool"),
        property("notes", "Notes", "string"),
    ]
}

/// The demo's hubferry.yaml.
pub(crate) fn config(hubspot_url: &str) -> String {
    format!(
        "\
version: 1
hubspot:
  default:
    secret: {SECRET}
    base_url: {hubspot_url}             # the simulated account
imports:
  - name: contacts
    match: incoming/contacts/*.csv
    object: contacts
    key: email
    columns:
      Email: email
      First Name: firstname
      Last Name: lastname
      Stage: lifecyclestage
      Plan: plan
      Signed up: signup_date
      Annual spend: annual_spend
      Newsletter: newsletter
      Owner: hubspot_owner_id
      Notes: notes
    abort_if_rejected: 20%
  - name: by-hand                       # nothing wakes the function here: send it an event
    match: by-hand/*.csv
    object: contacts
    key: email
    columns: {{ Email: email, First Name: firstname, Last Name: lastname }}
"
    )
}
