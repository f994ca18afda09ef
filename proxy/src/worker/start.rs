//! Starting the workers, and stopping them.

use super::housekeeping::{Inbox, Stop, run};
use super::releases::Releases;
use super::{COPY_BUFFER_BYTES, Settings, Worker};
use crate::absent::Absent;
use crate::access_log::{AccessLog, AccessLogError, AccessLogTarget, LogWriter};
use crate::backend::{Pool, Suspects};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::forward::{HEADERS_USUAL, Limits};
use crate::frontend::{Frontend, Security, http2_builder};
use crate::headers::Marks;
use crate::rescue::Pages;
use crate::route::Topology;
use crate::routing_key::Routing;
use crate::sessions::{COMMANDS_MAX, Command, Sessions};
use http::HeaderValue;
use hyper::{client, server};
use shardgate_discovery::{RegionName, Snapshot};
use shardgate_peering::TableHandle;
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

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
}

/// All that the data plane is told.
#[derive(Debug, Clone)]
pub struct WorkersConfig {
    /// How many workers; as many as cores.
    pub threads: NonZeroUsize,
    /// Where to listen.
    pub frontends: Vec<FrontendConfig>,
    /// Connections that the kernel keeps for one listener of one worker until it accepts them.
    pub backlog: u32,
    /// The own region: its shards are preferred, and `X-Proxy-Region` names it.
    pub region: RegionName,
    /// The own host's name, for `X-Proxy-Host`.
    pub host: String,
    /// Timeouts and sizes.
    pub limits: Limits,
    /// The lists of paths.
    pub routing: Routing,
    /// The pages of our own answers.
    pub pages: Pages,
    /// Where the access log goes.
    pub access_log: AccessLogTarget,
}

/// Why the workers did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("frontend {frontend}: cannot listen on {address}")]
    Listen {
        /// The frontend.
        frontend: String,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The host's name cannot stand in a header.
    #[error("host name {host:?} cannot be sent in a header, expected visible ASCII characters")]
    Host {
        /// The name.
        host: String,
    },
    /// A buffer is too small for HTTP.
    #[error("buffer_bytes_max is {bytes}, expected at least 8192")]
    Buffer {
        /// What was given.
        bytes: usize,
    },
    /// A worker's thread or runtime cannot be made.
    #[error("worker {worker} cannot be started")]
    Worker {
        /// Its number.
        worker: usize,
        /// What the system says.
        source: io::Error,
    },
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
}

/// The data plane.
#[derive(Debug)]
pub struct Workers;

/// The running data plane.
#[derive(Debug)]
#[must_use = "the workers stop when this is dropped"]
pub struct Running {
    addresses: Vec<SocketAddr>,
    sessions: Sessions,
    counters: Counters,
    stop: watch::Sender<Stop>,
    threads: Vec<(JoinHandle<()>, oneshot::Receiver<()>)>,
    log: LogWriter,
}

impl Workers {
    /// Binds all addresses, then starts the threads. Serves when it returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(
        config: WorkersConfig,
        table: &TableHandle,
        snapshots: &watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Running, StartError> {
        let WorkersConfig { threads, frontends, backlog, region, host, limits, routing, pages, access_log } =
            config;
        if limits.buffer_bytes_max < 8192 {
            return Err(StartError::Buffer { bytes: limits.buffer_bytes_max });
        }
        let marks = Marks::new(region.as_str(), &host).ok_or(StartError::Host { host })?;
        let (addresses, listeners) = listen(&frontends, threads.get(), backlog)?;
        let settings = Arc::new(Settings { region, marks, routing, limits, pages });
        let log = LogWriter::start(&access_log)?;
        let counters = Counters::new(threads.get());
        let (stop, stopped) = watch::channel(None);
        let mut commands = Vec::new();
        let mut running = Vec::new();
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (command, commanded) = mpsc::channel(COMMANDS_MAX);
            commands.push(command);
            let seed = Seed {
                index,
                workers: threads.get(),
                settings: Arc::clone(&settings),
                table: table.clone(),
                counters: counters.clone(),
                log: log.log(),
                listeners,
                stop: stopped.clone(),
                snapshots: snapshots.clone(),
                commands: commanded,
            };
            running.push(seed.start().map_err(|source| StartError::Worker { worker: index, source })?);
        }
        let sessions = Sessions::new(commands.into(), counters.clone());
        Ok(Running { addresses, sessions, counters, stop, threads: running, log })
    }
}

impl Running {
    /// Where the frontends listen, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The tunnels.
    #[must_use]
    pub const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The numbers.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Stops: nothing is accepted any more, idle connections close, the others after their answer. What is still open after
    /// `drain`, tunnels above all, is closed. Returns when all threads have ended.
    pub async fn shutdown(self, drain: Duration) {
        self.stop.send_replace(Some(Instant::now() + drain));
        for (thread, ended) in self.threads {
            // An error says that the thread has ended without a word, which joining tells as well.
            drop(ended.await);
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        self.log.finish().await;
    }
}

/// What a worker's thread takes with it.
struct Seed {
    index: usize,
    workers: usize,
    settings: Arc<Settings>,
    table: TableHandle,
    counters: Counters,
    log: AccessLog,
    listeners: Vec<(FrontendConfig, TcpListener)>,
    stop: watch::Receiver<Stop>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    commands: mpsc::Receiver<Command>,
}

impl Seed {
    fn start(self) -> io::Result<(JoinHandle<()>, oneshot::Receiver<()>)> {
        let (ready, readiness) = sync_channel(1);
        let (ended, ending) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("worker-{}", self.index)).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => self.run(&runtime, |result| drop(ready.send(result))),
                Err(error) => drop(ready.send(Err(error))),
            }
            let _gone: Result<(), ()> = ended.send(());
        })?;
        readiness.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended at once")))?;
        Ok((thread, ending))
    }

    fn run(self, runtime: &LocalRuntime, ready: impl FnOnce(io::Result<()>)) {
        let Self { index, workers, settings, table, counters, log, listeners, stop, mut snapshots, commands } =
            self;
        runtime.block_on(async move {
            let listeners = match registered(listeners) {
                Ok(listeners) => listeners,
                Err(error) => return ready(Err(error)),
            };
            let moves = table.moves();
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let limits = &settings.limits;
            let (client_http2, streams) = http2_builder(limits);
            let worker = Rc::new(Worker {
                client_http: client_http(limits),
                client_http2,
                streams,
                shard_http: shard_http(limits),
                pool: Pool::new(limits.pool.clone()),
                connected_max: limits.connections_max.div_ceil(workers).max(1),
                topology: RefCell::new(Rc::new(Topology::new(
                    snapshot,
                    &settings.region,
                    &settings.routing.region_order,
                ))),
                table,
                counters: counters.of_worker(index),
                clock: Clock::new(),
                sessions: RefCell::default(),
                copy_buffer: RefCell::new(vec![0; COPY_BUFFER_BYTES].into_boxed_slice()),
                suspects: RefCell::new(Suspects::default()),
                absent: RefCell::new(Absent::default()),
                watched: RefCell::default(),
                log: RefCell::new(log),
                releases: Releases::default(),
                connected: Cell::new(0),
                freed: Notify::new(),
                draining: Cell::new(false),
                nonce: Cell::new((index as u64) << 48),
                settings,
            });
            ready(Ok(()));
            run(worker, listeners, Inbox { stop, snapshots, moves, commands }).await;
        });
    }
}

fn client_http(limits: &Limits) -> server::conn::http1::Builder {
    let mut http = server::conn::http1::Builder::new();
    // Timeouts are the sweep's, the date is the shard's to set.
    http.header_read_timeout(None)
        .auto_date_header(false)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.buffer_bytes_max.max(limits.head_bytes_max));
    if limits.headers_max != HEADERS_USUAL {
        http.max_headers(limits.headers_max);
    }
    http
}

fn shard_http(limits: &Limits) -> client::conn::http1::Builder {
    let mut http = client::conn::http1::Builder::new();
    // Requests are mostly one small piece, for which send is cheaper than writev.
    http.writev(false);
    http.max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.buffer_bytes_max.max(limits.head_bytes_max));
    http
}

type Registered = Vec<(Rc<Frontend>, tokio::net::TcpListener)>;

/// Hands the listeners to the runtime of the current thread.
fn registered(listeners: Vec<(FrontendConfig, TcpListener)>) -> io::Result<Registered> {
    listeners
        .into_iter()
        .map(|(config, listener)| {
            let forwarded_proto = HeaderValue::from_static(config.forwarded_proto.as_str());
            let frontend =
                Rc::new(Frontend { name: config.name, forwarded_proto, security: config.security });
            Ok((frontend, tokio::net::TcpListener::from_std(listener)?))
        })
        .collect()
}

type Listeners = Vec<Vec<(FrontendConfig, TcpListener)>>;

/// Binds each frontend once per worker; the kernel spreads connections over them.
fn listen(
    frontends: &[FrontendConfig],
    workers: usize,
    backlog: u32,
) -> Result<(Vec<SocketAddr>, Listeners), StartError> {
    let mut addresses = Vec::new();
    let mut listeners: Listeners = (0..workers).map(|_| Vec::new()).collect();
    for frontend in frontends {
        let failed = |source| StartError::Listen {
            frontend: frontend.name.clone(),
            address: frontend.address,
            source,
        };
        // Shared ports would let a second daemon take half of the connections, without a word.
        if frontend.address.port() != 0 {
            socket(frontend.address, Sharing::Alone).map_err(failed)?;
        }
        let mut address = frontend.address;
        for worker in &mut listeners {
            let socket = socket(address, Sharing::AmongWorkers).map_err(failed)?;
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(failed)?;
            let listener = TcpListener::from(socket);
            address = listener.local_addr().map_err(failed)?;
            worker.push((frontend.clone(), listener));
        }
        addresses.push(address);
    }
    Ok((addresses, listeners))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    AmongWorkers,
}

fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if sharing == Sharing::AmongWorkers {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
