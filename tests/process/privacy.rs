//! No row value and no token in a log at any level, in a report or in the table.

use hubferry_simulator::hubspot::{Fault, Faults, PortalSettings, PropertyDefinition, What};
use serde_json::json;

use super::harness::{Harness, SECRET, Variables};

/// The libraries below are quiet unless they are named.
const EVERYTHING: &str =
    "trace,aws=trace,h2=trace,hyper=trace,reqwest=trace,rustls=trace,lambda_runtime=trace,tower=trace";

/// In every cell of the file.
const MARK: &str = "zanzibar";

fn file() -> String {
    let mut text = String::from("email,firstname,lifecyclestage,hubspot_owner_id,member_id,date_of_birth\n");
    for number in 0..400 {
        text.push_str(&match number % 10 {
            // Refused before any call.
            1 => format!("{MARK}{number},{MARK},,,,\n"),
            2 => format!("{MARK}{number}@example.com,x,{MARK},,,\n"),
            3 => format!("{MARK}{number}@example.com,x,,{MARK}@example.com,,\n"),
            4 => format!("{MARK}{number}@example.com,x,,,,{MARK}\n"),
            5 => format!("{MARK}{number}@example.com,{MARK}\n"),
            // Refused by HubSpot, which quotes the value.
            6 => format!("{MARK}{number}@example.com,{MARK},,,{MARK}-taken,\n"),
            7 => format!("{MARK}{number}@example.com,{MARK}\0,,,,\n"),
            _ => format!("{MARK}{number}@example.com,{MARK}{number},lead,,{MARK}-{number},1990-01-02\n"),
        });
    }
    text
}

#[tokio::test]
async fn nothing_of_rows_or_tokens_is_in_logs_at_any_level_nor_in_reports_nor_in_the_table() {
    let mut settings = PortalSettings { shuffle_results: true, ..PortalSettings::default() };
    settings.limits.burst = Some(2_000);
    let member = PropertyDefinition::new("member_id", "string").unique();
    settings.properties.insert("contacts".to_owned(), vec![member]);
    settings.faults = Faults::five_percent(1);
    settings.faults.push(Fault::nth("/batch/upsert", 2, What::Html(502)));
    settings.faults.push(Fault::nth("/batch/upsert", 3, What::ResetAfter));
    let harness = Harness::boot_with(settings, false).await;
    let taken = [("email", "first@example.com"), ("member_id", &format!("{MARK}-taken"))];
    let now = hubferry_simulator::hubspot::server::machine_clock();
    harness.portal().seed_record(now, "contacts", &taken).unwrap();
    let rotated = "pat-na1-rotated-00000000";
    harness.portal().grant_token(rotated, "app", Vec::new());
    harness.cloud.s3().put("settings", "hubferry.yaml", harness.config("    abort_if_rejected: 90%\n")).unwrap();
    let process = harness.process_with(&Variables(vec![
        ("HUBFERRY_CONFIG", Some("s3://settings/hubferry.yaml".to_owned())),
        ("RUST_LOG", Some(EVERYTHING.to_owned())),
    ]));
    let event = harness.upload("incoming/contacts/a.csv", file());
    let report = harness.answer(&process, &event).await;
    assert_eq!(report["outcome"], "done", "{report}");
    assert_eq!(report["rows"]["created"], 120, "{report}");
    assert_eq!(report["rows"]["rejected"], 280, "{report}");

    // A token that ends and is replaced, one that is refused, and an event that is not understood.
    harness.portal().revoke_token(PortalSettings::TOKEN);
    harness.cloud.secrets().put(SECRET, &json!({ "access_token": rotated }).to_string());
    let second = harness.answer(&process, &harness.upload("incoming/contacts/b.csv", file())).await;
    assert_eq!(second["outcome"], "done", "{second}");
    harness.portal().revoke_token(rotated);
    let third = harness.answer(&process, &harness.upload("incoming/contacts/c.csv", file())).await;
    assert_eq!(third["error"]["code"], "TOKEN_REFUSED", "{third}");
    let (_, refusal) = harness.refusal(&process, &json!({ "job": "import", "bucket": MARK, "who": MARK })).await;
    assert!(!refusal.contains(MARK), "{refusal}");

    let log = process.log();
    assert!(log.lines().count() > 50, "the log is empty: what follows would prove nothing: {log}");
    let secrets = [MARK, PortalSettings::TOKEN, rotated];
    for secret in secrets {
        if let Some(line) = log.lines().find(|line| line.to_lowercase().contains(secret)) {
            panic!("{secret} is in the log: {line}");
        }
        for report in [&report, &second, &third] {
            assert!(!report.to_string().to_lowercase().contains(secret), "{secret} is in a report: {report}");
        }
    }
    for key in harness.cloud.s3().keys("crm", "reports/") {
        assert!(!harness.text(&format!("s3://crm/{key}")).contains(MARK), "{key}");
    }
    for (key, item) in harness.items().await {
        let shown = format!("{key:?} {item:?}").to_lowercase();
        for secret in secrets {
            assert!(!shown.contains(secret), "{secret} is in the table: {shown}");
        }
    }
    // The rejects hold the rows: that is what they are for.
    assert!(harness.text(report["rejects"].as_str().unwrap()).contains(MARK));
}
