//! Ways by peers to shards that this node does not reach, as a worker has heard of them from homes.

use crate::clock::Millis;
use foldhash::fast::RandomState;
use shardgate_peering_core::{PeerId, ShardName};
use std::collections::HashMap;

/// Shards that are remembered; of further ones each request asks anew.
const SHARDS_MAX: usize = 4_096;

/// How long a peer that did not relay is not asked to. A home's answer is as old as a second.
const FAILED_MS: Millis = 3_000;
/// How long a detour is gone by before a home is asked again: a shard may have died behind it, of which this node sees nothing.
const LASTS_MS: Millis = 10_000;
/// How long it serves those who may ask no home, while its shard is still not reached.
const SERVES_MS: Millis = 60_000;
/// How long a detour may stand before the health thread calls its shard down.
const YOUNG_MS: Millis = 2_000;

/// A worker's detours. Who reaches a shard is found out by its conferences' homes; a detour is gone by until the way is back, or the
/// peer fails.
#[derive(Debug, Default)]
pub(crate) struct Detours(HashMap<ShardName, Detour, RandomState>);

/// A way by peers.
#[derive(Debug)]
struct Detour {
    /// The nearest first; none when all of them failed.
    peers: Vec<PeerId>,
    /// Those that failed, and when: a home that asks them hears that they reach the shard, but they do not relay.
    failed: Vec<(PeerId, Millis)>,
    since: Millis,
}

impl Detours {
    /// The peer to go by for who may ask no home: how old the detour is does not count.
    pub(crate) fn known(&self, shard: &ShardName) -> Option<&PeerId> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(shard)?.peers.first()
    }

    /// The peer to go by, if there is a detour that is not too old.
    pub(crate) fn by(&self, shard: &ShardName, now: Millis) -> Option<&PeerId> {
        if self.0.is_empty() {
            return None;
        }
        let detour = self.0.get(shard).filter(|detour| now.saturating_sub(detour.since) < LASTS_MS)?;
        detour.peers.first()
    }

    /// A request that went by a peer got no answer: whether the shard is still there its home finds out.
    pub(crate) fn doubt(&mut self, shard: &ShardName) {
        self.0.remove(shard);
    }

    /// Whether anything is known of ways to the shard.
    pub(crate) fn knows(&self, shard: &ShardName) -> bool {
        self.0.contains_key(shard)
    }

    /// A home says that these peers reach the shard, the nearest first. Those that failed a moment ago are left out.
    pub(crate) fn found(&mut self, shard: &ShardName, mut peers: Vec<PeerId>, now: Millis) {
        if self.0.len() >= SHARDS_MAX && !self.0.contains_key(shard) {
            return;
        }
        let mut failed = self.0.remove(shard).map(|before| before.failed).unwrap_or_default();
        failed.retain(|(_, at)| now.saturating_sub(*at) < FAILED_MS);
        peers.retain(|peer| failed.iter().all(|(other, _)| other != peer));
        if !peers.is_empty() || !failed.is_empty() {
            self.0.insert(shard.clone(), Detour { peers, failed, since: now });
        }
    }

    /// A peer did not reach the shard after all, or does not relay.
    pub(crate) fn failed(&mut self, shard: &ShardName, peer: &PeerId, now: Millis) {
        if let Some(detour) = self.0.get_mut(shard) {
            detour.peers.retain(|other| other != peer);
            detour.failed.retain(|(other, _)| other != peer);
            detour.failed.push((peer.clone(), now));
        }
    }

    /// Keeps those of shards that are still not reached.
    pub(crate) fn retain(&mut self, cut: impl Fn(&ShardName) -> bool) {
        self.0.retain(|shard, _| cut(shard));
    }

    /// Keeps those of shards that are still not reached for a while, and those so young that the health thread may not have said so yet.
    pub(crate) fn sweep(&mut self, now: Millis, cut: impl Fn(&ShardName) -> bool) {
        self.0.retain(|shard, detour| {
            let age = now.saturating_sub(detour.since);
            age < YOUNG_MS || (age < SERVES_MS && cut(shard))
        });
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
        assert_eq!(detours.by(&shard, 0), None);
        detours.found(&shard, vec![a.clone(), b.clone()], 0);
        detours.found(&other, vec![b.clone()], 0);
        assert_eq!(detours.by(&shard, 9_999), Some(&a));
        assert_eq!(detours.by(&shard, 10_000), None, "its home is asked again");
        detours.failed(&shard, &a, 0);
        assert_eq!(detours.by(&shard, 0), Some(&b));
        // The home says the same again: it does not know who relays.
        detours.found(&shard, vec![a.clone(), b.clone()], 1_000);
        assert_eq!(detours.by(&shard, 1_000), Some(&b));
        detours.failed(&shard, &b, 1_000);
        assert!(detours.by(&shard, 1_000).is_none() && detours.knows(&shard));
        detours.found(&shard, vec![a.clone(), b.clone()], 3_000);
        assert_eq!(detours.by(&shard, 3_000), Some(&a), "it is asked again after a while");
        detours.retain(|cut| *cut != other);
        assert_eq!(detours.by(&other, 0), None);
        detours.doubt(&shard);
        detours.found(&shard, Vec::new(), 3_000);
        assert!(!detours.knows(&shard));
    }

    #[test]
    fn what_nobody_calls_cut_is_let_go_of() {
        let shard = ShardName::parse("s1").unwrap();
        let mut detours = Detours::default();
        detours.found(&shard, vec![PeerId::parse("a").unwrap()], 5_000);
        for (now, cut, stays) in [(6_999, false, true), (7_000, true, true), (7_000, false, false)] {
            detours.sweep(now, |_| cut);
            assert_eq!(detours.knows(&shard), stays, "{now} {cut}");
        }
        detours.found(&shard, vec![PeerId::parse("a").unwrap()], 5_000);
        detours.sweep(64_999, |_| true);
        assert!(detours.by(&shard, 64_999).is_none() && detours.known(&shard).is_some(), "old");
        detours.sweep(65_000, |_| true);
        assert!(!detours.knows(&shard), "too old for anybody");
    }
}
