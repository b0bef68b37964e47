//! One record at a time: where a write must only happen if nobody else wrote meanwhile, or a single record is all there is.

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    fault::Fault,
    model::{Row, SalesforceId, Values},
    org::{Answer, Call, Org, refused},
    soql::Name,
    write::{Verdict, verdict_of},
};
use crate::{Error, ErrorKind, Result, clock::Deadline, codes, http::token::percent_encode};

impl Org {
    /// A record by its id; `None` if it is deleted or was never there.
    pub async fn get(
        &self,
        object: &str,
        id: &SalesforceId,
        fields: &[&str],
        deadline: Deadline,
    ) -> Result<Option<Row>> {
        let object = Name::new(object)?;
        for field in fields {
            Name::new(field)?;
        }
        let mut call = Call::get(format!("sobjects/{object}/{id}"));
        if !fields.is_empty() {
            call.query.push(("fields", fields.join(",")));
        }
        match self.call(call, deadline).await {
            Ok(answer) => answer.json(&format!("GET sobjects/{object}")).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes a record. With `unchanged_since` (its `LastModifiedDate`, as read) only if nobody changed it since, to the second:
    /// [`Verdict::LostRace`] otherwise.
    ///
    /// After a lost answer the write is repeated. A repeat that finds the record changed may have found its own first write, and one that is
    /// not carried out says nothing of that one: [`Verdict::Unknown`].
    pub async fn update(
        &self,
        object: &str,
        id: &SalesforceId,
        values: &Values,
        unchanged_since: Option<Timestamp>,
        deadline: Deadline,
    ) -> Result<Verdict> {
        let object = Name::new(object)?;
        let mut call = Call::new(Method::PATCH, format!("sobjects/{object}/{id}"), body(values)?);
        if let Some(at) = unchanged_since {
            call.headers.push(("if-unmodified-since", at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        }
        let answer = self.ask(call, deadline).await?;
        if answer.status.is_success() {
            return Ok(Verdict::Written { id: id.clone(), created: false });
        }
        let verdict = match answer.status.as_u16() {
            412 => Verdict::LostRace,
            _ => judged(&format!("PATCH sobjects/{object}"), &answer, values)?,
        };
        Ok(if answer.is_repeat { verdict.of_repeat() } else { verdict })
    }

    /// Puts a record into the recycle bin. [`Verdict::Gone`] if it was deleted before, perhaps by a first attempt whose answer was lost.
    pub async fn delete(&self, object: &str, id: &SalesforceId, deadline: Deadline) -> Result<Verdict> {
        let object = Name::new(object)?;
        let call = Call::new(Method::DELETE, format!("sobjects/{object}/{id}"), Bytes::new());
        let answer = self.ask(call, deadline).await?;
        if answer.status.is_success() {
            return Ok(Verdict::Written { id: id.clone(), created: false });
        }
        judged(&format!("DELETE sobjects/{object}"), &answer, &Values::new())
    }

    /// Creates or changes the record whose external id `key` is `value`. The key must not be among the values.
    /// [`Verdict::Ambiguous`] if several records have it.
    pub async fn upsert(
        &self,
        object: &str,
        key: &str,
        value: &str,
        values: &Values,
        deadline: Deadline,
    ) -> Result<Verdict> {
        let (object, key) = (Name::new(object)?, Name::new(key)?);
        let mut path = format!("sobjects/{object}/{key}/");
        percent_encode(&mut path, value);
        let what = format!("PATCH sobjects/{object}/{key}");
        let mut call = Call::new(Method::PATCH, path, body(values)?);
        // The path holds a value.
        call.called = Some(what.clone());
        let answer = self.ask(call, deadline).await?;
        match answer.status.as_u16() {
            300 => Ok(Verdict::Ambiguous(super::write::Refusal {
                code: "DUPLICATE_EXTERNAL_ID".to_owned(),
                fields: vec![key.as_str().to_owned()],
                text: format!("several records of {object} have this {key}"),
            })),
            200..=299 => {
                let made: Values = answer.json(&what)?;
                let id = made.get("id").and_then(Value::as_str).and_then(|id| SalesforceId::parse(id).ok());
                let id = id.ok_or_else(|| {
                    let message = format!("{what}: an answer without an id");
                    Error::new(ErrorKind::Unknown, codes::SALESFORCE_ANSWER_UNREADABLE, message)
                })?;
                Ok(Verdict::Written { id, created: made.get("created").and_then(Value::as_bool).unwrap_or(false) })
            }
            // The key, not the record, is what is not there.
            404 => Err(refused(&what, &answer)),
            _ => judged(&what, &answer, values),
        }
    }
}

fn body(values: &Values) -> Result<Bytes> {
    serde_json::to_vec(values)
        .map(Bytes::from)
        .map_err(|_| Error::invalid(codes::SALESFORCE_REFUSED, "the record cannot be written as JSON"))
}

/// The verdict of a refusal about the record; other refusals are errors.
fn judged(what: &str, answer: &Answer, values: &Values) -> Result<Verdict> {
    match (answer.fault(), answer.status.as_u16()) {
        (Some(fault), 400 | 403 | 404 | 409 | 412) if fault != Fault::default() => Ok(verdict_of(&fault, values)),
        _ => Err(refused(what, answer)),
    }
}
