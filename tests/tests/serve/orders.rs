//! Orders: who may give them, and what they do.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use super::{Site, body, entry, get, output, run, shard, text, until};

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn orders_are_taken_on_the_unix_socket_and_with_a_certificate_alone() {
    let (one, two) = (shard(), shard());
    let shards = entry("s1", 1, "here", "release-1", one) + &entry("s2", 2, "here", "release-1", two);
    let mut site = Site::new(&[("a", "here")], &format!("live_release = \"release-1\"\n{shards}"));
    // What a node that crashed has left is no obstacle.
    let socket = site.folder.path().join("a.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    let left_mode = std::fs::metadata(&socket).expect("what is left").permissions().mode() & 0o777;
    site.start_all();
    let mode = || std::fs::metadata(&socket).map_or(0, |found| found.permissions().mode() & 0o777);
    assert_ne!(left_mode, 0o600, "or the next line could not tell");
    until("the socket is its owner's alone", || mode() == 0o600);
    let (unix, tcp) = (format!("unix:{}", text(&socket)), site.nodes[0].admin.to_string());

    // Questions are answered on both; orders are not.
    for node in [&unix, &tcp] {
        assert!(run("shardgatectl", &["--node", node, "shard", "list"]).contains("s1"), "{node}");
    }
    for order in [&["shard", "drain", "s1"][..], &["table", "clear", "x"], &["table", "set", "x", "s1"]] {
        let (code, error) = said(&output("shardgatectl", &[&["--node", &tcp], order].concat()));
        assert_eq!(code, Some(2), "{order:?}");
        assert!(error.contains("expected one that serves \"admin\""), "{error}");
    }

    // With TLS: a certificate of the CA is needed, and the listener's name is checked.
    let tls = site.nodes[0].orders.to_string();
    let pki = |file: &str| text(&site.folder.path().join("pki").join(file));
    let (ca, cert, key) = (pki("ca.pem"), pki("a.pem"), pki("a.key"));
    let with = ["--node", &tls, "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let name = ["--tls-name", "a.test.mesh.shardgate.internal"];
    let drained = run("shardgatectl", &[&with[..], &name, &["shard", "drain", "s1"]].concat());
    assert!(drained.contains("s1 is in drain"), "{drained}");
    let other_name = [&with[..], &["--tls-name", "b.test.mesh.shardgate.internal", "shard", "list"]].concat();
    assert_eq!(said(&output("shardgatectl", &other_name)).0, Some(2), "another name");
    assert_eq!(said(&output("shardgatectl", &["--node", &tls, "shard", "list"])).0, Some(2), "without TLS");
    let stranger = site.folder.path().join("stranger");
    run("shardgate", &["pki", "init", "--environment", "test", "--dir", &text(&stranger)]);
    run("shardgate", &["pki", "issue", "--environment", "test", "--dir", &text(&stranger), "--peer", "a"]);
    let theirs = |file: &str| text(&stranger.join(file));
    let (cert, key) = (theirs("a.pem"), theirs("a.key"));
    let forged = ["--node", &tls, "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let (code, _) = said(&output("shardgatectl", &[&forged[..], &name, &["shard", "ready", "s1"]].concat()));
    assert_eq!(code, Some(2), "a certificate of another CA");

    // The drained shard takes nothing new, and the order is shown.
    let ctl = |order: &[&str]| run("shardgatectl", &[&["--node", &unix], order].concat());
    let listed = ctl(&["shard", "list"]);
    assert!(listed.contains("drain, "), "commanded and its age: {listed}");
    let http = site.nodes[0].http;
    let serves = |room: &str| body(&get(http, &format!("/http-bind?room={room}"))).to_owned();
    for n in 0..10 {
        assert_eq!(serves(&format!("room-{n}")), two.port().to_string(), "s1 is drained");
    }
    ctl(&["shard", "ready", "s1"]);
    ctl(&["shard", "weight", "s2", "0"]);
    assert_eq!(serves("after"), one.port().to_string(), "s2 weighs nothing");
    // What discovery says next does not undo the order.
    site.discovery(&format!("live_release = \"release-1\"\n{shards}[pins]\nacme = \"release-1\"\n"));
    until("the pin is there", || site.log("a").contains("pin acme"));
    assert_eq!(serves("later"), one.port().to_string(), "s2 still weighs nothing");
    ctl(&["shard", "weight", "s2", "source"]);

    // Entries: put, moved, refused, ended.
    assert_eq!(serves("room-0"), two.port().to_string());
    assert!(ctl(&["table", "set", "room-0", "s1"]).contains("on s1 now"));
    assert_eq!(serves("room-0"), one.port().to_string(), "moved");
    let bad = [
        (&["table", "set", "room-0", "s9"][..], "shard s9 is not listed"),
        (&["table", "set", "", "s1"], "key: "),
        (&["shard", "weight", "s1", "257"], "expected 0 to 256"),
        (&["shard", "drain", "s9"], "shard s9 is not listed"),
    ];
    for (order, error) in bad {
        let (code, found) = said(&output("shardgatectl", &[&["--node", &unix][..], order].concat()));
        assert!(code == Some(2) && found.contains(error), "{order:?}: {code:?} {found}");
    }
    // Nobody is sent to a shard that takes no traffic.
    ctl(&["shard", "maint", "s2"]);
    let (code, found) = said(&output("shardgatectl", &["--node", &unix, "table", "set", "room-0", "s2"]));
    assert!(code == Some(2) && found.contains("shard s2 is in maint"), "{code:?} {found}");
    ctl(&["shard", "ready", "s2"]);
    let log = site.log("a");
    assert!(log.contains("an operator orders"), "orders are logged");
    assert!(!log.contains("room-0"), "but no names of rooms");

    // Whoever connects and says nothing keeps nobody out for longer than a handshake may take.
    let silent: Vec<TcpStream> =
        (0..70).filter_map(|_| TcpStream::connect(site.nodes[0].orders).ok()).collect();
    assert_eq!(silent.len(), 70);
    until("orders are taken again", || {
        output("shardgatectl", &[&with[..], &name, &["shard", "list"]].concat()).status.success()
    });
}
