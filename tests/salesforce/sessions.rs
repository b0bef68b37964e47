//! How a session is got, how it ends, and what is not an end. The quota.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::Engine as _;
use hubferry::config::Amount;
use hubferry_simulator::salesforce::{ConnectedApp, Fault, Flow, OrgLimits, OrgSettings, What};
use serde_json::json;

use super::*;

fn with_app(app: ConnectedApp) -> OrgSettings {
    OrgSettings { apps: vec![app], ..OrgSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn client_credentials_open_a_session_of_the_right_org() {
    let world = World::new(OrgSettings::default());
    let client = world.client();
    client.check_version(NONE).await.unwrap();
    let (org, user) = client.identity(NONE).await.unwrap();
    assert_eq!(org.unwrap().as_str(), world.org.borrow().id());
    assert_eq!(user.unwrap().prefix(), "005");
    assert_eq!(world.calls("/oauth2/token"), 1, "one session for all calls");

    let mut secret = client_credentials(OrgSettings::LOGIN_URL);
    secret["org_id"] = json!("00Dak0000000009");
    world.secrets.insert(SECRET, &secret.to_string());
    let error = world.client().identity(NONE).await.unwrap_err();
    assert_eq!(error.code(), codes::SECRET_INVALID, "a credential of another org must not sync this one: {error}");
}

#[tokio::test(start_paused = true)]
async fn an_assertion_is_signed_so_that_its_certificate_verifies_it() {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let app = ConnectedApp {
        flows: vec![Flow::Jwt],
        public_key: key.public_key().as_ref().to_vec(),
        ..ConnectedApp::default()
    };
    let world = World::new(with_app(app));
    let der = base64::engine::general_purpose::STANDARD.encode(key.as_der().unwrap().as_ref());
    let secret = |key: &str, username: &str| {
        json!({"flow": "jwt", "login_url": "https://login.salesforce.com", "client_id": OrgSettings::CLIENT_ID,
            "username": username, "private_key": format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n")})
        .to_string()
    };
    world.secrets.insert(SECRET, &secret(&der, "integration@example.com"));
    world.client().describe("Contact", NONE).await.unwrap();

    world.secrets.insert(SECRET, &secret(&der, "somebody@example.com"));
    let error = world.client().identity(NONE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthorized, codes::SALESFORCE_LOGIN_REFUSED));
    assert!(error.message().contains("hasn't approved") && error.hint().contains("pre-authorise"), "{error}");

    let other = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = base64::engine::general_purpose::STANDARD.encode(other.as_der().unwrap().as_ref());
    world.secrets.insert(SECRET, &secret(&der, "integration@example.com"));
    let error = world.client().identity(NONE).await.unwrap_err();
    assert!(error.message().contains("invalid assertion"), "{error}");
    assert!(!format!("{error:?}").contains(&der[..20]), "no key in an error");
}

fn refreshing(rotates: bool) -> World {
    let app = ConnectedApp {
        flows: vec![Flow::RefreshToken],
        refresh_tokens: vec!["first".to_owned()],
        rotates,
        ..ConnectedApp::default()
    };
    let world = World::new(with_app(app));
    let secret = json!({"flow": "refresh_token", "login_url": OrgSettings::LOGIN_URL, "client_id": OrgSettings::CLIENT_ID,
        "client_secret": OrgSettings::CLIENT_SECRET, "refresh_token": "first"});
    world.secrets.insert(SECRET, &secret.to_string());
    world
}

#[tokio::test(start_paused = true)]
async fn a_rotated_refresh_token_is_stored_before_the_session_is_used() {
    let world = refreshing(true);
    world.client().describe("Contact", NONE).await.unwrap();
    let stored = world.secrets.get(SECRET).await.unwrap();
    let stored: Value = serde_json::from_str(stored.expose()).unwrap();
    assert_eq!(world.org.borrow().refresh_tokens(), [stored["refresh_token"].as_str().unwrap()]);
    // The old one is dead: only who reads the new one gets in again.
    world.client().describe("Contact", NONE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rotated_refresh_token_that_cannot_be_stored_is_not_lost() {
    let world = refreshing(true);
    let client = world.client();
    world.put_fails.set(1);
    let error = client.describe("Contact", NONE).await.unwrap_err();
    assert!(error.message().contains("refresh token"), "{error}");
    assert_eq!(world.calls("/sobjects"), 0, "the session is not used before its refresh token is safe");
    client.describe("Contact", NONE).await.unwrap();
    assert_eq!(world.calls("/oauth2/token"), 1, "the session that came with it is used");
    world.client().describe("Contact", NONE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_revoked_refresh_token_says_what_to_do() {
    let world = refreshing(false);
    let secret = json!({"flow": "refresh_token", "login_url": OrgSettings::LOGIN_URL, "client_id": OrgSettings::CLIENT_ID, "refresh_token": "gone"});
    world.secrets.insert(SECRET, &secret.to_string());
    let error = world.client().describe("Contact", NONE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.message().contains("expired access/refresh token") && error.hint().contains("new refresh token"));
    assert!(!error.message().contains("gone"));
}

#[tokio::test(start_paused = true)]
async fn the_password_flow_works_where_the_org_still_allows_it() {
    let app =
        ConnectedApp { flows: vec![Flow::Password], password: "pass!word+token".to_owned(), ..ConnectedApp::default() };
    let world = World::new(with_app(app));
    let secret = json!({"flow": "password", "login_url": "https://login.salesforce.com", "client_id": OrgSettings::CLIENT_ID,
        "client_secret": OrgSettings::CLIENT_SECRET, "username": "integration@example.com", "password": "pass!word", "security_token": "+token"});
    world.secrets.insert(SECRET, &secret.to_string());
    world.client().describe("Contact", NONE).await.unwrap();
    world.org.borrow_mut().change_settings(|settings| settings.apps[0].flows.clear());
    let error = world.client().describe("Contact", NONE).await.unwrap_err();
    assert!(error.hint().contains("client credentials"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ended_is_replaced_once_for_all_calls_that_wait() {
    let world = World::new(OrgSettings::default());
    let client = world.client();
    let id = world.contact("Dyer", &[]);
    client.get("Contact", &id, &["LastName"], NONE).await.unwrap();
    world.org.borrow_mut().end_sessions();
    let (one, two, three) = tokio::join!(
        client.get("Contact", &id, &["LastName"], NONE),
        client.get("Contact", &id, &["LastName"], NONE),
        client.get("Contact", &id, &["LastName"], NONE),
    );
    for row in [one, two, three] {
        assert_eq!(row.unwrap().unwrap().text("LastName"), Some("Dyer"));
    }
    assert_eq!(world.calls("/oauth2/token"), 2, "one more session, not three");
}

#[tokio::test(start_paused = true)]
async fn no_expiry_is_computed_and_a_long_session_costs_one_login_each_time_it_ends() {
    let world = World::new(OrgSettings { session_seconds: 900, ..OrgSettings::default() });
    let client = world.client();
    let id = world.contact("Dyer", &[]);
    for _ in 0..10 {
        client.get("Contact", &id, &[], NONE).await.unwrap();
        world.clock.sleep(std::time::Duration::from_secs(600)).await;
    }
    assert!((4..=6).contains(&world.calls("/oauth2/token")), "{}", world.calls("/oauth2/token"));
}

#[tokio::test(start_paused = true)]
async fn a_second_refusal_is_final_and_the_two_that_no_session_mends_are_final_at_once() {
    for (what, kind, logins) in [
        (What::EndSession, ErrorKind::Unauthorized, 2),
        (What::NotForRest, ErrorKind::Forbidden, 1),
        (What::NotAttached, ErrorKind::Forbidden, 1),
    ] {
        let world = World::new(OrgSettings {
            faults: vec![Fault::always(what.clone()).on("/sobjects")],
            ..OrgSettings::default()
        });
        let error = world.client().describe("Contact", NONE).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what:?}: {error}");
        assert_eq!(world.calls("/oauth2/token"), logins, "{what:?}: no loop");
        assert_eq!(world.calls("/sobjects"), logins, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_daily_limit_is_known_by_its_code_and_not_retried() {
    let world = World::new(OrgSettings {
        faults: vec![Fault::nth("/sobjects", 1, What::RequestLimit)],
        ..OrgSettings::default()
    });
    let error = world.client().describe("Contact", NONE).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::DailyLimit, codes::SALESFORCE_QUOTA));
    assert_eq!(world.calls("/sobjects"), 1);
    // The same status and code, but too many long calls at once: that passes.
    let world = World::new(OrgSettings {
        faults: vec![Fault::nth("/sobjects", 1, What::ConcurrentLimit)],
        ..OrgSettings::default()
    });
    world.client().describe("Contact", NONE).await.unwrap();
    assert_eq!(world.calls("/sobjects"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_stops_at_its_share_and_at_the_share_of_the_org_before_the_call_is_sent() {
    for long_header in [false, true] {
        let limits = OrgLimits { daily: 100, used_by_others: 0, long_header };
        let world = World::new(OrgSettings { limits, ..OrgSettings::default() });
        let client = world.client();
        let id = world.contact("Dyer", &[]);
        let mut calls = 0;
        let error = loop {
            match client.get("Contact", &id, &[], NONE).await {
                Ok(_) => calls += 1,
                Err(error) => break error,
            }
            assert!(calls < 100);
        };
        assert_eq!(calls, 25, "a quarter of the day's calls");
        assert_eq!((error.kind(), error.code()), (ErrorKind::DailyLimit, codes::SALESFORCE_QUOTA));
        assert_eq!(world.org.borrow().counts().limited, 0, "Salesforce was not asked");
        assert_eq!(client.calls_left(), Some(0));

        // A later invocation of the same run knows what it has used; another run begins afresh.
        let same = world.client();
        same.set_calls_of_run(25);
        same.get("Contact", &id, &[], NONE).await.unwrap();
        assert!(same.get("Contact", &id, &[], NONE).await.is_err());
        let other = world.client();
        other.get("Contact", &id, &[], NONE).await.unwrap();
        assert_eq!(other.calls_left(), Some(24));

        world.org.borrow_mut().change_settings(|settings| settings.limits.used_by_others = 60);
        other.get("Contact", &id, &[], NONE).await.unwrap();
        assert!(other.get("Contact", &id, &[], NONE).await.is_err(), "others have used it: stop at 80 %");
        let own = world.client_with(QuotaLimits { org: Amount::Share(1.0), run: Amount::Share(1.0) });
        own.get("Contact", &id, &[], NONE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_version_is_refused_before_anything_is_written() {
    let world = World::new(OrgSettings { newest_version: 66, ..OrgSettings::default() });
    let error = world.client().check_version(NONE).await.unwrap_err();
    assert_eq!(error.code(), codes::CONFIG_INVALID);
    assert!(error.message().contains("66.0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn transient_trouble_of_every_kind_is_waited_out() {
    for what in [
        What::Html(420),
        What::Html(502),
        What::Html(503),
        What::UnknownException,
        What::ServerUnavailable,
        What::RowLocked,
        What::ResetBefore,
        What::ResetAfter,
        What::TruncatedBody,
        What::TimeoutAfterCommit,
        What::EndSession,
    ] {
        let faults = vec![Fault::nth("/services/data", 1, what.clone())];
        let world = World::new(OrgSettings { faults, ..OrgSettings::default() });
        let schema = world.client().describe("contact", NONE).await;
        assert!(schema.is_ok(), "{what:?}: {schema:?}");
    }
    let faults =
        vec![Fault::nth("/oauth2/token", 1, What::Html(503)), Fault::nth("/oauth2/token", 2, What::ResetAfter)];
    let world = World::new(OrgSettings { faults, ..OrgSettings::default() });
    world.client().describe("Contact", NONE).await.unwrap();
    assert_eq!(world.calls("/oauth2/token"), 3);
}
