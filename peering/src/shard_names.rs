//! Shards' names by number, with how many conferences each has: a conference in the read view names its shard by a number, half as
//! long as an address.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use shardgate_peering_core::ShardName;

/// Names that are copied when one of them changes.
const PAGE: usize = 64;

/// A shard by its number, for as long as it has conferences. Another shard's afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardNumber(u32);

/// Readers see the list of pages, and then a page; a name is another page in the same place.
type Page = ArcSwap<[Option<ShardName>; PAGE]>;

#[derive(Debug)]
struct Known {
    number: ShardNumber,
    conferences: u64,
}

/// Written by the driver alone, read by every worker without waiting. No guard leaves this file.
#[derive(Debug)]
pub(crate) struct ShardNames {
    known: DashMap<ShardName, Known, RandomState>,
    pages: ArcSwap<Vec<Arc<Page>>>,
    free: Mutex<Vec<ShardNumber>>,
}

impl ShardNames {
    pub(crate) fn new() -> Self {
        Self {
            known: DashMap::with_hasher(RandomState::default()),
            pages: ArcSwap::default(),
            free: Mutex::default(),
        }
    }

    /// The name of a number, for who sees to it that a conference of the shard stays until then.
    pub(crate) fn name(&self, number: ShardNumber) -> Option<ShardName> {
        let index = number.0 as usize;
        self.pages.load().get(index / PAGE)?.load()[index % PAGE].clone()
    }

    pub(crate) fn conferences(&self, shard: &str) -> u64 {
        self.known.get(shard).map_or(0, |known| known.conferences)
    }

    /// Every shard that has conferences, and how many.
    pub(crate) fn all(&self) -> Vec<(ShardName, u64)> {
        let known = self.known.iter().map(|known| (known.key().clone(), known.conferences));
        known.filter(|(_, conferences)| *conferences > 0).collect()
    }

    /// One conference more.
    pub(crate) fn enter(&self, shard: &ShardName) -> ShardNumber {
        if let Some(mut known) = self.known.get_mut(shard) {
            known.conferences += 1;
            return known.number;
        }
        let number = self.take_number();
        self.set(number, Some(shard.clone()));
        self.known.insert(shard.clone(), Known { number, conferences: 1 });
        number
    }

    /// One less. The last one takes the name along.
    pub(crate) fn leave(&self, number: ShardNumber) {
        let Some(shard) = self.name(number) else { return };
        if let Some(mut known) = self.known.get_mut(&shard) {
            known.conferences -= 1;
        }
        if self.known.remove_if(&shard, |_, known| known.conferences == 0).is_some() {
            self.set(number, None);
            self.free().push(number);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.known.clear();
        self.pages.store(Arc::default());
        self.free().clear();
    }

    fn take_number(&self) -> ShardNumber {
        let mut free = self.free();
        if let Some(number) = free.pop() {
            return number;
        }
        let mut pages = Vec::clone(&self.pages.load());
        let first = pages.len() * PAGE;
        pages.push(Arc::new(ArcSwap::from_pointee([const { None }; PAGE])));
        self.pages.store(Arc::new(pages));
        // A number for each entry of the largest table would fit.
        free.extend((first..first + PAGE).rev().map(|number| ShardNumber(number as u32)));
        free.pop().unwrap_or(ShardNumber(first as u32))
    }

    fn set(&self, number: ShardNumber, name: Option<ShardName>) {
        let index = number.0 as usize;
        if let Some(page) = self.pages.load().get(index / PAGE) {
            let mut names = page.load().as_ref().clone();
            names[index % PAGE] = name;
            page.store(Arc::new(names));
        }
    }

    /// Whoever panicked with it left whole numbers.
    fn free(&self) -> MutexGuard<'_, Vec<ShardNumber>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(n: usize) -> ShardName {
        ShardName::parse(&format!("s{n}")).unwrap()
    }

    #[test]
    fn a_shard_keeps_its_number_while_it_has_conferences() {
        let names = ShardNames::new();
        let numbers: Vec<ShardNumber> = (0..200).map(|n| names.enter(&shard(n))).collect();
        for (n, number) in numbers.iter().enumerate() {
            assert_eq!(names.name(*number), Some(shard(n)));
            assert_eq!(names.enter(&shard(n)), *number);
            assert_eq!(names.conferences(&format!("s{n}")), 2);
            names.leave(*number);
        }
        names.leave(numbers[70]);
        assert_eq!((names.name(numbers[70]), names.conferences("s70")), (None, 0));
        // Numbers are used again: there are never more than shards at once.
        assert_eq!(names.enter(&shard(999)), numbers[70]);
        assert_eq!(names.name(numbers[70]), Some(shard(999)));
        names.clear();
        assert_eq!((names.name(numbers[0]), names.conferences("s0")), (None, 0));
        assert_eq!(names.name(names.enter(&shard(7))), Some(shard(7)));
    }
}
