use super::*;
use crate::entry::{Entry, Rank, Reason};
use crate::id::{PeerId, ShardName};
use crate::time::{Coarse, Instant, Stamp};
use crate::timers::Step;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use proptest::prelude::*;

fn slot(generation: u32) -> Slot {
    Slot {
        entry: Entry {
            shard: Some(ShardName::parse("s1").unwrap()),
            generation,
            rank: Rank::Home,
            created: Stamp(1),
            origin: PeerId::parse("a").unwrap(),
            reason: Reason::Claim,
        },
        lease: Instant(1),
        untold_ms: 0,
        held_until: Coarse::default(),
        lapsed: false,
        look: Step::NEVER,
        logged: 0,
        used: None,
    }
}

/// A slot with its key's place is 96 bytes, taken or free: a table of a million of them is what memory goes into.
#[test]
fn a_slot_takes_what_it_must() {
    assert_eq!(size_of::<Option<(Place, Slot)>>(), 96);
    assert_eq!(size_of::<Listed>(), 8);
}

#[derive(Debug, Clone)]
enum Deed {
    Insert(u16),
    Remove(u16),
}

fn deed() -> impl Strategy<Value = Deed> {
    // Few keys, so that they come again.
    prop_oneof![
        3 => (0..400_u16).prop_map(Deed::Insert),
        2 => (0..400_u16).prop_map(Deed::Remove),
    ]
}

fn order(slots: Walk<'_>) -> Vec<(Place, u32)> {
    slots.map(|(place, slot)| (place.clone(), slot.entry.generation)).collect()
}

proptest! {
    /// Whatever comes and goes, everything is found as in an ordered map, also in a table with far too few buckets, and where hashes
    /// are alike.
    #[test]
    fn slots_are_an_ordered_map(steps in prop::collection::vec(deed(), 0..600), entries_max in prop::sample::select(vec![1_usize, 100, 10_000]), alike: bool) {
        let mut slots = Slots::new(entries_max);
        let mut model = BTreeMap::new();
        let place = |n: u16| {
            let place = Place::of(&StickKey::parse(&format!("room-{n}")).unwrap());
            Place { hash: if alike { place.hash & 0xc000_0000_0000_0001 } else { place.hash }, ..place }
        };
        for (number, step) in (1..).zip(steps) {
            match step {
                Deed::Insert(n) if !model.contains_key(&place(n)) => {
                    let id = slots.insert(place(n), slot(number));
                    prop_assert_eq!(slots.at(id).map(|(place, _)| place), Some(&place(n)));
                    model.insert(place(n), number);
                }
                Deed::Insert(_) => {}
                Deed::Remove(n) => {
                    let removed = slots.remove(&place(n)).map(|slot| slot.entry.generation);
                    prop_assert_eq!(removed, model.remove(&place(n)));
                }
            }
        }
        prop_assert_eq!(slots.len(), model.len());
        let all: Vec<_> = model.clone().into_iter().collect();
        prop_assert_eq!(order(slots.starting_at(0)), all);
        for n in 0..400 {
            let from = place(n);
            let rest: Vec<_> = model.range((core::ops::Bound::Excluded(from.clone()), core::ops::Bound::Unbounded)).map(|(place, n)| (place.clone(), *n)).collect();
            prop_assert_eq!(order(slots.after(&from)), rest);
            let rest: Vec<_> = model.iter().filter(|(place, _)| place.hash >= from.hash).map(|(place, n)| (place.clone(), *n)).collect();
            prop_assert_eq!(order(slots.starting_at(from.hash)), rest);
            if !alike {
                let found = slots.find(&from.key).and_then(|id| slots.at(id));
                prop_assert_eq!(found.map(|(_, slot)| slot.entry.generation), model.get(&from).copied());
            }
        }
    }
}
