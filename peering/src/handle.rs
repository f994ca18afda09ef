//! What the rest of the node sees of the mesh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_peering_core::{
    ClaimReason, Claimed, Entry, PeerId, PeerView, Reached, Readiness, ShardName, Stats, StickKey, Unstored,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::divergence::Divergence;
use crate::history::Replacement;
use crate::view::View;

/// A conference is on another shard than before: sessions of it elsewhere are in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The conference.
    pub key: StickKey,
    /// Where it is.
    pub to: ShardName,
}

/// One peer as this node sees it.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Its name.
    pub id: PeerId,
    /// Where the talk with it stands.
    pub view: PeerView,
}

/// A moment of the mesh as this node sees it.
#[derive(Debug, Clone, Default)]
pub struct MeshStatus {
    /// Counters of the core.
    pub stats: Stats,
    /// Live entries.
    pub entries: usize,
    /// How many the mesh takes: as many as its smallest connected table.
    pub capacity: usize,
    /// Every known peer.
    pub peers: Vec<PeerStatus>,
}

/// One entry of a listing, tombstones among them.
#[derive(Debug, Clone)]
pub struct TableRow {
    /// The key.
    pub key: StickKey,
    /// The decision.
    pub entry: Entry,
    /// What is left of its lease as far as this node knows, in milliseconds.
    pub remaining_ms: u64,
}

/// Find out whether this shard can be reached from here: some home wants to know before it moves conferences away from it. An answer after more
/// than half a second comes too late; one that never comes is a No.
#[derive(Debug)]
pub struct ProbeAsk {
    /// The shard.
    pub shard: ShardName,
    /// Takes the answer.
    pub reply: oneshot::Sender<Reached>,
}

/// The table takes no more just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the table is too busy to be told more")]
pub struct Busy;

/// What the driver is asked.
#[derive(Debug)]
pub(crate) enum Request {
    Claim {
        key: StickKey,
        proposal: ShardName,
        reason: ClaimReason,
        reply: oneshot::Sender<Claimed>,
    },
    Clear {
        key: StickKey,
        reply: oneshot::Sender<Claimed>,
    },
    ReadyOverride,
    Touch(StickKey),
    SessionOpened {
        key: StickKey,
        shard: ShardName,
    },
    SessionClosed {
        key: StickKey,
        shard: ShardName,
    },
    Row {
        key: StickKey,
        reply: oneshot::Sender<Option<TableRow>>,
    },
    Status(oneshot::Sender<MeshStatus>),
    Divergences(oneshot::Sender<Vec<Divergence>>),
    History {
        key: StickKey,
        reply: oneshot::Sender<Vec<Replacement>>,
    },
    Page {
        after: Option<StickKey>,
        most: usize,
        reply: oneshot::Sender<Vec<TableRow>>,
    },
    #[cfg(feature = "test-hooks")]
    Flip {
        key: StickKey,
        shard: ShardName,
        reply: oneshot::Sender<bool>,
    },
}

/// The way into the stick table. Cheap to clone; lookups never wait, decisions wait for the key's home at most about two claim budgets, and where
/// a shard must be probed first, 6 s at most.
#[derive(Debug, Clone)]
pub struct TableHandle {
    pub(crate) me: PeerId,
    pub(crate) view: Arc<View>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) moves: broadcast::Sender<Moved>,
    pub(crate) readiness: watch::Receiver<Readiness>,
    pub(crate) touches_dropped: Arc<AtomicU64>,
    /// Set by a test hook: answers as if there were no table.
    #[cfg(feature = "test-hooks")]
    pub(crate) forgetful: Arc<std::sync::atomic::AtomicBool>,
}

impl TableHandle {
    /// This node's own name.
    #[must_use]
    pub const fn me(&self) -> &PeerId {
        &self.me
    }

    /// The shard of a live entry; never waits.
    #[must_use]
    pub fn lookup(&self, token: &str) -> Option<ShardName> {
        #[cfg(feature = "test-hooks")]
        if self.forgetful.load(Ordering::Relaxed) {
            return None;
        }
        self.view.lookup(token)
    }

    /// The shard of a live entry, for a request that uses it; never waits. Uses close together are told once; when the driver's
    /// queue is full the use is dropped and counted (the next one is told, and leases are far longer than that).
    #[must_use]
    pub fn lookup_for_use(&self, token: &str) -> Option<ShardName> {
        #[cfg(feature = "test-hooks")]
        if self.forgetful.load(Ordering::Relaxed) {
            return None;
        }
        let (shard, told) = self.view.lookup_for_use(token)?;
        if let Some(key) = told
            && self.requests.try_send(Request::Touch(key)).is_err()
        {
            self.touches_dropped.fetch_add(1, Ordering::Relaxed);
        }
        Some(shard)
    }

    /// Asks the key's home for a decision. Always answered; without an answer from any home this node decides alone.
    pub async fn claim(&self, key: StickKey, proposal: ShardName, reason: ClaimReason) -> Claimed {
        let (reply, answer) = oneshot::channel();
        let overload = Claimed::Unstored { why: Unstored::Overload };
        #[cfg(feature = "test-hooks")]
        if self.forgetful.load(Ordering::Relaxed) {
            return Claimed::Stick { shard: proposal };
        }
        if self.requests.send(Request::Claim { key, proposal, reason, reply }).await.is_err() {
            return overload;
        }
        answer.await.unwrap_or(overload)
    }

    /// Asks the key's home to store where a key is, if it has no entry, and does not wait. The driver takes requests in order: what is
    /// asked of it later finds this claim under way.
    ///
    /// # Errors
    /// [`Busy`] when the driver's queue is full, or it has stopped.
    pub fn propose(&self, key: StickKey, shard: ShardName) -> Result<(), Busy> {
        #[cfg(feature = "test-hooks")]
        if self.forgetful.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (reply, _) = oneshot::channel();
        let request = Request::Claim { key, proposal: shard, reason: ClaimReason::Join, reply };
        self.requests.try_send(request).map_err(|_| Busy)
    }

    /// Ends a conference for everyone, unless somebody holds it: answers [`Claimed::Cleared`] or [`Claimed::Held`], or
    /// [`Claimed::Unstored`] when no home answered or another claim for it is under way.
    pub async fn clear(&self, key: StickKey) -> Claimed {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Clear { key, reply }).await;
        answer.await.unwrap_or(Claimed::Unstored { why: Unstored::NoHome })
    }

    /// Declares this node ready, whatever it waits for: an operator knows that nobody else is there.
    pub async fn override_readiness(&self) {
        self.tell(Request::ReadyOverride).await;
    }

    /// A tunnel was opened: while it is open the entry is held. Waits while the driver's queue is full; never lost.
    pub async fn session_opened(&self, key: StickKey, shard: ShardName) {
        #[cfg(feature = "test-hooks")]
        if self.forgetful.load(Ordering::Relaxed) {
            return;
        }
        self.tell(Request::SessionOpened { key, shard }).await;
    }

    /// It was closed.
    pub async fn session_closed(&self, key: StickKey, shard: ShardName) {
        #[cfg(feature = "test-hooks")]
        if self.forgetful.load(Ordering::Relaxed) {
            return;
        }
        self.tell(Request::SessionClosed { key, shard }).await;
    }

    /// Conferences on a shard over the whole mesh, as far as this node knows.
    #[must_use]
    pub fn conferences(&self, shard: &ShardName) -> u64 {
        self.view.conferences(shard.as_str())
    }

    /// Every shard that has conferences, listed or not, and how many.
    #[must_use]
    pub fn conferences_of_all(&self) -> Vec<(ShardName, u64)> {
        self.view.conferences_of_all()
    }

    /// Conferences in the table.
    #[must_use]
    pub fn conferences_total(&self) -> u64 {
        self.view.total() as u64
    }

    /// Conferences that change their shard from now on. A receiver that falls behind misses the oldest and is told how many.
    #[must_use]
    pub fn moves(&self) -> broadcast::Receiver<Moved> {
        self.moves.subscribe()
    }

    /// Whether this node may be sent traffic, and why not.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// Follows readiness.
    #[must_use]
    pub fn watch_readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.clone()
    }

    /// Counters and peers; empty when the driver has stopped.
    pub async fn status(&self) -> MeshStatus {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Status(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Where most of this node's sessions of a key are, while some are on another shard than it is on and it is not decided where they belong;
    /// never waits.
    #[must_use]
    pub fn disputed_on(&self, token: &str) -> Option<ShardName> {
        self.view.disputed_on(token)
    }

    /// Split brains that this node decided about, the newest last; `None` when the driver has stopped.
    pub async fn divergences(&self) -> Option<Vec<Divergence>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Divergences(reply)).await;
        answer.await.ok()
    }

    /// Decisions about a key that newer ones replaced, as far as they are kept, the newest last; `None` when the driver has stopped.
    pub async fn history(&self, key: StickKey) -> Option<Vec<Replacement>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::History { key, reply }).await;
        answer.await.ok()
    }

    /// Up to `most` entries after `after` in the order of their keys' hashes; empty at the end, `None` when the driver has stopped.
    pub async fn page(&self, after: Option<StickKey>, most: usize) -> Option<Vec<TableRow>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Page { after, most, reply }).await;
        answer.await.ok()
    }

    /// One key's entry, a tombstone too.
    pub async fn row(&self, key: StickKey) -> Option<TableRow> {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Row { key, reply }).await;
        answer.await.ok().flatten()
    }

    /// Uses that were dropped because the driver's queue was full.
    #[must_use]
    pub fn touches_dropped(&self) -> u64 {
        self.touches_dropped.load(Ordering::Relaxed)
    }

    /// Stickiness off: this node takes its own proposals for the mesh's decisions, and tells it of nothing. A test of stickiness
    /// must fail with it.
    #[cfg(feature = "test-hooks")]
    pub fn forget_everything(&self) {
        self.forgetful.store(true, Ordering::Relaxed);
    }

    /// Writes another shard over an entry of this node's table, and tells nobody: what a comparison has to find. Answers whether there was one.
    #[cfg(feature = "test-hooks")]
    pub async fn flip(&self, key: StickKey, shard: ShardName) -> bool {
        let (reply, answer) = oneshot::channel();
        self.tell(Request::Flip { key, shard, reply }).await;
        answer.await.unwrap_or(false)
    }

    async fn tell(&self, request: Request) {
        // A stopped driver needs to know nothing any more.
        drop(self.requests.send(request).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_table_that_has_stopped_is_not_at_its_end() {
        let (requests, mut asked) = mpsc::channel(1);
        let table = TableHandle {
            me: PeerId::parse("a").unwrap(),
            view: Arc::new(View::new(1_000)),
            requests,
            moves: broadcast::channel(1).0,
            readiness: watch::channel(Readiness::NoPlace { peers_max: 0 }).1,
            touches_dropped: Arc::default(),
            #[cfg(feature = "test-hooks")]
            forgetful: Arc::default(),
        };
        let driver = async {
            let Some(Request::Page { reply, .. }) = asked.recv().await else { panic!("a page is asked for") };
            reply.send(Vec::new()).unwrap();
        };
        let (page, ()) = tokio::join!(table.page(None, 1), driver);
        assert!(page.is_some_and(|rows| rows.is_empty()));
        drop(asked);
        assert!(table.page(None, 1).await.is_none());
    }
}
