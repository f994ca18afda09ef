//! The mesh that `dev` runs: two regions of two nodes, wires between them that can be cut, three built-in shards and the
//! discovery file that all nodes watch.
//!
//! The shards are chosen so that each fault shows something else: s1 (region-a) and s2 (region-b) run the live release, so a
//! conference goes to the region it was opened from, two regions that are cut apart decide differently, and a killed one of
//! them leaves the other. s3 runs the next release and gets nothing until a tenant is pinned to it or it becomes live.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use shardgate_peering::pki::make_web_certificate;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::DevError;
use super::discovery_file::DiscoveryFile;
use super::link::{End, Link, Wires};
use super::node::{DevNode, Entrances, HttpsEntrance, Moves, NodeSpec, issue_certificates};
use super::shard::{DevShard, ShardSpec};
use super::status::{DevView, NodeView, ShardView};

/// The nodes.
pub const NODES: [NodeSpec; 4] = [
    NodeSpec { name: "a1", region: "region-a" },
    NodeSpec { name: "a2", region: "region-a" },
    NodeSpec { name: "b1", region: "region-b" },
    NodeSpec { name: "b2", region: "region-b" },
];

/// The shards.
pub const SHARDS: [ShardSpec; 3] = [
    ShardSpec { name: "s1", id: 1, region: "region-a", release: "release-1" },
    ShardSpec { name: "s2", id: 2, region: "region-b", release: "release-1" },
    ShardSpec { name: "s3", id: 3, region: "region-b", release: "release-2" },
];

const LIVE_AT_START: &str = "release-1";

/// Where the nodes' frontends listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// This one and the three after it.
    From(u16),
    /// Any free ones.
    Free,
}

/// Whether the nodes take HTTPS, with HTTP/2, beside HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Https {
    /// HTTP alone.
    Off,
    /// Both; the certificate is made for this run.
    On,
}

/// What a port of HTTPS has more than its node's port of HTTP.
const HTTPS_ABOVE_HTTP: u16 = 100;

/// A running mesh.
pub struct DevMesh {
    started: Instant,
    discovery: DiscoveryFile,
    shards: Vec<DevShard>,
    wires: Wires,
    nodes: Vec<DevNode>,
}

impl DevMesh {
    /// Starts everything; files go into `folder`.
    pub async fn start(folder: &Path, ports: Ports, https: Https) -> Result<Self, DevError> {
        let mut discovery = DiscoveryFile::at(folder.join("discovery.toml"), LIVE_AT_START);
        let mut shards = Vec::new();
        for spec in SHARDS {
            let shard =
                start_shard(spec).await.map_err(|source| DevError::Shard { name: spec.name, source })?;
            discovery.shards.push((spec, shard.address()));
            shards.push(shard);
        }
        let peer_addresses = free_udp(NODES.len()).await.map_err(DevError::Wires)?;
        let ends: Vec<End> = NODES
            .iter()
            .zip(&peer_addresses)
            .map(|(node, address)| End { region: node.region, address: *address })
            .collect();
        let wires = Wires::start(&ends).await.map_err(DevError::Wires)?;
        for (node, address) in NODES.iter().zip(wires.addresses()) {
            discovery.peers.push((node.name, node.region, address));
        }
        discovery.write().map_err(|source| DevError::file(discovery.path(), source))?;
        let entrances = entrances(folder, ports, https).await?;
        let certificates = issue_certificates(folder, &NODES)?;
        let mut nodes = Vec::new();
        for (index, (spec, entrances)) in NODES.into_iter().zip(entrances).enumerate() {
            let files = &certificates[index];
            nodes
                .push(DevNode::start(spec, entrances, peer_addresses[index], discovery.path(), files).await?);
        }
        Ok(Self { started: Instant::now(), discovery, shards, wires, nodes })
    }

    /// Names of the nodes, in their order.
    pub fn node_names(&self) -> Vec<&'static str> {
        self.nodes.iter().map(|node| node.spec().name).collect()
    }

    /// Where people come in at a node.
    pub fn frontend(&self, node: &str) -> SocketAddr {
        // A name that does not exist is a slip in the story; port 0 refuses every connection, and the assertion says so.
        let found = self.nodes.iter().find(|known| known.spec().name == node);
        found.map_or_else(|| (Ipv4Addr::LOCALHOST, 0).into(), DevNode::frontend)
    }

    /// What every node's table says about a key.
    pub fn lookup_everywhere(&self, key: &str) -> Vec<(&'static str, Option<String>)> {
        self.nodes.iter().map(|node| (node.spec().name, node.lookup(key))).collect()
    }

    /// The state of every node.
    pub async fn node_views(&self) -> Vec<NodeView> {
        let mut views = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            views.push(node.view(&SHARDS).await);
        }
        views
    }

    /// Everything at once, with the events that the caller collected.
    pub async fn view(&self, events: Vec<String>) -> DevView {
        let shard = |shard: &DevShard| {
            let ShardSpec { name, region, release, .. } = shard.spec();
            let [name, region, release] = [name, region, release].map(str::to_owned);
            ShardView { name, region, release, counts: shard.counts() }
        };
        DevView {
            uptime: self.started.elapsed(),
            link: self.wires.link(),
            nodes: self.node_views().await,
            shards: self.shards.iter().map(shard).collect(),
            events,
            discovery_file: self.discovery.path().display().to_string(),
        }
    }

    /// The entries that change shard, of every node.
    pub fn moves(&self) -> Vec<(&'static str, Moves)> {
        self.nodes.iter().map(|node| (node.spec().name, node.moves())).collect()
    }

    /// Whether the regions reach each other.
    pub fn link(&self) -> Link {
        self.wires.link()
    }

    /// Cuts the regions apart, or heals them.
    pub fn set_link(&mut self, link: Link) {
        self.wires.set(link);
    }

    /// Whether a shard runs; false for one that does not exist.
    pub fn is_running(&self, shard: &str) -> bool {
        self.shards.iter().any(|known| known.spec().name == shard && known.counts().is_some())
    }

    /// Kills a shard.
    pub async fn kill_shard(&mut self, shard: &str) {
        for known in self.shards.iter_mut().filter(|known| known.spec().name == shard) {
            known.kill().await;
        }
    }

    /// Starts a killed shard again.
    pub async fn start_shard(&mut self, shard: &str) -> Result<(), DevError> {
        for known in self.shards.iter_mut().filter(|known| known.spec().name == shard) {
            let name = known.spec().name;
            known.restart().await.map_err(|source| DevError::Shard { name, source })?;
        }
        Ok(())
    }

    /// Pins a tenant to a release, in the discovery file.
    pub fn pin(&mut self, tenant: &'static str, release: &'static str) -> Result<(), DevError> {
        self.discovery.pins.insert(tenant, release);
        self.write_discovery()
    }

    /// Changes the live release, in the discovery file.
    pub fn set_live(&mut self, release: &'static str) -> Result<(), DevError> {
        self.discovery.live_release = release;
        self.write_discovery()
    }

    fn write_discovery(&self) -> Result<(), DevError> {
        self.discovery.write().map_err(|source| DevError::file(self.discovery.path(), source))
    }

    /// Stops nodes first, then shards and wires.
    pub async fn shutdown(mut self) {
        let mut stopping = JoinSet::new();
        for node in self.nodes {
            stopping.spawn(node.shutdown());
        }
        stopping.join_all().await;
        for shard in &mut self.shards {
            shard.kill().await;
        }
    }
}

/// On an address of its own: connections to a killed shard's port can then never meet a socket that happens to use the port.
async fn start_shard(spec: ShardSpec) -> io::Result<DevShard> {
    let [_, _, _, last] = spec.id.to_be_bytes();
    match DevShard::start(spec, (Ipv4Addr::new(127, 83, 0, last), 0).into()).await {
        // Systems other than Linux know no loopback address but the first.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            DevShard::start(spec, (Ipv4Addr::LOCALHOST, 0).into()).await
        }
        started => started,
    }
}

/// Free UDP ports; all are held until the last is found, so that they differ.
async fn free_udp(count: usize) -> io::Result<Vec<SocketAddr>> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
    }
    held.iter().map(UdpSocket::local_addr).collect()
}

async fn entrances(folder: &Path, ports: Ports, https: Https) -> Result<Vec<Entrances>, DevError> {
    let http = frontends(ports).await?;
    let https: Vec<Option<HttpsEntrance>> = match https {
        Https::Off => NODES.iter().map(|_| None).collect(),
        Https::On => {
            let certificate = make_web_certificate(folder, &["localhost", "127.0.0.1"])?;
            let ports = match ports {
                Ports::Free => ports,
                Ports::From(base) => {
                    Ports::From(base.checked_add(HTTPS_ABOVE_HTTP).ok_or(DevError::BasePort { base })?)
                }
            };
            let entrance = |address| Some(HttpsEntrance { address, certificate: certificate.clone() });
            frontends(ports).await?.into_iter().map(entrance).collect()
        }
    };
    Ok(http.into_iter().zip(https).map(|(http, https)| Entrances { http, https }).collect())
}

async fn frontends(ports: Ports) -> Result<Vec<SocketAddr>, DevError> {
    let mut held = Vec::with_capacity(NODES.len());
    for index in 0..NODES.len() {
        let port = match ports {
            Ports::Free => 0,
            Ports::From(base) => u16::try_from(index)
                .ok()
                .and_then(|index| base.checked_add(index))
                .ok_or(DevError::BasePort { base })?,
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await;
        held.push(listener.map_err(|source| DevError::Port { address, source })?);
    }
    held.iter().map(|listener| listener.local_addr().map_err(DevError::Wires)).collect()
}
