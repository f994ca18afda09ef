//! The open tunnels: each worker has a registry of its own, and [`Sessions`] speaks to all of them.
//!
//! A tunnel is closed by closing its connections (FIN) to both sides; no WebSocket close frame is forged. Clients take it for a
//! lost connection and come back at once, to where the conference is by then.

use crate::clock::{Millis, to_millis};
use crate::counters::{Counters, TunnelEnd};
use crate::forward::Limits;
use crate::worker::Worker;
use foldhash::fast::RandomState;
use shardgate_peering_core::{ShardName, StickKey};
use slab::Slab;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::{mpsc, oneshot};

/// Which tunnels are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those of a conference.
    Key(StickKey),
    /// Those of a conference that are on another shard than this.
    KeyElsewhere {
        /// The conference.
        key: StickKey,
        /// Where it is.
        shard: ShardName,
    },
    /// Those to a shard.
    Shard(ShardName),
}

/// What is to be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Count,
    Close,
}

/// An order to one worker.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) which: Which,
    pub(crate) verb: Verb,
    pub(crate) reply: oneshot::Sender<usize>,
}

/// Orders in one worker's queue; whoever gives more waits.
pub(crate) const COMMANDS_MAX: usize = 64;

/// The tunnels of all workers.
#[derive(Debug, Clone)]
pub struct Sessions {
    workers: Arc<[mpsc::Sender<Command>]>,
    counters: Counters,
}

impl Sessions {
    pub(crate) fn new(workers: Arc<[mpsc::Sender<Command>]>, counters: Counters) -> Self {
        Self { workers, counters }
    }

    /// How many tunnels are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.counters.snapshot().tunnels()
    }

    /// Counts tunnels.
    pub async fn count(&self, which: Which) -> usize {
        self.tell(which, Verb::Count).await
    }

    /// Closes tunnels, and answers how many were told to.
    pub async fn close(&self, which: Which) -> usize {
        self.tell(which, Verb::Close).await
    }

    async fn tell(&self, which: Which, verb: Verb) -> usize {
        let mut replies = Vec::with_capacity(self.workers.len());
        for worker in self.workers.iter() {
            let (reply, answer) = oneshot::channel();
            // A worker that has ended has no tunnels.
            if worker.send(Command { which: which.clone(), verb, reply }).await.is_ok() {
                replies.push(answer);
            }
        }
        let mut total = 0;
        for reply in replies {
            total += reply.await.unwrap_or(0);
        }
        total
    }
}

/// A tunnel as the registry sees it.
struct Session {
    key: Option<StickKey>,
    shard: ShardName,
    used: Millis,
    half: Half,
    end: Option<TunnelEnd>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    Closed,
}

/// The tunnels of one worker. Those of a shard are found by looking at all: that is asked rarely.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Slab<Session>,
    by_key: HashMap<StickKey, Vec<u32>, RandomState>,
}

impl Registry {
    pub(crate) fn insert(&mut self, key: Option<StickKey>, shard: ShardName, now: Millis) -> u32 {
        let session =
            Session { key: key.clone(), shard, used: now, half: Half::Open, end: None, waker: None };
        // A process has fewer descriptors than that.
        let id = u32::try_from(self.sessions.insert(session)).unwrap_or(u32::MAX);
        if let Some(key) = key {
            self.by_key.entry(key).or_default().push(id);
        }
        id
    }

    pub(crate) fn remove(&mut self, id: u32) {
        let Some(key) = self.sessions.try_remove(id as usize).and_then(|session| session.key) else { return };
        if let Some(ids) = self.by_key.get_mut(&key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// A tunnel's task looks in: is it to end?
    pub(crate) fn attend(&mut self, id: u32, waker: &Waker) -> Option<TunnelEnd> {
        let session = self.sessions.get_mut(id as usize)?;
        if session.waker.is_none() {
            session.waker = Some(waker.clone());
        }
        session.end
    }

    pub(crate) fn used(&mut self, id: u32, now: Millis) {
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.used = now;
        }
    }

    /// One side has closed: from now on the shorter timeout counts.
    pub(crate) fn half_closed(&mut self, id: u32) {
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.half = Half::Closed;
        }
    }

    pub(crate) fn end(&mut self, id: u32, end: TunnelEnd) {
        if let Some(session) = self.sessions.get_mut(id as usize)
            && session.end.is_none()
        {
            session.end = Some(end);
            if let Some(waker) = &session.waker {
                waker.wake_by_ref();
            }
        }
    }

    fn select(&self, which: &Which) -> Vec<u32> {
        let of_key = |key: &StickKey| self.by_key.get(key).map_or(&[][..], Vec::as_slice).iter().copied();
        let all = || self.sessions.iter();
        match which {
            Which::All => all().map(|(id, _)| id as u32).collect(),
            Which::Key(key) => of_key(key).collect(),
            Which::KeyElsewhere { key, shard } => of_key(key)
                .filter(|id| self.sessions.get(*id as usize).is_some_and(|it| it.shard != *shard))
                .collect(),
            Which::Shard(shard) => {
                all().filter(|(_, it)| it.shard == *shard).map(|(id, _)| id as u32).collect()
            }
        }
    }

    pub(crate) fn obey(&mut self, which: &Which, verb: Verb) -> usize {
        let ids = self.select(which);
        if verb == Verb::Close {
            for id in &ids {
                self.end(*id, TunnelEnd::Closed);
            }
        }
        ids.len()
    }

    /// Ends the tunnels to a shard, and answers how many there were.
    pub(crate) fn end_of_shard(&mut self, shard: &ShardName, end: TunnelEnd) -> usize {
        let ids = self.select(&Which::Shard(shard.clone()));
        for id in &ids {
            self.end(*id, end);
        }
        ids.len()
    }

    /// A conference is on `shard` now: its tunnels to other shards end.
    pub(crate) fn moved(&mut self, key: &StickKey, shard: &ShardName) {
        if !self.by_key.contains_key(key) {
            return;
        }
        for id in self.select(&Which::KeyElsewhere { key: key.clone(), shard: shard.clone() }) {
            self.end(id, TunnelEnd::Moved);
        }
    }

    /// The conferences that have tunnels here.
    pub(crate) fn keys(&self) -> Vec<StickKey> {
        self.by_key.keys().cloned().collect()
    }

    /// Ends those that nothing has passed through for too long.
    pub(crate) fn sweep(&mut self, now: Millis, limits: &Limits) {
        let (open, half) = (to_millis(limits.tunnel_timeout), to_millis(limits.client_fin_timeout));
        for (_, session) in &mut self.sessions {
            let limit = if session.half == Half::Open { open } else { open.min(half) };
            if session.end.is_none() && now.saturating_sub(session.used) >= limit {
                session.end = Some(TunnelEnd::Idle);
                if let Some(waker) = &session.waker {
                    waker.wake_by_ref();
                }
            }
        }
    }
}

/// A tunnel's claim on its entry: while it exists, the conference does not end.
pub(crate) struct Hold {
    worker: Rc<Worker>,
    key: StickKey,
    shard: ShardName,
}

impl Hold {
    /// Tells the table.
    pub(crate) async fn take(worker: &Rc<Worker>, key: StickKey, shard: ShardName) -> Self {
        worker.table.session_opened(key.clone(), shard.clone()).await;
        Self { worker: Rc::clone(worker), key, shard }
    }

    pub(crate) const fn key(&self) -> &StickKey {
        &self.key
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.worker.release(self.key.clone(), self.shard.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(text: &str) -> StickKey {
        StickKey::parse(text).unwrap()
    }

    fn shard(text: &str) -> ShardName {
        ShardName::parse(text).unwrap()
    }

    #[test]
    fn tunnels_are_found_and_forgotten() {
        let mut registry = Registry::default();
        let first = registry.insert(Some(key("a")), shard("s1"), 0);
        let second = registry.insert(Some(key("a")), shard("s2"), 0);
        let third = registry.insert(None, shard("s1"), 0);
        let count = |registry: &mut Registry, which: Which| registry.obey(&which, Verb::Count);
        assert_eq!(count(&mut registry, Which::All), 3);
        assert_eq!(count(&mut registry, Which::Key(key("a"))), 2);
        assert_eq!(count(&mut registry, Which::KeyElsewhere { key: key("a"), shard: shard("s2") }), 1);
        assert_eq!(count(&mut registry, Which::Shard(shard("s1"))), 2);
        registry.moved(&key("a"), &shard("s2"));
        assert_eq!(registry.attend(first, Waker::noop()), Some(TunnelEnd::Moved));
        assert_eq!(registry.attend(second, Waker::noop()), None);
        assert_eq!(registry.obey(&Which::Shard(shard("s1")), Verb::Close), 2);
        assert_eq!(registry.attend(third, Waker::noop()), Some(TunnelEnd::Closed));
        assert_eq!(registry.attend(first, Waker::noop()), Some(TunnelEnd::Moved));
        for id in [first, second, third, third] {
            registry.remove(id);
        }
        assert_eq!(count(&mut registry, Which::All), 0);
        assert!(registry.keys().is_empty());
    }

    #[test]
    fn idle_tunnels_end() {
        let limits = Limits {
            tunnel_timeout: Duration::from_secs(10),
            client_fin_timeout: Duration::from_secs(1),
            ..Limits::default()
        };
        let mut registry = Registry::default();
        let open = registry.insert(None, shard("s1"), 0);
        let half = registry.insert(None, shard("s1"), 0);
        registry.half_closed(half);
        registry.sweep(999, &limits);
        assert_eq!(registry.attend(half, Waker::noop()), None);
        registry.used(open, 1000);
        registry.sweep(10_999, &limits);
        assert_eq!(registry.attend(half, Waker::noop()), Some(TunnelEnd::Idle));
        assert_eq!(registry.attend(open, Waker::noop()), None);
        registry.sweep(11_000, &limits);
        assert_eq!(registry.attend(open, Waker::noop()), Some(TunnelEnd::Idle));
    }
}
