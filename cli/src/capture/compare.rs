//! What consumers have against what HubSpot has: pure decisions.
//!
//! A difference is *drift* only if the capture should have told it by now. What changed after its position is told by its next run
//! (`changed since`); what changed within the trailing pass's reach, or was archived since the recycle bin was last read, may still come
//! (`awaited`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::stored::{Id, Stored, Values};

/// Records that are named, of each kind.
pub(crate) const NAMED_MAX: usize = 20;

/// How far the capture is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks {
    /// Its start.
    pub(crate) initial: Timestamp,
    /// Changes before this are captured.
    pub(crate) covered: Timestamp,
    /// And before this, those that the index showed late.
    pub(crate) trailing: Timestamp,
    /// And before this, what was archived.
    pub(crate) bin: Timestamp,
    /// It began with everything that existed.
    pub(crate) snapshot: bool,
    /// Deletes are captured.
    pub(crate) deletes: bool,
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Drift,
    Awaited,
    Since,
}

impl Marks {
    fn judge(&self, at: Option<Timestamp>, known_to: Timestamp) -> Verdict {
        match at {
            Some(at) if at >= self.covered => Verdict::Since,
            Some(at) if at >= known_to => Verdict::Awaited,
            _ => Verdict::Drift,
        }
    }
}

/// A record as HubSpot has it now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) updated_at: Option<Timestamp>,
}

/// What became of a captured record that HubSpot does not list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It was listed by nobody, but is there.
    Lives(Now),
    /// In the recycle bin, since then.
    Archived(Timestamp),
    /// Part of another record, which was changed last then.
    Merged(Option<Timestamp>),
    /// Gone without a trace.
    Gone,
    /// Gone, and HubSpot does not tell when.
    Undated,
}

/// Records of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Found {
    /// How many.
    pub(crate) count: u64,
    /// The first of them; none where only counts were compared.
    pub(crate) ids: Vec<String>,
}

impl Found {
    fn add(&mut self, id: &Id) {
        self.count += 1;
        if self.ids.len() < NAMED_MAX {
            self.ids.push(id.to_string());
        }
    }
}

/// One record that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Difference {
    pub(crate) id: String,
    /// What differs; empty where only the versions were compared, and the captured one is older.
    pub(crate) properties: Vec<String>,
    /// By property: captured, in HubSpot. Only where values were asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) values: BTreeMap<String, [Option<String>; 2]>,
}

/// Records that differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Differing {
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) records: Vec<Difference>,
    /// By property, how many records of the sample differ in it.
    pub(crate) by_property: BTreeMap<String, u64>,
}

/// The comparison, growing.
pub(crate) struct Comparison {
    marks: Marks,
    stored: Stored,
    with_values: bool,
    /// Records that were met in HubSpot and are not captured.
    met: BTreeSet<Id>,
    differing_ids: BTreeSet<Id>,
    since_ids: BTreeSet<Id>,
    awaited_ids: BTreeSet<Id>,
    pub(crate) missing: Found,
    pub(crate) spare: Found,
    pub(crate) differing: Differing,
    /// Records of the sample whose values were compared.
    pub(crate) sampled: u64,
    /// Values that HubSpot computes and that moved without a change of the record: no drift.
    pub(crate) computed: u64,
    /// Records that HubSpot has from before the start of a capture without a snapshot.
    pub(crate) before_start: u64,
}

impl Comparison {
    pub(crate) fn new(marks: Marks, stored: Stored, with_values: bool) -> Self {
        Self {
            marks,
            stored,
            with_values,
            met: BTreeSet::new(),
            differing_ids: BTreeSet::new(),
            since_ids: BTreeSet::new(),
            awaited_ids: BTreeSet::new(),
            missing: Found::default(),
            spare: Found::default(),
            differing: Differing::default(),
            sampled: 0,
            computed: 0,
            before_start: 0,
        }
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Records that changed since.
    pub(crate) fn changed_since(&self) -> u64 {
        self.since_ids.len() as u64
    }

    /// Records whose changes may still come.
    pub(crate) fn awaited(&self) -> u64 {
        self.awaited_ids.len() as u64
    }

    /// Notes a verdict that is no drift; whether it is none.
    fn excused(&mut self, id: &Id, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Drift => return false,
            Verdict::Awaited => self.awaited_ids.insert(id.clone()),
            Verdict::Since => self.since_ids.insert(id.clone()),
        };
        true
    }

    /// A record that HubSpot lists. A list may show one twice.
    pub(crate) fn listed(&mut self, id: &Id, now: Now) {
        let Some(captured) = self.stored.live.get_mut(id) else {
            let verdict = self.marks.judge(now.updated_at, self.marks.trailing);
            if self.met.insert(id.clone()) && !self.excused(id, verdict) {
                if !self.marks.snapshot && now.updated_at.is_some_and(|at| at < self.marks.initial) {
                    self.before_start += 1;
                } else if self.stored.deleted.contains(id) {
                    // A restore does not move the date: when it was cannot be told.
                    self.awaited_ids.insert(id.clone());
                } else {
                    self.missing.add(id);
                }
            }
            return;
        };
        captured.meet();
        let captured = captured.at();
        let is_older = now.updated_at.is_some_and(|at| at.as_millisecond() > captured);
        if is_older && !self.excused(id, self.marks.judge(now.updated_at, self.marks.trailing)) {
            self.differs(id, Vec::new(), BTreeMap::new());
        }
    }

    /// A record of the sample, read anew. `value` gives HubSpot's value of a property; `None` for a property that HubSpot does not have
    /// any more. `is_computed`: HubSpot computes it.
    pub(crate) fn sampled<'a>(
        &mut self,
        id: &Id,
        now: Now,
        value: impl Fn(&str) -> Option<Option<&'a str>>,
        is_computed: impl Fn(&str) -> bool,
    ) {
        let Some(captured) = self.stored.sample.get(id) else { return };
        self.sampled += 1;
        let differing = differing(captured, value);
        let version = self.stored.live.get_mut(id).map(|version| {
            version.meet();
            version.at()
        });
        // The version of a restore is younger than the record's own.
        let is_changed = now.updated_at.map(Timestamp::as_millisecond) > version;
        let mut names = Vec::new();
        let mut values = BTreeMap::new();
        for (name, pair) in differing {
            if !is_changed && is_computed(&name) {
                self.computed += 1;
                continue;
            }
            if self.with_values {
                values.insert(name.clone(), pair);
            }
            names.push(name);
        }
        if names.is_empty() {
            return;
        }
        // The same version with other values is wrong, whenever it was made.
        let verdict = match is_changed {
            true => self.marks.judge(now.updated_at, self.marks.trailing),
            false => Verdict::Drift,
        };
        if !self.excused(id, verdict) {
            self.differs(id, names, values);
        }
    }

    fn differs(&mut self, id: &Id, properties: Vec<String>, values: BTreeMap<String, [Option<String>; 2]>) {
        for name in &properties {
            *self.differing.by_property.entry(name.clone()).or_default() += 1;
        }
        let text = id.to_string();
        if self.differing_ids.insert(id.clone()) {
            self.differing.count += 1;
            if self.differing.records.len() < NAMED_MAX {
                self.differing.records.push(Difference { id: text, properties, values });
            }
        } else if let Some(known) = self.differing.records.iter_mut().find(|known| known.id == text)
            && known.properties.is_empty()
        {
            (known.properties, known.values) = (properties, values);
        }
    }

    /// Captured records that were not met, after everything was listed.
    pub(crate) fn unmet(&self) -> Vec<Id> {
        self.stored.live.iter().filter(|(_, version)| !version.is_met()).map(|(id, _)| id.clone()).collect()
    }

    /// A captured record that HubSpot does not show.
    pub(crate) fn absent(&mut self, id: &Id, fate: Fate) {
        let verdict = match fate {
            Fate::Lives(now) => return self.listed(id, now),
            _ if !self.marks.deletes => return,
            Fate::Archived(at) => self.marks.judge(Some(at), self.marks.bin),
            Fate::Merged(at) => self.marks.judge(at, self.marks.trailing),
            Fate::Gone => Verdict::Drift,
            Fate::Undated => Verdict::Awaited,
        };
        if !self.excused(id, verdict) {
            self.spare.add(id);
        }
    }

    /// Only counts were compared: HubSpot has `count` records from before the position, if its index is right.
    pub(crate) fn counted(&mut self, count: u64) {
        let captured = self.stored.live.len() as u64;
        if self.marks.snapshot && count > captured {
            self.missing.count = count - captured;
        }
    }

    /// Whether anything is wrong.
    pub(crate) fn has_drift(&self) -> bool {
        self.missing.count + self.spare.count + self.differing.count > 0
    }
}

/// Properties that differ, each with both values.
fn differing<'a>(
    captured: &Values,
    value: impl Fn(&str) -> Option<Option<&'a str>>,
) -> Vec<(String, [Option<String>; 2])> {
    let mut differing = Vec::new();
    for (name, cell) in captured {
        let Some(now) = value(name) else { continue };
        let is_same = match cell {
            Some(cell) => cell.is(now),
            None => now.unwrap_or_default().is_empty(),
        };
        if !is_same {
            differing.push((name.clone(), [cell.as_ref().map(super::stored::Cell::text), now.map(str::to_owned)]));
        }
    }
    differing
}

/// What the check found, as `--json` prints it. Stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Drift {
    pub(crate) job: &'static str,
    pub(crate) name: String,
    /// `none`, `drift`.
    pub(crate) verdict: &'static str,
    pub(crate) output: String,
    pub(crate) position: Value,
    /// Objects that were read.
    pub(crate) objects: u64,
    /// Records that consumers have.
    pub(crate) captured: u64,
    /// Records that HubSpot has.
    pub(crate) in_hubspot: u64,
    /// `list`: every id was looked at. `search`: HubSpot's index counted them, and trails.
    pub(crate) counted_by: &'static str,
    pub(crate) missing: Found,
    pub(crate) spare: Found,
    pub(crate) differing: Differing,
    pub(crate) changed_since: u64,
    pub(crate) awaited: u64,
    /// Records whose values were compared.
    pub(crate) sampled: u64,
    /// Values that HubSpot computed anew without changing the record; no drift.
    pub(crate) computed: u64,
    /// Of a capture without a snapshot: records from before its start.
    pub(crate) before_start: u64,
    pub(crate) calls: u64,
    /// What to do.
    pub(crate) advice: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::stored::{Cell, Version};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn now(second: i64) -> Now {
        Now { updated_at: Some(at(second)) }
    }

    /// Started at 100, covered up to 1,000; 900 for what comes late, 950 for the recycle bin.
    fn comparison(live: &[(u64, i64)]) -> Comparison {
        let mut stored = Stored::new(10);
        for (id, second) in live {
            stored.live.insert(Id::Number(*id), Version::new(Some(at(*second))));
            let values = [("email".to_owned(), Some(Cell::Text(format!("{id}@x.org")))), ("city".to_owned(), None)];
            stored.sample.insert(Id::Number(*id), values.into());
        }
        let marks = Marks {
            initial: at(100),
            covered: at(1_000),
            trailing: at(900),
            bin: at(950),
            snapshot: true,
            deletes: true,
        };
        Comparison::new(marks, stored, false)
    }

    #[test]
    fn what_equals_is_no_difference() {
        let mut all = comparison(&[(1, 50), (2, 500)]);
        all.listed(&Id::Number(1), now(50));
        all.listed(&Id::Number(2), now(500));
        let value = |name: &str| Some((name == "email").then_some("1@x.org"));
        all.sampled(&Id::Number(1), now(50), value, |_| false);
        assert!(!all.has_drift() && all.unmet().is_empty());
        assert_eq!((all.changed_since(), all.awaited(), all.sampled), (0, 0, 1));
    }

    #[test]
    fn a_record_that_is_missing_is_drift_unless_it_changed_since() {
        let mut all = comparison(&[]);
        for (id, second) in [(1, 50), (2, 899), (3, 900), (4, 999), (5, 1_000)] {
            all.listed(&Id::Number(id), now(second));
            all.listed(&Id::Number(id), now(second));
        }
        assert_eq!(
            all.missing,
            Found { count: 2, ids: vec!["1".into(), "2".into()] },
            "a list that shows one twice too"
        );
        assert_eq!((all.changed_since(), all.awaited()), (1, 2));
    }

    #[test]
    fn a_restored_record_is_awaited_because_a_restore_has_no_date() {
        let mut all = comparison(&[]);
        all.stored.deleted.insert(Id::Number(1));
        all.listed(&Id::Number(1), now(50));
        assert_eq!((all.missing.count, all.awaited()), (0, 1));
    }

    #[test]
    fn a_capture_without_a_snapshot_lacks_nothing_from_before_its_start() {
        let mut all = comparison(&[]);
        all.marks.snapshot = false;
        all.listed(&Id::Number(1), now(99));
        all.listed(&Id::Number(2), now(100));
        all.counted(7);
        assert_eq!((all.missing.count, all.before_start), (1, 1));
    }

    #[test]
    fn an_older_version_is_drift_and_the_sample_names_its_properties() {
        let mut all = comparison(&[(1, 50), (2, 50), (3, 50)]);
        all.listed(&Id::Number(1), now(60));
        all.listed(&Id::Number(2), now(1_500));
        all.listed(&Id::Number(3), now(60));
        all.sampled(&Id::Number(1), now(60), |_| Some(Some("other")), |_| true);
        all.sampled(&Id::Number(2), now(1_500), |_| Some(Some("other")), |_| true);
        let records = &all.differing.records;
        assert_eq!(all.differing.count, 2);
        assert_eq!(records[0].properties, ["city", "email"]);
        assert!(records[0].values.is_empty(), "values are not told unasked");
        assert!(records[1].properties.is_empty());
        assert_eq!(all.changed_since(), 1);
    }

    #[test]
    fn other_values_in_the_same_version_are_drift_unless_hubspot_computes_them_or_has_no_such_property_any_more() {
        let mut all = comparison(&[(1, 1_500), (2, 50), (3, 50)]);
        let value = |name: &str| Some((name == "email").then_some("changed"));
        all.sampled(&Id::Number(1), now(1_500), value, |_| false);
        all.sampled(&Id::Number(2), now(50), value, |name| name == "email");
        all.sampled(&Id::Number(3), now(50), |_| None, |_| false);
        assert_eq!((all.differing.count, all.computed, all.sampled), (1, 1, 3));
        assert_eq!(all.differing.by_property, BTreeMap::from([("email".to_owned(), 1)]));
    }

    #[test]
    fn a_spare_record_is_drift_unless_it_went_since() {
        let ids = [1, 2, 3, 4, 5, 6, 7];
        let mut all = comparison(&ids.map(|id| (id, 50)));
        let fates = [
            Fate::Archived(at(949)),
            Fate::Archived(at(950)),
            Fate::Archived(at(1_000)),
            Fate::Merged(Some(at(899))),
            Fate::Merged(Some(at(2_000))),
            Fate::Gone,
            Fate::Lives(now(50)),
        ];
        assert_eq!(all.unmet().len(), 7);
        for (id, fate) in ids.into_iter().zip(fates) {
            all.absent(&Id::Number(id), fate);
        }
        assert_eq!(all.spare.ids, ["1", "4", "6"]);
        assert_eq!((all.changed_since(), all.awaited()), (2, 1));
        let mut kept = comparison(&[(1, 50)]);
        kept.marks.deletes = false;
        kept.absent(&Id::Number(1), Fate::Archived(at(1)));
        assert!(!kept.has_drift(), "deletes are not captured");
    }

    #[test]
    fn counts_alone_tell_what_is_missing() {
        let mut all = comparison(&[(1, 50), (2, 50)]);
        all.counted(2);
        assert!(!all.has_drift());
        all.counted(5);
        assert_eq!(all.missing, Found { count: 3, ids: Vec::new() });
        let mut more = comparison(&[(1, 50), (2, 50)]);
        more.counted(1);
        assert!(!more.has_drift(), "archived since, perhaps");
    }
}
