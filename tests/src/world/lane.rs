//! The only place of the world that knows kinds of messages: the lane each takes, and what of it enters the trace hash.

use shardgate_peering_core::{Change, Claimed, Entry, Item, Message, Output, ShardName, StickKey};

pub use shardgate_peering_core::Lane;

use super::random::mix;

/// The lane of a message.
#[must_use]
pub const fn lane_of(message: &Message) -> Lane {
    message.lane()
}

/// Whether the shell tells the path's round trip time together with this message.
#[must_use]
pub const fn carries_round_trip(message: &Message) -> bool {
    matches!(message, Message::Hello(_) | Message::Heartbeat(_))
}

/// How many items a message carries: what a decoder bounds.
#[must_use]
pub fn items_in(message: &Message) -> usize {
    match message {
        Message::Update(update) => update.items.len(),
        Message::Correction { items } => items.len(),
        Message::LeaseReport(report) => report.leases.len(),
        Message::LeaseAsk { keys } | Message::SessionsAsk { keys, .. } | Message::PeopleMoved { keys } => {
            keys.len()
        }
        Message::Dispute { items, .. } => items.len(),
        Message::SessionsTold { items, .. } => items.len(),
        Message::Give(give) => give.items.len(),
        Message::Compare(compare) => compare.parts.len(),
        Message::Compared(compared) => compared.parts.len(),
        Message::Hello(_)
        | Message::Welcome(_)
        | Message::Heartbeat(_)
        | Message::Ack { .. }
        | Message::Claim(_)
        | Message::ClaimAnswer(_)
        | Message::ProbeAsk { .. }
        | Message::ProbeAnswer { .. }
        | Message::GiveAck { .. }
        | Message::Reconciled { .. } => 0,
    }
}

fn text(hash: u64, text: &str) -> u64 {
    let words = text.as_bytes().chunks(8).map(|chunk| {
        chunk.iter().rev().fold(chunk.len() as u64, |word, byte| (word << 8) ^ u64::from(*byte))
    });
    words.fold(hash, |hash, word| mix(hash ^ word))
}

fn key(hash: u64, key: &StickKey) -> u64 {
    text(hash, key.as_str())
}

fn entry(hash: u64, entry: &Entry) -> u64 {
    let hash = mix(hash ^ entry.created.0);
    let hash = mix(hash ^ (u64::from(entry.generation) << 8 | entry.rank as u64));
    entry.shard.as_ref().map_or(hash, |shard| text(hash, shard.as_str()))
}

fn items(hash: u64, items: &[Item]) -> u64 {
    items.iter().fold(hash, |hash, item| {
        let hash = key(mix(hash ^ item.remaining_ms), &item.key);
        match &item.change {
            Change::Entry(decision) => entry(hash, decision),
            Change::Renewed => hash,
            Change::Dropped { digest, .. } => mix(hash ^ digest),
        }
    })
}

fn sides(hash: u64, sides: &[(ShardName, u64)]) -> u64 {
    sides.iter().fold(hash, |hash, (shard, count)| text(mix(hash ^ count), shard.as_str()))
}

/// What of a message enters the trace hash.
#[must_use]
pub fn hash_message(message: &Message) -> u64 {
    let hash = text(0, message.kind());
    match message {
        Message::Update(update) => items(mix(hash ^ update.through), &update.items),
        Message::Correction { items: corrected } => items(hash, corrected),
        Message::Give(give) => items(mix(hash ^ give.number), &give.items),
        Message::Ack { through: number }
        | Message::GiveAck { number }
        | Message::Reconciled { id: number } => mix(hash ^ number),
        Message::Claim(claim) => key(mix(hash ^ claim.id), &claim.key),
        Message::ClaimAnswer(answer) => key(mix(hash ^ answer.id), &answer.key),
        Message::ProbeAsk { round, shard } => text(mix(hash ^ round), shard.as_str()),
        Message::ProbeAnswer { round, shard, reached } => {
            text(mix(hash ^ round << 1 ^ *reached as u64), shard.as_str())
        }
        Message::LeaseReport(report) => {
            report.leases.iter().fold(hash, |hash, lease| key(mix(hash ^ lease.remaining_ms), &lease.key))
        }
        Message::LeaseAsk { keys } | Message::PeopleMoved { keys } => keys.iter().fold(hash, key),
        Message::SessionsAsk { number, keys } => keys.iter().fold(mix(hash ^ number), key),
        Message::Dispute { items, .. } => items
            .iter()
            .fold(hash, |hash, item| sides(entry(key(hash, &item.key), &item.entry), &item.sessions)),
        Message::SessionsTold { number, items } => {
            items.iter().fold(mix(hash ^ number), |hash, (of, on)| sides(key(hash, of), on))
        }
        Message::Compare(compare) => mix(hash ^ compare.number ^ (compare.parts.len() as u64) << 32),
        Message::Compared(compared) => mix(hash ^ compared.number ^ (compared.parts.len() as u64) << 32),
        Message::Hello(hello) => mix(hash ^ hello.incarnation),
        Message::Welcome(welcome) => mix(hash ^ welcome.continues_after),
        Message::Heartbeat(heartbeat) => {
            heartbeat.digest.ranges.iter().fold(hash, |hash, range| mix(hash ^ range))
        }
    }
}

/// What of an output enters the trace hash.
#[must_use]
pub fn hash_output(output: &Output) -> u64 {
    match output {
        Output::Send { peer, message } => text(hash_message(message), peer.as_str()),
        Output::Disconnect { peer, violation } => text(mix(2 ^ ((*violation as u64) << 8)), peer.as_str()),
        Output::Changed { key: of, shard } => {
            let hash = key(mix(3), of);
            shard.as_ref().map_or(hash, |shard| text(hash, shard.as_str()))
        }
        Output::Replaced { key: of, before, after } => entry(entry(key(mix(13), of), before), after),
        Output::Moved { key: of, to } => text(key(mix(4), of), to.as_str()),
        Output::Verdict(verdict) => entry(key(mix(9), &verdict.key), &verdict.entry),
        Output::PeopleMoved { key: of, peer } => text(key(mix(10), of), peer.as_str()),
        Output::Disputed { key: of, .. } => key(mix(11), of),
        Output::Settled { key: of } => key(mix(12), of),
        Output::Answered { token, claimed } => {
            let hash = mix(mix(5) ^ token.0);
            match claimed {
                Claimed::Stick { shard } => text(hash, shard.as_str()),
                Claimed::Keep { shard, via } => {
                    via.iter().fold(text(hash, shard.as_str()), |hash, peer| text(hash, peer.as_str()))
                }
                Claimed::Cleared | Claimed::Held | Claimed::Unstored { .. } => hash,
            }
        }
        Output::Probe { probe, shard, .. } => text(mix(mix(8) ^ probe.0), shard.as_str()),
        Output::Readiness(_) => mix(6),
        Output::Emptied => mix(7),
    }
}
