//! Claims of this node: a question to the key's home, its budget, the next home, and the lone decision at the end.

use alloc::vec::Vec;

use crate::entry::{Rank, Reason};
use crate::id::{PeerId, ShardName, StickKey};
use crate::input::{ClaimReason, ClaimToken};
use crate::lease::Told;
use crate::message::{Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Message};
use crate::node::Node;
use crate::output::{Claimed, Output, Unstored};
use crate::time::{Instant, Now};
use crate::updates::Accepted;

/// How many lone decisions are remembered for a later claim. Beyond it they stay as they are and reconciliation spreads them.
const LONE_MAX: usize = 65_536;
/// How many answers of one home are remembered, and how long, to be announced if it is lost.
const DECIDED_FOR_US_MAX: usize = 1_024;
const DECIDED_FOR_US_MS: u64 = 5_000;

/// What is asked of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Join,
    Down { failed: ShardName },
    Operator,
    Clear,
}

impl Asked {
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::Join => Reason::Claim,
            Self::Down { .. } => Reason::Down,
            Self::Operator | Self::Clear => Reason::Operator,
        }
    }

    pub(crate) fn from_claim(claim: &Claim) -> Self {
        match (claim.reason, &claim.failed) {
            _ if claim.proposal.is_none() => Self::Clear,
            (Reason::Down, Some(failed)) => Self::Down { failed: failed.clone() },
            (Reason::Operator, _) => Self::Operator,
            (Reason::Down | Reason::Claim | Reason::Arbitration | Reason::End | Reason::Full, _) => {
                Self::Join
            }
        }
    }

    fn from_input(reason: ClaimReason) -> Self {
        match reason {
            ClaimReason::Join => Self::Join,
            ClaimReason::Down { failed } => Self::Down { failed },
            ClaimReason::Operator => Self::Operator,
        }
    }

    /// Whether an entry on `shard` is the answer, so that nobody need be asked.
    fn settled_by(&self, shard: &ShardName) -> bool {
        match self {
            Self::Join => true,
            Self::Down { failed } => shard != failed,
            Self::Operator | Self::Clear => false,
        }
    }
}

/// A claim under way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: u64,
    pub(crate) waiters: Vec<ClaimToken>,
    /// `None` to clear the key.
    proposal: Option<ShardName>,
    asked: Asked,
    /// The home asked now.
    pub(crate) home: PeerId,
    /// The home asked before it.
    tried: Option<PeerId>,
    pub(crate) deadline: Instant,
}

impl Node {
    /// A request of this node needs a decision.
    pub(crate) fn claim(
        &mut self,
        now: Now,
        token: ClaimToken,
        key: StickKey,
        proposal: ShardName,
        reason: ClaimReason,
    ) {
        self.stats.claims += 1;
        let asked = Asked::from_input(reason);
        if let Some(shard) = self.lookup(&key).filter(|shard| asked.settled_by(shard)).cloned() {
            self.used(now, &key, Told::NotYet);
            self.answer(token, Claimed::Stick { shard });
            return;
        }
        if let Some(pending) = self.pending.get_mut(&key) {
            if pending.waiters.len() < self.config.waiters_max {
                pending.waiters.push(token);
            } else {
                self.stats.waiters_full += 1;
                self.unstored(token, Unstored::Overload);
            }
            return;
        }
        if self.pending.len() >= self.config.claims_max {
            self.stats.claims_full += 1;
            self.unstored(token, Unstored::Overload);
            return;
        }
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::MoveWithoutClaim)
            && matches!(asked, Asked::Down { .. })
        {
            self.settle_here(now, &key, Vec::from([token]), Some(&proposal), &asked, Rank::Home);
            return;
        }
        self.ask(now, key, Vec::from([token]), Some(proposal), asked, None);
    }

    /// An operator clears a key.
    pub(crate) fn clear(&mut self, now: Now, token: ClaimToken, key: StickKey) {
        self.stats.claims += 1;
        if self.pending.len() >= self.config.claims_max || self.pending.contains_key(&key) {
            self.unstored(token, Unstored::Overload);
            return;
        }
        self.ask(now, key, Vec::from([token]), None, Asked::Clear, None);
    }

    /// Asks the key's home, or decides when this node is it or there is none.
    pub(crate) fn ask(
        &mut self,
        now: Now,
        key: StickKey,
        waiters: Vec<ClaimToken>,
        proposal: Option<ShardName>,
        asked: Asked,
        tried: Option<PeerId>,
    ) {
        let passed = if tried.is_none() { self.passed_to(&key) } else { None };
        let home = passed.or_else(|| self.home_of(&key, tried.as_ref()));
        let Some(home) = home.filter(|home| *home != self.config.me) else {
            let rank = if self.decides { Rank::Home } else { Rank::Alone };
            self.settle_here(now, &key, waiters, proposal.as_ref(), &asked, rank);
            return;
        };
        let id = self.next_claim_id();
        self.stats.claims_asked += 1;
        let deadline = now.mono + self.budget_ms(&home);
        self.claim_deadlines.insert((deadline, id), key.clone());
        let pending = Pending { id, waiters, proposal, asked, home, tried, deadline };
        let claim = self.claim_message(now, &key, &pending);
        self.send(&pending.home, Message::Claim(claim));
        self.pending.insert(key, pending);
    }

    pub(crate) fn claim_message(&self, now: Now, key: &StickKey, pending: &Pending) -> Claim {
        let known = self.table.get(key).map(|slot| (slot.entry.clone(), slot.lease.since_ms(now.mono)));
        let fades_ms = self.config.tombstone_fades_ms();
        Claim {
            id: pending.id,
            key: key.clone(),
            known: known.filter(|(entry, remaining_ms)| !entry.is_tombstone() || *remaining_ms >= fades_ms),
            proposal: pending.proposal.clone(),
            reason: pending.asked.reason(),
            held: self.uses.holds(key),
            failed: if let Asked::Down { failed } = &pending.asked { Some(failed.clone()) } else { None },
            tried: pending.tried.clone(),
            hops: 0,
        }
    }

    /// How long a home is given: max(300 ms, 2 × smoothed round trip + 100 ms), at most 1 s.
    fn budget_ms(&self, home: &PeerId) -> u64 {
        let rtt_ms = self.sessions.get(home).map_or(0, |session| session.rtt_ms);
        rtt_ms
            .saturating_mul(2)
            .saturating_add(100)
            .max(self.config.claim_budget_min_ms)
            .min(self.config.claim_budget_max_ms)
    }

    fn settle_here(
        &mut self,
        now: Now,
        key: &StickKey,
        waiters: Vec<ClaimToken>,
        proposal: Option<&ShardName>,
        asked: &Asked,
        rank: Rank,
    ) {
        if *asked == Asked::Clear && rank == Rank::Alone {
            // What others may hold is not ended by somebody who hears nobody.
            for token in waiters {
                self.unstored(token, Unstored::NoHome);
            }
            return;
        }
        match self.decide(now, key, proposal, asked, rank, 0) {
            Ok(entry) => {
                if rank == Rank::Alone && entry.rank == Rank::Alone && self.lone.len() < LONE_MAX {
                    self.lone.insert(key.clone());
                }
                self.used(now, key, Told::ByClaim);
                self.answer_all(waiters, entry.shard);
            }
            Err(refusal) => self.refuse_all(waiters, refusal),
        }
    }

    /// Everybody who waits gets the shard; none says that the key was cleared.
    fn answer_all(&mut self, waiters: Vec<ClaimToken>, shard: Option<ShardName>) {
        for token in waiters {
            let claimed = shard.clone().map_or(Claimed::Cleared, |shard| Claimed::Stick { shard });
            self.answer(token, claimed);
        }
    }

    fn refuse_all(&mut self, waiters: Vec<ClaimToken>, refusal: ClaimRefusal) {
        for token in waiters {
            match refusal {
                ClaimRefusal::TableFull => self.unstored(token, Unstored::TableFull),
                ClaimRefusal::NotReady | ClaimRefusal::Overload => self.unstored(token, Unstored::Overload),
                ClaimRefusal::Outranked => self.unstored(token, Unstored::Outranked),
                ClaimRefusal::Held => self.answer(token, Claimed::Held),
                ClaimRefusal::NoEntry => self.answer(token, Claimed::Cleared),
            }
        }
    }

    /// A home has answered.
    pub(crate) fn on_claim_answer(&mut self, now: Now, from: &PeerId, answer: ClaimAnswer) {
        let accepted = match &answer.result {
            ClaimResult::Entry(entry, remaining_ms) => {
                self.accept(now, from, &answer.key, entry, *remaining_ms)
            }
            ClaimResult::Refused(_) => Accepted::Merged,
        };
        if accepted == Accepted::Refused {
            return;
        }
        if self.pass_back(from, &answer) {
            return;
        }
        let session = self.sessions.get_mut(from);
        let (reclaimed, all) = session.map_or((false, false), |session| {
            (session.reclaimed.remove(&answer.key), session.reclaimed.is_empty())
        });
        let asked_this = |pending: &Pending| pending.id == answer.id && pending.home == *from;
        match answer.result {
            ClaimResult::Entry(entry, _) => {
                if reclaimed {
                    self.lone.remove(&answer.key);
                    if all {
                        self.reclaim_lone(now, from);
                    }
                }
                self.remember_decided_for_us(now, from, &answer.key);
                if accepted == Accepted::NoRoom {
                    // The mesh has it, this node alone cannot: the answer holds all the same.
                    if let Some(pending) = self.take_pending_if(&answer.key, asked_this) {
                        self.answer_all(pending.waiters, entry.shard);
                    }
                } else if self.pending.get(&answer.key).is_some_and(asked_this) {
                    self.finish(now, &answer.key);
                }
            }
            ClaimResult::Refused(refusal) => {
                let Some(pending) = self.take_pending_if(&answer.key, asked_this) else { return };
                match refusal {
                    ClaimRefusal::NotReady | ClaimRefusal::Overload => {
                        self.next_home(now, answer.key, pending);
                    }
                    ClaimRefusal::TableFull
                    | ClaimRefusal::Held
                    | ClaimRefusal::NoEntry
                    | ClaimRefusal::Outranked => {
                        self.refuse_all(pending.waiters, refusal);
                        self.reclaim_after_clear(now, &answer.key, &pending.asked);
                    }
                }
            }
        }
    }

    /// The home's answer has been merged: everybody who waits gets what the table says.
    fn finish(&mut self, now: Now, key: &StickKey) {
        let Some(pending) = self.take_pending_if(key, |_| true) else { return };
        self.used(now, key, Told::ByClaim);
        match self.table.shard(key).cloned() {
            None if pending.asked != Asked::Clear => {
                // The entry ended between the home's answer and its arrival: the claim starts anew.
                self.next_home(now, key.clone(), Pending { tried: None, ..pending });
            }
            shard => {
                self.answer_all(pending.waiters, shard);
                self.reclaim_after_clear(now, key, &pending.asked);
            }
        }
    }

    /// What was opened here while the key was being cleared, and could not be claimed because of that, is claimed now.
    fn reclaim_after_clear(&mut self, now: Now, key: &StickKey, asked: &Asked) {
        if *asked == Asked::Clear && self.uses.holds(key) && self.table.shard(key).is_none() {
            self.claim_for_sessions(now, key);
        }
    }

    /// A decision about the key came in while a claim is under way: it ends the wait if it settles what was asked.
    pub(crate) fn settle_by_update(&mut self, now: Now, key: &StickKey) {
        if !self.pending.contains_key(key) {
            return;
        }
        let Some(shard) = self.lookup(key).cloned() else { return };
        let Some(pending) = self.take_pending_if(key, |pending| pending.asked.settled_by(&shard)) else {
            return;
        };
        self.used(now, key, Told::ByClaim);
        self.answer_all(pending.waiters, Some(shard));
    }

    /// The home asked did not answer, refused or was lost: the next one is asked once, then this node decides alone.
    pub(crate) fn next_home(&mut self, now: Now, key: StickKey, pending: Pending) {
        let Pending { waiters, proposal, asked, home, tried, .. } = pending;
        if let Some(shard) = self.lookup(&key).filter(|shard| asked.settled_by(shard)).cloned() {
            self.answer_all(waiters, Some(shard));
        } else if asked == Asked::Clear {
            // Only the home has heard who holds the key.
            for token in waiters {
                self.unstored(token, Unstored::NoHome);
            }
        } else if tried.is_none() {
            self.ask(now, key, waiters, proposal, asked, Some(home));
        } else {
            self.settle_here(now, &key, waiters, proposal.as_ref(), &asked, Rank::Alone);
        }
    }

    /// Claims whose home has used up its budget. A home that missed one is not asked again until its next heartbeat.
    pub(crate) fn expire_claims(&mut self, now: Now) {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::ClaimWithoutFallback) {
            return;
        }
        while let Some(first) = self.claim_deadlines.first_entry() {
            if first.key().0 > now.mono {
                break;
            }
            let id = first.key().1;
            let key = first.remove();
            let Some(pending) = self.take_pending_if(&key, |pending| pending.id == id) else { continue };
            self.stats.claims_timed_out += 1;
            if let Some(session) = self.sessions.get_mut(&pending.home) {
                session.suspect = true;
            }
            self.next_home(now, key, pending);
        }
    }

    /// Claims that were asked of a peer which is lost.
    pub(crate) fn reask_claims_of(&mut self, now: Now, peer: &PeerId) {
        let keys: Vec<StickKey> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.home == *peer)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if let Some(pending) = self.take_pending_if(&key, |_| true) {
                self.next_home(now, key, pending);
            }
        }
    }

    /// Lone decisions are claimed at their homes as soon as these answer again.
    pub(crate) fn reclaim_lone(&mut self, now: Now, peer: &PeerId) {
        if self.lone.is_empty() {
            return;
        }
        // What this node is the home of by now needs nobody's consent.
        let mine: Vec<StickKey> = self.lone.iter().filter(|key| self.is_home_of(key)).cloned().collect();
        for key in mine {
            self.lone.remove(&key);
        }
        let budget = self.config.claims_max;
        let keys: Vec<StickKey> = self
            .lone
            .iter()
            .filter(|key| self.home_of(key, None).as_ref() == Some(peer))
            .filter(|key| self.sessions.get(peer).is_some_and(|session| !session.reclaimed.contains(*key)))
            .take(budget)
            .cloned()
            .collect();
        for key in keys {
            let Some(slot) = self.table.get(&key) else {
                self.lone.remove(&key);
                continue;
            };
            let Some(shard) = slot.entry.shard.clone() else {
                self.lone.remove(&key);
                continue;
            };
            let known = Some((slot.entry.clone(), self.remaining_ms(now, &key)));
            let id = self.next_claim_id();
            let claim = Claim {
                id,
                key: key.clone(),
                known,
                proposal: Some(shard),
                reason: Reason::Claim,
                held: self.uses.holds(&key),
                failed: None,
                tried: None,
                hops: 0,
            };
            self.send(peer, Message::Claim(claim));
            if let Some(session) = self.sessions.get_mut(peer) {
                session.reclaimed.insert(key);
            }
        }
    }

    /// If this home is lost before it could tell the others, this node does.
    fn remember_decided_for_us(&mut self, now: Now, home: &PeerId, key: &StickKey) {
        let Some(session) = self.sessions.get_mut(home) else { return };
        while session.decided_for_us.front().is_some_and(|(at, _)| now.mono.since_ms(*at) > DECIDED_FOR_US_MS)
            || session.decided_for_us.len() >= DECIDED_FOR_US_MAX
        {
            session.decided_for_us.pop_front();
        }
        session.decided_for_us.push_back((now.mono, key.clone()));
    }

    fn take_pending_if(&mut self, key: &StickKey, wanted: impl Fn(&Pending) -> bool) -> Option<Pending> {
        if !self.pending.get(key).is_some_and(wanted) {
            return None;
        }
        let pending = self.pending.remove(key)?;
        self.claim_deadlines.remove(&(pending.deadline, pending.id));
        Some(pending)
    }

    pub(crate) const fn next_claim_id(&mut self) -> u64 {
        self.claim_ids += 1;
        self.claim_ids
    }

    fn answer(&mut self, token: ClaimToken, claimed: Claimed) {
        self.outputs.push_back(Output::Answered { token, claimed });
    }

    pub(crate) fn unstored(&mut self, token: ClaimToken, why: Unstored) {
        match why {
            Unstored::TableFull | Unstored::NoHome | Unstored::Restarted | Unstored::Outranked => {}
            Unstored::Overload => self.stats.unstored_overload += 1,
        }
        self.answer(token, Claimed::Unstored { why });
    }
}
