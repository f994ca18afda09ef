//! Where the admin listens: TCP, a unix socket of its owner's, or TCP with TLS for who has a certificate.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::info;

use crate::config::{AdminAddress, AdminListener, AdminTls};

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

/// Binds one listener and serves what it serves, in a task of `servers`, until `stopped`.
pub(super) async fn serve(
    listener: &AdminListener,
    router: Router,
    grpc: Option<Routes>,
    mut stopped: watch::Receiver<bool>,
    servers: &mut JoinSet<()>,
) -> Result<(), AdminError> {
    let AdminListener { listen, serve, tls } = listener;
    let address = listen.clone();
    let failed = |source| AdminError::Listen { address: listen.clone(), source };
    let ended = async move { drop(stopped.wait_for(|stop| *stop).await) };
    let with_grpc = |grpc: Option<Routes>| {
        grpc.into_iter().fold(router, |router, grpc| router.merge(grpc.into_axum_router()))
    };
    match (listen, tls) {
        (AdminAddress::Tcp(tcp), None) => {
            let socket = TcpListener::bind(tcp).await.map_err(failed)?;
            info!(address = %socket.local_addr().map_err(failed)?, ?serve, "admin listens");
            let serving = axum::serve(socket, with_grpc(grpc)).with_graceful_shutdown(ended);
            servers.spawn(async move { told(&address, serving.await) });
        }
        (AdminAddress::Tcp(tcp), Some(tls)) => {
            let config = tls_config(tls)?;
            let socket = TcpListener::bind(tcp).await.map_err(failed)?;
            info!(address = %socket.local_addr().map_err(failed)?, ?serve, "admin listens with TLS");
            let tls = |source| AdminError::Tls { address: listen.clone(), source };
            let server =
                Server::builder().tls_config(config).map_err(tls)?.add_routes(grpc.unwrap_or_default());
            let serving = server.serve_with_incoming_shutdown(TcpListenerStream::new(socket), ended);
            servers.spawn(async move { told(&address, serving.await) });
        }
        (AdminAddress::Unix(path), _) => {
            let socket = unix(path).await.map_err(failed)?;
            info!(%address, ?serve, "admin listens");
            let serving = axum::serve(socket, with_grpc(grpc)).with_graceful_shutdown(ended);
            let path = path.clone();
            servers.spawn(async move {
                told(&address, serving.await);
                // The next start takes a socket's place anyway.
                drop(tokio::fs::remove_file(path).await);
            });
        }
    }
    Ok(())
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
    Ok(ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(read("ca", &tls.ca)?)))
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
    let socket = UnixListener::bind(&unready)?;
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unready, path)?;
    Ok(socket)
}
