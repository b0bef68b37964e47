//! Whom the real process trusts: a TLS server on loopback whose certificate an authority has signed that exists in this test only.
//!
//! On Lambda (which is what the process thinks it is on) the roots in the binary count, and `SSL_CERT_FILE` names others.

use std::sync::Arc;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hubferry_simulator::aws::Service;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::harness::{Harness, Variables};

/// An element of DER.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ ..=127 => out.push(u8::try_from(short).unwrap()),
        middle @ ..=255 => out.extend([0x81, u8::try_from(middle).unwrap()]),
        long => {
            out.push(0x82);
            out.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    out.extend(content);
    out
}

const SEQUENCE: u8 = 0x30;
const ECDSA_WITH_SHA256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

fn name(common: &str) -> Vec<u8> {
    let attribute = element(SEQUENCE, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &element(0x0c, &[common.as_bytes()])]);
    element(SEQUENCE, &[&element(0x31, &[&attribute])])
}

fn extension(id: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    element(SEQUENCE, &[&[0x06, 0x03, 0x55, 0x1d, id], critical, &element(0x04, &[value])])
}

fn key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()
}

/// A certificate for `subject`'s key that `issuer`'s key has signed.
fn certificate(subject: (&str, &EcdsaKeyPair), issuer: (&str, &EcdsaKeyPair), extensions: &[&[u8]]) -> Vec<u8> {
    let algorithm = element(SEQUENCE, &[&ECDSA_WITH_SHA256]);
    let public: PublicKeyX509Der<'_> = subject.1.public_key().as_der().unwrap();
    let valid = element(SEQUENCE, &[&element(0x17, &[b"200101000000Z"]), &element(0x17, &[b"491231235959Z"])]);
    let content = element(
        SEQUENCE,
        &[
            &element(0xa0, &[&[0x02, 0x01, 0x02]]),
            &[0x02, 0x01, 0x07],
            &algorithm,
            &name(issuer.0),
            &valid,
            &name(subject.0),
            public.as_ref(),
            &element(0xa3, &[&element(SEQUENCE, extensions)]),
        ],
    );
    let signature = issuer.1.sign(&SystemRandom::new(), &content).unwrap();
    element(SEQUENCE, &[&content, &algorithm, &element(0x03, &[&[0], signature.as_ref()])])
}

/// The server's side, and the authority's certificate as a file has it. `address`: what the certificate is for.
fn server(address: [u8; 4]) -> (Arc<rustls::ServerConfig>, String) {
    let (authority, middle, leaf) = (key(), key(), key());
    let may_sign = extension(0x13, true, &element(SEQUENCE, &[&[0x01, 0x01, 0xff]]));
    let is_for = extension(0x11, false, &element(SEQUENCE, &[&element(0x87, &[&address])]));
    let root = certificate(("Root", &authority), ("Root", &authority), &[&may_sign]);
    let between = certificate(("Between", &middle), ("Root", &authority), &[&may_sign]);
    let own = certificate(("Server", &leaf), ("Between", &middle), &[&is_for]);
    let private = leaf.to_pkcs8v1().unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(private.as_ref().to_vec()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from(own), CertificateDer::from(between)];
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, private).unwrap();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&root));
    (Arc::new(config), pem)
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

/// What stands behind TLS.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behind {
    HubSpot,
    Aws,
}

/// An import by a process for which `behind` is a server with a certificate for `address`; whether it names the authority. The
/// outcome, what the answer and the log say, and how many calls HubSpot got.
async fn import(behind: Behind, address: [u8; 4], named: bool) -> (String, String, usize) {
    let mut harness = Harness::boot().await;
    let (server, authority) = server(address);
    let mut variables = Vec::new();
    let mut config = harness.config("");
    match behind {
        Behind::HubSpot => {
            let plain = harness.address().to_owned();
            let tls = harness.behind_tls(&plain, server).await;
            config = config.replace(&plain, &tls);
        }
        Behind::Aws => {
            let plain = harness.cloud.addresses().url(Service::S3);
            let tls = harness.behind_tls(&plain, server).await;
            variables.push(("AWS_ENDPOINT_URL_S3", Some(tls)));
        }
    }
    variables.push(("HUBFERRY_CONFIG", Some(harness.config_file(&config))));
    if named {
        variables.push(("SSL_CERT_FILE", Some(harness.file("authority.pem", &authority))));
    }
    let process = harness.process_with(&Variables(variables));
    let event = harness.upload("incoming/contacts/a.csv", "email,firstname\nada@example.com,Ada\n");
    // The SDK tries five times, with pauses; HubSpot is tried for half of the time that there is.
    let answer = harness.invoke_within(&event, 30).await;
    let (outcome, said) = match answer {
        Ok(report) => (report["outcome"].as_str().unwrap_or_default().to_owned(), report["error"].to_string()),
        Err(error) => (error.to_string(), String::new()),
    };
    let calls = harness.portal().log().len();
    (outcome, format!("{said}\n{}", process.log()), calls)
}

#[tokio::test]
async fn an_authority_that_nobody_carries_is_refused_and_the_log_says_what_to_do() {
    for behind in [Behind::HubSpot, Behind::Aws] {
        let (outcome, log, calls) = import(behind, LOOPBACK, false).await;
        assert_ne!(outcome, "done", "{behind:?}");
        let told = format!("{outcome}\n{log}");
        let says = |line: &str| line.contains("UnknownIssuer") && line.contains("SSL_CERT_FILE names a file");
        assert!(told.lines().any(says), "{behind:?}: {told}");
        if behind == Behind::HubSpot {
            assert_eq!(calls, 0, "nothing was sent to whom nobody vouches for");
        }
    }
}

#[tokio::test]
async fn an_authority_that_is_named_is_trusted_by_both_clients() {
    for behind in [Behind::HubSpot, Behind::Aws] {
        let (outcome, log, calls) = import(behind, LOOPBACK, true).await;
        assert_eq!(outcome, "done", "{behind:?}\n{log}");
        assert!(calls > 0);
    }
}

#[tokio::test]
async fn a_certificate_of_another_host_is_refused_whoever_has_signed_it() {
    for behind in [Behind::HubSpot, Behind::Aws] {
        let (outcome, log, _) = import(behind, [127, 0, 0, 9], true).await;
        assert_ne!(outcome, "done", "{behind:?}");
        assert!(format!("{outcome}{log}").contains("invalid peer certificate"), "{behind:?}: {outcome}\n{log}");
    }
}
