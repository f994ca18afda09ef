//! What discovery lists: shards and the nodes of the mesh.

use crate::name::{RegionName, ReleaseName};
use shardgate_peering_core::{PeerId, ShardName};
use std::fmt;
use std::net::SocketAddr;

/// The base weight of a shard, which is also the most it can have (HAProxy's limit).
pub const WEIGHT_MAX: u16 = 256;

/// The greatest shard id: the server id that operators' scripts read is `id + 10`, and has to be a `u32` as well.
pub const SHARD_ID_MAX: u32 = u32::MAX - 10;

/// What operators want of a shard, from the least strict to the strictest. Whether it is healthy is another matter and not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ShardState {
    /// Takes new conferences.
    Ready,
    /// Keeps its conferences, gets no new ones.
    Drain,
    /// Gets no traffic.
    Maint,
}

impl ShardState {
    /// The word that stands for the state in files and in Consul.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// The state that `word` stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ready, Self::Drain, Self::Maint].into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for ShardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A web server, Prosody and Jicofo that conferences live on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name, unique.
    pub name: ShardName,
    /// Its number, unique, at most [`SHARD_ID_MAX`].
    pub id: u32,
    /// Where it stands.
    pub region: RegionName,
    /// Which release it runs.
    pub release: ReleaseName,
    /// Where it answers HTTP.
    pub address: SocketAddr,
    /// What operators want of it.
    pub state: ShardState,
    /// Its share of new conferences, 0 to [`WEIGHT_MAX`]; 0 gets none.
    pub weight: u16,
    /// What operators want of it where single releases are served, its own or one that it stands in for: HAProxy's state of a server in a
    /// backend. The strictest holds.
    pub states_in: Vec<(ReleaseName, ShardState)>,
    /// The TCP port at its address where its agent says how it is (HAProxy's `agent-port`); `None`: the one that the node's configuration says.
    pub agent_port: Option<u16>,
}

impl Shard {
    /// What operators want of it for requests that the release `pool` serves.
    #[must_use]
    pub fn state_in(&self, pool: &ReleaseName) -> ShardState {
        let there = self.states_in.iter().filter(|(release, _)| release == pool).map(|(_, state)| *state);
        there.fold(self.state, ShardState::max)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, region, release, address, state, weight, states_in, agent_port } = self;
        write!(
            f,
            "{name}: id {id}, region {region}, release {release}, {address}, {state}, weight {weight}"
        )?;
        states_in.iter().try_for_each(|(release, state)| write!(f, ", {state} in {release}"))?;
        agent_port.map_or(Ok(()), |port| write!(f, ", agent port {port}"))
    }
}

/// What a server of a pool is called: its pool or service, and its address in the letters of names: `jigasi-10.0.0.1-80`, and
/// `jigasi-2001_db8__1-80` for `[2001:db8::1]:80`. An entry that names it means the same on every node, and when the list has changed.
///
/// # Errors
/// [`shardgate_peering_core::IdError`] when it is no name for a shard.
pub fn server_name(prefix: &str, address: SocketAddr) -> Result<ShardName, shardgate_peering_core::IdError> {
    ShardName::parse(&format!("{prefix}-{}-{}", address.ip().to_string().replace(':', "_"), address.port()))
}

/// A node of the mesh. The own node may be listed, too; whoever dials skips it by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerNode {
    /// Its name, unique, as it stands in its certificate.
    pub id: PeerId,
    /// Where it stands.
    pub region: RegionName,
    /// Where it answers QUIC (UDP).
    pub address: SocketAddr,
}

/// A proxy that is none of ours: a HAProxy of before. It is kept for who compares tables; nobody dials it for a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherProxy {
    /// Its instance at Consul, `prod-haproxy-52-10`.
    pub id: String,
    /// Where it stands.
    pub region: RegionName,
    /// Where it is registered; its port is that of HAProxy's peers protocol (TCP).
    pub address: SocketAddr,
}

impl fmt::Display for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: region {}, {}", self.id, self.region, self.address)
    }
}
