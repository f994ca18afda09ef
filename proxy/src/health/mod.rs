//! Whether shards, and servers of pools, can be used from here: checks, agents, and what real requests met.
//!
//! `checks` is the whole of it as a pure state machine; a thread of its own (`thread`) asks the servers and publishes an immutable
//! [`Health`] whenever something changes. A worker lays it over discovery's snapshot. The rule, written once, is [`Standing::over`]: of what
//! Consul, operators and the agent say the strictest holds (maint, drain, ready), and who is down takes nothing, whatever they say.

use crate::clock::Millis;
use foldhash::fast::RandomState;
use shardgate_discovery::{Shard, ShardState, WEIGHT_MAX};
use shardgate_peering_core::ShardName;
use std::collections::HashMap;

pub mod agent;
mod checks;
mod counter;
mod observe;
mod probe;
mod report;
mod slow_start;
mod target;
mod thread;

pub use counter::Phase;
pub(crate) use observe::{Observed, Observer};
pub use report::{AgentReport, CheckReport, ServerReport};
pub use target::{HealthSettings, Plan};
pub(crate) use thread::CutTold;
pub use thread::{HealthHandle, HealthThread};

/// Whether a server takes connections from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// It does, or nobody has looked.
    #[default]
    Up,
    /// It does not. Whether it is dead its conferences' homes ask of all nodes.
    Down,
    /// It does not, but other nodes reach it, as such a home said.
    Cut,
}

/// A part of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(1 << 16);

    /// `part` of `whole`, in steps of 1/65536; something is never nothing, and more than 256 wholes are as many.
    fn of(part: u64, whole: u64) -> Self {
        let share = (part << 16) / whole.max(1);
        let share = share.max(part.min(1)).min(u64::from(WEIGHT_MAX) << 16);
        Self(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// A share of a share.
    fn times(self, other: Self) -> Self {
        Self::of((u64::from(self.0) * u64::from(other.0)) >> 16, 1 << 16)
    }

    /// The weight that a server of `weight` has, rounded: none is none, a little is at least 1, and [`WEIGHT_MAX`] is the most.
    #[must_use]
    pub fn of_weight(self, weight: u16) -> u16 {
        let exact = u64::from(weight) * u64::from(self.0);
        let scaled = ((exact + (1 << 15)) >> 16).max(exact.min(1));
        u16::try_from(scaled).unwrap_or(WEIGHT_MAX).min(WEIGHT_MAX)
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// What health says of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether it takes connections.
    pub reach: Reach,
    /// What its agent wants: who says that it is down gets no traffic. Default ready.
    pub state: Option<ShardState>,
    /// How much of its weight it gets: its agent's percentage, and the ramp after it came up.
    pub share: Share,
    /// Whether what runs on it was to end when it went down.
    pub sessions: Sessions,
    /// How many requests and tunnels it gets from this node at once, as its agent says; 0 is no limit. `None`: as the configuration says.
    pub connections_max: Option<usize>,
}

/// What becomes of what runs on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sessions {
    /// It goes on.
    #[default]
    Kept,
    /// It has to end: the server went down, and `on_marked_down` says so.
    Ended,
}

impl Standing {
    /// The rule: what discovery lists of a server, under what health says. The strictest state holds (maint, drain, ready); [`Reach::Down`]
    /// stands beside it. `None` when that changes nothing.
    #[must_use]
    pub fn over(&self, listed: &Shard) -> Option<Shard> {
        let state = self.state.map_or(listed.state, |agent| listed.state.max(agent));
        let weight = self.share.of_weight(listed.weight);
        let same = state == listed.state && weight == listed.weight;
        (!same).then(|| Shard { state, weight, ..listed.clone() })
    }
}

/// What this node knows of all servers, of one moment. Who is not in it is well, or not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health(HashMap<ShardName, Standing, RandomState>);

impl Health {
    /// Whether every server is well.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// What it says of a server.
    #[must_use]
    pub fn of(&self, server: &ShardName) -> Standing {
        if self.0.is_empty() { Standing::default() } else { self.0.get(server).copied().unwrap_or_default() }
    }

    /// Whether a server does not take connections from here.
    #[must_use]
    pub fn is_down(&self, server: &ShardName) -> bool {
        self.of(server).reach != Reach::Up
    }

    /// Whether a server does not take connections from here, and other nodes reach it.
    #[must_use]
    pub fn is_cut(&self, server: &ShardName) -> bool {
        self.of(server).reach == Reach::Cut
    }

    /// The ceilings that agents have set.
    pub(crate) fn connections_max(&self) -> HashMap<ShardName, usize> {
        let said =
            self.0.iter().filter_map(|(name, standing)| Some((name.clone(), standing.connections_max?)));
        said.collect()
    }

    /// The servers whose sessions have to end, which `before` did not say.
    pub(crate) fn newly_ended<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a ShardName> {
        let ended = self.0.iter().filter(|(_, standing)| standing.sessions == Sessions::Ended);
        ended.filter(|(name, _)| before.of(name).sessions == Sessions::Kept).map(|(name, _)| name)
    }
}

impl FromIterator<(ShardName, Standing)> for Health {
    fn from_iter<T: IntoIterator<Item = (ShardName, Standing)>>(standings: T) -> Self {
        let all = standings.into_iter();
        Self(all.filter(|(_, standing)| *standing != Standing::default()).collect())
    }
}

/// A moment of the health thread's own clock.
type At = Millis;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::tests::shard;

    #[test]
    fn the_strictest_state_holds() {
        use ShardState::{Drain, Maint, Ready};
        let listed = |state| Shard { state, ..shard("s1", "r", "release-1") };
        let agent = |state| Standing { state, ..Standing::default() };
        for (wanted, said, holds) in [
            (Ready, None, Ready),
            (Ready, Some(Ready), Ready),
            (Ready, Some(Drain), Drain),
            (Drain, Some(Ready), Drain),
            (Drain, Some(Maint), Maint),
            (Maint, Some(Drain), Maint),
        ] {
            let over = agent(said).over(&listed(wanted));
            assert_eq!(over.as_ref().map_or(wanted, |shard| shard.state), holds, "{wanted} {said:?}");
            assert_eq!(over.is_none(), holds == wanted, "{wanted} {said:?}");
        }
    }

    #[test]
    fn shares_of_weights() {
        for (percent, weight, scaled) in [
            (100, 256, 256),
            (0, 256, 0),
            (1, 256, 3),
            (1, 1, 1),
            (50, 1, 1),
            (200, 100, 200),
            (900, 256, 256),
        ] {
            assert_eq!(Share::of(percent, 100).of_weight(weight), scaled, "{percent} % of {weight}");
        }
        assert_eq!(Share::of(1, 2).times(Share::of(1, 2)), Share::of(1, 4));
        assert_eq!(Share::of(u64::from(u32::MAX), 100).of_weight(256), 256);
        assert_eq!(Share::WHOLE.of_weight(0), 0);
    }
}
