//! Opening a connection to a shard.

use super::{State, Upstream};
use crate::counters::ConnectReason;
use crate::socket::Socket;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How connections to shards are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectLimits {
    /// How long the shard's host has to accept.
    pub timeout: Duration,
    /// Further attempts at the same shard when it refuses, before another shard is tried.
    pub retries: u32,
    /// Pause before the first of them; each further one is three times as long.
    pub backoff: Duration,
}

impl Default for ConnectLimits {
    /// HAProxy's 10 s and 3 retries. Its pause of 1 s is too long for clients that look after 5 s where their conference is:
    /// 50, 150 and 450 ms outlive the restart of a web server just as well.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), retries: 3, backoff: Duration::from_millis(50) }
    }
}

/// Why there is no connection to a shard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody listens there.
    #[error("shard at {address} refused the connection")]
    Refused { address: SocketAddr },
    /// No answer.
    #[error("shard at {address} did not accept the connection within {after:?}")]
    Timeout { address: SocketAddr, after: Duration },
    /// The network says no, or the connection broke before the request was sent.
    #[error("shard at {address} cannot be reached")]
    Unreachable { address: SocketAddr, source: io::Error },
    /// This node cannot.
    #[error("no connection to {address} can be opened here")]
    Local { address: SocketAddr, source: io::Error },
}

impl ConnectError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::Refused { address },
            Some(libc::ETIMEDOUT) => Self::Timeout { address, after: Duration::ZERO },
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EAGAIN,
            ) => Self::Local { address, source },
            _ => Self::Unreachable { address, source },
        }
    }

    /// The connection closed before anything was sent on it.
    pub(crate) fn closed_at_once(address: SocketAddr) -> Self {
        Self::Unreachable { address, source: io::ErrorKind::ConnectionReset.into() }
    }

    pub(crate) const fn reason(&self) -> ConnectReason {
        match self {
            Self::Refused { .. } => ConnectReason::Refused,
            Self::Timeout { .. } => ConnectReason::Timeout,
            Self::Unreachable { .. } => ConnectReason::Unreachable,
            Self::Local { .. } => ConnectReason::Local,
        }
    }

    /// Whether another attempt at the same address may help soon.
    pub(crate) const fn is_worth_retrying(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unreachable { .. })
    }
}

/// Connects, once.
pub(crate) async fn connect(
    address: SocketAddr,
    limits: &ConnectLimits,
    http: &Builder,
) -> Result<Box<Upstream>, ConnectError> {
    let stream = match timeout(limits.timeout, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(ConnectError::new(address, error)),
        Err(_) => return Err(ConnectError::Timeout { address, after: limits.timeout }),
    };
    stream.set_nodelay(true).map_err(|error| ConnectError::new(address, error))?;
    // HTTP/1.1 has no handshake: this does not wait, and cannot fail.
    match http.handshake(TokioIo::new(Socket::Plain(stream))).await {
        Ok((sender, connection)) => Ok(Box::new(Upstream { sender, state: State::Open(connection) })),
        Err(error) => Err(ConnectError::Unreachable { address, source: io::Error::other(error) }),
    }
}
