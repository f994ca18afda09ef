//! The ordered stream of each node's own decisions: numbered batches with a cursor per peer, and corrections beside it.

use alloc::vec::Vec;

use crate::digest::{entry_digest, key_hash};
use crate::entry::{Entry, Reason};
use crate::id::{PeerId, StickKey};
use crate::lease::{Told, Uses};
use crate::message::{Change, Item, Message, Update};
use crate::node::Node;
use crate::output::{Output, Violation};
use crate::session::{CORRECTIONS_MAX, LinkState};
use crate::table::Merged;
use crate::time::{Now, Stamp};
use crate::update_log::{LogKind, tag};

/// How long an acknowledgement waits for others: it only lets the log be trimmed.
const ACK_DELAY_MS: u64 = 100;

/// What became of an entry of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It was joined with what stands here.
    Merged,
    /// This node's own table is beyond its bound.
    NoRoom,
    /// No decision can look like this.
    Refused,
}

impl Node {
    pub(crate) fn on_update(&mut self, now: Now, peer: &PeerId, update: Update) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if update.through < session.last_update {
            return Err(Violation::NumberWentBack);
        }
        let live = session.last_update.max(session.continues_after) >= session.head;
        session.last_update = update.through;
        // While it learns, the cursor stays where it was: should the connection break, the reconciliation starts anew.
        if session.link == LinkState::Reconciled {
            session.received = session.received.max(update.through);
        }
        self.stats.updates_received += update.items.len() as u64;
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::AckBeforeApply) {
            self.send(peer, Message::Ack { through: update.through });
            let lost = self.unapplied.replace((peer.clone(), update.items));
            if let Some((from, items)) = lost.filter(|(from, _)| {
                self.sessions.get(from).is_some_and(|session| session.link == LinkState::Reconciled)
            }) {
                self.take_items(now, &from, items);
            }
            return Ok(());
        }
        let session_unacked = if session.unacked == 0 { now.mono } else { session.unacked_since };
        session.unacked_since = session_unacked;
        session.unacked += update.items.len().max(1) as u64;
        if live {
            self.obey_moves_of(peer, &update.items);
        }
        self.take_items(now, peer, update.items);
        Ok(())
    }

    /// What a home moved since this node is connected to it, because nobody reaches the shard, or by a verdict: this node was asked.
    fn obey_moves_of(&mut self, peer: &PeerId, items: &[Item]) {
        for Item { key, change, .. } in items {
            if let Change::Entry(entry) = change
                && matches!(entry.reason, Reason::Down | Reason::Arbitration)
                && entry.origin == *peer
            {
                self.arbitration.obeys(key);
            }
        }
    }

    /// Acknowledges what was applied: at once when the sender's window may be half full, otherwise a little later for many together.
    fn push_ack(&mut self, now: Now, peer: &PeerId) {
        let Some(session) = self.sessions.get_mut(peer).filter(|session| session.unacked > 0) else { return };
        let due = session.unacked_since + ACK_DELAY_MS;
        if session.unacked < self.config.window_items / 2 && now.mono < due {
            self.flush_at = Some(self.flush_at.map_or(due, |at| at.min(due)));
            return;
        }
        session.unacked = 0;
        let through = session.last_update;
        self.send(peer, Message::Ack { through });
    }

    pub(crate) fn on_ack(&mut self, peer: &PeerId, through: u64) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if through > session.pushed {
            return Err(Violation::AckBeyondSent);
        }
        session.acked = session.acked.max(through);
        let everywhere = self
            .sessions
            .values()
            .filter(|session| session.listed)
            .map(|session| if session.streaming() { session.acked } else { 0 })
            .min();
        self.log.trim(everywhere.unwrap_or(0));
        Ok(())
    }

    pub(crate) fn take_items(&mut self, now: Now, peer: &PeerId, items: Vec<Item>) {
        for Item { key, change, remaining_ms, held } in items {
            match change {
                Change::Entry(entry) => {
                    self.accept(now, peer, &key, &entry, remaining_ms);
                }
                Change::Renewed => {
                    let lease = now.mono + remaining_ms.min(self.config.ttl_ms);
                    if self.extend(now, &key, lease)
                        && let Some(slot) = self.table.get_mut(&key)
                    {
                        slot.told(lease);
                    }
                }
                Change::Dropped { digest, at } => self.take_drop(now, peer, &key, digest, at),
            }
            if held {
                self.note_held(now, &key);
            }
        }
    }

    /// A home forgets an entry. Whoever holds the key, or used it since, claims it as it is.
    fn take_drop(&mut self, now: Now, peer: &PeerId, key: &StickKey, digest: u64, at: Stamp) {
        let Some(slot) = self.table.get(key).filter(|slot| !slot.entry.is_tombstone()) else { return };
        if entry_digest(key_hash(key), &slot.entry) != digest {
            return;
        }
        if slot.lease > now.mono {
            // Somebody used it of whom the dropper has not heard.
            self.correct(peer, key);
        } else if self.in_use(now, key) {
            let shard = slot.entry.shard.clone();
            self.answer_end(now, key, shard, Reason::End);
        } else {
            self.forget(now, key, at);
        }
    }

    /// Takes a key out of the table without a decision.
    pub(crate) fn forget(&mut self, now: Now, key: &StickKey, at: Stamp) {
        let Some(slot) = self.table.remove(now, key, at) else { return };
        if !slot.entry.is_tombstone() && !slot.lapsed {
            self.outputs.push_back(Output::Changed { key: key.clone(), shard: None });
        }
    }

    /// Merges an entry of a peer. An absurd one ends the connection.
    pub(crate) fn accept(
        &mut self,
        now: Now,
        peer: &PeerId,
        key: &StickKey,
        entry: &Entry,
        remaining_ms: u64,
    ) -> Accepted {
        if let Err(error) = entry.validate(now) {
            self.stats.refused_entries += 1;
            // A messenger may have believed it by the margin of its clock; who made what nobody could believe is not to be talked to.
            if entry.origin == *peer && error.beyond_doubt() {
                let peer = peer.clone();
                self.outputs.push_back(Output::Disconnect { peer, violation: Violation::AbsurdEntry });
            }
            return Accepted::Refused;
        }
        if self.clock.observe(entry.created, now.wall) > 0 {
            self.stats.stamps_far_ahead += 1;
        }
        // Most of what is taught is new: one look says so.
        let known = self.table.get(key).is_some();
        if known && self.fades(now, key, entry, remaining_ms) {
            return Accepted::Merged;
        }
        let most = self.config.entries_max;
        let full = if entry.is_tombstone() {
            let full = self.table.tombstones() >= self.config.tombstones_max();
            let there = self.table.get(key).map(|slot| &slot.entry);
            let full_twice = self.table.tombstones() >= 2 * self.config.tombstones_max();
            if full_twice
                && there.is_some_and(|there| !there.is_tombstone() && entry.precedence(there).is_lt())
            {
                // At the bound an end is a drop here too.
                let old = there.and_then(|there| there.shard.clone());
                self.forget(now, key, entry.created);
                self.answer_end(now, key, old, entry.reason);
                return Accepted::NoRoom;
            }
            full && there.is_none()
        } else {
            self.table.live() > most + most / 8 && self.table.shard(key).is_none()
        };
        if full && entry.is_tombstone() {
            self.stats.tombstones_full += 1;
            return Accepted::NoRoom;
        }
        if full {
            self.stats.dropped_full += 1;
            self.turned_away = true;
            return Accepted::NoRoom;
        }
        #[cfg(feature = "test-hooks")]
        let entry = &self.mutated_on_arrival(now, entry);
        let most_ms = self.lifetime_max_ms(entry);
        // This node told everybody another decision of the same generation; who was told by it alone must hear that it lost.
        let overruled = known
            && self.table.get(key).is_some_and(|slot| {
                slot.logged != 0
                    && slot.entry.origin == self.config.me
                    && slot.entry.generation == entry.generation
                    && slot.entry.shard != entry.shard
            });
        let lease = if remaining_ms == 0 && !entry.is_tombstone() {
            // Its lease is over where it comes from, perhaps long since: handed from node to node it must not begin anew each time.
            now.mono.before(self.config.lapsed_for_ms())
        } else {
            now.mono + remaining_ms.min(most_ms)
        };
        match self.merge(now, key, entry, lease) {
            Merged::Same => {}
            Merged::Inserted if entry.is_tombstone() => self.answer_end(now, key, None, entry.reason),
            Merged::Inserted => self.learned_late(now, key),
            Merged::Replaced { old } if entry.is_tombstone() => self.answer_end(now, key, old, entry.reason),
            Merged::Replaced { old } => {
                if overruled {
                    self.announce(key, LogKind::Decision);
                }
                if old.is_none() {
                    self.learned_late(now, key);
                }
                if old.is_some() && (old != entry.shard || entry.reason == Reason::Arbitration) {
                    // Whoever is home next keeps the pause between two moves too, and a verdict is one.
                    self.moved_at.insert(key.clone(), now.mono);
                }
            }
            Merged::Kept => {
                self.stats.conflicts += 1;
                self.correct(peer, key);
            }
        }
        if entry.reason == Reason::Arbitration && self.arbitration.is_disputed(key) {
            self.misplaced.insert(key.clone());
        }
        if self.uses.holds(key) {
            self.used(now, key, Told::NotYet);
            self.report_hold(now, key);
        }
        self.settle_by_update(now, key);
        Accepted::Merged
    }

    /// Whether a tombstone from outside is so near its end that what stands here stays. One that stands here and is as near gives way.
    fn fades(&mut self, now: Now, key: &StickKey, entry: &Entry, remaining_ms: u64) -> bool {
        let fades_ms = self.config.tombstone_fades_ms();
        let Some(there) = self.table.get(key).filter(|there| entry.precedence(&there.entry).is_ne()) else {
            return false;
        };
        match (there.entry.is_tombstone(), entry.is_tombstone()) {
            (true, false) => {
                let gives_way =
                    there.lease.since_ms(now.mono) < fades_ms && entry.created > there.entry.created;
                if gives_way {
                    self.forget(now, key, Stamp::default());
                }
                false
            }
            (false, true) => remaining_ms < fades_ms && there.entry.created > entry.created,
            _ => false,
        }
    }

    /// An entry that this node had not: its users and holders may have reported it meanwhile, in vain. Who will end it waits for as long
    /// as any of these leases can run.
    fn learned_late(&mut self, now: Now, key: &StickKey) {
        self.note_held(now, key);
        if self.is_first_listed(key) {
            self.extend(now, key, now.mono + self.config.ttl_ms);
        }
    }

    /// The peer is to be told what stands here for a key.
    pub(crate) fn correct(&mut self, peer: &PeerId, key: &StickKey) {
        if let Some(session) = self.sessions.get_mut(peer)
            && session.corrections.len() < CORRECTIONS_MAX
        {
            session.corrections.push_back(key.clone());
        }
    }

    /// The longest lifetime that is believed of an entry from outside.
    fn lifetime_max_ms(&self, entry: &Entry) -> u64 {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::LifetimeNotClamped) {
            return u64::MAX / 4;
        }
        if entry.is_tombstone() { self.config.tombstone_ms() } else { self.config.ttl_ms }
    }

    /// Writes what is due to every peer, as far as their windows reach. Called when the output queue has run empty, so that many
    /// inputs share one batch.
    pub(crate) fn flush(&mut self, now: Now) {
        self.flush_at = None;
        let head = self.log.head();
        let due = self.sessions.iter().filter(|(_, session)| session.has_something_due(head));
        let due: Vec<PeerId> = due.map(|(peer, _)| peer.clone()).collect();
        for peer in due {
            while self.push_updates(now, &peer) {}
            self.push_ack(now, &peer);
            self.push_corrections(now, &peer);
            self.push_talk(now, &peer);
        }
    }

    /// Sends one batch of own decisions; false when there is none or the window is full.
    fn push_updates(&mut self, now: Now, peer: &PeerId) -> bool {
        let Some(session) = self.sessions.get(peer) else { return false };
        let mut at = session.pushed;
        if at == self.log.head() {
            return false;
        }
        let due = session.last_push.map(|last| last + self.config.updates_pause_ms);
        if let Some(due) = due.filter(|due| now.mono < *due && session.last_push != Some(now.mono)) {
            self.flush_at = Some(self.flush_at.map_or(due, |at| at.min(due)));
            return false;
        }
        if at.saturating_sub(session.acked) >= self.config.window_items {
            self.stats.windows_full += 1;
            return false;
        }
        if !self.log.reaches(at) {
            let peer = peer.clone();
            self.outputs.push_back(Output::Disconnect { peer, violation: Violation::FellBehind });
            return false;
        }
        let mut items = Vec::new();
        while items.len() < self.config.batch_items
            && let Some((number, key, kind)) = self.log.after(at)
        {
            at = number;
            items.extend(self.logged_item(now, number, key, kind));
        }
        let Some(session) = self.sessions.get_mut(peer) else { return false };
        session.pushed = at;
        session.last_push = Some(now.mono);
        self.stats.updates_sent += items.len() as u64;
        self.send(peer, Message::Update(Update { through: at, items }));
        true
    }

    /// What is to be told of an item of the log, `None` when something later tells more.
    fn logged_item(&self, now: Now, number: u64, key: &StickKey, kind: LogKind) -> Option<Item> {
        if let LogKind::Dropped { digest, at } = kind {
            let change = Change::Dropped { digest, at };
            return Some(Item { key: key.clone(), change, remaining_ms: 0, held: false });
        }
        let slot = self.table.get(key)?;
        let change = match kind {
            // A later decision of this node stands further on, a foreign one was told by its own decider.
            LogKind::Decision if slot.logged != tag(number) => return None,
            LogKind::Decision => Change::Entry(slot.entry.clone()),
            LogKind::Renewal if slot.entry.is_tombstone() => return None,
            LogKind::Renewal => Change::Renewed,
            LogKind::Dropped { .. } => return None,
        };
        let remaining_ms = slot.lease.since_ms(now.mono);
        Some(Item { key: key.clone(), change, remaining_ms, held: slot.held_until.instant() > now.mono })
    }

    fn push_corrections(&mut self, now: Now, peer: &PeerId) {
        let most = self.config.batch_items;
        while let Some(session) =
            self.sessions.get_mut(peer).filter(|session| !session.corrections.is_empty())
        {
            let count = session.corrections.len().min(most);
            let keys: Vec<StickKey> = session.corrections.drain(..count).collect();
            let items: Vec<Item> = keys.iter().filter_map(|key| self.item(now, key)).collect();
            self.send(peer, Message::Correction { items });
        }
    }

    fn item(&self, now: Now, key: &StickKey) -> Option<Item> {
        self.table.get(key).map(|slot| slot.item(now, key, &self.uses, self.config.ttl_ms))
    }
}

impl crate::table::Slot {
    /// The entry as another node is told of it. Sessions here keep it alive for a whole ttl from now.
    pub(crate) fn item(&self, now: Now, key: &StickKey, uses: &Uses, ttl_ms: u64) -> Item {
        let holds = uses.holds(key) && !self.entry.is_tombstone();
        let remaining_ms = self.lease.since_ms(now.mono);
        Item {
            key: key.clone(),
            change: Change::Entry(self.entry.clone()),
            remaining_ms: if holds { remaining_ms.max(ttl_ms) } else { remaining_ms },
            held: holds || self.held_until.instant() > now.mono,
        }
    }
}
