//! Shards that did not take a connection a moment ago, as this worker saw it. New requests avoid them for a while; it is no
//! verdict about their conferences.

use crate::clock::Millis;
use foldhash::fast::RandomState;
use shardgate_peering_core::ShardName;
use std::collections::HashMap;

const FIRST_MS: Millis = 1_000;
/// Below the 5 s in which clients look whether they are where they should be.
const LONGEST_MS: Millis = 4_000;

struct Suspicion {
    until: Millis,
    failures: u32,
}

/// The suspects of a worker; at most as many as discovery lists shards.
#[derive(Default)]
pub(crate) struct Suspects(HashMap<ShardName, Suspicion, RandomState>);

impl Suspects {
    /// Whether `shard` failed a moment ago.
    pub(crate) fn contains(&self, shard: &ShardName, now: Millis) -> bool {
        !self.0.is_empty() && self.0.get(shard).is_some_and(|suspicion| now < suspicion.until)
    }

    /// Suspects a shard for 1 s, and twice as long with each further failure, up to 4 s.
    pub(crate) fn failed(&mut self, shard: &ShardName, now: Millis) {
        let suspicion = self.0.entry(shard.clone()).or_insert(Suspicion { until: 0, failures: 0 });
        // Requests that fail together are one failure.
        if now >= suspicion.until {
            let pause = FIRST_MS << suspicion.failures.min(10);
            suspicion.until = now + pause.min(LONGEST_MS);
            suspicion.failures += 1;
        }
    }

    /// It took a connection.
    pub(crate) fn recovered(&mut self, shard: &ShardName) {
        if !self.0.is_empty() {
            self.0.remove(shard);
        }
    }

    /// Those that are none any more.
    pub(crate) fn retain(&mut self, is_one: impl Fn(&ShardName) -> bool) {
        self.0.retain(|shard, _| is_one(shard));
    }

    /// Forgets those whose time has been over for long.
    pub(crate) fn sweep(&mut self, now: Millis) {
        self.0.retain(|_, suspicion| now < suspicion.until + LONGEST_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_grows_and_ends() {
        let shard = ShardName::parse("s1").unwrap();
        let mut suspects = Suspects::default();
        assert!(!suspects.contains(&shard, 0));
        suspects.failed(&shard, 0);
        suspects.failed(&shard, 10);
        assert!(suspects.contains(&shard, 999) && !suspects.contains(&shard, 1000));
        suspects.failed(&shard, 1500);
        assert!(suspects.contains(&shard, 3499) && !suspects.contains(&shard, 3500));
        for _ in 0..20 {
            suspects.failed(&shard, 10_000);
        }
        suspects.sweep(10_500);
        assert!(suspects.contains(&shard, 10_500));
        suspects.recovered(&shard);
        assert!(!suspects.contains(&shard, 10_500));
    }
}
