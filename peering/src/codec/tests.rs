//! Every message survives the way through the wire; broken frames get their message.

use prost::Message as _;

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
    Item { key: StickKey::parse(name).unwrap(), entry: Some(entry(shard)), remaining_ms: 1_234 }
}

fn every_message() -> Vec<Message> {
    let key = || StickKey::parse("tenant/room").unwrap();
    let renewal = Item { key: key(), entry: None, remaining_ms: 9 };
    let claim = Claim {
        id: 5,
        key: key(),
        known: Some((entry(Some("s1")), 10)),
        proposal: ShardName::parse("s2").unwrap(),
        reason: Reason::Down,
        failed: Some(ShardName::parse("s1").unwrap()),
        tried: Some(PeerId::parse("b").unwrap()),
        hops: 1,
    };
    let answer = |result| Message::ClaimAnswer(ClaimAnswer { id: 5, key: key(), result });
    vec![
        Message::Hello(Hello {
            contract: 1,
            incarnation: 2,
            ready: true,
            resume: Some(Resume { incarnation: 3, through: 4 }),
        }),
        Message::Hello(Hello { contract: 1, incarnation: 2, ready: false, resume: None }),
        Message::Heartbeat { ready: true },
        Message::Update(Update { through: 9, items: vec![item("a", Some("s1")), item("b", None), renewal] }),
        Message::Ack { through: 9 },
        Message::Correction { items: vec![item("a", Some("s1"))] },
        Message::Claim(claim.clone()),
        Message::Claim(Claim { known: None, failed: None, tried: None, reason: Reason::Claim, ..claim }),
        answer(ClaimResult::Entry(entry(Some("s1")), 300_000)),
        answer(ClaimResult::Refused(ClaimRefusal::NotReady)),
        Message::LeaseReport(LeaseReport { leases: vec![(key(), 5)] }),
        Message::ResyncChunk(ResyncChunk {
            number: 1,
            items: vec![item("a", None)],
            last: true,
            continues_after: 8,
        }),
        Message::ResyncAck { number: 1 },
    ]
}

#[test]
fn every_message_survives_the_wire() {
    for message in every_message() {
        let frame = encode(&message);
        assert_eq!(
            usize::try_from(u32::from_be_bytes(frame[..4].try_into().unwrap())).unwrap(),
            frame.len() - 4
        );
        assert_eq!(decode(&frame[4..]).unwrap(), Some(message));
    }
}

#[test]
fn a_message_of_an_unknown_kind_is_skipped() {
    // Field 900, length-delimited, empty.
    assert_eq!(decode(&[0xa2, 0x38, 0x00]).unwrap(), None);
    assert_eq!(decode(&[]).unwrap(), None);
}

fn refusal(message: wire::envelope::Message) -> String {
    decode(&wire::Envelope { message: Some(message) }.encode_to_vec()).unwrap_err().to_string()
}

#[test]
fn broken_frames_name_the_field_and_what_was_expected() {
    use wire::envelope::Message as W;
    let good = wire::Entry {
        shard: "s1".into(),
        generation: 1,
        rank: wire::Rank::Home.into(),
        created: 1,
        origin: "a".into(),
        reason: wire::Reason::Claim.into(),
    };
    let item = |entry: wire::Entry| {
        W::Correction(wire::Correction {
            items: vec![wire::Item { key: "k".into(), entry: Some(entry), remaining_ms: 1 }],
        })
    };
    let lease = |key: String| {
        W::LeaseReport(wire::LeaseReport { leases: vec![wire::Lease { key, remaining_ms: 1 }] })
    };
    let answer = |refusal| {
        W::ClaimAnswer(wire::ClaimAnswer { id: 1, key: "k".into(), entry: None, remaining_ms: 0, refusal })
    };
    let cases = [
        (lease(String::new()), "lease.key: stick key is empty, expected 1 to 1024 bytes"),
        (lease("x".repeat(2_000)), "lease.key: stick key has 2000 bytes, expected at most 1024"),
        (
            W::LeaseReport(wire::LeaseReport { leases: vec![wire::Lease::default(); 2_000] }),
            "lease_report.leases has 2000 elements, expected at most 1024",
        ),
        (
            W::Update(wire::Update { through: 1, items: vec![wire::Item::default(); 1_025] }),
            "items has 1025 elements, expected at most 1024",
        ),
        (
            item(wire::Entry { shard: "a b".into(), ..good.clone() }),
            "entry.shard: shard name \"a b\" is not valid, expected 1 to 128 of A-Z a-z 0-9 . _ -",
        ),
        (
            item(wire::Entry { origin: "Proxy".into(), ..good.clone() }),
            "entry.origin: peer name \"Proxy\" is not valid, expected 1 to 63 of a-z 0-9 -, not at its ends",
        ),
        (item(wire::Entry { rank: 9, ..good.clone() }), "entry.rank is 9, expected one of the known values"),
        (item(wire::Entry { reason: 0, ..good }), "entry.reason is 0, expected one of the known values"),
        (answer(0), "claim_answer.entry is missing"),
        (answer(8), "claim_answer.refusal is 8, expected one of the known values"),
    ];
    for (message, expected) in cases {
        assert_eq!(refusal(message), expected);
    }
    assert!(matches!(decode(&[0xff; 40]), Err(FrameError::Garbage(_))));
}
