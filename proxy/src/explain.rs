//! What would become of a request, step by step: the data plane's own functions, asked without a node.

use crate::admission::{check_key, read_head};
use crate::headers::Sent;
use crate::rescue::{Failure, Pages, Reader, respond};
use crate::route::{
    Choice, Decision, NeedsClaim, NoRoute, Outlook, Stick, Topology, Why, choices, decide, in_pool,
};
use crate::routing_key::{Pool, Routing, RoutingKey, Store};
use crate::rule::{Fired, Rule, Stage};
use http::HeaderMap;
use http::header::{HOST, LOCATION};
use http::request::Parts;
use serde::Serialize;
use shardgate_discovery::{RegionName, Shard, Snapshot};
use shardgate_peering_core::ShardName;
use std::sync::Arc;

mod steps;
mod text;

/// What requests are explained against.
#[derive(Debug)]
pub struct Site {
    /// `[routing]` and the pools.
    pub routing: Routing,
    /// The region that the node stands in.
    pub region: RegionName,
    /// `backend.balance_factor`.
    pub balance_percent: u32,
    /// Shards, pins, bans.
    pub snapshot: Arc<Snapshot>,
}

/// All that there is to say of one request.
#[derive(Debug, Serialize)]
pub struct Explanation {
    method: String,
    target: String,
    host: Option<String>,
    /// One for each rule that matched, in the order of the rules.
    steps: Vec<Step>,
    /// `None` when the request was refused before it had one.
    key: Option<Key>,
    ban: Option<Ban>,
    /// Who could take it, nearest first; empty when no choice is to be made.
    candidates: Vec<Candidate>,
    decision: Outcome,
}

#[derive(Debug, Serialize)]
struct Step {
    stage: &'static str,
    rule: &'static str,
    /// The oracle's rules, as `R09`.
    follows: Vec<String>,
    looked_at: String,
    says: String,
}

#[derive(Debug, Serialize)]
struct Key {
    /// What the stick table has it under; empty for none.
    token: String,
    tenant: Option<String>,
    room: Option<String>,
    kind: Kind,
    table: Table,
    release_override: Option<String>,
    /// The shard that the path or the room names.
    named_shard: Option<String>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// A room's page, or the first one.
    Page,
    /// A file, or whatever else is no room and no signaling.
    Asset,
    Signaling,
    Health,
}

impl Kind {
    fn of(fired: Fired) -> Self {
        if fired.has(Rule::HealthPath) {
            Self::Health
        } else if fired.has(Rule::SignalingPath) || fired.has(Rule::HostPrefix) {
            Self::Signaling
        } else if fired.has(Rule::NotARoom) {
            Self::Asset
        } else {
            Self::Page
        }
    }
}

/// What the stick table has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Table {
    Unused,
    Reads,
    ReadsAndStores,
}

#[derive(Debug, Serialize)]
struct Ban {
    /// `ban` or `allow`.
    verdict: &'static str,
    /// The list that says so, by its rule.
    rule: &'static str,
}

#[derive(Debug, Serialize)]
struct Candidate {
    shard: String,
    release: String,
    region: String,
    level: &'static str,
    state: &'static str,
    weight: u16,
    takes_new: bool,
}

/// How it ends.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
enum Outcome {
    /// It goes to a shard.
    Routed {
        shard: String,
        release: String,
        address: String,
        why: &'static str,
        /// Whether the next request may well go to another one: there is nothing to hash, and they take turns.
        takes_turns: bool,
        /// The key of the entry that it makes or moves.
        stored_under: Option<String>,
        /// The shard that its entry leaves.
        moved_from: Option<String>,
    },
    /// The node answers itself.
    Answered { status: u16, location: Option<String>, error: String },
}

impl Site {
    /// Says what becomes of a request while the stick table has its conference on `entry`, no shard has failed and none is full.
    #[must_use]
    pub fn explain(&self, head: &Parts, entry: Option<&ShardName>) -> Explanation {
        let Self { routing, region, balance_percent, snapshot } = self;
        let topology = Topology::new(Arc::clone(snapshot), Arc::default(), region, &routing.region_order);
        let outlook = Outlook {
            excluded: None,
            suspect: &|_| false,
            detour: &|_| false,
            conferences: &|_| 0,
            // What a file does not list is not there: no one remembers it.
            health: topology.health(),
            balance_percent: *balance_percent,
            nonce: 0,
        };
        let (bans, mut fired) = (snapshot.bans(), Fired::default());
        let sent = Sent::of(&head.headers, routing.compat);
        let read = read_head(&head.method, &head.uri, &head.headers, &sent, bans, routing, &mut fired);
        let (key, decided) = match read {
            Err(failure) => (None, Err(failure)),
            Ok(key) => {
                let admitted = check_key(&key, bans, routing.compat, &mut fired).map_err(Failure::from);
                let decided = admitted.and_then(|()| {
                    Ok(decide_by_cookie(
                        &key,
                        &head.headers,
                        &topology,
                        entry,
                        routing,
                        &outlook,
                        &mut fired,
                    )?)
                });
                (Some(key), decided)
            }
        };
        let chose =
            [Rule::TokenHash, Rule::NoToken, Rule::FallbackRegion, Rule::FallbackRelease, Rule::NoShard];
        let candidates = match &key {
            Some(key) if chose.into_iter().any(|rule| fired.has(rule)) => {
                choices(key, &topology, &outlook).iter().map(Candidate::new).collect()
            }
            Some(_) | None => Vec::new(),
        };
        let facts = steps::Facts {
            head,
            key: key.as_ref(),
            entry,
            decided: &decided,
            routing,
            topology: &topology,
            fired,
        };
        let of_pool = key.as_ref().and_then(|key| pool_of(key, routing));
        let stored_under = match of_pool {
            Some(pool) => pool.cookie_key(&head.headers).map(|key| key.to_string()),
            None => key.as_ref().map(|key| key.token().to_owned()),
        };
        Explanation {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            host: head.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()),
            steps: fired.iter().map(|rule| facts.step(rule)).collect(),
            key: key.as_ref().map(|key| Key::new(key, fired, &decided)),
            ban: Ban::of(fired),
            candidates,
            decision: outcome(stored_under.as_deref(), fired, &decided),
        }
    }
}

/// Decides as the data plane does: what goes to a pool that sticks on a cookie, by its cookie, which then is what `entry` is about.
pub(crate) fn decide_by_cookie(
    key: &RoutingKey<'_>,
    headers: &HeaderMap,
    topology: &Topology,
    entry: Option<&ShardName>,
    routing: &Routing,
    outlook: &Outlook<'_>,
    fired: &mut Fired,
) -> Result<Decision, NoRoute> {
    match pool_of(key, routing).map(|pool| (pool, pool.cookie_key(headers))) {
        Some((pool, Some(_))) => {
            in_pool(pool, topology.snapshot(), entry.map_or(Stick::New, Stick::Entry), outlook, fired)
        }
        Some((_, None)) | None => decide(key, topology, entry, routing, outlook, fired),
    }
}

fn pool_of<'a>(key: &RoutingKey<'_>, routing: &'a Routing) -> Option<&'a Pool> {
    key.pool().and_then(|at| routing.pools.get(at))
}

impl Explanation {
    /// Whether it would go to a shard.
    #[must_use]
    pub const fn is_routed(&self) -> bool {
        matches!(self.decision, Outcome::Routed { .. })
    }
}

impl Key {
    fn new(key: &RoutingKey<'_>, fired: Fired, decided: &Result<Decision, Failure>) -> Self {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let named = fired.has(Rule::NamedShardPath) || fired.has(Rule::NamedShardSuffix);
        let shard = decided.as_ref().ok().filter(|_| named);
        Self {
            token: key.token().to_owned(),
            tenant: text(key.banned_group().trim_end_matches('/')),
            room: text(&key.banned_room()),
            kind: Kind::of(fired),
            table: match key.store() {
                _ if fired.has(Rule::PoolCookie) => Table::ReadsAndStores,
                _ if named || fired.has(Rule::Pool) => Table::Unused,
                Store::Nothing => Table::Unused,
                Store::MatchOnly => Table::Reads,
                Store::MatchOrStore => Table::ReadsAndStores,
            },
            release_override: key.release_override().map(str::to_owned),
            named_shard: shard.map(|decision| decision.shard.name.to_string()),
        }
    }
}

impl Ban {
    fn of(fired: Fired) -> Option<Self> {
        let is_banned = fired.has(Rule::BanDenied) || fired.has(Rule::BanRedirect);
        let list = fired.iter().find(|rule| rule.stage() == Stage::Ban)?;
        Some(Self { verdict: if is_banned { "ban" } else { "allow" }, rule: list.name() })
    }
}

impl Candidate {
    fn new(choice: &Choice) -> Self {
        let Shard { name, region, release, weight, .. } = choice.shard.as_ref();
        Self {
            shard: name.to_string(),
            release: release.to_string(),
            region: region.to_string(),
            level: choice.level.as_str(),
            state: choice.state.as_str(),
            weight: *weight,
            takes_new: choice.takes_new,
        }
    }
}

fn outcome(key: Option<&str>, fired: Fired, decided: &Result<Decision, Failure>) -> Outcome {
    match decided {
        Ok(Decision { shard, why, claim }) => {
            let moved_from = match claim {
                NeedsClaim::Down { failed } | NeedsClaim::Maint { failed } => Some(failed.to_string()),
                NeedsClaim::No | NeedsClaim::Join => None,
            };
            let stores = *claim != NeedsClaim::No;
            Outcome::Routed {
                shard: shard.name.to_string(),
                release: shard.release.to_string(),
                address: shard.address.to_string(),
                why: why.as_str(),
                takes_turns: fired.has(Rule::NoToken) || *why == Why::Pool,
                stored_under: key.filter(|_| stores).map(str::to_owned),
                moved_from,
            }
        }
        Err(failure) => {
            let response = respond(failure, &Pages::default(), Reader::Program);
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            Outcome::Answered {
                status: response.status().as_u16(),
                location: location.map(str::to_owned),
                error: failure.to_string(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
