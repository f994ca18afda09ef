//! A worker: one thread with a runtime of its own, its listeners, its upstream pool, its tunnels, its log buffer. What it has is
//! `Rc` and `Cell`; nothing that a request touches is shared with another core, but the stick table's read view.

use crate::access_log::{AccessLog, End, From, Line, Request, Size, Timers};
use crate::answer_headers::AnswerHeaders;
use crate::backend::{Manners, Pool, Suspects};
use crate::client::{Client, Origin};
use crate::clock::{Clock, Millis, to_millis};
use crate::counters::{TimeoutKind, TunnelEnd, WorkerCounters};
use crate::forward::{Detours, HEADERS_USUAL, Limits};
use crate::frontend::{Http2, Http2Builder, Streams, http2_builder};
use crate::head_guard::{HeadRules, HostRule};
use crate::headers::Marks;
use crate::health::{CutTold, Health, HealthHandle, HealthSettings, Observed, Observer, Sessions};
use crate::limits::{Admitted, Gate, Seat, Spare};
use crate::record::Record;
use crate::request_id::{Maker, RequestIds};
use crate::rescue::{Failure, Pages};
use crate::route::Topology;
use crate::routing_key::{Compat, Routing};
use crate::sessions::{Bosh, BoshId, HoldChange, HoldsEntry, Registry};
use crate::trust::Trust;
use hyper::{client, server};
use shardgate_discovery::{RegionName, Snapshot};
use shardgate_peering::{ClaimReason, Claimed, Moved, Relays, TableHandle, Unstored};
use shardgate_peering_core::{PeerId, ShardName, StickKey};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

mod change;
mod housekeeping;
mod listeners;
mod releases;
mod start;

pub use crate::frontend::Security;
pub use change::Change;
pub use listeners::{ForwardedProto, FrontendConfig};
use releases::Releases;
pub use start::{Running, StartError, Workers, WorkersConfig};

/// The largest piece that a tunnel moves at once.
const COPY_BUFFER_BYTES: usize = 64 * 1024;
/// The table answers within its budgets; should its driver hang, requests do not hang with it.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(3);
/// The same for a claim before which a shard is probed: two homes have 2.6 s each at most, and a round of this node's own takes half a second.
const DOWN_TIMEOUT: Duration = Duration::from_secs(7);

/// What the configuration says to all workers alike. A request sees one of these from start to end.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) region: RegionName,
    pub(crate) marks: Marks,
    pub(crate) routing: Routing,
    pub(crate) limits: Limits,
    pub(crate) manners: Manners,
    pub(crate) pages: Pages,
    pub(crate) trust: Trust,
    pub(crate) request_ids: RequestIds,
    pub(crate) answer_headers: AnswerHeaders,
    pub(crate) health: HealthSettings,
}

impl Settings {
    /// What clients' heads have to keep to.
    pub(crate) fn head_rules(&self) -> HeadRules {
        let hosts = match self.routing.compat {
            Compat::None => HostRule::Strict,
            Compat::Haproxy => HostRule::AsHaproxy,
        };
        let Limits { head_bytes_max, headers_max, .. } = self.limits;
        HeadRules { head_bytes_max, headers_max, hosts }
    }

    /// The same for one worker, which shares nothing with the others.
    fn for_worker(self) -> Self {
        Self { manners: self.manners.for_worker(), ..self }
    }
}

/// hyper's sides, as the settings want them.
pub(crate) struct Protocols {
    pub(crate) client_http: server::conn::http1::Builder,
    pub(crate) client_http2: Http2Builder,
    pub(crate) shard_http: client::conn::http1::Builder,
}

/// The state of one worker.
pub(crate) struct Worker {
    settings: RefCell<Rc<Settings>>,
    protocols: RefCell<Rc<Protocols>>,
    pub(crate) table: TableHandle,
    pub(crate) relays: Relays,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) clock: Clock,
    pub(crate) spare: Spare,
    /// The process'.
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: Pool,
    pub(crate) names: Maker,
    pub(crate) sessions: RefCell<Registry>,
    bosh: RefCell<Bosh>,
    pub(crate) copy_buffer: RefCell<Box<[u8]>>,
    pub(crate) streams: Streams,
    /// As discovery published it; the topology has it under what health says.
    snapshot: RefCell<Arc<Snapshot>>,
    topology: RefCell<Rc<Topology>>,
    health: HealthHandle,
    observer: RefCell<Observer>,
    suspects: RefCell<Suspects>,
    detours: RefCell<Detours>,
    watched: RefCell<Slab<Watched>>,
    log: RefCell<AccessLog>,
    releases: Releases,
    connected: Cell<usize>,
    connected_max: Cell<usize>,
    workers: usize,
    freed: Notify,
    draining: Cell<bool>,
    nonce: Cell<u64>,
}

impl Worker {
    pub(crate) fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    pub(crate) fn protocols(&self) -> Rc<Protocols> {
        Rc::clone(&self.protocols.borrow())
    }

    /// The configuration has changed: what begins from now on goes by `settings`.
    fn set_settings(&self, settings: Settings) {
        self.protocols.replace(Rc::new(Protocols::new(&settings.limits, &self.streams)));
        self.pool.set_limits(settings.limits.pool.clone());
        self.connected_max.set(connected_max(&settings.limits, self.workers));
        self.settings.replace(Rc::new(settings.for_worker()));
        let health = Arc::clone(self.topology.borrow().health());
        self.arrange(health);
        self.freed.notify_waiters();
    }

    pub(crate) fn topology(&self) -> Rc<Topology> {
        Rc::clone(&self.topology.borrow())
    }

    /// The peer by which a shard is reached, where this node is known not to reach it, for who may ask no home.
    pub(crate) fn detour(&self, shard: &ShardName) -> Option<PeerId> {
        self.detours.borrow().known(shard).cloned()
    }

    /// The same, unless its home is to be asked again.
    pub(crate) fn fresh_detour(&self, shard: &ShardName) -> Option<PeerId> {
        self.detours.borrow().by(shard, self.clock.coarse()).cloned()
    }

    /// The peer to go by; `nearest` where nothing is known of any, and `None` where all that are known have failed.
    pub(crate) fn detour_or(&self, shard: &ShardName, nearest: PeerId) -> Option<PeerId> {
        let detours = self.detours.borrow();
        if detours.knows(shard) { detours.by(shard, self.clock.coarse()).cloned() } else { Some(nearest) }
    }

    /// This node does not reach a shard, but these peers do: they are gone by until the way is back, which the health thread finds out.
    pub(crate) fn goes_by(&self, shard: &ShardName, peers: Vec<PeerId>) {
        if self.health.cut(shard.clone()) == CutTold::Yes {
            self.detours.borrow_mut().found(shard, peers, self.clock.coarse());
        }
    }

    /// Lets go of detours whose ways are back.
    fn sweep_detours(&self) {
        let topology = self.topology();
        let cut = |shard: &ShardName| {
            topology.health().is_down(shard) || topology.snapshot().shard(shard.as_str()).is_none()
        };
        self.detours.borrow_mut().sweep(self.clock.coarse(), cut);
    }

    /// A request to a shard got no answer; if it went by a peer, its home is asked again.
    pub(crate) fn detour_doubted(&self, shard: &ShardName) {
        self.detours.borrow_mut().doubt(shard);
    }

    /// A peer did not reach a shard after all.
    pub(crate) fn detour_failed(&self, shard: &ShardName, peer: &PeerId) {
        self.detours.borrow_mut().failed(shard, peer, self.clock.coarse());
    }

    fn set_snapshot(&self, snapshot: Arc<Snapshot>) {
        // What comes to be listed is tried directly.
        let before = self.snapshot.replace(Arc::clone(&snapshot));
        let listed = |shard: &ShardName| snapshot.shard(shard.as_str()).is_some();
        self.detours.borrow_mut().retain(|shard| before.shard(shard.as_str()).is_some() || !listed(shard));
        self.observer.borrow_mut().keep(|| self.settings().health.watched(&snapshot));
        let health = Arc::clone(self.topology.borrow().health());
        self.arrange(health);
    }

    /// Servers went up or down, or have another say.
    fn set_health(&self, health: Arc<Health>) {
        let before = Arc::clone(self.topology.borrow().health());
        for server in health.newly_ended(&before) {
            let ended = self.sessions.borrow_mut().end_of_shard(server, TunnelEnd::ShardDown);
            for (_, watched) in self.watched.borrow().iter() {
                if let Watched::Exchange(client) = watched {
                    client.went_down(server);
                }
            }
            tracing::debug!(shard = %server, tunnels = ended, "its sessions end");
        }
        // Who was found well by a check need not prove it once more.
        let came_up = |server: &ShardName| before.is_down(server) && !health.is_down(server);
        self.suspects.borrow_mut().retain(|server| !came_up(server));
        self.detours.borrow_mut().retain(|server| !came_up(server));
        self.arrange(health);
    }

    /// Whether a server went down since `before`, and what runs on it is to end.
    pub(crate) fn has_ended(&self, server: &ShardName, before: &Rc<Topology>) -> bool {
        let now = self.topology.borrow();
        let sessions = |topology: &Topology| topology.health().of(server).sessions;
        !Rc::ptr_eq(&now, before) && sessions(before) == Sessions::Kept && sessions(&now) == Sessions::Ended
    }

    fn arrange(&self, health: Arc<Health>) {
        let (settings, snapshot) = (self.settings(), Arc::clone(&self.snapshot.borrow()));
        let topology = Topology::new(snapshot, health, &settings.region, &settings.routing.region_order);
        self.topology.replace(Rc::new(topology));
    }

    /// Notes what a request met at a server of `pool`, or at a shard.
    pub(crate) fn observed(
        &self,
        settings: &Settings,
        pool: Option<usize>,
        server: &ShardName,
        what: Observed,
    ) {
        let config = settings.health.config(pool);
        if self.observer.borrow_mut().note(server, what, config) {
            self.health.observed(server.clone());
        }
    }

    pub(crate) fn lookup(&self, token: &str) -> Option<ShardName> {
        self.table.lookup(token)
    }

    pub(crate) async fn claim(&self, key: StickKey, proposal: ShardName, reason: ClaimReason) -> Claimed {
        let most = if matches!(reason, ClaimReason::Down { .. }) { DOWN_TIMEOUT } else { CLAIM_TIMEOUT };
        let claimed = timeout(most, self.table.claim(key, proposal, reason)).await;
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
            via: None,
            timers: Timers::default(),
            end: End { status, termination: failure.termination() },
            size: Size::Body(0),
            why: "-",
            retries: 0,
            request: Request::Bad,
            id: None,
        });
    }

    /// A tunnel no longer holds its entry.
    pub(crate) fn release(&self, key: StickKey, shard: ShardName) {
        self.releases.push(HoldChange::Released(key, shard));
    }

    /// A request over BOSH is about to be sent to `shard`, for the first time or because another one did not take it.
    pub(crate) fn poll_begins(&self, record: &mut Record, token: &str, shard: &ShardName, holds: HoldsEntry) {
        let table = self.releases.state();
        match record.bosh {
            Some(id) => self.change_bosh(|bosh| bosh.goes_to(id, shard, holds, table)),
            None => {
                let connection = &record.client.origin.bosh;
                record.bosh = self.change_bosh(|bosh| bosh.asks(connection, token, shard, holds, table));
                if record.bosh.is_none() {
                    self.counters.bosh_uncounted.up();
                }
                record.client.polls(record.bosh);
            }
        }
    }

    /// The shard of a BOSH session of that key: whoever polls stays there while it is not decided where the conference is.
    pub(crate) fn stays_on(&self, client: &Client, token: &str) -> Option<ShardName> {
        let on = self.table.disputed_on(token)?;
        // By a new connection it may have come to another worker than the one that knows its session.
        Some(self.bosh.borrow().shard_of(&client.origin.bosh, token).cloned().unwrap_or(on))
    }

    /// Conferences are on other shards than before: tunnels to those end, and requests over BOSH that they hold are sent once more, to where
    /// nobody knows their sessions: so clients start anew at once.
    fn moved(&self, moves: &[Moved]) {
        let (mut sessions, table) = (self.sessions.borrow_mut(), self.releases.state());
        let mut polls = Vec::new();
        for Moved { key, to } in moves {
            sessions.moved(key, to);
            polls.extend(self.change_bosh(|bosh| bosh.moved(key, to, table)));
        }
        if polls.is_empty() {
            return;
        }
        polls.sort_unstable();
        for (_, watched) in self.watched.borrow().iter() {
            if let Watched::Exchange(client) = watched {
                client.moved(&polls);
            }
        }
    }

    /// It has ended, with a shard's answer or because its client gave up.
    pub(crate) fn poll_ends(&self, id: BoshId) {
        self.bosh.borrow_mut().over(id, self.clock.coarse());
    }

    /// It was answered by this node.
    pub(crate) fn poll_fails(&self, id: BoshId) {
        self.change_bosh(|bosh| bosh.failed(id));
    }

    /// Ends and counts BOSH sessions, every second.
    fn sweep_bosh(&self, now: Millis) {
        let pause = to_millis(self.settings.borrow().limits.bosh_pause);
        let table = self.releases.state();
        self.change_bosh(|bosh| bosh.sweep(now, pause, table));
    }

    /// Changes BOSH sessions; the table will hear of it.
    fn change_bosh<T>(&self, change: impl FnOnce(&mut Bosh) -> T) -> T {
        let mut bosh = self.bosh.borrow_mut();
        let result = change(&mut bosh);
        bosh.changes().for_each(|change| self.releases.push(change));
        self.counters.bosh_sessions.set(bosh.len() as u64);
        result
    }

    /// Waits while there are as many connections as there may be.
    pub(crate) async fn room(&self) {
        if self.connected.get() >= self.connected_max.get() {
            self.counters.accept_pauses.up();
            tracing::warn!(connections = self.connected.get(), "connection limit reached, not accepting");
            while self.connected.get() >= self.connected_max.get() {
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

/// A client connection's place in all counts, also when it has become a tunnel.
pub(crate) struct Connected {
    worker: Rc<Worker>,
    _seat: Option<Seat>,
    admitted: Admitted,
}

impl Connected {
    pub(crate) fn new(worker: &Rc<Worker>, seat: Option<Seat>, admitted: Admitted) -> Self {
        worker.connected.set(worker.connected.get() + 1);
        worker.counters.connections_opened.up();
        Self { worker: Rc::clone(worker), _seat: seat, admitted }
    }

    /// It is known now whose connection it is.
    pub(crate) fn admit(&mut self, admitted: Admitted) {
        self.admitted = admitted;
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let worker = &self.worker;
        let connected = worker.connected.get();
        worker.connected.set(connected - 1);
        worker.counters.connections_closed.up();
        if connected >= worker.connected_max.get() || worker.draining.get() {
            worker.freed.notify_waiters();
        }
    }
}

impl Protocols {
    fn new(limits: &Limits, streams: &Streams) -> Self {
        Self {
            client_http: client_http(limits),
            client_http2: http2_builder(limits, streams),
            shard_http: shard_http(limits),
        }
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

/// A worker's part of the connections that the process may have.
fn connected_max(limits: &Limits, workers: usize) -> usize {
    limits.connections_max.div_ceil(workers).max(1)
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
