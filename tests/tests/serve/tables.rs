//! The table as operators look back on it, keep it and bring it back; sessions beside it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::audit::audited;
use super::{Site, binary, body, entry, get, output, shard, text, until};

fn ctl(site: &Site, nodes: &[&str], command: &[&str]) -> Output {
    let sockets: Vec<String> =
        nodes.iter().map(|name| text(&site.folder.path().join(format!("{name}.sock")))).collect();
    for socket in &sockets {
        until("the socket is there", || fs::metadata(socket).is_ok());
    }
    let addresses: Vec<String> = sockets.iter().map(|socket| format!("unix:{socket}")).collect();
    let options: Vec<&str> = addresses.iter().flat_map(|address| ["--node", address.as_str()]).collect();
    output("shardgatectl", &[&options[..], command].concat())
}

/// The exit code, and what was said on both ways.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Lines of JSON that a command prints.
fn rows(site: &Site, nodes: &[&str], command: &[&str]) -> Vec<Value> {
    let (code, out, error) = said(&ctl(site, nodes, &[&["--output", "json"], command].concat()));
    assert_eq!(code, Some(0), "{command:?}: {out}{error}");
    out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The summary of a load, and its exit code.
fn load(site: &Site, file: &Path, options: &[&str]) -> (Option<i32>, Value) {
    let file = text(file);
    let command = [&["--output", "json", "table", "load", &file], options].concat();
    let (code, out, error) = said(&ctl(site, &["a"], &command));
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}")))
}

/// The numbers of a summary that are not 0.
fn counted(summary: &Value) -> Vec<(&str, u64)> {
    let words = ["restored", "kept", "ended", "overtaken", "refused", "unanswered", "full"];
    words
        .into_iter()
        .map(|word| (word, summary[word].as_u64().unwrap_or(99)))
        .filter(|(_, n)| *n > 0)
        .collect()
}

fn kill(site: &mut Site, index: usize) {
    let mut child = site.nodes[index].child.take().expect("it runs");
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");
}

fn two_shards() -> String {
    let shards = entry("s1", 1, "here", "release-1", shard()) + &entry("s2", 2, "here", "release-1", shard());
    format!("live_release = \"release-1\"\n{shards}")
}

#[test]
fn what_was_decided_before_is_told_by_every_node_that_saw_it() {
    let mut site = Site::new(&[("a", "here"), ("b", "here")], &two_shards());
    site.start_all();
    let first = body(&get(site.nodes[0].http, "/conference-request/v1?room=room-1")).to_owned();
    let row = &rows(&site, &["a"], &["table", "get", "room-1"])[0];
    let (there, other) = if row["shard"] == "s1" { ("s1", "s2") } else { ("s2", "s1") };
    // A first decision is no replacement.
    let before = rows(&site, &["a"], &["table", "history", "room-1"]);
    assert_eq!((before.len(), &before[0]["what"]), (1, &"now".into()), "{before:?}");

    assert_eq!(said(&ctl(&site, &["a"], &["table", "set", "room-1", other])).0, Some(0));
    let seen = || {
        let row = rows(&site, &["b"], &["table", "get", "room-1"]);
        row[0]["shard"] == other
    };
    until("the other node has it", seen);
    let history = rows(&site, &["a", "b"], &["table", "history", "room-1"]);
    assert_eq!(history.len(), 4, "one of each node, and what stands on each: {history:?}");
    for row in &history[..2] {
        let told = [&row["what"], &row["from"], &row["shard"], &row["reason"], &row["rank"]];
        assert_eq!(told, ["replaced", there, other, "operator", "home"].map(Value::from).each_ref());
        assert_eq!((&row["from_generation"], &row["generation"]), (&1.into(), &2.into()));
    }
    assert!(history[0]["at_ms"].as_u64() <= history[1]["at_ms"].as_u64(), "by time");
    let mut nodes: Vec<_> = history[..2].iter().filter_map(|row| row["node"].as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["a", "b"]);
    assert!(history[2..].iter().all(|row| row["what"] == "now" && row["shard"] == other), "{history:?}");
    let (_, table, _) = said(&ctl(&site, &["a"], &["table", "history", "room-1"]));
    assert!(table.contains("1 > 2") && table.contains("(now)"), "{table}");
    let (code, out, _) = said(&ctl(&site, &["a"], &["table", "history", "no-such-room"]));
    assert!(code == Some(1) && out.contains("no entry"), "{code:?} {out}");
    assert_ne!(body(&get(site.nodes[1].http, "/conference-request/v1?room=room-1")), first, "it has moved");
}

#[test]
fn a_dump_brings_back_a_table_that_is_lost_and_overwrites_nothing_newer() {
    let mut site = Site::new(&[("a", "here")], &two_shards());
    let log = audited(&mut site);
    // A node that has just begun knows after five eighths of this who holds what, and takes a clear.
    site.env.push(("SHARDGATE_STICK_TABLE__EXPIRE", "12s"));
    site.start_all();
    let serves = |site: &Site, n: usize| {
        body(&get(site.nodes[0].http, &format!("/conference-request/v1?room=room-{n}"))).to_owned()
    };
    let there: Vec<String> = (0..200).map(|n| serves(&site, n)).collect();
    let dump = site.folder.path().join("table.dump");
    let (code, out, error) = said(&ctl(&site, &["a"], &["table", "dump", &text(&dump)]));
    assert!(code == Some(0) && out.starts_with("200 entries of a in "), "{out}{error}");
    assert!(!site.folder.path().join("table.dump.tmp").exists());
    let (_, printed, _) = said(&ctl(&site, &["a"], &["table", "dump", "-"]));
    assert_eq!(printed.lines().count(), 202, "header, entries, trailer");

    // What is open stays; what has ended since stays ended.
    until("it is cleared", || said(&ctl(&site, &["a"], &["table", "clear", "room-0"])).0 == Some(0));
    for n in 1..200 {
        serves(&site, n);
    }
    let (code, summary) = load(&site, &dump, &["--dry-run"]);
    assert_eq!((code, counted(&summary)), (Some(0), vec![("kept", 199), ("ended", 1)]));
    let (code, summary) = load(&site, &dump, &[]);
    assert_eq!((code, counted(&summary)), (Some(0), vec![("kept", 199), ("ended", 1)]));

    // The table is lost with its only node. One conference begins anew, elsewhere, before it is brought back.
    kill(&mut site, 0);
    site.start_all();
    assert!(!serves(&site, 5).is_empty());
    let stood = rows(&site, &["a"], &["table", "get", "room-5"])[0]["shard"].clone();
    let newer = if stood == "s1" { "s2" } else { "s1" };
    assert_eq!(said(&ctl(&site, &["a"], &["table", "set", "room-5", newer])).0, Some(0));
    let moved = serves(&site, 5);
    let (code, summary) = load(&site, &dump, &["--dry-run"]);
    assert_eq!((code, counted(&summary)), (Some(0), vec![("restored", 199), ("kept", 1)]));
    let known = rows(&site, &["a"], &["table", "show"]).len();
    assert_eq!(known, 1, "nothing came of a dry run");
    let (code, summary) = load(&site, &dump, &[]);
    assert_eq!((code, counted(&summary)), (Some(0), vec![("restored", 199), ("kept", 1)]));
    assert_eq!(serves(&site, 5), moved, "what was decided since stays");
    for (n, shard) in there.iter().enumerate().filter(|(n, _)| *n != 5) {
        assert_eq!(&serves(&site, n), shard, "room-{n}");
    }
    // A line for each that was restored, and none for others.
    let restored = || fs::read_to_string(&log).map_or(0, |text| text.matches("\"restore_entry\"").count());
    until("they are written down", || restored() >= 199);
    assert_eq!(restored(), 199);
}

#[test]
fn a_load_tells_what_it_could_not_restore_and_sends_nothing_of_a_bad_file() {
    let mut site = Site::new(&[("a", "here")], &two_shards());
    site.start_all();
    let record = |key: &str, shard: &str| {
        format!(
            "{{\"key\":\"{key}\",\"shard\":\"{shard}\",\"generation\":1,\"created_ms\":1,\"remaining_ms\":1,\"reason\":\"claim\",\"origin\":\"a\"}}\n"
        )
    };
    let file = |name: &str, records: &str, entries: usize| {
        let path = site.folder.path().join(name);
        let text = format!("{{\"shardgate_table\":1}}\n{records}{{\"entries\":{entries}}}\n");
        fs::write(&path, text).expect("it is written");
        path
    };
    assert_eq!(said(&ctl(&site, &["a"], &["shard", "maint", "s2"])).0, Some(0));
    let mixed = file("mixed", &(record("r1", "s1") + &record("r2", "s2") + &record("r3", "s9")), 3);
    let (code, summary) = load(&site, &mixed, &["--dry-run"]);
    assert_eq!((code, counted(&summary)), (Some(1), vec![("restored", 1), ("refused", 2)]));
    let (code, out, error) = said(&ctl(&site, &["a"], &["table", "load", &text(&mixed)]));
    assert_eq!(code, Some(1), "{out}{error}");
    assert!(out.contains("1 restored, 0 kept") && out.contains("2 refused"), "{out}");
    assert!(error.contains("shard s9 is not listed") && error.contains("shard s2 is in maint"), "{error}");
    assert_eq!(rows(&site, &["a"], &["table", "show"]).len(), 1);

    // Nothing is sent of a file that is not well to its end; standard input may be one.
    for (bad, error) in [
        (
            file("cut", &(record("r4", "s1") + &record("r5", "s1")), 3),
            "line 4: entries is 3, and 2 are there",
        ),
        (
            file("torn", &(record("r4", "s1") + &record("r5", "s 1")), 2),
            "line 3: shard is \"s 1\", expected 1 to 128",
        ),
    ] {
        let (code, _, told) = said(&ctl(&site, &["a"], &["table", "load", &text(&bad)]));
        assert!(
            code == Some(1) && told.contains(error) && told.contains("nothing was sent"),
            "{code:?} {told}"
        );
    }
    let (code, _, told) = said(&ctl(&site, &["a"], &["table", "load", "/no/such/file"]));
    assert!(code == Some(2) && told.contains("cannot be read"), "{code:?} {told}");
    assert_eq!(rows(&site, &["a"], &["table", "show"]).len(), 1);
    let good = file("good", &(record("r4", "s1") + &record("r5", "s1")), 2);
    let socket = format!("unix:{}", text(&site.folder.path().join("a.sock")));
    let mut child = Command::new(binary("shardgatectl"))
        .env_clear()
        .args(["--node", &socket, "table", "load", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let text_of_file = fs::read(good).expect("it was written");
    child.stdin.take().expect("a pipe").write_all(&text_of_file).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    assert!(
        done.status.success() && String::from_utf8_lossy(&done.stdout).starts_with("2 restored"),
        "{done:?}"
    );
    // Orders go where orders are taken.
    let tcp = site.nodes[0].admin.to_string();
    let refused = output("shardgatectl", &["--node", &tcp, "table", "load", &text(&mixed)]);
    let (code, _, told) = said(&refused);
    assert!(code == Some(2) && told.contains("expected one that serves \"admin\""), "{code:?} {told}");
}

/// A shard that takes a WebSocket and keeps it.
fn websocket_shard() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.38.1.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                let Ok(1..) = stream.read(&mut buffer) else { return };
                let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                if stream.write_all(head.as_bytes()).is_ok() {
                    while let Ok(1..) = stream.read(&mut buffer) {}
                }
            });
        }
    });
    address
}

fn open_tunnel(http: SocketAddr, room: &str) -> TcpStream {
    let mut stream = TcpStream::connect(http).expect("it listens");
    let head = format!(
        "GET /xmpp-websocket?room={room} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it is sent");
    let mut buffer = [0; 1024];
    let read = stream.read(&mut buffer).expect("an answer");
    let answer = String::from_utf8_lossy(&buffer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream
}

#[test]
fn sessions_are_listed_by_node_and_shard_and_closed() {
    let shards = entry("s1", 1, "here", "release-1", websocket_shard());
    let mut site =
        Site::new(&[("a", "here"), ("b", "here")], &format!("live_release = \"release-1\"\n{shards}"));
    site.start_all();
    let [a, b] = [0, 1].map(|index| site.nodes[index].http);
    let _tunnels = [open_tunnel(a, "r1"), open_tunnel(b, "r1"), open_tunnel(b, "r1"), open_tunnel(b, "r2")];
    let listed = |options: &[&str]| {
        let rows = rows(&site, &["a", "b"], &[&["sessions", "list"], options].concat());
        let mut rows: Vec<String> = rows
            .iter()
            .map(|row| {
                let node = row["node"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
                assert_eq!((&row["entry"], &row["elsewhere"]), (&row["shard"], &false.into()), "{row}");
                format!("{node} {} {} {}", row["key"], row["shard"], row["tunnels"]).replace('"', "")
            })
            .collect();
        rows.sort();
        rows
    };
    let all = ["a.sock r1 s1 1", "b.sock r1 s1 2", "b.sock r2 s1 1"];
    until("all are listed", || listed(&[]) == all);
    assert_eq!(listed(&["--key", "r1"]), all[..2]);
    assert_eq!(listed(&["--shard", "s1"]), all);
    assert!(listed(&["--shard", "s2"]).is_empty() && listed(&["--key", "r3"]).is_empty());
    let (code, out, _) = said(&ctl(&site, &["a"], &["sessions", "list", "--key", "r3"]));
    assert_eq!((code, out.as_str()), (Some(0), "no sessions\n"));
    let (code, out, _) = said(&ctl(&site, &["a", "b"], &["sessions", "close", "--key", "r1"]));
    assert!(code == Some(0) && out.contains("2 tunnels closed"), "{out}");
    until("they are closed", || listed(&[]) == all[2..]);
}
