//! Bearer tokens of one account: read from its secret, refreshed ahead of their end, renewed once when refused.
//!
//! Any number of calls may wait for a token; the secret is read, or the token refreshed, by one of them.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use serde::Deserialize;

use super::{
    HttpError, HttpService, Sent,
    retry::{Decision, Failure, Tries, retry_decision},
};
use crate::{
    Error, ErrorKind, Result,
    clock::{Clock, Deadline, Rng},
    codes,
    secrets::{Redacted, Secrets},
};

/// A token that does not expire is read again after this, so that a rotated secret is picked up before the old token ends.
pub const SECRET_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Refreshed this long before the end (access tokens live 30 minutes), so that no call in flight sees it end.
pub const REFRESH_AHEAD: Duration = Duration::from_secs(5 * 60);

/// A refresh that failed while the old token is still good is tried again after this.
const REFRESH_AGAIN: Duration = Duration::from_secs(30);

/// All calls that were refused at about the same time share one answer.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// One attempt at the token endpoint.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer values are not tokens.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Where a [`TokenSource`] gets what it needs.
pub struct TokenParts {
    /// Names the account in messages.
    pub account: String,
    /// Id of the secret.
    pub secret: String,
    /// Address of the token endpoint.
    pub token_url: String,
    /// The door to it.
    pub http: Rc<dyn HttpService>,
    /// Time.
    pub clock: Rc<dyn Clock>,
    /// Chance.
    pub rng: Rc<Rng>,
    /// Where the secret is.
    pub secrets: Rc<dyn Secrets>,
}

/// A token and which one it is.
#[derive(Debug, Clone)]
pub struct Token {
    /// What goes into `Authorization: Bearer`.
    pub value: Redacted,
    /// Grows with each new token.
    pub generation: u64,
}

struct Held {
    token: Token,
    /// On the clock's `elapsed`: when to get another.
    renew_at: Duration,
    /// When it is of no use any more; `None` where it does not expire.
    expires_at: Option<Duration>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    generation: u64,
    /// The newest refresh token, where it could not be written back.
    unsaved: Option<(Redacted, Redacted, String)>,
    refused: Option<(u64, Duration)>,
    /// What the newest token may do, where HubSpot says so.
    scopes: Option<Vec<String>>,
    /// When the secret was last read because a token may not do something.
    reread_at: Option<Duration>,
}

/// The tokens of one account.
pub struct TokenSource {
    parts: TokenParts,
    state: RefCell<State>,
    turn: tokio::sync::Mutex<()>,
}

enum Credential {
    Static(Redacted),
    OAuth {
        client_id: Redacted,
        client_secret: Redacted,
        refresh_token: Redacted,
        all: serde_json::Map<String, serde_json::Value>,
    },
}

impl TokenSource {
    /// Reads nothing yet.
    pub fn new(parts: TokenParts) -> Self {
        Self { parts, state: RefCell::default(), turn: tokio::sync::Mutex::new(()) }
    }

    /// A token that is good for some time.
    ///
    /// Fails with `SECRET_MISSING`, `SECRET_INVALID`, `TOKEN_REFUSED`, or as the secrets' door or the token endpoint do.
    pub async fn token(&self, deadline: Deadline) -> Result<Token> {
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        let _turn = self.turn.lock().await;
        if let Some(token) = self.fresh() {
            return Ok(token);
        }
        match self.renew(deadline).await {
            Ok(token) => Ok(token),
            // What is held is still good: go on with it, and try again soon.
            Err(error) => self.keep(&error).ok_or(error),
        }
    }

    /// HubSpot refused the token of this generation: gets another, once for all who were refused.
    ///
    /// `TOKEN_REFUSED` if there is no other.
    pub async fn refused(&self, generation: u64, deadline: Deadline) -> Result<Token> {
        let _turn = self.turn.lock().await;
        let now = self.parts.clock.elapsed();
        let old = {
            let mut state = self.state.borrow_mut();
            if let Some(held) = state.held.as_ref().filter(|held| held.token.generation > generation) {
                return Ok(held.token.clone());
            }
            if state.refused.is_some_and(|(refused, at)| refused >= generation && now.saturating_sub(at) < REFUSED_FOR)
            {
                return Err(self.no_other());
            }
            state.held.take().map(|held| held.token.value)
        };
        let outcome = match self.renew(deadline).await {
            Ok(token) if Some(&token.value) == old.as_ref() => Err(self.no_other()),
            outcome => outcome,
        };
        if let Err(error) = &outcome
            && error.kind() == ErrorKind::Unauthorized
        {
            self.state.borrow_mut().refused = Some((generation.max(self.state_generation()), now));
        }
        outcome
    }

    /// HubSpot says that the token of this generation may not do something: another one, if the secret holds one by now. Looks once for all
    /// who were told so at about the same time.
    pub async fn replaced(&self, generation: u64, deadline: Deadline) -> Option<Token> {
        let _turn = self.turn.lock().await;
        let now = self.parts.clock.elapsed();
        let newer = |token: &Token| token.generation > generation;
        {
            let mut state = self.state.borrow_mut();
            if let Some(held) = state.held.as_ref().filter(|held| newer(&held.token)) {
                return Some(held.token.clone());
            }
            if state.reread_at.is_some_and(|at| now.saturating_sub(at) < REFUSED_FOR) {
                return None;
            }
            state.reread_at = Some(now);
        }
        self.renew(deadline).await.ok().filter(newer)
    }

    /// The scopes that were granted with the newest token; `None` where HubSpot does not say so: only a refreshed OAuth token comes with them.
    pub fn scopes(&self) -> Option<Vec<String>> {
        self.state.borrow().scopes.clone()
    }

    fn state_generation(&self) -> u64 {
        self.state.try_borrow().map_or(0, |state| state.generation)
    }

    fn no_other(&self) -> Error {
        let message =
            format!("HubSpot refused the token of account `{}`, and its secret holds no other", self.parts.account);
        Error::new(ErrorKind::Unauthorized, codes::TOKEN_REFUSED, message)
    }

    fn fresh(&self) -> Option<Token> {
        let now = self.parts.clock.elapsed();
        self.state.borrow().held.as_ref().filter(|held| now < held.renew_at).map(|held| held.token.clone())
    }

    fn keep(&self, error: &Error) -> Option<Token> {
        if !matches!(error.kind(), ErrorKind::Unavailable { .. } | ErrorKind::Unknown | ErrorKind::Throttled { .. }) {
            return None;
        }
        let now = self.parts.clock.elapsed();
        let mut state = self.state.borrow_mut();
        let held = state.held.as_mut().filter(|held| held.expires_at.is_none_or(|at| now < at))?;
        held.renew_at = now.saturating_add(REFRESH_AGAIN);
        Some(held.token.clone())
    }

    /// Reads the secret and, for OAuth, gets an access token for it.
    async fn renew(&self, deadline: Deadline) -> Result<Token> {
        let secret = self.parts.secrets.get(&self.parts.secret).await?;
        match parse_secret(&self.parts.secret, &secret)? {
            Credential::Static(value) => {
                self.state.borrow_mut().scopes = None;
                Ok(self.hold(value, SECRET_AGE_MAX, None))
            }
            Credential::OAuth { client_id, client_secret, refresh_token, mut all } => {
                // A refresh token that could not be written back is newer than what the secret still holds.
                let unsaved = self.state.borrow().unsaved.clone().filter(|(replaced, _, _)| *replaced == refresh_token);
                let newest = unsaved.as_ref().map_or(&refresh_token, |(_, newest, _)| newest);
                let granted = self.refresh(&client_id, &client_secret, newest, deadline).await?;
                self.state.borrow_mut().scopes = granted.scopes.clone().filter(|scopes| !scopes.is_empty());
                let life = Duration::from_secs(granted.expires_in);
                let ahead = REFRESH_AHEAD.min(life / 3);
                let token = self.hold(Redacted::new(granted.access_token), life.saturating_sub(ahead), Some(life));
                let newest = granted.refresh_token.map_or_else(|| newest.clone(), Redacted::new);
                if newest != refresh_token {
                    // The same rotation is written under the same name, so that a repeat after a lost answer is harmless.
                    let name = match unsaved {
                        Some((_, unsaved, name)) if unsaved == newest => name,
                        _ => format!("{:016x}{:016x}", self.parts.rng.u64(), self.parts.rng.u64()),
                    };
                    all.insert("refresh_token".to_owned(), newest.expose().into());
                    let value = Redacted::new(serde_json::Value::Object(all).to_string());
                    let saved = self.parts.secrets.put(&self.parts.secret, &value, &name).await;
                    self.state.borrow_mut().unsaved = match saved {
                        Ok(()) => None,
                        Err(error) => {
                            tracing::warn!(account = self.parts.account, %error, "a new refresh token could not be stored; trying again later");
                            Some((refresh_token, newest, name))
                        }
                    };
                }
                Ok(token)
            }
        }
    }

    fn hold(&self, value: Redacted, renew_in: Duration, expires_in: Option<Duration>) -> Token {
        let now = self.parts.clock.elapsed();
        let mut state = self.state.borrow_mut();
        let same = state.held.as_ref().filter(|held| held.token.value == value).map(|held| held.token.clone());
        let token = same.unwrap_or_else(|| {
            state.generation += 1;
            Token { value, generation: state.generation }
        });
        let expires_at = expires_in.map(|life| now.saturating_add(life));
        state.held = Some(Held { token: token.clone(), renew_at: now.saturating_add(renew_in), expires_at });
        token
    }

    async fn refresh(
        &self,
        id: &Redacted,
        secret: &Redacted,
        refresh: &Redacted,
        deadline: Deadline,
    ) -> Result<Granted> {
        let mut form = String::from("grant_type=refresh_token");
        for (name, value) in [("client_id", id), ("client_secret", secret), ("refresh_token", refresh)] {
            form.push('&');
            form.push_str(name);
            form.push('=');
            percent_encode(&mut form, value.expose());
        }
        let body = Bytes::from(form);
        let start = self.parts.clock.elapsed();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = Request::post(&self.parts.token_url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body.clone())
                .map_err(|_| Error::invalid(codes::CONFIG_INVALID, "the account's base_url is not an address"))?;
            let remaining = deadline.remaining(self.parts.clock.now());
            let answer =
                call_within(&*self.parts.http, &*self.parts.clock, request, TOKEN_TIMEOUT.min(remaining)).await;
            let (failure, told) = match &answer {
                Err(error) => (Failure::Lost(error.sent), error.message.clone()),
                Ok(answer) => match Failure::of(answer.status(), answer.headers(), answer.body()) {
                    Some(failure) => (failure, format!("status {}", answer.status().as_u16())),
                    None => match serde_json::from_slice::<Granted>(answer.body()) {
                        Ok(granted) if usable(&granted.access_token) => return Ok(granted),
                        _ => (Failure::Unreadable, "an answer that cannot be read".to_owned()),
                    },
                },
            };
            let now = self.parts.clock.now();
            let elapsed = self.parts.clock.elapsed().saturating_sub(start);
            // Asking twice for an access token does no harm: the refresh token stays the same.
            let tries = Tries { attempt, elapsed, remaining: deadline.remaining(now) };
            match retry_decision(failure, true, tries, self.parts.rng.fraction()) {
                Decision::RetryAfter(wait) => self.parts.clock.sleep(wait).await,
                Decision::Reauthorize
                | Decision::Stop(ErrorKind::Refused | ErrorKind::Forbidden | ErrorKind::NotFound) => {
                    let status = answer.as_ref().ok().and_then(|answer| refusal_word(answer.body()));
                    let what = status.map_or_else(|| told.clone(), |word| format!("{told}, {word}"));
                    let message =
                        format!("HubSpot refused to refresh the token of account `{}`: {what}", self.parts.account);
                    return Err(Error::new(ErrorKind::Unauthorized, codes::TOKEN_REFUSED, message));
                }
                Decision::Stop(kind) => {
                    let message = format!(
                        "refreshing the token of account `{}` failed {attempt} times in {} s: {told}",
                        self.parts.account,
                        elapsed.as_secs()
                    );
                    return Err(Error::new(kind, codes::HUBSPOT_UNAVAILABLE, message));
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    refresh_token: Option<String>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default = "thirty_minutes")]
    expires_in: u64,
}

fn thirty_minutes() -> u64 {
    1_800
}

/// One attempt that takes `timeout` at most; after that the answer counts as lost.
pub(crate) async fn call_within(
    http: &dyn HttpService,
    clock: &dyn Clock,
    request: Request<Bytes>,
    timeout: Duration,
) -> Result<Response<Bytes>, HttpError> {
    tokio::select! {
        biased;
        answer = http.call(request) => answer,
        () = clock.sleep(timeout) => Err(HttpError { sent: Sent::Maybe, message: format!("no answer in {} s", timeout.as_secs()) }),
    }
}

/// Can stand in a header.
fn usable(token: &str) -> bool {
    !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// HubSpot's word for the refusal (`BAD_REFRESH_TOKEN`); nothing that could hold a value.
fn refusal_word(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let word = json.get("status").or_else(|| json.get("error"))?.as_str()?;
    let plain = word.len() <= 60 && word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    plain.then(|| word.to_owned())
}

fn parse_secret(id: &str, secret: &Redacted) -> Result<Credential> {
    let invalid = |what: String| Error::invalid(codes::SECRET_INVALID, format!("secret `{id}`: {what}"));
    let json = serde_json::from_str::<serde_json::Value>(secret.expose());
    let Ok(serde_json::Value::Object(all)) = json else {
        let what = if secret.expose().trim().is_empty() { "it is empty" } else { "it is not a JSON object" };
        return Err(invalid(what.to_owned()));
    };
    let text = |name: &str| -> Result<Option<Redacted>> {
        match all.get(name) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(serde_json::Value::String(text)) if text.trim().is_empty() => {
                Err(invalid(format!("`{name}` is empty")))
            }
            Some(serde_json::Value::String(text)) if !usable(text.trim()) => {
                Err(invalid(format!("`{name}` holds characters that no token has, or is too long")))
            }
            Some(serde_json::Value::String(text)) => Ok(Some(Redacted::new(text.trim()))),
            Some(_) => Err(invalid(format!("`{name}` is not text"))),
        }
    };
    if let Some(token) = text("access_token")? {
        return Ok(Credential::Static(token));
    }
    match (text("client_id")?, text("client_secret")?, text("refresh_token")?) {
        (Some(client_id), Some(client_secret), Some(refresh_token)) => {
            Ok(Credential::OAuth { client_id, client_secret, refresh_token, all })
        }
        (None, None, None) => Err(invalid("it has neither `access_token` nor `refresh_token`".to_owned())),
        (id, secret, refresh) => {
            let missing = [("client_id", id), ("client_secret", secret), ("refresh_token", refresh)];
            let missing: Vec<_> =
                missing.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| format!("`{name}`")).collect();
            Err(invalid(format!("{} is missing", missing.join(" and "))))
        }
    }
}

/// Appends `text` as it stands in a form's or an address's value.
pub(crate) fn percent_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
            out.push('%');
            out.extend([byte >> 4, byte & 15].iter().filter_map(|digit| HEX.get(usize::from(*digit))));
        }
    }
}
