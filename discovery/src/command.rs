//! What operators command of shards on this node alone, over what the source says.

use crate::shard::{Shard, ShardState, WEIGHT_MAX};
use crate::snapshot::Snapshot;
use shardgate_peering_core::ShardName;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// What was commanded of one shard. It lasts as long as the process, also while the source does not list the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCommand {
    /// The strictest of this and the source's state holds, so [`ShardState::Ready`] takes a command back.
    pub state: ShardState,
    /// In place of the source's weight, 0 to [`WEIGHT_MAX`].
    pub weight: Option<u16>,
    /// When it was last changed.
    pub at: SystemTime,
}

/// One change of what is commanded; HAProxy's `set server BACKEND/SERVER state` and `set server .. weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The state to hold at least.
    State(ShardState),
    /// The weight, 0 to [`WEIGHT_MAX`].
    Weight(u16),
    /// The source's weight again.
    SourceWeight,
}

/// Why an order was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No such shard.
    #[error("shard {shard} is not listed, expected one of those that status shows")]
    Unknown {
        /// What was named.
        shard: ShardName,
    },
    /// Nothing is published any more.
    #[error("discovery has stopped, so no command takes effect")]
    Stopped,
    /// The weight is none.
    #[error("weight {weight} is not valid, expected 0 to {WEIGHT_MAX}")]
    Weight {
        /// What was given.
        weight: u16,
    },
}

/// All that is commanded, by shard. At most as many as were ever listed at the time of their command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commands(BTreeMap<ShardName, ShardCommand>);

impl Commands {
    /// Takes an order for a shard that `source` lists.
    pub(crate) fn order(
        &mut self,
        source: &Snapshot,
        shard: &ShardName,
        order: Order,
        at: SystemTime,
    ) -> Result<(), OrderError> {
        if source.shard(shard.as_str()).is_none() {
            return Err(OrderError::Unknown { shard: shard.clone() });
        }
        let before = self.0.get(shard).copied();
        let mut command = before.unwrap_or(ShardCommand { state: ShardState::Ready, weight: None, at });
        match order {
            Order::State(state) => command.state = state,
            Order::Weight(weight) if weight > WEIGHT_MAX => return Err(OrderError::Weight { weight }),
            Order::Weight(weight) => command.weight = Some(weight),
            Order::SourceWeight => command.weight = None,
        }
        command.at = at;
        match command {
            ShardCommand { state: ShardState::Ready, weight: None, .. } => self.0.remove(shard),
            command => self.0.insert(shard.clone(), command),
        };
        Ok(())
    }

    /// What is commanded of `shard`.
    pub(crate) fn of(&self, shard: &ShardName) -> Option<ShardCommand> {
        self.0.get(shard).copied()
    }

    /// The source's snapshot with the commands upon it.
    pub(crate) fn over(&self, source: &Snapshot) -> Snapshot {
        source.with_shards(|shard| {
            let command = self.0.get(&shard.name)?;
            let state = shard.state.max(command.state);
            let weight = command.weight.unwrap_or(shard.weight);
            Some(Shard { state, weight, ..shard.clone() })
        })
    }
}
