//! Every shape of answer that a batch can get, from a scripted HubSpot.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::{Clock, Rng, VirtualClock},
    config::{HubSpotAccount, Limits},
    http::{HttpError, HttpService, Sent, rate_limit::LocalBudget},
    hubspot::account::AccountParts,
    record::Input,
    secrets::{Redacted, Secrets},
};

type Reply = Result<(u16, Value), Sent>;
type Script = Box<dyn Fn(usize, &Seen) -> Reply>;

/// What a call carried.
struct Seen {
    path: String,
    token: String,
    inputs: Vec<Value>,
}

struct Scripted {
    seen: RefCell<Vec<Seen>>,
    answer: Script,
}

#[async_trait(?Send)]
impl HttpService for Scripted {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let seen = Seen {
            path: request.uri().path().to_owned(),
            token: request
                .headers()
                .get("authorization")
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default(),
            inputs: body["inputs"].as_array().cloned().unwrap_or_default(),
        };
        let reply = (self.answer)(self.seen.borrow().len(), &seen);
        self.seen.borrow_mut().push(seen);
        match reply {
            Err(sent) => Err(HttpError { sent, message: "connection reset".to_owned() }),
            Ok((status, body)) => {
                let text = match body {
                    Value::String(text) => text,
                    body => body.to_string(),
                };
                Ok(Response::builder()
                    .status(status)
                    .header("date", "Sun, 22 Nov 2026 12:00:30 GMT")
                    .body(text.into())
                    .unwrap())
            }
        }
    }
}

struct Secret {
    values: RefCell<Vec<&'static str>>,
    reads: Cell<u32>,
    put: RefCell<Vec<String>>,
}

#[async_trait(?Send)]
impl Secrets for Secret {
    async fn get(&self, _: &str) -> Result<Redacted> {
        self.reads.set(self.reads.get() + 1);
        let mut values = self.values.borrow_mut();
        let value = if values.len() > 1 { values.remove(0) } else { values[0] };
        Ok(Redacted::new(value))
    }
    async fn put(&self, _: &str, value: &Redacted, _: &str) -> Result<()> {
        self.put.borrow_mut().push(value.expose().to_owned());
        Ok(())
    }
}

struct World {
    account: Account,
    http: Rc<Scripted>,
    secret: Rc<Secret>,
    clock: Rc<VirtualClock>,
}

const STATIC: &str = r#"{"access_token":"pat-1"}"#;

fn world_with(secrets: &[&'static str], answer: impl Fn(usize, &Seen) -> Reply + 'static) -> World {
    let clock = Rc::new(VirtualClock::starting_at("2026-11-22T12:00:00Z".parse::<Timestamp>().unwrap()));
    let http = Rc::new(Scripted { seen: RefCell::default(), answer: Box::new(answer) });
    let secret =
        Rc::new(Secret { values: RefCell::new(secrets.to_vec()), reads: Cell::new(0), put: RefCell::default() });
    let settings = HubSpotAccount {
        secret: "hubspot".to_owned(),
        base_url: "https://api.example.com/".to_owned(),
        api_version: "2026-09".to_owned(),
        limits: Limits { burst: Some(190), ..Limits::default() },
    };
    let account = Account::new(AccountParts {
        name: "default".to_owned(),
        settings,
        http: http.clone(),
        clock: clock.clone(),
        rng: Rc::new(Rng::seeded(1)),
        secrets: secret.clone(),
        budget: Rc::new(LocalBudget::default()),
    });
    World { account, http, secret, clock }
}

fn world(answer: impl Fn(usize, &Seen) -> Reply + 'static) -> World {
    world_with(&[STATIC], answer)
}

fn inputs(count: usize) -> Vec<Input> {
    (0..count).map(|n| input(&format!("p{n}@example.com"), "x")).collect()
}

fn input(key: &str, city: &str) -> Input {
    Input { key: key.to_owned(), properties: vec![("email".into(), key.to_owned()), ("city".into(), city.to_owned())] }
}

impl World {
    async fn upsert(&self, inputs: &[Input]) -> Result<Vec<Verdict>> {
        self.upsert_until(inputs, Deadline::NONE).await
    }
    async fn upsert_until(&self, inputs: &[Input], deadline: Deadline) -> Result<Vec<Verdict>> {
        self.account.upsert(&ObjectType("contacts".to_owned()), "email", inputs, None, deadline).await
    }
    fn calls(&self) -> usize {
        self.http.seen.borrow().len()
    }
}

fn key(input: &Value) -> &str {
    input["id"].as_str().unwrap()
}

fn id_of(key: &str) -> String {
    format!("id-{}", fold_key(key))
}

fn result(input: &Value) -> Value {
    json!({"id": id_of(key(input)), "new": true, "objectWriteTraceId": input["objectWriteTraceId"],
        "properties": {"email": key(input).to_lowercase(), "createdate": "2026-01-02T03:04:05.678Z"}, "archived": false})
}

fn error(input: &Value, code: &str) -> Value {
    let inner =
        json!([{"isValid": false, "message": format!("{} is bad", key(input)), "error": code, "name": "email"}]);
    json!({"status": "error", "category": "VALIDATION_ERROR", "message": format!("Property values were not valid: {inner}"),
        "context": {"objectWriteTraceId": [input["objectWriteTraceId"]]}})
}

fn complete(results: Vec<Value>, errors: Vec<Value>) -> Value {
    if errors.is_empty() {
        return json!({"status": "COMPLETE", "results": results});
    }
    json!({"status": "COMPLETE", "results": results, "numErrors": errors.len(), "errors": errors})
}

fn all(seen: &Seen) -> Reply {
    Ok((200, complete(seen.inputs.iter().map(result).collect(), vec![])))
}

fn written(key: &str) -> Verdict {
    Verdict::Written { id: id_of(key), created: true }
}

fn code(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Refused(reason) => &reason.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn good_rows_are_written_and_bad_ones_refused_whatever_the_status_and_the_order() {
    for status in [200, 201, 207] {
        let world = world(move |_, seen| {
            let (bad, good): (Vec<_>, Vec<_>) = seen.inputs.iter().partition(|input| key(input).contains('3'));
            let results = good.iter().rev().map(|input| result(input)).collect();
            Ok((status, complete(results, bad.iter().map(|input| error(input, "INVALID_EMAIL")).collect())))
        });
        let inputs = inputs(8);
        let verdicts = world.upsert(&inputs).await.unwrap();
        for (input, verdict) in inputs.iter().zip(&verdicts) {
            if input.key.contains('3') {
                assert_eq!(code(verdict), "INVALID_EMAIL");
                let Verdict::Refused(reason) = verdict else { panic!() };
                assert_eq!(reason.reason, "email: ‹value› is bad");
            } else {
                assert_eq!(*verdict, written(&input.key));
            }
        }
        assert_eq!(world.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_carries_what_hubspot_wants_and_every_trace_id_once() {
    let world = world(|_, seen| all(seen));
    let mut inputs = inputs(230);
    inputs[5].key = "  P1@Example.com".to_owned();
    let verdicts = world.upsert(&inputs).await.unwrap();
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Written { .. })));
    let seen = world.http.seen.borrow();
    let mut traces = std::collections::BTreeSet::new();
    for call in seen.iter() {
        assert_eq!(
            (call.path.as_str(), call.token.as_str()),
            ("/crm/objects/2026-09/contacts/batch/upsert", "Bearer pat-1")
        );
        assert!(call.inputs.len() <= BATCH_INPUTS_MAX);
        let keys: std::collections::BTreeSet<_> = call.inputs.iter().map(|input| fold_key(key(input))).collect();
        assert_eq!(keys.len(), call.inputs.len(), "a key twice in a call");
        for input in &call.inputs {
            assert_eq!((&input["idProperty"], &input["properties"]["city"]), (&json!("email"), &json!("x")));
            assert!(traces.insert(input["objectWriteTraceId"].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(traces.len(), 230);
    assert_eq!(
        world.account.server_time().to_string(),
        world.clock.now().checked_add(jiff::SignedDuration::from_secs(30)).unwrap().to_string()
    );
}

#[tokio::test(start_paused = true)]
async fn large_rows_make_smaller_calls() {
    let world = world(|_, seen| all(seen));
    let inputs: Vec<_> = (0..30).map(|n| input(&format!("p{n}@example.com"), &"x".repeat(60_000))).collect();
    world.upsert(&inputs).await.unwrap();
    assert_eq!(world.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn results_without_trace_are_matched_by_key_and_without_key_by_elimination() {
    let strip = |seen: &Seen, names: &'static [&'static str]| -> Reply {
        let results = seen.inputs.iter().rev().map(|input| {
            let mut found = result(input);
            for name in names {
                found.as_object_mut().unwrap().remove(*name);
            }
            found
        });
        Ok((200, complete(results.collect(), vec![])))
    };
    let rows = [input("A@Example.com", "x"), input("b@example.com", "y")];
    let by_key = world(move |_, seen| strip(seen, &["objectWriteTraceId"]));
    assert_eq!(by_key.upsert(&rows).await.unwrap(), [written("a@example.com"), written("b@example.com")]);
    let blind = world(move |_, seen| strip(seen, &["objectWriteTraceId", "properties"]));
    let anyone = Verdict::Written { id: String::new(), created: true };
    assert_eq!(blind.upsert(&rows).await.unwrap(), [anyone.clone(), anyone]);
    let alone = world(move |_, seen| strip(seen, &["objectWriteTraceId", "properties"]));
    assert_eq!(alone.upsert(&rows[..1]).await.unwrap(), [written("a@example.com")]);
}

#[tokio::test(start_paused = true)]
async fn a_2xx_that_says_nothing_is_asked_again_and_never_taken_for_written() {
    let recovers = world(|call, seen| if call < 2 { Ok((200, complete(vec![], vec![]))) } else { all(seen) });
    let rows = inputs(3);
    assert_eq!(recovers.upsert(&rows).await.unwrap(), rows.iter().map(|row| written(&row.key)).collect::<Vec<_>>());
    let never = world(|_, _| Ok((200, complete(vec![], vec![]))));
    assert_eq!(never.upsert(&rows).await.unwrap(), vec![Verdict::Unknown; 3]);
    assert_eq!(never.calls(), ROUNDS_MAX as usize);
}

#[tokio::test(start_paused = true)]
async fn rows_that_an_answer_forgets_are_sent_again_without_the_others() {
    let world = world(|call, seen| {
        let keep = if call == 0 { 7 } else { seen.inputs.len() };
        Ok((200, complete(seen.inputs.iter().take(keep).map(result).collect(), vec![])))
    });
    let rows = inputs(10);
    assert_eq!(world.upsert(&rows).await.unwrap(), rows.iter().map(|row| written(&row.key)).collect::<Vec<_>>());
    let seen = world.http.seen.borrow();
    assert_eq!(seen.iter().map(|call| call.inputs.len()).collect::<Vec<_>>(), [10, 3]);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_cut_bodies_and_gateway_pages_repeat_the_same_batch() {
    let world = world(|call, seen| match call {
        0 => Err(Sent::Maybe),
        1 => Ok((200, json!("{\"results\":[{\"id\":"))),
        2 => Ok((502, json!("<html>Bad Gateway</html>"))),
        3 => Ok((524, json!("<html>"))),
        4 => Ok((429, json!({"policyName": "TEN_SECONDLY_ROLLING", "message": "limit"}))),
        _ => all(seen),
    });
    let rows = inputs(4);
    assert_eq!(world.upsert(&rows).await.unwrap(), rows.iter().map(|row| written(&row.key)).collect::<Vec<_>>());
    let seen = world.http.seen.borrow();
    assert!(seen.iter().all(|call| call.inputs == seen[0].inputs));
    let counts = world.account.counts();
    assert_eq!((counts.total, counts.retried, counts.throttled), (6, 5, 1));
}

#[tokio::test(start_paused = true)]
async fn one_bad_row_of_a_hundred_is_found_in_fifteen_calls() {
    for bad in [0, 57, 99] {
        let world = world(move |_, seen| {
            let name = format!("p{bad}@example.com");
            match seen.inputs.iter().find(|input| key(input) == name) {
                Some(input) => {
                    let mut refusal = error(input, "INVALID_EMAIL");
                    refusal.as_object_mut().unwrap().remove("context");
                    Ok((400, refusal))
                }
                None => all(seen),
            }
        });
        let verdicts = world.upsert(&inputs(100)).await.unwrap();
        assert_eq!(verdicts.iter().position(|verdict| matches!(verdict, Verdict::Refused(_))), Some(bad));
        assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Written { .. })).count(), 99);
        assert!(world.calls() <= 2 * 7 + 1, "{}", world.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_no_row_explains_is_one_error_of_the_run() {
    let refuse = |message: &'static str| {
        world(move |_, _| Ok((400, json!({"status": "error", "message": message, "category": "VALIDATION_ERROR"}))))
    };
    let key = refuse("Unable to perform update/upsert by non-unique 0-2 property domain");
    let error = key.upsert(&inputs(100)).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), key.calls()), (ErrorKind::Invalid, codes::KEY_NOT_UNIQUE, 1));
    let kind = refuse("Unable to infer object type from: butterflies");
    let error = kind.upsert(&inputs(100)).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), kind.calls()), (ErrorKind::Invalid, codes::HUBSPOT_REFUSED, 1));
    let vague = refuse("There was a problem with the request.");
    let error = vague.upsert(&inputs(100)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::HUBSPOT_REFUSED));
    assert!(vague.calls() <= 15, "{}", vague.calls());
    assert!(error.message().contains("There was a problem"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_quotes_the_row_is_about_the_row_however_often_it_comes() {
    let world = world(|_, seen| match seen.inputs.as_slice() {
        [row] => Ok((400, json!({"message": format!("Cannot make sense of {}", key(row).to_uppercase())}))),
        _ => Ok((400, json!({"message": "There was a problem with the request."}))),
    });
    for verdict in world.upsert(&inputs(8)).await.unwrap() {
        let Verdict::Refused(reason) = verdict else { panic!("{verdict:?}") };
        assert_eq!((&*reason.code, reason.reason.as_str()), ("VALIDATION_ERROR", "Cannot make sense of ‹value›"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_property_that_is_gone_refuses_its_rows_without_a_search() {
    let gone = json!({"category": "VALIDATION_ERROR", "message": "Property values were not valid: []",
        "errors": [{"message": "no", "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": ["city"]}}]});
    let world = world(move |_, seen| {
        if seen.inputs.iter().any(|input| input["properties"].get("city").is_some()) {
            Ok((400, gone.clone()))
        } else {
            all(seen)
        }
    });
    let mut rows = inputs(100);
    rows[7].properties.pop();
    let verdicts = world.upsert(&rows).await.unwrap();
    assert_eq!(verdicts[7], written(&rows[7].key));
    assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Refused(_))).count(), 99);
    assert_eq!((code(&verdicts[0]), world.calls()), ("PROPERTY_DOESNT_EXIST", 2));
}

#[tokio::test(start_paused = true)]
async fn keys_that_hubspot_takes_for_one_are_sent_one_after_the_other() {
    let world = world(|call, seen| {
        if call == 0 {
            let ids = [key(&seen.inputs[2]), key(&seen.inputs[4])];
            let message = format!("Duplicate IDs found in batch input: [{}]. IDs must be unique", ids.join(", "));
            return Ok((400, json!({"message": message, "context": {"ids": ids}, "category": "VALIDATION_ERROR"})));
        }
        all(seen)
    });
    let rows = inputs(6);
    assert_eq!(world.upsert(&rows).await.unwrap(), rows.iter().map(|row| written(&row.key)).collect::<Vec<_>>());
    assert_eq!(world.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn one_error_may_name_several_rows() {
    let world = world(|_, seen| {
        let error = json!({"category": "OBJECT_NOT_FOUND", "message": "Could not get some objects",
            "context": {"ids": [key(&seen.inputs[0]), key(&seen.inputs[2])]}});
        Ok((207, complete(vec![result(&seen.inputs[1])], vec![error])))
    });
    let rows = inputs(3);
    let verdicts = world.upsert(&rows).await.unwrap();
    assert_eq!(
        (code(&verdicts[0]), code(&verdicts[2]), &verdicts[1]),
        ("OBJECT_NOT_FOUND", "OBJECT_NOT_FOUND", &written(&rows[1].key))
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_read_again_once() {
    let expired = || Ok((401, json!({"category": "EXPIRED_AUTHENTICATION", "message": "expired 75 second(s) ago"})));
    let rotated = world_with(&[STATIC, r#"{"access_token":"pat-2"}"#], move |_, seen| {
        if seen.token.ends_with('1') { expired() } else { all(seen) }
    });
    rotated.upsert(&inputs(1)).await.unwrap();
    assert_eq!((rotated.calls(), rotated.secret.reads.get()), (2, 2));
    let revoked = world(move |_, _| expired());
    let error = revoked.upsert(&inputs(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthorized, codes::TOKEN_REFUSED));
    assert!(revoked.calls() == 1 && !format!("{error:?}").contains("pat-1"), "{error:?}");
}

const OAUTH: &str = r#"{"client_id":"c","client_secret":"s","refresh_token":"r1","note":"kept"}"#;

#[tokio::test(start_paused = true)]
async fn oauth_is_refreshed_once_for_all_ahead_of_its_end_and_a_new_refresh_token_is_stored() {
    let world = world_with(&[OAUTH], |call, seen| match seen.path.as_str() {
        "/oauth/2026-09/token" if call == 0 => Ok((429, json!({"message": "slow down", "retry_after": 1}))),
        "/oauth/2026-09/token" => {
            Ok((200, json!({"access_token": format!("a{call}"), "refresh_token": "r2", "expires_in": 1800})))
        }
        _ => all(seen),
    });
    let rows = inputs(1);
    futures_util::future::join_all((0..10).map(|_| world.upsert(&rows))).await;
    let refreshes = || world.http.seen.borrow().iter().filter(|call| call.path.starts_with("/oauth")).count();
    assert_eq!(refreshes(), 2);
    let stored: Value = serde_json::from_str(&world.secret.put.borrow()[0]).unwrap();
    assert_eq!((&stored["refresh_token"], &stored["note"]), (&json!("r2"), &json!("kept")));
    world.clock.sleep(Duration::from_secs(1_510)).await;
    world.upsert(&rows).await.unwrap();
    assert_eq!(refreshes(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_longer_than_its_token_lives_goes_on_with_another_one() {
    let world = world_with(&[OAUTH], |call, seen| match (seen.path.as_str(), call) {
        ("/oauth/2026-09/token", _) => Ok((200, json!({"access_token": format!("a{call}"), "expires_in": 60}))),
        // HubSpot moves the account to another place, twice, and each time for longer than a token lives.
        (_, 1 | 3) => Ok((477, json!({"message": "the account is being migrated", "retry_after": 75}))),
        _ => all(seen),
    });
    world.upsert(&inputs(1)).await.unwrap();
    let seen = world.http.seen.borrow();
    let upserts = seen.iter().filter(|call| !call.path.starts_with("/oauth"));
    let tokens: Vec<&str> = upserts.map(|call| call.token.trim_start_matches("Bearer ")).collect();
    assert_eq!(tokens, ["a0", "a2", "a4"]);
}

#[tokio::test(start_paused = true)]
async fn a_bad_secret_and_a_refused_refresh_are_told_without_their_values() {
    for (secret, told) in [
        ("pat-secret", "not a JSON object"),
        (r#"{"access_token":5}"#, "`access_token` is not text"),
        (r#"{"client_id":"hush","refresh_token":"hush"}"#, "`client_secret` is missing"),
        (r#"{"token":"hush"}"#, "neither `access_token` nor `refresh_token`"),
    ] {
        let world = world_with(&[secret], |_, seen| all(seen));
        let error = world.upsert(&inputs(1)).await.unwrap_err();
        assert_eq!((error.code(), world.calls()), (codes::SECRET_INVALID, 0));
        assert!(
            error.message().contains(told) && !error.message().contains("hush") && !error.message().contains("pat-"),
            "{error}"
        );
    }
    let world = world_with(&[OAUTH], |_, _| {
        Ok((400, json!({"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"})))
    });
    let error = world.upsert(&inputs(1)).await.unwrap_err();
    assert_eq!(error.code(), codes::TOKEN_REFUSED);
    assert!(error.message().contains("BAD_REFRESH_TOKEN"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn missing_scopes_are_named() {
    let world = world(|_, _| {
        Ok((
            403,
            json!({"category": "MISSING_SCOPES", "errors": [{"context": {"requiredGranularScopes": ["crm.objects.contacts.write"]}}]}),
        ))
    });
    let error = world.upsert(&inputs(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), world.calls()), (ErrorKind::Forbidden, codes::SCOPES_MISSING, 1));
    assert!(error.message().contains("lacks crm.objects.contacts.write"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_day_being_spent_stops_at_once_and_for_all() {
    let world =
        world(|_, _| Ok((429, json!({"policyName": "DAILY", "message": "You have reached your daily limit."}))));
    for _ in 0..2 {
        let error = world.upsert(&inputs(1)).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::DailyLimit, codes::DAILY_LIMIT));
    }
    assert_eq!(world.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_before_the_deadline() {
    let world = world(|_, _| Ok((503, json!("<html>"))));
    let deadline = Deadline { at: world.clock.now().checked_add(jiff::SignedDuration::from_secs(20)).unwrap() };
    let error = world.upsert_until(&inputs(1), deadline).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable { .. }), "{error:?}");
    assert!(world.clock.now() < deadline.at && world.calls() >= 3, "{}", world.calls());
}

#[tokio::test(start_paused = true)]
async fn creates_are_not_repeated_when_the_answer_was_lost() {
    let world = world(|_, _| Err(Sent::Maybe));
    let object = ObjectType("contacts".to_owned());
    let rows = inputs(2);
    let mut verdicts = vec![None; 2];
    let write = Write { kind: WriteKind::Create, object: &object, id_property: Some("email") };
    world.account.write(write, &rows, &mut verdicts, None, Deadline::NONE).await.unwrap();
    assert_eq!((verdicts, world.calls()), (vec![Some(Verdict::Unknown); 2], 1));
}

/// A row's fate in the property test, and how much of it HubSpot tells.
#[derive(Debug, Clone, Copy)]
struct Fate {
    good: bool,
    traced: bool,
    forgotten: bool,
    order: u32,
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn a_body_is_json_whatever_its_texts_hold(
        rows in proptest::collection::vec(("\\PC{0,8}|[\"\\\\\u{0}-\u{1f}é€😀x]{0,40}", proptest::collection::vec("[\"\\\\\u{0}-\u{1f}ü a-z]{0,40}", 0..3)), 1..12),
        property in "[a-z_]{1,9}|a\"b",
    ) {
        let object = ObjectType("contacts".to_owned());
        let inputs: Vec<Input> = rows
            .into_iter()
            .map(|(key, values)| Input {
                key,
                properties: values.into_iter().enumerate().map(|(at, value)| (format!("p{at}\"").into(), value)).collect(),
            })
            .collect();
        let members: Vec<&Input> = inputs.iter().collect();
        for kind in [WriteKind::Upsert, WriteKind::Create, WriteKind::Update, WriteKind::Archive] {
            for id_property in [Some(property.as_str()), None] {
                let body = encode(Write { kind, object: &object, id_property }, &members, "7f-3-").unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let expected: Vec<Value> = members
                    .iter()
                    .enumerate()
                    .map(|(at, input)| {
                        let mut one = serde_json::Map::new();
                        if kind != WriteKind::Create {
                            one.insert("id".to_owned(), input.key.as_str().into());
                        }
                        if let (WriteKind::Upsert | WriteKind::Update, Some(property)) = (kind, id_property) {
                            one.insert("idProperty".to_owned(), property.into());
                        }
                        if kind != WriteKind::Archive {
                            let properties: serde_json::Map<String, Value> =
                                input.properties.iter().map(|(name, value)| (name.to_string(), value.as_str().into())).collect();
                            one.insert("properties".to_owned(), properties.into());
                            one.insert("objectWriteTraceId".to_owned(), format!("7f-3-{at}").into());
                        }
                        one.into()
                    })
                    .collect();
                assert_eq!(body, json!({ "inputs": expected }));
            }
        }
    }

    #[test]
    fn every_input_gets_its_own_verdict(
        fates in proptest::collection::vec((proptest::bool::ANY, proptest::bool::ANY, proptest::bool::weighted(0.2), 0u32..1_000), 1..150)
    ) {
        let rows = inputs(fates.len());
        let fates: BTreeMap<String, Fate> = rows.iter().zip(fates)
            .map(|(row, (good, traced, forgotten, order))| (row.key.clone(), Fate { good, traced, forgotten, order })).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let expected = fates.clone();
        runtime.block_on(async move {
            let told = RefCell::new(std::collections::BTreeSet::new());
            let world = world(move |_, seen| {
                let mut inputs: Vec<_> = seen.inputs.iter().collect();
                inputs.sort_by_key(|input| fates[key(input)].order);
                let (mut results, mut errors) = (Vec::new(), Vec::new());
                for input in inputs {
                    let fate = fates[key(input)];
                    if fate.forgotten && told.borrow_mut().insert(key(input).to_owned()) {
                        continue;
                    }
                    let mut item = if fate.good { result(input) } else { error(input, "INVALID_EMAIL") };
                    if !fate.traced {
                        item.as_object_mut().unwrap().remove("objectWriteTraceId");
                        if !fate.good {
                            item["context"] = json!({"ids": [key(input).to_uppercase()]});
                        }
                    }
                    if fate.good { results.push(item) } else { errors.push(item) }
                }
                Ok((207, complete(results, errors)))
            });
            let verdicts = world.upsert(&rows).await.unwrap();
            assert_eq!(verdicts.len(), rows.len());
            for (row, verdict) in rows.iter().zip(&verdicts) {
                if expected[&row.key].good {
                    assert_eq!(*verdict, written(&row.key));
                } else {
                    assert_eq!(code(verdict), "INVALID_EMAIL");
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_another_run_outran_is_sent_once_more_and_a_lasting_conflict_is_told() {
    let conflict = |input: &Value, property: &str| {
        let inner = json!([{"isValid": false, "message": "propertyValue: already has that value",
            "error": "CONFLICTING_UNIQUE_VALUE", "name": property}]);
        json!({"status": "error", "category": "VALIDATION_ERROR", "message": format!("Property values were not valid: {inner}"),
            "context": {"objectWriteTraceId": [input["objectWriteTraceId"]]}})
    };
    let outrun = world(move |call, seen| match (call, seen.inputs.as_slice()) {
        (0, [first, rest @ ..]) => {
            Ok((207, complete(rest.iter().map(result).collect(), vec![conflict(first, "email")])))
        }
        _ => all(seen),
    });
    let rows = inputs(3);
    assert_eq!(outrun.upsert(&rows).await.unwrap(), rows.iter().map(|row| written(&row.key)).collect::<Vec<_>>());
    assert_eq!(outrun.http.seen.borrow().iter().map(|call| call.inputs.len()).collect::<Vec<_>>(), [3, 1]);
    for (property, calls) in [("email", 2), ("city", 1)] {
        let lasting = world(move |_, seen| {
            Ok((207, complete(vec![], seen.inputs.iter().map(|input| conflict(input, property)).collect())))
        });
        let verdicts = lasting.upsert(&inputs(1)).await.unwrap();
        assert_eq!((code(&verdicts[0]), lasting.calls()), ("CONFLICTING_UNIQUE_VALUE", calls), "{property}");
    }
}
