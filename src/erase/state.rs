//! What hubferry remembers of records beside the records themselves: manifests, what captures know, delivered indexes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{
    Removed, Work,
    places::{captures_contacts, forget},
};
use crate::{
    capture::{
        known::{Known, number},
        output_of,
    },
    config::Capture,
    error::{Error, ErrorKind, Result},
    import::index::{Fingerprint, Keeper},
    objects::Location,
    record::ObjectType,
};

impl Work<'_> {
    /// Manifests name the objects of a run with their counts and sizes: those that have changed are told as they are now.
    pub(super) async fn correct_manifests(&self, capture: &Capture, changed: &[Removed]) -> Result<()> {
        let objects = &self.app.env().objects;
        let output = output_of(capture)?;
        let changed: BTreeMap<&str, u64> =
            changed.iter().map(|removed| (removed.location.as_str(), removed.records)).collect();
        for location in objects.list(&Location::new(&output.bucket, format!("manifests/{}/", capture.name))).await? {
            let Some((bytes, _)) = objects.get(&location).await? else { continue };
            let Ok(mut manifest) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
            let mut touched = false;
            for entry in manifest.get_mut("objects").and_then(serde_json::Value::as_array_mut).into_iter().flatten() {
                let Some(key) = entry.get("key").and_then(serde_json::Value::as_str) else { continue };
                let at = Location::new(&output.bucket, key);
                let Some(dropped) = changed.get(at.to_string().as_str()) else { continue };
                let records = entry.get("records").and_then(serde_json::Value::as_u64).unwrap_or(0);
                let size = objects.head(&at, None).await?.size;
                if let Some(entry) = entry.as_object_mut() {
                    entry.insert("records".to_owned(), records.saturating_sub(*dropped).into());
                    entry.insert("bytes".to_owned(), size.into());
                    touched = true;
                }
            }
            if touched {
                let body = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
                objects.put(&location, Bytes::from(body), "application/json").await?;
            }
        }
        Ok(())
    }

    /// What a capture remembers of the person's records: their ids.
    pub(super) async fn remembered(
        &mut self,
        capture: &Capture,
        write: bool,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let is_contacts = captures_contacts(capture);
        let to_contacts: Vec<u8> = (0..=u8::MAX)
            .zip(&capture.associations)
            .filter(|(_, object)| object.is_contacts())
            .map(|(place, _)| place)
            .collect();
        let ids: BTreeSet<u64> = self.person.ids_in(&capture.hubspot).map(number).collect();
        if ids.is_empty() || (!is_contacts && to_contacts.is_empty()) {
            return Ok(());
        }
        if self.open.iter().any(|(job, name, _)| job == "capture" && *name == capture.name) {
            return Ok(());
        }
        let objects = self.app.env().objects.clone();
        let folder = Location::new(output_of(capture)?.bucket, format!("state/capture/{}/", capture.name));
        for location in objects.list(&folder).await? {
            if !location.key.ends_with(".known") {
                continue;
            }
            (self.told)(&format!("reading {location}"));
            let taken_out = async {
                let stored = self.whole(&objects.head(&location, None).await?).await?;
                let mut known = Known::load(&stored, &location.to_string())?;
                let count = forget(&mut known, &ids, is_contacts, &to_contacts);
                if count > 0 && write {
                    objects.put(&location, Bytes::from(known.store()?), "application/octet-stream").await?;
                }
                Ok::<u64, Error>(count)
            };
            match taken_out.await {
                Ok(count) => {
                    let searched = self.erasure.searched.entry("remembered").or_default();
                    searched.objects += 1;
                    if count > 0 {
                        removed.push(Removed { what: "remembered", location: location.to_string(), records: count });
                    }
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.leave(&location.to_string(), error.message().to_owned()),
            }
        }
        Ok(())
    }

    /// The hashes of the person's keys, in the index of each import.
    pub(super) async fn indexes(&mut self, write: bool, removed: &mut Vec<Removed>) -> Result<()> {
        let env = self.app.env().clone();
        for import in &self.app.config().imports {
            let nothing = Fingerprint { target: String::new(), settings: String::new() };
            let (objects, table, runs) = (env.objects.clone(), env.table.clone(), self.app.runs().clone());
            let keeper = Keeper::new(objects, table, runs, &import.name, "", nothing);
            let person = &self.person;
            let keys = |object: &str, key: &str| -> Vec<String> {
                if !ObjectType(object.to_owned()).is_contacts() {
                    return Vec::new();
                }
                let known = if key == "email" { Some(&person.addresses) } else { person.keys.get(key) };
                known.into_iter().flatten().cloned().collect()
            };
            let location = format!("index of import {}", import.name);
            match keeper.forget(keys, !write).await {
                Ok(count) => {
                    self.erasure.searched.entry("indexes").or_default().objects += 1;
                    if count > 0 {
                        removed.push(Removed { what: "indexes", location, records: count });
                    }
                }
                // Nobody reads an index that is lost.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
                Err(error) => self.leave(&location, error.message().to_owned()),
            }
        }
        Ok(())
    }
}
