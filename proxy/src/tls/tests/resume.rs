//! Resumption by tickets, within a node and between nodes.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A node with its own copy of the keys' file.
fn node(issuer: &Issuer, file: &str, keys: &[u8]) -> ServerTls {
    write_keys(issuer, file, keys);
    let ticket_keys = Some(issuer.path(file));
    ServerTls::load(&TlsConfig { ticket_keys, ..issuer.config() }).unwrap()
}

fn write_keys(issuer: &Issuer, file: &str, keys: &[u8]) {
    let lines: Vec<String> = keys.iter().map(|seed| STANDARD.encode([*seed; 80])).collect();
    issuer.write(file, lines.join("\n"));
}

fn kind(client: &Client, server: &ServerTls) -> HandshakeKind {
    client.shake(&server.config(Alpn::Http2AndHttp1), "a.example").unwrap().kind
}

#[test]
fn nodes_with_one_file_resume_each_others_sessions() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let (one, two) = (node(&issuer, "one", &[1, 2, 3]), node(&issuer, "two", &[1, 2, 3]));
    let stranger = node(&issuer, "stranger", &[7, 8, 9]);
    for versions in [BOTH, ONLY_12] {
        let client = issuer.client().speaking(versions);
        assert_eq!(kind(&client, &one), HandshakeKind::Full);
        assert_eq!(kind(&client, &two), HandshakeKind::Resumed);
        assert_eq!(kind(&client, &one), HandshakeKind::Resumed);
        assert_eq!(kind(&client, &stranger), HandshakeKind::Full);
    }
}

#[test]
fn a_turn_of_the_keys_keeps_sessions_for_one_step() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let server = node(&issuer, "keys", &[1, 2, 3]);
    let mut eye = Eye::new(server.clone());
    for versions in [BOTH, ONLY_12] {
        let [early, late] = [(); 2].map(|()| issuer.client().speaking(versions));
        for client in [&early, &late] {
            assert_eq!(kind(client, &server), HandshakeKind::Full);
        }
        for (keys, client, expected) in [
            (&[1, 2, 3, 4][..], &early, HandshakeKind::Resumed),
            (&[1, 2, 3, 4, 5], &late, HandshakeKind::Full),
            (&[1, 2, 3], &issuer.client(), HandshakeKind::Full),
        ] {
            write_keys(&issuer, "keys", keys);
            while !matches!(eye.look(), Sight::Used) {}
            assert_eq!(kind(client, &server), expected, "{keys:?}");
        }
    }
}

#[test]
fn without_a_file_a_reload_keeps_sessions() {
    let issuer = Issuer::new();
    issuer.ecdsa("a.pem", &["a.example"]);
    let (server, other) = (issuer.load(), issuer.load());
    for versions in [BOTH, ONLY_12] {
        let client = issuer.client().speaking(versions);
        assert_eq!(kind(&client, &server), HandshakeKind::Full);
        issuer.ecdsa("a.pem", &["a.example"]);
        server.reload().unwrap();
        assert_eq!(kind(&client, &server), HandshakeKind::Resumed);
        assert_eq!(kind(&client, &other), HandshakeKind::Full);
    }
}
