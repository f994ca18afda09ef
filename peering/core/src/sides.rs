//! The verdict about a split brain: which of the shards that people of one conference are on they all go to.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::arbitration::Sessions;
use crate::entry::{Entry, GENERATION_MAX, Rank, Reason};
use crate::id::{PeerId, ShardName, StickKey};
#[cfg(feature = "test-hooks")]
use crate::mutation::Mutation;
use crate::node::Node;
use crate::output::{Output, Side, Verdict, Why};
use crate::time::{Instant, Now};

impl Node {
    /// Where most sessions of this node are.
    pub(crate) fn shard_of_most(&self, key: &StickKey) -> Option<ShardName> {
        self.uses.sessions_of(key).max_by_key(|(_, number)| *number).map(|(shard, _)| shard.clone())
    }

    /// A key that was moved off a shard that somebody called dead may have people there still: they hang, or reach it well. While the others are
    /// heard it is probed by all.
    pub(crate) fn probe_sides(&mut self, now: Now, key: &StickKey, told: &Sessions) {
        let Some(entry) = self.table.get(key).map(|slot| &slot.entry) else { return };
        if entry.reason != Reason::Down {
            return;
        }
        #[cfg(feature = "test-hooks")]
        if self.mutation == Some(Mutation::DeadSideCounts) {
            return;
        }
        let elsewhere = told.keys().filter(|shard| entry.shard.as_ref() != Some(*shard));
        for shard in elsewhere.cloned().collect::<Vec<_>>() {
            self.probe_unless_known(now, &shard);
        }
    }

    /// When probes of one of these shards are over, if they are under way: timers come late, so it may have been a while ago.
    pub(crate) fn probed_by(&self, told: &BTreeMap<PeerId, Sessions>) -> Option<Instant> {
        let shards = told.values().flat_map(Sessions::keys);
        shards.filter_map(|shard| self.verdicts.under_way_until(shard)).max()
    }

    /// The shard with most people; if there are several, or nobody is left, the one that the join chose.
    pub(crate) fn give_verdict(
        &mut self,
        now: Now,
        key: &StickKey,
        mut told: BTreeMap<PeerId, Sessions>,
        gathered_ms: u64,
    ) {
        if self.is_decided(now, key) {
            // Another one was faster.
            return;
        }
        let Some(stands) = self.table.get(key).map(|slot| slot.entry.clone()) else { return };
        let Some(chosen) = stands.shard.clone() else { return };
        if stands.reason == Reason::Operator {
            // It came in the meantime, and an operator's word is obeyed.
            return;
        }
        told.insert(self.config.me.clone(), self.sessions_here(key));
        let mut sums = Sessions::new();
        for (shard, number) in told.into_values().flatten() {
            let sum = sums.entry(shard).or_default();
            *sum = sum.saturating_add(number);
        }
        if sums.keys().all(|shard| *shard == chosen) {
            // Whoever was elsewhere has left, or has learned meanwhile where it is: a mere conflict.
            return;
        }
        let dead = |shard: &ShardName| stands.reason == Reason::Down && self.is_dead(now, shard);
        let alive: Sessions = sums
            .iter()
            .filter(|(shard, _)| !dead(shard))
            .map(|(shard, number)| (shard.clone(), *number))
            .collect();
        let (winner, why) = match winner(&sums, &chosen) {
            (first, _) if dead(&first) => (winner(&alive, &chosen).0, Why::Reached),
            reached => reached,
        };
        #[cfg(feature = "test-hooks")]
        let winner = match sums.keys().find(|shard| **shard != chosen) {
            Some(other) if self.mutation == Some(Mutation::TieMovesWinner) && why == Why::Join => {
                other.clone()
            }
            _ => winner,
        };
        let entry = Entry {
            shard: Some(winner),
            generation: stands.generation.saturating_add(1).min(GENERATION_MAX),
            rank: Rank::Home,
            created: self.clock.stamp(now.wall),
            origin: self.config.me.clone(),
            reason: Reason::Arbitration,
        };
        if entry.precedence(&stands).is_ge() {
            // At the highest generation what stands there may win.
            return;
        }
        self.stats.verdicts += 1;
        // It is final for the pause between two moves.
        self.moved_at.insert(key.clone(), now.mono);
        self.record(now, key, &entry);
        self.misplaced.insert(key.clone());
        let mut sides: Vec<Side> =
            sums.into_iter().map(|(shard, sessions)| Side { shard, sessions }).collect();
        sides.sort_by(|one, other| {
            other.sessions.cmp(&one.sessions).then_with(|| one.shard.cmp(&other.shard))
        });
        sides.truncate(crate::arbitration::SIDES_MAX);
        let verdict = Verdict { key: key.clone(), stood: stands, entry, sides, why, gathered_ms };
        self.outputs.push_back(Output::Verdict(verdict));
    }
}

/// The shard with most sessions: the one that the join chose if no other one has more.
fn winner(sums: &Sessions, chosen: &ShardName) -> (ShardName, Why) {
    let most = sums.values().copied().max().unwrap_or(0);
    let mut best = sums.iter().filter(|(_, number)| **number == most).map(|(shard, _)| shard);
    if sums.get(chosen).copied().unwrap_or(0) == most {
        let tied = best.any(|shard| shard != chosen);
        return (chosen.clone(), if tied { Why::Join } else { Why::MostSessions });
    }
    (best.next().unwrap_or(chosen).clone(), Why::MostSessions)
}
