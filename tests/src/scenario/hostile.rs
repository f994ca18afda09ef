//! Messages that no code of ours would send, for `inject`.

use shardgate_peering_core::{
    AsOf, Change, Digest, Entry, FAN_OUT, Heartbeat, Hello, Item, Lease, LeaseReport, Message, PeerId, Rank,
    Reason, ShardName, Stamp, StickKey, Update, Wall,
};

use super::file::Fault;
use super::words::Words;

/// What the message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A greeting.
    Hello,
    /// That it is ready.
    Heartbeat,
    /// A batch of numbered items.
    Update,
    /// What was applied of the receiver's updates.
    Ack,
    /// An unnumbered item.
    Correction,
    /// What is used or held.
    LeaseReport,
}

/// A message, as its command gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hostile {
    kind: Kind,
    /// The conference, where the kind has one.
    pub(super) key: Option<String>,
    shard: Option<ShardName>,
    generation: u32,
    rank: Rank,
    created: Created,
    remaining_ms: u64,
    number: u64,
}

/// When the entry says that it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Created {
    Now,
    Year2100,
    Year1970,
}

const KINDS: &str = "hello, heartbeat, update, ack, correction or lease-report";

/// Parses what follows the nodes of an `inject`.
///
/// # Errors
/// [`Fault`] for the first word that does not fit.
pub(super) fn parse(words: &mut Words<'_>) -> Result<Hostile, Fault> {
    let kind = match words.word(KINDS)? {
        "hello" => Kind::Hello,
        "heartbeat" => Kind::Heartbeat,
        "update" => Kind::Update,
        "ack" => Kind::Ack,
        "correction" => Kind::Correction,
        "lease-report" => Kind::LeaseReport,
        other => return Err(words.fault(other, KINDS)),
    };
    let key = match kind {
        Kind::Correction | Kind::LeaseReport => Some(words.word("a conference")?.to_owned()),
        Kind::Update => words.optional().map(str::to_owned),
        Kind::Hello | Kind::Heartbeat | Kind::Ack => None,
    };
    let shard = words.option("shard").map(|shard| words.shard_of(shard)).transpose()?;
    let mut number = |name: &str, default: u64| {
        let given = words.option(name);
        given.map_or(Ok(default), |value| words.number_of(value))
    };
    let generation = u32::try_from(number("generation", 1)?).unwrap_or(u32::MAX);
    let remaining_ms = number("remaining", 1_000)?;
    let number = number("number", 1)?;
    let rank = match words.option("rank") {
        None | Some("home") => Rank::Home,
        Some("alone") => Rank::Alone,
        Some(other) => return Err(words.fault(other, "home or alone")),
    };
    let created = match words.option("created") {
        None | Some("now") => Created::Now,
        Some("2100") => Created::Year2100,
        Some("1970") => Created::Year1970,
        Some(other) => return Err(words.fault(other, "now, 2100 or 1970")),
    };
    Ok(Hostile { kind, key, shard, generation, rank, created, remaining_ms, number })
}

impl Hostile {
    /// The message, from `from`, at a moment.
    #[must_use]
    pub(super) fn message(&self, key: Option<StickKey>, from: &PeerId, wall: Wall) -> Message {
        let created = match self.created {
            Created::Now => Stamp::at(wall),
            Created::Year2100 => Stamp::at(Wall(4_102_444_800_000)),
            Created::Year1970 => Stamp(1),
        };
        let entry = Entry {
            shard: self.shard.clone(),
            generation: self.generation,
            rank: self.rank,
            created,
            origin: from.clone(),
            reason: if self.shard.is_some() { Reason::Claim } else { Reason::End },
        };
        let remaining_ms = self.remaining_ms;
        let item =
            |key: StickKey| Item { key, change: Change::Entry(entry.clone()), remaining_ms, held: false };
        let items = || key.iter().cloned().map(item).collect();
        match self.kind {
            Kind::Hello => Message::Hello(Hello {
                contract: u32::try_from(self.number).unwrap_or(u32::MAX),
                contract_oldest: 1,
                incarnation: 7,
                ready: true,
                capacity: 1_000,
                resume: None,
            }),
            Kind::Heartbeat => Message::Heartbeat(Heartbeat {
                ready: true,
                digest: Digest { as_of: AsOf(Stamp(0)), ranges: [0; FAN_OUT] },
            }),
            Kind::Update => Message::Update(Update { through: self.number, items: items() }),
            Kind::Ack => Message::Ack { through: self.number },
            Kind::Correction => Message::Correction { items: items() },
            Kind::LeaseReport => Message::LeaseReport(LeaseReport {
                leases: key.iter().map(|key| Lease { key: key.clone(), remaining_ms, held: true }).collect(),
            }),
        }
    }
}
