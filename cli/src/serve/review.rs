//! The review queue, as the page shows it and decides about it: by the library calls that `hubferry review` and `hubferry status` make.
//!
//! Looking goes through the table's own state, past the DynamoDB endpoint, so that it costs no request and uses up no fault that was armed. Deciding goes
//! the whole way, on doors of its own ([`clerk`]), like a command line beside the function.

use std::{
    cell::Cell,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use hubferry::{
    Error, ErrorKind,
    app::{App, Env, Process, Update, Watcher},
    clock::{Rng, SystemClock},
    codes,
    config::Environment,
    http::{HttpError, HttpService, Sent},
    objects::memory::MemoryObjects,
    secrets::{Redacted, Secrets},
    state::{self, Changed, Condition, Item, Key, Table},
    sync::{
        model::{Choice, Refused, Review},
        resolve::{self, Resolved},
    },
};
use hubferry_simulator::aws::Cloud;
use hyper::{Request, Response};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{
    TABLE,
    stage::{Stage, now},
};
use crate::{
    review::written,
    status::{self, SyncJob},
    turns,
};

/// Decisions that wait for the clerk.
pub(super) const TASKS_MAX: usize = 16;
/// Decisions whose outcome is remembered.
pub(super) const DECISIONS_KEPT: usize = 5;

/// What the page shows of syncs.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// The settings' syncs, as `hubferry status` tells of them.
    pub(super) syncs: Vec<SyncJob>,
    /// What waits for a person, the oldest first.
    pub(super) reviews: Vec<Review>,
    /// What one of the two systems will not take, with the sync's name.
    pub(super) refused: Vec<(String, Refused)>,
    /// Why nothing could be looked at.
    pub(super) trouble: Option<String>,
}

impl Desk {
    /// What a person can still decide on.
    pub(super) fn undecided(&self) -> usize {
        self.reviews.iter().filter(|review| review.choice.is_none()).count()
    }
}

/// The state of all syncs, now.
pub(super) fn look(stage: &Stage) -> Desk {
    let looked = at_once(async {
        let app = behind_glass(stage)?;
        let syncs = status::look(&app, "", false).await?.syncs;
        let reviews = resolve::list(&app, None).await?;
        let refused = resolve::refused(&app, None).await?;
        anyhow::Ok(Desk { syncs, reviews, refused, trouble: None })
    });
    let trouble = match looked {
        Some(Ok(desk)) => return desk,
        Some(Err(error)) => format!("{error:#}"),
        None => "looking would take a call".to_owned(),
    };
    Desk { trouble: Some(trouble), ..Desk::default() }
}

/// The value of a future that never waits.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// An app that sees the table and has nothing else.
fn behind_glass(stage: &Stage) -> hubferry::Result<App> {
    let env = Env {
        clock: Rc::new(SystemClock::new()),
        rng: Rc::new(Rng::from_system()),
        http: Rc::new(Closed),
        objects: Rc::new(MemoryObjects::new()),
        table: Rc::new(Glass(Arc::clone(&stage.cloud))),
        secrets: Rc::new(Closed),
        queue: None,
        memory_mb: Cell::new(0),
        watcher: None,
        stop: Cell::new(false),
    };
    App::new(Rc::new(env), Rc::new(stage.settings().config.clone()))
}

/// The table, to be looked at.
struct Glass(Arc<Cloud>);

impl Glass {
    fn item(&self, key: &Key) -> Option<Item> {
        let item = self.0.item(TABLE, &key.pk, &key.sk)?;
        let attribute = |(name, value): (&String, &serde_json::Value)| {
            let text = |kind: &str| value.get(kind).and_then(serde_json::Value::as_str);
            let value = match (text("S"), text("N").and_then(|number| number.parse().ok())) {
                (Some(text), _) => state::Value::S(text.to_owned()),
                (None, Some(number)) => state::Value::N(number),
                (None, None) => return None,
            };
            (!matches!(name.as_str(), "pk" | "sk")).then(|| (name.clone(), value))
        };
        Some(item.as_object()?.iter().filter_map(attribute).collect())
    }
}

fn only_looked_at() -> Error {
    Error::new(ErrorKind::Forbidden, codes::STATE_UNAVAILABLE, "the table is only looked at here")
}

#[async_trait(?Send)]
impl Table for Glass {
    async fn get(&self, key: &Key) -> hubferry::Result<Option<Item>> {
        Ok(self.item(key))
    }

    async fn update(&self, _: &Key, _: state::Update) -> hubferry::Result<Changed> {
        Err(only_looked_at())
    }

    async fn delete(&self, _: &Key, _: Option<Condition>) -> hubferry::Result<bool> {
        Err(only_looked_at())
    }

    async fn query(&self, pk: &str, limit: usize) -> hubferry::Result<Vec<(Key, Item)>> {
        let keys = self.0.sort_keys(TABLE, pk, limit).into_iter().map(|sk| Key::new(pk, sk));
        Ok(keys.filter_map(|key| self.item(&key).map(|item| (key, item))).collect())
    }

    fn writes(&self) -> u64 {
        0
    }
}

/// A door that nobody needs for looking.
struct Closed;

#[async_trait(?Send)]
impl HttpService for Closed {
    async fn call(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        Err(HttpError { sent: Sent::Never, message: "looking makes no calls".to_owned() })
    }
}

#[async_trait(?Send)]
impl Secrets for Closed {
    async fn get(&self, _: &str) -> hubferry::Result<Redacted> {
        Err(only_looked_at())
    }

    async fn put(&self, _: &str, _: &Redacted, _: &str) -> hubferry::Result<()> {
        Err(only_looked_at())
    }
}

/// A decision on its way to the clerk.
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) id: String,
    /// The [`seal`] of what the person saw.
    pub(super) shown: String,
    pub(super) choice: Choice,
    /// Told when the outcome is known.
    pub(super) done: oneshot::Sender<()>,
}

/// A decision of a person's, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) number: u64,
    pub(super) at: Timestamp,
    /// The review.
    pub(super) id: String,
    pub(super) state: Decided,
}

/// What became of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decided {
    /// The clerk is at it.
    Working,
    /// It was carried out: what was written.
    Applied(String),
    /// It was not: the review is no longer what was shown, or the value cannot be written. Why.
    Open(Vec<String>),
    /// It is stored; this run is at work first.
    Waits(String),
    /// It could not be: what is wrong, and what to do.
    Failed(String, String),
}

/// Tells one state of a review from another, in a form of the page.
pub(super) fn seal(review: &Review) -> String {
    format!("{}-{}", review.opened_at.as_millisecond(), review.version)
}

/// Carries decisions out, one after the other, as long as somebody can make any.
pub(super) async fn clerk(environment: Environment, stage: Arc<Stage>, mut tasks: mpsc::Receiver<Task>) {
    let watched = Arc::clone(&stage);
    let watcher: Watcher = Rc::new(move |update: &Update| watched.update(update));
    let process = Process::start(environment, Some(watcher)).await;
    while let Some(task) = tasks.recv().await {
        let decided = match &process {
            Ok(process) => Box::pin(decide(process, &task)).await,
            Err(error) => Decided::Failed(error.message().to_owned(), error.hint().to_owned()),
        };
        if matches!(decided, Decided::Waits(_)) {
            // Soon, also where no schedule comes; asked too much, the next sync does it.
            stage.ask(json!({ "job": "sync" }));
        }
        stage.decided(task.number, decided);
        // Who made it may have gone on to another page.
        let _ = task.done.send(());
    }
}

async fn decide(process: &Process, task: &Task) -> Decided {
    let work = async {
        let app = process.app().await?;
        let review = resolve::show(&app, &task.id).await?;
        if seal(&review) != task.shown {
            let why = "it is no longer what was shown to you; look at it again".to_owned();
            return Ok(Decided::Open(vec![why]));
        }
        let (deadline, owner) = turns::begin(app.env())?;
        let resolving = resolve::resolve(&app, &task.id, task.choice.clone(), deadline, &owner);
        anyhow::Ok(match Box::pin(resolving).await? {
            Resolved::Applied(report) => Decided::Applied(written(&report)),
            Resolved::Open(_, why) => Decided::Open(why),
            Resolved::Waits(run_id) => Decided::Waits(run_id),
        })
    };
    work.await.unwrap_or_else(|error| match error.downcast_ref::<Error>() {
        Some(error) => Decided::Failed(error.message().to_owned(), error.hint().to_owned()),
        None => Decided::Failed(format!("{error:#}"), String::new()),
    })
}

/// Hands a person's decision to the clerk. Told when it is carried out; the error is for people.
pub(super) fn resolve(stage: &Stage, id: &str, shown: &str, choice: Choice) -> Result<oneshot::Receiver<()>, String> {
    let (done, told) = oneshot::channel();
    let decision = Decision { number: stage.next_number(), at: now(), id: id.to_owned(), state: Decided::Working };
    let task = Task { number: decision.number, id: id.to_owned(), shown: shown.to_owned(), choice, done };
    if stage.hand_over(task, decision) {
        Ok(told)
    } else {
        Err("Much was decided already: wait until some of it is carried out.".to_owned())
    }
}
