//! What nodes say to each other, as plain Rust; the wire format is the shell's.

use alloc::vec::Vec;

use crate::digest::{AsOf, FAN_OUT, RangeId};
use crate::entry::{Entry, Reason};
use crate::id::{PeerId, ShardName, StickKey};
use crate::input::Reached;
use crate::time::Stamp;

/// A message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First on every connection, both ways.
    Hello(Hello),
    /// The answer to a hello.
    Welcome(Welcome),
    /// Once a period: I run, this is whether I am ready, and what my table holds.
    Heartbeat(Heartbeat),
    /// Decisions, renewals and drops of the sender.
    Update(Update),
    /// Everything up to this number was applied.
    Ack {
        /// The number of the last applied update.
        through: u64,
    },
    /// Entries of the receiver's that lost to the sender's own: unnumbered, so that a loser learns of it at once.
    Correction {
        /// The sender's entries.
        items: Vec<Item>,
    },
    /// A question to the key's home.
    Claim(Claim),
    /// Its answer.
    ClaimAnswer(ClaimAnswer),
    /// A home asks: can you reach this shard now?
    ProbeAsk {
        /// The sender's round; its rounds count up as long as it runs.
        round: u64,
        /// The shard.
        shard: ShardName,
    },
    /// The answer.
    ProbeAnswer {
        /// The receiver's round.
        round: u64,
        /// The shard.
        shard: ShardName,
        /// Whether the sender reached it.
        reached: Reached,
    },
    /// The sender holds sessions on other shards than these keys are on, as far as it knows: their home is to decide.
    Dispute {
        /// The home that said nothing: the receiver stands in for it.
        tried: Option<PeerId>,
        /// They.
        items: Vec<Disputed>,
    },
    /// A home asks: how many sessions have you of these keys, and where?
    SessionsAsk {
        /// The question; they count up as long as the sender runs.
        number: u64,
        /// They.
        keys: Vec<StickKey>,
    },
    /// The answer.
    SessionsTold {
        /// The receiver's question.
        number: u64,
        /// Keys with sessions, and how many there are on each shard.
        items: Vec<(StickKey, Vec<(ShardName, u64)>)>,
    },
    /// The people of these keys at the sender whom a verdict of the receiver's moved have left where they were.
    PeopleMoved {
        /// They.
        keys: Vec<StickKey>,
    },
    /// What the sender used or holds, told to the home.
    LeaseReport(LeaseReport),
    /// Keys whose lease is over at the sender, though their home has not ended them: does the receiver know of a use?
    LeaseAsk {
        /// Them.
        keys: Vec<StickKey>,
    },
    /// A reconciliation: what the asker's table holds in some ranges.
    Compare(Compare),
    /// The answer: what differs.
    Compared(Compared),
    /// Entries that the other one lacks.
    Give(Give),
    /// Up to this number the gifts were applied.
    GiveAck {
        /// The number of the last applied gift.
        number: u64,
    },
    /// The asker has found and exchanged every difference.
    Reconciled {
        /// The reconciliation.
        id: u64,
    },
}

impl Message {
    /// Every kind's name.
    pub const KINDS: [&'static str; 21] = [
        "hello",
        "welcome",
        "heartbeat",
        "update",
        "ack",
        "correction",
        "claim",
        "claim-answer",
        "lease-report",
        "lease-ask",
        "compare",
        "compared",
        "give",
        "give-ack",
        "reconciled",
        "probe-ask",
        "probe-answer",
        "dispute",
        "sessions-ask",
        "sessions-told",
        "people-moved",
    ];

    /// The kind's name, for logs and counters.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        let index = match self {
            Self::Hello(_) => 0,
            Self::Welcome(_) => 1,
            Self::Heartbeat(_) => 2,
            Self::Update(_) => 3,
            Self::Ack { .. } => 4,
            Self::Correction { .. } => 5,
            Self::Claim(_) => 6,
            Self::ClaimAnswer(_) => 7,
            Self::LeaseReport(_) => 8,
            Self::LeaseAsk { .. } => 9,
            Self::Compare(_) => 10,
            Self::Compared(_) => 11,
            Self::Give(_) => 12,
            Self::GiveAck { .. } => 13,
            Self::Reconciled { .. } => 14,
            Self::ProbeAsk { .. } => 15,
            Self::ProbeAnswer { .. } => 16,
            Self::Dispute { .. } => 17,
            Self::SessionsAsk { .. } => 18,
            Self::SessionsTold { .. } => 19,
            Self::PeopleMoved { .. } => 20,
        };
        Self::KINDS[index]
    }

    /// On which of the connection's ways it travels.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Heartbeat(_)
            | Self::Update(_)
            | Self::Ack { .. }
            | Self::Correction { .. }
            | Self::LeaseReport(_)
            | Self::LeaseAsk { .. } => Lane::Control,
            Self::Claim(_)
            | Self::ClaimAnswer(_)
            | Self::ProbeAsk { .. }
            | Self::ProbeAnswer { .. }
            | Self::Dispute { .. }
            | Self::SessionsAsk { .. }
            | Self::SessionsTold { .. }
            | Self::PeopleMoved { .. } => Lane::Claims,
            Self::Compare(_)
            | Self::Compared(_)
            | Self::Give(_)
            | Self::GiveAck { .. }
            | Self::Reconciled { .. } => Lane::Bulk,
        }
    }
}

/// The ways of a connection. They do not wait for each other: live updates never queue behind a bulk transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// In order.
    Control,
    /// Small requests. The shell sends them in order with control; nothing may lean on that, and the simulation sends them in any order.
    Claims,
    /// In order.
    Bulk,
}

/// Who speaks, and where the listener may continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The newest numbered contract the sender speaks: rendezvous hash, range fold, key normalisation, join order, digest input.
    pub contract: u32,
    /// The oldest one it speaks. Nodes whose ranges do not meet are no peers; there is one contract so far, so none is chosen yet.
    pub contract_oldest: u32,
    /// The sender's start.
    pub incarnation: u64,
    /// Whether the sender is ready to be a home.
    pub ready: bool,
    /// How many live entries its table takes.
    pub capacity: u64,
    /// What the sender has already applied of the listener's updates.
    pub resume: Option<Resume>,
}

/// Where the sender's updates go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The listener's cursor holds: what it missed follows, and nothing else is missing.
    pub resumed: bool,
    /// Whether the sender is ready to be a home: it may have become so since its hello.
    pub ready: bool,
    /// The number after which the sender's updates continue.
    pub continues_after: u64,
    /// The number of the sender's newest decision: up to there they were made without the listener.
    pub head: u64,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whether the sender is ready to be a home.
    pub ready: bool,
    /// What its table held a moment ago.
    pub digest: Digest,
}

/// What a table held at a moment: a digest for each sixteenth of the keys' hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The moment.
    pub as_of: AsOf,
    /// The digests.
    pub ranges: [u64; FAN_OUT],
}

/// A cursor: (sender incarnation, receiver incarnation, number); the receiver's own incarnation is in its hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The incarnation whose updates were applied.
    pub incarnation: u64,
    /// Up to this number.
    pub through: u64,
}

/// A numbered batch of the sender's own decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The number of its last item; batches come in order.
    pub through: u64,
    /// The items.
    pub items: Vec<Item>,
}

/// One key in an update, correction or gift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The conference.
    pub key: StickKey,
    /// What is told of it.
    pub change: Change,
    /// How long the entry still lives. A remaining time, never a moment: no clock of another node is trusted. Clamped by the receiver.
    pub remaining_ms: u64,
    /// Some node holds it.
    pub held: bool,
}

/// What is told of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A decision.
    Entry(Entry),
    /// A renewal of its lease.
    Renewed,
    /// A home that sees only a minority of the mesh forgets this very entry, without a decision: it would bind the others.
    Dropped {
        /// The entry's digest.
        digest: u64,
        /// When.
        at: Stamp,
    },
}

/// A key with sessions of the sender's on other shards than it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disputed {
    /// The conference.
    pub key: StickKey,
    /// Where it is, as far as the sender knows.
    pub entry: Entry,
    /// The sender's sessions on each shard.
    pub sessions: Vec<(ShardName, u64)>,
}

/// A question to the home of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Comes back with the answer; unique for the sender.
    pub id: u64,
    /// The conference.
    pub key: StickKey,
    /// The asker's own entry and its remaining time, merged by the home first.
    pub known: Option<(Entry, u64)>,
    /// Where the asker would put it; `None` asks to clear it.
    pub proposal: Option<ShardName>,
    /// Why.
    pub reason: Reason,
    /// Sessions of the conference are open at the asker.
    pub held: bool,
    /// With [`Reason::Down`] the shard that could not be reached, with [`Reason::Operator`] one that may not be used.
    pub failed: Option<ShardName>,
    /// A home that was asked before and did not answer.
    pub tried: Option<PeerId>,
    /// How often the claim was passed on; at most once.
    pub hops: u32,
}

/// The home's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimAnswer {
    /// The claim's id.
    pub id: u64,
    /// What it is about.
    pub key: StickKey,
    /// The answer.
    pub result: ClaimResult,
}

/// What a home answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimResult {
    /// The entry, for everyone, and its remaining time.
    Entry(Entry, u64),
    /// It stays as it is, though the asker cannot reach its shard.
    Kept {
        /// The entry.
        entry: Entry,
        /// Its remaining time.
        remaining_ms: u64,
        /// Nodes that have just reached the shard, at most [`VIA_MAX`](crate::VIA_MAX), in the order of their names.
        via: Vec<PeerId>,
    },
    /// It decides nothing.
    Refused(ClaimRefusal),
}

/// Why a node decides nothing about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimRefusal {
    /// It is not ready.
    NotReady,
    /// Its table is full.
    TableFull,
    /// Too many claims are being passed on, or wait for probes.
    Overload,
    /// It is held, and was to be cleared.
    Held,
    /// It was to be cleared, and there is none.
    NoEntry,
    /// It ended at the highest generation, and the end wins against whatever is decided until it has gone.
    Outranked,
}

/// Keys that the sender used or holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    /// Them.
    pub leases: Vec<Lease>,
}

/// A key that the sender used or holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The conference.
    pub key: StickKey,
    /// The time it lives on from the sender's point of view.
    pub remaining_ms: u64,
    /// Sessions of it are open at the sender.
    pub held: bool,
}

/// A question of a reconciliation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The reconciliation, unique for the asker.
    pub id: u64,
    /// 1, 2, 3 …
    pub number: u64,
    /// Of which moment it tells.
    pub as_of: AsOf,
    /// The asker has not learned the mesh's table since its start: it wants tombstones too.
    pub learning: bool,
    /// Ranges.
    pub parts: Vec<ComparePart>,
}

/// One range of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparePart {
    /// The range.
    pub range: RangeId,
    /// What the asker says of it.
    pub content: CompareContent,
}

/// What an asker says of a range. Digests are cut to 32 bits as [`AsOf`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareContent {
    /// The digests of its parts.
    Parts([u32; FAN_OUT]),
    /// The digests of all its entries.
    All(Vec<u32>),
    /// Entries that the asker lacks.
    Want(Vec<u32>),
}

/// The answer to a [`Compare`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The reconciliation.
    pub id: u64,
    /// The question.
    pub number: u64,
    /// Gifts for this question follow, up to one whose `through` is this number.
    pub gives: bool,
    /// The ranges that need more talk.
    pub parts: Vec<ComparedPart>,
}

/// One range of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedPart {
    /// The range that was asked about.
    pub range: RangeId,
    /// What the answerer says of it.
    pub content: ComparedContent,
}

/// What an answerer says of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComparedContent {
    /// Which of its parts differ (a bit for each), and for those where the answerer has few entries, the digests of all of them.
    Parts {
        /// The lowest bit is the first part.
        differ: u16,
        /// (part, digests).
        few: Vec<(u8, Vec<u32>)>,
    },
    /// Of the asker's entries the answerer lacks these.
    Want(Vec<u32>),
}

/// Entries that the other one lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Give {
    /// 1, 2, 3 … on one connection.
    pub number: u64,
    /// Everything asked for up to this question has been given; 0 when the giver is the asker.
    pub through: u64,
    /// The entries.
    pub items: Vec<Item>,
}
