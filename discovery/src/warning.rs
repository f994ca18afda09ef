//! What is valid and yet probably not what the operator meant.

use crate::name::{ReleaseName, TenantName};
use crate::snapshot::Snapshot;
use foldhash::fast::RandomState;
use shardgate_peering_core::ShardName;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

/// Valid content that deserves a word to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Nothing can be served.
    NoShards,
    /// There are shards, but nobody said which release is live.
    NoLiveRelease,
    /// The live release has no shard.
    LiveReleaseWithoutShards {
        /// The release.
        release: ReleaseName,
    },
    /// A pin points at a release without a shard.
    PinWithoutShards {
        /// The tenant.
        tenant: TenantName,
        /// The release.
        release: ReleaseName,
    },
    /// A shard has a state in a release without a shard.
    StateWithoutShards {
        /// The shard.
        shard: ShardName,
        /// The release.
        release: ReleaseName,
    },
    /// Two shards answer at one address.
    SharedAddress {
        /// The shard that is first by name.
        first: ShardName,
        /// The other one.
        second: ShardName,
        /// The address.
        address: SocketAddr,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoShards => f.write_str("no shards are listed: every request will be answered with 503"),
            Self::NoLiveRelease => f.write_str(
                "live_release is not set: new conferences are answered with 503, but those of pinned tenants",
            ),
            Self::LiveReleaseWithoutShards { release } => write!(
                f,
                "live_release is {release}, but no shard has that release: new conferences are answered with 503, but those of pinned tenants"
            ),
            Self::PinWithoutShards { tenant, release } => write!(
                f,
                "tenant {tenant} is pinned to {release}, but no shard has that release: the pin has no effect"
            ),
            Self::StateWithoutShards { shard, release } => write!(
                f,
                "shard {shard} has a state in {release}, but no shard has that release: the state has no effect"
            ),
            Self::SharedAddress { first, second, address } => {
                write!(f, "shards {first} and {second} have one address {address}")
            }
        }
    }
}

impl Snapshot {
    /// Whether a name stands for no shards: it is no release that has some, and no shard's.
    fn is_nothing(&self, release: &ReleaseName) -> bool {
        self.shards_of(release.as_str()).is_empty() && self.shard(release.as_str()).is_none()
    }

    /// What an operator should be told about this content, in a stable order.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        match self.live_release() {
            _ if self.shards().is_empty() => warnings.push(Warning::NoShards),
            None => warnings.push(Warning::NoLiveRelease),
            Some(release) if self.is_nothing(release) => {
                warnings.push(Warning::LiveReleaseWithoutShards { release: release.clone() });
            }
            Some(_) => {}
        }
        let mut lost: Vec<_> = self.pins().filter(|(_, release)| self.is_nothing(release)).collect();
        lost.sort();
        warnings.extend(lost.into_iter().map(|(tenant, release)| Warning::PinWithoutShards {
            tenant: tenant.clone(),
            release: release.clone(),
        }));
        for shard in self.shards() {
            let nowhere =
                shard.states_in.iter().filter(|(release, _)| self.shards_of(release.as_str()).is_empty());
            warnings.extend(nowhere.map(|(release, _)| Warning::StateWithoutShards {
                shard: shard.name.clone(),
                release: release.clone(),
            }));
        }
        let mut addresses: HashMap<SocketAddr, &ShardName, RandomState> = HashMap::default();
        for shard in self.shards() {
            if let Some(first) = addresses.get(&shard.address) {
                warnings.push(Warning::SharedAddress {
                    first: (*first).clone(),
                    second: shard.name.clone(),
                    address: shard.address,
                });
            } else {
                addresses.insert(shard.address, &shard.name);
            }
        }
        warnings
    }
}
