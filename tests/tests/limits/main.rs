//! What the real daemon refuses, in a process of its own: descriptors that run out, and clients over HTTP/2 and TLS.

use shardgate_tests::certificates::Authority;
use shardgate_tests::plain_shard;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A built binary of the same profile as this test.
fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    this.parent().and_then(Path::parent).expect("a test stands in target/PROFILE/deps").join(name)
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.71.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        std::thread::yield_now();
    }
}

/// A node with files in a folder of its own.
struct Node {
    folder: tempfile::TempDir,
    http: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Node {
    /// Starts a node behind `before`, the words of a command that runs another one. `more` is added to its configuration; `FOLDER` in it
    /// is the folder.
    fn start(before: &[&str], more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let (http, admin) = (free_tcp(), free_tcp());
        let at = |name: &str| folder.path().join(name);
        fs::write(
            at("discovery.toml"),
            format!(
                "live_release = \"r\"\n[[shards]]\nname = \"s1\"\nid = 1\nregion = \"here\"\nrelease = \"r\"\naddress = \"{}\"\n",
                plain_shard::serve("127.71.1.1", "ok").expect("an address of this machine")
            ),
        )
        .expect("the discovery file is written");
        let config = format!(
            "[node]\nid = \"limits\"\nregion = \"here\"\n[frontend]\nlisten = [\"{http}\"]\nworkers = 1\n\
             [discovery]\nfile = \"discovery.toml\"\n[shutdown]\ndrain = \"1s\"\n\
             [[admin]]\nlisten = \"{admin}\"\nserve = [\"metrics\", \"status\"]\n{}",
            more.replace("FOLDER", &at("").display().to_string())
        );
        fs::write(at("shardgate.toml"), config).expect("the configuration is written");
        let log = fs::File::create(at("log")).expect("a log file");
        let daemon = binary("shardgate").display().to_string();
        let words: Vec<&str> = before.iter().copied().chain([daemon.as_str()]).collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["serve", "--config"])
            .arg(at("shardgate.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let node = Self { folder, http, admin, child };
        until("ready", || ask(node.admin, "/readyz").starts_with("HTTP/1.1 200"));
        node
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A number of `/metrics`.
    fn metric(&self, name: &str) -> u64 {
        number(&ask(self.admin, "/metrics"), name)
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metric(&refused(reason))
    }

    /// The lowest number that no open file has.
    fn lowest_free(&self) -> u64 {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs");
        let open: Vec<u64> = folder
            .filter_map(|entry| entry.expect("an entry of /proc").file_name().to_str()?.parse().ok())
            .collect();
        (0..).find(|number| !open.contains(number)).expect("one is free")
    }

    fn limit_open_files(&self, limit: u64) {
        let pid = self.child.id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]).status();
        assert!(limited.expect("prlimit starts").success());
    }
}

fn refused(reason: &str) -> String {
    format!("shardgate_refused_total{{reason=\"{reason}\"}}")
}

fn number(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
}

/// One request on a connection of its own; empty when there is no answer.
fn ask(address: SocketAddr, target: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address)
        && write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").is_ok()
    {
        // A reset after the answer is still an answer.
        drop(stream.read_to_end(&mut answer));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// One request on a connection that stays open.
fn ask_on(mut stream: &TcpStream, target: &str) -> String {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").expect("it is open");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let ends: [&[u8]; 3] = [b"ok", b"</html>\n", b"# EOF\n"];
    while !ends.iter().any(|end| answer.ends_with(end)) {
        match stream.read(&mut buffer) {
            Ok(bytes @ 1..) => answer.extend_from_slice(&buffer[..bytes]),
            Ok(_) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether the other side has closed a connection on which nothing was sent.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn clients_leave_some_descriptors_for_the_rest() {
    let node = Node::start(&["prlimit", "--nofile=64:64"], "");
    assert!(node.log().contains("frontend.max_connections cannot be reached"), "{}", node.log());
    // Looked at over a connection that stays: one that comes and goes leaves its number to a client.
    let admin = TcpStream::connect(node.admin).expect("it listens");
    let metric = |name: &str| number(&ask_on(&admin, "/metrics"), name);
    assert_eq!(metric("shardgate_open_files_max"), 64);
    let clients: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(node.http).expect("the kernel takes it")).collect();
    until("some are refused", || metric(&refused("descriptors")) > 0);
    // Each client is either served or told: none hangs.
    let served = clients.iter().position(is_closed).expect("the last ones are refused");
    assert!((10..56).contains(&served), "{served}");
    until("the others are told", || clients[served..].iter().all(is_closed));
    assert_eq!(metric(&refused("descriptors")), 100 - served as u64);
    // Those inside still reach the shard, and whoever looks after the node the metrics.
    for client in &clients[..served] {
        let answer = ask_on(client, "/page");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    drop(clients);
    until("there is room again", || ask(node.http, "/page").starts_with("HTTP/1.1 200"));
    let log = node.log();
    assert_eq!(log.matches("open files reach their limit").count(), 1, "{log}");
    assert_eq!(log.matches("open files are below their limit again").count(), 1, "{log}");
}

#[test]
fn without_any_descriptor_clients_are_still_told() {
    let node = Node::start(&[], "");
    // Looked at over a connection that stays, so that nothing is opened or closed by looking.
    let admin = TcpStream::connect(node.admin).expect("it listens");
    let metric = |name: &str| number(&ask_on(&admin, "/metrics"), name);
    let before = TcpStream::connect(node.http).expect("it listens");
    until("it is in", || metric("shardgate_connections_open") == 1);
    // None at all is left: every number below the limit is taken.
    let usual = metric("shardgate_open_files_max");
    node.limit_open_files(node.lowest_free());
    let clients: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(node.http).expect("the kernel takes it")).collect();
    until("all are told", || clients.iter().all(is_closed));
    assert_eq!(metric(&refused("descriptors")), 50);
    // Who is in cannot be helped for the moment: there is nothing to reach the shard with.
    let answer = ask_on(&before, "/page");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    node.limit_open_files(usual);
    let answer = ask_on(&before, "/page");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until("there is room again", || ask(node.http, "/page").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_stream_too_many_is_refused_alone() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let authority = Authority::new().expect("a key");
    let issued = authority.issue("meet.example.com", 1).expect("a certificate");
    fs::write(&cert, issued.cert).expect("the certificate is written");
    fs::write(&key, issued.key).expect("the key is written");
    let https = free_tcp();
    let node = Node::start(
        &[],
        &format!(
            "[tls]\n[[tls.certificates]]\ncert = {cert:?}\nkey = {key:?}\n\
             [[listeners]]\nname = \"https\"\nlisten = [\"{https}\"]\nprotocol = \"https\"\n\
             [limits]\nnew_key_rate = 1\nnew_key_burst = 2\nexempt = []\n"
        ),
    );
    let urls: Vec<String> =
        ["/http-bind?room=a", "/http-bind?room=b", "/http-bind?room=c", "/http-bind?room=a"]
            .iter()
            .map(|target| format!("https://meet.example.com:{}{target}", https.port()))
            .collect();
    let ask = |source: &str, urls: &[String]| {
        let output = Command::new("curl")
            .args(["-sk", "--http2", "--interface", source, "--resolve"])
            .arg(format!("meet.example.com:{}:{}", https.port(), https.ip()))
            .args(["-w", "%{http_code} %{http_version} %{num_connects}\\n"])
            .args(urls.iter().flat_map(|url| ["-o", "/dev/null", url.as_str()]))
            .output()
            .expect("curl starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // One connection: the third stream's key is too many, the fourth's is known.
    assert_eq!(ask("127.71.2.1", &urls), "200 2 1\n200 2 0\n429 2 0\n200 2 0\n");
    assert_eq!(ask("127.71.2.2", &urls[2..]), "200 2 1\n200 2 0\n");
    assert_eq!(node.refused("new_key_rate"), 1);
}
