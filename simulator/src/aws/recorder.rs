//! What was asked of the cloud: for tests that count writes, and for the test that compares the permissions a run
//! used with the ones `template.yaml` grants.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Mutex,
};

use super::{Service, lock};

/// Calls kept one by one; older ones survive only in the counters, so that an hour of `serve` stays small.
pub const CALLS_KEPT: usize = 100_000;

/// One call as the cloud answered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who was asked.
    pub service: Service,
    /// The API action: `GetObject`, `UpdateItem`, …
    pub action: String,
    /// What IAM calls the permission: `s3:GetObject`; empty where none is needed (Lambda Runtime API).
    pub permission: String,
    /// The ARN of the thing.
    pub resource: String,
    /// HTTP status; 0 if the connection was closed without an answer.
    pub status: u16,
}

impl Call {
    /// Whether the action changes what is stored.
    pub fn is_write(&self) -> bool {
        const WRITES: [&str; 22] = [
            "PutObject",
            "CopyObject",
            "CompleteMultipartUpload",
            "DeleteObject",
            "DeleteObjects",
            "CreateBucket",
            "DeleteBucket",
            "PutItem",
            "UpdateItem",
            "DeleteItem",
            "BatchWriteItem",
            "CreateTable",
            "DeleteTable",
            "CreateSecret",
            "PutSecretValue",
            "UpdateSecret",
            "UpdateSecretVersionStage",
            "DeleteSecret",
            "RestoreSecret",
            "CreateQueue",
            "SendMessage",
            "DeleteMessage",
        ];
        WRITES.contains(&self.action.as_str())
    }
}

#[derive(Debug, Default)]
struct Seen {
    calls: VecDeque<Call>,
    counts: BTreeMap<(Service, String), u64>,
    permissions: BTreeSet<(String, String)>,
    writes: u64,
}

/// Every call so far.
#[derive(Debug, Default)]
pub struct Recorder {
    seen: Mutex<Seen>,
}

impl Recorder {
    pub(crate) fn record(&self, call: Call) {
        let mut seen = lock(&self.seen);
        *seen.counts.entry((call.service, call.action.clone())).or_default() += 1;
        if !call.permission.is_empty() && !seen.permissions.contains(&(call.permission.clone(), call.resource.clone()))
        {
            // One entry per object would grow without end: objects are remembered by bucket.
            let resource = match call.resource.strip_prefix("arn:aws:s3:::").and_then(|path| path.split_once('/')) {
                Some((bucket, _)) => format!("arn:aws:s3:::{bucket}/*"),
                None => call.resource.clone(),
            };
            seen.permissions.insert((call.permission.clone(), resource));
        }
        if call.is_write() && (200..300).contains(&call.status) {
            seen.writes += 1;
        }
        if seen.calls.len() == CALLS_KEPT {
            seen.calls.pop_front();
        }
        seen.calls.push_back(call);
    }

    /// The last [`CALLS_KEPT`] calls, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.seen).calls.iter().cloned().collect()
    }

    /// How often `action` was asked of `service`, whatever the answer.
    pub fn count(&self, service: Service, action: &str) -> u64 {
        lock(&self.seen).counts.get(&(service, action.to_owned())).copied().unwrap_or_default()
    }

    /// `(permission, resource)` pairs used so far; objects appear as `arn:aws:s3:::bucket/*`.
    pub fn permissions(&self) -> BTreeSet<(String, String)> {
        lock(&self.seen).permissions.clone()
    }

    /// Calls that changed something, so far.
    pub fn writes(&self) -> u64 {
        lock(&self.seen).writes
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *lock(&self.seen) = Seen::default();
    }
}
