//! One node: discovery, mesh, workers and admin, started in that order and stopped in the other.
//!
//! The runtime that starts a node carries its control work (peering, discovery, admin); requests run on the workers' own threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shardgate_discovery::consul::{
    Agent, AgentError, ConsulConfig, ConsulWatch, Registered, Word, watch_consul,
};
use shardgate_discovery::{
    DiscoveryHandle, FileError, FileWatch, Order, Origin, ServiceName, ShardName, ShardState, Snapshot,
    watch_file,
};
use shardgate_peering::{Mesh, MeshError, PeerAddress, ProbeAsk, TableHandle};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;

use crate::admin::{Admin, AdminError, AdminParts, AuditLog, Phase, Traffic};
use crate::backend::MannerError;
use crate::config::{Config, ConsulSection, DiscoveryConfig, NodeConfig};
use crate::health::HealthHandle;
use crate::log_writer::{LogError, LogKind, LogWriter};
use crate::relay::Relaying;
use crate::routing_key::Compat;
use crate::sessions::Sessions;
use crate::tls::{ServerTls, TlsErrors, TlsWatch, TlsWatchConfig};
use crate::worker::{Running, StartError, Workers};

mod registration;
mod reload;
mod settings;

pub use reload::{ConfigCounts, Reloaded};

/// Whether conferences stick; anything but the default proves that a test of stickiness can fail.
#[cfg(feature = "test-hooks")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stickiness {
    /// As in production.
    #[default]
    On,
    /// Every request goes by the plain hash.
    Off,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The discovery file.
    #[error("discovery.file: {0}")]
    Discovery(#[from] FileError),
    /// A file of `[consul]`; Consul itself may be down.
    #[error("consul: {0}")]
    Consul(#[from] AgentError),
    /// The token's file.
    #[error("consul.token_file {}: {what}", path.display())]
    Token {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A pool of a service, and discovery is a file's until the node is started again.
    #[error("pools: service {service} cannot be used before a restart: discovery is a file's until then")]
    NoCatalog {
        /// The service.
        service: ServiceName,
    },
    /// Consul did not list the servers of new pools in time.
    #[error(
        "pools: Consul has not listed the servers of a new service in time, and without them every request would fail"
    )]
    ServicesUnknown,
    /// Certificates or ticket keys.
    #[error(transparent)]
    Tls(#[from] TlsErrors),
    /// Files of `[backend]` or of a pool.
    #[error(transparent)]
    Upstream(#[from] MannerError),
    /// The mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The environment's name cannot stand in a certificate.
    #[error("node.environment: {0}")]
    Environment(shardgate_peering::core::IdError),
    /// A page for a status that is never answered.
    #[error("pages: {0}")]
    Page(#[from] crate::rescue::PageError),
    /// The workers.
    #[error(transparent)]
    Workers(#[from] StartError),
    /// The admin's listeners.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The audit log.
    #[error("log.audit: {0}")]
    Audit(#[from] LogError),
}

/// A client of the agent that `[consul]` names, made of its files; nothing is asked.
pub(crate) fn consul_agent(node: &NodeConfig, section: &ConsulSection) -> Result<Agent, NodeError> {
    Ok(Agent::new(settings::consul(node, section)?.agent)?)
}

/// What follows the source of snapshots.
#[derive(Debug)]
enum DiscoveryWatch {
    File(FileWatch),
    Consul(ConsulWatch),
}

impl DiscoveryWatch {
    async fn stop(self) {
        match self {
            Self::File(watch) => watch.stop().await,
            Self::Consul(watch) => watch.stop().await,
        }
    }
}

/// A running node.
#[derive(Debug)]
#[must_use = "a node runs until shutdown"]
pub struct RunningNode {
    /// What it runs by now.
    config: Config,
    counts: Arc<ConfigCounts>,
    tls: watch::Sender<Option<ServerTls>>,
    mesh: Mesh,
    table: TableHandle,
    relaying: Option<Relaying>,
    workers: Running,
    admin: Admin,
    audit: (Arc<AuditLog>, LogWriter),
    discovery: DiscoveryHandle,
    watch: DiscoveryWatch,
    registered: Option<Registered>,
    certificates: Option<TlsWatch>,
    peers: JoinHandle<()>,
    prober: Option<JoinHandle<()>>,
    phase: watch::Sender<Phase>,
    drain: Duration,
}

impl RunningNode {
    /// Starts everything; serves when it returns. Must be called within a tokio runtime, which carries the control work.
    ///
    /// # Errors
    /// [`NodeError`]; nothing runs then.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        let tls = config.tls.as_ref().map(ServerTls::load).transpose()?;
        let audit = LogWriter::start(LogKind::Audit, &config.log.audit)?;
        let audit = (Arc::new(AuditLog::new(config.node.id.as_str(), &audit)), audit);
        let (discovery, watch) = match &config.discovery {
            DiscoveryConfig::File(file) => {
                let (discovery, watch) = watch_file(file.file.clone(), file.watch())?;
                (discovery, DiscoveryWatch::File(watch))
            }
            DiscoveryConfig::Consul(consul) => {
                let (discovery, watch) = watch_consul(ConsulConfig {
                    pools: settings::pool_services(&config),
                    ..settings::consul(&config.node, consul)?
                })
                .await?;
                (discovery, DiscoveryWatch::Consul(watch))
            }
        };
        let (peers, follower) = follow_peers(discovery.clone());
        let table = settings::table(&config);
        let mut mesh = match settings::mesh(&config)? {
            Some(mesh) => Mesh::start(table, mesh, peers)?,
            None => Mesh::alone(table)?,
        };
        let handle = mesh.handle();
        let mut workers = Workers::start(
            settings::workers(&config, tls.as_ref())?,
            &handle,
            &mesh.relays(),
            &discovery.subscribe(),
        )?;
        let health = workers.health().clone();
        let prober = mesh.take_probes().map(|asks| tokio::spawn(probe_for_homes(asks, health)));
        if let (Compat::Haproxy, Some(ready)) = (config.routing.compat, workers.take_agents_ready()) {
            // Ends with the workers.
            drop(tokio::spawn(take_back_orders(ready, discovery.clone())));
        }
        let relaying = mesh.take_relayed().map(|relayed| {
            let idle = config.backend.tunnel_timeout;
            Relaying::start(relayed, discovery.clone(), Arc::clone(workers.gate()), idle)
        });
        let (tls_told, tls_known) = watch::channel(tls.clone());
        let counts = Arc::default();
        let (phase, phases) = watch::channel(Phase::Serving);
        let parts = AdminParts {
            node: config.node.clone(),
            table: handle.clone(),
            links: mesh.counters(),
            sessions: workers.sessions().clone(),
            counters: workers.counters().clone(),
            tls: tls_known,
            config: Arc::clone(&counts),
            health: workers.health().clone(),
            gate: Arc::clone(workers.gate()),
            discovery: discovery.clone(),
            phase: phases,
            traffic: Arc::new(watch::Sender::new(Traffic::Wanted)),
            audit: Arc::clone(&audit.0),
        };
        let admin = Admin::start(&config.admin, parts.clone()).await?;
        let registered = match (&config.discovery, &watch) {
            (DiscoveryConfig::Consul(consul), DiscoveryWatch::Consul(watch)) => {
                let from = registration::From {
                    node: &config.node,
                    section: consul,
                    mesh: mesh.address(),
                    frontend: workers.addresses().first().copied(),
                    admin: &config.admin,
                };
                from.registration().map(|registration| {
                    Registered::keep(watch.agent().clone(), registration, move || {
                        parts.not_ready().map_or(Word::Passing, Word::Warning)
                    })
                })
            }
            _ => None,
        };
        let certificates = tls.map(|tls| tls.watch(TlsWatchConfig::default()));
        let drain = config.shutdown.drain;
        for address in workers.addresses() {
            info!(%address, "frontend listens");
        }
        Ok(Self {
            config,
            counts,
            tls: tls_told,
            mesh,
            table: handle,
            relaying,
            workers,
            admin,
            audit,
            discovery,
            watch,
            registered,
            certificates,
            peers: follower,
            prober,
            phase,
            drain,
        })
    }

    /// How long its end waits for what runs.
    #[must_use]
    pub const fn drain(&self) -> Duration {
        self.drain
    }

    /// Where clients come in, in the order of the configuration.
    #[must_use]
    pub fn frontend_addresses(&self) -> Vec<SocketAddr> {
        self.workers.addresses()
    }

    /// The peers' address (UDP), `None` without a mesh.
    #[must_use]
    pub const fn mesh_address(&self) -> Option<SocketAddr> {
        self.mesh.address()
    }

    /// The stick table.
    #[must_use]
    pub const fn table(&self) -> &TableHandle {
        &self.table
    }

    /// The tunnels.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        self.workers.sessions()
    }

    /// What discovery says now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.discovery.current()
    }

    /// Turns stickiness off for the rest of the process' life.
    #[cfg(feature = "test-hooks")]
    pub fn set_stickiness(&self, stickiness: Stickiness) {
        match stickiness {
            Stickiness::On => {}
            Stickiness::Off => self.table.forget_everything(),
        }
    }

    /// Stops: not ready at once, then nothing new is accepted, what runs gets `[shutdown] drain`, then the peers are told.
    pub async fn shutdown(self) {
        self.phase.send_replace(Phase::Draining);
        // Homes hear no more that this node reaches shards: it is not to be gone by.
        if let Some(prober) = self.prober {
            prober.abort();
        }
        let relayed = async {
            if let Some(relaying) = &self.relaying {
                relaying.refuse();
                relaying.emptied(self.drain).await;
            }
        };
        tokio::join!(self.workers.shutdown(self.drain), relayed);
        self.mesh.shutdown().await;
        if let Some(relaying) = self.relaying {
            relaying.end().await;
        }
        // Only now: peers let go of a node that is not listed any more, and until here it had something to tell them.
        if let Some(registered) = self.registered {
            registered.deregister().await;
        }
        self.peers.abort();
        self.watch.stop().await;
        if let Some(certificates) = self.certificates {
            certificates.stop().await;
        }
        self.admin.shutdown().await;
        // Whoever is still being answered may hold the log.
        let (log, writer) = self.audit;
        log.close();
        writer.finish().await;
    }
}

/// Finds out for homes whether shards can be reached from here: one of their conferences could not be by somebody.
async fn probe_for_homes(mut asks: mpsc::Receiver<ProbeAsk>, health: HealthHandle) {
    while let Some(ask) = asks.recv().await {
        health.probe(ask).await;
    }
}

/// As in HAProxy, an agent that says `ready` takes back the state that operators commanded of its server on this node (R41).
async fn take_back_orders(mut ready: mpsc::Receiver<ShardName>, discovery: DiscoveryHandle) {
    while let Some(shard) = ready.recv().await {
        let commanded = discovery.command(&shard).is_some_and(|command| command.state != ShardState::Ready);
        if commanded && let Err(error) = discovery.order(&shard, Order::State(ShardState::Ready)) {
            tracing::warn!(%shard, %error, "its agent's word does not take back what was commanded");
        }
    }
}

/// Turns snapshots into what the mesh dials.
fn follow_peers(discovery: DiscoveryHandle) -> (watch::Receiver<Option<Vec<PeerAddress>>>, JoinHandle<()>) {
    let mut snapshots = discovery.subscribe();
    let addresses = move |snapshot: &Snapshot| -> Option<Vec<PeerAddress>> {
        let peers = snapshot.peers().iter();
        let peers = peers.map(|peer| PeerAddress { id: peer.id.clone(), address: peer.address });
        // Before the first word the snapshot is empty, and says nothing.
        (discovery.status().origin != Origin::Nothing).then(|| peers.collect())
    };
    let (peers, listed) = watch::channel(addresses(&snapshots.borrow_and_update()));
    let task = tokio::spawn(async move {
        while snapshots.changed().await.is_ok() {
            let next = addresses(&snapshots.borrow_and_update());
            peers.send_if_modified(|listed| {
                let changed = *listed != next;
                if changed {
                    *listed = next;
                }
                changed
            });
        }
    });
    (listed, task)
}
