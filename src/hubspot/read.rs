//! Reading records: by key or id, in batches, and page by page.
//!
//! Both read the object store, which a write changes at once; search reads an index that trails behind. So what was there before a write
//! (before-images), whether a key is taken (adoption) and which records exist (mirror) is asked here.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    account::{Account, Call, describe},
    batch::{BATCH_INPUTS_MAX, ROUNDS_MAX},
    envelope::Refusal,
};
use crate::{
    Error, ErrorKind, Result,
    clock::Deadline,
    codes,
    http::rate_limit::Permit,
    record::{ObjectType, PropertyName, fold_key},
};

/// HubSpot's largest page of a list.
pub const LIST_PAGE: usize = 100;

/// The names of properties in an address: from about 8 kB on, gateways were seen to refuse it with 414.
pub const LIST_NAMES_BYTES_MAX: usize = 5_000;

/// A record as HubSpot has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Found {
    /// The record's id.
    #[serde(deserialize_with = "text")]
    pub id: String,
    /// The properties asked for (and a few that HubSpot adds); `None` where there is no value. Names that HubSpot does not know are absent.
    #[serde(deserialize_with = "texts")]
    pub properties: BTreeMap<String, Option<String>>,
    /// When it was made, where HubSpot says so.
    #[serde(deserialize_with = "time")]
    pub created_at: Option<Timestamp>,
    /// When it was last changed, where HubSpot says so.
    #[serde(deserialize_with = "time")]
    pub updated_at: Option<Timestamp>,
}

impl Found {
    /// The value of a property; `None` where there is none or only an empty one.
    pub fn value(&self, property: &str) -> Option<&str> {
        self.properties.get(property)?.as_deref().filter(|value| !value.is_empty())
    }
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Up to [`LIST_PAGE`] records, oldest first; archived ones are not among them.
    pub records: Vec<Found>,
    /// What the next page is asked for with; `None` after the last.
    pub after: Option<String>,
}

/// Text or number, as text; anything else as nothing.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(text_of(&Value::deserialize(deserializer)?).unwrap_or_default())
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    let map = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(map.into_iter().map(|(name, value)| (name, text_of(&value))).collect())
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(text_of(&Value::deserialize(deserializer)?).and_then(|text| text.parse().ok()))
}

/// `paging.next.after` of any answer.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Paging {
    next: Option<Next>,
}

#[derive(Debug, Deserialize)]
struct Next {
    #[serde(default, deserialize_with = "text")]
    after: String,
}

impl Paging {
    pub(super) fn after(paging: Option<Self>) -> Option<String> {
        paging.and_then(|paging| paging.next).map(|next| next.after).filter(|after| !after.is_empty())
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ReadAnswer<R> {
    results: Vec<R>,
    #[serde(default = "Vec::new")]
    errors: Vec<Value>,
}

/// What a read needs to know of a record to tell whose it is.
pub(super) trait Named: Clone {
    fn id(&self) -> &str;
    fn text(&self, property: &str) -> Option<&str>;
}

impl Named for Found {
    fn id(&self) -> &str {
        &self.id
    }
    fn text(&self, property: &str) -> Option<&str> {
        self.value(property)
    }
}

#[derive(Debug, Deserialize)]
struct ListAnswer {
    results: Vec<Found>,
    paging: Option<Paging>,
}

/// Whether an error of this category inside a read's answer tells that there is nothing to be read.
pub(super) fn says_missing(category: &str) -> bool {
    matches!(category, "OBJECT_NOT_FOUND" | "VALIDATION_ERROR" | "")
}

/// Keys of one call.
pub(super) struct Group {
    pub(super) members: Vec<usize>,
    round: u32,
}

/// What a read is about.
pub(super) struct Reading<'a, R> {
    object: &'a ObjectType,
    id_property: Option<&'a str>,
    /// The keys to ask for, each once.
    pub(super) keys: Vec<&'a str>,
    /// Their folded forms.
    folded: Vec<String>,
    /// One for each of the keys, once it is known.
    pub(super) found: Vec<Option<Option<R>>>,
    /// The last one is next.
    pub(super) stack: Vec<Group>,
    /// Keys that HubSpot would not look up, even alone.
    pub(super) refused: Vec<usize>,
}

impl Account {
    /// Reads records by `id_property` (a property with unique values; `None`: by record id); one answer for each key, in their order,
    /// `None` where there is no such record or it is archived.
    ///
    /// Any number of keys, 100 a call; equal ones are asked for once. `permit` is the first call's turn where it was waited for already.
    /// A contact is found by a secondary address too, a merged record by an old id; the record then carries its present one.
    /// Errors: `KEY_NOT_UNIQUE`, `HUBSPOT_REFUSED` where HubSpot refuses whatever is asked, `HUBSPOT_ANSWER_UNREADABLE` where it never
    /// says what became of a key, and those of [`Account::call`].
    pub async fn read(
        &self,
        object: &ObjectType,
        id_property: Option<&str>,
        keys: &[String],
        properties: &[PropertyName],
        mut permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<Vec<Option<Found>>> {
        let by_email = object.is_contacts() && id_property == Some("email");
        // Addresses are one whatever their case; whether other keys are is not known, so each spelling is asked for.
        let spelling = |key: &str| if by_email { fold_key(key) } else { key.trim().to_owned() };
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut asked = Vec::new();
        let mut at_of_key = Vec::with_capacity(keys.len());
        for key in keys {
            let at = *places.entry(spelling(key)).or_insert_with(|| {
                asked.push(key.trim());
                asked.len() - 1
            });
            at_of_key.push(at);
        }
        let mut reading = Reading::new(object, id_property, asked, BATCH_INPUTS_MAX);
        // The names under which a record is found beside its own.
        let aliases = match id_property {
            Some(_) if by_email => Some("hs_additional_emails"),
            None => Some("hs_merged_object_ids"),
            Some(_) => None,
        };
        let mut names: Vec<&str> = properties.iter().map(|name| &**name).collect();
        for name in id_property.into_iter().chain(aliases) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut answered = false;
        let mut last_refusal = None;
        while let Some(group) = reading.stack.pop() {
            let inputs: Vec<Value> =
                group.members.iter().filter_map(|at| reading.keys.get(*at)).map(|key| json!({ "id": key })).collect();
            let mut body = json!({ "properties": names, "inputs": inputs });
            if let (Some(property), Some(members)) = (id_property, body.as_object_mut()) {
                members.insert("idProperty".to_owned(), property.into());
            }
            let call = Call::post(self.paths.objects(object, "batch/read"), Bytes::from(body.to_string()));
            match self.parsed::<ReadAnswer<Found>>(call, permit.take(), deadline).await? {
                Ok(answer) => {
                    answered = true;
                    reading.accept(group, answer, aliases)?;
                }
                Err((status, refusal)) => {
                    reading.refuse(group, status, &refusal)?;
                    last_refusal = Some((status, refusal));
                }
            }
        }
        if let (false, Some((status, refusal)), false) = (answered, last_refusal, reading.refused.is_empty()) {
            let message = format!("reading {object}: {}", describe(status, &refusal, true));
            return Err(Error::invalid(codes::HUBSPOT_REFUSED, message));
        }
        // What was asked for only to tell the answers apart is nobody else's business.
        if let Some(aliases) = aliases.filter(|name| !properties.iter().any(|wanted| &**wanted == *name)) {
            for found in reading.found.iter_mut().flatten().flatten() {
                found.properties.remove(aliases);
            }
        }
        let found = reading.found;
        Ok(at_of_key.into_iter().map(|at| found.get(at).cloned().flatten().flatten()).collect())
    }

    /// One page of all records of a type that are not archived; `after` is the cursor of the page before.
    ///
    /// A page that is cut short by HubSpot reads as the last one: who archives what is missing must not archive by what is not listed.
    pub async fn list(
        &self,
        object: &ObjectType,
        properties: &[PropertyName],
        after: Option<&str>,
        deadline: Deadline,
    ) -> Result<ListPage> {
        let mut call = Call::get(self.paths.objects(object, ""));
        call.query.push(("limit", LIST_PAGE.to_string()));
        call.query.push(("archived", "false".to_owned()));
        call.query.extend(after.map(|after| ("after", after.to_owned())));
        let names = properties.join(",");
        if names.len() > LIST_NAMES_BYTES_MAX {
            let message =
                format!("listing {object}: the names of {} properties do not fit into an address", properties.len());
            return Err(Error::invalid(codes::HUBSPOT_REFUSED, message));
        }
        if !names.is_empty() {
            call.query.push(("properties", names));
        }
        let mut again = true;
        loop {
            match self.parsed::<ListAnswer>(call.clone(), None, deadline).await? {
                // An empty answer to a call that failed looks like the end: it is believed when it comes twice.
                Ok(page) if page.results.is_empty() && page.paging.is_none() && again => again = false,
                Ok(page) => return Ok(ListPage { records: page.results, after: Paging::after(page.paging) }),
                Err((status, refusal)) => {
                    let message = format!("listing {object}: {}", describe(status, &refusal, false));
                    return Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message));
                }
            }
        }
    }

    /// As [`Account::ask`]; a 2xx of another shape counts as lost and is asked for again.
    pub(super) async fn parsed<T: DeserializeOwned>(
        &self,
        call: Call,
        permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<Result<T, (StatusCode, Refusal)>> {
        let what = format!("{} {}", call.method, call.path);
        let parsed = RefCell::new(None);
        let answer = self
            .ask_until(call, permit, deadline, |answer| {
                let value = serde_json::from_slice::<T>(&answer.body).ok();
                let readable = value.is_some();
                parsed.replace(value);
                readable
            })
            .await?;
        if !answer.status.is_success() {
            return Ok(Err((answer.status, Refusal::of_body(&answer.body))));
        }
        match parsed.into_inner() {
            Some(value) => Ok(Ok(value)),
            None => answer.json(&what).map(Ok),
        }
    }
}

impl<'a, R: Named> Reading<'a, R> {
    /// `keys`: each once. At most `inputs_max` a call.
    pub(super) fn new(
        object: &'a ObjectType,
        id_property: Option<&'a str>,
        keys: Vec<&'a str>,
        inputs_max: usize,
    ) -> Self {
        let mut reading = Self {
            object,
            id_property,
            folded: keys.iter().map(|key| fold_key(key)).collect(),
            found: vec![None; keys.len()],
            keys,
            stack: Vec::new(),
            refused: Vec::new(),
        };
        reading.split(inputs_max);
        reading
    }

    /// Calls of at most `inputs_max` keys, no two of which differ in case only.
    fn split(&mut self, inputs_max: usize) {
        let mut groups: Vec<Group> = Vec::new();
        let (mut members, mut seen) = (Vec::new(), BTreeSet::new());
        for (at, key) in self.folded.iter().enumerate() {
            if key.is_empty() {
                if let Some(slot) = self.found.get_mut(at) {
                    *slot = Some(None);
                }
                continue;
            }
            if (members.len() >= inputs_max || seen.contains(key)) && !members.is_empty() {
                groups.push(Group { members: std::mem::take(&mut members), round: 1 });
                seen.clear();
            }
            members.push(at);
            seen.insert(key);
        }
        if !members.is_empty() {
            groups.push(Group { members, round: 1 });
        }
        groups.reverse();
        self.stack = groups;
    }

    fn set(&mut self, at: usize, found: Option<R>) {
        if let Some(slot @ None) = self.found.get_mut(at) {
            *slot = Some(found);
        }
    }

    /// Matches records to keys by the key itself, by what the record is also found by, and where one of each is left over, by elimination.
    pub(super) fn accept(&mut self, group: Group, answer: ReadAnswer<R>, aliases: Option<&str>) -> Result<()> {
        let mut strangers = Vec::new();
        for found in answer.results {
            let own = match self.id_property {
                Some(property) => found.text(property).unwrap_or_default(),
                None => found.id(),
            };
            let others = aliases.and_then(|name| found.text(name)).unwrap_or_default();
            let names: Vec<String> = std::iter::once(own).chain(others.split(';')).map(fold_key).collect();
            let named: Vec<usize> = group
                .members
                .iter()
                .copied()
                .filter(|at| self.folded.get(*at).is_some_and(|key| names.contains(key)))
                .collect();
            for at in &named {
                self.set(*at, Some(found.clone()));
            }
            if named.is_empty() {
                strangers.push(found);
            }
        }
        let mut nameless = false;
        for error in &answer.errors {
            let refusal = Refusal::of(error);
            // Anything else (an error inside HubSpot) says nothing about whether the record is there.
            if !says_missing(&refusal.category) {
                continue;
            }
            nameless |= refusal.ids.is_empty();
            for id in &refusal.ids {
                let id = fold_key(id);
                let named = group.members.iter().copied().find(|at| self.folded.get(*at) == Some(&id));
                if let Some(at) = named {
                    self.set(at, None);
                }
            }
        }
        let mut left: Vec<usize> =
            group.members.iter().copied().filter(|at| self.found.get(*at).is_some_and(Option::is_none)).collect();
        match (left.as_slice(), strangers.len(), nameless) {
            ([], ..) => return Ok(()),
            ([at], 1, false) => {
                self.set(*at, strangers.pop());
                return Ok(());
            }
            // Asked for alone, and there is no such record.
            ([at], 0, true) if group.members.len() == 1 => {
                self.set(*at, None);
                return Ok(());
            }
            _ => {}
        }
        let talkative = nameless || !strangers.is_empty();
        if group.round >= ROUNDS_MAX && (left.len() == 1 || !talkative) {
            let message = format!(
                "reading {}: HubSpot did not say what became of {} keys, although it was asked {ROUNDS_MAX} times",
                self.object,
                left.len()
            );
            return Err(Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message));
        }
        if talkative && left.len() > 1 {
            // Something was said that could not be told apart: smaller calls tell.
            let second = left.split_off(left.len().div_ceil(2));
            self.stack.push(Group { members: second, round: group.round });
            self.stack.push(Group { members: left, round: group.round });
        } else {
            self.stack.push(Group { members: left, round: group.round + 1 });
        }
        Ok(())
    }

    /// A 4xx for the whole call: finds the key that it is about.
    pub(super) fn refuse(&mut self, mut group: Group, status: StatusCode, refusal: &Refusal) -> Result<()> {
        let property = self.id_property.unwrap_or("the record id");
        if refusal.message.starts_with("Unable to perform update/upsert by non-unique") {
            let message = format!("HubSpot cannot identify {} by `{property}`: its values are not unique", self.object);
            return Err(Error::invalid(codes::KEY_NOT_UNIQUE, message));
        }
        if refusal.message.starts_with("Unable to infer object type")
            || (status == StatusCode::NOT_FOUND && refusal.category != "OBJECT_NOT_FOUND")
        {
            let message = format!("reading {}: {}", self.object, describe(status, refusal, true));
            return Err(Error::invalid(codes::HUBSPOT_REFUSED, message));
        }
        match group.members.as_slice() {
            [at] => {
                let at = *at;
                if refusal.category != "OBJECT_NOT_FOUND" {
                    self.refused.push(at);
                }
                self.set(at, None);
            }
            _ => {
                let second = group.members.split_off(group.members.len().div_ceil(2));
                self.stack.push(Group { members: second, round: group.round });
                self.stack.push(Group { members: group.members, round: group.round });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(reading: &mut Reading<'_, Found>, results: &Value, errors: &Value) {
        let group = reading.stack.pop().unwrap();
        let answer = serde_json::from_value(json!({"results": results, "errors": errors})).unwrap();
        reading.accept(group, answer, None).unwrap();
    }

    #[test]
    fn records_that_come_under_other_names_are_told_apart_by_smaller_calls() {
        let object = ObjectType("contacts".to_owned());
        let keys = vec!["own@x.io", "second@x.io", "third@x.io", "none@x.io"];
        let mut reading = Reading::new(&object, Some("email"), keys, BATCH_INPUTS_MAX);
        let record = |id: u32, email: &str| json!({"id": id, "properties": {"email": email}, "createdAt": "nonsense"});
        let strangers = json!([record(3, "c@x.io"), record(1, "Own@x.io"), record(2, "b@x.io")]);
        accept(&mut reading, &strangers, &json!([{"category": "OBJECT_NOT_FOUND", "context": {"ids": ["NONE@x.io"]}}]));
        let open: Vec<_> = reading.stack.iter().map(|group| group.members.clone()).collect();
        assert_eq!(open, [[2], [1]]);
        accept(&mut reading, &json!([record(2, "b@x.io")]), &json!([]));
        // Silence is asked again; an error that names nobody is about the only one asked for.
        accept(&mut reading, &json!([]), &json!([{"category": "INTERNAL_ERROR", "context": {"ids": ["third@x.io"]}}]));
        assert_eq!(reading.stack.len(), 1);
        accept(&mut reading, &json!([]), &json!([{"category": "OBJECT_NOT_FOUND"}]));
        let ids: Vec<_> =
            reading.found.iter().map(|found| found.as_ref().unwrap().as_ref().map(|found| found.id.as_str())).collect();
        assert_eq!(ids, [Some("1"), Some("2"), None, None]);
    }
}
