//! Every command as a stranger meets it: its help, its JSON, its exit codes, plain output where there is no terminal.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::world::{World, json_of, text};

/// Columns of a terminal that nobody has made wider.
const WIDTH: usize = 80;

/// Each command with arguments that make sense to it in a folder without settings. Of the last two nothing is asked that could fail.
const COMMANDS: [(&str, &[&str]); 22] = [
    ("demo", &[]),
    ("serve", &[]),
    ("import", &["a.csv"]),
    ("check", &[]),
    ("plan", &["a.csv"]),
    ("apply", &["a.plan.jsonl"]),
    ("undo", &["01M81X8WAQPWTZFPPZ0WHP7FWS"]),
    ("resume", &[]),
    ("status", &[]),
    ("report", &["01M81X8WAQPWTZFPPZ0WHP7FWS"]),
    ("capture", &["people"]),
    ("sync", &["people"]),
    ("review list", &[]),
    ("review show", &["k3f9x2m7qa"]),
    ("review resolve", &["k3f9x2m7qa", "--choose", "keep"]),
    ("erase", &["--key", "ada@example.com"]),
    ("pandium", &[]),
    ("simulate", &["--seeds", "0"]),
    ("init", &["a.csv"]),
    ("explain", &["NO_SUCH_CODE"]),
    ("schema", &[]),
    ("completions", &["bash"]),
];

/// What needs no settings, so that nothing is wrong in an empty folder.
const WITHOUT_SETTINGS: [&str; 7] = ["demo", "serve", "pandium", "simulate", "init", "schema", "completions"];

fn run(folder: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hubferry"));
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).stdin(Stdio::null());
    command.output().unwrap()
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.trim().is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

#[test]
fn every_command_has_help_with_an_example_and_json_and_it_fits_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let help = |words: &[&str]| {
        let output = run(folder.path(), &[words, &["--help"]].concat());
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{words:?}");
        let out = text(&output.stdout);
        for line in out.lines() {
            assert!(line.chars().count() <= WIDTH, "{words:?}: {line}");
        }
        assert!(!out.contains('\x1b'), "{words:?}: no colour where there is no terminal");
        out
    };
    let top = help(&[]);
    for code in ["0  done", "1  failed", "2  the arguments", "3  saved", "4  a check found"] {
        assert!(top.contains(code), "{code}: {top}");
    }
    let mut known = Vec::new();
    for name in listed(&top) {
        match listed(&help(&[&name])).as_slice() {
            [] => known.push(name),
            more => known.extend(more.iter().map(|more| format!("{name} {more}"))),
        }
    }
    let mut named: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
    named.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, named, "each command is in this test's table");
    for (name, _) in COMMANDS {
        let words: Vec<&str> = name.split(' ').collect();
        let out = help(&words);
        assert!(out.contains("Example") && out.contains(&format!("hubferry {name}")), "{name}: {out}");
        assert!(out.contains("--json"), "{name}: {out}");
    }
}

#[test]
fn arguments_that_make_no_sense_are_exit_code_2_and_nothing_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    for (name, _) in COMMANDS {
        let mut words: Vec<&str> = name.split(' ').collect();
        words.push("--no-such-option");
        let output = run(folder.path(), &words);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{name}: {output:?}");
        assert!(text(&output.stderr).contains("--no-such-option"), "{name}: {output:?}");
    }
    for words in [
        &["imprt"][..],
        &["review"],
        &["import"],
        &["sync", "--plan"],
        &["review", "resolve", "x"],
        &["plan", "a", "--format", "pdf"],
    ] {
        assert_eq!(run(folder.path(), words).status.code(), Some(2), "{words:?}");
    }
    assert!(text(&run(folder.path(), &["imprt"]).stderr).contains("import"), "a near name is told");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "and nothing was made");
}

#[test]
fn a_failure_is_exit_code_1_one_line_of_json_and_a_sentence_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (name, more) in COMMANDS.into_iter().filter(|(name, _)| !WITHOUT_SETTINGS.contains(name)) {
        let words: Vec<&str> = name.split(' ').chain(more.iter().copied()).chain(["--json"]).collect();
        let output = run(folder.path(), &words);
        let (told, code) = json_of(&output);
        assert_eq!(code, 1, "{name}: {told}");
        let error = &told["error"];
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {told}");
        assert!(error["code"].is_string() && error["hint"].is_string(), "{name}: {told}");
        let said = text(&output.stderr);
        assert!(said.starts_with("hubferry: ") && said.contains("\n  -> "), "{name}: {said}");
        let plain: Vec<&str> = words.iter().copied().filter(|word| *word != "--json").collect();
        let output = run(folder.path(), &plain);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{name}: {output:?}");
    }
}

#[test]
fn json_is_one_document_that_can_be_read_and_nothing_else() {
    let world = World::new();
    world.write("incoming/contacts/a.csv", &(World::contacts(20) + "x,y\n"));
    let (report, _) = world.json(&["import", "incoming/contacts/a.csv", "--local"]);
    let run_id = report["run_id"].as_str().unwrap().to_owned();
    world.write("b.csv", "Email,First\np1@example.com,New\n");
    for (words, code) in [
        (&["plan", "b.csv", "--as", "contacts", "--local"][..], 0),
        (&["apply", "b.plan.jsonl", "--local"], 0),
        (&["import", "incoming/contacts/a.csv", "--local"], 0),
        (&["check", "--local"], 0),
        (&["check", "incoming/contacts/a.csv", "--local"], 4),
        (&["status", "--local"], 0),
        (&["resume", "--local"], 0),
        (&["report", &run_id, "--local"], 0),
        (&["review", "list", "--local"], 0),
        (&["review", "list", "--refused", "--local"], 0),
        (&["capture", "people", "--local"], 0),
        (&["capture", "people", "--verify", "--local"], 0),
        (&["erase", "--key", "p1@example.com", "--dry-run", "--local"], 0),
        (&["explain"], 0),
        (&["explain", "INVALID_EMAIL"], 0),
        (&["completions", "zsh"], 0),
        (&["simulate", "--job", "import", "--seeds", "1", "--size", "10"], 0),
        (&["undo", &run_id, "--local"], 1),
    ] {
        let output = world.run(&[words, &["--json"]].concat());
        let (_, exit) = json_of(&output);
        assert_eq!(exit, code, "{words:?}: {}", text(&output.stderr));
    }
    let schema = world.run(&["schema", "--json"]);
    assert!(serde_json::from_slice::<Value>(&schema.stdout).is_ok());
    let init = world.run(&["init", "b.csv", "--json"]);
    let out = text(&init.stdout);
    assert!(serde_json::from_str::<Value>(&out).is_ok(), "{out}");
}

/// What does not fit a schema of the few words that ours use.
fn misfits(schema: &Value, root: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let part = root.pointer(name.trim_start_matches('#')).unwrap();
        return misfits(part, root, value, at, found);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.is_empty() && !kinds.contains(&kind) {
        found.push(format!("{at} is of type {kind}, not {kinds:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{at} is {value}"));
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        misfits(&schema["items"], root, item, &format!("{at}/{number}"), found);
    }
    if let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                found.push(format!("{at} lacks {name}"));
            }
        }
        for (name, member) in members {
            match properties.get(name) {
                Some(own) => misfits(own, root, member, &format!("{at}/{name}"), found),
                // Members may be added, and then they belong into the schema.
                None => found.push(format!("{at}/{name} is in no schema")),
            }
        }
    }
}

/// Compares what a command prints with the committed schema.
pub(crate) fn fits(name: &str, value: &Value) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../schema/{name}.schema.json"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut found = Vec::new();
    misfits(&schema, &schema, value, name, &mut found);
    assert!(found.is_empty(), "{found:#?}\n{value:#}");
}

#[test]
fn a_schema_that_does_not_fit_is_noticed() {
    let schema = serde_json::json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": ["string", "null"] }, "b": { "enum": ["x"] } } });
    let found = |value: Value| {
        let mut found = Vec::new();
        misfits(&schema, &schema, &value, "", &mut found);
        found.len()
    };
    assert_eq!(found(serde_json::json!({ "a": null, "b": "x" })), 0);
    for wrong in [
        serde_json::json!({}),
        serde_json::json!({ "a": 1 }),
        serde_json::json!({ "a": "", "c": 1 }),
        serde_json::json!([]),
        serde_json::json!({ "a": "", "b": "y" }),
    ] {
        assert_eq!(found(wrong.clone()), 1, "{wrong}");
    }
}

#[test]
fn what_status_prints_keeps_its_shape() {
    let world = World::new();
    let (status, _) = world.json(&["status", "--local"]);
    fits("status", &status);
    world.write("incoming/contacts/a.csv", &World::contacts(20));
    world.json(&["import", "incoming/contacts/a.csv", "--local"]);
    world.json(&["capture", "people", "--local"]);
    let (status, _) = world.json(&["status", "--local"]);
    fits("status", &status);
    assert!(status["captures"][0]["position"]["mode"].is_string() && status["imports"][0]["last_run"].is_object());
}

#[cfg(unix)]
#[test]
fn an_open_run_has_the_shape_of_the_schema() {
    let world = World::new();
    world.write("incoming/contacts/a.csv", &World::contacts(3_000));
    world.portal().configure(|settings| (settings.latency.fixed_ms, settings.limits.burst) = (1_000, Some(10)));
    let mut child = world.command(&["import", "incoming/contacts/a.csv", "--local"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut status = Value::Null;
    // Half a minute, for what takes a second.
    for _ in 0..150 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        status = world.json(&["status", "--local"]).0;
        if status["open_runs"][0]["lease"]["held"] == true {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(status["open_runs"][0]["job"], "import", "{status}");
    fits("status", &status);
}
