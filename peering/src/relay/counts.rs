//! What is counted of relayed streams.

use std::sync::atomic::{AtomicU64, Ordering};

use super::RelayError;
use crate::codec::RelayRefusal;

/// Who asked for a relayed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelaySide {
    /// A peer: this node connects to the shard.
    In,
    /// This node: a peer connects to the shard.
    Out,
}

impl RelaySide {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The word for it, a label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Beside the refusals: the first frame was none.
const BAD_FRAME: usize = RelayRefusal::ALL.len();

/// Counters of relayed streams, on all connections. They only grow, but for those that are open.
#[derive(Debug, Default)]
pub(crate) struct RelayCounters {
    open: [AtomicU64; 2],
    opened: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    refused: [AtomicU64; BAD_FRAME + 1],
    failed: [AtomicU64; RelayError::LABELS.len()],
}

/// A reading of them.
#[derive(Debug, Clone, Default)]
pub struct RelayCounts {
    /// Streams open now, in the order of [`RelaySide::ALL`].
    pub open: [u64; 2],
    /// Streams that came about.
    pub opened: [u64; 2],
    /// Bytes on them, both ways together.
    pub bytes: [u64; 2],
    /// What this node refused its peers, by why.
    pub refused: Vec<(&'static str, u64)>,
    /// What this node asked its peers for in vain, by why.
    pub failed: Vec<(&'static str, u64)>,
}

impl RelayCounters {
    pub(super) fn opened(&self, side: RelaySide) {
        self.open[side as usize].fetch_add(1, Ordering::Relaxed);
        self.opened[side as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, side: RelaySide) {
        self.open[side as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn moved(&self, side: RelaySide, bytes: usize) {
        self.bytes[side as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, why: RelayRefusal) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bad_frame(&self) {
        self.refused[BAD_FRAME].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, error: &RelayError) {
        self.failed[error.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> RelayCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let both = |of: &[AtomicU64; 2]| [read(&of[0]), read(&of[1])];
        let refusals = RelayRefusal::ALL.into_iter().map(RelayRefusal::as_str).chain(["bad_frame"]);
        RelayCounts {
            open: both(&self.open),
            opened: both(&self.opened),
            bytes: both(&self.bytes),
            refused: refusals.zip(self.refused.iter().map(read)).collect(),
            failed: RelayError::LABELS.into_iter().zip(self.failed.iter().map(read)).collect(),
        }
    }
}
