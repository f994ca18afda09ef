//! Pools that stick on a cookie: an entry leads its value to a server, learned from requests and from what servers set.
//!
//! A session is no conference: when the table does not take its cookie, or its home keeps it on a server that cannot be used here,
//! another server's answer is better than none. Then the cookie's hash chooses, so that all of its requests go the same way.

use super::resolve::{Answer, CLAIMS_MAX, Holds, Resolved, ask_home, with_outlook};
use crate::cookie;
use crate::limits::admit_new_key;
use crate::record::Record;
use crate::rescue::Failure;
use crate::route::{Decision, NeedsClaim, Outlook, Stick, Topology, Why, in_pool};
use crate::routing_key::{Pool, Routing, RoutingKey};
use crate::worker::Worker;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use shardgate_discovery::Shard;
use shardgate_peering::ClaimReason;
use shardgate_peering_core::{ShardName, StickKey, hash64};

/// A request to a pool that sticks on a cookie.
pub(super) struct ByCookie<'a> {
    pub(super) pool: &'a Pool,
    /// The key of the request's cookie; without one it takes its turn.
    pub(super) key: Option<StickKey>,
}

impl<'a> ByCookie<'a> {
    /// `None` for requests to conferences and to pools that take turns.
    pub(super) fn of(key: &RoutingKey<'_>, headers: &HeaderMap, routing: &'a Routing) -> Option<Self> {
        let pool = routing.pools.get(key.pool()?)?;
        pool.stick_on_cookie.as_ref()?;
        Some(Self { pool, key: pool.cookie_key(headers) })
    }

    /// Learns the cookie that `server` sets, and answers its key. The home is asked before the answer goes to the client and not
    /// waited for: whoever asks for the same key here, or at its home if that is here, comes later. An entry that exists stays.
    pub(super) fn learn(&self, record: &Record, headers: &HeaderMap, server: &Shard) -> Option<StickKey> {
        let name = self.pool.stick_on_cookie.as_ref()?;
        let lines = headers.get_all(SET_COOKIE).iter().map(HeaderValue::as_bytes);
        let key = cookie::stick_key(&self.pool.name, name, cookie::of_answer(lines, name)?)?;
        let worker = &record.worker;
        if worker.table.lookup_for_use(key.as_str()).is_none() {
            let counters = &worker.counters;
            // Sessions can be begun by whoever asks for one: they count as new keys do.
            let proposed = admit_new_key(worker, record.sender.ip()).is_ok()
                && worker.table.propose(key.clone(), server.name.clone()).is_ok();
            match proposed {
                true => counters.cookies_learned.up(),
                false => counters.cookies_lost.up(),
            }
        }
        Some(key)
    }
}

/// Resolves a cookie; `excluded` is a server that was tried in vain.
pub(super) async fn resolve_by_cookie(
    worker: &Worker,
    pool: &Pool,
    key: &StickKey,
    topology: &Topology,
    excluded: Option<&ShardName>,
    record: &mut Record,
) -> Result<Resolved, Failure> {
    let mut entry = worker.table.lookup_for_use(key.as_str());
    let mut followed = Why::Entry;
    let turn = hash64(key.as_str().as_bytes(), 0);
    for _ in 0..CLAIMS_MAX {
        let stick = entry.as_ref().map_or(Stick::New, Stick::Entry);
        // Where its server cannot be used the same other one answers all of a cookie's requests.
        let decision = with_outlook(worker, topology, &record.settings, excluded, &|_| None, |outlook| {
            let outlook = Outlook { nonce: turn, ..*outlook };
            in_pool(pool, topology.snapshot(), stick, &outlook, &mut record.fired)
        })?;
        let Decision { shard, why, claim } = decision;
        let reason = match claim {
            NeedsClaim::No => {
                let why = if why == Why::Entry { followed } else { why };
                return Ok(Resolved::directly(shard, why, Holds::Cookie(key.clone())));
            }
            NeedsClaim::Join => ClaimReason::Join,
            // A pool's server is no shard: nobody else can tell whether it can be reached.
            NeedsClaim::Down { failed } | NeedsClaim::Maint { failed } => ClaimReason::Maint { failed },
        };
        if reason == ClaimReason::Join {
            admit_new_key(worker, record.sender.ip())?;
        }
        match ask_home(worker, key.clone(), &shard.name, reason, record).await {
            Answer::On(answer) if answer == shard.name => {
                return Ok(Resolved::directly(shard, why, Holds::Cookie(key.clone())));
            }
            // Moved a moment ago, so it stays: the next look finds it there, or moves it.
            Answer::On(answer) if entry.as_ref() == Some(&answer) => break,
            Answer::Kept { .. } => break,
            Answer::On(answer) => {
                entry = Some(answer);
                followed = Why::Claimed;
            }
            Answer::Nothing => {
                let Resolved { shard, why, .. } = by_hash(worker, pool, key, topology, excluded, record)?;
                // A tunnel holds the key all the same, and so hears where it goes.
                return Ok(Resolved::directly(shard, why, Holds::Cookie(key.clone())));
            }
        }
    }
    by_hash(worker, pool, key, topology, excluded, record)
}

/// The server that the cookie's hash chooses, without an entry.
fn by_hash(
    worker: &Worker,
    pool: &Pool,
    key: &StickKey,
    topology: &Topology,
    excluded: Option<&ShardName>,
    record: &mut Record,
) -> Result<Resolved, Failure> {
    let turn = hash64(key.as_str().as_bytes(), 0);
    let decision = with_outlook(worker, topology, &record.settings, excluded, &|_| None, |outlook| {
        in_pool(
            pool,
            topology.snapshot(),
            Stick::Turns,
            &Outlook { nonce: turn, ..*outlook },
            &mut record.fired,
        )
    })?;
    Ok(Resolved::directly(decision.shard, decision.why, Holds::Nothing))
}
