//! `hubferry sync` and `hubferry review` on a machine of one's own: both systems simulated on loopback, state in a file.

use std::{
    fs,
    process::{Command, Output},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use hubferry_simulator::{
    hubspot::server::machine_clock,
    salesforce::{Org, OrgSettings, server},
};
use serde_json::{Value, json};

use crate::{
    commands::fits,
    world::{World, json_of, text},
};

struct Both {
    world: World,
    org: Arc<Mutex<Org>>,
    credential: String,
}

impl Both {
    /// Both systems without records, and settings with the sync `people`; `more` is added to it.
    fn new(more: &str) -> Self {
        let world = World::new();
        let org = Arc::new(Mutex::new(Org::new(OrgSettings::default())));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::clone(&org);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                server::serve(listener, served, machine_clock).await
            })
        });
        let settings = format!(
            "version: 1\nhubspot:\n  default: {{ secret: hubferry/hubspot, base_url: \"{}\" }}\nsalesforce:\n  default: {{ secret: hubferry/salesforce }}\n\
             data: s3://crm/\nsyncs:\n  - name: people\n    hubspot_object: contacts\n    salesforce_object: Contact\n    fields:\n      \
             - {{ hubspot: email, salesforce: Email, rule: two_way }}\n      - {{ hubspot: lastname, salesforce: LastName, rule: two_way }}\n      \
             - {{ hubspot: phone, salesforce: Phone, rule: two_way }}\n      - {{ hubspot: jobtitle, salesforce: Title, rule: always_salesforce }}\n{more}",
            world.url
        );
        fs::write(world.folder.path().join("hubferry.yaml"), settings).unwrap();
        let credential = json!({
            "flow": "client_credentials", "login_url": url,
            "client_id": OrgSettings::CLIENT_ID, "client_secret": OrgSettings::CLIENT_SECRET,
        });
        Self { world, org, credential: credential.to_string() }
    }

    /// The same, set up, with one person on both sides and one on each alone.
    fn with_people(more: &str) -> Self {
        let both = Self::new(more);
        assert_eq!(both.run(&["sync", "people", "--setup", "--create"]).status.code(), Some(0));
        let people = |name: &'static str| [("Email", format!("{name}@example.com")), ("LastName", name.to_owned())];
        for name in ["ada", "sam"] {
            let values = people(name);
            let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
            both.org().create(machine_clock(), "Contact", &values).unwrap();
        }
        for (email, name) in [("ada@example.com", "ada"), ("kim@example.com", "kim")] {
            let values = [("email", email), ("lastname", name)];
            both.world.portal().create_record(machine_clock(), "contacts", &values).unwrap();
        }
        both
    }

    fn org(&self) -> MutexGuard<'_, Org> {
        self.org.lock().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command(&[arguments, &["--local"]].concat());
        command.env("SALESFORCE_CREDENTIAL", &self.credential);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> (Value, i32) {
        json_of(&self.run(&[arguments, &["--json"]].concat()))
    }

    fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.run(arguments);
        let text = text(&output.stdout);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}{}", crate::world::text(&output.stderr));
        text.lines().map(str::to_owned).collect()
    }

    /// Ada's ids.
    fn ada(&self) -> (String, String) {
        let contact = self.world.portal().find_by("contacts", "email", "ada@example.com").unwrap();
        let row = self.org().find_by("Contact", "Email", "ada@example.com").unwrap();
        (contact["hs_object_id"].clone(), row["Id"].clone())
    }
}

#[test]
fn what_a_sync_needs_is_said_and_the_property_is_made_on_request() {
    let both = Both::new("");
    let (told, code) = both.json(&["sync", "people", "--setup"]);
    assert_eq!((code, &told["ready"]), (1, &json!(false)), "{told}");
    assert_eq!(told["hubspot"]["state"], "missing", "{told}");
    assert_eq!(told["salesforce"]["state"], "fine", "{told}");
    let (report, code) = both.json(&["sync", "people"]);
    assert_eq!((code, &report["error"]["code"]), (1, &json!("SYNC_SETUP")), "{report}");

    let (told, code) = both.json(&["sync", "people", "--setup", "--create"]);
    assert_eq!((code, &told["ready"], &told["created"]), (0, &json!(true), &json!(true)), "{told}");
    let (told, code) = both.json(&["sync", "people", "--setup", "--create"]);
    assert_eq!((code, &told["created"]), (0, &json!(false)), "{told}");
}

#[test]
fn a_check_sees_what_a_sync_needs_and_what_does_not_fit_and_writes_nothing() {
    let both = Both::new("      - { hubspot: nickname, salesforce: Titel, rule: two_way }\n");
    let before = (both.world.portal().state(), both.org().state());
    let (told, code) = both.json(&["check"]);
    assert_eq!((code, &told["ok"]), (1, &json!(false)), "{told}");
    let checked = told["checked"].as_array().unwrap();
    let of = |what: &str| checked.iter().find(|one| one["what"].as_str().unwrap().starts_with(what)).unwrap();
    assert!(of("org default")["told"].as_str().unwrap().contains("organization 00D"), "{told}");
    let problems = of("sync people")["problems"].as_array().unwrap();
    let codes: Vec<&str> = problems.iter().map(|problem| problem["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"SYNC_SETUP") && codes.contains(&"MAPPING_INVALID"), "{told}");
    let all = told.to_string();
    for part in ["`sf_contact_id_ext`", "--setup --create", "fields[4]", "nickname", "Titel", "Title"] {
        assert!(all.contains(part), "{part}: {told}");
    }
    assert_eq!((both.world.portal().state(), both.org().state()), before);
    assert!(!both.world.path(".hubferry").exists(), "looking makes nothing");

    let both = Both::with_people("");
    let (told, code) = both.json(&["check"]);
    assert_eq!((code, &told["ok"]), (0, &json!(true)), "{told}");
    let lines = both.lines(&["check"]).join("\n");
    assert!(lines.contains("sync people  contacts and Contact") && lines.contains("4 pairs of fields"), "{lines}");
}

#[test]
fn a_plan_shows_every_step_and_writes_nothing_and_the_run_does_what_it_said() {
    let both = Both::with_people("");
    let state = || (both.world.portal().state(), both.org().state());
    let before = state();
    let shown = both.lines(&["sync", "people", "--plan"]);
    for part in [
        "create in HubSpot, Salesforce 003",
        "create in Salesforce, HubSpot 1",
        "\"sam@example.com\"",
        "plan of sync people: nothing was written",
    ] {
        assert!(shown.iter().any(|line| line.contains(part)), "{part}: {}", shown.join("\n"));
    }
    let output = both.run(&["sync", "people", "--plan", "--out", "plan.jsonl", "--json"]);
    let (totals, code) = json_of(&output);
    assert_eq!(code, 0);
    assert_eq!(totals["totals"]["hubspot"]["created"], 1, "{totals}");
    assert_eq!(totals["totals"]["salesforce"]["created"], 1, "{totals}");
    let steps = fs::read_to_string(both.world.path("plan.jsonl")).unwrap();
    let steps: Vec<Value> = steps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(steps.iter().any(|step| step["operation"] == "create" && step["side"] == "salesforce"), "{steps:?}");
    assert_eq!(state(), before, "a plan writes nothing");
    assert!(!both.world.path(".hubferry/state.json").exists(), "nor into the table");

    let (report, code) = both.json(&["sync", "people"]);
    assert_eq!((code, &report["outcome"]), (0, &json!("done")), "{report}");
    assert_eq!(report["sync"]["hubspot"]["created"], 1, "{report}");
    assert_eq!(report["sync"]["salesforce"]["created"], 1, "{report}");
    assert!(both.world.portal().find_by("contacts", "email", "sam@example.com").is_some());
    assert!(both.org().find_by("Contact", "Email", "kim@example.com").is_some());

    let quiet = state();
    let (report, _) = both.json(&["sync"]);
    assert_eq!(report["reports"][0]["outcome"], "done", "{report}");
    assert_eq!(state(), quiet, "and then it is quiet");
    let shown = both.lines(&["status"]);
    assert!(shown.iter().any(|line| line.contains("Salesforce's changes to")), "{}", shown.join("\n"));
}

#[test]
fn a_run_that_would_pass_a_limit_is_aborted_and_says_which() {
    let both = Both::with_people("    limits: { creates: 1 }\n");
    let shown = both.lines(&["sync", "people", "--plan"]);
    assert!(shown.iter().any(|line| line.contains("A run would stop")), "{}", shown.join("\n"));
    let (report, code) = both.json(&["sync", "people"]);
    assert_eq!(
        (code, &report["outcome"], &report["error"]["code"]),
        (1, &json!("aborted"), &json!("SYNC_LIMIT")),
        "{report}"
    );
    assert!(both.org().find_by("Contact", "Email", "kim@example.com").is_none());
}

#[test]
fn a_conflict_is_listed_shown_and_resolved_as_the_person_says() {
    let both = Both::with_people("");
    both.run(&["sync", "people"]);
    let (contact, row) = both.ada();
    both.world.portal().edit(machine_clock(), "contacts", &contact, &[("phone", "+1 555 010 0199")]);
    both.org().edit(machine_clock(), "Contact", &row, &[("Phone", "+1 555 010 0100")]).unwrap();
    both.run(&["sync", "people"]);

    let (list, code) = both.json(&["review", "list", "--sync", "people"]);
    assert_eq!((code, list.as_array().map(Vec::len)), (0, Some(1)), "{list}");
    fits("review-list", &list);
    let review = &list[0];
    assert_eq!(
        (&review["kind"], &review["hubspot"], &review["salesforce"]),
        (&json!("conflict"), &json!("phone"), &json!("Phone"))
    );
    assert_eq!((&review["hubspot_id"], &review["salesforce_id"]), (&json!(contact), &json!(row)));
    let id = review["id"].as_str().unwrap();
    let shown = both.lines(&["review", "list"]).join("\n");
    assert!(shown.contains(id) && shown.contains("in HubSpot"), "{shown}");
    let shown = both.lines(&["review", "show", id]).join("\n");
    assert!(shown.contains("HubSpot phone") && shown.contains("salesforce"), "{shown}");
    let status = both.json(&["status"]).0;
    assert_eq!(status["syncs"][0]["reviews"], 1, "{status}");
    fits("status", &status);

    // Changed in the meantime: what was shown does not stand any more.
    both.world.portal().edit(machine_clock(), "contacts", &contact, &[("phone", "+1 555 010 0177")]);
    let (told, code) = both.json(&["review", "resolve", id, "--choose", "hubspot"]);
    assert_eq!((code, &told["state"]), (1, &json!("open")), "{told}");
    assert_eq!(told["review"]["hubspot_value"], "+1 555 010 0177", "as it is shown there: {told}");
    let (told, code) = both.json(&["review", "resolve", id, "--choose", "hubspot"]);
    assert_eq!((code, &told["state"]), (0, &json!("applied")), "{told}");
    assert_eq!(both.org().look("Contact", &row).unwrap()["Phone"], "+1 555 010 0177");
    assert_eq!(both.json(&["review", "list"]).0, json!([]));

    let output = both.run(&["review", "show", id]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("REVIEW_INVALID"), "{}", text(&output.stderr));
}

#[test]
fn what_one_side_refuses_is_listed_with_the_reason_and_no_value() {
    let both = Both::with_people("");
    let values = [("email", "lee@example.com"), ("phone", "5550100")];
    both.world.portal().create_record(machine_clock(), "contacts", &values).unwrap();
    let (report, _) = both.json(&["sync", "people"]);
    assert_eq!(report["rows"]["rejected"], 1, "{report}");
    let (list, code) = both.json(&["review", "list", "--refused"]);
    assert_eq!((code, list.as_array().map(Vec::len)), (0, Some(1)), "{list}");
    fits("review-refused", &list);
    assert_eq!((&list[0]["code"], &list[0]["sync"]), (&json!("REQUIRED_FIELD_MISSING"), &json!("people")), "{list}");
    assert!(!list.to_string().contains("5550100"), "{list}");
    assert!(both.lines(&["review", "list", "--refused"]).join("\n").contains("REQUIRED_FIELD_MISSING"));
    let shown = both.lines(&["sync", "people"]).join("\n");
    assert!(shown.contains("sync people: done"), "{shown}");
}

#[test]
fn a_sync_that_the_settings_do_not_have_is_named_with_those_they_have() {
    let both = Both::new("");
    let (told, code) = both.json(&["sync", "poeple"]);
    assert_eq!((code, &told["error"]["code"]), (1, &json!("NAME_UNKNOWN")), "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("people"), "{told}");
    assert_eq!(both.run(&["sync", "--plan"]).status.code(), Some(2), "a plan is of one sync");
    let mut command = both.world.command(&["sync", "people", "--local", "--json"]);
    let (told, _) = json_of(&command.output().unwrap());
    assert!(told.to_string().contains("SALESFORCE_CREDENTIAL"), "{told}");
}
