//! Frames of a stream: what goes out together shares frames, names and stamps are told once.

use bytes::{BufMut, BytesMut};
use prost::Message as _;
use shardgate_peering_core::{
    Change, Claim, ClaimAnswer, ClaimResult, Item, Message, Reason, StickKey, Update,
};
use shardgate_proto::peer as wire;

use super::items::{self, Column, keys_to_wire, whole_key};
use super::{FrameError, Heard, Told, bounded, envelope, from_wire, shard, to_wire};

/// The most of what is put into one frame.
const TOGETHER_MAX: usize = 256;

/// Writes the frames of one stream.
#[derive(Debug, Default)]
pub struct Encoder {
    told: Told,
    joins: Vec<Claim>,
    answers: Vec<ClaimAnswer>,
    update: Option<Update>,
}

impl Encoder {
    /// Appends messages that go out together. First joins, answers and updates change places with each other, and with nothing else.
    pub fn encode(&mut self, messages: impl IntoIterator<Item = Message>, out: &mut BytesMut) {
        for message in messages {
            match message {
                Message::Claim(claim) if is_join(&claim) => {
                    self.joins.push(claim);
                    if self.joins.len() >= TOGETHER_MAX {
                        self.end_joins(out);
                    }
                }
                Message::ClaimAnswer(answer @ ClaimAnswer { result: ClaimResult::Entry(..), .. }) => {
                    self.answers.push(answer);
                    if self.answers.len() >= TOGETHER_MAX {
                        self.end_answers(out);
                    }
                }
                Message::Update(update) => self.update(update, out),
                other @ (Message::Hello(_)
                | Message::Welcome(_)
                | Message::Heartbeat(_)
                | Message::Ack { .. }
                | Message::Correction { .. }
                | Message::Claim(_)
                | Message::ClaimAnswer(_)
                | Message::ProbeAsk { .. }
                | Message::ProbeAnswer { .. }
                | Message::Dispute { .. }
                | Message::SessionsAsk { .. }
                | Message::SessionsTold { .. }
                | Message::PeopleMoved { .. }
                | Message::LeaseReport(_)
                | Message::LeaseAsk { .. }
                | Message::Compare(_)
                | Message::Compared(_)
                | Message::Give(_)
                | Message::GiveAck { .. }
                | Message::Reconciled { .. }) => {
                    self.end(out);
                    self.frame(&other, out);
                }
            }
        }
        self.end(out);
    }

    fn update(&mut self, next: Update, out: &mut BytesMut) {
        match &mut self.update {
            Some(update) if update.items.len() + next.items.len() <= TOGETHER_MAX => {
                update.through = next.through;
                update.items.extend(next.items);
            }
            _ => {
                self.end_update(out);
                self.update = Some(next);
            }
        }
    }

    fn end(&mut self, out: &mut BytesMut) {
        self.end_joins(out);
        self.end_answers(out);
        self.end_update(out);
    }

    fn end_joins(&mut self, out: &mut BytesMut) {
        if self.joins.is_empty() {
            return;
        }
        let claims = std::mem::take(&mut self.joins);
        let mut shards = self.told.shards.begin();
        let (shared, keys) = keys_to_wire(claims.iter().map(|claim| claim.key.as_str()));
        let ids = differences(claims.iter().map(|claim| claim.id));
        // Only claims with a proposal are here.
        let shard = claims
            .iter()
            .filter_map(|claim| claim.proposal.as_ref())
            .map(|name| shards.number(name))
            .collect();
        let shards = shards.end();
        put(wire::envelope::Message::Joins(wire::Joins { ids, keys, shared, shards, shard }), out);
    }

    fn end_answers(&mut self, out: &mut BytesMut) {
        if self.answers.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut self.answers);
        let ids = differences(answers.iter().map(|answer| answer.id));
        let entries = answers.into_iter().filter_map(|ClaimAnswer { key, result, .. }| match result {
            ClaimResult::Entry(entry, remaining_ms) => {
                Some(Item { key, change: Change::Entry(entry), remaining_ms, held: false })
            }
            ClaimResult::Kept { .. } | ClaimResult::Refused(_) => None,
        });
        let entries: Vec<Item> = entries.collect();
        let items = Some(items::to_wire(&entries, &mut self.told));
        put(wire::envelope::Message::Answers(wire::Answers { ids, items }), out);
    }

    fn end_update(&mut self, out: &mut BytesMut) {
        if let Some(update) = self.update.take() {
            self.frame(&Message::Update(update), out);
        }
    }

    fn frame(&mut self, message: &Message, out: &mut BytesMut) {
        put(to_wire(message, &mut self.told), out);
    }
}

/// Appends a frame: the length as a varint (protobuf's), then the envelope.
fn put(message: wire::envelope::Message, out: &mut BytesMut) {
    let envelope = envelope(message);
    let len = envelope.encoded_len();
    out.reserve(len + prost::length_delimiter_len(len));
    let mut left = len;
    while left >= 0x80 {
        out.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
    envelope.encode_raw(out);
}

/// Nothing but a key and a proposal.
const fn is_join(claim: &Claim) -> bool {
    let Claim { known, proposal, reason, held, failed, tried, hops, .. } = claim;
    known.is_none()
        && proposal.is_some()
        && matches!(reason, Reason::Claim)
        && !*held
        && failed.is_none()
        && tried.is_none()
        && *hops == 0
}

fn differences(ids: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut last = 0;
    ids.map(|id| id.wrapping_sub(std::mem::replace(&mut last, id))).collect()
}

/// Reads the frames of one stream.
#[derive(Debug, Default)]
pub struct Decoder {
    heard: Heard,
}

impl Decoder {
    /// The messages of the next frame's body; none for a kind that this version does not know, which is skipped.
    ///
    /// # Errors
    /// [`FrameError`] naming the field; the stream says nothing that could be understood after it.
    pub fn decode(&mut self, body: &[u8]) -> Result<Vec<Message>, FrameError> {
        let Some(message) = wire::Envelope::decode(body)?.message else { return Ok(Vec::new()) };
        from_wire(message, &mut self.heard)
    }
}

/// Ids for so many keys.
fn ids(
    field: &'static str,
    differences: Vec<u64>,
    keys: usize,
) -> Result<impl Iterator<Item = u64>, FrameError> {
    if differences.len() != keys {
        return Err(FrameError::Columns { field });
    }
    let mut id = 0_u64;
    Ok(differences.into_iter().map(move |difference| {
        id = id.wrapping_add(difference);
        id
    }))
}

pub(super) fn joins_from_wire(joins: wire::Joins, heard: &mut Heard) -> Result<Vec<Message>, FrameError> {
    bounded("joins", joins.keys.len())?;
    bounded("joins.shards", joins.shards.len())?;
    let mut ids = ids("joins.ids", joins.ids, joins.keys.len())?;
    let shards = joins.shards.iter().map(|name| shard("joins.shards", name)).collect::<Result<_, _>>()?;
    let shards = heard.shards.with(shards);
    let mut shared = Column::new("joins.shared", joins.shared, Some(0));
    let mut on = Column::new("joins.shard", joins.shard, None);
    let mut claims: Vec<Message> = Vec::with_capacity(joins.keys.len());
    let mut before: Option<StickKey> = None;
    for rest in &joins.keys {
        let key = whole_key("joins.keys", before.as_ref(), shared.next()?, rest)?;
        before = Some(key.clone());
        let proposal = Some(shards.name("joins.shard", on.next()?)?);
        claims.push(Message::Claim(Claim {
            id: ids.next().unwrap_or_default(),
            key,
            known: None,
            proposal,
            reason: Reason::Claim,
            held: false,
            failed: None,
            tried: None,
            hops: 0,
        }));
    }
    shared.end()?;
    on.end()?;
    shards.learn();
    Ok(claims)
}

pub(super) fn answers_from_wire(
    answers: wire::Answers,
    heard: &mut Heard,
) -> Result<Vec<Message>, FrameError> {
    let items = items::from_wire(answers.items, heard)?;
    let ids = ids("answers.ids", answers.ids, items.len())?;
    let answer = |(id, item): (u64, Item)| match item.change {
        Change::Entry(entry) => {
            let result = ClaimResult::Entry(entry, item.remaining_ms);
            Ok(Message::ClaimAnswer(ClaimAnswer { id, key: item.key, result }))
        }
        Change::Renewed | Change::Dropped { .. } => Err(FrameError::Missing { field: "answers.items.entry" }),
    };
    ids.zip(items).map(answer).collect()
}
