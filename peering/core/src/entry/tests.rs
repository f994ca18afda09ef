//! The join is a join: every triple of a small domain, and random ones of the whole.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::time::Wall;

fn entry(shard: Option<&str>, generation: u32, rank: Rank, created: u64, origin: &str) -> Entry {
    Entry {
        shard: shard.map(|name| ShardName::parse(name).unwrap()),
        generation,
        rank,
        created: Stamp(created),
        origin: PeerId::parse(origin).unwrap(),
        reason: Reason::Claim,
    }
}

fn joined(left: &Entry, right: &Entry) -> Entry {
    let mut result = left.clone();
    join(&mut result, right);
    result
}

/// Two values of each merge field, three of the shard: 48 entries, 110,592 triples.
fn small_domain() -> Vec<Entry> {
    let mut all = Vec::new();
    for shard in [None, Some("s1"), Some("s2")] {
        for generation in [1, 2] {
            for rank in [Rank::Home, Rank::Alone] {
                for created in [10, 20] {
                    for origin in ["a", "b"] {
                        all.push(entry(shard, generation, rank, created, origin));
                    }
                }
            }
        }
    }
    all
}

#[test]
fn the_join_is_commutative_associative_and_idempotent_on_every_triple_of_a_small_domain() {
    let domain = small_domain();
    let mut triples = 0_u32;
    for a in &domain {
        assert_eq!(joined(a, a), *a, "idempotent");
        for b in &domain {
            let ab = joined(a, b);
            assert_eq!(ab, joined(b, a), "commutative: {a:?} with {b:?}");
            assert!(ab == *a || ab == *b, "a join invents nothing");
            for c in &domain {
                assert_eq!(joined(&ab, c), joined(a, &joined(b, c)), "associative: {a:?} {b:?} {c:?}");
                triples += 1;
            }
        }
    }
    assert_eq!(triples, 48 * 48 * 48);
}

#[test]
fn each_field_decides_in_its_turn() {
    let base = entry(Some("s5"), 3, Rank::Home, 100, "m");
    for (why, winner) in [
        ("higher generation", entry(Some("s9"), 4, Rank::Alone, 900, "z")),
        ("earlier created", entry(Some("s9"), 3, Rank::Home, 99, "z")),
        ("lower origin", entry(Some("s9"), 3, Rank::Home, 100, "a")),
        ("lower shard", entry(Some("s4"), 3, Rank::Home, 100, "m")),
        ("a tombstone is the lowest shard", entry(None, 3, Rank::Home, 100, "m")),
    ] {
        assert_eq!(joined(&base, &winner), winner, "{why}");
    }
    let alone = entry(Some("s1"), 3, Rank::Alone, 1, "a");
    assert_eq!(joined(&base, &alone), base, "home beats alone, whatever came earlier");
}

#[test]
fn absurd_entries_are_refused_whole() {
    let now = Now { wall: Wall(1_000_000), ..Now::default() };
    let fine = entry(Some("s1"), 1, Rank::Home, Stamp::at(Wall(1_000_000 + 6 * 3_600_000)).0, "a");
    assert_eq!(fine.validate(now), Ok(()), "a clock six hours ahead is wrong, not absurd");
    assert_eq!(Entry { generation: 0, ..fine.clone() }.validate(now), Err(EntryError::Generation(0)));
    let huge = Entry { generation: u32::MAX, ..fine.clone() };
    assert_eq!(huge.validate(now), Err(EntryError::Generation(u32::MAX)));
    let year_2100 = Entry { created: Stamp::at(Wall(4_102_444_800_000)), ..fine };
    assert!(matches!(year_2100.validate(now), Err(EntryError::StampAhead(_))));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (
        proptest::option::of("[a-c]{1,2}"),
        1_u32..5,
        prop_oneof![Just(Rank::Home), Just(Rank::Alone)],
        0_u64..4,
        "[a-c]{1,2}",
    )
        .prop_map(|(shard, generation, rank, created, origin)| {
            entry(shard.as_deref(), generation, rank, created, &origin)
        })
}

proptest! {
    #[test]
    fn any_order_of_arrival_gives_the_same_entry(mut entries in proptest::collection::vec(any_entry(), 1..8), seed in 0_usize..720) {
        let fold = |list: &[Entry]| {
            let mut result = list[0].clone();
            for one in list {
                join(&mut result, one);
            }
            result
        };
        let straight = fold(&entries);
        let len = entries.len();
        entries.rotate_left(seed % len);
        entries.swap(0, (seed / 7) % len);
        prop_assert_eq!(fold(&entries), straight);
    }
}
