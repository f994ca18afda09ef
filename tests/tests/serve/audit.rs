//! The audit log: each order with who gave it, from where, and what became of it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{Site, entry, get, output, run, shard, text, until};

/// A site whose nodes write their orders down there. A variable lasts as long as the test.
pub(super) fn audited(site: &mut Site) -> PathBuf {
    let path = site.folder.path().join("audit.log");
    site.env.push(("SHARDGATE_LOG__AUDIT", text(&path).leak()));
    path
}

/// Its lines, once there are so many.
fn lines(path: &PathBuf, number: usize) -> Vec<Value> {
    let read = || fs::read_to_string(path).unwrap_or_default();
    until("lines of the audit log", || read().lines().count() >= number);
    let lines: Vec<Value> =
        read().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines.len(), number, "{lines:#?}");
    lines
}

/// Whether it is a moment as RFC 3339 has it, with milliseconds.
fn is_moment(text: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() == "2026-11-24T09:30:00.123Z".len()
        && text.split(['-', 'T', ':', '.', 'Z']).all(digits)
        && (&text[10..11], &text[19..20], &text[23..]) == ("T", ".", "Z")
}

#[test]
fn each_order_leaves_a_line_with_who_gave_it_and_what_became_of_it() {
    let shards = entry("s1", 1, "here", "release-1", shard()) + &entry("s2", 2, "here", "release-1", shard());
    let mut site = Site::new(&[("a", "here")], &format!("live_release = \"release-1\"\n{shards}"));
    let log = audited(&mut site);
    site.start_all();
    let socket = text(&site.folder.path().join("a.sock"));
    let (unix, plain) = (format!("unix:{socket}"), site.nodes[0].admin.to_string());
    until("the socket is there", || fs::metadata(&socket).is_ok());
    let ctl = |order: &[&str]| output("shardgatectl", &[&["--node", &unix], order].concat());

    // Questions leave nothing, orders a line each, with what was answered.
    assert!(ctl(&["status"]).status.success());
    let orders: [(&[&str], &str); 7] = [
        (&["table", "set", "room-1", "s2"], "set_entry"),
        (&["table", "clear", "room-1"], "clear"),
        (&["sessions", "close", "--key", "room-1"], "close_tunnels"),
        (&["shard", "drain", "s1"], "order_shard"),
        (&["shard", "weight", "s2", "7"], "order_shard"),
        (&["override-readiness"], "override_readiness"),
        (&["node", "drain"], "order_node"),
    ];
    let answers = orders.each_ref().map(|(order, _)| {
        let done = ctl(&[&["--output", "json"], *order].concat());
        // A clear of what has just begun may find nobody who knows that it is not held.
        assert!(done.status.code() < Some(2), "{order:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
    });
    let told = lines(&log, orders.len());
    for ((line, (words, order)), answer) in told.iter().zip(&orders).zip(&answers) {
        assert_eq!(line["order"], *order, "{line}");
        assert_eq!(line["answer"]["outcome"], answer["outcome"], "{line} {answer}");
        assert_eq!(line["result"], "answered", "{line}");
        assert!(is_moment(line["at"].as_str().unwrap_or_default()), "{line}");
        assert_eq!((&line["node"], &line["from"]), (&"a".into(), &unix.as_str().into()), "{line}");
        let who = line["who"].as_str().and_then(|who| who.strip_prefix("uid "));
        assert!(who.is_some_and(|uid| uid.parse::<u32>().is_ok()), "{line}");
        assert!(line["pid"].as_u64().is_some_and(|pid| pid > 0), "{line}");
        for word in words.iter().filter(|word| ["room-1", "s1", "s2", "7"].contains(word)) {
            assert!(line["arguments"].to_string().contains(word), "{word}: {line}");
        }
    }
    assert_eq!(told[0]["answer"]["outcome"], "set");
    assert_eq!(told[3]["arguments"], serde_json::json!({ "shard": "s1", "state": "drain" }));
    assert_eq!(told[4]["answer"], serde_json::json!({ "state": "ready", "weight": "7" }));

    // With TLS: by the certificate.
    let (tls, pki) = (site.nodes[0].orders.to_string(), site.folder.path().join("pki"));
    let file = |name: &str| text(&pki.join(name));
    run("shardgate", &["pki", "issue", "--environment", "test", "--dir", &text(&pki), "--peer", "alice"]);
    let (ca, cert, key) = (file("ca.pem"), file("alice.pem"), file("alice.key"));
    let with = ["--node", &tls, "--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let name = ["--tls-name", "a.test.mesh.shardgate.internal", "shard", "ready", "s1"];
    run("shardgatectl", &[&with[..], &name].concat());
    // What is refused, by what was said and by where it was said, is told as well.
    assert!(!ctl(&["table", "set", "room-2", "s9"]).status.success());
    assert!(!output("shardgatectl", &["--node", &plain, "table", "clear", "room-3"]).status.success());
    let told = &lines(&log, orders.len() + 3)[orders.len()..];
    assert_eq!((&told[0]["who"], &told[0]["order"]), (&"alice".into(), &"order_shard".into()), "{}", told[0]);
    let certificate = told[0]["certificate"].as_str().unwrap_or_default();
    assert!(certificate.starts_with("sha256:") && certificate.len() == 71, "{certificate}");
    assert!(told[0]["from"].as_str().is_some_and(|from| from.starts_with("127.")), "{}", told[0]);
    assert_eq!(told[1]["result"], "refused");
    assert!(told[1]["error"].as_str().is_some_and(|error| error.contains("s9 is not listed")), "{}", told[1]);
    assert_eq!((&told[2]["result"], &told[2]["who"]), (&"refused".into(), &"-".into()));
    assert_eq!(told[2]["arguments"]["key"], "room-3");

    // The file may be moved away.
    let moved = site.folder.path().join("audit.log.1");
    fs::rename(&log, &moved).expect("it is moved");
    let mut orders = 0;
    until("an order in the new file", || {
        orders += 1;
        assert!(ctl(&["node", "ready"]).status.success());
        fs::read_to_string(&log).is_ok_and(|text| text.contains("order_node"))
    });
    assert!(!site.log("a").contains("room-1"), "no names in the node's own log");
}

#[test]
fn an_order_is_carried_out_though_the_audit_log_cannot_be_written() {
    let shards = entry("s1", 1, "here", "release-1", shard());
    let mut site = Site::new(&[("a", "here")], &format!("live_release = \"release-1\"\n{shards}"));
    site.env.push(("SHARDGATE_LOG__AUDIT", "/dev/full"));
    site.start_all();
    let socket = text(&site.folder.path().join("a.sock"));
    until("the socket is there", || fs::metadata(&socket).is_ok());
    let drained = run("shardgatectl", &["--node", &format!("unix:{socket}"), "shard", "drain", "s1"]);
    assert!(drained.contains("s1 is in drain"), "{drained}");
    until("it is counted", || {
        get(site.nodes[0].admin, "/metrics").contains("shardgate_audit_log_lost_total 1")
    });
    assert!(site.log("a").contains("the audit log cannot be written"), "{}", site.log("a"));
}
