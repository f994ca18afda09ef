//! Every message survives the way through the wire; broken frames get their message.

use bytes::BytesMut;
use prost::Message as _;

use shardgate_peering_core::{
    Change, Compare, CompareContent, ComparePart, Compared, ComparedContent, ComparedPart, Disputed, Item,
    Lease, RangeId, SIDES_MAX,
};

use super::*;

fn entry(shard: Option<&str>) -> Entry {
    Entry {
        shard: shard.map(|name| ShardName::parse(name).unwrap()),
        generation: 3,
        rank: Rank::Alone,
        created: Stamp(77),
        origin: PeerId::parse("proxy-a1").unwrap(),
        reason: Reason::Down,
    }
}

fn item(name: &str, shard: Option<&str>) -> Item {
    let change = Change::Entry(entry(shard));
    Item { key: StickKey::parse(name).unwrap(), change, remaining_ms: 1_200, held: false }
}

fn sides(sides: &[(&str, u64)]) -> Vec<(ShardName, u64)> {
    sides.iter().map(|(shard, sessions)| (ShardName::parse(shard).unwrap(), *sessions)).collect()
}

fn every_message() -> Vec<Message> {
    let key = || StickKey::parse("tenant/room").unwrap();
    let told = |change, held| Item { key: key(), change, remaining_ms: 900, held };
    let dropped = || Change::Dropped { digest: 7, at: Stamp(99) };
    let fresh = |name, created| {
        let change = Change::Entry(Entry {
            shard: Some(ShardName::parse("s1").unwrap()),
            generation: 1,
            rank: Rank::Home,
            created: Stamp(created),
            origin: PeerId::parse("a").unwrap(),
            reason: Reason::Claim,
        });
        Item { key: StickKey::parse(name).unwrap(), change, remaining_ms: 300_000, held: false }
    };
    let claim = Claim {
        id: 5,
        key: key(),
        known: Some((entry(Some("s1")), 10)),
        proposal: Some(ShardName::parse("s2").unwrap()),
        reason: Reason::Down,
        failed: Some(ShardName::parse("s1").unwrap()),
        tried: Some(PeerId::parse("b").unwrap()),
        hops: 1,
        held: true,
    };
    let answer = |result| Message::ClaimAnswer(ClaimAnswer { id: 5, key: key(), result });
    let hello = Hello {
        contract: 2,
        contract_oldest: 1,
        incarnation: 2,
        ready: true,
        capacity: 1_000_000,
        resume: Some(Resume { incarnation: 3, through: 4 }),
    };
    let range = RangeId::ROOT.child(3).child(15);
    let lease = |name, remaining_ms, held| Lease { key: StickKey::parse(name).unwrap(), remaining_ms, held };
    vec![
        Message::Hello(hello.clone()),
        Message::Hello(Hello { ready: false, resume: None, ..hello }),
        Message::Welcome(Welcome { resumed: true, ready: true, continues_after: 9, head: 12 }),
        Message::Heartbeat(Heartbeat {
            ready: true,
            digest: Digest { as_of: AsOf(Stamp(5)), ranges: std::array::from_fn(|n| n as u64) },
        }),
        Message::Update(Update {
            through: 9,
            items: vec![
                item("a", Some("s1")),
                told(dropped(), false),
                item("b", None),
                told(Change::Renewed, true),
                item("c", Some("s2")),
            ],
        }),
        Message::Update(Update {
            through: 9,
            items: vec![
                item("acme/room", Some("s1")),
                item("acme/rose", Some("s1")),
                item("acme/rosé", Some("s1")),
                item("acme/ros\u{e8}", Some("s1")),
                item("acme", Some("s1")),
                item("b", Some("s1")),
            ],
        }),
        Message::Update(Update {
            through: 9,
            items: vec![fresh("a", 1 << 60), fresh("b", (1 << 60) + 1), fresh("c", 5)],
        }),
        Message::Update(Update { through: 9, items: Vec::new() }),
        Message::Ack { through: 9 },
        Message::Correction { items: vec![item("a", Some("s1"))] },
        Message::Claim(claim.clone()),
        Message::Claim(Claim {
            known: None,
            failed: None,
            tried: None,
            reason: Reason::Claim,
            ..claim.clone()
        }),
        Message::Claim(Claim { reason: Reason::Operator, ..claim.clone() }),
        Message::Claim(Claim { proposal: None, reason: Reason::Operator, ..claim }),
        answer(ClaimResult::Kept {
            entry: entry(Some("s1")),
            remaining_ms: 300_000,
            via: ["a", "b", "c-1"].map(|name| PeerId::parse(name).unwrap()).to_vec(),
        }),
        Message::ProbeAsk { round: u64::MAX, shard: ShardName::parse("s1").unwrap() },
        Message::ProbeAnswer { round: 7, shard: ShardName::parse("s1").unwrap(), reached: Reached::Yes },
        Message::ProbeAnswer { round: 0, shard: ShardName::parse("s1").unwrap(), reached: Reached::No },
        Message::Dispute { tried: None, items: Vec::new() },
        Message::Dispute {
            tried: Some(PeerId::parse("b").unwrap()),
            items: vec![
                Disputed {
                    key: key(),
                    entry: entry(Some("s1")),
                    sessions: sides(&[("s1", 1), ("s2", u64::MAX)]),
                },
                Disputed { key: key(), entry: entry(None), sessions: Vec::new() },
            ],
        },
        Message::SessionsAsk { number: 7, keys: vec![key(), key()] },
        Message::SessionsTold {
            number: u64::MAX,
            items: vec![(key(), sides(&[("s1", 3)])), (key(), Vec::new())],
        },
        Message::SessionsTold { number: 0, items: Vec::new() },
        Message::PeopleMoved { keys: vec![key(), key()] },
        answer(ClaimResult::Entry(entry(Some("s1")), 300_000)),
        answer(ClaimResult::Refused(ClaimRefusal::NotReady)),
        answer(ClaimResult::Refused(ClaimRefusal::Held)),
        answer(ClaimResult::Refused(ClaimRefusal::Outranked)),
        Message::LeaseReport(LeaseReport { leases: vec![lease("a", 500, false)] }),
        Message::LeaseReport(LeaseReport { leases: vec![lease("a", 500, false), lease("b", 500, true)] }),
        Message::LeaseReport(LeaseReport { leases: vec![lease("a", 500, true), lease("b", 600, true)] }),
        Message::LeaseAsk { keys: vec![key(), key()] },
        Message::Compare(Compare {
            id: 1,
            number: 2,
            as_of: AsOf::NOW,
            learning: true,
            parts: vec![
                ComparePart { range, content: CompareContent::Parts(std::array::from_fn(|n| n as u32)) },
                ComparePart { range, content: CompareContent::All(Vec::new()) },
                ComparePart { range: RangeId::ROOT, content: CompareContent::Want(vec![u32::MAX, 1]) },
            ],
        }),
        Message::Compared(Compared {
            id: 1,
            number: 2,
            gives: true,
            parts: vec![
                ComparedPart {
                    range,
                    content: ComparedContent::Parts {
                        differ: 0x8001,
                        few: vec![(0, vec![1, 2]), (15, vec![])],
                    },
                },
                ComparedPart { range, content: ComparedContent::Want(vec![3]) },
            ],
        }),
        Message::Give(Give { number: 1, through: 2, items: vec![item("a", None)] }),
        Message::GiveAck { number: 1 },
        Message::Reconciled { id: 1 },
    ]
}

/// HAProxy's peers protocol takes 41 bytes for an entry with a 30-byte key.
#[test]
fn a_batch_of_new_entries_takes_a_few_bytes_beside_each_key() {
    let key = |n: u32| StickKey::parse(&format!("a-key-of-thirty-bytes/{n:08}")).unwrap();
    let new = |n: u32| Item {
        key: key(n),
        change: Change::Entry(Entry {
            shard: Some(ShardName::parse(&format!("prod-us-phoenix-1-s{}", n % 8)).unwrap()),
            generation: 1,
            rank: Rank::Home,
            // 2,000 decisions a second.
            created: Stamp((1_795_219_200_000 + u64::from(n) / 2) << 16 | u64::from(n % 2)),
            origin: PeerId::parse("proxy-us-phoenix-1-a").unwrap(),
            reason: Reason::Claim,
        }),
        remaining_ms: 300_000,
        held: false,
    };
    let frame = encode(&Message::Update(Update { through: 100_000, items: (0..250).map(new).collect() }));
    let per_entry = frame.len() as f64 / 250.0;
    assert!(per_entry < 37.0, "{per_entry} bytes");
}

#[test]
fn every_message_survives_the_wire() {
    for message in every_message() {
        assert_eq!(decode(&encode(&message)).unwrap(), vec![message]);
    }
}

/// The messages of what was written together.
fn read(mut frames: BytesMut, decoder: &mut Decoder) -> Vec<Message> {
    let mut messages = Vec::new();
    while !frames.is_empty() {
        let len = prost::decode_length_delimiter(&mut frames).unwrap();
        messages.extend(decoder.decode(&frames.split_to(len)).unwrap());
    }
    messages
}

fn first_join(id: u64, name: &str, shard: &str) -> Message {
    Message::Claim(Claim {
        id,
        key: StickKey::parse(name).unwrap(),
        known: None,
        proposal: Some(ShardName::parse(shard).unwrap()),
        reason: Reason::Claim,
        held: false,
        failed: None,
        tried: None,
        hops: 0,
    })
}

#[test]
fn what_goes_out_together_shares_frames_and_says_the_same() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let update = |through, name| Message::Update(Update { through, items: vec![item(name, Some("s1"))] });
    let answer = |id, name| {
        let key = StickKey::parse(name).unwrap();
        let result = ClaimResult::Entry(entry(Some("s2")), 1_200);
        Message::ClaimAnswer(ClaimAnswer { id, key, result })
    };
    for round in 0..3 {
        let mut frames = BytesMut::new();
        let messages = [
            update(8 + round, "a"),
            first_join(7, "acme/x", "s1"),
            update(9 + round, "b"),
            answer(3, "c"),
            first_join(9, "acme/y", "s3"),
            answer(u64::MAX, "d"),
            Message::Ack { through: 4 },
            first_join(1, "z", "s1"),
        ];
        encoder.encode(messages, &mut frames);
        let together =
            Update { through: 9 + round, items: vec![item("a", Some("s1")), item("b", Some("s1"))] };
        let expected = [
            first_join(7, "acme/x", "s1"),
            first_join(9, "acme/y", "s3"),
            answer(3, "c"),
            answer(u64::MAX, "d"),
            Message::Update(together),
            Message::Ack { through: 4 },
            first_join(1, "z", "s1"),
        ];
        assert_eq!(read(frames, &mut decoder), expected, "round {round}");
    }
}

#[test]
fn every_message_survives_a_stream_and_so_do_more_names_than_it_remembers() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    for message in every_message() {
        let mut frames = BytesMut::new();
        encoder.encode([message.clone()], &mut frames);
        assert_eq!(read(frames, &mut decoder), [message]);
    }
    for round in 0..3 {
        for n in 0..80 {
            let mut frames = BytesMut::new();
            let of = |n: usize| item(&format!("room-{n}"), Some(&format!("shard-{n}")));
            let messages = [
                Message::Update(Update {
                    through: n,
                    items: (0..10).map(|k| of(10 * n as usize + k)).collect(),
                }),
                first_join(n, "room", &format!("shard-{}", 10 * n)),
            ];
            encoder.encode(messages.clone(), &mut frames);
            let mut heard = read(frames, &mut decoder);
            heard.reverse();
            assert_eq!(heard, messages, "round {round}");
        }
    }
}

/// HAProxy's peers protocol takes 41 bytes for an entry with a 30-byte key, in a stream that knows its servers' names.
#[test]
fn a_busy_stream_takes_a_few_bytes_beside_each_key() {
    let mut encoder = Encoder::default();
    let shard = |n: u64| format!("prod-us-phoenix-1-s{}", n % 8);
    let mut bytes = [0, 0];
    // 2,000 entries a second, half of them claimed, in steps of 8 ms.
    for step in 0..100 {
        let numbers = (8 * step..8 * step + 8).map(|n: u64| 100_000 + n);
        let claims = numbers
            .clone()
            .map(|n| first_join(2 * n, &format!("{n:>06}-key-of-thirty-bytes/xyz"), &shard(n)));
        let updates = numbers.map(|n| {
            let change = Change::Entry(Entry {
                shard: Some(ShardName::parse(&shard(n)).unwrap()),
                generation: 1,
                rank: Rank::Home,
                created: Stamp((1_795_219_200_000 + n) << 16),
                origin: PeerId::parse("proxy-us-phoenix-1-a").unwrap(),
                reason: Reason::Claim,
            });
            let key = StickKey::parse(&format!("{n:>06}-key-of-thirty-bytes/abc")).unwrap();
            Message::Update(Update {
                through: n,
                items: vec![Item { key, change, remaining_ms: 300_000, held: false }],
            })
        });
        for (index, messages) in [claims.collect::<Vec<_>>(), updates.collect()].into_iter().enumerate() {
            let mut frames = BytesMut::new();
            encoder.encode(messages, &mut frames);
            bytes[index] += frames.len();
        }
    }
    let [per_claim, per_update] = bytes.map(|bytes| bytes as f64 / 800.0);
    assert!(per_claim < 36.0 && per_update < 40.0, "{per_claim} and {per_update} bytes");
}

#[test]
fn a_split_brain_has_a_bounded_number_of_sides() {
    let sides: Vec<_> =
        (0..=SIDES_MAX as u64).map(|n| (ShardName::parse(&format!("s{n}")).unwrap(), n)).collect();
    let key = StickKey::parse("room").unwrap();
    let told = |sides: &[_]| {
        let message = Message::SessionsTold { number: 1, items: vec![(key.clone(), sides.to_vec())] };
        decode(&encode(&message)).map(drop)
    };
    assert_eq!(told(&sides[1..]), Ok(()));
    let error = told(&sides).unwrap_err().to_string();
    assert_eq!(error, "sessions_told.items.sessions has 17 elements, expected at most 16");
    let item = wire::Disputed { key: "room".into(), ..Default::default() };
    let dispute = wire::Dispute { items: vec![item], ..Default::default() };
    let envelope = wire::Envelope { message: Some(wire::envelope::Message::Dispute(dispute)) };
    let error = decode(&envelope.encode_to_vec()).unwrap_err().to_string();
    assert!(error.contains("dispute.items.entry"), "{error}");
}

/// An older node answers with an entry and no names, and reads an answer with names as an entry that stands.
#[test]
fn names_of_who_reaches_a_shard_are_beside_the_entry() {
    let via = ["b", "a", "b"].map(str::to_owned).to_vec();
    let entry = Some(entry_to_wire(&entry(Some("s1"))));
    let answer = wire::ClaimAnswer { id: 1, key: "k".into(), entry, via, ..Default::default() };
    let result = |answer: wire::ClaimAnswer| {
        let envelope = wire::Envelope { message: Some(wire::envelope::Message::ClaimAnswer(answer)) };
        let message = decode(&envelope.encode_to_vec()).unwrap().remove(0);
        if let Message::ClaimAnswer(answer) = message { Some(answer.result) } else { None }
    };
    let Some(ClaimResult::Kept { via, .. }) = result(answer.clone()) else { panic!("no names") };
    assert_eq!(via, ["a", "b"].map(|name| PeerId::parse(name).unwrap()));
    let older = wire::ClaimAnswer { via: Vec::new(), ..answer };
    assert!(matches!(result(older), Some(ClaimResult::Entry(..))));
}

#[test]
fn a_message_of_an_unknown_kind_is_skipped() {
    // Field 900, length-delimited, empty.
    assert_eq!(decode(&[0xa2, 0x38, 0x00]).unwrap(), []);
    assert_eq!(decode(&[]).unwrap(), []);
}

fn refusal(message: wire::envelope::Message) -> String {
    decode(&wire::Envelope { message: Some(message) }.encode_to_vec()).unwrap_err().to_string()
}

#[test]
fn broken_frames_name_the_field_and_what_was_expected() {
    use wire::envelope::Message as W;
    let good = wire::Items {
        shards: vec!["s1".into()],
        origins: vec!["a".into()],
        keys: vec!["k".into()],
        remaining: vec![1],
        shard: vec![1],
        created: vec![1],
        ..wire::Items::default()
    };
    let items = |items: wire::Items| W::Correction(wire::Correction { items: Some(items) });
    let lease = |key: String| {
        W::LeaseReport(wire::LeaseReport { keys: vec![key], remaining: vec![1], held: Vec::new() })
    };
    let answer =
        |refusal| W::ClaimAnswer(wire::ClaimAnswer { id: 1, key: "k".into(), refusal, ..Default::default() });
    let kept = |via: Vec<String>| {
        let entry = Some(entry_to_wire(&entry(Some("s1"))));
        W::ClaimAnswer(wire::ClaimAnswer { id: 1, key: "k".into(), entry, via, ..Default::default() })
    };
    let compare = |range, content| {
        let parts = vec![wire::ComparePart { range, content }];
        W::Compare(wire::Compare { parts, ..wire::Compare::default() })
    };
    let all = |len| Some(wire::compare_part::Content::All(vec![0; len]));
    let cases = [
        (lease(String::new()), "lease_report.keys: stick key is empty, expected 1 to 1024 bytes"),
        (lease("x".repeat(2_000)), "lease_report.keys: stick key has 2000 bytes, expected at most 1024"),
        (
            W::LeaseReport(wire::LeaseReport { keys: vec![String::new(); 2_000], ..Default::default() }),
            "lease_report.keys has 2000 elements, expected at most 1024",
        ),
        (
            W::LeaseReport(wire::LeaseReport { keys: vec!["k".into()], remaining: vec![1], held: vec![1] }),
            "lease_report.held has not as many values as there are keys for it",
        ),
        (
            items(wire::Items { keys: vec![String::new(); 1_025], ..good.clone() }),
            "items has 1025 elements, expected at most 1024",
        ),
        (
            items(wire::Items { shards: vec!["a b".into()], ..good.clone() }),
            "items.shards: shard name \"a b\" is not valid, expected 1 to 128 of A-Z a-z 0-9 . _ -",
        ),
        (
            items(wire::Items { origins: vec!["Proxy".into()], ..good.clone() }),
            "items.origins: peer name \"Proxy\" is not valid, expected 1 to 63 of a-z 0-9 -, not at its ends",
        ),
        (
            items(wire::Items { shard: vec![2], ..good.clone() }),
            "items.shard is 1, expected one of the known values",
        ),
        (
            items(wire::Items { kinds: vec![3], ..good.clone() }),
            "items.kinds is 3, expected one of the known values",
        ),
        (
            items(wire::Items { kinds: vec![0x70], ..good.clone() }),
            "items.kinds is 7, expected one of the known values",
        ),
        (
            items(wire::Items { shared: vec![1], ..good.clone() }),
            "items.shared has not as many values as there are keys for it",
        ),
        (
            items(wire::Items { created: vec![1, 2], ..good.clone() }),
            "items.created has not as many values as there are keys for it",
        ),
        (
            items(wire::Items { remaining: vec![1, 2], ..good.clone() }),
            "items.remaining has not as many values as there are keys for it",
        ),
        (
            items(wire::Items { shard: Vec::new(), ..good }),
            "items.shard has not as many values as there are keys for it",
        ),
        (
            W::Joins(wire::Joins {
                ids: vec![1],
                keys: vec!["k".into()],
                shard: vec![0],
                ..Default::default()
            }),
            "joins.shard is 0, expected one of the known values",
        ),
        (
            W::Joins(wire::Joins { keys: vec!["k".into()], ..Default::default() }),
            "joins.ids has not as many values as there are keys for it",
        ),
        (
            W::Answers(wire::Answers { ids: vec![1], items: None }),
            "answers.ids has not as many values as there are keys for it",
        ),
        (
            W::Answers(wire::Answers {
                ids: vec![1],
                items: Some(wire::Items {
                    keys: vec!["k".into()],
                    kinds: vec![1],
                    remaining: vec![1],
                    ..Default::default()
                }),
            }),
            "answers.items.entry is missing",
        ),
        (answer(0), "claim_answer.entry is missing"),
        (kept(vec!["a".into(); 9]), "claim_answer.via has 9 elements, expected at most 8"),
        (
            kept(vec!["A".into()]),
            "claim_answer.via: peer name \"A\" is not valid, expected 1 to 63 of a-z 0-9 -, not at its ends",
        ),
        (
            W::ProbeAsk(wire::ProbeAsk { round: 1, shard: String::new() }),
            "probe_ask.shard: shard name \"\" is not valid, expected 1 to 128 of A-Z a-z 0-9 . _ -",
        ),
        (
            W::ProbeAnswer(wire::ProbeAnswer { round: 1, shard: "a b".into(), reached: true }),
            "probe_answer.shard: shard name \"a b\" is not valid, expected 1 to 128 of A-Z a-z 0-9 . _ -",
        ),
        (answer(8), "claim_answer.refusal is 8, expected one of the known values"),
        (compare(1, None), "compare.parts.content is missing"),
        (compare(0, all(4)), "compare.parts.range is 0, expected a range of the keys' hashes"),
        (compare(1, all(5)), "compare.parts.all has not as many values as there are keys for it"),
        (compare(1, all(8_000)), "compare.parts.all has 2000 elements, expected at most 1024"),
        (
            W::Heartbeat(wire::Heartbeat { ready: true, as_of: 1, ranges: vec![1; 15] }),
            "heartbeat.ranges has not as many values as there are keys for it",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(refusal(message), expected);
    }
    assert!(matches!(decode(&[0xff; 40]), Err(FrameError::Garbage(_))));
}
