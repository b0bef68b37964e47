//! Holds `template.yaml` to what PRODUCT and code promise: the variables that are read, the bounds that AWS wants between
//! queue and function, and roles that allow what is needed and say why.
//!
//! cfn-lint and `sam validate` (see `.ci/run`) know CloudFormation; these know hubferry, and need nothing installed.

mod permissions;

use std::collections::BTreeSet;

use hubferry::metrics::names_of;
use serde_json::Value;

/// Whose runs there are.
const JOBS: [&str; 3] = ["import", "capture", "sync"];

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

/// Every metric of hubferry's own that an alarm looks at: name and dimensions.
fn alarmed<'a>(alarm: &'a Value, found: &mut Vec<(&'a str, &'a Value)>) {
    match alarm {
        Value::Object(fields) => {
            if fields.get("Namespace").and_then(Value::as_str) == Some("hubferry") {
                found.push((fields["MetricName"].as_str().expect("MetricName"), &fields["Dimensions"]));
            }
            fields.values().for_each(|value| alarmed(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| alarmed(item, found)),
        _ => {}
    }
}

#[test]
fn alarms_look_at_metrics_that_runs_tell_and_stay_quiet_where_nothing_runs() {
    let template = template();
    let mut found = Vec::new();
    for (name, alarm) in resources_of(&template, "AWS::CloudWatch::Alarm") {
        alarmed(alarm, &mut found);
        assert_eq!(alarm["TreatMissingData"], "notBreaching", "{name}");
        for who in ["AlarmActions", "OKActions"] {
            assert_eq!(alarm[who][0], "HasAlarmTopic", "{name} tells nobody");
        }
    }
    let watched: BTreeSet<&str> = found.iter().map(|(metric, _)| *metric).collect();
    let wanted = [
        "RunsFailed",
        "RejectPercent",
        "LagSeconds",
        "Calls",
        "CallsThrottled",
        "RowsDeferred",
        "ReviewOpen",
        "DailyUsePercent",
    ];
    assert_eq!(watched, BTreeSet::from(wanted));
    for (metric, dimensions) in found {
        assert_eq!(dimensions[0]["Name"], "Job", "{metric}");
        let job = dimensions[0]["Value"].as_str().expect("a job");
        assert!(JOBS.contains(&job), "{metric}: no runs are those of {job}");
        assert!(names_of(job).contains(&metric), "no {job} tells {metric}");
    }
}

#[test]
fn the_dashboard_shows_metrics_that_runs_tell_and_every_alarm() {
    let template = template();
    let body = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"].as_str().expect("DashboardBody");
    let body: Value = serde_json::from_str(body).expect("the body is JSON");
    let widgets = body["widgets"].as_array().expect("widgets");
    let listed: BTreeSet<&str> = widgets
        .iter()
        .filter(|widget| widget["type"] == "alarm")
        .flat_map(|w| one_or_many(&w["properties"]["alarms"]))
        .collect();
    let alarms: Vec<String> =
        resources_of(&template, "AWS::CloudWatch::Alarm").iter().map(|(name, _)| format!("${{{name}.Arn}}")).collect();
    assert_eq!(listed, alarms.iter().map(String::as_str).collect());
    let mut shown = BTreeSet::new();
    for metrics in widgets.iter().filter_map(|widget| widget["properties"]["metrics"].as_array()) {
        for metric in metrics {
            if metric[0] == "hubferry" {
                let (name, job) = (metric[1].as_str().expect("a metric's name"), metric[3].as_str().expect("a job"));
                assert!(metric[2] == "Job" && JOBS.contains(&job), "{metric}");
                assert!(names_of(job).contains(&name), "no {job} tells {name}");
                shown.insert(metric[1].as_str().expect("a metric's name").to_owned());
            } else if let Some(search) = metric[0]["expression"].as_str().or(metric["expression"].as_str()) {
                let (_, name) = search.split_once("MetricName=\"").expect("a search by name");
                shown.insert(name.split('"').next().unwrap_or_default().to_owned());
            }
        }
    }
    let told: BTreeSet<&str> = JOBS.iter().flat_map(|job| names_of(job)).collect();
    assert!(shown.iter().all(|name| told.contains(name.as_str())), "{shown:?}");
    for wanted in
        ["RunsFailed", "RejectPercent", "LagSeconds", "CallsThrottled", "RowsDeferred", "ReviewOpen", "DailyUsePercent"]
    {
        assert!(shown.contains(wanted), "{wanted} is not on the dashboard");
    }
}

#[test]
fn every_alarm_has_its_section_in_the_runbook_and_every_section_its_alarm() {
    let runbook = include_str!("../../docs/runbook.md");
    let sections: BTreeSet<&str> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).filter(|title| title.ends_with("Alarm")).collect();
    let template = template();
    let alarms: BTreeSet<&str> =
        resources_of(&template, "AWS::CloudWatch::Alarm").into_iter().map(|(name, _)| name).collect();
    assert_eq!(sections, alarms);
    for section in
        runbook.split("\n## ").skip(1).filter(|section| section.lines().next().is_some_and(|l| l.ends_with("Alarm")))
    {
        for part in ["**Means.**", "**Look at.**", "**Do.**"] {
            assert!(section.contains(part), "{part} is missing: {section}");
        }
    }
}

#[test]
fn queues_are_encrypted_and_what_cannot_be_done_is_kept_somewhere() {
    let template = template();
    for (name, queue) in resources_of(&template, "AWS::SQS::Queue") {
        assert_eq!(queue["SqsManagedSseEnabled"], true, "{name}");
    }
    for (name, function) in resources_of(&template, "AWS::Serverless::Function") {
        assert_eq!(function["RecursiveLoop"], "Allow", "{name}: a long run goes on through its own queue");
        assert!(!function["ReservedConcurrentExecutions"].is_null(), "{name}");
        let queue = function["Events"]["Queue"]["Properties"]["Queue"].as_str().unwrap().trim_end_matches(".Arn");
        let dead_letters = &template["Resources"][queue]["Properties"]["RedrivePolicy"]["deadLetterTargetArn"];
        assert_eq!(*dead_letters, "DeadLetterQueue.Arn", "{name}");
        let schedule = &function["Events"]["Schedule"]["Properties"];
        if !schedule.is_null() {
            let kept = "FailedTicksQueue.Arn";
            assert_eq!(function["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]["Destination"], kept, "{name}");
            assert_eq!(schedule["DeadLetterConfig"]["Arn"], kept, "{name}");
        }
    }
}

#[test]
fn nobody_is_told_who_was_not_named() {
    let template = template();
    let policy = &template["Resources"]["NotifyPolicy"];
    assert_eq!(policy["Condition"], "Notifies");
    for statement in policy["Properties"]["PolicyDocument"]["Statement"].as_array().unwrap() {
        // `!If [condition, statement, AWS::NoValue]`.
        let action = statement[1]["Action"].as_str().unwrap();
        let needs = if action == "sns:Publish" { "HasNotifyTopic" } else { "HasSlackSecret" };
        assert_eq!(statement[0], needs, "{action}");
    }
}
