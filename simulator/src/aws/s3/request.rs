//! What a request to S3 asks for.

use http::{HeaderMap, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::aws::http::header;

/// The operations that are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketVersioning,
    PutBucketVersioning,
    GetBucketNotificationConfiguration,
    PutBucketNotificationConfiguration,
    ListObjectsV2,
    DeleteObjects,
    GetObject,
    HeadObject,
    PutObject,
    CopyObject,
    DeleteObject,
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    Unknown,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ListBuckets => "ListBuckets",
            Self::CreateBucket => "CreateBucket",
            Self::HeadBucket => "HeadBucket",
            Self::DeleteBucket => "DeleteBucket",
            Self::GetBucketVersioning => "GetBucketVersioning",
            Self::PutBucketVersioning => "PutBucketVersioning",
            Self::GetBucketNotificationConfiguration => "GetBucketNotificationConfiguration",
            Self::PutBucketNotificationConfiguration => "PutBucketNotificationConfiguration",
            Self::ListObjectsV2 => "ListObjectsV2",
            Self::DeleteObjects => "DeleteObjects",
            Self::GetObject => "GetObject",
            Self::HeadObject => "HeadObject",
            Self::PutObject => "PutObject",
            Self::CopyObject => "CopyObject",
            Self::DeleteObject => "DeleteObject",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::Unknown => "Unknown",
        }
    }
}

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct S3Request {
    pub(super) operation: Operation,
    pub(super) bucket: String,
    pub(super) key: String,
    query: Vec<(String, String)>,
}

impl S3Request {
    pub(super) fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let path = uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let query: Vec<(String, String)> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(&value.replace('+', " ")))
            })
            .collect();
        let mut request = Self { operation: Operation::Unknown, bucket: decode(bucket), key: decode(key), query };
        request.operation = request.decide(method, headers);
        request
    }

    fn decide(&self, method: &Method, headers: &HeaderMap) -> Operation {
        let has = |name| self.query(name).is_some();
        if self.bucket.is_empty() {
            return if method == Method::GET { Operation::ListBuckets } else { Operation::Unknown };
        }
        if self.key.is_empty() {
            return match method.as_str() {
                "GET" if has("versioning") => Operation::GetBucketVersioning,
                "PUT" if has("versioning") => Operation::PutBucketVersioning,
                "GET" if has("notification") => Operation::GetBucketNotificationConfiguration,
                "PUT" if has("notification") => Operation::PutBucketNotificationConfiguration,
                "GET" if self.query("list-type") == Some("2") => Operation::ListObjectsV2,
                "POST" if has("delete") => Operation::DeleteObjects,
                "PUT" if self.is_plain() => Operation::CreateBucket,
                "DELETE" if self.is_plain() => Operation::DeleteBucket,
                "HEAD" => Operation::HeadBucket,
                _ => Operation::Unknown,
            };
        }
        let sub_resource = ["tagging", "acl", "retention", "legal-hold", "attributes", "restore", "torrent"];
        if sub_resource.into_iter().any(has) {
            return Operation::Unknown;
        }
        match method.as_str() {
            "GET" if !has("uploadId") => Operation::GetObject,
            "HEAD" => Operation::HeadObject,
            "PUT" if has("uploadId") && header(headers, "x-amz-copy-source").is_none() => Operation::UploadPart,
            "PUT" if has("uploadId") => Operation::Unknown,
            "PUT" if header(headers, "x-amz-copy-source").is_some() => Operation::CopyObject,
            "PUT" => Operation::PutObject,
            "POST" if has("uploads") => Operation::CreateMultipartUpload,
            "POST" if has("uploadId") => Operation::CompleteMultipartUpload,
            "DELETE" if has("uploadId") => Operation::AbortMultipartUpload,
            "DELETE" => Operation::DeleteObject,
            _ => Operation::Unknown,
        }
    }

    /// No sub-resource is asked for; the SDKs add `x-id` to some requests.
    fn is_plain(&self) -> bool {
        self.query.iter().all(|(name, _)| name == "x-id")
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What IAM calls the permission; it differs from the operation's name more often than not.
    pub(super) fn permission(&self) -> String {
        let versioned = self.query("versionId").is_some();
        let name = match self.operation {
            Operation::GetObject | Operation::HeadObject if versioned => "GetObjectVersion",
            Operation::GetObject | Operation::HeadObject => "GetObject",
            Operation::DeleteObject if versioned => "DeleteObjectVersion",
            Operation::DeleteObject | Operation::DeleteObjects => "DeleteObject",
            Operation::PutObject
            | Operation::CopyObject
            | Operation::CreateMultipartUpload
            | Operation::UploadPart
            | Operation::CompleteMultipartUpload => "PutObject",
            Operation::ListObjectsV2 | Operation::HeadBucket => "ListBucket",
            Operation::ListBuckets => "ListAllMyBuckets",
            Operation::GetBucketNotificationConfiguration => "GetBucketNotification",
            Operation::PutBucketNotificationConfiguration => "PutBucketNotification",
            other => other.name(),
        };
        format!("s3:{name}")
    }

    pub(super) fn arn(&self) -> String {
        match (self.bucket.as_str(), self.key.as_str()) {
            ("", _) => "*".to_owned(),
            (bucket, "") => format!("arn:aws:s3:::{bucket}"),
            (bucket, key) => format!("arn:aws:s3:::{bucket}/{key}"),
        }
    }
}

/// The `Range` header, against an object's size.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// None, or one that S3 ignores.
    Whole,
    /// Half open.
    Part(std::ops::Range<u64>),
    /// Outside the object.
    Unsatisfiable,
}

impl Range {
    pub(super) fn parse(header: Option<&str>, size: u64) -> Self {
        let Some((from, to)) =
            header.and_then(|header| header.strip_prefix("bytes=")).and_then(|range| range.split_once('-'))
        else {
            return Self::Whole;
        };
        match (from.parse::<u64>(), to.parse::<u64>()) {
            (Ok(from), to) if to.is_ok() || header.is_some_and(|header| header.ends_with('-')) => {
                let end = to.map_or(size, |to| to.saturating_add(1).min(size));
                if from >= size {
                    Self::Unsatisfiable
                } else if end <= from {
                    Self::Whole
                } else {
                    Self::Part(from..end)
                }
            }
            (Err(_), Ok(last)) if from.is_empty() => {
                if last == 0 || size == 0 {
                    Self::Unsatisfiable
                } else {
                    Self::Part(size.saturating_sub(last)..size)
                }
            }
            _ => Self::Whole,
        }
    }
}

pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// Whether none of the tags in an `If-Match` header is `etag`.
pub(super) fn condition_fails(wanted: &str, etag: &str) -> bool {
    !wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == etag)
}

/// What S3 leaves as it is when it encodes a key.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/').remove(b' ');

/// A key as S3 writes it in notifications and in listings with `encoding-type=url`: `+` for a space.
pub(crate) fn encode_key(key: &str) -> String {
    utf8_percent_encode(key, KEPT).to_string().replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_s3_reads_them() {
        for (header, size, expected) in [
            (None, 10, Range::Whole),
            (Some("bytes=0-3"), 10, Range::Part(0..4)),
            (Some("bytes=3-"), 10, Range::Part(3..10)),
            (Some("bytes=-4"), 10, Range::Part(6..10)),
            (Some("bytes=-40"), 10, Range::Part(0..10)),
            (Some("bytes=8-99"), 10, Range::Part(8..10)),
            (Some("bytes=10-"), 10, Range::Unsatisfiable),
            (Some("bytes=-0"), 10, Range::Unsatisfiable),
            (Some("bytes=0-0"), 0, Range::Unsatisfiable),
            (Some("bytes=5-2"), 10, Range::Whole),
            (Some("bytes=0-1,4-5"), 10, Range::Whole),
            (Some("lines=1-2"), 10, Range::Whole),
        ] {
            assert_eq!(Range::parse(header, size), expected, "{header:?} of {size}");
        }
    }

    #[test]
    fn a_key_is_encoded_as_in_a_notification() {
        assert_eq!(encode_key("in/a b+é.csv"), "in/a+b%2B%C3%A9.csv");
    }
}
