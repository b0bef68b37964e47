//! No row value and no token in a log at any level, in metrics, traces, reports, messages or the table, whatever a job does and whatever fails.
//!
//! Marked values stand in every row, every record and every secret; the scenarios below drive the real process through its jobs and through the ways
//! in which they end badly; then everything that it has let out is searched for the marks. What holds rows by design is left out: rejects,
//! before-images, captured records, and the files themselves.
//!
//! To add a job: its settings in [`Watch::settings`], its events in a scenario, and, if it writes objects of a new kind that hold values, their
//! prefix in [`HOLDS_ROWS`].

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::UdpSocket,
    sync::{Arc, Mutex},
};

use hubferry::objects::{Location, Objects as _};
use hubferry_simulator::{
    hubspot::{Fault, Faults, PortalSettings, PropertyDefinition, What, server::machine_clock},
    salesforce::{self, DuplicateRule, Field, FieldType, OrgSettings, Test, ValidationRule},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::sync;

use super::harness::{BUCKET, Harness, ORG_SECRET, Process, QUEUE, REFRESH_TOKEN, SECRET, Variables, pause};

/// The libraries below are quiet unless they are named.
const EVERYTHING: &str =
    "trace,aws=trace,h2=trace,hyper=trace,reqwest=trace,rustls=trace,lambda_runtime=trace,tower=trace";

/// In every cell of every file, and in every record.
const MARK: &str = "zanzibar";

/// What the webhook's address ends with: the address is the secret.
const WEBHOOK: &str = "whk-kilimanjaro";

/// Keys that begin so hold rows: that is what they are for. Before-images and the rejects of a run that goes on lie below `state/`.
const HOLDS_ROWS: [&str; 4] = ["incoming/", "rejects/", "out/", "before/"];

/// What syncs list as refused holds ids and reasons; no values.
const REFUSED: &str = "rejects/sync-";

/// Items whose `pk` begins so hold values of records, by design: what both sides held, what a person is shown, what is being created.
/// docs/decisions/0016-sync.md.
const HOLDS_VALUES: [&str; 3] = ["link#", "review#", "todo#"];

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
    org: Option<salesforce::server::Shared>,
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
            org: None,
            tokens: vec![PortalSettings::TOKEN.to_owned(), WEBHOOK.to_owned()],
            answers: Vec::new(),
            logs: String::new(),
            _tasks: tasks,
        };
        watch.settings("");
        watch
    }

    /// The same with an org beside it, and the sync `people`.
    async fn boot_with_org(settings: PortalSettings, org: OrgSettings) -> Self {
        let mut watch = Self::boot(settings).await;
        watch.org = Some(watch.harness.org(org).await);
        // What every session's id has in it.
        watch
            .tokens
            .extend([REFRESH_TOKEN, OrgSettings::CLIENT_SECRET, OrgSettings::CLIENT_ID, "!AQ"].map(str::to_owned));
        watch.sync_settings("limits: { creates: 5000, updates: 5000, blanks: 50, deletes: 5 }");
        watch
    }

    /// The org. Not to be held over an await.
    fn org(&self) -> std::sync::MutexGuard<'_, salesforce::Org> {
        self.org.as_ref().unwrap().lock().unwrap()
    }

    /// The usual settings and a sync; `more` is added to it.
    fn sync_settings(&self, more: &str) {
        let sync = format!(
            "salesforce: {{ default: {{ secret: {ORG_SECRET} }} }}
data: s3://{BUCKET}/
syncs:
  - name: people
    hubspot_object: contacts
    salesforce_object: Contact
    deletes: propagate
    fields:
      - {{ hubspot: email, salesforce: Email, rule: two_way }}
      - {{ hubspot: firstname, salesforce: FirstName, rule: two_way }}
      - {{ hubspot: lastname, salesforce: LastName, rule: two_way }}
      - {{ hubspot: jobtitle, salesforce: Title, rule: two_way }}
      - {{ hubspot: phone, salesforce: Phone, rule: two_way }}
      - {{ hubspot: member_id, salesforce: Member__c, rule: two_way }}
      - {{ hubspot: interests, salesforce: Interests__c, rule: two_way }}
    {more}
"
        );
        let text = self.all_settings("") + &sync;
        self.harness.cloud.s3().put("settings", "hubferry.yaml", text).unwrap();
    }

    /// Runs the sync, over as many invocations as it takes; its last report. What the org has replaced its token by is a secret, too.
    async fn sync(&mut self, process: &Process) -> Value {
        let mut next = json!({ "job": "sync", "name": "people" });
        for _ in 0..60 {
            // A debug build, faults, and every line of every library: it may take its time.
            let report = match self.harness.invoke_within(&next, 60).await {
                Ok(report) => report,
                Err(error) => panic!("{error}\n{}", process.last_lines()),
            };
            self.answers.push(report.clone());
            let tokens = self.org().refresh_tokens();
            self.tokens.extend(tokens);
            if report["outcome"] != "yielded" {
                return report;
            }
            pause(std::time::Duration::from_millis(500)).await;
            next = json!({ "job": "resume", "run_id": report["run_id"] });
        }
        panic!("the run does not end\n{}", process.last_lines());
    }

    /// Settings with every job that there is; `more` is added to the import `contacts`.
    fn settings(&self, more: &str) {
        self.harness.cloud.s3().put("settings", "hubferry.yaml", self.all_settings(more)).unwrap();
    }

    fn all_settings(&self, more: &str) -> String {
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
        self.harness.config(more) + &rest
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
            let rows = (HOLDS_ROWS.iter().any(|prefix| key.starts_with(prefix)) && !key.starts_with(REFUSED))
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
        let (mut kinds, mut with_values) = (BTreeSet::new(), BTreeSet::new());
        for (key, item) in self.harness.items().await {
            let kind = key.0.split('#').next().unwrap_or_default().to_owned();
            let mut text = format!("{key:?} {item:?}");
            if HOLDS_VALUES.iter().any(|prefix| key.0.starts_with(prefix)) {
                if text.to_lowercase().contains(MARK) {
                    with_values.insert(kind.clone());
                }
                // A token has no place there either; and the keys are ids.
                let keys = format!("{key:?}");
                assert!(!keys.contains(MARK), "{keys}");
                text = text.to_lowercase().replace(MARK, "");
            }
            kinds.insert(kind);
            places.push(("the table".to_owned(), text));
        }
        for (place, text) in &places {
            let text = text.to_lowercase();
            for secret in self.tokens.iter().map(String::as_str).chain([MARK]) {
                assert!(!text.contains(&secret.to_lowercase()), "{secret} is in {place}: {text}");
            }
        }
        Searched { metrics, traces, messages, stored, kinds, with_values }
    }
}

/// What was searched.
struct Searched {
    metrics: Vec<Value>,
    traces: Vec<String>,
    messages: Vec<String>,
    stored: Vec<String>,
    /// Kinds of items in the table, and those with values of records.
    kinds: BTreeSet<String>,
    with_values: BTreeSet<String>,
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
        pause(std::time::Duration::from_millis(1_500)).await;
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

fn org() -> OrgSettings {
    let rule = ValidationRule {
        object: "Contact".to_owned(),
        field: "Phone".to_owned(),
        refuse_if: Test::Contains("forbidden".to_owned()),
        message: "Not that number.".to_owned(),
    };
    let duplicates = DuplicateRule {
        name: "Phones".to_owned(),
        object: "Contact".to_owned(),
        against: vec!["Contact".to_owned()],
        fields: vec!["Phone".to_owned()],
        block: true,
    };
    let contact = |field: Field| ("Contact".to_owned(), field);
    let mut settings = OrgSettings { validation: vec![rule], duplicates: vec![duplicates], ..OrgSettings::default() };
    settings.fields.push(contact(Field::text("Member__c", 40)));
    let interests = Field::picklist("Interests__c", &["chess", "tea"], true);
    settings.fields.push(contact(Field { kind: FieldType::MultiPicklist, ..interests }));
    settings
}

/// A portal with what the sync needs; one option that the org has not.
fn synced_portal() -> PortalSettings {
    let mut settings = portal();
    let own = settings.properties.get_mut("contacts").unwrap();
    own.push(PropertyDefinition::new("sf_contact_id_ext", "string").unique());
    own.push(PropertyDefinition::new("interests", "enumeration").options(&["chess", "tea", MARK]).several());
    settings
}

impl Watch {
    /// The HubSpot contact with this address.
    fn contact(&self, email: &str) -> String {
        let found = self.harness.portal().find_by("contacts", "email", email);
        found.unwrap_or_else(|| panic!("no contact {email}"))["hs_object_id"].clone()
    }

    /// Its counterpart.
    fn twin(&self, email: &str) -> String {
        let id = self.contact(email);
        let found = self.org().find_by("Contact", "HubSpot_Contact_Id__c", &id);
        found.unwrap_or_else(|| panic!("{email} has no counterpart"))["Id"].clone()
    }

    fn edit(&self, email: &str, values: &[(&str, &str)]) {
        let id = self.contact(email);
        assert!(self.harness.portal().edit(machine_clock(), "contacts", &id, values), "{email}");
    }

    fn edit_in_org(&self, email: &str, values: &[(&str, &str)]) {
        let id = self.twin(email);
        self.org().edit(machine_clock(), "Contact", &id, values).unwrap();
    }
}

#[tokio::test]
async fn syncs_both_ways_with_everything_that_can_be_refused_or_asked_let_out_no_value() {
    let (mut portal, mut org) = (synced_portal(), org());
    portal.faults = Faults::five_percent(3);
    org.faults = salesforce::five_percent(3);
    let mut watch = Watch::boot_with_org(portal, org).await;
    let long_ago = machine_clock() - jiff::SignedDuration::from_hours(1);
    let email = |at: usize| format!("{MARK}{at}@example.com");
    let person = |at: usize| {
        let phone = if at % 20 == 9 { format!("forbidden {MARK}") } else { format!("030 {at} {MARK}") };
        vec![
            ("email", email(at)),
            ("firstname", format!("{MARK} {at}")),
            ("lastname", MARK.to_owned()),
            ("phone", phone),
        ]
    };
    watch.harness.portal().seed_many(long_ago, "contacts", (0..60).map(person));
    for at in 3_000..3_020 {
        let values = [("LastName", MARK), ("Email", &email(at)), ("Member__c", &format!("{MARK}-{at}"))];
        watch.org().create(long_ago, "Contact", &values).unwrap();
    }
    let process = watch.process();
    let first = watch.sync(&process).await;
    assert_eq!(first["outcome"], "done", "{first}\n{}", process.last_lines());
    assert!(first["rejected_by_code"]["FIELD_CUSTOM_VALIDATION_EXCEPTION"].as_u64() >= Some(3), "{first}");

    // Conflict; refused by a rule, for its length, for its form, for an option that is not there; an address and an id that others have; a
    // record like another one; changes that flow.
    let long = MARK.repeat(20);
    watch.edit(&email(1), &[("firstname", &format!("{MARK} here"))]);
    watch.edit_in_org(&email(1), &[("FirstName", &format!("{MARK} there"))]);
    watch.edit(&email(2), &[("phone", &format!("forbidden {MARK} 2"))]);
    watch.edit(&email(3), &[("jobtitle", &long)]);
    watch.edit(&email(4), &[("email", &format!("{MARK}\u{fc}4@example.com"))]);
    watch.edit(&email(5), &[("interests", MARK)]);
    watch.edit_in_org(&email(6), &[("Email", &email(7))]);
    watch.edit_in_org(&email(8), &[("Member__c", &format!("{MARK}-3001"))]);
    watch.edit(&email(10), &[("lastname", &format!("{MARK} changed"))]);
    watch.edit_in_org(&email(11), &[("Title", MARK)]);
    let alike = [("email", "alike@example.com"), ("lastname", MARK), ("phone", &format!("030 12 {MARK}"))];
    watch.harness.portal().create_record(machine_clock(), "contacts", &alike).unwrap();
    pause(std::time::Duration::from_millis(1_500)).await;
    let second = watch.sync(&process).await;
    assert_eq!(second["outcome"], "done", "{second}\n{}", process.last_lines());
    // By Salesforce's rule; and by hubferry itself, which knows lengths, forms and options before it asks.
    let refused = |code: &str| second["rejected_by_code"][code].as_u64().unwrap_or_default();
    assert!(refused("FIELD_CUSTOM_VALIDATION_EXCEPTION") >= 1 && refused("SYNC_VALUE") >= 3, "{second}");
    assert!(second["sync"]["reviews_opened"].as_u64() >= Some(3), "{second}");
    assert!(second["rejects"].as_str().is_some_and(|uri| uri.contains(REFUSED)), "{second}");
    assert!(watch.harness.text(second["rejects"].as_str().unwrap()).lines().count() >= 3);
    // Most of it again, with nothing new; then two at once, one of which is busy.
    watch.sync(&process).await;
    let other = watch.process();
    watch.edit(&email(20), &[("lastname", &format!("{MARK} twice"))]);
    let event = json!({ "job": "sync" });
    let (one, two) = tokio::join!(watch.harness.invoke(&event), watch.harness.invoke(&event));
    let outcomes = [one.unwrap(), two.unwrap()];
    assert!(outcomes.iter().any(|answer| answer["outcome"] == "busy"), "{outcomes:?}");
    watch.answers.extend(outcomes);
    watch.retire(other).await;
    watch.retire(process).await;

    let searched = watch.search().await;
    assert_eq!(
        searched.with_values,
        ["link", "review"].map(str::to_owned).into(),
        "values are where they are meant to be"
    );
    assert!(searched.kinds.contains("refused") && searched.kinds.contains("context"), "{:?}", searched.kinds);
    assert!(searched.stored.iter().any(|key| key.starts_with(REFUSED)), "{:?}", searched.stored);
    assert!(searched.stored.iter().any(|key| key.starts_with("reports/sync/")), "{:?}", searched.stored);
    assert!(searched.metrics.iter().any(|line| line["Job"] == "sync" && line["RunsDone"] == 1));
    assert!(searched.traces.iter().any(|trace| trace.contains("sync people")));
    let queries = watch.org().log().iter().filter(|call| call.path.contains("/query")).count();
    assert!(queries > 0 && watch.logs.lines().count() > 50, "there was something to let out");
}

#[tokio::test]
async fn syncs_that_are_stopped_or_may_not_sign_in_let_out_no_value_and_no_token() {
    let mut watch = Watch::boot_with_org(synced_portal(), org()).await;
    let long_ago = machine_clock() - jiff::SignedDuration::from_hours(1);
    let email = |at: usize| format!("{MARK}{at}@example.com");
    let person = |at: usize| vec![("email", email(at)), ("lastname", MARK.to_owned())];
    watch.harness.portal().seed_many(long_ago, "contacts", (0..30).map(person));
    let mut process = watch.process();
    // More than it may make.
    watch.sync_settings("limits: { creates: 5, updates: 5, blanks: 5, deletes: 5 }");
    let limited = watch.sync(&process).await;
    assert_eq!(limited["error"]["code"], "SYNC_LIMIT", "{limited}");
    watch.sync_settings("limits: { creates: 500, updates: 500, blanks: 5, deletes: 5 }");
    watch.retire(process).await;
    process = watch.process();
    let made = watch.sync(&process).await;
    assert_eq!((&made["outcome"], &made["sync"]["salesforce"]["created"]), (&json!("done"), &json!(30)), "{made}");
    // More than it may delete.
    for at in 0..10 {
        let id = watch.contact(&email(at));
        assert!(watch.harness.portal().set_archived(machine_clock(), "contacts", &id, true));
    }
    pause(std::time::Duration::from_millis(1_500)).await;
    let braked = watch.sync(&process).await;
    assert_eq!(braked["error"]["code"], "SYNC_DELETES", "{braked}");
    assert_eq!(watch.org().live_records("Contact").count(), 30, "nothing is deleted");

    // Either system down, or answering what is no answer, or refusing who asks.
    let ends = |watch: &mut Watch| {
        watch.edit(&email(15), &[("lastname", &format!("{MARK} once more"))]);
        watch.tokens.len()
    };
    use salesforce::{Fault as OrgFault, What as OrgWhat};
    let mut codes = BTreeSet::new();
    for fault in [
        OrgFault::always(OrgWhat::NotForRest),
        OrgFault::always(OrgWhat::RequestLimit).on("/services/data"),
        OrgFault::always(OrgWhat::Html(503)).times(8),
        OrgFault::always(OrgWhat::TruncatedBody).times(8),
    ] {
        ends(&mut watch);
        watch.org().add_fault(fault.clone());
        let event = json!({ "job": "sync", "name": "people" });
        // A system that is down is waited for: one invocation is enough to see what it says.
        let answer = watch.harness.invoke_within(&event, 12).await;
        let answer = answer.unwrap_or_else(|error| panic!("{fault:?}: {error}\n{}", process.last_lines()));
        codes.extend(answer["error"]["code"].as_str().map(str::to_owned));
        watch.answers.push(answer);
        watch.org().clear_faults();
    }
    assert!(!codes.is_empty(), "no fault was told: {:?}", watch.answers);
    watch.retire(process).await;
    process = watch.process();
    watch.harness.cloud.secrets().put(
        ORG_SECRET,
        &json!({ "flow": "refresh_token", "login_url": "http://127.0.0.1:1",
        "client_id": "client-of-nobody", "client_secret": "secret-of-nobody", "refresh_token": "refresh-of-nobody" })
        .to_string(),
    );
    watch.tokens.extend(["client-of-nobody", "secret-of-nobody", "refresh-of-nobody"].map(str::to_owned));
    let answer = watch.harness.invoke_within(&json!({ "job": "sync" }), 12).await;
    watch.answers.push(answer.unwrap_or_else(|error| json!(error.to_string())));
    watch.retire(process).await;
    process = watch.process();
    watch.harness.cloud.secrets().put(ORG_SECRET, "unreadable-secret-of-the-org");
    watch.tokens.push("unreadable-secret-of-the-org".to_owned());
    let answer = watch.harness.invoke_within(&json!({ "job": "sync" }), 12).await;
    watch.answers.push(answer.unwrap_or_else(|error| json!(error.to_string())));
    watch.harness.portal().revoke_token(PortalSettings::TOKEN);
    let answer = watch.harness.invoke_within(&json!({ "job": "sync" }), 12).await;
    watch.answers.push(answer.unwrap_or_else(|error| json!(error.to_string())));
    watch.retire(process).await;

    let searched = watch.search().await;
    assert_eq!(searched.with_values, ["link"].map(str::to_owned).into(), "values are where they are meant to be");
    let told = |subject: &str| searched.messages.iter().any(|message| message.replace("%20", " ").contains(subject));
    for subject in ["sync people aborted", "sync people stopped before deleting"] {
        assert!(told(subject), "{subject}: {:?}", searched.messages);
    }
}

/// What is logged in this thread, by whatever library.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// In process and in virtual time: a table behind HTTP would take minutes for so many.
#[tokio::test(start_paused = true)]
async fn bulk_jobs_whose_rows_fail_let_out_no_value() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut settings = sync::org_settings();
    settings.validation = org().validation;
    settings.bulk.queue_ms = 120_000;
    let config = sync::Config::people(&[sync::EMAIL, sync::LAST, sync::PHONE], sync::WIDE);
    let both = sync::Both::with(&config, sync::portal_settings(), settings);
    for at in 0..2_100 {
        let phone = if at % 700 == 9 { format!("forbidden {MARK}") } else { format!("030 {at}") };
        both.h_create(&[("lastname", MARK), ("email", &format!("{MARK}{at}@example.com")), ("phone", &phone)]);
    }
    let report = both.sync(sync::PEOPLE).await;
    assert_eq!(report.rejected_by_code.get("FIELD_CUSTOM_VALIDATION_EXCEPTION"), Some(&3), "{report:?}");
    assert!(sync::told(&report).bulk_jobs >= 1, "{report:?}");
    let mut places = vec![("the report".to_owned(), serde_json::to_string(&report).unwrap())];
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(log.lines().count() > 5 && log.contains("refused"), "hardly anything was logged: {log}");
    places.extend(log.lines().map(|line| ("the log".to_owned(), line.to_owned())));
    for (key, item) in both.world.table.snapshot() {
        if !HOLDS_VALUES.iter().any(|prefix| key.pk.starts_with(prefix)) {
            places.push((format!("the item {}", key.pk), format!("{item:?}")));
        }
    }
    for location in both.world.objects.list(&Location::new(BUCKET, "")).await.unwrap() {
        let bytes = both.world.objects.contents(&location).unwrap();
        places.push((location.to_string(), String::from_utf8_lossy(&bytes).into_owned()));
    }
    assert!(places.iter().any(|(place, _)| place.contains(REFUSED)), "nothing was listed as refused");
    for (place, text) in places {
        let text = text.to_lowercase();
        assert!(!text.contains(MARK), "{MARK} is in {place}: {text}");
        assert!(!text.contains(&OrgSettings::CLIENT_SECRET.to_lowercase()) && !text.contains("!aq"), "{place}: {text}");
    }
}
