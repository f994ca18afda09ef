//! A client's end of a connection, plain or TLS, that never blocks once it is made.
//!
//! The TLS client offers TLS 1.3 with `TLS_AES_128_GCM_SHA256` and X25519 only, so that every subject does the same work, and checks no
//! signature: that would cost its CPU more than the handshake costs the subject.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme};

use super::net::dial;

/// The name that clients ask for, in TLS as in HTTP.
pub const HOST: &str = "meet.example.com";
/// A handshake that takes longer has failed.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// How connections are made.
#[derive(Clone)]
pub enum Transport {
    /// TCP alone.
    Plain,
    /// TLS over it.
    Tls(Arc<ClientConfig>),
}

/// What a client does about TLS sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Every handshake is a full one.
    Forgotten,
    /// A connection resumes the session of the one before it.
    Kept,
}

impl Transport {
    /// TLS with a session store of its own, offering one protocol by ALPN.
    pub fn tls(alpn: &str, sessions: Sessions) -> io::Result<Self> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![ring::kx_group::X25519],
            ..ring::default_provider()
        });
        let verifier = Arc::new(Unverified { provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?;
        let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.resumption = match sessions {
            Sessions::Forgotten => Resumption::disabled(),
            Sessions::Kept => Resumption::in_memory_sessions(1),
        };
        Ok(Self::Tls(Arc::new(config)))
    }
}

/// Takes every certificate and every signature: what is measured is the server's work.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection.
pub struct Wire {
    tcp: TcpStream,
    session: Option<Box<ClientConnection>>,
}

/// Whether more can come.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow {
    /// The server may send more.
    Open,
    /// The server has sent everything.
    Ended,
}

impl Wire {
    /// Connects and, over TLS, shakes hands before it returns.
    pub fn connect(target: SocketAddr, index: usize, transport: &Transport) -> io::Result<Self> {
        let mut stream = dial(target, index)?;
        let mut session = session(transport)?;
        if let Some(session) = &mut session {
            stream.set_read_timeout(Some(HANDSHAKE_MAX))?;
            while session.is_handshaking() {
                session.complete_io(&mut stream)?;
            }
            stream.set_read_timeout(None)?;
        }
        Self::over(stream, session)
    }

    /// A connection that has been made, with its TLS session if it has one.
    pub(super) fn over(
        stream: std::net::TcpStream,
        session: Option<Box<ClientConnection>>,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { tcp: TcpStream::from_std(stream), session })
    }

    /// Connects and sends what can be sent without an answer; `first` follows the handshake.
    pub fn begin(target: SocketAddr, index: usize, transport: &Transport, first: &[u8]) -> io::Result<Self> {
        let mut wire = Self::over(dial(target, index)?, session(transport)?)?;
        wire.send(first)?;
        Ok(wire)
    }

    /// Has `poll` tell when something comes, under `token`.
    pub fn register(&mut self, poll: &Poll, token: Token) -> io::Result<()> {
        poll.registry().register(&mut self.tcp, token, Interest::READABLE)
    }

    /// Sends all of `bytes`; an error when the kernel does not take them at once.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.session {
            None if self.tcp.write(bytes)? == bytes.len() => Ok(()),
            None => Err(ErrorKind::WouldBlock.into()),
            Some(session) => {
                session.writer().write_all(bytes)?;
                flush(session, &mut self.tcp)
            }
        }
    }

    /// Appends everything that has come; `buffer` is scratch.
    pub fn receive(&mut self, received: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<Flow> {
        match &mut self.session {
            None => receive_plain(&mut self.tcp, received, buffer),
            Some(session) => receive_tls(session, &mut self.tcp, received, buffer),
        }
    }

    /// Whether the server chose this protocol by ALPN.
    #[must_use]
    pub fn speaks(&self, protocol: &str) -> bool {
        self.session.as_ref().is_some_and(|session| session.alpn_protocol() == Some(protocol.as_bytes()))
    }

    /// How the server shook hands; none before it has, and without TLS.
    #[must_use]
    pub fn handshake(&self) -> Option<HandshakeKind> {
        self.session.as_ref().and_then(|session| session.handshake_kind())
    }
}

/// A new TLS session towards [`HOST`]; none without TLS.
pub(super) fn session(transport: &Transport) -> io::Result<Option<Box<ClientConnection>>> {
    let Transport::Tls(config) = transport else { return Ok(None) };
    let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    Ok(Some(Box::new(session)))
}

fn flush(session: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(tcp)?;
    }
    Ok(())
}

fn receive_plain(tcp: &mut TcpStream, received: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<Flow> {
    loop {
        match tcp.read(buffer) {
            Ok(0) => return Ok(Flow::Ended),
            Ok(count) => {
                received.extend_from_slice(&buffer[..count]);
                // A short read has emptied the socket; what comes later is a new event.
                if count < buffer.len() {
                    return Ok(Flow::Open);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flow::Open),
            Err(error) => return Err(error),
        }
    }
}

fn receive_tls(
    session: &mut ClientConnection,
    tcp: &mut TcpStream,
    received: &mut Vec<u8>,
    buffer: &mut [u8],
) -> io::Result<Flow> {
    let mut source = Emptied { tcp, emptied: false };
    loop {
        loop {
            match session.reader().read(buffer) {
                Ok(0) => return Ok(Flow::Ended),
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Flow::Ended),
                Err(error) => return Err(error),
            }
        }
        if source.emptied {
            return Ok(Flow::Open);
        }
        match session.read_tls(&mut source) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Flow::Open),
            Err(error) => return Err(error),
        }
        session.process_new_packets().map_err(io::Error::other)?;
        flush(session, source.tcp)?;
    }
}

/// A socket that knows when it has been emptied: saves the read that would say so.
struct Emptied<'a> {
    tcp: &'a mut TcpStream,
    emptied: bool,
}

impl Read for Emptied<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.tcp.read(buffer)?;
        self.emptied = (1..buffer.len()).contains(&count);
        Ok(count)
    }
}
