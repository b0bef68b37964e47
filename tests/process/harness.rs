//! Boots a cloud, a portal and processes of the function, and lets a test look into all of them.

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use hubferry::aws::{Clients, stand_in};
use hubferry_simulator::{
    aws::{Cloud, CloudSettings, LambdaError, Mapping, Rule, Service, Target, events},
    hubspot::{Portal, PortalSettings, server},
    salesforce::{self, ConnectedApp, Flow, Org, OrgSettings},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};

/// The bucket of the tests.
pub(crate) const BUCKET: &str = "crm";
/// The table.
pub(crate) const TABLE: &str = "hubferry";
/// The queue.
pub(crate) const QUEUE: &str = "hubferry";
/// The secret of the account.
pub(crate) const SECRET: &str = "hubferry/hubspot";
/// The secret of the org.
pub(crate) const ORG_SECRET: &str = "hubferry/salesforce";
/// The refresh token that the org's secret has at first; each use replaces it.
pub(crate) const REFRESH_TOKEN: &str = "refresh-token-of-the-org";

/// Nothing here takes so long; what does, hangs.
const WAIT_MAX: Duration = Duration::from_secs(45);
/// Lines of the log shown when something hangs.
const LINES_SHOWN: usize = 25;

/// A pause in real time, for what cannot be waited for otherwise.
#[expect(clippy::disallowed_methods, reason = "processes live in real time")]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Cloud and portal, without a process yet.
pub(crate) struct Harness {
    pub(crate) cloud: Cloud,
    portal: server::Shared,
    address: String,
    folder: tempfile::TempDir,
    tasks: JoinSet<()>,
}

/// How a process differs from the usual one.
#[derive(Default)]
pub(crate) struct Variables(pub(crate) Vec<(&'static str, Option<String>)>);

/// A running process of the function.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Harness {
    /// A fast account without limits that would be felt, and the import `contacts`.
    pub(crate) async fn boot() -> Self {
        let mut settings = PortalSettings::default();
        settings.limits.burst = Some(2_000);
        Self::boot_with(settings, false).await
    }

    /// `deployed`: uploads under `incoming/` reach the function through EventBridge and the queue.
    pub(crate) async fn boot_with(settings: PortalSettings, deployed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rule = || Rule {
            bucket: BUCKET.to_owned(),
            prefix: "incoming/".to_owned(),
            shape: events::Shape::EventBridge,
            target: Target::Queue(QUEUE.to_owned()),
        };
        let cloud = Cloud::start(CloudSettings {
            buckets: [BUCKET, "hubferry-demo", "settings"].map(str::to_owned).to_vec(),
            table: Some(TABLE.to_owned()),
            queues: vec![(QUEUE.to_owned(), Duration::from_secs(60), None)],
            rules: if deployed { vec![rule()] } else { Vec::new() },
            mappings: if deployed {
                vec![Mapping { queue: QUEUE.to_owned(), maximum_concurrency: 2 }]
            } else {
                Vec::new()
            },
            timeout: Duration::from_secs(40),
            ..CloudSettings::default()
        })
        .unwrap();
        cloud.secrets().put(SECRET, &json!({ "access_token": PortalSettings::TOKEN }).to_string());
        let portal: server::Shared = Arc::new(Mutex::new(Portal::new(settings)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let served = Arc::clone(&portal);
        tasks.spawn(async move {
            let _ = server::serve(listener, served, server::machine_clock).await;
        });
        Self { cloud, portal, address, folder, tasks }
    }

    /// An org beside the portal, with a secret whose refresh token works once: each sign-in replaces it.
    pub(crate) async fn org(&mut self, settings: OrgSettings) -> salesforce::server::Shared {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = ConnectedApp {
            flows: vec![Flow::RefreshToken],
            refresh_tokens: vec![REFRESH_TOKEN.to_owned()],
            rotates: true,
            ..ConnectedApp::default()
        };
        let secret = json!({ "flow": "refresh_token", "login_url": address, "client_id": app.client_id,
            "client_secret": app.client_secret, "refresh_token": REFRESH_TOKEN });
        self.cloud.secrets().put(ORG_SECRET, &secret.to_string());
        let org: salesforce::server::Shared =
            Arc::new(Mutex::new(Org::new(OrgSettings { apps: vec![app], ..settings })));
        let served = Arc::clone(&org);
        self.tasks.spawn(async move {
            let _ = salesforce::server::serve(listener, served, server::machine_clock).await;
        });
        org
    }

    /// The account. Not to be held over an await.
    pub(crate) fn portal(&self) -> MutexGuard<'_, Portal> {
        self.portal.lock().unwrap()
    }

    /// The usual settings; `more` is added to the import.
    pub(crate) fn config(&self, more: &str) -> String {
        format!(
            "version: 1\nhubspot:\n  default: {{ secret: {SECRET}, base_url: \"{}\" }}\nimports:\n  - name: contacts\n    match: incoming/contacts/*\n    object: contacts\n    key: email\n{more}",
            self.address
        )
    }

    /// A server that ends TLS before the plain one at `address` (`http://…`), with this certificate: its own address, `https://…`.
    pub(crate) async fn behind_tls(&mut self, address: &str, server: Arc<rustls::ServerConfig>) -> String {
        let plain: SocketAddr = address.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = format!("https://{}", listener.local_addr().unwrap());
        let acceptor = tokio_rustls::TlsAcceptor::from(server);
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // Who does not trust the certificate hangs up in the middle of the handshake.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut behind = TcpStream::connect(plain).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
                });
            }
        });
        own
    }

    /// Where the account's API is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A file of the test's own; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Settings in a file; its path.
    pub(crate) fn config_file(&self, text: &str) -> String {
        self.file("hubferry.yaml", text)
    }

    /// A process with the usual settings.
    pub(crate) fn process(&self) -> Process {
        let path = self.config_file(&self.config(""));
        self.process_with(&Variables(vec![("HUBFERRY_CONFIG", Some(path))]))
    }

    /// A process with these variables on top of the usual ones, but without a configuration.
    pub(crate) fn process_with(&self, variables: &Variables) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry-lambda"));
        command.env_clear().envs(self.cloud.environment());
        for (name, value) in [
            ("AWS_LAMBDA_FUNCTION_NAME", "hubferry"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/hubferry"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "process"),
            ("HUBFERRY_TABLE", TABLE),
        ] {
            command.env(name, value);
        }
        command.env("HUBFERRY_QUEUE_URL", self.cloud.sqs().url(QUEUE));
        for (name, value) in &variables.0 {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut readers = JoinSet::new();
        readers.spawn(keep(child.stdout.take().unwrap(), Arc::clone(&log)));
        readers.spawn(keep(child.stderr.take().unwrap(), Arc::clone(&log)));
        readers.detach_all();
        Process { child, log }
    }

    /// Puts a file; its S3 notification.
    pub(crate) fn upload(&self, key: &str, bytes: impl Into<Bytes>) -> Value {
        events::s3_notification(&self.cloud.s3().put(BUCKET, key, bytes).unwrap())
    }

    /// One invocation, with as many seconds as nearly all need.
    pub(crate) async fn invoke(&self, event: &Value) -> Result<Value, LambdaError> {
        self.invoke_within(event, 30).await
    }

    /// One invocation with so many seconds.
    pub(crate) async fn invoke_within(&self, event: &Value, seconds: u64) -> Result<Value, LambdaError> {
        self.cloud.functions().invoke(event, Duration::from_secs(seconds)).await
    }

    /// One invocation that has to have an answer.
    pub(crate) async fn answer(&self, process: &Process, event: &Value) -> Value {
        match within(process, "an answer", self.invoke(event)).await {
            Ok(answer) => answer,
            Err(error) => panic!("{error}\n{}", process.last_lines()),
        }
    }

    /// One invocation that has to fail: type and message of the error.
    pub(crate) async fn refusal(&self, process: &Process, event: &Value) -> (String, String) {
        match within(process, "a refusal", self.invoke(event)).await {
            Err(LambdaError::Function { kind, message }) => (kind, message),
            other => panic!("a refusal was expected: {other:?}\n{}", process.last_lines()),
        }
    }

    /// An object that is JSON.
    pub(crate) fn json(&self, uri: &str) -> Value {
        serde_json::from_str(&self.text(uri)).unwrap()
    }

    /// An object that is text.
    pub(crate) fn text(&self, uri: &str) -> String {
        let key = uri.strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
        let bytes = self.cloud.s3().read(BUCKET, key).unwrap_or_else(|| panic!("there is no {uri}"));
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// All items of the table, by `pk` and `sk`.
    pub(crate) async fn items(&self) -> BTreeMap<(String, String), BTreeMap<String, String>> {
        let client = Clients::new(&stand_in(&self.cloud.addresses().url(Service::DynamoDb))).dynamodb;
        let answer = client.scan().table_name(TABLE).consistent_read(true).send().await.unwrap();
        let shown = |value: AttributeValue| match value {
            AttributeValue::S(text) | AttributeValue::N(text) => text,
            other => format!("{other:?}"),
        };
        let items = answer.items.unwrap().into_iter().map(|item| {
            let mut item: BTreeMap<String, String> =
                item.into_iter().map(|(name, value)| (name, shown(value))).collect();
            ((item.remove("pk").unwrap(), item.remove("sk").unwrap()), item)
        });
        items.collect()
    }

    /// Inputs of all upserts so far.
    pub(crate) fn inputs_sent(&self) -> usize {
        self.portal().log().iter().filter(|entry| entry.path.ends_with("/batch/upsert")).map(|entry| entry.inputs).sum()
    }

    /// How many upserts have arrived so far.
    pub(crate) fn upserts(&self) -> usize {
        self.portal().log().iter().filter(|entry| entry.path.ends_with("/batch/upsert")).count()
    }

    /// Tasks that serve the portal: none may have ended.
    pub(crate) fn is_healthy(&mut self) -> bool {
        self.tasks.try_join_next().is_none()
    }
}

impl Process {
    /// Everything it has written so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The end of its log, for failures.
    pub(crate) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- the process's last lines ---\n{}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"))
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its id, where it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Waits for `future`; one that hangs fails the test with the process's last lines.
pub(crate) async fn within<T>(process: &Process, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WAIT_MAX, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {WAIT_MAX:?}\n{}", process.last_lines()),
    }
}

/// Looks again and again until there is something.
pub(crate) async fn until<T>(process: &Process, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            pause(Duration::from_millis(25)).await;
        }
    };
    within(process, what, looking).await
}

async fn keep(from: impl AsyncRead + Unpin, log: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap();
        log.push_str(&line);
        log.push('\n');
    }
}
