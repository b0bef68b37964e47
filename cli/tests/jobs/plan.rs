//! `hubferry check`, `init`, `plan`, `apply` and `undo`.

use std::{fs, process::Stdio, thread, time::Duration};

use hubferry_simulator::hubspot::{OAuthClient, PortalSettings, server::machine_clock};
use serde_json::Value;

use crate::world::{BUCKET, TABLE, World, files, json_of, text};

/// A world in which one of the file's contacts is there.
fn world() -> World {
    let world = World::new();
    let now = machine_clock();
    world.portal().seed_record(now, "contacts", &[("email", "p0@example.com"), ("firstname", "Before")]).unwrap();
    world
}

fn first_name(world: &World, email: &str) -> Option<String> {
    world.portal().find_by("contacts", "email", email).and_then(|contact| contact.get("firstname").cloned())
}

#[test]
fn a_plan_is_shown_applied_exactly_and_undone() {
    let world = world();
    world.write("incoming/contacts/a.csv", &(World::contacts(120) + "no address,X\n"));
    let output = world.run(&["plan", "incoming/contacts/a.csv", "--local"]);
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{error}{out}");
    for part in [
        "plan of import contacts: ",
        "create          119  records that are not there",
        "update            1  records with other values",
        "firstname              Before              -> First 0",
        "line 122    INVALID_EMAIL  (1 in all)",
        "and 114 more to create",
        "a.plan.jsonl",
        "-> hubferry apply a.plan.jsonl",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.lines().filter(|line| !line.contains('/')).all(|line| line.chars().count() <= 80), "{out}");
    assert_eq!(world.portal().record_count("contacts"), 1, "nothing was written");
    assert!(!files(world.folder.path()).iter().any(|file| file.ends_with(".part")));

    let plan = fs::read_to_string(world.path("a.plan.jsonl")).unwrap();
    assert_eq!(plan.lines().count(), 123, "header, 120 records, a reject, totals");
    // Edited since: left alone.
    let id = world.portal().find_by("contacts", "email", "p0@example.com").unwrap()["hs_object_id"].clone();
    assert!(world.portal().edit(machine_clock(), "contacts", &id, &[("firstname", "Theirs")]));
    let (report, code) = world.json(&["apply", "a.plan.jsonl", "--local"]);
    assert_eq!((&report["outcome"], &report["name"], code), (&"done".into(), &"contacts".into(), 0), "{report}");
    assert_eq!(
        (&report["rows"]["created"], &report["rejected_by_code"]["PLAN_CHANGED"]),
        (&119.into(), &1.into()),
        "{report}"
    );
    assert_eq!(first_name(&world, "p0@example.com").as_deref(), Some("Theirs"));
    let (again, _) = world.json(&["apply", "a.plan.jsonl", "--local"]);
    assert_eq!((&again["outcome"], &again["run_id"]), (&"duplicate".into(), &report["run_id"]));

    let run_id = report["run_id"].as_str().unwrap();
    let (shown, code) = world.json(&["undo", run_id, "--plan", "--local", "--out", "undo.jsonl"]);
    assert_eq!((&shown["totals"]["archive"], &shown["plan"], code), (&119.into(), &"undo.jsonl".into(), 0), "{shown}");
    assert_eq!(world.portal().record_count("contacts"), 120);
    let (undone, code) = world.json(&["undo", run_id, "--local"]);
    assert_eq!((&undone["job"], &undone["rows"]["updated"], code), (&"undo".into(), &119.into(), 0), "{undone}");
    assert_eq!(world.portal().record_count("contacts"), 1);
    let output = world.run(&["undo", run_id, "--local"]);
    assert!(text(&output.stdout).contains("undo contacts: "), "{output:?}");
    assert!(text(&output.stdout).contains("duplicate"), "{output:?}");
}

#[test]
fn a_plan_for_people_is_a_page_or_a_table() {
    let world = world();
    world.write("a.csv", "Email,First\np0@example.com,<b>After</b>\nnew@example.com,=1+1\n");
    let (told, code) =
        world.json(&["plan", "a.csv", "--as", "contacts", "--local", "--format", "html", "--out", "plan.html"]);
    assert_eq!((&told["plan"], code), (&"plan.html".into(), 0), "{told}");
    let page = fs::read_to_string(world.path("plan.html")).unwrap();
    assert!(page.contains("<del>Before</del>") && page.contains("<ins>&lt;b&gt;After&lt;/b&gt;</ins>"), "{page}");
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    let output = world.run(&["plan", "a.csv", "--as", "contacts", "--local", "--format", "csv", "--out", "-"]);
    let table = text(&output.stdout);
    assert!(table.starts_with("object,key,id,do,field,old,new,lines,why\n"), "{table}");
    assert!(
        table.contains(",update,firstname,Before,<b>After</b>,2,") && table.contains(",create,firstname,,'=1+1,3,"),
        "{table}"
    );
    let page = world.run(&["apply", "plan.html", "--local"]);
    assert_eq!(page.status.code(), Some(1));
    assert!(text(&page.stderr).contains("PLAN_INVALID"), "{page:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_half_plan_and_an_apply_goes_on_where_it_stopped() {
    let world = World::new();
    world.write("a.csv", &World::contacts(3_000));
    world.portal().configure(|settings| (settings.latency.fixed_ms, settings.limits.burst) = (500, Some(10)));
    let interrupt = |arguments: &[&str]| {
        let mut child = world.command(arguments);
        let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(5_000));
        assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        child.wait_with_output().unwrap()
    };
    let stopped = interrupt(&["plan", "a.csv", "--as", "contacts", "--local"]);
    assert_eq!(stopped.status.code(), Some(1), "{stopped:?}");
    assert!(!files(world.folder.path()).iter().any(|file| file.contains(".plan.")), "nothing is left of it");
    world.portal().configure(|settings| (settings.latency.fixed_ms, settings.limits.burst) = (0, Some(1_000)));
    let (planned, code) = world.json(&["plan", "a.csv", "--as", "contacts", "--local"]);
    assert_eq!((&planned["totals"]["create"], code), (&3_000.into(), 0), "{planned}");
    world.portal().configure(|settings| (settings.latency.fixed_ms, settings.limits.burst) = (500, Some(10)));
    let (report, code) = json_of(&interrupt(&["apply", "a.plan.jsonl", "--local", "--json"]));
    assert_eq!((&report["outcome"], code), (&"yielded".into(), 3), "{report}");
    world.portal().configure(|settings| (settings.latency.fixed_ms, settings.limits.burst) = (0, Some(1_000)));
    let (ended, code) = world.json(&["resume", "--local"]);
    let ended = &ended["reports"][0];
    assert_eq!((&ended["run_id"], &ended["outcome"], code), (&report["run_id"], &"done".into(), 0), "{ended}");
    assert_eq!((&ended["rows"]["read"], world.portal().record_count("contacts")), (&3_000.into(), 3_000), "{ended}");
}

#[test]
fn check_looks_at_settings_and_at_whole_files_and_writes_nothing() {
    let world = World::with(PortalSettings::unlimited());
    let (checked, code) = world.json(&["check", "--local"]);
    assert_eq!((&checked["ok"], code), (&true.into(), 0), "{checked}");
    let what: Vec<&str> =
        checked["checked"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    assert_eq!(what[0], "account default");
    assert_eq!(what.len(), 4, "{what:?}");

    // What does not fit is told with the nearest name.
    let settings = fs::read_to_string(world.path("hubferry.yaml")).unwrap();
    fs::write(world.path("hubferry.yaml"), settings.replace("First: firstname", "First: fistname")).unwrap();
    let output = world.run(&["check", "--local"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(
        out.contains("WRONG  import contacts") && out.contains("PROPERTY_DOESNT_EXIST") && out.contains("`firstname`"),
        "{out}"
    );
    fs::write(world.path("hubferry.yaml"), settings.replace("key: email\n    columns", "kee: email\n    columns"))
        .unwrap();
    let output = world.run(&["check", "--local"]);
    let error = text(&output.stderr);
    assert!(
        error.contains("unknown key; did you mean `key`?")
            && error.contains("kee: email\n")
            && error.contains("| ")
            && error.contains("^^^\n"),
        "{error}"
    );
    fs::write(world.path("hubferry.yaml"), &settings).unwrap();

    let good = world.write("incoming/contacts/good.csv", &World::contacts(50));
    let (checked, code) = world.json(&["check", &good, "--local"]);
    assert_eq!((&checked["ok"], &checked["totals"]["create"], code), (&true.into(), &50.into(), 0), "{checked}");
    assert_eq!(checked["source"]["dialect"]["encoding"], "utf-8");
    world.write("bad.csv", &(World::contacts(50) + "\"Müller, A\",X\nragged\n"));
    let output = world.run(&["check", "bad.csv", "--as", "contacts", "--local"]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{out}{}", text(&output.stderr));
    for part in [
        "52: 50 create, 0 update, 2 rejected",
        "INVALID_EMAIL  (1 in all)",
        "bad.csv:52:1",
        "52 | \"Müller, A\",X",
        "   | ^^^^^^^^^^^\n",
        "RAGGED_ROW",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    world.write("wrong.csv", "Nothing\nx\n");
    let output = world.run(&["check", "wrong.csv", "--as", "contacts", "--local"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(world.portal().record_count("contacts"), 0);
}

#[test]
fn init_writes_settings_that_check_takes() {
    let world = World::new();
    let url = fs::read_to_string(world.path("hubferry.yaml")).unwrap();
    let url = url.lines().find_map(|line| line.trim().strip_prefix("base_url: ")).unwrap().to_owned();
    world.write("people.csv", "E-mail,First Name,LAST_NAME,Shoe size\na@example.com,Ada,L,44\n");
    fs::remove_file(world.path("hubferry.yaml")).unwrap();
    let output = world.run(&["init", "people.csv", "--base-url", &url, "--out", "hubferry.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let made = fs::read_to_string(world.path("hubferry.yaml")).unwrap();
    for part in ["key: email  #", "First Name\": firstname", "LAST_NAME: lastname", "# \"Shoe size\": …"] {
        assert!(made.contains(part), "{part}: {made}");
    }
    let (checked, code) = world.json(&["check", "--local"]);
    assert_eq!((&checked["ok"], code), (&true.into(), 0), "{checked}\n{made}");
    let (checked, code) = world.json(&["check", "people.csv", "--as", "contacts", "--local"]);
    assert_eq!((&checked["totals"]["create"], code), (&1.into(), 0), "{checked}");
    world.write("companies.csv", "Company domain name,Name\nexample.com,Example\n");
    let (made, code) = world.json(&["init", "companies.csv", "--base-url", &url]);
    let config = made["config"].as_str().unwrap();
    assert!(code == 0 && config.contains("key: domain") && config.contains("create_properties: true"), "{config}");
    let refused = world.run(&["init", "people.csv", "--base-url", &url, "--out", "hubferry.yaml"]);
    assert!(text(&refused.stderr).contains("--force"), "{refused:?}");
    let nothing: Value = json_of(&world.run(&["init", "missing.csv", "--json"])).0;
    assert!(nothing["error"]["message"].as_str().unwrap().contains("missing.csv"), "{nothing}");
}

/// The most memory that a process had, in kilobytes.
#[cfg(target_os = "linux")]
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_file() {
    let world = World::new();
    let mut most = Vec::new();
    for rows in [2_000, 100_000] {
        world.write("a.csv", &World::contacts(rows));
        let mut child = world.command(&["plan", "a.csv", "--as", "contacts", "--local", "--json"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut peaks = 0;
        while child.try_wait().unwrap().is_none() {
            peaks = peaks.max(peak(child.id()).unwrap_or_default());
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(fs::read_to_string(world.path("a.plan.jsonl")).unwrap().lines().count(), rows + 2);
        most.push(peaks);
    }
    assert!(most[1] < most[0] + 16 * 1024, "kilobytes: {most:?}");
}

#[test]
fn a_plan_in_s3_is_applied_from_where_the_function_may_read_it() {
    let world = world().with_cloud();
    let cloud = world.cloud.clone().unwrap();
    world.write("a.csv", &World::contacts(150));
    let (planned, code) = world.json(&["plan", "a.csv", "--as", "contacts"]);
    assert_eq!(code, 0, "{planned}");
    let plan = fs::read(world.path("a.plan.jsonl")).unwrap();
    cloud.s3().put(BUCKET, "anywhere/a.plan.jsonl", plan).unwrap();
    let uri = format!("s3://{BUCKET}/anywhere/a.plan.jsonl");
    world.portal().configure(|settings| (settings.latency.fixed_ms, settings.limits.burst) = (700, Some(10)));
    let mut child = world.command(&["apply", &uri, "--json"]);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let copies = || cloud.s3().keys(BUCKET, "state/import/plans/");
    // While it is at work it can be gone on with from there, whatever becomes of this process.
    for _ in 0..300 {
        if !cloud.sort_keys(TABLE, "open", 1).is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(copies().len(), 1);
    let output = child.wait_with_output().unwrap();
    let (report, code) = json_of(&output);
    assert_eq!((&report["outcome"], &report["rows"]["created"], code), (&"done".into(), &149.into(), 0), "{report}");
    assert!(report["source"]["uri"].as_str().unwrap().contains("/state/import/plans/"), "{report}");
    world.portal().configure(|settings| (settings.latency.fixed_ms, settings.limits.burst) = (0, Some(1_000)));
    let (again, _) = world.json(&["apply", &uri]);
    assert_eq!((&again["outcome"], &again["run_id"]), (&"duplicate".into(), &report["run_id"]), "{again}");
    assert_eq!(copies().len(), 1, "one plan is one copy");
}

#[test]
fn a_check_names_the_scope_that_a_credential_lacks_where_hubspot_tells_what_it_has() {
    let oauth = OAuthClient {
        client_id: "id".to_owned(),
        client_secret: "secret".to_owned(),
        refresh_tokens: vec!["refresh".to_owned()],
        scopes: vec!["oauth".to_owned(), "crm.objects.contacts.read".to_owned()],
        expires_in: 1_800,
    };
    let world = World::with(PortalSettings { oauth: Some(oauth), ..PortalSettings::unlimited() }).with_cloud();
    let secret = r#"{"client_id":"id","client_secret":"secret","refresh_token":"refresh"}"#;
    world.cloud.clone().unwrap().secrets().put("hubferry/hubspot", secret);
    let (told, code) = world.json(&["check"]);
    assert_eq!(code, 1, "{told}");
    let of = |what: &str| {
        let checked = told["checked"].as_array().unwrap().iter();
        checked.clone().find(|one| one["what"].as_str().unwrap().starts_with(what)).unwrap()["problems"].clone()
    };
    assert_eq!(of("capture people"), serde_json::json!([]), "it only reads");
    assert_eq!(of("import contacts")[0]["code"], "SCOPES_MISSING", "{told}");
    assert!(of("import contacts")[0]["message"].as_str().unwrap().contains("crm.objects.contacts.write"), "{told}");
}
