//! Messages against the table: who tells, how often, and what happens when nobody can be told.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};

use super::*;
use crate::{
    clock::{Clock, Rng, VirtualClock},
    config::load,
    http::{HttpError, HttpService},
    objects::memory::MemoryObjects,
    report::{Counts, Outcome, ReportError},
    secrets::MemorySecrets,
    state::memory::MemoryTable,
};

const ARN: &str = "arn:aws:sns:us-east-1:000000000000:alerts";
const WEBHOOK: &str = "https://hooks.slack.com/services/T/B/zanzibar";

/// Stands for Slack: an answer's status, or none at all.
struct Slack {
    clock: Rc<VirtualClock>,
    status: Cell<Option<u16>>,
    takes: Cell<Duration>,
    posted: RefCell<Vec<String>>,
}

#[async_trait(?Send)]
impl HttpService for Slack {
    async fn call(&self, request: Request<Bytes>) -> std::result::Result<Response<Bytes>, HttpError> {
        assert_eq!(request.uri().to_string(), WEBHOOK);
        self.clock.sleep(self.takes.get()).await;
        let Some(status) = self.status.get() else {
            return Err(HttpError { sent: Sent::Never, message: "connection refused".to_owned() });
        };
        if status == 200 {
            let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            self.posted.borrow_mut().push(body["text"].as_str().unwrap().to_owned());
        }
        let mut response = Response::new(Bytes::from_static(b"ok"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}

struct World {
    env: Env,
    clock: Rc<VirtualClock>,
    slack: Rc<Slack>,
    topic: Rc<MemoryTopic>,
    door: Rc<dyn Topic>,
    config: Config,
    runs: Runs,
    started: Cell<u64>,
}

impl World {
    fn new() -> Self {
        Self::with(
            "{ slack_webhook_secret: hubferry/slack, sns_topic_arn: \"arn:aws:sns:us-east-1:000000000000:alerts\" }",
        )
    }

    fn with(notify: &str) -> Self {
        let clock = Rc::new(VirtualClock::starting_at("2026-03-02T09:00:00Z".parse().unwrap()));
        let slack = Rc::new(Slack {
            clock: clock.clone(),
            status: Cell::new(Some(200)),
            takes: Cell::new(Duration::from_millis(100)),
            posted: RefCell::default(),
        });
        let secrets = MemorySecrets::new();
        secrets.insert("hubferry/slack", WEBHOOK);
        let table = Rc::new(MemoryTable::new());
        let env = Env {
            clock: clock.clone(),
            rng: Rc::new(Rng::seeded(1)),
            http: slack.clone(),
            objects: Rc::new(MemoryObjects::versioned()),
            table: table.clone(),
            secrets: Rc::new(secrets),
            queue: None,
            memory_mb: Cell::new(0),
            watcher: None,
            stop: Cell::new(false),
        };
        let text = format!(
            "version: 1\nhubspot: {{ default: {{ secret: s }} }}\nimports:\n  - {{ name: contacts, match: a/*, object: contacts, key: email }}\nnotify: {notify}\n"
        );
        let topic = Rc::new(MemoryTopic::new());
        Self {
            env,
            slack,
            door: topic.clone(),
            topic,
            config: load::parse(&text, "hubferry.yaml").unwrap(),
            runs: Runs::new(table, clock.clone()),
            clock,
            started: Cell::new(0),
        }
    }

    fn notifier(&self) -> Notifier<'_> {
        Notifier { env: &self.env, settings: &self.config.notify, topic: Some(&self.door) }
    }

    /// A run that ends so is told, if it is worth it; the subjects that went out, and through which ways.
    async fn run(&self, outcome: Outcome, rejected: u64) -> Vec<String> {
        let report = self.report(outcome, rejected);
        self.notifier().tell(&report, Deadline::NONE).await;
        self.told()
    }

    fn report(&self, outcome: Outcome, rejected: u64) -> Report {
        self.started.set(self.started.get() + 1);
        let (now, id) = (self.clock.now(), format!("R{}", self.started.get()));
        let mut report = crate::import::blank_report("contacts", "default", Some(id), Default::default(), now, now);
        report.outcome = outcome;
        report.rows = Counts { read: 1_000, rejected, created: 1_000 - rejected, ..Counts::default() };
        if outcome != Outcome::Done {
            let code = if outcome == Outcome::Aborted { "MIRROR_BRAKE" } else { "TOKEN_REFUSED" };
            report.error = Some(ReportError { code: code.to_owned(), message: "m".to_owned(), hint: "h.".to_owned() });
        }
        report
    }

    /// What both ways got, which is the same.
    fn told(&self) -> Vec<String> {
        let slack = self.slack.posted.take();
        let sns: Vec<String> = self.topic.take().into_iter().map(|(_, message)| message.text).collect();
        assert_eq!(slack, sns);
        slack
    }

    async fn minutes(&self, minutes: u64) {
        self.clock.sleep(Duration::from_secs(minutes * 60)).await;
    }

    /// A run in the table, ended with a report: what the schedule looks up.
    async fn stored(&self, outcome: Outcome) -> Report {
        let report = self.report(outcome, 0);
        let run_id = report.run_id.clone().unwrap();
        let source = crate::state::runs::RunSource {
            bucket: "crm".to_owned(),
            key: format!("a/{run_id}"),
            version_id: None,
            etag: "e".to_owned(),
            size: 1,
            sequencer: None,
        };
        self.runs.admit("import", "contacts", &source, "", &run_id, |_| false).await.unwrap();
        let crate::state::runs::Leased::Yes(lease, _) = self.runs.lease(&run_id, "me", Deadline::NONE).await.unwrap()
        else {
            panic!()
        };
        self.runs.finish(&lease, &report).await.unwrap();
        self.notifier().tell(&report, Deadline::NONE).await;
        report
    }

    async fn sweep(&self) -> Vec<String> {
        self.notifier().catch_up(&self.config, &self.runs, Deadline::NONE).await;
        self.told()
    }
}

fn first_line(messages: &[String]) -> Vec<&str> {
    messages.iter().map(|message| message.lines().next().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_once_an_hour_and_the_first_good_run_after_it_once() {
    let world = World::new();
    assert_eq!(world.run(Outcome::Done, 0).await, [] as [String; 0]);
    let told = world.run(Outcome::Failed, 0).await;
    assert_eq!(first_line(&told), ["hubferry: import contacts failed (TOKEN_REFUSED)"]);
    for _ in 0..3 {
        world.minutes(10).await;
        assert_eq!(world.run(Outcome::Failed, 0).await, [] as [String; 0]);
    }
    world.minutes(31).await;
    let told = world.run(Outcome::Failed, 0).await;
    assert!(told[0].ends_with("3 more messages like this were held back in the last hour"), "{told:?}");
    let told = world.run(Outcome::Done, 0).await;
    assert_eq!(first_line(&told), ["hubferry: import contacts works again"]);
    assert_eq!(world.run(Outcome::Done, 0).await, [] as [String; 0]);
    world.minutes(61).await;
    let told = world.run(Outcome::Failed, 0).await;
    assert!(!told[0].contains("held back"), "counted once: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn kinds_have_an_hour_of_their_own_each() {
    let world = World::new();
    assert_eq!(world.run(Outcome::Failed, 0).await.len(), 1);
    let told = world.run(Outcome::Aborted, 0).await;
    assert_eq!(first_line(&told), ["hubferry: import contacts stopped before deleting (MIRROR_BRAKE)"]);
    let told = world.run(Outcome::Done, 200).await;
    assert_eq!(
        first_line(&told),
        ["hubferry: import contacts works again", "hubferry: import contacts rejected 200 of 1000 rows"]
    );
}

#[tokio::test(start_paused = true)]
async fn rejects_are_measured_by_the_last_good_run() {
    let world = World::new();
    world.run(Outcome::Done, 10).await;
    assert_eq!(world.run(Outcome::Done, 29).await, [] as [String; 0]);
    assert_eq!(world.run(Outcome::Done, 88).await.len(), 1, "three times 29");
}

#[tokio::test(start_paused = true)]
async fn of_two_invocations_one_tells() {
    let world = World::new();
    let (one, other) = (world.report(Outcome::Failed, 0), world.report(Outcome::Failed, 0));
    let notifier = world.notifier();
    futures_util::future::join(notifier.tell(&one, Deadline::NONE), notifier.tell(&other, Deadline::NONE)).await;
    assert_eq!(world.told().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_within_the_hour_of_another_is_told_by_the_schedule_unless_it_is_mended() {
    let world = World::new();
    world.stored(Outcome::Failed).await;
    world.minutes(5).await;
    world.stored(Outcome::Done).await;
    assert_eq!(first_line(&world.told()).len(), 2);
    world.minutes(5).await;
    let second = world.stored(Outcome::Failed).await;
    assert_eq!(world.told(), [] as [String; 0], "it fell into the hour of the first");
    assert_eq!(world.sweep().await, [] as [String; 0]);
    world.minutes(51).await;
    let told = world.sweep().await;
    assert!(told.len() == 1 && told[0].contains(second.run_id.as_deref().unwrap()), "{told:?}");
    assert_eq!(world.sweep().await, [] as [String; 0], "once");

    world.minutes(5).await;
    world.stored(Outcome::Done).await;
    assert_eq!(world.told().len(), 1);
    world.minutes(1).await;
    world.stored(Outcome::Failed).await;
    world.minutes(1).await;
    world.stored(Outcome::Done).await;
    world.minutes(120).await;
    assert_eq!(world.told(), [] as [String; 0]);
    assert_eq!(world.sweep().await, [] as [String; 0], "it works, and that is what was told last");
}

#[tokio::test(start_paused = true)]
async fn a_recovery_within_the_hour_of_another_is_told_by_the_schedule() {
    let world = World::new();
    for outcome in [Outcome::Failed, Outcome::Done] {
        world.stored(outcome).await;
    }
    world.minutes(59).await;
    assert_eq!(world.told().len(), 2);
    world.minutes(1).await;
    world.stored(Outcome::Failed).await;
    assert_eq!(world.told().len(), 1, "its hour was over");
    // The recovery was told some hundred milliseconds after the failure.
    world.stored(Outcome::Done).await;
    let told = world.told();
    world.minutes(1).await;
    let late = world.sweep().await;
    assert_eq!(first_line(&[told, late].concat()), ["hubferry: import contacts works again"]);
}

#[tokio::test(start_paused = true)]
async fn one_way_that_fails_does_not_keep_the_message_from_the_other() {
    let world = World::new();
    world.slack.status.set(Some(404));
    world.notifier().tell(&world.report(Outcome::Failed, 0), Deadline::NONE).await;
    assert_eq!(world.topic.take().len(), 1);
    assert_eq!(world.slack.posted.take().len(), 0);
    world.slack.status.set(Some(200));
    assert_eq!(world.run(Outcome::Failed, 0).await, [] as [String; 0], "it was told");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_went_nowhere_is_tried_again_after_some_minutes() {
    let world = World::new();
    world.slack.status.set(None);
    world.topic.fail_next(ErrorKind::Forbidden, codes::NOTICE_FAILED);
    assert_eq!(world.run(Outcome::Failed, 0).await, [] as [String; 0]);
    world.slack.status.set(Some(200));
    world.minutes(4).await;
    assert_eq!(world.run(Outcome::Failed, 0).await, [] as [String; 0]);
    world.minutes(2).await;
    assert_eq!(world.run(Outcome::Failed, 0).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_hangs_takes_three_seconds_and_nothing_past_the_deadline() {
    let world = World::new();
    world.slack.takes.set(Duration::from_secs(600));
    let began = world.clock.elapsed();
    world.notifier().tell(&world.report(Outcome::Failed, 0), Deadline::NONE).await;
    assert_eq!((world.clock.elapsed() - began).as_secs(), 3);
    assert_eq!(world.topic.take().len(), 1, "the other way went beside it");

    world.minutes(61).await;
    let began = world.clock.elapsed();
    let until = |seconds| Deadline { at: world.clock.now() + Duration::from_millis(seconds) };
    world.notifier().tell(&world.report(Outcome::Failed, 0), until(2_500)).await;
    assert_eq!((world.clock.elapsed() - began).as_millis(), 1_500, "a second is left for the answer");
    world.minutes(61).await;
    let began = world.clock.elapsed();
    world.notifier().tell(&world.report(Outcome::Failed, 0), until(1_900)).await;
    assert_eq!(world.clock.elapsed(), began, "too late to begin");
}

#[tokio::test(start_paused = true)]
async fn without_anybody_to_tell_nothing_is_read_or_written() {
    let world = World::with("{}");
    world.run(Outcome::Failed, 0).await;
    assert_eq!(world.env.table.writes(), 0);
    let world = World::new();
    world.run(Outcome::Done, 0).await;
    let writes = world.env.table.writes();
    world.run(Outcome::Done, 0).await;
    assert_eq!(world.env.table.writes(), writes, "a good run like the last one costs a read");
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_a_job_that_runs_is_not_forgotten() {
    let world = World::new();
    world.run(Outcome::Done, 10).await;
    for _ in 0..4 {
        world.minutes(60 * 24 * 50).await;
        world.run(Outcome::Done, 10).await;
        let item = world.env.table.get(&key("import", "contacts")).await.unwrap().unwrap();
        let left = Remembered::from(&item).expires_at - world.clock.now().as_second();
        assert!(left > 24 * 3_600 * 30, "{left}");
    }
    assert_eq!(ARN, world.config.notify.sns_topic_arn.as_deref().unwrap());
}
