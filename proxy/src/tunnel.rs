//! An upgraded connection: bytes between two sockets, until both sides have closed. What hyper had for it is gone by then; an
//! idle tunnel is this small future and two sockets. It has no buffer and no timer: reading goes through one buffer that all
//! tunnels of a worker share, and the worker's sweep finds the idle ones.

use crate::access_log::{End, From, Line, Request, Size, Timers};
use crate::client::Client;
use crate::clock::Millis;
use crate::counters::TunnelEnd;
use crate::frontend::Frontend;
use crate::rescue::{COMPLETE, Termination};
use crate::sessions::Hold;
use crate::worker::{Connected, Worker};
use http::uri::PathAndQuery;
use shardgate_discovery::Shard;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is kept of the target for the log line at the tunnel's end.
const TARGET_KEPT_MAX: usize = 256;

/// What a request leaves behind whose answer is 101, until hyper lets go of the client's socket.
pub(crate) struct Opening {
    stream: TcpStream,
    leftover: Vec<u8>,
    shard: Arc<Shard>,
    hold: Option<Hold>,
    target: Box<str>,
}

impl Opening {
    /// `leftover` is what the shard sent behind its 101. It is copied: hyper's buffer is large, and goes.
    pub(crate) fn new(
        stream: TcpStream,
        leftover: &[u8],
        shard: Arc<Shard>,
        hold: Option<Hold>,
        target: Option<&PathAndQuery>,
    ) -> Self {
        let target = target.map_or("", PathAndQuery::as_str);
        let kept = target.get(..TARGET_KEPT_MAX).unwrap_or(target);
        Self { stream, leftover: leftover.to_vec(), shard, hold, target: kept.into() }
    }
}

/// Starts a tunnel; `leftover` is what the client sent behind its request.
pub(crate) fn open(
    worker: &Rc<Worker>,
    stream: TcpStream,
    leftover: &[u8],
    opening: Opening,
    client: &Client,
    connected: Connected,
) {
    let key = opening.hold.as_ref().map(Hold::key);
    let id = {
        let mut sessions = worker.sessions.borrow_mut();
        let id = sessions.insert(key.cloned(), opening.shard.name.clone(), worker.clock.coarse());
        // The conference may have moved between the decision and now; from now on the registry is told.
        if let Some(shard) = key.and_then(|key| worker.table.lookup(key.as_str()))
            && shard != opening.shard.name
        {
            sessions.end(id, TunnelEnd::Moved);
        }
        id
    };
    worker.counters.tunnels_opened.up();
    drop(tokio::task::spawn_local(Tunnel {
        client: stream,
        shard: opening.stream,
        up: Direction::new(leftover.to_vec()),
        down: Direction::new(opening.leftover),
        id,
        end: TunnelEnd::Closed,
        began: worker.clock.exact(),
        to: opening.shard,
        peer: client.peer,
        frontend: Rc::clone(&client.frontend),
        target: opening.target,
        _hold: opening.hold,
        connected,
    }));
}

struct Tunnel {
    client: TcpStream,
    shard: TcpStream,
    up: Direction,
    down: Direction,
    id: u32,
    end: TunnelEnd,
    began: Millis,
    to: Arc<Shard>,
    peer: SocketAddr,
    frontend: Rc<Frontend>,
    target: Box<str>,
    _hold: Option<Hold>,
    connected: Connected,
}

impl Future for Tunnel {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { client, shard, up, down, id, end, connected, .. } = self.get_mut();
        let worker = connected.worker();
        let ordered = worker.sessions.borrow_mut().attend(*id, cx.waker());
        if let Some(ordered) = ordered {
            *end = ordered;
            return Poll::Ready(());
        }
        let before = (up.bytes, down.bytes);
        let mut buffer = worker.copy_buffer.borrow_mut();
        let up_result = up.pump(client, shard, &mut buffer, cx);
        let down_result = down.pump(shard, client, &mut buffer, cx);
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
        let worker = self.connected.worker();
        worker.sessions.borrow_mut().remove(self.id);
        worker.counters.tunnel_ends[self.end as usize].up();
        worker.log(&Line {
            from: From {
                client: self.peer,
                frontend: &self.frontend.name,
                at: worker.clock.wall(self.began),
            },
            shard: Some(&self.to),
            timers: Timers { all: worker.clock.exact() - self.began, ..Timers::default() },
            end: End { status: 101, termination: termination(self.end) },
            size: Size::Tunnel(self.up.bytes, self.down.bytes),
            why: self.end.as_str(),
            retries: 0,
            request: Request::Tunnel(&self.target),
        });
    }
}

const fn termination(end: TunnelEnd) -> Termination {
    match end {
        TunnelEnd::Client | TunnelEnd::Shard => COMPLETE,
        TunnelEnd::Idle => *b"cD",
        TunnelEnd::Broken => *b"CD",
        TunnelEnd::Moved => *b"PD",
        TunnelEnd::Closed => *b"KD",
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
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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
                State::Closing => {
                    // The other side may have closed as well, which makes this an error of no interest.
                    let _told: io::Result<()> = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                    self.state = State::Closed;
                    return Poll::Ready(Ok(()));
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
            let mut rest = read.filled();
            if rest.is_empty() {
                self.state = State::Closing;
            }
            while !rest.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, rest)? {
                    Poll::Ready(written) => {
                        self.bytes += written as u64;
                        rest = &rest[written..];
                    }
                    Poll::Pending => {
                        self.pending = rest.to_vec();
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn moved(&mut self, written: usize) {
        self.written += written;
        self.bytes += written as u64;
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
