//! A few nodes, links with a fixed delay between them, and a virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use shardgate_peering_core::{
    Change, ClaimReason, ClaimToken, Claimed, Config, Entry, Hello, Input, Instant, Item, LinkState, Message,
    Node, Now, Output, PeerId, Rank, Readiness, Reason, ShardName, Stamp, Stats, StickKey, Wall,
    first_by_rendezvous,
};

const DELAY_MS: u64 = 20;
/// 2026-11-21, so that stamps look like real ones.
const WALL_START_MS: u64 = 1_795_219_200_000;

pub(crate) fn peer(name: &str) -> PeerId {
    PeerId::parse(name).unwrap()
}

pub(crate) fn shard(name: &str) -> ShardName {
    ShardName::parse(name).unwrap()
}

pub(crate) fn key(name: &str) -> StickKey {
    StickKey::parse(name).unwrap()
}

pub(crate) fn hello(incarnation: u64) -> Message {
    Message::Hello(Hello {
        contract: 1,
        contract_oldest: 1,
        incarnation,
        ready: true,
        capacity: 1_000_000,
        resume: None,
    })
}

pub(crate) fn item(name: &str, on: &str, generation: u32, stamp: u64) -> Item {
    let entry = Entry {
        shard: Some(shard(on)),
        generation,
        rank: Rank::Home,
        created: Stamp(stamp),
        origin: peer("b"),
        reason: Reason::Claim,
    };
    Item { key: key(name), change: Change::Entry(entry), remaining_ms: 8_000, held: false }
}

struct Place {
    node: Node,
    ready: bool,
    hung: bool,
    moves: Vec<(String, String)>,
}

pub(crate) struct World {
    places: BTreeMap<PeerId, Place>,
    now: u64,
    sequence: u64,
    /// (time, sequence) → (link epoch, from, to, message).
    wire: BTreeMap<(u64, u64), (u64, PeerId, PeerId, Message)>,
    /// Pairs with a connection, and the epoch in which it came up.
    links: BTreeMap<(PeerId, PeerId), u64>,
    silent: BTreeSet<(PeerId, PeerId)>,
    answers: BTreeMap<ClaimToken, Claimed>,
    tokens: u64,
    incarnations: u64,
    tune: fn(Config) -> Config,
    trace: DefaultHasher,
}

fn pair(a: &PeerId, b: &PeerId) -> (PeerId, PeerId) {
    if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}

impl World {
    pub(crate) fn with(names: &[&str], tune: fn(Config) -> Config) -> Self {
        let mut world = Self {
            places: BTreeMap::new(),
            now: 0,
            sequence: 0,
            wire: BTreeMap::new(),
            links: BTreeMap::new(),
            silent: BTreeSet::new(),
            answers: BTreeMap::new(),
            tokens: 0,
            incarnations: 0,
            tune,
            trace: DefaultHasher::new(),
        };
        for name in names {
            world.start(name);
        }
        world
    }

    /// A full mesh of ready nodes.
    pub(crate) fn ready(names: &[&str]) -> Self {
        let mut world = Self::with(names, |config| config);
        world.settle();
        world
    }

    /// Tells every node of every other, connects all, waits until all are ready.
    pub(crate) fn settle(&mut self) {
        let names: Vec<PeerId> = self.places.keys().cloned().collect();
        for name in &names {
            self.feed(name, Input::PeersChanged { listed: names.clone() });
        }
        self.heal_all();
        let all = |world: &Self| world.places.values().all(|place| place.ready);
        self.run_until(all, 2_000);
        self.run_ms(100);
    }

    fn start(&mut self, name: &str) {
        self.incarnations += 1;
        let config = Config { ttl_ms: super::TTL_MS, ..Config::new(peer(name), self.incarnations) };
        let node = Node::new((self.tune)(config), self.moment()).unwrap();
        self.places.insert(peer(name), Place { node, ready: false, hung: false, moves: Vec::new() });
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now
    }

    fn moment(&self) -> Now {
        Now { mono: Instant(self.now), boot: Instant(self.now), wall: Wall(WALL_START_MS + self.now) }
    }

    fn feed(&mut self, at: &PeerId, input: Input) -> Vec<Output> {
        let now = self.moment();
        let Some(place) = self.places.get_mut(at) else { return Vec::new() };
        place.node.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = self.places.get_mut(at).unwrap().node.poll_output() {
            format!("{} {at} {output:?}", self.now).hash(&mut self.trace);
            outputs.push(output.clone());
            self.carry_out(at, output);
        }
        outputs
    }

    fn carry_out(&mut self, at: &PeerId, output: Output) {
        match output {
            Output::Send { peer, message } => {
                if let Some(epoch) = self.links.get(&pair(at, &peer)) {
                    self.sequence += 1;
                    let slot = (self.now + DELAY_MS, self.sequence);
                    self.wire.insert(slot, (*epoch, at.clone(), peer, message));
                }
            }
            Output::Disconnect { peer, .. } => self.disconnect(at, &peer),
            Output::Answered { token, claimed } => {
                assert!(self.answers.insert(token, claimed).is_none(), "answered twice");
            }
            Output::Moved { key, to } => {
                self.places.get_mut(at).unwrap().moves.push((key.to_string(), to.to_string()));
            }
            Output::Readiness(readiness) => {
                self.places.get_mut(at).unwrap().ready = matches!(readiness, Readiness::Ready { .. });
            }
            Output::Changed { .. } | Output::Emptied => {}
        }
    }

    fn disconnect(&mut self, a: &PeerId, b: &PeerId) {
        if self.links.remove(&pair(a, b)).is_some() {
            self.feed(a, Input::PeerLost { peer: b.clone() });
            self.feed(b, Input::PeerLost { peer: a.clone() });
        }
    }

    fn connect(&mut self, a: &PeerId, b: &PeerId) {
        self.sequence += 1;
        self.links.insert(pair(a, b), self.sequence);
        self.feed(a, Input::PeerConnected { peer: b.clone() });
        self.feed(b, Input::PeerConnected { peer: a.clone() });
    }

    /// A cut that both sides notice.
    pub(crate) fn cut(&mut self, a: &str, b: &str) {
        self.disconnect(&peer(a), &peer(b));
    }

    /// A cut that nobody notices: messages are lost, the connection seems to stand.
    pub(crate) fn cut_silently(&mut self, a: &str, b: &str) {
        self.silent.insert(pair(&peer(a), &peer(b)));
    }

    /// Ends a silent cut: the connection is found dead and comes up anew.
    pub(crate) fn heal_silently(&mut self, a: &str, b: &str) {
        self.silent.remove(&pair(&peer(a), &peer(b)));
        self.cut(a, b);
        self.connect(&peer(a), &peer(b));
    }

    pub(crate) fn heal_all(&mut self) {
        let names: Vec<PeerId> = self.places.keys().cloned().collect();
        for a in &names {
            for b in names.iter().filter(|b| *b > a) {
                if !self.links.contains_key(&pair(a, b)) {
                    self.connect(a, b);
                }
            }
        }
    }

    /// The node takes its messages but does nothing.
    pub(crate) fn hang(&mut self, name: &str) {
        self.places.get_mut(&peer(name)).unwrap().hung = true;
    }

    /// The node does not run for a while; then it gets its timers, and its peers have lost it.
    pub(crate) fn pause(&mut self, name: &str, ms: u64) {
        self.hang(name);
        let others: Vec<PeerId> =
            self.places.keys().filter(|other| other.as_str() != name).cloned().collect();
        for other in &others {
            self.links.remove(&pair(&peer(name), other));
            self.feed(other, Input::PeerLost { peer: peer(name) });
        }
        self.run_ms(ms);
        self.places.get_mut(&peer(name)).unwrap().hung = false;
        self.feed(&peer(name), Input::Timeout);
        for other in &others {
            self.feed(&peer(name), Input::PeerLost { peer: other.clone() });
        }
        self.heal_all();
    }

    /// A stamp of now.
    pub(crate) fn stamp(&self) -> u64 {
        Stamp::at(self.moment().wall).0
    }

    pub(crate) fn crash(&mut self, name: &str) {
        let gone = peer(name);
        self.places.remove(&gone);
        let others: Vec<PeerId> = self.places.keys().cloned().collect();
        for other in others {
            if self.links.remove(&pair(&gone, &other)).is_some() {
                self.feed(&other, Input::PeerLost { peer: gone.clone() });
            }
        }
    }

    pub(crate) fn restart(&mut self, name: &str) {
        self.crash(name);
        self.start(name);
        let names: Vec<PeerId> = self.places.keys().cloned().collect();
        self.feed(&peer(name), Input::PeersChanged { listed: names });
        self.heal_all();
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.step(end) {}
        self.now = end;
    }

    pub(crate) fn run_until(&mut self, done: impl Fn(&Self) -> bool, most_ms: u64) {
        let end = self.now + most_ms;
        while !done(self) {
            assert!(self.step(end), "not within {most_ms} ms");
        }
    }

    /// Does the next thing that is due before `end`.
    fn step(&mut self, end: u64) -> bool {
        let message = self.wire.keys().next().map(|(at, _)| *at);
        let running = self.places.iter().filter(|(_, place)| !place.hung);
        let timer = running.map(|(name, place)| (place.node.poll_timeout().0.0, name.clone())).min();
        let next = message.into_iter().chain(timer.iter().map(|(at, _)| *at)).min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.now = self.now.max(next);
        if message == Some(next) {
            let (_, (epoch, from, to, message)) = self.wire.pop_first().unwrap();
            let link = pair(&from, &to);
            let hung = self.places.get(&to).is_some_and(|place| place.hung);
            if self.links.get(&link) == Some(&epoch) && !self.silent.contains(&link) && !hung {
                self.feed(&to, Input::Received { peer: from, message });
            }
        } else if let Some((_, name)) = timer {
            self.feed(&name, Input::Timeout);
        }
        true
    }

    pub(crate) fn claim(&mut self, at: &str, room: &str, proposal: &str, reason: ClaimReason) -> ClaimToken {
        self.tokens += 1;
        let token = ClaimToken(self.tokens);
        self.feed(&peer(at), Input::Claim { token, key: key(room), proposal: shard(proposal), reason });
        token
    }

    /// A first join, waited for.
    pub(crate) fn join(&mut self, at: &str, room: &str, proposal: &str) -> String {
        let token = self.claim(at, room, proposal, ClaimReason::Join);
        self.run_until(|world| world.answered(token), 3_000);
        match self.answer(token) {
            Claimed::Stick { shard } => shard.to_string(),
            other @ (Claimed::Cleared | Claimed::Held | Claimed::Unstored { .. }) => {
                panic!("{room} at {at}: {other:?}")
            }
        }
    }

    pub(crate) fn touch(&mut self, at: &str, room: &str) {
        self.feed(&peer(at), Input::Touch { key: key(room) });
    }

    pub(crate) fn open(&mut self, at: &str, room: &str, on: &str) {
        self.feed(&peer(at), Input::SessionOpened { key: key(room), shard: shard(on) });
    }

    pub(crate) fn close(&mut self, at: &str, room: &str, on: &str) {
        self.feed(&peer(at), Input::SessionClosed { key: key(room), shard: shard(on) });
    }

    pub(crate) fn inject(&mut self, at: &str, input: Input) -> Vec<Output> {
        self.feed(&peer(at), input)
    }

    /// Several inputs before the outputs are looked at, as the shell gives them when it is busy.
    pub(crate) fn inject_together(&mut self, at: &str, inputs: Vec<Input>) -> Vec<Output> {
        let now = self.moment();
        let node = &mut self.places.get_mut(&peer(at)).unwrap().node;
        for input in inputs {
            node.handle(now, input);
        }
        std::iter::from_fn(|| node.poll_output()).collect()
    }

    pub(crate) fn answered(&self, token: ClaimToken) -> bool {
        self.answers.contains_key(&token)
    }

    pub(crate) fn answer(&self, token: ClaimToken) -> Claimed {
        self.answers.get(&token).cloned().expect("no answer")
    }

    fn node(&self, at: &str) -> &Node {
        &self.places[&peer(at)].node
    }

    pub(crate) fn lookup(&self, at: &str, room: &str) -> Option<String> {
        self.node(at).lookup(&key(room)).map(ToString::to_string)
    }

    pub(crate) fn entry(&self, at: &str, room: &str) -> Option<Entry> {
        self.node(at).entry(&key(room)).map(|(entry, _)| entry.clone())
    }

    pub(crate) fn remaining_ms(&self, at: &str, room: &str) -> u64 {
        self.node(at).entry(&key(room)).unwrap().1
    }

    pub(crate) fn len(&self, at: &str) -> usize {
        self.node(at).len()
    }

    pub(crate) fn is_ready(&self, at: &str) -> bool {
        self.places[&peer(at)].ready
    }

    pub(crate) fn link(&self, at: &str, to: &str) -> LinkState {
        self.node(at).peers().find(|(id, _)| **id == peer(to)).unwrap().1.link
    }

    pub(crate) fn stat(&self, at: &str, of: impl Fn(Stats) -> u64) -> u64 {
        of(self.node(at).stats())
    }

    pub(crate) fn moves(&self, at: &str) -> Vec<(String, String)> {
        self.places[&peer(at)].moves.clone()
    }

    /// A room whose home, among all nodes, is this one.
    pub(crate) fn room_with_home(&self, home: &str) -> String {
        (0..)
            .map(|n| format!("home-room-{n}"))
            .find(|room| first_by_rendezvous(&key(room), self.places.keys()) == Some(&peer(home)))
            .unwrap()
    }

    pub(crate) fn assert_equal_tables(&self) {
        let table = |place: &Place| -> Vec<_> {
            place.node.entries(None, usize::MAX).into_iter().map(|(key, entry, _)| (key, entry)).collect()
        };
        let mut places = self.places.values();
        let first = table(places.next().unwrap());
        for place in places {
            assert_eq!(table(place), first);
        }
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.trace.finish()
    }
}
