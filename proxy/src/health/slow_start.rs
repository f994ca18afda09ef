//! How a server that came up gets its weight: in equal steps (HAProxy's `slowstart`). Pure.

use super::Share;
use crate::clock::Millis;

/// A ramp of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ramp {
    /// How long until the whole weight; 0 is no ramp.
    pub(super) whole_ms: Millis,
    /// Steps to it, at least 1.
    pub(super) steps: u32,
}

impl Ramp {
    fn step_ms(self) -> Millis {
        (self.whole_ms / Millis::from(self.steps)).max(1)
    }

    /// The share of its weight that a server has `since_ms` after it came up, and when the next step comes, counted from then too; `None`
    /// with the whole weight.
    pub(super) fn at(self, since_ms: Millis) -> (Share, Option<Millis>) {
        if since_ms >= self.whole_ms {
            return (Share::WHOLE, None);
        }
        let taken = since_ms / self.step_ms();
        let steps = Millis::from(self.steps);
        if taken >= steps {
            return (Share::WHOLE, None);
        }
        (Share::of(taken + 1, steps + 1), Some((taken + 1) * self.step_ms()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_comes_in_steps() {
        // hsdo's: from 1 to 10, one step each 30 s.
        let ramp = Ramp { whole_ms: 270_000, steps: 9 };
        for (since_s, tenths) in [(0, 1), (29, 1), (30, 2), (75, 3), (269, 9)] {
            let (share, next) = ramp.at(since_s * 1_000);
            assert_eq!(share.of_weight(10), tenths, "{since_s}");
            assert_eq!(next, Some((since_s / 30 + 1) * 30_000), "{since_s}");
        }
        assert_eq!(ramp.at(270_000), (Share::WHOLE, None));
        assert_eq!(Ramp { whole_ms: 0, steps: 20 }.at(0), (Share::WHOLE, None));
    }

    #[test]
    fn it_only_grows_and_ends() {
        for (whole_ms, steps) in [(1, 1_000), (7, 3), (60_000, 20), (1_000, 1), (999, 1_000)] {
            let ramp = Ramp { whole_ms, steps };
            let (mut now, mut before) = (0, Share::of(0, 1));
            for _ in 0..2_000 {
                let (share, next) = ramp.at(now);
                assert!(share >= before, "{ramp:?} at {now}");
                before = share;
                let Some(next) = next else { break };
                assert!(next > now, "{ramp:?} at {now}");
                now = next;
            }
            assert_eq!(before, Share::WHOLE, "{ramp:?}");
        }
    }
}
