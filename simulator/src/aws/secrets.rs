//! Secrets Manager with its rules about versions, which stand-ins tend to leave out: a `ClientRequestToken` names the
//! version, the same token with the same value is a repeat, with another value an error; `AWSCURRENT` leaves
//! `AWSPREVIOUS` behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use http::Request;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    ACCOUNT, Call, REGION, Service, Shared,
    http::{Answer, Handler, JsonError, JsonResult, json_call, json_request, text},
    lock,
};

/// Versions kept of a secret before unlabelled ones go, as AWS does at about 100.
const VERSIONS_MAX: usize = 100;
/// Bytes of a secret value, as AWS bounds it.
const SECRET_BYTES_MAX: usize = 65_536;

/// A text, or bytes in base64.
type SecretValue = (Option<String>, Option<String>);

#[derive(Debug, Clone)]
struct Version {
    string: Option<String>,
    binary: Option<String>,
    stages: BTreeSet<String>,
    created: Timestamp,
    number: u64,
}

#[derive(Debug, Clone)]
struct Secret {
    arn: String,
    name: String,
    description: Option<String>,
    created: Timestamp,
    changed: Timestamp,
    deleted: Option<Timestamp>,
    versions: BTreeMap<String, Version>,
    next_number: u64,
}

#[derive(Debug, Default)]
struct Vault {
    secrets: BTreeMap<String, Secret>,
}

/// Secrets Manager's state; tests may put secrets in without HTTP.
#[derive(Debug)]
pub struct Secrets {
    shared: Arc<Shared>,
    vault: Mutex<Vault>,
}

impl Secrets {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, vault: Mutex::default() }
    }

    /// Creates the secret, or gives it a new current value.
    pub fn put(&self, name: &str, value: &str) {
        let known = lock(&self.vault).secrets.contains_key(name);
        let token = self.shared.uuid();
        let (action, request) = if known {
            ("PutSecretValue", json!({ "SecretId": name, "SecretString": value, "ClientRequestToken": token }))
        } else {
            ("CreateSecret", json!({ "Name": name, "SecretString": value, "ClientRequestToken": token }))
        };
        // Fails only for a secret marked for deletion, which a caller of this helper does not have.
        let _ = self.act(action, &request);
    }

    /// The current value.
    pub fn current(&self, name: &str) -> Option<String> {
        self.act("GetSecretValue", &json!({ "SecretId": name }))
            .ok()
            .and_then(|answer| text(&answer, "SecretString").map(str::to_owned))
    }

    fn act(&self, action: &str, request: &Value) -> JsonResult {
        let now = self.shared.clock.now();
        let mut vault = lock(&self.vault);
        match action {
            "CreateSecret" => self.create(&mut vault, request, now),
            "GetSecretValue" => vault.find_live(request).and_then(|secret| get(secret, request)),
            "PutSecretValue" | "UpdateSecret" => self.put_value(&mut vault, action, request, now),
            "UpdateSecretVersionStage" => {
                let secret = vault.find_live(request)?;
                move_stage(secret, request)?;
                secret.changed = now;
                Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
            }
            "DescribeSecret" => vault.find(request).map(|secret| describe(secret)),
            "DeleteSecret" => delete(&mut vault, request, now),
            "RestoreSecret" => {
                let secret = vault.find(request)?;
                secret.deleted = None;
                Ok(json!({ "ARN": secret.arn, "Name": secret.name }))
            }
            "ListSecrets" => Ok(json!({
                "SecretList": vault.secrets.values_mut().filter(|secret| secret.deleted.is_none())
                    .map(|secret| describe(secret)).collect::<Vec<_>>()
            })),
            _ => Err(JsonError::new("UnknownOperationException", format!("{action} is not simulated"))),
        }
    }

    fn token(&self, request: &Value) -> Result<String, JsonError> {
        match text(request, "ClientRequestToken") {
            None => Ok(self.shared.uuid()),
            Some(token) if (32..=64).contains(&token.len()) => Ok(token.to_owned()),
            Some(_) => {
                Err(JsonError::new("InvalidParameterException", "ClientRequestToken must be 32-64 characters long."))
            }
        }
    }

    fn create(&self, vault: &mut Vault, request: &Value, now: Timestamp) -> JsonResult {
        let name = text(request, "Name").filter(|name| !name.is_empty());
        let Some(name) = name else {
            return Err(JsonError::new("InvalidParameterException", "Name is required."));
        };
        let token = self.token(request)?;
        let value = value_of(request)?;
        if let Some(secret) = vault.secrets.get(name) {
            if secret.deleted.is_some() {
                return Err(JsonError::new(
                    "InvalidRequestException",
                    "You can't create this secret because a secret with this name is already scheduled for deletion.",
                ));
            }
            // The same request again: the same answer, as long as it says the same.
            return match (secret.versions.get(&token), &value) {
                (Some(version), Some(value)) if version.same(value) => {
                    Ok(json!({ "ARN": secret.arn, "Name": name, "VersionId": token }))
                }
                _ => Err(exists(name)),
            };
        }
        let suffix: String = self.shared.letters(6);
        let mut secret = Secret {
            arn: format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-{suffix}"),
            name: name.to_owned(),
            description: text(request, "Description").map(str::to_owned),
            created: now,
            changed: now,
            deleted: None,
            versions: BTreeMap::new(),
            next_number: 0,
        };
        let mut answer = json!({ "ARN": secret.arn, "Name": name });
        if let Some(value) = value {
            secret.add(&token, value, &["AWSCURRENT".to_owned()], now);
            answer["VersionId"] = token.into();
        }
        vault.secrets.insert(name.to_owned(), secret);
        Ok(answer)
    }

    fn put_value(&self, vault: &mut Vault, action: &str, request: &Value, now: Timestamp) -> JsonResult {
        let token = self.token(request)?;
        let value = value_of(request)?;
        let secret = vault.find_live(request)?;
        if action == "UpdateSecret"
            && let Some(description) = text(request, "Description")
        {
            secret.description = Some(description.to_owned());
            secret.changed = now;
        }
        let mut answer = json!({ "ARN": secret.arn, "Name": secret.name });
        let Some(value) = value else {
            if action == "UpdateSecret" {
                return Ok(answer);
            }
            return Err(JsonError::new(
                "InvalidRequestException",
                "You must provide either SecretString or SecretBinary.",
            ));
        };
        let stages: Vec<String> = request
            .get("VersionStages")
            .and_then(Value::as_array)
            .filter(|_| action == "PutSecretValue")
            .map(|stages| stages.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_else(|| vec!["AWSCURRENT".to_owned()]);
        match secret.versions.get(&token) {
            Some(version) if version.same(&value) => {}
            Some(_) => {
                return Err(JsonError::new(
                    "ResourceExistsException",
                    format!("The specified ClientRequestToken {token} is already in use with another value."),
                ));
            }
            None => secret.add(&token, value, &stages, now),
        }
        let stages = secret.versions.get(&token).map(|version| json!(version.stages)).unwrap_or_default();
        answer["VersionId"] = token.into();
        if action == "PutSecretValue" {
            answer["VersionStages"] = stages;
        }
        Ok(answer)
    }
}

impl Vault {
    fn find(&mut self, request: &Value) -> Result<&mut Secret, JsonError> {
        let id = text(request, "SecretId").unwrap_or_default();
        let found = self.secrets.values_mut().find(|secret| {
            // A name, an ARN, or an ARN without the six characters AWS adds.
            secret.name == id || secret.arn == id || secret.arn.rsplit_once('-').is_some_and(|(short, _)| short == id)
        });
        found.ok_or_else(|| {
            JsonError::new("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        })
    }

    fn find_live(&mut self, request: &Value) -> Result<&mut Secret, JsonError> {
        let secret = self.find(request)?;
        if secret.deleted.is_some() {
            return Err(JsonError::new(
                "InvalidRequestException",
                "You can't perform this operation on the secret because it was marked for deletion.",
            ));
        }
        Ok(secret)
    }
}

impl Version {
    fn same(&self, value: &SecretValue) -> bool {
        self.string == value.0 && self.binary == value.1
    }
}

impl Secret {
    fn add(&mut self, id: &str, value: SecretValue, stages: &[String], now: Timestamp) {
        let (string, binary) = value;
        self.next_number += 1;
        let version = Version { string, binary, stages: BTreeSet::new(), created: now, number: self.next_number };
        self.versions.insert(id.to_owned(), version);
        for stage in stages {
            self.label(stage, Some(id));
        }
        if self.versions.len() == 1 {
            // A secret with a value always has a current one.
            self.label("AWSCURRENT", Some(id));
        }
        self.changed = now;
        while self.versions.len() > VERSIONS_MAX {
            let oldest = self
                .versions
                .iter()
                .filter(|(_, version)| version.stages.is_empty())
                .min_by_key(|(_, version)| version.number)
                .map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            self.versions.remove(&oldest);
        }
    }

    fn holder(&self, stage: &str) -> Option<String> {
        self.versions.iter().find(|(_, version)| version.stages.contains(stage)).map(|(id, _)| id.clone())
    }

    /// Moves `stage` to the version `to`, or off; `AWSCURRENT` leaves `AWSPREVIOUS` where it was.
    fn label(&mut self, stage: &str, to: Option<&str>) {
        let from = self.holder(stage);
        if from.as_deref() == to {
            return;
        }
        for version in self.versions.values_mut() {
            version.stages.remove(stage);
        }
        if let Some(version) = to.and_then(|to| self.versions.get_mut(to)) {
            version.stages.insert(stage.to_owned());
        }
        if let (true, Some(from)) = (stage == "AWSCURRENT", from) {
            if let Some(to) = to.and_then(|to| self.versions.get_mut(to)) {
                to.stages.remove("AWSPREVIOUS");
            }
            self.label("AWSPREVIOUS", Some(&from));
        }
    }
}

fn exists(name: &str) -> JsonError {
    JsonError::new("ResourceExistsException", format!("The operation failed because the secret {name} already exists."))
}

fn value_of(request: &Value) -> Result<Option<SecretValue>, JsonError> {
    let string = text(request, "SecretString").map(str::to_owned);
    let binary = text(request, "SecretBinary").map(str::to_owned);
    match (&string, &binary) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(JsonError::new(
            "InvalidParameterException",
            "You can't specify both a binary secret value and a string secret value in the same secret.",
        )),
        (Some(value), None) | (None, Some(value)) if value.len() > SECRET_BYTES_MAX * 4 / 3 + 4 => {
            Err(JsonError::new("InvalidParameterException", "The secret value is longer than 65536 bytes."))
        }
        (Some(value), None) if value.len() > SECRET_BYTES_MAX => {
            Err(JsonError::new("InvalidParameterException", "The secret value is longer than 65536 bytes."))
        }
        _ => Ok(Some((string, binary))),
    }
}

fn get(secret: &Secret, request: &Value) -> JsonResult {
    let stage = text(request, "VersionStage");
    let missing = |what: String| {
        JsonError::new(
            "ResourceNotFoundException",
            format!("Secrets Manager can't find the specified secret value for {what}"),
        )
    };
    let id = match text(request, "VersionId") {
        Some(id) => id.to_owned(),
        None => {
            let stage = stage.unwrap_or("AWSCURRENT");
            secret.holder(stage).ok_or_else(|| missing(format!("staging label: {stage}")))?
        }
    };
    let version = secret
        .versions
        .get(&id)
        .filter(|version| stage.is_none_or(|stage| version.stages.contains(stage)))
        .ok_or_else(|| missing(format!("VersionId: {id}")))?;
    let mut answer = json!({
        "ARN": secret.arn,
        "Name": secret.name,
        "VersionId": id,
        "VersionStages": version.stages,
        "CreatedDate": seconds(version.created),
    });
    if let Some(string) = &version.string {
        answer["SecretString"] = string.as_str().into();
    }
    if let Some(binary) = &version.binary {
        answer["SecretBinary"] = binary.as_str().into();
    }
    Ok(answer)
}

fn move_stage(secret: &mut Secret, request: &Value) -> Result<(), JsonError> {
    let invalid = |message: String| Err(JsonError::new("InvalidParameterException", message));
    let Some(stage) = text(request, "VersionStage") else { return invalid("VersionStage is required.".to_owned()) };
    let from = text(request, "RemoveFromVersionId");
    let to = text(request, "MoveToVersionId");
    let holder = secret.holder(stage);
    if let Some(id) = [from, to].into_iter().flatten().find(|id| !secret.versions.contains_key(*id)) {
        return Err(JsonError::new(
            "ResourceNotFoundException",
            format!("Secrets Manager can't find the specified secret version: {id}."),
        ));
    }
    if let Some(holder) = holder.as_deref()
        && from != Some(holder)
        && to != Some(holder)
    {
        return invalid(format!(
            "The parameter RemoveFromVersionId can't be empty or differ from {holder}. Staging label {stage} is \
             currently attached to version {holder}, so you must explicitly reference that version in \
             RemoveFromVersionId."
        ));
    }
    if stage == "AWSCURRENT" && to.is_none() {
        return invalid("You can't remove AWSCURRENT without moving it to another version.".to_owned());
    }
    secret.label(stage, to);
    Ok(())
}

fn describe(secret: &Secret) -> Value {
    let stages: Map<String, Value> = secret
        .versions
        .iter()
        .filter(|(_, version)| !version.stages.is_empty())
        .map(|(id, version)| (id.clone(), json!(version.stages)))
        .collect();
    let mut answer = json!({
        "ARN": secret.arn,
        "Name": secret.name,
        "CreatedDate": seconds(secret.created),
        "LastChangedDate": seconds(secret.changed),
        "VersionIdsToStages": stages,
    });
    if let Some(description) = &secret.description {
        answer["Description"] = description.as_str().into();
    }
    if let Some(deleted) = secret.deleted {
        answer["DeletedDate"] = seconds(deleted);
    }
    answer
}

fn delete(vault: &mut Vault, request: &Value, now: Timestamp) -> JsonResult {
    let forced = request.get("ForceDeleteWithoutRecovery").and_then(Value::as_bool) == Some(true);
    let secret = vault.find(request)?;
    secret.deleted = Some(now);
    let name = secret.name.clone();
    let answer = json!({ "ARN": secret.arn, "Name": name, "DeletionDate": seconds(now) });
    if forced {
        vault.secrets.remove(&name);
    }
    Ok(answer)
}

fn seconds(at: Timestamp) -> Value {
    json!(at.as_millisecond() as f64 / 1000.0)
}

impl Handler for Secrets {
    const SERVICE: Service = Service::SecretsManager;

    fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let (action, request) = json_request(request).await;
        let id = request.as_ref().ok().and_then(|request| text(request, "SecretId").or(text(request, "Name")));
        let id = id.unwrap_or("*");
        let call = Call {
            service: Service::SecretsManager,
            permission: format!("secretsmanager:{action}"),
            resource: if id.starts_with("arn:") {
                id.to_owned()
            } else {
                format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{id}")
            },
            action: action.clone(),
            status: 0,
        };
        json_call(&self.shared, call, "1.1", async { self.act(&action, &request?) }).await
    }
}
