//! CMS resources: short lists, read through.
//!
//! They have no search. What was updated is listed by its date, from as far back as the trailing pass reaches, so that an item which moved
//! to another page while they were read is found by the next run at the latest. Deleted items are listed where HubSpot lists them, else found
//! by their absence.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    change::{Cause, Change, Operation},
    job::Job,
    known::{Archived, Delta, number},
    progress::Phase,
};
use crate::{
    error::Result,
    hubspot::{
        cms::{CmsOrder, CmsQuery},
        records::RawRecord,
        resources::{CmsResource, Deletes},
    },
};

/// Pages of one list: 100 items each. HubSpot's own ceilings for pages and posts are far below.
const PAGES_MAX: usize = 5_000;

/// How often a list is read until it shows nothing new.
const LISTS_MAX: usize = 4;

impl Job {
    /// What was updated since the trailing pass; the window's start where that is earlier.
    pub(super) async fn cms_pass(&mut self, cms: &CmsResource, from: Timestamp) -> Result<bool> {
        let from = from.min(self.progress.trailing.unwrap_or(from)) - jiff::SignedDuration::from_millis(1);
        let query = CmsQuery { order: CmsOrder::Updated, updated_after: Some(from), archived: false };
        // Who changes while pages are turned moves to the end, and hides another one at the border of two pages. The next run finds it, unless
        // there is no second pass: then the list is read until it shows nothing new.
        for _ in 0..LISTS_MAX {
            let before = self.progress.done.changes.emitted();
            let pages = self.cms_list(cms, &query, None, |job, record| job.take_cms(record, cms)).await?;
            let Some(pages) = pages else { return Ok(false) };
            if pages == 1 || self.capture.trailing_seconds > 0 || self.progress.done.changes.emitted() == before {
                break;
            }
        }
        Ok(true)
    }

    /// Everything that exists.
    pub(super) async fn cms_snapshot(&mut self, cms: &CmsResource) -> Result<bool> {
        let by_absence = cms.deletes == Deletes::Absence;
        // What an earlier invocation has read is not read again before the list has come to its end.
        let mut after = self.progress.content_after.take();
        // Pages are turned: where the cursor is an offset, a deletion between two of them hides an item. What a list lacked, the next one has.
        let mut is_turned = after.is_some();
        for _ in 0..LISTS_MAX {
            let is_whole = after.is_none();
            let mut new = 0_u64;
            let pages = self
                .cms_list(cms, &CmsQuery::default(), after.take(), |job, record| {
                    // By this invocation or an earlier one: the snapshot takes note of each.
                    if job.known.recent.contains_key(&number(&record.id)) {
                        return Ok(());
                    }
                    new += 1;
                    if by_absence {
                        job.learn(&Delta::Present(record.id.clone()));
                    }
                    job.emit_snapshot(record, None, None)
                })
                .await?;
            let Some(pages) = pages else { return Ok(false) };
            is_turned |= pages > 1;
            if !is_turned || (is_whole && new == 0) {
                break;
            }
        }
        Ok(true)
    }

    /// What was deleted, and what came back.
    pub(super) async fn cms_deletes(&mut self, cms: &CmsResource) -> Result<bool> {
        if cms.deletes == Deletes::Absence {
            return self.cms_absent(cms).await;
        }
        let initial = self.progress.initial.unwrap_or_default();
        let began_known = self.progress.bin_known;
        let mut bin = BTreeSet::new();
        let query = CmsQuery { archived: true, ..CmsQuery::default() };
        let all = self
            .cms_list(cms, &query, None, |job, record| {
                let at = record.archived_at.or(record.updated_at).unwrap_or_default();
                let id = number(&record.id);
                bin.insert(id);
                let told = began_known || at >= initial;
                job.take_deleted(record, at, told)
            })
            .await?
            .is_some();
        if all {
            // Who left the bin came back, or is gone for good. A restore need not move the date by which the living are listed.
            let left: Vec<u64> = self.known.archived.keys().copied().filter(|id| !bin.contains(id)).collect();
            let calls_until = self.calls_until();
            for id in left {
                if self.must_stop() {
                    return Ok(false);
                }
                match self.account.read_cms(cms, &id.to_string(), false, calls_until).await? {
                    Some(record) if record.archived_at.is_none() => self.take_cms(record, cms)?,
                    // A list that was read while things moved may lack one that is there.
                    _ if self.account.read_cms(cms, &id.to_string(), true, calls_until).await?.is_some() => {}
                    _ => self.learn(&Delta::Unarchived(id)),
                }
            }
            self.progress.bin_known = true;
        }
        Ok(all)
    }

    async fn cms_absent(&mut self, cms: &CmsResource) -> Result<bool> {
        let mut there = BTreeSet::new();
        let all = self
            .cms_list(cms, &CmsQuery::default(), None, |job, record| {
                if !job.known.present.contains(&record.id) {
                    job.learn(&Delta::Present(record.id.clone()));
                }
                there.insert(record.id);
                Ok(())
            })
            .await?
            .is_some();
        if !all {
            return Ok(false);
        }
        let missing: Vec<String> = self.known.present.iter().filter(|id| !there.contains(*id)).cloned().collect();
        let calls_until = self.calls_until();
        for id in missing {
            if self.must_stop() {
                return Ok(false);
            }
            // A list that was read while things moved may lack one that is there.
            if self.account.read_cms(cms, &id, false, calls_until).await?.is_some() {
                continue;
            }
            let now = self.env.clock.now();
            self.progress.done.changes.seen += 1;
            let change = self.gone(id.clone(), now);
            self.emit(&change, [Delta::Absent(id)])?;
        }
        self.progress.bin_known = true;
        Ok(true)
    }

    /// Reads a list from `after` on; how many pages of it, or `None`: the time was up.
    async fn cms_list(
        &mut self,
        cms: &CmsResource,
        query: &CmsQuery,
        mut after: Option<String>,
        mut each: impl FnMut(&mut Self, RawRecord) -> Result<()>,
    ) -> Result<Option<usize>> {
        let snapshot = matches!(self.progress.phase, Phase::Snapshot(_));
        for page_number in 1..=PAGES_MAX {
            if self.must_stop() {
                return Ok(None);
            }
            let page = self.account.list_cms(cms, *query, after.as_deref(), self.calls_until()).await?;
            for record in page.records {
                self.progress.item_id.clone_from(&record.id);
                each(self, record)?;
            }
            if snapshot {
                self.progress.content_after.clone_from(&page.after);
            }
            self.save_if_full().await?;
            match page.after {
                Some(next) if after.as_deref() != Some(next.as_str()) => after = Some(next),
                _ => return Ok(Some(page_number)),
            }
        }
        self.note(format!("{}: the list was read up to {PAGES_MAX} pages", cms.collection));
        Ok(Some(PAGES_MAX))
    }

    fn take_cms(&mut self, record: RawRecord, cms: &CmsResource) -> Result<()> {
        let id = number(&record.id);
        self.progress.done.changes.seen += 1;
        let modified = record.updated_at.or(record.created_at).map_or(0, Timestamp::as_millisecond);
        let restored = self.known.archived.get(&id).copied();
        let emitted = self.known.recent.get(&id).copied();
        if restored.is_none() && emitted.is_some_and(|emitted| emitted >= modified) {
            self.progress.done.changes.repeated += 1;
            return Ok(());
        }
        let initial = self.progress.initial.unwrap_or_default().as_millisecond();
        let created = record.created_at.map_or(i64::MIN, Timestamp::as_millisecond);
        let is_new = match restored {
            Some(Archived { told, .. }) => !told,
            None => emitted.is_none() && created >= initial && created >= self.known.horizon,
        };
        let mut learned = vec![Delta::Emitted(id, modified)];
        if restored.is_some() {
            learned.push(Delta::Unarchived(id));
        }
        if cms.deletes == Deletes::Absence {
            learned.push(Delta::Present(record.id.clone()));
        }
        let change = Change {
            operation: if is_new { Operation::Create } else { Operation::Update },
            cause: restored.map(|_| Cause::Restore),
            position: self.position_of(&record.id, record.updated_at),
            id: record.id,
            created_at: record.created_at,
            updated_at: record.updated_at,
            read_at: self.env.clock.now(),
            before: None,
            after: Some(record.object),
        };
        self.emit(&change, learned)
    }
}
