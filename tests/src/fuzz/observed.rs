//! A real node, and what must hold at it after every input, whatever its peers say.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_peering::core::{
    ClaimReason, ClaimToken, Config, Entry, Input, Message, Node, Now, Output, PeerId, ProbeId, Rank,
    ShardName, Stamp, StickKey, Violation,
};

use super::hostile;

/// What a tombstone's last moments are beside the grain of the timers.
const FADES_MS: u64 = 1_501;

/// What came out of one input.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub(super) sent: Vec<(PeerId, Message)>,
    pub(super) disconnected: Vec<PeerId>,
    pub(super) probes: Vec<(ProbeId, ShardName)>,
    /// Where sessions were sent last.
    moved: BTreeMap<StickKey, ShardName>,
    emptied: bool,
}

/// Live entries, without what is outside the merge order: shard, generation, rank, stamp, origin.
pub(super) type Decisions<'o> = BTreeMap<&'o StickKey, (Option<&'o ShardName>, u32, Rank, Stamp, &'o PeerId)>;

/// A node with what is known about it from outside.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) node: Node,
    config: Config,
    listed: BTreeSet<PeerId>,
    pub(super) connected: BTreeSet<PeerId>,
    /// Who is never to be disconnected.
    honest: BTreeSet<PeerId>,
    unanswered: BTreeSet<ClaimToken>,
    tokens: u64,
    /// Keys whose sessions wait for a verdict.
    disputed: BTreeSet<StickKey>,
    /// Open sessions.
    pub(super) sessions: Vec<(StickKey, ShardName)>,
    /// What a request would find: follows the outputs.
    view: BTreeMap<StickKey, ShardName>,
    entries: BTreeMap<StickKey, Entry>,
    /// Until when tombstones stand, by this node's monotonic clock in milliseconds.
    stand_until: BTreeMap<StickKey, u64>,
}

impl Observed {
    pub(super) fn new(config: Config, honest: BTreeSet<PeerId>, now: Now) -> Self {
        Self {
            node: Node::new(config.clone(), now).expect("the configuration is valid"),
            config,
            listed: BTreeSet::new(),
            connected: BTreeSet::new(),
            honest,
            unanswered: BTreeSet::new(),
            tokens: 0,
            disputed: BTreeSet::new(),
            sessions: Vec::new(),
            view: BTreeMap::new(),
            entries: BTreeMap::new(),
            stand_until: BTreeMap::new(),
        }
    }

    /// A request here needs a decision.
    pub(super) fn claim(
        &mut self,
        now: Now,
        key: StickKey,
        proposal: ShardName,
        reason: ClaimReason,
    ) -> Came {
        self.tokens += 1;
        let token = ClaimToken(self.tokens);
        self.unanswered.insert(token);
        self.feed(now, Input::Claim { token, key, proposal, reason })
    }

    /// An operator clears a key.
    pub(super) fn clear(&mut self, now: Now, key: StickKey) -> Came {
        self.tokens += 1;
        let token = ClaimToken(self.tokens);
        self.unanswered.insert(token);
        self.feed(now, Input::Clear { token, key })
    }

    pub(super) fn feed(&mut self, now: Now, input: Input) -> Came {
        let mut absurd = false;
        let mut drops = false;
        let mut elements = 1;
        let may_drop = matches!(input, Input::PeersChanged { .. });
        match &input {
            Input::Received { message, .. } => {
                absurd = hostile::is_absurd(message, now);
                drops = hostile::drops(message);
                elements = hostile::elements(message);
            }
            Input::PeersChanged { listed } => self.listed = listed.iter().cloned().collect(),
            Input::PeerConnected { peer } => {
                self.connected.insert(peer.clone());
            }
            Input::PeerLost { peer } => {
                self.connected.remove(peer);
            }
            Input::Claim { .. }
            | Input::Clear { .. }
            | Input::ReadyOverride
            | Input::Touch { .. }
            | Input::SessionOpened { .. }
            | Input::SessionClosed { .. }
            | Input::DialFailed { .. }
            | Input::RoundTrip { .. }
            | Input::Probed { .. }
            | Input::Timeout => {}
        }
        let said = input.clone();
        let waiting = self.unanswered.len();
        self.node.handle(now, input);
        let mut came = Came::default();
        let mut outputs = 0;
        while let Some(output) = self.node.poll_output() {
            outputs += 1;
            assert!(outputs < 1_000_000, "outputs without end after {said:?}");
            self.take(output, may_drop, &said, &mut came);
        }
        let most = 64 + 16 * (elements + self.entries.len() + self.node.len()) + 2 * waiting;
        assert!(outputs <= most, "{outputs} outputs after {said:?}");
        for (key, to) in &came.moved {
            // What one input moved twice may have ended since, or be back where its sessions are.
            let Some(on) = self.node.lookup(key) else { continue };
            if self.sessions.iter().any(|(held, shard)| held == key && shard != on) {
                assert_eq!(on, to, "{key} was sent elsewhere after {said:?}");
            }
        }
        if came.emptied || drops {
            self.entries.clear();
        }
        self.look(now, absurd && !came.emptied, &said);
        came
    }

    fn take(&mut self, output: Output, may_drop: bool, said: &Input, came: &mut Came) {
        match output {
            Output::Send { peer, message } => {
                assert!(self.connected.contains(&peer), "sends {} to {peer}, not connected", message.kind());
                assert!(self.listed.contains(&peer), "sends {} to {peer}, not listed", message.kind());
                came.sent.push((peer, message));
            }
            Output::Disconnect { peer, violation } => {
                // What comes to a node that has just started anew finds nobody greeted.
                let unlisted = may_drop && !self.listed.contains(&peer);
                // An honest peer's hello may be held up for longer than it is waited for.
                let slow = matches!(violation, Violation::Restarted | Violation::Silent);
                let excused = slow || came.emptied || unlisted;
                assert!(
                    excused || !self.honest.contains(&peer),
                    "{peer} is honest, but {violation:?} after {said:?}"
                );
                came.disconnected.push(peer);
            }
            Output::Changed { key, shard } => {
                match shard {
                    Some(shard) => self.view.insert(key, shard),
                    None => self.view.remove(&key),
                };
            }
            Output::Replaced { key, before, after } => {
                assert!(after.precedence(&before).is_lt(), "{key}: {after:?} does not win over {before:?}");
                assert!(
                    !before.is_tombstone() && !after.is_tombstone(),
                    "{key} was not replaced: it began or ended"
                );
            }
            Output::Verdict(verdict) => {
                assert!(verdict.entry.precedence(&verdict.stood).is_lt(), "{verdict:?} decides nothing");
            }
            Output::Disputed { key, .. } => {
                assert!(self.disputed.insert(key.clone()), "{key} is disputed twice")
            }
            Output::Settled { key } => assert!(self.disputed.remove(&key), "{key} was not disputed"),
            Output::PeopleMoved { .. } => {}
            Output::Moved { key, to } => {
                assert!(self.sessions.iter().any(|(held, _)| *held == key), "{key} moved without a session");
                came.moved.insert(key, to);
            }
            Output::Answered { token, .. } => {
                assert!(self.unanswered.remove(&token), "answered twice, or never asked: {token:?}");
            }
            Output::Emptied => {
                self.view.clear();
                self.disputed.clear();
                came.emptied = true;
            }
            Output::Probe { probe, shard, .. } => came.probes.push((probe, shard)),
            Output::Readiness(_) => {}
        }
    }

    /// The table against its bounds, and against itself before.
    fn look(&mut self, now: Now, absurd: bool, said: &Input) {
        let rows = self.node.entries(None, usize::MAX);
        let live = rows.iter().filter(|(_, entry, _)| !entry.is_tombstone()).count();
        let most = self.config.entries_max;
        assert_eq!(live, self.node.len(), "the count of live entries is off after {said:?}");
        let live_max = most + most / 8 + 1;
        assert!(live <= live_max, "{live} live entries of {most} after {said:?}");
        let tombstones = rows.len() - live;
        assert!(tombstones <= most + live_max, "{tombstones} tombstones of {most} after {said:?}");
        assert_eq!(
            self.node.per_shard().values().sum::<u64>(),
            u64::try_from(live).unwrap_or(u64::MAX),
            "shards"
        );
        let (mut entries, mut stand_until) = (BTreeMap::new(), BTreeMap::new());
        let mut visible = 0;
        for (key, entry, remaining_ms) in rows {
            let most = if entry.is_tombstone() { 3 * self.config.ttl_ms } else { self.config.ttl_ms };
            assert!(remaining_ms <= most, "{key} lives for {remaining_ms} ms after {said:?}");
            let found = self.node.lookup(&key);
            assert_eq!(self.view.get(&key), found, "the view of {key} after {said:?}");
            // An entry whose lease is over is asked about before it is used.
            let lapsed = found.is_none() && remaining_ms == 0;
            assert!(found == entry.shard.as_ref() || lapsed, "{key} is not found after {said:?}");
            visible += usize::from(found.is_some());
            if let Some(before) = self.entries.get(&key) {
                // Near its end a tombstone gives way to what was decided after it.
                let until = self.stand_until.get(&key).copied().unwrap_or(u64::MAX);
                let gives_way = before.is_tombstone()
                    && entry.created > before.created
                    && until < now.mono.0 + self.config.ttl_ms / 64 + FADES_MS;
                assert!(
                    entry.precedence(before).is_le() || gives_way,
                    "{key} went from {before:?} to {entry:?} by {said:?}"
                );
            } else {
                // Its own stamps may lie ahead of its own clock, when that was set back.
                let fit = entry.origin == self.config.me || entry.validate(now).is_ok();
                assert!(fit, "{key} is {entry:?} after {said:?}");
            }
            if entry.is_tombstone() {
                stand_until.insert(key.clone(), now.mono.0 + remaining_ms);
            }
            entries.insert(key, entry);
        }
        assert_eq!(self.view.len(), visible, "the view has other keys than the table after {said:?}");
        assert!(!absurd || self.entries == entries, "something absurd changed the table: {said:?}");
        self.entries = entries;
        self.stand_until = stand_until;
        let known = self.listed.len() + self.connected.len();
        assert!(self.node.peers().count() <= known, "{} peers of {known}", self.node.peers().count());
    }

    /// What stands in its table.
    pub(super) fn decisions(&self) -> Decisions<'_> {
        let live = self.entries.iter().filter(|(_, entry)| !entry.is_tombstone());
        live.map(|(key, Entry { shard, generation, rank, created, origin, .. })| {
            (key, (shard.as_ref(), *generation, *rank, *created, origin))
        })
        .collect()
    }

    pub(super) fn assert_all_answered(&self) {
        assert!(self.unanswered.is_empty(), "never answered: {:?}", self.unanswered);
    }
}
