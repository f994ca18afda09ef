//! From a key to a shard: the stick table is read, the decision made, and the key's home asked where the decision needs it.
//! For pools that stick on a cookie see `by_cookie`.

use super::by_cookie::{ByCookie, resolve_by_cookie};
use crate::counters::ClaimOutcome;
use crate::limits::admit_new_key;
use crate::record::Record;
use crate::rescue::Failure;
use crate::route::{Decision, NeedsClaim, NoRoute, Outlook, Topology, Why, by_hash, decide, keeps};
use crate::routing_key::{RoutingKey, Store};
use crate::sessions::HoldsEntry;
use crate::worker::{Settings, Worker};
use shardgate_discovery::{Shard, ShardState};
use shardgate_peering::{ClaimReason, Claimed};
use shardgate_peering_core::{PeerId, ShardName, StickKey};
use std::rc::Rc;
use std::sync::Arc;

/// Where a request goes.
pub(super) struct Resolved {
    pub(super) shard: Arc<Shard>,
    /// The peer that the shard is reached by, where this node does not reach it itself.
    pub(super) via: Option<PeerId>,
    pub(super) why: Why,
    pub(super) holds: Holds,
}

impl Resolved {
    /// To a shard that this node reaches itself, or has not found that it does not.
    pub(super) fn directly(shard: Arc<Shard>, why: Why, holds: Holds) -> Self {
        Self { shard, via: None, why, holds }
    }
}

/// Whether a tunnel of a request holds an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holds {
    /// That of its token.
    Entry,
    /// That of its cookie.
    Cookie(StickKey),
    /// It has none.
    Nothing,
}

impl Holds {
    /// Whether a BOSH session holds the entry of its token.
    pub(super) const fn entry(&self) -> HoldsEntry {
        match self {
            Self::Entry => HoldsEntry::Yes,
            Self::Cookie(_) | Self::Nothing => HoldsEntry::No,
        }
    }
}

/// How often a home may be asked for one decision: for the join, and for a move when the answer cannot be used here.
pub(super) const CLAIMS_MAX: usize = 2;

/// Resolves a key, or the cookie of a pool that sticks on one; `excluded` is a shard that was tried in vain.
pub(super) async fn resolve(
    worker: &Worker,
    key: &RoutingKey<'_>,
    cookie: Option<&ByCookie<'_>>,
    topology: &Topology,
    excluded: Option<&ShardName>,
    record: &mut Record,
) -> Result<Resolved, Failure> {
    if let Some(ByCookie { pool, key: Some(key) }) = cookie {
        // Boxed: most requests go to conferences.
        return Box::pin(resolve_by_cookie(worker, pool, key, topology, excluded, record)).await;
    }
    let mut entry = match key.store() {
        Store::Nothing => None,
        Store::MatchOnly | Store::MatchOrStore if key.pool().is_none() => {
            worker.table.lookup_for_use(key.token())
        }
        Store::MatchOnly | Store::MatchOrStore => None,
    };
    if key.is_bosh() && entry.is_some() {
        entry = worker.stays_on(&record.client, key.token()).or(entry);
    }
    let detour = |shard: &ShardName| detour(worker, key, shard);
    let resolved = |shard: Arc<Shard>, why, holds| {
        let via = detour(&shard.name);
        Resolved { shard, via, why, holds }
    };
    let settings = Rc::clone(&record.settings);
    let routing = &settings.routing;
    for _ in 0..CLAIMS_MAX {
        let decision = with_outlook(worker, topology, &settings, excluded, &detour, |outlook| {
            decide(key, topology, entry.as_ref(), routing, outlook, &mut record.fired)
        })?;
        let Decision { shard, why, claim } = decision;
        let reason = match claim {
            NeedsClaim::No if why == Why::Entry => return Ok(resolved(shard, why, Holds::Entry)),
            NeedsClaim::No => return Ok(resolved(shard, why, Holds::Nothing)),
            NeedsClaim::Join => ClaimReason::Join,
            NeedsClaim::Down { failed } => ClaimReason::Down { failed },
            NeedsClaim::Maint { failed } => ClaimReason::Maint { failed },
        };
        let left = match &reason {
            ClaimReason::Down { failed } | ClaimReason::Maint { failed } => Some(failed.clone()),
            ClaimReason::Join | ClaimReason::Operator => None,
        };
        // The parser keeps tokens within the key's bounds.
        let Ok(stick_key) = StickKey::parse(key.token()) else {
            return Ok(Resolved::directly(shard, why, Holds::Nothing));
        };
        if reason == ClaimReason::Join {
            admit_new_key(worker, record.sender.ip())?;
        }
        // Boxed: known conferences ask nobody.
        let answer = match Box::pin(ask_home(worker, stick_key, &shard.name, reason, record)).await {
            Answer::On(answer) => answer,
            Answer::Kept { shard, via } => {
                return kept(worker, topology, excluded, &shard, &via).ok_or_else(|| NoRoute::Nothing.into());
            }
            Answer::Nothing => {
                // Somebody else's answer may have come meanwhile; a tunnel holds the key all the same, and so hears where it goes.
                let there = worker.lookup(key.token());
                let there = there.and_then(|name| usable(record, key, topology, excluded, &name));
                if let Some(shard) = there {
                    return Ok(resolved(shard, Why::Entry, Holds::Entry));
                }
                if left.is_some() {
                    // It has an entry: wherever the hash leads, others go elsewhere.
                    return Err(NoRoute::Nothing.into());
                }
                let decision = with_outlook(worker, topology, &settings, excluded, &detour, |outlook| {
                    by_hash(key, topology, outlook, &mut record.fired)
                })?;
                return Ok(resolved(decision.shard, decision.why, Holds::Entry));
            }
        };
        if left.as_ref() == Some(&answer) {
            // The home keeps it where it is, though nobody reaches it: it was moved a moment ago, or there is nowhere to move it.
            return Err(NoRoute::Nothing.into());
        }
        // One that only peers reach was proposed because its home finds the way: it is asked for that.
        let by_peer = topology.health().is_down(&answer) && detour(&answer).is_none();
        if answer == shard.name && !by_peer {
            return Ok(resolved(shard, why, Holds::Entry));
        }
        if let Some(shard) = usable(record, key, topology, excluded, &answer) {
            return Ok(resolved(shard, Why::Claimed, Holds::Entry));
        }
        entry = Some(answer);
    }
    Err(NoRoute::Nothing.into())
}

/// The peer by which a shard is gone to that this node is known not to reach. Who may ask a home does so again after a while. Peers know no
/// servers of pools.
fn detour(worker: &Worker, key: &RoutingKey<'_>, shard: &ShardName) -> Option<PeerId> {
    match key.store() {
        _ if key.pool().is_some() => None,
        Store::MatchOrStore => worker.fresh_detour(shard),
        Store::MatchOnly | Store::Nothing => worker.detour(shard),
    }
}

/// Where a conference stays whose shard was not reached from here, while these nodes reach it: by the nearest of them that there is a
/// connection to. This node itself may be among them: it tries again then, unless that is what failed just now and somebody else is there.
fn kept(
    worker: &Worker,
    topology: &Topology,
    excluded: Option<&ShardName>,
    name: &ShardName,
    reached_by: &[PeerId],
) -> Option<Resolved> {
    let shard = listed_or_not(topology, name)?;
    let here = reached_by.contains(worker.table.me());
    let peers = worker.relays.nearest(reached_by);
    if here && (excluded != Some(name) || peers.is_empty()) {
        return Some(Resolved::directly(shard, Why::Claimed, Holds::Entry));
    }
    let nearest = peers.first()?.clone();
    worker.goes_by(name, peers);
    // Without a detour, because the health thread could not be told, it is this request's way alone.
    let via = worker.detour_or(name, nearest)?;
    Some(Resolved { shard, via: Some(via), why: Why::Claimed, holds: Holds::Entry })
}

/// A shard by its name, for a peer to go by. One that discovery does not list here (it lags) has no address here; the peer knows it. `None`
/// for one that takes nothing.
fn listed_or_not(topology: &Topology, name: &ShardName) -> Option<Arc<Shard>> {
    match topology.snapshot().shard(name.as_str()) {
        Some(shard) if shard.state == ShardState::Maint => None,
        Some(shard) => Some(Arc::clone(shard)),
        None => Some(Arc::new(topology.unlisted(name)?)),
    }
}

/// The shard of that name, when it keeps conferences that it has.
fn usable(
    record: &Record,
    key: &RoutingKey<'_>,
    topology: &Topology,
    excluded: Option<&ShardName>,
    name: &ShardName,
) -> Option<Arc<Shard>> {
    let shard = topology.snapshot().shard(name.as_str())?;
    let detour = |shard: &ShardName| detour(&record.worker, key, shard);
    let kept = with_outlook(&record.worker, topology, &record.settings, excluded, &detour, |outlook| {
        keeps(shard, key, topology, outlook)
    });
    kept.then(|| Arc::clone(shard))
}

/// What a key's home said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is on this shard.
    On(ShardName),
    /// It stays on this shard, which these nodes reach.
    Kept { shard: ShardName, via: Vec<PeerId> },
    /// The table does not take the key.
    Nothing,
}

/// Asks a key's home.
pub(super) async fn ask_home(
    worker: &Worker,
    key: StickKey,
    proposal: &ShardName,
    reason: ClaimReason,
    record: &mut Record,
) -> Answer {
    let began = record.elapsed();
    let claimed = worker.claim(key, proposal.clone(), reason).await;
    record.timers.claim = Some(record.timers.claim.unwrap_or(0) + record.elapsed() - began);
    let (outcome, answer) = match claimed {
        // Only an operator's question is answered with the other two.
        Claimed::Unstored { .. } | Claimed::Cleared | Claimed::Held => {
            (ClaimOutcome::Unstored, Answer::Nothing)
        }
        Claimed::Stick { shard } if shard == *proposal => (ClaimOutcome::Proposed, Answer::On(shard)),
        Claimed::Stick { shard } => (ClaimOutcome::Other, Answer::On(shard)),
        Claimed::Keep { shard, via } => (ClaimOutcome::Kept, Answer::Kept { shard, via }),
    };
    worker.counters.claims[outcome as usize].up();
    answer
}

pub(super) fn with_outlook<T>(
    worker: &Worker,
    topology: &Topology,
    settings: &Settings,
    excluded: Option<&ShardName>,
    detour: &dyn Fn(&ShardName) -> Option<PeerId>,
    ask: impl FnOnce(&Outlook<'_>) -> T,
) -> T {
    ask(&Outlook {
        excluded,
        suspect: &|name| worker.is_suspect(name) || worker.detour(name).is_some(),
        detour: &|name| detour(name).is_some(),
        conferences: &|name| worker.table.conferences(name),
        health: topology.health(),
        balance_percent: settings.limits.balance_percent,
        nonce: worker.nonce(),
    })
}
