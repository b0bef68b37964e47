//! What the demo runs in: a simulated HubSpot account and the embedded AWS, on 127.0.0.1, in a thread of their own, so that
//! they do not take the function's time.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hubferry_simulator::{
    aws::{Addresses, Cloud, CloudListeners, CloudSettings, Mapping, Rule, Target, events::Shape},
    hubspot::{Counts, Portal, PortalSettings, PropertyDefinition, PropertyOption, server},
};
use tokio::sync::oneshot;

use crate::local;

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
pub(crate) const SECRET: &str = "hubferry/hubspot";
/// Longer than any demo run; a message whose invocation dies comes back after it.
const VISIBILITY: Duration = Duration::from_secs(300);
/// As the template gives.
pub(crate) const FUNCTION_TIMEOUT: Duration = Duration::from_secs(900);
/// As an answer over the Atlantic: 150 to 300 ms.
pub(crate) const LATENCY_MS: (u64, u64) = (150, 150);
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
        local::environment(&self.addresses, &format!("s3://{BUCKET}/{CONFIG_KEY}"), TABLE, QUEUE)
    }

    /// Makes this process the function's.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn enter(&self, folder: &Path) -> Result<()> {
        local::enter(folder, &self.environment(), &self.addresses, "demo")
    }
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
            function: local::FUNCTION.to_owned(),
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
pub(crate) fn properties() -> Vec<PropertyDefinition> {
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
