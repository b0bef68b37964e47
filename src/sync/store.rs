//! What is kept of a chunk: intents before a write; links, reviews and refusals after it. In this order: a frozen field whose review nobody has
//! opened would wait for nobody.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    chunk::READ_MARGIN_MS,
    links::{self, Created},
    model::{Canon, FieldState, Link, Review, ReviewField, ReviewKind, Side},
    pair::Work,
    reviews::Reviews,
    run::Job,
};
use crate::{
    error::{Error, Result},
    salesforce::model::SalesforceId,
};

/// Items of the table that are changed at a time.
const ITEMS_AT_ONCE: usize = 32;

impl Job {
    /// Stores what has changed of the links, and counts what became of the pairs.
    pub(super) async fn store(&mut self, works: Vec<Work>, read_at: (i64, i64)) -> Result<()> {
        let mut changed: Vec<Link> = Vec::new();
        for work in &works {
            let mut link = work.link.clone();
            if !work.deferred {
                link.intent = None;
                // A record that was put off is looked at again whatever the feeds say.
                (link.hubspot_read, link.salesforce_read) = read_at;
            }
            let differs = work.before.as_ref().is_none_or(|before| {
                let mut before = before.clone();
                (before.hubspot_read, before.salesforce_read) = (link.hubspot_read, link.salesforce_read);
                before != link
            });
            let was_read_long_ago = work.before.as_ref().is_none_or(|before| {
                before.hubspot_read < work.hubspot.modified + READ_MARGIN_MS
                    || before.salesforce_read < work.salesforce.modified + READ_MARGIN_MS
            });
            if (differs || was_read_long_ago) && links::check(&link).is_ok() && work.before.is_some() {
                changed.push(link);
            }
        }
        // Before the links: a frozen field whose review nobody has opened would wait for nobody.
        let reviews: Vec<Review> =
            works.iter().filter(|work| work.is_active()).flat_map(|work| self.field_reviews(work)).collect();
        for review in reviews {
            self.open_review(review).await?;
        }
        let stored = self.links.store(&mut changed).await?;
        for (link, stored) in changed.iter().zip(stored) {
            if !stored {
                // Somebody else is at work on it.
                self.put_off(Side::Hubspot, &link.hubspot_id).await?;
            }
        }
        for work in &works {
            self.progress.done.rows.add(work.outcome());
            if work.todo && !work.deferred {
                self.todos.remove(Side::Hubspot, &work.link.hubspot_id).await?;
                self.todos.remove(Side::Salesforce, work.link.salesforce_id.as_str()).await?;
            }
            if work.deferred {
                self.put_off(Side::Hubspot, &work.link.hubspot_id).await?;
            } else {
                // What a person has decided is carried out, and stored.
                if let Some(review) = &work.resolved {
                    self.close_review(review).await?;
                }
                self.settle_pair(work).await?;
            }
        }
        self.tell();
        Ok(())
    }

    /// What was in doubt, or refused, and is not any more.
    async fn settle_pair(&mut self, work: &Work) -> Result<()> {
        // A process may have died between a review and the link that it is of.
        if work.is_active() && !self.open.is_empty() {
            let (hubspot, salesforce) = (&work.link.hubspot_id, &work.link.salesforce_id);
            let keys: Vec<String> = self.mapping.pairs.iter().map(|pair| pair.key.clone()).collect();
            for key in keys {
                let frozen = work.link.fields.get(&key).and_then(|state| state.frozen.as_ref());
                for kind in [ReviewKind::Conflict, ReviewKind::Flip, ReviewKind::Taken] {
                    let id = self.field_review_id(kind, hubspot, salesforce, &key);
                    if frozen != Some(&id) {
                        self.close_review(&id).await?;
                    }
                }
            }
        }
        let ids =
            [(Side::Hubspot, work.link.hubspot_id.as_str()), (Side::Salesforce, work.link.salesforce_id.as_str())];
        for (side, id) in ids {
            for kind in [ReviewKind::Duplicate, ReviewKind::Identity] {
                let review = self.review_of(side, id, kind, String::new()).id;
                self.close_review(&review).await?;
            }
        }
        let is_fine = !work.rejected
            && work.link.refused.is_none()
            && work.link.fields.values().all(|state| state.refused.is_none());
        let hubspot = Some(work.link.hubspot_id.clone());
        let salesforce = Some(work.link.salesforce_id.clone());
        let of_pair = |key: &(Option<String>, Option<SalesforceId>, Option<String>)| {
            key.0.is_some() && key.0 == hubspot || key.1.is_some() && key.1 == salesforce
        };
        let was_refused = self.refused_ids.contains(&work.link.hubspot_id)
            || self.refused_ids.contains(work.link.salesforce_id.as_str());
        if is_fine && was_refused {
            self.refusals.remove(hubspot.as_deref(), salesforce.as_ref()).await?;
            self.refused_before.retain(|key, _| !of_pair(key));
        }
        Ok(())
    }

    /// The reviews of a pair's frozen fields, as they are now.
    fn field_reviews(&self, work: &Work) -> Vec<Review> {
        let mut reviews = Vec::new();
        for pair in &self.mapping.pairs {
            let Some(state) = work.link.fields.get(&pair.key) else { continue };
            let Some(id) = &state.frozen else { continue };
            let (Some(ours), Some(theirs)) =
                (work.hubspot.fields.get(&pair.key), work.salesforce.fields.get(&pair.key))
            else {
                continue;
            };
            let known = self.open.get(id);
            let kind = self.kind_of(id, &work.link, &pair.key);
            let why = known.map_or_else(|| why_of(kind).to_owned(), |known| known.why.clone());
            let shown = |of: &Canon| of.clone().filter(|_| !state.new);
            reviews.push(Review {
                id: id.clone(),
                sync: self.sync.name.clone(),
                kind,
                hubspot_id: Some(work.link.hubspot_id.clone()),
                salesforce_id: Some(work.link.salesforce_id.clone()),
                field: Some(ReviewField {
                    key: pair.key.clone(),
                    hubspot: pair.hubspot.to_string(),
                    salesforce: pair.salesforce.clone(),
                    hubspot_value: ours.shown(),
                    salesforce_value: theirs.shown(),
                    hubspot_before: shown(&state.hubspot),
                    salesforce_before: shown(&state.salesforce),
                }),
                candidates: known.map(|known| known.candidates.clone()).unwrap_or_default(),
                candidates_of: known.and_then(|known| known.candidates_of),
                deleted_in: None,
                why,
                opened_at: known.map_or_else(|| self.env.clock.now(), |known| known.opened_at),
                choice: None,
                version: known.map_or(0, |known| known.version),
            });
        }
        reviews
    }

    /// Freezes a field. Its review is opened when the link is stored.
    pub(super) fn freeze(&mut self, work: &mut Work, pair: usize, kind: ReviewKind, candidates: Vec<String>) {
        let Some(pair) = self.mapping.pairs.get(pair) else { return };
        let state = work
            .link
            .fields
            .entry(pair.key.clone())
            .or_insert_with(|| FieldState { new: true, ..FieldState::default() });
        if state.frozen.is_some() {
            return;
        }
        let id = Reviews::id_of(
            &self.sync.name,
            kind,
            Some(&work.link.hubspot_id),
            Some(work.link.salesforce_id.as_str()),
            Some(&pair.key),
        );
        state.frozen = Some(id.clone());
        let mut review = self.review_of(Side::Hubspot, &work.link.hubspot_id, kind, why_of(kind).to_owned());
        review.id.clone_from(&id);
        (review.candidates, review.candidates_of) = (candidates, Some(Side::Hubspot));
        // Only so that its kind is known; it is stored with its values.
        review.version = 0;
        self.open.entry(id).or_insert(review);
    }

    /// A link that no item of the table can hold: one record with very long texts does not keep the others from being stored.
    async fn settle_too_large(&mut self, works: &mut [Work]) -> Result<()> {
        for work in works.iter_mut().filter(|work| !work.settled) {
            let Err(error) = links::check(&work.link) else { continue };
            (work.settled, work.rejected) = (true, true);
            let ids = (Some(work.link.hubspot_id.clone()), Some(work.link.salesforce_id.clone()));
            let mut refused = self.refused(ids, Side::Hubspot, 1);
            refused.reason = error.message().to_owned();
            self.refuse(refused).await?;
        }
        Ok(())
    }

    /// Stores links under their versions; those that somebody else has changed are put off.
    pub(super) async fn store_intents(&mut self, works: &mut [Work]) -> Result<()> {
        self.settle_too_large(works).await?;
        let mut places = Vec::new();
        let mut links = Vec::new();
        for (at, work) in works.iter().enumerate() {
            if work.writes() {
                places.push(at);
                links.push(work.link.clone());
            }
        }
        let stored = self.links.store(&mut links).await?;
        for ((at, link), stored) in places.into_iter().zip(links).zip(stored) {
            let Some(work) = works.get_mut(at) else { continue };
            if stored {
                work.link = link;
                work.before = Some(work.link.clone());
            } else {
                (work.deferred, work.settled) = (true, true);
            }
        }
        Ok(())
    }

    /// Makes the links of pairs that were found to belong together; who is faster than us wins.
    pub(super) async fn make_links(&mut self, works: &mut [Work]) -> Result<()> {
        self.settle_too_large(works).await?;
        let links = self.links.clone();
        let places: Vec<usize> = works
            .iter()
            .enumerate()
            .filter(|(_, work)| work.before.is_none() && !work.settled)
            .map(|(at, _)| at)
            .collect();
        let made: Vec<(usize, Link, Created)> = stream::iter(places)
            .map(|at| {
                let links = links.clone();
                let link = works.get(at).map(|work| work.link.clone());
                async move {
                    let Some(mut link) = link else { return Ok(None) };
                    let created = links.create(&mut link).await?;
                    Ok::<_, Error>(Some((at, link, created)))
                }
            })
            .buffer_unordered(ITEMS_AT_ONCE)
            .try_filter_map(|made| async move { Ok(made) })
            .try_collect()
            .await?;
        for (at, link, created) in made {
            let Some(work) = works.get_mut(at) else { continue };
            match created {
                Created::Yes => {
                    work.link = link;
                    work.before = Some(work.link.clone());
                    self.progress.done.sync.linked += 1;
                }
                Created::Hubspot(other) | Created::Salesforce(other) => {
                    work.settled = true;
                    if other.hubspot_id == link.hubspot_id && other.salesforce_id == link.salesforce_id {
                        // Ours, from a moment ago.
                        work.deferred = true;
                        continue;
                    }
                    let (side, id, taken) = if other.hubspot_id == link.hubspot_id {
                        (Side::Salesforce, link.salesforce_id.to_string(), link.hubspot_id.clone())
                    } else {
                        (Side::Hubspot, link.hubspot_id.clone(), link.salesforce_id.to_string())
                    };
                    let why = "what it belongs to was linked with another record a moment ago".to_owned();
                    let mut review = self.review_of(side, &id, ReviewKind::Identity, why);
                    (review.candidates, review.candidates_of) = (vec![taken], Some(side.other()));
                    self.open_review(review).await?;
                }
            }
        }
        Ok(())
    }
}

/// Why a field waits, for people.
pub(super) fn why_of(kind: ReviewKind) -> &'static str {
    match kind {
        ReviewKind::Conflict => "changed on both sides, to different values",
        ReviewKind::Flip => "written to and fro: something on each side rewrites what is written",
        ReviewKind::Taken => "another record has the value, and only one may",
        ReviewKind::Duplicate => "several records share what they are recognised by",
        ReviewKind::Identity => "it is not certain which records belong together",
        ReviewKind::Merge => "two linked records were merged on one side",
        ReviewKind::Delete => "deleted on one side",
    }
}
