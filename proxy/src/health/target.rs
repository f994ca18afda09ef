//! What is to be watched: the servers of a snapshot, and how each is asked.

use crate::backend::Manners;
use crate::config::{AgentCheck, HealthConfig, SendProxy};
use crate::routing_key::Pool;
use crate::tls::UpstreamTls;
use shardgate_discovery::{Shard, ShardState, Snapshot};
use shardgate_peering_core::ShardName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// How servers of one kind are asked.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub(super) config: HealthConfig,
    /// A check speaks as requests do.
    pub(super) tls: Option<UpstreamTls>,
    pub(super) send_proxy: SendProxy,
}

/// How all servers are asked.
#[derive(Debug, Clone, Default)]
pub struct HealthSettings {
    shards: Arc<Plan>,
    pools: Vec<(Pool, Arc<Plan>)>,
}

impl HealthSettings {
    /// `shards` and the pools' own settings, over what is spoken to them.
    #[must_use]
    pub fn new(shards: &HealthConfig, pools: &[Pool], manners: &Manners) -> Self {
        let plan = |config: &HealthConfig, pool: Option<usize>| {
            let (tls, send_proxy) = manners.spoken(pool);
            Arc::new(Plan { config: config.clone(), tls: tls.map(UpstreamTls::for_worker), send_proxy })
        };
        let pools = pools.iter().enumerate();
        Self {
            shards: plan(shards, None),
            pools: pools.map(|(index, pool)| (pool.clone(), plan(&pool.health, Some(index)))).collect(),
        }
    }

    /// How the servers of a pool are watched, or the shards.
    pub(crate) fn config(&self, pool: Option<usize>) -> &HealthConfig {
        let plan = pool.and_then(|index| self.pools.get(index)).map(|(_, plan)| plan);
        &plan.unwrap_or(&self.shards).config
    }

    /// The names of all servers of `snapshot` that are watched.
    pub(crate) fn watched(&self, snapshot: &Snapshot) -> BTreeSet<ShardName> {
        self.targets(snapshot).into_keys().collect()
    }

    /// The servers of `snapshot`. One that stands in several pools is asked as the first of them says that asks anything.
    pub(super) fn targets(&self, snapshot: &Snapshot) -> BTreeMap<ShardName, Target> {
        let mut targets = BTreeMap::new();
        for shard in snapshot.listed() {
            targets.insert(shard.name.clone(), Target::of(shard, &self.shards));
        }
        for (pool, plan) in self.pools.iter().filter(|(_, plan)| plan.config.asks()) {
            for server in pool.servers(snapshot) {
                targets.entry(server.name.clone()).or_insert_with(|| Target::of(server, plan));
            }
        }
        targets
    }
}

/// A server to be watched.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// Where its agent listens, if that is to be asked.
    pub(super) agent: Option<SocketAddr>,
    /// What operators want of it.
    pub(super) wanted: ShardState,
    pub(super) plan: Arc<Plan>,
}

impl Target {
    fn of(shard: &Shard, plan: &Arc<Plan>) -> Self {
        let port = shard.agent_port.unwrap_or(plan.config.agent_port);
        let asked = plan.config.agent_check == AgentCheck::On;
        Self {
            address: shard.address,
            agent: asked.then(|| SocketAddr::new(shard.address.ip(), port)),
            wanted: shard.state,
            plan: Arc::clone(plan),
        }
    }

    pub(super) fn config(&self) -> &HealthConfig {
        &self.plan.config
    }
}
