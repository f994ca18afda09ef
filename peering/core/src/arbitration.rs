//! Split brains: people of one conference on two shards. Whoever holds sessions on a shard that a key is no longer on tells the key's home; it
//! asks everybody how many people they have where, and gives a verdict, by which the fewest have to move. Nobody moves before.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::entry::{Entry, Reason};
use crate::id::{PeerId, ShardName, StickKey};
use crate::message::{Disputed, Message};
#[cfg(feature = "test-hooks")]
use crate::mutation::Mutation;
use crate::node::Node;
use crate::output::Output;
use crate::session::Session;
use crate::time::{Instant, Now};

/// Keys about which a node waits for a verdict. Beyond it the join's winner counts at once.
const DISPUTES_MAX: usize = 65_536;
/// Keys about which a node hears others. Beyond it whoever asks goes on to the next home.
const HEARINGS_MAX: usize = 65_536;
/// Questions to everybody under way: a thousand keys are asked about in a few. Beyond it the same.
const ROUNDS_MAX: usize = 1_024;
/// How long the others have to say how many people they have where: who is listed and not connected may be on its way back, and a node with a
/// thousand such keys has much to do.
const GATHER_MS: u64 = 1_000;
/// Beside a hearing and its two ways: what its messages wait for company.
const ASK_MARGIN_MS: u64 = 100;
/// What is done so much later than it was due is done by a node that stood still: what it heard before is of the past.
const LATE_MS: u64 = 1_000;
/// Without a verdict for so long the join's winner stands.
const NO_VERDICT_MS: u64 = 3_000;
/// Shards of one key that are told of: a split brain has two, seldom three.
pub const SIDES_MAX: usize = 16;

/// What a node knows of keys whose people are on several shards.
#[derive(Debug, Default)]
pub(crate) struct Arbitration {
    /// Keys of which sessions here are elsewhere.
    disputes: BTreeMap<StickKey, Dispute>,
    due: BTreeSet<(Instant, StickKey)>,
    /// Keys that this node decides about, and what it has been told of their people.
    hearings: BTreeMap<StickKey, Hearing>,
    /// Questions to everybody, each about several of them.
    rounds: BTreeMap<u64, Round>,
    ends: BTreeSet<(Instant, u64)>,
    /// The number of the last one.
    asked: u64,
    /// When this node went on after it had stood still: what it hears then was said before.
    went_on: Option<Instant>,
    /// Moves that nothing stands against: this node was asked, or whoever is elsewhere came too late.
    obeyed: BTreeSet<StickKey>,
    /// Keys whose people here have been told to move by a verdict, and whose it is.
    moving: BTreeMap<StickKey, PeerId>,
    /// What is told to whom, and what is asked of everybody, when this input has been dealt with.
    to_tell: BTreeMap<(PeerId, Option<PeerId>), Vec<StickKey>>,
    to_ask: Vec<StickKey>,
    to_report: BTreeMap<PeerId, Vec<StickKey>>,
}

/// What this node waits for.
#[derive(Debug)]
struct Dispute {
    since: Instant,
    due: Instant,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// This home has been asked.
    Asked(PeerId),
    /// There is a verdict, which has to arrive everywhere before people come back.
    Decided,
}

/// Sessions of a key on each shard.
pub(crate) type Sessions = BTreeMap<ShardName, u64>;

/// What a home hears about a key.
#[derive(Debug, Default)]
struct Hearing {
    /// Sessions at each node.
    told: BTreeMap<PeerId, Sessions>,
    /// The home that said nothing, when this one stands in for it.
    tried: Option<PeerId>,
}

/// A question to everybody.
#[derive(Debug)]
struct Round {
    keys: Vec<StickKey>,
    began: Now,
    ends: Instant,
    waits_for: BTreeSet<PeerId>,
}

impl Arbitration {
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        let end = self.ends.first().map(|(at, _)| *at);
        [due, end].into_iter().flatten().min()
    }

    /// Nothing of it holds any more. Numbers go on.
    pub(crate) fn clear(&mut self) {
        *self = Self { asked: self.asked, ..Self::default() };
    }

    /// Whether what is heard now may have been said before this node stood still.
    fn hears_the_past(&self, now: Now) -> bool {
        self.went_on.is_some_and(|at| now.mono.since_ms(at) < LATE_MS)
    }

    /// A move of this key needs no verdict.
    pub(crate) fn obeys(&mut self, key: &StickKey) {
        self.obeyed.insert(key.clone());
    }

    /// A shard has been probed: whatever only waited for that goes on.
    pub(crate) fn probes_are_over(&mut self, now: Now) {
        let waiting = self.rounds.iter().filter(|(_, round)| round.waits_for.is_empty());
        for number in waiting.map(|(number, _)| *number).collect::<Vec<_>>() {
            // What waited for the same probes to move the key is decided first, and told.
            self.ends_by(number, now.mono + 1);
        }
    }

    /// Whether a verdict on this key is waited for.
    pub(crate) fn is_disputed(&self, key: &StickKey) -> bool {
        self.disputes.contains_key(key)
    }

    /// A round ends at this moment at the latest.
    fn ends_by(&mut self, number: u64, at: Instant) {
        if let Some(round) = self.rounds.get_mut(&number) {
            self.ends.remove(&(round.ends, number));
            // Of one whose time is over already this node has stood still, and sees it by that.
            round.ends = round.ends.min(at);
            self.ends.insert((round.ends, number));
        }
    }
}

impl Node {
    /// Timers wake a node: one that is called much later than it wanted to be was stopped, or its machine slept.
    pub(crate) fn note_standstill(&mut self, now: Now) {
        let gap_ms = now.mono.since_ms(self.now.mono);
        let slept_ms = now.boot.since_ms(self.now.boot).saturating_sub(gap_ms);
        // Few inputs come so long after the one before that it is worth a look.
        let is_late = || now.mono.since_ms(self.poll_timeout().0) > LATE_MS;
        if slept_ms > LATE_MS || gap_ms > LATE_MS && is_late() {
            self.arbitration.went_on = Some(now.mono);
        }
    }

    /// Sessions here, on each shard.
    pub(crate) fn sessions_here(&self, key: &StickKey) -> Sessions {
        self.uses.sessions_of(key).map(|(shard, number)| (shard.clone(), u64::from(number))).collect()
    }

    fn is_split(&self, key: &StickKey, to: &ShardName) -> bool {
        self.uses.sessions_of(key).any(|(shard, _)| shard != to)
    }

    /// The entry of a key names another shard than some of its sessions here are on, or did: what follows.
    pub(crate) fn weigh(&mut self, now: Now, key: &StickKey) {
        let obeyed = self.arbitration.obeyed.remove(key);
        let Some(entry) = self.table.get(key).map(|slot| slot.entry.clone()) else { return };
        let Some(to) = entry.shard.clone() else { return };
        if !self.is_split(key, &to) {
            self.end_dispute(key);
            return;
        }
        #[cfg(feature = "test-hooks")]
        let obeyed = obeyed
            || self.mutation == Some(Mutation::CloseBeforeVerdict)
            || entry.reason == Reason::Down && self.mutation == Some(Mutation::MoveAfterCutObeyed);
        // An old one knew nothing of whoever was away.
        let is_final = obeyed || self.is_fresh(now, &entry);
        let stage = self.arbitration.disputes.get(key).map(|dispute| &dispute.stage);
        match (entry.reason, stage) {
            // A second verdict overtook the first: its time runs already.
            (Reason::Arbitration, Some(Stage::Decided)) => {}
            #[cfg(feature = "test-hooks")]
            (Reason::Arbitration, None) if self.mutation == Some(Mutation::VerdictNotFinal) => {
                self.dispute(now, key, to);
            }
            (Reason::Arbitration, Some(Stage::Asked(_)) | None) if is_final => {
                let due = now.mono + self.longest_rtt_ms();
                self.goes_on(now, key, Stage::Decided, due);
            }
            (Reason::Operator, _) => self.obey(key, to),
            (Reason::Down, _) if obeyed || entry.origin == self.config.me => self.obey(key, to),
            // What was to be obeyed was overtaken, unless it is a fault.
            #[cfg(feature = "test-hooks")]
            (Reason::Claim | Reason::End | Reason::Full, _)
                if self.mutation == Some(Mutation::CloseBeforeVerdict) =>
            {
                self.obey(key, to);
            }
            (_, Some(Stage::Asked(_))) => {}
            // What there was a verdict about has ended, and was decided anew.
            (_, Some(Stage::Decided) | None) => self.dispute(now, key, to),
        }
    }

    /// Sessions on other shards end.
    fn obey(&mut self, key: &StickKey, to: ShardName) {
        self.end_dispute(key);
        self.outputs.push_back(Output::Moved { key: key.clone(), to });
    }

    fn end_dispute(&mut self, key: &StickKey) {
        if let Some(dispute) = self.arbitration.disputes.remove(key) {
            self.arbitration.due.remove(&(dispute.due, key.clone()));
            self.outputs.push_back(Output::Settled { key: key.clone() });
        }
    }

    /// The dispute, a new one if there is none, goes on like this, until then at the latest.
    fn goes_on(&mut self, now: Now, key: &StickKey, stage: Stage, due: Instant) {
        let on = self.shard_of_most(key);
        let Arbitration { disputes, due: dues, .. } = &mut self.arbitration;
        if !disputes.contains_key(key)
            && let Some(on) = on
        {
            self.outputs.push_back(Output::Disputed { key: key.clone(), on });
        }
        let dispute = Dispute { since: now.mono, due, stage: stage.clone() };
        let dispute = disputes.entry(key.clone()).or_insert(dispute);
        dues.remove(&(dispute.due, key.clone()));
        (dispute.stage, dispute.due) = (stage, due);
        dues.insert((due, key.clone()));
    }

    /// A session was opened on another shard than its key is on. If that moved because its shard is dead, the session ends.
    pub(crate) fn came_late(&mut self, key: &StickKey) {
        let moved = self.table.get(key).is_some_and(|slot| slot.entry.reason == Reason::Down);
        if moved && !self.arbitration.is_disputed(key) {
            self.arbitration.obeys(key);
        }
    }

    /// A session has ended: it may have been the last one that a verdict moved.
    pub(crate) fn note_left(&mut self, key: &StickKey) {
        if !self.arbitration.moving.contains_key(key)
            || self.table.shard(key).is_some_and(|to| self.is_split(key, to))
        {
            return;
        }
        if let Some(arbiter) = self.arbitration.moving.remove(key) {
            self.arbitration.to_report.entry(arbiter).or_default().push(key.clone());
        }
    }

    /// The people of these keys at a node whom a verdict of this one has moved have left.
    pub(crate) fn on_people_moved(&mut self, peer: &PeerId, keys: Vec<StickKey>) {
        for key in keys {
            self.outputs.push_back(Output::PeopleMoved { key, peer: peer.clone() });
        }
    }

    fn dispute(&mut self, now: Now, key: &StickKey, to: ShardName) {
        let alone = self.streaming_peers().is_empty();
        if alone && !self.decides {
            // Who starts anew knows nothing yet: all its sessions are compared when it is ready.
            return;
        }
        if alone || self.arbitration.disputes.len() >= DISPUTES_MAX {
            self.stats.disputes_full += u64::from(!alone);
            self.obey(key, to);
            return;
        }
        self.stats.disputes += 1;
        self.ask_arbiter(now, key, None);
    }

    /// The home is told, or hears the others itself.
    fn ask_arbiter(&mut self, now: Now, key: &StickKey, tried: Option<&PeerId>) {
        #[cfg(feature = "test-hooks")]
        let tried = tried.filter(|_| self.mutation != Some(Mutation::NoNextArbiter));
        let me = self.config.me.clone();
        let arbiter = self.home_of(key, tried).unwrap_or_else(|| me.clone());
        let rtt_ms = self.sessions.get(&arbiter).map_or(0, |session| session.rtt_ms);
        let budget_ms = GATHER_MS + 2 * rtt_ms.min(GATHER_MS) + ASK_MARGIN_MS;
        let since = self.arbitration.disputes.get(key).map_or(now.mono, |dispute| dispute.since);
        let due = (now.mono + budget_ms).min(since + NO_VERDICT_MS);
        self.goes_on(now, key, Stage::Asked(arbiter.clone()), due);
        if arbiter == me {
            self.hear(now, key, tried);
        } else {
            self.tell_arbiter(arbiter, tried, key);
        }
    }

    fn tell_arbiter(&mut self, arbiter: PeerId, tried: Option<&PeerId>, key: &StickKey) {
        self.arbitration.to_tell.entry((arbiter, tried.cloned())).or_default().push(key.clone());
    }

    /// Who decides about a key, if that is neither this node nor `asker`: a mesh that comes together sees its homes one after the other.
    fn other_arbiter(
        &self,
        key: &StickKey,
        tried: Option<&PeerId>,
        asker: Option<&PeerId>,
    ) -> Option<PeerId> {
        self.home_of(key, tried).filter(|home| *home != self.config.me && Some(home) != asker)
    }

    fn longest_rtt_ms(&self) -> u64 {
        let streaming = self.sessions.values().filter(|session| session.streaming());
        streaming.map(|session| session.rtt_ms).max().unwrap_or(0).min(GATHER_MS)
    }

    /// Whether a decision is so young, by this node's wall clock, that a key may not move again.
    fn is_fresh(&self, now: Now, entry: &Entry) -> bool {
        now.wall.0.saturating_sub(entry.created.wall_ms()) < self.config.move_pause_ms
    }

    /// Whether the key is where it is by a verdict of the last half minute, which is not arbitrated again.
    pub(crate) fn is_decided(&self, now: Now, key: &StickKey) -> bool {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(Mutation::VerdictNotFinal) {
            return false;
        }
        let own_is_fresh = || {
            let moved = self.moved_at.get(key);
            moved.is_some_and(|at| now.mono.since_ms(*at) < self.config.move_pause_ms)
        };
        self.table.get(key).is_some_and(|slot| {
            slot.entry.reason == Reason::Arbitration
                && (self.is_fresh(now, &slot.entry) || slot.entry.origin == self.config.me && own_is_fresh())
        })
    }

    /// This node decides: everybody is asked.
    fn hear(&mut self, now: Now, key: &StickKey, tried: Option<&PeerId>) {
        if self.arbitration.hearings.contains_key(key) || !self.decides || self.is_decided(now, key) {
            return;
        }
        let full = self.arbitration.rounds.len() >= ROUNDS_MAX;
        if full || self.arbitration.hearings.len() >= HEARINGS_MAX {
            self.stats.hearings_full += 1;
            return;
        }
        let here = self.sessions_here(key);
        self.probe_sides(now, key, &here);
        let told = BTreeMap::from([(self.config.me.clone(), here)]);
        self.arbitration.hearings.insert(key.clone(), Hearing { told, tried: tried.cloned() });
        self.arbitration.to_ask.push(key.clone());
    }

    /// What one input has brought up goes out in batches.
    pub(crate) fn send_disputes(&mut self, now: Now) {
        self.arbitration.obeyed.clear();
        for ((arbiter, tried), keys) in core::mem::take(&mut self.arbitration.to_tell) {
            let items: Vec<Disputed> = keys.iter().filter_map(|key| self.disputed(key)).collect();
            for part in items.chunks(self.config.batch_items) {
                self.send(&arbiter, Message::Dispute { tried: tried.clone(), items: part.to_vec() });
            }
        }
        let keys = core::mem::take(&mut self.arbitration.to_ask);
        for part in keys.chunks(self.config.batch_items) {
            self.begin_hearing(now, part);
        }
        for (arbiter, keys) in core::mem::take(&mut self.arbitration.to_report) {
            if arbiter == self.config.me {
                self.on_people_moved(&arbiter, keys);
                continue;
            }
            // An arbiter that is gone asks nobody how it ended.
            if !self.sessions.get(&arbiter).is_some_and(Session::streaming) {
                continue;
            }
            for part in keys.chunks(self.config.batch_items) {
                self.send(&arbiter, Message::PeopleMoved { keys: part.to_vec() });
            }
        }
    }

    fn begin_hearing(&mut self, now: Now, keys: &[StickKey]) {
        self.arbitration.asked += 1;
        let number = self.arbitration.asked;
        let listed = self.sessions.iter().filter(|(_, session)| session.listed);
        let waits_for: BTreeSet<PeerId> = listed.map(|(peer, _)| peer.clone()).collect();
        let peers = self.streaming_peers();
        #[cfg(feature = "test-hooks")]
        let waits_for =
            if self.mutation == Some(Mutation::ArbiterHearsNobody) { BTreeSet::new() } else { waits_for };
        let ends = if waits_for.is_empty() { now.mono } else { now.mono + GATHER_MS };
        let round = Round { keys: keys.to_vec(), began: now, ends, waits_for };
        self.arbitration.rounds.insert(number, round);
        self.arbitration.ends.insert((ends, number));
        for peer in &peers {
            self.send(peer, Message::SessionsAsk { number, keys: keys.to_vec() });
        }
    }

    /// Everybody has been heard, and probes are not over yet.
    fn hear_until(&mut self, key: StickKey, hearing: Hearing, began: Now, ends: Instant) {
        self.arbitration.asked += 1;
        let number = self.arbitration.asked;
        self.arbitration.hearings.insert(key.clone(), hearing);
        let round = Round { keys: Vec::from([key]), began, ends, waits_for: BTreeSet::new() };
        self.arbitration.rounds.insert(number, round);
        self.arbitration.ends.insert((ends, number));
    }

    /// Who comes back, or by another connection, is asked again: what it answered on the one before may never arrive.
    pub(crate) fn ask_for_sessions_again(&mut self, peer: &PeerId) {
        let waiting = self.arbitration.rounds.iter().filter(|(_, round)| round.waits_for.contains(peer));
        let asks: Vec<Message> = waiting
            .map(|(number, round)| Message::SessionsAsk { number: *number, keys: round.keys.clone() })
            .collect();
        for ask in asks {
            self.send(peer, ask);
        }
    }

    fn disputed(&self, key: &StickKey) -> Option<Disputed> {
        let slot = self.table.get(key)?;
        let sessions = self.sessions_here(key).into_iter().take(SIDES_MAX).collect();
        Some(Disputed { key: key.clone(), entry: slot.entry.clone(), sessions })
    }

    /// A peer holds sessions on another shard than the key is on.
    pub(crate) fn on_dispute(
        &mut self,
        now: Now,
        peer: &PeerId,
        tried: Option<&PeerId>,
        items: Vec<Disputed>,
    ) {
        // Then only the answer to this node's own question counts.
        let past = self.arbitration.hears_the_past(now);
        #[cfg(feature = "test-hooks")]
        let past = past && self.mutation != Some(Mutation::PastHeard);
        for Disputed { key, entry, sessions } in items {
            self.accept(now, peer, &key, &entry, self.config.ttl_ms);
            if self.table.get(&key).is_none() || self.is_decided(now, &key) {
                // What came was corrected by a verdict that had not arrived there.
                continue;
            }
            match self.other_arbiter(&key, tried, Some(peer)) {
                Some(arbiter) if !self.arbitration.hearings.contains_key(&key) => {
                    self.tell_arbiter(arbiter, tried, &key);
                }
                Some(_) | None => self.hear(now, &key, tried),
            }
            if let Some(hearing) = self.arbitration.hearings.get_mut(&key) {
                hearing.tried = hearing.tried.take().or_else(|| tried.cloned());
                let sessions: Sessions = sessions.into_iter().collect();
                if !past {
                    hearing.told.insert(peer.clone(), sessions.clone());
                }
                self.probe_sides(now, &key, &sessions);
            }
        }
    }

    /// A home wants to know how many people are where.
    pub(crate) fn on_sessions_ask(&mut self, peer: &PeerId, number: u64, keys: &[StickKey]) {
        let of = |key: &StickKey| {
            let sessions: Vec<(ShardName, u64)> =
                self.sessions_here(key).into_iter().take(SIDES_MAX).collect();
            (!sessions.is_empty()).then(|| (key.clone(), sessions))
        };
        let items = keys.iter().filter_map(of).collect();
        self.send(peer, Message::SessionsTold { number, items });
    }

    /// A peer has said so: of keys that it does not name it has no sessions.
    pub(crate) fn on_sessions_told(
        &mut self,
        now: Now,
        peer: &PeerId,
        number: u64,
        items: Vec<(StickKey, Vec<(ShardName, u64)>)>,
    ) {
        let Some(round) = self.arbitration.rounds.get_mut(&number) else { return };
        if !round.waits_for.remove(peer) {
            return;
        }
        let over = round.waits_for.is_empty();
        for key in &round.keys {
            if let Some(hearing) = self.arbitration.hearings.get_mut(key) {
                hearing.told.remove(peer);
            }
        }
        for (key, sessions) in items {
            // Of a key that was not asked about here, another round may be.
            if let Some(hearing) = self.arbitration.hearings.get_mut(&key) {
                hearing.told.insert(peer.clone(), sessions.into_iter().collect());
            }
        }
        if over {
            self.arbitration.ends_by(number, now.mono);
        }
    }

    /// The connection to a peer is gone: who waits for its verdict asks the next one.
    pub(crate) fn forget_arbiter(&mut self, now: Now, peer: &PeerId) {
        let asked = Stage::Asked(peer.clone());
        let waiting = self.arbitration.disputes.iter().filter(|(_, dispute)| dispute.stage == asked);
        let keys: Vec<StickKey> = waiting.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.ask_arbiter(now, &key, Some(peer));
        }
    }

    /// Hearings whose time is over, and disputes in which nobody has said anything for too long.
    pub(crate) fn run_arbitration(&mut self, now: Now) {
        while self.arbitration.ends.first().is_some_and(|(at, _)| *at <= now.mono)
            && let Some((_, number)) = self.arbitration.ends.pop_first()
        {
            let Some(Round { keys, began, ends, .. }) = self.arbitration.rounds.remove(&number) else {
                continue;
            };
            // A machine that sleeps does not count the time.
            let slept_ms = now.boot.since_ms(began.boot).saturating_sub(now.mono.since_ms(began.mono));
            let is_late = now.mono.since_ms(ends) > LATE_MS || slept_ms > LATE_MS;
            for key in keys {
                let hearing = self.arbitration.hearings.remove(&key);
                let Some(Hearing { told, tried }) = hearing.filter(|_| !is_late) else { continue };
                // Once: what else is asked meanwhile begins later.
                let waits = now.mono.since_ms(began.mono) < GATHER_MS;
                let probed_by = self.probed_by(&told).filter(|until| waits || *until <= now.mono);
                if let Some(until) = probed_by {
                    // What the probes say is decided by this input at the latest, and told.
                    self.hear_until(key, Hearing { told, tried }, began, until.max(now.mono) + 1);
                    continue;
                }
                // Who comes first has come back meanwhile, and may have decided.
                match self.other_arbiter(&key, tried.as_ref(), None) {
                    Some(arbiter) => self.tell_arbiter(arbiter, tried.as_ref(), &key),
                    None => self.give_verdict(now, &key, told, now.mono.since_ms(began.mono)),
                }
            }
        }
        while self.arbitration.due.first().is_some_and(|(at, _)| *at <= now.mono)
            && let Some((due, key)) = self.arbitration.due.pop_first()
        {
            let Some(dispute) = self.arbitration.disputes.get_mut(&key) else { continue };
            if now.mono.since_ms(due) > LATE_MS {
                // The verdict may have come while this node stood still, and is to be read yet.
                dispute.since = now.mono;
            }
            let (since, stage) = (dispute.since, dispute.stage.clone());
            let split = self.table.shard(&key).is_some_and(|to| self.is_split(&key, to));
            let over = !split || now.mono.since_ms(since) >= NO_VERDICT_MS;
            match stage {
                Stage::Asked(arbiter) if !over => self.ask_arbiter(now, &key, Some(&arbiter)),
                stage @ (Stage::Asked(_) | Stage::Decided) => {
                    self.stats.disputes_without_verdict += u64::from(split && stage != Stage::Decided);
                    self.end_dispute(&key);
                    self.move_people(key);
                }
            }
        }
    }

    /// A dispute is over: who is elsewhere moves.
    fn move_people(&mut self, key: StickKey) {
        let Some(entry) = self.table.get(&key).map(|slot| slot.entry.clone()) else { return };
        let Some(to) = entry.shard.filter(|to| self.is_split(&key, to)) else { return };
        if entry.reason == Reason::Arbitration && self.arbitration.moving.len() < DISPUTES_MAX {
            self.arbitration.moving.insert(key.clone(), entry.origin);
        }
        self.outputs.push_back(Output::Moved { key, to });
    }
}
