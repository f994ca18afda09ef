//! Keys by the time at which to look at them again, in coarse steps.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::id::StickKey;
use crate::time::Instant;

/// Keys in coarse steps of time. A key may stand in several; its owner knows which one counts.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    steps: BTreeMap<Instant, Vec<StickKey>>,
}

impl Timers {
    /// Answers the step.
    pub(crate) fn push(&mut self, at: Instant, grain_ms: u64, key: StickKey) -> Instant {
        let step = Instant(at.0.div_ceil(grain_ms).saturating_mul(grain_ms));
        self.steps.entry(step).or_default().push(key);
        step
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.steps.first_key_value().map(|(at, _)| *at)
    }

    /// Keys whose step has come, with it.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(Instant, StickKey)> {
        let mut due = Vec::new();
        while let Some(first) = self.steps.first_entry() {
            let step = *first.key();
            if step > now {
                break;
            }
            due.extend(first.remove().into_iter().map(|key| (step, key)));
        }
        due
    }

    /// The first step with its time, taken out.
    pub(crate) fn take_first(&mut self) -> Option<(Instant, Vec<StickKey>)> {
        self.steps.pop_first()
    }

    /// Puts back what was taken out of a step.
    pub(crate) fn put_back(&mut self, step: Instant, keys: Vec<StickKey>) {
        if !keys.is_empty() {
            self.steps.entry(step).or_default().extend(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_once() {
        let mut timers = Timers::default();
        let key = |name| StickKey::parse(name).unwrap();
        timers.push(Instant(25), 10, key("b"));
        timers.push(Instant(5), 10, key("a"));
        assert_eq!(timers.next(), Some(Instant(10)));
        assert!(timers.due(Instant(9)).is_empty());
        assert_eq!(timers.due(Instant(30)), [(Instant(10), key("a")), (Instant(30), key("b"))]);
        assert_eq!(timers.next(), None);
    }
}
