//! Since when two nodes are in contact without a break: what may be demanded of what one knows of the other.

use crate::world::{Seat, State, World};

/// Since when who is in contact with whom.
#[derive(Debug)]
pub(in crate::sim) struct Contacts {
    /// `None` while not.
    since: Vec<Vec<Option<u64>>>,
    connected: Vec<Vec<bool>>,
    /// How long a word took there and back at the most meanwhile.
    slowest: Vec<Vec<u64>>,
}

impl Contacts {
    pub(in crate::sim) fn new(nodes: usize) -> Self {
        Self {
            since: vec![vec![None; nodes]; nodes],
            connected: vec![vec![false; nodes]; nodes],
            slowest: vec![vec![0; nodes]; nodes],
        }
    }

    /// Whether this connection takes the place of another one.
    pub(in crate::sim) fn connected(&mut self, from: Seat, to: Seat) -> bool {
        self.since[from][to] = None;
        std::mem::replace(&mut self.connected[from][to], true)
    }

    pub(in crate::sim) fn disconnected(&mut self, from: Seat, to: Seat) {
        self.connected[from][to] = false;
        self.since[from][to] = None;
        self.since[to][from] = None;
    }

    pub(in crate::sim) fn restarted(&mut self, seat: Seat) {
        for other in 0..self.since.len() {
            self.connected[seat][other] = false;
            self.since[seat][other] = None;
            self.since[other][seat] = None;
        }
    }

    /// Looks at the world; called often.
    pub(in crate::sim) fn look(&mut self, world: &World) {
        let now = world.now_ms();
        for a in 0..world.len() {
            for b in a + 1..world.len() {
                let runs = |seat| world.state(seat) == State::Running && world.is_ready(seat);
                let contact = runs(a)
                    && runs(b)
                    && world.is_connected(a, b)
                    && world.listed(a).contains(&b)
                    && world.listed(b).contains(&a);
                let there_and_back = world.delay(a, b).longest_ms() + world.delay(b, a).longest_ms();
                for (from, to) in [(a, b), (b, a)] {
                    let since = &mut self.since[from][to];
                    *since = if contact { since.or(Some(now)) } else { None };
                    let slowest = &mut self.slowest[from][to];
                    *slowest = if contact { there_and_back.max(*slowest) } else { 0 };
                }
            }
        }
    }

    /// Since when two are in contact.
    pub(in crate::sim) fn since(&self, a: Seat, b: Seat) -> Option<u64> {
        self.since[a][b]
    }

    /// How long a word takes there and back at the most, in milliseconds.
    pub(in crate::sim) fn there_and_back_ms(&self, a: Seat, b: Seat) -> u64 {
        self.slowest[a][b]
    }

    /// Since when a node is in contact with a majority of `listed`, itself among them.
    pub(in crate::sim) fn majority_since(&self, seat: Seat, listed: usize) -> Option<u64> {
        let mut since: Vec<u64> = self.since[seat].iter().copied().flatten().collect();
        let others = listed / 2;
        since.sort_unstable();
        if others == 0 { Some(0) } else { since.get(others - 1).copied() }
    }
}
