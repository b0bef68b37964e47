//! Sessions of one org: made from its secret by one of four flows, kept until Salesforce refuses them, made anew once.
//!
//! Salesforce does not say how long a session lasts, so nothing is computed: a 401 is the only end of one. Any number of calls may wait for
//! a session; one of them gets it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    fault::Fault,
    model::SalesforceId,
    retry::{Failure, retry_decision},
};
use crate::{
    Error, ErrorKind, Result,
    clock::{Clock, Deadline, Rng},
    codes,
    http::{
        HttpService,
        retry::{Decision, Tries},
        token::{call_within, percent_encode},
    },
    secrets::{Redacted, Secrets},
};

/// One attempt at the token endpoint.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// An assertion ends so long from now; Salesforce takes at most five minutes.
const ASSERTION_LIFE: i64 = 180;
/// All calls that were refused at about the same time share one answer.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Longer values are neither tokens nor keys.
const SECRET_BYTES_MAX: usize = 16 * 1024;
/// The generic hosts, on which client credentials do not work.
const GENERIC_HOSTS: [&str; 2] = ["https://login.salesforce.com", "https://test.salesforce.com"];

pub(super) struct SessionParts {
    pub(super) org: String,
    pub(super) secret: String,
    pub(super) http: Rc<dyn HttpService>,
    pub(super) clock: Rc<dyn Clock>,
    pub(super) rng: Rc<Rng>,
    pub(super) secrets: Rc<dyn Secrets>,
}

/// A session and where it counts.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) token: Redacted,
    /// Without a slash at its end.
    pub(super) instance_url: String,
    /// The org, where Salesforce told it.
    pub(super) org_id: Option<SalesforceId>,
    pub(super) user_id: Option<SalesforceId>,
    /// Grows with each new session.
    pub(super) generation: u64,
}

/// A refresh token that came with a session and is not stored yet. The one it replaced is dead.
struct Unsaved {
    replaced: Redacted,
    newest: Redacted,
    /// The rotation's name, so that storing it twice is storing it once.
    name: String,
    value: Redacted,
    granted: Granted,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    generation: u64,
    unsaved: Option<Unsaved>,
    refused: Option<(u64, Duration)>,
}

pub(super) struct Sessions {
    parts: SessionParts,
    state: RefCell<State>,
    turn: tokio::sync::Mutex<()>,
}

enum Flow {
    ClientCredentials { client_secret: Redacted },
    Jwt { username: String, private_key: Redacted, audience: String },
    RefreshToken { client_secret: Option<Redacted>, refresh_token: Redacted },
    Password { client_secret: Redacted, username: String, password: Redacted },
}

struct Credential {
    flow: Flow,
    /// Without a slash at its end.
    login_url: String,
    client_id: Redacted,
    org_id: Option<SalesforceId>,
    all: Map<String, Value>,
}

#[derive(Deserialize, Clone)]
struct Granted {
    access_token: String,
    instance_url: String,
    #[serde(default)]
    id: String,
    refresh_token: Option<String>,
}

impl Sessions {
    pub(super) fn new(parts: SessionParts) -> Self {
        Self { parts, state: RefCell::default(), turn: tokio::sync::Mutex::new(()) }
    }

    fn current(&self) -> Option<Session> {
        self.state.borrow().session.clone()
    }

    /// A session that has not been refused.
    pub(super) async fn session(&self, deadline: Deadline) -> Result<Session> {
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let _turn = self.turn.lock().await;
        match self.current() {
            Some(session) => Ok(session),
            None => self.open(deadline).await,
        }
    }

    /// Salesforce refused the session of this generation: gets another, once for all who were refused.
    pub(super) async fn refused(&self, generation: u64, deadline: Deadline) -> Result<Session> {
        let _turn = self.turn.lock().await;
        let now = self.parts.clock.elapsed();
        {
            let mut state = self.state.borrow_mut();
            if let Some(session) = state.session.as_ref().filter(|session| session.generation > generation) {
                return Ok(session.clone());
            }
            if state.refused.is_some_and(|(refused, at)| refused >= generation && now.saturating_sub(at) < REFUSED_FOR)
            {
                let message = format!("Salesforce refused the session and the credential of org `{}`", self.parts.org);
                return Err(Error::new(ErrorKind::Unauthorized, codes::SALESFORCE_LOGIN_REFUSED, message));
            }
            state.session = None;
        }
        let outcome = self.open(deadline).await;
        if matches!(&outcome, Err(error) if error.kind() == ErrorKind::Unauthorized) {
            self.state.borrow_mut().refused = Some((generation, now));
        }
        outcome
    }

    /// Reads the secret and gets a session for it.
    async fn open(&self, deadline: Deadline) -> Result<Session> {
        if let Some(session) = self.save_rotation().await? {
            return Ok(session);
        }
        let secret = self.parts.secrets.get(&self.parts.secret).await?;
        let credential = parse_secret(&self.parts.secret, &secret)?;
        let granted = self.ask(&credential, deadline).await?;
        self.check(&credential, &granted)?;
        if let (Flow::RefreshToken { refresh_token, .. }, Some(newest)) = (&credential.flow, &granted.refresh_token)
            && newest != refresh_token.expose()
        {
            // The old token is dead: the new one is stored before anything else is done with the session.
            let mut all = credential.all.clone();
            all.insert("refresh_token".to_owned(), json!(newest));
            let unsaved = Unsaved {
                replaced: refresh_token.clone(),
                newest: Redacted::new(newest.clone()),
                name: format!("{:016x}{:016x}", self.parts.rng.u64(), self.parts.rng.u64()),
                value: Redacted::new(Value::Object(all).to_string()),
                granted: granted.clone(),
            };
            self.state.borrow_mut().unsaved = Some(unsaved);
            if let Some(session) = self.save_rotation().await? {
                return Ok(session);
            }
        }
        Ok(self.hold(&granted))
    }

    /// Stores a refresh token that is not stored yet and goes on with the session it came with.
    async fn save_rotation(&self) -> Result<Option<Session>> {
        let todo = self.state.borrow().unsaved.as_ref().map(|unsaved| {
            (unsaved.replaced.clone(), unsaved.newest.clone(), unsaved.name.clone(), unsaved.value.clone())
        });
        let Some((replaced, newest, name, value)) = todo else { return Ok(None) };
        // Somebody may have put another credential there meanwhile: theirs stands.
        let now = self.parts.secrets.get(&self.parts.secret).await?;
        let stored = parse_secret(&self.parts.secret, &now).ok().and_then(|credential| match credential.flow {
            Flow::RefreshToken { refresh_token, .. } => Some(refresh_token),
            _ => None,
        });
        if stored.as_ref() == Some(&replaced) {
            let what = "storing the new refresh token, without which the org cannot be reached again";
            self.parts.secrets.put(&self.parts.secret, &value, &name).await.map_err(|error| error.context(what))?;
        } else if stored.as_ref() != Some(&newest) {
            self.state.borrow_mut().unsaved = None;
            return Ok(None);
        }
        let unsaved = self.state.borrow_mut().unsaved.take();
        Ok(unsaved.map(|unsaved| self.hold(&unsaved.granted)))
    }

    fn hold(&self, granted: &Granted) -> Session {
        let (org_id, user_id) = identity(&granted.id);
        let mut state = self.state.borrow_mut();
        state.generation += 1;
        let session = Session {
            token: Redacted::new(granted.access_token.clone()),
            instance_url: granted.instance_url.trim_end_matches('/').to_owned(),
            org_id,
            user_id,
            generation: state.generation,
        };
        state.session = Some(session.clone());
        session
    }

    /// Refuses a session of another org than the secret names, and an address that the session must not be sent to.
    fn check(&self, credential: &Credential, granted: &Granted) -> Result<()> {
        let org = &self.parts.org;
        if let (Some(wanted), (Some(got), _)) = (&credential.org_id, identity(&granted.id))
            && *wanted != got
        {
            let message = format!("the credential of org `{org}` opened {got}, but its secret names {wanted}");
            return Err(Error::invalid(codes::SECRET_INVALID, message)
                .with_hint("Correct the credential, or `org_id` in the secret."));
        }
        let secure = granted.instance_url.starts_with("https://");
        if !secure && !credential.login_url.starts_with("http://") {
            let message = format!("Salesforce named an address without TLS for org `{org}`");
            return Err(Error::new(ErrorKind::Refused, codes::SALESFORCE_REFUSED, message));
        }
        Ok(())
    }

    fn form(&self, credential: &Credential) -> Result<String> {
        let mut pairs: Vec<(&str, Redacted)> = Vec::new();
        let plain = |text: &str| Redacted::new(text);
        match &credential.flow {
            Flow::ClientCredentials { client_secret } => {
                pairs.push(("grant_type", plain("client_credentials")));
                pairs.push(("client_id", credential.client_id.clone()));
                pairs.push(("client_secret", client_secret.clone()));
            }
            Flow::Jwt { username, private_key, audience } => {
                let now = self.parts.clock.now().as_second();
                let claims = json!({"iss": credential.client_id.expose(), "sub": username, "aud": audience,
                    "exp": now.saturating_add(ASSERTION_LIFE)});
                let assertion = sign(&claims, private_key)
                    .map_err(|error| error.context(format!("secret `{}`", self.parts.secret)))?;
                pairs.push(("grant_type", plain("urn:ietf:params:oauth:grant-type:jwt-bearer")));
                pairs.push(("assertion", assertion));
            }
            Flow::RefreshToken { client_secret, refresh_token } => {
                pairs.push(("grant_type", plain("refresh_token")));
                pairs.push(("client_id", credential.client_id.clone()));
                pairs.extend(client_secret.clone().map(|secret| ("client_secret", secret)));
                pairs.push(("refresh_token", refresh_token.clone()));
            }
            Flow::Password { client_secret, username, password } => {
                pairs.push(("grant_type", plain("password")));
                pairs.push(("client_id", credential.client_id.clone()));
                pairs.push(("client_secret", client_secret.clone()));
                pairs.push(("username", plain(username)));
                pairs.push(("password", password.clone()));
            }
        }
        let mut form = String::new();
        for (name, value) in pairs {
            if !form.is_empty() {
                form.push('&');
            }
            form.push_str(name);
            form.push('=');
            percent_encode(&mut form, value.expose());
        }
        Ok(form)
    }

    async fn ask(&self, credential: &Credential, deadline: Deadline) -> Result<Granted> {
        let org = &self.parts.org;
        let start = self.parts.clock.elapsed();
        let mut attempt = 0;
        loop {
            attempt += 1;
            // Made for each attempt: an assertion ends soon.
            let form = self.form(credential)?;
            let request = Request::post(format!("{}/services/oauth2/token", credential.login_url))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::ACCEPT, "application/json")
                .body(Bytes::from(form))
                .map_err(|_| {
                    Error::invalid(codes::SECRET_INVALID, format!("`login_url` of org `{org}` is not an address"))
                })?;
            let remaining = deadline.remaining(self.parts.clock.now());
            let timeout = TOKEN_TIMEOUT.min(remaining);
            let answer = call_within(&*self.parts.http, &*self.parts.clock, request, timeout).await;
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
            let elapsed = self.parts.clock.elapsed().saturating_sub(start);
            let tries = Tries { attempt, elapsed, remaining: deadline.remaining(self.parts.clock.now()) };
            // Asking twice for a session does no harm, except where refresh tokens rotate: then a lost answer is a lost token, whether
            // or not it is asked for again.
            match retry_decision(failure, true, tries, self.parts.rng.fraction()) {
                Decision::RetryAfter(wait) => self.parts.clock.sleep(wait).await,
                Decision::Reauthorize
                | Decision::Stop(
                    ErrorKind::Refused | ErrorKind::Forbidden | ErrorKind::NotFound | ErrorKind::Conflict,
                ) => {
                    let words = answer.as_ref().ok().and_then(|answer| refusal(answer.body()));
                    let message = format!(
                        "Salesforce refused the credential of org `{org}`: {}",
                        words.as_deref().unwrap_or(&told)
                    );
                    let error = Error::new(ErrorKind::Unauthorized, codes::SALESFORCE_LOGIN_REFUSED, message);
                    return Err(match words.as_deref().and_then(hint) {
                        Some(hint) => error.with_hint(hint),
                        None => error,
                    });
                }
                Decision::Stop(kind) => {
                    let message = format!(
                        "opening a session of org `{org}` failed {attempt} times in {} s: {told}",
                        elapsed.as_secs()
                    );
                    return Err(Error::new(kind, codes::SALESFORCE_UNAVAILABLE, message));
                }
            }
        }
    }
}

/// Org and user of an identity address: `…/id/00D…/005…`.
fn identity(address: &str) -> (Option<SalesforceId>, Option<SalesforceId>) {
    let mut parts = address.split_once("/id/").map(|(_, rest)| rest).unwrap_or_default().split('/');
    let mut next = || SalesforceId::parse(parts.next()?).ok();
    (next(), next())
}

/// Can stand in a header.
fn usable(token: &str) -> bool {
    !token.is_empty() && token.len() <= SECRET_BYTES_MAX && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Salesforce's words for the refusal, if they are plain words.
fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Words {
        error: String,
        #[serde(default)]
        error_description: String,
    }
    let words: Words = serde_json::from_slice(body).ok()?;
    let text = format!("{} ({})", words.error, words.error_description);
    let plain = text.len() <= 200 && text.bytes().all(|b| b.is_ascii_alphabetic() || b" _'()-/.,".contains(&b));
    plain.then_some(text)
}

fn hint(words: &str) -> Option<&'static str> {
    [
        ("not supported on this domain", "Client credentials work on the org's own address only: set `login_url` to https://….my.salesforce.com."),
        ("no client credentials user", "Set a user to run as in the app's client credentials flow."),
        ("hasn't approved", "Let an administrator pre-authorise the app for the user."),
        ("audience is invalid", "Set `login_url` (or `audience`) to https://login.salesforce.com, https://test.salesforce.com or the org's own address."),
        ("expired access/refresh token", "Authorise the app again and put the new refresh token into the secret."),
        ("authentication failure", "Check user name, password and security token. Orgs made since 2023 block the password flow: use client credentials."),
    ]
    .iter()
    .find(|(part, _)| words.contains(part))
    .map(|(_, hint)| *hint)
}

/// A signed assertion (RS256).
fn sign(claims: &Value, private_key: &Redacted) -> Result<Redacted> {
    let invalid = |what: &'static str| Error::invalid(codes::SECRET_INVALID, what);
    let (der, old_form) =
        pem(private_key.expose()).ok_or_else(|| invalid("`private_key` is not a PEM of an RSA key"))?;
    let key = if old_form { KeyPair::from_der(&der) } else { KeyPair::from_pkcs8(&der) };
    let key = key.map_err(|_| invalid("`private_key` is not an RSA key of 2,048 bits or more"))?;
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| invalid("`private_key` cannot sign"))?;
    Ok(Redacted::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

/// The bytes of a PEM, and whether it is in the old form (PKCS #1). Line breaks may have been lost on the way into the secret.
fn pem(text: &str) -> Option<(Vec<u8>, bool)> {
    let text = text.replace("\\n", "\n");
    let (name, rest) = text.split_once("-----BEGIN ")?.1.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.chars().filter(|letter| !letter.is_whitespace()).collect();
    let old_form = match name {
        "RSA PRIVATE KEY" => true,
        "PRIVATE KEY" => false,
        _ => return None,
    };
    Some((STANDARD.decode(body).ok()?, old_form))
}

fn parse_secret(id: &str, secret: &Redacted) -> Result<Credential> {
    let invalid = |what: String| {
        Error::invalid(codes::SECRET_INVALID, format!("secret `{id}`: {what}")).with_hint(
        "Store JSON: {\"flow\":\"client_credentials\",\"login_url\":\"https://….my.salesforce.com\",\"client_id\":\"…\",\"client_secret\":\"…\"}.",
    )
    };
    let Ok(Value::Object(all)) = serde_json::from_str::<Value>(secret.expose()) else {
        let what = if secret.expose().trim().is_empty() { "it is empty" } else { "it is not a JSON object" };
        return Err(invalid(what.to_owned()));
    };
    let text = |name: &str| -> Result<Option<String>> {
        match all.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Err(invalid(format!("`{name}` is empty"))),
            Some(Value::String(text)) if text.len() > SECRET_BYTES_MAX => Err(invalid(format!("`{name}` is too long"))),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
            Some(_) => Err(invalid(format!("`{name}` is not text"))),
        }
    };
    let need = |name: &str| text(name)?.ok_or_else(|| invalid(format!("`{name}` is missing")));
    let hidden = |name: &str| need(name).map(Redacted::new);
    let flow = need("flow")?;
    let login_url = need("login_url")?.trim_end_matches('/').to_owned();
    if !login_url.starts_with("https://") && !login_url.starts_with("http://") {
        return Err(invalid("`login_url` does not begin with https://".to_owned()));
    }
    let flow = match flow.as_str() {
        "client_credentials" => {
            if GENERIC_HOSTS.contains(&login_url.as_str()) {
                let what = "client credentials do not work on this `login_url`; use the org's own, https://….my.salesforce.com";
                return Err(invalid(what.to_owned()));
            }
            Flow::ClientCredentials { client_secret: hidden("client_secret")? }
        }
        "jwt" => Flow::Jwt {
            username: need("username")?,
            private_key: hidden("private_key")?,
            audience: text("audience")?.unwrap_or_else(|| login_url.clone()),
        },
        "refresh_token" => Flow::RefreshToken {
            client_secret: text("client_secret")?.map(Redacted::new),
            refresh_token: hidden("refresh_token")?,
        },
        "password" => {
            tracing::warn!(
                secret = id,
                "the password flow is legacy: Salesforce blocks it in newer orgs; use client credentials"
            );
            let token = text("security_token")?.unwrap_or_default();
            let password = Redacted::new(format!("{}{token}", need("password")?));
            Flow::Password { client_secret: hidden("client_secret")?, username: need("username")?, password }
        }
        _ => return Err(invalid("`flow` is none of client_credentials, jwt, refresh_token, password".to_owned())),
    };
    let org_id = text("org_id")?.map(|id| SalesforceId::parse(&id)).transpose();
    let org_id = org_id.map_err(|_| invalid("`org_id` is not an id of 15 or 18 characters".to_owned()))?;
    Ok(Credential { flow, login_url, client_id: hidden("client_id")?, org_id, all })
}

/// What to say of a fault that a session met.
pub(super) fn told_of(fault: Option<&Fault>) -> String {
    fault.map_or_else(|| "401".to_owned(), |fault| fault.told(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(secret: &Value) -> String {
        parse_secret("s", &Redacted::new(secret.to_string()))
            .err()
            .map(|error| error.message().to_owned())
            .unwrap_or_default()
    }

    #[test]
    fn a_secret_says_what_is_missing_and_never_what_is_in_it() {
        let good = json!({"flow": "client_credentials", "login_url": "https://x.my.salesforce.com/", "client_id": "i", "client_secret": "s3cr3t"});
        assert_eq!(problem(&good), "");
        let with = |name: &str, value: Value| {
            let mut one = good.clone();
            one[name] = value;
            problem(&one)
        };
        assert!(with("client_secret", Value::Null).contains("`client_secret` is missing"));
        assert!(with("flow", json!("magic")).contains("client_credentials, jwt"));
        assert!(with("login_url", json!("https://login.salesforce.com")).contains("my.salesforce.com"));
        assert!(with("org_id", json!("00D1")).contains("`org_id`"));
        assert!(with("client_id", json!(5)).contains("not text"));
        for value in [json!(""), json!("x"), json!([])] {
            assert!(!with("client_id", value).contains("s3cr3t"));
        }
        assert!(
            problem(
                &json!({"flow": "jwt", "login_url": "https://login.salesforce.com", "client_id": "i", "username": "u"})
            )
            .contains("`private_key` is missing")
        );
        let bad_key = sign(&json!({}), &Redacted::new("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"));
        assert_eq!(bad_key.unwrap_err().code(), codes::SECRET_INVALID);
    }

    #[test]
    fn org_and_user_are_read_from_the_identity() {
        let (org, user) = identity("https://x.my.salesforce.com/id/00Dak000000000GEAQ/005ak000005hvjJAAQ");
        assert!(org.is_none_or(|org| org.prefix() == "00D"));
        assert_eq!(user.unwrap().as_str(), "005ak000005hvjJAAQ");
        assert_eq!(identity("nonsense"), (None, None));
    }
}
