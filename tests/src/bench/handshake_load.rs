//! A closed loop of TLS connections, each for one request and closed by the server, commanded line by line on the standard input.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::{Events, Poll, Token};
use rustls::HandshakeKind;

use super::http_load::{KeepsAlive, Received, answer, request};
use super::room_walk::{self, ANSWER_MAX, ROOMS, RoomWalk, Until, Walking};
use super::wire::{Flow, Sessions, Transport, Wire};

/// Obeys `run MILLISECONDS`, `warm` (one connection in each slot) and `report` until the input ends; each is answered by one line of
/// JSON. At most `slots` connections are open at once; a handshake of the kind that `sessions` does not mean is a fault.
pub fn obey(
    target: SocketAddr,
    slots: usize,
    target_of: fn(usize) -> String,
    sessions: Sessions,
    input: impl BufRead,
    output: impl Write,
) -> io::Result<()> {
    let requests = (0..ROOMS).map(|index| request(&target_of(index), KeepsAlive::No)).collect();
    // A session belongs to one slot: TLS 1.3 tickets are used once.
    let slots = (0..slots).map(|_| Transport::tls("http/1.1", sessions).map(|tls| Slot { tls, open: None }));
    let slots = slots.collect::<Result<_, _>>()?;
    let poll = Poll::new()?;
    let mut load = Load { target, poll, slots, requests, sessions, walk: RoomWalk::new() };
    room_walk::obey(&mut load, input, output)
}

struct Load {
    target: SocketAddr,
    poll: Poll,
    slots: Vec<Slot>,
    requests: Vec<Vec<u8>>,
    sessions: Sessions,
    walk: RoomWalk,
}

struct Slot {
    tls: Transport,
    open: Option<Open>,
}

struct Open {
    wire: Wire,
    room: usize,
    began: Instant,
    received: Vec<u8>,
}

impl Walking for Load {
    fn run(&mut self, until: Until) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        let start = Instant::now();
        let span = self.walk.span(until, start);
        let mut open = 0;
        for index in 0..self.slots.len() {
            if span.goes_on(&self.walk, Instant::now()) {
                open += usize::from(self.begin(index));
            }
        }
        while open > 0 {
            match self.poll.poll(&mut events, Some(ANSWER_MAX)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            if events.is_empty() || span.is_over(Instant::now()) {
                self.walk.report.errors += open as u64;
                self.slots.iter_mut().for_each(|slot| slot.open = None);
                break;
            }
            for event in &events {
                let Token(index) = event.token();
                if self.goes_on(index, &mut buffer, until) {
                    continue;
                }
                open -= 1;
                if span.goes_on(&self.walk, Instant::now()) {
                    open += usize::from(self.begin(index));
                }
            }
        }
        self.walk.was_busy_since(start);
        Ok(())
    }

    fn warm_up(&self) -> usize {
        self.slots.len()
    }

    fn walk(&mut self) -> &mut RoomWalk {
        &mut self.walk
    }
}

impl Load {
    /// Opens a connection; false when that is refused, which counts as an error.
    fn begin(&mut self, index: usize) -> bool {
        let (room, began) = (self.walk.next(), Instant::now());
        let slot = &mut self.slots[index];
        let wire = Wire::begin(self.target, index, &slot.tls, &self.requests[room]);
        let wire = wire.and_then(|mut wire| wire.register(&self.poll, Token(index)).map(|()| wire));
        match wire {
            Ok(wire) => slot.open = Some(Open { wire, room, began, received: vec![] }),
            Err(_) => self.walk.report.errors += 1,
        }
        slot.open.is_some()
    }

    /// Takes what has come for a slot; false when its connection has just ended.
    fn goes_on(&mut self, index: usize, buffer: &mut [u8], until: Until) -> bool {
        let slot = &mut self.slots[index];
        // An event of the connection before.
        let Some(open) = &mut slot.open else { return true };
        let flow = open.wire.receive(&mut open.received, buffer);
        if matches!(flow, Ok(Flow::Open)) {
            return true;
        }
        match (flow, answer(&open.received)) {
            (Ok(Flow::Ended), Ok(Some(Received::Answer { status_2xx, shard }))) => {
                self.walk.answered(open.room, open.began.elapsed(), status_2xx, shard);
                let wanted = match (self.sessions, until) {
                    (Sessions::Kept, Until::Elapsed(_)) => HandshakeKind::Resumed,
                    // Warming up, nobody has a session yet.
                    (Sessions::Kept, Until::Asked(_)) | (Sessions::Forgotten, _) => HandshakeKind::Full,
                };
                self.walk.report.other_handshakes += u64::from(open.wire.handshake() != Some(wanted));
            }
            _ => self.walk.report.errors += 1,
        }
        slot.open = None;
        false
    }
}
