//! A byte stream to a client or a shard: plain TCP, or TLS over it. To a shard also by way of a peer, with TLS from end to end.

use crate::sessions::Way;
use shardgate_peering::RelayStream;
use shardgate_peering_core::PeerId;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// One connection's socket. TLS is boxed: its state is large, and most of what holds a socket is small.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Relayed(Box<RelayStream>),
    RelayedTls(Box<TlsStream<RelayStream>>),
}

impl Socket {
    /// Whether it goes by a peer.
    pub(crate) const fn way(&self) -> Way {
        match self {
            Self::Plain(_) | Self::Tls(_) => Way::Direct,
            Self::Relayed(_) | Self::RelayedTls(_) => Way::ByPeer,
        }
    }

    /// The peer by whose way it leads to a shard.
    pub(crate) fn via(&self) -> Option<&PeerId> {
        match self {
            Self::Plain(_) | Self::Tls(_) => None,
            Self::Relayed(stream) => Some(stream.peer()),
            Self::RelayedTls(stream) => Some(stream.get_ref().0.peer()),
        }
    }

    /// Lets the kernel throw away what the other side has not taken, with a reset, when this is dropped. It would else keep it for two
    /// minutes more for somebody who does not read: megabytes that no ceiling of ours knows of (HAProxy's `option nolinger`).
    pub(crate) fn discard_unread(&mut self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Relayed(stream) => return stream.reset(),
            Self::RelayedTls(stream) => return stream.get_mut().0.reset(),
        };
        if let Err(error) = stream.set_zero_linger() {
            tracing::debug!(%error, "a socket keeps what its client did not read");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Relayed(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::RelayedTls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Relayed(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::RelayedTls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Relayed(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::RelayedTls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Relayed(stream) => Pin::new(stream).poll_flush(cx),
            Self::RelayedTls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// With TLS the other side is told first (`close_notify`), then the sending half of the TCP connection is closed.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Relayed(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::RelayedTls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
