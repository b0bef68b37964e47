//! Values as both systems write them, in one form in which they are compared. Pure.
//!
//! The two systems keep the same value in different clothes: Salesforce trims texts and never keeps an empty one, HubSpot writes everything
//! as text, numbers gain and lose zeros. Whatever is compared in the form as it stands is written to and fro for ever. So values are compared
//! in a canonical form and written in each side's own.
//!
//! Every function here maps what it returned to itself: the canonical form of a canonical form is that form.

mod decimal;
mod moments;
mod texts;

pub(crate) use self::{
    decimal::{Decimal, number},
    moments::{Epoch, day, moment},
    texts::{cut, domain, email, is_email, joined, phone, text, trim},
};
pub use super::model::Canon;
use crate::codes::Code;

/// A field's value as one side shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// In the form in which it is compared.
    pub canon: Canon,
    /// The side's own text, for writing it on; `""` where it is blank.
    pub raw: String,
}

impl Seen {
    /// As a person is shown it; `None` where it is blank.
    pub fn shown(&self) -> Canon {
        self.canon.is_some().then(|| self.raw.clone())
    }
}

/// Why a value cannot be written on the other side. It concerns this field only; the record's other fields are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldFault {
    /// [`SYNC_VALUE`](crate::codes::SYNC_VALUE) or [`REQUIRED_FIELD_MISSING`](crate::codes::REQUIRED_FIELD_MISSING).
    pub code: Code,
    /// What is wrong, naming both fields; never the value.
    pub reason: String,
    /// What to do.
    pub hint: String,
}
