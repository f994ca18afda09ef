//! All that Consul said, by source, and the snapshot that comes of it. Pure.

use super::agent::{Datacenter, Target, key_path};
use super::policy::{Pair, Policy, PolicyKind};
use super::record::{AddressKind, Instance, InvalidRecord, RecordFault};
use super::rights::Right;
use crate::bans::BANS_MAX;
use crate::name::{EnvironmentName, ServiceName};
use crate::shard::{OtherProxy, PeerNode, Shard};
use crate::snapshot::{BuildErrors, PEERS_MAX, PINS_MAX, SHARDS_MAX, Snapshot, SnapshotBuilder};
use serde::{Deserialize, Serialize};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The most servers of one service; all services together have no more than shards may be.
const SERVERS_MAX: usize = 500;
/// The most services that pools name.
pub const POOL_SERVICES_MAX: usize = SHARDS_MAX / SERVERS_MAX;

/// What is listed in every datacenter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Shards.
    Shards,
    /// Nodes of ours.
    Nodes,
    /// Proxies of before; nodes of ours may be registered as such, to be found by older ones.
    Proxies,
    /// Shards with their bridge in one.
    Standalones,
}

impl ServiceKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Shards, Self::Nodes, Self::Proxies, Self::Standalones];

    pub(crate) const fn are_shards(self) -> bool {
        match self {
            Self::Shards | Self::Standalones => true,
            Self::Nodes | Self::Proxies => false,
        }
    }
}

/// A list that is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// Keys in the own datacenter.
    Policy(PolicyKind),
    /// Instances of a service in a datacenter.
    Services(Datacenter, ServiceKind),
    /// Instances of a service that pools name, in the own datacenter: whoever needs them has them near.
    Pool(ServiceName),
}

impl Source {
    /// The datacenter whose services it lists; keys and pools are the own one's, whatever that is.
    pub(crate) const fn datacenter(&self) -> Option<&Datacenter> {
        match self {
            Self::Services(datacenter, _) => Some(datacenter),
            Self::Policy(_) | Self::Pool(_) => None,
        }
    }

    /// The service whose instances are servers of pools.
    pub(crate) const fn pool(&self) -> Option<&ServiceName> {
        match self {
            Self::Pool(service) => Some(service),
            Self::Policy(_) | Self::Services(..) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(kind) => write!(f, "keys {}", kind.as_str()),
            Self::Services(datacenter, ServiceKind::Shards) => write!(f, "shards of {datacenter}"),
            Self::Services(datacenter, ServiceKind::Nodes) => write!(f, "nodes of {datacenter}"),
            Self::Services(datacenter, ServiceKind::Proxies) => write!(f, "proxies of {datacenter}"),
            Self::Services(datacenter, ServiceKind::Standalones) => {
                write!(f, "standalone shards of {datacenter}")
            }
            Self::Pool(service) => write!(f, "servers of {service}"),
        }
    }
}

/// A list's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Records {
    Pairs(Vec<Pair>),
    Instances(Vec<Instance>),
}

impl Records {
    /// The instances; none where keys are.
    fn instances(&self) -> &[Instance] {
        match self {
            Self::Pairs(_) => &[],
            Self::Instances(instances) => instances,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Pairs(pairs) => pairs.len(),
            Self::Instances(instances) => instances.len(),
        }
    }
}

/// The names under which services are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceNames {
    /// Default `signal`.
    pub shards: String,
    /// Default `shardgate`.
    pub nodes: String,
    /// Default `haproxy`.
    pub proxies: String,
    /// Default `all`; `None`: there are none.
    pub standalones: Option<String>,
}

impl Default for ServiceNames {
    fn default() -> Self {
        Self {
            shards: "signal".to_owned(),
            nodes: "shardgate".to_owned(),
            proxies: "haproxy".to_owned(),
            standalones: Some("all".to_owned()),
        }
    }
}

impl ServiceNames {
    /// What a kind is called; `None`: it is not asked for.
    fn of(&self, kind: ServiceKind) -> Option<&str> {
        match kind {
            ServiceKind::Shards => Some(&self.shards),
            ServiceKind::Nodes => Some(&self.nodes),
            ServiceKind::Proxies => Some(&self.proxies),
            ServiceKind::Standalones => self.standalones.as_deref(),
        }
    }

    /// The kinds that are asked for.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = ServiceKind> {
        ServiceKind::ALL.into_iter().filter(|kind| self.of(*kind).is_some())
    }
}

/// Where this node stands, and what it looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The environment, which keys and tags name.
    pub environment: EnvironmentName,
    /// The own datacenter.
    pub datacenter: Datacenter,
    /// What services are called.
    pub services: ServiceNames,
    /// Which addresses of other datacenters are used.
    pub remote_address: AddressKind,
}

impl Place {
    /// How a source is asked for.
    pub(crate) fn target(&self, source: &Source) -> Target {
        match source {
            Source::Policy(kind) => Target {
                path: key_path(&kind.prefix(self.environment.as_str())),
                query: vec![("recurse", String::new())],
                right: Right::Keys(kind.prefix(self.environment.as_str())),
                datacenter: None,
            },
            Source::Services(datacenter, kind) => {
                // What is not asked for is asked for by nobody: disks may still hold it.
                self.instances(self.services.of(*kind).unwrap_or_default(), datacenter)
            }
            Source::Pool(service) => self.instances(service.as_str(), &self.datacenter),
        }
    }

    fn instances(&self, service: &str, datacenter: &Datacenter) -> Target {
        Target {
            path: format!("/v1/catalog/service/{service}"),
            query: vec![("tag", self.environment.to_string())],
            right: Right::Service(service.to_owned()),
            datacenter: Some(datacenter.clone()),
        }
    }

    fn address_kind(&self, datacenter: &str) -> AddressKind {
        if datacenter == self.datacenter.as_str() { AddressKind::Lan } else { self.remote_address }
    }
}

/// What is known of each source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct World(pub(crate) BTreeMap<Source, Records>);

/// A snapshot, and what was left out of it.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// Names, numbers and bounds are seen to before; an error is a mistake of this module's, and no reason to forget what was known.
    pub(crate) snapshot: Result<Snapshot, BuildErrors>,
    pub(crate) invalid: Vec<InvalidRecord>,
}

impl World {
    /// Takes a source's records, and says whether they are others.
    pub(crate) fn take(&mut self, source: Source, records: Records) -> Taken {
        match self.0.entry(source) {
            Entry::Occupied(entry) if *entry.get() == records => Taken::AsBefore,
            Entry::Occupied(mut entry) => {
                entry.insert(records);
                Taken::Changed
            }
            Entry::Vacant(entry) => {
                entry.insert(records);
                Taken::Changed
            }
        }
    }

    /// Makes a snapshot of it. The same records make the same one on every node: in the order of datacenters and instances.
    pub(crate) fn assemble(&self, place: &Place) -> Assembled {
        let mut invalid = Vec::new();
        let mut policy = Policy::default();
        let (mut shards, mut nodes, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for (source, records) in &self.0 {
            match (source, records) {
                (Source::Policy(kind), Records::Pairs(pairs)) => {
                    policy.add(*kind, place.environment.as_str(), pairs, &mut invalid);
                }
                (Source::Services(_, kind), instances) if kind.are_shards() => {
                    shards.extend(instances.instances().iter().map(|instance| (*kind, instance)));
                }
                (Source::Services(_, kind), instances) => {
                    nodes.extend(instances.instances().iter().map(|instance| (*kind, instance)));
                }
                (Source::Pool(service), instances) => {
                    let mut instances: Vec<_> = instances.instances().iter().collect();
                    instances.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
                    servers.extend(read_servers(place, service, &instances, &mut invalid));
                }
                // A disk's mistake; what Consul says comes as what was asked for.
                (Source::Policy(_), Records::Instances(_)) => {}
            }
        }
        shards.sort_by(|(kind, a), (other, b)| (kind, a.precedence()).cmp(&(other, b.precedence())));
        nodes.sort_by(|(_, a), (_, b)| a.precedence().cmp(&b.precedence()));
        let shards = read_shards(place, &policy, &shards, &mut invalid);
        let (peers, others) = read_peers(place, &nodes, &mut invalid);
        let mut builder = policy.live.into_iter().fold(SnapshotBuilder::new(), SnapshotBuilder::live_release);
        builder = shards.into_iter().fold(builder, SnapshotBuilder::shard);
        builder = peers.into_iter().fold(builder, SnapshotBuilder::peer);
        builder = others.into_iter().fold(builder, SnapshotBuilder::other_proxy);
        builder =
            servers.into_iter().fold(builder, |builder, (service, server)| builder.server(service, server));
        let beyond = |list: &'static str, max| InvalidRecord {
            place: format!("key {list}"),
            fault: RecordFault::TooMany { max },
        };
        if policy.pins.len() > PINS_MAX {
            invalid.push(beyond("releases", PINS_MAX));
        }
        for (tenant, release) in policy.pins.into_iter().take(PINS_MAX) {
            builder = builder.pin(tenant, release);
        }
        if policy.bans.len() > BANS_MAX {
            invalid.push(beyond("banlists", BANS_MAX));
        }
        for (list, pattern, verdict) in policy.bans.into_iter().take(BANS_MAX) {
            builder = builder.ban(list, pattern, verdict);
        }
        Assembled { snapshot: builder.build(), invalid }
    }
}

/// A list, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List {
    /// Keys of the own datacenter (`/v1/kv/...?recurse`).
    Keys(PolicyKind),
    /// Instances of a datacenter (`/v1/catalog/service/...`).
    Services(Datacenter, ServiceKind),
    /// Servers of pools.
    Pool(ServiceName),
}

/// What a node makes of lists as Consul answers them, in JSON; one that cannot be read is none. Nothing is asked: for who has recorded them, or
/// made them up.
///
/// # Errors
/// [`BuildErrors`], when a list of keys has one twice.
pub fn read_lists<'a>(
    place: &Place,
    lists: impl IntoIterator<Item = (List, &'a [u8])>,
) -> Result<(Snapshot, Vec<InvalidRecord>), BuildErrors> {
    let mut world = World::default();
    for (list, json) in lists {
        let pairs = || serde_json::from_slice(json).map(Records::Pairs);
        let instances = || serde_json::from_slice(json).map(Records::Instances);
        let (source, records) = match list {
            List::Keys(kind) => (Source::Policy(kind), pairs()),
            List::Services(datacenter, kind) => (Source::Services(datacenter, kind), instances()),
            List::Pool(service) => (Source::Pool(service), instances()),
        };
        if let Ok(records) = records {
            world.take(source, records);
        }
    }
    let Assembled { snapshot, invalid } = world.assemble(place);
    Ok((snapshot?, invalid))
}

/// Whether a source says something else than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    AsBefore,
    Changed,
}

fn read_shards(
    place: &Place,
    policy: &Policy,
    instances: &[(ServiceKind, &Instance)],
    invalid: &mut Vec<InvalidRecord>,
) -> Vec<Shard> {
    let mut shards = Vec::new();
    let (mut names, mut ids) = (HashMap::new(), HashMap::new());
    for (kind, instance) in instances {
        let mut refuse = |fault| invalid.push(InvalidRecord { place: instance.place(), fault });
        let address = place.address_kind(&instance.datacenter);
        let shard = match kind {
            ServiceKind::Standalones => instance.standalone(place.environment.as_str(), address),
            ServiceKind::Shards | ServiceKind::Nodes | ServiceKind::Proxies => {
                instance.shard(place.environment.as_str(), address)
            }
        };
        let mut shard = match shard {
            Ok(shard) => shard,
            Err(fault) => {
                refuse(fault);
                continue;
            }
        };
        if let Some(owner) = names.get(&shard.name) {
            let (value, owner) = (shard.name.to_string(), String::clone(owner));
            refuse(RecordFault::Taken { field: "shard", value, owner });
            continue;
        }
        if let Some(owner) = ids.get(&shard.id) {
            let (value, owner) = (shard.id.to_string(), String::clone(owner));
            refuse(RecordFault::Taken { field: "shard_id", value, owner });
            continue;
        }
        if shards.len() == SHARDS_MAX {
            refuse(RecordFault::TooMany { max: SHARDS_MAX });
            break;
        }
        names.insert(shard.name.clone(), instance.place());
        ids.insert(shard.id, instance.place());
        if let Some(state) = policy.states.get(&shard.name) {
            shard.state = *state;
        }
        shards.push(((kind, instance.order()), shard));
    }
    shards.sort_by_key(|(order, _)| *order);
    shards.into_iter().map(|(_, shard)| shard).collect()
}

/// The servers of a service; one address counts once.
fn read_servers(
    place: &Place,
    service: &ServiceName,
    instances: &[&Instance],
    invalid: &mut Vec<InvalidRecord>,
) -> Vec<(ServiceName, Shard)> {
    let mut servers: Vec<(ServiceName, Shard)> = Vec::new();
    let mut owners = HashMap::new();
    for instance in instances {
        let mut refuse = |fault| invalid.push(InvalidRecord { place: instance.place(), fault });
        let kind = place.address_kind(&instance.datacenter);
        match instance.server(service, place.environment.as_str(), kind) {
            Err(fault) => refuse(fault),
            Ok(_) if servers.len() == SERVERS_MAX => {
                refuse(RecordFault::TooMany { max: SERVERS_MAX });
                break;
            }
            Ok(server) => match owners.get(&server.address) {
                Some(owner) => {
                    let (value, owner) = (server.address.to_string(), String::clone(owner));
                    refuse(RecordFault::Taken { field: "address", value, owner });
                }
                None => {
                    owners.insert(server.address, instance.place());
                    servers.push((service.clone(), server));
                }
            },
        }
    }
    servers.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    servers
}

/// The nodes of the mesh, and the proxies that are none of ours.
fn read_peers(
    place: &Place,
    instances: &[(ServiceKind, &Instance)],
    invalid: &mut Vec<InvalidRecord>,
) -> (Vec<PeerNode>, Vec<OtherProxy>) {
    let mut peers: BTreeMap<_, (PeerNode, String)> = BTreeMap::new();
    let mut others = Vec::new();
    for (service, instance) in instances {
        let kind = place.address_kind(&instance.datacenter);
        let mut refuse = |fault| invalid.push(InvalidRecord { place: instance.place(), fault });
        match instance.peer(place.environment.as_str(), kind) {
            None if *service != ServiceKind::Proxies => {}
            None => match instance.other_proxy(place.environment.as_str(), kind) {
                Ok(_) if others.len() == PEERS_MAX => refuse(RecordFault::TooMany { max: PEERS_MAX }),
                Ok(proxy) => others.push(proxy),
                Err(fault) => refuse(fault),
            },
            Some(Err(fault)) => refuse(fault),
            Some(Ok(peer)) => match peers.get(&peer.id) {
                // One node may be registered as a proxy of before as well.
                Some((known, _)) if *known == peer => {}
                Some((_, owner)) => {
                    let (value, owner) = (peer.id.to_string(), owner.clone());
                    refuse(RecordFault::Taken { field: "node", value, owner });
                }
                None if peers.len() == PEERS_MAX => refuse(RecordFault::TooMany { max: PEERS_MAX }),
                None => {
                    peers.insert(peer.id.clone(), (peer, instance.place()));
                }
            },
        }
    }
    (peers.into_values().map(|(peer, _)| peer).collect(), others)
}

#[cfg(test)]
mod tests;
