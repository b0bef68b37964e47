//! Content: what the seven CMS resources have in common and where they differ.

use super::*;

const RESOURCES: [(&str, &str, &str, &str, bool); 7] = [
    ("cms.blogs.authors", "/cms/v3/blogs/authors", "created", "updated", true),
    ("cms.blogs.posts", "/cms/v3/blogs/posts", "created", "updated", true),
    ("cms.blogs.tags", "/cms/v3/blogs/tags", "created", "updated", true),
    ("cms.pages.landing", "/cms/v3/pages/landing-pages", "createdAt", "updatedAt", true),
    ("cms.pages.site", "/cms/v3/pages/site-pages", "createdAt", "updatedAt", true),
    ("cms.hubdb.tables", "/cms/v3/hubdb/tables", "createdAt", "updatedAt", false),
    ("cms.urlRedirects", "/cms/v3/url-redirects", "createdAt", "updatedAt", false),
];

fn names(body: &Value) -> Vec<&str> {
    body["results"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn each_kind_of_content_is_created_read_updated_and_deleted() {
    for (resource, base, created, updated, listed) in RESOURCES {
        let mut client = Client::plain();
        let body = if resource == "cms.urlRedirects" {
            json!({"routePrefix": "/old", "destination": "https://x.io/new", "name": "A", "id": "5"})
        } else {
            json!({"name": "A", "id": "5", "created": "2001-01-01T00:00:00Z"})
        };
        let (status, made) = client.post(base, body);
        assert_eq!((status, &made["name"]), (201, &json!("A")), "{resource}");
        let id = made["id"].as_str().unwrap().to_owned();
        assert!(id != "5" && id.parse::<u64>().is_ok(), "{resource}: {id}");
        assert_eq!((&made[created], &made[updated]), (&json!(store::iso(START)), &json!(store::iso(START))));
        assert_eq!(made.get("deletedAt").and_then(Value::as_str), listed.then_some("1970-01-01T00:00:00Z"));
        client.ms += 1_000;
        let draft = resource == "cms.hubdb.tables";
        let (plain, other) = (format!("{base}/{id}"), format!("{base}/{id}/draft"));
        let (right, wrong) = if draft { (&other, &plain) } else { (&plain, &other) };
        assert_eq!(client.call("PATCH", wrong, json!({"name": "B"})).0, 405, "{resource}");
        let (status, body) = client.call("PATCH", right, json!({"name": "B", "note": {"x": 1}}));
        assert_eq!((status, &body["name"], &body["note"]["x"]), (200, &json!("B"), &json!(1)), "{resource}");
        let (_, read) = client.get(&plain);
        assert_eq!((&read, &read[updated]), (&body, &json!(store::iso(START + 1_000))), "{resource}");
        assert_eq!(client.portal.live_content(resource), vec![read.clone()]);
        client.ms += 1_000;
        assert_eq!(client.call("DELETE", &plain, Value::Null).0, 204, "{resource}");
        assert_eq!(client.get(&plain).0, 404, "{resource}");
        assert_eq!(client.get(base).1["total"], 0, "{resource}");
        client.portal.create_content(client.now(), resource, &json!({"name": "lives"})).unwrap();
        let (_, gone) = client.get(&format!("{base}?archived=true"));
        assert_eq!(gone["total"], json!(usize::from(listed)), "{resource}");
        if listed {
            let item = &gone["results"][0];
            assert_eq!((&item["id"], &item["deletedAt"]), (&json!(id), &json!(store::iso(START + 2_000))));
            assert_eq!(item[updated], read[updated], "deleting does not move the date");
        }
        assert_eq!(client.call("DELETE", &format!("{base}/7"), Value::Null).0, 404, "{resource}");
        assert_eq!(client.post(base, json!({})).0, 400, "{resource}: something is required");
    }
}

#[test]
fn content_lists_are_bounded_sorted_and_paged_by_opaque_tokens() {
    let mut client = Client::plain();
    client.portal.configure(|settings| settings.unsettled.short_pages = 0.3);
    for at in 0..250 {
        let body = json!({"name": format!("{at:03}")});
        client.portal.create_content(client.now(), "cms.blogs.posts", &body).unwrap();
        // Several share a millisecond.
        client.ms += i64::from(at % 3 == 0);
    }
    let base = "/cms/v3/blogs/posts";
    for (by_offset, sort) in [(false, "created"), (true, "updated"), (false, "-updated"), (false, "name")] {
        client.portal.configure(|settings| settings.unsettled.cms_after_is_offset = by_offset);
        let mut all: Vec<String> = Vec::new();
        let mut after = String::new();
        loop {
            let (_, body) = client.get(&format!("{base}?limit=100&sort={sort}&after={after}"));
            assert_eq!(body["total"], 250);
            all.extend(names(&body).into_iter().map(str::to_owned));
            let Some(next) = body["paging"]["next"]["after"].as_str() else { break };
            assert!(next.parse::<u64>().is_err(), "{next} looks like something to count with");
            after = next.replace('=', "%3D").replace('+', "%2B");
        }
        let mut wanted: Vec<String> = (0..250).map(|at| format!("{at:03}")).collect();
        if sort.starts_with('-') {
            wanted.reverse();
        }
        assert_eq!(all, wanted, "{sort}");
    }
    client.portal.configure(|settings| settings.unsettled.short_pages = 0.0);
    let (from, to) = (store::iso(START + 10), START + 12);
    let total = |client: &mut Client| {
        client.get(&format!("{base}?updatedAfter={from}&updatedBefore={to}&createdAfter=1")).1["total"].clone()
    };
    assert_eq!(total(&mut client), 3, "one millisecond lies between");
    client.portal.configure(|settings| settings.unsettled.cms_bounds_are_inclusive = true);
    assert_eq!(total(&mut client), 9, "the bounds count");
    for bad in ["limit=101", "limit=0", "sort=createdAt", "updatedAfter=soon", "after=12"] {
        assert_eq!(client.get(&format!("{base}?{bad}")).0, 400, "{bad}");
    }
}

#[test]
fn what_pages_and_tables_do_exactly_is_a_setting() {
    let mut settings = PortalSettings::unlimited();
    settings.unsettled.cms_pages_say_archived_at = true;
    settings.unsettled.cms_keeps_unknown_members = false;
    settings.unsettled.hubdb_draft_can_be_deleted = true;
    settings.unsettled.cms_delete_moves_updated = true;
    settings.unsettled.cms_required.insert("cms.pages.site".into(), vec!["templatePath".into()]);
    let mut client = Client::new(settings);
    let base = "/cms/v3/pages/site-pages";
    let (status, body) = client.post(base, json!({"name": "A"}));
    assert_eq!((status, &body["context"]["properties"]), (400, &json!(["templatePath"])));
    let (status, body) = client.post(base, json!({"name": "A", "templatePath": "a.html", "odd": 1}));
    assert_eq!((status, &body["archivedAt"]), (201, &json!("1970-01-01T00:00:00Z")));
    assert!(body.get("odd").is_none() && body.get("deletedAt").is_none());
    let id = body["id"].as_str().unwrap().to_owned();
    assert_eq!(client.call("PATCH", &format!("{base}/{id}"), json!({"name": ""})).0, 400);
    client.ms += 7;
    assert!(client.portal.delete_content(client.now(), "cms.pages.site", &id));
    assert_eq!(client.get(&format!("{base}/{id}?archived=true")).1["updatedAt"], json!(store::iso(client.ms)));
    let table = client.portal.create_content(client.now(), "cms.hubdb.tables", &json!({"name": "t"})).unwrap();
    assert_eq!(client.call("DELETE", &format!("/cms/v3/hubdb/tables/{table}/draft"), Value::Null).0, 204);
    assert!(client.portal.live_content("cms.hubdb.tables").is_empty());
}

#[test]
fn content_needs_its_own_scopes_and_shares_the_burst_limit() {
    let limits = Limits { burst: Some(2), ..Limits::off() };
    let mut client = Client::new(PortalSettings { limits, ..PortalSettings::default() });
    let token = StaticToken { token: "narrow".into(), app: "narrow".into(), scopes: vec!["hubdb".into()] };
    client.portal.grant_token(&token.token, &token.app, token.scopes);
    assert_eq!(client.get("/cms/v3/blogs/tags").0, 200);
    assert_eq!(client.get("/cms/v3/hubdb/tables").0, 200);
    assert_eq!(client.get("/cms/v3/url-redirects").0, 429);
    let mut ask = |path: &str| {
        let request = Request::builder().uri(path).header("authorization", "Bearer narrow").body(Bytes::new()).unwrap();
        match client.portal.handle(Timestamp::from_millisecond(START).unwrap(), &request).response {
            Outcome::Response(response) => response.status().as_u16(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((ask("/cms/v3/hubdb/tables"), ask("/cms/v3/blogs/tags")), (200, 403));
    client.ms += 10_000;
    client.portal.add_fault(Fault::nth("/cms/v3/blogs", 1, What::Status(503)));
    assert_eq!(client.get("/cms/v3/blogs/tags").0, 503);
    assert_eq!(client.get("/cms/v3/blogs/nothing").0, 404);
}

#[test]
fn a_deletion_between_two_pages_hides_an_item_where_tokens_are_offsets() {
    for (by_offset, seen) in [(false, 4), (true, 3)] {
        let mut client = Client::plain();
        client.portal.configure(|settings| settings.unsettled.cms_after_is_offset = by_offset);
        let made: Vec<String> = ["a", "b", "c", "d"]
            .map(|name| client.portal.create_content(client.now(), "cms.blogs.tags", &json!({"name": name})).unwrap())
            .to_vec();
        let (_, first) = client.get("/cms/v3/blogs/tags?limit=2");
        let after = first["paging"]["next"]["after"].as_str().unwrap().replace('=', "%3D");
        assert!(client.portal.delete_content(client.now(), "cms.blogs.tags", &made[0]));
        let (_, second) = client.get(&format!("/cms/v3/blogs/tags?limit=2&after={after}"));
        assert_eq!(names(&first).len() + names(&second).len(), seen, "offsets: {by_offset}");
    }
}
