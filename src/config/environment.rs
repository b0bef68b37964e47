//! The environment variables: the only ones that are read, and the only place that reads them.
//!
//! `RUST_LOG` is the logger's; the `AWS_*` ones are the SDK's, but for the address of the X-Ray daemon, which Lambda sets.

use std::{env, path::PathBuf};

use crate::{Error, Result, codes, objects::Location};

/// Where `hubferry.yaml` is: a path, or `s3://bucket/key`.
pub const HUBFERRY_CONFIG: &str = "HUBFERRY_CONFIG";
/// The DynamoDB table.
pub const HUBFERRY_TABLE: &str = "HUBFERRY_TABLE";
/// The address of the SQS queue for continuations.
pub const HUBFERRY_QUEUE_URL: &str = "HUBFERRY_QUEUE_URL";

/// Where the configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file.
    Path(PathBuf),
    /// An object in S3, re-read when its `ETag` changes.
    Object(Location),
}

/// The variables as they were at start. One that is empty or blank counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `HUBFERRY_CONFIG`.
    pub config: Option<String>,
    /// `HUBFERRY_TABLE`.
    pub table: Option<String>,
    /// `HUBFERRY_QUEUE_URL`. Without it the resume schedule finds the continuations.
    pub queue_url: Option<String>,
    /// `RUST_LOG`: what is logged.
    pub log_filter: Option<String>,
    /// `AWS_XRAY_DAEMON_ADDRESS`: where Lambda takes trace segments.
    pub xray_daemon: Option<String>,
}

impl Environment {
    /// Reads the process's own variables.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads them")]
    pub fn read() -> Self {
        Self::from_lookup(|name| env::var(name).ok())
    }

    /// The variables as `lookup` has them.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        Self {
            config: value(HUBFERRY_CONFIG),
            table: value(HUBFERRY_TABLE),
            queue_url: value(HUBFERRY_QUEUE_URL),
            log_filter: value("RUST_LOG"),
            xray_daemon: value("AWS_XRAY_DAEMON_ADDRESS"),
        }
    }

    /// Where the configuration is. `CONFIG_MISSING` if nothing says so, or if an S3 address lacks bucket or key.
    pub fn config(&self) -> Result<ConfigSource> {
        let value = self.config.as_deref().ok_or_else(|| missing(HUBFERRY_CONFIG))?;
        if !value.starts_with("s3://") {
            return Ok(ConfigSource::Path(value.into()));
        }
        let location =
            Location::parse(value).filter(|location| !location.key.is_empty() && !location.key.ends_with('/'));
        location.map(ConfigSource::Object).ok_or_else(|| {
            Error::invalid(
                codes::CONFIG_MISSING,
                format!("{HUBFERRY_CONFIG} is `{value}`, which names no object; write s3://bucket/key"),
            )
        })
    }

    /// The table. `CONFIG_MISSING` if nothing names it.
    pub fn table(&self) -> Result<&str> {
        self.table.as_deref().ok_or_else(|| {
            missing(HUBFERRY_TABLE)
                .with_hint("Set HUBFERRY_TABLE to the name of the DynamoDB table that the template created.")
        })
    }
}

fn missing(variable: &str) -> Error {
    Error::invalid(codes::CONFIG_MISSING, format!("the environment variable {variable} is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_variable_that_is_absent_or_empty_is_named_in_the_error() {
        for pairs in [&[][..], &[("HUBFERRY_CONFIG", ""), ("HUBFERRY_TABLE", "  ")]] {
            let environment = environment(pairs);
            let (config, table) = (environment.config().unwrap_err(), environment.table().unwrap_err());
            assert_eq!((config.code(), table.code()), (codes::CONFIG_MISSING, codes::CONFIG_MISSING));
            assert!(config.message().contains("HUBFERRY_CONFIG"), "{config}");
            assert!(table.message().contains("HUBFERRY_TABLE") && table.hint().contains("HUBFERRY_TABLE"), "{table}");
            assert_eq!(environment.queue_url, None);
        }
    }

    #[test]
    fn the_configuration_is_a_path_or_an_object() {
        let config = |value| environment(&[("HUBFERRY_CONFIG", value)]).config();
        assert_eq!(config("conf/hubferry.yaml").unwrap(), ConfigSource::Path("conf/hubferry.yaml".into()));
        assert_eq!(config("s3://b/c/h.yaml").unwrap(), ConfigSource::Object(Location::new("b", "c/h.yaml")));
        for wrong in ["s3://", "s3://b", "s3://b/", "s3:///k", "s3://b/folder/"] {
            assert_eq!(config(wrong).unwrap_err().code(), codes::CONFIG_MISSING, "{wrong}");
        }
    }
}
