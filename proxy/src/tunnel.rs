//! An upgraded connection: bytes between two sockets, until both sides have closed. What hyper had for it is gone by then; an
//! idle tunnel is this small future and two sockets. It has no buffer and no timer: reading goes through one buffer that all
//! tunnels of a worker share, and the worker's sweep finds the idle ones.

use crate::access_log::{End, From, Line, Request, Size, Timers};
use crate::client::{Client, Origin};
use crate::clock::Millis;
use crate::counters::TunnelEnd;
use crate::limits::ShardPlace;
use crate::record::Record;
use crate::rescue::{COMPLETE, Termination};
use crate::route::Topology;
use crate::sessions::Hold;
use crate::socket::Socket;
use crate::worker::{Connected, Worker};
use http::uri::PathAndQuery;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use shardgate_discovery::Shard;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is kept of the target for the log line at the tunnel's end.
const TARGET_KEPT_MAX: usize = 256;

/// What a request leaves behind whose answer is 101, until hyper lets go of the client's socket.
pub(crate) struct Opening {
    stream: Socket,
    leftover: Vec<u8>,
    shard: Arc<Shard>,
    hold: Option<Hold>,
    shard_place: Option<ShardPlace>,
    /// What was known when it was decided where it goes.
    seen: Option<Rc<Topology>>,
    sender: SocketAddr,
    /// The name of the request that opens it, or `-`, a space, and its target.
    request: Box<str>,
}

impl Opening {
    /// `leftover` is what the shard sent behind its 101. It is copied: hyper's buffer is large, and goes.
    pub(crate) fn new(
        stream: Socket,
        leftover: &[u8],
        shard: Arc<Shard>,
        hold: Option<Hold>,
        shard_place: Option<ShardPlace>,
        record: &Record,
    ) -> Self {
        let target = record.target.path_and_query().map_or("", PathAndQuery::as_str);
        let kept = target.get(..TARGET_KEPT_MAX).unwrap_or(target);
        let id = record.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("-");
        let request = format!("{id} {kept}").into_boxed_str();
        let leftover = leftover.to_vec();
        let seen = record.seen.clone();
        Self { stream, leftover, shard, hold, shard_place, seen, sender: record.sender, request }
    }
}

/// The client's side of a tunnel.
pub(crate) enum ClientEnd {
    /// A connection of its own.
    Socket(Socket),
    /// A stream of an HTTP/2 connection.
    Stream(Box<TokioIo<Upgraded>>),
}

/// What a tunnel takes part of while it is open.
pub(crate) enum Place {
    /// The count of connections.
    Connection(#[expect(dead_code, reason = "held, not read")] Connected),
    /// The streams of its HTTP/2 connection.
    Stream(#[expect(dead_code, reason = "held, not read")] Rc<Client>),
}

/// Starts a tunnel; `leftover` is what the client sent behind its request.
pub(crate) fn open(
    worker: &Rc<Worker>,
    client: ClientEnd,
    leftover: &[u8],
    opening: Opening,
    origin: &Rc<Origin>,
    place: Place,
) {
    let key = opening.hold.as_ref().map(Hold::key);
    let id = {
        let mut sessions = worker.sessions.borrow_mut();
        let id = sessions.insert(
            key.cloned(),
            opening.shard.name.clone(),
            opening.stream.way(),
            worker.clock.coarse(),
        );
        // The conference may have moved between the decision and now; from now on the registry is told.
        if let Some(shard) = key.and_then(|key| worker.table.lookup(key.as_str()))
            && shard != opening.shard.name
            && key.is_none_or(|key| worker.table.disputed_on(key.as_str()).is_none())
        {
            sessions.end(id, TunnelEnd::Moved);
        }
        // Or its shard may have gone down.
        let ended = |seen: &Rc<Topology>| worker.has_ended(&opening.shard.name, seen);
        if opening.stream.via().is_none() && opening.seen.as_ref().is_some_and(ended) {
            sessions.end(id, TunnelEnd::ShardDown);
        }
        id
    };
    worker.counters.tunnels_opened.up();
    drop(tokio::task::spawn_local(Tunnel {
        worker: Rc::clone(worker),
        client,
        shard: opening.stream,
        up: Direction::new(leftover.to_vec()),
        down: Direction::new(opening.leftover),
        id,
        end: TunnelEnd::Closed,
        began: worker.clock.exact(),
        to: opening.shard,
        origin: Rc::clone(origin),
        sender: opening.sender,
        request: opening.request,
        _hold: opening.hold,
        _shard_place: opening.shard_place,
        _place: place,
    }));
}

struct Tunnel {
    worker: Rc<Worker>,
    client: ClientEnd,
    shard: Socket,
    up: Direction,
    down: Direction,
    id: u32,
    end: TunnelEnd,
    began: Millis,
    to: Arc<Shard>,
    origin: Rc<Origin>,
    sender: SocketAddr,
    request: Box<str>,
    _hold: Option<Hold>,
    /// For as long as it lasts.
    _shard_place: Option<ShardPlace>,
    _place: Place,
}

impl Future for Tunnel {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { worker, client, shard, up, down, id, end, .. } = self.get_mut();
        let ordered = worker.sessions.borrow_mut().attend(*id, cx.waker());
        if let Some(ordered) = ordered {
            *end = ordered;
            say_goodbye(client, shard, cx);
            if let ClientEnd::Socket(client) = client
                && down.is_stuck()
            {
                client.discard_unread();
            }
            return Poll::Ready(());
        }
        let before = (up.bytes, down.bytes);
        let mut buffer = worker.copy_buffer.borrow_mut();
        let (up_result, down_result) = match client {
            ClientEnd::Socket(Socket::Plain(client)) => match shard {
                // Most tunnels; what they do with every message shall not ask what they are.
                Socket::Plain(shard) => both(client, shard, up, down, &mut buffer, cx),
                Socket::Tls(_) | Socket::Relayed(_) | Socket::RelayedTls(_) => {
                    both(client, shard, up, down, &mut buffer, cx)
                }
            },
            ClientEnd::Socket(client) => both(client, shard, up, down, &mut buffer, cx),
            ClientEnd::Stream(client) => both(client, shard, up, down, &mut buffer, cx),
        };
        drop(buffer);
        worker.counters.client_bytes_in.add(up.bytes - before.0);
        worker.counters.client_bytes_out.add(down.bytes - before.1);
        let mut sessions = worker.sessions.borrow_mut();
        if before != (up.bytes, down.bytes) {
            sessions.used(*id, worker.clock.coarse());
        }
        let first = *end == TunnelEnd::Closed;
        match (up_result, down_result) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                tracing::debug!(%error, "tunnel broke");
                *end = TunnelEnd::Broken;
                Poll::Ready(())
            }
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (up, down) => {
                if first {
                    *end = if up.is_ready() { TunnelEnd::Client } else { TunnelEnd::Shard };
                    sessions.half_closed(*id);
                    sessions.used(*id, worker.clock.coarse());
                }
                if up.is_ready() && down.is_ready() { Poll::Ready(()) } else { Poll::Pending }
            }
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.sessions.borrow_mut().remove(self.id);
        worker.counters.tunnel_ends[self.end as usize].up();
        let (id, target) = self.request.split_once(' ').unwrap_or_default();
        worker.log(&Line {
            from: From {
                client: self.sender,
                frontend: &self.origin.frontend.name,
                at: worker.clock.wall(self.began),
            },
            shard: Some(&self.to),
            via: self.shard.via(),
            timers: Timers { all: worker.clock.exact() - self.began, ..Timers::default() },
            end: End { status: 101, termination: termination(self.end) },
            size: Size::Tunnel(self.up.bytes, self.down.bytes),
            why: self.end.as_str(),
            retries: 0,
            request: Request::Tunnel(target),
            id: Some(id),
        });
    }
}

const fn termination(end: TunnelEnd) -> Termination {
    match end {
        TunnelEnd::Client | TunnelEnd::Shard => COMPLETE,
        TunnelEnd::Idle => *b"cD",
        TunnelEnd::Broken => *b"CD",
        TunnelEnd::Moved => *b"PD",
        TunnelEnd::ShardDown => *b"DD",
        TunnelEnd::Closed => *b"KD",
    }
}

type Pumped = Poll<io::Result<()>>;

fn both<C, S>(
    client: &mut C,
    shard: &mut S,
    up: &mut Direction,
    down: &mut Direction,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> (Pumped, Pumped)
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    (up.pump(client, shard, buffer, cx), down.pump(shard, client, buffer, cx))
}

/// Both sides are told that it is over, as far as their sockets take it at once: TLS's `close_notify`, HTTP/2's END_STREAM, a FIN.
fn say_goodbye(client: &mut ClientEnd, shard: &mut Socket, cx: &mut Context<'_>) {
    let told = match client {
        ClientEnd::Socket(client) => Pin::new(client).poll_shutdown(cx),
        ClientEnd::Stream(client) => Pin::new(client).poll_shutdown(cx),
    };
    if let (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) =
        (told, Pin::new(shard).poll_shutdown(cx))
    {
        tracing::trace!(%error, "one side of a tunnel was gone");
    }
}

/// One way through a tunnel.
struct Direction {
    /// Read, but not yet written: only while the other side does not take it.
    pending: Vec<u8>,
    written: usize,
    bytes: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    /// All is written, but the target still holds some of it: TLS's records, of which its socket took a part.
    Flushing,
    /// The source has closed; what is pending still goes.
    Closing,
    Closed,
}

impl Direction {
    const fn new(pending: Vec<u8>) -> Self {
        Self { pending, written: 0, bytes: 0, state: State::Flowing }
    }

    /// Moves what can be moved. `Ready` when the source has closed and the target was told.
    fn pump(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Pumped {
        loop {
            while self.written < self.pending.len() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending[self.written..]))?;
                self.moved(written);
            }
            if !self.pending.is_empty() {
                self.pending = Vec::new();
                self.written = 0;
            }
            match self.state {
                State::Flowing => {}
                State::Flushing => {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.state = State::Flowing;
                }
                State::Closing => {
                    // The other side may have closed as well, which makes this an error of no interest.
                    let _told: io::Result<()> = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Closed;
                    return Poll::Ready(Ok(()));
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
            let mut read = ReadBuf::new(buffer);
            match ready!(Pin::new(&mut *from).poll_read(cx, &mut read)) {
                Ok(()) => {}
                // TLS without a close_notify: browsers close so. WebSocket has an end of its own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            let mut rest = read.filled();
            if rest.is_empty() {
                self.state = State::Closing;
            }
            while !rest.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, rest)? {
                    Poll::Ready(written) => {
                        self.bytes += written as u64;
                        rest = &rest[written..];
                        self.state = State::Flushing;
                    }
                    Poll::Pending => {
                        self.pending = rest.to_vec();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Whether the target does not take what was read for it.
    const fn is_stuck(&self) -> bool {
        !self.pending.is_empty()
    }

    fn moved(&mut self, written: usize) {
        self.written += written;
        self.bytes += written as u64;
        if self.state == State::Flowing {
            self.state = State::Flushing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_tunnel_is_small() {
        // 9,000 tunnels of HAProxy take 6.6 kB each; this future, its task and two sockets' readiness stay far below 2 kB.
        assert!(size_of::<Tunnel>() <= 416, "{}", size_of::<Tunnel>());
    }
}
