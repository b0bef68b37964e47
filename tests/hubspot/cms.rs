use hubferry::{
    ErrorKind,
    clock::Deadline,
    codes,
    hubspot::{
        cms::{CmsOrder, CmsQuery, CmsWritten},
        resources::{CmsResource, Resource, Write},
    },
};
use serde_json::{Map, json};

use super::{fake::Scripted, *};

fn content(name: &str) -> CmsResource {
    match Resource::parse(name).unwrap() {
        Resource::Cms(resource) => resource,
        Resource::Crm(resource) => panic!("{resource:?}"),
    }
}

fn scripted<F: Fn(usize, &str) -> (u16, String) + 'static>(world: &World, answer: F) -> (Rc<Account>, Rc<Scripted<F>>) {
    let scripted = Rc::new(Scripted { answer, seen: std::cell::RefCell::default() });
    (fake::account(world, scripted.clone()), scripted)
}

fn members(json: Value) -> Map<String, Value> {
    json.as_object().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn content_is_listed_by_pages_in_the_words_of_each_resource() {
    let world = fake::world();
    let (account, http) = scripted(&world, |_, request| {
        let page = if request.contains("after=NTA") {
            json!({"total": 2, "results": [{"id": "2", "updated": "2026-01-02T00:00:00Z", "deletedAt": "2026-02-01T00:00:00Z"}]})
        } else {
            json!({"total": 2, "results": [{"id": "1", "updated": "2026-01-01T00:00:00Z", "deletedAt": "1970-01-01T00:00:00Z"}],
                "paging": {"next": {"after": "NTA=", "link": "?after=NTA%3D"}}})
        };
        (200, page.to_string())
    });
    let posts = content("cms.blogs.posts");
    let query =
        CmsQuery { order: CmsOrder::Updated, updated_after: "2026-01-01T00:00:00Z".parse().ok(), archived: true };
    let first = account.list_cms(&posts, query, None, Deadline::NONE).await.unwrap();
    let second = account.list_cms(&posts, query, first.after.as_deref(), Deadline::NONE).await.unwrap();
    let told: Vec<_> = first
        .records
        .iter()
        .chain(&second.records)
        .map(|record| (record.id.as_str(), record.archived_at.is_some()))
        .collect();
    assert_eq!((told, second.after), (vec![("1", false), ("2", true)], None));
    let base = "GET /cms/v3/blogs/posts?limit=100&sort=updated&archived=true&updatedAfter=2026-01-01T00%3A00%3A00Z";
    assert_eq!(*http.seen.borrow(), [base.to_owned(), format!("{base}&after=NTA%3D")]);
    account.list_cms(&content("cms.pages.site"), CmsQuery::default(), None, Deadline::NONE).await.unwrap();
    assert_eq!(http.seen.borrow()[2], "GET /cms/v3/pages/site-pages?limit=100&sort=createdAt&archived=false");
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_is_believed_when_it_comes_three_times_and_content_without_an_id_never() {
    let world = fake::world();
    let (account, http) = scripted(&world, |count, _| match count {
        1 | 2 | 4 | 5 | 6 => (200, json!({"results": []}).to_string()),
        3 => (200, json!({"results": [{"id": 5}]}).to_string()),
        7 => (200, json!({"results": [{"name": "none"}]}).to_string()),
        _ => (400, json!({"message": "Unknown sort", "category": "VALIDATION_ERROR"}).to_string()),
    });
    let tags = content("cms.blogs.tags");
    let list = async || account.list_cms(&tags, CmsQuery::default(), None, Deadline::NONE).await;
    assert_eq!(list().await.unwrap().records.len(), 1);
    assert_eq!((list().await.unwrap().records.len(), http.seen.borrow().len()), (0, 6));
    assert_eq!(list().await.unwrap_err().code(), codes::HUBSPOT_ANSWER_UNREADABLE);
    let refused = list().await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Refused, codes::HUBSPOT_REFUSED));
    assert!(refused.message().contains("Unknown sort"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_is_safe_to_repeat_is_repeated_and_a_new_one_is_not() {
    let world = fake::world();
    let (account, http) = scripted(&world, |count, request| match (count % 2, request.split(' ').next().unwrap()) {
        (1, _) => (0, String::new()),
        (_, "DELETE") => (204, String::new()),
        _ => (200, json!({"id": "7", "updatedAt": "2026-01-01T00:00:00Z"}).to_string()),
    });
    let tables = content("cms.hubdb.tables");
    let object = members(json!({"label": "Cars"}));
    let write = async |write, id| account.write_cms(&tables, write, id, &object, None, Deadline::NONE).await;
    let CmsWritten::Done(Some(record)) = write(Write::Update, "7").await.unwrap() else { panic!() };
    assert!(record.id == "7" && record.updated_at.is_some());
    assert_eq!(write(Write::Delete, "7").await.unwrap(), CmsWritten::Done(None));
    account.publish_cms(&tables, "7", Deadline::NONE).await.unwrap();
    account.publish_cms(&content("cms.urlRedirects"), "7", Deadline::NONE).await.unwrap();
    let error = write(Write::Create, "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    let body = r#"{"label":"Cars"}"#;
    let (update, delete) = (format!("PATCH /cms/v3/hubdb/tables/7/draft {body}"), "DELETE /cms/v3/hubdb/tables/7");
    let (publish, create) = ("POST /cms/v3/hubdb/tables/7/draft/publish", format!("POST /cms/v3/hubdb/tables {body}"));
    assert_eq!(*http.seen.borrow(), [&*update, &*update, delete, delete, publish, publish, &*create]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_is_told_and_what_is_not_there_is_none() {
    let world = fake::world();
    let (account, _) = scripted(&world, |_, request| {
        let status = if request.starts_with("GET") { 404 } else { 409 };
        (status, json!({"status": "error", "message": "slug taken", "category": "CONFLICT"}).to_string())
    });
    let pages = content("cms.pages.landing");
    let object = members(json!({"name": "p"}));
    let written = account.write_cms(&pages, Write::Create, "", &object, None, Deadline::NONE).await.unwrap();
    let CmsWritten::Refused(status, refusal) = written else { panic!("{written:?}") };
    assert_eq!((status.as_u16(), refusal.category.as_str()), (409, "CONFLICT"));
    assert_eq!(account.read_cms(&pages, "7", false, Deadline::NONE).await.unwrap(), None);
}
