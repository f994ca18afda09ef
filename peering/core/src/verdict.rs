//! Who may call a shard dead. A node that cannot reach one says nothing about the shard, perhaps: before a home moves a key away it has every
//! connected peer probe the shard, and one such round tells about all keys on it. If anybody reaches it, the keys stay, and who asked hears
//! by whom it is reached.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::claim::{Asked, Question};
use crate::entry::Rank;
use crate::id::{PeerId, ShardName, StickKey};
use crate::input::{ProbeId, Reached};
use crate::message::{Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Message};
use crate::node::Node;
use crate::output::Output;
use crate::time::{Instant, Now};
use crate::updates::Accepted;

/// How many nodes that reach a shard are told to who does not: one is enough, and some of them may be busy.
pub const VIA_MAX: usize = 8;

/// When somebody reaches the shard the others have so much longer, so that there is a choice.
pub(crate) const GATHER_MS: u64 = 100;

/// Shards that are asked about, or were a moment ago. Beyond it claims are refused: meshes have some hundreds of shards.
const SHARDS_MAX: usize = 1_024;
/// Probes under way for one peer. Beyond it the answer is No: a home asks about each shard once a second at most.
const PROBES_PER_PEER_MAX: usize = SHARDS_MAX;
/// After so many budgets nobody waits for a probe any more.
const PROBE_FORGOTTEN_BUDGETS: u64 = 2;

/// What a node knows of shards that somebody could not reach.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    shards: BTreeMap<ShardName, Inquiry>,
    /// When rounds end, for each that is under way.
    ends: BTreeSet<(Instant, ShardName)>,
    /// The number of the last round. It only grows, and connections end before a process does: an answer to an earlier round never counts.
    rounds: u64,
    /// Claims that wait, in all rounds.
    parked: usize,
    /// Probes of this node under way. Their numbers are its own, so that what was meant for a peer's earlier start is not taken for the present.
    probes: BTreeMap<ProbeId, Probe>,
    probe_ids: u64,
    /// Rounds of peers that wait for such a probe.
    asked: BTreeMap<PeerId, BTreeMap<u64, ProbeId>>,
}

/// What is known of a shard.
#[derive(Debug)]
enum Inquiry {
    /// Probes are under way.
    Gathering(Round),
    /// They are over.
    Ended {
        at: Instant,
        /// Who reached it.
        by: BTreeSet<PeerId>,
    },
}

#[derive(Debug)]
struct Round {
    number: u64,
    ends: Instant,
    /// Who has not answered.
    waits_for: BTreeSet<PeerId>,
    /// Who has.
    heard: BTreeSet<PeerId>,
    reached_by: BTreeSet<PeerId>,
    /// Claims that wait for the end, in their order.
    parked: Vec<Parked>,
    /// Those of peers among them.
    claims: BTreeSet<(PeerId, u64)>,
}

#[derive(Debug)]
enum Parked {
    /// A peer's.
    Claim { from: PeerId, claim: Claim },
    /// This node's own, which stands among its pending ones.
    Own { key: StickKey, id: u64, rank: Rank },
}

/// A probe under way.
#[derive(Debug)]
struct Probe {
    asker: PeerId,
    round: u64,
    shard: ShardName,
    since: Instant,
}

/// What is to be done with a claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It is decided now.
    Decide,
    /// It waits for the probes of this shard.
    Wait { shard: ShardName },
    /// The key stays on this shard, which others reach.
    Keep { shard: ShardName },
}

impl Verdicts {
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Nothing of it holds any more. Numbers go on.
    pub(crate) fn clear(&mut self) {
        let Self { rounds, probe_ids, .. } = *self;
        *self = Self { rounds, probe_ids, ..Self::default() };
    }

    /// Who reached a shard, if that was found out less than `fresh_ms` ago.
    fn fresh(&self, now: Now, shard: &ShardName, fresh_ms: u64) -> Option<&BTreeSet<PeerId>> {
        match self.shards.get(shard)? {
            Inquiry::Ended { at, by } if now.mono.since_ms(*at) <= fresh_ms => Some(by),
            Inquiry::Ended { .. } | Inquiry::Gathering(_) => None,
        }
    }

    /// When the probes of a shard will be over, if there are any.
    pub(crate) fn under_way_until(&self, shard: &ShardName) -> Option<Instant> {
        match self.shards.get(shard)? {
            Inquiry::Gathering(round) => Some(round.ends),
            Inquiry::Ended { .. } => None,
        }
    }

    fn under_way(&mut self, shard: &ShardName) -> Option<&mut Round> {
        match self.shards.get_mut(shard)? {
            Inquiry::Gathering(round) => Some(round),
            Inquiry::Ended { .. } => None,
        }
    }

    fn forget_stale(&mut self, now: Now, fresh_ms: u64) {
        self.shards.retain(|_, inquiry| match inquiry {
            Inquiry::Gathering(_) => true,
            Inquiry::Ended { at, .. } => now.mono.since_ms(*at) <= fresh_ms,
        });
    }

    /// A round that is under way ends at this moment at the latest.
    fn ends_by(&mut self, shard: &ShardName, at: Instant) {
        let Some(round) = self.under_way(shard) else { return };
        let before = round.ends;
        round.ends = before.min(at);
        let after = round.ends;
        self.ends.remove(&(before, shard.clone()));
        self.ends.insert((after, shard.clone()));
    }

    fn forget_probe(&mut self, id: ProbeId) -> Option<Probe> {
        let probe = self.probes.remove(&id)?;
        if let Some(rounds) = self.asked.get_mut(&probe.asker) {
            rounds.remove(&probe.round);
            if rounds.is_empty() {
                self.asked.remove(&probe.asker);
            }
        }
        Some(probe)
    }
}

impl Node {
    /// Whether a claim may be decided now: one that says of a key's shard that it cannot be reached needs the word of all who are connected. If
    /// the key may not move now, or there is nowhere else to go, they tell by whom that shard is reached.
    pub(crate) fn ruling(&self, now: Now, key: &StickKey, asked: &Asked) -> Ruling {
        #[cfg(feature = "test-hooks")]
        if matches!(
            self.mutation,
            Some(crate::mutation::Mutation::MoveWithoutProbe | crate::mutation::Mutation::MoveWithoutClaim)
        ) {
            return Ruling::Decide;
        }
        let Asked::Down { failed } = asked else { return Ruling::Decide };
        if self.table.shard(key) != Some(failed) {
            return Ruling::Decide;
        }
        match self.verdicts.fresh(now, failed, self.config.verdict_fresh_ms) {
            Some(by) if by.is_empty() => Ruling::Decide,
            Some(_) => Ruling::Keep { shard: failed.clone() },
            None => Ruling::Wait { shard: failed.clone() },
        }
    }

    /// A key stays on a shard that others reach: it lives on, and who asked (`None`: this node) is told some of them, itself first of all.
    pub(crate) fn keep(
        &mut self,
        now: Now,
        key: &StickKey,
        shard: &ShardName,
        asker: Option<&PeerId>,
    ) -> Vec<PeerId> {
        self.stats.claims_kept += 1;
        self.renew(now, key, now.mono + self.config.ttl_ms);
        let asker = asker.unwrap_or(&self.config.me);
        let by = self.verdicts.fresh(now, shard, self.config.verdict_fresh_ms);
        let itself = by.is_some_and(|by| by.contains(asker)).then_some(asker);
        let others = by.into_iter().flatten().filter(|peer| *peer != asker);
        let mut via: Vec<PeerId> = itself.into_iter().chain(others).take(VIA_MAX).cloned().collect();
        via.sort();
        via
    }

    /// Tells a peer that its key stays.
    pub(crate) fn answer_kept(&mut self, now: Now, from: &PeerId, claim: Claim, shard: &ShardName) {
        let via = self.keep(now, &claim.key, shard, Some(from));
        let remaining_ms = self.remaining_ms(now, &claim.key);
        let Some(entry) = self.table.get(&claim.key).map(|slot| slot.entry.clone()) else { return };
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::KeepMoves) {
            let asked = Asked::from_claim(&claim);
            drop(self.decide(now, &claim.key, claim.proposal.as_ref(), &asked, Rank::Home, 0));
        }
        let result = ClaimResult::Kept { entry, remaining_ms, via };
        self.send(from, Message::ClaimAnswer(ClaimAnswer { id: claim.id, key: claim.key, result }));
    }

    /// This node's own question waits among its pending ones until the shard has been probed.
    pub(crate) fn park_own(
        &mut self,
        now: Now,
        key: StickKey,
        question: Question,
        rank: Rank,
        shard: &ShardName,
    ) {
        let id = self.next_claim_id();
        let Some(round) = self.round_to_wait_for(now, shard) else {
            self.refuse_all(question.waiters, ClaimRefusal::Overload);
            return;
        };
        round.parked.push(Parked::Own { key: key.clone(), id, rank });
        let deadline = round.ends;
        self.verdicts.parked += 1;
        self.wait_for_round(key, id, question, deadline);
    }

    /// A peer's claim waits until the shard has been probed. One that came twice is answered once.
    pub(crate) fn park_claim(&mut self, now: Now, from: &PeerId, claim: Claim, shard: &ShardName) {
        let name = (from.clone(), claim.id);
        if self.verdicts.under_way(shard).is_some_and(|round| round.claims.contains(&name)) {
            return;
        }
        let Some(round) = self.round_to_wait_for(now, shard) else {
            self.refuse_claim(from, claim.id, claim.key, ClaimRefusal::Overload);
            return;
        };
        round.claims.insert(name);
        round.parked.push(Parked::Claim { from: from.clone(), claim });
        self.verdicts.parked += 1;
    }

    /// The round about a shard, a new one if there is none, while there is room for another claim.
    fn round_to_wait_for(&mut self, now: Now, shard: &ShardName) -> Option<&mut Round> {
        if self.verdicts.parked >= self.config.claims_max {
            self.stats.claims_parked_full += 1;
            return None;
        }
        if self.verdicts.under_way(shard).is_none() {
            let known = &self.verdicts.shards;
            if known.len() >= SHARDS_MAX && !known.contains_key(shard) {
                self.verdicts.forget_stale(now, self.config.verdict_fresh_ms);
            }
            if self.verdicts.shards.len() >= SHARDS_MAX {
                self.stats.claims_parked_full += 1;
                return None;
            }
            self.begin_round(now, shard);
        }
        self.verdicts.under_way(shard)
    }

    /// Has a shard probed about which nothing is known, as far as there is room.
    pub(crate) fn probe_unless_known(&mut self, now: Now, shard: &ShardName) {
        if self.verdicts.fresh(now, shard, self.config.verdict_fresh_ms).is_none() {
            self.round_to_wait_for(now, shard);
        }
    }

    /// Whether everybody has just found that nobody reaches a shard.
    pub(crate) fn is_dead(&self, now: Now, shard: &ShardName) -> bool {
        self.verdicts.fresh(now, shard, self.config.verdict_fresh_ms).is_some_and(BTreeSet::is_empty)
    }

    /// This node and everybody it is connected to probes the shard now.
    fn begin_round(&mut self, now: Now, shard: &ShardName) {
        self.stats.rounds += 1;
        self.verdicts.rounds += 1;
        let number = self.verdicts.rounds;
        let me = self.config.me.clone();
        let peers = self.streaming_peers();
        let ends = now.mono + self.config.probe_budget_ms;
        #[cfg(feature = "test-hooks")]
        let ends = if self.mutation == Some(crate::mutation::Mutation::RoundWithoutEnd) {
            Instant(u64::MAX)
        } else {
            ends
        };
        let round = Round {
            number,
            ends,
            waits_for: peers.iter().chain([&me]).cloned().collect(),
            heard: BTreeSet::new(),
            reached_by: BTreeSet::new(),
            parked: Vec::new(),
            claims: BTreeSet::new(),
        };
        self.verdicts.shards.insert(shard.clone(), Inquiry::Gathering(round));
        self.verdicts.ends.insert((ends, shard.clone()));
        self.probe(now, me, number, shard.clone());
        for peer in peers {
            self.send(&peer, Message::ProbeAsk { round: number, shard: shard.clone() });
        }
    }

    fn probe(&mut self, now: Now, asker: PeerId, round: u64, shard: ShardName) {
        self.verdicts.probe_ids += 1;
        let id = ProbeId(self.verdicts.probe_ids);
        self.verdicts.asked.entry(asker.clone()).or_default().insert(round, id);
        let probe = Probe { asker: asker.clone(), round, shard: shard.clone(), since: now.mono };
        self.verdicts.probes.insert(id, probe);
        self.outputs.push_back(Output::Probe { probe: id, asker, shard });
    }

    /// A home asks whether this node reaches a shard.
    pub(crate) fn on_probe_ask(&mut self, now: Now, peer: &PeerId, round: u64, shard: ShardName) {
        let under_way = self.verdicts.asked.get(peer);
        if under_way.is_some_and(|rounds| rounds.contains_key(&round)) {
            return;
        }
        if under_way.is_some_and(|rounds| rounds.len() >= PROBES_PER_PEER_MAX) {
            self.stats.probes_refused += 1;
            self.send(peer, Message::ProbeAnswer { round, shard, reached: Reached::No });
            return;
        }
        self.probe(now, peer.clone(), round, shard);
    }

    /// A probe of this node is over.
    pub(crate) fn probed(&mut self, now: Now, probe: ProbeId, reached: Reached) {
        let Some(Probe { asker, round, shard, .. }) = self.verdicts.forget_probe(probe) else {
            self.stats.probe_answers_late += 1;
            return;
        };
        if asker == self.config.me {
            self.on_probe_answer(now, &asker, round, &shard, reached);
        } else {
            self.stats.probes_answered += 1;
            self.send(&asker, Message::ProbeAnswer { round, shard, reached });
        }
    }

    /// Somebody who was asked in a round has an answer. One to an earlier round, or a second one, does not count.
    pub(crate) fn on_probe_answer(
        &mut self,
        now: Now,
        peer: &PeerId,
        number: u64,
        shard: &ShardName,
        reached: Reached,
    ) {
        #[cfg(feature = "test-hooks")]
        let any_round = self.mutation == Some(crate::mutation::Mutation::LateProbeCounted);
        #[cfg(not(feature = "test-hooks"))]
        let any_round = false;
        let round = self.verdicts.under_way(shard).filter(|round| round.number == number || any_round);
        let Some(round) = round.filter(|round| round.waits_for.contains(peer)) else {
            self.stats.probe_answers_late += 1;
            return;
        };
        round.waits_for.remove(peer);
        round.heard.insert(peer.clone());
        let first = reached == Reached::Yes && round.reached_by.is_empty();
        if reached == Reached::Yes {
            round.reached_by.insert(peer.clone());
        }
        if round.waits_for.is_empty() {
            self.verdicts.ends_by(shard, now.mono);
        } else if first {
            self.verdicts.ends_by(shard, now.mono + GATHER_MS);
        }
    }

    /// The connection to a peer is gone, or another one: nobody waits for answers to what it asked on it.
    pub(crate) fn forget_questions_of(&mut self, peer: &PeerId) {
        for id in self.verdicts.asked.remove(peer).into_iter().flat_map(BTreeMap::into_values) {
            self.verdicts.probes.remove(&id);
        }
        let mut gone = 0;
        for inquiry in self.verdicts.shards.values_mut() {
            let Inquiry::Gathering(round) = inquiry else { continue };
            let before = round.parked.len();
            round.parked.retain(|parked| !matches!(parked, Parked::Claim { from, .. } if from == peer));
            round.claims.retain(|(from, _)| from != peer);
            gone += before - round.parked.len();
        }
        self.verdicts.parked -= gone;
    }

    /// A peer is gone: nobody waits for its probes any more, it counts as one that does not reach the shard.
    pub(crate) fn forget_answers_of(&mut self, now: Now, peer: &PeerId) {
        let mut over = Vec::new();
        for (shard, inquiry) in &mut self.verdicts.shards {
            let Inquiry::Gathering(round) = inquiry else { continue };
            if round.waits_for.remove(peer) && round.waits_for.is_empty() {
                over.push(shard.clone());
            }
        }
        for shard in over {
            self.verdicts.ends_by(&shard, now.mono);
        }
    }

    /// A peer is there, or by another connection: what it answered on the one before may never arrive. It follows moves from shards that are dead,
    /// so it is asked in every round that it has not answered, and what was found out without it holds no longer.
    pub(crate) fn ask_who_comes(&mut self, peer: &PeerId) {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::NewcomerNotAsked) {
            return;
        }
        let mut asks = Vec::new();
        self.verdicts.shards.retain(|shard, inquiry| match inquiry {
            Inquiry::Gathering(round) => {
                if !round.heard.contains(peer) {
                    round.waits_for.insert(peer.clone());
                    asks.push(Message::ProbeAsk { round: round.number, shard: shard.clone() });
                }
                true
            }
            Inquiry::Ended { by, .. } => !by.is_empty(),
        });
        for ask in asks {
            self.send(peer, ask);
        }
    }

    /// Rounds whose time is over, or that everybody has answered: what waited is decided, or stays.
    pub(crate) fn end_rounds(&mut self, now: Now) {
        while self.verdicts.next_end().is_some_and(|at| at <= now.mono)
            && let Some((_, shard)) = self.verdicts.ends.pop_first()
        {
            let Some(Inquiry::Gathering(round)) = self.verdicts.shards.remove(&shard) else { continue };
            let Round { reached_by, parked, .. } = round;
            if reached_by.is_empty() {
                self.stats.verdicts_dead += 1;
            } else {
                self.stats.verdicts_kept += 1;
            }
            self.verdicts.shards.insert(shard, Inquiry::Ended { at: now.mono, by: reached_by });
            self.verdicts.parked -= parked.len();
            self.arbitration.probes_are_over(now);
            for parked in parked {
                self.go_on(now, parked);
            }
        }
    }

    /// A claim that waited for probes takes the way that it would take now: this node may be the key's home no longer.
    fn go_on(&mut self, now: Now, parked: Parked) {
        match parked {
            Parked::Claim { from, claim } => {
                let known = self.known(now, &claim.key);
                self.take_claim(now, &from, Claim { known, ..claim }, Accepted::Merged, 0);
            }
            Parked::Own { key, id, rank } => {
                let Some(pending) = self.take_pending_if(&key, |pending| pending.id == id) else { return };
                let asked_in_vain = rank == Rank::Alone && pending.question.tried.is_some();
                if asked_in_vain {
                    self.settle_here(now, key, pending.question, rank);
                } else {
                    self.ask(now, key, pending.question);
                }
            }
        }
    }

    /// What is of no use any more.
    pub(crate) fn forget_verdicts(&mut self, now: Now) {
        self.verdicts.forget_stale(now, self.config.verdict_fresh_ms);
        let most_ms = PROBE_FORGOTTEN_BUDGETS * self.config.probe_budget_ms;
        let old = self.verdicts.probes.iter().filter(|(_, probe)| now.mono.since_ms(probe.since) > most_ms);
        let old: Vec<ProbeId> = old.map(|(id, _)| *id).collect();
        for id in old {
            self.verdicts.forget_probe(id);
        }
    }
}
