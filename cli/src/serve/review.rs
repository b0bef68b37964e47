//! The review queue, as the page shows it. The one place that asks for it.

use super::stage::Stage;

/// A true conflict, or a deletion, that a person decides on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// What `hubferry review resolve` takes.
    pub(super) id: String,
    /// The sync's name.
    pub(super) sync: String,
    /// Which field, or what else is in question.
    pub(super) about: String,
    /// The value there, as a person reads it.
    pub(super) hubspot: String,
    /// The value there.
    pub(super) salesforce: String,
}

/// What there is to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Queue {
    /// The settings have no sync, so nothing can be in question.
    NoSyncs,
    /// These, the oldest first.
    Items(Vec<Item>),
}

/// The queue as it is.
pub(super) fn queue(stage: &Stage) -> Queue {
    if stage.settings().config.syncs.is_empty() { Queue::NoSyncs } else { Queue::Items(Vec::new()) }
}

/// Decides: `choose` is `salesforce`, `hubspot` or a value. The error is for people.
pub(super) fn resolve(_stage: &Stage, id: &str, _choose: &str) -> Result<(), String> {
    Err(format!("There is nothing to decide with the id {id}."))
}
