//! The one error type of the library, and who acts on it.
//!
//! A kind exists only where somebody acts differently on it. The stable code beside it names the page
//! `docs/errors/<CODE>.md`. Rows that cannot be delivered are not errors: they are [`crate::record::Reject`]s.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

use crate::codes::Code;

/// `Result` with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Asked to slow down: wait what the server said, and slow the limiter.
    Throttled {
        /// What the server asked for, if it said so.
        retry_after: Option<Duration>,
    },
    /// The account's daily calls are spent: nothing is to be gained before its midnight.
    DailyLimit,
    /// The request was not carried out (refused by a gateway, never sent): back off and repeat.
    Unavailable {
        /// What the server asked for, if it said so.
        retry_after: Option<Duration>,
    },
    /// The answer was lost: the request may have been carried out. Repeat only what is safe to repeat.
    Unknown,
    /// The credential was refused: read the secret again once, then stop.
    Unauthorized,
    /// The credential lacks a permission: stop.
    Forbidden,
    /// The thing asked for is not there.
    NotFound,
    /// The lease was lost to another owner: stop quietly, write nothing more.
    Fenced,
    /// A condition on stored state or on an object's version did not hold: read again and decide again.
    Conflict,
    /// A person has to change the configuration, the mapping or the file.
    Invalid,
    /// The server refused the request as such (HTTP 4xx): repeating it as it is will not help.
    Refused,
    /// Stored state broke one of our own invariants: stop loudly.
    Corrupt,
}

/// What was being done, to what, why it failed and what to do about it.
///
/// The text never holds a token or a cell of a file.
pub struct Error {
    kind: ErrorKind,
    code: Code,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, explained by the page of `code`.
    pub fn new(kind: ErrorKind, code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, code, message: message.into(), hint: None, source: None }
    }

    /// A person has to change something.
    pub fn invalid(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }

    /// Adds what the person can do; without it the code's own hint is told.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts what was being done in front of the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message).into();
        self
    }

    /// What the caller does about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable code, which names the page that explains it.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What was being done, to what, and why it failed.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn hint(&self) -> &str {
        self.hint.as_deref().unwrap_or(self.code.hint())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.kind)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
