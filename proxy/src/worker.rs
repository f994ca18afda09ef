//! A worker: one thread with a runtime of its own, its listeners, its upstream pool, its tunnels, its log buffer. What it has is
//! `Rc` and `Cell`; nothing that a request touches is shared with another core, but the stick table's read view.

use crate::absent::Absent;
use crate::access_log::{AccessLog, End, From, Line, Request, Size, Timers};
use crate::backend::{Pool, Suspects};
use crate::client::{Client, Origin};
use crate::clock::{Clock, Millis};
use crate::counters::{TimeoutKind, WorkerCounters};
use crate::forward::Limits;
use crate::frontend::{Http2, Http2Builder, Streams};
use crate::headers::Marks;
use crate::rescue::{Failure, Pages};
use crate::route::{Missing, Topology};
use crate::routing_key::Routing;
use crate::sessions::Registry;
use hyper::{client, server};
use shardgate_discovery::{RegionName, Snapshot};
use shardgate_peering::{ClaimReason, Claimed, TableHandle, Unstored};
use shardgate_peering_core::{ShardName, StickKey};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

mod housekeeping;
mod releases;
mod start;

pub use crate::frontend::Security;
use releases::Releases;
pub use start::{ForwardedProto, FrontendConfig, Running, StartError, Workers, WorkersConfig};

/// The largest piece that a tunnel moves at once.
const COPY_BUFFER_BYTES: usize = 64 * 1024;
/// The table answers within its budgets; should its driver hang, requests do not hang with it.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(3);

/// What all workers have alike.
pub(crate) struct Settings {
    pub(crate) region: RegionName,
    pub(crate) marks: Marks,
    pub(crate) routing: Routing,
    pub(crate) limits: Limits,
    pub(crate) pages: Pages,
}

/// The state of one worker.
pub(crate) struct Worker {
    pub(crate) settings: Arc<Settings>,
    pub(crate) table: TableHandle,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) clock: Clock,
    pub(crate) pool: Pool,
    pub(crate) sessions: RefCell<Registry>,
    pub(crate) copy_buffer: RefCell<Box<[u8]>>,
    pub(crate) client_http: server::conn::http1::Builder,
    pub(crate) client_http2: Http2Builder,
    pub(crate) streams: Streams,
    pub(crate) shard_http: client::conn::http1::Builder,
    topology: RefCell<Rc<Topology>>,
    suspects: RefCell<Suspects>,
    absent: RefCell<Absent>,
    watched: RefCell<Slab<Watched>>,
    log: RefCell<AccessLog>,
    releases: Releases,
    connected: Cell<usize>,
    connected_max: usize,
    freed: Notify,
    draining: Cell<bool>,
    nonce: Cell<u64>,
}

impl Worker {
    pub(crate) fn topology(&self) -> Rc<Topology> {
        Rc::clone(&self.topology.borrow())
    }

    /// Why discovery does not list a shard that an entry names.
    pub(crate) fn missing(&self, shard: &ShardName) -> Missing {
        self.absent.borrow_mut().why(shard, self.clock.coarse())
    }

    fn set_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.absent.borrow_mut().changed(self.topology.borrow().snapshot(), &snapshot);
        let topology =
            Rc::new(Topology::new(snapshot, &self.settings.region, &self.settings.routing.region_order));
        self.topology.replace(topology);
    }

    pub(crate) fn lookup(&self, token: &str) -> Option<ShardName> {
        self.table.lookup(token)
    }

    pub(crate) async fn claim(&self, key: StickKey, proposal: ShardName, reason: ClaimReason) -> Claimed {
        let claimed = timeout(CLAIM_TIMEOUT, self.table.claim(key, proposal, reason)).await;
        claimed.unwrap_or(Claimed::Unstored { why: Unstored::Overload })
    }

    /// A number that differs from request to request, and from worker to worker.
    pub(crate) fn nonce(&self) -> u64 {
        self.nonce.replace(self.nonce.get().wrapping_add(1))
    }

    pub(crate) fn is_suspect(&self, shard: &ShardName) -> bool {
        self.suspects.borrow().contains(shard, self.clock.coarse())
    }

    pub(crate) fn suspect(&self, shard: &ShardName) {
        self.suspects.borrow_mut().failed(shard, self.clock.coarse());
    }

    pub(crate) fn trust(&self, shard: &ShardName) {
        self.suspects.borrow_mut().recovered(shard);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(crate) fn log(&self, line: &Line<'_>) {
        let lost = self.log.borrow_mut().write(line);
        self.counters.log_lines_lost.add(lost);
    }

    /// Counts and logs a request whose head was not read.
    pub(crate) fn refused(&self, origin: &Origin, failure: &Failure) {
        let status = failure.status().as_u16();
        self.counters.requests.up();
        self.counters.rescues.up();
        self.counters.responses[usize::from(status / 100).min(5)].up();
        if matches!(failure, Failure::Head(_)) {
            self.counters.parse_refusals.up();
        }
        self.log(&Line {
            from: From {
                client: origin.peer,
                frontend: &origin.frontend.name,
                at: self.clock.wall(self.clock.exact()),
            },
            shard: None,
            timers: Timers::default(),
            end: End { status, termination: failure.termination() },
            size: Size::Body(0),
            why: "-",
            retries: 0,
            request: Request::Bad,
        });
    }

    /// A tunnel no longer holds its entry.
    pub(crate) fn release(&self, key: StickKey, shard: ShardName) {
        self.releases.push((key, shard));
    }

    /// Waits while there are as many connections as there may be.
    pub(crate) async fn room(&self) {
        if self.connected.get() >= self.connected_max {
            self.counters.accept_pauses.up();
            tracing::warn!(connections = self.connected.get(), "connection limit reached, not accepting");
            while self.connected.get() >= self.connected_max {
                self.freed.notified().await;
            }
        }
    }

    /// Lets the sweep find what may have to be timed out.
    pub(crate) fn register(self: &Rc<Self>, watched: Watched) -> Registered {
        let id = self.watched.borrow_mut().insert(watched);
        Registered { worker: Rc::clone(self), id }
    }
}

/// What the sweep looks at.
pub(crate) enum Watched {
    /// An HTTP/1 connection, or a stream of an HTTP/2 one.
    Exchange(Rc<Client>),
    /// An HTTP/2 connection as a whole.
    Http2(Rc<Http2>),
}

impl Watched {
    /// Looks at the time; answers what was timed out.
    fn expire(&self, now: Millis, limits: &Limits) -> Option<TimeoutKind> {
        match self {
            Self::Exchange(client) => client.expire(now, limits),
            Self::Http2(connection) => connection.expire(now, limits),
        }
    }

    /// The worker drains: what is idle ends.
    fn wake(&self) {
        match self {
            Self::Exchange(client) => client.wake(),
            Self::Http2(connection) => connection.wake(),
        }
    }

    fn let_go(&self) {
        match self {
            Self::Exchange(client) => client.let_go(),
            Self::Http2(connection) => connection.let_go(),
        }
    }
}

/// A place among what the sweep looks at.
pub(crate) struct Registered {
    worker: Rc<Worker>,
    id: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        drop(self.worker.watched.borrow_mut().try_remove(self.id));
    }
}

/// A client connection's place in the count, also when it has become a tunnel.
pub(crate) struct Connected(Rc<Worker>);

impl Connected {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        worker.connected.set(worker.connected.get() + 1);
        worker.counters.connections_opened.up();
        Self(Rc::clone(worker))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let Self(worker) = self;
        let connected = worker.connected.get();
        worker.connected.set(connected - 1);
        worker.counters.connections_closed.up();
        if connected >= worker.connected_max || worker.draining.get() {
            worker.freed.notify_waiters();
        }
    }
}

/// How often timeouts are looked for: often enough for the shortest of them.
fn tick_of(limits: &Limits) -> Duration {
    let shortest = [
        limits.head_timeout,
        limits.keep_alive_timeout,
        limits.client_timeout,
        limits.server_timeout,
        limits.tunnel_timeout,
        limits.client_fin_timeout,
    ];
    let shortest = shortest.into_iter().min().unwrap_or(TICK_LONGEST);
    (shortest / 4).clamp(Duration::from_millis(10), TICK_LONGEST)
}

const TICK_LONGEST: Duration = Duration::from_millis(250);

/// What is done once a second and not at each tick.
const SECOND_MS: Millis = 1_000;
