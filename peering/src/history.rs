//! Decisions that newer ones replaced, for operators: the last ones.

use std::collections::VecDeque;
use std::time::SystemTime;

use shardgate_peering_core::{Entry, StickKey};

/// So many are kept, of all keys together: 4 MB with usual keys, 20 MB with the longest. A key moves at most once in 30 s, and few do at all.
const KEPT_MAX: usize = 16_384;

/// A live entry that gave way to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The conference.
    pub key: StickKey,
    /// When this node saw it, by its wall clock.
    pub at: SystemTime,
    /// What stood there.
    pub before: Entry,
    /// What stood there from then on.
    pub after: Entry,
}

/// The last ones, the newest last.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Replacement>);

impl History {
    pub(crate) fn add(&mut self, replacement: Replacement) {
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(replacement);
    }

    /// Those of a key. Rarely asked: the list has no index.
    pub(crate) fn of(&self, key: &StickKey) -> Vec<Replacement> {
        self.0.iter().filter(|replacement| replacement.key == *key).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_peering_core::{PeerId, Rank, Reason, ShardName, Stamp};

    #[test]
    fn the_last_ones_are_kept() {
        let key = |n: usize| StickKey::parse(&format!("room-{}", n % 2)).unwrap();
        let entry = |generation| Entry {
            shard: Some(ShardName::parse("s1").unwrap()),
            generation,
            rank: Rank::Home,
            created: Stamp(0),
            origin: PeerId::parse("a").unwrap(),
            reason: Reason::Operator,
        };
        let mut history = History::default();
        for n in 0..KEPT_MAX + 3 {
            let (before, after) = (entry(n as u32), entry(n as u32 + 1));
            history.add(Replacement { key: key(n), at: SystemTime::UNIX_EPOCH, before, after });
        }
        let generations =
            |n| history.of(&key(n)).iter().map(|kept| kept.before.generation).collect::<Vec<_>>();
        let (even, odd) = (generations(0), generations(1));
        assert_eq!(even.len() + odd.len(), KEPT_MAX);
        assert_eq!((even[0], odd[0]), (4, 3), "the first ones are gone");
        assert_eq!(even.last(), Some(&(KEPT_MAX as u32 + 2)), "the newest last");
        assert!(history.of(&StickKey::parse("another").unwrap()).is_empty());
    }
}
