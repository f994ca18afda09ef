//! What goes into a node and comes out of it, and messages on their way.

use shardgate_peering_core::{Input, Message, Node, Output, Readiness};

use super::clockwork::{Due, Happening};
use super::lane::{Lane, carries_round_trip, hash_message, hash_output, lane_of};
use super::path::Held;
use super::random::mix;
use super::seat::{Feed, Seat, State};
use super::watch::{Network, Scene, Watch};
use super::world_state::World;

const LATE_MAX_MS: u64 = 1_500;

impl World {
    pub(super) fn happen<W: Watch>(&mut self, due: Due, watch: &mut W) {
        let Due { at: _, sequence, what } = due;
        let seat = what.seat();
        if let Happening::Arrive { from, to, ref message, .. } = what
            && self.is_held(from, to, message)
            && let Happening::Arrive { connection, message, .. } = what
        {
            // On its way still, whatever its receiver does meanwhile.
            self.paths[from][to].held.push(Held { sequence, connection, message });
            return;
        }
        match self.places[seat].state {
            State::Crashed => return,
            State::Paused(_) => {
                self.places[seat].waiting_packets.push_back((sequence, what));
                return;
            }
            State::Running | State::Hung => {}
        }
        match what {
            Happening::Arrive { from, to, connection, message } => {
                self.arrive(from, to, connection, message, watch);
            }
            Happening::Dial { from, to } => self.dial(from, to, watch),
            Happening::Dialled { at, peer, connection } => self.dialled(at, peer, connection, watch),
            Happening::Accepted { at, peer, connection } => self.accepted(at, peer, connection, watch),
            Happening::Closed { at, peer, connection } => self.closed(at, peer, connection, watch),
            Happening::Silence { at, peer, connection, since } => {
                self.silence(at, peer, connection, since, watch);
            }
            Happening::Probed { at, life, probe, reached } => self.probed(at, life, probe, reached, watch),
        }
    }

    /// Gives a node an input, and carries out what it causes.
    pub(super) fn feed<W: Watch>(&mut self, seat: Seat, feed: Feed, watch: &mut W) {
        let place = &mut self.places[seat];
        match place.state {
            State::Crashed => return,
            State::Paused(_) | State::Hung => {
                place.waiting_inputs.push_back(feed);
                return;
            }
            State::Running => {}
        }
        let input = match feed {
            Feed::Input(input) => input,
            Feed::Connected { peer, connection } => {
                self.paths[seat][peer].told = Some(connection);
                Input::PeerConnected { peer: self.name(peer).clone() }
            }
            Feed::Lost { peer, connection } => {
                if self.paths[seat][peer].told != Some(connection) {
                    return;
                }
                self.paths[seat][peer].told = None;
                Input::PeerLost { peer: self.name(peer).clone() }
            }
            Feed::Received { peer, connection, rtt_ms, message } => {
                if self.paths[seat][peer].told != Some(connection) {
                    return;
                }
                let peer = self.name(peer).clone();
                if let Some(rtt_ms) = rtt_ms {
                    self.give(seat, Input::RoundTrip { peer: peer.clone(), rtt_ms }, watch);
                }
                Input::Received { peer, message: *message }
            }
        };
        self.give(seat, input, watch);
        if self.lazy_permille > 0 && self.random.chance(self.lazy_permille) {
            let place = &mut self.places[seat];
            place.fetch_at = place.fetch_at.or(Some(self.now + 1));
            place.deadline = u64::MAX;
        } else {
            self.fetch(seat, watch);
        }
    }

    fn give<W: Watch>(&mut self, seat: Seat, input: Input, watch: &mut W) {
        let place = &mut self.places[seat];
        let moment = place.moment(self.now);
        let Some(node) = place.node.as_mut() else { return };
        watch.input(&Scene { now_ms: self.now, seat, life: place.life, node }, &input);
        node.handle(moment, input);
    }

    /// Carries out everything the node has put out.
    pub(super) fn fetch<W: Watch>(&mut self, seat: Seat, watch: &mut W) {
        self.places[seat].fetch_at = None;
        loop {
            let place = &mut self.places[seat];
            let Some(node) = place.node.as_mut() else { return };
            let Some(output) = node.poll_output() else { break };
            watch.output(&Scene { now_ms: self.now, seat, life: place.life, node }, &output);
            self.note(mix(seat as u64) ^ hash_output(&output));
            self.carry_out(seat, output, watch);
        }
        let Some((wanted, _)) = self.node(seat).map(Node::poll_timeout) else { return };
        self.places[seat].deadline = self.woken_at(seat, wanted);
        let place = &self.places[seat];
        let Some(node) = place.node.as_ref() else { return };
        watch.settled(&Scene { now_ms: self.now, seat, life: place.life, node });
    }

    fn carry_out<W: Watch>(&mut self, seat: Seat, output: Output, watch: &mut W) {
        match output {
            Output::Send { peer, message } => {
                if let Some(to) = self.seat_of(&peer) {
                    self.send(seat, to, Box::new(message), watch);
                }
            }
            Output::Disconnect { peer, .. } => {
                if let Some(to) = self.seat_of(&peer) {
                    self.end_told(seat, to, watch);
                }
            }
            Output::Readiness(readiness) => {
                self.places[seat].ready = matches!(readiness, Readiness::Ready { .. });
            }
            Output::Emptied => self.places[seat].ready = false,
            Output::Probe { probe, shard, .. } => self.probe(seat, probe, &shard),
            Output::Changed { .. }
            | Output::Replaced { .. }
            | Output::Moved { .. }
            | Output::Verdict(_)
            | Output::PeopleMoved { .. }
            | Output::Disputed { .. }
            | Output::Settled { .. }
            | Output::Answered { .. } => {}
        }
    }

    /// The node, or its shell, ends the connection that the node knows.
    fn end_told<W: Watch>(&mut self, seat: Seat, to: Seat, watch: &mut W) {
        let path = &mut self.paths[seat][to];
        let Some(connection) = path.told.take() else { return };
        if path.connection == Some(connection) {
            let _closed = self.close_connection(seat, to, watch);
        }
        let peer = self.name(to).clone();
        self.give(seat, Input::PeerLost { peer }, watch);
    }

    fn send<W: Watch>(&mut self, from: Seat, to: Seat, mut message: Box<Message>, watch: &mut W) {
        if let (Some((oldest, newest)), Message::Hello(hello)) = (self.places[from].contracts, &mut *message)
        {
            hello.contract_oldest = oldest;
            hello.contract = newest;
        }
        let path = &mut self.paths[from][to];
        let Some(connection) = path.told else { return };
        if path.connection != Some(connection) {
            watch.network(self.now, &Network::Lost(from, to, &message));
            return;
        }
        let lane = lane_of(&message);
        if path.under_way[lane as usize] >= self.outbox_max[lane as usize] {
            watch.network(self.now, &Network::OutboxFull(from, to));
            self.end_told(from, to, watch);
            return;
        }
        let greets = matches!(*message, Message::Hello(_));
        let mut at = path.arrival(self.now, lane, greets, &mut self.random);
        let noise = path.noise;
        if lane == Lane::Claims {
            if self.random.chance(noise.lost) {
                watch.network(self.now, &Network::Lost(from, to, &message));
                return;
            }
            if self.random.chance(noise.late) {
                at += self.random.below(LATE_MAX_MS);
                watch.network(self.now, &Network::Late(from, to, &message));
            }
            if self.random.chance(noise.doubled) {
                watch.network(self.now, &Network::Doubled(from, to, &message));
                let again = at + self.random.below(LATE_MAX_MS);
                self.paths[from][to].under_way[lane as usize] += 1;
                let message = message.clone();
                self.clockwork.push(again, Happening::Arrive { from, to, connection, message });
            }
        }
        self.paths[from][to].under_way[lane as usize] += 1;
        self.clockwork.push(at, Happening::Arrive { from, to, connection, message });
    }

    fn is_held(&self, from: Seat, to: Seat, message: &Message) -> bool {
        let path = &self.paths[from][to];
        path.blocked || path.clogged || path.bulk_clogged && lane_of(message) == Lane::Bulk
    }

    fn arrive<W: Watch>(
        &mut self,
        from: Seat,
        to: Seat,
        connection: u64,
        message: Box<Message>,
        watch: &mut W,
    ) {
        let path = &mut self.paths[from][to];
        let lane = lane_of(&message);
        if path.connection == Some(connection) {
            path.under_way[lane as usize] = path.under_way[lane as usize].saturating_sub(1);
        }
        if self.paths[to][from].connection != Some(connection) {
            watch.network(self.now, &Network::Lost(from, to, &message));
            return;
        }
        self.note(mix(from as u64 ^ (to as u64) << 8) ^ hash_message(&message));
        let rtt_ms = carries_round_trip(&message).then(|| {
            let there = self.paths[from][to].delay.draw(&mut self.random);
            let back = self.paths[to][from].delay.draw(&mut self.random);
            self.paths[to][from].smooth(there + back)
        });
        self.feed(to, Feed::Received { peer: from, connection, rtt_ms, message }, watch);
    }

    /// What was held arrives now, before everything that was sent later.
    pub(super) fn release(&mut self, from: Seat, to: Seat) {
        let path = &mut self.paths[from][to];
        if path.blocked || path.clogged {
            return;
        }
        for Held { sequence, connection, message } in std::mem::take(&mut path.held) {
            let what = Happening::Arrive { from, to, connection, message };
            self.clockwork.put_back(self.now, sequence, what);
        }
    }
}
