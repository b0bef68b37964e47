//! What no modified date tells: the snapshot's listing, the recycle bin, and associations.

use jiff::Timestamp;

use super::{
    change::{Change, Operation},
    changes::linked,
    job::{Job, MERGED},
    known::{Archived, Delta, GONE, number},
    progress::Phase,
};
use crate::{
    error::Result,
    hubspot::{
        records::{RawRecord, Wanted},
        resources::{CrmResource, Resource},
        scan::{Scan, ScanState},
    },
    mutate::{self, Bug},
};

/// Records that are looked up at a time.
const RETURNED_AT_ONCE: usize = 1_000;

/// Records whose associations are asked for at a time: as many calls as [`Account::associations`](crate::hubspot::account::Account::associations)
/// has under way.
const LINKS_PAGE: usize = 5_000;

impl Job {
    /// Everything that exists.
    pub(super) async fn snapshot(&mut self, state: ScanState) -> Result<bool> {
        let resource = self.resource.clone();
        let finished = match &*resource {
            Resource::Crm(crm) => self.crm_snapshot(crm, state).await?,
            Resource::Cms(cms) => self.cms_snapshot(cms).await?,
        };
        if finished {
            let at_the_end = mutate::on(Bug::HandoverAtTheEnd);
            self.progress.covered = if at_the_end { Some(self.account.server_time()) } else { self.progress.initial };
            self.progress.trailing = self.progress.initial;
            self.progress.links_known = !self.capture.associations.is_empty() && !self.progress.links_partial;
            // What left the recycle bin while the snapshot was taken may have been listed by neither.
            self.progress.phase = match &*self.resource {
                Resource::Crm(_) if self.capture.deletes => Phase::Deletes(ScanState::default()),
                _ => Phase::Complete,
            };
            self.save().await?;
        }
        Ok(finished)
    }

    /// The recycle bin before the snapshot: who is in it now is not in the snapshot, unless it comes back.
    pub(super) async fn bin(&mut self, state: ScanState) -> Result<bool> {
        let resource = self.resource.clone();
        if let Resource::Crm(crm) = &*resource {
            let calls_until = self.calls_until();
            let wanted = Wanted::ids(true);
            let mut scan = Scan::new(self.account.clone(), crm.object.clone(), wanted, state, calls_until);
            loop {
                if self.must_stop() {
                    return Ok(false);
                }
                let Some(page) = scan.next().await? else { break };
                for record in page.records {
                    let at = record.archived_at.unwrap_or_default().as_millisecond();
                    self.learn(&Delta::Archived(number(&record.id), Archived { at, told: false }));
                }
                scan.covered(page.token);
                self.progress.phase = Phase::Bin(scan.state());
                self.save_if_full().await?;
            }
            self.progress.bin_known = true;
        }
        self.progress.phase = Phase::Snapshot(ScanState::default());
        Ok(true)
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
            let pages = scan.next_all().await?;
            if pages.is_empty() {
                return Ok(true);
            }
            // Neither associations nor objects hold the listing up: it goes on beside both.
            let ids = pages.iter().flat_map(|page| &page.records).map(|record| record.id.clone());
            let mut links = scan.beside(linked(&account, &crm.object, &to, ids, calls_until)).await?;
            for page in pages {
                for record in page.records {
                    let linked = links.remove(&record.id);
                    self.emit_snapshot(record, linked, Some(crm))?;
                }
                scan.covered(page.token);
                self.progress.phase = Phase::Snapshot(scan.state());
                scan.beside(self.save_if_full()).await?;
            }
        }
    }

    /// The recycle bin: deletes, and what came back from it.
    pub(super) async fn deletes(&mut self, state: ScanState) -> Result<bool> {
        self.sweep_begins();
        let resource = self.resource.clone();
        let finished = match &*resource {
            Resource::Crm(crm) => return self.crm_deletes(crm, state).await,
            Resource::Cms(cms) => self.cms_deletes(cms).await?,
        };
        if finished {
            self.deletes_done();
        }
        Ok(finished)
    }

    fn deletes_done(&mut self) {
        self.progress.bin_known = true;
        self.progress.bin_due = self.sweep_ends();
        self.progress.phase = self.after_deletes();
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
        let mut scan = Scan::new(self.account.clone(), crm.object.clone(), wanted, state, calls_until);
        loop {
            if self.must_stop() {
                return Ok(false);
            }
            let Some(page) = scan.next().await? else { break };
            for record in page.records {
                self.in_bin.insert(number(&record.id));
                let at = record.archived_at.unwrap_or_default();
                self.take_deleted(record, at, bin_known || at >= initial)?;
            }
            scan.covered(page.token);
            self.progress.phase = Phase::Deletes(scan.state());
            scan.beside(self.save_if_full()).await?;
        }
        self.progress.phase = Phase::Returned { after: 0 };
        Ok(true)
    }

    /// Who was in the bin and was not listed came back, or is gone for good; or an earlier invocation has seen it. They are looked up.
    pub(super) async fn returned(&mut self, after: u64) -> Result<bool> {
        self.sweep_begins();
        let resource = self.resource.clone();
        let mut after = after;
        if let Resource::Crm(crm) = &*resource
            && !mutate::on(Bug::ReturnedSkipped)
        {
            loop {
                if self.must_stop() {
                    return Ok(false);
                }
                let left = self.known.archived.range(after.saturating_add(1)..).map(|(id, _)| *id);
                let lot: Vec<u64> = left.filter(|id| !self.in_bin.contains(id)).take(RETURNED_AT_ONCE).collect();
                let Some(last) = lot.last().copied() else { break };
                self.look_up(crm, &lot).await?;
                after = last;
                self.progress.phase = Phase::Returned { after };
                self.save_if_full().await?;
            }
        }
        self.in_bin.clear();
        self.deletes_done();
        Ok(true)
    }

    /// Emits the delete of an archived record, once; `told`: consumers may have known it.
    pub(super) fn take_deleted(&mut self, record: RawRecord, at: Timestamp, told: bool) -> Result<()> {
        if mutate::on(Bug::ArchivedSkipped) {
            return Ok(());
        }
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
        self.progress.done.changes.seen += 1;
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
    async fn look_up(&mut self, crm: &CrmResource, left: &[u64]) -> Result<()> {
        let ids: Vec<String> = left.iter().map(u64::to_string).collect();
        let calls_until = self.calls_until();
        let account = self.account.clone();
        let mut records = account.read_records(&crm.object, &ids, &self.wanted, calls_until).await?;
        let dead: Vec<String> = ids.iter().filter(|id| !records.contains_key(*id)).cloned().collect();
        let binned = account.read_records(&crm.object, &dead, &Wanted::ids(true), calls_until).await?;
        // Restored between the two looks?
        let nowhere: Vec<String> = dead.into_iter().filter(|id| !binned.contains_key(id)).collect();
        records.extend(account.read_records(&crm.object, &nowhere, &self.wanted, calls_until).await?);
        let alive = records.values().map(|record| record.id.clone());
        let to = self.link_objects().to_vec();
        let mut links = linked(&account, &crm.object, &to, alive, calls_until).await?;
        let from = self.progress.covered.or(self.progress.initial).unwrap_or_default();
        for id in ids {
            match records.remove(&id) {
                Some(record) if record.id == id => {
                    let linked = links.remove(&id);
                    self.progress.done.changes.seen += 1;
                    self.take_record(record, linked, from, crm)?;
                }
                // Merged: its delete is emitted with the record that it was merged into.
                Some(_) => self.learn(&Delta::Unarchived(number(&id))),
                None => match binned.get(&id) {
                    Some(_) => {}
                    None if self.known.archived.get(&number(&id)).is_some_and(|archived| archived.at == GONE) => {
                        let number = number(&id);
                        self.progress.done.changes.seen += 1;
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
            updated_at: Some(now),
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
            let pages = scan.next_all().await?;
            if pages.is_empty() {
                break;
            }
            let ids = pages.iter().flat_map(|page| &page.records).map(|record| record.id.clone());
            for (id, linked) in scan.beside(linked(&account, &crm.object, &to, ids, calls_until)).await? {
                let id = number(&id);
                if !self.known.links.contains_key(&id) {
                    self.learn(&Delta::Links(id, linked.links));
                }
            }
            for page in pages {
                scan.covered(page.token);
            }
            self.progress.phase = Phase::LinksBegin(scan.state());
            scan.beside(self.save_if_full()).await?;
        }
        self.progress.links_known = true;
        self.progress.links_partial = false;
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
        self.sweep_begins();
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
            for lot in differing.chunks(RETURNED_AT_ONCE) {
                let mut records = self.account.read_records(&crm.object, lot, &self.wanted, calls_until).await?;
                // Read again, after the record: what is emitted together was true at the same time, or later.
                let alive: Vec<String> = lot.iter().filter(|id| records.contains_key(*id)).cloned().collect();
                let mut links = linked(&account, &crm.object, &to, alive.into_iter(), calls_until).await?;
                for id in lot {
                    match (records.remove(id), links.remove(id)) {
                        (Some(record), Some(linked)) if record.id == *id => {
                            self.progress.done.changes.seen += 1;
                            self.emit_linked(record, linked, crm)?;
                        }
                        // Archived or merged: its delete is, or will be, emitted.
                        _ => self.learn(&Delta::Unlinked(number(id))),
                    }
                }
            }
            after = last;
            self.progress.phase = Phase::Links { after };
            self.save_if_full().await?;
        }
        self.progress.links_due = self.sweep_ends();
        self.progress.phase = Phase::Complete;
        Ok(true)
    }
}
