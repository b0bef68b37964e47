//! Log lines: one JSON object each, for CloudWatch; plain text on a command line.
//!
//! The libraries below us (AWS SDK, hyper, reqwest, rustls) say nothing below `warn` unless the filter names them, and never
//! `trace`, whatever the filter says: at that level they write whole requests and answers, with tokens and rows in them.

use std::{io, str::FromStr};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer,
    filter::{FilterExt, Targets, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
};

/// What is logged where the filter says nothing. A name stands for all modules that begin with it.
const DEFAULT_FILTER: &str = "info,aws=warn,h2=warn,hyper=warn,reqwest=warn,rustls=warn,lambda_runtime=off,tower=warn";
/// Libraries that see requests and answers; they may never log at `trace`.
const LIBRARIES: [&str; 6] = ["aws", "h2", "hyper", "reqwest", "rustls", "lambda_runtime"];

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, on standard output: what CloudWatch reads.
    Json,
    /// For a person, on standard error.
    Plain,
}

/// Starts logging, for the whole process. A second call does nothing.
///
/// `filter` is the text of `RUST_LOG`, for example `debug` or `info,hubferry::import=debug`. One that cannot be read is told in a line and ignored.
pub fn start(format: Format, filter: Option<&str>) {
    // Only a second call fails: the first one's settings stay.
    let (_, problem) = match format {
        Format::Json => {
            let (subscriber, problem) = subscriber(format, filter, io::stdout);
            (tracing::subscriber::set_global_default(subscriber), problem)
        }
        Format::Plain => {
            let (subscriber, problem) = subscriber(format, filter, io::stderr);
            (tracing::subscriber::set_global_default(subscriber), problem)
        }
    };
    if let Some(problem) = problem {
        tracing::warn!(problem, "RUST_LOG cannot be read and is ignored");
    }
}

/// Starts logging, as [`start`] with [`Format::Json`], into a file: where standard output is for a person.
pub fn start_in(file: std::fs::File, filter: Option<&str>) {
    let (subscriber, problem) = subscriber(Format::Json, filter, std::sync::Arc::new(file));
    // Only a second call fails: the first one's settings stay.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if let Some(problem) = problem {
        tracing::warn!(problem, "RUST_LOG cannot be read and is ignored");
    }
}

/// A subscriber that writes to `writer`, and what is wrong with `filter`.
fn subscriber<W>(format: Format, filter: Option<&str>, writer: W) -> (Box<dyn Subscriber + Send + Sync>, Option<String>)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = filter.map(str::trim).filter(|filter| !filter.is_empty());
    // Levels by name are all that is wanted. `EnvFilter` also filters by the fields of spans, for which it carries a whole engine of
    // regular expressions into the function.
    let default = || Targets::from_str(DEFAULT_FILTER).unwrap_or_default();
    let wanted = filter.map(|filter| Targets::from_str(&format!("{DEFAULT_FILTER},{filter}")));
    let (levels, problem) = match wanted {
        Some(Ok(levels)) => (levels, None),
        Some(Err(error)) => (default(), Some(error.to_string())),
        None => (default(), None),
    };
    let levels = levels.and(filter_fn(is_harmless));
    let layer = match format {
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(writer)
            .with_filter(levels)
            .boxed(),
        Format::Plain => tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_writer(writer)
            .with_filter(levels)
            .boxed(),
    };
    (Box::new(tracing_subscriber::registry().with(layer)), problem)
}

fn is_harmless(metadata: &Metadata<'_>) -> bool {
    *metadata.level() != Level::TRACE || !LIBRARIES.iter().any(|library| metadata.target().starts_with(library))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `call` logs.
    fn logged(format: Format, filter: Option<&str>, call: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, _) = subscriber(format, filter, move || writer.clone());
        tracing::subscriber::with_default(subscriber, call);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object_with_its_fields_at_the_top() {
        let text = logged(Format::Json, None, || tracing::info!(run = "r1", rows = 7, "batch\nwritten"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["run"], &line["rows"], &line["level"]), (&"r1".into(), &7.into(), &"INFO".into()), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn libraries_are_quiet_unless_named_and_never_trace() {
        let speak = || {
            tracing::info!(target: "hyper_util::client", "1");
            tracing::debug!(target: "aws_smithy_runtime::client", "2");
            tracing::trace!(target: "aws_smithy_runtime::client", "body");
            tracing::debug!(target: "hubferry::import", "4");
        };
        let lines = |filter| logged(Format::Plain, filter, speak).lines().count();
        assert_eq!(lines(None), 0);
        assert_eq!(lines(Some("debug")), 1, "ours only");
        assert_eq!(lines(Some("info,aws=trace")), 1, "named, but without the bodies");
        assert!(!logged(Format::Plain, Some("trace"), speak).contains("body"));
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_told_and_ignored() {
        assert!(Targets::from_str(DEFAULT_FILTER).is_ok());
        for filter in ["hubferry=loud", "info,[span{field=1}]=debug", "a=b=c"] {
            let (_, problem) = subscriber(Format::Json, Some(filter), io::sink);
            assert!(problem.is_some(), "{filter}");
        }
        assert_eq!(logged(Format::Plain, Some("hubferry=loud"), || tracing::info!("still here")).lines().count(), 1);
    }
}
