//! Who could take a conference that is on no shard yet, nearest first: for those who ask, not for those who route.

use super::{Backend, Outlook, Topology, backend, takes_new};
use crate::routing_key::RoutingKey;
use crate::rule::Fired;
use shardgate_discovery::{Shard, ShardState};
use std::sync::Arc;

/// How near a shard is to a request; a level counts when none before it has a shard that takes new conferences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The release that counts, in this region: these share its conferences.
    Local,
    /// The same release in another region: the first stands in for all.
    Region,
    /// The live release, where another one counts.
    Live,
    /// Any other release.
    Other,
}

impl Level {
    /// The words for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "1 release here",
            Self::Region => "2 elsewhere",
            Self::Live => "3 live release",
            Self::Other => "4 other release",
        }
    }
}

/// A shard that could take the conference.
#[derive(Debug, Clone)]
pub struct Choice {
    /// It.
    pub shard: Arc<Shard>,
    /// How near it is.
    pub level: Level,
    /// What operators want of it for the release that counts.
    pub state: ShardState,
    /// Whether it takes new conferences.
    pub takes_new: bool,
}

/// Who could take the conference, in the order in which they are asked; empty when no release counts.
#[must_use]
pub fn choices(key: &RoutingKey<'_>, topology: &Topology, outlook: &Outlook<'_>) -> Vec<Choice> {
    let Ok((Backend::Pool(pool), _)) = backend(key, topology, outlook, &mut Fired::default()) else {
        return Vec::new();
    };
    let choice = |shard: &Arc<Shard>, level| Choice {
        shard: Arc::clone(shard),
        level,
        state: shard.state_in(&pool.release),
        takes_new: takes_new(shard, &pool.release, outlook),
    };
    let backup = |shard: &Arc<Shard>| {
        let level = if shard.release == pool.release {
            Level::Region
        } else if Some(&shard.release) == topology.snapshot().live_release() {
            Level::Live
        } else {
            Level::Other
        };
        choice(shard, level)
    };
    let local = pool.local.iter().map(|candidate| choice(&candidate.shard, Level::Local));
    local.chain(topology.backups(pool).map(backup)).collect()
}
