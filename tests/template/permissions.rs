//! What each job really calls, recorded by the embedded AWS, against what its role in `template.yaml` allows: nothing missing, nothing
//! more.
//!
//! Each role has a world of its own, with the real binary in it. A grant is one action on one resource pattern of one statement; one that
//! no recorded call used is a failure, unless [`NOT_RECORDED`] says what brings it about.

use std::{collections::BTreeSet, time::Duration};

use hubferry_simulator::{
    aws::{ACCOUNT, Call, REGION, Service, Sqs},
    hubspot::{PortalSettings, PropertyDefinition, server::machine_clock},
    salesforce::{Fault as OrgFault, OrgSettings, Test, ValidationRule, What},
};
use serde_json::{Value, json};

use super::{one_or_many, template};
use crate::process::harness::{BUCKET, Harness, Process, QUEUE, SECRET, TABLE, Variables, pause, until};

/// Grants that no recorded run uses: the managed policy (empty: the role's own, or any of them), statement, action, and what does use it.
const NOT_RECORDED: [(&str, &str, &str, &str); 10] = [
    ("", "TakeMessages", "sqs:ReceiveMessage", "Lambda does it, in the function's name"),
    ("", "TakeMessages", "sqs:DeleteMessage", "Lambda does it, in the function's name"),
    ("", "TakeMessages", "sqs:GetQueueAttributes", "Lambda does it, in the function's name"),
    ("", "WriteLogs", "logs:CreateLogStream", "Lambda does it, in the function's name"),
    ("", "WriteLogs", "logs:PutLogEvents", "Lambda does it, in the function's name"),
    ("", "KeepFailedTicks", "sqs:SendMessage", "Lambda does it, in the function's name"),
    ("", "WriteRejects", "s3:AbortMultipartUpload", "a run that loses its lease while it joins a large rejects file"),
    ("", "KeepRunState", "s3:AbortMultipartUpload", "a run that loses its lease while it writes a large index"),
    ("", "ReplaceCredential", "secretsmanager:PutSecretValue", "an OAuth server that answers with a new refresh token"),
    // S3 asks for it when an object that is not there is read, which no recorder sees.
    (
        "SyncRunPolicy",
        "TellMissingFromForbidden",
        "s3:ListBucket",
        "a piece of a list that an invocation had joined when it died",
    ),
];

/// The parameters of the stack, as the worlds have them.
const PARAMETERS: [(&str, &str); 8] = [
    ("ExistingBucketName", BUCKET),
    ("Bucket", BUCKET),
    ("InputPrefix", "incoming/"),
    ("ConfigKey", "config/hubferry.yaml"),
    ("CapturePrefix", "captures/"),
    ("ExistingSecretName", SECRET),
    ("ExistingSalesforceSecretName", "hubferry/salesforce"),
    ("AWS::Partition", "aws"),
];

/// Conditions that hold: the others do not.
const CONDITIONS: [&str; 2] = ["WritesSecret", "WritesSalesforceSecret"];

/// One action on one resource pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    /// The managed policy it comes from; empty for the role's own.
    policy: String,
    sid: String,
    action: String,
    resource: String,
}

impl Grant {
    fn allows(&self, permission: &str, resource: &str) -> bool {
        self.action == permission && matches(&self.resource, resource)
    }

    /// Why it may go without a recorded call.
    fn excuse(&self) -> Option<&'static str> {
        let is_this = |policy: &str, sid: &str, action: &str| {
            (policy.is_empty() || policy == self.policy) && sid == self.sid && action == self.action
        };
        let found = NOT_RECORDED.iter().find(|(policy, sid, action, _)| is_this(policy, sid, action));
        found.map(|(_, _, _, why)| *why)
    }
}

/// IAM's wildcards: `*` for any text, `?` for one character.
fn matches(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), first) => {
            matches(&pattern[1..], text) || first.is_some_and(|first| matches(pattern, &text[first.len_utf8()..]))
        }
        (Some('?'), Some(first)) => matches(&pattern[1..], &text[first.len_utf8()..]),
        (Some(wanted), Some(first)) if wanted == first => {
            matches(&pattern[wanted.len_utf8()..], &text[first.len_utf8()..])
        }
        _ => false,
    }
}

/// What an expression of the template comes to. The short forms of functions have come out as their operands: `!If` is a list of a
/// condition and two values, `!Sub` a text or a list of one with an object, `!Ref` and `!GetAtt` are names.
fn resolved(value: &Value) -> Value {
    match value {
        Value::Array(items) => match items.as_slice() {
            [Value::String(condition), yes, no] if is_condition(condition) => {
                resolved(if CONDITIONS.contains(&condition.as_str()) { yes } else { no })
            }
            [Value::String(text), Value::Object(_)] => json!(substituted(text)),
            items => items.iter().map(resolved).filter(|value| *value != "AWS::NoValue").collect(),
        },
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), resolved(value))).collect(),
        Value::String(text) if text.contains("${") => json!(substituted(text)),
        Value::String(name) => match name.strip_suffix(".Arn") {
            Some("Table") => json!(format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{TABLE}")),
            Some("FailedTicksQueue") => json!(Sqs::arn("failed-ticks")),
            // Each world has the queue of its own function.
            Some(queue) if queue.ends_with("Queue") => json!(Sqs::arn(QUEUE)),
            _ => value.clone(),
        },
        _ => value.clone(),
    }
}

fn is_condition(name: &str) -> bool {
    !template()["Conditions"][name].is_null()
}

fn substituted(text: &str) -> String {
    let mut text = text.replace("${AWS::Region}", REGION).replace("${AWS::AccountId}", ACCOUNT);
    for (name, value) in PARAMETERS {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    assert!(!text.contains("${"), "{text} has a parameter that this test does not know");
    text
}

fn grants_of(document: &Value, policy: &str, found: &mut BTreeSet<Grant>) {
    let document = resolved(document);
    for statement in document["Statement"].as_array().expect("Statement") {
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        for action in one_or_many(&statement["Action"]) {
            for resource in one_or_many(&statement["Resource"]) {
                let sid = statement["Sid"].as_str().expect("Sid").to_owned();
                let (policy, action, resource) = (policy.to_owned(), action.to_owned(), resource.to_owned());
                found.insert(Grant { policy, sid, action, resource });
            }
        }
    }
}

/// Everything that a role allows.
fn grants(role: &str) -> BTreeSet<Grant> {
    let template = template();
    let role = &template["Resources"][role]["Properties"];
    let mut found = BTreeSet::new();
    for policy in role["Policies"].as_array().expect("Policies") {
        grants_of(&policy["PolicyDocument"], "", &mut found);
    }
    let policies = resolved(&role["ManagedPolicyArns"]);
    for policy in policies.as_array().expect("ManagedPolicyArns") {
        let policy = policy.as_str().expect("a policy's name");
        grants_of(&template["Resources"][policy]["Properties"]["PolicyDocument"], policy, &mut found);
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

/// What was asked of AWS by the function, as IAM sees it.
fn used(calls: &[Call]) -> BTreeSet<(String, String)> {
    let asked = calls.iter().filter(|call| !call.permission.is_empty());
    asked
        .map(|call| {
            // IAM sees a secret's whole ARN, which ends with six characters that Secrets Manager has added to the name.
            let suffix = if call.service == Service::SecretsManager { "-AbCdEf" } else { "" };
            (call.permission.clone(), format!("{}{suffix}", call.resource))
        })
        .collect()
}

/// Compares what `role` allows with what was called. `shared` are policies of other jobs, whose runs this role carries as well: what they
/// allow is compared in those jobs' worlds.
fn compare(role: &str, calls: &[Call], shared: &[&str]) {
    let (grants, used) = (grants(role), used(calls));
    assert!(used.len() > 10, "hardly anything was recorded: {used:?}");
    let missing: Vec<_> = used
        .iter()
        .filter(|(permission, resource)| !grants.iter().any(|grant| grant.allows(permission, resource)))
        .collect();
    assert!(missing.is_empty(), "{role} lacks what its job calls: {missing:#?}");
    let is_used = |grant: &Grant| used.iter().any(|(permission, resource)| grant.allows(permission, resource));
    let own = || grants.iter().filter(|grant| !shared.contains(&grant.policy.as_str()));
    let spare: Vec<_> = own().filter(|grant| !is_used(grant) && grant.excuse().is_none()).collect();
    assert!(spare.is_empty(), "{role} allows what its job never called: {spare:#?}");
    let excused: Vec<_> = own().filter(|grant| is_used(grant) && grant.excuse().is_some()).collect();
    assert!(excused.is_empty(), "these are recorded by now and need no excuse: {excused:#?}");
}

/// Seconds of an invocation that is meant to be too short: the work of four, then a continuation.
const SHORT: u64 = 5;
/// Of one that is long enough for whatever there is to do.
const WHOLE: u64 = 60;
/// Of one that is killed before it ends, on a machine with much else to do.
const LONG: u64 = 15;

/// An account of ten calls a second, so that a file of a few thousand rows outlives an invocation.
async fn world() -> (Harness, Process) {
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(100);
    settings.latency.fixed_ms = 20;
    let harness = Harness::boot_with(settings, false).await;
    let more = "    mode: mirror\n    skip_unchanged: true\n    before_images: true\n";
    let other = format!(
        "  - name: plain\n    match: incoming/plain/*\n    object: contacts\n    key: email\n  - name: changes\n    match: incoming/changes/*\n    format: opencdc\n    resource: crm.contacts\n    key: email\n  - name: pages\n    match: incoming/pages/*\n    format: opencdc\n    resource: cms.pages.site\n    create_properties: true\ncaptures:\n  - name: contacts\n    resource: crm.contacts\n    output: s3://{BUCKET}/captures/contacts/\n    lag_seconds: 1\n"
    );
    harness.cloud.s3().put(BUCKET, "config/hubferry.yaml", harness.config(more) + &other).unwrap();
    let process = start(&harness);
    (harness, process)
}

fn start(harness: &Harness) -> Process {
    harness.process_with(&Variables(vec![("HUBFERRY_CONFIG", Some(format!("s3://{BUCKET}/config/hubferry.yaml")))]))
}

fn rows(count: usize, changed: &str) -> String {
    let mut text = String::from("email,firstname\n");
    for number in 0..count {
        text.push_str(&format!("person{number}@example.com,First{changed}{number}\n"));
    }
    text.push_str("broken,Ada\n");
    text
}

fn seed(harness: &Harness, count: usize) {
    let long_ago = machine_clock() - jiff::SignedDuration::from_hours(1);
    // Long values, so that a snapshot is several objects.
    let long = "long ".repeat(1_000);
    let row = |at: usize| vec![("email", format!("person{at}@example.com")), ("firstname", long.clone())];
    harness.portal().seed_many(long_ago, "contacts", (0..count).map(row));
}

/// Goes on with a run until it is done; how often it yielded.
async fn to_the_end(harness: &Harness, process: &Process, event: &Value) -> usize {
    to_the_end_within(harness, process, event, SHORT).await
}

async fn to_the_end_within(harness: &Harness, process: &Process, event: &Value, seconds: u64) -> usize {
    let mut next = event.clone();
    for yielded in 0..60 {
        let report = match harness.invoke_within(&next, seconds).await {
            Ok(report) => report,
            Err(error) => panic!("{error}\n{}", process.last_lines()),
        };
        if report["outcome"] == "done" {
            return yielded;
        }
        assert_eq!(report["outcome"], "yielded", "{report}\n{}", process.last_lines());
        next = json!({ "job": "resume", "run_id": report["run_id"] });
    }
    panic!("the run does not end\n{}", process.last_lines());
}

#[tokio::test]
async fn the_imports_role_allows_what_imports_call_and_nothing_more() {
    let (harness, process) = world().await;
    seed(&harness, 50);
    harness.cloud.recorder().clear();
    // Rejects, before-images, an index, and more rows than fit into an invocation.
    let event = harness.upload("incoming/contacts/a.csv", rows(6_000, ""));
    assert!(to_the_end(&harness, &process, &event).await > 0, "the run fitted into one invocation");
    // What has not changed is left out by the index; what is missing is archived, and looked up in it.
    let event = harness.upload("incoming/contacts/a.csv", rows(6_000, "").replace("person7@", "person7new@"));
    to_the_end(&harness, &process, &event).await;
    // An object that is named without its version, as by hand.
    harness.upload("incoming/plain/b.csv", "email,firstname\nada@example.com,Ada\n");
    let by_hand = json!({ "job": "import", "bucket": BUCKET, "key": "incoming/plain/b.csv" });
    assert_eq!(harness.answer(&process, &by_hand).await["outcome"], "done");
    // Change records, of records and of content, whose ids are kept.
    let record = |after: Value| json!({ "operation": "create", "key": { "id": "7" }, "payload": { "before": null, "after": after } });
    let contact = record(json!({ "properties": { "email": "eve@example.com" } }));
    let page = record(json!({ "id": "7", "name": "Home", "slug": "home", "language": "en" }));
    let deliver = async |key: &str, line: Value| {
        let event = harness.upload(key, format!("{line}\n"));
        let report = harness.answer(&process, &event).await;
        assert_eq!((&report["outcome"], &report["rows"]["created"]), (&json!("done"), &json!(1)), "{report}");
    };
    deliver("incoming/changes/a.jsonl", contact).await;
    deliver("incoming/pages/a.jsonl", page.clone()).await;
    // Somebody deletes it, and the stream changes it once more: it is made anew, and its old id forgotten.
    let id = harness.portal().live_content("cms.pages.site")[0]["id"].as_str().unwrap().to_owned();
    assert!(harness.portal().delete_content(machine_clock(), "cms.pages.site", &id));
    deliver("incoming/pages/b.jsonl", page).await;
    compare("ImportRole", &harness.cloud.recorder().calls(), &[]);
}

#[tokio::test]
async fn the_captures_role_allows_what_captures_call_and_nothing_more() {
    let (harness, process) = world().await;
    seed(&harness, 6_000);
    harness.cloud.recorder().clear();
    let event = json!({ "job": "capture", "name": "contacts" });
    assert!(to_the_end(&harness, &process, &event).await > 0, "the snapshot fitted into one invocation");
    let people = harness.portal().live_objects("contacts", &[]).map(|one| one.id).take(20).collect::<Vec<_>>();
    for id in &people {
        harness.portal().edit(machine_clock(), "contacts", id, &[("firstname", "Changed")]);
    }
    for _ in 0..2 {
        pause(Duration::from_millis(2_500)).await;
        to_the_end(&harness, &process, &event).await;
    }
    compare("CaptureRole", &harness.cloud.recorder().calls(), &[]);
}

#[tokio::test]
async fn the_resume_role_allows_whatever_runs_were_cut_off_call() {
    let (harness, process) = world().await;
    seed(&harness, 6_000);
    // A capture and an import, each killed in the middle.
    let killed = async |process: Process, event: Value, path: &str, after: usize| {
        let calls = || harness.portal().log().iter().filter(|entry| entry.path.contains(path)).count();
        let (answer, ()) = tokio::join!(harness.invoke_within(&event, LONG), async {
            until(&process, "calls", || (calls() > after).then_some(())).await;
            process.kill().await;
        });
        assert!(answer.is_err(), "the kill came too late: {answer:?}");
    };
    killed(process, json!({ "job": "capture", "name": "contacts" }), "/contacts", 2).await;
    let event = harness.upload("incoming/contacts/a.csv", rows(6_000, "new"));
    killed(start(&harness), event, "/batch/upsert", 1).await;
    harness.cloud.recorder().clear();

    let process = start(&harness);
    let (mut yielded, mut calls) = (0, Vec::new());
    // What died holds its run for as long as it might have lived.
    for _ in 0..100 {
        let answer = match harness.invoke_within(&json!({ "job": "resume" }), SHORT).await {
            Ok(answer) => answer,
            Err(error) => panic!("{error}\n{}", process.last_lines()),
        };
        yielded += usize::from(answer.to_string().contains("\"yielded\""));
        // The look into the table is this test's own.
        calls.extend(harness.cloud.recorder().calls());
        let is_open = harness.items().await.keys().any(|(pk, _)| pk == "open");
        harness.cloud.recorder().clear();
        if !is_open {
            break;
        }
        pause(Duration::from_millis(500)).await;
    }
    assert!(yielded > 0, "no run went on in another invocation");
    assert!(harness.items().await.keys().all(|(pk, _)| pk != "open"), "a run is left\n{}", process.last_lines());
    compare("ResumeRole", &calls, &["ImportRunPolicy", "CaptureRunPolicy", "SyncRunPolicy"]);
}

/// The pairs of the sync, and an org beside the account.
const SYNC: &str = "salesforce:
  default: { secret: hubferry/salesforce }
data: s3://crm/
syncs:
  - name: people
    hubspot_object: contacts
    salesforce_object: Contact
    fields:
      - { hubspot: email, salesforce: Email, rule: two_way }
      - { hubspot: firstname, salesforce: FirstName, rule: two_way }
      - { hubspot: lastname, salesforce: LastName, rule: two_way }
    limits: { creates: 5000, updates: 5000, blanks: 20, deletes: 20 }
";

#[tokio::test]
async fn the_syncs_role_allows_what_syncs_call_and_nothing_more() {
    /// More than the smallest limit: all of it is counted before anything is written.
    const PEOPLE: usize = 60;
    let mut settings = PortalSettings::default();
    settings.limits.burst = Some(200);
    settings.latency.fixed_ms = 20;
    let link = PropertyDefinition::new("sf_contact_id_ext", "string").unique();
    settings.properties.insert("contacts".to_owned(), vec![link]);
    let mut harness = Harness::boot_with(settings, false).await;
    let rule = ValidationRule {
        object: "Contact".to_owned(),
        field: "FirstName".to_owned(),
        refuse_if: Test::Equals("Forbidden".to_owned()),
        message: "Not that name.".to_owned(),
    };
    let org = harness.org(OrgSettings { latency_ms: 20, validation: vec![rule], ..OrgSettings::default() }).await;
    harness.cloud.s3().put(BUCKET, "config/hubferry.yaml", harness.config("") + SYNC).unwrap();
    let long_ago = machine_clock() - jiff::SignedDuration::from_hours(1);
    let row = |at: usize| {
        vec![
            ("email", format!("person{at}@example.com")),
            ("lastname", "Person".to_owned()),
            ("firstname", "A".to_owned()),
        ]
    };
    harness.portal().seed_many(long_ago, "contacts", (0..PEOPLE).map(row));
    for at in 0..5 {
        let email = format!("sales{at}@example.com");
        org.lock().unwrap().create(long_ago, "Contact", &[("LastName", "Sales"), ("Email", &email)]).unwrap();
    }
    let process = start(&harness);
    harness.cloud.recorder().clear();
    let event = json!({ "job": "sync", "name": "people" });
    // A system that is down for a while: the run asks to be gone on with.
    org.lock().unwrap().add_fault(OrgFault::always(What::ServerUnavailable));
    let down = harness.invoke_within(&event, LONG).await.unwrap();
    assert_eq!(down["outcome"], "yielded", "{down}\n{}", process.last_lines());
    org.lock().unwrap().clear_faults();
    to_the_end_within(&harness, &process, &json!({ "job": "resume", "run_id": down["run_id"] }), WHOLE).await;
    assert_eq!(org.lock().unwrap().live_records("Contact").count(), PEOPLE + 5);
    // Changes of both sides, a conflict, a refusal, a record made on each side, a deletion that a person is asked about.
    let ids: Vec<String> = harness.portal().live_objects("contacts", &[]).map(|one| one.id).take(5).collect();
    // Looked up before anything is changed: the org is locked once.
    let twins: Vec<String> = {
        let org = org.lock().unwrap();
        let twin = |id: &String| org.find_by("Contact", "HubSpot_Contact_Id__c", id).unwrap()["Id"].clone();
        ids.iter().map(twin).collect()
    };
    let now = machine_clock();
    let rename = |id: &str, name: &str| assert!(harness.portal().edit(now, "contacts", id, &[("firstname", name)]));
    rename(&ids[0], "Changed");
    rename(&ids[1], "Here");
    org.lock().unwrap().edit(now, "Contact", &twins[1], &[("FirstName", "There")]).unwrap();
    rename(&ids[2], "Forbidden");
    org.lock().unwrap().edit(now, "Contact", &twins[3], &[("FirstName", "Back")]).unwrap();
    assert!(org.lock().unwrap().delete(now, "Contact", &twins[4]));
    pause(Duration::from_millis(2_500)).await;
    to_the_end_within(&harness, &process, &event, WHOLE).await;
    let calls = harness.cloud.recorder().calls();
    let kinds: BTreeSet<String> =
        harness.items().await.into_keys().map(|(pk, _)| pk.split('#').next().unwrap().to_owned()).collect();
    for kind in ["link", "review", "refused", "context"] {
        assert!(kinds.contains(kind), "nothing of `{kind}` was kept: {kinds:?}\n{}", process.last_lines());
    }
    // The conflict is over: its review goes.
    rename(&ids[1], "There");
    rename(&ids[2], "Allowed");
    pause(Duration::from_millis(2_500)).await;
    harness.cloud.recorder().clear();
    to_the_end_within(&harness, &process, &event, WHOLE).await;
    let calls: Vec<Call> = calls.into_iter().chain(harness.cloud.recorder().calls()).collect();
    compare("SyncRole", &calls, &[]);
}

#[test]
fn a_pattern_of_iam_matches_as_iam_says() {
    for (pattern, text, expected) in [
        ("arn:aws:s3:::crm/reports/import/*", "arn:aws:s3:::crm/reports/import/contacts/x.json", true),
        ("arn:aws:s3:::crm/reports/import/*", "arn:aws:s3:::crm/reports/capture/x.json", false),
        ("arn:aws:s3:::crm", "arn:aws:s3:::crm/a", false),
        ("secret:hubferry/hubspot-??????", "secret:hubferry/hubspot-AbCdEf", true),
        ("secret:hubferry/hubspot-??????", "secret:hubferry/hubspot-two-AbCdEf", false),
        ("secret:hubferry/*-??????", "secret:hubferry/a-AbCdEf", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}
