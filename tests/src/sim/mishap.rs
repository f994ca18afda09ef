//! Carries out the faults of a run on its world, and undoes them when they have lasted.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most kinds of faults share a rule, a few have their own"
)]

use std::collections::BTreeSet;

use shardgate_peering_core::{Input, first_by_rendezvous};

use super::clients::Clients;
use super::coverage::Sort;
use super::fact::damaged_lifetime;
use super::fault::{Fault, Kind};
use super::model::Shard;
use super::observer::{Observer, name};
use super::setup::Setup;
use crate::world::{Delay, Noise, Random, Seat, Sleep, State, Trouble, World};

const HOUR_MS: u64 = 3_600_000;
/// A path that is as good as cut.
const SLOW: Delay = Delay::Range(500, 1_500);

/// What is broken at the moment, counted where faults overlap.
#[derive(Debug)]
pub(super) struct Mishaps {
    blocks: Vec<Vec<u32>>,
    clogs: Vec<Vec<u32>>,
    slow: Vec<Vec<u32>>,
    noises: u32,
    slow_paths: u32,
    /// Entries with damaged lifetimes that nodes were given.
    damaged: u32,
    /// Who was hit by a fault of processes: (the fault's number, the node).
    hit: BTreeSet<(usize, Seat)>,
    /// What discovery says.
    pub(super) truth: BTreeSet<Seat>,
    random: Random,
}

/// What a fault asks of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// Start this node.
    Start(Seat),
    /// Discovery has news.
    Tell,
    /// The shard changes again at this time.
    Flap(Shard, u64),
    /// The node's path to the shard does.
    FlapPath(Seat, Shard, u64),
}

impl Mishaps {
    pub(super) fn new(setup: &Setup) -> Self {
        let nodes = setup.nodes();
        let zero = || vec![vec![0; nodes]; nodes];
        Self {
            blocks: zero(),
            clogs: zero(),
            slow: zero(),
            noises: 0,
            slow_paths: 0,
            damaged: 0,
            hit: BTreeSet::new(),
            truth: (0..nodes).collect(),
            random: Random::new(setup.seed).fork(3),
        }
    }

    pub(super) fn block(&mut self, from: Seat, to: Seat, world: &mut World) {
        self.blocks[from][to] += 1;
        world.block(from, to);
    }

    fn unblock(&mut self, from: Seat, to: Seat, world: &mut World) {
        self.blocks[from][to] -= 1;
        if self.blocks[from][to] == 0 {
            world.unblock(from, to);
        }
    }

    /// Whether messages between nodes are lost, or late beyond what is usual.
    pub(super) const fn is_rough(&self) -> bool {
        self.noises > 0 || self.slow_paths > 0
    }

    /// A fault begins. It counts as seen when it has had its effect.
    pub(super) fn begin(
        &mut self,
        number: usize,
        fault: &Fault,
        world: &mut World,
        observer: &mut Observer,
        clients: &mut Clients,
    ) -> Vec<Demand> {
        let now = world.now_ms();
        observer.trace.note(now, || format!("*** {}: nodes {:?}", fault.kind.name(), fault.nodes));
        let damaged = self.damaged;
        let demands = self.carry_out(number, fault, world, observer, clients);
        if self.damaged > damaged || self.is_in_effect(number, fault, world, clients) {
            observer.coverage.saw(Sort::Fault, fault.kind.name());
        }
        demands
    }

    /// What the world is like now, not what was asked of it.
    fn is_in_effect(&self, number: usize, fault: &Fault, world: &World, clients: &Clients) -> bool {
        let paths = fault.paths(world.len());
        let on_all = |meets: &dyn Fn(Seat, Seat) -> bool| {
            !paths.is_empty() && paths.iter().all(|(from, to)| meets(*from, *to))
        };
        match fault.kind {
            Kind::OneWayCut
            | Kind::SilentCut
            | Kind::Isolated
            | Kind::Asymmetric
            | Kind::TwoWayCut
            | Kind::Halves => on_all(&|from, to| world.is_blocked(from, to)),
            Kind::Clogging => on_all(&|from, to| world.is_clogged(from, to)),
            Kind::SlowPath => on_all(&|from, to| world.delay(from, to) == SLOW),
            Kind::ClaimNoise => on_all(&|from, to| world.noise(from, to) != Noise::default()),
            Kind::Crash | Kind::CrashTwo | Kind::CrashHome => {
                let hit = |seat: &Seat| self.hit.contains(&(number, *seat));
                (0..world.len()).filter(hit).any(|seat| world.state(seat) == State::Crashed)
            }
            Kind::Pause | Kind::Sleep | Kind::Hang => {
                self.hit.contains(&(number, fault.nodes[0]))
                    && !matches!(world.state(fault.nodes[0]), State::Running | State::Crashed)
            }
            Kind::ClockSkew | Kind::ClockJump => world.wall_error_ms(fault.nodes[0]) != 0,
            Kind::Unlisted | Kind::ListedLate => !self.truth.contains(&fault.nodes[0]),
            Kind::ShardDeath | Kind::ShardFlap => !clients.shard_up[usize::from(fault.shard)],
            Kind::ShardMaint => clients.in_maint[usize::from(fault.shard)],
            Kind::ShardPathCut | Kind::ShardPathsCut | Kind::ShardPathFlaps => {
                let reached = |seat: &Seat| clients.reaches(*seat, fault.shard, world);
                !fault.nodes.iter().any(reached)
            }
            Kind::DamagedLifetime => false,
        }
    }

    fn carry_out(
        &mut self,
        number: usize,
        fault: &Fault,
        world: &mut World,
        observer: &mut Observer,
        clients: &mut Clients,
    ) -> Vec<Demand> {
        let now = world.now_ms();
        let paths = fault.paths(world.len());
        match fault.kind {
            Kind::OneWayCut | Kind::SilentCut | Kind::Isolated | Kind::Asymmetric => {
                for (from, to) in paths {
                    self.block(from, to, world);
                }
            }
            Kind::TwoWayCut | Kind::Halves => {
                let noticed = fault.kind == Kind::TwoWayCut || fault.salt & 1 == 0;
                for (from, to) in paths {
                    self.block(from, to, world);
                    if noticed && from < to {
                        world.cut(from, to, observer);
                    }
                }
            }
            Kind::Clogging => {
                for (from, to) in paths {
                    self.clogs[from][to] += 1;
                    world.clog(from, to);
                }
            }
            Kind::SlowPath => {
                self.slow_paths += 1;
                for (from, to) in paths {
                    self.slow[from][to] += 1;
                    world.set_delay(from, to, SLOW);
                }
            }
            Kind::ClaimNoise => {
                self.noises += 1;
                let noise = Noise { lost: fault.salt % 200, doubled: fault.salt / 7 % 300, late: 100 };
                for (from, to) in paths {
                    world.set_noise(from, to, noise);
                }
            }
            Kind::Crash | Kind::CrashTwo => {
                for seat in &fault.nodes {
                    self.crash(number, *seat, fault, world, observer, clients);
                }
            }
            Kind::CrashHome => {
                let key = observer.names.key(clients.some_room());
                let names: Vec<_> = (0..world.len()).map(|seat| world.name(seat).clone()).collect();
                let home = first_by_rendezvous(&key, names.iter()).and_then(|home| world.seat_of(home));
                if let Some(seat) = home {
                    observer.trace.note(now, || format!("the home of {key} is {}", name(seat)));
                    self.crash(number, seat, fault, world, observer, clients);
                }
            }
            Kind::Pause | Kind::Sleep | Kind::Hang => {
                let seat = fault.nodes[0];
                if world.state(seat) == State::Running {
                    observer.rounds.disturbed(seat, now);
                    self.hit.insert((number, seat));
                    match fault.kind {
                        Kind::Pause => world.pause(seat, Sleep::Process),
                        Kind::Sleep => world.pause(seat, Sleep::Machine),
                        _ => world.hang(seat),
                    }
                }
            }
            Kind::ClockSkew | Kind::ClockJump => {
                let most = if fault.kind == Kind::ClockSkew { 12 * HOUR_MS } else { HOUR_MS / 60 };
                let error = (fault.salt % (2 * most)) as i64 - most as i64;
                world.set_wall_error_ms(fault.nodes[0], error);
            }
            Kind::Unlisted | Kind::ListedLate => {
                self.truth.remove(&fault.nodes[0]);
                return vec![Demand::Tell];
            }
            Kind::ShardDeath => clients.shard_is(fault.shard, Some(trouble(fault)), world, observer),
            Kind::ShardFlap => {
                clients.shard_is(fault.shard, Some(trouble(fault)), world, observer);
                return vec![Demand::Flap(fault.shard, now + self.random.between(200, 3_000))];
            }
            Kind::ShardPathCut | Kind::ShardPathsCut => {
                for seat in &fault.nodes {
                    clients.path_is(*seat, fault.shard, Some(trouble(fault)), world, observer);
                }
            }
            Kind::ShardPathFlaps => {
                let seat = fault.nodes[0];
                clients.path_is(seat, fault.shard, Some(trouble(fault)), world, observer);
                let at = now + self.random.between(200, 3_000);
                return vec![Demand::FlapPath(seat, fault.shard, at)];
            }
            Kind::ShardMaint => clients.maint_is(fault.shard, true),
            Kind::DamagedLifetime => self.damaged += damage(fault, world, observer, clients),
        }
        Vec::new()
    }

    fn crash(
        &mut self,
        number: usize,
        seat: Seat,
        fault: &Fault,
        world: &mut World,
        observer: &mut Observer,
        clients: &mut Clients,
    ) {
        if world.state(seat) == State::Crashed {
            return;
        }
        self.hit.insert((number, seat));
        if fault.salt & 2 == 0 {
            world.crash(seat, observer);
        } else {
            world.stop(seat, observer);
        }
        clients.crashed(seat, world.now_ms());
    }

    /// It has lasted.
    pub(super) fn end(
        &mut self,
        number: usize,
        fault: &Fault,
        setup: &Setup,
        world: &mut World,
        observer: &mut Observer,
        clients: &mut Clients,
    ) -> Vec<Demand> {
        let now = world.now_ms();
        observer.trace.note(now, || format!("*** over: {}: nodes {:?}", fault.kind.name(), fault.nodes));
        let paths = fault.paths(world.len());
        match fault.kind {
            Kind::OneWayCut
            | Kind::SilentCut
            | Kind::Isolated
            | Kind::Asymmetric
            | Kind::TwoWayCut
            | Kind::Halves => {
                for (from, to) in paths {
                    self.unblock(from, to, world);
                }
            }
            Kind::Clogging => {
                for (from, to) in paths {
                    self.clogs[from][to] -= 1;
                    if self.clogs[from][to] == 0 {
                        world.unclog(from, to);
                    }
                }
            }
            Kind::SlowPath => {
                self.slow_paths -= 1;
                observer.rounds.rough(now);
                for (from, to) in paths {
                    self.slow[from][to] -= 1;
                    if self.slow[from][to] == 0 {
                        world.set_delay(from, to, setup.delay(from, to));
                    }
                }
            }
            Kind::ClaimNoise => {
                self.noises -= 1;
                observer.rounds.rough(now);
                if self.noises == 0 {
                    for (from, to) in paths {
                        world.set_noise(from, to, Noise::default());
                    }
                }
            }
            Kind::Crash | Kind::CrashTwo | Kind::CrashHome => {
                let of_this: Vec<Seat> =
                    (0..world.len()).filter(|seat| self.hit.remove(&(number, *seat))).collect();
                return of_this.into_iter().map(Demand::Start).collect();
            }
            Kind::Pause | Kind::Sleep | Kind::Hang => {
                if self.hit.remove(&(number, fault.nodes[0])) {
                    observer.rounds.disturbed(fault.nodes[0], now);
                    world.resume(fault.nodes[0], observer);
                }
            }
            Kind::ClockSkew => {}
            Kind::ClockJump => world.set_wall_error_ms(fault.nodes[0], 0),
            Kind::Unlisted | Kind::ListedLate => {
                self.truth.insert(fault.nodes[0]);
                return vec![Demand::Tell];
            }
            Kind::ShardDeath | Kind::ShardFlap => clients.shard_is(fault.shard, None, world, observer),
            Kind::ShardPathCut | Kind::ShardPathsCut | Kind::ShardPathFlaps => {
                for seat in &fault.nodes {
                    clients.path_is(*seat, fault.shard, None, world, observer);
                }
            }
            Kind::ShardMaint => clients.maint_is(fault.shard, false),
            Kind::DamagedLifetime => {}
        }
        Vec::new()
    }

    /// Everything between these nodes works again, and they run; the others are left broken for ever.
    pub(super) fn heal(
        &mut self,
        setup: &Setup,
        world: &mut World,
        observer: &mut Observer,
        clients: &mut Clients,
    ) -> Vec<Demand> {
        let nodes = world.len();
        let mut demands = Vec::new();
        let inside = |seat: &Seat| setup.core.contains(seat);
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                world.set_noise(from, to, Noise::default());
                world.set_delay(from, to, setup.delay(from, to));
                if inside(&from) && inside(&to) {
                    world.unblock(from, to);
                    world.unclog(from, to);
                }
            }
        }
        for seat in 0..nodes {
            if inside(&seat) {
                match world.state(seat) {
                    State::Crashed => demands.push(Demand::Start(seat)),
                    State::Paused(_) | State::Hung => {
                        observer.rounds.disturbed(seat, world.now_ms());
                        world.resume(seat, observer);
                    }
                    State::Running => {}
                }
                continue;
            }
            match self.random.below(3) {
                _ if world.state(seat) == State::Hung => {
                    world.crash(seat, observer);
                    clients.crashed(seat, world.now_ms());
                }
                0 => {
                    world.crash(seat, observer);
                    clients.crashed(seat, world.now_ms());
                }
                1 => world.pause(seat, Sleep::Process),
                _ => {
                    for other in (0..nodes).filter(|other| *other != seat) {
                        world.block(seat, other);
                        world.block(other, seat);
                    }
                }
            }
        }
        self.truth = (0..nodes).collect();
        demands.push(Demand::Tell);
        self.noises = 0;
        self.slow_paths = 0;
        observer.rounds.rough(world.now_ms());
        for shard in 0..setup.shards {
            clients.shard_is(shard, None, world, observer);
            clients.maint_is(shard, false);
            for seat in 0..nodes {
                clients.path_is(seat, shard, None, world, observer);
            }
        }
        demands
    }
}

/// How a fault shows at who tries to reach the shard.
const fn trouble(fault: &Fault) -> Trouble {
    if fault.salt & 4 == 0 { Trouble::Refuses } else { Trouble::Silent }
}

/// A peer sends entries whose lifetimes are the largest number there is. Answers how many.
fn damage(fault: &Fault, world: &mut World, observer: &mut Observer, clients: &mut Clients) -> u32 {
    let (at, from) = (fault.nodes[0], fault.nodes[1]);
    let mut damaged = 0;
    for _ in 0..5 {
        let key = observer.names.key(clients.some_room());
        let open = world.state(at) == State::Running && world.is_connected(at, from);
        let Some(node) = world.node(at).filter(|_| open) else { break };
        let peer = world.name(from).clone();
        let greeted = node.peers().any(|(id, view)| {
            use shardgate_peering_core::LinkState;
            *id == peer && matches!(view.link, LinkState::Learning | LinkState::Reconciled)
        });
        let Some((entry, _)) = node.entry(&key).filter(|_| greeted) else { continue };
        let message = damaged_lifetime(key, entry.clone());
        world.inject(at, Input::Received { peer, message }, observer);
        damaged += 1;
    }
    damaged
}
