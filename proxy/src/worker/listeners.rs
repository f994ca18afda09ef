//! Where a worker listens: bound by whoever starts or changes the workers, accepted from by the worker.

use super::{StartError, Worker};
use crate::config::AcceptProxy;
use crate::frontend::{Frontend, Security, Slot, accept};
use crate::limits::Gate;
use crate::redirect::ToHttps;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use tokio::task::{JoinHandle, spawn_local};

/// What shards are told in `X-Forwarded-Proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedProto {
    /// Clients speak plain HTTP.
    Http,
    /// They speak TLS, to this node or to whatever stands before it, as behind Jitsi's cloud balancer.
    Https,
}

impl ForwardedProto {
    /// The words for it.
    pub const WORDS: &[(&str, Self)] = &[("http", Self::Http), ("https", Self::Https)];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// An address that clients connect to.
#[derive(Debug, Clone)]
pub struct FrontendConfig {
    /// Its name, for the log.
    pub name: String,
    /// Where to listen; with port 0 the system chooses one.
    pub address: SocketAddr,
    /// What shards are told.
    pub forwarded_proto: ForwardedProto,
    /// What clients speak before HTTP.
    pub security: Security,
    /// Connections open at once, over all workers and all addresses of that name; `None` where only the process' bound counts.
    pub connections_max: Option<NonZeroUsize>,
    /// Whether its clients are sent on to where the same is over TLS.
    pub to_https: Option<ToHttps>,
    /// Whether connections begin with a PROXY header.
    pub accept_proxy: AcceptProxy,
}

impl FrontendConfig {
    fn frontend(&self, gate: &Gate) -> Frontend {
        Frontend {
            name: self.name.clone(),
            forwarded_proto: self.forwarded_proto,
            security: self.security.clone(),
            seats: gate.seats(&self.name, self.connections_max),
            to_https: self.to_https,
            accept_proxy: self.accept_proxy,
        }
    }
}

/// A worker's open listeners.
#[derive(Default)]
pub(super) struct Listening(Vec<Open>);

struct Open {
    /// As it was configured.
    address: SocketAddr,
    slot: Rc<Slot>,
    accepting: JoinHandle<()>,
}

impl Listening {
    /// Accepts from `bound`. Must be called on the worker's runtime.
    ///
    /// # Errors
    /// When the runtime does not take the socket.
    pub(super) fn open(&mut self, worker: &Rc<Worker>, bound: Bound) -> io::Result<()> {
        let Bound { config, listener } = bound;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let slot = Rc::new(Slot::new(config.frontend(&worker.gate)));
        let accepting = spawn_local(accept(Rc::clone(worker), Rc::clone(&slot), listener));
        self.0.push(Open { address: config.address, slot, accepting });
        Ok(())
    }

    /// Closes what is no longer among `frontends`, and serves the others as these say. Connections stay, also those that nobody has
    /// accepted yet. Returns when the sockets are closed.
    pub(super) async fn change(&mut self, worker: &Worker, frontends: &[FrontendConfig]) {
        let mut closing = Vec::new();
        for open in std::mem::take(&mut self.0) {
            match frontends.iter().find(|config| config.address == open.address) {
                Some(config) => {
                    open.slot.change(config.frontend(&worker.gate));
                    self.0.push(open);
                }
                None => {
                    open.slot.close();
                    closing.push(open.accepting);
                }
            }
        }
        for accepting in closing {
            // One that has panicked has no socket either.
            drop(accepting.await);
        }
    }

    /// Accepts nothing any more.
    pub(super) fn close(&mut self) {
        for open in self.0.drain(..) {
            open.accepting.abort();
        }
    }
}

/// One frontend's socket in one worker.
#[derive(Debug)]
pub(super) struct Bound {
    config: FrontendConfig,
    listener: TcpListener,
}

/// Binds each frontend once per worker; the kernel spreads connections over them. Answers where, and for each worker its sockets. Beside
/// what this process has `open`, as when a listener moves from `0.0.0.0` to `[::]`.
pub(super) fn bind(
    frontends: &[FrontendConfig],
    workers: usize,
    backlog: u32,
    open: &[SocketAddr],
) -> Result<(Vec<SocketAddr>, Vec<Vec<Bound>>), StartError> {
    let mut addresses = Vec::new();
    let mut listeners: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    for frontend in frontends {
        let failed = |source| StartError::Listen {
            frontend: frontend.name.clone(),
            address: frontend.address,
            source,
        };
        // Shared ports would let a second daemon take half of the connections, without a word.
        if frontend.address.port() != 0 && !open.iter().any(|open| overlap(*open, frontend.address)) {
            socket(frontend.address, Sharing::Alone).map_err(failed)?;
        }
        let mut address = frontend.address;
        for worker in &mut listeners {
            let socket = socket(address, Sharing::AmongWorkers).map_err(failed)?;
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(failed)?;
            let listener = TcpListener::from(socket);
            address = listener.local_addr().map_err(failed)?;
            worker.push(Bound { config: frontend.clone(), listener });
        }
        addresses.push(address);
    }
    Ok((addresses, listeners))
}

/// Whether two addresses cannot be bound side by side by strangers.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = |address: SocketAddr| address.ip().is_unspecified();
    a.port() == b.port() && (any(a) || any(b) || a.ip().to_canonical() == b.ip().to_canonical())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    AmongWorkers,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 as well, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    if sharing == Sharing::AmongWorkers {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
