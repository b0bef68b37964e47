//! Holds `template.yaml` to what PRODUCT and code promise: the variables that are read, the bounds that AWS wants between
//! queue and function, and roles that allow what is needed and say why.
//!
//! cfn-lint and `sam validate` (see `.ci/run`) know CloudFormation; these know hubferry, and need nothing installed.

mod permissions;

use std::collections::BTreeSet;

use serde_json::Value;

const TEMPLATE: &str = include_str!("../../template.yaml");

/// The template's values. Short-form functions (`!Ref X`) come out as their bare operand, which is enough to compare names.
fn template() -> Value {
    serde_saphyr::from_str(TEMPLATE).expect("template.yaml is YAML")
}

fn resources_of<'a>(template: &'a Value, kind: &str) -> Vec<(&'a str, &'a Value)> {
    let resources = template["Resources"].as_object().expect("Resources");
    let found: Vec<_> = resources
        .iter()
        .filter(|(_, resource)| resource["Type"] == kind)
        .map(|(name, resource)| (name.as_str(), &resource["Properties"]))
        .collect();
    assert!(!found.is_empty(), "no {kind} in template.yaml");
    found
}

/// Every policy statement of the template, wherever it is: objects that have an `Effect`.
fn statements<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("Effect") {
                found.push(value);
            }
            fields.values().for_each(|value| statements(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| statements(item, found)),
        _ => {}
    }
}

fn one_or_many(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    }
}

#[test]
fn functions_get_the_variables_that_hubferry_reads_and_no_others() {
    let template = template();
    let variables = template["Globals"]["Function"]["Environment"]["Variables"].as_object().expect("Variables");
    let names: BTreeSet<_> = variables.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["HUBFERRY_CONFIG", "HUBFERRY_TABLE", "HUBFERRY_QUEUE_URL", "RUST_LOG"]));
    for (name, function) in resources_of(&template, "AWS::Serverless::Function") {
        // A run is continued by the function whose role allows what it does.
        let own: Vec<_> =
            function["Environment"]["Variables"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
        assert!(own.iter().all(|name| *name == "HUBFERRY_QUEUE_URL"), "{name} has variables of its own: {own:?}");
    }
}

#[test]
fn a_message_stays_hidden_for_six_times_as_long_as_its_run_may_take() {
    let template = template();
    let timeout = template["Globals"]["Function"]["Timeout"].as_u64().expect("Timeout");
    assert!((1..=900).contains(&timeout), "Lambda allows at most 900 s, not {timeout}");
    for queue in ["ImportQueue", "CaptureQueue", "ResumeQueue", "SyncQueue"] {
        let queue = &template["Resources"][queue]["Properties"];
        let visibility = queue["VisibilityTimeout"].as_u64().expect("VisibilityTimeout");
        assert!(visibility >= 6 * timeout, "{visibility} s is less than six times {timeout} s");
        assert!(queue["RedrivePolicy"]["maxReceiveCount"].as_u64() >= Some(5), "AWS advises at least five receives");
    }
    for (name, function) in resources_of(&template, "AWS::Serverless::Function") {
        assert!(function["Timeout"].is_null(), "{name} has a time-out of its own, which this test does not compare");
    }
}

#[test]
fn every_function_is_the_one_binary_and_logs_into_a_group_that_forgets() {
    let template = template();
    for (name, function) in resources_of(&template, "AWS::Serverless::Function") {
        let resource = &template["Resources"][name];
        assert_eq!(resource["Metadata"]["BuildMethod"], "rust-cargolambda", "{name}");
        assert_eq!(resource["Metadata"]["BuildProperties"]["Binary"], "hubferry-lambda", "{name}");
        let group = function["LoggingConfig"]["LogGroup"].as_str().unwrap_or_else(|| panic!("{name} has no log group"));
        let group = &template["Resources"][group];
        assert_eq!(group["Type"], "AWS::Logs::LogGroup", "{name}");
        assert!(!group["Properties"]["RetentionInDays"].is_null(), "the log group of {name} keeps everything for ever");
    }
}

#[test]
fn every_function_has_a_role_of_its_own() {
    let template = template();
    let roles: Vec<_> = resources_of(&template, "AWS::Serverless::Function")
        .into_iter()
        .map(|(name, function)| function["Role"].as_str().unwrap_or_else(|| panic!("{name} leaves its role to SAM")))
        .collect();
    assert_eq!(roles.iter().collect::<BTreeSet<_>>().len(), roles.len(), "{roles:?}");
}

#[test]
fn no_statement_allows_every_action_of_a_service() {
    let template = template();
    let mut found = Vec::new();
    statements(&template, &mut found);
    assert!(found.len() > 10, "only {} statements were found", found.len());
    for statement in found.into_iter().filter(|statement| statement["Effect"] == "Allow") {
        let actions = one_or_many(&statement["Action"]);
        assert!(!actions.is_empty() && statement["NotAction"].is_null(), "{statement}");
        assert!(actions.iter().all(|action| !action.contains('*')), "{statement}");
    }
}

#[test]
fn every_statement_says_why_it_is_there() {
    let lines: Vec<_> = TEMPLATE.lines().map(str::trim).collect();
    let mut count = 0;
    for (number, pair) in lines.windows(2).enumerate() {
        if let [before, line] = pair
            && line.starts_with("- Sid:")
        {
            count += 1;
            // Inside `!If [condition, statement, …]` the comment stands before the `!If`.
            let above = lines.get(number.saturating_sub(2)..=number).unwrap_or_default();
            let conditional = above.contains(&"- !If");
            let commented = before.starts_with('#') || (conditional && above.iter().any(|line| line.starts_with('#')));
            assert!(commented, "line {} of template.yaml, `{line}`, has no comment above it", number + 2);
        }
    }
    let template = template();
    let mut found = Vec::new();
    statements(&template, &mut found);
    assert_eq!(found.len(), count, "a statement has no Sid");
}

#[test]
fn a_resource_that_is_everything_says_why() {
    for (number, line) in TEMPLATE.lines().enumerate() {
        let everything = ["\"*\"", "'*'"]
            .iter()
            .any(|all| line.contains(&format!("Resource: {all}")) || line.trim() == format!("- {all}"));
        assert!(
            !everything || line.contains("# "),
            "line {} of template.yaml allows every resource and does not say why",
            number + 1
        );
    }
    let template = template();
    let mut found = Vec::new();
    statements(&template, &mut found);
    for statement in found.into_iter().filter(|statement| one_or_many(&statement["Resource"]).contains(&"*")) {
        let actions = one_or_many(&statement["Action"]);
        assert!(actions.iter().all(|action| action.starts_with("xray:")), "only X-Ray takes no resource: {statement}");
    }
}

#[test]
fn a_function_listens_to_the_queue_to_which_its_runs_are_handed_over() {
    let template = template();
    let shared = &template["Globals"]["Function"]["Environment"]["Variables"]["HUBFERRY_QUEUE_URL"];
    for (name, function) in resources_of(&template, "AWS::Serverless::Function") {
        let own = &function["Environment"]["Variables"]["HUBFERRY_QUEUE_URL"];
        let queue = if own.is_null() { shared } else { own }.as_str().unwrap();
        let listens = function["Events"]["Queue"]["Properties"]["Queue"].as_str().unwrap_or_default();
        assert_eq!(listens, format!("{queue}.Arn"), "{name}");
        let mut found = Vec::new();
        statements(&template["Resources"][function["Role"].as_str().unwrap().trim_end_matches(".Arn")], &mut found);
        for sid in ["TakeMessages", "AskForContinuation"] {
            let statement = found.iter().find(|statement| statement["Sid"] == sid);
            assert_eq!(
                statement.unwrap_or_else(|| panic!("{name}: {sid}"))["Resource"],
                format!("{queue}.Arn"),
                "{name}"
            );
        }
    }
}

#[test]
fn state_that_nobody_removed_is_removed_at_last_but_not_while_it_is_of_use() {
    let template = template();
    let bucket = &template["Resources"]["Bucket"]["Properties"];
    let rules = bucket["LifecycleConfiguration"]["Rules"].as_array().expect("Rules");
    let with =
        |key: &str| rules.iter().find(|rule| !rule[key].is_null()).unwrap_or_else(|| panic!("no rule with {key}"));
    assert!(with("AbortIncompleteMultipartUpload")["Prefix"].is_null(), "uploads are abandoned in any folder");
    let expiring: Vec<_> = rules.iter().filter(|rule| !rule["ExpirationInDays"].is_null()).collect();
    let [old] = expiring.as_slice() else { panic!("{} rules expire objects", expiring.len()) };
    // Files, rejects and reports are the user's. An index is needed until the next file comes, be it a year later.
    assert_eq!(old["Prefix"], "state/import/");
    assert!(old["ExpirationInDays"].as_u64() > Some(366), "{old}");
}

#[test]
fn only_objects_in_the_input_folder_wake_the_import_and_never_what_it_writes() {
    let template = template();
    let key = &template["Resources"]["ObjectCreatedRule"]["Properties"]["EventPattern"]["detail"]["object"]["key"];
    assert_eq!(key[0]["prefix"], "InputPrefix");
    let parameter = &template["Parameters"]["InputPrefix"];
    let (allowed, default) = (parameter["AllowedPattern"].as_str().unwrap(), parameter["Default"].as_str().unwrap());
    for own in ["rejects", "reports", "manifests", "state", "plans", "config", "captures"] {
        assert!(allowed.contains(own), "{own}/ is accepted as the input folder");
        assert!(!default.starts_with(own));
    }
}

#[test]
fn only_jobs_that_exist_are_scheduled() {
    let template = template();
    for (name, function) in resources_of(&template, "AWS::Serverless::Function") {
        for event in function["Events"].as_object().into_iter().flat_map(|events| events.values()) {
            let Some(input) = event["Properties"]["Input"].as_str() else { continue };
            let input: Value = serde_json::from_str(input).expect("a schedule's input is JSON");
            let job = name.trim_end_matches("Function").to_lowercase();
            assert_eq!(input, serde_json::json!({ "job": job }), "{name}");
        }
    }
}

#[test]
fn the_table_and_the_bucket_are_what_the_code_relies_on() {
    let template = template();
    let table = &template["Resources"]["Table"]["Properties"];
    assert_eq!(table["KeySchema"][0]["AttributeName"], "pk");
    assert_eq!(table["KeySchema"][1]["AttributeName"], "sk");
    assert_eq!(table["TimeToLiveSpecification"]["AttributeName"], "expires_at");
    assert_eq!(table["BillingMode"], "PAY_PER_REQUEST");
    assert!(table["GlobalSecondaryIndexes"].is_null());
    let bucket = &template["Resources"]["Bucket"]["Properties"];
    assert_eq!(bucket["VersioningConfiguration"]["Status"], "Enabled");
    assert_eq!(bucket["NotificationConfiguration"]["EventBridgeConfiguration"]["EventBridgeEnabled"], true);
    for kept in ["Bucket", "Table", "HubSpotSecret", "SalesforceSecret", "DeadLetterQueue"] {
        assert_eq!(template["Resources"][kept]["DeletionPolicy"], "Retain", "{kept} goes with the stack");
    }
}
