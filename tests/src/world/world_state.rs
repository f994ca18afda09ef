//! The world: places, the paths between them, the time, and what its user may do to them.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_peering_core::{Config, Input, Instant, Node, Now, PeerId};

use super::clockwork::{Clockwork, Happening};
use super::path::{Delay, Noise, Path};
use super::random::{Random, mix};
use super::seat::{Feed, Place, Seat, Sleep, State, WALL_START_MS};
use super::shards::Shards;
use super::watch::{Network, Scene, Watch};

/// A connection on which a side hears nothing for so long has ended for it.
pub const IDLE_MS: u64 = 3_000;
/// What is kept for a peer that takes too little, by lane: control, claims, bulk. Less than the shell keeps.
const OUTBOX_MAX: [usize; 3] = [8_192, 8_192, 64];
/// A node whose timer asks to be woken at once, so often without time going on, spins.
const SPINS_MAX: u32 = 10_000;

/// Nodes, the network between them, and a virtual clock.
#[derive(Debug)]
pub struct World {
    pub(super) places: Vec<Place>,
    pub(super) seats: BTreeMap<PeerId, Seat>,
    pub(super) paths: Vec<Vec<Path>>,
    pub(super) now: u64,
    pub(super) clockwork: Clockwork,
    pub(super) random: Random,
    pub(super) connections: u64,
    pub(super) hash: u64,
    pub(super) lazy_permille: u64,
    timers_late_ms: u64,
    late_seed: u64,
    pub(super) outbox_max: [usize; 3],
    pub(super) shards: Shards,
    lives: u64,
    delay: Delay,
    spins: u32,
}

impl World {
    /// An empty world; `delay` is that of every path until [`World::set_delay`] says otherwise.
    #[must_use]
    pub fn new(seed: u64, delay: Delay) -> Self {
        Self {
            places: Vec::new(),
            seats: BTreeMap::new(),
            paths: Vec::new(),
            now: 0,
            clockwork: Clockwork::default(),
            random: Random::new(seed),
            connections: 0,
            hash: 0,
            lazy_permille: 0,
            timers_late_ms: 0,
            late_seed: seed,
            outbox_max: OUTBOX_MAX,
            shards: Shards::default(),
            lives: 0,
            delay,
            spins: 0,
        }
    }

    /// So many messages of control, and as many claims, are under way to one peer at the most; then the connection ends.
    pub const fn set_outbox(&mut self, most: usize) {
        self.outbox_max = [most, most, OUTBOX_MAX[2]];
    }

    /// Of 1,000 inputs, so many wait up to a millisecond for others before the node's outputs are carried out, as in a busy shell.
    pub const fn set_lazy(&mut self, permille: u64) {
        self.lazy_permille = permille;
    }

    /// Nodes are woken 0 to so many milliseconds later than they want to be, as on a busy machine.
    pub const fn set_timers_late(&mut self, most_ms: u64) {
        self.timers_late_ms = most_ms;
    }

    /// When a node will be woken that wants to be at this moment of its own; asked again, the same.
    pub(super) fn woken_at(&self, seat: Seat, wanted: Instant) -> u64 {
        let word = mix(mix(self.late_seed ^ seat as u64) ^ wanted.0);
        let late_ms = if self.timers_late_ms == 0 { 0 } else { word % (self.timers_late_ms + 1) };
        self.places[seat].world_time(wanted).saturating_add(late_ms)
    }

    /// Adds a place for the node of this configuration; it is not started. Its incarnation is set at each start.
    pub fn add(&mut self, config: Config) -> Seat {
        let seat = self.places.len();
        self.seats.insert(config.me.clone(), seat);
        self.places.push(Place::new(config, seat));
        for row in &mut self.paths {
            row.push(Path::new(self.delay));
        }
        self.paths.push((0..=seat).map(|_| Path::new(self.delay)).collect());
        seat
    }

    /// The number of places.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no place yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Virtual milliseconds since the world began.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.now
    }

    /// The clocks of a node now.
    #[must_use]
    pub fn clocks(&self, seat: Seat) -> Now {
        self.places[seat].moment(self.now)
    }

    /// What a wall clock shows that is right.
    #[must_use]
    pub const fn true_wall_ms(&self) -> u64 {
        WALL_START_MS.unsigned_abs() + self.now
    }

    /// The place of a name.
    #[must_use]
    pub fn seat_of(&self, peer: &PeerId) -> Option<Seat> {
        self.seats.get(peer).copied()
    }

    /// The name of a place.
    #[must_use]
    pub fn name(&self, seat: Seat) -> &PeerId {
        &self.places[seat].config.me
    }

    /// What its process does.
    #[must_use]
    pub fn state(&self, seat: Seat) -> State {
        self.places[seat].state
    }

    /// The node, unless it crashed or never started.
    #[must_use]
    pub fn node(&self, seat: Seat) -> Option<&Node> {
        self.places[seat].node.as_ref()
    }

    /// Whether a node knows more than it has told: its outputs are not carried out yet.
    #[must_use]
    pub fn has_more_to_tell(&self, seat: Seat) -> bool {
        self.places[seat].fetch_at.is_some()
    }

    /// The node to plant a fault in.
    pub fn node_mut(&mut self, seat: Seat) -> Option<&mut Node> {
        self.places[seat].node.as_mut()
    }

    /// The start of its process, counted from 1 over all places.
    #[must_use]
    pub fn life(&self, seat: Seat) -> u64 {
        self.places[seat].life
    }

    /// Whether it last said that it is ready.
    #[must_use]
    pub fn is_ready(&self, seat: Seat) -> bool {
        self.places[seat].ready
    }

    /// The places it lists.
    #[must_use]
    pub fn listed(&self, seat: Seat) -> &BTreeSet<Seat> {
        &self.places[seat].listed
    }

    /// Whether the first one sees a connection to the second.
    #[must_use]
    pub fn sees_connection(&self, from: Seat, to: Seat) -> bool {
        self.paths[from][to].connection.is_some()
    }

    /// Whether both see the same connection and packets pass in both directions.
    #[must_use]
    pub fn is_connected(&self, a: Seat, b: Seat) -> bool {
        let (there, back) = (&self.paths[a][b], &self.paths[b][a]);
        there.connection.is_some()
            && there.connection == back.connection
            && !(there.blocked || back.blocked || there.clogged || back.clogged)
    }

    /// A number that differs when anything that happened differs.
    #[must_use]
    pub const fn trace_hash(&self) -> u64 {
        self.hash
    }

    pub(super) const fn note(&mut self, word: u64) {
        self.hash = mix(self.hash ^ word).wrapping_add(self.now);
    }

    /// How the node will be configured at its next start.
    pub fn config_mut(&mut self, seat: Seat) -> &mut Config {
        &mut self.places[seat].config
    }

    /// Its hellos name other contracts (oldest, newest) than its code speaks, as another version of it would.
    pub fn set_contracts(&mut self, seat: Seat, contracts: Option<(u32, u32)>) {
        self.places[seat].contracts = contracts;
    }

    /// Starts its process: empty, with a new incarnation, listing nobody.
    ///
    /// # Panics
    /// When it runs already or its configuration is refused.
    pub fn start<W: Watch>(&mut self, seat: Seat, watch: &mut W) {
        self.lives += 1;
        let place = &mut self.places[seat];
        assert!(place.state == State::Crashed, "{} runs already", place.config.me);
        // A node that was paused counts on by itself.
        place.config.incarnation = self.lives << 16;
        place.life = self.lives;
        let node = Node::new(place.config.clone(), place.moment(self.now)).expect("a valid configuration");
        let (wanted, _) = node.poll_timeout();
        place.node = Some(node);
        place.state = State::Running;
        place.ready = false;
        self.places[seat].deadline = self.woken_at(seat, wanted);
        self.note(seat as u64);
        watch.network(self.now, &Network::Started(seat));
    }

    /// Its process ends without a word; others notice by the silence, or by the next connection.
    pub fn crash<W: Watch>(&mut self, seat: Seat, watch: &mut W) {
        let place = &mut self.places[seat];
        if place.state == State::Crashed {
            return;
        }
        place.state = State::Crashed;
        place.node = None;
        place.ready = false;
        place.listed.clear();
        place.waiting_packets.clear();
        place.waiting_inputs.clear();
        place.fetch_at = None;
        self.note(1_000 + seat as u64);
        watch.network(self.now, &Network::Crashed(seat));
        for other in 0..self.len() {
            self.paths[seat][other].forget();
            self.recheck(other, seat);
        }
    }

    /// Its process ends and closes its connections.
    pub fn stop<W: Watch>(&mut self, seat: Seat, watch: &mut W) {
        for peer in 0..self.len() {
            if let Some(connection) = self.paths[seat][peer].connection {
                let at = self.now + self.paths[seat][peer].delay.draw(&mut self.random);
                self.clockwork.push(at, Happening::Closed { at: peer, peer: seat, connection });
            }
        }
        self.crash(seat, watch);
    }

    /// Nothing of it runs, packets wait.
    pub fn pause(&mut self, seat: Seat, sleep: Sleep) {
        let place = &mut self.places[seat];
        if place.state != State::Running {
            return;
        }
        place.state = State::Paused(sleep);
        place.stopped_at = self.now;
        for other in 0..self.len() {
            self.recheck(other, seat);
        }
    }

    /// Its connections live, but the node does nothing until [`World::resume`].
    pub fn hang(&mut self, seat: Seat) {
        let place = &mut self.places[seat];
        if place.state == State::Running {
            place.state = State::Hung;
            place.stopped_at = self.now;
        }
    }

    /// It runs again; everything that waited for it comes now, in its order.
    pub fn resume<W: Watch>(&mut self, seat: Seat, watch: &mut W) {
        let place = &mut self.places[seat];
        match place.state {
            State::Crashed | State::Running => return,
            State::Hung => {}
            State::Paused(Sleep::Process) => {}
            State::Paused(Sleep::Machine) => {
                place.suspended_ms += self.now - place.stopped_at;
                place.deadline = place.deadline.saturating_add(self.now - place.stopped_at);
            }
        }
        place.state = State::Running;
        let packets = std::mem::take(&mut place.waiting_packets);
        let inputs = std::mem::take(&mut place.waiting_inputs);
        // Whichever comes first: its timer, or what waited.
        if self.random.chance(500) {
            self.feed(seat, Feed::Input(Input::Timeout), watch);
        }
        for input in inputs {
            self.feed(seat, input, watch);
        }
        for (sequence, packet) in packets {
            self.clockwork.put_back(self.now, sequence, packet);
        }
        for other in 0..self.len() {
            self.recheck(other, seat);
            self.recheck(seat, other);
        }
    }

    /// By how many milliseconds its wall clock is wrong.
    #[must_use]
    pub fn wall_error_ms(&self, seat: Seat) -> i64 {
        self.places[seat].wall_error_ms
    }

    /// How long packets of the first one travel to the second.
    #[must_use]
    pub fn delay(&self, from: Seat, to: Seat) -> Delay {
        self.paths[from][to].delay
    }

    /// What befalls claims and answers on the way from the first one to the second.
    #[must_use]
    pub fn noise(&self, from: Seat, to: Seat) -> Noise {
        self.paths[from][to].noise
    }

    /// Whether packets of the first one for the second are lost.
    #[must_use]
    pub fn is_blocked(&self, from: Seat, to: Seat) -> bool {
        self.paths[from][to].blocked
    }

    /// Whether they wait.
    #[must_use]
    pub fn is_clogged(&self, from: Seat, to: Seat) -> bool {
        self.paths[from][to].clogged
    }

    /// Its wall clock is wrong by so many milliseconds from now on.
    pub fn set_wall_error_ms(&mut self, seat: Seat, error_ms: i64) {
        self.places[seat].wall_error_ms = error_ms;
    }

    /// Discovery tells it who the peers are.
    pub fn list<W: Watch>(&mut self, seat: Seat, peers: &[Seat], watch: &mut W) {
        if self.places[seat].state == State::Crashed {
            return;
        }
        self.places[seat].listed = peers.iter().copied().collect();
        let listed = peers.iter().map(|peer| self.name(*peer).clone()).collect();
        self.feed(seat, Feed::Input(Input::PeersChanged { listed }), watch);
        for peer in peers {
            self.dial_unless_connected(seat, *peer);
        }
    }

    /// How long packets of the first one travel to the second.
    pub fn set_delay(&mut self, from: Seat, to: Seat, delay: Delay) {
        self.paths[from][to].delay = delay;
    }

    /// What befalls claims and answers on the way from the first one to the second.
    pub fn set_noise(&mut self, from: Seat, to: Seat, noise: Noise) {
        self.paths[from][to].noise = noise;
    }

    /// Packets of the first one for the second are lost from now on, and nobody is told.
    pub fn block(&mut self, from: Seat, to: Seat) {
        self.paths[from][to].blocked = true;
        self.recheck(to, from);
    }

    /// They arrive again. What was sent meanwhile is sent again if the connection still stands.
    pub fn unblock(&mut self, from: Seat, to: Seat) {
        self.paths[from][to].blocked = false;
        self.release(from, to);
        self.recheck(to, from);
    }

    /// Messages wait while the connection seems to live.
    pub fn clog(&mut self, from: Seat, to: Seat) {
        self.paths[from][to].clogged = true;
    }

    /// What reconciliation carries waits; everything else arrives.
    pub fn clog_bulk(&mut self, from: Seat, to: Seat) {
        self.paths[from][to].bulk_clogged = true;
    }

    /// They arrive, all at once and in their order.
    pub fn unclog(&mut self, from: Seat, to: Seat) {
        self.paths[from][to].clogged = false;
        self.paths[from][to].bulk_clogged = false;
        self.release(from, to);
    }

    /// Blocks both directions; both sides notice at once.
    pub fn cut<W: Watch>(&mut self, a: Seat, b: Seat, watch: &mut W) {
        for (from, to) in [(a, b), (b, a)] {
            self.block(from, to);
        }
        for (from, to) in [(a, b), (b, a)] {
            self.lose_connection(from, to, watch);
        }
    }

    /// Every path lets everything through again.
    pub fn heal(&mut self) {
        for from in 0..self.len() {
            for to in 0..self.len() {
                self.unblock(from, to);
                self.unclog(from, to);
            }
        }
    }

    /// Gives a node an input now (or as soon as it runs again; never if it crashed).
    pub fn inject<W: Watch>(&mut self, seat: Seat, input: Input, watch: &mut W) {
        self.feed(seat, Feed::Input(input), watch);
    }

    /// Does the next thing that is due until `until`; false, and it is `until`, when there is none.
    ///
    /// # Panics
    /// When a node wants to be woken again and again without time going on.
    pub fn step<W: Watch>(&mut self, until: u64, watch: &mut W) -> bool {
        let mut timer = (u64::MAX, 0);
        for (seat, place) in self.places.iter().enumerate() {
            if place.runs() {
                timer = timer.min((place.deadline.min(place.fetch_at.unwrap_or(u64::MAX)), seat));
            }
        }
        let next = self.clockwork.next_at().unwrap_or(u64::MAX).min(timer.0);
        if next > until {
            self.now = self.now.max(until);
            return false;
        }
        if next > self.now {
            self.now = next;
            self.spins = 0;
        }
        if timer.0 == next {
            let (_, seat) = timer;
            if self.places[seat].fetch_at.is_some_and(|at| at <= next) {
                self.fetch(seat, watch);
            } else {
                self.spins += 1;
                assert!(self.spins < SPINS_MAX, "{} spins at {} ms", self.name(seat), self.now);
                self.feed(seat, Feed::Input(Input::Timeout), watch);
            }
        } else if let Some(due) = self.clockwork.pop() {
            self.happen(due, watch);
        }
        true
    }

    /// Lets so many milliseconds pass.
    pub fn run_ms<W: Watch>(&mut self, ms: u64, watch: &mut W) {
        let until = self.now + ms;
        while self.step(until, watch) {}
    }

    /// Runs until `done`, at most so many milliseconds; whether it was done.
    pub fn run_until<W: Watch>(
        &mut self,
        most_ms: u64,
        watch: &mut W,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let until = self.now + most_ms;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(until, watch) {
                return done(self);
            }
        }
    }

    /// The scene at a node that exists.
    #[must_use]
    pub fn scene(&self, seat: Seat) -> Option<Scene<'_>> {
        let place = &self.places[seat];
        place.node.as_ref().map(|node| Scene { now_ms: self.now, seat, life: place.life, node })
    }
}
