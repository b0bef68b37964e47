//! Bulk API 2.0: jobs that take time. They go on whenever the org is asked anything, up to the time of the question.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::answer::{Answer, ApiError, Handled, datetime};
use super::store::Cell;
use super::write::Writer;
use super::{Call, Org, csv, ids};

/// Rows that triggers see at a time.
const CHUNK: usize = 200;
/// Rows of a query that one step reads.
const QUERY_CHUNK: usize = 2_000;
/// Largest upload.
const UPLOAD_BYTES_MAX: usize = 100 * 1024 * 1024;
/// An open job is given up after this.
const OPEN_MS_MAX: i64 = 24 * 3_600_000;
/// Longest header row, in characters.
const HEADER_MAX: usize = 32_000;

/// The org's jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Jobs {
    all: BTreeMap<String, Job>,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    UploadComplete,
    InProgress,
    JobComplete,
    Failed,
    Aborted,
}

#[derive(Debug, Clone)]
struct Job {
    id: String,
    is_query: bool,
    object: String,
    table: usize,
    operation: String,
    key: Option<usize>,
    key_name: String,
    state: State,
    created: i64,
    changed: i64,
    version: u32,
    crlf: bool,
    delimiter: char,
    delimiter_name: String,
    user: String,
    data: Option<String>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    done: usize,
    next_at: i64,
    /// Row, id, whether it is new.
    succeeded: Vec<(usize, String, bool)>,
    /// Row, id, what is wrong.
    failed: Vec<(usize, String, String)>,
    error: Option<String>,
    statement: String,
    total: usize,
}

impl Org {
    pub(super) fn bulk(&mut self, call: &Call<'_>) -> Handled {
        let kind = call.path.get(1).copied().unwrap_or_default();
        let is_query = match kind {
            "ingest" => false,
            "query" => true,
            _ => return Err(ApiError::not_found()),
        };
        match (call.method, call.path.get(2..).unwrap_or_default()) {
            ("POST", []) if is_query => self.create_query_job(call),
            ("POST", []) => self.create_ingest_job(call),
            ("GET", []) => {
                let own = self.jobs.all.values().filter(|job| job.is_query == is_query);
                let all: Vec<Value> = own.map(Job::told).collect();
                Ok(Answer::json(200, &json!({"done": true, "records": all, "nextRecordsUrl": null})))
            }
            (method, [id, rest @ ..]) => {
                let id = ids::full(id).ok_or_else(ApiError::not_found)?;
                let job = self.jobs.all.get_mut(&id).filter(|job| job.is_query == is_query);
                let job = job.ok_or_else(ApiError::not_found)?;
                match (method, rest) {
                    ("GET", []) => Ok(Answer::json(200, &job.told())),
                    ("DELETE", []) => {
                        if matches!(job.state, State::UploadComplete | State::InProgress) {
                            return Err(ApiError::bad("INVALIDJOBSTATE", "the job has not ended"));
                        }
                        self.jobs.all.remove(&id);
                        Ok(Answer::empty(204))
                    }
                    ("PATCH", []) => {
                        let body = call.json()?;
                        let wanted = body.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
                        self.set_state(call.now, &id, &wanted)
                    }
                    ("PUT", ["batches"]) => job.upload(call),
                    ("GET", ["results"]) if is_query => job.page(call),
                    ("GET", ["successfulResults"]) => Ok(job.successful()),
                    ("GET", ["failedResults"]) => Ok(job.failures()),
                    ("GET", ["unprocessedrecords"]) => Ok(job.unprocessed()),
                    _ => Err(ApiError::not_found()),
                }
            }
            _ => Err(ApiError::new(405, "METHOD_NOT_ALLOWED", "HTTP Method not allowed.")),
        }
    }

    fn new_job(&mut self, call: &Call<'_>, body: &Value) -> Handled<Job> {
        let text = |name: &str, other: &str| body.get(name).and_then(Value::as_str).unwrap_or(other).to_owned();
        let delimiter_name = text("columnDelimiter", "COMMA");
        let delimiter = match delimiter_name.as_str() {
            "COMMA" => ',',
            "SEMICOLON" => ';',
            "TAB" => '\t',
            "PIPE" => '|',
            "CARET" => '^',
            "BACKQUOTE" => '`',
            _ => return Err(ApiError::bad("INVALIDJOB", "columnDelimiter is not known")),
        };
        let crlf = match text("lineEnding", "LF").as_str() {
            "LF" => false,
            "CRLF" => true,
            _ => return Err(ApiError::bad("INVALIDJOB", "lineEnding is not known")),
        };
        self.jobs.next += 1;
        Ok(Job {
            id: ids::make("750", self.jobs.next),
            is_query: false,
            object: String::new(),
            table: 0,
            operation: text("operation", ""),
            key: None,
            key_name: String::new(),
            state: State::Open,
            created: call.now,
            changed: call.now,
            version: call.version,
            crlf,
            delimiter,
            delimiter_name,
            user: call.caller.user.clone(),
            data: None,
            header: Vec::new(),
            rows: Vec::new(),
            done: 0,
            next_at: 0,
            succeeded: Vec::new(),
            failed: Vec::new(),
            error: None,
            statement: String::new(),
            total: 0,
        })
    }

    fn create_ingest_job(&mut self, call: &Call<'_>) -> Handled {
        let body = call.json()?;
        let mut job = self.new_job(call, &body)?;
        let object = body.get("object").and_then(Value::as_str).unwrap_or_default();
        let unknown =
            || ApiError::bad("INVALIDENTITY", format!("Entity '{object}' is not supported to use PKChunking."));
        job.table = self.table_at(object).ok_or_else(unknown)?;
        job.object.clone_from(&self.tables[job.table].kind.name);
        match job.operation.as_str() {
            "insert" | "update" | "delete" | "hardDelete" => {}
            "upsert" => {
                let name = body.get("externalIdFieldName").and_then(Value::as_str).unwrap_or_default();
                let at = self.external(job.table, name).map_err(|_| {
                    ApiError::bad(
                        "INVALIDJOB",
                        format!("InvalidJob : Field name provided, {name} does not match an External ID for {object}"),
                    )
                })?;
                job.key = Some(at);
                name.clone_into(&mut job.key_name);
            }
            _ => return Err(ApiError::bad("INVALIDJOB", "InvalidJob : operation is not supported")),
        }
        let mut told = job.told();
        told["contentUrl"] = json!(format!("services/data/v{}.0/jobs/ingest/{}/batches", call.version, job.id));
        self.jobs.all.insert(job.id.clone(), job);
        Ok(Answer::json(self.settings.bulk_created_status, &told))
    }

    fn create_query_job(&mut self, call: &Call<'_>) -> Handled {
        let body = call.json()?;
        let mut job = self.new_job(call, &body)?;
        if !matches!(job.operation.as_str(), "query" | "queryAll") {
            return Err(ApiError::bad("INVALIDJOB", "operation has to be query or queryAll"));
        }
        job.is_query = true;
        job.statement = body.get("query").and_then(Value::as_str).unwrap_or_default().to_owned();
        let bound = self.bind(&job.statement)?;
        if Self::selects_compound(&bound) {
            return Err(ApiError::bad("API_ERROR", "Selecting compound data not supported in Bulk Query"));
        }
        if bound.columns.is_empty() {
            return Err(ApiError::bad("API_ERROR", "Aggregate queries are not supported in Bulk Query"));
        }
        job.table = bound.table;
        job.object.clone_from(&self.tables[job.table].kind.name);
        job.state = State::UploadComplete;
        job.next_at = call.now + self.pace().0;
        let told = job.told();
        self.jobs.all.insert(job.id.clone(), job);
        Ok(Answer::json(200, &told))
    }

    fn pace(&self) -> (i64, i64) {
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(0);
        (ms(self.settings.bulk.queue_ms), ms(self.settings.bulk.chunk_ms))
    }

    fn set_state(&mut self, now: i64, id: &str, wanted: &str) -> Handled {
        let queue_ms = self.pace().0;
        let Some(job) = self.jobs.all.get_mut(id) else { return Err(ApiError::not_found()) };
        match (wanted, job.state) {
            ("UploadComplete", State::Open) if !job.is_query => {
                job.state = State::UploadComplete;
                job.next_at = now + queue_ms;
            }
            ("Aborted", State::Open | State::UploadComplete | State::InProgress) => job.state = State::Aborted,
            _ => {
                return Err(ApiError::bad("INVALIDJOBSTATE", format!("Transitioning to {wanted} is not allowed")));
            }
        }
        job.changed = now;
        Ok(Answer::json(200, &job.told()))
    }

    /// Does what the jobs would have done by now.
    pub(super) fn work_on_jobs(&mut self, now: i64) {
        let due = |job: &Job| match job.state {
            State::UploadComplete | State::InProgress => job.next_at <= now,
            State::Open => now - job.created > OPEN_MS_MAX,
            _ => false,
        };
        let mut todo: Vec<String> = self.jobs.all.values().filter(|job| due(job)).map(|job| job.id.clone()).collect();
        while let Some(id) = todo.pop() {
            let Some(mut job) = self.jobs.all.remove(&id) else { continue };
            while due(&job) {
                self.step(&mut job);
            }
            self.jobs.all.insert(id, job);
        }
    }

    fn step(&mut self, job: &mut Job) {
        let at = job.next_at;
        job.changed = at;
        match job.state {
            State::Open => job.state = State::Aborted,
            State::UploadComplete if job.is_query => {
                job.state = State::InProgress;
                job.total = match self.bind(&job.statement) {
                    Ok(bound) => self.run(&bound, job.operation == "queryAll", at).len(),
                    Err(_) => 0,
                };
                let chunks = job.total.div_ceil(QUERY_CHUNK).max(1);
                job.next_at = at + self.pace().1.saturating_mul(i64::try_from(chunks).unwrap_or(1));
            }
            State::UploadComplete => {
                job.state = State::InProgress;
                job.next_at = at + self.pace().1;
                if let Err(error) = self.open_rows(job) {
                    job.state = State::Failed;
                    job.error = Some(error);
                }
            }
            State::InProgress if job.is_query => match self.bind(&job.statement) {
                Ok(bound) => {
                    job.header = bound.columns.iter().map(|path| self.column_name(path)).collect();
                    let ids = self.run(&bound, job.operation == "queryAll", at);
                    let own = &self.tables[bound.table];
                    job.rows = (ids.iter())
                        .filter_map(|id| own.records.get(id)?.seen_by_query(at))
                        .map(|cells| {
                            let text =
                                |path| self.reach(path, cells, at).map(|cell: Cell| cell.plain()).unwrap_or_default();
                            bound.columns.iter().map(text).collect()
                        })
                        .collect();
                    job.done = job.rows.len();
                    job.state = State::JobComplete;
                }
                Err(error) => {
                    job.error = Some(format!("{} : {}", error.code, error.message));
                    job.state = State::Failed;
                }
            },
            _ if self.settings.bulk.fail_after.is_some_and(|rows| job.done >= rows) => {
                job.state = State::Failed;
                job.error = Some("InternalServerError : an unexpected error occurred".to_owned());
            }
            _ => {
                let writer = Writer { now: at, user: job.user.clone(), person: false, allow_duplicates: false };
                let end = (job.done + CHUNK).min(job.rows.len());
                for row in job.done..end {
                    let values = values_of(&job.header, &job.rows[row]);
                    match self.save_row(job.table, job.key, &job.operation, &values, &writer) {
                        Ok((id, created)) => job.succeeded.push((row, id, created.unwrap_or(false))),
                        Err(mut error) => {
                            if error.code == "NOT_FOUND" {
                                error = ApiError::bad("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id");
                            }
                            let known = values.get("Id").and_then(Value::as_str).unwrap_or_default().to_owned();
                            job.failed.push((row, known, error.row()));
                        }
                    }
                }
                job.done = end;
                job.next_at = at + self.pace().1.max(1);
                if end == job.rows.len() {
                    job.state = State::JobComplete;
                    // Results come in no order that anybody could count on.
                    self.rng.shuffle(&mut job.succeeded);
                    self.rng.shuffle(&mut job.failed);
                }
            }
        }
    }

    fn column_name(&self, path: &super::eval::Path) -> String {
        let names: Vec<&str> = (path.steps.iter().enumerate())
            .filter_map(|(at, (table, field))| {
                let field = self.tables[*table].field(*field)?;
                if at + 1 == path.steps.len() { Some(field.name.as_str()) } else { field.relationship.as_deref() }
            })
            .collect();
        names.join(".")
    }

    /// Reads the upload; the whole job fails if it cannot be read.
    fn open_rows(&self, job: &mut Job) -> Result<(), String> {
        let text = job.data.take().unwrap_or_default();
        if job.crlf != text.contains("\r\n") && text.contains('\n') {
            let ending = if job.crlf { "CRLF" } else { "LF" };
            return Err(format!(
                "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {ending}"
            ));
        }
        let rows = csv::read(&text, job.delimiter)
            .map_err(|_| "InvalidBatch : The 'content' is not a valid CSV file".to_owned())?;
        let mut rows = rows.into_iter();
        job.header = rows.next().ok_or_else(|| "InvalidBatch : The 'content' is empty".to_owned())?;
        if job.header.iter().map(|name| name.chars().count() + 1).sum::<usize>() > HEADER_MAX {
            return Err("InvalidBatch : header row is too long".to_owned());
        }
        job.rows = rows.collect();
        let own = &self.tables[job.table];
        for name in &job.header {
            let parent = name.split_once('.').map(|(parent, _)| parent);
            let known =
                match parent {
                    None => own.at(name).is_some_and(|at| !self.is_hidden(job.table, at)),
                    Some(parent) => own.kind.fields.iter().any(|field| {
                        field.relationship.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(parent))
                    }),
                };
            if !known {
                return Err(format!("InvalidBatch : Field name not found : {name}"));
            }
        }
        Ok(())
    }
}

/// A row as the body of a write: empty cells are left out, `#N/A` is null.
fn values_of(header: &[String], row: &[String]) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, cell) in header.iter().zip(row) {
        let value = match cell.as_str() {
            "" => continue,
            "#N/A" => Value::Null,
            text => json!(text),
        };
        match name.split_once('.') {
            Some((parent, field)) => {
                all.insert(parent.to_owned(), json!({ field: value }));
            }
            None => {
                let name = if name.eq_ignore_ascii_case("id") { "Id" } else { name };
                all.insert(name.to_owned(), value);
            }
        }
    }
    all
}

impl Job {
    fn told(&self) -> Value {
        let state = match self.state {
            State::Open => "Open",
            State::UploadComplete => "UploadComplete",
            State::InProgress => "InProgress",
            State::JobComplete => "JobComplete",
            State::Failed => "Failed",
            State::Aborted => "Aborted",
        };
        let mut all = json!({"id": self.id, "operation": self.operation, "object": self.object,
            "createdById": self.user, "createdDate": datetime(self.created), "systemModstamp": datetime(self.changed),
            "state": state, "concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": f64::from(self.version),
            "jobType": if self.is_query { "V2Query" } else { "V2Ingest" },
            "lineEnding": if self.crlf { "CRLF" } else { "LF" }, "columnDelimiter": self.delimiter_name});
        if self.key.is_some() {
            all["externalIdFieldName"] = json!(self.key_name);
        }
        if !matches!(self.state, State::Open | State::UploadComplete) {
            all["numberRecordsProcessed"] = json!(self.done);
            all["retries"] = json!(0);
            all["totalProcessingTime"] = json!(self.changed - self.created);
            if !self.is_query {
                all["numberRecordsFailed"] = json!(self.failed.len());
                all["apiActiveProcessingTime"] = json!(self.changed - self.created);
                all["apexProcessingTime"] = json!(0);
            }
        }
        if let Some(error) = &self.error {
            all["errorMessage"] = json!(error);
        }
        all
    }

    fn upload(&mut self, call: &Call<'_>) -> Handled {
        if self.state != State::Open || self.is_query {
            return Err(ApiError::bad("INVALIDJOBSTATE", "the job does not take data"));
        }
        if self.data.is_some() {
            return Err(ApiError::bad("INVALIDJOBSTATE", "Found multiple contents for job: one upload per job"));
        }
        if !call.header("content-type").is_some_and(|text| text.starts_with("text/csv")) {
            return Err(ApiError::new(415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type has to be text/csv"));
        }
        if call.body.len() > UPLOAD_BYTES_MAX {
            return Err(ApiError::new(413, "REQUEST_ENTITY_TOO_LARGE", "the upload is too large"));
        }
        let text = String::from_utf8(call.body.to_vec())
            .map_err(|_| ApiError::bad("INVALIDBATCH", "the upload is not UTF-8"))?;
        self.data = Some(text);
        Ok(Answer::empty(201))
    }

    fn line_end(&self) -> &'static str {
        if self.crlf { "\r\n" } else { "\n" }
    }

    fn table(&self, first: &[&str], rows: impl Iterator<Item = (Vec<String>, usize)>) -> Answer {
        let mut out = String::new();
        let names = first.iter().copied().chain(self.header.iter().map(String::as_str));
        csv::write(&mut out, names, self.delimiter, self.line_end());
        for (lead, row) in rows {
            let cells =
                lead.iter().map(String::as_str).chain(self.rows.get(row).into_iter().flatten().map(String::as_str));
            csv::write(&mut out, cells, self.delimiter, self.line_end());
        }
        Answer::bytes(200, "text/csv", out)
    }

    fn successful(&self) -> Answer {
        let rows = self.succeeded.iter().map(|(row, id, created)| (vec![id.clone(), created.to_string()], *row));
        self.table(&["sf__Id", "sf__Created"], rows)
    }

    fn failures(&self) -> Answer {
        let rows = self.failed.iter().map(|(row, id, error)| {
            let id = if self.version >= 53 { id.clone() } else { String::new() };
            (vec![id, error.clone()], *row)
        });
        self.table(&["sf__Id", "sf__Error"], rows)
    }

    fn unprocessed(&self) -> Answer {
        let ended = matches!(self.state, State::Failed | State::Aborted);
        let rows = (self.done..self.rows.len()).filter(|_| ended).map(|row| (Vec::new(), row));
        self.table(&[], rows)
    }

    fn page(&self, call: &Call<'_>) -> Handled {
        if call.version != self.version {
            return Err(ApiError::new(409, "API_VERSION_MISMATCH", "results are read with the version of the job"));
        }
        if self.state != State::JobComplete {
            return Err(ApiError::bad("INVALIDJOBSTATE", "the job has no results"));
        }
        let bad = || ApiError::bad("INVALID_QUERY_LOCATOR", "invalid locator");
        let from: usize = match call.parameter("locator") {
            None => 0,
            Some(text) => {
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
                String::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)?
            }
        };
        let most = call.parameter("maxRecords").and_then(|text| text.parse().ok()).unwrap_or(50_000_usize).max(1);
        let end = (from + most).min(self.rows.len());
        let answer = self.table(&[], (from..end).map(|row| (Vec::new(), row)));
        let locator = if end < self.rows.len() { URL_SAFE_NO_PAD.encode(end.to_string()) } else { "null".to_owned() };
        let count = end.saturating_sub(from);
        Ok(answer.with("sforce-locator", locator).with("sforce-numberofrecords", count.to_string()))
    }
}
