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
use shardgate_discovery::Shard;
use shardgate_peering::{ClaimReason, Claimed};
use shardgate_peering_core::{ShardName, StickKey};
use std::rc::Rc;
use std::sync::Arc;

/// Where a request goes.
pub(super) struct Resolved {
    pub(super) shard: Arc<Shard>,
    pub(super) why: Why,
    pub(super) holds: Holds,
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
    let settings = Rc::clone(&record.settings);
    let routing = &settings.routing;
    for _ in 0..CLAIMS_MAX {
        let decision = with_outlook(worker, &settings, excluded, |outlook| {
            decide(key, topology, entry.as_ref(), routing, outlook, &mut record.fired)
        })?;
        let Decision { shard, why, claim } = decision;
        let reason = match claim {
            NeedsClaim::No if why == Why::Entry => {
                return Ok(Resolved { shard, why, holds: Holds::Entry });
            }
            NeedsClaim::No => return Ok(Resolved { shard, why, holds: Holds::Nothing }),
            NeedsClaim::Join => ClaimReason::Join,
            NeedsClaim::Down { failed } => ClaimReason::Down { failed },
        };
        // The parser keeps tokens within the key's bounds.
        let Ok(stick_key) = StickKey::parse(key.token()) else {
            return Ok(Resolved { shard, why, holds: Holds::Nothing });
        };
        if reason == ClaimReason::Join {
            admit_new_key(worker, record.sender.ip())?;
        }
        // Boxed: known conferences ask nobody.
        let Some(answer) = Box::pin(ask_home(worker, stick_key, &shard.name, reason, record)).await else {
            // Somebody else's answer may have come meanwhile; a tunnel holds the key all the same, and so hears where it goes.
            let there = worker.lookup(key.token());
            let there = there.and_then(|name| usable(record, key, topology, excluded, &name));
            if let Some(shard) = there {
                return Ok(Resolved { shard, why: Why::Entry, holds: Holds::Entry });
            }
            let decision = with_outlook(worker, &settings, excluded, |outlook| {
                by_hash(key, topology, outlook, &mut record.fired)
            })?;
            return Ok(Resolved { shard: decision.shard, why: decision.why, holds: Holds::Entry });
        };
        if answer == shard.name {
            return Ok(Resolved { shard, why, holds: Holds::Entry });
        }
        if let Some(shard) = usable(record, key, topology, excluded, &answer) {
            return Ok(Resolved { shard, why: Why::Claimed, holds: Holds::Entry });
        }
        if entry.as_ref() == Some(&answer) {
            // The home keeps it where it is: it was moved a moment ago.
            return Err(NoRoute::Nothing.into());
        }
        entry = Some(answer);
    }
    Err(NoRoute::Nothing.into())
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
    let kept = with_outlook(&record.worker, &record.settings, excluded, |outlook| {
        keeps(shard, key, topology, outlook)
    });
    kept.then(|| Arc::clone(shard))
}

/// Asks a key's home, and answers what it said; `None` when the table does not take the key.
pub(super) async fn ask_home(
    worker: &Worker,
    key: StickKey,
    proposal: &ShardName,
    reason: ClaimReason,
    record: &mut Record,
) -> Option<ShardName> {
    let began = record.elapsed();
    let claimed = worker.claim(key, proposal.clone(), reason).await;
    record.timers.claim = Some(record.timers.claim.unwrap_or(0) + record.elapsed() - began);
    let (outcome, answer) = match claimed {
        // Only an operator's question is answered with the other two.
        Claimed::Unstored { .. } | Claimed::Cleared | Claimed::Held => (ClaimOutcome::Unstored, None),
        Claimed::Stick { shard: answer } if answer == *proposal => (ClaimOutcome::Proposed, Some(answer)),
        Claimed::Stick { shard: answer } => (ClaimOutcome::Other, Some(answer)),
    };
    worker.counters.claims[outcome as usize].up();
    answer
}

pub(super) fn with_outlook<T>(
    worker: &Worker,
    settings: &Settings,
    excluded: Option<&ShardName>,
    ask: impl FnOnce(&Outlook<'_>) -> T,
) -> T {
    ask(&Outlook {
        excluded,
        suspect: &|name| worker.is_suspect(name),
        conferences: &|name| worker.table.conferences(name),
        missing: &|name| worker.missing(name),
        balance_percent: settings.limits.balance_percent,
        nonce: worker.nonce(),
    })
}
