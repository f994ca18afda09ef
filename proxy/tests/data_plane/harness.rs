//! A node with a table of its own, shards that say what they got, and a client that writes bytes.

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use shardgate_discovery::{
    DiscoveryHandle, Publisher, RegionName, ReleaseName, Shard, ShardState, Snapshot, SnapshotBuilder,
};
use shardgate_peering::core::{Config, PeerId, ShardName, StickKey};
use shardgate_peering::pki::CaFiles;
use shardgate_peering::{
    Environment, IdentityFiles, Mesh, MeshConfig, PeerAddress, RELAYED_STREAMS_MAX, Readiness, RelayCounts,
    Relays, TableHandle,
};
use shardgate_proxy::answer_headers::AnswerHeaders;
use shardgate_proxy::config::AcceptProxy;
use shardgate_proxy::counters::Totals;
use shardgate_proxy::health::HealthSettings;
use shardgate_proxy::limits::Ceilings;
use shardgate_proxy::log_writer::LogTarget;
use shardgate_proxy::relay::Relaying;
use shardgate_proxy::request_id::RequestIds;
use shardgate_proxy::routing_key::Routing;
use shardgate_proxy::trust::Trust;
use shardgate_proxy::worker::{ForwardedProto, FrontendConfig, Running, Security, Workers, WorkersConfig};
use shardgate_proxy::{ConnectLimits, Limits, Manners, Pages};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn key(text: &str) -> StickKey {
    StickKey::parse(text).unwrap()
}

pub(crate) fn peer(text: &str) -> PeerId {
    PeerId::parse(text).unwrap()
}

pub(crate) fn name(text: &str) -> ShardName {
    ShardName::parse(text).unwrap()
}

/// A ready shard of the live release and the own region.
pub(crate) fn shard(text: &str, address: SocketAddr) -> Shard {
    let id = u32::from(address.port());
    Shard {
        name: name(text),
        id,
        region: RegionName::parse("here").unwrap(),
        release: ReleaseName::parse("live").unwrap(),
        address,
        state: ShardState::Ready,
        weight: 256,
        states_in: Vec::new(),
        agent_port: None,
    }
}

pub(crate) fn snapshot(shards: &[Shard]) -> Snapshot {
    let mut builder = SnapshotBuilder::new().live_release(ReleaseName::parse("live").unwrap());
    for shard in shards {
        builder = builder.shard(shard.clone());
    }
    builder.build().unwrap()
}

/// Limits for tests that wait for none of them.
pub(crate) fn limits() -> Limits {
    Limits {
        connect: ConnectLimits {
            timeout: Duration::from_secs(2),
            retries: 2,
            backoff: Duration::from_millis(5),
        },
        ..Limits::default()
    }
}

pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) table: TableHandle,
    pub(crate) discovery: Publisher,
    pub(crate) log: tempfile::TempPath,
    pub(crate) relaying: Relaying,
    handle: DiscoveryHandle,
    mesh: Mesh,
}

/// Two nodes of a mesh.
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    /// Who is in the mesh: it ends with its source.
    pub(crate) listed: watch::Sender<Option<Vec<PeerAddress>>>,
}

impl Pair {
    /// `a` and `b`, which are ready; `start` makes nodes of their meshes, by their numbers.
    pub(crate) async fn start(start: impl Fn(usize, Mesh) -> Node) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, environment) = (CaFiles::at(folder.path()), Environment::parse("test").unwrap());
        ca.init(&environment).unwrap();
        let free = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (both, addresses) = (["a", "b"].map(peer), [free(), free()]);
        let listed = both.iter().zip(addresses).map(|(id, address)| PeerAddress { id: id.clone(), address });
        let (source, peers) = watch::channel(Some(listed.collect()));
        let nodes = [0, 1].map(|at| {
            let files = ca.issue(&environment, &both[at]).unwrap();
            let config = MeshConfig {
                listen: addresses[at],
                identity: IdentityFiles { ca: ca.cert(), cert: files.cert, key: files.key },
                environment: environment.clone(),
                idle_timeout: Duration::from_secs(4),
                relayed_streams_max: RELAYED_STREAMS_MAX,
            };
            start(at, Mesh::start(Config::new(both[at].clone(), 1), config, peers.clone()).unwrap())
        });
        for node in &nodes {
            eventually("ready", async || matches!(node.table.readiness(), Readiness::Ready { .. })).await;
        }
        Self { nodes, listed: source }
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes {
            node.stop().await;
        }
    }
}

/// A node's configuration; the access log is off.
pub(crate) fn config(limits: Limits) -> WorkersConfig {
    let frontend = FrontendConfig {
        name: "http".to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        forwarded_proto: ForwardedProto::Https,
        security: Security::Plain,
        connections_max: None,
        to_https: None,
        accept_proxy: AcceptProxy::Off,
    };
    WorkersConfig {
        threads: NonZeroUsize::new(2).unwrap(),
        frontends: vec![frontend],
        backlog: 128,
        region: RegionName::parse("here").unwrap(),
        host: "node".to_owned(),
        limits,
        ceilings: Ceilings::OFF,
        routing: Routing::default(),
        manners: Manners::default(),
        health: HealthSettings::default(),
        pages: Pages::default(),
        trust: Trust::default(),
        request_ids: RequestIds::default(),
        answer_headers: AnswerHeaders::default(),
        access_log: LogTarget::Off,
    }
}

impl Node {
    pub(crate) fn start(shards: &[Shard], limits: Limits) -> Self {
        let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
        Self::start_on(mesh, shards, config(limits))
    }

    /// A node that lets in no more than that.
    pub(crate) fn start_below(shards: &[Shard], ceilings: Ceilings) -> Self {
        let mesh = Mesh::alone(Config::new(PeerId::parse("me").unwrap(), 1)).unwrap();
        Self::start_on(mesh, shards, WorkersConfig { ceilings, ..config(limits()) })
    }

    /// A node with this table; its access log is a file.
    pub(crate) fn start_on(mut mesh: Mesh, shards: &[Shard], config: WorkersConfig) -> Self {
        let (discovery, handle) = Publisher::new("test", snapshot(shards));
        let log = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let config = WorkersConfig { access_log: LogTarget::File(log.to_path_buf()), ..config };
        let table = mesh.handle();
        let idle = config.limits.tunnel_timeout;
        let running = Workers::start(config, &table, &mesh.relays(), &handle.subscribe()).unwrap();
        let (mut asks, health) = (mesh.take_probes().unwrap(), running.health().clone());
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                health.probe(ask).await;
            }
        });
        let relayed = mesh.take_relayed().unwrap();
        let relaying = Relaying::start(relayed, handle.clone(), Arc::clone(running.gate()), idle);
        Self { running, table, discovery, log, relaying, handle, mesh }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    pub(crate) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.handle.subscribe()
    }

    pub(crate) async fn client(&self) -> Wire {
        Wire::connect(self.address()).await
    }

    pub(crate) fn relays(&self) -> Relays {
        self.mesh.relays()
    }

    pub(crate) fn relay_counts(&self) -> RelayCounts {
        self.mesh.counters().read().relays
    }

    pub(crate) fn totals(&self) -> Totals {
        self.running.counters().snapshot()
    }

    /// One request on a connection of its own.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        let mut client = self.client().await;
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: meet\r\n\r\n")).await;
        client.answer().await
    }

    /// Stops and answers the access log.
    pub(crate) async fn stop(self) -> String {
        self.running.shutdown(Duration::from_secs(1)).await;
        self.mesh.shutdown().await;
        self.relaying.end().await;
        std::fs::read_to_string(&self.log).unwrap()
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

/// A client's connection.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    pub(crate) read: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// From an address of its own; this machine has all of 127.0.0.0/8.
    pub(crate) async fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn more(&mut self) -> usize {
        let read = tokio::time::timeout(DEADLINE, self.stream.read_buf(&mut self.read)).await;
        read.expect("an answer within the deadline").unwrap_or(0)
    }

    pub(crate) async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.more().await > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    pub(crate) async fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.read.len() < bytes {
            assert!(self.more().await > 0, "closed after {} of {bytes} bytes", self.read.len());
        }
        self.read.drain(..bytes).collect()
    }

    /// What comes until the other side closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.read)
    }

    pub(crate) async fn head(&mut self) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: Vec::new() }
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if let Some(length) = answer.header("content-length").first() {
            answer.body = self.exactly(length.parse().unwrap()).await;
        } else if answer.header("transfer-encoding") == ["chunked"] {
            loop {
                let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                if size == 0 {
                    let trailers = self.until(b"\r\n").await;
                    if trailers != b"\r\n" {
                        answer.head.push_str(std::str::from_utf8(&trailers).unwrap());
                        self.until(b"\r\n").await;
                    }
                    break;
                }
                answer.body.extend(self.exactly(size).await);
                self.exactly(2).await;
            }
        }
        answer
    }
}

/// A shard that says what it got. `/echo` returns the body, `/never` no answer, a WebSocket echoes behind a greeting.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start(label: &'static str) -> Self {
        Self::start_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), label)
    }

    pub(crate) fn start_on(listener: TcpListener, label: &'static str) -> Self {
        Self::serve_on(listener, move |stream| async move {
            let service = service_fn(move |request| answer(label, request));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // The proxy may leave at any time.
            drop(connection.with_upgrades().await);
        })
    }

    /// A shard that does with each connection what `handle` says.
    pub(crate) async fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::serve_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), handle)
    }

    fn serve_on<F>(listener: TcpListener, handle: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(handle(stream));
            }
        });
        Self { address, connections, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answered = Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible>;

async fn answer(label: &'static str, mut request: Request<Incoming>) -> Answered {
    let full = |text: String| Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    let path = request.uri().path().to_owned();
    if request.headers().contains_key("upgrade") && path.ends_with("/xmpp-websocket") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            stream.write_all(format!("hello from {label}\n").as_bytes()).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(stream);
            drop(tokio::io::copy(&mut reader, &mut writer).await);
            drop(writer.shutdown().await);
        });
        let mut response = Response::new(full(String::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        return Ok(response);
    }
    if path == "/never" {
        std::future::pending::<()>().await;
    }
    if path == "/echo" {
        let mut response = Response::new(BoxBody::default());
        if let Some(length) = request.headers().get("content-length") {
            response.headers_mut().insert("content-length", length.clone());
        }
        if let Some(trailer) = request.headers().get("trailer") {
            response.headers_mut().insert("trailer", trailer.clone());
        }
        *response.body_mut() = request.into_body().boxed();
        return Ok(response);
    }
    let mut said = format!("{label}\n{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        said.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let head_only = *request.method() == Method::HEAD;
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    said.push_str(&format!("\n{}", String::from_utf8_lossy(&body)));
    let mut response = Response::new(if head_only { full(String::new()) } else { full(said.clone()) });
    response.headers_mut().insert("content-length", said.len().into());
    response.headers_mut().insert("keep-alive", "timeout=5".parse().unwrap());
    response.headers_mut().insert("x-jitsi-shard", label.parse().unwrap());
    Ok(response)
}

/// An address that refuses connections.
pub(crate) async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// A server that is full: it takes no connection and refuses none, as a host that is gone. What keeps it so comes along.
pub(crate) async fn deaf() -> (SocketAddr, (std::net::TcpListener, TcpStream)) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let first = TcpStream::connect(address).await.unwrap();
    (address, (listener, first))
}

/// What the shard was told under a name.
pub(crate) fn told<'a>(body: &'a str, name: &str) -> Vec<&'a str> {
    let lines = body.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| *found == name).map(|(_, value)| value).collect()
}
