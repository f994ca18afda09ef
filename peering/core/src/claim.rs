//! Claims of this node: a question to the key's home, its budget, the next home, and the lone decision at the end.

use alloc::vec::Vec;

use crate::entry::{Entry, Rank, Reason};
use crate::id::{PeerId, ShardName, StickKey};
use crate::input::{ClaimReason, ClaimToken};
use crate::lease::Told;
use crate::message::{Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Message};
use crate::node::Node;
use crate::output::{Claimed, Output, Unstored};
use crate::time::{Instant, Now};
use crate::updates::Accepted;
use crate::verdict::{GATHER_MS, Ruling};

/// The most that a claim's budget grows by for the ways of probes.
const PROBE_WAY_MAX_MS: u64 = 1_000;
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
    Maint { failed: ShardName },
    Operator,
    Clear,
}

impl Asked {
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::Join => Reason::Claim,
            Self::Down { .. } => Reason::Down,
            Self::Maint { .. } | Self::Operator | Self::Clear => Reason::Operator,
        }
    }

    pub(crate) fn from_claim(claim: &Claim) -> Self {
        match (claim.reason, &claim.failed) {
            _ if claim.proposal.is_none() => Self::Clear,
            (Reason::Down, Some(failed)) => Self::Down { failed: failed.clone() },
            (Reason::Operator, Some(failed)) => Self::Maint { failed: failed.clone() },
            (Reason::Operator, None) => Self::Operator,
            (Reason::Down | Reason::Claim | Reason::Arbitration | Reason::End | Reason::Full, _) => {
                Self::Join
            }
        }
    }

    fn from_input(reason: ClaimReason) -> Self {
        match reason {
            ClaimReason::Join => Self::Join,
            ClaimReason::Down { failed } => Self::Down { failed },
            ClaimReason::Maint { failed } => Self::Maint { failed },
            ClaimReason::Operator => Self::Operator,
        }
    }

    /// The shard that is to be left.
    pub(crate) const fn failed(&self) -> Option<&ShardName> {
        match self {
            Self::Down { failed } | Self::Maint { failed } => Some(failed),
            Self::Join | Self::Operator | Self::Clear => None,
        }
    }

    /// Whether an entry on `shard` is the answer, so that nobody need be asked.
    fn settled_by(&self, shard: &ShardName) -> bool {
        match self {
            Self::Join => true,
            Self::Down { failed } | Self::Maint { failed } => shard != failed,
            Self::Operator | Self::Clear => false,
        }
    }
}

/// What requests of this node want to know of a key.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) waiters: Vec<ClaimToken>,
    /// `None` to clear the key.
    pub(crate) proposal: Option<ShardName>,
    pub(crate) asked: Asked,
    /// A home that was asked before, in vain.
    pub(crate) tried: Option<PeerId>,
}

/// A claim under way.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: u64,
    pub(crate) question: Question,
    /// The home asked now: this node while it has the shard probed.
    pub(crate) home: PeerId,
    /// When a peer has used up its budget; a round of this node's own has its own end.
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
            if pending.question.waiters.len() < self.config.waiters_max {
                pending.question.waiters.push(token);
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
            let question =
                Question { waiters: Vec::from([token]), proposal: Some(proposal), asked, tried: None };
            self.settle_here(now, key, question, Rank::Home);
            return;
        }
        // People who are here show where the conference is, even if the table does not: a node that starts anew has emptied it.
        let people = self.shard_of_most(&key).filter(|_| asked == Asked::Join);
        #[cfg(feature = "test-hooks")]
        let people = people.filter(|_| self.mutation != Some(crate::mutation::Mutation::JoinDisturbsPeople));
        let proposal = people.unwrap_or(proposal);
        let waiters = Vec::from([token]);
        self.ask(now, key, Question { waiters, proposal: Some(proposal), asked, tried: None });
    }

    /// An operator clears a key.
    pub(crate) fn clear(&mut self, now: Now, token: ClaimToken, key: StickKey) {
        self.stats.claims += 1;
        if self.pending.len() >= self.config.claims_max || self.pending.contains_key(&key) {
            self.unstored(token, Unstored::Overload);
            return;
        }
        let waiters = Vec::from([token]);
        self.ask(now, key, Question { waiters, proposal: None, asked: Asked::Clear, tried: None });
    }

    /// Asks the key's home, or decides when this node is it or there is none.
    pub(crate) fn ask(&mut self, now: Now, key: StickKey, question: Question) {
        let passed = if question.tried.is_none() { self.passed_to(&key) } else { None };
        let home = passed.or_else(|| self.home_of(&key, question.tried.as_ref()));
        let Some(home) = home.filter(|home| *home != self.config.me) else {
            let rank = if self.decides { Rank::Home } else { Rank::Alone };
            self.settle_here(now, key, question, rank);
            return;
        };
        let id = self.next_claim_id();
        self.stats.claims_asked += 1;
        let deadline = now.mono + self.budget_ms(&home, &question.asked);
        self.claim_deadlines.insert((deadline, id), key.clone());
        let pending = Pending { id, question, home, deadline };
        let claim = self.claim_message(now, &key, &pending);
        self.send(&pending.home, Message::Claim(claim));
        self.pending.insert(key, pending);
    }

    pub(crate) fn claim_message(&self, now: Now, key: &StickKey, pending: &Pending) -> Claim {
        Claim {
            id: pending.id,
            key: key.clone(),
            known: self.known(now, key),
            proposal: pending.question.proposal.clone(),
            reason: pending.question.asked.reason(),
            held: self.uses.holds(key),
            failed: pending.question.asked.failed().cloned(),
            tried: pending.question.tried.clone(),
            hops: 0,
        }
    }

    /// What this node knows of a key, for a home; not an end in its last moments.
    pub(crate) fn known(&self, now: Now, key: &StickKey) -> Option<(Entry, u64)> {
        let known = self.table.get(key).map(|slot| (slot.entry.clone(), slot.lease.since_ms(now.mono)));
        let fades_ms = self.config.tombstone_fades_ms();
        known.filter(|(entry, remaining_ms)| !entry.is_tombstone() || *remaining_ms >= fades_ms)
    }

    /// This node's own question stands among the pending ones until a round ends.
    pub(crate) fn wait_for_round(&mut self, key: StickKey, id: u64, question: Question, deadline: Instant) {
        self.pending.insert(key, Pending { id, question, home: self.config.me.clone(), deadline });
    }

    /// How long a home is given: max(300 ms, 2 × smoothed round trip + 100 ms), at most 1 s. One that has a shard probed also needs what its
    /// round takes; how far its peers are from it is not known here, so they are taken to be as far as the farthest is from this node.
    fn budget_ms(&self, home: &PeerId, asked: &Asked) -> u64 {
        let rtt_ms = self.sessions.get(home).map_or(0, |session| session.rtt_ms);
        let budget_ms = rtt_ms
            .saturating_mul(2)
            .saturating_add(100)
            .max(self.config.claim_budget_min_ms)
            .min(self.config.claim_budget_max_ms);
        if !matches!(asked, Asked::Down { .. }) {
            return budget_ms;
        }
        let farthest_ms =
            self.sessions.values().filter(|session| session.streaming()).map(|s| s.rtt_ms).max();
        let way_ms = farthest_ms.unwrap_or(0).saturating_mul(2).min(PROBE_WAY_MAX_MS);
        budget_ms + self.config.probe_budget_ms + GATHER_MS + way_ms
    }

    /// This node answers its own question: as the key's home, or alone. Before it leaves a shard that cannot be reached it has it probed.
    pub(crate) fn settle_here(&mut self, now: Now, key: StickKey, question: Question, rank: Rank) {
        if question.asked == Asked::Clear && rank == Rank::Alone {
            // What others may hold is not ended by somebody who hears nobody.
            for token in question.waiters {
                self.unstored(token, Unstored::NoHome);
            }
            return;
        }
        match self.ruling(now, &key, &question.asked) {
            Ruling::Decide => {}
            Ruling::Wait { shard } => {
                self.park_own(now, key, question, rank, &shard);
                return;
            }
            Ruling::Keep { shard } => {
                let via = self.keep(now, &key, &shard, None);
                self.used(now, &key, Told::ByClaim);
                self.keep_all(question.waiters, &shard, &via);
                return;
            }
        }
        let Question { waiters, proposal, asked, .. } = question;
        match self.decide(now, &key, proposal.as_ref(), &asked, rank, 0) {
            Ok(entry) => {
                if rank == Rank::Alone && entry.rank == Rank::Alone && self.lone.len() < LONE_MAX {
                    self.lone.insert(key.clone());
                }
                self.used(now, &key, Told::ByClaim);
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

    /// Everybody who waits hears that the key stays, and who reaches its shard.
    fn keep_all(&mut self, waiters: Vec<ClaimToken>, shard: &ShardName, via: &[PeerId]) {
        for token in waiters {
            self.answer(token, Claimed::Keep { shard: shard.clone(), via: via.to_vec() });
        }
    }

    pub(crate) fn refuse_all(&mut self, waiters: Vec<ClaimToken>, refusal: ClaimRefusal) {
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
            ClaimResult::Entry(entry, remaining_ms) | ClaimResult::Kept { entry, remaining_ms, .. } => {
                // Whoever asked for something else may hear of a move that it was not asked about.
                let asked = self.pending.get(&answer.key).map(|pending| &pending.question.asked);
                if entry.reason == Reason::Down && matches!(asked, Some(Asked::Down { .. })) {
                    self.arbitration.obeys(&answer.key);
                }
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
        if reclaimed && !matches!(answer.result, ClaimResult::Refused(_)) {
            self.lone.remove(&answer.key);
            if all {
                self.reclaim_lone(now, from);
            }
        }
        match answer.result {
            ClaimResult::Kept { entry, via, .. } => {
                let Some(pending) = self.take_pending_if(&answer.key, asked_this) else { return };
                let stands = self.table.shard(&answer.key).cloned();
                if stands.is_none() && accepted == Accepted::Merged {
                    self.begin_anew(now, answer.key, pending);
                    return;
                }
                self.used(now, &answer.key, Told::ByClaim);
                match entry.shard {
                    Some(shard) if stands.as_ref().is_none_or(|there| *there == shard) => {
                        self.keep_all(pending.question.waiters, &shard, &via);
                    }
                    // Something better than that answer has come before it.
                    _ => self.answer_all(pending.question.waiters, stands),
                }
            }
            ClaimResult::Entry(entry, _) => {
                self.remember_decided_for_us(now, from, &answer.key);
                if accepted == Accepted::NoRoom {
                    // The mesh has it, this node alone cannot: the answer holds all the same.
                    if let Some(pending) = self.take_pending_if(&answer.key, asked_this) {
                        self.answer_all(pending.question.waiters, entry.shard);
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
                        self.refuse_all(pending.question.waiters, refusal);
                        self.reclaim_after_clear(now, &answer.key, &pending.question.asked);
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
            None if pending.question.asked != Asked::Clear => {
                self.begin_anew(now, key.clone(), pending);
            }
            shard => {
                self.answer_all(pending.question.waiters, shard);
                self.reclaim_after_clear(now, key, &pending.question.asked);
            }
        }
    }

    /// The entry ended between the home's answer and its arrival. There is no shard to be left any more: nobody need probe one again.
    fn begin_anew(&mut self, now: Now, key: StickKey, pending: Pending) {
        let Question { waiters, proposal, asked, .. } = pending.question;
        let asked = if matches!(asked, Asked::Down { .. }) { Asked::Join } else { asked };
        let question = Question { waiters, proposal, asked, tried: None };
        self.next_home(now, key, Pending { question, ..pending });
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
        let settled = |pending: &Pending| pending.question.asked.settled_by(&shard);
        let Some(pending) = self.take_pending_if(key, settled) else { return };
        self.used(now, key, Told::ByClaim);
        self.answer_all(pending.question.waiters, Some(shard));
    }

    /// The home asked did not answer, refused or was lost: the next one is asked once, then this node decides alone.
    pub(crate) fn next_home(&mut self, now: Now, key: StickKey, pending: Pending) {
        let Pending { question, home, .. } = pending;
        if let Some(shard) = self.lookup(&key).filter(|shard| question.asked.settled_by(shard)).cloned() {
            self.answer_all(question.waiters, Some(shard));
        } else if question.asked == Asked::Clear {
            // Only the home has heard who holds the key.
            for token in question.waiters {
                self.unstored(token, Unstored::NoHome);
            }
        } else if question.tried.is_none() {
            self.ask(now, key, Question { tried: Some(home), ..question });
        } else {
            self.settle_here(now, key, question, Rank::Alone);
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

    pub(crate) fn take_pending_if(
        &mut self,
        key: &StickKey,
        wanted: impl Fn(&Pending) -> bool,
    ) -> Option<Pending> {
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
