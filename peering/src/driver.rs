//! The single task that owns the core: feeds it inputs, carries out its outputs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use shardgate_peering_core::{
    ClaimToken, Claimed, Input, Message, Node, Output, PeerId, ProbeId, Reached, Readiness, ShardName,
    StickKey, Verdict, Violation,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::counters::LinkEnd;
use crate::divergence::{Divergence, Divergences};
use crate::handle::{MeshStatus, Moved, PeerStatus, ProbeAsk, Request, TableRow};
use crate::history::{History, Replacement};
use crate::outbox::Outbox;
use crate::view::View;

/// How many inputs are taken before the outputs are carried out: they share one batch to every peer.
const INPUTS_PER_TURN: usize = 256;
/// So many conferences are moved at once, then there is a pause: 2,500 a second.
const MOVES_AT_ONCE: usize = 50;
const MOVES_PAUSE: Duration = Duration::from_millis(20);
/// Probes whose answers are awaited. Beyond it the answer is No.
const PROBES_MAX: usize = 16_384;

/// What connections tell the driver.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A connection is up; frames for the peer go to `outbox`. A connection to the same peer that was there before is replaced.
    Connected { peer: PeerId, link: u64, outbox: Outbox },
    /// It ended.
    Lost { peer: PeerId, link: u64 },
    /// A full dial was in vain.
    DialFailed { peer: PeerId },
    /// A message arrived on it, with the path's round trip time at that moment.
    Received { peer: PeerId, link: u64, rtt_ms: u64, message: Box<Message> },
    /// The peers that discovery lists.
    Listed(Vec<PeerId>),
}

pub(crate) struct Driver {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) view: Arc<View>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) moves: broadcast::Sender<Moved>,
    pub(crate) readiness: watch::Sender<Readiness>,
    pub(crate) waiting: HashMap<ClaimToken, oneshot::Sender<Claimed>>,
    pub(crate) tokens: u64,
    pub(crate) outboxes: BTreeMap<PeerId, (u64, Outbox)>,
    pub(crate) divergences: Divergences,
    pub(crate) history: History,
    /// Keys that have moved, and nobody has been told of yet: some for each with sessions.
    pub(crate) moving: VecDeque<StickKey>,
    pub(crate) next_move: Instant,
    /// Who probes shards, once somebody does.
    pub(crate) prober: Arc<OnceLock<mpsc::Sender<ProbeAsk>>>,
    pub(crate) probes: JoinSet<(ProbeId, Reached)>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Driver {
    /// Runs until told to stop, or until nobody is left who could ask.
    pub(crate) async fn run(mut self) {
        let mut stop = self.stop.clone();
        let mut stopped = std::pin::pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
        loop {
            let (deadline, _reason) = self.node.poll_timeout();
            let deadline = self.clock.at(deadline);
            tokio::select! {
                biased;
                () = &mut stopped => break,
                event = self.links.recv() => match event {
                    Some(event) => self.link_event(event),
                    None => break,
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => break,
                },
                // Such a task neither panics nor is aborted.
                Some(Ok((probe, reached))) = self.probes.join_next() => {
                    self.handle(Input::Probed { probe, reached });
                }
                () = tokio::time::sleep_until(self.next_move), if !self.moving.is_empty() => {}
                () = tokio::time::sleep_until(deadline) => self.handle(Input::Timeout),
            }
            self.take_what_waits();
            self.carry_out();
            self.tell_moves();
        }
        for (_, outbox) in self.outboxes.values() {
            outbox.close(LinkEnd::Shutdown);
        }
    }

    /// Takes what is there already, bounded, so that it shares one round of outputs; both queues in turn, so that neither starves.
    fn take_what_waits(&mut self) {
        // Answers first: rounds that wait for them end by time.
        while let Some(Ok((probe, reached))) = self.probes.try_join_next() {
            self.handle(Input::Probed { probe, reached });
        }
        for _ in 0..INPUTS_PER_TURN {
            let event = self.links.try_recv().ok();
            let request = self.requests.try_recv().ok();
            if event.is_none() && request.is_none() {
                break;
            }
            if let Some(event) = event {
                self.link_event(event);
            }
            if let Some(request) = request {
                self.request(request);
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(self.clock.now(), input);
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Claim { key, proposal, reason, reply } => {
                self.tokens += 1;
                let token = ClaimToken(self.tokens);
                self.waiting.insert(token, reply);
                self.handle(Input::Claim { token, key, proposal, reason });
            }
            Request::Clear { key, reply } => {
                self.tokens += 1;
                let token = ClaimToken(self.tokens);
                self.waiting.insert(token, reply);
                self.handle(Input::Clear { token, key });
            }
            Request::ReadyOverride => self.handle(Input::ReadyOverride),
            Request::Touch(key) => self.handle(Input::Touch { key }),
            Request::SessionOpened { key, shard } => self.handle(Input::SessionOpened { key, shard }),
            Request::SessionClosed { key, shard } => self.handle(Input::SessionClosed { key, shard }),
            Request::Status(reply) => {
                let peers = self.node.peers().map(|(id, view)| PeerStatus { id: id.clone(), view }).collect();
                let (entries, capacity) = (self.node.len(), self.node.capacity());
                let status = MeshStatus { stats: self.node.stats(), entries, capacity, peers };
                // Who asked may have gone.
                drop(reply.send(status));
            }
            Request::Divergences(reply) => drop(reply.send(self.divergences.list())),
            Request::History { key, reply } => drop(reply.send(self.history.of(&key))),
            Request::Row { key, reply } => {
                let row = self.node.entry(&key).map(|(entry, remaining_ms)| TableRow {
                    key: key.clone(),
                    entry: entry.clone(),
                    remaining_ms,
                });
                drop(reply.send(row));
            }
            #[cfg(feature = "test-hooks")]
            Request::Flip { key, shard, reply } => drop(reply.send(self.node.flip(&key, &shard))),
            Request::Page { after, most, reply } => {
                let rows = self.node.entries(after.as_ref(), most).into_iter();
                let rows =
                    rows.map(|(key, entry, remaining_ms)| TableRow { key, entry, remaining_ms }).collect();
                drop(reply.send(rows));
            }
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected { peer, link, outbox } => {
                if let Some((_, old)) = self.outboxes.insert(peer.clone(), (link, outbox)) {
                    old.close(LinkEnd::Replaced);
                }
                self.handle(Input::PeerConnected { peer });
            }
            LinkEvent::Lost { peer, link } => {
                if self.outboxes.get(&peer).is_some_and(|(current, _)| *current == link) {
                    self.outboxes.remove(&peer);
                    self.handle(Input::PeerLost { peer });
                }
            }
            LinkEvent::DialFailed { peer } => self.handle(Input::DialFailed { peer }),
            LinkEvent::Received { peer, link, rtt_ms, message } => {
                if self.outboxes.get(&peer).is_some_and(|(current, _)| *current == link) {
                    if matches!(*message, Message::Hello(_) | Message::Heartbeat(_)) {
                        self.handle(Input::RoundTrip { peer: peer.clone(), rtt_ms });
                    }
                    self.handle(Input::Received { peer, message: *message });
                }
            }
            LinkEvent::Listed(listed) => self.handle(Input::PeersChanged { listed }),
        }
    }

    /// Tells of moves, some at a time: those people all come back within a second or two.
    fn tell_moves(&mut self) {
        if self.moving.is_empty() || Instant::now() < self.next_move {
            return;
        }
        for key in self.moving.drain(..self.moving.len().min(MOVES_AT_ONCE)) {
            // It may have moved again while it waited here, or be disputed.
            let Some(to) = self.node.lookup(&key).filter(|_| self.view.disputed_on(key.as_str()).is_none())
            else {
                continue;
            };
            // Nobody may be listening: a node without tunnels.
            drop(self.moves.send(Moved { to: to.clone(), key }));
        }
        self.next_move = Instant::now() + MOVES_PAUSE;
    }

    /// A split brain is decided: the log and the list say so. Names of conferences are personal, and stand in the list alone.
    fn decided(&mut self, verdict: Verdict) {
        let divergence = Divergence::new(verdict, SystemTime::now());
        let Verdict { stood, entry, sides, why, gathered_ms, .. } = &divergence.verdict;
        let name = |shard: &Option<ShardName>| shard.as_ref().map_or_else(String::new, ToString::to_string);
        warn!(
            id = format!("{:016x}", divergence.id),
            stood = name(&stood.shard),
            winner = name(&entry.shard),
            ?sides,
            ?why,
            gathered_ms,
            "a conference was on several shards: decided"
        );
        self.divergences.add(divergence);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Send { peer, message } => self.send(&peer, message),
                Output::Disconnect { peer, violation } => self.disconnect(&peer, violation),
                Output::Changed { key, shard } => self.view.set(key, shard),
                Output::Replaced { key, before, after } => {
                    self.history.add(Replacement { key, at: SystemTime::now(), before, after });
                }
                Output::Emptied => {
                    warn!("this node was paused for too long: it starts anew");
                    self.view.clear();
                    self.moving.clear();
                }
                Output::Moved { key, .. } => self.moving.push_back(key),
                Output::Disputed { key, on } => self.view.dispute(key, on),
                Output::Settled { key } => self.view.settle(&key),
                Output::PeopleMoved { key, peer } => self.divergences.moved(&key, peer, SystemTime::now()),
                Output::Verdict(verdict) => self.decided(verdict),
                Output::Probe { probe, shard, .. } => self.probe(probe, shard),
                Output::Answered { token, claimed } => {
                    if let Some(reply) = self.waiting.remove(&token) {
                        drop(reply.send(claimed));
                    }
                }
                Output::Readiness(readiness) => {
                    match &readiness {
                        Readiness::Ready { reconciled, unreachable } => {
                            info!(reconciled, unreachable, "mesh ready");
                        }
                        Readiness::NotReady { waiting_for } => info!(?waiting_for, "mesh not ready"),
                        Readiness::NoPlace { peers_max } => {
                            warn!(peers_max, "more nodes are listed than a mesh takes: this one is left out");
                        }
                    }
                    self.readiness.send_replace(readiness);
                }
            }
        }
    }

    /// Hands a probe to who probes shards. Where nobody does, or not so many at once, a shard is not reached.
    fn probe(&mut self, probe: ProbeId, shard: ShardName) {
        let (reply, answer) = oneshot::channel();
        let room = self.probes.len() < PROBES_MAX;
        let taken =
            self.prober.get().filter(|_| room).map(|prober| prober.try_send(ProbeAsk { shard, reply }));
        if let Some(Ok(())) = taken {
            self.probes.spawn(async move { (probe, answer.await.unwrap_or(Reached::No)) });
        } else {
            self.handle(Input::Probed { probe, reached: Reached::No });
        }
    }

    /// A full outbox means that the peer takes less than it is sent: the connection ends, and reconciliation follows the next one.
    fn send(&mut self, peer: &PeerId, message: Message) {
        let Some((_, outbox)) = self.outboxes.get(peer) else { return };
        if outbox.send(message).is_err() {
            warn!(%peer, "peer does not keep up, disconnecting");
            outbox.close(LinkEnd::OutboxFull);
            self.outboxes.remove(peer);
            self.handle(Input::PeerLost { peer: peer.clone() });
        }
    }

    fn disconnect(&mut self, peer: &PeerId, violation: Violation) {
        let Some((_, outbox)) = self.outboxes.remove(peer) else { return };
        warn!(%peer, reason = ?violation, "disconnecting peer");
        outbox.close(LinkEnd::Violation(violation));
        self.handle(Input::PeerLost { peer: peer.clone() });
    }
}
