//! Frames to messages and back. Every field from outside is parsed into a type that cannot be wrong, or the frame is refused.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use shardgate_peering_core::{
    Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Entry, Hello, IdError, Item, KeyError, LeaseReport,
    Message, PeerId, Rank, Reason, Resume, ResyncChunk, ShardName, Stamp, StickKey, Update,
};
use shardgate_proto::peer as wire;

/// The longest frame: 256 items with the longest keys and names fit.
pub const FRAME_MAX: usize = 1 << 20;
/// The most items, leases or chunks' entries in one message.
pub const ITEMS_MAX: usize = 1_024;

/// Why a frame is no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The length says more than [`FRAME_MAX`].
    #[error("frame of {len} bytes, expected at most {FRAME_MAX}")]
    TooLong {
        /// What it says.
        len: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// No protobuf.
    #[error("frame is no message: {0}")]
    Garbage(#[from] prost::DecodeError),
    /// A list with too many elements.
    #[error("{field} has {count} elements, expected at most {ITEMS_MAX}")]
    TooMany {
        /// The list.
        field: &'static str,
        /// Its length.
        count: usize,
    },
    /// A key that is none.
    #[error("{field}: {source}")]
    Key {
        /// The field.
        field: &'static str,
        /// Why.
        source: KeyError,
    },
    /// A name that is none.
    #[error("{field}: {source}")]
    Name {
        /// The field.
        field: &'static str,
        /// Why.
        source: IdError,
    },
    /// A number that stands for nothing.
    #[error("{field} is {value}, expected one of the known values")]
    Enum {
        /// The field.
        field: &'static str,
        /// The number.
        value: i32,
    },
    /// A part that must be there.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
}

/// A message as a frame: 4 bytes of length, then the envelope.
#[must_use]
pub fn encode(message: &Message) -> Bytes {
    let envelope = wire::Envelope { message: Some(to_wire(message)) };
    let len = envelope.encoded_len();
    let mut frame = BytesMut::with_capacity(4 + len);
    frame.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    envelope.encode_raw(&mut frame);
    frame.freeze()
}

/// The body of a frame as a message; `None` for a kind that this version does not know, which is skipped.
///
/// # Errors
/// [`FrameError`] naming the field.
pub fn decode(body: &[u8]) -> Result<Option<Message>, FrameError> {
    let Some(message) = wire::Envelope::decode(body)?.message else { return Ok(None) };
    from_wire(message).map(Some)
}

fn to_wire(message: &Message) -> wire::envelope::Message {
    use wire::envelope::Message as W;
    match message {
        Message::Hello(hello) => W::Hello(wire::Hello {
            contract: hello.contract,
            incarnation: hello.incarnation,
            ready: hello.ready,
            resume: hello.resume.map(|Resume { incarnation, through }| wire::Resume { incarnation, through }),
        }),
        Message::Heartbeat { ready } => W::Heartbeat(wire::Heartbeat { ready: *ready }),
        Message::Update(update) => W::Update(wire::Update {
            through: update.through,
            items: update.items.iter().map(item_to_wire).collect(),
        }),
        Message::Ack { through } => W::Ack(wire::Ack { through: *through }),
        Message::Correction { items } => {
            W::Correction(wire::Correction { items: items.iter().map(item_to_wire).collect() })
        }
        Message::Claim(claim) => W::Claim(wire::Claim {
            id: claim.id,
            key: claim.key.to_string(),
            known: claim.known.as_ref().map(|(entry, _)| entry_to_wire(entry)),
            known_remaining_ms: claim.known.as_ref().map_or(0, |(_, remaining)| clamp(*remaining)),
            proposal: claim.proposal.to_string(),
            reason: reason_to_wire(claim.reason).into(),
            failed: claim.failed.as_ref().map(ToString::to_string).unwrap_or_default(),
            tried: claim.tried.as_ref().map(ToString::to_string).unwrap_or_default(),
            hops: claim.hops,
        }),
        Message::ClaimAnswer(answer) => {
            let (entry, remaining_ms, refusal) = match &answer.result {
                ClaimResult::Entry(entry, remaining) => {
                    (Some(entry_to_wire(entry)), clamp(*remaining), wire::Refusal::Unspecified)
                }
                ClaimResult::Refused(refusal) => (None, 0, refusal_to_wire(*refusal)),
            };
            let (id, key) = (answer.id, answer.key.to_string());
            W::ClaimAnswer(wire::ClaimAnswer { id, key, entry, remaining_ms, refusal: refusal.into() })
        }
        Message::LeaseReport(report) => W::LeaseReport(wire::LeaseReport {
            leases: report
                .leases
                .iter()
                .map(|(key, remaining)| wire::Lease { key: key.to_string(), remaining_ms: clamp(*remaining) })
                .collect(),
        }),
        Message::ResyncChunk(chunk) => W::ResyncChunk(wire::ResyncChunk {
            number: chunk.number,
            items: chunk.items.iter().map(item_to_wire).collect(),
            last: chunk.last,
            continues_after: chunk.continues_after,
        }),
        Message::ResyncAck { number } => W::ResyncAck(wire::ResyncAck { number: *number }),
    }
}

fn from_wire(message: wire::envelope::Message) -> Result<Message, FrameError> {
    use wire::envelope::Message as W;
    Ok(match message {
        W::Hello(wire::Hello { contract, incarnation, ready, resume }) => {
            let resume = resume.map(|wire::Resume { incarnation, through }| Resume { incarnation, through });
            Message::Hello(Hello { contract, incarnation, ready, resume })
        }
        W::Heartbeat(wire::Heartbeat { ready }) => Message::Heartbeat { ready },
        W::Update(wire::Update { through, items }) => {
            Message::Update(Update { through, items: items_from_wire(items)? })
        }
        W::Ack(wire::Ack { through }) => Message::Ack { through },
        W::Correction(wire::Correction { items }) => Message::Correction { items: items_from_wire(items)? },
        W::Claim(claim) => {
            let remaining = u64::from(claim.known_remaining_ms);
            Message::Claim(Claim {
                id: claim.id,
                key: key("claim.key", &claim.key)?,
                known: claim.known.map(entry_from_wire).transpose()?.map(|entry| (entry, remaining)),
                proposal: shard("claim.proposal", &claim.proposal)?,
                reason: reason_from_wire("claim.reason", claim.reason)?,
                failed: optional(&claim.failed, |name| shard("claim.failed", name))?,
                tried: optional(&claim.tried, |name| peer("claim.tried", name))?,
                hops: claim.hops,
            })
        }
        W::ClaimAnswer(answer) => {
            let remaining = u64::from(answer.remaining_ms);
            let result = match answer.entry {
                Some(entry) => ClaimResult::Entry(entry_from_wire(entry)?, remaining),
                None => ClaimResult::Refused(refusal_from_wire(answer.refusal)?),
            };
            Message::ClaimAnswer(ClaimAnswer {
                id: answer.id,
                key: key("claim_answer.key", &answer.key)?,
                result,
            })
        }
        W::LeaseReport(report) => {
            bounded("lease_report.leases", report.leases.len())?;
            let lease =
                |lease: wire::Lease| Ok((key("lease.key", &lease.key)?, u64::from(lease.remaining_ms)));
            let leases = report.leases.into_iter().map(lease).collect::<Result<_, FrameError>>()?;
            Message::LeaseReport(LeaseReport { leases })
        }
        W::ResyncChunk(wire::ResyncChunk { number, items, last, continues_after }) => {
            Message::ResyncChunk(ResyncChunk {
                number,
                items: items_from_wire(items)?,
                last,
                continues_after,
            })
        }
        W::ResyncAck(wire::ResyncAck { number }) => Message::ResyncAck { number },
    })
}

fn item_to_wire(item: &Item) -> wire::Item {
    let entry = item.entry.as_ref().map(entry_to_wire);
    wire::Item { key: item.key.to_string(), entry, remaining_ms: clamp(item.remaining_ms) }
}

fn items_from_wire(items: Vec<wire::Item>) -> Result<Vec<Item>, FrameError> {
    bounded("items", items.len())?;
    let item = |item: wire::Item| {
        let entry = item.entry.map(entry_from_wire).transpose()?;
        Ok(Item { key: key("item.key", &item.key)?, entry, remaining_ms: u64::from(item.remaining_ms) })
    };
    items.into_iter().map(item).collect()
}

fn entry_to_wire(entry: &Entry) -> wire::Entry {
    wire::Entry {
        shard: entry.shard.as_ref().map(ToString::to_string).unwrap_or_default(),
        generation: entry.generation,
        rank: match entry.rank {
            Rank::Home => wire::Rank::Home,
            Rank::Alone => wire::Rank::Alone,
        }
        .into(),
        created: entry.created.0,
        origin: entry.origin.to_string(),
        reason: reason_to_wire(entry.reason).into(),
    }
}

fn entry_from_wire(entry: wire::Entry) -> Result<Entry, FrameError> {
    Ok(Entry {
        shard: optional(&entry.shard, |name| shard("entry.shard", name))?,
        generation: entry.generation,
        rank: match wire::Rank::try_from(entry.rank) {
            Ok(wire::Rank::Home) => Rank::Home,
            Ok(wire::Rank::Alone) => Rank::Alone,
            Ok(wire::Rank::Unspecified) | Err(_) => {
                return Err(FrameError::Enum { field: "entry.rank", value: entry.rank });
            }
        },
        created: Stamp(entry.created),
        origin: peer("entry.origin", &entry.origin)?,
        reason: reason_from_wire("entry.reason", entry.reason)?,
    })
}

const fn reason_to_wire(reason: Reason) -> wire::Reason {
    match reason {
        Reason::Claim => wire::Reason::Claim,
        Reason::Down => wire::Reason::Down,
        Reason::Operator => wire::Reason::Operator,
        Reason::Arbitration => wire::Reason::Arbitration,
        Reason::End => wire::Reason::End,
    }
}

fn reason_from_wire(field: &'static str, value: i32) -> Result<Reason, FrameError> {
    match wire::Reason::try_from(value) {
        Ok(wire::Reason::Claim) => Ok(Reason::Claim),
        Ok(wire::Reason::Down) => Ok(Reason::Down),
        Ok(wire::Reason::Operator) => Ok(Reason::Operator),
        Ok(wire::Reason::Arbitration) => Ok(Reason::Arbitration),
        Ok(wire::Reason::End) => Ok(Reason::End),
        Ok(wire::Reason::Unspecified) | Err(_) => Err(FrameError::Enum { field, value }),
    }
}

const fn refusal_to_wire(refusal: ClaimRefusal) -> wire::Refusal {
    match refusal {
        ClaimRefusal::NotReady => wire::Refusal::NotReady,
        ClaimRefusal::TableFull => wire::Refusal::TableFull,
        ClaimRefusal::Overload => wire::Refusal::Overload,
    }
}

fn refusal_from_wire(value: i32) -> Result<ClaimRefusal, FrameError> {
    match wire::Refusal::try_from(value) {
        Ok(wire::Refusal::NotReady) => Ok(ClaimRefusal::NotReady),
        Ok(wire::Refusal::TableFull) => Ok(ClaimRefusal::TableFull),
        Ok(wire::Refusal::Overload) => Ok(ClaimRefusal::Overload),
        Ok(wire::Refusal::Unspecified) => Err(FrameError::Missing { field: "claim_answer.entry" }),
        Err(_) => Err(FrameError::Enum { field: "claim_answer.refusal", value }),
    }
}

/// Remaining times beyond 49 days are none.
fn clamp(remaining_ms: u64) -> u32 {
    u32::try_from(remaining_ms).unwrap_or(u32::MAX)
}

const fn bounded(field: &'static str, count: usize) -> Result<(), FrameError> {
    if count > ITEMS_MAX { Err(FrameError::TooMany { field, count }) } else { Ok(()) }
}

fn key(field: &'static str, text: &str) -> Result<StickKey, FrameError> {
    StickKey::parse(text).map_err(|source| FrameError::Key { field, source })
}

fn shard(field: &'static str, text: &str) -> Result<ShardName, FrameError> {
    ShardName::parse(text).map_err(|source| FrameError::Name { field, source })
}

fn peer(field: &'static str, text: &str) -> Result<PeerId, FrameError> {
    PeerId::parse(text).map_err(|source| FrameError::Name { field, source })
}

fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, FrameError>) -> Result<Option<T>, FrameError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

#[cfg(test)]
mod tests;
