//! Homes: which node decides about a key, and how it decides.

use crate::claim::Asked;
use crate::entry::{Entry, Rank, Reason};
use crate::hash::hash64;
use crate::id::{PeerId, ShardName, StickKey};
use crate::message::{Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Message};
use crate::node::{Node, PassedOn};
use crate::session::Session;
use crate::time::Now;
use crate::update_log::{LogKind, tag};
use crate::updates::Accepted;
use crate::verdict::Ruling;

/// The first of `peers` for `key` by rendezvous hash (highest random weight; Thaler and Ravishankar 1996): when one of
/// them goes, only its keys get another home.
#[must_use]
pub fn first_by_rendezvous<'p>(
    key: &StickKey,
    peers: impl Iterator<Item = &'p PeerId>,
) -> Option<&'p PeerId> {
    let key_hash = hash64(key.as_str().as_bytes(), 0);
    peers.max_by_key(|peer| (hash64(peer.as_str().as_bytes(), key_hash), core::cmp::Reverse(*peer)))
}

impl Node {
    /// The key's home as this node sees it: among the ready nodes, itself if it is ready, without those that are suspect or `tried`.
    pub(crate) fn home_of(&self, key: &StickKey, tried: Option<&PeerId>) -> Option<PeerId> {
        #[cfg(feature = "test-hooks")]
        let unready = self.mutation == Some(crate::mutation::Mutation::UnreadyHomeAnswers);
        #[cfg(not(feature = "test-hooks"))]
        let unready = false;
        let me = (self.decides || unready).then_some(&self.config.me);
        let peers = self.sessions.iter().filter(|(_, session)| session.may_be_home()).map(|(peer, _)| peer);
        first_by_rendezvous(key, peers.chain(me).filter(|peer| Some(*peer) != tried)).cloned()
    }

    pub(crate) fn is_home_of(&self, key: &StickKey) -> bool {
        self.home_of(key, None).as_ref() == Some(&self.config.me)
    }

    /// The key's home when all are there: the first of all listed nodes, connected or not.
    pub(crate) fn first_listed(&self, key: &StickKey) -> Option<&PeerId> {
        let listed = self.sessions.iter().filter(|(_, session)| session.listed).map(|(peer, _)| peer);
        first_by_rendezvous(key, listed.chain([&self.config.me]))
    }

    pub(crate) fn is_first_listed(&self, key: &StickKey) -> bool {
        self.first_listed(key) == Some(&self.config.me)
    }

    /// Who is told of uses: who will end the key, even if it missed a claim's budget or is still learning, and its present home, mostly
    /// the same. For a ttl from a change of the list also whoever ends it where the newest nodes are not listed yet.
    pub(crate) fn report_to(&self, now: Now, key: &StickKey) -> impl Iterator<Item = PeerId> + use<> {
        let hears = |peer: &&PeerId| {
            **peer == self.config.me || self.sessions.get(*peer).is_some_and(Session::streaming)
        };
        let first = self.first_listed(key).filter(hears).cloned();
        let home = self.home_of(key, None).filter(|home| first.as_ref() != Some(home));
        let before = self.first_listed_before(now, key).filter(hears).cloned();
        let before = before.filter(|peer| first.as_ref() != Some(peer) && home.as_ref() != Some(peer));
        first.into_iter().chain(home).chain(before)
    }

    /// The first of the nodes that have been listed for a ttl, if some have not: where discovery lags, they are all that others know.
    fn first_listed_before(&self, now: Now, key: &StickKey) -> Option<&PeerId> {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::NewHomeAlone) {
            return None;
        }
        let ttl_ms = self.config.ttl_ms;
        if now.mono.since_ms(self.listed_at) >= ttl_ms {
            return None;
        }
        let known = |session: &Session| session.listed && now.mono.since_ms(session.listed_since) >= ttl_ms;
        let known = self.sessions.iter().filter(|(_, session)| known(session)).map(|(peer, _)| peer);
        first_by_rendezvous(key, known.chain([&self.config.me]))
    }

    /// Compare-and-set: answers the live entry when it stands against the wish, else records the proposal and announces it. Without a
    /// proposal the key is cleared. `after` is the generation of an end that the asker knows and this table has no place for.
    pub(crate) fn decide(
        &mut self,
        now: Now,
        key: &StickKey,
        proposal: Option<&ShardName>,
        asked: &Asked,
        rank: Rank,
        after: u32,
    ) -> Result<Entry, ClaimRefusal> {
        let Some(proposal) = proposal else { return self.clear_as_home(now, key) };
        let current = self.table.get(key).map(|slot| slot.entry.clone());
        let generation = match &current {
            Some(entry) if !self.may_replace(now, key, entry, proposal, asked) => {
                self.renew(now, key, now.mono + self.config.ttl_ms);
                return Ok(entry.clone());
            }
            Some(entry) => entry.generation,
            None => 0,
        };
        let generation = generation.max(after).saturating_add(1).min(crate::GENERATION_MAX);
        if current.as_ref().is_none_or(Entry::is_tombstone) && !self.has_room(now) {
            self.stats.unstored_full += 1;
            return Err(ClaimRefusal::TableFull);
        }
        let entry = Entry {
            shard: Some(proposal.clone()),
            generation,
            rank,
            created: self.clock.stamp(now.wall),
            origin: self.config.me.clone(),
            reason: asked.reason(),
        };
        // At the highest generation what stands there may win.
        if let Some(stands) = current.as_ref().filter(|stands| entry.precedence(stands).is_ge()) {
            return if stands.is_tombstone() { Err(ClaimRefusal::Outranked) } else { Ok(stands.clone()) };
        }
        match rank {
            Rank::Home => self.stats.decided_home += 1,
            Rank::Alone => self.stats.decided_alone += 1,
        }
        if current.is_some_and(|entry| !entry.is_tombstone()) {
            self.stats.moved += 1;
            self.moved_at.insert(key.clone(), now.mono);
        }
        self.record(now, key, &entry);
        Ok(entry)
    }

    /// An operator's clear: ends what nobody holds.
    fn clear_as_home(&mut self, now: Now, key: &StickKey) -> Result<Entry, ClaimRefusal> {
        if self.table.shard(key).is_none() {
            return Err(ClaimRefusal::NoEntry);
        }
        if self.held_somewhere(now, key) {
            return Err(ClaimRefusal::Held);
        }
        // A stand-in may be one in its own eyes alone, while the holders report to the first.
        if !self.is_first_listed(key) || !self.hears_holders(now) {
            return Err(ClaimRefusal::NotReady);
        }
        self.end(now, key, Reason::Operator);
        // At the bounds an end is a drop, and there is nothing to tell.
        self.table.get(key).map(|slot| slot.entry.clone()).ok_or(ClaimRefusal::NoEntry)
    }

    /// Whether the home sees a reason to decide anew.
    fn may_replace(
        &self,
        now: Now,
        key: &StickKey,
        entry: &Entry,
        proposal: &ShardName,
        asked: &Asked,
    ) -> bool {
        let Some(shard) = &entry.shard else { return true };
        match asked {
            Asked::Join | Asked::Clear => false,
            Asked::Down { failed } | Asked::Maint { failed } => {
                let paused = self
                    .moved_at
                    .get(key)
                    .is_some_and(|at| now.mono.since_ms(*at) < self.config.move_pause_ms);
                shard == failed && shard != proposal && !paused
            }
            Asked::Operator => shard != proposal,
        }
    }

    /// Merges an own decision, tells the read view and every peer.
    pub(crate) fn record(&mut self, now: Now, key: &StickKey, entry: &Entry) {
        let lease = if entry.is_tombstone() {
            now.mono + self.config.tombstone_ms()
        } else {
            now.mono + self.config.ttl_ms
        };
        self.merge(now, key, entry, lease);
        self.announce(key, LogKind::Decision);
    }

    pub(crate) fn announce(&mut self, key: &StickKey, kind: LogKind) {
        if self.sessions.is_empty() {
            self.log.skip();
            return;
        }
        let number = self.log.push(key.clone(), kind);
        if let (LogKind::Decision, Some(slot)) = (kind, self.table.get_mut(key)) {
            slot.logged = tag(number);
        }
    }

    /// A peer asks this node as the home of a key.
    pub(crate) fn on_claim(&mut self, now: Now, from: &PeerId, claim: Claim) {
        let accepted = match &claim.known {
            Some((entry, remaining_ms)) => self.accept(now, from, &claim.key, entry, *remaining_ms),
            None => Accepted::Merged,
        };
        let after = match (accepted, &claim.known) {
            (Accepted::Refused, _) => return,
            (Accepted::NoRoom, Some((entry, _))) if entry.is_tombstone() => entry.generation,
            _ => 0,
        };
        self.take_claim(now, from, claim, accepted, after);
    }

    /// What the asker knew has been merged: the claim is passed on, answered, or waits until its shard has been probed.
    pub(crate) fn take_claim(
        &mut self,
        now: Now,
        from: &PeerId,
        claim: Claim,
        accepted: Accepted,
        after: u32,
    ) {
        let home = self.home_of(&claim.key, claim.tried.as_ref());
        let passed = if claim.tried.is_none() { self.passed_to(&claim.key) } else { None };
        let elsewhere = passed.or(home).filter(|home| *home != self.config.me);
        if self.ready
            && let Some(home) = elsewhere
            && self.passes_on(from, &home, &claim)
        {
            self.pass_on(now, from, &home, claim);
            return;
        }
        let stands = self.table.get(&claim.key);
        let no_room = accepted == Accepted::NoRoom
            && claim.known.as_ref().is_some_and(|(entry, _)| {
                !entry.is_tombstone() && stands.is_none_or(|slot| entry.precedence(&slot.entry).is_lt())
            });
        let result = if self.may_answer() && no_room {
            // The mesh has an entry that this table has no place for: another decision would stand against it.
            ClaimResult::Refused(ClaimRefusal::TableFull)
        } else if self.may_answer() {
            let asked = Asked::from_claim(&claim);
            if claim.held {
                self.note_held(now, &claim.key);
            }
            match self.ruling(now, &claim.key, &asked) {
                Ruling::Decide => {}
                Ruling::Wait { shard } => {
                    self.park_claim(now, from, claim, &shard);
                    return;
                }
                Ruling::Keep { shard } => {
                    self.answer_kept(now, from, claim, &shard);
                    return;
                }
            }
            match self.decide(now, &claim.key, claim.proposal.as_ref(), &asked, Rank::Home, after) {
                Ok(entry) => {
                    if claim.held {
                        self.note_held(now, &claim.key);
                    }
                    ClaimResult::Entry(entry, self.remaining_ms(now, &claim.key))
                }
                Err(refusal) => ClaimResult::Refused(refusal),
            }
        } else {
            ClaimResult::Refused(ClaimRefusal::NotReady)
        };
        let answer = ClaimAnswer { id: claim.id, key: claim.key, result };
        self.send(from, Message::ClaimAnswer(answer));
    }

    /// Where a claim for this key was passed on and is not answered yet: it is decided there, even if this node has become its home
    /// meanwhile.
    pub(crate) fn passed_to(&self, key: &StickKey) -> Option<PeerId> {
        let passed = self.passed_on.values().find(|passed| passed.key == *key)?;
        Some(passed.home.clone())
    }

    /// Only a node whose readiness everybody has heard of decides for others.
    const fn may_answer(&self) -> bool {
        #[cfg(feature = "test-hooks")]
        if matches!(self.mutation, Some(crate::mutation::Mutation::UnreadyHomeAnswers)) {
            return true;
        }
        self.decides
    }

    /// By this node's list another one is the home: the claim goes on once, never twice, and never back.
    fn passes_on(&self, from: &PeerId, home: &PeerId, claim: &Claim) -> bool {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::PassOnUnlimited) {
            return true;
        }
        home != from && claim.hops == 0
    }

    fn pass_on(&mut self, now: Now, from: &PeerId, home: &PeerId, claim: Claim) {
        if self.passed_on.len() >= self.config.claims_max {
            self.refuse_claim(from, claim.id, claim.key, ClaimRefusal::Overload);
            return;
        }
        self.stats.claims_passed_on += 1;
        let id = self.next_claim_id();
        let (key, asker) = (claim.key.clone(), from.clone());
        let passed = PassedOn { at: now.mono, key, home: home.clone(), asker, id: claim.id };
        self.passed_on.insert(id, passed);
        self.send(home, Message::Claim(Claim { id, hops: claim.hops + 1, ..claim }));
    }

    /// Claims that were passed on to a home which is lost: their askers go on to the next one.
    pub(crate) fn refuse_passed_to(&mut self, lost: &PeerId) {
        let ids = self.passed_on.iter().filter(|(_, passed)| passed.home == *lost).map(|(id, _)| *id);
        let ids: alloc::vec::Vec<u64> = ids.collect();
        for id in ids {
            let Some(PassedOn { asker, id, key, .. }) = self.passed_on.remove(&id) else { continue };
            self.refuse_claim(&asker, id, key, ClaimRefusal::NotReady);
        }
    }

    pub(crate) fn refuse_claim(&mut self, asker: &PeerId, id: u64, key: StickKey, refusal: ClaimRefusal) {
        let result = ClaimResult::Refused(refusal);
        self.send(asker, Message::ClaimAnswer(ClaimAnswer { id, key, result }));
    }

    /// The answer to a claim that was passed on goes back to its asker.
    pub(crate) fn pass_back(&mut self, from: &PeerId, answer: &ClaimAnswer) -> bool {
        if self.passed_on.get(&answer.id).is_none_or(|passed| passed.home != *from) {
            return false;
        }
        let Some(PassedOn { asker, id, .. }) = self.passed_on.remove(&answer.id) else { return false };
        self.send(&asker, Message::ClaimAnswer(ClaimAnswer { id, ..answer.clone() }));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;

    #[test]
    fn a_lost_peer_gives_only_its_own_keys_another_home() {
        let peers: Vec<PeerId> = (0..8).map(|n| PeerId::parse(&format!("p{n}")).unwrap()).collect();
        let mut share = [0_u32; 8];
        for n in 0..8_000 {
            let key = StickKey::parse(&format!("room-{n}")).unwrap();
            let home = first_by_rendezvous(&key, peers.iter()).unwrap();
            let index = peers.iter().position(|peer| peer == home).unwrap();
            share[index] += 1;
            let without_last = first_by_rendezvous(&key, peers[..7].iter()).unwrap();
            assert!(index == 7 || home == without_last);
        }
        assert!(share.iter().all(|n| (850..1_150).contains(n)), "{share:?}");
    }
}
