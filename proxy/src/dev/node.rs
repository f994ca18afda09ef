//! One node of the dev mesh: the same node that `serve` runs, with timings for people who watch. The only file of `dev` that
//! knows how a node is configured, started and asked.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardgate_discovery::RegionName;
use shardgate_peering::core::{LinkState, PeerId, ShardName};
use shardgate_peering::pki::{CaFiles, NodeFiles};
use shardgate_peering::{Environment, Moved, Readiness};
use tokio::sync::broadcast;

use super::DevError;
use super::shard::ShardSpec;
use super::status::NodeView;
use crate::config::{
    AdminAddress, AdminListener, AdminRole, Config, DiscoveryConfig, FileSection, ListenerConfig, MeshConfig,
    NodeConfig, TlsCertificate, TlsConfig, TlsVersion, Workers,
};
use crate::node::RunningNode;

/// Environment of the mesh, in its certificates.
const ENVIRONMENT: &str = "dev";
/// A change of the discovery file is seen within this.
const DISCOVERY_EVERY: Duration = Duration::from_millis(200);
/// Heard of so often, so that the status is fresh.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Silence after which a peer is lost: nobody who pressed `c` wants to wait the ten seconds of production.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node may take to end its tunnels when dev ends.
const DRAIN: Duration = Duration::from_millis(200);

/// What a node is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name, also in its certificate.
    pub name: &'static str,
    /// Region.
    pub region: &'static str,
}

/// Conferences that change shard, as one node sees it.
pub type Moves = broadcast::Receiver<Moved>;

/// The files of one node.
#[derive(Clone, Debug)]
pub struct Certificates {
    ca: PathBuf,
    node: NodeFiles,
}

/// Where people come in at a node.
#[derive(Clone, Debug)]
pub struct Entrances {
    /// By HTTP.
    pub http: SocketAddr,
    /// By HTTPS, with HTTP/2.
    pub https: Option<HttpsEntrance>,
}

/// Where people come in by HTTPS.
#[derive(Clone, Debug)]
pub struct HttpsEntrance {
    /// Address.
    pub address: SocketAddr,
    /// What browsers are shown there.
    pub certificate: NodeFiles,
}

/// One running node.
pub struct DevNode {
    spec: NodeSpec,
    entrances: Entrances,
    running: RunningNode,
}

/// Makes a mesh CA and a certificate for every node, in their order.
pub fn issue_certificates(folder: &Path, nodes: &[NodeSpec]) -> Result<Vec<Certificates>, DevError> {
    let environment = Environment::parse(ENVIRONMENT)?;
    let ca = CaFiles::at(&folder.join("pki"));
    ca.init(&environment)?;
    let issue = |node: &NodeSpec| {
        let files = ca.issue(&environment, &PeerId::parse(node.name)?)?;
        Ok(Certificates { ca: ca.cert(), node: files })
    };
    nodes.iter().map(issue).collect()
}

impl DevNode {
    /// Starts a node: `entrances` for people, `peer` (UDP) for the other nodes.
    pub async fn start(
        spec: NodeSpec,
        entrances: Entrances,
        peer: SocketAddr,
        discovery: &Path,
        certificates: &Certificates,
    ) -> Result<Self, DevError> {
        let config = config(spec, &entrances, peer, discovery, certificates)?;
        let running = RunningNode::start(config)
            .await
            .map_err(|source| DevError::Node { name: spec.name, source: Box::new(source) })?;
        Ok(Self { spec, entrances, running })
    }

    /// What it is called.
    pub fn spec(&self) -> NodeSpec {
        self.spec
    }

    /// Where people come in by HTTP.
    pub fn frontend(&self) -> SocketAddr {
        self.entrances.http
    }

    /// The shard of a live entry of its table.
    pub fn lookup(&self, key: &str) -> Option<String> {
        self.running.table().lookup(key).map(|shard| shard.as_str().to_owned())
    }

    /// Conferences that change shard, from now on.
    pub fn moves(&self) -> Moves {
        self.running.table().moves()
    }

    /// Its state for the screen.
    pub async fn view(&self, shards: &[ShardSpec]) -> NodeView {
        let table = self.running.table();
        let status = table.status().await;
        let conferences =
            |shard: &ShardSpec| ShardName::parse(shard.name).map_or(0, |name| table.conferences(&name));
        let up = status.peers.iter().filter(|peer| peer.view.link == LinkState::Reconciled).count();
        NodeView {
            name: self.spec.name.to_owned(),
            region: self.spec.region.to_owned(),
            url: format!("http://{}", self.entrances.http),
            https_url: self.entrances.https.as_ref().map(|https| format!("https://{}", https.address)),
            readiness: match table.readiness() {
                Readiness::Ready { .. } => Ok(()),
                Readiness::NotReady { waiting_for } => Err(format!("waiting for {waiting_for:?}")),
                Readiness::NoPlace { .. } => Err("left out of the mesh".to_owned()),
            },
            peers_connected: up,
            peers_listed: status.peers.len(),
            conferences: shards.iter().map(conferences).collect(),
            entries: table.conferences_total(),
            tunnels: self.running.sessions().open(),
            resyncs: status.stats.reconciliations + status.stats.hellos_resumed,
        }
    }

    /// Stops it; bounded.
    pub async fn shutdown(self) {
        self.running.shutdown().await;
    }
}

fn config(
    spec: NodeSpec,
    entrances: &Entrances,
    peer: SocketAddr,
    discovery: &Path,
    Certificates { ca, node }: &Certificates,
) -> Result<Config, DevError> {
    let id = PeerId::parse(spec.name)?;
    let region = RegionName::parse(spec.region)?;
    let discovery = DiscoveryConfig::File(FileSection { every: DISCOVERY_EVERY, file: discovery.to_owned() });
    let mut config = Config::new(NodeConfig::new(id, region), discovery);
    config.frontend.listen = vec![entrances.http];
    if let Some(HttpsEntrance { address, certificate: NodeFiles { cert, key } }) = entrances.https.clone() {
        config.tls = Some(TlsConfig {
            directory: None,
            ticket_keys: None,
            min_version: TlsVersion::V1_2,
            certificates: vec![TlsCertificate { cert, key, ocsp: None }],
        });
        config.listeners = vec![ListenerConfig::https(address)];
    }
    config.frontend.workers = Workers::Count(NonZeroUsize::MIN);
    config.mesh = Some(MeshConfig {
        listen: peer,
        heartbeat: HEARTBEAT,
        idle_timeout: IDLE_TIMEOUT,
        ..MeshConfig::new(ca.clone(), node.cert.clone(), node.key.clone())
    });
    let listen = AdminAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let serve: BTreeSet<AdminRole> = AdminRole::OPEN.into_iter().collect();
    config.admin = vec![AdminListener { listen, serve, tls: None }];
    config.shutdown.drain = DRAIN;
    Ok(config)
}
