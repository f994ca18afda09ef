//! What to look at again, by the time for it, in coarse steps.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::time::Instant;

/// A step of some timers, counted from the node's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Step(u32);

impl Step {
    /// No timer stands there.
    pub(crate) const NEVER: Self = Self(u32::MAX);
}

/// Somewhere between two names of a step; at first before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    step: Step,
    index: usize,
}

impl Mark {
    /// Before everything of a step.
    pub(crate) const fn of(step: Step) -> Self {
        Self { step, index: 0 }
    }
}

/// Names of things in coarse steps of time. A name may stand in several; its owner knows which one counts.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    grain_ms: u64,
    steps: BTreeMap<Step, Vec<T>>,
}

impl<T> Timers<T> {
    /// Steps are so long.
    pub(crate) const fn new(grain_ms: u64) -> Self {
        Self { grain_ms, steps: BTreeMap::new() }
    }

    /// The step that comes at that moment or soon after it.
    pub(crate) fn step(&self, at: Instant) -> Step {
        let step = u32::try_from(at.0.div_ceil(self.grain_ms)).unwrap_or(u32::MAX);
        Step(step.min(u32::MAX - 1))
    }

    /// When a step comes.
    pub(crate) const fn at(&self, step: Step) -> Instant {
        Instant((step.0 as u64).saturating_mul(self.grain_ms))
    }

    /// Answers the step.
    pub(crate) fn push(&mut self, at: Instant, name: T) -> Step {
        let step = self.step(at);
        self.steps.entry(step).or_default().push(name);
        step
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.steps.first_key_value().map(|(step, _)| self.at(*step))
    }

    /// Whose step has come, with it.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(Step, T)> {
        let mut due = Vec::new();
        while self.next().is_some_and(|next| next <= now)
            && let Some((step, names)) = self.steps.pop_first()
        {
            due.extend(names.into_iter().map(|name| (step, name)));
        }
        due
    }

    /// What stands at a mark and behind it, in the order of time, each with the mark behind it.
    pub(crate) fn walk(&self, from: Mark) -> impl Iterator<Item = (Step, &T, Mark)> {
        self.steps.range(from.step..).flat_map(move |(step, names)| {
            let first = if *step == from.step { from.index } else { 0 };
            let names = names.iter().enumerate().skip(first);
            names.map(move |(index, name)| (*step, name, Mark { step: *step, index: index + 1 }))
        })
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.steps.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_once() {
        let mut timers = Timers::new(10);
        timers.push(Instant(25), "b");
        timers.push(Instant(5), "a");
        assert_eq!(timers.next(), Some(Instant(10)));
        assert!(timers.due(Instant(9)).is_empty());
        assert_eq!(timers.due(Instant(30)), [(Step(1), "a"), (Step(3), "b")]);
        assert_eq!((timers.next(), timers.at(Step(3))), (None, Instant(30)));
    }
}
