//! The entry of the stick table and the join: what happens when two decisions about one key meet.

use core::cmp::Ordering;
use core::fmt;

use crate::id::{PeerId, ShardName};
use crate::time::{Now, Stamp};

/// The highest generation that is believed. A key moves at most once in 30 s, so this is a year of moves; a higher one is
/// damage or malice, and the entry is refused whole (a receiver that clamped it would hold another entry than its neighbours).
pub const GENERATION_MAX: u32 = 1 << 20;

/// How far beyond the receiver's wall clock a stamp may lie before its entry is refused whole: clocks are wrong by hours, not weeks.
pub const STAMP_AHEAD_MAX_MS: u64 = 7 * 24 * 3_600_000;

/// Where a decision was taken. A home's decision beats a lone one of the same generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// At the key's home, by compare-and-set.
    Home,
    /// By a node alone, because no home answered in time.
    Alone,
}

/// Why a decision was taken; told to operators, never part of the merge order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A first join.
    Claim,
    /// The shard it was on could not be reached.
    Down,
    /// An operator's command.
    Operator,
    /// The verdict on a split brain.
    Arbitration,
    /// The conference ended.
    End,
    /// It was ended early, because the table was full and nobody held it.
    Full,
}

/// A decision: this key is on that shard, or (a tombstone) nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The shard, `None` for a tombstone.
    pub shard: Option<ShardName>,
    /// Raised by every decision that replaces another one.
    pub generation: u32,
    /// Home or alone.
    pub rank: Rank,
    /// When this decision was taken, by the decider's stamp clock.
    pub created: Stamp,
    /// Who decided.
    pub origin: PeerId,
    /// Why; outside the merge order.
    pub reason: Reason,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shard = self.shard.as_ref().map_or("-", ShardName::as_str);
        let Self { generation, rank, created, origin, reason, .. } = self;
        write!(f, "{shard} g{generation} {rank:?} {created:?} by {origin} ({reason:?})")
    }
}

/// Why an entry from outside is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryError {
    /// Generation 0 or beyond [`GENERATION_MAX`].
    Generation(u32),
    /// A stamp further ahead of the receiver than [`STAMP_AHEAD_MAX_MS`].
    StampAhead(u64),
}

impl EntryError {
    /// Whether no difference of clocks explains it.
    #[must_use]
    pub const fn beyond_doubt(self) -> bool {
        match self {
            Self::Generation(_) => true,
            Self::StampAhead(ahead_ms) => ahead_ms > 2 * STAMP_AHEAD_MAX_MS,
        }
    }
}

impl Entry {
    /// Whether the key is nowhere.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.shard.is_none()
    }

    /// Checks an entry that came from outside.
    ///
    /// # Errors
    /// [`EntryError`]; such an entry must be refused whole.
    pub fn validate(&self, now: Now) -> Result<(), EntryError> {
        if self.generation == 0 || self.generation > GENERATION_MAX {
            return Err(EntryError::Generation(self.generation));
        }
        let ahead = self.created.wall_ms().saturating_sub(now.wall.0);
        if ahead > STAMP_AHEAD_MAX_MS {
            return Err(EntryError::StampAhead(ahead));
        }
        Ok(())
    }

    /// The merge order: `Less` wins. Higher generation, then home before alone, then earlier created, then lower origin, then
    /// lower shard (a tombstone lowest). The shard where the conference already lives wins; health is no part of it.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        other
            .generation
            .cmp(&self.generation)
            .then_with(|| self.rank.cmp(&other.rank))
            .then_with(|| self.created.cmp(&other.created))
            .then_with(|| self.origin.cmp(&other.origin))
            .then_with(|| self.shard.cmp(&other.shard))
    }
}

/// What became of an entry that met the one already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Equal in every merge field.
    Same,
    /// The new one wins.
    Replaced,
    /// The old one stays: its sender should learn of it.
    Kept,
}

/// Merges `incoming` into `current`: a join (commutative, associative, idempotent), the only merge in the project.
pub fn join(current: &mut Entry, incoming: &Entry) -> Join {
    match current.precedence(incoming) {
        Ordering::Equal => Join::Same,
        Ordering::Less => Join::Kept,
        Ordering::Greater => {
            *current = incoming.clone();
            Join::Replaced
        }
    }
}

#[cfg(test)]
mod tests;
