//! HubSpot as a state machine, so that everything that happens between a client and an account can be tried without
//! one: rules, limits, delays and failures. Time comes from the caller and chance from a seed, so a run can be repeated.
//! Where each rule comes from: `simulator/SOURCES.md`.

mod answer;
mod associations;
mod auth;
mod batch;
mod catalog;
mod cms;
mod doors;
mod faults;
mod history;
mod index;
mod keep;
mod limits;
mod look;
mod metadata;
mod objects;
mod route;
mod search;
pub mod server;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use answer::{Answer, ApiError, Handled};
use associations::Associations;
use auth::{Auth, Caller};
use limits::{Auditor, Day, Window};
use route::{Area, Route};
use store::{Kind, Show};

pub use catalog::{ModificationMetadata, PropertyDefinition, PropertyOption};
pub use doors::LiveObject;
pub use faults::{Fault, Faults, What, When};
pub use history::{Workflow, Write, Writer};
pub use look::{Found, FoundRow, LimitUse, ObjectType, Portrait, PortraitProperty};
pub use settings::{
    CustomObject, IndexLag, Latency, Limits, OAuthClient, Owner, PortalSettings, StaticToken, Unsettled,
};
pub use store::Record;

/// Log entries kept; the oldest half goes when it is full.
const LOG_MAX: usize = 200_000;
/// What the edge answers when it cannot reach HubSpot.
const PAGE_OF_HTML: &str = "<!DOCTYPE html>\n<html><head><title>HubSpot</title></head><body><h1>Something went wrong</h1><p>We are working on it.</p></body></html>";

/// What became of a call.
#[derive(Debug)]
pub enum Outcome {
    /// An answer.
    Response(Response<Bytes>),
    /// The connection is cut and nothing was done.
    ResetBefore,
    /// The connection is cut after the work was done.
    ResetAfter,
    /// The head and the first part of the body arrive (it says how long it would be), then the connection is cut.
    Truncated(Response<Bytes>),
}

/// The outcome of a call and how long the caller waits for it.
#[derive(Debug)]
pub struct Reply {
    /// What comes back.
    pub response: Outcome,
    /// After how long.
    pub latency: Duration,
}

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
    /// Members of `inputs`, 0 where there are none.
    pub inputs: usize,
    /// The app whose token was used; empty if the token was refused.
    pub app: String,
    /// What went wrong on purpose.
    pub fault: Option<What>,
}

/// How many calls there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub requests: u64,
    /// Answered with 429.
    pub throttled: u64,
    /// Records created.
    pub created: u64,
    /// Writes to existing records, whether or not they changed anything.
    pub updated: u64,
    /// Records archived.
    pub archived: u64,
}

/// A HubSpot account.
#[derive(Debug, Clone)]
pub struct Portal {
    settings: PortalSettings,
    rng: fastrand::Rng,
    zone: TimeZone,
    kinds: Vec<Kind>,
    names: HashMap<String, usize>,
    associations: Associations,
    content: cms::Content,
    auth: Auth,
    faults: faults::Plan,
    burst: HashMap<String, Window>,
    association_calls: HashMap<String, Window>,
    searches: Window,
    day: Day,
    auditor: HashMap<String, Auditor>,
    blocklist: HashSet<String>,
    next_id: u64,
    log: Vec<LogEntry>,
    counts: Counts,
    /// Every write, where somebody asked for it.
    history: Option<Vec<Write>>,
    /// Workflows that were started and are not through.
    started: Vec<history::Started>,
    /// Who is writing.
    writer: Writer,
}

/// What a handler knows about the call at hand.
struct Call<'a> {
    now: i64,
    method: &'a str,
    route: &'a Route,
    body: &'a [u8],
    caller: &'a Caller,
}

impl Portal {
    /// An account as the settings describe it. An unknown time zone counts as UTC.
    pub fn new(settings: PortalSettings) -> Self {
        let mut kinds = Vec::new();
        for standard in catalog::standard() {
            let mut kind =
                Kind::new(standard.id, standard.plural, standard.singular, standard.created, standard.modified);
            for definition in standard.properties {
                kind.define(definition, 0, 0);
            }
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            kind.required = owned(standard.required);
            kind.any_of = owned(standard.any_of);
            kind.shown = owned(standard.shown);
            kind.display = standard.display.to_owned();
            kind.groups.push((standard.group.to_owned(), "Information".to_owned()));
            kinds.push(kind);
        }
        for custom in &settings.custom_objects {
            let mut kind =
                Kind::new(&custom.object_type_id, &custom.name, &custom.name, "hs_createdate", "hs_lastmodifieddate");
            kind.fully_qualified = format!("p{}_{}", settings.portal_id, custom.name);
            let group = format!("{}_information", custom.name);
            for mut definition in catalog::custom_properties().into_iter().chain(custom.properties.iter().cloned()) {
                // Its properties are in the one group that it has.
                if definition.hubspot_defined || definition.group_name.is_empty() {
                    definition.group_name.clone_from(&group);
                }
                kind.define(definition, 0, 0);
            }
            kind.required.clone_from(&custom.required);
            kind.display.clone_from(&custom.primary_display);
            kind.shown = ["hs_createdate", "hs_lastmodifieddate", "hs_object_id"].map(str::to_owned).to_vec();
            kind.groups.push((group, "Information".to_owned()));
            kinds.push(kind);
        }
        let mut names = HashMap::new();
        for (at, kind) in kinds.iter().enumerate() {
            for name in [&kind.id, &kind.plural, &kind.singular, &kind.fully_qualified] {
                names.entry(name.to_lowercase()).or_insert(at);
            }
        }
        let mut portal = Self {
            rng: fastrand::Rng::with_seed(settings.seed),
            zone: TimeZone::get(&settings.time_zone).unwrap_or(TimeZone::UTC),
            kinds,
            names,
            associations: Associations::default(),
            content: cms::Content::default(),
            auth: Auth::new(&settings),
            faults: faults::Plan::new(&settings.faults),
            burst: HashMap::new(),
            association_calls: HashMap::new(),
            searches: Window::default(),
            day: Day::default(),
            auditor: HashMap::new(),
            blocklist: HashSet::new(),
            next_id: settings.first_record_id,
            log: Vec::new(),
            counts: Counts::default(),
            history: None,
            started: Vec::new(),
            writer: Writer::Api,
            settings,
        };
        let more = portal.settings.properties.clone();
        for (object, definitions) in more {
            for definition in definitions {
                portal.define_property(&object, definition);
            }
        }
        portal
    }

    /// One call.
    pub fn handle(&mut self, now: Timestamp, request: &Request<Bytes>) -> Reply {
        let now_ms = now.as_millisecond();
        self.work_off(now_ms);
        let method = request.method().as_str();
        let path = request.uri().path();
        let route = Route::parse(path, request.uri().query());
        self.counts.requests += 1;
        let jitter =
            if self.settings.latency.jitter_ms == 0 { 0 } else { self.rng.u64(..=self.settings.latency.jitter_ms) };
        let mut latency = Duration::from_millis(self.settings.latency.fixed_ms + jitter);
        let correlation = self.correlation_id();
        let header = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());

        let mut app = String::new();
        let mut rate = Vec::new();
        let mut fault = None;
        let token_call = matches!(route.area, Area::Token(_));
        let uri_bytes = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
        let answer = if uri_bytes >= self.settings.unsettled.uri_bytes_max {
            Ok(Answer::bytes(414, PAGE_OF_HTML.as_bytes().to_vec()).with("content-type", "text/html"))
        } else if let Area::Token(version) = &route.area {
            fault = self.faults.strike(method, path, &mut self.rng);
            match fault.as_ref().and_then(before) {
                Some(answer) => answer,
                None => self.auth.token(version, &route.query, request.body(), now_ms, &self.settings, &mut self.rng),
            }
        } else {
            match self.auth.check(header, now_ms, &self.settings) {
                Err(error) => Err(error),
                Ok(caller) => {
                    app.clone_from(&caller.app);
                    fault = self.faults.strike(method, path, &mut self.rng);
                    let admitted = self.admit(now, &route, method, &caller, &mut rate);
                    match (admitted, &fault) {
                        (Err(error), _) => {
                            fault = None;
                            Err(error)
                        }
                        (Ok(()), Some(What::RevokeToken)) => {
                            self.auth.revoke(&caller.token);
                            self.auth.check(header, now_ms, &self.settings).map(|_| Answer::empty(200))
                        }
                        (Ok(()), what) => match what.as_ref().and_then(before) {
                            Some(answer) => answer,
                            None => {
                                let body = request.body();
                                let call = Call { now: now_ms, method, route: &route, body, caller: &caller };
                                let answer = self.dispatch(&call);
                                self.work_off(now_ms);
                                answer
                            }
                        },
                    }
                }
            }
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(error) => error.answer(&correlation),
        };
        if !token_call {
            answer.headers.append(&mut rate);
        }
        let outcome = match &fault {
            Some(What::ResetBefore) => Outcome::ResetBefore,
            Some(What::ResetAfter) => Outcome::ResetAfter,
            Some(What::TruncatedBody) if answer.body.len() > 1 => {
                let whole = answer.body.len();
                answer.body.truncate(whole / 2);
                let mut response = respond(answer, &correlation, now);
                response.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(whole));
                Outcome::Truncated(response)
            }
            Some(What::TimeoutAfterCommit) => {
                let html = Answer::bytes(524, PAGE_OF_HTML.as_bytes().to_vec()).with("content-type", "text/html");
                Outcome::Response(respond(html, &correlation, now))
            }
            Some(What::Slow(ms)) => {
                latency += Duration::from_millis(*ms);
                Outcome::Response(respond(answer, &correlation, now))
            }
            _ => Outcome::Response(respond(answer, &correlation, now)),
        };
        let status = match &outcome {
            Outcome::Response(response) | Outcome::Truncated(response) => response.status().as_u16(),
            Outcome::ResetBefore | Outcome::ResetAfter => 0,
        };
        if status == 429 {
            self.counts.throttled += 1;
        }
        if self.log.len() >= LOG_MAX {
            self.log.drain(..LOG_MAX / 2);
        }
        self.log.push(LogEntry {
            at: now,
            method: method.to_owned(),
            path: path.to_owned(),
            status,
            inputs: batch::count_inputs(path, request.body()),
            app,
            fault,
        });
        Reply { response: outcome, latency }
    }

    /// Counts the call against its buckets, or refuses it.
    fn admit(
        &mut self,
        now: Timestamp,
        route: &Route,
        method: &str,
        caller: &Caller,
        headers: &mut Vec<(&'static str, String)>,
    ) -> Handled<()> {
        let now_ms = now.as_millisecond();
        let limits = self.settings.limits.clone();
        let search = matches!(route.area, Area::Objects { .. })
            && method == "POST"
            && route.rest.first().is_some_and(|one| one == "search");
        let associations = matches!(route.area, Area::Associations { .. });
        if !search && !associations {
            self.auditor.entry(caller.app.clone()).or_default().arrived(now_ms, limits.interval_ms);
        }
        let date = now.to_zoned(self.zone.clone()).date();
        let daily_used = self.day.used(date);
        if limits.daily.is_some_and(|limit| daily_used >= limit) {
            let wait = match now.to_zoned(self.zone.clone()).tomorrow().and_then(|at| at.start_of_day()) {
                Ok(midnight) => midnight.timestamp().as_millisecond().abs_diff(now_ms),
                Err(_) => 3_600_000,
            };
            return Err(throttled(Throttle::Day, limits.retry_after.then_some(wait)));
        }
        let mut remaining = None;
        if search {
            if let Some(limit) = limits.search_per_second
                && let Err(wait) = self.searches.take(now_ms, 1_000, limit)
            {
                return Err(throttled(Throttle::Search, limits.retry_after.then_some(wait)));
            }
        } else {
            let (bucket, limit) = if associations {
                (&mut self.association_calls, limits.associations)
            } else {
                (&mut self.burst, limits.burst)
            };
            if let Some(limit) = limit {
                if !bucket.contains_key(&caller.app) {
                    bucket.insert(caller.app.clone(), Window::default());
                }
                let Some(window) = bucket.get_mut(&caller.app) else { return Ok(()) };
                match window.take(now_ms, limits.interval_ms, limit) {
                    Ok(left) => remaining = Some((limit, left)),
                    Err(wait) => {
                        let policy = Throttle::Burst(self.settings.portal_id);
                        return Err(throttled(policy, limits.retry_after.then_some(wait)));
                    }
                }
            }
        }
        self.day.take(date, limits.daily);
        if let Some((limit, left)) = remaining.filter(|_| !associations) {
            headers.push(("x-hubspot-ratelimit-max", limit.to_string()));
            headers.push(("x-hubspot-ratelimit-remaining", left.to_string()));
            headers.push(("x-hubspot-ratelimit-interval-milliseconds", limits.interval_ms.to_string()));
            headers.push(("x-hubspot-ratelimit-secondly", (limit / 10).to_string()));
            headers.push(("x-hubspot-ratelimit-secondly-remaining", (limit / 10).saturating_sub(1).to_string()));
            if let Some(daily) = limits.daily.filter(|_| !caller.oauth) {
                headers.push(("x-hubspot-ratelimit-daily", daily.to_string()));
                let left = daily.saturating_sub(daily_used + 1);
                headers.push(("x-hubspot-ratelimit-daily-remaining", left.to_string()));
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, call: &Call<'_>) -> Handled {
        match &call.route.area {
            Area::Objects { kind } => self.objects(call, kind),
            Area::Associations { from, to } => self.associations(call, from, to),
            Area::Properties { kind } => self.properties(call, kind),
            Area::Owners => self.owners(call),
            Area::Pipelines { kind } => self.pipelines(call, kind),
            Area::Schemas => self.schemas(call),
            Area::Account => self.account(call),
            Area::Content(kind) => self.content(call, *kind),
            Area::Token(_) | Area::Unknown => Err(ApiError::new(404, "resource not found")),
        }
    }

    /// The object type that a path names: by name, id, fully qualified or short name.
    fn kind(&self, name: &str) -> Handled<usize> {
        match self.names.get(name).or_else(|| self.names.get(&name.to_lowercase())) {
            Some(at) => Ok(*at),
            None => Err(ApiError::new(400, format!("Unable to infer object type from: {name}"))),
        }
    }

    fn at(&self, kind: usize) -> &Kind {
        &self.kinds[kind]
    }

    fn at_mut(&mut self, kind: usize) -> &mut Kind {
        &mut self.kinds[kind]
    }

    /// When the search index will see what is written now.
    fn visible_at(&mut self, now: i64) -> i64 {
        let lag = self.settings.index_lag.clone();
        let jitter = if lag.jitter_ms == 0 { 0 } else { self.rng.u64(..=lag.jitter_ms) };
        let mut wait = lag.fixed_ms.saturating_add(jitter);
        if lag.late_share > 0.0 && self.rng.f64() < lag.late_share {
            wait = wait.max(lag.late_ms);
        }
        now.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX))
    }

    /// Whether a page is to be short, and then by which part of its records.
    fn short_page(&mut self) -> Option<f64> {
        let share = self.settings.unsettled.short_pages;
        (share > 0.0 && self.rng.f64() < share).then(|| self.rng.f64())
    }

    fn correlation_id(&mut self) -> String {
        let (high, low) = (self.rng.u64(..), self.rng.u64(..));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            (low >> 48) & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff
        )
    }

    fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

enum Throttle {
    Burst(u64),
    Day,
    Second,
    Search,
}

fn throttled(which: Throttle, wait_ms: Option<u64>) -> Box<ApiError> {
    let mut error = match which {
        Throttle::Search => ApiError::of(429, "RATE_LIMITS", "You have reached your secondly limit."),
        Throttle::Burst(_) => ApiError::new(429, "You have reached your ten_secondly_rolling limit."),
        Throttle::Day => ApiError::new(429, "You have reached your daily limit."),
        Throttle::Second => ApiError::new(429, "You have reached your secondly limit."),
    };
    let policy = match which {
        Throttle::Burst(_) => Some("TEN_SECONDLY_ROLLING"),
        Throttle::Day => Some("DAILY"),
        Throttle::Second => Some("SECONDLY"),
        Throttle::Search => None,
    };
    if let Some(policy) = policy {
        error.more.push(("errorType", "RATE_LIMIT".into()));
        error.more.push(("policyName", policy.into()));
    }
    if let Throttle::Burst(portal_id) = which {
        let group = format!("publicapi:private-app-api-calls-ten-secondly:{portal_id}");
        error.more.push(("groupName", group.into()));
    }
    if let Some(wait) = wait_ms {
        error.headers.push(("retry-after", wait.div_ceil(1_000).max(1).to_string()));
    }
    error
}

/// The answer of a fault that strikes before anything is done.
fn before(what: &What) -> Option<Handled> {
    let html = |status| Ok(Answer::bytes(status, PAGE_OF_HTML.as_bytes().to_vec()).with("content-type", "text/html"));
    Some(match what {
        What::Locked => Err(ApiError::new(423, "The resource is locked. Please try again later.")),
        What::BurstLimit => Err(throttled(Throttle::Burst(0), None)),
        What::DailyLimit => Err(throttled(Throttle::Day, None)),
        What::SecondlyLimit => Err(throttled(Throttle::Second, None)),
        What::Migrating(seconds) => {
            let mut error = ApiError::new(477, "This account is being migrated between data hosting locations.");
            error.headers.push(("retry-after", seconds.to_string()));
            Err(error)
        }
        What::Status(status) => Err(ApiError::new(*status, "There was a problem with the request.")),
        What::Html(status) => html(*status),
        What::ResetBefore => Ok(Answer::empty(200)),
        What::EmptyResults => Ok(Answer::json(200, &serde_json::json!({"status": "COMPLETE", "results": []}))),
        What::TimeoutAfterCommit | What::TruncatedBody | What::ResetAfter | What::RevokeToken | What::Slow(_) => {
            return None;
        }
    })
}

fn respond(answer: Answer, correlation: &str, now: Timestamp) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(answer.body));
    *response.status_mut() =
        http::StatusCode::from_u16(answer.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !response_is_empty(answer.status) {
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
    }
    if let Ok(value) = HeaderValue::from_str(correlation) {
        headers.insert("x-hubspot-correlation-id", value);
    }
    // HubSpot's clock, in whole seconds, which clients go by.
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
    status == 204
}

/// What a read shows of a record.
fn shown<'a>(named: &'a [u16]) -> Show<'a> {
    Show::Named(named)
}
