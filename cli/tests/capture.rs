//! `hubferry capture` as a user runs it: a simulated HubSpot on loopback, state and objects in a folder.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use hubferry_simulator::hubspot::{Portal, PortalSettings, server};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

const TOKEN: &str = PortalSettings::TOKEN;

/// A portal, served until the test's process ends, and a folder with settings.
struct World {
    portal: Arc<Mutex<Portal>>,
    folder: TempDir,
}

impl World {
    /// So many contacts from yesterday; `more` is appended to the capture's settings.
    fn new(contacts: usize, more: &str) -> Self {
        let portal = Arc::new(Mutex::new(Portal::new(PortalSettings::unlimited())));
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
        let yesterday = server::machine_clock() - SignedDuration::from_hours(24);
        for at in 0..contacts {
            let email = format!("p{at}@example.com");
            let properties =
                [("email", &*email), ("firstname", "First"), ("lastname", "=1+1"), ("annualrevenue", "12.50")];
            portal.lock().unwrap().seed_record(yesterday, "contacts", &properties).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let mut settings = format!(
            "version: 1\nhubspot:\n  default:\n    secret: hubferry/hubspot\n    base_url: {url}\ncaptures:\n  - name: contacts\n    \
             resource: crm.contacts\n    output: s3://crm/captures/contacts/\n    lag_seconds: 1\n"
        );
        for line in more.lines() {
            settings.push_str(&format!("    {line}\n"));
        }
        fs::write(folder.path().join("hubferry.yaml"), settings).unwrap();
        Self { portal, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry"));
        command
            .arg("capture")
            .args(arguments)
            .args(["--local", "--config"])
            .arg(self.folder.path().join("hubferry.yaml"))
            .env("HUBSPOT_ACCESS_TOKEN", TOKEN)
            // None of these may matter.
            .env("HUBFERRY_TABLE", "not-to-be-used")
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The JSON that a command prints, and its exit code.
    fn json(&self, arguments: &[&str]) -> (Value, i32) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let out = text(&output.stdout);
        assert_eq!(out.lines().count(), 1, "one line of JSON: {out}{}", text(&output.stderr));
        (serde_json::from_str(&out).unwrap(), output.status.code().unwrap())
    }

    fn captured(&self) -> Value {
        let (report, code) = self.json(&["contacts"]);
        assert_eq!((&report["outcome"], code), (&"done".into(), 0), "{report}");
        report
    }

    /// The capture's objects, in the order of their keys.
    fn objects(&self) -> Vec<PathBuf> {
        fn below(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { below(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        below(&self.folder.path().join(".hubferry/s3/crm/captures/contacts"), &mut found);
        found.sort();
        found
    }

    fn ids(&self) -> Vec<String> {
        self.portal.lock().unwrap().live_objects("contacts", &[]).map(|one| one.id.to_string()).collect()
    }

    /// Every file below the folder, with its content; not the lines that keep the account's limit.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn below(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { below(&path, found) } else { found.push((path.clone(), fs::read(&path).unwrap())) }
            }
        }
        let mut found = Vec::new();
        below(&self.folder.path().join(".hubferry/s3"), &mut found);
        found.sort();
        found
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn now() -> Timestamp {
    server::machine_clock()
}

#[test]
fn a_capture_runs_from_here_and_what_people_change_afterwards_is_no_drift() {
    let world = World::new(250, "");
    let report = world.captured();
    assert_eq!(report["capture"]["changes"]["snapshot"], 250, "{report}");
    assert_eq!(report["position"]["mode"], "cdc", "the snapshot, then a window: {report}");
    assert!(world.folder.path().join(".hubferry/state.json").exists());

    let before = world.files();
    for more in [&[][..], &["--full"]] {
        let (drift, code) = world.json(&[&["contacts", "--verify"], more].concat());
        assert_eq!((&drift["verdict"], code), (&"none".into(), 0), "{drift}");
        assert_eq!(
            (&drift["captured"], &drift["in_hubspot"], &drift["sampled"]),
            (&250.into(), &250.into(), &250.into())
        );
        assert_eq!((&drift["changed_since"], &drift["awaited"], &drift["computed"]), (&0.into(), &0.into(), &0.into()));
    }
    assert_eq!(world.files(), before, "a check writes nothing");

    let ids = world.ids();
    {
        let mut portal = world.portal.lock().unwrap();
        portal.edit(now(), "contacts", &ids[0], &[("firstname", "Other")]);
        portal.edit(now(), "contacts", &ids[1], &[("firstname", "Other")]);
        portal.set_archived(now(), "contacts", &ids[2], true);
        portal.merge(now(), "contacts", &ids[3], &ids[4]);
        portal.create_record(now(), "contacts", &[("email", "new@example.com")]).unwrap();
    }
    for more in [&[][..], &["--full"]] {
        let (drift, code) = world.json(&[&["contacts", "--verify"], more].concat());
        assert_eq!((&drift["verdict"], code), (&"none".into(), 0), "{drift}");
        // Two edited, one archived, the winner and the loser of a merge; the new one is seen where ids are listed.
        let changed = if more.is_empty() { 5 } else { 6 };
        assert_eq!(drift["changed_since"], changed, "{drift}");
        assert_eq!(
            (&drift["missing"]["count"], &drift["spare"]["count"], &drift["differing"]["count"]),
            (&0.into(), &0.into(), &0.into())
        );
    }
    // The next run tells all of it. The position trails HubSpot's clock by a second.
    thread::sleep(std::time::Duration::from_millis(2_100));
    let report = world.captured();
    let changes = &report["capture"]["changes"];
    assert_eq!(
        (&changes["create"], &changes["delete"], &changes["merged"]),
        (&1.into(), &2.into(), &1.into()),
        "{report}"
    );
    let (drift, code) = world.json(&["contacts", "--verify", "--full"]);
    assert_eq!((&drift["verdict"], &drift["captured"], code), (&"none".into(), &249.into(), 0), "{drift}");
}

#[test]
fn an_object_that_was_deleted_is_drift_with_the_right_counts_and_ids() {
    let world = World::new(30, "");
    world.captured();
    let [object] = &world.objects()[..] else { panic!("{:?}", world.objects()) };
    let whole = fs::read(object).unwrap();

    fs::remove_file(object).unwrap();
    let (drift, code) = world.json(&["contacts", "--verify"]);
    assert_eq!((&drift["verdict"], code), (&"drift".into(), 4), "{drift}");
    assert_eq!((&drift["captured"], &drift["missing"]["count"]), (&0.into(), &30.into()), "by count: {drift}");
    let (drift, code) = world.json(&["contacts", "--verify", "--full"]);
    assert_eq!((&drift["missing"]["count"], code), (&30.into(), 4), "{drift}");
    let named: Vec<&str> = drift["missing"]["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(named.len(), 20, "the first ones are named");
    assert!(named.iter().all(|id| world.ids().iter().any(|known| known == id)));

    let output = world.run(&["contacts", "--verify", "--full"]);
    let out = text(&output.stdout);
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("DRIFT") && words.contains("and 10 more") && words.contains("--restart"), "{out}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    assert!(!out.contains('\x1b'), "no colour in a pipe: {out:?}");

    fs::write(object, &whole[..whole.len() / 2]).unwrap();
    let (damaged, code) = world.json(&["contacts", "--verify"]);
    assert_eq!(code, 1, "an object that cannot be read is an error, not a finding: {damaged}");
    assert!(damaged["error"]["message"].as_str().unwrap().contains("s3://crm/captures/contacts/dt="), "{damaged}");
}

#[test]
fn values_that_differ_are_named_by_property_and_shown_on_request_only() {
    for format in ["jsonl", "csv", "opencdc"] {
        let world = World::new(5, &format!("format: {format}\ncompression: none\n"));
        world.captured();
        let (drift, code) = world.json(&["contacts", "--verify", "--full"]);
        assert_eq!((&drift["verdict"], code), (&"none".into(), 0), "{format}: {drift}");
        let [object] = &world.objects()[..] else { panic!() };
        let lines = text(&fs::read(object).unwrap());
        assert!(lines.contains("p3@example.com"));
        fs::write(object, lines.replace("p3@example.com", "p3@elsewhere.example")).unwrap();

        let output = world.run(&["contacts", "--verify"]);
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(4), "{out}");
        assert!(out.contains("email") && !out.contains("p3@"), "{format}: {out}");
        let (drift, _) = world.json(&["contacts", "--verify", "--values"]);
        let records = &drift["differing"]["records"];
        assert_eq!(drift["differing"]["by_property"], serde_json::json!({ "email": 1 }), "{format}: {drift}");
        assert_eq!(records[0]["properties"], serde_json::json!(["email"]));
        assert_eq!(records[0]["values"]["email"], serde_json::json!(["p3@elsewhere.example", "p3@example.com"]));
    }
}

#[test]
fn every_format_and_compression_is_read_back() {
    for (format, compression) in [
        ("parquet", "zstd"),
        ("parquet", "none"),
        ("parquet", "gzip"),
        ("csv", "gzip"),
        ("jsonl", "zstd"),
        ("opencdc", "gzip"),
    ] {
        let world = World::new(8, &format!("format: {format}\ncompression: {compression}\nextra_properties: all\n"));
        world.captured();
        let (drift, code) = world.json(&["contacts", "--verify", "--full", "--values"]);
        assert_eq!((&drift["verdict"], code), (&"none".into(), 0), "{format} {compression}: {drift}");
        assert_eq!((&drift["captured"], &drift["sampled"]), (&8.into(), &8.into()));
    }
}

#[test]
fn content_is_listed_and_compared_by_its_versions() {
    let world = World::new(0, "");
    let settings = world.folder.path().join("hubferry.yaml");
    let posts = fs::read_to_string(&settings).unwrap().replace("crm.contacts", "cms.blogs.posts");
    fs::write(&settings, posts).unwrap();
    let yesterday = now() - SignedDuration::from_hours(24);
    let make = |at: usize| {
        let body = serde_json::json!({ "name": format!("n{at}"), "slug": format!("s{at}") });
        world.portal.lock().unwrap().create_content(yesterday, "cms.blogs.posts", &body).unwrap()
    };
    let ids: Vec<String> = (0..4).map(make).collect();
    world.captured();
    world.portal.lock().unwrap().delete_content(now(), "cms.blogs.posts", &ids[1]);
    let (drift, code) = world.json(&["contacts", "--verify"]);
    assert_eq!((&drift["verdict"], &drift["counted_by"], code), (&"none".into(), &"list".into(), 0), "{drift}");
    assert_eq!((&drift["captured"], &drift["in_hubspot"], &drift["changed_since"]), (&4.into(), &3.into(), &1.into()));
    // What is older than the capture, and not in it.
    let late = make(9);
    let (drift, code) = world.json(&["contacts", "--verify"]);
    assert_eq!((&drift["missing"]["ids"], code), (&serde_json::json!([late]), 4), "{drift}");
}

#[test]
fn a_restart_asks_first_and_then_captures_everything_again() {
    let world = World::new(3, "");
    world.captured();
    let refused = world.run(&["contacts", "--restart"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--yes"), "{refused:?}");
    let (report, code) = world.json(&["contacts", "--restart", "--yes"]);
    assert_eq!((&report["outcome"], code), (&"done".into(), 0), "{report}");
    assert_eq!(report["capture"]["changes"]["snapshot"], 3, "{report}");
}

#[test]
fn what_cannot_be_done_is_said_with_its_exit_code() {
    let world = World::new(1, "");
    let early = world.run(&["contacts", "--verify"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stderr).contains("no position") && text(&early.stderr).contains("-> "), "{early:?}");
    assert!(!world.folder.path().join(".hubferry").exists(), "a check makes nothing");

    let (unknown, code) = world.json(&["contcats"]);
    assert_eq!((&unknown["error"]["code"], code), (&"NAME_UNKNOWN".into(), 1));
    assert!(unknown["error"]["message"].as_str().unwrap().contains("contacts"), "{unknown}");

    let output = world.command(&["contacts"]).env_remove("HUBSPOT_ACCESS_TOKEN").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("HUBSPOT_ACCESS_TOKEN"), "{output:?}");

    for nonsense in [&["contacts", "--full"][..], &["contacts", "--yes"], &["contacts", "--verify", "--restart"], &[]] {
        assert_eq!(world.run(nonsense).status.code(), Some(2), "{nonsense:?}");
    }

    let wrong = world.command(&["contacts", "--json"]).env("HUBSPOT_ACCESS_TOKEN", "wrong").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(!text(&wrong.stdout).contains("wrong-"), "{wrong:?}");
}

#[test]
fn a_report_for_people_fits_and_says_where_things_are() {
    let world = World::new(120, "");
    let output = world.run(&["contacts"]);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{error}{out}");
    assert!(out.contains("120 in the snapshot") && out.contains("state.json"), "{out}");
    assert!(error.contains(" calls"), "progress is on standard error: {error}");
    // Paths of the test's folder may be longer.
    assert!(out.lines().filter(|line| !line.contains(".hubferry")).all(|line| line.chars().count() <= 80), "{out}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_next_command_goes_on() {
    let world = World::new(400, "");
    // The first list takes long enough to be interrupted.
    world.portal.lock().unwrap().configure(|settings| settings.latency.fixed_ms = 400);
    let mut child =
        world.command(&["contacts", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(std::time::Duration::from_millis(1_500));
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(3));
    world.portal.lock().unwrap().configure(|settings| settings.latency.fixed_ms = 0);
    world.captured();
    let (drift, code) = world.json(&["contacts", "--verify", "--full"]);
    assert_eq!((&drift["verdict"], &drift["captured"], code), (&"none".into(), &400.into(), 0), "{drift}");
}
