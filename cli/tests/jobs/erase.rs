//! `hubferry erase`.

use std::fs;

use serde_json::json;

use crate::world::{World, text};

/// A folder in which an import and two captures, one of them Parquet, have run.
fn world() -> World {
    let world = World::new();
    let settings = world.path("hubferry.yaml");
    let table = "  - name: table\n    resource: crm.contacts\n    output: s3://crm/table/\n    format: parquet\n    lag_seconds: 1\n";
    fs::write(&settings, fs::read_to_string(&settings).unwrap() + table).unwrap();
    let rows = World::contacts(200) + "ada@example.com,Ada\nada@example.com,Ada,too long\n";
    world.write("incoming/contacts/a.csv", &rows);
    let (report, _) = world.json(&["import", "incoming/contacts/a.csv", "--local"]);
    assert_eq!((&report["outcome"], &report["rows"]["rejected"]), (&json!("done"), &json!(1)), "{report}");
    for name in ["people", "table"] {
        let (captured, code) = world.json(&["capture", name, "--local"]);
        assert_eq!(code, 0, "{captured}");
    }
    world
}

#[test]
fn a_person_is_removed_from_every_format_and_the_rest_can_be_read_as_before() {
    let world = world();
    let erase = ["erase", "--key", "Ada@Example.com", "--local"];
    let (listed, code) = world.json(&[&erase[..], &["--dry-run"]].concat());
    assert_eq!((code, &listed["complete"], &listed["dry_run"]), (0, &json!(false), &json!(true)), "{listed}");
    let (erased, code) = world.json(&[&erase[..], &["--gdpr"]].concat());
    assert_eq!((code, &erased["complete"], &erased["left"]), (0, &json!(true), &json!([])), "{erased}");
    assert_eq!(erased["removed"], listed["removed"], "what was listed");
    let of = |ending: &str| {
        let removed = erased["removed"].as_array().unwrap().iter();
        removed.filter(|one| one["location"].as_str().unwrap().ends_with(ending)).count()
    };
    // Whether her id is remembered too depends on when the capture began.
    assert_eq!((of(".parquet"), of(".jsonl.zst"), of(".csv")), (1, 1, 1), "{erased}");
    assert_eq!(erased["hubspot"]["default"], json!({ "contacts": 1, "deleted": true }));
    assert!(world.portal().find_by("contacts", "email", "ada@example.com").is_none());

    let (again, _) = world.json(&[&erase[..], &["--offline"]].concat());
    assert_eq!((&again["complete"], &again["removed"]), (&json!(true), &json!([])), "{again}");
    for name in ["people", "table"] {
        let (drift, code) = world.json(&["capture", name, "--verify", "--full", "--local"]);
        assert_eq!((code, &drift["verdict"]), (0, &json!("none")), "{drift}");
        assert_eq!(drift["captured"], 200, "{drift}");
    }
    let shown = text(&world.run(&erase).stdout);
    assert!(shown.contains("found nothing\nNothing is left: everything was read once more.\n"), "{shown}");
    let source = fs::read_to_string(world.path("incoming/contacts/a.csv")).unwrap();
    assert!(source.contains("ada@example.com"), "the user's own file stays as it is");
}

#[test]
fn what_is_no_address_is_refused_and_shown_nowhere() {
    let world = World::new();
    let (error, code) = world.json(&["erase", "--key", "zanzibar", "--local"]);
    assert_eq!((code, &error["error"]["code"]), (1, &json!("INVALID_EMAIL")), "{error}");
    assert!(!error.to_string().contains("zanzibar"), "{error}");
}
