//! An account's records as text and back, so that a local cloud can be started again. What is on its way is not kept: calls counted against limits,
//! what the search index has yet to see (it has seen everything afterwards), sessions, faults.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::associations::KeptLinks;
use super::catalog::PropertyDefinition;
use super::cms::Content;
use super::store::{Cell, Kind, Record};
use super::{Portal, PortalSettings};

#[derive(Serialize, Deserialize)]
struct Kept {
    next_id: u64,
    blocklist: HashSet<String>,
    kinds: Vec<KeptKind>,
    links: KeptLinks,
    content: Content,
}

#[derive(Serialize, Deserialize)]
struct KeptKind {
    name: String,
    /// Definition, and when it began to exist.
    properties: Vec<(PropertyDefinition, i64)>,
    groups: Vec<(String, String)>,
    merged: HashMap<u64, u64>,
    records: Vec<KeptRecord>,
}

#[derive(Serialize, Deserialize)]
struct KeptRecord {
    id: u64,
    created: i64,
    updated: i64,
    version: u32,
    archived: Option<i64>,
    /// Place among the properties, version, moment, text; what was superseded comes after.
    cells: Vec<(u16, u32, i64, Box<str>)>,
    past: Vec<(u16, u32, i64, Box<str>)>,
}

fn cells(cells: &[Cell]) -> Vec<(u16, u32, i64, Box<str>)> {
    cells.iter().map(|cell| (cell.property, cell.version, cell.at, cell.text.clone())).collect()
}

impl Portal {
    /// Everything that is to outlive the process, as JSON.
    pub fn kept(&self) -> Vec<u8> {
        let kinds = self.kinds.iter().map(|kind| KeptKind {
            name: kind.plural.clone(),
            properties: kind.properties.iter().map(|one| (one.definition.clone(), one.created)).collect(),
            groups: kind.groups.clone(),
            merged: kind.merged.clone(),
            records: kind
                .records
                .values()
                .map(|record| KeptRecord {
                    id: record.id,
                    created: record.created,
                    updated: record.updated,
                    version: record.version,
                    archived: record.archived,
                    cells: cells(&record.cells),
                    past: cells(&record.past),
                })
                .collect(),
        });
        let kept = Kept {
            next_id: self.next_id,
            blocklist: self.blocklist.clone(),
            kinds: kinds.collect(),
            links: self.associations.kept(),
            content: self.content.clone(),
        };
        // Plain values in memory: this does not fail.
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// An account with these settings and what was kept of another one.
    ///
    /// # Errors
    /// The text is not what [`Portal::kept`] wrote.
    pub fn restored(settings: PortalSettings, text: &[u8]) -> serde_json::Result<Self> {
        let kept: Kept = serde_json::from_slice(text)?;
        let mut portal = Self::new(settings);
        portal.next_id = kept.next_id.max(portal.next_id);
        portal.blocklist.extend(kept.blocklist);
        // Where each kind is now; one that the settings do not have any more is left out.
        let mut places = Vec::new();
        for own in kept.kinds {
            let place = portal.names.get(&own.name.to_lowercase()).copied();
            places.push(place);
            let Some(kind) = place.and_then(|place| portal.kinds.get_mut(place)) else { continue };
            kind.restore(own);
        }
        portal.associations.restore(kept.links, &places);
        portal.content = kept.content;
        Ok(portal)
    }
}

impl Kind {
    fn restore(&mut self, kept: KeptKind) {
        let numbers: Vec<u16> = kept
            .properties
            .into_iter()
            .map(|(definition, created)| self.define(definition, created, created))
            .collect();
        for group in kept.groups {
            if !self.groups.contains(&group) {
                self.groups.push(group);
            }
        }
        self.merged = kept.merged;
        let cell = |(property, version, at, text): (u16, u32, i64, Box<str>)| {
            Some(Cell { property: *numbers.get(usize::from(property))?, version, at, text })
        };
        for record in kept.records {
            let (cells, past) = (record.cells.into_iter().filter_map(cell), record.past.into_iter().filter_map(cell));
            self.take_back(Record::whole(
                (record.id, record.version),
                (record.created, record.updated, record.archived),
                cells.collect(),
                past.collect(),
            ));
        }
    }
}
