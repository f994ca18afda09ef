//! What bad input gets: `ops/doc/bad-input.md` is what the real binary, and the frame decoder, say today. With
//! `SHARDGATE_REGENERATE=1` the table is written anew; a change of a message shows as a change of that file.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod cases;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/doc/bad-input.md");

const HEAD: &str = "# What bad input gets

Every line is what the binary of this version says; `tests/tests/bad_input` asks it and compares. Bad input costs nothing else: no
other connection, no entry, no peer is affected.
";

#[test]
fn bad_input_gets_the_documented_message() {
    let mut document = HEAD.to_owned();
    let mut rows = 0;
    let mut section = |title: &str, head: &str, list: Vec<(String, String)>| {
        write!(document, "\n## {title}\n\n| {head} | answer |\n|---|---|\n").unwrap();
        for (input, answer) in list {
            writeln!(document, "| {} | {} |", cell(&input), cell(&answer)).unwrap();
            rows += 1;
        }
    };
    section("Configuration", "`shardgate check` on", configurations());
    section("Discovery file", "`shardgate check` with a discovery file", discovery_files());
    section("Requests", "bytes from a client", requests());
    section("Peer frames", "frame from a peer", frames());
    assert!(rows >= 30, "{rows} rows");
    if std::env::var_os("SHARDGATE_REGENERATE").is_some() {
        fs::write(DOCUMENT, &document).unwrap();
    }
    let kept = fs::read_to_string(DOCUMENT).unwrap_or_default();
    for (now, then) in document.lines().zip(kept.lines()) {
        assert_eq!(now, then, "ops/doc/bad-input.md is stale");
    }
    assert_eq!(document, kept, "ops/doc/bad-input.md is stale");
}

/// Text as a cell of a Markdown table.
fn cell(text: &str) -> String {
    let text = text.replace('|', "\\|").replace('\r', "␍").replace('\n', "␊");
    let text: String = text.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    if text.chars().count() > 240 {
        format!("`{}…`", text.chars().take(240).collect::<String>())
    } else {
        format!("`{text}`")
    }
}

fn binary() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent().and_then(Path::parent).unwrap().join("shardgate")
}

/// What `check` says, without the folder's name and without the hint.
fn check(folder: &Path, file: &str) -> String {
    let output = Command::new(binary()).env_clear().args(["check"]).arg(folder.join(file)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let said = said.replace(&format!("{}/", folder.display()), "");
    said.lines().filter(|line| !line.starts_with("hint:")).collect::<Vec<_>>().join("\n")
}

const MINIMAL: &str = "[node]\nid = \"a\"\nregion = \"r\"\n[discovery]\nfile = \"discovery.toml\"\n";

fn configurations() -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("discovery.toml"), "").unwrap();
    let answer = |text: &&str| {
        let whole = if text.starts_with("[node]") { (*text).to_owned() } else { format!("{MINIMAL}{text}") };
        fs::write(folder.path().join("shardgate.toml"), whole).unwrap();
        ((*text).to_owned(), check(folder.path(), "shardgate.toml"))
    };
    cases::CONFIGURATIONS.iter().map(answer).collect()
}

fn discovery_files() -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shardgate.toml"), MINIMAL).unwrap();
    let answer = |text: &&str| {
        fs::write(folder.path().join("discovery.toml"), text).unwrap();
        ((*text).to_owned(), check(folder.path(), "shardgate.toml"))
    };
    cases::DISCOVERY_FILES.iter().map(answer).collect()
}

/// A real node, alone, with one shard that nobody answers for.
struct Node {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.37.0.1:0").unwrap().local_addr().unwrap()
}

fn start() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let (address, admin, nobody) = (free(), free(), free());
    let shard = format!(
        "[[shards]]\nname = \"s1\"\nid = 1\nregion = \"r\"\nrelease = \"release-1\"\naddress = \"{nobody}\"\n"
    );
    fs::write(folder.path().join("discovery.toml"), shard).unwrap();
    let limits = format!(
        "[frontend]\nlisten = [\"{address}\"]\nworkers = 1\nheader_timeout = \"300ms\"\nclient_timeout = \"300ms\"\n\
         [backend]\nretries = 0\n[[admin]]\nlisten = \"{admin}\"\nserve = [\"status\"]\n"
    );
    fs::write(folder.path().join("shardgate.toml"), format!("{MINIMAL}{limits}")).unwrap();
    let mut command = Command::new(binary());
    command.env_clear().arg("serve").arg("--config").arg(folder.path().join("shardgate.toml"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let node = Node { child, address, _folder: folder };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ask(admin, b"GET /readyz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200") {
        assert!(Instant::now() < deadline, "the node is not ready within 10 s");
        std::thread::yield_now();
    }
    node
}

/// Sends bytes and reads until the other side closes or is silent for a while.
fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // The other side may have closed before all was written: its answer is still there.
    drop(stream.write_all(bytes));
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let complete = text
            .split_once("\r\n\r\n")
            .is_some_and(|(_, body)| !body.is_empty() || text.contains("ength: 0"));
        if complete {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn requests() -> Vec<(String, String)> {
    let node = start();
    let answer = |(bytes, shown): &(Vec<u8>, String)| {
        let answer = ask(node.address, bytes);
        let status = answer.lines().next().unwrap_or("(closed without an answer)").to_owned();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let said = body.lines().find(|line| !line.contains('<')).unwrap_or_default();
        let line = if said.is_empty() { status } else { format!("{status}: {said}") };
        (shown.clone(), line)
    };
    let list = cases::requests().iter().map(answer).collect();
    // The node still serves: its only shard is not there, and it says so.
    assert!(
        ask(node.address, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 503")
    );
    list
}

fn frames() -> Vec<(String, String)> {
    let answer = |(what, bytes): &(&str, Vec<u8>)| {
        let said = match shardgate_peering::codec::decode(bytes) {
            Ok(messages) if messages.is_empty() => "skipped".to_owned(),
            Ok(messages) => panic!("{what} is a {}", messages[0].kind()),
            Err(error) => error.to_string(),
        };
        ((*what).to_owned(), said)
    };
    cases::frames().iter().map(answer).collect()
}
