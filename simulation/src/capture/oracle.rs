//! What must hold of a capture, in words that know nothing of how it works.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::{Hash as _, Hasher as _},
    rc::Rc,
};

use hubferry::objects::{Location, Objects as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Ledger, World,
    lines::{Line, read},
    plan::{Capture, Format},
};
use crate::world::BUCKET;

const IN_S3: &str = "what is in HubSpot is in S3, as it was changed last";
const GONE: &str = "what is gone in HubSpot is told";
const EQUAL: &str = "a record in S3 is the one in HubSpot";
const REPEATS: &str = "who drops repeats by id and version ends the same";
const DURABLE: &str = "everything before the position is durable";
const ORDER: &str = "no row is older than the one before it";
const MANIFESTS: &str = "the manifests list what is there";
const READABLE: &str = "every object can be read";
const LINKS: &str = "associations in S3 are those in HubSpot";
const BEFORE: &str = "what was there before is what was told before";

/// A record as HubSpot has it.
struct Live {
    updated: Timestamp,
    values: BTreeMap<String, String>,
}

/// Objects that were read before.
pub(super) type Cache = BTreeMap<String, (u64, Rc<Vec<Line>>)>;

impl World {
    /// The rows of a capture, in the order of the objects' keys, with the object's key of each; and the objects.
    async fn rows(&self, capture: &Capture) -> (Vec<Rc<Vec<Line>>>, BTreeMap<String, (usize, usize)>) {
        let objects = &self.outside.objects;
        let folder = Location::new(BUCKET, capture.folder());
        let (mut all, mut there) = (Vec::new(), BTreeMap::new());
        for location in objects.list(&folder).await.unwrap() {
            let Some(bytes) = objects.contents(&location) else { continue };
            let mut hasher = std::hash::DefaultHasher::new();
            bytes.hash(&mut hasher);
            let hash = hasher.finish();
            let known = self.cache.borrow().get(&location.key).filter(|(known, _)| *known == hash).cloned();
            let lines = match known {
                Some((_, lines)) => lines,
                None => match read(capture, &location, &bytes) {
                    Ok(lines) => Rc::new(lines),
                    Err(wrong) => {
                        self.outside.fail(READABLE, wrong);
                        Rc::default()
                    }
                },
            };
            self.cache.borrow_mut().insert(location.key.clone(), (hash, lines.clone()));
            there.insert(location.key, (lines.len(), bytes.len()));
            all.push(lines);
        }
        (all, there)
    }

    fn live(&self, capture: &Capture) -> BTreeMap<String, Live> {
        let portal = self.outside.portals[capture.account].borrow();
        let Some(modified) = capture.kind.modified else {
            let content = portal.live_content(capture.kind.object);
            let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
            let live = content.iter().filter_map(|item| {
                let named = text(item, "name").filter(|_| capture.format != Format::Csv);
                let values = named.map(|name| ("name".to_owned(), name)).into_iter().collect();
                Some((text(item, "id")?, Live { updated: Timestamp::MAX, values }))
            });
            return live.collect();
        };
        let mut names = vec![capture.kind.name, modified];
        if capture.kind.object == "contacts" {
            names.push("lastname");
        }
        let live = portal.live_objects(capture.kind.object, &names).map(|one| {
            let values = one.properties.into_iter().filter_map(|(name, value)| Some((name, value?)));
            (one.id, Live { updated: one.updated_at, values: values.filter(|(_, text)| !text.is_empty()).collect() })
        });
        live.collect()
    }

    /// Compares what a consumer has with what HubSpot has: all of it, or what was changed last before `bound`.
    fn compare(&self, capture: &Capture, lines: &[&Line], bound: Option<Timestamp>, as_what: Option<&'static str>) {
        let object = capture.kind.object;
        let mut rebuilt: BTreeMap<&str, &Line> = BTreeMap::new();
        for line in lines {
            match line.operation.as_str() {
                "delete" => rebuilt.remove(line.id.as_str()),
                _ => rebuilt.insert(&line.id, line),
            };
        }
        let ledger = self.ledger.borrow();
        let key = |id: &str| (capture.account, object.to_owned(), id.to_owned());
        let initial = self.initial(capture);
        let live = self.live(capture);
        let name = &capture.name;
        for (id, live) in &live {
            let undated = ledger.undated.contains(&key(id));
            // Without the recycle bin nobody sees who comes back from it, with what was changed before.
            if bound.is_some_and(|bound| live.updated >= bound || undated) || (!capture.deletes && undated) {
                continue;
            }
            if self.was_away_unseen(capture, &ledger, id, live.updated) {
                continue;
            }
            let Some(line) = rebuilt.get(id.as_str()) else {
                let before_it = !capture.snapshot && (live.updated < initial || undated || !capture.is_crm());
                if before_it {
                    continue;
                }
                let seen = format!("{name}: {object} {id}, changed at {}, is not in S3", live.updated);
                self.tell(lines, id);
                self.outside.fail(as_what.or(bound.map(|_| DURABLE)).unwrap_or(IN_S3), seen);
                continue;
            };
            let values = line.values.as_ref();
            for (property, value) in &live.values {
                let told = values.and_then(|values| values.get(property));
                if told != Some(value) {
                    let seen = format!("{name}: {object} {id} {property}: {told:?} in S3, {value:?} in HubSpot");
                    self.tell(lines, id);
                    self.outside.fail(as_what.or(bound.map(|_| DURABLE)).unwrap_or(EQUAL), seen);
                    break;
                }
            }
            if let Some(to) = capture.linked.filter(|_| bound.is_none() && capture.format == Format::Opencdc) {
                let mut there = self.outside.portals[capture.account].borrow().associations_of(object, id, to);
                there.sort_unstable();
                let told = line.linked.clone().unwrap_or_default();
                if told != there {
                    let seen = format!("{name}: {object} {id}: {told:?} in S3, {there:?} in HubSpot");
                    self.outside.fail(as_what.unwrap_or(LINKS), seen);
                }
            }
        }
        if bound.is_some() {
            return;
        }
        for id in rebuilt.keys().filter(|id| !live.contains_key(**id)) {
            let portal = self.outside.portals[capture.account].borrow();
            // Nothing at all tells of a privacy deletion, nor of who had been merged into such a record.
            let survivor = portal.merged_into(object, id).unwrap_or_else(|| (*id).to_owned());
            let is_silent = !capture.deletes && ledger.undated.contains(&key(id));
            if ledger.purged.contains(&key(id)) || ledger.purged.contains(&key(&survivor)) || is_silent {
                continue;
            }
            // Who was merged into a record that was away unseen is told with it: with its next change.
            let merged = survivor != *id;
            let is_away = |one: &Live| merged && self.was_away_unseen(capture, &ledger, &survivor, one.updated);
            if live.get(&survivor).is_some_and(is_away) {
                continue;
            }
            let seen = format!("{name}: {object} {id} is in S3, and not in HubSpot");
            self.tell(lines, id);
            self.outside.fail(as_what.unwrap_or(GONE), seen);
        }
    }

    /// Whether the record was in the recycle bin, and not seen there, while somebody looked: no date moves with a restore, so nobody can know
    /// that what was changed before is still to be told. A record that was edited since, or seen in the bin, is told.
    fn was_away_unseen(&self, capture: &Capture, ledger: &Ledger, id: &str, updated: Timestamp) -> bool {
        let key = (capture.account, capture.kind.object.to_owned(), id.to_owned());
        let Some(absences) = ledger.absent.get(&key) else { return false };
        // The index shows it again so much later.
        let lag = SignedDuration::from_secs(if self.plan.is_prompt { 8 } else { 8 + 20 * 60 });
        let looks = self.outside.looks.borrow();
        let in_bins = |path: &str| path.split('/').any(|part| part == capture.kind.object);
        let was_seen = |from: Timestamp, to: Timestamp| {
            let mut before = Timestamp::MIN;
            looks.listed.iter().filter(|(name, _)| *name == capture.name).any(|(_, ended)| {
                let page = |(at, path, when): &&(usize, String, Timestamp)| {
                    *at == capture.account && in_bins(path) && *when > before
                };
                let began = looks.bins.iter().find(page).map(|(_, _, when)| *when);
                before = *ended;
                began.is_some_and(|began| began >= from && *ended <= to)
            })
        };
        let looked = |from: Timestamp, to: Timestamp| {
            looks.calls.iter().any(|call| call.account == capture.account && (from..=to).contains(&call.at))
        };
        absences.iter().any(|(from, to)| updated <= *to && looked(*from, *to + lag) && !was_seen(*from, *to))
    }

    /// What was told of a record, for who reads the trace.
    fn tell(&self, lines: &[&Line], id: &str) {
        for line in lines.iter().filter(|line| line.id == id) {
            self.note(format_args!("{id}: {} {} {} {:?}", line.operation, line.cause, line.version, line.values));
        }
    }

    fn initial(&self, capture: &Capture) -> Timestamp {
        let positions = self.outside.positions.borrow();
        positions.get(&capture.name).map(|position| position.initial_timestamp).unwrap_or_default()
    }

    /// After an invocation: what the position says is durable is.
    pub(super) async fn check_durable(&self) {
        for capture in self.plan.captures.iter().filter(|one| one.is_crm() && one.format != Format::Parquet) {
            let position = self.outside.positions.borrow().get(&capture.name).cloned();
            let Some(position) = position else { continue };
            let bound = if self.plan.is_prompt { position.timestamp } else { position.trailing_timestamp };
            let before = self.checked.borrow().get(&capture.name).copied();
            let Some(bound) = bound.filter(|bound| before.is_none_or(|before| *bound > before)) else { continue };
            self.checked.borrow_mut().insert(capture.name.clone(), bound);
            let (rows, _) = self.rows(capture).await;
            let lines: Vec<&Line> = rows.iter().flat_map(|rows| rows.iter()).collect();
            self.compare(capture, &lines, Some(bound), None);
        }
    }

    /// When all is quiet: everything.
    pub(super) async fn check_all(&self) {
        for capture in &self.plan.captures {
            let (rows, there) = self.rows(capture).await;
            self.check_manifests(capture, &there).await;
            if capture.format == Format::Parquet {
                continue;
            }
            let lines: Vec<&Line> = rows.iter().flat_map(|rows| rows.iter()).collect();
            self.compare(capture, &lines, None, None);
            let mut seen = HashSet::new();
            let once: Vec<&Line> =
                lines.iter().filter(|line| seen.insert((&line.id, &line.version))).copied().collect();
            self.compare(capture, &once, None, Some(REPEATS));
            self.check_order(capture, &lines);
        }
    }

    fn check_order(&self, capture: &Capture, lines: &[&Line]) {
        let Some(modified) = capture.kind.modified else { return };
        let ledger = self.ledger.borrow();
        let mut last: BTreeMap<&str, &Line> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.values.is_some()) {
            let date = |line: &Line| line.values.as_ref()?.get(modified)?.parse::<Timestamp>().ok();
            let before = last.insert(line.id.as_str(), line);
            let Some(before) = before else { continue };
            if date(before) > date(line) {
                let seen = format!("{}: {}: {:?} after {:?}", capture.name, line.id, date(line), date(before));
                self.outside.fail(ORDER, seen);
            }
            // What changed while the snapshot was taken is told again, against what was there at its start.
            if before.operation == "snapshot" {
                continue;
            }
            let undated = (capture.account, capture.kind.object.to_owned(), line.id.clone());
            if let Some(told) =
                line.before.as_ref().filter(|_| self.plan.is_prompt && !ledger.undated.contains(&undated))
            {
                let (told, was) =
                    (told.get(capture.kind.name), before.values.as_ref().and_then(|v| v.get(capture.kind.name)));
                if told != was {
                    let seen = format!("{}: {}: before is {told:?}, and it was {was:?}", capture.name, line.id);
                    self.outside.fail(BEFORE, seen);
                }
            }
        }
    }

    async fn check_manifests(&self, capture: &Capture, there: &BTreeMap<String, (usize, usize)>) {
        let folder = Location::new(BUCKET, format!("manifests/{}/", capture.name));
        let mut listed: BTreeSet<String> = BTreeSet::new();
        for location in self.outside.objects.list(&folder).await.unwrap() {
            let bytes = self.outside.objects.contents(&location).unwrap_or_default();
            let Ok(manifest) = serde_json::from_slice::<Value>(&bytes) else {
                self.outside.fail(MANIFESTS, format!("{location} cannot be read"));
                continue;
            };
            let number = |value: &Value| value.as_u64().unwrap_or_default();
            let mut records = 0;
            for object in manifest["objects"].as_array().into_iter().flatten() {
                let key = object["key"].as_str().unwrap_or_default().to_owned();
                records += number(&object["records"]);
                let Some((lines, bytes)) = there.get(&key) else {
                    self.outside.fail(MANIFESTS, format!("{location} lists {key}, which is not there"));
                    continue;
                };
                let counted = capture.format == Format::Parquet || *lines as u64 == number(&object["records"]);
                if !counted || *bytes as u64 != number(&object["bytes"]) {
                    let seen = format!("{location}: {object} is {lines} rows in {bytes} bytes");
                    self.outside.fail(MANIFESTS, seen);
                }
                listed.insert(key);
            }
            let changes = &manifest["changes"];
            let told: u64 = ["snapshot", "create", "update", "delete"].iter().map(|name| number(&changes[name])).sum();
            if told != records {
                self.outside.fail(MANIFESTS, format!("{location}: {told} changes, and {records} rows"));
            }
        }
        for key in there.keys().filter(|key| !listed.contains(*key)) {
            self.outside.fail(MANIFESTS, format!("{key} is in no manifest"));
        }
    }
}
