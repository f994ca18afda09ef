//! A closed loop of HTTP/2 streams over TLS connections that stay, commanded line by line on the standard input.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::h2_frames::{
    CONNECTION_WINDOW, Frame, Request, get, hello, open_window, pong, settings_ack, take,
};
use super::room_walk::{self, ANSWER_MAX, ROOMS, RoomWalk, Span, Until, Walking};
use super::wire::{Flow, HOST, Sessions, Transport, Wire};

/// A connection is made anew before its stream ids run out (RFC 9113, 5.1.1).
const STREAM_MAX: u32 = (1 << 31) - 1_000;

/// How many connections, and how many requests are under way on each.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Streams of each.
    pub streams: usize,
}

/// Obeys `run MILLISECONDS`, `warm` (every room once) and `report` until the input ends; each is answered by one line of JSON.
pub fn obey(
    target: SocketAddr,
    shape: Shape,
    target_of: fn(usize) -> String,
    input: impl BufRead,
    output: impl Write,
) -> io::Result<()> {
    let tls = Transport::tls("h2", Sessions::Forgotten)?;
    let paths = (0..ROOMS).map(target_of).collect();
    let poll = Poll::new()?;
    let mut load = Load { target, tls, poll, shape, connections: vec![], paths, walk: RoomWalk::new() };
    load.connections = (0..shape.connections).map(|index| load.connect(index)).collect::<Result<_, _>>()?;
    room_walk::obey(&mut load, input, output)
}

struct Load {
    target: SocketAddr,
    tls: Transport,
    poll: Poll,
    shape: Shape,
    connections: Vec<Connection>,
    paths: Vec<String>,
    walk: RoomWalk,
}

struct Connection {
    wire: Wire,
    received: Vec<u8>,
    unsent: Vec<u8>,
    next_stream: u32,
    asked: HashMap<u32, Asked>,
    /// What is left of the window that the server may fill.
    window: usize,
}

struct Asked {
    room: usize,
    at: Instant,
    status_2xx: bool,
    shard: u8,
}

/// A stream that is over.
enum Over {
    Answered(Asked),
    Reset,
}

/// The connection is of no more use.
struct Broken;

impl Walking for Load {
    fn run(&mut self, until: Until) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 64 * 1024];
        self.reconnect_closed(&mut events, &mut buffer)?;
        let start = Instant::now();
        let span = self.walk.span(until, start);
        for index in 0..self.connections.len() {
            self.fill(index, span, start)?;
        }
        while self.connections.iter().any(|connection| !connection.asked.is_empty()) {
            match self.poll.poll(&mut events, Some(ANSWER_MAX)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let silent = events.is_empty() || span.is_over(Instant::now());
            for index in 0..if silent { self.connections.len() } else { 0 } {
                self.give_up(index)?;
            }
            for event in &events {
                let Token(index) = event.token();
                match self.connections[index].receive(&mut buffer) {
                    Ok(over) => {
                        let now = Instant::now();
                        over.into_iter().for_each(|stream| self.count(stream, now));
                        self.fill(index, span, now)?;
                    }
                    Err(Broken) => self.give_up(index)?,
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
    fn connect(&self, index: usize) -> io::Result<Connection> {
        let mut wire = Wire::connect(self.target, index, &self.tls)?;
        if !wire.speaks("h2") {
            return Err(io::Error::other("the server did not choose h2"));
        }
        wire.register(&self.poll, Token(index))?;
        let mut connection = Connection {
            wire,
            received: vec![],
            unsent: vec![],
            next_stream: 1,
            asked: HashMap::new(),
            window: CONNECTION_WINDOW as usize,
        };
        connection.wire.send(&hello())?;
        // Before its first request, a client waits for the settings: how many streams the server allows.
        let (deadline, mut buffer) = (Instant::now() + ANSWER_MAX, vec![0; 16 * 1024]);
        while !connection.takes_settings(self.shape.streams, &mut buffer)? {
            if Instant::now() > deadline {
                return Err(io::Error::other("the server sent no settings"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(connection)
    }

    /// Asks until as many streams are under way as wanted, and sends what there is to send.
    fn fill(&mut self, index: usize, span: Span, now: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        while connection.asked.len() < self.shape.streams && span.goes_on(&self.walk, now) {
            let room = self.walk.next();
            connection.ask(room, &self.paths[room], now);
        }
        let unsent = std::mem::take(&mut connection.unsent);
        if !unsent.is_empty() && connection.wire.send(&unsent).is_err() {
            self.give_up(index)?;
        }
        if self.connections[index].next_stream > STREAM_MAX && self.connections[index].asked.is_empty() {
            self.connections[index] = self.connect(index)?;
        }
        Ok(())
    }

    fn count(&mut self, stream: Over, now: Instant) {
        match stream {
            Over::Answered(Asked { room, at, status_2xx, shard }) => {
                self.walk.answered(room, now - at, status_2xx, shard);
            }
            Over::Reset => self.walk.report.errors += 1,
        }
    }

    /// Everything under way on a connection is lost, and it is made anew.
    fn give_up(&mut self, index: usize) -> io::Result<()> {
        self.walk.report.errors += self.connections[index].asked.len() as u64;
        self.connections[index] = self.connect(index)?;
        Ok(())
    }

    /// A subject may close what was idle between two runs: that is its right and no error.
    fn reconnect_closed(&mut self, events: &mut Events, buffer: &mut [u8]) -> io::Result<()> {
        self.poll.poll(events, Some(Duration::ZERO))?;
        for event in &*events {
            let Token(index) = event.token();
            if self.connections[index].receive(buffer).is_err() {
                self.connections[index] = self.connect(index)?;
            }
        }
        Ok(())
    }
}

impl Connection {
    fn ask(&mut self, room: usize, path: &str, at: Instant) {
        let stream = self.next_stream;
        let request = if stream == 1 { Request::First } else { Request::Later };
        get(&mut self.unsent, stream, HOST, path, request);
        self.next_stream += 2;
        self.asked.insert(stream, Asked { room, at, status_2xx: false, shard: 0 });
    }

    /// Reads what has come; the streams that ended with it. What is to be answered waits in `unsent`.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Vec<Over>, Broken> {
        let flow = self.wire.receive(&mut self.received, buffer).map_err(|_| Broken)?;
        let (mut over, mut at) = (Vec::new(), 0);
        while let Some((frame, length)) = take(&self.received[at..]).map_err(|_| Broken)? {
            at += length;
            over.extend(self.obey(frame)?);
        }
        self.received.drain(..at);
        if flow == Flow::Ended { Err(Broken) } else { Ok(over) }
    }

    fn obey(&mut self, frame: Frame) -> Result<Option<Over>, Broken> {
        match frame {
            Frame::Head { stream, status_2xx, ends } => {
                let asked = self.asked.get_mut(&stream).ok_or(Broken)?;
                asked.status_2xx = status_2xx;
                Ok(self.end_of(stream, ends))
            }
            Frame::Body { stream, first, flow, ends } => {
                let asked = self.asked.get_mut(&stream).ok_or(Broken)?;
                if asked.shard == 0 {
                    asked.shard = first.unwrap_or(0);
                }
                self.window = self.window.saturating_sub(flow);
                if self.window < CONNECTION_WINDOW as usize / 2 {
                    open_window(&mut self.unsent);
                    self.window += CONNECTION_WINDOW as usize;
                }
                Ok(self.end_of(stream, ends))
            }
            Frame::Reset { stream } => Ok(self.asked.remove(&stream).map(|_| Over::Reset)),
            Frame::Settings { .. } => {
                settings_ack(&mut self.unsent);
                Ok(None)
            }
            Frame::Ping(opaque) => {
                pong(&mut self.unsent, opaque);
                Ok(None)
            }
            Frame::GoAway => Err(Broken),
            Frame::Else => Ok(None),
        }
    }

    fn end_of(&mut self, stream: u32, ends: bool) -> Option<Over> {
        if ends { self.asked.remove(&stream).map(Over::Answered) } else { None }
    }

    /// Whether the server's first frame, its settings, has come; an error when it allows fewer streams than wanted.
    fn takes_settings(&mut self, streams: usize, buffer: &mut [u8]) -> io::Result<bool> {
        let flow = self.wire.receive(&mut self.received, buffer)?;
        match take(&self.received) {
            Ok(None) if flow == Flow::Open => return Ok(false),
            Ok(Some((Frame::Settings { streams_max }, length))) => {
                let allowed = streams_max.map_or(usize::MAX, |streams_max| streams_max as usize);
                if allowed < streams {
                    return Err(io::Error::other(format!(
                        "the server allows {allowed} streams, not {streams}"
                    )));
                }
                self.received.drain(..length);
                settings_ack(&mut self.unsent);
            }
            _ => return Err(io::Error::other("the server did not begin with settings")),
        }
        Ok(true)
    }
}
