//! One batch on its way to HubSpot: what is read first, what is written, and one verdict per input.
//!
//! A plain upsert is one call. Modes that depend on whether a record exists, `fill: if_empty` and before-images need a read before
//! it. Everything here may be repeated after a crash: writes are upserts by a unique property or updates by id, and the image
//! that was kept first is the one that counts.

use std::{collections::HashSet, rc::Rc};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;

use super::plan::{PlanRecord, Planned, format::PlanAssociation};
use crate::{
    clock::Deadline,
    codes,
    config::Mode,
    error::{Error, ErrorKind, Result},
    http::rate_limit::Permit,
    hubspot::{
        account::Account,
        adopt::{Adoption, normalize_key},
        batch::{Write, WriteKind},
        read::Found,
        verdict::Verdict,
    },
    mutate::{self, Bug},
    objects::{Location, Objects},
    record::{Input, ObjectType, PropertyName, Reason},
};

/// What became of an input.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Delivered {
    /// Written; the id may be unknown.
    Written { id: String, created: bool },
    /// There was nothing to write.
    Unchanged { id: String },
    /// Refused, by HubSpot or by the mode.
    Refused(Reason),
    /// HubSpot gave no verdict.
    Unknown,
    /// Nothing was written; this is what would be.
    Planned(Box<PlanRecord>),
    /// The same, of a pair of records.
    PlannedPair(Box<PlanAssociation>),
}

/// A key as equal records have it in common.
pub(super) fn fold(delivery: &Delivery, key: &str) -> String {
    match &delivery.key_property {
        Some(_) => normalize_key(&delivery.object, &delivery.key, key),
        None => crate::record::fold_key(key),
    }
}

impl From<Verdict> for Delivered {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Written { id, created } => Self::Written { id, created },
            Verdict::Refused(reason) => Self::Refused(reason),
            Verdict::Unknown => Self::Unknown,
        }
    }
}

/// How one kind of record of an import is delivered.
pub(super) struct Delivery {
    pub(super) account: Rc<Account>,
    pub(super) objects: Rc<dyn Objects>,
    pub(super) object: ObjectType,
    /// The property that the file's key is a value of.
    pub(super) key: PropertyName,
    /// The key is HubSpot's own id of the record.
    pub(super) by_record_id: bool,
    /// The unique property that hubferry keeps for a key that is not unique.
    pub(super) key_property: Option<PropertyName>,
    pub(super) mode: Mode,
    /// Properties that are written only where HubSpot has no value.
    pub(super) fill_if_empty: Vec<PropertyName>,
    /// Where old values are kept; none, if they are not.
    pub(super) before_images: Option<Location>,
    /// When the run was started, by HubSpot's clock: what was created since is its own.
    pub(super) started_at: Timestamp,
    /// Mode `archive`: hashes of the keys that an earlier invocation of the run was about to archive.
    pub(super) archived_before: Rc<HashSet<u64>>,
    /// Nothing is written: what would be is told.
    pub(super) planned: Option<Planned>,
}

/// Of a folded key.
pub(super) fn key_hash(key: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(crate::record::fold_key(key).as_bytes())
}

/// An input that is to be written.
struct Prepared {
    at: usize,
    kind: WriteKind,
    input: Input,
}

impl Delivery {
    /// The input with its key as hubferry keeps it, where HubSpot does not hold it unique: different spellings of one key are one
    /// record, from the batcher on.
    pub(super) fn with_own_key(&self, mut input: Input) -> Input {
        if self.key_property.is_some() {
            input.key = normalize_key(&self.object, &self.key, &input.key);
            if let Some((_, value)) = input.properties.iter_mut().find(|(name, _)| *name == self.key) {
                // A domain is stored bare, as HubSpot does itself; other keys keep their spelling.
                if self.object.is_companies() && &*self.key == "domain" {
                    value.clone_from(&input.key);
                }
            }
        }
        input
    }

    /// Delivers a batch; one verdict per input, in order. `number` names the batch's before-images and is unique to it.
    pub(super) async fn deliver(
        &self,
        number: &str,
        inputs: &[Input],
        permit: Permit,
        deadline: Deadline,
    ) -> Result<Vec<Delivered>> {
        if let Some(planned) = &self.planned {
            return self.plan(planned, inputs, permit, deadline).await;
        }
        let plain = matches!(self.mode, Mode::Upsert | Mode::Mirror)
            && self.key_property.is_none()
            && !self.by_record_id
            && self.fill_if_empty.is_empty()
            && self.before_images.is_none();
        if plain {
            let verdicts = self.account.upsert(&self.object, &self.key, inputs, Some(permit), deadline).await?;
            return Ok(verdicts.into_iter().map(Delivered::from).collect());
        }

        let mut delivered: Vec<Option<Delivered>> = vec![None; inputs.len()];
        let mut inputs = inputs.to_vec();
        let mut permit = Some(permit);
        if let Some(key_property) = &self.key_property {
            let keys: Vec<String> = inputs.iter().map(|input| input.key.clone()).collect();
            let adoptions = match mutate::on(Bug::AdoptionWithoutLook) {
                true => vec![Adoption::New; keys.len()],
                // The turn is that of the first call: by the time of the last one it would be long over.
                false => {
                    self.account.adopt(&self.object, &self.key, key_property, &keys, &mut permit, deadline).await?
                }
            };
            for (at, (input, adoption)) in inputs.iter_mut().zip(adoptions).enumerate() {
                if let Some(reason) = adoption.reason(&self.object, &self.key) {
                    set(&mut delivered, at, Delivered::Refused(reason));
                    continue;
                }
                input.properties.push((key_property.clone(), input.key.clone()));
            }
        }
        let id_property: Option<&str> = match (&self.key_property, self.by_record_id) {
            (Some(property), _) => Some(property),
            (None, true) => None,
            (None, false) => Some(&self.key),
        };

        let found = self.existing(id_property, &inputs, &delivered, &mut permit, deadline).await?;
        let mut planned = Vec::new();
        for (at, input) in inputs.iter().enumerate() {
            if delivered.get(at).is_some_and(Option::is_some) {
                continue;
            }
            match self.decide(input, found.get(at).and_then(Option::as_ref)) {
                Ok((kind, input)) => planned.push(Prepared { at, kind, input }),
                Err(verdict) => set(&mut delivered, at, verdict),
            }
        }
        if let Some(folder) = &self.before_images
            && !planned.is_empty()
            && !mutate::on(Bug::ImageAfterWrite)
        {
            let keys: Vec<String> = inputs.iter().map(|input| input.key.clone()).collect();
            self.keep_before_images(folder, number, &planned, &found, &keys).await?;
        }
        for kind in [WriteKind::Upsert, WriteKind::Update, WriteKind::Archive] {
            let (places, batch): (Vec<usize>, Vec<Input>) = planned
                .iter()
                .filter(|planned| planned.kind == kind)
                .map(|planned| (planned.at, planned.input.clone()))
                .unzip();
            if batch.is_empty() {
                continue;
            }
            let id_property = if kind == WriteKind::Upsert { id_property } else { None };
            let write = Write { kind, object: &self.object, id_property };
            let mut verdicts = vec![None; batch.len()];
            self.account.write(write, &batch, &mut verdicts, permit.take(), deadline).await?;
            for (at, verdict) in places.into_iter().zip(verdicts) {
                set(&mut delivered, at, verdict.map_or(Delivered::Unknown, Delivered::from));
            }
        }
        if let Some(folder) = self.before_images.as_ref().filter(|_| mutate::on(Bug::ImageAfterWrite)) {
            let found = self.existing(id_property, &inputs, &vec![None; inputs.len()], &mut permit, deadline).await?;
            let keys: Vec<String> = inputs.iter().map(|input| input.key.clone()).collect();
            self.keep_before_images(folder, number, &planned, &found, &keys).await?;
        }
        Ok(delivered.into_iter().map(|verdict| verdict.unwrap_or(Delivered::Unknown)).collect())
    }

    /// The records as they are, where that matters; one place per input.
    async fn existing(
        &self,
        id_property: Option<&str>,
        inputs: &[Input],
        decided: &[Option<Delivered>],
        permit: &mut Option<Permit>,
        deadline: Deadline,
    ) -> Result<Vec<Option<Found>>> {
        let matters = !matches!(self.mode, Mode::Upsert | Mode::Mirror)
            || !self.fill_if_empty.is_empty()
            || self.before_images.is_some();
        if !matters {
            return Ok(vec![None; inputs.len()]);
        }
        let mut properties: Vec<PropertyName> = Vec::new();
        for (name, _) in inputs.iter().flat_map(|input| &input.properties) {
            if !properties.contains(name) {
                properties.push(name.clone());
            }
        }
        let places: Vec<usize> = (0..inputs.len()).filter(|at| decided.get(*at).is_none_or(Option::is_none)).collect();
        let keys: Vec<String> = places.iter().filter_map(|at| inputs.get(*at)).map(|input| input.key.clone()).collect();
        let read = self.account.read(&self.object, id_property, &keys, &properties, permit.take(), deadline).await?;
        if read.len() != keys.len() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                codes::ACCOUNTING,
                "a read answered with another number of records",
            ));
        }
        let mut found = vec![None; inputs.len()];
        for (at, record) in places.into_iter().zip(read) {
            if let Some(place) = found.get_mut(at) {
                *place = record;
            }
        }
        Ok(found)
    }

    /// What to write for an input, or its verdict if there is nothing to write.
    pub(super) fn decide(
        &self,
        input: &Input,
        found: Option<&Found>,
    ) -> std::result::Result<(WriteKind, Input), Delivered> {
        let mut input = input.clone();
        match (self.mode, found) {
            // One made since the run began is its own record, whose answer was lost or whose checkpoint was not reached, or that
            // of an earlier row with this key: it is written again, so that the later row wins.
            (Mode::Create, Some(found)) if found.created_at.is_none_or(|created| created < self.started_at) => {
                let reason = format!("a record with this `{}` exists already", self.key);
                return Err(Delivered::Refused(Reason::new(codes::KEY_EXISTS, reason)));
            }
            (Mode::Archive, None) if self.archived_before.contains(&key_hash(&input.key)) => {
                return Err(Delivered::Written { id: String::new(), created: false });
            }
            (Mode::Update | Mode::Archive, None) => {
                let reason = format!("no record has this `{}`", self.key);
                return Err(Delivered::Refused(Reason::new(codes::KEY_NOT_FOUND, reason)));
            }
            (Mode::Archive, Some(found)) => {
                return Ok((WriteKind::Archive, Input { key: found.id.clone(), properties: Vec::new() }));
            }
            _ => {}
        }
        if let Some(found) = found
            && !self.fill_if_empty.is_empty()
        {
            input.properties.retain(|(name, _)| !self.fill_if_empty.contains(name) || found.value(name).is_none());
            let identity = |name: &PropertyName| *name == self.key || self.key_property.as_ref() == Some(name);
            if input.properties.iter().all(|(name, _)| identity(name)) {
                return Err(Delivered::Unchanged { id: found.id.clone() });
            }
        }
        match found {
            Some(found) if self.mode == Mode::Update => {
                input.key = found.id.clone();
                Ok((WriteKind::Update, input))
            }
            _ if self.by_record_id => Ok((WriteKind::Update, input)),
            _ => Ok((WriteKind::Upsert, input)),
        }
    }

    /// Writes down what is about to change, before it does. Lines of JSON: key, id, and the old value of each property that is
    /// written (`null` where it had none); a record that is about to be created has `"existed": false`.
    async fn keep_before_images(
        &self,
        folder: &Location,
        number: &str,
        planned: &[Prepared],
        found: &[Option<Found>],
        keys: &[String],
    ) -> Result<()> {
        let mut body = Vec::new();
        for planned in planned {
            let found = found.get(planned.at).and_then(Option::as_ref);
            // Of what is updated by id, the key as the file has it.
            let key = if found.is_some() { keys.get(planned.at) } else { None }.unwrap_or(&planned.input.key);
            let property = self.key_property.as_ref().unwrap_or(&self.key);
            let line = image(&self.object, found, key, Some(property), planned.kind, &planned.input.properties);
            body.extend_from_slice(line.to_string().as_bytes());
            body.push(b'\n');
        }
        let at = Location::new(&folder.bucket, format!("{}before-{number}.jsonl", folder.key));
        self.objects.put(&at, Bytes::from(body), "application/x-ndjson").await
    }
}

/// A before-image: the old value of each property that is about to be written (`null` where there is none); of what is about to be archived,
/// all that was read of it; of what is about to be made, by which property it will be found.
pub(super) fn image(
    object: &ObjectType,
    found: Option<&Found>,
    key: &str,
    key_property: Option<&str>,
    kind: WriteKind,
    properties: &[(PropertyName, String)],
) -> serde_json::Value {
    let after: serde_json::Map<String, serde_json::Value> =
        properties.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
    match found {
        Some(found) => {
            let old = match kind {
                WriteKind::Archive => archived_values(found),
                _ => (properties.iter())
                    .map(|(name, _)| (name.to_string(), found.value(name).map_or(json!(null), Into::into)))
                    .collect(),
            };
            json!({ "object": object, "existed": true, "id": found.id, "key": key, "archives": kind == WriteKind::Archive,
                    "updated_at": found.updated_at, "before": old, "after": after })
        }
        None => json!({ "object": object, "existed": false, "key": key, "key_property": key_property, "after": after }),
    }
}

/// The values of a record that is about to be archived.
pub(super) fn archived_values(found: &Found) -> serde_json::Map<String, serde_json::Value> {
    found.properties.keys().filter_map(|name| Some((name.clone(), found.value(name)?.into()))).collect()
}

fn set(delivered: &mut [Option<Delivered>], at: usize, verdict: Delivered) {
    if let Some(place) = delivered.get_mut(at) {
        *place = Some(verdict);
    }
}
