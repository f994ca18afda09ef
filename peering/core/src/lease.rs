//! Leases and ends: an entry lives while somebody uses or holds it, and its end is a decision of its home.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::claim::Asked;
use crate::entry::{Entry, Rank, Reason};
use crate::home::first_by_rendezvous;
use crate::id::{PeerId, ShardName, StickKey};
use crate::message::{LeaseReport, Message};
use crate::node::Node;
use crate::output::Output;
use crate::table::Timers;
use crate::time::{Instant, Now};
use crate::update_log::LogKind;

/// What this node itself knows of the use of keys: requests and open sessions here.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// Each of them stands in `due` at its [`Use::next`], and perhaps once more later, which is passed over.
    keys: BTreeMap<StickKey, Use>,
    due: Timers,
    /// Open sessions per key and shard.
    sessions: BTreeMap<StickKey, BTreeMap<ShardName, u32>>,
}

#[derive(Debug)]
struct Use {
    /// The end of the lease by the last use here.
    lease: Instant,
    /// Whether the home knows of it.
    told: Told,
    /// When the home last heard of the key.
    reported: Instant,
    /// When to look at it again.
    next: Instant,
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
}

impl Node {
    /// A request of this node used the key. The home learns of it at once, or half a ttl after it last heard: any later, and a
    /// lease that it was told of just before its end could run out meanwhile.
    pub(crate) fn used(&mut self, now: Now, key: &StickKey, told: Told) {
        let lease = now.mono + self.config.ttl_ms;
        if let Some(slot) = self.table.get_mut(key).filter(|slot| !slot.entry.is_tombstone()) {
            slot.lease = slot.lease.max(lease);
        } else if !self.uses.holds(key) {
            return;
        }
        if let Some(known) = self.uses.keys.get_mut(key) {
            known.lease = lease;
            match told {
                Told::ByClaim => known.reported = now.mono,
                Told::NotYet => {
                    known.told = told;
                    let at = (known.reported + self.config.ttl_ms / 2).max(now.mono);
                    if at < known.next {
                        known.next = at;
                        self.uses.due.push(at, self.config.timer_grain_ms(), key.clone());
                    }
                }
            }
            return;
        }
        let (reported, next) = match told {
            Told::ByClaim => (now.mono, now.mono + self.config.ttl_ms / 2),
            Told::NotYet => (Instant(0), now.mono),
        };
        self.uses.keys.insert(key.clone(), Use { lease, told, reported, next });
        self.uses.due.push(next, self.config.timer_grain_ms(), key.clone());
    }

    /// A tunnel of the conference was opened here.
    pub(crate) fn session_opened(&mut self, now: Now, key: StickKey, shard: ShardName) {
        *self.uses.sessions.entry(key.clone()).or_default().entry(shard.clone()).or_default() += 1;
        match self.table.shard(&key).cloned() {
            Some(there) if there == shard => {}
            Some(to) => self.outputs.push_back(Output::Moved { key: key.clone(), to }),
            None => self.claim_for_sessions(now, &key),
        }
        self.used(now, &key, Told::NotYet);
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
    }

    /// An end, or nothing at all, stands in the table for a key that has sessions here: it is claimed for the shard they are on.
    pub(crate) fn claim_for_sessions(&mut self, now: Now, key: &StickKey) {
        let most =
            self.uses.sessions_of(key).max_by_key(|(_, number)| *number).map(|(shard, _)| shard.clone());
        let free = self.pending.len() < self.config.claims_max && !self.pending.contains_key(key);
        if let Some(shard) = most.filter(|_| free) {
            self.ask(now, key.clone(), Vec::new(), shard, Asked::Join, None);
        }
    }

    /// The end of a key came in that this node holds, or used since: whoever ended it did not know. It is claimed as it was.
    pub(crate) fn answer_end(&mut self, now: Now, key: &StickKey, old: Option<ShardName>) {
        if self.uses.holds(key) {
            self.stats.held_ends_answered += 1;
            self.claim_for_sessions(now, key);
        } else if let Some(old) = old
            && self.uses.keys.get(key).is_some_and(|known| known.lease > now.mono)
            && !self.pending.contains_key(key)
        {
            self.stats.held_ends_answered += 1;
            self.ask(now, key.clone(), Vec::new(), old, Asked::Join, None);
        }
    }

    /// Keys whose use is to be reported now: to their homes in batches, or into the own table.
    pub(crate) fn report_leases(&mut self, now: Now) {
        let mut reports: BTreeMap<PeerId, Vec<(StickKey, u64)>> = BTreeMap::new();
        let mut claims = Vec::new();
        for key in self.uses.due.due(now.mono) {
            let held = self.uses.holds(&key);
            let gone = self.table.shard(&key).is_none();
            let Some(known) = self.uses.keys.get_mut(&key) else { continue };
            if now.mono < known.next {
                continue;
            }
            if held {
                known.lease = now.mono + self.config.ttl_ms;
                known.told = Told::NotYet;
            }
            let Use { lease, told, .. } = *known;
            if (gone || lease <= now.mono) && !held {
                self.uses.keys.remove(&key);
                continue;
            }
            known.next = now.mono + self.config.ttl_ms / 2;
            self.uses.due.push(known.next, self.config.timer_grain_ms(), key.clone());
            if gone {
                // Held, and nobody's entry: an earlier claim was refused or got lost.
                claims.push(key);
                continue;
            }
            if told == Told::ByClaim {
                continue;
            }
            known.told = Told::ByClaim;
            known.reported = now.mono;
            match self.home_of(&key, None) {
                Some(home) if home != self.config.me => {
                    reports.entry(home).or_default().push((key, lease.since_ms(now.mono)));
                }
                Some(_) | None => self.renew(&key, lease),
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
        for (key, remaining_ms) in report.leases {
            self.renew(&key, now.mono + remaining_ms.min(self.config.ttl_ms));
        }
    }

    /// The lease of a live entry reaches at least to `lease`. Everybody is told before their backstop could run out.
    pub(crate) fn renew(&mut self, key: &StickKey, lease: Instant) {
        // Reports come half a ttl apart at most: whoever takes over as home never has a lease that lapses between two of them.
        let far_ms = self.config.ttl_ms / 2;
        let Some(slot) = self.table.get_mut(key).filter(|slot| !slot.entry.is_tombstone()) else { return };
        slot.lease = slot.lease.max(lease);
        if slot.lease.since_ms(slot.announced) >= far_ms && !self.sessions.is_empty() {
            slot.announced = slot.lease;
            self.stats.renewals_sent += 1;
            self.announce(key, LogKind::Renewal);
        }
    }

    /// Whether this node may end the key for everyone: as the first of all listed nodes, connected or not. One that stands in
    /// for a home which is away knows too little of who uses the key; then the backstop of each node applies.
    fn may_end(&self, key: &StickKey) -> bool {
        let listed = self.sessions.iter().filter(|(_, session)| session.listed).map(|(peer, _)| peer);
        self.ready && first_by_rendezvous(key, listed.chain([&self.config.me])) == Some(&self.config.me)
    }

    /// Looks at every entry whose timer ran out: held ones live on, the home ends what nobody renewed, others have a backstop.
    pub(crate) fn expire_entries(&mut self, now: Now) {
        let grain_ms = self.config.timer_grain_ms();
        for key in self.table.due(now.mono) {
            let held = self.uses.holds(&key);
            let Some(slot) = self.table.get_mut(&key) else { continue };
            let tombstone = slot.entry.is_tombstone();
            if held && !tombstone {
                slot.lease = slot.lease.max(now.mono + self.config.ttl_ms);
            }
            let lease = slot.lease;
            let may_end = !tombstone && self.may_end(&key);
            let at = if tombstone {
                lease
            } else if may_end {
                lease + self.config.end_grace_ms()
            } else {
                lease + self.config.ttl_ms
            };
            if now.mono < at {
                // Roles change, and a tombstone's key may be created anew: the timer never waits longer than a home would.
                let soon = if tombstone { now.mono + self.config.ttl_ms / 2 } else { now.mono.max(lease) };
                self.table.set_timer(at.min(soon + self.config.end_grace_ms()), grain_ms, key);
            } else if may_end {
                self.end(now, &key);
            } else {
                self.table.remove(&key);
                if !tombstone {
                    self.outputs.push_back(Output::Changed { key, shard: None });
                }
            }
        }
    }

    /// The home ends a conference for everyone.
    fn end(&mut self, now: Now, key: &StickKey) {
        let Some(slot) = self.table.get(key) else { return };
        let entry = Entry {
            shard: None,
            generation: slot.entry.generation.saturating_add(1).min(crate::GENERATION_MAX),
            rank: Rank::Home,
            created: self.clock.stamp(now.wall),
            origin: self.config.me.clone(),
            reason: Reason::End,
        };
        self.stats.ended += 1;
        self.record(now, key, &entry);
        if self.table.shard(key).is_some() {
            // At the highest generation an end cannot win: the entry goes here, and by the backstop elsewhere.
            self.table.remove(key);
            self.outputs.push_back(Output::Changed { key: key.clone(), shard: None });
            return;
        }
        // `merge` leaves an existing key's timer alone, and this key's has just run out.
        let look_again = now.mono + self.config.ttl_ms / 2;
        self.table.set_timer(look_again, self.config.timer_grain_ms(), key.clone());
    }
}
