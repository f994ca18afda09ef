//! The shards behind every subject: one process on many addresses that answers 200 bytes, or echoes WebSocket messages.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::frames::{Taken, server_frame, take_client_frame};

/// Length of an answer's body.
pub const BODY_LENGTH: usize = 200;
const REQUEST_MAX: usize = 64 * 1024;

/// Answers on `addresses` until the process ends; `ready` runs when all of them listen.
pub fn serve(addresses: &[SocketAddr], ready: impl FnOnce()) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listeners = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let mut listener = TcpListener::bind(*address)?;
        poll.registry().register(&mut listener, Token(index), Interest::READABLE)?;
        listeners.push(listener);
    }
    let answers: Vec<Vec<u8>> = (0..addresses.len()).map(answer).collect();
    ready();
    let mut connections = Connections::default();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; REQUEST_MAX];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let Token(token) = event.token();
            if let Some(listener) = listeners.get(token) {
                accept_all(listener, token, &poll, listeners.len(), &mut connections)?;
            } else {
                let slot = token - listeners.len();
                let Some(connection) = connections.slots.get_mut(slot).and_then(Option::as_mut) else {
                    continue;
                };
                if connection.advance(&answers, &mut buffer).is_err() {
                    connections.slots[slot] = None;
                    connections.free.push(slot);
                }
            }
        }
    }
}

#[derive(Default)]
struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
}

fn accept_all(
    listener: &TcpListener,
    shard: usize,
    poll: &Poll,
    first_token: usize,
    connections: &mut Connections,
) -> io::Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let slot = connections.free.pop().unwrap_or_else(|| {
            connections.slots.push(None);
            connections.slots.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(first_token + slot), interest)?;
        let connection = Connection { stream, shard, speaks: Speaks::Http, received: vec![], unsent: vec![] };
        connections.slots[slot] = Some(connection);
    }
}

enum Speaks {
    Http,
    WebSocket,
}

struct Connection {
    stream: TcpStream,
    shard: usize,
    speaks: Speaks,
    /// The part of a request or frame that has come so far.
    received: Vec<u8>,
    unsent: Vec<u8>,
}

/// The connection is over, for whatever reason.
struct Ended;

impl Connection {
    fn advance(&mut self, answers: &[Vec<u8>], buffer: &mut [u8]) -> Result<(), Ended> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            self.send(&unsent)?;
        }
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Err(Ended),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Ended),
            };
            self.received.extend_from_slice(&buffer[..count]);
            while self.take_one(answers)? {}
            // A short read has emptied the socket; what comes later is a new event.
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Handles one request or frame; false when more bytes are needed for that.
    fn take_one(&mut self, answers: &[Vec<u8>]) -> Result<bool, Ended> {
        match self.speaks {
            Speaks::Http => self.take_request(answers),
            Speaks::WebSocket => self.take_frame(),
        }
    }

    fn take_request(&mut self, answers: &[Vec<u8>]) -> Result<bool, Ended> {
        let Some(end) = find(&self.received, b"\r\n\r\n") else {
            return if self.received.len() < REQUEST_MAX { Ok(false) } else { Err(Ended) };
        };
        let upgrade = accept_key(&self.received[..end]);
        self.received.drain(..end + 4);
        match upgrade {
            None => self.send(&answers[self.shard])?,
            Some(key) => {
                self.speaks = Speaks::WebSocket;
                self.send(switching_protocols(&key).as_bytes())?;
            }
        }
        Ok(true)
    }

    fn take_frame(&mut self) -> Result<bool, Ended> {
        match take_client_frame(&self.received) {
            Taken::Incomplete => Ok(false),
            Taken::Unexpected => Err(Ended),
            Taken::Frame { payload, length } => {
                self.received.drain(..length);
                if self.received.is_empty() {
                    self.received = Vec::new();
                }
                self.send(&server_frame(&payload))?;
                Ok(true)
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        match self.stream.write(bytes) {
            Ok(count) => self.unsent.extend_from_slice(&bytes[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.unsent.extend_from_slice(bytes),
            Err(_) => return Err(Ended),
        }
        Ok(())
    }
}

/// Position of `needle` in `bytes`.
#[must_use]
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// The body is the shard's digit, over and over: so a client sees where its request went.
fn answer(shard: usize) -> Vec<u8> {
    let digit = u32::try_from(shard + 1).ok().and_then(|number| char::from_digit(number, 36)).unwrap_or('?');
    let body = digit.to_string().repeat(BODY_LENGTH);
    let kind = "text/xml; charset=utf-8";
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Jitsi-Shard: bench-s{digit}\r\nContent-Length: {BODY_LENGTH}\r\n\r\n{body}")
        .into_bytes()
}

fn accept_key(head: &[u8]) -> Option<String> {
    // Only this path upgrades: the other requests are not searched, so the origin stays cheap.
    if !head.starts_with(b"GET /xmpp-websocket") {
        return None;
    }
    let head = std::str::from_utf8(head).ok()?;
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let (_, key) = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?;
    Some(derive_accept_key(key.trim().as_bytes()))
}

fn switching_protocols(accept: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n"
    )
}
