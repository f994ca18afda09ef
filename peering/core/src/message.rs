//! What nodes say to each other, as plain Rust; the wire format is the shell's.

use alloc::vec::Vec;

use crate::entry::{Entry, Reason};
use crate::id::{PeerId, ShardName, StickKey};

/// A message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First on every connection, both ways.
    Hello(Hello),
    /// Once a period: I run, and this is whether I am ready.
    Heartbeat {
        /// Whether the sender is ready to be a home.
        ready: bool,
    },
    /// Decisions and renewals of the sender.
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
    /// What the sender used or holds, told to the home.
    LeaseReport(LeaseReport),
    /// A part of the whole table.
    ResyncChunk(ResyncChunk),
    /// Up to this chunk the table has arrived.
    ResyncAck {
        /// The chunk's number.
        number: u64,
    },
}

impl Message {
    /// The kind's name, for logs and counters.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Update(_) => "update",
            Self::Ack { .. } => "ack",
            Self::Correction { .. } => "correction",
            Self::Claim(_) => "claim",
            Self::ClaimAnswer(_) => "claim-answer",
            Self::LeaseReport(_) => "lease-report",
            Self::ResyncChunk(_) => "resync-chunk",
            Self::ResyncAck { .. } => "resync-ack",
        }
    }
}

/// Who speaks, and where the listener may continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The numbered contract of the sender: rendezvous hash, key normalisation, join order. The lower one of both is used.
    pub contract: u32,
    /// The sender's start.
    pub incarnation: u64,
    /// Whether the sender is ready to be a home.
    pub ready: bool,
    /// What the sender has already applied of the listener's updates.
    pub resume: Option<Resume>,
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

/// One key in an update, correction or resync chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The conference.
    pub key: StickKey,
    /// The decision; `None` for a mere renewal of its lease.
    pub entry: Option<Entry>,
    /// How long the entry still lives. A remaining time, never a moment: no clock of another node is trusted. Clamped by the receiver.
    pub remaining_ms: u64,
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
    /// Where the asker would put it.
    pub proposal: ShardName,
    /// Why.
    pub reason: Reason,
    /// With [`Reason::Down`]: the shard that failed.
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
    /// Too many claims are being passed on.
    Overload,
}

/// Keys that the sender used or holds, with the time they live on from its point of view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    /// (key, remaining milliseconds).
    pub leases: Vec<(StickKey, u64)>,
}

/// A part of the sender's whole table, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResyncChunk {
    /// 1, 2, 3 …
    pub number: u64,
    /// The entries.
    pub items: Vec<Item>,
    /// Whether this is the last one: from here on the listener is reconciled with the sender.
    pub last: bool,
    /// The sender's updates continue after this number: its cursor when the lesson began.
    pub continues_after: u64,
}
