mod changes;
mod content;

use super::*;
use serde_json::{Value, json};

const START: i64 = 1_767_225_600_000;

struct Client {
    portal: Portal,
    ms: i64,
}

impl Client {
    fn new(settings: PortalSettings) -> Self {
        Self { portal: Portal::new(settings), ms: START }
    }

    fn plain() -> Self {
        Self::new(PortalSettings::unlimited())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.ms).unwrap()
    }

    fn raw(&mut self, method: &str, path: &str, body: &Value) -> Outcome {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", PortalSettings::TOKEN))
            .body(body)
            .unwrap();
        self.portal.handle(self.now(), &request).response
    }

    fn response(&mut self, method: &str, path: &str, body: Value) -> Response<Bytes> {
        match self.raw(method, path, &body) {
            Outcome::Response(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn call(&mut self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let response = self.response(method, path, body);
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or_default())
    }

    fn post(&mut self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, body)
    }

    fn get(&mut self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null)
    }

    fn upsert(&mut self, inputs: Value) -> (u16, Value) {
        self.post("/crm/objects/2026-09/contacts/batch/upsert", json!({"inputs": inputs}))
    }
}

fn row(email: &str, trace: Option<&str>, more: Value) -> Value {
    let mut properties = json!({"email": email});
    for (name, value) in more.as_object().unwrap() {
        properties[name] = value.clone();
    }
    let mut input = json!({"id": email, "idProperty": "email", "properties": properties});
    if let Some(trace) = trace {
        input["objectWriteTraceId"] = trace.into();
    }
    input
}

#[test]
fn an_upsert_says_what_was_new_and_lower_cases_emails() {
    let mut client = Client::plain();
    let (status, body) = client.upsert(json!([row("Ada@X.io", Some("1"), json!({"firstname": "Ada"}))]));
    assert_eq!((status, &body["status"]), (200, &json!("COMPLETE")));
    let made = &body["results"][0];
    assert_eq!((&made["new"], &made["objectWriteTraceId"]), (&json!(true), &json!("1")));
    assert_eq!(made["properties"]["email"], "ada@x.io");
    assert_eq!(made["properties"]["lifecyclestage"], "lead");
    assert!(body.get("errors").is_none());
    let (_, body) = client.upsert(json!([row("ADA@x.io", Some("1"), json!({"lastname": "L"}))]));
    assert_eq!(body["results"][0]["new"], false);
    assert_eq!(client.portal.record_count("contacts"), 1);
}

#[test]
fn one_bad_row_refuses_all_without_trace_ids_and_only_itself_with_them() {
    let mut client = Client::plain();
    let (status, body) = client.upsert(json!([row("a@x.io", None, json!({})), row("nonsense", None, json!({}))]));
    assert_eq!((status, &body["category"]), (400, &json!("VALIDATION_ERROR")));
    assert_eq!(body["errors"][0]["code"], "INVALID_EMAIL");
    let message = body["message"].as_str().unwrap();
    let inner: Value = serde_json::from_str(&message[message.find('[').unwrap()..]).unwrap();
    assert_eq!(inner[0]["error"], "INVALID_EMAIL");
    assert_eq!(client.portal.record_count("contacts"), 0);

    for path in ["/crm/v3/objects/contacts/batch/upsert", "/crm/objects/2026-09/0-1/batch/upsert"] {
        let inputs = json!([row("a@x.io", Some("1"), json!({})), row("nonsense", Some("2"), json!({}))]);
        let (status, body) = client.post(path, json!({"inputs": inputs}));
        assert_eq!((status, &body["numErrors"]), (207, &json!(1)), "{path}");
        assert_eq!(body["errors"][0]["context"]["objectWriteTraceId"], json!(["2"]));
        assert_eq!(body["results"][0]["properties"]["email"], "a@x.io");
    }
}

#[test]
fn the_status_of_a_partial_success_on_2026_09_is_a_setting() {
    let mut client = Client::plain();
    client.portal.configure(|settings| settings.unsettled.dated_partial_status = 200);
    let inputs = json!([row("a@x.io", Some("1"), json!({})), row("nonsense", Some("2"), json!({}))]);
    let (status, body) = client.upsert(inputs);
    assert_eq!((status, &body["numErrors"]), (200, &json!(1)));
}

#[test]
fn duplicate_ids_refuse_the_whole_batch_even_with_trace_ids() {
    let mut client = Client::plain();
    let (status, body) = client.upsert(json!([
        row("a@x.io", Some("1"), json!({})),
        row("A@x.io", Some("2"), json!({})),
        row("b@x.io", Some("3"), json!({}))
    ]));
    assert_eq!(status, 400);
    assert_eq!(body["message"], "Duplicate IDs found in batch input: [A@x.io]. IDs must be unique");
    assert_eq!(body["context"]["ids"], json!(["A@x.io"]));
    assert_eq!(client.portal.record_count("contacts"), 0);
}

#[test]
fn only_unique_properties_identify_records() {
    let mut client = Client::plain();
    let input = json!([{"id": "x.io", "idProperty": "domain", "properties": {"name": "X"}, "objectWriteTraceId": "1"}]);
    let (status, body) = client.post("/crm/v3/objects/companies/batch/upsert", json!({"inputs": input}));
    assert_eq!(status, 400);
    assert_eq!(body["message"], "Unable to perform update/upsert by non-unique 0-2 property domain");
    client.portal.define_property("companies", PropertyDefinition::new("ext_id", "string").unique());
    let input = json!([{"id": "7", "idProperty": "ext_id", "properties": {"name": "X"}}]);
    let (status, body) = client.post("/crm/v3/objects/companies/batch/upsert", json!({"inputs": input}));
    assert_eq!((status, &body["results"][0]["properties"]["ext_id"]), (200, &json!("7")));
    let input = json!([{"id": "a@x.io", "idProperty": "email", "properties": {}}]);
    let (status, body) = client.post("/crm/v3/objects/contacts/batch/update", json!({"inputs": input}));
    assert_eq!(status, 400);
    assert_eq!(body["message"], "Unable to perform update/upsert by non-unique 0-1 property email");
}

#[test]
fn a_hundred_and_one_inputs_are_refused() {
    let mut client = Client::plain();
    let inputs: Vec<Value> = (0..101).map(|at| row(&format!("u{at}@x.io"), Some(&at.to_string()), json!({}))).collect();
    let (status, body) = client.upsert(json!(inputs));
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().starts_with("The maximum number of inputs supported in a batch is 100."));
    assert_eq!(client.portal.log()[0].inputs, 101);
}

#[test]
fn a_conflicting_create_is_409_alone_or_untraced_and_an_item_with_trace_ids() {
    let mut client = Client::plain();
    let (status, made) = client.post("/crm/v3/objects/contacts", json!({"properties": {"email": "a@x.io"}}));
    assert_eq!(status, 201);
    let id = made["id"].as_str().unwrap();
    let (status, body) = client.post("/crm/v3/objects/contacts", json!({"properties": {"email": "A@x.io"}}));
    let told = format!("Contact already exists. Existing ID: {id}");
    assert_eq!((status, &body["message"], &body["category"]), (409, &json!(told), &json!("CONFLICT")));
    let both = json!([{"properties": {"email": "a@x.io"}}, {"properties": {"email": "b@x.io"}}]);
    let (status, body) = client.post("/crm/v3/objects/contacts/batch/create", json!({"inputs": both}));
    assert_eq!((status, &body["message"]), (409, &json!("Contact already exists")));
    assert_eq!(client.portal.record_count("contacts"), 1);
    let both = json!([{"properties": {"email": "a@x.io"}, "objectWriteTraceId": "0"},
        {"properties": {"email": "b@x.io"}, "objectWriteTraceId": "1"}]);
    let (status, body) = client.post("/crm/v3/objects/contacts/batch/create", json!({"inputs": both}));
    assert_eq!((status, &body["errors"][0]["context"]["existingId"]), (207, &json!([id])));
    assert!(body["results"][0].get("new").is_none());
    assert_eq!(client.portal.record_count("contacts"), 2);
}

#[test]
fn an_update_of_missing_records_is_partial_and_of_bad_properties_is_refused() {
    let mut client = Client::plain();
    let id = client.portal.seed_record(client.now(), "contacts", &[("email", "a@x.io")]).unwrap();
    let path = "/crm/v3/objects/contacts/batch/update";
    let inputs = json!([{"id": id, "properties": {"firstname": "A"}}, {"id": "999", "properties": {}},
        {"id": "x", "properties": {}}]);
    let (status, body) = client.post(path, json!({"inputs": inputs}));
    assert_eq!((status, &body["errors"][0]["context"]["ids"]), (207, &json!(["999", "x"])));
    assert_eq!((&body["numErrors"], &body["results"][0]["properties"]["firstname"]), (&json!(1), &json!("A")));
    let inputs = json!([{"id": id, "properties": {"firstname": "B", "nope": "1"}}]);
    let (status, body) = client.post(path, json!({"inputs": inputs}));
    assert_eq!((status, &body["errors"][0]["code"]), (400, &json!("PROPERTY_DOESNT_EXIST")));
    assert_eq!(client.portal.find_by("contacts", "email", "a@x.io").unwrap()["firstname"], "A");
}

#[test]
fn reading_missing_records_is_partial() {
    let mut client = Client::plain();
    client.portal.seed_record(client.now(), "contacts", &[("email", "a@x.io")]).unwrap();
    let body = json!({"idProperty": "email", "properties": ["email", "phone", "unknown"],
        "inputs": [{"id": "A@x.io"}, {"id": "b@x.io"}]});
    let (status, body) = client.post("/crm/v3/objects/contacts/batch/read", body);
    assert_eq!((status, &body["errors"][0]["context"]["ids"]), (207, &json!(["b@x.io"])));
    let properties = &body["results"][0]["properties"];
    assert_eq!(properties["phone"], Value::Null);
    assert!(properties.get("unknown").is_none());
}

#[test]
fn secondary_emails_resolve_to_the_same_contact() {
    let mut client = Client::plain();
    let seeded = [("email", "a@x.io"), ("hs_additional_emails", "b@x.io")];
    let id = client.portal.seed_record(client.now(), "contacts", &seeded).unwrap();
    let (_, body) = client.upsert(json!([row("b@x.io", Some("1"), json!({"firstname": "B"}))]));
    assert_eq!((&body["results"][0]["id"], &body["results"][0]["properties"]["email"]), (&json!(id), &json!("a@x.io")));
}

#[test]
fn lifecycle_stages_only_move_forward_and_checkboxes_append() {
    let mut client = Client::plain();
    client.upsert(json!([row("a@x.io", None, json!({"lifecyclestage": "customer", "hs_buying_role": "CHAMPION"}))]));
    client.upsert(json!([row("a@x.io", None, json!({"lifecyclestage": "lead", "hs_buying_role": ";BLOCKER"}))]));
    let record = client.portal.find_by("contacts", "email", "a@x.io").unwrap();
    assert_eq!(record["lifecyclestage"], "customer");
    assert_eq!(record["hs_buying_role"], "CHAMPION;BLOCKER");
}

#[test]
fn administrators_rules_bind_2026_09_but_not_v3() {
    let mut settings = PortalSettings::unlimited();
    settings.required_properties.insert("contacts".to_owned(), vec!["firstname".to_owned()]);
    let mut client = Client::new(settings);
    let (status, body) = client.post("/crm/objects/2026-09/contacts", json!({"properties": {"email": "a@x.io"}}));
    assert_eq!((status, &body["errors"][0]["code"]), (400, &json!("MISSING_REQUIRED_PROPERTY")));
    assert_eq!(client.post("/crm/v3/objects/contacts", json!({"properties": {"email": "a@x.io"}})).0, 201);
    assert_eq!(client.post("/crm/v3/objects/deals", json!({"properties": {"dealname": "D"}})).0, 400);
}

#[test]
fn search_trails_behind_writes() {
    let mut settings = PortalSettings::unlimited();
    settings.index_lag.fixed_ms = 5_000;
    let mut client = Client::new(settings);
    client.upsert(json!([row("a@x.io", None, json!({"firstname": "Old"}))]));
    let query = json!({"filterGroups": [{"filters": [{"propertyName": "email", "operator": "EQ", "value": "a@x.io"}]}],
        "properties": ["firstname"]});
    let path = "/crm/v3/objects/contacts/search";
    assert_eq!(client.post(path, query.clone()).1["total"], 0);
    client.ms += 5_000;
    assert_eq!(client.post(path, query.clone()).1["total"], 1);
    client.upsert(json!([row("a@x.io", None, json!({"firstname": "New"}))]));
    client.ms += 4_999;
    assert_eq!(client.post(path, query.clone()).1["results"][0]["properties"]["firstname"], "Old");
    client.ms += 1;
    let (_, body) = client.post(path, query.clone());
    assert_eq!(body["results"][0]["properties"]["firstname"], "New");
    let id = body["results"][0]["id"].as_str().unwrap().to_owned();
    client.call("DELETE", &format!("/crm/v3/objects/contacts/{id}"), Value::Null);
    assert_eq!(client.post(path, query.clone()).1["total"], 1, "still in the index");
    client.ms += 5_000;
    assert_eq!(client.post(path, query).1["total"], 0);
    assert_eq!(client.get(&format!("/crm/v3/objects/contacts/{id}")).0, 404);
    assert_eq!(client.get(&format!("/crm/v3/objects/contacts/{id}?archived=true")).0, 200);
}

#[test]
fn search_ends_at_ten_thousand_and_at_the_sixth_group() {
    let mut client = Client::plain();
    for at in 0..10_050 {
        client.portal.seed_record(client.now(), "companies", &[("name", &format!("c{at}"))]);
    }
    let path = "/crm/v3/objects/companies/search";
    let (_, body) = client.post(path, json!({"limit": "200", "after": "9800"}));
    assert_eq!((&body["total"], &body["paging"]["next"]["after"]), (&json!(10_050), &json!("10000")));
    assert_eq!(client.post(path, json!({"limit": 200, "after": "10000"})).0, 400);
    assert_eq!(client.post(path, json!({"limit": 201})).0, 400);
    let (status, body) = client.post(path, json!({"filterGroups": vec![json!({"filters": []}); 6]}));
    assert_eq!((status, &body["message"]), (400, &json!("too many filterGroups (count: 6, max allowed: 5)")));
    let filter = json!([{"propertyName": "hs_object_id", "operator": "GT", "value": "17100010000"}]);
    assert_eq!(client.post(path, json!({"filters": filter})).1["total"], 50);
    let (_, body) = client.get("/crm/v3/objects/companies?limit=100");
    assert_eq!(body["paging"]["next"]["after"], "17100000100");
}

#[test]
fn each_bucket_refuses_in_its_own_words() {
    let limits =
        Limits { burst: Some(2), daily: Some(6), search_per_second: Some(1), retry_after: true, ..Limits::default() };
    let settings = PortalSettings { limits, ..PortalSettings::default() };
    let mut client = Client::new(settings);
    let read = "/crm/v3/objects/contacts";
    let response = client.response("GET", read, Value::Null);
    assert_eq!(response.headers()["x-hubspot-ratelimit-remaining"], "1");
    assert_eq!(response.headers()["x-hubspot-ratelimit-daily-remaining"], "5");
    client.get(read);
    let response = client.response("GET", read, Value::Null);
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &HeaderValue::from_static("10"))
    );
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(body["policyName"], "TEN_SECONDLY_ROLLING");
    let search = "/crm/v3/objects/contacts/search";
    let response = client.response("POST", search, json!({}));
    assert!(response.headers().keys().all(|name| !name.as_str().contains("ratelimit")));
    let (status, body) = client.post(search, json!({}));
    assert_eq!((status, &body["category"], body.get("policyName")), (429, &json!("RATE_LIMITS"), None));
    assert_eq!(client.portal.max_calls_in_window(), 3);
    for _ in 0..3 {
        client.ms += 10_000;
        client.get(read);
    }
    let (status, body) = client.get(read);
    assert_eq!((status, &body["policyName"]), (429, &json!("DAILY")));
    assert_eq!(client.portal.counts().throttled, 3);
    // The clock starts at 19:00 of the account's day.
    client.ms += 5 * 3_600_000;
    assert_eq!(client.get(read).0, 200);
}

#[test]
fn tokens_are_refused_when_missing_expired_revoked_or_without_scope() {
    let settings = PortalSettings {
        oauth: Some(OAuthClient {
            client_id: "id".into(),
            client_secret: "secret".into(),
            refresh_tokens: vec!["r".into()],
            scopes: vec!["crm.objects.contacts.read".into()],
            expires_in: 1800,
        }),
        ..PortalSettings::unlimited()
    };
    let mut portal = Portal::new(settings);
    let send = |portal: &mut Portal, ms: i64, method: &str, path: &str, token: &str, body: &'static str| {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let now = Timestamp::from_millisecond(ms).unwrap();
        match portal.handle(now, &request.body(Bytes::from_static(body.as_bytes())).unwrap()).response {
            Outcome::Response(response) => {
                (response.status().as_u16(), serde_json::from_slice::<Value>(response.body()).unwrap())
            }
            other => panic!("{other:?}"),
        }
    };
    let path = "/crm/v3/objects/contacts";
    assert_eq!(send(&mut portal, START, "GET", path, "", "").1["category"], "INVALID_AUTHENTICATION");
    assert_eq!(send(&mut portal, START, "GET", path, "junk", "").1["category"], "EXPIRED_AUTHENTICATION");
    let form = "grant_type=refresh_token&client_id=id&client_secret=secret&refresh_token=r";
    for version in ["v1", "v3", "2026-03", "2026-09"] {
        let (status, body) = send(&mut portal, START, "POST", &format!("/oauth/{version}/token"), "", form);
        assert_eq!((status, &body["expires_in"]), (200, &json!(1800)));
        let token = body["access_token"].as_str().unwrap().to_owned();
        assert_eq!(send(&mut portal, START + 1_799_999, "GET", path, &token, "").0, 200);
        assert_eq!(send(&mut portal, START + 1_875_000, "GET", path, &token, "").0, 401);
        let (status, body) = send(&mut portal, START, "POST", path, &token, "{}");
        assert_eq!((status, &body["category"]), (403, &json!("MISSING_SCOPES")));
    }
    let bad = "grant_type=refresh_token&client_id=id&client_secret=secret&refresh_token=gone";
    let (status, body) = send(&mut portal, START, "POST", "/oauth/2026-09/token", "", bad);
    assert_eq!((status, &body["status"]), (400, &json!("BAD_REFRESH_TOKEN")));
}

#[test]
fn faults_strike_before_or_after_the_commit() {
    let cases = [
        (What::Locked, 423, 0),
        (What::Migrating(7), 477, 0),
        (What::Status(503), 503, 0),
        (What::Html(502), 502, 0),
        (What::BurstLimit, 429, 0),
        (What::EmptyResults, 200, 0),
        (What::RevokeToken, 401, 0),
        (What::TimeoutAfterCommit, 524, 1),
        (What::Slow(500), 200, 1),
    ];
    for (what, expected, written) in cases {
        let mut client = Client::plain();
        client.portal.add_fault(Fault::nth("batch/upsert", 1, what.clone()));
        let (status, _) = client.upsert(json!([row("a@x.io", Some("1"), json!({}))]));
        assert_eq!((status, client.portal.record_count("contacts")), (expected, written), "{what:?}");
    }
    for (what, written) in [(What::ResetBefore, 0), (What::ResetAfter, 1), (What::TruncatedBody, 1)] {
        let mut client = Client::plain();
        client.portal.add_fault(Fault::nth("batch/upsert", 1, what.clone()));
        let body = json!({"inputs": [row("a@x.io", Some("1"), json!({}))]});
        let outcome = client.raw("POST", "/crm/v3/objects/contacts/batch/upsert", &body);
        assert!(!matches!(outcome, Outcome::Response(_)), "{what:?}");
        assert_eq!(client.portal.record_count("contacts"), written, "{what:?}");
    }
}

#[test]
fn five_percent_of_faults_is_five_percent_and_repeatable() {
    let run = || {
        let mut settings = PortalSettings::unlimited();
        settings.faults = Faults::five_percent(3);
        let mut client = Client::new(settings);
        for _ in 0..4_000 {
            let _ = client.raw("GET", "/crm/v3/objects/contacts", &Value::Null);
        }
        client.portal.log().iter().map(|entry| entry.fault.clone()).collect::<Vec<_>>()
    };
    let first = run();
    let struck = first.iter().flatten().count();
    assert!((140..260).contains(&struck), "{struck}");
    assert_eq!(first, run());
}

#[test]
fn a_new_property_can_be_used_after_a_moment_and_exists_only_once() {
    let mut client = Client::plain();
    let path = "/crm/properties/2026-09/contacts";
    let body = json!({"name": "ext_id", "label": "Id", "type": "string", "fieldType": "text",
        "groupName": "contactinformation", "hasUniqueValue": true});
    assert_eq!(client.post(path, body.clone()).0, 201);
    assert_eq!(client.get(&format!("{path}/ext_id")).0, 404);
    client.ms += 700;
    assert_eq!(client.get("/crm/v3/properties/contacts/ext_id").1["hasUniqueValue"], true);
    let (status, error) = client.post(path, body);
    assert_eq!((status, &error["subCategory"]), (409, &json!("Properties.PROPERTY_WITH_NAME_EXISTS")));
    let (_, body) = client.upsert(json!([{"id": "k1", "idProperty": "ext_id", "properties": {"email": "a@x.io"}}]));
    assert_eq!(body["results"][0]["properties"]["ext_id"], "k1");
}

#[test]
fn associations_are_answered_per_direction_and_the_first_company_is_primary() {
    let mut client = Client::plain();
    let now = client.now();
    let contact = client.portal.seed_record(now, "contacts", &[("email", "a@x.io")]).unwrap();
    let first = client.portal.seed_record(now, "companies", &[("name", "One")]).unwrap();
    let second = client.portal.seed_record(now, "companies", &[("name", "Two")]).unwrap();
    let base = "/crm/associations/2026-09/contacts/companies";
    let pairs: Vec<Value> =
        [&first, &second].iter().map(|to| json!({"from": {"id": contact}, "to": {"id": to}})).collect();
    let (status, body) = client.post(&format!("{base}/batch/associate/default"), json!({"inputs": pairs}));
    assert_eq!((status, body["results"].as_array().unwrap().len()), (200, 4));
    assert_eq!(body["results"][1]["associationSpec"]["associationTypeId"], 280);
    let read = json!({"inputs": [{"id": contact}, {"id": "5"}]});
    let (_, body) = client.post("/crm/v4/associations/contacts/companies/batch/read", read);
    let ends = &body["results"][0]["to"];
    assert_eq!(ends[0]["toObjectId"], json!(first.parse::<u64>().unwrap()));
    let types = |at: usize| {
        ends[at]["associationTypes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["typeId"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((types(0), types(1)), (vec![279, 1], vec![279]));
    assert_eq!(body["errors"][0]["subCategory"], "crm.associations.NO_ASSOCIATIONS_FOUND");
    assert_eq!(body["errors"][0]["message"], "No company is associated with contact 5.");
    assert_eq!(client.portal.state()["contacts"][0]["associations"], "companies:One, companies:Two");
}

#[test]
fn merged_ids_resolve_and_deleted_people_stay_deleted() {
    let mut client = Client::plain();
    let now = client.now();
    let one = client.portal.seed_record(now, "contacts", &[("email", "a@x.io")]).unwrap();
    let two = client.portal.seed_record(now, "contacts", &[("email", "b@x.io"), ("phone", "1")]).unwrap();
    let body = json!({"primaryObjectId": one, "objectIdToMerge": two});
    assert_eq!(client.post("/crm/v3/objects/contacts/merge", body).0, 200);
    let (_, body) = client.get(&format!("/crm/v3/objects/contacts/{two}?properties=phone,hs_merged_object_ids"));
    assert_eq!((&body["id"], &body["properties"]["phone"]), (&json!(one), &json!("1")));
    assert_eq!(client.get("/crm/v3/objects/contacts/b@x.io?idProperty=email").1["id"], one);
    let body = json!({"objectId": one});
    assert_eq!(client.post("/crm/v3/objects/contacts/gdpr-delete", body).0, 204);
    let (status, body) = client.upsert(json!([row("a@x.io", None, json!({}))]));
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().contains("email has been GDPR blacklisted"));
}

#[test]
fn unknown_types_and_bodies_are_answered_as_hubspot_does() {
    let mut client = Client::plain();
    assert_eq!(client.get("/crm/v3/objects/butterflies").1["message"], "Unable to infer object type from: butterflies");
    let (status, body) = client.get("/crm/v3/objects/contacts/abc");
    assert_eq!((status, &body["category"]), (404, &json!("OBJECT_NOT_FOUND")));
    let (status, body) = client.post("/crm/v3/objects/contacts/batch/upsert", json!([1]));
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().starts_with("Invalid input JSON on line 1, column"));
}

#[tokio::test]
async fn the_http_door_answers_keeps_connections_and_cuts_them() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut settings = PortalSettings::unlimited();
    settings.faults =
        vec![Fault::nth("contacts", 3, What::TruncatedBody), Fault::nth("contacts", 4, What::ResetBefore)];
    let portal = std::sync::Arc::new(std::sync::Mutex::new(Portal::new(settings)));
    let clock = || Timestamp::from_millisecond(START).unwrap();
    let serving = server::serve(listener, portal.clone(), clock);
    let client = async {
        let ask = format!(
            "GET /crm/v3/objects/contacts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            PortalSettings::TOKEN
        );
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let content = ask.replace("/crm/v3/objects/contacts", "/cms/v3/blogs/tags");
        for _ in 0..2 {
            stream.write_all(content.as_bytes()).await.unwrap();
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            assert!(text.contains(r#""total":0"#), "{text}");
            assert_eq!(text.matches("\r\ndate: ").count(), 1, "{text}");
            assert!(text.contains("date: Thu, 01 Jan 2026 00:00:00 GMT"), "the account's clock: {text}");
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut bytes = vec![0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            assert!(text.ends_with(r#"{"results":[]}"#), "{text}");
        }
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest).await;
        assert!(rest.contains("content-length: 14") && !rest.ends_with("[]}"), "{rest}");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut nothing = Vec::new();
        let _ = stream.read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
    };
    tokio::select! {
        never = serving => panic!("{never:?}"),
        () = client => {}
    }
    assert_eq!(portal.lock().unwrap().counts().requests, 6);
}

#[test]
fn an_account_that_was_kept_is_the_same_account() {
    let now = |second: i64| jiff::Timestamp::from_second(1_790_000_000 + second).unwrap();
    let mut portal = Portal::new(PortalSettings::default());
    let first = portal.seed_record(now(0), "contacts", &[("email", "a@example.com"), ("firstname", "A")]).unwrap();
    let second = portal.seed_record(now(1), "contacts", &[("email", "b@example.com")]).unwrap();
    let gone = portal.seed_record(now(2), "contacts", &[("email", "c@example.com")]).unwrap();
    let loser = portal.seed_record(now(2), "contacts", &[("email", "d@example.com")]).unwrap();
    let company = portal.seed_record(now(3), "companies", &[("name", "Example"), ("domain", "example.com")]).unwrap();
    portal.define_property("contacts", PropertyDefinition::new("shoe_size", "number"));
    assert!(portal.edit(now(4), "contacts", &first, &[("firstname", "Anna"), ("shoe_size", "41")]));
    assert!(portal.set_archived(now(5), "contacts", &gone, true));
    assert!(portal.merge(now(6), "contacts", &second, &loser));
    assert!(portal.associate("contacts", &first, "companies", &company));
    portal.block_address("blocked@example.com");

    let mut again = Portal::restored(PortalSettings::default(), &portal.kept()).unwrap();
    assert_eq!(again.state(), portal.state());
    assert_eq!(again.portrait("contacts", &first), portal.portrait("contacts", &first), "with what it was before");
    assert_eq!(again.associations_of("companies", &company, "contacts"), std::slice::from_ref(&first));
    assert_eq!(again.merged_into("contacts", &loser), Some(second.clone()));
    assert_eq!(again.archived_objects(now(7), "contacts").len(), 1);
    assert!(again.set_archived(now(7), "contacts", &gone, false), "it can still be restored");
    assert_eq!(
        again.find_by("contacts", "email", "d@example.com").unwrap()["hs_object_id"],
        second,
        "a merged address leads on"
    );
    let fresh = again.seed_record(now(8), "contacts", &[("email", "e@example.com")]).unwrap();
    assert!(portal.portrait("contacts", &fresh).is_none() && fresh > company, "no id is given twice");
    assert!(Portal::restored(PortalSettings::default(), b"{}").is_err());
}
