//! `hubferry pandium`: the contract of a Pandium integration. Variables in, a log for the tenant on standard error, and on standard output one line:
//! the context for the next run, or the signal that a credential has died.
//!
//! There is no table and no settings file: contacts and companies are two imports of the same job, with state in memory, that read the file
//! one after the other. What the next run must know is in the context. Nothing is written into the tenant's bucket.

mod file;
mod variables;

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use anyhow::Result;
use hubferry::{
    Error, ErrorKind,
    app::{self, App, Env, Update},
    aws::{self, Clients},
    clock::{Clock as _, Deadline, Rng, SystemClock},
    codes,
    config::{Config, Environment},
    event::SourceObject,
    http::client::ReqwestService,
    import::as_import,
    objects::{Location, ObjectVersion, Objects, s3::S3},
    report::{Counts, Outcome, Report},
    secrets::EnvironmentSecret,
    state::memory::MemoryTable,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::{
    file::{Columns, Scratch},
    variables::{Mode, Variables},
};
use crate::{DONE, FAILED, USAGE, text, turns, watch::Watch};

/// The context's format.
const VERSION: u32 = 1;
/// The connectors in the order of PANDIUM.yaml.
const HUBSPOT: &str = "CONNECTOR1_AUTH_STATUS";
const AWS: &str = "CONNECTOR2_AUTH_STATUS";
/// The name of the account, which has no settings of its own.
const ACCOUNT: &str = "default";

/// What the user may say beside the variables.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Changes nothing: standard output is JSON.
    #[arg(long)]
    json: bool,
}

/// What a run tells the next one: its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Context {
    hubferry: LastRun,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LastRun {
    version: u32,
    /// When it ended.
    finished_at: String,
    /// `s3://bucket/key`, its entity tag and version.
    file: String,
    etag: String,
    version_id: Option<String>,
    /// What the file was imported as: columns and objects. Other settings make the same file a new one.
    settings: String,
    /// `done`; `duplicate` where the file was imported before and nothing was sent.
    outcome: String,
    /// Rows by what became of them, for `contacts` and `companies`.
    rows: BTreeMap<String, Counts>,
}

/// Why there is no context for the next run.
enum Failed {
    /// A variable is missing or makes no sense.
    Usage(String),
    /// This connector's credential was refused.
    Disconnected(&'static str, String),
    /// Anything else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.downcast_ref::<Error>() {
            Some(refused) if refused.code() == codes::TOKEN_REFUSED => Self::Disconnected(HUBSPOT, told(refused)),
            Some(wrong) if wrong.code() == codes::CONFIG_INVALID || wrong.code() == codes::CONFIG_MISSING => {
                Self::Usage(told(wrong))
            }
            _ => Self::Other(error),
        }
    }
}

fn told(error: &Error) -> String {
    format!("{}: {}. {}", error.code(), error.message(), error.hint())
}

/// Runs it; returns the exit code.
pub(crate) fn run(_options: &Options) -> Result<u8> {
    turns::command(false, async {
        let watch = Rc::new(Watch::new());
        let result = Box::pin(work(&watch)).await;
        watch.clear();
        match result {
            Ok(context) => {
                text::json_line(&serde_json::to_value(&context)?)?;
                Ok(DONE)
            }
            Err(Failed::Usage(message)) => {
                watch.say(&message);
                Ok(USAGE)
            }
            Err(Failed::Disconnected(connector, message)) => {
                watch.say(&message);
                text::json_line(&json!({ "Pandium": { "Auth": { connector: "Disconnected" } } }))?;
                Ok(FAILED)
            }
            Err(Failed::Other(error)) => Err(error),
        }
    })
}

async fn work(watch: &Rc<Watch>) -> Result<Context, Failed> {
    let variables = Variables::read().map_err(Failed::Usage)?;
    watch.say(&format!("Run mode {}.", variables.mode.as_str()));
    if !variables.make_contact && !variables.make_company {
        return Err(Failed::Usage("Neither MAKE_CONTACT nor MAKE_COMPANY is on: there is nothing to do.".to_owned()));
    }
    if variables.is_retired_key() {
        let message = "The HubSpot credential is an API key of the kind that HubSpot retired in 2022. Connect HubSpot again, or use a private app's access token.";
        return Err(Failed::Disconnected(HUBSPOT, message.to_owned()));
    }
    let s3: Rc<dyn Objects> = {
        let keys = variables.aws_keys.as_ref().map(|keys| {
            (keys.id.as_str(), keys.secret.expose(), keys.session.as_ref().map(hubferry::secrets::Redacted::expose))
        });
        let settings = aws::load_as(&variables.region, keys).await;
        Rc::new(S3::new(Clients::new(&settings).s3))
    };
    let base_url = base_url(&*s3).await?;
    let location = Location::new(&variables.bucket, &variables.file);
    let object = match s3.head(&location, None).await {
        Ok(object) => object,
        Err(error) => return Err(refused_by_s3(&*s3, location, error).await),
    };
    let columns = Columns::find(&*s3, &object, &variables.mapper).await?;
    let imports = columns.imports(&variables).map_err(Failed::Usage)?;
    let mut last = LastRun {
        version: VERSION,
        finished_at: String::new(),
        file: location.to_string(),
        etag: object.etag.clone(),
        version_id: object.version_id.clone(),
        settings: fingerprint(&imports, base_url.as_deref()),
        outcome: "done".to_owned(),
        rows: BTreeMap::new(),
    };
    let clock = SystemClock::new();
    if let Some(before) = before(watch, &variables)
        && (&before.file, &before.etag, &before.settings) == (&last.file, &last.etag, &last.settings)
    {
        watch.say(&format!("{location} has not changed since the last successful run: nothing is sent."));
        last.outcome = "duplicate".to_owned();
        last.rows = before.rows;
        last.finished_at = before.finished_at;
        return Ok(Context { hubferry: last });
    }
    let scratch = Rc::new(Scratch::new(s3, location.clone())?);
    for import in imports {
        let name = import["name"].as_str().unwrap_or_default().to_owned();
        let report =
            Box::pin(import_one(watch, &variables, base_url.as_deref(), import, &object, scratch.clone())).await?;
        watch.clear();
        tell(watch, &name, &report, &scratch);
        match (&report.error, report.outcome) {
            (Some(error), _) if error.code == codes::TOKEN_REFUSED.as_str() => {
                let message = format!("{}: {}. {}", error.code, error.message, error.hint);
                return Err(Failed::Disconnected(HUBSPOT, message));
            }
            (_, Outcome::Done) => {}
            (error, outcome) => {
                let why = error.as_ref().map(|error| format!(": {}: {}. {}", error.code, error.message, error.hint));
                let message = format!("{name}: {}{}", outcome.as_str(), why.unwrap_or_default());
                return Err(Failed::Other(
                    anyhow::anyhow!(message).context("the next run begins with the file's first row"),
                ));
            }
        }
        last.rows.insert(name, report.rows);
    }
    last.finished_at = clock.now().to_string();
    Ok(Context { hubferry: last })
}

/// `base_url` of the account in a settings file that `HUBFERRY_CONFIG` names; nothing else of it is heeded.
async fn base_url(objects: &dyn Objects) -> Result<Option<String>, Failed> {
    let environment = Environment::read();
    if environment.config.is_none() {
        return Ok(None);
    }
    let (config, _) = app::read_settings(&environment.config()?, objects).await?;
    let account = config.hubspot.get(ACCOUNT).or_else(|| config.hubspot.values().next());
    Ok(account.map(|account| account.base_url.clone()))
}

/// What the last successful run said, where that is one of ours and heeded.
fn before(watch: &Watch, variables: &Variables) -> Option<LastRun> {
    let text = variables.last_stdout.as_deref()?;
    // What platform and shells put before or after it does not matter: the context is the last line that is one.
    let context = text.lines().rev().find_map(|line| serde_json::from_str::<Context>(line.trim()).ok());
    let context = context.or_else(|| serde_json::from_str::<Context>(text).ok());
    match context {
        Some(context) if variables.mode == Mode::Normal => {
            Some(context.hubferry).filter(|last| last.version == VERSION)
        }
        Some(_) => None,
        None => {
            watch
                .say("The last run's output is no context of hubferry: the file is imported as if for the first time.");
            None
        }
    }
}

fn fingerprint(imports: &[Value], base_url: Option<&str>) -> String {
    let text = serde_json::to_string(&(imports, base_url)).unwrap_or_default();
    format!("{:016x}", hash(text.as_bytes()))
}

/// FNV-1a: tells settings apart, and is the same in every version.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A head has no body, and so no reason: a read has.
async fn refused_by_s3(s3: &dyn Objects, location: Location, error: Error) -> Failed {
    if !matches!(error.kind(), ErrorKind::Forbidden) {
        return error.into();
    }
    let error = match s3.get(&location).await {
        Err(read) => read,
        Ok(_) => error,
    };
    let dead = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"];
    match dead.iter().any(|code| error.message().contains(code)) {
        true => Failed::Disconnected(AWS, told(&error)),
        false => error.into(),
    }
}

/// One import of the file, to its end.
async fn import_one(
    watch: &Rc<Watch>,
    variables: &Variables,
    base_url: Option<&str>,
    import: Value,
    object: &ObjectVersion,
    scratch: Rc<Scratch>,
) -> Result<Report, Failed> {
    let mut account = json!({ "secret": "PAN_SEC_HUBSPOT" });
    if let Some(base_url) = base_url {
        account["base_url"] = base_url.into();
    }
    let config = json!({ "version": 1, "hubspot": { ACCOUNT: account }, "imports": [import] });
    let config: Config = serde_json::from_value(config)?;
    let shown = watch.clone();
    let env = Env {
        clock: Rc::new(SystemClock::new()),
        rng: Rc::new(Rng::from_system()),
        http: Rc::new(ReqwestService::new()?),
        objects: scratch,
        // One run per object version: each of the two imports has a state of its own.
        table: Rc::new(MemoryTable::new()),
        secrets: Rc::new(EnvironmentSecret::new(variables.hubspot.expose())),
        queue: None,
        memory_mb: Cell::new(0),
        watcher: Some(Rc::new(move |update: &Update| {
            if let Update::Import(update) = update {
                shown.import(update);
            }
        })),
        stop: Cell::new(false),
    };
    let app = App::new(Rc::new(env), Rc::new(config))?;
    watch.set_account(app.account(ACCOUNT)?);
    let source = SourceObject {
        bucket: object.location.bucket.clone(),
        key: object.location.key.clone(),
        version_id: object.version_id.clone(),
        etag: Some(object.etag.clone()),
        size: Some(object.size),
        sequencer: None,
        event_time: None,
    };
    let Some(import) = app.config().imports.first() else { return Err(anyhow::anyhow!("there is no import").into()) };
    let turn =
        async |deadline: Deadline, owner: String| Box::pin(as_import(&app, import, &source, deadline, &owner)).await;
    Ok(Box::pin(turns::to_the_end(&app, watch, turn)).await?)
}

/// What became of the rows: counts, and each reject by its line and code. No value of a row.
fn tell(watch: &Watch, name: &str, report: &Report, scratch: &Scratch) {
    let rows = &report.rows;
    watch.say(&format!(
        "{name}: {} rows read: {} created, {} updated, {} merged with a row of the same key, {} rejected, {} without an answer.",
        rows.read, rows.created, rows.updated, rows.merged, rows.rejected, rows.deferred
    ));
    for line in scratch.rejects(report, name == "companies") {
        watch.say(&format!("{name}: {line}"));
    }
    for note in &report.notes {
        watch.say(&format!("{name}: {note}"));
    }
}
