//! State in memory: for tests and simulations, and the one reading of conditions and changes that the local file shares.
//!
//! It holds DynamoDB's rules where they could be noticed: values of different types never compare, a change that names an
//! attribute twice is refused, and an item has a largest size.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

use async_trait::async_trait;

use super::{Changed, Condition, Item, Key, Scanned, Table, Update, Value};
use crate::{
    codes::{self, Code},
    error::{Error, ErrorKind, Result},
};

/// DynamoDB's largest item: names and values together, in bytes.
pub const ITEM_BYTES_MAX: usize = 400 * 1024;
/// The two attributes that make up the key; no change may touch them.
const KEY_ATTRIBUTES: [&str; 2] = ["pk", "sk"];

/// All items of a table.
pub(super) type Items = BTreeMap<Key, Item>;

/// State in memory. Deterministic; fails only where it is told to.
#[derive(Debug, Default)]
pub struct MemoryTable {
    items: RefCell<Items>,
    writes: Cell<u64>,
    faults: RefCell<VecDeque<Fault>>,
}

/// What befalls one call.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// It fails and does nothing.
    Refused(ErrorKind, Code),
    /// It is carried out, and its answer is lost.
    AnswerLost,
}

impl MemoryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next call that has no fault yet fails like this, and changes nothing. Calls line up faults in order.
    pub fn fail_next(&self, kind: ErrorKind, code: Code) {
        self.faults.borrow_mut().push_back(Fault::Refused(kind, code));
    }

    /// The next call that has no fault yet is carried out, but its caller sees `Unknown`.
    pub fn lose_next_answer(&self) {
        self.faults.borrow_mut().push_back(Fault::AnswerLost);
    }

    /// As [`Table::update`], with the item as it was before: for who looks on while others are at work.
    pub async fn update_seen(&self, key: &Key, update: Update) -> (Option<Item>, Result<Changed>) {
        self.writes.set(self.writes.get() + 1);
        let mut before = None;
        let changed = self.with_faults(|items| {
            before = items.get(key).cloned();
            apply(items, key, &update)
        });
        let changed = changed.await;
        (before, changed)
    }

    /// A copy of everything, for assertions.
    pub fn snapshot(&self) -> BTreeMap<Key, Item> {
        self.items.borrow().clone()
    }

    /// Runs `call` with the fault that is next in line. Other futures get a turn before and after, as with a real table.
    async fn with_faults<T>(&self, call: impl FnOnce(&mut Items) -> Result<T>) -> Result<T> {
        tokio::task::yield_now().await;
        let fault = self.faults.borrow_mut().pop_front();
        if let Some(Fault::Refused(kind, code)) = fault {
            return Err(Error::new(kind, code, "the table was told to fail"));
        }
        let answer = call(&mut self.items.borrow_mut());
        tokio::task::yield_now().await;
        if fault.is_some() {
            return Err(Error::new(ErrorKind::Unknown, codes::STATE_UNAVAILABLE, "the table's answer was lost"));
        }
        answer
    }
}

#[async_trait(?Send)]
impl Table for MemoryTable {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        check_key(key)?;
        self.with_faults(|items| Ok(items.get(key).cloned())).await
    }

    async fn update(&self, key: &Key, update: Update) -> Result<Changed> {
        self.writes.set(self.writes.get() + 1);
        self.with_faults(|items| apply(items, key, &update)).await
    }

    async fn delete(&self, key: &Key, condition: Option<Condition>) -> Result<bool> {
        self.writes.set(self.writes.get() + 1);
        self.with_faults(|items| remove(items, key, condition.as_ref())).await
    }

    async fn query(&self, pk: &str, limit: usize) -> Result<Vec<(Key, Item)>> {
        self.with_faults(|items| Ok(partition(items, pk, limit))).await
    }

    async fn scan(&self, after: Option<&Key>) -> Result<Scanned> {
        self.with_faults(|items| Ok(part(items, after))).await
    }

    fn writes(&self) -> u64 {
        self.writes.get()
    }
}

/// Items of a part: enough that a table of a million has few, little enough to be copied.
const PART: usize = 1_000;

/// The items behind a key.
pub(super) fn part(items: &Items, after: Option<&Key>) -> Scanned {
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
    let rest = items.range((from, Bound::Unbounded));
    let items: Vec<(Key, Item)> = rest.take(PART).map(|(key, item)| (key.clone(), item.clone())).collect();
    let last = items.last().filter(|_| items.len() == PART).map(|(key, _)| key.clone());
    Scanned { items, last }
}

/// Changes the item at `key`, if the condition holds.
pub(super) fn apply(items: &mut Items, key: &Key, update: &Update) -> Result<Changed> {
    check_key(key)?;
    check_update(update)?;
    let current = items.get(key);
    if !update.condition.as_ref().is_none_or(|condition| holds(condition, key, current)) {
        return Ok(Changed::No(current.cloned()));
    }
    let mut item = current.cloned().unwrap_or_default();
    for (name, value) in &update.set {
        item.insert((*name).to_owned(), value.clone());
    }
    for (name, add) in &update.add {
        let sum = match item.get(*name) {
            None => Some(*add),
            Some(Value::N(number)) => number.checked_add(*add),
            Some(Value::S(_)) => None,
        };
        let sum = sum.ok_or_else(|| corrupt(format!("{}: `{name}` cannot be added to", describe(key))))?;
        item.insert((*name).to_owned(), Value::N(sum));
    }
    for name in &update.remove {
        item.remove(*name);
    }
    check_size(key, &item)?;
    items.insert(key.clone(), item.clone());
    Ok(Changed::Yes(item))
}

/// Removes the item at `key`, if the condition holds; whether it held.
pub(super) fn remove(items: &mut Items, key: &Key, condition: Option<&Condition>) -> Result<bool> {
    check_key(key)?;
    let held = condition.is_none_or(|condition| holds(condition, key, items.get(key)));
    if held {
        items.remove(key);
    }
    Ok(held)
}

/// The first `limit` items of a partition, by sort key.
pub(super) fn partition(items: &Items, pk: &str, limit: usize) -> Vec<(Key, Item)> {
    let first = Key::new(pk, "");
    let of_partition = items.range(first..).take_while(|(key, _)| key.pk == pk);
    of_partition.take(limit).map(|(key, item)| (key.clone(), item.clone())).collect()
}

/// Whether `condition` holds for the item at `key`.
fn holds(condition: &Condition, key: &Key, item: Option<&Item>) -> bool {
    let value = |name: &str| match (item, name) {
        (Some(_), "pk") => Some(Value::S(key.pk.clone())),
        (Some(_), "sk") => Some(Value::S(key.sk.clone())),
        (item, name) => item.and_then(|item| item.get(name)).cloned(),
    };
    match condition {
        Condition::Absent(name) => value(name).is_none(),
        Condition::Equals(name, wanted) => value(name).as_ref() == Some(wanted),
        Condition::Less(name, bound) => value(name).is_some_and(|value| comparable(&value, bound) && value < *bound),
        Condition::AtMost(name, bound) => value(name).is_some_and(|value| comparable(&value, bound) && value <= *bound),
        Condition::All(conditions) => conditions.iter().all(|condition| holds(condition, key, item)),
        Condition::Any(conditions) => conditions.iter().any(|condition| holds(condition, key, item)),
    }
}

fn comparable(a: &Value, b: &Value) -> bool {
    matches!((a, b), (Value::S(_), Value::S(_)) | (Value::N(_), Value::N(_)))
}

/// Refuses a key that DynamoDB would refuse.
pub(super) fn check_key(key: &Key) -> Result<()> {
    if key.pk.is_empty() || key.sk.is_empty() {
        return Err(corrupt(format!("{}: both parts of a key must have text", describe(key))));
    }
    Ok(())
}

/// Refuses a change that DynamoDB would refuse: of a key attribute, or of one attribute in two ways.
pub(super) fn check_update(update: &Update) -> Result<()> {
    let set = update.set.iter().map(|(name, _)| *name);
    let add = update.add.iter().map(|(name, _)| *name);
    let mut seen = BTreeSet::from(KEY_ATTRIBUTES);
    for name in set.chain(add).chain(update.remove.iter().copied()) {
        if name.is_empty() || !seen.insert(name) {
            return Err(corrupt(format!("a change names the attribute `{name}` twice, or it is part of the key")));
        }
    }
    Ok(())
}

fn check_size(key: &Key, item: &Item) -> Result<()> {
    let attributes = item.iter().map(|(name, value)| {
        let value = match value {
            Value::S(text) => text.len(),
            // DynamoDB packs two digits into a byte; this is the most that an i64 takes.
            Value::N(_) => 11,
        };
        name.len() + value
    });
    let bytes = key.pk.len() + key.sk.len() + 4 + attributes.sum::<usize>();
    if bytes > ITEM_BYTES_MAX {
        return Err(corrupt(format!(
            "{}: the item would have {bytes} bytes; {ITEM_BYTES_MAX} is the most",
            describe(key)
        )));
    }
    Ok(())
}

/// The key in an error's text.
pub(super) fn describe(key: &Key) -> String {
    format!("state item {} / {}", key.pk, key.sk)
}

/// One of our own rules was broken.
pub(super) fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_answer_leaves_the_change_made() {
        let table = MemoryTable::new();
        let key = Key::new("run", "1");
        table.lose_next_answer();
        let update =
            Update { set: vec![("owner", "me".into())], condition: Some(Condition::Absent("pk")), ..Update::default() };
        let error = table.update(&key, update.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown);
        let Changed::No(Some(item)) = table.update(&key, update).await.unwrap() else {
            panic!("the first change was made")
        };
        assert_eq!(item.get("owner"), Some(&"me".into()), "and its author can recognise it");
    }

    #[tokio::test]
    async fn faults_come_in_the_order_in_which_they_were_lined_up() {
        let table = MemoryTable::new();
        table.fail_next(ErrorKind::Throttled { retry_after: None }, codes::STATE_UNAVAILABLE);
        table.fail_next(ErrorKind::Forbidden, codes::STATE_UNAVAILABLE);
        let key = Key::new("run", "1");
        assert_eq!(table.get(&key).await.unwrap_err().kind(), ErrorKind::Throttled { retry_after: None });
        assert_eq!(table.get(&key).await.unwrap_err().kind(), ErrorKind::Forbidden);
        assert_eq!(table.get(&key).await.unwrap(), None);
    }
}
