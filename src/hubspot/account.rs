//! One HubSpot account: every call to it goes through [`Account::call`], which adds the token, the pace and the retries.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;

use super::{envelope::Refusal, model::AccountDetails, paths::Paths, properties::CachedSchema};
use crate::{
    Error, ErrorKind, Result,
    clock::{Clock, Deadline, Rng},
    codes,
    config::HubSpotAccount,
    http::{
        HttpService,
        client::CALL_TIMEOUT,
        rate_limit::{Bucket, Budget, CallCounts, Permit, RateLimiter},
        retry::{ATTEMPT_RESERVE, Decision, Failure, Policy, Tries, retry_decision},
        token::{Token, TokenParts, TokenSource, call_within, percent_encode},
    },
    mutate::{self, Bug},
    record::ObjectType,
    secrets::Secrets,
};

/// What an [`Account`] is made of.
pub struct AccountParts {
    /// Its name under `hubspot` in the configuration, for messages.
    pub name: String,
    /// Its settings.
    pub settings: HubSpotAccount,
    /// The door to HubSpot.
    pub http: Rc<dyn HttpService>,
    /// Time.
    pub clock: Rc<dyn Clock>,
    /// Chance.
    pub rng: Rc<Rng>,
    /// Where its credential is.
    pub secrets: Rc<dyn Secrets>,
    /// Where its slots come from: [`crate::http::rate_limit::LocalBudget`] unless they are shared with other processes.
    pub budget: Rc<dyn Budget>,
}

/// One HubSpot account.
pub struct Account {
    pub(super) parts: AccountParts,
    pub(super) paths: Paths,
    pub(super) limiter: RateLimiter,
    tokens: TokenSource,
    /// Sets this process's trace ids apart from others'.
    pub(super) nonce: u64,
    pub(super) sequence: Cell<u64>,
    pub(super) schemas: RefCell<BTreeMap<ObjectType, CachedSchema>>,
    pub(super) details: RefCell<Option<AccountDetails>>,
    /// HubSpot's clock against ours, as of the last answer, in whole seconds.
    ahead: Cell<Option<i64>>,
}

/// A request to HubSpot.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Made by [`Paths`].
    pub path: String,
    /// Name and value, not yet encoded.
    pub query: Vec<(&'static str, String)>,
    /// JSON, or nothing.
    pub body: Bytes,
    /// The limit it counts against.
    pub bucket: Bucket,
    /// Whether carrying it out twice does no harm. Only such calls are sent again after an answer was lost.
    pub repeatable: bool,
    /// The body holds values of records: HubSpot's words may quote them and stay out of error texts.
    pub private: bool,
}

impl Call {
    /// A read without a body.
    pub fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            query: Vec::new(),
            body: Bytes::new(),
            bucket: Bucket::Burst,
            repeatable: true,
            private: false,
        }
    }

    /// A write, or a read with a body, that may be repeated and whose body holds values.
    pub fn post(path: String, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            path,
            query: Vec::new(),
            body,
            bucket: Bucket::Burst,
            repeatable: true,
            private: true,
        }
    }
}

/// What HubSpot answered: 2xx from [`Account::call`], also a refusal from [`Account::ask`].
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON of this shape. `HUBSPOT_ANSWER_UNREADABLE` if it is another.
    pub fn json<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // serde's own words may quote a value: tell the place only.
            let message = format!(
                "{what}: HubSpot's answer is not what was expected (line {}, column {})",
                error.line(),
                error.column()
            );
            Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message)
        })
    }
}

impl Account {
    /// Calls nothing yet.
    pub fn new(parts: AccountParts) -> Self {
        let paths = Paths::new(&parts.settings.api_version);
        let tokens = TokenSource::new(TokenParts {
            account: parts.name.clone(),
            secret: parts.settings.secret.clone(),
            token_url: format!("{}{}", parts.settings.base_url.trim_end_matches('/'), paths.token()),
            http: Rc::clone(&parts.http),
            clock: Rc::clone(&parts.clock),
            rng: Rc::clone(&parts.rng),
            secrets: Rc::clone(&parts.secrets),
        });
        let limiter = RateLimiter::new(&parts.settings.limits, Rc::clone(&parts.clock), Rc::clone(&parts.budget));
        let nonce = parts.rng.u64();
        Self {
            parts,
            paths,
            limiter,
            tokens,
            nonce,
            sequence: Cell::new(0),
            schemas: RefCell::default(),
            details: RefCell::default(),
            ahead: Cell::new(None),
        }
    }

    /// Its name under `hubspot` in the configuration.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Where things are in the account's version of the API.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The calls made so far.
    pub fn counts(&self) -> CallCounts {
        self.limiter.counts()
    }

    /// The scopes of the credential, after a first call; `None` where HubSpot does not tell them, as of a private app's token.
    pub fn scopes(&self) -> Option<Vec<String>> {
        self.tokens.scopes()
    }

    /// Share of the account's calls of the day that is used, in percent, where it is known.
    pub fn daily_use_percent(&self) -> Option<f64> {
        self.limiter.daily_use_percent()
    }

    /// When the day's calls are there again: after `DAILY_LIMIT`, the moment to continue at.
    pub fn day_ends(&self) -> Timestamp {
        self.limiter.day_ends()
    }

    /// HubSpot's own time, from its last answer; ours before the first.
    pub fn server_time(&self) -> Timestamp {
        let now = self.parts.clock.now();
        let ahead = self.ahead.get().map(jiff::SignedDuration::from_secs);
        ahead.and_then(|ahead| now.checked_add(ahead).ok()).unwrap_or(now)
    }

    /// A moment of our clock by HubSpot's, as far as its answers tell the difference: whole seconds.
    pub fn at_hubspot(&self, moment: Timestamp) -> Timestamp {
        let ahead = self.ahead.get().map(jiff::SignedDuration::from_secs);
        ahead.and_then(|ahead| moment.checked_add(ahead).ok()).unwrap_or(moment)
    }

    /// Sends `call` and returns a 2xx answer; anything else is an error.
    ///
    /// Kinds: `DailyLimit`, `Unauthorized`, `Forbidden`, `NotFound`, `Refused` (other 4xx), and after all retries `Throttled`,
    /// `Unavailable` (not carried out) or `Unknown` (perhaps carried out).
    pub async fn call(&self, call: Call, deadline: Deadline) -> Result<Answer> {
        let (method, path, private) = (call.method.clone(), call.path.clone(), call.private);
        let answer = self.ask(call, deadline).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let refusal = Refusal::of_body(&answer.body);
        let kind = if answer.status == StatusCode::NOT_FOUND { ErrorKind::NotFound } else { ErrorKind::Refused };
        let message = format!("{method} {path}: {}", describe(answer.status, &refusal, private));
        Err(Error::new(kind, codes::HUBSPOT_REFUSED, message))
    }

    /// As [`Account::call`], but a refusal of the request as such (4xx other than 401, 403, 408, 423, 429, 477) is an answer too.
    pub async fn ask(&self, call: Call, deadline: Deadline) -> Result<Answer> {
        self.ask_until(call, None, deadline, |_| true).await
    }

    /// Waits for the next call's turn under the ten-second limit. What goes into the call can be decided when it has come.
    pub async fn permit(&self, deadline: Deadline) -> Result<Permit> {
        self.acquire(Bucket::Burst, deadline).await
    }

    /// Calls a second that the ten-second limit allows.
    pub fn ceiling_per_second(&self) -> f64 {
        self.limiter.ceiling_per_second()
    }

    /// As [`Account::ask`]; a 2xx that is not `readable` counts as lost and is asked for again.
    pub(super) async fn ask_until(
        &self,
        call: Call,
        mut permit: Option<Permit>,
        deadline: Deadline,
        readable: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let what = format!("{} {}", call.method, call.path);
        let started = self.parts.clock.elapsed();
        // Before the turn is waited for, so that reading a secret does not make it late.
        self.tokens.token(deadline).await.map_err(|error| error.context(&what))?;
        let mut reauthorized = false;
        let mut attempt = 0;
        loop {
            if permit.take().filter(|permit| self.limiter.is_current(permit)).is_none() {
                self.acquire(call.bucket, deadline).await.map_err(|error| error.context(&what))?;
            }
            // The turn, or HubSpot, may have been waited for longer than the token lives.
            let token = self.tokens.token(deadline).await.map_err(|error| error.context(&what))?;
            attempt += 1;
            let request = self.request(&call, &token)?;
            let timeout = CALL_TIMEOUT.min(deadline.remaining(self.parts.clock.now()));
            let answer = call_within(&*self.parts.http, &*self.parts.clock, request, timeout).await;
            let (failure, answer, told) = match answer {
                Err(error) => (Failure::Lost(error.sent), None, error.message),
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let answer = Answer { status: head.status, headers: head.headers, body };
                    self.learn(call.bucket, &answer.headers);
                    match Failure::of(answer.status, &answer.headers, &answer.body) {
                        None if readable(&answer) => return Ok(answer),
                        None => (Failure::Unreadable, None, "an answer that cannot be read".to_owned()),
                        Some(failure) => {
                            let told = describe(answer.status, &Refusal::of_body(&answer.body), call.private);
                            (failure, Some(answer), told)
                        }
                    }
                }
            };
            match failure {
                Failure::Throttled { policy: Policy::Daily, .. } => self.limiter.daily_spent(),
                Failure::Throttled { retry_after, .. } => self.limiter.throttled(call.bucket, retry_after),
                _ => {}
            }
            let elapsed = self.parts.clock.elapsed().saturating_sub(started);
            let tries = Tries { attempt, elapsed, remaining: deadline.remaining(self.parts.clock.now()) };
            match (retry_decision(failure, call.repeatable, tries, self.parts.rng.fraction()), answer) {
                (Decision::RetryAfter(wait), _) => {
                    tracing::debug!(call = what, attempt, wait_ms = wait.as_millis(), told, "repeating a call");
                    self.parts.clock.sleep(wait).await;
                    self.limiter.retried();
                }
                (Decision::Reauthorize, _) if !reauthorized && !mutate::on(Bug::TokenNotReplaced) => {
                    reauthorized = true;
                    self.tokens.refused(token.generation, deadline).await.map_err(|error| error.context(&what))?;
                    self.limiter.retried();
                }
                (Decision::Reauthorize, _) => {
                    let message =
                        format!("{what}: HubSpot refused two tokens of account `{}`: {told}", self.parts.name);
                    return Err(Error::new(ErrorKind::Unauthorized, codes::TOKEN_REFUSED, message));
                }
                (Decision::Stop(ErrorKind::Forbidden), answer) => {
                    // The secret may hold a token by now that may do more.
                    let other =
                        if reauthorized { None } else { self.tokens.replaced(token.generation, deadline).await };
                    if other.is_none() {
                        return Err(self.stopped(&what, ErrorKind::Forbidden, failure, answer.as_ref(), tries, &told));
                    }
                    reauthorized = true;
                    self.limiter.retried();
                }
                (Decision::Stop(ErrorKind::Refused | ErrorKind::NotFound), Some(answer)) => return Ok(answer),
                (Decision::Stop(kind), answer) => {
                    return Err(self.stopped(&what, kind, failure, answer.as_ref(), tries, &told));
                }
            }
        }
    }

    async fn acquire(&self, bucket: Bucket, deadline: Deadline) -> Result<Permit> {
        let remaining = deadline.remaining(self.parts.clock.now()).saturating_sub(ATTEMPT_RESERVE);
        let late = || {
            let message = "there is no time left for the call in this invocation";
            Error::new(ErrorKind::Unavailable { retry_after: None }, codes::HUBSPOT_UNAVAILABLE, message)
        };
        if remaining.is_zero() {
            return Err(late());
        }
        tokio::select! {
            biased;
            acquired = self.limiter.acquire(bucket) => acquired,
            () = self.parts.clock.sleep(remaining) => Err(late()),
        }
    }

    fn request(&self, call: &Call, token: &Token) -> Result<Request<Bytes>> {
        let mut address = format!("{}{}", self.parts.settings.base_url.trim_end_matches('/'), call.path);
        for (index, (name, value)) in call.query.iter().enumerate() {
            address.push(if index == 0 { '?' } else { '&' });
            address.push_str(name);
            address.push('=');
            percent_encode(&mut address, value);
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.value.expose()))
            .map_err(|_| Error::invalid(codes::SECRET_INVALID, "the token holds characters that no header takes"))?;
        bearer.set_sensitive(true);
        let mut request = Request::builder().method(call.method.clone()).uri(address);
        request = request.header(header::AUTHORIZATION, bearer).header(header::ACCEPT, "application/json");
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(call.body.clone()).map_err(|_| {
            Error::invalid(
                codes::CONFIG_INVALID,
                format!("the base_url of account `{}` is not an address", self.parts.name),
            )
        })
    }

    fn learn(&self, bucket: Bucket, headers: &HeaderMap) {
        self.limiter.observe(bucket, headers);
        let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()) {
            self.ahead.set(Some(date.as_second() - self.parts.clock.now().as_second()));
        }
    }

    fn stopped(
        &self,
        what: &str,
        kind: ErrorKind,
        failure: Failure,
        answer: Option<&Answer>,
        tries: Tries,
        told: &str,
    ) -> Error {
        let scopes = answer.map(|answer| Refusal::of_body(&answer.body).scopes).unwrap_or_default();
        let code = match (kind, failure) {
            (ErrorKind::Forbidden, _) => codes::SCOPES_MISSING,
            (ErrorKind::DailyLimit, _) => codes::DAILY_LIMIT,
            (ErrorKind::Throttled { .. }, _) => codes::HUBSPOT_THROTTLED,
            (ErrorKind::Unknown, Failure::Unreadable) => codes::HUBSPOT_ANSWER_UNREADABLE,
            _ => codes::HUBSPOT_UNAVAILABLE,
        };
        let message = match kind {
            ErrorKind::Forbidden if !scopes.is_empty() => {
                format!("{what}: the credential of account `{}` lacks {}", self.parts.name, scopes.join(", "))
            }
            ErrorKind::Forbidden => {
                format!("{what}: the credential of account `{}` may not do this: {told}", self.parts.name)
            }
            ErrorKind::DailyLimit => {
                format!("{what}: the account's calls of the day are spent; next try at {}", self.day_ends())
            }
            _ => format!("{what} failed {} times in {} s: {told}", tries.attempt, tries.elapsed.as_secs()),
        };
        let error = Error::new(kind, code, message);
        match failure {
            // Cloudflare answers so when it cannot make sense of the token.
            Failure::Status { status: 530, .. } => {
                error.with_hint("Check that the secret holds a whole HubSpot token; if it does, HubSpot is down.")
            }
            _ => error,
        }
    }

    /// The wait after which nobody minds one more try: for what becomes visible a moment later.
    pub(super) async fn pause(&self, wait: Duration) {
        self.parts.clock.sleep(wait).await;
    }
}

/// A refusal in a line: status, category and codes, and HubSpot's words unless they may quote values.
pub(super) fn describe(status: StatusCode, refusal: &Refusal, private: bool) -> String {
    let mut text = format!("HubSpot answered {}", status.as_u16());
    for word in [&refusal.category, &refusal.sub_category] {
        if !word.is_empty() && word.len() <= 100 {
            text.push(' ');
            text.push_str(word);
        }
    }
    if private {
        for fault in refusal.faults.iter().take(3) {
            text.push_str(&format!(" {} {}", fault.code, fault.property.as_deref().unwrap_or_default()));
        }
    } else if !refusal.message.is_empty() {
        text.push_str(": ");
        text.push_str(&refusal.text([]));
    }
    if !refusal.correlation_id.is_empty() && refusal.correlation_id.len() <= 60 {
        text.push_str(&format!(" (correlation id {})", refusal.correlation_id));
    }
    text
}
