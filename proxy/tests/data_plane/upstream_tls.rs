//! Shards that speak TLS or want a PROXY header: real nginx's, which say what they saw.

use crate::harness::{DEADLINE, Node, Upstream, Wire, config, eventually, limits, name, shard};
use shardgate_peering::Mesh;
use shardgate_peering::core::{Config, PeerId};
use shardgate_proxy::config::{SendProxy, UpstreamConfig, UpstreamProtocol, Verify};
use shardgate_proxy::counters::ConnectReason;
use shardgate_proxy::routing_key::{Pool, PoolServer, Routing};
use shardgate_proxy::worker::WorkersConfig;
use shardgate_proxy::{ConnectLimits, Limits, Manners};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;

/// A CA, certificates of it, and a nginx that shows them.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    nginx: Child,
    pub(crate) address: [SocketAddr; 4],
}

pub(crate) const TLS: usize = 0;
const CLIENT_CERTIFICATE: usize = 1;
pub(crate) const TLS_BEHIND_PROXY: usize = 2;
pub(crate) const BEHIND_PROXY: usize = 3;

/// What each server of the nginx answers: what it saw.
const SAW: &str = r#"default_type text/plain; keepalive_timeout 60s;
  location / {
    return 200 "sni=$ssl_server_name\nreused=$ssl_session_reused\nverified=$ssl_client_verify\nproxy=$proxy_protocol_addr:$proxy_protocol_port\nat=$proxy_protocol_server_addr:$proxy_protocol_server_port\nconnection=$connection\nhost=$http_host\n";
  }"#;

impl Site {
    /// On the addresses 127.93.N.1 to 4; `echo` answers WebSockets behind the first one.
    pub(crate) async fn start(number: u8, echo: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = ca();
        for (file, names) in [("server", &["meet.example", "fixed.example"][..]), ("node", &["node.example"])]
        {
            let key = rcgen::KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = rcgen::CertificateParams::new(names).unwrap();
            let address = rcgen::SanType::IpAddress([127, 93, number, 1].into());
            params.subject_alt_names.push(address);
            let cert = params.signed_by(&key, &ca.issuer).unwrap();
            fs::write(folder.path().join(format!("{file}.pem")), cert.pem()).unwrap();
            fs::write(folder.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
        }
        fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        fs::write(folder.path().join("other.pem"), self::ca().pem).unwrap();
        let address = [1, 2, 3, 4].map(|host| SocketAddr::from(([127, 93, number, host], 9443)));
        let dir = folder.path().display();
        let tls = format!("ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key;");
        let wants = format!("ssl_client_certificate {dir}/ca.pem; ssl_verify_client on;");
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp: String = temp.iter().map(|kind| format!("{kind}_temp_path {dir}/{kind};\n")).collect();
        let socket = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
        let [a, b, c, d] = address;
        let text = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
             events {{}}
             http {{
               access_log off; {temp}
               server {{ listen {a} ssl; {tls} {SAW} location ~ /xmpp-websocket {{ proxy_pass http://{echo}; {socket} }} }}
               server {{ listen {b} ssl; {tls} {wants} {SAW} }}
               server {{ listen {c} ssl proxy_protocol; {tls} {SAW} }}
               server {{ listen {d} proxy_protocol; {SAW} }}
             }}\n"
        );
        let conf = folder.path().join("nginx.conf");
        fs::write(&conf, text).unwrap();
        let nginx = Command::new("/usr/sbin/nginx")
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&conf)
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx runs (Debian's nginx-light)");
        let site = Self { folder, nginx, address };
        for address in site.address {
            eventually("nginx listens", async || TcpStream::connect(address).await.is_ok()).await;
        }
        site
    }

    fn path(&self, file: &str) -> Option<PathBuf> {
        Some(self.folder.path().join(file))
    }

    /// TLS that believes this site's CA.
    pub(crate) fn https(&self) -> UpstreamConfig {
        UpstreamConfig {
            protocol: UpstreamProtocol::Https,
            ca: self.path("ca.pem"),
            ..UpstreamConfig::default()
        }
    }

    /// A node whose only shard is one of these servers, spoken to in this way.
    fn node(&self, server: usize, upstream: &UpstreamConfig) -> Node {
        node_of(self.address[server], upstream, limits())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.nginx.kill().unwrap();
        self.nginx.wait().unwrap();
    }
}

struct Ca {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

fn ca() -> Ca {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "a test's CA");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { pem, issuer: rcgen::Issuer::new(params, key) }
}

fn node_of(address: SocketAddr, upstream: &UpstreamConfig, limits: Limits) -> Node {
    let manners = Manners::load(upstream, []).unwrap();
    let config = WorkersConfig { manners, threads: 1.try_into().unwrap(), ..config(limits) };
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    Node::start_on(mesh, &[shard("s1", address)], config)
}

/// Asks for a page; answers status and body.
async fn ask(client: &mut Wire, host: &str) -> (u16, String) {
    client.send(&format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let answer = client.answer().await;
    (answer.status, answer.text().to_owned())
}

async fn get(node: &Node, host: &str) -> (u16, String) {
    ask(&mut node.client().await, host).await
}

pub(crate) fn said<'a>(page: &'a str, what: &str) -> &'a str {
    let line = page.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {what} in {page}"))
}

fn failed(node: &Node) -> u64 {
    node.totals().connect_failures[ConnectReason::Tls as usize]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_certificate_is_asked_for_by_the_requests_host() {
    let echo = Upstream::start("echo").await;
    let site = Site::start(1, echo.address).await;
    let node = site.node(TLS, &site.https());
    let (status, first) = get(&node, "Meet.Example:443").await;
    assert_eq!((status, said(&first, "sni")), (200, "meet.example"));
    assert_eq!(said(&first, "host"), "Meet.Example:443");
    // The connection serves the name that it was made for.
    let (_, again) = get(&node, "meet.example").await;
    assert_eq!(said(&again, "connection"), said(&first, "connection"));
    let (_, other) = get(&node, "fixed.example").await;
    assert_ne!(said(&other, "connection"), said(&first, "connection"));
    assert_eq!(said(&other, "sni"), "fixed.example");
    // An address is no name: none is asked for, and the certificate holds the shard's address.
    let (status, by_address) = get(&node, "192.0.2.1").await;
    assert_eq!((status, said(&by_address, "sni")), (200, ""));
    let totals = node.totals();
    assert_eq!((totals.shard_connects, totals.shard_reuses), (3, 1));
    assert_eq!(failed(&node), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_with_shards_are_resumed() {
    let echo = Upstream::start("echo").await;
    let site = Site::start(2, echo.address).await;
    let mut limits = limits();
    limits.pool.idle_per_shard = 0;
    let node = node_of(site.address[TLS], &site.https(), limits);
    let (_, first) = get(&node, "meet.example").await;
    let (_, second) = get(&node, "meet.example").await;
    assert_eq!((said(&first, "reused"), said(&second, "reused")), (".", "r"));
    assert_ne!(said(&first, "connection"), said(&second, "connection"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_valid_gets_no_request() {
    let echo = Upstream::start("echo").await;
    let site = Site::start(3, echo.address).await;
    let other_ca = UpstreamConfig { ca: site.path("other.pem"), ..site.https() };
    let system_ca = UpstreamConfig { ca: None, ..site.https() };
    for (upstream, host) in
        [(&other_ca, "meet.example"), (&system_ca, "meet.example"), (&site.https(), "other.example")]
    {
        let node = site.node(TLS, upstream);
        assert_eq!(get(&node, host).await.0, 503, "{upstream:?} {host}");
        assert_eq!((failed(&node), node.totals().retries), (1, 0), "{upstream:?} {host}");
        let log = node.stop().await;
        assert!(log.contains(" SC "), "{log}");
    }
    let fixed = UpstreamConfig { sni: Some("fixed.example".to_owned()), ..site.https() };
    let unverified = UpstreamConfig { verify: Verify::Off, ..other_ca };
    for (upstream, sni) in [(&fixed, "fixed.example"), (&unverified, "other.example")] {
        let node = site.node(TLS, upstream);
        let (status, page) = get(&node, "other.example").await;
        assert_eq!((status, said(&page, "sni")), (200, sni));
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_doubt_moves_no_conference() {
    let echo = Upstream::start("s2").await;
    let site = Site::start(4, echo.address).await;
    let other_ca = UpstreamConfig { ca: site.path("other.pem"), ..site.https() };
    let manners = Manners::load(&other_ca, []).unwrap();
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let shards = [shard("s1", site.address[TLS]), {
        let mut second = shard("s2", site.address[CLIENT_CERTIFICATE]);
        second.id = 2;
        second
    }];
    let node = Node::start_on(mesh, &shards, WorkersConfig { manners, ..config(limits()) });
    let mut client = node.client().await;
    client.send("GET /http-bind?room=r1 HTTP/1.1\r\nHost: meet.example\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 503);
    let there = node.table.lookup("r1").unwrap();
    client.send("GET /http-bind?room=r1 HTTP/1.1\r\nHost: meet.example\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 503);
    assert_eq!(node.table.lookup("r1"), Some(there));
    assert_eq!((failed(&node), node.totals().redispatches), (2, 0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_may_want_a_certificate_of_ours() {
    let echo = Upstream::start("echo").await;
    let site = Site::start(5, echo.address).await;
    let without = site.node(CLIENT_CERTIFICATE, &site.https());
    let (status, page) = get(&without, "meet.example").await;
    assert!(status == 400 && page.contains("No required SSL certificate was sent"), "{page}");
    without.stop().await;
    let client_cert = site.path("node.pem");
    let with = UpstreamConfig { client_cert, client_key: site.path("node.key"), ..site.https() };
    let node = site.node(CLIENT_CERTIFICATE, &with);
    let (status, page) = get(&node, "meet.example").await;
    assert_eq!((status, said(&page, "verified")), (200, "SUCCESS"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_names_the_client_and_serves_it_alone() {
    let echo = Upstream::start("echo").await;
    let site = Site::start(6, echo.address).await;
    let plain = UpstreamConfig { send_proxy: SendProxy::V2, ..UpstreamConfig::default() };
    let tls = UpstreamConfig { send_proxy: SendProxy::V2, ..site.https() };
    for (server, upstream) in [(BEHIND_PROXY, &plain), (TLS_BEHIND_PROXY, &tls)] {
        let node = site.node(server, upstream);
        let mut client = node.client().await;
        let (status, first) = ask(&mut client, "meet.example").await;
        assert_eq!(status, 200, "{first}");
        assert_eq!(said(&first, "proxy"), client.stream.local_addr().unwrap().to_string());
        assert_eq!(said(&first, "at"), node.address().to_string());
        let (_, again) = ask(&mut client, "meet.example").await;
        assert_eq!(said(&again, "connection"), said(&first, "connection"));
        let mut stranger = node.client().await;
        let (_, other) = ask(&mut stranger, "meet.example").await;
        assert_ne!(said(&other, "connection"), said(&first, "connection"));
        assert_eq!(said(&other, "proxy"), stranger.stream.local_addr().unwrap().to_string());
        node.stop().await;
    }
    // Who expects a header and gets none closes.
    let node = site.node(BEHIND_PROXY, &UpstreamConfig::default());
    assert_eq!(get(&node, "meet.example").await.0, 502);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_through_tls() {
    let echo = Upstream::start("echo").await;
    let site = Site::start(7, echo.address).await;
    let node = site.node(TLS, &site.https());
    let mut client = node.client().await;
    client
        .send(
            "GET /xmpp-websocket?room=r1 HTTP/1.1\r\nHost: meet.example\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.exactly(b"hello from echo\n".len()).await, b"hello from echo\n");
    let text = "x".repeat(300_000);
    let (mut reader, mut writer) = client.stream.split();
    let sent = tokio::io::AsyncWriteExt::write_all(&mut writer, text.as_bytes());
    let mut echoed = vec![0; text.len()];
    let received = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut echoed);
    let both = async { tokio::join!(sent, received) };
    let (sent, received) = tokio::time::timeout(DEADLINE, both).await.expect("echoed in time");
    sent.unwrap();
    received.unwrap();
    assert!(echoed == text.as_bytes());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_a_manner_of_its_own() {
    let echo = Upstream::start("s1").await;
    let site = Site::start(8, echo.address).await;
    let server = PoolServer::parse(&site.address[TLS].to_string()).unwrap();
    let region = shardgate_discovery::RegionName::parse("here").unwrap();
    let pool = Pool::new(name("chat"), vec!["/chat/".to_owned()], vec![server], &region).unwrap();
    let pool = pool.spoken_to(site.https());
    let manners = Manners::load(&UpstreamConfig::default(), [&pool.upstream]).unwrap();
    let routing = Routing { pools: vec![pool], ..Routing::default() };
    let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
    let config = WorkersConfig { manners, routing, ..config(limits()) };
    let node = Node::start_on(mesh, &[shard("s1", echo.address)], config);
    let mut client = node.client().await;
    client.send("GET /chat/ HTTP/1.1\r\nHost: meet.example\r\n\r\n").await;
    assert_eq!(said(client.answer().await.text(), "sni"), "meet.example");
    client.send("GET /page HTTP/1.1\r\nHost: meet.example\r\n\r\n").await;
    assert!(client.answer().await.text().starts_with("s1\n"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_or_nothing_at_all_is_given_up() {
    let plain = Upstream::start("plain").await;
    let silent = Upstream::serve(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let https = UpstreamConfig {
        protocol: UpstreamProtocol::Https,
        verify: Verify::Off,
        ..UpstreamConfig::default()
    };
    let node = node_of(plain.address, &https, limits());
    assert_eq!(get(&node, "meet.example").await.0, 503);
    assert_eq!((failed(&node), node.totals().retries), (3, 2));
    node.stop().await;
    let connect = ConnectLimits { timeout: Duration::from_millis(200), ..limits().connect };
    let node = node_of(silent.address, &https, Limits { connect, ..limits() });
    assert_eq!(get(&node, "meet.example").await.0, 504);
    assert_eq!(node.totals().connect_failures[ConnectReason::Timeout as usize], 1);
    node.stop().await;
}
