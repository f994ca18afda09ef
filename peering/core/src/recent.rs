//! The last seconds' changes of the table, so that a digest can be told as of a moment that has passed.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::digest::{AsOf, Cell, FAN_OUT, RangeId};
use crate::time::{Instant, Now, Stamp};

/// How long a change is kept: a digest tells of a moment 2 to 3 s ago, and a reconciliation about it takes some seconds.
const KEPT_MS: u64 = 10_000;
/// How many changes are kept: 6,500 a second. Beyond it the oldest go, and a range may look unequal once.
const KEPT_MAX: usize = 65_536;
/// What came here so long before a digest's moment, or so long ago, counts whatever its stamp says: the decider's clock was ahead, and who
/// learned of it late must not count it later than others for longer than this.
const BEFORE_MS: u64 = 500;
const SETTLED_MS: u64 = 4_000;

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

/// What a key was at a moment, when it is something else now.
#[derive(Debug, Clone, Copy)]
struct Undone {
    hash: u64,
    then: State,
    now: State,
}

impl Undone {
    /// What to add to the cell of now.
    fn cell(&self) -> Cell {
        let (then, now) = (self.then.cell(), self.now.cell());
        Cell { sum: then.sum.wrapping_sub(now.sum), count: then.count.wrapping_sub(now.count) }
    }
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
        if before.created.max(after.created).wall_ms() + KEPT_MS >= self.earliest.wall_ms() {
            self.changes.push_back(Change { at: now.mono, hash, before, after });
        }
    }

    /// Keys that were something else at that moment: of each the last state that counts. What came before `from` counts.
    fn undone(&self, as_of: AsOf, from: Instant) -> Vec<Undone> {
        let first = self.changes.partition_point(|change| change.at < from);
        // Where the last change of a key counts by both stamps, so did the ones before.
        let mut changes: Vec<(u64, usize)> = (first..)
            .zip(self.changes.range(first..))
            .filter(|(_, change)| !as_of.counts(change.before.created.max(change.after.created)))
            .map(|(index, change)| (change.hash, index))
            .collect();
        changes.sort_unstable();
        let of_keys = changes.chunk_by(|(one, _), (other, _)| one == other);
        of_keys.filter_map(|of_key| self.undone_of(of_key, as_of)).collect()
    }

    /// Walks a key's changes back, from the last one, to a state that counts.
    fn undone_of(&self, of_key: &[(u64, usize)], as_of: AsOf) -> Option<Undone> {
        let mut changes = of_key.iter().rev().map(|(_, index)| &self.changes[*index]).peekable();
        let Change { hash, after: now, .. } = **changes.peek()?;
        let mut then = now;
        while !as_of.counts(then.created) {
            // What was there before the changes that are known counts.
            let Some(change) = changes.find(|change| change.after == then) else { break };
            then = change.before;
        }
        (then != now).then_some(Undone { hash, then, now })
    }

    /// Takes the first level back to a moment.
    pub(crate) fn take_back(&self, now: Now, ranges: &mut [Cell; FAN_OUT], as_of: AsOf) {
        let ago_ms = now.wall.0.saturating_sub(as_of.0.wall_ms()).saturating_add(BEFORE_MS);
        for undone in self.undone(as_of, now.mono.before(ago_ms.max(SETTLED_MS))) {
            let range = &mut ranges[(undone.hash >> 60) as usize];
            *range = range.plus(undone.cell());
        }
    }

    /// All changes since a moment, for many questions.
    pub(crate) fn since(&self, as_of: AsOf) -> Since {
        let undone = if as_of == AsOf::NOW { Vec::new() } else { self.undone(as_of, Instant::default()) };
        Since { as_of, undone }
    }
}

/// What has changed since a moment, by the keys' hashes.
#[derive(Debug)]
pub(crate) struct Since {
    pub(crate) as_of: AsOf,
    /// In the order of the hashes.
    undone: Vec<Undone>,
}

impl Since {
    fn within(&self, range: RangeId) -> &[Undone] {
        let (first, last) = range.bounds();
        let from = self.undone.partition_point(|undone| undone.hash < first);
        let to = self.undone.partition_point(|undone| undone.hash <= last);
        &self.undone[from..to]
    }

    /// What to add to a range's cell of now.
    pub(crate) fn correction(&self, range: RangeId) -> Cell {
        self.within(range).iter().fold(Cell::default(), |sum, undone| sum.plus(undone.cell()))
    }

    /// The digest that a changed key had at that moment, `None` when it counted nothing.
    pub(crate) fn then(&self, hash: u64) -> Then {
        let found = self.undone.binary_search_by_key(&hash, |undone| undone.hash);
        found.map_or(Then::AsNow, |at| match self.undone[at].then.digest {
            0 => Then::Nothing,
            digest => Then::Digest(digest),
        })
    }

    /// Keys' hashes in a range whose entries are gone since, with the digests that they had.
    pub(crate) fn gone(&self, range: RangeId) -> impl Iterator<Item = (u64, u64)> {
        let gone = |undone: &&Undone| undone.now.digest == 0 && undone.then.digest != 0;
        self.within(range).iter().filter(gone).map(|undone| (undone.hash, undone.then.digest))
    }
}

/// What a key was at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    AsNow,
    Nothing,
    Digest(u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    fn at(ms: u64) -> Now {
        Now { mono: Instant(ms), wall: Wall(1_000_000 + ms), ..Now::default() }
    }

    fn as_of(ms: u64) -> AsOf {
        AsOf(Stamp::at(Wall(1_000_000 + ms)))
    }

    fn state(ms: u64, digest: u64) -> State {
        State { created: as_of(ms).0, digest }
    }

    /// The sum of what stood at a moment, as told at another one.
    fn sum(recent: &Recent, now_ms: u64, moment_ms: u64) -> u64 {
        let mut ranges = [Cell::default(); FAN_OUT];
        recent.take_back(at(now_ms), &mut ranges, as_of(moment_ms));
        ranges[0].sum
    }

    #[test]
    fn a_digest_as_of_a_moment_has_what_stood_then() {
        let mut recent = Recent::default();
        // Created at 1,000, moved at 3,000, ended at 4,000.
        recent.note(at(1_010), 7, State::default(), state(1_000, 11));
        recent.note(at(3_010), 7, state(1_000, 11), state(3_000, 22));
        recent.note(at(4_010), 7, state(3_000, 22), state(4_000, 0));
        for (moment, digest) in [(500, 0_u64), (2_000, 11), (3_500, 22), (5_000, 0)] {
            assert_eq!(sum(&recent, 5_000, moment), digest, "as of {moment}");
            let since = recent.since(as_of(moment));
            let cell = Cell { sum: digest, count: u32::from(digest != 0) };
            assert_eq!(since.correction(RangeId::ROOT), cell);
            let then = match digest {
                _ if moment == 5_000 => Then::AsNow,
                0 => Then::Nothing,
                digest => Then::Digest(digest),
            };
            assert_eq!(since.then(7), then, "as of {moment}");
            assert_eq!(since.then(8), Then::AsNow);
            assert_eq!(since.gone(RangeId::ROOT).count(), usize::from(digest != 0));
        }
    }

    #[test]
    fn a_later_decision_with_an_earlier_stamp_counts_when_its_stamp_does() {
        let mut recent = Recent::default();
        recent.note(at(5_000), 7, State::default(), state(5_000, 11));
        recent.note(at(5_000), 7, state(5_000, 11), state(3_000, 22));
        assert_eq!(recent.since(as_of(4_000)).then(7), Then::AsNow);
        assert_eq!(recent.since(as_of(2_000)).then(7), Then::Nothing);
    }

    #[test]
    fn what_came_long_before_counts_though_its_stamp_is_ahead() {
        let mut recent = Recent::default();
        recent.note(at(1_000), 7, State::default(), state(8_000, 11));
        // 0: counted as it is now.
        assert_ne!(sum(&recent, 4_000, 4_000), 0, "under way, perhaps");
        assert_eq!(sum(&recent, 7_000, 5_000), 0, "heard of before that moment");
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
