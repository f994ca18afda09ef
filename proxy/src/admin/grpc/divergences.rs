//! Split brains as operators see them.

use std::time::{SystemTime, UNIX_EPOCH};

use shardgate_peering::Divergence;
use shardgate_peering::core::{ShardName, Verdict, Why};
use shardgate_proto::admin as wire;

pub(super) fn row(divergence: &Divergence) -> wire::Divergence {
    let Divergence { id, at, verdict, moved, moved_at } = divergence;
    let Verdict { key, stood, entry, sides, why, gathered_ms } = verdict;
    let name = |shard: &Option<ShardName>| shard.as_ref().map_or_else(String::new, ToString::to_string);
    let decided_ms = millis(*at);
    let sides =
        sides.iter().map(|side| wire::Side { shard: side.shard.to_string(), sessions: side.sessions });
    wire::Divergence {
        id: format!("{id:016x}"),
        key: key.to_string(),
        stood: name(&stood.shard),
        stood_generation: stood.generation,
        winner: name(&entry.shard),
        generation: entry.generation,
        sides: sides.collect(),
        why: match why {
            Why::MostSessions => "most-sessions",
            Why::Join => "join",
            Why::Reached => "reached",
        }
        .to_owned(),
        detected_ms: decided_ms.saturating_sub(*gathered_ms),
        decided_ms,
        moved_ms: moved_at.map(millis),
        moved: moved.iter().map(ToString::to_string).collect(),
    }
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
