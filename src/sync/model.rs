//! What the parts of a sync pass to each other. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::salesforce::model::SalesforceId;

/// A value in the form in which it is compared; `None` is blank.
pub type Canon = Option<String>;

/// One of the two systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// HubSpot.
    Hubspot,
    /// Salesforce.
    Salesforce,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Hubspot => Self::Salesforce,
            Self::Salesforce => Self::Hubspot,
        }
    }

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hubspot => "HubSpot",
            Self::Salesforce => "Salesforce",
        }
    }
}

/// Two records that are one, and what both were when they were last in step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// HubSpot's record.
    pub hubspot_id: String,
    /// Salesforce's record.
    pub salesforce_id: SalesforceId,
    /// Whether it is kept in step.
    #[serde(default)]
    pub status: Status,
    /// By [`field key`](crate::sync::fields::Pair::key): a mapping that changes has a shadow of its own.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldState>,
    /// When HubSpot's record was read last: HubSpot's clock, milliseconds.
    #[serde(default)]
    pub hubspot_read: i64,
    /// When Salesforce's record was read last: Salesforce's clock, milliseconds.
    #[serde(default)]
    pub salesforce_read: i64,
    /// What is being written; what becomes of it is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// The Salesforce account whose company was last made the contact's primary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<SalesforceId>,
    /// The record as a whole was refused, by the side that is named, with these inputs: it is tried again when one of them changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<(Side, u64)>,
    /// Grows with each change of the item; 0: not stored yet.
    #[serde(skip)]
    pub version: i64,
}

/// What becomes of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Kept in step.
    #[default]
    Active,
    /// HubSpot's record was archived.
    HubspotDeleted,
    /// Salesforce's record was deleted.
    SalesforceDeleted,
    /// Both are gone.
    Gone,
    /// One of the two was merged into a record that has a link of its own: a person decides.
    Merged,
    /// The lead was converted.
    Converted,
    /// A person has said to leave both alone.
    Ignored,
}

impl Status {
    /// Whether the record of this side was there when it was looked at last.
    pub fn is_alive_in(self, side: Side) -> bool {
        match self {
            Self::HubspotDeleted => side == Side::Salesforce,
            Self::SalesforceDeleted => side == Side::Hubspot,
            Self::Gone | Self::Ignored => false,
            Self::Active | Self::Merged | Self::Converted => true,
        }
    }
}

/// One field of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldState {
    /// What HubSpot held when the two were in step.
    #[serde(rename = "h")]
    pub hubspot: Canon,
    /// What Salesforce held when the two were in step.
    #[serde(rename = "s")]
    pub salesforce: Canon,
    /// The field has never been in step: there are no shadows.
    #[serde(default, rename = "n", skip_serializing_if = "std::ops::Not::not")]
    pub new: bool,
    /// The review that the field waits for.
    #[serde(default, rename = "f", skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
    /// The value of this hash was refused by this side: it is tried again when it changes.
    #[serde(default, rename = "r", skip_serializing_if = "Option::is_none")]
    pub refused: Option<(Side, u64)>,
    /// The last writes, oldest first; at most [`WRITES_KEPT`].
    #[serde(default, rename = "w", skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<FieldWrite>,
}

/// Writes of a field that are remembered, to find values that two automations fight over.
pub const WRITES_KEPT: usize = 8;

/// A write of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldWrite {
    /// In which run of the sync, counted from its first.
    #[serde(rename = "t")]
    pub tick: u64,
    /// Where.
    #[serde(rename = "o")]
    pub side: Side,
    /// What, as [`hash_of`].
    #[serde(rename = "v")]
    pub value: u64,
}

/// A write that may or may not have taken place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Canonical values by field key, to HubSpot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hubspot: BTreeMap<String, Canon>,
    /// Canonical values by field key, to Salesforce.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub salesforce: BTreeMap<String, Canon>,
    /// HubSpot's record was last changed then, when this was decided: milliseconds of its clock.
    #[serde(default)]
    pub hubspot_modified: i64,
    /// Salesforce's record was last changed then: milliseconds of its clock.
    #[serde(default)]
    pub salesforce_modified: i64,
    /// The record is being archived or deleted on this side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletes: Option<Side>,
    /// HubSpot's values are written one after the other, as it does not say which of them it refuses: any of them may stand there alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_by_one: bool,
}

impl Intent {
    /// What of it is still open, by side. `None`: nothing.
    pub fn still_open(mut self, hubspot: bool, salesforce: bool) -> Option<Self> {
        if !hubspot {
            self.hubspot.clear();
        }
        if !salesforce {
            self.salesforce.clear();
        }
        (!self.hubspot.is_empty() || !self.salesforce.is_empty()).then_some(self)
    }
}

/// A value's hash: the same in every process and build.
pub fn hash_of<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut feed = |byte: u8| {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    };
    for part in parts {
        for byte in part.bytes() {
            feed(byte);
        }
        // No byte of UTF-8: "a", "b" is not "ab".
        feed(0xFF);
    }
    // The low bits of FNV's last step are weak.
    hash ^ (hash >> 32)
}

/// Why something waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReviewKind {
    /// A field was changed on both sides, to different values.
    Conflict,
    /// A field is written to and fro: something rewrites what is written.
    Flip,
    /// A field's value belongs to another record.
    Taken,
    /// Several records share what records are recognised by.
    Duplicate,
    /// Two records claim one, or the ids on both sides disagree.
    Identity,
    /// Two linked records were merged on one side only.
    Merge,
    /// A record was deleted on one side only.
    Delete,
}

impl ReviewKind {
    /// It is about one field, not about which records belong together.
    pub fn is_of_field(self) -> bool {
        matches!(self, Self::Conflict | Self::Flip | Self::Taken)
    }
}

/// Something that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Names it; the same thing found again has the same id.
    pub id: String,
    /// Which sync's it is.
    pub sync: String,
    /// Why.
    pub kind: ReviewKind,
    /// HubSpot's record, where there is one.
    pub hubspot_id: Option<String>,
    /// Salesforce's record, where there is one.
    pub salesforce_id: Option<SalesforceId>,
    /// Of a field: its key, HubSpot property and Salesforce field.
    pub field: Option<ReviewField>,
    /// The records that come into question, or stand in the way: ids of the side that [`Review::candidates_of`] names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// Whose ids the candidates are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates_of: Option<Side>,
    /// Of a deletion: where the record is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_in: Option<Side>,
    /// What happened, for a person; no values.
    pub why: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// What a person has decided and what was not carried out yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// Grows with each change of the item; 0: not stored yet.
    #[serde(skip)]
    pub version: i64,
}

/// The field that a review is about, and what it held when it was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewField {
    /// [`Field key`](crate::sync::fields::Pair::key).
    pub key: String,
    /// HubSpot property.
    pub hubspot: String,
    /// Salesforce field.
    pub salesforce: String,
    /// What HubSpot holds, as it shows it.
    pub hubspot_value: Canon,
    /// What Salesforce holds, as it shows it.
    pub salesforce_value: Canon,
    /// What HubSpot held when the two were in step, in the form in which values are compared; null too where they never were.
    pub hubspot_before: Canon,
    /// What Salesforce held when the two were in step.
    pub salesforce_before: Canon,
}

/// What a person has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// As it is there.
    Side(Side),
    /// This value; of records: this id.
    Value(String),
    /// Leave both as they are, for good.
    Keep,
}

/// A record to look at again, whatever the feeds say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Todo {
    /// Whose record it is.
    pub side: Side,
    /// Its id.
    pub id: String,
    /// Why.
    pub why: TodoWhy,
    /// Of one that is being created: since when, by the clock of the side that it is created on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Why a record is looked at again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TodoWhy {
    /// It was not written, or not known to be, for a passing reason.
    Deferred,
    /// It is being created on the other side with these canonical values, by field key: should that have taken place unseen, they are the
    /// shadows.
    Creating(BTreeMap<String, Canon>),
    /// The contact's account has no company yet.
    Account(SalesforceId),
}

/// A record, or a field of it, that one side will not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// HubSpot's record, where there is one.
    pub hubspot_id: Option<String>,
    /// Salesforce's record, where there is one.
    pub salesforce_id: Option<SalesforceId>,
    /// Who refused.
    pub by: Side,
    /// The field, in the words of who refused; none where it is about the record.
    pub field: Option<String>,
    /// Salesforce's or HubSpot's code, or ours.
    pub code: String,
    /// Why; no values.
    pub reason: String,
    /// What to do.
    pub hint: String,
    /// Hash of what was refused: the same is not sent again.
    pub inputs: u64,
    /// When.
    pub at: Timestamp,
    /// The run whose rejects file lists it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Which piece of that file its line is in, counted from 1.
    #[serde(default)]
    pub piece: u64,
}

impl Refused {
    /// Whether the two say the same, whenever and by whichever run it was found.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let without = |one: &Self| Self { at: Timestamp::UNIX_EPOCH, run: String::new(), piece: 0, ..one.clone() };
        without(self) == without(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_tells_parts_apart_and_stays_what_it_is() {
        assert_ne!(hash_of(["ab"]), hash_of(["a", "b"]));
        assert_ne!(hash_of(["", "a"]), hash_of(["a", ""]));
        assert_eq!(hash_of(["ab", "c"]), hash_of(["ab", "c"]));
        // Stored hashes must mean the same after an update of hubferry.
        assert_eq!(hash_of(["phone", "+1"]), 0xc597_f443_cbf1_b23e);
    }
}
