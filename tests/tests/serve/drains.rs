//! Drains that tell their end, and what runs now: two nodes, shards that answer HTTP, clients that hold tunnels.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Site, binary, body, entry, get, output, run, text, until};

/// A shard that takes WebSockets and answers everything else with its port.
fn shard() -> SocketAddr {
    let listener = TcpListener::bind("127.38.1.2:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream, address.port()));
        }
    });
    address
}

fn serve(mut stream: TcpStream, port: u16) {
    let mut buffer = [0; 8192];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        let head = String::from_utf8_lossy(&buffer[..bytes]).to_ascii_lowercase();
        let port = port.to_string();
        let answer = match head.contains("upgrade: websocket") {
            true => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                .to_owned(),
            false => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{port}", port.len()),
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// An open tunnel of a room.
fn tunnel(http: SocketAddr, room: &str) -> TcpStream {
    let mut stream = TcpStream::connect(http).expect("the node listens");
    let request = format!(
        "GET /xmpp-websocket?room={room} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101", "{room}");
    stream
}

/// A running shardgatectl whose output is JSON.
struct Watching {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Watching {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(binary("shardgatectl"));
        command.env_clear().args(["--output", "json"]).args(args).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    fn line(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect(&line)
    }

    /// Its last line, and its exit code.
    fn end(mut self) -> (serde_json::Value, Option<i32>) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("its output");
        let last = rest.lines().last().expect("a last line");
        let code = self.child.wait().expect("it ends").code();
        (serde_json::from_str(last).expect(last), code)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Requests for new rooms, one after the other, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    on_drained: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(http: SocketAddr, drained: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let [failed, on_drained, done] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
        let (told, wrong, there, all) =
            (Arc::clone(&stop), Arc::clone(&failed), Arc::clone(&on_drained), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            while !told.load(Ordering::Relaxed) {
                number += 1;
                let answer = get(http, &format!("/conference-request/v1?room=load-{}-{number}", http.port()));
                let failed = !answer.starts_with("HTTP/1.1 200");
                wrong.fetch_add(usize::from(failed), Ordering::Relaxed);
                there.fetch_add(usize::from(body(&answer) == drained.to_string()), Ordering::Relaxed);
                all.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, failed, on_drained, done, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[test]
fn a_drain_tells_its_end() {
    let (one, two) = (shard(), shard());
    let shards = entry("s1", 1, "here", "release-1", one) + &entry("s2", 2, "here", "release-1", two);
    let mut site =
        Site::new(&[("a", "here"), ("b", "there")], &format!("live_release = \"release-1\"\n{shards}"));
    site.env = vec![("SHARDGATE_STICK_TABLE__EXPIRE", "2s")];
    site.start_all();
    let unix = |name: &str| format!("unix:{}", text(&site.folder.path().join(format!("{name}.sock"))));
    let (a, b) = (unix("a"), unix("b"));
    let both = ["--node", &a, "--node", &b];
    let ctl = |args: &[&str]| run("shardgatectl", &[&both[..], args].concat());

    // Three conferences on s1, with people at both nodes.
    ctl(&["shard", "weight", "s2", "0"]);
    let rooms = ["first", "second", "third"];
    let at_both = |room: &&str| [tunnel(site.nodes[0].http, room), tunnel(site.nodes[1].http, room)];
    let mut tunnels: Vec<TcpStream> = rooms.iter().flat_map(at_both).collect();
    ctl(&["shard", "weight", "s2", "source"]);

    let shown = ctl(&["conferences", "list", "--names"]);
    println!("{shown}");
    assert!(shown.starts_with("CONFERENCE  SHARD  RELEASE    LEFT"), "{shown}");
    for room in rooms {
        let row = shown.lines().find(|line| line.starts_with(room)).expect(room);
        assert!(row.contains("  s1     release-1 "), "{row}");
        assert_eq!(row.split_whitespace().nth(4), Some("2"), "tunnels at both nodes: {row}");
    }
    let sums = ctl(&["conferences", "list", "--release", "release-1"]);
    println!("{sums}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(sums.lines().nth(1).map(words).as_deref(), Some("s1 release-1 3 6 0 - 0 0"), "{sums}");
    assert_eq!(sums.lines().nth(2).map(words).as_deref(), Some("s2 release-1 0 0 0 - 0 0"), "{sums}");
    assert_eq!(ctl(&["conferences", "list", "--names", "--shard", "s2"]), "");
    assert_eq!(ctl(&["conferences", "list", "--names", "--tenant", "acme"]), "");

    // Too short a wait: 1. Somebody who cannot be asked: 2, though there is nothing on s2 itself.
    let args = [&both[..], &["shard", "drain", "s1", "--wait", "--timeout", "1s", "--names"]].concat();
    let short = output("shardgatectl", &args);
    println!("{}", String::from_utf8_lossy(&short.stdout));
    assert_eq!(short.status.code(), Some(1), "{short:?}");
    assert!(String::from_utf8_lossy(&short.stdout).contains("3 of 3 conferences, 6 tunnels"), "{short:?}");

    // Under load: nothing fails, nothing new comes to s1, and it ends by itself.
    let load = [&site.nodes[0], &site.nodes[1]].map(|node| Load::start(node.http, one.port()));
    let args = [&both[..], &["shard", "drain", "s1", "--wait", "--timeout", "60s", "--names"]].concat();
    let mut watching = Watching::start(&args);
    assert_eq!(watching.line()["state"], "drain");
    assert_eq!(watching.line()["state"], "drain");
    let first = watching.line();
    assert_eq!(
        (&first["conferences"], &first["tunnels"], &first["outcome"]),
        (&3.into(), &6.into(), &"waiting".into())
    );
    assert_eq!(first["names"].as_array().map(Vec::len), Some(3), "{first}");
    let began = Instant::now();
    while !tunnels.is_empty() {
        drop(tunnels.pop());
        std::thread::sleep(Duration::from_millis(300));
    }
    let (last, code) = watching.end();
    println!("{last}\nafter {:?}", began.elapsed());
    assert_eq!(code, Some(0), "{last}");
    assert_eq!(
        (&last["conferences"], &last["tunnels"], &last["outcome"]),
        (&0.into(), &0.into(), &"empty".into())
    );
    for load in &load {
        let [done, failed, there] =
            [&load.done, &load.failed, &load.on_drained].map(|number| number.load(Ordering::Relaxed));
        assert!(done > 0 && failed == 0 && there == 0, "{done} requests, {failed} failed, {there} on s1");
    }
    drop(load);

    // A node that cannot be asked: it is not said that nothing is left.
    drop(site.nodes[1].child.take().map(|mut child| (child.kill(), child.wait())));
    let unreachable = site.nodes[1].admin.to_string();
    let args = ["--node", &a, "--node", &unreachable, "shard", "drain", "s1", "--wait", "--timeout", "2s"];
    let output = output("shardgatectl", &args);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_node_is_drained_and_comes_back() {
    let one = shard();
    let shards = entry("s1", 1, "here", "release-1", one);
    let mut site = Site::new(&[("a", "here")], &format!("live_release = \"release-1\"\n{shards}"));
    site.env = vec![("SHARDGATE_STICK_TABLE__EXPIRE", "2s")];
    site.start_all();
    let node = format!("unix:{}", text(&site.folder.path().join("a.sock")));
    let (admin, http) = (site.nodes[0].admin, site.nodes[0].http);
    let open = tunnel(http, "room");
    let mut watching = Watching::start(&["--node", &node, "node", "drain", "--wait", "--timeout", "60s"]);
    assert_eq!(watching.line()["state"], "drain");
    assert_eq!(watching.line()["tunnels"], 1);
    for path in ["/readyz", "/haproxy_health", "/balancer"] {
        let answer = get(admin, path);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("drained by an operator"), "{answer}");
    }
    assert!(get(admin, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get(http, "/conference-request/v1?room=room").starts_with("HTTP/1.1 200"), "it serves on");
    drop(open);
    let (last, code) = watching.end();
    assert_eq!((code, &last["outcome"]), (Some(0), &"empty".into()), "{last}");
    // A session of its last second may not be counted yet.
    let again = Watching::start(&["--node", &node, "node", "drain", "--wait", "--timeout", "60s"]);
    let (last, code) = again.end();
    assert_eq!((code, &last["outcome"]), (Some(0), &"empty".into()), "{last}");
    assert!(last["elapsed_s"].as_u64() >= Some(2), "{last}");
    assert!(output("shardgatectl", &["--node", &node, "status"]).status.code() == Some(1));
    run("shardgatectl", &["--node", &node, "node", "ready"]);
    until("it is ready again", || get(admin, "/readyz").starts_with("HTTP/1.1 200"));
    // Orders are taken where orders may be given.
    let refused = output("shardgatectl", &["--node", &admin.to_string(), "node", "drain"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    // A release is drained at nodes as well.
    let done = run(
        "shardgatectl",
        &["--node", &node, "release", "drain", "release-1", "--wait", "--timeout", "60s"],
    );
    println!("{done}");
    assert!(done.contains("s1 is in drain") && done.contains("release-1: empty after"), "{done}");
    let unknown = output("shardgatectl", &["--node", &node, "release", "drain", "release-9"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}
