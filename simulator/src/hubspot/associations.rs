//! Links between records, one entry per direction. SOURCES.md "Associations".

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Handled, parse};
use super::objects::{Id, TypeInput, scopes};
use super::store::iso;
use super::{Call, Portal};

const WRITES_MAX: usize = 2_000;
const READS_MAX: usize = 1_000;
const ARCHIVES_MAX: usize = 100;
/// Links of one record on one page.
const LIST_MAX: usize = 500;
/// Ids for types that no list names.
const FIRST_OWN_TYPE: u32 = 20_001;

/// From, to, type, type of the other direction; primary ones after.
const DEFAULTS: &[(&str, &str, u32, u32)] = &[
    ("0-1", "0-2", 279, 280),
    ("0-1", "0-3", 4, 3),
    ("0-3", "0-2", 341, 342),
    ("0-1", "0-5", 15, 16),
    ("0-5", "0-2", 339, 340),
    ("0-3", "0-5", 27, 28),
    ("0-3", "0-8", 19, 20),
    ("0-46", "0-1", 202, 201),
    ("0-46", "0-2", 190, 189),
    ("0-46", "0-3", 214, 213),
    ("0-47", "0-1", 200, 199),
    ("0-27", "0-1", 204, 203),
    ("0-27", "0-2", 192, 191),
    ("0-27", "0-3", 216, 215),
    ("0-48", "0-1", 194, 193),
    ("0-49", "0-1", 198, 197),
];
const PRIMARIES: &[(&str, &str, u32, u32)] = &[("0-1", "0-2", 1, 2), ("0-3", "0-2", 5, 6), ("0-5", "0-2", 26, 25)];

/// A type of association in one direction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Label {
    from: usize,
    to: usize,
    id: u32,
    inverse: u32,
    label: Option<String>,
    primary: bool,
    own: bool,
}

/// An object type's place in the portal and a record's id.
type RecordKey = (usize, u64);

/// All associations of the account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Associations {
    labels: Vec<Label>,
    links: HashMap<RecordKey, BTreeMap<RecordKey, Vec<u32>>>,
    named: bool,
}

/// Associations that are to outlive the process; object types by their places in the portal that wrote them.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeptLinks {
    labels: Vec<Label>,
    links: Vec<(RecordKey, RecordKey, Vec<u32>)>,
    named: bool,
}

impl Associations {
    pub(crate) fn kept(&self) -> KeptLinks {
        let links =
            self.links.iter().flat_map(|(from, ends)| ends.iter().map(move |(to, types)| (*from, *to, types.clone())));
        KeptLinks { labels: self.labels.clone(), links: links.collect(), named: self.named }
    }

    /// `places`: where each object type of the portal that wrote them is now.
    pub(crate) fn restore(&mut self, kept: KeptLinks, places: &[Option<usize>]) {
        let place = |at: usize| places.get(at).copied().flatten();
        self.labels = kept
            .labels
            .into_iter()
            .filter_map(|label| Some(Label { from: place(label.from)?, to: place(label.to)?, ..label }))
            .collect();
        self.named = kept.named;
        for ((from, near), (to, far), types) in kept.links {
            if let (Some(from), Some(to)) = (place(from), place(to)) {
                types.into_iter().for_each(|one| self.add((from, near), (to, far), one));
            }
        }
    }

    /// The records of a type that a record is linked to, and the types of each link.
    pub(crate) fn of(&self, from: usize, id: u64, to: usize) -> impl Iterator<Item = (u64, &[u32])> {
        let links = self.links.get(&(from, id));
        links
            .into_iter()
            .flat_map(move |links| links.range((to, 0)..=(to, u64::MAX)))
            .map(|((_, id), types)| (*id, types.as_slice()))
    }

    /// The object type at the far end of a type that leaves `from`.
    pub(crate) fn target(&self, portal: &Portal, from: usize, type_id: u32) -> Option<usize> {
        if let Some(label) = self.labels.iter().find(|label| label.from == from && label.id == type_id) {
            return Some(label.to);
        }
        let id = portal.at(from).id.as_str();
        let far = DEFAULTS.iter().chain(PRIMARIES).find_map(|(left, right, out, back)| {
            if *left == id && *out == type_id {
                return Some(*right);
            }
            (*right == id && *back == type_id).then_some(*left)
        });
        portal.kind(far?).ok()
    }

    fn add(&mut self, from: (usize, u64), to: (usize, u64), type_id: u32) {
        let types = self.links.entry(from).or_default().entry(to).or_default();
        if !types.contains(&type_id) {
            types.push(type_id);
        }
    }

    pub(crate) fn cut(&mut self, from: (usize, u64), to: (usize, u64)) {
        for (near, far) in [(from, to), (to, from)] {
            if let Some(links) = self.links.get_mut(&near) {
                links.remove(&far);
            }
        }
    }

    /// A record is gone, and its links with it.
    pub(crate) fn forget(&mut self, kind: usize, id: u64) {
        for end in self.links.remove(&(kind, id)).unwrap_or_default().into_keys() {
            if let Some(links) = self.links.get_mut(&end) {
                links.remove(&(kind, id));
            }
        }
    }

    /// A merged record's links become the winner's.
    pub(crate) fn rename(&mut self, kind: usize, old: u64, new: u64) {
        for (end, types) in self.links.remove(&(kind, old)).unwrap_or_default() {
            let back = self.links.get_mut(&end).and_then(|links| links.remove(&(kind, old))).unwrap_or_default();
            for one in types {
                self.add((kind, new), end, one);
            }
            for one in back {
                self.add(end, (kind, new), one);
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Inputs<T> {
    inputs: Vec<T>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    from: End,
    to: End,
    #[serde(default)]
    types: Vec<TypeInput>,
}

#[derive(Debug, Deserialize)]
struct Fan {
    from: End,
    to: Vec<End>,
}

#[derive(Debug, Deserialize)]
struct End {
    id: Id,
    /// Of reads: where the next page of this record's links begins.
    #[serde(default)]
    after: Option<Id>,
}

impl Portal {
    /// Names the types of the standard pairs, once.
    fn name_types(&mut self) {
        if std::mem::replace(&mut self.associations.named, true) {
            return;
        }
        for (list, primary) in [(DEFAULTS, false), (PRIMARIES, true)] {
            for (left, right, out, back) in list {
                let (Ok(left), Ok(right)) = (self.kind(left), self.kind(right)) else { continue };
                for (from, to, id, inverse) in [(left, right, *out, *back), (right, left, *back, *out)] {
                    let label = primary.then(|| "Primary".to_owned());
                    self.associations.labels.push(Label { from, to, id, inverse, label, primary, own: false });
                }
            }
        }
    }

    /// The type of an unlabelled link; made up on first use for pairs that no list names.
    pub(super) fn default_type(&mut self, from: usize, to: usize) -> (u32, u32) {
        self.name_types();
        let known = |label: &&Label| label.from == from && label.to == to && label.label.is_none();
        if let Some(label) = self.associations.labels.iter().find(known) {
            return (label.id, label.inverse);
        }
        let next = FIRST_OWN_TYPE + u32::try_from(self.associations.labels.len()).unwrap_or(0);
        let inverse = if from == to { next } else { next + 1 };
        let custom = self.at(from).id.starts_with("2-") || self.at(to).id.starts_with("2-");
        self.add_label(from, to, next, inverse, None, None, custom);
        (next, inverse)
    }

    #[expect(clippy::too_many_arguments, reason = "two directions of one thing")]
    fn add_label(
        &mut self,
        from: usize,
        to: usize,
        id: u32,
        inverse: u32,
        label: Option<String>,
        back: Option<String>,
        own: bool,
    ) {
        self.associations.labels.push(Label { from, to, id, inverse, label, primary: false, own });
        if id != inverse {
            let (from, to, id, inverse) = (to, from, inverse, id);
            self.associations.labels.push(Label { from, to, id, inverse, label: back, primary: false, own });
        }
    }

    fn spec(&self, from: usize, type_id: u32) -> Value {
        let own = self.associations.labels.iter().any(|label| label.from == from && label.id == type_id && label.own);
        let category = if own { "USER_DEFINED" } else { "HUBSPOT_DEFINED" };
        json!({"associationCategory": category, "associationTypeId": type_id})
    }

    /// Links two records by a type, both ways. The unlabelled type comes along, and the first company is primary.
    pub(super) fn link(&mut self, from: usize, from_id: u64, to: usize, to_id: u64, type_id: u32) {
        let (plain, plain_back) = self.default_type(from, to);
        let (near, far) = ((from, from_id), (to, to_id));
        self.associations.add(near, far, plain);
        self.associations.add(far, near, plain_back);
        let wanted = |label: &&Label| label.from == from && label.to == to && label.id == type_id;
        let chosen = self.associations.labels.iter().find(wanted).cloned();
        if let Some(label) = chosen.filter(|label| label.id != plain) {
            if label.primary {
                self.make_primary(near, far);
            } else {
                self.associations.add(near, far, label.id);
                self.associations.add(far, near, label.inverse);
            }
        }
        let (child, parent) = if self.at(to).id == "0-2" { (near, far) } else { (far, near) };
        if let Some(primary) = self.primary_type(child.0, parent.0) {
            let has_one = self.associations.of(child.0, child.1, parent.0).any(|(_, types)| types.contains(&primary.0));
            if !has_one {
                self.make_primary(child, parent);
            }
        }
    }

    pub(super) fn primary_type(&self, from: usize, to: usize) -> Option<(u32, u32)> {
        let label =
            self.associations.labels.iter().find(|label| label.primary && label.from == from && label.to == to)?;
        Some((label.id, label.inverse))
    }

    fn make_primary(&mut self, near: (usize, u64), far: (usize, u64)) {
        let company_is_far = self.at(far.0).id == "0-2";
        let (child, parent) = if company_is_far { (near, far) } else { (far, near) };
        let Some((out, back)) = self.primary_type(child.0, parent.0) else { return };
        let others: Vec<u64> = self.associations.of(child.0, child.1, parent.0).map(|(id, _)| id).collect();
        for id in others {
            let other = (parent.0, id);
            for (near, far, one) in [(child, other, out), (other, child, back)] {
                if let Some(types) = self.associations.links.get_mut(&near).and_then(|links| links.get_mut(&far)) {
                    types.retain(|known| *known != one);
                }
            }
        }
        self.associations.add(child, parent, out);
        self.associations.add(parent, child, back);
    }

    /// The other ends of a record's links, by name, sorted.
    pub(super) fn association_names(&self, kind: usize, id: u64) -> Vec<String> {
        let Some(links) = self.associations.links.get(&(kind, id)) else { return Vec::new() };
        let mut all: Vec<String> = links
            .keys()
            .map(|(to, id)| {
                let far = self.at(*to);
                let record = far.records.get(id);
                let name = far.property_id(&far.display).and_then(|property| record?.text(property, u32::MAX));
                format!("{}:{}", far.plural, name.unwrap_or_default())
            })
            .collect();
        all.sort();
        all
    }

    fn need_both(&self, call: &Call<'_>, from: usize, to: usize, access: &str) -> Handled<()> {
        call.caller.need(&scopes(self.at(from), access))?;
        call.caller.need(&scopes(self.at(to), access))
    }

    pub(super) fn associations(&mut self, call: &Call<'_>, from: &str, to: &str) -> Handled {
        let (from, to) = (self.kind(from)?, self.kind(to)?);
        self.name_types();
        let rest: Vec<&str> = call.route.rest.iter().map(String::as_str).collect();
        let read = call.method == "GET" || rest.ends_with(&["read"]);
        self.need_both(call, from, to, if read { "read" } else { "write" })?;
        match (call.method, rest.as_slice()) {
            ("POST", ["batch", "associate", "default"]) => self.write_links(call, from, to, false),
            ("POST", ["batch", "create"]) => self.write_links(call, from, to, true),
            ("POST", ["batch", "read"]) => self.read_links(call, from, to),
            ("POST", ["batch", "archive"]) => {
                let inputs = parse::<Inputs<Fan>>(call.body)?.inputs;
                too_many(inputs.len(), ARCHIVES_MAX)?;
                for fan in inputs {
                    for end in &fan.to {
                        if let (Ok(near), Ok(far)) = (fan.from.id.0.parse(), end.id.0.parse()) {
                            self.associations.cut((from, near), (to, far));
                        }
                    }
                }
                Ok(self.voided(call))
            }
            ("POST", ["batch", "labels", "archive"]) => {
                let inputs = parse::<Inputs<Pair>>(call.body)?.inputs;
                too_many(inputs.len(), WRITES_MAX)?;
                for pair in inputs {
                    let (Ok(near), Ok(far)) = (pair.from.id.0.parse(), pair.to.id.0.parse()) else { continue };
                    for one in &pair.types {
                        self.drop_label((from, near), (to, far), one.association_type_id);
                    }
                }
                Ok(self.voided(call))
            }
            ("GET", ["labels"]) => {
                self.default_type(from, to);
                let results: Vec<Value> = self
                    .associations
                    .labels
                    .iter()
                    .filter(|label| label.from == from && label.to == to)
                    .map(label_json)
                    .collect();
                Ok(Answer::json(200, &json!({"results": results})))
            }
            ("POST", ["labels"]) => self.create_label(call, from, to),
            _ => Err(ApiError::new(404, "resource not found")),
        }
    }

    fn voided(&self, call: &Call<'_>) -> Answer {
        if !call.route.version.since_2026_09() {
            return Answer::empty(204);
        }
        let at = iso(call.now);
        Answer::json(200, &json!({"status": "COMPLETE", "startedAt": at, "completedAt": at}))
    }

    fn drop_label(&mut self, near: (usize, u64), far: (usize, u64), type_id: u32) {
        let (plain, _) = self.default_type(near.0, far.0);
        if type_id == plain {
            self.associations.cut(near, far);
            return;
        }
        let wanted = |label: &&Label| label.from == near.0 && label.to == far.0 && label.id == type_id;
        let inverse = self.associations.labels.iter().find(wanted).map(|label| label.inverse);
        for (from, to, one) in [(near, far, Some(type_id)), (far, near, inverse)] {
            if let Some(types) = self.associations.links.get_mut(&from).and_then(|links| links.get_mut(&to)) {
                types.retain(|known| Some(*known) != one);
            }
        }
    }

    fn create_label(&mut self, call: &Call<'_>, from: usize, to: usize) -> Handled {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Input {
            label: String,
            #[serde(default)]
            inverse_label: Option<String>,
        }
        let input: Input = parse(call.body)?;
        let next = FIRST_OWN_TYPE + u32::try_from(self.associations.labels.len()).unwrap_or(0);
        let inverse = if input.inverse_label.is_none() && from == to { next } else { next + 1 };
        let back = input.inverse_label.clone().or_else(|| Some(input.label.clone()));
        self.add_label(from, to, next, inverse, Some(input.label), back, true);
        let made = self.associations.labels.iter().filter(|label| label.id == next || label.id == inverse);
        let results: Vec<Value> = made.map(label_json).collect();
        Ok(Answer::json(200, &json!({"results": results})))
    }

    /// The ends of a pair, or why they cannot be linked.
    pub(super) fn ends(&self, from: usize, to: usize, near: &str, far: &str) -> Result<(u64, u64), Box<ApiError>> {
        let parse = |text: &str| {
            text.parse::<u64>().map_err(|_| {
                ApiError::validation(format!("{text} is not a valid ID"))
                    .sub("crm.associations.INVALID_IDENTIFIER")
                    .context("id", vec![text.to_owned()])
            })
        };
        let (near, far) = (parse(near)?, parse(far)?);
        if from == to && near == far {
            return Err(ApiError::validation(format!("Object {near} cannot be associated to itself ({near})")));
        }
        for (kind, id, sub) in
            [(from, near, "crm.associations.FROM_OBJECT_NOT_FOUND"), (to, far, "crm.associations.TO_OBJECT_NOT_FOUND")]
        {
            if self.at(kind).live(id).is_none() {
                let text = format!("No {} with ID {id} exists", self.at(kind).singular);
                return Err(ApiError::of(404, "OBJECT_NOT_FOUND", text).sub(sub));
            }
        }
        Ok((self.at(from).survivor(near), self.at(to).survivor(far)))
    }

    fn write_links(&mut self, call: &Call<'_>, from: usize, to: usize, labelled: bool) -> Handled {
        let inputs = parse::<Inputs<Pair>>(call.body)?.inputs;
        too_many(inputs.len(), WRITES_MAX)?;
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for pair in &inputs {
            let (near, far) = match self.ends(from, to, &pair.from.id.0, &pair.to.id.0) {
                Ok(ends) => ends,
                Err(error) => {
                    errors.push(error.item(None));
                    continue;
                }
            };
            if labelled {
                match self.label_link(from, near, to, far, &pair.types) {
                    Ok(labels) => results.push(json!({"fromObjectTypeId": self.at(from).id, "fromObjectId": near,
                        "toObjectTypeId": self.at(to).id, "toObjectId": far, "labels": labels})),
                    Err(error) => errors.push(error.item(None)),
                }
            } else {
                results.extend(self.default_link(from, near, to, far));
            }
        }
        let status = match (errors.is_empty(), labelled) {
            (false, _) if call.route.version.since_2026_09() => self.settings.unsettled.dated_partial_status,
            (false, _) => 207,
            (true, true) => 201,
            (true, false) => 200,
        };
        Ok(self.answer_links(call, status, results, errors))
    }

    fn answer_links(&self, call: &Call<'_>, status: u16, results: Vec<Value>, errors: Vec<Value>) -> Answer {
        let at = iso(call.now);
        let mut body = json!({"completedAt": at, "status": "COMPLETE", "startedAt": at, "results": results});
        if let Some(members) = body.as_object_mut().filter(|_| !errors.is_empty()) {
            members.insert("numErrors".into(), errors.len().into());
            members.insert("errors".into(), Value::Array(errors));
        }
        Answer::json(status, &body)
    }

    fn default_link(&mut self, from: usize, near: u64, to: usize, far: u64) -> [Value; 2] {
        let (out, back) = self.default_type(from, to);
        self.link(from, near, to, far, out);
        let item = |near: u64, far: u64, spec: Value| json!({"from": {"id": near.to_string()}, "to": {"id": far.to_string()}, "associationSpec": spec});
        [item(near, far, self.spec(from, out)), item(far, near, self.spec(to, back))]
    }

    fn label_link(
        &mut self,
        from: usize,
        near: u64,
        to: usize,
        far: u64,
        types: &[TypeInput],
    ) -> Result<Vec<String>, Box<ApiError>> {
        self.default_type(from, to);
        let mut labels = Vec::new();
        for one in types {
            let known = self.associations.labels.iter().find(|label| {
                let category = if label.own { "USER_DEFINED" } else { "HUBSPOT_DEFINED" };
                label.from == from
                    && label.to == to
                    && label.id == one.association_type_id
                    && (one.association_category.is_empty() || one.association_category == category)
            });
            match known {
                Some(label) => labels.extend(label.label.clone()),
                None => {
                    let text = format!("One or more association types are invalid: {}", one.association_type_id);
                    return Err(ApiError::validation(text).sub("crm.associations.INVALID_ASSOCIATION_TYPE"));
                }
            }
        }
        // The labels written replace those that were there.
        let own: Vec<(u32, u32)> = self
            .associations
            .labels
            .iter()
            .filter(|label| label.own && label.label.is_some())
            .map(|label| (label.id, label.inverse))
            .collect();
        for (near, far) in [((from, near), (to, far)), ((to, far), (from, near))] {
            if let Some(known) = self.associations.links.get_mut(&near).and_then(|links| links.get_mut(&far)) {
                known.retain(|one| !own.iter().any(|(id, inverse)| one == id || one == inverse));
            }
        }
        for one in types {
            self.link(from, near, to, far, one.association_type_id);
        }
        Ok(labels)
    }

    fn read_links(&mut self, call: &Call<'_>, from: usize, to: usize) -> Handled {
        let inputs = parse::<Inputs<End>>(call.body)?.inputs;
        too_many(inputs.len(), READS_MAX)?;
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        let page = self.settings.unsettled.association_page;
        for End { id, after } in &inputs {
            let after = place(after.as_ref().map(|after| after.0.as_str()))?;
            let near = id.0.parse::<u64>().ok();
            let (links, next) = near.map(|id| self.links_json(from, id, to, after, page)).unwrap_or_default();
            if links.is_empty() {
                let (near, far) = (&self.at(from).singular, &self.at(to).singular);
                let error =
                    ApiError::of(404, "OBJECT_NOT_FOUND", format!("No {far} is associated with {near} {}.", id.0))
                        .sub("crm.associations.NO_ASSOCIATIONS_FOUND")
                        .context("fromObjectId", vec![id.0.clone()])
                        .context("fromObjectType", vec![near.clone()])
                        .context("toObjectType", vec![far.clone()]);
                errors.push(error.item(None));
            } else {
                let mut result = json!({"from": {"id": id.0}, "to": links});
                if let (Some(next), Some(members)) = (next, result.as_object_mut()) {
                    members.insert("paging".into(), json!({"next": {"after": next.to_string()}}));
                }
                results.push(result);
            }
        }
        let status = if errors.is_empty() { 200 } else { 207 };
        Ok(self.answer_links(call, status, results, errors))
    }

    /// One page of a record's links, and after which id the next begins.
    fn links_json(&self, from: usize, id: u64, to: usize, after: u64, most: usize) -> (Vec<Value>, Option<u64>) {
        let id = self.at(from).survivor(id);
        let mut links = self.associations.of(from, id, to).filter(|(far, _)| *far > after).peekable();
        let page: Vec<(u64, &[u32])> = links.by_ref().take(most).collect();
        let next = page.last().filter(|_| links.peek().is_some()).map(|(far, _)| *far);
        let page = page
            .into_iter()
            .map(|(far, types)| {
                let types: Vec<Value> = types
                    .iter()
                    .map(|one| {
                        let label =
                            self.associations.labels.iter().find(|label| label.from == from && label.id == *one);
                        let own = label.is_some_and(|label| label.own);
                        json!({"category": if own { "USER_DEFINED" } else { "HUBSPOT_DEFINED" }, "typeId": one,
                            "label": label.and_then(|label| label.label.clone())})
                    })
                    .collect();
                json!({"toObjectId": far, "associationTypes": types})
            })
            .collect();
        (page, next)
    }

    /// `{from}/{id}/associations/…` of one record.
    pub(super) fn record_associations(&mut self, call: &Call<'_>, from: usize, id: &str, rest: &[&str]) -> Handled {
        self.name_types();
        match (call.method, rest) {
            ("GET", [to]) => {
                let to = self.kind(to)?;
                self.need_both(call, from, to, "read")?;
                let limit = call.route.get("limit").map_or(Ok(LIST_MAX), str::parse::<usize>);
                let Some(limit) = limit.ok().filter(|limit| (1..=LIST_MAX).contains(limit)) else {
                    return Err(ApiError::validation(format!("limit must be between 1 and {LIST_MAX}")));
                };
                let page = limit.min(self.settings.unsettled.association_page);
                let after = place(call.route.get("after"))?;
                let near = id.parse::<u64>().ok();
                let (links, next) = near.map(|id| self.links_json(from, id, to, after, page)).unwrap_or_default();
                let mut body = json!({"results": links});
                if let (Some(next), Some(members)) = (next, body.as_object_mut()) {
                    members.insert("paging".into(), json!({"next": {"after": next.to_string()}}));
                }
                Ok(Answer::json(200, &body))
            }
            ("PUT", ["default", to, far]) => {
                let to = self.kind(to)?;
                self.need_both(call, from, to, "write")?;
                let (near, far) = self.ends(from, to, id, far)?;
                let results = self.default_link(from, near, to, far).to_vec();
                Ok(self.answer_links(call, 200, results, Vec::new()))
            }
            ("PUT", [to, far]) => {
                let to = self.kind(to)?;
                self.need_both(call, from, to, "write")?;
                let types: Vec<TypeInput> = parse(call.body)?;
                let (near, far) = self.ends(from, to, id, far)?;
                let labels = self.label_link(from, near, to, far, &types)?;
                Ok(Answer::json(
                    201,
                    &json!({"fromObjectTypeId": self.at(from).id, "fromObjectId": near,
                        "toObjectTypeId": self.at(to).id, "toObjectId": far, "labels": labels}),
                ))
            }
            ("DELETE", [to, far]) => {
                let to = self.kind(to)?;
                self.need_both(call, from, to, "write")?;
                if let (Ok(near), Ok(far)) = (id.parse(), far.parse()) {
                    self.associations.cut((from, near), (to, far));
                }
                Ok(Answer::empty(204))
            }
            _ => Err(ApiError::new(404, "resource not found")),
        }
    }
}

/// The id after which a page of links begins.
fn place(after: Option<&str>) -> Handled<u64> {
    match after.filter(|after| !after.is_empty()) {
        None => Ok(0),
        Some(after) => after.parse().map_err(|_| ApiError::validation("The paging token is not valid")),
    }
}

fn label_json(label: &Label) -> Value {
    let category = if label.own { "USER_DEFINED" } else { "HUBSPOT_DEFINED" };
    json!({"category": category, "typeId": label.id, "label": label.label})
}

fn too_many(count: usize, most: usize) -> Handled<()> {
    if count > most {
        return Err(ApiError::validation(format!(
            "The maximum number of inputs supported in a batch is {most}. Please reduce the number of items and try again"
        )));
    }
    Ok(())
}
