//! What a person sees who wrote a wrong file.

use proptest::prelude::*;

use super::*;
use crate::{
    codes,
    config::{Amount, ExtraProperties},
};

const EXAMPLE: &str = include_str!("../../examples/hubferry.yaml");
const MINIMAL: &str = include_str!("../../examples/minimal.yaml");
const SYNC: &str = include_str!("../../examples/sync.yaml");

fn message(text: &str) -> String {
    let error = parse(text, "hubferry.yaml").expect_err(text);
    assert_eq!(error.code(), codes::CONFIG_INVALID);
    error.message().to_owned()
}

/// The minimal file with `more` under its import, and `rest` at the end.
fn with(more: &str, rest: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!("{MINIMAL}{more}{rest}\n")
}

#[test]
fn the_examples_are_read_and_survive_a_round_trip() {
    let config = parse(EXAMPLE, "hubferry.yaml").unwrap();
    assert_eq!(config.imports.len(), 3);
    assert_eq!(config.imports[0].abort_if_rejected, Amount::Share(0.2));
    assert_eq!(config.captures[0].extra_properties, ExtraProperties::Names(vec!["favourite_colour".to_owned()]));
    assert_eq!(config.import_for("incoming/people/a/b.csv").unwrap().unwrap().name, "people-and-companies");
    let again = parse(&serde_json::to_string_pretty(&config).unwrap(), "again.json").unwrap();
    assert_eq!(again, config);

    assert_eq!(parse(SYNC, "sync.yaml").unwrap().syncs.len(), 1);
    let minimal = parse(MINIMAL, "hubferry.yaml").unwrap();
    assert_eq!(minimal.hubspot["default"].base_url, "https://api.hubapi.com");
    assert_eq!(parse(&format!("\u{feff}{MINIMAL}").replace('\n', "\r\n"), "x").unwrap(), minimal);
}

#[test]
fn a_file_with_five_mistakes_lists_all_five_with_line_path_and_suggestion() {
    let text = "\
version: 1
hubspot:
  main: { secret: hubferry/hubspot }
imports:
  - name: contacts
    match: incoming/contacts/*.csv
    hubspot: mian
    object: contacts
    keyy: email
    mode: upsrt
    skip_unchanged: 1
    columns:
      Stage: { property: lifecyclestage, blank: kep }
";
    assert_eq!(
        message(text),
        "hubferry.yaml has 5 problems:
  line 7: imports[0].hubspot: no account `mian` under `hubspot`; did you mean `main`?
  line 9: imports[0].keyy: unknown key; did you mean `key`?
  line 10: imports[0].mode: `upsrt` is not one of upsert, create, update, archive, mirror; did you mean `upsert`?
  line 11: imports[0].skip_unchanged: expected true or false, found the number 1
  line 13: imports[0].columns.Stage.blank: `kep` is not one of keep, clear; did you mean `keep`?"
    );
}

#[test]
fn each_mistake_is_told_once_with_its_place() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        // Shape
        ("version: 1\nimports:\n", "line 2: imports: expected a list, found nothing; fill it in, or leave the key out"),
        ("version: one\n", "line 1: version: expected a whole number, found the text `one`"),
        ("version: 1.5\n", "line 1: version: expected a whole number, found the number 1.5"),
        ("imports: []\n", "line 1: version: missing; it is required (a whole number)"),
        ("version: 1\nhubspot: {}\nhubspot: {}\n", "line 3: hubspot: the key stands twice; it is first on line 2"),
        (
            "version: 1\nhubspot:\n  default: { secret: a, colour: red }\n",
            "line 3: hubspot.default.colour: unknown key; known here are secret, base_url, api_version, limits",
        ),
        ("version: 1\nhubspot:\n  default: {}\n", "line 3: hubspot.default.secret: missing; it is required (text)"),
        (
            "version: 1\nhubspot:\n  default: { secret: a, api_version: 67.0 }\n",
            "hubspot.default.api_version: expected text, found the number 67.0; put it in quotes",
        ),
        (
            "version: 1\nhubspot:\n  default: { secret: a, limits: { burst: -1 } }\n",
            "limits.burst: -1 is out of range; use a whole number from 0 to 4294967295",
        ),
        (
            &with("columns: { Email: 5 }", ""),
            "line 11: imports[0].columns.Email: expected text or keys and values (with `property`), found the number 5; put it in quotes",
        ),
        (
            &with("columns: { \"First Name\": { blank: keep } }", ""),
            "imports[0].columns.\"First Name\".property: missing; it is required (text)",
        ),
        (
            &with("columns: { S: { property: s, values: { Yes: true } } }", ""),
            "imports[0].columns.S.values.Yes: expected text, found `true`; put it in quotes",
        ),
        (&with("csv: { delimiter: \"||\" }", ""), "imports[0].csv.delimiter: expected one character, found 2 of them"),
        (
            &with("abort_if_rejected: 120%", ""),
            "imports[0].abort_if_rejected: `120%` is not a share between 0% and 100%",
        ),
        (&with("abort_if_rejected: some", ""), "`some` is neither a share (`10%`) nor a number"),
        (&with("abort_if_rejected: [1]", ""), "expected a share (`10%`) or a whole number, found a list"),
        (
            &with("", "captures:\n  - { name: c, resource: crm.contacts, output: s3://b/, extra_properties: al }"),
            "captures[0].extra_properties: `al` is not one of all",
        ),
        // Meaning
        ("version: 2\n", "line 1: version: this hubferry reads version 1 of the format, not 2"),
        (
            "version: 1\nhubspot:\n  my account: { secret: a }\n",
            "hubspot.\"my account\": `my account` is not a name; use letters, digits, `-` and `_`",
        ),
        (
            "version: 1\nhubspot:\n  default: { secret: pat-na1-0123 }\n",
            "hubspot.default.secret: this is the secret itself; put it into Secrets Manager and its name here",
        ),
        (
            "version: 1\nhubspot:\n  default: { secret: a, base_url: api.hubapi.com }\n",
            "base_url: expected an address such as",
        ),
        ("version: 1\nhubspot:\n  default: { secret: a, api_version: v4 }\n", "api_version: expected a dated version"),
        (
            "version: 1\nhubspot:\n  default: { secret: a, limits: { interval_seconds: 0 } }\n",
            "limits.interval_seconds: must be at least 1",
        ),
        (
            "version: 1\nhubspot:\n  default: { secret: a, limits: { daily_reserve: 100% } }\n",
            "daily_reserve: leaves hubferry no call",
        ),
        (
            &MINIMAL.replace("hubspot:\n  default: { secret: hubferry/hubspot }\n", ""),
            "imports[0].hubspot: no account `default` under `hubspot`; the file names none",
        ),
        (
            &MINIMAL.replace("default: {", "eu: {"),
            "imports[0].hubspot: no account `default` under `hubspot`; say which one is meant: eu",
        ),
        (&MINIMAL.replace("    key: email\n", ""), "line 7: imports[0].key: missing; `object` needs the property"),
        (&MINIMAL.replace("    object: contacts\n", ""), "line 7: imports[0]: says not what rows become"),
        (
            &with("resource: crm.deals\nformat: opencdc", "")
                .replace("    object: contacts\n", "    records: []\n")
                .replace("resource: crm.deals", "resource: crm.deal"),
            "imports[0].resource: `crm.deal` is no resource; did you mean `crm.deals`?",
        ),
        (
            &EXAMPLE.replace("    resource: crm.deals\n", "    resource: crm.deals\n    skip_unchanged: true\n"),
            "imports[2].skip_unchanged: has no meaning here: opencdc records say what has changed",
        ),
        (
            &with("records:\n  - { object: contacts, key: email, columns: { a: email } }", "")
                .replace("    key: email\n", ""),
            "has object and records; only one of",
        ),
        (&MINIMAL.replace("contacts/*.csv", "[a.csv"), "imports[0].match: not a pattern"),
        (
            &with("csv: { delimiter: \"'\", quote: \"'\" }", ""),
            "imports[0].csv.delimiter: the delimiter and the quote are the same character",
        ),
        (&with("csv: { delimiter: é }", ""), "imports[0].csv.delimiter: must be one ASCII character"),
        (
            &with("format: jsonl\ncsv: { header: true }", ""),
            "imports[0].csv: has no meaning here; it goes with format: csv",
        ),
        (
            &with("columns: { When: { property: d, date: DD/MM } }", ""),
            "imports[0].columns.When.date: `DD/MM` is not a date format",
        ),
        (&with("columns: {}", ""), "imports[0].columns: is empty"),
        (
            &with("mode: archive\ncolumns: { Email: email, Name: name }", ""),
            "imports[0].columns: mode: archive takes the key's column only; leave out `Name`",
        ),
        (&with("associate: [{ from: contacts, to: companies }]", ""), "imports[0].associate: needs `records`"),
        (
            &with("", "captures:\n  - { name: c, resource: crm.contacts, output: /tmp/x }"),
            "captures[0].output: expected s3://bucket/ or s3://bucket/prefix/",
        ),
        (
            &with("", "captures:\n  - { name: c, resource: contacts, output: s3://b/p }"),
            "captures[0].output: a prefix ends with `/`: add it",
        ),
        (
            &with("", "captures:\n  - { name: c, resource: crm.contact, output: s3://b/ }"),
            "captures[0].resource: `crm.contact` is no resource; did you mean `crm.contacts`?",
        ),
        (
            &with(
                "",
                "captures:\n  - { name: c, resource: contacts, output: s3://b/, lag_seconds: 60, trailing_seconds: 60 }",
            ),
            "trailing_seconds: must be more than lag_seconds",
        ),
        (
            &with(
                "",
                "captures:\n  - { name: a, resource: contacts, output: s3://b/x/ }\n  - { name: c, resource: deals, output: s3://b/x/y/ }",
            ),
            "captures[1].output: capture `a` writes there already",
        ),
        (
            &with("", "captures:\n  - { name: a, resource: contacts, output: s3://b/state/x/ }"),
            "captures[0].output: `state/` is where hubferry keeps files of its own",
        ),
        (&with("", "data: bucket"), "data: expected s3://bucket/"),
        (&with("", "notify: { sns_topic_arn: topic }"), "notify.sns_topic_arn: expected a topic's ARN"),
        (
            &with("", "notify: { slack_webhook_secret: https://hooks.example.com/x }"),
            "notify.slack_webhook_secret: this is the secret itself",
        ),
        (&EXAMPLE.replace("data: s3://data-bucket/ ", "# "), "data: missing; a sync has no bucket of its own"),
        (
            &EXAMPLE.replace("to: companies", "to: company"),
            "imports[1].associate[0].to: `company` is none of the row's records",
        ),
        (
            &EXAMPLE.replace("salesforce: FirstName", "salesforce: email"),
            "syncs[0].fields[1].salesforce: `email` is in fields[0] already",
        ),
        (
            &EXAMPLE.replace("- name: cdc", "- name: contacts"),
            "imports[2].name: `contacts` is the name of the one on line 19 already",
        ),
        (
            &EXAMPLE.replace("incoming/people/**", "incoming/contacts/*.csv"),
            "imports[1].match: import `contacts` has the same pattern",
        ),
        (&EXAMPLE.replace("    resource: crm.deals\n", ""), "imports[2].resource: missing; format: opencdc needs it"),
        (
            &EXAMPLE.replace("format: opencdc              # records", "#"),
            "imports[2].resource: goes with format: opencdc",
        ),
    ] {
        let message = message(text);
        if !message.starts_with("hubferry.yaml has a problem:\n") || !message.contains(expected) {
            wrong.push(format!("{message}\nis not the one problem\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_credential_that_was_put_into_the_file_is_not_repeated() {
    for text in
        ["version: 1\nhubspot:\n  default: { secret: pat-na1-0123 }\n", "version: 1\nsecret: [pat-na1-0123\nx: y\n"]
    {
        assert!(!message(text).contains("0123"), "{}", message(text));
    }
}

#[test]
fn what_is_no_yaml_is_shown_with_line_column_and_a_caret() {
    let message = message("version: 1\nimports:\n  - name: [a\n    match: b\n");
    assert!(message.starts_with("hubferry.yaml:"), "{message}");
    let lines = message.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(lines[1].contains(" | ") && lines[2].ends_with('^'), "{message}");
}

#[test]
fn columns_may_be_numbers_and_parts_may_be_shared_by_anchors() {
    let text = with("csv: { header: false }\ncolumns: { 1: email, 2: firstname }", "");
    let config = parse(&text, "x").unwrap();
    assert_eq!(config.imports[0].columns.as_ref().unwrap().keys().collect::<Vec<_>>(), ["1", "2"]);
    let text = MINIMAL.replace("  default: {", "  default: &a {").replace("\nimports:", "\n  second: *a\nimports:");
    assert_eq!(parse(&text, "x").unwrap().hubspot["second"].secret, "hubferry/hubspot");
}

#[test]
fn a_file_that_is_made_to_exhaust_the_reader_is_refused() {
    let deep = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
    let laughs =
        (1..30).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))).collect::<String>();
    for text in [deep, format!("a0: &a0 [x]\n{laughs}")] {
        message(&text);
    }
    let many = (0..1_000).map(|n| format!("key_{n}: 1\n")).collect::<String>();
    assert!(message(&format!("version: 1\n{many}")).ends_with("\n  and 900 more"));
}

#[test]
fn what_is_another_file_is_said_plainly() {
    for (text, expected) in [
        ("", "is empty"),
        ("  \n# nothing\n", "is empty"),
        ("- a\n- b\n", "is a list at the top"),
        ("just words", "is not a hubferry.yaml"),
        ("PK\u{3}\u{4}\0\0", "is not text"),
        ("a,b,c\n1,2,3\n", "is not a hubferry.yaml"),
    ] {
        assert!(message(text).contains(expected), "{text:?}: {}", message(text));
    }
    assert!(super::text(b"version: 1\n\xff\n", "h.yaml").unwrap_err().message().contains("line 2"));
    assert!(message(&"# long\n".repeat(700_000)).contains("larger than 4 MB"));
}

/// The check understands a part of JSON Schema; the generated schema must stay within it.
#[test]
fn the_schema_uses_no_keyword_that_the_check_ignores() {
    fn walk(value: &Value) {
        const UNDERSTOOD: [&str; 12] = [
            "type",
            "properties",
            "required",
            "additionalProperties",
            "items",
            "anyOf",
            "oneOf",
            "const",
            "$ref",
            "format",
            "maxLength",
            "$defs",
        ];
        // `pattern` and `minLength` say less than the amounts' and characters' own checks do; the others are for editors.
        const BESIDE: [&str; 7] = ["description", "default", "title", "$schema", "minimum", "minLength", "pattern"];
        let Value::Object(schema) = value else { return };
        for (keyword, value) in schema {
            assert!(UNDERSTOOD.contains(&keyword.as_str()) || BESIDE.contains(&keyword.as_str()), "{keyword}");
            match (keyword.as_str(), value) {
                ("properties" | "$defs", Value::Object(schemas)) => schemas.values().for_each(walk),
                ("anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter().for_each(walk),
                ("items" | "additionalProperties", schema) => walk(schema),
                _ => {}
            }
        }
    }
    assert!(SCHEMA_VALUE.is_object());
    walk(&SCHEMA_VALUE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = parse(&text, "x");
    }

    #[test]
    fn no_line_of_the_example_can_be_damaged_into_a_panic(line in 0usize..90, cut in 0usize..60, put in "[ -~]{0,6}") {
        let lines = EXAMPLE.lines().enumerate().map(|(number, text)| {
            let at = if number == line { text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at) } else { text.len() };
            format!("{}{}\n", &text[..at], if number == line { put.as_str() } else { "" })
        });
        let _ = parse(&lines.collect::<String>(), "x");
    }
}

/// The example with `from` replaced by `to`.
fn example(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from} is not in the example");
    EXAMPLE.replace(from, to)
}

#[test]
fn each_mistake_about_a_sync_is_found_where_it_is() {
    let lead = "  - name: leads\n    hubspot_object: contacts\n    salesforce_object: Lead\n    fields: [{ hubspot: email, salesforce: Email, rule: two_way }]\n";
    let and_lead = |more: &str| example("\ndata: s3", &format!("{lead}{more}\ndata: s3"));
    let mut wrong = Vec::new();
    for (text, expected) in [
        (
            example("org_id: 00DWs000004bJKnMAM", "org_id: 001Ws000004bJKn"),
            "salesforce.default.org_id: `001Ws000004bJKn` is no org's id",
        ),
        (example("org_id: 00DWs000004bJKnMAM", "org_id: 00DWs000004bJKnMAA"), "is no org's id"),
        (example("org: 80%, run", "org: 0%, run"), "salesforce.default.quota.org: leaves hubferry no call"),
        (example("run: 25%", "run: 0"), "salesforce.default.quota.run: leaves hubferry no call"),
        (example("run: 25%", "run: 90%"), "salesforce.default.quota.run: is more than `org`"),
        (
            example("match: { hubspot: email, salesforce: Email }", "match: { hubspot: email, salesforce: Title }"),
            "syncs[0].match: `email` and `Title` are no pair of `fields`",
        ),
        (
            example("salesforce: Email, rule: two_way }", "salesforce: Email, rule: dont_sync }"),
            "syncs[0].match: names a pair that is not synced",
        ),
        (
            example("accounts: companies ", "accounts: companys "),
            "syncs[0].accounts: no sync `companys`; did you mean `companies`?",
        ),
        (
            example("accounts: companies ", "accounts: people "),
            "syncs[0].accounts: sync `people` does not sync companies with Account",
        ),
        (
            example("rule: always_salesforce }", "rule: always_salesforce, on_conflict: latest }"),
            "syncs[0].fields[3].on_conflict: has no meaning here",
        ),
        (
            example("rule: always_salesforce }", "rule: always_salesforce, strict: true }"),
            "syncs[0].fields[3].strict: has no meaning here",
        ),
        (
            example("rule: always_salesforce }", "rule: always_salesforce, truncate: true }"),
            "syncs[0].fields[3].truncate: has no meaning here",
        ),
        (example("\"[unknown]\"", "\" \""), "syncs[0].fields[2].placeholder: is blank"),
        (example("Won: customer", "Won: \"\""), "syncs[0].fields[5].values.Won: maps a blank"),
        (
            example("hubspot_property: sf_contact_id_ext", "hubspot_property: Sf-Id"),
            "syncs[0].links.hubspot_property: `Sf-Id` is no name of a property",
        ),
        (
            example("hubspot_property: sf_contact_id_ext", "hubspot_property: salesforcecontactid"),
            "syncs[0].links.hubspot_property: `salesforcecontactid` is HubSpot's own",
        ),
        (
            example("salesforce_field: HubSpot_Contact_Id__c", "salesforce_field: Email"),
            "syncs[0].links.salesforce_field: `Email` is no custom field",
        ),
        (
            example("salesforce_field: HubSpot_Contact_Id__c", "salesforce_field: budget__c"),
            "syncs[0].links: fields[7] syncs one of them",
        ),
        (example("updates: 10000", "updates: 0"), "syncs[0].limits.updates: must be at least 1"),
        (example("creates: 1000", "creates: 0"), "syncs[0].limits.creates: must be at least 1"),
        (
            example("deletes: review ", "deletes: propagate ").replace("deletes: 20", "deletes: 0"),
            "syncs[0].limits.deletes: must be at least 1",
        ),
        (
            example("hubspot_object: companies", "hubspot_object: p1_cars").replace("accounts: companies", "#"),
            "syncs[1].links: missing; for `p1_cars` there are no usual names",
        ),
        (
            example("hubspot_object: companies", "hubspot_object: contacts")
                .replace("salesforce_object: Account", "salesforce_object: contact")
                .replace("accounts: companies", "#"),
            "syncs[1]: sync `people` keeps these two objects in step already",
        ),
        (and_lead(""), "syncs[2].create: sync `people` creates the same records in Salesforce"),
        (
            and_lead(
                "    create: hubspot\n    links: { hubspot_property: sf_contact_id_ext, salesforce_field: HubSpot_Id__c }",
            ),
            "syncs[2].links.hubspot_property: is that of sync `people` already",
        ),
    ] {
        let message = message(&text);
        if !message.starts_with("hubferry.yaml has a problem:\n") || !message.contains(expected) {
            wrong.push(format!("{message}\nis not the one problem\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // What is next to a mistake, and none.
    parse(&and_lead("    create: hubspot\n"), "x").unwrap();
    parse(&example("creates: 1000", "creates: 0").replace("create: both", "create: none"), "x").unwrap();
    parse(&example("run: 25%", "run: 5000"), "x").unwrap();
}
