//! Two honest nodes and a hostile peer. What the honest say to each other waits until somebody delivers it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shardgate_peering::codec;
use shardgate_peering::core::{
    ClaimReason, Config, Input, Instant, Lane, Message, Now, PeerId, Reached, ShardName, StickKey, Wall,
};

use super::bytes::Bytes;
use super::hostile::{self, Heard, key, peer, shard};
use super::observed::{Came, Observed};

/// 2026-11-21, so that stamps look like real ones.
pub(super) const WALL_START: Wall = Wall(1_795_219_200_000);

/// How far a node's wall clock jumps away from the right time.
pub(super) const CLOCK_JUMP_MS: u64 = 6 * 3_600_000;

/// Who speaks to whom on which lane.
type Queue = (PeerId, PeerId, Lane);

/// How the honest ones' messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// At once and in order.
    AtOnce,
    /// When a step says so; claims in any order.
    Chosen,
}

#[derive(Debug)]
pub(super) struct World {
    places: BTreeMap<PeerId, Observed>,
    wire: BTreeMap<Queue, VecDeque<Message>>,
    /// Whose hello has arrived at whom: what overtakes it waits for it.
    greeted: BTreeSet<(PeerId, PeerId)>,
    /// What the hostile one heard of each.
    heard: BTreeMap<PeerId, Heard>,
    mono_ms: u64,
    wall_ms: u64,
    /// How long the machine slept.
    asleep_ms: u64,
    delivery: Delivery,
    delivering: bool,
    hostile: PeerId,
    hostile_listed: bool,
    linked: bool,
}

impl World {
    /// `a` and `b`, connected and ready, both with `tune`'s limits, and `h`, which is listed.
    pub(super) fn new(delivery: Delivery, tune: fn(Config) -> Config) -> Self {
        let now = Now { mono: Instant(1_000), boot: Instant(1_000), wall: WALL_START };
        let names = [peer("a"), peer("b")];
        let places = names.iter().zip(1..).map(|(name, incarnation)| {
            let config = tune(Config::new(name.clone(), incarnation));
            (name.clone(), Observed::new(config, BTreeSet::from(names.clone()), now))
        });
        let mut world = Self {
            places: places.collect(),
            wire: BTreeMap::new(),
            greeted: BTreeSet::new(),
            heard: names.iter().map(|name| (name.clone(), Heard::default())).collect(),
            mono_ms: now.mono.0,
            wall_ms: now.wall.0,
            asleep_ms: 0,
            delivery,
            delivering: false,
            hostile: peer("h"),
            hostile_listed: false,
            linked: false,
        };
        world.list_hostile(true);
        world.link();
        for name in &names {
            world.feed(name, Input::DialFailed { peer: peer("h") });
        }
        world.deliver_all();
        world
    }

    pub(super) fn now(&self) -> Now {
        let boot = Instant(self.mono_ms + self.asleep_ms);
        Now { mono: Instant(self.mono_ms), boot, wall: Wall(self.wall_ms) }
    }

    pub(super) fn names(&self) -> Vec<PeerId> {
        self.places.keys().cloned().collect()
    }

    pub(super) fn place(&self, at: &PeerId) -> &Observed {
        &self.places[at]
    }

    fn other(&self, than: &PeerId) -> PeerId {
        peer(if than.as_str() == "a" { "b" } else { "a" })
    }

    /// One input for one node, and everything it causes there.
    pub(super) fn feed(&mut self, at: &PeerId, input: Input) {
        let now = self.now();
        let came = self.places.get_mut(at).map(|place| place.feed(now, input)).unwrap_or_default();
        self.carry_out(at, came);
    }

    pub(super) fn claim(&mut self, at: &PeerId, key: StickKey, proposal: ShardName, reason: ClaimReason) {
        let now = self.now();
        let place = self.places.get_mut(at);
        let came = place.map(|place| place.claim(now, key, proposal, reason)).unwrap_or_default();
        self.carry_out(at, came);
    }

    fn carry_out(&mut self, at: &PeerId, came: Came) {
        for (to, message) in came.sent {
            if to == self.hostile {
                self.heard.entry(at.clone()).or_default().hear(&message);
            } else if self.linked {
                let queue = (at.clone(), to, message.lane());
                self.wire.entry(queue).or_default().push_back(message);
            }
        }
        for peer in came.disconnected {
            if peer == self.hostile {
                self.feed(at, Input::PeerLost { peer });
            } else {
                self.unlink();
            }
        }
        for (probe, shard) in came.probes {
            // s0 says nothing, s1 is there, all others are gone.
            if shard.as_str() != "s0" {
                let reached = if shard.as_str() == "s1" { Reached::Yes } else { Reached::No };
                self.feed(at, Input::Probed { probe, reached });
            }
        }
        // What a delivery causes is delivered by whoever delivers: in a loop that counts, not one call inside the other.
        if self.delivery == Delivery::AtOnce && !self.delivering {
            self.delivering = true;
            self.deliver_all();
            self.delivering = false;
        }
    }

    /// Delivers the `nth` thing that may come next; false when nothing is under way.
    pub(super) fn deliver(&mut self, nth: usize) -> bool {
        let mut next = Vec::new();
        for (queue, messages) in &self.wire {
            if queue.2 != Lane::Control && !self.greeted.contains(&(queue.0.clone(), queue.1.clone())) {
                continue;
            }
            let any = if queue.2 == Lane::Claims { messages.len() } else { messages.len().min(1) };
            next.extend((0..any).map(|index| (queue.clone(), index)));
        }
        if next.is_empty() {
            return false;
        }
        let (queue, index) = next.swap_remove(nth % next.len());
        let message = self.wire.get_mut(&queue).and_then(|messages| messages.remove(index));
        let (from, to, _) = queue;
        if let Some(message) = message {
            if matches!(message, Message::Hello(_)) {
                self.greeted.insert((from.clone(), to.clone()));
            }
            self.feed(&to, Input::Received { peer: from, message });
        }
        true
    }

    pub(super) fn deliver_all(&mut self) {
        for count in 0.. {
            assert!(count < 100_000, "two honest nodes talk without end");
            if !self.deliver(0) {
                break;
            }
        }
    }

    /// Time passes; every deadline is met.
    pub(super) fn advance(&mut self, ms: u64) {
        let until = self.mono_ms + ms;
        loop {
            let deadline = self.places.values().map(|place| place.node.poll_timeout().0.0).min();
            let at = deadline.unwrap_or(until).clamp(self.mono_ms, until);
            self.wall_ms += at - self.mono_ms;
            self.mono_ms = at;
            for name in self.names() {
                let mut rounds = 0;
                while self.place(&name).node.poll_timeout().0.0 <= self.mono_ms {
                    self.feed(&name, Input::Timeout);
                    rounds += 1;
                    assert!(rounds < 8, "{:?} does not move on", self.place(&name).node.poll_timeout());
                }
            }
            if at == until {
                break;
            }
        }
    }

    pub(super) fn jump_wall(&mut self, to_ms: u64) {
        self.wall_ms = to_ms;
    }

    pub(super) fn link(&mut self) {
        if self.linked {
            self.unlink();
        }
        self.linked = true;
        // Both sides have the connection before either's hello arrives.
        let delivery = std::mem::replace(&mut self.delivery, Delivery::Chosen);
        for name in self.names() {
            let peer = self.other(&name);
            self.feed(&name, Input::PeerConnected { peer });
        }
        self.delivery = delivery;
        if delivery == Delivery::AtOnce {
            self.deliver_all();
        }
    }

    pub(super) fn unlink(&mut self) {
        if !self.linked {
            return;
        }
        self.linked = false;
        self.wire.clear();
        self.greeted.clear();
        for name in self.names() {
            let peer = self.other(&name);
            self.feed(&name, Input::PeerLost { peer });
        }
    }

    pub(super) fn list_hostile(&mut self, listed: bool) {
        self.hostile_listed = listed;
        for name in self.names() {
            let mut all = self.names();
            if listed {
                all.push(self.hostile.clone());
            }
            self.feed(&name, Input::PeersChanged { listed: all });
        }
    }

    pub(super) const fn hostile_is_listed(&self) -> bool {
        self.hostile_listed
    }

    /// The shell asks discovery before it lets a connection in.
    pub(super) fn connect_hostile(&mut self, at: &PeerId) {
        let peer = self.hostile.clone();
        self.feed(at, Input::PeerConnected { peer });
    }

    pub(super) fn lose_hostile(&mut self, at: &PeerId) {
        let peer = self.hostile.clone();
        self.feed(at, Input::PeerLost { peer });
    }

    fn hostile_says(&mut self, at: &PeerId, message: Message) {
        let peer = self.hostile.clone();
        if self.place(at).connected.contains(&peer) {
            self.feed(at, Input::Received { peer, message });
        }
    }

    /// One thing that the hostile peer does to `at`.
    pub(super) fn hostile_acts(&mut self, at: &PeerId, bytes: &mut Bytes<'_>) {
        let now = self.now();
        match bytes.below(16) {
            0 => {
                self.connect_hostile(at);
                let hello = self.heard[at].hello(bytes);
                self.hostile_says(at, hello);
                self.hostile_says(at, Heard::welcome(bytes));
            }
            1 => self.connect_hostile(at),
            2 => self.lose_hostile(at),
            3 => {
                let peer = self.hostile.clone();
                if !self.place(at).connected.contains(&peer) {
                    self.feed(at, Input::DialFailed { peer });
                }
            }
            4 => {
                // Of its own shell's making: no peer can claim a thousand years.
                let rtt_ms = bytes.number(&[500, 5_000, 1 << 40]).min(1 << 45);
                let peer = self.hostile.clone();
                if self.place(at).connected.contains(&peer) {
                    self.feed(at, Input::RoundTrip { peer, rtt_ms });
                }
            }
            5 => match codec::decode(bytes.some()) {
                Ok(messages) => {
                    for message in messages {
                        self.hostile_says(at, message);
                    }
                }
                Err(_) => self.lose_hostile(at),
            },
            6 => {
                let listed = !self.hostile_listed;
                self.list_hostile(listed);
            }
            _ => {
                let message = self.heard[at].message(bytes, now);
                hostile::assert_bounded(&message);
                self.hostile_says(at, message);
            }
        }
    }

    /// One thing that a client does at `at`.
    pub(super) fn client_acts(&mut self, at: &PeerId, bytes: &mut Bytes<'_>) {
        let (key, shard, choice) = (key(bytes), shard(bytes), bytes.below(10));
        match choice {
            8 => {
                let now = self.now();
                let came = self.places.get_mut(at).map(|place| place.clear(now, key)).unwrap_or_default();
                self.carry_out(at, came);
            }
            9 => self.feed(at, Input::ReadyOverride),
            0..=2 => self.claim(at, key, shard, ClaimReason::Join),
            3 => {
                let failed = self.place(at).node.lookup(&key).cloned().unwrap_or_else(|| shard.clone());
                let in_maint = shard.as_str() == "s2";
                let reason =
                    if in_maint { ClaimReason::Maint { failed } } else { ClaimReason::Down { failed } };
                self.claim(at, key, shard, reason);
            }
            4 => self.claim(at, key, shard, ClaimReason::Operator),
            5 => self.feed(at, Input::Touch { key }),
            6 => {
                if let Some(place) = self.places.get_mut(at).filter(|place| place.sessions.len() < 32) {
                    place.sessions.push((key.clone(), shard.clone()));
                    self.feed(at, Input::SessionOpened { key, shard });
                }
            }
            _ => {
                let which = usize::from(bytes.byte());
                let Some(place) = self.places.get_mut(at).filter(|place| !place.sessions.is_empty()) else {
                    return;
                };
                let which = which % place.sessions.len();
                let (key, shard) = place.sessions.swap_remove(which);
                self.feed(at, Input::SessionClosed { key, shard });
            }
        }
    }

    /// Time passes, by a choice from a millisecond to some lifetimes.
    pub(super) fn time_passes(&mut self, bytes: &mut Bytes<'_>) {
        const STEPS_MS: [u64; 8] = [1, 20, 100, 350, 1_000, 3_000, 10_000, 29_000];
        match bytes.byte() {
            jump @ 250..=255 => {
                let wall = WALL_START.0 + self.mono_ms;
                match jump {
                    250 => self.jump_wall(wall + CLOCK_JUMP_MS),
                    251 => self.jump_wall(wall - CLOCK_JUMP_MS),
                    252 => self.asleep_ms += 40_000,
                    _ => self.jump_wall(wall),
                }
            }
            step => self.advance(STEPS_MS[usize::from(step % 8)]),
        }
    }
}
