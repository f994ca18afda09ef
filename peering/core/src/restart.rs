//! A node that was paused starts anew in place: what it knows is of the past.

use alloc::vec::Vec;

use crate::full::EarlyEnds;
use crate::id::{PeerId, StickKey};
use crate::lease::Told;
use crate::message::Message;
use crate::node::Node;
use crate::output::{Output, Unstored, Violation};
use crate::session::LinkState;
use crate::table::Table;
use crate::time::Now;
use crate::update_log::UpdateLog;

/// How many lapsed entries are looked for at a time.
const PAGE: usize = 1_024;

impl Node {
    /// Whether this node did not run for too long, by whatever clock says so: timers wake it every heartbeat.
    pub(crate) fn was_paused(&self, now: Now) -> bool {
        let most = self.config.pause_max_ms;
        now.mono.since_ms(self.now.mono) > most
            || now.boot.since_ms(self.now.boot) > most
            || now.wall.0.saturating_sub(self.now.wall.0) > most
    }

    /// Forgets table, cursors and what was asked, keeps the sessions of this node, and learns anew under a new incarnation.
    pub(crate) fn restart_in_place(&mut self, now: Now) {
        self.stats.restarts_in_place += 1;
        self.incarnation = self.incarnation.wrapping_add(1).max(1);
        self.outputs.retain(|output| {
            !matches!(output, Output::Send { .. } | Output::Changed { .. } | Output::Probe { .. })
        });
        #[cfg(feature = "test-hooks")]
        let mutation = self.table.mutation;
        self.table = Table::new(self.config.entries_max, self.config.timer_grain_ms());
        #[cfg(feature = "test-hooks")]
        {
            self.table.mutation = mutation;
        }
        self.outputs.push_back(Output::Emptied);
        self.log = UpdateLog::new(self.config.log_max);
        self.uses.forget_reports();
        self.passed_on.clear();
        self.lone.clear();
        self.moved_at.clear();
        self.verdicts.clear();
        self.arbitration.clear();
        self.alone_since = None;
        self.turned_away = false;
        self.early_ends = EarlyEnds::default();
        self.ready = false;
        self.decides = false;
        self.told_readiness = None;
        self.next_heartbeat = now.mono + self.config.heartbeat_ms;
        self.claim_deadlines.clear();
        let pending = core::mem::take(&mut self.pending);
        for token in pending.into_values().flat_map(|pending| pending.question.waiters) {
            self.unstored(token, Unstored::Restarted);
        }
        let connected: Vec<PeerId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.connected())
            .map(|(peer, _)| peer.clone())
            .collect();
        for session in self.sessions.values_mut() {
            session.lost();
            session.link = LinkState::Dialing;
            session.incarnation = 0;
            session.received = 0;
            session.reconciled_once = false;
            session.agreed_at = None;
            session.dial_failed = false;
            session.corrections.clear();
            session.decided_for_us.clear();
        }
        for peer in connected {
            self.outputs.push_back(Output::Disconnect { peer, violation: Violation::Restarted });
        }
    }

    /// What the sessions of this node make of the table it has learned: those on another shard are in the wrong place, and who has no
    /// entry claims one for the shard it is on.
    pub(crate) fn compare_sessions(&mut self, now: Now) {
        let held: Vec<StickKey> = self.uses.held().cloned().collect();
        for key in held {
            if self.table.shard(&key).is_none() {
                self.claim_for_sessions(now, &key);
            }
            self.misplaced.insert(key.clone());
            self.used(now, &key, Told::NotYet);
        }
    }

    /// After a ttl alone: entries whose lease is over and that nobody here uses go without a word.
    pub(crate) fn drop_lapsed(&mut self, now: Now) {
        let mut after: Option<StickKey> = None;
        loop {
            let (page, more) = self.table.page(after.as_ref(), PAGE);
            after = page.last().map(|(key, _)| key.clone());
            let lapsed: Vec<StickKey> = page
                .into_iter()
                .filter(|(key, slot)| {
                    !slot.entry.is_tombstone() && slot.lease <= now.mono && !self.in_use(now, key)
                })
                .map(|(key, _)| key)
                .collect();
            for key in lapsed {
                let at = self.clock.stamp(now.wall);
                self.forget(now, &key, at);
            }
            if !more {
                return;
            }
        }
    }

    /// Claims that were asked of this peer on a connection that another one has replaced.
    pub(crate) fn ask_again(&mut self, now: Now, peer: &PeerId) {
        let claims: Vec<Message> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.home == *peer)
            .map(|(key, pending)| Message::Claim(self.claim_message(now, key, pending)))
            .collect();
        for claim in claims {
            self.send(peer, claim);
        }
    }
}
