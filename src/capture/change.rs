//! One change of one record: what a capture finds, and what it writes.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// What happened to a record, in OpenCDC's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// It was there when the capture began.
    Snapshot,
    /// It is new.
    Create,
    /// It was changed, restored, or associated otherwise.
    Update,
    /// It was archived, or merged into another.
    Delete,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Snapshot, Self::Create, Self::Update, Self::Delete];

    /// OpenCDC's word: `snapshot`, `create`, `update`, `delete`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What is particular about a change, where the operation alone does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// An update: the record came back from the recycle bin.
    Restore,
    /// A delete: the record was merged into another.
    Merge {
        /// The id of the record that remains.
        into: String,
    },
    /// An update: the record's associations changed.
    Association,
}

impl Cause {
    /// As it is written: `restore`, `merge`, `association`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Merge { .. } => "merge",
            Self::Association => "association",
        }
    }
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What happened.
    pub operation: Operation,
    /// What is particular about it.
    pub cause: Option<Cause>,
    /// HubSpot's id of the record.
    pub id: String,
    /// When the record was created in HubSpot.
    pub created_at: Option<Timestamp>,
    /// When this version of the record was made; of a delete, when it was archived.
    pub updated_at: Option<Timestamp>,
    /// When hubferry read it.
    pub read_at: Timestamp,
    /// The record as it was before, where that was asked for; in the shape of `after`.
    pub before: Option<Map<String, Value>>,
    /// The record as HubSpot's API answers it; `None` for a delete.
    pub after: Option<Map<String, Value>>,
    /// The position of this record as JSON.
    pub position: String,
}
