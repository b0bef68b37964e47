//! The org's rules, seen from outside: requests in, answers out.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use http::Request;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    BulkPace, ConnectedApp, CustomObject, Fault, Field, Flow, Org, OrgLimits, OrgSettings, Outcome, What, five_percent,
};

/// An org, a session and a clock that the test moves.
struct Desk {
    org: Org,
    token: String,
    now: Timestamp,
}

struct Said {
    status: u16,
    body: Value,
    text: String,
    headers: http::HeaderMap,
}

impl Said {
    fn code(&self) -> &str {
        self.body[0]["errorCode"].as_str().unwrap_or_default()
    }
}

impl Desk {
    fn new(settings: OrgSettings) -> Self {
        let mut desk =
            Self { org: Org::new(settings), token: String::new(), now: "2026-03-02T09:00:00.250Z".parse().unwrap() };
        let said = desk.login(OrgSettings::LOGIN_URL, "grant_type=client_credentials");
        desk.token = said.body["access_token"].as_str().unwrap_or_default().to_owned();
        desk
    }

    fn login(&mut self, host: &str, form: &str) -> Said {
        let form = format!("{form}&client_id={}&client_secret={}", OrgSettings::CLIENT_ID, OrgSettings::CLIENT_SECRET);
        let request = Request::post(format!("{host}/services/oauth2/token")).body(Bytes::from(form)).unwrap();
        self.send(request)
    }

    fn send(&mut self, request: Request<Bytes>) -> Said {
        match self.org.handle(self.now, &request).response {
            Outcome::Response(response) => {
                let text = String::from_utf8_lossy(response.body()).into_owned();
                let body = serde_json::from_str(&text).unwrap_or_default();
                Said { status: response.status().as_u16(), body, text, headers: response.headers().clone() }
            }
            other => panic!("{other:?}"),
        }
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}/services/data/v67.0/{path}", OrgSettings::LOGIN_URL))
            .header("authorization", format!("Bearer {}", self.token))
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> Said {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = self.request(method, path).body(body).unwrap();
        self.send(request)
    }

    fn get(&mut self, path: &str) -> Said {
        self.call("GET", path, &Value::Null)
    }

    fn query(&mut self, statement: &str) -> Said {
        let encoded = percent_encoding::utf8_percent_encode(statement, percent_encoding::NON_ALPHANUMERIC).to_string();
        self.get(&format!("query?q={encoded}"))
    }

    fn names(&mut self, filter: &str) -> Vec<String> {
        let said = self.query(&format!("SELECT LastName FROM Contact WHERE {filter} ORDER BY LastName"));
        let records = said.body["records"].as_array().cloned().unwrap_or_else(|| panic!("{filter}: {}", said.text));
        records.iter().map(|record| record["LastName"].as_str().unwrap().to_owned()).collect()
    }

    fn contact(&mut self, name: &str, more: &[(&str, &str)]) -> String {
        let mut values = vec![("LastName", name)];
        values.extend_from_slice(more);
        self.org.create(self.now, "Contact", &values).unwrap()
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}

#[test]
fn client_credentials_are_refused_on_the_generic_host_and_issued_at_is_text_in_milliseconds() {
    let mut desk = Desk::new(OrgSettings::default());
    let said = desk.login("https://login.salesforce.com", "grant_type=client_credentials");
    assert_eq!(
        (said.status, said.body["error_description"].as_str()),
        (400, Some("request not supported on this domain"))
    );
    let said = desk.login(OrgSettings::LOGIN_URL, "grant_type=client_credentials");
    assert_eq!(said.body["issued_at"], "1772442000250");
    assert!(said.body.get("expires_in").is_none() && said.body.get("refresh_token").is_none());
    assert!(said.body["id"].as_str().unwrap().contains("/id/00D"));
    let said = desk.login(OrgSettings::LOGIN_URL, "grant_type=password&username=x&password=y");
    assert_eq!(said.body["error"], "invalid_grant", "blocked flows say no more");
}

#[test]
fn a_refresh_token_that_rotates_works_once() {
    let app = ConnectedApp {
        flows: vec![Flow::RefreshToken, Flow::ClientCredentials],
        refresh_tokens: vec!["one".to_owned()],
        rotates: true,
        ..ConnectedApp::default()
    };
    let mut desk = Desk::new(OrgSettings { apps: vec![app], ..OrgSettings::default() });
    let form = |token: &str| format!("grant_type=refresh_token&refresh_token={token}");
    let first = desk.login("https://login.salesforce.com", &form("one"));
    assert_eq!(first.status, 200);
    let again = desk.login(OrgSettings::LOGIN_URL, &form("one"));
    assert_eq!((again.status, again.body["error_description"].as_str()), (400, Some("expired access/refresh token")));
    let next = desk.login(OrgSettings::LOGIN_URL, &form(first.body["refresh_token"].as_str().unwrap()));
    assert_eq!(next.status, 200);
}

#[test]
fn soap_login_is_gone_from_version_65_on() {
    let app = ConnectedApp { password: "pw".to_owned(), ..ConnectedApp::default() };
    let mut desk = Desk::new(OrgSettings { apps: vec![app], soap_login: true, ..OrgSettings::default() });
    let mut login = |version: u32, password: &str| {
        let body = format!(
            "<n1:login><n1:username>integration@example.com</n1:username><n1:password>{password}</n1:password></n1:login>"
        );
        let uri = format!("https://login.salesforce.com/services/Soap/u/{version}.0");
        desk.send(Request::post(uri).body(Bytes::from(body)).unwrap()).text
    };
    assert!(login(64, "pw").contains("<sessionId>"));
    assert!(login(64, "wrong").contains("INVALID_LOGIN"));
    assert!(login(65, "pw").contains("UNSUPPORTED_API_VERSION"));
}

#[test]
fn sessions_end_by_disuse_and_bad_headers_have_a_code_of_their_own() {
    let mut desk = Desk::new(OrgSettings { session_seconds: 900, ..OrgSettings::default() });
    assert_eq!(desk.get("limits").status, 200);
    desk.wait(901);
    let said = desk.get("limits");
    assert_eq!((said.status, said.code()), (401, "INVALID_SESSION_ID"));
    assert!(said.headers.get("sforce-limit-info").is_none(), "what is not let in does not count");
    let request =
        Request::get(format!("{}/services/data/v67.0/limits", OrgSettings::LOGIN_URL)).body(Bytes::new()).unwrap();
    assert_eq!(desk.send(request).code(), "INVALID_AUTH_HEADER");
}

#[test]
fn versions_are_listed_without_a_session_and_retired_ones_are_gone() {
    let mut desk = Desk::new(OrgSettings::default());
    desk.token.clear();
    let url = |path: &str| {
        Request::get(format!("{}/services/data{path}", OrgSettings::LOGIN_URL)).body(Bytes::new()).unwrap()
    };
    let said = desk.send(url(""));
    let last = said.body.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last, json!({"label": "Winter '27", "url": "/services/data/v68.0", "version": "68.0"}));
    assert!(
        said.body
            .as_array()
            .unwrap()
            .contains(&json!({"label": "Summer '26", "url": "/services/data/v67.0", "version": "67.0"}))
    );
    assert_eq!(desk.send(url("/v30.0/limits")).status, 410);
    assert_eq!(desk.send(url("/v69.0/limits")).status, 404);
}

#[test]
fn conditions_mean_what_salesforce_means_by_them() {
    let mut desk = Desk::new(OrgSettings::default());
    desk.contact("A", &[("Email", "A@x.com"), ("Title", "50% off")]);
    desk.contact("B", &[("Email", "b@x.com"), ("Title", "500 off"), ("HasOptedOutOfEmail", "true")]);
    let c = desk.contact("C", &[("Birthdate", "1990-05-01")]);
    for (filter, expected) in [
        ("Email = 'a@X.com'", "A"),
        ("Email != 'a@x.com'", "BC"),
        ("Email = null", "C"),
        ("Email != null", "AB"),
        ("Email IN ('A@x.com', 'b@x.com')", "AB"),
        ("Email NOT IN ('a@x.com')", "BC"),
        ("Title LIKE '50\\%%'", "A"),
        ("Title LIKE '50%'", "AB"),
        ("NOT (Email = 'a@x.com')", "BC"),
        ("(Email = 'a@x.com' OR LastName = 'C') AND LastName != 'Z'", "AC"),
        ("HasOptedOutOfEmail = TRUE", "B"),
        ("Birthdate < 2000-01-01", "C"),
        ("Name = 'c'", "C"),
        ("lastname > 'a'", "BC"),
        ("SystemModstamp >= 2026-03-02T09:00:00Z", "ABC"),
        ("SystemModstamp > 2026-03-02T09:00:00.000Z", ""),
        ("CreatedBy.Username = 'admin@example.com'", "ABC"),
        (&format!("Id = '{}'", &c[..15]), "C"),
        (&format!("Id IN ('{c}')"), "C"),
    ] {
        assert_eq!(desk.names(filter).join(""), expected, "{filter}");
    }
    for (statement, code) in [
        ("SELECT Id FROM Contact WHERE SystemModstamp >= '2026-03-02T09:00:00Z'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE SystemModstamp >= 2026-03-02", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE LastName = 5", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Id = 'nonsense'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Company FROM Contact", "INVALID_FIELD"),
        ("SELECT Nobody.Name FROM Contact", "INVALID_FIELD"),
        ("SELECT Id FROM Contract2", "INVALID_TYPE"),
        ("SELECT Id, id FROM Contact", "INVALID_FIELD"),
        ("SELECT Id FROM Contact LIMIT 1 OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE"),
        ("SELECT Id Contact", "MALFORMED_QUERY"),
    ] {
        let said = desk.query(statement);
        assert_eq!((said.status, said.code()), (400, code), "{statement}: {}", said.text);
    }
    let said = desk.query("SELECT Company FROM Contact");
    assert_eq!(said.body[0]["message"], "No such column 'Company' on sobject of type Contact");
    assert!(
        desk.query("SELECT Id FROM Accout").body[0]["message"].as_str().unwrap().contains("ERROR at Row:1:Column:16")
    );
    let said = desk.query("SELECT COUNT() FROM Contact");
    assert_eq!(said.body, json!({"totalSize": 3, "done": true, "records": []}));
    assert_eq!(desk.get(&format!("query?q={}", "x".repeat(17_000))).status, 414);
}

#[test]
fn rows_have_attributes_nulls_and_derived_fields() {
    let mut desk = Desk::new(OrgSettings::default());
    let id = desk.contact("Dyer", &[("FirstName", "Siena"), ("MailingCity", "Oslo")]);
    let said = desk.query("SELECT Id, Name, Email, MailingAddress, Account.Name, Owner.Name FROM Contact");
    let row = &said.body["records"][0];
    assert_eq!(
        row["attributes"],
        json!({"type": "Contact", "url": format!("/services/data/v67.0/sobjects/Contact/{id}")})
    );
    assert_eq!((&row["Name"], &row["Email"], &row["Account"]), (&json!("Siena Dyer"), &Value::Null, &Value::Null));
    assert_eq!(row["MailingAddress"]["city"], "Oslo");
    assert_eq!(row["Owner"]["attributes"]["type"], "User");
    let said = desk.get(&format!("sobjects/Contact/{}?fields=LastName,SystemModstamp", &id[..15]));
    assert_eq!(said.body["SystemModstamp"], "2026-03-02T09:00:00.000+0000", "whole seconds, no colon");
    assert_eq!(desk.get("sobjects/Contact/003ak0000000zzz").code(), "NOT_FOUND");
}

#[test]
fn single_records_are_created_changed_deleted_and_refused() {
    let mut desk = Desk::new(OrgSettings::default());
    let made = desk.call("POST", "sobjects/Contact", &json!({"LastName": "A"}));
    assert_eq!((made.status, &made.body["success"]), (201, &json!(true)));
    let path = format!("sobjects/Contact/{}", made.body["id"].as_str().unwrap());
    let changed = desk.call("PATCH", &path, &json!({"Title": "x"}));
    assert_eq!((changed.status, changed.text.as_str()), (204, ""));
    assert_eq!(desk.call("POST", &format!("{path}?_HttpMethod=PATCH"), &json!({"Title": "y"})).status, 204);
    assert_eq!(desk.get(&path).body["Title"], "y");
    for (body, code) in [
        (json!({"LastName": null}), "REQUIRED_FIELD_MISSING"),
        (json!({"MasterRecordId": null}), "INVALID_FIELD_FOR_INSERT_UPDATE"),
        (json!({"LastName": 5}), "JSON_PARSER_ERROR"),
        (json!({"Id": "x"}), "INVALID_FIELD"),
        (json!({"HasOptedOutOfEmail": null}), "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        (json!([]), "JSON_PARSER_ERROR"),
    ] {
        let said = desk.call("PATCH", &path, &body);
        assert_eq!((said.status, said.code()), (400, code), "{body}");
    }
    assert_eq!(desk.call("DELETE", &path, &Value::Null).status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        let said = desk.call(method, &path, &json!({}));
        assert_eq!((said.status, said.code()), (404, "ENTITY_IS_DELETED"), "{method}");
    }
}

#[test]
fn a_write_that_changes_nothing_moves_the_dates_and_conditions_look_at_them() {
    let mut desk = Desk::new(OrgSettings::default());
    let id = desk.contact("A", &[("Title", "x")]);
    desk.wait(60);
    let path = format!("sobjects/Contact/{id}");
    desk.call("PATCH", &path, &json!({"Title": "x"}));
    assert_eq!(desk.get(&path).body["LastModifiedDate"], "2026-03-02T09:01:00.000+0000");
    for (date, status) in
        [("Mon, 02 Mar 2026 09:00:59 GMT", 412), ("Mon, 02 Mar 2026 09:01:00 GMT", 204), ("soon", 400)]
    {
        let request = desk.request("PATCH", &path).header("if-unmodified-since", date).body(Bytes::from("{}")).unwrap();
        assert_eq!(desk.send(request).status, status, "{date}");
    }
    let request =
        desk.request("GET", "sobjects/Contact/describe").header("if-modified-since", "Mon, 02 Mar 2026 09:01:00 GMT");
    assert_eq!(desk.send(request.body(Bytes::new()).unwrap()).status, 304);
}

#[test]
fn an_upsert_has_all_its_outcomes() {
    let mut desk = Desk::new(OrgSettings::default());
    desk.org.define_field("Contact", Field::text("Old__c", 20).external_id(false));
    let path = "sobjects/Contact/HubSpot_Contact_Id__c/a%2Fb";
    let only = desk.call("PATCH", &format!("{path}?updateOnly=true"), &json!({"LastName": "A"}));
    assert_eq!(only.status, 404);
    let first = desk.call("PATCH", path, &json!({"LastName": "A"}));
    assert_eq!((first.status, &first.body["created"]), (201, &json!(true)));
    let second = desk.call("PATCH", path, &json!({"LastName": "B"}));
    assert_eq!((second.status, &second.body["created"], &second.body["id"]), (200, &json!(false), &first.body["id"]));
    let own = desk.call("PATCH", path, &json!({"LastName": "B", "HubSpot_Contact_Id__c": "x"}));
    assert_eq!((own.status, own.code()), (400, "INVALID_FIELD"));
    let wrong = desk.call("PATCH", "sobjects/Contact/Namez/foo", &json!({"LastName": "B"}));
    assert_eq!(wrong.body[0]["message"], "Provided external ID field does not exist or is not accessible: Namez");
    desk.contact("One", &[("Old__c", "foo")]);
    desk.contact("Two", &[("Old__c", "FOO")]);
    let many = desk.call("PATCH", "sobjects/Contact/Old__c/foo", &json!({"LastName": "B"}));
    assert_eq!((many.status, many.body.as_array().unwrap().len()), (300, 2));
    let account = desk.org.create(desk.now, "Account", &[("Name", "Acme"), ("HubSpot_Company_Id__c", "9")]).unwrap();
    desk.call("PATCH", path, &json!({"Account": {"HubSpot_Company_Id__c": "9"}}));
    assert_eq!(desk.get(path).body["AccountId"], account.as_str());
}

#[test]
fn collections_answer_200_with_failures_and_all_or_none_takes_everything_back() {
    let mut desk = Desk::new(OrgSettings::default());
    let one = |name: Value| json!({"attributes": {"type": "Contact"}, "LastName": name});
    let mut send = |all: bool| {
        let body = json!({"allOrNone": all, "records": [one(json!("A")), one(Value::Null), one(json!("C"))]});
        desk.call("POST", "composite/sobjects", &body)
    };
    let all = send(true);
    assert_eq!(all.status, 200);
    assert_eq!(all.body[0]["errors"][0]["statusCode"], "ALL_OR_NONE_OPERATION_ROLLED_BACK");
    assert!(all.body[0]["id"].is_string(), "an id stands there all the same");
    assert_eq!(all.body[1]["errors"][0]["statusCode"], "REQUIRED_FIELD_MISSING");
    let each = send(false);
    assert_eq!([&each.body[0]["success"], &each.body[1]["success"], &each.body[2]["success"]], [true, false, true]);
    assert_eq!(desk.org.live_records("Contact").count(), 2);
    assert_eq!(desk.org.history().len(), 2, "what was taken back did not happen");

    let empty = desk.call("POST", "composite/sobjects", &json!({"records": []}));
    assert_eq!((empty.status, empty.body[0]["message"].as_str()), (400, Some("At least 1 record is required")));
    let many = desk.call("POST", "composite/sobjects", &json!({"records": vec![one(json!("x")); 201]}));
    assert_eq!(many.status, 400);
    let lead = json!({"attributes": {"type": "Lead"}, "LastName": "L", "Company": "C"});
    let mixed: Vec<Value> = (0..11).map(|at| if at % 2 == 0 { lead.clone() } else { one(json!("x")) }).collect();
    assert_eq!(desk.call("POST", "composite/sobjects", &json!({"records": mixed})).status, 400, "eleven chunks");
    let id = each.body[0]["id"].as_str().unwrap().to_owned();
    let same = json!({"attributes": {"type": "Contact"}, "id": id, "Title": "x"});
    let twice = desk.call("PATCH", "composite/sobjects", &json!({"records": [same, same, one(json!("no id"))]}));
    assert_eq!(twice.body[0]["errors"][0]["statusCode"], "DUPLICATE_VALUE");
    assert_eq!(twice.body[2]["errors"][0]["message"], "Id not specified in an update call");
    let read = desk.call(
        "POST",
        "composite/sobjects/Contact",
        &json!({"ids": ["003ak0000000zzz", id], "fields": ["LastName"]}),
    );
    assert_eq!((&read.body[0], &read.body[1]["LastName"]), (&Value::Null, &json!("A")));
    let gone = desk.call("DELETE", &format!("composite/sobjects?ids={id},{id}"), &Value::Null);
    assert_eq!(
        (&gone.body[0]["success"], &gone.body[1]["errors"][0]["statusCode"]),
        (&json!(true), &json!("ENTITY_IS_DELETED"))
    );
}

#[test]
fn a_composite_refers_to_its_own_results_and_is_halted_as_a_whole() {
    let mut desk = Desk::new(OrgSettings::default());
    let base = "/services/data/v67.0/sobjects";
    let body = |email: &str| {
        json!({"allOrNone": true, "compositeRequest": [
        {"method": "POST", "url": format!("{base}/Account"), "referenceId": "a", "body": {"Name": "Acme"}},
        {"method": "POST", "url": format!("{base}/Contact"), "referenceId": "c", "body": {"LastName": "X", "AccountId": "@{a.id}", "Email": email}}]})
    };
    let bad = desk.call("POST", "composite", &body("nonsense"));
    let parts = bad.body["compositeResponse"].as_array().unwrap();
    assert_eq!(parts[0]["body"][0]["errorCode"], "PROCESSING_HALTED");
    assert_eq!(
        (&parts[1]["httpStatusCode"], &parts[1]["body"][0]["errorCode"]),
        (&json!(400), &json!("INVALID_EMAIL_ADDRESS"))
    );
    assert_eq!(desk.org.live_records("Account").count(), 0);
    let good = desk.call("POST", "composite", &body("x@example.com"));
    assert_eq!(good.body["compositeResponse"][1]["httpStatusCode"], 201);
    assert!(desk.org.find_by("Contact", "LastName", "X").unwrap().contains_key("AccountId"));
}

#[test]
fn what_was_deleted_is_told_to_the_minute_and_comes_back_or_does_not() {
    let mut desk = Desk::new(OrgSettings::default());
    let (kept, gone) = (desk.contact("K", &[]), desk.contact("G", &[("HubSpot_Contact_Id__c", "1")]));
    desk.wait(90);
    assert!(desk.org.delete(desk.now, "Contact", &gone));
    let said = desk.get("sobjects/Contact/deleted/?start=2026-03-02T09:00:30Z&end=2026-03-02T09:01:59Z");
    assert!(said.body["deletedRecords"].as_array().unwrap().is_empty(), "seconds are ignored: {}", said.text);
    desk.wait(60);
    let said = desk.get("sobjects/Contact/deleted/?start=2026-03-02T09:00:30%2B00:00&end=2026-03-02T09:02:59Z");
    assert_eq!(said.body["deletedRecords"][0]["id"], gone.as_str());
    assert_eq!(said.body["latestDateCovered"], "2026-03-02T09:02:00.000+0000");
    let said = desk.get("sobjects/Contact/updated/?start=2026-03-02T09:00:00Z&end=2026-03-02T09:02:00Z");
    assert_eq!(said.body["ids"], json!([kept]));
    let said = desk.get("sobjects/Contact/deleted/?start=2026-03-02T09:00:10Z&end=2026-03-02T09:00:50Z");
    assert_eq!(said.code(), "INVALID_REPLICATION_DATE");
    let other = desk.contact("O", &[("HubSpot_Contact_Id__c", "1")]);
    assert!(!desk.org.undelete(desk.now, "Contact", &gone), "its unique value is taken");
    assert!(desk.org.delete(desk.now, "Contact", &other) && desk.org.undelete(desk.now, "Contact", &gone));
}

#[test]
fn merged_accounts_hand_over_their_contacts_and_deleted_ones_take_them_along() {
    let mut desk = Desk::new(OrgSettings::default());
    let account = |desk: &mut Desk, name: &str| desk.org.create(desk.now, "Account", &[("Name", name)]).unwrap();
    let (winner, loser) = (account(&mut desk, "W"), account(&mut desk, "L"));
    let contact = desk.contact("C", &[("AccountId", &loser)]);
    assert!(desk.org.merge(desk.now, "Account", &winner, &[&loser]));
    assert_eq!(desk.org.look("Contact", &contact).unwrap()["AccountId"], winner);
    assert_eq!(desk.org.look("Account", &loser).unwrap()["MasterRecordId"], winner);
    assert!(!desk.org.undelete(desk.now, "Account", &loser), "what was merged does not come back");
    assert!(desk.org.delete(desk.now, "Account", &winner));
    assert_eq!(desk.org.look("Contact", &contact).unwrap()["IsDeleted"], "true");
    let lead = desk.org.create(desk.now, "Lead", &[("LastName", "L"), ("Company", "C")]).unwrap();
    let (contact, _) = desk.org.convert_lead(desk.now, &lead).unwrap();
    assert_eq!(desk.org.look("Lead", &lead).unwrap()["ConvertedContactId"], contact);
    let said = desk.call("PATCH", &format!("sobjects/Lead/{lead}"), &json!({"Title": "x"}));
    assert_eq!(said.code(), "CANNOT_UPDATE_CONVERTED_LEAD");
}

#[test]
fn the_day_rolls_and_its_limit_is_a_403() {
    let limits = OrgLimits { daily: 3, ..OrgLimits::default() };
    let mut desk = Desk::new(OrgSettings { limits, ..OrgSettings::default() });
    for used in 1..=3 {
        let said = desk.get("sobjects");
        assert_eq!(said.headers["sforce-limit-info"], format!("api-usage={used}/3").as_str());
        desk.wait(600);
    }
    let said = desk.get("limits");
    assert_eq!((said.status, said.code()), (403, "REQUEST_LIMIT_EXCEEDED"));
    desk.wait(24 * 3_600 - 1_700);
    let said = desk.login(OrgSettings::LOGIN_URL, "grant_type=client_credentials");
    desk.token = said.body["access_token"].as_str().unwrap().to_owned();
    assert_eq!(desk.get("limits").body["DailyApiRequests"]["Remaining"], 0, "one came free and was used by this call");
}

#[test]
fn a_bulk_job_takes_one_upload_of_its_own_line_ends_and_results_of_its_own_version() {
    let bulk = BulkPace { queue_ms: 1_000, chunk_ms: 1_000, fail_after: None };
    let mut desk = Desk::new(OrgSettings { bulk, ..OrgSettings::default() });
    let job = json!({"object": "Contact", "operation": "insert", "lineEnding": "LF"});
    let mut run = |csv: &'static str| {
        let made = desk.call("POST", "jobs/ingest", &job);
        let id = made.body["id"].as_str().unwrap().to_owned();
        assert_eq!(made.body["contentUrl"], format!("services/data/v67.0/jobs/ingest/{id}/batches"));
        assert_eq!(made.body["apiVersion"].to_string(), "67.0");
        let path = format!("jobs/ingest/{id}");
        let mut put = || {
            let request = desk.request("PUT", &format!("{path}/batches")).header("content-type", "text/csv");
            desk.send(request.body(Bytes::from(csv)).unwrap()).status
        };
        assert_eq!((put(), put()), (201, 400), "one upload");
        desk.call("PATCH", &path, &json!({"state": "UploadComplete"}));
        assert_eq!(desk.get(&path).body["state"], "UploadComplete");
        desk.wait(1);
        let during = desk.get(&path).body["state"].as_str().unwrap().to_owned();
        desk.wait(5);
        (during, desk.get(&path).body, desk.get(&format!("{path}/failedResults")).text)
    };
    let (during, done, failed) = run("LastName,Email,Title\nA,a@x.com,\n,b@x.com,\"x\ny\"\nC,bad,\n");
    assert_eq!(during, "InProgress");
    assert_eq!(
        (&done["state"], &done["numberRecordsProcessed"], &done["numberRecordsFailed"]),
        (&json!("JobComplete"), &json!(3), &json!(2))
    );
    assert!(failed.contains("REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --"), "{failed}");
    let (_, done, _) = run("LastName\r\nA\r\n");
    assert_eq!(done["state"], "Failed");
    assert!(done["errorMessage"].as_str().unwrap().starts_with("ClientInputError : LineEnding is invalid"));
    let (_, done, _) = run("LastName,Nonsense\nA,b\n");
    assert_eq!(done["errorMessage"], "InvalidBatch : Field name not found : Nonsense");

    let made =
        desk.call("POST", "jobs/query", &json!({"operation": "query", "query": "SELECT Id, LastName FROM Contact"}));
    let id = made.body["id"].as_str().unwrap().to_owned();
    assert_eq!(made.body["state"], "UploadComplete");
    desk.wait(10);
    let said = desk.get(&format!("jobs/query/{id}/results?maxRecords=1"));
    assert_eq!(
        (&said.headers["sforce-locator"], &said.headers["sforce-numberofrecords"]),
        (&"null".parse::<http::HeaderValue>().unwrap(), &"1".parse().unwrap())
    );
    let other = format!("{}/services/data/v66.0/jobs/query/{id}/results", OrgSettings::LOGIN_URL);
    let request =
        Request::get(other).header("authorization", format!("Bearer {}", desk.token)).body(Bytes::new()).unwrap();
    assert_eq!(desk.send(request).status, 409);
    let compound = json!({"operation": "query", "query": "SELECT MailingAddress FROM Contact"});
    assert_eq!(desk.call("POST", "jobs/query", &compound).status, 400);
}

#[test]
fn custom_objects_and_hidden_fields_are_described_as_they_behave() {
    let objects =
        vec![CustomObject { name: "Thing__c".to_owned(), fields: vec![Field::text("Code__c", 10).external_id(true)] }];
    let mut desk = Desk::new(OrgSettings { objects, ..OrgSettings::default() });
    let made = desk.call("POST", "sobjects/Thing__c", &json!({"Name": "T", "Code__c": "1"}));
    assert!(made.body["id"].as_str().unwrap().starts_with("a00"));
    let said = desk.call("POST", "sobjects/Thing__c", &json!({"Name": "U", "Code__c": "1"}));
    assert_eq!(said.code(), "DUPLICATE_VALUE");
    desk.org.hide_field("Contact", "Phone", true);
    let described = desk.get("sobjects/Contact/describe");
    let names: Vec<&str> =
        described.body["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"Email") && !names.contains(&"Phone") && !names.contains(&"Company"));
    assert_eq!(desk.query("SELECT Phone FROM Contact").code(), "INVALID_FIELD");
    assert_eq!(desk.call("POST", "sobjects/Contact", &json!({"LastName": "X", "Phone": "1"})).code(), "INVALID_FIELD");
}

#[test]
fn what_only_salesforce_writes_is_forced_and_moves_no_date() {
    let mut desk = Desk::new(OrgSettings { person_accounts: true, ..OrgSettings::default() });
    let id = desk.contact("A", &[]);
    let before = desk.org.look("Contact", &id).unwrap();
    assert_eq!(before["IsPersonAccount"], "false");
    desk.wait(60);
    assert!(desk.org.force(desk.now, "Contact", &id, "IsPersonAccount", "true"));
    assert!(!desk.org.force(desk.now, "Contact", &id, "Nonsense", "true"));
    let after = desk.org.look("Contact", &id).unwrap();
    assert_eq!((after["IsPersonAccount"].as_str(), &after["SystemModstamp"]), ("true", &before["SystemModstamp"]));
    assert_eq!(desk.names("IsPersonAccount = true"), ["A"]);
}

proptest::proptest! {
    #[test]
    fn no_statement_and_no_body_is_too_strange_for_an_answer(text in "(?s).{0,60}", tail in "[A-Za-z0-9_ '\\\\(),.=<>!:%-]{0,40}") {
        let mut desk = Desk::new(OrgSettings::default());
        for statement in [text.clone(), format!("SELECT Id FROM Contact WHERE {tail}"), format!("SELECT {tail} FROM Contact")] {
            let said = desk.query(&statement);
            proptest::prop_assert!(matches!(said.status, 200 | 400 | 414), "{statement:?}: {}", said.text);
        }
        for path in ["sobjects/Contact", "composite/sobjects", "composite", "jobs/ingest", "jobs/query"] {
            let request = desk.request("POST", path).body(Bytes::from(text.clone())).unwrap();
            proptest::prop_assert!(desk.send(request).status >= 400);
        }
        let body = json!({"LastName": text, "Email": tail, "Birthdate": tail, "AccountId": text});
        proptest::prop_assert!(desk.call("POST", "sobjects/Contact", &body).status < 500);
    }
}

#[test]
fn one_seed_gives_one_run() {
    let run = |seed| {
        let mut desk = Desk::new(OrgSettings { seed, ..OrgSettings::default() });
        five_percent(seed).into_iter().for_each(|fault| desk.org.add_fault(fault));
        desk.org.add_fault(Fault::nth("/limits", 3, What::Slow(70)));
        for number in 0..200 {
            let request = desk
                .request("POST", "sobjects/Contact")
                .body(Bytes::from(json!({"LastName": number.to_string()}).to_string()));
            let request = request.unwrap();
            let _ = desk.org.handle(desk.now, &request);
        }
        (desk.org.state(), desk.org.log().iter().map(|call| call.status).collect::<Vec<_>>())
    };
    assert_eq!(run(4), run(4));
    assert_ne!(run(4).1, run(5).1);
}

#[test]
fn an_org_that_was_kept_is_the_same_org() {
    let now = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
    let mut org = Org::new(OrgSettings::default());
    let account = org.create(now(0), "Account", &[("Name", "Example")]).unwrap();
    let id = org
        .create(now(1), "Contact", &[("LastName", "A"), ("Email", "a@example.com"), ("AccountId", &account)])
        .unwrap();
    org.edit(now(2), "Contact", &id, &[("Title", "Boss")]).unwrap();
    let gone = org.create(now(3), "Contact", &[("LastName", "B")]).unwrap();
    assert!(org.delete(now(4), "Contact", &gone));

    let mut again = Org::restored(OrgSettings::default(), &org.kept()).unwrap();
    assert_eq!(again.state(), org.state());
    assert_eq!(again.portrait("Contact", &id), org.portrait("Contact", &id), "with its history");
    assert!(again.undelete(now(5), "Contact", &gone));
    let fresh = again.create(now(6), "Contact", &[("LastName", "C")]).unwrap();
    assert!(org.look("Contact", &fresh).is_none(), "no id is given twice");
}
