//! What the world tells a node.

use alloc::vec::Vec;

use crate::id::{PeerId, ShardName, StickKey};
use crate::message::Message;

/// Names one question of the request path; the answer carries it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimToken(pub u64);

/// Why the request path asks for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimReason {
    /// A conference that the table does not know.
    Join,
    /// The shard the table names could not be reached from here. It moves when no peer of its home can reach it either.
    Down {
        /// That shard.
        failed: ShardName,
    },
    /// The shard the table names may not be used, by the word of operators or of itself: nobody need probe it.
    Maint {
        /// That shard.
        failed: ShardName,
    },
    /// An operator moves the conference.
    Operator,
}

/// Names one probe of a shard; its outcome carries it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

/// Whether a probe reached its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// It is there.
    Yes,
    /// It is not, or not from here, or not in time.
    No,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A request needs a decision: answered by [`Output::Answered`](crate::Output::Answered) with the same token, always.
    Claim {
        /// Comes back with the answer.
        token: ClaimToken,
        /// The conference.
        key: StickKey,
        /// Where it would go.
        proposal: ShardName,
        /// Why it is asked.
        reason: ClaimReason,
    },
    /// An operator clears a key: answered like a claim. A held one stays.
    Clear {
        /// Comes back with the answer.
        token: ClaimToken,
        /// The conference.
        key: StickKey,
    },
    /// An operator declares this node ready, whatever it waits for.
    ReadyOverride,
    /// A request used an entry: it lives one ttl from now on.
    Touch {
        /// The conference.
        key: StickKey,
    },
    /// A tunnel of the conference was opened here: while it is open the entry is held.
    SessionOpened {
        /// The conference.
        key: StickKey,
        /// The shard it leads to.
        shard: ShardName,
    },
    /// It was closed.
    SessionClosed {
        /// The conference.
        key: StickKey,
        /// The shard it led to.
        shard: ShardName,
    },
    /// The peers that discovery lists now (this node may be among them).
    PeersChanged {
        /// All of them.
        listed: Vec<PeerId>,
    },
    /// An authenticated connection to a peer is up. If there was one already, this one has taken its place: claims asked on the old
    /// one are asked again.
    PeerConnected {
        /// The peer, by its certificate.
        peer: PeerId,
    },
    /// The connection to a peer is gone.
    PeerLost {
        /// The peer.
        peer: PeerId,
    },
    /// A first full dial of a peer has failed.
    DialFailed {
        /// The peer.
        peer: PeerId,
    },
    /// The smoothed round trip time to a peer.
    RoundTrip {
        /// The peer.
        peer: PeerId,
        /// Milliseconds.
        rtt_ms: u64,
    },
    /// A message of a peer.
    Received {
        /// The peer, by its certificate.
        peer: PeerId,
        /// What it says; sizes and counts were bounded by the decoder.
        message: Message,
    },
    /// The outcome of a probe that [`Output::Probe`](crate::Output::Probe) asked for.
    Probed {
        /// Which.
        probe: ProbeId,
        /// The outcome.
        reached: Reached,
    },
    /// The deadline of [`Node::poll_timeout`](crate::Node::poll_timeout) has passed.
    Timeout,
}
