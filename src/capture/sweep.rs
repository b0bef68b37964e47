//! What no modified date tells: the snapshot's listing, the recycle bin, and associations.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    change::{Change, Operation},
    changes::linked,
    job::{Job, MERGED},
    known::{Archived, Delta, GONE, number},
    progress::Phase,
    scan::{Scan, ScanState},
};
use crate::{
    error::Result,
    hubspot::{
        records::{RawRecord, Wanted},
        resources::{CrmResource, Resource},
    },
};

/// A sweep that took so long is repeated after this many times as long: it takes a tenth of the account's time at most.
const SWEEP_SHARE: u32 = 10;

/// Records that are looked up at a time.
const RETURNED_AT_ONCE: usize = 1_000;

/// Records whose associations are asked for at a time.
const LINKS_PAGE: usize = 1_000;

impl Job {
    /// Everything that exists.
    pub(super) async fn snapshot(&mut self, state: ScanState) -> Result<bool> {
        let resource = self.resource.clone();
        let finished = match &*resource {
            Resource::Crm(crm) => self.crm_snapshot(crm, state).await?,
            Resource::Cms(cms) => self.cms_snapshot(cms).await?,
        };
        if finished {
            self.save().await?;
            self.progress.covered = self.progress.initial;
            self.progress.trailing = self.progress.initial;
            self.progress.links_known = !self.capture.associations.is_empty();
            self.progress.part = 0;
            self.progress.phase = Phase::Open;
            self.save().await?;
        }
        Ok(finished)
    }

    async fn crm_snapshot(&mut self, crm: &CrmResource, state: ScanState) -> Result<bool> {
        let calls_until = self.calls_until();
        let mut scan = Scan::new(self.account.clone(), crm.object.clone(), (*self.wanted).clone(), state, calls_until);
        let account = self.account.clone();
        let to = self.link_objects().to_vec();
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let Some(page) = scan.next().await? else { return Ok(true) };
            let ids = page.records.iter().map(|record| record.id.clone());
            let mut links = linked(&account, &crm.object, &to, ids, calls_until).await?;
            let token = page.token;
            for record in page.records {
                let linked = links.remove(&record.id);
                self.emit_snapshot(record, linked, Some(crm))?;
            }
            scan.covered(token);
            self.progress.phase = Phase::Snapshot(scan.state());
            self.save_if_full().await?;
        }
    }

    /// The recycle bin: deletes, and what came back from it.
    pub(super) async fn deletes(&mut self, state: ScanState) -> Result<bool> {
        let now = self.env.clock.now();
        let began = *self.progress.sweep_began.get_or_insert(now);
        let resource = self.resource.clone();
        let finished = match &*resource {
            Resource::Crm(crm) => self.crm_deletes(crm, state).await?,
            Resource::Cms(cms) => self.cms_deletes(cms).await?,
        };
        if finished {
            self.progress.bin_known = true;
            self.progress.bin_due = self.due(began);
            self.progress.sweep_began = None;
            self.progress.phase = self.after_deletes();
        }
        Ok(finished)
    }

    async fn crm_deletes(&mut self, crm: &CrmResource, state: ScanState) -> Result<bool> {
        let calls_until = self.calls_until();
        let initial = self.progress.initial.unwrap_or_default();
        let bin_known = self.progress.bin_known;
        let wanted = match self.capture.before {
            true => Wanted { archived: true, ..(*self.wanted).clone() },
            // Who was merged into a record that was archived since is told nowhere else.
            false => Wanted { properties: vec![MERGED.into()], archived: true, history: false },
        };
        let mut seen = std::collections::HashSet::new();
        let mut scan = Scan::new(self.account.clone(), crm.object.clone(), wanted, state, calls_until);
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let Some(page) = scan.next().await? else { break };
            for record in page.records {
                seen.insert(number(&record.id));
                let at = record.archived_at.unwrap_or_default();
                self.take_deleted(record, at, bin_known || at >= initial)?;
            }
            scan.covered(page.token);
            self.progress.phase = Phase::Deletes(scan.state());
            self.save_if_full().await?;
        }
        // Who was in the bin and was not listed came back, or is gone for good; or an earlier invocation saw it: that is looked up.
        let left: Vec<u64> = self.known.archived.keys().copied().filter(|id| !seen.contains(id)).collect();
        for lot in left.chunks(RETURNED_AT_ONCE) {
            if self.must_stop() {
                return Ok(false);
            }
            self.returned(crm, lot).await?;
            self.save_if_full().await?;
        }
        Ok(true)
    }

    /// Emits the delete of an archived record, once; `told`: consumers may have known it.
    pub(super) fn take_deleted(&mut self, record: RawRecord, at: Timestamp, told: bool) -> Result<()> {
        let id = number(&record.id);
        let archived = Archived { at: at.as_millisecond(), told };
        if told {
            self.merges(&record)?;
        }
        match self.known.archived.get(&id) {
            Some(known) if known.at == archived.at => return Ok(()),
            _ if !told => {
                self.learn(&Delta::Archived(id, archived));
                return Ok(());
            }
            _ => {}
        }
        let change = Change {
            operation: Operation::Delete,
            cause: None,
            position: self.position_of(&record.id, Some(at)),
            id: record.id,
            created_at: record.created_at,
            updated_at: Some(at),
            read_at: self.env.clock.now(),
            before: self.capture.before.then_some(record.object),
            after: None,
        };
        self.emit(&change, [Delta::Archived(id, archived)])
    }

    /// Emits those of the records that are alive again, and forgets those that are nowhere.
    async fn returned(&mut self, crm: &CrmResource, left: &[u64]) -> Result<()> {
        let ids: Vec<String> = left.iter().map(u64::to_string).collect();
        let calls_until = self.calls_until();
        let account = self.account.clone();
        let mut records = account.read_records(&crm.object, &ids, &self.wanted, calls_until).await?;
        let dead: Vec<String> = ids.iter().filter(|id| !records.contains_key(*id)).cloned().collect();
        let binned = account.read_records(&crm.object, &dead, &Wanted::ids(true), calls_until).await?;
        let alive = records.values().map(|record| record.id.clone());
        let to = self.link_objects().to_vec();
        let mut links = linked(&account, &crm.object, &to, alive, calls_until).await?;
        let from = self.progress.covered.or(self.progress.initial).unwrap_or_default();
        for id in ids {
            match records.remove(&id) {
                Some(record) if record.id == id => {
                    let linked = links.remove(&id);
                    self.take_record(record, linked, from, crm)?;
                }
                // Merged: its delete is emitted with the record that it was merged into.
                Some(_) => self.learn(&Delta::Unarchived(number(&id))),
                None => match binned.get(&id) {
                    Some(_) => {}
                    None if self.known.archived.get(&number(&id)).is_some_and(|archived| archived.at == GONE) => {
                        let number = number(&id);
                        let change = self.gone(id, self.env.clock.now());
                        self.emit(&change, [Delta::Unarchived(number), Delta::Unlinked(number)])?;
                    }
                    None => self.learn(&Delta::Unarchived(number(&id))),
                },
            }
        }
        Ok(())
    }

    /// The delete of a record that is nowhere any more.
    pub(super) fn gone(&self, id: String, now: Timestamp) -> Change {
        Change {
            operation: Operation::Delete,
            cause: None,
            position: self.position_of(&id, self.progress.until.or(Some(now))),
            id,
            created_at: None,
            updated_at: None,
            read_at: now,
            before: None,
            after: None,
        }
    }

    /// Learns the associations of all records, without emitting any: where no snapshot has.
    pub(super) async fn links_begin(&mut self, state: ScanState) -> Result<bool> {
        let resource = self.resource.clone();
        let Resource::Crm(crm) = &*resource else {
            self.progress.phase = Phase::Complete;
            return Ok(true);
        };
        let calls_until = self.calls_until();
        let account = self.account.clone();
        let to = self.link_objects().to_vec();
        let wanted = Wanted::ids(false);
        let mut scan = Scan::new(self.account.clone(), crm.object.clone(), wanted, state, calls_until);
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let Some(page) = scan.next().await? else { break };
            let ids = page.records.iter().map(|record| record.id.clone());
            for (id, linked) in linked(&account, &crm.object, &to, ids, calls_until).await? {
                let id = number(&id);
                if !self.known.links.contains_key(&id) {
                    self.learn(&Delta::Links(id, linked.links));
                }
            }
            scan.covered(page.token);
            self.progress.phase = Phase::LinksBegin(scan.state());
            self.save_if_full().await?;
        }
        self.progress.links_known = true;
        self.progress.phase = Phase::Complete;
        Ok(true)
    }

    /// Compares the associations of all known records, and emits those that differ.
    pub(super) async fn links(&mut self, after: u64) -> Result<bool> {
        let resource = self.resource.clone();
        let Resource::Crm(crm) = &*resource else {
            self.progress.phase = Phase::Complete;
            return Ok(true);
        };
        let now = self.env.clock.now();
        let began = *self.progress.sweep_began.get_or_insert(now);
        let calls_until = self.calls_until();
        let account = self.account.clone();
        let to = self.link_objects().to_vec();
        let mut after = after;
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let page: Vec<u64> =
                self.known.links.range(after.saturating_add(1)..).map(|(id, _)| *id).take(LINKS_PAGE).collect();
            let Some(last) = page.last().copied() else { break };
            let ids = page.iter().map(u64::to_string);
            let now_linked = linked(&account, &crm.object, &to, ids, calls_until).await?;
            let differing: Vec<String> = now_linked
                .iter()
                .filter(|(id, linked)| self.known.links.get(&number(id)) != Some(&linked.links))
                .map(|(id, _)| id.clone())
                .collect();
            if !differing.is_empty() {
                let mut records = self.account.read_records(&crm.object, &differing, &self.wanted, calls_until).await?;
                // Read again, after the record: what is emitted together was true at the same time, or later.
                let alive: Vec<String> = differing.iter().filter(|id| records.contains_key(*id)).cloned().collect();
                let mut links = linked(&account, &crm.object, &to, alive.into_iter(), calls_until).await?;
                for id in differing {
                    match (records.remove(&id), links.remove(&id)) {
                        (Some(record), Some(linked)) if record.id == id => self.emit_linked(record, linked, crm)?,
                        // Archived or merged: its delete is, or will be, emitted.
                        _ => self.learn(&Delta::Unlinked(number(&id))),
                    }
                }
            }
            after = last;
            self.progress.phase = Phase::Links { after };
            self.save_if_full().await?;
        }
        self.progress.links_due = self.due(began);
        self.progress.sweep_began = None;
        self.progress.phase = Phase::Complete;
        Ok(true)
    }

    /// When a sweep that began at `began` and ends now is to be made again.
    fn due(&self, began: Timestamp) -> Option<Timestamp> {
        let now = self.env.clock.now();
        let took = Duration::try_from(now.duration_since(began)).unwrap_or_default();
        now.checked_add(took * (SWEEP_SHARE - 1)).ok()
    }
}
