//! The drift check: what lies under a capture's output, applied, against HubSpot. Reads, and writes nothing.

use std::{collections::BTreeMap, rc::Rc};

use anyhow::{Result, bail};
use hubferry::{
    Error,
    app::App,
    capture::{
        self,
        progress::{Phase, Progress},
    },
    clock::Deadline,
    codes,
    config::Capture,
    hubspot::{
        account::Account,
        cms::CmsQuery,
        properties::SchemaParts,
        records::{RawRecord, Wanted},
        resources::{CmsResource, CrmResource, Deletes, Resource},
        scan::{Scan, ScanState},
        search::{Filter, FilterGroup, Operator, Search},
    },
    record::PropertyName,
    state::runs::decode,
};
use jiff::SignedDuration;

use super::{
    compare::{Comparison, Drift, Fate, Marks, Now},
    stored::{self, Id},
};
use crate::watch::Watch;

/// Longer than any check: a million records are listed in nine minutes.
const PATIENCE: SignedDuration = SignedDuration::from_hours(6);

/// Ids that are looked up at a time: ten calls.
const LOOKED_UP_AT_ONCE: usize = 1_000;

/// Pages of one list of content: as many as a capture reads.
const CMS_PAGES_MAX: usize = 5_000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Records whose values are compared.
    pub(crate) sample: usize,
    /// Every id is looked at.
    pub(crate) full: bool,
    /// Values are told.
    pub(crate) values: bool,
}

/// Compares.
///
/// # Errors
/// The capture has not ended a run yet; an object that cannot be read; HubSpot's errors.
pub(crate) async fn run(app: &App, capture: &Capture, wish: Wish, watch: &Watch) -> Result<Drift> {
    let progress = position(app, capture).await?;
    let marks = marks(&progress, capture);
    let output = capture::output_of(capture)?;
    let resource = Resource::parse(&capture.resource)?;
    let objects = app.env().objects.clone();
    let stored = stored::read(&*objects, &output, wish.sample, |at, of, records| {
        watch.count(&format!("objects read: {at} of {of}, {records} records"));
    })
    .await?;
    let account = app.account(&capture.hubspot)?;
    let calls_before = account.counts().total;
    let deadline = Deadline { at: app.env().clock.now().saturating_add(PATIENCE)? };
    let (objects, captured) = (stored.objects, stored.live.len() as u64);
    let mut check = Check { comparison: Comparison::new(marks, stored, wish.values), account, deadline, watch };
    let (in_hubspot, by_list) = match &resource {
        Resource::Crm(crm) => {
            let counted = if wish.full { check.list(crm).await? } else { check.count(crm).await? };
            check.sample(crm).await?;
            let absent = if wish.full { check.comparison.unmet() } else { check.unmet_of_sample() };
            check.look_up(crm, &absent).await?;
            (counted, wish.full)
        }
        Resource::Cms(cms) => (check.list_content(cms).await?, true),
    };
    watch.clear();
    let Check { comparison, account, .. } = check;
    let drift = Drift {
        job: "verify",
        name: capture.name.clone(),
        verdict: if comparison.has_drift() { "drift" } else { "none" },
        output: output.to_string(),
        position: serde_json::to_value(progress.position())?,
        objects,
        captured,
        in_hubspot,
        counted_by: if by_list { "list" } else { "search" },
        changed_since: comparison.changed_since(),
        awaited: comparison.awaited(),
        sampled: comparison.sampled,
        computed: comparison.computed,
        before_start: comparison.before_start,
        calls: account.counts().total.saturating_sub(calls_before),
        advice: advice(&comparison, capture, by_list, in_hubspot),
        missing: comparison.missing,
        spare: comparison.spare,
        differing: comparison.differing,
    };
    Ok(drift)
}

/// How far the capture is: by its open run, or by the last that ended.
async fn position(app: &App, capture: &Capture) -> Result<Progress> {
    let name = &capture.name;
    let nothing = || {
        let message = format!("capture `{name}` has no position here: it has not run, or its state is elsewhere");
        let hint = "Run `hubferry capture NAME` first, or name its table in HUBFERRY_TABLE.";
        Error::invalid(codes::NAME_UNKNOWN, message).with_hint(hint)
    };
    let stream = app.runs().stream("capture", name).await?.ok_or_else(nothing)?;
    let run = app.runs().get(&stream.run_id).await?;
    let open = run.filter(|run| run.outcome.is_none() && !run.progress.is_empty());
    let (text, item) = match &open {
        Some(run) => (run.progress.as_str(), format!("run#{}", run.run_id)),
        None => (stream.carry.as_str(), format!("capture#{name}")),
    };
    if text.is_empty() {
        return Err(nothing().into());
    }
    let progress: Progress = decode(text, &item)?;
    if matches!(progress.phase, Phase::Snapshot(_)) || progress.covered.is_none() && capture.snapshot {
        bail!(
            "capture `{name}` is still writing its snapshot: there is nothing to compare yet; `hubferry capture {name}` ends it"
        );
    }
    Ok(progress)
}

fn marks(progress: &Progress, capture: &Capture) -> Marks {
    let initial = progress.initial.unwrap_or_default();
    let covered = progress.covered.unwrap_or(initial);
    // The bin is read again when it is due: about as long before it was read last.
    let wait = progress.bin_due.map(|due| due.duration_since(covered)).unwrap_or_default();
    let bin = covered.checked_sub(wait.max(SignedDuration::ZERO)).unwrap_or(covered);
    Marks {
        initial,
        covered,
        trailing: progress.trailing.map_or(covered, |at| at.min(covered)),
        bin,
        snapshot: capture.snapshot,
        deletes: capture.deletes,
    }
}

fn advice(comparison: &Comparison, capture: &Capture, by_list: bool, in_hubspot: u64) -> Vec<String> {
    let name = &capture.name;
    let mut advice = Vec::new();
    if comparison.changed_since() + comparison.awaited() > 0 {
        advice.push(format!("`hubferry capture {name}`, or the schedule, brings what changed since."));
    }
    let captured = comparison.stored().live.len() as u64;
    if !by_list && comparison.missing.count > 0 {
        advice.push(format!("`hubferry capture {name} --verify --full` names the records."));
    } else if !by_list && captured > in_hubspot {
        let more = captured - in_hubspot;
        advice.push(format!(
            "{more} more are captured than HubSpot's index counts: archived since, or spare; `--full` tells."
        ));
    }
    if comparison.has_drift() {
        let lost = "Were objects deleted or changed under the output? Restore them from a version of the bucket.";
        advice.push(lost.to_owned());
        advice.push(format!("Else empty the output, then `hubferry capture {name} --restart`."));
    }
    advice
}

struct Check<'a> {
    comparison: Comparison,
    account: Rc<Account>,
    deadline: Deadline,
    watch: &'a Watch,
}

impl Check<'_> {
    /// Looks at every id; how many there are.
    async fn list(&mut self, crm: &CrmResource) -> Result<u64> {
        let mut scan = Scan::new(
            self.account.clone(),
            crm.object.clone(),
            Wanted::ids(false),
            ScanState::default(),
            self.deadline,
        );
        let mut count = 0;
        while let Some(page) = scan.next().await? {
            for record in &page.records {
                self.comparison.listed(&Id::new(&record.id), now(record));
            }
            count += page.records.len() as u64;
            scan.covered(page.token);
            self.watch.count(&format!("ids listed: {count}"));
        }
        Ok(count)
    }

    /// Content is little, and cannot be read by id many at a time: all of it is listed, and versions are compared.
    async fn list_content(&mut self, cms: &CmsResource) -> Result<u64> {
        let live = self.content(cms, CmsQuery::default()).await?;
        for (id, record) in &live {
            self.comparison.listed(id, now(record));
        }
        let deleted = match cms.deletes {
            Deletes::Absence => BTreeMap::new(),
            Deletes::Archived => self.content(cms, CmsQuery { archived: true, ..CmsQuery::default() }).await?,
        };
        for id in self.comparison.unmet() {
            let fate = match deleted.get(&id).and_then(|record| record.archived_at) {
                Some(at) => Fate::Archived(at),
                None if cms.deletes == Deletes::Absence => Fate::Undated,
                None => Fate::Gone,
            };
            self.comparison.absent(&id, fate);
        }
        Ok(live.len() as u64)
    }

    async fn content(&self, cms: &CmsResource, query: CmsQuery) -> Result<BTreeMap<Id, RawRecord>> {
        let mut found = BTreeMap::new();
        let mut after: Option<String> = None;
        for _ in 0..CMS_PAGES_MAX {
            let page = self.account.list_cms(cms, query, after.as_deref(), self.deadline).await?;
            found.extend(page.records.into_iter().map(|record| (Id::new(&record.id), record)));
            after = page.after;
            if after.is_none() {
                return Ok(found);
            }
        }
        bail!("{} has more than {CMS_PAGES_MAX} pages", cms.collection)
    }

    /// Has HubSpot's index count.
    async fn count(&mut self, crm: &CrmResource) -> Result<u64> {
        let search = |filters: Vec<Filter>| Search {
            filter_groups: if filters.is_empty() { Vec::new() } else { vec![FilterGroup { filters }] },
            sorts: Vec::new(),
            properties: vec![PropertyName::from("hs_object_id")],
            limit: 1,
            after: None,
        };
        self.watch.count("counting");
        let all = self.account.search(&crm.object, &search(Vec::new()), self.deadline).await?.total;
        let covered = self.comparison.marks().covered.as_millisecond().to_string();
        let before = vec![Filter::new(crm.created_property(), Operator::Lt, covered)];
        let before = self.account.search(&crm.object, &search(before), self.deadline).await?.total;
        self.comparison.counted(before);
        Ok(all)
    }

    /// Compares the values of the sample.
    async fn sample(&mut self, crm: &CrmResource) -> Result<()> {
        let schema = self.account.schema(&crm.object, SchemaParts::default(), self.deadline).await?;
        let sample = &self.comparison.stored().sample;
        let ids: Vec<Id> = sample.keys().cloned().collect();
        let names: std::collections::BTreeSet<&str> =
            sample.values().flat_map(|values| values.keys().map(String::as_str)).collect();
        let known = names.into_iter().filter(|name| schema.properties.contains_key(*name));
        let mut properties: Vec<PropertyName> = known.map(PropertyName::from).collect();
        if properties.is_empty() {
            properties.push(PropertyName::from("hs_object_id"));
        }
        let wanted = Wanted { properties, history: false, archived: false };
        for (number, lot) in ids.chunks(LOOKED_UP_AT_ONCE).enumerate() {
            self.watch.count(&format!("values compared: {} of {}", number * LOOKED_UP_AT_ONCE, ids.len()));
            let texts: Vec<String> = lot.iter().map(Id::to_string).collect();
            let read = self.account.read_records(&crm.object, &texts, &wanted, self.deadline).await?;
            for (id, text) in lot.iter().zip(&texts) {
                let Some(record) = read.get(text).filter(|record| record.id == *text) else { continue };
                let properties = record.object.get("properties");
                let value = |name: &str| {
                    let text = properties.and_then(|properties| properties.get(name)?.as_str());
                    schema.properties.contains_key(name).then_some(text)
                };
                let is_computed = |name: &str| schema.properties.get(name).is_some_and(|property| property.calculated);
                self.comparison.sampled(id, now(record), value, is_computed);
            }
        }
        Ok(())
    }

    /// Records of the sample that were not there to be read.
    fn unmet_of_sample(&self) -> Vec<Id> {
        let mut unmet = self.comparison.unmet();
        unmet.retain(|id| self.comparison.stored().sample.contains_key(id));
        unmet
    }

    /// Finds out what became of captured records that were not seen.
    async fn look_up(&mut self, crm: &CrmResource, ids: &[Id]) -> Result<()> {
        for lot in ids.chunks(LOOKED_UP_AT_ONCE) {
            self.watch.count("looking up what HubSpot does not list");
            let texts: Vec<String> = lot.iter().map(Id::to_string).collect();
            let alive = self.account.read_records(&crm.object, &texts, &Wanted::ids(false), self.deadline).await?;
            let archived = self.account.read_records(&crm.object, &texts, &Wanted::ids(true), self.deadline).await?;
            for (id, text) in lot.iter().zip(&texts) {
                let fate = match (alive.get(text), archived.get(text)) {
                    (Some(record), _) if record.id == *text => Fate::Lives(now(record)),
                    (_, Some(record)) => Fate::Archived(record.archived_at.unwrap_or_default()),
                    (Some(winner), None) => Fate::Merged(winner.updated_at),
                    (None, None) => Fate::Gone,
                };
                self.comparison.absent(id, fate);
            }
        }
        Ok(())
    }
}

fn now(record: &RawRecord) -> Now {
    Now { updated_at: record.updated_at.or(record.created_at) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_bin_is_known_to_as_long_before_the_position_as_it_is_due_after_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let progress = Progress {
            initial: Some(at(100)),
            covered: Some(at(1_000)),
            trailing: Some(at(900)),
            bin_due: Some(at(1_060)),
            ..Progress::default()
        };
        let yaml = "version: 1\nhubspot: { default: { secret: s } }\ncaptures: [{ name: c, resource: crm.contacts, output: s3://b/c/ }]\n";
        let config = hubferry::config::load::parse(yaml, "test").unwrap();
        let capture = &config.captures[0];
        let found = marks(&progress, capture);
        assert_eq!((found.covered, found.trailing, found.bin), (at(1_000), at(900), at(940)));
        let overdue = Progress { bin_due: Some(at(1)), trailing: None, ..progress };
        let found = marks(&overdue, capture);
        assert_eq!((found.trailing, found.bin), (at(1_000), at(1_000)));
    }
}
