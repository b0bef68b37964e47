//! The composition root: settings become clients, clients become jobs. The only module that names the concrete types behind
//! the doors.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use lambda_runtime::{Diagnostic, LambdaEvent};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    aws::Aws,
    clock::{Clock, Deadline, Rng, SystemClock},
    codes,
    config::{Config, environment::Environment, load},
    error::{Error, ErrorKind, Result},
    event::{self, Event},
    http::{HttpService, client::ReqwestService},
    hubspot::account::{Account, AccountParts},
    import,
    import::progress::Update,
    objects::{Location, Objects},
    queue::Queue,
    report::{Outcome, Report},
    secrets::Secrets,
    state::{Table, runs::Runs},
};

/// The doors, open.
pub struct Env {
    /// Time.
    pub clock: Rc<dyn Clock>,
    /// Chance.
    pub rng: Rc<Rng>,
    /// HubSpot and Salesforce.
    pub http: Rc<dyn HttpService>,
    /// Files.
    pub objects: Rc<dyn Objects>,
    /// State.
    pub table: Rc<dyn Table>,
    /// Tokens.
    pub secrets: Rc<dyn Secrets>,
    /// Continuations; without it the sweep finds them.
    pub queue: Option<Rc<dyn Queue>>,
    /// Memory configured on Lambda, in MB.
    pub memory_mb: Option<u32>,
    /// Who watches.
    pub watcher: Option<Rc<dyn Fn(&Update)>>,
}

impl Env {
    /// Tells who watches.
    pub fn tell(&self, update: &Update) {
        if let Some(watcher) = &self.watcher {
            watcher(update);
        }
    }
}

/// What an invocation answers.
#[derive(Debug)]
pub enum Answer {
    /// A run's report.
    Report(Box<Report>),
    /// Several.
    Several(Vec<Answer>),
    /// There was nothing to do, and why.
    Nothing(String),
    /// What became of a batch of SQS messages: which are to be delivered again, and the answers of all.
    Batch {
        /// Ids of the messages that failed.
        failures: Vec<String>,
        /// Answers, and errors.
        answers: Vec<Value>,
    },
}

impl Serialize for Answer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Report(report) => report.serialize(serializer),
            Self::Several(answers) => answers.serialize(serializer),
            Self::Nothing(message) => json!({ "outcome": "nothing", "message": message }).serialize(serializer),
            Self::Batch { failures, answers } => {
                let failures: Vec<Value> = failures.iter().map(|id| json!({ "itemIdentifier": id })).collect();
                json!({ "batchItemFailures": failures, "answers": answers }).serialize(serializer)
            }
        }
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self { error_type: error.code().as_str().to_owned(), error_message: format!("{}. {}", error.message(), error.hint()) }
    }
}

/// Clients and settings of one process: built once, used by every invocation.
pub struct App {
    env: Rc<Env>,
    config: Rc<Config>,
    runs: Rc<Runs>,
    accounts: RefCell<BTreeMap<String, Rc<Account>>>,
}

impl App {
    /// An app on these doors.
    pub fn new(env: Rc<Env>, config: Rc<Config>) -> Self {
        let runs = Rc::new(Runs::new(env.table.clone(), env.clock.clone()));
        Self { env, config, runs, accounts: RefCell::default() }
    }

    /// The doors.
    pub fn env(&self) -> &Rc<Env> {
        &self.env
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs and contexts.
    pub fn runs(&self) -> &Rc<Runs> {
        &self.runs
    }

    /// The HubSpot account of this name; its token, limits and property definitions live as long as the process.
    pub fn account(&self, name: &str) -> Result<Rc<Account>> {
        if let Some(account) = self.accounts.borrow().get(name) {
            return Ok(account.clone());
        }
        let settings = self.config.hubspot.get(name).ok_or_else(|| {
            Error::invalid(codes::NAME_UNKNOWN, format!("hubferry.yaml has no HubSpot account `{name}`"))
        })?;
        let account = Rc::new(Account::new(AccountParts {
            name: name.to_owned(),
            settings: settings.clone(),
            http: self.env.http.clone(),
            clock: self.env.clock.clone(),
            rng: self.env.rng.clone(),
            secrets: self.env.secrets.clone(),
        }));
        self.accounts.borrow_mut().insert(name.to_owned(), account.clone());
        Ok(account)
    }

    /// Does what an event asks for. `owner` is unique to the invocation.
    pub async fn handle(&self, event: Value, deadline: Deadline, owner: &str) -> Result<Answer> {
        self.dispatch(event::parse(event)?, deadline, owner).await
    }

    async fn dispatch(&self, event: Event, deadline: Deadline, owner: &str) -> Result<Answer> {
        match event {
            Event::Imports(sources) => {
                let mut answers = Vec::new();
                for source in &sources {
                    answers.push(import::on_object(self, source, deadline, owner).await?);
                }
                Ok(match answers.len() {
                    1 => answers.remove(0),
                    _ => Answer::Several(answers),
                })
            }
            Event::Sqs(messages) => {
                let (mut failures, mut answers) = (Vec::new(), Vec::new());
                for message in messages {
                    let result = match message.body {
                        Ok(event) => Box::pin(self.dispatch(*event, deadline, owner)).await,
                        Err(error) => Err(error),
                    };
                    match result {
                        Ok(answer) => answers.push(serde_json::to_value(&answer).unwrap_or_default()),
                        Err(error) => {
                            tracing::error!(error_code = %error.code(), message_id = message.message_id, "{error:?}");
                            answers.push(json!({ "error": crate::report::ReportError::from(&error) }));
                            failures.push(message.message_id);
                        }
                    }
                }
                Ok(Answer::Batch { failures, answers })
            }
            Event::Resume { run_id: Some(run_id) } => {
                let run = self.runs.get(&run_id).await?.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, codes::NAME_UNKNOWN, format!("there is no run {run_id}"))
                })?;
                import::resume(self, &run, deadline, owner).await
            }
            Event::Resume { run_id: None } => self.sweep(deadline, owner).await,
            Event::Capture { .. } => Err(unavailable("capture")),
            Event::Sync { .. } => Err(unavailable("sync")),
            Event::Nothing(message) => {
                tracing::info!("{message}");
                Ok(Answer::Nothing(message))
            }
        }
    }

    /// Goes on with every run that was cut off and that nobody holds.
    async fn sweep(&self, deadline: Deadline, owner: &str) -> Result<Answer> {
        let mut answers = Vec::new();
        for run_id in self.runs.open_runs().await? {
            let Some(run) = self.runs.get(&run_id).await? else {
                // Its maker died before it made the run; the event will come again.
                self.runs.close(&run_id).await?;
                continue;
            };
            if run.outcome.is_some() {
                self.runs.close(&run_id).await?;
                continue;
            }
            if run.lease_expires_at > self.env.clock.now() {
                continue;
            }
            match import::resume(self, &run, deadline, owner).await {
                Ok(Answer::Report(report)) if report.outcome == Outcome::Busy => {}
                Ok(answer) => answers.push(answer),
                // One run that cannot go on does not keep the others from it.
                Err(error) => tracing::error!(run_id, error_code = %error.code(), "{error:?}"),
            }
        }
        Ok(match answers.len() {
            0 => Answer::Nothing("no run waits to be continued".to_owned()),
            1 => answers.remove(0),
            _ => Answer::Several(answers),
        })
    }
}

fn unavailable(job: &str) -> Error {
    Error::invalid(codes::JOB_UNAVAILABLE, format!("the job `{job}` is not built yet"))
}

/// What the Lambda keeps between invocations.
pub struct Process {
    env: Rc<Env>,
    environment: Environment,
    /// The settings in force with the entity tag they were read under, or why there are none.
    app: RefCell<Option<(Rc<App>, Option<String>)>>,
}

impl Process {
    /// Builds the clients. Nothing is called yet.
    pub async fn start(environment: Environment) -> Result<Self> {
        let clock: Rc<dyn Clock> = Rc::new(SystemClock::new());
        let rng = Rc::new(Rng::from_system());
        let aws = Aws::load().await;
        let table_name = environment.table.clone().ok_or_else(|| {
            Error::invalid(codes::CONFIG_MISSING, "the environment variable HUBFERRY_TABLE is not set")
                .with_hint("Set HUBFERRY_TABLE to the name of hubferry's DynamoDB table.")
        })?;
        let env = Env {
            http: Rc::new(ReqwestService::new()?),
            objects: Rc::new(aws.objects()),
            table: Rc::new(aws.table(&table_name)),
            secrets: Rc::new(aws.secrets()),
            queue: environment.queue_url.as_deref().map(|url| Rc::new(aws.queue(url)) as Rc<dyn Queue>),
            memory_mb: environment.memory_mb,
            watcher: None,
            clock,
            rng,
        };
        Ok(Self { env: Rc::new(env), environment, app: RefCell::default() })
    }

    /// The app with the settings as they are now: a file is read once, an object again when its entity tag has changed.
    pub async fn app(&self) -> Result<Rc<App>> {
        let known = self.app.borrow().clone();
        let path = self.environment.config.as_deref().ok_or_else(|| {
            Error::invalid(codes::CONFIG_MISSING, "the environment variable HUBFERRY_CONFIG is not set")
        })?;
        if let Some(location) = Location::parse(path) {
            if let Some((app, Some(etag))) = &known {
                match self.env.objects.head(&location, None).await {
                    Ok(object) if object.etag == *etag => return Ok(app.clone()),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(error = %error, "{path} cannot be looked at; the settings read before stay in force");
                        return Ok(app.clone());
                    }
                }
            }
            let (bytes, etag) = self.env.objects.get(&location).await?.ok_or_else(|| {
                Error::invalid(codes::CONFIG_MISSING, format!("{path}: there is no such object"))
            })?;
            let text = std::str::from_utf8(&bytes)
                .map_err(|error| Error::invalid(codes::CONFIG_INVALID, format!("{path} is not UTF-8 text: {error}")))?;
            return self.keep(load::parse(text, path)?, Some(etag));
        }
        if let Some((app, None)) = known {
            return Ok(app);
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::invalid(codes::CONFIG_MISSING, format!("{path} cannot be read: {error}")))?;
        self.keep(load::parse(&text, path)?, None)
    }

    fn keep(&self, config: Config, etag: Option<String>) -> Result<Rc<App>> {
        let app = Rc::new(App::new(self.env.clone(), Rc::new(config)));
        *self.app.borrow_mut() = Some((app.clone(), etag));
        Ok(app)
    }

    /// One invocation.
    pub async fn invoke(&self, event: LambdaEvent<Value>) -> std::result::Result<Answer, Diagnostic> {
        let (payload, context) = event.into_parts();
        let deadline = Deadline {
            at: jiff::Timestamp::from_millisecond(i64::try_from(context.deadline).unwrap_or(i64::MAX))
                .unwrap_or(jiff::Timestamp::MAX),
        };
        let result = async { self.app().await?.handle(payload, deadline, &context.request_id).await }.await;
        result.map_err(|error| {
            tracing::error!(error_code = %error.code(), hint = error.hint(), "{error:?}");
            Diagnostic::from(error)
        })
    }
}
