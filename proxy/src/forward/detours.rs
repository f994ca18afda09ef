//! Ways by peers to shards that this node does not reach, as a worker has heard of them from homes.

use crate::clock::Millis;
use foldhash::fast::RandomState;
use shardgate_peering_core::{PeerId, ShardName};
use std::collections::HashMap;

/// Shards that are remembered; of further ones each request asks anew.
const SHARDS_MAX: usize = 4_096;

/// How long a detour may stand before the health thread calls its shard down.
const YOUNG_MS: Millis = 2_000;

/// A worker's detours. Who reaches a shard is found out by its conferences' homes; a detour is gone by until the way is back, or the
/// peer fails.
#[derive(Debug, Default)]
pub(crate) struct Detours(HashMap<ShardName, Detour, RandomState>);

/// A way by peers.
#[derive(Debug)]
struct Detour {
    /// The nearest first; never none.
    peers: Vec<PeerId>,
    since: Millis,
}

impl Detours {
    /// The peer to go by, if there is a detour.
    pub(crate) fn by(&self, shard: &ShardName) -> Option<&PeerId> {
        if self.0.is_empty() { None } else { self.0.get(shard)?.peers.first() }
    }

    /// A home says that these peers reach the shard, the nearest first.
    pub(crate) fn found(&mut self, shard: &ShardName, peers: Vec<PeerId>, now: Millis) {
        if !peers.is_empty() && (self.0.len() < SHARDS_MAX || self.0.contains_key(shard)) {
            self.0.insert(shard.clone(), Detour { peers, since: now });
        }
    }

    /// A peer did not reach the shard after all.
    pub(crate) fn failed(&mut self, shard: &ShardName, peer: &PeerId) {
        if let Some(detour) = self.0.get_mut(shard) {
            detour.peers.retain(|other| other != peer);
            if detour.peers.is_empty() {
                self.0.remove(shard);
            }
        }
    }

    /// Keeps those of shards that are still not reached.
    pub(crate) fn retain(&mut self, cut: impl Fn(&ShardName) -> bool) {
        self.0.retain(|shard, _| cut(shard));
    }

    /// Keeps those of shards that are still not reached, and those so young that the health thread may not have said so yet.
    pub(crate) fn sweep(&mut self, now: Millis, cut: impl Fn(&ShardName) -> bool) {
        self.0.retain(|shard, detour| now.saturating_sub(detour.since) < YOUNG_MS || cut(shard));
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
        detours.found(&shard, vec![a.clone(), b.clone()], 0);
        detours.found(&other, vec![b.clone()], 0);
        assert_eq!(detours.by(&shard), Some(&a));
        detours.failed(&shard, &a);
        assert_eq!(detours.by(&shard), Some(&b));
        detours.failed(&shard, &b);
        assert_eq!(detours.by(&shard), None);
        detours.retain(|cut| *cut != other);
        assert_eq!(detours.by(&other), None);
        detours.found(&shard, Vec::new(), 0);
        assert_eq!(detours.by(&shard), None);
        detours.found(&shard, vec![a.clone()], 5_000);
        detours.sweep(6_999, |_| false);
        assert_eq!(detours.by(&shard), Some(&a));
        detours.sweep(7_000, |_| true);
        assert_eq!(detours.by(&shard), Some(&a));
        detours.sweep(7_000, |_| false);
        assert_eq!(detours.by(&shard), None);
    }
}
