//! A node of the mesh: composes table, leases, claims and sessions; holds no rule of its own.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::claim::Pending;
use crate::config::{Config, ConfigError};
use crate::entry::Entry;
use crate::id::{PeerId, ShardName, StickKey};
use crate::input::Input;
use crate::lease::{Told, Uses};
use crate::message::Message;
use crate::output::{Output, Readiness, Violation};
use crate::session::{LinkState, PeerView, Session};
use crate::stats::Stats;
use crate::table::{Merged, Table};
use crate::time::{Instant, Now, StampClock, TimeoutReason};
use crate::update_log::UpdateLog;

/// One node's stick table and its talk with every peer.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: Config,
    pub(crate) table: Table,
    pub(crate) uses: Uses,
    pub(crate) log: UpdateLog,
    pub(crate) sessions: BTreeMap<PeerId, Session>,
    pub(crate) clock: StampClock,
    /// Claims under way, by key and by deadline.
    pub(crate) pending: BTreeMap<StickKey, Pending>,
    pub(crate) claim_deadlines: BTreeMap<(Instant, u64), StickKey>,
    pub(crate) claim_ids: u64,
    /// Claims passed on to another home, by own id.
    pub(crate) passed_on: BTreeMap<u64, PassedOn>,
    /// Decided alone, not yet claimed at a home.
    pub(crate) lone: BTreeSet<StickKey>,
    /// Moves that this node decided as home, for the pause between two moves.
    pub(crate) moved_at: BTreeMap<StickKey, Instant>,
    pub(crate) ready: bool,
    /// Discovery has told who the peers are; before that nothing is known of whom to wait for.
    peers_told: bool,
    told_readiness: Option<Readiness>,
    next_heartbeat: Instant,
    now: Now,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) stats: Stats,
}

/// A claim of a peer that this node passed on.
#[derive(Debug)]
pub(crate) struct PassedOn {
    pub(crate) at: Instant,
    pub(crate) home: PeerId,
    pub(crate) asker: PeerId,
    /// The asker's id of it.
    pub(crate) id: u64,
}

impl Node {
    /// A node with an empty table and no peers yet.
    ///
    /// # Errors
    /// [`ConfigError`] when a limit is out of its range.
    pub fn new(config: Config, now: Now) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            log: UpdateLog::new(config.log_max),
            table: Table::default(),
            uses: Uses::default(),
            sessions: BTreeMap::new(),
            clock: StampClock::default(),
            pending: BTreeMap::new(),
            claim_deadlines: BTreeMap::new(),
            claim_ids: 0,
            passed_on: BTreeMap::new(),
            lone: BTreeSet::new(),
            moved_at: BTreeMap::new(),
            ready: false,
            peers_told: false,
            told_readiness: None,
            next_heartbeat: now.mono + config.heartbeat_ms,
            now,
            outputs: VecDeque::new(),
            stats: Stats::default(),
            config,
        })
    }

    /// Takes one input that happened at `now`. Drain [`Node::poll_output`] afterwards; several inputs may come before that.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Claim { token, key, proposal, reason } => self.claim(now, token, key, proposal, reason),
            Input::Touch { key } => self.used(now, &key, Told::NotYet),
            Input::SessionOpened { key, shard } => self.session_opened(now, key, shard),
            Input::SessionClosed { key, shard } => self.session_closed(now, &key, &shard),
            Input::PeersChanged { listed } => self.peers_changed(now, &listed),
            Input::PeerConnected { peer } => self.peer_connected(&peer),
            Input::PeerLost { peer } => self.peer_lost(now, &peer),
            Input::DialFailed { peer } => self.dial_failed(&peer),
            Input::RoundTrip { peer, rtt_ms } => {
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.rtt_ms = rtt_ms;
                }
            }
            Input::Received { peer, message } => self.received(now, &peer, message),
            Input::Timeout => {}
        }
        self.run_timers(now);
        self.update_readiness();
    }

    /// The next thing to do, `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.flush(self.now);
        }
        self.outputs.pop_front()
    }

    /// When to call [`Node::handle`] with [`Input::Timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> (Instant, TimeoutReason) {
        let claim =
            self.claim_deadlines.first_key_value().map(|((at, _), _)| (*at, TimeoutReason::ClaimBudget));
        let report = self.uses.next_timer().map(|at| (at, TimeoutReason::LeaseReport));
        let expiry = self.table.next_timer().map(|at| (at, TimeoutReason::Expiry));
        let heartbeat = (self.next_heartbeat, TimeoutReason::Heartbeat);
        [claim, report, expiry].into_iter().flatten().fold(heartbeat, Ord::min)
    }

    /// The shard of a live entry.
    #[must_use]
    pub fn lookup(&self, key: &StickKey) -> Option<&ShardName> {
        self.table.shard(key)
    }

    /// A key's entry (a tombstone too) and how many milliseconds of its lease are left as far as this node knows.
    #[must_use]
    pub fn entry(&self, key: &StickKey) -> Option<(&Entry, u64)> {
        self.table.get(key).map(|slot| (&slot.entry, slot.lease.since_ms(self.now.mono)))
    }

    /// Up to `most` entries after `after`, in key order, tombstones among them, each with its remaining milliseconds.
    #[must_use]
    pub fn entries(&self, after: Option<&StickKey>, most: usize) -> Vec<(StickKey, Entry, u64)> {
        let (page, _) = self.table.page(after, most);
        page.into_iter()
            .map(|(key, slot)| (key, slot.entry.clone(), slot.lease.since_ms(self.now.mono)))
            .collect()
    }

    /// Live entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.live()
    }

    /// Whether there is no live entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Live entries per shard, in the order of their names.
    #[must_use]
    pub const fn per_shard(&self) -> &BTreeMap<ShardName, u64> {
        self.table.per_shard()
    }

    /// Every known peer and where the talk with it stands.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerId, PeerView)> {
        let head = self.log.head();
        self.sessions.iter().map(move |(peer, session)| {
            let behind = if session.streaming() { head.saturating_sub(session.acked) } else { 0 };
            let Session { link, ready, suspect, rtt_ms, .. } = session;
            (peer, PeerView { link: *link, ready: *ready, suspect: *suspect, behind, rtt_ms: *rtt_ms })
        })
    }

    /// Counters since the start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    pub(crate) fn send(&mut self, peer: &PeerId, message: Message) {
        self.outputs.push_back(Output::Send { peer: peer.clone(), message });
    }

    pub(crate) fn remaining_ms(&self, now: Now, key: &StickKey) -> u64 {
        self.table.get(key).map_or(0, |slot| slot.lease.since_ms(now.mono))
    }

    /// Merges a decision into the table and tells the read view what changed.
    pub(crate) fn merge(&mut self, now: Now, key: &StickKey, entry: &Entry, lease: Instant) -> Merged {
        let before = self.table.shard(key).cloned();
        let merged = {
            let lease = lease.max(now.mono);
            // A tombstone's key may be created anew, and then has this timer.
            let first_look =
                if entry.is_tombstone() { lease.min(now.mono + self.config.ttl_ms / 2) } else { lease };
            self.table.merge(key, entry, lease, first_look, self.config.timer_grain_ms())
        };
        let after = self.table.shard(key).cloned();
        if before != after {
            self.outputs.push_back(Output::Changed { key: key.clone(), shard: after.clone() });
            if let Some(to) = after
                && self.uses.sessions_of(key).any(|(shard, _)| *shard != to)
            {
                self.outputs.push_back(Output::Moved { key: key.clone(), to });
            }
        }
        merged
    }

    fn received(&mut self, now: Now, peer: &PeerId, message: Message) {
        let greeted = self.sessions.get(peer).is_some_and(Session::streaming);
        let outcome = match message {
            Message::Hello(hello) => {
                let outcome = self.on_hello(peer, hello);
                if outcome.is_ok() {
                    self.reclaim_lone(now, peer);
                }
                outcome
            }
            _ if !greeted => Err(Violation::NotGreeted),
            Message::Heartbeat { ready } => {
                if let Some(session) = self.sessions.get_mut(peer) {
                    let answers_again = ready && (session.suspect || !session.ready);
                    session.ready = ready;
                    session.suspect = false;
                    if answers_again {
                        self.reclaim_lone(now, peer);
                    }
                }
                Ok(())
            }
            Message::Update(update) => self.on_update(now, peer, update),
            Message::Ack { through } => self.on_ack(peer, through),
            Message::Correction { items } => {
                self.take_items(now, peer, items);
                Ok(())
            }
            Message::Claim(claim) => {
                self.on_claim(now, peer, claim);
                Ok(())
            }
            Message::ClaimAnswer(answer) => {
                self.on_claim_answer(now, peer, answer);
                Ok(())
            }
            Message::LeaseReport(report) => {
                self.on_lease_report(now, report);
                Ok(())
            }
            Message::ResyncChunk(chunk) => self.on_resync_chunk(now, peer, chunk),
            Message::ResyncAck { number } => self.on_resync_ack(peer, number),
        };
        if let Err(violation) = outcome {
            self.outputs.push_back(Output::Disconnect { peer: peer.clone(), violation });
        }
    }

    fn peers_changed(&mut self, now: Now, listed: &[PeerId]) {
        self.peers_told = true;
        let me = self.config.me.clone();
        for peer in listed.iter().filter(|peer| **peer != me) {
            self.sessions.entry(peer.clone()).or_insert_with(Session::new).listed = true;
        }
        let gone: Vec<PeerId> = self
            .sessions
            .iter()
            .filter(|(peer, session)| session.listed && !listed.contains(peer))
            .map(|(peer, _)| peer.clone())
            .collect();
        for peer in gone {
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.listed = false;
            }
            self.peer_lost(now, &peer);
            self.outputs.push_back(Output::Disconnect { peer, violation: Violation::NotListed });
        }
    }

    fn dial_failed(&mut self, peer: &PeerId) {
        if let Some(session) = self.sessions.get_mut(peer)
            && matches!(session.link, LinkState::Dialing | LinkState::Down)
        {
            session.link = LinkState::Down;
            session.dial_failed = true;
        }
    }

    fn run_timers(&mut self, now: Now) {
        self.expire_claims(now);
        self.report_leases(now);
        self.expire_entries(now);
        if now.mono >= self.next_heartbeat {
            self.next_heartbeat = now.mono + self.config.heartbeat_ms;
            let pause_ms = self.config.move_pause_ms;
            self.moved_at.retain(|_, at| now.mono.since_ms(*at) < pause_ms);
            let answered_by_ms = 2 * self.config.claim_budget_max_ms;
            self.passed_on.retain(|_, passed| now.mono.since_ms(passed.at) < answered_by_ms);
            let table = &self.table;
            self.lone.retain(|key| table.shard(key).is_some());
            self.heartbeat();
        }
    }

    /// Peers that updates may be sent to.
    pub(crate) fn streaming_peers(&self) -> Vec<PeerId> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.streaming())
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    fn heartbeat(&mut self) {
        let peers = self.streaming_peers();
        for peer in peers {
            self.send(&peer, Message::Heartbeat { ready: self.ready });
        }
    }

    /// Ready: every listed peer has taught this node or was dialled in vain. Once ready a node stays so; peers that come later
    /// find its decisions by the join.
    fn update_readiness(&mut self) {
        if self.ready || !self.peers_told {
            return;
        }
        let listed = || self.sessions.iter().filter(|(_, session)| session.listed);
        let waiting_for: Vec<PeerId> =
            listed().filter(|(_, session)| !session.settled()).map(|(peer, _)| peer.clone()).collect();
        let readiness = if waiting_for.is_empty() {
            let reconciled = listed().filter(|(_, session)| session.reconciled_once).count();
            Readiness::Ready { reconciled, unreachable: listed().count() - reconciled }
        } else {
            Readiness::NotReady { waiting_for }
        };
        if self.told_readiness.as_ref() != Some(&readiness) {
            self.ready = matches!(readiness, Readiness::Ready { .. });
            self.told_readiness = Some(readiness.clone());
            self.outputs.push_back(Output::Readiness(readiness));
            if self.ready {
                self.heartbeat();
            }
        }
    }
}
