//! Statements and their pages; records by their ids.

use std::cell::RefCell;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    fault::Class,
    model::{Row, SalesforceId},
    org::{Answer, Call, Org, URI_BYTES_MAX, refused},
    soql::{Condition, Literal, Name, STATEMENT_MAX, Select},
};
use crate::{Error, ErrorKind, Result, clock::Deadline, codes, http::token::percent_encode};

/// Ids of one retrieval.
pub const RETRIEVE_MAX: usize = 2_000;

/// Pages of one statement: two million records at the usual 2,000, and an end for a cursor that has none.
const PAGES_MAX: usize = 20_000;

/// A page of a statement's records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The records. A page may hold fewer than asked, also if it is not the last.
    pub rows: Vec<Row>,
    /// Where the next page is; `None`: this was the last. It can be used for two days, from any process.
    pub next: Option<String>,
    /// Records of all pages.
    pub total: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageBody {
    total_size: u64,
    done: bool,
    next_records_url: Option<String>,
    records: Vec<Row>,
}

impl Org {
    /// The first page of a statement. `all`: also what is in the recycle bin (`IsDeleted`), merged records among it.
    pub async fn query(&self, select: &Select, all: bool, deadline: Deadline) -> Result<Page> {
        let statement = select.to_string();
        if statement.chars().count() > STATEMENT_MAX {
            let message = format!("the statement about {} is longer than {STATEMENT_MAX} characters", select.object());
            return Err(Error::invalid(codes::SALESFORCE_REFUSED, message));
        }
        let mut call = Call::get(if all { "queryAll" } else { "query" });
        call.query.push(("q", statement));
        self.page(call, deadline).await
    }

    /// The page behind [`Page::next`]. `None` if the cursor has ended: begin again behind the last record seen.
    pub async fn next_page(&self, next: &str, deadline: Deadline) -> Result<Option<Page>> {
        // Only a path below the API: a session is sent there.
        if !next.starts_with("/services/data/") {
            let message = "the address of the next page is not one of Salesforce's API";
            return Err(Error::new(ErrorKind::Refused, codes::SALESFORCE_ANSWER_UNREADABLE, message));
        }
        match self.page(Call::get(next), deadline).await {
            Ok(page) => Ok(Some(page)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn page(&self, call: Call, deadline: Deadline) -> Result<Page> {
        let what = format!("{} {}", call.method, call.path);
        // Read once, for both questions: whether it can be read, and what it says.
        let read = RefCell::new(None);
        let readable = |answer: &Answer| {
            let page = read_page(answer);
            let is_readable = page.is_some();
            read.replace(page);
            is_readable
        };
        let answer = self.ask_until(call, deadline, readable).await?;
        if !answer.status.is_success() {
            let locator = answer.fault().is_some_and(|fault| fault.class() == Class::Locator);
            let error = refused(&what, &answer);
            return Err(match locator {
                true => Error::new(ErrorKind::NotFound, codes::SALESFORCE_REFUSED, error.message().to_owned()),
                false => error,
            });
        }
        read.into_inner().ok_or_else(|| {
            Error::new(
                ErrorKind::Unknown,
                codes::SALESFORCE_ANSWER_UNREADABLE,
                format!("{what}: not a page of records"),
            )
        })
    }

    /// All records of a statement. For results of a known size: everything is held.
    pub async fn query_to_end(&self, select: &Select, all: bool, deadline: Deadline) -> Result<Vec<Row>> {
        let mut page = self.query(select, all, deadline).await?;
        let mut rows = std::mem::take(&mut page.rows);
        for _ in 0..PAGES_MAX {
            let Some(next) = page.next.take() else { return Ok(rows) };
            page = self.next_page(&next, deadline).await?.ok_or_else(|| {
                let message = format!("the query about {} ended between two pages", select.object());
                Error::new(ErrorKind::Unavailable { retry_after: None }, codes::SALESFORCE_UNAVAILABLE, message)
            })?;
            rows.append(&mut page.rows);
        }
        let message = format!("the query about {} has more than {PAGES_MAX} pages", select.object());
        Err(Error::new(ErrorKind::Refused, codes::SALESFORCE_REFUSED, message))
    }

    /// Records whose `field` has one of `values`, in as few statements as addresses of Salesforce's longest length allow. Texts compare
    /// whatever their case, so more than one record may come for a value.
    pub async fn query_one_of(
        &self,
        select: &Select,
        field: &str,
        values: &[Literal],
        deadline: Deadline,
    ) -> Result<Vec<Row>> {
        Name::new(field)?;
        let encoded = |text: &str| {
            let mut out = String::new();
            percent_encode(&mut out, text);
            out.len()
        };
        let fixed = encoded(&select.to_string()) + encoded(&format!(" WHERE  AND {field} IN ()")) + 100;
        let mut rows = Vec::new();
        let mut rest = values;
        while !rest.is_empty() {
            let mut bytes = fixed;
            let fits = rest.iter().take_while(|value| {
                bytes += encoded(&format!("{value},"));
                bytes <= URI_BYTES_MAX
            });
            // One value alone is sent whatever its length: Salesforce says if it is too long.
            let (chunk, more) = rest.split_at(fits.count().clamp(1, rest.len()));
            let statement = select.clone().and(Condition::one_of(field, chunk.to_vec())?);
            rows.append(&mut self.query_to_end(&statement, false, deadline).await?);
            rest = more;
        }
        Ok(rows)
    }

    /// Records by their ids, in the order of `ids`; `None` where one is deleted, was never there, or may not be seen. What was written
    /// just now is seen, which a query may not do.
    pub async fn retrieve(
        &self,
        object: &str,
        ids: &[SalesforceId],
        fields: &[&str],
        deadline: Deadline,
    ) -> Result<Vec<Option<Row>>> {
        let object = Name::new(object)?;
        let mut names = vec!["Id"];
        names.extend(fields.iter().copied().filter(|name| !name.eq_ignore_ascii_case("Id")));
        for name in &names {
            Name::new(name)?;
        }
        let mut rows = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(RETRIEVE_MAX) {
            let body = json!({"ids": chunk, "fields": names}).to_string();
            let call = Call::new(Method::POST, format!("composite/sobjects/{object}"), Bytes::from(body));
            let what = format!("POST {}", call.path);
            let read = RefCell::new(None);
            let readable = |answer: &Answer| {
                let own = serde_json::from_slice::<Vec<Option<Row>>>(&answer.body).ok();
                let own = own.filter(|rows| rows.len() == chunk.len());
                let is_readable = own.is_some();
                read.replace(own);
                is_readable
            };
            let answer = self.ask_until(call, deadline, readable).await?;
            if !answer.status.is_success() {
                return Err(refused(&what, &answer));
            }
            rows.extend(read.into_inner().unwrap_or_default());
        }
        Ok(rows)
    }
}

fn read_page(answer: &Answer) -> Option<Page> {
    let body: PageBody = serde_json::from_slice(&answer.body).ok()?;
    // `done` decides: an address may be there although this was the last page.
    let next = body.next_records_url.filter(|_| !body.done);
    if !body.done && next.is_none() {
        return None;
    }
    Some(Page { rows: body.records, next, total: body.total_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(body: &str) -> Option<Page> {
        let answer = Answer {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            is_repeat: false,
        };
        read_page(&answer)
    }

    #[test]
    fn done_decides_whether_there_is_another_page() {
        let with = |done: bool, next: &str| page(&format!(r#"{{"totalSize":1,"done":{done}{next},"records":[{{}}]}}"#));
        let next = r#","nextRecordsUrl":"/services/data/v67.0/query/01g-2000""#;
        assert_eq!(with(true, next).unwrap().next, None, "an address although this was the last page");
        assert_eq!(with(false, next).unwrap().next.as_deref(), Some("/services/data/v67.0/query/01g-2000"));
        assert_eq!(with(false, ""), None, "more pages but no way to them: not an answer to believe");
        for body in ["", "[]", "{}", r#"{"totalSize":1,"done":true}"#, "<html>"] {
            assert_eq!(page(body), None, "{body}");
        }
    }
}
