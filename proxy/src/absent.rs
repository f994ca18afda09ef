//! Shards that entries name and discovery does not: taken away, or not told of here yet.

use crate::clock::Millis;
use crate::route::Missing;
use foldhash::fast::RandomState;
use shardgate_discovery::Snapshot;
use shardgate_peering_core::ShardName;
use std::collections::{HashMap, HashSet};

/// How long a shard that was never listed here is taken for one that will be. Longer than discovery lags anywhere; a node that
/// restarted leaves shards that are gone for good after this.
const LAG_MAX_MS: Millis = 60_000;
/// Names that are remembered. Beyond it a name counts as not listed yet.
const NAMES_MAX: usize = 4_096;

/// What a worker knows of absent shards.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    gone: HashSet<ShardName, RandomState>,
    /// When an entry first named it.
    unlisted: HashMap<ShardName, Millis, RandomState>,
}

impl Absent {
    /// Takes note of what left discovery, and of what came.
    pub(crate) fn changed(&mut self, older: &Snapshot, newer: &Snapshot) {
        for shard in older.shards().iter().filter(|shard| newer.shard(shard.name.as_str()).is_none()) {
            if self.gone.len() < NAMES_MAX {
                self.gone.insert(shard.name.clone());
            }
        }
        let listed = |name: &ShardName| newer.shard(name.as_str()).is_some();
        self.gone.retain(|name| !listed(name));
        self.unlisted.retain(|name, _| !listed(name));
    }

    /// Why a shard is not in the snapshot.
    pub(crate) fn why(&mut self, shard: &ShardName, now: Millis) -> Missing {
        if self.gone.contains(shard) {
            return Missing::Gone;
        }
        if self.unlisted.len() >= NAMES_MAX && !self.unlisted.contains_key(shard) {
            return Missing::NotYetListed;
        }
        let first = *self.unlisted.entry(shard.clone()).or_insert(now);
        if now.saturating_sub(first) < LAG_MAX_MS { Missing::NotYetListed } else { Missing::Gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_was_never_listed_is_believed_for_a_minute() {
        let mut absent = Absent::default();
        let shard = ShardName::parse("s9").unwrap();
        assert_eq!(absent.why(&shard, 1_000), Missing::NotYetListed);
        assert_eq!(absent.why(&shard, 60_999), Missing::NotYetListed);
        assert_eq!(absent.why(&shard, 61_000), Missing::Gone);
    }
}
