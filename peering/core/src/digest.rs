//! Digests: what a table holds as a few numbers, so that two nodes find what differs without telling each other everything.
//!
//! Every live entry has a 64-bit digest over its merge fields. The space of the keys' hashes is cut into 16 ranges, each of them
//! into 16, and so on; a range's digest is the sum of its entries' digests, so one changed entry changes one sum per level.
//! Tombstones count nothing: they leave every node at a moment of its own, and one that stands against a live entry shows
//! anyway, by that entry.

use alloc::vec::Vec;
use core::fmt;

use crate::entry::{Entry, Rank};
use crate::hash::hash64;
use crate::id::StickKey;
use crate::time::Stamp;

/// Children of a range, and ranges in a heartbeat.
pub const FAN_OUT: usize = 16;
/// The deepest range: 60 bits of the hash. Whatever is in one is listed.
pub(crate) const DEPTH_MAX: u32 = 15;
/// A decision further ahead of a digest's moment than this comes from a node with a wrong clock, and counts at once: nobody could
/// wait for that moment.
const FAR_AHEAD_MS: u64 = 4_500;

/// A key's place in the space of ranges. Listings of a table come in the order of these, and where two are the same in that of the keys.
#[must_use]
pub fn key_hash(key: &StickKey) -> u64 {
    hash64(key.as_str().as_bytes(), 0)
}

/// The digest of a live entry over its merge fields, 0 for a tombstone. Part of the numbered contract.
#[must_use]
pub(crate) fn entry_digest(key_hash: u64, entry: &Entry) -> u64 {
    let Some(shard) = &entry.shard else { return 0 };
    let rank = match entry.rank {
        Rank::Home => 0,
        Rank::Alone => 1_u64 << 32,
    };
    // One hash over all fields: XXH3 of a short text with a seed is weak, and lets a stamp that is one higher undo a name that is one lower.
    let fields = [
        key_hash,
        hash64(shard.as_str().as_bytes(), 0),
        hash64(entry.origin.as_str().as_bytes(), 0),
        entry.created.0,
        u64::from(entry.generation) | rank,
    ];
    let mut bytes = [0; 40];
    for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    hash64(&bytes, 0)
}

/// The moment of which a digest tells, on the stamps' scale: only what was decided before it counts, on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsOf(pub Stamp);

impl AsOf {
    /// Everything counts.
    pub const NOW: Self = Self(Stamp(u64::MAX));

    /// Whether a decision taken at `created` counts.
    #[must_use]
    pub const fn counts(self, created: Stamp) -> bool {
        created.0 < self.0.0 || created.wall_ms() > self.0.wall_ms().saturating_add(FAR_AHEAD_MS)
    }

    /// An entry's digest cut to 32 bits, differently at each moment: two that are cut alike once are not the next time.
    #[must_use]
    pub(crate) fn cut(self, digest: u64) -> u32 {
        let mixed = (digest ^ self.0.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }
}

/// A range of the keys' hashes: the leading `4 × depth` bits, with a one in front of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(u64);

impl RangeId {
    /// All keys.
    pub const ROOT: Self = Self(1);

    /// Parses a number from outside; `None` when it names no range.
    #[must_use]
    pub const fn parse(number: u64) -> Option<Self> {
        let bits = 64 - number.leading_zeros();
        if number != 0 && (bits - 1).is_multiple_of(4) { Some(Self(number)) } else { None }
    }

    /// As a number for the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// 0 for all keys, at most 15.
    #[must_use]
    pub const fn depth(self) -> u32 {
        (63 - self.0.leading_zeros()) / 4
    }

    /// One of its 16 parts; itself when it is the deepest.
    #[must_use]
    pub const fn child(self, index: usize) -> Self {
        if self.depth() >= DEPTH_MAX { self } else { Self((self.0 << 4) | (index as u64 & 15)) }
    }

    /// Its parts.
    pub fn children(self) -> impl Iterator<Item = Self> {
        (0..FAN_OUT).map(move |index| self.child(index))
    }

    /// The first and the last hash in it.
    #[must_use]
    pub const fn bounds(self) -> (u64, u64) {
        let bits = 4 * self.depth();
        if bits == 0 {
            return (0, u64::MAX);
        }
        let first = self.0 << (64 - bits);
        (first, first | (u64::MAX >> bits))
    }

    /// Whether some hash lies in both.
    #[must_use]
    pub(crate) const fn overlaps(self, other: Self) -> bool {
        let ((first, last), (other_first, other_last)) = (self.bounds(), other.bounds());
        first <= other_last && other_first <= last
    }

    const fn index(self) -> usize {
        (self.0 ^ (1 << (4 * self.depth()))) as usize
    }
}

impl fmt::Debug for RangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth() == 0 {
            return f.write_str("all");
        }
        write!(f, "{:0width$x}*", self.0 ^ (1 << (4 * self.depth())), width = self.depth() as usize)
    }
}

/// What a range holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cell {
    pub(crate) sum: u64,
    pub(crate) count: u32,
}

impl Cell {
    pub(crate) const fn add(&mut self, digest: u64) {
        self.sum = self.sum.wrapping_add(digest);
        self.count = self.count.wrapping_add(1);
    }

    pub(crate) const fn remove(&mut self, digest: u64) {
        self.sum = self.sum.wrapping_sub(digest);
        self.count = self.count.wrapping_sub(1);
    }

    /// Both together; a difference is one that wraps.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { sum: self.sum.wrapping_add(other.sum), count: self.count.wrapping_add(other.count) }
    }
}

/// The sums of all ranges down to a depth; deeper ones are added up when they are asked for.
#[derive(Debug)]
pub(crate) struct Fold {
    /// Levels 1, 2, 3 …
    levels: Vec<Vec<Cell>>,
}

impl Fold {
    /// Deep enough that a range of the last level of a table with `entries_max` entries holds about 16.
    pub(crate) fn new(entries_max: usize) -> Self {
        let mut levels = Vec::new();
        let mut ranges = FAN_OUT;
        loop {
            levels.push(alloc::vec![Cell::default(); ranges]);
            if ranges * FAN_OUT >= entries_max || levels.len() == 5 {
                return Self { levels };
            }
            ranges *= FAN_OUT;
        }
    }

    pub(crate) fn add(&mut self, hash: u64, digest: u64) {
        for (level, cells) in (1_u32..).zip(&mut self.levels) {
            cells[(hash >> (64 - 4 * level)) as usize].add(digest);
        }
    }

    pub(crate) fn remove(&mut self, hash: u64, digest: u64) {
        for (level, cells) in (1_u32..).zip(&mut self.levels) {
            cells[(hash >> (64 - 4 * level)) as usize].remove(digest);
        }
    }

    /// A range's cell; `None` when it lies deeper than what is kept.
    pub(crate) fn cell(&self, range: RangeId) -> Option<Cell> {
        match range.depth() {
            0 => Some(self.levels[0].iter().fold(Cell::default(), |sum, cell| sum.plus(*cell))),
            depth => self.levels.get(depth as usize - 1).map(|cells| cells[range.index()]),
        }
    }

    /// The first level.
    pub(crate) fn ranges(&self) -> [Cell; FAN_OUT] {
        core::array::from_fn(|index| self.levels[0][index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn ranges_nest_and_name_themselves() {
        let root = RangeId::ROOT;
        assert_eq!((root.depth(), root.bounds()), (0, (0, u64::MAX)));
        let a = root.child(10);
        assert_eq!((a.depth(), a.bounds()), (1, (0xa << 60, (0xb << 60) - 1)));
        let a3 = a.child(3);
        assert_eq!(a3.bounds(), (0xa3 << 56, (0xa4 << 56) - 1));
        assert_eq!(format!("{root:?} {a:?} {a3:?}"), "all a* a3*");
        let mut deepest = root;
        while deepest.depth() < DEPTH_MAX {
            deepest = deepest.child(15);
        }
        assert_eq!((deepest.bounds(), deepest.child(1)), ((u64::MAX - 15, u64::MAX), deepest));
        for number in [0, 2, 3, 8, 15, 32, u64::MAX] {
            assert!(RangeId::parse(number).is_none(), "{number}");
        }
        for range in [root, a, a3, deepest] {
            assert_eq!(RangeId::parse(range.number()), Some(range));
        }
    }

    /// Two nodes that decide in the same millisecond: names and stamps that differ by one must not undo each other.
    #[test]
    fn entries_that_are_almost_alike_have_other_digests() {
        let mut seen = alloc::collections::BTreeSet::new();
        let mut entries = 0;
        for (shard, created, origin, generation) in (0..4_u64).flat_map(|shard| {
            (0..32_u64).flat_map(move |created| {
                (0..16_u64).flat_map(move |origin| {
                    (1..4_u32).map(move |generation| (shard, created, origin, generation))
                })
            })
        }) {
            let entry = Entry {
                shard: Some(crate::id::ShardName::parse(&format!("s{shard}")).unwrap()),
                generation,
                rank: Rank::Home,
                created: Stamp((1_795_219_282_802 << 16) + created),
                origin: crate::id::PeerId::parse(&format!("n{origin:02}")).unwrap(),
                reason: crate::entry::Reason::Claim,
            };
            entries += 1;
            seen.insert(entry_digest(7, &entry));
        }
        assert_eq!(seen.len(), entries);
    }

    #[test]
    fn every_level_adds_up_to_the_one_above() {
        let mut fold = Fold::new(1_000);
        for n in 0..500_u64 {
            fold.add(hash64(&n.to_le_bytes(), 0), n + 1);
        }
        for n in 0..100_u64 {
            fold.remove(hash64(&n.to_le_bytes(), 0), n + 1);
        }
        let whole = Cell { sum: (101..=500).sum(), count: 400 };
        assert_eq!(fold.cell(RangeId::ROOT), Some(whole));
        for range in RangeId::ROOT.children() {
            let parts =
                range.children().map(|part| fold.cell(part).unwrap()).fold(Cell::default(), Cell::plus);
            assert_eq!(fold.cell(range), Some(parts));
        }
        assert_eq!(fold.cell(RangeId::ROOT.child(1).child(1).child(1)), None);
    }

    #[test]
    fn what_was_decided_later_does_not_count_and_a_wrong_clock_does_not_hide() {
        let as_of = AsOf(Stamp(1_000_000 << 16));
        assert!(as_of.counts(Stamp((1_000_000 << 16) - 1)) && !as_of.counts(Stamp(1_000_000 << 16)));
        assert!(!as_of.counts(Stamp(1_004_500 << 16)) && as_of.counts(Stamp(1_004_501 << 16)));
        assert!(AsOf::NOW.counts(Stamp(5)) && AsOf::NOW.counts(Stamp(u64::MAX - 1)));
    }
}
