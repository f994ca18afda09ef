//! The full table: whose entry ends early to make room for a new conference.

use alloc::vec::Vec;

use crate::config::{Config, SLOW_PATH_MS};
use crate::entry::Reason;
use crate::id::StickKey;
use crate::node::Node;
use crate::table::Slot;
use crate::time::{Coarse, Instant, Now};
use crate::timers::Mark;

/// How many entries are looked at at a time to find some that may end early. When none of them may, a new key is refused, and the next one
/// looks further.
const LOOKED_AT_MAX: usize = 512;
/// How many entries end early for a new one.
const ENDED_FOR_ONE_MAX: usize = 8;
/// How many entries a node ends in a heartbeat because there are too many.
const SHRINK_MAX: usize = 4_096;

/// Where to find entries that may end early. Begun anew with every heartbeat.
#[derive(Debug, Default)]
pub(crate) struct EarlyEnds {
    /// Up to there the timers were walked.
    next: Mark,
    /// With their leases, the one nearest its end last.
    found: Vec<(Instant, StickKey)>,
}

impl Config {
    /// How many tombstones the table takes. At the bound ends are drops, and entries do not end early.
    pub(crate) const fn tombstones_max(&self) -> usize {
        self.entries_max
    }

    /// For so long after a use an entry does not end early: whoever used it is about to open a tunnel, or has one open and learns of the
    /// entry only now, and tells its home.
    const fn fresh_ms(&self) -> u64 {
        let (there_and_back_ms, part_of_ttl_ms) = (2 * SLOW_PATH_MS, self.ttl_ms / 2);
        if part_of_ttl_ms < there_and_back_ms { part_of_ttl_ms } else { there_and_back_ms }
    }
}

impl Node {
    /// How many live entries the mesh takes: as many as its smallest connected table.
    #[must_use]
    pub fn capacity(&self) -> usize {
        let peers = self.sessions.values().filter(|session| session.streaming());
        let peers = peers.map(|session| self.config.believed_capacity(session.capacity));
        peers.fold(self.config.entries_max, usize::min)
    }

    /// Some node holds the key, as far as this node knows.
    pub(crate) fn note_held(&mut self, now: Now, key: &StickKey) {
        // Holders report every half ttl, give or take the timers' grain.
        let until = now.mono + self.config.hold_told_ms();
        if let Some(slot) = self.table.get_mut(key) {
            slot.held_until = slot.held_until.max(Coarse::at_or_after(until));
        }
    }

    /// Who hears whose reports has changed: what this node has not heard of may be used and held.
    pub(crate) const fn mesh_has_changed(&mut self, now: Now) {
        self.mesh_changed = Some(now.mono);
    }

    /// Whether all peers have reported what they hold since the mesh changed last.
    pub(crate) fn hears_holders(&self, now: Now) -> bool {
        self.mesh_changed.is_none_or(|at| now.mono.since_ms(at) >= self.config.hold_told_ms())
    }

    /// Whether all leases of before the mesh changed last have run out: those that this node has not heard of, too.
    pub(crate) fn hears_users(&self, now: Now) -> bool {
        self.mesh_changed.is_none_or(|at| now.mono.since_ms(at) >= self.config.ttl_ms)
    }

    /// Whether entries may end early now.
    fn may_end_early(&self, now: Now) -> bool {
        self.decides && self.hears_holders(now) && self.table.tombstones() < self.config.tombstones_max()
    }

    /// Whether a new entry has a place, if need be at the cost of some that nobody holds: of those whose home this node is, the ones
    /// nearest their ends. What is far beyond the bound takes heartbeats to shrink, and has no place until then.
    pub(crate) fn has_room(&mut self, now: Now) -> bool {
        let capacity = self.capacity();
        for _ in 0..ENDED_FOR_ONE_MAX {
            if self.table.live() < capacity {
                return true;
            }
            if !self.end_one_early(now) {
                return false;
            }
        }
        self.table.live() < capacity
    }

    /// Two sides of a cut may hold more together than the mesh takes. Each home ends its share of what is too much, so that tables can
    /// become equal again.
    pub(crate) fn shrink(&mut self, now: Now) {
        let excess = self.table.live().saturating_sub(self.capacity());
        let homes = 1 + self.sessions.values().filter(|session| session.listed).count();
        self.early_ends = EarlyEnds::default();
        for _ in 0..excess.div_ceil(homes).min(SHRINK_MAX) {
            if !self.end_one_early(now) {
                return;
            }
        }
    }

    fn end_one_early(&mut self, now: Now) -> bool {
        let key = if self.may_end_early(now) { self.nearest_its_end(now) } else { None };
        let Some(key) = key else { return false };
        self.stats.ended_early += 1;
        self.end(now, &key, Reason::Full);
        true
    }

    /// Reconciliations were in vain while the table was full; when there is room they need not wait any longer.
    pub(crate) fn look_for_turned_away(&mut self, now: Now) {
        let most = self.config.entries_max;
        if self.turned_away && self.table.live() + most / 16 < most {
            self.turned_away = false;
            for session in self.sessions.values_mut() {
                session.talk.hurry(now);
            }
        }
    }

    /// Of those that were found, the one nearest its end that may still end early. When there is none left, more are looked for.
    fn nearest_its_end(&mut self, now: Now) -> Option<StickKey> {
        // What was put where it belongs is met a second time.
        for _ in 0..2 {
            if self.early_ends.found.is_empty() {
                self.look_for_early_ends(now);
            }
        }
        while let Some((lease, key)) = self.early_ends.found.pop() {
            let slot = self.table.get(&key);
            if slot.is_some_and(|slot| slot.lease == lease && self.may_end(now, &key, slot)) {
                return Some(key);
            }
        }
        None
    }

    /// Walks the timers in their order, on from where the last walk ended. A timer may be early, since leases are renewed meanwhile: such a
    /// key is put where it belongs.
    fn look_for_early_ends(&mut self, now: Now) {
        let (grain_ms, grace_ms) = (self.config.timer_grain_ms(), self.config.end_grace_ms());
        let (mut found, mut early) = (Vec::new(), Vec::new());
        let mut next = Mark::default();
        let timers = self.table.timers();
        for (step, id, after) in timers.walk(self.early_ends.next).take(LOOKED_AT_MAX) {
            next = after;
            let Some((key, slot)) = self.table.looks_at(step, *id) else { continue };
            let at = slot.lease + grace_ms;
            if !slot.entry.is_tombstone() && at > timers.at(step) + grain_ms {
                early.push((at, key.clone()));
            } else if self.may_end(now, key, slot) {
                found.push((slot.lease, key.clone()));
            }
        }
        found.sort_by(|(one, _), (other, _)| other.cmp(one));
        let first_moved = early.iter().map(|(at, _)| Mark::of(timers.step(*at))).min();
        let next = first_moved.map_or(next, |moved| moved.min(next));
        self.early_ends = EarlyEnds { next, found };
        for (at, key) in early {
            self.table.set_timer(at, &key);
        }
    }

    /// Whether an entry may end early: nobody holds it, nobody is about to, and this node is the one to end it.
    fn may_end(&self, now: Now, key: &StickKey, slot: &Slot) -> bool {
        let fresh = slot.lease > now.mono + self.config.ttl_ms.saturating_sub(self.config.fresh_ms());
        !slot.entry.is_tombstone()
            && !fresh
            && !self.is_held(now, key, slot.held_until)
            && self.is_first_listed(key)
    }

    fn is_held(&self, now: Now, key: &StickKey, held_until: Coarse) -> bool {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::HeldEvicted) {
            return false;
        }
        self.uses.holds(key) || held_until.instant() > now.mono
    }

    /// Whether some node holds a key.
    pub(crate) fn held_somewhere(&self, now: Now, key: &StickKey) -> bool {
        self.table.get(key).is_some_and(|slot| self.is_held(now, key, slot.held_until))
    }
}
