//! The read copy of the table that requests look into: written by the driver alone, read by every worker without waiting.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use shardgate_peering_core::{ShardName, StickKey};

/// Where a conference is, and when this node last told the driver of its use.
#[derive(Debug)]
struct Seen {
    shard: ShardName,
    /// Milliseconds since the view's start, plus one; 0 for never.
    touched: AtomicU64,
}

/// Stick key → shard, for live entries only. No guard leaves this file.
#[derive(Debug)]
pub(crate) struct View {
    entries: DashMap<StickKey, Seen, RandomState>,
    conferences: DashMap<ShardName, u64, RandomState>,
    total: AtomicUsize,
    start: Instant,
    /// Uses closer together than this are told once.
    touch_every_ms: u64,
}

impl View {
    pub(crate) fn new(touch_every_ms: u64) -> Self {
        Self {
            entries: DashMap::with_hasher(RandomState::default()),
            conferences: DashMap::with_hasher(RandomState::default()),
            total: AtomicUsize::new(0),
            start: Instant::now(),
            touch_every_ms,
        }
    }

    pub(crate) fn lookup(&self, token: &str) -> Option<ShardName> {
        self.entries.get(token).map(|seen| seen.shard.clone())
    }

    /// Looks a key up and notes its use; the key comes along when the driver should hear of it.
    pub(crate) fn lookup_for_use(&self, token: &str) -> Option<(ShardName, Option<StickKey>)> {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let seen = self.entries.get(token)?;
        let last = seen.touched.load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < self.touch_every_ms {
            return Some((seen.shard.clone(), None));
        }
        seen.touched.store(now, Ordering::Relaxed);
        Some((seen.shard.clone(), Some(seen.key().clone())))
    }

    pub(crate) fn conferences(&self, shard: &str) -> u64 {
        self.conferences.get(shard).map_or(0, |number| *number)
    }

    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.entries.clear();
        self.conferences.clear();
        self.total.store(0, Ordering::Relaxed);
    }

    /// The driver's only way in, but for [`View::clear`].
    pub(crate) fn set(&self, key: StickKey, shard: Option<ShardName>) {
        let old = match shard.clone() {
            Some(shard) => {
                self.entries.insert(key, Seen { shard, touched: AtomicU64::new(0) }).map(|seen| seen.shard)
            }
            None => self.entries.remove(&key).map(|(_, seen)| seen.shard),
        };
        if let Some(old) = old {
            self.total.fetch_sub(1, Ordering::Relaxed);
            if let Some(mut number) = self.conferences.get_mut(&old) {
                *number = number.saturating_sub(1);
            }
            self.conferences.remove_if(&old, |_, number| *number == 0);
        }
        if let Some(new) = shard {
            self.total.fetch_add(1, Ordering::Relaxed);
            *self.conferences.entry(new).or_default() += 1;
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
    fn uses_close_together_are_told_once() {
        let view = View::new(60_000);
        view.set(StickKey::parse("r").unwrap(), Some(ShardName::parse("s").unwrap()));
        assert!(view.lookup_for_use("unknown").is_none());
        assert!(view.lookup_for_use("r").is_some_and(|(_, told)| told.is_some()));
        assert!(view.lookup_for_use("r").is_some_and(|(_, told)| told.is_none()));
    }
}
