//! One Salesforce org: every call to it goes through [`Org::call`], which adds the session, the quota and the retries.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;

use super::{
    auth::{Session, SessionParts, Sessions, told_of},
    describe::Cached,
    fault::Fault,
    model::SalesforceId,
    quota::{Quota, QuotaLimits, Usage},
    retry::{Failure, retry_decision},
};
use crate::{
    Error, ErrorKind, Result,
    clock::{Clock, Deadline, Rng},
    codes,
    config::SalesforceOrg,
    http::{
        HttpService,
        client::CALL_TIMEOUT,
        retry::{ATTEMPT_RESERVE, Decision, Tries},
        token::{call_within, percent_encode},
    },
    secrets::Secrets,
};

/// Salesforce answers 414 above 16,384 bytes of address; the headers need a part of as much.
pub const URI_BYTES_MAX: usize = 14_000;

/// Upserts tell whether a record is new, and collections can upsert, from this version on.
pub const VERSION_LEAST: u32 = 46;

/// Where an org lists the versions it speaks.
const VERSIONS: &str = "/services/data";

/// What an [`Org`] is made of.
pub struct OrgParts {
    /// Its name under `salesforce` in the configuration, for messages.
    pub name: String,
    /// Its settings.
    pub settings: SalesforceOrg,
    /// Where a run stops.
    pub quota: QuotaLimits,
    /// The door to Salesforce.
    pub http: Rc<dyn HttpService>,
    /// Time.
    pub clock: Rc<dyn Clock>,
    /// Chance.
    pub rng: Rc<Rng>,
    /// Where its credential is.
    pub secrets: Rc<dyn Secrets>,
}

/// How many calls were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// All that were sent, those for sessions not among them.
    pub calls: u64,
    /// Those that repeated another.
    pub retried: u64,
}

/// One Salesforce org.
pub struct Org {
    pub(super) parts: OrgParts,
    sessions: Sessions,
    pub(super) schemas: RefCell<BTreeMap<String, Cached>>,
    quota: Cell<Quota>,
    counts: Cell<CallCounts>,
    /// Salesforce's clock against ours, as of the last answer, in whole seconds.
    ahead: Cell<Option<i64>>,
}

/// A request to Salesforce.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Below `/services/data/vXX.X/`; or from the root, with a slash in front.
    pub path: String,
    /// Name and value, not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// More headers.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, CSV, or nothing.
    pub body: Bytes,
    /// Of the body.
    pub content_type: &'static str,
    /// What is wanted.
    pub accept: &'static str,
    /// Whether carrying it out twice does no harm. Only such calls are sent again after an answer was lost.
    pub repeatable: bool,
    /// What messages call it, where its path holds a value.
    pub called: Option<String>,
}

impl Call {
    /// A read without a body.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    /// A request with a JSON body (or none) that may be repeated.
    pub fn new(method: Method, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            headers: Vec::new(),
            body: body.into(),
            content_type: "application/json",
            accept: "application/json",
            repeatable: true,
            called: None,
        }
    }

    fn what(&self) -> String {
        self.called.clone().unwrap_or_else(|| format!("{} {}", self.method, self.path))
    }
}

/// What Salesforce answered: 2xx from [`Org::call`]; also 300, 304 and a refusal from [`Org::ask`].
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// An earlier attempt may have been carried out: its answer was lost, and the call was made again.
    pub is_repeat: bool,
}

impl Answer {
    /// The body as JSON of this shape. `SALESFORCE_ANSWER_UNREADABLE` if it is another.
    pub fn json<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // serde's own words may quote a value: tell the place only.
            let place = format!("line {}, column {}", error.line(), error.column());
            let message = format!("{what}: Salesforce's answer is not what was expected ({place})");
            Error::new(ErrorKind::Unknown, codes::SALESFORCE_ANSWER_UNREADABLE, message)
        })
    }

    /// The first error in the body, if there is one.
    pub fn fault(&self) -> Option<Fault> {
        Fault::all(&self.body).into_iter().next()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Org {
    /// Calls nothing yet.
    pub fn new(parts: OrgParts) -> Self {
        let sessions = Sessions::new(SessionParts {
            org: parts.name.clone(),
            secret: parts.settings.secret.clone(),
            http: Rc::clone(&parts.http),
            clock: Rc::clone(&parts.clock),
            rng: Rc::clone(&parts.rng),
            secrets: Rc::clone(&parts.secrets),
        });
        Self {
            parts,
            sessions,
            schemas: RefCell::default(),
            quota: Cell::default(),
            counts: Cell::default(),
            ahead: Cell::default(),
        }
    }

    /// Its name under `salesforce` in the configuration.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Its settings.
    pub fn settings(&self) -> &SalesforceOrg {
        &self.parts.settings
    }

    /// The calls made so far by this process.
    pub fn counts(&self) -> CallCounts {
        self.counts.get()
    }

    /// What is known of the org's calls.
    pub fn quota(&self) -> Quota {
        self.quota.get()
    }

    /// Calls that may still be made before the run stops; `None` before the org has told its numbers.
    pub fn calls_left(&self) -> Option<u64> {
        self.quota.get().left(self.parts.quota)
    }

    /// Sets how many calls the run made in earlier invocations.
    pub fn set_calls_of_run(&self, calls: u64) {
        self.quota.set(Quota { run: calls, ..self.quota.get() });
    }

    /// Salesforce's own time, from its last answer; ours before the first.
    pub fn server_time(&self) -> Timestamp {
        let now = self.parts.clock.now();
        let ahead = self.ahead.get().map(jiff::SignedDuration::from_secs);
        ahead.and_then(|ahead| now.checked_add(ahead).ok()).unwrap_or(now)
    }

    /// The org and the user of the credential, where Salesforce tells them; opens a session.
    pub async fn identity(&self, deadline: Deadline) -> Result<(Option<SalesforceId>, Option<SalesforceId>)> {
        let session = self.sessions.session(deadline).await?;
        Ok((session.org_id, session.user_id))
    }

    /// Checks that the org speaks the configured version, and that it is one that we can use; learns Salesforce's clock. Not counted by
    /// Salesforce. `CONFIG_INVALID` if not.
    pub async fn check_version(&self, deadline: Deadline) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Version {
            version: String,
        }
        let wanted = &self.parts.settings.api_version;
        let answer = self.call(Call::get(VERSIONS), deadline).await?;
        let all: Vec<Version> = answer.json("GET /services/data")?;
        let major = wanted.split('.').next().and_then(|text| text.parse::<u32>().ok());
        let problem = if major.is_none_or(|major| major < VERSION_LEAST) {
            format!("api_version {wanted} is older than {VERSION_LEAST}.0, which hubferry needs")
        } else if !all.iter().any(|one| one.version == *wanted) {
            let newest = all.last().map(|one| one.version.as_str()).unwrap_or_default();
            format!("org `{}` does not know api_version {wanted}; its newest is {newest}", self.parts.name)
        } else {
            return Ok(());
        };
        Err(Error::invalid(codes::CONFIG_INVALID, problem))
    }

    /// Sends `call` and returns a 2xx answer; anything else is an error.
    ///
    /// Kinds: `DailyLimit` (quota), `Unauthorized`, `Forbidden`, `NotFound`, `Conflict` (412), `Refused` (other refusals), and after all
    /// retries `Throttled`, `Unavailable` (not carried out) or `Unknown` (perhaps carried out).
    pub async fn call(&self, call: Call, deadline: Deadline) -> Result<Answer> {
        let what = call.what();
        let answer = self.ask(call, deadline).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(refused(&what, &answer)) }
    }

    /// As [`Org::call`], but 300, 304 and a refusal (404, 412 and other 4xx that are about the request) are answers too.
    pub async fn ask(&self, call: Call, deadline: Deadline) -> Result<Answer> {
        self.ask_until(call, deadline, |_| true).await
    }

    /// As [`Org::ask`]; a 2xx that is not `readable` counts as lost and is asked for again.
    pub(super) async fn ask_until(
        &self,
        call: Call,
        deadline: Deadline,
        readable: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let what = call.what();
        let started = self.parts.clock.elapsed();
        let mut session = self.sessions.session(deadline).await.map_err(|error| error.context(&what))?;
        let mut reauthorized = false;
        let mut attempt = 0;
        let mut is_repeat = false;
        loop {
            self.check_quota(&what)?;
            let remaining = deadline.remaining(self.parts.clock.now());
            if remaining <= ATTEMPT_RESERVE {
                let message = format!("{what}: there is no time left for the call in this invocation");
                let kind = ErrorKind::Unavailable { retry_after: None };
                return Err(Error::new(kind, codes::SALESFORCE_UNAVAILABLE, message));
            }
            attempt += 1;
            let request = self.request(&call, &session)?;
            let counts = self.counts.get();
            self.counts.set(CallCounts { calls: counts.calls + 1, retried: counts.retried + u64::from(attempt > 1) });
            // The list of versions is free; everything else counts, also if its answer gets lost.
            let counted = u64::from(call.path != VERSIONS);
            self.quota.set(Quota { run: self.quota.get().run + counted, ..self.quota.get() });
            let timeout = CALL_TIMEOUT.min(remaining);
            let answer = call_within(&*self.parts.http, &*self.parts.clock, request, timeout).await;
            let (failure, answer, told) = match answer {
                Err(error) => (Failure::Lost(error.sent), None, error.message),
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let answer = Answer { status: head.status, headers: head.headers, body, is_repeat };
                    self.learn(&answer);
                    match Failure::of(answer.status, &answer.headers, &answer.body) {
                        None if readable(&answer) => return Ok(answer),
                        None => (Failure::Unreadable, None, "an answer that cannot be read".to_owned()),
                        Some(failure) => {
                            let told = describe(&answer);
                            (failure, Some(answer), told)
                        }
                    }
                }
            };
            is_repeat |= failure.may_have_happened();
            let elapsed = self.parts.clock.elapsed().saturating_sub(started);
            let tries = Tries { attempt, elapsed, remaining: deadline.remaining(self.parts.clock.now()) };
            match (retry_decision(failure, call.repeatable, tries, self.parts.rng.fraction()), answer) {
                (Decision::RetryAfter(wait), _) => {
                    tracing::debug!(call = what, attempt, wait_ms = wait.as_millis(), told, "repeating a call");
                    self.parts.clock.sleep(wait).await;
                }
                (Decision::Reauthorize, _) if !reauthorized => {
                    reauthorized = true;
                    let new = self.sessions.refused(session.generation, deadline).await;
                    session = new.map_err(|error| error.context(&what))?;
                }
                (Decision::Reauthorize, answer) => {
                    let told = told_of(answer.and_then(|answer| answer.fault()).as_ref());
                    let message =
                        format!("{what}: Salesforce refused two sessions of org `{}`: {told}", self.parts.name);
                    return Err(Error::new(ErrorKind::Unauthorized, codes::SALESFORCE_LOGIN_REFUSED, message));
                }
                (Decision::Stop(ErrorKind::Refused | ErrorKind::NotFound | ErrorKind::Conflict), Some(answer)) => {
                    return Ok(answer);
                }
                (Decision::Stop(kind), _) => return Err(self.stopped(&what, kind, failure, tries, &told)),
            }
        }
    }

    fn check_quota(&self, what: &str) -> Result<()> {
        let quota = self.quota.get();
        if quota.allows(self.parts.quota) {
            return Ok(());
        }
        let limits = self.parts.quota;
        let Usage { used, most } = quota.org.unwrap_or(Usage { used: 0, most: 0 });
        let message = format!(
            "{what} was not sent: of the {most} calls a day of org `{}`, {used} are used, {} of them by this run; it stops at {} of all and {} of its own",
            self.parts.name,
            quota.run,
            limits.org.of(most),
            limits.run.of(most)
        );
        Err(Error::new(ErrorKind::DailyLimit, codes::SALESFORCE_QUOTA, message))
    }

    fn request(&self, call: &Call, session: &Session) -> Result<Request<Bytes>> {
        let mut address = session.instance_url.clone();
        if !call.path.starts_with('/') {
            address.push_str("/services/data/v");
            address.push_str(&self.parts.settings.api_version);
            address.push('/');
        }
        address.push_str(&call.path);
        for (index, (name, value)) in call.query.iter().enumerate() {
            address.push(if index == 0 { '?' } else { '&' });
            address.push_str(name);
            address.push('=');
            percent_encode(&mut address, value);
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", session.token.expose()))
            .map_err(|_| Error::invalid(codes::SECRET_INVALID, "the session holds characters that no header takes"))?;
        bearer.set_sensitive(true);
        let mut request = Request::builder().method(call.method.clone()).uri(address);
        request = request.header(header::AUTHORIZATION, bearer).header(header::ACCEPT, call.accept);
        // Shown in the org's logs and in change events.
        request = request.header("sforce-call-options", "client=hubferry");
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        request.body(call.body.clone()).map_err(|_| {
            let message = format!("{} cannot be sent to org `{}`", call.what(), self.parts.name);
            Error::invalid(codes::CONFIG_INVALID, message)
        })
    }

    fn learn(&self, answer: &Answer) {
        if let Some(usage) = answer.header("sforce-limit-info").and_then(Usage::of_header) {
            self.quota.set(Quota { org: Some(usage), ..self.quota.get() });
        }
        let date = answer.headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()) {
            self.ahead.set(Some(date.as_second() - self.parts.clock.now().as_second()));
        }
    }

    fn stopped(&self, what: &str, kind: ErrorKind, failure: Failure, tries: Tries, told: &str) -> Error {
        let name = &self.parts.name;
        let (code, message) = match (kind, failure) {
            (ErrorKind::Forbidden, _) => {
                (codes::SALESFORCE_FORBIDDEN, format!("{what}: the credential of org `{name}` may not do this: {told}"))
            }
            (ErrorKind::DailyLimit, _) => {
                (codes::SALESFORCE_QUOTA, format!("{what}: the calls of org `{name}` in 24 hours are spent"))
            }
            _ => {
                let code = match failure {
                    Failure::Unreadable => codes::SALESFORCE_ANSWER_UNREADABLE,
                    _ => codes::SALESFORCE_UNAVAILABLE,
                };
                (code, format!("{what} failed {} times in {} s: {told}", tries.attempt, tries.elapsed.as_secs()))
            }
        };
        Error::new(kind, code, message)
    }

    pub(super) async fn pause(&self, wait: std::time::Duration) {
        self.parts.clock.sleep(self.parts.rng.jitter(wait)).await;
    }
}

/// A refusal in a line: status, code and fields; never Salesforce's words, which may quote a value.
pub(super) fn describe(answer: &Answer) -> String {
    let told = answer.fault().map(|fault| format!(" {}", fault.told(None))).unwrap_or_default();
    format!("Salesforce answered {}{told}", answer.status.as_u16())
}

/// The error that a refusal is.
pub(super) fn refused(what: &str, answer: &Answer) -> Error {
    let kind = match answer.status.as_u16() {
        404 => ErrorKind::NotFound,
        412 => ErrorKind::Conflict,
        _ => ErrorKind::Refused,
    };
    Error::new(kind, codes::SALESFORCE_REFUSED, format!("{what}: {}", describe(answer)))
}
