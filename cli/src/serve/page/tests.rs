//! The page without a browser: what it shows, what it refuses, what its forms do. The function is not there; its reports are put into the bucket.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use hubferry::sync::model::{Choice, Side};
use hubferry_simulator::aws::{Bodies, Tables};
use hyper::{HeaderMap, Method, header};
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    super::{
        BUCKET, TABLE,
        http::{self, Answer, Asked, UPLOAD_BYTES_MAX},
        review::{DECISIONS_KEPT, Decided, TASKS_MAX},
        settings,
        stage::{Ports, Services, Stage, Wishes, now},
    },
    View, answer, parts, view,
};

const TOKEN: &str = "the-token";
const RUN: &str = "01M81X8WAQPWTZFPPZ0WHP7FWS";
const EVIL: &str = "\"><script>alert(1)</script>'&";
const EVIL_SAFE: &str = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;";

struct World {
    services: Services,
    /// The page's; taken where it is served.
    listener: Option<std::net::TcpListener>,
}

impl World {
    fn start() -> Self {
        let names = ["default".to_owned()];
        let ports = Ports::bind(0, &names, &names).unwrap();
        let settings = settings::settings(None, &ports.places).unwrap();
        let wishes = Wishes {
            seed: 1,
            latency_ms: (0, 0),
            every: None,
            furnished: true,
            bodies: Bodies::Memory,
            tables: Tables::Memory,
            state: None,
        };
        let folder = "/nowhere/drop/".to_owned();
        let (services, listener) = Services::start(ports, settings, wishes, TOKEN.to_owned(), folder).unwrap();
        Self { services, listener: Some(listener) }
    }

    fn stage(&self) -> &Stage {
        &self.services.stage
    }

    fn get(&self, address: &str) -> (u16, String) {
        let answer = answer(self.stage(), &asked(Method::GET, address, "", Bytes::new()));
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    }

    fn page(&self, address: &str) -> String {
        let (status, html) = self.get(address);
        assert_eq!(status, 200, "{address}: {html}");
        html
    }

    fn post(&self, address: &str, form: &str) -> Answer {
        let kind = "application/x-www-form-urlencoded";
        answer(self.stage(), &asked(Method::POST, address, kind, Bytes::copy_from_slice(form.as_bytes())))
    }

    fn upload(&self, import: &str, file_name: &str, text: &str) -> Answer {
        let part = |name: &str, value: &str| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = format!(
            "{}{}--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file_name}\"\r\nContent-Type: text/csv\r\n\r\n{text}\r\n--B--\r\n",
            part("token", TOKEN),
            part("import", import)
        );
        answer(self.stage(), &asked(Method::POST, "/upload", "multipart/form-data; boundary=B", body.into()))
    }

    /// A run that ended with two rejects.
    fn run(&self) {
        let s3 = self.stage().cloud.s3();
        let rejects = format!("rejects/contacts/{RUN}.csv");
        let report = json!({
            "run_id": RUN, "job": "import", "name": "contacts", "outcome": "done", "account": "default",
            "source": { "uri": format!("s3://{BUCKET}/incoming/contacts/{EVIL}.csv"), "version_id": null, "etag": "e", "bytes": 1 },
            "rows": { "read": 3, "created": 1, "rejected": 2 },
            "rejected_by_code": { "INVALID_EMAIL": 2 }, "rejects": format!("s3://{BUCKET}/{rejects}"),
            "calls": { "total": 1 }, "limit_use_percent": null, "position": { "byte": 1, "line": 4 }, "invocations": 1,
            "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:01Z", "duration_ms": 1000, "cost": {}, "error": null,
        });
        let text = format!(
            "Email,Name,_line,_code,_reason,_hint\n{},x,2,INVALID_EMAIL,\"column `Email`: no address\",Correct it.\n\
             y,y,3,INVALID_EMAIL,\"column `Email`: no address\",Correct it.\n",
            EVIL.replace('"', "\"\"").split_once('>').map(|(quote, rest)| format!("\"{quote}>{rest}\"")).unwrap()
        );
        s3.put(BUCKET, &rejects, text).unwrap();
        s3.put(BUCKET, &format!("reports/import/contacts/{RUN}.json"), report.to_string()).unwrap();
    }
}

fn asked(method: Method, address: &str, content_type: &str, body: Bytes) -> Asked {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let path = path.split('/').filter(|part| !part.is_empty());
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
    }
    Asked {
        method,
        path: path.map(|part| crate::html::unurl(part).unwrap()).collect(),
        query: http::pairs(query),
        headers,
        body,
    }
}

/// The value of an attribute wherever it occurs.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    html.split(&begin).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_page_stands_on_its_own_and_can_be_used_by_keyboard_and_screen_reader() {
    let world = World::start();
    world.run();
    let contact =
        world.stage().account("default").unwrap().lock().records("contacts").next().unwrap()["hs_object_id"].clone();
    let person = world.stage().org("default").unwrap().lock().live_records("Contact").next().unwrap()["Id"].clone();
    for address in [
        "/".to_owned(),
        format!("/runs/{RUN}"),
        "/hubspot/default".to_owned(),
        "/hubspot/default/contacts?q=example&page=2".to_owned(),
        format!("/hubspot/default/contacts/{contact}"),
        format!("/hubspot/default/contacts/{contact}?property=lifecyclestage"),
        "/salesforce/default".to_owned(),
        "/salesforce/default/Contact".to_owned(),
        format!("/salesforce/default/Contact/{person}"),
        "/review".to_owned(),
        "/files".to_owned(),
        "/settings".to_owned(),
    ] {
        let html = world.page(&address);
        for needed in
            ["<html lang=\"en\">", "<title>", "href=\"#main\"", "<main id=\"main\"", "<nav aria-label=", "<h1>"]
        {
            assert_eq!(html.matches(needed).count(), 1, "{address}: {needed}");
        }
        // Nothing is loaded from elsewhere, and nothing stands in the page that the policy would not let run.
        for name in ["src", "href", "action"] {
            for value in attributes(&html, name) {
                assert!(value.starts_with(['/', '#']), "{address}: {name}={value}");
            }
        }
        for unwanted in ["<style", "style=\"", "onclick", "javascript:", "http-equiv"] {
            assert!(!html.contains(unwanted), "{address}: {unwanted}");
        }
        // What is filled in has a name, and ids are one element's.
        let labelled = attributes(&html, "for");
        for field in
            html.split(['<']).filter(|tag| ["input", "select", "textarea"].iter().any(|kind| tag.starts_with(kind)))
        {
            let is_named = field.contains("type=\"hidden\"")
                || field.contains("aria-label=\"")
                || attributes(field, "id").first().is_some_and(|id| labelled.contains(id));
            assert!(is_named, "{address}: {field}");
        }
        let mut ids = attributes(&html, "id");
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "{address}");
        assert!(html.contains("scope=\"col\"") || !html.contains("<thead"), "{address}");
        assert_eq!(
            html.matches("<form method=\"post\"").count(),
            html.matches(TOKEN).count(),
            "{address}: each form brings the token"
        );
    }
    for (address, status) in [
        ("/nowhere", 404),
        ("/runs/unknown", 404),
        ("/hubspot/other", 404),
        ("/hubspot/default/contacts/1", 404),
        ("/files/x/y", 404),
    ] {
        assert_eq!(world.get(address).0, status, "{address}");
    }
}

#[test]
fn whatever_comes_from_outside_is_shown_as_text() {
    let world = World::start();
    world.run();
    let account = world.stage().account("default").unwrap();
    let id =
        account.lock().seed_record(now(), "contacts", &[("email", "evil@example.com"), ("firstname", EVIL)]).unwrap();
    assert!(account.lock().edit(now(), "contacts", &id, &[("lastname", EVIL)]));
    assert!(account.lock().edit(now(), "contacts", &id, &[("lastname", "mild")]));
    let org = world.stage().org("default").unwrap();
    let person = org.lock().create(now(), "Contact", &[("LastName", EVIL), ("Title", EVIL)]).unwrap();
    world.stage().notice(EVIL);
    world.stage().cloud.s3().put(BUCKET, &format!("incoming/{EVIL}.csv"), "x").unwrap();
    for address in [
        "/".to_owned(),
        format!("/runs/{RUN}"),
        format!("/hubspot/default/contacts?q={}", crate::html::url(EVIL)),
        format!("/hubspot/default/contacts/{id}"),
        format!("/salesforce/default/Contact?q={}", crate::html::url(EVIL)),
        format!("/salesforce/default/Contact/{person}"),
        "/files?q=script".to_owned(),
        format!("/{}", crate::html::url(EVIL)),
        format!("/runs/{}", crate::html::url(EVIL)),
    ] {
        let (_, html) = world.get(&address);
        assert!(!html.contains("<script>"), "{address}: {html}");
        assert!(!html.contains(EVIL), "{address}");
    }
    let shown = world.page(&format!("/hubspot/default/contacts/{id}"));
    assert!(shown.contains(EVIL_SAFE), "{shown}");
    for (_, html) in
        parts(world.stage(), &View::Overview).into_iter().chain(parts(world.stage(), &View::Run(RUN.to_owned())))
    {
        assert!(!html.contains("<script>"), "{html}");
    }
    // What is in the bucket is never shown as a page of this server's.
    let address = format!("/files/{BUCKET}/incoming/{}.csv", crate::html::url(EVIL));
    let file = answer(world.stage(), &asked(Method::GET, &address, "", Bytes::new()));
    assert_eq!(file.content_type, "application/octet-stream");
    let (_, name) = file.headers.iter().find(|(name, _)| *name == header::CONTENT_DISPOSITION).unwrap();
    assert!(name.starts_with("attachment;") && !name.contains("<"), "{name}");
}

#[test]
fn no_form_does_anything_without_the_token() {
    let world = World::start();
    world.run();
    let account = world.stage().account("default").unwrap();
    let id = account.lock().records("contacts").next().unwrap()["hs_object_id"].clone();
    let before = (account.lock().state(), world.stage().cloud.s3().keys(BUCKET, "").len());
    for (address, form) in [
        ("/jobs".to_owned(), "job=capture"),
        ("/trouble".to_owned(), "place=hubspot/default&what=storm"),
        (format!("/runs/{RUN}/corrected"), "page=1"),
        ("/review/1".to_owned(), "choose=hubspot"),
        (format!("/hubspot/default/contacts/{id}/edit"), "name=firstname&value=x"),
        (format!("/hubspot/default/contacts/{id}/bin"), "archived=true"),
        ("/salesforce/default/Contact/1/edit".to_owned(), "name=Title&value=x"),
        ("/salesforce/default/Contact/1/bin".to_owned(), "archived=true"),
    ] {
        for form in [form.to_owned(), format!("{form}&token=guess")] {
            assert_eq!(world.post(&address, &form).status, 403, "{address}");
        }
    }
    assert_eq!(world.post("/upload", &format!("token={TOKEN}")).status, 400, "an upload is a form with a file");
    assert_eq!((account.lock().state(), world.stage().cloud.s3().keys(BUCKET, "").len()), before);
    assert!(account.lock().faults_left().is_empty());
    // And nothing is done by looking.
    for address in ["/trouble?place=hubspot/default&what=storm", "/jobs?job=capture"] {
        assert_eq!(world.get(address).0, 404, "{address}");
    }
}

#[test]
fn an_upload_lands_where_its_import_takes_it_and_nowhere_else() {
    let world = World::start();
    let keys = || world.stage().cloud.s3().keys(BUCKET, "incoming/");
    assert_eq!(world.upload("contacts", "../../a b.csv", "Email\n").status, 303);
    assert_eq!(keys(), ["incoming/contacts/a b.csv"]);
    for (import, name, status) in
        [("contacts", "a.txt", 409), ("other", "a.csv", 400), ("contacts", "", 400), ("contacts", "..", 400)]
    {
        assert_eq!(world.upload(import, name, "Email\n").status, status, "{import} {name}");
    }
    assert_eq!(keys().len(), 1);
    assert_eq!(world.stage().cloud.s3().read(BUCKET, "incoming/contacts/a b.csv").as_deref(), Some(&b"Email\n"[..]));
}

#[test]
fn rejects_are_corrected_where_they_stand() {
    let world = World::start();
    world.run();
    let html = world.page(&format!("/runs/{RUN}"));
    assert!(
        html.contains("name=\"r0c0\"")
            && html.contains("class=\"wrong\"")
            && html.contains("Import these 2 rows again"),
        "{html}"
    );
    let done = world.post(
        &format!("/runs/{RUN}/corrected"),
        &format!("token={TOKEN}&page=1&r0c0=x%40example.com&r1c0=y%40example.com&r7c7=z"),
    );
    assert_eq!(done.status, 303);
    let keys = world.stage().cloud.s3().keys(BUCKET, "incoming/");
    assert_eq!(keys, [format!("incoming/contacts/{EVIL}-corrected.csv")]);
    let text = world.stage().cloud.s3().read(BUCKET, &keys[0]).unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "Email,Name,_line,_code,_reason,_hint");
    assert!(
        lines[1].starts_with("x@example.com,x,2,INVALID_EMAIL,") && lines[2].starts_with("y@example.com,y,3,"),
        "{text}"
    );
}

#[test]
fn trouble_and_edits_reach_the_place_they_name() {
    let world = World::start();
    let account = world.stage().account("default").unwrap();
    let trouble =
        |place: &str, what: &str| world.post("/trouble", &format!("token={TOKEN}&place={place}&what={what}")).status;
    assert_eq!(trouble("hubspot/default", "storm"), 303);
    assert_eq!(account.lock().faults_left()[0].1, Some(30));
    assert_eq!(
        (trouble("hubspot/other", "storm"), trouble("hubspot/default", "fire"), trouble("", "")),
        (400, 400, 400)
    );
    assert_eq!(trouble("hubspot/default", "clear"), 303);
    assert!(account.lock().faults_left().is_empty());
    for (place, kind) in [
        ("hubspot/default", super::places::Kind::HubSpot),
        ("salesforce/default", super::places::Kind::Salesforce),
        ("aws", super::places::Kind::Aws),
    ] {
        for (what, ..) in super::places::troubles(kind) {
            assert_eq!(trouble(place, what), 303, "{place} {what}: each button does something");
        }
    }

    let id = account.lock().records("contacts").next().unwrap()["hs_object_id"].clone();
    let record = format!("/hubspot/default/contacts/{id}");
    assert_eq!(world.post(&format!("{record}/edit"), &format!("token={TOKEN}&name=firstname&value=Mira")).status, 303);
    assert_eq!(
        account
            .lock()
            .portrait("contacts", &id)
            .unwrap()
            .properties
            .iter()
            .find(|one| one.name == "firstname")
            .unwrap()
            .value,
        "Mira"
    );
    assert_eq!(world.post(&format!("{record}/bin"), &format!("token={TOKEN}&archived=true")).status, 303);
    assert!(
        world.page(&record).contains("in the recycle bin")
            && account.lock().portrait("contacts", &id).unwrap().archived_at.is_some()
    );
    assert_eq!(world.post(&format!("{record}/bin"), &format!("token={TOKEN}&archived=false")).status, 303);

    let org = world.stage().org("default").unwrap();
    let person = org.lock().live_records("Contact").next().unwrap()["Id"].clone();
    let record = format!("/salesforce/default/Contact/{person}");
    assert_eq!(world.post(&format!("{record}/edit"), &format!("token={TOKEN}&name=Title&value=Boss")).status, 303);
    let html = world.page(&record);
    assert!(html.contains("Boss") && html.contains("by a person"), "{html}");
    assert_eq!(world.post(&format!("{record}/edit"), &format!("token={TOKEN}&name=LastName&value=")).status, 303);
    assert!(world.page(&record).contains("REQUIRED_FIELD_MISSING"), "what the org refuses is told");
}

/// Puts an item into the table, past everything.
fn put(world: &World, pk: &str, sk: &str, json: &serde_json::Value, version: i64) {
    let text = |text: &str| json!({ "S": text });
    let item = json!({ "pk": text(pk), "sk": text(sk), "json": text(&json.to_string()), "writer": text("w"), "version": { "N": version.to_string() } });
    let request = serde_json::from_value(json!({ "TableName": TABLE, "Item": item })).unwrap();
    world.stage().cloud.database().put_item(request).unwrap();
}

/// A conflict about `jobtitle`, which HubSpot holds as something nasty.
fn conflict(world: &World, hubspot_id: &str, salesforce_id: &str) {
    let review = json!({
        "id": "k3f9x2m7qa", "sync": "people", "kind": "conflict", "hubspot_id": hubspot_id, "salesforce_id": salesforce_id,
        "field": { "key": "jobtitle|Title", "hubspot": "jobtitle", "salesforce": "Title", "hubspot_value": EVIL, "salesforce_value": "Boss",
                   "hubspot_before": null, "salesforce_before": null },
        "why": "changed on both sides, to different values", "opened_at": "2026-01-01T00:00:00Z",
    });
    put(world, "review#people", "k3f9x2m7qa", &review, 3);
}

#[test]
fn the_page_says_what_there_is_to_review() {
    let world = World::start();
    let html = world.page("/review");
    assert!(html.contains("There is nothing to decide.") && html.contains("never ran"), "{html}");
    let contact =
        world.stage().account("default").unwrap().lock().records("contacts").next().unwrap()["hs_object_id"].clone();
    let person = world.stage().org("default").unwrap().lock().live_records("Contact").next().unwrap()["Id"].clone();
    conflict(&world, &contact, &person);
    let refused = json!([{
        "hubspot_id": contact, "salesforce_id": null, "by": "salesforce", "field": EVIL, "code": "REQUIRED_FIELD_MISSING", "reason": EVIL,
        "hint": "Fill it.", "inputs": 1, "at": "2026-01-01T00:00:00Z",
    }]);
    put(&world, "refused#people", "one", &refused, 1);
    // What was looked at before may be shown for a moment.
    std::thread::sleep(Duration::from_millis(450));
    let html = world.page("/review");
    assert!(html.contains(EVIL_SAFE) && html.contains("Boss") && !html.contains("<script>"), "{html}");
    for needed in [
        format!("href=\"/hubspot/default/contacts/{contact}\""),
        format!("href=\"/salesforce/default/Contact/{person}\""),
        "action=\"/review/k3f9x2m7qa\"".to_owned(),
        "name=\"shown\" value=\"1767225600000-3\"".to_owned(),
        "Take Salesforce&#39;s value".to_owned(),
        "REQUIRED_FIELD_MISSING".to_owned(),
    ] {
        assert!(html.contains(&needed), "{needed}: {html}");
    }
    for choice in ["hubspot", "salesforce", "keep", "value"] {
        assert!(html.contains(&format!("name=\"choose\" value=\"{choice}\"")), "{choice}: {html}");
    }
    let html = world.page("/");
    assert!(html.contains("1 to decide") && html.contains("1 refused"), "{html}");
    assert!(parts(world.stage(), &View::Review).iter().any(|(id, html)| *id == "said" && html == "1 to decide."));
}

#[test]
fn a_decision_goes_to_the_clerk_with_what_was_shown_and_its_outcome_is_told() {
    let world = World::start();
    conflict(&world, "1", "003Ws000004bJKn");
    let mut tasks = world.stage().take_tasks().unwrap();
    let decide = |form: &str| world.post("/review/k3f9x2m7qa", &format!("token={TOKEN}&shown=7-3&{form}"));
    assert_eq!(decide("choose=nobody").status, 400);
    assert!(tasks.try_recv().is_err());
    for (form, choice) in [
        ("choose=hubspot", Choice::Side(Side::Hubspot)),
        ("choose=salesforce", Choice::Side(Side::Salesforce)),
        ("choose=keep", Choice::Keep),
        ("choose=value&value=hubspot", Choice::Value("hubspot".to_owned())),
        ("choose=value%3A003Ws000004bJKn", Choice::Value("003Ws000004bJKn".to_owned())),
    ] {
        let answer = decide(form);
        assert_eq!(answer.status, 303, "{form}");
        assert!(answer.headers.contains(&(header::LOCATION, "/review".to_owned())) && answer.after.is_some(), "{form}");
        let task = tasks.try_recv().unwrap();
        assert_eq!((task.id.as_str(), task.shown.as_str(), task.choice), ("k3f9x2m7qa", "7-3", choice));
        assert!(world.page("/review").contains("Your decision is being carried out."));
        world.stage().decided(task.number, Decided::Applied("1 updated in HubSpot".to_owned()));
        assert!(world.page("/review").contains("Carried out: 1 updated in HubSpot."));
    }
    decide("choose=hubspot");
    let task = tasks.try_recv().unwrap();
    world.stage().decided(task.number, Decided::Open(vec![EVIL.to_owned()]));
    let html = world.page("/review");
    assert!(html.contains("Not carried out, and open again: ") && html.contains(EVIL_SAFE), "{html}");
    assert_eq!(html.matches("(k3f9x2m7qa)").count(), DECISIONS_KEPT, "only the last ones are remembered");
    let waiting = (0..TASKS_MAX + 1).map(|_| decide("choose=keep").status).filter(|status| *status == 303).count();
    assert_eq!(waiting, TASKS_MAX, "who has too much to do takes no more");
}

#[test]
fn a_stream_is_asked_for_by_its_address_alone() {
    let view_of = |address: &str| view(&asked(Method::GET, address, "", Bytes::new()));
    assert_eq!(view_of("/events"), Some(View::Overview));
    assert_eq!(view_of("/events?run=a"), Some(View::Run("a".to_owned())));
    assert_eq!(view_of("/events?view=review"), Some(View::Review));
    assert_eq!(view_of("/"), None);
    assert_eq!(view(&asked(Method::POST, "/events", "", Bytes::new())), None);
}

/// Over a socket.
#[test]
fn the_server_bounds_what_it_takes_names_its_policy_and_streams_what_is_new() {
    let mut world = World::start();
    let (stop, stopped) = oneshot::channel();
    let (listener, stage) = (world.listener.take().unwrap(), std::sync::Arc::clone(&world.services.stage));
    let at = stage.page_at;
    let server = std::thread::spawn(move || http::serve(listener, stage, stopped));
    let ask = |head: &str, body: &[u8]| -> String {
        let mut socket = TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(head.replace("HOST", &at.to_string()).as_bytes()).unwrap();
        // It may have answered, and closed, before it has all of it.
        let _ = socket.write_all(body);
        let mut answer = Vec::new();
        let mut piece = [0; 4_096];
        while let Ok(count @ 1..) = socket.read(&mut piece) {
            answer.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&answer);
            if text.contains("</html>")
                || text.contains("\"id\":\"review\"")
                || (text.contains("\r\n\r\n") && !text.contains(" 200 "))
            {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let page = ask("GET / HTTP/1.1\r\nHost: HOST\r\n\r\n", b"");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let head = page.split("\r\n\r\n").next().unwrap().to_lowercase();
    for needed in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "nosniff",
        "no-store",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(needed), "{needed}: {head}");
    }
    assert!(!head.contains("access-control"), "no other site may read it: {head}");
    assert!(ask("GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n", b"").starts_with("HTTP/1.1 421"));
    let form = format!("token={TOKEN}&job=resume");
    let post = |origin: &str| {
        let origin = if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
        ask(
            &format!("POST /jobs HTTP/1.1\r\nHost: HOST\r\n{origin}Content-Length: {}\r\n\r\n", form.len()),
            form.as_bytes(),
        )
    };
    assert!(post("http://evil.example").starts_with("HTTP/1.1 403"));
    assert!(post("").starts_with("HTTP/1.1 403"));
    assert!(post(&format!("http://{at}")).starts_with("HTTP/1.1 303"));
    let large = format!(
        "POST /upload HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\r\nContent-Length: {}\r\n\r\n",
        UPLOAD_BYTES_MAX + 1
    );
    assert!(ask(&large, b"x").starts_with("HTTP/1.1 413"), "told before it is read");
    let chunked = "POST /jobs HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 0x0010_0000], b"\r\n"].concat();
    // One byte too many, and nothing after it that would be left unread.
    let body = [chunk.repeat(4), b"1\r\nx\r\n".to_vec()].concat();
    assert!(ask(chunked, &body).starts_with("HTTP/1.1 413"), "without a stated length it is counted");
    let stream = ask("GET /events HTTP/1.1\r\nHost: HOST\r\n\r\n", b"");
    assert!(stream.contains("text/event-stream") && stream.contains("data: {\"id\":\"runs\""), "{stream}");

    stop.send(()).unwrap();
    server.join().unwrap().unwrap();
}
