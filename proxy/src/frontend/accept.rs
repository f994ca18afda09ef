//! Accepting connections, and refusing those for which something is short, before anything is spent on them.

use super::Slot;
use crate::counters::Refused;
use crate::limits::Seat;
use crate::worker::Worker;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How long accepting pauses when it is the kernel that is short of something, or not even the spare descriptor is left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A connection that may stay, as far as this node's own means go. Whoever it is from has not been looked at.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) seat: Option<Seat>,
}

/// The next connection of a listener. While the process or the listener has all connections that it may, the next ones wait in the
/// kernel's queue; what comes while memory or descriptors are short is closed at once.
pub(super) async fn next(worker: &Worker, slot: &Slot, listener: &TcpListener) -> Accepted {
    loop {
        worker.room().await;
        if let Some(seats) = &slot.frontend().seats {
            seats.room().await;
        }
        let accepted = listener.accept().await;
        let frontend = slot.frontend();
        match accepted {
            Ok((stream, peer)) => {
                if let Err(refused) = worker.gate.accepted(&stream) {
                    worker.counters.refused[refused as usize].up();
                    continue;
                }
                let seat = match &frontend.seats {
                    Some(seats) => Some(seats.take().await),
                    None => None,
                };
                // A connection that died in the queue fails here; it will not be served anyway.
                if stream.set_nodelay(true).is_ok() {
                    return Accepted { stream, peer, seat };
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE) => {
                    worker.gate.out_of_descriptors();
                    if !refuse_one(worker, listener).await {
                        worker.counters.accept_pauses.up();
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    }
                }
                Some(libc::ENOBUFS | libc::ENOMEM) => {
                    worker.counters.accept_pauses.up();
                    tracing::warn!(%error, frontend = frontend.name, "cannot accept connections, pausing");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                // The client was gone before it was accepted.
                _ => tracing::debug!(%error, frontend = frontend.name, "connection lost while accepting"),
            },
        }
    }
}

/// A connection that the kernel has already, for a listener that closes; `None` when it has none, or when there is no seat. Asks the kernel
/// and not the runtime, which hears of connections a little later.
pub(super) fn queued(worker: &Worker, slot: &Slot, listener: &std::net::TcpListener) -> Option<Accepted> {
    loop {
        let (stream, peer) = listener.accept().ok()?;
        if let Err(refused) = worker.gate.accepted(&stream) {
            worker.counters.refused[refused as usize].up();
            continue;
        }
        let seat = match &slot.frontend().seats {
            Some(seats) => Some(seats.try_take()?),
            None => None,
        };
        let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
        if let Ok(stream) = ready.and_then(|()| TcpStream::from_std(stream)) {
            return Some(Accepted { stream, peer, seat });
        }
    }
}

/// Closes the connection that there was no descriptor for, with the spare one. Its client would otherwise wait until it loses patience,
/// and everybody behind it. Answers whether that went well; if not, another thread took the spare one first.
async fn refuse_one(worker: &Worker, listener: &TcpListener) -> bool {
    if !worker.spare.give_up() {
        return worker.spare.restore();
    }
    let accepted = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
    if matches!(accepted, Poll::Ready(Ok(_))) {
        worker.counters.refused[Refused::Descriptors as usize].up();
    }
    drop(accepted);
    worker.spare.restore()
}
