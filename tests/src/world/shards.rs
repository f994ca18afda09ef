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
