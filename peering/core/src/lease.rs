//! Leases and ends: an entry lives while somebody uses or holds it, and its end is a decision of its home.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::claim::{Asked, Question};
use crate::digest::{entry_digest, key_hash};
use crate::entry::{Entry, Rank, Reason};
use crate::hash::hash64;
use crate::home::first_by_rendezvous;
use crate::id::{PeerId, ShardName, StickKey};
use crate::message::{Lease, LeaseReport, Message};
use crate::node::Node;
use crate::output::Output;
use crate::session::Session;
use crate::time::{Coarse, Instant, Now, Stamp};
use crate::timers::{Step, Timers};
use crate::update_log::LogKind;

/// What this node itself knows of the use of keys: requests and open sessions here.
#[derive(Debug)]
pub(crate) struct Uses {
    /// Every key that was used stands here at its [`Use::next`], and perhaps once more later, which is passed over.
    due: Timers<StickKey>,
    /// Open sessions per key and shard.
    sessions: BTreeMap<StickKey, BTreeMap<ShardName, u32>>,
}

/// A key's use at this node. It stands in every slot, so it is packed.
#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed)]
pub(crate) struct Use {
    /// The end of the lease by the last use here.
    pub(crate) lease: Instant,
    /// Whether the home knows of it.
    told: Told,
    /// When the home last heard of the key.
    reported: Coarse,
    /// So many milliseconds before that it had last heard that the key is held here.
    held_before_ms: u32,
    /// When to look at it again.
    next: Step,
}

/// The home has never heard that a key is held here.
const NEVER: u32 = u32::MAX;

impl Use {
    /// The home hears of it now.
    fn reports(&mut self, now: Now, held: Held) {
        let since_ms = u32::try_from(now.mono.since_ms(self.reported.instant())).unwrap_or(NEVER);
        self.held_before_ms = match held {
            Held::Told => 0,
            Held::NotTold => self.held_before_ms.saturating_add(since_ms),
        };
        self.reported = Coarse::at_or_before(now.mono);
    }

    /// How long ago the home heard that the key is held here.
    fn held_told_ms(&self, now: Now) -> Option<u64> {
        let told = self.held_before_ms != NEVER;
        told.then(|| now.mono.since_ms(self.reported.instant()) + u64::from(self.held_before_ms))
    }
}

/// Whether a report said that the key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Told,
    NotTold,
}

/// Whether the home already knows of a use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It answered a claim for it.
    ByClaim,
    /// It is to be reported.
    NotYet,
}

impl Uses {
    pub(crate) const fn new(grain_ms: u64) -> Self {
        Self { due: Timers::new(grain_ms), sessions: BTreeMap::new() }
    }

    /// Sessions of `key` open here, per shard.
    pub(crate) fn sessions_of(&self, key: &StickKey) -> impl Iterator<Item = (&ShardName, u32)> {
        self.sessions.get(key).into_iter().flatten().map(|(shard, number)| (shard, *number))
    }

    pub(crate) fn holds(&self, key: &StickKey) -> bool {
        self.sessions.contains_key(key)
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.due.next()
    }

    /// Keys with sessions here.
    pub(crate) fn held(&self) -> impl Iterator<Item = &StickKey> {
        self.sessions.keys()
    }

    /// Reports that are due are forgotten, since what was used goes with the table; sessions stay.
    pub(crate) fn forget_reports(&mut self) {
        self.due.clear();
    }
}

/// What a node may do about an entry that nobody renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndRole {
    /// The first of all listed nodes, most of them are connected, and so they were for a ttl: it has heard every report, and ends the
    /// key for everyone.
    First,
    /// It stands in for the first one, and most nodes are connected: it hears the reports since then.
    StandIn,
    /// It is the home of what is left, a minority: those it cannot see may use the key, so it binds nobody.
    Minority,
    /// Another node is the home.
    Bystander,
}

impl Node {
    /// A request of this node used the key. The home learns of it at once, or half a ttl after it last heard: any later, and a
    /// lease that it was told of just before its end could run out meanwhile.
    pub(crate) fn used(&mut self, now: Now, key: &StickKey, told: Told) {
        let lease = now.mono + self.config.ttl_ms;
        if !self.extend(now, key, lease) && !self.uses.holds(key) {
            return;
        }
        if let Some(mut known) = self.table.used(key) {
            known.lease = lease;
            match told {
                Told::ByClaim => known.reports(now, Held::NotTold),
                Told::NotYet => {
                    known.told = told;
                    let at = (known.reported.instant() + self.config.ttl_ms / 2).max(now.mono);
                    if self.uses.due.step(at) < { known.next } {
                        known.next = self.uses.due.push(at, key.clone());
                    }
                }
            }
            self.table.set_used(key, Some(known));
            return;
        }
        let (reported, next) = match told {
            Told::ByClaim => (Coarse::at_or_before(now.mono), now.mono + self.config.ttl_ms / 2),
            Told::NotYet => (Coarse::default(), now.mono),
        };
        let next = self.uses.due.push(next, key.clone());
        self.table.set_used(key, Some(Use { lease, told, reported, held_before_ms: NEVER, next }));
    }

    /// The lease of a live entry reaches at least to `lease`. False when there is no such entry.
    pub(crate) fn extend(&mut self, now: Now, key: &StickKey, lease: Instant) -> bool {
        let Some(slot) = self.table.get_mut(key).filter(|slot| !slot.entry.is_tombstone()) else {
            return false;
        };
        slot.extend(lease);
        if self.lease_runs(now, key) {
            let shard = self.table.shard(key).cloned();
            self.outputs.push_back(Output::Changed { key: key.clone(), shard });
        }
        true
    }

    /// Whether an entry that had lapsed has a running lease again.
    pub(crate) fn lease_runs(&mut self, now: Now, key: &StickKey) -> bool {
        let Some(slot) = self.table.get_mut(key).filter(|slot| slot.lapsed && slot.lease > now.mono) else {
            return false;
        };
        slot.lapsed = false;
        true
    }

    /// The home is about to end an entry: a request that came now might take it for living when it is not. It asks the home instead.
    fn lapse(&mut self, key: &StickKey) {
        let Some(slot) = self.table.get_mut(key).filter(|slot| !slot.lapsed) else { return };
        slot.lapsed = true;
        self.outputs.push_back(Output::Changed { key: key.clone(), shard: None });
    }

    /// A tunnel of the conference was opened here.
    pub(crate) fn session_opened(&mut self, now: Now, key: StickKey, shard: ShardName) {
        *self.uses.sessions.entry(key.clone()).or_default().entry(shard.clone()).or_default() += 1;
        match self.table.shard(&key) {
            Some(there) if *there == shard => {}
            Some(_) => {
                // It may have moved while the tunnel was being opened.
                self.came_late(&key);
                self.misplaced.insert(key.clone());
            }
            None => self.claim_for_sessions(now, &key),
        }
        self.used(now, &key, Told::NotYet);
        self.report_hold(now, &key);
    }

    /// The home learns at once that a key is held, unless it knows: a full table must not end it early.
    pub(crate) fn report_hold(&mut self, now: Now, key: &StickKey) {
        let Some(mut known) = self.table.used(key) else { return };
        let heard = known.held_told_ms(now).is_some_and(|ago_ms| ago_ms < self.config.ttl_ms / 2);
        if !heard && self.uses.due.at(known.next) > now.mono {
            known.told = Told::NotYet;
            known.next = self.uses.due.push(now.mono, key.clone());
            self.table.set_used(key, Some(known));
        }
    }

    /// A peer that was away has not heard what is held here meanwhile.
    pub(crate) fn report_holds_to(&mut self, now: Now, peer: &PeerId) {
        let held: Vec<StickKey> =
            self.uses.held().filter(|key| self.report_to(now, key).any(|to| to == *peer)).cloned().collect();
        self.report_holds(now, held);
    }

    /// The held keys that one of these nodes ends, by this node's list.
    pub(crate) fn held_that_ends_at(&self, peers: &[PeerId]) -> Vec<StickKey> {
        let ends_there = |key: &&StickKey| self.first_listed(key).is_some_and(|first| peers.contains(first));
        if peers.is_empty() { Vec::new() } else { self.uses.held().filter(ends_there).cloned().collect() }
    }

    /// Reports these holds now, whoever has heard of them.
    pub(crate) fn report_holds(&mut self, now: Now, held: Vec<StickKey>) {
        for key in held {
            if let Some(known) = self.table.used(&key) {
                self.table.set_used(&key, Some(Use { held_before_ms: NEVER, ..known }));
            }
            self.used(now, &key, Told::NotYet);
            self.report_hold(now, &key);
        }
    }

    /// It was closed; the entry lives one ttl from now.
    pub(crate) fn session_closed(&mut self, now: Now, key: &StickKey, shard: &ShardName) {
        if let Some(shards) = self.uses.sessions.get_mut(key) {
            if let Some(number) = shards.get_mut(shard) {
                *number -= 1;
                if *number == 0 {
                    shards.remove(shard);
                }
            }
            if shards.is_empty() {
                self.uses.sessions.remove(key);
            }
        }
        self.used(now, key, Told::NotYet);
        self.note_left(key);
    }

    /// An end, or nothing at all, stands in the table for a key that has sessions here: it is claimed for the shard they are on.
    pub(crate) fn claim_for_sessions(&mut self, now: Now, key: &StickKey) {
        let most = self.shard_of_most(key);
        if self.pending.contains_key(key) {
            return;
        }
        if self.pending.len() >= 2 * self.config.claims_max {
            // As soon as other claims are answered. Those of requests leave half of the places to these.
            let soon = now.mono + self.config.heartbeat_ms;
            let step = self.uses.due.step(soon);
            if let Some(known) = self.table.used(key).filter(|known| { known.next } > step) {
                let next = self.uses.due.push(soon, key.clone());
                self.table.set_used(key, Some(Use { next, ..known }));
            }
            return;
        }
        if let Some(shard) = most {
            self.claim_unasked(now, key.clone(), shard);
        }
    }

    /// Whether somebody here holds the key or used it less than a ttl ago.
    pub(crate) fn in_use(&self, now: Now, key: &StickKey) -> bool {
        self.uses.holds(key) || self.table.used(key).is_some_and(|known| { known.lease } > now.mono)
    }

    /// The end of a key came in that this node holds, or used since: whoever ended it did not know. It is claimed as it was. An end that
    /// was meant (an operator's, or a full table's) is only answered by who holds it.
    pub(crate) fn answer_end(&mut self, now: Now, key: &StickKey, old: Option<ShardName>, reason: Reason) {
        if self.uses.holds(key) {
            self.stats.held_ends_answered += 1;
            self.claim_for_sessions(now, key);
        } else if reason == Reason::End
            && let Some(old) = old
            && self.in_use(now, key)
            && !self.pending.contains_key(key)
        {
            self.stats.held_ends_answered += 1;
            self.claim_unasked(now, key.clone(), old);
        }
    }

    /// A claim that no request waits for.
    fn claim_unasked(&mut self, now: Now, key: StickKey, shard: ShardName) {
        let question =
            Question { waiters: Vec::new(), proposal: Some(shard), asked: Asked::Join, tried: None };
        self.ask(now, key, question);
    }

    /// Keys whose use is to be reported now: to their homes in batches, or into the own table.
    pub(crate) fn report_leases(&mut self, now: Now) {
        let mut reports: BTreeMap<PeerId, Vec<Lease>> = BTreeMap::new();
        let mut claims = Vec::new();
        for (step, key) in self.uses.due.due(now.mono) {
            let held = self.uses.holds(&key);
            let gone = self.table.shard(&key).is_none();
            let Some(mut known) = self.table.used(&key).filter(|known| step == { known.next }) else {
                continue;
            };
            if held {
                known.lease = now.mono + self.config.ttl_ms;
                known.told = Told::NotYet;
            }
            let Use { lease, told, .. } = known;
            if (gone || lease <= now.mono) && !held {
                self.table.set_used(&key, None);
                continue;
            }
            known.next = self.uses.due.push(now.mono + self.config.ttl_ms / 2, key.clone());
            self.table.set_used(&key, Some(known));
            if gone {
                // Held, and nobody's entry: an earlier claim was refused or got lost.
                claims.push(key);
                continue;
            }
            // Another node may be the one to end the key now, and knows of no use before.
            let again = told == Told::ByClaim;
            if again && known.reported.instant() >= self.listed_at {
                continue;
            }
            known.told = Told::ByClaim;
            known.reports(now, if held { Held::Told } else { Held::NotTold });
            if again {
                // Little of that lease may be left: the next use is told as soon as it would have been.
                let used = Coarse::at_or_before(lease.before(self.config.ttl_ms));
                known.reported = { known.reported }.min(used);
            }
            self.table.set_used(&key, Some(known));
            let mut told_here = true;
            for home in self.report_to(now, &key) {
                if home == self.config.me {
                    continue;
                }
                told_here = false;
                let lease = Lease { key: key.clone(), remaining_ms: lease.since_ms(now.mono), held };
                reports.entry(home).or_default().push(lease);
            }
            if told_here || self.is_home_of(&key) {
                if held {
                    self.note_held(now, &key);
                }
                self.renew(now, &key, lease);
            }
        }
        for key in claims {
            self.claim_for_sessions(now, &key);
        }
        let most = self.config.batch_items;
        for (home, leases) in reports {
            self.stats.leases_reported += leases.len() as u64;
            for part in leases.chunks(most) {
                self.send(&home, Message::LeaseReport(LeaseReport { leases: part.to_vec() }));
            }
        }
    }

    /// A peer reports what it used or holds. Who reports, and whether this node is the home by its own list, does not matter.
    pub(crate) fn on_lease_report(&mut self, now: Now, report: LeaseReport) {
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(crate::mutation::Mutation::LeaseIgnored) {
            return;
        }
        for Lease { key, remaining_ms, held } in report.leases {
            if held {
                self.note_held(now, &key);
            }
            self.renew(now, &key, now.mono + remaining_ms.min(self.config.ttl_ms));
        }
    }

    /// The lease of a live entry reaches at least to `lease`. Everybody is told before their backstop could run out.
    pub(crate) fn renew(&mut self, now: Now, key: &StickKey, lease: Instant) {
        // Reports come half a ttl apart at most: whoever takes over as home never has a lease that lapses between two of them.
        let far_ms = self.config.ttl_ms / 2;
        if !self.extend(now, key, lease) {
            return;
        }
        let Some(slot) = self.table.get_mut(key) else { return };
        if u64::from(slot.untold_ms) >= far_ms && !self.sessions.is_empty() {
            slot.untold_ms = 0;
            self.stats.renewals_sent += 1;
            #[cfg(feature = "test-hooks")]
            if self.mutation == Some(crate::mutation::Mutation::RefreshRewritesDecision) {
                let generation = slot.entry.generation + 1;
                let created = self.clock.stamp(now.wall);
                let entry =
                    Entry { generation, created, origin: self.config.me.clone(), ..slot.entry.clone() };
                self.record(now, key, &entry);
                return;
            }
            self.announce(key, LogKind::Renewal);
        }
    }

    /// What this node may do about a key that nobody renews.
    pub(crate) fn end_role(&self, now: Now, key: &StickKey) -> EndRole {
        if !self.decides {
            return EndRole::Bystander;
        }
        let listed = self.sessions.values().filter(|session| session.listed);
        let (mut all, mut here) = (1, 1);
        for session in listed {
            all += 1;
            here += usize::from(session.streaming());
        }
        let majority = 2 * here > all;
        if majority && self.is_first_listed(key) && self.hears_users(now) {
            EndRole::First
        } else if !self.is_home_of(key) {
            EndRole::Bystander
        } else if majority {
            EndRole::StandIn
        } else {
            EndRole::Minority
        }
    }

    /// Looks at every entry whose timer ran out: held ones live on, the home ends what nobody renewed, others have a backstop.
    pub(crate) fn expire_entries(&mut self, now: Now) {
        let ttl_ms = self.config.ttl_ms;
        let mut asks: BTreeMap<PeerId, Vec<StickKey>> = BTreeMap::new();
        let due = self.table.due(now.mono);
        if !due.is_empty() {
            self.note_who_works(now);
        }
        for key in due {
            let held = self.uses.holds(&key);
            let Some(slot) = self.table.get_mut(&key) else { continue };
            let tombstone = slot.entry.is_tombstone();
            if held && !tombstone {
                slot.extend(now.mono + ttl_ms);
            }
            let lease = slot.lease;
            if tombstone {
                if now.mono < lease {
                    // The key may be created anew: its timer never waits longer than a home would.
                    self.table.set_timer(lease.min(now.mono + ttl_ms / 2), &key);
                } else {
                    self.table.remove(now, &key, Stamp::default());
                }
                continue;
            }
            let role = self.end_role(now, &key);
            let end_grace_ms = self.config.end_grace_ms();
            let lapse = lease + end_grace_ms / 2;
            if now.mono < lapse && role != EndRole::First {
                self.table.set_timer(lapse, &key);
                continue;
            }
            let at = match role {
                EndRole::First => lease + end_grace_ms,
                // Whoever takes another's place has to ask first.
                EndRole::StandIn | EndRole::Minority => (lease + ttl_ms).max(self.works.1 + 2 * end_grace_ms),
                EndRole::Bystander => lease + 2 * ttl_ms,
            };
            if now.mono < at {
                if role != EndRole::First {
                    self.lapse(&key);
                }
                // One that cannot reach the first listed node hears no renewals and asks at once, others when that one seems to fail.
                let cut_off = role != EndRole::First && !self.hears_first(&key);
                let ask_from = if cut_off { lapse } else { lease + ttl_ms / 2 };
                let last_chance = now.mono >= at.before(2 * end_grace_ms);
                let asks_now = now.mono >= ask_from && now.mono < lease + ttl_ms;
                if role != EndRole::First && (asks_now || last_chance) {
                    let whom = if last_chance {
                        // Before it decides instead of another node, or forgets, it asks everybody: reports may have been lost.
                        self.who_works().cloned().collect()
                    } else {
                        self.whom_to_ask(&key)
                    };
                    for peer in whom {
                        asks.entry(peer).or_default().push(key.clone());
                    }
                }
                // Roles change: it is looked at again soon.
                self.table.set_timer(at.min(now.mono + end_grace_ms), &key);
                continue;
            }
            match role {
                EndRole::First | EndRole::StandIn => {
                    self.end(now, &key, Reason::End);
                    self.table.set_timer(now.mono + ttl_ms / 2, &key);
                }
                EndRole::Minority => {
                    self.stats.dropped_minority += 1;
                    self.drop_for_all(now, &key);
                }
                EndRole::Bystander => {
                    let at = self.clock.stamp(now.wall);
                    self.forget(now, &key, at);
                }
            }
        }
        for (peer, keys) in asks {
            for keys in keys.chunks(self.config.batch_items) {
                self.send(&peer, Message::LeaseAsk { keys: keys.to_vec() });
            }
        }
    }

    /// Whether the key's first listed node is connected, or this one.
    fn hears_first(&self, key: &StickKey) -> bool {
        self.first_listed(key).is_none_or(|first| {
            *first == self.config.me || self.sessions.get(first).is_some_and(Session::streaming)
        })
    }

    /// Two connected peers who may have heard of uses that this node has not: its path to the home may be cut while theirs is not.
    fn whom_to_ask(&self, key: &StickKey) -> Vec<PeerId> {
        let first = first_by_rendezvous(key, self.who_works());
        let others = self.who_works().filter(|peer| Some(*peer) != first);
        let second = first_by_rendezvous(key, others);
        first.into_iter().chain(second).cloned().collect()
    }

    /// Notes when other peers work than before.
    fn note_who_works(&mut self, now: Now) {
        let works = self.who_works().fold(0, |print, peer| print ^ hash64(peer.as_str().as_bytes(), 1));
        if works != self.works.0 {
            self.works = (works, now.mono);
        }
    }

    /// Connected peers that answer.
    fn who_works(&self) -> impl Iterator<Item = &PeerId> {
        self.sessions.iter().filter(|(_, session)| session.may_be_home()).map(|(peer, _)| peer)
    }

    /// A peer's leases of these keys are over: it is told of those that run on here, of those that this node is about to end, and of those
    /// that have ended.
    pub(crate) fn on_lease_ask(&mut self, now: Now, peer: &PeerId, keys: &[StickKey]) {
        for key in keys {
            let there = self.table.get(key);
            if there.is_some_and(|slot| {
                slot.entry.is_tombstone() || slot.lease > now.mono || self.is_first_listed(key)
            }) {
                self.correct(peer, key);
            }
        }
    }

    /// Forgets a key here and, without a decision, at every connected peer.
    fn drop_for_all(&mut self, now: Now, key: &StickKey) {
        let Some(slot) = self.table.get(key) else { return };
        let digest = entry_digest(key_hash(key), &slot.entry);
        let at = self.clock.stamp(now.wall);
        self.forget(now, key, at);
        self.announce(key, LogKind::Dropped { digest, at });
    }

    /// The home ends a conference for everyone.
    pub(crate) fn end(&mut self, now: Now, key: &StickKey, reason: Reason) {
        let Some(slot) = self.table.get(key) else { return };
        if slot.entry.generation >= crate::GENERATION_MAX
            || self.table.tombstones() >= self.config.tombstones_max()
        {
            // No decision can stand above the highest generation, and no tombstone beyond the bound.
            self.stats.tombstones_full += 1;
            self.drop_for_all(now, key);
            return;
        }
        let entry = Entry {
            shard: None,
            generation: slot.entry.generation + 1,
            rank: Rank::Home,
            created: self.clock.stamp(now.wall),
            origin: self.config.me.clone(),
            reason,
        };
        self.stats.ended += 1;
        self.record(now, key, &entry);
    }
}
