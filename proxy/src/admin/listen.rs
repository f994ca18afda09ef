//! Where the admin listens: TCP, a unix socket of its owner's, or TCP with TLS for who has a certificate.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::info;

use super::caller::OtherEnd;
use crate::config::{AdminAddress, AdminListener, AdminTls};

/// Connections with TLS at once. Who has no certificate takes a place for the time of a handshake, and never one of a client.
const TLS_CONNECTIONS_MAX: usize = 64;
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// How often a silent client is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// The pause after a connection that could not be accepted: descriptors may be short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const BACKLOG: i32 = 128;

/// Why the admin does not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// An address cannot be listened on.
    #[error("admin.listen {address}: {source}")]
    Listen {
        /// The address.
        address: AdminAddress,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate or key cannot be read.
    #[error("admin.{field} {}: {source}", path.display())]
    File {
        /// `ca`, `cert` or `key`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Certificate and key are none, or do not fit.
    #[error("admin.listen {address}: cert, key or ca is not usable: {source}")]
    Tls {
        /// The listener.
        address: AdminAddress,
        /// What rustls says.
        source: tonic::transport::Error,
    },
}

/// Binds one listener and serves what it serves, in a task of `servers`, from when all are `bound` until `stopped`: who is told by one of
/// them that the node is ready finds the others.
pub(super) async fn serve(
    listener: &AdminListener,
    router: Router,
    grpc: Option<Routes>,
    mut bound: watch::Receiver<bool>,
    mut stopped: watch::Receiver<bool>,
    servers: &mut JoinSet<()>,
) -> Result<(), AdminError> {
    let AdminListener { listen, serve, tls } = listener;
    let address = listen.clone();
    let failed = |source| AdminError::Listen { address: listen.clone(), source };
    let bound = async move { drop(bound.wait_for(|all| *all).await) };
    let ended = async move { drop(stopped.wait_for(|stop| *stop).await) };
    let with_grpc = |grpc: Option<Routes>| {
        grpc.into_iter().fold(router, |router, grpc| router.merge(grpc.into_axum_router()))
    };
    match (listen, tls) {
        (AdminAddress::Tcp(tcp), None) => {
            let socket = TcpListener::bind(tcp).await.map_err(failed)?;
            info!(address = %socket.local_addr().map_err(failed)?, ?serve, "admin listens");
            let service = with_grpc(grpc).into_make_service_with_connect_info::<OtherEnd>();
            let serving = axum::serve(socket, service).with_graceful_shutdown(ended);
            servers.spawn(async move {
                bound.await;
                told(&address, serving.await);
            });
        }
        (AdminAddress::Tcp(tcp), Some(tls)) => {
            let config = tls_config(tls)?;
            let socket = TcpListener::bind(tcp).await.map_err(failed)?;
            info!(address = %socket.local_addr().map_err(failed)?, ?serve, "admin listens with TLS");
            let tls = |source| AdminError::Tls { address: listen.clone(), source };
            let server = Server::builder()
                .http2_keepalive_interval(Some(KEEPALIVE))
                .http2_keepalive_timeout(Some(HANDSHAKE_MAX))
                .tls_config(config)
                .map_err(tls)?
                .add_routes(grpc.unwrap_or_default());
            let serving = server.serve_with_incoming_shutdown(bounded(socket), ended);
            servers.spawn(async move {
                bound.await;
                told(&address, serving.await);
            });
        }
        (AdminAddress::Unix(path), _) => {
            let socket = unix(path).await.map_err(failed)?;
            info!(%address, ?serve, "admin listens");
            let service = with_grpc(grpc).into_make_service_with_connect_info::<OtherEnd>();
            let serving = axum::serve(socket, service).with_graceful_shutdown(ended);
            // The socket stays when the node ends: another one may have taken its place already, and the next start takes it anyway.
            servers.spawn(async move {
                bound.await;
                told(&address, serving.await);
            });
        }
    }
    Ok(())
}

/// A connection with its place among those that there may be.
struct Placed {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

/// The connections of a listener, [`TLS_CONNECTIONS_MAX`] at once; the others wait in the kernel.
fn bounded(socket: TcpListener) -> impl Stream<Item = io::Result<Placed>> {
    let places = Arc::new(Semaphore::new(TLS_CONNECTIONS_MAX));
    futures_util::stream::unfold((socket, places), async |(socket, places)| {
        // Nobody closes it.
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let stream = loop {
            match socket.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin's connection, pausing");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        Some((Ok(Placed { stream, _place: place }), (socket, places)))
    })
}

impl Connected for Placed {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn told<E: std::fmt::Display>(address: &AdminAddress, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::error!(%address, %error, "admin listener failed");
    }
}

fn tls_config(tls: &AdminTls) -> Result<ServerTlsConfig, AdminError> {
    let read = |field, path: &PathBuf| {
        std::fs::read(path).map_err(|source| AdminError::File { field, path: path.clone(), source })
    };
    let identity = Identity::from_pem(read("cert", &tls.cert)?, read("key", &tls.key)?);
    let ca = Certificate::from_pem(read("ca", &tls.ca)?);
    Ok(ServerTlsConfig::new().identity(identity).client_ca_root(ca).timeout(HANDSHAKE_MAX))
}

/// A socket that only its owner may connect to, from its first moment on: it gets its name when it is ready, and takes the place of one
/// that a node which crashed has left.
async fn unix(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
    }
    let taken = std::fs::symlink_metadata(path);
    if taken.is_ok_and(|found| !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let mut unready = path.as_os_str().to_owned();
    unready.push(format!(".{}", std::process::id()));
    let unready = PathBuf::from(unready);
    drop(std::fs::remove_file(&unready));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&unready)?)?;
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o600))?;
    // Nobody could connect before this.
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    std::fs::rename(&unready, path)?;
    UnixListener::from_std(socket.into())
}
