//! No row value and no token in a log at any level, in metrics, traces, reports, messages or the table, whatever a job does and whatever fails.
//!
//! Marked values stand in every row, every record and every secret; the scenarios below drive the real process through its jobs and through the ways
//! in which they end badly; then everything that it has let out is searched for the marks. What holds rows by design is left out: rejects,
//! before-images, captured records, and the files themselves.
//!
//! To add a job: its settings in [`Watch::settings`], its events in a scenario, and, if it writes objects of a new kind that hold values, their
//! prefix in [`HOLDS_ROWS`].

use std::{
    io::ErrorKind,
    net::UdpSocket,
    sync::{Arc, Mutex},
};

use hubferry_simulator::hubspot::{Fault, Faults, PortalSettings, PropertyDefinition, What, server::machine_clock};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::harness::{BUCKET, Harness, Process, QUEUE, SECRET, Variables};

/// The libraries below are quiet unless they are named.
const EVERYTHING: &str =
    "trace,aws=trace,h2=trace,hyper=trace,reqwest=trace,rustls=trace,lambda_runtime=trace,tower=trace";

/// In every cell of every file, and in every record.
const MARK: &str = "zanzibar";

/// What the webhook's address ends with: the address is the secret.
const WEBHOOK: &str = "whk-kilimanjaro";

/// Keys that begin so hold rows: that is what they are for. Before-images and the rejects of a run that goes on lie below `state/`.
const HOLDS_ROWS: [&str; 4] = ["incoming/", "rejects/", "out/", "before/"];

const TOPIC: &str = "arn:aws:sns:us-east-1:000000000000:alerts";

/// What the process lets out, besides the log.
struct Watch {
    harness: Harness,
    /// Requests to the webhook and to SNS, whole.
    posts: Arc<Mutex<Vec<String>>>,
    /// How both answer.
    status: Arc<Mutex<u16>>,
    outside: String,
    daemon: UdpSocket,
    tokens: Vec<String>,
    answers: Vec<Value>,
    logs: String,
    _tasks: JoinSet<()>,
}

impl Watch {
    async fn boot(settings: PortalSettings) -> Self {
        let harness = Harness::boot_with(settings, false).await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let outside = format!("http://{}", listener.local_addr().unwrap());
        let (posts, status) = (Arc::new(Mutex::default()), Arc::new(Mutex::new(200)));
        let mut tasks = JoinSet::new();
        let (keep, how) = (Arc::clone(&posts), Arc::clone(&status));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&keep), Arc::clone(&how)));
            }
        });
        harness.cloud.secrets().put("hubferry/slack", &format!(r#"{{"url":"{outside}/services/T0/B0/{WEBHOOK}"}}"#));
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        daemon.set_nonblocking(true).unwrap();
        let watch = Self {
            harness,
            posts,
            status,
            outside,
            daemon,
            tokens: vec![PortalSettings::TOKEN.to_owned(), WEBHOOK.to_owned()],
            answers: Vec::new(),
            logs: String::new(),
            _tasks: tasks,
        };
        watch.settings("");
        watch
    }

    /// Settings with every job that there is; `more` is added to the import `contacts`.
    fn settings(&self, more: &str) {
        let rest = format!(
            "  - {{ name: mirrored, match: incoming/mirrored/*, object: contacts, key: email, mode: mirror, before_images: true }}
  - {{ name: lines, match: incoming/lines/*, object: contacts, key: email, format: jsonl, skip_unchanged: true, abort_if_rejected: 1 }}
  - {{ name: records, match: incoming/records/*, format: opencdc, resource: crm.contacts, key: email }}
  - {{ name: pages, match: incoming/pages/*, format: opencdc, resource: cms.pages.site }}
captures:
  - {{ name: all, resource: crm.contacts, output: \"s3://{BUCKET}/out/all/\", lag_seconds: 1, extra_properties: all }}
  - {{ name: table, resource: crm.contacts, output: \"s3://{BUCKET}/out/table/\", lag_seconds: 1, format: csv, compression: none }}
notify: {{ slack_webhook_secret: hubferry/slack, sns_topic_arn: \"{TOPIC}\" }}
traces: xray
"
        );
        let text = self.harness.config(more) + &rest;
        self.harness.cloud.s3().put("settings", "hubferry.yaml", text).unwrap();
    }

    fn process(&self) -> Process {
        self.harness.process_with(&Variables(vec![
            ("HUBFERRY_CONFIG", Some("s3://settings/hubferry.yaml".to_owned())),
            ("RUST_LOG", Some(EVERYTHING.to_owned())),
            ("AWS_ENDPOINT_URL_SNS", Some(self.outside.clone())),
            ("AWS_XRAY_DAEMON_ADDRESS", Some(self.daemon.local_addr().unwrap().to_string())),
        ]))
    }

    /// One invocation; its answer is searched, too.
    async fn invoke(&mut self, process: &Process, event: &Value) -> Value {
        let answer = self.harness.answer(process, event).await;
        self.answers.push(answer.clone());
        answer
    }

    async fn import(&mut self, process: &Process, key: &str, bytes: impl Into<bytes::Bytes>) -> Value {
        let event = self.harness.upload(key, bytes);
        self.invoke(process, &event).await
    }

    /// Another token for the account, which is a secret from then on.
    fn token(&mut self, token: &str, scopes: Vec<String>) {
        self.harness.portal().grant_token(token, "app", scopes);
        self.harness.cloud.secrets().put(SECRET, &json!({ "access_token": token }).to_string());
        self.tokens.push(token.to_owned());
    }

    /// The process is not needed any more; its log is.
    async fn retire(&mut self, process: Process) {
        self.logs.push_str(&process.log());
        process.kill().await;
    }

    fn traces(&self) -> Vec<String> {
        let mut buffer = vec![0; 65_536];
        let mut documents = Vec::new();
        loop {
            match self.daemon.recv(&mut buffer) {
                Ok(length) => documents.push(String::from_utf8(buffer[..length].to_vec()).unwrap()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return documents,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Searches everything. Returns what was searched, so that a test can show that there was something to find.
    async fn search(&mut self) -> Searched {
        let (traces, messages) = (self.traces(), self.posts.lock().unwrap().clone());
        let metrics: Vec<Value> = self.logs.lines().filter(|line| line.contains("\"_aws\"")).map(parse).collect();
        let mut places: Vec<(String, String)> = Vec::new();
        places.extend(self.logs.lines().map(|line| ("the log".to_owned(), line.to_owned())));
        places.extend(self.answers.iter().map(|answer| ("an answer".to_owned(), answer.to_string())));
        places.extend(traces.iter().map(|trace| ("a trace".to_owned(), trace.clone())));
        for message in &messages {
            // The webhook's address is where it is sent to; it is no part of the message.
            let (head, body) = message.split_once("\r\n\r\n").unwrap();
            let headers = head.split_once("\r\n").map_or("", |(_, headers)| headers);
            places.push(("a message".to_owned(), format!("{headers}\n{body}")));
        }
        let s3 = self.harness.cloud.s3();
        let mut stored = Vec::new();
        for key in s3.keys(BUCKET, "") {
            let rows = HOLDS_ROWS.iter().any(|prefix| key.starts_with(prefix))
                || (key.starts_with("state/") && (key.contains("/before-") || key.contains("/rejects-")));
            if !rows {
                let bytes = s3.read(BUCKET, &key).unwrap();
                places.push((format!("the object {key}"), format!("{key} {}", String::from_utf8_lossy(&bytes))));
                stored.push(key);
            }
        }
        for message in self.harness.cloud.sqs().receive(QUEUE, 10, None) {
            places.push(("a continuation".to_owned(), message.body));
        }
        for (key, item) in self.harness.items().await {
            places.push(("the table".to_owned(), format!("{key:?} {item:?}")));
        }
        for (place, text) in &places {
            let text = text.to_lowercase();
            for secret in self.tokens.iter().map(String::as_str).chain([MARK]) {
                assert!(!text.contains(secret), "{secret} is in {place}: {text}");
            }
        }
        Searched { metrics, traces, messages, stored }
    }
}

/// What was searched.
struct Searched {
    metrics: Vec<Value>,
    traces: Vec<String>,
    messages: Vec<String>,
    stored: Vec<String>,
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Answers whatever comes, and keeps it.
async fn answer(mut stream: TcpStream, posts: Arc<Mutex<Vec<String>>>, status: Arc<Mutex<u16>>) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        seen.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        seen.clear();
        posts.lock().unwrap().push(text);
        let status = *status.lock().unwrap();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn file() -> String {
    let mut text = String::from("email,firstname,lifecyclestage,hubspot_owner_id,member_id,date_of_birth\n");
    for number in 0..400 {
        text.push_str(&match number % 10 {
            // Refused before any call.
            1 => format!("{MARK}{number},{MARK},,,,\n"),
            2 => format!("{MARK}{number}@example.com,x,{MARK},,,\n"),
            3 => format!("{MARK}{number}@example.com,x,,{MARK}@example.com,,\n"),
            4 => format!("{MARK}{number}@example.com,x,,,,{MARK}\n"),
            5 => format!("{MARK}{number}@example.com,{MARK}\n"),
            // Refused by HubSpot, which quotes the value.
            6 => format!("{MARK}{number}@example.com,{MARK},,,{MARK}-taken,\n"),
            7 => format!("{MARK}{number}@example.com,{MARK}\0,,,,\n"),
            _ => format!("{MARK}{number}@example.com,{MARK}{number},lead,,{MARK}-{number},1990-01-02\n"),
        });
    }
    text
}

/// People in a file with two columns.
fn people(numbers: std::ops::Range<usize>) -> String {
    let rows = numbers.map(|number| format!("{MARK}{number}@example.com,{MARK}\n"));
    format!("email,firstname\n{}", rows.collect::<String>())
}

/// Change records of every kind, and lines that are none.
fn records(collection: &str) -> String {
    let record = |operation: &str, id: &str, after: Value| {
        json!({
            "position": MARK, "operation": operation, "metadata": { "opencdc.collection": collection, "note": MARK },
            "key": { "id": id, "email": format!("{MARK}@example.com") },
            "payload": { "before": null, "after": after },
        })
    };
    let person =
        |email: &str| json!({ "id": MARK, "properties": { "email": email, "firstname": MARK, "nonsense": MARK } });
    let lines = [
        record("create", "1", person(&format!("{MARK}1@example.com"))).to_string(),
        record("update", "2", person(&format!("{MARK}2@example.com"))).to_string(),
        record("snapshot", MARK, person(MARK)).to_string(),
        record("delete", MARK, Value::Null).to_string(),
        record("explode", "3", person(&format!("{MARK}3@example.com"))).to_string(),
        record("update", "4", json!(MARK)).to_string(),
        format!("{{\"{MARK}\": \"{MARK}"),
        MARK.to_owned(),
    ];
    lines.join("\n") + "\n"
}

fn portal() -> PortalSettings {
    let mut settings = PortalSettings { shuffle_results: true, ..PortalSettings::default() };
    settings.limits.burst = Some(2_000);
    let member = PropertyDefinition::new("member_id", "string").unique();
    settings.properties.insert("contacts".to_owned(), vec![member]);
    settings
}

#[tokio::test]
async fn imports_of_every_kind_and_every_end_let_out_no_value_and_no_token() {
    let mut settings = portal();
    settings.faults = Faults::five_percent(1);
    settings.faults.push(Fault::nth("/batch/upsert", 2, What::Html(502)));
    settings.faults.push(Fault::nth("/batch/upsert", 3, What::ResetAfter));
    let mut watch = Watch::boot(settings).await;
    let taken = [("email", "first@example.com"), ("member_id", &format!("{MARK}-taken"))];
    watch.harness.portal().seed_record(machine_clock(), "contacts", &taken).unwrap();
    watch.settings("    abort_if_rejected: 90%\n");
    let process = watch.process();

    let report = watch.import(&process, "incoming/contacts/a.csv", file()).await;
    assert_eq!(report["outcome"], "done", "{report}");
    assert_eq!((&report["rows"]["created"], &report["rows"]["rejected"]), (&json!(120), &json!(280)), "{report}");
    // The rejects hold the rows: that is what they are for.
    assert!(watch.harness.text(report["rejects"].as_str().unwrap()).contains(MARK));
    let event = watch.harness.upload("incoming/contacts/a.csv", file());
    watch.invoke(&process, &event).await;
    assert_eq!(watch.invoke(&process, &event).await["outcome"], "duplicate");

    // Other formats, and what is in none.
    let line = json!({ "email": format!("{MARK}@example.com"), "firstname": MARK, "date_of_birth": MARK });
    let lines = format!("{line}\n{{\"email\":\"{MARK}2@example.com\"}}\n{MARK}\n");
    assert_eq!(watch.import(&process, "incoming/lines/a.jsonl", lines.clone()).await["outcome"], "aborted");
    watch.import(&process, "incoming/records/a.jsonl", records("crm.contacts")).await;
    watch.import(&process, "incoming/pages/a.jsonl", records("cms.pages.site")).await;
    for (key, bytes) in [
        ("incoming/contacts/no-key.csv", format!("firstname\n{MARK}\n").into_bytes()),
        ("incoming/contacts/damaged.csv.gz", [&[0x1f, 0x8b, 8][..], MARK.as_bytes()].concat()),
        ("incoming/contacts/binary.csv", [MARK.as_bytes(), &[0, 1, 2, 0, 0, 200]].concat()),
        ("incoming/contacts/unterminated.csv", format!("email,firstname\n{MARK}@example.com,\"{MARK}\n").into_bytes()),
        ("incoming/contacts/empty.csv", Vec::new()),
        ("incoming/elsewhere/a.csv", MARK.as_bytes().to_vec()),
    ] {
        watch.import(&process, key, bytes).await;
    }

    // Mirror: good, then braked; with before-images.
    watch.import(&process, "incoming/mirrored/a.csv", people(0..60)).await;
    let braked = watch.import(&process, "incoming/mirrored/a.csv", people(0..10)).await;
    assert_eq!(braked["error"]["code"], "MIRROR_BRAKE", "{braked}");
    let mended = watch.import(&process, "incoming/mirrored/a.csv", people(1..61)).await;
    assert_eq!((&mended["outcome"], &mended["archived"]), (&json!("done"), &json!(1)), "{mended}");
    let images = watch.harness.cloud.s3().keys(BUCKET, "state/import/mirrored/");
    assert!(images.iter().any(|key| key.contains("/before-")), "{images:?}");

    // What is not understood.
    for event in [
        json!({ "job": "import", "bucket": MARK, "who": MARK }),
        json!({ "job": "resume", "run_id": 7, "x": MARK }),
        json!(MARK),
    ] {
        let (_, refusal) = watch.harness.refusal(&process, &event).await;
        assert!(!refusal.contains(MARK), "{refusal}");
    }
    watch.retire(process).await;
    let searched = watch.search().await;
    assert!(watch.logs.lines().count() > 50, "the log is empty: the search proves nothing");
    let runs: Vec<&Value> = searched.metrics.iter().filter(|line| line["RunsDone"].is_number()).collect();
    let reports = searched.stored.iter().filter(|key| key.starts_with("reports/")).count();
    assert_eq!(runs.len(), reports, "a line for each run's end");
    assert!(runs.iter().any(|line| line["Name"] == "mirrored" && line["Archived"] == 1), "{runs:?}");
    assert!(searched.traces.iter().any(|trace| trace.contains("POST crm/objects/_/contacts/batch/upsert")));
    for subject in [
        "import contacts rejected 280 of 400 rows",
        "import lines aborted (ABORT_IF_REJECTED)",
        "import mirrored stopped before deleting (MIRROR_BRAKE)",
        "import mirrored works again",
    ] {
        let both = searched.messages.iter().filter(|message| message.replace("%20", " ").contains(subject)).count();
        let encoded = subject.replace('(', "%28").replace(')', "%29");
        let sns = searched.messages.iter().filter(|message| message.replace("%20", " ").contains(&encoded)).count();
        assert!(both + sns >= 2, "{subject}: {:?}", searched.messages);
    }
}

#[tokio::test]
async fn tokens_that_end_are_refused_or_too_weak_are_nowhere_and_neither_is_the_webhooks_address() {
    let mut watch = Watch::boot(portal()).await;
    let mut process = watch.process();
    watch.import(&process, "incoming/contacts/a.csv", people(0..5)).await;
    // Replaced in the middle of things, refused, too weak, unreadable.
    watch.harness.portal().revoke_token(PortalSettings::TOKEN);
    watch.token("pat-na1-rotated-00000000", Vec::new());
    let rotated = watch.import(&process, "incoming/contacts/b.csv", people(0..6)).await;
    assert_eq!(rotated["outcome"], "done", "{rotated}");
    watch.harness.portal().revoke_token("pat-na1-rotated-00000000");
    // The webhook does not answer well, nor does SNS: the run ends as it would, and the log does not show where it went.
    *watch.status.lock().unwrap() = 404;
    let refused = watch.import(&process, "incoming/contacts/c.csv", people(0..7)).await;
    assert_eq!(refused["error"]["code"], "TOKEN_REFUSED", "{refused}");
    watch.retire(process).await;
    process = watch.process();
    watch.token("pat-na1-weak-11111111", vec!["crm.objects.contacts.read".to_owned()]);
    let weak = watch.import(&process, "incoming/contacts/d.csv", people(0..8)).await;
    assert_eq!(weak["error"]["code"], "SCOPES_MISSING", "{weak}");
    watch.harness.cloud.secrets().put(SECRET, "pat-na1-unreadable-2222");
    watch.tokens.push("pat-na1-unreadable-2222".to_owned());
    watch.retire(process).await;
    process = watch.process();
    let unreadable = watch.import(&process, "incoming/contacts/e.csv", people(0..9)).await;
    assert_eq!(unreadable["error"]["code"], "SECRET_INVALID", "{unreadable}");
    // A secret that is no address, and one that nothing listens at.
    for address in [format!("not an address {WEBHOOK}"), format!("http://127.0.0.1:1/{WEBHOOK}")] {
        watch.harness.cloud.secrets().put("hubferry/slack", &address);
        let event = json!({ "job": "capture", "name": "all" });
        watch.invoke(&process, &event).await;
    }
    watch.retire(process).await;
    let searched = watch.search().await;
    assert!(searched.messages.len() >= 2, "both were asked: {:?}", searched.messages);
    let failed = watch.logs.lines().filter(|line| line.contains("NOTICE_FAILED")).count();
    assert!(failed >= 2, "and both refusals are in the log: {failed}");
}

#[tokio::test]
async fn captures_let_out_no_value_of_a_record() {
    let mut settings = portal();
    settings.faults.push(Fault::nth("/batch/read", 1, What::Html(502)));
    let mut watch = Watch::boot(settings).await;
    let long_ago = machine_clock() - jiff::SignedDuration::from_hours(1);
    let person = |number: usize| {
        vec![
            ("email", format!("{MARK}{number}@example.com")),
            ("firstname", MARK.to_owned()),
            ("lastname", MARK.to_owned()),
        ]
    };
    watch.harness.portal().seed_many(long_ago, "contacts", (0..300).map(person));
    let process = watch.process();
    for _ in 0..3 {
        super::harness::pause(std::time::Duration::from_millis(1_500)).await;
        let id = watch.harness.portal().live_objects("contacts", &[]).next().unwrap().id;
        watch.harness.portal().edit(machine_clock(), "contacts", &id, &[("firstname", MARK)]);
        watch.invoke(&process, &json!({ "job": "capture" })).await;
    }
    // One that may not read what it needs.
    watch.harness.portal().revoke_token(PortalSettings::TOKEN);
    watch.invoke(&process, &json!({ "job": "capture" })).await;
    watch.retire(process).await;
    let searched = watch.search().await;
    let captured = watch.harness.cloud.s3().keys(BUCKET, "out/");
    assert!(captured.len() >= 2, "{captured:?}");
    let text =
        watch.harness.cloud.s3().read(BUCKET, captured.iter().find(|key| key.ends_with(".csv")).unwrap()).unwrap();
    assert!(String::from_utf8_lossy(&text).contains(MARK), "captured records hold values: that is what they are for");
    assert!(searched.stored.iter().any(|key| key.starts_with("manifests/")), "{:?}", searched.stored);
    assert!(searched.stored.iter().any(|key| key.ends_with(".known")), "{:?}", searched.stored);
    assert!(searched.metrics.iter().any(|line| line["Job"] == "capture" && line["RunsDone"] == 1));
    assert!(searched.traces.iter().any(|trace| trace.contains("capture all")));
}
