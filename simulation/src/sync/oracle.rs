//! What must hold of the two systems, whatever the engine thinks.

use std::collections::{BTreeMap, BTreeSet};

use hubferry::sync::model::{Review, ReviewKind, Side};
use jiff::Timestamp;

use super::{
    World,
    fields::{FIELDS, Field, Kind, Rule},
    place,
};
use crate::Failure;

const TWICE: &str = "no record exists twice";
const ALONE: &str = "a record without a counterpart is told";
const TWO: &str = "a record belongs to one";
const IDS: &str = "ids on both sides point at each other";
const STALE: &str = "a review shows what is there";
const NEEDLESS: &str = "only true conflicts wait for a person";
const UNTOLD: &str = "every true conflict is told";
const STEP: &str = "both sides agree when the editing stops";
const LOST: &str = "no edit that does not conflict is lost";
const STRANGERS: &str = "records that are alone with one address are one";
const GUESSED: &str = "nobody is linked by an address that several have";

/// An edit that the two sides may not have in common yet.
#[derive(Debug, Clone)]
pub(super) struct Dirty {
    pub(super) value: Option<String>,
    /// Invocations that had begun, and whether one was at work.
    pub(super) epoch: u64,
    pub(super) active: bool,
    /// The two had the same value before, but no run has ended well with it: what an engine knows of that is open.
    pub(super) soft: bool,
}

/// A record: of a side, with its id.
pub(super) type Place = (Side, String);

#[derive(Default)]
pub(super) struct Oracle {
    pub(super) dirty: BTreeMap<(Place, usize), Dirty>,
    /// Pairs and fields that were edited on both sides while nothing ran.
    pub(super) definite: BTreeSet<(String, String, usize)>,
    /// Pairs and fields that were in step when a run had ended well. What two that people have made hold, and that never were, is a difference,
    /// which a person is asked about whoever wrote last.
    pub(super) agreed: BTreeSet<(String, String, usize)>,
    /// Made by people on both sides, with one address.
    pub(super) strangers: BTreeSet<(String, String)>,
    /// Merged, or the winner of a merge: values come from elsewhere.
    pub(super) muddled: BTreeSet<Place>,
    /// Made on both sides at one moment with one address.
    pub(super) met: Vec<(String, String, Timestamp)>,
    /// One of HubSpot and two of Salesforce that were made with one address.
    pub(super) three: Vec<(Place, [Place; 2])>,
    /// Addresses that were edited.
    pub(super) moved: BTreeSet<Place>,
    /// Records whose counterpart was deleted by a person.
    pub(super) widowed: BTreeSet<Place>,
    /// Records of Salesforce that somebody has touched since a run last ended well, and that may hold what they held before.
    pub(super) lately: BTreeSet<Place>,
    /// A process has died, or failed, since then.
    pub(super) died: bool,
    /// Of [`Oracle::lately`] when a process died, or after it: whether its write took place and was taken back, or never did, cannot be told.
    pub(super) doubtful: BTreeSet<Place>,
    /// When each invocation began.
    pub(super) began: Vec<Timestamp>,
}

impl Oracle {
    /// Somebody has changed a record of Salesforce in a way that may not show.
    pub(super) fn touched(&mut self, of: &Place) {
        self.lately.insert(of.clone());
        if self.died {
            self.doubtful.insert(of.clone());
        }
    }

    pub(super) fn has_died(&mut self) {
        self.died = true;
        self.doubtful.append(&mut self.lately);
    }

    pub(super) fn is_well(&mut self) {
        self.died = false;
        self.lately.clear();
    }
}

impl World {
    /// What a record holds.
    pub(super) fn held(&self, place: &Place, field: &Field) -> Option<String> {
        match place.0 {
            Side::Hubspot => field.canon(Side::Hubspot, self.both.h(&place.1, field.h).as_deref()),
            Side::Salesforce => field.canon(Side::Salesforce, self.both.s(&place.1, field.s).as_deref()),
        }
    }

    /// The record that says it belongs to this one, or that this one says it belongs to, if it lives.
    pub(super) fn twin(&self, of: &Place) -> Option<Place> {
        let both = &self.both;
        match of.0 {
            Side::Hubspot => {
                let told = both.h(&of.1, "sf_contact_id_ext").filter(|id| both.s_lives(id));
                told.or_else(|| both.s_twin(&of.1)).map(|id| place(Side::Salesforce, &id))
            }
            Side::Salesforce => {
                let told = both.s(&of.1, "HubSpot_Contact_Id__c").filter(|id| both.h_lives(id));
                told.or_else(|| both.h_twin(&of.1)).map(|id| place(Side::Hubspot, &id))
            }
        }
    }

    /// After a run that ended well: what is equal on both sides is in step, and everybody knows it.
    pub(super) fn in_step(&self) {
        for id in self.live(Side::Hubspot) {
            let h = place(Side::Hubspot, &id);
            let Some(s) = self.twin(&h) else { continue };
            for (at, field) in FIELDS.iter().enumerate() {
                if self.held(&h, field) == self.held(&s, field) {
                    let mut oracle = self.oracle.borrow_mut();
                    oracle.dirty.remove(&(h.clone(), at));
                    oracle.dirty.remove(&(s.clone(), at));
                    oracle.definite.remove(&(h.1.clone(), s.1.clone(), at));
                    oracle.agreed.insert((h.1.clone(), s.1.clone(), at));
                }
            }
        }
    }

    /// A record that was linked although somebody else has its address.
    pub(super) fn guessed(&self) -> Option<Failure> {
        let oracle = self.oracle.borrow();
        let touched = |of: &Place| oracle.moved.contains(of) || oracle.muddled.contains(of);
        oracle.three.iter().find_map(|(h, two)| {
            let twin = self.twin(h).filter(|twin| two.contains(twin))?;
            let is_certain = !touched(h) && !two.iter().any(touched);
            let seen = format!("HubSpot {} is {}, which has a namesake: {two:?}", h.1, twin.1);
            is_certain.then_some(Failure { invariant: GUESSED, seen })
        })
    }

    /// Everything that is wrong, in words.
    pub(super) fn wrong(&self) -> Vec<Failure> {
        let mut wrong = Vec::new();
        let reviews = self.both.reviews();
        let refused = self.both.refused();
        let mentions = |of: &Place| {
            let id = of.1.as_str();
            let review = reviews.iter().any(|review| {
                review.hubspot_id.as_deref() == Some(id)
                    || review.salesforce_id.as_ref().is_some_and(|own| own.as_str() == id)
                    || review.candidates.iter().any(|one| one == id)
            });
            let refusal = refused.iter().any(|refused| {
                refused.hubspot_id.as_deref() == Some(id)
                    || refused.salesforce_id.as_ref().is_some_and(|own| own.as_str() == id)
            });
            review || refusal
        };
        let field_review = |h: &Place, field: &Field| {
            let of = |review: &&Review| {
                review.hubspot_id.as_ref() == Some(&h.1)
                    && review.field.as_ref().is_some_and(|one| one.hubspot == field.h)
            };
            reviews.iter().find(of)
        };
        let field_refused = |h: &Place, s: &Place, field: &Field| {
            refused.iter().any(|refused| {
                let own = refused.hubspot_id.as_ref() == Some(&h.1)
                    || refused.salesforce_id.as_ref().is_some_and(|id| id.as_str() == s.1);
                own && refused.field.as_deref().is_none_or(|name| name == field.h || name == field.s)
            })
        };
        // Nothing exists twice.
        for side in [Side::Hubspot, Side::Salesforce] {
            let mut origins: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for id in self.live(side) {
                // Where two were merged, the pair of the one that lost has got the winner's origin; it waits for a person.
                let of = place(side, &id);
                if self.oracle.borrow().muddled.contains(&of) && mentions(&of) {
                    continue;
                }
                let origin = match side {
                    Side::Hubspot => self.both.h(&id, "origin"),
                    Side::Salesforce => self.both.s(&id, "Origin__c"),
                };
                origins.entry(origin.unwrap_or_default()).or_default().push(id);
            }
            for (origin, ids) in origins.into_iter().filter(|(origin, ids)| !origin.is_empty() && ids.len() > 1) {
                wrong
                    .push(Failure { invariant: TWICE, seen: format!("{side:?} has {origin} more than once: {ids:?}") });
            }
        }
        let oracle = self.oracle.borrow();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for id in self.live(Side::Hubspot) {
            let h = place(Side::Hubspot, &id);
            let Some(s) = self.twin(&h) else {
                let was_linked = self.both.h(&id, "sf_contact_id_ext").is_some() || oracle.widowed.contains(&h);
                let twin_is_gone = was_linked && self.deletes == "ignore";
                if !mentions(&h) && !twin_is_gone && !oracle.muddled.contains(&h) {
                    wrong.push(Failure {
                        invariant: ALONE,
                        seen: format!("HubSpot {id} has nothing in Salesforce, and nobody is told"),
                    });
                }
                continue;
            };
            // It names one that names another: what two were made of was merged, and a person is asked whose it is.
            let asks = |review: &Review| review.field.is_none() && review.hubspot_id.as_ref() == Some(&h.1);
            if self.twin(&s).as_ref() != Some(&h) && oracle.muddled.contains(&s) && reviews.iter().any(asks) {
                continue;
            }
            if !known.insert(s.1.clone()) {
                wrong.push(Failure { invariant: TWO, seen: format!("Salesforce {} belongs to two in HubSpot", s.1) });
            }
            if self.twin(&s).as_ref() != Some(&h) && !mentions(&h) && !mentions(&s) {
                wrong.push(Failure { invariant: IDS, seen: format!("HubSpot {id} says {}, which says another", s.1) });
                continue;
            }
            let muddled = oracle.muddled.contains(&h) || oracle.muddled.contains(&s);
            let of_records = reviews.iter().any(|review| {
                !review.kind.is_of_field()
                    && (review.hubspot_id.as_ref() == Some(&h.1)
                        || review.salesforce_id.as_ref().is_some_and(|own| own.as_str() == s.1))
            });
            if of_records {
                continue;
            }
            for (at, field) in FIELDS.iter().enumerate() {
                let (here, there) = (self.held(&h, field), self.held(&s, field));
                let (ours, theirs) = (oracle.dirty.get(&(h.clone(), at)), oracle.dirty.get(&(s.clone(), at)));
                let case = format!(
                    "{} of {} and {}: HubSpot {here:?}, Salesforce {there:?}, edits {ours:?} {theirs:?}",
                    field.h, h.1, s.1
                );
                let review = field_review(&h, field);
                if let Some(review) = review {
                    let shown = review.field.as_ref().unwrap();
                    let fresh = field.canon(Side::Hubspot, shown.hubspot_value.as_deref()) == here
                        && review.kind != ReviewKind::Taken;
                    if field.kind == Kind::Text && !fresh && review.kind == ReviewKind::Conflict {
                        wrong.push(Failure {
                            invariant: STALE,
                            seen: format!("the review shows what is not there any more: {review:?}; {case}"),
                        });
                    }
                    let both_edited = ours.is_some() && theirs.is_some();
                    let open = [ours, theirs].into_iter().flatten().any(|dirty| dirty.soft);
                    let rewritten = self.upper && field.h == "lastname";
                    let doubtful = oracle.doubtful.contains(&s);
                    // What is blank on one side differs from nothing.
                    let differ = here.is_some() && there.is_some();
                    let met = differ && oracle.strangers.contains(&(h.1.clone(), s.1.clone()));
                    let agreed = !met || oracle.agreed.contains(&(h.1.clone(), s.1.clone(), at));
                    let exact = field.exact && agreed && !rewritten && !muddled && !open && !doubtful;
                    if review.kind == ReviewKind::Conflict && exact && !both_edited {
                        wrong.push(Failure {
                            invariant: NEEDLESS,
                            seen: format!("a review without a conflict: {case}"),
                        });
                    }
                    continue;
                }
                if oracle.definite.contains(&(h.1.clone(), s.1.clone(), at)) && !muddled && here != there {
                    wrong.push(Failure {
                        invariant: UNTOLD,
                        seen: format!("a conflict that nobody is told of: {case}"),
                    });
                }
                if field_refused(&h, &s, field) {
                    continue;
                }
                if here != there {
                    wrong.push(Failure { invariant: STEP, seen: format!("not in step: {case}") });
                    continue;
                }
                if !field.exact || muddled {
                    continue;
                }
                let fold = |value: &Option<String>| match self.upper && field.h == "lastname" {
                    true => value.as_ref().map(|text| text.to_uppercase()),
                    false => value.clone(),
                };
                let stands = |dirty: &Dirty| fold(&dirty.value) == fold(&here);
                let lost = match (field.rule, ours, theirs) {
                    (Rule::Ask | Rule::Decided, Some(dirty), None) | (Rule::Ask | Rule::Decided, None, Some(dirty)) => {
                        !stands(dirty)
                    }
                    (Rule::Ask | Rule::Decided, Some(one), Some(other)) => !stands(one) && !stands(other),
                    (Rule::Salesforce | Rule::PreferSalesforce, None, Some(dirty)) => !stands(dirty),
                    (Rule::Hubspot | Rule::PreferHubspot, Some(dirty), None) => !stands(dirty),
                    _ => false,
                };
                if lost {
                    wrong.push(Failure { invariant: LOST, seen: format!("an edit is lost: {case}") });
                }
            }
        }
        for id in self.live(Side::Salesforce) {
            let s = place(Side::Salesforce, &id);
            if self.twin(&s).is_none() {
                // Its id is not written to one that was in the recycle bin meanwhile.
                let was_linked = self.both.s(&id, "HubSpot_Contact_Id__c").is_some() || oracle.widowed.contains(&s);
                let twin_is_gone = was_linked && self.deletes == "ignore";
                if !mentions(&s) && !twin_is_gone && !oracle.muddled.contains(&s) {
                    wrong.push(Failure {
                        invariant: ALONE,
                        seen: format!("Salesforce {id} has nothing in HubSpot, and nobody is told"),
                    });
                }
            }
        }
        for (h, s, at) in &oracle.met {
            let (here, there) = (place(Side::Hubspot, h), place(Side::Salesforce, s));
            let touched = |of: &Place| oracle.moved.contains(of) || oracle.muddled.contains(of);
            let soon = oracle
                .began
                .iter()
                .find(|began| *began >= at)
                .is_some_and(|began| began.as_millisecond() - at.as_millisecond() < 4_000);
            if !soon
                && self.both.h_lives(h)
                && self.both.s_lives(s)
                && !touched(&here)
                && !touched(&there)
                && self.twin(&here).as_ref() != Some(&there)
                && !mentions(&here)
                && !mentions(&there)
            {
                wrong.push(Failure {
                    invariant: STRANGERS,
                    seen: format!("HubSpot {h} and Salesforce {s} have one address and are strangers"),
                });
            }
        }
        wrong.extend(self.guessed());
        // Nothing waits that is not a question.
        for review in reviews.iter().filter(|review| review.kind == ReviewKind::Delete) {
            let h = review.hubspot_id.as_ref().is_some_and(|id| self.both.h_lives(id));
            let s = review.salesforce_id.as_ref().is_some_and(|id| self.both.s_lives(id.as_str()));
            if h == s {
                wrong.push(Failure {
                    invariant: NEEDLESS,
                    seen: format!("a review of a deletion, and both live or neither: {review:?}"),
                });
            }
        }
        wrong
    }
}
