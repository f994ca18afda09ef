//! The limit: copies bytes between a client's connection and one to a shard, reads nothing, decides nothing, logs nothing.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);
const BUFFER_LENGTH: usize = 16 * 1024;

/// Relays connections to `listen`, in turn to each of `shards`, until the process ends.
pub fn serve(listen: SocketAddr, shards: &[SocketAddr], ready: impl FnOnce()) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    ready();
    let mut pairs = Pairs { slots: vec![], free: vec![], dialled: 0 };
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER_LENGTH];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                pairs.accept_all(&listener, shards, &poll)?;
                continue;
            }
            // Tokens 2n + 1 and 2n + 2 are the two sides of pair n.
            let index = event.token().0 - 1;
            let Some(pair) = pairs.slots.get_mut(index / 2).and_then(Option::as_mut) else { continue };
            let [client, shard] = pair;
            let (from, to) = if index % 2 == 0 { (client, shard) } else { (shard, client) };
            if advance(from, to, event.is_writable(), &mut buffer).is_err() {
                pairs.slots[index / 2] = None;
                pairs.free.push(index / 2);
            }
        }
    }
}

struct Pairs {
    slots: Vec<Option<[Side; 2]>>,
    free: Vec<usize>,
    dialled: usize,
}

struct Side {
    stream: TcpStream,
    unsent: Vec<u8>,
}

impl Pairs {
    fn accept_all(&mut self, listener: &TcpListener, shards: &[SocketAddr], poll: &Poll) -> io::Result<()> {
        loop {
            let (mut client, _) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut shard = TcpStream::connect(shards[self.dialled % shards.len()])?;
            self.dialled += 1;
            client.set_nodelay(true)?;
            shard.set_nodelay(true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut client, Token(2 * slot + 1), interest)?;
            poll.registry().register(&mut shard, Token(2 * slot + 2), interest)?;
            self.slots[slot] = Some([client, shard].map(|stream| Side { stream, unsent: vec![] }));
        }
    }
}

/// One side is over, so the pair is.
struct Ended;

/// `from` had an event: what waits for it is sent, what it sent goes to `to`.
fn advance(from: &mut Side, to: &mut Side, writable: bool, buffer: &mut [u8]) -> Result<(), Ended> {
    if writable && !from.unsent.is_empty() {
        let unsent = std::mem::take(&mut from.unsent);
        send(from, &unsent)?;
    }
    loop {
        let count = match from.stream.read(buffer) {
            Ok(0) => return Err(Ended),
            Ok(count) => count,
            Err(error) => return wait_or_end(&error),
        };
        send(to, &buffer[..count])?;
        // A short read has emptied the socket; what comes later is a new event.
        if count < buffer.len() {
            return Ok(());
        }
    }
}

fn send(to: &mut Side, bytes: &[u8]) -> Result<(), Ended> {
    if to.unsent.is_empty() {
        match to.stream.write(bytes) {
            Ok(count) => to.unsent.extend_from_slice(&bytes[count..]),
            Err(error) => {
                wait_or_end(&error)?;
                to.unsent.extend_from_slice(bytes);
            }
        }
    } else {
        to.unsent.extend_from_slice(bytes);
    }
    Ok(())
}

fn wait_or_end(error: &io::Error) -> Result<(), Ended> {
    // NotConnected: the connection to the shard is still being made, and its first event will come.
    match error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::NotConnected {
        true => Ok(()),
        false => Err(Ended),
    }
}
