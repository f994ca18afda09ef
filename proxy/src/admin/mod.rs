//! The side of those who run the node: health for balancers, metrics, status. One router, any number of listeners.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use shardgate_discovery::{DiscoveryHandle, Origin};
use shardgate_peering::{Counters as LinkCounters, Readiness, TableHandle};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{AdminListener, AdminRole, NodeConfig};
use crate::counters::Counters;
use crate::health::HealthHandle;
use crate::limits::Gate;
use crate::node::ConfigCounts;
use crate::sessions::Sessions;
use crate::tls::ServerTls;

mod audit;
mod caller;
mod grpc;
mod health;
mod listen;
mod metrics;

pub use audit::AuditLog;
pub use listen::AdminError;

/// Where the node stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    Serving,
    /// It ends what runs and takes nothing new.
    Draining,
}

/// What the operators' switch says to the cloud balancer. It lasts as long as the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Send traffic here.
    Up,
    /// Send none.
    Down,
}

/// What operators command this node as a whole. It lasts as long as the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// It may be sent traffic.
    Wanted,
    /// It should not, though it serves what comes.
    Unwanted {
        /// Since when.
        since: Instant,
    },
}

/// What the admin looks at.
#[derive(Debug, Clone)]
pub struct AdminParts {
    /// Who this node is.
    pub node: NodeConfig,
    /// The stick table.
    pub table: TableHandle,
    /// Connections to peers.
    pub links: Arc<LinkCounters>,
    /// The tunnels.
    pub sessions: Sessions,
    /// The workers' numbers.
    pub counters: Counters,
    /// Certificates, when clients may speak TLS.
    pub tls: watch::Receiver<Option<ServerTls>>,
    /// Changes of the configuration.
    pub config: Arc<ConfigCounts>,
    /// The servers' checks.
    pub health: HealthHandle,
    /// The ceilings.
    pub gate: Arc<Gate>,
    /// Shards, peers, releases.
    pub discovery: DiscoveryHandle,
    /// Serving or draining.
    pub phase: watch::Receiver<Phase>,
    /// What operators command.
    pub traffic: Arc<watch::Sender<Traffic>>,
    /// Where their orders are written down.
    pub audit: Arc<AuditLog>,
}

impl AdminParts {
    /// Why no traffic should come here; `None` when it should.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if *self.phase.borrow() == Phase::Draining {
            return Some("shutting down".to_owned());
        }
        if let Traffic::Unwanted { since } = *self.traffic.borrow() {
            return Some(format!("drained by an operator for {} s", since.elapsed().as_secs()));
        }
        let discovery = self.discovery.status();
        if discovery.origin == Origin::Nothing {
            let said = discovery.last_error.unwrap_or_default();
            return Some(format!("discovery: {} has not answered yet {said}", discovery.source));
        }
        match self.table.readiness() {
            Readiness::Ready { .. } => None,
            Readiness::NotReady { waiting_for } if waiting_for.is_empty() => {
                Some("mesh: starting".to_owned())
            }
            Readiness::NotReady { waiting_for } => {
                let names: Vec<&str> = waiting_for.iter().map(|peer| peer.as_str()).collect();
                Some(format!("mesh: not reconciled with {}", names.join(", ")))
            }
            Readiness::NoPlace { peers_max } => Some(format!(
                "mesh: more nodes are listed than one with {peers_max} peers each takes, and this one is left out; list fewer"
            )),
        }
    }

    /// Why what operators want is perhaps not what this node goes by; `None` when it is.
    fn stale_policy(&self) -> Option<String> {
        self.discovery.status().stale(Instant::now())
    }
}

/// What a listener lets its clients ask by gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing.
    None,
    /// Questions.
    Questions,
    /// Orders, too.
    Orders,
}

impl Access {
    fn of(listener: &AdminListener) -> Self {
        match (listener.serve.contains(&AdminRole::Admin), listener.serve.contains(&AdminRole::Status)) {
            (true, _) => Self::Orders,
            (false, true) => Self::Questions,
            (false, false) => Self::None,
        }
    }
}

/// The running admin.
#[derive(Debug)]
pub struct Admin {
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
}

impl Admin {
    /// Binds every listener and serves.
    ///
    /// # Errors
    /// [`AdminError`] naming the address or the file.
    pub async fn start(listeners: &[AdminListener], parts: AdminParts) -> Result<Self, AdminError> {
        let (stop, stopped) = watch::channel(false);
        let (all_bound, bound) = watch::channel(false);
        let (switch, _) = watch::channel(Switch::Up);
        let switch = Arc::new(switch);
        let mut servers = JoinSet::new();
        for listener in listeners {
            let grpc = grpc::service(parts.clone(), Access::of(listener), &listener.listen);
            let router = listener.serve.iter().fold(Router::new(), |router, role| match role {
                AdminRole::Health => router.merge(health::haproxy_health(parts.clone())),
                AdminRole::Balancer => router.merge(health::balancer(parts.clone(), Arc::clone(&switch))),
                AdminRole::Metrics => router.merge(metrics::router(parts.clone())),
                AdminRole::Status => router.merge(health::status(parts.clone())),
                AdminRole::Admin => router,
            });
            listen::serve(listener, router, grpc, bound.clone(), stopped.clone(), &mut servers).await?;
        }
        all_bound.send_replace(true);
        Ok(Self { stop, servers })
    }

    /// Stops; who is being answered gets half a second.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(std::time::Duration::from_millis(500), all).await.is_err() {
            self.servers.abort_all();
        }
    }
}
