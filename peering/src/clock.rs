//! The only clock reads of the mesh.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shardgate_peering_core as core;

/// Turns the process' clocks into the core's plain numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> core::Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The kernel's clock that goes on while the machine sleeps (clock_gettime(2), CLOCK_BOOTTIME).
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let boot = u64::try_from(boot.tv_sec).unwrap_or(0) * 1_000
            + u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000_000;
        core::Now {
            mono: core::Instant(millis(self.start.elapsed())),
            boot: core::Instant(boot),
            wall: core::Wall(millis(wall)),
        }
    }

    /// The moment of the core's clock as one of tokio's.
    pub(crate) fn at(&self, moment: core::Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + std::time::Duration::from_millis(moment.0))
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
