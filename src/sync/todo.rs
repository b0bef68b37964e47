//! Records that a later run has to look at again, and what one side would not take.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `todo#<sync>` | `h#<HubSpot id>` or `s#<Salesforce id>` | why, as `json` |
//! | `refused#<sync>` | the same | everything refused of the record, as `json`: one entry a field |
//!
//! Neither has a version: what is stored is compared whole.

use std::rc::Rc;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    links::{EXCHANGES_MAX, check_size, encode, text},
    model::{Refused, Side, Todo, TodoWhy},
};
use crate::{
    codes,
    error::{Error, ErrorKind, Result},
    salesforce::model::SalesforceId,
    state::{Changed, Condition, Item, Key, Table, Update, runs::decode},
};

/// The records of a sync that are looked at again, whatever the feeds say.
pub struct Todos {
    store: Store,
}

impl Todos {
    /// Of the sync of this name. Makes no request.
    pub fn new(table: Rc<dyn Table>, sync: &str) -> Self {
        Self { store: Store { table, pk: format!("todo#{sync}") } }
    }

    /// Notes a record, in place of what was noted before. Nothing is written where nothing is new.
    ///
    /// [`TodoWhy::Deferred`] does not take the place of [`TodoWhy::Creating`], which says the same and what the shadows may be.
    pub async fn put(&self, todo: &Todo) -> Result<()> {
        let put = |stored: Option<Todo>| match stored {
            Some(stored) if stored == *todo => Next::Same,
            Some(Todo { why: TodoWhy::Creating(_), .. }) if todo.why == TodoWhy::Deferred => Next::Same,
            // It is sent once more, with other values: what was made of the first ones is its counterpart too.
            Some(Todo { why: TodoWhy::Creating(_), since, .. }) if matches!(todo.why, TodoWhy::Creating(_)) => {
                Next::Store(Todo { since: since.or(todo.since), ..todo.clone() })
            }
            _ => Next::Store(todo.clone()),
        };
        self.store.change(&sort_key(todo.side, &todo.id), put).await
    }

    /// Forgets a record; it may not have been noted.
    pub async fn remove(&self, side: Side, id: &str) -> Result<()> {
        self.store.remove(&sort_key(side, id)).await
    }

    /// What is noted of a record, if anything is.
    pub async fn get(&self, side: Side, id: &str) -> Result<Option<Todo>> {
        self.store.get(&sort_key(side, id)).await
    }

    /// At most `limit` records.
    pub async fn list(&self, limit: usize) -> Result<Vec<Todo>> {
        self.store.list(limit).await
    }
}

/// What one side would not take, of all records of a sync.
pub struct Refusals {
    store: Store,
}

impl Refusals {
    /// Of the sync of this name. Makes no request.
    pub fn new(table: Rc<dyn Table>, sync: &str) -> Self {
        Self { store: Store { table, pk: format!("refused#{sync}") } }
    }

    /// Remembers a refusal, in place of the one of the same field; under the HubSpot record where there is one. Nothing is written where
    /// it is known but for its time.
    pub async fn put(&self, refused: &Refused) -> Result<()> {
        let keys = keys(refused.hubspot_id.as_deref(), refused.salesforce_id.as_ref());
        let Some(sk) = keys.into_iter().next() else {
            return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, "a refusal of no record"));
        };
        let put = |stored: Option<Vec<Refused>>| {
            let mut all = stored.unwrap_or_default();
            match all.iter_mut().find(|one| one.field == refused.field) {
                Some(one) if one.says_the_same(refused) && (&one.run, one.piece) == (&refused.run, refused.piece) => {
                    return Next::Same;
                }
                Some(one) => *one = refused.clone(),
                None => all.push(refused.clone()),
            }
            Next::Store(all)
        };
        self.store.change(&sk, put).await
    }

    /// Forgets everything refused of a record; there may be nothing.
    pub async fn remove(&self, hubspot_id: Option<&str>, salesforce_id: Option<&SalesforceId>) -> Result<()> {
        for sk in keys(hubspot_id, salesforce_id) {
            self.store.remove(&sk).await?;
        }
        Ok(())
    }

    /// Forgets what was refused of one field of a record (none: of the record as a whole), and leaves the rest.
    pub async fn remove_field(
        &self,
        hubspot_id: Option<&str>,
        salesforce_id: Option<&SalesforceId>,
        field: Option<&str>,
    ) -> Result<()> {
        for sk in keys(hubspot_id, salesforce_id) {
            let without = |stored: Option<Vec<Refused>>| {
                let all = stored.unwrap_or_default();
                let before = all.len();
                let rest: Vec<Refused> = all.into_iter().filter(|one| one.field.as_deref() != field).collect();
                match rest.len() {
                    after if after == before => Next::Same,
                    0 => Next::Remove,
                    _ => Next::Store(rest),
                }
            };
            self.store.change(&sk, without).await?;
        }
        Ok(())
    }

    /// At most `limit` refusals.
    pub async fn list(&self, limit: usize) -> Result<Vec<Refused>> {
        let records: Vec<Vec<Refused>> = self.store.list(limit).await?;
        Ok(records.into_iter().flatten().take(limit).collect())
    }
}

/// Items of one partition that hold JSON.
struct Store {
    table: Rc<dyn Table>,
    pk: String,
}

/// What an item is to be.
enum Next<T> {
    Same,
    Store(T),
    Remove,
}

impl Store {
    /// Makes of an item what `next` says about what is stored in it, if anything.
    async fn change<T: Serialize + DeserializeOwned>(
        &self,
        sk: &str,
        next: impl Fn(Option<T>) -> Next<T>,
    ) -> Result<()> {
        let key = Key::new(self.pk.as_str(), sk);
        for _ in 0..EXCHANGES_MAX {
            let item = self.table.get(&key).await?;
            let stored = item.as_ref().map(|item| read(&key, item)).transpose()?;
            let next = next(stored);
            let condition = match item {
                None => Condition::Absent("pk"),
                Some(item) => Condition::Equals("json", text(&item, "json").into()),
            };
            let done = match next {
                Next::Same => return Ok(()),
                Next::Remove => self.table.delete(&key, Some(condition)).await,
                Next::Store(next) => {
                    let json = encode(&next)?;
                    check_size(&json, || format!("{} / {sk}", self.pk))?;
                    let update =
                        Update { set: vec![("json", json.into())], condition: Some(condition), ..Update::default() };
                    self.table.update(&key, update).await.map(|changed| matches!(changed, Changed::Yes(_)))
                }
            };
            match done {
                Ok(true) => return Ok(()),
                // Another process's, or our own whose answer was lost: what is stored says.
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Unknown => {}
                Err(error) => return Err(error),
            }
        }
        let message = format!("{} / {sk}: other processes keep crossing it", self.pk);
        Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE, message))
    }

    async fn remove(&self, sk: &str) -> Result<()> {
        let key = Key::new(self.pk.as_str(), sk);
        // To read is cheaper than to write.
        if self.table.get(&key).await?.is_none() {
            return Ok(());
        }
        match self.table.delete(&key, None).await {
            Err(error) if error.kind() == ErrorKind::Unknown => self.table.delete(&key, None).await?,
            answer => answer?,
        };
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, sk: &str) -> Result<Option<T>> {
        let key = Key::new(self.pk.as_str(), sk);
        self.table.get(&key).await?.map(|item| read(&key, &item)).transpose()
    }

    async fn list<T: DeserializeOwned>(&self, limit: usize) -> Result<Vec<T>> {
        self.table.query(&self.pk, limit).await?.iter().map(|(key, item)| read(key, item)).collect()
    }
}

fn read<T: DeserializeOwned>(key: &Key, item: &Item) -> Result<T> {
    decode(&text(item, "json"), &format!("{} / {}", key.pk, key.sk))
}

fn sort_key(side: Side, id: &str) -> String {
    match side {
        Side::Hubspot => format!("h#{id}"),
        Side::Salesforce => format!("s#{id}"),
    }
}

fn keys(hubspot_id: Option<&str>, salesforce_id: Option<&SalesforceId>) -> Vec<String> {
    let hubspot = hubspot_id.map(|id| sort_key(Side::Hubspot, id));
    hubspot.into_iter().chain(salesforce_id.map(|id| sort_key(Side::Salesforce, id.as_str()))).collect()
}
