//! The mesh as one owned thing: endpoint, listening, dialling, which connection to a peer is kept, and the driver.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use quinn::{Connection, Endpoint, EndpointConfig, Incoming, TokioRuntime, VarInt};
use shardgate_peering_core::{Config, ConfigError, Node, PeerId, Readiness};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::connection::{HANDSHAKE_MAX, Link, STREAMS_MAX, close, end_of};
use crate::counters::{Counters, LinkEnd};
use crate::dial::Dialer;
use crate::divergence::Divergences;
use crate::driver::{Driver, LinkEvent};
use crate::handle::{ProbeAsk, TableHandle};
use crate::history::History;
use crate::outbox::Outbox;
use crate::relay::{self, Acceptor, RELAYED_WAITING_MAX, Relayed, Relays, Taker, Way, Ways};
use crate::tls::{Environment, Identity, IdentityError, IdentityFiles, Named, named};
use crate::view::View;

/// Requests and events that may wait for the driver; at the bound who asks waits (claims, sessions, connections) or is dropped (touches).
const REQUESTS_MAX: usize = 16_384;
const EVENTS_MAX: usize = 4_096;
/// Moves that a slow listener may be behind.
const MOVES_MAX: usize = 16_384;
/// Probes that wait to be begun; beyond it a shard is taken for not reached from here.
const PROBES_WAITING_MAX: usize = 4_096;
/// Handshakes of others under way at once; more are refused.
const HANDSHAKES_MAX: usize = 128;
/// Beyond so many an address has to prove that it can be reached (RFC 9000 section 8.1): spoofed packets hold no handshake.
const HANDSHAKES_UNPROVEN_MAX: usize = 16;
/// Bytes that a peer may send before the driver has taken them, over all streams but relayed ones.
const LANES_WINDOW: u32 = 8 << 20;

/// Where a peer is reached. Each node may be told another address for the same peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who.
    pub id: PeerId,
    /// Its QUIC address.
    pub address: SocketAddr,
}

/// What the network side of a mesh needs.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// UDP address to listen on and to dial from.
    pub listen: SocketAddr,
    /// CA, certificate and key.
    pub identity: IdentityFiles,
    /// The environment that certificates must name.
    pub environment: Environment,
    /// A connection on which nothing arrives for so long is dead.
    pub idle_timeout: Duration,
    /// Relayed streams that either side may have open on one connection, [`crate::RELAYED_STREAMS_MAX`] as a rule.
    pub relayed_streams_max: u32,
}

/// Why a mesh does not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The address is taken or not ours.
    #[error("mesh.listen {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// CA, certificate or key.
    #[error("mesh.{0}")]
    Identity(#[from] IdentityError),
    /// A limit of the table.
    #[error("stick_table.{0}")]
    Table(#[from] ConfigError),
}

/// A running mesh (or a lone table). Stop it with [`Mesh::shutdown`]; dropping it stops it without waiting.
#[derive(Debug)]
pub struct Mesh {
    handle: TableHandle,
    counters: Arc<Counters>,
    prober: Arc<OnceLock<mpsc::Sender<ProbeAsk>>>,
    address: Option<SocketAddr>,
    endpoint: Option<Endpoint>,
    relays: Relays,
    taker: Taker,
    stop: watch::Sender<bool>,
    driver: JoinHandle<()>,
    supervisor: Option<JoinHandle<()>>,
}

impl Mesh {
    /// A table without peers: ready at once, deciding everything itself.
    ///
    /// # Errors
    /// [`MeshError::Table`].
    pub fn alone(table: Config) -> Result<Self, MeshError> {
        let (parts, links) = Parts::new(table)?;
        let alone = tokio::spawn(async move {
            // The only event there will ever be; the sender is kept so that the driver does not take its end for a stop.
            drop(links.send(LinkEvent::Listed(Vec::new())).await);
            links.closed().await;
        });
        Ok(Self { supervisor: Some(alone), endpoint: None, address: None, ..parts })
    }

    /// A node of a mesh, following the peers that discovery lists (its own name among them is skipped). While these are `None`, discovery has not
    /// said anything yet, and the node is not ready.
    ///
    /// # Errors
    /// [`MeshError`] naming the field.
    pub fn start(
        table: Config,
        config: MeshConfig,
        peers: watch::Receiver<Option<Vec<PeerAddress>>>,
    ) -> Result<Self, MeshError> {
        let me = table.me.clone();
        let identity = Identity::load(&config.identity, &me, &config.environment)?;
        let endpoint = bind(&config, &identity)?;
        let (parts, events) = Parts::new(table)?;
        let supervisor = Supervisor {
            me,
            environment: config.environment,
            endpoint: endpoint.clone(),
            events,
            counters: Arc::clone(&parts.counters),
            ways: parts.relays.ways(),
            taker: Arc::clone(&parts.taker),
            relayed_streams_max: config.relayed_streams_max,
            peers,
            stop: parts.stop.subscribe(),
            kept: BTreeMap::new(),
            dialers: BTreeMap::new(),
            links: JoinSet::new(),
            next_link: 0,
            found: watch::channel(Instant::now()).0,
        };
        let address = endpoint.local_addr().ok();
        Ok(Self {
            supervisor: Some(tokio::spawn(supervisor.run())),
            endpoint: Some(endpoint),
            address,
            ..parts
        })
    }

    /// The way into the table.
    #[must_use]
    pub fn handle(&self) -> TableHandle {
        self.handle.clone()
    }

    /// The way to shards that only peers reach; without peers there is none.
    #[must_use]
    pub fn relays(&self) -> Relays {
        self.relays.clone()
    }

    /// What peers ask this node to relay, from now on: before, and while more wait than can, they are refused for overload. Once only;
    /// `None` afterwards.
    pub fn take_relayed(&mut self) -> Option<mpsc::Receiver<Relayed>> {
        let (given, taken) = mpsc::channel(RELAYED_WAITING_MAX);
        self.taker.set(given).is_ok().then_some(taken)
    }

    /// Counters of connections.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The probes of shards that homes ask for, for whoever carries them out; once. Until somebody has taken them no shard is reached from here.
    #[must_use]
    pub fn take_probes(&mut self) -> Option<mpsc::Receiver<ProbeAsk>> {
        let (asks, taken) = mpsc::channel(PROBES_WAITING_MAX);
        self.prober.set(asks).ok().map(|()| taken)
    }

    /// The UDP address, `None` without a mesh.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops: peers are told at once, nothing waits longer than a second.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        let tasks = async {
            // A task that panicked has ended too; its panic was reported by the runtime.
            drop(self.driver.await);
            if let Some(supervisor) = self.supervisor {
                drop(supervisor.await);
            }
        };
        let half = Duration::from_millis(500);
        let ended = tokio::time::timeout(half, tasks).await.is_ok();
        let told = match self.endpoint {
            Some(endpoint) => {
                endpoint.close(VarInt::from_u32(0), b"shutdown");
                tokio::time::timeout(half, endpoint.wait_idle()).await.is_ok()
            }
            None => true,
        };
        if !(ended && told) {
            debug!("peers did not acknowledge the end in time");
        }
    }
}

/// Builds the part that both kinds share.
struct Parts;

impl Parts {
    #[expect(clippy::new_ret_no_self, reason = "it makes the shared part of a Mesh")]
    fn new(table: Config) -> Result<(Mesh, mpsc::Sender<LinkEvent>), MeshError> {
        let clock = Clock::start();
        let (me, ttl_ms) = (table.me.clone(), table.ttl_ms);
        let node = Node::new(table, clock.now())?;
        let view = Arc::new(View::new(ttl_ms / 16));
        let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
        let (events, event_queue) = mpsc::channel(EVENTS_MAX);
        let (moves, _) = broadcast::channel(MOVES_MAX);
        let (readiness, readiness_seen) = watch::channel(Readiness::NotReady { waiting_for: Vec::new() });
        let (stop, stopped) = watch::channel(false);
        let prober = Arc::default();
        let driver = Driver {
            node,
            clock,
            view: Arc::clone(&view),
            requests: request_queue,
            links: event_queue,
            moves: moves.clone(),
            readiness,
            waiting: std::collections::HashMap::new(),
            tokens: 0,
            outboxes: BTreeMap::new(),
            divergences: Divergences::default(),
            history: History::default(),
            moving: std::collections::VecDeque::new(),
            next_move: tokio::time::Instant::now(),
            prober: Arc::clone(&prober),
            probes: JoinSet::new(),
            stop: stopped,
        };
        let handle = TableHandle {
            me,
            view,
            requests,
            moves,
            readiness: readiness_seen,
            touches_dropped: Arc::default(),
            #[cfg(feature = "test-hooks")]
            forgetful: Arc::default(),
        };
        let counters = Arc::default();
        let mesh = Mesh {
            handle,
            prober,
            relays: Relays::new(Arc::clone(&counters)),
            counters,
            address: None,
            endpoint: None,
            taker: Arc::new(OnceLock::new()),
            stop,
            driver: tokio::spawn(driver.run()),
            supervisor: None,
        };
        Ok((mesh, events))
    }
}

/// What a young connection may send before the first acknowledgement: a mesh's own paths take a burst of first joins at once.
const INITIAL_WINDOW: u64 = 128 * 1_024;

fn bind(config: &MeshConfig, identity: &Identity) -> Result<Endpoint, MeshError> {
    let listen = |source| MeshError::Listen { address: config.listen, source };
    let socket = UdpSocket::bind(config.listen).map_err(listen)?;
    let mut acks = quinn::AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(10_u32.into()).max_ack_delay(Some(Duration::from_millis(10)));
    let mut congestion = quinn::congestion::CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let window = relay::window(LANES_WINDOW, config.relayed_streams_max);
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(Acceptor::streams_at_first(config.relayed_streams_max))
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(relay::STREAM_WINDOW.into())
        // No stream waits for another: neither for what that one's reader leaves, nor for what it has sent into a slow path.
        .receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX))
        .send_window(window)
        // A dial whose first packets are lost in a cut repeats them after 0.3, 0.9 and 2.1 s, not after 1 and 3.
        .initial_rtt(Duration::from_millis(100))
        // Every packet that only acknowledges costs as much as an update: one in ten packets is acknowledged at once, the others soon.
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .keep_alive_interval(Some(config.idle_timeout / 4))
        .max_idle_timeout(config.idle_timeout.try_into().ok());
    let transport = Arc::new(transport);
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(Arc::clone(&identity.server))
        .map_err(IdentityError::from)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::clone(&transport));
    let mut endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime))
        .map_err(listen)?;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(Arc::clone(&identity.client))
        .map_err(IdentityError::from)?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport);
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// Who dialled a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Us,
    Them,
}

/// A connection that is up and whose certificate says who it is.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) peer: PeerId,
    pub(crate) connection: Connection,
    pub(crate) side: Side,
}

/// One peer's dialer; it rests while there is a connection, whoever dialled it.
struct Dialing {
    address: SocketAddr,
    task: JoinHandle<()>,
    connected: watch::Sender<bool>,
}

struct Kept {
    id: u64,
    connection: Connection,
    way: Way,
    outbox: Outbox,
    side: Side,
    since: Instant,
}

/// Finding one peer hurries the dialers of others once in this time.
const FOUND_EVERY: Duration = Duration::from_secs(1);

struct Supervisor {
    me: PeerId,
    environment: Environment,
    endpoint: Endpoint,
    events: mpsc::Sender<LinkEvent>,
    counters: Arc<Counters>,
    ways: Arc<Ways>,
    taker: Taker,
    relayed_streams_max: u32,
    peers: watch::Receiver<Option<Vec<PeerAddress>>>,
    stop: watch::Receiver<bool>,
    kept: BTreeMap<PeerId, Kept>,
    dialers: BTreeMap<PeerId, Dialing>,
    links: JoinSet<(PeerId, u64)>,
    next_link: u64,
    /// When somebody was found last: other dialers do not wait then.
    found: watch::Sender<Instant>,
}

impl Supervisor {
    async fn run(mut self) {
        let (established, mut arrivals) = mpsc::channel::<Established>(HANDSHAKES_MAX);
        let mut handshakes: JoinSet<()> = JoinSet::new();
        let mut stop = self.stop.clone();
        let mut stopped = std::pin::pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
        self.follow_peers(&established).await;
        loop {
            tokio::select! {
                () = &mut stopped => break,
                changed = self.peers.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.follow_peers(&established).await;
                }
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    if handshakes.len() >= HANDSHAKES_UNPROVEN_MAX && !incoming.remote_address_validated() {
                        // An address that was validated already cannot be asked again; the condition excludes it.
                        drop(incoming.retry());
                    } else if handshakes.len() >= HANDSHAKES_MAX {
                        incoming.refuse();
                    } else {
                        let (environment, counters) = (self.environment.clone(), Arc::clone(&self.counters));
                        handshakes.spawn(greet(incoming, environment, counters, established.clone()));
                    }
                }
                Some(arrival) = arrivals.recv() => self.arrived(arrival).await,
                Some(_) = handshakes.join_next() => {}
                Some(ended) = self.links.join_next() => {
                    if let Ok((peer, id)) = ended {
                        self.ended(&peer, id);
                    }
                }
            }
        }
        for (_, dialing) in std::mem::take(&mut self.dialers) {
            dialing.task.abort();
            // Its share of the endpoint is gone when the task is.
            drop(dialing.task.await);
        }
        // One that came up just now may be unknown to the driver.
        for kept in std::mem::take(&mut self.kept).into_values() {
            kept.outbox.close(LinkEnd::Shutdown);
        }
        self.publish_ways();
        // The driver closes the other outboxes; the links write their close frames and end.
        while self.links.join_next().await.is_some() {}
    }

    /// Dials whom discovery lists now, stops dialling whom it does not, and tells the core.
    async fn follow_peers(&mut self, established: &mpsc::Sender<Established>) {
        // Nobody is nobody only when discovery says so: a node that knows nothing yet must not decide alone.
        let Some(listed) = self.peers.borrow_and_update().clone() else { return };
        let listed: Vec<PeerAddress> = listed.into_iter().filter(|peer| peer.id != self.me).collect();
        self.dialers.retain(|id, dialing| {
            let stays = listed.iter().any(|peer| peer.id == *id && peer.address == dialing.address);
            if !stays {
                dialing.task.abort();
            }
            stays
        });
        let ids = listed.iter().map(|peer| peer.id.clone()).collect();
        drop(self.events.send(LinkEvent::Listed(ids)).await);
        for peer in listed {
            if self.dialers.contains_key(&peer.id) {
                continue;
            }
            let there = self.kept.get(&peer.id).is_some_and(|kept| kept.connection.close_reason().is_none());
            let (connected, seen) = watch::channel(there);
            let dialer = Dialer {
                connected: seen,
                found: self.found.subscribe(),
                me: self.me.clone(),
                environment: self.environment.clone(),
                peer: peer.clone(),
                endpoint: self.endpoint.clone(),
                events: self.events.clone(),
                established: established.clone(),
                counters: Arc::clone(&self.counters),
            };
            let dialing = Dialing { address: peer.address, task: tokio::spawn(dialer.run()), connected };
            self.dialers.insert(peer.id, dialing);
        }
    }

    /// Keeps one connection per pair. When both sides dialled at about the same time, the one dialled by the lower name stays;
    /// otherwise the newer one: its dialler would not have dialled while it had one.
    async fn arrived(&mut self, arrival: Established) {
        let Established { peer, connection, side } = arrival;
        let Some(dialing) = self.dialers.get(&peer) else {
            warn!(%peer, "refused a peer that discovery does not list");
            self.counters.end(LinkEnd::NotListed);
            close(&connection, LinkEnd::NotListed);
            return;
        };
        if let Some(old) = self.kept.get(&peer).filter(|old| old.connection.close_reason().is_none()) {
            let lower = if self.me < peer { Side::Us } else { Side::Them };
            if old.side != side && old.since.elapsed() < HANDSHAKE_MAX && old.side == lower {
                debug!(%peer, "both dialled, keeping the other connection");
                close(&connection, LinkEnd::Replaced);
                return;
            }
            old.outbox.close(LinkEnd::Replaced);
        }
        self.next_link += 1;
        let id = self.next_link;
        let (outbox, lanes) = Outbox::new();
        info!(%peer, address = %connection.remote_address(), dialled_by = ?side, "connected to peer");
        self.counters.connected();
        dialing.connected.send_replace(true);
        // Those who close at once are found again and again: they hurry nobody.
        self.found.send_if_modified(|found| {
            let lately = found.elapsed() < FOUND_EVERY;
            if !lately {
                *found = Instant::now();
            }
            !lately
        });
        let way = Way::new(connection.clone(), self.relayed_streams_max);
        let since = Instant::now();
        let kept = Kept { id, connection: connection.clone(), way, outbox: outbox.clone(), side, since };
        self.kept.insert(peer.clone(), kept);
        self.publish_ways();
        let event = LinkEvent::Connected { peer: peer.clone(), link: id, outbox };
        if self.events.send(event).await.is_ok() {
            let (events, counters) = (self.events.clone(), Arc::clone(&self.counters));
            let (taker, relaying) = (Arc::clone(&self.taker), Arc::clone(&self.counters));
            let relayed =
                Acceptor::new(peer.clone(), connection.clone(), taker, relaying, self.relayed_streams_max);
            self.links.spawn(Link { peer, id, connection, lanes, relayed, events, counters }.run());
        }
    }

    fn publish_ways(&self) {
        self.ways
            .store(Arc::new(self.kept.iter().map(|(id, kept)| (id.clone(), kept.way.clone())).collect()));
    }

    /// A connection has ended: if it was the kept one, its peer is dialled again.
    fn ended(&mut self, peer: &PeerId, id: u64) {
        if self.kept.get(peer).is_some_and(|kept| kept.id == id) {
            self.kept.remove(peer);
            self.publish_ways();
            if let Some(dialing) = self.dialers.get(peer) {
                dialing.connected.send_replace(false);
            }
        }
    }
}

/// A handshake of somebody who dialled us.
async fn greet(
    incoming: Incoming,
    environment: Environment,
    counters: Arc<Counters>,
    established: mpsc::Sender<Established>,
) {
    let from = incoming.remote_address();
    let refuse = |end: LinkEnd, why: &str| {
        warn!(%from, reason = end.label(), why, "refused a connection to the mesh");
        counters.end(end);
    };
    let connection = match tokio::time::timeout(HANDSHAKE_MAX, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refuse(end_of(&error), &error.to_string()),
        Err(_) => return refuse(LinkEnd::TimedOut, "the handshake took longer than 3 s"),
    };
    match identify(&connection, &environment) {
        Named::Peer(peer) => {
            drop(established.send(Established { peer, connection, side: Side::Them }).await);
        }
        Named::OtherEnvironment(other) => {
            refuse(
                LinkEnd::WrongEnvironment,
                &format!("certificate is for environment {other}, expected {environment}"),
            );
            close(&connection, LinkEnd::WrongEnvironment);
        }
        Named::Nobody(names) => {
            refuse(LinkEnd::WrongName, &format!("certificate names {names:?}, expected a node of a mesh"));
            close(&connection, LinkEnd::WrongName);
        }
    }
}

/// Who the other side's certificate says it is.
pub(crate) fn identify(connection: &Connection, environment: &Environment) -> Named {
    let identity = connection.peer_identity();
    let chain =
        identity.and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok());
    match chain.as_ref().and_then(|chain| chain.first()) {
        Some(cert) => named(cert, environment),
        None => Named::Nobody(String::new()),
    }
}
