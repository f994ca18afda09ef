//! Shards, peers, the live release, tenant pins and bans as immutable, validated snapshots.
//!
//! A source (today a watched TOML file) builds a whole [`Snapshot`], and [`Publisher`] hands it to everyone as an `Arc`. Consumers
//! swap the snapshot, they never patch one; there are no callbacks. What a source cannot read or does not believe never
//! reaches them: the last good snapshot stays, and [`DiscoveryHandle::status`] says since when and why.

mod bans;
mod command;
pub mod consul;
mod diff;
pub mod file;
mod name;
mod publish;
mod shard;
mod snapshot;
mod warning;

pub use bans::{BANS_MAX, BanList, Bans, Letters, Verdict};
pub use command::{Order, OrderError, ShardCommand};
pub use diff::{Change, SnapshotDiff};
pub use file::{FileError, FileStamp, FileWatch, FileWatchConfig, read_file, watch_file};
pub use name::{BanPattern, EnvironmentName, NameError, RegionName, ReleaseName, ServiceName, TenantName};
pub use publish::{
    DiscoveryHandle, Origin, PartRole, PartStatus, Published, Publisher, Refused, SourceStatus,
};
pub use shard::{OtherProxy, PeerNode, SHARD_ID_MAX, Shard, ShardState, WEIGHT_MAX, server_name};
pub use shardgate_peering_core::{PeerId, ShardName};
pub use snapshot::{BuildError, BuildErrors, PEERS_MAX, PINS_MAX, SHARDS_MAX, Snapshot, SnapshotBuilder};
pub use warning::Warning;
