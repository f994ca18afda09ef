//! Connections to the node: plain, with TLS, with TLS and HTTP/2; from chosen source addresses.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The name in the node's certificate.
pub(super) const SERVER_NAME: &str = "attack.test";
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A connection, whatever it is made of.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A connection of any kind.
pub(super) type Stream = Box<dyn Duplex>;

/// Where the node is, for all who connect to it.
#[derive(Clone)]
pub(super) struct Doors {
    /// HTTP.
    pub(super) plain: SocketAddr,
    /// HTTPS, with HTTP/2.
    pub(super) https: SocketAddr,
    /// What the node's certificate is trusted by.
    pub(super) certificate: CertificateDer<'static>,
}

/// How to speak to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// HTTP/1 over TCP.
    Plain,
    /// HTTP/1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    Http2,
}

/// What the kernel keeps for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffer {
    /// As it likes.
    Usual,
    /// As little as it takes, so that whoever does not read is noticed soon.
    Least,
}

/// Connects from a few source addresses in turn.
pub(super) struct Dialer {
    doors: Doors,
    third_octet: u8,
    sources: u8,
    next: Cell<u8>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Dialer {
    /// Connects from 127.88.`third_octet`.1 up to `sources`.
    pub(super) fn new(doors: &Doors, third_octet: u8, sources: u8) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(doors.certificate.clone()).map_err(io::Error::other)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http2 = config.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        Ok(Self {
            doors: doors.clone(),
            third_octet,
            sources,
            next: Cell::new(0),
            http1: Arc::new(config),
            http2: Arc::new(http2),
            name,
        })
    }

    /// Connects and, where there is TLS, makes the handshake.
    pub(super) async fn open(&self, door: Door, buffer: Buffer) -> io::Result<Stream> {
        let config = match door {
            Door::Plain => return Ok(Box::new(self.tcp(door, buffer).await?)),
            Door::Tls => &self.http1,
            Door::Http2 => &self.http2,
        };
        let stream = self.tcp(door, buffer).await?;
        let handshake = TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), stream);
        let stream =
            timeout(CONNECT_MAX, handshake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Box::new(stream))
    }

    /// Connects only.
    pub(super) async fn tcp(&self, door: Door, buffer: Buffer) -> io::Result<TcpStream> {
        let source = self.next.get() % self.sources;
        self.next.set(source + 1);
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 88, self.third_octet, 1 + source), 0).into())?;
        if buffer == Buffer::Least {
            socket.set_recv_buffer_size(4096)?;
            // Ethernet's. Loopback's 64 kB would let every socket hold a megabyte from the beginning.
            SockRef::from(&socket).set_tcp_mss(1460)?;
        }
        let target = if door == Door::Plain { self.doors.plain } else { self.doors.https };
        let connecting = socket.connect(target);
        let stream = timeout(CONNECT_MAX, connecting)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The first thing that a client says over TLS.
    pub(super) fn client_hello(&self) -> io::Result<Vec<u8>> {
        let mut tls =
            ClientConnection::new(Arc::clone(&self.http2), self.name.clone()).map_err(io::Error::other)?;
        let mut hello = Vec::new();
        tls.write_tls(&mut hello)?;
        Ok(hello)
    }
}
