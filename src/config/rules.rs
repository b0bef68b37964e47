//! The meaning of the settings: what no schema can say.

mod sync;

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Amount, Capture, Format, HubSpotAccount, Import, Mode, SalesforceOrg, Sync,
    check::{Place, Problem, nearest, quoted},
    matching,
    tree::{Node, Yaml},
};
use crate::objects::Location;

/// Version of the format that this program reads.
const VERSION: u64 = 1;
/// Folders of a bucket that hubferry writes itself.
const OWN_FOLDERS: [&str; 5] = ["reports", "rejects", "manifests", "state", "config"];

/// Conduit's names for what can be captured or imported as OpenCDC; any other name is a HubSpot object type.
pub(super) const RESOURCES: [&str; 20] = [
    "crm.contacts",
    "crm.companies",
    "crm.deals",
    "crm.tickets",
    "crm.products",
    "crm.lineItems",
    "crm.quotes",
    "crm.feedbackSubmissions",
    "crm.calls",
    "crm.emails",
    "crm.meetings",
    "crm.notes",
    "crm.tasks",
    "cms.blogs.authors",
    "cms.blogs.posts",
    "cms.blogs.tags",
    "cms.pages.landing",
    "cms.pages.site",
    "cms.hubdb.tables",
    "cms.urlRedirects",
];

/// Every mistake of meaning in `value`, which is what the check of the shape left of `root`; `shape` are that check's findings.
pub(super) fn problems(value: &Value, root: &Node, shape: &[Problem]) -> Vec<Problem> {
    let mut rules = Rules { root, shape, problems: Vec::new() };
    rules.file(value);
    rules.problems
}

struct Rules<'f> {
    root: &'f Node,
    shape: &'f [Problem],
    problems: Vec<Problem>,
}

impl Rules<'_> {
    fn problem(&mut self, place: &Place, text: impl Into<String>) {
        let line = place.line_in(self.root);
        self.problems.push(Problem { place: place.clone(), line, text: text.into() });
    }

    /// Whether the shape of exactly this place was found wrong, so that its absence means nothing.
    fn disputed(&self, place: &Place) -> bool {
        self.shape.iter().any(|problem| problem.place == *place)
    }

    /// Whether anything at or below this place was found wrong, so that what is left of it says little.
    fn damaged(&self, place: &Place) -> bool {
        self.shape.iter().any(|problem| problem.place.is_within(place))
    }

    fn file(&mut self, value: &Value) {
        let root = Place::root();
        if let Some(version) = value.get("version").and_then(Value::as_u64)
            && version != VERSION
        {
            self.problem(
                &root.key("version"),
                format!("this hubferry reads version {VERSION} of the format, not {version}"),
            );
        }
        for (name, place, account) in named::<HubSpotAccount>(value, "hubspot") {
            self.name(&name, &place);
            if let Some(account) = account {
                self.account(&account, &place);
            }
        }
        for (name, place, org) in named::<SalesforceOrg>(value, "salesforce") {
            self.name(&name, &place);
            if let Some(org) = org {
                self.secret(&org.secret, &place.key("secret"));
                if !is_decimal(&org.api_version) {
                    self.problem(&place.key("api_version"), "expected a version such as \"67.0\"");
                }
                self.org(&org, &place);
            }
        }
        let hubspot = keys(self.root, "hubspot");
        let salesforce = keys(self.root, "salesforce");

        let imports = listed::<Import>(value, "imports");
        self.unique_names(imports.iter().map(|(place, import)| (place, import.name.as_str())));
        self.patterns(&imports);
        for (place, import) in &imports {
            self.reference(&import.hubspot, "hubspot", &hubspot, place);
            self.import(import, place);
        }

        let captures = listed::<Capture>(value, "captures");
        self.unique_names(captures.iter().map(|(place, capture)| (place, capture.name.as_str())));
        let mut outputs: Vec<(String, &str)> = Vec::new();
        for (place, capture) in &captures {
            self.reference(&capture.hubspot, "hubspot", &hubspot, place);
            self.capture(capture, place);
            let output = format!("{}/", capture.output.trim_end_matches('/'));
            // Who reads one would read the other's records with it.
            let other = outputs.iter().find(|(other, _)| other.starts_with(&output) || output.starts_with(other));
            if let Some((_, other)) = other {
                self.problem(
                    &place.key("output"),
                    format!("capture `{other}` writes there already; give each capture a prefix of its own"),
                );
            }
            outputs.push((output, &capture.name));
        }

        let syncs = listed::<Sync>(value, "syncs");
        self.unique_names(syncs.iter().map(|(place, sync)| (place, sync.name.as_str())));
        for (place, sync) in &syncs {
            self.reference(&sync.hubspot, "hubspot", &hubspot, place);
            self.reference(&sync.salesforce, "salesforce", &salesforce, place);
            self.sync(sync, place);
        }
        self.syncs(&syncs);

        let data = root.key("data");
        match value.get("data").and_then(Value::as_str) {
            Some(uri) => self.uri(uri, &data),
            None if !syncs.is_empty() && !self.disputed(&data) => {
                self.problem(
                    &data,
                    "missing; a sync has no bucket of its own: say where its reports go, `data: s3://bucket/`",
                );
            }
            None => {}
        }
        let notify = root.key("notify");
        if let Some(secret) = value.pointer("/notify/slack_webhook_secret").and_then(Value::as_str) {
            self.secret(secret, &notify.key("slack_webhook_secret"));
        }
        if let Some(arn) = value.pointer("/notify/sns_topic_arn").and_then(Value::as_str)
            && !(arn.starts_with("arn:") && arn.split(':').nth(2) == Some("sns") && arn.split(':').count() == 6)
        {
            self.problem(&notify.key("sns_topic_arn"), "expected a topic's ARN: arn:aws:sns:REGION:ACCOUNT:TOPIC");
        }
    }

    fn account(&mut self, account: &HubSpotAccount, place: &Place) {
        self.secret(&account.secret, &place.key("secret"));
        let host = account.base_url.strip_prefix("https://").or_else(|| account.base_url.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(['?', '#', '@', ' '])) {
            self.problem(&place.key("base_url"), "expected an address such as https://api.hubapi.com");
        }
        let version = account.api_version.as_bytes();
        let dated = version.len() >= 7
            && version
                .iter()
                .take(7)
                .enumerate()
                .all(|(at, byte)| if at == 4 { *byte == b'-' } else { byte.is_ascii_digit() });
        if account.api_version != "v3" && !dated {
            self.problem(&place.key("api_version"), "expected a dated version such as \"2026-09\", or v3");
        }
        let limits = &account.limits;
        let place = place.key("limits");
        let counts = [
            ("burst", limits.burst.map(u64::from)),
            ("interval_seconds", limits.interval_seconds.map(u64::from)),
            ("daily", limits.daily),
            ("search_per_second", limits.search_per_second.map(u64::from)),
        ];
        for (key, _) in counts.iter().filter(|(_, count)| *count == Some(0)) {
            self.problem(&place.key(key), "must be at least 1");
        }
        match (limits.daily_reserve, limits.daily) {
            (Some(Amount::Share(share)), _) if share >= 1.0 => {
                self.problem(&place.key("daily_reserve"), "leaves hubferry no call; use less than 100%");
            }
            (Some(Amount::Count(reserve)), Some(daily)) if reserve >= daily => {
                self.problem(
                    &place.key("daily_reserve"),
                    format!("leaves hubferry no call; use less than the {daily} of `daily`"),
                );
            }
            _ => {}
        }
    }

    fn import(&mut self, import: &Import, place: &Place) {
        let csv = place.key("csv");
        for (key, byte) in [("delimiter", import.csv.delimiter), ("quote", import.csv.quote)] {
            if byte.is_some_and(|c| !c.is_ascii() || (c.is_ascii_control() && c != '\t') || c.is_ascii_alphanumeric()) {
                self.problem(
                    &csv.key(key),
                    "must be one ASCII character that is neither a letter, a digit nor a line break",
                );
            }
        }
        if import.csv.delimiter.is_some() && import.csv.delimiter == Some(import.csv.quote.unwrap_or('"')) {
            self.problem(&csv.key("delimiter"), "the delimiter and the quote are the same character");
        }
        if import.format != Format::Csv && import.csv != super::CsvSettings::default() {
            self.problem(&csv, "has no meaning here; it goes with format: csv");
        }

        let said = [
            ("object", import.object.is_some() || self.disputed(&place.key("object"))),
            ("records", !import.records.is_empty() || self.disputed(&place.key("records"))),
            ("resource", import.resource.is_some() || self.disputed(&place.key("resource"))),
        ];
        let said = said.iter().filter(|(_, said)| *said).map(|(key, _)| *key).collect::<Vec<_>>();
        match said.as_slice() {
            [] if import.format == Format::Opencdc => {
                self.problem(
                    &place.key("resource"),
                    "missing; format: opencdc needs it, for example `resource: crm.contacts`",
                );
            }
            [] => self.problem(place, "says not what rows become: give `object` and `key`, or `records`"),
            [_] => {}
            several => self.problem(
                place,
                format!("has {}; only one of object, records and resource can be given", several.join(" and ")),
            ),
        }
        if import.format == Format::Opencdc && (import.object.is_some() || !import.records.is_empty()) {
            self.problem(
                &place.key("format"),
                "opencdc records carry their properties: use `resource` in place of object and records",
            );
        }
        if import.resource.is_some() && import.format != Format::Opencdc && !self.disputed(&place.key("format")) {
            self.problem(&place.key("resource"), "goes with format: opencdc; for files with columns use `object`");
        }
        if let Some(resource) = &import.resource {
            self.resource(resource, &place.key("resource"));
        }
        if import.object.is_some()
            && import.records.is_empty()
            && import.key.is_none()
            && !self.disputed(&place.key("key"))
        {
            self.problem(
                &place.key("key"),
                "missing; `object` needs the property that identifies a record, for example `key: email`",
            );
        }
        for (key, text) in
            [("object", import.object.as_ref().map(|object| object.as_str())), ("key", import.key.as_deref())]
        {
            if text.is_some_and(|text| text.trim().is_empty()) {
                self.problem(&place.key(key), "is blank");
            }
        }
        if !import.records.is_empty() {
            for (key, said) in [("key", import.key.is_some()), ("columns", import.columns.is_some())] {
                if said {
                    self.problem(
                        &place.key(key),
                        format!("with `records`, each of the records has a `{key}` of its own"),
                    );
                }
            }
        }
        if import.resource.is_some() && import.columns.is_some() {
            self.problem(
                &place.key("columns"),
                "has no meaning here: opencdc records name their properties themselves",
            );
        }
        if let Some(columns) = &import.columns {
            self.columns(columns, &place.key("columns"));
        }
        for (index, record) in import.records.iter().enumerate() {
            let place = place.key("records").index(index);
            for (key, text) in [("object", record.object.as_str()), ("key", record.key.as_str())] {
                if text.trim().is_empty() {
                    self.problem(&place.key(key), "is blank");
                }
            }
            self.columns(&record.columns, &place.key("columns"));
        }
        self.associate(import, place);
        self.mode(import, place);
    }

    fn columns(&mut self, columns: &BTreeMap<String, super::ColumnRule>, place: &Place) {
        if columns.is_empty() && !self.damaged(place) {
            self.problem(place, "is empty; leave it out to map headers to properties of the same name");
        }
        for (column, rule) in columns {
            let place = place.key(column);
            let details = rule.details();
            if column.trim().is_empty() {
                self.problem(&place, "the column's name is blank");
            }
            if details.property.trim().is_empty() {
                self.problem(&place, "the property's name is blank");
            }
            if let Some(date) = &details.date {
                let sample = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
                if !date.contains('%') || jiff::fmt::strtime::format(date, &sample).is_err() {
                    self.problem(
                        &place.key("date"),
                        format!("{} is not a date format; write it like \"%d/%m/%Y\"", quoted(date)),
                    );
                }
            }
        }
    }

    fn associate(&mut self, import: &Import, import_place: &Place) {
        if import.associate.is_empty() {
            return;
        }
        let place = import_place.key("associate");
        if import.records.is_empty() {
            if !self.damaged(&import_place.key("records")) {
                self.problem(&place, "needs `records`: only the records of one row can be associated");
            }
            return;
        }
        let objects = import.records.iter().map(|record| record.object.as_str()).collect::<Vec<_>>();
        for (index, rule) in import.associate.iter().enumerate() {
            let place = place.index(index);
            for (key, object) in [("from", rule.from.as_str()), ("to", rule.to.as_str())] {
                match objects.iter().filter(|other| **other == object).count() {
                    0 => {
                        let near = nearest(object, objects.iter().copied());
                        let near = near.map_or_else(
                            || format!("they are {}", objects.join(", ")),
                            |near| format!("did you mean `{near}`?"),
                        );
                        self.problem(
                            &place.key(key),
                            format!("{} is none of the row's records; {near}", quoted(object)),
                        );
                    }
                    1 => {}
                    _ => self.problem(
                        &place.key(key),
                        format!(
                            "the row has several records of {}; it is not clear which one is meant",
                            quoted(object)
                        ),
                    ),
                }
            }
            if rule.from == rule.to {
                self.problem(&place, "associates a record with itself");
            }
        }
    }

    fn mode(&mut self, import: &Import, place: &Place) {
        let mode = place.key("mode");
        if import.resource.is_some() {
            for (key, said) in [("skip_unchanged", import.skip_unchanged), ("before_images", import.before_images)] {
                if said {
                    self.problem(&place.key(key), "has no meaning here: opencdc records say what has changed");
                }
            }
        }
        if import.resource.is_some() && import.mode != Mode::Upsert {
            self.problem(&mode, "has no meaning here: opencdc records carry their operation");
        } else if !import.records.is_empty() && matches!(import.mode, Mode::Archive | Mode::Mirror) {
            self.problem(&mode, "archive and mirror work on one object: give `object` and `key` in place of `records`");
        } else if import.mode == Mode::Archive {
            let key = import.key.as_deref().unwrap_or_default();
            let others = import.columns.iter().flatten().filter(|(_, rule)| rule.details().property != key);
            let others = others.map(|(column, _)| quoted(column)).collect::<Vec<_>>();
            if !others.is_empty() {
                let others = others.join(", ");
                self.problem(
                    &place.key("columns"),
                    format!("mode: archive takes the key's column only; leave out {others}"),
                );
            }
        }
    }

    fn capture(&mut self, capture: &Capture, place: &Place) {
        self.resource(&capture.resource, &place.key("resource"));
        self.uri(&capture.output, &place.key("output"));
        let own = Location::parse(&capture.output)
            .and_then(|at| OWN_FOLDERS.into_iter().find(|folder| at.key.starts_with(&format!("{folder}/"))));
        if let Some(own) = own {
            self.problem(
                &place.key("output"),
                format!("`{own}/` is where hubferry keeps files of its own; choose another"),
            );
        }
        if capture.lag_seconds == 0 {
            self.problem(
                &place.key("lag_seconds"),
                "must be at least 1: HubSpot's search index is never up to the second",
            );
        }
        if capture.trailing_seconds != 0 && capture.trailing_seconds <= capture.lag_seconds {
            self.problem(&place.key("trailing_seconds"), "must be more than lag_seconds, or 0 for no second pass");
        }
    }

    /// Names stand in paths, in state and on command lines.
    fn name(&mut self, name: &str, place: &Place) {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            self.problem(place, format!("{} is not a name; use letters, digits, `-` and `_`", quoted(name)));
        }
    }

    fn unique_names<'n>(&mut self, names: impl Iterator<Item = (&'n Place, &'n str)>) {
        let mut seen = BTreeMap::new();
        for (place, name) in names {
            let place = &place.key("name");
            self.name(name, place);
            if let Some(first) = seen.get(name) {
                self.problem(place, format!("{} is the name of the one on line {first} already", quoted(name)));
            } else {
                seen.insert(name, place.line_in(self.root));
            }
        }
    }

    fn patterns(&mut self, imports: &[(Place, Import)]) {
        let mut seen = BTreeMap::new();
        for (place, import) in imports {
            let place = place.key("match");
            if let Err(text) = matching::compile(&import.pattern) {
                self.problem(&place, text);
            }
            if let Some(first) = seen.insert(import.pattern.as_str(), &import.name) {
                self.problem(
                    &place,
                    format!("import `{first}` has the same pattern; an object can go to one import only"),
                );
            }
        }
    }

    fn reference(&mut self, name: &str, kind: &str, known: &[&str], place: &Place) {
        let place = place.key(kind);
        if known.contains(&name) || self.disputed(&place) {
            return;
        }
        let implied = name == "default" && !place.is_in(self.root);
        let near = nearest(name, known.iter().copied());
        let text = match (near, known) {
            (Some(near), _) => format!("no account {} under `{kind}`; did you mean `{near}`?", quoted(name)),
            (None, []) => format!(
                "no account {} under `{kind}`; the file names none: add `{kind}: {{ {name}: {{ secret: … }} }}`",
                quoted(name)
            ),
            (None, known) if implied => {
                format!("no account `default` under `{kind}`; say which one is meant: {}", known.join(", "))
            }
            (None, known) => format!("no account {} under `{kind}`; there are {}", quoted(name), known.join(", ")),
        };
        self.problem(&place, text);
    }

    fn resource(&mut self, resource: &str, place: &Place) {
        if resource.trim().is_empty() {
            self.problem(place, "is blank");
        } else if resource.contains('.') && !RESOURCES.contains(&resource) {
            let near = nearest(resource, RESOURCES.into_iter());
            let near = near
                .map_or_else(|| format!("they are {}", RESOURCES.join(", ")), |near| format!("did you mean `{near}`?"));
            self.problem(place, format!("{} is no resource; {near}", quoted(resource)));
        }
    }

    fn uri(&mut self, uri: &str, place: &Place) {
        let problem = match Location::parse(uri) {
            None => Some("expected s3://bucket/ or s3://bucket/prefix/"),
            Some(at) if !at.key.is_empty() && !at.key.ends_with('/') => Some("a prefix ends with `/`: add it"),
            Some(at) if at.key.starts_with('/') || at.key.contains("//") => Some("has an empty folder name: `//`"),
            Some(at)
                if !at
                    .bucket
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')) =>
            {
                Some("a bucket's name has lower-case letters, digits, `-` and `.` only")
            }
            Some(_) => None,
        };
        if let Some(text) = problem {
            self.problem(place, text);
        }
    }

    /// The value is never repeated: it may be the credential itself.
    fn secret(&mut self, secret: &str, place: &Place) {
        if secret.trim().is_empty() {
            self.problem(place, "is blank");
        } else if secret.starts_with("pat-") || secret.starts_with("https://") || secret.starts_with("Bearer ") {
            self.problem(place, "this is the secret itself; put it into Secrets Manager and its name here");
        }
    }
}

/// The entries of a map at the top: name, place, and the value where its shape is right.
fn named<T: DeserializeOwned>(value: &Value, key: &str) -> Vec<(String, Place, Option<T>)> {
    let entries = value.get(key).and_then(Value::as_object).into_iter().flatten();
    let place = Place::root().key(key);
    entries.map(|(name, value)| (name.clone(), place.key(name), serde_json::from_value(value.clone()).ok())).collect()
}

/// The items of a list at the top whose shape is right, with their places.
fn listed<T: DeserializeOwned>(value: &Value, key: &str) -> Vec<(Place, T)> {
    let items = value.get(key).and_then(Value::as_array).into_iter().flatten().enumerate();
    let place = Place::root().key(key);
    items.filter_map(|(index, item)| Some((place.index(index), serde_json::from_value(item.clone()).ok()?))).collect()
}

/// The names under a key at the top, whatever their values are.
fn keys<'f>(root: &'f Node, key: &str) -> Vec<&'f str> {
    match root.get(key).map(|entry| &entry.value.value) {
        Some(Yaml::Map(entries)) => entries.iter().map(|entry| entry.key.as_str()).collect(),
        _ => Vec::new(),
    }
}

fn is_decimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(whole, rest)| digits(whole) && digits(rest))
}
