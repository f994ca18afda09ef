//! The questions and answers of a reconciliation with a hostile peer: about ranges that were asked, or any.

use shardgate_peering::core::{
    AsOf, Compare, CompareContent, ComparePart, Compared, ComparedContent, ComparedPart, FAN_OUT, Message,
    Now, RangeId, Stamp,
};

use super::bytes::Bytes;
use super::hostile::{Heard, count};

/// A moment: of the last seconds, everything, or far away.
pub(super) fn as_of(bytes: &mut Bytes<'_>, now: Now) -> AsOf {
    let second = now.wall.0 / 1_000 * 1_000;
    match bytes.below(4) {
        0 => AsOf::NOW,
        1 => AsOf(Stamp(bytes.number(&[u64::MAX, 1 << 63]))),
        _ => AsOf(Stamp(
            second.saturating_sub(bytes.number(&[60]).saturating_mul(1_000)).saturating_mul(1 << 16),
        )),
    }
}

fn range(bytes: &mut Bytes<'_>) -> RangeId {
    let mut range = RangeId::ROOT;
    for _ in 0..bytes.below(18) {
        range = range.child(usize::from(bytes.below(16)));
    }
    range
}

/// Digests: some that were heard, some that were not.
fn digests(bytes: &mut Bytes<'_>, heard: &Heard) -> Vec<u32> {
    let mut known = Vec::new();
    for part in heard.compares.iter().flat_map(|compare| &compare.parts) {
        match &part.content {
            CompareContent::Parts(digests) => known.extend_from_slice(digests),
            CompareContent::All(digests) | CompareContent::Want(digests) => known.extend_from_slice(digests),
        }
    }
    let count = bytes.below(4);
    let any = |_| match bytes.byte() {
        byte @ 0..64 => u32::from(byte),
        _ => bytes.pick(&known).unwrap_or(u32::MAX),
    };
    (0..count).map(any).collect()
}

pub(super) fn compare(bytes: &mut Bytes<'_>, heard: &Heard, now: Now) -> Compare {
    let (id, number) = (bytes.number(&[1, u64::MAX]), bytes.number(&[1, u64::MAX]));
    let (as_of, learning) = (as_of(bytes, now), bytes.flag());
    let count = count(bytes);
    let parts = (0..count).map(|_| {
        let content = match bytes.below(4) {
            0 => CompareContent::Parts([0; FAN_OUT]),
            1 => CompareContent::Parts(std::array::from_fn(|_| u32::from(bytes.byte()))),
            2 => CompareContent::All(digests(bytes, heard)),
            _ => CompareContent::Want(digests(bytes, heard)),
        };
        ComparePart { range: range(bytes), content }
    });
    Compare { id, number, as_of, learning, parts: parts.collect() }
}

/// The answer to something that was asked, mostly.
pub(super) fn compared(bytes: &mut Bytes<'_>, heard: &Heard) -> Compared {
    let asked = if bytes.below(8) > 0 { bytes.pick(&heard.compares) } else { None };
    let ranges: Vec<RangeId> =
        asked.iter().flat_map(|compare| &compare.parts).map(|part| part.range).collect();
    let (id, number) = match asked {
        Some(compare) => (compare.id, compare.number),
        None => (bytes.number(&[1, u64::MAX]), bytes.number(&[1, u64::MAX])),
    };
    let gives = bytes.flag();
    let count = count(bytes);
    let parts = (0..count).map(|_| {
        let range = if bytes.below(8) > 0 { bytes.pick(&ranges) } else { None };
        let range = range.unwrap_or_else(|| self::range(bytes));
        let content = if bytes.flag() {
            ComparedContent::Want(digests(bytes, heard))
        } else {
            let differ = u16::from_le_bytes([bytes.byte(), bytes.byte()]);
            let few = (0..bytes.below(4)).map(|_| (bytes.below(16), digests(bytes, heard))).collect();
            ComparedContent::Parts { differ, few }
        };
        ComparedPart { range, content }
    });
    Compared { id, number, gives, parts: parts.collect() }
}

/// Ranges and digests.
pub(super) fn elements(compare: &Compare) -> usize {
    let digests = |part: &ComparePart| match &part.content {
        CompareContent::Parts(_) => FAN_OUT,
        CompareContent::All(list) | CompareContent::Want(list) => list.len(),
    };
    compare.parts.iter().map(|part| 1 + digests(part)).sum()
}

/// Ranges and digests.
pub(super) fn answered(compared: &Compared) -> usize {
    let digests = |part: &ComparedPart| match &part.content {
        ComparedContent::Parts { few, .. } => few.iter().map(|(_, list)| list.len()).sum(),
        ComparedContent::Want(list) => list.len(),
    };
    compared.parts.iter().map(|part| 1 + digests(part)).sum()
}

/// Every kind once.
pub(super) fn every_kind() -> Vec<Message> {
    let (root, child) = (RangeId::ROOT, RangeId::ROOT.child(5));
    let part = |range, content| ComparePart { range, content };
    let answer = |range, content| ComparedPart { range, content };
    vec![
        Message::Compare(Compare {
            id: 1,
            number: 1,
            as_of: AsOf::NOW,
            learning: true,
            parts: vec![part(root, CompareContent::All(Vec::new()))],
        }),
        Message::Compare(Compare {
            id: 1,
            number: 2,
            as_of: AsOf::NOW,
            learning: false,
            parts: vec![
                part(root, CompareContent::Parts([7; FAN_OUT])),
                part(child, CompareContent::All(vec![1, 2])),
                part(child.child(1), CompareContent::Want(vec![3])),
            ],
        }),
        Message::Compared(Compared {
            id: 1,
            number: 1,
            gives: true,
            parts: vec![
                answer(root, ComparedContent::Parts { differ: 33, few: vec![(0, vec![1]), (5, Vec::new())] }),
                answer(root, ComparedContent::Want(vec![9])),
            ],
        }),
    ]
}
