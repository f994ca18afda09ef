//! What a hostile peer says: every kind of message with every field at its edges. All that depends on the kinds is here.

use shardgate_peering::codec::{self, ITEMS_MAX};
use shardgate_peering::core::{
    Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Entry, GENERATION_MAX, Hello, Item, LeaseReport, Message,
    Now, PeerId, Rank, Reason, Resume, ResyncChunk, STAMP_AHEAD_MAX_MS, ShardName, Stamp, StickKey, Update,
};

use super::bytes::Bytes;

/// How many keys there are: few, so that everybody means the same ones.
pub(super) const KEYS: u8 = 12;
const NAMES: [&str; 5] = ["a", "b", "h", "stranger", "zz"];
const REASONS: [Reason; 5] =
    [Reason::Claim, Reason::Down, Reason::Operator, Reason::Arbitration, Reason::End];

pub(super) fn peer(name: &str) -> PeerId {
    PeerId::parse(name).expect("a peer's name")
}

pub(super) fn key(bytes: &mut Bytes<'_>) -> StickKey {
    let number = bytes.byte();
    let text = if number == 255 { "x".repeat(1_024) } else { format!("room-{}", number % KEYS) };
    StickKey::parse(&text).expect("a key")
}

pub(super) fn shard(bytes: &mut Bytes<'_>) -> ShardName {
    ShardName::parse(&format!("s{}", bytes.below(3))).expect("a shard's name")
}

/// What a hostile peer has been told, and may refer to.
#[derive(Debug, Default)]
pub(super) struct Heard {
    claims: Vec<Claim>,
    incarnation: u64,
    through: u64,
}

impl Heard {
    pub(super) fn hear(&mut self, message: &Message) {
        match message {
            Message::Claim(claim) => {
                if self.claims.len() == 8 {
                    self.claims.remove(0);
                }
                self.claims.push(claim.clone());
            }
            Message::Hello(hello) => self.incarnation = hello.incarnation,
            Message::Update(update) => self.through = update.through,
            Message::Heartbeat { .. }
            | Message::Ack { .. }
            | Message::Correction { .. }
            | Message::ClaimAnswer(_)
            | Message::LeaseReport(_)
            | Message::ResyncChunk(_)
            | Message::ResyncAck { .. } => {}
        }
    }

    /// A message that its receiver's decoder lets through.
    pub(super) fn message(&self, bytes: &mut Bytes<'_>, now: Now) -> Message {
        let message = Speaker { heard: self, now }.message(bytes);
        let frame = codec::encode(&message);
        match codec::decode(&frame[4..]) {
            Ok(Some(decoded)) => decoded,
            other => panic!("{message:?} does not survive the wire: {other:?}"),
        }
    }

    /// A well-formed greeting.
    pub(super) fn hello(&self, bytes: &mut Bytes<'_>) -> Message {
        let resume = bytes.flag().then(|| Resume {
            incarnation: if bytes.flag() { self.incarnation } else { bytes.number(&[u64::MAX]) },
            through: if bytes.flag() { self.through } else { bytes.number(&[u64::MAX]) },
        });
        let incarnation = bytes.number(&[1, u64::MAX]);
        Message::Hello(Hello {
            contract: u32::from(bytes.below(4)),
            incarnation,
            ready: bytes.flag(),
            resume,
        })
    }
}

struct Speaker<'a> {
    heard: &'a Heard,
    now: Now,
}

impl Speaker<'_> {
    fn message(&self, bytes: &mut Bytes<'_>) -> Message {
        match bytes.below(12) {
            0 => self.heard.hello(bytes),
            1 => Message::Heartbeat { ready: bytes.flag() },
            2 | 3 => Message::Update(Update { through: self.through(bytes), items: self.items(bytes) }),
            4 => Message::Ack { through: self.through(bytes) },
            5 => Message::Correction { items: self.items(bytes) },
            6 => Message::Claim(self.claim(bytes)),
            7 | 8 => Message::ClaimAnswer(self.answer(bytes)),
            9 => {
                let count = self.count(bytes);
                let leases = (0..count).map(|_| (key(bytes), self.remaining_ms(bytes))).collect();
                Message::LeaseReport(LeaseReport { leases })
            }
            10 => Message::ResyncChunk(ResyncChunk {
                number: bytes.number(&[1, u64::MAX]),
                items: self.items(bytes),
                last: bytes.flag(),
                continues_after: self.through(bytes),
            }),
            _ => Message::ResyncAck { number: bytes.number(&[1, u64::MAX]) },
        }
    }

    fn through(&self, bytes: &mut Bytes<'_>) -> u64 {
        bytes.number(&[self.heard.through, u64::MAX, 1 << 63])
    }

    /// Mostly few, seldom as many as there may be.
    fn count(&self, bytes: &mut Bytes<'_>) -> usize {
        match bytes.byte() {
            255 => ITEMS_MAX,
            few => usize::from(few % 6),
        }
    }

    fn items(&self, bytes: &mut Bytes<'_>) -> Vec<Item> {
        let count = self.count(bytes);
        (0..count)
            .map(|_| Item {
                key: key(bytes),
                entry: (bytes.below(8) > 0).then(|| self.entry(bytes)),
                remaining_ms: self.remaining_ms(bytes),
            })
            .collect()
    }

    fn claim(&self, bytes: &mut Bytes<'_>) -> Claim {
        Claim {
            id: bytes.number(&[u64::MAX]),
            key: key(bytes),
            known: bytes.flag().then(|| (self.entry(bytes), self.remaining_ms(bytes))),
            proposal: shard(bytes),
            reason: bytes.pick(&REASONS).unwrap_or(Reason::Claim),
            failed: bytes.flag().then(|| shard(bytes)),
            tried: bytes.flag().then(|| name(bytes)),
            hops: u32::try_from(bytes.number(&[1, u64::from(u32::MAX)])).unwrap_or(u32::MAX),
        }
    }

    /// Of what was asked, or of what nobody asked.
    fn answer(&self, bytes: &mut Bytes<'_>) -> ClaimAnswer {
        let asked = if bytes.below(4) > 0 { bytes.pick(&self.heard.claims) } else { None };
        let (id, about) = match asked {
            Some(claim) if bytes.below(8) > 0 => (claim.id, claim.key),
            Some(claim) => (claim.id, key(bytes)),
            None => (bytes.number(&[u64::MAX]), key(bytes)),
        };
        let result = match bytes.below(8) {
            0 => ClaimResult::Refused(ClaimRefusal::NotReady),
            1 => ClaimResult::Refused(ClaimRefusal::TableFull),
            2 => ClaimResult::Refused(ClaimRefusal::Overload),
            _ => ClaimResult::Entry(self.entry(bytes), self.remaining_ms(bytes)),
        };
        ClaimAnswer { id, key: about, result }
    }

    fn entry(&self, bytes: &mut Bytes<'_>) -> Entry {
        let generations = [u64::from(GENERATION_MAX), u64::from(u32::MAX), 1];
        let wall = self.now.wall.0;
        let moments = [wall, wall + STAMP_AHEAD_MAX_MS, wall.saturating_sub(3_600_000), wall + 6 * 3_600_000];
        let created = match bytes.below(4) {
            0 => Stamp(bytes.number(&[u64::MAX, 1])),
            _ => Stamp(bytes.number(&moments).saturating_mul(1 << 16) | u64::from(bytes.byte())),
        };
        Entry {
            shard: (bytes.below(4) > 0).then(|| shard(bytes)),
            generation: u32::try_from(bytes.number(&generations)).unwrap_or(u32::MAX),
            rank: if bytes.flag() { Rank::Alone } else { Rank::Home },
            created,
            origin: name(bytes),
            reason: bytes.pick(&REASONS).unwrap_or(Reason::Claim),
        }
    }

    /// Whatever fits into the wire's field.
    fn remaining_ms(&self, bytes: &mut Bytes<'_>) -> u64 {
        bytes.number(&[5_000, 60_000, u64::from(u32::MAX) - 1]).min(u64::from(u32::MAX))
    }
}

fn name(bytes: &mut Bytes<'_>) -> PeerId {
    peer(NAMES[usize::from(bytes.below(5))])
}

/// The entries that a message carries.
pub(super) fn entries(message: &Message) -> Vec<&Entry> {
    match message {
        Message::Update(update) => of_items(&update.items),
        Message::Correction { items } => of_items(items),
        Message::ResyncChunk(chunk) => of_items(&chunk.items),
        Message::Claim(claim) => claim.known.iter().map(|(entry, _)| entry).collect(),
        Message::ClaimAnswer(answer) => match &answer.result {
            ClaimResult::Entry(entry, _) => vec![entry],
            ClaimResult::Refused(_) => Vec::new(),
        },
        Message::Hello(_)
        | Message::Heartbeat { .. }
        | Message::Ack { .. }
        | Message::LeaseReport(_)
        | Message::ResyncAck { .. } => Vec::new(),
    }
}

fn of_items(items: &[Item]) -> Vec<&Entry> {
    items.iter().filter_map(|item| item.entry.as_ref()).collect()
}

/// Whether it carries entries, and every one of them is absurd: then it must change no entry at all.
pub(super) fn is_absurd(message: &Message, now: Now) -> bool {
    let entries = entries(message);
    !entries.is_empty() && entries.iter().all(|entry| entry.validate(now).is_err())
}

/// How many elements its lists have.
pub(super) fn elements(message: &Message) -> usize {
    match message {
        Message::Update(update) => update.items.len(),
        Message::Correction { items } => items.len(),
        Message::ResyncChunk(chunk) => chunk.items.len(),
        Message::LeaseReport(report) => report.leases.len(),
        Message::Hello(_)
        | Message::Heartbeat { .. }
        | Message::Ack { .. }
        | Message::Claim(_)
        | Message::ClaimAnswer(_)
        | Message::ResyncAck { .. } => 1,
    }
}

/// The bounds that a decoder promises; the identifiers' own are in their types, and asked again here.
pub(super) fn assert_bounded(message: &Message) {
    assert!(elements(message) <= ITEMS_MAX, "{} elements", elements(message));
    let keys: Vec<&StickKey> = match message {
        Message::Update(Update { items, .. })
        | Message::Correction { items }
        | Message::ResyncChunk(ResyncChunk { items, .. }) => items.iter().map(|item| &item.key).collect(),
        Message::LeaseReport(report) => report.leases.iter().map(|(key, _)| key).collect(),
        Message::Claim(claim) => vec![&claim.key],
        Message::ClaimAnswer(answer) => vec![&answer.key],
        Message::Hello(_) | Message::Heartbeat { .. } | Message::Ack { .. } | Message::ResyncAck { .. } => {
            Vec::new()
        }
    };
    for key in keys {
        assert!((1..=1_024).contains(&key.as_str().len()), "a key of {} bytes", key.as_str().len());
    }
    for entry in entries(message) {
        assert!(PeerId::parse(entry.origin.as_str()).is_ok());
        assert!(entry.shard.as_ref().is_none_or(|shard| ShardName::parse(shard.as_str()).is_ok()));
    }
}

/// Which way of the connection a message takes: those of one way are in order, claims are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Ordered,
    Claims,
}

pub(super) const fn way(message: &Message) -> Way {
    if matches!(message, Message::Claim(_) | Message::ClaimAnswer(_)) { Way::Claims } else { Way::Ordered }
}

/// Every kind once, as it is when nobody lies.
pub(super) fn every_kind() -> Vec<Message> {
    let now = Now::default();
    let heard = Heard::default();
    let entry = Entry {
        shard: ShardName::parse("s1").ok(),
        generation: 1,
        rank: Rank::Home,
        created: Stamp::at(super::world::WALL_START),
        origin: peer("h"),
        reason: Reason::Claim,
    };
    let mut none = Bytes::new(&[]);
    let item = Item { key: key(&mut none), entry: Some(entry.clone()), remaining_ms: 60_000 };
    let end = Item { entry: Some(Entry { shard: None, generation: 2, ..entry.clone() }), ..item.clone() };
    let renewal = Item { entry: None, ..item.clone() };
    let items = vec![item.clone(), renewal, end];
    let speaker = Speaker { heard: &heard, now };
    let claim = Claim { known: Some((entry.clone(), 60_000)), ..speaker.claim(&mut none) };
    let answer = |result| Message::ClaimAnswer(ClaimAnswer { id: 1, key: item.key.clone(), result });
    vec![
        Message::Hello(Hello { contract: 1, incarnation: 7, ready: true, resume: None }),
        Message::Heartbeat { ready: true },
        Message::Update(Update { through: 3, items: items.clone() }),
        Message::Ack { through: 1 },
        Message::Correction { items: items.clone() },
        Message::Claim(Claim { known: None, ..claim.clone() }),
        Message::Claim(claim),
        answer(ClaimResult::Entry(entry, 60_000)),
        answer(ClaimResult::Refused(ClaimRefusal::NotReady)),
        Message::LeaseReport(LeaseReport { leases: vec![(item.key.clone(), 60_000)] }),
        Message::ResyncChunk(ResyncChunk { number: 1, items, last: true, continues_after: 0 }),
        Message::ResyncAck { number: 1 },
    ]
}
