//! What leaves an invocation besides its answer, of whole jobs: once for each run, whatever becomes of it.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, time::Duration};

use hubferry::{
    ErrorKind,
    app::{Answer, App, Signals},
    clock::{Clock, Deadline},
    codes,
    notify::{MemoryTopic, Topic},
    report::{Outcome, Report},
    trace::{Daemon, Tracer},
};
use serde_json::{Value, json};

use crate::support::{World, contacts, report};

const NOTIFY: &str = "notify: { sns_topic_arn: \"arn:aws:sns:us-east-1:000000000000:alerts\" }\ntraces: xray\n";
const HEADER: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

/// A world whose signals are caught.
struct Watched {
    world: World,
    lines: Rc<RefCell<Vec<Value>>>,
    topic: Rc<MemoryTopic>,
    segments: Rc<RefCell<Vec<Value>>>,
    tracer: Rc<Tracer>,
}

struct Segments(Rc<RefCell<Vec<Value>>>);

impl Daemon for Segments {
    fn send(&self, datagram: &[u8]) {
        let text = std::str::from_utf8(datagram).unwrap();
        let (_, document) = text.split_once('\n').unwrap();
        self.0.borrow_mut().push(serde_json::from_str(document).unwrap());
    }
}

impl Watched {
    fn new(config: &str) -> Self {
        let world = World::new(&format!("{config}{NOTIFY}"));
        let segments = Rc::new(RefCell::default());
        let daemon = Box::new(Segments(Rc::clone(&segments)));
        let tracer = Rc::new(Tracer::new(daemon, world.clock.clone(), world.rng.clone()));
        Self { world, lines: Rc::default(), topic: Rc::new(MemoryTopic::new()), segments, tracer }
    }

    /// A new process, with signals.
    fn process(&self) -> App {
        let lines = self.lines.clone();
        self.world.process().with_signals(Signals {
            metrics: Some(Rc::new(move |line: &str| lines.borrow_mut().push(serde_json::from_str(line).unwrap()))),
            notices: true,
            topic: Some(self.topic.clone() as Rc<dyn Topic>),
            tracer: Some(self.tracer.clone()),
        })
    }

    async fn handle(&self, event: &Value, seconds: i64) -> hubferry::Result<Answer> {
        self.tracer.begin(Some(HEADER));
        let answer = self.process().handle(event.clone(), self.world.deadline(seconds), "me").await;
        self.tracer.end();
        answer
    }

    async fn import(&self, key: &str, text: &str) -> Report {
        let event = self.world.upload(key, text.to_owned()).await;
        report(self.handle(&event, 900).await.unwrap())
    }

    fn lines(&self) -> Vec<Value> {
        self.lines.take()
    }

    /// The first lines of the messages that went out.
    fn told(&self) -> Vec<String> {
        self.topic.take().into_iter().map(|(_, message)| message.subject).collect()
    }
}

fn rows(count: usize) -> String {
    let mut text = String::from("email,firstname\n");
    for number in 0..count {
        let at = if number % 100 == 7 { "" } else { "@x.io" };
        text.push_str(&format!("person{number}{at},Ada\n"));
    }
    text
}

fn sum(lines: &[Value], name: &str) -> u64 {
    lines.iter().filter_map(|line| line[name].as_u64()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_run_over_several_invocations_is_counted_once_and_its_sums_are_its_reports() {
    let watched = Watched::new(&contacts(""));
    let event = watched.world.upload("incoming/contacts/a.csv", rows(20_000)).await;
    let mut last = report(watched.handle(&event, 6).await.unwrap());
    let mut yields = 0;
    while last.outcome == Outcome::Yielded {
        yields += 1;
        assert!(yields < 50, "{last:?}");
        let (body, _) = watched.world.queue.take().remove(0);
        last = report(watched.handle(&serde_json::from_str(&body).unwrap(), 6).await.unwrap());
    }
    assert_eq!((last.outcome, last.rows.read), (Outcome::Done, 20_000));
    assert!(yields >= 2, "{yields}");
    let lines = watched.lines();
    assert_eq!(lines.len() as u64, yields + 1);
    assert_eq!(sum(&lines, "RunsYielded"), yields);
    assert_eq!((sum(&lines, "RunsDone"), sum(&lines, "RunsFailed")), (1, 0));
    for (name, expected) in [
        ("RowsRead", last.rows.read),
        ("RowsCreated", last.rows.created),
        ("RowsRejected", last.rows.rejected),
        ("Calls", last.calls.total),
        ("DynamoDbWrites", last.cost.dynamodb_writes),
        ("S3Requests", last.cost.s3_requests),
        ("DurationMs", last.duration_ms),
    ] {
        assert_eq!(sum(&lines, name), expected, "{name}");
    }
    let gauges = |name: &str| lines.iter().filter(|line| line[name].is_number()).count();
    assert_eq!(gauges("RejectPercent"), lines.len(), "what may alarm is seen before the end");
    assert!(lines.iter().all(|line| line["Job"] == "import" && line["Name"] == "contacts"));
}

#[tokio::test(start_paused = true)]
async fn a_redelivered_event_is_told_to_nobody() {
    let watched = Watched::new(&contacts("abort_if_rejected: 1"));
    let event = watched.world.upload("incoming/contacts/a.csv", "email\nbroken\nbroken2\n").await;
    let first = report(watched.handle(&event, 900).await.unwrap());
    assert_eq!(first.outcome, Outcome::Aborted);
    assert_eq!((watched.lines().len(), watched.told().len()), (1, 1));
    watched.world.clock.sleep(Duration::from_secs(7_200)).await;
    let again = report(watched.handle(&event, 900).await.unwrap());
    assert_eq!(again.outcome, Outcome::Duplicate);
    assert_eq!((watched.lines().len(), watched.told().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn failure_brake_rejects_and_recovery_reach_people_and_a_topic_that_fails_harms_no_run() {
    let watched = Watched::new(&contacts("mode: mirror\nabort_if_rejected: 90%"));
    let many: String = (0..40).map(|number| format!("p{number}@x.io\n")).collect();
    assert_eq!(watched.import("incoming/contacts/a.csv", &format!("email\n{many}")).await.outcome, Outcome::Done);
    assert_eq!(watched.told(), [] as [String; 0]);
    let braked = watched.import("incoming/contacts/a.csv", "email\np1@x.io\n").await;
    assert_eq!(braked.outcome, Outcome::Aborted);
    assert_eq!(watched.told(), ["hubferry: import contacts stopped before deleting (MIRROR_BRAKE)"]);
    let few: String = (0..10).map(|number| format!("broken{number}\n")).collect();
    let good = watched.import("incoming/contacts/a.csv", &format!("email\n{many}{few}")).await;
    assert_eq!((good.outcome, good.rows.rejected), (Outcome::Done, 10), "{good:?}");
    assert_eq!(
        watched.told(),
        ["hubferry: import contacts works again", "hubferry: import contacts rejected 10 of 50 rows"]
    );

    watched.topic.fail_next(ErrorKind::Forbidden, codes::NOTICE_FAILED);
    let invalid = watched.import("incoming/contacts/a.csv", "nothing,known\n1,2\n").await;
    assert_eq!(invalid.outcome, Outcome::Invalid);
    assert_eq!(watched.told(), [] as [String; 0]);
    watched.world.clock.sleep(Duration::from_secs(600)).await;
    let swept = watched.handle(&json!({ "job": "resume" }), 900).await.unwrap();
    assert!(matches!(swept, Answer::Nothing(_)), "{swept:?}");
    let told = watched.told();
    assert!(told.len() == 1 && told[0].starts_with("hubferry: import contacts invalid ("), "by the schedule: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_gone_before_it_was_read_is_a_failure_that_is_told() {
    let watched = Watched::new(&contacts(""));
    let mut event = watched.world.upload("incoming/contacts/a.csv", "email\na@x.io\n").await;
    event["Records"][0]["s3"]["object"]["key"] = json!("incoming/contacts/gone.csv");
    event["Records"][0]["s3"]["object"]["versionId"] = Value::Null;
    let gone = report(watched.handle(&event, 900).await.unwrap());
    assert_eq!(gone.outcome, Outcome::Failed);
    assert_eq!(sum(&watched.lines(), "RunsFailed"), 1);
    assert_eq!(watched.told(), ["hubferry: import contacts failed (SOURCE_GONE)"]);
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_batch_are_signalled_one_by_one() {
    let watched = Watched::new(&contacts(""));
    let mut messages = Vec::new();
    for number in 0..3 {
        let event = watched.world.upload(&format!("incoming/contacts/{number}.csv"), "email\na@x.io\n").await;
        messages.push(json!({ "messageId": number.to_string(), "eventSource": "aws:sqs", "body": event.to_string() }));
    }
    watched.handle(&json!({ "Records": messages }), 900).await.unwrap();
    let lines = watched.lines();
    assert_eq!((lines.len(), sum(&lines, "RunsDone")), (3, 3), "{lines:?}");
    let segments = watched.segments.take();
    let runs: BTreeSet<&str> = segments.iter().filter_map(|one| one["annotations"]["run_id"].as_str()).collect();
    assert_eq!((segments.len(), runs.len()), (3, 3), "{segments:?}");
}

#[tokio::test(start_paused = true)]
async fn a_capture_sends_its_lag_and_the_days_use_where_hubspot_tells_it() {
    let config = "version: 1\nhubspot: { default: { secret: hubferry/hubspot } }\ncaptures:\n  - { name: people, resource: crm.contacts, output: s3://crm/out/ }\n";
    let watched = Watched::new(config);
    watched.world.portal.borrow_mut().seed_record(watched.world.clock.now(), "contacts", &[("email", "a@x.io")]);
    for _ in 0..3 {
        watched.world.clock.sleep(Duration::from_secs(300)).await;
        watched.handle(&json!({ "job": "capture", "name": "people" }), 900).await.unwrap();
    }
    let lines = watched.lines();
    let last = lines.last().unwrap();
    assert_eq!((&last["Job"], &last["RunsDone"]), (&json!("capture"), &json!(1)), "{last}");
    assert!(last["LagSeconds"].as_u64().is_some_and(|lag| (30..60).contains(&lag)), "{last}");
    assert!(last["DailyUsePercent"].as_f64().is_some_and(|share| share < 1.0), "{last}");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_nobody_asked_for_signals_sends_none() {
    let watched = Watched::new(&contacts(""));
    let event = watched.world.upload("incoming/contacts/a.csv", "nothing,known\n1,2\n").await;
    let answer = watched.world.process().handle(event, Deadline::NONE, "me").await.unwrap();
    assert_eq!(report(answer).outcome, Outcome::Invalid);
    assert_eq!((watched.lines().len(), watched.told().len(), watched.segments.take().len()), (0, 0, 0));
}
