//! The people and the proxies' request path: they look a key up where they come in, claim when they must, open and close sessions, and
//! come back when they are sent away.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_peering_core::{ClaimReason, ClaimToken, Claimed, Input, PeerId, ShardName};

use super::check::Splits;
use super::coverage::Sort;
use super::model::{NOWHERE, Names, Room, Shard, seat_of, shard_of};
use super::observer::{News, Observer};
use super::setup::{Setup, Weather};
use crate::world::random::mix;
use crate::world::{Random, Seat, State, Trouble, World};

/// How long a client takes to come back.
const COMES_BACK_MS: u64 = 1_000;
const TRIES_MAX: u8 = 4;

/// What clients will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// The next thing is drawn.
    Step,
    /// Somebody comes in; through which node is drawn if need be.
    Come { room: Room, seat: Option<Seat>, tries: u8 },
    /// Somebody leaves.
    Leave { person: u64 },
    /// Somebody's connection was ended by the shard; the person comes back.
    Cast { person: u64 },
}

#[derive(Debug, Clone, Copy)]
struct Person {
    room: Room,
    seat: Seat,
    life: u64,
    shard: Shard,
    way: Way,
}

/// How a session goes from its node to its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    /// By another node that reaches it.
    Relayed,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    room: Room,
    seat: Seat,
    life: u64,
    tries: u8,
    opens: bool,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) random: Random,
    plans: BTreeMap<(u64, u64), Plan>,
    sequence: u64,
    people: BTreeMap<u64, Person>,
    /// Who is where, by node and room.
    places: Vec<BTreeMap<Room, BTreeSet<u64>>>,
    waiting: BTreeMap<ClaimToken, Waiting>,
    tokens: u64,
    persons: u64,
    /// How many rooms there were.
    pub(super) rooms: Room,
    pub(super) shard_up: Vec<bool>,
    /// Operators have taken it out of use.
    pub(super) in_maint: Vec<bool>,
    shards: Vec<ShardName>,
    pub(super) steps: u64,
    steps_left: u32,
    step_every_ms: u64,
    ttl_ms: u64,
    weather: Weather,
    splits: Splits,
    end_travels_ms: u64,
}

impl Clients {
    pub(super) fn new(setup: &Setup) -> Self {
        Self {
            random: Random::new(setup.seed).fork(2),
            plans: BTreeMap::new(),
            sequence: 0,
            people: BTreeMap::new(),
            places: vec![BTreeMap::new(); setup.nodes()],
            waiting: BTreeMap::new(),
            tokens: 0,
            persons: 0,
            rooms: 0,
            shard_up: vec![true; usize::from(setup.shards)],
            in_maint: vec![false; usize::from(setup.shards)],
            shards: (0..setup.shards).map(|shard| Names::default().shard(shard)).collect(),
            steps: 0,
            steps_left: setup.steps,
            step_every_ms: setup.phase_ms / u64::from(setup.steps),
            ttl_ms: setup.ttl_ms,
            weather: setup.weather,
            splits: Splits::default(),
            end_travels_ms: 3 * setup.delay_max_ms() + COMES_BACK_MS,
        }
    }

    pub(super) fn plan(&mut self, at: u64, plan: Plan) {
        self.sequence += 1;
        self.plans.insert((at, self.sequence), plan);
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.plans.first_key_value().map(|((at, _), _)| *at)
    }

    /// Nobody begins anything new.
    pub(super) const fn calm(&mut self) {
        self.steps_left = 0;
    }

    /// Does what is planned until now.
    pub(super) fn act(&mut self, world: &mut World, observer: &mut Observer) {
        while let Some(first) = self.plans.first_entry() {
            if first.key().0 > world.now_ms() {
                break;
            }
            match first.remove() {
                Plan::Step => self.step(world, observer),
                Plan::Come { room, seat, tries } => self.come(room, seat, tries, world, observer),
                Plan::Leave { person } => {
                    self.leave(person, world, observer);
                }
                Plan::Cast { person } => {
                    if let Some(person) = self.leave(person, world, observer) {
                        self.comes_back(&person, world.now_ms());
                    }
                }
            }
        }
    }

    fn comes_back(&mut self, person: &Person, now: u64) {
        // Through the same node or another one.
        let seat = self.random.chance(500).then_some(person.seat);
        let at = now + COMES_BACK_MS + self.random.below(500);
        self.plan(at, Plan::Come { room: person.room, seat, tries: 0 });
    }

    fn some_node(&mut self, world: &World) -> Option<Seat> {
        let open: Vec<Seat> = (0..world.len())
            .filter(|seat| matches!(world.state(*seat), State::Running | State::Hung))
            .collect();
        (!open.is_empty()).then(|| *self.random.pick(&open))
    }

    /// A room that was there already, mostly one of the last.
    pub(super) fn some_room(&mut self) -> Room {
        let all = u64::from(self.rooms.max(1));
        let back =
            if self.random.chance(600) { self.random.below(all.min(30)) } else { self.random.below(all) };
        (all - 1 - back) as Room
    }

    fn step(&mut self, world: &mut World, observer: &mut Observer) {
        if self.steps_left == 0 {
            return;
        }
        self.steps_left -= 1;
        let now = world.now_ms();
        let next = now + self.random.below(2 * self.step_every_ms + 1);
        self.plan(next, Plan::Step);
        let healthy = self.weather == Weather::Healthy;
        match self.random.below(1_000) {
            0..250 => {
                let room = self.rooms;
                self.rooms += 1;
                observer.coverage.saw(Sort::Step, "racing first join");
                self.race(room, world);
            }
            250..550 => {
                observer.coverage.saw(Sort::Step, "join");
                let room = self.some_room();
                self.come(room, None, 0, world, observer);
            }
            550..700 => {
                let room = self.some_room();
                if let Some(seat) = self.some_node(world) {
                    self.touch(room, seat, world, observer);
                }
            }
            700..715 if !healthy => {
                let room = self.some_room();
                if let Some(seat) = self.some_node(world) {
                    let proposal = self.propose(seat, NOWHERE, world);
                    observer.coverage.saw(Sort::Step, "operator set");
                    self.claim(
                        room,
                        seat,
                        proposal,
                        ClaimReason::Operator,
                        TRIES_MAX,
                        Opens::No,
                        world,
                        observer,
                    );
                }
            }
            715..740 if !healthy => {
                let room = self.some_room();
                if let Some(seat) = self.some_node(world) {
                    observer.coverage.saw(Sort::Step, "clear");
                    self.clear(room, seat, world, observer);
                }
            }
            740..850 => {
                let nth = self.random.index(self.people.len().max(1));
                let person = self.people.keys().nth(nth).copied();
                if let Some(person) = person {
                    self.leave(person, world, observer);
                }
            }
            _ => {
                let room = self.some_room();
                self.race(room, world);
            }
        }
    }

    /// Several come within milliseconds, through any nodes.
    fn race(&mut self, room: Room, world: &World) {
        for _ in 0..self.random.between(2, 4) {
            let at = world.now_ms() + self.random.below(6);
            self.plan(at, Plan::Come { room, seat: None, tries: 0 });
        }
    }

    /// Whether a request gets from a node to a shard.
    pub(super) fn reaches(&self, seat: Seat, shard: Shard, world: &World) -> bool {
        self.shards.get(usize::from(shard)).is_some_and(|name| world.reaches(seat, name))
    }

    fn is_in_maint(&self, shard: Shard) -> bool {
        self.in_maint.get(usize::from(shard)).copied().unwrap_or(false)
    }

    fn usable(&self, seat: Seat, shard: Shard, world: &World) -> bool {
        !self.is_in_maint(shard) && self.reaches(seat, shard, world)
    }

    /// A shard that can be used, any one if there is none.
    fn propose(&mut self, seat: Seat, not: Shard, world: &World) -> Shard {
        let up: Vec<Shard> = (0..self.shards.len() as Shard)
            .filter(|shard| self.usable(seat, *shard, world) && *shard != not)
            .collect();
        if up.is_empty() { 0 } else { *self.random.pick(&up) }
    }

    /// Where a room goes that the table does not take.
    fn by_hash(&self, room: Room, seat: Seat, world: &World) -> Shard {
        let hash = |shard: Shard| mix(u64::from(room) << 16 | u64::from(shard));
        let best = |shard: &Shard| (self.usable(seat, *shard, world), hash(*shard));
        (0..self.shards.len() as Shard).max_by_key(best).unwrap_or(0)
    }

    fn touch(&mut self, room: Room, seat: Seat, world: &mut World, observer: &mut Observer) {
        let key = observer.names.key(room);
        if world.node(seat).is_some_and(|node| node.lookup(&key).is_some()) {
            self.steps += 1;
            observer.coverage.saw(Sort::Step, "touch");
            world.inject(seat, Input::Touch { key }, observer);
        }
    }

    fn come(
        &mut self,
        room: Room,
        seat: Option<Seat>,
        tries: u8,
        world: &mut World,
        observer: &mut Observer,
    ) {
        let open = |seat: &Seat| matches!(world.state(*seat), State::Running | State::Hung);
        let Some(seat) = seat.filter(open).or_else(|| self.some_node(world)) else { return };
        let key = observer.names.key(room);
        let there = world.node(seat).and_then(|node| node.lookup(&key)).map(shard_of);
        match there {
            Some(shard) if self.usable(seat, shard, world) => {
                self.touch(room, seat, world, observer);
                self.connect(room, seat, shard, Way::Direct, world, observer);
            }
            Some(failed) => {
                let proposal = self.propose(seat, failed, world);
                let name = observer.names.shard(failed);
                let reason = if self.is_in_maint(failed) {
                    observer.coverage.saw(Sort::Step, "shard maint claim");
                    ClaimReason::Maint { failed: name }
                } else {
                    observer.coverage.saw(Sort::Step, "shard down claim");
                    ClaimReason::Down { failed: name }
                };
                self.claim(room, seat, proposal, reason, tries, Opens::Yes, world, observer);
            }
            None => {
                let proposal = self.propose(seat, NOWHERE, world);
                self.claim(room, seat, proposal, ClaimReason::Join, tries, Opens::Yes, world, observer);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one request has so many parts")]
    fn claim(
        &mut self,
        room: Room,
        seat: Seat,
        proposal: Shard,
        reason: ClaimReason,
        tries: u8,
        opens: Opens,
        world: &mut World,
        observer: &mut Observer,
    ) {
        self.tokens += 1;
        self.steps += 1;
        let token = ClaimToken(self.tokens);
        let life = world.life(seat);
        let opens = opens == Opens::Yes;
        self.waiting.insert(token, Waiting { room, seat, life, tries, opens });
        let (key, proposal) = (observer.names.key(room), observer.names.shard(proposal));
        world.inject(seat, Input::Claim { token, key, proposal, reason }, observer);
    }

    fn clear(&mut self, room: Room, seat: Seat, world: &mut World, observer: &mut Observer) {
        self.tokens += 1;
        self.steps += 1;
        let token = ClaimToken(self.tokens);
        let life = world.life(seat);
        self.waiting.insert(token, Waiting { room, seat, life, tries: 0, opens: false });
        let key = observer.names.key(room);
        world.inject(seat, Input::Clear { token, key }, observer);
    }

    fn connect(
        &mut self,
        room: Room,
        seat: Seat,
        shard: Shard,
        way: Way,
        world: &mut World,
        observer: &mut Observer,
    ) {
        if self.weather == Weather::Healthy {
            let now = world.now_ms();
            // An end that is under way meets who joins meanwhile: they hear of it within a way.
            let ends = observer.ended_at.get(&room).is_some_and(|at| now <= at + self.end_travels_ms);
            // So does a move, and who was on the shard that is left comes back after a while.
            let moves = observer.moved_at.get(&room).is_some_and(|at| now <= at + self.end_travels_ms);
            // Or is about to be told: this person came in the same millisecond.
            let untold = world.has_more_to_tell(seat) && observer.told(seat, room) != Some(shard);
            if let Some(other) = self.splits.connects(room, shard).filter(|_| !ends && !moves && !untold) {
                let text = format!("r{room}: one is sent to {shard} while others are on {other}");
                observer.accuse("nobody is split while all is well", now, Some(room), text);
            }
        }
        // Some only ask and go.
        if self.random.chance(150) {
            self.splits.leaves(room, shard);
            return;
        }
        self.steps += 1;
        observer.coverage.saw(Sort::Step, "open");
        self.persons += 1;
        let (id, now) = (self.persons, world.now_ms());
        self.people.insert(id, Person { room, seat, life: world.life(seat), shard, way });
        self.places[seat].entry(room).or_default().insert(id);
        let stays =
            if self.random.chance(50) { 1_000_000 } else { self.random.between(300, 2 * self.ttl_ms) };
        self.plan(now + stays, Plan::Leave { person: id });
        let (key, shard) = (observer.names.key(room), observer.names.shard(shard));
        world.inject(seat, Input::SessionOpened { key, shard }, observer);
    }

    /// Somebody's session ends; who it was if it was still open.
    fn leave(&mut self, id: u64, world: &mut World, observer: &mut Observer) -> Option<Person> {
        let person = self.people.remove(&id)?;
        if let Some(here) = self.places[person.seat].get_mut(&person.room) {
            here.remove(&id);
            if here.is_empty() {
                self.places[person.seat].remove(&person.room);
            }
        }
        self.splits.leaves(person.room, person.shard);
        if world.life(person.seat) == person.life && world.node(person.seat).is_some() {
            self.steps += 1;
            observer.coverage.saw(Sort::Step, "close");
            let (key, shard) = (observer.names.key(person.room), observer.names.shard(person.shard));
            world.inject(person.seat, Input::SessionClosed { key, shard }, observer);
        }
        Some(person)
    }

    /// What the nodes told since the last look.
    pub(super) fn hear(&mut self, world: &mut World, observer: &mut Observer) {
        let now = world.now_ms();
        for news in std::mem::take(&mut observer.news) {
            match news {
                News::Answered(token, claimed) => {
                    if let Some(asked) = self.waiting.remove(&token)
                        && world.life(asked.seat) == asked.life
                    {
                        self.answered(&asked, &claimed, world, observer);
                    }
                }
                News::Moved(seat, room, to) => {
                    let here = self.places[seat].get(&room).cloned().unwrap_or_default();
                    for id in here {
                        if self.people.get(&id).is_some_and(|person| person.shard != to) {
                            self.plan(now, Plan::Cast { person: id });
                        }
                    }
                }
            }
        }
    }

    fn answered(&mut self, asked: &Waiting, claimed: &Claimed, world: &mut World, observer: &mut Observer) {
        let Waiting { room, seat, tries, opens, .. } = *asked;
        match claimed {
            Claimed::Cleared => observer.coverage.saw(Sort::Step, "cleared"),
            Claimed::Held => observer.coverage.saw(Sort::Step, "clear of a held one"),
            Claimed::Stick { .. } if !opens => {}
            Claimed::Stick { shard } => {
                let shard = shard_of(shard);
                if self.usable(seat, shard, world) {
                    self.connect(room, seat, shard, Way::Direct, world, observer);
                } else {
                    // It has died meanwhile, or the home keeps it there for now.
                    self.try_again(room, seat, tries, world.now_ms());
                }
            }
            Claimed::Keep { .. } if !opens => {}
            Claimed::Keep { shard, via } => {
                let shard = shard_of(shard);
                if self.usable(seat, shard, world) {
                    observer.coverage.saw(Sort::Step, "kept, directly");
                    self.connect(room, seat, shard, Way::Direct, world, observer);
                } else if self.relays(via, shard, world) {
                    observer.coverage.saw(Sort::Step, "kept, by others");
                    self.connect(room, seat, shard, Way::Relayed, world, observer);
                } else {
                    self.try_again(room, seat, tries, world.now_ms());
                }
            }
            Claimed::Unstored { .. } if !opens => {}
            Claimed::Unstored { .. } => {
                let key = observer.names.key(room);
                let there = world.node(seat).and_then(|node| node.lookup(&key)).map(shard_of);
                let there = there.filter(|shard| self.usable(seat, *shard, world));
                let shard = there.unwrap_or_else(|| self.by_hash(room, seat, world));
                self.connect(room, seat, shard, Way::Direct, world, observer);
            }
        }
    }

    fn try_again(&mut self, room: Room, seat: Seat, tries: u8, now: u64) {
        if tries < TRIES_MAX {
            let at = now + 1 + 500 * u64::from(tries);
            self.plan(at, Plan::Come { room, seat: Some(seat), tries: tries + 1 });
        }
    }

    /// Whether one of these nodes takes a request on to a shard.
    fn relays(&self, via: &[PeerId], shard: Shard, world: &World) -> bool {
        let passes = |peer: &PeerId| {
            let seat = seat_of(peer);
            world.state(seat) == State::Running && self.usable(seat, shard, world)
        };
        via.iter().any(passes)
    }

    /// A node has crashed: its people come back through others.
    pub(super) fn crashed(&mut self, seat: Seat, now: u64) {
        for (_, ids) in std::mem::take(&mut self.places[seat]) {
            for id in ids {
                if let Some(person) = self.people.remove(&id) {
                    self.splits.leaves(person.room, person.shard);
                    if self.random.chance(700) {
                        let at = now + COMES_BACK_MS + self.random.below(2_000);
                        self.plan(at, Plan::Come { room: person.room, seat: None, tries: 0 });
                    }
                }
            }
        }
    }

    /// A shard dies, or (`None`) returns. Its sessions break within half a second.
    pub(super) fn shard_is(
        &mut self,
        shard: Shard,
        trouble: Option<Trouble>,
        world: &mut World,
        observer: &mut Observer,
    ) {
        let now = world.now_ms();
        self.shard_up[usize::from(shard)] = trouble.is_none();
        world.set_shard(&self.shards[usize::from(shard)], trouble);
        for seat in 0..world.len() {
            observer.rounds.shard_changed(seat, shard, now);
        }
        if trouble.is_some() {
            self.cast(now, |one| one.shard == shard);
        }
    }

    /// A node's path to a shard is cut, or (`None`) works again.
    pub(super) fn path_is(
        &mut self,
        seat: Seat,
        shard: Shard,
        trouble: Option<Trouble>,
        world: &mut World,
        observer: &mut Observer,
    ) {
        let now = world.now_ms();
        world.set_shard_path(seat, &self.shards[usize::from(shard)], trouble);
        observer.rounds.shard_changed(seat, shard, now);
        if trouble.is_some() {
            self.cast(now, |one| one.shard == shard && one.seat == seat && one.way == Way::Direct);
        }
    }

    /// Operators take a shard out of use, or back into it. Who is on it stays.
    pub(super) fn maint_is(&mut self, shard: Shard, in_maint: bool) {
        self.in_maint[usize::from(shard)] = in_maint;
    }

    /// The sessions of these people break within half a second.
    fn cast(&mut self, now: u64, which: impl Fn(&Person) -> bool) {
        let on: Vec<u64> = self.people.iter().filter(|(_, one)| which(one)).map(|(id, _)| *id).collect();
        for person in on {
            let at = now + self.random.below(500);
            self.plan(at, Plan::Cast { person });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opens {
    Yes,
    No,
}
