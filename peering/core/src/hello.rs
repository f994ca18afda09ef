//! The beginning and the end of a connection: hello, welcome, and what of the talk before goes on.

use alloc::vec::Vec;

use crate::config::Config;
use crate::id::{PeerId, StickKey};
use crate::message::{Hello, Message, Resume, Welcome};
use crate::node::Node;
use crate::output::{Output, Violation};
use crate::session::{LinkState, Session};
use crate::time::Now;
use crate::update_log::LogKind;

/// The newest numbered contract this node speaks: rendezvous hash, range fold, key normalisation, join order, digest input.
pub(crate) const CONTRACT: u32 = 1;
/// The oldest one.
const CONTRACT_OLDEST: u32 = 1;
/// How long a hello is waited for: as long as a full dial.
const GREETING_MAX_MS: u64 = 3_000;
/// After so many heartbeats that stayed away a peer is suspect.
const SILENT_BEATS: u64 = 3;
/// How long a home's answer is announced by the asker too, should that home be lost.
const DECIDED_FOR_US_MS: u64 = 5_000;

impl Node {
    /// What was meant for the old connection must not go out on the next one, where it would come before the hello.
    pub(crate) fn forget_outputs(&mut self, to: &PeerId) {
        self.outputs.retain(|output| {
            !matches!(output, Output::Send { peer, .. } | Output::Disconnect { peer, .. } if peer == to)
        });
    }

    pub(crate) fn peer_connected(&mut self, now: Now, peer: &PeerId) {
        self.forget_outputs(peer);
        // Answers to what it asked on an older connection are void.
        self.passed_on.retain(|_, passed| passed.asker != *peer);
        self.forget_questions_of(peer);
        let session = self.sessions.entry(peer.clone()).or_insert_with(Session::new);
        if !session.listed {
            self.outputs
                .push_back(Output::Disconnect { peer: peer.clone(), violation: Violation::NotListed });
            return;
        }
        session.lost();
        session.link = LinkState::Greeting;
        session.greeting_since = now.mono;
        let resume = (session.incarnation != 0 && session.reconciled_once)
            .then_some(Resume { incarnation: session.incarnation, through: session.received });
        let hello = Hello {
            contract: CONTRACT,
            contract_oldest: CONTRACT_OLDEST,
            incarnation: self.incarnation,
            ready: self.ready,
            capacity: self.config.entries_max as u64,
            resume,
        };
        self.send(peer, Message::Hello(hello));
    }

    /// A peer whose heartbeats stay away hangs, though its connection stands: it is not asked as a home until the next one.
    pub(crate) fn suspect_the_silent(&mut self, now: Now) {
        let silent_ms = SILENT_BEATS * self.config.heartbeat_ms;
        for session in self.sessions.values_mut().filter(|session| session.streaming()) {
            if now.mono.since_ms(session.heard) >= silent_ms {
                session.suspect = true;
            }
        }
    }

    /// A peer that is connected and says nothing is as good as one that cannot be dialled.
    pub(crate) fn end_silent_greetings(&mut self, now: Now) {
        for (peer, session) in &mut self.sessions {
            if session.link == LinkState::Greeting
                && now.mono.since_ms(session.greeting_since) >= GREETING_MAX_MS
            {
                session.greeting_since = now.mono;
                session.dial_failed = true;
                let violation = Violation::Silent;
                self.outputs.push_back(Output::Disconnect { peer: peer.clone(), violation });
            }
        }
    }

    pub(crate) fn peer_lost(&mut self, now: Now, peer: &PeerId) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        let was_heard = session.streaming();
        session.lost();
        let decided: Vec<StickKey> = session
            .decided_for_us
            .drain(..)
            .filter(|(at, _)| now.mono.since_ms(*at) <= DECIDED_FOR_US_MS)
            .map(|(_, key)| key)
            .collect();
        for key in decided {
            self.announce(&key, LogKind::Decision);
        }
        if was_heard {
            self.mesh_has_changed(now);
        }
        self.passed_on.retain(|_, passed| passed.asker != *peer);
        self.forget_questions_of(peer);
        self.forget_answers_of(now, peer);
        self.forget_arbiter(now, peer);
        self.refuse_passed_to(peer);
        self.reask_claims_of(now, peer);
        self.forget_outputs(peer);
        if self.sessions.get(peer).is_some_and(|session| !session.listed) {
            self.sessions.remove(peer);
        }
        if self.streaming_peers().is_empty() {
            self.alone_since.get_or_insert(now.mono);
        }
    }

    pub(crate) fn on_hello(&mut self, now: Now, peer: &PeerId, hello: Hello) -> Result<(), Violation> {
        let own = self.incarnation;
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if session.link != LinkState::Greeting {
            return Err(Violation::GreetedTwice);
        }
        if hello.contract < CONTRACT_OLDEST || hello.contract_oldest > CONTRACT || hello.incarnation == 0 {
            return Err(Violation::Contract);
        }
        if session.incarnation != hello.incarnation {
            // It started anew: nothing that was known of its numbers holds.
            session.incarnation = hello.incarnation;
            #[cfg(feature = "test-hooks")]
            let keeps = self.mutation == Some(crate::mutation::Mutation::CursorKeptOverRestart);
            #[cfg(not(feature = "test-hooks"))]
            let keeps = false;
            if !keeps {
                session.received = 0;
                session.reconciled_once = false;
            }
        }
        session.ready = hello.ready;
        session.capacity = hello.capacity;
        session.suspect = false;
        session.heard = now.mono;
        session.link = LinkState::Learning;
        let resume =
            hello.resume.filter(|resume| resume.incarnation == own && self.log.reaches(resume.through));
        session.pushed = resume.map_or_else(|| self.log.head(), |resume| resume.through);
        session.acked = session.pushed;
        let welcome = Welcome {
            resumed: resume.is_some(),
            ready: self.ready,
            continues_after: session.pushed,
            head: self.log.head(),
        };
        if welcome.resumed {
            self.stats.hellos_resumed += 1;
        }
        self.send(peer, Message::Welcome(welcome));
        self.end_loneliness(now);
        self.ask_again(now, peer);
        self.ask_who_comes(peer);
        self.ask_for_sessions_again(peer);
        self.reclaim_lone(now, peer);
        Ok(())
    }

    pub(crate) fn on_welcome(&mut self, now: Now, peer: &PeerId, welcome: Welcome) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(peer) else { return Err(Violation::NotListed) };
        if session.link != LinkState::Learning || session.talk.wants {
            return Err(Violation::GreetedTwice);
        }
        session.ready = welcome.ready;
        session.continues_after = welcome.continues_after;
        session.head = welcome.head;
        if welcome.resumed && session.reconciled_once {
            self.has_reconciled(now, peer);
        } else {
            session.talk.wants = true;
        }
        Ok(())
    }

    /// Everything that the peer had has arrived.
    pub(crate) fn has_reconciled(&mut self, now: Now, peer: &PeerId) {
        let Some(session) = self.sessions.get_mut(peer) else { return };
        session.link = LinkState::Reconciled;
        session.reconciled_once = true;
        session.talk.wants = false;
        session.received = session.received.max(session.continues_after).max(session.last_update);
        self.mesh_has_changed(now);
        self.report_holds_to(now, peer);
    }

    /// A node that heard nobody for longer than a ttl does not bring back what ended meanwhile: what nobody here has used since is
    /// of the past.
    fn end_loneliness(&mut self, now: Now) {
        let Some(since) = self.alone_since.take() else { return };
        if now.mono.since_ms(since) >= self.config.ttl_ms {
            self.drop_lapsed(now);
        }
    }
}

impl Config {
    /// The capacity of a peer that is believed: one that is damaged must not make the whole mesh refuse new conferences.
    pub(crate) fn believed_capacity(&self, told: u64) -> usize {
        let least = (self.entries_max / 16).max(1);
        usize::try_from(told).unwrap_or(usize::MAX).max(least)
    }
}
