//! Decisions: who may make which, that they are never altered, and that the better one stands.

use std::cmp::Ordering;

use shardgate_peering_core::{Reason, Stamp};

use crate::sim::coverage::Sort;
use crate::sim::model::{Decision, Room};
use crate::sim::observer::{Cell, Observer, name};
use crate::sim::setup::Weather;
use crate::world::Scene;

/// A timer of the nodes is coarse by a 64th of the ttl; and messages of the same moment come in some order.
const SLACK_MS: u64 = 1_000;
/// A tombstone of the last moments gives way: elsewhere it has gone. Beside the grain of the timers it is the slowest path.
const FADES_MS: u64 = 1_500;
/// How long a clear takes at the most: two budgets and its way to all.
const CLEARED_MS: u64 = 4_000;

const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Claim => "Claim",
        Reason::Down => "Down",
        Reason::Operator => "Operator",
        Reason::Arbitration => "Arbitration",
        Reason::End => "End",
        Reason::Full => "Full",
    }
}

/// Whether the entry ended and came again since it was looked at; an end itself is told once.
fn ended_between(before: &Cell, decision: &Decision) -> bool {
    let own = decision.is_tombstone() && !before.lapsed;
    before.ends_between > u32::from(own)
}

impl Observer {
    /// The entry of a room at a node became another one.
    pub(in crate::sim) fn check_transition(
        &mut self,
        scene: &Scene<'_>,
        room: Room,
        before: &Cell,
        after: Option<(Decision, Reason)>,
        incoming: &[(Room, Decision)],
    ) {
        let who = name(scene.seat);
        let Some((decision, reason)) = after else {
            // At the bound of tombstones an end is obeyed, and leaves nothing.
            let ends = |old: &Decision| {
                let better = |told: &Decision| told.is_tombstone() && told.against(old) == Ordering::Less;
                incoming.iter().any(|(of, told)| *of == room && better(told))
            };
            if let Some(old) = before.entry.filter(|old| !ends(old)) {
                self.check_removal(scene, room, before, &old);
            }
            return;
        };
        if let Some(old) = before.entry
            && !ended_between(before, &decision)
            && !before.lapsed
            && !self.may_have_lapsed(scene, room, &old)
            && decision.against(&old) != Ordering::Less
        {
            let text = format!("{who} r{room}: {old:?} was replaced by {decision:?}");
            self.accuse("the better decision stands, generations never fall", scene.now_ms, Some(room), text);
        }
        let known = self.ledger.get(room, &decision);
        if let Some(known) = known
            && known.shard != decision.shard
        {
            let text = format!("{who} r{room}: {decision:?} was known with shard {}", known.shard);
            self.accuse("a decision names one shard", scene.now_ms, Some(room), text);
        }
        if known.is_some_and(|known| !known.only_told) {
            return;
        }
        if usize::from(decision.origin) == scene.seat {
            self.ledger.enter(room, &decision, scene.now_ms, before.earliest(scene.now_ms));
            self.check_made(scene, room, before, &decision, reason, incoming);
        } else if known.is_none() {
            let text = format!("{who} r{room}: {decision:?} was never made by its origin");
            self.accuse("decisions are stored as they were made", scene.now_ms, Some(room), text);
        }
    }

    /// A node has made a decision.
    fn check_made(
        &mut self,
        scene: &Scene<'_>,
        room: Room,
        before: &Cell,
        decision: &Decision,
        reason: Reason,
        incoming: &[(Room, Decision)],
    ) {
        self.coverage.saw(Sort::Reason, reason_name(reason));
        self.coverage.saw(Sort::Rank, if decision.alone { "Alone" } else { "Home" });
        let who = name(scene.seat);
        let at = scene.now_ms;
        if !decision.alone && !self.places[scene.seat].ready {
            let text = format!("{who} r{room}: {decision:?} while not ready");
            self.accuse("only a ready node decides as a home", at, Some(room), text);
        }
        self.check_well(scene, room, decision);
        if decision.is_tombstone() {
            self.ended_at.insert(room, at);
            let stood_since =
                before.entry.and_then(|old| self.ledger.get(room, &old)).map_or(at, |old| old.at);
            self.check_end(scene, room, decision, reason, stood_since);
        } else if matches!(reason, Reason::Down | Reason::Operator) {
            self.moved_at.insert(room, at);
        }
        let lapsed = before.entry.is_some_and(|old| self.may_have_lapsed(scene, room, &old));
        if ended_between(before, decision) || before.blurred || before.lapsed || lapsed {
            return;
        }
        // What it knew when it decided: its own entry, or a better one that came with the question.
        let told = incoming.iter().filter(|(of, _)| *of == room).map(|(_, told)| *told);
        let knew = before.entry.into_iter().chain(told).min_by(Decision::against);
        let expected = knew.map_or(1, |knew| knew.generation + 1);
        if decision.generation != expected {
            let text = format!("{who} r{room}: {decision:?} after {knew:?}");
            self.accuse("a decision raises the generation by one", at, Some(room), text);
        }
        let moves = knew.filter(|knew| !knew.is_tombstone());
        let fault = match (reason, moves) {
            (Reason::Claim, Some(_)) => Some("moved by a mere join"),
            (Reason::Down, Some(old)) if !self.found_dead.contains_key(&(room, old.shard)) => {
                Some("nobody found its shard dead")
            }
            (Reason::Down, Some(_))
                if before.moved_at.is_some_and(|moved| at - moved < 30_000 - SLACK_MS) =>
            {
                Some("moved twice in 30 s")
            }
            (Reason::Operator, Some(old))
                if before.moved_at.is_some_and(|moved| at - moved < 30_000 - SLACK_MS)
                    && !self.operator_at.contains_key(&room) =>
            {
                Some(if self.in_maint.contains_key(&(room, old.shard)) {
                    "moved twice in 30 s"
                } else {
                    "no operator asked"
                })
            }
            (Reason::Operator, Some(old))
                if !self.operator_at.contains_key(&room)
                    && !self.in_maint.contains_key(&(room, old.shard)) =>
            {
                Some("no operator asked")
            }
            (Reason::Arbitration, None) => Some("there was nothing to decide about"),
            (Reason::Arbitration, Some(old)) if !self.was_elsewhere(room, old.shard, at) => {
                Some("nobody was elsewhere")
            }
            // By the clocks of two nodes an old one may be young, and by one that has been set while its process was not there.
            (Reason::Arbitration, Some(old))
                if self.verdicts.contains(&(room, old))
                    && old.origin == decision.origin
                    && Stamp(decision.created).wall_ms().saturating_sub(Stamp(old.created).wall_ms())
                        < 30_000
                    && self.ledger.get(room, &old).is_some_and(|known| at < known.at + 29_000) =>
            {
                Some("it was decided already")
            }
            (Reason::End | Reason::Full, None) => Some("there was nothing to end"),
            (Reason::Full, Some(_)) if !self.was_full(scene, incoming) => Some("there was room"),
            (Reason::End | Reason::Full, Some(_)) if !decision.is_tombstone() => Some("an end that is none"),
            _ => None,
        };
        if let (Reason::Down, Some(old)) = (reason, moves) {
            self.check_dead(scene, room, old.shard);
        }
        if let Some(fault) = fault {
            let text = format!("{who} r{room}: {decision:?} ({reason:?}) after {knew:?}: {fault}");
            self.accuse("nothing moves without a reason", at, Some(room), text);
        }
    }

    /// Whether the node may have held as many as the mesh takes since its outputs were seen last: the least capacity of all, and not below a
    /// sixteenth of its own.
    fn was_full(&self, scene: &Scene<'_>, incoming: &[(Room, Decision)]) -> bool {
        let own = self.capacities[scene.seat];
        let least = self.capacities.iter().copied().min().unwrap_or(own).max(own / 16);
        let place = &self.places[scene.seat];
        place.live + incoming.len() + place.placed >= least
    }

    /// A tombstone that has had its time goes without a word, and stands against nothing newer shortly before.
    fn may_have_lapsed(&self, scene: &Scene<'_>, room: Room, old: &Decision) -> bool {
        old.is_tombstone() && scene.now_ms + SLACK_MS >= self.fades_at(room, old)
    }

    /// When a tombstone begins to give way to anything newer.
    fn fades_at(&self, room: Room, tombstone: &Decision) -> u64 {
        let made = self.ledger.get(room, tombstone).map_or(0, |known| known.earliest);
        (made + 3 * self.ttl_ms).saturating_sub(self.ttl_ms / 64 + FADES_MS)
    }

    /// While all is well nobody decides alone, and there is one decision of a generation.
    fn check_well(&mut self, scene: &Scene<'_>, room: Room, decision: &Decision) {
        if self.weather != Weather::Healthy {
            return;
        }
        let (who, at) = (name(scene.seat), scene.now_ms);
        if decision.alone {
            let text = format!("{who} r{room}: {decision:?}");
            self.accuse("nobody decides alone while all is well", at, Some(room), text);
        }
        let first = self.first_of.insert((room, decision.generation), (*decision, at));
        if let Some((other, made)) = first
            && other != *decision
            && at + SLACK_MS < made + 3 * self.ttl_ms
        {
            let text = format!("{who} r{room}: {decision:?} beside {other:?}");
            self.accuse("there is one place of decision while all is well", at, Some(room), text);
        }
    }

    /// An entry is gone without a decision.
    fn check_removal(&mut self, scene: &Scene<'_>, room: Room, before: &Cell, old: &Decision) {
        let at = scene.now_ms;
        let who = name(scene.seat);
        if old.is_tombstone() {
            let fades_at = self.fades_at(room, old);
            if at < fades_at {
                let text = format!("{who} r{room}: {old:?} is gone {} ms early", fades_at - at);
                self.accuse("tombstones outlive what they ended", at, Some(room), text);
            }
            return;
        }
        self.coverage.saw(Sort::Bound, "dropped without a decision");
        self.dropped_at.insert(room, at);
        // Of several inputs at once the first may have removed it, and a later one used it.
        let after = |since: u64| before.blurred && since == at;
        if self.places[scene.seat].held.get(&room).is_some_and(|(since, _)| !after(*since)) {
            let text = format!("{who} r{room}: {old:?} is gone under open sessions");
            self.accuse("a held entry never ends", at, Some(room), text);
        } else if self.operator_at.get(&room).is_some_and(|asked| at < asked + CLEARED_MS) {
            // At the bound of tombstones a clear is a drop.
        } else if before.used_at.is_some_and(|used| at < used + self.ttl_ms && !after(used)) {
            let text = format!("{who} r{room}: {old:?} is gone, used {:?}", before.used_at);
            self.accuse("an entry lives one ttl after its last use", at, Some(room), text);
        }
    }

    /// What a peer sent and the node took stands in its table, or something better.
    pub(in crate::sim) fn check_applied(&mut self, scene: &Scene<'_>, incoming: &[(Room, Decision)]) {
        if self.small_tables {
            return;
        }
        for (room, decision) in incoming {
            let stands = self.places[scene.seat].cell(*room).entry;
            let applied = match stands {
                Some(_) if self.may_have_lapsed(scene, *room, decision) => true,
                Some(stands) => stands.against(decision) != Ordering::Greater,
                None => decision.is_tombstone(),
            };
            if !applied {
                let text = format!("{} r{room}: told {decision:?}, holds {stands:?}", name(scene.seat));
                self.accuse("what is received is applied", scene.now_ms, Some(*room), text);
            }
        }
    }

    /// A node never grants more than its own ttl.
    pub(in crate::sim) fn check_lifetime(
        &mut self,
        scene: &Scene<'_>,
        room: Room,
        decision: &Decision,
        remaining_ms: u64,
    ) {
        let most = if decision.is_tombstone() { 3 * self.ttl_ms } else { self.ttl_ms };
        if remaining_ms > most {
            let text = format!("{} r{room}: {decision:?} lives {remaining_ms} ms on", name(scene.seat));
            self.accuse("lifetimes are clamped", scene.now_ms, Some(room), text);
        }
    }

    /// The read view, as the outputs tell it, is the table.
    pub(in crate::sim) fn check_view(&mut self, scene: &Scene<'_>, room: Room) {
        let key = self.names.key(room);
        let shard = scene.node.lookup(&key).map_or(crate::sim::model::NOWHERE, crate::sim::model::shard_of);
        let view = self.places[scene.seat].cell(room).view;
        if shard != view {
            let text =
                format!("{} r{room}: the table says {shard}, the outputs said {view}", name(scene.seat));
            self.accuse("the read view follows the table", scene.now_ms, Some(room), text);
        }
    }
}
