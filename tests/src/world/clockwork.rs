//! The queue of what will happen, in the order of time and, at the same time, of cause.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use shardgate_peering_core::{Message, ProbeId, Reached};

use super::seat::Seat;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A message arrives.
    Arrive { from: Seat, to: Seat, connection: u64, message: Box<Message> },
    /// `from` tries to connect to `to`.
    Dial { from: Seat, to: Seat },
    /// The dialling side's handshake is complete.
    Dialled { at: Seat, peer: Seat, connection: u64 },
    /// The other side's.
    Accepted { at: Seat, peer: Seat, connection: u64 },
    /// The peer's close arrives.
    Closed { at: Seat, peer: Seat, connection: u64 },
    /// The idle timeout may have passed.
    Silence { at: Seat, peer: Seat, connection: u64, since: u64 },
    /// A probe of a shard is over.
    Probed { at: Seat, life: u64, probe: ProbeId, reached: Reached },
}

impl Happening {
    /// Whose host it happens at.
    pub(super) const fn seat(&self) -> Seat {
        match self {
            Self::Arrive { to, .. } => *to,
            Self::Dial { from, .. } => *from,
            Self::Dialled { at, .. }
            | Self::Accepted { at, .. }
            | Self::Closed { at, .. }
            | Self::Silence { at, .. }
            | Self::Probed { at, .. } => *at,
        }
    }
}

#[derive(Debug)]
pub(super) struct Due {
    pub(super) at: u64,
    pub(super) sequence: u64,
    pub(super) what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The heap gives the greatest first: that is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Clockwork {
    queue: BinaryHeap<Due>,
    sequence: u64,
}

impl Clockwork {
    pub(super) fn push(&mut self, at: u64, what: Happening) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.queue.push(Due { at, sequence, what });
    }

    /// Puts back what was taken out before, in its old place among others of that time.
    pub(super) fn put_back(&mut self, at: u64, sequence: u64, what: Happening) {
        self.queue.push(Due { at, sequence, what });
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|due| due.at)
    }

    pub(super) fn pop(&mut self) -> Option<Due> {
        self.queue.pop()
    }
}
