//! A Salesforce org as a state machine, so that everything that happens between a client and an org can be tried without
//! one: rules, limits, delays and failures. Time comes from the caller and chance from a seed, so a run can be repeated.
//! Where each rule comes from: `simulator/SOURCES.md`.

mod answer;
mod auth;
mod bulk;
mod catalog;
mod collections;
mod composite;
mod csv;
mod doors;
mod eval;
mod faults;
mod ids;
mod keep;
pub mod look;
mod metadata;
mod query;
mod rows;
pub mod server;
mod settings;
pub mod soql;
mod store;
#[cfg(test)]
mod tests;
mod values;
mod write;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use answer::{Answer, ApiError, Handled};
use auth::{Asked, Auth, Caller};
use store::Table;

pub use crate::hubspot::{Outcome, Reply};
pub use catalog::{Field, FieldType};
pub use doors::{Fields, Write};
pub use faults::{Fault, What, When, five_percent};
pub use ids::full as full_id;
pub use settings::{
    Automation, BulkPace, ConnectedApp, CustomObject, DuplicateRule, Flow, OrgLimits, OrgSettings, Rewrite, Scheduled,
    Test, ValidationRule,
};

/// Log entries kept; the oldest half goes when it is full.
const LOG_MAX: usize = 200_000;
/// Salesforce's longest address, in bytes.
const URI_BYTES_MAX: usize = 16_384;
/// The window of the daily limit.
const DAY_MS: i64 = 24 * 3_600_000;
/// What the edge answers when it cannot reach the org.
const PAGE_OF_HTML: &str =
    "<!DOCTYPE html>\n<html><head><title>Salesforce</title></head><body><h1>Down for Maintenance</h1></body></html>";

/// One call, without any value that was in it.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// When it arrived.
    pub at: Timestamp,
    /// Method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Status that was answered; 0 if the connection was cut.
    pub status: u16,
    /// Records in the body, 0 where there are none.
    pub records: usize,
    /// What went wrong on purpose.
    pub fault: Option<What>,
}

/// How many calls and writes there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All calls.
    pub requests: u64,
    /// Those that counted against the daily limit.
    pub counted: u64,
    /// Refused because of a limit.
    pub limited: u64,
    /// Records created through the API.
    pub created: u64,
    /// Records changed through the API, whether or not a value became another.
    pub updated: u64,
    /// Records deleted through the API.
    pub deleted: u64,
}

/// An org.
#[derive(Debug, Clone)]
pub struct Org {
    settings: OrgSettings,
    rng: fastrand::Rng,
    id: String,
    tables: Vec<Table>,
    names: HashMap<String, usize>,
    /// Object and field that the API user may not see, or not write.
    hidden: BTreeSet<(usize, usize)>,
    read_only: BTreeSet<(usize, usize)>,
    /// Records that somebody else holds locked, and until when.
    locked: HashMap<String, i64>,
    auth: Auth,
    faults: faults::Plan,
    /// Calls by minute of the rolling day.
    used: VecDeque<(i64, u64)>,
    cursors: HashMap<String, query::Cursor>,
    jobs: bulk::Jobs,
    next_cursor: u64,
    history: Vec<Write>,
    deleted_log: Vec<(usize, String, i64)>,
    log: Vec<LogEntry>,
    counts: Counts,
    /// Automation that was started and is not through: when, which, table, record.
    started: Vec<(i64, usize, usize, String)>,
    /// Automation is writing.
    in_automation: bool,
}

/// What a handler knows about the call at hand.
struct Call<'a> {
    now: i64,
    method: &'a str,
    /// Segments behind `/services/data/vXX.X`.
    path: Vec<&'a str>,
    version: u32,
    query: &'a [(String, String)],
    headers: &'a HeaderMap,
    body: &'a [u8],
    caller: Caller,
}

impl Call<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn base(&self) -> String {
        format!("/services/data/v{}.0", self.version)
    }

    fn json(&self) -> Handled<Value> {
        serde_json::from_slice(self.body).map_err(|error| {
            let place = format!("at [line:{}, column:{}]", error.line(), error.column());
            ApiError::bad("JSON_PARSER_ERROR", format!("Unexpected character or end of input {place}"))
        })
    }
}

impl Org {
    /// An org as the settings describe it, with the users of its apps.
    pub fn new(settings: OrgSettings) -> Self {
        Self::with_number(settings, 1)
    }

    /// The same with an org id of its own: two orgs with different numbers are two orgs.
    pub fn with_number(settings: OrgSettings, number: u64) -> Self {
        let mut tables: Vec<Table> = catalog::standard(settings.person_accounts).into_iter().map(Table::new).collect();
        for (number, object) in settings.objects.iter().enumerate() {
            tables.push(Table::new(catalog::custom(&object.name, number, &object.fields)));
        }
        let names = tables.iter().enumerate().map(|(at, table)| (table.kind.name.to_lowercase(), at)).collect();
        let mut org = Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            id: ids::make("00D", number),
            tables,
            names,
            hidden: BTreeSet::new(),
            read_only: BTreeSet::new(),
            locked: HashMap::new(),
            auth: Auth::new(&settings),
            faults: faults::Plan::new(&settings.faults),
            used: VecDeque::new(),
            cursors: HashMap::new(),
            jobs: bulk::Jobs::default(),
            next_cursor: 0,
            history: Vec::new(),
            deleted_log: Vec::new(),
            log: Vec::new(),
            counts: Counts::default(),
            started: Vec::new(),
            in_automation: false,
            settings,
        };
        for (object, field) in org.settings.fields.clone() {
            org.define_field(&object, field);
        }
        let mut users: Vec<String> = vec!["admin@example.com".to_owned()];
        users.extend(org.settings.apps.iter().map(|app| app.username.clone()));
        let mut seen = HashSet::new();
        for name in users {
            if seen.insert(name.to_lowercase()) {
                org.add_user(&name);
            }
        }
        org.index_for_rules();
        org
    }

    /// One call.
    pub fn handle(&mut self, now: Timestamp, request: &Request<Bytes>) -> Reply {
        let now_ms = now.as_millisecond();
        self.run_automation(now);
        self.work_on_jobs(now_ms);
        self.counts.requests += 1;
        let path = request.uri().path().to_owned();
        let query = pairs(request.uri().query().unwrap_or_default().as_bytes());
        let method = match query.iter().find(|(name, _)| name == "_HttpMethod") {
            Some((_, method)) if request.method() == http::Method::POST => method.clone(),
            _ => request.method().as_str().to_owned(),
        };
        let jitter = match self.settings.latency_jitter_ms {
            0 => 0,
            most => self.rng.u64(..=most),
        };
        let mut latency = Duration::from_millis(self.settings.latency_ms + jitter);
        let is_token = path.starts_with("/services/oauth2/") || path.starts_with("/services/Soap/");
        // What only the API says does not happen to who signs in.
        let fault = self.faults.strike(&method, &path, &mut self.rng).filter(|what| !is_token || what.is_of_the_way());
        let bearer = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if fault == Some(What::EndSession) {
            self.auth.end(bearer);
        }
        let uri_bytes = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
        let refused = match fault.as_ref().and_then(before) {
            Some(answer) => Some(answer),
            None if uri_bytes > URI_BYTES_MAX => Some(Ok(Answer::bytes(414, "text/html", PAGE_OF_HTML))),
            None => None,
        };
        let mut counted = false;
        let handled = match refused {
            Some(answer) => answer,
            None if is_token => Ok(self.sign_in(&path, request, now_ms)),
            None => self.api(now_ms, &method, &path, &query, request, &mut counted),
        };
        let mut answer = handled.unwrap_or_else(|error| error.answer());
        if counted {
            answer.headers.push(("sforce-limit-info", self.limit_info(now_ms)));
        }
        let records = records_in(request.body());
        let outcome = match &fault {
            Some(What::ResetBefore) => Outcome::ResetBefore,
            Some(What::ResetAfter) => Outcome::ResetAfter,
            Some(What::TruncatedBody) if answer.body.len() > 1 => {
                let whole = answer.body.len();
                answer.body.truncate(whole / 2);
                let mut response = respond(answer, now);
                response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(whole));
                Outcome::Truncated(response)
            }
            Some(What::TimeoutAfterCommit) => {
                Outcome::Response(respond(Answer::bytes(504, "text/html", PAGE_OF_HTML), now))
            }
            Some(What::Slow(ms)) => {
                latency += Duration::from_millis(*ms);
                Outcome::Response(respond(answer, now))
            }
            _ => Outcome::Response(respond(answer, now)),
        };
        let status = match &outcome {
            Outcome::Response(response) | Outcome::Truncated(response) => response.status().as_u16(),
            Outcome::ResetBefore | Outcome::ResetAfter => 0,
        };
        if self.log.len() >= LOG_MAX {
            self.log.drain(..LOG_MAX / 2);
        }
        self.log.push(LogEntry { at: now, method, path, status, records, fault });
        Reply { response: outcome, latency }
    }

    /// The token endpoints.
    fn sign_in(&mut self, path: &str, request: &Request<Bytes>, now: i64) -> Answer {
        let uri = request.uri();
        let host_header = request.headers().get(http::header::HOST).and_then(|value| value.to_str().ok());
        let authority = uri.authority().map(|authority| authority.as_str()).or(host_header).unwrap_or("localhost");
        let scheme = uri.scheme_str().unwrap_or("http");
        let host = authority.split(':').next().unwrap_or(authority).to_owned();
        let instance_url = self.settings.instance_url.clone().unwrap_or_else(|| match host.as_str() {
            "login.salesforce.com" | "test.salesforce.com" => OrgSettings::LOGIN_URL.to_owned(),
            _ => format!("{scheme}://{authority}"),
        });
        let basic = request.headers().get(http::header::AUTHORIZATION).and_then(|value| {
            use base64::Engine as _;
            let (kind, text) = value.to_str().ok()?.split_once(' ')?;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            let text = String::from_utf8(bytes).ok().filter(|_| kind.eq_ignore_ascii_case("basic"))?;
            text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
        });
        let (users, org) = (self.users(), self.id.clone());
        let asked = Asked { form: pairs(request.body()), basic, host: &host, instance_url, now, users, org };
        if let Some(version) = path.strip_prefix("/services/Soap/u/") {
            let version = version.split(['.', '/']).next().and_then(|text| text.parse().ok()).unwrap_or(0);
            let body = String::from_utf8_lossy(request.body());
            return self.auth.soap(version, &asked, &body, &self.settings, &mut self.rng);
        }
        match path {
            "/services/oauth2/token" if request.method() == http::Method::POST => {
                self.auth.token(&asked, &self.settings, &mut self.rng)
            }
            "/services/oauth2/revoke" => {
                if let Some((_, token)) = asked.form.iter().find(|(name, _)| name == "token") {
                    self.auth.end(Some(&format!("Bearer {token}")));
                }
                Answer::empty(200)
            }
            _ => Answer::bytes(404, "text/html", PAGE_OF_HTML),
        }
    }

    /// Everything under `/services/data`.
    fn api(
        &mut self,
        now: i64,
        method: &str,
        path: &str,
        query: &[(String, String)],
        request: &Request<Bytes>,
        counted: &mut bool,
    ) -> Handled {
        let segments: Vec<String> = (path.trim_matches('/').split('/'))
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (version, rest) = match segments.as_slice() {
            ["services", "data"] => return Ok(self.versions()),
            ["services", "data", version, rest @ ..] => (*version, rest),
            _ => return Ok(Answer::bytes(404, "text/html", PAGE_OF_HTML)),
        };
        let number =
            version.strip_prefix('v').and_then(|text| text.strip_suffix(".0")).and_then(|text| text.parse().ok());
        let version: u32 = match number {
            Some(number) if number > self.settings.newest_version => return Err(ApiError::not_found()),
            Some(number) if number >= self.settings.oldest_version => number,
            Some(_) => {
                return Err(ApiError::new(
                    410,
                    "UNSUPPORTED_API_VERSION",
                    "The requested resource is no longer available",
                ));
            }
            None => return Err(ApiError::not_found()),
        };
        let header = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let caller = self.auth.check(header, now, &self.settings)?;
        *counted = true;
        self.count(now)?;
        let headers = request.headers();
        let call = Call { now, method, path: rest.to_vec(), version, query, headers, body: request.body(), caller };
        self.dispatch(&call)
    }

    fn dispatch(&mut self, call: &Call<'_>) -> Handled {
        match (call.method, call.path.as_slice()) {
            ("GET", ["query"]) => self.query(call, false),
            ("GET", ["queryAll"]) => self.query(call, true),
            ("GET", ["query" | "queryAll", locator]) => self.more(call, locator),
            ("GET", ["limits"]) => Ok(self.limits(call.now)),
            ("GET", ["sobjects"]) => Ok(self.global(call)),
            ("GET", ["sobjects", object, "describe"]) => self.describe(call, object),
            ("GET", ["sobjects", object, "updated"]) => self.updated(call, object),
            ("GET", ["sobjects", object, "deleted"]) => self.deleted(call, object),
            (_, ["sobjects", ..]) => self.rows(call),
            ("POST", ["composite"]) => self.composite(call),
            (_, ["composite", "sobjects", ..]) => self.collections(call),
            (_, ["jobs", ..]) => self.bulk(call),
            _ => Err(ApiError::not_found()),
        }
    }

    /// Counts a call against the rolling day, or refuses it.
    fn count(&mut self, now: i64) -> Handled<()> {
        if self.used(now) >= self.settings.limits.daily {
            self.counts.limited += 1;
            return Err(limit_exceeded());
        }
        let minute = now / 60_000;
        match self.used.back_mut() {
            Some((last, calls)) if *last == minute => *calls += 1,
            _ => self.used.push_back((minute, 1)),
        }
        self.counts.counted += 1;
        Ok(())
    }

    fn used(&mut self, now: i64) -> u64 {
        while self.used.front().is_some_and(|(minute, _)| minute * 60_000 + DAY_MS <= now) {
            self.used.pop_front();
        }
        self.used.iter().map(|(_, calls)| calls).sum::<u64>() + self.settings.limits.used_by_others
    }

    fn limit_info(&mut self, now: i64) -> String {
        let (used, most) = (self.used(now), self.settings.limits.daily);
        match self.settings.limits.long_header {
            true => format!("api-usage={used}/{most}; per-app-api-usage=17/250(appName=sample-app)"),
            false => format!("api-usage={used}/{most}"),
        }
    }

    fn table_at(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// The table, or what Salesforce answers about an object that it does not know.
    fn object(&self, name: &str) -> Handled<usize> {
        self.table_at(name).ok_or_else(ApiError::not_found)
    }

    fn is_hidden(&self, table: usize, field: usize) -> bool {
        self.hidden.contains(&(table, field))
    }
}

fn limit_exceeded() -> Box<ApiError> {
    ApiError::new(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
}

/// What a fault answers in place of the org; `None` where the call is carried out first, or goes on.
fn before(what: &What) -> Option<Handled> {
    Some(match what {
        What::RequestLimit => Err(limit_exceeded()),
        What::ConcurrentLimit => {
            Err(ApiError::new(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded."))
        }
        What::RowLocked => Err(ApiError::bad("UNABLE_TO_LOCK_ROW", write::LOCKED)),
        What::UnknownException => Err(ApiError::new(500, "UNKNOWN_EXCEPTION", "An unexpected error occurred.")),
        What::ServerUnavailable => {
            Err(ApiError::new(503, "SERVER_UNAVAILABLE", "Server is too busy. Please try again later."))
        }
        What::Html(status) => Ok(Answer::bytes(*status, "text/html; charset=UTF-8", PAGE_OF_HTML)),
        What::NotForRest => {
            Err(ApiError::new(401, "INVALID_SESSION_ID", "This session is not valid for use with the REST API"))
        }
        What::NotAttached => Err(ApiError::new(401, "INVALID_SESSION_ID", "Connected app is not attached to Agent")),
        What::ResetBefore => Ok(Answer::empty(200)),
        What::EndSession | What::TimeoutAfterCommit | What::TruncatedBody | What::ResetAfter | What::Slow(_) => {
            return None;
        }
    })
}

fn respond(answer: Answer, now: Timestamp) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(answer.body));
    *response.status_mut() =
        http::StatusCode::from_u16(answer.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !response_is_empty(answer.status) {
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    }
    if let Ok(value) = HeaderValue::from_str(&now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        headers.insert(http::header::DATE, value);
    }
    for (name, value) in answer.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

fn response_is_empty(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// A form or a query, decoded.
fn pairs(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn records_in(body: &[u8]) -> usize {
    if body.first() != Some(&b'{') {
        return 0;
    }
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    json.get("records").or_else(|| json.get("ids")).and_then(Value::as_array).map_or(0, Vec::len)
}
