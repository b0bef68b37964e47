//! Associations: pairs of records linked in batches, one verdict for each pair.
//!
//! Linking what is linked already changes nothing, so everything that is not known is asked again, in smaller or later calls, within bounds.
//! A labelled write replaces the labels of its pair: those that are there are read first and written along. Two labels of one pair are
//! therefore to be written after each other, not at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    account::{Account, Call, describe},
    batch::ROUNDS_MAX,
    envelope::Refusal,
    read::{Paging, says_missing, text_of},
};
use crate::{
    Error, ErrorKind, Result,
    clock::Deadline,
    codes,
    http::rate_limit::Bucket,
    record::{ObjectType, Reason, fold_key},
};

/// Pairs of one call. HubSpot takes 2,000; half of it keeps an answer (two items a pair) small.
pub const PAIRS_MAX: usize = 1_000;

/// Pairs of one call that are taken apart.
const CUTS_MAX: usize = 100;

/// Records of one call that reads associations.
pub const READS_MAX: usize = 1_000;

/// Calls of one read under way at once: at up to 500 ms a call they use the ten a second that every account has for associations.
const READS_IN_FLIGHT: usize = 5;

/// Calls of one read, beside two for each record. 500 associations a page and 10,000 a record make 20 pages.
const READ_PAGES_MAX: usize = 200;

/// Single pairs refused with one text that names none of them, before the run is given up.
const NAMELESS_MAX: u32 = 3;

/// Labels named in a message.
const LABELS_TOLD: usize = 10;

/// A kind of association in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssociationType {
    /// `HUBSPOT_DEFINED` or `USER_DEFINED`.
    pub category: String,
    /// HubSpot's number of it.
    pub type_id: u64,
    /// What people see; `None` for the unlabelled one.
    pub label: Option<String>,
}

impl AssociationType {
    fn of(json: &Value) -> Option<Self> {
        let member = |names: [&str; 2]| names.iter().find_map(|name| json.get(name).and_then(text_of));
        let label = member(["label", "label"]).filter(|label| !label.is_empty());
        let type_id = member(["typeId", "associationTypeId"])?.parse().ok()?;
        Some(Self { category: member(["category", "associationCategory"]).unwrap_or_default(), type_id, label })
    }
}

/// What became of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairVerdict {
    /// The two are associated.
    Made,
    /// They will never be as it is; the code is `ASSOCIATION_FAILED`.
    Refused(Reason),
    /// However often it was asked, HubSpot did not say.
    Unknown,
}

/// The associations of records: by the near record's id and the far one's, the types of the link.
pub type Links = BTreeMap<String, BTreeMap<String, Vec<AssociationType>>>;

#[derive(Debug, Deserialize)]
struct LabelsAnswer {
    results: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct LinksAnswer {
    results: Vec<LinkResult>,
    #[serde(default)]
    errors: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct LinkResult {
    #[serde(default)]
    from: Value,
    #[serde(default)]
    to: Vec<Value>,
    paging: Option<Paging>,
}

#[derive(Debug, Deserialize)]
struct PairsAnswer {
    results: Vec<Value>,
    #[serde(default)]
    errors: Vec<Value>,
}

/// A record whose associations are asked for, and from where on.
#[derive(Debug, Clone, Serialize)]
struct Near {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

/// Pairs of one call, by their places in [`Work::pairs`].
struct Group {
    members: Vec<usize>,
    round: u32,
}

struct Work<'a> {
    from: &'a ObjectType,
    to: &'a ObjectType,
    /// Each pair once.
    pairs: Vec<(&'a str, &'a str)>,
    verdicts: Vec<Option<PairVerdict>>,
    /// The last one is next.
    stack: Vec<Group>,
    nameless: Option<(String, u32)>,
}

impl Account {
    /// The association type from one object type to another that people know as `label`, whatever the case.
    ///
    /// `MAPPING_INVALID`, with the labels that are nearest, if there is none.
    pub async fn association_type(
        &self,
        from: &ObjectType,
        to: &ObjectType,
        label: &str,
        deadline: Deadline,
    ) -> Result<AssociationType> {
        let mut call = Call::get(self.paths.associations(from, to, "labels"));
        call.bucket = Bucket::Associations;
        let answer: LabelsAnswer = match self.parsed(call, None, deadline).await? {
            Ok(answer) => answer,
            Err((status, refusal)) => {
                let message = format!("labels from {from} to {to}: {}", describe(status, &refusal, false));
                return Err(Error::invalid(codes::HUBSPOT_REFUSED, message));
            }
        };
        let types: Vec<AssociationType> = answer.results.iter().filter_map(AssociationType::of).collect();
        choose_label(types, label).map_err(|labels| {
            let known = if labels.is_empty() {
                "there are no labels between them".to_owned()
            } else {
                format!("there are: {}", labels.join(", "))
            };
            let message = format!("{from} are not associated with {to} by a label `{label}`; {known}");
            let hint = "Use one of the labels, or create it in HubSpot (Settings, Objects, Associations).";
            Error::invalid(codes::MAPPING_INVALID, message).with_hint(hint)
        })
    }

    /// The associations that records of one type have with another. Records that have none are absent.
    ///
    /// Any number of records, [`READS_MAX`] a call, several calls at once; all that is told is held, so a sweep over very many asks for
    /// some ten thousand at a time.
    pub async fn associations(
        &self,
        from: &ObjectType,
        to: &ObjectType,
        ids: &BTreeSet<String>,
        deadline: Deadline,
    ) -> Result<Links> {
        let all: Vec<Near> = ids.iter().map(|id| Near { id: id.clone(), after: None }).collect();
        let lots: Vec<Vec<Near>> = all.chunks(READS_MAX).map(<[Near]>::to_vec).collect();
        let read = lots.into_iter().map(|lot| self.associations_of_lot(from, to, lot, deadline));
        // No record is in two lots.
        stream::iter(read).buffer_unordered(READS_IN_FLIGHT).try_concat().await
    }

    async fn associations_of_lot(
        &self,
        from: &ObjectType,
        to: &ObjectType,
        lot: Vec<Near>,
        deadline: Deadline,
    ) -> Result<Links> {
        let mut links = Links::new();
        let pages_max = READ_PAGES_MAX.saturating_add(lot.len() * 2);
        let mut stack: Vec<(Vec<Near>, u32)> = if lot.is_empty() { Vec::new() } else { vec![(lot, 1)] };
        let mut pages = 0;
        while let Some((wanted, round)) = stack.pop() {
            pages += 1;
            if round > ROUNDS_MAX || pages > pages_max {
                let message =
                    format!("HubSpot does not tell all associations from {from} to {to}, after {pages} calls");
                return Err(Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message));
            }
            let body = Bytes::from(json!({ "inputs": wanted }).to_string());
            let mut call = Call::post(self.paths.associations(from, to, "batch/read"), body);
            call.bucket = Bucket::Associations;
            let answer: LinksAnswer = match self.parsed(call, None, deadline).await? {
                Ok(answer) => answer,
                Err((status, refusal)) => {
                    let told = describe(status, &refusal, true);
                    let message = format!("reading associations from {from} to {to}: {told}");
                    return Err(Error::invalid(codes::HUBSPOT_REFUSED, message));
                }
            };
            let said = !answer.results.is_empty() || !answer.errors.is_empty();
            let (left, more) = take_links(&wanted, answer, &mut links);
            if !more.is_empty() {
                stack.push((more, 1));
            }
            match left.len() {
                0 => {}
                // Something was said that names none of them: alone, it does.
                many @ 2.. if said => {
                    let (first, second) = left.split_at(many.div_ceil(2));
                    stack.push((second.to_vec(), round));
                    stack.push((first.to_vec(), round));
                }
                _ => stack.push((left, round + 1)),
            }
        }
        Ok(links)
    }

    /// Associates pairs (near id, far id), with a label or without; one verdict for each, in their order.
    ///
    /// Any number of pairs, [`PAIRS_MAX`] a call; a pair that comes twice is sent once. Labels that a pair has are kept, and pairs that
    /// have the label already cost no write. Errors: `MAPPING_INVALID` if HubSpot does not know the association type, `HUBSPOT_REFUSED` for a refusal
    /// that no pair explains, and those of [`Account::call`]. Doing it again is always safe.
    pub async fn associate(
        &self,
        from: &ObjectType,
        to: &ObjectType,
        label: Option<&AssociationType>,
        pairs: &[(String, String)],
        deadline: Deadline,
    ) -> Result<Vec<PairVerdict>> {
        let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut once = Vec::new();
        let mut place_of = Vec::with_capacity(pairs.len());
        for (near, far) in pairs {
            let pair = (near.trim(), far.trim());
            place_of.push(*places.entry(pair).or_insert_with(|| {
                once.push(pair);
                once.len() - 1
            }));
        }
        let verdicts = vec![None; once.len()];
        let mut work = Work { from, to, pairs: once, verdicts, stack: Vec::new(), nameless: None };
        work.split();
        while let Some(group) = work.stack.pop() {
            self.associate_group(&mut work, group, label, deadline).await?;
        }
        let verdict = |at: usize| work.verdicts.get(at).cloned().flatten().unwrap_or(PairVerdict::Unknown);
        Ok(place_of.into_iter().map(verdict).collect())
    }

    async fn associate_group(
        &self,
        work: &mut Work<'_>,
        mut group: Group,
        label: Option<&AssociationType>,
        deadline: Deadline,
    ) -> Result<()> {
        let (from, to) = (work.from, work.to);
        let mut links = Links::new();
        if let Some(label) = label {
            let near = group.members.iter().filter_map(|at| work.pairs.get(*at));
            // What is no id has no labels; HubSpot says so when it is written.
            let near = near.filter(|(near, _)| near.bytes().all(|byte| byte.is_ascii_digit()) && !near.is_empty());
            let near: BTreeSet<String> = near.map(|(near, _)| (*near).to_owned()).collect();
            links = self.associations(from, to, &near, deadline).await?;
            let mut left = Vec::new();
            for at in std::mem::take(&mut group.members) {
                let Some((near, far)) = work.pairs.get(at) else { continue };
                let types = links.get(*near).and_then(|far_ends| far_ends.get(*far));
                if types.is_some_and(|types| types.iter().any(|one| one.type_id == label.type_id)) {
                    work.set(at, PairVerdict::Made);
                } else {
                    left.push(at);
                }
            }
            group.members = left;
        }
        if group.members.is_empty() {
            return Ok(());
        }
        let inputs: Vec<Value> = group
            .members
            .iter()
            .filter_map(|at| work.pairs.get(*at))
            .map(|(near, far)| {
                let mut input = json!({ "from": { "id": near }, "to": { "id": far } });
                if let (Some(label), Some(members)) = (label, input.as_object_mut()) {
                    let known = links.get(*near).and_then(|far_ends| far_ends.get(*far)).into_iter().flatten();
                    let types: Vec<Value> = std::iter::once(label)
                        .chain(known)
                        .map(|one| json!({ "associationCategory": one.category, "associationTypeId": one.type_id }))
                        .collect();
                    members.insert("types".to_owned(), Value::Array(types));
                }
                input
            })
            .collect();
        let rest = if label.is_some() { "batch/create" } else { "batch/associate/default" };
        let body = Bytes::from(json!({ "inputs": inputs }).to_string());
        let mut call = Call::post(self.paths.associations(from, to, rest), body);
        call.bucket = Bucket::Associations;
        match self.parsed::<PairsAnswer>(call, None, deadline).await? {
            Ok(answer) => work.accept(group, &answer),
            Err((status, refusal)) => work.refuse(group, status, &refusal),
        }
    }

    /// Takes pairs (near id, far id) apart, whatever their labels. Pairs that are not associated are left alone. Doing it again is safe.
    pub async fn dissociate(
        &self,
        from: &ObjectType,
        to: &ObjectType,
        pairs: &[(String, String)],
        deadline: Deadline,
    ) -> Result<()> {
        for lot in pairs.chunks(CUTS_MAX) {
            let inputs: Vec<Value> =
                lot.iter().map(|(near, far)| json!({ "from": { "id": near }, "to": [{ "id": far }] })).collect();
            let what = "taking associations apart";
            self.take(from, to, "batch/archive", &inputs, what, deadline).await?;
        }
        Ok(())
    }

    async fn take(
        &self,
        from: &ObjectType,
        to: &ObjectType,
        rest: &str,
        inputs: &[Value],
        what: &str,
        deadline: Deadline,
    ) -> Result<()> {
        let body = Bytes::from(json!({ "inputs": inputs }).to_string());
        let mut call = Call::post(self.paths.associations(from, to, rest), body);
        call.bucket = Bucket::Associations;
        let answer = self.ask(call, deadline).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let refusal = super::envelope::Refusal::of_body(&answer.body);
        let told = describe(answer.status, &refusal, true);
        Err(Error::invalid(codes::HUBSPOT_REFUSED, format!("{what} from {from} to {to}: {told}")))
    }

    /// Takes a label off pairs (near id, far id); their associations stay. Pairs that do not have it are left alone. Doing it again is safe.
    pub async fn take_labels_off(
        &self,
        from: &ObjectType,
        to: &ObjectType,
        label: &AssociationType,
        pairs: &[(String, String)],
        deadline: Deadline,
    ) -> Result<()> {
        for lot in pairs.chunks(PAIRS_MAX) {
            let types = json!([{ "associationCategory": label.category, "associationTypeId": label.type_id }]);
            let inputs: Vec<Value> = lot
                .iter()
                .map(|(near, far)| json!({ "from": { "id": near }, "to": { "id": far }, "types": types }))
                .collect();
            self.take(from, to, "batch/labels/archive", &inputs, "taking labels off associations", deadline).await?;
        }
        Ok(())
    }
}

/// Takes the associations that an answer tells. Returns the records of which it says nothing, and those that have another page.
///
/// A record that has none is an error to HubSpot. Silence is not taken for "none": that would cost labels.
fn take_links(wanted: &[Near], answer: LinksAnswer, links: &mut Links) -> (Vec<Near>, Vec<Near>) {
    let ids: BTreeSet<&str> = wanted.iter().map(|one| one.id.as_str()).collect();
    let mut told = BTreeSet::new();
    let mut more = Vec::new();
    for result in answer.results {
        // A merged record answers with its present id, which only a call of its own makes plain.
        let near = match (result.from.get("id").and_then(text_of), wanted) {
            (_, [one]) => one.id.clone(),
            (Some(id), _) if ids.contains(id.as_str()) => id,
            _ => continue,
        };
        for link in &result.to {
            let Some(far) = link.get("toObjectId").and_then(text_of) else { continue };
            let types = link.get("associationTypes").and_then(Value::as_array).into_iter().flatten();
            let known = links.entry(near.clone()).or_default().entry(far).or_default();
            for one in types.filter_map(AssociationType::of) {
                if !known.contains(&one) {
                    known.push(one);
                }
            }
        }
        if let Some(after) = Paging::after(result.paging) {
            more.push(Near { id: near.clone(), after: Some(after) });
        }
        told.insert(near);
    }
    let missing = |error: &&Value| says_missing(error.get("category").and_then(Value::as_str).unwrap_or_default());
    for error in answer.errors.iter().filter(missing) {
        match (error.get("context").and_then(|context| context.get("fromObjectId")), wanted) {
            (_, [one]) => {
                told.insert(one.id.clone());
            }
            (Some(Value::Array(names)), _) => told.extend(names.iter().filter_map(text_of)),
            (Some(name), _) => told.extend(text_of(name)),
            (None, _) => {}
        }
    }
    (wanted.iter().filter(|one| !told.contains(&one.id)).cloned().collect(), more)
}

/// The type with this label; else the labels there are, nearest first.
fn choose_label(types: Vec<AssociationType>, wanted: &str) -> Result<AssociationType, Vec<String>> {
    let folded = fold_key(wanted);
    let exact = types.iter().position(|one| one.label.as_deref() == Some(wanted));
    let like = || types.iter().position(|one| one.label.as_deref().is_some_and(|label| fold_key(label) == folded));
    if let Some(found) = exact.or_else(like).and_then(|at| types.get(at)) {
        return Ok(found.clone());
    }
    let mut labels: Vec<String> = types.into_iter().filter_map(|one| one.label).collect();
    labels.sort_by_cached_key(|label| (strsim::damerau_levenshtein(&fold_key(label), &folded), label.clone()));
    labels.dedup();
    labels.truncate(LABELS_TOLD);
    Err(labels)
}

/// The ends of a result, whichever way they are told.
fn ends(result: &Value) -> Option<(String, String)> {
    let end = |nested: &str, flat: &str| {
        let id = result.get(nested).and_then(|end| end.get("id")).or_else(|| result.get(flat))?;
        text_of(id)
    };
    Some((end("from", "fromObjectId")?, end("to", "toObjectId")?))
}

/// The ids that an error speaks of: those of its context, else the numbers in its words.
fn ids_of(error: &Value, refusal: &Refusal) -> BTreeSet<String> {
    let mut ids: BTreeSet<String> = refusal.ids.iter().cloned().collect();
    for name in ["fromObjectId", "toObjectId", "objectId"] {
        match error.get("context").and_then(|context| context.get(name)) {
            Some(Value::Array(list)) => ids.extend(list.iter().filter_map(text_of)),
            Some(one) => ids.extend(text_of(one)),
            None => {}
        }
    }
    if ids.is_empty() {
        let words = refusal.message.split(|c: char| !c.is_alphanumeric());
        ids.extend(
            words.filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())).map(str::to_owned),
        );
    }
    ids
}

impl Work<'_> {
    /// Calls of at most [`PAIRS_MAX`] pairs, none of which is another one turned round: an answer tells both directions, and where the
    /// types differ contact 1 to company 2 is not contact 2 to company 1.
    fn split(&mut self) {
        let mut groups = Vec::new();
        let (mut members, mut seen) = (Vec::new(), BTreeSet::new());
        for (at, (near, far)) in self.pairs.iter().enumerate() {
            if (members.len() >= PAIRS_MAX || seen.contains(&(*far, *near))) && !members.is_empty() {
                groups.push(Group { members: std::mem::take(&mut members), round: 1 });
                seen.clear();
            }
            members.push(at);
            seen.insert((*near, *far));
        }
        if !members.is_empty() {
            groups.push(Group { members, round: 1 });
        }
        groups.reverse();
        self.stack = groups;
    }

    fn set(&mut self, at: usize, verdict: PairVerdict) {
        if let Some(slot @ None) = self.verdicts.get_mut(at) {
            *slot = Some(verdict);
        }
    }

    fn reason(&self, at: usize, refusal: &Refusal) -> PairVerdict {
        let (near, far) = self.pairs.get(at).copied().unwrap_or_default();
        let told = refusal.text([near, far]);
        let told = if told.is_empty() { "HubSpot did not say why".to_owned() } else { told };
        let text = format!("{} could not be associated with {}: {told}", self.from, self.to);
        PairVerdict::Refused(Reason::new(codes::ASSOCIATION_FAILED, text))
    }

    fn halve(&mut self, mut members: Vec<usize>, round: u32) {
        let second = members.split_off(members.len().div_ceil(2));
        self.stack.push(Group { members: second, round });
        self.stack.push(Group { members, round });
    }

    /// A 2xx: takes the verdicts it holds and sends the rest again.
    fn accept(&mut self, group: Group, answer: &PairsAnswer) -> Result<()> {
        let made: BTreeSet<(String, String)> = answer.results.iter().filter_map(ends).collect();
        let mut left = Vec::new();
        for at in group.members {
            match self.pairs.get(at) {
                Some((near, far)) if made.contains(&((*near).to_owned(), (*far).to_owned())) => {
                    self.set(at, PairVerdict::Made);
                }
                _ => left.push(at),
            }
        }
        let strangers = left.len() == 1 && !answer.results.is_empty() && answer.errors.is_empty();
        let alone = made.len() <= 2;
        let mut nameless = None;
        for error in &answer.errors {
            let refusal = Refusal::of(error);
            if refusal.sub_category.contains("ASSOCIATION_TYPE") {
                return Err(self.unknown_type());
            }
            let ids = ids_of(error, &refusal);
            // Where HubSpot says which end is missing, the other end's id may be the same number.
            let (from_only, to_only) =
                (refusal.sub_category.contains("FROM_OBJECT"), refusal.sub_category.contains("TO_OBJECT"));
            let named: Vec<usize> = left
                .iter()
                .copied()
                .filter(|at| {
                    self.pairs.get(*at).is_some_and(|(near, far)| {
                        (!to_only && ids.contains(*near)) || (!from_only && ids.contains(*far))
                    })
                })
                .collect();
            if named.is_empty() {
                nameless = Some(refusal);
            } else {
                for at in named {
                    let verdict = self.reason(at, &refusal);
                    self.set(at, verdict);
                }
            }
        }
        left.retain(|at| self.verdicts.get(*at).is_some_and(Option::is_none));
        match (left.as_slice(), nameless) {
            ([], _) => Ok(()),
            // A merged record answers with its present id: what is left over on both sides is one pair.
            ([at], None) if strangers && alone => {
                self.set(*at, PairVerdict::Made);
                Ok(())
            }
            ([at], Some(refusal)) => {
                let at = *at;
                self.single(at, "", &refusal)
            }
            (_, Some(_)) => {
                self.halve(left, group.round);
                Ok(())
            }
            (_, None) if group.round < ROUNDS_MAX => {
                // Alone, a pair that answers under other ids is known.
                if left.len() > 1 && !answer.results.is_empty() {
                    self.halve(left, group.round + 1);
                } else {
                    self.stack.push(Group { members: left, round: group.round + 1 });
                }
                Ok(())
            }
            (_, None) => {
                for at in left {
                    self.set(at, PairVerdict::Unknown);
                }
                Ok(())
            }
        }
    }

    /// A 4xx for the whole call: finds the pairs that it is about, or gives the run up where no pair is.
    fn refuse(&mut self, group: Group, status: StatusCode, refusal: &Refusal) -> Result<()> {
        if refusal.sub_category.contains("ASSOCIATION_TYPE") {
            return Err(self.unknown_type());
        }
        let unrelated = refusal.message.starts_with("Unable to infer object type")
            || refusal.message.starts_with("Invalid input JSON")
            || (status == StatusCode::NOT_FOUND && refusal.category != "OBJECT_NOT_FOUND");
        if unrelated {
            return Err(self.given_up(status.as_str(), refusal));
        }
        match group.members.as_slice() {
            [at] => {
                let at = *at;
                self.single(at, status.as_str(), refusal)
            }
            _ => {
                self.halve(group.members, group.round);
                Ok(())
            }
        }
    }

    /// A pair that was refused alone.
    fn single(&mut self, at: usize, status: &str, refusal: &Refusal) -> Result<()> {
        if refusal.category != "OBJECT_NOT_FOUND" {
            let words = format!("{status} {}", refusal.message);
            let count = match &mut self.nameless {
                Some((seen, count)) if *seen == words => {
                    *count += 1;
                    *count
                }
                other => {
                    *other = Some((words, 1));
                    1
                }
            };
            let made = self.verdicts.iter().any(|verdict| matches!(verdict, Some(PairVerdict::Made)));
            if count > NAMELESS_MAX && !made {
                return Err(self.given_up(status, refusal));
            }
        }
        let verdict = self.reason(at, refusal);
        self.set(at, verdict);
        Ok(())
    }

    fn unknown_type(&self) -> Error {
        let message = format!("HubSpot does not know this association from {} to {}", self.from, self.to);
        Error::invalid(codes::MAPPING_INVALID, message)
    }

    fn given_up(&self, status: &str, refusal: &Refusal) -> Error {
        let told = refusal.text(self.pairs.iter().flat_map(|(near, far)| [*near, *far]).take(PAIRS_MAX));
        let message = format!("associating {} with {}: HubSpot answered {status}: {told}", self.from, self.to);
        Error::invalid(codes::HUBSPOT_REFUSED, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_found_whatever_its_case_and_the_nearest_are_told() {
        let types = |labels: &[&str]| -> Vec<AssociationType> {
            let named = labels.iter().zip(1..).map(|(label, type_id)| AssociationType {
                category: "USER_DEFINED".to_owned(),
                type_id,
                label: Some((*label).to_owned()),
            });
            named.collect()
        };
        let labels = ["Primary", "Billing contact", "billing Contact"];
        assert_eq!(choose_label(types(&labels), "billing Contact").unwrap().type_id, 3);
        assert_eq!(choose_label(types(&labels), " BILLING CONTACT ").unwrap().type_id, 2);
        assert_eq!(choose_label(types(&["Primary", "Billing"]), "Biling").unwrap_err(), ["Billing", "Primary"]);
    }

    #[test]
    fn links_are_taken_under_the_ids_asked_for_and_silence_is_asked_again() {
        let near =
            |ids: &[&str]| -> Vec<Near> { ids.iter().map(|id| Near { id: (*id).to_owned(), after: None }).collect() };
        let ids = |near: Vec<Near>| near.into_iter().map(|one| one.id).collect::<Vec<_>>();
        let answer = || {
            let types = json!([{"category": "USER_DEFINED", "typeId": 7, "label": "Billing"}]);
            let to = json!([{"toObjectId": 900, "associationTypes": types}]);
            let results = json!([{"from": {"id": 1}, "to": to, "paging": {"next": {"after": "900"}}}]);
            let errors = json!([{"category": "OBJECT_NOT_FOUND", "context": {"fromObjectId": ["2"]}}]);
            serde_json::from_value::<LinksAnswer>(json!({"results": results, "errors": errors})).unwrap()
        };
        let mut links = Links::new();
        let (left, more) = take_links(&near(&["1", "2", "3"]), answer(), &mut links);
        assert_eq!((ids(left), ids(more)), (vec!["3".to_owned()], vec!["1".to_owned()]));
        assert_eq!(links["1"]["900"][0].label.as_deref(), Some("Billing"));
        // A record merged into 1, asked for alone.
        let (left, more) = take_links(&near(&["5"]), answer(), &mut links);
        assert_eq!((left.len(), ids(more)), (0, vec!["5".to_owned()]));
        assert!(links["5"].contains_key("900"));
    }
}
