//! What a correct mesh may do, written apart from the code under test: decisions, the order in which they win, and who made which.

use std::cmp::Ordering;
use std::collections::HashMap;

use shardgate_peering_core::{Entry, PeerId, Rank, ShardName, StickKey};

use crate::world::Seat;

/// The number of a room; its key is `r` and the number.
pub type Room = u32;

/// A shard's number, [`NOWHERE`] for a tombstone; its name is `s` and the number, below 10, so that numbers sort like names.
pub type Shard = u16;

/// The shard of a tombstone.
pub const NOWHERE: Shard = u16::MAX;

/// A decision as the model sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Raised by every decision that replaces another.
    pub generation: u32,
    /// Taken by a node alone.
    pub alone: bool,
    /// When, by the decider's stamp.
    pub created: u64,
    /// Who.
    pub origin: u16,
    /// Where the conference is.
    pub shard: Shard,
}

impl Decision {
    /// Whether it says nowhere.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.shard == NOWHERE
    }

    /// Whether this one or the other one stands when both are known; `Less` when it is this one. DESIGN.md, "Merge": higher generation,
    /// then home before alone, then earlier, then lower origin, then lower shard.
    #[must_use]
    pub fn against(&self, other: &Self) -> Ordering {
        if self.generation != other.generation {
            return if self.generation > other.generation { Ordering::Less } else { Ordering::Greater };
        }
        if self.alone != other.alone {
            return if other.alone { Ordering::Less } else { Ordering::Greater };
        }
        // A tombstone's shard is the empty name: lower than any.
        let place = |decision: &Self| if decision.is_tombstone() { 0 } else { decision.shard + 1 };
        (self.created, self.origin, place(self)).cmp(&(other.created, other.origin, place(other)))
    }
}

/// The number in a name like `r17`, `s3`, `n04`.
fn number(name: &str) -> u32 {
    name.bytes().skip(1).fold(0, |number, digit| number * 10 + u32::from(digit.wrapping_sub(b'0')))
}

/// The room of a key.
#[must_use]
pub fn room_of(key: &StickKey) -> Room {
    number(key.as_str())
}

/// The number of a shard.
#[must_use]
pub fn shard_of(name: &ShardName) -> Shard {
    u16::try_from(number(name.as_str())).unwrap_or(NOWHERE)
}

/// The place of a node by its name.
#[must_use]
pub fn seat_of(peer: &PeerId) -> Seat {
    number(peer.as_str()) as Seat
}

/// The entry as a decision.
#[must_use]
pub fn decision_of(entry: &Entry) -> Decision {
    Decision {
        generation: entry.generation,
        alone: entry.rank == Rank::Alone,
        created: entry.created.0,
        origin: u16::try_from(number(entry.origin.as_str())).unwrap_or(u16::MAX),
        shard: entry.shard.as_ref().map_or(NOWHERE, shard_of),
    }
}

/// What is known of a decision that was seen.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Where it put the room.
    pub shard: Shard,
    /// When it was first seen.
    pub at: u64,
    /// It was made no earlier: what no output tells of is seen when its room is looked at next.
    pub earliest: u64,
    /// It was seen in a message of its origin, not yet in its origin's table.
    pub only_told: bool,
}

type Identity = (Room, u32, bool, u64, u16);

/// Every decision that was ever seen. Never iterated.
#[derive(Debug, Default)]
pub struct Ledger {
    known: HashMap<Identity, Known>,
    told: Vec<Identity>,
}

impl Ledger {
    const fn identity(room: Room, decision: &Decision) -> Identity {
        (room, decision.generation, decision.alone, decision.created, decision.origin)
    }

    /// What is known of it.
    #[must_use]
    pub fn get(&self, room: Room, decision: &Decision) -> Option<Known> {
        self.known.get(&Self::identity(room, decision)).copied()
    }

    /// Enters one that stands in its origin's table since `earliest` at the most.
    pub fn enter(&mut self, room: Room, decision: &Decision, at: u64, earliest: u64) {
        let known = Known { shard: decision.shard, at, earliest, only_told: false };
        self.known.insert(Self::identity(room, decision), known);
    }

    /// Its origin tells of it; it may be replaced there in the same moment and never be seen in its table. Answers whether it is new.
    pub fn announce(&mut self, room: Room, decision: &Decision, at: u64, earliest: u64) -> bool {
        let identity = Self::identity(room, decision);
        if self.known.contains_key(&identity) {
            return false;
        }
        self.told.push(identity);
        self.known.insert(identity, Known { shard: decision.shard, at, earliest, only_told: true });
        true
    }

    /// The moment is over.
    pub fn settle(&mut self) {
        for identity in self.told.drain(..) {
            if let Some(known) = self.known.get_mut(&identity) {
                known.only_told = false;
            }
        }
    }
}

/// A key and its shards by number, made once.
#[derive(Debug, Default)]
pub struct Names {
    keys: Vec<StickKey>,
    shards: Vec<ShardName>,
}

impl Names {
    /// The key of a room.
    ///
    /// # Panics
    /// Never: such names are valid.
    pub fn key(&mut self, room: Room) -> StickKey {
        while self.keys.len() <= room as usize {
            let name = format!("r{}", self.keys.len());
            self.keys.push(StickKey::parse(&name).expect("a valid key"));
        }
        self.keys[room as usize].clone()
    }

    /// The name of a shard.
    ///
    /// # Panics
    /// Never: such names are valid.
    pub fn shard(&mut self, shard: Shard) -> ShardName {
        while self.shards.len() <= usize::from(shard) {
            let name = format!("s{}", self.shards.len());
            self.shards.push(ShardName::parse(&name).expect("a valid name"));
        }
        self.shards[usize::from(shard)].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_decisions() {
        let base = Decision { generation: 2, alone: false, created: 10, origin: 1, shard: 3 };
        let worse = [
            Decision { generation: 1, created: 1, ..base },
            Decision { alone: true, created: 1, ..base },
            Decision { created: 11, origin: 0, ..base },
            Decision { origin: 2, shard: 0, ..base },
            Decision { shard: 4, ..base },
        ];
        for other in worse {
            assert_eq!(base.against(&other), Ordering::Less, "{other:?}");
            assert_eq!(other.against(&base), Ordering::Greater, "{other:?}");
        }
        let tombstone = Decision { shard: NOWHERE, ..base };
        assert_eq!(tombstone.against(&base), Ordering::Less);
        assert_eq!(base.against(&base), Ordering::Equal);
    }

    #[test]
    fn names_and_numbers() {
        let mut names = Names::default();
        assert_eq!(room_of(&names.key(123)), 123);
        assert_eq!(shard_of(&names.shard(7)), 7);
        assert_eq!(seat_of(&PeerId::parse("n07").unwrap()), 7);
    }
}
