//! The real daemon in processes of its own, its admin side and its operator's tool.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

mod audit;
mod drains;
mod orders;
mod reload;
mod tables;

/// A built binary of the same profile as this test.
fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    this.parent().and_then(Path::parent).expect("a test stands in target/PROFILE/deps").join(name)
}

/// Where nodes listen if nothing else is said.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 38, 0, 1));

fn free_tcp(host: IpAddr) -> SocketAddr {
    TcpListener::bind((host, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
}

fn free_udp(host: IpAddr) -> SocketAddr {
    UdpSocket::bind((host, 0)).and_then(|socket| socket.local_addr()).expect("a free port")
}

/// A mesh of nodes with files in a folder of its own.
struct Site {
    folder: tempfile::TempDir,
    nodes: Vec<Node>,
    /// What overrides the nodes' configurations.
    env: Vec<(&'static str, &'static str)>,
}

struct Node {
    name: &'static str,
    region: &'static str,
    http: SocketAddr,
    admin: SocketAddr,
    /// Takes orders with TLS.
    orders: SocketAddr,
    mesh: SocketAddr,
    child: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Site {
    fn new(nodes: &[(&'static str, &'static str)], shards: &str) -> Self {
        Self::at(HOST, nodes, shards)
    }

    fn at(host: IpAddr, nodes: &[(&'static str, &'static str)], shards: &str) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let pki = folder.path().join("pki");
        run("shardgate", &["pki", "init", "--environment", "test", "--dir", &text(&pki)]);
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|(name, region)| {
                run(
                    "shardgate",
                    &["pki", "issue", "--environment", "test", "--dir", &text(&pki), "--peer", name],
                );
                let (http, admin, orders) = (free_tcp(host), free_tcp(host), free_tcp(host));
                Node { name, region, http, admin, orders, mesh: free_udp(host), child: None }
            })
            .collect();
        let site = Self { folder, nodes, env: Vec::new() };
        site.discovery(shards);
        site
    }

    /// Replaces the discovery file by a rename.
    fn discovery(&self, shards: &str) {
        let mut file = shards.to_owned();
        for Node { name, region, mesh, .. } in &self.nodes {
            file += &format!("[[peers]]\nid = \"{name}\"\nregion = \"{region}\"\naddress = \"{mesh}\"\n");
        }
        let fresh = self.folder.path().join("discovery.next");
        fs::write(&fresh, file).expect("the file is written");
        fs::rename(&fresh, self.folder.path().join("discovery.toml")).expect("the file is renamed");
    }

    fn start(&mut self, index: usize) {
        let folder = self.folder.path();
        let Node { name, region, http, admin, orders, mesh, child } = &mut self.nodes[index];
        let pki = folder.join("pki");
        let file = |name: String| text(&pki.join(name));
        let config = format!(
            "[node]\nid = \"{name}\"\nregion = \"{region}\"\nenvironment = \"test\"\n\
             [frontend]\nlisten = [\"{http}\"]\nworkers = 1\n\
             [mesh]\nlisten = \"{mesh}\"\nca = \"{}\"\ncert = \"{}\"\nkey = \"{}\"\n\
             [discovery]\nfile = \"{}\"\n[shutdown]\ndrain = \"5s\"\n\
             [[admin]]\nlisten = \"{admin}\"\nserve = [\"health\", \"balancer\", \"metrics\", \"status\"]\n\
             [[admin]]\nlisten = \"unix:{}\"\nserve = [\"admin\"]\n\
             [[admin]]\nlisten = \"{orders}\"\nserve = [\"admin\"]\n\
             ca = \"{0}\"\ncert = \"{1}\"\nkey = \"{2}\"\n",
            file("ca.pem".to_owned()),
            file(format!("{name}.pem")),
            file(format!("{name}.key")),
            text(&folder.join("discovery.toml")),
            text(&folder.join(format!("{name}.sock"))),
        );
        let path = folder.join(format!("{name}.toml"));
        fs::write(&path, config).expect("the configuration is written");
        let log = fs::File::create(folder.join(format!("{name}.log"))).expect("a log file");
        let mut command = Command::new(binary("shardgate"));
        command.env_clear().envs(self.env.iter().copied());
        command.arg("serve").arg("--config").arg(path).stdout(Stdio::null()).stderr(log);
        *child = Some(command.spawn().expect("the binary starts"));
    }

    fn start_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.start(index);
        }
        for node in &self.nodes {
            until("ready", || get(node.admin, "/readyz").starts_with("HTTP/1.1 200"));
        }
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Runs a binary that must succeed.
fn run(name: &str, args: &[&str]) -> String {
    let output = output(name, args);
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn output(name: &str, args: &[&str]) -> Output {
    Command::new(binary(name)).env_clear().args(args).output().expect("the binary starts")
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 15 s: {what}");
        std::thread::yield_now();
    }
}

fn get(address: SocketAddr, target: &str) -> String {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
}

/// One request on a connection of its own; empty when it cannot be made.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(address)
        && stream.write_all(request.as_bytes()).is_ok()
    {
        // A reset after the answer is still an answer.
        drop(stream.read_to_end(&mut answer));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A shard that answers every request with its name, from a thread that ends with the test's process.
fn shard() -> SocketAddr {
    shard_at(Ipv4Addr::new(127, 38, 1, 1).into())
}

fn shard_at(host: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(1..) = stream.read(&mut buffer) {
                    let port = address.port().to_string();
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{port}", port.len());
                    if stream.write_all(head.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn entry(name: &str, id: u32, region: &str, release: &str, address: SocketAddr) -> String {
    format!(
        "[[shards]]\nname = \"{name}\"\nid = {id}\nregion = \"{region}\"\nrelease = \"{release}\"\naddress = \"{address}\"\n"
    )
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn everything_goes_over_ipv6() {
    let host = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let (here, there) = (shard_at(host), shard_at(host));
    let shards = entry("s1", 1, "here", "release-1", here) + &entry("s2", 2, "there", "release-1", there);
    let mut site =
        Site::at(host, &[("a", "here"), ("b", "there")], &format!("live_release = \"release-1\"\n{shards}"));
    site.start_all();
    let (a, b) = (site.nodes[0].http, site.nodes[1].http);
    for n in 0..20 {
        let target = format!("/http-bind?room=room-{n}");
        let first = get(a, &target);
        assert!(first.starts_with("HTTP/1.1 200") && body(&first) == here.port().to_string(), "{first}");
        assert_eq!(body(&get(b, &target)), body(&first), "room-{n} through the other region");
    }
    let admin = site.nodes[1].admin.to_string();
    let status = run("shardgatectl", &["--node", &admin, "status"]);
    assert!(status.contains("[::1]:") && status.contains("reconciled"), "{status}");
}

#[test]
fn two_processes_of_two_regions_send_a_conference_to_one_shard_and_operators_see_it() {
    let (here, there) = (shard(), shard());
    let shards = entry("s1", 1, "here", "release-1", here) + &entry("s2", 2, "there", "release-1", there);
    let mut site =
        Site::new(&[("a", "here"), ("b", "there")], &format!("live_release = \"release-1\"\n{shards}"));
    site.start_all();
    let (a, b) = (site.nodes[0].http, site.nodes[1].http);
    for n in 0..20 {
        let target = format!("/http-bind?room=room-{n}");
        let first = get(a, &target);
        assert!(first.starts_with("HTTP/1.1 200") && first.contains("x-proxy-region: here"), "{first}");
        assert_eq!(body(&first), here.port().to_string(), "the local region first");
        assert_eq!(body(&get(b, &target)), body(&first), "room-{n} through the other region");
    }

    let admins = [site.nodes[0].admin.to_string(), site.nodes[1].admin.to_string()];
    let status = run("shardgatectl", &["--node", &admins[0], "--node", &admins[1], "status"]);
    assert!(status.contains("a in here") && status.contains("b in there"), "{status}");
    assert_eq!(status.matches("reconciled").count(), 2, "{status}");
    for admin in &admins {
        let row = run("shardgatectl", &["--node", admin, "--output", "json", "table", "get", "room-7"]);
        let row: serde_json::Value = serde_json::from_str(&row).expect("one line of JSON");
        assert_eq!(
            (&row["shard"], &row["generation"], &row["rank"]),
            (&"s1".into(), &1.into(), &"home".into())
        );
    }
    let none = output("shardgatectl", &["--node", &admins[0], "table", "get", "no-such-room"]);
    assert_eq!(none.status.code(), Some(1), "no such entry");
    let nobody = output("shardgatectl", &["--node", "127.38.0.1:1", "status"]);
    assert_eq!(nobody.status.code(), Some(2), "could not look");
}

#[test]
fn discovery_edits_apply_without_a_restart_and_broken_ones_are_told_and_ignored() {
    let (old, new) = (shard(), shard());
    let shards = entry("s1", 1, "here", "release-1", old) + &entry("s2", 2, "here", "release-2", new);
    let live = |release: &str| format!("live_release = \"{release}\"\n{shards}");
    let mut site = Site::new(&[("a", "here")], &live("release-1"));
    site.start_all();
    let http = site.nodes[0].http;
    assert_eq!(body(&get(http, "/http-bind?room=before")), old.port().to_string());
    site.discovery(&format!("live_release = 3\n{shards}"));
    until("the fault is told", || site.log("a").contains("live_release is 3"));
    assert_eq!(
        body(&get(http, "/http-bind?room=during")),
        old.port().to_string(),
        "the last good state stays"
    );
    site.discovery(&live("release-2"));
    let mut n = 0;
    until("new conferences go to the new release", || {
        n += 1;
        body(&get(http, &format!("/http-bind?room=after-{n}"))) == new.port().to_string()
    });
    assert_eq!(body(&get(http, "/http-bind?room=before")), old.port().to_string(), "existing ones stay");
    site.discovery(&format!("{}[pins]\nacme = \"release-1\"\n", live("release-2")));
    until("a pin applies", || {
        n += 1;
        body(&get(http, &format!("/acme/http-bind?room=pinned-{n}"))) == old.port().to_string()
    });
}

#[test]
fn a_node_tells_the_rules_of_each_request_at_debug_level_as_route_explain_does() {
    let shards = entry("s1", 1, "here", "release-1", shard())
        + &entry("s2", 2, "here", "release-1", shard())
        + &entry("s3", 3, "there", "release-2", shard());
    let more = "[pins]\nacme = \"release-2\"\n[bans]\nexact = [\"bannedroom\"]\n";
    let mut site = Site::new(&[("a", "here")], &format!("live_release = \"release-1\"\n{shards}"));
    // Bans and pins come last in a file of tables.
    let file = site.folder.path().join("discovery.toml");
    let text_of_file = fs::read_to_string(&file).expect("it was written") + more;
    fs::write(&file, text_of_file).expect("the file is written");
    site.env = vec![("SHARDGATE_LOG__LEVEL", "info,shardgate_proxy::record=debug")];
    site.start_all();
    let http = site.nodes[0].http;
    let configuration = text(&site.folder.path().join("a.toml"));
    for target in [
        "/http-bind?room=a",
        "/http-bind?room=b",
        "/http-bind?room=c",
        "/acme/http-bind?room=a",
        "/Standup",
        "/acme/",
        "/standup?release=nothing",
        "/s3/about",
        "/bannedroom",
        "/http-bind?room=bannedroom",
    ] {
        let answer = get(http, target);
        let args = ["route", "explain", target, "--config", &configuration, "--output", "json"];
        let explained = output("shardgate", &args);
        let explained: serde_json::Value = serde_json::from_slice(&explained.stdout).expect("one document");
        let decision = &explained["decision"];
        match decision["address"].as_str() {
            Some(address) => {
                assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
                let address: SocketAddr = address.parse().expect("an address");
                assert_eq!(body(&answer), address.port().to_string(), "{target}: {explained}");
            }
            None => assert!(answer.starts_with(&format!("HTTP/1.1 {} ", decision["status"])), "{answer}"),
        }
        let steps = explained["steps"].as_array().expect("a list of steps");
        let rules: Vec<&str> = steps.iter().filter_map(|step| step["rule"].as_str()).collect();
        let line = || {
            let log = site.log("a");
            let line = log.lines().find(|line| line.contains(&format!("target={target} ")))?;
            Some(line.to_owned())
        };
        until("the request is told", || line().is_some());
        let (line, rules) = (line().unwrap_or_default(), format!("rules={}", rules.join(",")));
        assert!(line.contains("DEBUG") && line.ends_with(&rules), "{line}\nexpected {rules}");
    }
}

#[test]
fn the_admin_tells_health_and_metrics_and_its_switch_turns_the_balancer() {
    let shards = format!("live_release = \"release-1\"\n{}", entry("s1", 1, "here", "release-1", shard()));
    let mut site = Site::new(&[("a", "here")], &shards);
    site.start_all();
    let admin = site.nodes[0].admin;
    for path in ["/livez", "/readyz", "/haproxy_health", "/balancer"] {
        assert!(get(admin, path).starts_with("HTTP/1.1 200"), "{path}");
    }
    let put = |body: &str| {
        let len = body.len();
        ask(
            admin,
            &format!(
                "PUT /balancer HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
            ),
        )
    };
    assert!(put("down").starts_with("HTTP/1.1 200"));
    assert!(get(admin, "/balancer").starts_with("HTTP/1.1 503"));
    assert!(get(admin, "/haproxy_health").starts_with("HTTP/1.1 200"), "the switch is the balancer's only");
    assert!(body(&put("sideways")).contains("body is \"sideways\", expected up or down"));
    assert!(put("up").starts_with("HTTP/1.1 200") && get(admin, "/balancer").starts_with("HTTP/1.1 200"));
    get(site.nodes[0].http, "/http-bind?room=r");
    let metrics = get(admin, "/metrics");
    for line in
        ["shardgate_ready 1", "shardgate_table_entries 1", "shardgate_shard_conferences{shard=\"s1\"} 1"]
    {
        assert!(metrics.lines().any(|l| l.trim() == line), "no {line:?} in\n{metrics}");
    }
    assert!(metrics.contains("shardgate_responses_total{class=\"2xx\"} 1") && metrics.contains("# EOF"));
}

#[test]
fn a_restarted_process_is_ready_only_with_the_table_and_sigterm_drains() {
    let shards = entry("s1", 1, "here", "release-1", shard()) + &entry("s2", 2, "here", "release-1", shard());
    let shards = format!("live_release = \"release-1\"\n{shards}");
    let mut site = Site::new(&[("a", "here"), ("b", "here")], &shards);
    site.start_all();
    let there: Vec<String> = (0..50)
        .map(|n| body(&get(site.nodes[0].http, &format!("/http-bind?room=room-{n}"))).to_owned())
        .collect();
    // An open, idle connection must not hold the end up.
    let idle = TcpStream::connect(site.nodes[1].http).expect("it listens");
    let mut child = site.nodes[1].child.take().expect("it runs");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let began = Instant::now();
    assert!(child.wait().expect("it ends").success(), "{}", site.log("b"));
    assert!(began.elapsed() < Duration::from_secs(10), "bounded");
    drop(idle);
    site.start(1);
    until("ready", || get(site.nodes[1].admin, "/readyz").starts_with("HTTP/1.1 200"));
    for (n, shard) in there.iter().enumerate() {
        assert_eq!(body(&get(site.nodes[1].http, &format!("/http-bind?room=room-{n}"))), shard, "room-{n}");
    }
}
