//! The words that all jobs share: what moves, and what becomes of it.

use std::{
    borrow::Cow,
    hash::{BuildHasher, Hasher, RandomState},
    rc::Rc,
};

use serde::{Deserialize, Serialize};

use crate::codes::Code;

/// A HubSpot object type: a name (`contacts`), an object type id (`0-1`, `2-123`) or a fully qualified name (`p123_car`).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ObjectType(pub String);

impl ObjectType {
    /// As it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the contacts object, under any of its names.
    pub fn is_contacts(&self) -> bool {
        matches!(self.0.as_str(), "contacts" | "contact" | "0-1")
    }

    /// Whether this is the companies object, under any of its names.
    pub fn is_companies(&self) -> bool {
        matches!(self.0.as_str(), "companies" | "company" | "0-2")
    }
}

impl std::fmt::Display for ObjectType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The internal name of a property. Shared, because every row of a file carries the same few.
pub type PropertyName = Rc<str>;

/// One record to be written: what HubSpot identifies it by, and the properties to set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// The key's value as it is sent.
    pub key: String,
    /// Property and value, as HubSpot takes them; `""` clears. Each property once. Includes the key's own property.
    pub properties: Vec<(PropertyName, String)>,
}

impl Input {
    /// What two rows must have in common to be the same record: the key, without regard to case or surrounding space.
    pub fn folded_key(&self) -> String {
        fold_key(&self.key)
    }

    /// About how many bytes the input takes in a request body.
    pub fn bytes(&self) -> usize {
        // Quotes, colon, comma around each pair; the fixed members of an upsert input.
        const PAIR: usize = 6;
        const FIXED: usize = 120;
        FIXED
            + self.key.len()
            + self.properties.iter().map(|(name, value)| name.len() + value.len() + PAIR).sum::<usize>()
    }
}

/// A key without regard to case or surrounding space.
pub fn fold_key(key: &str) -> String {
    folded(key).into_owned()
}

/// As [`fold_key`], without a copy where the key is in lower case already, as most are.
pub fn folded(key: &str) -> Cow<'_, str> {
    let key = key.trim();
    let is_folded = key.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_folded { Cow::Borrowed(key) } else { Cow::Owned(key.to_lowercase()) }
}

/// Hashes keys of records for maps that live as long as a batch or two: each row passes several of them, and the standard library's
/// hasher was a noticeable share of that. The seed is the process's own chance, so that no file can be made whose keys all collide.
#[derive(Debug, Clone)]
pub struct KeyHashing {
    seed: u64,
}

impl Default for KeyHashing {
    fn default() -> Self {
        Self { seed: RandomState::new().hash_one(0_u8) }
    }
}

impl BuildHasher for KeyHashing {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(self.seed)
    }
}

/// See [`KeyHashing`].
#[derive(Debug)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }

    /// What ends a text, so that two texts are not hashed as one: there is never a second one here.
    fn write_u8(&mut self, byte: u8) {
        self.0 ^= u64::from(byte);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Why a row will never succeed as it is.
///
/// `reason` is for the person who fixes the file. It may quote HubSpot, but not the cell: reasons go into logs and
/// reports, and cells must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// HubSpot's code where it has one, else ours.
    pub code: Box<str>,
    /// What is wrong, naming the column.
    pub reason: String,
    /// What to do.
    pub hint: String,
}

impl Reason {
    /// A reason with the code's own hint.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code: code.as_str().into(), reason: reason.into(), hint: code.hint().to_owned() }
    }

    /// A reason with a hint of its own.
    pub fn with_hint(code: Code, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.as_str().into(), reason: reason.into(), hint: hint.into() }
    }

    /// A reason in HubSpot's words, with our hint where the code is known to us.
    pub fn from_hubspot(code: &str, reason: impl Into<String>) -> Self {
        let hint =
            crate::codes::Code::named(code).map_or("Correct the value; the reason is HubSpot's own.", Code::hint);
        Self { code: code.into(), reason: reason.into(), hint: hint.to_owned() }
    }
}

/// A row that was not delivered, with all that is needed to fix it and drop it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The physical line on which the record starts; the header is line 1.
    pub line: u64,
    /// The original cells, in their order, decoded to UTF-8.
    pub cells: crate::csv::Cells,
    /// Why.
    pub reason: Reason,
}
