//! Idle connections to shards, those of one worker: last in, first out, so that the spare ones grow old and go.

use super::{Destination, Upstream};
use crate::clock::{Millis, to_millis};
use foldhash::fast::RandomState;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How many connections are kept, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle connections to one shard, in each worker.
    pub idle_per_shard: usize,
    /// How long one may lie idle. Below the keep-alive timeout of the shards (nginx 75 s), or it is them who close first.
    pub idle_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { idle_per_shard: 256, idle_timeout: Duration::from_secs(30) }
    }
}

struct Idle {
    upstream: Box<Upstream>,
    since: Millis,
}

/// The idle connections of a worker.
pub(crate) struct Pool {
    limits: RefCell<PoolLimits>,
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>, RandomState>>,
}

impl Pool {
    pub(crate) fn new(limits: PoolLimits) -> Self {
        Self { limits: RefCell::new(limits), idle: RefCell::default() }
    }

    /// From now on; spare connections go at the next sweep, by their age.
    pub(crate) fn set_limits(&self, limits: PoolLimits) {
        self.limits.replace(limits);
    }

    /// A connection that served before, is still open, and is good for `destination`.
    pub(crate) fn take(&self, destination: &Destination) -> Option<Box<Upstream>> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&destination.address)?;
        loop {
            let good = |idle: &Idle| destination.is_served_by(&idle.upstream.destination);
            // The last one, for a server that is spoken to in one way.
            let mut candidate = connections.remove(connections.iter().rposition(good)?);
            if candidate.upstream.is_reusable() {
                return Some(candidate.upstream);
            }
        }
    }

    /// Keeps a connection whose answer is complete, unless there are enough. One with terms, or by way of a peer, takes the place of the
    /// oldest then: whoever that was good for may never come back.
    pub(crate) fn put(&self, upstream: Box<Upstream>, now: Millis) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(upstream.destination.address).or_default();
        let full = connections.len() >= self.limits.borrow().idle_per_shard;
        let particular = upstream.destination.terms.is_some() || !upstream.destination.is_direct();
        if full && particular && !connections.is_empty() {
            connections.remove(0);
        } else if full {
            return;
        }
        connections.push(Idle { upstream, since: now });
    }

    /// Lets go of what is old or closed.
    pub(crate) fn sweep(&self, now: Millis) {
        let timeout = to_millis(self.limits.borrow().idle_timeout);
        self.idle.borrow_mut().retain(|_, connections| {
            connections
                .retain_mut(|idle| now.saturating_sub(idle.since) < timeout && idle.upstream.is_reusable());
            !connections.is_empty()
        });
    }
}
