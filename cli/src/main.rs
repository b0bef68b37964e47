//! The hubferry command line: arguments in, exit code out. What each command does is in a module of its own.

mod apply;
mod capture;
mod caret;
mod check;
mod credentials;
mod demo;
mod doors;
mod erase;
mod explain;
mod html;
mod import;
mod init;
mod local;
mod pandium;
mod plan;
mod report;
mod review;
mod serve;
mod simulate;
mod status;
mod summary;
mod sync;
mod text;
mod turns;
mod watch;

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
    sync::LazyLock,
};

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

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
/// The check found rows that would be rejected.
const FOUND: u8 = 4;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the message says why; for a run also aborted or invalid
  2  the arguments make no sense
  3  saved, and not at its end: stopped by Ctrl-C, held by another process, or it
     has to wait for the account's limit; the same command goes on
  4  a check found something: drift (capture --verify), or rows that would be
     rejected (check FILE)

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

static ERASE_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry erase --key ada@example.com --dry-run
  hubferry erase --key ada@example.com
  hubferry erase --key ada@example.com --gdpr --json";
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

static CHECK_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry check                              settings, credentials, mappings
  hubferry check incoming/contacts/a.csv      and the whole file
  hubferry check export.csv --as contacts --json

Exit codes of check: 0 all is well; 1 something does not fit, or an import of the
file would stop; 4 some of the file's rows would be rejected";
    format!("{examples}\n\n{}", doors::HELP)
});

static PLAN_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry plan incoming/contacts/a.csv
  hubferry plan export.csv --as contacts --out monday.plan.jsonl
  hubferry plan export.csv --as contacts --format html
  hubferry plan export.csv --as contacts --format csv --out -";
    format!("{examples}\n\n{}", doors::HELP)
});

static APPLY_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry apply a.plan.jsonl
  hubferry apply s3://bucket/plans/a.plan.jsonl --json";
    format!("{examples}\n\n{}", doors::HELP)
});

static UNDO_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry undo 01M81X8WAQPWTZFPPZ0WHP7FWS --plan     look first
  hubferry undo 01M81X8WAQPWTZFPPZ0WHP7FWS
  hubferry undo 01M81X8WAQPWTZFPPZ0WHP7FWS --keep-created";
    format!("{examples}\n\n{}", doors::HELP)
});

static RESUME_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry resume                               all that was cut off
  hubferry resume 01M81X8WAQPWTZFPPZ0WHP7FWS    this run";
    format!("{examples}\n\n{}", doors::HELP)
});

static SYNC_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry sync people --setup             which fields are needed on both sides
  hubferry sync people --setup --create    makes the HubSpot one
  hubferry sync people --plan              what a run would write, and why
  hubferry sync people --plan --out plan.jsonl
  hubferry sync people
  hubferry sync                            all of them, accounts and companies first
  hubferry sync people --local             with HUBSPOT_ACCESS_TOKEN and
                                           SALESFORCE_CREDENTIAL, without any AWS account";
    format!("{examples}\n\n{}", doors::HELP)
});

static REVIEW_HELP: LazyLock<String> = LazyLock::new(|| {
    let examples = "Examples:
  hubferry review list
  hubferry review list --sync people --json
  hubferry review list --refused
  hubferry review show k3f9x2m7qa
  hubferry review resolve k3f9x2m7qa --choose salesforce
  hubferry review resolve k3f9x2m7qa --choose '+1 555 010 0199'";
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
    /// Check settings, credentials and mappings against the live account; with a file, the whole file before its first write.
    ///
    /// Nothing is written. Of a file every row is read, mapped and looked up: what would be created, updated and rejected is told, the first
    /// reject of each code with its place.
    #[command(after_help = CHECK_HELP.as_str())]
    Check(check::Options),
    /// Show what importing a file would do: each record, each field, old and new.
    ///
    /// The file is read, mapped and merged as an import would, and HubSpot is looked at and not written. The plan is a file of JSON lines, which
    /// `hubferry apply` carries out exactly. Lines that should not be carried out may be taken out of it.
    #[command(after_help = PLAN_HELP.as_str())]
    Plan(plan::Options),
    /// Carry out a plan, exactly.
    ///
    /// Before each write the records are read: one of which a planned field does not hold the planned old value any more is left alone and
    /// reported (PLAN_CHANGED). Old values are kept for `hubferry undo`. Ctrl-C stops after a checkpoint; the same command goes on from there.
    /// The same plan again is a duplicate: nothing is written.
    #[command(after_help = APPLY_HELP.as_str())]
    Apply(apply::Options),
    /// Put back what a run changed.
    ///
    /// A field is put back only if it still holds what the run wrote; what others changed since is kept and reported (CHANGED_SINCE). Records that the
    /// run made are archived, which HubSpot keeps for 90 days, unless they were edited since. What the run archived cannot be brought back.
    #[command(after_help = UNDO_HELP.as_str())]
    Undo(apply::UndoOptions),
    /// Go on with a run that was cut off, or with all of them.
    ///
    /// A run that another process holds is left to it, as is one that has to wait for the account's limit, and one whose file is on another machine.
    #[command(after_help = RESUME_HELP.as_str())]
    Resume(import::ResumeOptions),
    /// Show what each import, capture and sync did last and where it stands, and which runs are open.
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
    /// Bring Salesforce and HubSpot into step, from here; or show what that would write.
    ///
    /// Works on the sync's run until its end: everything, the first time, then what has changed since the last run, on either side. It goes on where
    /// the last run stopped, here or in AWS. Ctrl-C stops after what is being written is stored.
    ///
    /// With --plan nothing is written anywhere: each record and field is shown, old and new, with the reason, and the totals beside the limits. Values
    /// are shown. With --setup it says which fields the sync needs.
    #[command(after_help = SYNC_HELP.as_str())]
    Sync(sync::Options),
    /// Decide what a sync cannot: list, show and resolve what waits for a person.
    #[command(after_help = REVIEW_HELP.as_str())]
    Review(review::Options),
    /// Remove a person from everything that hubferry keeps, and look again to see that nothing is left.
    ///
    /// Rows in rejects files, before-images, captured records in every format, what captures remember, and delivered indexes. HubSpot is asked which ids
    /// and further addresses belong to the address. Files that were imported are not changed, nor are older versions of objects; the outcome says what was
    /// looked through. It can be stopped and repeated at any time.
    ///
    /// Exit codes: 0 nothing is left (with --dry-run: always), 1 something is left, which is named, or the command failed.
    #[command(after_help = ERASE_HELP.as_str())]
    Erase(erase::Options),
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
    /// Live through whole runs under a seed, with everything simulated: faults, kills, people at work; and check what was promised.
    ///
    /// A seed makes a world: what stands in the accounts, the files, limits, latencies and what goes wrong. The same seed is the same world, step by
    /// step. A world that fails is shown with the command that lives through it again, and as small as it goes. Nothing real is called.
    ///
    /// Exit codes: 0 every world held, 1 one did not, 3 stopped by Ctrl-C before the end.
    #[command(
        after_help = "Examples:\n  hubferry simulate --job import --seeds 1000\n  hubferry simulate --job sync --first-seed 17 --seeds 1 --trace\n  \
                            hubferry simulate --job import --first-seed 17 --seeds 1 --size 10 --without kills,people --trace"
    )]
    Simulate(simulate::Options),
    /// Explain an error code: what it means, when it happens, what to do.
    #[command(after_help = "Examples:\n  hubferry explain INVALID_EMAIL\n  hubferry explain    lists all codes")]
    Explain {
        /// The code, as reports and rejects files have it; without one, all are listed.
        code: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a commented hubferry.yaml, from a CSV's header and the account's properties.
    ///
    /// Columns are matched by name, label and usual meaning; the key and the formats of dates are told by the cells; what is not known is a comment
    /// with the nearest names. Nothing is written into HubSpot. With --from-conduit HubSpot sources of a pipeline configuration become
    /// captures, HubSpot destinations become imports of OpenCDC records. What could not be carried over is said on standard error. Tokens are
    /// not copied.
    #[command(
        after_help = "Examples:\n  HUBSPOT_ACCESS_TOKEN=… hubferry init contacts.csv --out hubferry.yaml\n  hubferry init companies.csv --object companies --secret hubferry/hubspot\n  \
                            hubferry init --from-conduit pipelines.yaml --bucket my-data --out hubferry.yaml\n  \
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
            let _ = writeln!(io::stderr(), "hubferry: {}", told(&error));
            if let Some(error) = error.downcast_ref::<hubferry::Error>() {
                let _ = writeln!(io::stderr(), "  -> {}", error.hint());
            }
            ExitCode::from(FAILED)
        }
    }
}

/// An error as people read it: problems of the settings with their lines.
fn told(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    match error.downcast_ref::<hubferry::Error>() {
        Some(invalid) if invalid.code() == hubferry::codes::CONFIG_INVALID => {
            whole.replace(invalid.message(), &caret::of_settings(invalid.message()))
        }
        _ => whole,
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
        Command::Check(options) => {
            drop(out);
            return check::run(&options);
        }
        Command::Plan(options) => {
            drop(out);
            return plan::run(&options);
        }
        Command::Apply(options) => {
            drop(out);
            return apply::run(&options);
        }
        Command::Undo(options) => {
            drop(out);
            return apply::undo(&options);
        }
        Command::Resume(options) => {
            drop(out);
            return import::resume(&options);
        }
        Command::Erase(options) => {
            drop(out);
            return erase::run(&options);
        }
        Command::Status(options) => {
            drop(out);
            return status::run(&options);
        }
        Command::Report(options) => {
            drop(out);
            return report::run(&options);
        }
        Command::Sync(options) => {
            drop(out);
            return sync::run(&options);
        }
        Command::Review(options) => {
            drop(out);
            return review::run(&options);
        }
        Command::Pandium(options) => {
            drop(out);
            return pandium::run(&options);
        }
        Command::Simulate(options) => {
            drop(out);
            return simulate::run(&options);
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
}
