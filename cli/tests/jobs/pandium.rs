//! `hubferry pandium`, as the platform runs it: variables in, a log on standard error, one line on standard output.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::world::{BUCKET, TOKEN, World, files, json_of, text};

/// As the published sample has it.
const SAMPLE: &str = "email,first_name,last_name,company,city,state,country,zip,desc\n\
    ron@example.com,ron,Burgundy,WNN,san diego,CA,USA,92123,World News Now is the finest news team in the World.\n\
    tom@example.net,tom,bombadil, Lotr Unlimited,Auckland CBD,Auckland,NZ,1010,Lord of the Rings!.\n";

/// Variables that a test sets besides.
type Pairs<'a> = &'a [(&'a str, &'a str)];

fn world(file: &str) -> World {
    let world = World::new().with_cloud();
    world.cloud.as_ref().unwrap().s3().put(BUCKET, "exports.csv", file.to_owned());
    world
}

fn command(world: &World, more: Pairs<'_>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry"));
    // Of the settings file only the address is heeded; its secret and imports are not there.
    let named = world.path("hubferry.yaml").display().to_string();
    command.arg("pandium").current_dir(world.folder.path()).env_clear().stdin(Stdio::null());
    let s3 = world.cloud.as_ref().unwrap().environment();
    let endpoint = s3.iter().find(|(name, _)| name == "AWS_ENDPOINT_URL_S3").unwrap().1.clone();
    for (name, value) in [
        ("HUBFERRY_CONFIG", &*named),
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("TMPDIR", &*world.folder.path().display().to_string()),
        ("PAN_CFG_S3_BUCKET_NAME", BUCKET),
        ("PAN_CFG_S3_FILE_NAME", "exports.csv"),
        ("PAN_CFG_MAKE_CONTACT", "True"),
        ("PAN_CFG_MAKE_COMPANY", "1"),
        ("PAN_SEC_AWS_ACCESS_KEY_ID", "test"),
        ("PAN_SEC_AWS_SECRET_ACCESS_KEY", "test"),
        ("PAN_SEC_HUBSPOT-BASIC_API_KEY", TOKEN),
        ("PAN_CTX_RUN_MODE", "normal"),
    ] {
        command.env(name, value);
    }
    for (name, value) in more {
        command.env(name, value);
    }
    command
}

fn run(world: &World, more: Pairs<'_>) -> Output {
    command(world, more).output().unwrap()
}

/// The context that a run prints, and its log.
fn done(world: &World, more: Pairs<'_>) -> (Value, String) {
    let output = run(world, more);
    let log = text(&output.stderr);
    let (context, code) = json_of(&output);
    assert_eq!(code, 0, "{log}");
    (context, log)
}

#[test]
fn the_sample_becomes_contacts_and_companies_and_the_same_file_again_sends_nothing() {
    let world = world(SAMPLE);
    let before = world.cloud.as_ref().unwrap().s3().keys(BUCKET, "");
    let (context, log) = done(&world, &[]);
    let rows = &context["hubferry"]["rows"];
    assert_eq!(
        (&rows["contacts"]["created"], &rows["companies"]["created"]),
        (&2.into(), &2.into()),
        "{context} {log}"
    );
    let ron = world.portal().find_by("contacts", "email", "ron@example.com").unwrap();
    let expected = [
        ("firstname", "ron"),
        ("lastname", "Burgundy"),
        ("company", "WNN"),
        ("city", "san diego"),
        ("state", "CA"),
        ("country", "USA"),
        ("zip", "92123"),
    ];
    for (property, value) in expected {
        assert_eq!(ron.get(property).map(String::as_str), Some(value), "{property}");
    }
    let lotr = world.portal().find_by("companies", "name", "Lotr Unlimited").unwrap();
    assert_eq!(lotr["description"], "Lord of the Rings!.");
    assert_eq!(
        world.cloud.as_ref().unwrap().s3().keys(BUCKET, ""),
        before,
        "nothing is written into the tenant's bucket"
    );
    assert_eq!(files(world.folder.path()), ["hubferry.yaml"], "and nothing is left on the machine");

    let counts = world.portal().counts();
    let (again, log) = done(&world, &[("PAN_CTX_LAST_SUCCESSFUL_RUN_STD_OUT", &context.to_string())]);
    assert_eq!(world.portal().counts(), counts, "nothing is sent: {log}");
    assert_eq!(
        (&again["hubferry"]["outcome"], &again["hubferry"]["etag"]),
        (&"duplicate".into(), &context["hubferry"]["etag"])
    );
    // What a duplicate says serves the run after it.
    let (third, _) = done(&world, &[("PAN_CTX_LAST_SUCCESSFUL_RUN_STD_OUT", &again.to_string())]);
    assert_eq!(third["hubferry"]["outcome"], "duplicate");
    assert_eq!(world.portal().counts(), counts);

    // Without a context, in mode init, or after a change, it is sent; nothing is there twice.
    let context = context.to_string();
    let cases: [Pairs<'_>; 4] = [
        &[],
        &[("PAN_CTX_LAST_SUCCESSFUL_RUN_STD_OUT", &context), ("PAN_CTX_RUN_MODE", "init")],
        &[("PAN_CTX_LAST_SUCCESSFUL_RUN_STD_OUT", "{\"last_pokemon_id\":247}")],
        &[("PAN_CTX_LAST_SUCCESSFUL_RUN_STD_OUT", &context), ("PAN_CFG_MAKE_COMPANY", "no")],
    ];
    for case in cases {
        let (context, _) = done(&world, case);
        assert_eq!(context["hubferry"]["rows"]["contacts"]["updated"], 2, "{case:?}: {context}");
    }
    for object in ["contacts", "companies"] {
        assert_eq!(world.portal().record_count(object), 2, "{object}");
    }
}

#[test]
fn one_name_is_one_company_a_bad_row_ends_nothing_and_no_value_is_in_the_log() {
    let file = "\u{feff}zip;E-Mail;First Name;company;desc\n\
        1;a@example.com;Marked-1;ACME;first\n\
        2;Marked-2-no-address;Marked-3; acme ;\n\
        3;c@example.com;Marked-4;;\n\
        4;;Marked-5;Acme;last\n";
    let world = world(file);
    let (context, log) = done(&world, &[("PAN_CFG_CSV_MAPPER_NAME", r#"[{"in":"First Name","out":"last_name"}]"#)]);
    let rows = &context["hubferry"]["rows"];
    assert_eq!(
        (&rows["contacts"]["created"], &rows["contacts"]["rejected"]),
        (&2.into(), &2.into()),
        "{context} {log}"
    );
    assert_eq!(
        (&rows["companies"]["created"], &rows["companies"]["merged"]),
        (&1.into(), &2.into()),
        "{context} {log}"
    );
    assert_eq!(world.portal().record_count("companies"), 1);
    let company = world.portal().find_by("companies", "description", "last");
    assert!(company.is_some(), "the last value wins");
    let contact = world.portal().find_by("contacts", "email", "a@example.com").unwrap();
    assert_eq!(
        (&*contact["lastname"], contact.get("firstname").map_or("", String::as_str)),
        ("Marked-1", ""),
        "renamed"
    );
    for part in [
        "contacts: line 3: INVALID_EMAIL. Correct the address.",
        "contacts: line 5: KEY_BLANK.",
        "companies: 1 rows name no company.",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("Marked") && !log.contains("example.com") && !log.to_lowercase().contains("acme"), "{log}");
    assert!(!log.contains(TOKEN) && !context.to_string().contains("Marked"));
}

#[test]
fn a_refused_credential_gives_the_signal_and_a_clear_line() {
    let world = world(SAMPLE);
    for token in ["pat-na1-dead", "11111111-2222-3333-4444-555555555555"] {
        let output = run(&world, &[("PAN_SEC_HUBSPOT-BASIC_API_KEY", token)]);
        let (signal, code) = json_of(&output);
        assert_eq!(signal, json!({ "Pandium": { "Auth": { "CONNECTOR1_AUTH_STATUS": "Disconnected" } } }));
        let log = text(&output.stderr);
        assert_eq!(code, 1, "{log}");
        assert!((log.contains("TOKEN_REFUSED") || log.contains("retired")) && !log.contains(token), "{log}");
    }
    assert_eq!(world.portal().record_count("contacts"), 0);
}

#[test]
fn what_is_missing_or_wrong_is_said_at_once_and_nothing_is_on_standard_output() {
    let world = world("name,company\nx,y\n");
    let cases: [(Pairs<'_>, i32, &str); 5] = [
        (
            &[("PAN_CFG_S3_BUCKET_NAME", ""), ("PAN_CFG_MAKE_CONTACT", "maybe")],
            2,
            "PAN_CFG_S3_BUCKET_NAME is not set\n  PAN_CFG_MAKE_CONTACT",
        ),
        (&[("PAN_CFG_MAKE_CONTACT", ""), ("PAN_CFG_MAKE_COMPANY", "")], 2, "nothing to do"),
        (&[("PAN_CFG_S3_FILE_NAME", "missing.csv")], 1, "SOURCE_GONE"),
        (&[], 2, "no column `email`"),
        (&[("PAN_CTX_RUN_MODE", "other")], 2, "RUN_MODE"),
    ];
    for (more, code, part) in cases {
        let output = run(&world, more);
        let log = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), String::new()), "{log}");
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(world.portal().counts().requests, 0, "HubSpot was not asked");
}
