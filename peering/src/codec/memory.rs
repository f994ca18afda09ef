//! What both ends of a stream remember of it, so that a name stands on it once: in the manner of the dictionaries of HAProxy's peers
//! protocol. Numbers follow from the order in which names were told, so both ends give the same.

use std::collections::BTreeMap;

use shardgate_peering_core::{PeerId, ShardName};

use super::FrameError;

/// How many names of each sort are remembered. Later ones are told whenever they are needed.
const NAMES_MAX: usize = 512;

/// The writer's side.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) shards: ToldNames<ShardName>,
    pub(super) origins: ToldNames<PeerId>,
    /// The last stamp.
    pub(super) last: u64,
}

/// The reader's side.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) shards: HeardNames<ShardName>,
    pub(super) origins: HeardNames<PeerId>,
    /// The last stamp.
    pub(super) last: u64,
}

/// Names by their numbers.
#[derive(Debug)]
pub(super) struct ToldNames<T>(BTreeMap<T, u32>);

impl<T> Default for ToldNames<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Clone + ToString> ToldNames<T> {
    /// For one message.
    pub(super) fn begin(&mut self) -> Telling<'_, T> {
        let known = self.0.len();
        Telling { names: self, known, new: Vec::new() }
    }
}

/// The names of a message that is being written.
#[derive(Debug)]
pub(super) struct Telling<'n, T> {
    names: &'n mut ToldNames<T>,
    known: usize,
    new: Vec<T>,
}

impl<T: Ord + Clone + ToString> Telling<'_, T> {
    pub(super) fn number(&mut self, name: &T) -> u32 {
        if let Some(number) = self.names.0.get(name) {
            return *number;
        }
        let number = u32::try_from(self.known + self.new.len()).unwrap_or(u32::MAX);
        self.new.push(name.clone());
        self.names.0.insert(name.clone(), number);
        number
    }

    /// The names that this message has to tell.
    pub(super) fn end(self) -> Vec<String> {
        for name in self.new.iter().skip(NAMES_MAX.saturating_sub(self.known)) {
            self.names.0.remove(name);
        }
        self.new.iter().map(ToString::to_string).collect()
    }
}

/// Names in the order of their numbers.
#[derive(Debug)]
pub(super) struct HeardNames<T>(Vec<T>);

impl<T> Default for HeardNames<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> HeardNames<T> {
    /// Those that are known, and those that a message tells.
    pub(super) const fn with(&mut self, new: Vec<T>) -> Hearing<'_, T> {
        Hearing { names: self, new }
    }
}

/// The names of a message that is being read.
#[derive(Debug)]
pub(super) struct Hearing<'n, T> {
    names: &'n mut HeardNames<T>,
    new: Vec<T>,
}

impl<T: Clone> Hearing<'_, T> {
    pub(super) fn name(&self, field: &'static str, number: u32) -> Result<T, FrameError> {
        let known = &self.names.0;
        let found = usize::try_from(number).ok().and_then(|number| match number.checked_sub(known.len()) {
            None => known.get(number),
            Some(new) => self.new.get(new),
        });
        found.cloned().ok_or_else(|| FrameError::Enum { field, value: number.cast_signed() })
    }

    /// They are known from now on.
    pub(super) fn learn(self) {
        let room = NAMES_MAX.saturating_sub(self.names.0.len());
        self.names.0.extend(self.new.into_iter().take(room));
    }
}
