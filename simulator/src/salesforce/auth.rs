//! Sessions: four OAuth grants, SOAP `login()`, and what ends a session. SOURCES.md "Salesforce: sessions".

use std::collections::HashMap;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Handled};
use super::settings::{ConnectedApp, Flow, OrgSettings};

/// An assertion may not end later than this from now.
const ASSERTION_SECONDS_MAX: i64 = 300;

#[derive(Debug, Clone)]
struct Session {
    user: String,
    used_at: i64,
}

/// Every session of the org.
#[derive(Debug, Clone, Default)]
pub(crate) struct Auth {
    sessions: HashMap<String, Session>,
    refresh_tokens: HashMap<String, String>,
    issued: u64,
}

/// Who called.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) user: String,
}

/// What the token endpoint is asked with.
pub(crate) struct Asked<'a> {
    pub(crate) form: Vec<(String, String)>,
    pub(crate) basic: Option<(String, String)>,
    pub(crate) host: &'a str,
    pub(crate) instance_url: String,
    pub(crate) now: i64,
    /// Ids of users by user name, in small letters.
    pub(crate) users: HashMap<String, String>,
    /// Id of the org.
    pub(crate) org: String,
}

fn refuse(status: u16, error: &str, description: &str) -> Answer {
    Answer::json(status, &json!({"error": error, "error_description": description}))
}

fn is_generic(host: &str) -> bool {
    matches!(host, "login.salesforce.com" | "test.salesforce.com")
}

impl Auth {
    pub(crate) fn new(settings: &OrgSettings) -> Self {
        let tokens = settings
            .apps
            .iter()
            .flat_map(|app| app.refresh_tokens.iter().map(|token| (token.clone(), app.client_id.clone())));
        Self { refresh_tokens: tokens.collect(), ..Self::default() }
    }

    /// Ends every session.
    pub(crate) fn end_all(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn end(&mut self, header: Option<&str>) {
        if let Some(token) = header.and_then(bearer) {
            self.sessions.remove(token);
        }
    }

    /// The refresh tokens that work now.
    pub(crate) fn refresh_tokens(&self) -> Vec<String> {
        let mut all: Vec<String> = self.refresh_tokens.keys().cloned().collect();
        all.sort();
        all
    }

    pub(crate) fn check(&mut self, header: Option<&str>, now: i64, settings: &OrgSettings) -> Handled<Caller> {
        let Some(token) = header.and_then(bearer) else {
            return Err(ApiError::new(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE"));
        };
        let life = i64::try_from(settings.session_seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
        match self.sessions.get_mut(token) {
            Some(session) if now.saturating_sub(session.used_at) < life => {
                if settings.session_slides {
                    session.used_at = now;
                }
                Ok(Caller { user: session.user.clone() })
            }
            _ => Err(ApiError::new(401, "INVALID_SESSION_ID", "Session expired or invalid")),
        }
    }

    /// A new session.
    fn open(&mut self, user: &str, asked: &Asked<'_>, rng: &mut fastrand::Rng) -> String {
        self.issued += 1;
        let token = format!("{}!AQ{:016x}{:016x}.{}", &asked.org[..15], rng.u64(..), rng.u64(..), self.issued);
        self.sessions.insert(token.clone(), Session { user: user.to_owned(), used_at: asked.now });
        token
    }

    /// `POST /services/oauth2/token`.
    pub(crate) fn token(&mut self, asked: &Asked<'_>, settings: &OrgSettings, rng: &mut fastrand::Rng) -> Answer {
        let get = |name: &str| asked.form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let (id, secret) = match &asked.basic {
            Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
            None => (get("client_id"), get("client_secret")),
        };
        let find = |id: Option<&str>| settings.apps.iter().find(|app| Some(app.client_id.as_str()) == id);
        let invalid_client = || refuse(400, "invalid_client_id", "client identifier invalid");
        let bad_secret = || refuse(400, "invalid_client", "invalid client credentials");
        let failed = |why: &str| refuse(400, "invalid_grant", why);
        let allows = |app: &ConnectedApp, flow: Flow| app.flows.contains(&flow);
        let mut rotated = None;
        let mut jwt = false;
        let app = match get("grant_type") {
            Some("client_credentials") => {
                if is_generic(asked.host) {
                    return failed("request not supported on this domain");
                }
                let Some(app) = find(id) else { return invalid_client() };
                if Some(app.client_secret.as_str()) != secret {
                    return bad_secret();
                }
                if !allows(app, Flow::ClientCredentials) || !app.run_as {
                    return failed("no client credentials user enabled");
                }
                app
            }
            Some("password") => {
                let Some(app) = find(id) else { return invalid_client() };
                if Some(app.client_secret.as_str()) != secret {
                    return bad_secret();
                }
                let right = get("username").is_some_and(|name| name.eq_ignore_ascii_case(&app.username))
                    && get("password") == Some(app.password.as_str())
                    && !app.password.is_empty();
                if !right || !allows(app, Flow::Password) {
                    return failed("authentication failure");
                }
                app
            }
            Some("refresh_token") => {
                let Some(app) = find(id) else { return invalid_client() };
                if secret.is_some_and(|secret| secret != app.client_secret) {
                    return bad_secret();
                }
                let token = get("refresh_token").unwrap_or_default();
                if self.refresh_tokens.get(token) != Some(&app.client_id) || !allows(app, Flow::RefreshToken) {
                    return failed("expired access/refresh token");
                }
                if app.rotates {
                    self.refresh_tokens.remove(token);
                    let new = format!("5Aep861{:016x}{:016x}", rng.u64(..), rng.u64(..));
                    self.refresh_tokens.insert(new.clone(), app.client_id.clone());
                    rotated = Some(new);
                }
                app
            }
            Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => {
                jwt = true;
                match assertion(get("assertion").unwrap_or_default(), asked, settings) {
                    Ok(app) => app,
                    Err(why) => return failed(why),
                }
            }
            _ => return refuse(400, "unsupported_grant_type", "grant type not supported"),
        };
        let Some(user) = asked.users.get(&app.username.to_lowercase()) else { return failed("authentication failure") };
        let token = self.open(user, asked, rng);
        let issued = (asked.now).to_string();
        let mut body = json!({"access_token": token, "scope": "api", "instance_url": asked.instance_url,
            "id": format!("{}/id/{}/{user}", asked.instance_url, asked.org), "token_type": "Bearer"});
        if !jwt {
            body["issued_at"] = json!(issued);
            body["signature"] = json!(STANDARD.encode(format!("{}{issued}", asked.org)));
        }
        if let Some(token) = rotated {
            body["refresh_token"] = json!(token);
        }
        Answer::json(200, &body)
    }

    /// `POST /services/Soap/u/{version}` with `login`.
    pub(crate) fn soap(
        &mut self,
        version: u32,
        asked: &Asked<'_>,
        body: &str,
        settings: &OrgSettings,
        rng: &mut fastrand::Rng,
    ) -> Answer {
        let fault = |code: &str, text: &str| {
            let envelope = format!(
                r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:sf="urn:fault.partner.soap.sforce.com"><soapenv:Body><soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {text}</faultstring><detail><sf:LoginFault><sf:exceptionCode>{code}</sf:exceptionCode><sf:exceptionMessage>{text}</sf:exceptionMessage></sf:LoginFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"#
            );
            Answer::bytes(500, "text/xml;charset=UTF-8", envelope)
        };
        if version >= 65 || !settings.soap_login {
            return fault("UNSUPPORTED_API_VERSION", "SOAP login() is not available");
        }
        let element = |name: &str| {
            let from = body.find(&format!("<n1:{name}>"))? + name.len() + 5;
            let to = body[from..].find(&format!("</n1:{name}>"))? + from;
            Some(body[from..to].to_owned())
        };
        let (name, password) = (element("username").unwrap_or_default(), element("password").unwrap_or_default());
        let app = settings.apps.iter().find(|app| {
            app.username.eq_ignore_ascii_case(&name) && app.password == password && !app.password.is_empty()
        });
        let Some(user) = app.and_then(|app| asked.users.get(&app.username.to_lowercase())) else {
            return fault("INVALID_LOGIN", "Invalid username, password, security token; or user locked out.");
        };
        let token = self.open(user, asked, rng);
        let envelope = format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com"><soapenv:Body><loginResponse><result><passwordExpired>false</passwordExpired><serverUrl>{}/services/Soap/u/{version}.0/{}</serverUrl><sessionId>{token}</sessionId><userId>{user}</userId></result></loginResponse></soapenv:Body></soapenv:Envelope>"#,
            asked.instance_url, asked.org
        );
        Answer::bytes(200, "text/xml;charset=UTF-8", envelope)
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (kind, token) = header.split_once(' ')?;
    let known = kind.eq_ignore_ascii_case("bearer") || kind.eq_ignore_ascii_case("oauth");
    (known && !token.trim().is_empty()).then(|| token.trim())
}

/// The app that an assertion speaks for, or why it does not count.
fn assertion<'a>(text: &str, asked: &Asked<'_>, settings: &'a OrgSettings) -> Result<&'a ConnectedApp, &'static str> {
    const INVALID: &str = "invalid assertion";
    let mut parts = text.split('.');
    let (Some(head), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(INVALID);
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let json = |part: &str| decode(part).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let (Some(header), Some(all), Some(signature)) = (json(head), json(claims), decode(signature)) else {
        return Err(INVALID);
    };
    if header["alg"] != "RS256" {
        return Err(INVALID);
    }
    let app = settings.apps.iter().find(|app| all["iss"] == app.client_id.as_str());
    let Some(app) = app.filter(|app| app.flows.contains(&Flow::Jwt)) else { return Err("app_not_found") };
    let signed = format!("{head}.{claims}");
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &app.public_key);
    if key.verify(signed.as_bytes(), &signature).is_err() {
        return Err(INVALID);
    }
    let own = [asked.instance_url.as_str(), "https://login.salesforce.com", "https://test.salesforce.com"];
    if !all["aud"].as_str().is_some_and(|aud| own.contains(&aud.trim_end_matches('/'))) {
        return Err("audience is invalid");
    }
    let expires = all["exp"].as_i64().or_else(|| all["exp"].as_str()?.parse().ok()).unwrap_or(0);
    let now = asked.now / 1_000;
    if expires <= now || expires > now + ASSERTION_SECONDS_MAX {
        return Err(INVALID);
    }
    if !all["sub"].as_str().is_some_and(|sub| sub.eq_ignore_ascii_case(&app.username)) || !app.approved {
        return Err("user hasn't approved this consumer");
    }
    Ok(app)
}
