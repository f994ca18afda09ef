//! Behind real balancers: HAProxy, which `tests/bench/get-haproxy` unpacks beside the system, and curl's own PROXY header.

use crate::harness::{DEADLINE, Node, Upstream, Wire, config, eventually, limits, shard, told};
use shardgate_peering::Mesh;
use shardgate_peering::core::{Config, PeerId};
use shardgate_proxy::config::{AcceptProxy, TlsConfig};
use shardgate_proxy::tls::{Alpn, ServerTls};
use shardgate_proxy::trust::{ForwardedFor, Trust};
use shardgate_proxy::worker::{Security, WorkersConfig};
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tokio::net::TcpSocket;

/// Where this file's HAProxies and their clients are.
const FRONT: &str = "127.86.0.1:0";
const CLIENT: &str = "127.86.0.9:0";

/// A running HAProxy.
struct HaProxy {
    child: Child,
    _folder: tempfile::TempDir,
}

impl HaProxy {
    /// `sections` follow defaults that suit a test. Serves when it returns.
    async fn start(sections: &str, serves: SocketAddr) -> Self {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench");
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap();
        let cache =
            std::env::var_os("SHARDGATE_CACHE").map_or_else(|| home.join(".cache/shardgate"), PathBuf::from);
        let tree = cache.join("haproxy-3");
        let got = Command::new("sh").arg(bench.join("get-haproxy")).arg(&tree).status().unwrap();
        assert!(got.success(), "no HAProxy 3.x: {got}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let defaults = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n";
        fs::write(&file, format!("{defaults}{sections}")).unwrap();
        let mut command = Command::new("sh");
        command.arg(bench.join("run-haproxy")).arg("-db").arg("-f").arg(&file).env("HAPROXY_ROOT", &tree);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let this = Self { child, _folder: folder };
        eventually("HAProxy listens", async || tokio::net::TcpStream::connect(serves).await.is_ok()).await;
        this
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that nobody has at this moment.
fn free(at: impl std::net::ToSocketAddrs) -> SocketAddr {
    TcpListener::bind(at).and_then(|socket| socket.local_addr()).unwrap()
}

async fn node(change: impl FnOnce(&mut WorkersConfig)) -> (Node, Upstream) {
    let upstream = Upstream::start("s1").await;
    let mut config = config(limits());
    config.trust = Trust { proxies: vec!["127.0.0.1".parse().unwrap()], forwarded_for: ForwardedFor::Append };
    change(&mut config);
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    (Node::start_on(mesh, &[shard("s1", upstream.address)], config), upstream)
}

/// A client with an address of its own.
async fn client(to: SocketAddr) -> Wire {
    if to.is_ipv6() {
        return Wire::connect(to).await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(CLIENT.parse().unwrap()).unwrap();
    Wire { stream: socket.connect(to).await.unwrap(), read: Vec::new() }
}

async fn curl(arguments: Vec<String>) -> Output {
    let running = tokio::task::spawn_blocking(move || {
        Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments).output()
    });
    tokio::time::timeout(DEADLINE, running).await.unwrap().unwrap().unwrap()
}

const GET: &str = "GET /foo HTTP/1.1\r\nHost: meet\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_says_whose_connection_it_is() {
    let (node, _upstream) = node(|config| config.frontends[0].accept_proxy = AcceptProxy::Required).await;
    let to = node.address();
    let fronts = [free(FRONT), free(FRONT), free((Ipv6Addr::LOCALHOST, 0))];
    let [v1, v2, v6] = fronts;
    let haproxy = HaProxy::start(
        &format!(
            "listen v1\n  bind {v1}\n  server node {to} send-proxy\n\
             listen v2\n  bind {v2}\n  server node {to} send-proxy-v2 proxy-v2-options crc32c,unique-id\n  unique-id-format %ci-%cp\n\
             listen v6\n  bind {v6}\n  server node {to} send-proxy-v2 check inter 50ms\n"
        ),
        v6,
    )
    .await;
    for front in fronts {
        let mut wire = client(front).await;
        let ip = wire.stream.local_addr().unwrap();
        for _ in 0..2 {
            wire.send(GET).await;
            let answer = wire.answer().await;
            assert_eq!(told(answer.text(), "x-forwarded-for"), ["1.2.3.4", &ip.ip().to_string()], "{front}");
        }
        // A tunnel as well.
        wire.send("GET /xmpp-websocket?room=a HTTP/1.1\r\nHost: meet\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(wire.head().await.status, 101);
        assert_eq!(wire.exactly(14).await, b"hello from s1\n");
    }
    // HAProxy's checks say LOCAL, and hang up.
    let before = node.totals().proxy_headers;
    eventually("checks come in", async || node.totals().proxy_headers > before + 3).await;
    assert_eq!(node.totals().proxy_refusals.iter().sum::<u64>(), 0);
    drop(haproxy);
    eventually("all tunnels end", async || node.totals().tunnels() == 0).await;
    let log = node.stop().await;
    assert_eq!(log.lines().filter(|line| line.starts_with("127.86.0.9:")).count(), 8, "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("::1:")).count(), 4, "{log}");
    assert_eq!(log.lines().count(), 12, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_says_whose_request_it_is() {
    let (node, _upstream) = node(|_| {}).await;
    let (to, front) = (node.address(), free(FRONT));
    let haproxy = HaProxy::start(
        &format!(
            "listen front\n  mode http\n  bind {front}\n  option forwardfor\n  \
             http-request set-header X-Forwarded-Proto http\n  server node {to}\n"
        ),
        front,
    )
    .await;
    let mut wire = client(front).await;
    wire.send(GET).await;
    let answer = wire.answer().await;
    assert_eq!(told(answer.text(), "x-forwarded-for"), ["1.2.3.4", "127.86.0.9", "127.0.0.1"]);
    assert_eq!(told(answer.text(), "x-forwarded-proto"), ["http", "http"]);
    drop(haproxy);
    let log = node.stop().await;
    assert!(log.starts_with("127.86.0.9:0 ["), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_http_2_begin_behind_the_header() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["meet.example".to_owned()]).unwrap();
    fs::write(
        folder.path().join("meet.pem"),
        format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()),
    )
    .unwrap();
    let tls = ServerTls::load(&TlsConfig::of_directory(folder.path().to_owned())).unwrap();
    let (node, _upstream) = node(|config| {
        config.frontends[0].accept_proxy = AcceptProxy::Required;
        config.frontends[0].security = Security::Tls(tls, Alpn::Http2AndHttp1);
    })
    .await;
    let (to, front) = (node.address(), free(FRONT));
    let haproxy =
        HaProxy::start(&format!("listen front\n  bind {front}\n  server node {to} send-proxy-v2\n"), front)
            .await;
    for (address, header, client) in [(to, "--haproxy-protocol", "127.0.0.1"), (front, "-k", "127.86.0.9")] {
        for (version, http) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let resolve = format!("meet.example:{}:{}", address.port(), address.ip());
            let url = format!("https://meet.example:{}/foo", address.port());
            let mut arguments =
                ["-k", version, header, "--resolve", &resolve, "-w", "\n%{http_version}", &url]
                    .map(str::to_owned)
                    .to_vec();
            if address == front {
                arguments.extend(["--interface".to_owned(), "127.86.0.9".to_owned()]);
            }
            let output = curl(arguments).await;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(told(&text, "x-forwarded-for"), [client], "{text} {said}");
            assert_eq!(told(&text, "x-request-id").len(), 1, "{text}");
            assert!(text.ends_with(&format!("\n{http}")), "{text}");
        }
    }
    drop(haproxy);
    // HAProxy was seen to listen: that connection said nothing but its header.
    let totals = node.totals();
    assert_eq!((totals.handshakes, totals.http2_connections, totals.proxy_headers >= 4), (4, 2, true));
    node.stop().await;
}
