//! What may be wrong.

use serde::Serialize;

use super::rows::OnShard;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// Tables have a conference on different shards.
    TableSplitBrain,
    /// Tables do not have a conference that others have, or that is alive on its shard.
    MissingEntry,
    /// A conference lives on another shard than its entry names.
    EntryShardMismatch,
    /// A conference has people on two shards.
    ConferenceOnTwoShards,
    /// A shard has a room that nobody is in, or whose people are elsewhere.
    LeakedConference,
    /// An entry names a shard that no node knows, or one that does not have the conference.
    OrphanEntry,
    /// A HAProxy's key is as long as its table allows, and may have been cut.
    AmbiguousKey,
    /// A node is not connected with a peer, or does not know of it.
    PeerNotConnected,
    /// A node and a peer are connected, and hold different tables.
    PeerNotInAgreement,
    /// A node may know shards, releases and pins as they were.
    StaleDiscovery,
}

impl Kind {
    pub(super) const ALL: [Self; 10] = [
        Self::TableSplitBrain,
        Self::MissingEntry,
        Self::EntryShardMismatch,
        Self::ConferenceOnTwoShards,
        Self::LeakedConference,
        Self::OrphanEntry,
        Self::AmbiguousKey,
        Self::PeerNotConnected,
        Self::PeerNotInAgreement,
        Self::StaleDiscovery,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TableSplitBrain => "table-split-brain",
            Self::MissingEntry => "missing-entry",
            Self::EntryShardMismatch => "entry-shard-mismatch",
            Self::ConferenceOnTwoShards => "conference-on-two-shards",
            Self::LeakedConference => "leaked-conference",
            Self::OrphanEntry => "orphan-entry",
            Self::AmbiguousKey => "ambiguous-key",
            Self::PeerNotConnected => "peer-not-connected",
            Self::PeerNotInAgreement => "peer-not-in-agreement",
            Self::StaleDiscovery => "stale-discovery",
        }
    }
}

/// What one table has of a conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct InTable {
    /// Whose.
    pub(super) table: String,
    /// `None`: it has no live entry.
    pub(super) shard: Option<String>,
    pub(super) generation: Option<u32>,
}

/// What a shard counts of a conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct OnCensus {
    pub(super) shard: String,
    pub(super) participants: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    /// The conference, or the node.
    pub(super) subject: String,
    /// What is wrong, for people.
    pub(super) what: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tables: Vec<InTable>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) census: Vec<OnCensus>,
    /// Of all nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<OnShard>,
}

impl Finding {
    /// One about a node.
    pub(super) const fn of_node(kind: Kind, subject: String, what: String) -> Self {
        Self { kind, subject, what, tables: Vec::new(), census: Vec::new(), sessions: Vec::new() }
    }

    /// Whether a later look found the same. Tables change while they are read, from the first key to the last and from node to node: only what
    /// two looks find, and what has not been decided anew between them, is wrong.
    pub(super) fn is_still(&self, before: &Self) -> bool {
        (self.kind, &self.subject, &self.tables) == (before.kind, &before.subject, &before.tables)
    }
}
