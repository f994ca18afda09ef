//! Opening a connection to a shard.

use super::manner::{Hop, Terms};
use super::{Destination, State, Upstream};
use crate::counters::ConnectReason;
use crate::proxy_protocol;
use crate::socket::Socket;
use crate::tls::Asked;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use shardgate_peering::{RelayError, Relays};
use shardgate_peering_core::{PeerId, ShardName};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long what was sent to a shard may stay unacknowledged (`TCP_USER_TIMEOUT`, HAProxy's `tcp-ut`): a host that is gone without a word is
/// noticed by whoever sends, not by the tunnel's timeout of an hour. Longer than the kernel needs to send a lost packet five times.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// How connections to shards are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectLimits {
    /// How long the shard's host has to accept, TLS's handshake included.
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
    /// It was asked, and went down before it answered; what runs on it is to end.
    #[error("shard at {address} went down")]
    Down { address: SocketAddr },
    /// It was asked, and its conference is on another one by now.
    #[error("conference has moved away from the shard at {address}")]
    Moved { address: SocketAddr },
    /// The network says no, or the connection broke before the request was sent.
    #[error("shard at {address} cannot be reached")]
    Unreachable { address: SocketAddr, source: io::Error },
    /// It is there, but TLS does not come about.
    #[error("TLS handshake with the shard at {address} failed")]
    Handshake { address: SocketAddr, source: io::Error },
    /// Its certificate is not valid in the eyes of this node, or it says by an alert that it does not take the name that it was asked
    /// for, or ours. Names come from clients: what one of them made up is no fault of the shard's.
    #[error("shard at {address} and this node do not agree on certificates")]
    Disagreed { address: SocketAddr, source: io::Error },
    /// This node cannot.
    #[error("no connection to {address} can be opened here")]
    Local { address: SocketAddr, source: io::Error },
    /// The peer that was to be gone by does not reach it, or is not reached itself.
    #[error("shard {shard} cannot be reached by way of {peer}")]
    Relay { shard: ShardName, peer: PeerId, source: RelayError },
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

    /// `asked` is whose name was asked for.
    fn of_handshake(address: SocketAddr, source: io::Error, asked: Asked) -> Self {
        use rustls::AlertDescription as Alert;
        // It does not like what this node shows.
        let of_certificates = |alert| {
            matches!(
                alert,
                Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    | Alert::CertificateRequired
            )
        };
        // As servers answer to a name that is none of theirs; Go's by an internal error, HAProxy's strict-sni by a failure.
        let of_names =
            |alert| matches!(alert, Alert::UnrecognisedName | Alert::HandshakeFailure | Alert::InternalError);
        let error = source.get_ref().and_then(|error| error.downcast_ref());
        let disagreed = match error {
            Some(rustls::Error::InvalidCertificate(_)) => true,
            Some(&rustls::Error::AlertReceived(alert)) => {
                of_certificates(alert) || (of_names(alert) && asked == Asked::ByClient)
            }
            Some(_) | None => false,
        };
        if disagreed { Self::Disagreed { address, source } } else { Self::Handshake { address, source } }
    }

    /// The connection closed before anything was sent on it.
    pub(crate) fn closed_at_once(address: SocketAddr) -> Self {
        Self::Unreachable { address, source: io::ErrorKind::ConnectionReset.into() }
    }

    pub(crate) const fn reason(&self) -> ConnectReason {
        match self {
            Self::Refused { .. } => ConnectReason::Refused,
            Self::Timeout { .. } => ConnectReason::Timeout,
            Self::Unreachable { .. } | Self::Down { .. } | Self::Moved { .. } => ConnectReason::Unreachable,
            Self::Handshake { .. } | Self::Disagreed { .. } => ConnectReason::Tls,
            Self::Local { .. } => ConnectReason::Local,
            Self::Relay { .. } => ConnectReason::Relay,
        }
    }

    /// Whether another attempt at the same address may help soon.
    pub(crate) const fn is_worth_retrying(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unreachable { .. } | Self::Handshake { .. })
    }
}

/// Connects, once.
pub(crate) async fn connect(
    destination: Destination,
    limits: &ConnectLimits,
    http: &Builder,
    relays: &Relays,
) -> Result<Box<Upstream>, ConnectError> {
    let address = destination.address;
    let socket = match (&destination.hop, &destination.terms) {
        (None, None) => timeout(limits.timeout, tcp(address)).await.map(|made| made.map(Socket::Plain)),
        (hop, terms) => {
            let made = async {
                let socket = match hop {
                    None => Socket::Plain(tcp(address).await?),
                    Some(hop) => relayed(relays, hop, limits.timeout).await?,
                };
                match terms {
                    None => Ok(socket),
                    Some(terms) => on_terms(socket, address, terms).await,
                }
            };
            // Boxed: shards in a network of their own have no terms, and this node reaches them.
            timeout(limits.timeout, Box::pin(made)).await
        }
    };
    let socket = socket.map_err(|_| match &destination.hop {
        None => ConnectError::Timeout { address, after: limits.timeout },
        Some(hop) => {
            let (shard, peer) = (hop.shard.clone(), hop.peer.clone());
            ConnectError::Relay { shard, peer, source: RelayError::NoAnswer }
        }
    })??;
    // HTTP/1.1 has no handshake: this does not wait, and cannot fail.
    match http.handshake(TokioIo::new(socket)).await {
        Ok((sender, connection)) => {
            Ok(Box::new(Upstream { sender, state: State::Open(connection), destination }))
        }
        Err(error) => Err(ConnectError::Unreachable { address, source: io::Error::other(error) }),
    }
}

/// A connection without a bound in time.
pub(crate) async fn tcp(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let failed = |error| ConnectError::new(address, error);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)).map_err(failed)?;
    Ok(stream)
}

async fn relayed(
    relays: &Relays,
    Hop { peer, shard }: &Hop,
    within: Duration,
) -> Result<Socket, ConnectError> {
    match relays.open(peer, shard, within).await {
        Ok(stream) => Ok(Socket::Relayed(Box::new(stream))),
        Err(source) => Err(ConnectError::Relay { shard: shard.clone(), peer: peer.clone(), source }),
    }
}

/// The PROXY header goes first, in the clear, and then TLS, as HAProxy does it.
async fn on_terms(mut socket: Socket, address: SocketAddr, terms: &Terms) -> Result<Socket, ConnectError> {
    if let Some(addresses) = &terms.proxied {
        let header = proxy_protocol::encode(addresses.as_ref());
        socket.write_all(&header).await.map_err(|error| ConnectError::new(address, error))?;
    }
    let (Some(tls), Some(name)) = (&terms.manner.tls, &terms.name) else { return Ok(socket) };
    let (connector, name, asked) = (TlsConnector::from(tls.config()), name.clone(), tls.asked(name));
    let failed = |error| ConnectError::of_handshake(address, error, asked);
    Ok(match socket {
        Socket::Plain(stream) => {
            Socket::Tls(Box::new(connector.connect(name, stream).await.map_err(failed)?.into()))
        }
        Socket::Relayed(stream) => {
            Socket::RelayedTls(Box::new(connector.connect(name, *stream).await.map_err(failed)?.into()))
        }
        socket @ (Socket::Tls(_) | Socket::RelayedTls(_)) => socket,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_fault_of_the_shards_is_a_disagreement() {
        use rustls::AlertDescription as Alert;
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let disagrees = |error: rustls::Error, asked| {
            let made = ConnectError::of_handshake(address, io::Error::other(error), asked);
            matches!(made, ConnectError::Disagreed { .. })
        };
        for (alert, by_client, by_us) in [
            (Alert::UnknownCA, true, true),
            (Alert::CertificateRequired, true, true),
            (Alert::UnrecognisedName, true, false),
            (Alert::HandshakeFailure, true, false),
            (Alert::InternalError, true, false),
            (Alert::ProtocolVersion, false, false),
            (Alert::DecodeError, false, false),
        ] {
            let error = || rustls::Error::AlertReceived(alert);
            assert_eq!(disagrees(error(), Asked::ByClient), by_client, "{alert:?}");
            assert_eq!(disagrees(error(), Asked::ByUs), by_us, "{alert:?}");
        }
        assert!(disagrees(rustls::CertificateError::Expired.into(), Asked::ByUs));
        assert!(!disagrees(rustls::Error::DecryptError, Asked::ByClient));
    }
}
