//! Where a request goes: [`decide`] looks at its key, the topology, its stick entry and what is excluded. Pure.

use crate::placement::{Balance, Candidate, place, token_hash};
use crate::routing_key::{RoutingKey, Store};
use foldhash::fast::RandomState;
use shardgate_discovery::{RegionName, ReleaseName, Shard, ShardState, Snapshot};
use shardgate_peering_core::{ShardName, hash64};
use std::collections::HashMap;
use std::sync::Arc;

/// A snapshot, arranged for decisions: made once for each snapshot that a worker takes.
#[derive(Debug)]
pub struct Topology {
    snapshot: Arc<Snapshot>,
    releases: HashMap<ReleaseName, Zone, RandomState>,
    all: Zone,
}

/// Shards by where they stand, as seen from here. Local ones are preferred.
#[derive(Debug, Default)]
struct Zone {
    local: Vec<Candidate>,
    remote: Vec<Candidate>,
    /// Both, as they are the same for every node.
    every: Vec<Candidate>,
}

impl Topology {
    /// Arranges `snapshot` for a node in `region`.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, region: &RegionName) -> Self {
        let zone = |shards: &[Arc<Shard>]| {
            let mut zone = Zone::default();
            for shard in shards {
                zone.every.push(Candidate::new(Arc::clone(shard)));
                let side = if shard.region == *region { &mut zone.local } else { &mut zone.remote };
                side.push(Candidate::new(Arc::clone(shard)));
            }
            zone
        };
        let releases =
            snapshot.releases().map(|name| (name.clone(), zone(snapshot.shards_of(name.as_str())))).collect();
        let all = zone(snapshot.shards());
        Self { snapshot, releases, all }
    }

    /// The snapshot as discovery published it.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}

/// Why a request went where it went. A label of metrics and a word in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its path or room names the shard.
    Named,
    /// The stick table has the conference there.
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
}

impl Why {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Named,
        Self::Entry,
        Self::Claimed,
        Self::Override,
        Self::Pin,
        Self::Live,
        Self::Fallback,
        Self::Redispatch,
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
    /// The conference is on a shard that cannot be used: the shard is a proposal to move it.
    Down {
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
    /// The request names a shard, and that one only, but it takes no traffic.
    #[error("shard {shard} is named by the request, but takes no traffic")]
    Named {
        /// The shard.
        shard: ShardName,
    },
    /// The conference is on a shard that discovery has not told of here.
    #[error("the conference is on shard {shard}, which discovery does not list here yet")]
    Unlisted {
        /// The shard.
        shard: ShardName,
    },
    /// No shard of any release takes new conferences.
    #[error("no shard takes new conferences")]
    Nothing,
}

/// What it means that an entry names a shard which the snapshot does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Discovery here is behind: others reach it, and its conferences stay.
    NotYetListed,
    /// It was taken away: its conferences move.
    Gone,
}

/// What a decision needs to know beside the topology.
#[derive(Clone, Copy)]
pub struct Outlook<'a> {
    /// A shard that this request has tried in vain.
    pub excluded: Option<&'a ShardName>,
    /// Whether a shard failed here a moment ago: it is taken for new requests only when there is no other.
    pub suspect: &'a dyn Fn(&ShardName) -> bool,
    /// How many conferences a shard has, in the whole mesh.
    pub conferences: &'a dyn Fn(&ShardName) -> u64,
    /// Why a shard is not in the snapshot.
    pub missing: &'a dyn Fn(&ShardName) -> Missing,
    /// The most conferences of a shard in percent of the average.
    pub balance_percent: u32,
    /// A number that differs from request to request: it spreads those without a token.
    pub nonce: u64,
}

impl std::fmt::Debug for Outlook<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlook")
            .field("excluded", &self.excluded)
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

/// Decides where a request goes; `entry` is the shard that the stick table has for its token.
///
/// # Errors
/// [`NoRoute`] when no shard can be used.
pub fn decide(
    key: &RoutingKey<'_>,
    topology: &Topology,
    entry: Option<&ShardName>,
    outlook: &Outlook<'_>,
) -> Result<Decision, NoRoute> {
    let snapshot = &*topology.snapshot;
    let usable = |shard: &Shard| shard.state != ShardState::Maint && outlook.excluded != Some(&shard.name);
    if let Some(shard) = named_shard(key, snapshot) {
        return if usable(shard) {
            Ok(Decision { shard: Arc::clone(shard), why: Why::Named, claim: NeedsClaim::No })
        } else {
            Err(NoRoute::Named { shard: shard.name.clone() })
        };
    }
    let stores = key.store() == Store::MatchOrStore;
    let entry = entry.filter(|_| key.store() != Store::Nothing);
    if let Some(shard) = entry.and_then(|name| snapshot.shard(name.as_str())).filter(|shard| usable(shard)) {
        return Ok(Decision { shard: Arc::clone(shard), why: Why::Entry, claim: NeedsClaim::No });
    }
    let claim = match entry {
        _ if !stores => NeedsClaim::No,
        Some(shard)
            if snapshot.shard(shard.as_str()).is_none()
                && (outlook.missing)(shard) == Missing::NotYetListed =>
        {
            return Err(NoRoute::Unlisted { shard: shard.clone() });
        }
        Some(failed) => NeedsClaim::Down { failed: failed.clone() },
        None => NeedsClaim::Join,
    };
    let balance = if stores {
        Balance::Bounded { percent: outlook.balance_percent, conferences: outlook.conferences }
    } else {
        Balance::Hash
    };
    let (shard, why) = choose(key, topology, outlook, balance)?;
    Ok(Decision { shard, why, claim })
}

/// Decides by the plain hash, for a key that got no entry: what every node computes alike.
///
/// # Errors
/// [`NoRoute`] when no shard can be used.
pub fn by_hash(
    key: &RoutingKey<'_>,
    topology: &Topology,
    outlook: &Outlook<'_>,
) -> Result<Decision, NoRoute> {
    let takes_new = |shard: &Shard| shard.state == ShardState::Ready && outlook.excluded != Some(&shard.name);
    let (release, why) = release(key, topology, &takes_new);
    let live = topology.snapshot.live_release().and_then(|live| topology.releases.get(live));
    let hash = token_hash(key.token());
    // Neither regions nor what this node has just seen of a shard: every node has to come to the same.
    [(release, why), (live, Why::Fallback), (Some(&topology.all), Why::Fallback)]
        .into_iter()
        .find_map(|(zone, why)| Some((place(hash, &zone?.every, &takes_new, Balance::Hash)?, why)))
        .map(|(candidate, why)| Decision { shard: Arc::clone(&candidate.shard), why, claim: NeedsClaim::No })
        .ok_or(NoRoute::Nothing)
}

/// The shard for what has none yet: the first usable level, and in it the hash.
fn choose(
    key: &RoutingKey<'_>,
    topology: &Topology,
    outlook: &Outlook<'_>,
    balance: Balance<'_>,
) -> Result<(Arc<Shard>, Why), NoRoute> {
    let takes_new = |shard: &Shard| shard.state == ShardState::Ready && outlook.excluded != Some(&shard.name);
    let hash = match key.token() {
        "" => hash64(&outlook.nonce.to_le_bytes(), 0),
        token => token_hash(token),
    };
    let (release, why) = release(key, topology, &takes_new);
    let live = topology.snapshot.live_release().and_then(|live| topology.releases.get(live));
    let levels = [
        (release.map(|zone| &zone.local), why),
        (release.map(|zone| &zone.remote), why),
        (live.map(|zone| &zone.local), Why::Fallback),
        (live.map(|zone| &zone.remote), Why::Fallback),
        (Some(&topology.all.local), Why::Fallback),
        (Some(&topology.all.remote), Why::Fallback),
    ];
    let first = |takes: &dyn Fn(&Shard) -> bool| {
        levels.iter().find_map(|(level, why)| {
            let candidate = place(hash, level.as_ref()?, takes, balance)?;
            Some((Arc::clone(&candidate.shard), *why))
        })
    };
    first(&|shard| takes_new(shard) && !(outlook.suspect)(&shard.name))
        .or_else(|| first(&takes_new))
        .ok_or(NoRoute::Nothing)
}

/// R23 and R18: the path, the end of the room or `release=` names a shard. Of several the first by name.
fn named_shard<'a>(key: &RoutingKey<'_>, snapshot: &'a Snapshot) -> Option<&'a Arc<Shard>> {
    let by_path = key.first_segment().and_then(|name| snapshot.shard(name));
    let by_room = key.room_suffixes().filter_map(|name| snapshot.shard(&name));
    by_path.into_iter().chain(by_room).min_by(|a, b| a.name.cmp(&b.name)).or_else(|| {
        let name = key.release_override()?;
        if snapshot.shards_of(name).is_empty() { snapshot.shard(name) } else { None }
    })
}

/// The release whose shards come first: the override, else the tenant's pin, if one of its shards takes new conferences;
/// else the live one.
fn release<'a>(
    key: &RoutingKey<'_>,
    topology: &'a Topology,
    takes_new: &dyn Fn(&Shard) -> bool,
) -> (Option<&'a Zone>, Why) {
    let (asked, why) = match key.release_override() {
        Some(name) => (Some(name), Why::Override),
        None => (
            key.tenant().and_then(|tenant| topology.snapshot.tenant_pin(tenant)).map(ReleaseName::as_str),
            Why::Pin,
        ),
    };
    let asked = asked.and_then(|name| topology.releases.get(name)).filter(|zone| {
        zone.local
            .iter()
            .chain(&zone.remote)
            .any(|candidate| candidate.shard.weight > 0 && takes_new(&candidate.shard))
    });
    match asked {
        Some(zone) => (Some(zone), why),
        None => (topology.snapshot.live_release().and_then(|live| topology.releases.get(live)), Why::Live),
    }
}

#[cfg(test)]
pub(crate) mod tests;
