//! A closed loop of HTTP/1.1 keep-alive connections, commanded line by line on its standard input.
//!
//! Each connection asks, waits for the whole answer and asks again. Rooms follow one deterministic walk over all of them.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::latency::Latencies;
use super::load_report::LoadReport;
use super::net::dial;
use super::origin::find;

/// Rooms asked for in one run.
pub const ROOMS: usize = 10_000;
/// A step that visits every room once before any twice (it shares no factor with the number of rooms).
const STRIDE: usize = 7_919;
/// An answer that has not come after this time is an error.
const ANSWER_MAX: Duration = Duration::from_secs(5);

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
    input: impl BufRead,
    mut output: impl Write,
) -> io::Result<()> {
    let mut load = Load::connect(target, connections, target_of)?;
    writeln!(output, "ready")?;
    for line in input.lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("warm", "") => load.run(Until::Asked(ROOMS))?,
            ("run", milliseconds) => {
                let milliseconds = milliseconds.parse().map_err(io::Error::other)?;
                load.run(Until::Elapsed(Duration::from_millis(milliseconds)))?;
            }
            ("report", "") => {}
            _ => return Err(io::Error::other(format!("unknown command {line:?}"))),
        }
        load.report.write_line(&load.latencies, &mut output)?;
        if line == "report" {
            load.report = LoadReport::default();
            load.latencies = Latencies::default();
        }
    }
    Ok(())
}

enum Until {
    Elapsed(Duration),
    Asked(usize),
}

struct Load {
    target: SocketAddr,
    poll: Poll,
    connections: Vec<Connection>,
    requests: Vec<Vec<u8>>,
    /// The digit of the shard that first answered for each room; 0 before that.
    shard_of_room: Vec<u8>,
    asked: usize,
    report: LoadReport,
    latencies: Latencies,
}

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// The room asked for and when, while an answer is awaited.
    pub(super) awaited: Option<(usize, Instant)>,
    received: Vec<u8>,
}

impl Load {
    fn connect(target: SocketAddr, count: usize, target_of: fn(usize) -> String) -> io::Result<Self> {
        let poll = Poll::new()?;
        let connections = (0..count).map(|index| connect(&poll, target, index)).collect::<Result<_, _>>()?;
        let requests = (0..ROOMS).map(|index| request(&target_of(index))).collect();
        Ok(Self {
            target,
            poll,
            connections,
            requests,
            shard_of_room: vec![0; ROOMS],
            asked: 0,
            report: LoadReport::default(),
            latencies: Latencies::default(),
        })
    }

    fn run(&mut self, until: Until) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        self.reconnect_closed(&mut events, &mut buffer)?;
        let start = Instant::now();
        let last = self.asked + if let Until::Asked(count) = until { count } else { usize::MAX / 2 };
        let end = if let Until::Elapsed(time) = until { start + time } else { start + 12 * ANSWER_MAX };
        let mut awaited = 0;
        for index in 0..self.connections.len() {
            if self.asked < last {
                awaited += usize::from(self.ask(index, Instant::now()));
            }
        }
        while awaited > 0 {
            match self.poll.poll(&mut events, Some(ANSWER_MAX)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = Instant::now();
            if events.is_empty() || now > end + ANSWER_MAX {
                self.report.errors += awaited as u64;
                self.replace_awaited()?;
                break;
            }
            for event in &events {
                let Token(index) = event.token();
                match self.connections[index].receive(&mut buffer) {
                    Received::Partly => {}
                    Received::Broken => {
                        awaited -= usize::from(self.connections[index].awaited.is_some());
                        self.report.errors += 1;
                        self.connections[index] = connect(&self.poll, self.target, index)?;
                    }
                    Received::Answer { status_2xx, shard } => {
                        awaited -= 1;
                        self.count(index, now, status_2xx, shard);
                        if now < end && self.asked < last {
                            awaited += usize::from(self.ask(index, now));
                        }
                    }
                }
            }
        }
        self.report.busy_us += u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Asks for the next room; false when the connection would not take it, which counts as an error.
    fn ask(&mut self, index: usize, now: Instant) -> bool {
        let room = self.asked * STRIDE % ROOMS;
        self.asked += 1;
        let connection = &mut self.connections[index];
        let request = &self.requests[room];
        if connection.stream.write(request).is_ok_and(|count| count == request.len()) {
            connection.awaited = Some((room, now));
            return true;
        }
        self.report.errors += 1;
        false
    }

    fn count(&mut self, index: usize, now: Instant, status_2xx: bool, shard: u8) {
        let Some((room, asked_at)) = self.connections[index].awaited.take() else {
            self.report.errors += 1;
            return;
        };
        if !status_2xx {
            self.report.non_2xx += 1;
            return;
        }
        self.report.done += 1;
        self.latencies.record(now - asked_at);
        let first = &mut self.shard_of_room[room];
        if *first == 0 {
            *first = shard;
        } else if *first != shard {
            self.report.moved += 1;
        }
    }

    /// A subject may close what was idle between two runs: that is its right and no error.
    fn reconnect_closed(&mut self, events: &mut Events, buffer: &mut [u8]) -> io::Result<()> {
        self.poll.poll(events, Some(Duration::ZERO))?;
        for event in &*events {
            let Token(index) = event.token();
            if let Received::Broken = self.connections[index].receive(buffer) {
                self.connections[index] = connect(&self.poll, self.target, index)?;
            }
        }
        Ok(())
    }

    fn replace_awaited(&mut self) -> io::Result<()> {
        for index in 0..self.connections.len() {
            if self.connections[index].awaited.is_some() {
                self.connections[index] = connect(&self.poll, self.target, index)?;
            }
        }
        Ok(())
    }
}

pub(super) fn connect(poll: &Poll, target: SocketAddr, index: usize) -> io::Result<Connection> {
    let stream = dial(target, index)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
    Ok(Connection { stream, awaited: None, received: vec![] })
}

fn request(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: meet.example.com\r\n\r\n").into_bytes()
}

pub(super) enum Received {
    Partly,
    Answer { status_2xx: bool, shard: u8 },
    Broken,
}

impl Connection {
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        match self.stream.read(buffer) {
            Ok(0) => return Received::Broken,
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Received::Partly,
            Err(_) => return Received::Broken,
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
struct Unreadable;

fn answer(bytes: &[u8]) -> Result<Option<Received>, Unreadable> {
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
    fn the_walk_visits_every_room_and_names_have_30_bytes() {
        let visited: std::collections::BTreeSet<_> = (0..ROOMS).map(|asked| asked * STRIDE % ROOMS).collect();
        assert_eq!(visited.len(), ROOMS);
        assert_eq!(room_name(7).len(), 30);
    }
}
