//! The hubferry command line: arguments in, exit code out. What each command does is in a module of its own.

mod capture;
mod demo;
mod doors;
mod explain;
mod html;
mod import;
mod init;
mod local;
mod pandium;
mod report;
mod serve;
mod status;
mod summary;
mod text;
mod turns;
mod watch;

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
    sync::LazyLock,
};

use anyhow::Result;
use clap::{
    CommandFactory as _, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Done.
const DONE: u8 = 0;
/// The command failed, or the run ended failed, aborted or invalid.
const FAILED: u8 = 1;
/// The arguments make no sense, or ask for something that is not in this version.
const USAGE: u8 = 2;
/// What was done is saved and is not all: stopped by Ctrl-C, held by another process, or it has to wait.
const SAVED: u8 = 3;
/// The check found drift.
const DRIFT: u8 = 4;

/// Commands that are planned, and what serves in the meantime.
const NOT_YET: [(&str, &str); 6] = [
    ("check", "a run checks configuration and mapping before its first write"),
    ("plan", "try the file against `hubferry demo --keep` first"),
    ("apply", "upload the file to the bucket"),
    ("undo", "correct the records with another import"),
    ("sync", "nothing"),
    ("review", "nothing"),
];

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the message says why; for a run also aborted or invalid
  2  the arguments make no sense, or ask for something that is not in this version
  3  saved, and not at its end: stopped by Ctrl-C, held by another process, or it
     has to wait for the account's limit; the same command goes on
  4  capture --verify found drift

Example:
  hubferry demo          watch a CSV of 10,000 rows arrive in a simulated HubSpot";

static CAPTURE_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry capture contacts
  hubferry capture contacts --verify
  hubferry capture contacts --verify --full --json
  HUBSPOT_ACCESS_TOKEN=… hubferry capture contacts --local    without any AWS account";
    format!("{examples}\n\n{}", doors::HELP)
});

static IMPORT_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry import incoming/contacts/a.csv
  hubferry import export.csv --as contacts
  hubferry import s3://bucket/incoming/contacts/a.csv --json
  HUBSPOT_ACCESS_TOKEN=… hubferry import export.csv --as contacts --local    without any AWS account";
    format!("{examples}\n\n{}", doors::HELP)
});

static RESUME_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry resume                               all that was cut off
  hubferry resume 01M81X8WAQPWTZFPPZ0WHP7FWS    this run";
    format!("{examples}\n\n{}", doors::HELP)
});

static STATUS_HELP: LazyLock<String> =
    LazyLock::new(|| format!("Examples:\n  hubferry status\n  hubferry status --json\n\n{}", doors::HELP));

static REPORT_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry report 01M81X8WAQPWTZFPPZ0WHP7FWS
  hubferry report 01M81X8WAQPWTZFPPZ0WHP7FWS --out report.html
  hubferry report s3://bucket/reports/import/contacts/01M81X8WAQPWTZFPPZ0WHP7FWS.json --out -
  hubferry report 01M81X8WAQPWTZFPPZ0WHP7FWS --json";
    format!("{examples}\n\n{}", doors::HELP)
});

/// Drop a CSV in S3 and find it in HubSpot.
#[derive(Debug, Parser)]
#[command(name = "hubferry", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show an import from the upload to the report, with everything simulated on this machine.
    ///
    /// Starts a simulated HubSpot and an embedded S3, DynamoDB, Secrets Manager, SQS and Lambda Runtime API on
    /// 127.0.0.1, uploads a CSV with typical faults, and lets the upload's event wake the real function. No account,
    /// no credentials and no network are needed; nothing outside a temporary folder is written.
    #[command(after_help = "Examples:\n  hubferry demo\n  hubferry demo --rows 50000\n  hubferry demo --keep    \
                            leaves everything up, to try your own files")]
    Demo(demo::Options),
    /// A local cloud, kept running: simulated HubSpot and Salesforce, embedded AWS, the real function, a watched folder and a page.
    ///
    /// A file that is put into the folder, uploaded on the page or to S3 wakes the function; schedules wake it for captures and for runs that were
    /// cut off. The page shows runs as they come along, limits as they fill, rejects, which can be corrected there, and the simulated records, and
    /// makes things go wrong on purpose. Everything is on 127.0.0.1; nothing real is called. Ctrl-C ends it.
    #[command(
        after_help = "Examples:\n  hubferry serve\n  hubferry serve --config hubferry.yaml --port 8080\n  hubferry serve --state ~/hubferry    \
                            and the next start goes on with it"
    )]
    Serve(serve::Options),
    /// Import a file of this machine, or an object in S3, from here.
    ///
    /// Works on the file's run until its end, and goes on with one that was cut off, here or in AWS. Ctrl-C stops after a checkpoint; the same
    /// command goes on from there. The same content again is a duplicate: nothing is written.
    ///
    /// A file of this machine is read where it is. Its import is the one whose `match` takes the path: `match: incoming/contacts/*.csv` takes
    /// /any/folder/incoming/contacts/a.csv. Its report, its rejects (.hubferry/rejects/IMPORT/RUN.csv) and its working files are kept in the
    /// folder .hubferry beside the settings.
    #[command(after_help = IMPORT_HELP.as_str())]
    Import(import::Options),
    /// Go on with a run that was cut off, or with all of them.
    ///
    /// A run that another process holds is left to it, as is one that has to wait for the account's limit, and one whose file is on another machine.
    #[command(after_help = RESUME_HELP.as_str())]
    Resume(import::ResumeOptions),
    /// Show what each import and capture did last and where it stands, and which runs are open.
    #[command(after_help = STATUS_HELP.as_str())]
    Status(status::Options),
    /// Write a run's report as one HTML page that needs nothing else.
    #[command(after_help = REPORT_HELP.as_str())]
    Report(report::Options),
    /// Capture HubSpot's records and their changes to S3, from here; or compare what was captured with HubSpot.
    ///
    /// Works on the capture's run until its end: the snapshot, where there was none, then one window of changes. It goes on where the last run
    /// stopped, here or in AWS. Ctrl-C stops after a checkpoint.
    ///
    /// With --verify the output is read and applied as a consumer would, and compared with HubSpot: counts, with --full every id, and the values of
    /// a sample. What changed after the capture's position is no drift. Nothing is written.
    #[command(after_help = CAPTURE_HELP.as_str())]
    Capture(capture::Options),
    /// Run as a Pandium integration: a CSV in S3 becomes contacts and companies in HubSpot.
    ///
    /// Settings, credentials and the last run's output come as the variables PAN_CFG_*, PAN_SEC_* and PAN_CTX_*; no settings file and no table are
    /// needed. Standard error is the tenant's log, without any value of a row. Standard output is one line: the context for the next run, or the
    /// signal that a credential was refused. Exit codes: 0 done, 1 failed or a credential was refused, 2 a variable or the header makes no sense.
    #[command(
        after_help = "Example:\n  PAN_CFG_S3_BUCKET_NAME=… PAN_CFG_S3_FILE_NAME=exports.csv PAN_CFG_MAKE_CONTACT=true \\\n    \
                            PAN_SEC_AWS_ACCESS_KEY_ID=… PAN_SEC_AWS_SECRET_ACCESS_KEY=… PAN_SEC_HUBSPOT_ACCESS_TOKEN=… \\\n    \
                            hubferry pandium\n\nREADME.md, \"Pandium\", has every variable."
    )]
    Pandium(pandium::Options),
    /// Explain an error code: what it means, when it happens, what to do.
    #[command(after_help = "Examples:\n  hubferry explain INVALID_EMAIL\n  hubferry explain    lists all codes")]
    Explain {
        /// The code, as reports and rejects files have it; without one, all are listed.
        code: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a hubferry.yaml that does what a pipeline configuration of Conduit does.
    ///
    /// HubSpot sources become captures, HubSpot destinations become imports of OpenCDC records. What could not be
    /// carried over is said on standard error. Tokens are not copied.
    #[command(
        after_help = "Examples:\n  hubferry init --from-conduit pipelines.yaml --bucket my-data --out hubferry.yaml\n  \
                            hubferry init --from-conduit pipelines.yaml    to look at it first"
    )]
    Init(init::Options),
    /// Print the JSON Schema of hubferry.yaml, for editors.
    #[command(after_help = "Example:\n  hubferry schema > hubferry.schema.json\n  and in hubferry.yaml:  \
                            # yaml-language-server: $schema=hubferry.schema.json")]
    Schema {
        /// Changes nothing: a schema is JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print completions for a shell.
    #[command(
        after_help = "Example:\n  hubferry completions bash > ~/.local/share/bash-completion/completions/hubferry"
    )]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    match run(arguments.command) {
        Ok(code) => ExitCode::from(code),
        // Whoever reads has read enough: `hubferry schema | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(DONE),
        Err(error) => {
            let _ = writeln!(io::stderr(), "hubferry: {error:#}");
            if let Some(error) = error.downcast_ref::<hubferry::Error>() {
                let _ = writeln!(io::stderr(), "  -> {}", error.hint());
            }
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> Result<u8> {
    let mut out = io::stdout().lock();
    match command {
        Command::Demo(options) => {
            drop(out);
            return demo::run(options, io::stdout().is_terminal() && io::stderr().is_terminal());
        }
        Command::Serve(options) => {
            drop(out);
            return serve::run(&options);
        }
        Command::Capture(options) => {
            drop(out);
            return capture::run(&options);
        }
        Command::Import(options) => {
            drop(out);
            return import::run(&options);
        }
        Command::Resume(options) => {
            drop(out);
            return import::resume(&options);
        }
        Command::Status(options) => {
            drop(out);
            return status::run(&options);
        }
        Command::Report(options) => {
            drop(out);
            return report::run(&options);
        }
        Command::Pandium(options) => {
            drop(out);
            return pandium::run(&options);
        }
        Command::Explain { code, json } => explain::run(code.as_deref(), json, &mut out)?,
        Command::Init(options) => init::run(&options, &mut out)?,
        Command::Schema { .. } => writeln!(out, "{}", hubferry::config::load::SCHEMA.trim_end())?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "hubferry", &mut script);
            out.write_all(&script)?;
        }
    }
    out.flush()?;
    Ok(DONE)
}

/// Tells what is wrong with the arguments (or shows the help that was asked for); returns the exit code.
fn refuse(error: &clap::Error) -> u8 {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
        && let Some((name, instead)) = NOT_YET.iter().find(|(planned, _)| planned == name)
    {
        let _ = writeln!(io::stderr(), "hubferry: `{name}` is not in this version; in the meantime: {instead}");
        return USAGE;
    }
    let _ = error.print();
    if error.use_stderr() { USAGE } else { DONE }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent_and_every_command_has_an_example() {
        Arguments::command().debug_assert();
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains("hubferry "), "{}: {help}", command.get_name());
        }
    }

    #[test]
    fn a_command_that_is_not_built_yet_is_a_usage_error_and_not_in_the_help() {
        let help = Arguments::command().render_long_help().to_string();
        for (name, _) in NOT_YET {
            let error = Arguments::try_parse_from(["hubferry", name]).unwrap_err();
            assert_eq!(refuse(&error), USAGE, "{name}");
            assert!(!help.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name}");
        }
    }
}
