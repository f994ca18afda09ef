//! Split brains: who has how many sessions where.

use super::{FrameError, bounded, entry_from_wire, entry_to_wire, key, shard};
use shardgate_peering_core::{Disputed, PeerId, SIDES_MAX, ShardName, StickKey};
use shardgate_proto::peer as wire;

type Sides = Vec<(ShardName, u64)>;

fn to_wire(sides: &Sides) -> Vec<wire::Sessions> {
    sides.iter().map(|(shard, count)| wire::Sessions { shard: shard.to_string(), count: *count }).collect()
}

fn from_wire(field: &'static str, sides: &[wire::Sessions]) -> Result<Sides, FrameError> {
    if sides.len() > SIDES_MAX {
        return Err(FrameError::TooMany { field, count: sides.len(), most: SIDES_MAX });
    }
    sides.iter().map(|side| Ok((shard(field, &side.shard)?, side.count))).collect()
}

pub(super) fn dispute_to_wire(tried: Option<&PeerId>, items: &[Disputed]) -> wire::Dispute {
    let item = |item: &Disputed| wire::Disputed {
        key: item.key.to_string(),
        entry: Some(entry_to_wire(&item.entry)),
        sessions: to_wire(&item.sessions),
    };
    let tried = tried.map_or_else(String::new, ToString::to_string);
    wire::Dispute { items: items.iter().map(item).collect(), tried }
}

pub(super) fn dispute_from_wire(dispute: wire::Dispute) -> Result<Vec<Disputed>, FrameError> {
    bounded("dispute.items", dispute.items.len())?;
    let item = |item: wire::Disputed| {
        let entry = item.entry.ok_or(FrameError::Missing { field: "dispute.items.entry" })?;
        Ok(Disputed {
            key: key("dispute.items.key", &item.key)?,
            entry: entry_from_wire(entry)?,
            sessions: from_wire("dispute.items.sessions", &item.sessions)?,
        })
    };
    dispute.items.into_iter().map(item).collect()
}

pub(super) fn told_to_wire(number: u64, items: &[(StickKey, Sides)]) -> wire::SessionsTold {
    let item = |(key, sides): &(StickKey, Sides)| wire::SessionsOf {
        key: key.to_string(),
        sessions: to_wire(sides),
    };
    wire::SessionsTold { number, items: items.iter().map(item).collect() }
}

pub(super) fn told_from_wire(told: wire::SessionsTold) -> Result<Vec<(StickKey, Sides)>, FrameError> {
    bounded("sessions_told.items", told.items.len())?;
    let item = |item: wire::SessionsOf| {
        let sides = from_wire("sessions_told.items.sessions", &item.sessions)?;
        Ok((key("sessions_told.items.key", &item.key)?, sides))
    };
    told.items.into_iter().map(item).collect()
}
