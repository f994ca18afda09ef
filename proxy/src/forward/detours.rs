//! Ways by peers to shards that this node does not reach, as a worker has heard of them from homes.

use foldhash::fast::RandomState;
use shardgate_peering_core::{PeerId, ShardName};
use std::collections::HashMap;

/// Shards that are remembered; of further ones each request asks anew.
const SHARDS_MAX: usize = 4_096;

/// A worker's detours. Who reaches a shard is found out by its conferences' homes; a detour is gone by until the way is back, or the
/// peer fails.
#[derive(Debug, Default)]
pub(crate) struct Detours(HashMap<ShardName, Vec<PeerId>, RandomState>);

impl Detours {
    /// The peer to go by, if there is a detour.
    pub(crate) fn by(&self, shard: &ShardName) -> Option<&PeerId> {
        if self.0.is_empty() { None } else { self.0.get(shard)?.first() }
    }

    /// A home says that these peers reach the shard, the nearest first.
    pub(crate) fn found(&mut self, shard: &ShardName, peers: Vec<PeerId>) {
        if !peers.is_empty() && (self.0.len() < SHARDS_MAX || self.0.contains_key(shard)) {
            self.0.insert(shard.clone(), peers);
        }
    }

    /// A peer did not reach the shard after all.
    pub(crate) fn failed(&mut self, shard: &ShardName, peer: &PeerId) {
        if let Some(peers) = self.0.get_mut(shard) {
            peers.retain(|other| other != peer);
            if peers.is_empty() {
                self.0.remove(shard);
            }
        }
    }

    /// Keeps those of shards that are still not reached.
    pub(crate) fn retain(&mut self, cut: impl Fn(&ShardName) -> bool) {
        self.0.retain(|shard, _| cut(shard));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detour_lasts_until_its_last_peer_fails_or_the_way_is_back() {
        let (shard, other) = (ShardName::parse("s1").unwrap(), ShardName::parse("s2").unwrap());
        let [a, b] = ["a", "b"].map(|peer| PeerId::parse(peer).unwrap());
        let mut detours = Detours::default();
        assert_eq!(detours.by(&shard), None);
        detours.found(&shard, vec![a.clone(), b.clone()]);
        detours.found(&other, vec![b.clone()]);
        assert_eq!(detours.by(&shard), Some(&a));
        detours.failed(&shard, &a);
        assert_eq!(detours.by(&shard), Some(&b));
        detours.failed(&shard, &b);
        assert_eq!(detours.by(&shard), None);
        detours.retain(|cut| *cut != other);
        assert_eq!(detours.by(&other), None);
        detours.found(&shard, Vec::new());
        assert_eq!(detours.by(&shard), None);
    }
}
