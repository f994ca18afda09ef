//! Client connections: accepted, with TLS if their listener has it, and served as HTTP/1 or HTTP/2.

use crate::client::Origin;
use crate::config::AcceptProxy;
use crate::limits::{Admitted, Seats, admit_connection};
use crate::redirect::ToHttps;
use crate::socket::Socket;
use crate::tls::{Alpn, ServerTls};
use crate::trust::Peer;
use crate::worker::{Connected, ForwardedProto, Worker};
use shardgate_peering::Readiness;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

mod accept;
mod frame_budget;
mod http1;
mod http2;
mod proxy_header;
mod translate;

use accept::Accepted;
pub(crate) use http2::{Http2, Http2Builder, OpenStream, Streams, http2_builder};

/// An address that clients connect to, as its connections see it.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) name: String,
    pub(crate) forwarded_proto: ForwardedProto,
    pub(crate) security: Security,
    /// `None` where only the process' bound counts.
    pub(crate) seats: Option<Arc<Seats>>,
    pub(crate) to_https: Option<ToHttps>,
    pub(crate) accept_proxy: AcceptProxy,
}

/// A listening socket's place: what it serves as may change while it stays open.
#[derive(Debug)]
pub(crate) struct Slot {
    frontend: RefCell<Rc<Frontend>>,
    closing: Notify,
}

impl Slot {
    pub(crate) fn new(frontend: Frontend) -> Self {
        Self { frontend: RefCell::new(Rc::new(frontend)), closing: Notify::new() }
    }

    /// What the next connection is served as.
    pub(crate) fn frontend(&self) -> Rc<Frontend> {
        Rc::clone(&self.frontend.borrow())
    }

    /// From the next connection on.
    pub(crate) fn change(&self, frontend: Frontend) {
        self.frontend.replace(Rc::new(frontend));
    }

    /// What the kernel has queued is still accepted, then its socket closes.
    pub(crate) fn close(&self) {
        // Kept until it is looked for: there is one who does.
        self.closing.notify_one();
    }
}

/// What clients speak before HTTP.
#[derive(Debug, Clone)]
pub enum Security {
    /// Nothing.
    Plain,
    /// TLS, with these protocols to choose from.
    Tls(ServerTls, Alpn),
}

/// How long connections wait in the kernel's queue for a node that is not ready: it knows too little to decide well. After that
/// serving badly is better than not serving.
const READY_WAIT: Duration = Duration::from_secs(10);

/// Accepts connections until the slot closes, or the worker drains and drops the future. Begins when the node is ready.
pub(crate) async fn accept(worker: Rc<Worker>, slot: Rc<Slot>, listener: TcpListener) {
    tokio::select! {
        () = accept_all(&worker, &slot, &listener) => {}
        () = slot.closing.notified() => {}
    }
    match listener.into_std() {
        // They would be reset with the socket.
        Ok(listener) => {
            while let Some(accepted) = accept::queued(&worker, &slot, &listener) {
                begin(&worker, &slot, accepted);
            }
        }
        Err(error) => tracing::warn!(%error, "a closed listener's last connections are lost"),
    }
}

async fn accept_all(worker: &Rc<Worker>, slot: &Slot, listener: &TcpListener) {
    let mut readiness = worker.table.watch_readiness();
    let ready = readiness.wait_for(|readiness| matches!(readiness, Readiness::Ready { .. }));
    if timeout(READY_WAIT, ready).await.is_err() {
        tracing::warn!(frontend = slot.frontend().name, "serving before the mesh is ready");
    }
    loop {
        begin(worker, slot, accept::next(worker, slot, listener).await);
    }
}

/// Serves a connection, if its client may have one.
fn begin(worker: &Rc<Worker>, slot: &Slot, Accepted { stream, peer, seat }: Accepted) {
    let frontend = slot.frontend();
    if let Some(admitted) = admit(worker, peer) {
        let connected = Connected::new(worker, seat, admitted);
        let serving = serve(Rc::clone(worker), frontend, stream, peer, connected);
        drop(tokio::task::spawn_local(serving));
    }
}

/// Counts a connection of `client`, see [`admit_connection`]. Those of trusted proxies are others', and not limited as one client's.
fn admit(worker: &Worker, client: SocketAddr) -> Option<Admitted> {
    match worker.settings().trust.peer(client.ip()) {
        Peer::Proxy => Some(Admitted::uncounted()),
        Peer::Client => admit_connection(worker, client.ip()),
    }
}

/// What the ALPN extension calls HTTP/2 over TLS (RFC 9113, 3.2).
const HTTP2: &[u8] = b"h2";

async fn serve(
    worker: Rc<Worker>,
    frontend: Rc<Frontend>,
    mut stream: TcpStream,
    peer: SocketAddr,
    mut connected: Connected,
) {
    let (peer, told) = match frontend.accept_proxy {
        AcceptProxy::Off => (peer, None),
        AcceptProxy::Required => {
            let sender = Box::pin(proxy_header::sender(&worker, &frontend, &mut stream, peer)).await;
            let Some(sender) = sender else { return };
            let Some(admitted) = admit(&worker, sender.client) else { return };
            connected.admit(admitted);
            (sender.client, sender.accepted_at)
        }
    };
    let settings = worker.settings();
    // Also where no server wants to know it: a changed configuration may.
    let accepted_at = told.or_else(|| stream.local_addr().ok());
    let origin = Rc::new(Origin::new(peer, frontend, &settings.trust).accepted_at(accepted_at));
    drop(settings);
    // Boxed: only the connection's beginning needs it.
    match Box::pin(secured(&worker, &origin, stream)).await {
        Ok(Secured { socket, http: Http::One }) => http1::serve(worker, origin, socket, connected).await,
        Ok(Secured { socket, http: Http::Two }) => {
            Box::pin(http2::serve(worker, origin, socket, connected)).await;
        }
        Err(error) => {
            worker.counters.handshakes_failed.up();
            tracing::debug!(%error, client = %origin.peer, "TLS handshake failed");
        }
    }
}

struct Secured {
    socket: Socket,
    http: Http,
}

enum Http {
    One,
    Two,
}

/// Makes the TLS handshake, where the listener has one.
async fn secured(worker: &Worker, origin: &Origin, stream: TcpStream) -> io::Result<Secured> {
    let Security::Tls(tls, alpn) = &origin.frontend.security else {
        return Ok(Secured { socket: Socket::Plain(stream), http: Http::One });
    };
    let handshake = TlsAcceptor::from(tls.config(*alpn)).accept(stream);
    let stream = timeout(worker.settings().limits.head_timeout, handshake)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    worker.counters.handshakes.up();
    let http = if stream.get_ref().1.alpn_protocol() == Some(HTTP2) { Http::Two } else { Http::One };
    Ok(Secured { socket: Socket::Tls(Box::new(stream.into())), http })
}
