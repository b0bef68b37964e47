//! The local cloud as a process: it goes on where it stopped, whatever stopped it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

const HEADER: &str = "Email,First Name,Last Name,Stage,Plan,Signed up,Annual spend,Newsletter,Owner,Notes\n";
/// Looks, a tenth of a second apart: half a minute, for what takes a second.
const LOOKS: u32 = 300;

struct Cloud {
    process: Child,
    told: Value,
}

impl Cloud {
    fn start(state: &Path) -> Self {
        let mut process = command(state).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, told: serde_json::from_str(&line).unwrap() }
    }

    /// Puts a file into the watched folder.
    fn file(&self, name: &str, emails: &[&str]) {
        let rows: String = emails.iter().map(|email| format!("{email},,,,,,,,,\n")).collect();
        let path = Path::new(self.told["drop"].as_str().unwrap()).join("incoming/contacts").join(name);
        fs::write(path, HEADER.to_owned() + &rows).unwrap();
    }

    fn page(&self, path: &str) -> String {
        let host = self.told["page"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/');
        let mut socket = TcpStream::connect(host).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until so many imports are done.
    fn wait(&self, imports: usize) {
        for _ in 0..LOOKS {
            if self.page("/").matches("<span class=\"outcome good\">done").count() >= imports {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("{imports} imports are not done: {}", self.page("/"));
    }

    fn signal(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.process.wait().unwrap().code()
    }
}

fn command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry"));
    command.args(["serve", "--json", "--every", "0", "--latency", "0", "--state"]).arg(state).stdin(Stdio::null());
    // A machine with an AWS set-up of its own must not be asked.
    command
        .env("AWS_PROFILE", "nobody")
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("HTTP_PROXY", "http://127.0.0.1:9");
    command
}

#[test]
fn a_local_cloud_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let cloud = Cloud::start(&state);
    cloud.file("a.csv", &["one@example.com", "two@example.com"]);
    cloud.wait(1);
    let other = command(&state).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("is used by another local cloud"), "{other:?}");
    assert_eq!(cloud.signal("-INT"), Some(0), "Ctrl-C ends it well");

    let cloud = Cloud::start(&state);
    cloud.wait(1);
    let found = |cloud: &Cloud, words: &str| cloud.page(&format!("/hubspot/default/contacts?q={words}"));
    assert!(found(&cloud, "two%40example").contains("two@example.com"));
    cloud.file("b.csv", &["three@example.com"]);
    cloud.wait(2);
    let page = cloud.page("/");
    assert_eq!(
        page.matches("incoming/<wbr>contacts/<wbr>a.csv").count(),
        1,
        "the first file is not imported again: {page}"
    );
    // The account is written down as soon as it is quiet.
    let kept = state.join("hubspot-default.json");
    for _ in 0..LOOKS {
        if fs::read_to_string(&kept).unwrap().contains("three@example.com") {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(cloud.signal("-KILL"), None);

    let cloud = Cloud::start(&state);
    cloud.wait(2);
    assert!(found(&cloud, "three").contains("three@example.com"), "a kill loses nothing that was quiet");
    assert_eq!(cloud.signal("-TERM"), Some(0));
}

#[test]
fn a_cloud_that_is_not_kept_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_hubferry"))
        .args(["serve", "--json", "--empty"])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let cloud = Cloud { process, told: serde_json::from_str(&line).unwrap() };
    assert!(cloud.page("/hubspot/default/contacts").contains(">0 records<"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(cloud.signal("-INT"), Some(0));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_schedule_keeps_the_two_simulated_systems_in_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_hubferry"))
        .args(["serve", "--json", "--every", "1", "--latency", "0"])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let cloud = Cloud { process, told: serde_json::from_str(&line).unwrap() };
    let in_step = |cloud: &Cloud| {
        let page = cloud.page("/review");
        page.contains("<span class=\"outcome good\">done") && page.contains("HubSpot <time")
    };
    let mut looks = 0;
    while !in_step(&cloud) {
        looks += 1;
        assert!(looks < LOOKS, "{}", cloud.page("/review"));
        thread::sleep(Duration::from_millis(100));
    }
    // Whoever was in Salesforce only is in HubSpot, and leads to the counterpart.
    let list = cloud.page("/salesforce/default/Contact?q=example");
    let record =
        list.split("href=\"").find_map(|rest| rest.split('"').next().filter(|at| at.contains("/Contact/003"))).unwrap();
    let record = cloud.page(record);
    assert!(record.contains("Kept in step by sync people with HubSpot"), "{record}");
    assert!(cloud.page("/").contains("HubSpot contacts and Salesforce Contact"), "the run is listed");
    assert_eq!(cloud.signal("-INT"), Some(0));
}
