//! BOSH sessions of one worker. A body is never parsed, so a session is what can be seen from outside: a client's connection that asks for
//! one conference over and over. It counts while a request of it is held, and for a pause behind the last one; then it is forgotten.
//!
//! A new one is counted, and its conference held, by the next sweep, which comes every second: whoever sends the requests of many clients
//! over one connection would otherwise tell the table of two changes with each of them.

use super::{Counted, HoldChange, Which, seconds};
use crate::clock::Millis;
use foldhash::fast::RandomState;
use shardgate_peering_core::{ShardName, StickKey};
use slab::Slab;
use std::cell::Cell;
use std::collections::HashMap;

/// Conferences of one connection. A client has one; whoever brings more, as a balancer does that shares its connections, is counted for
/// those that were used last.
const KEYS_MAX: usize = 4;

/// Sessions of a worker, new ones included. A request that would begin one more is none's: its conference lives on by what each request says to the table.
const SESSIONS_MAX: usize = 65_536;

/// A session; never another one that got its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BoshId {
    place: u32,
    serial: u32,
}

/// The sessions of a client's connection, the one used last first. It is a word as long as there is none.
#[derive(Default)]
pub(crate) struct BoshOfConnection(Cell<Option<Box<[Option<BoshId>; KEYS_MAX]>>>);

/// Whether a session holds its conference's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldsEntry {
    Yes,
    No,
}

/// Whether the table can be told of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Listens,
    Behind,
}

struct Session {
    serial: u32,
    key: StickKey,
    shard: ShardName,
    holds: HoldsEntry,
    stage: Stage,
    /// When it was counted, in whole seconds since the worker's start.
    began_s: u32,
    /// Requests under way.
    held: u32,
    /// When the last one ended that a shard answered, or its client gave up.
    ended: Option<Millis>,
}

/// Whether a sweep has seen a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Counted,
}

/// The sessions. What holds and releases entries is left in order for whoever tells the table.
#[derive(Default)]
pub(crate) struct Bosh {
    sessions: Slab<Session>,
    /// How many are counted.
    counted: usize,
    /// The places of all, by key.
    of_key: HashMap<StickKey, Vec<u32>, RandomState>,
    serial: u32,
    changes: Vec<HoldChange>,
}

impl Bosh {
    pub(crate) fn len(&self) -> usize {
        self.counted
    }

    /// A connection's request for `token` goes to `shard`. `None` when it is no session's: there are too many.
    pub(crate) fn asks(
        &mut self,
        connection: &BoshOfConnection,
        token: &str,
        shard: &ShardName,
        holds: HoldsEntry,
        table: Table,
    ) -> Option<BoshId> {
        let mut known = connection.0.take();
        let id = self.find(known.as_deref_mut(), token).or_else(|| {
            let id = self.begin(token, shard, holds)?;
            let known = known.get_or_insert_default();
            if let Some(oldest) = known[KEYS_MAX - 1].take() {
                self.end(oldest);
            }
            known.rotate_right(1);
            known[0] = Some(id);
            Some(id)
        });
        connection.0.set(known);
        let session = self.sessions.get_mut(id?.place as usize)?;
        session.held += 1;
        self.goes_to(id?, shard, holds, table);
        id
    }

    /// The session of that key among the connection's; it comes first from now on.
    fn find(&self, known: Option<&mut [Option<BoshId>; KEYS_MAX]>, token: &str) -> Option<BoshId> {
        let known = known?;
        let of_token = |id: &Option<BoshId>| {
            id.and_then(|id| self.session(id)).is_some_and(|session| session.key.as_str() == token)
        };
        let at = known.iter().position(of_token)?;
        known[..=at].rotate_right(1);
        known[0]
    }

    fn begin(&mut self, token: &str, shard: &ShardName, holds: HoldsEntry) -> Option<BoshId> {
        if self.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        // The parser keeps tokens within the key's bounds.
        let key = StickKey::parse(token).ok()?;
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let (stage, shard) = (Stage::New, shard.clone());
        let session =
            Session { serial, key: key.clone(), shard, holds, stage, began_s: 0, held: 0, ended: None };
        // There are fewer than SESSIONS_MAX.
        let place = self.sessions.insert(session) as u32;
        self.of_key.entry(key).or_default().push(place);
        Some(BoshId { place, serial })
    }

    /// A session's request goes to `shard`, and so the session is there.
    pub(crate) fn goes_to(&mut self, id: BoshId, shard: &ShardName, holds: HoldsEntry, table: Table) {
        let Some(session) = self.sessions.get_mut(id.place as usize).filter(|it| it.serial == id.serial)
        else {
            return;
        };
        if (&session.shard, session.holds) == (shard, holds) {
            return;
        }
        if session.stage == Stage::New {
            (session.shard, session.holds) = (shard.clone(), holds);
            return;
        }
        if table == Table::Behind {
            return;
        }
        if holds == HoldsEntry::Yes {
            self.changes.push(HoldChange::Taken(session.key.clone(), shard.clone()));
        }
        let before = std::mem::replace(&mut session.shard, shard.clone());
        if std::mem::replace(&mut session.holds, holds) == HoldsEntry::Yes {
            self.changes.push(HoldChange::Released(session.key.clone(), before));
        }
    }

    /// Where a connection's session for `token` is, or, if it has none, another connection's.
    pub(crate) fn shard_of(&self, connection: &BoshOfConnection, token: &str) -> Option<&ShardName> {
        let known = connection.0.take();
        let own = known.iter().flat_map(|known| known.iter()).flatten();
        let own = own.filter_map(|id| self.session(*id)).find(|session| session.key.as_str() == token);
        let found = own.or_else(|| {
            let places = self.of_key.get(token)?;
            self.sessions.get(*places.first()? as usize)
        });
        connection.0.set(known);
        found.map(|session| &session.shard)
    }

    /// A conference is on `shard` now: its sessions go there. Answers those with requests that another shard holds.
    pub(crate) fn moved(&mut self, key: &StickKey, shard: &ShardName, table: Table) -> Vec<BoshId> {
        let elsewhere = self.of(key).filter(|(_, session)| session.shard != *shard);
        let elsewhere: Vec<BoshId> = elsewhere.map(|(id, _)| id).collect();
        for id in &elsewhere {
            if let Some(holds) = self.session(*id).map(|session| session.holds) {
                self.goes_to(*id, shard, holds, table);
            }
        }
        let is_held = |id: &BoshId| self.session(*id).is_some_and(|session| session.held > 0);
        elsewhere.into_iter().filter(is_held).collect()
    }

    /// A session's request is over.
    pub(crate) fn over(&mut self, id: BoshId, now: Millis) {
        if let Some(session) = self.sessions.get_mut(id.place as usize).filter(|it| it.serial == id.serial) {
            session.held = session.held.saturating_sub(1);
            session.ended = Some(now);
        }
    }

    /// A session's request was answered by this node, with an error. One that never had another is none.
    pub(crate) fn failed(&mut self, id: BoshId) {
        let Some(session) = self.sessions.get_mut(id.place as usize).filter(|it| it.serial == id.serial)
        else {
            return;
        };
        session.held = session.held.saturating_sub(1);
        if session.held == 0 && session.ended.is_none() {
            self.end(id);
        }
    }

    /// Forgets those whose last request ended a `pause` ago, and counts those that are new, when the table can be told of them.
    pub(crate) fn sweep(&mut self, now: Millis, pause: Millis, table: Table) {
        let over = |session: &Session| {
            session.held == 0 && session.ended.is_none_or(|ended| now.saturating_sub(ended) >= pause)
        };
        let over = self.sessions.iter().filter(|(_, session)| over(session));
        let over: Vec<BoshId> =
            over.map(|(place, it)| BoshId { place: place as u32, serial: it.serial }).collect();
        for id in over {
            self.end(id);
        }
        if table == Table::Behind {
            return;
        }
        for (_, session) in self.sessions.iter_mut().filter(|(_, session)| session.stage == Stage::New) {
            (session.stage, session.began_s) = (Stage::Counted, seconds(now));
            self.counted += 1;
            if session.holds == HoldsEntry::Yes {
                self.changes.push(HoldChange::Taken(session.key.clone(), session.shard.clone()));
            }
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        for session in self.sessions.drain() {
            if (session.stage, session.holds) == (Stage::Counted, HoldsEntry::Yes) {
                self.changes.push(HoldChange::Released(session.key, session.shard));
            }
        }
        self.counted = 0;
        self.of_key.clear();
    }

    /// What the table has to hear of, in order.
    pub(crate) fn changes(&mut self) -> impl Iterator<Item = HoldChange> + '_ {
        self.changes.drain(..)
    }

    pub(crate) fn count(&self, which: &Which) -> usize {
        match which {
            Which::All => self.counted,
            Which::Key(key) => self.of(key).filter(|(_, it)| it.stage == Stage::Counted).count(),
            Which::KeyElsewhere { key, shard } => {
                self.of(key).filter(|(_, it)| it.stage == Stage::Counted && it.shard != *shard).count()
            }
            Which::Shard(shard) => self.all().filter(|it| it.shard == *shard).count(),
        }
    }

    /// Adds the sessions of each shard.
    pub(super) fn tally(&self, mut add: impl FnMut(&ShardName, Counted)) {
        for session in self.all() {
            add(&session.shard, Counted { tunnels: 0, bosh: 1 });
        }
    }

    /// Adds a conference's sessions, each with its shard and when it was counted.
    pub(super) fn tally_of(&self, key: &StickKey, mut add: impl FnMut(&ShardName, Counted, u32)) {
        for (_, session) in self.of(key).filter(|(_, session)| session.stage == Stage::Counted) {
            add(&session.shard, Counted { tunnels: 0, bosh: 1 }, session.began_s);
        }
    }

    /// Their conferences.
    pub(crate) fn keys(&self) -> impl Iterator<Item = StickKey> + '_ {
        self.of_key.keys().cloned()
    }

    /// Those that are counted.
    fn all(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().map(|(_, session)| session).filter(|session| session.stage == Stage::Counted)
    }

    fn of(&self, key: &StickKey) -> impl Iterator<Item = (BoshId, &Session)> {
        let places = self.of_key.get(key).map_or(&[][..], Vec::as_slice).iter();
        places.filter_map(|place| {
            let session = self.sessions.get(*place as usize)?;
            Some((BoshId { place: *place, serial: session.serial }, session))
        })
    }

    fn session(&self, id: BoshId) -> Option<&Session> {
        self.sessions.get(id.place as usize).filter(|session| session.serial == id.serial)
    }

    fn end(&mut self, id: BoshId) {
        if self.session(id).is_none() {
            return;
        }
        let Session { key, shard, holds, stage, .. } = self.sessions.remove(id.place as usize);
        if let Some(places) = self.of_key.get_mut(&key) {
            places.retain(|place| *place != id.place);
            if places.is_empty() {
                self.of_key.remove(&key);
            }
        }
        if stage == Stage::New {
            return;
        }
        self.counted -= 1;
        if holds == HoldsEntry::Yes {
            self.changes.push(HoldChange::Released(key, shard));
        }
    }
}

#[cfg(test)]
mod tests;
