//! What `demo` and `serve` share: a process that is the function's, with nothing of the machine's own AWS set-up in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hubferry::config::environment::{HUBFERRY_CONFIG, HUBFERRY_QUEUE_URL, HUBFERRY_TABLE};
use hubferry_simulator::aws::{ACCOUNT, Addresses, Service};

/// The function's name.
pub(crate) const FUNCTION: &str = "hubferry-lambda";
/// As the template gives.
const FUNCTION_MEMORY_MB: &str = "512";
/// As many temporary folders of one process as anybody needs.
const FOLDERS_MAX: u32 = 100;

/// Variables of the machine's own AWS and proxy set-up that would lead the calls elsewhere.
const REMOVED: [&str; 10] = [
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "HTTP_PROXY",
    "http_proxy",
];

/// What a process needs in its environment to use the local cloud, the Runtime API aside.
pub(crate) fn environment(addresses: &Addresses, config: &str, table: &str, queue: &str) -> Vec<(String, String)> {
    let mut all = addresses.environment();
    all.retain(|(name, _)| name != "AWS_LAMBDA_RUNTIME_API");
    for (name, value) in [
        (HUBFERRY_CONFIG, config.to_owned()),
        (HUBFERRY_TABLE, table.to_owned()),
        (HUBFERRY_QUEUE_URL, format!("{}/{ACCOUNT}/{queue}", addresses.url(Service::Sqs))),
    ] {
        all.push((name.to_owned(), value));
    }
    all
}

/// Makes this process the function's: what Lambda puts into the environment, and nothing of the machine's own AWS set-up. `stream` names the log.
/// Call it before any thread or runtime exists.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn enter(folder: &Path, variables: &[(String, String)], addresses: &Addresses, stream: &str) -> Result<()> {
    let empty = folder.join("no-aws-settings");
    fs::write(&empty, "").with_context(|| format!("{} cannot be written", empty.display()))?;
    let empty = empty.display().to_string();
    let mut all = variables.to_vec();
    for (name, value) in [
        ("AWS_LAMBDA_RUNTIME_API", addresses.of(Service::Lambda).to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", FUNCTION.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", FUNCTION_MEMORY_MB.to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{FUNCTION}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", stream.to_owned()),
        ("AWS_CONFIG_FILE", empty.clone()),
        ("AWS_SHARED_CREDENTIALS_FILE", empty),
        ("NO_PROXY", "127.0.0.1".to_owned()),
        ("no_proxy", "127.0.0.1".to_owned()),
    ] {
        all.push((name.to_owned(), value));
    }
    set_environment(&all);
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "lambda_runtime and the AWS SDK take their settings from the environment and nowhere else"
)]
fn set_environment(variables: &[(String, String)]) {
    // SAFETY: the process has one thread, so nobody reads or writes the environment meanwhile: `demo` and `serve` come here first.
    unsafe {
        for name in REMOVED {
            std::env::remove_var(name);
        }
        for (name, value) in variables {
            std::env::set_var(name, value);
        }
    }
}

/// Where the function is invoked by hand.
pub(crate) fn invoke_url(addresses: &Addresses) -> String {
    format!("{}/2015-03-31/functions/{FUNCTION}/invocations", addresses.url(Service::Lambda))
}

/// A temporary folder of this process, named after what it is for.
pub(crate) fn folder(what: &str) -> Result<PathBuf> {
    let base = std::env::temp_dir();
    for attempt in 0..FOLDERS_MAX {
        let folder = base.join(format!("hubferry-{what}-{}-{attempt}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("{} cannot be made", folder.display())),
        }
    }
    anyhow::bail!("{} holds {FOLDERS_MAX} such folders of this process already", base.display())
}

/// Shell lines that set these variables.
pub(crate) fn exports(variables: &[(String, String)]) -> String {
    variables.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect()
}
