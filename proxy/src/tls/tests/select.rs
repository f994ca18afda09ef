//! Which certificate a client gets.

use super::*;

#[test]
fn the_exact_name_then_the_wildcard_then_the_first() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["first.example", "alias.example"]);
    issuer.ecdsa("b.pem", &["*.site.example"]);
    issuer.ecdsa("c.pem", &["exact.site.example"]);
    let (server, client) = (issuer.load(), issuer.client());
    for (name, expected) in [
        ("first.example", "first.example"),
        ("ALIAS.example", "first.example"),
        ("exact.site.example", "exact.site.example"),
        ("any.Site.example", "*.site.example"),
    ] {
        assert!(client.names(&server, name).iter().any(|shown| shown.contains(expected)), "{name}");
    }
    for name in ["two.labels.site.example", "site.example", "elsewhere.test"] {
        assert_eq!(shown(&issuer, &server, Some(name), &ALL_SCHEMES), "a.pem", "{name}");
    }
    assert_eq!(shown(&issuer, &server, None, &ALL_SCHEMES), "a.pem");
}

/// The file of what a client of that kind is shown, whether it would trust it or not.
fn shown(issuer: &Issuer, server: &ServerTls, name: Option<&str>, schemes: &[SignatureScheme]) -> String {
    let material = Material::read(&server.judged().config);
    let provider = intermediate();
    let certificates: Vec<Certificate> = material
        .certificates
        .iter()
        .map(|files| Certificate::parse(files, &provider, now()).unwrap())
        .collect();
    let (resolver, _) = Resolver::new(&certificates);
    let chosen = resolver.choose(name, schemes).unwrap();
    let file = certificates.iter().find(|certificate| certificate.certified.cert == chosen.cert).unwrap();
    file.path.strip_prefix(issuer.folder.path()).unwrap().display().to_string()
}

#[test]
fn a_client_without_sni_gets_the_default() {
    let issuer = Issuer::new();
    issuer.ecdsa("b.pem", &["b.example"]);
    issuer.ecdsa("a.pem", &["a.example"]);
    let client = issuer.client().with(|config| config.enable_sni = false);
    assert!(client.shake(&issuer.load().config(Alpn::Http1), "a.example").is_ok());
}

#[test]
fn a_listed_certificate_is_the_default_before_those_of_the_folder() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    issuer.ecdsa("z.crt", &["z.example"]);
    let cert = issuer.path("z.crt");
    let listed = crate::config::TlsCertificate { key: cert.clone(), cert, ocsp: None };
    let config = TlsConfig { certificates: vec![listed], ..issuer.config() };
    let server = ServerTls::load(&config).unwrap();
    assert_eq!(shown(&issuer, &server, None, &ALL_SCHEMES), "z.crt");
    assert_eq!(shown(&issuer, &server, Some("a.example"), &ALL_SCHEMES), "a.pem");
}

#[test]
fn rsa_and_ecdsa_stand_side_by_side() {
    let issuer = Issuer::new();
    issuer.issue("a.pem.rsa", &["a.example"], &rsa_key());
    issuer.ecdsa("a.pem.ecdsa", &["a.example"]);
    let server = issuer.load();
    let config = server.config(Alpn::Http1);
    assert_eq!(server.warnings(), []);
    for versions in [BOTH, ONLY_12] {
        let all = issuer.client().verifying(&ALL_SCHEMES, versions);
        let rsa = issuer.client().verifying(&RSA_SCHEMES, versions);
        let none = issuer.client().verifying(&[SignatureScheme::ED25519], versions);
        assert_eq!(all.shake(&config, "a.example").unwrap().kind_of_key(), SignatureAlgorithm::ECDSA);
        assert_eq!(shown(&issuer, &server, Some("a.example"), &RSA_SCHEMES), "a.pem.rsa");
        assert_eq!(shown(&issuer, &server, None, &RSA_SCHEMES), "a.pem.rsa");
        assert_eq!(rsa.shake(&config, "a.example").unwrap().kind_of_key(), SignatureAlgorithm::RSA);
        assert!(none.shake(&config, "a.example").is_err());
    }
}

#[test]
fn an_unusable_exact_one_gives_way_to_a_usable_wildcard() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    issuer.issue("b.pem", &["*.example"], &rsa_key());
    let server = issuer.load();
    assert_eq!(shown(&issuer, &server, Some("a.example"), &RSA_SCHEMES), "b.pem");
    assert_eq!(shown(&issuer, &server, Some("a.example"), &ALL_SCHEMES), "a.pem");
}

#[test]
fn of_two_of_a_kind_the_first_is_shown_and_the_other_told() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example", "b.example"]);
    issuer.ecdsa("b.pem", &["b.example"]);
    let server = issuer.load();
    assert_eq!(shown(&issuer, &server, Some("b.example"), &ALL_SCHEMES), "a.pem");
    let (path, by) = (issuer.path("b.pem"), issuer.path("a.pem"));
    assert_eq!(server.warnings(), [TlsWarning::Hidden { name: "b.example".to_owned(), path, by }]);
}

#[test]
fn a_staple_is_sent_with_its_certificate() {
    let issuer = Issuer::new();
    issuer.numbered("a.pem", "a.example", &[0x81, 7]);
    issuer.ecdsa("b.pem", &["b.example"]);
    let staple = response(&[0, 0x81, 7], Some("21260101000000Z"));
    issuer.write("a.pem.ocsp", &staple);
    issuer.write("b.pem.ocsp", b"");
    let server = issuer.load();
    for versions in [BOTH, ONLY_12] {
        let client = issuer.client().speaking(versions);
        client.shake(&server.config(Alpn::Http1), "a.example").unwrap();
        assert_eq!(*client.verifier.stapled.lock().unwrap(), Some(staple.clone()));
        client.shake(&server.config(Alpn::Http1), "b.example").unwrap();
        assert_eq!(*client.verifier.stapled.lock().unwrap(), None);
    }
}

#[test]
fn a_staple_that_has_ended_or_is_about_another_certificate_is_not_sent() {
    let issuer = Issuer::new();
    issuer.numbered("a.pem", "a.example", &[7]);
    issuer.numbered("b.pem", "b.example", &[8]);
    issuer.write("a.pem.ocsp", response(&[7], Some("20260101000000Z")));
    issuer.write("b.pem.ocsp", response(&[7], None));
    let server = issuer.load();
    let (a, b) = (issuer.path("a.pem"), issuer.path("b.pem"));
    assert_eq!(server.warnings(), [TlsWarning::StapleExpired(a), TlsWarning::StapleForeign(b)]);
    let client = issuer.client();
    for name in ["a.example", "b.example"] {
        client.shake(&server.config(Alpn::Http1), name).unwrap();
        assert_eq!(*client.verifier.stapled.lock().unwrap(), None, "{name}");
    }
}
