//! Every claim is answered exactly once, within a bound while its node runs.

use std::collections::BTreeMap;

use shardgate_peering_core::ClaimToken;

use crate::sim::model::Room;
use crate::sim::observer::{Observer, name};
use crate::world::{Seat, State, World};

/// Two budgets of at most 1 s, and how often this is looked at.
const ANSWER_MAX_MS: u64 = 2_600;
/// With probes a budget is 1.6 s longer, and a round of one's own may follow. Whoever asks about the same room may wait with such a claim.
const ANSWER_DOWN_MAX_MS: u64 = ANSWER_MAX_MS + 2 * 1_600 + 500;

#[derive(Debug)]
struct Asked {
    seat: Seat,
    life: u64,
    room: Room,
    /// Since when its node has had time for it.
    since: u64,
    /// Until its answer.
    most_ms: u64,
}

/// Whether a shard may be probed before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Probes {
    /// It says that a shard cannot be reached.
    Perhaps,
    /// It does not.
    No,
}

/// Claims that wait for their answer.
#[derive(Debug, Default)]
pub(in crate::sim) struct Claims {
    waiting: BTreeMap<ClaimToken, Asked>,
}

impl Claims {
    pub(in crate::sim) fn asked(
        &mut self,
        token: ClaimToken,
        seat: Seat,
        life: u64,
        room: Room,
        since: u64,
        probes: Probes,
    ) {
        let with_such = self
            .waiting
            .values()
            .any(|asked| asked.seat == seat && asked.room == room && asked.most_ms == ANSWER_DOWN_MAX_MS);
        let most_ms = if probes == Probes::Perhaps || with_such { ANSWER_DOWN_MAX_MS } else { ANSWER_MAX_MS };
        self.waiting.insert(token, Asked { seat, life, room, since, most_ms });
    }

    /// Says what is wrong with it.
    pub(in crate::sim) fn answered(&mut self, token: ClaimToken) -> Option<String> {
        let known = self.waiting.remove(&token);
        known.is_none().then(|| format!("token {} was answered before, or never asked", token.0))
    }

    pub(in crate::sim) fn crashed(&mut self, seat: Seat) {
        self.waiting.retain(|_, asked| asked.seat != seat);
    }
}

impl Observer {
    pub(in crate::sim) fn check_claims(&mut self, world: &World) {
        let now = world.now_ms();
        let mut late = None;
        for (token, asked) in &mut self.claims.waiting {
            if world.state(asked.seat) != State::Running {
                asked.since = now;
            } else if now - asked.since > asked.most_ms {
                late = Some((token.0, asked.seat, asked.life, asked.room, asked.since));
                break;
            }
        }
        if let Some((token, seat, _life, room, since)) = late {
            let text = format!("{}: token {token} about r{room} waits since {since}", name(seat));
            self.accuse("every claim is answered", now, Some(room), text);
        }
    }
}
