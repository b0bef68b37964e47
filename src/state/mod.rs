//! The door to state, and what is kept behind it.
//!
//! [`Table`] is the little that hubferry asks of DynamoDB: read an item, and change one under a condition. Leases, fences,
//! positions and contexts are written once on top of it (see [`runs`]), so that DynamoDB, the local file and memory
//! cannot differ in anything that matters. One contract suite runs on all of them.

pub mod admission;
pub mod dynamo;
pub mod file;
pub mod limits;
pub mod memory;
pub mod runs;
pub mod streams;

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{
    codes,
    error::{Error, ErrorKind, Result},
};

/// The two key attributes of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Partition key.
    pub pk: String,
    /// Sort key.
    pub sk: String,
}

impl Key {
    /// `pk` and `sk`.
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self { pk: pk.into(), sk: sk.into() }
    }
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Text.
    S(String),
    /// A whole number.
    N(i64),
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::S(value.to_owned())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::S(value)
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::N(value)
    }
}

/// An item's attributes, without the two key attributes.
pub type Item = BTreeMap<String, Value>;

/// What must hold for a change to be made. An attribute that is not there satisfies nothing but `Absent`.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The attribute is not there (`pk` stands for the whole item).
    Absent(&'static str),
    /// The attribute has this value.
    Equals(&'static str, Value),
    /// The attribute is less than this value.
    Less(&'static str, Value),
    /// The attribute is at most this value.
    AtMost(&'static str, Value),
    /// All of them.
    All(Vec<Condition>),
    /// Any of them.
    Any(Vec<Condition>),
}

/// A change of one item; the item is made if it is not there.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Attributes to set.
    pub set: Vec<(&'static str, Value)>,
    /// Numbers to add to; one that is not there counts as 0.
    pub add: Vec<(&'static str, i64)>,
    /// Attributes to remove.
    pub remove: Vec<&'static str>,
    /// What must hold.
    pub condition: Option<Condition>,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It was made; the item as it is now.
    Yes(Item),
    /// The condition did not hold; the item as it is, if there is one. Nothing was changed.
    No(Option<Item>),
}

/// State: items under two string keys.
#[async_trait(?Send)]
pub trait Table {
    /// The item, read with strong consistency.
    async fn get(&self, key: &Key) -> Result<Option<Item>>;
    /// Changes one item, atomically, under a condition.
    ///
    /// After an answer that was lost the change is repeated with its condition, so an implementation must not report `No` for a change that
    /// its own first attempt made: callers make every conditional change self-identifying (owner, fence, run id) and look at the item.
    async fn update(&self, key: &Key, update: Update) -> Result<Changed>;
    /// Removes an item, if the condition holds; whether it holds is all that is told.
    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool>;
    /// All items of a partition in the order of `sk`; bounded by `limit`.
    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>>;
    /// A part of all items, in no order that means anything: those behind `after`, the key that the part before has told as its last. For
    /// who looks through everything (`hubferry erase`); no job does, and no function's role allows it. Needs not see what is changed meanwhile.
    async fn scan(&self, after: Option<&Key>) -> Result<Scanned> {
        drop(after.cloned());
        Err(Error::new(ErrorKind::Invalid, codes::STATE_UNAVAILABLE, "this table cannot be looked through"))
    }
    /// Leaves nothing behind of what was replaced or removed, where a table keeps what it was.
    async fn drop_history(&self) -> Result<()> {
        Ok(())
    }
    /// How many writes this door has made, for the report's cost line.
    fn writes(&self) -> u64;
}

/// A part of all items.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scanned {
    /// At most some thousand; there may be none although there are more parts.
    pub items: Vec<(Key, Item)>,
    /// Where the next part begins; `None`: there is none.
    pub last: Option<Key>,
}
