//! The map of entries in the order of their keys' hashes, with what this node knows of their leases, counts per shard, digests,
//! and the timers that look at them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::digest::{AsOf, Cell, FAN_OUT, Fold, RangeId, entry_digest, key_hash};
#[cfg(not(feature = "test-hooks"))]
use crate::entry::join;
use crate::entry::{Entry, Join};
use crate::id::{PeerId, ShardName, StickKey};
use crate::lease::Use;
use crate::recent::{Recent, Since, State, Then};
use crate::slots::{SlotId, Slots};
use crate::time::{Coarse, Instant, Now, Stamp};
use crate::timers::{Step, Timers};

/// How many origins' names are shared between entries; there are as many as nodes.
const ORIGINS_MAX: usize = 1_024;

/// One key's place in the table.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) entry: Entry,
    /// The end of the lease, as far as this node knows.
    pub(crate) lease: Instant,
    /// How many milliseconds of the lease have not been told to all.
    pub(crate) untold_ms: u32,
    /// Until when some node is known to hold the key.
    pub(crate) held_until: Coarse,
    /// Its lease is over as far as this node knows, and its home may be ending it: requests ask the home.
    pub(crate) lapsed: bool,
    /// The step of the timer that counts.
    pub(crate) look: Step,
    /// The tag of the log number of this node's newest decision about the key, 0 when another node decided.
    pub(crate) logged: u32,
    /// What this node knows of its own use of the key.
    pub(crate) used: Option<Use>,
}

impl Slot {
    /// The lease reaches at least to `lease`.
    pub(crate) fn extend(&mut self, lease: Instant) {
        let more_ms = lease.since_ms(self.lease);
        self.untold_ms = self.untold_ms.saturating_add(u32::try_from(more_ms).unwrap_or(u32::MAX));
        self.lease = self.lease.max(lease);
    }

    /// All were told of a lease that reaches to `told`.
    pub(crate) fn told(&mut self, told: Instant) {
        let untold_ms = u32::try_from(self.lease.since_ms(told)).unwrap_or(u32::MAX);
        self.untold_ms = self.untold_ms.min(untold_ms);
    }
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

/// A key where it stands in the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) hash: u64,
    pub(crate) key: StickKey,
}

impl Place {
    pub(crate) fn of(key: &StickKey) -> Self {
        Self { hash: key_hash(key), key: key.clone() }
    }
}

/// The stick table.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Slots,
    /// Of keys that have no entry at all.
    used_without: BTreeMap<StickKey, Use>,
    live: usize,
    /// How often a live entry came, went or was replaced.
    changes: u64,
    per_shard: BTreeMap<ShardName, u64>,
    origins: BTreeSet<PeerId>,
    fold: Fold,
    recent: Recent,
    timers: Timers<SlotId>,
    #[cfg(feature = "test-hooks")]
    pub(crate) mutation: Option<crate::mutation::Mutation>,
}

impl Table {
    pub(crate) fn new(entries_max: usize, grain_ms: u64) -> Self {
        Self {
            slots: Slots::new(entries_max),
            used_without: BTreeMap::new(),
            live: 0,
            changes: 0,
            per_shard: BTreeMap::new(),
            origins: BTreeSet::new(),
            fold: Fold::new(entries_max),
            recent: Recent::default(),
            timers: Timers::new(grain_ms),
            #[cfg(feature = "test-hooks")]
            mutation: None,
        }
    }

    pub(crate) fn get(&self, key: &StickKey) -> Option<&Slot> {
        self.slots.at(self.slots.find(key)?).map(|(_, slot)| slot)
    }

    pub(crate) fn get_mut(&mut self, key: &StickKey) -> Option<&mut Slot> {
        self.slots.at_mut(self.slots.find(key)?).map(|(_, slot)| slot)
    }

    /// What this node knows of its own use of a key.
    pub(crate) fn used(&self, key: &StickKey) -> Option<Use> {
        match self.get(key) {
            Some(slot) => slot.used,
            None => self.used_without(key),
        }
    }

    /// The same for a key that has no entry at all.
    pub(crate) fn used_without(&self, key: &StickKey) -> Option<Use> {
        self.used_without.get(key).copied()
    }

    /// Notes it, or forgets it.
    pub(crate) fn set_used(&mut self, key: &StickKey, used: Option<Use>) {
        match (self.get_mut(key), used) {
            (Some(slot), _) => slot.used = used,
            (None, Some(used)) => drop(self.used_without.insert(key.clone(), used)),
            (None, None) => drop(self.used_without.remove(key)),
        }
    }

    /// The shard of a live entry.
    pub(crate) fn shard(&self, key: &StickKey) -> Option<&ShardName> {
        self.get(key)?.entry.shard.as_ref()
    }

    /// Live entries; tombstones are not counted.
    pub(crate) const fn live(&self) -> usize {
        self.live
    }

    /// How often a live entry came, went or was replaced.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Entries that say nowhere.
    pub(crate) fn tombstones(&self) -> usize {
        self.slots.len() - self.live
    }

    /// Live entries per shard, in the order of their names.
    pub(crate) const fn per_shard(&self) -> &BTreeMap<ShardName, u64> {
        &self.per_shard
    }

    /// Merges a decision whose lease ends at `lease`; a key that is new here is looked at at `first_look`. The lease itself joins by
    /// maximum when the decision is the same, and is replaced with the decision otherwise.
    pub(crate) fn merge(
        &mut self,
        now: Now,
        key: &StickKey,
        entry: &Entry,
        lease: Instant,
        first_look: Instant,
    ) -> Merged {
        let entry = self.shared(entry);
        #[cfg(feature = "test-hooks")]
        let mutation = self.mutation;
        let known = self.slots.find(key);
        let Some((place, slot)) = known.and_then(|known| self.slots.at_mut(known)) else {
            self.insert(now, key, &entry, lease, first_look);
            return Merged::Inserted;
        };
        let hash = place.hash;
        let after = state(hash, &entry);
        let before = state(hash, &slot.entry);
        let old = slot.entry.shard.clone();
        #[cfg(feature = "test-hooks")]
        let joined = crate::mutation::join_with(mutation, &mut slot.entry, &entry);
        #[cfg(not(feature = "test-hooks"))]
        let joined = join(&mut slot.entry, &entry);
        match joined {
            Join::Same => {
                slot.extend(lease);
                Merged::Same
            }
            Join::Kept => Merged::Kept,
            Join::Replaced => {
                // Whoever used the key by the other decision uses it still.
                let goes_on = old.is_some() && !entry.is_tombstone();
                let used_until = core::mem::replace(&mut slot.lease, lease);
                slot.untold_ms = 0;
                if goes_on {
                    slot.extend(used_until);
                }
                slot.lapsed = false;
                slot.logged = 0;
                self.changed(now, hash, before, after, old.as_ref(), entry.shard.as_ref());
                Merged::Replaced { old }
            }
        }
    }

    /// Names another shard in a live entry, as no merge does.
    #[cfg(feature = "test-hooks")]
    pub(crate) fn flip(&mut self, now: Now, key: &StickKey, shard: &ShardName) -> bool {
        let place = Place::of(key);
        let Some(slot) = self.get_mut(key).filter(|slot| !slot.entry.is_tombstone()) else { return false };
        let before = state(place.hash, &slot.entry);
        let old = slot.entry.shard.replace(shard.clone());
        let after = state(place.hash, &slot.entry);
        self.changed(now, place.hash, before, after, old.as_ref(), Some(shard));
        true
    }

    /// Takes in a key that is not there.
    pub(crate) fn insert(
        &mut self,
        now: Now,
        key: &StickKey,
        entry: &Entry,
        lease: Instant,
        first_look: Instant,
    ) {
        let (place, entry) = (Place::of(key), self.shared(entry));
        let after = state(place.hash, &entry);
        self.changed(now, place.hash, State::default(), after, None, entry.shard.as_ref());
        let look = self.timers.step(first_look);
        let held_until = Coarse::default();
        let used = self.used_without.remove(&place.key);
        let slot = Slot { entry, lease, untold_ms: 0, held_until, lapsed: false, look, logged: 0, used };
        let id = self.slots.insert(place, slot);
        self.timers.push(first_look, id);
    }

    /// A live entry whose lease is over at that moment is not used before somebody was asked about it.
    pub(crate) fn lapse_unless(&mut self, key: &StickKey, runs_at: Instant) {
        if let Some(slot) = self.get_mut(key).filter(|slot| !slot.entry.is_tombstone()) {
            slot.lapsed |= slot.lease < runs_at;
        }
    }

    /// Takes a key out; `at` is the moment that counts for digests.
    pub(crate) fn remove(&mut self, now: Now, key: &StickKey, at: Stamp) -> Option<Slot> {
        let place = Place::of(key);
        let slot = self.slots.remove(&place)?;
        if let Some(used) = slot.used {
            self.used_without.insert(place.key, used);
        }
        if let Some(shard) = &slot.entry.shard {
            let before = state(place.hash, &slot.entry);
            self.changed(now, place.hash, before, State { created: at, digest: 0 }, Some(shard), None);
        }
        Some(slot)
    }

    /// Up to `most` keys after `after` in the order of their hashes, and whether more follow.
    pub(crate) fn page(&self, after: Option<&StickKey>, most: usize) -> (Vec<(StickKey, &Slot)>, bool) {
        let mut rest = self.following(after.map(Place::of).as_ref(), 0);
        let page: Vec<_> = rest.by_ref().take(most).map(|(place, slot)| (place.key.clone(), slot)).collect();
        (page, rest.next().is_some())
    }

    /// The slots of a range after `after`.
    pub(crate) fn within<'t>(
        &'t self,
        range: RangeId,
        after: Option<&Place>,
    ) -> impl Iterator<Item = (&'t Place, &'t Slot)> + use<'t> {
        let (first, last) = range.bounds();
        self.following(after, first).take_while(move |(place, _)| place.hash <= last)
    }

    /// The slots after a place, or from a hash on.
    fn following<'t>(
        &'t self,
        after: Option<&Place>,
        first: u64,
    ) -> impl Iterator<Item = (&'t Place, &'t Slot)> + use<'t> {
        match after {
            Some(after) => self.slots.after(after),
            None => self.slots.starting_at(first),
        }
    }

    /// The digests of the first level as of a moment.
    pub(crate) fn ranges(&self, now: Now, as_of: AsOf) -> [u64; FAN_OUT] {
        let mut ranges = self.fold.ranges();
        self.recent.take_back(now, &mut ranges, as_of);
        ranges.map(|cell| cell.sum)
    }

    /// The earliest moment that digests tell of these days.
    pub(crate) const fn set_earliest(&mut self, earliest: Stamp) {
        self.recent.set_earliest(earliest);
    }

    /// What has changed since a moment; [`Table::cell`] and [`Table::digests`] take it back.
    pub(crate) fn since(&self, as_of: AsOf) -> Since {
        self.recent.since(as_of)
    }

    /// What a range held at that moment.
    pub(crate) fn cell(&self, range: RangeId, since: &Since) -> Cell {
        let now = self.fold.cell(range).unwrap_or_else(|| {
            let mut cell = Cell::default();
            for (place, slot) in self.within(range, None).filter(|(_, slot)| !slot.entry.is_tombstone()) {
                cell.add(entry_digest(place.hash, &slot.entry));
            }
            cell
        });
        now.plus(since.correction(range))
    }

    /// The digests of the entries that a range held at that moment.
    pub(crate) fn digests(&self, range: RangeId, since: &Since) -> Vec<u64> {
        let mut digests: Vec<u64> =
            self.within(range, None).filter_map(|(place, slot)| digest_then(place, slot, since)).collect();
        digests.extend(
            since
                .gone(range)
                .filter(|(hash, _)| {
                    // A key that stands there, changed or not, was listed above.
                    self.slots.starting_at(*hash).next().is_none_or(|(place, _)| place.hash != *hash)
                })
                .map(|(_, digest)| digest),
        );
        digests
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Keys whose timer has run out; each must be looked at and either removed or given a timer again.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<StickKey> {
        let mut due = Vec::new();
        for (step, id) in self.timers.due(now) {
            if let Some((place, slot)) = self.slots.at_mut(id).filter(|(_, slot)| slot.look == step) {
                // A number that was another key's stands here twice, perhaps.
                slot.look = Step::NEVER;
                due.push(place.key.clone());
            }
        }
        due
    }

    /// The slot that a timer means; one whose key went, or has another timer by now, means none.
    pub(crate) fn looks_at(&self, step: Step, id: SlotId) -> Option<(&StickKey, &Slot)> {
        let (place, slot) = self.slots.at(id).filter(|(_, slot)| slot.look == step)?;
        Some((&place.key, slot))
    }

    pub(crate) fn set_timer(&mut self, at: Instant, key: &StickKey) {
        let Some(id) = self.slots.find(key) else { return };
        let step = self.timers.push(at, id);
        if let Some((_, slot)) = self.slots.at_mut(id) {
            slot.look = step;
        }
    }

    pub(crate) const fn timers(&self) -> &Timers<SlotId> {
        &self.timers
    }

    fn changed(
        &mut self,
        now: Now,
        hash: u64,
        before: State,
        after: State,
        old: Option<&ShardName>,
        new: Option<&ShardName>,
    ) {
        if old.is_some() {
            self.fold.remove(hash, before.digest);
        }
        if new.is_some() {
            self.fold.add(hash, after.digest);
        }
        if old.is_some() || new.is_some() {
            self.changes += 1;
            self.recent.note(now, hash, before, after);
        }
        count(&mut self.live, &mut self.per_shard, old, new);
    }

    /// The same entry, with names that entries of this table share: a million entries need not have a million copies.
    fn shared(&mut self, entry: &Entry) -> Entry {
        let shard = entry.shard.as_ref().map(|shard| {
            self.per_shard.get_key_value(shard).map_or_else(|| shard.clone(), |(known, _)| known.clone())
        });
        let origin = match self.origins.get(&entry.origin) {
            Some(known) => known.clone(),
            None => {
                if self.origins.len() < ORIGINS_MAX {
                    self.origins.insert(entry.origin.clone());
                }
                entry.origin.clone()
            }
        };
        Entry { shard, origin, ..entry.clone() }
    }
}

fn state(hash: u64, entry: &Entry) -> State {
    State { created: entry.created, digest: entry_digest(hash, entry) }
}

/// The digest that a key had at a moment, `None` when it counted nothing.
pub(crate) fn digest_then(place: &Place, slot: &Slot, since: &Since) -> Option<u64> {
    match since.then(place.hash) {
        Then::AsNow => (!slot.entry.is_tombstone()).then(|| entry_digest(place.hash, &slot.entry)),
        Then::Nothing => None,
        Then::Digest(digest) => Some(digest),
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

#[cfg(test)]
mod tests;
