//! What a node asks of the world.

use alloc::vec::Vec;

use crate::entry::Entry;
use crate::id::{PeerId, ShardName, StickKey};
use crate::input::{ClaimToken, ProbeId};
use crate::message::Message;

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The conference is there, for everyone.
    Stick {
        /// The shard.
        shard: ShardName,
    },
    /// It stays where it is, though it could not be reached from here: others reach that shard.
    Keep {
        /// The shard.
        shard: ShardName,
        /// Nodes that have just reached it, in the order of their names; this one among them when its own probe did.
        via: Vec<PeerId>,
    },
    /// Cleared: the conference has no entry any more.
    Cleared,
    /// Not cleared: somebody holds it.
    Held,
    /// No entry: route by the plain hash, store nothing.
    Unstored {
        /// Why.
        why: Unstored,
    },
}

/// Why a key got no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unstored {
    /// The table holds [`Config::entries_max`](crate::Config::entries_max) live entries.
    TableFull,
    /// Too many claims or waiters are under way.
    Overload,
    /// No home answered, and this is nothing to be decided alone.
    NoHome,
    /// This node was paused for so long that its table was emptied; what it asked before is void.
    Restarted,
    /// The key ended at the highest generation: only a hostile peer makes such an end, and until it has gone nothing wins against it.
    Outranked,
}

/// Why a connection to a peer must end: mostly how the peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A message other than the hello came first.
    NotGreeted,
    /// It said no hello for 3 s.
    Silent,
    /// A second hello on one connection.
    GreetedTwice,
    /// It speaks no contract that this node knows.
    Contract,
    /// It acknowledged what was never sent.
    AckBeyondSent,
    /// Its numbers went back.
    NumberWentBack,
    /// An entry with an absurd generation or stamp.
    AbsurdEntry,
    /// It takes updates more slowly than this node decides: after the next hello both reconcile.
    FellBehind,
    /// Discovery no longer lists it.
    NotListed,
    /// It did nothing wrong: this node was paused and starts anew.
    Restarted,
}

/// Whether a node may be a home and be sent traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Every listed peer is reconciled or was tried in vain.
    Ready {
        /// With how many peers this node has reconciled.
        reconciled: usize,
        /// How many could not be reached.
        unreachable: usize,
    },
    /// Some listed peers are neither.
    NotReady {
        /// Those.
        waiting_for: Vec<PeerId>,
    },
    /// More nodes are listed than a mesh takes, and this one is of those left out: the last ones in the order of their names.
    NoPlace {
        /// How many peers a node may have.
        peers_max: usize,
    },
}

/// What a home decided about a split brain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The conference.
    pub key: StickKey,
    /// What stood in its table before.
    pub stood: Entry,
    /// The decision.
    pub entry: Entry,
    /// All sides that were told of, by the names of their shards.
    pub sides: Vec<Side>,
    /// Why that one.
    pub why: Why,
    /// How long the others were heard.
    pub gathered_ms: u64,
}

/// One of the shards that people of a conference were on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// It.
    pub shard: ShardName,
    /// Sessions there, of all nodes that answered.
    pub sessions: u64,
}

/// Why a side won.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Most sessions are there.
    MostSessions,
    /// As many are elsewhere, and the join chose it.
    Join,
    /// More are elsewhere, on a shard that nobody reaches.
    Reached,
}

/// One thing to do, in the order in which they come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to a connected peer.
    Send {
        /// The peer.
        peer: PeerId,
        /// The message.
        message: Message,
    },
    /// Close the connection to a peer.
    Disconnect {
        /// The peer.
        peer: PeerId,
        /// Why.
        violation: Violation,
    },
    /// The entry of a key changed: the read view follows.
    Changed {
        /// The key.
        key: StickKey,
        /// Its shard now, `None` when the conference has none.
        shard: Option<ShardName>,
    },
    /// A live entry gave way to another one, perhaps on the same shard: for those who look back.
    Replaced {
        /// The key.
        key: StickKey,
        /// What stood there.
        before: Entry,
        /// What stands there now.
        after: Entry,
    },
    /// The table was emptied: so is the read view.
    Emptied,
    /// This node has decided where a conference is whose people were on several shards.
    Verdict(Verdict),
    /// The last of the people at a node whom such a decision moved has left the shard that was not chosen.
    PeopleMoved {
        /// The conference.
        key: StickKey,
        /// The node.
        peer: PeerId,
    },
    /// Sessions of this node are on another shard than their conference, as far as is known, and stay until that is decided: so does who is
    /// no newcomer.
    Disputed {
        /// The conference.
        key: StickKey,
        /// Where most of its sessions here are.
        on: ShardName,
    },
    /// It is decided.
    Settled {
        /// The conference.
        key: StickKey,
    },
    /// A conference is on another shard than some session of this node: those on other shards are in the wrong place.
    Moved {
        /// The key.
        key: StickKey,
        /// Where it is.
        to: ShardName,
    },
    /// Find out whether a shard can be reached from here: answered by [`Input::Probed`](crate::Input::Probed). A late answer is worth nothing.
    Probe {
        /// Comes back with the outcome.
        probe: ProbeId,
        /// Who wants to know: a peer, or this node.
        asker: PeerId,
        /// The shard.
        shard: ShardName,
    },
    /// The answer to a claim.
    Answered {
        /// The claim's token.
        token: ClaimToken,
        /// The answer.
        claimed: Claimed,
    },
    /// Readiness changed.
    Readiness(Readiness),
}
