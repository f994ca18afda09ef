//! People of one conference are on one shard: at any moment where nothing went wrong, in the end everywhere.

use std::collections::BTreeMap;

use crate::sim::model::{Room, Shard};

/// How many people of a room are on which shard.
#[derive(Debug, Default)]
pub(in crate::sim) struct Splits(BTreeMap<Room, BTreeMap<Shard, u32>>);

impl Splits {
    /// Somebody of a room connects to a shard; says whether others of it are elsewhere.
    pub(in crate::sim) fn connects(&mut self, room: Room, shard: Shard) -> Option<Shard> {
        let shards = self.0.entry(room).or_default();
        *shards.entry(shard).or_default() += 1;
        shards.keys().copied().find(|other| *other != shard)
    }

    /// Somebody leaves.
    pub(in crate::sim) fn leaves(&mut self, room: Room, shard: Shard) {
        if let Some(shards) = self.0.get_mut(&room) {
            if let Some(left) = shards.get_mut(&shard) {
                *left = left.saturating_sub(1);
            }
            shards.retain(|_, left| *left > 0);
            if shards.is_empty() {
                self.0.remove(&room);
            }
        }
    }
}
