//! Faulty files, and the words for each.

use super::*;
use crate::config::TlsCertificate;

#[test]
fn every_fault_names_its_file() {
    let issuer = Issuer::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let (cert, pem) = issuer.pair(&["a.example"], &key);
    let (_, other) = issuer.pair(&["a.example"], &rcgen::KeyPair::generate().unwrap());
    let broken_pem = cert.replace("-----END", "----END");
    let no_x509 = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    let encrypted = pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let no_key = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
    for (text, expected) in [
        (
            String::new(),
            "tls: a.pem: holds no certificate, expected certificates in PEM, in a chain the own one first",
        ),
        (
            pem.clone(),
            "tls: a.pem: holds no certificate, expected certificates in PEM, in a chain the own one first",
        ),
        (cert.clone(), "tls: a.pem: holds no private key, expected one in PEM without a passphrase"),
        (
            format!("{cert}{encrypted}"),
            "tls: a.pem: holds no private key, expected one in PEM without a passphrase",
        ),
        (format!("{cert}{other}"), "tls: a.pem: its key does not match the certificate in a.pem"),
        (format!("{broken_pem}{pem}"), "tls: a.pem: is no PEM ("),
        (format!("{no_x509}{pem}"), "tls: a.pem: its first certificate cannot be read ("),
        (format!("{cert}{no_key}"), "tls: a.pem: its private key cannot be used ("),
    ] {
        issuer.write("a.pem", &text);
        let refused = issuer.refused(&issuer.config());
        assert!(refused.starts_with(expected), "{refused}\n{text}");
    }
    issuer.write("a.pem", format!("{pem}{cert}"));
    issuer.load();
}

#[test]
fn all_faults_are_told_at_once() {
    let issuer = Issuer::new();
    issuer.write("a.pem", "");
    issuer.ecdsa("b.pem", &["b.example"]);
    issuer.write("b.pem.ocsp", "try later");
    issuer.write("tickets", "AAAA\n");
    let missing = issuer.path("missing.pem");
    let listed = TlsCertificate { cert: missing.clone(), key: missing, ocsp: None };
    let ticket_keys = Some(issuer.path("tickets"));
    let config = TlsConfig { certificates: vec![listed], ticket_keys, ..issuer.config() };
    assert_eq!(
        issuer.refused(&config),
        "tls: missing.pem: No such file or directory (os error 2), expected a readable file of at most 1 MiB\n\
         tls: a.pem: holds no certificate, expected certificates in PEM, in a chain the own one first\n\
         tls: b.pem.ocsp: is no successful OCSP response, expected one in DER (RFC 6960)\n\
         tls.ticket_keys tickets: line 1 has 3 bytes, expected 48 or 80 in base64"
    );
}

#[test]
fn a_folder_without_certificates_is_refused() {
    let issuer = Issuer::new();
    issuer.write("a.crt", "");
    fs::create_dir(issuer.path("folder.pem")).unwrap();
    assert!(issuer.refused(&issuer.config()).ends_with("holds no *.pem file, expected at least one"));
    let lost = TlsConfig::of_directory(issuer.path("lost"));
    assert_eq!(
        issuer.refused(&lost),
        "tls.directory lost: No such file or directory (os error 2), expected a readable folder"
    );
}

#[test]
fn what_has_expired_is_used_with_a_warning() {
    let issuer = Issuer::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let issue = |file: &str, from: i32, to: i32| {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        issuer.write(file, params.signed_by(&key, &issuer.ca).unwrap().pem() + &key.serialize_pem());
    };
    issue("a.pem", 2001, 2002);
    let server = issuer.load();
    assert_eq!(server.warnings(), [TlsWarning::Expired(issuer.path("a.pem"))]);
    let expiry =
        Expiry { path: issuer.path("a.pem"), name: Some("a.example".to_owned()), not_after: 1_009_843_200 };
    assert_eq!(server.expiries(), [expiry]);
    issue("a.pem", 4000, 4001);
    server.reload().unwrap();
    assert_eq!(server.warnings(), [TlsWarning::NotYetValid(issuer.path("a.pem"))]);
    issuer.ecdsa("a.pem", &[]);
    server.reload().unwrap();
    assert_eq!(server.warnings(), [TlsWarning::NoNames(issuer.path("a.pem"))]);
}

#[test]
fn no_fault_tells_what_a_key_is() {
    let issuer = Issuer::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let (cert, pem) = issuer.pair(&["a.example"], &key);
    let secret = pem.lines().nth(1).unwrap();
    let codes = |text: &str| format!("{:?}", text.as_bytes()).trim_matches(['[', ']']).to_owned();
    for (broken, said) in [
        (pem.replace('\n', ""), "a section has no END line"),
        (pem.replace('\n', "\\n"), "a BEGIN line does not end with -----"),
        (pem.replace(secret, &format!("{secret}!")), "a section is no base64"),
    ] {
        issuer.write("a.pem", format!("{cert}{broken}"));
        let errors = ServerTls::load(&issuer.config()).unwrap_err();
        let told = format!("{errors} {errors:?}");
        assert!(told.contains(said), "{told}");
        assert!(!told.contains(&secret[..16]) && !told.contains(&codes(&secret[..8])), "{told}");
    }
}
