//! Where a request goes: [`decide`] looks at its key, the topology, its stick entry and what is excluded. Pure.

use crate::health::Health;
use crate::placement::{Balance, Candidate, place, token_hash};
use crate::routing_key::{Compat, Routing, RoutingKey, Store};
use crate::rule::{Fired, Rule};
use foldhash::fast::RandomState;
use shardgate_discovery::{RegionName, ReleaseName, Shard, ShardState, Snapshot};
use shardgate_peering_core::{ShardName, hash64};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

mod in_pool;
pub use in_pool::{Stick, in_pool};
mod levels;
pub use levels::{Choice, Level, choices};

/// A snapshot, arranged for decisions: made once for each snapshot that a worker takes.
#[derive(Debug)]
pub struct Topology {
    snapshot: Arc<Snapshot>,
    health: Arc<Health>,
    pools: HashMap<ReleaseName, Pool, RandomState>,
    all: Vec<Candidate>,
    /// All shards, those of this region first: in this order they stand in for each other.
    near_to_far: Vec<Arc<Shard>>,
    region: RegionName,
}

/// The shards of a release as seen from here.
#[derive(Debug)]
struct Pool {
    release: ReleaseName,
    /// In this region: they share the conferences.
    local: Vec<Candidate>,
    /// Those of the release, wherever they are: the same for every node.
    every: Vec<Candidate>,
}

impl Topology {
    /// Arranges `snapshot`, with what `health` says of its shards upon it, for a node in `region`; `order` is that of the other regions' shards
    /// among the backups, and regions that it does not name follow by name.
    #[must_use]
    pub fn new(
        snapshot: Arc<Snapshot>,
        health: Arc<Health>,
        region: &RegionName,
        order: &[RegionName],
    ) -> Self {
        let snapshot = match health.is_plain() {
            true => snapshot,
            false => Arc::new(snapshot.with_shards(|shard| health.of(&shard.name).over(shard))),
        };
        let rank = |shard: &Arc<Shard>| {
            let named = order.iter().position(|name| *name == shard.region).unwrap_or(order.len());
            (shard.region != *region, named, shard.region.clone())
        };
        let mut near_to_far = snapshot.listed().to_vec();
        near_to_far.sort_by_cached_key(rank);
        let pool = |release: &ReleaseName| {
            let own = near_to_far.iter().filter(|shard| shard.release == *release);
            let every: Vec<Candidate> = own.cloned().map(Candidate::new).collect();
            let local = every.iter().filter(|candidate| candidate.shard.region == *region).cloned().collect();
            Pool { release: release.clone(), local, every }
        };
        let pools = snapshot.releases().map(|name| (name.clone(), pool(name))).collect();
        let all = snapshot.listed().iter().cloned().map(Candidate::new).collect();
        Self { snapshot, health, pools, all, near_to_far, region: region.clone() }
    }

    /// When no local shard of a pool is usable the first of these takes all of its conferences: the release's shards of other regions, those
    /// of the live release, then any other (R38). In HAProxy's words, backup servers.
    fn backups<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = &'a Arc<Shard>> {
        let live = self.snapshot.live_release();
        let of = |wanted: fn(bool, bool) -> bool| {
            let shards = self.near_to_far.iter();
            shards.filter(move |shard| wanted(shard.release == pool.release, Some(&shard.release) == live))
        };
        let remote = of(|own, _| own).filter(|shard| shard.region != self.region);
        remote.chain(of(|own, live| live && !own)).chain(of(|own, live| !live && !own))
    }

    /// What stands for a shard that is not listed here: it has a name and no address. `None` when there is no release that it could be of.
    #[must_use]
    pub fn unlisted(&self, name: &ShardName) -> Option<Shard> {
        Some(Shard {
            name: name.clone(),
            id: 0,
            region: self.region.clone(),
            release: self.snapshot.live_release().or_else(|| self.snapshot.releases().next())?.clone(),
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            state: ShardState::Drain,
            weight: 0,
            states_in: Vec::new(),
            agent_port: None,
        })
    }

    /// The snapshot, with the states and weights that count here.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What is known of servers here.
    #[must_use]
    pub const fn health(&self) -> &Arc<Health> {
        &self.health
    }
}

/// Why a request went where it went. A label of metrics and a word in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its path or room names the shard.
    Named,
    /// The stick table has the conference there, or the session of a pool's cookie.
    Entry,
    /// The key's home knew or chose another shard than was proposed.
    Claimed,
    /// `release=` asked for the release.
    Override,
    /// The tenant is pinned to the release.
    Pin,
    /// The release is the live one.
    Live,
    /// The release that counted has no usable shard.
    Fallback,
    /// The shard that was chosen first did not take the connection.
    Redispatch,
    /// Its path belongs to a pool without conferences.
    Pool,
}

impl Why {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Named,
        Self::Entry,
        Self::Claimed,
        Self::Override,
        Self::Pin,
        Self::Live,
        Self::Fallback,
        Self::Redispatch,
        Self::Pool,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Entry => "entry",
            Self::Claimed => "claimed",
            Self::Override => "override",
            Self::Pin => "pin",
            Self::Live => "live",
            Self::Fallback => "fallback",
            Self::Redispatch => "redispatch",
            Self::Pool => "pool",
        }
    }
}

/// What has to be asked of the key's home before the request may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeedsClaim {
    /// Nothing.
    No,
    /// The conference is new here: the shard is a proposal.
    Join,
    /// The conference is on a shard that is not reached from here: if nobody else reaches it either, the shard is a proposal to move it.
    Down {
        /// Where the entry has it.
        failed: ShardName,
    },
    /// The conference is on a shard that may not be used, as operators or its agent say: the shard is a proposal to move it.
    Maint {
        /// Where the entry has it.
        failed: ShardName,
    },
}

/// Where to go, and what to ask before.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The shard.
    pub shard: Arc<Shard>,
    /// Why this one.
    pub why: Why,
    /// What to ask the key's home.
    pub claim: NeedsClaim,
}

/// Nothing usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// The request names a shard, and that one only, but it was tried in vain.
    #[error("shard {shard} is named by the request, but cannot be reached")]
    Named {
        /// The shard.
        shard: ShardName,
    },
    /// A pool's only server was tried in vain, or its service has none.
    #[error("no other server of pool {pool}")]
    Pool {
        /// The pool.
        pool: ShardName,
    },
    /// There is no live release, or no shard that runs it, and the request asks for no other one (R25).
    #[error("no live release that has shards")]
    NoLiveRelease,
    /// No shard of any release takes new conferences.
    #[error("no shard takes new conferences")]
    Nothing,
}

/// What a decision needs to know beside the topology.
#[derive(Clone, Copy)]
pub struct Outlook<'a> {
    /// A shard that this request has tried in vain.
    pub excluded: Option<&'a ShardName>,
    /// Whether a shard failed here a moment ago: it is taken for new requests only when there is no other.
    pub suspect: &'a dyn Fn(&ShardName) -> bool,
    /// Whether the request may go by a peer to a shard that is not reached from here.
    pub detour: &'a dyn Fn(&ShardName) -> bool,
    /// How many conferences a shard has, in the whole mesh.
    pub conferences: &'a dyn Fn(&ShardName) -> u64,
    /// What is known of servers here.
    pub health: &'a Health,
    /// The most conferences of a shard in percent of the average.
    pub balance_percent: u32,
    /// A number that differs from request to request: it spreads those without a token.
    pub nonce: u64,
}

impl Outlook<'_> {
    /// Whether a server is up as far as is known here, and was not tried in vain.
    fn reaches(&self, server: &ShardName) -> bool {
        self.excluded != Some(server) && !self.health.is_down(server)
    }

    /// Whether the request may go to a server by a peer, and has not tried in vain.
    fn reaches_by_peer(&self, server: &ShardName) -> bool {
        self.excluded != Some(server) && (self.detour)(server)
    }
}

impl std::fmt::Debug for Outlook<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlook")
            .field("excluded", &self.excluded)
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

/// Decides where a request goes; `entry` is the shard that the stick table has for its token. Notes in `fired` which rules said so.
///
/// # Errors
/// [`NoRoute`] when no shard can be used.
pub fn decide(
    key: &RoutingKey<'_>,
    topology: &Topology,
    entry: Option<&ShardName>,
    routing: &Routing,
    outlook: &Outlook<'_>,
    fired: &mut Fired,
) -> Result<Decision, NoRoute> {
    if let Some(pool) = key.pool().and_then(|at| routing.pools.get(at)) {
        return in_pool(pool, &topology.snapshot, Stick::Turns, outlook, fired);
    }
    if let Some((shard, rule)) = named_shard(key, &topology.snapshot) {
        fired.note(rule);
        return go_to_named(shard, outlook, fired);
    }
    let entry = entry.filter(|_| key.store() != Store::Nothing);
    let stuck = entry.and_then(|name| match topology.snapshot.shard(name.as_str()) {
        Some(shard) => keeps(shard, key, topology, outlook).then(|| Arc::clone(shard)),
        // Discovery may lag here; the peer knows where it is.
        None => topology.unlisted(name).filter(|_| outlook.reaches_by_peer(name)).map(Arc::new),
    });
    if entry.is_some() {
        fired.note(if stuck.is_some() { Rule::Entry } else { Rule::EntryUnusable });
    }
    let stuck = stuck.map(|shard| Decision { shard, why: Why::Entry, claim: NeedsClaim::No });
    // R30: HAProxy chooses the backend first, and one that is a single shard, or none at all, looks at no table.
    let (backend, why) = match (stuck, routing.compat) {
        (Some(decision), Compat::None) => return Ok(decision),
        (Some(decision), Compat::Haproxy) => match backend(key, topology, outlook, fired)? {
            (Backend::Shard(shard), _) => return go_to_named(shard, outlook, fired),
            (Backend::Pool(_), _) => return Ok(decision),
        },
        (None, _) => backend(key, topology, outlook, fired)?,
    };
    let pool = match backend {
        Backend::Shard(shard) => return go_to_named(shard, outlook, fired),
        Backend::Pool(pool) => pool,
    };
    let stores = key.store() == Store::MatchOrStore;
    let claim = match entry {
        _ if !stores => NeedsClaim::No,
        // What is not listed here may be listed elsewhere: it is not reached from here.
        Some(failed) => match topology.snapshot.shard(failed.as_str()) {
            Some(shard) if !may_keep(shard, key, topology, outlook) => {
                NeedsClaim::Maint { failed: failed.clone() }
            }
            Some(_) | None => NeedsClaim::Down { failed: failed.clone() },
        },
        None => NeedsClaim::Join,
    };
    match &claim {
        NeedsClaim::No => {}
        NeedsClaim::Join => fired.note(Rule::FirstJoin),
        NeedsClaim::Down { .. } | NeedsClaim::Maint { .. } => fired.note(Rule::Move),
    }
    let balance = if stores {
        Balance::Bounded { percent: outlook.balance_percent, conferences: outlook.conferences }
    } else {
        Balance::Hash
    };
    match (choose(key, topology, pool, why, outlook, balance, fired), &claim) {
        (Ok((shard, why)), _) => Ok(Decision { shard, why, claim }),
        // Nobody can take it over, but its home may know who reaches it where it is.
        (Err(nothing), NeedsClaim::Down { failed }) => {
            let listed = topology.snapshot.shard(failed.as_str()).cloned();
            let shard = listed.or_else(|| topology.unlisted(failed).map(Arc::new)).ok_or(nothing)?;
            Ok(Decision { shard, why: Why::Entry, claim })
        }
        (Err(nothing), NeedsClaim::No | NeedsClaim::Join | NeedsClaim::Maint { .. }) => Err(nothing),
    }
}

/// Decides by the plain hash, for a key that got no entry: what every node computes alike.
///
/// # Errors
/// [`NoRoute`] when no shard can be used.
pub fn by_hash(
    key: &RoutingKey<'_>,
    topology: &Topology,
    outlook: &Outlook<'_>,
    fired: &mut Fired,
) -> Result<Decision, NoRoute> {
    let (pool, why) = match backend(key, topology, outlook, fired)? {
        (Backend::Shard(shard), _) => return go_to_named(shard, outlook, fired),
        (Backend::Pool(pool), why) => (pool, why),
    };
    let takes_new = |shard: &Shard| {
        let ready = shard.state_in(&pool.release) == ShardState::Ready;
        ready && shard.weight > 0 && outlook.excluded != Some(&shard.name)
    };
    let live = topology.snapshot.live_release().and_then(|live| topology.pools.get(live));
    let hash = token_hash(key.token());
    fired.note(Rule::TokenHash);
    // Neither regions nor whether this node reaches a shard: every node has to come to the same, as far as agents say the same to all.
    [
        (Some(&pool.every), why),
        (live.map(|live| &live.every), Why::Fallback),
        (Some(&topology.all), Why::Fallback),
    ]
    .into_iter()
    .find_map(|(shards, why)| Some((place(hash, shards?, &takes_new, Balance::Hash)?, why)))
    .map(|(candidate, why)| Decision { shard: Arc::clone(&candidate.shard), why, claim: NeedsClaim::No })
    .ok_or_else(|| {
        fired.note(Rule::NoShard);
        NoRoute::Nothing
    })
}

/// Where a request's conferences are placed.
enum Backend<'a> {
    /// On this shard, without the table.
    Shard(&'a Arc<Shard>),
    /// On the shards of a release.
    Pool(&'a Pool),
}

/// Whether a shard takes new conferences of a release.
fn takes_new(shard: &Shard, pool: &ReleaseName, outlook: &Outlook<'_>) -> bool {
    let ready = shard.state_in(pool) == ShardState::Ready;
    ready && shard.weight > 0 && outlook.reaches(&shard.name)
}

/// Whether a shard takes new conferences of a release by a peer. A new conference's home finds one; what has no home goes by one that is known.
fn takes_new_by_peer(shard: &Shard, pool: &ReleaseName, key: &RoutingKey<'_>, outlook: &Outlook<'_>) -> bool {
    let ready = shard.state_in(pool) == ShardState::Ready && shard.weight > 0;
    let stores = key.store() == Store::MatchOrStore;
    let cut = stores && outlook.health.is_cut(&shard.name) && outlook.excluded != Some(&shard.name);
    ready && (cut || outlook.reaches_by_peer(&shard.name))
}

/// Whether a shard keeps the conferences that it has: it may, and is reached, if by a peer.
pub(crate) fn keeps(shard: &Shard, key: &RoutingKey<'_>, topology: &Topology, outlook: &Outlook<'_>) -> bool {
    let reached = outlook.reaches(&shard.name) || outlook.reaches_by_peer(&shard.name);
    reached && may_keep(shard, key, topology, outlook)
}

/// Whether operators, and its agent, let a shard keep the conferences that it has.
fn may_keep(shard: &Shard, key: &RoutingKey<'_>, topology: &Topology, outlook: &Outlook<'_>) -> bool {
    let state = match shard.states_in.is_empty() {
        true => shard.state,
        // R36: HAProxy's states are a backend's. Whether this one counts is said by the rule of the entry.
        false => match backend(key, topology, outlook, &mut Fired::default()) {
            Ok((Backend::Pool(pool), _)) => shard.state_in(&pool.release),
            Ok((Backend::Shard(_), _)) | Err(_) => shard.state,
        },
    };
    state != ShardState::Maint
}

fn go_to_named(shard: &Arc<Shard>, outlook: &Outlook<'_>, fired: &mut Fired) -> Result<Decision, NoRoute> {
    if outlook.excluded == Some(&shard.name) {
        fired.note(Rule::TriedInVain);
        return Err(NoRoute::Named { shard: shard.name.clone() });
    }
    Ok(Decision { shard: Arc::clone(shard), why: Why::Named, claim: NeedsClaim::No })
}

/// R17 to R19, R24, R25: what `release=` asks for, else the tenant's pin, if any shard can serve it; else the live release.
fn backend<'a>(
    key: &RoutingKey<'_>,
    topology: &'a Topology,
    outlook: &Outlook<'_>,
    fired: &mut Fired,
) -> Result<(Backend<'a>, Why), NoRoute> {
    let (asked, why, rule) = match key.release_override() {
        Some(name) => (Some(name), Why::Override, Rule::AskedRelease),
        None => {
            let pin = key.tenant().and_then(|tenant| topology.snapshot.tenant_pin(tenant));
            (pin.map(ReleaseName::as_str), Why::Pin, Rule::TenantPin)
        }
    };
    if let Some(name) = asked {
        let serves = |pool: &&Pool| {
            let local = pool.local.iter().map(|candidate| &candidate.shard);
            local.chain(topology.backups(pool)).any(|shard| {
                takes_new(shard, &pool.release, outlook)
                    || takes_new_by_peer(shard, &pool.release, key, outlook)
            })
        };
        if let Some(pool) = topology.pools.get(name).filter(serves) {
            fired.note(rule);
            return Ok((Backend::Pool(pool), why));
        }
        if let Some(shard) = topology.snapshot.shard(name) {
            fired.note(Rule::AskedShard);
            return Ok((Backend::Shard(shard), why));
        }
        fired.note(Rule::NotServed);
    }
    let live = topology.snapshot.live_release();
    // R25: a shard's name stands for the shard, as in `release=`.
    let shard = |live: &ReleaseName| topology.snapshot.shard(live.as_str()).map(Backend::Shard);
    let backend = live.and_then(|live| topology.pools.get(live).map(Backend::Pool).or_else(|| shard(live)));
    fired.note(if backend.is_some() { Rule::LiveRelease } else { Rule::NoLiveRelease });
    backend.map(|backend| (backend, Why::Live)).ok_or(NoRoute::NoLiveRelease)
}

/// The shard for what has none yet: by the hash among those of this region, else the first that stands in (R33, R34, R38).
fn choose(
    key: &RoutingKey<'_>,
    topology: &Topology,
    pool: &Pool,
    why: Why,
    outlook: &Outlook<'_>,
    balance: Balance<'_>,
    fired: &mut Fired,
) -> Result<(Arc<Shard>, Why), NoRoute> {
    let (hash, by) = match key.token() {
        "" => (hash64(&outlook.nonce.to_le_bytes(), 0), Rule::NoToken),
        token => (token_hash(token), Rule::TokenHash),
    };
    let own = |takes: &dyn Fn(&Shard) -> bool| {
        let local = place(hash, &pool.local, takes, balance).map(|candidate| (&candidate.shard, why, by));
        local.or_else(|| {
            let mut remote = topology.backups(pool).filter(|shard| shard.release == pool.release);
            Some((remote.find(|shard| takes(shard))?, why, Rule::FallbackRegion))
        })
    };
    let others = |takes: &dyn Fn(&Shard) -> bool| {
        let mut others = topology.backups(pool).filter(|shard| shard.release != pool.release);
        Some((others.find(|shard| takes(shard))?, Why::Fallback, Rule::FallbackRelease))
    };
    let takes_new = |shard: &Shard| takes_new(shard, &pool.release, outlook);
    let trusted = |shard: &Shard| takes_new(shard) && !(outlook.suspect)(&shard.name);
    let by_peer = |shard: &Shard| takes_new_by_peer(shard, &pool.release, key, outlook);
    let mut also = |found, rule| {
        fired.note(rule);
        found
    };
    let found = own(&trusted)
        // A release that peers reach is not gone.
        .or_else(|| own(&by_peer).map(|found| also(found, Rule::OnlyByPeers)))
        .or_else(|| others(&trusted))
        .or_else(|| {
            own(&takes_new).or_else(|| others(&takes_new)).map(|found| also(found, Rule::OnlySuspects))
        })
        .or_else(|| others(&by_peer).map(|found| also(found, Rule::OnlyByPeers)));
    let Some((shard, why, rule)) = found else {
        fired.note(Rule::NoShard);
        return Err(NoRoute::Nothing);
    };
    fired.note(rule);
    // The first that stands in takes everything.
    if rule == by && matches!(balance, Balance::Bounded { .. }) {
        fired.note(Rule::BoundedLoad);
    }
    Ok((Arc::clone(shard), why))
}

/// R23: the path or the end of the room names a shard. Of several the first by name.
fn named_shard<'a>(key: &RoutingKey<'_>, snapshot: &'a Snapshot) -> Option<(&'a Arc<Shard>, Rule)> {
    let by_path = key.first_segment().and_then(|name| snapshot.shard(name));
    let by_path = by_path.map(|shard| (shard, Rule::NamedShardPath));
    let by_room = key.room_suffixes().filter_map(|name| snapshot.shard(&name));
    let by_room = by_room.map(|shard| (shard, Rule::NamedShardSuffix));
    by_path.into_iter().chain(by_room).min_by(|(a, _), (b, _)| a.name.cmp(&b.name))
}

#[cfg(test)]
pub(crate) mod tests;
