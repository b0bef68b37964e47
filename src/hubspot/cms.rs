//! Content: blogs, pages, HubDB tables, redirects. Listed by the page and written one at a time; HubSpot has no batches and no search for it.
//!
//! These addresses have no dated version ([`CmsResource`] holds them), and their members are called differently from one resource to the
//! next. A page of a list that is cut short reads as the last one; an empty one is believed when it comes three times.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    account::{Account, Call, describe},
    envelope::Refusal,
    read::{Paging, text_of},
    records::{EMPTY_BELIEVED, RawRecord, moment},
    resources::{CmsResource, Write},
};
use crate::{Error, ErrorKind, Result, clock::Deadline, codes, http::rate_limit::Permit};

/// HubSpot's largest page of content.
pub const CMS_PAGE: usize = 100;

/// In which order content is listed, the oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CmsOrder {
    /// By the time it was made: nothing moves while pages are turned.
    #[default]
    Created,
    /// By the time of its last change: what changes meanwhile moves to the end.
    Updated,
}

/// What is to be listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CmsQuery {
    /// The order.
    pub order: CmsOrder,
    /// Only what was changed after this moment.
    pub updated_after: Option<Timestamp>,
    /// What was deleted, and only that.
    pub archived: bool,
}

/// A page of content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CmsPage {
    /// Up to [`CMS_PAGE`].
    pub records: Vec<RawRecord>,
    /// What the next page is asked for with; `None` after the last.
    pub after: Option<String>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CmsWritten {
    /// Carried out; the thing as it is now, where HubSpot shows it.
    Done(Option<RawRecord>),
    /// It will never be as it is. Whoever tells the words masks the values that were sent ([`Refusal::text`]).
    Refused(StatusCode, Refusal),
}

#[derive(Deserialize)]
struct ListAnswer {
    results: Vec<Value>,
    paging: Option<Paging>,
}

/// A thing of this resource; `None` if it has no id.
///
/// Live ones may carry a time of deletion too: the epoch.
pub fn content_of(resource: &CmsResource, json: Value) -> Option<RawRecord> {
    let mut record = RawRecord::of(json)?;
    let time = |name: &str| record.object.get(name).and_then(text_of).and_then(|text| moment(&text));
    let told = ["deletedAt", "archivedAt"].into_iter().filter_map(time).filter(|at| *at > Timestamp::UNIX_EPOCH).max();
    let (created_at, updated_at) = (time(resource.created), time(resource.updated));
    let flag = |name: &str| record.object.get(name).and_then(Value::as_bool).unwrap_or_default();
    let gone = flag("archived") || flag("deleted");
    let archived_at = told.or_else(|| gone.then(|| updated_at.or(created_at).unwrap_or(Timestamp::UNIX_EPOCH)));
    (record.created_at, record.updated_at, record.archived_at) = (created_at, updated_at, archived_at);
    Some(record)
}

impl Account {
    /// One page of content; `after` is the cursor of the page before. Errors: `HUBSPOT_REFUSED`, and those of [`Account::call`].
    pub async fn list_cms(
        &self,
        resource: &CmsResource,
        query: CmsQuery,
        after: Option<&str>,
        deadline: Deadline,
    ) -> Result<CmsPage> {
        let mut call = Call::get(resource.path.to_owned());
        let sort = match query.order {
            CmsOrder::Created => resource.created,
            CmsOrder::Updated => resource.updated,
        };
        call.query.push(("limit", CMS_PAGE.to_string()));
        call.query.push(("sort", sort.to_owned()));
        call.query.push(("archived", query.archived.to_string()));
        call.query.extend(query.updated_after.map(|at| ("updatedAfter", at.to_string())));
        call.query.extend(after.map(|after| ("after", after.to_owned())));
        let mut empty = 0;
        loop {
            match self.parsed::<ListAnswer>(call.clone(), None, deadline).await? {
                Ok(page) if page.results.is_empty() && page.paging.is_none() && empty + 1 < EMPTY_BELIEVED => {
                    empty += 1
                }
                Ok(page) => {
                    let count = page.results.len();
                    let records: Vec<RawRecord> =
                        page.results.into_iter().filter_map(|json| content_of(resource, json)).collect();
                    if records.len() < count {
                        let message = format!("listing {}: HubSpot shows content without an id", resource.collection);
                        return Err(Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message));
                    }
                    return Ok(CmsPage { records, after: Paging::after(page.paging) });
                }
                Err((status, refusal)) => {
                    let message = format!("listing {}: {}", resource.collection, describe(status, &refusal, false));
                    return Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message));
                }
            }
        }
    }

    /// One thing; `None` if there is no such, or it is deleted (with `archived`: or it is not).
    pub async fn read_cms(
        &self,
        resource: &CmsResource,
        id: &str,
        archived: bool,
        deadline: Deadline,
    ) -> Result<Option<RawRecord>> {
        let mut call = Call::get(resource.one(id));
        call.query.push(("archived", archived.to_string()));
        match self.parsed::<Map<String, Value>>(call, None, deadline).await? {
            Ok(object) => match content_of(resource, Value::Object(object)) {
                Some(record) => Ok(Some(record)),
                None => {
                    let message = format!("reading {}: HubSpot shows content without an id", resource.collection);
                    Err(Error::new(ErrorKind::Unknown, codes::HUBSPOT_ANSWER_UNREADABLE, message))
                }
            },
            Err((StatusCode::NOT_FOUND, _)) => Ok(None),
            Err((status, refusal)) => {
                let message = format!("reading {}: {}", resource.collection, describe(status, &refusal, false));
                Err(Error::new(ErrorKind::Refused, codes::HUBSPOT_REFUSED, message))
            }
        }
    }

    /// Writes one thing. `id` is empty for a new one, and `object` for a delete.
    ///
    /// Only [`Write::Create`] is not repeated after its answer was lost: `Unknown` then, and the caller looks whether it is there. HubDB
    /// tables are changed as drafts: see [`Account::publish_cms`]. `permit` is the call's turn where it was waited for already.
    pub async fn write_cms(
        &self,
        resource: &CmsResource,
        write: Write,
        id: &str,
        object: &Map<String, Value>,
        permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<CmsWritten> {
        let (method, path) = resource.write(write, id);
        let body = match write {
            Write::Create | Write::Update => serde_json::to_vec(object).map_err(|error| {
                let message = "content cannot be encoded";
                Error::new(ErrorKind::Corrupt, codes::HUBSPOT_REFUSED, message).with_source(error)
            })?,
            Write::Delete => Vec::new(),
        };
        let mut call = Call::post(path, Bytes::from(body));
        call.method = method;
        call.repeatable = write != Write::Create;
        self.written(resource, call, permit, deadline).await
    }

    /// Makes the draft of a thing the thing itself, where the resource has drafts; else nothing is called.
    pub async fn publish_cms(&self, resource: &CmsResource, id: &str, deadline: Deadline) -> Result<CmsWritten> {
        match resource.publish(id) {
            Some(path) => self.written(resource, Call::post(path, Bytes::new()), None, deadline).await,
            None => Ok(CmsWritten::Done(None)),
        }
    }

    async fn written(
        &self,
        resource: &CmsResource,
        call: Call,
        permit: Option<Permit>,
        deadline: Deadline,
    ) -> Result<CmsWritten> {
        // Nothing at all (204) is an answer; something that is no JSON is not.
        let readable = |body: &Bytes| body.is_empty() || serde_json::from_slice::<Value>(body).is_ok();
        let answer = self.ask_until(call, permit, deadline, |answer| readable(&answer.body)).await?;
        if !answer.status.is_success() {
            return Ok(CmsWritten::Refused(answer.status, Refusal::of_body(&answer.body)));
        }
        let json = serde_json::from_slice(&answer.body).ok();
        Ok(CmsWritten::Done(json.and_then(|json| content_of(resource, json))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hubspot::resources::Resource;

    fn content(name: &str) -> CmsResource {
        match Resource::parse(name).unwrap() {
            Resource::Cms(resource) => resource,
            Resource::Crm(resource) => panic!("{resource:?}"),
        }
    }

    #[test]
    fn times_are_read_from_the_members_of_the_resource_and_the_epoch_is_no_deletion() {
        let posts = content("cms.blogs.posts");
        let live = json!({"id": "7", "created": "2026-01-01T00:00:00Z", "updated": "2026-01-02T00:00:00Z",
            "createdAt": "1999-01-01T00:00:00Z", "deletedAt": "1970-01-01T00:00:00Z"});
        let live = content_of(&posts, live).unwrap();
        let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
        assert_eq!(text(live.created_at).as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(text(live.updated_at).as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!(live.archived_at, None);
        let deleted = |json: Value| text(content_of(&posts, json).unwrap().archived_at);
        assert_eq!(
            deleted(json!({"id": 1, "deletedAt": "2026-03-01T00:00:00Z"})).as_deref(),
            Some("2026-03-01T00:00:00Z")
        );
        assert_eq!(
            deleted(json!({"id": 1, "archivedAt": 1_772_323_200_000_i64})).as_deref(),
            Some("2026-03-01T00:00:00Z")
        );
        let flagged = json!({"id": 1, "deleted": true, "updated": "2026-01-02T00:00:00Z"});
        assert_eq!(deleted(flagged).as_deref(), Some("2026-01-02T00:00:00Z"));
        assert!(content_of(&posts, json!({"name": "none"})).is_none());
    }
}
