//! One batch of CRM records on its way to HubSpot: what is looked up first, what is written, and one verdict per input.
//!
//! Upserts, updates and archives may be repeated. A create may not: it is written down first ([`super::creates`]).

use std::rc::Rc;

use super::super::plan::replay::{Lane, Replay};
use super::{super::deliver::Delivered, content::Content, creates::Creates, intake::Act};
use crate::{
    clock::Deadline,
    codes,
    error::Result,
    http::rate_limit::Permit,
    hubspot::{
        account::Account,
        batch::{Write, WriteKind},
        verdict::Verdict,
    },
    record::{Input, ObjectType, PropertyName, Reason, fold_key},
};

/// How records that are there already are found before they are marked with the id that they have elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Adopting {
    pub(super) property: PropertyName,
    /// HubSpot holds its values unique.
    pub(super) unique: bool,
}

/// Delivers the batches of one lane.
pub(super) enum Courier {
    Upsert {
        crm: Crm,
        property: PropertyName,
        adopting: Option<Adopting>,
    },
    Create {
        crm: Crm,
        creates: Creates,
    },
    Update {
        crm: Crm,
    },
    /// `property` is what the keys are values of; `None`: they are the account's own ids.
    Archive {
        crm: Crm,
        property: Option<PropertyName>,
    },
    /// Lines of a plan.
    Replay {
        replay: Rc<Replay>,
        lane: Lane,
    },
    /// One at a time.
    Content {
        content: Rc<Content>,
        act: Act,
    },
}

/// Where records go.
#[derive(Clone)]
pub(super) struct Crm {
    pub(super) account: Rc<Account>,
    pub(super) object: ObjectType,
}

impl Courier {
    /// Delivers a batch; one verdict per input, in order. `number` is unique to the batch.
    pub(super) async fn deliver(
        &self,
        number: &str,
        inputs: &[Input],
        permit: Permit,
        deadline: Deadline,
    ) -> Result<Vec<Delivered>> {
        match self {
            Self::Replay { replay, lane } => replay.deliver(*lane, number, inputs, permit, deadline).await,
            Self::Upsert { crm, property, adopting } => {
                let mut verdicts = vec![None; inputs.len()];
                let mut permit = Some(permit);
                if let Some(adopting) = adopting {
                    crm.adopt(property, adopting, inputs, &mut verdicts, &mut permit, deadline).await?;
                }
                crm.write(WriteKind::Upsert, Some(property), inputs, verdicts, permit, deadline).await
            }
            Self::Create { crm, creates } => {
                creates.intend(number, inputs).await?;
                let mut verdicts = vec![None; inputs.len()];
                let write = Write { kind: WriteKind::Create, object: &crm.object, id_property: None };
                let written = crm.account.write(write, inputs, &mut verdicts, Some(permit), deadline).await;
                // A lost answer is a verdict of its own: what has none after an error was not sent.
                creates.note(number, inputs, &verdicts).await?;
                written?;
                Ok(told(verdicts))
            }
            Self::Update { crm } => {
                let verdicts = vec![None; inputs.len()];
                crm.write(WriteKind::Update, None, inputs, verdicts, Some(permit), deadline).await
            }
            Self::Archive { crm, property } => crm.archive(property.as_ref(), inputs, permit, deadline).await,
            Self::Content { content, act } => {
                let mut permit = Some(permit);
                let mut delivered = Vec::with_capacity(inputs.len());
                for input in inputs {
                    delivered.push(content.deliver(*act, input, permit.take(), deadline).await?);
                }
                Ok(delivered)
            }
        }
    }
}

impl Crm {
    /// Writes what has no verdict yet.
    async fn write(
        &self,
        kind: WriteKind,
        id_property: Option<&PropertyName>,
        inputs: &[Input],
        mut verdicts: Vec<Option<Verdict>>,
        permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<Vec<Delivered>> {
        let write = Write { kind, object: &self.object, id_property: id_property.map(|name| &**name) };
        self.account.write(write, inputs, &mut verdicts, permit, deadline).await?;
        Ok(told(verdicts))
    }

    /// Marks records that are there already with the ids that they have elsewhere.
    async fn adopt(
        &self,
        property: &PropertyName,
        adopting: &Adopting,
        inputs: &[Input],
        verdicts: &mut [Option<Verdict>],
        permit: &mut Option<Permit>,
        deadline: Deadline,
    ) -> Result<()> {
        let value = |input: &Input| {
            let found = input.properties.iter().find(|(name, _)| *name == adopting.property);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let pairs: Vec<(String, String)> = inputs.iter().map(|input| (input.key.clone(), value(input))).collect();
        let key = &adopting.property;
        let adoptions =
            self.account.adopt_as(&self.object, key, adopting.unique, property, &pairs, permit, deadline).await?;
        for (verdict, adoption) in verdicts.iter_mut().zip(adoptions) {
            *verdict = adoption.reason(&self.object, key).map(Verdict::Refused);
        }
        Ok(())
    }

    /// Archives what is exactly meant. What is not there is archived already.
    async fn archive(
        &self,
        property: Option<&PropertyName>,
        inputs: &[Input],
        permit: Permit,
        deadline: Deadline,
    ) -> Result<Vec<Delivered>> {
        let mut permit = Some(permit);
        let keys: Vec<String> = inputs.iter().map(|input| input.key.clone()).collect();
        let names: Vec<PropertyName> = property.cloned().into_iter().collect();
        let id_property = property.map(|name| &**name);
        let found = self.account.read(&self.object, id_property, &keys, &names, permit.take(), deadline).await?;
        let mut delivered: Vec<Delivered> = Vec::with_capacity(inputs.len());
        let mut archives = Vec::new();
        for (at, (input, found)) in inputs.iter().zip(found).enumerate() {
            let Some(found) = found else {
                delivered.push(Delivered::Unchanged { id: String::new() });
                continue;
            };
            // An address may be another contact's second one, an id that of a record that was merged into another: neither is meant.
            let named = match id_property {
                Some(name) => found.value(name).unwrap_or_default(),
                None => &found.id,
            };
            if fold_key(named) == input.folded_key() {
                archives.push((at, Input { key: found.id.clone(), properties: Vec::new() }));
                delivered.push(Delivered::Unknown);
            } else if id_property.is_none() {
                delivered.push(Delivered::Unchanged { id: found.id });
            } else {
                let reason = "the record to be deleted is now part of another one, which was left alone";
                delivered.push(Delivered::Refused(Reason::new(codes::RECORD_UNNAMED, reason)));
            }
        }
        let (places, inputs): (Vec<usize>, Vec<Input>) = archives.into_iter().unzip();
        if !inputs.is_empty() {
            let verdicts = vec![None; inputs.len()];
            let written = self.write(WriteKind::Archive, None, &inputs, verdicts, None, deadline).await?;
            for (at, verdict) in places.into_iter().zip(written) {
                if let Some(place) = delivered.get_mut(at) {
                    *place = verdict;
                }
            }
        }
        Ok(delivered)
    }
}

fn told(verdicts: Vec<Option<Verdict>>) -> Vec<Delivered> {
    verdicts.into_iter().map(|verdict| verdict.map_or(Delivered::Unknown, Delivered::from)).collect()
}
