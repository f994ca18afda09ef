//! Split brains: nobody moves before the verdict, and there is none without people elsewhere.

use shardgate_peering_core::{LinkState, Reason};

use crate::sim::model::{Room, Shard, shard_of};
use crate::sim::observer::{Observer, name};
use crate::world::Scene;

/// What was told of people may be as old: a hearing, and what it takes until it is seen.
const TOLD_MS: u64 = 5_000;
/// Without a verdict for so long, but for the grain of the clocks, a node obeys.
const NO_VERDICT_MS: u64 = 2_900;

impl Observer {
    /// Whether somebody of a room is, or was a moment ago, on another shard.
    pub(in crate::sim) fn was_elsewhere(&self, room: Room, shard: Shard, now: u64) -> bool {
        let held = self.places.iter().filter_map(|place| place.held.get(&room));
        let is = held.flat_map(|(_, shards)| shards.keys()).any(|there| *there != shard);
        let was =
            |((of, there), at): (&(Room, Shard), &u64)| *of == room && *there != shard && now <= at + TOLD_MS;
        is || self.left_at.iter().any(was)
    }

    /// A node ends sessions of a room.
    pub(in crate::sim) fn check_told_to_move(&mut self, scene: &Scene<'_>, room: Room) {
        let asked = self.disputed_since.remove(&(scene.seat, room));
        let key = self.names.key(room);
        let Some((entry, _)) = scene.node.entry(&key) else { return };
        let streaming = |link| matches!(link, LinkState::Learning | LinkState::Reconciled);
        let alone = !scene.node.peers().any(|(_, view)| streaming(view.link));
        let waited = asked.is_some_and(|since| scene.now_ms >= since + NO_VERDICT_MS);
        // A decision that says the same may have overtaken it.
        let told = self.told_by_verdict.remove(&(scene.seat, room));
        let by_verdict = asked.is_some() && told.is_some() && told == entry.shard.as_ref().map(shard_of);
        if entry.reason == Reason::Claim && !alone && !waited && !by_verdict {
            let text = format!(
                "{} r{room}: disputed since {asked:?}, told to move to {:?}",
                name(scene.seat),
                entry.shard
            );
            self.accuse("nobody moves before the verdict", scene.now_ms, Some(room), text);
        }
    }
}
