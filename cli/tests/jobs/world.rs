//! A portal on loopback, a folder with settings, and the binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use hubferry_simulator::{
    aws::{Cloud, CloudSettings},
    hubspot::{Portal, PortalSettings, server},
};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const TOKEN: &str = PortalSettings::TOKEN;
pub(crate) const BUCKET: &str = "crm";
pub(crate) const TABLE: &str = "hubferry";

pub(crate) struct World {
    portal: Arc<Mutex<Portal>>,
    pub(crate) folder: TempDir,
    pub(crate) cloud: Option<Arc<Cloud>>,
    /// Where the portal is.
    pub(crate) url: String,
}

impl World {
    /// A portal without limits, and settings with the imports `contacts` (`incoming/contacts/*`) and `strict`, and the capture `contacts`.
    pub(crate) fn new() -> Self {
        Self::with(PortalSettings::unlimited())
    }

    pub(crate) fn with(settings: PortalSettings) -> Self {
        let portal = Arc::new(Mutex::new(Portal::new(settings)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::clone(&portal);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                server::serve(listener, served, server::machine_clock).await
            })
        });
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "version: 1\nhubspot:\n  default:\n    secret: hubferry/hubspot\n    base_url: {url}\nimports:\n  - name: contacts\n    \
             match: incoming/contacts/*.csv\n    object: contacts\n    key: email\n    columns: {{ Email: email, First: firstname }}\n  \
             - name: other\n    match: other/*.csv\n    object: contacts\n    key: email\ncaptures:\n  - name: people\n    \
             resource: crm.contacts\n    output: s3://crm/captures/contacts/\n    lag_seconds: 1\n"
        );
        fs::write(folder.path().join("hubferry.yaml"), settings).unwrap();
        Self { portal, folder, cloud: None, url }
    }

    /// With an embedded AWS: a bucket, a table and the secret.
    pub(crate) fn with_cloud(mut self) -> Self {
        let (send, receive) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let settings = CloudSettings {
                    buckets: vec![BUCKET.to_owned()],
                    table: Some(TABLE.to_owned()),
                    ..CloudSettings::default()
                };
                send.send(Arc::new(Cloud::start(settings).unwrap())).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let cloud = receive.recv().unwrap();
        cloud.secrets().put("hubferry/hubspot", &serde_json::json!({ "access_token": TOKEN }).to_string());
        self.cloud = Some(cloud);
        self
    }

    pub(crate) fn portal(&self) -> MutexGuard<'_, Portal> {
        self.portal.lock().unwrap()
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file below the folder.
    pub(crate) fn write(&self, relative: &str, text: &str) -> String {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A CSV of so many contacts, for the import `contacts`.
    pub(crate) fn contacts(rows: usize) -> String {
        let mut text = String::from("Email,First\n");
        for row in 0..rows {
            text.push_str(&format!("p{row}@example.com,First {row}\n"));
        }
        text
    }

    /// The binary with only the variables that a test gives it: in AWS where there is a cloud, else `--local` has to be among the arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        match &self.cloud {
            Some(cloud) => {
                for (name, value) in cloud.environment() {
                    if name != "AWS_LAMBDA_RUNTIME_API" {
                        command.env(name, value);
                    }
                }
                command.env("HUBFERRY_TABLE", TABLE).env("HOME", self.folder.path());
            }
            None => {
                command.env("HUBSPOT_ACCESS_TOKEN", TOKEN).env("HUBFERRY_TABLE", "not-to-be-used");
            }
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The JSON that a command prints, and its exit code.
    pub(crate) fn json(&self, arguments: &[&str]) -> (Value, i32) {
        json_of(&self.run(&[arguments, &["--json"]].concat()))
    }
}

pub(crate) fn json_of(output: &Output) -> (Value, i32) {
    let out = text(&output.stdout);
    assert_eq!(out.lines().count(), 1, "one line of JSON: {out}{}", text(&output.stderr));
    (serde_json::from_str(&out).unwrap(), output.status.code().unwrap())
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Every file below `folder`, by its path in there.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    fn below(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => below(&path, root, found),
                false => found.push(path.strip_prefix(root).unwrap().display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    below(folder, folder, &mut found);
    found.sort();
    found
}
