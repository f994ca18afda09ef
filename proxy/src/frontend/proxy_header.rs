//! The PROXY header at the beginning of a balancer's connection: before TLS, and before anything is answered.

use super::Frontend;
use crate::counters::ProxyRefusal;
use crate::proxy_protocol::{Addresses, Decoded, HEADER_BYTES_MAX, Header, HeaderError, decode};
use crate::trust::Peer;
use crate::worker::Worker;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What is looked at at once; a header without a certificate among its TLVs is shorter.
const LOOK_BYTES: usize = 256;

/// Whose connection it is.
pub(super) struct Sender {
    pub(super) client: SocketAddr,
    /// Where the first of the balancers took it, if it was for a client.
    pub(super) accepted_at: Option<SocketAddr>,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("connection ended before its PROXY header")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Who is at the other end of a connection of `peer`, and where that came in: whom and what its PROXY header names. `None` when it is to be
/// closed without a word: whoever sends no header, or may send none, is no balancer, and a balancer reads no page.
pub(super) async fn sender(
    worker: &Worker,
    frontend: &Frontend,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<Sender> {
    let refuse = |why: ProxyRefusal, what: &dyn std::fmt::Display| {
        worker.counters.proxy_refusals[why as usize].up();
        tracing::debug!(%peer, frontend = frontend.name, why = why.as_str(), "no PROXY header taken: {what}");
        None
    };
    let settings = worker.settings();
    if settings.trust.peer(peer.ip()) == Peer::Client {
        return refuse(ProxyRefusal::Untrusted, &"peer is none of frontend.trusted_proxies");
    }
    match timeout(settings.limits.head_timeout, read(stream)).await {
        Ok(Ok(Header { addresses, .. })) => {
            worker.counters.proxy_headers.up();
            Some(match addresses {
                Some(Addresses { source, destination }) => {
                    Sender { client: source, accepted_at: Some(destination) }
                }
                None => Sender { client: peer, accepted_at: None },
            })
        }
        Ok(Err(error @ ReadError::Header(HeaderError::NoHeader))) => refuse(ProxyRefusal::NoHeader, &error),
        Ok(Err(error @ ReadError::Header(_))) => refuse(ProxyRefusal::Invalid, &error),
        Ok(Err(error @ ReadError::Socket(_))) => refuse(ProxyRefusal::Closed, &error),
        Err(elapsed) => refuse(ProxyRefusal::Timeout, &elapsed),
    }
}

/// Reads a header and not a byte more: what follows is another layer's.
async fn read(stream: &mut TcpStream) -> Result<Header, ReadError> {
    let mut buffer = vec![0; LOOK_BYTES];
    let mut taken = 0;
    loop {
        if taken == buffer.len() {
            // A header that is not complete is shorter than the longest one.
            buffer.resize((2 * taken).min(HEADER_BYTES_MAX), 0);
        }
        let seen = taken + stream.peek(&mut buffer[taken..]).await?;
        if seen == taken {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let decoded = decode(&buffer[..seen])?;
        let until = match decoded {
            Decoded::More => seen,
            Decoded::Header(header) => header.len,
        };
        taken += stream.read_exact(&mut buffer[taken..until]).await?;
        if let Decoded::Header(header) = decoded {
            return Ok(header);
        }
    }
}
