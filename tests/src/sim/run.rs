//! One seed from its setup to its verdict.

use super::check::{Converged, Gone, Violation, bound_ms, converged, final_checks};
use super::clients::{Clients, Plan};
use super::coverage::Coverage;
use super::mishap::{Demand, Mishaps};
use super::mutant::Mutant;
use super::observer::{Observer, name};
use super::setup::{Setup, Weather};
use super::trace::{Trace, Wanted};
use crate::world::random::mix;
use crate::world::{Delay, Random, Seat, State, Trouble, World};

/// How often what cannot be seen in outputs is looked at.
const AUDIT_MS: u64 = 250;
/// Until all nodes have started, found each other and are ready.
const START_MS: u64 = 8_000;
/// A digest lies 2 to 3 s back, and comes with the next heartbeat.
const AGREEMENT_SHOWN_MS: u64 = 4_000;
/// How long a probe takes that is answered.
const PROBE_TIME: Delay = Delay::Range(1, 40);
/// How many client steps a seed must have.
const STEPS_LEAST: u64 = 2_000;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was wrong, if anything.
    pub violation: Option<Violation>,
    /// What it saw.
    pub coverage: Coverage,
    /// Differs when anything differs.
    pub hash: u64,
    /// What clients did.
    pub steps: u64,
    /// From the heal until the core's tables were equal.
    pub converged_ms: Option<u64>,
    /// How many were sent elsewhere because the mesh had changed its mind.
    pub outputs_most: usize,
    /// The trace, if one was wanted.
    pub lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Start(Seat),
    Tell(Seat),
    Begin(usize),
    End(usize),
    Flap(u16),
    FlapPath(Seat, u16),
}

struct Run<'s> {
    setup: &'s Setup,
    mutant: Option<Mutant>,
    world: World,
    observer: Observer,
    clients: Clients,
    mishaps: Mishaps,
    gone: Gone,
    events: Vec<(u64, u64, Event)>,
    sequence: u64,
    next_audit: u64,
    audits: u64,
    /// Over what lasts until the faults are over.
    faults_until: u64,
    random: Random,
}

/// Runs a seed.
#[must_use]
pub fn run_seed(setup: &Setup, mutant: Option<Mutant>, wanted: Wanted, lines_most: usize) -> Outcome {
    let mut run = Run::new(setup, mutant, Trace::new(wanted, lines_most));
    let converged_ms = run.story();
    let mut observer = run.observer;
    if observer.violation.is_none() && run.clients.steps < STEPS_LEAST {
        let text = format!("only {} client steps", run.clients.steps);
        observer.accuse("a seed is long enough", run.world.now_ms(), None, text);
    }
    Outcome {
        seed: setup.seed,
        violation: observer.violation,
        coverage: observer.coverage,
        hash: mix(run.world.trace_hash() ^ run.clients.steps),
        steps: run.clients.steps,
        converged_ms,
        outputs_most: observer.bounds.outputs_most,
        lines: observer.trace.into_lines(),
    }
}

impl<'s> Run<'s> {
    fn new(setup: &'s Setup, mutant: Option<Mutant>, trace: Trace) -> Self {
        let mut world = World::new(mix(setup.seed ^ 0x5eed), Delay::Fixed(1));
        world.set_lazy(setup.lazy_permille);
        world.set_timers_late(setup.timers_late_ms);
        world.set_outbox(setup.limits.outbox);
        for seat in 0..setup.nodes() {
            let seat = world.add(setup.config(seat));
            world.set_probe_time(seat, PROBE_TIME);
        }
        for from in 0..setup.nodes() {
            for to in 0..setup.nodes() {
                world.set_delay(from, to, setup.delay(from, to));
            }
        }
        Self {
            setup,
            mutant,
            world,
            observer: Observer::new(setup, trace),
            clients: Clients::new(setup),
            mishaps: Mishaps::new(setup),
            gone: Gone::new(setup.nodes()),
            events: Vec::new(),
            sequence: 0,
            next_audit: 0,
            audits: 0,
            faults_until: START_MS + setup.phase_ms,
            random: Random::new(setup.seed).fork(4),
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push((at, self.sequence, event));
        // The next one last.
        self.events.sort_unstable_by_key(|(at, sequence, _)| std::cmp::Reverse((*at, *sequence)));
    }

    fn story(&mut self) -> Option<u64> {
        for seat in 0..self.setup.nodes() {
            let at = self.random.below(1_500);
            self.at(at, Event::Start(seat));
        }
        for (number, fault) in self.setup.faults.iter().enumerate() {
            // Who is listed late is not listed from the start.
            let begin = if fault.at_ms == 0 { 0 } else { START_MS + fault.at_ms };
            self.at(begin, Event::Begin(number));
            self.at(START_MS + fault.at_ms + fault.lasts_ms, Event::End(number));
        }
        self.clients.plan(START_MS, Plan::Step);
        self.go_until(self.faults_until);
        self.clients.calm();
        self.heal();
        let healed = self.world.now_ms();
        let converged_ms = self.wait_until_converged(healed, bound_ms(self.setup, self.clients.rooms));
        // From here on no output waits, so that what the outputs told is what the tables hold.
        self.world.set_lazy(0);
        // Who holds, holds on although others are gone for ever; what nobody uses ends.
        self.go_until(self.world.now_ms() + self.setup.ttl_ms * 3 / 2);
        let quiet = self.world.now_ms();
        self.wait_until_converged(quiet, bound_ms(self.setup, self.clients.rooms));
        if self.observer.violation.is_none() {
            let rooms = self.clients.rooms;
            final_checks(&self.world, &mut self.observer, &self.setup.core, rooms);
        }
        converged_ms
    }

    fn wait_until_converged(&mut self, since: u64, bound: u64) -> Option<u64> {
        loop {
            let now = self.world.now_ms();
            let rooms = self.clients.rooms;
            let state = converged(&self.world, &mut self.observer, &self.setup.core, rooms);
            if state == Converged::Yes {
                return Some(now - since);
            }
            if self.observer.violation.is_some() {
                return None;
            }
            // Equal tables are told as agreement by the digests that follow; drops by the last leases may have made them differ till now.
            let shown_soon = matches!(&state, Converged::NotAgreed(_, _, _, differ) if differ.is_empty());
            let most = if shown_soon { bound + AGREEMENT_SHOWN_MS } else { bound };
            if now >= since + most {
                let room = if let Converged::Differ(room, ..) = state { Some(room) } else { None };
                let text = format!("after {bound} ms the core {:?} is not one: {state:?}", self.setup.core);
                self.observer.accuse("the healed core converges", now, room, text);
                return None;
            }
            self.go_until(now + AUDIT_MS);
        }
    }

    fn go_until(&mut self, end: u64) {
        while self.observer.violation.is_none() {
            let event = self.events.last().map_or(u64::MAX, |(at, _, _)| *at);
            let client = self.clients.next_at().unwrap_or(u64::MAX);
            let next = event.min(client).min(self.next_audit);
            while self.world.step(next.min(end), &mut self.observer) {
                if self.observer.violation.is_some() {
                    return;
                }
                if !self.observer.news.is_empty() {
                    self.clients.hear(&mut self.world, &mut self.observer);
                    if self.clients.next_at().is_some_and(|at| at < next) {
                        break;
                    }
                }
            }
            if next > end && self.world.now_ms() >= end {
                return;
            }
            let now = self.world.now_ms();
            while let Some((_, _, event)) = self.events.pop_if(|(at, _, _)| *at <= now) {
                self.happen(event);
            }
            self.clients.act(&mut self.world, &mut self.observer);
            self.clients.hear(&mut self.world, &mut self.observer);
            if now >= self.next_audit {
                self.next_audit = now + AUDIT_MS;
                self.audit();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let demands = match event {
            Event::Start(seat) => {
                self.start(seat);
                return;
            }
            Event::Tell(seat) => {
                self.tell(seat);
                return;
            }
            Event::Flap(shard) => {
                let now = self.world.now_ms();
                if now >= self.faults_until {
                    return;
                }
                let down = self.clients.shard_up[usize::from(shard)].then_some(Trouble::Refuses);
                self.clients.shard_is(shard, down, &mut self.world, &mut self.observer);
                vec![Demand::Flap(shard, now + self.random.between(200, 3_000))]
            }
            Event::FlapPath(seat, shard) => {
                let now = self.world.now_ms();
                if now >= self.faults_until {
                    return;
                }
                let cut = self.clients.reaches(seat, shard, &self.world).then_some(Trouble::Refuses);
                self.clients.path_is(seat, shard, cut, &mut self.world, &mut self.observer);
                vec![Demand::FlapPath(seat, shard, now + self.random.between(200, 3_000))]
            }
            Event::Begin(number) => {
                let fault = &self.setup.faults[number];
                self.mishaps.begin(number, fault, &mut self.world, &mut self.observer, &mut self.clients)
            }
            Event::End(number) => {
                let fault = &self.setup.faults[number];
                let Self { mishaps, setup, world, observer, clients, .. } = self;
                mishaps.end(number, fault, setup, world, observer, clients)
            }
        };
        self.meet(demands);
    }

    fn meet(&mut self, demands: Vec<Demand>) {
        for demand in demands {
            match demand {
                Demand::Start(seat) => self.start(seat),
                Demand::Tell => {
                    for seat in 0..self.world.len() {
                        let at = self.world.now_ms() + self.random.below(self.setup.discovery_lag_ms + 1);
                        self.at(at, Event::Tell(seat));
                    }
                }
                Demand::Flap(shard, at) => self.at(at, Event::Flap(shard)),
                Demand::FlapPath(seat, shard, at) => self.at(at, Event::FlapPath(seat, shard)),
            }
        }
    }

    fn start(&mut self, seat: Seat) {
        if self.world.state(seat) != State::Crashed {
            return;
        }
        self.world.start(seat, &mut self.observer);
        if let (Some(mutant), Some(node)) = (self.mutant, self.world.node_mut(seat)) {
            mutant.plant(node);
        }
        self.tell(seat);
    }

    /// Discovery tells a node who the peers are.
    fn tell(&mut self, seat: Seat) {
        let mut peers: Vec<Seat> = self.mishaps.truth.iter().copied().collect();
        if !peers.contains(&seat) {
            peers.push(seat);
        }
        self.world.list(seat, &peers, &mut self.observer);
    }

    fn heal(&mut self) {
        self.events.retain(|(_, _, event)| matches!(event, Event::Tell(_)));
        let now = self.world.now_ms();
        let core = &self.setup.core;
        self.observer.trace.note(now, || format!("*** healed: {core:?}"));
        let Self { mishaps, setup, world, observer, clients, .. } = self;
        let demands = mishaps.heal(setup, world, observer, clients);
        let (tells, others): (Vec<_>, Vec<_>) =
            demands.into_iter().partition(|demand| *demand == Demand::Tell);
        self.meet(others);
        if !tells.is_empty() {
            for seat in 0..self.world.len() {
                self.at(now + 1, Event::Tell(seat));
            }
        }
    }

    fn audit(&mut self) {
        self.audits += 1;
        self.observer.contacts.look(&self.world);
        self.observer.check_moves(&self.world, self.mishaps.is_rough());
        self.observer.check_claims(&self.world);
        self.observer.check_holding(&self.world, &mut self.gone);
        if self.setup.weather == Weather::Healthy && self.world.now_ms() == START_MS {
            for seat in 0..self.world.len() {
                if !self.world.is_ready(seat) {
                    let text = format!("{} is not ready", name(seat));
                    self.observer.accuse("a healthy mesh is ready in time", START_MS, None, text);
                }
            }
        }
        // A part of all rooms each time; timers change entries without a word.
        let part = self.audits % 16;
        for seat in 0..self.world.len() {
            // What a node has done is told by outputs that may not have been fetched yet.
            if self.observer.places[seat].inputs > 0 {
                continue;
            }
            if let Some(scene) = self.world.scene(seat) {
                for room in (0..self.clients.rooms).filter(|room| u64::from(*room) % 16 == part) {
                    self.observer.look_at(&scene, room, &[]);
                }
                if part == 0 {
                    self.observer.count_turns(&scene);
                }
            }
        }
    }
}
