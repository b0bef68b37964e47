//! The review queue, for people: list, show, resolve.

use super::{
    find,
    model::{Choice, Refused, Review, ReviewKind},
    only_reviews,
    reviews::{self, Reviews},
    run::REVIEWS_MAX,
    todo::Refusals,
};
use crate::{
    app::App,
    clock::Deadline,
    codes,
    error::{Error, Result},
    report::{Outcome, Report},
};

/// Refusals that are listed of one sync.
const REFUSED_MAX: usize = 5_000;

/// What became of a person's choice.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolved {
    /// It was carried out.
    Applied(Box<Report>),
    /// It was not: what it was made for has changed, or cannot be written. The review as it is now, and why.
    Open(Box<Review>, Vec<String>),
    /// A run is at work; the next one carries it out.
    Waits(String),
}

/// The reviews that wait, of one sync or of all, oldest first.
pub async fn list(app: &App, sync: Option<&str>) -> Result<Vec<Review>> {
    let mut all = Vec::new();
    for name in names(app, sync)? {
        let store = Reviews::new(app.env().table.clone(), app.env().rng.clone(), &name);
        let open = store.list(REVIEWS_MAX).await?;
        // What was left as it is, for good, waits for nobody.
        all.extend(open.into_iter().filter(|review| review.kind.is_of_field() || review.choice != Some(Choice::Keep)));
    }
    all.sort_by(|one, other| (one.opened_at, &one.id).cmp(&(other.opened_at, &other.id)));
    Ok(all)
}

/// One review. `REVIEW_INVALID` if there is none of this id.
pub async fn show(app: &App, id: &str) -> Result<Review> {
    let names = names(app, None)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    reviews::find(&*app.env().table, &names, id).await?.ok_or_else(|| {
        Error::invalid(codes::REVIEW_INVALID, format!("there is no review `{id}`; it may have been settled meanwhile"))
    })
}

/// Takes a person's choice and carries it out, if both sides still hold what the review shows.
pub async fn resolve(app: &App, id: &str, choice: Choice, deadline: Deadline, owner: &str) -> Result<Resolved> {
    let review = show(app, id).await?;
    check(&review, &choice)?;
    let store = Reviews::new(app.env().table.clone(), app.env().rng.clone(), &review.sync);
    if !store.choose(id, choice, &review).await? {
        let now = show(app, id).await?;
        let why = vec!["it was changed by somebody else a moment ago; look at it again".to_owned()];
        return Ok(Resolved::Open(Box::new(now), why));
    }
    let report = only_reviews(app, &review.sync, deadline, owner).await?;
    match (store.get(id).await?, report.outcome) {
        (_, Outcome::Busy | Outcome::Yielded) => Ok(Resolved::Waits(report.run_id.clone().unwrap_or_default())),
        (None, _) => Ok(Resolved::Applied(Box::new(report))),
        (Some(now), _) if now.choice == Some(Choice::Keep) => Ok(Resolved::Applied(Box::new(report))),
        (Some(now), _) => {
            let mut why = report.notes.clone();
            why.extend(report.error.as_ref().map(|error| error.message.clone()));
            Ok(Resolved::Open(Box::new(now), why))
        }
    }
}

/// Records and fields that a side will not take, of one sync or of all.
pub async fn refused(app: &App, sync: Option<&str>) -> Result<Vec<(String, Refused)>> {
    let mut all = Vec::new();
    for name in names(app, sync)? {
        let store = Refusals::new(app.env().table.clone(), &name);
        all.extend(store.list(REFUSED_MAX).await?.into_iter().map(|one| (name.clone(), one)));
    }
    Ok(all)
}

fn names(app: &App, sync: Option<&str>) -> Result<Vec<String>> {
    match sync {
        Some(name) => Ok(vec![find(app, name)?.name.clone()]),
        None => Ok(app.config().syncs.iter().map(|sync| sync.name.clone()).collect()),
    }
}

fn check(review: &Review, choice: &Choice) -> Result<()> {
    let wrong = match (review.kind, choice) {
        (ReviewKind::Duplicate | ReviewKind::Identity, Choice::Side(_)) => {
            "say the id of the record that it belongs to, or `keep` to leave it without a link"
        }
        (ReviewKind::Merge, Choice::Side(_) | Choice::Value(_)) => {
            "merge the two records on the other side, and the review closes by itself; or say `keep` to leave them as they are"
        }
        (ReviewKind::Delete, Choice::Value(_)) => "say `salesforce`, `hubspot` or `keep`",
        _ => return Ok(()),
    };
    Err(Error::invalid(codes::REVIEW_INVALID, format!("review `{}` cannot be resolved so: {wrong}", review.id)))
}
