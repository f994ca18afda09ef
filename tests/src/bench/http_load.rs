//! A closed loop of HTTP/1.1 keep-alive connections, commanded line by line on its standard input.
//!
//! Each connection asks, waits for the whole answer and asks again. Rooms follow one deterministic walk over all of them.

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::origin::find;
use super::room_walk::{self, ANSWER_MAX, ROOMS, RoomWalk, Until, Walking};
use super::wire::{Flow, HOST, Transport, Wire};

/// A 30-byte room name, the length that the baseline used.
#[must_use]
pub fn room_name(index: usize) -> String {
    format!("bench-conference-room-{index:08}")
}

/// What is asked for a room that is nobody's.
#[must_use]
pub fn target(index: usize) -> String {
    format!("/http-bind?room={}", room_name(index))
}

/// Obeys `run MILLISECONDS`, `warm` (every room once) and `report` until the input ends; each is answered by one line of JSON. For
/// the room with a number it asks `target_of` that number.
pub fn obey(
    target: SocketAddr,
    connections: usize,
    target_of: fn(usize) -> String,
    transport: Transport,
    input: impl BufRead,
    output: impl Write,
) -> io::Result<()> {
    room_walk::obey(&mut Load::connect(target, connections, target_of, transport)?, input, output)
}

struct Load {
    target: SocketAddr,
    transport: Transport,
    poll: Poll,
    connections: Vec<Connection>,
    requests: Vec<Vec<u8>>,
    walk: RoomWalk,
}

pub(super) struct Connection {
    wire: Wire,
    /// The room asked for and when, while an answer is awaited.
    pub(super) awaited: Option<(usize, Instant)>,
    received: Vec<u8>,
}

impl Walking for Load {
    fn run(&mut self, until: Until) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        self.reconnect_closed(&mut events, &mut buffer)?;
        let start = Instant::now();
        let span = self.walk.span(until, start);
        let mut awaited = 0;
        for index in 0..self.connections.len() {
            let now = Instant::now();
            if span.goes_on(&self.walk, now) {
                awaited += usize::from(self.ask(index, now));
            }
        }
        while awaited > 0 {
            match self.poll.poll(&mut events, Some(ANSWER_MAX)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = Instant::now();
            if events.is_empty() || span.is_over(now) {
                self.walk.report.errors += awaited as u64;
                self.replace_awaited()?;
                break;
            }
            for event in &events {
                let Token(index) = event.token();
                match self.connections[index].receive(&mut buffer) {
                    Received::Partly => {}
                    Received::Broken => {
                        awaited -= usize::from(self.connections[index].awaited.is_some());
                        self.walk.report.errors += 1;
                        self.connections[index] = self.connect_one(index)?;
                    }
                    Received::Answer { status_2xx, shard } => {
                        let Some((room, asked)) = self.connections[index].awaited.take() else {
                            self.walk.report.errors += 1;
                            continue;
                        };
                        awaited -= 1;
                        self.walk.answered(room, now - asked, status_2xx, shard);
                        if span.goes_on(&self.walk, now) {
                            awaited += usize::from(self.ask(index, now));
                        }
                    }
                }
            }
        }
        self.walk.was_busy_since(start);
        Ok(())
    }

    fn warm_up(&self) -> usize {
        ROOMS
    }

    fn walk(&mut self) -> &mut RoomWalk {
        &mut self.walk
    }
}

impl Load {
    fn connect(
        target: SocketAddr,
        count: usize,
        target_of: fn(usize) -> String,
        transport: Transport,
    ) -> io::Result<Self> {
        let requests = (0..ROOMS).map(|index| request(&target_of(index), KeepsAlive::Yes)).collect();
        let poll = Poll::new()?;
        let mut load = Self { target, transport, poll, connections: vec![], requests, walk: RoomWalk::new() };
        load.connections = (0..count).map(|index| load.connect_one(index)).collect::<Result<_, _>>()?;
        Ok(load)
    }

    fn connect_one(&self, index: usize) -> io::Result<Connection> {
        connect(&self.poll, self.target, index, &self.transport)
    }

    /// Asks for the next room; false when the connection would not take it, which counts as an error.
    fn ask(&mut self, index: usize, now: Instant) -> bool {
        let room = self.walk.next();
        let connection = &mut self.connections[index];
        if connection.send(&self.requests[room]).is_ok() {
            connection.awaited = Some((room, now));
            return true;
        }
        self.walk.report.errors += 1;
        false
    }

    /// A subject may close what was idle between two runs: that is its right and no error.
    fn reconnect_closed(&mut self, events: &mut Events, buffer: &mut [u8]) -> io::Result<()> {
        self.poll.poll(events, Some(Duration::ZERO))?;
        for event in &*events {
            let Token(index) = event.token();
            if let Received::Broken = self.connections[index].receive(buffer) {
                self.connections[index] = self.connect_one(index)?;
            }
        }
        Ok(())
    }

    fn replace_awaited(&mut self) -> io::Result<()> {
        for index in 0..self.connections.len() {
            if self.connections[index].awaited.is_some() {
                self.connections[index] = self.connect_one(index)?;
            }
        }
        Ok(())
    }
}

pub(super) fn connect(
    poll: &Poll,
    target: SocketAddr,
    index: usize,
    transport: &Transport,
) -> io::Result<Connection> {
    let mut wire = Wire::connect(target, index, transport)?;
    wire.register(poll, Token(index))?;
    Ok(Connection { wire, awaited: None, received: vec![] })
}

/// Whether a request asks for the connection's end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeepsAlive {
    Yes,
    No,
}

pub(super) fn request(target: &str, keeps_alive: KeepsAlive) -> Vec<u8> {
    let close = match keeps_alive {
        KeepsAlive::Yes => "",
        KeepsAlive::No => "Connection: close\r\n",
    };
    format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{close}\r\n").into_bytes()
}

pub(super) enum Received {
    Partly,
    Answer { status_2xx: bool, shard: u8 },
    Broken,
}

impl Connection {
    pub(super) fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.wire.send(request)
    }

    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        match self.wire.receive(&mut self.received, buffer) {
            Ok(Flow::Open) => {}
            Ok(Flow::Ended) | Err(_) => return Received::Broken,
        }
        let received = match answer(&self.received) {
            Ok(None) => return Received::Partly,
            Ok(Some(answer)) => answer,
            Err(Unreadable) => Received::Broken,
        };
        self.received.clear();
        received
    }
}

/// Not an HTTP/1.1 answer with a content length, or more bytes than it announced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The answer that `bytes` hold; none when it is not whole.
pub(super) fn answer(bytes: &[u8]) -> Result<Option<Received>, Unreadable> {
    let Some(head_end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| Unreadable)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or(Unreadable)?;
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|(_, value)| value.trim().parse().ok()).ok_or(Unreadable)?;
    let body = &bytes[head_end + 4..];
    match body.len().cmp(&length) {
        std::cmp::Ordering::Less => Ok(None),
        std::cmp::Ordering::Greater => Err(Unreadable),
        std::cmp::Ordering::Equal => Ok(Some(Received::Answer {
            status_2xx: status.starts_with('2'),
            shard: body.first().copied().unwrap_or(0),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_only_with_its_body() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n777";
        assert!(matches!(answer(&whole[..10]), Ok(None)));
        assert!(matches!(answer(&whole[..whole.len() - 1]), Ok(None)));
        assert!(matches!(answer(whole), Ok(Some(Received::Answer { status_2xx: true, shard: b'7' }))));
        assert!(matches!(
            answer(b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"),
            Ok(Some(Received::Answer { status_2xx: false, shard: 0 }))
        ));
        assert!(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n7777").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n7777").is_err());
    }

    #[test]
    fn room_names_have_30_bytes() {
        assert_eq!(room_name(7).len(), 30);
    }
}
