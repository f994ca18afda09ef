//! Who may call a shard dead: nobody, while a node that the decider talks with reaches it; and whom a verdict names has said so in that round.
//! What was said is judged at once. What was true is judged a moment later, when it is known that nothing stood between.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_peering_core::{ClaimResult, Claimed, Entry, Input, Message, Output, PeerId, ProbeId, Reached};

use crate::sim::model::{Room, Shard, seat_of, shard_of};
use crate::sim::observer::{Observer, name};
use crate::world::{Scene, Seat, State, World};

/// How long a round lasts at the most.
const ROUND_MS: u64 = 500;
/// How long its result holds.
const FRESH_MS: u64 = 1_000;
/// Outputs may be seen so much later than what caused them.
const SEEN_LATE_MS: u64 = 2;
/// A probe that is answered, and what else takes time at a node.
const PROBE_MS: u64 = 60;
/// For a hello to travel, or the last messages that noise held up.
const SETTLED_MS: u64 = 3_000;

#[derive(Debug)]
struct Round {
    began: u64,
    number: Option<u64>,
    own: ProbeId,
    waits_for: BTreeSet<Seat>,
    /// Who answered in this round that it reaches the shard, with the moment.
    said_yes: BTreeMap<Seat, u64>,
    /// Somebody was moved by it.
    obeyed: bool,
}

/// A move that is looked at again when it is known who was in contact.
#[derive(Debug)]
struct Move {
    at: u64,
    seat: Seat,
    room: Room,
    shard: Shard,
    began: u64,
}

/// Rounds of probes as messages tell of them, and what was true of shards.
#[derive(Debug, Default)]
pub(in crate::sim) struct Rounds {
    of: BTreeMap<(Seat, Shard), Round>,
    moves: Vec<Move>,
    /// When a path to a shard, or the shard, changed last.
    changed: BTreeMap<(Seat, Shard), u64>,
    /// When a node stood still or ran again last.
    disturbed: BTreeMap<Seat, u64>,
    /// When messages on their way were last in trouble.
    rough: u64,
}

impl Rounds {
    pub(in crate::sim) fn shard_changed(&mut self, seat: Seat, shard: Shard, now: u64) {
        self.changed.insert((seat, shard), now);
    }

    pub(in crate::sim) fn disturbed(&mut self, seat: Seat, now: u64) {
        self.disturbed.insert(seat, now);
    }

    pub(in crate::sim) const fn rough(&mut self, now: u64) {
        self.rough = now;
    }

    /// A node has forgotten everything.
    pub(in crate::sim) fn restarted(&mut self, seat: Seat, now: u64) {
        self.of.retain(|(at, _), _| *at != seat);
        self.disturbed.insert(seat, now);
    }

    pub(in crate::sim) fn input(&mut self, scene: &Scene<'_>, input: &Input) {
        let now = scene.now_ms;
        if let Input::Probed { probe, reached } = input {
            let mut own =
                self.of.iter_mut().filter(|((at, _), round)| *at == scene.seat && round.own == *probe);
            if let Some((_, round)) = own.next() {
                round.answer(scene.seat, *reached, now);
            }
        } else if let Input::Received { peer, message: Message::ProbeAnswer { round, shard, reached } } =
            input
        {
            let of = self.of.get_mut(&(scene.seat, shard_of(shard)));
            if let Some(known) = of.filter(|known| known.number == Some(*round)) {
                known.answer(seat_of(peer), *reached, now);
            }
        } else if let Input::PeerLost { peer } = input {
            for (_, round) in self.of.iter_mut().filter(|((at, _), _)| *at == scene.seat) {
                round.waits_for.remove(&seat_of(peer));
            }
        }
    }

    pub(in crate::sim) fn output(&mut self, scene: &Scene<'_>, output: &Output) {
        let seat = scene.seat;
        if let Output::Probe { probe, asker, shard } = output
            && seat_of(asker) == seat
        {
            let round = Round {
                began: scene.now_ms,
                number: None,
                own: *probe,
                waits_for: BTreeSet::from([seat]),
                said_yes: BTreeMap::new(),
                obeyed: false,
            };
            self.of.insert((seat, shard_of(shard)), round);
        } else if let Output::Send { peer, message: Message::ProbeAsk { round, shard } } = output
            && let Some(known) = self.of.get_mut(&(seat, shard_of(shard)))
        {
            known.number = Some(*round);
            known.waits_for.insert(seat_of(peer));
        }
    }
}

impl Round {
    fn answer(&mut self, seat: Seat, reached: Reached, now: u64) {
        // A question that came twice is answered twice, and the first answer counts.
        if self.waits_for.remove(&seat) && reached == Reached::Yes {
            self.said_yes.insert(seat, now);
        }
    }
}

impl Observer {
    /// A node moved a room because nobody reaches its shard.
    pub(in crate::sim) fn check_dead(&mut self, scene: &Scene<'_>, room: Room, shard: Shard) {
        const CHECK: &str = "a shard that somebody reaches is not called dead";
        let (now, seat) = (scene.now_ms, scene.seat);
        let Some(round) = self.rounds.of.get_mut(&(seat, shard)) else {
            let text = format!("{} r{room}: left s{shard} without a probe", name(seat));
            self.accuse(CHECK, now, Some(room), text);
            return;
        };
        let began = round.began;
        let ends = began + ROUND_MS - SEEN_LATE_MS;
        let in_time = round.said_yes.iter().find(|(_, at)| **at < ends);
        let early = now < ends && !round.waits_for.is_empty();
        let fault = match in_time {
            // By its result others may have moved before, and then a late answer changes nothing.
            Some((other, _)) if !round.obeyed => Some(format!("which {} reaches", name(*other))),
            _ if early => Some(format!("and did not wait for {:?}", round.waits_for)),
            _ => None,
        };
        round.obeyed = true;
        if let Some(fault) = fault {
            let text = format!("{} r{room}: left s{shard}, {fault}, in its round of {began}", name(seat));
            self.accuse(CHECK, now, Some(room), text);
        }
        self.rounds.moves.push(Move { at: now, seat, room, shard, began });
    }

    /// A node tells by whom a shard is reached: by its own verdict.
    pub(in crate::sim) fn check_kept(&mut self, scene: &Scene<'_>, output: &Output) {
        if self.places[scene.seat].passing {
            return;
        }
        let (shard, via) = if let Output::Send { message: Message::ClaimAnswer(answer), .. } = output
            && let ClaimResult::Kept { entry: Entry { shard: Some(shard), .. }, via, .. } = &answer.result
        {
            (shard_of(shard), via)
        } else if let Output::Answered { claimed: Claimed::Keep { shard, via }, .. } = output {
            (shard_of(shard), via)
        } else {
            return;
        };
        let round = self.rounds.of.get(&(scene.seat, shard));
        let said = |peer: &PeerId| round.is_some_and(|round| round.said_yes.contains_key(&seat_of(peer)));
        let sorted = via.is_sorted() && via.len() <= 8;
        if via.is_empty() || !sorted || !via.iter().all(said) {
            let text = format!("{}: s{shard} is said to be reached by {via:?}: {round:?}", name(scene.seat));
            self.accuse("whoever is named has said so in that round", scene.now_ms, None, text);
        }
    }

    /// Looks at moves again, now that it is known who was in contact then.
    pub(in crate::sim) fn check_moves(&mut self, world: &World, rough_now: bool) {
        if rough_now {
            self.rounds.rough = world.now_ms();
        }
        for moved in std::mem::take(&mut self.rounds.moves) {
            let Move { at, seat, room, shard, began } = moved;
            let stale = at > began + ROUND_MS + self.timers_late_ms + FRESH_MS;
            let still = |seat: Seat| {
                let disturbed = self.rounds.disturbed.get(&seat).copied().unwrap_or(0);
                disturbed + SETTLED_MS <= began && world.state(seat) == State::Running
            };
            if !still(seat) || self.rounds.rough + SETTLED_MS > began {
                continue;
            }
            let key = self.names.shard(shard);
            let reaches = |seat: Seat| {
                let changed = self.rounds.changed.get(&(seat, shard)).copied().unwrap_or(0);
                world.reaches(seat, &key) && changed < began
            };
            let most_ms = |from, to| world.delay(from, to).longest_ms();
            let heard = |peer: Seat| {
                let contact =
                    self.contacts.since(seat, peer).is_some_and(|since| since + SETTLED_MS <= began);
                contact && still(peer) && most_ms(seat, peer) + most_ms(peer, seat) + PROBE_MS < ROUND_MS
            };
            let witness = (0..world.len()).find(|peer| reaches(*peer) && (*peer == seat || heard(*peer)));
            if let Some(witness) = witness {
                let text = format!(
                    "{} r{room}: left s{shard} at {at} by its round of {began}, which {} reached all the time",
                    name(seat),
                    name(witness)
                );
                self.accuse("nobody leaves a shard that a node in contact reaches", at, Some(room), text);
            } else if stale {
                let text = format!("{} r{room}: left s{shard} at {at} by its round of {began}", name(seat));
                self.accuse("a verdict holds for a second", at, Some(room), text);
            }
        }
    }
}
