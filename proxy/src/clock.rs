//! A worker's time: exact where a log line needs it, and a coarse reading that costs nothing where only a timeout looks at it.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the worker's start.
pub(crate) type Millis = u64;

/// One per worker.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    coarse: Cell<Millis>,
    /// Unix time at the worker's start, as the last tick saw it: it follows the wall clock when that is set.
    wall_at_start: Cell<Millis>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self { start: Instant::now(), coarse: Cell::new(0), wall_at_start: Cell::new(0) };
        clock.tick();
        clock
    }

    /// The exact time.
    pub(crate) fn exact(&self) -> Millis {
        to_millis(self.start.elapsed())
    }

    /// The time of the last tick.
    pub(crate) fn coarse(&self) -> Millis {
        self.coarse.get()
    }

    /// Takes new readings; the worker does so a few times a second.
    pub(crate) fn tick(&self) {
        let now = self.exact();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, to_millis);
        self.coarse.set(now);
        self.wall_at_start.set(wall.saturating_sub(now));
    }

    /// Unix time in milliseconds at `at`.
    pub(crate) fn wall(&self, at: Millis) -> u64 {
        self.wall_at_start.get() + at
    }
}

pub(crate) fn to_millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
