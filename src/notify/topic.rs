//! The door to a topic, and SNS behind it.
//!
//! SNS is one call here, a signed form. Its SDK would be one more client in an artefact that has no room left, while the signing is linked already,
//! for the clients that are there; so the call is made over the HTTP door (`docs/decisions/0018-signals.md`).

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::SystemTime};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use http::{Request, header};

use super::notice::Message;
use crate::{
    clock::Clock,
    codes::{self, Code},
    error::{Error, ErrorKind, Result},
    http::{HttpService, Sent, token::percent_encode},
};

/// Takes messages for whoever has subscribed.
#[async_trait(?Send)]
pub trait Topic {
    /// Publishes a message once; it is not repeated here. The caller bounds the time.
    ///
    /// Kinds: `Unknown` if it may have been published, others if it was not.
    async fn publish(&self, arn: &str, message: &Message) -> Result<()>;
}

/// Amazon SNS.
pub struct Sns {
    config: SdkConfig,
    http: Rc<dyn HttpService>,
    clock: Rc<dyn Clock>,
}

impl Sns {
    /// Publishes with the credentials of `config`, in the region of the topic. Calls nothing yet.
    pub fn new(config: SdkConfig, http: Rc<dyn HttpService>, clock: Rc<dyn Clock>) -> Self {
        Self { config, http, clock }
    }

    /// Where SNS is: as the standard variables say, else AWS's own address in the topic's region.
    fn endpoint(&self, arn: &Arn<'_>) -> String {
        let key = ServiceConfigKey::builder().service_id("SNS").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
        let of_service =
            self.config.service_config().zip(key.ok()).and_then(|(settings, key)| settings.load_config(key));
        match of_service.as_deref().or(self.config.endpoint_url()) {
            Some(address) => format!("{}/", address.trim_end_matches('/')),
            None => {
                let domain = if arn.partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
                format!("https://sns.{}.{domain}/", arn.region)
            }
        }
    }
}

/// `arn:PARTITION:sns:REGION:ACCOUNT:NAME`.
struct Arn<'a> {
    partition: &'a str,
    region: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(arn: &'a str) -> Result<Self> {
        let mut parts = arn.splitn(6, ':');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("arn"), Some(partition), Some("sns"), Some(region), Some(_), Some(_)) if !region.is_empty() => {
                Ok(Self { partition, region })
            }
            _ => Err(Error::invalid(codes::CONFIG_INVALID, format!("`{arn}` is not the ARN of a topic"))),
        }
    }
}

/// The form that publishes a message.
fn form(arn: &str, message: &Message) -> String {
    let mut form = String::from("Action=Publish&Version=2010-03-31");
    let mut add = |name: &str, value: &str| {
        form.push('&');
        form.push_str(name);
        form.push('=');
        percent_encode(&mut form, value);
    };
    add("TopicArn", arn);
    add("Subject", &message.subject);
    add("Message", &message.text);
    if arn.ends_with(".fifo") {
        add("MessageGroupId", "hubferry");
        add("MessageDeduplicationId", &message.id);
    }
    form
}

#[async_trait(?Send)]
impl Topic for Sns {
    async fn publish(&self, arn: &str, message: &Message) -> Result<()> {
        let parsed = Arn::parse(arn)?;
        let failed =
            |kind: ErrorKind, what: &str| Error::new(kind, codes::NOTICE_FAILED, format!("publish to {arn}: {what}"));
        let provider =
            self.config.credentials_provider().ok_or_else(|| failed(ErrorKind::Forbidden, "no credentials"))?;
        let credentials = provider
            .provide_credentials()
            .await
            .map_err(|error| failed(ErrorKind::Forbidden, "no credentials").with_source(error))?;
        let body = form(arn, message);
        let endpoint = self.endpoint(&parsed);
        let mut request = Request::post(&endpoint)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(body))
            .map_err(|_| failed(ErrorKind::Invalid, "the endpoint is no address"))?;
        let identity = credentials.into();
        let now: SystemTime = self.clock.now().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(parsed.region)
            .name("sns")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(ErrorKind::Invalid, "the request cannot be signed").with_source(error))?
            .into();
        let signed = {
            let kind = [("content-type", "application/x-www-form-urlencoded")];
            let content = SignableBody::Bytes(request.body());
            let signable = SignableRequest::new("POST", endpoint.as_str(), kind.into_iter(), content);
            signable.and_then(|signable| sign(signable, &parameters))
        };
        let (instructions, _) = signed
            .map_err(|error| failed(ErrorKind::Invalid, "the request cannot be signed").with_source(error))?
            .into_parts();
        instructions.apply_to_request_http1x(&mut request);
        match self.http.call(request).await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let kind = match status {
                    401 | 403 => ErrorKind::Forbidden,
                    404 => ErrorKind::NotFound,
                    429 => ErrorKind::Throttled { retry_after: None },
                    500.. => ErrorKind::Unavailable { retry_after: None },
                    _ => ErrorKind::Refused,
                };
                Err(failed(kind, &format!("{} (HTTP {status})", word(answer.body()))))
            }
            Err(error) => {
                let kind = match error.sent {
                    Sent::Never => ErrorKind::Unavailable { retry_after: None },
                    Sent::Maybe => ErrorKind::Unknown,
                };
                Err(failed(kind, &error.message))
            }
        }
    }
}

/// SNS's code for a refusal: `<Code>AuthorizationError</Code>`.
fn word(body: &[u8]) -> String {
    const WORD_BYTES_MAX: usize = 60;
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    match code {
        Some(code) if code.len() <= WORD_BYTES_MAX && code.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            code.to_owned()
        }
        _ => "refused".to_owned(),
    }
}

/// Keeps messages in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryTopic {
    published: RefCell<Vec<(String, Message)>>,
    faults: RefCell<VecDeque<(ErrorKind, Code)>>,
}

impl MemoryTopic {
    /// A topic nobody has published to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out what was published: the topic's ARN and the message.
    pub fn take(&self) -> Vec<(String, Message)> {
        self.published.take()
    }

    /// The next message that has no fault yet is refused like this.
    pub fn fail_next(&self, kind: ErrorKind, code: Code) {
        self.faults.borrow_mut().push_back((kind, code));
    }
}

#[async_trait(?Send)]
impl Topic for MemoryTopic {
    async fn publish(&self, arn: &str, message: &Message) -> Result<()> {
        let fault = self.faults.borrow_mut().pop_front();
        if let Some((kind, code)) = fault {
            return Err(Error::new(kind, code, "the topic was told to fail"));
        }
        self.published.borrow_mut().push((arn.to_owned(), message.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::{aws::stand_in, clock::VirtualClock, http::HttpError};

    const ARN: &str = "arn:aws:sns:eu-central-1:000000000000:alerts";

    struct Fake {
        requests: RefCell<Vec<Request<Bytes>>>,
        status: u16,
        body: &'static str,
    }

    #[async_trait(?Send)]
    impl HttpService for Fake {
        async fn call(&self, request: Request<Bytes>) -> std::result::Result<Response<Bytes>, HttpError> {
            self.requests.borrow_mut().push(request);
            let mut response = Response::new(Bytes::from_static(self.body.as_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(self.status).unwrap();
            Ok(response)
        }
    }

    fn message() -> Message {
        Message { subject: "a & b".to_owned(), text: "line 1\nline 2 é".to_owned(), id: "R1-failed".to_owned() }
    }

    async fn publish(arn: &str, status: u16, body: &'static str) -> (Result<()>, Vec<Request<Bytes>>) {
        let fake = Rc::new(Fake { requests: RefCell::default(), status, body });
        let clock = Rc::new(VirtualClock::starting_at("2026-03-02T09:00:00Z".parse().unwrap()));
        let sns = Sns::new(stand_in("http://127.0.0.1:1"), fake.clone(), clock);
        let result = sns.publish(arn, &message()).await;
        (result, fake.requests.take())
    }

    #[tokio::test]
    async fn a_message_is_a_signed_form_to_the_topics_region() {
        let (result, requests) = publish(ARN, 200, "").await;
        result.unwrap();
        let request = &requests[0];
        assert_eq!(request.uri().to_string(), "http://127.0.0.1:1/");
        assert_eq!(
            request.body().as_ref(),
            b"Action=Publish&Version=2010-03-31&TopicArn=arn%3Aaws%3Asns%3Aeu-central-1%3A000000000000%3Aalerts\
              &Subject=a%20%26%20b&Message=line%201%0Aline%202%20%C3%A9"
        );
        let authorization = request.headers()["authorization"].to_str().unwrap();
        assert!(
            authorization.starts_with("AWS4-HMAC-SHA256 Credential=stand-in/20260302/eu-central-1/sns/aws4_request")
                && authorization.contains("content-type;host;x-amz-date"),
            "{authorization}"
        );
    }

    #[tokio::test]
    async fn a_fifo_topic_gets_what_it_needs() {
        let (result, requests) = publish(&format!("{ARN}.fifo"), 200, "").await;
        result.unwrap();
        let body = String::from_utf8(requests[0].body().to_vec()).unwrap();
        assert!(body.ends_with("&MessageGroupId=hubferry&MessageDeduplicationId=R1-failed"), "{body}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_by_its_code_alone() {
        let body =
            "<ErrorResponse><Error><Code>AuthorizationError</Code><Message>zanzibar</Message></Error></ErrorResponse>";
        let (result, _) = publish(ARN, 403, body).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Forbidden, codes::NOTICE_FAILED));
        assert_eq!(error.message(), format!("publish to {ARN}: AuthorizationError (HTTP 403)"));
    }

    #[test]
    fn the_endpoint_is_that_of_the_topics_region_and_partition() {
        let sns = |config| {
            let clock = Rc::new(VirtualClock::starting_at(jiff::Timestamp::UNIX_EPOCH));
            let fake = Fake { requests: RefCell::default(), status: 200, body: "" };
            Sns::new(config, Rc::new(fake), clock)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sns = sns(SdkConfig::builder().build());
            let endpoint = |arn| sns.endpoint(&Arn::parse(arn).unwrap());
            assert_eq!(endpoint(ARN), "https://sns.eu-central-1.amazonaws.com/");
            assert_eq!(endpoint("arn:aws-cn:sns:cn-north-1:1:a"), "https://sns.cn-north-1.amazonaws.com.cn/");
        });
        assert!(Arn::parse("arn:aws:sqs:eu-central-1:1:a").is_err());
    }
}
