//! Planted faults: each breaks one rule of the protocol, so that a test of the rule can be seen to fail.

use crate::entry::{Entry, Join, Rank, join};
use crate::id::{ShardName, StickKey};
use crate::node::Node;
use crate::time::{Now, Stamp};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is said in words by `Mutation::what`")]
pub enum Mutation {
    TieBreakOff,
    MergeByArrival,
    NoRank,
    CreatedClamped,
    DigestSkipped,
    LeaseIgnored,
    LifetimeNotClamped,
    ClaimWithoutFallback,
    MoveWithoutClaim,
    AckBeforeApply,
    TombstoneDroppedEarly,
    PassOnUnlimited,
    UnreadyHomeAnswers,
    CursorKeptOverRestart,
    RefreshRewritesDecision,
    HeldEvicted,
    ZombieKeepsTable,
    MoveWithoutProbe,
    LateProbeCounted,
    KeepMoves,
    RoundWithoutEnd,
    CloseBeforeVerdict,
    ArbiterHearsNobody,
    VerdictNotFinal,
    TieMovesWinner,
    NoNextArbiter,
    MoveAfterCutObeyed,
    DeadSideCounts,
    NewcomerNotAsked,
    JoinDisturbsPeople,
    PastHeard,
    NewHomeAlone,
}

impl Mutation {
    /// Every fault, with its name and what is wrong with it.
    pub const ALL: [(Self, &'static str, &'static str); 32] = [
        (Self::TieBreakOff, "tie-break-off", "of two decisions of one generation each node keeps its own"),
        (Self::MergeByArrival, "merge-by-arrival", "the decision that arrives last wins"),
        (Self::NoRank, "no-rank", "a lone decision counts as much as a home's"),
        (Self::CreatedClamped, "created-clamped", "a receiver moves stamps of the future to its own clock"),
        (Self::DigestSkipped, "digest-skipped", "digests in heartbeats are not compared"),
        (Self::LeaseIgnored, "lease-ignored", "lease reports do not renew"),
        (Self::LifetimeNotClamped, "lifetime-not-clamped", "lifetimes from outside are believed"),
        (Self::ClaimWithoutFallback, "claim-without-fallback", "a claim whose home is silent waits for it"),
        (
            Self::MoveWithoutClaim,
            "move-without-claim",
            "a node that cannot reach a shard moves the key by itself",
        ),
        (
            Self::AckBeforeApply,
            "ack-before-apply",
            "updates are acknowledged, and applied when the next one comes",
        ),
        (Self::TombstoneDroppedEarly, "tombstone-dropped-early", "tombstones live an eighth of a ttl"),
        (
            Self::PassOnUnlimited,
            "pass-on-unlimited",
            "claims are passed on as long as somebody else seems to be the home",
        ),
        (Self::UnreadyHomeAnswers, "unready-home-answers", "a node that is still learning decides as a home"),
        (
            Self::CursorKeptOverRestart,
            "cursor-kept-over-restart",
            "a peer's new incarnation continues the old one's numbers",
        ),
        (Self::RefreshRewritesDecision, "refresh-rewrites-decision", "a renewal makes the decision anew"),
        (Self::HeldEvicted, "held-evicted", "a full table ends entries that are held"),
        (
            Self::ZombieKeepsTable,
            "zombie-keeps-table",
            "a node that was paused goes on as if nothing had been",
        ),
        (Self::MoveWithoutProbe, "move-without-probe", "a home moves a key without having its shard probed"),
        (
            Self::LateProbeCounted,
            "late-probe-counted",
            "an answer to an earlier round counts in the present one",
        ),
        (Self::KeepMoves, "keep-moves", "who is told that a key stays finds it moved"),
        (Self::RoundWithoutEnd, "round-without-end", "a round waits for the answers, however long"),
        (
            Self::CloseBeforeVerdict,
            "close-before-verdict",
            "who learns that a key is elsewhere closes its sessions at once",
        ),
        (Self::ArbiterHearsNobody, "arbiter-hears-nobody", "an arbiter counts its own sessions alone"),
        (Self::VerdictNotFinal, "verdict-not-final", "whoever loses by a verdict asks for another one"),
        (Self::TieMovesWinner, "tie-moves-winner", "of sides as large as each other the join's winner moves"),
        (Self::NoNextArbiter, "no-next-arbiter", "who hears nothing of an arbiter asks it again"),
        (
            Self::MoveAfterCutObeyed,
            "move-after-cut-obeyed",
            "a move that was made behind a cut is obeyed without a verdict",
        ),
        (Self::DeadSideCounts, "dead-side-counts", "people who hang on a dead shard count for it"),
        (Self::NewcomerNotAsked, "newcomer-not-asked", "a round is over without whoever comes meanwhile"),
        (
            Self::JoinDisturbsPeople,
            "join-disturbs-people",
            "a node that starts anew puts a newcomer elsewhere than its own people",
        ),
        (Self::PastHeard, "past-heard", "what was said before a node stood still counts in a hearing"),
        (
            Self::NewHomeAlone,
            "new-home-alone",
            "uses are told to a newcomer alone that is not known everywhere",
        ),
    ];

    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(mutation, ..)| *mutation)
    }
}

/// The join with a fault in it.
pub(crate) fn join_with(mutation: Option<Mutation>, current: &mut Entry, incoming: &Entry) -> Join {
    let replaced = match mutation {
        Some(Mutation::TieBreakOff) => incoming.generation > current.generation,
        Some(Mutation::MergeByArrival) => incoming != current,
        Some(Mutation::NoRank) => {
            let of_home = |entry: &Entry| Entry { rank: Rank::Home, ..entry.clone() };
            of_home(incoming).precedence(&of_home(current)).is_lt()
        }
        _ => return join(current, incoming),
    };
    if incoming.precedence(current).is_eq() {
        return Join::Same;
    }
    if !replaced {
        return Join::Kept;
    }
    *current = incoming.clone();
    Join::Replaced
}

impl Node {
    /// Plants a fault.
    pub fn mutate(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
        self.table.mutation = Some(mutation);
    }

    /// Writes another shard over an entry, as a broken memory would: nobody has decided it, and nobody is told. Answers whether there is one.
    pub fn flip(&mut self, key: &StickKey, shard: &ShardName) -> bool {
        let flipped = self.table.flip(self.now, key, shard);
        if flipped {
            self.tell_view(key, Some(shard.clone()));
        }
        flipped
    }

    pub(crate) fn mutated_on_arrival(&self, now: Now, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        if self.mutation == Some(Mutation::CreatedClamped) {
            entry.created = entry.created.min(Stamp::at(now.wall));
        }
        entry
    }
}
