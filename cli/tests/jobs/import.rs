//! `hubferry import` and `hubferry resume`.

use std::{fs, process::Stdio, thread, time::Duration};

use serde_json::json;

use crate::world::{BUCKET, TOKEN, World, files, json_of, text};

#[test]
fn a_file_is_imported_where_it_is_and_the_same_content_again_writes_nothing() {
    let world = World::new();
    let rows = World::contacts(250) + "no address,X\n";
    world.write("incoming/contacts/a.csv", &rows);
    let (report, code) = world.json(&["import", "incoming/contacts/a.csv", "--local"]);
    assert_eq!((&report["outcome"], &report["name"], code), (&"done".into(), &"contacts".into(), 0), "{report}");
    assert_eq!((&report["rows"]["created"], &report["rows"]["rejected"]), (&250.into(), &1.into()), "{report}");
    assert_eq!(world.portal().record_count("contacts"), 250);
    let root = world.folder.path().canonicalize().unwrap();
    let path = root.join("incoming/contacts/a.csv").display().to_string();
    assert_eq!(report["source"]["uri"], path, "people know the file by its path");
    let id = report["run_id"].as_str().unwrap();
    let rejects = root.join(format!(".hubferry/rejects/contacts/{id}.csv"));
    assert_eq!(report["rejects"], rejects.display().to_string());
    let rejects = fs::read_to_string(rejects).unwrap();
    assert!(rejects.contains("no address,X,252,INVALID_EMAIL,"), "{rejects}");
    assert_eq!(fs::read_to_string(world.path("incoming/contacts/a.csv")).unwrap(), rows, "the file is never written");
    let made = files(&root.join(".hubferry"));
    let kept = [format!("rejects/contacts/{id}.csv"), format!("reports/import/contacts/{id}.json")];
    assert!(kept.iter().all(|kept| made.contains(kept)), "{made:?}");
    assert!(!made.iter().any(|file| file.starts_with("state/")), "working files are gone: {made:?}");

    let calls = world.portal().counts();
    let (again, code) = world.json(&["import", "./incoming/../incoming/contacts/a.csv", "--local"]);
    assert_eq!((&again["outcome"], &again["run_id"], code), (&"duplicate".into(), &id.into(), 0), "{again}");
    assert_eq!(world.portal().counts(), calls, "nothing was asked, nothing was written");

    // Other content, and then the first one again: the last word is the file's.
    world.write("incoming/contacts/a.csv", "Email,First\np0@example.com,Changed\n");
    let (other, _) = world.json(&["import", "incoming/contacts/a.csv", "--local"]);
    assert_eq!((&other["outcome"], &other["rows"]["updated"]), (&"done".into(), &1.into()), "{other}");
    world.write("incoming/contacts/a.csv", &rows);
    let (back, _) = world.json(&["import", "incoming/contacts/a.csv", "--local"]);
    assert_eq!((&back["outcome"], &back["rows"]["updated"]), (&"done".into(), &250.into()), "{back}");
}

#[test]
fn a_report_for_people_has_the_counts_the_rejects_and_where_they_are_and_no_value() {
    let world = World::new();
    world.write("in.csv", &(World::contacts(120) + "secret-value,X\n,Y\n"));
    let output = world.run(&["import", "in.csv", "--as", "contacts", "--local"]);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{error}{out}");
    for part in [
        "import contacts: ",
        "outcome done",
        "122 = 120 + 0 + 0 + 0 + 2 + 0: every row is accounted for",
        "line 122    INVALID_EMAIL",
        "KEY_BLANK",
        "/.hubferry/rejects/contacts/",
        "state.json",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(!out.contains("secret-value") && !out.contains('\x1b'), "{out}");
    assert!(error.contains(" rows"), "progress is on standard error: {error}");
    // Paths of the test's folder may be longer.
    assert!(out.lines().filter(|line| !line.contains('/')).all(|line| line.chars().count() <= 80), "{out}");
}

#[test]
fn what_cannot_be_imported_is_said_with_its_exit_code() {
    let world = World::new();
    world.write("elsewhere.csv", "Email\na@example.com\n");
    for (arguments, code, part) in [
        (&["import", "elsewhere.csv", "--local"][..], "NAME_UNKNOWN", "contacts, other"),
        (&["import", "elsewhere.csv", "--as", "contcats", "--local"], "NAME_UNKNOWN", "contcats"),
        (&["import", "missing.csv", "--as", "contacts", "--local"], "SOURCE_GONE", "missing.csv"),
        (&["import", ".", "--as", "contacts", "--local"], "SOURCE_GONE", "no plain file"),
        (&["import", "s3://crm/missing.csv", "--as", "contacts", "--local"], "SOURCE_GONE", "crm/missing.csv"),
        (&["resume", "01M81X8WAQPWTZFPPZ0WHP7FWS", "--local"], "NAME_UNKNOWN", "01M81X8WAQPWTZFPPZ0WHP7FWS"),
    ] {
        let (error, exit) = world.json(arguments);
        assert_eq!(exit, 1, "{error}");
        let error = &error["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(part) && error["hint"].is_string(), "{part}: {error}");
    }
    // A mapping that does not fit is an outcome, with its problems.
    world.write("wrong.csv", "Nothing\nx\n");
    let (report, exit) = world.json(&["import", "wrong.csv", "--as", "contacts", "--local"]);
    assert_eq!((&report["outcome"], exit), (&"invalid".into(), 1), "{report}");
    assert_eq!(world.run(&["import"]).status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_same_command_or_resume_goes_on() {
    for command in [&["import", "incoming/contacts/a.csv", "--local"][..], &["resume", "--local"]] {
        let world = World::new();
        world.write("incoming/contacts/a.csv", &World::contacts(3_000));
        world.portal().configure(|settings| settings.latency.fixed_ms = 1_000);
        world.portal().configure(|settings| settings.limits.burst = Some(10));
        let mut child = world.command(&["import", "incoming/contacts/a.csv", "--local", "--json"]);
        let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(5_000));
        let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let (report, code) = json_of(&child.wait_with_output().unwrap());
        assert_eq!((&report["outcome"], code), (&"yielded".into(), 3), "{report}");
        let read = report["rows"]["read"].as_u64().unwrap();
        assert!((1..3_000).contains(&read), "in between: {report}");
        world.portal().configure(|settings| settings.latency.fixed_ms = 0);
        world.portal().configure(|settings| settings.limits.burst = Some(1_000));
        let (ended, code) = world.json(command);
        assert_eq!(code, 0, "{ended}");
        let ended = if command[0] == "resume" { ended["reports"][0].clone() } else { ended };
        assert_eq!(
            (&ended["run_id"], &ended["outcome"], &ended["rows"]["read"]),
            (&report["run_id"], &"done".into(), &3_000.into()),
            "{ended}"
        );
        assert_eq!(ended["invocations"], 2);
        assert_eq!(world.portal().record_count("contacts"), 3_000);
        let (nothing, code) = world.json(&["resume", "--local"]);
        assert_eq!((nothing, code), (json!({ "reports": [], "left": [] }), 0));
    }
}

#[test]
fn an_object_in_s3_is_imported_from_here_with_state_in_the_table() {
    let world = World::new().with_cloud();
    let cloud = world.cloud.clone().unwrap();
    cloud.s3().put(BUCKET, "incoming/contacts/a.csv", World::contacts(30) + "x,y\n");
    let uri = "s3://crm/incoming/contacts/a.csv";
    let (report, code) = world.json(&["import", uri]);
    assert_eq!((&report["outcome"], &report["source"]["uri"], code), (&"done".into(), &uri.into(), 0), "{report}");
    let id = report["run_id"].as_str().unwrap();
    assert!(cloud.s3().read(BUCKET, &format!("rejects/contacts/{id}.csv")).is_some());
    assert!(cloud.s3().read(BUCKET, &format!("reports/import/contacts/{id}.json")).is_some());
    let (again, _) = world.json(&["import", uri]);
    assert_eq!((&again["outcome"], &again["run_id"]), (&"duplicate".into(), &id.into()));

    // A file of this machine with state in the same table: nothing of it goes into the bucket.
    let before = cloud.s3().keys(BUCKET, "");
    world.write("other/b.csv", "email\np1@example.com\n");
    let (report, code) = world.json(&["import", "other/b.csv"]);
    assert_eq!((&report["outcome"], &report["rows"]["updated"], code), (&"done".into(), &1.into(), 0), "{report}");
    assert_eq!(cloud.s3().keys(BUCKET, ""), before);
    assert!(!world.path(".hubferry/state.json").exists(), "the state is in the table");
    let calls = format!("{:?}", world.run(&["import", "other/b.csv", "--json"]));
    assert!(!calls.contains(TOKEN));
}
