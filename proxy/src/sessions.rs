//! The open tunnels and BOSH sessions: each worker has registries of its own, and [`Sessions`] speaks to all of them.
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
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

mod bosh;
pub(crate) use bosh::{Bosh, BoshId, BoshOfConnection, HoldsEntry, Table};

/// Which sessions are meant.
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

/// Sessions, by what carries them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// WebSocket tunnels.
    pub tunnels: u64,
    /// BOSH sessions: a request of a client's connection for a key is held, or the last one ended less than `stick_table.bosh_pause` ago.
    pub bosh: u64,
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.tunnels += other.tunnels;
        self.bosh += other.bosh;
    }
}

/// Sessions per shard; shards without any are missing.
pub type OfShards = BTreeMap<ShardName, Counted>;

/// A conference's sessions on a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct There {
    /// How many.
    pub counted: Counted,
    /// How long the one that has been open longest has been, to the second.
    pub longest: Duration,
}

/// A conference's sessions per shard; shards without any are missing.
pub type OfKey = BTreeMap<ShardName, There>;

fn add(shards: &mut OfShards, shard: &ShardName, counted: Counted) {
    match shards.get_mut(shard) {
        Some(total) => total.add(counted),
        None => drop(shards.insert(shard.clone(), counted)),
    }
}

fn add_there(shards: &mut OfKey, shard: &ShardName, there: There) {
    let total = match shards.get_mut(shard) {
        Some(total) => total,
        None => shards.entry(shard.clone()).or_default(),
    };
    total.counted.add(there.counted);
    total.longest = total.longest.max(there.longest);
}

/// What a session does to its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HoldChange {
    Taken(StickKey, ShardName),
    Released(StickKey, ShardName),
}

/// What one worker is asked or told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Closes tunnels, and answers how many were told to.
    Close {
        which: Which,
        reply: oneshot::Sender<usize>,
    },
    Count {
        which: Which,
        reply: oneshot::Sender<Counted>,
    },
    OfShards {
        reply: oneshot::Sender<OfShards>,
    },
    /// Counts each key's by their shards, in the order of the keys.
    OfKeys {
        keys: Arc<[StickKey]>,
        reply: oneshot::Sender<Vec<OfKey>>,
    },
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

    /// How many BOSH sessions there are.
    #[must_use]
    pub fn bosh(&self) -> u64 {
        self.counters.snapshot().bosh_sessions
    }

    /// Counts sessions.
    pub async fn count(&self, which: Which) -> Counted {
        let mut total = Counted::default();
        let ask = |reply| Command::Count { which: which.clone(), reply };
        self.ask(ask, |counted| total.add(counted)).await;
        total
    }

    /// Counts the sessions of each shard.
    pub async fn of_shards(&self) -> OfShards {
        let mut total = OfShards::new();
        let ask = |reply| Command::OfShards { reply };
        self.ask(ask, |part: OfShards| {
            part.iter().for_each(|(shard, counted)| add(&mut total, shard, *counted))
        })
        .await;
        total
    }

    /// Counts the sessions of each of these keys by their shards, in the order of the keys.
    pub async fn of_keys(&self, keys: Arc<[StickKey]>) -> Vec<OfKey> {
        let mut total = vec![OfKey::new(); keys.len()];
        let ask = |reply| Command::OfKeys { keys: Arc::clone(&keys), reply };
        self.ask(ask, |part: Vec<OfKey>| {
            for (total, shards) in total.iter_mut().zip(part) {
                shards.iter().for_each(|(shard, there)| add_there(total, shard, *there));
            }
        })
        .await;
        total
    }

    /// Closes tunnels, and answers how many were told to. A BOSH session has nothing that could be closed: its client's next request goes
    /// where its conference is.
    pub async fn close(&self, which: Which) -> usize {
        let mut total = 0;
        let ask = |reply| Command::Close { which: which.clone(), reply };
        self.ask(ask, |closed: usize| total += closed).await;
        total
    }

    async fn ask<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command, mut take: impl FnMut(T)) {
        let mut replies = Vec::with_capacity(self.workers.len());
        for worker in self.workers.iter() {
            let (reply, answer) = oneshot::channel();
            // A worker that has ended has no sessions.
            if worker.send(command(reply)).await.is_ok() {
                replies.push(answer);
            }
        }
        for reply in replies {
            if let Ok(part) = reply.await {
                take(part);
            }
        }
    }
}

/// A tunnel as the registry sees it.
struct Session {
    key: Option<StickKey>,
    shard: ShardName,
    way: Way,
    /// Whole seconds since the worker's start: so it fits beside the rest, in each of a million tunnels.
    began_s: u32,
    used: Millis,
    half: Half,
    end: Option<TunnelEnd>,
    waker: Option<Waker>,
}

/// How a tunnel reaches its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    /// By a peer, because this node does not reach it.
    ByPeer,
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
    pub(crate) fn insert(&mut self, key: Option<StickKey>, shard: ShardName, way: Way, now: Millis) -> u32 {
        let (began_s, half) = (seconds(now), Half::Open);
        let session =
            Session { key: key.clone(), shard, way, began_s, used: now, half, end: None, waker: None };
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

    pub(crate) fn count(&self, which: &Which) -> usize {
        self.select(which).len()
    }

    /// Closes them, and answers how many.
    pub(crate) fn close(&mut self, which: &Which) -> usize {
        let ids = self.select(which);
        for id in &ids {
            self.end(*id, TunnelEnd::Closed);
        }
        ids.len()
    }

    /// Ends the tunnels to a shard that go there directly, and answers how many there were.
    pub(crate) fn end_of_shard(&mut self, shard: &ShardName, end: TunnelEnd) -> usize {
        let mut ids = self.select(&Which::Shard(shard.clone()));
        ids.retain(|id| self.sessions.get(*id as usize).is_some_and(|session| session.way == Way::Direct));
        for id in &ids {
            self.end(*id, end);
        }
        ids.len()
    }

    /// Adds the tunnels of each shard.
    fn tally(&self, mut add: impl FnMut(&ShardName, Counted)) {
        for (_, session) in &self.sessions {
            add(&session.shard, Counted { tunnels: 1, bosh: 0 });
        }
    }

    /// Adds a conference's tunnels, each with its shard and when it began.
    fn tally_of(&self, key: &StickKey, mut add: impl FnMut(&ShardName, Counted, u32)) {
        let ids = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        for session in ids.iter().filter_map(|id| self.sessions.get(*id as usize)) {
            add(&session.shard, Counted { tunnels: 1, bosh: 0 }, session.began_s);
        }
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

/// Whole seconds since the worker's start, which no process outlives.
fn seconds(at: Millis) -> u32 {
    u32::try_from(at / 1_000).unwrap_or(u32::MAX)
}

/// Obeys a command. Whoever asked may be gone.
pub(crate) fn obey(tunnels: &mut Registry, bosh: &Bosh, now: Millis, command: Command) {
    match command {
        Command::Close { which, reply } => drop(reply.send(tunnels.close(&which))),
        Command::Count { which, reply } => drop(reply.send(counted(tunnels, bosh, &which))),
        Command::OfShards { reply } => {
            let mut shards = OfShards::new();
            let mut note = |shard: &ShardName, counted| add(&mut shards, shard, counted);
            tunnels.tally(&mut note);
            bosh.tally(&mut note);
            drop(reply.send(shards));
        }
        Command::OfKeys { keys, reply } => {
            let of_key = |key| {
                let mut shards = OfKey::new();
                let mut note = |shard: &ShardName, counted, began_s: u32| {
                    let longest = Duration::from_secs(seconds(now).saturating_sub(began_s).into());
                    add_there(&mut shards, shard, There { counted, longest });
                };
                tunnels.tally_of(key, &mut note);
                bosh.tally_of(key, &mut note);
                shards
            };
            drop(reply.send(keys.iter().map(of_key).collect()));
        }
    }
}

fn counted(tunnels: &Registry, bosh: &Bosh, which: &Which) -> Counted {
    Counted { tunnels: tunnels.count(which) as u64, bosh: bosh.count(which) as u64 }
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

    fn key(text: &str) -> StickKey {
        StickKey::parse(text).unwrap()
    }

    fn shard(text: &str) -> ShardName {
        ShardName::parse(text).unwrap()
    }

    #[test]
    fn tunnels_are_found_and_forgotten() {
        let mut registry = Registry::default();
        let first = registry.insert(Some(key("a")), shard("s1"), Way::Direct, 0);
        let second = registry.insert(Some(key("a")), shard("s2"), Way::Direct, 0);
        let third = registry.insert(None, shard("s1"), Way::Direct, 0);
        let far = registry.insert(None, shard("s3"), Way::ByPeer, 0);
        assert_eq!(registry.end_of_shard(&shard("s3"), TunnelEnd::ShardDown), 0);
        assert_eq!(
            registry.attend(far, Waker::noop()),
            None,
            "a shard that is not reached from here is not dead"
        );
        registry.remove(far);
        let count = |registry: &mut Registry, which: Which| registry.count(&which);
        assert_eq!(count(&mut registry, Which::All), 3);
        assert_eq!(count(&mut registry, Which::Key(key("a"))), 2);
        assert_eq!(count(&mut registry, Which::KeyElsewhere { key: key("a"), shard: shard("s2") }), 1);
        assert_eq!(count(&mut registry, Which::Shard(shard("s1"))), 2);
        registry.moved(&key("a"), &shard("s2"));
        assert_eq!(registry.attend(first, Waker::noop()), Some(TunnelEnd::Moved));
        assert_eq!(registry.attend(second, Waker::noop()), None);
        assert_eq!(registry.close(&Which::Shard(shard("s1"))), 2);
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
        let open = registry.insert(None, shard("s1"), Way::Direct, 0);
        let half = registry.insert(None, shard("s1"), Way::Direct, 0);
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
