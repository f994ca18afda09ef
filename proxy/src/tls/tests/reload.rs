//! Files that change.

use super::*;
use crate::config::TlsCertificate;

/// Looks as the watch does until it has an opinion.
fn look(eye: &mut Eye) -> Sight {
    loop {
        match eye.look() {
            Sight::Moving => {}
            sight @ (Sight::Still | Sight::Used | Sight::Refused(_)) => return sight,
        }
    }
}

#[test]
fn new_files_are_used_and_faulty_ones_are_not() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let server = issuer.load();
    let mut eye = Eye::new(server.clone());
    assert!(matches!(look(&mut eye), Sight::Still));
    // A client of its own each time: one that resumes is shown no certificate.
    let shown =
        |name: &str| issuer.client().shake(&server.config(Alpn::Http1), name).map(|shaken| shaken.own);
    let first = shown("a.example").unwrap();

    issuer.ecdsa("a.pem", &["a.example"]);
    assert!(matches!(look(&mut eye), Sight::Used));
    let second = shown("a.example").unwrap();
    assert_ne!(first, second);

    issuer.write("b.pem", "nonsense");
    assert!(matches!(look(&mut eye), Sight::Refused(_)));
    assert!(matches!(look(&mut eye), Sight::Still), "told once");
    assert_eq!(shown("a.example").unwrap(), second);
    issuer.ecdsa("b.pem", &["b.example"]);
    assert!(matches!(look(&mut eye), Sight::Used));
    assert!(shown("b.example").is_ok());

    fs::remove_file(issuer.path("b.pem")).unwrap();
    assert!(matches!(look(&mut eye), Sight::Used));
    assert!(shown("b.example").is_err(), "the default is shown, which the client does not want");
    fs::remove_file(issuer.path("a.pem")).unwrap();
    assert!(matches!(look(&mut eye), Sight::Refused(_)));
    assert_eq!(shown("a.example").unwrap(), second);
    assert_eq!(server.counts(), TlsCounts { reloads: 3, refused: 2 });
}

#[test]
fn a_certificate_and_its_key_are_replaced_one_after_the_other() {
    let issuer = Issuer::new();
    let write = |(cert, key): (String, String)| (issuer.write("a.crt", cert), issuer.write("a.key", key));
    let pair = || issuer.pair(&["a.example"], &rcgen::KeyPair::generate().unwrap());
    write(pair());
    let listed = TlsCertificate { cert: issuer.path("a.crt"), key: issuer.path("a.key"), ocsp: None };
    let config = TlsConfig { directory: None, certificates: vec![listed], ..issuer.config() };
    let server = ServerTls::load(&config).unwrap();
    let mut eye = Eye::new(server.clone());
    let shown = || issuer.client().shake(&server.config(Alpn::Http1), "a.example").unwrap().own;
    for _ in 0..10 {
        let before = shown();
        let (cert, key) = pair();
        issuer.write("a.crt", cert);
        let Sight::Refused(errors) = look(&mut eye) else { panic!("a mismatch was used") };
        assert!(matches!(errors.0[..], [TlsError::Mismatch { .. }]), "{errors}");
        assert_eq!(shown(), before);
        issuer.write("a.key", key);
        assert!(matches!(look(&mut eye), Sight::Used));
        assert_ne!(shown(), before);
    }
}

#[test]
fn half_a_file_is_waited_for() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let mut eye = Eye::new(issuer.load());
    let (cert, key) = issuer.pair(&["a.example"], &rcgen::KeyPair::generate().unwrap());
    fs::write(issuer.path("a.pem"), &cert).unwrap();
    assert!(matches!(eye.look(), Sight::Moving));
    fs::write(issuer.path("a.pem"), format!("{cert}{key}")).unwrap();
    assert!(matches!(eye.look(), Sight::Moving));
    assert!(matches!(eye.look(), Sight::Used));
}

#[test]
fn the_section_itself_changes_in_two_halves() {
    let (old, new) = (Issuer::new(), Issuer::new());
    old.ecdsa("a.pem", &["a.example"]);
    let server = old.load();
    let mut eye = Eye::new(server.clone());
    assert!(server.prepare(&new.config()).is_err());
    new.ecdsa("a.pem", &["a.example"]);
    let prepared = server.prepare(&new.config()).unwrap();
    assert!(old.client().shake(&server.config(Alpn::Http1), "a.example").is_ok());
    server.apply(prepared);
    assert!(new.client().shake(&server.config(Alpn::Http1), "a.example").is_ok());
    assert!(matches!(look(&mut eye), Sight::Still));
    old.write("a.pem", "nonsense");
    assert!(matches!(look(&mut eye), Sight::Still), "the old folder is not looked at any more");
    server.reload().unwrap();
    new.write("a.pem", "nonsense");
    assert!(server.reload().is_err());
    assert_eq!(server.counts(), TlsCounts { reloads: 2, refused: 1 });
}

#[tokio::test]
async fn the_watch_sees_a_change_and_stops() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let server = issuer.load();
    let every = Duration::from_millis(20);
    let watch = server.watch(TlsWatchConfig { every, settle: Duration::from_millis(5) });
    issuer.ecdsa("a.pem", &["a.example"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.counts().reloads == 0 {
        assert!(Instant::now() < deadline, "the change was not seen");
        tokio::time::sleep(every).await;
    }
    watch.stop().await;
}

#[test]
fn a_staple_in_use_ends_without_any_change_of_files() {
    let issuer = Issuer::new();
    issuer.numbered("a.pem", "a.example", &[7]);
    let soon = now() + 2;
    let end = x509_parser::time::ASN1Time::from_timestamp(soon).unwrap().to_datetime();
    let (date, time) = (end.date(), end.time());
    let end = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    issuer.write("a.pem.ocsp", response(&[7], Some(&end)));
    let server = issuer.load();
    assert!(server.warnings().is_empty() || now() >= soon);
    let mut eye = Eye::new(server.clone());
    let until = Instant::now() + Duration::from_secs(20);
    while server.warnings().is_empty() {
        assert!(Instant::now() < until, "still stapled");
        drop(eye.look());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.warnings(), [TlsWarning::StapleExpired(issuer.path("a.pem"))]);
    assert!(matches!(eye.look(), Sight::Still));
}
