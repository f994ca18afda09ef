//! Pools without conferences: their servers take requests by turns, or by a cookie's entry in the table, whatever a pin or the live
//! release says (R22).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{HealthConfig, UpstreamConfig};
use crate::cookie::{self, CookieName};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use shardgate_discovery::{
    RegionName, ReleaseName, ServiceName, Shard, ShardName, ShardState, Snapshot, WEIGHT_MAX, server_name,
};
use shardgate_peering_core::StickKey;

/// What [`PoolServer::parse`] takes.
pub const SERVER: &str = "an IP address and port to dial, with a weight from 0 to 256 if it is not 256, such as \"10.0.0.1:9090 weight=128\"";

/// The longest name of a pool: with the longest address behind it it is a server's.
pub const POOL_NAME_LEN_MAX: usize = 80;

/// A server of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolServer {
    /// Where it answers HTTP.
    pub address: SocketAddr,
    /// Its share of the requests, 0 to [`WEIGHT_MAX`]; 0 gets none.
    pub weight: u16,
}

impl PoolServer {
    /// Reads `ADDRESS` or `ADDRESS weight=N`, in the words of nginx.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let address: SocketAddr = words.next()?.parse().ok()?;
        let weight = match words.next() {
            None => WEIGHT_MAX,
            Some(word) => word.strip_prefix("weight=")?.parse().ok()?,
        };
        let valid = words.next().is_none()
            && weight <= WEIGHT_MAX
            && address.port() != 0
            && !address.ip().is_unspecified()
            && !address.ip().is_multicast();
        valid.then_some(Self { address, weight })
    }
}

impl fmt::Display for PoolServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.weight == WEIGHT_MAX { Ok(()) } else { write!(f, " weight={}", self.weight) }
    }
}

/// A pool: paths that begin so go to one of these servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique.
    pub name: ShardName,
    /// How the paths begin, raw and case-sensitively; at least one.
    pub paths: Vec<String>,
    /// Its servers.
    pub servers: PoolServers,
    /// The cookie whose value leads to the same server again; without one each request takes its turn.
    pub stick_on_cookie: Option<CookieName>,
    /// What its servers speak.
    pub upstream: UpstreamConfig,
    /// How they are watched.
    pub health: HealthConfig,
}

/// Where a pool's servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolServers {
    /// They are given, at least one.
    Given {
        /// As they stand in the configuration.
        listed: Vec<PoolServer>,
        /// Them as shards that hold no conferences, for those who forward.
        shards: Vec<Arc<Shard>>,
    },
    /// The instances of a service that discovery lists.
    Service(ServiceName),
}

impl PoolServers {
    /// The servers at this moment.
    fn now<'a>(&'a self, snapshot: &'a Snapshot) -> &'a [Arc<Shard>] {
        match self {
            Self::Given { shards, .. } => shards,
            Self::Service(service) => snapshot.servers_of(service.as_str()),
        }
    }
}

impl Pool {
    /// A pool of a node in `region`, by turns. Its servers are named after their addresses, for an entry that names one of them must
    /// mean the same on every node, and when the list has changed.
    #[must_use]
    pub fn new(
        name: ShardName,
        paths: Vec<String>,
        servers: Vec<PoolServer>,
        region: &RegionName,
    ) -> Option<Self> {
        let release = ReleaseName::parse(name.as_str()).ok()?;
        let shard = |(id, server): (u32, &PoolServer)| {
            Some(Arc::new(Shard {
                name: server_name(name.as_str(), server.address).ok()?,
                id,
                region: region.clone(),
                release: release.clone(),
                address: server.address,
                state: ShardState::Ready,
                weight: server.weight,
                states_in: Vec::new(),
                agent_port: None,
            }))
        };
        let shards = (0..).zip(&servers).map(shard).collect::<Option<Vec<_>>>()?;
        let servers = PoolServers::Given { listed: servers, shards };
        Some(Self::of(name, paths, servers))
    }

    /// A pool of a service's instances, by turns.
    #[must_use]
    pub fn of_service(name: ShardName, paths: Vec<String>, service: ServiceName) -> Self {
        Self::of(name, paths, PoolServers::Service(service))
    }

    fn of(name: ShardName, paths: Vec<String>, servers: PoolServers) -> Self {
        let (upstream, health) = (UpstreamConfig::default(), HealthConfig::default());
        Self { name, paths, servers, stick_on_cookie: None, upstream, health }
    }

    /// Its servers at this moment.
    pub(crate) fn servers<'a>(&'a self, snapshot: &'a Snapshot) -> &'a [Arc<Shard>] {
        self.servers.now(snapshot)
    }

    /// The service whose instances its servers are, if they are not given.
    #[must_use]
    pub const fn service(&self) -> Option<&ServiceName> {
        match &self.servers {
            PoolServers::Given { .. } => None,
            PoolServers::Service(service) => Some(service),
        }
    }

    /// The same pool, sticking on this cookie.
    #[must_use]
    pub fn sticking_on(self, cookie: CookieName) -> Self {
        Self { stick_on_cookie: Some(cookie), ..self }
    }

    /// The same pool, whose servers are spoken to in this way.
    #[must_use]
    pub fn spoken_to(self, upstream: UpstreamConfig) -> Self {
        Self { upstream, ..self }
    }

    /// The same pool, whose servers are watched in this way.
    #[must_use]
    pub fn watched(self, health: HealthConfig) -> Self {
        Self { health, ..self }
    }

    /// The key of the cookie that it sticks on, if the request has it.
    #[must_use]
    pub fn cookie_key(&self, headers: &HeaderMap) -> Option<StickKey> {
        let name = self.stick_on_cookie.as_ref()?;
        let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        cookie::stick_key(&self.name, name, cookie::of_request(lines, name)?)
    }

    /// Whether it takes this path.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        self.paths.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }

    /// The server whose turn it is: of consecutive `turn`s each server gets its share by `weight`, spread as evenly as a golden section
    /// spreads. The ones that are not `usable` are passed over.
    #[must_use]
    pub fn server<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        turn: u64,
        weight: &dyn Fn(&Shard) -> u16,
        usable: &dyn Fn(&Shard) -> bool,
    ) -> Option<&'a Arc<Shard>> {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let shards = self.servers.now(snapshot);
        let weights: u64 = shards.iter().map(|server| u64::from(weight(server))).sum();
        let spread = u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(weights);
        let mut at = u64::try_from(spread >> 64).unwrap_or(0);
        let of_turn = shards.iter().position(|shard| {
            let of_it = u64::from(weight(shard));
            let within = at < of_it;
            at = at.saturating_sub(of_it);
            within
        });
        let (before, from) = shards.split_at(of_turn?);
        from.iter().chain(before).find(|shard| weight(shard) > 0 && usable(shard))
    }

    /// The server of this name, if it has a weight and is `usable`.
    #[must_use]
    pub fn named<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        name: &ShardName,
        usable: &dyn Fn(&Shard) -> bool,
    ) -> Option<&'a Arc<Shard>> {
        self.servers
            .now(snapshot)
            .iter()
            .find(|shard| shard.name == *name && shard.weight > 0 && usable(shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(servers: &[&str]) -> Pool {
        let servers = servers.iter().map(|text| PoolServer::parse(text).unwrap()).collect();
        let (name, region) = (ShardName::parse("jigasi").unwrap(), RegionName::parse("r").unwrap());
        Pool::new(name, vec!["/x/".to_owned()], servers, &region).unwrap()
    }

    #[test]
    fn servers_take_turns_by_their_weights() {
        let none = Snapshot::default();
        let pool = pool(&["10.0.0.1:1", "10.0.0.2:1 weight=128", "10.0.0.3:1 weight=0"]);
        let own = |server: &Shard| server.weight;
        let mut share = [0; 4];
        for turn in 0..3_000 {
            share[pool.server(&none, turn, &own, &|_| true).unwrap().id as usize] += 1;
        }
        assert!((1_990..=2_010).contains(&share[0]) && share[0] + share[1] == 3_000, "{share:?}");
        assert!(
            (0..100).all(|turn| pool.server(&none, turn, &own, &|server| server.id != 0).unwrap().id == 1)
        );
        assert_eq!(pool.server(&none, 0, &own, &|_| false), None);
        let other = |server: &Shard| u16::from(server.id == 2);
        assert!((0..100).all(|turn| pool.server(&none, turn, &other, &|_| true).unwrap().id == 2));
        assert_eq!(pool.server(&none, 0, &|_| 0, &|_| true), None);
    }

    #[test]
    fn servers_are_named_after_their_addresses() {
        let none = Snapshot::default();
        let pool = pool(&["10.0.0.1:1", "[2001:db8::1]:65535", "10.0.0.3:1 weight=0"]);
        let name = |text: &str| ShardName::parse(text).unwrap();
        let id = |text: &str| pool.named(&none, &name(text), &|_| true).map(|server| server.id);
        assert_eq!(id("jigasi-10.0.0.1-1"), Some(0));
        assert_eq!(id("jigasi-2001_db8__1-65535"), Some(1));
        assert_eq!(id("jigasi-10.0.0.3-1"), None, "it has no weight");
        assert_eq!(id("jigasi-1"), None);
        assert_eq!(pool.named(&none, &name("jigasi-10.0.0.1-1"), &|_| false), None);
        let longest = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535";
        let servers = vec![PoolServer::parse(longest).unwrap()];
        let region = RegionName::parse("r").unwrap();
        assert!(Pool::new(name(&"p".repeat(POOL_NAME_LEN_MAX)), vec![], servers, &region).is_some());
    }

    #[test]
    fn servers_as_text() {
        assert_eq!(PoolServer::parse("10.0.0.1:80 weight=5").unwrap().to_string(), "10.0.0.1:80 weight=5");
        assert_eq!(PoolServer::parse("10.0.0.1:80").unwrap().to_string(), "10.0.0.1:80");
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.1:0",
            "10.0.0.1:80 weight=257",
            "10.0.0.1:80 wait=1",
            "10.0.0.1:80 weight=1 x",
        ] {
            assert_eq!(PoolServer::parse(bad), None, "{bad:?}");
        }
    }
}
