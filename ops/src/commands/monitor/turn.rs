//! Whose turn it is: one monitor at a time for an environment, and none while operators say so.

use std::time::Duration;

use shardgate_discovery::consul::{Datacenter, LOCK_TTL_MIN, Lock, LockConfig, LockSeeker};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::consul::{Consul, ConsulError};

/// A place among those who want to look; held or waited for until it is given up.
pub(super) struct Turn {
    seeker: LockSeeker,
    state: watch::Receiver<Lock>,
}

/// Where the lock and the flag are: one datacenter of those that are meant, the first by name, for all.
async fn place(consul: &Consul) -> Result<Datacenter, ConsulError> {
    let first = consul.datacenters().await?.into_iter().min();
    first.ok_or_else(|| ConsulError::NoDatacenters { agent: consul.agent.address().to_string() })
}

/// The key of the lock.
pub(super) fn lock_key(consul: &Consul) -> String {
    format!("shardgate/{}/monitor", consul.environment.as_str())
}

/// The key of the flag.
pub(super) fn pause_key(consul: &Consul) -> String {
    format!("shardgate/{}/monitor-pause", consul.environment.as_str())
}

/// Why there is a pause, in the words of who made it; `None`: there is none.
pub(super) async fn pause(consul: &Consul) -> Result<Option<String>, ConsulError> {
    let datacenter = place(consul).await?;
    Ok(consul.agent.value(&datacenter, &pause_key(consul)).await?)
}

impl Turn {
    /// Begins to seek.
    pub(super) async fn seek(consul: &Consul) -> Result<Self, ConsulError> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let config = LockConfig {
            datacenter: Some(place(consul).await?),
            key: lock_key(consul),
            holder: format!("shardgatectl monitor on {}, pid {}", host.trim(), std::process::id()),
            ttl: LOCK_TTL_MIN,
        };
        let seeker = LockSeeker::seek(consul.agent.clone(), config);
        let state = seeker.state();
        Ok(Self { seeker, state })
    }

    /// Whether it came within this time; `None`: however long it takes.
    pub(super) async fn comes(&mut self, within: Option<Duration>) -> bool {
        let held = self.state.wait_for(|lock| *lock == Lock::Held);
        match within {
            Some(within) => timeout(within, held).await.is_ok_and(|held| held.is_ok()),
            None => held.await.is_ok(),
        }
    }

    /// Whether it still is: Consul may have given it to another one.
    pub(super) fn is_held(&self) -> bool {
        *self.state.borrow() == Lock::Held
    }

    /// The next one's.
    pub(super) async fn give_up(self) {
        self.seeker.give_up().await;
    }
}
