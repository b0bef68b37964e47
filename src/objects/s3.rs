//! Files in S3.
//!
//! Reads name the version id, where there is one, and always the entity tag, so that an object that changes under us is
//! noticed and never mixed. Every call is safe to repeat: a put and an upload replace an object whole.
//!
//! An upload that fails is aborted; one that is dropped (the process dies) leaves its parts behind, unseen but paid for. The
//! template's lifecycle rule (`AbortIncompleteMultipartUpload`) removes them.

use std::{cell::Cell, ops::Range, rc::Rc};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};

use super::{Location, ObjectVersion, Objects, Upload};
use crate::{
    aws::Failure,
    codes::{self, Code},
    error::{Error, ErrorKind, Result},
};

/// S3 wants parts of at least 5 MiB; larger ones only cost memory.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// S3's limit; with the size of our parts, 78 GiB.
const PARTS_MAX: i32 = 10_000;
/// How often the body of one read may break off before the read fails.
const BODY_ATTEMPTS_MAX: usize = 5;
/// `get` is for settings, reports and mappings, which are held in memory whole.
const GET_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// 100 requests of a listing; more keys than that want another way than a list in memory.
const LIST_PAGES_MAX: usize = 100;

/// Files in S3.
#[derive(Debug, Clone)]
pub struct S3 {
    client: Client,
    requests: Rc<Cell<u64>>,
}

impl S3 {
    /// Files reached through `client`. Makes no request.
    pub fn new(client: Client) -> Self {
        Self { client, requests: Rc::default() }
    }

    fn count(&self) {
        self.requests.set(self.requests.get() + 1);
    }
}

#[async_trait(?Send)]
impl Objects for S3 {
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectVersion> {
        elsewhere(location)?;
        self.count();
        let request = self.client.head_object().bucket(&location.bucket).key(&location.key);
        let request = request.set_version_id(version_id.map(ToOwned::to_owned));
        let head =
            request.send().await.map_err(|error| failed("look at", location, &error, codes::SOURCE_FORBIDDEN))?;
        let (Some(etag), Some(Ok(size))) = (head.e_tag, head.content_length.map(u64::try_from)) else {
            return Err(unavailable(format!("look at {location}: the answer has no entity tag or no length")));
        };
        // `version_id` is what S3 says, or what was asked for.
        let version_id = head.version_id.or_else(|| version_id.map(ToOwned::to_owned));
        Ok(ObjectVersion { location: location.clone(), version_id, etag: unquoted(&etag), size })
    }

    async fn read(&self, object: &ObjectVersion, range: Range<u64>) -> Result<Bytes> {
        let location = &object.location;
        elsewhere(location)?;
        let end = range.end.min(object.size);
        let wanted = usize::try_from(end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut got = BytesMut::new();
        let mut broken = None;
        // The SDK repeats requests, but not bodies: one that breaks off is taken up where it stopped.
        for _ in 0..BODY_ATTEMPTS_MAX {
            if got.len() >= wanted {
                break;
            }
            let start = range.start + got.len() as u64;
            self.count();
            let request = self.client.get_object().bucket(&location.bucket).key(&location.key);
            let request = request.set_version_id(object.version_id.clone()).if_match(format!("\"{}\"", object.etag));
            let request = request.range(format!("bytes={start}-{}", end.saturating_sub(1)));
            let answer =
                request.send().await.map_err(|error| failed("read", location, &error, codes::SOURCE_FORBIDDEN))?;
            let is_range = answer.content_range().is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
            if start > 0 && !is_range {
                return Err(unavailable(format!("read {location}: other bytes came than were asked for")));
            }
            let mut body = answer.body;
            while got.len() < wanted {
                match body.next().await {
                    Some(Ok(bytes)) => got.extend_from_slice(bytes.get(..wanted - got.len()).unwrap_or(&bytes)),
                    Some(Err(error)) => {
                        broken = Some(error);
                        break;
                    }
                    None => break,
                }
            }
        }
        if got.len() < wanted {
            let message = format!(
                "read {location}: the connection broke {BODY_ATTEMPTS_MAX} times; {} of {wanted} bytes came",
                got.len()
            );
            let error = unavailable(message);
            return Err(match broken {
                Some(cause) => error.with_source(cause),
                None => error,
            });
        }
        Ok(got.freeze())
    }

    async fn get(&self, location: &Location) -> Result<Option<(Bytes, String)>> {
        let mut broken = None;
        for _ in 0..BODY_ATTEMPTS_MAX {
            self.count();
            let answer = match self.client.get_object().bucket(&location.bucket).key(&location.key).send().await {
                Ok(answer) => answer,
                Err(error) => {
                    let error = failed("read", location, &error, codes::OBJECTS_FORBIDDEN);
                    return if error.kind() == ErrorKind::NotFound { Ok(None) } else { Err(error) };
                }
            };
            let size = answer.content_length().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
            if size > GET_BYTES_MAX {
                let message =
                    format!("read {location}: it has {size} bytes; {GET_BYTES_MAX} is the most for such a file");
                return Err(Error::invalid(codes::OBJECTS_UNAVAILABLE, message).with_hint("Put a smaller file there."));
            }
            let etag = unquoted(answer.e_tag().unwrap_or_default());
            match answer.body.collect().await {
                Ok(body) => return Ok(Some((body.into_bytes(), etag))),
                Err(error) => broken = Some(error),
            }
        }
        let error = unavailable(format!("read {location}: the connection broke {BODY_ATTEMPTS_MAX} times"));
        Err(match broken {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }

    async fn put(&self, location: &Location, body: Bytes, content_type: &str) -> Result<()> {
        self.count();
        let request = self.client.put_object().bucket(&location.bucket).key(&location.key);
        let request = request.content_type(content_type).body(ByteStream::from(body));
        request.send().await.map_err(|error| failed("write", location, &error, codes::OBJECTS_FORBIDDEN))?;
        Ok(())
    }

    async fn put_new(&self, location: &Location, body: Bytes, content_type: &str) -> Result<bool> {
        self.count();
        let request = self.client.put_object().bucket(&location.bucket).key(&location.key).if_none_match("*");
        let Err(error) = request.content_type(content_type).body(ByteStream::from(body)).send().await else {
            return Ok(true);
        };
        let failure = Failure::from(&error);
        match (failure.code.as_str(), failure.status) {
            ("PreconditionFailed", _) | (_, 412) => Ok(false),
            // Somebody else is writing it, or has just removed it: S3 asks to try again.
            ("ConditionalRequestConflict", _) | (_, 409) => {
                Err(unavailable(format!("write {location}: {}", failure.text)))
            }
            _ => Err(failed("write", location, &error, codes::OBJECTS_FORBIDDEN)),
        }
    }

    async fn upload(&self, location: &Location, content_type: &str) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload {
            s3: self.clone(),
            location: location.clone(),
            content_type: content_type.to_owned(),
            held: BytesMut::new(),
            size: 0,
            id: None,
            parts: Vec::new(),
            is_failed: false,
        }))
    }

    async fn delete(&self, location: &Location) -> Result<()> {
        if location.is_local() {
            return Ok(());
        }
        self.count();
        let request = self.client.delete_object().bucket(&location.bucket).key(&location.key);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match failed("delete", location, &error, codes::OBJECTS_FORBIDDEN) {
                error if error.kind() == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn list(&self, prefix: &Location) -> Result<Vec<Location>> {
        let mut found = Vec::new();
        let mut from = None;
        for _ in 0..LIST_PAGES_MAX {
            self.count();
            let request = self.client.list_objects_v2().bucket(&prefix.bucket).prefix(&prefix.key);
            let answer = request.set_continuation_token(from).send().await;
            let answer = answer.map_err(|error| failed("list", prefix, &error, codes::OBJECTS_FORBIDDEN))?;
            let keys = answer.contents.unwrap_or_default().into_iter().filter_map(|object| object.key);
            found.extend(keys.map(|key| Location::new(&prefix.bucket, key)));
            from = answer.next_continuation_token;
            if from.is_none() {
                return Ok(found);
            }
        }
        let message = format!("list {prefix}: more than {} objects", found.len());
        Err(Error::invalid(codes::OBJECTS_UNAVAILABLE, message).with_hint("Name a narrower prefix."))
    }

    fn requests(&self) -> u64 {
        self.requests.get()
    }
}

/// An object that is sent in parts; one that fits into a part is sent by a single put.
struct S3Upload {
    s3: S3,
    location: Location,
    content_type: String,
    held: BytesMut,
    size: u64,
    id: Option<String>,
    parts: Vec<CompletedPart>,
    is_failed: bool,
}

impl S3Upload {
    /// Does one step; if it fails, the upload is over.
    async fn guarded(&mut self, step: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.is_failed {
            return Err(unavailable(format!("write {}: an earlier part of it failed", self.location)));
        }
        let done = step(self).await;
        if done.is_err() {
            self.is_failed = true;
            self.abort().await;
        }
        done
    }

    async fn send_part(&mut self, body: Bytes) -> Result<()> {
        let Self { s3, location, .. } = self;
        let number = i32::try_from(self.parts.len()).unwrap_or(i32::MAX).saturating_add(1);
        if number > PARTS_MAX {
            return Err(Error::invalid(
                codes::OBJECTS_UNAVAILABLE,
                format!("write {location}: it has more than {PARTS_MAX} parts"),
            ));
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                s3.count();
                let request = s3.client.create_multipart_upload().bucket(&location.bucket).key(&location.key);
                let answer = request.content_type(&self.content_type).send().await;
                let answer = answer.map_err(|error| failed("write", location, &error, codes::OBJECTS_FORBIDDEN))?;
                let id = answer
                    .upload_id
                    .ok_or_else(|| unavailable(format!("write {location}: the upload was given no id")))?;
                self.id = Some(id.clone());
                id
            }
        };
        s3.count();
        let request = s3.client.upload_part().bucket(&location.bucket).key(&location.key).upload_id(id);
        let answer = request.part_number(number).body(ByteStream::from(body)).send().await;
        let answer = answer.map_err(|error| failed("write", location, &error, codes::OBJECTS_FORBIDDEN))?;
        // S3 wants the checksum again at the end, if it was sent one.
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32(answer.checksum_crc32);
        self.parts.push(part.build());
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        let rest = self.held.split().freeze();
        if self.id.is_none() {
            return self.s3.put(&self.location, rest, &self.content_type).await;
        }
        if !rest.is_empty() {
            self.send_part(rest).await?;
        }
        let Self { s3, location, .. } = self;
        s3.count();
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
        let request = s3.client.complete_multipart_upload().bucket(&location.bucket).key(&location.key);
        let answer = request.set_upload_id(self.id.clone()).multipart_upload(parts).send().await;
        let Err(error) = answer else { return Ok(()) };
        let gone = Failure::from(&error).code == "NoSuchUpload";
        // When the answer to a completion is lost, its repeat finds the upload gone and the object there.
        if gone
            && let Ok(object) = s3.head(location, None).await
            && object.size == self.size
            && object.etag.ends_with(&format!("-{}", self.parts.len()))
        {
            return Ok(());
        }
        Err(failed("write", location, &error, codes::OBJECTS_FORBIDDEN))
    }

    /// Removes the parts. If that fails too, the bucket's lifecycle rule does it.
    async fn abort(&mut self) {
        let Some(id) = self.id.take() else { return };
        self.s3.count();
        let request = self.s3.client.abort_multipart_upload().bucket(&self.location.bucket).key(&self.location.key);
        if let Err(error) = request.upload_id(id).send().await {
            tracing::warn!(object = %self.location, error = Failure::from(&error).text, "the parts of a failed upload were left behind");
        }
    }
}

#[async_trait(?Send)]
impl Upload for S3Upload {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.guarded(async |upload| {
            let mut rest = bytes;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(PART_BYTES - upload.held.len()));
                upload.held.extend_from_slice(now);
                upload.size += now.len() as u64;
                rest = later;
                if upload.held.len() == PART_BYTES {
                    let part = upload.held.split().freeze();
                    upload.send_part(part).await?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        self.guarded(async |upload| upload.complete().await).await
    }
}

/// What a command line keeps on its own disk (an index of its own, say) is not here.
fn elsewhere(location: &Location) -> Result<()> {
    if location.is_local() {
        let message = format!("{location}: it is on another machine's disk");
        return Err(Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, message));
    }
    Ok(())
}

fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::Unavailable { retry_after: None }, codes::OBJECTS_UNAVAILABLE, message)
}

/// What a failed call means. `forbidden` is the code for a missing permission.
fn failed<E>(what: &str, location: &Location, error: &SdkError<E>, forbidden: Code) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = Failure::from(error);
    let message = format!("{what} {location}: {}", failure.text);
    match (failure.code.as_str(), failure.status) {
        ("NoSuchBucket", _) => Error::invalid(codes::OBJECTS_UNAVAILABLE, message)
            .with_hint(format!("There is no bucket {}: create it, or correct its name.", location.bucket)),
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) | (_, 301) => {
            Error::invalid(codes::OBJECTS_UNAVAILABLE, message).with_hint(format!(
                "Bucket {} is in another region than the function: use one in the same region.",
                location.bucket
            ))
        }
        ("InvalidObjectState", _) => Error::invalid(forbidden, message)
            .with_hint("Restore the object from the archive, then send its event again."),
        // 405 answers a request for a version that is a delete marker.
        ("NoSuchKey" | "NoSuchVersion" | "NotFound" | "MethodNotAllowed", _) | (_, 404 | 405) => {
            Error::new(ErrorKind::NotFound, codes::SOURCE_GONE, message)
        }
        ("PreconditionFailed", _) | (_, 412) => Error::new(ErrorKind::Conflict, codes::SOURCE_CHANGED, message),
        _ => match failure.kind(true) {
            ErrorKind::Forbidden => Error::new(ErrorKind::Forbidden, forbidden, message),
            // S3 asks to slow down for seconds, not for a rate: the caller backs off, as for any failure of S3.
            ErrorKind::Throttled { .. } => unavailable(message),
            kind => Error::new(kind, codes::OBJECTS_UNAVAILABLE, message),
        },
    }
}
