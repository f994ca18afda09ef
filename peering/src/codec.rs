//! Frames to messages and back. Every field from outside is parsed into a type that cannot be wrong, or the frame is refused.

use bytes::Bytes;
use prost::Message as _;
use shardgate_peering_core::{
    AsOf, Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Digest, Entry, FAN_OUT, Give, Heartbeat, Hello,
    IdError, KeyError, LeaseReport, Message, PeerId, Rank, Reached, Reason, Resume, ShardName, Stamp,
    StickKey, Update, VIA_MAX, Welcome,
};
use shardgate_proto::peer as wire;

mod batch;
mod compare;
mod frame;
mod items;
mod memory;
mod relay;
mod sides;

pub use batch::{Decoder, Encoder};
pub use frame::{read_frame, read_frame_within};
use memory::{Heard, Told};
pub use relay::{
    CONNECT_WITHIN_MAX, RELAY_FRAME_MAX, RelayOpen, RelayRefusal, decode_relay_open, decode_relay_opened,
    encode_relay_open, encode_relay_opened,
};

/// The longest frame: 256 items with the longest keys and names fit.
pub const FRAME_MAX: usize = 1 << 20;
/// The most items, leases, ranges or digests of a range in one message.
pub const ITEMS_MAX: usize = 1_024;

/// Why a frame is no message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The length says more than a frame may have here.
    #[error("frame of {len} bytes, expected at most {max}")]
    TooLong {
        /// What it says.
        len: usize,
        /// [`FRAME_MAX`] or [`RELAY_FRAME_MAX`].
        max: usize,
    },
    /// A length of more bytes than the largest one takes.
    #[error("the length of a frame takes more bytes than the longest frame's")]
    LongLength,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// No protobuf.
    #[error("frame is no message: {0}")]
    Garbage(#[from] prost::DecodeError),
    /// A list with too many elements.
    #[error("{field} has {count} elements, expected at most {most}")]
    TooMany {
        /// The list.
        field: &'static str,
        /// Its length.
        count: usize,
        /// What would have been accepted.
        most: usize,
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
    /// A number that names no range.
    #[error("{field} is {value}, expected a range of the keys' hashes")]
    Range {
        /// The field.
        field: &'static str,
        /// The number.
        value: u64,
    },
    /// A column of the wrong length.
    #[error("{field} has not as many values as there are keys for it")]
    Columns {
        /// The column.
        field: &'static str,
    },
    /// A part that must be there.
    #[error("{field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
}

/// The body of a frame that says one message, as the first of its stream.
#[must_use]
pub fn encode(message: &Message) -> Bytes {
    envelope(to_wire(message, &mut Told::default())).encode_to_vec().into()
}

/// The messages of a frame's body, which is the first of its stream.
///
/// # Errors
/// [`FrameError`] naming the field.
pub fn decode(body: &[u8]) -> Result<Vec<Message>, FrameError> {
    Decoder::default().decode(body)
}

const fn envelope(message: wire::envelope::Message) -> wire::Envelope {
    wire::Envelope { message: Some(message) }
}

fn to_wire(message: &Message, told: &mut Told) -> wire::envelope::Message {
    use wire::envelope::Message as W;
    match message {
        Message::Hello(hello) => W::Hello(wire::Hello {
            contract: hello.contract,
            contract_oldest: hello.contract_oldest,
            incarnation: hello.incarnation,
            ready: hello.ready,
            capacity: hello.capacity,
            resume: hello.resume.map(|Resume { incarnation, through }| wire::Resume { incarnation, through }),
        }),
        Message::Welcome(Welcome { resumed, ready, continues_after, head }) => W::Welcome(wire::Welcome {
            resumed: *resumed,
            ready: *ready,
            continues_after: *continues_after,
            head: *head,
        }),
        Message::Heartbeat(Heartbeat { ready, digest }) => W::Heartbeat(wire::Heartbeat {
            ready: *ready,
            as_of: digest.as_of.0.0,
            ranges: digest.ranges.to_vec(),
        }),
        Message::Update(update) => {
            let items = Some(items::to_wire(&update.items, told));
            W::Update(wire::Update { through: update.through, items })
        }
        Message::Ack { through } => W::Ack(wire::Ack { through: *through }),
        Message::Correction { items } => {
            W::Correction(wire::Correction { items: Some(items::to_wire(items, told)) })
        }
        Message::Claim(claim) => W::Claim(wire::Claim {
            id: claim.id,
            key: claim.key.to_string(),
            known: claim.known.as_ref().map(|(entry, _)| entry_to_wire(entry)),
            known_remaining_ms: claim.known.as_ref().map_or(0, |(_, remaining)| clamp(*remaining)),
            proposal: claim.proposal.as_ref().map(ToString::to_string).unwrap_or_default(),
            reason: reason_to_wire(claim.reason).into(),
            failed: claim.failed.as_ref().map(ToString::to_string).unwrap_or_default(),
            tried: claim.tried.as_ref().map(ToString::to_string).unwrap_or_default(),
            hops: claim.hops,
            held: claim.held,
        }),
        Message::ClaimAnswer(answer) => {
            let mut wired =
                wire::ClaimAnswer { id: answer.id, key: answer.key.to_string(), ..Default::default() };
            match &answer.result {
                ClaimResult::Entry(entry, remaining_ms) => {
                    wired.entry = Some(entry_to_wire(entry));
                    wired.remaining_ms = clamp(*remaining_ms);
                }
                ClaimResult::Kept { entry, remaining_ms, via } => {
                    wired.entry = Some(entry_to_wire(entry));
                    wired.remaining_ms = clamp(*remaining_ms);
                    wired.via = via.iter().map(ToString::to_string).collect();
                }
                ClaimResult::Refused(refusal) => wired.refusal = refusal_to_wire(*refusal).into(),
            }
            W::ClaimAnswer(wired)
        }
        Message::ProbeAsk { round, shard } => {
            W::ProbeAsk(wire::ProbeAsk { round: *round, shard: shard.to_string() })
        }
        Message::ProbeAnswer { round, shard, reached } => W::ProbeAnswer(wire::ProbeAnswer {
            round: *round,
            shard: shard.to_string(),
            reached: *reached == Reached::Yes,
        }),
        Message::Dispute { tried, items } => W::Dispute(sides::dispute_to_wire(tried.as_ref(), items)),
        Message::SessionsAsk { number, keys } => W::SessionsAsk(wire::SessionsAsk {
            number: *number,
            keys: keys.iter().map(ToString::to_string).collect(),
        }),
        Message::SessionsTold { number, items } => W::SessionsTold(sides::told_to_wire(*number, items)),
        Message::PeopleMoved { keys } => {
            W::PeopleMoved(wire::PeopleMoved { keys: keys.iter().map(ToString::to_string).collect() })
        }
        Message::LeaseReport(report) => W::LeaseReport(items::leases_to_wire(&report.leases)),
        Message::LeaseAsk { keys } => {
            W::LeaseAsk(wire::LeaseAsk { keys: keys.iter().map(ToString::to_string).collect() })
        }
        Message::Compare(compare) => W::Compare(compare::to_wire(compare)),
        Message::Compared(compared) => W::Compared(compare::answer_to_wire(compared)),
        Message::Give(Give { number, through, items }) => {
            let items = Some(items::to_wire(items, told));
            W::Give(wire::Give { number: *number, through: *through, items })
        }
        Message::GiveAck { number } => W::GiveAck(wire::GiveAck { number: *number }),
        Message::Reconciled { id } => W::Reconciled(wire::Reconciled { id: *id }),
    }
}

fn from_wire(message: wire::envelope::Message, heard: &mut Heard) -> Result<Vec<Message>, FrameError> {
    use wire::envelope::Message as W;
    let message = match message {
        W::Joins(joins) => return batch::joins_from_wire(joins, heard),
        W::Answers(answers) => return batch::answers_from_wire(answers, heard),
        W::Hello(hello) => {
            let resume =
                hello.resume.map(|wire::Resume { incarnation, through }| Resume { incarnation, through });
            let wire::Hello { contract, contract_oldest, incarnation, ready, capacity, .. } = hello;
            Message::Hello(Hello { contract, contract_oldest, incarnation, ready, capacity, resume })
        }
        W::Welcome(wire::Welcome { resumed, ready, continues_after, head }) => {
            Message::Welcome(Welcome { resumed, ready, continues_after, head })
        }
        W::Heartbeat(wire::Heartbeat { ready, as_of, ranges }) => {
            let ranges: [u64; FAN_OUT] =
                ranges.try_into().map_err(|_| FrameError::Columns { field: "heartbeat.ranges" })?;
            Message::Heartbeat(Heartbeat { ready, digest: Digest { as_of: AsOf(Stamp(as_of)), ranges } })
        }
        W::Update(wire::Update { through, items }) => {
            Message::Update(Update { through, items: items::from_wire(items, heard)? })
        }
        W::Ack(wire::Ack { through }) => Message::Ack { through },
        W::Correction(wire::Correction { items }) => {
            Message::Correction { items: items::from_wire(items, heard)? }
        }
        W::Claim(claim) => {
            let remaining = u64::from(claim.known_remaining_ms);
            Message::Claim(Claim {
                id: claim.id,
                key: key("claim.key", &claim.key)?,
                known: claim.known.map(entry_from_wire).transpose()?.map(|entry| (entry, remaining)),
                proposal: optional(&claim.proposal, |name| shard("claim.proposal", name))?,
                reason: reason_from_wire("claim.reason", claim.reason)?,
                failed: optional(&claim.failed, |name| shard("claim.failed", name))?,
                tried: optional(&claim.tried, |name| peer("claim.tried", name))?,
                hops: claim.hops,
                held: claim.held,
            })
        }
        W::ClaimAnswer(answer) => {
            let remaining_ms = u64::from(answer.remaining_ms);
            let via = via_from_wire(&answer.via)?;
            let result = match answer.entry {
                Some(entry) if via.is_empty() => ClaimResult::Entry(entry_from_wire(entry)?, remaining_ms),
                Some(entry) => ClaimResult::Kept { entry: entry_from_wire(entry)?, remaining_ms, via },
                None => ClaimResult::Refused(refusal_from_wire(answer.refusal)?),
            };
            Message::ClaimAnswer(ClaimAnswer {
                id: answer.id,
                key: key("claim_answer.key", &answer.key)?,
                result,
            })
        }
        W::ProbeAsk(wire::ProbeAsk { round, shard: name }) => {
            Message::ProbeAsk { round, shard: shard("probe_ask.shard", &name)? }
        }
        W::ProbeAnswer(wire::ProbeAnswer { round, shard: name, reached }) => Message::ProbeAnswer {
            round,
            shard: shard("probe_answer.shard", &name)?,
            reached: if reached { Reached::Yes } else { Reached::No },
        },
        W::Dispute(dispute) => {
            let tried = optional(&dispute.tried, |name| peer("dispute.tried", name))?;
            Message::Dispute { tried, items: sides::dispute_from_wire(dispute)? }
        }
        W::SessionsAsk(wire::SessionsAsk { number, keys }) => {
            bounded("sessions_ask.keys", keys.len())?;
            let keys = keys.iter().map(|text| key("sessions_ask.keys", text)).collect::<Result<_, _>>()?;
            Message::SessionsAsk { number, keys }
        }
        W::SessionsTold(told) => {
            Message::SessionsTold { number: told.number, items: sides::told_from_wire(told)? }
        }
        W::PeopleMoved(wire::PeopleMoved { keys }) => {
            bounded("people_moved.keys", keys.len())?;
            let keys = keys.iter().map(|text| key("people_moved.keys", text)).collect::<Result<_, _>>()?;
            Message::PeopleMoved { keys }
        }
        W::LeaseReport(report) => {
            Message::LeaseReport(LeaseReport { leases: items::leases_from_wire(report)? })
        }
        W::LeaseAsk(wire::LeaseAsk { keys }) => {
            bounded("lease_ask.keys", keys.len())?;
            let keys = keys.iter().map(|text| key("lease_ask.keys", text)).collect::<Result<_, _>>()?;
            Message::LeaseAsk { keys }
        }
        W::Compare(compare) => Message::Compare(compare::from_wire(compare)?),
        W::Compared(compared) => Message::Compared(compare::answer_from_wire(compared)?),
        W::Give(wire::Give { number, through, items }) => {
            Message::Give(Give { number, through, items: items::from_wire(items, heard)? })
        }
        W::GiveAck(wire::GiveAck { number }) => Message::GiveAck { number },
        W::Reconciled(wire::Reconciled { id }) => Message::Reconciled { id },
    };
    Ok(vec![message])
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
            Err(_) => {
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
        Reason::Full => wire::Reason::Full,
    }
}

/// The reason's number, which is below 8.
const fn reason_code(reason: Reason) -> u8 {
    reason_to_wire(reason) as u8
}

fn reason_from_wire(field: &'static str, value: i32) -> Result<Reason, FrameError> {
    match wire::Reason::try_from(value) {
        Ok(wire::Reason::Claim) => Ok(Reason::Claim),
        Ok(wire::Reason::Down) => Ok(Reason::Down),
        Ok(wire::Reason::Operator) => Ok(Reason::Operator),
        Ok(wire::Reason::Arbitration) => Ok(Reason::Arbitration),
        Ok(wire::Reason::End) => Ok(Reason::End),
        Ok(wire::Reason::Full) => Ok(Reason::Full),
        Err(_) => Err(FrameError::Enum { field, value }),
    }
}

const fn refusal_to_wire(refusal: ClaimRefusal) -> wire::Refusal {
    match refusal {
        ClaimRefusal::NotReady => wire::Refusal::NotReady,
        ClaimRefusal::TableFull => wire::Refusal::TableFull,
        ClaimRefusal::Overload => wire::Refusal::Overload,
        ClaimRefusal::Held => wire::Refusal::Held,
        ClaimRefusal::NoEntry => wire::Refusal::NoEntry,
        ClaimRefusal::Outranked => wire::Refusal::Outranked,
    }
}

fn refusal_from_wire(value: i32) -> Result<ClaimRefusal, FrameError> {
    match wire::Refusal::try_from(value) {
        Ok(wire::Refusal::NotReady) => Ok(ClaimRefusal::NotReady),
        Ok(wire::Refusal::TableFull) => Ok(ClaimRefusal::TableFull),
        Ok(wire::Refusal::Overload) => Ok(ClaimRefusal::Overload),
        Ok(wire::Refusal::Held) => Ok(ClaimRefusal::Held),
        Ok(wire::Refusal::NoEntry) => Ok(ClaimRefusal::NoEntry),
        Ok(wire::Refusal::Outranked) => Ok(ClaimRefusal::Outranked),
        Ok(wire::Refusal::Unspecified) => Err(FrameError::Missing { field: "claim_answer.entry" }),
        Err(_) => Err(FrameError::Enum { field: "claim_answer.refusal", value }),
    }
}

/// Names of nodes in their order, each once.
fn via_from_wire(names: &[String]) -> Result<Vec<PeerId>, FrameError> {
    let (field, count) = ("claim_answer.via", names.len());
    if count > VIA_MAX {
        return Err(FrameError::TooMany { field, count, most: VIA_MAX });
    }
    let mut via = names.iter().map(|name| peer(field, name)).collect::<Result<Vec<PeerId>, _>>()?;
    via.sort();
    via.dedup();
    Ok(via)
}

/// Remaining times beyond 49 days are none.
fn clamp(remaining_ms: u64) -> u32 {
    u32::try_from(remaining_ms).unwrap_or(u32::MAX)
}

const fn bounded(field: &'static str, count: usize) -> Result<(), FrameError> {
    if count > ITEMS_MAX { Err(FrameError::TooMany { field, count, most: ITEMS_MAX }) } else { Ok(()) }
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
