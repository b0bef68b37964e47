//! What is to be done about one field, and about one pair of records: a three-way merge over two shadows. Pure.
//!
//! `salesforce` and `hubspot` are what the two hold now, the shadows what each held when they were last in step. Neither "who changed it
//! last" nor a time decides: a value that differs from its shadow was changed, whoever did it. What our own writes left is in the shadows,
//! so an echo is no change; what an automation made of them is one.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fields::{FieldFault, Pair},
    model::{Canon, FieldState, FieldWrite, Intent, Link, ReviewKind, Side, WRITES_KEPT, hash_of},
    values::Seen,
};
use crate::{
    config::{OnConflict, SyncRule},
    mutate::{self, Bug},
};

/// Runs over which the writes of a field are compared.
const FLIP_TICKS: u64 = 6;

/// How often one value is written to one side within [`FLIP_TICKS`] before it is taken for a fight between two automations.
const FLIP_WRITES: usize = 3;

/// Two changes that are less apart have no order: clocks differ, and Salesforce's tells whole seconds.
pub const LATEST_GUARD_MS: i64 = 60_000;

/// A record as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighted {
    /// By field key. What is absent could not be seen: that is not blank.
    pub fields: BTreeMap<String, Seen>,
    /// When anything changed it last, by its system's clock, in milliseconds.
    pub modified: i64,
    /// When a person or an app changed it last; Salesforce's own processes move the other one too.
    pub edited: i64,
}

impl Sighted {
    pub(super) fn canon(&self, key: &str) -> Option<&Canon> {
        self.fields.get(key).map(|seen| &seen.canon)
    }
}

/// A value to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<V> {
    /// Which pair's, by its place.
    pub pair: usize,
    /// As the side takes it.
    pub value: V,
    /// As it will read back.
    pub canon: Canon,
    /// What is there.
    pub old: Canon,
    /// Why, for people.
    pub why: &'static str,
}

impl<V> Change<V> {
    /// It takes a value away.
    pub fn blanks(&self) -> bool {
        self.canon.is_none() && self.old.is_some()
    }
}

/// A field that a person has to decide about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Which pair's.
    pub pair: usize,
    /// Why.
    pub kind: ReviewKind,
}

/// A value that cannot be written as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Unwritable {
    /// Which pair's.
    pub pair: usize,
    /// Where it cannot be written.
    pub side: Side,
    /// Why.
    pub fault: FieldFault,
    /// [`hash_of`] the value.
    pub value: u64,
    /// Found before, and unchanged since.
    pub known: bool,
}

/// What is to be done about a pair of records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// To write in HubSpot.
    pub to_hubspot: Vec<Change<String>>,
    /// To write in Salesforce.
    pub to_salesforce: Vec<Change<serde_json::Value>>,
    /// Fields that wait for a person, with those that do already.
    pub freeze: Vec<Freeze>,
    /// Fields that waited and have been settled on both sides: ids of reviews.
    pub settled: Vec<String>,
    /// Values that cannot be written.
    pub unwritable: Vec<Unwritable>,
    /// Pairs that are decided by which change is later, which is not known yet.
    pub undated: Vec<usize>,
}

impl Decision {
    /// Nothing is to be written.
    pub fn is_quiet(&self) -> bool {
        self.to_hubspot.is_empty() && self.to_salesforce.is_empty()
    }
}

/// When a field was last changed on either side, in milliseconds of each system's clock: for `on_conflict: latest`.
pub type Dates = BTreeMap<usize, (i64, i64)>;

/// Which way a value goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Neither,
    To(Side),
    Conflict,
}

/// Where a value goes by the rule. `changed`: on (Salesforce, HubSpot) since they were in step; `None` if they never were.
fn way(rule: SyncRule, changed: Option<(bool, bool)>, salesforce_blank: bool, hubspot_blank: bool) -> Way {
    use Side::{Hubspot, Salesforce};
    if changed == Some((false, false)) {
        // In step, though not equal: one of them could not hold what the other has.
        return Way::Neither;
    }
    match rule {
        SyncRule::DontSync => Way::Neither,
        SyncRule::AlwaysSalesforce => Way::To(Hubspot),
        SyncRule::AlwaysHubspot => Way::To(Salesforce),
        SyncRule::TwoWay => match changed {
            Some((true, false)) => Way::To(Hubspot),
            Some((false, true)) => Way::To(Salesforce),
            Some(_) => Way::Conflict,
            None if salesforce_blank => Way::To(Salesforce),
            None if hubspot_blank => Way::To(Hubspot),
            None => Way::Conflict,
        },
        // HubSpot's definition: Salesforce's value, and its being cleared, go to HubSpot; HubSpot's goes to Salesforce while that is blank.
        SyncRule::PreferSalesforceUnlessBlank => match changed {
            Some((true, false)) => Way::To(Hubspot),
            _ if salesforce_blank => Way::To(Salesforce),
            _ => Way::To(Hubspot),
        },
        SyncRule::PreferHubspotUnlessBlank => match changed {
            Some((false, true)) => Way::To(Salesforce),
            _ if hubspot_blank => Way::To(Hubspot),
            _ => Way::To(Salesforce),
        },
    }
}

/// Why a value goes where it goes, for people.
fn why(rule: SyncRule, changed: Option<(bool, bool)>, to: Side) -> &'static str {
    match (changed, to) {
        (None, _) => "linked for the first time",
        (Some((true, false)), Side::Hubspot) => "changed in Salesforce",
        (Some((false, true)), Side::Salesforce) => "changed in HubSpot",
        (Some((true, true)), _) if rule == SyncRule::TwoWay => "changed on both sides; on_conflict decides",
        (Some((true, true)), _) => "changed on both sides; the rule decides",
        _ => "changed against the rule, put back",
    }
}

/// Takes the writes of an intent that took place for granted: what they wrote is what the two agreed on.
///
/// A process died after it had stored the intent. Whether the write took place shows in the record: it holds one of the values. Or somebody has
/// taken them back since: of HubSpot its history tells (`stood`: the fields by key). A Salesforce record was then changed, and nothing that we see of
/// it differs from before; but the same is seen where the write never took place and somebody changed what is not synced. There the field
/// counts as changed on both sides. What was written one by one is settled one by one.
pub fn settle_intent(
    link: &mut Link,
    pairs: &[Pair],
    hubspot: &Sighted,
    salesforce: &Sighted,
    stood: &BTreeSet<String>,
) {
    let Some(intent) = link.intent.take() else { return };
    for (side, written, modified) in [
        (Side::Hubspot, &intent.hubspot, intent.hubspot_modified),
        (Side::Salesforce, &intent.salesforce, intent.salesforce_modified),
    ] {
        let record = if side == Side::Hubspot { hubspot } else { salesforce };
        let untouched = |(key, seen): (&String, &Seen)| shadow(link, side, key) == Some(&seen.canon);
        let taken_back = match side {
            Side::Hubspot => !stood.is_empty(),
            Side::Salesforce => record.edited > modified && record.fields.iter().all(untouched),
        };
        let shows = shows_any(link, side, written, record);
        if written.is_empty() || !(shows || taken_back) {
            continue;
        }
        let is_doubtful = side == Side::Salesforce && !shows;
        for (key, value) in written {
            if side == Side::Hubspot && intent.one_by_one && record.canon(key) != Some(value) && !stood.contains(key) {
                continue;
            }
            let other = if side == Side::Hubspot { salesforce } else { hubspot };
            let pair = pairs.iter().find(|pair| pair.key == *key);
            // Where the two cannot hold the same, what the other holds is what this came from.
            let same = pair.zip(other.fields.get(key)).is_some_and(|(pair, seen)| reads_back(pair, side, seen, value));
            let of_other = if same { other.canon(key).cloned().flatten() } else { value.clone() };
            let state = link.fields.entry(key.clone()).or_default();
            if is_doubtful {
                // HubSpot's edit stays one, and Salesforce's may be one: the rule decides, or a person. Where the two were never in step, it is
                // decided so anyway.
                if !state.new {
                    state.salesforce.clone_from(value);
                }
                continue;
            }
            state.new = false;
            match side {
                Side::Hubspot => (state.hubspot, state.salesforce) = (value.clone(), of_other),
                Side::Salesforce => (state.salesforce, state.hubspot) = (value.clone(), of_other),
            }
        }
    }
}

fn shadow<'l>(link: &'l Link, side: Side, key: &str) -> Option<&'l Canon> {
    let state = link.fields.get(key).filter(|state| !state.new)?;
    Some(if side == Side::Hubspot { &state.hubspot } else { &state.salesforce })
}

/// Whether a record holds one of the values that were to be written, and did not before.
pub fn shows_any(link: &Link, side: Side, written: &BTreeMap<String, Canon>, record: &Sighted) -> bool {
    written.iter().any(|(key, value)| record.canon(key) == Some(value) && shadow(link, side, key) != Some(value))
}

/// Whether `seen` on the other side would be written on `side` as `canon`.
fn reads_back(pair: &Pair, side: Side, seen: &Seen, canon: &Canon) -> bool {
    let written = match side {
        Side::Hubspot => pair.to_hubspot(seen).map(|(_, canon)| canon),
        Side::Salesforce => pair.to_salesforce(seen).map(|(_, canon)| canon),
    };
    written.is_ok_and(|written| written == *canon)
}

/// Merges the two records, field by field. `link.fields` is brought up to date where the two are in step; what is to be written is returned,
/// and becomes the shadow when it was ([`landed`]). `kind_of` tells why a field waits, by its review's id; `tick` counts runs.
pub fn decide(
    link: &mut Link,
    pairs: &[Pair],
    hubspot: &Sighted,
    salesforce: &Sighted,
    dates: &Dates,
    kind_of: impl Fn(&str) -> ReviewKind,
    tick: u64,
) -> Decision {
    let mut decision = Decision::default();
    for (at, pair) in pairs.iter().enumerate() {
        let (Some(ours), Some(theirs)) = (hubspot.fields.get(&pair.key), salesforce.fields.get(&pair.key)) else {
            continue;
        };
        let state =
            link.fields.entry(pair.key.clone()).or_insert_with(|| FieldState { new: true, ..FieldState::default() });
        let in_step = ours.canon == theirs.canon
            || (ours.canon.is_some() && reads_back(pair, Side::Salesforce, ours, &theirs.canon))
            || (theirs.canon.is_some() && reads_back(pair, Side::Hubspot, theirs, &ours.canon));
        if in_step {
            decision.settled.extend(state.frozen.take());
            state.hubspot.clone_from(&ours.canon);
            state.salesforce.clone_from(&theirs.canon);
            (state.new, state.refused) = (false, None);
            continue;
        }
        let changed = (!state.new).then(|| (theirs.canon != state.salesforce, ours.canon != state.hubspot));
        let changed =
            changed.map(|(one, other)| if mutate::on(Bug::MergeReversed) { (other, one) } else { (one, other) });
        let is_blank = |canon: &Canon| canon.is_none() && !mutate::on(Bug::BlankOverwrites);
        let way = way(pair.rule, changed, is_blank(&theirs.canon), is_blank(&ours.canon));
        if let Some(review) = &state.frozen {
            let kind = kind_of(review);
            if kind != ReviewKind::Conflict || way == Way::Conflict {
                // What is shown is brought up to date.
                decision.freeze.push(Freeze { pair: at, kind });
                continue;
            }
            // One side has taken its change back: there is no conflict any more.
            decision.settled.extend(state.frozen.take());
        }
        let to = match way {
            Way::Neither => continue,
            Way::To(side) => side,
            Way::Conflict => match (pair.on_conflict, dates.get(&at)) {
                (OnConflict::Salesforce, _) => Side::Hubspot,
                (OnConflict::Hubspot, _) => Side::Salesforce,
                (OnConflict::Latest, None) => {
                    decision.undated.push(at);
                    continue;
                }
                (OnConflict::Latest, Some((hubspot, salesforce))) if (hubspot - salesforce).abs() > LATEST_GUARD_MS => {
                    if hubspot > salesforce {
                        Side::Salesforce
                    } else {
                        Side::Hubspot
                    }
                }
                (OnConflict::Review | OnConflict::Latest, _) => {
                    decision.freeze.push(Freeze { pair: at, kind: ReviewKind::Conflict });
                    continue;
                }
            },
        };
        let why = why(pair.rule, changed, to);
        write(&mut decision, state, at, pair, to, ours, theirs, tick, why);
    }
    decision
}

/// Adds what carries a value to `to`, unless it is refused, or fought over.
#[expect(clippy::too_many_arguments, reason = "all of one field")]
fn write(
    decision: &mut Decision,
    state: &mut FieldState,
    at: usize,
    pair: &Pair,
    to: Side,
    ours: &Seen,
    theirs: &Seen,
    tick: u64,
    why: &'static str,
) {
    let writable = match to {
        Side::Hubspot => pair.writable_in_hubspot,
        Side::Salesforce => pair.writable_in_salesforce,
    };
    if !writable {
        return;
    }
    let source = if to == Side::Hubspot { theirs } else { ours };
    let value = hash_of([source.canon.as_deref().unwrap_or_default(), source.raw.as_str()]);
    let is_known = state.refused == Some((to, value));
    let fault = match to {
        Side::Hubspot => pair.to_hubspot(source).err(),
        Side::Salesforce => pair.to_salesforce(source).err(),
    };
    if let Some(fault) = fault {
        state.refused = Some((to, value));
        decision.unwritable.push(Unwritable { pair: at, side: to, fault, value, known: is_known });
        return;
    }
    if is_known {
        return;
    }
    if is_flip(&state.writes, to, value, tick) {
        decision.freeze.push(Freeze { pair: at, kind: ReviewKind::Flip });
        return;
    }
    match to {
        Side::Hubspot => {
            let Ok((value, canon)) = pair.to_hubspot(source) else { return };
            decision.to_hubspot.push(Change { pair: at, value, canon, old: ours.canon.clone(), why });
        }
        Side::Salesforce => {
            let Ok((value, canon)) = pair.to_salesforce(source) else { return };
            decision.to_salesforce.push(Change { pair: at, value, canon, old: theirs.canon.clone(), why });
        }
    }
    state.writes.push(FieldWrite { tick, side: to, value });
    let surplus = state.writes.len().saturating_sub(WRITES_KEPT);
    state.writes.drain(..surplus);
}

/// Whether the same value is written to the same side again and again, with other writes between.
fn is_flip(writes: &[FieldWrite], side: Side, value: u64, tick: u64) -> bool {
    let recent = writes.iter().filter(|write| write.tick + FLIP_TICKS > tick);
    let (mut same, mut others) = (1, 0);
    for write in recent {
        if write.side == side && write.value == value {
            same += 1;
        } else {
            others += 1;
        }
    }
    same >= FLIP_WRITES && others >= FLIP_WRITES - 1
}

/// Takes note of a field that was written on `side` as `written`, and was read back as `stored`, while the other side held `other`.
///
/// Something else may have come back: an automation has rewritten it, or somebody has changed it since. Where the rule would carry such a
/// change to the other side, it stays one. Where it would be put back each time, it is accepted when another value comes back of a
/// second write (`is_second`) too: what somebody has changed in the moment of the first one is put back by the second.
pub fn landed(
    state: &mut FieldState,
    rule: SyncRule,
    side: Side,
    written: &Canon,
    stored: &Canon,
    other: &Canon,
    is_second: bool,
) {
    let accepted = written != stored && is_second && {
        let (changed, salesforce, hubspot) = match side {
            Side::Salesforce => ((true, false), stored, other),
            Side::Hubspot => ((false, true), other, stored),
        };
        way(rule, Some(changed), salesforce.is_none(), hubspot.is_none()) != Way::To(side.other())
    };
    let shadow = if accepted { stored } else { written }.clone();
    state.new = false;
    state.refused = None;
    match side {
        Side::Salesforce => (state.salesforce, state.hubspot) = (shadow, other.clone()),
        Side::Hubspot => (state.hubspot, state.salesforce) = (shadow, other.clone()),
    }
}

/// The intent that stands for a decision.
pub fn intent_of(decision: &Decision, pairs: &[Pair], hubspot: &Sighted, salesforce: &Sighted) -> Intent {
    let key = |pair: usize| pairs.get(pair).map(|pair| pair.key.clone());
    Intent {
        hubspot: decision.to_hubspot.iter().filter_map(|c| Some((key(c.pair)?, c.canon.clone()))).collect(),
        salesforce: decision.to_salesforce.iter().filter_map(|c| Some((key(c.pair)?, c.canon.clone()))).collect(),
        hubspot_modified: hubspot.edited,
        salesforce_modified: salesforce.edited,
        deletes: None,
        one_by_one: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Hubspot, Salesforce};
    use SyncRule::*;

    #[test]
    fn each_rule_sends_values_where_hubspot_says_it_does() {
        let cases = [
            // rule, changed (Salesforce, HubSpot), blank there, blank here, where it goes
            (TwoWay, Some((true, false)), false, false, Way::To(Hubspot)),
            (TwoWay, Some((true, false)), true, false, Way::To(Hubspot)),
            (TwoWay, Some((false, true)), false, true, Way::To(Salesforce)),
            (TwoWay, Some((true, true)), false, false, Way::Conflict),
            (TwoWay, None, true, false, Way::To(Salesforce)),
            (TwoWay, None, false, true, Way::To(Hubspot)),
            (TwoWay, None, false, false, Way::Conflict),
            (PreferSalesforceUnlessBlank, Some((true, false)), true, false, Way::To(Hubspot)),
            (PreferSalesforceUnlessBlank, Some((false, true)), false, false, Way::To(Hubspot)),
            (PreferSalesforceUnlessBlank, Some((false, true)), true, false, Way::To(Salesforce)),
            (PreferSalesforceUnlessBlank, Some((true, true)), false, false, Way::To(Hubspot)),
            (PreferSalesforceUnlessBlank, Some((true, true)), true, false, Way::To(Salesforce)),
            (PreferSalesforceUnlessBlank, None, true, false, Way::To(Salesforce)),
            (PreferSalesforceUnlessBlank, None, false, false, Way::To(Hubspot)),
            (PreferHubspotUnlessBlank, Some((true, false)), false, true, Way::To(Hubspot)),
            (PreferHubspotUnlessBlank, Some((false, true)), false, true, Way::To(Salesforce)),
            (AlwaysSalesforce, Some((false, true)), false, false, Way::To(Hubspot)),
            (AlwaysSalesforce, None, true, false, Way::To(Hubspot)),
            (AlwaysHubspot, Some((true, false)), false, false, Way::To(Salesforce)),
        ];
        for (rule, changed, there, here, expected) in cases {
            assert_eq!(way(rule, changed, there, here), expected, "{rule:?} {changed:?} {there} {here}");
        }
        for rule in [TwoWay, PreferSalesforceUnlessBlank, PreferHubspotUnlessBlank, AlwaysSalesforce, AlwaysHubspot] {
            assert_eq!(
                way(rule, Some((false, false)), false, true),
                Way::Neither,
                "{rule:?}: what is in step is quiet"
            );
        }
    }

    #[test]
    fn a_value_that_is_written_to_and_fro_is_found_and_one_that_people_change_is_not() {
        let write = |tick, side, value| FieldWrite { tick, side, value };
        let fight = [write(1, Hubspot, 1), write(2, Salesforce, 2), write(3, Hubspot, 1), write(4, Salesforce, 2)];
        assert!(is_flip(&fight, Hubspot, 1, 5));
        assert!(!is_flip(&fight, Hubspot, 3, 5), "a new value");
        assert!(!is_flip(&fight, Hubspot, 1, 50), "long ago");
        let retried = [write(1, Hubspot, 1), write(2, Hubspot, 1), write(3, Hubspot, 1)];
        assert!(!is_flip(&retried, Hubspot, 1, 4), "the same write again and again is no fight");
    }

    #[test]
    fn what_an_automation_made_of_a_write_is_a_change_only_where_the_rule_carries_it_on() {
        let text = |text: &str| Some(text.to_owned());
        let mut state = FieldState::default();
        landed(&mut state, TwoWay, Salesforce, &text("a"), &text("A"), &text("a"), true);
        assert_eq!((state.salesforce, state.hubspot), (text("a"), text("a")), "still to be carried to HubSpot");
        let mut state = FieldState::default();
        landed(&mut state, AlwaysHubspot, Salesforce, &text("a"), &text("A"), &text("a"), false);
        assert_eq!((&state.salesforce, &state.hubspot), (&text("a"), &text("a")), "once: it may have been a person");
        landed(&mut state, AlwaysHubspot, Salesforce, &text("a"), &text("A"), &text("a"), true);
        assert_eq!((state.salesforce, state.hubspot), (text("A"), text("a")), "accepted");
    }
}
