//! Whole records, as HubSpot answered them: by list, by id, and the ids that a search names.
//!
//! What is captured is HubSpot's own word: every member of a record, in its order, and not the few that this library knows. Search is
//! asked for ids only ([`Account::changed`]): its index trails behind, so values come from the object store ([`Account::read_records`]).

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value, json};

use super::{
    account::{Account, Call, describe},
    batch::{BATCH_INPUTS_MAX, ROUNDS_MAX},
    read::{Found, LIST_NAMES_BYTES_MAX, LIST_PAGE, Named, Paging, ReadAnswer, Reading, text_of},
    resources::CrmResource,
    search::{Filter, FilterGroup, Operator, SEARCH_PAGE, Search, Sort},
};
use crate::{
    Error, ErrorKind, Result,
    clock::Deadline,
    codes,
    http::rate_limit::{Bucket, Permit},
    record::{ObjectType, PropertyName},
};

/// HubSpot's largest page of a list, and batch of a read, that tells history.
pub const HISTORY_PAGE: usize = 50;

/// How often a list has to say that there is nothing more. Twice was once in some ten thousand bad days not enough, and a snapshot of
/// nothing was taken for the account's; the third call is a small part of what a capture or an import makes.
pub(super) const EMPTY_BELIEVED: u32 = 3;

/// Calls of one [`Account::read_records`] under way at once: 16 of 100 ids keep an account of 190 calls in 10 s busy at 800 ms a call, and
/// their answers are a few megabytes.
const READS_IN_FLIGHT: usize = 16;

/// The property that every record's id stands in.
pub(crate) const ID_PROPERTY: &str = "hs_object_id";

/// What is wrong where filter and sort disagree.
const COMPARED_OTHERWISE: &str = "are compared in another order than they are sorted in";

/// The property that holds the ids a record took over.
const MERGED_PROPERTY: &str = "hs_merged_object_ids";

/// A record, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// Its id.
    pub id: String,
    /// When it was made, where HubSpot says so.
    pub created_at: Option<Timestamp>,
    /// When it was last changed, where HubSpot says so.
    pub updated_at: Option<Timestamp>,
    /// When it was archived; there if and only if it is. Where HubSpot does not say when, the time of its last change.
    pub archived_at: Option<Timestamp>,
    /// As HubSpot answered, without `propertiesWithHistory`; members in its order.
    pub object: Map<String, Value>,
    /// By property, newest first; empty unless asked for.
    pub history: BTreeMap<String, Vec<PastValue>>,
}

/// A value that a property has or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastValue {
    /// Since when.
    pub at: Timestamp,
    /// The value; `None` where it was cleared.
    pub value: Option<String>,
}

/// A page of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// Up to [`LIST_PAGE`], with history up to [`HISTORY_PAGE`].
    pub records: Vec<RawRecord>,
    /// What the next page is asked for with; `None` after the last.
    pub after: Option<String>,
}

/// What is to be told of each record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Empty: HubSpot's default set. Names that HubSpot does not know are ignored by it.
    pub properties: Vec<PropertyName>,
    /// Also the values that these properties had before.
    pub history: bool,
    /// Archived records, and only those.
    pub archived: bool,
}

impl Wanted {
    /// Nothing but ids.
    pub fn ids(archived: bool) -> Self {
        Self { properties: vec![PropertyName::from(ID_PROPERTY)], history: false, archived }
    }

    /// Records of one call.
    pub fn page(&self) -> usize {
        if self.history { HISTORY_PAGE } else { LIST_PAGE.min(BATCH_INPUTS_MAX) }
    }
}

/// Whether the names fit into an address ([`LIST_NAMES_BYTES_MAX`]); else list ids and read by batch.
pub fn names_fit(wanted: &Wanted) -> bool {
    // A comma takes three bytes in an address.
    let bytes: usize = wanted.properties.iter().map(|name| name.len() + 3).sum();
    let times = if wanted.history { 2 } else { 1 };
    bytes.saturating_mul(times) <= LIST_NAMES_BYTES_MAX
}

/// Ids that a search names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedPage {
    /// Ids in the server's order, each with the time of change that the index has.
    pub ids: Vec<(String, Option<Timestamp>)>,
    /// How many there are beyond `after`, these included; a hint.
    pub total: u64,
    /// There are no more.
    pub is_last: bool,
}

impl RawRecord {
    /// A record of this JSON; `None` if it is none: no object, or without an id.
    pub fn of(json: Value) -> Option<Self> {
        let Value::Object(mut object) = json else { return None };
        let id = object.get("id").and_then(text_of).filter(|id| !id.is_empty())?;
        let history = object.shift_remove("propertiesWithHistory").map(history_of).unwrap_or_default();
        let time = |name: &str| object.get(name).and_then(text_of).and_then(|text| text.parse::<Timestamp>().ok());
        let (created_at, updated_at) = (time("createdAt"), time("updatedAt"));
        let archived = object.get("archived").and_then(Value::as_bool).unwrap_or_default();
        let archived_at =
            archived.then(|| time("archivedAt").or(updated_at).or(created_at).unwrap_or(Timestamp::UNIX_EPOCH));
        Some(Self { id, created_at, updated_at, archived_at, object, history })
    }

    /// The value of a property, `None` where there is none or only an empty one.
    pub fn value(&self, property: &str) -> Option<&str> {
        self.object.get("properties")?.get(property)?.as_str().filter(|value| !value.is_empty())
    }
}

impl<'de> Deserialize<'de> for RawRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Value::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("a record without an id"))
    }
}

impl Named for RawRecord {
    fn id(&self) -> &str {
        &self.id
    }
    fn text(&self, property: &str) -> Option<&str> {
        self.value(property)
    }
}

fn history_of(json: Value) -> BTreeMap<String, Vec<PastValue>> {
    let Value::Object(members) = json else { return BTreeMap::new() };
    let past = |value: &Value| {
        let at = value.get("timestamp").and_then(text_of)?.parse().ok()?;
        Some(PastValue { at, value: value.get("value").and_then(text_of) })
    };
    let values = |list: &Value| {
        let mut values: Vec<PastValue> = list.as_array().into_iter().flatten().filter_map(past).collect();
        // HubSpot tells them newest first; of two at one moment its order stands.
        values.sort_by_key(|value| std::cmp::Reverse(value.at));
        values
    };
    members.iter().map(|(name, list)| (name.clone(), values(list))).collect()
}

#[derive(Deserialize)]
struct RecordsAnswer {
    results: Vec<RawRecord>,
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct ChangedAnswer {
    total: u64,
    results: Vec<Found>,
    paging: Option<Paging>,
}

impl Account {
    /// One page of all records of a type (archived ones if those are wanted); `after` is the cursor of the page before.
    ///
    /// Properties whose names do not fit into an address are an error: ask [`names_fit`] first. An empty page is believed when it comes
    /// three times.
    pub async fn list_records(
        &self,
        object: &ObjectType,
        wanted: &Wanted,
        after: Option<&str>,
        deadline: Deadline,
    ) -> Result<RecordPage> {
        self.list_records_with(object, wanted, after, None, deadline).await
    }

    /// As [`Account::list_records`]; also what it took, without the wait for its turn.
    pub(crate) async fn list_records_timed(
        &self,
        object: &ObjectType,
        wanted: &Wanted,
        after: Option<&str>,
        deadline: Deadline,
    ) -> Result<(RecordPage, Duration)> {
        let permit = self.permit(deadline).await?;
        let started = self.parts.clock.elapsed();
        let page = self.list_records_with(object, wanted, after, Some(permit), deadline).await?;
        Ok((page, self.parts.clock.elapsed().saturating_sub(started)))
    }

    async fn list_records_with(
        &self,
        object: &ObjectType,
        wanted: &Wanted,
        after: Option<&str>,
        mut permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<RecordPage> {
        if !names_fit(wanted) {
            let count = wanted.properties.len();
            let message = format!("listing {object}: the names of {count} properties do not fit into an address");
            return Err(Error::invalid(codes::HUBSPOT_REFUSED, message));
        }
        let mut call = Call::get(self.paths.objects(object, ""));
        call.query.push(("limit", wanted.page().to_string()));
        call.query.push(("archived", wanted.archived.to_string()));
        call.query.extend(after.map(|after| ("after", after.to_owned())));
        let names = wanted.properties.join(",");
        if !names.is_empty() {
            if wanted.history {
                call.query.push(("propertiesWithHistory", names.clone()));
            }
            call.query.push(("properties", names));
        }
        let mut empty = 0;
        loop {
            match self.parsed::<RecordsAnswer>(call.clone(), permit.take(), deadline).await? {
                // An empty answer to a call that failed looks like the end, and like an account without records.
                Ok(page) if page.results.is_empty() && page.paging.is_none() && empty + 1 < EMPTY_BELIEVED => {
                    empty += 1
                }
                Ok(page) => return Ok(RecordPage { records: page.results, after: Paging::after(page.paging) }),
                Err((status, refusal)) => {
                    let message = format!("listing {object}: {}", describe(status, &refusal, false));
                    return Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message));
                }
            }
        }
    }

    /// Records by id, by the id that was asked for; a merged one stands there under its present id (`id` of [`RawRecord`]).
    ///
    /// Those that are gone or archived (or, if archived ones are wanted, are not) are absent. Any number of ids, up to [`Wanted::page`] a
    /// call, several calls at once. Absence is HubSpot's word: silence about an id is asked again, in smaller calls, and in the end an error
    /// (`HUBSPOT_ANSWER_UNREADABLE`), as is a refusal (`HUBSPOT_REFUSED`).
    pub async fn read_records(
        &self,
        object: &ObjectType,
        ids: &[String],
        wanted: &Wanted,
        deadline: Deadline,
    ) -> Result<BTreeMap<String, RawRecord>> {
        let once: BTreeSet<&str> = ids.iter().map(|id| id.trim()).filter(|id| !id.is_empty()).collect();
        let once: Vec<&str> = once.into_iter().collect();
        let lots: Vec<Vec<&str>> = once.chunks(wanted.page()).map(<[&str]>::to_vec).collect();
        let read = lots.into_iter().map(|lot| self.read_lot(object, lot, wanted, deadline));
        let lots: Vec<Vec<(String, RawRecord)>> =
            stream::iter(read).buffer_unordered(READS_IN_FLIGHT).try_collect().await?;
        Ok(lots.into_iter().flatten().collect())
    }

    async fn read_lot(
        &self,
        object: &ObjectType,
        ids: Vec<&str>,
        wanted: &Wanted,
        deadline: Deadline,
    ) -> Result<Vec<(String, RawRecord)>> {
        let mut names: Vec<&str> = wanted.properties.iter().map(|name| &**name).collect();
        // Where HubSpot's default set is wanted, naming one property would leave the others out.
        let aliases = (!names.is_empty()).then_some(MERGED_PROPERTY);
        let unasked = aliases.filter(|name| !names.contains(name));
        names.extend(unasked);
        let mut reading: Reading<'_, RawRecord> = Reading::new(object, None, ids, wanted.page());
        while let Some(group) = reading.stack.pop() {
            let inputs: Vec<Value> =
                group.members.iter().filter_map(|at| reading.keys.get(*at)).map(|id| json!({ "id": id })).collect();
            let mut body = json!({ "properties": names, "inputs": inputs });
            if let (true, Some(members)) = (wanted.history, body.as_object_mut()) {
                let named: Vec<&str> = wanted.properties.iter().map(|name| &**name).collect();
                members.insert("propertiesWithHistory".to_owned(), json!(named));
            }
            let mut call = Call::post(self.paths.objects(object, "batch/read"), Bytes::from(body.to_string()));
            call.query.push(("archived", wanted.archived.to_string()));
            // Ids and names only.
            call.private = false;
            match self.parsed::<ReadAnswer<RawRecord>>(call, None, deadline).await? {
                Ok(answer) => reading.accept(group, answer, aliases)?,
                Err((status, refusal)) => {
                    let told = describe(status, &refusal, false);
                    // What is wrong with a property is wrong with the request, whatever the ids are.
                    if refusal.faults.is_empty() {
                        reading.refuse(group, status, &refusal)?;
                    }
                    // Refused is not gone.
                    if !refusal.faults.is_empty() || !reading.refused.is_empty() {
                        let message = format!("reading {object}: {told}");
                        return Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message));
                    }
                }
            }
        }
        let found = reading.keys.iter().zip(reading.found);
        let mut records: Vec<(String, RawRecord)> =
            found.filter_map(|(id, found)| Some(((*id).to_owned(), found.flatten()?))).collect();
        // What was asked for only to tell the answers apart is nobody else's business.
        if let Some(name) = unasked {
            for (_, record) in &mut records {
                if let Some(Value::Object(properties)) = record.object.get_mut("properties") {
                    properties.shift_remove(name);
                }
            }
        }
        Ok(records)
    }

    /// One page of the ids changed at or after `from` and, where it is given, before `until`, beyond the id `after` in the server's order; up to
    /// [`SEARCH_PAGE`]. Ask on with the last id of the page until [`ChangedPage::is_last`].
    ///
    /// Only ids, in an order that does not move while records change; never by offset, so there is no cap, and a moment may hold any number.
    /// Errors: `Corrupt` with `HUBSPOT_ANSWER_UNREADABLE` where ids do not come in one order, or are compared in another than they are
    /// sorted in (records would be lost); `HUBSPOT_REFUSED` where the type cannot be searched so.
    pub async fn changed(
        &self,
        resource: &CrmResource,
        from: Timestamp,
        until: Option<Timestamp>,
        after: Option<&str>,
        deadline: Deadline,
    ) -> Result<ChangedPage> {
        let object = &resource.object;
        let modified = resource.modified_property();
        let mut window = vec![Filter::new(modified, Operator::Gte, from.as_millisecond().to_string())];
        window.extend(until.map(|until| Filter::new(modified, Operator::Lt, until.as_millisecond().to_string())));
        let mut filters = window.clone();
        filters.extend(after.map(|after| Filter::new(ID_PROPERTY, Operator::Gt, after)));
        let mut page = ChangedPage { is_last: true, ..ChangedPage::default() };
        for round in 1.. {
            let answer = self.search_ids(resource, filters.clone(), SEARCH_PAGE, "ASCENDING", deadline).await?;
            if answer.results.is_empty() {
                // What is empty is believed when it comes twice, and not at all while it says that there is something.
                if round >= ROUNDS_MAX && answer.total > 0 {
                    let message = format!("searching {object}: HubSpot counts {} and shows none", answer.total);
                    return Err(Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message));
                }
                if round > 1 && answer.total == 0 {
                    break;
                }
                continue;
            }
            let shown: Vec<&str> = after.into_iter().chain(answer.results.iter().map(|found| &*found.id)).collect();
            let telling = in_one_order(&shown).map_err(|why| disorder(object, why))?;
            if let Some((first, second)) = telling {
                // Sorted one way and compared another, ids beyond the last one would never be shown.
                let pair =
                    [Filter::new(ID_PROPERTY, Operator::Gt, second), Filter::new(ID_PROPERTY, Operator::Eq, first)];
                if self.count_ids(resource, &window, &pair, deadline).await? > 0 {
                    return Err(disorder(object, COMPARED_OTHERWISE));
                }
            }
            page.is_last = Paging::after(answer.paging).is_none()
                && u64::try_from(answer.results.len()).unwrap_or(u64::MAX) >= answer.total;
            page.total = answer.total;
            let ids = answer.results.into_iter().map(|found| {
                let at = found.value(modified).and_then(moment).or(found.updated_at);
                (found.id, at)
            });
            page.ids = ids.collect();
            break;
        }
        let last = page.ids.last().map(|(id, _)| id.as_str()).or(after);
        if let (true, Some(_), Some(last)) = (page.is_last, after, last) {
            page.is_last = self.nothing_beyond(resource, &window, last, deadline).await?;
        }
        Ok(page)
    }

    /// Whether `last` is the end of a window that was asked for in pieces; `false` where something came behind it meanwhile.
    ///
    /// Ids of one length ascend alike as numbers and as text, so pages need not tell in which order they are compared: where that is not
    /// the order they are sorted in, the next length would be missing without a sign.
    async fn nothing_beyond(
        &self,
        resource: &CrmResource,
        window: &[Filter],
        last: &str,
        deadline: Deadline,
    ) -> Result<bool> {
        let highest = self.search_ids(resource, window.to_vec(), 1, "DESCENDING", deadline).await?;
        let Some(highest) = highest.results.into_iter().next().map(|found| found.id) else { return Ok(true) };
        if by_number(&highest, last).is_le() && highest.as_str() <= last {
            return Ok(true);
        }
        // `last` may have left the window: without it, how the two are sorted.
        let both = vec![Filter::one_of(ID_PROPERTY, vec![last.to_owned(), highest.clone()])];
        let both = self.search_ids(resource, both, 2, "ASCENDING", deadline).await?;
        let sorted: Vec<&str> = both.results.iter().map(|found| &*found.id).collect();
        if sorted != [last, highest.as_str()] {
            return Ok(true);
        }
        let is_highest = Filter::new(ID_PROPERTY, Operator::Eq, highest.as_str());
        let beyond = [Filter::new(ID_PROPERTY, Operator::Gt, last), is_highest.clone()];
        if self.count_ids(resource, window, &beyond, deadline).await? > 0 {
            return Ok(false);
        }
        if self.count_ids(resource, window, &[is_highest], deadline).await? > 0 {
            return Err(disorder(&resource.object, COMPARED_OTHERWISE));
        }
        Ok(true)
    }

    async fn count_ids(
        &self,
        resource: &CrmResource,
        window: &[Filter],
        more: &[Filter],
        deadline: Deadline,
    ) -> Result<u64> {
        let filters = window.iter().chain(more).cloned().collect();
        Ok(self.search_ids(resource, filters, 1, "ASCENDING", deadline).await?.total)
    }

    /// About the largest id of a type, as the index shows it: a hint to divide work by. `None` where there is none, or it is no number.
    pub async fn largest_id(&self, object: &ObjectType, deadline: Deadline) -> Result<Option<u64>> {
        let resource = CrmResource { collection: String::new(), object: object.clone(), mergeable: false };
        let answer = self.search_ids(&resource, Vec::new(), 1, "DESCENDING", deadline).await?;
        Ok(answer.results.first().and_then(|found| found.id.parse().ok()))
    }

    async fn search_ids(
        &self,
        resource: &CrmResource,
        filters: Vec<Filter>,
        limit: usize,
        direction: &'static str,
        deadline: Deadline,
    ) -> Result<ChangedAnswer> {
        let object = &resource.object;
        let groups = if filters.is_empty() { Vec::new() } else { vec![FilterGroup { filters }] };
        let search = Search {
            filter_groups: groups,
            sorts: vec![Sort { property_name: ID_PROPERTY.to_owned(), direction }],
            properties: vec![PropertyName::from(resource.modified_property())],
            limit,
            after: None,
        };
        let body = serde_json::to_vec(&search).map_err(|error| {
            Error::new(ErrorKind::Corrupt, codes::HUBSPOT_REFUSED, "a search cannot be encoded").with_source(error)
        })?;
        let mut call = Call::post(self.paths.objects(object, "search"), Bytes::from(body));
        call.bucket = Bucket::Search;
        // Times and ids only.
        call.private = false;
        let answer = match self.parsed::<ChangedAnswer>(call, None, deadline).await? {
            Ok(answer) => answer,
            Err((status, refusal)) => {
                let told = describe(status, &refusal, false);
                let message = format!("searching {object} by `{}` and id: {told}", resource.modified_property());
                return Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message));
            }
        };
        if answer.results.iter().any(|found| found.id.is_empty()) {
            let message = format!("searching {object}: HubSpot shows records without an id");
            return Err(Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message));
        }
        Ok(answer)
    }
}

fn disorder(object: &ObjectType, why: &str) -> Error {
    let message = format!("searching {object}: the ids that HubSpot shows {why}; going on would lose some");
    Error::new(ErrorKind::Corrupt, codes::HUBSPOT_ANSWER_UNREADABLE, message)
}

/// A time as HubSpot tells it: ISO 8601, or milliseconds since the epoch.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| Timestamp::from_millisecond(text.parse().ok()?).ok())
}

/// Ids as numbers of any length.
fn by_number(left: &str, right: &str) -> Ordering {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(left) && digits(right) {
        let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
        return left.len().cmp(&right.len()).then_with(|| left.cmp(right));
    }
    left.cmp(right)
}

/// Whether `ids` ascend, as numbers or as text. Where the two orders differ on them, a pair (before, behind) that tells which one it is.
fn in_one_order<'a>(ids: &[&'a str]) -> Result<Option<(&'a str, &'a str)>, &'static str> {
    let mut telling = None;
    let (mut number, mut text) = (true, true);
    for (before, behind) in ids.iter().zip(ids.iter().skip(1)) {
        let (as_number, as_text) = (by_number(before, behind).is_lt(), before.cmp(behind).is_lt());
        number &= as_number;
        text &= as_text;
        if as_number != as_text {
            telling = Some((*before, *behind));
        }
    }
    if number || text { Ok(telling) } else { Err("do not come in one order beyond the last one asked for") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_as_numbers_or_as_text_and_a_telling_pair_is_found() {
        type Told<'a> = Result<Option<(&'a str, &'a str)>, ()>;
        let table: [(&[&str], Told<'_>); 9] = [
            (&[], Ok(None)),
            (&["5"], Ok(None)),
            (&["10", "11", "12"], Ok(None)),
            (&["9", "10", "11"], Ok(Some(("9", "10")))),
            (&["10", "11", "9"], Ok(Some(("11", "9")))),
            (&["10", "10"], Err(())),
            (&["12", "11"], Err(())),
            // Beyond each neighbour in one order or another is not one order.
            (&["9", "10", "9"], Err(())),
            (
                &["99999999999999999999998", "99999999999999999999999", "100000000000000000000000"],
                Ok(Some(("99999999999999999999999", "100000000000000000000000"))),
            ),
        ];
        for (ids, expected) in table {
            assert_eq!(in_one_order(ids).map_err(|_| ()), expected, "{ids:?}");
        }
    }

    #[test]
    fn a_record_keeps_every_member_in_its_order_but_its_history() {
        let json = json!({"id": 7, "properties": {"b": "1", "a": null}, "createdAt": "2026-01-02T03:04:05.678Z",
            "propertiesWithHistory": {"b": [
                {"value": "0", "timestamp": "2026-01-01T00:00:00Z", "sourceType": "CRM_UI"},
                {"value": "1", "timestamp": "2026-01-02T00:00:00.5Z"},
                {"value": null, "timestamp": "2025-01-01T00:00:00Z"}, {"value": "lost"}], "a": "odd"},
            "updatedAt": "nonsense", "archived": false, "archivedAt": "1970-01-01T00:00:00Z", "later": [1]});
        let record = RawRecord::of(json).unwrap();
        assert_eq!((record.id.as_str(), record.archived_at, record.updated_at), ("7", None, None));
        assert_eq!(record.created_at, "2026-01-02T03:04:05.678Z".parse().ok());
        let members: Vec<_> = record.object.keys().map(String::as_str).collect();
        assert_eq!(members, ["id", "properties", "createdAt", "updatedAt", "archived", "archivedAt", "later"]);
        assert_eq!(record.object["properties"].to_string(), r#"{"b":"1","a":null}"#);
        let past: Vec<_> = record.history["b"].iter().map(|past| past.value.as_deref()).collect();
        assert_eq!(past, [Some("1"), Some("0"), None]);
        assert!(record.history["a"].is_empty());
    }

    #[test]
    fn an_archived_record_always_has_a_time_and_what_has_no_id_is_no_record() {
        let archived = |more: Value| {
            let mut json = json!({"id": "1", "archived": true});
            json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            RawRecord::of(json).unwrap().archived_at.unwrap().to_string()
        };
        assert_eq!(
            archived(json!({"archivedAt": "2026-01-01T00:00:00Z", "updatedAt": "2025-01-01T00:00:00Z"})),
            "2026-01-01T00:00:00Z"
        );
        assert_eq!(archived(json!({"updatedAt": "2025-01-01T00:00:00Z"})), "2025-01-01T00:00:00Z");
        assert_eq!(archived(json!({})), "1970-01-01T00:00:00Z");
        for none in [json!({"id": ""}), json!({"properties": {}}), json!("1"), json!({"id": null})] {
            assert!(RawRecord::of(none.clone()).is_none(), "{none}");
            assert!(serde_json::from_value::<RawRecord>(none).is_err());
        }
    }

    #[test]
    fn names_are_counted_as_they_stand_in_an_address() {
        let wanted = |count: usize, history: bool| Wanted {
            properties: (0..count).map(|n| PropertyName::from(format!("property_{n:04}"))).collect(),
            history,
            archived: false,
        };
        // 13 bytes and a comma of three.
        assert!(names_fit(&wanted(312, false)) && !names_fit(&wanted(313, false)));
        assert!(names_fit(&wanted(156, true)) && !names_fit(&wanted(157, true)));
    }
}
