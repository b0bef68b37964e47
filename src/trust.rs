//! Whose certificates are trusted.
//!
//! On Lambda these are Mozilla's, from the binary: reading the machine's own, files and folders, once for each of the two HTTP clients, would take
//! several times as long as all else that happens before the first invocation. Elsewhere the machine's own count, where a company may have added its
//! proxy's; and so they do on Lambda where `SSL_CERT_FILE` or `SSL_CERT_DIR` says which.
//! See docs/decisions/0017-what-the-artefact-carries.md.

use std::env;

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// What rustls says of a certificate whose authority is not among those that are trusted.
const UNKNOWN_ISSUER: &str = "invalid peer certificate: UnknownIssuer";

/// What to do then.
const UNKNOWN: &str = " (the authority that signed the certificate is not trusted here; where it is meant to be, SSL_CERT_FILE names a file with its certificate and all others that count)";

/// The text of a failed connection, with what to do where the reason is that nobody vouches for the other side.
pub(crate) fn explained(mut text: String) -> String {
    if text.contains(UNKNOWN_ISSUER) && !text.contains(UNKNOWN) {
        text.push_str(UNKNOWN);
    }
    text
}

/// As certificates are written: nobody's reader minds lines of 64.
const LINE: usize = 64;

/// Whether the roots in the binary are the ones to trust.
fn are_carried() -> bool {
    decide(|name| env::var_os(name).is_some())
}

fn decide(is_set: impl Fn(&str) -> bool) -> bool {
    is_set("AWS_LAMBDA_RUNTIME_API") && !is_set("SSL_CERT_FILE") && !is_set("SSL_CERT_DIR")
}

/// The AWS clients' HTTP client with the roots in the binary; `None` where the machine's own count, as by default.
pub(crate) fn for_aws() -> Option<SharedHttpClient> {
    if !are_carried() {
        return None;
    }
    let store = TrustStore::empty().with_pem_certificate(pem());
    let context = TlsContext::builder().with_trust_store(store).build().ok()?;
    Some(Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context).build_https())
}

/// The CRMs' HTTP client, likewise.
pub(crate) fn for_crms(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    if !are_carried() {
        return builder;
    }
    // Each is a certificate; one that could not be read would be missing, which no connection takes for trust.
    builder.tls_certs_only(TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| reqwest::Certificate::from_der(der).ok()))
}

/// As text: the only form in which the SDK takes them.
fn pem() -> String {
    let bytes: usize = TLS_SERVER_ROOT_CERTS.iter().map(|der| der.len() * 3 / 2 + 2 * LINE).sum();
    let mut text = String::with_capacity(bytes);
    for der in TLS_SERVER_ROOT_CERTS {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(der);
        let mut rest = encoded.as_str();
        while let Some((line, after)) = rest.split_at_checked(LINE.min(rest.len())).filter(|(line, _)| !line.is_empty())
        {
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_in_the_binary_count_on_lambda_alone_and_only_where_no_others_are_named() {
        for (set, expected) in [
            (&["AWS_LAMBDA_RUNTIME_API"][..], true),
            (&[], false),
            (&["SSL_CERT_FILE"], false),
            (&["AWS_LAMBDA_RUNTIME_API", "SSL_CERT_FILE"], false),
            (&["AWS_LAMBDA_RUNTIME_API", "SSL_CERT_DIR"], false),
        ] {
            assert_eq!(decide(|name| set.contains(&name)), expected, "{set:?}");
        }
    }

    #[test]
    fn the_roots_of_everybody_whom_hubferry_calls_are_carried() {
        // As they stand in the certificates, which are not parsed here: a name is text there.
        let names =
            |name: &str| TLS_SERVER_ROOT_CERTS.iter().any(|der| memchr::memmem::find(der, name.as_bytes()).is_some());
        for name in [
            // amazonaws.com, and whom it chains to in old stores.
            "Amazon Root CA 1",
            "Amazon Root CA 2",
            "Amazon Root CA 3",
            "Amazon Root CA 4",
            "Starfield Services Root Certificate Authority - G2",
            // api.hubapi.com stands behind an edge that takes certificates of any of these.
            "GTS Root R1",
            "GTS Root R4",
            "ISRG Root X1",
            "SSL.com Root Certification Authority ECC",
            "DigiCert Global Root G2",
            // *.my.salesforce.com and login.salesforce.com; hooks.slack.com.
            "DigiCert TLS RSA4096 Root G5",
        ] {
            assert!(names(name), "{name}");
        }
        assert!(!names("No Such Root CA 9"), "a search that finds everything proves nothing");
    }

    #[test]
    fn a_certificate_that_nobody_vouches_for_is_told_with_what_to_do_about_it() {
        let told = explained(
            "error sending request: client error (Connect): invalid peer certificate: UnknownIssuer".to_owned(),
        );
        assert!(told.ends_with(UNKNOWN) && UNKNOWN.contains("SSL_CERT_FILE"), "{told}");
        for other in ["connection refused", "invalid peer certificate: NotValidForName", ""] {
            assert_eq!(explained(other.to_owned()), other);
        }
        assert_eq!(explained(told.clone()), told, "once is enough");
    }

    #[test]
    fn every_root_survives_being_written_as_text_and_both_clients_take_them_all() {
        assert!(TLS_SERVER_ROOT_CERTS.len() > 100);
        // What a reader of certificates makes of the text.
        let text = pem();
        let ders: Vec<Vec<u8>> = text
            .split("-----BEGIN CERTIFICATE-----\n")
            .skip(1)
            .map(|one| STANDARD.decode(one.split("-----END").next().unwrap().replace('\n', "")).unwrap())
            .collect();
        assert!(ders.iter().map(Vec::as_slice).eq(TLS_SERVER_ROOT_CERTS.iter().map(AsRef::as_ref)));
        assert_eq!(reqwest::Certificate::from_pem_bundle(text.as_bytes()).unwrap().len(), TLS_SERVER_ROOT_CERTS.len());
        let all = TLS_SERVER_ROOT_CERTS.iter().map(|der| reqwest::Certificate::from_der(der).unwrap());
        assert!(reqwest::Client::builder().tls_certs_only(all).build().is_ok());
    }
}
