//! Plain numbers for time, so that no real clock is ever needed here.

use core::fmt;
use core::ops::Add;

/// A moment on the node's own monotonic clock, in milliseconds since an arbitrary start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Milliseconds from `earlier` to this moment, 0 if that lies later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Instant {
    /// So many milliseconds before this moment, the start at the least.
    #[must_use]
    pub const fn before(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// A moment in steps of 64 ms, where a million of them are kept: eight years from the node's start fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Coarse(u32);

impl Coarse {
    const STEP_MS: u64 = 64;

    pub(crate) fn at_or_before(at: Instant) -> Self {
        Self(u32::try_from(at.0 / Self::STEP_MS).unwrap_or(u32::MAX))
    }

    pub(crate) fn at_or_after(at: Instant) -> Self {
        Self(u32::try_from(at.0.div_ceil(Self::STEP_MS)).unwrap_or(u32::MAX))
    }

    pub(crate) const fn instant(self) -> Instant {
        Instant(self.0 as u64 * Self::STEP_MS)
    }
}

impl Add<u64> for Instant {
    type Output = Self;
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// Wall clock, in milliseconds since the Unix epoch. Used for the stamps of decisions only, never for lifetimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Wall(pub u64);

/// When an input happened, on every clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// The monotonic clock: leases, budgets, timers.
    pub mono: Instant,
    /// The monotonic clock that goes on while the machine sleeps: only to notice that it slept.
    pub boot: Instant,
    /// The wall clock: stamps.
    pub wall: Wall,
}

/// A hybrid logical clock's reading: the upper 48 bits are wall milliseconds, the lower 16 a counter.
///
/// Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots", 2014.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a wall moment.
    #[must_use]
    pub const fn at(wall: Wall) -> Self {
        Self(wall.0 << 16)
    }

    /// Its wall part in milliseconds.
    #[must_use]
    pub const fn wall_ms(self) -> u64 {
        self.0 >> 16
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall_ms(), self.0 & 0xffff)
    }
}

/// How far a received stamp may pull the own clock ahead of the own wall clock.
const FOLLOW_MAX_MS: u64 = 1_000;

/// The node's stamp clock: never repeats, never goes back, follows others by a small bound only.
#[derive(Debug, Clone, Default)]
pub struct StampClock {
    last: Stamp,
}

impl StampClock {
    /// A new stamp, higher than every one given before.
    pub fn stamp(&mut self, wall: Wall) -> Stamp {
        let next = Stamp(self.last.0.saturating_add(1));
        self.last = next.max(Stamp::at(wall));
        self.last
    }

    /// Learns of a stamp given elsewhere. Answers how many milliseconds it lies beyond what this clock follows; 0 is usual.
    pub fn observe(&mut self, stamp: Stamp, wall: Wall) -> u64 {
        let followed = Stamp::at(Wall(wall.0.saturating_add(FOLLOW_MAX_MS)));
        self.last = self.last.max(stamp.min(followed));
        stamp.wall_ms().saturating_sub(wall.0.saturating_add(FOLLOW_MAX_MS))
    }
}

/// What a deadline of [`Node::poll_timeout`](crate::Node::poll_timeout) is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeoutReason {
    /// A claim's budget runs out.
    ClaimBudget,
    /// Lease reports are due.
    LeaseReport,
    /// Entries may have reached their end.
    Expiry,
    /// Updates or acknowledgements that waited for company are due.
    Flush,
    /// Heartbeats are due.
    Heartbeat,
    /// Every peer has heard that this node is ready: it begins to decide.
    Readiness,
    /// The probes of a shard have had their time.
    Verdict,
    /// Somebody who was asked about a split brain has had its time, or a verdict has arrived everywhere.
    Arbitration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_only_grow_and_follow_a_little() {
        let mut clock = StampClock::default();
        let first = clock.stamp(Wall(1_000));
        let second = clock.stamp(Wall(900));
        assert!(second > first, "the wall clock went back, the stamps did not");
        assert_eq!(clock.observe(Stamp::at(Wall(1_500)), Wall(1_000)), 0);
        assert!(clock.stamp(Wall(1_000)).wall_ms() == 1_500);
        let six_hours = 6 * 3_600_000;
        assert_eq!(clock.observe(Stamp::at(Wall(1_000 + six_hours)), Wall(1_000)), six_hours - FOLLOW_MAX_MS);
        assert!(clock.stamp(Wall(1_000)).wall_ms() <= 2_000, "a clock far ahead pulls by the bound only");
    }
}
