//! Starting the workers, and stopping them.

use super::change::Order;
use super::housekeeping::{Inbox, Stop, run};
use super::listeners::{Bound, FrontendConfig, Listening, bind};
use super::releases::Releases;
use super::{COPY_BUFFER_BYTES, Protocols, Settings, Worker, connected_max};
use crate::access_log::AccessLog;
use crate::answer_headers::AnswerHeaders;
use crate::backend::{Manners, Pool, Suspects};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::forward::Limits;
use crate::frontend::Streams;
use crate::headers::Marks;
use crate::health::{HealthHandle, HealthSettings, HealthThread};
use crate::limits::{Ceilings, Gate, Lookout, Spare};
use crate::log_writer::{LogError, LogKind, LogTarget, LogWriter};
use crate::request_id::{Maker, RequestIds};
use crate::rescue::Pages;
use crate::route::Topology;
use crate::routing_key::Routing;
use crate::sessions::{COMMANDS_MAX, Command, Sessions};
use crate::trust::Trust;
use shardgate_discovery::{RegionName, Snapshot};
use shardgate_peering::{Relays, TableHandle};
use shardgate_peering_core::{ShardName, hash64};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

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
    /// What is let in at all.
    pub ceilings: Ceilings,
    /// The lists of paths.
    pub routing: Routing,
    /// How shards and servers of pools are spoken to.
    pub manners: Manners,
    /// The pages of our own answers.
    pub pages: Pages,
    /// Which proxies are believed.
    pub trust: Trust,
    /// Where the names of requests come from.
    pub request_ids: RequestIds,
    /// What every answer has.
    pub answer_headers: AnswerHeaders,
    /// How servers are watched.
    pub health: HealthSettings,
    /// Where the access log goes.
    pub access_log: LogTarget,
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
    /// The thread that checks servers cannot be made.
    #[error("the thread that checks servers cannot be started")]
    Health(#[source] io::Error),
    /// The thread that looks at the ceilings cannot be made.
    #[error("the thread that looks at the limits cannot be started")]
    Lookout(#[source] io::Error),
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] LogError),
}

/// The data plane.
#[derive(Debug)]
pub struct Workers;

/// The running data plane.
#[derive(Debug)]
#[must_use = "the workers stop when this is dropped"]
pub struct Running {
    /// Each frontend's address, as it was configured and as it is.
    pub(super) bound: Vec<(SocketAddr, SocketAddr)>,
    pub(super) changes: Vec<mpsc::Sender<Order>>,
    sessions: Sessions,
    counters: Counters,
    stop: watch::Sender<Stop>,
    threads: Vec<(JoinHandle<()>, oneshot::Receiver<()>)>,
    log: LogWriter,
    pub(super) gate: Arc<Gate>,
    pub(super) health: HealthThread,
    lookout: Lookout,
}

impl Workers {
    /// Binds all addresses, then starts the threads. Serves when it returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(
        config: WorkersConfig,
        table: &TableHandle,
        relays: &Relays,
        snapshots: &watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Running, StartError> {
        let settings = settings(&config)?;
        let WorkersConfig { threads, frontends, backlog, ceilings, access_log, host, health, .. } = config;
        let (addresses, listeners) = bind(&frontends, threads.get(), backlog, &[])?;
        let bound = frontends.iter().map(|frontend| frontend.address).zip(addresses).collect();
        let gate = Arc::new(Gate::new(ceilings));
        let log = LogWriter::start(LogKind::Access, &access_log)?;
        let counters = Counters::new(threads.get());
        let (stop, stopped) = watch::channel(None);
        // The same node checks at the same moments after each start; another one at others.
        let seed = hash64(host.as_bytes(), 0);
        let health = HealthThread::start(health, snapshots.clone(), seed).map_err(StartError::Health)?;
        let mut commands = Vec::new();
        let mut changes = Vec::new();
        let mut running = Vec::new();
        for (index, listeners) in listeners.into_iter().enumerate() {
            let (command, commanded) = mpsc::channel(COMMANDS_MAX);
            commands.push(command);
            let (change, changed) = mpsc::channel(1);
            changes.push(change);
            let seed = Seed {
                index,
                workers: threads.get(),
                settings: settings.clone(),
                gate: Arc::clone(&gate),
                table: table.clone(),
                relays: relays.clone(),
                counters: counters.clone(),
                log: AccessLog::of(&log),
                listeners,
                stop: stopped.clone(),
                snapshots: snapshots.clone(),
                health: health.handle().clone(),
                commands: commanded,
                changes: changed,
            };
            running.push(seed.start().map_err(|source| StartError::Worker { worker: index, source })?);
        }
        let lookout =
            Lookout::start(Arc::clone(&gate), health.handle().subscribe()).map_err(StartError::Lookout)?;
        let sessions = Sessions::new(commands.into(), counters.clone());
        Ok(Running { bound, changes, sessions, counters, stop, threads: running, log, gate, health, lookout })
    }
}

/// What all workers go by.
pub(super) fn settings(config: &WorkersConfig) -> Result<Settings, StartError> {
    if config.limits.buffer_bytes_max < 8192 {
        return Err(StartError::Buffer { bytes: config.limits.buffer_bytes_max });
    }
    let marks = Marks::new(config.region.as_str(), &config.host);
    Ok(Settings {
        region: config.region.clone(),
        marks: marks.ok_or_else(|| StartError::Host { host: config.host.clone() })?,
        routing: config.routing.clone(),
        limits: config.limits.clone(),
        manners: config.manners.clone(),
        pages: config.pages.clone(),
        trust: config.trust.clone(),
        request_ids: config.request_ids,
        answer_headers: config.answer_headers.clone(),
        health: config.health.clone(),
    })
}

impl Running {
    /// Where the frontends listen, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.iter().map(|(_, address)| *address).collect()
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

    /// The servers' checks.
    #[must_use]
    pub const fn health(&self) -> &HealthHandle {
        self.health.handle()
    }

    /// The servers whose agents say `ready`, each time that they say so; once, then `None`.
    pub fn take_agents_ready(&mut self) -> Option<mpsc::Receiver<ShardName>> {
        self.health.take_ready()
    }

    /// The ceilings.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
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
        self.lookout.stop();
        self.log.finish().await;
    }
}

/// What a worker's thread takes with it.
struct Seed {
    index: usize,
    workers: usize,
    settings: Settings,
    gate: Arc<Gate>,
    table: TableHandle,
    relays: Relays,
    counters: Counters,
    log: AccessLog,
    listeners: Vec<Bound>,
    stop: watch::Receiver<Stop>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    health: HealthHandle,
    commands: mpsc::Receiver<Command>,
    changes: mpsc::Receiver<Order>,
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
        let Self {
            index,
            workers,
            settings,
            gate,
            table,
            relays,
            counters,
            log,
            listeners,
            stop,
            mut snapshots,
            health,
            commands,
            changes,
        } = self;
        runtime.block_on(async move {
            let names = match Maker::new() {
                Ok(names) => names,
                Err(error) => return ready(Err(error)),
            };
            let moves = table.moves();
            let snapshot = Arc::clone(&snapshots.borrow_and_update());
            let mut healths = health.subscribe();
            let known = Arc::clone(&healths.borrow_and_update());
            let limits = &settings.limits;
            let streams = Streams::default();
            let worker = Rc::new(Worker {
                protocols: RefCell::new(Rc::new(Protocols::new(limits, &streams))),
                streams,
                pool: Pool::new(limits.pool.clone()),
                names,
                connected_max: Cell::new(connected_max(limits, workers)),
                workers,
                snapshot: RefCell::new(Arc::clone(&snapshot)),
                topology: RefCell::new(Rc::new(Topology::new(
                    snapshot,
                    known,
                    &settings.region,
                    &settings.routing.region_order,
                ))),
                table,
                relays,
                counters: counters.of_worker(index),
                clock: Clock::new(),
                spare: Spare::new(),
                gate,
                sessions: RefCell::default(),
                bosh: RefCell::default(),
                copy_buffer: RefCell::new(vec![0; COPY_BUFFER_BYTES].into_boxed_slice()),
                health,
                observer: RefCell::default(),
                suspects: RefCell::new(Suspects::default()),
                detours: RefCell::default(),
                watched: RefCell::default(),
                log: RefCell::new(log),
                releases: Releases::default(),
                connected: Cell::new(0),
                freed: Notify::new(),
                draining: Cell::new(false),
                nonce: Cell::new((index as u64) << 48),
                settings: RefCell::new(Rc::new(settings.for_worker())),
            });
            let mut listening = Listening::default();
            let opened = listeners.into_iter().try_for_each(|bound| listening.open(&worker, bound));
            let failed = opened.is_err();
            ready(opened);
            if !failed {
                let inbox = Inbox { stop, snapshots, health: healths, moves, commands, changes };
                run(worker, listening, inbox).await;
            }
        });
    }
}
