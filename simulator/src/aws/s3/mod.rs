//! S3, path style, as far as moving files needs it: conditional and ranged reads of one version, uploads whole and in
//! parts, listing, and an event for each object created.

mod body;
mod kept;
mod request;
mod store;
mod xml;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use md5::{Digest, Md5};
use tokio::sync::mpsc;

pub(crate) use request::encode_key;
pub use store::Generator;

use self::{
    body::{Received, receive, whole},
    kept::{Journal, file_name},
    request::{Operation, Range, S3Request, condition_fails, quoted},
    store::{Blob, Bucket, Content, Part, Upload, Version},
    xml::{Xml, element, elements},
};
use super::{
    Call, Fault, Service, Shared,
    events::ObjectCreated,
    hex,
    http::{Answer, Body, Closed, Handler, empty, full, header, read_all, respond},
    lock,
};

/// Keys in one answer of a listing, as S3 bounds it.
const LIST_KEYS_MAX: usize = 1000;
/// Parts of an upload, as S3 bounds them.
const PARTS_MAX: u32 = 10_000;
/// Bytes of a key, as S3 bounds it.
const KEY_BYTES_MAX: usize = 1024;
/// Bytes of an XML document a client sends: a list of 10,000 parts is about 2 MB.
const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where bodies are kept.
#[derive(Debug, Clone, Default)]
pub enum Bodies {
    /// In memory.
    #[default]
    Memory,
    /// In files of this folder, one a body, streamed in and out. The index is in memory: a new cloud starts empty.
    Folder(PathBuf),
    /// In files of this folder, with a journal, so that the next cloud finds them. Two clouds must not share a folder.
    Kept(PathBuf),
}

/// An object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Entity tag, without quotes.
    pub etag: String,
    /// When it was made.
    pub modified: jiff::Timestamp,
}

/// An error answer of S3.
#[derive(Debug, Clone)]
pub(crate) struct S3Error {
    status: u16,
    code: String,
    message: String,
    headers: Vec<(String, String)>,
}

impl S3Error {
    pub(crate) fn new(status: u16, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned(), headers: Vec::new() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn no_such_key() -> S3Error {
    S3Error::new(404, "NoSuchKey", "The specified key does not exist.")
}

fn no_such_bucket() -> S3Error {
    S3Error::new(404, "NoSuchBucket", "The specified bucket does not exist")
}

fn no_such_upload() -> S3Error {
    S3Error::new(404, "NoSuchUpload", "The specified upload does not exist.")
}

fn precondition_failed() -> S3Error {
    S3Error::new(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
}

type S3Result = Result<Response<Body>, S3Error>;

#[derive(Debug, Default)]
struct State {
    buckets: BTreeMap<String, Bucket>,
    uploads: BTreeMap<String, Upload>,
    sequence: u64,
    files: u64,
}

/// S3's state; tests may put and read objects without HTTP.
#[derive(Debug)]
pub struct S3 {
    shared: Arc<Shared>,
    bodies: Bodies,
    minimum_part_bytes: u64,
    state: Mutex<State>,
    /// Where objects outlive the cloud.
    journal: OnceLock<Journal>,
    created: mpsc::UnboundedSender<ObjectCreated>,
}

impl S3 {
    pub(crate) fn new(
        shared: Arc<Shared>,
        bodies: Bodies,
        minimum_part_bytes: u64,
        created: mpsc::UnboundedSender<ObjectCreated>,
    ) -> Self {
        Self { shared, bodies, minimum_part_bytes, state: Mutex::default(), journal: OnceLock::new(), created }
    }

    /// Finds what an earlier cloud kept. To be called once, before anything is served.
    pub(crate) fn load(&self) -> std::io::Result<()> {
        let Bodies::Kept(folder) = &self.bodies else { return Ok(()) };
        let (journal, loaded) = Journal::open(folder)?;
        let mut state = lock(&self.state);
        (state.buckets, state.sequence, state.files) = (loaded.buckets, loaded.sequence, loaded.files);
        let _ = self.journal.set(journal);
        Ok(())
    }

    /// Bodies that are kept stay from now on, although nobody holds them.
    pub(crate) fn close(&self) {
        if let Some(journal) = self.journal.get() {
            journal.close();
        }
    }

    /// Creates a bucket; one that is there stays as it is.
    pub fn create_bucket(&self, name: &str, versioned: bool) {
        let mut state = lock(&self.state);
        if state.buckets.contains_key(name) {
            return;
        }
        state.buckets.insert(name.to_owned(), Bucket::new(versioned));
        if let Some(journal) = self.journal.get() {
            journal.bucket(name, versioned);
        }
    }

    /// The objects under a prefix as they are now, in the order of their keys.
    pub fn list_objects(&self, bucket: &str, prefix: &str) -> Vec<Listed> {
        let state = lock(&self.state);
        let Some(bucket) = state.buckets.get(bucket) else { return Vec::new() };
        let under = bucket.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let current = under.filter_map(|(key, _)| Some((key, bucket.current(key)?)));
        current
            .map(|(key, version)| Listed {
                key: key.clone(),
                size: version.size,
                etag: version.etag.clone(),
                modified: version.modified,
            })
            .collect()
    }

    /// The buckets, in order.
    pub fn bucket_names(&self) -> Vec<String> {
        lock(&self.state).buckets.keys().cloned().collect()
    }

    /// Puts a copy of a file of this machine, with its event; where bodies are in files it is never in memory as a whole. `Ok(None)` if there
    /// is no such bucket.
    pub fn put_file(&self, bucket: &str, key: &str, path: &std::path::Path) -> std::io::Result<Option<ObjectCreated>> {
        let received = match self.file() {
            Some(blob) => body::copied(path, blob)?,
            None => whole(std::fs::read(path)?.into()),
        };
        Ok(self.put_received(bucket, key, received))
    }

    fn put_received(&self, bucket: &str, key: &str, received: Received) -> Option<ObjectCreated> {
        let Received { content, size, md5, crc32 } = received;
        self.commit(bucket, key, &HeaderMap::new(), "PutObject", |id, sequencer, modified| Version {
            id,
            content: Some(content),
            size,
            etag: hex(&md5),
            modified,
            sequencer,
            crc32: Some(crc32),
            headers: Vec::new(),
        })
        .ok()
    }

    /// Tells once more of the newest objects under a prefix, `limit` of them, oldest first: after a start with objects that were kept, for
    /// those whose event was lost with the queue. Whoever handled one before sees a repeat.
    pub fn announce(&self, bucket: &str, prefix: &str, limit: usize) {
        let mut all: Vec<ObjectCreated> = {
            let state = lock(&self.state);
            let Some(own) = state.buckets.get(bucket) else { return };
            let under = own.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
            let created = under.filter_map(|(key, _)| {
                let version = own.current(key)?;
                Some(ObjectCreated {
                    bucket: bucket.to_owned(),
                    key: key.clone(),
                    size: version.size,
                    etag: version.etag.clone(),
                    version_id: own.versioned.then(|| version.id.clone()),
                    sequencer: version.sequencer.clone(),
                    reason: "PutObject".to_owned(),
                    time: version.modified,
                })
            });
            created.collect()
        };
        all.sort_by(|a, b| a.sequencer.cmp(&b.sequencer));
        let skipped = all.len().saturating_sub(limit);
        for created in all.into_iter().skip(skipped) {
            let _ = self.created.send(created);
        }
    }

    /// Puts an object, with its event. `None` if there is no such bucket.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) -> Option<ObjectCreated> {
        self.put_received(bucket, key, whole(bytes.into()))
    }

    /// Puts an object of `size` bytes that are made when they are read, with its event. Its ETag is made up.
    pub fn put_generated(&self, bucket: &str, key: &str, size: u64, generator: Generator) -> Option<ObjectCreated> {
        self.commit(bucket, key, &HeaderMap::new(), "PutObject", |id, sequencer, modified| Version {
            etag: hex(&Md5::digest(format!("{key}/{size}/{sequencer}"))),
            id,
            content: Some(Content::Generated(generator)),
            size,
            modified,
            sequencer,
            crc32: None,
            headers: Vec::new(),
        })
        .ok()
    }

    /// The whole object as it is now, for small objects.
    pub fn read(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let version = lock(&self.state).buckets.get(bucket)?.current(key)?.clone();
        let content = version.content?;
        let mut whole = Vec::new();
        while (whole.len() as u64) < version.size {
            whole.extend_from_slice(&content.read(whole.len() as u64..version.size).ok()?);
        }
        Some(whole.into())
    }

    /// Keys that start with `prefix`, in order.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let state = lock(&self.state);
        let Some(bucket) = state.buckets.get(bucket) else { return Vec::new() };
        bucket.objects.keys().filter(|key| key.starts_with(prefix) && bucket.current(key).is_some()).cloned().collect()
    }

    /// Adds a version if the conditions in `headers` hold, and tells of it.
    fn commit(
        &self,
        bucket_name: &str,
        key: &str,
        headers: &HeaderMap,
        reason: &'static str,
        version: impl FnOnce(String, String, jiff::Timestamp) -> Version,
    ) -> Result<ObjectCreated, S3Error> {
        let time = self.shared.clock.now();
        let id = self.shared.letters(32);
        let mut state = lock(&self.state);
        state.sequence += 1;
        // S3's look like this: hex, growing for one key.
        let sequencer = format!("006{:015X}", state.sequence);
        state.files += 1;
        let number = state.files;
        let bucket = state.buckets.get_mut(bucket_name).ok_or_else(no_such_bucket)?;
        let current = bucket.current(key).map(|version| version.etag.as_str());
        if let Some(wanted) = header(headers, "if-match") {
            let current = current.ok_or_else(no_such_key)?;
            if condition_fails(wanted, current) {
                return Err(precondition_failed());
            }
        }
        if header(headers, "if-none-match").is_some() && current.is_some() {
            return Err(precondition_failed());
        }
        let id = if bucket.versioned { id } else { "null".to_owned() };
        let mut version = version(id, sequencer, time);
        if let Some(journal) = self.journal.get()
            && let Some(content) = version.content.take()
        {
            let failed = |error: std::io::Error| S3Error::new(500, "InternalError", &error.to_string());
            version.content = Some(journal.spill(number, content, version.size).map_err(failed)?);
            journal.version(bucket_name, key, &version);
        }
        let created = ObjectCreated {
            bucket: bucket_name.to_owned(),
            key: key.to_owned(),
            size: version.size,
            etag: version.etag.clone(),
            version_id: bucket.versioned.then(|| version.id.clone()),
            sequencer: version.sequencer.clone(),
            reason: reason.to_owned(),
            time,
        };
        bucket.push(key, version);
        drop(state);
        // Nobody listens once the cloud is being dropped.
        let _ = self.created.send(created.clone());
        Ok(created)
    }

    /// A file for a body, if bodies are kept in files.
    fn file(&self) -> Option<Blob> {
        let (Bodies::Folder(folder) | Bodies::Kept(folder)) = &self.bodies else { return None };
        let mut state = lock(&self.state);
        state.files += 1;
        let path = folder.join(file_name(state.files));
        Some(Blob { path, stays: self.journal.get().map(|journal| Arc::clone(journal.ends())) })
    }

    async fn act(&self, request: &S3Request, headers: &HeaderMap, body: Incoming, cut: Option<u64>) -> S3Result {
        let (bucket, key) = (request.bucket.as_str(), request.key.as_str());
        if key.len() > KEY_BYTES_MAX {
            return Err(S3Error::new(400, "KeyTooLongError", "Your key is too long"));
        }
        if !matches!(request.operation, Operation::CreateBucket | Operation::ListBuckets | Operation::Unknown)
            && !lock(&self.state).buckets.contains_key(bucket)
        {
            return Err(no_such_bucket());
        }
        match request.operation {
            Operation::GetObject | Operation::HeadObject => self.get(request, headers, cut),
            Operation::PutObject => {
                let received = receive(headers, body, self.file()).await?;
                self.put_object(bucket, key, headers, received)
            }
            Operation::CopyObject => self.copy(bucket, key, headers),
            Operation::DeleteObject => Ok(self.delete(bucket, key, request.query("versionId"))),
            Operation::DeleteObjects => {
                let document = document(body).await?;
                let mut xml = Xml::new("DeleteResult");
                for object in elements(&document, "Object") {
                    let key = element(object, "Key").unwrap_or_default();
                    self.delete(bucket, &key, element(object, "VersionId").as_deref());
                    xml.open("Deleted").text("Key", &key).close("Deleted");
                }
                Ok(xml_answer(xml.end("DeleteResult")))
            }
            Operation::ListObjectsV2 => self.list(request),
            Operation::CreateMultipartUpload => {
                let id = self.shared.letters(64);
                let upload = Upload {
                    bucket: bucket.to_owned(),
                    key: key.to_owned(),
                    headers: kept_headers(headers),
                    parts: BTreeMap::new(),
                };
                lock(&self.state).uploads.insert(id.clone(), upload);
                let mut xml = Xml::new("InitiateMultipartUploadResult");
                xml.text("Bucket", bucket).text("Key", key).text("UploadId", &id);
                Ok(xml_answer(xml.end("InitiateMultipartUploadResult")))
            }
            Operation::UploadPart => self.upload_part(request, headers, body).await,
            Operation::CompleteMultipartUpload => {
                let document = document(body).await?;
                self.complete(request, headers, &document)
            }
            Operation::AbortMultipartUpload => {
                let id = request.query("uploadId").unwrap_or_default();
                lock(&self.state).uploads.remove(id).map(|_| respond(204, &[], empty())).ok_or_else(no_such_upload)
            }
            Operation::CreateBucket => {
                if lock(&self.state).buckets.contains_key(bucket) {
                    return Err(S3Error::new(
                        409,
                        "BucketAlreadyOwnedByYou",
                        "Your previous request to create the named bucket succeeded and you already own it.",
                    ));
                }
                self.create_bucket(bucket, true);
                Ok(respond(200, &[("location", &format!("/{bucket}"))], empty()))
            }
            Operation::HeadBucket => Ok(respond(200, &[("x-amz-bucket-region", super::REGION)], empty())),
            Operation::DeleteBucket => {
                let mut state = lock(&self.state);
                if state.buckets.get(bucket).is_some_and(|bucket| !bucket.is_empty()) {
                    return Err(S3Error::new(409, "BucketNotEmpty", "The bucket you tried to delete is not empty"));
                }
                state.buckets.remove(bucket);
                if let Some(journal) = self.journal.get() {
                    journal.gone(bucket);
                }
                Ok(respond(204, &[], empty()))
            }
            Operation::ListBuckets => {
                let mut xml = Xml::new("ListAllMyBucketsResult");
                xml.open("Buckets");
                for name in lock(&self.state).buckets.keys() {
                    xml.open("Bucket").text("Name", name).close("Bucket");
                }
                xml.close("Buckets");
                Ok(xml_answer(xml.end("ListAllMyBucketsResult")))
            }
            Operation::GetBucketVersioning => {
                let versioned = lock(&self.state).buckets.get(bucket).is_some_and(|bucket| bucket.versioned);
                let mut xml = Xml::new("VersioningConfiguration");
                if versioned {
                    xml.text("Status", "Enabled");
                }
                Ok(xml_answer(xml.end("VersioningConfiguration")))
            }
            Operation::PutBucketVersioning => {
                let enabled = element(&document(body).await?, "Status").is_some_and(|status| status == "Enabled");
                if let Some(bucket) = lock(&self.state).buckets.get_mut(bucket) {
                    bucket.versioned = enabled;
                }
                if let Some(journal) = self.journal.get() {
                    journal.bucket(bucket, enabled);
                }
                Ok(respond(200, &[], empty()))
            }
            Operation::PutBucketNotificationConfiguration => {
                let document = document(body).await?;
                if let Some(bucket) = lock(&self.state).buckets.get_mut(bucket) {
                    bucket.documents.insert("notification".to_owned(), document.into());
                }
                Ok(respond(200, &[], empty()))
            }
            Operation::GetBucketNotificationConfiguration => {
                let kept = lock(&self.state)
                    .buckets
                    .get(bucket)
                    .and_then(|bucket| bucket.documents.get("notification").cloned())
                    .unwrap_or_else(|| "<NotificationConfiguration/>".into());
                Ok(respond(200, &[("content-type", "application/xml")], full(kept)))
            }
            Operation::Unknown => Err(S3Error::new(
                501,
                "NotImplemented",
                "A header or operation you provided implies functionality that is not simulated",
            )),
        }
    }

    fn get(&self, request: &S3Request, headers: &HeaderMap, cut: Option<u64>) -> S3Result {
        let version = {
            let state = lock(&self.state);
            let bucket = state.buckets.get(&request.bucket).ok_or_else(no_such_bucket)?;
            let versions = bucket.objects.get(&request.key).ok_or_else(no_such_key)?;
            match request.query("versionId") {
                Some(id) => versions
                    .iter()
                    .find(|version| version.id == id)
                    .cloned()
                    .ok_or_else(|| S3Error::new(404, "NoSuchVersion", "The specified version does not exist."))?,
                None => versions.last().cloned().ok_or_else(no_such_key)?,
            }
        };
        let Some(content) = version.content else {
            let error = match request.query("versionId") {
                Some(_) => S3Error::new(405, "MethodNotAllowed", "The specified method is not allowed."),
                None => no_such_key(),
            };
            return Err(error.with("x-amz-delete-marker", "true").with("x-amz-version-id", &version.id));
        };
        if header(headers, "if-match").is_some_and(|wanted| condition_fails(wanted, &version.etag)) {
            return Err(precondition_failed());
        }
        let etag = quoted(&version.etag);
        let mut answer: Vec<(&str, String)> = vec![
            ("etag", etag),
            ("last-modified", version.modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()),
            ("accept-ranges", "bytes".to_owned()),
            ("x-amz-version-id", version.id.clone()),
        ];
        if header(headers, "if-none-match").is_some_and(|wanted| !condition_fails(wanted, &version.etag)) {
            return Ok(respond(304, &pairs(&answer), empty()));
        }
        let (status, range) = match Range::parse(header(headers, "range"), version.size) {
            Range::Whole => (200, 0..version.size),
            Range::Part(range) => {
                answer.push((
                    "content-range",
                    format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), version.size),
                ));
                (206, range)
            }
            Range::Unsatisfiable => {
                return Err(S3Error::new(416, "InvalidRange", "The requested range is not satisfiable")
                    .with("content-range", &format!("bytes */{}", version.size)));
            }
        };
        if !version.headers.iter().any(|(name, _)| name == "content-type") {
            answer.push(("content-type", "binary/octet-stream".to_owned()));
        }
        answer.push(("content-length", (range.end - range.start).to_string()));
        if let (Some(crc32), 200, Some("ENABLED")) = (&version.crc32, status, header(headers, "x-amz-checksum-mode")) {
            answer.push(("x-amz-checksum-crc32", crc32.clone()));
            answer.push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
        }
        answer.extend(version.headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let body = match request.operation {
            Operation::HeadObject => empty(),
            _ => stream_body(content, range, cut),
        };
        Ok(respond(status, &pairs(&answer), body))
    }

    fn put_object(&self, bucket: &str, key: &str, headers: &HeaderMap, received: Received) -> S3Result {
        let Received { content, size, md5, crc32 } = received;
        let checksum = crc32.clone();
        let created = self.commit(bucket, key, headers, "PutObject", |id, sequencer, modified| Version {
            id,
            content: Some(content),
            size,
            etag: hex(&md5),
            modified,
            sequencer,
            crc32: Some(crc32),
            headers: kept_headers(headers),
        })?;
        let mut answer = vec![
            ("etag", quoted(&created.etag)),
            ("x-amz-checksum-crc32", checksum),
            ("x-amz-checksum-type", "FULL_OBJECT".to_owned()),
        ];
        answer.extend(created.version_id.map(|id| ("x-amz-version-id", id)));
        Ok(respond(200, &pairs(&answer), empty()))
    }

    fn copy(&self, bucket: &str, key: &str, headers: &HeaderMap) -> S3Result {
        let source = header(headers, "x-amz-copy-source").unwrap_or_default();
        let (path, id) = source.split_once("?versionId=").map_or((source, None), |(path, id)| (path, Some(id)));
        let path = percent_encoding::percent_decode_str(path.trim_start_matches('/')).decode_utf8_lossy();
        let (from_bucket, from_key) = path.split_once('/').unwrap_or((&path, ""));
        let source = {
            let state = lock(&self.state);
            let from = state.buckets.get(from_bucket).ok_or_else(no_such_bucket)?;
            match id {
                None => from.current(from_key),
                Some(id) => from.objects.get(from_key).and_then(|all| all.iter().find(|version| version.id == id)),
            }
            .filter(|version| version.content.is_some())
            .cloned()
            .ok_or_else(no_such_key)?
        };
        if header(headers, "x-amz-copy-source-if-match").is_some_and(|wanted| condition_fails(wanted, &source.etag)) {
            return Err(precondition_failed());
        }
        let created = self.commit(bucket, key, &HeaderMap::new(), "CopyObject", |id, sequencer, modified| Version {
            id,
            sequencer,
            modified,
            ..source
        })?;
        let mut xml = Xml::new("CopyObjectResult");
        xml.text("ETag", &quoted(&created.etag)).text("LastModified", &iso(created.time));
        let answer = xml_answer(xml.end("CopyObjectResult"));
        Ok(with_version(answer, created.version_id.as_deref()))
    }

    fn delete(&self, bucket: &str, key: &str, version_id: Option<&str>) -> Response<Body> {
        let modified = self.shared.clock.now();
        let id = self.shared.letters(32);
        let mut state = lock(&self.state);
        let name = bucket;
        let Some(bucket) = state.buckets.get_mut(bucket) else { return respond(204, &[], empty()) };
        let removed = version_id.or((!bucket.versioned).then_some("null"));
        if let (Some(journal), Some(id)) = (self.journal.get(), removed) {
            journal.removed(name, key, id);
        }
        if let Some(version_id) = version_id {
            return match bucket.remove(key, version_id) {
                Some(true) => {
                    respond(204, &[("x-amz-version-id", version_id), ("x-amz-delete-marker", "true")], empty())
                }
                _ => respond(204, &[("x-amz-version-id", version_id)], empty()),
            };
        }
        if !bucket.versioned {
            bucket.remove(key, "null");
            return respond(204, &[], empty());
        }
        let marker = Version {
            id: id.clone(),
            content: None,
            size: 0,
            etag: String::new(),
            modified,
            sequencer: String::new(),
            crc32: None,
            headers: Vec::new(),
        };
        if let Some(journal) = self.journal.get() {
            journal.version(name, key, &marker);
        }
        bucket.push(key, marker);
        respond(204, &[("x-amz-version-id", &id), ("x-amz-delete-marker", "true")], empty())
    }

    fn list(&self, request: &S3Request) -> S3Result {
        let prefix = request.query("prefix").unwrap_or_default();
        let delimiter = request.query("delimiter").filter(|delimiter| !delimiter.is_empty());
        let max = match request.query("max-keys").map(str::parse::<usize>) {
            None => LIST_KEYS_MAX,
            Some(Ok(max)) => max.min(LIST_KEYS_MAX),
            Some(Err(_)) => {
                return Err(S3Error::new(400, "InvalidArgument", "Provided max-keys not an integer"));
            }
        };
        let token = match request.query("continuation-token") {
            None => None,
            Some(token) => {
                Some(URL_SAFE_NO_PAD.decode(token).ok().and_then(|token| String::from_utf8(token).ok()).ok_or_else(
                    || S3Error::new(400, "InvalidArgument", "The continuation token provided is incorrect"),
                )?)
            }
        };
        let url = request.query("encoding-type") == Some("url");
        let shown = |key: &str| if url { request::encode_key(key) } else { key.to_owned() };
        let after = token.as_deref().or_else(|| request.query("start-after")).unwrap_or_default();
        let state = lock(&self.state);
        let bucket = state.buckets.get(&request.bucket).ok_or_else(no_such_bucket)?;
        let mut contents: Vec<(&str, &Version)> = Vec::new();
        let mut common: Vec<String> = Vec::new();
        let mut last = String::new();
        let mut truncated = false;
        for key in bucket.objects.keys().map(String::as_str).filter(|key| key.starts_with(prefix) && *key > after) {
            let Some(version) = bucket.current(key) else { continue };
            let rest = key.strip_prefix(prefix).unwrap_or_default();
            let group = delimiter
                .and_then(|delimiter| rest.split_once(delimiter).map(|(head, _)| format!("{prefix}{head}{delimiter}")));
            // A whole group counts once, and a page that ended with it does not show it again.
            if group.as_ref().is_some_and(|group| common.last() == Some(group) || after.starts_with(group.as_str())) {
                key.clone_into(&mut last);
                continue;
            }
            if contents.len() + common.len() == max {
                truncated = max > 0;
                break;
            }
            match group {
                Some(group) => common.push(group),
                None => contents.push((key, version)),
            }
            key.clone_into(&mut last);
        }
        let mut xml = Xml::new("ListBucketResult");
        xml.text("Name", &request.bucket)
            .text("Prefix", &shown(prefix))
            .text("KeyCount", &(contents.len() + common.len()).to_string())
            .text("MaxKeys", &max.to_string())
            .text("IsTruncated", if truncated { "true" } else { "false" });
        if let Some(delimiter) = delimiter {
            xml.text("Delimiter", &shown(delimiter));
        }
        if url {
            xml.text("EncodingType", "url");
        }
        if truncated {
            xml.text("NextContinuationToken", &URL_SAFE_NO_PAD.encode(&last));
        }
        for (key, version) in contents {
            xml.open("Contents")
                .text("Key", &shown(key))
                .text("LastModified", &iso(version.modified))
                .text("ETag", &quoted(&version.etag))
                .text("Size", &version.size.to_string())
                .text("StorageClass", "STANDARD")
                .close("Contents");
        }
        for prefix in common {
            xml.open("CommonPrefixes").text("Prefix", &shown(&prefix)).close("CommonPrefixes");
        }
        Ok(xml_answer(xml.end("ListBucketResult")))
    }

    async fn upload_part(&self, request: &S3Request, headers: &HeaderMap, body: Incoming) -> S3Result {
        let number = request.query("partNumber").and_then(|number| number.parse().ok());
        let Some(number @ 1..=PARTS_MAX) = number else {
            return Err(S3Error::new(
                400,
                "InvalidArgument",
                "Part number must be an integer between 1 and 10000, inclusive",
            ));
        };
        let id = request.query("uploadId").unwrap_or_default();
        if !lock(&self.state).uploads.contains_key(id) {
            return Err(no_such_upload());
        }
        let received = receive(headers, body, self.file()).await?;
        let part = Part { content: received.content, size: received.size, md5: received.md5 };
        let etag = quoted(&hex(&received.md5));
        // It may have been aborted while the body came in.
        lock(&self.state).uploads.get_mut(id).ok_or_else(no_such_upload)?.parts.insert(number, part);
        Ok(respond(200, &[("etag", &etag), ("x-amz-checksum-crc32", &received.crc32)], empty()))
    }

    fn complete(&self, request: &S3Request, headers: &HeaderMap, document: &str) -> S3Result {
        let id = request.query("uploadId").unwrap_or_default();
        let invalid = || {
            S3Error::new(
                400,
                "InvalidPart",
                "One or more of the specified parts could not be found. The part might not have been uploaded, or \
                 the specified entity tag might not have matched the part's entity tag.",
            )
        };
        let (parts, kept) = {
            let state = lock(&self.state);
            let upload = state.uploads.get(id).ok_or_else(no_such_upload)?;
            if upload.bucket != request.bucket || upload.key != request.key {
                return Err(no_such_upload());
            }
            let mut parts: Vec<Part> = Vec::new();
            let mut before = 0;
            for part in elements(document, "Part") {
                let number: u32 =
                    element(part, "PartNumber").and_then(|number| number.parse().ok()).ok_or_else(invalid)?;
                if number <= before {
                    return Err(S3Error::new(
                        400,
                        "InvalidPartOrder",
                        "The list of parts was not in ascending order. Parts must be ordered by part number.",
                    ));
                }
                before = number;
                let known = upload.parts.get(&number).ok_or_else(invalid)?;
                if element(part, "ETag").is_some_and(|etag| etag.trim_matches('"') != hex(&known.md5)) {
                    return Err(invalid());
                }
                if parts.last().is_some_and(|part| part.size < self.minimum_part_bytes) {
                    return Err(S3Error::new(
                        400,
                        "EntityTooSmall",
                        "Your proposed upload is smaller than the minimum allowed size",
                    ));
                }
                parts.push(known.clone());
            }
            (parts, upload.headers.clone())
        };
        if parts.is_empty() {
            return Err(S3Error::new(400, "MalformedXML", "The XML you provided was not well-formed"));
        }
        let mut digest = Md5::new();
        for part in &parts {
            digest.update(part.md5);
        }
        let etag = format!("{}-{}", hex(&digest.finalize()), parts.len());
        let size = parts.iter().map(|part| part.size).sum();
        let content = Content::Parts(Arc::new(parts.into_iter().map(|part| (part.content, part.size)).collect()));
        let created = self.commit(
            &request.bucket,
            &request.key,
            headers,
            "CompleteMultipartUpload",
            |id, sequencer, modified| Version {
                id,
                content: Some(content),
                size,
                etag,
                modified,
                sequencer,
                crc32: None,
                headers: kept,
            },
        )?;
        lock(&self.state).uploads.remove(id);
        let mut xml = Xml::new("CompleteMultipartUploadResult");
        xml.text("Bucket", &request.bucket).text("Key", &request.key).text("ETag", &quoted(&created.etag));
        let answer = xml_answer(xml.end("CompleteMultipartUploadResult"));
        Ok(with_version(answer, created.version_id.as_deref()))
    }
}

/// Bytes of `range`, a frame at a time; cut off after `cut` bytes if that is a fault.
fn stream_body(content: Content, range: std::ops::Range<u64>, cut: Option<u64>) -> Body {
    let stop = cut.map_or(range.end, |after| range.start.saturating_add(after).min(range.end));
    let frames = stream::unfold(Some(range.start), move |at| {
        let content = content.clone();
        async move {
            let at = at?;
            if at >= stop {
                let broken = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "cut on purpose");
                return (stop < range.end).then_some((Err(broken), None));
            }
            match content.read(at..stop) {
                Ok(bytes) => {
                    let next = at + bytes.len() as u64;
                    // Lets the connection write the last frame before it is cut.
                    tokio::task::yield_now().await;
                    Some((Ok(Frame::data(bytes)), Some(next)))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

async fn document(body: Incoming) -> Result<String, S3Error> {
    let malformed = || S3Error::new(400, "MalformedXML", "The XML you provided was not well-formed");
    let bytes = read_all(body, DOCUMENT_BYTES_MAX).await.ok_or_else(malformed)?;
    String::from_utf8(bytes.into()).map_err(|_| malformed())
}

/// Headers that come back with the object.
fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    const KEPT: [&str; 4] = ["content-type", "cache-control", "content-disposition", "content-language"];
    let mut kept: Vec<(String, String)> = headers
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()) || name.as_str().starts_with("x-amz-meta-"))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let encoding: Vec<&str> = header(headers, "content-encoding")
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|encoding| !encoding.is_empty() && *encoding != "aws-chunked")
        .collect();
    if !encoding.is_empty() {
        kept.push(("content-encoding".to_owned(), encoding.join(",")));
    }
    kept
}

fn pairs<'a>(headers: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

fn xml_answer(document: String) -> Response<Body> {
    respond(200, &[("content-type", "application/xml")], full(document))
}

fn with_version(mut answer: Response<Body>, id: Option<&str>) -> Response<Body> {
    if let Some(value) = id.and_then(|id| id.parse().ok()) {
        answer.headers_mut().insert("x-amz-version-id", value);
    }
    answer
}

fn iso(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

impl Handler for S3 {
    const SERVICE: Service = Service::S3;

    fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let asked = S3Request::parse(&parts.method, &parts.uri, &parts.headers);
        let mut call = Call {
            service: Service::S3,
            action: asked.operation.name().to_owned(),
            permission: asked.permission(),
            resource: asked.arn(),
            status: 0,
        };
        let fault = match self.shared.admit(&call).await {
            Ok(fault) => fault,
            Err(closed) => {
                self.shared.recorder.record(call);
                return Err(closed);
            }
        };
        let cut = match &fault {
            Some(Fault::CutBody { after }) => Some(*after),
            _ => None,
        };
        let result = match &fault {
            Some(Fault::Error { status, code }) => Err(S3Error::new(*status, code, "injected fault")),
            _ => self.act(&asked, &parts.headers, body, cut).await,
        };
        let mut response = result.unwrap_or_else(|error| {
            let mut xml = Xml::new("Error");
            xml.text("Code", &error.code).text("Message", &error.message).text("Resource", parts.uri.path());
            let body = if parts.method == Method::HEAD { empty() } else { full(xml.end("Error")) };
            let mut headers: Vec<(&str, &str)> = vec![("content-type", "application/xml")];
            headers.extend(error.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            respond(error.status, &headers, body)
        });
        if let Ok(id) = self.shared.letters(16).to_uppercase().parse() {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        let lost = matches!(fault, Some(Fault::LoseAnswer));
        call.status = if lost { 0 } else { response.status().as_u16() };
        self.shared.recorder.record(call);
        if lost { Err(Closed) } else { Ok(response) }
    }
}
