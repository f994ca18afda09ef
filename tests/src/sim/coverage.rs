//! What a run has seen: faults, reasons, ranks, bounds, kinds of messages and of client steps, each counted by a fixed name.

use std::collections::BTreeMap;

use shardgate_peering_core::Message;

use super::fault::Kind;

/// A list of things of one sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// What went wrong.
    Fault,
    /// What befell messages on their way.
    Way,
    /// Why decisions were taken.
    Reason,
    /// Where.
    Rank,
    /// Bounds and turns of the protocol that are seldom.
    Bound,
    /// Kinds of messages.
    Message,
    /// What clients did.
    Step,
}

impl Sort {
    /// Its heading.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Fault => "faults that had their effect",
            Self::Way => "messages on their way",
            Self::Reason => "decisions, by reason",
            Self::Rank => "decisions, by rank",
            Self::Bound => "bounds and turns",
            Self::Message => "messages",
            Self::Step => "client steps",
        }
    }
}

const WAYS: &[&str] = &["lost", "doubled", "overtaken"];
const REASONS: &[&str] = &["Claim", "Down", "Operator", "Arbitration", "End", "Full"];
const RANKS: &[&str] = &["Home", "Alone"];
const STEPS: &[&str] = &[
    "racing first join",
    "join",
    "touch",
    "open",
    "close",
    "operator set",
    "clear",
    "cleared",
    "clear of a held one",
    "shard down claim",
    "shard maint claim",
    "kept, by others",
    "kept, directly",
    "moved",
    "disputed",
    "verdict",
    "people moved by a verdict",
];
const BOUNDS: &[&str] = &[
    "round: nobody reached it",
    "round: somebody reached it",
    "probe answer late",
    "waiting for probes full",
    "dispute",
    "dispute without a verdict",
    "verdict",
    "table full",
    "claims full",
    "waiters full",
    "tombstones full",
    "outbox full",
    "window full",
    "fell behind",
    "resumed from the log",
    "reconciliation",
    "reconciliation abandoned",
    "digests unequal",
    "dropped without a decision",
    "dropped by a minority",
    "ended early",
    "restart in place",
    "stamp far ahead",
    "entry not taken, full",
    "conflict",
    "claim timed out",
    "claim passed on",
    "held end answered",
    "connection replaced",
    "dial in vain",
    "silent peer",
];
/// Counts by name.
#[derive(Debug, Clone, Default)]
pub struct Coverage(BTreeMap<(Sort, &'static str), u64>);

impl Coverage {
    /// Counts one.
    pub fn saw(&mut self, sort: Sort, name: &'static str) {
        *self.0.entry((sort, name)).or_default() += 1;
    }

    /// Adds a run: each name that it saw counts once.
    pub fn add_seed(&mut self, seed: &Self) {
        for ((sort, name), count) in &seed.0 {
            if *count > 0 {
                self.saw(*sort, name);
            }
        }
    }

    /// Everything that a sweep must see, with how many seeds saw it.
    #[must_use]
    pub fn wanted(&self) -> Vec<(Sort, &'static str, u64)> {
        let faults = Kind::ALL.iter().map(|kind| (Sort::Fault, kind.name()));
        let lists = [
            (Sort::Way, WAYS),
            (Sort::Reason, REASONS),
            (Sort::Rank, RANKS),
            (Sort::Bound, BOUNDS),
            (Sort::Message, Message::KINDS.as_slice()),
            (Sort::Step, STEPS),
        ];
        let named = lists.into_iter().flat_map(|(sort, names)| names.iter().map(move |name| (sort, *name)));
        faults
            .chain(named)
            .map(|(sort, name)| (sort, name, self.0.get(&(sort, name)).copied().unwrap_or(0)))
            .collect()
    }

    /// What was seen and is on no list: the list is old.
    #[must_use]
    pub fn unlisted(&self) -> Vec<(Sort, &'static str)> {
        let wanted = self.wanted();
        let known = |sort, name| wanted.iter().any(|(s, n, _)| (*s, *n) == (sort, name));
        self.0.keys().copied().filter(|(sort, name)| !known(*sort, name)).collect()
    }
}
