//! Where slots are kept: a slab of them, and an index in the order of their keys' hashes.
//!
//! Hashes are spread evenly, so the index needs no tree: their leading bits name a bucket, and a bucket lists its few slots in order.
//! That is 10 bytes an entry beside the slot itself, a walk through a range is a walk through buckets, and a slot has a number by which
//! timers name it. Places of entries that are gone are used again and not given back, as HAProxy's pools do it.

use alloc::vec::Vec;
use core::cell::Cell;
use core::cmp::Ordering;
use core::slice;

use crate::id::StickKey;
use crate::table::{Place, Slot};

/// Slots in a bucket of a full table, on average, or up to twice as many.
const BUCKET: usize = 16;
/// So many more places a full bucket gets: few stay empty.
const BUCKET_GROWTH: usize = 2;
/// Slots in a piece of the slab, which grows by pieces so that nothing is ever copied.
const PIECE: usize = 128;

/// A slot by its number. It is another key's after the slot was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

/// What a bucket lists: the bits of the hash that follow the bucket's own, and the slot.
#[derive(Debug, Clone, Copy)]
struct Listed {
    tail: u32,
    id: SlotId,
}

/// A position in the index.
#[derive(Debug, Clone, Copy)]
struct Position {
    bucket: usize,
    at: usize,
}

/// Slots by place, in the order of places.
#[derive(Debug)]
pub(crate) struct Slots {
    /// How many leading bits of a hash name its bucket.
    bits: u32,
    buckets: Vec<Vec<Listed>>,
    pieces: Vec<Vec<Option<(Place, Slot)>>>,
    free: Vec<SlotId>,
    len: usize,
    /// The slot that was found last: what an input touches, it touches several times.
    last: Cell<SlotId>,
}

impl Slots {
    /// For about so many entries; more fit, in longer buckets.
    pub(crate) fn new(entries_max: usize) -> Self {
        let bits = (entries_max / BUCKET).max(1).ilog2().clamp(4, 24);
        Self {
            bits,
            buckets: (0..1_usize << bits).map(|_| Vec::new()).collect(),
            pieces: Vec::new(),
            free: Vec::new(),
            len: 0,
            last: Cell::new(SlotId(0)),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The slot of a number, `None` when it is free.
    pub(crate) fn at(&self, id: SlotId) -> Option<(&Place, &Slot)> {
        let index = id.0 as usize;
        let (place, slot) = self.pieces.get(index / PIECE)?.get(index % PIECE)?.as_ref()?;
        Some((place, slot))
    }

    pub(crate) fn at_mut(&mut self, id: SlotId) -> Option<(&Place, &mut Slot)> {
        let index = id.0 as usize;
        let (place, slot) = self.pieces.get_mut(index / PIECE)?.get_mut(index % PIECE)?.as_mut()?;
        Some((place, slot))
    }

    pub(crate) fn find(&self, key: &StickKey) -> Option<SlotId> {
        let last = self.last.get();
        if self.at(last).is_some_and(|(place, _)| place.key == *key) {
            return Some(last);
        }
        let place = Place::of(key);
        let position = self.position(&place).ok()?;
        let id = self.buckets[position.bucket][position.at].id;
        self.last.set(id);
        Some(id)
    }

    /// Puts in a slot whose place is not taken.
    pub(crate) fn insert(&mut self, place: Place, slot: Slot) -> SlotId {
        let position = self.position(&place).unwrap_or_else(|position| position);
        let tail = self.tail(place.hash);
        let id = self.put(place, slot);
        let bucket = &mut self.buckets[position.bucket];
        if bucket.len() == bucket.capacity() {
            bucket.reserve_exact(BUCKET_GROWTH);
        }
        bucket.insert(position.at, Listed { tail, id });
        self.len += 1;
        self.last.set(id);
        id
    }

    pub(crate) fn remove(&mut self, place: &Place) -> Option<Slot> {
        let position = self.position(place).ok()?;
        let Listed { id, .. } = self.buckets[position.bucket].remove(position.at);
        let index = id.0 as usize;
        let (_, slot) = self.pieces[index / PIECE][index % PIECE].take()?;
        self.free.push(id);
        self.len -= 1;
        Some(slot)
    }

    /// From a hash on.
    pub(crate) fn starting_at(&self, hash: u64) -> Walk<'_> {
        let bucket = self.bucket(hash);
        let tail = self.tail(hash);
        let listed = &self.buckets[bucket];
        let before = listed.partition_point(|listed| listed.tail < tail);
        let before_all = |listed: &&Listed| self.place(listed.id).is_some_and(|place| place.hash < hash);
        let same_tail = listed[before..].iter().take_while(|listed| listed.tail == tail);
        let at = before + same_tail.filter(before_all).count();
        self.walk(Position { bucket, at })
    }

    /// What follows a place, whether it is taken or not.
    pub(crate) fn after(&self, place: &Place) -> Walk<'_> {
        let from = match self.position(place) {
            Ok(Position { bucket, at }) => Position { bucket, at: at + 1 },
            Err(position) => position,
        };
        self.walk(from)
    }

    fn walk(&self, from: Position) -> Walk<'_> {
        let listed = self.buckets[from.bucket][from.at..].iter();
        Walk { slots: self, listed, buckets: self.buckets[from.bucket + 1..].iter() }
    }

    fn put(&mut self, place: Place, slot: Slot) -> SlotId {
        if let Some(id) = self.free.pop() {
            let index = id.0 as usize;
            self.pieces[index / PIECE][index % PIECE] = Some((place, slot));
            return id;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let full = (self.pieces.len() - 1) * PIECE;
        let piece = &mut self.pieces[full / PIECE];
        // As many slots as `u32` counts do not fit into memory, and the table's bound is far below.
        let id = SlotId((full + piece.len()) as u32);
        piece.push(Some((place, slot)));
        id
    }

    fn place(&self, id: SlotId) -> Option<&Place> {
        self.at(id).map(|(place, _)| place)
    }

    const fn bucket(&self, hash: u64) -> usize {
        (hash >> (64 - self.bits)) as usize
    }

    const fn tail(&self, hash: u64) -> u32 {
        ((hash << self.bits) >> 32) as u32
    }

    /// Where a place is listed, or would be.
    fn position(&self, place: &Place) -> Result<Position, Position> {
        let bucket = self.bucket(place.hash);
        let tail = self.tail(place.hash);
        let compare = |listed: &Listed| {
            let whole = || self.place(listed.id).map_or(Ordering::Less, |there| there.cmp(place));
            listed.tail.cmp(&tail).then_with(whole)
        };
        let found = self.buckets[bucket].binary_search_by(compare);
        found.map(|at| Position { bucket, at }).map_err(|at| Position { bucket, at })
    }
}

/// Slots in the order of their places.
#[derive(Debug)]
pub(crate) struct Walk<'s> {
    slots: &'s Slots,
    listed: slice::Iter<'s, Listed>,
    buckets: slice::Iter<'s, Vec<Listed>>,
}

impl<'s> Iterator for Walk<'s> {
    type Item = (&'s Place, &'s Slot);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(listed) = self.listed.next() {
                return self.slots.at(listed.id);
            }
            self.listed = self.buckets.next()?.iter();
        }
    }
}

#[cfg(test)]
mod tests;
