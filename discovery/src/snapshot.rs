//! One consistent view of the world: built whole, validated, then never changed.

use crate::bans::{BANS_MAX, BanList, Bans, Verdict};
use crate::name::{BanPattern, ReleaseName, ServiceName, TenantName};
use crate::shard::{OtherProxy, PeerNode, SHARD_ID_MAX, Shard, WEIGHT_MAX};
use foldhash::fast::RandomState;
use shardgate_peering_core::{PeerId, ShardName};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// The most shards a snapshot can list. Far above any site (Jitsi's largest has some hundreds); it bounds memory and metrics.
pub const SHARDS_MAX: usize = 10_000;
/// The most nodes a mesh can list; a full mesh beyond 200 is out of the design's reach.
pub const PEERS_MAX: usize = 1_024;
/// The most tenant pins.
pub const PINS_MAX: usize = 100_000;

/// Shards, peers, live release, pins and bans at one moment. `Default` is the empty one, version 0.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    version: u64,
    shards: Shards,
    peers: Vec<PeerNode>,
    live_release: Option<ReleaseName>,
    /// Shared by the snapshots that an operator's command makes of one source.
    pins: Arc<HashMap<TenantName, ReleaseName, RandomState>>,
    bans: Arc<Bans>,
    servers: BTreeMap<ServiceName, Vec<Arc<Shard>>>,
    other_proxies: Vec<OtherProxy>,
}

/// The same shards in the orders in which they are asked for.
#[derive(Debug, Clone, Default)]
struct Shards {
    listed: Vec<Arc<Shard>>,
    sorted: Vec<Arc<Shard>>,
    by_name: HashMap<ShardName, Arc<Shard>, RandomState>,
    by_release: BTreeMap<ReleaseName, Vec<Arc<Shard>>>,
}

impl Shards {
    fn new(listed: Vec<Arc<Shard>>) -> Self {
        let mut sorted = listed.clone();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let by_name = sorted.iter().map(|shard| (shard.name.clone(), Arc::clone(shard))).collect();
        let mut by_release: BTreeMap<ReleaseName, Vec<Arc<Shard>>> = BTreeMap::new();
        for shard in &sorted {
            by_release.entry(shard.release.clone()).or_default().push(Arc::clone(shard));
        }
        Self { listed, sorted, by_name, by_release }
    }
}

impl Snapshot {
    /// The shard called `name`.
    #[must_use]
    pub fn shard(&self, name: &str) -> Option<&Arc<Shard>> {
        self.shards.by_name.get(name)
    }

    /// All shards, sorted by name.
    #[must_use]
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards.sorted
    }

    /// All shards in the order in which the source lists them: in this order they stand in for each other.
    #[must_use]
    pub fn listed(&self) -> &[Arc<Shard>] {
        &self.shards.listed
    }

    /// What is banned.
    #[must_use]
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// The servers of a service that pools name, as shards that hold no conferences; empty when it has none.
    #[must_use]
    pub fn servers_of(&self, service: &str) -> &[Arc<Shard>] {
        self.servers.get(service).map_or(&[], Vec::as_slice)
    }

    /// All services that pools name, with their servers.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceName, &[Arc<Shard>])> {
        self.servers.iter().map(|(service, servers)| (service, servers.as_slice()))
    }

    /// The nodes of the mesh, sorted by id; the own one may be among them.
    #[must_use]
    pub fn peers(&self) -> &[PeerNode] {
        &self.peers
    }

    /// Proxies that are none of ours, in the order in which the source lists them.
    #[must_use]
    pub fn other_proxies(&self) -> &[OtherProxy] {
        &self.other_proxies
    }

    /// The release that new conferences go to.
    #[must_use]
    pub const fn live_release(&self) -> Option<&ReleaseName> {
        self.live_release.as_ref()
    }

    /// The release that `tenant` (lower case, without a slash) is pinned to.
    #[must_use]
    pub fn tenant_pin(&self, tenant: &str) -> Option<&ReleaseName> {
        self.pins.get(tenant)
    }

    /// All pins, in no order.
    pub fn pins(&self) -> impl Iterator<Item = (&TenantName, &ReleaseName)> {
        self.pins.iter()
    }

    /// The releases that have shards, sorted.
    pub fn releases(&self) -> impl Iterator<Item = &ReleaseName> {
        self.shards.by_release.keys()
    }

    /// The shards of `release`, sorted by name; empty when there is no such release.
    #[must_use]
    pub fn shards_of(&self, release: &str) -> &[Arc<Shard>] {
        self.shards.by_release.get(release).map_or(&[], Vec::as_slice)
    }

    /// 0 for a snapshot nobody published, then one more with every published change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Whether both say the same; versions do not count.
    #[must_use]
    pub fn content_equals(&self, other: &Self) -> bool {
        self.live_release == other.live_release
            && self.shards.listed == other.shards.listed
            && self.peers == other.peers
            && self.pins == other.pins
            && self.bans == other.bans
            && self.servers == other.servers
            && self.other_proxies == other.other_proxies
    }

    /// The same with other shards where `change` has one in the place of one.
    #[must_use]
    pub fn with_shards(&self, change: impl Fn(&Shard) -> Option<Shard>) -> Self {
        let listed = self.shards.listed.iter();
        let listed = listed.map(|shard| change(shard).map_or_else(|| Arc::clone(shard), Arc::new));
        Self { shards: Shards::new(listed.collect()), ..self.clone() }
    }

    pub(crate) fn with_version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }
}

/// Collects the parts of a [`Snapshot`]; every source uses it, so every source obeys the same rules.
#[derive(Debug, Clone, Default)]
pub struct SnapshotBuilder {
    shards: Vec<Shard>,
    peers: Vec<PeerNode>,
    live_release: Option<ReleaseName>,
    pins: Vec<(TenantName, ReleaseName)>,
    bans: Vec<(BanList, BanPattern, Verdict)>,
    servers: BTreeMap<ServiceName, Vec<Arc<Shard>>>,
    other_proxies: Vec<OtherProxy>,
}

impl SnapshotBuilder {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the live release.
    #[must_use]
    pub fn live_release(mut self, release: ReleaseName) -> Self {
        self.live_release = Some(release);
        self
    }

    /// Adds a shard.
    #[must_use]
    pub fn shard(mut self, shard: Shard) -> Self {
        self.shards.push(shard);
        self
    }

    /// Adds a node of the mesh.
    #[must_use]
    pub fn peer(mut self, peer: PeerNode) -> Self {
        self.peers.push(peer);
        self
    }

    /// Adds a proxy that is none of ours.
    #[must_use]
    pub fn other_proxy(mut self, proxy: OtherProxy) -> Self {
        self.other_proxies.push(proxy);
        self
    }

    /// Pins a tenant to a release.
    #[must_use]
    pub fn pin(mut self, tenant: TenantName, release: ReleaseName) -> Self {
        self.pins.push((tenant, release));
        self
    }

    /// Adds a pattern to a ban list, behind those that it has.
    #[must_use]
    pub fn ban(mut self, list: BanList, pattern: BanPattern, verdict: Verdict) -> Self {
        self.bans.push((list, pattern, verdict));
        self
    }

    /// Adds a server of a service that pools name.
    #[must_use]
    pub fn server(mut self, service: ServiceName, server: Shard) -> Self {
        self.servers.entry(service).or_default().push(Arc::new(server));
        self
    }

    /// Checks everything and builds the snapshot (version 0 until it is published).
    ///
    /// # Errors
    /// [`BuildErrors`] with every fault found: duplicates, numbers out of range, lists beyond their bound.
    pub fn build(self) -> Result<Snapshot, BuildErrors> {
        let mut errors = Vec::new();
        self.check_bounds(&mut errors);
        if errors.is_empty() {
            self.check_shards(&mut errors);
            self.check_peers(&mut errors);
            self.check_pins(&mut errors);
            self.check_bans(&mut errors);
        }
        if !errors.is_empty() {
            return Err(BuildErrors(errors));
        }
        let shards = Shards::new(self.shards.into_iter().map(Arc::new).collect());
        let mut peers = self.peers;
        peers.sort_by(|a, b| a.id.cmp(&b.id));
        let pins = Arc::new(self.pins.into_iter().collect());
        let (live_release, bans) = (self.live_release, Arc::new(Bans::new(self.bans)));
        let Self { servers, other_proxies, .. } = self;
        Ok(Snapshot { version: 0, shards, peers, live_release, pins, bans, servers, other_proxies })
    }

    fn check_bounds(&self, errors: &mut Vec<BuildError>) {
        for (list, count, max) in [
            ("shards", self.shards.len(), SHARDS_MAX),
            ("peers", self.peers.len(), PEERS_MAX),
            ("other proxies", self.other_proxies.len(), PEERS_MAX),
            ("pins", self.pins.len(), PINS_MAX),
            ("bans", self.bans.len(), BANS_MAX),
            ("servers", self.servers.values().map(Vec::len).sum(), SHARDS_MAX),
        ] {
            if count > max {
                errors.push(BuildError::TooMany { list, count, max });
            }
        }
    }

    fn check_shards(&self, errors: &mut Vec<BuildError>) {
        let mut names: HashMap<&ShardName, usize, RandomState> = HashMap::default();
        let mut ids: HashMap<u32, usize, RandomState> = HashMap::default();
        for (index, shard) in self.shards.iter().enumerate() {
            if let Some(&first) = names.get(&shard.name) {
                errors.push(BuildError::DuplicateShardName {
                    name: shard.name.clone(),
                    first,
                    second: index,
                });
            } else {
                names.insert(&shard.name, index);
            }
            if let Some(&first) = ids.get(&shard.id) {
                errors.push(BuildError::DuplicateShardId { id: shard.id, first, second: index });
            } else {
                ids.insert(shard.id, index);
            }
            if shard.id > SHARD_ID_MAX {
                errors.push(BuildError::ShardId { name: shard.name.clone(), id: shard.id });
            }
            if shard.weight > WEIGHT_MAX {
                errors.push(BuildError::Weight { name: shard.name.clone(), weight: shard.weight });
            }
        }
    }

    fn check_peers(&self, errors: &mut Vec<BuildError>) {
        let mut ids: HashMap<&PeerId, usize, RandomState> = HashMap::default();
        for (index, peer) in self.peers.iter().enumerate() {
            if let Some(&first) = ids.get(&peer.id) {
                errors.push(BuildError::DuplicatePeer { id: peer.id.clone(), first, second: index });
            } else {
                ids.insert(&peer.id, index);
            }
        }
    }

    fn check_pins(&self, errors: &mut Vec<BuildError>) {
        let mut tenants: HashMap<&TenantName, usize, RandomState> = HashMap::default();
        for (index, (tenant, _)) in self.pins.iter().enumerate() {
            if let Some(&first) = tenants.get(tenant) {
                errors.push(BuildError::DuplicatePin { tenant: tenant.clone(), first, second: index });
            } else {
                tenants.insert(tenant, index);
            }
        }
    }

    fn check_bans(&self, errors: &mut Vec<BuildError>) {
        let mut patterns: HashMap<(BanList, &BanPattern), usize, RandomState> = HashMap::default();
        for (index, (list, pattern, _)) in self.bans.iter().enumerate() {
            if let Some(&first) = patterns.get(&(*list, pattern)) {
                let (list, pattern) = (*list, pattern.clone());
                errors.push(BuildError::DuplicateBan { list, pattern, first, second: index });
            } else {
                patterns.insert((*list, pattern), index);
            }
        }
    }
}

/// One reason why the parts are no snapshot. Indices count in the order in which the parts were added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A list is longer than its bound.
    #[error("{list} has {count} entries, expected at most {max}")]
    TooMany {
        /// `shards`, `peers`, `other proxies`, `pins`, `bans` or `servers`.
        list: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Two shards have one name.
    #[error("shard name {name} is used by shards[{first}] and shards[{second}], expected it once")]
    DuplicateShardName {
        /// The name.
        name: ShardName,
        /// Index of the first shard.
        first: usize,
        /// Index of the second shard.
        second: usize,
    },
    /// Two shards have one id.
    #[error("shard id {id} is used by shards[{first}] and shards[{second}], expected it once")]
    DuplicateShardId {
        /// The id.
        id: u32,
        /// Index of the first shard.
        first: usize,
        /// Index of the second shard.
        second: usize,
    },
    /// A shard's id is beyond [`SHARD_ID_MAX`].
    #[error("shard {name} has the id {id}, expected at most {SHARD_ID_MAX}")]
    ShardId {
        /// The shard.
        name: ShardName,
        /// Its id.
        id: u32,
    },
    /// A shard's weight is beyond [`WEIGHT_MAX`].
    #[error("shard {name} has the weight {weight}, expected 0 to {WEIGHT_MAX}")]
    Weight {
        /// The shard.
        name: ShardName,
        /// Its weight.
        weight: u16,
    },
    /// Two nodes have one id.
    #[error("peer id {id} is used by peers[{first}] and peers[{second}], expected it once")]
    DuplicatePeer {
        /// The id.
        id: PeerId,
        /// Index of the first node.
        first: usize,
        /// Index of the second node.
        second: usize,
    },
    /// A tenant has two pins.
    #[error("tenant {tenant} is pinned twice (pins {first} and {second}), expected once")]
    DuplicatePin {
        /// The tenant.
        tenant: TenantName,
        /// Index of the first pin.
        first: usize,
        /// Index of the second pin.
        second: usize,
    },
    /// A ban list has a pattern twice.
    #[error(
        "pattern {pattern} stands twice in the ban list {list} (bans {first} and {second}), expected once"
    )]
    DuplicateBan {
        /// The list.
        list: BanList,
        /// The pattern.
        pattern: BanPattern,
        /// Index of the first one, among the patterns of all lists.
        first: usize,
        /// Index of the second one.
        second: usize,
    },
}

/// Everything that is wrong with the parts of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildErrors(pub Vec<BuildError>);

impl fmt::Display for BuildErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for BuildErrors {}

#[cfg(test)]
mod tests;
