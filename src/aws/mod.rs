//! The AWS clients, built once, and what their failures mean.
//!
//! The doors (S3, DynamoDB, Secrets Manager, SQS) share one configuration here, and one reading of the SDK's many error
//! types, so that throttling or a missing permission is told the same way whichever service it came from.

mod http;

use std::{error::Error as StdError, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, environment::EnvironmentVariableCredentialsProvider, retry::RetryConfig,
    stalled_stream_protection::StalledStreamProtectionConfig, timeout::TimeoutConfig,
};
use aws_sdk_s3::{
    config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider},
    error::{ProvideErrorMetadata, SdkError},
};
use aws_types::service_config::ServiceConfigKey;

use crate::{error::ErrorKind, trust};

/// A connection inside one region is made in milliseconds; three seconds also survive a lost packet or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Silence on a connection after which an attempt is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// One attempt: an 8 MiB part at 150 kB/s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// All attempts of one call together; well below a Lambda's time-out.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(150);
/// DynamoDB, Secrets Manager and SQS answer in milliseconds; an attempt that takes longer is lost.
const SMALL_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// All attempts of one small call together: must be over long before a lease ends.
const SMALL_OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
/// The first try and four more, which the SDK spaces out by itself.
const ATTEMPTS_MAX: u32 = 5;

/// The clients of all services that hubferry uses. Cloning is cheap and shares connections.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Files.
    pub s3: aws_sdk_s3::Client,
    /// State.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Credentials of the CRMs.
    pub secrets: aws_sdk_secretsmanager::Client,
    /// Continuations.
    pub sqs: aws_sdk_sqs::Client,
}

/// The configuration that the standard `AWS_*` variables and profiles give, with hubferry's time-outs and retries.
///
/// `AWS_ENDPOINT_URL` and its per-service forms (`AWS_ENDPOINT_URL_S3`, …) are honoured. Makes no request.
pub async fn load() -> SdkConfig {
    Box::pin(loader().load()).await
}

/// The same in this region, and with these keys (id, secret, session token) instead of the machine's own, where there are any.
pub async fn load_as(region: &str, keys: Option<(&str, &str, Option<&str>)>) -> SdkConfig {
    let mut loader = loader().region(Region::new(region.to_owned()));
    if let Some((id, secret, session)) = keys {
        let keys = Credentials::new(id, secret, session.map(str::to_owned), None, "hubferry");
        loader = loader.credentials_provider(SharedCredentialsProvider::new(keys));
    }
    Box::pin(loader.load()).await
}

fn loader() -> aws_config::ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::latest());
    // Lambda puts its role's keys there and nowhere else; setting up all the other places to look takes a tenth of a start.
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let loader = if is_set("AWS_LAMBDA_RUNTIME_API") && is_set("AWS_ACCESS_KEY_ID") {
        loader.credentials_provider(EnvironmentVariableCredentialsProvider::new())
    } else {
        loader
    };
    loader
        .http_client(http::client())
        .retry_config(retries())
        .timeout_config(timeouts())
        .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
}

/// A configuration for stand-ins of AWS that listen at `endpoint_url`: nothing of the machine's own AWS settings is read.
pub fn stand_in(endpoint_url: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http::client())
        .endpoint_url(endpoint_url)
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "stand-in", "stand-in", None, None, "hubferry",
        )))
        .retry_config(retries())
        .timeout_config(timeouts())
        .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build()
}

impl Clients {
    /// The clients of `config`.
    pub fn new(config: &SdkConfig) -> Self {
        // A stand-in's name (`localhost`) has no sub-domain for each bucket.
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(is_endpoint_overridden(config));
        // The services of small calls get short time-outs. A watch over the flow of their bodies, each a packet or two, would cost a
        // tenth of the call's CPU and add nothing to those.
        let small = config
            .clone()
            .into_builder()
            .timeout_config(small_timeouts())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
            dynamodb: aws_sdk_dynamodb::Client::new(&small),
            secrets: aws_sdk_secretsmanager::Client::new(&small),
            sqs: aws_sdk_sqs::Client::new(&small),
        }
    }
}

/// Whether S3 is somewhere else than at AWS's own address.
fn is_endpoint_overridden(config: &SdkConfig) -> bool {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let of_service = config.service_config().zip(key.ok()).and_then(|(settings, key)| settings.load_config(key));
    config.endpoint_url().is_some() || of_service.is_some()
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX)
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}

fn small_timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SMALL_ATTEMPT_TIMEOUT)
        .operation_attempt_timeout(SMALL_ATTEMPT_TIMEOUT)
        .operation_timeout(SMALL_OPERATION_TIMEOUT)
        .build()
}

/// What a failed call means, whichever service it was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Asked to slow down, still after the SDK's own retries.
    Throttled,
    /// The credentials are missing, refused, or lack a permission.
    Forbidden,
    /// The service failed, or could not be reached.
    Unavailable,
    /// No answer came: the call may have been carried out.
    Lost,
    /// The service refused the call as such.
    Refused,
}

/// A failed call, without the request and without the answer's body.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What it means.
    pub trouble: Trouble,
    /// The HTTP status; 0 if there was no answer.
    pub status: u16,
    /// The service's own code, for example `NoSuchKey`; may be empty.
    pub code: String,
    /// In words, for an error's message.
    pub text: String,
}

impl Failure {
    /// The kind for a call that is safe to repeat, and for one that is not.
    pub(crate) fn kind(&self, repeatable: bool) -> ErrorKind {
        match self.trouble {
            Trouble::Throttled => ErrorKind::Throttled { retry_after: None },
            Trouble::Forbidden => ErrorKind::Forbidden,
            Trouble::Lost if !repeatable => ErrorKind::Unknown,
            Trouble::Unavailable | Trouble::Lost => ErrorKind::Unavailable { retry_after: None },
            Trouble::Refused => ErrorKind::Refused,
        }
    }
}

impl<E: ProvideErrorMetadata + StdError + 'static> From<&SdkError<E>> for Failure {
    fn from(error: &SdkError<E>) -> Self {
        let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
        if let SdkError::ServiceError(failed) = error {
            let code = failed.err().code().unwrap_or_default().to_owned();
            let mut text = if code.is_empty() { format!("HTTP {status}") } else { format!("{code} (HTTP {status})") };
            if let Some(message) = failed.err().message() {
                text = format!("{text}: {message}");
            }
            return Self { trouble: trouble_of(status, &code), status, code, text };
        }
        let text = trust::explained(causes(error));
        let trouble = match error {
            SdkError::DispatchFailure(failed)
                if !failed.is_io() && !failed.is_timeout() && text.contains("credentials") =>
            {
                Trouble::Forbidden
            }
            SdkError::ConstructionFailure(_) => Trouble::Refused,
            _ => Trouble::Lost,
        };
        Self { trouble, status, code: String::new(), text }
    }
}

fn trouble_of(status: u16, code: &str) -> Trouble {
    match code {
        "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "BandwidthLimitExceeded" => Trouble::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "ExpiredToken"
        | "ExpiredTokenException" => Trouble::Forbidden,
        // These come with a status of 400, and mean that nothing was done.
        "RequestTimeout" | "TransactionConflictException" | "InternalServerError" if status < 500 => {
            Trouble::Unavailable
        }
        _ => match status {
            429 => Trouble::Throttled,
            401 | 403 => Trouble::Forbidden,
            // A service that fails may have done its work before.
            500.. => Trouble::Lost,
            _ => Trouble::Refused,
        },
    }
}

/// An error with all its causes in one line.
fn causes(error: &(dyn StdError + 'static)) -> String {
    /// Causes nest a handful deep; the bound only stops a chain that has no end.
    const CAUSES_MAX: usize = 10;
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.take(CAUSES_MAX).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_told_apart_from_a_refusal_whatever_the_status() {
        assert_eq!(trouble_of(400, "AccessDeniedException"), Trouble::Forbidden, "DynamoDB says it with a 400");
        assert_eq!(trouble_of(403, ""), Trouble::Forbidden, "HEAD has no body and so no code");
        assert_eq!(trouble_of(400, "ValidationException"), Trouble::Refused);
    }

    #[test]
    fn throttling_is_recognised_under_each_services_own_name() {
        assert_eq!(trouble_of(503, "SlowDown"), Trouble::Throttled);
        assert_eq!(trouble_of(400, "ProvisionedThroughputExceededException"), Trouble::Throttled);
        assert_eq!(trouble_of(429, ""), Trouble::Throttled);
    }

    #[test]
    fn a_server_that_failed_may_have_done_the_work() {
        let failure = Failure {
            trouble: trouble_of(500, "InternalError"),
            status: 500,
            code: String::new(),
            text: String::new(),
        };
        assert_eq!(failure.kind(false), ErrorKind::Unknown);
        assert_eq!(failure.kind(true), ErrorKind::Unavailable { retry_after: None });
    }

    #[test]
    fn buckets_are_named_in_the_path_at_a_stand_in() {
        assert!(is_endpoint_overridden(&stand_in("http://localhost:1")));
        assert!(!is_endpoint_overridden(&SdkConfig::builder().build()));
    }
}
