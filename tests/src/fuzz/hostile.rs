//! What a hostile peer says: every kind of message with every field at its edges. All that depends on the kinds is here and in
//! `hostile_compare`.

use shardgate_peering::codec::{self, ITEMS_MAX};
use shardgate_peering::core::{
    AsOf, Change, Claim, ClaimAnswer, ClaimRefusal, ClaimResult, Compare, Digest, Disputed, Entry, FAN_OUT,
    GENERATION_MAX, Give, Heartbeat, Hello, Item, Lease, LeaseReport, Message, Now, PeerId, Rank, Reached,
    Reason, Resume, SIDES_MAX, STAMP_AHEAD_MAX_MS, ShardName, Stamp, StickKey, Update, VIA_MAX, Welcome,
};

use super::bytes::Bytes;
use super::hostile_compare as compares;

const NAMES: [&str; 5] = ["a", "b", "h", "stranger", "zz"];
const REASONS: [Reason; 6] =
    [Reason::Claim, Reason::Down, Reason::Operator, Reason::Arbitration, Reason::End, Reason::Full];

pub(super) fn peer(name: &str) -> PeerId {
    PeerId::parse(name).expect("a peer's name")
}

/// Mostly one of a few keys, so that everybody means the same ones, else one of more than any table here takes.
pub(super) fn key(bytes: &mut Bytes<'_>) -> StickKey {
    let text = match bytes.byte() {
        255 => "x".repeat(1_024),
        few @ 0..192 => format!("room-{}", few % 8),
        many => format!("room-{many}"),
    };
    StickKey::parse(&text).expect("a key")
}

pub(super) fn shard(bytes: &mut Bytes<'_>) -> ShardName {
    ShardName::parse(&format!("s{}", bytes.below(3))).expect("a shard's name")
}

/// What a hostile peer has been told, and may refer to.
#[derive(Debug, Default)]
pub(super) struct Heard {
    claims: Vec<Claim>,
    pub(super) compares: Vec<Compare>,
    incarnation: u64,
    through: u64,
    given: u64,
    digest: Option<Digest>,
    round: u64,
}

/// Keeps the newest eight.
fn keep<T: Clone>(list: &mut Vec<T>, one: &T) {
    if list.len() == 8 {
        list.remove(0);
    }
    list.push(one.clone());
}

impl Heard {
    pub(super) fn hear(&mut self, message: &Message) {
        if let Message::Claim(claim) = message {
            keep(&mut self.claims, claim);
        } else if let Message::Compare(compare) = message {
            keep(&mut self.compares, compare);
        } else if let Message::Hello(hello) = message {
            self.incarnation = hello.incarnation;
        } else if let Message::Update(update) = message {
            self.through = update.through;
        } else if let Message::Give(give) = message {
            self.given = give.number;
        } else if let Message::ProbeAsk { round, .. } = message {
            self.round = *round;
        } else if let Message::Heartbeat(heartbeat) = message {
            self.digest = Some(heartbeat.digest.clone());
        }
    }

    /// A message that its receiver's decoder lets through.
    pub(super) fn message(&self, bytes: &mut Bytes<'_>, now: Now) -> Message {
        let message = Speaker { heard: self, now }.message(bytes);
        let mut decoded = codec::decode(&codec::encode(&message));
        match &mut decoded {
            Ok(messages) if messages.len() == 1 => messages.remove(0),
            other => panic!("{message:?} does not survive the wire: {other:?}"),
        }
    }

    /// A greeting that is mostly accepted.
    pub(super) fn hello(&self, bytes: &mut Bytes<'_>) -> Message {
        let resume = bytes.flag().then(|| Resume {
            incarnation: if bytes.flag() { self.incarnation } else { bytes.number(&[u64::MAX]) },
            through: if bytes.flag() { self.through } else { bytes.number(&[u64::MAX]) },
        });
        Message::Hello(Hello {
            contract: [1, 1, 2, 0][usize::from(bytes.below(4))],
            contract_oldest: [1, 0, 1, 2][usize::from(bytes.below(4))],
            incarnation: bytes.number(&[1, u64::MAX]).max(u64::from(bytes.below(8) > 0)),
            ready: bytes.flag(),
            capacity: bytes.number(&[6, 1_000_000, u64::MAX]),
            resume,
        })
    }

    /// The answer to the greeting of the other one.
    pub(super) fn welcome(bytes: &mut Bytes<'_>) -> Message {
        let continues_after = bytes.number(&[u64::MAX]);
        let head = continues_after;
        Message::Welcome(Welcome { resumed: bytes.flag(), ready: bytes.flag(), continues_after, head })
    }
}

/// Sessions on some shards.
fn sides(bytes: &mut Bytes<'_>) -> Vec<(ShardName, u64)> {
    (0..bytes.below(4)).map(|_| (shard(bytes), bytes.number(&[1, u64::MAX]))).collect()
}

struct Speaker<'a> {
    heard: &'a Heard,
    now: Now,
}

impl Speaker<'_> {
    fn message(&self, bytes: &mut Bytes<'_>) -> Message {
        let kind = bytes.byte();
        match kind % 21 {
            // What was found before these were there means what it meant: they take ten numbers of others.
            _ if kind >= 254 => {
                let reached = if bytes.flag() { Reached::Yes } else { Reached::No };
                Message::ProbeAnswer { round: self.round(bytes), shard: shard(bytes), reached }
            }
            _ if kind >= 252 => Message::ProbeAsk { round: self.round(bytes), shard: shard(bytes) },
            _ if kind >= 250 => {
                let items = (0..count(bytes)).map(|_| (key(bytes), sides(bytes))).collect();
                Message::SessionsTold { number: self.round(bytes), items }
            }
            _ if kind >= 248 => {
                let keys = (0..count(bytes)).map(|_| key(bytes)).collect();
                Message::SessionsAsk { number: self.round(bytes), keys }
            }
            _ if kind >= 246 => {
                let number = count(bytes);
                let item = |_| {
                    let (key, entry) = (key(bytes), self.entry(bytes));
                    Disputed { key, entry, sessions: sides(bytes) }
                };
                let items = (0..number).map(item).collect();
                Message::Dispute { tried: bytes.flag().then(|| name(bytes)), items }
            }
            _ if kind >= 244 => {
                Message::PeopleMoved { keys: (0..count(bytes)).map(|_| key(bytes)).collect() }
            }
            0 => self.heard.hello(bytes),
            1 => Heard::welcome(bytes),
            2 => Message::Heartbeat(Heartbeat { ready: bytes.flag(), digest: self.digest(bytes) }),
            3..=5 => Message::Update(Update { through: self.through(bytes), items: self.items(bytes) }),
            6 => Message::Ack { through: self.through(bytes) },
            7 => Message::Correction { items: self.items(bytes) },
            8 | 9 => Message::Claim(self.claim(bytes)),
            10 | 11 => Message::ClaimAnswer(self.answer(bytes)),
            12 => {
                let count = count(bytes);
                let leases = (0..count).map(|_| Lease {
                    key: key(bytes),
                    remaining_ms: remaining_ms(bytes),
                    held: bytes.flag(),
                });
                Message::LeaseReport(LeaseReport { leases: leases.collect() })
            }
            13 | 14 => Message::Compare(compares::compare(bytes, self.heard, self.now)),
            15 | 16 => Message::Compared(compares::compared(bytes, self.heard)),
            17 => Message::Give(Give {
                number: bytes.number(&[1, u64::MAX]),
                through: bytes.number(&[1, u64::MAX]),
                items: self.items(bytes),
            }),
            18 => Message::GiveAck { number: bytes.number(&[self.heard.given, u64::MAX]) },
            19 => Message::LeaseAsk { keys: (0..count(bytes)).map(|_| key(bytes)).collect() },
            _ => {
                let heard = self.heard.compares.last().map_or(0, |compare| compare.id);
                Message::Reconciled { id: bytes.number(&[heard, u64::MAX]) }
            }
        }
    }

    fn round(&self, bytes: &mut Bytes<'_>) -> u64 {
        bytes.number(&[self.heard.round, u64::MAX])
    }

    fn through(&self, bytes: &mut Bytes<'_>) -> u64 {
        bytes.number(&[self.heard.through, u64::MAX, 1 << 63])
    }

    /// What was heard, with some ranges changed, or anything.
    fn digest(&self, bytes: &mut Bytes<'_>) -> Digest {
        let heard = self.heard.digest.clone().filter(|_| bytes.below(4) > 0);
        let mut digest = heard.unwrap_or_else(|| Digest { as_of: self.as_of(bytes), ranges: [0; FAN_OUT] });
        for _ in 0..bytes.below(4) {
            digest.ranges[usize::from(bytes.below(16))] = bytes.number(&[u64::MAX]);
        }
        digest
    }

    fn as_of(&self, bytes: &mut Bytes<'_>) -> AsOf {
        compares::as_of(bytes, self.now)
    }

    fn items(&self, bytes: &mut Bytes<'_>) -> Vec<Item> {
        let count = count(bytes);
        let item = |_| {
            let key = key(bytes);
            let change = match bytes.below(16) {
                0 => Change::Renewed,
                1 => Change::Dropped { digest: bytes.number(&[u64::MAX]), at: self.stamp(bytes) },
                _ => Change::Entry(self.entry(bytes)),
            };
            Item { key, change, remaining_ms: remaining_ms(bytes), held: bytes.flag() }
        };
        (0..count).map(item).collect()
    }

    fn claim(&self, bytes: &mut Bytes<'_>) -> Claim {
        Claim {
            id: bytes.number(&[u64::MAX]),
            key: key(bytes),
            known: bytes.flag().then(|| (self.entry(bytes), remaining_ms(bytes))),
            proposal: (bytes.below(4) > 0).then(|| shard(bytes)),
            reason: bytes.pick(&REASONS).unwrap_or(Reason::Claim),
            held: bytes.flag(),
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
        let refusals = [
            ClaimRefusal::NotReady,
            ClaimRefusal::TableFull,
            ClaimRefusal::Overload,
            ClaimRefusal::Held,
            ClaimRefusal::NoEntry,
            ClaimRefusal::Outranked,
        ];
        let kind = bytes.byte();
        let result = match refusals.get(usize::from(kind % 12)) {
            _ if kind >= 252 => {
                let (entry, remaining_ms) = (self.entry(bytes), remaining_ms(bytes));
                let mut via: Vec<PeerId> = (0..=bytes.below(8)).map(|_| name(bytes)).collect();
                via.sort();
                via.dedup();
                ClaimResult::Kept { entry, remaining_ms, via }
            }
            Some(refusal) => ClaimResult::Refused(*refusal),
            None => ClaimResult::Entry(self.entry(bytes), remaining_ms(bytes)),
        };
        ClaimAnswer { id, key: about, result }
    }

    fn stamp(&self, bytes: &mut Bytes<'_>) -> Stamp {
        let wall = self.now.wall.0;
        let moments = [wall, wall + STAMP_AHEAD_MAX_MS, wall.saturating_sub(3_600_000), wall + 6 * 3_600_000];
        match bytes.below(4) {
            0 => Stamp(bytes.number(&[u64::MAX, 1])),
            _ => Stamp(bytes.number(&moments).saturating_mul(1 << 16) | u64::from(bytes.byte())),
        }
    }

    fn entry(&self, bytes: &mut Bytes<'_>) -> Entry {
        let generations = [u64::from(GENERATION_MAX), u64::from(u32::MAX), 1];
        Entry {
            shard: (bytes.below(4) > 0).then(|| shard(bytes)),
            generation: u32::try_from(bytes.number(&generations)).unwrap_or(u32::MAX),
            rank: if bytes.flag() { Rank::Alone } else { Rank::Home },
            created: self.stamp(bytes),
            origin: name(bytes),
            reason: bytes.pick(&REASONS).unwrap_or(Reason::Claim),
        }
    }
}

/// Mostly few, seldom as many as there may be.
pub(super) fn count(bytes: &mut Bytes<'_>) -> usize {
    match bytes.byte() {
        255 => ITEMS_MAX,
        few => usize::from(few % 6),
    }
}

/// Whatever fits into the wire's field.
fn remaining_ms(bytes: &mut Bytes<'_>) -> u64 {
    bytes.number(&[5_000, 60_000, u64::from(u32::MAX) - 1]).min(u64::from(u32::MAX))
}

fn name(bytes: &mut Bytes<'_>) -> PeerId {
    peer(NAMES[usize::from(bytes.below(5))])
}

fn items(message: &Message) -> &[Item] {
    if let Message::Update(Update { items, .. })
    | Message::Correction { items }
    | Message::Give(Give { items, .. }) = message
    {
        items
    } else {
        &[]
    }
}

/// The entries that a message carries.
fn entries(message: &Message) -> Vec<&Entry> {
    let mut entries: Vec<&Entry> = items(message)
        .iter()
        .filter_map(|item| if let Change::Entry(entry) = &item.change { Some(entry) } else { None })
        .collect();
    if let Message::Claim(claim) = message {
        entries.extend(claim.known.iter().map(|(entry, _)| entry));
    }
    if let Message::ClaimAnswer(ClaimAnswer {
        result: ClaimResult::Entry(entry, _) | ClaimResult::Kept { entry, .. },
        ..
    }) = message
    {
        entries.push(entry);
    }
    entries
}

/// Whether it makes the receiver forget entries without a decision: then lower ones may follow.
pub(super) fn drops(message: &Message) -> bool {
    items(message).iter().any(|item| matches!(item.change, Change::Dropped { .. }))
}

/// Whether it carries entries, and every one of them is absurd: then it must change no entry at all. (The last gift of a
/// reconciliation may end a restart, and what follows from that changes entries.)
pub(super) fn is_absurd(message: &Message, now: Now) -> bool {
    let entries = entries(message);
    let alone = !drops(message) && !matches!(message, Message::Give(_));
    alone && !entries.is_empty() && entries.iter().all(|entry| entry.validate(now).is_err())
}

/// How many elements its lists have.
pub(super) fn elements(message: &Message) -> usize {
    if let Message::LeaseReport(report) = message {
        report.leases.len()
    } else if let Message::LeaseAsk { keys }
    | Message::SessionsAsk { keys, .. }
    | Message::PeopleMoved { keys } = message
    {
        keys.len()
    } else if let Message::Dispute { items, .. } = message {
        items.len()
    } else if let Message::SessionsTold { items, .. } = message {
        items.len()
    } else if let Message::Compare(compare) = message {
        compares::elements(compare)
    } else if let Message::Compared(compared) = message {
        compares::answered(compared)
    } else {
        items(message).len()
    }
}

/// The bounds that a decoder promises; the identifiers' own are in their types, and asked again here.
pub(super) fn assert_bounded(message: &Message) {
    let compares = matches!(message, Message::Compare(_) | Message::Compared(_));
    // Ranges, and the digests of all of them together.
    let most = if compares { (1 + FAN_OUT + 4) * ITEMS_MAX } else { ITEMS_MAX };
    assert!(elements(message) <= most, "{} elements", elements(message));
    let mut keys: Vec<&StickKey> = items(message).iter().map(|item| &item.key).collect();
    if let Message::LeaseReport(report) = message {
        keys.extend(report.leases.iter().map(|lease| &lease.key));
    }
    if let Message::LeaseAsk { keys: asked }
    | Message::SessionsAsk { keys: asked, .. }
    | Message::PeopleMoved { keys: asked } = message
    {
        keys.extend(asked);
    }
    if let Message::Dispute { items, .. } = message {
        keys.extend(items.iter().map(|item| &item.key));
        assert!(items.iter().all(|item| item.sessions.len() <= SIDES_MAX));
    }
    if let Message::SessionsTold { items, .. } = message {
        keys.extend(items.iter().map(|(key, _)| key));
        assert!(items.iter().all(|(_, sides)| sides.len() <= SIDES_MAX));
    }
    if let Message::Claim(Claim { key, .. }) | Message::ClaimAnswer(ClaimAnswer { key, .. }) = message {
        keys.push(key);
    }
    if let Message::ClaimAnswer(ClaimAnswer { result: ClaimResult::Kept { via, .. }, .. }) = message {
        assert!((1..=VIA_MAX).contains(&via.len()) && via.is_sorted(), "{via:?}");
    }
    for key in keys {
        assert!((1..=1_024).contains(&key.as_str().len()), "a key of {} bytes", key.as_str().len());
    }
    for entry in entries(message) {
        assert!(PeerId::parse(entry.origin.as_str()).is_ok());
        assert!(entry.shard.as_ref().is_none_or(|shard| ShardName::parse(shard.as_str()).is_ok()));
    }
}

/// Every kind once, as it is when nobody lies.
pub(super) fn every_kind() -> Vec<Message> {
    let now = Now { wall: super::world::WALL_START, ..Now::default() };
    let heard = Heard::default();
    let entry = Entry {
        shard: ShardName::parse("s1").ok(),
        generation: 1,
        rank: Rank::Home,
        created: Stamp::at(now.wall),
        origin: peer("h"),
        reason: Reason::Claim,
    };
    let mut none = Bytes::new(&[]);
    let item = |change| Item { key: key(&mut Bytes::new(&[])), change, remaining_ms: 60_000, held: false };
    let end = Entry { shard: None, generation: 2, reason: Reason::End, ..entry.clone() };
    let items = vec![
        item(Change::Entry(entry.clone())),
        item(Change::Renewed),
        Item { held: true, ..item(Change::Entry(end)) },
        item(Change::Dropped { digest: 7, at: Stamp::at(now.wall) }),
    ];
    let room = items[0].key.clone();
    let proposal = ShardName::parse("s2").ok();
    let claim = Claim { id: 1, proposal, ..Speaker { heard: &heard, now }.claim(&mut none) };
    let answer = |result| Message::ClaimAnswer(ClaimAnswer { id: 1, key: room.clone(), result });
    let digest = Digest { as_of: AsOf(Stamp::at(now.wall)), ranges: [0; FAN_OUT] };
    let disputed = (room.clone(), entry.clone());
    let mut kinds = vec![
        Message::Hello(Hello {
            contract: 1,
            contract_oldest: 1,
            incarnation: 7,
            ready: true,
            capacity: 1_000,
            resume: None,
        }),
        Message::Welcome(Welcome { resumed: false, ready: true, continues_after: 0, head: 0 }),
        Message::Heartbeat(Heartbeat { ready: true, digest }),
        Message::Update(Update { through: 3, items: items.clone() }),
        Message::Ack { through: 1 },
        Message::Correction { items: items.clone() },
        Message::Claim(claim.clone()),
        Message::Claim(Claim { known: Some((entry.clone(), 60_000)), failed: shard_named("s1"), ..claim }),
        answer(ClaimResult::Kept {
            entry: entry.clone(),
            remaining_ms: 60_000,
            via: vec![peer("b"), peer("h")],
        }),
        answer(ClaimResult::Entry(entry, 60_000)),
        answer(ClaimResult::Refused(ClaimRefusal::NotReady)),
        Message::LeaseReport(LeaseReport {
            leases: vec![Lease { key: room.clone(), remaining_ms: 60_000, held: true }],
        }),
        Message::LeaseAsk { keys: vec![room] },
        Message::Give(Give { number: 1, through: 1, items }),
        Message::GiveAck { number: 1 },
        Message::Reconciled { id: 1 },
    ];
    let sessions: Vec<_> = shard_named("s1").into_iter().map(|shard| (shard, 3)).collect();
    let told = vec![(disputed.0.clone(), sessions.clone())];
    kinds.push(Message::Dispute {
        tried: None,
        items: vec![Disputed { key: disputed.0.clone(), entry: disputed.1, sessions }],
    });
    kinds.push(Message::PeopleMoved { keys: vec![disputed.0.clone()] });
    kinds.push(Message::SessionsAsk { number: 1, keys: vec![disputed.0] });
    kinds.push(Message::SessionsTold { number: 1, items: told });
    kinds.extend(shard_named("s1").map(|shard| Message::ProbeAsk { round: 1, shard }));
    let reached = Reached::Yes;
    kinds.extend(shard_named("s1").map(|shard| Message::ProbeAnswer { round: 1, shard, reached }));
    kinds.extend(compares::every_kind());
    kinds
}

/// Entries beyond every bound: live ones, tombstones, tombstones that come to life, and live ones that end, each for many keys.
pub(super) fn floods() -> [Vec<Message>; 2] {
    let entry = |shard, generation| Entry {
        shard,
        generation,
        rank: Rank::Home,
        created: Stamp::at(super::world::WALL_START),
        origin: peer("h"),
        reason: Reason::Claim,
    };
    let item = |number, shard, generation| Item {
        key: key(&mut Bytes::new(&[number])),
        change: Change::Entry(entry(shard, generation)),
        remaining_ms: 60_000,
        held: false,
    };
    let flood = |keys: std::ops::Range<u8>, shard: Option<ShardName>, generation| Message::Correction {
        items: keys.map(|number| item(number, shard.clone(), generation)).collect(),
    };
    let one_by_one = |number| Message::Correction {
        items: vec![item(number, shard_named("s1"), 1), item(number, None, 2)],
    };
    let revived = vec![
        flood(192..220, shard_named("s1"), 1),
        flood(220..255, None, 1),
        flood(220..255, shard_named("s1"), 2),
        flood(192..255, None, 3),
    ];
    [revived, (192..255).map(one_by_one).collect()]
}

fn shard_named(name: &str) -> Option<ShardName> {
    ShardName::parse(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_of_message_is_spoken() {
        let known: BTreeSet<&str> = Message::KINDS.into_iter().collect();
        let seeds: BTreeSet<&str> = every_kind().iter().map(Message::kind).collect();
        assert_eq!(seeds, known, "in the seeds");
        let spoken: BTreeSet<&str> = (0..=u8::MAX)
            .map(|kind| Heard::default().message(&mut Bytes::new(&[kind]), Now::default()).kind())
            .collect();
        assert_eq!(spoken, known, "by the hostile peer");
    }
}
