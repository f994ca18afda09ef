//! Real endpoints on loopback, and one that speaks whatever a test wants.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use shardgate_peering::core::{Config, PeerId, ShardName, StickKey};
use shardgate_peering::pki::CaFiles;
use shardgate_peering::{
    ClaimReason, Claimed, Environment, IdentityFiles, Mesh, MeshConfig, MeshError, PeerAddress,
    RELAYED_STREAMS_MAX, Readiness,
};
use tokio::sync::watch;

pub(crate) fn peer(name: &str) -> PeerId {
    PeerId::parse(name).unwrap()
}

pub(crate) fn environment(name: &str) -> Environment {
    Environment::parse(name).unwrap()
}

/// A CA with certificates for some nodes of one environment.
pub(crate) struct Ca {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) environment: Environment,
}

impl Ca {
    pub(crate) fn new(name: &str, nodes: &[&str]) -> Self {
        let ca = Self { dir: tempfile::tempdir().unwrap(), environment: environment(name) };
        ca.files().init(&ca.environment).unwrap();
        for node in nodes {
            ca.files().issue(&ca.environment, &peer(node)).unwrap();
        }
        ca
    }

    pub(crate) fn files(&self) -> CaFiles {
        CaFiles::at(self.dir.path())
    }

    pub(crate) fn identity(&self, node: &str) -> IdentityFiles {
        identity(self.dir.path(), node)
    }
}

pub(crate) fn identity(dir: &Path, node: &str) -> IdentityFiles {
    IdentityFiles {
        ca: dir.join("ca.pem"),
        cert: dir.join(format!("{node}.pem")),
        key: dir.join(format!("{node}.key")),
    }
}

pub(crate) fn addresses(list: &[(&str, SocketAddr)]) -> Vec<PeerAddress> {
    list.iter().map(|(id, address)| PeerAddress { id: peer(id), address: *address }).collect()
}

pub(crate) struct Running {
    pub(crate) mesh: Mesh,
    pub(crate) peers: watch::Sender<Option<Vec<PeerAddress>>>,
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.mesh.address().unwrap()
    }

    pub(crate) fn knows(&self, list: &[(&str, SocketAddr)]) {
        self.peers.send_replace(Some(addresses(list)));
    }

    pub(crate) fn ends(&self, reason: &str) -> u64 {
        self.mesh.counters().read().ends.iter().find(|(label, _)| *label == reason).unwrap().1
    }
}

/// A UDP address that is free now.
pub(crate) fn free() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A node that nobody is listed for yet.
pub(crate) fn start(
    node: &str,
    identity: IdentityFiles,
    environment: &Environment,
) -> Result<Running, MeshError> {
    start_at(free(), &[], node, identity, environment)
}

pub(crate) fn start_at(
    listen: SocketAddr,
    list: &[(&str, SocketAddr)],
    node: &str,
    identity: IdentityFiles,
    environment: &Environment,
) -> Result<Running, MeshError> {
    start_relaying((node, listen), list, identity, environment, RELAYED_STREAMS_MAX)
}

/// A node with a bound of its own for relayed streams.
pub(crate) fn start_relaying(
    (node, listen): (&str, SocketAddr),
    list: &[(&str, SocketAddr)],
    identity: IdentityFiles,
    environment: &Environment,
    relayed_streams_max: u32,
) -> Result<Running, MeshError> {
    let (peers, listed) = watch::channel(Some(addresses(list)));
    let config = MeshConfig {
        listen,
        identity,
        environment: environment.clone(),
        idle_timeout: Duration::from_secs(4),
        relayed_streams_max,
    };
    let mesh = Mesh::start(Config::new(peer(node), rand_incarnation()), config, listed)?;
    Ok(Running { mesh, peers })
}

pub(crate) fn rand_incarnation() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 15 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn ready(running: &Running) {
    until("ready", async || matches!(running.mesh.handle().readiness(), Readiness::Ready { .. })).await;
}

pub(crate) async fn join(running: &Running, room: &str, proposal: &str) -> String {
    let (key, shard) = (StickKey::parse(room).unwrap(), ShardName::parse(proposal).unwrap());
    match running.mesh.handle().claim(key, shard, ClaimReason::Join).await {
        Claimed::Stick { shard } => shard.to_string(),
        other @ (Claimed::Unstored { .. } | Claimed::Keep { .. } | Claimed::Cleared | Claimed::Held) => {
            panic!("{room}: {other:?}")
        }
    }
}

/// Two nodes of one mesh that know each other.
pub(crate) async fn pair(ca: &Ca) -> (Running, Running) {
    pair_and(ca, &[]).await
}

/// The same, with further peers on their lists.
pub(crate) async fn pair_and(ca: &Ca, further: &[(&str, SocketAddr)]) -> (Running, Running) {
    let (at_a, at_b) = (free(), free());
    let list = [&[("a", at_a), ("b", at_b)], further].concat();
    let a = start_at(at_a, &list, "a", ca.identity("a"), &ca.environment).unwrap();
    let b = start_at(at_b, &list, "b", ca.identity("b"), &ca.environment).unwrap();
    ready(&a).await;
    ready(&b).await;
    (a, b)
}

/// A QUIC endpoint that speaks whatever a test wants.
pub(crate) struct Raw {
    endpoint: quinn::Endpoint,
}

impl Raw {
    pub(crate) fn new(files: &IdentityFiles, alpn: &[u8]) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.ca).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(std::sync::Arc::new(crypto)));
        Self { endpoint }
    }

    pub(crate) async fn dial(
        &self,
        to: SocketAddr,
        name: &str,
    ) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.endpoint.connect(to, name).unwrap().await
    }
}
