//! Where tokens come from: Secrets Manager on AWS, the environment on a command line.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
};

use async_trait::async_trait;
use aws_sdk_secretsmanager::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    aws::Failure,
    codes::{self, Code},
    error::{Error, ErrorKind, Result},
};

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

/// AWS Secrets Manager.
#[derive(Debug)]
pub struct SecretsManager(Client);

impl SecretsManager {
    /// Secrets reached through `client`. Makes no request.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

#[async_trait(?Send)]
impl Secrets for SecretsManager {
    async fn get(&self, id: &str) -> Result<Redacted> {
        match self.0.get_secret_value().secret_id(id).send().await {
            Ok(secret) => secret.secret_string.map(Redacted::new).ok_or_else(|| {
                Error::invalid(codes::SECRET_INVALID, format!("secret {id} is binary, not text"))
                    .with_hint("Store it as text (SecretString).")
            }),
            Err(error) => Err(failed("read", id, &error)),
        }
    }

    async fn put(&self, id: &str, value: &Redacted, token: &str) -> Result<()> {
        let request = self.0.put_secret_value().secret_id(id).secret_string(value.expose());
        match request.client_request_token(request_token(token)).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(failed("replace", id, &error)),
        }
    }
}

/// Secrets Manager wants 32 to 64 characters; what is shorter or longer (a ULID) is hashed to 32.
fn request_token(token: &str) -> String {
    if (32..=64).contains(&token.len()) { token.to_owned() } else { format!("{:032x}", xxh3_128(token.as_bytes())) }
}

fn failed<E>(what: &str, id: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = Failure::from(error);
    let message = format!("cannot {what} secret {id}: {}", failure.text);
    match failure.code.as_str() {
        "ResourceNotFoundException" => Error::invalid(codes::SECRET_MISSING, message)
            .with_hint(format!("Create the secret {id} with a value, in the function's account and region.")),
        "DecryptionFailure" | "EncryptionFailure" => Error::new(ErrorKind::Forbidden, codes::SECRET_MISSING, message)
            .with_hint(format!("Allow the function kms:Decrypt on the key of the secret {id}.")),
        // The secret is being deleted.
        "InvalidRequestException" => Error::invalid(codes::SECRET_MISSING, message)
            .with_hint(format!("Restore the secret {id} if it is scheduled for deletion, or create it again.")),
        // The token of an earlier, different value.
        "ResourceExistsException" => Error::new(ErrorKind::Conflict, codes::AWS_UNAVAILABLE, message),
        _ => match failure.kind(true) {
            ErrorKind::Forbidden => {
                let action =
                    if what == "read" { "secretsmanager:GetSecretValue" } else { "secretsmanager:PutSecretValue" };
                Error::new(ErrorKind::Forbidden, codes::SECRET_MISSING, message)
                    .with_hint(format!("Allow the function {action} on the secret {id}."))
            }
            kind => Error::new(kind, codes::AWS_UNAVAILABLE, message),
        },
    }
}

/// Keeps secrets in memory, for tests.
#[derive(Debug, Default)]
pub struct MemorySecrets {
    values: RefCell<BTreeMap<String, Redacted>>,
    tokens: RefCell<BTreeMap<String, Redacted>>,
    reads: Cell<u64>,
    faults: RefCell<VecDeque<(ErrorKind, Code)>>,
}

impl MemorySecrets {
    /// No secrets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Places a secret.
    pub fn insert(&self, id: &str, value: &str) {
        self.values.borrow_mut().insert(id.to_owned(), Redacted::new(value));
    }

    /// How often a secret was read.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// The next call that has no fault yet fails like this. Calls line up faults in order.
    pub fn fail_next(&self, kind: ErrorKind, code: Code) {
        self.faults.borrow_mut().push_back((kind, code));
    }

    fn told(&self) -> Result<()> {
        match self.faults.borrow_mut().pop_front() {
            Some((kind, code)) => Err(Error::new(kind, code, "the secrets were told to fail")),
            None => Ok(()),
        }
    }
}

fn missing(id: &str) -> Error {
    Error::invalid(codes::SECRET_MISSING, format!("there is no secret {id}"))
}

#[async_trait(?Send)]
impl Secrets for MemorySecrets {
    async fn get(&self, id: &str) -> Result<Redacted> {
        self.reads.set(self.reads.get() + 1);
        self.told()?;
        self.values.borrow().get(id).cloned().ok_or_else(|| missing(id))
    }

    async fn put(&self, id: &str, value: &Redacted, token: &str) -> Result<()> {
        self.told()?;
        if !self.values.borrow().contains_key(id) {
            return Err(missing(id));
        }
        let known = self.tokens.borrow().get(token).cloned();
        match known {
            Some(earlier) if earlier == *value => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Conflict,
                codes::AWS_UNAVAILABLE,
                format!("secret {id}: the token belongs to another value"),
            )),
            None => {
                self.tokens.borrow_mut().insert(token.to_owned(), value.clone());
                self.values.borrow_mut().insert(id.to_owned(), value.clone());
                Ok(())
            }
        }
    }
}

/// One access token for every id: the command line's `HUBSPOT_ACCESS_TOKEN`.
#[derive(Debug)]
pub struct EnvironmentSecret(Redacted);

impl EnvironmentSecret {
    /// Answers with `access_token`, in the shape in which a secret holds it.
    pub fn new(access_token: &str) -> Self {
        Self(Redacted::new(serde_json::json!({ "access_token": access_token.trim() }).to_string()))
    }
}

#[async_trait(?Send)]
impl Secrets for EnvironmentSecret {
    async fn get(&self, _id: &str) -> Result<Redacted> {
        Ok(self.0.clone())
    }

    async fn put(&self, id: &str, _value: &Redacted, _token: &str) -> Result<()> {
        let message = format!("secret {id} comes from the environment and cannot be replaced");
        Err(Error::invalid(codes::SECRET_INVALID, message)
            .with_hint("Set HUBSPOT_ACCESS_TOKEN anew, or use Secrets Manager."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_long_enough_as_a_request_token() {
        assert_eq!(request_token("01ARZ3NDEKTSV4RRFFQ69G5FAV").len(), 32);
        assert_ne!(request_token("a"), request_token("b"));
        assert_eq!(request_token(&"x".repeat(40)), "x".repeat(40));
    }

    #[tokio::test]
    async fn the_environments_token_has_the_shape_of_a_secret_and_is_not_shown() {
        let secrets = EnvironmentSecret::new("pat-\"1\"\n");
        let value = secrets.get("anything").await.unwrap();
        let value: serde_json::Value = serde_json::from_str(value.expose()).unwrap();
        assert_eq!(value["access_token"], "pat-\"1\"");
        assert!(!format!("{secrets:?}").contains("pat-"));
    }

    #[tokio::test]
    async fn a_repeated_replacement_is_harmless_and_a_different_one_is_noticed() {
        let secrets = MemorySecrets::new();
        secrets.insert("crm", "1");
        for _ in 0..2 {
            secrets.put("crm", &Redacted::new("2"), "token").await.unwrap();
        }
        assert_eq!(secrets.put("crm", &Redacted::new("3"), "token").await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(secrets.get("crm").await.unwrap().expose(), "2");
        assert_eq!(secrets.get("other").await.unwrap_err().code(), codes::SECRET_MISSING);
    }
}
