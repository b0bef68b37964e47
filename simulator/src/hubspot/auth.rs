//! Bearer tokens and the OAuth token endpoint. SOURCES.md "Authentication".

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Handled};
use super::limits::Window;
use super::settings::PortalSettings;
use super::store::iso;

/// A token that works, or did.
#[derive(Debug, Clone)]
struct Grant {
    app: String,
    scopes: Vec<String>,
    expires_at: Option<i64>,
}

/// Every token of the account.
#[derive(Debug, Clone, Default)]
pub(crate) struct Auth {
    grants: HashMap<String, Grant>,
    revoked: HashSet<String>,
    issued: u64,
    calls: Window,
}

/// Who called.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) app: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) oauth: bool,
    pub(crate) token: String,
}

impl Caller {
    /// Refuses unless one of the scopes was granted.
    pub(crate) fn need(&self, any_of: &[String]) -> Handled<()> {
        if self.scopes.is_empty() || any_of.iter().any(|scope| self.scopes.contains(scope)) {
            return Ok(());
        }
        let mut error = ApiError::of(
            403,
            "MISSING_SCOPES",
            "This app hasn't been granted all required scopes to make this call. Read more about required scopes here: https://developers.hubspot.com/scopes.",
        );
        error.errors = vec![json!({"message": "One or more of the following scopes are required.",
            "context": {"requiredGranularScopes": any_of}})];
        error.more = vec![("links", json!({"scopes": "https://developers.hubspot.com/scopes"}))];
        Err(error)
    }
}

impl Auth {
    pub(crate) fn new(settings: &PortalSettings) -> Self {
        let grants = settings
            .tokens
            .iter()
            .map(|one| {
                let app = if one.app.is_empty() { one.token.clone() } else { one.app.clone() };
                (one.token.clone(), Grant { app, scopes: one.scopes.clone(), expires_at: None })
            })
            .collect();
        Self { grants, ..Self::default() }
    }

    pub(crate) fn revoke(&mut self, token: &str) {
        self.revoked.insert(token.to_owned());
    }

    /// Makes a token work (again).
    pub(crate) fn grant(&mut self, token: &str, app: &str, scopes: Vec<String>) {
        self.revoked.remove(token);
        self.grants.insert(token.to_owned(), Grant { app: app.to_owned(), scopes, expires_at: None });
    }

    pub(crate) fn check(&self, header: Option<&str>, now: i64, settings: &PortalSettings) -> Handled<Caller> {
        let token =
            header.and_then(|header| header.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token.filter(|(_, token)| !token.trim().is_empty()) else {
            return Err(not_found());
        };
        let token = token.trim();
        if self.revoked.contains(token) {
            return Err(not_found());
        }
        let Some(grant) = self.grants.get(token) else {
            if settings.unsettled.garbage_token_is_530 {
                return Err(ApiError::new(530, "error code: 1016"));
            }
            // What cannot be decoded as a token reads as one that expired at the epoch.
            return Err(expired(now, 0));
        };
        if let Some(at) = grant.expires_at.filter(|at| *at <= now) {
            return Err(expired(now, at));
        }
        Ok(Caller {
            app: grant.app.clone(),
            scopes: grant.scopes.clone(),
            oauth: grant.expires_at.is_some(),
            token: token.to_owned(),
        })
    }

    /// `POST /oauth/{version}/token`. v1 also reads the query; later versions the body only.
    pub(crate) fn token(
        &mut self,
        version: &str,
        query: &[(String, String)],
        body: &[u8],
        now: i64,
        settings: &PortalSettings,
        rng: &mut fastrand::Rng,
    ) -> Handled {
        if let Some(limit) = settings.limits.token_calls
            && let Err(wait) = self.calls.take(now, settings.limits.interval_ms, limit)
        {
            let mut error = ApiError::of(429, "RATE_LIMITS", "You have reached your secondly limit.");
            error.headers.push(("retry-after", wait.div_ceil(1000).to_string()));
            return Err(error);
        }
        let mut form = super::route::query(&String::from_utf8_lossy(body));
        if version == "v1" {
            form.extend(query.iter().cloned());
        }
        let get = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let refuse = |status: &str, message: &str| {
            let mut error = ApiError::new(400, message);
            // This envelope has its code where others say "error".
            error.more = vec![("status", Value::from(status))];
            Err(error)
        };
        let Some(app) = &settings.oauth else { return refuse("BAD_CLIENT_ID", "missing or unknown client id") };
        if get("client_id") != Some(app.client_id.as_str()) {
            return refuse("BAD_CLIENT_ID", "missing or unknown client id");
        }
        if get("client_secret") != Some(app.client_secret.as_str()) {
            return refuse("BAD_CLIENT_SECRET", "missing or invalid client secret");
        }
        if get("grant_type") != Some("refresh_token") {
            return refuse("BAD_GRANT_TYPE", "missing or unknown grant type");
        }
        let refresh = get("refresh_token").unwrap_or_default().to_owned();
        if !app.refresh_tokens.contains(&refresh) {
            return refuse("BAD_REFRESH_TOKEN", "missing or invalid refresh token");
        }
        self.issued += 1;
        let token = format!("CN{:016x}{:016x}-{}", rng.u64(..), rng.u64(..), self.issued);
        let life = i64::try_from(app.expires_in).unwrap_or(i64::MAX).saturating_mul(1000);
        let grant = Grant {
            app: app.client_id.clone(),
            scopes: app.scopes.clone(),
            expires_at: Some(now.saturating_add(life)),
        };
        self.grants.insert(token.clone(), grant);
        Ok(Answer::json(
            200,
            &json!({"token_type": "bearer", "refresh_token": refresh, "access_token": token,
                "expires_in": app.expires_in, "hub_id": settings.portal_id, "scopes": app.scopes}),
        ))
    }
}

fn not_found() -> Box<ApiError> {
    ApiError::of(
        401,
        "INVALID_AUTHENTICATION",
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
    )
}

fn expired(now: i64, at: i64) -> Box<ApiError> {
    let seconds = now.saturating_sub(at) / 1000;
    let age = if seconds > 86_400 { format!("{} day(s)", seconds / 86_400) } else { format!("{seconds} second(s)") };
    let message = format!("The OAuth token used to make this call expired {age} ago.");
    ApiError::of(401, "EXPIRED_AUTHENTICATION", message).context("expire time", vec![iso(at)])
}
