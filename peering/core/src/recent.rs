//! The last seconds' changes of the table, so that a digest can be told as of a moment that has passed.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::digest::{AsOf, Cell, FAN_OUT, RangeId};
use crate::time::{Instant, Now, Stamp};

/// How long a change is kept: a digest tells of a moment 2 to 3 s ago, and a reconciliation about it takes some seconds.
const KEPT_MS: u64 = 10_000;
/// How many changes are kept: 6,500 a second. Beyond it the oldest go, and a range may look unequal once.
const KEPT_MAX: usize = 65_536;

/// One side of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// When the decision was taken.
    pub(crate) created: Stamp,
    /// Of a live entry; 0 when there is none.
    pub(crate) digest: u64,
}

impl State {
    fn cell(self) -> Cell {
        Cell { sum: self.digest, count: u32::from(self.digest != 0) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Change {
    at: Instant,
    hash: u64,
    before: State,
    after: State,
}

/// Changes in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    changes: VecDeque<Change>,
    /// The earliest moment that digests tell of these days, here or at a peer, whose clock may be hours behind.
    earliest: Stamp,
}

impl Recent {
    pub(crate) const fn set_earliest(&mut self, earliest: Stamp) {
        self.earliest = earliest;
    }

    pub(crate) fn note(&mut self, now: Now, hash: u64, before: State, after: State) {
        while self.changes.front().is_some_and(|change| now.mono.since_ms(change.at) > KEPT_MS)
            || self.changes.len() >= KEPT_MAX
        {
            self.changes.pop_front();
        }
        // What was decided long ago counts in every digest: a table that is learned leaves no trace here.
        if after.created.wall_ms() + KEPT_MS >= self.earliest.wall_ms() {
            self.changes.push_back(Change { at: now.mono, hash, before, after });
        }
    }

    /// Changes that do not count as of that moment, and what to add to take each back.
    fn undone(&self, as_of: AsOf) -> impl Iterator<Item = (u64, State, Cell)> {
        self.changes.iter().filter(move |change| !as_of.counts(change.after.created)).map(|change| {
            let (before, after) = (change.before.cell(), change.after.cell());
            let cell = Cell {
                sum: before.sum.wrapping_sub(after.sum),
                count: before.count.wrapping_sub(after.count),
            };
            (change.hash, change.before, cell)
        })
    }

    /// Takes the first level back to a moment.
    pub(crate) fn take_back(&self, ranges: &mut [Cell; FAN_OUT], as_of: AsOf) {
        for (hash, _, cell) in self.undone(as_of) {
            let range = &mut ranges[(hash >> 60) as usize];
            *range = range.plus(cell);
        }
    }

    /// All changes since a moment, for many questions.
    pub(crate) fn since(&self, as_of: AsOf) -> Since {
        if as_of == AsOf::NOW {
            return Since { as_of, undone: Vec::new() };
        }
        let mut undone: Vec<(u64, State, Cell)> = self.undone(as_of).collect();
        undone.sort_by_key(|(hash, ..)| *hash);
        Since { as_of, undone }
    }
}

/// What has changed since a moment, by the keys' hashes.
#[derive(Debug)]
pub(crate) struct Since {
    pub(crate) as_of: AsOf,
    undone: Vec<(u64, State, Cell)>,
}

impl Since {
    fn within(&self, range: RangeId) -> &[(u64, State, Cell)] {
        let (first, last) = range.bounds();
        let from = self.undone.partition_point(|(hash, ..)| *hash < first);
        let to = self.undone.partition_point(|(hash, ..)| *hash <= last);
        &self.undone[from..to]
    }

    /// What to add to a range's cell of now.
    pub(crate) fn correction(&self, range: RangeId) -> Cell {
        self.within(range).iter().fold(Cell::default(), |sum, (_, _, cell)| sum.plus(*cell))
    }

    /// The digest that a changed key had at that moment, `None` when there was none.
    pub(crate) fn before(&self, hash: u64) -> Option<u64> {
        let at = self.undone.partition_point(|(other, ..)| *other < hash);
        let (found, state, _) = self.undone.get(at)?;
        (*found == hash && state.digest != 0 && self.as_of.counts(state.created)).then_some(state.digest)
    }

    /// Keys' hashes in a range whose entries are gone since, with the digests that they had.
    pub(crate) fn gone(&self, range: RangeId) -> impl Iterator<Item = (u64, u64)> {
        let mut last = None;
        self.within(range).iter().filter_map(move |(hash, state, _)| {
            let first = last.replace(*hash) != Some(*hash);
            (first && state.digest != 0 && self.as_of.counts(state.created)).then_some((*hash, state.digest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    fn at(ms: u64) -> Now {
        Now { mono: Instant(ms), wall: Wall(1_000_000 + ms), ..Now::default() }
    }

    fn state(ms: u64, digest: u64) -> State {
        State { created: Stamp::at(Wall(1_000_000 + ms)), digest }
    }

    #[test]
    fn a_digest_as_of_a_moment_has_what_stood_then() {
        let mut recent = Recent::default();
        // Created at 1,000, moved at 3,000, ended at 4,000.
        recent.note(at(1_010), 7, State::default(), state(1_000, 11));
        recent.note(at(3_010), 7, state(1_000, 11), state(3_000, 22));
        recent.note(at(4_010), 7, state(3_000, 22), state(4_000, 0));
        for (moment, sum) in [(500, 0_u64), (2_000, 11), (3_500, 22), (5_000, 0)] {
            let as_of = AsOf(Stamp::at(Wall(1_000_000 + moment)));
            let mut ranges = [Cell::default(); FAN_OUT];
            recent.take_back(&mut ranges, as_of);
            assert_eq!((ranges[0].sum, ranges[0].count), (sum, u32::from(sum != 0)), "as of {moment}");
            let since = recent.since(as_of);
            assert_eq!(since.correction(RangeId::ROOT), ranges[0]);
            assert_eq!(since.before(7), (sum != 0).then_some(sum));
            assert_eq!(since.before(8), None);
            assert_eq!(since.gone(RangeId::ROOT).count(), usize::from(sum != 0));
        }
    }

    #[test]
    fn old_decisions_and_old_changes_leave_no_trace() {
        let mut recent = Recent::default();
        recent.set_earliest(state(18_000, 0).created);
        recent.note(at(20_000), 1, State::default(), state(1_000, 5));
        assert!(recent.changes.is_empty(), "taught long after it was decided");
        recent.note(at(20_000), 1, State::default(), state(19_990, 5));
        recent.note(at(40_000), 2, State::default(), state(39_990, 6));
        assert_eq!(recent.changes.len(), 1);
    }
}
