//! Who wrote what, and what the account's own workflows write after it. Both are off until asked for, so that large loads
//! pay nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Portal;
use crate::salesforce::Rewrite;

/// Writes remembered; the oldest half goes when there are more.
const HISTORY_MAX: usize = 500_000;

/// One write to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Writer,
    /// The object type, as `contacts`.
    pub object: String,
    /// The record.
    pub id: String,
    /// `create`, `update`, `archive`, `restore`, `merge` (of the record that is lost), `purge`.
    pub what: &'static str,
    /// Properties whose values became others: name, old, new.
    pub changes: Vec<(String, Option<String>, Option<String>)>,
}

/// Who writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Writer {
    /// A client, through the API.
    #[default]
    Api,
    /// A person in the browser.
    Person,
    /// A workflow of the account.
    Workflow,
}

/// A workflow: what HubSpot itself writes some time after a write. What a workflow writes starts no other one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workflow {
    /// Object type it is about, as `contacts`.
    pub object: String,
    /// Starts if a write gives this property another value.
    pub when_changed: String,
    /// The property it writes.
    pub writes: String,
    /// What it writes there: made of the changed property's value at the time of the writing.
    pub value: Rewrite,
    /// How long after the write, in milliseconds; with the next call or visit after that. 0: at once.
    #[serde(default)]
    pub after_ms: u64,
}

/// A workflow that was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    due: i64,
    workflow: usize,
    kind: usize,
    id: u64,
}

impl Portal {
    /// Remembers every write from now on.
    pub fn keep_history(&mut self) {
        self.history.get_or_insert_default();
    }

    /// Every write since [`Portal::keep_history`], oldest first.
    pub fn history(&self) -> &[Write] {
        self.history.as_deref().unwrap_or_default()
    }

    /// All values that a property of a record has had, newest first, with their times.
    pub fn values_of(&self, object: &str, id: &str, property: &str) -> Vec<(Timestamp, String)> {
        let found = self.kind(object).ok().and_then(|kind| {
            let own = self.at(kind);
            let record = own.records.get(&own.survivor(id.parse().ok()?))?;
            Some((record, own.property_id(property)?))
        });
        let Some((record, property)) = found else { return Vec::new() };
        let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        record.history(property).map(|(ms, text)| (time(ms), text.to_owned())).collect()
    }

    /// Lets the workflows do what is due at `now`.
    pub fn run_workflows(&mut self, now: Timestamp) {
        self.work_off(now.as_millisecond());
    }

    /// The same, for the calls of others: cheap while nothing is due.
    pub(crate) fn work_off(&mut self, now: i64) {
        if self.started.is_empty() {
            return;
        }
        let (mut due, later): (Vec<Started>, Vec<Started>) =
            std::mem::take(&mut self.started).into_iter().partition(|started| started.due <= now);
        self.started = later;
        due.sort_by_key(|started| started.due);
        for started in due {
            let Some(workflow) = self.settings.workflows.get(started.workflow).cloned() else { continue };
            let own = self.at(started.kind);
            let (Some(from), Some(to)) = (own.property_id(&workflow.when_changed), own.property_id(&workflow.writes))
            else {
                continue;
            };
            // A record that was merged or archived meanwhile has left the workflow.
            let Some(record) = own.records.get(&started.id).filter(|record| record.archived.is_none()) else {
                continue;
            };
            let text = record.text(from, u32::MAX).filter(|text| !text.is_empty()).map(str::to_owned);
            let new = workflow.value.of(text).unwrap_or_default();
            if record.text(to, u32::MAX).unwrap_or_default() == new {
                continue;
            }
            let changes = vec![(to, new)];
            let before = std::mem::replace(&mut self.writer, Writer::Workflow);
            self.note(started.kind, started.id, "update", &changes, now);
            self.writer = before;
            let visible_at = self.visible_at(now);
            self.at_mut(started.kind).update(started.id, changes, now, visible_at, true);
        }
    }

    /// Is told of each write before it is made.
    pub(crate) fn note(&mut self, kind: usize, id: u64, what: &'static str, changes: &[(u16, String)], now: i64) {
        if self.history.is_none() && (self.settings.workflows.is_empty() || self.writer == Writer::Workflow) {
            return;
        }
        let own = self.at(kind);
        let record = own.records.get(&id);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut changed = Vec::new();
        for (property, text) in changes {
            let old = record.and_then(|record| record.text(*property, u32::MAX)).and_then(some);
            let new = some(text);
            if old != new {
                changed.push((own.name_of(*property).to_owned(), old, new));
            }
        }
        let object = own.plural.clone();
        if self.writer != Writer::Workflow {
            for (at, workflow) in self.settings.workflows.iter().enumerate() {
                if workflow.object == object && changed.iter().any(|(name, ..)| *name == workflow.when_changed) {
                    let wait = i64::try_from(workflow.after_ms).unwrap_or(i64::MAX);
                    self.started.push(Started { due: now.saturating_add(wait), workflow: at, kind, id });
                }
            }
        }
        let by = self.writer;
        let Some(history) = &mut self.history else { return };
        if history.len() >= HISTORY_MAX {
            history.drain(..HISTORY_MAX / 2);
        }
        history.push(Write {
            at: Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH),
            by,
            object,
            id: id.to_string(),
            what,
            changes: changed,
        });
    }

    /// Does something as a person.
    pub(crate) fn as_person<T>(&mut self, now: i64, work: impl FnOnce(&mut Self) -> T) -> T {
        self.work_off(now);
        let before = std::mem::replace(&mut self.writer, Writer::Person);
        let done = work(self);
        self.writer = before;
        self.work_off(now);
        done
    }
}
