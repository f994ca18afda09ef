//! The talk with one peer: hello, numbered updates with a cursor, corrections, and the lesson that a fresh or long absent peer gets.

use alloc::vec::Vec;

use crate::entry::Entry;
use crate::id::{PeerId, StickKey};
use crate::message::{Hello, Item, Message, Resume, ResyncChunk, Update};
use crate::node::Node;
use crate::output::{Output, Violation};
use crate::session::{CORRECTIONS_MAX, Lesson, LinkState, Session};
use crate::table::Merged;
use crate::time::Now;
use crate::update_log::LogKind;

/// The newest numbered contract this node speaks: rendezvous hash, key normalisation, join order.
pub(crate) const CONTRACT: u32 = 1;

impl Node {
    /// What was meant for the old connection must not go out on the next one, where it would come before the hello.
    fn forget_outputs(&mut self, to: &PeerId) {
        self.outputs.retain(|output| {
            !matches!(output, Output::Send { peer, .. } | Output::Disconnect { peer, .. } if peer == to)
        });
    }

    pub(crate) fn peer_connected(&mut self, peer: &PeerId) {
        self.forget_outputs(peer);
        let session = self.sessions.entry(peer.clone()).or_insert_with(Session::new);
        if !session.listed {
            self.outputs
                .push_back(Output::Disconnect { peer: peer.clone(), violation: Violation::NotListed });
            return;
        }
        session.lost();
        session.link = LinkState::Greeting;
        let resume = (session.incarnation != 0 && session.reconciled_once)
            .then_some(Resume { incarnation: session.incarnation, through: session.received });
        let hello =
            Hello { contract: CONTRACT, incarnation: self.config.incarnation, ready: self.ready, resume };
        self.send(peer, Message::Hello(hello));
    }

    pub(crate) fn peer_lost(&mut self, now: Now, peer: &PeerId) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        session.lost();
        let decided: Vec<StickKey> = session
            .decided_for_us
            .drain(..)
            .filter(|(at, _)| now.mono.since_ms(*at) <= 5_000)
            .map(|(_, key)| key)
            .collect();
        for key in decided {
            self.announce(&key, LogKind::Decision);
        }
        self.reask_claims_of(now, peer);
        self.forget_outputs(peer);
        if self.sessions.get(peer).is_some_and(|session| !session.listed) {
            self.sessions.remove(peer);
        }
    }

    pub(crate) fn on_hello(&mut self, peer: &PeerId, hello: Hello) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if session.link != LinkState::Greeting {
            return Err(Violation::GreetedTwice);
        }
        if hello.contract == 0 || hello.incarnation == 0 {
            return Err(Violation::Contract);
        }
        if session.incarnation != hello.incarnation {
            // It started anew: nothing that was known of its numbers holds.
            session.incarnation = hello.incarnation;
            session.received = 0;
            session.reconciled_once = false;
        }
        session.ready = hello.ready;
        session.suspect = false;
        session.link = LinkState::Learning;
        let own = self.config.incarnation;
        let resume =
            hello.resume.filter(|resume| resume.incarnation == own && self.log.reaches(resume.through));
        session.pushed = resume.map_or_else(|| self.log.head(), |resume| resume.through);
        session.acked = session.pushed;
        if resume.is_some() {
            self.stats.resyncs_resumed += 1;
            // Who continues from the log learns nothing from a lesson but its end.
            let continues_after = session.pushed;
            session.lesson = Some(Lesson { sent: 1, complete: true, continues_after, ..Lesson::default() });
            let chunk = ResyncChunk { number: 1, items: Vec::new(), last: true, continues_after };
            self.send(peer, Message::ResyncChunk(chunk));
        } else {
            self.stats.resyncs_full += 1;
            session.lesson = Some(Lesson { continues_after: session.pushed, ..Lesson::default() });
        }
        Ok(())
    }

    pub(crate) fn on_update(&mut self, now: Now, peer: &PeerId, update: Update) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if update.through < session.last_update {
            return Err(Violation::NumberWentBack);
        }
        session.last_update = update.through;
        // While it learns, the cursor stays where it was: should the connection break, the lesson starts anew.
        if session.link == LinkState::Reconciled {
            session.received = session.received.max(update.through);
        }
        self.stats.updates_received += update.items.len() as u64;
        self.take_items(now, peer, update.items);
        self.send(peer, Message::Ack { through: update.through });
        Ok(())
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
        for item in items {
            match item.entry {
                Some(entry) => {
                    self.accept(now, peer, &item.key, &entry, item.remaining_ms);
                }
                None => self.take_renewal(now, &item.key, item.remaining_ms),
            }
        }
    }

    fn take_renewal(&mut self, now: Now, key: &StickKey, remaining_ms: u64) {
        let lease = now.mono + remaining_ms.min(self.config.ttl_ms);
        if let Some(slot) = self.table.get_mut(key).filter(|slot| !slot.entry.is_tombstone()) {
            slot.lease = slot.lease.max(lease);
            slot.announced = slot.announced.max(lease);
        }
    }

    /// Merges an entry of a peer. Answers whether it was fit to be merged; an absurd one ends the connection.
    pub(crate) fn accept(
        &mut self,
        now: Now,
        peer: &PeerId,
        key: &StickKey,
        entry: &Entry,
        remaining_ms: u64,
    ) -> bool {
        if entry.validate(now).is_err() {
            self.stats.refused_entries += 1;
            // A messenger may have believed it by the margin of its clock; who made it is not to be talked to.
            if entry.origin == *peer {
                let peer = peer.clone();
                self.outputs.push_back(Output::Disconnect { peer, violation: Violation::AbsurdEntry });
            }
            return false;
        }
        if self.clock.observe(entry.created, now.wall) > 0 {
            self.stats.stamps_far_ahead += 1;
        }
        let most = self.config.entries_max;
        let full = if entry.is_tombstone() {
            self.table.len() - self.table.live() >= 4 * most
        } else {
            self.table.live() > most + most / 8
        };
        if full && self.table.get(key).is_none() {
            self.stats.dropped_full += 1;
            return true;
        }
        let most = if entry.is_tombstone() { self.config.tombstone_ms() } else { self.config.ttl_ms };
        match self.merge(now, key, entry, now.mono + remaining_ms.min(most)) {
            Merged::Same => {}
            Merged::Inserted if entry.is_tombstone() => self.answer_end(now, key, None),
            Merged::Inserted => {}
            Merged::Replaced { old } if entry.is_tombstone() => self.answer_end(now, key, old),
            Merged::Replaced { old } => {
                if old.is_some() && old != entry.shard {
                    // Whoever is home next keeps the pause between two moves too.
                    self.moved_at.insert(key.clone(), now.mono);
                }
            }
            Merged::Kept => {
                self.stats.conflicts += 1;
                if let Some(session) = self.sessions.get_mut(peer)
                    && session.corrections.len() < CORRECTIONS_MAX
                {
                    session.corrections.push_back(key.clone());
                }
            }
        }
        self.settle_by_update(now, key);
        true
    }

    pub(crate) fn on_resync_chunk(
        &mut self,
        now: Now,
        peer: &PeerId,
        chunk: ResyncChunk,
    ) -> Result<(), Violation> {
        self.take_items(now, peer, chunk.items);
        self.send(peer, Message::ResyncAck { number: chunk.number });
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if chunk.last {
            session.link = LinkState::Reconciled;
            session.reconciled_once = true;
            session.received = session.received.max(chunk.continues_after).max(session.last_update);
        }
        Ok(())
    }

    pub(crate) fn on_resync_ack(&mut self, peer: &PeerId, number: u64) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if let Some(lesson) = &mut session.lesson {
            if number > lesson.sent {
                return Err(Violation::AckBeyondSent);
            }
            lesson.acked = lesson.acked.max(number);
            if lesson.complete && lesson.acked == lesson.sent {
                session.lesson = None;
            }
        }
        Ok(())
    }

    /// Writes what is due to every peer, as far as their windows reach. Called when the output queue has run empty, so that many
    /// inputs share one batch.
    pub(crate) fn flush(&mut self, now: Now) {
        let peers = self.streaming_peers();
        for peer in peers {
            while self.push_updates(now, &peer) {}
            self.push_corrections(now, &peer);
            while self.push_lesson(now, &peer) {}
        }
    }

    /// Sends one batch of own decisions; false when there is none or the window is full.
    fn push_updates(&mut self, now: Now, peer: &PeerId) -> bool {
        let Some(session) = self.sessions.get(peer) else { return false };
        let mut at = session.pushed;
        if at.saturating_sub(session.acked) >= self.config.window_items {
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
            let Some(slot) = self.table.get(key) else { continue };
            let remaining_ms = slot.lease.since_ms(now.mono);
            match kind {
                // A later decision of this node stands further on, a foreign one was told by its own decider.
                LogKind::Decision if slot.logged != number => {}
                LogKind::Decision => {
                    items.push(Item { key: key.clone(), entry: Some(slot.entry.clone()), remaining_ms });
                }
                LogKind::Renewal if slot.entry.is_tombstone() => {}
                LogKind::Renewal => items.push(Item { key: key.clone(), entry: None, remaining_ms }),
            }
        }
        let Some(session) = self.sessions.get_mut(peer) else { return false };
        if at == session.pushed {
            return false;
        }
        session.pushed = at;
        self.stats.updates_sent += items.len() as u64;
        self.send(peer, Message::Update(Update { through: at, items }));
        true
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

    /// Sends one chunk of the whole table; false when there is no lesson or its window is full.
    fn push_lesson(&mut self, now: Now, peer: &PeerId) -> bool {
        let Some(lesson) = self.sessions.get(peer).and_then(|session| session.lesson.as_ref()) else {
            return false;
        };
        if lesson.complete || lesson.sent - lesson.acked >= self.config.resync_window {
            return false;
        }
        let (page, more) = self.table.page(lesson.after.as_ref(), self.config.batch_items);
        let after = page.last().map(|(key, _)| key.clone());
        let items = page
            .into_iter()
            .map(|(key, slot)| Item {
                key,
                entry: Some(slot.entry.clone()),
                remaining_ms: slot.lease.since_ms(now.mono),
            })
            .collect();
        let Some(lesson) = self.sessions.get_mut(peer).and_then(|session| session.lesson.as_mut()) else {
            return false;
        };
        lesson.after = after;
        lesson.sent += 1;
        lesson.complete = !more;
        let (number, continues_after) = (lesson.sent, lesson.continues_after);
        self.send(peer, Message::ResyncChunk(ResyncChunk { number, items, last: !more, continues_after }));
        more
    }

    fn item(&self, now: Now, key: &StickKey) -> Option<Item> {
        let slot = self.table.get(key)?;
        let remaining_ms = slot.lease.since_ms(now.mono);
        Some(Item { key: key.clone(), entry: Some(slot.entry.clone()), remaining_ms })
    }
}
