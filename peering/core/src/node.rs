//! A node of the mesh: composes table, leases, claims and sessions; holds no rule of its own.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::arbitration::Arbitration;
use crate::claim::Pending;
use crate::config::{Config, ConfigError};
use crate::entry::Entry;
use crate::full::EarlyEnds;
use crate::id::{PeerId, ShardName, StickKey};
use crate::input::Input;
use crate::lease::{Told, Use, Uses};
use crate::message::{Heartbeat, Message};
use crate::output::{Output, Readiness, Violation};
use crate::session::{PeerView, Session};
use crate::stats::Stats;
use crate::table::{Merged, Table};
use crate::time::{Instant, Now, StampClock, TimeoutReason};
use crate::update_log::UpdateLog;
use crate::verdict::Verdicts;

/// How long after the longest round trip this node takes it that everybody has heard of its readiness.
const HEARD_MARGIN_MS: u64 = 100;
/// And at most: longer than any path around the world.
const HEARD_MAX_MS: u64 = 1_000;

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
    /// Keys with sessions here that may be in the wrong place: looked at when the input is done, since it may move a key twice.
    pub(crate) misplaced: BTreeSet<StickKey>,
    /// Decided alone, not yet claimed at a home.
    pub(crate) lone: BTreeSet<StickKey>,
    /// Moves that this node decided as home, for the pause between two moves.
    pub(crate) moved_at: BTreeMap<StickKey, Instant>,
    /// Shards that somebody could not reach, and who could.
    pub(crate) verdicts: Verdicts,
    /// Keys whose people are on several shards.
    pub(crate) arbitration: Arbitration,
    /// Which start of this node it is; a pause of the node is a start too.
    pub(crate) incarnation: u64,
    pub(crate) reconciliation_ids: u64,
    /// Since when no peer is heard.
    pub(crate) alone_since: Option<Instant>,
    /// When the list of peers changed last.
    pub(crate) listed_at: Instant,
    /// A fingerprint of the peers that worked when entries were last looked at, and since when it is so.
    pub(crate) works: (u64, Instant),
    /// When a peer was last listed, lost or found again.
    pub(crate) mesh_changed: Option<Instant>,
    /// This node knows what the mesh knows, and has said so.
    pub(crate) ready: bool,
    /// Every peer has heard that: it decides as a home, and takes traffic. Two nodes that differ about who is home would decide twice.
    pub(crate) decides: bool,
    /// An entry was not taken, since the table was full: what is missing is asked for when there is room.
    pub(crate) turned_away: bool,
    pub(crate) early_ends: EarlyEnds,
    /// Something may be due to some peer since the outputs ran empty last.
    pub(crate) to_flush: bool,
    /// When something that waits for company is to be sent.
    pub(crate) flush_at: Option<Instant>,
    decides_from: Instant,
    /// Discovery has told who the peers are; before that nothing is known of whom to wait for.
    pub(crate) peers_told: bool,
    /// Whether this node is among as many as a mesh takes.
    pub(crate) has_place: bool,
    pub(crate) told_readiness: Option<Readiness>,
    pub(crate) next_heartbeat: Instant,
    pub(crate) now: Now,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) stats: Stats,
    #[cfg(feature = "test-hooks")]
    pub(crate) mutation: Option<crate::mutation::Mutation>,
    /// With a planted fault: acknowledged, and not applied yet.
    #[cfg(feature = "test-hooks")]
    pub(crate) unapplied: Option<(PeerId, Vec<crate::message::Item>)>,
}

/// A claim of a peer that this node passed on.
#[derive(Debug)]
pub(crate) struct PassedOn {
    pub(crate) at: Instant,
    pub(crate) key: StickKey,
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
            table: Table::new(config.entries_max, config.timer_grain_ms()),
            uses: Uses::new(config.timer_grain_ms()),
            sessions: BTreeMap::new(),
            clock: StampClock::default(),
            pending: BTreeMap::new(),
            claim_deadlines: BTreeMap::new(),
            claim_ids: 0,
            passed_on: BTreeMap::new(),
            misplaced: BTreeSet::new(),
            lone: BTreeSet::new(),
            moved_at: BTreeMap::new(),
            verdicts: Verdicts::default(),
            arbitration: Arbitration::default(),
            incarnation: config.incarnation,
            reconciliation_ids: 0,
            alone_since: None,
            listed_at: Instant(0),
            works: (0, Instant(0)),
            mesh_changed: None,
            ready: false,
            decides: false,
            turned_away: false,
            early_ends: EarlyEnds::default(),
            to_flush: false,
            flush_at: None,
            decides_from: now.mono,
            peers_told: false,
            has_place: true,
            told_readiness: None,
            next_heartbeat: now.mono + config.heartbeat_ms,
            now,
            outputs: VecDeque::new(),
            stats: Stats::default(),
            #[cfg(feature = "test-hooks")]
            mutation: None,
            #[cfg(feature = "test-hooks")]
            unapplied: None,
            config,
        })
    }

    /// Takes one input that happened at `now`. Drain [`Node::poll_output`] afterwards; several inputs may come before that. A node that
    /// was not called for longer than [`Config::pause_max_ms`] starts anew first.
    pub fn handle(&mut self, now: Now, input: Input) {
        if self.was_paused(now) && !self.keeps_going() {
            self.restart_in_place(now);
            if matches!(input, Input::Received { .. }) {
                // It came on a connection that this node has just given up.
                self.now = now;
                self.to_flush = true;
                self.update_readiness(now);
                return;
            }
        }
        self.note_standstill(now);
        self.now = now;
        self.to_flush = true;
        match input {
            Input::Claim { token, key, proposal, reason } => self.claim(now, token, key, proposal, reason),
            Input::Clear { token, key } => self.clear(now, token, key),
            Input::ReadyOverride => self.become_ready(now),
            Input::Touch { key } => self.used(now, &key, Told::NotYet),
            Input::SessionOpened { key, shard } => self.session_opened(now, key, shard),
            Input::SessionClosed { key, shard } => self.session_closed(now, &key, &shard),
            Input::PeersChanged { listed } => self.peers_changed(now, &listed),
            Input::PeerConnected { peer } => self.peer_connected(now, &peer),
            Input::PeerLost { peer } => self.peer_lost(now, &peer),
            Input::DialFailed { peer } => self.dial_failed(&peer),
            Input::RoundTrip { peer, rtt_ms } => {
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.rtt_ms = rtt_ms;
                }
            }
            Input::Received { peer, message } => self.received(now, &peer, message),
            Input::Probed { probe, reached } => self.probed(now, probe, reached),
            Input::Timeout => {}
        }
        self.run_timers(now);
        self.update_readiness(now);
        while let Some(key) = self.misplaced.pop_first() {
            self.weigh(now, &key);
        }
        self.send_disputes(now);
    }

    #[cfg(feature = "test-hooks")]
    fn keeps_going(&self) -> bool {
        self.mutation == Some(crate::mutation::Mutation::ZombieKeepsTable)
    }

    #[cfg(not(feature = "test-hooks"))]
    #[expect(clippy::unused_self, reason = "a planted fault looks at it")]
    const fn keeps_going(&self) -> bool {
        false
    }

    /// The next thing to do, `None` when there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() && core::mem::take(&mut self.to_flush) {
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
        let ready = (self.ready && !self.decides).then_some((self.decides_from, TimeoutReason::Readiness));
        let flush = self.flush_at.map(|at| (at, TimeoutReason::Flush));
        let verdict = self.verdicts.next_end().map(|at| (at, TimeoutReason::Verdict));
        let split = self.arbitration.next_due().map(|at| (at, TimeoutReason::Arbitration));
        [claim, report, expiry, ready, flush, verdict, split].into_iter().flatten().fold(heartbeat, Ord::min)
    }

    /// The shard of a live entry whose lease runs, as far as this node knows.
    #[must_use]
    pub fn lookup(&self, key: &StickKey) -> Option<&ShardName> {
        self.table.get(key).filter(|slot| !slot.lapsed)?.entry.shard.as_ref()
    }

    /// A key's entry (a tombstone too) and how many milliseconds of its lease are left as far as this node knows.
    #[must_use]
    pub fn entry(&self, key: &StickKey) -> Option<(&Entry, u64)> {
        self.table.get(key).map(|slot| (&slot.entry, slot.lease.since_ms(self.now.mono)))
    }

    /// Up to `most` entries after `after`, in the order of the keys' hashes, tombstones among them, each with its remaining milliseconds.
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
            let Session { link, ready, suspect, rtt_ms, capacity, talk, agreed_at, .. } = session;
            let view = PeerView {
                link: *link,
                agreement: talk.agreement,
                agreed_ms_ago: agreed_at.map(|at| self.now.mono.since_ms(at)),
                ready: *ready,
                suspect: *suspect,
                behind,
                rtt_ms: *rtt_ms,
                capacity: *capacity,
            };
            (peer, view)
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
        if self.table.get(key).is_none() {
            self.insert(now, key, entry, lease);
            return Merged::Inserted;
        }
        let before = self.lookup(key).cloned();
        let gives_way = |there: &Entry| !there.is_tombstone() && entry.precedence(there).is_lt();
        let stood = self.table.get(key).map(|slot| &slot.entry).filter(|there| gives_way(there)).cloned();
        let over = lease < now.mono;
        let (lease, first_look) = self.lease_and_look(now, self.table.used(key), entry, lease);
        let merged = self.table.merge(now, key, entry, lease, first_look);
        if let (Merged::Replaced { .. }, Some(before)) = (&merged, stood)
            && !entry.is_tombstone()
        {
            self.outputs.push_back(Output::Replaced { key: key.clone(), before, after: entry.clone() });
        }
        match merged {
            Merged::Same => {
                self.lease_runs(now, key);
            }
            Merged::Inserted | Merged::Replaced { .. } if over => self.table.lapse_unless(key, now.mono),
            Merged::Inserted | Merged::Replaced { .. } | Merged::Kept => {}
        }
        let after = self.lookup(key).cloned();
        if before != after {
            self.tell_view(key, after);
        }
        merged
    }

    /// A decision about a key that the table does not know.
    pub(crate) fn insert(&mut self, now: Now, key: &StickKey, entry: &Entry, lease: Instant) {
        let over = lease < now.mono;
        let (lease, first_look) = self.lease_and_look(now, self.table.used_without(key), entry, lease);
        self.table.insert(now, key, entry, lease, first_look);
        if over {
            self.table.lapse_unless(key, now.mono);
        }
        if let Some(shard) = self.lookup(key).cloned() {
            self.tell_view(key, Some(shard));
        }
    }

    /// How long a decision's lease is here, and when to look at it first.
    fn lease_and_look(
        &self,
        now: Now,
        used: Option<Use>,
        entry: &Entry,
        lease: Instant,
    ) -> (Instant, Instant) {
        if !entry.is_tombstone() {
            // It was used here by another decision, perhaps; it was used all the same.
            let lease = used.map_or(lease, |used| lease.max(used.lease));
            return (lease, lease);
        }
        #[cfg(feature = "test-hooks")]
        let lease = if self.mutation == Some(crate::mutation::Mutation::TombstoneDroppedEarly) {
            lease.min(now.mono + self.config.ttl_ms / 8)
        } else {
            lease
        };
        // The key may be created anew, and then has this timer.
        (lease, lease.min(now.mono + self.config.ttl_ms / 2))
    }

    /// The read view is to show another shard, or none.
    pub(crate) fn tell_view(&mut self, key: &StickKey, shard: Option<ShardName>) {
        self.outputs.push_back(Output::Changed { key: key.clone(), shard: shard.clone() });
        if let Some(to) = shard
            && self.uses.sessions_of(key).any(|(shard, _)| *shard != to)
        {
            self.misplaced.insert(key.clone());
        }
    }

    fn received(&mut self, now: Now, peer: &PeerId, message: Message) {
        let greeted = self.sessions.get(peer).is_some_and(Session::streaming);
        let news = matches!(
            message,
            Message::Welcome(_) | Message::Heartbeat(_) | Message::Compare(_) | Message::Reconciled { .. }
        );
        let outcome = match message {
            Message::Hello(hello) => self.on_hello(now, peer, hello),
            _ if !greeted => {
                let listed = self.sessions.get(peer).is_some_and(|session| session.listed);
                Err(if listed { Violation::NotGreeted } else { Violation::NotListed })
            }
            Message::Welcome(welcome) => self.on_welcome(now, peer, welcome),
            Message::Heartbeat(heartbeat) => {
                self.on_heartbeat(now, peer, heartbeat);
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
            Message::ProbeAsk { round, shard } => {
                self.on_probe_ask(now, peer, round, shard);
                Ok(())
            }
            Message::ProbeAnswer { round, shard, reached } => {
                self.on_probe_answer(now, peer, round, &shard, reached);
                Ok(())
            }
            Message::Dispute { tried, items } => {
                self.on_dispute(now, peer, tried.as_ref(), items);
                Ok(())
            }
            Message::SessionsAsk { number, keys } => {
                self.on_sessions_ask(peer, number, &keys);
                Ok(())
            }
            Message::SessionsTold { number, items } => {
                self.on_sessions_told(now, peer, number, items);
                Ok(())
            }
            Message::PeopleMoved { keys } => {
                self.on_people_moved(peer, keys);
                Ok(())
            }
            Message::LeaseReport(report) => {
                self.on_lease_report(now, report);
                Ok(())
            }
            Message::LeaseAsk { keys } => {
                self.on_lease_ask(now, peer, &keys);
                Ok(())
            }
            Message::Compare(compare) => self.on_compare(now, peer, compare),
            Message::Compared(compared) => {
                self.on_compared(now, peer, compared);
                Ok(())
            }
            Message::Give(give) => self.on_give(now, peer, give),
            Message::GiveAck { number } => self.on_give_ack(now, peer, number),
            Message::Reconciled { id } => {
                self.on_reconciled(now, peer, id);
                Ok(())
            }
        };
        if news {
            self.start_wanted(now);
        }
        if let Err(violation) = outcome {
            self.outputs.push_back(Output::Disconnect { peer: peer.clone(), violation });
        }
    }

    fn run_timers(&mut self, now: Now) {
        // A hearing's end and a move of the same key are two decisions, with something said in between.
        self.run_arbitration(now);
        self.end_rounds(now);
        self.expire_claims(now);
        self.report_leases(now);
        self.expire_entries(now);
        if now.mono >= self.next_heartbeat {
            self.next_heartbeat = now.mono + self.config.heartbeat_ms;
            let pause_ms = self.config.move_pause_ms;
            self.moved_at.retain(|_, at| now.mono.since_ms(*at) < pause_ms);
            let answered_by_ms = 2 * self.config.claim_budget_max_ms;
            self.passed_on.retain(|_, passed| now.mono.since_ms(passed.at) < answered_by_ms);
            self.forget_verdicts(now);
            let table = &self.table;
            self.lone.retain(|key| table.shard(key).is_some());
            self.shrink(now);
            self.look_for_turned_away(now);
            self.end_silent_greetings(now);
            self.suspect_the_silent(now);
            self.abandon_silent(now);
            self.start_wanted(now);
            self.heartbeat(now);
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

    fn heartbeat(&mut self, now: Now) {
        let peers = self.streaming_peers();
        if peers.is_empty() {
            return;
        }
        let heartbeat = Heartbeat { ready: self.ready, digest: self.digest(now) };
        for peer in peers {
            self.send(&peer, Message::Heartbeat(heartbeat.clone()));
        }
    }

    /// Ready: this node has reconciled with every listed peer, or a first dial of it was in vain. Once ready a node stays so; peers that
    /// come later find its decisions by the join.
    pub(crate) fn update_readiness(&mut self, now: Now) {
        if self.ready {
            if !self.decides && now.mono >= self.decides_from {
                self.begin_to_decide(now);
            }
            return;
        }
        if !self.peers_told {
            return;
        }
        if !self.has_place {
            self.tell_readiness(Readiness::NoPlace { peers_max: self.config.peers_max });
            return;
        }
        let listed = || self.sessions.iter().filter(|(_, session)| session.listed);
        let waiting_for: Vec<PeerId> =
            listed().filter(|(_, session)| !session.settled()).map(|(peer, _)| peer.clone()).collect();
        if waiting_for.is_empty() {
            self.become_ready(now);
            return;
        }
        self.tell_readiness(Readiness::NotReady { waiting_for });
    }

    fn tell_readiness(&mut self, readiness: Readiness) {
        if self.told_readiness.as_ref() != Some(&readiness) {
            self.told_readiness = Some(readiness.clone());
            self.outputs.push_back(Output::Readiness(readiness));
        }
    }

    /// Says so to everybody, and begins to decide when they have heard it.
    fn become_ready(&mut self, now: Now) {
        if self.ready {
            return;
        }
        self.ready = true;
        self.heartbeat(now);
        let farthest = self.sessions.values().filter(|session| session.streaming()).map(|s| s.rtt_ms).max();
        let heard_ms = farthest.map_or(0, |rtt_ms| rtt_ms.saturating_add(HEARD_MARGIN_MS).min(HEARD_MAX_MS));
        self.decides_from = now.mono + heard_ms;
        if heard_ms == 0 {
            self.begin_to_decide(now);
        }
    }

    fn begin_to_decide(&mut self, now: Now) {
        self.decides = true;
        let listed = || self.sessions.values().filter(|session| session.listed);
        let reconciled = listed().filter(|session| session.reconciled_once).count();
        self.tell_readiness(Readiness::Ready { reconciled, unreachable: listed().count() - reconciled });
        self.compare_sessions(now);
    }
}
