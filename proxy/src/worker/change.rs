//! Changing what workers do while they serve: settings and listeners. All that can fail is done before any worker hears of it.

use super::listeners::{Bound, FrontendConfig, Listening, bind};
use super::start::{Running, StartError, WorkersConfig, settings};
use super::{Settings, Worker};
use crate::limits::Ceilings;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::sync::oneshot;

/// A change that no worker can refuse, see [`Running::prepare`]. What it has bound is closed if it is dropped.
#[derive(Debug)]
#[must_use = "it comes into use by Running::apply"]
pub struct Change {
    settings: Settings,
    ceilings: Ceilings,
    frontends: Vec<FrontendConfig>,
    opened: Vec<Vec<Bound>>,
    addresses: Vec<(SocketAddr, SocketAddr)>,
}

/// A worker's part of a change.
#[derive(Debug)]
pub(super) struct Order {
    settings: Settings,
    frontends: Vec<FrontendConfig>,
    opened: Vec<Bound>,
    done: oneshot::Sender<()>,
}

impl Order {
    /// Obeys, on the worker's thread.
    pub(super) async fn obey(self, worker: &Rc<Worker>, listening: &mut Listening) {
        let Self { settings, frontends, opened, done } = self;
        worker.set_settings(settings);
        // Where one address takes another's place, somebody listens all the time.
        for bound in opened {
            if let Err(error) = listening.open(worker, bound) {
                tracing::error!(%error, "a new listener cannot be used by a worker");
            }
        }
        listening.change(worker, &frontends).await;
        // Whoever ordered it may be gone.
        let _gone: Result<(), ()> = done.send(());
    }
}

impl Running {
    /// Checks a new configuration and binds its new addresses. Threads, host, access log and backlog of open listeners stay as they are.
    ///
    /// # Errors
    /// [`StartError`]; nothing has changed then.
    pub fn prepare(&self, config: WorkersConfig) -> Result<Change, StartError> {
        let settings = settings(&config)?;
        let WorkersConfig { frontends, backlog, ceilings, .. } = config;
        let open: Vec<SocketAddr> = self.bound.iter().map(|(configured, _)| *configured).collect();
        let fresh: Vec<FrontendConfig> =
            frontends.iter().filter(|frontend| !open.contains(&frontend.address)).cloned().collect();
        let taken: Vec<SocketAddr> = self.bound.iter().map(|(_, bound)| *bound).collect();
        let (addresses, opened) = bind(&fresh, self.changes.len(), backlog, &taken)?;
        let addresses = fresh.iter().map(|frontend| frontend.address).zip(addresses).collect();
        Ok(Change { settings, ceilings, frontends, opened, addresses })
    }

    /// Brings a change into use; returns when every worker has it.
    pub async fn apply(&mut self, change: Change) {
        let Change { settings, ceilings, frontends, opened, addresses } = change;
        self.gate.change(ceilings);
        self.health.change(settings.health.clone());
        self.bound.retain(|(configured, _)| frontends.iter().any(|frontend| frontend.address == *configured));
        self.bound.extend(addresses);
        let mut waiting = Vec::new();
        for (worker, opened) in self.changes.iter().zip(opened) {
            let (done, waited) = oneshot::channel();
            let order = Order { settings: settings.clone(), frontends: frontends.clone(), opened, done };
            // A worker that has ended needs no change.
            if worker.send(order).await.is_ok() {
                waiting.push(waited);
            }
        }
        for waited in waiting {
            drop(waited.await);
        }
    }
}
