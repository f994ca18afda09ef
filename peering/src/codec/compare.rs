//! The questions and answers of a reconciliation.

use shardgate_peering_core::{
    AsOf, Compare, CompareContent, ComparePart, Compared, ComparedContent, ComparedPart, FAN_OUT, RangeId,
    Stamp,
};
use shardgate_proto::peer as wire;

use super::{FrameError, ITEMS_MAX, bounded};

fn tags_to_wire(tags: &[u32]) -> Vec<u8> {
    tags.iter().flat_map(|tag| tag.to_le_bytes()).collect()
}

fn tags_from_wire(field: &'static str, bytes: &[u8]) -> Result<Vec<u32>, FrameError> {
    let (tags, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(FrameError::Columns { field });
    }
    bounded(field, tags.len())?;
    Ok(tags.iter().map(|tag| u32::from_le_bytes(*tag)).collect())
}

fn range(field: &'static str, number: u64) -> Result<RangeId, FrameError> {
    RangeId::parse(number).ok_or(FrameError::Range { field, value: number })
}

/// All digests of a message together are bounded, not only those of a part.
struct Budget {
    field: &'static str,
    left: usize,
}

impl Budget {
    const fn take(&mut self, count: usize) -> Result<(), FrameError> {
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(FrameError::TooMany { field: self.field, count, most: ITEMS_MAX }),
        }
    }
}

/// As many as the core puts into one message, and some more.
const DIGESTS_MAX: usize = 4 * ITEMS_MAX;

pub(super) fn to_wire(compare: &Compare) -> wire::Compare {
    use wire::compare_part::Content as W;
    let part = |part: &ComparePart| {
        let content = match &part.content {
            CompareContent::Parts(parts) => W::Parts(tags_to_wire(parts)),
            CompareContent::All(all) => W::All(tags_to_wire(all)),
            CompareContent::Want(want) => W::Want(tags_to_wire(want)),
        };
        wire::ComparePart { range: part.range.number(), content: Some(content) }
    };
    let Compare { id, number, as_of, learning, parts } = compare;
    let parts = parts.iter().map(part).collect();
    wire::Compare { id: *id, number: *number, as_of: as_of.0.0, learning: *learning, parts }
}

pub(super) fn from_wire(compare: wire::Compare) -> Result<Compare, FrameError> {
    use wire::compare_part::Content as W;
    bounded("compare.parts", compare.parts.len())?;
    let mut budget = Budget { field: "compare.parts", left: DIGESTS_MAX };
    let mut parts = Vec::with_capacity(compare.parts.len());
    for part in compare.parts {
        let content = match part.content {
            Some(W::Parts(bytes)) => {
                let digests = tags_from_wire("compare.parts.parts", &bytes)?;
                let digests: [u32; FAN_OUT] =
                    digests.try_into().map_err(|_| FrameError::Columns { field: "compare.parts.parts" })?;
                CompareContent::Parts(digests)
            }
            Some(W::All(bytes)) => {
                let all = tags_from_wire("compare.parts.all", &bytes)?;
                budget.take(all.len())?;
                CompareContent::All(all)
            }
            Some(W::Want(bytes)) => {
                let want = tags_from_wire("compare.parts.want", &bytes)?;
                budget.take(want.len())?;
                CompareContent::Want(want)
            }
            None => return Err(FrameError::Missing { field: "compare.parts.content" }),
        };
        parts.push(ComparePart { range: range("compare.parts.range", part.range)?, content });
    }
    let wire::Compare { id, number, as_of, learning, .. } = compare;
    Ok(Compare { id, number, as_of: AsOf(Stamp(as_of)), learning, parts })
}

pub(super) fn answer_to_wire(compared: &Compared) -> wire::Compared {
    let part = |part: &ComparedPart| {
        let range = part.range.number();
        match &part.content {
            ComparedContent::Parts { differ, few } => {
                let few = few
                    .iter()
                    .map(|(part, tags)| wire::Few { part: (*part).into(), digests: tags_to_wire(tags) })
                    .collect();
                wire::ComparedPart { range, differ: (*differ).into(), few, want: Vec::new() }
            }
            ComparedContent::Want(want) => {
                wire::ComparedPart { range, want: tags_to_wire(want), ..wire::ComparedPart::default() }
            }
        }
    };
    let Compared { id, number, gives, parts } = compared;
    wire::Compared { id: *id, number: *number, gives: *gives, parts: parts.iter().map(part).collect() }
}

pub(super) fn answer_from_wire(compared: wire::Compared) -> Result<Compared, FrameError> {
    bounded("compared.parts", compared.parts.len())?;
    let mut budget = Budget { field: "compared.parts", left: DIGESTS_MAX };
    let mut parts = Vec::with_capacity(compared.parts.len());
    for part in compared.parts {
        let content = if part.want.is_empty() {
            let differ = u16::try_from(part.differ).map_err(|_| FrameError::Range {
                field: "compared.parts.differ",
                value: part.differ.into(),
            })?;
            let mut few = Vec::new();
            bounded("compared.parts.few", part.few.len())?;
            for wire::Few { part, digests } in part.few {
                let index = u8::try_from(part).ok().filter(|index| usize::from(*index) < FAN_OUT);
                let index = index.ok_or_else(|| FrameError::Range {
                    field: "compared.parts.few.part",
                    value: part.into(),
                })?;
                let tags = tags_from_wire("compared.parts.few.digests", &digests)?;
                budget.take(tags.len())?;
                few.push((index, tags));
            }
            ComparedContent::Parts { differ, few }
        } else {
            let want = tags_from_wire("compared.parts.want", &part.want)?;
            budget.take(want.len())?;
            ComparedContent::Want(want)
        };
        parts.push(ComparedPart { range: range("compared.parts.range", part.range)?, content });
    }
    let wire::Compared { id, number, gives, .. } = compared;
    Ok(Compared { id, number, gives, parts })
}
