//! What waits for a person.
//!
//! | `pk` | `sk` | holds |
//! |---|---|---|
//! | `review#<sync>` | `<review id>` | the review: `json`, `version`, `writer` |
//!
//! The id is made from what the review is about, so that what is found again in each run is one review. A review that is opened anew
//! after it was closed has another `writer`, so that a choice made on the old one does not fall on it.

use std::{collections::BTreeSet, rc::Rc};

use super::{
    links::{EXCHANGES_MAX, Marks, change, check_size, encode, has, number, text},
    model::{Choice, Review, ReviewKind},
};
use crate::{
    clock::Rng,
    codes,
    error::{Error, ErrorKind, Result},
    state::{Changed, Condition, Item, Key, Table, Update, runs::decode},
};

/// Letters and digits that are not taken for one another.
const LETTERS: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";

/// How many of [`LETTERS`] are letters.
const LETTERS_ONLY: u64 = 23;

/// Characters of an id: 2^49 of them, so that among 100,000 reviews two share one with a chance of 1 in 100,000. It is noticed then.
const ID_CHARS: usize = 10;

/// The reviews of a sync.
pub struct Reviews {
    table: Rc<dyn Table>,
    marks: Marks,
    sync: String,
}

impl Reviews {
    /// The reviews of the sync of this name. Makes no request.
    pub fn new(table: Rc<dyn Table>, rng: Rc<Rng>, sync: &str) -> Self {
        Self { table, marks: Marks::new(rng), sync: sync.to_owned() }
    }

    /// The id of the review of this: ten lower-case letters and digits, the first a letter.
    pub fn id_of(
        sync: &str,
        kind: ReviewKind,
        hubspot_id: Option<&str>,
        salesforce_id: Option<&str>,
        field_key: Option<&str>,
    ) -> String {
        let kind = match kind {
            ReviewKind::Conflict => "conflict",
            ReviewKind::Flip => "flip",
            ReviewKind::Taken => "taken",
            ReviewKind::Duplicate => "duplicate",
            ReviewKind::Identity => "identity",
            ReviewKind::Merge => "merge",
            ReviewKind::Delete => "delete",
        };
        let mut bytes = Vec::new();
        for part in [Some(sync), Some(kind), hubspot_id, salesforce_id, field_key] {
            bytes.extend(part.unwrap_or_default().bytes());
            // No byte of UTF-8.
            bytes.push(0xFF);
        }
        let mut rest = xxhash_rust::xxh3::xxh3_64(&bytes);
        let mut id = String::new();
        for _ in 0..ID_CHARS {
            let base = if id.is_empty() { LETTERS_ONLY } else { LETTERS.len() as u64 };
            let letter = usize::try_from(rest % base).ok().and_then(|at| LETTERS.get(at));
            id.extend(letter.map(|letter| char::from(*letter)));
            rest /= base;
        }
        id
    }

    /// At most `limit` reviews, oldest first. Where there are more, those left out are not the newest ones but any.
    pub async fn list(&self, limit: usize) -> Result<Vec<Review>> {
        let items = self.table.query(&partition(&self.sync), limit).await?;
        let reviews = items.iter().map(|(key, item)| read(key, item));
        let mut reviews: Vec<Review> = reviews.collect::<Result<_>>()?;
        reviews.sort_by(|a, b| (a.opened_at, &a.id).cmp(&(b.opened_at, &b.id)));
        Ok(reviews)
    }

    /// The review of this id.
    pub async fn get(&self, id: &str) -> Result<Option<Review>> {
        get(&*self.table, &self.sync, id).await
    }

    /// Opens a review, or renews what it shows; whether it is new. Nothing is written where nothing is new.
    ///
    /// `opened_at`, `version` and `choice` become those of the stored one; the choice is dropped if it was made for other values than
    /// the ones shown now.
    pub async fn put(&self, review: &mut Review) -> Result<bool> {
        self.put_as(review, true).await
    }

    /// The same for a review whose choice could not be carried out: it waits for another one.
    pub async fn reopen(&self, review: &mut Review) -> Result<()> {
        self.put_as(review, false).await.map(drop)
    }

    async fn put_as(&self, review: &mut Review, keeps_choice: bool) -> Result<bool> {
        let key = Key::new(partition(&self.sync), review.id.as_str());
        for _ in 0..EXCHANGES_MAX {
            let stored = self.table.get(&key).await?;
            let mut renewed = review.clone();
            let condition = match &stored {
                None => {
                    renewed.version = 1;
                    Condition::Absent("pk")
                }
                Some(item) => {
                    let old = read(&key, item)?;
                    if subject(&old) != subject(review) {
                        let message = format!("review {}: two things have this id", review.id);
                        return Err(Error::new(ErrorKind::Corrupt, codes::STATE_CORRUPT, message));
                    }
                    renewed.opened_at = old.opened_at;
                    if sorted(&old.candidates) == sorted(&review.candidates) {
                        // Whatever order they were found in this time.
                        renewed.candidates.clone_from(&old.candidates);
                    }
                    let stands = keeps_choice && shown(&old) == shown(&renewed);
                    renewed.choice = if stands { old.choice.clone() } else { None };
                    renewed.version = old.version;
                    if renewed == old {
                        *review = old;
                        return Ok(false);
                    }
                    renewed.version += 1;
                    Condition::Equals("writer", text(item, "writer").into())
                }
            };
            if self.write(&key, &renewed, condition).await? {
                *review = renewed;
                return Ok(stored.is_none());
            }
        }
        let message = format!("review {}: other processes keep crossing it", review.id);
        Err(Error::new(ErrorKind::Unavailable { retry_after: None }, codes::STATE_UNAVAILABLE, message))
    }

    /// Notes what a person has decided on the review as it was `shown`; `false` if it is not as it was any more, or is closed.
    pub async fn choose(&self, id: &str, choice: Choice, shown: &Review) -> Result<bool> {
        let key = Key::new(partition(&self.sync), id);
        let Some(item) = self.get_item(&key).await? else { return Ok(false) };
        let stored = read(&key, &item)?;
        if stored != *shown {
            return Ok(false);
        }
        let chosen = Review { choice: Some(choice), version: stored.version + 1, ..stored };
        self.write(&key, &chosen, Condition::Equals("writer", text(&item, "writer").into())).await
    }

    /// Closes a review; whether there was one.
    pub async fn close(&self, id: &str) -> Result<bool> {
        let key = Key::new(partition(&self.sync), id);
        if self.get_item(&key).await?.is_none() {
            return Ok(false);
        }
        // Without a condition a delete may be repeated.
        match self.table.delete(&key, None).await {
            Err(error) if error.kind() == ErrorKind::Unknown => self.table.delete(&key, None).await?,
            answer => answer?,
        };
        Ok(true)
    }

    async fn get_item(&self, key: &Key) -> Result<Option<Item>> {
        if key.sk.is_empty() { Ok(None) } else { self.table.get(key).await }
    }

    async fn write(&self, key: &Key, review: &Review, condition: Condition) -> Result<bool> {
        let json = encode(review)?;
        check_size(&json, || format!("review {}", review.id))?;
        let writer = self.marks.next();
        let update = Update {
            set: vec![
                ("json", json.as_str().into()),
                ("version", review.version.into()),
                ("writer", writer.as_str().into()),
            ],
            condition: Some(condition),
            ..Update::default()
        };
        let is_ours = |item: &Item| has(item, "writer", &writer) && has(item, "json", &json);
        Ok(matches!(change(&*self.table, key, update, is_ours).await?, Changed::Yes(_)))
    }
}

/// The review of this id, of whichever of these syncs.
pub async fn find(table: &dyn Table, syncs: &[&str], id: &str) -> Result<Option<Review>> {
    for sync in syncs {
        if let Some(review) = get(table, sync, id).await? {
            return Ok(Some(review));
        }
    }
    Ok(None)
}

async fn get(table: &dyn Table, sync: &str, id: &str) -> Result<Option<Review>> {
    // A person may have typed it.
    if id.is_empty() || id.len() > 4 * ID_CHARS {
        return Ok(None);
    }
    let key = Key::new(partition(sync), id);
    table.get(&key).await?.map(|item| read(&key, &item)).transpose()
}

fn partition(sync: &str) -> String {
    format!("review#{sync}")
}

fn read(key: &Key, item: &Item) -> Result<Review> {
    let mut review: Review = decode(&text(item, "json"), &format!("{} / {}", key.pk, key.sk))?;
    review.version = number(item, "version");
    Ok(review)
}

/// What the id is made from.
fn subject(review: &Review) -> impl PartialEq + '_ {
    let field = review.field.as_ref().map(|field| field.key.as_str());
    (review.sync.as_str(), review.kind, review.hubspot_id.as_deref(), review.salesforce_id.as_ref(), field)
}

fn sorted(ids: &[String]) -> BTreeSet<&String> {
    ids.iter().collect()
}

/// What a choice is made for.
fn shown(review: &Review) -> impl PartialEq + '_ {
    let values = review.field.as_ref().map(|field| (&field.hubspot_value, &field.salesforce_value));
    (values, &review.candidates, review.candidates_of, review.deleted_in)
}
