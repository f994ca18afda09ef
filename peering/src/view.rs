//! The read copy of the table that requests look into: written by the driver alone, read by every worker without waiting.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use shardgate_peering_core::{ShardName, StickKey};

use crate::shard_names::{ShardNames, ShardNumber};

/// Where a conference is, and when this node last told the driver of its use. There are a million of them.
#[derive(Debug)]
struct Seen {
    shard: ShardNumber,
    touched: AtomicU32,
}

/// A use was never told.
const NEVER: u32 = 0;

/// Stick key → shard, for live entries only. No guard leaves this file.
#[derive(Debug)]
pub(crate) struct View {
    entries: DashMap<StickKey, Seen, RandomState>,
    shards: ShardNames,
    total: AtomicUsize,
    /// Keys of sessions here of which it is not decided where they are, and where most of these sessions are: none at all but after a cut.
    disputed: DashMap<StickKey, ShardName, RandomState>,
    disputes: AtomicUsize,
    start: Instant,
    /// Uses closer together than this are told once.
    touch_every_ms: u32,
}

impl View {
    pub(crate) fn new(touch_every_ms: u64) -> Self {
        Self {
            entries: DashMap::with_hasher(RandomState::default()),
            shards: ShardNames::new(),
            total: AtomicUsize::new(0),
            disputed: DashMap::with_hasher(RandomState::default()),
            disputes: AtomicUsize::new(0),
            start: Instant::now(),
            touch_every_ms: u32::try_from(touch_every_ms).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn lookup(&self, token: &str) -> Option<ShardName> {
        // While the entry is locked its shard keeps its number.
        self.entries.get(token).and_then(|seen| self.shards.name(seen.shard))
    }

    /// Looks a key up and notes its use; the key comes along when the driver should hear of it.
    pub(crate) fn lookup_for_use(&self, token: &str) -> Option<(ShardName, Option<StickKey>)> {
        let now = self.now();
        let seen = self.entries.get(token)?;
        let shard = self.shards.name(seen.shard)?;
        let last = seen.touched.load(Ordering::Relaxed);
        if last != NEVER && now.wrapping_sub(last) < self.touch_every_ms {
            return Some((shard, None));
        }
        seen.touched.store(now, Ordering::Relaxed);
        Some((shard, Some(seen.key().clone())))
    }

    /// Milliseconds since the view's start, around after 49 days. An entry that was last used just then counts as used a moment ago, and the
    /// driver hears of its next use one `touch_every_ms` late.
    fn now(&self) -> u32 {
        (self.start.elapsed().as_millis() as u32).max(NEVER + 1)
    }

    pub(crate) fn conferences(&self, shard: &str) -> u64 {
        self.shards.conferences(shard)
    }

    /// Every shard that has conferences, and how many.
    pub(crate) fn conferences_of_all(&self) -> Vec<(ShardName, u64)> {
        self.shards.all()
    }

    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.entries.clear();
        self.shards.clear();
        self.total.store(0, Ordering::Relaxed);
        self.disputed.clear();
        self.disputes.store(0, Ordering::Relaxed);
    }

    /// Where most sessions of a key here are, while it is not decided where it is.
    pub(crate) fn disputed_on(&self, token: &str) -> Option<ShardName> {
        if self.disputes.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.disputed.get(token).map(|on| on.clone())
    }

    /// The driver says so.
    pub(crate) fn dispute(&self, key: StickKey, on: ShardName) {
        self.disputed.insert(key, on);
        self.disputes.store(self.disputed.len(), Ordering::Relaxed);
    }

    /// It is decided.
    pub(crate) fn settle(&self, key: &StickKey) {
        self.disputed.remove(key);
        self.disputes.store(self.disputed.len(), Ordering::Relaxed);
    }

    /// The driver's only way in, but for [`View::clear`].
    pub(crate) fn set(&self, key: StickKey, shard: Option<ShardName>) {
        let new = shard.map(|shard| self.shards.enter(&shard));
        let old = match new {
            Some(shard) => self.entries.insert(key, Seen { shard, touched: AtomicU32::new(NEVER) }),
            None => self.entries.remove(&key).map(|(_, seen)| seen),
        };
        if let Some(old) = &old {
            self.shards.leave(old.shard);
        }
        match (old, new) {
            (None, Some(_)) => drop(self.total.fetch_add(1, Ordering::Relaxed)),
            (Some(_), None) => drop(self.total.fetch_sub(1, Ordering::Relaxed)),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_counts_what_it_shows() {
        let view = View::new(60_000);
        let key = |text| StickKey::parse(text).unwrap();
        let shard = |text| ShardName::parse(text).unwrap();
        view.set(key("r1"), Some(shard("s1")));
        view.set(key("r2"), Some(shard("s1")));
        view.set(key("r1"), Some(shard("s2")));
        assert_eq!(view.lookup("r1"), Some(shard("s2")));
        assert_eq!((view.conferences("s1"), view.conferences("s2"), view.total()), (1, 1, 2));
        view.set(key("r1"), None);
        assert_eq!((view.lookup("r1"), view.conferences("s2"), view.total()), (None, 0, 1));
    }

    #[test]
    fn what_is_disputed() {
        let view = View::new(60_000);
        let key = |text| StickKey::parse(text).unwrap();
        let shard = |text| ShardName::parse(text).unwrap();
        let disputed = |view: &View| ["r1", "r2"].map(|token| view.disputed_on(token));
        assert_eq!(disputed(&view), [None, None]);
        view.dispute(key("r1"), shard("s1"));
        view.dispute(key("r2"), shard("s2"));
        view.settle(&key("r1"));
        assert_eq!(disputed(&view), [None, Some(shard("s2"))]);
        view.clear();
        assert_eq!(disputed(&view), [None, None]);
    }

    #[test]
    fn uses_close_together_are_told_once() {
        let view = View::new(60_000);
        view.set(StickKey::parse("r").unwrap(), Some(ShardName::parse("s").unwrap()));
        assert!(view.lookup_for_use("unknown").is_none());
        assert!(view.lookup_for_use("r").is_some_and(|(_, told)| told.is_some()));
        assert!(view.lookup_for_use("r").is_some_and(|(_, told)| told.is_none()));
    }
}
