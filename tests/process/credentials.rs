//! Credentials that are absent, unreadable, refused or too weak: the right code, nothing written, and mended without a restart.

use hubferry_simulator::hubspot::PortalSettings;
use serde_json::{Value, json};

use super::harness::{Harness, Process, SECRET};

async fn code(harness: &Harness, process: &Process, event: &Value) -> (String, String) {
    let report = harness.answer(process, event).await;
    assert!(["failed", "invalid"].contains(&report["outcome"].as_str().unwrap()), "{report}");
    assert_eq!(harness.portal().record_count("contacts"), 0);
    assert_eq!(report["rows"]["read"], 0);
    let error = &report["error"];
    let shown = format!("{error}");
    assert!(!shown.contains(PortalSettings::TOKEN), "{shown}");
    (error["code"].as_str().unwrap().to_owned(), shown)
}

#[tokio::test]
async fn each_fault_of_the_credential_has_its_code_and_the_same_event_works_once_it_is_mended() {
    let harness = Harness::boot().await;
    let process = harness.process();
    let event = harness.upload("incoming/contacts/a.csv", "email\nada@example.com\n");
    let secret = |value: &str| harness.cloud.secrets().put(SECRET, value);

    for wrong in ["pat-na1-not-json", "{}", "{\"access_token\":7}", "[]", ""] {
        secret(wrong);
        let (code, shown) = code(&harness, &process, &event).await;
        assert_eq!(code, "SECRET_INVALID", "{wrong}: {shown}");
        assert!(!shown.contains("pat-na1-not-json"), "{shown}");
    }
    assert_eq!(harness.portal().counts().requests, 0, "nothing was asked of HubSpot");

    secret(&json!({ "access_token": "pat-na1-refused" }).to_string());
    let (refused, shown) = code(&harness, &process, &event).await;
    assert_eq!(refused, "TOKEN_REFUSED", "{shown}");
    assert!(!shown.contains("pat-na1-refused"), "{shown}");

    // Calls that are refused within ten seconds share one answer: a new process does not wait for them to pass.
    process.kill().await;
    let process = harness.process();
    harness.portal().grant_token("pat-na1-weak", "weak", vec!["crm.objects.contacts.read".to_owned()]);
    secret(&json!({ "access_token": "pat-na1-weak" }).to_string());
    let (weak, shown) = code(&harness, &process, &event).await;
    assert_eq!(weak, "SCOPES_MISSING", "{shown}");
    assert!(shown.contains("crm."), "the scopes are named: {shown}");

    harness.portal().grant_token("pat-na1-weak", "weak", Vec::new());
    let report = harness.answer(&process, &event).await;
    assert_eq!((&report["outcome"], &report["rows"]["created"]), (&json!("done"), &json!(1)), "{report}");
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named() {
    let harness = Harness::boot().await;
    harness.cloud.s3().put("settings", "hubferry.yaml", harness.config("").replace(SECRET, "hubferry/none")).unwrap();
    let config = ("HUBFERRY_CONFIG", Some("s3://settings/hubferry.yaml".to_owned()));
    let process = harness.process_with(&super::harness::Variables(vec![config]));
    let event = harness.upload("incoming/contacts/a.csv", "email\nada@example.com\n");
    let (missing, shown) = code(&harness, &process, &event).await;
    assert_eq!(missing, "SECRET_MISSING");
    assert!(shown.contains("hubferry/none"), "{shown}");
    assert_eq!(harness.portal().counts().requests, 0);
    harness.cloud.secrets().put("hubferry/none", &json!({ "access_token": PortalSettings::TOKEN }).to_string());
    assert_eq!(harness.answer(&process, &event).await["outcome"], "done");
}
