//! The function as a process of its own, and what it runs against: the embedded AWS and a simulated HubSpot account, served over loopback
//! by the benchmark's process.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hubferry_simulator::{
    aws::{Cloud, CloudSettings, LambdaError, events},
    hubspot::{LogEntry, Portal, PortalSettings, server},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
};

use crate::support::{Outcome, machine, rows};

const BUCKET: &str = "crm";
const TABLE: &str = "hubferry";
const SECRET: &str = "hubferry/hubspot";
/// Lambda's longest time-out: an import that needs more is not for this benchmark.
const INVOCATION: Duration = Duration::from_secs(900);
/// Lines of the function's log that are shown when something fails.
const LINES_SHOWN: usize = 20;

/// A limit that is hardly felt: 40,000 rows a second.
pub(crate) const UNFELT: &str = "{ burst: 4000 }";

/// Cloud and account; they end with this.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    portal: server::Shared,
    pub(crate) address: String,
    folder: tempfile::TempDir,
    _serving: JoinSet<()>,
}

/// A process of the function; killed with this.
pub(crate) struct Process {
    child: Child,
    id: String,
}

impl World {
    /// `import` is added to the import `contacts`, `limits` are those of its configuration.
    pub(crate) async fn start(settings: PortalSettings, limits: &str, import: &str) -> Outcome<Self> {
        let columns = rows::COLUMNS.replace('\n', " ");
        let jobs = format!(
            "imports:\n  - name: contacts\n    match: incoming/contacts/*\n    object: contacts\n    key: email\n    columns: {columns}\n{import}"
        );
        Self::start_with(settings, limits, &jobs).await
    }

    /// `jobs` is the rest of the configuration.
    pub(crate) async fn start_with(mut settings: PortalSettings, limits: &str, jobs: &str) -> Outcome<Self> {
        settings.properties.insert("contacts".to_owned(), rows::properties());
        let cloud = Cloud::start(CloudSettings {
            buckets: vec![BUCKET.to_owned()],
            table: Some(TABLE.to_owned()),
            timeout: INVOCATION,
            ..CloudSettings::default()
        })?;
        let secret = format!("{{\"access_token\":\"{}\"}}", PortalSettings::TOKEN);
        cloud.secrets().put(SECRET, &secret);
        let portal: server::Shared = Arc::new(Mutex::new(Portal::new(settings)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let mut serving = JoinSet::new();
        let served = Arc::clone(&portal);
        serving.spawn(async move {
            let _ = server::serve(listener, served, server::machine_clock).await;
        });
        let folder = tempfile::tempdir()?;
        let config = format!(
            "version: 1\nhubspot:\n  default: {{ secret: {SECRET}, base_url: \"{address}\", limits: {limits} }}\n{jobs}"
        );
        fs::write(folder.path().join("hubferry.yaml"), config)?;
        Ok(Self { cloud, portal, address, folder, _serving: serving })
    }

    /// The account. Not to be held over an await.
    pub(crate) fn portal(&self) -> MutexGuard<'_, Portal> {
        self.portal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the account elsewhere.
    pub(crate) fn settle_elsewhere(&self, address: &str) -> Outcome {
        let path = self.folder.path().join("hubferry.yaml");
        Ok(fs::write(&path, fs::read_to_string(&path)?.replace(&self.address, address))?)
    }

    /// Starts a process; of the build that the environment variable `FUNCTION` names, where it does.
    pub(crate) fn process(&self) -> Outcome<Process> {
        let other = std::env::var_os("FUNCTION");
        self.process_of(Path::new(other.as_deref().unwrap_or(env!("CARGO_BIN_EXE_hubferry-lambda").as_ref())))
    }

    /// Starts a process of another build.
    pub(crate) fn process_of(&self, program: &Path) -> Outcome<Process> {
        let log = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.env_clear().envs(self.cloud.environment());
        command.env("HUBFERRY_CONFIG", self.folder.path().join("hubferry.yaml")).env("HUBFERRY_TABLE", TABLE);
        for (name, value) in [
            ("AWS_LAMBDA_FUNCTION_NAME", "hubferry"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/hubferry"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
        ] {
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn()?;
        let id = child.id().ok_or("the function has ended at once")?.to_string();
        Ok(Process { child, id })
    }

    /// Puts a file; the event that tells of it.
    pub(crate) fn upload(&self, name: &str, bytes: Vec<u8>) -> Outcome<Value> {
        let created = self.cloud.s3().put(BUCKET, &format!("incoming/contacts/{name}"), bytes).ok_or("no bucket")?;
        Ok(events::s3_notification(&created))
    }

    /// Puts a file that is made while it is read.
    pub(crate) fn upload_generated(&self, name: &str, bytes: u64) -> Outcome<Value> {
        let generator = Arc::new(|range| rows::wide_range(range).into());
        let key = format!("incoming/contacts/{name}");
        let created = self.cloud.s3().put_generated(BUCKET, &key, bytes, generator).ok_or("no bucket")?;
        Ok(events::s3_notification(&created))
    }

    /// One invocation; the run's report.
    pub(crate) async fn import(&self, event: &Value) -> Outcome<Value> {
        match self.invoke(event, INVOCATION).await {
            Ok(report) if report["outcome"] == "done" => Ok(report),
            Ok(report) => Err(format!("the import is not done: {report}\n{}", self.last_lines()).into()),
            Err(error) => Err(format!("{error}\n{}", self.last_lines()).into()),
        }
    }

    /// One invocation, whatever becomes of it.
    pub(crate) async fn invoke(&self, event: &Value, time: Duration) -> Result<Value, LambdaError> {
        self.cloud.functions().invoke(event, time).await
    }

    /// The end of the function's log.
    fn last_lines(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(LINES_SHOWN).collect();
        lines.reverse();
        lines.join("\n")
    }

    /// The batch upserts so far.
    pub(crate) fn upserts(&self) -> Vec<LogEntry> {
        self.portal().log().iter().filter(|entry| entry.path.ends_with("/batch/upsert")).cloned().collect()
    }

    /// Rows in all upserts so far.
    pub(crate) fn inputs_sent(&self) -> usize {
        self.upserts().iter().map(|entry| entry.inputs).sum()
    }
}

impl Process {
    /// Seconds of CPU since it was started.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        machine::cpu_seconds(&self.id)
    }

    /// Megabytes resident: now, and at most.
    pub(crate) fn memory_mb(&self) -> Outcome<(f64, f64)> {
        machine::memory_mb(&self.id)
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) -> Outcome {
        Ok(self.child.kill().await?)
    }
}

/// A pause in real time.
#[expect(clippy::disallowed_methods, reason = "processes live in real time")]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
