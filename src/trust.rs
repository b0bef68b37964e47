//! Whose certificates are trusted.
//!
//! On Lambda these are Mozilla's, from the binary: reading the machine's own, files and folders, once for each of the two HTTP clients, would take
//! several times as long as all else that happens before the first invocation. Elsewhere the machine's own count, where a company may have added its
//! proxy's; and so they do on Lambda where `SSL_CERT_FILE` or `SSL_CERT_DIR` says which.
//! See docs/decisions/0017-what-the-artefact-carries.md.

use std::{
    env,
    sync::{Arc, OnceLock},
};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_platform_verifier::BuilderVerifierExt;
use webpki_roots::TLS_SERVER_ROOTS;

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

/// Whether the roots in the binary are the ones to trust.
fn are_carried() -> bool {
    decide(|name| env::var_os(name).is_some())
}

fn decide(is_set: impl Fn(&str) -> bool) -> bool {
    is_set("AWS_LAMBDA_RUNTIME_API") && !is_set("SSL_CERT_FILE") && !is_set("SSL_CERT_DIR")
}

/// How every HTTP client speaks TLS. Built once: what one process trusts does not change.
pub(crate) fn tls() -> ClientConfig {
    static TLS: OnceLock<ClientConfig> = OnceLock::new();
    TLS.get_or_init(|| if are_carried() { carried() } else { machine() }).clone()
}

/// The roots in the binary, which need not be parsed.
fn carried() -> ClientConfig {
    of(TLS_SERVER_ROOTS.iter().cloned().collect())
}

/// The machine's own. Without any there is no trust, and each connection fails with what to do about it.
fn machine() -> ClientConfig {
    match builder().with_platform_verifier() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(error) => {
            tracing::error!("no certificates to trust can be read on this machine: {error}");
            of(RootCertStore::empty())
        }
    }
}

fn of(roots: RootCertStore) -> ClientConfig {
    builder().with_root_certificates(roots).with_no_client_auth()
}

#[expect(clippy::expect_used, reason = "the provider is a constant, and every test that makes a call builds it")]
fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc has TLS 1.2 and 1.3")
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
        let names = |name: &str| {
            TLS_SERVER_ROOTS.iter().any(|root| memchr::memmem::find(&root.subject, name.as_bytes()).is_some())
        };
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
    fn the_carried_roots_are_those_of_a_browser_and_the_crms_client_takes_them() {
        assert!(TLS_SERVER_ROOTS.len() > 100);
        // reqwest takes a configuration of its own version of rustls only, which nobody but it checks.
        assert!(reqwest::Client::builder().tls_backend_preconfigured(carried()).build().is_ok());
    }
}
