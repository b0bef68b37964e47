//! How small the artefact is, how fast it starts, and how long its first TLS call takes: what is deployed, as `cargo build --release` makes it.
//!
//! `cargo benches start` builds it (minutes), and beside it the least that a Lambda function in Rust can be (`benches/hello`). Both are started in
//! turn, so that whatever else the machine does meets both alike.

#![expect(clippy::print_stdout, reason = "a benchmark tells its results")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use flate2::{Compression, write::DeflateEncoder};
use hubferry_simulator::hubspot::PortalSettings;
use support::{
    Outcome,
    machine::{self, Watch},
    median, range, tell, wanted,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    process::Command,
};
use world::{UNFELT, World};

/// Bytes zipped that are allowed.
const ARTEFACT_MAX: usize = 6_000_000;
/// How often each is started.
const STARTS: usize = 40;
/// Times a bare function's start.
const START_RATIO_MAX: f64 = 3.0;
/// How often a process makes its first TLS call.
const FIRST_CALLS: usize = 15;
/// A client hello that takes longer has waited for entropy, which takes 25 ms where it is gathered from CPU jitter.
const HELLO_MAX_MS: f64 = 10.0;
/// Nothing here takes so long.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn main() -> Outcome {
    if !["start", "artefact", "first-poll", "first-call"].iter().any(|name| wanted(name)) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("the start of what is deployed; {}", machine::describe());
    let (function, hello) = build()?;
    artefact(&function)?;
    runtime.block_on(async {
        first_poll(&function, &hello).await?;
        first_call(&function).await
    })
}

/// What is deployed, and the bare function, built as a deployment builds them.
fn build() -> Outcome<(PathBuf, PathBuf)> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--release", "--locked", "--quiet", "-p", "hubferry", "-p", "bare-hello", "--bins"];
    let done = std::process::Command::new(cargo).args(arguments).stdin(Stdio::null()).status()?;
    if !done.success() {
        return Err("cargo build --release failed".into());
    }
    // This program is at target/PROFILE/deps.
    let own = env::current_exe()?;
    let target = own.ancestors().nth(3).ok_or("where is the target folder?")?;
    let folder = target.join("release");
    let (function, hello) = (folder.join("hubferry-lambda"), folder.join("bare-hello"));
    Ok((function, hello))
}

/// Deflated, as in the zip that Lambda takes; all that the zip adds is a name.
fn artefact(function: &Path) -> Outcome {
    let bytes = fs::read(function)?;
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
    deflated.write_all(&bytes)?;
    let zipped = deflated.finish()?.len();
    let figure = format!("{:.2} MB zipped, {:.1} MB as it is", zipped as f64 / 1e6, bytes.len() as f64 / 1e6);
    tell("artefact", &figure, Some(("under 6 MB zipped", zipped < ARTEFACT_MAX)));
    Ok(())
}

/// From the start of the process to its first question to the Runtime API, in milliseconds.
async fn start(program: &Path, config: &Path) -> Outcome<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut command = Command::new(program);
    command.env_clear().env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string());
    for (name, value) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "hubferry"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/hubferry"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("HUBFERRY_TABLE", "hubferry"),
    ] {
        command.env(name, value);
    }
    command.env("HUBFERRY_CONFIG", config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let watch = Watch::start();
    let mut child = command.spawn()?;
    let (mut connection, _) = within("the first poll", listener.accept()).await??;
    within("the first poll", connection.read_u8()).await??;
    let took = milliseconds(watch);
    child.kill().await?;
    Ok(took)
}

async fn first_poll(function: &Path, hello: &Path) -> Outcome {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("hubferry.yaml");
    fs::write(
        &config,
        "version: 1\nhubspot:\n  default: { secret: hubferry/hubspot }\nimports:\n  - { name: contacts, match: incoming/*, object: contacts, key: email }\n",
    )?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        bare.push(start(hello, &config).await?);
        ours.push(start(function, &config).await?);
    }
    // What others do to the machine only ever adds: the shortest are compared.
    let ratio = range(&ours).0 / range(&bare).0;
    let shown = |times: &[f64]| format!("{:.2} ms at least, median {:.2}", range(times).0, median(times));
    tell("bare lambda_runtime, start to first poll", &shown(&bare), None);
    tell("hubferry, start to first poll", &shown(&ours), None);
    tell("ratio", &format!("{ratio:.1}"), Some(("within 3", ratio <= START_RATIO_MAX)));
    Ok(())
}

/// A real import whose HubSpot is a TLS address: from the connection to the client hello, which is when random numbers and a key are needed for the
/// first time. The handshake goes no further.
async fn first_call(function: &Path) -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = format!("https://{}", listener.local_addr()?);
    let world = World::start(PortalSettings::default(), UNFELT, "").await?;
    world.settle_elsewhere(&address)?;
    let mut times = Vec::new();
    for number in 0..FIRST_CALLS {
        let event = world.upload(&format!("{number}.csv"), b"Email\nada@example.com\n".to_vec())?;
        let process = world.process_of(function)?;
        tokio::select! {
            answer = world.invoke(&event, WAIT_MAX) => return Err(format!("no TLS call was made: {answer:?}").into()),
            time = hello_of(&listener) => times.push(time?),
        }
        process.kill().await?;
    }
    let figure = format!("{:.2} ms at least, median {:.2}", range(&times).0, median(&times));
    tell("first TLS call, connection to client hello", &figure, Some(("no stall", range(&times).0 < HELLO_MAX_MS)));
    Ok(())
}

async fn hello_of(listener: &TcpListener) -> Outcome<f64> {
    /// The type of a handshake's record.
    const HANDSHAKE: u8 = 22;
    let (mut connection, _): (TcpStream, _) = within("a connection", listener.accept()).await??;
    let watch = Watch::start();
    let first = within("a client hello", connection.read_u8()).await??;
    let took = milliseconds(watch);
    if first == HANDSHAKE { Ok(took) } else { Err(format!("no TLS: the first byte is {first}").into()) }
}

fn milliseconds(watch: Watch) -> f64 {
    watch.elapsed().as_secs_f64() * 1e3
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Outcome<T> {
    let waited = tokio::time::timeout(WAIT_MAX, future).await;
    waited.map_err(|_| format!("{what} did not come").into())
}
