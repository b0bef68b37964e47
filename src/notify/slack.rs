//! Slack's incoming webhooks: a post to an address that is itself the secret.

use bytes::Bytes;
use http::{Request, Uri, header};
use serde_json::{Value, json};

use super::notice::Message;
use crate::{Error, Result, codes, secrets::Redacted};

/// A longer text in a secret is no address.
const ADDRESS_BYTES_MAX: usize = 2_048;

/// The address in the secret `id`: alone, or as `{"url":…}`. The error says what is wrong with it, and nothing of it.
pub(super) fn address(id: &str, secret: &Redacted) -> Result<Uri> {
    let invalid = |what: &str| {
        Error::invalid(codes::SECRET_INVALID, format!("secret `{id}`: {what}"))
            .with_hint("Store the webhook's address: https://hooks.slack.com/services/…, alone or as {\"url\":…}.")
    };
    let text = secret.expose().trim();
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let text = match &parsed {
        Some(value) => {
            let url = value.as_str().or_else(|| value.get("url").and_then(Value::as_str));
            url.ok_or_else(|| invalid("it has no `url`"))?.trim()
        }
        None => text,
    };
    if text.is_empty() || text.len() > ADDRESS_BYTES_MAX {
        return Err(invalid("it is empty, or longer than any address"));
    }
    let address: Uri = text.parse().map_err(|_| invalid("it is no address"))?;
    match (address.scheme_str(), address.host()) {
        (Some("https"), Some(_)) => Ok(address),
        // A stand-in on this machine.
        (Some("http"), Some("127.0.0.1" | "localhost" | "[::1]")) => Ok(address),
        _ => Err(invalid("it is no https address")),
    }
}

/// The request that posts a message.
pub(super) fn request(address: &Uri, message: &Message) -> Result<Request<Bytes>> {
    // What would be markup in Slack's eyes.
    let text = message.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let body = json!({ "text": text }).to_string();
    Request::post(address.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(body))
        .map_err(|_| Error::invalid(codes::SECRET_INVALID, "the webhook's address makes no request"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Uri> {
        address("hubferry/slack", &Redacted::new(text))
    }

    #[test]
    fn an_address_stands_alone_or_in_json() {
        let expected = "https://hooks.slack.com/services/T/B/x";
        for text in [
            expected.to_owned(),
            format!(" {expected}\n"),
            format!("\"{expected}\""),
            format!(r#"{{"url":"{expected}"}}"#),
        ] {
            assert_eq!(read(&text).unwrap().to_string(), expected, "{text}");
        }
        assert!(read("http://127.0.0.1:8080/services/x").is_ok());
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_shown() {
        for text in [
            "",
            "zanzibar",
            r#"{"access_token":"zanzibar"}"#,
            r#"{"url":7,"x":"zanzibar"}"#,
            "http://hooks.example.com/zanzibar",
            "https://zanzibar /x",
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.code(), codes::SECRET_INVALID, "{text}");
            assert!(!format!("{error:?} {error} {}", error.hint()).contains("zanzibar"), "{error:?}");
        }
    }

    #[test]
    fn text_is_not_taken_for_markup() {
        let message = Message { subject: String::new(), text: "a <!channel> & \"b\"\nc".to_owned(), id: String::new() };
        let request = request(&"https://h/x".parse().unwrap(), &message).unwrap();
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(body["text"], "a &lt;!channel&gt; &amp; \"b\"\nc");
    }
}
