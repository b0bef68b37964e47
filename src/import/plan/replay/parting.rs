//! Associations that a run made, taken back: only those that are still as it left them.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    super::{
        super::{
            deliver::Delivered,
            pairs::{Ends, pair_image},
        },
        format::{PlanAssociation, Tie},
    },
    Replay, set,
};
use crate::{
    clock::Deadline, codes, error::Result, hubspot::associations::AssociationType, objects::Location, record::Reason,
};

/// What people give to pairs; HubSpot adds types of its own (the primary company, for one).
const BY_PEOPLE: &str = "USER_DEFINED";

/// A pair that is to be taken apart, its ids and its place in the batch.
pub(super) struct Parting {
    pub(super) at: usize,
    pub(super) pair: PlanAssociation,
    pub(super) ids: (String, String),
}

impl Replay {
    /// Takes pairs apart, or a label off them, unless they are already or were given another label since.
    pub(super) async fn part(
        &self,
        tie: Tie,
        ends: Ends<'_>,
        pairs: Vec<Parting>,
        images: &Location,
        deadline: Deadline,
        delivered: &mut [Delivered],
    ) -> Result<()> {
        let Ends { from, to, label } = ends;
        let near: BTreeSet<String> = pairs.iter().map(|parting| parting.ids.0.clone()).collect();
        let known = self.account.associations(from, to, &near, deadline).await?;
        let (mut places, mut ids, mut body) = (Vec::new(), Vec::new(), String::new());
        // Who gets a label back that the run moved.
        let mut backs: Vec<(String, String)> = Vec::new();
        for Parting { at, pair, ids: (near, far) } in pairs {
            let types = known.get(&near).and_then(|far_ends| far_ends.get(&far));
            let Some(types) = types else {
                set(delivered, at, Delivered::Unchanged { id: String::new() });
                continue;
            };
            let is_ours = |one: &AssociationType| label.is_some_and(|label| label.type_id == one.type_id);
            let others: Vec<&str> = types
                .iter()
                .filter(|one| one.category == BY_PEOPLE && !is_ours(one))
                .filter_map(|one| one.label.as_deref())
                .collect();
            let was = match tie {
                Tie::Unlabel if !types.iter().any(is_ours) => {
                    set(delivered, at, Delivered::Unchanged { id: String::new() });
                    continue;
                }
                Tie::Unlabel => "labelled",
                _ if !others.is_empty() => {
                    let what = format!("{from} {near} and {to} {far} are kept together");
                    let reason = format!(
                        "{what}, because they were given another label since: {}",
                        super::batch::listed(&others)
                    );
                    set(delivered, at, Delivered::Refused(Reason::new(codes::CHANGED_SINCE, reason)));
                    continue;
                }
                _ => "associated",
            };
            if self.dry {
                set(delivered, at, Delivered::PlannedPair(Box::new(pair)));
                continue;
            }
            let name = label.and_then(|label| label.label.as_deref());
            body.push_str(&pair_image(from, to, name, (&near, &far), was).to_string());
            body.push('\n');
            if let Some(other) = pair.back_to.filter(|_| types.iter().any(is_ours)) {
                backs.push((near.clone(), other));
            }
            places.push(at);
            ids.push((near, far));
        }
        if ids.is_empty() {
            return Ok(());
        }
        self.objects.put(images, Bytes::from(body), "application/x-ndjson").await?;
        // First: once the pair is apart nobody knows any more that the label was the run's.
        if !backs.is_empty() {
            // One that is not associated any more is left alone.
            let still: Vec<(String, String)> = backs
                .into_iter()
                .filter(|(near, other)| known.get(near).is_some_and(|far_ends| far_ends.contains_key(other)))
                .collect();
            self.account.associate(from, to, label, &still, deadline).await?;
        }
        match (tie, label) {
            (Tie::Unlabel, Some(label)) => self.account.take_labels_off(from, to, label, &ids, deadline).await?,
            _ => self.account.dissociate(from, to, &ids, deadline).await?,
        }
        for at in places {
            set(delivered, at, Delivered::Written { id: String::new(), created: false });
        }
        Ok(())
    }
}
