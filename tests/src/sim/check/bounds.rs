//! Sizes: of messages, of what one input causes, of tables, of what is passed on.

use shardgate_peering_core::Message;

use crate::sim::coverage::Sort;
use crate::sim::observer::{Observer, name};
use crate::world::lane::items_in;
use crate::world::{Scene, Seat};

/// What the decoders take.
const ITEMS_MAX: usize = 1_024;
/// Per peer: full windows of updates and bulk in the smallest batches, corrections, claims asked again.
const OUTPUTS_PER_PEER_MAX: usize = 256;
const OUTPUTS_MAX: usize = 4_096;

/// What is remembered of sizes.
#[derive(Debug, Default)]
pub(in crate::sim) struct Bounds {
    /// The longest queue of outputs.
    pub(in crate::sim) outputs_most: usize,
}

impl Observer {
    pub(in crate::sim) fn check_size(&mut self, scene: &Scene<'_>, to: Seat, message: &Message) {
        if items_in(message) > ITEMS_MAX {
            let text = format!(
                "{} sends {} a {} of {}",
                name(scene.seat),
                name(to),
                message.kind(),
                items_in(message)
            );
            self.accuse("messages are bounded", scene.now_ms, None, text);
        }
        if let Message::Claim(claim) = message
            && claim.hops > 1
        {
            let text = format!("{} sends {} a claim of {} hops", name(scene.seat), name(to), claim.hops);
            self.accuse("a claim is passed on once", scene.now_ms, None, text);
        }
    }

    pub(in crate::sim) fn check_bounds(&mut self, scene: &Scene<'_>) {
        let outputs = std::mem::take(&mut self.places[scene.seat].outputs);
        self.bounds.outputs_most = self.bounds.outputs_most.max(outputs);
        if outputs > OUTPUTS_MAX + OUTPUTS_PER_PEER_MAX * self.places.len() {
            let text = format!("{} puts out {outputs} things at once", name(scene.seat));
            self.accuse("queues are bounded", scene.now_ms, None, text);
        }
        let capacity = self.capacities[scene.seat];
        if scene.node.len() > capacity + capacity / 8 + 1 {
            let text = format!("{} holds {} of {capacity}", name(scene.seat), scene.node.len());
            self.accuse("tables are bounded", scene.now_ms, None, text);
        }
    }

    /// What only public counters show.
    pub(in crate::sim) fn count_turns(&mut self, scene: &Scene<'_>) {
        let stats = scene.node.stats();
        let turns = [
            ("resumed from the log", stats.hellos_resumed),
            ("reconciliation", stats.reconciliations),
            ("reconciliation abandoned", stats.reconciliations_abandoned),
            ("window full", stats.windows_full),
            ("digests unequal", stats.digests_unequal),
            ("dropped by a minority", stats.dropped_minority),
            ("ended early", stats.ended_early),
            ("restart in place", stats.restarts_in_place),
            ("stamp far ahead", stats.stamps_far_ahead),
            ("entry not taken, full", stats.dropped_full),
            ("conflict", stats.conflicts),
            ("claim timed out", stats.claims_timed_out),
            ("claim passed on", stats.claims_passed_on),
            ("held end answered", stats.held_ends_answered),
            ("round: nobody reached it", stats.verdicts_dead),
            ("round: somebody reached it", stats.verdicts_kept),
            ("probe answer late", stats.probe_answers_late),
            ("dispute", stats.disputes),
            ("dispute without a verdict", stats.disputes_without_verdict),
            ("verdict", stats.verdicts),
            ("waiting for probes full", stats.claims_parked_full),
            ("table full", stats.unstored_full),
            ("claims full", stats.claims_full),
            ("waiters full", stats.waiters_full),
            ("tombstones full", stats.tombstones_full),
        ];
        for (name, count) in turns {
            if count > 0 {
                self.coverage.saw(Sort::Bound, name);
            }
        }
    }
}
