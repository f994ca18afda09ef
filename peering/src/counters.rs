//! What the shell counts: connections and their ends, by reason.

use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_peering_core::Violation;

use crate::relay::{RelayCounters, RelayCounts};

/// Why a connection to a peer ended, or was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// This node stops.
    Shutdown,
    /// A newer connection to the same peer took its place, or both had dialled.
    Replaced,
    /// The peer takes less than it is sent.
    OutboxFull,
    /// It broke the protocol.
    Violation(Violation),
    /// A frame that is too long, or no message.
    BadFrame,
    /// Its certificate is not of the mesh CA.
    WrongCa,
    /// Its certificate names somebody else than was dialled.
    WrongName,
    /// Its certificate is of another environment.
    WrongEnvironment,
    /// It speaks none of our protocol versions.
    WrongAlpn,
    /// Discovery does not list it.
    NotListed,
    /// It was silent for too long, or never answered.
    TimedOut,
    /// It closed the connection.
    ClosedByPeer,
    /// Anything else on the way.
    Other,
}

impl LinkEnd {
    /// Every label there is.
    pub const LABELS: [&'static str; 13] = [
        "shutdown",
        "replaced",
        "outbox-full",
        "violation",
        "bad-frame",
        "wrong-ca",
        "wrong-name",
        "wrong-environment",
        "wrong-alpn",
        "not-listed",
        "timed-out",
        "closed-by-peer",
        "other",
    ];

    const fn index(self) -> usize {
        match self {
            Self::Shutdown => 0,
            Self::Replaced => 1,
            Self::OutboxFull => 2,
            Self::Violation(_) => 3,
            Self::BadFrame => 4,
            Self::WrongCa => 5,
            Self::WrongName => 6,
            Self::WrongEnvironment => 7,
            Self::WrongAlpn => 8,
            Self::NotListed => 9,
            Self::TimedOut => 10,
            Self::ClosedByPeer => 11,
            Self::Other => 12,
        }
    }

    /// The name in metrics and in the close reason that the peer reads.
    #[must_use]
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

/// Counters of the shell. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    ends: [AtomicU64; 13],
    connected: AtomicU64,
    dials_failed: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    pub(crate) relays: RelayCounters,
}

/// A reading of [`Counters`].
#[derive(Debug, Clone, Default)]
pub struct LinkCounts {
    /// Ends and refusals by label.
    pub ends: Vec<(&'static str, u64)>,
    /// Connections that came up.
    pub connected: u64,
    /// Dials in vain.
    pub dials_failed: u64,
    /// Bytes of frames written.
    pub bytes_sent: u64,
    /// Bytes of frames read.
    pub bytes_received: u64,
    /// Relayed streams.
    pub relays: RelayCounts,
}

impl Counters {
    pub(crate) fn end(&self, end: LinkEnd) {
        self.ends[end.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dial_failed(&self) {
        self.dials_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn read(&self) -> LinkCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkCounts {
            ends: LinkEnd::LABELS.into_iter().zip(self.ends.iter().map(read)).collect(),
            connected: read(&self.connected),
            dials_failed: read(&self.dials_failed),
            bytes_sent: read(&self.bytes_sent),
            bytes_received: read(&self.bytes_received),
            relays: self.relays.read(),
        }
    }
}
