//! The side of those who run the node: health for balancers, metrics, status. One router, any number of listeners.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use shardgate_discovery::DiscoveryHandle;
use shardgate_peering::{Counters as LinkCounters, Readiness, TableHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::config::{AdminListener, AdminRole, NodeConfig};
use crate::counters::Counters;
use crate::sessions::Sessions;

mod grpc;
mod health;
mod metrics;

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

/// Why the admin does not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// An address cannot be listened on.
    #[error("admin.listen {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
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
    /// Shards, peers, releases.
    pub discovery: DiscoveryHandle,
    /// Serving or draining.
    pub phase: watch::Receiver<Phase>,
}

impl AdminParts {
    /// Why no traffic should come here; `None` when it should.
    fn not_ready(&self) -> Option<String> {
        if *self.phase.borrow() == Phase::Draining {
            return Some("shutting down".to_owned());
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
}

/// The running admin.
#[derive(Debug)]
pub struct Admin {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    servers: JoinSet<()>,
}

impl Admin {
    /// Binds every listener and serves.
    ///
    /// # Errors
    /// [`AdminError`] naming the address.
    pub async fn start(listeners: &[AdminListener], parts: AdminParts) -> Result<Self, AdminError> {
        let (stop, stopped) = watch::channel(false);
        let (switch, _) = watch::channel(Switch::Up);
        let switch = Arc::new(switch);
        let mut addresses = Vec::new();
        let mut servers = JoinSet::new();
        for AdminListener { listen, serve } in listeners {
            let failed = |source| AdminError::Listen { address: *listen, source };
            let listener = TcpListener::bind(listen).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            info!(%address, serve = ?serve, "admin listens");
            addresses.push(address);
            let router = serve.iter().fold(Router::new(), |router, role| {
                router.merge(match role {
                    AdminRole::Health => health::haproxy_health(parts.clone()),
                    AdminRole::Balancer => health::balancer(parts.clone(), Arc::clone(&switch)),
                    AdminRole::Metrics => metrics::router(parts.clone()),
                    AdminRole::Status => health::status(parts.clone()).merge(grpc::router(parts.clone())),
                })
            });
            let mut stopped = stopped.clone();
            servers.spawn(async move {
                let ended = async move { drop(stopped.wait_for(|stop| *stop).await) };
                if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
                    tracing::error!(%address, %error, "admin listener failed");
                }
            });
        }
        Ok(Self { addresses, stop, servers })
    }

    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
