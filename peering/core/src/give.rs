//! Gifts: the entries that a reconciliation found missing, sent in numbered batches behind a window.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::digest::{AsOf, RangeId};
use crate::lease::Uses;
use crate::message::{Give, Item};
use crate::table::{Place, Slot, Table, digest_then};
use crate::time::Now;

/// How many ranges may wait to be given to one peer. Beyond it they are not given now; the next digests will differ still.
const WORK_MAX: usize = 4_096;

/// How many entries are looked at for each that a batch may hold; then it goes out as it is, and the driver does other things.
const LOOKS_PER_ITEM: usize = 64;

/// Which entries of a range are given. A giver keeps the digests in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    /// All but those with these digests, and tombstones for who is only learning the table.
    Except(Vec<u32>, Tombstones),
    /// Those with these digests.
    Only(Vec<u32>),
}

/// Whether tombstones come along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tombstones {
    With,
    Without,
}

#[derive(Debug)]
struct Work {
    range: RangeId,
    which: Which,
    as_of: AsOf,
    /// The question that it answers; 0 for the asker's own gifts.
    number: u64,
    after: Option<Place>,
}

/// What a gift tells beside the entries: who holds them here, and how long they live.
#[derive(Debug)]
pub(crate) struct Tell<'n> {
    pub(crate) now: Now,
    pub(crate) uses: &'n Uses,
    pub(crate) ttl_ms: u64,
}

/// What is to be given to one peer.
#[derive(Debug)]
pub(crate) struct Giver {
    work: VecDeque<Work>,
    sent: u64,
    acked: u64,
    /// Every question up to this one has its gifts.
    through: u64,
}

impl Giver {
    pub(crate) const fn new() -> Self {
        Self { work: VecDeque::new(), sent: 0, acked: 0, through: 0 }
    }

    /// Whether everything was given and has arrived.
    pub(crate) fn idle(&self) -> bool {
        self.work.is_empty() && self.acked == self.sent
    }

    /// Takes up a range; false at the bound.
    pub(crate) fn add(&mut self, range: RangeId, mut which: Which, as_of: AsOf, number: u64) -> bool {
        let (Which::Except(tags, _) | Which::Only(tags)) = &mut which;
        tags.sort_unstable();
        let fits = self.work.len() < WORK_MAX;
        if fits {
            self.work.push_back(Work { range, which, as_of, number, after: None });
        }
        fits
    }

    /// A new reconciliation begins: its questions count from 1.
    pub(crate) fn forget_questions(&mut self) {
        self.work.retain(|work| work.number == 0);
        self.through = 0;
    }

    /// The other one has applied up to this number; false when it was never sent.
    pub(crate) fn acked(&mut self, number: u64) -> bool {
        let sent = number <= self.sent;
        if sent {
            self.acked = self.acked.max(number);
        }
        sent
    }

    /// The next batch, `None` when there is nothing to give or the window is full.
    pub(crate) fn next(&mut self, table: &Table, tell: &Tell<'_>, window: u64, most: usize) -> Option<Give> {
        if self.work.is_empty() || self.sent - self.acked >= window {
            return None;
        }
        let mut items = Vec::new();
        let mut looks = LOOKS_PER_ITEM * most;
        while items.len() < most
            && looks > 0
            && let Some(work) = self.work.front_mut()
        {
            if work.take(table, tell, most, &mut looks, &mut items) {
                continue;
            }
            let number = work.number;
            self.work.pop_front();
            if self.work.front().is_none_or(|next| next.number != number) {
                self.through = self.through.max(number);
            }
        }
        self.sent += 1;
        Some(Give { number: self.sent, through: self.through, items })
    }
}

impl Work {
    /// Adds entries up to `most`. Answers whether there may be more.
    fn take(
        &mut self,
        table: &Table,
        tell: &Tell<'_>,
        most: usize,
        looks: &mut usize,
        items: &mut Vec<Item>,
    ) -> bool {
        let everything = matches!(&self.which, Which::Except(known, _) if known.is_empty());
        let since = table.since(if everything { AsOf::NOW } else { self.as_of });
        let wanted = |place: &Place, slot: &Slot| match &self.which {
            Which::Except(_, Tombstones::With) if slot.entry.is_tombstone() => true,
            Which::Except(..) if slot.entry.is_tombstone() => false,
            Which::Except(known, _) => {
                known.is_empty()
                    || digest_then(place, slot, &since)
                        .is_none_or(|digest| known.binary_search(&self.as_of.cut(digest)).is_err())
            }
            Which::Only(tags) => digest_then(place, slot, &since)
                .is_some_and(|digest| tags.binary_search(&self.as_of.cut(digest)).is_ok()),
        };
        let mut last = None;
        let mut more = false;
        for (place, slot) in table.within(self.range, self.after.as_ref()) {
            more = items.len() >= most || *looks == 0;
            if more {
                break;
            }
            *looks -= 1;
            if wanted(place, slot) {
                items.push(slot.item(tell.now, &place.key, tell.uses, tell.ttl_ms));
            }
            last = Some(place);
        }
        if let Some(last) = last {
            self.after = Some(last.clone());
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Rank, Reason};
    use crate::id::{PeerId, ShardName, StickKey};
    use crate::time::{Instant, Stamp};
    use alloc::format;

    fn table(entries: usize) -> Table {
        let mut table = Table::new(1_000, 10);
        for n in 0..entries {
            let entry = Entry {
                shard: (n % 10 != 0).then(|| ShardName::parse("s1").unwrap()),
                generation: 1,
                rank: Rank::Home,
                created: Stamp(1),
                origin: PeerId::parse("a").unwrap(),
                reason: Reason::Claim,
            };
            let key = StickKey::parse(&format!("room-{n}")).unwrap();
            table.merge(Now::default(), &key, &entry, Instant(9), Instant(9));
        }
        table
    }

    #[test]
    fn a_learner_gets_everything_in_batches_behind_a_window() {
        let table = table(100);
        let uses = Uses::new(10);
        let tell = Tell { now: Now::default(), uses: &uses, ttl_ms: 9 };
        let mut giver = Giver::new();
        assert!(giver.add(RangeId::ROOT, Which::Except(Vec::new(), Tombstones::With), AsOf::NOW, 1));
        let mut given = Vec::new();
        let mut through = 0;
        while let Some(give) = giver.next(&table, &tell, 1, 30) {
            assert_eq!(through, 0, "nothing follows the last batch");
            through = give.through;
            given.extend(give.items);
            assert!(giver.next(&table, &tell, 1, 30).is_none(), "the window is full");
            assert!(giver.acked(give.number) && !giver.acked(give.number + 1));
        }
        assert_eq!((given.len(), through, giver.idle()), (100, 1, true));
        given.sort_by(|a, b| a.key.cmp(&b.key));
        given.dedup_by(|a, b| a.key == b.key);
        assert_eq!(given.len(), 100);
    }

    #[test]
    fn only_what_is_wanted_is_given() {
        let table = table(100);
        let since = table.since(AsOf::NOW);
        let all: Vec<u32> =
            table.digests(RangeId::ROOT, &since).into_iter().map(|digest| AsOf::NOW.cut(digest)).collect();
        let uses = Uses::new(10);
        let tell = Tell { now: Now::default(), uses: &uses, ttl_ms: 9 };
        let mut giver = Giver::new();
        giver.add(RangeId::ROOT, Which::Only(all[..7].to_vec()), AsOf::NOW, 1);
        giver.add(RangeId::ROOT, Which::Except(all[..7].to_vec(), Tombstones::Without), AsOf::NOW, 2);
        let give = giver.next(&table, &tell, 2, 1_000).unwrap();
        assert_eq!((give.items.len(), give.through), (90, 2));
    }

    #[test]
    fn ranges_beyond_the_bound_are_not_taken_up() {
        let mut giver = Giver::new();
        let fits = (0..WORK_MAX + 9)
            .filter(|_| giver.add(RangeId::ROOT, Which::Only(Vec::new()), AsOf::NOW, 1))
            .count();
        assert_eq!(fits, WORK_MAX);
        giver.forget_questions();
        assert!(giver.idle());
    }
}
