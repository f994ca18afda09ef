//! A changed configuration on a running node: all that can fail is done first, then everything is switched.

use super::{DiscoveryWatch, NodeError, RunningNode, settings};
use crate::config::Config;
use crate::tls::{Prepared, ServerTls, TlsErrors, TlsWatchConfig};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// How often the configuration changed, and what waits for a restart; for metrics.
#[derive(Debug, Default)]
pub struct ConfigCounts {
    reloads: AtomicU64,
    refused: AtomicU64,
    waiting: AtomicU64,
}

impl ConfigCounts {
    /// Changes that came into use.
    #[must_use]
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// Changes that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Fields of the file that come into use with a restart only.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// What became of a changed configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Fields whose new values are in use.
    pub applied: Vec<String>,
    /// Fields whose new values come with a restart.
    pub waiting: Vec<String>,
}

/// How long Consul has to list the servers of pools that are new.
const SERVICES_WITHIN: Duration = Duration::from_secs(2);

/// How certificates change.
enum TlsChange {
    None,
    Begin(ServerTls),
    Change(ServerTls, Prepared),
    End,
}

impl TlsChange {
    fn new(running: Option<&ServerTls>, config: &Config) -> Result<Self, TlsErrors> {
        Ok(match (running, &config.tls) {
            (None, None) => Self::None,
            (None, Some(config)) => Self::Begin(ServerTls::load(config)?),
            (Some(tls), Some(config)) => Self::Change(tls.clone(), tls.prepare(config)?),
            (Some(_), None) => Self::End,
        })
    }

    const fn after(&self) -> Option<&ServerTls> {
        match self {
            Self::None | Self::End => None,
            Self::Begin(tls) | Self::Change(tls, _) => Some(tls),
        }
    }
}

impl RunningNode {
    /// Takes on a changed configuration, as far as a running node can; certificates and pages are read again in any case.
    ///
    /// # Errors
    /// [`NodeError`]; nothing has changed then.
    pub async fn reload(&mut self, config: Config) -> Result<Reloaded, NodeError> {
        let next = config.clone().for_running(&self.config);
        let services = settings::pool_services(&next);
        match &self.watch {
            DiscoveryWatch::File(_) => {
                if let Some(service) = services.first() {
                    return Err(NodeError::NoCatalog { service: service.clone() });
                }
            }
            DiscoveryWatch::Consul(watch) => {
                // Only what is new has to be heard of: whatever else changes does not wait for Consul.
                if services != settings::pool_services(&self.config) {
                    let known = watch.follow_pools(services);
                    timeout(SERVICES_WITHIN, known).await.map_err(|_| NodeError::ServicesUnknown)?;
                }
            }
        }
        let running = self.tls.borrow().clone();
        let prepared = TlsChange::new(running.as_ref(), &next).map_err(NodeError::from).and_then(|tls| {
            let workers = self.workers.prepare(settings::workers(&next, tls.after())?)?;
            Ok((tls, workers))
        });
        let (tls, workers) = prepared?;
        // Nothing can fail from here on. Certificates first: a listener that begins to speak TLS has them.
        match tls {
            TlsChange::None => {}
            TlsChange::Change(tls, prepared) => tls.apply(prepared),
            TlsChange::Begin(tls) => {
                self.certificates = Some(tls.watch(TlsWatchConfig::default()));
                self.tls.send_replace(Some(tls));
            }
            TlsChange::End => {
                if let Some(certificates) = self.certificates.take() {
                    certificates.stop().await;
                }
                self.tls.send_replace(None);
            }
        }
        self.workers.apply(workers).await;
        if let Some(relaying) = &self.relaying {
            relaying.set_idle(next.backend.tunnel_timeout);
        }
        self.drain = next.shutdown.drain;
        let reloaded =
            Reloaded { applied: self.config.differences(&next), waiting: next.differences(&config) };
        self.config = next;
        self.counts.reloads.fetch_add(1, Ordering::Relaxed);
        self.counts.waiting.store(reloaded.waiting.len() as u64, Ordering::Relaxed);
        Ok(reloaded)
    }

    /// Counts a changed configuration that was refused, here or before it came here.
    pub fn refused(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
    }
}
