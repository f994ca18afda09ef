//! Everybody joins at once: first joins of the same new room through two nodes of different regions, back to back, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use super::super::askers::{Answer, Askers, joining};
use super::super::latency::Latencies;
use super::super::room_names::unlike_room_name;
use super::super::subject::Kind;
use super::fleet::Fleet;
use super::shardgates::home_of_room;

/// Rooms raced for at the same time.
const WAVE: usize = 50;
/// A client gives up later than this.
const WAVE_MAX: Duration = Duration::from_secs(8);
/// What two participants may be apart and still count as at once.
const APART_MAX: Duration = Duration::from_millis(1);

/// What was seen.
pub struct Outcome {
    /// How many rooms.
    pub rooms: usize,
    /// Of them, raced for through two nodes of which neither was the room's home.
    pub through_strangers: usize,
    /// Rooms whose two first participants reached different shards.
    pub split_at_once: usize,
    /// Rooms of which any two participants ever reached different shards: a third who came with the first answer, and one at every node later.
    pub split_ever: Vec<String>,
    /// Questions without a good answer.
    pub unanswered: usize,
    /// Pairs of first joins sent more than a millisecond apart: they prove less.
    pub late_pairs: usize,
    /// How far apart the pairs were sent.
    pub apart: Latencies,
    /// First joins through the room's home.
    pub at_home: Latencies,
    /// First joins through any other node.
    pub elsewhere: Latencies,
    /// Rooms by home, in the order of the nodes.
    pub homes: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    First,
    Second,
    Third,
    Later,
}

const ROLES: [Role; 4] = [Role::First, Role::Second, Role::Third, Role::Later];

/// A room's participants: who they came through and where they got to.
#[derive(Default)]
struct Room {
    nodes: [usize; 3],
    home: usize,
    first_shards: BTreeSet<u8>,
    shards: BTreeSet<u8>,
    third_asked: bool,
}

/// Races for `rooms` new rooms on a mesh of nodes that choose among different shards.
pub fn race(fleet: &Fleet, rooms: usize, seed: u64) -> io::Result<Outcome> {
    let mut race = Race::prepare(fleet, rooms, seed)?;
    for first in (0..rooms).step_by(WAVE) {
        race.wave(first..rooms.min(first + WAVE))?;
    }
    // Every decision has travelled.
    fleet.wait_replicated(rooms as u64)?;
    for first in (0..rooms).step_by(WAVE) {
        race.ask_again(first..rooms.min(first + WAVE))?;
    }
    Ok(race.outcome())
}

struct Race {
    askers: Askers,
    nodes: usize,
    rooms: Vec<Room>,
    unanswered: usize,
    late_pairs: usize,
    apart: Latencies,
    at_home: Latencies,
    elsewhere: Latencies,
}

impl Race {
    fn prepare(fleet: &Fleet, rooms: usize, seed: u64) -> io::Result<Self> {
        let nodes = fleet.len();
        let mut askers = Askers::new()?;
        for _ in 0..WAVE {
            for node in 0..nodes {
                askers.add(fleet.frontend(node))?;
            }
        }
        let mut dice = Dice(seed.max(1));
        let prepared = (0..rooms).map(|room| {
            let home = home_of_room(nodes, room)?;
            Ok(Room { nodes: three_nodes(&fleet.spec.regions, &mut dice), home, ..Room::default() })
        });
        let rooms = prepared.collect::<io::Result<_>>()?;
        Ok(Self {
            askers,
            nodes,
            rooms,
            unanswered: 0,
            late_pairs: 0,
            apart: Latencies::default(),
            at_home: Latencies::default(),
            elsewhere: Latencies::default(),
        })
    }

    /// Two participants at once for each room, and a third as soon as one of them has an answer.
    fn wave(&mut self, rooms: std::ops::Range<usize>) -> io::Result<()> {
        let mut awaited = 0;
        for room in rooms {
            let [first, second, _] = self.rooms[room].nodes;
            let began = self.ask(room, first, Role::First)?;
            let apart = self.ask(room, second, Role::Second)? - began;
            self.apart.record(apart);
            self.late_pairs += usize::from(apart > APART_MAX);
            awaited += 3;
        }
        self.hear(awaited)
    }

    /// One participant at each node at once for each room.
    fn ask_again(&mut self, rooms: std::ops::Range<usize>) -> io::Result<()> {
        let awaited = rooms.len() * self.nodes;
        for room in rooms {
            for node in 0..self.nodes {
                self.ask(room, node, Role::Later)?;
            }
        }
        self.hear(awaited)
    }

    fn ask(&mut self, room: usize, node: usize, role: Role) -> io::Result<Instant> {
        let asker = (room % WAVE) * self.nodes + node;
        let number = ROLES.iter().position(|other| *other == role).unwrap_or(0);
        self.askers.ask(asker, room * ROLES.len() + number, &joining(&unlike_room_name(room)))
    }

    fn hear(&mut self, mut awaited: usize) -> io::Result<()> {
        let deadline = Instant::now() + WAVE_MAX;
        let mut answers = Vec::new();
        while awaited > 0 && Instant::now() < deadline {
            self.askers.receive(Duration::from_millis(100), &mut answers)?;
            for answer in answers.drain(..) {
                awaited -= 1;
                self.count(&answer)?;
            }
        }
        self.unanswered += awaited;
        Ok(())
    }

    fn count(&mut self, answer: &Answer) -> io::Result<()> {
        let (number, role) = (answer.question / ROLES.len(), ROLES[answer.question % ROLES.len()]);
        let room = &mut self.rooms[number];
        if role == Role::First || role == Role::Second {
            let node = answer.asker % self.nodes;
            let latencies = if node == room.home { &mut self.at_home } else { &mut self.elsewhere };
            latencies.record(answer.took);
            room.first_shards.extend(answer.shard);
        }
        room.shards.extend(answer.shard);
        self.unanswered += usize::from(answer.shard.is_none());
        if !std::mem::replace(&mut room.third_asked, true) {
            let third = room.nodes[2];
            self.ask(number, third, Role::Third)?;
        }
        Ok(())
    }

    fn outcome(self) -> Outcome {
        let count = |holds: &dyn Fn(&Room) -> bool| self.rooms.iter().filter(|room| holds(room)).count();
        let split = self.rooms.iter().enumerate().filter(|(_, room)| room.shards.len() > 1);
        let split_ever = split.map(|(number, room)| {
            let Room { nodes: [first, second, third], home, shards, .. } = room;
            format!(
                "{}: shards {shards:?}; first through {first} and {second}, then {third}; home {home}",
                unlike_room_name(number)
            )
        });
        let mut homes = BTreeMap::new();
        for room in &self.rooms {
            *homes.entry(room.home).or_insert(0) += 1;
        }
        Outcome {
            rooms: self.rooms.len(),
            through_strangers: count(&|room| !room.nodes[..2].contains(&room.home)),
            split_at_once: count(&|room| room.first_shards.len() > 1),
            split_ever: split_ever.collect(),
            unanswered: self.unanswered,
            late_pairs: self.late_pairs,
            homes: (0..self.nodes).map(|node| homes.get(&node).copied().unwrap_or(0)).collect(),
            apart: self.apart,
            at_home: self.at_home,
            elsewhere: self.elsewhere,
        }
    }
}

/// Whether a first join of this mesh asks a home at all: HAProxies decide each for itself.
#[must_use]
pub fn has_homes(kind: Kind) -> bool {
    kind == Kind::Shardgate
}

/// Two nodes of different regions and any third.
fn three_nodes(regions: &[usize], dice: &mut Dice) -> [usize; 3] {
    let first = dice.below(regions.len());
    let others = |except: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..regions.len()).filter(|node| !except(*node)).collect()
    };
    let abroad = others(&|node| regions[node] == regions[first]);
    let second = abroad[dice.below(abroad.len())];
    let rest = others(&|node| node == first || node == second);
    [first, second, rest[dice.below(rest.len())]]
}

/// xorshift64* (Vigna 2016): the same seed makes the same race.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_are_of_different_regions_and_every_pair_comes_up() {
        let regions = [0, 0, 1, 1, 2, 2];
        let mut dice = Dice(7);
        let mut pairs = BTreeSet::new();
        for _ in 0..1_000 {
            let [first, second, third] = three_nodes(&regions, &mut dice);
            assert_ne!(regions[first], regions[second]);
            assert!(third != first && third != second);
            pairs.insert((first, second));
        }
        assert_eq!(pairs.len(), 24);
    }
}
