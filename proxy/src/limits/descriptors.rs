//! File descriptors: how many this process may open, which of them clients may take, and what is done when there is none left.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is kept for connections to shards and peers, and for files: a sixteenth, within these bounds.
const RESERVE_PART: u64 = 16;
const RESERVE_MIN: u64 = 8;
const RESERVE_MAX: u64 = 65_536;

/// Raises the soft limit of open files to the hard one, as HAProxy does, and answers how many may be open now.
pub(crate) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files to {:?}", limit.maximum);
        }
    }
    open_max()
}

fn open_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The limit, as it was at the last look: whoever runs the node may raise it meanwhile (`prlimit`).
#[derive(Debug)]
pub(super) struct Descriptors {
    open_max: AtomicU64,
    short: AtomicBool,
}

impl Descriptors {
    pub(super) fn new() -> Self {
        Self { open_max: AtomicU64::new(open_max()), short: AtomicBool::new(false) }
    }

    pub(super) fn open_max(&self) -> u64 {
        self.open_max.load(Ordering::Relaxed)
    }

    pub(super) fn look(&self) {
        self.open_max.store(open_max(), Ordering::Relaxed);
    }

    /// Whether a client's connection may keep its descriptor. The system gives the lowest free number: who gets a number of the
    /// reserve has come when all below were taken. So clients never hold any of the last ones, and nobody has to count.
    pub(super) fn is_spare(&self, socket: &impl AsRawFd) -> bool {
        let spare = is_below_reserve(socket.as_raw_fd(), self.open_max());
        self.note_short(!spare);
        spare
    }

    /// Notes whether descriptors are short, and says so when that changes.
    pub(super) fn note_short(&self, short: bool) {
        if self.short.load(Ordering::Relaxed) != short {
            self.short.store(short, Ordering::Relaxed);
            let open_max = self.open_max();
            match short {
                true => tracing::warn!(open_max, "open files reach their limit, refusing connections"),
                false => tracing::info!(open_max, "open files are below their limit again"),
            }
        }
    }
}

fn is_below_reserve(number: RawFd, open_max: u64) -> bool {
    let reserve = (open_max / RESERVE_PART).clamp(RESERVE_MIN, RESERVE_MAX);
    u64::try_from(number).is_ok_and(|number| number < open_max.saturating_sub(reserve))
}

/// A worker's descriptor for nothing. Given up when there is no other, a connection can be accepted in its place, to be closed at
/// once: its client sees an end instead of waiting in the kernel's queue.
#[derive(Debug)]
pub(crate) struct Spare(RefCell<Option<File>>);

impl Spare {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(open_nothing()))
    }

    /// Whether there was one to give up.
    pub(crate) fn give_up(&self) -> bool {
        self.0.take().is_some()
    }

    /// Takes one again; `false` when somebody else was faster.
    pub(crate) fn restore(&self) -> bool {
        let mut spare = self.0.borrow_mut();
        if spare.is_none() {
            *spare = open_nothing();
        }
        spare.is_some()
    }
}

fn open_nothing() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbers_are_not_for_clients() {
        for (open_max, last) in [(64, 55), (1_024, 959), (1 << 20, (1 << 20) - 65_537), (u64::MAX, i32::MAX)]
        {
            assert!(is_below_reserve(last, open_max), "{open_max}");
            if let Some(next) = last.checked_add(1) {
                assert!(!is_below_reserve(next, open_max), "{open_max}");
            }
        }
        assert!(!is_below_reserve(0, 4), "too few for anything");
    }

    #[test]
    fn a_spare_can_be_given_up_once() {
        let spare = Spare::new();
        assert!(spare.give_up());
        assert!(!spare.give_up());
        assert!(spare.restore() && spare.give_up());
    }
}
