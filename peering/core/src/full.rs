//! The full table: whose entry ends early to make room for a new conference.

use alloc::vec::Vec;

use crate::config::Config;
use crate::entry::Reason;
use crate::id::StickKey;
use crate::node::Node;
use crate::time::{Coarse, Instant, Now};

/// How many entries are looked at to find one that may end early.
const LOOKED_AT_MAX: usize = 512;

impl Config {
    /// How many tombstones the table takes. At the bound ends are drops, and entries do not end early.
    pub(crate) const fn tombstones_max(&self) -> usize {
        self.entries_max
    }
}

impl Node {
    /// How many live entries the mesh takes: as many as its smallest connected table.
    pub(crate) fn capacity(&self) -> usize {
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

    /// Whether a new entry has a place, if need be at the cost of one that nobody holds: of those whose home this node is, the one
    /// nearest its end.
    pub(crate) fn has_room(&mut self, now: Now) -> bool {
        let capacity = self.capacity();
        while self.table.live() >= capacity {
            let key = if self.may_end_early(now) { self.nearest_its_end(now) } else { None };
            let Some(key) = key else { return false };
            self.stats.ended_early += 1;
            self.end(now, &key, Reason::Full);
        }
        true
    }

    /// Two sides of a cut may hold more together than the mesh takes. Each home ends its share of what is too much, so that tables can
    /// become equal again.
    pub(crate) fn shrink(&mut self, now: Now) {
        let excess = self.table.live().saturating_sub(self.capacity());
        let homes = 1 + self.sessions.values().filter(|session| session.listed).count();
        for _ in 0..excess.div_ceil(homes) {
            if !self.may_end_early(now) {
                return;
            }
            let Some(key) = self.nearest_its_end(now) else { return };
            self.stats.ended_early += 1;
            self.end(now, &key, Reason::Full);
        }
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

    /// Walks the timers in their order. A timer may be early, since leases are renewed meanwhile: such a key is put where it belongs.
    fn nearest_its_end(&mut self, now: Now) -> Option<StickKey> {
        let (grain_ms, grace_ms) = (self.config.timer_grain_ms(), self.config.end_grace_ms());
        let mut looked_at = 0;
        let mut seen = Vec::new();
        let mut found: Option<(Instant, StickKey)> = None;
        while found.is_none()
            && looked_at < LOOKED_AT_MAX
            && let Some((step, ids)) = self.table.timers_mut().take_first()
        {
            let step_at = self.table.timers_mut().at(step);
            let mut stay = Vec::new();
            for id in ids {
                looked_at += 1;
                let Some((key, slot)) = self.table.looks_at(step, id) else { continue };
                let (lease, held) = (slot.lease, self.is_held(now, key, slot.held_until));
                let at = lease + grace_ms;
                if slot.entry.is_tombstone() {
                    stay.push(id);
                } else if at > step_at + grain_ms {
                    let key = key.clone();
                    self.table.set_timer(at, &key);
                } else {
                    if !held
                        && self.is_first_listed(key)
                        && found.as_ref().is_none_or(|(first, _)| lease < *first)
                    {
                        found = Some((lease, key.clone()));
                    }
                    stay.push(id);
                }
            }
            seen.push((step, stay));
        }
        for (step, ids) in seen {
            self.table.timers_mut().put_back(step, ids);
        }
        found.map(|(_, key)| key)
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
