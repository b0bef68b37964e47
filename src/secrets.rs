//! Where tokens come from: Secrets Manager on AWS, the environment on a command line.

use async_trait::async_trait;

use crate::error::Result;

/// Text that is never shown: not by `Debug`, not in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted(String);

impl Redacted {
    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Reads and replaces secrets.
#[async_trait(?Send)]
pub trait Secrets {
    /// The current value. `SECRET_MISSING` if there is none or it may not be read.
    async fn get(&self, id: &str) -> Result<Redacted>;
    /// Stores a new current value (a rotated refresh token). `token` makes a repeat harmless.
    async fn put(&self, id: &str, value: &Redacted, token: &str) -> Result<()>;
}
