//! Bulk API 2.0, for many records: jobs that take seconds to hours and are never waited for. Each step is one call (or three), and what has to be
//! remembered between steps is small: it is stored by the caller, and a later invocation goes on.
//!
//! Ingest: [`Org::start_ingest`] → store the job → [`Org::upload`] → [`Org::poll`] until [`JobState::is_over`] → [`Org::ingest_results`] →
//! [`Org::delete_job`]. Query: [`Org::start_query`] → store → [`Org::poll`] → [`Org::query_results`], page after page.
//! Rows come back in any order: they are told apart by a column of their own, such as the external id.

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    csv,
    fault::Fault,
    model::{SalesforceId, Values},
    org::{Answer, Call, Org, refused},
    soql::{Name, Select},
    write::{Verdict, verdict_of},
};
use crate::{Error, ErrorKind, Result, clock::Deadline, codes};

/// Bytes of one upload; Salesforce takes 100 MB, and an invocation has to hold them.
pub const UPLOAD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Rows of a page of results, so that a page fits into the memory of an invocation.
pub const PAGE_ROWS: u32 = 20_000;

/// What clears a field in an upload. An empty cell leaves it as it is.
const NULL: &str = "#N/A";

/// A job, as it is stored between steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: SalesforceId,
    /// What it does.
    pub kind: JobKind,
    /// The API version it was made with: results are only given to the same.
    pub api_version: String,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Writes.
    Ingest,
    /// Reads.
    Query,
}

impl JobKind {
    fn path(self) -> &'static str {
        match self {
            Self::Ingest => "jobs/ingest",
            Self::Query => "jobs/query",
        }
    }
}

/// What an ingest job does with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Changes, by the column `Id`.
    Update,
    /// Creates or changes, by this external-id column.
    Upsert {
        /// The external-id field.
        key: &'a str,
    },
    /// Puts into the recycle bin, by the column `Id`.
    Delete,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum JobState {
    /// Waits for its upload, a day at most.
    Open,
    /// Waits for its turn.
    UploadComplete,
    /// Works.
    InProgress,
    /// Done; rows may have failed all the same.
    JobComplete,
    /// Given up; some rows may have been written.
    Failed,
    /// Stopped from outside; some rows may have been written.
    Aborted,
}

impl JobState {
    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        matches!(self, Self::JobComplete | Self::Failed | Self::Aborted)
    }
}

/// What a job says of itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// Where it is.
    pub state: JobState,
    /// Rows so far, failed ones among them.
    #[serde(default)]
    pub number_records_processed: u64,
    /// Rows that failed.
    #[serde(default)]
    pub number_records_failed: u64,
    /// Why the job failed. May quote the file's header, not its rows.
    pub error_message: Option<String>,
}

/// An upload being made: a header and its rows.
#[derive(Debug, Clone)]
pub struct Upload {
    columns: Vec<Name>,
    bytes: Vec<u8>,
    rows: usize,
}

/// What became of a row: the row's key column, and its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowVerdict {
    /// The cell of the column that was asked for.
    pub key: String,
    /// What became of it; [`Verdict::Later`] for rows that the job did not come to.
    pub verdict: Verdict,
}

/// A page of a query job's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryPage {
    /// Field names, paths of parents' among them.
    pub columns: Vec<String>,
    /// Cells as text. Blank and absent look the same here.
    pub rows: Vec<Vec<String>>,
    /// What asks for the next page; `None`: this was the last.
    pub next: Option<String>,
}

impl Upload {
    /// An upload with these columns. The key's column, or `Id`, is among them.
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let columns: Vec<Name> = columns.into_iter().map(Name::new).collect::<Result<_>>()?;
        let mut bytes = Vec::new();
        csv::write(&mut bytes, columns.iter().map(Name::as_str));
        Ok(Self { columns, bytes, rows: 0 })
    }

    /// Adds a row: `null` clears, what is absent stays as it is. `false`, and nothing is added, if the row cannot be said in CSV (a text
    /// that is `#N/A`, an object, a field without a column) or the upload is full: such rows go another way.
    pub fn push(&mut self, values: &Values) -> bool {
        let known = |name: &String| self.columns.iter().any(|column| column.as_str().eq_ignore_ascii_case(name));
        if !values.keys().all(known) {
            return false;
        }
        let mut cells = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let value = values.iter().find(|(name, _)| name.eq_ignore_ascii_case(column.as_str()));
            let cell = match value.map(|(_, value)| value) {
                None => String::new(),
                Some(Value::Null) => NULL.to_owned(),
                // Blank text clears, as it does elsewhere; an empty cell would leave the old value.
                Some(Value::String(text)) if text.is_empty() => NULL.to_owned(),
                Some(Value::String(text)) if text.trim() == NULL => return false,
                Some(Value::String(text)) => text.replace('\r', ""),
                Some(Value::Bool(value)) => value.to_string(),
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Array(_) | Value::Object(_)) => return false,
            };
            cells.push(cell);
        }
        let before = self.bytes.len();
        csv::write(&mut self.bytes, cells.iter().map(String::as_str));
        if self.bytes.len() > UPLOAD_BYTES_MAX {
            self.bytes.truncate(before);
            return false;
        }
        self.rows += 1;
        true
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl Org {
    /// Makes an ingest job that waits for its upload. Store it before the next step; one whose answer was lost waits in vain and ends by itself.
    pub async fn start_ingest(&self, object: &str, operation: Operation<'_>, deadline: Deadline) -> Result<Job> {
        let object = Name::new(object)?;
        let mut body =
            json!({"object": object.as_str(), "contentType": "CSV", "lineEnding": "LF", "columnDelimiter": "COMMA"});
        body["operation"] = match operation {
            Operation::Update => json!("update"),
            Operation::Delete => json!("delete"),
            Operation::Upsert { key } => {
                body["externalIdFieldName"] = json!(Name::new(key)?.as_str());
                json!("upsert")
            }
        };
        self.start(JobKind::Ingest, &body, deadline).await
    }

    /// Makes a query job, which begins at once. `all`: also what is in the recycle bin.
    pub async fn start_query(&self, select: &Select, all: bool, deadline: Deadline) -> Result<Job> {
        let operation = if all { "queryAll" } else { "query" };
        let body = json!({"operation": operation, "query": select.to_string(), "columnDelimiter": "COMMA", "lineEnding": "LF"});
        self.start(JobKind::Query, &body, deadline).await
    }

    async fn start(&self, kind: JobKind, body: &Value, deadline: Deadline) -> Result<Job> {
        #[derive(Deserialize)]
        struct Made {
            id: SalesforceId,
        }
        // Twice does no harm: a job without an upload does nothing, and a query only reads.
        let answer = self.call(Call::new(Method::POST, kind.path(), body.to_string()), deadline).await?;
        let made: Made = answer.json(&format!("POST {}", kind.path()))?;
        Ok(Job { id: made.id, kind, api_version: self.parts.settings.api_version.clone() })
    }

    /// Uploads the rows and lets the job begin. Can be repeated after any error: a job takes one upload, and begins once. If it cannot
    /// be uploaded for good, the job is aborted.
    pub async fn upload(&self, job: &Job, upload: Upload, deadline: Deadline) -> Result<()> {
        let path = path(job, "/batches");
        let mut call = Call::new(Method::PUT, path, upload.bytes);
        call.content_type = "text/csv";
        let what = "PUT jobs/ingest/batches";
        let answer = self.ask(call, deadline).await?;
        // A first attempt whose answer was lost: the job has its rows.
        if !answer.status.is_success() && !is_job_state(&answer) {
            self.abort(job, deadline).await?;
            return Err(refused(what, &answer));
        }
        let call = Call::new(Method::PATCH, self::path(job, ""), json!({"state": "UploadComplete"}).to_string());
        let answer = self.ask(call, deadline).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let state = self.poll(job, deadline).await?.state;
        match state {
            JobState::Open | JobState::Aborted => Err(refused("PATCH jobs/ingest", &answer)),
            _ => Ok(()),
        }
    }

    /// Stops a job that has not ended; `false` if it had.
    pub async fn abort(&self, job: &Job, deadline: Deadline) -> Result<bool> {
        let call = Call::new(Method::PATCH, path(job, ""), json!({"state": "Aborted"}).to_string());
        let answer = self.ask(call, deadline).await?;
        if answer.status.is_success() {
            return Ok(true);
        }
        if is_job_state(&answer) { Ok(false) } else { Err(refused("PATCH jobs", &answer)) }
    }

    /// Where a job is. `NotFound` if it is deleted, or older than a week.
    pub async fn poll(&self, job: &Job, deadline: Deadline) -> Result<JobStatus> {
        self.call(Call::get(path(job, "")), deadline).await?.json("GET jobs")
    }

    /// What became of the rows of an ingest job that is over; `key`: the column by which they are told apart.
    pub async fn ingest_results(&self, job: &Job, key: &str, deadline: Deadline) -> Result<Vec<RowVerdict>> {
        let mut all = Vec::new();
        for part in ["successfulResults", "failedResults", "unprocessedrecords"] {
            let answer = self.csv(job, &format!("/{part}"), Vec::new(), deadline).await?;
            let rows = csv::read(&answer.body).ok_or_else(|| unreadable(part))?;
            let Some((header, rows)) = rows.split_first() else { continue };
            let at = |name: &str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
            let own = at(key).or_else(|| at("sf__Id")).ok_or_else(|| unreadable(part))?;
            let (id, created, error) = (at("sf__Id"), at("sf__Created"), at("sf__Error"));
            for row in rows {
                let cell = |at: Option<usize>| at.and_then(|at| row.get(at)).map(String::as_str).unwrap_or_default();
                let verdict = match part {
                    "successfulResults" => match SalesforceId::parse(cell(id)) {
                        Ok(id) => Verdict::Written { id, created: cell(created) == "true" },
                        Err(_) => Verdict::Unknown,
                    },
                    "failedResults" => {
                        let sent: Values = header
                            .iter()
                            .zip(row)
                            .filter(|(name, _)| !name.starts_with("sf__"))
                            .map(|(name, text)| (name.clone(), json!(text)))
                            .collect();
                        verdict_of(&Fault::of_row(cell(error)), &sent)
                    }
                    _ => Verdict::Later(super::write::Refusal {
                        code: "UNPROCESSED".to_owned(),
                        fields: Vec::new(),
                        text: "the job ended before it came to the row".to_owned(),
                    }),
                };
                all.push(RowVerdict { key: cell(Some(own)).to_owned(), verdict });
            }
        }
        Ok(all)
    }

    /// A page of a query job that is complete; `locator` is `None` for the first, then [`QueryPage::next`]. Can be asked again.
    pub async fn query_results(&self, job: &Job, locator: Option<&str>, deadline: Deadline) -> Result<QueryPage> {
        let mut query = vec![("maxRecords", PAGE_ROWS.to_string())];
        query.extend(locator.map(|locator| ("locator", locator.to_owned())));
        let answer = self.csv(job, "/results", query, deadline).await?;
        let mut rows = csv::read(&answer.body).ok_or_else(|| unreadable("results"))?.into_iter();
        let columns = rows.next().unwrap_or_default();
        let rows: Vec<Vec<String>> = rows.collect();
        let told = answer.header("sforce-numberofrecords").and_then(|text| text.parse::<usize>().ok());
        if told.is_some_and(|told| told != rows.len()) || rows.iter().any(|row| row.len() != columns.len()) {
            return Err(unreadable("results"));
        }
        // At the end it is the word `null`.
        let next =
            answer.header("sforce-locator").filter(|text| !text.is_empty() && *text != "null").map(str::to_owned);
        Ok(QueryPage { columns, rows, next })
    }

    /// Removes a job that is over, and its results. One that is gone already is fine.
    pub async fn delete_job(&self, job: &Job, deadline: Deadline) -> Result<()> {
        let answer = self.ask(Call::new(Method::DELETE, path(job, ""), Bytes::new()), deadline).await?;
        if answer.status.is_success() || answer.status.as_u16() == 404 {
            Ok(())
        } else {
            Err(refused("DELETE jobs", &answer))
        }
    }

    async fn csv(
        &self,
        job: &Job,
        rest: &str,
        query: Vec<(&'static str, String)>,
        deadline: Deadline,
    ) -> Result<Answer> {
        let mut call = Call::get(path(job, rest));
        call.accept = "text/csv";
        call.query = query;
        self.call(call, deadline).await
    }
}

/// From the root, with the version the job was made with.
fn path(job: &Job, rest: &str) -> String {
    format!("/services/data/v{}/{}/{}{rest}", job.api_version, job.kind.path(), job.id)
}

fn is_job_state(answer: &Answer) -> bool {
    answer.fault().is_some_and(|fault| fault.code == "INVALIDJOBSTATE")
}

fn unreadable(what: &str) -> Error {
    let message = format!("the {what} of a Bulk job cannot be read");
    Error::new(ErrorKind::Unknown, codes::SALESFORCE_ANSWER_UNREADABLE, message)
}
