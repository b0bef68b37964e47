//! Content: blogs, pages, tables and redirects. It has no search, no batches and no properties: items are JSON objects
//! that are listed by date and written one at a time. SOURCES.md "Content".

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError, Handled, parse};
use super::search::shortened;
use super::settings::Unsettled;
use super::store::iso;
use super::{Call, Portal};

/// Items on one page.
const PAGE_MAX: usize = 100;
/// What items that are not deleted say about when they were.
const NEVER: &str = "1970-01-01T00:00:00Z";

/// A kind of content.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// What configurations call it.
    name: &'static str,
    /// Path below `/cms/v3/`.
    path: &'static str,
    created: &'static str,
    updated: &'static str,
    /// The member that says when it was deleted; `None` where deleted items are not listed.
    deleted: Option<&'static str>,
    required: &'static [&'static str],
    /// Members it has beside those.
    known: &'static [&'static str],
    scope: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "cms.blogs.authors",
        path: "blogs/authors",
        created: "created",
        updated: "updated",
        deleted: Some("deletedAt"),
        required: &["name"],
        known: &[
            "fullName", "email", "slug", "bio", "website", "twitter", "facebook", "linkedin", "avatar", "language",
        ],
        scope: "content",
    },
    Kind {
        name: "cms.blogs.posts",
        path: "blogs/posts",
        created: "created",
        updated: "updated",
        deleted: Some("deletedAt"),
        required: &["name"],
        known: &[
            "slug",
            "state",
            "contentGroupId",
            "blogAuthorId",
            "tagIds",
            "htmlTitle",
            "postBody",
            "postSummary",
            "metaDescription",
            "featuredImage",
            "featuredImageAltText",
            "useFeaturedImage",
            "language",
            "publishDate",
        ],
        scope: "content",
    },
    Kind {
        name: "cms.blogs.tags",
        path: "blogs/tags",
        created: "created",
        updated: "updated",
        deleted: Some("deletedAt"),
        required: &["name"],
        known: &["slug", "language", "translatedFromId"],
        scope: "content",
    },
    Kind {
        name: "cms.pages.landing",
        path: "pages/landing-pages",
        created: "createdAt",
        updated: "updatedAt",
        deleted: Some("deletedAt"),
        required: &["name"],
        known: PAGE,
        scope: "content",
    },
    Kind {
        name: "cms.pages.site",
        path: "pages/site-pages",
        created: "createdAt",
        updated: "updatedAt",
        deleted: Some("deletedAt"),
        required: &["name"],
        known: PAGE,
        scope: "content",
    },
    Kind {
        name: "cms.hubdb.tables",
        path: "hubdb/tables",
        created: "createdAt",
        updated: "updatedAt",
        deleted: None,
        required: &["name"],
        known: &["label", "columns", "useForPages", "allowChildTables", "allowPublicApiAccess", "dynamicMetaTags"],
        scope: "hubdb",
    },
    Kind {
        name: "cms.urlRedirects",
        path: "url-redirects",
        created: "createdAt",
        updated: "updatedAt",
        deleted: None,
        required: &["routePrefix", "destination"],
        known: &[
            "redirectStyle",
            "precedence",
            "isOnlyAfterNotFound",
            "isMatchFullUrl",
            "isMatchQueryString",
            "isPattern",
            "isTrailingSlashOptional",
            "isProtocolAgnostic",
        ],
        scope: "content",
    },
];

const PAGE: &[&str] = &[
    "slug",
    "state",
    "htmlTitle",
    "domain",
    "subcategory",
    "templatePath",
    "layoutSections",
    "metaDescription",
    "featuredImage",
    "language",
    "publishDate",
    "widgets",
];

/// Members that HubSpot keeps itself: what a write says about them is ignored.
const OWN: &[&str] = &[
    "id",
    "created",
    "updated",
    "createdAt",
    "updatedAt",
    "deletedAt",
    "archivedAt",
    "archived",
    "createdById",
    "updatedById",
    "portalId",
    "url",
    "publishedAt",
    "rowCount",
];

/// Which kind a path below `/cms/v3/` is about, and how many of its segments say so.
pub(crate) fn route(rest: &[&str]) -> Option<(usize, usize)> {
    KINDS.iter().enumerate().find_map(|(at, kind)| {
        let path: Vec<&str> = kind.path.split('/').collect();
        rest.starts_with(&path).then_some((at, path.len()))
    })
}

fn named(resource: &str) -> Option<usize> {
    KINDS.iter().position(|kind| kind.name == resource)
}

#[derive(Serialize, Deserialize, Debug, Clone)]
struct Item {
    id: u64,
    created: i64,
    updated: i64,
    deleted: Option<i64>,
    members: Map<String, Value>,
}

/// All content of an account.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub(crate) struct Content {
    items: BTreeMap<usize, BTreeMap<u64, Item>>,
}

impl Content {
    fn all(&self, at: usize) -> impl Iterator<Item = &Item> {
        self.items.get(&at).into_iter().flat_map(BTreeMap::values)
    }

    fn get(&self, at: usize, id: u64, deleted: bool) -> Option<&Item> {
        self.items.get(&at)?.get(&id).filter(|item| item.deleted.is_some() == deleted)
    }

    fn live_mut(&mut self, at: usize, id: u64) -> Option<&mut Item> {
        self.items.get_mut(&at)?.get_mut(&id).filter(|item| item.deleted.is_none())
    }
}

/// An item as HubSpot shows it.
fn shape(kind: &Kind, item: &Item, unsettled: &Unsettled) -> Value {
    let mut all = item.members.clone();
    all.insert("id".into(), item.id.to_string().into());
    all.insert(kind.created.into(), iso(item.created).into());
    all.insert(kind.updated.into(), iso(item.updated).into());
    if let Some(deleted) = kind.deleted {
        let pages = kind.path.starts_with("pages/") || kind.path == "blogs/posts";
        let member = if pages && unsettled.cms_pages_say_archived_at { "archivedAt" } else { deleted };
        all.insert(member.into(), item.deleted.map_or_else(|| NEVER.to_owned(), iso).into());
    }
    Value::Object(all)
}

/// A bound of a list: ISO 8601, or milliseconds.
fn instant(call: &Call<'_>, name: &str) -> Handled<Option<i64>> {
    let Some(text) = call.route.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let ms = match text.parse::<i64>() {
        Ok(ms) => Some(ms),
        Err(_) => text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
    };
    match ms {
        Some(ms) => Ok(Some(ms)),
        None => Err(ApiError::validation(format!("Invalid date-time for {name}"))),
    }
}

/// What a list is sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    Time(i64),
    Text(String),
}

/// Where the next page begins.
enum Cursor {
    Start,
    Offset(usize),
    After(SortKey, u64),
}

fn cursor(token: Option<&str>) -> Handled<Cursor> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(Cursor::Start) };
    let read = || {
        let text = String::from_utf8(BASE64.decode(token).ok()?).ok()?;
        let (tag, rest) = text.split_once(':')?;
        if tag == "o" {
            return Some(Cursor::Offset(rest.parse().ok()?));
        }
        let (id, key) = rest.split_once(':')?;
        let key = if tag == "t" { SortKey::Time(key.parse().ok()?) } else { SortKey::Text(key.to_owned()) };
        Some(Cursor::After(key, id.parse().ok()?))
    };
    read().ok_or_else(|| ApiError::validation("The paging token is not valid"))
}

fn token(key: &SortKey, id: u64, offset: usize, by_offset: bool) -> String {
    BASE64.encode(match key {
        _ if by_offset => format!("o:{offset}"),
        SortKey::Time(ms) => format!("t:{id}:{ms}"),
        SortKey::Text(text) => format!("n:{id}:{text}"),
    })
}

impl Portal {
    pub(super) fn content(&mut self, call: &Call<'_>, at: usize) -> Handled {
        let Some(kind) = KINDS.get(at) else { return Err(ApiError::new(404, "resource not found")) };
        call.caller.need(&[kind.scope.to_owned()])?;
        let rest: Vec<&str> = call.route.rest.iter().map(String::as_str).collect();
        let id = |text: &str| text.parse::<u64>().map_err(|_| ApiError::new(404, "resource not found"));
        let draft_delete = self.settings.unsettled.hubdb_draft_can_be_deleted;
        match (call.method, rest.as_slice(), kind.path) {
            ("GET", [], _) => self.content_list(call, at, kind),
            ("POST", [], _) => {
                let members: Map<String, Value> = parse(call.body)?;
                let members = self.content_members(kind, members, true)?;
                let id = self.content_put(at, members, call.now);
                self.content_one(201, at, kind, id)
            }
            ("GET", [one] | [one, "draft"], _) => {
                let id = id(one)?;
                let deleted = call.route.get("archived") == Some("true") && kind.deleted.is_some();
                match self.content.get(at, id, deleted) {
                    Some(item) => Ok(Answer::json(200, &shape(kind, item, &self.settings.unsettled))),
                    None => Err(ApiError::new(404, "resource not found")),
                }
            }
            ("PATCH", [one, "draft"], "hubdb/tables") | ("PATCH", [one], _) => {
                if kind.path == "hubdb/tables" && rest.len() == 1 {
                    return Err(ApiError::new(405, "HTTP 405 Method Not Allowed"));
                }
                let id = id(one)?;
                let members: Map<String, Value> = parse(call.body)?;
                if self.content.get(at, id, false).is_none() {
                    return Err(ApiError::new(404, "resource not found"));
                }
                let members = self.content_members(kind, members, false)?;
                self.content_write(at, id, members, call.now);
                self.content_one(200, at, kind, id)
            }
            ("POST", [one, "draft", "publish"], "hubdb/tables") => {
                // What is written to a draft is seen at once here: publishing only has to be possible.
                self.content_one(200, at, kind, id(one)?)
            }
            ("DELETE", [one], _) => {
                self.content_delete(at, id(one)?, call.now)?;
                Ok(Answer::empty(204))
            }
            ("DELETE", [one, "draft"], "hubdb/tables") if draft_delete => {
                self.content_delete(at, id(one)?, call.now)?;
                Ok(Answer::empty(204))
            }
            _ => Err(ApiError::new(405, "HTTP 405 Method Not Allowed")),
        }
    }

    fn content_list(&mut self, call: &Call<'_>, at: usize, kind: &Kind) -> Handled {
        let limit = call.route.get("limit").map_or(Ok(PAGE_MAX), str::parse::<usize>);
        let Some(limit) = limit.ok().filter(|limit| (1..=PAGE_MAX).contains(limit)) else {
            return Err(ApiError::validation(format!("limit must be between 1 and {PAGE_MAX}")));
        };
        let sort = call.route.get("sort").filter(|sort| !sort.is_empty()).unwrap_or(kind.created);
        let (sort, descending) = sort.strip_prefix('-').map_or((sort, false), |sort| (sort, true));
        let key = |item: &Item| match sort {
            _ if sort == kind.updated => Some(SortKey::Time(item.updated)),
            _ if sort == kind.created => Some(SortKey::Time(item.created)),
            "name" => {
                let name = item.members.get("name").and_then(Value::as_str).unwrap_or_default();
                Some(SortKey::Text(name.to_owned()))
            }
            _ => None,
        };
        if sort != kind.updated && sort != kind.created && sort != "name" {
            return Err(ApiError::validation(format!("Cannot sort by {sort}")));
        }
        let inclusive = self.settings.unsettled.cms_bounds_are_inclusive;
        let range = |after: &str, before: &str| -> Handled<(Bound<i64>, Bound<i64>)> {
            let bound = |ms: Option<i64>| match ms {
                None => Bound::Unbounded,
                Some(ms) if inclusive => Bound::Included(ms),
                Some(ms) => Bound::Excluded(ms),
            };
            Ok((bound(instant(call, after)?), bound(instant(call, before)?)))
        };
        let created = range("createdAfter", "createdBefore")?;
        let updated = range("updatedAfter", "updatedBefore")?;
        let start = cursor(call.route.get("after"))?;
        let archived = call.route.get("archived") == Some("true");
        let short = self.short_page();
        let within = |range: &(Bound<i64>, Bound<i64>), ms: i64| std::ops::RangeBounds::contains(range, &ms);
        let mut all: Vec<(SortKey, &Item)> = self
            .content
            .all(at)
            .filter(|item| item.deleted.is_some() == archived && !(archived && kind.deleted.is_none()))
            .filter(|item| within(&created, item.created) && within(&updated, item.updated))
            .filter_map(|item| Some((key(item)?, item)))
            .collect();
        all.sort_by(|(left, a), (right, b)| (left, a.id).cmp(&(right, b.id)));
        if descending {
            all.reverse();
        }
        let total = all.len();
        let from = match start {
            Cursor::Start => 0,
            Cursor::Offset(offset) => offset.min(total),
            Cursor::After(key, id) => all.partition_point(|(other, item)| {
                let order = (other, item.id).cmp(&(&key, id));
                if descending { order.is_ge() } else { order.is_le() }
            }),
        };
        let page: Vec<&(SortKey, &Item)> = all.iter().skip(from).take(limit).collect();
        let size = shortened(page.len(), short);
        let results: Vec<Value> =
            page.iter().take(size).map(|(_, item)| shape(kind, item, &self.settings.unsettled)).collect();
        let mut body = json!({"total": total, "results": results});
        let last = size.checked_sub(1).and_then(|last| page.get(last));
        if let (Some((key, item)), Some(members), true) = (last, body.as_object_mut(), from + size < total) {
            let after = token(key, item.id, from + size, self.settings.unsettled.cms_after_is_offset);
            let link = format!("https://api.hubapi.com/cms/v3/{}?limit={limit}&after={after}", kind.path);
            members.insert("paging".into(), json!({"next": {"after": after, "link": link}}));
        }
        Ok(Answer::json(200, &body))
    }

    /// What of a body is stored, or why nothing is.
    fn content_members(&self, kind: &Kind, body: Map<String, Value>, new: bool) -> Handled<Map<String, Value>> {
        let unsettled = &self.settings.unsettled;
        let known = |name: &str| kind.required.contains(&name) || kind.known.contains(&name);
        let members: Map<String, Value> = body
            .into_iter()
            .filter(|(name, _)| !OWN.contains(&name.as_str()))
            .filter(|(name, _)| known(name) || unsettled.cms_keeps_unknown_members)
            .collect();
        let more = unsettled.cms_required.get(kind.name).into_iter().flatten().map(String::as_str);
        let unset: Vec<String> = kind
            .required
            .iter()
            .copied()
            .chain(more)
            .filter(|name| {
                let value = members.get(*name);
                let empty = value.is_none_or(|value| value.is_null() || value.as_str().is_some_and(str::is_empty));
                // An update need not repeat what is there, but cannot clear it.
                empty && (new || value.is_some())
            })
            .map(str::to_owned)
            .collect();
        if unset.is_empty() {
            return Ok(members);
        }
        Err(ApiError::validation("Some required properties were not set").context("properties", unset))
    }

    fn content_put(&mut self, at: usize, members: Map<String, Value>, now: i64) -> u64 {
        let id = self.new_id();
        let item = Item { id, created: now, updated: now, deleted: None, members };
        self.content.items.entry(at).or_default().insert(id, item);
        self.counts.created += 1;
        id
    }

    fn content_write(&mut self, at: usize, id: u64, members: Map<String, Value>, now: i64) -> bool {
        let Some(item) = self.content.live_mut(at, id) else { return false };
        item.members.extend(members);
        item.updated = item.updated.max(now);
        self.counts.updated += 1;
        true
    }

    fn content_delete(&mut self, at: usize, id: u64, now: i64) -> Handled<()> {
        let listed = KINDS.get(at).is_some_and(|kind| kind.deleted.is_some());
        let moves = self.settings.unsettled.cms_delete_moves_updated;
        let Some(items) = self.content.items.get_mut(&at) else {
            return Err(ApiError::new(404, "resource not found"));
        };
        let Some(item) = items.get_mut(&id) else { return Err(ApiError::new(404, "resource not found")) };
        if !listed {
            items.remove(&id);
        } else if item.deleted.is_none() {
            item.deleted = Some(now);
            if moves {
                item.updated = item.updated.max(now);
            }
        } else {
            return Ok(());
        }
        self.counts.archived += 1;
        Ok(())
    }

    fn content_one(&self, status: u16, at: usize, kind: &Kind, id: u64) -> Handled {
        match self.content.get(at, id, false) {
            Some(item) => Ok(Answer::json(status, &shape(kind, item, &self.settings.unsettled))),
            None => Err(ApiError::new(404, "resource not found")),
        }
    }

    // ---- for tests and demonstrations ----

    /// Puts content (`cms.blogs.posts` and so on, the names that configurations use) into the account without any check.
    /// `body` is an object as a create takes it. Returns the id; `None` for another resource or no object.
    pub fn create_content(&mut self, now: Timestamp, resource: &str, body: &Value) -> Option<String> {
        let at = named(resource)?;
        let members = body.as_object()?.clone();
        Some(self.content_put(at, members, now.as_millisecond()).to_string())
    }

    /// Changes members of content. `false` if it is not there.
    pub fn edit_content(&mut self, now: Timestamp, resource: &str, id: &str, body: &Value) -> bool {
        let (Some(at), Ok(id), Some(members)) = (named(resource), id.parse(), body.as_object()) else { return false };
        self.content_write(at, id, members.clone(), now.as_millisecond())
    }

    /// Deletes content. `false` if it is not there.
    pub fn delete_content(&mut self, now: Timestamp, resource: &str, id: &str) -> bool {
        let (Some(at), Ok(id)) = (named(resource), id.parse()) else { return false };
        self.content.get(at, id, false).is_some() && self.content_delete(at, id, now.as_millisecond()).is_ok()
    }

    /// Content that is not deleted, ascending by id as numbers, as a list shows it.
    pub fn live_content(&self, resource: &str) -> Vec<Value> {
        let Some((at, kind)) = named(resource).and_then(|at| Some((at, KINDS.get(at)?))) else { return Vec::new() };
        let live = self.content.all(at).filter(|item| item.deleted.is_none());
        live.map(|item| shape(kind, item, &self.settings.unsettled)).collect()
    }
}
