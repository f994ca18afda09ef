//! Looks on at a run: keeps what the model knows of each node, lets the checks judge it, counts, traces, and collects what clients wait for.
#![expect(clippy::wildcard_enum_match_arm, reason = "the model looks at a few kinds and ignores all others")]

use std::collections::{BTreeMap, HashMap, HashSet};

use shardgate_peering_core::{
    ClaimReason, ClaimToken, Claimed, Input, Message, Output, Readiness, Reason, Violation as Broken,
};

use super::check::{Bounds, Claims, Contacts, Cursors, Probes, Rounds, Violation};
use super::coverage::{Coverage, Sort};
use super::fact::{each_in_input, each_in_message};
use super::model::{Decision, Ledger, NOWHERE, Names, Room, Shard, decision_of, room_of, seat_of, shard_of};
use super::setup::{Setup, Weather};
use super::trace::Trace;
use crate::world::{Network, Scene, Seat, Watch};

/// What the model knows of one room at one node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) entry: Option<Decision>,
    /// What the outputs say the read view holds.
    pub(super) view: Shard,
    /// The last use here: a request, a session.
    pub(super) used_at: Option<u64>,
    /// When the entry moved here last.
    pub(super) moved_at: Option<u64>,
    /// The round in which it was put down to be looked at.
    round: u64,
    /// When it was looked at last.
    looked_at: Option<u64>,
    /// Whether an output told of a change since then, and how many of them that it ended.
    changed: bool,
    pub(super) ends_between: u32,
    /// The node keeps it but answers nobody with it: its lease is over.
    pub(super) lapsed: bool,
    /// More than one input lies between this and now.
    pub(super) blurred: bool,
}

impl Cell {
    const EMPTY: Self = Self {
        entry: None,
        view: NOWHERE,
        used_at: None,
        moved_at: None,
        round: 0,
        looked_at: None,
        changed: false,
        ends_between: 0,
        blurred: false,
        lapsed: false,
    };

    /// Since when a change may stand here that is seen now: no output tells of the end of what had lapsed.
    pub(super) fn earliest(&self, now: u64) -> u64 {
        if self.changed { now } else { self.looked_at.unwrap_or(now) }
    }
}

/// What the model knows of one node.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) life: u64,
    pub(super) ready: bool,
    pub(super) cells: Vec<Cell>,
    /// Sessions that the node knows of, with the time since when the room has any.
    pub(super) held: BTreeMap<Room, (u64, BTreeMap<Shard, u32>)>,
    round: u64,
    touched: Vec<Room>,
    pub(super) incoming: Vec<(Room, Decision)>,
    pub(super) outputs: usize,
    /// Inputs that share the next outputs.
    pub(super) inputs: u32,
    /// Whether an answer of a home is among them: what it tells may be another node's word.
    pub(super) passing: bool,
    /// Live entries when its outputs were seen last, and how many rooms got a place since, as the outputs tell it.
    pub(super) live: usize,
    pub(super) placed: usize,
}

impl Place {
    /// A use counts for an entry that is there.
    fn used(&mut self, room: Room, now: u64) {
        let cell = self.cell(room);
        if cell.entry.is_some_and(|entry| !entry.is_tombstone()) {
            cell.used_at = Some(now);
        }
    }

    pub(super) fn cell(&mut self, room: Room) -> &mut Cell {
        let index = room as usize;
        if self.cells.len() <= index {
            self.cells.resize(index + 1, Cell::EMPTY);
        }
        &mut self.cells[index]
    }

    fn touch(&mut self, room: Room) {
        let round = self.round;
        let cell = self.cell(room);
        if cell.round != round {
            cell.round = round;
            self.touched.push(room);
        }
    }

    /// The node's table is empty.
    fn empty(&mut self) {
        self.cells.clear();
        self.touched.clear();
        self.incoming.clear();
        self.round += 1;
    }
}

/// What clients wait for.
#[derive(Debug)]
pub(super) enum News {
    /// A claim is answered.
    Answered(ClaimToken, Claimed),
    /// A room has moved away from sessions of a node.
    Moved(Seat, Room, Shard),
}

/// Looks on at a run.
#[derive(Debug)]
pub struct Observer {
    pub(super) ttl_ms: u64,
    /// Nodes are woken so much later than they want to be, at the most.
    pub(super) timers_late_ms: u64,
    pub(super) capacities: Vec<usize>,
    pub(super) small_tables: bool,
    pub(super) weather: Weather,
    /// When the home of a room ended it last.
    pub(super) ended_at: HashMap<Room, u64>,
    /// When some node dropped a room last.
    pub(super) dropped_at: HashMap<Room, u64>,
    /// The first decision of a room's generation, while all is well.
    pub(super) first_of: HashMap<(Room, u32), (Decision, u64)>,
    pub(super) names: Names,
    pub(super) ledger: Ledger,
    pub(super) places: Vec<Place>,
    pub(super) claims: Claims,
    pub(super) contacts: Contacts,
    pub(super) cursors: Cursors,
    pub(super) bounds: Bounds,
    /// Shards that clients found dead, by room, and rooms that operators moved.
    pub(super) found_dead: HashMap<(Room, Shard), u64>,
    pub(super) operator_at: HashMap<Room, u64>,
    /// Shards in maint that clients met, by room.
    pub(super) in_maint: HashMap<(Room, Shard), u64>,
    /// When a room was moved last.
    pub(super) moved_at: HashMap<Room, u64>,
    /// What was decided about split brains.
    pub(super) verdicts: HashSet<(Room, Decision)>,
    /// When somebody was last seen on a shard who is there no longer.
    pub(super) left_at: HashMap<(Room, Shard), u64>,
    /// Since when a node's people of a room wait for a verdict, or waited the last time.
    pub(super) disputed_since: HashMap<(Seat, Room), u64>,
    /// Where the last verdict that a node had in its table says that a room is, while its people wait.
    pub(super) told_by_verdict: HashMap<(Seat, Room), Shard>,
    pub(super) rounds: Rounds,
    pub(super) news: Vec<News>,
    /// Whether a message of a peer is being handled that the node takes.
    applies: bool,
    /// What it saw.
    pub coverage: Coverage,
    /// What of it is told.
    pub trace: Trace,
    /// The first thing that was wrong.
    pub violation: Option<Violation>,
}

impl Observer {
    /// Looks on at a run of this setup.
    #[must_use]
    pub fn new(setup: &Setup, trace: Trace) -> Self {
        let nodes = setup.nodes();
        Self {
            ttl_ms: setup.ttl_ms,
            timers_late_ms: setup.timers_late_ms,
            capacities: setup.capacities.clone(),
            small_tables: setup.small_tables(),
            weather: setup.weather,
            ended_at: HashMap::new(),
            dropped_at: HashMap::new(),
            first_of: HashMap::new(),
            names: Names::default(),
            ledger: Ledger::default(),
            places: (0..nodes).map(|_| Place::default()).collect(),
            claims: Claims::default(),
            contacts: Contacts::new(nodes),
            cursors: Cursors::new(nodes),
            bounds: Bounds::default(),
            found_dead: HashMap::new(),
            operator_at: HashMap::new(),
            in_maint: HashMap::new(),
            moved_at: HashMap::new(),
            verdicts: HashSet::new(),
            left_at: HashMap::new(),
            disputed_since: HashMap::new(),
            told_by_verdict: HashMap::new(),
            rounds: Rounds::default(),
            news: Vec::new(),
            applies: false,
            coverage: Coverage::default(),
            trace,
            violation: None,
        }
    }

    /// Something is wrong; the first one counts.
    pub(super) fn accuse(&mut self, check: &'static str, at_ms: u64, room: Option<Room>, text: String) {
        if self.violation.is_none() {
            self.trace.note(at_ms, || format!("!!! {check}: {text}"));
            self.violation = Some(Violation { check, at_ms, room, text });
        }
    }

    /// Compares what the node holds of everything that was touched with what the model knew.
    fn look(&mut self, scene: &Scene<'_>) {
        let place = &mut self.places[scene.seat];
        let touched = std::mem::take(&mut place.touched);
        let incoming = std::mem::take(&mut place.incoming);
        place.round += 1;
        for room in &touched {
            self.look_at(scene, *room, &incoming);
        }
        if self.applies {
            self.check_applied(scene, &incoming);
        }
        let place = &mut self.places[scene.seat];
        place.touched = touched;
        place.touched.clear();
        place.incoming = incoming;
        place.incoming.clear();
        place.inputs = 0;
        place.passing = false;
        place.placed = 0;
        self.applies = false;
    }

    /// Compares what the node holds of one room with what the model knew.
    pub(super) fn look_at(&mut self, scene: &Scene<'_>, room: Room, incoming: &[(Room, Decision)]) {
        let key = self.names.key(room);
        let now =
            scene.node.entry(&key).map(|(entry, remaining_ms)| (decision_of(entry), entry, remaining_ms));
        if let Some((decision, _, remaining_ms)) = &now {
            self.check_lifetime(scene, room, decision, *remaining_ms);
        }
        let mut cell = *self.places[scene.seat].cell(room);
        // What several inputs did together cannot be told apart.
        cell.blurred = self.places[scene.seat].inputs > 1;
        let decision = now.as_ref().map(|(decision, _, _)| *decision);
        if decision != cell.entry {
            let reason = now.map(|(_, entry, _)| entry.reason);
            if let Some(decision) = decision.filter(|_| reason == Some(Reason::Arbitration)) {
                self.told_by_verdict.insert((scene.seat, room), decision.shard);
            }
            self.check_transition(scene, room, &cell, decision.zip(reason), incoming);
            let kept = self.places[scene.seat].cell(room);
            kept.entry = decision;
            // One that had lapsed may have been dropped in between, without a word.
            let anew = cell.ends_between > 0 || cell.lapsed;
            if decision.is_none_or(|decision| decision.is_tombstone()) || anew {
                // What is created anew may move again.
                kept.moved_at = None;
            }
            let places = (cell.entry.map(|entry| entry.shard), decision.map(|entry| entry.shard));
            if let (Some(from), Some(to)) = places
                && from != NOWHERE
                && to != NOWHERE
                && from != to
                && !anew
            {
                kept.moved_at = Some(scene.now_ms);
            }
        }
        let kept = self.places[scene.seat].cell(room);
        kept.looked_at = Some(scene.now_ms);
        kept.changed = false;
        kept.ends_between = 0;
        let lives = kept.entry.is_some_and(|entry| !entry.is_tombstone());
        kept.lapsed = lives && scene.node.lookup(&key).is_none();
    }

    fn note_use(&mut self, scene: &Scene<'_>, input: &Input) {
        let now = scene.now_ms;
        let place = &mut self.places[scene.seat];
        match input {
            Input::Touch { key } => place.used(room_of(key), now),
            Input::SessionOpened { key, shard } => {
                let room = room_of(key);
                place.used(room, now);
                let (_, shards) = place.held.entry(room).or_insert_with(|| (now, BTreeMap::new()));
                *shards.entry(shard_of(shard)).or_default() += 1;
            }
            Input::SessionClosed { key, shard } => {
                let room = room_of(key);
                place.used(room, now);
                self.left_at.insert((room, shard_of(shard)), now);
                if let Some((_, shards)) = place.held.get_mut(&room) {
                    let left = shards.entry(shard_of(shard)).or_insert(1);
                    *left -= 1;
                    shards.retain(|_, left| *left > 0);
                    if shards.is_empty() {
                        place.held.remove(&room);
                    }
                }
            }
            Input::Claim { token, key, reason, .. } => {
                let room = room_of(key);
                let probes =
                    if matches!(reason, ClaimReason::Down { .. }) { Probes::Perhaps } else { Probes::No };
                self.claims.asked(*token, scene.seat, scene.life, room, now, probes);
                match reason {
                    ClaimReason::Down { failed } => {
                        self.found_dead.insert((room, shard_of(failed)), now);
                    }
                    ClaimReason::Maint { failed } => {
                        self.in_maint.insert((room, shard_of(failed)), now);
                    }
                    ClaimReason::Operator => {
                        self.operator_at.insert(room, now);
                    }
                    ClaimReason::Join => {}
                }
            }
            Input::Clear { token, key } => {
                let room = room_of(key);
                self.claims.asked(*token, scene.seat, scene.life, room, now, Probes::No);
                self.operator_at.insert(room, now);
            }
            _ => {}
        }
    }

    /// Where a node said last that a room is.
    pub(super) fn told(&self, seat: Seat, room: Room) -> Option<Shard> {
        let cell = self.places.get(seat)?.cells.get(room as usize)?;
        (cell.view != NOWHERE).then_some(cell.view)
    }

    fn saw_broken(&mut self, scene: &Scene<'_>, peer: Seat, broken: Broken) {
        match broken {
            Broken::FellBehind => self.coverage.saw(Sort::Bound, "fell behind"),
            Broken::Silent => self.coverage.saw(Sort::Bound, "silent peer"),
            Broken::NotListed | Broken::Restarted => {}
            _ => {
                let text = format!("{} disconnects n{peer:02}: {broken:?}", name(scene.seat));
                self.accuse("nobody breaks the protocol", scene.now_ms, None, text);
            }
        }
    }
}

/// A node's name.
#[must_use]
pub fn name(seat: Seat) -> String {
    format!("n{seat:02}")
}

impl Watch for Observer {
    fn input(&mut self, scene: &Scene<'_>, input: &Input) {
        if self.trace.is_on() {
            self.trace.input(scene.now_ms, &name(scene.seat), input);
        }
        let place = &mut self.places[scene.seat];
        place.inputs += 1;
        let alone = place.inputs == 1;
        let mut entries = Vec::new();
        each_in_input(input, &mut |key, entry| {
            let room = room_of(key);
            place.touch(room);
            if let Some(entry) = entry {
                entries.push((room, decision_of(entry)));
            }
        });
        if alone {
            // Timers may have changed what they speak of without a word.
            let touched = place.touched.clone();
            for room in touched {
                self.look_at(scene, room, &[]);
            }
        }
        self.rounds.input(scene, input);
        if let Input::Received { peer, message } = input {
            self.places[scene.seat].passing |= matches!(message, Message::ClaimAnswer(_));
            self.applies = alone && !entries.is_empty() && talks_with(scene, seat_of(peer));
            self.cursors.received(scene, seat_of(peer), message);
        }
        if let Input::PeerConnected { peer } = input {
            self.cursors.connected(scene.seat, seat_of(peer));
        }
        self.places[scene.seat].incoming.extend(entries);
        self.note_use(scene, input);
    }

    fn output(&mut self, scene: &Scene<'_>, output: &Output) {
        if self.trace.is_on() {
            self.trace.output(scene.now_ms, &name(scene.seat), output);
        }
        self.places[scene.seat].outputs += 1;
        self.rounds.output(scene, output);
        self.check_kept(scene, output);
        match output {
            Output::Send { peer, message } => {
                self.coverage.saw(Sort::Message, message.kind());
                let ledger = &mut self.ledger;
                let place = &mut self.places[scene.seat];
                each_in_message(message, &mut |key, entry| {
                    if let Some(entry) = entry {
                        let decision = decision_of(entry);
                        if usize::from(decision.origin) == scene.seat {
                            // Perhaps replaced already by what came in the same moment.
                            let room = room_of(key);
                            let earliest = place.cell(room).earliest(scene.now_ms);
                            if ledger.announce(room, &decision, scene.now_ms, earliest) {
                                place.touch(room);
                            }
                        }
                    }
                });
                self.check_message(scene, seat_of(peer), message);
            }
            Output::Disconnect { peer, violation } => self.saw_broken(scene, seat_of(peer), *violation),
            Output::Changed { key, shard } => {
                let room = room_of(key);
                let place = &mut self.places[scene.seat];
                place.touch(room);
                let cell = place.cell(room);
                cell.view = shard.as_ref().map_or(NOWHERE, shard_of);
                cell.changed = true;
                cell.ends_between += u32::from(shard.is_none());
                place.placed += usize::from(shard.is_some());
            }
            Output::Moved { key, to } => {
                self.coverage.saw(Sort::Step, "moved");
                self.check_told_to_move(scene, room_of(key));
                self.news.push(News::Moved(scene.seat, room_of(key), shard_of(to)));
            }
            Output::Answered { token, claimed } => {
                if let Some(text) = self.claims.answered(*token) {
                    self.accuse("every claim is answered once", scene.now_ms, None, text);
                }
                self.news.push(News::Answered(*token, claimed.clone()));
            }
            Output::Verdict(verdict) => {
                self.coverage.saw(Sort::Step, "verdict");
                self.verdicts.insert((room_of(&verdict.key), decision_of(&verdict.entry)));
            }
            Output::PeopleMoved { .. } => self.coverage.saw(Sort::Step, "people moved by a verdict"),
            Output::Disputed { key, .. } => {
                self.coverage.saw(Sort::Step, "disputed");
                self.disputed_since.insert((scene.seat, room_of(key)), scene.now_ms);
                self.told_by_verdict.remove(&(scene.seat, room_of(key)));
            }
            Output::Settled { .. } | Output::Probe { .. } | Output::Replaced { .. } => {}
            Output::Emptied => {
                self.rounds.restarted(scene.seat, scene.now_ms);
                let place = &mut self.places[scene.seat];
                place.ready = false;
                place.empty();
            }
            Output::Readiness(readiness) => {
                self.places[scene.seat].ready = matches!(readiness, Readiness::Ready { .. });
            }
        }
    }

    fn settled(&mut self, scene: &Scene<'_>) {
        let viewed: Vec<Room> = self.places[scene.seat].touched.clone();
        self.look(scene);
        self.ledger.settle();
        for room in viewed {
            self.check_view(scene, room);
        }
        self.check_bounds(scene);
        self.places[scene.seat].live = scene.node.len();
    }

    fn network(&mut self, now_ms: u64, what: &Network<'_>) {
        match what {
            Network::Connected(from, to) => {
                self.trace.note(now_ms, || format!("n{from:02} connected to n{to:02}"));
                if self.contacts.connected(*from, *to) {
                    self.coverage.saw(Sort::Bound, "connection replaced");
                }
            }
            Network::Disconnected(from, to) => {
                self.trace.note(now_ms, || format!("n{from:02} lost n{to:02}"));
                self.contacts.disconnected(*from, *to);
            }
            Network::Started(seat) | Network::Crashed(seat) => {
                let started = matches!(what, Network::Started(_));
                self.trace
                    .note(now_ms, || format!("n{seat:02} {}", if started { "starts" } else { "crashes" }));
                self.contacts.restarted(*seat);
                self.cursors.restarted(*seat);
                self.claims.crashed(*seat);
                self.rounds.restarted(*seat, now_ms);
                for (room, (_, shards)) in &self.places[*seat].held {
                    self.left_at.extend(shards.keys().map(|shard| ((*room, *shard), now_ms)));
                }
                self.disputed_since.retain(|(asker, _), _| asker != seat);
                self.told_by_verdict.retain(|(told, _), _| told != seat);
                self.places[*seat] = Place { life: self.places[*seat].life + 1, ..Place::default() };
            }
            Network::DialFailed(..) => self.coverage.saw(Sort::Bound, "dial in vain"),
            Network::OutboxFull(from, to) => {
                self.coverage.saw(Sort::Bound, "outbox full");
                self.trace.note(now_ms, || format!("n{from:02}'s outbox for n{to:02} is full"));
            }
            Network::Lost(from, to, message) => {
                self.coverage.saw(Sort::Way, "lost");
                let kind = message.kind();
                self.trace.note(now_ms, || format!("lost: {kind} n{from:02} → n{to:02}"));
            }
            Network::Doubled(..) => self.coverage.saw(Sort::Way, "doubled"),
            Network::Late(..) => self.coverage.saw(Sort::Way, "overtaken"),
        }
    }
}

/// Whether the node takes messages of this peer.
fn talks_with(scene: &Scene<'_>, peer: Seat) -> bool {
    use shardgate_peering_core::LinkState;
    scene.node.peers().any(|(id, view)| {
        seat_of(id) == peer && matches!(view.link, LinkState::Learning | LinkState::Reconciled)
    })
}
