//! Many keys in columns: names stand once, and a column that would say the same of all is left out.

use shardgate_peering_core::{Change, Entry, Item, Lease, Rank, Reason, Stamp, StickKey};
use shardgate_proto::peer as wire;

use super::{FrameError, Heard, Told, bounded, key, peer, shard};

const ENTRY: u32 = 0;
const RENEWED: u32 = 1;
const DROPPED: u32 = 2;
const HELD: u32 = 1 << 2;
const ALONE: u32 = 1 << 3;
const REASON_SHIFT: u32 = 4;

/// A tenth of a second is fine enough for lifetimes, and lets most of a batch be alike. Rounded up: nothing ends sooner.
const GRAIN_MS: u64 = 100;

fn tenths(remaining_ms: u64) -> u32 {
    u32::try_from(remaining_ms.div_ceil(GRAIN_MS)).unwrap_or(u32::MAX)
}

/// A column that is left out when all its values are what an absent one says.
fn unless_all(values: Vec<u32>, absent: u32) -> Vec<u32> {
    if values.iter().all(|value| *value == absent) { Vec::new() } else { values }
}

/// One value when all are the same.
fn once_if_same(mut values: Vec<u32>) -> Vec<u32> {
    if values.windows(2).all(|pair| pair[0] == pair[1]) {
        values.truncate(1);
    }
    values
}

/// How much each key shares with the one before, and its rest. Cut between characters, so that a rest is text.
pub(super) fn keys_to_wire<'k>(keys: impl Iterator<Item = &'k str>) -> (Vec<u32>, Vec<String>) {
    let (mut shared, mut rests) = (Vec::new(), Vec::new());
    let mut before = "";
    for key in keys {
        let alike = key.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
        let cut = (0..=alike).rev().find(|at| key.is_char_boundary(*at)).unwrap_or(0);
        shared.push(u32::try_from(cut).unwrap_or(0));
        rests.push(key.get(cut..).unwrap_or(key).to_owned());
        before = key;
    }
    (unless_all(shared, 0), rests)
}

/// The whole key.
pub(super) fn whole_key(
    field: &'static str,
    before: Option<&StickKey>,
    shared: u32,
    rest: &str,
) -> Result<StickKey, FrameError> {
    if shared == 0 {
        return key(field, rest);
    }
    let head = usize::try_from(shared).ok().and_then(|shared| before?.as_str().get(..shared));
    let head = head.ok_or(FrameError::Columns { field: "items.shared" })?;
    key(field, &format!("{head}{rest}"))
}

pub(super) fn to_wire(items: &[Item], told: &mut Told) -> wire::Items {
    let Told { shards, origins, last } = told;
    let (mut shards, mut origins) = (shards.begin(), origins.begin());
    let mut columns = wire::Items {
        remaining: once_if_same(items.iter().map(|item| tenths(item.remaining_ms)).collect()),
        ..wire::Items::default()
    };
    (columns.shared, columns.keys) = keys_to_wire(items.iter().map(|item| item.key.as_str()));
    let mut difference = |at: Stamp| {
        let step = at.0.wrapping_sub(*last).cast_signed();
        *last = at.0;
        step
    };
    for item in items {
        let mut kind = if item.held { HELD } else { 0 };
        match &item.change {
            Change::Entry(entry) => {
                kind |= ENTRY | (u32::from(super::reason_code(entry.reason)) << REASON_SHIFT);
                if entry.rank == Rank::Alone {
                    kind |= ALONE;
                }
                columns.shard.push(entry.shard.as_ref().map_or(0, |name| shards.number(name) + 1));
                columns.origin.push(origins.number(&entry.origin));
                columns.generation.push(entry.generation);
                columns.created.push(difference(entry.created));
            }
            Change::Renewed => kind |= RENEWED,
            Change::Dropped { digest, at } => {
                kind |= DROPPED;
                columns.dropped.push(*digest);
                columns.created.push(difference(*at));
            }
        }
        columns.kinds.push(kind);
    }
    columns.kinds = unless_all(columns.kinds, 0);
    columns.origin = unless_all(columns.origin, 0);
    columns.generation = unless_all(columns.generation, 1);
    (columns.shards, columns.origins) = (shards.end(), origins.end());
    columns
}

/// One column being read.
pub(super) struct Column<T> {
    field: &'static str,
    values: std::vec::IntoIter<T>,
    /// What stands for a column that was left out, or for all values of a short one.
    absent: Option<T>,
}

impl<T: Copy> Column<T> {
    pub(super) fn new(field: &'static str, values: Vec<T>, absent: Option<T>) -> Self {
        Self { field, absent: if values.is_empty() { absent } else { None }, values: values.into_iter() }
    }

    pub(super) fn next(&mut self) -> Result<T, FrameError> {
        self.values.next().or(self.absent).ok_or(FrameError::Columns { field: self.field })
    }

    pub(super) fn end(self) -> Result<(), FrameError> {
        if self.values.len() == 0 { Ok(()) } else { Err(FrameError::Columns { field: self.field }) }
    }
}

/// The lifetimes of so many keys.
fn remaining(field: &'static str, mut values: Vec<u32>, keys: usize) -> Result<Column<u32>, FrameError> {
    if values.len() == 1 && keys != 1 {
        let all = values.remove(0);
        return Ok(Column::new(field, Vec::new(), Some(all)));
    }
    if values.len() != keys {
        return Err(FrameError::Columns { field });
    }
    Ok(Column::new(field, values, Some(0)))
}

pub(super) fn from_wire(items: Option<wire::Items>, heard: &mut Heard) -> Result<Vec<Item>, FrameError> {
    let Some(columns) = items else { return Ok(Vec::new()) };
    bounded("items", columns.keys.len())?;
    bounded("items.shards", columns.shards.len())?;
    bounded("items.origins", columns.origins.len())?;
    let shards = columns.shards.iter().map(|name| shard("items.shards", name)).collect::<Result<_, _>>()?;
    let origins = columns.origins.iter().map(|name| peer("items.origins", name)).collect::<Result<_, _>>()?;
    let Heard { shards: known_shards, origins: known_origins, last } = heard;
    let (shards, origins) = (known_shards.with(shards), known_origins.with(origins));
    let mut kinds = Column::new("items.kinds", columns.kinds, Some(0));
    let mut remaining = remaining("items.remaining", columns.remaining, columns.keys.len())?;
    let mut on = Column::new("items.shard", columns.shard, None);
    let mut origin = Column::new("items.origin", columns.origin, Some(0));
    let mut generation = Column::new("items.generation", columns.generation, Some(1));
    let mut created = Column::new("items.created", columns.created, None);
    let mut dropped = Column::new("items.dropped", columns.dropped, None);
    let mut stamp = |created: &mut Column<i64>| {
        *last = last.wrapping_add(created.next()?.cast_unsigned());
        Ok::<_, FrameError>(Stamp(*last))
    };
    let mut shared = Column::new("items.shared", columns.shared, Some(0));
    let mut items: Vec<Item> = Vec::with_capacity(columns.keys.len());
    for rest in &columns.keys {
        let before = items.last().map(|item| &item.key);
        let key = whole_key("items.keys", before, shared.next()?, rest)?;
        let kind = kinds.next()?;
        let change = match kind & 3 {
            ENTRY => Change::Entry(Entry {
                shard: match on.next()? {
                    0 => None,
                    number => Some(shards.name("items.shard", number - 1)?),
                },
                generation: generation.next()?,
                rank: if kind & ALONE == 0 { Rank::Home } else { Rank::Alone },
                created: stamp(&mut created)?,
                origin: origins.name("items.origin", origin.next()?)?,
                reason: reason("items.kinds", kind)?,
            }),
            RENEWED => Change::Renewed,
            DROPPED => Change::Dropped { digest: dropped.next()?, at: stamp(&mut created)? },
            _ => return Err(FrameError::Enum { field: "items.kinds", value: kind.cast_signed() }),
        };
        let remaining_ms = u64::from(remaining.next()?) * GRAIN_MS;
        items.push(Item { key, change, remaining_ms, held: kind & HELD != 0 });
    }
    kinds.end()?;
    shared.end()?;
    remaining.end()?;
    on.end()?;
    origin.end()?;
    generation.end()?;
    created.end()?;
    dropped.end()?;
    shards.learn();
    origins.learn();
    Ok(items)
}

fn reason(field: &'static str, kind: u32) -> Result<Reason, FrameError> {
    super::reason_from_wire(field, (kind >> REASON_SHIFT).cast_signed())
}

pub(super) fn leases_to_wire(leases: &[Lease]) -> wire::LeaseReport {
    let held = leases.iter().enumerate().filter(|(_, lease)| lease.held);
    wire::LeaseReport {
        keys: leases.iter().map(|lease| lease.key.to_string()).collect(),
        remaining: once_if_same(leases.iter().map(|lease| tenths(lease.remaining_ms)).collect()),
        held: held.map(|(index, _)| u32::try_from(index).unwrap_or(u32::MAX)).collect(),
    }
}

pub(super) fn leases_from_wire(report: wire::LeaseReport) -> Result<Vec<Lease>, FrameError> {
    bounded("lease_report.keys", report.keys.len())?;
    bounded("lease_report.held", report.held.len())?;
    let mut remaining = remaining("lease_report.remaining", report.remaining, report.keys.len())?;
    let mut leases = Vec::with_capacity(report.keys.len());
    for text in &report.keys {
        let key: StickKey = key("lease_report.keys", text)?;
        leases.push(Lease { key, remaining_ms: u64::from(remaining.next()?) * GRAIN_MS, held: false });
    }
    remaining.end()?;
    for index in report.held {
        let lease = usize::try_from(index).ok().and_then(|index| leases.get_mut(index));
        lease.ok_or(FrameError::Columns { field: "lease_report.held" })?.held = true;
    }
    Ok(leases)
}
