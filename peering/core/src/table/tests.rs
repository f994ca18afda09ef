use super::*;
use crate::entry::{Rank, Reason};
use crate::hash::hash64;
use crate::time::Wall;
use alloc::format;
use alloc::vec;

fn entry(shard: Option<&str>, generation: u32, created_ms: u64) -> Entry {
    Entry {
        shard: shard.map(|name| ShardName::parse(name).unwrap()),
        generation,
        rank: Rank::Home,
        created: Stamp::at(Wall(created_ms)),
        origin: PeerId::parse("a").unwrap(),
        reason: Reason::Claim,
    }
}

fn at(ms: u64) -> Now {
    Now { mono: Instant(ms), wall: Wall(ms), ..Now::default() }
}

fn put(table: &mut Table, now_ms: u64, key: &str, entry: &Entry) -> Merged {
    let key = StickKey::parse(key).unwrap();
    table.merge(at(now_ms), &key, entry, Instant(now_ms + 100), Instant(now_ms + 100))
}

#[test]
fn conferences_are_counted_per_shard_through_every_change() {
    let mut table = Table::new(100, 10);
    let key = StickKey::parse("room").unwrap();
    let s1 = ShardName::parse("s1").unwrap();
    assert_eq!(put(&mut table, 1, "room", &entry(Some("s1"), 1, 1)), Merged::Inserted);
    assert_eq!((table.live(), table.per_shard().get(&s1)), (1, Some(&1)));
    let moved = put(&mut table, 2, "room", &entry(Some("s2"), 2, 2));
    assert_eq!(moved, Merged::Replaced { old: Some(s1.clone()) });
    assert_eq!(put(&mut table, 3, "room", &entry(Some("s1"), 1, 1)), Merged::Kept);
    assert_eq!((table.live(), table.per_shard().get(&s1)), (1, None));
    put(&mut table, 4, "room", &entry(None, 3, 4));
    assert_eq!((table.live(), table.tombstones(), table.per_shard().len()), (0, 1, 0));
    table.remove(at(5), &key, Stamp::at(Wall(5)));
    assert_eq!((table.live(), table.tombstones()), (0, 0));
    assert_eq!(table.ranges(at(1), AsOf::NOW), [0; FAN_OUT]);
}

/// A number that was another key's has that one's timers.
#[test]
fn a_key_in_anothers_place_is_looked_at_once_and_at_its_own_time() {
    let mut table = Table::new(100, 10);
    let key = |name| StickKey::parse(name).unwrap();
    put(&mut table, 0, "first", &entry(Some("s1"), 1, 1));
    table.remove(at(1), &key("first"), Stamp::default());
    put(&mut table, 0, "second", &entry(Some("s1"), 1, 1));
    put(&mut table, 50, "third", &entry(Some("s1"), 1, 1));
    table.remove(at(51), &key("third"), Stamp::default());
    put(&mut table, 200, "fourth", &entry(Some("s1"), 1, 1));
    assert_eq!(table.due(Instant(100)), [key("second")], "twice in that step, looked at once");
    assert_eq!(table.due(Instant(250)), [], "its place had a timer there");
    assert_eq!(table.due(Instant(300)), [key("fourth")]);
}

/// The digests of a table depend on what is in it, not on how it came there; and as of a moment only on what stood then.
#[test]
fn digests_tell_of_a_moment_whatever_happened_since() {
    let (mut a, mut b) = (Table::new(1_000, 10), Table::new(1_000, 10));
    for n in 0..300_u64 {
        let e = entry(Some("s1"), 1, 10_000 + n);
        put(&mut a, 10_001 + n, &format!("room-{n}"), &e);
    }
    for n in (0..300_u64).rev() {
        put(&mut b, 11_000, &format!("room-{n}"), &entry(Some("s1"), 1, 10_000 + n));
    }
    assert_eq!(a.ranges(at(14_000), AsOf::NOW), b.ranges(at(14_000), AsOf::NOW));
    // Moves, ends, drops and new rooms that only a knows.
    for n in 0..90_u64 {
        let name = format!("room-{n}");
        match n % 3 {
            0 => drop(put(&mut a, 14_000, &name, &entry(Some("s2"), 2, 14_000))),
            1 => drop(put(&mut a, 14_000, &name, &entry(None, 2, 14_000))),
            _ => drop(a.remove(at(14_000), &StickKey::parse(&name).unwrap(), Stamp::at(Wall(14_000)))),
        }
        put(&mut a, 14_000, &format!("new-{n}"), &entry(Some("s1"), 1, 14_000));
    }
    let then = AsOf(Stamp::at(Wall(13_000)));
    assert_eq!(a.ranges(at(14_000), then), b.ranges(at(14_000), then));
    assert_ne!(a.ranges(at(14_000), AsOf::NOW), b.ranges(at(14_000), AsOf::NOW));
    let (since_a, since_b) = (a.since(then), b.since(then));
    let mut ranges = vec![RangeId::ROOT];
    while let Some(range) = ranges.pop() {
        assert_eq!(a.cell(range, &since_a), b.cell(range, &since_b), "{range:?}");
        let (mut of_a, mut of_b) = (a.digests(range, &since_a), b.digests(range, &since_b));
        of_a.sort_unstable();
        of_b.sort_unstable();
        assert_eq!(of_a, of_b, "{range:?}");
        assert_eq!(of_a.len(), a.cell(range, &since_a).count as usize);
        if range.depth() < 4 && of_a.len() > 1 {
            ranges.extend(range.children());
        }
    }
}

#[test]
fn a_range_has_the_keys_of_its_hashes() {
    let mut table = Table::new(100, 10);
    for n in 0..200_u64 {
        put(&mut table, 1, &format!("room-{n}"), &entry(Some("s1"), 1, 1));
    }
    let mut seen = 0;
    for range in RangeId::ROOT.children().flat_map(RangeId::children) {
        let (first, last) = range.bounds();
        for (place, _) in table.within(range, None) {
            assert!((first..=last).contains(&hash64(place.key.as_str().as_bytes(), 0)));
            seen += 1;
        }
    }
    assert_eq!(seen, 200);
    let (page, more) = table.page(None, 150);
    let (rest, end) = table.page(page.last().map(|(key, _)| key), 150);
    assert_eq!((page.len(), more, rest.len(), end), (150, true, 50, false));
}
