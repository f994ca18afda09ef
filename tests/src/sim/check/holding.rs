//! Held and used rooms do not end.

use std::cmp::Ordering;

use shardgate_peering_core::Reason;

use crate::sim::model::{Decision, Room};
use crate::sim::observer::{Observer, name};
use crate::world::{Scene, Seat, State, World};

/// How long a node that holds a room may be without its entry: two budgets for the claim, and the way there.
const GONE_MAX_MS: u64 = 4_000;
const SLACK_MS: u64 = 1_500;
/// So much of it is for the way there and back.
const WAY_MS: u64 = 800;

impl Observer {
    /// A node ends a room for everyone: nobody that it is in contact with may hold it nor, unless the end is early on purpose, have
    /// used it within the ttl.
    pub(in crate::sim) fn check_end(
        &mut self,
        scene: &Scene<'_>,
        room: Room,
        end: &Decision,
        reason: Reason,
        stood_since: u64,
    ) {
        let (at, ttl_ms) = (scene.now_ms, self.ttl_ms);
        let long = ttl_ms + 2 * SLACK_MS;
        if stood_since + SLACK_MS > at {
            // Who holds the key has hardly heard that it has an entry.
            return;
        }
        for seat in 0..self.places.len() {
            let near = seat == scene.seat
                || self.contacts.since(seat, scene.seat).is_some_and(|since| since + long <= at);
            if !near {
                continue;
            }
            let slow_ms = self.contacts.there_and_back_ms(seat, scene.seat).saturating_sub(WAY_MS);
            if stood_since + SLACK_MS + slow_ms > at {
                // What it says of that entry is still on its way.
                continue;
            }
            // It has a newer entry already, which this end does not touch.
            let newer = |entry: Decision| entry.against(end) == Ordering::Less;
            if self.places[seat].cell(room).entry.is_some_and(newer) {
                continue;
            }
            let slack = if seat == scene.seat { 0 } else { SLACK_MS };
            // Of several inputs at once the first may have ended it, and a later one used it.
            let several = seat == scene.seat && self.places[seat].inputs > 1;
            let before = |since: &u64| !several || *since < at;
            let held_since = self.places[seat].held.get(&room).map(|(since, _)| *since).filter(before);
            let used_at = self.places[seat].cell(room).used_at.filter(before);
            if let Some(since) = held_since.filter(|since| since + slack <= at) {
                let text = format!("{} ends r{room}, held at {} since {since}", name(scene.seat), name(seat));
                self.accuse("a held entry never ends", at, Some(room), text);
            } else if reason == Reason::End
                && let Some(used) = used_at.filter(|used| used + slack <= at && at < used + ttl_ms)
            {
                let text = format!("{} ends r{room}, used at {} at {used}", name(scene.seat), name(seat));
                self.accuse("an entry lives one ttl after its last use", at, Some(room), text);
            }
        }
    }

    /// Looks at every node that holds rooms and is connected to a majority.
    pub(in crate::sim) fn check_holding(&mut self, world: &World, gone: &mut Gone) {
        let now = world.now_ms();
        for seat in 0..world.len() {
            let calm = world.state(seat) == State::Running
                && world.is_ready(seat)
                && self
                    .contacts
                    .majority_since(seat, world.listed(seat).len())
                    .is_some_and(|since| since + GONE_MAX_MS <= now);
            let Some(node) = world.node(seat).filter(|_| calm) else {
                gone.0[seat].clear();
                continue;
            };
            if self.small_tables && node.len() >= self.capacities[seat] {
                gone.0[seat].clear();
                continue;
            }
            let rooms: Vec<Room> = self.places[seat].held.keys().copied().collect();
            let mut still = Vec::new();
            for room in rooms {
                if node.lookup(&self.names.key(room)).is_some() {
                    continue;
                }
                let since = gone.0[seat].iter().find(|(of, _)| *of == room).map_or(now, |(_, since)| *since);
                still.push((room, since));
                if now - since > GONE_MAX_MS && !self.small_tables {
                    let text = format!("{} holds r{room} and has no entry since {since}", name(seat));
                    self.accuse("a held entry never ends", now, Some(room), text);
                }
            }
            gone.0[seat] = still;
        }
    }
}

/// Since when held rooms have no entry, by node.
#[derive(Debug)]
pub(in crate::sim) struct Gone(Vec<Vec<(Room, u64)>>);

impl Gone {
    pub(in crate::sim) fn new(nodes: Seat) -> Self {
        Self(vec![Vec::new(); nodes])
    }
}
