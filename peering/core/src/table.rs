//! The ordered map of entries with what this node knows of their leases, counts per shard, and the timers that look at them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use crate::entry::{Entry, Join, join};
use crate::id::{ShardName, StickKey};
use crate::time::Instant;

/// One key's place in the table.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) entry: Entry,
    /// The end of the lease, as far as this node knows.
    pub(crate) lease: Instant,
    /// The end of the lease as this node last told it to all, as the key's home.
    pub(crate) announced: Instant,
    /// The log number of this node's newest decision about the key, 0 when another node decided.
    pub(crate) logged: u64,
}

/// What a merge did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Merged {
    /// The key was unknown.
    Inserted,
    /// The decision was known already.
    Same,
    /// Another decision stood there and lost; the shard it named.
    Replaced { old: Option<ShardName> },
    /// Another decision stands there and wins.
    Kept,
}

/// The stick table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: BTreeMap<StickKey, Slot>,
    live: usize,
    per_shard: BTreeMap<ShardName, u64>,
    timers: Timers,
}

impl Table {
    pub(crate) fn get(&self, key: &StickKey) -> Option<&Slot> {
        self.slots.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &StickKey) -> Option<&mut Slot> {
        self.slots.get_mut(key)
    }

    /// The shard of a live entry.
    pub(crate) fn shard(&self, key: &StickKey) -> Option<&ShardName> {
        self.slots.get(key)?.entry.shard.as_ref()
    }

    /// Live entries; tombstones are not counted.
    pub(crate) const fn live(&self) -> usize {
        self.live
    }

    /// Live entries and tombstones.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Live entries per shard, in the order of their names.
    pub(crate) const fn per_shard(&self) -> &BTreeMap<ShardName, u64> {
        &self.per_shard
    }

    /// Merges a decision whose lease ends at `lease`; a key that is new here is looked at at `first_look`. The lease itself joins by maximum when the decision is the same, and is
    /// replaced with the decision otherwise.
    pub(crate) fn merge(
        &mut self,
        key: &StickKey,
        entry: &Entry,
        lease: Instant,
        first_look: Instant,
        grain_ms: u64,
    ) -> Merged {
        let Some(slot) = self.slots.get_mut(key) else {
            let slot = Slot { entry: entry.clone(), lease, announced: lease, logged: 0 };
            count(&mut self.live, &mut self.per_shard, None, entry.shard.as_ref());
            self.slots.insert(key.clone(), slot);
            self.timers.push(first_look, grain_ms, key.clone());
            return Merged::Inserted;
        };
        let old = slot.entry.shard.clone();
        match join(&mut slot.entry, entry) {
            Join::Same => {
                slot.lease = slot.lease.max(lease);
                Merged::Same
            }
            Join::Kept => Merged::Kept,
            Join::Replaced => {
                slot.lease = lease;
                slot.announced = lease;
                slot.logged = 0;
                count(&mut self.live, &mut self.per_shard, old.as_ref(), entry.shard.as_ref());
                Merged::Replaced { old }
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &StickKey) -> Option<Slot> {
        let slot = self.slots.remove(key)?;
        count(&mut self.live, &mut self.per_shard, slot.entry.shard.as_ref(), None);
        Some(slot)
    }

    /// Up to `most` keys after `after` in key order, and whether more follow.
    pub(crate) fn page(&self, after: Option<&StickKey>, most: usize) -> (Vec<(StickKey, &Slot)>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.slots.range::<StickKey, _>((from, Bound::Unbounded));
        let page: Vec<_> = rest.by_ref().take(most).map(|(key, slot)| (key.clone(), slot)).collect();
        (page, rest.next().is_some())
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Keys whose timer has run out; each must be looked at and either removed or given a timer again.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<StickKey> {
        self.timers.due(now)
    }

    pub(crate) fn set_timer(&mut self, at: Instant, grain_ms: u64, key: StickKey) {
        self.timers.push(at, grain_ms, key);
    }
}

fn count(
    live: &mut usize,
    per_shard: &mut BTreeMap<ShardName, u64>,
    old: Option<&ShardName>,
    new: Option<&ShardName>,
) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        *live -= 1;
        if let Some(number) = per_shard.get_mut(old) {
            *number -= 1;
            if *number == 0 {
                per_shard.remove(old);
            }
        }
    }
    if let Some(new) = new {
        *live += 1;
        *per_shard.entry(new.clone()).or_default() += 1;
    }
}

/// Keys by the time at which to look at them again, in coarse steps; a key stands in one step only.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    steps: BTreeMap<Instant, Vec<StickKey>>,
}

impl Timers {
    pub(crate) fn push(&mut self, at: Instant, grain_ms: u64, key: StickKey) {
        let step = Instant(at.0.div_ceil(grain_ms).saturating_mul(grain_ms));
        self.steps.entry(step).or_default().push(key);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.steps.first_key_value().map(|(at, _)| *at)
    }

    pub(crate) fn due(&mut self, now: Instant) -> Vec<StickKey> {
        let mut due = Vec::new();
        while let Some(first) = self.steps.first_entry() {
            if *first.key() > now {
                break;
            }
            due.append(&mut first.remove());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Rank, Reason};
    use crate::id::PeerId;
    use crate::time::Stamp;

    fn entry(shard: Option<&str>, generation: u32) -> Entry {
        Entry {
            shard: shard.map(|name| ShardName::parse(name).unwrap()),
            generation,
            rank: Rank::Home,
            created: Stamp(1),
            origin: PeerId::parse("a").unwrap(),
            reason: Reason::Claim,
        }
    }

    #[test]
    fn conferences_are_counted_per_shard_through_every_change() {
        let mut table = Table::default();
        let key = StickKey::parse("room").unwrap();
        let s1 = ShardName::parse("s1").unwrap();
        assert_eq!(
            table.merge(&key, &entry(Some("s1"), 1), Instant(100), Instant(100), 10),
            Merged::Inserted
        );
        assert_eq!((table.live(), table.per_shard().get(&s1)), (1, Some(&1)));
        let moved = table.merge(&key, &entry(Some("s2"), 2), Instant(100), Instant(100), 10);
        assert_eq!(moved, Merged::Replaced { old: Some(s1.clone()) });
        assert_eq!(table.merge(&key, &entry(Some("s1"), 1), Instant(100), Instant(100), 10), Merged::Kept);
        assert_eq!((table.live(), table.per_shard().get(&s1)), (1, None));
        table.merge(&key, &entry(None, 3), Instant(100), Instant(100), 10);
        assert_eq!((table.live(), table.len(), table.per_shard().len()), (0, 1, 0));
        table.remove(&key);
        assert_eq!((table.live(), table.len()), (0, 0));
    }

    #[test]
    fn timers_come_in_order_and_once() {
        let mut timers = Timers::default();
        let key = |name| StickKey::parse(name).unwrap();
        timers.push(Instant(25), 10, key("b"));
        timers.push(Instant(5), 10, key("a"));
        assert_eq!(timers.next(), Some(Instant(10)));
        assert!(timers.due(Instant(9)).is_empty());
        assert_eq!(timers.due(Instant(30)), [key("a"), key("b")]);
        assert_eq!(timers.next(), None);
    }
}
