//! Split brains that this node decided about, for operators: the last ones.

use std::collections::VecDeque;
use std::time::SystemTime;

use shardgate_peering_core::{Entry, PeerId, ShardName, StickKey, Verdict, hash64};

/// So many are kept; of older ones only the counters tell.
const KEPT_MAX: usize = 1_024;

/// A split brain and what was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The same on whichever node it is counted: a hash of the key, what stood there and what was decided.
    pub id: u64,
    /// When it was decided, by this node's wall clock.
    pub at: SystemTime,
    /// What was decided.
    pub verdict: Verdict,
    /// Nodes whose people have all left the shards that were not chosen.
    pub moved: Vec<PeerId>,
    /// When the last of them said so, by this node's wall clock.
    pub moved_at: Option<SystemTime>,
}

impl Divergence {
    pub(crate) fn new(verdict: Verdict, at: SystemTime) -> Self {
        // What tells decisions apart.
        let told = |entry: &Entry| {
            let shard = entry.shard.as_ref().map_or("", ShardName::as_str);
            format!("{shard} {} {} {}", entry.generation, entry.created.0, entry.origin)
        };
        let text = format!("{}\n{}\n{}", verdict.key, told(&verdict.stood), told(&verdict.entry));
        Self { id: hash64(text.as_bytes(), 0), at, verdict, moved: Vec::new(), moved_at: None }
    }
}

/// The last ones, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Divergences(VecDeque<Divergence>);

impl Divergences {
    pub(crate) fn add(&mut self, divergence: Divergence) {
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(divergence);
    }

    /// The people at a node whom the last decision about a key moved have left.
    pub(crate) fn moved(&mut self, key: &StickKey, peer: PeerId, at: SystemTime) {
        let last = self.0.iter_mut().rev().find(|divergence| divergence.verdict.key == *key);
        if let Some(divergence) = last.filter(|divergence| !divergence.moved.contains(&peer)) {
            divergence.moved.push(peer);
            divergence.moved_at = Some(at);
        }
    }

    pub(crate) fn list(&self) -> Vec<Divergence> {
        self.0.iter().cloned().collect()
    }
}
