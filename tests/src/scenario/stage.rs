//! The world of a scenario with names instead of numbers, and who looks on.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_peering_core::{
    ClaimToken, Config, Entry, Input, Output, PeerId, StickKey, first_by_rendezvous,
};

use crate::world::{Delay, Scene, Seat, State, Watch, World};

use super::render::Render;
use super::trace::Trace;

/// Links delay so long in one direction unless a scenario says otherwise.
const DELAY_MS: u64 = 20;
/// Leases are short, so that a reader need not count in minutes.
const TTL_MS: u64 = 10_000;

/// What is seen: the trace, and which claims wait for an answer.
#[derive(Debug)]
pub(super) struct Recorder {
    /// The lines.
    pub(super) trace: Trace,
    names: Vec<PeerId>,
    origin_ms: u64,
    /// Entries of the keys that the input under way is about, as they were.
    before: BTreeMap<StickKey, Option<Entry>>,
    /// Claims without an answer yet, and where.
    pub(super) waiting: BTreeMap<ClaimToken, Seat>,
}

impl Recorder {
    /// Milliseconds of the scenario.
    #[must_use]
    pub(super) const fn at_ms(&self, world_ms: u64) -> u64 {
        world_ms.saturating_sub(self.origin_ms)
    }

    fn entry_of<'n>(scene: &Scene<'n>, output: &Output) -> Option<&'n Entry> {
        if let Output::Changed { key, .. } = output {
            scene.node.entry(key).map(|(entry, _)| entry)
        } else {
            None
        }
    }
}

impl Watch for Recorder {
    fn input(&mut self, scene: &Scene<'_>, input: &Input) {
        if let Input::Claim { token, .. } | Input::Clear { token, .. } = input {
            self.waiting.insert(*token, scene.seat);
        }
        let at_ms = self.at_ms(scene.now_ms);
        self.trace.input(at_ms, &self.names[scene.seat], input, scene.node.poll_timeout().1);
        if self.trace.shows_events() {
            let entry = |key: &StickKey| scene.node.entry(key).map(|(entry, _)| entry.clone());
            self.before = Render::keys(input).into_iter().map(|key| (key.clone(), entry(&key))).collect();
        }
    }

    fn output(&mut self, scene: &Scene<'_>, output: &Output) {
        if let Output::Answered { token, .. } = output {
            assert!(self.waiting.remove(token).is_some(), "{token:?} is answered twice");
        }
        if let Output::Changed { key, .. } = output {
            self.before.remove(key);
        }
        let at_ms = self.at_ms(scene.now_ms);
        self.trace.output(at_ms, &self.names[scene.seat], output, Self::entry_of(scene, output));
    }

    fn settled(&mut self, scene: &Scene<'_>) {
        for (key, before) in std::mem::take(&mut self.before) {
            let after = scene.node.entry(&key).map(|(entry, _)| entry);
            if before.as_ref() != after {
                self.trace.replaced(&key, after);
            }
        }
    }
}

/// The world under way.
#[derive(Debug)]
pub(super) struct Stage {
    /// The nodes.
    pub(super) world: World,
    /// What is seen of them.
    pub(super) recorder: Recorder,
    /// Whom discovery lists at each node, once it runs.
    listed: Vec<BTreeSet<Seat>>,
    keys: BTreeMap<String, StickKey>,
}

impl Stage {
    /// Nodes that are not started yet, each listing all.
    #[must_use]
    pub(super) fn new(names: &[PeerId], options: &BTreeMap<String, u64>) -> Self {
        let delay_ms = options.get("delay").copied().unwrap_or(DELAY_MS);
        let mut world = World::new(1, Delay::Fixed(delay_ms));
        for name in names {
            let seat = world.add(Config { ttl_ms: TTL_MS, ..Config::new(name.clone(), 1) });
            set(world.config_mut(seat), options);
        }
        let ttl_ms = options.get("ttl").copied().unwrap_or(TTL_MS);
        let recorder = Recorder {
            trace: Trace::new(Render { short: BTreeMap::new(), ttl_ms }),
            names: names.to_vec(),
            origin_ms: 0,
            before: BTreeMap::new(),
            waiting: BTreeMap::new(),
        };
        let all: BTreeSet<Seat> = (0..names.len()).collect();
        Self { world, recorder, listed: vec![all; names.len()], keys: BTreeMap::new() }
    }

    /// Other settings for a node from its next start on.
    pub(super) fn config(&mut self, seat: Seat, options: &BTreeMap<String, u64>) {
        set(self.world.config_mut(seat), options);
    }

    /// The scenario's time begins here.
    pub(super) const fn begin(&mut self) {
        self.recorder.origin_ms = self.world.now_ms();
    }

    /// The scenario's time.
    #[must_use]
    pub(super) const fn now_ms(&self) -> u64 {
        self.recorder.at_ms(self.world.now_ms())
    }

    /// The conference of a short name; one that was not introduced is its own name.
    #[must_use]
    pub(super) fn key(&self, name: &str) -> Option<StickKey> {
        self.keys.get(name).cloned().or_else(|| StickKey::parse(name).ok())
    }

    /// Finds a conference whose first homes are these and gives it a short name; the order of all its homes. `None`: there is no such order.
    pub(super) fn name_key(&mut self, name: &str, homes: &[PeerId]) -> Option<Vec<PeerId>> {
        let found = (0..100_000).find_map(|n| {
            let text = if n == 0 { name.to_owned() } else { format!("{name}-{n}") };
            let key = StickKey::parse(&text).ok()?;
            let order = self.homes(&key);
            order.starts_with(homes).then_some((key, order))
        });
        let (key, order) = found?;
        self.recorder.trace.render.short.insert(key.clone(), name.to_owned());
        self.keys.insert(name.to_owned(), key);
        Some(order)
    }

    fn homes(&self, key: &StickKey) -> Vec<PeerId> {
        let mut left = self.recorder.names.clone();
        let mut order = Vec::new();
        while let Some(first) = first_by_rendezvous(key, left.iter()).cloned() {
            left.retain(|peer| *peer != first);
            order.push(first);
        }
        order
    }

    /// Starts a node and tells it whom discovery lists.
    pub(super) fn start(&mut self, seat: Seat) {
        self.world.start(seat, &mut self.recorder);
        #[cfg(feature = "test-hooks")]
        self.plant_fault(seat);
        let listed: Vec<Seat> = self.listed[seat].iter().copied().collect();
        self.world.list(seat, &listed, &mut self.recorder);
    }

    /// Plants the fault that `SHARDGATE_MUTATION` names, to see which scenarios notice it.
    #[cfg(feature = "test-hooks")]
    fn plant_fault(&mut self, seat: Seat) {
        let name = std::env::var("SHARDGATE_MUTATION").unwrap_or_default();
        let mutation = shardgate_peering_core::Mutation::parse(&name);
        assert!(mutation.is_some() || name.is_empty(), "{name:?} is no planted fault");
        if let (Some(mutation), Some(node)) = (mutation, self.world.node_mut(seat)) {
            node.mutate(mutation);
        }
    }

    /// Its process ends without a word. Nobody is answered there any more.
    pub(super) fn crash(&mut self, seat: Seat) {
        self.world.crash(seat, &mut self.recorder);
        self.recorder.waiting.retain(|_, at| *at != seat);
    }

    /// Discovery lists these at a node, now or when it starts.
    pub(super) fn list(&mut self, seat: Seat, listed: &[Seat]) {
        self.listed[seat] = listed.iter().copied().collect();
        self.world.list(seat, listed, &mut self.recorder);
    }

    /// A node is given an input.
    pub(super) fn inject(&mut self, seat: Seat, input: Input) {
        self.world.inject(seat, input, &mut self.recorder);
    }

    /// Lets the time pass until then.
    pub(super) fn run_to(&mut self, world_ms: u64) {
        while self.world.step(world_ms, &mut self.recorder) {}
        let now_ms = self.now_ms();
        self.recorder.trace.pass_to(now_ms);
    }

    /// The nodes that exist, in the order of their names' first mention.
    pub(super) fn running(&self) -> impl Iterator<Item = Seat> {
        (0..self.world.len()).filter(|seat| self.world.state(*seat) != State::Crashed)
    }
}

fn set(config: &mut Config, options: &BTreeMap<String, u64>) {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    for (name, value) in options {
        match name.as_str() {
            "ttl" => config.ttl_ms = *value,
            "heartbeat" => config.heartbeat_ms = *value,
            "entries" => config.entries_max = size(*value),
            "log" => config.log_max = size(*value),
            "batch" => config.batch_items = size(*value),
            "window" => config.gives_window = *value,
            "claims" => config.claims_max = size(*value),
            _ => {}
        }
    }
}
