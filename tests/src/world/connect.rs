//! Connections: dialled by who lists a peer, seen by each side for itself, ended by a close or by silence.

use shardgate_peering_core::Input;

use super::clockwork::Happening;
use super::seat::{Feed, Seat, State};
use super::watch::{Network, Watch};
use super::world_state::{IDLE_MS, World};

const DIAL_EVERY_MS: u64 = 500;
const DIAL_MAX_MS: u64 = 3_000;
/// The side with the higher name lets the other one go first, so that they seldom collide.
const HEAD_START_MS: u64 = 150;

impl World {
    /// Whether packets of `peer` about the connection that `at` sees reach it.
    fn hears(&self, at: Seat, peer: Seat) -> bool {
        let (own, back) = (&self.paths[at][peer], &self.paths[peer][at]);
        let greets = |handshake: Option<(u64, u64)>| {
            handshake
                .is_some_and(|(connection, until)| Some(connection) == own.connection && until >= self.now)
        };
        !back.blocked
            && self.places[peer].answers_packets()
            && (own.connection == back.connection || greets(own.handshake) || greets(back.handshake))
    }

    /// Something changed that may have silenced `peer` for `at`, or made it audible again.
    pub(super) fn recheck(&mut self, at: Seat, peer: Seat) {
        let hears = self.hears(at, peer);
        let path = &mut self.paths[at][peer];
        match (path.connection, path.silent_since) {
            (Some(connection), None) if !hears => {
                let since = self.now;
                path.silent_since = Some(since);
                self.clockwork.push(since + IDLE_MS, Happening::Silence { at, peer, connection, since });
            }
            (Some(_), Some(_)) if !hears => {}
            _ => path.silent_since = None,
        }
    }

    pub(super) fn silence<W: Watch>(
        &mut self,
        at: Seat,
        peer: Seat,
        connection: u64,
        since: u64,
        watch: &mut W,
    ) {
        let path = &self.paths[at][peer];
        if path.connection == Some(connection) && path.silent_since == Some(since) {
            self.end_connection(at, peer, watch);
        }
    }

    /// `at` sees its connection to `peer` no longer, dials anew, and is told.
    pub(super) fn lose_connection<W: Watch>(&mut self, at: Seat, peer: Seat, watch: &mut W) {
        if let Some(connection) = self.forget_connection(at, peer, watch) {
            self.feed(at, Feed::Lost { peer, connection }, watch);
        }
    }

    /// The same, and `at` closes the connection so that the peer learns of it if packets pass.
    pub(super) fn end_connection<W: Watch>(&mut self, at: Seat, peer: Seat, watch: &mut W) {
        if let Some(connection) = self.close_connection(at, peer, watch) {
            self.feed(at, Feed::Lost { peer, connection }, watch);
        }
    }

    /// `at` closes its connection to `peer`; its node is not told.
    pub(super) fn close_connection<W: Watch>(&mut self, at: Seat, peer: Seat, watch: &mut W) -> Option<u64> {
        let connection = self.forget_connection(at, peer, watch)?;
        let arrives = self.now + self.paths[at][peer].delay.draw(&mut self.random);
        self.clockwork.push(arrives, Happening::Closed { at: peer, peer: at, connection });
        Some(connection)
    }

    fn forget_connection<W: Watch>(&mut self, at: Seat, peer: Seat, watch: &mut W) -> Option<u64> {
        let connection = self.paths[at][peer].connection.take()?;
        self.paths[at][peer].silent_since = None;
        self.note(2_000 + at as u64);
        watch.network(self.now, &Network::Disconnected(at, peer));
        self.recheck(peer, at);
        self.dial_unless_connected(at, peer);
        Some(connection)
    }

    pub(super) fn closed<W: Watch>(&mut self, at: Seat, peer: Seat, connection: u64, watch: &mut W) {
        let blocked = self.paths[peer][at].blocked;
        if !blocked && self.paths[at][peer].connection == Some(connection) {
            self.lose_connection(at, peer, watch);
        }
    }

    pub(super) fn dial_unless_connected(&mut self, from: Seat, to: Seat) {
        let wanted = self.places[from].state != State::Crashed && self.places[from].listed.contains(&to);
        let path = &mut self.paths[from][to];
        if from != to && wanted && path.connection.is_none() && path.dialing_since.is_none() {
            path.dialing_since = Some(self.now);
            let patience = if from < to { 10 } else { HEAD_START_MS };
            self.clockwork.push(self.now + patience, Happening::Dial { from, to });
        }
    }

    pub(super) fn dial<W: Watch>(&mut self, from: Seat, to: Seat, watch: &mut W) {
        let Some(since) = self.paths[from][to].dialing_since else { return };
        let listed = self.places[from].listed.contains(&to);
        if !listed || self.paths[from][to].connection.is_some() {
            self.paths[from][to].dialing_since = None;
            return;
        }
        let mut again = self.now + DIAL_EVERY_MS;
        let under_way = |handshake: Option<(u64, u64)>| handshake.is_some_and(|(_, until)| until >= self.now);
        let (there, back) = (&self.paths[from][to], &self.paths[to][from]);
        let passes = !(there.blocked || there.clogged || back.blocked || back.clogged);
        if under_way(there.handshake) || under_way(back.handshake) {
            // One of the two dials is enough.
        } else if passes && self.places[to].answers_packets() && self.places[to].listed.contains(&from) {
            self.connections += 1;
            let connection = self.connections;
            let (out, home) = (self.paths[from][to].delay, self.paths[to][from].delay);
            let dialled = self.now + out.draw(&mut self.random) + home.draw(&mut self.random);
            let accepted = dialled + out.draw(&mut self.random);
            self.paths[from][to].handshake = Some((connection, accepted));
            self.clockwork.push(dialled, Happening::Dialled { at: from, peer: to, connection });
            self.clockwork.push(accepted, Happening::Accepted { at: to, peer: from, connection });
            again = again.max(accepted + 1);
        } else if self.now - since >= DIAL_MAX_MS {
            self.paths[from][to].dialing_since = Some(self.now);
            watch.network(self.now, &Network::DialFailed(from, to));
            let peer = self.name(to).clone();
            self.feed(from, Feed::Input(Input::DialFailed { peer }), watch);
        }
        self.clockwork.push(again, Happening::Dial { from, to });
    }

    /// The handshake is complete for the dialling side.
    pub(super) fn dialled<W: Watch>(&mut self, at: Seat, peer: Seat, connection: u64, watch: &mut W) {
        let Some((_, accepted)) = self.paths[at][peer].handshake.filter(|(number, _)| *number == connection)
        else {
            return;
        };
        if self.paths[peer][at].blocked || !self.places[at].listed.contains(&peer) {
            self.paths[at][peer].handshake = None;
            return;
        }
        self.come_up(at, peer, connection, accepted, watch);
        // It may have stopped meanwhile.
        self.recheck(at, peer);
    }

    /// The handshake is complete for the other side.
    pub(super) fn accepted<W: Watch>(&mut self, at: Seat, peer: Seat, connection: u64, watch: &mut W) {
        let path = &mut self.paths[peer][at];
        if path.handshake.is_some_and(|(number, _)| number == connection) {
            path.handshake = None;
        }
        let stands = path.connection == Some(connection) && !path.blocked;
        if stands && self.places[at].listed.contains(&peer) {
            self.come_up(at, peer, connection, self.now, watch);
        } else if stands {
            // Discovery does not list it here: refused.
            self.clockwork.push(self.now + 1, Happening::Closed { at: peer, peer: at, connection });
        }
        self.recheck(peer, at);
        self.recheck(at, peer);
    }

    /// A connection is up for `at`; an older one to the same peer is replaced without a word.
    fn come_up<W: Watch>(&mut self, at: Seat, peer: Seat, connection: u64, heard_from: u64, watch: &mut W) {
        self.paths[at][peer].begin(connection, heard_from);
        self.note(3_000 + at as u64);
        watch.network(self.now, &Network::Connected(at, peer));
        self.feed(at, Feed::Connected { peer, connection }, watch);
    }
}
