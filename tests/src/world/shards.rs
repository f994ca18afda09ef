//! Shards as nodes find them: alive or dead, and a path to each from every node, which may be cut. What a probe finds is what is so when it
//! begins.

use std::collections::BTreeMap;

use shardgate_peering_core::{Input, ProbeId, Reached, ShardName};

use super::clockwork::Happening;
use super::path::Delay;
use super::seat::{Feed, Seat};
use super::watch::Watch;
use super::world_state::World;

/// When a probe is given up that nobody answers.
const GIVEN_UP_MS: u64 = 400;

/// How a shard fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It refuses, at once.
    Refuses,
    /// Nothing comes back.
    Silent,
}

/// What is wrong with shards, and with paths to them.
#[derive(Debug, Default)]
pub(super) struct Shards {
    dead: BTreeMap<ShardName, Trouble>,
    cut: BTreeMap<(Seat, ShardName), Trouble>,
}

impl Shards {
    fn trouble(&self, seat: Seat, shard: &ShardName) -> Option<Trouble> {
        let dead = self.dead.get(shard).copied();
        dead.or_else(|| self.cut.get(&(seat, shard.clone())).copied())
    }
}

impl World {
    /// A shard dies, or (`None`) works again.
    pub fn set_shard(&mut self, shard: &ShardName, trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) => self.shards.dead.insert(shard.clone(), trouble),
            None => self.shards.dead.remove(shard),
        };
    }

    /// A node's path to a shard is cut, or (`None`) works again.
    pub fn set_shard_path(&mut self, seat: Seat, shard: &ShardName, trouble: Option<Trouble>) {
        let path = (seat, shard.clone());
        match trouble {
            Some(trouble) => self.shards.cut.insert(path, trouble),
            None => self.shards.cut.remove(&path),
        };
    }

    /// Whether what a node sends to a shard arrives.
    #[must_use]
    pub fn reaches(&self, seat: Seat, shard: &ShardName) -> bool {
        self.shards.trouble(seat, shard).is_none()
    }

    /// How long a node's probes take when they are answered.
    pub fn set_probe_time(&mut self, seat: Seat, time: Delay) {
        self.places[seat].probe_time = time;
    }

    /// A node's shell begins a probe.
    pub(super) fn probe(&mut self, seat: Seat, probe: ProbeId, shard: &ShardName) {
        let trouble = self.shards.trouble(seat, shard);
        let takes_ms = match trouble {
            Some(Trouble::Silent) => GIVEN_UP_MS,
            Some(Trouble::Refuses) | None => self.places[seat].probe_time.draw(&mut self.random),
        };
        let reached = if trouble.is_none() { Reached::Yes } else { Reached::No };
        let life = self.places[seat].life;
        self.clockwork.push(self.now + takes_ms, Happening::Probed { at: seat, life, probe, reached });
    }

    /// A probe is over; the process that asked for it may be.
    pub(super) fn probed<W: Watch>(
        &mut self,
        seat: Seat,
        life: u64,
        probe: ProbeId,
        reached: Reached,
        watch: &mut W,
    ) {
        if self.places[seat].life == life {
            self.feed(seat, Feed::Input(Input::Probed { probe, reached }), watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use shardgate_peering_core::{ClaimReason, ClaimToken, Claimed, Config, Output, PeerId, StickKey};

    use super::*;
    use crate::world::{Scene, Silent};

    const NODES: usize = 6;
    const ROOMS: usize = 1_000;

    /// The answers to claims.
    #[derive(Default)]
    struct Answers(BTreeMap<ClaimToken, Claimed>);

    impl Watch for Answers {
        fn output(&mut self, _: &Scene<'_>, output: &Output) {
            if let Output::Answered { token, claimed } = output {
                assert!(self.0.insert(*token, claimed.clone()).is_none(), "answered twice");
            }
        }
    }

    fn shard(name: &str) -> ShardName {
        ShardName::parse(name).unwrap()
    }

    fn key(room: usize) -> StickKey {
        StickKey::parse(&format!("room-{room}")).unwrap()
    }

    /// Six nodes some way apart, and a thousand conferences on one shard.
    fn world() -> World {
        let mut world = World::new(1, Delay::Range(5, 60));
        for seat in 0..NODES {
            world.add(Config::new(PeerId::parse(&format!("n{seat}")).unwrap(), 1));
        }
        for seat in 0..NODES {
            world.start(seat, &mut Silent);
            world.list(seat, &(0..NODES).collect::<Vec<_>>(), &mut Silent);
        }
        assert!(world.run_until(5_000, &mut Silent, |world| (0..NODES).all(|seat| world.is_ready(seat))));
        for room in 0..ROOMS {
            let (token, key) = (ClaimToken(room as u64), key(room));
            let join = Input::Claim { token, key, proposal: shard("s0"), reason: ClaimReason::Join };
            world.inject(room % NODES, join, &mut Silent);
        }
        world.run_ms(3_000, &mut Silent);
        world
    }

    /// These nodes cannot reach the shard for any room, at the same moment; each would put them elsewhere. All are answered.
    fn down(world: &mut World, seats: &[Seat]) -> Vec<(usize, Claimed)> {
        let mut answers = Answers::default();
        for room in 0..ROOMS {
            for seat in seats {
                let token = ClaimToken((room * NODES + seat) as u64);
                let reason = ClaimReason::Down { failed: shard("s0") };
                let proposal = shard(&format!("s{}", seat + 1));
                world.inject(*seat, Input::Claim { token, key: key(room), proposal, reason }, &mut answers);
            }
        }
        world.run_ms(2_000, &mut answers);
        assert_eq!(answers.0.len(), seats.len() * ROOMS);
        answers.0.into_iter().map(|(token, claimed)| (token.0 as usize / NODES, claimed)).collect()
    }

    fn sum(world: &World, of: impl Fn(&shardgate_peering_core::Stats) -> u64) -> u64 {
        (0..NODES).filter_map(|seat| world.node(seat)).map(|node| of(&node.stats())).sum()
    }

    #[test]
    fn a_shard_dies_before_three_nodes_and_each_conference_moves_once_to_one_shard() {
        let mut world = world();
        world.set_shard(&shard("s0"), Some(Trouble::Refuses));
        let mut answered: BTreeMap<usize, BTreeSet<ShardName>> = BTreeMap::new();
        for (room, claimed) in down(&mut world, &[0, 2, 4]) {
            let Claimed::Stick { shard } = claimed else { panic!("{room}: {claimed:?}") };
            answered.entry(room).or_default().insert(shard);
        }
        for room in 0..ROOMS {
            let there =
                |seat| world.node(seat).and_then(|node| node.entry(&key(room))).map(|(entry, _)| entry);
            let entry = there(0).unwrap();
            assert_eq!(entry.generation, 2, "room-{room}");
            assert!((1..NODES).all(|seat| there(seat) == Some(entry)), "room-{room}");
            assert_eq!(answered[&room], entry.shard.clone().into_iter().collect(), "room-{room}");
        }
        assert_eq!(sum(&world, |stats| stats.moved), ROOMS as u64);
        assert_eq!(sum(&world, |stats| stats.decided_alone), 0);
        assert!(sum(&world, |stats| stats.rounds) <= NODES as u64, "one round of each home");
    }

    #[test]
    fn two_of_six_nodes_lose_their_paths_and_nothing_moves() {
        let mut world = world();
        for (seat, trouble) in [(1, Trouble::Refuses), (5, Trouble::Silent)] {
            world.set_shard_path(seat, &shard("s0"), Some(trouble));
        }
        let others: BTreeSet<PeerId> = [0, 2, 3, 4].map(|seat| world.name(seat).clone()).into();
        for (room, claimed) in down(&mut world, &[1, 5]) {
            let Claimed::Keep { shard: on, via } = claimed else { panic!("{room}: {claimed:?}") };
            assert_eq!(on, shard("s0"));
            assert!(!via.is_empty() && via.iter().all(|peer| others.contains(peer)), "{room}: {via:?}");
        }
        assert_eq!(sum(&world, |stats| stats.moved), 0);
        assert_eq!(sum(&world, |stats| stats.claims_timed_out), 0);
    }
}
