//! The composition root: settings become clients, clients become jobs. The only module that names the concrete types behind
//! the doors.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::Write as _,
    rc::Rc,
    time::Duration,
};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse};
use lambda_runtime::{Diagnostic, LambdaEvent};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    aws::{self, Clients},
    capture,
    clock::{Clock, Deadline, Rng, SystemClock},
    codes,
    config::{Config, ConfigSource, Environment, Import, Matcher, Traces, load},
    error::{Error, ErrorKind, Result},
    event::{self, Event},
    http::{HttpService, client::ReqwestService},
    hubspot::account::{Account, AccountParts},
    import, metrics,
    mutate::{self, Bug},
    notify::{Notifier, Sns, Topic},
    objects::{Location, Objects, s3::S3},
    queue::{Queue, Sqs},
    report::{Outcome, Report},
    salesforce::org::{Org, OrgParts},
    secrets::{Secrets, SecretsManager},
    state::{
        Table,
        dynamo::DynamoTable,
        limits::SharedBudget,
        runs::{Run, Runs},
    },
    sync,
    trace::{Traced, Tracer, Udp},
};

/// How a job is coming along.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// An import.
    Import(import::progress::Update),
    /// A capture.
    Capture(Box<capture::progress::Update>),
    /// A sync.
    Sync(Box<sync::progress::Update>),
}

/// Is told how a job is coming along.
pub type Watcher = Rc<dyn Fn(&Update)>;

/// Takes lines, each without its end.
pub type Lines = Rc<dyn Fn(&str)>;

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
    /// Memory configured on Lambda, in MB; 0 elsewhere.
    pub memory_mb: Cell<u32>,
    /// Who watches.
    pub watcher: Option<Watcher>,
    /// Set from outside: a job saves what it has and yields, as before its deadline.
    pub stop: Cell<bool>,
}

impl Env {
    /// Tells who watches.
    pub fn tell(&self, update: &Update) {
        if let Some(watcher) = &self.watcher {
            watcher(update);
        }
    }
}

/// What leaves an invocation besides its answer. Nothing, unless it is asked for: a command line's output is for a person, who is told by it.
#[derive(Clone, Default)]
pub struct Signals {
    /// Takes the lines of metrics.
    pub metrics: Option<Lines>,
    /// People are told, as the settings say.
    pub notices: bool,
    /// The door to SNS.
    pub topic: Option<Rc<dyn Topic>>,
    /// Counts what the invocation does, where it is traced.
    pub tracer: Option<Rc<Tracer>>,
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
                let mut response = SqsBatchResponse::default();
                response.batch_item_failures = failures.iter().map(|id| failure(id)).collect();
                let mut value = serde_json::to_value(response).unwrap_or_default();
                value["answers"] = Value::Array(answers.clone());
                value.serialize(serializer)
            }
        }
    }
}

impl Answer {
    /// The reports in it, but for those of SQS messages, which are told one by one.
    fn reports(&self) -> Vec<&Report> {
        match self {
            Self::Report(report) => vec![report],
            Self::Several(answers) => answers.iter().flat_map(Self::reports).collect(),
            Self::Nothing(_) | Self::Batch { .. } => Vec::new(),
        }
    }
}

impl From<Error> for Diagnostic {
    fn from(error: Error) -> Self {
        Self {
            error_type: error.code().as_str().to_owned(),
            error_message: format!("{}. {}", error.message(), error.hint()),
        }
    }
}

/// Clients and settings of one process: built once, used by every invocation.
pub struct App {
    env: Rc<Env>,
    config: Rc<Config>,
    matcher: Matcher,
    runs: Rc<Runs>,
    accounts: RefCell<BTreeMap<String, Rc<Account>>>,
    orgs: RefCell<BTreeMap<String, Rc<Org>>>,
    signals: Signals,
}

impl App {
    /// An app on these doors.
    ///
    /// # Errors
    /// `CONFIG_INVALID` if a pattern cannot be used, which a loaded file cannot have.
    pub fn new(env: Rc<Env>, config: Rc<Config>) -> Result<Self> {
        let runs = Rc::new(Runs::new(env.table.clone(), env.clock.clone()));
        let matcher = Matcher::new(&config.imports)?;
        Ok(Self {
            env,
            config,
            matcher,
            runs,
            accounts: RefCell::default(),
            orgs: RefCell::default(),
            signals: Signals::default(),
        })
    }

    /// The same, and it signals what it does.
    #[must_use]
    pub fn with_signals(mut self, signals: Signals) -> Self {
        self.signals = signals;
        self
    }

    /// The doors.
    pub fn env(&self) -> &Rc<Env> {
        &self.env
    }

    /// The settings.
    pub fn config(&self) -> &Rc<Config> {
        &self.config
    }

    /// The import for the object `key`, if there is one.
    pub fn import_for(&self, key: &str) -> Result<Option<&Import>> {
        self.matcher.find(&self.config.imports, key)
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
            budget: Rc::new(SharedBudget::new(self.env.table.clone(), self.env.clock.clone(), name)),
        }));
        self.accounts.borrow_mut().insert(name.to_owned(), account.clone());
        Ok(account)
    }

    /// The Salesforce org of this name; its session and definitions live as long as the process.
    pub fn org(&self, name: &str) -> Result<Rc<Org>> {
        if let Some(org) = self.orgs.borrow().get(name) {
            return Ok(org.clone());
        }
        let settings = self.config.salesforce.get(name).ok_or_else(|| {
            Error::invalid(codes::NAME_UNKNOWN, format!("hubferry.yaml has no Salesforce org `{name}`"))
        })?;
        let org = Rc::new(Org::new(OrgParts {
            name: name.to_owned(),
            settings: settings.clone(),
            quota: settings.quota.into(),
            http: self.env.http.clone(),
            clock: self.env.clock.clone(),
            rng: self.env.rng.clone(),
            secrets: self.env.secrets.clone(),
        }));
        self.orgs.borrow_mut().insert(name.to_owned(), org.clone());
        Ok(org)
    }

    /// Does what an event asks for. `owner` is unique to the invocation.
    pub async fn handle(&self, event: Value, deadline: Deadline, owner: &str) -> Result<Answer> {
        self.dispatch(event::parse(event)?, deadline, owner).await
    }

    async fn dispatch(&self, event: Event, deadline: Deadline, owner: &str) -> Result<Answer> {
        match event {
            Event::Imports(sources) => {
                let (mut answers, mut failed) = (Vec::new(), None);
                for source in &sources {
                    let result = Box::pin(import::on_object(self, source, deadline, owner)).await;
                    match self.signalled(result, deadline).await {
                        Ok(answer) => answers.push(answer),
                        // One object that cannot be imported does not keep the others from it.
                        Err(error) => {
                            tracing::error!(error_code = %error.code(), bucket = source.bucket, key = source.key, "{error:?}");
                            failed.get_or_insert(error);
                        }
                    }
                }
                if let Some(error) = failed {
                    return Err(error);
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
                self.resume(&run, deadline, owner).await
            }
            Event::Resume { run_id: None } => self.sweep(deadline, owner).await,
            Event::Capture { name } => {
                let result = Box::pin(capture::on_schedule(self, name.as_deref(), deadline, owner)).await;
                self.signalled(result, deadline).await
            }
            Event::Sync { name } => {
                let result = Box::pin(sync::on_schedule(self, name.as_deref(), deadline, owner)).await;
                self.signalled(result, deadline).await
            }
            Event::TestEvent => Ok(nothing("S3's test event: notifications arrive".to_owned())),
            Event::Ignored { what } => Ok(nothing(what)),
        }
    }

    /// Goes on with a run, whichever job's it is.
    async fn resume(&self, run: &Run, deadline: Deadline, owner: &str) -> Result<Answer> {
        if !self.reaches(run) {
            let message = format!("run {} imports a file of the machine on which it was begun", run.run_id);
            return Err(Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, message)
                .with_hint("Give the command again there, beside the same settings."));
        }
        let result = match run.job.as_str() {
            "capture" => Box::pin(capture::resume(self, run, deadline, owner)).await,
            "sync" => Box::pin(sync::resume(self, run, deadline, owner)).await,
            _ => Box::pin(import::resume(self, run, deadline, owner)).await,
        };
        self.signalled(result, deadline).await
    }

    /// Where the answer of every job passes, with its report: metrics, traces and messages leave here, and nowhere else.
    ///
    /// A run that has ended is signalled by whoever made the one write that ends it, so once, and also where the answer is an error because of
    /// another run; one that goes on, by its answer. `duplicate` and `busy` are neither.
    async fn signalled(&self, result: Result<Answer>, deadline: Deadline) -> Result<Answer> {
        let ended = self.runs.take_ended();
        let mut told: Vec<&Report> = ended.iter().collect();
        if let Ok(answer) = &result {
            told.extend(answer.reports().into_iter().filter(|report| report.outcome == Outcome::Yielded));
        }
        if let Some(put) = &self.signals.metrics {
            for report in &told {
                let account = self.accounts.borrow().get(&report.account).cloned();
                let daily = account.and_then(|account| account.daily_use_percent());
                if let Some(line) = metrics::embedded(report, daily) {
                    put(&line);
                }
            }
        }
        if let Some(tracer) = &self.signals.tracer {
            tracer.runs(&told);
        }
        if let Some(notifier) = self.notifier() {
            for report in &ended {
                notifier.tell(report, deadline).await;
            }
        }
        result
    }

    fn notifier(&self) -> Option<Notifier<'_>> {
        self.signals.notices.then(|| Notifier {
            env: &self.env,
            settings: &self.config.notify,
            topic: self.signals.topic.as_ref(),
        })
    }

    /// Whether a run's source can be read from here.
    pub fn reaches(&self, run: &Run) -> bool {
        self.env.objects.reaches(&Location::new(&run.source.bucket, &run.source.key))
    }

    fn deadline_allows_another(&self, deadline: Deadline) -> bool {
        deadline.allows(self.env.clock.now(), RUN_NEEDS)
    }

    /// Goes on with every run that was cut off and that nobody holds.
    async fn sweep(&self, deadline: Deadline, owner: &str) -> Result<Answer> {
        let mut answers = Vec::new();
        for (run_id, is_old) in self.runs.open_runs().await? {
            if !answers.is_empty() && !self.deadline_allows_another(deadline) {
                break;
            }
            let Some(run) = self.runs.get(&run_id).await? else {
                // Being made right now, or its maker died before it made it: then the event comes again.
                if is_old {
                    self.runs.close(&run_id).await?;
                }
                continue;
            };
            if run.outcome.is_some() {
                self.runs.close(&run_id).await?;
                continue;
            }
            let now = self.env.clock.now();
            let held = run.lease_expires_at > now && !mutate::on(Bug::LeaseTaken);
            if held || run.not_before > now || !self.reaches(&run) {
                continue;
            }
            match self.resume(&run, deadline, owner).await {
                Ok(Answer::Report(report)) if report.outcome == Outcome::Busy => {}
                Ok(answer) => answers.push(answer),
                // One run that cannot go on does not keep the others from it.
                Err(error) => tracing::error!(run_id, error_code = %error.code(), "{error:?}"),
            }
        }
        if let Some(notifier) = self.notifier() {
            notifier.catch_up(&self.config, &self.runs, deadline).await;
        }
        Ok(match answers.len() {
            0 => Answer::Nothing("no run waits to be continued".to_owned()),
            1 => answers.remove(0),
            _ => Answer::Several(answers),
        })
    }
}

/// Time that a run needs to get anywhere at all.
const RUN_NEEDS: Duration = Duration::from_secs(30);

fn failure(message_id: &str) -> BatchItemFailure {
    let mut failure = BatchItemFailure::default();
    message_id.clone_into(&mut failure.item_identifier);
    failure
}

fn nothing(message: String) -> Answer {
    tracing::info!("{message}");
    Answer::Nothing(message)
}

/// The Lambda's whole life: serves invocations from the Runtime API until the process ends. Its standard output is its log, which CloudWatch
/// reads metrics from.
///
/// # Errors
/// No HTTP client can be built, or the Runtime API cannot be reached.
pub async fn serve_function(environment: Environment) -> std::result::Result<(), lambda_runtime::Error> {
    let mut process = Process::start(environment, None).await?;
    process.signals.metrics = Some(Rc::new(|line: &str| {
        // A log that cannot be written is nobody's to tell.
        let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
    }));
    serve(process).await
}

/// Serves invocations from the Runtime API until the process ends, inside another program: the demo, say. Nothing is written to its output.
///
/// `watcher` is told how each job is coming along.
///
/// # Errors
/// No HTTP client can be built, or the Runtime API cannot be reached.
pub async fn serve_lambda(
    environment: Environment,
    watcher: Option<Watcher>,
) -> std::result::Result<(), lambda_runtime::Error> {
    serve(Process::start(environment, watcher).await?).await
}

async fn serve(process: Process) -> std::result::Result<(), lambda_runtime::Error> {
    let process = Rc::new(process);
    if let Err(error) = process.app().await {
        // Each invocation reads the settings again and says what is wrong with them: mending the file is enough.
        tracing::error!(error_code = %error.code(), hint = error.hint(), "{error:?}");
    }
    lambda_runtime::run(lambda_runtime::service_fn(|event: LambdaEvent<Value>| {
        let process = process.clone();
        async move { process.invoke(event).await }
    }))
    .await
}

/// What the Lambda keeps between invocations.
pub struct Process {
    env: Rc<Env>,
    environment: Environment,
    signals: Signals,
    /// The settings in force with the entity tag they were read under, or why there are none.
    app: RefCell<Option<(Rc<App>, Option<String>)>>,
}

impl Process {
    /// Builds the clients. Nothing is called yet. `watcher` is told how each job is coming along.
    ///
    /// # Errors
    /// Only if no HTTP client can be built: what the environment lacks is told to each invocation, where it is seen.
    pub async fn start(environment: Environment, watcher: Option<Watcher>) -> Result<Self> {
        let aws = aws::load().await;
        let clients = Clients::new(&aws);
        let queue =
            environment.queue_url.as_deref().map(|url| Rc::new(Sqs::new(clients.sqs.clone(), url)) as Rc<dyn Queue>);
        let (clock, rng) = (Rc::new(SystemClock::new()), Rc::new(Rng::from_system()));
        let mut http: Rc<dyn HttpService> = Rc::new(ReqwestService::new()?);
        let topic = Rc::new(Sns::new(aws, http.clone(), clock.clone()));
        let daemon = environment.xray_daemon.as_deref().and_then(Udp::new);
        let tracer = daemon.map(|daemon| Rc::new(Tracer::new(Box::new(daemon), clock.clone(), rng.clone())));
        if let Some(tracer) = &tracer {
            http = Rc::new(Traced::new(http, tracer.clone()));
        }
        let env = Env {
            clock,
            rng,
            http,
            objects: Rc::new(S3::new(clients.s3)),
            table: Rc::new(DynamoTable::new(clients.dynamodb, environment.table.clone().unwrap_or_default())),
            secrets: Rc::new(SecretsManager::new(clients.secrets)),
            queue,
            memory_mb: Cell::new(0),
            watcher,
            stop: Cell::new(false),
        };
        let signals = Signals { metrics: None, notices: true, topic: Some(topic), tracer };
        Ok(Self { env: Rc::new(env), environment, signals, app: RefCell::default() })
    }

    /// The app with the settings as they are now: a file is read once, an object again when its entity tag has changed.
    pub async fn app(&self) -> Result<Rc<App>> {
        self.environment.table()?;
        let known = self.app.borrow().clone();
        match self.environment.config()? {
            ConfigSource::Path(path) => {
                if let Some((app, None)) = known {
                    return Ok(app);
                }
                self.keep(read_settings(&ConfigSource::Path(path), &*self.env.objects).await?)
            }
            ConfigSource::Object(location) => {
                if let Some((app, Some(etag))) = known {
                    match self.env.objects.head(&location, None).await {
                        Ok(object) if object.etag != etag => {}
                        Ok(_) => return Ok(app),
                        Err(error) => {
                            tracing::warn!(error = %error, "{location} cannot be looked at; the settings read before stay in force");
                            return Ok(app);
                        }
                    }
                }
                self.keep(read_settings(&ConfigSource::Object(location), &*self.env.objects).await?)
            }
        }
    }

    fn keep(&self, (config, etag): (Config, Option<String>)) -> Result<Rc<App>> {
        let app = Rc::new(App::new(self.env.clone(), Rc::new(config))?.with_signals(self.signals.clone()));
        *self.app.borrow_mut() = Some((app.clone(), etag));
        Ok(app)
    }

    /// One invocation.
    pub async fn invoke(&self, event: LambdaEvent<Value>) -> std::result::Result<Answer, Diagnostic> {
        let (payload, context) = event.into_parts();
        self.env.memory_mb.set(u32::try_from(context.env_config.memory).unwrap_or(0));
        let deadline = deadline(context.deadline, self.env.clock.now());
        // Lambda gives repeated attempts of an invocation one id.
        let owner = format!("{}/{:x}", context.request_id, self.env.rng.u64());
        let result = async {
            let app = self.app().await?;
            let tracer = self.signals.tracer.as_ref().filter(|_| app.config().traces == Traces::Xray);
            if let Some(tracer) = tracer {
                tracer.begin(context.xray_trace_id.as_deref());
            }
            let result = app.handle(payload, deadline, &owner).await;
            if let Some(tracer) = tracer {
                tracer.end();
            }
            result
        }
        .await;
        result.map_err(|error| {
            tracing::error!(error_code = %error.code(), hint = error.hint(), "{error:?}");
            Diagnostic::from(error)
        })
    }
}

/// Reads the settings, and checks them; of an object also the entity tag.
///
/// # Errors
/// `CONFIG_MISSING`, `CONFIG_INVALID`, and those of the objects' door.
pub async fn read_settings(source: &ConfigSource, objects: &dyn Objects) -> Result<(Config, Option<String>)> {
    let (bytes, name, etag) = match source {
        ConfigSource::Path(path) => {
            let name = path.display().to_string();
            let bytes = std::fs::read(path)
                .map_err(|error| Error::invalid(codes::CONFIG_MISSING, format!("{name} cannot be read: {error}")))?;
            (bytes.into(), name, None)
        }
        ConfigSource::Object(location) => {
            let (bytes, etag) = objects
                .get(location)
                .await?
                .ok_or_else(|| Error::invalid(codes::CONFIG_MISSING, format!("{location}: there is no such object")))?;
            (bytes, location.to_string(), Some(etag))
        }
    };
    Ok((load::parse(&load::text(&bytes, &name)?, &name)?, etag))
}

/// When the invocation must have ended, by what the Runtime API says in milliseconds since 1970.
///
/// `cargo lambda watch` gives the time-out itself instead (600,000 for ten minutes): a moment on the first day of 1970 is
/// taken for what it means, a duration from now.
fn deadline(ms: u64, now: jiff::Timestamp) -> Deadline {
    const DAY_MS: u64 = 86_400_000;
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let at = match ms.unsigned_abs() {
        0..DAY_MS => now.as_millisecond().saturating_add(ms),
        _ => ms,
    };
    Deadline { at: jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_moment_or_as_cargo_lambda_gives_it_a_duration() {
        let now = jiff::Timestamp::from_second(1_790_000_000).unwrap();
        let seconds = |ms| deadline(ms, now).at.as_second() - now.as_second();
        assert_eq!(seconds(1_790_000_900_000), 900);
        assert_eq!(seconds(1_789_999_999_000), -1, "one that has passed has passed");
        assert_eq!(seconds(600_000), 600);
        assert_eq!(deadline(u64::MAX, now).at, jiff::Timestamp::MAX);
    }
}
