//! A relayed stream as bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::{RecvStream, SendStream, VarInt};
use shardgate_peering_core::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::RelaySide;
use crate::counters::Counters;

/// With what both ways end when nobody has ended them in order. There is but one such end; its number says nothing.
const ABANDONED: VarInt = VarInt::from_u32(1);

/// QUIC's two halves of a stream, and its place among those that may be open. Reset when dropped, unless what was sent has been finished.
#[derive(Debug)]
pub(super) struct Halves {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    sending: Sending,
    _place: Place,
}

/// By what a stream is counted among those of its connection.
#[derive(Debug)]
pub(super) enum Place {
    /// One of the places of this node's.
    Taken(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit),
    /// QUIC keeps the peer within the bound; this counts.
    Given(#[expect(dead_code, reason = "held, not read")] Arc<()>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    Finished,
    Reset,
}

impl Halves {
    pub(super) const fn new(send: SendStream, receive: RecvStream, place: Place) -> Self {
        Self { send, receive, sending: Sending::Open, _place: place }
    }

    /// Nothing more is sent; what was arrives.
    pub(super) fn finish(&mut self) {
        if self.sending == Sending::Open {
            self.sending = Sending::Finished;
            // It can only be closed already when the connection is.
            drop(self.send.finish());
        }
    }

    /// Ends both ways at once: what is under way is lost.
    pub(super) fn reset(&mut self) {
        self.sending = Sending::Reset;
        // Whichever of them has ended already needs no end.
        drop(self.send.reset(ABANDONED));
        drop(self.receive.stop(ABANDONED));
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        // quinn itself would finish it: the other side would take a part for the whole.
        if self.sending == Sending::Open {
            drop(self.send.reset(ABANDONED));
        }
    }
}

/// A connection to a shard by way of a peer, or the peer's end of it. It ends as a TCP connection does: shutting it down ends one way,
/// dropping it before resets it.
#[derive(Debug)]
pub struct RelayStream {
    halves: Halves,
    peer: PeerId,
    side: RelaySide,
    counters: Arc<Counters>,
}

impl RelayStream {
    pub(super) fn new(halves: Halves, peer: PeerId, side: RelaySide, counters: Arc<Counters>) -> Self {
        counters.relays.opened(side);
        Self { halves, peer, side, counters }
    }

    /// Who is at its other end.
    #[must_use]
    pub const fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Ends both ways at once; what is under way is lost, and the other side is told that it is.
    pub fn reset(&mut self) {
        self.halves.reset();
    }
}

impl AsyncRead for RelayStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { halves, side, counters, .. } = self.get_mut();
        if halves.sending == Sending::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        ready!(AsyncRead::poll_read(Pin::new(&mut halves.receive), cx, buf))?;
        counters.relays.moved(*side, buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RelayStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { halves, side, counters, .. } = self.get_mut();
        let written = ready!(AsyncWrite::poll_write(Pin::new(&mut halves.send), cx, buf))?;
        counters.relays.moved(*side, written);
        Poll::Ready(Ok(written))
    }

    /// The connection sends as soon as it may; there is nothing to wait for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().halves.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for RelayStream {
    fn drop(&mut self) {
        self.counters.relays.closed(self.side);
    }
}
