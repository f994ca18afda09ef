//! Keep-alive connections to any nodes, each with at most one question under way, all answered on one thread.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::http_load::{Connection, Received, connect};
use super::wire::Transport;

/// The connections.
pub struct Askers {
    poll: Poll,
    events: Events,
    connections: Vec<(SocketAddr, Connection)>,
    buffer: Vec<u8>,
}

/// What came back on a connection.
pub struct Answer {
    /// Which connection, in the order in which they were added.
    pub asker: usize,
    /// The number that the caller gave the question.
    pub question: usize,
    /// Time since it was asked.
    pub took: Duration,
    /// The digit of the shard; none when there was no answer with a 2xx status.
    pub shard: Option<u8>,
}

impl Askers {
    /// None yet.
    pub fn new() -> io::Result<Self> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(1024));
        Ok(Self { poll, events, connections: vec![], buffer: vec![0; 64 * 1024] })
    }

    /// Connects to a node; the number of the connection.
    pub fn add(&mut self, target: SocketAddr) -> io::Result<usize> {
        let asker = self.connections.len();
        self.connections.push((target, connect(&self.poll, target, asker, &Transport::Plain)?));
        Ok(asker)
    }

    /// Sends a request; the moment before it was written. A connection whose last question was given up is made anew.
    pub fn ask(&mut self, asker: usize, question: usize, request: &[u8]) -> io::Result<Instant> {
        let (target, connection) = &mut self.connections[asker];
        if connection.awaited.is_some() {
            *connection = connect(&self.poll, *target, asker, &Transport::Plain)?;
        }
        let mut now = Instant::now();
        if connection.send(request).is_err() {
            // It was idle, so the node was free to close it.
            *connection = connect(&self.poll, *target, asker, &Transport::Plain)?;
            now = Instant::now();
            connection.send(request)?;
        }
        connection.awaited = Some((question, now));
        Ok(now)
    }

    /// Waits for answers, at most `within`, and adds those that came to `answers`.
    pub fn receive(&mut self, within: Duration, answers: &mut Vec<Answer>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(within)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let asker = event.token().0;
            let (target, connection) = &mut self.connections[asker];
            let shard = match connection.receive(&mut self.buffer) {
                Received::Partly => continue,
                Received::Answer { status_2xx, shard } => {
                    Some(shard.wrapping_sub(b'0')).filter(|digit| status_2xx && (1..=9).contains(digit))
                }
                Received::Broken => {
                    let awaited = connection.awaited.take();
                    *connection = connect(&self.poll, *target, asker, &Transport::Plain)?;
                    connection.awaited = awaited;
                    None
                }
            };
            let Some((question, asked)) = self.connections[asker].1.awaited.take() else { continue };
            answers.push(Answer { asker, question, took: asked.elapsed(), shard });
        }
        Ok(())
    }
}

/// A request that makes an entry for a room that has none: signaling.
#[must_use]
pub fn joining(room: &str) -> Vec<u8> {
    format!("GET /http-bind?room={room} HTTP/1.1\r\nHost: meet.example.com\r\n\r\n").into_bytes()
}

/// A request that follows a room's entry and makes none: a page.
#[must_use]
pub fn looking(room: &str) -> Vec<u8> {
    format!("GET /look?room={room} HTTP/1.1\r\nHost: meet.example.com\r\n\r\n").into_bytes()
}
