//! Consul: services of every datacenter and keys of the own one, as snapshots.
//!
//! A watch for each list asks the agent (`watching`, by the rules of `blocking` and `belief`); the keeper holds what all of them said
//! (`world`), makes a whole snapshot of each change, and writes it down (`disk`). Whatever happens to Consul, what is known stays in use.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::name::ServiceName;
use crate::publish::{DiscoveryHandle, Origin, Publisher};
use crate::snapshot::Snapshot;
use keeper::{Completeness, Keeper, Told};
use world::{Assembled, World};

mod agent;
mod belief;
mod blocking;
mod disk;
mod error;
mod findings;
mod flag;
mod fleet;
mod keeper;
mod keys;
mod lock;
mod policy;
mod record;
mod registration;
mod report;
mod rights;
mod survey;
mod watching;
mod world;

pub use agent::{Agent, AgentAddress, AgentConfig, AgentTls, Cas, Datacenter, Token};
pub use error::{AgentError, Hint};
pub use findings::{Finding, ShardsUnknown};
pub use fleet::{AskedNodes, asked_nodes};
pub use keys::{Applied, Effect, KeyChange, KeyError, Outcome, PolicyEntry, PolicyKey, Seen, apply};
pub use lock::{LOCK_TTL_MIN, Lock, LockConfig, LockSeeker};
pub use policy::PolicyKind;
pub use record::{
    AddressKind, AskedNode, InvalidRecord, META_ADMIN_PORT, META_ADMIN_TLS_PORT, META_NODE, META_PEER_PORT,
    META_REGION, META_VERSION, RecordFault,
};
pub use registration::{Check, Registered, Registration, Word};
pub use report::{Census, CensusRoom, Reports, read_reports};
pub use survey::{Survey, Unanswered, survey};
pub use world::{List, POOL_SERVICES_MAX, Place, ServiceKind, ServiceNames, read_lists};

/// Snapshots that wait for their keeper; watches wait beyond that.
const HEARD_MAX: usize = 256;

/// What is watched, and how.
#[derive(Debug, Clone)]
pub struct ConsulConfig {
    /// The agent.
    pub agent: AgentConfig,
    /// Where this node stands.
    pub place: Place,
    /// Datacenters whose services are watched, beside the own one; `None`: all that Consul knows.
    pub datacenters: Option<Vec<Datacenter>>,
    /// Services whose instances are the servers of pools; more may be named later.
    pub pools: BTreeSet<ServiceName>,
    /// How far a server may be behind the leader and still be believed.
    pub behind_max: Duration,
    /// Where the last good state is kept for a start without Consul.
    pub state_file: Option<PathBuf>,
    /// How long a start waits for Consul.
    pub start_within: Duration,
}

/// The watching tasks. They end with [`Self::stop`] or when this is dropped; consumers then keep the last snapshot.
#[derive(Debug)]
pub struct ConsulWatch {
    agent: Agent,
    pools: watch::Sender<BTreeSet<ServiceName>>,
    heard_pools: watch::Sender<BTreeSet<ServiceName>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl ConsulWatch {
    /// The agent that is asked: for others of this process, who share its connections.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Watches the services that pools name now, and waits until Consul has said of each what its servers are.
    pub async fn follow_pools(&self, services: BTreeSet<ServiceName>) {
        self.pools.send_if_modified(|known| {
            let changed = *known != services;
            known.clone_from(&services);
            changed
        });
        let mut heard = self.heard_pools.subscribe();
        // It lives as long as the watch; were it gone there would be nothing to wait for.
        drop(heard.wait_for(|heard| services.is_subset(heard)).await);
    }

    /// Ends the tasks and waits until they have ended.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            warn!(%error, "the watch of Consul did not end well");
        }
    }
}

impl Drop for ConsulWatch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Begins to watch. Answers with the first whole snapshot; when there is none in time, with what was kept on disk, or with an empty one.
///
/// # Errors
/// [`AgentError::Tls`] or [`AgentError::Client`]; Consul itself may be down.
pub async fn watch_consul(config: ConsulConfig) -> Result<(DiscoveryHandle, ConsulWatch), AgentError> {
    let agent = Agent::new(config.agent.clone())?;
    let (world, age) = remembered(&config);
    let Assembled { snapshot, .. } = world.assemble(&config.place);
    let snapshot = snapshot.unwrap_or_else(|errors| {
        error!(%errors, "what was kept on disk makes no snapshot");
        Snapshot::default()
    });
    let origin = age.map_or(Origin::Nothing, |age| Origin::Disk { age });
    let (publisher, handle) = Publisher::begin(format!("Consul at {}", agent.address()), snapshot, origin);
    let (heard, hear) = mpsc::channel(HEARD_MAX);
    let (completeness, mut complete) = watch::channel(Completeness::Partial);
    let within = config.start_within;
    let (pools, named) = watch::channel(config.pools.clone());
    let (heard_pools, _) = watch::channel(BTreeSet::new());
    let told = Told { completeness, pools: heard_pools.clone() };
    let keeper = Keeper::new(config, agent.clone(), world, publisher, heard, told, named);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(keeper.run(hear, stopped));
    let watch = ConsulWatch { agent, pools, heard_pools, stop: Some(stop), task: Some(task) };
    let whole = tokio::time::timeout(within, complete.wait_for(|known| *known == Completeness::All));
    // Whether it was in time is what is known then.
    drop(whole.await);
    let known = *complete.borrow();
    match (known, age) {
        (Completeness::All, _) => info!("Consul's state is known"),
        (Completeness::Own, _) => {
            warn!("not all datacenters answered within {within:?}, going on with those that did");
        }
        (Completeness::Partial, Some(age)) => {
            warn!(?age, "Consul did not answer within {within:?}, going on with what was kept on disk");
        }
        (Completeness::Partial, None) => {
            error!(
                "Consul did not answer within {within:?}, and nothing is kept on disk: there are no shards until it does"
            );
        }
    }
    Ok((handle, watch))
}

fn remembered(config: &ConsulConfig) -> (World, Option<Duration>) {
    let Some(path) = &config.state_file else { return (World::default(), None) };
    match disk::load(path, config.place.environment.as_str(), SystemTime::now()) {
        Ok(Some(disk::Remembered { world, age })) => (world, Some(age)),
        Ok(None) => (World::default(), None),
        Err(error) => {
            warn!(%error, "what was kept on disk is not used");
            (World::default(), None)
        }
    }
}
