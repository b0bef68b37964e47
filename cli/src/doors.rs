//! The doors of a command that does a job from here: settings, files, state and tokens, as options and environment name them.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result};
use hubferry::{
    Error,
    app::{self, App, Env, Watcher},
    aws::{self, Clients},
    clock::{Rng, SystemClock},
    codes,
    config::{ConfigSource, Environment},
    http::client::ReqwestService,
    objects::{Objects, folder::Folder, local::LocalFiles, memory::MemoryObjects, s3::S3},
    secrets::{EnvironmentSecret, Secrets, SecretsManager},
    state::{Table, dynamo::DynamoTable, file::FileTable, memory::MemoryTable},
};

use crate::credentials::{self, Credentials, HUBSPOT_ACCESS_TOKEN};

/// Settings where nothing names others.
const CONFIG_FILE: &str = "hubferry.yaml";
/// Where local things are kept, beside the settings.
const LOCAL_FOLDER: &str = ".hubferry";
/// State, in there.
const STATE_FILE: &str = "state.json";
/// Buckets, in there.
const BUCKETS_FOLDER: &str = "s3";

/// Said in the help of each command that has [`Place`].
pub(crate) const HELP: &str = "\
Where things are:
  settings  --config, else HUBFERRY_CONFIG, else ./hubferry.yaml
  state     the DynamoDB table HUBFERRY_TABLE; without it .hubferry/state.json beside
            the settings
  objects   S3; with --local the folder .hubferry/s3/BUCKET/ beside the settings, and
            no AWS account is asked for anything. Of a file that is no object:
            its report, rejects and working files, under .hubferry/ too
  token     HUBSPOT_ACCESS_TOKEN; without it the secret that the settings name.
            Of Salesforce: SALESFORCE_CREDENTIAL, the JSON that the secret would hold";

/// Which doors.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// The settings: a path, or s3://bucket/key [default: HUBFERRY_CONFIG, else hubferry.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Keep state and objects in the folder .hubferry beside the settings; nothing of AWS is used.
    #[arg(long)]
    pub(crate) local: bool,
}

/// What a command does with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Looks at state and objects: nothing is made, and HubSpot is not asked.
    Look,
    /// Asks HubSpot, and makes nothing.
    Check,
    /// Does a job, and makes what is missing.
    Work,
}

/// The doors, open.
pub(crate) struct Doors {
    /// Jobs on these doors.
    pub(crate) app: App,
    /// The objects' door of `app`, and this machine's files.
    pub(crate) files: Rc<LocalFiles>,
    /// Where state is, for people.
    pub(crate) state: String,
    /// The local state file does not exist.
    pub(crate) no_state: bool,
    /// State is in the table: the function goes on with what is cut off here.
    pub(crate) shared: bool,
    /// The bucket of the settings, where they are in one: the function's.
    pub(crate) settings_bucket: Option<String>,
}

/// Opens them.
///
/// # Errors
/// `CONFIG_MISSING`, `CONFIG_INVALID`; a folder that cannot be made.
pub(crate) async fn open(options: &Place, wish: Use, watcher: Option<Watcher>) -> Result<Doors> {
    let mut environment = Environment::read();
    if let Some(config) = &options.config {
        environment.config = Some(config.clone());
    } else if environment.config.is_none() && Path::new(CONFIG_FILE).exists() {
        environment.config = Some(CONFIG_FILE.to_owned());
    }
    let source = environment.config()?;
    let folder = local_folder(&source);
    let table_name = environment.table.clone().filter(|_| !options.local);
    if options.local && credentials::variable(HUBSPOT_ACCESS_TOKEN).is_none() && wish != Use::Look {
        let message =
            format!("the environment variable {HUBSPOT_ACCESS_TOKEN} is not set; with --local nothing else is asked");
        let hint = "Set it to the access token of a private app, or leave --local out.";
        return Err(Error::invalid(codes::CONFIG_MISSING, message).with_hint(hint).into());
    }
    // Looking for credentials takes time where there are none.
    let clients = match options.local {
        true => None,
        false => Some(Clients::new(&aws::load().await)),
    };
    let elsewhere: Rc<dyn Objects> = match &clients {
        Some(clients) => Rc::new(S3::new(clients.s3.clone())),
        None => Rc::new(Folder::new(folder.join(BUCKETS_FOLDER))),
    };
    let absolute = std::path::absolute(&folder).with_context(|| format!("{} cannot be found", folder.display()))?;
    let files = Rc::new(LocalFiles::new(&absolute, elsewhere));
    let (mut no_state, mut shared) = (false, false);
    let (table, state): (Rc<dyn Table>, String) = match (&clients, table_name) {
        (Some(clients), Some(name)) => {
            shared = true;
            let said = format!("the DynamoDB table {name}");
            (Rc::new(DynamoTable::new(clients.dynamodb.clone(), name)), said)
        }
        _ => {
            let path = folder.join(STATE_FILE);
            no_state = !path.exists();
            if wish == Use::Work {
                fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
            }
            let table: Rc<dyn Table> = match wish {
                // Nothing is made: what is not there is taken for empty.
                Use::Check if no_state => Rc::new(MemoryTable::new()),
                _ => Rc::new(FileTable::new(path.clone())),
            };
            (table, path.display().to_string())
        }
    };
    let (config, _) = app::read_settings(&source, &*files).await?;
    let kept = clients.as_ref().map(|clients| Rc::new(SecretsManager::new(clients.secrets.clone())) as Rc<dyn Secrets>);
    let secrets = Rc::new(Credentials::new(&config, kept));
    let env = Env {
        clock: Rc::new(SystemClock::new()),
        rng: Rc::new(Rng::from_system()),
        http: Rc::new(ReqwestService::new()?),
        objects: files.clone(),
        table,
        secrets,
        // Whoever works here goes on here; what is left open the schedule finds.
        queue: None,
        memory_mb: Cell::new(0),
        watcher,
        stop: Cell::new(false),
    };
    let settings_bucket = match source {
        ConfigSource::Object(location) => Some(location.bucket),
        ConfigSource::Path(_) => None,
    };
    Ok(Doors { app: App::new(Rc::new(env), Rc::new(config))?, files, state, no_state, shared, settings_bucket })
}

/// An app for an account of which there are no settings yet. `account` is its entry under `hubspot`, as YAML, called `default`. Nothing is
/// kept anywhere.
///
/// # Errors
/// `CONFIG_INVALID`; an environment that no client can be made of.
pub(crate) async fn without_settings(account: &str) -> Result<App> {
    let config = hubferry::config::load::parse(&format!("version: 1\nhubspot:\n{account}"), "the account")?;
    let secrets: Rc<dyn Secrets> = match credentials::variable(HUBSPOT_ACCESS_TOKEN) {
        Some(token) => Rc::new(EnvironmentSecret::new(&token)),
        None => Rc::new(SecretsManager::new(Clients::new(&aws::load().await).secrets)),
    };
    let env = Env {
        clock: Rc::new(SystemClock::new()),
        rng: Rc::new(Rng::from_system()),
        http: Rc::new(ReqwestService::new()?),
        objects: Rc::new(MemoryObjects::new()),
        table: Rc::new(MemoryTable::new()),
        secrets,
        queue: None,
        memory_mb: Cell::new(0),
        watcher: None,
        stop: Cell::new(false),
    };
    Ok(App::new(Rc::new(env), Rc::new(config))?)
}

/// Beside a settings file; of settings in S3, here.
fn local_folder(source: &ConfigSource) -> PathBuf {
    match source {
        ConfigSource::Path(path) => path.parent().unwrap_or(Path::new("")).join(LOCAL_FOLDER),
        ConfigSource::Object(_) => PathBuf::from(LOCAL_FOLDER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_things_are_beside_the_settings() {
        let folder = |path: &str| local_folder(&ConfigSource::Path(path.into()));
        assert_eq!(folder("conf/hubferry.yaml"), Path::new("conf/.hubferry"));
        assert_eq!(folder("hubferry.yaml"), Path::new(".hubferry"));
    }
}
