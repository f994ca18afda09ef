//! One peer: where the talk with it stands.

use alloc::collections::{BTreeSet, VecDeque};

use crate::id::StickKey;
use crate::reconcile::Talk;
use crate::time::Instant;

/// Where the connection to a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// No connection, and no dial has ended yet.
    Dialing,
    /// The last connection ended, or the first dial failed.
    Down,
    /// Connected; its hello is awaited.
    Greeting,
    /// Updates flow; what was missed before is being reconciled.
    Learning,
    /// What it knew has arrived; updates flow.
    Reconciled,
}

/// Whether two tables hold the same. Not the same question as whether their nodes are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// No digest of the peer was compared yet on this connection.
    Unknown,
    /// The last digests were equal, or unequal once.
    Agreed,
    /// A range was unequal in two successive heartbeats.
    Disagreed,
}

/// What an operator sees of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerView {
    /// The connection.
    pub link: LinkState,
    /// Whether it holds what this node holds.
    pub agreement: Agreement,
    /// Since a comparison last said that it does, in milliseconds; `None` when none ever has.
    pub agreed_ms_ago: Option<u64>,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// It missed a claim's budget and has not been heard since.
    pub suspect: bool,
    /// Own updates it has not acknowledged.
    pub behind: u64,
    /// Smoothed round trip in milliseconds.
    pub rtt_ms: u64,
    /// How many live entries its table takes, 0 before its first hello.
    pub capacity: u64,
}

/// How many corrections may wait for one peer. Beyond it they are dropped: digests will find what differs.
pub(crate) const CORRECTIONS_MAX: usize = 65_536;

/// After so many reconciliations without an answer a peer need not be waited for: it runs, and does not work.
const ATTEMPTS_MAX: u32 = 2;

/// The state of one peer; it outlives connections.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) listed: bool,
    /// Since when, if it is.
    pub(crate) listed_since: Instant,
    pub(crate) link: LinkState,
    /// When its last hello or heartbeat came.
    pub(crate) heard: Instant,
    /// Since when its hello is awaited.
    pub(crate) greeting_since: Instant,
    /// Its incarnation by its last hello, 0 before.
    pub(crate) incarnation: u64,
    pub(crate) ready: bool,
    pub(crate) suspect: bool,
    pub(crate) rtt_ms: u64,
    /// How many live entries its table takes.
    pub(crate) capacity: u64,
    /// This node has all it had, in this node's lifetime and its current incarnation.
    pub(crate) reconciled_once: bool,
    /// A full dial failed while there was no connection: it need not be waited for.
    pub(crate) dial_failed: bool,
    /// The number up to which its updates were applied (of `incarnation`).
    pub(crate) received: u64,
    /// The number of its newest update on this connection: they come in order.
    pub(crate) last_update: u64,
    /// When the last batch was sent to it.
    pub(crate) last_push: Option<Instant>,
    /// Its items that are applied and not yet acknowledged, and since when.
    pub(crate) unacked: u64,
    pub(crate) unacked_since: Instant,
    /// Own log positions: sent, and acknowledged.
    pub(crate) pushed: u64,
    pub(crate) acked: u64,
    /// Where its updates continue on this connection, by its welcome.
    pub(crate) continues_after: u64,
    /// The number of its newest decision when it said that: those are of the time before this connection.
    pub(crate) head: u64,
    /// When digests were last found equal.
    pub(crate) agreed_at: Option<Instant>,
    /// The reconciliation with it.
    pub(crate) talk: Talk,
    pub(crate) corrections: VecDeque<StickKey>,
    /// Keys it decided for us as home, in the order of time: announced by us too if it is lost soon.
    pub(crate) decided_for_us: VecDeque<(Instant, StickKey)>,
    /// Keys that this node decided alone and has now claimed at this peer.
    pub(crate) reclaimed: BTreeSet<StickKey>,
}

impl Session {
    pub(crate) const fn new() -> Self {
        Self {
            listed: false,
            listed_since: Instant(0),
            link: LinkState::Dialing,
            heard: Instant(0),
            greeting_since: Instant(0),
            incarnation: 0,
            ready: false,
            suspect: false,
            rtt_ms: 0,
            capacity: 0,
            reconciled_once: false,
            dial_failed: false,
            received: 0,
            last_update: 0,
            last_push: None,
            unacked: 0,
            unacked_since: Instant(0),
            pushed: 0,
            acked: 0,
            continues_after: 0,
            head: 0,
            agreed_at: None,
            talk: Talk::new(),
            corrections: VecDeque::new(),
            decided_for_us: VecDeque::new(),
            reclaimed: BTreeSet::new(),
        }
    }

    /// Whether updates may be sent to it.
    pub(crate) const fn streaming(&self) -> bool {
        matches!(self.link, LinkState::Learning | LinkState::Reconciled)
    }

    /// Whether something may be sent to it now; `head` is the log's.
    pub(crate) fn has_something_due(&self, head: u64) -> bool {
        self.streaming()
            && (self.pushed != head
                || self.unacked > 0
                || !self.corrections.is_empty()
                || self.talk.has_something_due())
    }

    /// Whether there is a connection, greeted or not.
    pub(crate) const fn connected(&self) -> bool {
        matches!(self.link, LinkState::Greeting | LinkState::Learning | LinkState::Reconciled)
    }

    /// Whether it may be asked as a home.
    pub(crate) const fn may_be_home(&self) -> bool {
        self.streaming() && self.ready && !self.suspect
    }

    /// Whether this node need not wait for it any more to be ready itself.
    pub(crate) const fn settled(&self) -> bool {
        self.reconciled_once
            || self.talk.attempts >= ATTEMPTS_MAX
            || self.dial_failed && matches!(self.link, LinkState::Dialing | LinkState::Down)
    }

    /// The connection is gone: what was sent and not acknowledged is sent again after the next hello.
    pub(crate) fn lost(&mut self) {
        self.link = LinkState::Down;
        self.ready = false;
        self.last_update = 0;
        self.unacked = 0;
        self.last_push = None;
        self.talk.lost();
        self.reclaimed.clear();
    }
}
